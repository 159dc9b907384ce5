/*
 * bench_task.c: tasks, processes without a stack.
 *
 *   task_spawn    batches of empty tasks, spawned by a fiber that then waits until all have run;
 *                 without a handle, and joined one by one
 *   task_yield    1, 100 and 1000 tasks that yield n times each
 *   task_memory   resident memory of n tasks that sleep, with 32 bytes of state each
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 10000, TASKS_MAX = 1000 };

struct tasks {
	const struct bench_args *args;
	struct bench_counter *counters;
	weft_pid *pids;
	unsigned count;
	uint64_t total_ns, cpu_ns;
};

static int tasks_init(struct tasks *tasks, const struct bench_args *args)
{
	*tasks = (struct tasks){.args = args};
	tasks->counters = aligned_alloc(WF_FALSE_SHARING, args->workers * sizeof(*tasks->counters));
	tasks->pids = calloc(BATCH, sizeof(*tasks->pids));
	if (!tasks->counters || !tasks->pids)
		return -ENOMEM;
	for (unsigned i = 0; i < args->workers; i++)
		wf_u64_store_relaxed(&tasks->counters[i].count, 0);
	return 0;
}

static void tasks_end(struct tasks *tasks)
{
	free(tasks->counters);
	free(tasks->pids);
}

/* Runs body in a runtime and adds a row: ns for each of `operations`. */
static int measure(struct tasks *tasks, struct bench_result *result, const char *variant,
	weft_fn body, double operations)
{
	struct bench_row *row = bench_row_add(result, variant, "task");
	int error = bench_runtime_run(tasks->args, body, tasks);

	bench_row_set(row, BENCH_NS_PER_OP, (double)tasks->total_ns / operations);
	bench_row_set(row, BENCH_CPU_NS, (double)tasks->cpu_ns / operations);
	return error;
}

static void clock_start(struct tasks *tasks)
{
	tasks->cpu_ns = bench_cpu_ns();
	tasks->total_ns = bench_now_ns();
}

static void clock_stop(struct tasks *tasks)
{
	tasks->total_ns = bench_now_ns() - tasks->total_ns;
	tasks->cpu_ns = bench_cpu_ns() - tasks->cpu_ns;
}

/* ---- task_spawn ------------------------------------------------------------------------------ */

static int count_poll(void *state)
{
	const struct tasks *tasks = state;

	bench_counter_raise(tasks->counters);
	return 0;
}

static int empty_poll(void *state)
{
	(void)state;
	return 0;
}

static int detached_main(void *arg)
{
	struct tasks *tasks = arg;
	uint64_t n = tasks->args->n, done = 0;

	clock_start(tasks);
	while (done < n) {
		uint64_t end = n - done < BATCH ? n : done + BATCH;

		for (; done < end; done++)
			if (weft_task_spawn(count_poll, tasks, NULL, NULL) < 0)
				return -EAGAIN;
		while (bench_counter_sum(tasks->counters, tasks->args->workers) < done)
			weft_yield();
	}
	clock_stop(tasks);
	return 0;
}

static int joined_main(void *arg)
{
	struct tasks *tasks = arg;
	uint64_t n = tasks->args->n, done;
	unsigned batch, i;
	int error = 0;

	clock_start(tasks);
	for (done = 0; done < n && error == 0; done += batch) {
		batch = n - done < BATCH ? (unsigned)(n - done) : BATCH;
		for (i = 0; i < batch && error == 0; i++)
			error = weft_task_spawn(empty_poll, NULL, NULL, &tasks->pids[i]);
		for (i = 0; i < batch && error == 0; i++)
			error = weft_join(tasks->pids[i], NULL, WEFT_FOREVER);
	}
	clock_stop(tasks);
	return error;
}

static int spawn_run(const struct bench_args *args, struct bench_result *result)
{
	struct tasks tasks;
	int error = tasks_init(&tasks, args);

	if (error == 0)
		error = measure(&tasks, result, "detached", detached_main, (double)args->n);
	for (unsigned i = 0; i < args->workers; i++)
		wf_u64_store_relaxed(&tasks.counters[i].count, 0);
	if (error == 0)
		error = measure(&tasks, result, "joined", joined_main, (double)args->n);
	tasks_end(&tasks);
	return error;
}

/* ---- task_yield ------------------------------------------------------------------------------ */

static int yield_poll(void *state)
{
	uint64_t *left = state;

	while (*left > 0) {
		if (weft_yield() == WEFT_PENDING)
			return WEFT_PENDING;
		--*left;
	}
	return 0;
}

