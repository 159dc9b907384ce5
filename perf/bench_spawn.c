/*
 * bench_spawn.c: what it costs to start a process and see it end.
 *
 *   spawn          from inside: batches of empty fibers, spawned by a fiber that then waits until
 *                  all have run; without a handle, and joined one by one
 *   spawn_foreign  from a thread outside the runtime: the push alone, and until the last has run
 *   spawn_tree     fork and join: every fiber spawns two and joins them, down to depth n
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdlib.h>

enum { BATCH = 10000 };

struct spawn {
	const struct bench_args *args;
	weft_rt *rt;
	struct bench_counter *counters;
	weft_pid *pids;
	uint64_t push_ns;
	uint64_t total_ns;
	uint64_t cpu_ns;
};

static int spawn_init(struct spawn *spawn, const struct bench_args *args)
{
	*spawn = (struct spawn){.args = args};
	spawn->counters = aligned_alloc(WF_FALSE_SHARING, args->workers * sizeof(*spawn->counters));
	spawn->pids = calloc(BATCH, sizeof(*spawn->pids));
	if (!spawn->counters || !spawn->pids)
		return -ENOMEM;
	for (unsigned i = 0; i < args->workers; i++)
		wf_u64_store_relaxed(&spawn->counters[i].count, 0);
	return 0;
}

static void spawn_end(struct spawn *spawn)
{
	free(spawn->counters);
	free(spawn->pids);
}

static int count_body(void *arg)
{
	const struct spawn *spawn = arg;

	bench_counter_raise(spawn->counters);
	return 0;
}

static int empty_body(void *arg)
{
	(void)arg;
	return 0;
}

/* ---- spawn ----------------------------------------------------------------------------------- */

static int detached_main(void *arg)
{
	struct spawn *spawn = arg;
	uint64_t n = spawn->args->n, done = 0;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();

	while (done < n) {
		uint64_t end = n - done < BATCH ? n : done + BATCH;

		for (; done < end; done++)
			if (weft_spawn(count_body, spawn, NULL) < 0)
				return -EAGAIN;
		while (bench_counter_sum(spawn->counters, spawn->args->workers) < done)
			weft_yield();
	}
	spawn->total_ns = bench_now_ns() - start_ns;
	spawn->cpu_ns = bench_cpu_ns() - cpu_ns;
	return 0;
}

static int joined_main(void *arg)
{
	struct spawn *spawn = arg;
	uint64_t n = spawn->args->n, done;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	unsigned batch, i;
	int error = 0;

	for (done = 0; done < n && error == 0; done += batch) {
		batch = n - done < BATCH ? (unsigned)(n - done) : BATCH;
		for (i = 0; i < batch && error == 0; i++)
			error = weft_spawn(empty_body, NULL, &spawn->pids[i]);
		for (i = 0; i < batch && error == 0; i++)
			error = weft_join(spawn->pids[i], NULL, WEFT_FOREVER);
	}
	spawn->total_ns = bench_now_ns() - start_ns;
	spawn->cpu_ns = bench_cpu_ns() - cpu_ns;
	return error;
}

static int spawn_measure(const struct bench_args *args, struct bench_result *result,
	const char *variant, weft_fn body)
{
	struct bench_row *row = bench_row_add(result, variant, "fiber");
	struct spawn spawn;
	int error = spawn_init(&spawn, args);

	if (error == 0)
		error = bench_runtime_run(args, body, &spawn);
	bench_row_set(row, BENCH_NS_PER_OP, (double)spawn.total_ns / (double)args->n);
	bench_row_set(row, BENCH_CPU_NS, (double)spawn.cpu_ns / (double)args->n);
	spawn_end(&spawn);
	return error;
}

static int spawn_run(const struct bench_args *args, struct bench_result *result)
{
	int error = spawn_measure(args, result, "detached", detached_main);

	return error < 0 ? error : spawn_measure(args, result, "joined", joined_main);
}

const struct bench_workload bench_spawn = {
	.name = "spawn",
	.help = "n empty fibers in batches of 10,000, spawned and completed from inside",
	.workers_default = 1,
	.n_default = 1000000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = spawn_run,
};

/* ---- spawn_foreign --------------------------------------------------------------------------- */

static void foreign_push(void *arg)
{
	struct spawn *spawn = arg;
	uint64_t n = spawn->args->n, i, start_ns = bench_now_ns();

	for (i = 0; i < n; i++)
		BENCH_CHECK(weft_rt_spawn(spawn->rt, count_body, spawn, NULL, NULL) == 0);
	spawn->push_ns = bench_now_ns() - start_ns;
	while (bench_counter_sum(spawn->counters, spawn->args->workers) < n)
		for (i = 0; i < 100; i++)
			wf_pause();
	spawn->total_ns = bench_now_ns() - start_ns;
}

static int foreign_run(const struct bench_args *args, struct bench_result *result)
{
	struct spawn spawn;
	int error = spawn_init(&spawn, args), closed;

	if (error == 0)
		error = bench_runtime_open(args, &spawn.rt);
	if (error < 0)
		return error;
	error = bench_foreign_run(args, foreign_push, &spawn);
	closed = bench_runtime_close(spawn.rt);
	bench_row_set(bench_row_add(result, "push", "fiber"), BENCH_NS_PER_OP,
		(double)spawn.push_ns / (double)args->n);
	bench_row_set(bench_row_add(result, "complete", "fiber"), BENCH_NS_PER_OP,
		(double)spawn.total_ns / (double)args->n);
	spawn_end(&spawn);
	return error < 0 ? error : closed;
}

const struct bench_workload bench_spawn_foreign = {
	.name = "spawn_foreign",
	.help = "n empty fibers from a thread outside the runtime, on a CPU of its own",
	.workers_default = 1,
	.n_default = 200000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_SPIN) | BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = foreign_run,
};

/* ---- spawn_tree ------------------------------------------------------------------------------ */

static int tree_body(void *arg)
{
	uintptr_t depth = (uintptr_t)arg;
	void *below = (void *)(depth - 1);
	weft_pid left, right;
	int error;

	if (depth == 0)
		return 0;
	error = weft_spawn(tree_body, below, &left);
	if (error == 0)
		error = weft_spawn(tree_body, below, &right);
	if (error == 0)
		error = weft_join(left, NULL, WEFT_FOREVER);
	return error < 0 ? error : weft_join(right, NULL, WEFT_FOREVER);
}

static int tree_main(void *arg)
{
	struct spawn *spawn = arg;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	int error = tree_body((void *)(uintptr_t)spawn->args->n);

	spawn->total_ns = bench_now_ns() - start_ns;
	spawn->cpu_ns = bench_cpu_ns() - cpu_ns;
	return error;
}

static int tree_run(const struct bench_args *args, struct bench_result *result)
{
	struct bench_row *row = bench_row_add(result, "join", "fiber");
	struct spawn spawn = {.args = args};
	double fibers;
	int error;

	if (args->n > 24)
		return -EINVAL; /* 2^25 fibers: more than memory */
	fibers = (double)((2ull << args->n) - 1);
	error = bench_runtime_run(args, tree_main, &spawn);
	bench_row_set(row, BENCH_NS_PER_OP, (double)spawn.total_ns / fibers);
	bench_row_set(row, BENCH_CPU_NS, (double)spawn.cpu_ns / fibers);
	return error;
}

const struct bench_workload bench_spawn_tree = {
	.name = "spawn_tree",
	.help = "a tree of fibers to depth n, each spawning and joining two; per fiber",
	.workers_default = 2,
	.n_default = 14,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_SPIN) | BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = tree_run,
};
