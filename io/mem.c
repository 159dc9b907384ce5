/*
 * mem.c: the in-memory network's sockets: their table, handles and uses, and what is drawn by its
 * seed. mem.h has the whole.
 *
 * A slot is free (in the free list, which gives out the one that was freed first), taken (in use,
 * its entry still FREE: the far end of a connection that nobody has accepted), or open (its entry
 * OPEN, then CLOSING). The generation moves on when a use ends, so a taken slot has the one that it
 * is opened with.
 */
#include "io/mem.h"

#include <string.h>

#include "core/internal.h"
#include "core/map.h"

wf_atomic_ptr wf_mem_segments[WF_MEM_SEGMENTS];

struct wf_mem_network wf_mem_network = {
	.opts = {
		.size = sizeof(struct weft_mem_opts),
		.buffer_bytes = WF_MEM_BUFFER_BYTES,
		.sockets_max = WF_MEM_SOCKETS_MAX,
	},
};

/* The free slots. */
static struct {
	struct wf_spinlock lock;
	struct wf_mem_link free; /* a ring; zero: nothing was ever freed */
	unsigned made;           /* slots that have been used, by index */
	unsigned taken, open;    /* in use; of these: what handles exist for */
} table;

/* --- slots --- */

static unsigned segment_of(uint32_t index)
{
	return 32u - WF_MEM_FIRST_SEGMENT_SHIFT -
		(unsigned)__builtin_clz(index | ((1u << WF_MEM_FIRST_SEGMENT_SHIFT) - 1));
}

static uint32_t segment_first(unsigned segment)
{
	return segment ? 1u << (WF_MEM_FIRST_SEGMENT_SHIFT - 1 + segment) : 0;
}

static size_t segment_bytes(unsigned segment)
{
	unsigned shift = WF_MEM_FIRST_SEGMENT_SHIFT + (segment ? segment - 1 : 0);

	return ((size_t)1 << shift) * sizeof(struct wf_mem_socket);
}

static struct wf_mem_socket *slot_at(uint32_t index)
{
	unsigned segment = segment_of(index);
	struct wf_mem_socket *slots;

	/* B1: acquire, with B2: the slots are mapped before they are seen. */
	slots = wf_ptr_load_acquire(&wf_mem_segments[segment]);
	return slots ? &slots[index - segment_first(segment)] : NULL;
}

struct wf_mem_socket *wf_mem_find(int fd)
{
	uint32_t index = (uint32_t)fd & (WF_MEM_SOCKETS_MAX - 1);
	uint32_t rest = (uint32_t)fd >> (WF_MEM_INDEX_BITS + WF_MEM_GENERATION_BITS);

	/* Of this driver's, and a handle at all. */
	if (rest != WF_FD_NUMBER_MAX >> (WF_MEM_INDEX_BITS + WF_MEM_GENERATION_BITS))
		return NULL;
	return slot_at(index);
}

int wf_mem_handle(const struct wf_mem_socket *socket)
{
	uint32_t mask = (1u << WF_MEM_GENERATION_BITS) - 1;

	return (int)(WF_FD_NUMBER_MAX | (socket->generation & mask) << WF_MEM_INDEX_BITS |
		socket->index);
}

/* Maps the segment of a slot. False: no memory. */
static WF_COLD bool segment_make(unsigned segment)
{
	void *slots, *none = NULL;

	if (wf_map_kernel.map(wf_map_kernel.ctx, segment_bytes(segment), &slots) < 0)
		return false;
	/* B2: release (the RMW), with B1. The slots are zero: free, generation 0. */
	if (!wf_ptr_cas(&wf_mem_segments[segment], &none, slots))
		(void)wf_map_kernel.unmap(wf_map_kernel.ctx, slots, segment_bytes(segment));
	return true;
}

/* A slot that was in use before; NULL: there is none. Under the lock. */
static struct wf_mem_socket *take_freed(void)
{
	struct wf_mem_link *link = table.free.next;

	if (!link || link == &table.free)
		return NULL;
	wf_mem_link_remove(link);
	return WF_CONTAINER_OF(link, struct wf_mem_socket, link);
}

/* One that never was. Under the lock. NULL: its segment is missing (*segment_out), or none left. */
static struct wf_mem_socket *take_fresh(unsigned *segment_out)
{
	struct wf_mem_socket *socket = NULL;

	*segment_out = WF_MEM_SEGMENTS;
	if (table.made == WF_MEM_SOCKETS_MAX)
		return NULL;
	socket = slot_at(table.made);
	if (socket)
		socket->index = table.made++;
	else
		*segment_out = segment_of(table.made);
	return socket;
}

static void slot_begin(struct wf_mem_socket *socket)
{
	socket->generation = wf_fd_generation(wf_u64_load_relaxed(&socket->entry.word));
	socket->role = WF_MEM_IDLE;
	socket->peer_generation = 0;
	wf_ptr_store_relaxed(&socket->peer, NULL);
	socket->in = (struct wf_mem_inflow){ .end_due = WEFT_FOREVER };
	socket->queued_due = 0;
	socket->name = NULL;
	socket->is_told = false;
	socket->queued_count = 0;
	socket->address[0] = '\0';
}

