/*
 * Goal: every sentence of <weft/timer.h>: who may start, move, stop and wait for a timer, from
 * where; when it fires; whose its memory is; what a runtime's end leaves of it.
 * Method: what has a time runs in test runtimes, where time is virtual and so exact. What needs two
 * workers runs on real ones, where one of them stands at a gate. Memory that is the test's again is
 * poisoned at once. Rows T3, T6, T7, T9, B4 of timers and of movable processes.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weft/timer.h>

#include "core/runtime.h"
#include "test/runtime.h"

#include <weft/test.h>

/* ---- Tools ---------------------------------------------------------------------------------- */

#define TICK WF_WHEEL_TICK_NS

/* What an action has seen; of one thread. */
struct shot {
	struct weft_timer timer;
	unsigned count;
	weft_time at;
	int result;
};

static void shoot(void *arg)
{
	struct shot *shot = arg;

	shot->count++;
	shot->at = weft_now();
}

static weft_rt *test_rt(void)
{
	weft_rt *rt = NULL;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	return rt;
}

static void fired_at(const struct shot *shot, weft_time deadline)
{
	cr_assert_eq(shot->count, 1);
	cr_assert_geq(shot->at, deadline);
	cr_assert_leq(shot->at, deadline + TICK);
	cr_assert(!weft_timer_is_pending(&shot->timer));
}

static weft_pid rt_spawned(weft_rt *rt, weft_fn fn, void *arg)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_rt_spawn(rt, fn, arg, NULL, &pid), 0);
	return pid;
}

static int ended(weft_pid pid)
{
	int result = 0;

	cr_assert_eq(weft_try_join(pid, &result), 0);
	return result;
}

static void poison(struct weft_timer *timer)
{
	memset(timer, 0xa5, sizeof(*timer));
}

/* ---- Start ---------------------------------------------------------------------------------- */

static struct shot shots[8];
static weft_time due;

static int starts(void *arg)
{
	return weft_timer_start(&((struct shot *)arg)->timer, NULL, due, shoot, arg);
}

static void starts_in_a_post(void *arg)
{
	((struct shot *)arg)->result = starts(arg);
}

Test(timer, fires_at_its_deadline_wherever_it_is_started, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_pid fiber, task;
	struct shot starter = {.count = 0};

	due = WEFT_TEST_START + WEFT_MS(7) + 300;
	fiber = rt_spawned(rt, starts, &shots[0]);
	cr_assert_eq(weft_rt_task_spawn(rt, starts, &shots[1], NULL, &task), 0);
	cr_assert_eq(weft_post(rt, starts_in_a_post, &shots[2]), 0);
	cr_assert_eq(weft_timer_start(&shots[3].timer, rt, due, shoot, &shots[3]), 0);
	cr_assert_eq(weft_timer_start(&starter.timer, rt, due - WEFT_MS(1), starts_in_a_post,
			     &shots[4]),
		0);
	cr_assert_gt(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(ended(fiber), 0);
	cr_assert_eq(ended(task), 0);
	cr_assert_eq(shots[2].result, 0);
	cr_assert_geq(weft_test_advance(rt, WEFT_MS(7)), 0);
	cr_assert_eq(shots[4].result, 0);
	for (int i = 0; i < 5; i++) {
		cr_assert_eq(shots[i].count, 0, "%d is early", i);
		cr_assert(weft_timer_is_pending(&shots[i].timer));
	}
	cr_assert_geq(weft_test_advance(rt, WEFT_MS(1)), 0);
	for (int i = 0; i < 5; i++)
		fired_at(&shots[i], due);
	runtime_end(rt);
}

Test(timer, fires_at_once_if_its_deadline_is_past, .timeout = 120)
{
	static const weft_time past[] = {WEFT_POLL, -1, 0, 1, WEFT_TEST_START};
	weft_rt *rt = test_rt();

	for (unsigned i = 0; i < sizeof(past) / sizeof(past[0]); i++) {
		struct shot *shot = &shots[i];

		cr_assert_eq(weft_timer_start(&shot->timer, rt, past[i], shoot, shot), 0);
		cr_assert_eq(shot->count, 0, "it is a worker that fires it");
		cr_assert(weft_timer_is_pending(&shot->timer));
		cr_assert_geq(weft_test_run_until_idle(rt), 0);
		fired_at(shot, WEFT_TEST_START);
	}
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START, "no time has passed");
	runtime_end(rt);
}

Test(timer, never_fires_with_weft_forever_and_is_pending, .timeout = 120)
{
	weft_rt *rt = test_rt();
	struct shot *shot = &shots[0];

	cr_assert_eq(weft_timer_start(&shot->timer, rt, WEFT_FOREVER, shoot, shot), 0);
	cr_assert_eq(weft_timer_start(&shots[1].timer, rt, WEFT_FOREVER - 1, shoot, shot), 0);
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(3600) * 24 * 365 * 100), 0);
	cr_assert_eq(shot->count, 0);
	cr_assert(weft_timer_is_pending(&shot->timer));
	cr_assert_eq(weft_timer_move(&shot->timer, WEFT_FOREVER), 1);
	cr_assert_eq(weft_timer_move(&shot->timer, weft_test_now(rt) + WEFT_SEC(1)), 1);
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(2)), 0);
	cr_assert_eq(shot->count, 1);
	cr_assert_eq(weft_timer_stop(&shots[1].timer), 1);
	runtime_end(rt);
}

