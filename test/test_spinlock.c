/*
 * sync/spinlock.h: one holder at a time, sleepers are woken, and misuse ends the program in debug
 * builds.
 */
#include "test/harness.h"

#include "sync/spinlock.h"

#include <errno.h>
#include <sched.h>

enum { ROUNDS = 300000 / HARNESS_SLOWDOWN };

static struct wf_spinlock lock;
static uint64_t value; /* under `lock` */

Test(spinlock, zero_is_unlocked)
{
	cr_assert(wf_spinlock_try(&lock));
	cr_assert(!wf_spinlock_try(&lock));
	wf_spinlock_unlock(&lock);
	wf_spinlock_lock(&lock);
	cr_assert(!wf_spinlock_try(&lock));
	wf_spinlock_unlock(&lock);
	cr_assert_eq(wf_u32_load_relaxed(&lock.word), 0);
}

static void add(unsigned index, void *arg)
{
	int i;

	(void)arg;
	for (i = 0; i < ROUNDS; i++) {
		if (index % 2 == 0 || !wf_spinlock_try(&lock))
			wf_spinlock_lock(&lock);
		value++;
		if (i % 8192 == 0)
			sched_yield(); /* a holder that loses its CPU: the others go to sleep */
		wf_spinlock_unlock(&lock);
	}
}

Test(spinlock, lets_one_in_at_a_time, .timeout = 120)
{
	harness_threads(4, add, NULL);
	cr_assert_eq(value, 4u * ROUNDS);
	cr_assert_eq(wf_u32_load_relaxed(&lock.word), 0);
}

/* Thread 0 holds until it sees that somebody sleeps; each of the others gets in after it. */
static void hold_until_somebody_sleeps(unsigned index, void *arg)
{
	wf_atomic_u32 *held = arg;

	if (index == 0) {
		wf_spinlock_lock(&lock);
		wf_u32_store_release(held, 1);
		while (!(wf_u32_load_relaxed(&lock.word) & WF_SPINLOCK_WAITERS))
			sched_yield();
		value = 1;
		wf_spinlock_unlock(&lock);
		return;
	}
	while (wf_u32_load_acquire(held) == 0)
		sched_yield();
	wf_spinlock_lock(&lock);
	cr_assert_geq(value, 1);
	value++;
	wf_spinlock_unlock(&lock);
}

Test(spinlock, wakes_every_sleeper, .timeout = 120)
{
	int round;

	for (round = 0; round < 200; round++) {
		wf_atomic_u32 held = {0};

		value = 0;
		harness_threads(4, hold_until_somebody_sleeps, &held);
		cr_assert_eq(value, 4);
	}
}

static void sleep_and_look_at_errno(unsigned index, void *arg)
{
	errno = 4711 + (int)index;
	hold_until_somebody_sleeps(index, arg);
	cr_assert_eq(errno, 4711 + (int)index);
}

Test(spinlock, leaves_errno_alone)
{
	wf_atomic_u32 held = {0};

	harness_threads(2, sleep_and_look_at_errno, &held);
}

#if WF_SPINLOCK_CHECKED

Test(spinlock, locking_twice_ends_the_program, .signal = SIGABRT)
{
	wf_spinlock_lock(&lock);
	wf_spinlock_lock(&lock);
}

Test(spinlock, unlocking_what_is_free_ends_the_program, .signal = SIGABRT)
{
	wf_spinlock_unlock(&lock);
}

static void lock_it(unsigned index, void *arg)
{
	(void)index;
	(void)arg;
	wf_spinlock_lock(&lock);
}

Test(spinlock, unlocking_what_another_thread_holds_ends_the_program, .signal = SIGABRT)
{
	harness_threads(1, lock_it, NULL);
	cr_assert(!wf_spinlock_is_mine(&lock));
	wf_spinlock_unlock(&lock);
}

#endif
