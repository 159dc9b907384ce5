/*
 * Goal: nothing is lost or doubled when several runtimes, foreign threads and a destroy meet on the
 * same processes: wakes and joins across runtimes, reservations that several settle, ids of
 * runtimes that come and go.
 * Method: counts, as in stress_process.c: each wake is answered before the next (a lost one hangs
 * the test), each reservation is settled by one of those who try, each result is handed out once.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "test/runtime.h"

static weft_pid pid_at(const wf_atomic_u64 *place)
{
	return (weft_pid){wf_u64_load_acquire(place)};
}

/* ---- One fiber, wakers of every kind -------------------------------------------------------- */

enum { KINDS = 5, KIND_FOREIGN = 3, FLAGS = 20000 };

struct flag {
	WF_ALIGNED(128) wf_atomic_u32 up;
	uint32_t seen; /* the sleeper's */
};

struct sleeper {
	struct flag flags[KINDS];
	wf_atomic_u32 inside; /* two runs of the fiber at once would see 1 */
	wf_atomic_u32 kinds;  /* numbers given to the wakers that are processes */
	weft_pid pid;
	unsigned count; /* of flags, each waker */
};

/* Takes down the flags that are up; true when it has seen all there will be. */
static bool lower_flags(struct sleeper *sleeper)
{
	uint64_t seen = 0;

	for (int i = 0; i < KINDS; i++) {
		struct flag *flag = &sleeper->flags[i];

		if (wf_u32_load_acquire(&flag->up)) {
			flag->seen++;
			wf_u32_store_release(&flag->up, 0);
		}
		seen += flag->seen;
	}
	return seen == (uint64_t)KINDS * sleeper->count;
}

static int sleeps(void *arg)
{
	struct sleeper *sleeper = arg;
	bool all = false;

	while (!all) {
		cr_assert_eq(wf_u32_exchange(&sleeper->inside, 1), 0);
		all = lower_flags(sleeper);
		cr_assert_eq(wf_u32_exchange(&sleeper->inside, 0), 1);
		if (!all)
			cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	}
	return 0;
}

static void raise_flag(struct sleeper *sleeper, struct flag *flag)
{
	wf_u32_store_release(&flag->up, 1);
	cr_assert_eq(weft_wake(sleeper->pid), 0);
}

static int raises_flags(void *arg)
{
	struct sleeper *sleeper = arg;
	struct flag *flag = &sleeper->flags[wf_u32_fetch_add(&sleeper->kinds, 1)];

	for (unsigned i = 0; i < sleeper->count; i++) {
		raise_flag(sleeper, flag);
		UNTIL(wf_u32_load_acquire(&flag->up) == 0);
	}
	return 0;
}

static void raises_flags_outside(unsigned index, void *arg)
{
	struct sleeper *sleeper = arg;
	struct flag *flag = &sleeper->flags[KIND_FOREIGN + index];

	for (unsigned i = 0; i < sleeper->count; i++) {
		raise_flag(sleeper, flag);
		UNTIL_FOREIGN(wf_u32_load_acquire(&flag->up) == 0);
	}
}

/* Wakers: on the sleeper's worker, on the other, on a worker of another runtime, two threads. */
static void sleep_under_flags(unsigned flags)
{
	struct sleeper sleeper = {.count = FLAGS / HARNESS_SLOWDOWN};
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = flags, .worker = WEFT_WORKER(0)};
	weft_rt *own = runtime_new(2);
	weft_rt *other = runtime_new(1);
	weft_pid wakers[KIND_FOREIGN];

	cr_assert_eq(weft_rt_spawn(own, sleeps, &sleeper, &opts, &sleeper.pid), 0);
	opts.flags = 0;
	cr_assert_eq(weft_rt_spawn(own, raises_flags, &sleeper, &opts, &wakers[0]), 0);
	cr_assert_eq(weft_rt_spawn(other, raises_flags, &sleeper, &opts, &wakers[1]), 0);
	opts.worker = WEFT_WORKER(1);
	cr_assert_eq(weft_rt_spawn(own, raises_flags, &sleeper, &opts, &wakers[2]), 0);
	harness_threads(KINDS - KIND_FOREIGN, raises_flags_outside, &sleeper);
	for (int i = 0; i < KIND_FOREIGN; i++)
		cr_assert_eq(joined(wakers[i]), 0);
	cr_assert_eq(joined(sleeper.pid), 0);
	runtime_end(other);
	runtime_end(own);
	for (int i = 0; i < KINDS; i++)
		cr_assert_eq(sleeper.flags[i].seen, sleeper.count, "waker %d", i);
}