static int start_errors(void *arg)
{
	static struct weft_timer timer;
	weft_rt *rt = arg;

	cr_assert_eq(weft_timer_start(&timer, NULL, WEFT_FOREVER, NULL, NULL), -EINVAL);
	cr_assert_eq(weft_timer_start(&timer, rt, WEFT_FOREVER, NULL, NULL), -EINVAL);
	cr_assert(!weft_timer_is_pending(&timer));
	cr_assert_eq(weft_timer_start(&timer, rt, WEFT_FOREVER, shoot, NULL), 0);
	cr_assert_eq(weft_timer_start(&timer, rt, 0, shoot, NULL), -EBUSY);
	cr_assert_eq(weft_timer_start_wake(&timer, NULL, 0, weft_self()), -EBUSY);
	cr_assert(weft_timer_is_pending(&timer), "as before");
	cr_assert_eq(weft_timer_stop(&timer), 1);
	return 0;
}

Test(timer, is_refused_for_each_reason, .timeout = 120)
{
	struct weft_timer timer = {{0}};
	weft_rt *rt = test_rt();
	weft_pid pid = rt_spawned(rt, start_errors, rt);

	cr_assert_gt(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(ended(pid), 0);
	cr_assert_eq(weft_timer_start(&timer, NULL, 0, shoot, NULL), -EPERM, "in no runtime");
	cr_assert_eq(weft_timer_start_wake(&timer, NULL, 0, pid), -EPERM);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(weft_timer_start(&timer, rt, 0, shoot, NULL), -ESHUTDOWN);
	cr_assert_eq(weft_timer_start_wake(&timer, rt, 0, pid), -ESHUTDOWN);
	cr_assert(!weft_timer_is_pending(&timer));
	cr_assert_eq(weft_timer_stop(&timer), 0);
	runtime_end(rt);
}

/* What an action may do, and may not. */
static void tries_calls(void *arg)
{
	weft_pid pid;

	shoot(arg);
	cr_assert_eq(weft_sleep_until(WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_park(WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_yield(), -EPERM);
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(weft_post(weft_rt_current(), starts_in_a_post, &shots[1]), 0);
	cr_assert_eq(weft_rt_spawn(weft_rt_current(), starts, &shots[2], NULL, &pid), 0);
	cr_assert_eq(weft_detach(pid), 0);
	cr_assert_eq(starts(&shots[3]), 0);
}

Test(timer, acts_outside_a_process, .timeout = 120)
{
	weft_rt *rt = test_rt();

	due = WEFT_TEST_START + WEFT_SEC(2);
	cr_assert_eq(weft_timer_start(&shots[0].timer, rt, 0, tries_calls, &shots[0]), 0);
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(3)), 0);
	for (int i = 1; i <= 3; i++)
		fired_at(&shots[i], due);
	runtime_end(rt);
}

/* ---- Start, to wake ------------------------------------------------------------------------- */

static weft_time woken_at;

static int parks_once(void *arg)
{
	int r = weft_park(WEFT_FOREVER);

	(void)arg;
	woken_at = weft_now();
	return r;
}

static int task_parks_once(void *arg)
{
	int r = weft_park(WEFT_FOREVER);

	(void)arg;
	if (r != WEFT_PENDING)
		woken_at = weft_now();
	return r;
}

Test(timer, wakes_a_fiber_a_task_and_nobody, .timeout = 120)
{
	struct weft_timer timer = {{0}};
	weft_rt *rt = test_rt();

	for (int movable = 0; movable < 2; movable++)
		for (int kind = 0; kind < 2; kind++) {
			struct weft_spawn_opts opts = {.size = sizeof(opts),
				.flags = movable ? WEFT_MOVABLE : WEFT_PINNED};
			weft_time at = weft_test_now(rt) + WEFT_SEC(5);
			weft_pid pid;

			cr_assert_eq(kind ? weft_rt_task_spawn(rt, task_parks_once, NULL, &opts,
						    &pid)
					  : weft_rt_spawn(rt, parks_once, NULL, &opts, &pid),
				0);
			cr_assert_eq(weft_timer_start_wake(&timer, rt, at, pid), 0);
			cr_assert_geq(weft_test_advance(rt, WEFT_SEC(6)), 0);
			cr_assert_eq(ended(pid), 0);
			cr_assert_geq(woken_at, at);
			cr_assert_leq(woken_at, at + TICK);
			/* It has ended, and is no error. */
			cr_assert_eq(weft_timer_start_wake(&timer, rt, at, pid), 0);
			cr_assert_geq(weft_test_run_until_idle(rt), 0);
			cr_assert(!weft_timer_is_pending(&timer));
		}
	cr_assert_eq(weft_timer_start_wake(&timer, rt, 0, (weft_pid){0}), 0, "none");
	cr_assert_geq(weft_test_run_until_idle(rt), 0);
	runtime_end(rt);
}

/* ---- Move ----------------------------------------------------------------------------------- */

static void is_moved(weft_rt *rt, weft_time first, weft_time second, weft_time expected)
{
	weft_time now = weft_test_now(rt);
	struct shot shot = {.count = 0};

	cr_assert_eq(weft_timer_start(&shot.timer, rt, now + first, shoot, &shot), 0);
	cr_assert_eq(weft_timer_move(&shot.timer, now + second), 1);
	cr_assert(weft_timer_is_pending(&shot.timer));
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(3600)), 0);
	fired_at(&shot, now + expected);
	cr_assert_eq(weft_timer_move(&shot.timer, now + WEFT_SEC(7200)), 0, "it has fired");
	cr_assert_eq(weft_timer_move(&shot.timer, 0), 0);
	cr_assert(!weft_timer_is_pending(&shot.timer));
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(7200)), 0);
	cr_assert_eq(shot.count, 1, "it stays so");
}

