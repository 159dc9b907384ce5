/*
 * Rows P of the scenarios: what can be done to a process, from everywhere at once, and what each
 * call answers, exactly.
 */
#include "test/sim/scene.h"

enum { SCHEDULES = 5000 };

static struct {
	struct gate ready, done, held, woken;
	int results[3]; /* of joins */
	int joined[3];  /* what they handed out */
	unsigned wakes; /* begun */
	unsigned refused;
	wf_atomic_u32 data[3];
	bool has_seen;
	struct wf_wait wait;
	unsigned claims;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

/* --- P1: how it ends, who asks, and when --- */

enum asker { JOINS_BEFORE, JOINS_AFTER, NOBODY_JOINS, DETACHES, SPAWNED_DETACHED, ASKERS };
enum cancel { NEVER, SUSPENDED, BEFORE_RUN, WHILE_IT_PARKS, BETWEEN_CALLS, AFTER_END, CANCELS };

static struct {
	enum asker asker;
	enum cancel cancel;
	bool fails;
} drawn;

/* Parks once; hears of a cancellation if there was one before, in each call that may park. */
static int lives(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	if (drawn.cancel == BETWEEN_CALLS)
		sim_check(weft_cancel(weft_self()) == 0, "weft_cancel of oneself");
	gate_open(&s.ready);
	r = body_park(body, WEFT_FOREVER);
	if (drawn.cancel == NEVER || drawn.cancel == AFTER_END)
		sim_check(r == 0, "weft_park: %d", r);
	else
		sim_check(r == -ECANCELED, "weft_park of a cancelled process: %d", r);
	if (r == -ECANCELED) {
		sim_check(body_park(body, WEFT_POLL) == r, "a park has forgotten the cancel");
		sim_check(body_yield(body) == r, "a yield has forgotten the cancel");
	}
	(void)body_end(body);
	return drawn.fails ? -EIO : r == 0 ? 0 : -ECANCELED;
}

static int expected_result(void)
{
	if (drawn.fails)
		return -EIO;
	return drawn.cancel == NEVER || drawn.cancel == AFTER_END ? 0 : -ECANCELED;
}

static void check_joined(weft_pid pid)
{
	int result = 1;
	int r = weft_join(pid, &result, WEFT_FOREVER);

	sim_check(r == 0 && result == expected_result(), "weft_join: %d, result %d", r, result);
	sim_check(scene.bodies[0].dropped == 1, "joined before its argument is dropped");
	sim_check(weft_join(pid, &result, WEFT_FOREVER) == -ESRCH, "joined twice");
}

static void draw(struct weft_spawn_opts *opts)
{
	drawn.asker = (enum asker)sim_random(ASKERS);
	drawn.cancel = (enum cancel)sim_random(CANCELS);
	drawn.fails = sim_random(2);
	*opts = scene_opts(0, sim_random(2) ? WEFT_MOVABLE : 0);
	opts->arg_dtor = body_drop;
	if (drawn.asker == SPAWNED_DETACHED)
		opts->flags |= WEFT_DETACHED;
	if (drawn.cancel == SUSPENDED)
		opts->flags |= WEFT_SUSPENDED;
}

static void cancel_or_wake(weft_pid pid)
{
	if (drawn.cancel == SUSPENDED || drawn.cancel == BEFORE_RUN)
		(void)weft_cancel(pid); /* it may have run by now, and then waits */
	gate_await(&s.ready);
	if (drawn.cancel == WHILE_IT_PARKS)
		(void)weft_cancel(pid);
	if (drawn.cancel == NEVER || drawn.cancel == AFTER_END)
		(void)weft_wake(pid);
}

static void live_and_end(unsigned number)
{
	struct body *body = &scene.bodies[0];
	struct weft_spawn_opts opts;

	if (number == 1) {
		gate_await(&s.done);
		if (drawn.asker == JOINS_BEFORE)
			check_joined(body->pid);
		return;
	}
	draw(&opts);
	scene_create(2);
	body_spawn(body, lives, &opts);
	gate_open(&s.done);
	cancel_or_wake(body->pid);
	if (drawn.asker == DETACHES)
		sim_check(weft_detach(body->pid) == 0, "weft_detach");
	if (drawn.cancel == AFTER_END || drawn.asker == JOINS_AFTER) {
		if (drawn.asker != JOINS_BEFORE)
			scene_settle();
		(void)weft_cancel(body->pid);
	}
	if (drawn.asker == JOINS_AFTER)
		check_joined(body->pid);
	sim_thread_join(1);
	scene_destroy();
}

static void check_lived(void)
{
	sim_check(scene.bodies[0].ended == 1 && scene.bodies[0].dropped == 1,
		"%u ends, its argument was dropped %u times", scene.bodies[0].ended,
		scene.bodies[0].dropped);
	scene_check();
}

static const struct sim_scenario living = {"a life, as the seed says", 2, setup, live_and_end,
	scene_quiet, check_lived, SCENE_STEPS_MAX};

SIM_TEST(process, every_way_to_end_and_to_ask)
{
	sim_must_pass(&living, 3 * SCHEDULES);
}

/* --- P2: cancel a sleeping fiber, and give it up at once --- */

static int sleeps_until_cancelled(void *arg)
{
	struct body *body = body_begin(arg);

	if (body_number(body) == 2) /* from itself */
		sim_check(weft_cancel(weft_self()) == 0, "weft_cancel of oneself");
	body_leave(body);
	sim_check(weft_sleep_until(WEFT_FOREVER) == -ECANCELED, "the sleep has ended");
	body_enter(body);
	(void)body_end(body);
	return -ECANCELED;
}

static void drop_on_its_worker(void *arg)
{
	struct body *body = arg;

	sim_check(weft_worker_index() == 0, "dropped on worker %d", weft_worker_index());
	body_drop(body);
}

static int cancels_sibling(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(weft_cancel(scene.bodies[1].pid) == 0, "weft_cancel of a sibling");
	return body_end(body);
}

/* 0 by this thread, and given up; 1 by a sibling on the other worker; 2 by itself. */
static void cancel_sleepers(unsigned unused)
{
	struct weft_spawn_opts first = scene_opts(1, 0), second = scene_opts(2, 0);

	(void)unused;
	scene_create(2);
	first.arg_dtor = drop_on_its_worker;
	for (unsigned i = 0; i < 3; i++)
		body_spawn(&scene.bodies[i], sleeps_until_cancelled, &first);
	body_spawn(&scene.bodies[3], cancels_sibling, &second);
	sim_check(weft_cancel(scene.bodies[0].pid) == 0, "weft_cancel");
	sim_check(weft_detach(scene.bodies[0].pid) == 0, "weft_detach");
	for (unsigned i = 1; i < 3; i++) {
		int result = 0;

		sim_check(weft_join(scene.bodies[i].pid, &result, WEFT_FOREVER) == 0
				&& result == -ECANCELED,
			"result %d", result);
	}
	body_join(&scene.bodies[3]);
	scene_settle();
	sim_check(scene.bodies[0].ended == 1, "it has not ended");
	sim_check(weft_cancel(scene.bodies[0].pid) == -ESRCH, "given up, ended, and known");
	for (unsigned i = 0; i < 3; i++)
		sim_check(scene.bodies[i].dropped == 1, "no cleanup of %u", i);
	scene_destroy();
}

SCENE(cancelling, "cancel 3 sleepers", 1, cancel_sleepers);

SIM_TEST(process, cancelled_sleepers_clean_up_where_they_are)
{
	sim_must_pass(&cancelling, SCHEDULES);
}

/* --- P3: joins --- */

/* Joins process 0 without end; notes what it got. */
static void join_it(unsigned n, weft_time deadline)
{
	s.results[n] = weft_join(scene.bodies[0].pid, &s.joined[n], deadline);
}

static int joiner(void *arg)
{
	struct body *body = body_begin(arg);

	body_leave(body);
	join_it((unsigned)body_number(body) - 1, WEFT_FOREVER);
	body_enter(body);
	return body_end(body);
}

static int ends_cancelled(void *arg)
{
	(void)body_end(body_begin(arg));
	return -ECANCELED;
}

/*
 * Two processes and a thread join one process that ends meanwhile: one gets the result, the others
 * -EBUSY while that one waits or -ESRCH afterwards, and the result -ECANCELED is no cancel.
 */
static void join_at_once(unsigned unused)
{
	unsigned winners = 0;

	(void)unused;
	scene_create(2);
	for (unsigned i = 0; i < 3; i++)
		s.joined[i] = 1;
	body_spawn(&scene.bodies[0], ends_cancelled, NULL);
	body_spawn(&scene.bodies[1], joiner, NULL);
	body_spawn(&scene.bodies[2], joiner, &scene_movable);
	join_it(2, WEFT_FOREVER);
	body_join(&scene.bodies[1]);
	body_join(&scene.bodies[2]);
	for (unsigned i = 0; i < 3; i++) {
		int r = s.results[i];

		sim_check(r == 0 || r == -EBUSY || r == -ESRCH, "weft_join: %d", r);
		sim_check(s.joined[i] == (r == 0 ? -ECANCELED : 1), "result %d", s.joined[i]);
		winners += r == 0;
	}
	sim_check(winners == 1, "%u got the result", winners);
	sim_check(weft_join(scene.bodies[0].pid, NULL, WEFT_FOREVER) == -ESRCH, "joined again");
	scene_destroy();
}

SCENE(joining, "3 join one", 1, join_at_once);

SIM_TEST(process, one_of_several_joiners_gets_the_result)
{
	sim_must_pass(&joining, SCHEDULES);
}

/* Waits for process 0 without end, until it is cancelled; the process stays joinable. */
static int cancelled_joiner(void *arg)
{
	struct body *body = body_begin(arg);

	s.joined[0] = 1;
	gate_open(&s.ready);
	body_leave(body);
	join_it(0, WEFT_FOREVER);
	body_enter(body);
	return body_end(body);
}

static int ends_when_woken(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	(void)body_end(body);
	return -ECANCELED;
}

/*
 * While one waits a second gets -EBUSY at once, with or without a deadline; once that one was
 * cancelled another waits until its deadline; then the process ends, and is joined.
 */
static void join_with_deadlines(unsigned unused)
{
	weft_time deadline;

	(void)unused;
	scene_create(2);
	body_spawn(&scene.bodies[0], ends_when_woken, NULL);
	body_spawn(&scene.bodies[1], cancelled_joiner, NULL);
	scene_settle();
	join_it(1, WEFT_FOREVER);
	sim_check(s.results[1] == -EBUSY, "while another one waits: %d", s.results[1]);
	sim_check(weft_try_join(scene.bodies[0].pid, NULL) == -EBUSY, "weft_try_join");
	sim_check(weft_detach(scene.bodies[0].pid) == -EBUSY, "weft_detach");
	sim_check(weft_cancel(scene.bodies[1].pid) == 0, "weft_cancel");
	body_join(&scene.bodies[1]);
	sim_check(s.results[0] == -ECANCELED && s.joined[0] == 1, "a cancelled join: %d",
		s.results[0]);
	deadline = weft_after(WEFT_US(5));
	join_it(1, deadline);
	sim_check(s.results[1] == -ETIME && weft_now() >= deadline, "with a deadline: %d",
		s.results[1]);
	join_it(1, WEFT_POLL);
	sim_check(s.results[1] == -EAGAIN, "with WEFT_POLL: %d", s.results[1]);
	(void)weft_wake(scene.bodies[0].pid);
	join_it(2, WEFT_FOREVER);
	sim_check(s.results[2] == 0 && s.joined[2] == -ECANCELED, "result %d", s.joined[2]);
	scene_destroy();
}

SCENE(joining_late, "joins that give up", 1, join_with_deadlines);

SIM_TEST(process, a_join_that_gave_up_leaves_the_process_to_others)
{
	sim_must_pass(&joining_late, SCHEDULES);
}

/* A thread's join gives up just when the process ends; another thread uses its place. */
static void give_up_in_turn(unsigned number)
{
	unsigned first = number * 2;

	if (number == 0) {
		scene_create(1);
		gate_open(&s.ready);
	}
	gate_await(&s.ready);
	for (unsigned i = first; i < first + 2; i++) {
		int result = -1, r;

		body_spawn(&scene.bodies[i], body_leaf, NULL);
		r = weft_join(scene.bodies[i].pid, &result, weft_after(WEFT_US(4)));
		sim_check(r == 0 || r == -ETIME, "weft_join: %d", r);
		sim_check(r != 0 || result == (int)i, "a result of another process");
		if (r == -ETIME)
			body_join(&scene.bodies[i]);
	}
	if (number == 1)
		return;
	sim_thread_join(1);
	scene_destroy();
}

SCENE(giving_up, "threads' joins give up", 2, give_up_in_turn);

SIM_TEST(process, a_threads_join_that_gives_up_hurts_no_other)
{
	sim_must_pass(&giving_up, SCHEDULES);
}

/* --- P4, P5, P14: wakes are one token, and carry what was written --- */

/* Blocks its worker until the gate opens. */
static int holds(void *arg)
{
	struct body *body = body_begin(arg);

	gate_open(&s.held);
	gate_await(&s.done);
	return body_end(body);
}

/* Woken twice before it runs, then twice while it runs: each time one park returns at once. */
static int token_is_one(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	sim_check(body_park(body, weft_after(WEFT_US(2))) == -ETIME, "two tokens before a run");
	gate_open(&s.ready);
	gate_await(&s.woken); /* blocks its worker */
	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	sim_check(body_park(body, weft_after(WEFT_US(2))) == -ETIME, "two tokens while it ran");
	return body_end(body);
}

/* Nobody wakes it: it may have the header of one that is woken after its end. */
static int unwoken(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(body_park(body, weft_after(WEFT_US(2))) == -ETIME, "a wake of another");
	return body_end(body);
}

static void wake_twice(weft_pid pid)
{
	sim_check(weft_wake(pid) == 0 && weft_wake(pid) == 0, "weft_wake");
}

static void wake_early_and_late(const struct weft_spawn_opts *opts)
{
	scene_create(1);
	body_spawn(&scene.bodies[1], holds, NULL);
	gate_await(&s.held);
	body_spawn(&scene.bodies[0], token_is_one, opts);
	wake_twice(scene.bodies[0].pid);
	gate_open(&s.done);
	gate_await(&s.ready);
	wake_twice(scene.bodies[0].pid);
	gate_open(&s.woken);
	body_join(&scene.bodies[1]);
	body_join(&scene.bodies[0]);
	for (unsigned i = 2; i < 6; i++) {
		body_spawn(&scene.bodies[i], unwoken, opts);
		sim_check(weft_wake(scene.bodies[0].pid) == -ESRCH, "a wake after the end");
		if (i & 1)
			body_join(&scene.bodies[i - 1]);
	}
	body_join(&scene.bodies[3]);
	body_join(&scene.bodies[5]);
	scene_destroy();
}

static void wake_sticky(unsigned unused)
{
	(void)unused;
	wake_early_and_late(NULL);
}

static void wake_movable(unsigned unused)
{
	(void)unused;
	wake_early_and_late(&scene_movable);
}

SCENE(twice, "2 wakes, sticky", 1, wake_sticky);
SCENE(twice_movable, "2 wakes, movable", 1, wake_movable);

SIM_TEST(process, two_wakes_are_one_token)
{
	sim_must_pass(&twice, SCHEDULES);
	sim_must_pass(&twice_movable, SCHEDULES);
}

/* Woken, then cancelled, by one thread: the first park is woken, whenever it sees either. */
static int woken_then_cancelled(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	gate_open(&s.ready);
	r = body_park(body, WEFT_FOREVER);
	sim_check(r == 0, "a wake came before the cancel: %d", r);
	sim_check(body_park(body, WEFT_FOREVER) == -ECANCELED, "not cancelled");
	return body_end(body);
}

static void wake_then_cancel(const struct weft_spawn_opts *opts)
{
	scene_create(1);
	body_spawn(&scene.bodies[0], woken_then_cancelled, opts);
	gate_await(&s.ready);
	sim_check(weft_wake(scene.bodies[0].pid) == 0, "weft_wake");
	sim_check(weft_cancel(scene.bodies[0].pid) == 0, "weft_cancel");
	body_join(&scene.bodies[0]);
	scene_destroy();
}

static void wake_then_cancel_sticky(unsigned unused)
{
	(void)unused;
	wake_then_cancel(NULL);
}

static void wake_then_cancel_movable(unsigned unused)
{
	(void)unused;
	wake_then_cancel(&scene_movable);
}

SCENE(then_cancelled, "woken, then cancelled", 1, wake_then_cancel_sticky);
SCENE(then_cancelled_movable, "woken, then cancelled, movable", 1, wake_then_cancel_movable);

SIM_TEST(process, a_wake_before_a_cancel_wins)
{
	sim_must_pass(&then_cancelled, SCHEDULES);
	sim_must_pass(&then_cancelled_movable, SCHEDULES);
}

/*
 * Parks until it has seen the last of what each waker writes before its wakes. No run without a
 * wake: so many returns at most.
 */
static int sees_all(void *arg)
{
	struct body *body = body_begin(arg);
	unsigned returns = 0;

	while (wf_u32_load_relaxed(&s.data[0]) < 2 || wf_u32_load_relaxed(&s.data[1]) < 2
		|| wf_u32_load_relaxed(&s.data[2]) < 2) {
		sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
		sim_check(++returns <= s.wakes, "%u returns, %u wakes", returns, s.wakes);
	}
	return body_end(body);
}

/* The store may wait in its buffer: it is the wake that makes it visible, queued already or not. */
static void write_and_wake(unsigned n)
{
	for (unsigned i = 1; i <= 2; i++) {
		wf_u32_store_relaxed(&s.data[n], i);
		s.wakes++;
		(void)weft_wake(scene.bodies[0].pid);
	}
}

static int writes_and_wakes(void *arg)
{
	struct body *body = body_begin(arg);

	write_and_wake((unsigned)body_number(body));
	return body_end(body);
}

static void write_from_everywhere(unsigned number, unsigned flags)
{
	struct weft_spawn_opts first = scene_opts(1, flags), second = scene_opts(2, flags);

	if (number == 1) {
		gate_await(&s.ready);
		write_and_wake(0);
		return;
	}
	scene_create(2);
	body_spawn(&scene.bodies[0], sees_all, &first);
	gate_open(&s.ready);
	body_spawn(&scene.bodies[1], writes_and_wakes, &first);
	body_spawn(&scene.bodies[2], writes_and_wakes, &second);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	sim_thread_join(1);
	scene_destroy();
}

static void write_sticky(unsigned number)
{
	write_from_everywhere(number, 0);
}

static void write_movable(unsigned number)
{
	write_from_everywhere(number, WEFT_MOVABLE);
}

SCENE(writing, "writes and wakes, sticky", 2, write_sticky);
SCENE(writing_movable, "writes and wakes, movable", 2, write_movable);

SIM_TEST(process, what_is_written_before_a_wake_is_seen)
{
	sim_must_pass(&writing, SCHEDULES);
	sim_must_pass(&writing_movable, SCHEDULES);
}

/*
 * W5: a run serves a wake that still lies in the inbox. The thread's first wake is consumed by a
 * run that goes on; a process of the same worker causes one more run before the inbox is drained;
 * beside that one the thread writes and wakes again.
 */
static int runs_again(void *arg)
{
	struct body *body = body_begin(arg);
	uint32_t seen;

	while ((seen = wf_u32_load_relaxed(&s.data[0])) < 2) {
		if (seen == 1 && !s.has_seen) {
			s.has_seen = true;
			(void)weft_wake(scene.bodies[1].pid);
		}
		sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	}
	return body_end(body);
}

static int makes_it_run(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	(void)weft_wake(scene.bodies[0].pid);
	return body_end(body);
}

static void wake_one_that_runs_again(unsigned unused)
{
	(void)unused;
	scene_create(1);
	body_spawn(&scene.bodies[1], makes_it_run, NULL);
	body_spawn(&scene.bodies[0], runs_again, NULL);
	for (uint32_t i = 1; i <= 2; i++) {
		while (i == 2 && !s.has_seen)
			wf_pause();
		wf_u32_store_relaxed(&s.data[0], i);
		(void)weft_wake(scene.bodies[0].pid);
	}
	body_join(&scene.bodies[0]);
	body_join(&scene.bodies[1]);
	scene_destroy();
}

SCENE(again, "wakes of one that runs again", 1, wake_one_that_runs_again);

SIM_TEST(process, a_run_serves_the_wakes_in_the_inbox)
{
	sim_must_pass(&again, 2 * SCHEDULES);
}

/* C1: a peer, the deadline and a cancel end one wait: exactly one of them. */
static int waits_once(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	wf_wait_begin(&s.wait);
	gate_open(&s.ready);
	body_leave(body);
	r = wf_wait_park(&s.wait, weft_after(WEFT_US(4)));
	body_enter(body);
	sim_check(r == 0 || r == -ETIME || r == -ECANCELED, "wf_wait_park: %d", r);
	s.results[0] = r;
	return body_end(body);
}

static void end_a_wait(unsigned number)
{
	if (number == 0) {
		scene_create(1);
		body_spawn(&scene.bodies[0], waits_once, NULL);
	}
	gate_await(&s.ready);
	if (number == 2)
		(void)weft_cancel(scene.bodies[0].pid);
	else
		s.claims += wf_wait_claim_pid(s.wait.pid, s.wait.number);
	if (number > 0)
		return;
	body_join(&scene.bodies[0]);
	sim_thread_join(1);
	sim_thread_join(2);
	sim_check(s.claims == (s.results[0] == 0), "%u claims, and the wait says %d", s.claims,
		s.results[0]);
	scene_destroy();
}

SCENE(ending_a_wait, "2 peers, deadline, cancel", 3, end_a_wait);

SIM_TEST(process, exactly_one_ends_a_wait)
{
	sim_must_pass(&ending_a_wait, SCHEDULES);
}

/* --- P6, P7: nothing is left of what was not spawned, or has ended --- */

static void check_unknown(weft_pid pid)
{
	int result = 1;

	sim_check(weft_wake(pid) == -ESRCH, "a stale id is woken");
	sim_check(weft_cancel(pid) == -ESRCH, "a stale id is cancelled");
	sim_check(weft_detach(pid) == -ESRCH, "a stale id is given up");
	sim_check(weft_try_join(pid, &result) == -ESRCH, "a stale id is joined");
	sim_check(weft_join(pid, &result, WEFT_FOREVER) == -ESRCH, "a stale id is waited for");
	sim_check(result == 1, "a stale id has a result");
}

/* One request for memory fails, the seed says which, after the runtime has been made. */
static void spawn_fails(unsigned unused)
{
	struct weft_spawn_opts opts = scene_opts(0, WEFT_STACK_NOW);
	unsigned refused = 0;

	(void)unused;
	opts.name = "named";
	opts.arg_dtor = body_drop;
	scene_create(1);
	sim_runtime_fail_at(1 + sim_random(5));
	for (unsigned i = 0; i < 3; i++) {
		struct body *body = &scene.bodies[i];
		int r = weft_rt_spawn(scene.rt, body_leaf, body, &opts, &body->pid);

		sim_check(r == 0 || (r == -ENOMEM && sim_runtime_has_failed()), "spawn: %d", r);
		if (r == 0) {
			body_join(body);
			sim_check(body->dropped == 1, "its argument was not dropped");
			continue;
		}
		refused++;
		check_unknown(body->pid);
		sim_check(body->runs == 0 && body->dropped == 0, "refused, and it has run");
	}
	sim_check(refused <= 1, "%u were refused for one failure", refused);
	scene_destroy();
}

SCENE(spawn_failing, "a spawn without memory", 1, spawn_fails);

SIM_TEST(process, a_spawn_that_fails_leaves_nothing)
{
	sim_must_pass(&spawn_failing, SCHEDULES);
}

/* Ends once it is told; its header is used again by others, which nobody wakes or cancels. */
static int recycles(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 1; i < 7; i++) {
		body_spawn(&scene.bodies[i], i < 3 ? body_leaf : unwoken, NULL);
		body_leave(body);
		body_join(&scene.bodies[i]);
		body_enter(body);
		if (i == 2)
			gate_open(&s.ready);
		if (i >= 2) {
			check_unknown(scene.bodies[1].pid);
			sim_check(weft_spawn_abort(scene.bodies[2].pid) == -ESRCH
					&& weft_spawn_commit(scene.bodies[2].pid, body_leaf, NULL,
						   NULL) == -ESRCH,
				"a stale id is a reservation");
		}
	}
	return body_end(body);
}

