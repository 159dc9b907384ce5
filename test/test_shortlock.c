/*
 * sync/shortlock.h: one holder at a time, who sleeps gets it although nobody wakes, and misuse ends
 * the program in debug builds.
 */
#include "test/harness.h"

#include "sync/shortlock.h"

#include <errno.h>
#include <sched.h>

enum { ROUNDS = 300000 / HARNESS_SLOWDOWN };

static struct wf_shortlock lock;
static uint64_t value; /* under `lock` */

Test(shortlock, zero_is_unlocked)
{
	cr_assert(wf_shortlock_try(&lock));
	cr_assert(!wf_shortlock_try(&lock));
	wf_shortlock_unlock(&lock);
	wf_shortlock_lock(&lock);
	cr_assert(!wf_shortlock_try(&lock));
	wf_shortlock_unlock(&lock);
	cr_assert_eq(wf_u32_load_relaxed(&lock.word), 0);
}

static void add(unsigned index, void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		if (index % 2 == 0 || !wf_shortlock_try(&lock))
			wf_shortlock_lock(&lock);
		value++;
		if (i % 8192 == 0)
			sched_yield(); /* a holder that loses its CPU: the others go to sleep */
		wf_shortlock_unlock(&lock);
	}
}

Test(shortlock, lets_one_in_at_a_time, .timeout = 120)
{
	harness_threads(4, add, NULL);
	cr_assert_eq(value, 4u * ROUNDS);
	cr_assert_eq(wf_u32_load_relaxed(&lock.word), 0);
}

/* Thread 0 holds it for a hundred times what a waiter sleeps; the others get in after it. */
static void hold_long(unsigned index, void *arg)
{
	wf_atomic_u32 *held = arg;

	errno = 4711 + (int)index;
	if (index == 0) {
		uint64_t end_ns = harness_now_ns() + (uint64_t)100 * WF_SHORTLOCK_SLEEP_NS;

		wf_shortlock_lock(&lock);
		wf_u32_store_release(held, 1);
		while (harness_now_ns() < end_ns)
			sched_yield();
		value = 1;
		wf_shortlock_unlock(&lock);
		return;
	}
	while (wf_u32_load_acquire(held) == 0)
		sched_yield();
	wf_shortlock_lock(&lock);
	cr_assert_geq(value, 1);
	value++;
	wf_shortlock_unlock(&lock);
	cr_assert_eq(errno, 4711 + (int)index, "who slept has its errno");
}

Test(shortlock, who_sleeps_needs_no_wake, .timeout = 120)
{
	wf_atomic_u32 held = {0};

	harness_threads(4, hold_long, &held);
	cr_assert_eq(value, 4);
}

#if WF_SPINLOCK_CHECKED

Test(shortlock, locking_twice_ends_the_program, .signal = SIGABRT)
{
	wf_shortlock_lock(&lock);
	wf_shortlock_lock(&lock);
}

Test(shortlock, unlocking_what_is_free_ends_the_program, .signal = SIGABRT)
{
	wf_shortlock_unlock(&lock);
}

#endif