Test(timer, moves_later_earlier_and_into_the_past, .timeout = 120)
{
	struct weft_timer timer = {{0}};
	weft_rt *rt = test_rt();

	cr_assert_eq(weft_timer_move(&timer, WEFT_TEST_START), 0, "never started");
	is_moved(rt, WEFT_SEC(1), WEFT_SEC(2), WEFT_SEC(2));
	is_moved(rt, WEFT_SEC(1), WEFT_SEC(1), WEFT_SEC(1));
	is_moved(rt, WEFT_SEC(1), WEFT_SEC(1) + 1, WEFT_SEC(1) + 1);
	is_moved(rt, WEFT_SEC(1), WEFT_SEC(1) - 1, WEFT_SEC(1) - 1);
	is_moved(rt, WEFT_SEC(2), WEFT_US(10), WEFT_US(10));
	is_moved(rt, WEFT_SEC(2), -WEFT_SEC(10), 0);
	is_moved(rt, -WEFT_SEC(2), -WEFT_SEC(10), 0);
	is_moved(rt, -WEFT_SEC(10), WEFT_SEC(2), WEFT_SEC(2));
	runtime_end(rt);
}

/* A timeout that is put off at each use. */
Test(timer, put_off_again_and_again_fires_once_at_the_last_deadline, .timeout = 120)
{
	weft_rt *rt = test_rt();
	struct shot shot = {.count = 0};
	weft_time last = 0;

	cr_assert_eq(
		weft_timer_start(&shot.timer, rt, WEFT_TEST_START + WEFT_SEC(5), shoot, &shot), 0);
	for (int i = 0; i < 1000; i++) {
		cr_assert_geq(weft_test_advance(rt, WEFT_SEC(1)), 0);
		last = weft_test_now(rt) + WEFT_SEC(5);
		cr_assert_eq(weft_timer_move(&shot.timer, last), 1);
	}
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(100)), 0);
	fired_at(&shot, last);
	runtime_end(rt);
}

/* Virtual time stops where something falls due; where a timer has been it does not. */
Test(timer, one_that_has_moved_leaves_no_moment_behind, .timeout = 120)
{
	weft_rt *rt = test_rt();
	struct shot shot = {.count = 0};

	cr_assert_eq(
		weft_timer_start(&shot.timer, rt, WEFT_TEST_START + WEFT_SEC(5), shoot, &shot), 0);
	cr_assert_eq(weft_timer_move(&shot.timer, WEFT_FOREVER), 1);
	cr_assert_eq(weft_test_advance(rt, WEFT_FOREVER), 0, "nothing will fall due");
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	cr_assert_eq(weft_timer_move(&shot.timer, WEFT_TEST_START + WEFT_SEC(2)), 1);
	cr_assert_eq(weft_timer_stop(&shot.timer), 1);
	cr_assert_eq(weft_test_advance(rt, WEFT_FOREVER), 0);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	runtime_end(rt);
}

static int parks_for_an_hour(void *arg)
{
	(void)arg;
	return weft_park(weft_after(WEFT_SEC(3600)));
}

Test(timer, a_movable_process_woken_early_leaves_no_moment_behind, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .flags = WEFT_MOVABLE};
	weft_rt *rt = test_rt();
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, parks_for_an_hour, NULL, &opts, &pid), 0);
	cr_assert_gt(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_advance(rt, WEFT_FOREVER), 1);
	cr_assert_eq(ended(pid), 0);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	runtime_end(rt);
}

/* ---- Stop ----------------------------------------------------------------------------------- */

