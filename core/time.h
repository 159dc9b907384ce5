/*
 * <weft/time.h>: points in time, durations and deadlines.
 *
 * A `weft_time` is a point on CLOCK_MONOTONIC in nanoseconds, or a duration in nanoseconds where a
 * parameter is named so. Every call that can park takes an absolute deadline as its last argument:
 *
 *	weft_after(WEFT_MS(50))  50 ms from now
 *	WEFT_FOREVER             no deadline
 *	WEFT_POLL                do not wait: a call that would have to gives -EAGAIN
 *	0, or any past time      tries once; a call that would have to wait gives -ETIME
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

/* Durations, in nanoseconds. */
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
 * Threads: any thread. Blocks: never.
 */
WEFT_API weft_time weft_now_coarse(void);

/*
 * The deadline `delay_ns` nanoseconds from now. A negative delay is now; a sum past the end of
 * time, or WEFT_FOREVER, is WEFT_FOREVER.
 * Threads: any thread. Blocks: never.
 */
WEFT_API weft_time weft_after(weft_time delay_ns);

/*
 * Sleeps until `deadline`. Never returns early; late by at most a tick (1 us by default) plus what
 * the worker is busy with. WEFT_POLL and past deadlines return 0 at once.
 * Threads: any process. Blocks: until the deadline. A weft_wake() does not end it.
 * Cancel: returns -ECANCELED; part of the time may have passed.
 * Returns: 0, -ECANCELED, or -EPERM outside a process.
 */
WEFT_API int weft_sleep_until(weft_time deadline);

#ifdef __cplusplus
}
#endif

#endif