static void use_stale_ids(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 0; i < 4; i++)
			check_unknown(scene.bodies[1 + i % 2].pid);
		return;
	}
	scene_create(1);
	body_spawn(&scene.bodies[0], recycles, NULL);
	body_join(&scene.bodies[0]);
	sim_thread_join(1);
	scene_destroy();
}

SCENE(stale, "stale ids", 2, use_stale_ids);

SIM_TEST(process, no_call_finds_a_stale_id)
{
	sim_must_pass(&stale, SCHEDULES);
}

/* --- P12: an argument is dropped once, or is still the caller's --- */

static int hears_of_it(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(body_park(body, WEFT_FOREVER) == -ECANCELED, "not cancelled");
	return body_end(body);
}

/*
 * Before their first run, while the worker is held: 0 is cancelled, 1 and 2 (suspended) are
 * stopped. 3 and 4 are spawned beside the stop: run cancelled, or are refused.
 */
static void stop_before_the_first_run(unsigned number)
{
	struct weft_spawn_opts opts = scene_opts(0, 0);

	opts.arg_dtor = body_drop;
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 3; i < 5; i++) {
			struct body *body = &scene.bodies[i];
			int r = weft_rt_spawn(scene.rt, hears_of_it, body, &opts, NULL);

			sim_check(r == 0 || r == -ESHUTDOWN, "weft_rt_spawn: %d", r);
			s.refused += r != 0;
		}
		return;
	}
	scene_create(1);
	body_spawn(&scene.bodies[5], holds, NULL);
	gate_await(&s.held);
	body_spawn(&scene.bodies[0], hears_of_it, &opts);
	body_spawn(&scene.bodies[1], hears_of_it, &opts);
	opts.flags = WEFT_SUSPENDED;
	body_spawn(&scene.bodies[2], hears_of_it, &opts);
	(void)weft_cancel(scene.bodies[0].pid);
	gate_open(&s.ready);
	gate_open(&s.done);
	sim_check(weft_rt_stop(scene.rt, 0, WEFT_FOREVER) == 0, "weft_rt_stop");
	sim_thread_join(1);
	scene_destroy();
}

