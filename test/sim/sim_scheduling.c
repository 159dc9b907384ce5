/*
 * Rows S of the scenarios: the whole runtime shares its workers out fairly, starts what came from
 * outside at once, keeps a process where it belongs, and in order.
 *
 * Fairness is counted in runs of other processes, not in time: a bound is what the loop of
 * core/worker.c promises with the small sizes of sim builds, and holds in every schedule.
 */
#include "core/monitor.h"
#include "test/sim/scene.h"

enum { SCHEDULES = 4000 };

static struct {
	struct gate done, ready, begun, told[SCENE_BODIES];
	unsigned crowd, started;
	bool crowd_is_there;
	bool enough;   /* the crowd may end */
	unsigned runs; /* of the crowd */
	unsigned yielded_at, injected_at;
	bool yielding, injecting, injected_ran;
	const struct body *running; /* so many times in a row: of those who wake themselves */
	unsigned row;
	unsigned list_ran, ring_ran; /* at which run */
	unsigned shared; /* runs once all of the crowd have begun */
	unsigned class_ran[WEFT_PRIORITY_LOW + 1];
	unsigned order[SCENE_BODIES], ordered;
	struct body *partner[SCENE_BODIES];
	struct sim_event event, events[3];
	bool happened;
	wf_atomic_u32 pokes;
	weft_rt *home, *away;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

/* --- S1: the last of several spawns signals --- */

static int signaller(void *arg)
{
	struct body *body = body_begin(arg);

	gate_open(&s.done);
	return body_end(body);
}

static void spawn_several(unsigned workers)
{
	scene_create(workers);
	for (unsigned i = 0; i < 6; i++)
		body_spawn(&scene.bodies[i], i == 5 ? signaller : body_leaf, NULL);
	gate_await(&s.done);
	scene_destroy();
	for (unsigned i = 0; i < 6; i++)
		sim_check(scene.bodies[i].ended == 1, "process %u has not run", i);
}

static void several_one(unsigned unused)
{
	(void)unused;
	spawn_several(1);
}

static void several_two(unsigned unused)
{
	(void)unused;
	spawn_several(2);
}

SCENE(several_on_one, "6 spawns, 1 worker", 1, several_one);
SCENE(several_on_two, "6 spawns, 2 workers", 1, several_two);

SIM_TEST(scheduling, the_last_of_several_foreign_spawns_signals)
{
	sim_must_pass(&several_on_one, SCHEDULES);
	sim_must_pass(&several_on_two, SCHEDULES);
}

/* --- crowds: processes that never give up their worker for long --- */

/* A process of a crowd begins; all of it: `ready`. */
static struct body *crowd_begin(void *arg)
{
	struct body *body = body_begin(arg);

