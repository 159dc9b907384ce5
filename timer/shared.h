/*
 * shared.h: one timer wheel for all threads, in shards.
 *
 *	wf_shared_insert(shared, shard, timer, kind, deadline_ns)  any thread
 *	wf_shared_cancel(shared, shard, timer)       true: it was pending; the node is the caller's
 *	wf_shared_later(timer, deadline_ns)          of kind TIMER: a later deadline, no lock
 *	wf_shared_expire(shared, shard, now_ns, batch, wait)   a batch that is due, copied out
 *	wf_shared_expired(shared, shard)             its actions are done
 *	wf_shared_lead / _resign / _leader           who sleeps until the earliest deadline
 *
 * Words. A SHARD is a wheel (timer/wheel.h) under a short lock; there is one for each worker, and
 * whoever inserts chooses one and remembers which. A timer's ACTION is what its owner wants done
 * when it fires. The LEADER is the parked worker that sleeps until the earliest deadline of all
 * shards.
 *
 * Firing. Under the shard's lock, timers whose time has come are popped, their actions copied into
 * the caller's batch (`copy`, told to wf_shared_init), and not touched again. The actions are then
 * done without the lock. So
 *   N1  when cancel returns, the node is the caller's: nobody else will touch it. True: it never
 *       fires. False: it has fired (or was never inserted), and its action has been done, is being
 *       done, or will be.
 *   N2  a shard has one expirer at a time, from wf_shared_expire() to wf_shared_expired(). Batches
 *       started and done are counted, and a cancel that came too late tells with which one the
 *       timer has fired: once that many are done, its action has been done.
 *   N3  the lock is held for at most WF_SHARED_BATCH pops, WF_SHARED_MOVES between slots (and
 *       what wheel.c says of the events in one advance: four stores for each of 127 slots).
 *
 * A deadline moved later (kind TIMER) is one compare-and-swap on `due`, {deadline 63 | FIRED}. Who
 * pops the node sets {its batch 63 | FIRED} by the same means; if the deadline has moved, it is
 * filed again instead.
 * The low bit of the node's own deadline_ns tells the kind; its tick is the deadline's.
 *
 * While a batch is out, the shard publishes "never": its expirer looks again, and nobody else could
 * do anything. So the shard's other timers wait for the actions, which must be short.
 *
 * THE PROTOCOL of the leader. Each shard publishes when it wants to be looked at (`next_ns`: never
 * later than its earliest deadline's tick).
 *
 * Insert.
 *   I1  under the lock: the timer is on the wheel; if it is due before what is published, publish
 *       that, by an RMW. Unlock.
 *   I2  if I1 published: load the leader's word, seq_cst. A leader that sleeps for longer: wake it.
 *       None, and somebody is parked: tell who looks after that (core: the monitor).
 * Park.
 *   L1  load every shard's next_ns.
 *   L2  one CAS puts {worker, the earliest} into the leader's word, if there is no leader.
 *   L3  (caller) announce the park, by an RMW.
 *   L4  if we lead: load every shard's next_ns again, seq_cst. Earlier than what L2 said: undo.
 *   L5  sleep until then; awake again, resign, by an RMW; then, if somebody is parked, tell who
 *       looks after what comes while nobody leads, as in I2.
 *   L6  (caller) if somebody else led at L2: load the leader's word, seq_cst. None: undo, from L1.
 *
 * Somebody leads, or nobody is parked, or who looks after that was told: if L6 sees a leader who
 * resigns, that one's L5 comes after L3, and sees that somebody is parked; so does an I2 that finds
 * no leader.
 *
 * No deadline is missed: if I2's load does not see L2's word, it precedes L2 in the total order of
 * seq_cst operations, so I1's RMW precedes L4's load, which sees it (or something later still: what
 * the shard's expirer has published since). If it sees it, the leader is woken: its parked bit is
 * set, or L3's announcement is still to come and L4 after it, or it is awake and looks. If I1 had
 * nothing to publish, a leader that is too late would have slept past what was there already: it
 * was published by an I1, whose I2 has woken it or is about to, or by wf_shared_expired(), whose
 * caller takes I2, or by wf_shared_expire(), which never publishes an earlier time than before.
 *
 * Progress: insert, cancel: blocking, for N3 at most (a preempted holder: sync/shortlock.h). later,
 * lead, resign: lock-free. expire with `wait` false: wait-free; a worker never waits for a foreign
 * shard.
 *
 * No allocation, no system call but the lock's, no clock.
 */