Test(timer, stopped_before_it_fires_it_never_does, .timeout = 120)
{
	weft_rt *rt = test_rt();
	struct shot *shot = &shots[0];

	cr_assert_eq(weft_timer_stop(&shot->timer), 0, "never started");
	cr_assert_eq(weft_timer_cancel_wait(&shot->timer, WEFT_POLL), 0);
	cr_assert_eq(
		weft_timer_start(&shot->timer, rt, WEFT_TEST_START + WEFT_SEC(1), shoot, shot), 0);
	cr_assert_eq(weft_timer_stop(&shot->timer), 1);
	cr_assert(!weft_timer_is_pending(&shot->timer));
	cr_assert_eq(weft_timer_stop(&shot->timer), 0);
	cr_assert_eq(weft_timer_move(&shot->timer, WEFT_TEST_START), 0);
	poison(&shot->timer);
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(2)), 0);
	cr_assert_eq(shot->count, 0);
	memset(&shot->timer, 0, sizeof(shot->timer));
	cr_assert_eq(weft_timer_start(&shot->timer, rt, 0, shoot, shot), 0);
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(1)), 0);
	cr_assert_eq(shot->count, 1);
	cr_assert_eq(weft_timer_stop(&shot->timer), 0, "it has fired");
	cr_assert_eq(weft_timer_cancel_wait(&shot->timer, WEFT_POLL), 0, "and is done");
	cr_assert_eq(weft_timer_start(&shot->timer, rt, 0, shoot, shot), 0, "and may start anew");
	cr_assert_geq(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(shot->count, 2);
	runtime_end(rt);
}

/* ---- In its own action ---------------------------------------------------------------------- */

static void periodic(void *arg)
{
	struct shot *shot = arg;

	shoot(shot);
	cr_assert(!weft_timer_is_pending(&shot->timer), "firing comes first");
	cr_assert_eq(weft_timer_move(&shot->timer, WEFT_FOREVER), 0);
	cr_assert_eq(weft_timer_stop(&shot->timer), 0);
	cr_assert_eq(weft_timer_cancel_wait(&shot->timer, WEFT_FOREVER), -EDEADLK);
	if (shot->count < 100)
		cr_assert_eq(weft_timer_start(&shot->timer, NULL, weft_now() + WEFT_SEC(1),
				     periodic, shot),
			0);
}

Test(timer, may_start_anew_in_its_action, .timeout = 120)
{
	weft_rt *rt = test_rt();
	struct shot shot = {.count = 0};

	cr_assert_eq(weft_timer_start(
			     &shot.timer, rt, WEFT_TEST_START + WEFT_SEC(1), periodic, &shot),
		0);
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(200)), 0);
	cr_assert_eq(shot.count, 100);
	cr_assert_geq(shot.at, WEFT_TEST_START + WEFT_SEC(100));
	cr_assert_leq(shot.at, WEFT_TEST_START + WEFT_SEC(100) + 100 * TICK);
	runtime_end(rt);
}

static unsigned freed;

static void frees(void *arg)
{
	poison(arg);
	free(arg);
	freed++;
}

Test(timer, may_be_freed_in_its_action_and_after_a_stop, .timeout = 120)
{
	weft_rt *rt = test_rt();
	struct weft_timer *timer;

	for (int i = 0; i < 40; i++) {
		timer = calloc(1, sizeof(*timer));
		cr_assert_eq(weft_timer_start(
				     timer, rt, WEFT_TEST_START + WEFT_US(i), frees, timer),
			0);
		timer = calloc(1, sizeof(*timer));
		cr_assert_eq(weft_timer_start(
				     timer, rt, WEFT_TEST_START + WEFT_US(i), frees, timer),
			0);
		cr_assert_eq(weft_timer_stop(timer), 1);
		poison(timer);
		free(timer);
	}
	cr_assert_geq(weft_test_advance(rt, WEFT_MS(1)), 0);
	cr_assert_eq(freed, 40);
	runtime_end(rt);
}

/* Of one batch: the second is waited for by the first, in vain; another's is not there. */
static void waits_for_others(void *arg)
{
	struct shot *shot = arg;

	shoot(shot);
	cr_assert_eq(weft_timer_cancel_wait(&shots[1].timer, WEFT_FOREVER), -EDEADLK);
	cr_assert_eq(weft_timer_cancel_wait(&shots[2].timer, WEFT_FOREVER), 1, "pending");
	cr_assert_eq(weft_timer_cancel_wait(&shots[3].timer, WEFT_FOREVER), 0, "done long ago");
}

