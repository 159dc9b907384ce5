/*
 * Rows T of the scenarios, of timers that belong to a worker: the real wheel under the real loop,
 * in virtual time, which leaps; so years cost nothing, and "late" has a bound in operations.
 *
 * (The wheel itself has no atomic operation, so its own rows are tested in test_wheel.c.)
 */
#include "test/sim/scene.h"

#include "timer/wheel.h"

enum {
	SCHEDULES = 5000,
	SLEEPS = 4,
	/* A worker with nothing else to do wakes up, goes round its loop, runs the process. */
	LATE_NS = 100 * 150,
};

#define YEAR ((weft_time)365 * 86400 * WEFT_SEC(1))

static struct {
	struct gate ready;
	weft_time deadline, nearer;
	unsigned parked;
	unsigned order[SCENE_BODIES], ordered;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

/* Ended by its deadline, now. Nobody else sleeps, or time might leap while this one's turn is. */
static void check_time(weft_time deadline, weft_time began)
{
	weft_time now = weft_now(), due = deadline > began ? deadline : began;

	sim_check(now >= deadline, "%lld ns early", (long long)(deadline - now));
	sim_check(now - due <= WF_WHEEL_TICK_NS + LATE_NS, "%lld ns late", (long long)(now - due));
}

/* --- T1: deadlines near and far --- */

/* Sub-tick, ticks, level boundaries and their neighbours, years; as the seed says. */
static weft_time draw_delay(void)
{
	static const weft_time years[] = {YEAR, 5 * YEAR, 10 * YEAR};
	unsigned kind = sim_random(5);
	unsigned level = sim_random(WF_WHEEL_LEVELS);
	weft_time edge = WF_WHEEL_TICK_NS << (level * WF_WHEEL_SLOT_BITS);

	if (kind == 0)
		return (weft_time)sim_random(2 * WF_WHEEL_TICK_NS);
	if (kind == 1)
		return years[sim_random(3)] + (weft_time)sim_random(3) - 1;
	return edge * (kind - 1) + (weft_time)sim_random(3) - 1; /* 1, 2, 3 slots of a level */
}

static int sleeps(void *arg)
{
	struct body *body = body_begin(arg);

	for (int i = 0; i < SLEEPS; i++) {
		weft_time began = weft_now();
		weft_time deadline = began + draw_delay();

		body_leave(body);
		sim_check(weft_sleep_until(deadline) == 0, "weft_sleep_until");
		body_enter(body);
		check_time(deadline, began);
	}
	return body_end(body);
}

static void sleep_near_and_far(unsigned unused)
{
	(void)unused;
	scene_create(1);
	body_spawn(&scene.bodies[0], sleeps, sim_random(2) ? &scene_movable : NULL);
	body_join(&scene.bodies[0]);
	scene_destroy();
}

SCENE(sleeping, "sleeps up to 10 years", 1, sleep_near_and_far);

SIM_TEST(time, a_sleep_is_never_short_and_never_long)
{
	sim_must_pass(&sleeping, 2 * SCHEDULES);
}

/* Deadlines that are over when the call is made, and none at all. */
static int does_not_wait(void *arg)
{
	struct body *body = body_begin(arg);
	weft_time now = weft_now();

	sim_check(body_park(body, 0) == -ETIME, "deadline 0");
	sim_check(body_park(body, now) == -ETIME, "a past deadline");
	sim_check(body_park(body, WEFT_POLL) == -EAGAIN, "WEFT_POLL");
	sim_check(weft_sleep_until(0) == 0 && weft_sleep_until(WEFT_POLL) == 0, "a past sleep");
	sim_check(weft_wake(body->pid) == 0 && body_park(body, 0) == 0, "a token, and no time");
	sim_check(weft_now() - now < LATE_NS, "it has waited");
	sim_check(body_park(body, WEFT_FOREVER) == 0, "for ever");
	return body_end(body);
}

static void do_not_wait(unsigned unused)
{
	(void)unused;
	scene_create(1);
	body_spawn(&scene.bodies[0], does_not_wait, NULL);
	scene_settle();
	sim_check(scene.bodies[0].ended == 0, "for ever has ended");
	(void)weft_wake(scene.bodies[0].pid);
	body_join(&scene.bodies[0]);
	scene_destroy();
}

SCENE(not_waiting, "past deadlines", 1, do_not_wait);

SIM_TEST(time, past_deadlines_do_not_wait)
{
	sim_must_pass(&not_waiting, SCHEDULES);
}

/* --- T3: another deadline, before and after the first has come --- */

/*
 * Parks with a deadline, again with a later, an earlier, a past one, whether the wake or the
 * deadline ended the one before. Each -ETIME at its own time; 0 only for a wake.
 */
static int parks_again(void *arg)
{
	static const weft_time delays[] = {8000, 20000, 3000, 0, 5000};
	struct body *body = body_begin(arg);
	unsigned woken = 0;

	gate_open(&s.ready);
	for (unsigned i = 0; i < WF_ARRAY_COUNT(delays); i++) {
		weft_time began = weft_now();
		int r = body_park(body, began + delays[i]);

		sim_check(r == 0 || r == -ETIME, "weft_park: %d", r);
		sim_check(r == 0 || weft_now() >= began + delays[i], "a deadline came early");
		woken += r == 0;
	}
	sim_check(woken <= 3, "%u parks ended by 3 wakes", woken);
	return body_end(body);
}

static void wake_about_the_deadline(const struct weft_spawn_opts *opts)
{
	scene_create(1);
	body_spawn(&scene.bodies[0], parks_again, opts);
	gate_await(&s.ready);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned wait = sim_random(100); wait > 0; wait--)
			sim_point("wait");
		(void)weft_wake(scene.bodies[0].pid);
	}
	body_join(&scene.bodies[0]);
	scene_destroy();
}

