/*
 * <weft/timer.h>: timers of the program's own: at a deadline a process is woken, or a function is
 * called.
 *
 *	struct weft_timer timer = { 0 };
 *
 *	weft_timer_start(&timer, NULL, weft_after(WEFT_SEC(5)), expire, session);
 *	…
 *	weft_timer_move(&timer, weft_after(WEFT_SEC(5)));    still in use: five more seconds
 *	…
 *	weft_timer_cancel_wait(&timer, WEFT_FOREVER);        `session` may be freed
 *
 * Most programs need none: every call that can wait takes a deadline, and a process can sleep. A
 * timer is for what has no process of its own to wait, such as an entry of a cache.
 *
 * The caller owns struct weft_timer: 96 bytes that must stay in place while it is pending, and that
 * Weft does not touch afterwards. Nothing is allocated. A timer is PENDING from its start until it
 * fires or is stopped; then it may be started again, with another deadline, action and runtime.
 * Firing comes before its action, so a timer may be started anew in its own action, or freed there.
 * In one runtime two actions of one timer are never under way at the same time.
 *
 * Never early; late by at most a tick (1 us by default) and what the workers are busy with: any
 * worker of the runtime that comes by fires it. weft_coalesce() lets many meet. Timers do not keep
 * a runtime alive; those pending at its end never fire, and from weft_rt_destroy() on count as
 * never started.
 *
 * Its memory is the caller's again, to free or to use for something else, after a
 * weft_timer_stop(), whatever that returns, and in its action.
 *
 * Threads: any thread, if not said otherwise; but on one timer one call at a time, and the caller
 * sees to the order (its firing may come in between at any moment: the results below tell).
 */
#ifndef WEFT_TIMER_H
#define WEFT_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include <weft/process.h>
#include <weft/time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct weft_rt;

/* All zero: not pending. */
struct weft_timer {
	uint64_t reserved[12];
};

/*
 * Starts a timer that calls fn(arg) at the deadline, on a worker of the runtime and outside a
 * process: calls that can park give -EPERM there. fn must not block, nor stay long: it holds up
 * that worker, and the timers of its shard. It may wake, post, spawn (weft_rt_spawn()), start
 * timers.
 * rt: NULL, the caller's. deadline: one in the past fires at once, on the next turn of a worker;
 * WEFT_FOREVER: never, but it counts as pending.
 * Blocks: never. Returns: 0; -EBUSY: it is pending; -EINVAL: no fn; -EPERM: no rt, and the caller
 * is in none; -ESHUTDOWN: the runtime has ended.
 */
WEFT_API int weft_timer_start(struct weft_timer *timer, struct weft_rt *rt, weft_time deadline,
	void (*fn)(void *arg), void *arg);

/*
 * Starts a timer that does weft_wake(pid) at the deadline. All else as weft_timer_start(); a
 * process that has ended by then is no error.
 */
WEFT_API int weft_timer_start_wake(
	struct weft_timer *timer, struct weft_rt *rt, weft_time deadline, weft_pid pid);

/*
 * Moves a pending timer to another deadline. Later costs one compare-and-swap, so a timeout can be
 * put off at every use.
 * Blocks: never. Returns: 1: moved; 0: it is not pending: it has fired, or was never started.
 */
WEFT_API int weft_timer_move(struct weft_timer *timer, weft_time deadline);

/*
 * Stops a timer.
 * Blocks: never. Returns: 1: it was pending, and never fires; 0: it was not: if it has fired, its
 * action has been done, is being done, or will be (weft_timer_cancel_wait()).
 */
WEFT_API int weft_timer_stop(struct weft_timer *timer);

/*
 * Stops a timer; and if it has fired, before its last start too, waits until its action is done.
 * Threads: any process, or a thread outside every runtime. A task may call it too, but not wait.
 * Blocks: until that action, and up to 15 others fired with it, have returned, or the deadline.
 * Cancel: -ECANCELED; the timer is stopped all the same.
 * Returns: 1: it was pending, and never fires; 0: it was not; either way no action of it is under
 * way. -ETIME, -EAGAIN (WEFT_POLL), -ECANCELED: one may be; -EDEADLK: called in a timer's action
 * that is part of what would be waited for; -EPERM: the caller (a task, a post, another timer's
 * action) cannot wait for one. After each of these it is stopped, too.
 */
WEFT_API int weft_timer_cancel_wait(struct weft_timer *timer, weft_time deadline);

/* Whether it is pending. Blocks: never. */
WEFT_API bool weft_timer_is_pending(const struct weft_timer *timer);

#ifdef __cplusplus
}
#endif

#endif
