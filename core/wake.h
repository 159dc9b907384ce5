/*
 * wake.h: making processes ready: local, remote, movable; and what the loop does around a run.
 * core/README.md has the protocol in numbered steps (W1 …); labels here refer to it.
 */
#ifndef WF_CORE_WAKE_H
#define WF_CORE_WAKE_H

#include "core/runtime.h"

/*
 * Wakes p. token: a weft_wake(), which weft_park() consumes; otherwise an internal wake. `worker`
 * is the calling thread's, NULL on foreign threads; it may be of another runtime. In a read
 * section. Idempotent; a process that has ended is left alone. What the caller wrote before is
 * visible to the run that serves the wake.
 */
void wf_proc_wake(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, bool token);

/*
 * An internal wake of a task that has armed something in the run which goes on, or in an earlier
 * one: for peers that do not claim, so it may come late, and cause a run for nothing. It is run
 * soon: next, where `next` says that the calling worker, done with a process, is about to pick.
 */
void wf_proc_wake_task(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, bool next);

/* wait.c; of a sticky process, by its owner: takes its timer off the wheel. */
void wf_proc_take_timer(struct wf_worker *worker, struct wf_proc *p);

/*
 * Of a sticky process, by its owner: the timer of its wait, on the worker's wheel (of a movable
 * one: core/timers.h). If the timer of an earlier wait is there still and not after this deadline,
 * that is a store. To be followed by wf_proc_leave_armed().
 */
WF_INLINE void wf_proc_arm_sticky(struct wf_worker *worker, struct wf_proc *p, weft_time deadline)
{
	p->live.until = true;
	if (WF_PLANTED(rearm_ignores_earlier) && p->live.armed
		&& deadline < p->timer.deadline_ns)
		return;
	if (WF_LIKELY(p->live.armed)) {
		wf_wheel_move(&worker->wheel, &p->timer, deadline);
	} else {
		p->live.armed = true;
		wf_wheel_insert(&worker->wheel, &p->timer, deadline);
	}
}

/*
 * Of a sticky process: its wait by that timer is over. It stays where it is, for the next wait; but
 * who moves time by the timers there are (a virtual clock) must not find one that nobody waits for.
 */
WF_INLINE void wf_proc_leave_armed(struct wf_worker *worker, struct wf_proc *p)
{
	p->live.until = false;
	if (WF_UNLIKELY(worker->exact_timers) && p->live.armed)
		wf_proc_take_timer(worker, p);
}

/* Owner, from the drain: p came out of the inbox. */
void wf_proc_drained(struct wf_worker *worker, struct wf_proc *p);

/* Owner, before each run of a sticky process: that run serves a remote wake that is pending. */
WF_INLINE void wf_proc_serve_remote(struct wf_proc *p)
{
	uint32_t remote = wf_u32_load_relaxed(&p->remote);

	if (WF_PLANTED(wake_served_twice))
		return;
	if (WF_PLANTED(wake_served_by_store) && (remote & WF_REMOTE_PLACE) == WF_REMOTE_PENDING) {
		wf_u32_store_release(
			&p->remote, (remote & ~(uint32_t)WF_REMOTE_PLACE) | WF_REMOTE_LINKED);
		return;
	}
	/* W5: acquire (part of the cas), with W3 in wake_remote(): what the wakers wrote. */
	while (WF_UNLIKELY((remote & WF_REMOTE_PLACE) == WF_REMOTE_PENDING))
		if (wf_u32_cas(&p->remote, &remote,
			    (remote & ~(uint32_t)WF_REMOTE_PLACE) | WF_REMOTE_LINKED))
			break;
}

/*
 * Sets the cancellation flag of a live process of that generation and wakes it (starts it, if it is
 * suspended). False: there is none. Any thread, in a read section.
 */
bool wf_proc_cancel(
	struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, uint32_t generation);

/* Queues a process in state NEW (not PLACED) from the calling thread: ring, or injector. */
void wf_proc_enqueue_new(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p);

#endif
