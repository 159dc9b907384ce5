/*
 * bench_pingpong.c: wakes.
 *
 *   pingpong        two fibers of one worker that wake each other in turn: n round trips
 *   pingpong_cross  the same with one fiber on each of two workers: every wake crosses cores
 *   wake_parked     a foreign thread wakes a waiting fiber every 200 us: how long until it runs,
 *                   and what the wake costs the thread that makes it
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdlib.h>

enum { WAKE_GAP_NS = 200000 };

/* ---- pingpong -------------------------------------------------------------------------------- */

struct pingpong {
	const struct bench_args *args;
	weft_pid ping, pong;
	uint64_t *samples_ns; /* of each round trip; NULL: not taken */
	uint64_t total_ns;
	uint64_t cpu_ns;
};

static int pong_body(void *arg)
{
	const struct pingpong *pair = arg;
	uint64_t i;

	for (i = 0; i < pair->args->n; i++) {
		if (weft_park(WEFT_FOREVER) < 0)
			return -ECANCELED;
		weft_wake(pair->ping);
	}
	return 0;
}

static int ping_body(void *arg)
{
	struct pingpong *pair = arg;
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns(), last_ns = start_ns, i;

	for (i = 0; i < pair->args->n; i++) {
		weft_wake(pair->pong);
		if (weft_park(WEFT_FOREVER) < 0)
			return -ECANCELED;
		if (pair->samples_ns) {
			uint64_t now_ns = bench_now_ns();

			pair->samples_ns[i] = now_ns - last_ns;
			last_ns = now_ns;
		}
	}
	pair->total_ns = bench_now_ns() - start_ns;
	pair->cpu_ns = bench_cpu_ns() - cpu_ns;
	return 0;
}

/* Both ids must be known before either runs: both start suspended. */
static int pingpong_main(void *arg)
{
	struct pingpong *pair = arg;
	struct weft_spawn_opts opts = {
		.size = sizeof(opts), .flags = WEFT_SUSPENDED, .worker = WEFT_WORKER(0)};
	int error = weft_spawn_with(ping_body, pair, &opts, &pair->ping);

	opts.worker = WEFT_WORKER(pair->args->workers - 1);
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

static int pingpong_run(const struct bench_args *args, struct bench_result *result)
{
	struct pingpong pair = {.args = args};
	struct bench_row *row = bench_row_add(result, "wake", "fiber");
	int error = bench_runtime_run(args, pingpong_main, &pair);

	bench_row_set(row, BENCH_NS_PER_OP, (double)pair.total_ns / (double)args->n);
	bench_row_set(row, BENCH_CPU_NS, (double)pair.cpu_ns / (double)args->n);
	return error;
}

const struct bench_workload bench_pingpong = {
	.name = "pingpong",
	.help = "n round trips of wake and park between two fibers of one worker",
	.workers_default = 1,
	.n_default = 2000000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = pingpong_run,
};

/* ---- pingpong_cross -------------------------------------------------------------------------- */

static int cross_run(const struct bench_args *args, struct bench_result *result)
{
	struct pingpong pair = {.args = args};
	struct bench_row *row = bench_row_add(result, "wake", "fiber");
	int error;

	if (args->workers < 2)
		return -EINVAL;
	error = bench_runtime_run(args, pingpong_main, &pair);
	bench_row_set(row, BENCH_NS_PER_OP, (double)pair.total_ns / (double)args->n);
	bench_row_set(row, BENCH_CPU_NS, (double)pair.cpu_ns / (double)args->n);
	if (error < 0)
		return error;
	/* Again with a clock read in every round trip: it would add its 25 ns to the mean. */
	pair.samples_ns = calloc(args->n, sizeof(*pair.samples_ns));
	if (!pair.samples_ns)
		return -ENOMEM;
	error = bench_runtime_run(args, pingpong_main, &pair);
	bench_row_percentiles(row, pair.samples_ns, args->n);
	free(pair.samples_ns);
	bench_floor_round_trips(args, result);
	return error;
}

const struct bench_workload bench_pingpong_cross = {
	.name = "pingpong_cross",
	.help = "n round trips of wake and park between fibers on the first and the last worker",
	.workers_default = 2,
	.n_default = 20000,
	.idle_modes = BENCH_IDLE_ALL,
	.run = cross_run,
};

/* ---- wake_parked ----------------------------------------------------------------------------- */

struct wake {
	const struct bench_args *args;
	weft_pid pid;
	wf_atomic_u64 sent_ns; /* written by the waking thread before each wake */
	wf_atomic_u64 served;  /* wakes answered; written by the fiber */
	uint64_t *until_run_ns;
	uint64_t *call_ns;
};

static int wake_body(void *arg)
{
	struct wake *wake = arg;
	uint64_t i;

	for (i = 0; i < wake->args->n; i++) {
		if (weft_park(WEFT_FOREVER) < 0)
			return -ECANCELED;
		wake->until_run_ns[i] = bench_now_ns() - wf_u64_load_relaxed(&wake->sent_ns);
		/* A1: release, with A2 in wake_thread: the sample is complete. */
		wf_u64_store_release(&wake->served, i + 1);
	}
	return 0;
}

static void wake_thread(void *arg)
{
	struct wake *wake = arg;
	uint64_t due_ns = bench_now_ns(), i;

	for (i = 0; i < wake->args->n; i++) {
		uint64_t now_ns;

		/* Spins: the waking thread's own sleep is not what is measured. */
		for (due_ns += WAKE_GAP_NS; (now_ns = bench_now_ns()) < due_ns;)
			wf_pause();
		wf_u64_store_relaxed(&wake->sent_ns, now_ns);
		BENCH_CHECK(weft_wake(wake->pid) == 0);
		wake->call_ns[i] = bench_now_ns() - now_ns;
		/* A2: acquire, with A1 in wake_body: one wake at a time. */
		while (wf_u64_load_acquire(&wake->served) <= i)
			wf_pause();
		due_ns = bench_now_ns();
	}
}

static int wake_run(const struct bench_args *args, struct bench_result *result)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .worker = WEFT_WORKER(0)};
	struct wake wake = {.args = args};
	struct bench_row *row;
	weft_rt *rt;
	int error = bench_runtime_open(args, &rt), closed;

	if (error < 0)
		return error;
	wake.until_run_ns = calloc(args->n, sizeof(*wake.until_run_ns));
	wake.call_ns = calloc(args->n, sizeof(*wake.call_ns));
	BENCH_CHECK(wake.until_run_ns && wake.call_ns);
	error = weft_rt_spawn(rt, wake_body, &wake, &opts, &wake.pid);
	if (error == 0)
		error = bench_foreign_run(args, wake_thread, &wake);
	if (error == 0)
		error = weft_join(wake.pid, NULL, WEFT_FOREVER);
	closed = bench_runtime_close(rt);
	bench_row_percentiles(
		bench_row_add(result, "until it runs", "fiber"), wake.until_run_ns, args->n);
	row = bench_row_add(result, "the call", "fiber");
	row->apart = true;
	bench_row_percentiles(row, wake.call_ns, args->n);
	free(wake.until_run_ns);
	free(wake.call_ns);
	bench_floor_wakes(args, WAKE_GAP_NS, result);
	return error < 0 ? error : closed;
}

const struct bench_workload bench_wake_parked = {
	.name = "wake_parked",
	.help = "n wakes of a fiber on an idle worker by a foreign thread, one every 200 us",
	.workers_default = 1,
	.n_default = 2000,
	.idle_modes = BENCH_IDLE_ALL,
	.run = wake_run,
};
