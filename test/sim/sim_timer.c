/*
 * Rows T of the scenarios, of the shared wheel under the whole runtime: timers of the program's and
 * deadlines of movable processes, fired by whoever comes by, stopped and moved from everywhere.
 *
 * Time may leap to the next deadline at any moment, so how late something is says little where
 * there are several. But sleeps that nobody ends are for ever: a deadline that nobody looks after
 * leaves everybody asleep, and that is what fails. Where one deadline is all there is, late counts.
 */
#include "test/sim/scene.h"

#include <weft/timer.h>

#include "core/monitor.h"
#include "core/timers.h"
#include "timer/wheel.h"

enum { SCHEDULES = 3000, SHOTS = 40, LIVES = 4 };

/* T6 */
#define IN_TIME WEFT_MS(2)

/* One start of a timer, and what became of it. Not in the timer's memory. */
struct shot {
	weft_time deadline;
	unsigned fired, stopped;
	unsigned worker; /* + 1: that has fired it */
	bool done;       /* its action's last act */
};

static struct {
	struct gate ready, held, fired;
	struct weft_timer timers[SHOTS];
	struct shot shots[SHOTS];
	wf_atomic_u32 fired_count, waiting;
	unsigned waits;
	bool in_time, over;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

static void sleep_on(wf_atomic_u32 *word, uint32_t value, weft_time deadline)
{
	weft_time now = weft_now();
	uint64_t timeout_ns = deadline > now ? (uint64_t)(deadline - now) : 0;

	(void)wf_futex_sleep(word, value, deadline == WEFT_FOREVER ? WF_FUTEX_FOREVER : timeout_ns);
}

static void dawdle(unsigned most)
{
	for (unsigned wait = sim_random(most); wait > 0; wait--)
		sim_point("wait");
}

static void fire(void *arg)
{
	struct shot *shot = arg;
	weft_time now = weft_now();

	sim_check(++shot->fired == 1, "it fires twice");
	sim_check(shot->stopped == 0, "it was stopped, and fires");
	sim_check(now >= shot->deadline, "%lld ns early", (long long)(shot->deadline - now));
	sim_check(!s.in_time || now - shot->deadline <= IN_TIME, "%lld ns late",
		(long long)(now - shot->deadline));
	shot->worker = wf_worker_self()->number + 1;
	sim_point("action");
	shot->done = true;
	(void)wf_u32_fetch_add(&s.fired_count, 1);
	wf_futex_wake(&s.fired_count, SIM_THREADS_MAX);
}

static void start(unsigned timer, weft_rt *rt, unsigned number, weft_time delay)
{
	struct shot *shot = &s.shots[number];
	int r;

	shot->deadline = weft_after(delay);
	r = weft_timer_start(&s.timers[timer], rt, shot->deadline, fire, shot);
	sim_check(r == 0, "weft_timer_start: %d", r);
}

static void stop(unsigned timer, unsigned number)
{
	int r = weft_timer_stop(&s.timers[timer]);

	sim_check(r == 0 || r == 1, "weft_timer_stop: %d", r);
	if (r == 1)
		sim_check(++s.shots[number].stopped == 1 && s.shots[number].fired == 0,
			"stopped, and it has fired");
	/* The memory is ours, whatever that returned. */
	memset(&s.timers[timer], 0xa5, sizeof(s.timers[timer]));
	sim_point("use the memory");
	memset(&s.timers[timer], 0, sizeof(s.timers[timer]));
}

static void await_fired(uint32_t count)
{
	uint32_t fired;

	while ((fired = wf_u32_load_acquire(&s.fired_count)) < count)
		(void)wf_futex_sleep(&s.fired_count, fired, WF_FUTEX_FOREVER);
}

static void each_fired_or_stopped(unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++)
		sim_check(s.shots[i].fired + s.shots[i].stopped == 1,
			"shot %u: fired %u times, stopped %u times", i, s.shots[i].fired,
			s.shots[i].stopped);
}

/* --- T5: stopped beside firing, from threads and from processes of other workers --- */

