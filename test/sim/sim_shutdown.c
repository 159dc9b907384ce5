/*
 * Rows X of the scenarios: the end of a runtime beside everything that does not know of it yet.
 */
#include "test/sim/scene.h"

enum { SCHEDULES = 5000, ROUNDS = 3 };

static struct {
	struct gate ready, done;
	unsigned refused;
	bool has_ended;
	struct wf_wait wait;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

static void stop(weft_time grace_ns, weft_time deadline, int expected)
{
	int r = weft_rt_stop(scene.rt, grace_ns, deadline);

	sim_check(r == expected, "weft_rt_stop: %d", r);
}

/* Waits until it is cancelled. */
static int stays(void *arg)
{
	struct body *body = body_begin(arg);

	while (body_park(body, WEFT_FOREVER) == 0)
		;
	return body_end(body);
}

/* --- X1: spawns before, during and after --- */

static void spawn_on(unsigned number)
{
	for (unsigned i = 0; i < 3; i++) {
		struct body *body = &scene.bodies[3 * number + i];
		int r = weft_rt_spawn(scene.rt, i & 1 ? stays : body_leaf, body, NULL, &body->pid);

		sim_check(r == 0 || r == -ESHUTDOWN, "weft_rt_spawn: %d", r);
		sim_check(r == 0 || body->runs == 0, "refused, and it has run");
		sim_check(s.refused == 0 || r != 0, "refused once, and later accepted");
		s.refused += number == 1 && r != 0;
		sim_check(weft_pid_is_none(body->pid) == (r != 0), "refused, with an id");
	}
}

/* What was accepted has ended, and its result waits; what was refused has no id. */
static void check_joins(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct body *body = &scene.bodies[i];

		if (!weft_pid_is_none(body->pid))
			body_join(body);
		sim_check(weft_join(body->pid, NULL, WEFT_FOREVER) == -ESRCH, "joined again");
	}
}

static void spawn_beside_a_stop(unsigned number)
{
	int r;

	if (number == 1) {
		gate_await(&s.ready);
		spawn_on(number);
		return;
	}
	scene_create(2);
	spawn_on(number);
	gate_open(&s.ready);
	stop(0, WEFT_FOREVER, 0);
	sim_thread_join(1);
	r = weft_rt_spawn(scene.rt, body_leaf, &scene.bodies[6], NULL, &scene.bodies[6].pid);
	sim_check(r == -ESHUTDOWN, "after the end: %d", r);
	sim_check(weft_post(scene.rt, body_drop, NULL) == -ESHUTDOWN, "a post after the end");
	check_joins(7);
	scene_destroy();
}

SCENE(spawning, "spawns beside a stop", 2, spawn_beside_a_stop);

SIM_TEST(shutdown, a_spawn_beside_a_stop_is_joined_or_refused)
{
	sim_must_pass(&spawning, 2 * SCHEDULES);
}

/* Posts beside a stop: each runs, or is refused. */
static void post_beside_a_stop(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 0; i < 3; i++) {
			int r = weft_post(scene.rt, body_drop, &scene.bodies[i]);

			sim_check(r == 0 || r == -ESHUTDOWN, "weft_post: %d", r);
			s.refused += r != 0;
		}
		return;
	}
	scene_create(2);
	gate_open(&s.ready);
	stop(0, WEFT_FOREVER, 0);
	sim_thread_join(1);
	sim_check(scene.bodies[0].dropped + scene.bodies[1].dropped + scene.bodies[2].dropped
			+ s.refused == 3,
		"a post is lost");
	scene_destroy();
}

SCENE(posting, "posts beside a stop", 2, post_beside_a_stop);

SIM_TEST(shutdown, a_post_beside_a_stop_runs_or_is_refused)
{
	sim_must_pass(&posting, SCHEDULES);
}

/*
 * A process spawns and reserves while the runtime is stopped; what it has reserved it commits. All
 * that begins hears of the stop.
 */
