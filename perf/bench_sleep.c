/*
 * bench_sleep.c: deadlines, of processes.
 *
 *   park_deadline  two fibers of one worker that wake each other in turn: without a deadline, with
 *                  one 30 s ahead each time, as a server's connections have, and with one that is
 *                  earlier each time: what a deadline that is not needed costs
 *   sleep_late     how late sleeps end: n over a second, by a process each, tasks and fibers; and a
 *                  hundredth of that, one after the other, plain and precise. ns_per_op is the time
 *                  that all take; cpu_ns that of the whole process, spawning included, per sleep
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdlib.h>

/* ---- park_deadline --------------------------------------------------------------------------- */

enum deadline_kind { NONE, LATER, EARLIER };

struct pair {
	const struct bench_args *args;
	enum deadline_kind kind;
	weft_pid ping, pong;
	uint64_t total_ns, cpu_ns;
};

/* From weft_now_coarse(), as idle timeouts may be: the clock is not what is measured. */
static weft_time next_deadline(const struct pair *pair, uint64_t i)
{
	switch (pair->kind) {
	case LATER:
		return weft_now_coarse() + WEFT_SEC(30);
	case EARLIER:
		return weft_now_coarse() + WEFT_SEC(3600) - (weft_time)i * WEFT_US(10);
	default:
		return WEFT_FOREVER;
	}
}

static int pong_body(void *arg)
{
	const struct pair *pair = arg;
	uint64_t i;

	for (i = 0; i < pair->args->n; i++) {
		if (weft_park(next_deadline(pair, i)) < 0)
			return -ECANCELED;
		weft_wake(pair->ping);
	}
	return 0;
}

static int ping_body(void *arg)
{
	struct pair *pair = arg;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns(), i;

	for (i = 0; i < pair->args->n; i++) {
		weft_wake(pair->pong);
		if (weft_park(next_deadline(pair, i)) < 0)
			return -ECANCELED;
	}
	pair->total_ns = bench_now_ns() - start_ns;
	pair->cpu_ns = bench_cpu_ns() - cpu_ns;
	return 0;
}

/* Both ids must be known before either runs: both start suspended. */
static int pair_main(void *arg)
{
	struct pair *pair = arg;
	struct weft_spawn_opts opts = {
		.size = sizeof(opts), .flags = WEFT_SUSPENDED, .worker = WEFT_WORKER(0)};
	int error = weft_spawn_with(ping_body, pair, &opts, &pair->ping);

	if (error == 0)
		error = weft_spawn_with(pong_body, pair, &opts, &pair->pong);
	if (error == 0)
		error = weft_wake(pair->pong);
	if (error == 0)
		error = weft_wake(pair->ping);
	if (error == 0)
		error = weft_join(pair->ping, NULL, WEFT_FOREVER);
	return error < 0 ? error : weft_join(pair->pong, NULL, WEFT_FOREVER);
}

static int park_deadline_run(const struct bench_args *args, struct bench_result *result)
{
	static const char *const names[] = {"none", "30 s from then", "earlier each time"};
	int error = 0;

	for (unsigned i = 0; i < WF_ARRAY_COUNT(names) && error == 0; i++) {
		struct bench_row *row = bench_row_add(result, names[i], "fiber");
		struct pair pair = {.args = args, .kind = (enum deadline_kind)i};

		error = bench_runtime_run(args, pair_main, &pair);
		bench_row_set(row, BENCH_NS_PER_OP, (double)pair.total_ns / (double)args->n);
		bench_row_set(row, BENCH_CPU_NS, (double)pair.cpu_ns / (double)args->n);
	}
	return error;
}

const struct bench_workload bench_park_deadline = {
	.name = "park_deadline",
	.help = "n round trips of wake and park with a deadline that does not come; and without",
	.workers_default = 1,
	.n_default = 2000000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = park_deadline_run,
};

/* ---- sleep_late ------------------------------------------------------------------------------ */

enum {
	SPREAD_NS = 1000000000,
	LEAD_NS = 500000000, /* until the first deadline: all are asleep by then */
};

struct sleeps {
	const struct bench_args *args;
	uint64_t n;
	weft_pid main;
	wf_atomic_u64 ended;
	uint64_t *late_ns;
	uint64_t total_ns, cpu_ns;
	bool tasks, precise;
};

struct sleeper {
	struct sleeps *all;
	weft_time deadline;
	uint64_t *late_ns;
};

