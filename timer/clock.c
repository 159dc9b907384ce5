/*
 * clock.c: the kernel's clocks. See clock.h.
 */
#include "timer/clock.h"

#include <errno.h>
#include <sys/prctl.h>
#include <time.h>

int64_t wf_clock_now_ns(void)
{
	struct timespec now;
	int r = clock_gettime(CLOCK_MONOTONIC, &now);

	WF_ASSERT(r == 0); /* it has no way to fail: the clock exists and `now` is ours */
	(void)r;
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void wf_clock_wall(int64_t *seconds_out, int32_t *nanoseconds_out)
{
	struct timespec now;
	int r = clock_gettime(CLOCK_REALTIME, &now);

	WF_ASSERT(r == 0); /* as above */
	(void)r;
	*seconds_out = now.tv_sec;
	*nanoseconds_out = (int32_t)now.tv_nsec;
}

int wf_clock_set_slack(int64_t slack_ns)
{
	if (slack_ns < 0)
		return -EINVAL;
	return prctl(PR_SET_TIMERSLACK, (unsigned long)slack_ns, 0UL, 0UL, 0UL) < 0 ? -errno : 0;
}