struct wf_mem_socket *wf_mem_take(void)
{
	struct wf_mem_socket *socket;
	unsigned segment;

	for (;;) {
		wf_spinlock_lock(&table.lock);
		segment = WF_MEM_SEGMENTS;
		socket = take_freed();
		if (!socket)
			socket = take_fresh(&segment);
		if (socket)
			table.taken++;
		wf_spinlock_unlock(&table.lock);
		if (socket || segment == WF_MEM_SEGMENTS || !segment_make(segment))
			break;
	}
	if (!socket)
		return NULL;
	/* Who holds a stale pointer to the slot may be looking at it. */
	wf_spinlock_lock(&socket->lock);
	slot_begin(socket);
	wf_spinlock_unlock(&socket->lock);
	return socket;
}

bool wf_mem_count_open(void)
{
	bool room;

	wf_spinlock_lock(&table.lock);
	room = table.open < wf_mem_network.opts.sockets_max;
	table.open += room;
	wf_spinlock_unlock(&table.lock);
	return room;
}

static void slot_free(struct wf_mem_socket *socket, bool counted)
{
	wf_spinlock_lock(&table.lock);
	if (!table.free.next)
		wf_mem_ring_init(&table.free);
	wf_mem_link_append(&table.free, &socket->link);
	table.taken--;
	table.open -= counted;
	wf_spinlock_unlock(&table.lock);
}

int wf_mem_make(struct wf_mem_socket **socket_out)
{
	if (!wf_mem_count_open())
		return -EMFILE;
	*socket_out = wf_mem_take();
	if (*socket_out)
		return 0;
	wf_spinlock_lock(&table.lock);
	table.open--;
	wf_spinlock_unlock(&table.lock);
	return -ENOMEM;
}

int wf_mem_open(struct wf_mem_socket *socket)
{
	uint64_t word = wf_u64_load_relaxed(&socket->entry.word);

	WF_ASSERT(wf_fd_state(word) == WF_FD_FREE);
	/*
	 * B3: release (the RMW), with O1 of who is given the handle. Reports to a connection that
	 * was not accepted yet may have changed bits of the word; they come to the same.
	 */
	while (!wf_u64_cas(&socket->entry.word, &word,
		word | WF_FD_OPEN | WF_FD_READ | WF_FD_WRITE))
		;
	return wf_mem_handle(socket);
}

void wf_mem_drop(struct wf_mem_socket *socket, bool counted)
{
	uint64_t word = wf_u64_load_relaxed(&socket->entry.word);

	WF_ASSERT(wf_fd_state(word) == WF_FD_FREE);
	while (!wf_u64_cas(&socket->entry.word, &word, wf_fd_word_free(word)))
		;
	slot_free(socket, counted);
}

void wf_mem_close(struct wf_mem_socket *socket)
{
	/* Nobody else changes it: no operation is left. */
	if (socket->role == WF_MEM_STREAM)
		wf_mem_part(socket);
	else
		wf_mem_leave(socket);
}

void wf_mem_give(struct wf_mem_socket *socket)
{
	slot_free(socket, true);
}

/* --- what is drawn --- */

static uint64_t draw(void)
{
	/* splitmix64 */
	uint64_t z = wf_u64_fetch_add(&wf_mem_network.random, 0x9e3779b97f4a7c15u) +
		0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

bool wf_mem_chance_drawn(unsigned one_in)
{
	return draw() % one_in == 0;
}

uint64_t wf_mem_draw(uint64_t low, uint64_t high)
{
	return high > low ? low + draw() % (high - low + 1) : low;
}

/* --- setting up --- */

static bool are_good(const struct weft_mem_opts *opts)
{
	return opts->latency_min_ns >= 0 && opts->latency_max_ns >= opts->latency_min_ns &&
		opts->latency_max_ns <= WEFT_SEC(3600) && opts->buffer_bytes <= (size_t)1 << 30;
}

int weft_mem_setup(const struct weft_mem_opts *opts)
{
	struct weft_mem_opts ours = { .size = sizeof(ours) };
	bool busy;

	if (opts && wf_opts_read(opts, opts->size, &ours, sizeof(ours)) < 0)
		return -EINVAL;
	if (!are_good(&ours))
		return -EINVAL;
	if (ours.buffer_bytes == 0)
		ours.buffer_bytes = WF_MEM_BUFFER_BYTES;
	if (ours.sockets_max == 0 || ours.sockets_max > WF_MEM_SOCKETS_MAX)
		ours.sockets_max = WF_MEM_SOCKETS_MAX;
	wf_spinlock_lock(&table.lock);
	busy = table.taken > 0;
	if (!busy) {
		wf_mem_network.opts = ours;
		wf_u64_store_relaxed(&wf_mem_network.random, ours.seed);
	}
	wf_spinlock_unlock(&table.lock);
	return busy ? -EBUSY : 0;
}
