/*
 * Virtual time over several workers (core/virtual.c), rows T8 of the scenarios.
 *
 * Two times here: the simulation's, which stands for the kernel's clock and goes on by itself, and
 * the runtime's. Checked in every schedule, of the latter: a sleep ends exactly at its instant, so
 * time moved neither past it nor away from who was ready then; it stands while a process computes,
 * and while it waits for blocking work; what a thread outside starts, posts or wakes runs between
 * the begin and the end of that call; and nobody is left asleep.
 */
#include "test/sim/scene.h"

#include <weft/test.h>

enum {
	SCHEDULES = 3000,
	TICK_NS = 1 << WF_TICK_SHIFT,
	SLEEPS = 3,
	VISITS = 3,
	JOBS = 3,
	LOOKS = 30,
};

static struct {
	struct gate made, waited;
	weft_time before, after[VISITS], seen[VISITS]; /* of visits from outside */
	weft_time deadlines[SCENE_BODIES], woke_at[SCENE_BODIES];
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

static void create(unsigned workers, bool frozen)
{
	struct weft_virtual_opts clock = {
		.size = sizeof(clock), .frozen = frozen, .allow_real_io = true};
	int r = weft_virtual_create(sim_runtime_opts(workers), &clock, &scene.rt);

	sim_check(r == 0, "weft_virtual_create: %d", r);
	sim_check(weft_test_now(scene.rt) == WEFT_TEST_START, "time has moved");
}

static weft_time due_at(weft_time deadline)
{
	return (deadline + TICK_NS - 1) / TICK_NS * TICK_NS;
}

/* Ties are common: deadlines are few. */
static weft_time draw_delay(void)
{
	return (weft_time)sim_random(4) * 3 * TICK_NS - (weft_time)sim_random(2);
}

static struct weft_spawn_opts draw_opts(unsigned workers)
{
	return sim_random(2) ? scene_opts(1 + sim_random(workers), 0)
			     : scene_opts(0, WEFT_MOVABLE);
}

/* --- what processes do with time --- */

static void check_now(weft_time expected, const char *what)
{
	weft_time now = weft_now();

	sim_check(now == expected, "%s: time is %lld ns further than it should", what,
		(long long)(now - expected));
}

static void sleep_once(struct body *body)
{
	weft_time began = weft_now(), deadline = began + draw_delay();

	body_leave(body);
	sim_check(weft_sleep_until(deadline) == 0, "weft_sleep_until");
	body_enter(body);
	check_now(deadline > began ? due_at(deadline) : began, "a sleep");
}

static void compute(void)
{
	weft_time began = weft_now();

	for (unsigned i = sim_random(30); i > 0; i--)
		sim_point("compute");
	check_now(began, "a process that computes");
}

static int job(void *arg)
{
	for (unsigned i = sim_random(30); i > 0; i--)
		sim_point("job");
	return (void)arg, 3;
}

static void block(struct body *body)
{
	weft_time began = weft_now();
	int result = 0;

	body_leave(body);
	sim_check(weft_blocking(job, NULL, &result, WEFT_FOREVER) == 0 && result == 3,
		"weft_blocking");
	body_enter(body);
	check_now(began, "blocking work");
}

static int lives(void *arg)
{
	struct body *body = body_begin(arg);

	for (int i = 0; i < SLEEPS; i++) {
		switch (sim_random(4)) {
		case 0:
			compute();
			break;
		default:
			sleep_once(body);
			break;
		}
	}
	return body_end(body);
}

/* --- sleepers on several workers --- */

static void sleep_on(unsigned workers, unsigned count, weft_fn fn)
{
	create(workers, false);
	for (unsigned i = 0; i < count; i++) {
		struct weft_spawn_opts opts = draw_opts(workers);

		body_spawn(&scene.bodies[i], fn, &opts);
	}
	for (unsigned i = 0; i < count; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

static void sleep_on_two(unsigned unused)
{
	(void)unused;
	sleep_on(2, 4, lives);
}

static void sleep_on_three(unsigned unused)
{
	(void)unused;
	sleep_on(3, 3, lives);
}

SCENE(two, "sleeps on 2 workers", 1, sleep_on_two);
SCENE(three, "sleeps on 3 workers", 1, sleep_on_three);

SIM_TEST(virtual, every_sleep_ends_at_its_instant)
{
	sim_must_pass(&two, SCHEDULES);
	sim_must_pass(&three, SCHEDULES);
}

/* --- who wakes whom --- */

/* Sleeps, and passes a wake on in the same instant: the other's worker is asleep. */
static int passes_on(void *arg)
{
	struct body *body = body_begin(arg), *next = body + 1;

	for (int i = 0; i < SLEEPS; i++) {
		sleep_once(body);
		s.before = weft_now();
		sim_check(weft_wake(next->pid) == 0, "weft_wake");
		compute();
		sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
		check_now(s.before, "an answer");
	}
	return body_end(body);
}

static int answers(void *arg)
{
	struct body *body = body_begin(arg), *other = body - 1;

	for (int i = 0; i < SLEEPS; i++) {
		sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
		check_now(s.before, "a wake");
		compute();
		sim_check(weft_wake(other->pid) == 0, "weft_wake");
	}
	return body_end(body);
}

static void pass_wakes_on(unsigned unused)
{
	struct weft_spawn_opts first = scene_opts(1, 0), second = scene_opts(2, 0);

	(void)unused;
	create(2, true);
	body_spawn(&scene.bodies[1], answers, &second);
	body_spawn(&scene.bodies[0], passes_on, &first);
	body_spawn(&scene.bodies[2], lives, &scene_movable);
	(void)weft_virtual_thaw(scene.rt);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(passing, "wakes from worker to worker", 1, pass_wakes_on);

SIM_TEST(virtual, a_wake_is_answered_in_its_instant)
{
	sim_must_pass(&passing, SCHEDULES);
}

/* --- blocking work --- */

static int blocks_and_sleeps(void *arg)
{
	struct body *body = body_begin(arg);

	block(body);
	sleep_once(body);
	if (body_number(body) == 0)
		block(body);
	return body_end(body);
}

static void block_on_two(unsigned unused)
{
	(void)unused;
	sleep_on(2, 2, blocks_and_sleeps);
}

SCENE(blocking, "jobs beside sleeps", 1, block_on_two);

SIM_TEST(virtual, time_stands_while_a_job_runs)
{
	sim_must_pass(&blocking, SCHEDULES);
}

/* --- from outside --- */

static void see(void *arg)
{
	*(weft_time *)arg = weft_now();
}

static int sees(void *arg)
{
	see(arg);
	return 0;
}

/* A process that says when it was woken. */
static int is_woken(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	see(&s.seen[2]);
	return body_end(body);
}

static void visit(unsigned way)
{
	struct weft_spawn_opts detached = scene_opts(0, WEFT_DETACHED);
	weft_time before = weft_test_now(scene.rt);
	int r = 0;

	if (way == 0)
		r = weft_rt_spawn(scene.rt, sees, &s.seen[0], &detached, NULL);
	else if (way == 1)
		r = weft_post(scene.rt, see, &s.seen[1]);
	else
		r = weft_wake(scene.bodies[3].pid);
	sim_check(r == 0, "way %u: %d", way, r);
	s.after[way] = weft_test_now(scene.rt);
	sim_check(s.after[way] >= before, "time went back");
}

static void visit_sleepers(unsigned unused)
{
	(void)unused;
	create(2, false);
	body_spawn(&scene.bodies[3], is_woken, NULL);
	for (unsigned i = 0; i < 3; i++) {
		struct weft_spawn_opts opts = draw_opts(2);

		body_spawn(&scene.bodies[i], lives, &opts);
	}
	for (unsigned way = sim_random(VISITS), i = 0; i < VISITS; i++, way = (way + 1) % VISITS) {
		for (unsigned wait = sim_random(200); wait > 0; wait--)
			sim_point("wait");
		visit(way);
	}
	for (unsigned i = 0; i < 4; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
	for (unsigned way = 0; way < VISITS; way++)
		sim_check(s.seen[way] >= WEFT_TEST_START && s.seen[way] <= s.after[way],
			"way %u: time moved before what had come from outside ran", way);
}

SCENE(visiting, "spawn, post and wake from outside", 1, visit_sleepers);

SIM_TEST(virtual, what_comes_from_outside_runs_at_the_time_it_came)
{
	sim_must_pass(&visiting, SCHEDULES);
}

/* --- looks by who is no worker --- */

/* A look that began while a job ran knows nothing of the short sleep that follows. */
static int blocks_and_naps(void *arg)
{
	struct body *body = body_begin(arg);

	for (int i = 0; i < JOBS; i++) {
		block(body);
		sleep_once(body);
	}
	return body_end(body);
}

static int sleeps_long(void *arg)
{
	struct body *body = body_begin(arg);

	for (int i = 0; i < JOBS; i++) {
		weft_time deadline = weft_now() + 100 * TICK_NS;

		body_leave(body);
		sim_check(weft_sleep_until(deadline) == 0, "weft_sleep_until");
		body_enter(body);
		check_now(due_at(deadline), "a long sleep");
	}
	return body_end(body);
}

static void look_from_outside(unsigned unused)
{
	struct weft_spawn_opts first = scene_opts(1, 0), second = scene_opts(2, 0);

	(void)unused;
	create(2, true);
	body_spawn(&scene.bodies[0], blocks_and_naps, &first);
	body_spawn(&scene.bodies[1], sleeps_long, &second);
	for (unsigned i = 0; i < LOOKS; i++)
		sim_check(weft_virtual_thaw(scene.rt) == 0, "weft_virtual_thaw");
	for (unsigned i = 0; i < 2; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(looking, "looks from outside", 1, look_from_outside);

SIM_TEST(virtual, a_look_from_outside_sees_all_or_gives_up)
{
	sim_must_pass(&looking, SCHEDULES);
}

/* --- frozen --- */

static int sleeps_until_its_own(void *arg)
{
	struct body *body = body_begin(arg);
	int number = body_number(body);

	body_leave(body);
	sim_check(weft_sleep_until(s.deadlines[number]) == 0, "weft_sleep_until");
	body_enter(body);
	s.woke_at[number] = weft_now();
	return body_end(body);
}

static void check_advanced(unsigned count)
{
	weft_time now = weft_test_now(scene.rt);

	for (unsigned i = 0; i < count; i++) {
		weft_time due = due_at(s.deadlines[i]);

		sim_check(s.woke_at[i] == (due <= now ? due : 0), "process %u woke at %lld of %lld",
			i, (long long)(s.woke_at[i] - WEFT_TEST_START),
			(long long)(due - WEFT_TEST_START));
	}
}

static void advance_in_steps(unsigned unused)
{
	enum { COUNT = 3 };

	(void)unused;
	create(2, true);
	for (unsigned i = 0; i < COUNT; i++) {
		struct weft_spawn_opts opts = draw_opts(2);

		s.deadlines[i] = WEFT_TEST_START + draw_delay();
		body_spawn(&scene.bodies[i], sleeps_until_its_own, &opts);
	}
	if (sim_random(2)) {
		sim_check(weft_virtual_wait_idle(scene.rt, WEFT_FOREVER) == 0, "wait_idle");
		check_advanced(COUNT);
	}
	for (unsigned i = 0; i < 3; i++) {
		weft_time before = weft_test_now(scene.rt);
		weft_time step = (weft_time)sim_random(6) * TICK_NS;

		sim_check(weft_virtual_advance(scene.rt, step, WEFT_FOREVER) == 0, "advance");
		sim_check(weft_test_now(scene.rt) == before + step, "not where it should be");
		check_advanced(COUNT);
	}
	sim_check(weft_virtual_advance(scene.rt, WEFT_FOREVER, WEFT_FOREVER) == 0, "advance");
	check_advanced(COUNT);
	for (unsigned i = 0; i < COUNT; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(advancing, "a frozen clock is advanced", 1, advance_in_steps);

SIM_TEST(virtual, an_advance_is_exact)
{
	sim_must_pass(&advancing, SCHEDULES);
}

/* --- the end --- */

static int waits(void *arg)
{
	struct body *body = body_begin(arg);

	(void)body_park(body, sim_random(2) ? WEFT_FOREVER : weft_now() + TICK_NS);
	return body_end(body);
}

/* Deadlocked, or not; stopped while somebody waits for rest; or left to end. */
static void end_somehow(unsigned number)
{
	int r;

	if (number == 1) {
		gate_await(&s.made);
		r = weft_virtual_wait_idle(scene.rt, WEFT_FOREVER);
		sim_check(r == 0 || r == -EDEADLK, "wait_idle: %d", r);
		gate_open(&s.waited);
		return;
	}
	create(2, sim_random(2));
	body_spawn(&scene.bodies[0], waits, NULL);
	body_spawn(&scene.bodies[1], waits, &scene_movable);
	gate_open(&s.made);
	sim_check(weft_rt_stop(scene.rt, (weft_time)sim_random(3) * TICK_NS, WEFT_FOREVER) == 0,
		"weft_rt_stop");
	gate_await(&s.waited);
	for (unsigned i = 0; i < 2; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(ending, "stopped while somebody waits for rest", 2, end_somehow);

SIM_TEST(virtual, who_waits_for_rest_is_told_of_the_end)
{
	sim_must_pass(&ending, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(virtual, planted_one_look_at_who_is_parked)
{
	sim_must_find(&looking, WF_PLANTED_virtual_looks_once, 20000);
}

SIM_TEST(virtual, planted_calls_from_outside_hold_nothing)
{
	sim_must_find(&visiting, WF_PLANTED_virtual_ignores_holds, 20000);
}

SIM_TEST(virtual, planted_jobs_hold_nothing)
{
	sim_must_find(&blocking, WF_PLANTED_virtual_ignores_jobs, 20000);
}

SIM_TEST(virtual, planted_a_look_that_was_asked_for_is_forgotten)
{
	sim_must_find(&two, WF_PLANTED_virtual_forgets_askers, 20000);
}