Test(stress_runtime, sticky_sleeper_sees_every_flag, .timeout = 120)
{
	sleep_under_flags(0);
}

Test(stress_runtime, movable_sleeper_sees_every_flag, .timeout = 120)
{
	sleep_under_flags(WEFT_MOVABLE);
}

/* ---- Destroy under everything that takes an id ---------------------------------------------- */

enum { CROWD = 4000, CROWD_ROUNDS = 5, CROWD_THREADS = 3 };

struct member {
	wf_atomic_u64 pid;
	wf_atomic_u32 ran;
	wf_atomic_u32 destroyed;
	wf_atomic_u32 taken; /* joined or detached */
};

struct crowd {
	struct member members[CROWD];
	wf_atomic_u32 stop;
	wf_atomic_u32 touches;
	unsigned count;
	weft_rt *rt;
};

static void destroys_member(void *arg)
{
	struct member *member = arg;

	wf_u32_fetch_add(&member->destroyed, 1);
}

static int waits_for_its_end(void *arg)
{
	struct member *member = arg;
	uint64_t state = harness_seed() ^ weft_self().raw;
	int r;

	wf_u32_fetch_add(&member->ran, 1);
	do {
		bool briefly = harness_random_below(&state, 4) == 0;

		r = weft_park(briefly ? weft_after(WEFT_US(500)) : WEFT_FOREVER);
		cr_assert(r == 0 || (r == -ETIME && briefly) || r == -ECANCELED, "park: %d", r);
	} while (r != -ECANCELED);
	return 7;
}

static void join_member(struct member *member, weft_time deadline)
{
	weft_pid pid = pid_at(&member->pid);
	int result = 99;
	int r = deadline == WEFT_POLL ? weft_try_join(pid, &result)
				      : weft_join(pid, &result, deadline);

	cr_assert(
		r == 0 || r == -EAGAIN || r == -EBUSY || r == -ESRCH || r == -ETIME, "join: %d", r);
	cr_assert_eq(result, r == 0 ? 7 : 99, "join: %d", r);
	if (r == 0)
		cr_assert_eq(wf_u32_fetch_add(&member->taken, 1), 0);
}

/* `forever`: the caller has nothing else to do until the member ends. */
static void touch(struct member *member, uint64_t *state, bool forever)
{
	int r = 0;

	switch (harness_random_below(state, forever ? 101 : 100)) {
	case 0:
		r = weft_cancel(pid_at(&member->pid));
		break;
	case 1:
		r = weft_detach(pid_at(&member->pid));
		if (r == 0)
			cr_assert_eq(wf_u32_fetch_add(&member->taken, 1), 0);
		else if (r == -EBUSY)
			r = 0;
		break;
	case 2:
		join_member(member, weft_after(WEFT_US(50)));
		break;
	case 3:
	case 4:
		join_member(member, WEFT_POLL);
		break;
	case 100:
		join_member(member, WEFT_FOREVER);
		break;
	default:
		r = weft_wake(pid_at(&member->pid));
		break;
	}
	cr_assert(r == 0 || r == -ESRCH, "%d", r);
}

static void touches_a_crowd(unsigned index, void *arg)
{
	struct crowd *crowd = arg;
	uint64_t state = harness_seed() + index;

	if (index == CROWD_THREADS) {
		UNTIL_FOREIGN(wf_u32_load_relaxed(&crowd->touches) >= crowd->count / 4);
		runtime_end(crowd->rt);
		wf_u32_store_release(&crowd->stop, 1);
		return;
	}
	while (!wf_u32_load_acquire(&crowd->stop)) {
		uint64_t i = harness_random_below(&state, crowd->count);

		wf_u32_fetch_add(&crowd->touches, 1);
		touch(&crowd->members[i], &state, index == 0);
	}
}

