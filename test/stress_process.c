/*
 * Goal: nothing is lost or doubled when processes are woken, cancelled, joined and detached by
 * several threads at once, and while their runtime is being stopped.
 * Method: counts. Each wake is answered before the next (a lost one hangs the test); each process
 * is taken by exactly one of those who race for it; what was accepted has run. Only the numbers
 * that random choices start from are fixed; the schedule is the machine's.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "test/runtime.h"

/* ---- P14: wakes of one fiber ---------------------------------------------------------------- */

enum { WAKERS = 3, WAKES = 10000, WAKES_BLIND = 300000 };

struct waker {
	WF_ALIGNED(128) wf_atomic_u32 posted;
	wf_atomic_u32 answered;
};

struct race {
	struct waker wakers[WAKERS];
	wf_atomic_u32 inside; /* two runs of the fiber at once would see 1 */
	wf_atomic_u32 done;   /* wakers that have ended */
	weft_pid fiber;
	weft_rt *rt;
	uint64_t parks;
	weft_time patience_ns; /* of each park; 0: for ever */
	unsigned wakes;        /* of each waker */
	bool blind;            /* do not wait for answers */
};

static bool answer(struct race *race)
{
	bool all = wf_u32_load_acquire(&race->done) == WAKERS;

	for (int i = 0; i < WAKERS; i++) {
		struct waker *waker = &race->wakers[i];

		wf_u32_store_release(&waker->answered, wf_u32_load_acquire(&waker->posted));
	}
	return all;
}

static int answers(void *arg)
{
	struct race *race = arg;

	for (;;) {
		int r;

		cr_assert_eq(wf_u32_exchange(&race->inside, 1), 0);
		if (answer(race))
			return 0;
		cr_assert_eq(wf_u32_exchange(&race->inside, 0), 1);
		r = weft_park(race->patience_ns ? weft_after(race->patience_ns) : WEFT_FOREVER);
		race->parks += r == 0;
		cr_assert(r == 0 || (r == -ETIME && race->patience_ns), "park: %d", r);
	}
}

static void wakes(struct race *race, struct waker *waker, bool foreign)
{
	for (uint32_t i = 1; i <= race->wakes; i++) {
		wf_u32_store_release(&waker->posted, i);
		cr_assert_eq(weft_wake(race->fiber), 0);
		while (!race->blind && wf_u32_load_acquire(&waker->answered) != i)
			if (foreign)
				sched_yield();
			else
				weft_yield();
	}
	wf_u32_fetch_add(&race->done, 1);
	(void)weft_wake(race->fiber); /* the last one ends it */
}

static int wakes_locally(void *arg)
{
	struct race *race = arg;

	wakes(race, &race->wakers[weft_worker_index()], false);
	return 0;
}

static void race_wakes(struct race *race, unsigned flags)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = flags, .worker = WEFT_WORKER(0)};
	weft_pid local, remote;

	race->rt = runtime_new(2);
	cr_assert_eq(weft_rt_spawn(race->rt, answers, race, &opts, &race->fiber), 0);
	opts.flags = 0;
	cr_assert_eq(weft_rt_spawn(race->rt, wakes_locally, race, &opts, &local), 0);
	opts.worker = WEFT_WORKER(1);
	cr_assert_eq(weft_rt_spawn(race->rt, wakes_locally, race, &opts, &remote), 0);
	wakes(race, &race->wakers[2], true);
	joined(local);
	joined(remote);
	cr_assert_eq(joined(race->fiber), 0);
	runtime_end(race->rt);
	/* Wakes do not add up, so there are never more successful parks than wakes. */
	cr_assert_leq(race->parks, (uint64_t)WAKERS * (race->wakes + 1));
}

static void race_wakes_in_all_ways(bool blind, unsigned count)
{
	static const unsigned flags[] = {0, WEFT_MOVABLE};

	for (unsigned i = 0; i < 4; i++) {
		struct race race = {.blind = blind,
			.wakes = count / HARNESS_SLOWDOWN,
			.patience_ns = i & 2 ? WEFT_US(20) : 0};

		race_wakes(&race, flags[i & 1]);
	}
}

Test(stress_process, every_wake_is_answered, .timeout = 120)
{
	race_wakes_in_all_ways(false, WAKES);
}

