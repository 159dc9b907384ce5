/*
 * net.c: io/ in a simulation: the in-memory network, with a way to put it back to the start; which
 * drivers there are; and no kernel.
 */
#include <string.h>

/* Both have state outside a runtime. */
#include "io/mem.c"
#include "io/mem_name.c"

#include "io/drivers.h"
#include "io/syscall.h"
#include "test/sim/net.h"

const struct wf_driver *const wf_drivers[] = {&sim_driver, &wf_driver_mem, NULL};
const struct wf_driver *const wf_poll_drivers[] = {&wf_driver_mem, NULL};

long wf_sim_syscall(long number)
{
	/* The limit that a line of the log names. */
	if (number == SYS_prlimit64)
		return 0;
	sim_fail("a system call: %ld", number);
}

void sim_net_reset(const struct weft_mem_opts *opts)
{
	memset(&table, 0, sizeof(table));
	memset(&names, 0, sizeof(names));
	memset(wf_mem_segments, 0, sizeof(wf_mem_segments));
	sim_check(weft_mem_setup(opts) == 0, "weft_mem_setup");
}

static void check_slot(struct wf_mem_socket *socket)
{
	struct wf_fd_entry *entry = &socket->entry;
	uint64_t word = wf_u64_load_relaxed(&entry->word);

	sim_check(entry->reader.raw == 0 && entry->writer.raw == 0 &&
			wf_ptr_load_relaxed(&entry->many) == NULL,
		"somebody still waits for socket %u", socket->index);
	sim_check((word & (WF_FD_STATE | WF_FD_OPERATIONS)) == WF_FD_FREE, "socket %u is not free",
		socket->index);
}

void sim_net_check(void)
{
	sim_check(table.open == 0, "%u handles are left open", table.open);
	sim_check(table.taken == 0, "%u sockets are left", table.taken);
	for (unsigned i = 0; i < BUCKETS; i++)
		sim_check(names.buckets[i] == NULL, "a name is left");
	for (unsigned i = 0; i < WF_MEM_SEGMENTS; i++) {
		struct wf_mem_socket *slots = wf_ptr_load_relaxed(&wf_mem_segments[i]);
		uint32_t count = (uint32_t)(segment_bytes(i) / sizeof(struct wf_mem_socket));

		for (uint32_t n = 0; slots != NULL && n < count; n++)
			check_slot(&slots[n]);
		if (slots != NULL)
			sim_free(slots, segment_bytes(i));
	}
}
