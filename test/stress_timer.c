/*
 * Goal: <weft/timer.h> and deadlines of movable processes under threads that race: each start of a
 * timer fires once or is stopped once, its memory is the caller's at once, whoever waits for an
 * action sees what it did; each wait of a movable process ends by a wake that was made, or not
 * before its deadline, and no wake is lost. Row T5 of the public header.
 * Method: threads and processes start, move, stop and wait for timers of their own on a runtime of
 * two workers, and poison them; others wake processes that park for short times. Counts decide.
 */
#include <errno.h>
#include <string.h>

#include <weft/timer.h>

#include "test/runtime.h"

enum {
	WORKERS = 2,
	THREADS = 2,
	OWNERS = THREADS + 4, /* and as many processes as are left */
	TIMERS = 8,           /* of each */
	ROUNDS = 60000 / HARNESS_SLOWDOWN,
	SLEEPERS = 6,
	WAITS = 4000 / HARNESS_SLOWDOWN,
};

struct life {
	struct weft_timer timer;
	wf_atomic_u32 fired; /* lives that have */
	uint32_t number;     /* of this life, from 1 */
	bool started;
	weft_time deadline;
};

static struct life lives[OWNERS][TIMERS];
static wf_atomic_u32 stops, fires, waits_done;

static void act(void *arg)
{
	struct life *life = arg;
	uint32_t before = wf_u32_fetch_add(&life->fired, 1);

	cr_assert_eq(before + 1, life->number, "it fires twice, or was stopped");
	cr_assert_geq(weft_now(), life->deadline, "early");
}

/* This life is over: the memory is used for something else. */
static void bury(struct life *life)
{
	memset(&life->timer, 0xa5, sizeof(life->timer));
	memset(&life->timer, 0, sizeof(life->timer));
	life->started = false;
	wf_u32_store_relaxed(&life->fired, life->number);
}

static void begin(struct life *life, weft_rt *rt, uint64_t *seed)
{
	life->number++;
	life->started = true;
	life->deadline = weft_after((weft_time)harness_random_below(seed, 60000));
	cr_assert_eq(weft_timer_start(&life->timer, rt, life->deadline, act, life), 0);
}

static void cancel(struct life *life)
{
	int r = weft_timer_cancel_wait(&life->timer, WEFT_FOREVER);
	uint32_t fired = wf_u32_load_relaxed(&life->fired);

	cr_assert(r == 0 || r == 1, "%d", r);
	cr_assert_eq(fired, life->number - (r == 1), "stopped %d", r);
	wf_u32_fetch_add(r ? &stops : &fires, 1);
	bury(life);
}

/* What fired may still have its action to do; it does not touch the timer. */
static void stop(struct life *life)
{
	if (weft_timer_stop(&life->timer) == 1) {
		cr_assert_eq(wf_u32_load_relaxed(&life->fired), life->number - 1);
		wf_u32_fetch_add(&stops, 1);
		bury(life);
		return;
	}
	cancel(life);
}

static void move(struct life *life, uint64_t *seed)
{
	/* Earlier: the action has to find that deadline. Later it is checked by the first one. */
	weft_time by = (weft_time)harness_random_below(seed, 40000);

	if (by < 20000)
		(void)weft_timer_move(&life->timer, life->deadline + by);
	else
		(void)weft_timer_is_pending(&life->timer);
}

static void live(unsigned owner, weft_rt *rt)
{
	uint64_t seed = harness_seed() + owner;

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct life *life = &lives[owner][harness_random_below(&seed, TIMERS)];
		unsigned choice = (unsigned)harness_random_below(&seed, 8);

		if (!life->started)
			begin(life, rt, &seed);
		else if (choice < 2)
			stop(life);
		else if (choice < 3)
			cancel(life);
		else if (choice < 6)
			move(life, &seed);
		if (!rt && choice == 7)
			(void)weft_yield();
	}
	for (unsigned i = 0; i < TIMERS; i++)
		if (lives[owner][i].started)
			cancel(&lives[owner][i]);
}

static int lives_as_process(void *arg)
{
	live((unsigned)(uintptr_t)arg, NULL);
	return 0;
}

static void lives_as_thread(unsigned index, void *arg)
{
	live(index, arg);
}

Test(timer, each_start_fires_once_or_is_stopped, .timeout = 300)
{
	weft_rt *rt = runtime_new(WORKERS);
	weft_pid pids[OWNERS];

	for (unsigned i = THREADS; i < OWNERS; i++) {
		struct weft_spawn_opts opts = {
			.size = sizeof(opts), .flags = i % 2 ? WEFT_MOVABLE : 0};

		cr_assert_eq(weft_rt_spawn(rt, lives_as_process, (void *)(uintptr_t)i, &opts,
				     &pids[i]),
			0);
	}
	harness_threads(THREADS, lives_as_thread, rt);
	for (unsigned i = THREADS; i < OWNERS; i++)
		cr_assert_eq(joined(pids[i]), 0);
	runtime_end(rt);
	cr_assert_gt(wf_u32_load_relaxed(&stops), ROUNDS / 50);
	cr_assert_gt(wf_u32_load_relaxed(&fires), ROUNDS / 50);
}

/* ---- Movable processes ----------------------------------------------------------------------- */