	if (++s.started == s.crowd)
		gate_open(&s.ready);
	return body;
}

/*
 * It runs; true: once more. Nobody whom it could keep waiting waits for longer than his bound: who
 * yielded, for the rest of the turn, and each of the crowd with what it wakes.
 */
static bool crowd_on(void)
{
	s.runs++;
	sim_check(!s.yielding ||
			s.runs - s.yielded_at <= WF_BUDGET + s.crowd * (1 + WF_RUN_NEXT_MAX),
		"%u runs of others, and one who yielded waits", s.runs - s.yielded_at);
	sim_check(!s.injecting || s.runs - s.injected_at <= WF_INJECTOR_INTERVAL,
		"%u runs of others, and an injected one waits", s.runs - s.injected_at);
	return !s.enough;
}

/* Spawns its successor, detached, and ends. */
static int successor(void *unused)
{
	(void)unused;
	if (!crowd_on())
		return 0;
	while (weft_spawn(successor, NULL, NULL) == -EAGAIN)
		(void)weft_yield(); /* those that have ended wait for a grace period */
	return 0;
}

/* Wakes itself before each park. */
static int self_waker(void *arg)
{
	struct body *body = crowd_begin(arg);

	while (crowd_on()) {
		s.row = s.running == body && s.crowd_is_there ? s.row + 1 : 0;
		s.running = body;
		sim_check(s.row <= 2 * WF_OPERATIONS_BUDGET, "it keeps its worker");
		(void)weft_wake(body->pid);
		sim_check(body_park(body, WEFT_FOREVER) == 0, "a token is lost");
	}
	return body_end(body);
}

/* Wakes its partner, then waits to be woken. */
static int ping_pong(void *arg)
{
	struct body *body = crowd_begin(arg);
	struct body *partner = s.partner[body_number(body)];

	while (crowd_on()) {
		(void)weft_wake(partner->pid);
		(void)body_park(body, WEFT_FOREVER);
	}
	(void)weft_wake(partner->pid);
	return body_end(body);
}

static int yielder(void *arg)
{
	struct body *body = crowd_begin(arg);

	while (crowd_on())
		(void)body_yield(body);
	return body_end(body);
}

/* Yields until a crowd has begun, then five times. */
static int five_yields(void *arg)
{
	struct body *body = body_begin(arg);

	gate_open(&s.begun);
	for (int i = 0; i < 5; i += s.started == s.crowd) {
		s.yielded_at = s.runs;
		s.yielding = true;
		(void)body_yield(body);
		s.yielding = false;
	}
	return body_end(body);
}

static void join_crowd(unsigned first, unsigned count)
{
	s.enough = true;
	for (unsigned i = first; i < first + count; i++)
		body_join(&scene.bodies[i]);
}

/* S3: the successors of a process keep neither another one nor a foreign join. */
static void succeed(unsigned unused)
{
	(void)unused;
	scene_create(1);
	sim_check(weft_rt_spawn(scene.rt, successor, NULL, NULL, NULL) == 0, "spawn");
	body_spawn(&scene.bodies[0], five_yields, NULL);
	body_join(&scene.bodies[0]);
	s.enough = true;
	scene_destroy();
}

SCENE(succession, "endless successors", 1, succeed);

SIM_TEST(scheduling, endless_successors_keep_nobody_waiting)
{
	sim_must_pass(&succession, SCHEDULES);
}

/* S4 */
static void play_ping_pong(unsigned unused)
{
	struct weft_spawn_opts opts = scene_opts(0, WEFT_SUSPENDED);

	(void)unused;
	s.crowd = 4;
	scene_create(1);
	body_spawn(&scene.bodies[4], five_yields, NULL);
	gate_await(&s.begun);
	for (unsigned i = 0; i < 4; i++) {
		s.partner[i] = &scene.bodies[i ^ 1];
		body_spawn(&scene.bodies[i], ping_pong, &opts);
	}
	(void)weft_wake(scene.bodies[0].pid);
	(void)weft_wake(scene.bodies[2].pid);
	body_join(&scene.bodies[4]);
	join_crowd(0, 4);
	scene_destroy();
}

SCENE(ping_pongs, "2 pairs play ping-pong", 1, play_ping_pong);

SIM_TEST(scheduling, ping_pongs_let_a_yielding_process_through)
{
	sim_must_pass(&ping_pongs, SCHEDULES);
}

/* --- S5, S6: a worker that is never idle still looks around --- */

static int woken_once(void *arg)
{
	struct body *body = body_begin(arg);

	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	return body_end(body);
}

static int sleeps_once(void *arg)
{
	struct body *body = body_begin(arg);
	weft_time deadline = weft_after(WEFT_US(5));

	body_leave(body);
	sim_check(weft_sleep_until(deadline) == 0, "weft_sleep_until");
	body_enter(body);
	sim_check(weft_now() >= deadline, "a sleep ended early");
	return body_end(body);
}

static int awaits_event(void *arg)
{
	struct body *body = body_begin(arg);

	sim_event_begin(&s.event);
	gate_open(&s.begun);
	body_leave(body);
	sim_check(wf_wait_park(&s.event.wait, WEFT_FOREVER) == 0, "the event is lost");
	body_enter(body);
	return body_end(body);
}

/* Among `crowd` who wake themselves: a wake, a spawn, a timer and an event go through. */
static void look_around(unsigned crowd)
{
	struct weft_spawn_opts here = scene_opts(1, 0);

	s.crowd = crowd;
	scene_create(1);
	for (unsigned i = 0; i < crowd; i++)
		body_spawn(&scene.bodies[i], self_waker, &here);
	s.crowd_is_there = crowd > 1;
	gate_await(&s.ready);
	body_spawn(&scene.bodies[crowd], woken_once, NULL);
	body_spawn(&scene.bodies[crowd + 1], sleeps_once, NULL);
	body_spawn(&scene.bodies[crowd + 2], awaits_event, NULL);
	(void)weft_wake(scene.bodies[crowd].pid);
	gate_await(&s.begun);
	sim_event_happen(&s.event);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[crowd + i]);
	join_crowd(0, crowd);
	scene_destroy();
}

