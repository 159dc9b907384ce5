/*
 * The whole runtime: the real scheduler, table, park and wake, join, cancel, stop, on virtual
 * threads. Each schedule makes a runtime, does something with it, and destroys it.
 *
 * What is checked in every schedule: nobody sleeps for ever (a lost wake), a process runs on one
 * worker at a time, a park ends only by a wake, a sleep not before its time, each process ends once
 * with its own result, all counts come out even (or the runtime would not end), all memory is given
 * back, and none is touched afterwards.
 */
#include "test/sim/runtime.h"

#include <errno.h>
#include <string.h>

#include "core/runtime.h"
#include "sync/futex.h"

enum { STEPS_MAX = 200000, BODIES_MAX = 8 };

/* One process of a scenario. */
struct body {
	weft_pid pid;
	wf_atomic_u32 flag; /* what it waits for */
	unsigned inside;    /* how many run it now */
	unsigned runs;      /* begun */
	unsigned ended;
};

static struct {
	weft_rt *rt;
	struct body bodies[BODIES_MAX];
	unsigned refused;
	unsigned pokers;
	wf_atomic_u32 ready, created;
} s;

static void setup(void)
{
	sim_runtime_reset();
	memset(&s, 0, sizeof(s));
}

static void create(unsigned workers)
{
	int r = weft_rt_create(sim_runtime_opts(workers), &s.rt);

	sim_check(r == 0, "weft_rt_create: %d", r);
	wf_u32_store_release(&s.created, 1);
	wf_futex_wake(&s.created, SIM_THREADS_MAX);
}

/* Other foreign threads: until the coordinator has made the runtime. */
static void await_created(void)
{
	while (wf_u32_load_acquire(&s.created) == 0)
		(void)wf_futex_sleep(&s.created, 0, WF_FUTEX_FOREVER);
}

/* Each steal makes the thief run something: or processes wander, and none runs. */
static void check_steals(void)
{
	uint64_t steals = 0, picks = 0;

	for (unsigned i = 0; i < s.rt->worker_count; i++) {
		steals += wf_u64_load_relaxed(&s.rt->workers[i].counters.steals);
		picks += wf_u64_load_relaxed(&s.rt->workers[i].counters.picks);
	}
	sim_check(steals <= picks, "%llu steals, and only %llu runs", (unsigned long long)steals,
		(unsigned long long)picks);
}

static void destroy(void)
{
	int r = weft_rt_stop(s.rt, 0, WEFT_FOREVER);

	sim_check(r == 0, "weft_rt_stop: %d", r);
	check_steals();
	r = weft_rt_destroy(s.rt, WEFT_FOREVER);
	sim_check(r == 0, "weft_rt_destroy: %d", r);
}

/* A process is on one worker at a time: around what runs between two calls that may park. */
static void enter(struct body *body)
{
	sim_check(body->inside == 0, "two workers run one process");
	body->inside++;
}

static void leave(struct body *body)
{
	sim_check(body->inside == 1, "a process was left twice");
	body->inside--;
}

static void begin(struct body *body)
{
	enter(body);
	sim_check(++body->runs == 1, "a process runs twice");
}

static int end(struct body *body, int result)
{
	sim_check(++body->ended == 1, "a process ends twice");
	leave(body);
	return result;
}

static int number_of(const struct body *body)
{
	return (int)(body - s.bodies);
}

static void join(struct body *body)
{
	int result = -1;
	int r = weft_join(body->pid, &result, WEFT_FOREVER);

	sim_check(r == 0, "weft_join: %d", r);
	sim_check(result == number_of(body), "a result of another process");
	sim_check(body->ended == 1, "joined before it has ended");
}

static void spawn_foreign(struct body *body, weft_fn fn, const struct weft_spawn_opts *opts)
{
	int r = weft_rt_spawn(s.rt, fn, body, opts, &body->pid);

	sim_check(r == 0, "weft_rt_spawn: %d", r);
}

static struct weft_spawn_opts on_worker(unsigned worker, unsigned flags)
{
	return (struct weft_spawn_opts){
		.size = sizeof(struct weft_spawn_opts), .worker = worker, .flags = flags};
}

