/*
 * virtual.h: a clock that moves by itself, for test runtimes whose workers have threads. Its time
 * (rt->clock) stands while anything runs, or is about to, and leaps to the next deadline when all
 * is at rest. virtual.c has the steps, core/README.md ("virtual time") the argument.
 *
 * A runtime is AT REST when every worker is parked, nobody holds its time, no blocking job is under
 * way, and nothing is in a queue. A LOOK asks whether that is so, and then moves time. A HOLD keeps
 * it where it is: what a thread of no worker does in one (a spawn, a post, a wake) is before a move
 * or after it.
 */
#ifndef WF_CORE_VIRTUAL_H
#define WF_CORE_VIRTUAL_H

#include <stdbool.h>

#include <weft/time.h>

#include "sync/atomic.h"

struct weft_rt;
struct wf_worker;
struct weft_virtual_opts;

struct wf_virtual {
	bool on; /* constant after create; false: all the rest is unused */
	/* Any thread. */
	wf_atomic_u32 asked WF_ALIGNED(WF_FALSE_SHARING); /* looks; 0: nobody is at one (R2) */
	wf_atomic_u32 holds;
	wf_atomic_u64 limit;     /* time goes at most here; WEFT_FOREVER: it is not frozen */
	wf_atomic_u32 limited;   /* somebody sets it, or is inside weft_virtual_advance() */
	wf_atomic_u32 rested;    /* looks that found nothing due up to the limit; futex */
};

/* Of one worker. */
struct wf_virtual_worker {
	wf_atomic_u64 due;   /* R1: when it wants to be awake */
	wf_atomic_u64 parks; /* R1: announced so far */
};

/* Before the workers are made. */
void wf_virtual_start(struct weft_rt *rt, const struct weft_virtual_opts *opts);

/* R1, by a worker about to announce its park. */
void wf_virtual_park(struct wf_worker *worker, weft_time due);

/* R2 to R5. Any thread that keeps rt alive: after a park, a hold, a job. */
void wf_virtual_ask(struct weft_rt *rt);

/* R6. Any thread that keeps rt alive, for long enough to publish something, and not to wait. */
void wf_virtual_hold_on(struct weft_rt *rt);
void wf_virtual_let_go(struct weft_rt *rt);

/* Inside a hold: a stop has begun, and needs time. */
void wf_virtual_thaw(struct weft_rt *rt);

/* The runtime has ended: who waits for rest is told. */
void wf_virtual_end(struct weft_rt *rt);

/* Of the monitor, everybody having slept for long: says so if that is for ever. */
void wf_virtual_report(struct weft_rt *rt);

#endif