/* Its own timer, lives of it one after the other. */
static void live(unsigned timer, unsigned first, weft_rt *rt)
{
	for (unsigned life = first; life < first + LIVES; life++) {
		weft_time delay = (weft_time)sim_random(20000);

		start(timer, rt, life, delay);
		dawdle(80);
		if (sim_random(3) == 0) {
			weft_time later = s.shots[life].deadline + 5000;

			if (weft_timer_move(&s.timers[timer], later) == 1)
				s.shots[life].deadline = later;
			dawdle(40);
		}
		stop(timer, life);
	}
}

static int lives(void *arg)
{
	struct body *body = body_begin(arg);
	unsigned number = (unsigned)body_number(body);

	live(number, number * LIVES, NULL);
	return body_end(body);
}

static void stop_beside_firing(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		live(2, 2 * LIVES, scene.rt);
		return;
	}
	scene_create(2);
	gate_open(&s.ready);
	body_spawn(&scene.bodies[0], lives, NULL);
	body_spawn(&scene.bodies[1], lives, &scene_movable);
	sim_thread_join(1);
	body_join(&scene.bodies[0]);
	body_join(&scene.bodies[1]);
	scene_settle(); /* actions may have been under way */
	each_fired_or_stopped(0, 3 * LIVES);
	scene_destroy();
}

SCENE(stopping, "timers stopped beside firing", 2, stop_beside_firing);

SIM_TEST(timer, a_timer_is_stopped_or_fires)
{
	sim_must_pass(&stopping, SCHEDULES);
}

/* --- T6: a worker that is held --- */

static int holds_its_worker(void *arg)
{
	struct body *body = body_begin(arg);

	start(0, NULL, 0, 20000);
	gate_open(&s.held);
	await_fired(1);
	sim_check(s.shots[0].worker > 1, "fired by the worker that is held");
	return body_end(body);
}

static void hold(unsigned workers, void (*beside)(void))
{
	struct weft_spawn_opts first = scene_opts(1, 0);

	s.in_time = true;
	scene_create(workers);
	dawdle(200);
	body_spawn(&scene.bodies[0], holds_its_worker, &first);
	beside();
	body_join(&scene.bodies[0]);
	scene_destroy();
}

static void nothing_beside(void)
{
}

static void hold_one_of_two(unsigned unused)
{
	(void)unused;
	hold(2, nothing_beside);
}

static void hold_one_of_three(unsigned unused)
{
	(void)unused;
	hold(3, nothing_beside);
}

/* The other one leads, and is woken for something else: before the insert, beside it, after it. */
static void some_work_beside(void)
{
	struct weft_spawn_opts second = scene_opts(2, 0);

	dawdle(300);
	body_spawn(&scene.bodies[1], body_leaf, &second);
	body_join(&scene.bodies[1]);
}

static void hold_beside_work(unsigned unused)
{
	(void)unused;
	hold(2, some_work_beside);
}

SCENE(holding, "a held worker's timer, 2 workers", 1, hold_one_of_two);
SCENE(holding_of_three, "a held worker's timer, 3 workers", 1, hold_one_of_three);
SCENE(holding_beside_work, "a held worker's timer, and work", 1, hold_beside_work);

SIM_TEST(timer, the_timer_of_a_held_worker_is_fired_in_time)
{
	sim_must_pass(&holding, SCHEDULES);
	sim_must_pass(&holding_of_three, SCHEDULES / 3);
	sim_must_pass(&holding_beside_work, SCHEDULES);
}

/* --- a leader that comes to hold its worker before the deadline that it slept for --- */

static int waits_for_shot(void *arg)
{
	struct body *body = body_begin(arg);

	await_fired(1);
	return body_end(body);
}

static void hold_leader(void)
{
	struct weft_spawn_opts where = scene_opts(1 + sim_random(2), 0);

	start(0, scene.rt, 0, 20000 + (weft_time)sim_random(40000));
	dawdle(400);
	body_spawn(&scene.bodies[0], waits_for_shot, &where);
	body_join(&scene.bodies[0]);
}

static void hold_leader_alone(unsigned unused)
{
	(void)unused;
	scene_create(2);
	hold_leader();
	scene_destroy();
}