static void check_dropped(void)
{
	unsigned ended = 0;

	for (unsigned i = 0; i < 5; i++) {
		const struct body *body = &scene.bodies[i];

		sim_check(body->dropped == body->ended, "%u ends, dropped %u times", body->ended,
			body->dropped);
		ended += body->ended;
	}
	sim_check(ended + s.refused == 5, "%u ends, %u refused", ended, s.refused);
	scene_check();
}

static const struct sim_scenario dropping = {"stopped before they run", 2, setup,
	stop_before_the_first_run, scene_quiet, check_dropped, SCENE_STEPS_MAX};

SIM_TEST(process, an_argument_is_dropped_once_or_never)
{
	sim_must_pass(&dropping, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(process, planted_pending_without_an_operation)
{
	sim_must_find(&writing, WF_PLANTED_wake_pending_without_rmw, 10000);
}

SIM_TEST(process, planted_wakes_served_by_store)
{
	sim_must_find(&again, WF_PLANTED_wake_served_by_store, 100000);
}

SIM_TEST(process, planted_notified_and_forgotten)
{
	sim_must_find(&writing_movable, WF_PLANTED_settle_forgets_notified, 10000);
}

SIM_TEST(process, planted_winner_overwritten)
{
	sim_must_find(&ending_a_wait, WF_PLANTED_claim_overwrites_winner, 10000);
}

SIM_TEST(process, planted_token_kept)
{
	sim_must_find(&twice, WF_PLANTED_park_keeps_token, 100);
}

SIM_TEST(process, planted_joiner_misses_the_end)
{
	sim_must_find(&joining, WF_PLANTED_join_misses_end, 10000);
}

SIM_TEST(process, planted_any_tell_is_trusted)
{
	sim_must_find(&giving_up, WF_PLANTED_join_trusts_any_tell, 10000);
}
