/*
 * Goal: what <weft/process.h> and <weft/time.h> promise of sleep, park, wake and cancel.
 * Method: small runtimes. Who wakes or cancels is another process, another worker or a foreign
 * thread; where two may be first the test names both results and counts that nothing is lost or
 * doubled.
 * Deadlines that must not come are an hour away.
 */
#include <errno.h>

#include "test/runtime.h"

#define HOUR_NS WEFT_SEC(3600)

/* ---- Sleep ---------------------------------------------------------------------------------- */

static int sleeps_for_a_list_of_times(void *arg)
{
	static const weft_time durations_ns[] = {0, 1, 100, 999, 1000, 1024, 1025, 5000, 65536,
		65537, 100000, 1000000, 1048577, 3000000};

	(void)arg;
	for (size_t i = 0; i < WF_ARRAY_COUNT(durations_ns); i++) {
		weft_time deadline = weft_after(durations_ns[i]);

		cr_assert_eq(weft_sleep_until(deadline), 0);
		cr_assert_geq(weft_now(), deadline, "early with %ld ns", (long)durations_ns[i]);
	}
	return 1;
}

Test(wait, sleep_is_never_early, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, sleeps_for_a_list_of_times, NULL), 1);
}

static int sleeps_at_random(void *arg)
{
	uint64_t state = *(uint64_t *)arg;

	for (int i = 0; i < 10; i++) {
		weft_time deadline =
			weft_after((weft_time)harness_random_below(&state, WEFT_MS(1)));

		cr_assert_eq(weft_sleep_until(deadline), 0);
		cr_assert_geq(weft_now(), deadline);
	}
	return 1;
}

static int crowd_sleeps(void *arg)
{
	enum { CROWD = 200 };
	uint64_t seeds[CROWD];
	weft_pid pids[CROWD];

	(void)arg;
	for (unsigned i = 0; i < CROWD; i++) {
		seeds[i] = harness_seed() + i;
		pids[i] = spawned_with(sleeps_at_random, &seeds[i], i % 2 ? WEFT_MOVABLE : 0, 0);
	}
	for (unsigned i = 0; i < CROWD; i++)
		cr_assert_eq(joined(pids[i]), 1);
	return 1;
}

Test(wait, no_sleep_of_a_crowd_is_early, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, crowd_sleeps, NULL), 1);
	cr_assert_eq(in_runtime(2, crowd_sleeps, NULL), 1);
}

static int sets(void *arg)
{
	wf_u32_store_release((wf_atomic_u32 *)arg, 1);
	return 0;
}

static int sleeps_not_at_all(void *arg)
{
	wf_atomic_u32 ran = {0};
	weft_pid pid = spawned(sets, &ran);

	(void)arg;
	cr_assert_eq(weft_sleep_until(WEFT_POLL), 0);
	cr_assert_eq(weft_sleep_until(0), 0);
	cr_assert_eq(weft_sleep_until(-1), 0);
	cr_assert_eq(weft_sleep_until(WEFT_POLL + 1), 0);
	cr_assert_eq(weft_sleep_until(weft_now_coarse()), 0);
	/* One worker: who parks lets the other run. */
	cr_assert_eq(wf_u32_load_acquire(&ran), 0, "a sleep into the past parked");
	cr_assert_eq(weft_sleep_until(weft_now()), 0);
	joined(pid);
	return 1;
}

Test(wait, sleep_into_the_past_returns_at_once, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, sleeps_not_at_all, NULL), 1);
}

struct sleeper {
	weft_time deadline;
	wf_atomic_u32 started;
	int slept;
	int worker_before, worker_after;
};

static int sleeps_until(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->worker_before = weft_worker_index();
	wf_u32_store_release(&sleeper->started, 1);
	sleeper->slept = weft_sleep_until(sleeper->deadline);
	sleeper->worker_after = weft_worker_index();
	return sleeper->slept;
}