/* What the monitor does, but that it never looks by itself: only when it is to hurry. */
static void look_after(void)
{
	struct wf_monitor *monitor = scene.rt->monitor;

	while (!s.over) {
		uint32_t hurry = WF_MONITOR_HURRY;
		weft_time until;

		(void)wf_u64_exchange(&monitor->wake_at, (uint64_t)WEFT_FOREVER);
		until = wf_timers_rescue(scene.rt, weft_now());
		sleep_on(&monitor->state, WF_MONITOR_AWAKE, until);
		(void)wf_u32_cas(&monitor->state, &hurry, WF_MONITOR_AWAKE);
	}
}

static void hold_leader_monitored(unsigned number)
{
	if (number == 1) {
		gate_await(&s.ready);
		look_after();
		return;
	}
	scene_create(2);
	scene.rt->stall_ns = WEFT_SEC(1);
	sim_check(wf_monitor_make(scene.rt) == 0, "wf_monitor_make");
	gate_open(&s.ready);
	hold_leader();
	s.over = true;
	wf_u64_store_seq_cst(&scene.rt->monitor->wake_at, (uint64_t)WEFT_FOREVER);
	wf_monitor_hurry(scene.rt->monitor, 0);
	sim_thread_join(1);
	scene_destroy();
}

SCENE(leader_held, "a leader that holds its worker", 1, hold_leader_alone);
SCENE(leader_held_monitored, "a leader that holds its worker, a monitor", 2,
	hold_leader_monitored);

SIM_TEST(timer, a_leader_that_holds_its_worker_is_replaced)
{
	sim_must_pass(&leader_held, SCHEDULES);
	sim_must_pass(&leader_held_monitored, 2 * SCHEDULES);
}

/* Looks of the monitor at any moment are in vain at worst. */
static void rescue(unsigned number)
{
	if (number == 1) {
		gate_await(&s.held);
		for (unsigned i = 0; i < 6; i++) {
			(void)wf_timers_rescue(scene.rt, weft_now());
			dawdle(50);
		}
		return;
	}
	scene_create(2);
	body_spawn(&scene.bodies[0], holds_its_worker, &(struct weft_spawn_opts){
		.size = sizeof(struct weft_spawn_opts), .worker = 1});
	sim_thread_join(1);
	body_join(&scene.bodies[0]);
	scene_settle();
	scene_destroy();
}

SCENE(rescuing, "looks of the monitor", 2, rescue);

SIM_TEST(timer, looks_of_the_monitor_do_no_harm)
{
	sim_must_pass(&rescuing, SCHEDULES);
}

/* --- T7: many at one instant --- */

static void fire_many(unsigned workers)
{
	weft_time deadline;
	unsigned wakes;
	bool parked;
	wf_atomic_u32 nobody = {0};

	scene_create(workers);
	/* One whose thread does nothing: it is too early for its looks. */
	scene.rt->stall_ns = WEFT_SEC(1);
	sim_check(wf_monitor_make(scene.rt) == 0, "wf_monitor_make");
	scene_settle();
	deadline = weft_after(WEFT_SEC(1));
	for (unsigned i = 0; i < SHOTS; i++) {
		s.shots[i].deadline = deadline;
		sim_check(weft_timer_start(&s.timers[i], scene.rt, deadline, fire, &s.shots[i]) ==
				  0,
			"weft_timer_start");
	}
	sleep_on(&nobody, 0, deadline - WEFT_MS(1));
	/* Else time has leapt before those woken by the inserts had parked again. */
	parked = wf_idle_all_parked(&scene.rt->idle);
	wakes = sim_runtime_wakes();
	await_fired(SHOTS);
	scene_settle();
	sim_check(!parked || sim_runtime_wakes() == wakes,
		"%u workers were woken beside the leader", sim_runtime_wakes() - wakes);
	each_fired_or_stopped(0, SHOTS);
	scene_destroy();
}

static void fire_many_of_two(unsigned unused)
{
	(void)unused;
	fire_many(2);
}

static void fire_many_of_three(unsigned unused)
{
	(void)unused;
	fire_many(3);
}

SCENE(many_of_two, "40 timers, 2 workers", 1, fire_many_of_two);
SCENE(many_of_three, "40 timers, 3 workers", 1, fire_many_of_three);