static void gather(struct crowd *crowd)
{
	static const unsigned flags[] = {0, WEFT_MOVABLE, WEFT_SUSPENDED, WEFT_STACK_NOW};

	for (unsigned i = 0; i < crowd->count; i++) {
		struct member *member = &crowd->members[i];
		struct weft_spawn_opts opts = {.size = sizeof opts,
			.flags = flags[i % 4],
			.worker = i % 3 == 0 ? WEFT_WORKER(i % 2) : 0,
			.arg_dtor = destroys_member};
		weft_pid pid;

		wf_u32_store_relaxed(&member->ran, 0);
		wf_u32_store_relaxed(&member->destroyed, 0);
		wf_u32_store_relaxed(&member->taken, 0);
		cr_assert_eq(weft_rt_spawn(crowd->rt, waits_for_its_end, member, &opts, &pid), 0);
		wf_u64_store_release(&member->pid, pid.raw);
	}
}

Test(stress_runtime, destroy_under_wakes_cancels_joins_and_detaches, .timeout = 120)
{
	static struct crowd crowd;

	crowd.count = CROWD / HARNESS_SLOWDOWN;
	for (unsigned round = 0; round < CROWD_ROUNDS; round++) {
		wf_u32_store_relaxed(&crowd.stop, 0);
		wf_u32_store_relaxed(&crowd.touches, 0);
		crowd.rt = runtime_new(2);
		gather(&crowd);
		harness_threads(CROWD_THREADS + 1, touches_a_crowd, &crowd);
		for (unsigned i = 0; i < crowd.count; i++) {
			struct member *member = &crowd.members[i];

			cr_assert_eq(wf_u32_load_acquire(&member->ran), 1);
			cr_assert_eq(wf_u32_load_acquire(&member->destroyed), 1);
			cr_assert_leq(wf_u32_load_acquire(&member->taken), 1);
			cr_assert_eq(weft_wake(pid_at(&member->pid)), -ESRCH);
		}
	}
}

/* ---- Reservations --------------------------------------------------------------------------- */

enum { SLOTS = 6000, SETTLERS = 3, GUESTS = 4, GUEST_THREADS = 2 };

struct slot {
	wf_atomic_u64 pid;
	wf_atomic_u32 committed;
	wf_atomic_u32 aborted;
	wf_atomic_u32 ran;
	wf_atomic_u32 destroyed;
	wf_atomic_u32 joined;
};

struct hotel {
	struct slot slots[SLOTS];
	unsigned count;
	wf_atomic_u32 left; /* neither aborted nor joined yet */
	wf_atomic_u32 seeds;
};

static void destroys_slot(void *arg)
{
	struct slot *slot = arg;

	wf_u32_fetch_add(&slot->destroyed, 1);
}

static int runs_in_slot(void *arg)
{
	struct slot *slot = arg;
	int r;

	wf_u32_fetch_add(&slot->ran, 1);
	r = weft_park(weft_after(WEFT_US(20)));
	cr_assert(r == 0 || r == -ETIME || r == -ECANCELED, "park: %d", r);
	return (int)(weft_self().raw >> 32);
}

static void leave_slot(struct hotel *hotel, wf_atomic_u32 *how)
{
	cr_assert_eq(wf_u32_fetch_add(how, 1), 0);
	wf_u32_fetch_add(&hotel->left, (uint32_t)-1);
}

static int reserves(void *arg)
{
	struct hotel *hotel = arg;

	for (unsigned i = 0; i < hotel->count; i++) {
		weft_pid pid;

		cr_assert_eq(weft_spawn_reserve(&pid), 0);
		wf_u64_store_release(&hotel->slots[i].pid, pid.raw);
		if (i % 8 == 0)
			weft_yield();
	}
	return 0;
}