static int only_cancel_ends_sleep(void *arg)
{
	struct sleeper sleepers[2] = {
		{.deadline = WEFT_FOREVER}, {.deadline = weft_after(HOUR_NS)}};

	(void)arg;
	for (unsigned i = 0; i < 4; i++) {
		struct sleeper *sleeper = &sleepers[i % 2];
		weft_pid pid;

		wf_u32_store_release(&sleeper->started, 0);
		pid = spawned_with(sleeps_until, sleeper, i < 2 ? 0 : WEFT_MOVABLE, 0);
		UNTIL(wf_u32_load_acquire(&sleeper->started));
		for (unsigned wakes = 0; wakes < 5; wakes++) {
			cr_assert_eq(weft_wake(pid), 0);
			weft_yield();
			weft_yield();
			cr_assert_eq(weft_try_join(pid, NULL), -EAGAIN, "a wake ended a sleep");
		}
		cr_assert_eq(weft_cancel(pid), 0);
		cr_assert_eq(joined(pid), -ECANCELED);
	}
	return 1;
}

Test(wait, only_cancel_ends_a_sleep, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, only_cancel_ends_sleep, NULL), 1);
	cr_assert_eq(in_runtime(2, only_cancel_ends_sleep, NULL), 1);
}

/* Wakes that came during the sleep: it lasts, and the park after it takes them, once. */
static int sleeps_then_parks(void *arg)
{
	struct sleeper *sleeper = arg;

	cr_assert_eq(sleeps_until(sleeper), 0);
	cr_assert_geq(weft_now(), sleeper->deadline);
	cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	return weft_park(WEFT_POLL);
}

/* False: the sleep may have been over before the wakes came, so what happened says nothing. */
static bool wakes_in_time(unsigned flags, weft_time duration_ns)
{
	struct sleeper sleeper = {.deadline = weft_after(duration_ns)};
	weft_pid pid = spawned_with(sleeps_then_parks, &sleeper, flags, 0);
	bool in_time;
	int result;

	UNTIL(wf_u32_load_acquire(&sleeper.started));
	cr_assert_eq(weft_wake(pid), 0);
	weft_yield();
	(void)weft_wake(pid);
	in_time = weft_now() < sleeper.deadline;
	result = joined(pid);
	cr_assert(result == -EAGAIN || !in_time, "%d", result);
	return in_time;
}

static int wakes_a_sleeper(void *arg)
{
	weft_time duration_ns = WEFT_MS(5);

	while (!wakes_in_time(*(unsigned *)arg, duration_ns))
		duration_ns *= 2;
	return 1;
}

Test(wait, wake_during_a_sleep_is_for_the_next_park, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		cr_assert_eq(in_runtime(workers, wakes_a_sleeper, &(unsigned){0}), 1);
		cr_assert_eq(in_runtime(workers, wakes_a_sleeper, &(unsigned){WEFT_MOVABLE}), 1);
	}
}

/* ---- Order ---------------------------------------------------------------------------------- */

enum { ORDERED = 300 };

struct ordered {
	weft_time deadline;
	unsigned number;
	unsigned *order;
	unsigned *woken;
	unsigned *asleep;
};

static int sleeps_in_order(void *arg)
{
	struct ordered *ordered = arg;

	++*ordered->asleep;
	cr_assert_eq(weft_sleep_until(ordered->deadline), 0);
	ordered->order[(*ordered->woken)++] = ordered->number;
	return 0;
}

/* False: the first deadline was over before all slept, so the order says nothing. */
static bool sleeps_ordered(weft_time lead_ns, weft_time distance_ns)
{
	static struct ordered sleepers[ORDERED];
	static weft_pid pids[ORDERED];
	unsigned order[ORDERED];
	unsigned woken = 0, asleep = 0;
	weft_time base = weft_after(lead_ns);
	bool in_time;

	for (unsigned i = 0; i < ORDERED; i++) {
		/* 7 and 300 have no common divisor: every number once, in disorder. */
		unsigned number = i * 7 % ORDERED;

		sleepers[i] = (struct ordered){
			base + (weft_time)number * distance_ns, number, order, &woken, &asleep};
		pids[i] = spawned(sleeps_in_order, &sleepers[i]);
	}
	UNTIL(asleep == ORDERED);
	in_time = weft_now() < base;
	for (unsigned i = 0; i < ORDERED; i++)
		joined(pids[i]);
	for (unsigned i = 0; in_time && i < ORDERED; i++)
		cr_assert_eq(order[i], i, "place %u", i);
	return in_time;
}