SIM_TEST(timer, one_worker_wakes_up_for_many)
{
	sim_must_pass(&many_of_two, SCHEDULES);
	sim_must_pass(&many_of_three, SCHEDULES / 3);
}

/* --- T9: an earlier deadline while the leader sleeps --- */

static int starts_one(void *arg)
{
	struct body *body = body_begin(arg);

	start(1, NULL, 1, 30000);
	return body_end(body);
}

static int sleeps_little(void *arg)
{
	struct body *body = body_begin(arg);
	weft_time deadline = weft_after(30000);

	body_leave(body);
	sim_check(weft_sleep_until(deadline) == 0, "weft_sleep_until");
	body_enter(body);
	sim_check(weft_now() >= deadline, "a sleep was early");
	return body_end(body);
}

static void shorten(unsigned workers)
{
	struct weft_spawn_opts last = scene_opts(workers, 0);

	scene_create(workers);
	start(0, scene.rt, 0, WEFT_FOREVER);
	dawdle(300);
	body_spawn(&scene.bodies[0], starts_one, &last);
	body_spawn(&scene.bodies[1], sleeps_little, &scene_movable);
	start(2, scene.rt, 2, 30000);
	await_fired(2);
	body_join(&scene.bodies[0]);
	body_join(&scene.bodies[1]);
	dawdle(300);
	start(3, scene.rt, 3, 1000);
	await_fired(3);
	stop(0, 0);
	each_fired_or_stopped(0, 4);
	scene_destroy();
}

static void shorten_of_one(unsigned unused)
{
	(void)unused;
	shorten(1);
}

static void shorten_of_two(unsigned unused)
{
	(void)unused;
	shorten(2);
}

static void shorten_of_three(unsigned unused)
{
	(void)unused;
	shorten(3);
}

SCENE(shortening_one, "a leader's sleep is shortened, 1 worker", 1, shorten_of_one);
SCENE(shortening_two, "a leader's sleep is shortened, 2 workers", 1, shorten_of_two);
SCENE(shortening_three, "a leader's sleep is shortened, 3 workers", 1, shorten_of_three);

SIM_TEST(timer, an_earlier_deadline_shortens_the_leaders_sleep)
{
	sim_must_pass(&shortening_one, SCHEDULES);
	sim_must_pass(&shortening_two, SCHEDULES);
	sim_must_pass(&shortening_three, SCHEDULES / 3);
}

/* --- movable processes, woken from everywhere beside their deadlines --- */

/* Each park ends once: by a wake, or at its time. */
static void parked(int r, weft_time deadline)
{
	sim_check(r == 0 || r == -ETIME, "weft_park: %d", r);
	sim_check(r == 0 || weft_now() >= deadline, "a deadline came early");
	sim_check(r == -ETIME || s.waits > 0, "a wake that nobody has made");
	s.waits -= r == 0;
}

static void wake_of(const struct body *body)
{
	s.waits++;
	if (weft_wake(body->pid) != 0)
		s.waits--;
}

static int parks(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 0; i < 6; i++) {
		weft_time deadline = weft_after((weft_time)sim_random(15000));

		parked(body_park(body, deadline), deadline);
	}
	return body_end(body);
}

static struct task {
	unsigned rounds;
	weft_time deadline;
} task;

static int task_parks(void *arg)
{
	int r;

	(void)arg;
	for (;;) {
		if (task.deadline == 0)
			task.deadline = weft_after((weft_time)sim_random(15000));
		r = weft_park(task.deadline);
		if (r == WEFT_PENDING)
			return WEFT_PENDING;
		parked(r, task.deadline);
		task.deadline = 0;
		if (++task.rounds == 6)
			return 7;
	}
}

static int wakes_it(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 0; i < 3; i++) {
		wake_of(&scene.bodies[0]);
		(void)body_yield(body);
	}
	return body_end(body);
}