static const struct weft_spawn_opts movable = {
	.size = sizeof(struct weft_spawn_opts), .flags = WEFT_MOVABLE};

/* --- spawn and join --- */

static int leaf(void *arg)
{
	struct body *body = arg;

	begin(body);
	return end(body, number_of(body));
}

static int leaf_unnamed(void *unused)
{
	(void)unused;
	return 0;
}

static int parent(void *arg)
{
	struct body *body = arg;

	begin(body);
	for (int i = 1; i < 4; i++) {
		int r = weft_spawn(leaf, &s.bodies[i], &s.bodies[i].pid);

		sim_check(r == 0, "weft_spawn: %d", r);
	}
	for (int i = 1; i < 4; i++) {
		leave(body);
		join(&s.bodies[i]);
		enter(body);
	}
	return end(body, number_of(body));
}

static void spawn_and_join(unsigned unused)
{
	(void)unused;
	create(2);
	spawn_foreign(&s.bodies[0], parent, NULL);
	join(&s.bodies[0]);
	destroy();
}

static const struct sim_scenario spawning = {
	"spawn, join", 1, setup, spawn_and_join, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, children_are_joined)
{
	sim_must_pass(&spawning, 4000);
}

static void spawn_and_join_movable(unsigned unused)
{
	(void)unused;
	create(2);
	spawn_foreign(&s.bodies[0], parent, &movable);
	join(&s.bodies[0]);
	destroy();
}

static const struct sim_scenario spawning_movable = {"spawn, join, movable", 1, setup,
	spawn_and_join_movable, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_movable_parent_joins_its_children)
{
	sim_must_pass(&spawning_movable, 4000);
}

/* --- park and wake --- */

/* Parks until so many have poked it. Every weft_park() that returns was woken. */
static int sleeper(void *arg)
{
	struct body *body = arg;

	begin(body);
	while (wf_u32_load_relaxed(&body->flag) < s.pokers) {
		int r;

		leave(body);
		r = weft_park(WEFT_FOREVER);
		enter(body);
		sim_check(r == 0, "weft_park: %d", r);
	}
	return end(body, number_of(body));
}

/* What a poker writes is seen by the run that its wake causes. */
static void poke(void)
{
	(void)wf_u32_fetch_add(&s.bodies[0].flag, 1);
	(void)weft_wake(s.bodies[0].pid);
}

static int poker(void *arg)
{
	struct body *body = arg;

	begin(body);
	poke();
	return end(body, number_of(body));
}

/* From its own worker, another one and a foreign thread at once: S11. */
static void wake_sticky(unsigned number)
{
	struct weft_spawn_opts first = on_worker(1, 0), second = on_worker(2, 0);

	if (number == 1) {
		while (wf_u32_load_acquire(&s.ready) == 0)
			(void)wf_futex_sleep(&s.ready, 0, WF_FUTEX_FOREVER);
		poke();
		return;
	}
	s.pokers = 3;
	create(2);
	spawn_foreign(&s.bodies[0], sleeper, &first);
	wf_u32_store_release(&s.ready, 1);
	wf_futex_wake(&s.ready, 1);
	spawn_foreign(&s.bodies[1], poker, &second);
	spawn_foreign(&s.bodies[2], poker, &first);
	for (int i = 0; i < 3; i++)
		join(&s.bodies[i]);
	destroy();
}

static const struct sim_scenario waking = {
	"wakes of a sticky fiber", 2, setup, wake_sticky, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_sticky_fiber_misses_no_wake)
{
	sim_must_pass(&waking, 4000);
}

static void wake_movable(unsigned number)
{
	if (number == 1) {
		while (wf_u32_load_acquire(&s.ready) == 0)
			(void)wf_futex_sleep(&s.ready, 0, WF_FUTEX_FOREVER);
		poke();
		return;
	}
	s.pokers = 2;
	create(2);
	spawn_foreign(&s.bodies[0], sleeper, &movable);
	wf_u32_store_release(&s.ready, 1);
	wf_futex_wake(&s.ready, 1);
	spawn_foreign(&s.bodies[1], poker, &movable);
	join(&s.bodies[0]);
	join(&s.bodies[1]);
	destroy();
}