Test(timer, one_action_cannot_wait_for_another_that_fires_with_it, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_time at = WEFT_TEST_START + WEFT_SEC(1);

	cr_assert_eq(weft_timer_start(&shots[3].timer, rt, 0, shoot, &shots[3]), 0);
	cr_assert_geq(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(weft_timer_start(&shots[0].timer, rt, at, waits_for_others, &shots[0]), 0);
	cr_assert_eq(weft_timer_start(&shots[1].timer, rt, at, shoot, &shots[1]), 0);
	cr_assert_eq(weft_timer_start(&shots[2].timer, rt, at + at, shoot, &shots[2]), 0);
	cr_assert_geq(weft_test_advance(rt, WEFT_SEC(2)), 0);
	cr_assert_eq(shots[0].count, 1);
	cr_assert_eq(shots[1].count, 1);
	cr_assert_eq(shots[2].count, 0);
	cr_assert_eq(shots[3].count, 1);
	runtime_end(rt);
}

/* ---- A runtime's end ------------------------------------------------------------------------ */

static void must_not_fire(void *arg)
{
	(void)arg;
	cr_assert_fail();
}

Test(timer, does_not_keep_a_runtime_and_is_as_never_started_afterwards, .timeout = 120)
{
	struct weft_timer *timers = calloc(5, sizeof(*timers));
	weft_rt *rt = runtime_new(2);
	struct shot shot = {.count = 0};

	for (int i = 0; i < 4; i++)
		cr_assert_eq(weft_timer_start(&timers[i], rt,
				     i % 2 ? WEFT_FOREVER : weft_after(WEFT_SEC(36000)),
				     must_not_fire, NULL),
			0);
	cr_assert_eq(weft_rt_run(rt), 0, "nothing is alive");
	cr_assert(weft_timer_is_pending(&timers[0]));
	cr_assert_eq(weft_timer_move(&timers[0], weft_after(WEFT_SEC(36001))), 1);
	cr_assert_eq(weft_timer_stop(&timers[1]), 1);
	cr_assert_eq(weft_timer_start(&timers[1], rt, 0, must_not_fire, NULL), -ESHUTDOWN);
	runtime_end(rt);
	for (int i = 0; i < 4; i++) {
		cr_assert(!weft_timer_is_pending(&timers[i]));
		cr_assert_eq(weft_timer_move(&timers[i], 0), 0);
		cr_assert_eq(weft_timer_stop(&timers[i]), 0);
		cr_assert_eq(weft_timer_cancel_wait(&timers[i], WEFT_FOREVER), 0);
	}
	rt = test_rt();
	memcpy(&shot.timer, &timers[2], sizeof(shot.timer));
	cr_assert_eq(weft_timer_start(&shot.timer, rt, 0, shoot, &shot), 0, "on another runtime");
	cr_assert_geq(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(shot.count, 1);
	runtime_end(rt);
	cr_assert_eq(weft_timer_stop(&shot.timer), 0, "it has fired, and the runtime is gone");
	cr_assert_eq(weft_timer_cancel_wait(&shot.timer, WEFT_FOREVER), 0);
	cr_assert_eq(weft_timer_move(&shot.timer, 0), 0);
	rt = test_rt(); /* may well have the slot, and the memory, of the one before */
	cr_assert_eq(weft_timer_stop(&shot.timer), 0);
	cr_assert_eq(weft_timer_start(&shot.timer, rt, 0, shoot, &shot), 0);
	cr_assert_geq(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(shot.count, 2);
	runtime_end(rt);
	free(timers);
}

/* ---- Embedded runtimes ---------------------------------------------------------------------- */

static wf_atomic_u32 hits;

static void hit(void *arg)
{
	wf_u32_fetch_add(&hits, 1);
	if (arg)
		cr_assert_geq(weft_now(), *(weft_time *)arg);
}

static void inserts_from_a_thread(unsigned index, void *arg)
{
	static struct weft_timer timer;
	static weft_time deadline;
	weft_rt *rt = arg;

	if (index == 1) {
		deadline = weft_after(WEFT_MS(3));
		cr_assert_eq(weft_timer_start(&timer, rt, deadline, hit, &deadline), 0);
		return;
	}
	while (wf_u32_load_acquire(&hits) == 0) {
		struct pollfd fd = {.fd = weft_rt_fd(rt), .events = POLLIN};

		cr_assert_eq(poll(&fd, 1, 60000), 1, "nobody has told the host's loop");
		cr_assert_geq(weft_rt_poll(rt, WEFT_POLL), 0);
	}
}

/* The host sleeps for an hour's timer; a thread inserts one that is earlier. */
static void host(unsigned index, void *arg)
{
	static weft_rt *rt;
	static wf_atomic_u32 ready;
	static struct weft_timer far;
	struct weft_rt_opts opts = {.flags = WEFT_RT_EMBEDDED};

	(void)arg;
	if (index == 1) {
		UNTIL_FOREIGN(wf_u32_load_acquire(&ready));
		inserts_from_a_thread(1, rt);
		return;
	}
	rt = runtime_new_with(&opts);
	cr_assert_eq(weft_timer_start(&far, rt, weft_after(WEFT_SEC(3600)), must_not_fire, NULL),
		0);
	cr_assert_geq(weft_rt_poll(rt, WEFT_POLL), 0);
	wf_u32_store_release(&ready, 1);
	inserts_from_a_thread(0, rt);
	cr_assert_eq(weft_timer_stop(&far), 1);
	runtime_end(rt);
}

Test(timer, a_thread_shortens_the_sleep_of_an_embedded_runtimes_host, .timeout = 120)
{
	harness_threads(2, host, NULL);
	cr_assert_eq(wf_u32_load_acquire(&hits), 1);
}

/* ---- Waiting for an action ------------------------------------------------------------------ */

/* A timer whose action stands at a gate. */
static struct {
	weft_rt *rt;
	struct weft_timer timer, others[2]; /* those in one shard each */
	wf_atomic_u32 inside, open, done, tried;
	int worker;
} gate;

static void stands(void *arg)
{
	(void)arg;
	gate.worker = weft_worker_index();
	wf_u32_store_release(&gate.inside, 1);
	while (!wf_u32_load_acquire(&gate.open))
		;
	wf_u32_store_relaxed(&gate.done, 1);
}

/* Its action is under way, and stays so. */
static void begin_gate(unsigned workers)
{
	memset(&gate, 0, sizeof(gate));
	gate.rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = workers, .stall_ns = WEFT_SEC(3600)});
	cr_assert_eq(weft_timer_start(&gate.timer, gate.rt, 0, stands, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate.inside));
}

static void end_gate(void)
{
	wf_u32_store_release(&gate.open, 1);
	runtime_end(gate.rt);
	cr_assert_eq(wf_u32_load_relaxed(&gate.done), 1);
}

static weft_pid beside_gate(weft_fn fn, void *arg)
{
	struct weft_spawn_opts opts = {
		.size = sizeof(opts), .worker = WEFT_WORKER(1 - gate.worker)};
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(gate.rt, fn, arg, &opts, &pid), 0);
	return pid;
}