/* Wakes are counted before they are made; parks that end by one, afterwards. */
static struct sleeper {
	weft_pid pid;
	wf_atomic_u32 wakes, ended;
	unsigned woken, waits;
	weft_time deadline; /* a task's */
	struct weft_timer timer;
} sleepers[SLEEPERS];

static void park_ended(struct sleeper *s, int r, weft_time deadline)
{
	cr_assert(r == 0 || r == -ETIME, "%d", r);
	if (r == -ETIME)
		cr_assert_geq(weft_now(), deadline, "early");
	else
		cr_assert_leq(++s->woken, wf_u32_load_acquire(&s->wakes), "nobody has woken it");
	s->waits++;
}

static int parks_often(void *arg)
{
	struct sleeper *s = arg;
	uint64_t seed = harness_seed() + (uint64_t)(s - sleepers);

	while (s->waits < WAITS) {
		weft_time deadline =
			weft_after((weft_time)harness_random_below(&seed, 40000));

		park_ended(s, weft_park(deadline), deadline);
	}
	/* The last wake of all comes to who waits for ever: it is not lost. */
	wf_u32_fetch_add(&waits_done, 1);
	while (s->woken == 0 || !wf_u32_load_acquire(&s->ended)) {
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
		s->woken++;
	}
	return 0;
}

static int task_parks_often(void *arg)
{
	struct sleeper *s = arg;

	for (;;) {
		int r;

		if (s->deadline == 0)
			s->deadline = weft_after((weft_time)(s->waits % 40) * 1000);
		r = weft_park(s->deadline);
		if (r == WEFT_PENDING)
			return r;
		park_ended(s, r, s->deadline);
		s->deadline = 0;
		if (s->waits == WAITS) {
			wf_u32_fetch_add(&waits_done, 1);
			return 0;
		}
	}
}

static void wakes_often(unsigned index, void *arg)
{
	uint64_t seed = harness_seed() + 100 + index;

	while (wf_u32_load_acquire(&waits_done) < SLEEPERS) {
		struct sleeper *s = &sleepers[harness_random_below(&seed, SLEEPERS)];

		wf_u32_fetch_add(&s->wakes, 1);
		if (index == 0 && harness_random_below(&seed, 2)) {
			(void)weft_timer_cancel_wait(&s->timer, WEFT_FOREVER);
			cr_assert_eq(weft_timer_start_wake(&s->timer, arg,
					     weft_after((weft_time)harness_random_below(
						     &seed, 20000)),
					     s->pid),
				0);
		} else {
			(void)weft_wake(s->pid);
		}
		if (harness_random_below(&seed, 4) == 0)
			sched_yield();
	}
}

Test(timer, movable_sleepers_are_woken_once_beside_their_deadlines, .timeout = 300)
{
	weft_rt *rt = runtime_new(WORKERS);
	struct weft_spawn_opts opts = {.size = sizeof(opts), .flags = WEFT_MOVABLE};

	for (unsigned i = 0; i < SLEEPERS; i++)
		cr_assert_eq(i % 2 ? weft_rt_task_spawn(rt, task_parks_often, &sleepers[i], &opts,
					     &sleepers[i].pid)
				   : weft_rt_spawn(rt, parks_often, &sleepers[i], &opts,
					     &sleepers[i].pid),
			0);
	harness_threads(THREADS, wakes_often, rt);
	for (unsigned i = 0; i < SLEEPERS; i++) {
		(void)weft_timer_cancel_wait(&sleepers[i].timer, WEFT_FOREVER);
		wf_u32_store_release(&sleepers[i].ended, 1);
		(void)weft_wake(sleepers[i].pid);
	}
	for (unsigned i = 0; i < SLEEPERS; i++)
		cr_assert_eq(joined(sleepers[i].pid), 0);
	runtime_end(rt);
}

/* ---- Ends beside timers ---------------------------------------------------------------------- */

static struct weft_timer pending[2][64];
static wf_atomic_u32 go;

static void hit(void *arg)
{
	(void)arg;
}

static void stop_beside_end(unsigned index, void *arg)
{
	static weft_rt *rt;

	(void)arg;
	if (index == 2) {
		rt = runtime_new(WORKERS);
		for (unsigned i = 0; i < 128; i++)
			cr_assert_eq(weft_timer_start(&pending[i % 2][i / 2], rt,
					     weft_after((weft_time)i * 2000), hit, NULL),
				0);
		wf_u32_store_release(&go, 1);
		runtime_end(rt);
		return;
	}
	UNTIL_FOREIGN(wf_u32_load_acquire(&go));
	for (unsigned i = 0; i < 64; i++) {
		if (i % 3 == 0)
			(void)weft_timer_move(&pending[index][i], 0);
		cr_assert_geq(weft_timer_cancel_wait(&pending[index][i], WEFT_FOREVER), 0);
		cr_assert(!weft_timer_is_pending(&pending[index][i]));
		memset(&pending[index][i], 0xa5, sizeof(pending[index][i]));
	}
}

Test(timer, stops_beside_a_runtimes_end_give_the_memory_back, .timeout = 300)
{
	for (int i = 0; i < 200 / HARNESS_SLOWDOWN + 1; i++) {
		memset(pending, 0, sizeof(pending));
		wf_u32_store_relaxed(&go, 0);
		harness_threads(3, stop_beside_end, NULL);
	}
}