static int ordered_sleep(void *arg)
{
	/* Two deadlines within a tick have no order. */
	const weft_time tick_ns = (weft_time)1 << WF_TICK_SHIFT;
	weft_time lead_ns = WEFT_MS(10);

	(void)arg;
	for (int round = 0; round < 3; round++)
		while (!sleeps_ordered(lead_ns, 2 * tick_ns))
			lead_ns *= 2;
	return 1;
}

Test(wait, sleepers_of_a_worker_wake_in_order_of_deadline, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, ordered_sleep, NULL), 1);
}

/* T9: order, not time: an hour would be over the test's limit. */
static int sleeps_a_millisecond(void *arg)
{
	weft_time deadline = weft_after(WEFT_MS(1));

	(void)arg;
	cr_assert_eq(weft_sleep_until(deadline), 0);
	cr_assert_geq(weft_now(), deadline);
	return 1;
}

static void wakes_far_sleepers(enum weft_idle idle, unsigned workers)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = workers, .idle = idle});
	struct sleeper far[2] = {
		{.deadline = weft_after(HOUR_NS)}, {.deadline = weft_after(HOUR_NS)}};
	struct weft_spawn_opts opts = {.size = sizeof opts};
	weft_pid pids[2];

	for (unsigned i = 0; i < workers; i++) {
		opts.worker = WEFT_WORKER(i);
		cr_assert_eq(weft_rt_spawn(rt, sleeps_until, &far[i], &opts, &pids[i]), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&far[i].started));
	}
	for (int i = 0; i < 100; i++)
		cr_assert_eq(runtime_do(rt, sleeps_a_millisecond, NULL), 1);
	for (unsigned i = 0; i < workers; i++) {
		cr_assert_eq(weft_try_join(pids[i], NULL), -EAGAIN);
		cr_assert_eq(weft_cancel(pids[i]), 0);
		cr_assert_eq(joined(pids[i]), -ECANCELED);
	}
	runtime_end(rt);
}

Test(wait, near_deadline_shortens_a_far_sleep, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		wakes_far_sleepers(WEFT_IDLE_PARK, workers);
		wakes_far_sleepers(WEFT_IDLE_ADAPTIVE, workers);
	}
}

/* ---- Park and wake -------------------------------------------------------------------------- */

static int parks_with_tokens(void *arg)
{
	weft_time deadline;

	(void)arg;
	/* None there. */
	cr_assert_eq(weft_park(WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_park(0), -ETIME);
	cr_assert_eq(weft_park(-1), -ETIME);
	cr_assert_eq(weft_park(weft_now() - 1), -ETIME);
	deadline = weft_after(WEFT_US(300));
	cr_assert_eq(weft_park(deadline), -ETIME);
	cr_assert_geq(weft_now(), deadline, "early");
	/* One there: it wins over every deadline, and is gone then. */
	for (int wakes = 1; wakes <= 3; wakes++) {
		const weft_time deadlines[] = {
			WEFT_POLL, 0, weft_now() - 1, weft_after(HOUR_NS), WEFT_FOREVER};

		for (size_t i = 0; i < WF_ARRAY_COUNT(deadlines); i++) {
			for (int k = 0; k < wakes; k++)
				cr_assert_eq(weft_wake(weft_self()), 0);
			if (i % 2)
				weft_yield();
			cr_assert_eq(weft_park(deadlines[i]), 0, "deadline %zu", i);
			cr_assert_eq(weft_park(WEFT_POLL), -EAGAIN, "wakes added up");
		}
	}
	return 1;
}

static int parks_both_ways(void *arg)
{
	weft_pid pids[2] = {spawned(parks_with_tokens, NULL),
		spawned_with(parks_with_tokens, NULL, WEFT_MOVABLE, 0)};

	(void)arg;
	cr_assert_eq(joined(pids[0]), 1);
	cr_assert_eq(joined(pids[1]), 1);
	return 1;
}

Test(wait, park_takes_one_token_or_obeys_its_deadline, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, parks_both_ways, NULL), 1);
	cr_assert_eq(in_runtime(2, parks_both_ways, NULL), 1);
}

