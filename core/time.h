/*
 * <weft/time.h>: points in time, durations and deadlines; a stopwatch. Ticks at a steady pace are
 * in <weft/interval.h>, dates in <weft/wall.h>.
 *
 * A `weft_time` is a point on CLOCK_MONOTONIC in nanoseconds, or a duration in nanoseconds where a
 * parameter is named so. That clock never goes back, and nobody sets it; while the machine is
 * suspended it stands. Every call that can park takes an absolute deadline as its last argument:
 *
 *	weft_after(WEFT_MS(50))  50 ms from now
 *	WEFT_FOREVER             no deadline
 *	WEFT_POLL                do not wait: a call that would have to gives -EAGAIN
 *	0, or any past time      tries once; a call that would have to wait gives -ETIME
 *
 * So every call has a timeout, and several in a row have one together:
 *
 *	weft_time deadline = weft_after(WEFT_MS(50));
 *	int fd = weft_connect("tcp:127.0.0.1:7000", deadline);
 *
 *	if (fd >= 0)
 *		r = weft_write_all(fd, request, length, deadline);  both within the 50 ms
 *
 * For calls that take none there are weft_scope_opts.deadline, which cancels, and weft_cancel().
 *
 * A result beats its deadline: what is there when the process runs again is taken, however late
 * that is. So what another process does at the very tick of the deadline counts if that one runs
 * first; as a rule it does if it was the first to begin its wait.
 *
 * Late by. No wait ends before its deadline. After it, by at most
 *	a tick (1 us by default)  sleeps, weft_park(), joins, and whatever says nothing else
 *	the slack                 <weft/io.h>: timer_slack_ns of struct weft_rt_opts, 1 ms by
 *	                          default, but no more than an eighth of the time that was left;
 *	                          so that neighbours fall due together, and wake a worker once
 * plus what the worker is busy with, and, if it sleeps, what the kernel takes to wake it (50 us is
 * usual; where many timers are a few us apart they share such a wake, 70 us after the last one).
 * weft_sleep_precise() does away with the latter.
 */
#ifndef WEFT_TIME_H
#define WEFT_TIME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef WEFT_API
#define WEFT_API __attribute__((visibility("default")))
#endif

typedef int64_t weft_time;

#define WEFT_FOREVER INT64_MAX
#define WEFT_POLL    INT64_MIN

/* Durations, in nanoseconds. Of whole numbers: WEFT_MS(500), for WEFT_SEC(0.5) is 0. */
#define WEFT_NS(n)  ((weft_time)(n))
#define WEFT_US(n)  ((weft_time)(n)*1000)
#define WEFT_MS(n)  ((weft_time)(n)*1000000)
#define WEFT_SEC(n) ((weft_time)(n)*1000000000)

/*
 * The time now: reads the clock, about 25 ns. In a test runtime (<weft/test.h>) its virtual time.
 * Threads: any thread. Blocks: never.
 */
WEFT_API weft_time weft_now(void);

/*
 * The time at which the calling worker began its current turn: a plain load, at most about 1 ms
 * older than weft_now() unless a process holds the worker. Outside a worker the same as weft_now().
 * For timeouts that need not be exact: weft_now_coarse() + WEFT_SEC(60).
 * Threads: any thread. Blocks: never.
 */
WEFT_API weft_time weft_now_coarse(void);

/*
 * The deadline `delay_ns` nanoseconds from weft_now(). A negative delay is now; a sum past the end
 * of time, or WEFT_FOREVER, is WEFT_FOREVER.
 * Threads: any thread. Blocks: never.
 */
WEFT_API weft_time weft_after(weft_time delay_ns);

/*
 * A deadline that gives others a chance to fall due at the same moment: not before `deadline`, and
 * at most `slack_ns` nanoseconds after it. All that are rounded with the same slack meet at the
 * same multiples of a power of two of nanoseconds, so a thousand of them are one wake of a worker.
 * For whatever takes a deadline: timers (<weft/timer.h>), sleeps, timeouts.
 * slack_ns: 1 or less: the deadline as it is. WEFT_FOREVER and WEFT_POLL stay what they are.
 * Threads: any thread. Blocks: never.
 */
WEFT_API weft_time weft_coalesce(weft_time deadline, weft_time slack_ns);

/*
 * Sleeps until `deadline`. Never returns early; late by a tick, as said above. WEFT_POLL and past
 * deadlines return 0 at once; WEFT_FOREVER sleeps until a cancel.
 * Threads: any process. Blocks: until the deadline. A weft_wake() does not end it.
 * Cancel: returns -ECANCELED; part of the time may have passed.
 * Returns: 0; -ECANCELED; WEFT_PENDING in a task (<weft/task.h>); -EPERM outside a process.
 */
WEFT_API int weft_sleep_until(weft_time deadline);

/*
 * Sleeps until `deadline` as exactly as can be: until shortly before it (precise_spin_ns of struct
 * weft_rt_opts, 60 us by default) as weft_sleep_until() does, then yields until it has come. So it
 * is late by what others run meanwhile, and costs that much processor time each. In embedded and
 * in test runtimes it is weft_sleep_until(). A task is polled again, and calls it again.
 * Threads: any process. Blocks: until the deadline. A weft_wake() does not end it.
 * Cancel: returns -ECANCELED; part of the time may have passed.
 * Returns: 0, -ECANCELED, or -EPERM outside a process.
 */
WEFT_API int weft_sleep_precise(weft_time deadline);

/*
 * A stopwatch, by weft_now(): nanoseconds since it was started. A value; zeroes are one that was
 * started when the clock was 0.
 * Threads: any thread, one at a time. Blocks: never.
 */
struct weft_stopwatch {
	weft_time start;
};

/* One that starts now. */
static inline struct weft_stopwatch weft_stopwatch_start(void)
{
	struct weft_stopwatch watch;

	watch.start = weft_now();
	return watch;
}

/* Nanoseconds since its start, or its last lap. */
static inline weft_time weft_stopwatch_elapsed(const struct weft_stopwatch *watch)
{
	return weft_now() - watch->start;
}

/* The same, and starts it again at that moment: laps add up to the whole, nothing between them. */
static inline weft_time weft_stopwatch_lap(struct weft_stopwatch *watch)
{
	weft_time start = watch->start;

	watch->start = weft_now();
	return watch->start - start;
}

#ifdef __cplusplus
}
#endif

#endif
