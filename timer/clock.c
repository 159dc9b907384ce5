/*
 * clock.c: the kernel's clock. See clock.h.
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

int wf_clock_set_slack(int64_t slack_ns)
{
	if (slack_ns < 0)
		return -EINVAL;
	return prctl(PR_SET_TIMERSLACK, (unsigned long)slack_ns, 0UL, 0UL, 0UL) < 0 ? -errno : 0;
}