static const struct sim_scenario waking_movable = {
	"wakes of a movable fiber", 2, setup, wake_movable, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_movable_fiber_misses_no_wake)
{
	sim_must_pass(&waking_movable, 4000);
}

/* Wakes three at once, so that one after the other is put out of the next slot. */
static int waker_of_all(void *arg)
{
	struct body *body = arg;

	begin(body);
	for (unsigned i = 1; i < 4; i++)
		(void)weft_wake(s.bodies[i].pid);
	leave(body);
	(void)weft_yield();
	enter(body);
	for (unsigned i = 1; i < 4; i++)
		(void)weft_wake(s.bodies[i].pid);
	return end(body, number_of(body));
}

/* Parks until it is woken once. */
static int woken_once(void *arg)
{
	struct body *body = arg;

	begin(body);
	leave(body);
	sim_check(weft_park(WEFT_FOREVER) == 0, "weft_park");
	enter(body);
	return end(body, number_of(body));
}

static void crowd(unsigned unused)
{
	struct weft_spawn_opts first = on_worker(1, 0);

	(void)unused;
	create(2);
	for (unsigned i = 1; i < 4; i++)
		spawn_foreign(&s.bodies[i], woken_once, &first);
	spawn_foreign(&s.bodies[0], waker_of_all, &first);
	for (unsigned i = 0; i < 4; i++)
		join(&s.bodies[i]);
	destroy();
}

static const struct sim_scenario crowding = {
	"wakes of many", 1, setup, crowd, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, all_that_are_woken_run)
{
	sim_must_pass(&crowding, 4000);
}

/* --- time --- */

/* A wake or the deadline, whatever comes first; then a sleep, which nothing may shorten. */
static int napper(void *arg)
{
	struct body *body = arg;
	weft_time deadline = weft_after(WEFT_US(20));
	int r;

	begin(body);
	leave(body);
	r = weft_park(deadline);
	enter(body);
	sim_check(r == 0 || r == -ETIME, "weft_park: %d", r);
	sim_check(r == 0 || weft_now() >= deadline, "a deadline came early");
	deadline = weft_after(WEFT_US(10));
	leave(body);
	r = weft_sleep_until(deadline);
	enter(body);
	sim_check(r == 0, "weft_sleep_until: %d", r);
	sim_check(weft_now() >= deadline, "a sleep ended early");
	return end(body, number_of(body));
}

static void nap(bool is_movable)
{
	struct weft_spawn_opts first = on_worker(1, 0), second = on_worker(2, 0);

	create(2);
	spawn_foreign(&s.bodies[0], napper, is_movable ? &movable : &first);
	spawn_foreign(&s.bodies[1], poker, is_movable ? &movable : &second);
	(void)weft_wake(s.bodies[0].pid);
	join(&s.bodies[0]);
	join(&s.bodies[1]);
	destroy();
}

static void nap_sticky(unsigned unused)
{
	(void)unused;
	nap(false);
}

static void nap_movable(unsigned unused)
{
	(void)unused;
	nap(true);
}

static const struct sim_scenario napping = {
	"deadline or wake", 1, setup, nap_sticky, NULL, sim_runtime_check, STEPS_MAX};
static const struct sim_scenario napping_movable = {
	"deadline or wake, movable", 1, setup, nap_movable, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_sleep_is_never_short)
{
	sim_must_pass(&napping, 4000);
	sim_must_pass(&napping_movable, 4000);
}

/* Over many levels of the wheel, beside others that spawn, so that headers retire meanwhile. */
static int long_sleeper(void *arg)
{
	static const weft_time lengths[] = {
		WEFT_US(3), WEFT_US(150), WEFT_MS(9), WEFT_MS(600), WEFT_SEC(40), WEFT_SEC(3000)};
	struct body *body = arg;

	begin(body);
	for (unsigned i = 0; i < WF_ARRAY_COUNT(lengths); i++) {
		weft_time deadline = weft_after(lengths[i] + sim_random(3000));

		leave(body);
		sim_check(weft_sleep_until(deadline) == 0, "the sleep was ended");
		enter(body);
		sim_check(weft_now() >= deadline, "a sleep ended early");
		if (i % 2 == 0) {
			sim_check(weft_spawn(leaf_unnamed, NULL, NULL) == 0, "weft_spawn");
			leave(body);
			(void)weft_yield();
			enter(body);
		}
	}
	return end(body, number_of(body));
}