static void wake_sticky(unsigned unused)
{
	(void)unused;
	wake_about_the_deadline(NULL);
}

static void wake_movable(unsigned unused)
{
	(void)unused;
	wake_about_the_deadline(&scene_movable);
}

SCENE(resetting, "deadlines set anew, sticky", 1, wake_sticky);
SCENE(resetting_movable, "deadlines set anew, movable", 1, wake_movable);

SIM_TEST(time, each_deadline_is_its_own)
{
	sim_must_pass(&resetting, SCHEDULES);
	sim_must_pass(&resetting_movable, SCHEDULES);
}

/*
 * A sticky process leaves its timer on the wheel: for waits that have no deadline, or another one,
 * and to its end; then others have its header.
 */
static int waits_in_all_ways(void *arg)
{
	struct body *body = body_begin(arg);
	weft_time began;
	int r;

	for (int i = 0; i < 6; i++) {
		weft_time delay = sim_random(4) == 0 ? YEAR : (weft_time)sim_random(30000);

		switch (sim_random(4)) {
		case 0:
			(void)body_yield(body);
			break;
		case 1:
			r = body_park(body, WEFT_FOREVER);
			sim_check(r == 0, "weft_park for ever: %d", r);
			break;
		default:
			began = weft_now();
			r = body_park(body, began + delay);
			sim_check(r == 0 || r == -ETIME, "weft_park: %d", r);
			if (r == -ETIME) /* its waker may have been running all the while */
				sim_check(weft_now() - began - delay < WEFT_MS(10)
						&& weft_now() >= began + delay,
					"a deadline missed by %lld ns",
					(long long)(weft_now() - began - delay));
			break;
		}
	}
	return body_end(body);
}

/* As often as it is asked for. */
static void wake_until_ended(struct body *body)
{
	while (body->ended == 0) {
		for (unsigned wait = sim_random(60); wait > 0; wait--)
			sim_point("wait");
		(void)weft_wake(body->pid);
	}
	body_join(body);
}

static void leave_timers(unsigned unused)
{
	(void)unused;
	scene_create(1);
	for (unsigned i = 0; i < 2; i++) {
		body_spawn(&scene.bodies[i], waits_in_all_ways, NULL);
		wake_until_ended(&scene.bodies[i]);
	}
	scene_destroy();
}

SCENE(leaving_timers, "waits with and without deadlines", 1, leave_timers);

