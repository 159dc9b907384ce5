/*
 * Goal: the host's hooks (struct weft_hooks) are called as <weft.h> says: in pairs, once each, on
 * the worker concerned, outside a process; what a park hook makes ready is run.
 * Method: hooks that count, and that check the order in a record of each process.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "test/runtime.h"

enum { PROCESSES = 200, WORKERS_MAX = 4 };

/* What has been told of a process, by the index in its id. */
struct record {
	wf_atomic_u32 spawned, ended, runs, running;
	int result;
	char name[32];
};

static struct {
	weft_rt *rt;
	wf_atomic_u32 started[WORKERS_MAX], stopped[WORKERS_MAX];
	wf_atomic_u32 parked[WORKERS_MAX], unparked[WORKERS_MAX];
	wf_atomic_u32 spawned, ended, runs;
	struct record records[4096];
} told;

static struct record *record_of(weft_pid pid)
{
	uint32_t index = (uint32_t)pid.raw & 0x3ffffff;

	cr_assert_lt(index, WF_ARRAY_COUNT(told.records));
	return &told.records[index];
}

/* A hook is outside a process, on the worker that it is told. */
static void is_on(int worker)
{
	cr_assert_eq(weft_worker_index(), worker);
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(weft_park(WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_yield(), -EPERM);
}

static void start(void *ctx, int worker)
{
	cr_assert_eq(ctx, &told);
	is_on(worker);
	cr_assert_eq(wf_u32_fetch_add(&told.started[worker], 1), 0);
}

static void stop(void *ctx, int worker)
{
	cr_assert_eq(ctx, &told);
	is_on(worker);
	cr_assert_eq(weft_rt_spawn(weft_rt_current(), parks, NULL, NULL, NULL), -ESHUTDOWN);
	cr_assert_eq(wf_u32_load_relaxed(&told.started[worker]), 1);
	cr_assert_eq(wf_u32_fetch_add(&told.stopped[worker], 1), 0);
}

static void park(void *ctx, int worker)
{
	(void)ctx;
	is_on(worker);
	cr_assert_eq(wf_u32_load_relaxed(&told.started[worker]), 1);
	cr_assert_eq(wf_u32_fetch_add(&told.parked[worker], 1),
		wf_u32_load_relaxed(&told.unparked[worker]));
}

static void unpark(void *ctx, int worker)
{
	(void)ctx;
	is_on(worker);
	cr_assert_eq(wf_u32_fetch_add(&told.unparked[worker], 1) + 1,
		wf_u32_load_relaxed(&told.parked[worker]));
}

static void spawn(void *ctx, weft_pid pid)
{
	struct record *record = record_of(pid);

	(void)ctx;
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(weft_park(WEFT_FOREVER), -EPERM);
	cr_assert_eq(wf_u32_load_relaxed(&record->spawned),
		wf_u32_load_relaxed(&record->ended), "not over yet");
	(void)wf_u32_fetch_add(&record->spawned, 1);
	(void)wf_u32_fetch_add(&told.spawned, 1);
}

static void end(void *ctx, const struct weft_exit *exit)
{
	struct record *record = record_of(exit->pid);

	(void)ctx;
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(wf_u32_load_relaxed(&record->running), 0);
	cr_assert_eq(wf_u32_fetch_add(&record->ended, 1) + 1,
		wf_u32_load_relaxed(&record->spawned));
	record->result = exit->result;
	memcpy(record->name, exit->name, sizeof record->name);
	(void)wf_u32_fetch_add(&told.ended, 1);
}

static void before(void *ctx, weft_pid pid)
{
	struct record *record = record_of(pid);

	(void)ctx;
	is_on(weft_worker_index());
	cr_assert_eq(wf_u32_load_relaxed(&record->spawned),
		wf_u32_load_relaxed(&record->ended) + 1);
	cr_assert_eq(wf_u32_fetch_add(&record->running, 1), 0);
	(void)wf_u32_fetch_add(&record->runs, 1);
	(void)wf_u32_fetch_add(&told.runs, 1);
}

static void after(void *ctx, weft_pid pid)
{
	(void)ctx;
	is_on(weft_worker_index());
	cr_assert_eq(wf_u32_fetch_add(&record_of(pid)->running, (uint32_t)-1), 1);
}

static const struct weft_hooks all = {sizeof(struct weft_hooks), &told, start, stop, park, unpark,
	spawn, end, before, after};

static struct weft_rt_opts opts_with(const struct weft_hooks *hooks, unsigned workers)
{
	return (struct weft_rt_opts){
		.workers = workers, .idle = WEFT_IDLE_PARK, .hooks = hooks};
}

static unsigned sum(wf_atomic_u32 *figures)
{
	unsigned total = 0;

	for (int i = 0; i < WORKERS_MAX; i++)
		total += wf_u32_load_relaxed(&figures[i]);
	return total;
}

/* ---- Pairs ---------------------------------------------------------------------------------- */

static int yields(void *arg)
{
	int times = *(int *)arg;

	for (int i = 0; i < times; i++)
		cr_assert_eq(weft_yield(), 0);
	return times;
}

static int spawns_many(void *arg)
{
	static int times[PROCESSES];
	weft_pid pids[PROCESSES];

	(void)arg;
	for (int i = 0; i < PROCESSES; i++) {
		times[i] = i % 5;
		pids[i] = spawned_with(yields, &times[i], i % 2 ? WEFT_MOVABLE : 0, 0);
	}
	for (int i = 0; i < PROCESSES; i++)
		cr_assert_eq(joined(pids[i]), i % 5);
	return 1;
}

Test(hooks, come_in_pairs, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		struct weft_rt_opts opts = opts_with(&all, workers);
		weft_rt *rt;

		memset(&told, 0, sizeof told);
		rt = runtime_new_with(&opts);
		cr_assert_eq(runtime_do(rt, spawns_many, NULL), 1);
		runtime_end(rt);
		cr_assert_eq(sum(told.started), workers);
		cr_assert_eq(sum(told.stopped), workers);
		cr_assert_eq(sum(told.parked), sum(told.unparked));
		cr_assert_eq(wf_u32_load_relaxed(&told.spawned), PROCESSES + 1);
		cr_assert_eq(wf_u32_load_relaxed(&told.ended), PROCESSES + 1);
		/* Each run of each: one more than its yields. */
		cr_assert_geq(wf_u32_load_relaxed(&told.runs), PROCESSES * 3 + 1);
	}
}