/*
 * A lock-step of one waker and one process that parks: a wake a round, seen exactly once. A short
 * deadline may come first; then the wake must end the park after it.
 */
struct lockstep {
	wf_atomic_u32 round;
	wf_atomic_u32 ack;
	uint32_t rounds;
	weft_time deadline_max_ns; /* 0: none */
	uint32_t expired;
	uint32_t data; /* plain: the wake publishes it */
	weft_pid target;
};

static int parks_in_lockstep(void *arg)
{
	struct lockstep *step = arg;
	uint64_t state = harness_seed();

	for (uint32_t round = 1; round <= step->rounds; round++) {
		int r = -ETIME;

		if (step->deadline_max_ns)
			r = weft_park(weft_after((weft_time)harness_random_below(
				&state, (uint64_t)step->deadline_max_ns)));
		if (r == -ETIME) {
			step->expired++;
			r = weft_park(WEFT_FOREVER);
		}
		cr_assert_eq(r, 0);
		cr_assert_eq(step->data, round, "what was written before the wake");
		cr_assert_eq(weft_park(WEFT_POLL), -EAGAIN, "a wake counted twice");
		wf_u32_store_release(&step->ack, round);
	}
	return 1;
}

static int wakes_in_lockstep(void *arg)
{
	struct lockstep *step = arg;

	for (uint32_t round = 1; round <= step->rounds; round++) {
		step->data = round;
		cr_assert_eq(weft_wake(step->target), 0);
		UNTIL(wf_u32_load_acquire(&step->ack) == round);
	}
	return 1;
}

static void wakes_from_outside(struct lockstep *step)
{
	for (uint32_t round = 1; round <= step->rounds; round++) {
		step->data = round;
		cr_assert_eq(weft_wake(step->target), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&step->ack) == round);
	}
}

/* Waker: -1 is a foreign thread, else a worker. */
static void run_lockstep(unsigned workers, int waker, unsigned flags, weft_time deadline_max_ns)
{
	struct lockstep step = {
		.rounds = 2000 / HARNESS_SLOWDOWN, .deadline_max_ns = deadline_max_ns};
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags};
	weft_rt *rt = runtime_new(workers);
	weft_pid pid = {0};

	opts.worker = flags & WEFT_MOVABLE ? 0 : WEFT_WORKER(0);
	cr_assert_eq(weft_rt_spawn(rt, parks_in_lockstep, &step, &opts, &step.target), 0);
	opts.flags = 0;
	if (waker >= 0) {
		opts.worker = WEFT_WORKER(waker);
		cr_assert_eq(weft_rt_spawn(rt, wakes_in_lockstep, &step, &opts, &pid), 0);
		cr_assert_eq(joined(pid), 1);
	} else {
		wakes_from_outside(&step);
	}
	cr_assert_eq(joined(step.target), 1);
	runtime_end(rt);
}

Test(wait, every_wake_is_seen_exactly_once, .timeout = 120)
{
	static const unsigned flags[] = {0, WEFT_MOVABLE};
	static const weft_time deadlines_ns[] = {0, WEFT_US(20), HOUR_NS};

	for (unsigned f = 0; f < 2; f++) {
		for (unsigned d = 0; d < 3; d++) {
			run_lockstep(1, 0, flags[f], deadlines_ns[d]);
			run_lockstep(1, -1, flags[f], deadlines_ns[d]);
			run_lockstep(2, 1, flags[f], deadlines_ns[d]);
			run_lockstep(2, -1, flags[f], deadlines_ns[d]);
		}
	}
}