static void look_around_one(unsigned unused)
{
	(void)unused;
	look_around(1);
}

static void look_around_four(unsigned unused)
{
	(void)unused;
	look_around(4);
}

SCENE(busy_with_one, "1 wakes itself", 1, look_around_one);
SCENE(busy_with_four, "4 wake themselves", 1, look_around_four);

SIM_TEST(scheduling, a_busy_worker_still_looks_around)
{
	sim_must_pass(&busy_with_one, SCHEDULES / 2);
	sim_must_pass(&busy_with_four, SCHEDULES / 2);
}

/*
 * S7: the other worker is blocked; a process that yields until an event has come to another one of
 * its worker needs few yields.
 */
static int yields_until_event(void *arg)
{
	struct body *body = body_begin(arg);
	unsigned yields = 0;

	while (scene.bodies[1].ended == 0) {
		(void)body_yield(body);
		yields += s.happened;
	}
	sim_check(yields < 10, "%u yields", yields);
	gate_open(&s.done);
	return body_end(body);
}

static int blocks_its_worker(void *arg)
{
	struct body *body = body_begin(arg);

	gate_await(&s.done);
	return body_end(body);
}

static void connect_beside_a_blocked_worker(unsigned unused)
{
	struct weft_spawn_opts first = scene_opts(1, 0), second = scene_opts(2, 0);

	(void)unused;
	scene_create(2);
	body_spawn(&scene.bodies[0], blocks_its_worker, &second);
	body_spawn(&scene.bodies[1], awaits_event, &first);
	body_spawn(&scene.bodies[2], yields_until_event, &first);
	gate_await(&s.begun);
	sim_event_happen(&s.event);
	s.happened = true;
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(connecting, "yields until connected", 1, connect_beside_a_blocked_worker);

SIM_TEST(scheduling, few_yields_see_an_event)
{
	sim_must_pass(&connecting, SCHEDULES);
}

/* Events of processes that may move: made ready inside a poll, each once. */
static int awaits_its_event(void *arg)
{
	struct body *body = body_begin(arg);
	struct sim_event *event = &s.events[body_number(body)];

	sim_event_begin(event);
	gate_open(&s.told[body_number(body)]);
	body_leave(body);
	sim_check(wf_wait_park(&event->wait, WEFT_FOREVER) == 0, "the event is lost");
	body_enter(body);
	return body_end(body);
}

static void events_at_once(unsigned unused)
{
	struct weft_spawn_opts first = scene_opts(1, WEFT_MOVABLE);

	(void)unused;
	scene_create(2);
	for (unsigned i = 0; i < 3; i++) {
		body_spawn(&scene.bodies[i], awaits_its_event, i < 2 ? &first : NULL);
		gate_await(&s.told[i]);
	}
	for (unsigned i = 0; i < 3; i++)
		sim_event_happen(&s.events[i]);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	scene_settle();
	scene_destroy();
}

SCENE(happening, "3 events", 1, events_at_once);

SIM_TEST(scheduling, events_end_their_waits)
{
	sim_must_pass(&happening, SCHEDULES);
}

/* --- S8, S15: shares --- */

/*
 * List or ring, where something is ready at the end of each turn: between two runs lie at most the
 * rest of a turn, the other's pick and an injected one.
 */
static void class_ran(unsigned *last)
{
	sim_check(*last == 0 || s.runs - *last <= WF_BUDGET + 2, "%u runs of others",
		s.runs - *last);
	*last = s.runs;
}

static int injected(void *arg)
{
	struct body *body = body_begin(arg);

	s.injecting = false;
	s.injected_ran = true;
	return body_end(body);
}

/* Foreign spawns beside a crowd, each after the one before has run. */
static void inject_one_by_one(unsigned first, unsigned count)
{
	gate_await(&s.ready);
	for (unsigned i = first; i < first + count; i++) {
		s.injected_ran = false;
		body_spawn(&scene.bodies[i], injected, NULL);
		s.injected_at = s.runs;
		s.injecting = !s.injected_ran;
		body_join(&scene.bodies[i]);
	}
}

/* S8: injected work runs within an interval of picks, whatever else is ready. */
static void inject_into_a_crowd(unsigned unused)
{
	struct weft_spawn_opts here = scene_opts(1, 0);

	(void)unused;
	s.crowd = 3;
	scene_create(1);
	for (unsigned i = 0; i < 3; i++)
		body_spawn(&scene.bodies[i], yielder, &here);
	inject_one_by_one(3, 4);
	join_crowd(0, 3);
	scene_destroy();
}

SCENE(injecting, "injected beside 3 who yield", 1, inject_into_a_crowd);

SIM_TEST(scheduling, injected_work_runs_within_its_interval)
{
	sim_must_pass(&injecting, SCHEDULES);
}

static int listed(void *arg)
{
	struct body *body = crowd_begin(arg);

	while (crowd_on()) {
		class_ran(&s.list_ran);
		(void)body_yield(body);
	}
	return body_end(body);
}

static int in_ring(void *arg)
{
	struct body *body = crowd_begin(arg);

	while (crowd_on()) {
		class_ran(&s.ring_ran);
		(void)body_yield(body);
	}
	return body_end(body);
}

/* S15 */
static void share(unsigned unused)
{
	(void)unused;
	s.crowd = 6;
	scene_create(1);
	for (unsigned i = 0; i < 3; i++) {
		body_spawn(&scene.bodies[i], listed, NULL);
		body_spawn(&scene.bodies[3 + i], in_ring, &scene_movable);
	}
	inject_one_by_one(6, 4);
	join_crowd(0, 6);
	scene_destroy();
}

SCENE(sharing, "list, ring and injector", 1, share);

SIM_TEST(scheduling, list_ring_and_injector_share_a_worker)
{
	sim_must_pass(&sharing, SCHEDULES);
}

/* --- classes --- */

/* A run, once all have begun, which they do in turns of normal: so many have one of each class. */
static void class_shares(unsigned class)
{
	s.shared++;
	s.class_ran[class] = s.shared;
	for (unsigned i = 0; i <= WEFT_PRIORITY_LOW; i++)
		sim_check(i == WEFT_PRIORITY_HIGH || s.shared - s.class_ran[i] < WF_CLASS_TURNS,
			"%u runs of others, and class %u waits", s.shared - s.class_ran[i], i);
	if (s.shared == 5 * WF_CLASS_TURNS)
		gate_open(&s.done);
}

/* Bodies 2 n and 2 n + 1 are of class n. */
static int in_class(void *arg)
{
	struct body *body = crowd_begin(arg);
	struct body *partner = s.partner[body_number(body)];

	for (bool begun = false; crowd_on(); begun = true) {
		if (begun && s.started == s.crowd)
			class_shares((unsigned)body_number(body) / 2);
		(void)weft_wake(partner->pid);
		(void)body_park(body, WEFT_FOREVER);
	}
	(void)weft_wake(partner->pid);
	return body_end(body);
}

/* A pair of each class: one of each is always ready. */
static void share_by_class(unsigned worker, unsigned flags)
{
	struct weft_spawn_opts opts = scene_opts(worker, flags | WEFT_SUSPENDED);

	s.crowd = 6;
	scene_create(1);
	for (unsigned i = 0; i < 6; i++) {
		s.partner[i] = &scene.bodies[i ^ 1];
		opts.priority = (enum weft_priority)(i / 2);
		body_spawn(&scene.bodies[i], in_class, &opts);
	}
	for (unsigned i = 0; i < 6; i += 2)
		(void)weft_wake(scene.bodies[i].pid);
	gate_await(&s.done);
	join_crowd(0, 6);
	scene_destroy();
}

static void share_sticky(unsigned unused)
{
	(void)unused;
	share_by_class(0, 0);
}

static void share_placed(unsigned unused)
{
	(void)unused;
	share_by_class(1, 0);
}

static void share_movable(unsigned unused)
{
	(void)unused;
	share_by_class(0, WEFT_MOVABLE);
}

SCENE(classes_sticky, "three classes", 1, share_sticky);
SCENE(classes_placed, "three classes, placed", 1, share_placed);
SCENE(classes_movable, "three classes, movable", 1, share_movable);

SIM_TEST(scheduling, lower_classes_have_their_turns)
{
	sim_must_pass(&classes_sticky, SCHEDULES / 4);
	sim_must_pass(&classes_placed, SCHEDULES / 4);
	sim_must_pass(&classes_movable, SCHEDULES / 4);
}

/* Sleeps, yields, wakes by a foreign thread and moves, each process of another class. */
static int does_a_bit_of_all(void *arg)
{
	struct body *body = body_begin(arg);

	(void)body_yield(body);
	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	body_leave(body);
	(void)weft_sleep_until(weft_after(WEFT_US(2)));
	body_enter(body);
	(void)body_yield(body);
	return body_end(body);
}

static void classes_live(unsigned unused)
{
	(void)unused;
	scene_create(2);
	for (unsigned i = 0; i < 6; i++) {
		struct weft_spawn_opts opts = scene_opts(0, i % 2 ? WEFT_MOVABLE : 0);

		opts.priority = (enum weft_priority)(i / 2);
		body_spawn(&scene.bodies[i], does_a_bit_of_all, &opts);
	}
	for (unsigned i = 0; i < 6; i++)
		(void)weft_wake(scene.bodies[i].pid);
	for (unsigned i = 0; i < 6; i++)
		body_join(&scene.bodies[i]);
	scene_settle();
	scene_destroy();
}

SCENE(classes_living, "all classes, 2 workers", 1, classes_live);

SIM_TEST(scheduling, a_class_loses_nobody)
{
	sim_must_pass(&classes_living, SCHEDULES);
}

/* --- S9, S10: spawns while workers go to sleep --- */

/* Tells that it runs, then waits for the stop: nothing ends, so no timer rescues a lost wake. */
static int tells_and_stays(void *arg)
{
	struct body *body = body_begin(arg);

	gate_open(&s.told[body_number(body)]);
	sim_check(body_park(body, WEFT_FOREVER) == -ECANCELED, "nobody wakes it");
	return body_end(body);
}

/* S9: by two foreign threads, each as soon as the one before runs: its worker may be parking. */
static void spawn_while_parking(unsigned number, unsigned workers)
{
	if (number == 0) {
		scene_create(workers);
		gate_open(&s.ready);
	}
	gate_await(&s.ready);
	for (unsigned i = 0; i < 3; i++) {
		body_spawn(&scene.bodies[3 * number + i], tells_and_stays, NULL);
		gate_await(&s.told[3 * number + i]);
	}
	if (number == 1)
		return;
	sim_thread_join(1);
	scene_settle();
	scene_destroy();
}

static void parking_one(unsigned number)
{
	spawn_while_parking(number, 1);
}

static void parking_two(unsigned number)
{
	spawn_while_parking(number, 2);
}

SCENE(parking_on_one, "spawns beside parking, 1 worker", 2, parking_one);
SCENE(parking_on_two, "spawns beside parking, 2 workers", 2, parking_two);

SIM_TEST(scheduling, a_spawn_beside_a_parking_worker_runs_at_once)
{
	sim_must_pass(&parking_on_one, SCHEDULES);
	sim_must_pass(&parking_on_two, SCHEDULES);
}

/* S10: wake-alls (weft_rt_start() makes one) when all are parked, or go to park. */
static void wake_everybody(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 0; i < 3; i++)
			(void)weft_rt_start(scene.rt);
		return;
	}
	scene_create(2);
	body_spawn(&scene.bodies[0], tells_and_stays, NULL);
	scene_settle();
	gate_open(&s.ready);
	for (unsigned i = 1; i < 3; i++) {
		body_spawn(&scene.bodies[i], tells_and_stays, NULL);
		gate_await(&s.told[i]);
	}
	sim_thread_join(1);
	scene_settle();
	body_spawn(&scene.bodies[3], tells_and_stays, NULL);
	gate_await(&s.told[3]);
	scene_settle();
	scene_destroy();
}