static void settle(struct hotel *hotel, struct slot *slot, uint64_t *state)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = destroys_slot};
	uint64_t random = harness_random(state);
	int r;

	if (random % 3 == 0) {
		r = weft_spawn_abort(pid_at(&slot->pid));
		if (r == 0)
			leave_slot(hotel, &slot->aborted);
	} else {
		opts.flags |= random & 16 ? WEFT_MOVABLE : 0;
		opts.flags |= random & 32 ? WEFT_SUSPENDED : 0;
		opts.worker = random & 64 ? WEFT_WORKER(random >> 7 & 1) : 0;
		r = weft_spawn_commit(pid_at(&slot->pid), runs_in_slot, slot, &opts);
		if (r == 0)
			cr_assert_eq(wf_u32_fetch_add(&slot->committed, 1), 0);
	}
	cr_assert(r == 0 || r == -ESRCH, "settle: %d", r);
}

/* All settlers go the same way, one behind the other's back. */
static int settles(void *arg)
{
	struct hotel *hotel = arg;
	uint64_t state = harness_seed() + wf_u32_fetch_add(&hotel->seeds, 1);

	for (unsigned i = 0; i < hotel->count; i++) {
		UNTIL(wf_u64_load_acquire(&hotel->slots[i].pid) != 0);
		settle(hotel, &hotel->slots[i], &state);
	}
	return 0;
}

static int join_slot(struct hotel *hotel, struct slot *slot, weft_time deadline)
{
	weft_pid pid = pid_at(&slot->pid);
	int result = 0;
	int r = weft_join(pid, &result, deadline);

	cr_assert(r == 0 || r == -EAGAIN || r == -EBUSY || r == -ESRCH || r == -ETIME ||
			  r == -ECANCELED,
		"join: %d", r);
	if (r == 0) {
		cr_assert_eq(result, (int)(pid.raw >> 32));
		leave_slot(hotel, &slot->joined);
	}
	return r;
}

struct errand {
	struct hotel *hotel;
	struct slot *slot;
};

static int joins_for_ever(void *arg)
{
	struct errand *errand = arg;

	return join_slot(errand->hotel, errand->slot, WEFT_FOREVER);
}

/* A joiner without a deadline that is cancelled about when it begins to wait. */
static void send_joiner(struct hotel *hotel, struct slot *slot, uint64_t *state)
{
	struct errand errand = {hotel, slot};
	unsigned flags = harness_random_below(state, 2) ? WEFT_MOVABLE : 0;
	weft_pid pid = spawned_with(joins_for_ever, &errand, flags, 0);

	for (uint64_t i = harness_random_below(state, 4); i > 0; i--)
		weft_yield();
	cr_assert_eq(weft_cancel(pid), 0);
	(void)joined(pid);
}

static void visit_slot(struct hotel *hotel, uint64_t *state, bool in_process)
{
	struct slot *slot = &hotel->slots[harness_random_below(state, hotel->count)];
	int r = 0;

	switch (harness_random_below(state, 8)) {
	case 0:
		r = weft_cancel(pid_at(&slot->pid));
		break;
	case 1:
		(void)join_slot(hotel, slot, WEFT_POLL);
		break;
	case 2:
	case 3:
		(void)join_slot(hotel, slot, weft_after(WEFT_US(30)));
		break;
	case 4:
		if (in_process)
			send_joiner(hotel, slot, state);
		else
			(void)join_slot(hotel, slot, WEFT_FOREVER);
		break;
	default:
		r = weft_wake(pid_at(&slot->pid));
		break;
	}
	cr_assert(r == 0 || r == -ESRCH, "%d", r);
}

static int is_guest(void *arg)
{
	struct hotel *hotel = arg;
	uint64_t state = harness_seed() + wf_u32_fetch_add(&hotel->seeds, 1);

	while (wf_u32_load_acquire(&hotel->left) > 0) {
		visit_slot(hotel, &state, true);
		weft_yield();
	}
	return 0;
}

