/*
 * task.c: wakers. What is different for tasks while they run and wait is in core/tasks.h, run.c and
 * wait.c.
 *
 * A waker is the id of its process, so it may outlive it: an id of the past wakes nobody.
 */
#include "core/internal.h"

#include "sync/atomic.h"

weft_waker weft_waker_self(void)
{
	return (weft_waker){ weft_self().raw };
}

void weft_waker_wake(weft_waker waker)
{
	weft_pid pid = { waker.raw };

	if (!weft_pid_is_none(pid))
		(void)weft_wake(pid);
}

void weft_waker_wake_ref(const weft_waker *waker)
{
	if (waker)
		weft_waker_wake(*waker);
}

static_assert(sizeof(struct weft_waker_cell) == sizeof(wf_atomic_u64), "the cell is the word");

static wf_atomic_u64 *word_of(struct weft_waker_cell *cell)
{
	return (wf_atomic_u64 *)(void *)cell;
}

void weft_waker_register(struct weft_waker_cell *cell, weft_waker waker)
{
	/*
	 * F1: acquire and release (the RMW), with F2 in weft_waker_fire(): the fire comes after it
	 * and takes the waker out; or before, and then what it tells is visible to the look that
	 * follows.
	 */
	(void)wf_u64_exchange(word_of(cell), waker.raw);
}

bool weft_waker_fire(struct weft_waker_cell *cell)
{
	weft_waker waker;

	if (WF_PLANTED(waker_fires_by_load)) {
		waker.raw = wf_u64_load_acquire(word_of(cell));
		wf_u64_store_release(word_of(cell), 0);
	} else {
		/* F2: as F1. */
		waker.raw = wf_u64_exchange(word_of(cell), 0);
	}
	weft_waker_wake(waker);
	return waker.raw != 0;
}