static void sleep_long(unsigned unused)
{
	(void)unused;
	create(2);
	for (unsigned i = 0; i < 3; i++)
		spawn_foreign(&s.bodies[i], long_sleeper, i == 0 ? &movable : NULL);
	for (unsigned i = 0; i < 3; i++)
		join(&s.bodies[i]);
	destroy();
}

static const struct sim_scenario sleeping_long = {
	"sleeps of all lengths", 1, setup, sleep_long, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_sleep_is_late_by_a_turn_at_most)
{
	sim_must_pass(&sleeping_long, 4000);
}

/* A join that gives up while its process ends, and then a sleep: the late claim must miss it. */
static int impatient(void *arg)
{
	struct body *body = arg;
	weft_time deadline;
	int r, result = -1;

	begin(body);
	r = weft_spawn_with(leaf, &s.bodies[1], NULL, &s.bodies[1].pid) == 0
		    ? weft_join(s.bodies[1].pid, &result, weft_after(WEFT_US(2)))
		    : -1;
	sim_check(r == 0 || r == -ETIME, "weft_join: %d", r);
	sim_check(r != 0 || result == 1, "a result of another process");
	deadline = weft_after(WEFT_US(10));
	sim_check(weft_sleep_until(deadline) == 0, "the sleep was ended");
	sim_check(weft_now() >= deadline, "a sleep ended early");
	if (r == -ETIME)
		join(&s.bodies[1]);
	return end(body, number_of(body));
}

static void give_up(unsigned unused)
{
	struct weft_spawn_opts first = on_worker(1, 0);

	(void)unused;
	create(2);
	spawn_foreign(&s.bodies[0], impatient, &first);
	join(&s.bodies[0]);
	destroy();
}

static const struct sim_scenario giving_up = {
	"a join that gives up", 1, setup, give_up, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_join_that_gives_up_is_not_claimed_later)
{
	sim_must_pass(&giving_up, 4000);
}

/* --- a worker that is blocked --- */

/* Blocks its worker, against all advice, until another process has run: on the other worker. */
static int blocker(void *arg)
{
	struct body *body = arg;

	begin(body);
	while (wf_u32_load_acquire(&s.bodies[1].flag) == 0)
		(void)wf_futex_sleep(&s.bodies[1].flag, 0, WF_FUTEX_FOREVER);
	return end(body, number_of(body));
}

static int unblocker(void *arg)
{
	struct body *body = arg;

	begin(body);
	wf_u32_store_release(&body->flag, 1);
	wf_futex_wake(&body->flag, 1);
	return end(body, number_of(body));
}

static void block(unsigned unused)
{
	(void)unused;
	create(2);
	spawn_foreign(&s.bodies[0], blocker, NULL);
	spawn_foreign(&s.bodies[1], unblocker, NULL);
	join(&s.bodies[0]);
	join(&s.bodies[1]);
	destroy();
}

static const struct sim_scenario blocking = {
	"a worker is blocked", 1, setup, block, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_blocked_worker_keeps_nothing_from_the_other)
{
	sim_must_pass(&blocking, 4000);
}

/* --- ids --- */

/* Nobody wakes it: its park must not end before the deadline. */
static int unwoken(void *arg)
{
	struct body *body = arg;
	int r;

	begin(body);
	leave(body);
	r = weft_park(weft_after(WEFT_US(5)));
	enter(body);
	sim_check(r == -ETIME, "a wake of another process: %d", r);
	return end(body, number_of(body));
}