Test(stress_process, hail_of_wakes_loses_no_last_one, .timeout = 120)
{
	race_wakes_in_all_ways(true, WAKES_BLIND);
}

/* ---- X2: destroy under wakes ---------------------------------------------------------------- */

enum { WAITING = 10000, ROUNDS = 5 };

struct crowd {
	weft_pid pids[WAITING];
	unsigned count;
	wf_atomic_u32 ended;
	wf_atomic_u32 stop;
};

static int waits_for_its_end(void *arg)
{
	struct crowd *crowd = arg;

	while (weft_park(WEFT_FOREVER) == 0)
		continue;
	wf_u32_fetch_add(&crowd->ended, 1);
	return 0;
}

static void *wakes_a_crowd(void *arg)
{
	struct crowd *crowd = arg;
	uint64_t state = harness_seed();

	while (!wf_u32_load_acquire(&crowd->stop)) {
		weft_pid pid = crowd->pids[harness_random_below(&state, crowd->count)];
		int r = weft_wake(pid);

		cr_assert(r == 0 || r == -ESRCH, "wake: %d", r);
	}
	return NULL;
}

Test(stress_process, destroy_under_foreign_wakes, .timeout = 120)
{
	static struct crowd crowd;

	crowd.count = WAITING / HARNESS_SLOWDOWN;
	for (unsigned round = 0; round < ROUNDS; round++) {
		weft_rt *rt = runtime_new(2);
		pthread_t thread;

		wf_u32_store_relaxed(&crowd.ended, 0);
		wf_u32_store_relaxed(&crowd.stop, 0);
		for (unsigned i = 0; i < crowd.count; i++)
			cr_assert_eq(
				weft_rt_spawn(rt, waits_for_its_end, &crowd, NULL, &crowd.pids[i]),
				0);
		cr_assert_eq(pthread_create(&thread, NULL, wakes_a_crowd, &crowd), 0);
		runtime_end(rt);
		cr_assert_eq(wf_u32_load_acquire(&crowd.ended), crowd.count);
		for (unsigned i = 0; i < crowd.count; i += 97)
			cr_assert_eq(weft_wake(crowd.pids[i]), -ESRCH);
		wf_u32_store_release(&crowd.stop, 1);
		pthread_join(thread, NULL);
	}
}

/* ---- Joins, cancels, detaches --------------------------------------------------------------- */

enum { TARGETS = 4000, MEDDLERS = 6, MEDDLING_THREADS = 2 };

struct target {
	wf_atomic_u64 pid;
	wf_atomic_u32 taken;     /* by a join or a detach */
	wf_atomic_u32 destroyed; /* its argument was */
};

struct market {
	struct target targets[TARGETS];
	unsigned count;
	wf_atomic_u32 left;  /* not taken yet */
	wf_atomic_u32 moves; /* seeds */
};

static void destroy_target(void *arg)
{
	struct target *target = arg;

	cr_assert_eq(wf_u32_fetch_add(&target->destroyed, 1), 0);
}

/*
 * Parks, sleeps and yields in turn, with deadlines far and near, until it is cancelled or woken
 * often.
 */
static int is_meddled_with(void *arg)
{
	uint64_t state = harness_seed() ^ weft_self().raw;

	(void)arg;
	for (unsigned woken = 0; woken < 3;) {
		weft_time far = WEFT_SEC(3600);
		weft_time near = (weft_time)harness_random_below(&state, WEFT_US(300));
		weft_time deadline = weft_after(harness_random_below(&state, 2) ? far : near);
		int r;

		switch (harness_random_below(&state, 4)) {
		case 0:
			r = weft_yield();
			break;
		case 1:
			r = weft_sleep_until(weft_after(near));
			break;
		default:
			r = weft_park(deadline);
			woken += r == 0;
			break;
		}
		cr_assert(r == 0 || r == -ETIME || r == -ECANCELED, "%d", r);
		if (r == -ECANCELED)
			return r;
	}
	return 0;
}

static void take(struct market *market, struct target *target)
{
	cr_assert_eq(wf_u32_fetch_add(&target->taken, 1), 0, "taken twice");
	wf_u32_fetch_add(&market->left, (uint32_t)-1);
}