/* P5: holds worker 0, so that the target's run lies between the waker's rounds. */
struct queued {
	struct lockstep step;
	wf_atomic_u32 held; /* the round in which worker 0 is held */
	wf_atomic_u32 let_go;
};

static int holds_the_worker(void *arg)
{
	struct queued *queued = arg;

	for (uint32_t round = 1; round <= queued->step.rounds; round++) {
		wf_u32_store_release(&queued->held, round);
		/* Relaxed: only the wake may publish what was written before it. */
		while (wf_u32_load_relaxed(&queued->let_go) != round)
			sched_yield();
		UNTIL(wf_u32_load_acquire(&queued->step.ack) == round);
	}
	return 1;
}

static void wakes_queued(unsigned index, void *arg)
{
	struct queued *queued = arg;
	struct lockstep *step = &queued->step;

	(void)index;
	for (uint32_t round = 1; round <= step->rounds; round++) {
		UNTIL_FOREIGN(wf_u32_load_acquire(&queued->held) == round);
		step->data = 0;
		cr_assert_eq(weft_wake(step->target), 0);
		/* Queued from here on, and not run before the worker is let go. */
		step->data = round;
		cr_assert_eq(weft_wake(step->target), 0);
		wf_u32_store_relaxed(&queued->let_go, round);
	}
}

static int wakes_queued_as_process(void *arg)
{
	wakes_queued(0, arg);
	return 1;
}

static void run_queued(bool foreign)
{
	struct queued queued = {.step.rounds = 1000 / HARNESS_SLOWDOWN};
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(0)};
	weft_rt *rt = runtime_new(foreign ? 1 : 2);
	weft_pid holder, waker;

	cr_assert_eq(
		weft_rt_spawn(rt, parks_in_lockstep, &queued.step, &opts, &queued.step.target), 0);
	cr_assert_eq(weft_rt_spawn(rt, holds_the_worker, &queued, &opts, &holder), 0);
	if (foreign) {
		wakes_queued(0, &queued);
	} else {
		opts.worker = WEFT_WORKER(1);
		cr_assert_eq(weft_rt_spawn(rt, wakes_queued_as_process, &queued, &opts, &waker), 0);
		cr_assert_eq(joined(waker), 1);
	}
	cr_assert_eq(joined(holder), 1);
	cr_assert_eq(joined(queued.step.target), 1);
	runtime_end(rt);
}

Test(wait, wake_of_a_queued_process_publishes_what_came_before, .timeout = 120)
{
	run_queued(true);
	run_queued(false);
}

/* ---- Cancel --------------------------------------------------------------------------------- */

static int is_cancelled_for_good(void *arg)
{
	weft_pid pid = spawned(parks, NULL);

	(void)arg;
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(weft_cancel(weft_self()), 0);
		cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
		cr_assert_eq(weft_park(weft_after(HOUR_NS)), -ECANCELED);
		cr_assert_eq(weft_park(0), -ECANCELED);
		cr_assert_eq(weft_park(WEFT_POLL), -ECANCELED);
		cr_assert_eq(weft_sleep_until(WEFT_FOREVER), -ECANCELED);
		cr_assert_eq(weft_sleep_until(0), -ECANCELED);
		cr_assert_eq(weft_yield(), -ECANCELED);
		cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), -ECANCELED);
	}
	/* A token wins, once. */
	cr_assert_eq(weft_wake(weft_self()), 0);
	cr_assert_eq(weft_cancel(weft_self()), 0);
	cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(weft_wake(pid), 0);
	return 1;
}

Test(wait, cancel_is_level_triggered_and_idempotent, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = WEFT_MOVABLE};
	weft_pid pid;

	cr_assert_eq(runtime_do(rt, is_cancelled_for_good, NULL), 1);
	cr_assert_eq(weft_rt_spawn(rt, is_cancelled_for_good, NULL, &opts, &pid), 0);
	cr_assert_eq(joined(pid), 1);
	runtime_end(rt);
}