static void wake_beside_deadlines(unsigned workers, bool is_task)
{
	int result = 0;

	memset(&task, 0, sizeof(task));
	scene_create(workers);
	if (is_task)
		sim_check(weft_rt_task_spawn(scene.rt, task_parks, NULL, &scene_movable,
				  &scene.bodies[0].pid) == 0,
			"weft_rt_task_spawn");
	else
		body_spawn(&scene.bodies[0], parks, &scene_movable);
	body_spawn(&scene.bodies[1], wakes_it, &scene_movable);
	for (unsigned i = 0; i < 3; i++) {
		dawdle(80);
		wake_of(&scene.bodies[0]);
		s.waits++;
		sim_check(weft_timer_start_wake(&s.timers[i], scene.rt,
				  weft_after((weft_time)sim_random(9000)),
				  scene.bodies[0].pid) == 0,
			"weft_timer_start_wake");
	}
	body_join(&scene.bodies[1]);
	if (is_task)
		sim_check(weft_join(scene.bodies[0].pid, &result, WEFT_FOREVER) == 0 && result == 7,
			"weft_join");
	else
		body_join(&scene.bodies[0]);
	scene_settle();
	scene_destroy();
}

static void wake_fiber(unsigned unused)
{
	(void)unused;
	wake_beside_deadlines(2, false);
}

static void wake_task(unsigned unused)
{
	(void)unused;
	wake_beside_deadlines(2, true);
}

static void wake_fiber_of_three(unsigned unused)
{
	(void)unused;
	wake_beside_deadlines(3, false);
}

SCENE(waking_fiber, "a movable fiber's deadlines and wakes", 1, wake_fiber);
SCENE(waking_task, "a movable task's deadlines and wakes", 1, wake_task);
SCENE(waking_three, "a movable fiber's deadlines and wakes, 3 workers", 1, wake_fiber_of_three);

SIM_TEST(timer, each_wait_ends_by_a_wake_or_at_its_time)
{
	sim_must_pass(&waking_fiber, SCHEDULES);
	sim_must_pass(&waking_task, SCHEDULES);
	sim_must_pass(&waking_three, SCHEDULES / 3);
}

SIM_TEST(timer, planted_anchor_ignored)
{
	sim_must_find(&waking_fiber, WF_PLANTED_wake_ignores_anchor, 1000);
}

/* --- H1, H2: who waits for an action --- */

static void cancel_and_check(unsigned timer, unsigned number)
{
	struct shot *shot = &s.shots[number];
	int r = weft_timer_cancel_wait(&s.timers[timer], WEFT_FOREVER);

	if (r == 1)
		shot->stopped++;
	sim_check(r == 1 || r == 0, "weft_timer_cancel_wait: %d", r);
	sim_check(shot->fired + shot->stopped == 1, "neither fired nor stopped");
	sim_check(r == 1 || shot->done, "its action is not done");
	memset(&s.timers[timer], 0xa5, sizeof(s.timers[timer]));
}

static int cancels(void *arg)
{
	struct body *body = body_begin(arg);
	unsigned number = (unsigned)body_number(body);

	start(number, NULL, number, (weft_time)sim_random(4000));
	body_leave(body);
	(void)weft_sleep_until(s.shots[number].deadline - 1500);
	dawdle(40);
	cancel_and_check(number, number);
	body_enter(body);
	return body_end(body);
}

static void cancel_beside_firing(unsigned unused)
{
	struct weft_spawn_opts first = scene_opts(1, 0), second = scene_opts(2, 0);

	(void)unused;
	scene_create(2);
	body_spawn(&scene.bodies[0], cancels, &first);
	body_spawn(&scene.bodies[1], cancels, &second);
	body_spawn(&scene.bodies[2], cancels, &scene_movable);
	start(3, scene.rt, 3, 5000);
	dawdle(200);
	cancel_and_check(3, 3);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	scene_destroy();
}

SCENE(cancelling, "cancels that wait for actions", 1, cancel_beside_firing);

SIM_TEST(timer, who_waits_for_an_action_is_told)
{
	sim_must_pass(&cancelling, 3 * SCHEDULES);
}

/* --- the runtime's end --- */

