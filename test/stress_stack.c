/*
 * Stacks under many threads: taken by one, given by another, with and without pools, while a
 * coordinator trims. Every stack carries a mark of who has it; two who think so find out.
 */
#include <stdlib.h>

#include "core/stack.h"
#include "sync/atomic.h"
#include "test/harness.h"

enum {
	THREADS = 4, /* the first trims; the last has no pool */
	ROUNDS = 200000 / HARNESS_SLOWDOWN,
	HELD_MAX = 150,
	EXCHANGE = 64,
	MARK_BYTES = 256, /* below the top: where a fiber's first frames lie */
};

struct stress {
	struct wf_stack_depot *depot;
	wf_atomic_ptr exchange[EXCHANGE]; /* stacks on their way to other threads */
	wf_atomic_u32 working;
	wf_atomic_u64 trimmed;
};

static size_t size_of(uint64_t *random)
{
	static const size_t sizes[] = {16384, 16384, 65536, 65536, 65536, 1 << 20, 9 << 20};
	uint64_t pick = harness_random_below(random, 100);

	return sizes[pick < 98 ? pick % 5 : pick == 98 ? 5 : 6];
}

static uint64_t *mark_of(struct wf_stack *stack)
{
	return (uint64_t *)(void *)(wf_stack_top(stack) - MARK_BYTES);
}

/* The mark is plain memory: ThreadSanitizer sees to it that handing over is an order. */
static void mark(struct wf_stack *stack, uint64_t who)
{
	*mark_of(stack) = who;
}

static void check_mark(struct wf_stack *stack, uint64_t who)
{
	cr_assert_eq(*mark_of(stack), who, "a stack has two owners");
}

struct worker {
	struct stress *stress;
	struct wf_stack_pool pool;
	struct wf_stack_pool *pool_or_null;
	struct wf_stack *held[HELD_MAX];
	unsigned held_count;
	uint64_t who;
	uint64_t random;
};

static void give_one(struct worker *worker)
{
	unsigned at = (unsigned)harness_random_below(&worker->random, worker->held_count);
	struct wf_stack *stack = worker->held[at];

	check_mark(stack, worker->who);
	worker->held[at] = worker->held[--worker->held_count];
	wf_stack_give(worker->pool_or_null, worker->stress->depot, stack);
}

static void take_one(struct worker *worker)
{
	struct wf_stack *stack = wf_stack_take(
		worker->pool_or_null, worker->stress->depot, size_of(&worker->random));

	cr_assert_not_null(stack);
	mark(stack, worker->who);
	worker->held[worker->held_count++] = stack;
}

/* A movable fiber: its stack ends up with whoever runs it last. */
static void exchange_one(struct worker *worker)
{
	unsigned at = (unsigned)harness_random_below(&worker->random, worker->held_count);
	wf_atomic_ptr *place =
		&worker->stress->exchange[harness_random_below(&worker->random, EXCHANGE)];
	struct wf_stack *stack = worker->held[at];

	check_mark(stack, worker->who);
	mark(stack, 0);
	stack = wf_ptr_exchange(place, stack);
	if (stack == NULL) {
		worker->held[at] = worker->held[--worker->held_count];
		return;
	}
	check_mark(stack, 0);
	mark(stack, worker->who);
	worker->held[at] = stack;
}

static void work(struct stress *stress, unsigned index)
{
	static struct worker workers[THREADS];
	struct worker *worker = &workers[index];
	unsigned goal = 0;

	worker->stress = stress;
	worker->who = index + 1;
	worker->random = harness_seed() + index;
	worker->pool_or_null = index + 1 == THREADS ? NULL : &worker->pool;
	wf_stack_pool_init(&worker->pool);
	for (unsigned i = 0; i < ROUNDS; i++) {
		/* Waves: pools overflow and run dry. */
		if (i % 500 == 0)
			goal = (unsigned)harness_random_below(&worker->random, HELD_MAX);
		if (worker->held_count > 0 && i % 4 == 0)
			exchange_one(worker);
		else if (worker->held_count > goal)
			give_one(worker);
		else
			take_one(worker);
	}
	while (worker->held_count > 0)
		give_one(worker);
	wf_stack_pool_close(&worker->pool, stress->depot);
}

static void trim(struct stress *stress)
{
	struct wf_stack_stats stats;
	uint64_t trimmed = 0;

	while (wf_u32_load_relaxed(&stress->working) > 0) {
		trimmed += wf_stack_depot_trim(stress->depot, 20);
		cr_assert(wf_stack_depot_valid(stress->depot));
		wf_stack_depot_stats(stress->depot, &stats);
		cr_assert_leq(stats.idle, stats.opened);
	}
	wf_u64_store_relaxed(&stress->trimmed, trimmed);
}

static void thread_body(unsigned index, void *arg)
{
	struct stress *stress = arg;

	if (index == 0) {
		trim(stress);
		return;
	}
	work(stress, index);
	(void)wf_u32_fetch_add(&stress->working, (uint32_t)-1);
}

static void stress_with(bool guard_mprotect)
{
	struct wf_stack_depot_opts opts = {.guard_mprotect = guard_mprotect};
	struct stress *stress = calloc(1, sizeof *stress);
	struct wf_stack_stats stats;

	cr_assert_not_null(stress);
	cr_assert_eq(wf_stack_depot_create(&opts, &stress->depot), 0);
	wf_u32_store_relaxed(&stress->working, THREADS - 1);
	harness_threads(THREADS, thread_body, stress);
	for (unsigned i = 0; i < EXCHANGE; i++) {
		struct wf_stack *stack = wf_ptr_load_relaxed(&stress->exchange[i]);

		if (stack == NULL)
			continue;
		check_mark(stack, 0);
		wf_stack_give(NULL, stress->depot, stack);
	}
	cr_assert(wf_stack_depot_valid(stress->depot));
	wf_stack_depot_stats(stress->depot, &stats);
	cr_assert_eq(stats.opened, stats.idle, "all are back");
	/* The trimmer may never have run in time; whatever it left is there to be trimmed now. */
	cr_assert_gt(wf_u64_load_relaxed(&stress->trimmed) + wf_stack_depot_trim(stress->depot, 0),
		(uint64_t)0);
	wf_stack_depot_stats(stress->depot, &stats);
	cr_assert_eq(stats.slabs, (size_t)0);
	wf_stack_depot_destroy(stress->depot);
	free(stress);
}

Test(stress_stack, no_stack_has_two_owners, .timeout = 120)
{
	stress_with(false);
}

Test(stress_stack, no_stack_has_two_owners_with_mprotect, .timeout = 120)
{
	stress_with(true);
}
