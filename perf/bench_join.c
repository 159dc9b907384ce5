/*
 * bench_join.c: join: what the join itself costs, apart from the process that is joined.
 *
 *   ended        n empty fibers of the same worker, all of which have ended: the joins alone
 *   ended across the same, but they ran on the other worker: each header changes cores
 *   one by one   spawn an empty fiber and join it, n times: the joiner always has to wait
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdlib.h>

struct join {
	const struct bench_args *args;
	struct bench_counter *counters;
	weft_pid *pids;
	unsigned worker; /* WEFT_WORKER(n) of those that are joined */
	uint64_t total_ns;
	uint64_t cpu_ns;
};

static int count_body(void *arg)
{
	bench_counter_raise(((struct join *)arg)->counters);
	return 0;
}

static int empty_body(void *arg)
{
	(void)arg;
	return 0;
}

static int spawn_all(struct join *join)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .worker = join->worker};

	for (uint64_t i = 0; i < join->args->n; i++) {
		int error = weft_spawn_with(count_body, join, &opts, &join->pids[i]);

		if (error < 0)
			return error;
	}
	while (bench_counter_sum(join->counters, join->args->workers) < join->args->n)
		weft_yield();
	return 0;
}

static int ended_main(void *arg)
{
	struct join *join = arg;
	int error = spawn_all(join);
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();

	for (uint64_t i = 0; i < join->args->n && error == 0; i++)
		error = weft_join(join->pids[i], NULL, WEFT_FOREVER);
	join->total_ns = bench_now_ns() - start_ns;
	join->cpu_ns = bench_cpu_ns() - cpu_ns;
	return error;
}

static int waiting_main(void *arg)
{
	struct join *join = arg;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	int error = 0;

	for (uint64_t i = 0; i < join->args->n && error == 0; i++) {
		error = weft_spawn(empty_body, NULL, &join->pids[0]);
		if (error == 0)
			error = weft_join(join->pids[0], NULL, WEFT_FOREVER);
	}
	join->total_ns = bench_now_ns() - start_ns;
	join->cpu_ns = bench_cpu_ns() - cpu_ns;
	return error;
}

/* The joiner is on worker 0. */
static int join_measure(const struct bench_args *args, struct bench_result *result,
	const char *variant, weft_fn body, unsigned worker)
{
	struct bench_row *row = bench_row_add(result, variant, "fiber");
	struct join join = {.args = args, .worker = worker};
	int error = -ENOMEM;

	join.counters = aligned_alloc(WF_FALSE_SHARING, args->workers * sizeof(*join.counters));
	join.pids = calloc(args->n, sizeof(*join.pids));
	if (join.counters && join.pids) {
		for (unsigned i = 0; i < args->workers; i++)
			wf_u64_store_relaxed(&join.counters[i].count, 0);
		error = bench_runtime_run(args, body, &join);
	}
	bench_row_set(row, BENCH_NS_PER_OP, (double)join.total_ns / (double)args->n);
	bench_row_set(row, BENCH_CPU_NS, (double)join.cpu_ns / (double)args->n);
	free(join.counters);
	free(join.pids);
	return error;
}

static int join_run(const struct bench_args *args, struct bench_result *result)
{
	struct bench_args two = *args;
	int error = join_measure(args, result, "ended", ended_main, WEFT_WORKER(0));

	two.workers = 2;
	if (error == 0)
		error = join_measure(&two, result, "ended across", ended_main, WEFT_WORKER(1));
	return error < 0 ? error : join_measure(args, result, "one by one", waiting_main, 0);
}

const struct bench_workload bench_join = {
	.name = "join",
	.help = "n joins of fibers that have ended, here and elsewhere; n spawned and joined",
	.workers_default = 1,
	.n_default = 100000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = join_run,
};