SIM_TEST(time, a_timer_of_a_wait_that_is_over_ends_no_other)
{
	sim_must_pass(&leaving_timers, SCHEDULES);
}

/* --- T4: one deadline for many --- */

static int shares_deadline(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	s.parked++;
	r = body_park(body, s.deadline);
	sim_check(r == (body_number(body) == 3 ? 0 : -ETIME), "process %d: %d", body_number(body),
		r);
	if (r == -ETIME) {
		sim_check(weft_now() >= s.deadline, "a deadline came early");
		s.order[s.ordered++] = (unsigned)body_number(body);
	}
	return body_end(body);
}

/* Has six park, in order, and wakes one of them before the worker looks at its timers. */
static int has_six_park(void *arg)
{
	struct weft_spawn_opts here = scene_opts(1, 0);
	struct body *body = body_begin(arg);

	s.deadline = weft_after(WEFT_SEC(1));
	for (unsigned i = 0; i < 6; i++)
		body_spawn(&scene.bodies[i], shares_deadline, &here);
	while (s.parked < 6)
		(void)body_yield(body);
	sim_check(weft_wake(scene.bodies[3].pid) == 0, "weft_wake");
	return body_end(body);
}

static void share_a_deadline(unsigned unused)
{
	static const unsigned expected[] = {0, 1, 2, 4, 5};

	(void)unused;
	scene_create(1);
	body_spawn(&scene.bodies[6], has_six_park, NULL);
	body_join(&scene.bodies[6]);
	for (unsigned i = 0; i < 6; i++)
		body_join(&scene.bodies[i]);
	for (unsigned i = 0; i < 5; i++)
		sim_check(s.order[i] == expected[i], "%u came as number %u", s.order[i], i);
	scene_destroy();
}

SCENE(sharing, "6 with one deadline", 1, share_a_deadline);

SIM_TEST(time, one_deadline_ends_in_the_order_it_was_asked_for)
{
	sim_must_pass(&sharing, SCHEDULES);
}

/* --- T9: a nearer deadline while the worker sleeps for a far one --- */

static int sleeps_long(void *arg)
{
	struct body *body = body_begin(arg);

	gate_open(&s.ready);
	body_leave(body);
	sim_check(weft_sleep_until(s.deadline) == 0, "weft_sleep_until");
	body_enter(body);
	sim_check(s.nearer == 0 || s.nearer >= s.deadline || scene.bodies[1].ended == 1,
		"the nearer deadline came later");
	return body_end(body);
}

static int sleeps_little(void *arg)
{
	struct body *body = body_begin(arg);
	weft_time began = weft_now();

	s.nearer = began + WEFT_US(30);
	body_leave(body);
	sim_check(weft_sleep_until(s.nearer) == 0, "weft_sleep_until");
	body_enter(body);
	check_time(s.nearer, began);
	return body_end(body);
}

/* Comes by a spawn to the worker, which may be asleep until the far one. */
static void shorten_a_sleep(unsigned unused)
{
	struct weft_spawn_opts opts = scene_opts(1, 0);

	(void)unused;
	s.deadline = weft_after(10 * YEAR);
	scene_create(1);
	body_spawn(&scene.bodies[0], sleeps_long, &opts);
	gate_await(&s.ready);
	body_spawn(&scene.bodies[1], sleeps_little, &opts);
	body_join(&scene.bodies[1]);
	body_join(&scene.bodies[0]);
	scene_destroy();
}

SCENE(shortening, "a sleep is shortened", 1, shorten_a_sleep);

SIM_TEST(time, a_nearer_deadline_shortens_the_workers_sleep)
{
	sim_must_pass(&shortening, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(time, planted_timer_left_by_a_process_that_has_ended)
{
	sim_must_find(&leaving_timers, WF_PLANTED_end_leaves_timer, 1000);
}

SIM_TEST(time, planted_earlier_deadline_ignored)
{
	sim_must_find(&leaving_timers, WF_PLANTED_rearm_ignores_earlier, 1000);
}

SIM_TEST(time, planted_anchor_ignored)
{
	sim_must_find(&resetting_movable, WF_PLANTED_wake_ignores_anchor, 1000);
}
