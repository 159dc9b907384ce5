/*
 * Goal: scenario P1: whichever way a process ends, is asked for and is cancelled, each cleanup runs
 * once and in order, the right result is told, and nothing is left.
 * Method: the table of test/life.h, every case of it, on one worker and on two, in a runtime whose
 * memory is counted.
 */
#include "test/runtime.h"

#define LIFE_CHECK(condition, ...) cr_assert(condition, __VA_ARGS__)
#define LIFE_PAUSE() sched_yield()

#include "test/life.h"

#include <stdlib.h>

static wf_atomic_u64 in_use;

static void *allocate(void *ctx, size_t alignment, size_t size)
{
	void *memory = NULL;

	(void)ctx;
	if (posix_memalign(&memory, alignment, size) != 0)
		return NULL;
	wf_u64_fetch_add(&in_use, size);
	return memory;
}

static void release(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	wf_u64_fetch_add(&in_use, -(uint64_t)size);
	free(memory);
}

static void live_all(unsigned workers)
{
	static const struct weft_allocator allocator = {.allocate = allocate, .release = release};
	static struct life lives[LIFE_CASES];
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = workers, .allocator = &allocator});
	weft_local key = {0};

	cr_assert_eq(weft_local_create(&key, life_destroy), 0);
	for (unsigned n = 0; n < LIFE_CASES; n++)
		life_live(&lives[n], rt, key, life_case(n));
	runtime_end(rt);
	cr_assert_eq(wf_u64_load_relaxed(&in_use), 0u);
}

Test(life, every_way_to_end_to_ask_and_to_cancel, .timeout = 120)
{
	live_all(1);
}

Test(life, the_same_on_two_workers, .timeout = 120)
{
	live_all(2);
}
