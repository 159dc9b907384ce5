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

/* wait.c; owner: puts the timer of p's wait on the wheel. p is in no queue. */
void wf_proc_arm(struct wf_worker *worker, struct wf_proc *p, weft_time deadline);

/* Owner: takes the timer of p's wait off the wheel. Before queueing: the run link is its memory. */
WF_INLINE void wf_proc_disarm(struct wf_worker *worker, struct wf_proc *p)
{
	if (p->live.armed && !WF_PLANTED(wake_leaves_timer)) {
		wf_wheel_cancel(&worker->wheel, &p->timer);
		p->live.armed = false;
	}
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