static int spawns_on(void *arg)
{
	struct body *body = body_begin(arg);
	weft_pid reserved[2];
	unsigned count = 0;

	for (unsigned i = 1; i < 3; i++) {
		int r = weft_spawn(stays, &scene.bodies[i], NULL);

		sim_check(r == 0 || r == -ESHUTDOWN, "weft_spawn: %d", r);
		s.refused += r != 0;
		r = weft_spawn_reserve(&reserved[count]);
		sim_check(r == 0 || r == -ESHUTDOWN, "weft_spawn_reserve: %d", r);
		count += r == 0;
		s.refused += r != 0;
		(void)body_yield(body);
	}
	for (unsigned i = 0; i < count; i++)
		sim_check(weft_spawn_commit(reserved[i], stays, &scene.bodies[3 + i], NULL) == 0,
			"a reservation is refused");
	return body_end(body);
}

static void stop_one_that_spawns(unsigned unused)
{
	unsigned ended = 0;

	(void)unused;
	scene_create(2);
	body_spawn(&scene.bodies[0], spawns_on, NULL);
	stop(0, WEFT_FOREVER, 0);
	for (unsigned i = 1; i < 5; i++)
		ended += scene.bodies[i].ended;
	sim_check(ended + s.refused == 4, "%u ended, %u were refused", ended, s.refused);
	scene_destroy();
}

SCENE(reserving, "spawns and reserves beside a stop", 1, stop_one_that_spawns);

SIM_TEST(shutdown, a_reservation_beside_a_stop_is_kept)
{
	sim_must_pass(&reserving, SCHEDULES);
}

/* --- X2: wakes beside the destruction --- */

static void wake_beside_a_destruction(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 0; i < 8; i++) {
			weft_pid pid = scene.bodies[i % 4].pid;
			int r = weft_wake(pid);

			sim_check(r == 0 || r == -ESRCH, "weft_wake: %d", r);
			sim_check(r == -ESRCH || !s.has_ended, "destroyed, and still there");
		}
		return;
	}
	scene_create(2);
	for (unsigned i = 0; i < 4; i++)
		body_spawn(&scene.bodies[i], stays, i & 1 ? &scene_movable : NULL);
	gate_open(&s.ready);
	scene_destroy();
	s.has_ended = true;
}

SCENE(waking, "wakes beside destroy", 2, wake_beside_a_destruction);

SIM_TEST(shutdown, wakes_beside_a_destruction_do_no_harm)
{
	sim_must_pass(&waking, 2 * SCHEDULES);
}

/* --- X4, X9: what outlives its stop --- */

/* Is cancelled, and goes on until it is let go. */
static int ignores_the_stop(void *arg)
{
	struct body *body = body_begin(arg);

	while (body_park(body, WEFT_FOREVER) == 0)
		;
	while (!gate_is_open(&s.done)) {
		(void)body_yield(body);
		wf_pause();
	}
	return body_end(body);
}

/* A deadline passes, a past one too; destroy gives up with nothing freed; then it ends. */
static void outlive(unsigned unused)
{
	weft_time deadline;

	(void)unused;
	scene_create(1);
	body_spawn(&scene.bodies[0], ignores_the_stop, NULL);
	deadline = weft_after(WEFT_US(20));
	stop(WEFT_US(5), deadline, -ETIMEDOUT);
	sim_check(weft_now() >= deadline, "it gave up early");
	stop(0, 0, -ETIMEDOUT);
	sim_check(weft_rt_destroy(scene.rt, 0) == -EBUSY, "weft_rt_destroy");
	sim_check(weft_cancel(scene.bodies[0].pid) == 0, "its memory is gone");
	gate_open(&s.done);
	stop(0, WEFT_FOREVER, 0);
	body_join(&scene.bodies[0]);
	scene_destroy();
}

SCENE(outliving, "a process outlives its stop", 1, outlive);

SIM_TEST(shutdown, what_outlives_a_stop_keeps_its_memory)
{
	sim_must_pass(&outliving, SCHEDULES);
}

/* --- X5: again and again --- */

static void create_and_destroy(unsigned unused)
{
	struct weft_spawn_opts opts = scene_opts(0, 0);

	(void)unused;
	opts.arg_dtor = body_drop;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct body *body = &scene.bodies[i];

		scene_create(1);
		body_spawn(body, stays, &opts);
		scene_destroy();
		sim_check(body->ended == 1 && body->dropped == 1, "%u ends, %u cleanups",
			body->ended, body->dropped);
		sim_check(sim_allocated_bytes() == 0, "%zu bytes are left", sim_allocated_bytes());
		sim_check(weft_join(body->pid, NULL, WEFT_FOREVER) == -ESRCH, "it is still known");
	}
}