/* Makes headers come back through their grace period, and uses them again. */
static int recycler(void *arg)
{
	struct body *body = arg;

	begin(body);
	for (unsigned i = 1; i < 7; i++) {
		int r = weft_spawn(i < 3 ? leaf : unwoken, &s.bodies[i], &s.bodies[i].pid);

		sim_check(r == 0, "weft_spawn: %d", r);
		leave(body);
		join(&s.bodies[i]);
		enter(body);
		if (i == 2) {
			wf_u32_store_release(&s.ready, 1);
			wf_futex_wake(&s.ready, 1);
		}
	}
	return end(body, number_of(body));
}

/* Ids of processes that have ended are used while their headers serve others. */
static void stale_ids(unsigned number)
{
	if (number == 1) {
		while (wf_u32_load_acquire(&s.ready) == 0)
			(void)wf_futex_sleep(&s.ready, 0, WF_FUTEX_FOREVER);
		for (int i = 0; i < 6; i++)
			sim_check(weft_wake(s.bodies[1 + i % 2].pid) == -ESRCH,
				"an old id found a process");
		return;
	}
	create(1);
	spawn_foreign(&s.bodies[0], recycler, NULL);
	join(&s.bodies[0]);
	sim_thread_join(1);
	destroy();
}

static const struct sim_scenario stale = {
	"stale ids", 2, setup, stale_ids, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_stale_id_reaches_nobody)
{
	sim_must_pass(&stale, 4000);
}

/* Runs for a while. */
static int lingerer(void *arg)
{
	struct body *body = arg;

	begin(body);
	for (int i = 0; i < 20; i++)
		(void)wf_u32_load_relaxed(&body->flag);
	return end(body, number_of(body));
}

/*
 * Makes headers come back, one after the other. The first process was on the other worker, which
 * then has nothing to do, and is slow to look into its inbox.
 */
static int recycler_elsewhere(void *arg)
{
	struct body *body = arg;

	begin(body);
	for (unsigned i = 1; i < 8; i++) {
		const struct weft_spawn_opts opts = on_worker(i == 1 ? 1 : 2, 0);
		int r = weft_spawn_with(
			i == 1 ? lingerer : leaf, &s.bodies[i], &opts, &s.bodies[i].pid);

		sim_check(r == 0, "weft_spawn_with: %d", r);
		leave(body);
		join(&s.bodies[i]);
		enter(body);
	}
	return end(body, number_of(body));
}

/* Wakes that come as their process ends: its header is not used before the inbox has let it go. */
static void wake_late(unsigned number)
{
	struct weft_spawn_opts second = on_worker(2, 0);

	if (number == 1) {
		await_created();
		for (int i = 0; i < 40; i++)
			(void)weft_wake(s.bodies[1].pid);
		return;
	}
	create(2);
	spawn_foreign(&s.bodies[0], recycler_elsewhere, &second);
	join(&s.bodies[0]);
	sim_thread_join(1);
	destroy();
}

static const struct sim_scenario late_wakes = {
	"wakes at the end", 2, setup, wake_late, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_wake_at_the_end_reaches_nobody_else)
{
	sim_must_pass(&late_wakes, 4000);
}

/* --- cancel and stop --- */

static int until_cancelled(void *arg)
{
	struct body *body = arg;
	int r;

	begin(body);
	do {
		leave(body);
		r = weft_park(WEFT_FOREVER);
		enter(body);
	} while (r == 0);
	sim_check(r == -ECANCELED, "weft_park: %d", r);
	return end(body, number_of(body));
}

static void cancel_it(unsigned unused)
{
	struct weft_spawn_opts first = on_worker(1, 0);

	(void)unused;
	create(2);
	spawn_foreign(&s.bodies[0], until_cancelled, &first);
	spawn_foreign(&s.bodies[1], until_cancelled, &movable);
	sim_check(weft_cancel(s.bodies[0].pid) == 0, "nobody to cancel");
	(void)weft_wake(s.bodies[0].pid);
	(void)weft_wake(s.bodies[1].pid);
	sim_check(weft_cancel(s.bodies[1].pid) == 0, "nobody to cancel");
	join(&s.bodies[0]);
	join(&s.bodies[1]);
	destroy();
}

static const struct sim_scenario cancelling = {
	"cancel", 1, setup, cancel_it, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_cancelled_process_hears_of_it)
{
	sim_must_pass(&cancelling, 4000);
}