SCENE(meddling, "wake-alls of parked workers", 2, wake_everybody);

SIM_TEST(scheduling, wake_alls_leave_the_counters_intact)
{
	sim_must_pass(&meddling, SCHEDULES);
}

/* The monitor's wakes for a worker that has work, at any moment: at worst they are in vain. */
static int spawns_some(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 1; i < 4; i++)
		body_spawn(&scene.bodies[i], tells_and_stays, NULL);
	(void)body_yield(body);
	return body_end(body);
}

static void rescue(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 0; i < 6; i++)
			(void)wf_monitor_rescue(wf_rt_worker(scene.rt, i % 2));
		return;
	}
	scene_create(2);
	gate_open(&s.ready);
	body_spawn(&scene.bodies[0], spawns_some, NULL);
	for (unsigned i = 1; i < 4; i++)
		gate_await(&s.told[i]);
	sim_thread_join(1);
	body_join(&scene.bodies[0]);
	scene_settle();
	body_spawn(&scene.bodies[4], tells_and_stays, NULL);
	gate_await(&s.told[4]);
	scene_settle();
	scene_destroy();
}

SCENE(rescuing, "the monitor's wakes", 2, rescue);

SIM_TEST(scheduling, a_monitors_wakes_leave_the_counters_intact)
{
	sim_must_pass(&rescuing, SCHEDULES);
}

