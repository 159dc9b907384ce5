/*
 * Goal: the clock is the kernel's monotonic one, and its settings reach the thread. Method: against
 * the kernel's own answers; nothing depends on how fast the machine is.
 */
#include "test/harness.h"

#include "timer/clock.h"

#include <errno.h>
#include <sys/prctl.h>
#include <time.h>

Test(clock, is_the_monotonic_clock)
{
	int64_t before, now, after;

	before = (int64_t)harness_now_ns();
	now = wf_clock_now_ns();
	after = (int64_t)harness_now_ns();
	cr_assert_leq(before, now);
	cr_assert_leq(now, after);
}

Test(clock, never_goes_back)
{
	int64_t last = wf_clock_now_ns();

	cr_assert_gt(last, 0);
	for (int i = 0; i < 100000; i++) {
		int64_t now = wf_clock_now_ns();

		cr_assert_geq(now, last);
		last = now;
	}
}

Test(clock, wall_is_the_real_time_clock)
{
	struct timespec before, after;
	int64_t seconds;
	int32_t nanoseconds;

	/* Somebody may set it between two of them. */
	do {
		(void)clock_gettime(CLOCK_REALTIME, &before);
		wf_clock_wall(&seconds, &nanoseconds);
		(void)clock_gettime(CLOCK_REALTIME, &after);
	} while (after.tv_sec < before.tv_sec || after.tv_sec > before.tv_sec + 1);
	cr_assert_leq(before.tv_sec, seconds);
	cr_assert_leq(seconds, after.tv_sec);
	cr_assert(nanoseconds >= 0 && nanoseconds < 1000000000);
}

Test(clock, slack_is_set_for_the_calling_thread)
{
	int own = prctl(PR_GET_TIMERSLACK);

	cr_assert_eq(wf_clock_set_slack(1), 0);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK), 1);
	cr_assert_eq(wf_clock_set_slack(50000), 0);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK), 50000);
	cr_assert_eq(wf_clock_set_slack(0), 0);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK), own, "0 puts the default back");
}

Test(clock, slack_refuses_negative_values)
{
	int before = prctl(PR_GET_TIMERSLACK);

	errno = 0;
	cr_assert_eq(wf_clock_set_slack(-1), -EINVAL);
	cr_assert_eq(wf_clock_set_slack(INT64_MIN), -EINVAL);
	cr_assert_eq(errno, 0);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK), before);
}

Test(clock, cycles_grow_while_time_passes)
{
	uint64_t cycles = wf_cycles();
	int64_t start = wf_clock_now_ns();

	/* A millisecond of a counter that is slower than 1 MHz would be no use as a stamp. */
	while (wf_clock_now_ns() - start < 1000000)
		;
	cr_assert_gt(wf_cycles() - cycles, 1000);
}
