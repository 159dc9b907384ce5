/*
 * Rows B of the scenarios, and of X what is about blocking work: jobs beside threads that come and
 * go, beside deadlines and cancels, beside a stop, and where no thread can be made. Threads of the
 * pool are virtual threads like all others.
 */
#include "test/sim/scene.h"

enum { SCHEDULES = 4000, JOBS = 4 };

static struct {
	struct gate ready;
	unsigned cap, at_once;
	unsigned runs[JOBS], drops[JOBS];
	unsigned accepted, refused, successes;
	bool mandatory_ran;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

/* Idle threads end soon, and sometimes before the next job. */
static void create(unsigned cap)
{
	struct weft_rt_opts opts = *sim_runtime_opts(1);
	int r;

	s.cap = cap;
	opts.blocking_threads_max = cap;
	opts.blocking_keep_alive_ns = 1 + (weft_time)sim_random(4) * 5000;
	r = weft_rt_create(&opts, &scene.rt);
	sim_check(r == 0, "weft_rt_create: %d", r);
}

/* A job: its number is its place in `runs`. */
static int works(void *arg)
{
	unsigned *runs = arg;

	sim_check(weft_rt_current() == NULL, "a job runs on a worker");
	sim_check(++s.at_once <= s.cap, "more jobs at once than the cap");
	sim_point("job");
	s.at_once--;
	++*runs;
	return (int)(runs - s.runs);
}

static int job_number(const struct body *body)
{
	return body_number(body) % JOBS;
}

/* --- B2: jobs beside threads that go --- */

static int call(struct body *body, weft_time deadline)
{
	int number = job_number(body), result = -1;
	unsigned *runs = &s.runs[number], before = *runs;
	int r;

	body_leave(body);
	r = weft_blocking(works, runs, &result, deadline);
	body_enter(body);
	sim_check(*runs - before == (r == 0), "weft_blocking: %d, and it has run %u times", r,
		*runs - before);
	sim_check(r != 0 || result == number, "the result of another job");
	return r;
}

static int calls_twice(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 0; i < 2; i++)
		sim_check(call(body, WEFT_FOREVER) == 0, "weft_blocking");
	return body_end(body);
}

static void call_beside_ends(unsigned unused)
{
	(void)unused;
	create(1);
	body_spawn(&scene.bodies[0], calls_twice, NULL);
	body_spawn(&scene.bodies[1], calls_twice, NULL);
	body_join(&scene.bodies[0]);
	body_join(&scene.bodies[1]);
	scene_destroy();
}

SCENE(calling, "4 calls of 2 processes, 1 thread that ends", 1, call_beside_ends);

SIM_TEST(blocking, a_job_as_its_thread_goes_runs)
{
	sim_must_pass(&calling, 2 * SCHEDULES);
}

/* --- in place, beside the cap --- */

static int opens(void *arg)
{
	gate_open(&s.ready);
	return works(arg);
}

static int calls_and_opens(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	body_leave(body);
	r = weft_blocking(opens, &s.runs[0], NULL, WEFT_FOREVER);
	body_enter(body);
	sim_check(r == 0, "weft_blocking: %d", r);
	return body_end(body);
}

static int awaits(void *arg)
{
	(void)arg;
	gate_await(&s.ready);
	return 7;
}

/* What it waits for in place is done by a job, whatever the cap is, and whoever comes first. */
static int awaits_in_place(void *arg)
{
	struct body *body = body_begin(arg);
	int result = 0, r;

	body_leave(body);
	r = weft_block_in_place(awaits, NULL, &result);
	body_enter(body);
	sim_check(r == 0 && result == 7, "weft_block_in_place: %d", r);
	return body_end(body);
}

static void block_in_place(unsigned unused)
{
	(void)unused;
	create(1);
	body_spawn(&scene.bodies[0], awaits_in_place, NULL);
	body_spawn(&scene.bodies[1], awaits_in_place, NULL);
	body_spawn(&scene.bodies[2], calls_and_opens, NULL);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(in_place, "2 in place wait for a job, cap 1", 1, block_in_place);

SIM_TEST(blocking, in_place_takes_nobodys_turn)
{
	sim_must_pass(&in_place, SCHEDULES);
}

/* --- deadlines and cancels --- */

static int calls_with_deadlines(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 0; i < 2; i++) {
		int r = call(body, weft_after((weft_time)sim_random(8) * 2000 + 1));

		sim_check(r == 0 || r == -ETIME || r == -ECANCELED, "weft_blocking: %d", r);
	}
	return body_end(body);
}

static void cancel_calls(unsigned unused)
{
	(void)unused;
	create(1);
	body_spawn(&scene.bodies[0], calls_with_deadlines, NULL);
	body_spawn(&scene.bodies[1], calls_with_deadlines, NULL);
	(void)weft_cancel(scene.bodies[1].pid);
	body_join(&scene.bodies[0]);
	body_join(&scene.bodies[1]);
	scene_destroy();
}

SCENE(cancelling, "calls with deadlines, one cancelled", 1, cancel_calls);

SIM_TEST(blocking, a_job_runs_or_is_taken_back)
{
	sim_must_pass(&cancelling, 2 * SCHEDULES);
}

/* --- B2: posts beside a stop --- */