static void is_guest_from_outside(unsigned index, void *arg)
{
	struct hotel *hotel = arg;
	uint64_t state = harness_seed() + 1000 + index;

	while (wf_u32_load_acquire(&hotel->left) > 0)
		visit_slot(hotel, &state, false);
}

static void check_slot(struct slot *slot)
{
	uint32_t committed = wf_u32_load_acquire(&slot->committed);

	cr_assert_eq(committed + wf_u32_load_acquire(&slot->aborted), 1);
	cr_assert_eq(wf_u32_load_acquire(&slot->ran), committed);
	cr_assert_eq(wf_u32_load_acquire(&slot->destroyed), committed);
	cr_assert_eq(wf_u32_load_acquire(&slot->joined), committed);
}

Test(stress_runtime, reservations_are_settled_once, .timeout = 120)
{
	enum { STAFF = 1 + SETTLERS + GUESTS };
	static struct hotel hotel;
	weft_fn jobs[STAFF] = {
		reserves, settles, settles, settles, is_guest, is_guest, is_guest, is_guest};
	weft_rt *rt = runtime_new(2);
	weft_pid pids[STAFF];

	hotel.count = SLOTS / HARNESS_SLOWDOWN;
	wf_u32_store_relaxed(&hotel.left, hotel.count);
	for (unsigned i = 0; i < STAFF; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(i % 2)};

		cr_assert_eq(weft_rt_spawn(rt, jobs[i], &hotel, &opts, &pids[i]), 0);
	}
	harness_threads(GUEST_THREADS, is_guest_from_outside, &hotel);
	for (unsigned i = 0; i < STAFF; i++)
		cr_assert_eq(joined(pids[i]), 0);
	runtime_end(rt);
	for (unsigned i = 0; i < hotel.count; i++)
		check_slot(&hotel.slots[i]);
}

/* ---- Runtimes that come and go -------------------------------------------------------------- */

enum { STORM_ROUNDS = 60, STORM_THREADS = 2, PAIRS = 6, HOPS = 40, CALLERS = 4 };

/* A process of the runtime that stays and one of a runtime that goes, each waking the other. */
struct pair {
	wf_atomic_u64 pids[2];
	wf_atomic_u32 turn;  /* hops done; the even ones are side 0's to follow */
	wf_atomic_u64 taken; /* the id whose result was handed out last */
};

struct storm {
	struct pair pairs[STORM_THREADS][PAIRS];
	weft_rt *stays;
	wf_atomic_u32 stop;
	wf_atomic_u32 seeds;
};

/* By the id: who took the result of an earlier round may say so late. */
static void note_taken(struct pair *pair, weft_pid pid, int result)
{
	cr_assert_eq(result, -ECANCELED);
	cr_assert_neq(wf_u64_exchange(&pair->taken, pid.raw), pid.raw);
}

/* Parks only for its turn: a wake that got lost between the runtimes hangs the test. */
static void hop(struct pair *pair, uint32_t side)
{
	int r;

	UNTIL(wf_u64_load_acquire(&pair->pids[!side]) != 0);
	for (uint32_t turn = side; turn < HOPS; turn += 2) {
		while (wf_u32_load_acquire(&pair->turn) != turn)
			cr_assert_eq(weft_park(WEFT_FOREVER), 0);
		wf_u32_store_release(&pair->turn, turn + 1);
		r = weft_wake(pid_at(&pair->pids[!side]));
		/* A caller may have woken it for its last hop: its runtime may be gone. */
		cr_assert(r == 0 || (r == -ESRCH && turn == HOPS - 2), "%d at hop %u", r, turn);
	}
}

static int hops_and_stays(void *arg)
{
	struct pair *pair = arg;
	weft_pid other;
	int result = 99;
	int r;

	hop(pair, 0);
	/* The other one ends by the destroy of its runtime, which then may forget its result. */
	other = pid_at(&pair->pids[1]);
	r = weft_join(other, &result, WEFT_FOREVER);
	cr_assert(r == 0 || r == -ESRCH || r == -EBUSY, "join: %d", r);
	if (r == 0)
		note_taken(pair, other, result);
	return 0;
}