static int notes_its_first_call(void *arg)
{
	wf_u32_store_release((wf_atomic_u32 *)arg, 1);
	return weft_park(WEFT_FOREVER);
}

static int cancels_before_the_first_run(void *arg)
{
	static const unsigned flags[] = {
		0, WEFT_MOVABLE, WEFT_STACK_NOW, WEFT_SUSPENDED, WEFT_SUSPENDED | WEFT_MOVABLE};

	(void)arg;
	for (size_t i = 0; i < WF_ARRAY_COUNT(flags); i++) {
		wf_atomic_u32 ran = {0};
		weft_pid pid = spawned_with(notes_its_first_call, &ran, flags[i], 0);

		cr_assert_eq(weft_cancel(pid), 0);
		cr_assert_eq(weft_cancel(pid), 0);
		cr_assert_eq(joined(pid), -ECANCELED);
		cr_assert_eq(wf_u32_load_acquire(&ran), 1, "flags %u: did not run", flags[i]);
	}
	return 1;
}

Test(wait, cancelled_before_its_first_run_it_still_runs, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, cancels_before_the_first_run, NULL), 1);
	cr_assert_eq(in_runtime(2, cancels_before_the_first_run, NULL), 1);
}

/* P2 */
struct cancelled {
	struct sleeper sleeper;
	wf_atomic_u32 destroyed;
	int destroyed_on;
};

static void note_destroyed(void *arg)
{
	struct cancelled *cancelled = arg;

	cancelled->destroyed_on = weft_worker_index();
	wf_u32_fetch_add(&cancelled->destroyed, 1);
}

static int cancels_itself(void *arg)
{
	cr_assert_eq(weft_cancel(weft_self()), 0);
	return sleeps_until(arg);
}

static int cancels_the_other(void *arg)
{
	return weft_cancel(*(weft_pid *)arg);
}

enum canceller { ITSELF, SIBLING, OTHER_WORKER, FOREIGN, CANCELLERS };

static void cancel_by(weft_rt *rt, enum canceller who, weft_pid target)
{
	struct weft_spawn_opts opts = {.size = sizeof opts};
	weft_pid pid;

	if (who == ITSELF)
		return;
	if (who == FOREIGN) {
		cr_assert_eq(weft_cancel(target), 0);
		return;
	}
	opts.worker = WEFT_WORKER(who == SIBLING ? 0 : 1);
	cr_assert_eq(weft_rt_spawn(rt, cancels_the_other, &target, &opts, &pid), 0);
	cr_assert_eq(joined(pid), 0);
}

static void expect_cancelled(struct cancelled *cancelled)
{
	cr_assert_eq(wf_u32_load_acquire(&cancelled->destroyed), 1);
	cr_assert_eq(cancelled->sleeper.slept, -ECANCELED);
	cr_assert_eq(cancelled->sleeper.worker_before, 0);
	cr_assert_eq(cancelled->sleeper.worker_after, 0);
	cr_assert_eq(cancelled->destroyed_on, 0);
}

static void cancel_a_sleeper(weft_rt *rt, enum canceller who, weft_time deadline, bool drop)
{
	struct cancelled cancelled = {.sleeper.deadline = deadline};
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .worker = WEFT_WORKER(0), .arg_dtor = note_destroyed};
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, who == ITSELF ? cancels_itself : sleeps_until, &cancelled,
			     &opts, &pid),
		0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&cancelled.sleeper.started));
	cancel_by(rt, who, pid);
	if (drop) {
		cr_assert_eq(weft_detach(pid), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&cancelled.destroyed));
		UNTIL_FOREIGN(weft_cancel(pid) == -ESRCH);
	} else {
		cr_assert_eq(joined(pid), -ECANCELED);
		cr_assert_eq(weft_cancel(pid), -ESRCH);
	}
	expect_cancelled(&cancelled);
}

Test(wait, sleeper_cancelled_by_anybody_ends_on_its_worker, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);

	for (int round = 0; round < 50; round++)
		for (enum canceller who = ITSELF; who < CANCELLERS; who++)
			for (int drop = 0; drop < 2; drop++)
				cancel_a_sleeper(rt, who,
					round % 2 ? WEFT_FOREVER : weft_after(HOUR_NS), drop);
	runtime_end(rt);
}