static int tries_in_vain(void *arg)
{
	(void)arg;
	cr_assert(!weft_timer_is_pending(&gate.timer));
	cr_assert_eq(weft_timer_stop(&gate.timer), 0);
	cr_assert_eq(weft_timer_move(&gate.timer, WEFT_FOREVER), 0);
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, 0), -ETIME);
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_cancel(weft_self()), 0);
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, WEFT_FOREVER), -ECANCELED);
	return 0;
}

static void may_not_wait(void *arg)
{
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, WEFT_FOREVER), -EPERM);
	(void)arg;
	wf_u32_fetch_add(&gate.tried, 1);
}

static int task_may_not_wait(void *arg)
{
	may_not_wait(arg);
	return 0;
}

/* In the gate's shard it fires when the gate is open. */
static void acts_beside_gate(void *arg)
{
	int r = weft_timer_cancel_wait(&gate.timer, WEFT_FOREVER);

	(void)arg;
	cr_assert(r == -EPERM || (r == 0 && wf_u32_load_relaxed(&gate.done) == 1), "%d", r);
	wf_u32_fetch_add(&gate.tried, 1);
}

static weft_pid task_beside_gate(weft_task_fn fn)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts),
		.flags = WEFT_PINNED,
		.worker = WEFT_WORKER(1 - gate.worker)};
	weft_pid pid;

	cr_assert_eq(weft_rt_task_spawn(gate.rt, fn, NULL, &opts, &pid), 0);
	return pid;
}

static int posts_may_not_wait(void *arg)
{
	(void)arg;
	return weft_post(weft_rt_current(), may_not_wait, NULL);
}

Test(timer, an_action_under_way_is_waited_for_by_who_can, .timeout = 120)
{
	begin_gate(2);
	cr_assert_eq(joined(beside_gate(tries_in_vain, NULL)), 0);
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, WEFT_POLL), -EAGAIN, "a thread");
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, 0), -ETIME);
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(joined(task_beside_gate(task_may_not_wait)), 0);
	cr_assert_eq(joined(beside_gate(posts_may_not_wait, NULL)), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(weft_timer_start(
				     &gate.others[i], gate.rt, 0, acts_beside_gate, NULL),
			0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate.tried) == 3);
	end_gate();
}

static int waits_for_action(void *arg)
{
	weft_time deadline = arg ? weft_after(WEFT_SEC(3600)) : WEFT_FOREVER;

	(void)wf_u32_fetch_add(&gate.tried, 1);
	cr_assert_eq(weft_timer_cancel_wait(&gate.timer, deadline), 0);
	cr_assert_eq(wf_u32_load_relaxed(&gate.done), 1, "before its action was done");
	return 0;
}

static void thread_waits(unsigned index, void *arg)
{
	weft_pid pids[3];

	(void)arg;
	if (index > 0) {
		cr_assert_eq(waits_for_action(index == 1 ? NULL : &gate), 0);
		return;
	}
	for (int i = 0; i < 3; i++)
		pids[i] = beside_gate(waits_for_action, i == 1 ? &gate : NULL);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate.tried) == 5);
	wf_u32_store_release(&gate.open, 1);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(joined(pids[i]), 0);
}