#ifndef WF_TIMER_SHARED_H
#define WF_TIMER_SHARED_H

#include "sync/atomic.h"
#include "sync/shortlock.h"
#include "timer/wheel.h"

enum {
	WF_SHARED_BATCH = 16,
	WF_SHARED_MOVES = WF_WHEEL_MOVES_PACED, /* fewer, and 100,000 a second are behind time */
};

/* Whose node it is. */
enum wf_shared_kind {
	WF_SHARED_PROCESS, /* the wait of a process: its `user` word is the process's */
	WF_SHARED_TIMER,   /* its `due` word is ours */
};

/* What is copied out of a node: the meaning is its maker's. */
struct wf_shared_action {
	uint64_t word[3];
};

typedef void (*wf_shared_copy)(
	struct wf_timer *timer, enum wf_shared_kind kind, struct wf_shared_action *action_out);

struct wf_shared_batch {
	unsigned count;
	struct wf_shared_action actions[WF_SHARED_BATCH];
};

struct wf_shared_shard {
	/* Whoever inserts, cancels or expires. */
	struct wf_shortlock lock WF_ALIGNED(WF_FALSE_SHARING);
	bool expiring; /* N2; guarded by `lock`, like all up to `done` */
	bool closed;
	uint64_t started;   /* batches */
	wf_atomic_u64 done; /* batches; written under `lock` */
	wf_atomic_u64 pending; /* timers; written under `lock` */
	/* Read by everybody in each turn. */
	wf_atomic_u64 next_ns WF_ALIGNED(WF_FALSE_SHARING);
	struct wf_wheel wheel WF_ALIGNED(WF_FALSE_SHARING); /* guarded by `lock` */
};

struct wf_shared {
	struct wf_shared_shard *shards;
	unsigned count;
	wf_shared_copy copy;
	/* {until / 64 ns | worker + 1}; 0: none */
	wf_atomic_u64 leader WF_ALIGNED(WF_FALSE_SHARING);
};

#define WF_SHARED_FIRED ((uint64_t)1)

/* A `due` word. Not 0, which says "not inserted". */
WF_INLINE uint64_t wf_shared_due(int64_t deadline_ns)
{
	if (deadline_ns < 1)
		return 2;
	return (uint64_t)(deadline_ns < WF_WHEEL_END_NS ? deadline_ns : WF_WHEEL_END_NS) << 1;
}

/* `shards`: memory for `count` of them, aligned to WF_FALSE_SHARING. */
void wf_shared_init(struct wf_shared *shared, struct wf_shared_shard *shards, unsigned count,
	int64_t now_ns, wf_shared_copy copy);

/* What an insert came to. */
enum wf_shared_inserted {
	WF_SHARED_CLOSED,  /* not inserted: wf_shared_close() was first */
	WF_SHARED_LATER,   /* inserted */
	WF_SHARED_EARLIER, /* inserted, and the shard has published an earlier next_ns: I2 is due */
};

/*
 * Puts the timer on a shard's wheel: it must be zero, or have been popped or cancelled. Its memory
 * stays in place until it has fired or been cancelled. A deadline in the past is due at once.
 */
enum wf_shared_inserted wf_shared_insert(struct wf_shared *shared, unsigned shard,
	struct wf_timer *timer, enum wf_shared_kind kind, int64_t deadline_ns);

/*
 * N1. `shard`: where it was inserted last. batch_out: NULL, or receives what to wait for in
 * wf_shared_is_done(); 0, for nothing, after true. Then one of kind TIMER is as if never inserted.
 */
bool wf_shared_cancel(
	struct wf_shared *shared, unsigned shard, struct wf_timer *timer, uint64_t *batch_out);

/*
 * Waits until who holds the shard's lock is through with it: of a node that has fired, its expirer
 * has copied what it needs. Returns the batch that is out; 0: none is.
 */
uint64_t wf_shared_pass(struct wf_shared *shared, unsigned shard);

enum wf_shared_moved {
	WF_SHARED_OVER,    /* it has fired, or was cancelled, or never inserted */
	WF_SHARED_MOVED,
	WF_SHARED_SOONER,  /* nothing was done: it is due after that deadline */
};

/* Of kind TIMER, by who may cancel it: one load and, if it is not sooner, one compare-and-swap. */
WF_INLINE enum wf_shared_moved wf_shared_move_later(struct wf_timer *timer, int64_t deadline_ns)
{
	/* Acquire, as F3 in wf_shared_is_pending(). */
	uint64_t due = wf_u64_load_acquire(&timer->due), later = wf_shared_due(deadline_ns);

	do {
		if (due == 0 || (due & WF_SHARED_FIRED))
			return WF_SHARED_OVER;
		if (WF_UNLIKELY(later < due))
			return WF_SHARED_SOONER;
		/* F1, with F2 in fires(): who has moved is not fired by the old deadline. */
	} while (!wf_u64_cas(&timer->due, &due, later));
	return WF_SHARED_MOVED;
}