/* ---- Movable sleepers ----------------------------------------------------------------------- */

/* Parks with a far or a short deadline until it is cancelled; counts its wakes. */
struct movable {
	wf_atomic_u32 woken;
	weft_time deadline_ns;
	weft_pid pid;
};

static int parks_until_cancelled(void *arg)
{
	struct movable *movable = arg;

	for (;;) {
		int r = weft_park(weft_after(movable->deadline_ns));

		if (r == -ECANCELED)
			return r;
		if (r == 0)
			wf_u32_fetch_add(&movable->woken, 1);
		else
			cr_assert_eq(r, -ETIME);
	}
}

enum { MOVABLES = 32, MOVABLE_ROUNDS = 200 / HARNESS_SLOWDOWN };

static int wakes_and_cancels(void *arg)
{
	struct movable *movables = arg;

	for (uint32_t round = 1; round <= MOVABLE_ROUNDS; round++) {
		for (int i = 0; i < MOVABLES; i++)
			cr_assert_eq(weft_wake(movables[i].pid), 0);
		for (int i = 0; i < MOVABLES; i++)
			UNTIL(wf_u32_load_acquire(&movables[i].woken) == round);
	}
	for (int i = 0; i < MOVABLES; i++)
		cr_assert_eq(weft_cancel(movables[i].pid), 0);
	for (int i = 0; i < MOVABLES; i++) {
		cr_assert_eq(joined(movables[i].pid), -ECANCELED);
		cr_assert_eq(wf_u32_load_acquire(&movables[i].woken), MOVABLE_ROUNDS);
	}
	return 1;
}

static void run_movables(weft_time deadline_ns)
{
	static struct movable movables[MOVABLES];
	weft_rt *rt = runtime_new(2);
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = WEFT_MOVABLE};
	weft_pid pid;

	memset(movables, 0, sizeof movables);
	for (int i = 0; i < MOVABLES; i++) {
		movables[i].deadline_ns = deadline_ns;
		opts.worker = WEFT_WORKER(0);
		cr_assert_eq(weft_rt_spawn(rt, parks_until_cancelled, &movables[i], &opts,
				     &movables[i].pid),
			0);
	}
	opts.flags = 0;
	opts.worker = WEFT_WORKER(1);
	cr_assert_eq(weft_rt_spawn(rt, wakes_and_cancels, movables, &opts, &pid), 0);
	cr_assert_eq(joined(pid), 1);
	runtime_end(rt);
}

Test(wait, movable_sleepers_are_woken_and_cancelled_from_elsewhere, .timeout = 120)
{
	run_movables(HOUR_NS);
	run_movables(WEFT_US(50));
}

static int movable_expires(void *arg)
{
	weft_time deadline = weft_after(WEFT_US(200));
	int yields = *(int *)arg;

	cr_assert_eq(weft_sleep_until(deadline), 0);
	cr_assert_geq(weft_now(), deadline);
	while (yields-- > 0)
		weft_yield();
	deadline = weft_after(WEFT_US(200));
	cr_assert_eq(weft_park(deadline), -ETIME);
	cr_assert_geq(weft_now(), deadline);
	return 1;
}

/* The waits of one process are on the wheels of whichever workers it is on. */
static int movables_expire(void *arg)
{
	enum { CROWD = 200 };
	static weft_pid pids[CROWD];
	int yields = 5;

	(void)arg;
	for (int i = 0; i < CROWD; i++)
		pids[i] = spawned_with(movable_expires, &yields, WEFT_MOVABLE, 0);
	for (int i = 0; i < CROWD; i++)
		cr_assert_eq(joined(pids[i]), 1);
	return 1;
}

Test(wait, movable_sleepers_wake_by_their_deadline, .timeout = 120)
{
	cr_assert_eq(in_runtime(2, movables_expire, NULL), 1);
}
