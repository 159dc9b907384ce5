/*
 * Goal: P10: very many fibers may wait at once, each for little memory; and where the limit on
 * mappings stops them, the rest goes on.
 * Method: they park; the resident set is compared with what it was before them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/map.h"
#include "test/runtime.h"

enum {
	FIBERS = 20000,  /* of any kernel */
	LIMITED = 45000, /* more than fit vm.max_map_count with guards by mprotect() */
	FIBERS_MAX = 200000,
	BYTES_EACH_MAX = 5 * 1024,
};

struct crowd {
	weft_pid pids[FIBERS_MAX];
	wf_atomic_u32 parked;
	wf_atomic_u32 ended;
	wf_atomic_u32 named_the_limit;
};

static struct crowd crowd;

static int parks_in_the_crowd(void *arg)
{
	(void)arg;
	wf_u32_fetch_add(&crowd.parked, 1);
	return weft_park(WEFT_FOREVER);
}

static void counts_an_end(void *arg)
{
	wf_u32_fetch_add(arg, 1);
}

static void spawn_crowd(weft_rt *rt, unsigned count)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = counts_an_end};

	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(
			weft_rt_spawn(rt, parks_in_the_crowd, &crowd.ended, &opts, &crowd.pids[i]),
			0);
}

static void park_at_once(unsigned count)
{
	weft_rt *rt = runtime_new(2);
	size_t before, bytes;

	for (unsigned round = 0; round < 2; round++) {
		before = harness_rss_bytes();
		wf_u32_store_relaxed(&crowd.parked, 0);
		spawn_crowd(rt, count);
		UNTIL_FOREIGN(wf_u32_load_acquire(&crowd.parked) == count);
		bytes = harness_rss_bytes() - before;
		/* Stacks of the first round are used again; sanitizers add what they like. */
		if (HARNESS_SLOWDOWN == 1 && round == 0)
			cr_assert_lt(bytes / count, (size_t)BYTES_EACH_MAX);
		for (unsigned i = 0; i < count; i++)
			cr_assert_eq(weft_wake(crowd.pids[i]), 0);
		for (unsigned i = 0; i < count; i++)
			cr_assert_eq(joined(crowd.pids[i]), 0);
	}
	runtime_end(rt);
}

Test(fiber_memory, twenty_thousand_park_at_once, .timeout = 60)
{
	park_at_once(FIBERS / HARNESS_SLOWDOWN);
}

/* A kernel that makes guards without a mapping each. */
static bool has_guard_advice(void)
{
	long bytes = sysconf(_SC_PAGESIZE);
	void *page = mmap(
		NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool has;

	cr_assert_neq(page, MAP_FAILED);
	has = madvise(page, (size_t)bytes, WF_MADV_GUARD_INSTALL) == 0;
	munmap(page, (size_t)bytes);
	return has;
}

Test(fiber_memory, two_hundred_thousand_park_at_once, .timeout = 120)
{
	if (!has_guard_advice())
		cr_skip_test("this kernel has no MADV_GUARD_INSTALL");
	park_at_once(FIBERS_MAX / HARNESS_SLOWDOWN);
}

static void notes_the_limit(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)worker;
	(void)pid;
	if (level <= WEFT_LOG_WARN && strstr(text, "vm.max_map_count"))
		wf_u32_fetch_add(&crowd.named_the_limit, 1);
}

static unsigned long maps_max(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long count = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%lu", &count) != 1)
		count = 0;
	fclose(file);
	return count;
}

/* With guards by mprotect() each stack is two mappings. */
Test(fiber_memory, limit_on_mappings_is_named_and_harms_nobody_else, .timeout = 120)
{
	struct weft_rt_opts opts = {
		.workers = 2, .flags = WEFT_RT_GUARD_MPROTECT, .log = notes_the_limit};
	unsigned long maps = maps_max();
	unsigned refused = 0;
	weft_rt *rt;

	if (HARNESS_SLOWDOWN > 1)
		cr_skip_test("a sanitizer has mappings of its own");
	if (maps == 0 || maps > 2 * LIMITED - 10000)
		cr_skip_test("vm.max_map_count is %lu", maps);
	rt = runtime_new_with(&opts);
	spawn_crowd(rt, LIMITED);
	/* One without a stack ends at once; the others park. */
	UNTIL_FOREIGN(
		wf_u32_load_acquire(&crowd.parked) + wf_u32_load_acquire(&crowd.ended) == LIMITED);
	cr_assert_gt(wf_u32_load_acquire(&crowd.ended), 0, "the limit was not reached");
	cr_assert_gt(wf_u32_load_acquire(&crowd.parked), maps / 4);
	cr_assert_gt(wf_u32_load_acquire(&crowd.named_the_limit), 0);
	refused = wf_u32_load_acquire(&crowd.ended);
	for (unsigned i = 0; i < LIMITED; i++)
		(void)weft_wake(crowd.pids[i]);
	for (unsigned i = 0; i < LIMITED; i++) {
		int result = joined(crowd.pids[i]);

		cr_assert(result == 0 || result == -ENOMEM, "result %d", result);
		refused -= result == -ENOMEM;
	}
	cr_assert_eq(refused, 0);
	/* There are stacks again. */
	cr_assert_eq(runtime_do(rt, returns, &(int){7}), 7);
	runtime_end(rt);
}