/* The same of a deadline that is not before the present one. False: OVER. */
WF_INLINE bool wf_shared_later(struct wf_timer *timer, int64_t deadline_ns)
{
	enum wf_shared_moved r = wf_shared_move_later(timer, deadline_ns);

	WF_ASSERT(r != WF_SHARED_SOONER);
	return r == WF_SHARED_MOVED;
}

/*
 * Of kind TIMER, any thread: whether it has been inserted and neither fired nor been cancelled.
 * That it has fired is no leave to use its memory for something else, here and in
 * wf_shared_later(): its expirer may still be copying. A cancel is, the action is, and to insert it
 * again into the same shard is safe.
 */
bool wf_shared_is_pending(const struct wf_timer *timer);

/* Of kind TIMER: zero, or cancelled, or closed: there is no action to wait for. */
WF_INLINE bool wf_shared_was_never_inserted(const struct wf_timer *timer)
{
	return wf_u64_load_relaxed(&timer->due) == 0;
}

/* The deadline of one that is pending; 1 for what was past at 0, INT64_MAX for never. */
int64_t wf_shared_deadline(const struct wf_timer *timer);

/* True once every action of the batches up to `batch` has been done. Any thread. */
WF_INLINE bool wf_shared_is_done(const struct wf_shared *shared, unsigned shard, uint64_t batch)
{
	/* B1: acquire, with B2 in wf_shared_expired(): what the actions did. */
	return wf_u64_load_acquire(&shared->shards[shard].done) >= batch;
}

/* What an expirer found. */
enum wf_shared_expiry {
	WF_SHARED_BUSY,    /* somebody else holds the lock, or expires it: nothing was done */
	WF_SHARED_NOTHING, /* was due; next_ns may still be in the past, for moves between slots */
	WF_SHARED_FIRES,   /* batch_out holds at least one action; wf_shared_expired() is owed */
};

/*
 * Takes a batch of what is due at now_ns. wait: for the lock (the shard's own worker may).
 */
enum wf_shared_expiry wf_shared_expire(struct wf_shared *shared, unsigned shard, int64_t now_ns,
	bool wait, struct wf_shared_batch *batch_out);

/*
 * The batch's actions are done. Publishes next_ns again, as an insert does: I2 is due for what is
 * put into next_ns_out.
 */
void wf_shared_expired(struct wf_shared *shared, unsigned shard, int64_t *next_ns_out);

/*
 * Every shard publishes when its earliest timer is due, where that has been cancelled too: a cancel
 * does not, for it costs less to look once in vain. For who moves time by what is published.
 */
void wf_shared_refresh(struct wf_shared *shared);

/*
 * No more inserts; every timer that is pending is taken off, as if it had been cancelled. After all
 * expirers have gone.
 */
void wf_shared_close(struct wf_shared *shared);

/* When a shard wants to be looked at; INT64_MAX: never, as things are. */
WF_INLINE int64_t wf_shared_shard_next(const struct wf_shared *shared, unsigned shard)
{
	return (int64_t)wf_u64_load_relaxed(&shared->shards[shard].next_ns);
}

/* The earliest of all shards (L1, L4). */
int64_t wf_shared_next(const struct wf_shared *shared);

/* Takes the lead (L2) until until_ns, when the worker will wake up. False: somebody has it. */
bool wf_shared_lead(struct wf_shared *shared, unsigned worker, int64_t until_ns);

/* The leader, awake (L5). */
void wf_shared_resign(struct wf_shared *shared, unsigned worker);

enum {
	WF_SHARED_LEADER_KNOWS = -1, /* it sleeps until then, or less */
	WF_SHARED_NO_LEADER = -2,
};

/* I2: the worker that leads, if it sleeps past deadline_ns; or one of the above. */
int wf_shared_leader_to_wake(const struct wf_shared *shared, int64_t deadline_ns);

/* Timers of all shards; without their locks: a guess while others work. */
uint64_t wf_shared_pending(const struct wf_shared *shared);

/* Checks every shard, under its lock; prints the first thing that is wrong. */
bool wf_shared_valid(struct wf_shared *shared, FILE *out);

#endif
