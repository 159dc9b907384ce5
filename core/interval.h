/*
 * <weft/interval.h>: ticks at a steady pace.
 *
 *	struct weft_interval beat;
 *
 *	weft_interval_init(&beat, weft_now(), WEFT_MS(10), WEFT_MISSED_SKIP);
 *	while (weft_interval_next(&beat, NULL, WEFT_FOREVER) == 0)
 *		send_heartbeat();        now, and every 10 ms from now on
 *
 * Ticks fall due at `start`, start + period, start + 2 periods, …: on the *grid*. One is *taken*
 * when the consumer asks for it, at that time or later. What happens to those that have fallen due
 * meanwhile is the interval's policy. A consumer that took the tick of 0 and comes again at 4.5
 * periods, 3.5 after the tick of 1 was due, and then in time, takes its ticks at
 *
 *	WEFT_MISSED_BURST   4.5  4.5  4.5  4.5  5    6    7    as many as there were
 *	missed               3    2    1    0   0    0    0
 *	WEFT_MISSED_DELAY   4.5  5.5  6.5  7.5                 never closer than a period
 *	missed               3    0    0    0
 *	WEFT_MISSED_SKIP    4.5  5    6    7                   on the grid
 *	missed               3    0    0    0
 *
 * These are the three behaviours of tokio's intervals, without its tolerance: being late by a
 * nanosecond is being late. So with DELAY each tick is later on the grid by what the one before it
 * was late by, a few microseconds; the other two do not drift.
 *
 * weft_interval_next() waits in a process. weft_interval_take() is for loops that have a time of
 * their own, and a way to sleep until `next`: it is pure, and knows no clock.
 */
#ifndef WEFT_INTERVAL_H
#define WEFT_INTERVAL_H

#include <stdbool.h>
#include <stdint.h>

#include <weft/time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What becomes of ticks that have fallen due while an earlier one was waiting to be taken. */
enum weft_missed {
	WEFT_MISSED_BURST, /* they follow at once, one after the other; then the grid */
	WEFT_MISSED_DELAY, /* none comes; the next one is a period after the late one was taken */
	WEFT_MISSED_SKIP,  /* none comes; the next one is the first on the grid that is not due */
};

/*
 * Caller-owned, copied freely; there is nothing to release. Zeroes are an interval whose calls give
 * -EINVAL. One thread or process at a time. Read the fields; the calls write them.
 */
struct weft_interval {
	weft_time next;      /* when the next tick is due; WEFT_FOREVER: never */
	weft_time period_ns; /* above 0 */
	enum weft_missed policy;
};

/*
 * Makes an interval.
 * start: when the first tick is due: weft_now() for at once, weft_after(period_ns) for after one
 * period, WEFT_FOREVER for never, until a reset. If it is past, ticks have been missed already.
 * period_ns: from tick to tick. A tick past the end of time does not come.
 * Threads: any thread. Blocks: never.
 * Returns: 0; -EINVAL: the period is not above 0, or the policy is none: nothing is changed.
 */
WEFT_API int weft_interval_init(struct weft_interval *interval, weft_time start,
	weft_time period_ns, enum weft_missed policy);

/*
 * Puts the next tick, and with it the grid, elsewhere: weft_after(interval.period_ns) begins a
 * period now. Not while a process waits for it.
 * Threads: any thread. Blocks: never.
 */
static inline void weft_interval_reset(struct weft_interval *interval, weft_time start)
{
	interval->next = start;
}

/*
 * Waits for the next tick, and takes it, by weft_now().
 * missed_out: how many further ticks were due when this one was taken: with BURST they follow, with
 * DELAY and SKIP they do not come; may be NULL. Written only when it returns 0.
 * deadline: until when to wait; a tick that is due beats it. After -ETIME and the like nothing is
 * taken: call again.
 * Threads: any process. Blocks: until the tick or the deadline; a task arms, and calls again.
 * Cancel: returns -ECANCELED, also if a tick is due; none is taken.
 * Returns: 0; -ETIME; -EAGAIN with WEFT_POLL; -ECANCELED; WEFT_PENDING in a task; -EINVAL for an
 * interval that was not made; -EPERM outside a process.
 */
WEFT_API int weft_interval_next(
	struct weft_interval *interval, uint64_t *missed_out, weft_time deadline);

/*
 * Takes the next tick if it is due at `now`, which may be any clock's: `start` was its too.
 * missed_out: as above; written only when it returns true. Afterwards `next` is when to come again.
 * Threads: any thread. Blocks: never.
 * Returns: whether a tick was due.
 */
WEFT_API bool weft_interval_take(
	struct weft_interval *interval, weft_time now, uint64_t *missed_out);

#ifdef __cplusplus
}
#endif

#endif
