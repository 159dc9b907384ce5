/*
 * clock.h: where time comes from. clock.c is the only caller of clock_gettime in the project.
 *
 * Time is int64 nanoseconds of CLOCK_MONOTONIC, but for wf_clock_wall(). A worker reads it once per
 * turn and hands it to everything that needs it; pure code (the wheel) takes it as an argument and
 * never asks.
 *
 * A read costs about 24 ns (vdso). The cycle counter costs about 10 ns on a virtual machine, less
 * on bare metal, and needs calibration to mean anything: it serves only spin loops and trace
 * stamps, where differences of a few microseconds matter and a jump (migration of the machine,
 * suspend) does no harm. CLOCK_MONOTONIC_COARSE would be 3 ns, but steps by milliseconds.
 *
 * Concurrency: no state; any thread. Blocks: never.
 */
#ifndef WF_TIMER_CLOCK_H
#define WF_TIMER_CLOCK_H

#include "sync/check.h"

/* The time now, in nanoseconds of CLOCK_MONOTONIC; never negative, never goes back. */
int64_t wf_clock_now_ns(void);

/*
 * CLOCK_REALTIME: seconds since 1970-01-01T00:00:00Z, and nanoseconds after that second. It may go
 * back, and forward, by any amount: nothing that waits looks at it.
 */
void wf_clock_wall(int64_t *seconds_out, int32_t *nanoseconds_out);

/*
 * How late the kernel may make the calling thread's sleeps to share a wake-up, in nanoseconds. The
 * kernel's default is 50000, which is most of the lateness of a short sleep; workers set 1. 0 puts
 * the thread's own default back. Returns 0, or -EINVAL if slack_ns is negative.
 */
int wf_clock_set_slack(int64_t slack_ns);

/*
 * A counter that grows by a constant rate, the same on all CPUs: the time stamp counter on x86-64,
 * the virtual counter on aarch64. Not ordered with the instructions around it.
 */
WF_INLINE uint64_t wf_cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t count;

	__asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(count));
	return count;
#else
	return (uint64_t)wf_clock_now_ns();
#endif
}

#endif