/* The worker of an embedded runtime begins and ends as any other. */
Test(hooks, come_in_pairs_on_an_embedded_runtime, .timeout = 120)
{
	struct weft_rt_opts opts = opts_with(&all, 1);
	int times = 3;
	weft_rt *rt;

	opts.flags = WEFT_RT_EMBEDDED;
	memset(&told, 0, sizeof told);
	rt = runtime_new_with(&opts);
	cr_assert_eq(sum(told.started), 1);
	cr_assert_eq(weft_rt_block_on(rt, yields, &times, NULL, NULL), 0);
	cr_assert_eq(sum(told.stopped), 0);
	runtime_end(rt);
	cr_assert_eq(sum(told.stopped), 1);
	cr_assert_eq(sum(told.parked), sum(told.unparked));
	cr_assert_eq(wf_u32_load_relaxed(&told.ended), 1);
}

static int yields_often(void *arg)
{
	(void)arg;
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(weft_yield(), 0);
	return 0;
}

static int two_that_yield(void *arg)
{
	weft_pid a = spawned(yields_often, arg), b = spawned(yields_often, arg);

	return joined(a) + joined(b);
}

Test(hooks, see_every_run, .timeout = 120)
{
	struct weft_rt_opts opts = opts_with(&all, 1);
	weft_rt *rt = runtime_new_with(&opts);

	cr_assert_eq(runtime_do(rt, two_that_yield, NULL), 0);
	runtime_end(rt);
	cr_assert_geq(wf_u32_load_relaxed(&told.runs), 2 * 1001 + 1);
}

/* ---- What ends without running --------------------------------------------------------------- */

static int reserves(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "second"};
	weft_pid aborted, committed;
	int three = 3;

	(void)arg;
	cr_assert_eq(weft_spawn_reserve(&aborted), 0);
	cr_assert_eq(weft_spawn_abort(aborted), 0);
	cr_assert_eq(weft_spawn_reserve(&committed), 0);
	cr_assert_eq(wf_u32_load_relaxed(&told.spawned), 1, "a reservation is no process yet");
	cr_assert_eq(weft_spawn_commit(committed, yields, &three, &opts), 0);
	cr_assert_eq(wf_u32_load_relaxed(&told.spawned), 2);
	cr_assert_eq(joined(committed), 3);
	cr_assert_eq(record_of(committed)->result, 3);
	cr_assert_str_eq(record_of(committed)->name, "second");
	return 1;
}

Test(hooks, tell_a_reservation_when_it_is_committed, .timeout = 120)
{
	struct weft_rt_opts opts = opts_with(&all, 1);
	weft_rt *rt = runtime_new_with(&opts);

	cr_assert_eq(runtime_do(rt, reserves, NULL), 1);
	runtime_end(rt);
	cr_assert_eq(wf_u32_load_relaxed(&told.ended), 2);
}

static void spawns_until_refused(unsigned index, void *arg)
{
	static int never;
	weft_rt *rt = arg;
	int r = 0;

	if (index == 0) {
		UNTIL_FOREIGN(wf_u32_load_relaxed(&told.ended) >= 20);
		cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
		return;
	}
	while (r == 0 || r == -EAGAIN) /* no room: headers wait for a grace period */
		r = weft_rt_spawn(rt, yields, &never,
			&(struct weft_spawn_opts){.size = sizeof(struct weft_spawn_opts),
				.flags = WEFT_DETACHED},
			NULL);
	cr_assert_eq(r, -ESHUTDOWN);
}