SCENE(repeating, "3 runtimes, one by one", 1, create_and_destroy);

SIM_TEST(shutdown, destroyed_runtimes_leave_nothing)
{
	sim_must_pass(&repeating, SCHEDULES);
}

/* --- X6: with grace --- */

/* A server in the middle of a request: has a child do the work, and answers. */
static int serves(void *arg)
{
	struct body *body = body_begin(arg);
	struct body *child = &scene.bodies[1];
	int r;

	gate_open(&s.ready);
	(void)body_yield(body);
	r = weft_spawn(body_leaf, child, &child->pid);
	sim_check(r == 0, "a spawn is refused while there is grace: %d", r);
	body_leave(body);
	body_join(child);
	body_enter(body);
	sim_check(body_yield(body) == 0, "cancelled while there is grace");
	return body_end(body);
}

static void stop_with_grace(unsigned unused)
{
	(void)unused;
	scene_create(2);
	body_spawn(&scene.bodies[0], serves, NULL);
	gate_await(&s.ready);
	stop(WEFT_FOREVER, WEFT_FOREVER, 0);
	sim_check(scene.bodies[1].ended == 1, "the answer is missing");
	body_join(&scene.bodies[0]);
	scene_destroy();
}

SCENE(draining, "a stop with grace", 1, stop_with_grace);

SIM_TEST(shutdown, with_grace_what_runs_is_finished)
{
	sim_must_pass(&draining, SCHEDULES);
}

/*
 * Each link of a chain begins the next one, on the other worker, and ends; while there is grace
 * both workers ask all the time whether anything is alive.
 */
static int links(void *arg)
{
	struct body *body = body_begin(arg);
	unsigned next = (unsigned)body_number(body) + 1;

	if (next < SCENE_BODIES) {
		struct weft_spawn_opts opts = scene_opts(1 + next % 2, WEFT_DETACHED);
		struct body *child = &scene.bodies[next];
		int r = weft_spawn_with(links, child, &opts, NULL);

		sim_check(r == 0, "the runtime ends, and a link is alive: %d", r);
	}
	return body_end(body);
}

static void stop_a_chain(unsigned unused)
{
	(void)unused;
	scene_create(2);
	body_spawn(&scene.bodies[0], links, NULL);
	stop(WEFT_FOREVER, WEFT_FOREVER, 0);
	for (unsigned i = 0; i < SCENE_BODIES; i++)
		sim_check(scene.bodies[i].ended == 1, "link %u has not run", i);
	scene_destroy();
}

SCENE(chaining, "a chain beside a stop with grace", 1, stop_a_chain);

SIM_TEST(shutdown, with_grace_a_chain_is_finished)
{
	sim_must_pass(&chaining, SCHEDULES);
}

/* Nothing is alive, and started: it ends; a spawn just then is refused, or holds up the end. */
static void spawn_beside_the_end(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 0; i < 2; i++) {
			struct body *body = &scene.bodies[i];
			int r = weft_rt_spawn(scene.rt, body_leaf, body, NULL, NULL);

			sim_check(r == 0 || r == -ESHUTDOWN, "weft_rt_spawn: %d", r);
			s.refused += r != 0;
		}
		return;
	}
	scene_create(2);
	gate_open(&s.ready);
	sim_check(weft_rt_run(scene.rt) == 0, "weft_rt_run");
	s.has_ended = true;
	sim_thread_join(1);
	sim_check(scene.bodies[0].ended + scene.bodies[1].ended + s.refused == 2,
		"a process is lost in the end");
	scene_destroy();
}

SCENE(ending, "spawns beside the end", 2, spawn_beside_the_end);

SIM_TEST(shutdown, a_spawn_beside_the_end_runs_or_is_refused)
{
	sim_must_pass(&ending, 2 * SCHEDULES);
}

static int does_nothing(void *arg)
{
	(void)arg;
	return 0;
}

/* Who is alive holds up the end: nothing is refused to him, also while it is being looked for. */
static int posts_and_calls(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(weft_post(scene.rt, body_drop, body) == 0, "a post by who is alive");
	sim_check(weft_rt_run_on_workers(scene.rt, does_nothing, body, NULL) == 0,
		"a call by who is alive");
	return body_end(body);
}

