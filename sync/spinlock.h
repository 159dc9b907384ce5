/*
 * spinlock.h: a 4-byte lock for critical sections of a few dozen instructions. Zero is unlocked.
 *
 *	static struct wf_spinlock lock;
 *	wf_spinlock_lock(&lock); … wf_spinlock_unlock(&lock);     wf_spinlock_try(&lock)
 *
 * A holder may be preempted, and two threads may share one CPU: so a waiter pauses at most
 * WF_SPINLOCK_PAUSES times (about 2 us) and then sleeps in a futex. Never held across a callback,
 * an allocation, a system call or a switch of fibers.
 *
 * The word is 0 (free), or the owner, with WAITERS set when somebody may sleep on it. In debug
 * builds the owner is a hash of the thread, and locking twice, or unlocking what another thread
 * locked, ends the program; otherwise it is 1. In the simulator it is the virtual thread.
 *
 * Progress: blocking (lock), wait-free (try, unlock). Unfair: a new locker may overtake a sleeper.
 * Any thread.
 */
#ifndef WF_SYNC_SPINLOCK_H
#define WF_SYNC_SPINLOCK_H

#include "sync/futex.h"

#if WF_DEBUG && !defined(WF_ATOMICS_SIM)
#include <pthread.h>
#endif
#define WF_SPINLOCK_CHECKED WF_DEBUG

struct wf_spinlock {
	wf_atomic_u32 word;
};

#define WF_SPINLOCK_WAITERS ((uint32_t)1 << 31)
#if defined(WF_ATOMICS_SIM)
#define WF_SPINLOCK_PAUSES 2
#else
#define WF_SPINLOCK_PAUSES 100
#endif

static_assert(sizeof(struct wf_spinlock) == 4, "small enough to lie in every object");

WF_INLINE uint32_t wf_spinlock_self(void)
{
#if defined(WF_ATOMICS_SIM)
	return wf_sim_self() + 1;
#elif WF_SPINLOCK_CHECKED
	/* 30 well-mixed bits; two threads have the same ones once in a billion. Never 0. */
	return (uint32_t)(((uint64_t)pthread_self() * 0x9e3779b97f4a7c15u) >> 34) | 1u << 30;
#else
	return 1;
#endif
}

/* Whether the caller holds it; only for assertions: outside debug builds, whether anybody does. */
WF_INLINE bool wf_spinlock_is_mine(struct wf_spinlock *lock)
{
	return (wf_u32_load_relaxed(&lock->word) & ~WF_SPINLOCK_WAITERS) == wf_spinlock_self();
}

WF_INLINE bool wf_spinlock_take(struct wf_spinlock *lock, uint32_t owner)
{
	uint32_t free_word = 0;

	/*
	 * K1, with K2 of wf_spinlock_unlock: what the last holder wrote is seen; without it two
	 * holders work on different versions of what the lock protects.
	 */
	return wf_u32_cas(&lock->word, &free_word, owner);
}

WF_UNUSED WF_COLD static void wf_spinlock_wait(struct wf_spinlock *lock)
{
	uint32_t self = wf_spinlock_self();
	int i;

	WF_ASSERT(!WF_SPINLOCK_CHECKED || !wf_spinlock_is_mine(lock));
	for (i = 0; i < WF_SPINLOCK_PAUSES; i++) {
		if (wf_u32_load_relaxed(&lock->word) == 0 && wf_spinlock_take(lock, self))
			return;
		wf_pause();
	}
	/*
	 * From here on we take it with WAITERS set: we cannot know whether others sleep too. The
	 * mark costs one needless wake at the end, its lack a sleeper for ever.
	 */
	while (!wf_spinlock_take(lock, self | WF_SPINLOCK_WAITERS)) {
		uint32_t word = wf_u32_load_relaxed(&lock->word);

		if (word == 0)
			continue;
		if (!(word & WF_SPINLOCK_WAITERS) &&
			!wf_u32_cas(&lock->word, &word, word | WF_SPINLOCK_WAITERS))
			continue;
		/* The kernel compares again: an unlock since then makes this return at once. */
		(void)wf_futex_sleep(&lock->word, word | WF_SPINLOCK_WAITERS, WF_FUTEX_FOREVER);
	}
}

static inline void wf_spinlock_lock(struct wf_spinlock *lock)
{
	if (WF_UNLIKELY(!wf_spinlock_take(lock, wf_spinlock_self())))
		wf_spinlock_wait(lock);
}

/* True: taken. */
static inline bool wf_spinlock_try(struct wf_spinlock *lock)
{
	/* The load keeps a failed try off the holder's cache line. */
	return wf_u32_load_relaxed(&lock->word) == 0 && wf_spinlock_take(lock, wf_spinlock_self());
}

static inline void wf_spinlock_unlock(struct wf_spinlock *lock)
{
	uint32_t word;

	WF_ASSERT(wf_spinlock_is_mine(lock));
	/* K2, with K1. An exchange, because a plain store would lose a WAITERS set in between. */
	if (WF_PLANTED(spinlock_unlock_by_store)) {
		word = wf_u32_load_relaxed(&lock->word);
		wf_u32_store_release(&lock->word, 0);
	} else {
		word = wf_u32_exchange(&lock->word, 0);
	}
	if (WF_UNLIKELY(word & WF_SPINLOCK_WAITERS))
		wf_futex_wake(&lock->word, 1);
}

#endif
