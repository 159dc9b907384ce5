/* embed.h: embedded runtimes, stepped by a thread of the host's. embed.c tells the story. */
#ifndef WF_CORE_EMBED_H
#define WF_CORE_EMBED_H

#include "core/runtime.h"

/* What came of a step. */
enum wf_step {
	WF_STEP_BUSY,  /* something was done, or is to do */
	WF_STEP_IDLE,  /* nothing is to do now; the worker is parked, or would be did it not spin */
	WF_STEP_ENDED, /* the runtime has */
};

/* boot.c: opens the worker on the calling thread. 0, or -errno and the error recorded. */
int wf_embed_open(struct weft_rt *rt);
/* After the end: what weft_rt_fd() has made. */
void wf_embed_close(struct weft_rt *rt);

/* An embedded runtime, and the calling thread is the one that steps it. */
bool wf_embed_is_owner(const struct weft_rt *rt);

/*
 * Between the two the calling thread is the worker, and awake. 0; -EINVAL not embedded; -EDEADLK
 * inside a runtime; -EPERM another thread's; -ESHUTDOWN: a leave has seen the end: that one returns
 * true, and another thread may have freed `rt` by then.
 */
int wf_embed_enter(struct weft_rt *rt);
bool wf_embed_leave(struct weft_rt *rt);

/* Inside: one turn of at most `budget` processes. After IDLE: leave, or wait. */
enum wf_step wf_embed_step(struct weft_rt *rt, unsigned budget);

/*
 * Virtual clock, idle. Held: time must not pass, for blocking work is under way, or something has
 * come since. Pass: waits while that is so; else goes to where something falls due, at most to
 * `limit`; awake then. False: that is never.
 */
bool wf_embed_is_held(struct weft_rt *rt);
bool wf_embed_pass(struct weft_rt *rt, weft_time limit);

/*
 * The owner, outside: polls until the runtime has ended: true; false: the deadline (of the kernel's
 * clock) passed, or the clock is virtual and everything that is alive waits for ever.
 */
bool wf_embed_drive(struct weft_rt *rt, weft_time deadline);

/*
 * The owner, outside: polls until a process has ended, and takes its result: as weft_try_join();
 * -EDEADLK: it waits for ever (virtual clock), and is left to itself.
 */
int wf_embed_join(struct weft_rt *rt, weft_pid pid, int *result_out);

#endif
