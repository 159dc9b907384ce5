/*
 * bench_yield.c: yield: 1000 fibers on the workers, each of which yields n times: a full turn of
 * the scheduler for each, with the run queues long and the driver polled as often as it asks for.
 */
#include "perf/bench_runtime.h"

#include <errno.h>

enum { FIBERS = 1000 };

struct yield {
	const struct bench_args *args;
	weft_pid pids[FIBERS];
	uint64_t total_ns;
	uint64_t cpu_ns;
};

static int yield_body(void *arg)
{
	const struct yield *yield = arg;
	uint64_t i;

	for (i = 0; i < yield->args->n; i++)
		weft_yield();
	return 0;
}

static int yield_main(void *arg)
{
	struct yield *yield = arg;
	uint64_t start_ns, cpu_ns;
	unsigned i;
	int error = 0;

	for (i = 0; i < FIBERS && error == 0; i++)
		error = weft_spawn(yield_body, yield, &yield->pids[i]);
	/* Nothing has run on one worker so far; on several the first yields are not counted. */
	cpu_ns = bench_cpu_ns();
	start_ns = bench_now_ns();
	for (i = 0; i < FIBERS && error == 0; i++)
		error = weft_join(yield->pids[i], NULL, WEFT_FOREVER);
	yield->total_ns = bench_now_ns() - start_ns;
	yield->cpu_ns = bench_cpu_ns() - cpu_ns;
	return error;
}

static int yield_run(const struct bench_args *args, struct bench_result *result)
{
	struct yield yield = {.args = args};
	double yields = (double)args->n * FIBERS;
	struct bench_row *row = bench_row_add(result, "yield", "fiber");
	int error = bench_runtime_run(args, yield_main, &yield);

	bench_row_set(row, BENCH_NS_PER_OP, (double)yield.total_ns / yields);
	bench_row_set(row, BENCH_CPU_NS, (double)yield.cpu_ns / yields);
	return error;
}

const struct bench_workload bench_yield = {
	.name = "yield",
	.help = "1000 fibers that yield n times each; per yield",
	.workers_default = 1,
	.n_default = 1000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = yield_run,
};