static void note_end(const struct sleeper *sleeper)
{
	uint64_t now_ns = bench_now_ns();

	BENCH_CHECK(now_ns >= (uint64_t)sleeper->deadline);
	*sleeper->late_ns = now_ns - (uint64_t)sleeper->deadline;
	if (wf_u64_fetch_add(&sleeper->all->ended, 1) + 1 == sleeper->all->n)
		weft_wake(sleeper->all->main);
}

/* Both bodies: a task comes here twice. */
static int sleep_once(void *arg)
{
	int error = weft_sleep_until(((struct sleeper *)arg)->deadline);

	if (error == 0)
		note_end(arg);
	return error;
}

static int spread_main(void *arg)
{
	struct sleeps *sleeps = arg;
	struct sleeper *sleepers = calloc(sleeps->n, sizeof(*sleepers));
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	uint64_t random = sleeps->args->seed;
	int error = 0;

	BENCH_CHECK(sleepers);
	sleeps->main = weft_self();
	for (uint64_t i = 0; i < sleeps->n && error == 0; i++) {
		uint64_t after_ns = LEAD_NS + bench_random(&random) % SPREAD_NS;

		sleepers[i] = (struct sleeper){
			sleeps, (weft_time)(start_ns + after_ns), &sleeps->late_ns[i]};
		error = sleeps->tasks ? weft_task_spawn(sleep_once, &sleepers[i], NULL, NULL)
				      : weft_spawn(sleep_once, &sleepers[i], NULL);
		if (i % 1000 == 999)
			weft_yield();
	}
	BENCH_CHECK(error == 0);
	while (wf_u64_load_relaxed(&sleeps->ended) < sleeps->n)
		BENCH_CHECK(weft_park(WEFT_FOREVER) == 0);
	sleeps->total_ns = bench_now_ns() - start_ns;
	sleeps->cpu_ns = bench_cpu_ns() - cpu_ns;
	free(sleepers);
	return error;
}

/* One process, after gaps without a pattern. */
static int sequence_main(void *arg)
{
	struct sleeps *sleeps = arg;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	uint64_t random = sleeps->args->seed;

	for (uint64_t i = 0; i < sleeps->n; i++) {
		uint64_t gap_ns = 1 + bench_random(&random) % (2 * SPREAD_NS / sleeps->n);
		weft_time deadline = weft_after((weft_time)gap_ns);
		int error = sleeps->precise ? weft_sleep_precise(deadline)
					    : weft_sleep_until(deadline);

		if (error < 0)
			return error;
		sleeps->late_ns[i] = bench_now_ns() - (uint64_t)deadline;
	}
	sleeps->total_ns = bench_now_ns() - start_ns;
	sleeps->cpu_ns = bench_cpu_ns() - cpu_ns;
	return 0;
}

static int sleep_late_run(const struct bench_args *args, struct bench_result *result)
{
	static const struct {
		const char *name, *process;
		weft_fn main;
		unsigned divisor;
		bool tasks, precise;
	} rows[] = {
		{"n over 1 s", "task", spread_main, 1, true, false},
		{"n over 1 s", "fiber", spread_main, 1, false, false},
		{"one after the other", "fiber", sequence_main, 100, false, false},
		{"one after the other, precise", "fiber", sequence_main, 100, false, true},
	};
	int error = 0;

	for (unsigned i = 0; i < WF_ARRAY_COUNT(rows) && error == 0; i++) {
		struct bench_row *row = bench_row_add(result, rows[i].name, rows[i].process);
		struct sleeps sleeps = {.args = args, .tasks = rows[i].tasks};

		sleeps.n = args->n / rows[i].divisor + 1;
		sleeps.precise = rows[i].precise;
		sleeps.late_ns = calloc(sleeps.n, sizeof(*sleeps.late_ns));
		BENCH_CHECK(sleeps.late_ns);
		error = bench_runtime_run(args, rows[i].main, &sleeps);
		bench_row_set(row, BENCH_NS_PER_OP, (double)sleeps.total_ns / (double)sleeps.n);
		bench_row_set(row, BENCH_CPU_NS, (double)sleeps.cpu_ns / (double)sleeps.n);
		bench_row_percentiles(row, sleeps.late_ns, sleeps.n);
		row->apart = rows[i].divisor > 1;
		free(sleeps.late_ns);
	}
	return error;
}

const struct bench_workload bench_sleep_late = {
	.name = "sleep_late",
	.help = "how late n sleeps, spread over a second, end; n/100 in turn; precise ones",
	.workers_default = 1,
	.n_default = 100000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK) | BENCH_IDLE_BIT(BENCH_IDLE_ADAPTIVE),
	.cold = true,
	.run = sleep_late_run,
};