static void meddle(struct market *market, uint64_t *state)
{
	struct target *target = &market->targets[harness_random_below(state, market->count)];
	weft_pid pid = {wf_u64_load_acquire(&target->pid)};
	unsigned what = (unsigned)harness_random_below(state, 16);
	int result = 99;
	int r;

	switch (what) {
	case 0:
		r = weft_cancel(pid);
		cr_assert(r == 0 || r == -ESRCH, "cancel: %d", r);
		break;
	case 1:
		r = weft_detach(pid);
		cr_assert(r == 0 || r == -EBUSY || r == -ESRCH, "detach: %d", r);
		if (r == 0)
			take(market, target);
		break;
	case 2:
	case 3:
	case 4:
	case 5:
		r = what == 2 ? weft_try_join(pid, &result)
			      : weft_join(pid, &result,
					what == 3 ? WEFT_POLL : weft_after(WEFT_US(50)));
		cr_assert(r == 0 || r == -EAGAIN || r == -EBUSY || r == -ESRCH ||
				  (r == -ETIME && what > 3),
			"join: %d", r);
		cr_assert(r == 0 ? result == 0 || result == -ECANCELED : result == 99,
			"join: %d, %d", r, result);
		if (r == 0)
			take(market, target);
		break;
	default:
		r = weft_wake(pid);
		cr_assert(r == 0 || r == -ESRCH, "wake: %d", r);
		break;
	}
}

static int meddles(void *arg)
{
	struct market *market = arg;
	uint64_t state = harness_seed() + wf_u32_fetch_add(&market->moves, 1);

	while (wf_u32_load_acquire(&market->left) > 0) {
		meddle(market, &state);
		if (harness_random_below(&state, 8) == 0)
			weft_yield();
	}
	return 0;
}

static void meddles_from_outside(unsigned index, void *arg)
{
	struct market *market = arg;
	uint64_t state = harness_seed() + 1000 + index;

	while (wf_u32_load_acquire(&market->left) > 0)
		meddle(market, &state);
}

static void open_market(weft_rt *rt, struct market *market)
{
	for (unsigned i = 0; i < market->count; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = destroy_target};
		weft_pid pid;

		opts.flags = i % 2 ? WEFT_MOVABLE : 0;
		opts.worker = i % 3 == 0 ? WEFT_WORKER(i % 2) : 0;
		cr_assert_eq(
			weft_rt_spawn(rt, is_meddled_with, &market->targets[i], &opts, &pid), 0);
		wf_u64_store_release(&market->targets[i].pid, pid.raw);
	}
}

Test(stress_process, each_is_taken_once, .timeout = 120)
{
	static struct market market;
	weft_rt *rt = runtime_new(2);
	weft_pid meddlers[MEDDLERS];

	market.count = TARGETS / HARNESS_SLOWDOWN;
	wf_u32_store_relaxed(&market.left, market.count);
	open_market(rt, &market);
	for (unsigned i = 0; i < MEDDLERS; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts,
			.flags = i % 3 == 2 ? WEFT_MOVABLE : 0,
			.worker = WEFT_WORKER(i % 2)};

		cr_assert_eq(weft_rt_spawn(rt, meddles, &market, &opts, &meddlers[i]), 0);
	}
	harness_threads(MEDDLING_THREADS, meddles_from_outside, &market);
	for (unsigned i = 0; i < MEDDLERS; i++)
		joined(meddlers[i]);
	runtime_end(rt);
	for (unsigned i = 0; i < market.count; i++) {
		cr_assert_eq(wf_u32_load_acquire(&market.targets[i].taken), 1);
		cr_assert_eq(wf_u32_load_acquire(&market.targets[i].destroyed), 1);
	}
}

/* ---- Trees ---------------------------------------------------------------------------------- */

enum { TREE_DEPTH = HARNESS_SLOWDOWN > 1 ? 8 : 11, TREES = 8 };

