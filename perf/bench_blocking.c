/*
 * bench_blocking.c: work that blocks.
 *
 *   blocking   a round trip of an empty job: the process hands it to a thread of the pool, parks,
 *              and runs on. One caller, one call after the other; 64 callers at once, for whom the
 *              pool makes as many threads as they need; and weft_block_in_place() of one caller.
 */
#include "perf/bench_runtime.h"

#include <stdlib.h>

enum { CALLERS = 64 };

struct blocking {
	const struct bench_args *args;
	unsigned callers;
	bool in_place;
	uint64_t *samples_ns; /* of one caller; NULL: not taken */
	uint64_t total_ns;
	uint64_t cpu_ns;
};

static int empty(void *arg)
{
	return arg != NULL;
}

static int call(const struct blocking *blocking)
{
	return blocking->in_place ? weft_block_in_place(empty, NULL, NULL)
				  : weft_blocking(empty, NULL, NULL, WEFT_FOREVER);
}

/* Round trips of each caller: at least one. */
static uint64_t share(const struct bench_args *args, unsigned callers)
{
	return args->n < callers ? 1 : args->n / callers;
}

static int caller_body(void *arg)
{
	const struct blocking *blocking = arg;
	uint64_t count = share(blocking->args, blocking->callers), last_ns = bench_now_ns(), i;

	for (i = 0; i < count; i++) {
		int error = call(blocking);

		if (error < 0)
			return error;
		if (blocking->samples_ns) {
			uint64_t now_ns = bench_now_ns();

			blocking->samples_ns[i] = now_ns - last_ns;
			last_ns = now_ns;
		}
	}
	return 0;
}

static int blocking_main(void *arg)
{
	struct blocking *blocking = arg;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	weft_pid pids[CALLERS];
	int error = 0;
	unsigned i;

	for (i = 0; i < blocking->callers; i++)
		BENCH_CHECK(weft_spawn(caller_body, blocking, &pids[i]) == 0);
	for (i = 0; i < blocking->callers; i++) {
		int result = 0;

		BENCH_CHECK(weft_join(pids[i], &result, WEFT_FOREVER) == 0);
		error = result < 0 ? result : error;
	}
	blocking->total_ns = bench_now_ns() - start_ns;
	blocking->cpu_ns = bench_cpu_ns() - cpu_ns;
	return error;
}

static int measure(const struct bench_args *args, struct bench_row *row, unsigned callers,
	bool in_place)
{
	struct blocking blocking = {.args = args, .callers = callers, .in_place = in_place};
	double n = (double)(share(args, callers) * callers);
	int error = bench_runtime_run(args, blocking_main, &blocking);

	bench_row_set(row, BENCH_NS_PER_OP, (double)blocking.total_ns / n);
	bench_row_set(row, BENCH_CPU_NS, (double)blocking.cpu_ns / n);
	if (error < 0 || callers > 1)
		return error;
	/* Again with a clock read in every round trip: it would add its 25 ns to the mean. */
	blocking.samples_ns = calloc(args->n, sizeof(*blocking.samples_ns));
	BENCH_CHECK(blocking.samples_ns);
	error = bench_runtime_run(args, blocking_main, &blocking);
	bench_row_percentiles(row, blocking.samples_ns, args->n);
	free(blocking.samples_ns);
	return error;
}

static int run(const struct bench_args *args, struct bench_result *result)
{
	int error = measure(args, bench_row_add(result, "1 caller", "fiber"), 1, false);

	if (error == 0)
		error = measure(
			args, bench_row_add(result, "64 callers", "fiber"), CALLERS, false);
	if (error == 0)
		error = measure(args, bench_row_add(result, "in place", "fiber"), 1, true);
	if (error == 0)
		bench_floor_round_trips(args, result);
	return error;
}

const struct bench_workload bench_blocking = {
	.name = "blocking",
	.help = "n round trips of an empty job on a thread of the pool",
	.workers_default = 1,
	.n_default = 20000,
	.idle_modes = BENCH_IDLE_ALL,
	.run = run,
};