/* Foreign spawns race with a stop: each is refused, or runs and is cancelled. */
static void spawn_beside(unsigned body, const struct weft_spawn_opts *opts)
{
	int r = weft_rt_spawn(s.rt, until_cancelled, &s.bodies[body], opts, NULL);

	sim_check(r == 0 || r == -ESHUTDOWN, "weft_rt_spawn: %d", r);
	s.refused += r != 0;
}

static void stop_beside(unsigned spawners)
{
	create(2);
	sim_check(weft_rt_stop(s.rt, 0, WEFT_FOREVER) == 0, "weft_rt_stop");
	for (unsigned i = 1; i <= spawners; i++)
		sim_thread_join(i);
	destroy();
}

static void stop_it(unsigned number)
{
	if (number == 0) {
		stop_beside(1);
		return;
	}
	await_created();
	spawn_beside(0, NULL);
	spawn_beside(1, NULL);
}

/* What the sweep starts while its spawn takes it back. */
static void stop_suspended(unsigned number)
{
	struct weft_spawn_opts suspended = on_worker(0, WEFT_SUSPENDED);

	if (number == 0) {
		stop_beside(1);
		return;
	}
	await_created();
	for (unsigned i = 0; i < 2; i++)
		spawn_beside(i, &suspended);
}

static void check_stopped(void)
{
	unsigned ended = 0;

	for (unsigned i = 0; i < 2; i++) {
		sim_check(s.bodies[i].runs == s.bodies[i].ended, "a process was cut off");
		ended += s.bodies[i].ended;
	}
	sim_check(ended + s.refused == 2, "%u ended, %u were refused", ended, s.refused);
	sim_runtime_check();
}

static const struct sim_scenario stopping = {
	"stop beside foreign spawns", 2, setup, stop_it, NULL, check_stopped, STEPS_MAX};

SIM_TEST(runtime, a_stop_forgets_no_spawn)
{
	sim_must_pass(&stopping, 4000);
}

static const struct sim_scenario stopping_suspended = {
	"stop beside suspended foreign spawns", 2, setup, stop_suspended, NULL, check_stopped,
	STEPS_MAX};

SIM_TEST(runtime, a_stop_starts_or_takes_back_what_is_suspended)
{
	sim_must_pass(&stopping_suspended, 4000);
}

/* Spawns by a process race with a stop. */
static int spawner(void *arg)
{
	struct body *body = arg;

	begin(body);
	for (unsigned i = 1; i < 4; i++) {
		int r = weft_spawn(until_cancelled, &s.bodies[i], NULL);

		sim_check(r == 0 || r == -ESHUTDOWN, "weft_spawn: %d", r);
		s.refused += r != 0;
		leave(body);
		(void)weft_yield();
		enter(body);
	}
	return end(body, number_of(body));
}

static void stop_spawner(unsigned unused)
{
	(void)unused;
	create(2);
	spawn_foreign(&s.bodies[0], spawner, NULL);
	sim_check(weft_rt_stop(s.rt, 0, WEFT_FOREVER) == 0, "weft_rt_stop");
	destroy();
}

static void check_spawner(void)
{
	unsigned ended = 0;

	for (unsigned i = 1; i < 4; i++)
		ended += s.bodies[i].ended;
	sim_check(s.bodies[0].ended == 0 || ended + s.refused == 3, "%u ended, %u were refused",
		ended, s.refused);
	sim_runtime_check();
}

static const struct sim_scenario stopping_spawner = {
	"stop beside a spawning process", 1, setup, stop_spawner, NULL, check_spawner, STEPS_MAX};

SIM_TEST(runtime, a_stop_forgets_no_child)
{
	sim_must_pass(&stopping_spawner, 4000);
}

/* --- the end --- */

/* Without a stop: the runtime ends when nothing is alive, not before. */
static void run_out(unsigned unused)
{
	(void)unused;
	create(2);
	for (unsigned i = 0; i < 2; i++)
		sim_check(weft_rt_spawn(s.rt, leaf, &s.bodies[i], NULL, NULL) == 0, "spawn");
	sim_check(weft_rt_run(s.rt) == 0, "weft_rt_run");
	for (unsigned i = 0; i < 2; i++)
		sim_check(s.bodies[i].ended == 1, "the runtime has ended, process %u has not", i);
	destroy();
}