static int hops_and_goes(void *arg)
{
	struct pair *pair = arg;

	hop(pair, 1);
	while (weft_park(WEFT_FOREVER) == 0)
		continue;
	return -ECANCELED;
}

/* From the runtime that stays: wakes and joins what may be of a runtime just being freed. */
static int calls_the_gone(void *arg)
{
	struct storm *storm = arg;
	uint64_t state = harness_seed() + wf_u32_fetch_add(&storm->seeds, 1);

	while (!wf_u32_load_acquire(&storm->stop)) {
		struct pair *row = storm->pairs[harness_random_below(&state, STORM_THREADS)];
		struct pair *pair = &row[harness_random_below(&state, PAIRS)];
		weft_pid pid = pid_at(&pair->pids[1]);
		int result = 99;
		int r;

		switch (harness_random_below(&state, 8)) {
		case 0:
			r = weft_join(pid, &result, weft_after(WEFT_US(20)));
			break;
		case 1:
			r = weft_try_join(pid, &result);
			break;
		default:
			r = weft_wake(pid);
			break;
		}
		cr_assert(r == 0 || r == -ESRCH || r == -EBUSY || r == -EAGAIN || r == -ETIME, "%d",
			r);
		if (result != 99) {
			cr_assert_eq(r, 0);
			note_taken(pair, pid, result);
		}
		if (harness_random_below(&state, 4) == 0)
			weft_yield();
	}
	return 0;
}

/* One runtime's life: pairs across, then its destroy while they are joined and called. */
static void come_and_go(struct storm *storm, struct pair *pairs, unsigned round)
{
	weft_rt *goes = runtime_new(1 + round % 2);
	weft_pid staying[PAIRS];

	for (unsigned i = 0; i < PAIRS; i++) {
		struct weft_spawn_opts opts = {
			.size = sizeof opts, .flags = (round + i) % 2 ? WEFT_MOVABLE : 0};
		weft_pid pid;

		wf_u32_store_relaxed(&pairs[i].turn, 0);
		wf_u64_store_release(&pairs[i].pids[0], 0);
		wf_u64_store_release(&pairs[i].pids[1], 0);
		cr_assert_eq(weft_rt_spawn(goes, hops_and_goes, &pairs[i], &opts, &pid), 0);
		wf_u64_store_release(&pairs[i].pids[1], pid.raw);
		cr_assert_eq(
			weft_rt_spawn(storm->stays, hops_and_stays, &pairs[i], &opts, &staying[i]),
			0);
		wf_u64_store_release(&pairs[i].pids[0], staying[i].raw);
	}
	for (unsigned i = 0; i < PAIRS; i++)
		UNTIL_FOREIGN(wf_u32_load_acquire(&pairs[i].turn) == HOPS);
	runtime_end(goes);
	for (unsigned i = 0; i < PAIRS; i++) {
		cr_assert_eq(joined(staying[i]), 0);
		cr_assert_eq(weft_wake(pid_at(&pairs[i].pids[1])), -ESRCH);
	}
}

static void storms(unsigned index, void *arg)
{
	struct storm *storm = arg;

	for (unsigned round = 0; round < STORM_ROUNDS / HARNESS_SLOWDOWN; round++)
		come_and_go(storm, storm->pairs[index], round);
}

Test(stress_runtime, runtimes_come_and_go_under_wakes_and_joins_of_another, .timeout = 120)
{
	static struct storm storm;
	weft_pid callers[CALLERS];

	storm.stays = runtime_new(2);
	for (unsigned i = 0; i < CALLERS; i++)
		cr_assert_eq(
			weft_rt_spawn(storm.stays, calls_the_gone, &storm, NULL, &callers[i]), 0);
	harness_threads(STORM_THREADS, storms, &storm);
	wf_u32_store_release(&storm.stop, 1);
	for (unsigned i = 0; i < CALLERS; i++)
		cr_assert_eq(joined(callers[i]), 0);
	runtime_end(storm.stays);
}
