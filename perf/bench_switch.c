/*
 * bench_switch.c: switch: going from a worker's stack to a fiber's and back, without a scheduler.
 *
 * "pair" is one fiber that suspends as soon as it is resumed. With 1000 fibers in turn the cost is
 * that of caches: each switch touches the top of another stack. "aligned stacks" are the same 1000
 * with tops that share their low address bits, as stacks of a power of two do: what colours and odd
 * distances save. "new fiber" takes a stack from a pool, binds, runs, ends and gives it back. The
 * C library's swapcontext is the rival; it makes a system call for the signal mask.
 */
#include "perf/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "core/fiber.h"

enum {
	FIBERS = 1000,
	STACK_BYTES = 64 * 1024,
	SWITCHES_EACH = 2,      /* one there, one back */
	SWAPCONTEXT_SHARE = 16, /* of n: it is slow */
};

struct turn {
	struct wf_fiber *fiber;
	struct wf_scheduler_context *sched;
	bool *ends;
};

static struct wf_scheduler_context sched;
static struct turn turns[FIBERS];
static bool ends;

static double per_switch(uint64_t start_ns, uint64_t count)
{
	return (double)(bench_now_ns() - start_ns) / (double)(count ? count : 1);
}

static void suspend_always(void *value)
{
	struct turn *turn = value;

	while (!*turn->ends)
		wf_fiber_suspend(turn->fiber, turn->sched);
	wf_fiber_exit(turn->fiber, turn->sched);
}

static void end_at_once(void *value)
{
	struct turn *turn = value;

	wf_fiber_exit(turn->fiber, turn->sched);
}

static void start(struct turn *turn, struct wf_stack *stack, void (*entry)(void *value))
{
	turn->sched = &sched;
	turn->ends = &ends;
	turn->fiber = wf_fiber_bind(stack, entry);
}

/* Each of `count` fibers in turn, until there were n switches. */
static void measure_turns(unsigned count, uint64_t n, struct bench_row *row)
{
	uint64_t rounds = n / SWITCHES_EACH / count, i;
	uint64_t start_ns;

	ends = false;
	for (unsigned k = 0; k < count; k++)
		wf_fiber_resume(&sched, turns[k].fiber, &turns[k]);
	start_ns = bench_now_ns();
	for (i = 0; i < rounds; i++)
		for (unsigned k = 0; k < count; k++)
			wf_fiber_resume(&sched, turns[k].fiber, &turns[k]);
	bench_row_set(row, BENCH_NS_PER_OP, per_switch(start_ns, rounds * count * SWITCHES_EACH));
	ends = true;
	for (unsigned k = 0; k < count; k++)
		wf_fiber_resume(&sched, turns[k].fiber, &turns[k]);
}

static int measure_pooled(
	struct wf_stack_depot *depot, unsigned count, uint64_t n, struct bench_row *row)
{
	struct wf_stack *stacks[FIBERS];
	unsigned taken = 0;

	while (taken < count && (stacks[taken] = wf_stack_take(NULL, depot, STACK_BYTES)) != NULL) {
		start(&turns[taken], stacks[taken], suspend_always);
		taken++;
	}
	if (taken == count)
		measure_turns(count, n, row);
	for (unsigned k = 0; k < taken; k++)
		wf_stack_give(NULL, depot, stacks[k]);
	return taken == count ? 0 : -ENOMEM;
}

static int measure_aligned(uint64_t n, struct bench_row *row)
{
	size_t bytes = (size_t)FIBERS * STACK_BYTES;
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	(void)madvise(memory, bytes, MADV_NOHUGEPAGE);
	for (unsigned k = 0; k < FIBERS; k++) {
		char *high = memory + (size_t)(k + 1) * STACK_BYTES;

		start(&turns[k], (struct wf_stack *)(void *)(high - WF_STACK_CONTROL_BYTES),
			suspend_always);
	}
	measure_turns(FIBERS, n, row);
	munmap(memory, bytes);
	return 0;
}

static int measure_new(struct wf_stack_depot *depot, uint64_t n, struct bench_row *row)
{
	uint64_t count = n / SWITCHES_EACH, i;
	struct wf_stack_pool pool;
	uint64_t start_ns = bench_now_ns();

	wf_stack_pool_init(&pool);
	for (i = 0; i < count; i++) {
		struct wf_stack *stack = wf_stack_take(&pool, depot, STACK_BYTES);

		if (stack == NULL)
			return -ENOMEM;
		start(&turns[0], stack, end_at_once);
		wf_fiber_resume(&sched, turns[0].fiber, &turns[0]);
		wf_stack_give(&pool, depot, stack);
	}
	bench_row_set(row, BENCH_NS_PER_OP, per_switch(start_ns, count * SWITCHES_EACH));
	wf_stack_pool_close(&pool, depot);
	return 0;
}

static ucontext_t main_context, other_context;

static void swap_always(void)
{
	while (!ends)
		swapcontext(&other_context, &main_context);
}

static int measure_swapcontext(uint64_t n, struct bench_row *row)
{
	uint64_t count = n / SWAPCONTEXT_SHARE / SWITCHES_EACH, i;
	char *memory = malloc(STACK_BYTES);
	uint64_t start_ns;

	if (!memory)
		return -ENOMEM;
	getcontext(&other_context);
	other_context.uc_stack.ss_sp = memory;
	other_context.uc_stack.ss_size = STACK_BYTES;
	other_context.uc_link = &main_context;
	makecontext(&other_context, swap_always, 0);
	ends = false;
	start_ns = bench_now_ns();
	for (i = 0; i < count; i++)
		swapcontext(&main_context, &other_context);
	bench_row_set(row, BENCH_NS_PER_OP, per_switch(start_ns, count * SWITCHES_EACH));
	ends = true;
	swapcontext(&main_context, &other_context);
	free(memory);
	return 0;
}

static int run(const struct bench_args *args, struct bench_result *result)
{
	struct wf_stack_depot_opts opts = {.guard_mprotect = false};
	struct wf_stack_depot *depot;
	int error = wf_stack_depot_create(&opts, &depot);

	if (error < 0)
		return error;
	(void)bench_pin(0);
	wf_scheduler_enter(&sched);
	error = measure_pooled(depot, 1, args->n, bench_row_add(result, "pair", "fiber"));
	if (error == 0)
		error = measure_pooled(
			depot, FIBERS, args->n, bench_row_add(result, "1000 in turn", "fiber"));
	if (error == 0)
		error = measure_aligned(
			args->n, bench_row_add(result, "1000, aligned stacks", "fiber"));
	if (error == 0)
		error = measure_new(depot, args->n, bench_row_add(result, "new fiber", "fiber"));
	if (error == 0)
		error = measure_swapcontext(args->n, bench_row_add(result, "swapcontext", "-"));
	wf_scheduler_leave(&sched);
	wf_stack_depot_destroy(depot);
	return error;
}

const struct bench_workload bench_switch = {
	.name = "switch",
	.help = "n switches between a worker's stack and fibers; per switch, one way",
	.n_default = 20000000,
	.run = run,
};
