/*
 * futex.h: sleep on a 32-bit word, wake its sleepers. For this folder's own slow paths (spinlock,
 * the reclaimer) and for tests; scheduler code sleeps through its driver.
 *
 * The caller's errno is left alone: a lock taken inside a library call must not change it.
 */
#ifndef WF_SYNC_FUTEX_H
#define WF_SYNC_FUTEX_H

#include "sync/atomic.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WF_FUTEX_FOREVER UINT64_MAX

#if defined(WF_ATOMICS_SIM)

#define wf_futex_sleep(word, expected, timeout_ns) \
	wf_sim_futex_sleep(word, expected, timeout_ns, __func__, __LINE__)
#define wf_futex_wake(word, count) wf_sim_futex_wake(word, count, __func__, __LINE__)

#else

/*
 * Sleeps while *word == expected, at most timeout_ns (relative; WF_FUTEX_FOREVER: no limit).
 * Returns 0 when woken, -EAGAIN if the word differed, -ETIMEDOUT, -EINTR. All but the second may be
 * spurious: look at the word again. Any thread; blocks it.
 */
WF_UNUSED WF_COLD static int wf_futex_sleep(
	wf_atomic_u32 *word, uint32_t expected, uint64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / 1000000000),
		.tv_nsec = (long)(timeout_ns % 1000000000),
	};
	int saved = errno;
	int r = 0;

	if (syscall(SYS_futex, &word->raw, FUTEX_WAIT_PRIVATE, expected,
		    timeout_ns == WF_FUTEX_FOREVER ? NULL : &timeout, NULL, 0) < 0)
		r = -errno;
	errno = saved;
	return r;
}

/* Wakes up to `count` sleepers. Any thread; never blocks. */
WF_UNUSED WF_COLD static void wf_futex_wake(wf_atomic_u32 *word, int count)
{
	int saved = errno;

	(void)syscall(SYS_futex, &word->raw, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
	errno = saved;
}

#endif

#endif
