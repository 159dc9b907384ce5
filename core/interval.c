/*
 * interval.c: ticks at a steady pace. All of an interval is the caller's struct: there is no timer
 * behind it, who waits for a tick sleeps.
 *
 * Times are any int64, so differences are taken unsigned, and sums end at WEFT_FOREVER.
 */
#include <errno.h>
#include <stddef.h>

#include <weft/interval.h>

/* duration_ns > 0. */
static weft_time later(weft_time time, weft_time duration_ns)
{
	weft_time sum;

	return __builtin_add_overflow(time, duration_ns, &sum) ? WEFT_FOREVER : sum;
}

int weft_interval_init(struct weft_interval *interval, weft_time start, weft_time period_ns,
	enum weft_missed policy)
{
	if (period_ns <= 0 || (unsigned)policy > WEFT_MISSED_SKIP)
		return -EINVAL;
	*interval = (struct weft_interval){ start, period_ns, policy };
	return 0;
}

bool weft_interval_take(struct weft_interval *interval, weft_time now, uint64_t *missed_out)
{
	uint64_t period = (uint64_t)interval->period_ns;
	weft_time due = interval->next;
	uint64_t late = (uint64_t)now - (uint64_t)due;

	if (interval->period_ns <= 0 || due == WEFT_FOREVER || now < due)
		return false;
	if (missed_out)
		*missed_out = late < period ? 0 : late / period;
	switch (interval->policy) {
	case WEFT_MISSED_BURST:
		interval->next = later(due, interval->period_ns);
		break;
	case WEFT_MISSED_DELAY:
		interval->next = later(now, interval->period_ns);
		break;
	case WEFT_MISSED_SKIP:
		interval->next = later(now, (weft_time)(period - late % period));
		break;
	}
	return true;
}

int weft_interval_next(struct weft_interval *interval, uint64_t *missed_out, weft_time deadline)
{
	weft_time until = interval->next < deadline ? interval->next : deadline;
	int r;

	if (interval->period_ns <= 0)
		return -EINVAL;
	/* Also if it is due already: for a cancel, and so that others have their turn. */
	r = weft_sleep_until(until);
	if (r != 0)
		return r;
	if (weft_interval_take(interval, weft_now(), missed_out))
		return 0;
	return deadline == WEFT_POLL ? -EAGAIN : -ETIME;
}