static const struct sim_scenario running_out = {
	"run until nothing is alive", 1, setup, run_out, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, it_ends_when_nothing_is_alive)
{
	sim_must_pass(&running_out, 4000);
}

/* --- two runtimes --- */

/* Wakes a process of the other runtime and joins it. */
static int visitor(void *arg)
{
	struct body *body = arg;

	begin(body);
	poke();
	leave(body);
	join(&s.bodies[0]);
	enter(body);
	return end(body, number_of(body));
}

/* S13 */
static void visit(unsigned unused)
{
	weft_rt *home, *away;

	(void)unused;
	s.pokers = 1;
	create(1);
	home = s.rt;
	create(1);
	away = s.rt;
	spawn_foreign(&s.bodies[0], sleeper, NULL);
	s.rt = home;
	spawn_foreign(&s.bodies[1], visitor, NULL);
	join(&s.bodies[1]);
	destroy();
	s.rt = away;
	destroy();
}

static const struct sim_scenario visiting = {
	"two runtimes", 1, setup, visit, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, one_runtime_wakes_and_joins_in_another)
{
	sim_must_pass(&visiting, 4000);
}

/* --- what fails --- */

static bool is_refusal(int r)
{
	return r == -ENOMEM || r == -EAGAIN || r == -EMFILE;
}

/* Spawns with a name, so that there is more to allocate. */
static int parent_of_named(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .name = "named"};
	struct body *body = arg;
	int result, r;

	begin(body);
	for (int i = 1; i < 4; i++) {
		struct body *child = &s.bodies[i];

		r = weft_spawn_with(leaf, child, i & 1 ? &opts : NULL, &child->pid);
		sim_check(r == 0 || is_refusal(r), "weft_spawn_with: %d", r);
		if (r != 0)
			continue;
		leave(body);
		r = weft_join(child->pid, &result, WEFT_FOREVER);
		enter(body);
		sim_check(r == 0, "weft_join: %d", r);
		sim_check(child->ended ? result == i : result == -ENOMEM,
			"a result of another process, or of none: %d", result);
	}
	return end(body, number_of(body));
}

/*
 * One request for memory, a thread or a driver fails, the seed says which: the call that made it
 * reports it, everything else goes on, nothing is left behind.
 */
static void fail_somewhere(unsigned unused)
{
	int r, result;

	(void)unused;
	sim_runtime_fail_at(1 + sim_random(32));
	r = weft_rt_create(sim_runtime_opts(2), &s.rt);
	if (r != 0) {
		sim_check(is_refusal(r) && sim_runtime_has_failed(), "weft_rt_create: %d", r);
		return;
	}
	r = weft_rt_spawn(s.rt, parent_of_named, &s.bodies[0], NULL, &s.bodies[0].pid);
	sim_check(r == 0 || (is_refusal(r) && sim_runtime_has_failed()), "weft_rt_spawn: %d", r);
	if (r == 0) {
		r = weft_join(s.bodies[0].pid, &result, WEFT_FOREVER);
		sim_check(r == 0, "weft_join: %d", r);
		sim_check(result == 0 || (result == -ENOMEM && s.bodies[0].runs == 0), "result %d",
			result);
	}
	destroy();
}

static const struct sim_scenario failing = {
	"a request that fails", 1, setup, fail_somewhere, NULL, sim_runtime_check, STEPS_MAX};

SIM_TEST(runtime, a_request_that_fails_leaves_nothing_behind)
{
	sim_must_pass(&failing, 4000);
}

/* --- planted --- */

SIM_TEST(runtime, planted_drain_by_store)
{
	sim_must_find(&waking, WF_PLANTED_wake_drain_by_store, 100000);
}

SIM_TEST(runtime, planted_wake_of_a_linked_process_lost)
{
	sim_must_find(&waking, WF_PLANTED_wake_lost_when_pending, 100000);
}

SIM_TEST(runtime, planted_generation_not_compared)
{
	sim_must_find(&stale, WF_PLANTED_find_any_generation, 1000);
}

