/*
 * Tasks, in every order: wakes and polls, what is armed and what is left behind, joins, yields and
 * thefts, wakers, a stop. What holds of every process (places, runs, time, headers) invariants.c
 * looks at meanwhile.
 */
#include "sync/spinlock.h"
#include "test/sim/scene.h"

enum { SCHEDULES = 5000, HOUR = 3600 };

/* Something that happens once, and one waits for: an object of core/sched.h. */
struct object {
	struct wf_spinlock lock;
	bool happened, has_name;
	struct wf_wait name;
};

static struct {
	struct object objects[2];
	struct weft_waker_cell cell;
	struct gate ready, go;
	wf_atomic_u32 data;
	weft_pid pid;
	unsigned polls, rounds;
	int results[2];
	unsigned tries[4];
	bool late[4];
	struct weft_deferred defers[4];
	weft_time deadline;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

static weft_pid task_spawn(weft_task_fn fn, void *state, unsigned worker, unsigned flags)
{
	struct weft_spawn_opts opts = scene_opts(worker, flags);
	weft_pid pid = {0};
	int r = weft_rt_task_spawn(scene.rt, fn, state, &opts, &pid);

	sim_check(r == 0, "weft_rt_task_spawn: %d", r);
	return pid;
}

static unsigned any_flags(void)
{
	return sim_random(2) ? WEFT_PINNED : 0;
}

static void must_end(weft_pid pid, int result)
{
	int got = -1, r = weft_join(pid, &got, WEFT_FOREVER);

	sim_check(r == 0 && got == result, "weft_join: %d, result %d", r, got);
}

/* --- objects: one slot, both bodies --- */

/* Waits for it: 0, WEFT_PENDING, -EBUSY, -ECANCELED, -ETIME. */
static int object_await(struct object *object, weft_time deadline)
{
	struct wf_wait wait;
	int r = wf_wait_check_once();

	if (r != 0)
		return r;
	wf_wait_begin(&wait);
	wf_spinlock_lock(&object->lock);
	if (object->happened)
		r = 1;
	else if (object->has_name && !weft_pid_equal(object->name.pid, wait.pid) &&
		 !wf_wait_is_over(object->name.pid, object->name.number))
		r = -EBUSY;
	if (r == 0) {
		object->name = wait;
		object->has_name = true;
	}
	wf_spinlock_unlock(&object->lock);
	if (r != 0) {
		wf_wait_end(&wait);
		return r < 0 ? r : 0;
	}
	return wf_wait_park(&wait, deadline);
}

/* Whether somebody's wait was won. */
static bool object_happen(struct object *object)
{
	struct wf_wait wait;
	bool has;

	wf_spinlock_lock(&object->lock);
	object->happened = true;
	has = object->has_name;
	wait = object->name;
	object->has_name = false;
	wf_spinlock_unlock(&object->lock);
	return has && wf_wait_claim(scene.rt, wait.pid, wait.number);
}

/* Both, at once; counts its runs. */
static int awaits_both(void *arg)
{
	struct body *body = arg;
	int pending = 0;

	body_enter(body);
	s.polls++;
	for (unsigned i = 0; i < 2; i++) {
		int r = object_await(&s.objects[i], s.deadline);

		if (r == -ETIME) /* sleeps may be long here */
			r = object_await(&s.objects[i], s.deadline = WEFT_FOREVER);
		sim_check(r == 0 || r == WEFT_PENDING, "object %u: %d", i, r);
		pending += r == WEFT_PENDING;
	}
	body_leave(body);
	return pending ? WEFT_PENDING : 0;
}

static void two_events(unsigned number)
{
	weft_pid pid;

	if (number == 1) {
		gate_await(&s.go);
		(void)object_happen(&s.objects[1]);
		return;
	}
	scene_create(2);
	s.deadline = sim_random(2) ? WEFT_SEC(HOUR) : WEFT_FOREVER;
	pid = task_spawn(awaits_both, &scene.bodies[0], sim_random(3), any_flags());
	gate_open(&s.go);
	(void)object_happen(&s.objects[0]);
	must_end(pid, 0);
	sim_thread_join(1);
	/* A deadline that fires beside an event may wake the task once more, late. */
	sim_check(s.polls <= 5, "%u runs for two events and a deadline", s.polls);
	scene_destroy();
}

SCENE(two_at_once, "one task, two events, two threads", 2, two_events);

SIM_TEST(task, two_things_armed_at_once)
{
	sim_must_pass(&two_at_once, 2 * SCHEDULES);
}

/* --- wakes and runs --- */

/* Ends when it has seen the last number; a wake that is lost leaves it waiting. */
static int sees_numbers(void *arg)
{
	struct body *body = arg;
	int r;

	body_enter(body);
	s.polls++;
	while ((r = weft_park(s.deadline)) == 0 || r == -ETIME)
		if (r == -ETIME) /* sleeps may be long here */
			s.deadline = WEFT_FOREVER;
	sim_check(r == WEFT_PENDING, "weft_park: %d", r);
	body_leave(body);
	return wf_u32_load_relaxed(&s.data) == s.rounds ? 0 : WEFT_PENDING;
}

static void wake_rounds(unsigned number)
{
	if (number == 1) {
		gate_await(&s.go);
		for (unsigned i = 0; i < 3; i++)
			(void)weft_wake(s.pid);
		return;
	}
	s.rounds = 1 + sim_random(4);
	s.deadline = sim_random(2) ? WEFT_SEC(HOUR) : WEFT_FOREVER;
	scene_create(2);
	s.pid = task_spawn(sees_numbers, &scene.bodies[0], sim_random(3), any_flags());
	gate_open(&s.go);
	for (unsigned i = 1; i <= s.rounds; i++) {
		wf_u32_store_relaxed(&s.data, i);
		sim_check(weft_wake(s.pid) == 0 || i == s.rounds, "weft_wake");
	}
	must_end(s.pid, 0);
	sim_thread_join(1);
	sim_check(s.polls <= s.rounds + 5, "%u runs for %u wakes", s.polls, s.rounds + 3);
	scene_destroy();
}

SCENE(waking, "wakes from two threads", 2, wake_rounds);

SIM_TEST(task, no_wake_is_lost_and_none_makes_two_runs)
{
	sim_must_pass(&waking, 2 * SCHEDULES);
}

SIM_TEST(task, with_a_settle_that_forgets_notified_wakes_are_lost)
{
	sim_must_find(&waking, WF_PLANTED_settle_forgets_notified, 20 * SCHEDULES);
}

/* --- deadlines and cancels against wakes --- */

static int parks_until_soon(void *arg)
{
	struct body *body = arg;
	int r;

	body_enter(body);
	s.polls++;
	r = weft_park(s.deadline);
	body_leave(body);
	sim_check(r != -ETIME || weft_now_coarse() >= s.deadline, "early");
	return r;
}

static void end_each_way(unsigned number)
{
	int result = 1, r;

	if (number == 1) {
		gate_await(&s.go);
		(void)weft_cancel(s.pid);
		return;
	}
	scene_create(2);
	s.deadline = weft_after(WEFT_US(1 + sim_random(60)));
	s.pid = task_spawn(parks_until_soon, &scene.bodies[0], sim_random(3), any_flags());
	gate_open(&s.go);
	(void)weft_wake(s.pid);
	r = weft_join(s.pid, &result, WEFT_FOREVER);
	sim_check(r == 0, "weft_join: %d", r);
	sim_check(result == 0 || result == -ETIME || result == -ECANCELED, "result %d", result);
	sim_thread_join(1);
	scene_destroy();
}

SCENE(ending, "a wake, a cancel and a deadline", 2, end_each_way);

SIM_TEST(task, one_of_wake_cancel_and_deadline_ends_a_park)
{
	sim_must_pass(&ending, 2 * SCHEDULES);
}

/* --- yields, thefts --- */

static int yields_often(void *arg)
{
	struct body *body = arg;
	int r;

	body_enter(body);
	while ((r = weft_yield()) == 0 && body->runs < 3)
		body->runs++;
	if (r == 0)
		body->ended = body->runs;
	body_leave(body);
	return r == 0 ? body_number(body) : r;
}

static void share_out(unsigned unused)
{
	weft_pid pids[4];

	(void)unused;
	scene_create(2);
	for (unsigned i = 0; i < 4; i++)
		pids[i] = task_spawn(
			yields_often, &scene.bodies[i], 1, i == 3 ? WEFT_PINNED : 0);
	for (unsigned i = 0; i < 2; i++)
		(void)weft_wake(pids[sim_random(4)]);
	for (unsigned i = 0; i < 4; i++)
		must_end(pids[i], (int)i);
	scene_settle();
	scene_destroy();
}

SCENE(sharing, "4 tasks that yield, 2 workers", 1, share_out);

SIM_TEST(task, yielding_tasks_are_shared_out_and_woken)
{
	sim_must_pass(&sharing, 2 * SCHEDULES);
}

/* --- joins --- */

static int ends_when_woken(void *arg)
{
	struct body *body = arg;
	int r;

	body_enter(body);
	r = weft_park(WEFT_FOREVER);
	body_leave(body);
	return r == 0 ? 7 : r;
}

/* Joins; now and then forgets that it has, and goes on to end. */
static int may_forget(void *arg)
{
	struct body *body = arg;
	unsigned n = (unsigned)body_number(body);
	int r = WEFT_PENDING;

	body_enter(body);
	if (s.tries[n - 1]++ == 0 || sim_random(3) != 0)
		r = weft_join(s.pid, NULL, s.deadline);
	else
		r = -EINTR;
	s.results[n - 1] = r;
	body_leave(body);
	return r;
}

static int fiber_joins(void *arg)
{
	struct body *body = body_begin(arg);

	body_leave(body);
	s.results[1] = weft_join(s.pid, NULL, s.deadline);
	body_enter(body);
	return body_end(body);
}

static bool is_answer(int r)
{
	return r == 0 || r == -EBUSY || r == -ESRCH || r == -ETIME || r == -EINTR;
}

/* A task that may forget, another joiner of either body, and wakes that make both come back. */
static void join_and_forget(unsigned number)
{
	bool fiber = sim_random(2);
	weft_pid first, second;
	int r;

	if (number == 1) {
		gate_await(&s.go);
		(void)weft_wake(s.pid);
		return;
	}
	scene_create(2);
	s.deadline = sim_random(2) ? weft_after(WEFT_US(sim_random(50))) : WEFT_FOREVER;
	s.pid = task_spawn(ends_when_woken, &scene.bodies[0], 0, any_flags());
	first = task_spawn(may_forget, &scene.bodies[1], 0, any_flags());
	if (fiber) {
		body_spawn(&scene.bodies[2], fiber_joins, NULL);
		second = scene.bodies[2].pid;
	} else {
		second = task_spawn(may_forget, &scene.bodies[2], 0, any_flags());
	}
	(void)weft_wake(first);
	gate_open(&s.go);
	(void)weft_wake(first);
	sim_check(weft_join(first, NULL, WEFT_FOREVER) == 0, "the first joiner");
	sim_check(weft_join(second, NULL, WEFT_FOREVER) == 0, "the second joiner");
	sim_thread_join(1);
	for (unsigned i = 0; i < 2; i++)
		sim_check(is_answer(s.results[i]), "a join: %d", s.results[i]);
	r = weft_join(s.pid, NULL, WEFT_FOREVER);
	sim_check((s.results[0] == 0) + (s.results[1] == 0) + (r == 0) == 1,
		"the result was handed out to %d, %d, %d", s.results[0], s.results[1], r);
	scene_destroy();
}

SCENE(joining, "joins, some of them forgotten", 2, join_and_forget);

SIM_TEST(task, a_result_is_handed_out_once_whoever_forgets_to_ask)
{
	sim_must_pass(&joining, 4 * SCHEDULES);
}

SIM_TEST(task, a_name_replaced_blindly_misses_the_end)
{
	sim_must_find(&joining, WF_PLANTED_join_replaces_blindly, 40 * SCHEDULES);
}

/* --- a slot that changes hands --- */

static int awaits_then_forgets(void *arg)
{
	struct body *body = arg;

	body_enter(body);
	s.results[0] = WEFT_PENDING;
	switch (s.polls++) {
	case 0:
		s.results[0] = object_await(&s.objects[0], WEFT_FOREVER);
		break;
	case 1:
		gate_open(&s.ready);
		break;
	default:
		s.results[0] = 0;
	}
	body_leave(body);
	return s.results[0];
}

static int awaits_after(void *arg)
{
	struct body *body = body_begin(arg);

	body_leave(body);
	s.results[1] = object_await(&s.objects[0], WEFT_FOREVER);
	body_enter(body);
	return body_end(body);
}

/* The first one's name stays in the slot when it goes on; the event is then the second one's. */
static void hand_over(unsigned number)
{
	weft_pid first;

	if (number == 1) {
		gate_await(&s.go);
		(void)object_happen(&s.objects[0]);
		return;
	}
	scene_create(2);
	first = task_spawn(awaits_then_forgets, &scene.bodies[0], 0, any_flags());
	while (!gate_is_open(&s.ready)) {
		(void)weft_wake(first);
		scene_settle();
	}
	body_spawn(&scene.bodies[1], awaits_after, NULL);
	gate_open(&s.go);
	body_join(&scene.bodies[1]);
	(void)weft_wake(first);
	must_end(first, 0);
	sim_check(s.results[1] == 0, "the second one: %d", s.results[1]);
	sim_thread_join(1);
	scene_destroy();
}

SCENE(handing, "a slot with a name that is over", 2, hand_over);

SIM_TEST(task, a_name_left_behind_swallows_no_event)
{
	sim_must_pass(&handing, 2 * SCHEDULES);
}

SIM_TEST(task, a_wait_that_stays_open_is_in_the_way)
{
	sim_must_find(&handing, WF_PLANTED_task_keeps_wait, SCHEDULES);
}

/* --- wakers --- */

static int awaits_the_cell(void *arg)
{
	struct body *body = arg;
	bool happened;

	body_enter(body);
	weft_waker_register(&s.cell, weft_waker_self());
	happened = wf_u32_load_relaxed(&s.data) != 0;
	body_leave(body);
	return happened ? 0 : WEFT_PENDING;
}

static void fire(unsigned number)
{
	weft_pid pid;

	if (number == 1) {
		gate_await(&s.go);
		(void)weft_waker_fire(&s.cell); /* for nothing */
		return;
	}
	scene_create(2);
	pid = task_spawn(awaits_the_cell, &scene.bodies[0], 0, any_flags());
	gate_open(&s.go);
	wf_u32_store_relaxed(&s.data, 1);
	(void)weft_waker_fire(&s.cell);
	must_end(pid, 0);
	sim_thread_join(1);
	(void)weft_waker_fire(&s.cell);
	scene_destroy();
	(void)weft_waker_fire(&s.cell);
}

SCENE(firing, "a cell fired by two threads", 2, fire);

SIM_TEST(task, no_fire_is_lost)
{
	sim_must_pass(&firing, SCHEDULES);
}

SIM_TEST(task, a_fire_that_does_not_exchange_is_lost)
{
	sim_must_find(&firing, WF_PLANTED_waker_fires_by_load, 20 * SCHEDULES);
}

/* --- failures --- */

enum { FAILING = 4 };

static void drops(void *arg)
{
	((struct body *)arg)->dropped++;
}

/* Fails in its first run or its second, or not at all; by then it may have armed this and that. */
static int may_fail(void *arg)
{
	struct body *body = arg;
	unsigned n = (unsigned)body_number(body);
	bool first = s.tries[n]++ == 0;

	body_enter(body);
	if (first && n % 2)
		sim_check(weft_defer(&s.defers[n], drops, body) == 0, "weft_defer");
	if (sim_random(2))
		(void)object_await(&s.objects[0], WEFT_SEC(HOUR));
	if (sim_random(2))
		(void)weft_yield();
	if (first && s.late[n])
		(void)weft_wake(weft_self());
	body_leave(body);
	if (first && s.late[n])
		return WEFT_PENDING;
	if (sim_random(3) == 0)
		return (int)n;
	weft_fail(-(int)n - 1, "told by %u", n);
}

static void fail_in_rows(unsigned number)
{
	weft_pid pids[FAILING];

	if (number == 1) {
		gate_await(&s.go);
		(void)object_happen(&s.objects[0]);
		(void)weft_cancel(s.pid);
		return;
	}
	scene_create(1 + (unsigned)sim_random(2));
	for (unsigned n = 0; n < FAILING; n++) {
		s.late[n] = sim_random(2);
		pids[n] = task_spawn(
			may_fail, &scene.bodies[n], sim_random(3) ? 1 : 0, any_flags());
	}
	s.pid = pids[0];
	gate_open(&s.go);
	for (unsigned n = 0; n < FAILING; n++) {
		struct weft_exit told = {.size = sizeof(told)};
		int r;

		(void)weft_wake(pids[n]);
		r = weft_join_exit(pids[n], &told, WEFT_FOREVER);
		sim_check(r == 0 && told.result == (told.failed ? -(int)n - 1 : (int)n),
			"joined: %d, result %d", r, told.result);
		sim_check(scene.bodies[n].dropped == n % 2, "%u cleanups",
			scene.bodies[n].dropped);
	}
	sim_thread_join(1);
	scene_destroy();
}

SCENE(failing, "4 tasks, some of which fail", 2, fail_in_rows);

SIM_TEST(task, those_that_fail_leave_their_worker_as_it_was)
{
	sim_must_pass(&failing, 2 * SCHEDULES);
}

/* --- a stop --- */

static int hears_of_the_stop(void *arg)
{
	struct body *body = arg;
	int r;

	body_enter(body);
	r = body_number(body) == 0 ? weft_park(WEFT_FOREVER)
	    : body_number(body) == 1 ? weft_sleep_until(WEFT_SEC(HOUR))
	    : body_number(body) == 2 ? object_await(&s.objects[0], WEFT_SEC(HOUR))
				     : weft_join(scene.bodies[0].pid, NULL, WEFT_FOREVER);
	if (r != WEFT_PENDING)
		body->dropped = 1;
	body_leave(body);
	return r;
}

/* Waiting in each way, or not yet run, or suspended: all end. */
static void stop_with_tasks(unsigned unused)
{
	(void)unused;
	scene_create(2);
	for (unsigned i = 0; i < 5; i++)
		scene.bodies[i].pid = task_spawn(hears_of_the_stop, &scene.bodies[i],
			sim_random(3), any_flags() | (sim_random(4) ? 0 : WEFT_SUSPENDED));
	if (sim_random(2))
		scene_settle();
	scene_destroy();
	for (unsigned i = 0; i < 5; i++)
		sim_check(scene.bodies[i].dropped == 1, "task %u has not ended", i);
}

SCENE(stopping, "a stop finds 5 tasks", 1, stop_with_tasks);

SIM_TEST(task, a_stop_ends_tasks_wherever_they_are)
{
	sim_must_pass(&stopping, SCHEDULES);
}