Test(hooks, end_whatever_was_spawned_across_a_stop, .timeout = 120)
{
	static const struct weft_hooks counts = {
		.size = sizeof counts, .ctx = &told, .process_spawn = spawn, .process_end = end};

	for (int round = 0; round < 20 / HARNESS_SLOWDOWN + 2; round++) {
		struct weft_rt_opts opts = opts_with(&counts, 2);
		weft_rt *rt;

		opts.processes_max = WF_ARRAY_COUNT(told.records) - 1;
		memset(&told, 0, sizeof told);
		rt = runtime_new_with(&opts);
		harness_threads(3, spawns_until_refused, rt);
		runtime_end(rt);
		cr_assert_eq(wf_u32_load_relaxed(&told.spawned),
			wf_u32_load_relaxed(&told.ended));
	}
}

/* X5 */
static int does_nothing(void *arg)
{
	(void)arg;
	return 0;
}

/* With all that a runtime can have: signals, handlers, a monitor, threads for blocking work. */
Test(hooks, start_and_stop_alike_a_thousand_times, .timeout = 120)
{
	struct weft_rt_opts opts = opts_with(&all, 2);
	unsigned fds, threads, rounds = 1000 / HARNESS_SLOWDOWN;
	sigset_t before, after;
	size_t bytes = 0;
	weft_pid pid;
	weft_rt *rt;

	opts.flags = WEFT_RT_GUARD_REPORT | WEFT_RT_STALL_BACKTRACE | WEFT_RT_SIGNALS;
	memset(&before, 0, sizeof before); /* the kernel's is shorter */
	memset(&after, 0, sizeof after);
	cr_assert_eq(pthread_sigmask(SIG_SETMASK, NULL, &before), 0);
	runtime_end(runtime_new_with(&opts)); /* what is made once for the process */
	fds = harness_fd_count();
	threads = harness_thread_count();
	for (unsigned i = 0; i < rounds; i++) {
		memset(&told, 0, sizeof told);
		rt = runtime_new_with(&opts);
		cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
		cr_assert_eq(weft_blocking_post(rt, does_nothing, NULL, NULL), 0);
		runtime_end(rt);
		cr_assert_eq(sum(told.started), 2);
		cr_assert_eq(sum(told.stopped), 2);
		cr_assert_eq(sum(told.parked), sum(told.unparked));
		cr_assert_eq(wf_u32_load_relaxed(&told.spawned), 1);
		cr_assert_eq(wf_u32_load_relaxed(&told.ended), 1);
		cr_assert_eq(weft_wake(pid), -ESRCH);
		cr_assert_eq(harness_fd_count(), fds);
		if (i == rounds / 4)
			bytes = harness_rss_bytes();
	}
	UNTIL_FOREIGN(harness_thread_count() <= threads);
	cr_assert_eq(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
	cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
	if (!HARNESS_ASAN && !HARNESS_TSAN)
		cr_assert_lt(harness_rss_bytes(), bytes + (size_t)2 * 1024 * 1024);
}

/* ---- A park hook that makes work ------------------------------------------------------------- */

static wf_atomic_u32 from_hook, spawned_by_hook;

static int counts_itself(void *arg)
{
	(void)arg;
	(void)wf_u32_fetch_add(&from_hook, 1);
	return 0;
}

static void counts_a_post(void *arg)
{
	(void)counts_itself(arg);
}

static void spawns_at_park(void *ctx, int worker)
{
	weft_rt *rt = weft_rt_current();
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = WEFT_DETACHED, .worker = (unsigned)worker + 1};

	(void)ctx;
	switch (wf_u32_fetch_add(&spawned_by_hook, 1)) {
	case 0: /* into the private list */
		cr_assert_eq(weft_rt_spawn(rt, counts_itself, NULL, &opts, NULL), 0);
		break;
	case 1: /* into the ring */
		cr_assert_eq(weft_rt_spawn(rt, counts_itself, NULL, NULL, NULL), 0);
		break;
	case 2: /* into the inbox */
		cr_assert_eq(weft_post(rt, counts_a_post, NULL), 0);
		break;
	}
}

Test(hooks, work_made_by_a_park_hook_runs, .timeout = 120)
{
	static const struct weft_hooks hooks = {
		.size = sizeof hooks, .thread_park = spawns_at_park};
	struct weft_rt_opts opts = opts_with(&hooks, 1);
	weft_rt *rt = runtime_new_with(&opts);

	/* Nobody else ever wakes the worker. */
	UNTIL_FOREIGN(wf_u32_load_relaxed(&from_hook) == 3);
	runtime_end(rt);
}

/* ---- Options --------------------------------------------------------------------------------- */

Test(hooks, of_a_wrong_size_are_refused, .timeout = 120)
{
	static const struct weft_hooks unsized = {.thread_start = start};
	struct weft_error error = {0};
	struct weft_rt_opts opts = opts_with(&unsized, 1);
	weft_rt *rt = NULL;

	opts.size = sizeof opts;
	opts.error = &error;
	cr_assert_eq(weft_rt_create(&opts, &rt), -EINVAL);
	cr_assert_null(rt);
	cr_assert_str_eq(error.step, "options");
	cr_assert_not_null(strstr(error.text, "hooks"), "%s", error.text);
}