Test(timer, all_who_wait_for_an_action_see_what_it_did, .timeout = 120)
{
	for (int i = 0; i < 20; i++) {
		begin_gate(2);
		harness_threads(3, thread_waits, NULL);
		end_gate();
	}
}

/* A process of another runtime waits; and one whose timer has been done, beside a gate. */
static int waits_from_elsewhere(void *arg)
{
	(void)arg;
	return waits_for_action(NULL);
}

Test(timer, a_process_of_another_runtime_may_wait, .timeout = 120)
{
	weft_rt *elsewhere = runtime_new(1);
	weft_pid pid;

	begin_gate(1);
	pid = rt_spawned(elsewhere, waits_from_elsewhere, NULL);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate.tried) == 1);
	wf_u32_store_release(&gate.open, 1);
	cr_assert_eq(joined(pid), 0);
	end_gate();
	runtime_end(elsewhere);
}

/* Two timers of one shard, not fired together: the first one's action is not under way. */
Test(timer, an_action_done_is_not_waited_for_beside_another, .timeout = 120)
{
	static struct weft_timer done;
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .stall_ns = WEFT_SEC(3600)});

	memset(&gate, 0, sizeof(gate));
	gate.rt = rt;
	cr_assert_eq(weft_timer_start(&done, rt, 0, hit, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&hits) == 1);
	cr_assert_eq(weft_timer_cancel_wait(&done, WEFT_FOREVER), 0);
	cr_assert_eq(weft_timer_start(&gate.timer, rt, 0, stands, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate.inside));
	cr_assert_eq(weft_timer_cancel_wait(&done, WEFT_POLL), 0);
	end_gate();
}

/* ---- On several workers --------------------------------------------------------------------- */

static wf_atomic_u64 fired_ns;

static void fires(void *arg)
{
	(void)arg;
	wf_u64_store_release(&fired_ns, (uint64_t)weft_now());
}

static void parked(weft_rt *rt, uint64_t mask)
{
	UNTIL_FOREIGN((wf_idle_parked_mask(&rt->idle) & mask) == mask);
}

/*
 * T6. Holds its worker until the other one has fired its timer, or has run a movable sleeper.
 */
static int holds_until_fired(void *arg)
{
	static struct weft_timer timer;
	weft_rt *rt = weft_rt_current();
	weft_time deadline;

	(void)arg;
	while (!(wf_idle_parked_mask(&rt->idle) & 2))
		; /* the other one sleeps, for ever */
	deadline = weft_after(WEFT_MS(2));
	cr_assert_eq(weft_timer_start(&timer, NULL, deadline, fires, NULL), 0);
	while (wf_u64_load_acquire(&fired_ns) == 0)
		;
	cr_assert_geq((weft_time)wf_u64_load_relaxed(&fired_ns), deadline);
	printf("late by %lld us\n",
		(long long)((weft_time)wf_u64_load_relaxed(&fired_ns) - deadline) / 1000);
	return 0;
}

Test(timer, of_a_worker_that_is_held_is_fired_by_another, .timeout = 120)
{
	static const weft_time stalls[] = {WEFT_SEC(3600), WEFT_FOREVER, 0};

	for (int i = 0; i < 3; i++) {
		struct weft_spawn_opts opts = {.size = sizeof(opts), .worker = WEFT_WORKER(0)};
		weft_rt *rt = runtime_new_with(
			&(struct weft_rt_opts){.workers = 2, .stall_ns = stalls[i]});
		weft_pid pid;

		wf_u64_store_relaxed(&fired_ns, 0);
		parked(rt, 3);
		cr_assert_eq(weft_rt_spawn(rt, holds_until_fired, NULL, &opts, &pid), 0);
		cr_assert_eq(joined(pid), 0);
		runtime_end(rt);
	}
}

static wf_atomic_u32 laps;

static int sleeps_in_laps(void *arg)
{
	(void)arg;
	while (wf_u32_fetch_add(&laps, 1) < 40)
		if (weft_sleep_until(weft_after(WEFT_US(200))) < 0)
			return -1;
	return 0;
}

static void ticks(void *arg)
{
	wf_u32_fetch_add(&hits, 1);
	if (wf_u32_load_relaxed(&hits) < 20)
		cr_assert_eq(
			weft_timer_start(arg, NULL, weft_after(WEFT_US(200)), ticks, arg), 0);
}

/* B4. Sleepers and timers of its shard go on while it spins. */
static int spins_beside_its_shard(void *arg)
{
	static struct weft_timer timers[2];

	(void)arg;
	spawned_with(sleeps_in_laps, NULL, WEFT_MOVABLE | WEFT_DETACHED, 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(weft_timer_start(&timers[i], NULL, weft_after(WEFT_US(500)), ticks,
				     &timers[i]),
			0);
	(void)weft_yield();
	while (wf_u32_load_acquire(&laps) < 40 || wf_u32_load_acquire(&hits) < 20)
		;
	return 0;
}

Test(timer, sleepers_and_timers_of_a_worker_that_spins_go_on, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 2, .stall_ns = WEFT_SEC(3600)});

	cr_assert_eq(runtime_do(rt, spins_beside_its_shard, NULL), 0);
	runtime_end(rt);
}

