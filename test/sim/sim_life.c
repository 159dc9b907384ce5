/*
 * Rows P1, P9, P13 of the scenarios: how a process ends: the table of test/life.h, a case a
 * schedule; cleanups that fail, park, and are cancelled meanwhile; shields.
 */
#include "test/sim/scene.h"

#define LIFE_CHECK(condition, ...) sim_check(condition, __VA_ARGS__)
#define LIFE_PAUSE() wf_pause()

#include "test/life.h"

enum { SCHEDULES = 5000 };

static struct {
	struct life life;
	struct gate ready;
	unsigned cleanups;
	bool committed;
	struct weft_deferred defers[3];
	const char *frame; /* of one that has failed */
	int result;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

/* --- P1: the table --- */

static void live(unsigned unused)
{
	weft_local key;

	(void)unused;
	scene_create(1 + (unsigned)sim_random(2));
	sim_check(weft_local_create(&key, life_destroy) == 0, "weft_local_create");
	life_live(&s.life, scene.rt, key, life_case((unsigned)sim_random(LIFE_CASES)));
	scene_destroy();
}

SCENE(living, "a life of the table", 1, live);

SIM_TEST(life, every_way_to_end_to_ask_and_to_cancel)
{
	sim_must_pass(&living, 4 * SCHEDULES);
}

/* --- P9: a cancel in the middle of a section under a shield --- */

/* Parks in the section, woken once by its peer; the cancel comes when it likes. */
static int commits(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	sim_check(weft_shield_begin() == 0 && weft_shield_begin() == 0, "weft_shield_begin");
	gate_open(&s.ready);
	sim_check(body_park(body, WEFT_FOREVER) == 0, "a shielded park was cut off");
	sim_check(weft_shield_end() == 0, "weft_shield_end");
	r = body_park(body, weft_after(WEFT_US(3)));
	sim_check(r == -ETIME, "a shielded park with a deadline: %d", r);
	s.committed = true;
	sim_check(weft_shield_end() == 0, "weft_shield_end");
	r = body_park(body, WEFT_FOREVER);
	sim_check(r == -ECANCELED, "the next one does not tell: %d", r);
	return body_end(body);
}

static void cancel_and_wake(const struct weft_spawn_opts *opts, unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		sim_check(weft_cancel(scene.bodies[0].pid) == 0, "weft_cancel");
		return;
	}
	scene_create(1 + (unsigned)sim_random(2));
	body_spawn(&scene.bodies[0], commits, opts);
	gate_await(&s.ready);
	sim_check(weft_wake(scene.bodies[0].pid) == 0, "weft_wake");
	body_join(&scene.bodies[0]);
	sim_check(s.committed, "the section was left halfway");
	sim_thread_join(1);
	scene_destroy();
}

static void commit_sticky(unsigned number)
{
	cancel_and_wake(NULL, number);
}

static void commit_movable(unsigned number)
{
	cancel_and_wake(&scene_movable, number);
}

SCENE(committing, "a commit, cancelled", 2, commit_sticky);
SCENE(committing_movable, "a commit, cancelled, movable", 2, commit_movable);

SIM_TEST(life, a_shielded_section_is_not_cut_off)
{
	sim_must_pass(&committing, SCHEDULES);
	sim_must_pass(&committing_movable, SCHEDULES);
}

/* --- P13: fails with two cleanups, one of which parks; its stack is nobody's until then --- */

static void parks_in_cleanup(void *arg)
{
	struct body *body = arg;
	int r;

	sim_check(++s.cleanups == 1, "not the last one first");
	sim_check(weft_shield_begin() == 0, "weft_shield_begin");
	gate_open(&s.ready);
	r = body_park(body, WEFT_FOREVER);
	sim_check(r == 0, "a cleanup's park: %d", r);
	sim_check(weft_shield_end() == 0, "weft_shield_end");
	weft_fail(-EIO, "not told");
}

static void comes_last(void *arg)
{
	sim_check(++s.cleanups == 2, "the first one is not the last");
	(void)body_end(arg);
}

static int fails(void *arg)
{
	struct weft_deferred inner;
	struct body *body = body_begin(arg);
	char frame = 'f';

	s.frame = &frame;
	sim_check(weft_defer(&s.defers[0], comes_last, body) == 0, "weft_defer");
	sim_check(weft_defer(&inner, parks_in_cleanup, body) == 0, "weft_defer");
	weft_fail(-EPROTO, "told");
}

/* Runs on the only worker while the failed one is parked. */
static int runs_meanwhile(void *arg)
{
	struct body *body = body_begin(arg);
	char frame = 0;
	uintptr_t distance = (uintptr_t)&frame - (uintptr_t)s.frame + 4096;

	sim_check(s.cleanups == 1, "the cleanups went on");
	sim_check(distance > 2 * 4096, "it has the stack of one that has not ended");
	sim_check(weft_wake(scene.bodies[0].pid) == 0, "weft_wake");
	return body_end(body);
}

static void fail_and_park(unsigned number)
{
	struct weft_exit told = {.size = sizeof(told)};
	int r;

	if (number == 1) {
		gate_await(&s.ready);
		(void)weft_cancel(scene.bodies[0].pid);
		return;
	}
	scene_create(1);
	body_spawn(&scene.bodies[0], fails, NULL);
	gate_await(&s.ready);
	body_spawn(&scene.bodies[1], runs_meanwhile, NULL);
	r = weft_join_exit(scene.bodies[0].pid, &told, WEFT_FOREVER);
	sim_check(r == 0 && told.failed && told.result == -EPROTO, "joined: %d, result %d", r,
		told.result);
	sim_check(strcmp(told.message, "told") == 0, "message: %s", told.message);
	body_join(&scene.bodies[1]);
	sim_thread_join(1);
	scene_destroy();
}

SCENE(failing, "fails, parks in a cleanup, fails", 2, fail_and_park);

SIM_TEST(life, a_failed_process_keeps_its_stack_until_its_cleanups_are_through)
{
	sim_must_pass(&failing, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(life, planted_shield_ignored)
{
	sim_must_find(&committing, WF_PLANTED_shield_ignored, 100);
}

SIM_TEST(life, planted_shield_by_store)
{
	sim_must_find(&committing, WF_PLANTED_shield_by_store, 10000);
}

SIM_TEST(life, planted_shield_left_open)
{
	sim_must_find(&living, WF_PLANTED_end_leaves_shield, 1000);
}

SIM_TEST(life, planted_cleanup_taken_out_late)
{
	sim_must_find(&living, WF_PLANTED_cleanup_taken_out_late, 1000);
}

SIM_TEST(life, planted_last_failure_told)
{
	sim_must_find(&failing, WF_PLANTED_fail_tells_the_last, 100);
}