/* Spawns two of the next depth, and returns how many processes its tree has. */
static int grows(void *arg)
{
	uintptr_t depth = (uintptr_t)arg;
	uint64_t state = harness_seed() ^ weft_self().raw;
	weft_pid pids[2];
	int sum = 1;

	for (uint64_t yields = harness_random_below(&state, 3); yields > 0; yields--)
		cr_assert_eq(weft_yield(), 0);
	if (depth == 0)
		return 1;
	for (int i = 0; i < 2; i++) {
		uint64_t random = harness_random(&state);
		void *below = (void *)(depth - 1); /* NOLINT: a number */

		pids[i] = spawned_with(grows, below, random & 1 ? WEFT_MOVABLE : 0, 0);
	}
	for (int i = 0; i < 2; i++)
		sum += joined(pids[i]);
	return sum;
}

Test(stress_process, trees_are_complete, .timeout = 120)
{
	for (unsigned workers = 2; workers <= 4; workers++) {
		weft_rt *rt = runtime_new(workers);
		weft_pid pids[TREES];

		for (int i = 0; i < TREES; i++)
			cr_assert_eq(
				weft_rt_spawn(rt, grows, (void *)TREE_DEPTH, NULL, &pids[i]), 0);
		for (int i = 0; i < TREES; i++)
			cr_assert_eq(joined(pids[i]), (2 << TREE_DEPTH) - 1);
		runtime_end(rt);
	}
}

/* ---- X1: spawns and posts against start and stop -------------------------------------------- */

enum { LIVES = 200, SPAWNERS = 2 };

struct life {
	weft_rt *rt;
	wf_atomic_u32 accepted; /* spawns and posts that returned 0 */
	wf_atomic_u32 ran;
	wf_atomic_u32 destroyed; /* arguments */
	wf_atomic_u32 spawned;
	wf_atomic_u32 refused; /* spawners that were told of the end */
	bool stop;
};

static int runs_once(void *arg)
{
	struct life *life = arg;

	wf_u32_fetch_add(&life->ran, 1);
	return 0;
}

static void runs_as_post(void *arg)
{
	(void)runs_once(arg);
}

static void destroys_argument(void *arg)
{
	struct life *life = arg;

	wf_u32_fetch_add(&life->destroyed, 1);
}

/* Spawns until it is refused: the runtime ends under it. */
static void spawns_till_refused(unsigned index, void *arg)
{
	struct life *life = arg;
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = destroys_argument};
	uint64_t state = harness_seed() + index;
	int r = 0;

	if (index == SPAWNERS) {
		if (life->stop)
			r = weft_rt_stop(life->rt, WEFT_US(50), WEFT_FOREVER);
		else
			r = weft_rt_run(life->rt);
		cr_assert_eq(r, 0);
		return;
	}
	for (unsigned i = 0; r == 0; i++) {
		weft_pid pid = {0};

		opts.worker = i % 4 == 1 ? WEFT_WORKER(i / 4 % 2) : 0;
		if (i % 4 == 3) {
			r = weft_post(life->rt, runs_as_post, life);
		} else {
			r = weft_rt_spawn(life->rt, runs_once, life, &opts, i % 2 ? &pid : NULL);
			if (r == 0)
				wf_u32_fetch_add(&life->spawned, 1);
		}
		if (r == 0)
			wf_u32_fetch_add(&life->accepted, 1);
		/* It ends by itself only if there are moments with nothing alive. */
		if (!life->stop)
			UNTIL_FOREIGN(wf_u32_load_acquire(&life->ran) ==
				      wf_u32_load_acquire(&life->accepted));
		for (uint64_t k = life->stop ? 0 : harness_random_below(&state, 30); k > 0; k--)
			sched_yield();
	}
	cr_assert_eq(r, -ESHUTDOWN);
	wf_u32_fetch_add(&life->refused, 1);
}

Test(stress_process, what_is_accepted_runs_and_the_rest_is_refused, .timeout = 120)
{
	for (unsigned i = 0; i < LIVES / HARNESS_SLOWDOWN; i++) {
		struct life life = {.rt = runtime_new(2), .stop = i % 2};

		harness_threads(SPAWNERS + 1, spawns_till_refused, &life);
		cr_assert_eq(wf_u32_load_acquire(&life.refused), SPAWNERS);
		runtime_end(life.rt);
		cr_assert_eq(wf_u32_load_acquire(&life.ran), wf_u32_load_acquire(&life.accepted));
		cr_assert_eq(
			wf_u32_load_acquire(&life.destroyed), wf_u32_load_acquire(&life.spawned));
	}
}