/* T7. */
enum { MANY = 1000, HERD = 4 };

static wf_atomic_u32 unparks[HERD];
static struct weft_timer many[MANY];

static void counts_unpark(void *ctx, int worker)
{
	(void)ctx;
	wf_u32_fetch_add(&unparks[worker], 1);
}

static const struct weft_hooks counting = {
	.size = sizeof(counting), .thread_unpark = counts_unpark};

/* How many workers woke up for them; 0: the machine was busy elsewhere, so it does not count. */
static unsigned woken_for_many(weft_rt *rt)
{
	uint32_t before[HERD];
	weft_time deadline;
	unsigned woken = 0;

	wf_u64_store_relaxed(&fired_ns, 0);
	wf_u32_store_relaxed(&hits, 0);
	deadline = weft_after(WEFT_MS(50));
	for (int i = 0; i < MANY; i++)
		cr_assert_eq(weft_timer_start(&many[i], rt, deadline, i ? hit : fires, NULL), 0);
	parked(rt, (1 << HERD) - 1);
	for (int i = 0; i < HERD; i++)
		before[i] = wf_u32_load_relaxed(&unparks[i]);
	if (weft_now() >= deadline)
		deadline = 0;
	UNTIL_FOREIGN(wf_u32_load_acquire(&hits) == MANY - 1);
	/* After 1 ms the monitor may have woken another one. */
	if (weft_now() - deadline > WEFT_US(900))
		return 0;
	for (int i = 0; i < HERD; i++)
		woken += wf_u32_load_relaxed(&unparks[i]) != before[i];
	return woken;
}

Test(timer, one_worker_wakes_up_for_a_thousand, .timeout = 300)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = HERD, .stall_ns = WEFT_SEC(3600),
			.hooks = &counting});
	unsigned woken = 0;

	for (int i = 0; i < 40 && woken == 0; i++)
		woken = woken_for_many(rt);
	if (woken == 0)
		cr_skip_test("the machine is too busy to fire a thousand timers in 0.9 ms");
	cr_assert_eq(woken, 1);
	runtime_end(rt);
}

/* T9. All sleep for an hour's timer; an earlier one is fired, and not in an hour. */
static void has_fired_soon(weft_rt *rt, struct weft_timer *timer)
{
	UNTIL_FOREIGN(wf_u32_load_acquire(&hits) > 0);
	wf_u32_store_relaxed(&hits, 0);
	cr_assert(!weft_timer_is_pending(timer));
	parked(rt, 3);
}

static int starts_soon(void *arg)
{
	return weft_timer_start(arg, NULL, weft_after(WEFT_MS(1)), hit, NULL);
}

static int sleeps_soon(void *arg)
{
	int r = weft_sleep_until(weft_after(WEFT_MS(1)));

	hit(NULL);
	(void)arg;
	return r;
}

Test(timer, an_earlier_deadline_shortens_the_leaders_sleep, .timeout = 120)
{
	static const weft_time stalls[] = {WEFT_FOREVER, 0};
	struct weft_timer far = {{0}}, timer = {{0}};
	weft_pid pid;

	for (int i = 0; i < 2; i++) {
		weft_rt *rt = runtime_new_with(
			&(struct weft_rt_opts){.workers = 2, .stall_ns = stalls[i]});

		cr_assert_eq(weft_timer_start(
				     &far, rt, weft_after(WEFT_SEC(3600)), must_not_fire, NULL),
			0);
		parked(rt, 3);
		for (unsigned lap = 0; lap < 20; lap++) {
			struct weft_spawn_opts opts = {
				.size = sizeof(opts), .worker = WEFT_WORKER(lap % 2)};

			cr_assert_eq(weft_timer_start(
					     &timer, rt, weft_after(WEFT_MS(1)), hit, NULL),
				0);
			has_fired_soon(rt, &timer);
			cr_assert_eq(weft_rt_spawn(rt, starts_soon, &timer, &opts, &pid), 0);
			cr_assert_eq(joined(pid), 0);
			has_fired_soon(rt, &timer);
			opts = (struct weft_spawn_opts){
				.size = sizeof(opts), .flags = WEFT_MOVABLE};
			cr_assert_eq(weft_rt_spawn(rt, sleeps_soon, NULL, &opts, &pid), 0);
			cr_assert_eq(joined(pid), 0);
			has_fired_soon(rt, &timer);
			cr_assert_eq(weft_timer_move(&far, weft_after(WEFT_SEC(3600))), 1);
		}
		cr_assert_eq(weft_timer_stop(&far), 1);
		runtime_end(rt);
	}
}