/* Its memory is gone as soon as a stop has returned. */
static void end_beside(unsigned number)
{
	static struct weft_timer *timers[4];

	if (number == 1) {
		gate_await(&s.ready);
		dawdle(700);
		for (unsigned i = 0; i < 4; i++) {
			int r = 0;

			if (sim_random(2))
				(void)weft_timer_move(timers[i], 50000);
			if (sim_random(2))
				r = weft_timer_stop(timers[i]);
			else
				r = weft_timer_cancel_wait(timers[i], WEFT_FOREVER);
			sim_check(r == 0 || r == 1, "weft_timer_stop: %d", r);
			sim_check(!weft_timer_is_pending(timers[i]), "stopped, and it is pending");
			sim_free(timers[i], sizeof(*timers[i]));
			dawdle(60);
		}
		return;
	}
	scene_create(1 + sim_random(2));
	for (unsigned i = 0; i < 4; i++) {
		timers[i] = sim_alloc(16, sizeof(*timers[i]), 0);
		s.shots[i].deadline = i % 2 ? WEFT_FOREVER : weft_after(5000);
		sim_check(weft_timer_start(timers[i], scene.rt, s.shots[i].deadline, fire,
				  &s.shots[i]) == 0,
			"weft_timer_start");
		s.shots[i].deadline = 0;
	}
	gate_open(&s.ready);
	dawdle(100);
	scene_destroy();
	sim_thread_join(1);
}

SCENE(ending, "a runtime ends beside its timers", 2, end_beside);

SIM_TEST(timer, a_stop_beside_the_runtimes_end_gives_the_memory_back)
{
	sim_must_pass(&ending, 3 * SCHEDULES);
}

/* --- an embedded runtime --- */

static void host_sleeps(unsigned number)
{
	struct weft_rt_opts opts = *sim_runtime_opts(1);
	int r;

	if (number == 1) {
		gate_await(&s.ready);
		for (unsigned i = 1; i < 4; i++) {
			dawdle(200);
			start(i, scene.rt, i, (weft_time)sim_random(30000));
		}
		return;
	}
	opts.flags = WEFT_RT_EMBEDDED;
	sim_check(weft_rt_create(&opts, &scene.rt) == 0, "weft_rt_create");
	start(0, scene.rt, 0, WEFT_FOREVER);
	gate_open(&s.ready);
	do {
		sim_runtime_await_descriptor(scene.rt);
		r = weft_rt_poll(scene.rt, WEFT_POLL);
		sim_check(r >= 0, "weft_rt_poll: %d", r);
	} while (wf_u32_load_relaxed(&s.fired_count) < 3);
	sim_thread_join(1);
	stop(0, 0);
	each_fired_or_stopped(0, 4);
	scene_destroy();
}

SCENE(hosted, "a host's loop, inserts of a thread", 2, host_sleeps);

SIM_TEST(timer, a_host_is_told_of_an_earlier_deadline)
{
	sim_must_pass(&hosted, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(timer, planted_park_without_leader)
{
	sim_must_find(&holding, WF_PLANTED_park_without_leader, 10000);
}

SIM_TEST(timer, planted_resign_tells_nobody)
{
	sim_must_find(&leader_held, WF_PLANTED_resign_tells_nobody, 1000);
	sim_must_find(&leader_held_monitored, WF_PLANTED_resign_tells_nobody, 1000);
}

SIM_TEST(timer, planted_resign_by_store)
{
	sim_must_find(&leader_held_monitored, WF_PLANTED_shared_resigns_by_store, 30000);
}

SIM_TEST(timer, planted_told_early)
{
	sim_must_find(&cancelling, WF_PLANTED_timer_tells_early, 10000);
}

SIM_TEST(timer, planted_closed_late)
{
	sim_must_find(&ending, WF_PLANTED_timers_closed_late, 30000);
}

SIM_TEST(timer, planted_leader_looks_once)
{
	sim_must_find(&shortening_two, WF_PLANTED_leader_looks_once, 3000);
}

SIM_TEST(timer, planted_insert_wakes_nobody)
{
	sim_must_find(&shortening_two, WF_PLANTED_insert_wakes_nobody, 100);
	sim_must_find(&hosted, WF_PLANTED_insert_wakes_nobody, 100);
	sim_must_find(&holding, WF_PLANTED_insert_wakes_nobody, 100);
}
