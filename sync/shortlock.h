/*
 * shortlock.h: a 4-byte lock as spinlock.h's, whose unlock is one store. Zero is unlocked.
 *
 *	static struct wf_shortlock lock;
 *	wf_shortlock_lock(&lock); … wf_shortlock_unlock(&lock);     wf_shortlock_try(&lock)
 *
 * Nobody is woken by an unlock, so it need not ask who waits: half of what a lock costs that is
 * free. A waiter pauses at most WF_SPINLOCK_PAUSES times and then sleeps WF_SHORTLOCK_SLEEP_NS at a
 * time: it does so only where the holder has lost its CPU in the middle, for milliseconds, or where
 * many want the lock at once. So this one is for locks that are taken millions of times a second
 * and rarely met; spinlock.h is for the others.
 *
 * An unlock is no fence: what follows may be done before the lock is seen to be free.
 *
 * Progress: blocking (lock), wait-free (try, unlock). Unfair. Any thread. Never held across a
 * callback that may block, an allocation, a system call or a switch of fibers.
 */
#ifndef WF_SYNC_SHORTLOCK_H
#define WF_SYNC_SHORTLOCK_H

#include "sync/spinlock.h"

#define WF_SHORTLOCK_SLEEP_NS 50000

struct wf_shortlock {
	wf_atomic_u32 word; /* 0, or the owner as in spinlock.h */
};

/* Whether the caller holds it; only for assertions: outside debug builds, whether anybody does. */
WF_INLINE bool wf_shortlock_is_mine(const struct wf_shortlock *lock)
{
	return wf_u32_load_relaxed(&lock->word) == wf_spinlock_self();
}

WF_INLINE bool wf_shortlock_take(struct wf_shortlock *lock)
{
	uint32_t free_word = 0;

	/* K3, with K4 of wf_shortlock_unlock(): what the last holder wrote is seen. */
	return wf_u32_cas(&lock->word, &free_word, wf_spinlock_self());
}

/* True: taken. */
static inline bool wf_shortlock_try(struct wf_shortlock *lock)
{
	/* The load keeps a failed try off the holder's cache line. */
	return wf_u32_load_relaxed(&lock->word) == 0 && wf_shortlock_take(lock);
}

WF_UNUSED WF_COLD static void wf_shortlock_wait(struct wf_shortlock *lock)
{
	WF_ASSERT(!WF_SPINLOCK_CHECKED || !wf_shortlock_is_mine(lock));
	for (int i = 0; i < WF_SPINLOCK_PAUSES; i++) {
		if (wf_shortlock_try(lock))
			return;
		wf_pause();
	}
	while (!wf_shortlock_try(lock)) {
		uint32_t word = wf_u32_load_relaxed(&lock->word);

		/* Nobody wakes us; that the lock is free by now still ends it at once. */
		if (word != 0)
			(void)wf_futex_sleep(&lock->word, word, WF_SHORTLOCK_SLEEP_NS);
	}
}

static inline void wf_shortlock_lock(struct wf_shortlock *lock)
{
	if (WF_UNLIKELY(!wf_shortlock_take(lock)))
		wf_shortlock_wait(lock);
}

static inline void wf_shortlock_unlock(struct wf_shortlock *lock)
{
	WF_ASSERT(wf_shortlock_is_mine(lock));
	/* K4: release, with K3. */
	wf_u32_store_release(&lock->word, 0);
}

#endif