static void posts_beside_the_end(unsigned number)
{
	int r;

	if (number == 1) {
		gate_await(&s.ready);
		r = weft_rt_spawn(scene.rt, posts_and_calls, &scene.bodies[0], NULL, NULL);
		sim_check(r == 0 || r == -ESHUTDOWN, "weft_rt_spawn: %d", r);
		s.refused += r != 0;
		return;
	}
	scene_create(2);
	gate_open(&s.ready);
	sim_check(weft_rt_run(scene.rt) == 0, "weft_rt_run");
	s.has_ended = true;
	sim_thread_join(1);
	sim_check(scene.bodies[0].ended + s.refused == 1, "a process is lost in the end");
	sim_check(scene.bodies[0].dropped + s.refused == 1, "a post is lost in the end");
	scene_destroy();
}

SCENE(alive_at_the_end, "who is alive, beside the end", 2, posts_beside_the_end);

SIM_TEST(shutdown, who_is_alive_is_refused_nothing_beside_the_end)
{
	sim_must_pass(&alive_at_the_end, 2 * SCHEDULES);
}

/* --- X8: those who are nobody's, and those who must not be disturbed --- */

/* Movable, waiting with its timer on the wheel of the worker it happened to be on. */
static int waits_anchored(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	do
		r = body_park(body, weft_after(WEFT_US(3)));
	while (r != -ECANCELED);
	return body_end(body);
}

/* Cancelled, it still must wait for a peer: under a shield, until the peer has claimed the wait. */
static int waits_shielded(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	sim_check(body_park(body, WEFT_FOREVER) == -ECANCELED, "weft_park");
	wf_wait_begin(&s.wait);
	gate_open(&s.ready);
	body_leave(body);
	r = wf_wait_park_shielded(&s.wait, WEFT_FOREVER);
	body_enter(body);
	sim_check(r == 0, "a shielded wait: %d", r);
	return body_end(body);
}

static void stop_those_who_wait(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		sim_check(wf_wait_claim_pid(s.wait.pid, s.wait.number), "the wait was over");
		sim_check(!wf_wait_claim_pid(s.wait.pid, s.wait.number), "claimed twice");
		return;
	}
	scene_create(2);
	body_spawn(&scene.bodies[0], stays, &scene_movable);
	body_spawn(&scene.bodies[1], waits_anchored, &scene_movable);
	body_spawn(&scene.bodies[2], waits_shielded, NULL);
	scene_destroy();
}

SCENE(waiting, "movable and shielded waits", 2, stop_those_who_wait);

SIM_TEST(shutdown, all_who_wait_end_before_the_drivers)
{
	sim_must_pass(&waiting, 2 * SCHEDULES);
}

/* --- functions on all workers, beside a stop: on each, or on none --- */

enum { CALLS = 2 };

static struct {
	unsigned runs[2]; /* by each worker */
	unsigned drops;
} calls[CALLS];

static int runs_on_worker(void *arg)
{
	unsigned call = (unsigned)(uintptr_t)arg;

	sim_check(++calls[call].runs[weft_worker_index()] == 1, "twice on a worker");
	sim_check(calls[call].drops == 0, "after its destructor");
	return 0;
}

static void drops_call(void *arg)
{
	unsigned call = (unsigned)(uintptr_t)arg;

	sim_check(calls[call].runs[0] == 1 && calls[call].runs[1] == 1, "dropped too early");
	sim_check(++calls[call].drops == 1, "dropped twice");
}

static void call_beside_a_stop(unsigned number)
{
	int r[CALLS];

	if (number == 1) {
		gate_await(&s.ready);
		stop(0, WEFT_FOREVER, 0);
		return;
	}
	memset(calls, 0, sizeof(calls));
	scene_create(2);
	body_spawn(&scene.bodies[0], stays, NULL);
	gate_open(&s.ready);
	for (unsigned i = 0; i < CALLS; i++)
		r[i] = weft_rt_run_on_workers(
			scene.rt, runs_on_worker, (void *)(uintptr_t)i, drops_call);
	sim_thread_join(1);
	for (unsigned i = 0; i < CALLS; i++) {
		sim_check(r[i] == 0 || r[i] == -ESHUTDOWN, "weft_rt_run_on_workers: %d", r[i]);
		sim_check(calls[i].drops == (r[i] == 0), "accepted %d, dropped %u", r[i] == 0,
			calls[i].drops);
	}
	scene_destroy();
}

SCENE(calling, "calls on all workers beside a stop", 2, call_beside_a_stop);