SIM_TEST(runtime, planted_claim_of_any_wait)
{
	sim_must_find(&giving_up, WF_PLANTED_join_claims_any_wait, 100000);
}

SIM_TEST(runtime, planted_close_not_read_again)
{
	sim_must_find(&stopping, WF_PLANTED_spawn_ignores_close, 10000);
}

SIM_TEST(runtime, planted_end_before_sweeps)
{
	sim_must_find(&stopping_suspended, WF_PLANTED_end_before_sweeps, 400000);
}

SIM_TEST(runtime, planted_park_without_recheck)
{
	sim_must_find(&spawning, WF_PLANTED_park_without_recheck, 10000);
}

SIM_TEST(runtime, planted_park_by_store)
{
	sim_must_find(&spawning, WF_PLANTED_idle_park_by_store, 10000);
}

SIM_TEST(runtime, planted_directed_wake_asks_for_searchers)
{
	sim_must_find(&waking, WF_PLANTED_idle_directed_asks_searchers, 10000);
}

SIM_TEST(runtime, planted_last_searcher_wakes_nobody)
{
	sim_must_find(&blocking, WF_PLANTED_idle_last_searcher_silent, 10000);
}

SIM_TEST(runtime, planted_search_ends_after_the_run)
{
	sim_must_find(&blocking, WF_PLANTED_search_ends_after_run, 10000);
}

/* What only test/sim/invariants.c sees, or sees first. */

SIM_TEST(runtime, planted_wake_of_a_queued_process_queues_it_again)
{
	sim_must_find_saying(
		&waking, WF_PLANTED_wake_queues_again, 1000, "a list"); /* in it twice, or done */
}

SIM_TEST(runtime, planted_displaced_from_the_next_slot_and_lost)
{
	sim_must_find_saying(&crowding, WF_PLANTED_wake_loses_displaced, 1000, "in no place");
}

SIM_TEST(runtime, planted_pop_that_does_not_see_a_thief)
{
	/* It is begun twice, or two workers run it: who comes first. */
	sim_must_find(&spawning, WF_PLANTED_deque_pop_by_store, 1000);
}

SIM_TEST(runtime, planted_wake_served_twice)
{
	sim_must_find_saying(
		&waking, WF_PLANTED_wake_served_twice, 10000, "nothing woke it");
}

SIM_TEST(runtime, planted_settled_on_its_own_stack)
{
	sim_must_find_saying(&waking_movable, WF_PLANTED_settle_on_own_stack, 400000, "one stack");
}

SIM_TEST(runtime, planted_stack_not_given_back)
{
	sim_must_find_saying(&spawning, WF_PLANTED_stack_kept, 1, "have not come back");
}

SIM_TEST(runtime, planted_sleep_over_a_deadline)
{
	sim_must_find_saying(
		&sleeping_long, WF_PLANTED_park_until_tend, 1000, "a sleep over a deadline");
}

SIM_TEST(runtime, planted_timers_left_for_a_later_turn)
{
	sim_must_find_saying(
		&sleeping_long, WF_PLANTED_expire_without_advance, 1000, "is still armed");
}

SIM_TEST(runtime, planted_headers_without_a_grace_period)
{
	sim_must_find_saying(
		&stale, WF_PLANTED_retire_without_grace, 100, "without a grace period");
}

SIM_TEST(runtime, planted_header_used_while_an_inbox_has_it)
{
	sim_must_find_saying(
		&late_wakes, WF_PLANTED_reuse_while_linked, 400000, "while an inbox has it");
}

SIM_TEST(runtime, planted_wait_numbers_start_anew)
{
	sim_must_find_saying(
		&stale, WF_PLANTED_wait_numbers_anew, 100, "after its grace period");
}

SIM_TEST(runtime, planted_section_left_before_the_process)
{
	sim_must_find_saying(
		&waking, WF_PLANTED_visit_leaves_section, 100, "outside a read section");
}

SIM_TEST(runtime, planted_loot_goes_into_the_ring)
{
	sim_must_find(&spawning, WF_PLANTED_loot_into_ring, 100000);
}