/* --- S11, S12: who stays and who moves --- */

/* Parks until three have poked it, and is on its worker and its thread whenever it runs. */
static int stays(void *arg)
{
	struct body *body = body_begin(arg);
	unsigned thread = sim_thread_self(), parks = 0;

	while (wf_u32_load_relaxed(&s.pokes) < 3) {
		sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
		sim_check(weft_worker_index() == 0 && sim_thread_self() == thread, "it has moved");
		parks++;
	}
	sim_check(parks <= 3, "%u runs for 3 wakes", parks);
	return body_end(body);
}

static int pokes(void *arg)
{
	struct body *body = body_begin(arg);

	(void)wf_u32_fetch_add(&s.pokes, 1);
	(void)weft_wake(scene.bodies[0].pid);
	return body_end(body);
}

/* S11: from two other workers and a foreign thread at once. */
static void poke_from_everywhere(unsigned number)
{
	struct weft_spawn_opts on[] = {scene_opts(1, 0), scene_opts(2, 0), scene_opts(3, 0)};

	if (number == 1) {
		gate_await(&s.ready);
		(void)wf_u32_fetch_add(&s.pokes, 1);
		(void)weft_wake(scene.bodies[0].pid);
		return;
	}
	scene_create(3);
	body_spawn(&scene.bodies[0], stays, &on[0]);
	gate_open(&s.ready);
	body_spawn(&scene.bodies[1], pokes, &on[1]);
	body_spawn(&scene.bodies[2], pokes, &on[2]);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	sim_thread_join(1);
	scene_destroy();
}

