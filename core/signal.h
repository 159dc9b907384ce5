/*
 * <weft/signal.h>: the signals INT, TERM, QUIT, HUP, USR1 and USR2, received by processes.
 *
 * While weft_main() runs, or a runtime made with WEFT_RT_SIGNALS lives, its thread owns these
 * signals for the whole program: their handlers, if the host has any, are not called. A process
 * that wants one subscribes to it and waits; every subscribed process, of whatever runtime, then
 * receives every one of them exactly once. Several of one kind that come before a process has taken
 * the first are one, as in the kernel.
 *
 *	weft_signal_subscribe(WEFT_SIGNAL_BIT(SIGHUP));
 *	while (weft_signal_wait(WEFT_FOREVER) == SIGHUP)
 *		reload();
 *
 * One that no process anywhere has subscribed to when it comes:
 *   INT, TERM, HUP    in weft_main() begin the graceful stop, which is no error; but not a HUP that
 *                     is ignored (SIG_IGN), as nohup(1) has it
 *   INT, TERM         in a runtime with WEFT_RT_SIGNALS, and
 *   QUIT              in both: the same stop, and the runtime's error is -EINTR, "signal", with the
 *                     name
 *   any other         is dropped, with a line on the log at level info
 * A stop leaves processes grace_ns (struct weft_rt_opts); a further signal that stops, during any
 * stop, cancels them at once. With a subscriber nothing stops: that is the process's to do
 * (weft_rt_stop()).
 */
#ifndef WEFT_SIGNAL_H
#define WEFT_SIGNAL_H

#include <signal.h>
#include <stdint.h>

#include <weft/time.h>
#include <weft/process.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A set of one: combine them by |. */
#define WEFT_SIGNAL_BIT(signo) ((uint64_t)1 << ((signo) - 1))

/*
 * Adds to the signals that the calling process receives, from now until it unsubscribes or ends.
 * set: of WEFT_SIGNAL_BIT(); those it has already stay as they are.
 * Threads: any process. Blocks: never. Cancel: not a point of cancellation.
 * Returns: 0; -EINVAL (an empty set, or a signal that is none of the six); -ENOTSUP (nobody owns
 * signals); -EAGAIN (256 processes are subscribed already); -EPERM outside a process.
 */
WEFT_API int weft_signal_subscribe(uint64_t set);

/*
 * Takes signals off the calling process's; what has come of them and was not taken is dropped.
 * Threads: any process. Blocks: never. Cancel: not a point of cancellation.
 * Returns: 0, also for those it had not; -EINVAL as weft_signal_subscribe(); -EPERM.
 */
WEFT_API int weft_signal_unsubscribe(uint64_t set);

/*
 * Waits for a signal that the calling process is subscribed to, and takes it; of several the one
 * with the lowest number.
 * Threads: any fiber. Blocks: until one comes or the deadline. Cancel: none was taken.
 * Returns: the signal's number; -ETIME; -EAGAIN (WEFT_POLL and none there); -ECANCELED; -EINVAL
 * (not subscribed to any); -ENOTSUP (nobody owns signals, or no longer); -EPERM outside a fiber.
 */
WEFT_API int weft_signal_wait(weft_time deadline);

#ifdef __cplusplus
}
#endif

#endif
