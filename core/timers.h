/*
 * timers.h: the runtime's shared wheel (timer/shared.h), as workers and waits use it.
 *
 * On it are the deadlines of movable processes and of struct weft_timer; sticky processes have
 * theirs on the wheel of their worker, which nobody else touches. Its shards are the workers': each
 * inserts into its own, foreign threads into one after another.
 *
 * Who fires what is due:
 *   - a worker that is awake: its own shard in every turn, the others' every LOOK_NS;
 *   - all being parked, or busy elsewhere: the leader, a parked worker whose sleep ends with the
 *     earliest deadline of all shards. It is the one that parks while nobody leads; awake, it
 *     resigns, and the next to park takes over;
 *   - nobody leads, somebody is parked, and those awake hold their workers: the monitor, 1 ms after
 *     the deadline, wakes one of the parked. In a runtime without a monitor who inserts wakes one,
 *     and a leader that was woken for something else.
 *
 * A movable process that waits until a deadline is ANCHORED, and its word's owner names the shard.
 * Whoever makes it ready (W9, W10) takes the timer off before it queues the process, whose link is
 * that memory; if it had fired, live.timed_out is set. So a node on the wheel belongs to a wait
 * that goes on, and the wake of one that has fired comes at worst too late, to no harm: waits look
 * again at what they wait for.
 */
#ifndef WF_CORE_TIMERS_H
#define WF_CORE_TIMERS_H

#include "core/runtime.h"

/*
 * Memory, before workers run; 0 or -ENOMEM. All timers off, after they have ended, and while calls
 * of <weft/timer.h> still find the runtime: once they do not, nobody waits for them.
 */
int wf_timers_make(struct weft_rt *rt);
void wf_timers_close(struct weft_rt *rt);
void wf_timers_unmake(struct weft_rt *rt);

/*
 * By its worker: the deadline of a movable process's wait. From here on it may be woken by it.
 */
void wf_timers_arm(struct wf_worker *worker, struct wf_proc *p, weft_time deadline);

/* Takes it off again. By who alone may queue p; `shard`: the worker it was armed on. */
void wf_timers_disarm(struct weft_rt *rt, struct wf_proc *p, unsigned shard);

/* Step 6 of a turn: fires what is due; returns how many. */
unsigned wf_timers_expire(struct wf_worker *worker);

/* Whether that would look at something. */
WF_INLINE bool wf_timers_are_due(const struct wf_worker *worker)
{
	const struct wf_shared *timers = &worker->rt->timers;

	return wf_shared_shard_next(timers, worker->number) <= worker->now
		|| (timers->count > 1 && worker->timers_look_at <= worker->now
			&& wf_shared_next(timers) <= worker->now);
}

/*
 * Parking. lead: L1, L2; `own`: when the worker will wake up anyway. may_sleep: L4, L6 (after
 * the announcement): false: something is due before, or nobody leads. resign: L5.
 */
void wf_timers_lead(struct wf_worker *worker, weft_time own);
bool wf_timers_may_sleep(const struct wf_worker *worker);
void wf_timers_resign(struct wf_worker *worker);

/*
 * When the shards want this worker awake, if it is parked: only the leader, or who is alone. The
 * leader at the time it has announced, though that may have been cancelled since.
 */
WF_INLINE weft_time wf_timers_next(const struct wf_worker *worker)
{
	if (worker->leads)
		return worker->leads_until;
	return worker->rt->worker_count == 1 ? wf_shared_next(&worker->rt->timers) : WEFT_FOREVER;
}

/*
 * The same, of a virtual clock: not the time of a deadline that is over, nor what a park has
 * announced, which may be housekeeping's. Its runtime has one worker.
 */
weft_time wf_timers_exact_next(struct wf_worker *worker);

/*
 * I2, after an insert that made its shard earlier. `self`: the calling worker, or NULL. Any thread.
 */
void wf_timers_published(struct weft_rt *rt, const struct wf_worker *self, weft_time deadline);

/* The shard for an insert by the calling thread. */
unsigned wf_timers_shard(struct weft_rt *rt);

/* --- timer.c: struct weft_timer --- */

/* What an action's word[0] says. */
enum wf_timer_action {
	WF_TIMER_PROCESS, /* the wait of a process is over */
	WF_TIMER_WAKE,
	WF_TIMER_CALL,
};

void wf_timer_copy(const struct wf_timer *timer, struct wf_shared_action *action_out);
void wf_timer_act(struct wf_worker *worker, const struct wf_shared_action *action);
void wf_timer_tell_waiters(struct weft_rt *rt);

/* A batch is done: who waits for that is told. */
WF_INLINE void wf_timer_tell(struct weft_rt *rt)
{
	/* H2: relaxed: the shard's lock, taken by both, orders it with H1 in wait_for(). */
	if (WF_UNLIKELY(wf_u32_load_relaxed(&rt->timer_waiters_count) > 0))
		wf_timer_tell_waiters(rt);
}

/*
 * The monitor's look: wakes somebody for what is overdue while nobody leads. Returns when to look
 * again at the latest; so also while somebody leads, or each leader that wakes up, and is about to
 * lead again, would have to ask for it.
 */
weft_time wf_timers_rescue(struct weft_rt *rt, weft_time now);

#endif