SIM_TEST(shutdown, a_call_runs_on_all_workers_or_is_refused)
{
	sim_must_pass(&calling, 2 * SCHEDULES);
}

/* It fails on one worker: it runs on the other one all the same, and the runtime ends. */
static int fails_on_first(void *arg)
{
	return runs_on_worker(arg) == 0 && weft_worker_index() == 0 ? -EIO : 0;
}

static void call_that_fails(unsigned unused)
{
	int r;

	(void)unused;
	memset(calls, 0, sizeof(calls));
	sim_runtime_expect_errors();
	scene_create(2);
	body_spawn(&scene.bodies[0], stays, NULL);
	r = weft_rt_run_on_workers(scene.rt, fails_on_first, NULL, drops_call);
	sim_check(r == 0, "weft_rt_run_on_workers: %d", r);
	r = weft_rt_run(scene.rt);
	sim_check(r == -EIO, "weft_rt_run: %d", r);
	sim_check(calls[0].drops == 1, "dropped %u times", calls[0].drops);
	scene_destroy();
}

SCENE(failing, "a call that fails on a worker", 1, call_that_fails);

SIM_TEST(shutdown, a_call_that_fails_ends_the_runtime)
{
	sim_must_pass(&failing, SCHEDULES);
}

/* --- threads that wait for a process of theirs, beside a stop --- */

enum { WAITERS = WF_FOREIGN_JOINERS_MAX + 1 };

static int parks_or_not(void *arg)
{
	struct body *body = body_begin(arg);

	if (sim_random(2))
		(void)body_park(body, weft_after(WEFT_US(sim_random(5))));
	return body_end(body);
}

/* What was accepted has ended when the call returns; one more thread waits than have a place. */
static void block_on(unsigned number)
{
	struct body *body = &scene.bodies[number];
	struct weft_spawn_opts opts = scene_opts(0, sim_random(2) ? WEFT_MOVABLE : 0);
	int result = -1, r;

	opts.arg_dtor = body_drop;
	r = weft_rt_block_on(scene.rt, sim_random(2) ? parks_or_not : stays, body, &opts, &result);
	sim_check(r == 0 || r == -ESHUTDOWN, "weft_rt_block_on: %d", r);
	sim_check(body->ended == (r == 0) && body->dropped == (r == 0),
		"weft_rt_block_on: %d; %u have ended, %u dropped", r, body->ended, body->dropped);
	sim_check(r != 0 || result == (int)number, "another's result");
}

static void block_beside_a_stop(unsigned number)
{
	if (number > 0) {
		gate_await(&s.ready);
		block_on(number);
		return;
	}
	scene_create(2);
	gate_open(&s.ready);
	stop(sim_random(2) ? WEFT_US(5) : 0, WEFT_FOREVER, 0);
	for (unsigned i = 1; i <= WAITERS; i++)
		sim_thread_join(i);
	scene_destroy();
}

SCENE(blocking_on, "3 threads wait for processes, a stop", 1 + WAITERS, block_beside_a_stop);

SIM_TEST(shutdown, who_blocks_on_a_process_returns_when_it_has_ended)
{
	sim_must_pass(&blocking_on, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(shutdown, planted_end_without_a_second_look)
{
	sim_must_find(&ending, WF_PLANTED_life_looks_once, 10000);
}

SIM_TEST(shutdown, planted_refusal_wakes_nobody)
{
	sim_must_find(&spawning, WF_PLANTED_refused_wakes_nobody, 10000);
}

SIM_TEST(shutdown, planted_sweep_before_all_have_acknowledged)
{
	sim_must_find(&reserving, WF_PLANTED_stop_sweeps_early, 10000);
}

SIM_TEST(shutdown, planted_post_after_the_close)
{
	sim_must_find(&posting, WF_PLANTED_post_ignores_close, 10000);
}

SIM_TEST(shutdown, planted_call_after_the_close)
{
	sim_must_find(&calling, WF_PLANTED_post_ignores_close, 10000);
}

SIM_TEST(shutdown, planted_destruction_ignores_visitors)
{
	sim_must_find(&waking, WF_PLANTED_withdraw_ignores_uses, 10000);
}

SIM_TEST(shutdown, planted_joiner_misses_the_end)
{
	sim_must_find(&blocking_on, WF_PLANTED_join_misses_end, 10000);
}