SCENE(poking, "wakes from 3 sides", 2, poke_from_everywhere);

SIM_TEST(scheduling, a_sticky_fiber_stays_where_it_is)
{
	sim_must_pass(&poking, SCHEDULES);
}

/* Parks on worker 0 and is woken there: sticky, it runs there again, movable, on the other one. */
static int parks_and_looks(void *arg)
{
	struct body *body = body_begin(arg);
	int number = body_number(body);

	if (number < 3)
		sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	sim_check(weft_worker_index() == (number != 1), "process %d on worker %d", number,
		weft_worker_index());
	gate_open(&s.told[number]);
	return body_end(body);
}

/* Makes some ready on worker 0, and blocks it until those that may move have run elsewhere. */
static int blocks_until_moved(void *arg)
{
	struct body *body = body_begin(arg);

	body_spawn(&scene.bodies[3], parks_and_looks, NULL);
	(void)weft_wake(scene.bodies[1].pid);
	(void)weft_wake(scene.bodies[2].pid);
	gate_open(&s.ready);
	gate_await(&s.told[2]);
	gate_await(&s.told[3]);
	sim_check(!gate_is_open(&s.told[1]), "a sticky process has run elsewhere");
	return body_end(body);
}

/*
 * S12. That the other worker is awake is nobody's promise while worker 0 is in the middle of a
 * turn; so something is injected, and that worker, once awake, looks at the ring of worker 0.
 */