static void drops(void *arg)
{
	unsigned number = (unsigned)((unsigned *)arg - s.runs);

	sim_check(++s.drops[number] == 1, "an argument is given up twice");
}

static int post(unsigned number, unsigned flags)
{
	struct weft_blocking_opts opts = {.size = sizeof(opts), .flags = flags, .arg_dtor = drops};
	int r = weft_blocking_post(scene.rt, works, &s.runs[number], &opts);

	sim_check(r == 0 || r == -ESHUTDOWN, "weft_blocking_post: %d", r);
	sim_check(r == 0 || s.drops[number] == 0, "refused, and its argument is gone");
	s.accepted += r == 0;
	return r;
}

static void check_posts(void)
{
	unsigned dropped = 0;

	for (unsigned i = 0; i < JOBS; i++) {
		sim_check(s.runs[i] <= s.drops[i], "it has run, and keeps its argument");
		dropped += s.drops[i];
	}
	sim_check(dropped == s.accepted, "%u posts, %u arguments given up", s.accepted, dropped);
}

static void post_beside_a_stop(unsigned number)
{
	int r;

	if (number == 1) {
		gate_await(&s.ready);
		(void)post(0, 0);
		r = post(1, WEFT_BLOCKING_MANDATORY);
		s.mandatory_ran = r == 0;
		(void)post(2, 0);
		return;
	}
	create(1);
	gate_open(&s.ready);
	sim_check(weft_rt_stop(scene.rt, 0, WEFT_FOREVER) == 0, "weft_rt_stop");
	sim_thread_join(1);
	check_posts();
	sim_check(!s.mandatory_ran || s.runs[1] == 1, "a mandatory job was dropped");
	sim_check(post(3, 0) == -ESHUTDOWN, "a post after the end");
	scene_destroy();
}

SCENE(posting, "posts beside a stop", 2, post_beside_a_stop);

SIM_TEST(blocking, a_post_beside_a_stop_is_done_with_or_refused)
{
	sim_must_pass(&posting, 2 * SCHEDULES);
}

/* Nothing else is alive, and the runtime is started: it ends after them, or refuses them. */
static void post_beside_the_end(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 0; i < 2; i++)
			s.refused += post(i, 0) != 0;
		return;
	}
	create(1 + sim_random(2));
	gate_open(&s.ready);
	sim_check(weft_rt_run(scene.rt) == 0, "weft_rt_run");
	sim_thread_join(1);
	check_posts();
	sim_check(s.runs[0] + s.runs[1] + s.refused == 2, "a post was dropped without a stop");
	scene_destroy();
}

SCENE(ending, "posts beside the end", 2, post_beside_the_end);

SIM_TEST(blocking, a_post_beside_the_end_runs_or_is_refused)
{
	sim_must_pass(&ending, 2 * SCHEDULES);
}

/* --- B3: no thread --- */

static int calls_once(void *arg)
{
	struct body *body = body_begin(arg);
	int r = call(body, WEFT_FOREVER);

	sim_check(r == 0 || r == -EAGAIN || r == -ENOMEM, "weft_blocking: %d", r);
	s.successes += r == 0;
	return body_end(body);
}

/* A process and a foreign thread need the first thread at once, and something is refused. */
static void find_no_thread(unsigned number)
{
	struct weft_blocking_opts opts = {.size = sizeof(opts), .arg_dtor = drops};
	int r;

	if (number == 1) {
		gate_await(&s.ready);
		r = weft_blocking_post(scene.rt, works, &s.runs[3], &opts);
		sim_check(r == 0 || r == -EAGAIN || r == -ENOMEM, "weft_blocking_post: %d", r);
		s.accepted = r == 0;
		return;
	}
	create(1);
	sim_runtime_fail_at(1 + sim_random(8));
	gate_open(&s.ready);
	r = weft_rt_spawn(scene.rt, calls_once, &scene.bodies[0], NULL, &scene.bodies[0].pid);
	sim_check(r == 0 || sim_runtime_has_failed(), "weft_rt_spawn: %d", r);
	sim_thread_join(1);
	sim_check(weft_rt_run(scene.rt) == 0, "weft_rt_run");
	sim_check(s.drops[3] == s.accepted && s.runs[3] == s.accepted, "a post is lost");
	sim_runtime_fail_at(0);
	scene_destroy();
}

SCENE(refusing, "something is refused, 2 jobs, cap 1", 2, find_no_thread);

SIM_TEST(blocking, a_job_without_a_thread_fails_or_waits_for_one)
{
	sim_must_pass(&refusing, 2 * SCHEDULES);
}

/* --- planted --- */

SIM_TEST(blocking, planted_woken_thread_does_not_look)
{
	sim_must_find(&calling, WF_PLANTED_pool_forgets_job, 100);
}

SIM_TEST(blocking, planted_idle_thread_still_serves)
{
	sim_must_find(&calling, WF_PLANTED_pool_keeps_counting, 100);
}

SIM_TEST(blocking, planted_line_behind_a_thread_not_made)
{
	sim_must_find(&refusing, WF_PLANTED_pool_trusts_starts, 10000);
}

SIM_TEST(blocking, planted_post_after_the_close)
{
	sim_must_find(&posting, WF_PLANTED_blocking_post_ignores_close, 10000);
}