static int yield_main(void *arg)
{
	struct tasks *tasks = arg;
	uint64_t left[TASKS_MAX];
	unsigned i;
	int error = 0;

	for (i = 0; i < tasks->count && error == 0; i++) {
		left[i] = tasks->args->n * TASKS_MAX / tasks->count;
		error = weft_task_spawn(yield_poll, &left[i], NULL, &tasks->pids[i]);
	}
	clock_start(tasks);
	for (i = 0; i < tasks->count && error == 0; i++)
		error = weft_join(tasks->pids[i], NULL, WEFT_FOREVER);
	clock_stop(tasks);
	return error;
}

static int yield_run(const struct bench_args *args, struct bench_result *result)
{
	static const struct {
		unsigned count;
		const char *variant;
	} variants[] = {{1, "1 task"}, {100, "100 tasks"}, {1000, "1000 tasks"}};
	struct tasks tasks;
	int error = tasks_init(&tasks, args);

	for (size_t i = 0; i < WF_ARRAY_COUNT(variants) && error == 0; i++) {
		tasks.count = variants[i].count;
		error = measure(&tasks, result, variants[i].variant, yield_main,
			(double)args->n * TASKS_MAX);
	}
	tasks_end(&tasks);
	return error;
}

/* ---- task_memory ----------------------------------------------------------------------------- */

struct sleeper {
	struct bench_counter *counters;
	bool counted;
	char rest[23];
};

static_assert(sizeof(struct sleeper) == 32, "the state that the figure is about");

static uint64_t resident_bytes(void)
{
	char line[256];
	unsigned long long value = 0;
	FILE *file = fopen("/proc/self/status", "re");

	BENCH_CHECK(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "VmRSS:", 6) == 0)
			value = strtoull(line + 6, NULL, 10);
	fclose(file);
	return (uint64_t)value << 10;
}

static int sleep_poll(void *state)
{
	struct sleeper *sleeper = state;

	if (!sleeper->counted)
		bench_counter_raise(sleeper->counters);
	sleeper->counted = true;
	return weft_park(weft_now_coarse() + WEFT_SEC(3600)) == WEFT_PENDING ? WEFT_PENDING : 0;
}

static int memory_main(void *arg)
{
	struct tasks *tasks = arg;
	uint64_t n = tasks->args->n, i;
	struct sleeper *sleepers = calloc(n, sizeof(*sleepers));
	weft_pid *pids = malloc(n * sizeof(*pids));
	int error = 0;

	BENCH_CHECK(sleepers && pids);
	memset(pids, 0xff, n * sizeof(*pids));
	tasks->total_ns = resident_bytes();
	for (i = 0; i < n && error == 0; i++) {
		sleepers[i].counters = tasks->counters;
		error = weft_task_spawn(sleep_poll, &sleepers[i], NULL, &pids[i]);
	}
	BENCH_CHECK(error == 0);
	while (bench_counter_sum(tasks->counters, tasks->args->workers) < n)
		weft_yield();
	tasks->total_ns = resident_bytes() - tasks->total_ns;
	for (i = 0; i < n; i++)
		weft_wake(pids[i]);
	for (i = 0; i < n; i++)
		weft_join(pids[i], NULL, WEFT_FOREVER);
	free(sleepers);
	free(pids);
	return error;
}

static int memory_run(const struct bench_args *args, struct bench_result *result)
{
	struct tasks tasks;
	int error = tasks_init(&tasks, args);

	if (error == 0)
		error = bench_runtime_run(args, memory_main, &tasks);
	bench_row_set(bench_row_add(result, "asleep, 32 bytes of state", "task"), BENCH_BYTES_EACH,
		(double)tasks.total_ns / (double)args->n);
	tasks_end(&tasks);
	return error;
}

const struct bench_workload bench_task_spawn = {
	.name = "task_spawn",
	.help = "n empty tasks, until they have run; each",
	.workers_default = 1,
	.n_default = 1000000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = spawn_run,
};

const struct bench_workload bench_task_yield = {
	.name = "task_yield",
	.help = "tasks that yield 1000 n times in all; per yield",
	.workers_default = 1,
	.n_default = 1000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = yield_run,
};

const struct bench_workload bench_task_memory = {
	.name = "task_memory",
	.help = "resident memory of n tasks that sleep, each",
	.workers_default = 1,
	.n_default = 1000000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.cold = true,
	.run = memory_run,
};