static void move_under_imbalance(unsigned unused)
{
	struct weft_spawn_opts sticky = scene_opts(1, 0), movable = scene_opts(1, WEFT_MOVABLE);

	(void)unused;
	scene_create(2);
	body_spawn(&scene.bodies[1], parks_and_looks, &sticky);
	body_spawn(&scene.bodies[2], parks_and_looks, &movable);
	scene_settle();
	body_spawn(&scene.bodies[0], blocks_until_moved, &sticky);
	gate_await(&s.ready);
	body_spawn(&scene.bodies[4], body_leaf, NULL);
	for (unsigned i = 0; i < 5; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(moving, "a worker is blocked", 1, move_under_imbalance);

SIM_TEST(scheduling, what_may_move_leaves_a_blocked_worker)
{
	sim_must_pass(&moving, SCHEDULES);
}

/* --- S13: two runtimes --- */

/* Of both runtimes: waits for the other's wake, wakes it back, three times. */
static int across(void *arg)
{
	struct body *body = body_begin(arg);
	struct body *other = &scene.bodies[body_number(body) ^ 1];

	sim_check(weft_rt_current() == (body_number(body) ? s.away : s.home), "in the other one");
	gate_await(&s.ready);
	for (int i = 0; i < 3; i++) {
		if (body_number(body) == 0)
			sim_check(weft_wake(other->pid) == 0, "unknown");
		sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
		if (body_number(body) == 1)
			sim_check(weft_wake(other->pid) == 0, "unknown");
	}
	if (body_number(body) == 1) {
		body_leave(body);
		body_join(other);
		body_enter(body);
	}
	return body_end(body);
}

static void check_unknown(weft_pid pid)
{
	int result = -1;

	sim_check(weft_wake(pid) == -ESRCH && weft_cancel(pid) == -ESRCH
			&& weft_detach(pid) == -ESRCH && weft_try_join(pid, &result) == -ESRCH
			&& weft_join(pid, &result, WEFT_FOREVER) == -ESRCH,
		"an id of a runtime that is gone is known");
	sim_check(result == -1, "a result of nobody");
}

/* Wakes and a join across; then one is destroyed, and another one takes its place. */
static void visit_each_other(unsigned unused)
{
	(void)unused;
	scene_create(1);
	s.home = scene.rt;
	body_spawn(&scene.bodies[0], across, NULL);
	scene_create(1);
	s.away = scene.rt;
	body_spawn(&scene.bodies[1], across, NULL);
	sim_check(weft_rt_id(s.home) != weft_rt_id(s.away), "two runtimes, one number");
	gate_open(&s.ready);
	body_join(&scene.bodies[1]);
	scene_destroy();
	check_unknown(scene.bodies[1].pid);
	scene_create(1);
	body_spawn(&scene.bodies[2], body_leaf, NULL);
	check_unknown(scene.bodies[1].pid);
	body_join(&scene.bodies[2]);
	scene_destroy();
	scene.rt = s.home;
	scene_destroy();
}

SCENE(visiting, "two runtimes", 1, visit_each_other);

SIM_TEST(scheduling, two_runtimes_wake_and_join_each_other)
{
	sim_must_pass(&visiting, SCHEDULES);
}

/* --- S16: order --- */

static void note_order(const struct body *body)
{
	s.order[s.ordered++] = (unsigned)body_number(body);
}

static int in_order(void *arg)
{
	struct body *body = body_begin(arg);

	note_order(body);
	sim_check(body_park(body, WEFT_FOREVER) == 0, "weft_park");
	note_order(body);
	return body_end(body);
}

/* Processes 1 to 4 start in this order; woken by a process, the last one runs first. */
static int spawns_and_wakes(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 1; i <= 4; i++)
		body_spawn(&scene.bodies[i], in_order, NULL);
	while (s.ordered < 4)
		(void)body_yield(body);
	for (unsigned i = 1; i <= 4; i++)
		(void)weft_wake(scene.bodies[i].pid);
	return body_end(body);
}

static void check_order(const unsigned *expected, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		sim_check(s.order[i] == expected[i], "%u ran as number %u", s.order[i], i + 1);
}

static void order_of_a_process(unsigned unused)
{
	static const unsigned expected[] = {1, 2, 3, 4, 4, 1, 2, 3};

	(void)unused;
	scene_create(1);
	body_spawn(&scene.bodies[0], spawns_and_wakes, NULL);
	for (unsigned i = 0; i < 1; i++)
		body_join(&scene.bodies[i]);
	for (unsigned i = 1; i < 5; i++)
		body_join(&scene.bodies[i]);
	check_order(expected, 8);
	scene_destroy();
}

/* Started and woken by a foreign thread: in the order of its calls. */
static void order_of_a_thread(unsigned unused)
{
	struct weft_spawn_opts on_one = scene_opts(1, 0);

	(void)unused;
	scene_create(1);
	for (unsigned i = 0; i < 4; i++)
		body_spawn(&scene.bodies[i], in_order, &on_one);
	scene_settle();
	for (unsigned i = 0; i < 4; i++)
		(void)weft_wake(scene.bodies[i].pid);
	for (unsigned i = 0; i < 4; i++)
		body_join(&scene.bodies[i]);
	for (unsigned i = 0; i < 8; i++)
		sim_check(s.order[i] == i % 4, "%u ran as number %u", s.order[i], i + 1);
	scene_destroy();
}

SCENE(ordered_by_process, "order, by a process", 1, order_of_a_process);
SCENE(ordered_by_thread, "order, by a thread", 1, order_of_a_thread);

SIM_TEST(scheduling, starts_and_wakes_keep_their_order)
{
	sim_must_pass(&ordered_by_process, SCHEDULES);
	sim_must_pass(&ordered_by_thread, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(scheduling, planted_search_not_given_back)
{
	sim_must_find(&parking_on_two, WF_PLANTED_idle_park_keeps_search, 1000);
}

SIM_TEST(scheduling, planted_class_without_a_turn)
{
	sim_must_find(&classes_sticky, WF_PLANTED_queue_starves_normal, 100);
	sim_must_find(&classes_movable, WF_PLANTED_queue_starves_low, 100);
}

SIM_TEST(scheduling, planted_token_left_behind)
{
	sim_must_find(&parking_on_two, WF_PLANTED_park_leaves_token, 1000);
}
