/*
 * fault.h: makes the calls that Weft asks the system for fail, one at a time, for tests.
 *
 * Each wrapper that owns a system facility (io/syscall.h, core/map.c, core/memory.c, core/thread.c,
 * core/cpu.c, sync/rcu.c, …) asks here before it makes a call:
 *
 *	if ((r = (int)wf_fault(SYS_mmap)) < 0)    where the wrapper returns a negative errno
 *		return r;
 *	if (wf_fails(SYS_openat)) …               where libc would: errno is set, as libc sets it
 *
 * and takes what it is told for the kernel's answer. The call is not made then, but for close(2),
 * which is never asked before: a descriptor is closed also when close(2) reports an error.
 *
 * Some calls have no way to fail as we make them, or nobody would do anything about it, and no test
 * has them fail: the wake of an eventfd (its counter would have to be full), the read of a
 * non-blocking signalfd, the clock, limits, the timer slack, sigaction and sigaltstack with our own
 * arguments. The lint (test/tools/layers.py) lists them with the reason of each, and complains of
 * every other call that does not ask here.
 *
 * In release both are the constant 0: nothing is compiled. With WF_DEBUG they are one load and a
 * branch while no test has put a hook in place. Counting, choosing and the errors that the manual
 * allows for each call are the test's business (test/faults.h).
 *
 * Any thread, any signal handler that may make the call. The hook is called on the thread whose
 * call is to fail, perhaps from several at once, and for a moment after it was taken away.
 */
#ifndef WF_SYNC_FAULT_H
#define WF_SYNC_FAULT_H

#include <errno.h>

#include "sync/atomic.h"

/* 1: faults can be injected. */
#ifndef WF_FAULTS
#define WF_FAULTS WF_DEBUG
#endif

/* Calls that are no single system call; above every number of the kernel's. */
enum wf_fault_call {
	WF_CALL_ALLOCATE = 100000, /* memory, of malloc or the runtime's allocator */
	WF_CALL_THREAD,            /* a new thread */
	WF_CALL_THREAD_KEY,        /* what a thread keeps: the key, or its value */
	WF_CALL_LOOKUP,            /* the C library's resolver */
	WF_CALL_SPAWN,             /* a child process */
};

#if WF_FAULTS

/* 0: the call is to be made; else the negative errno that it gives. */
typedef int (*wf_fault_hook_fn)(long call);

extern wf_atomic_ptr wf_fault_hook; /* wf_fault_hook_fn; NULL: nothing fails */

WF_COLD long wf_fault_ask(void *hook, long call);

WF_INLINE long wf_fault(long call)
{
	/* B1: acquire, with whoever put it in place: the hook's state is seen too. */
	void *hook = wf_ptr_load_acquire(&wf_fault_hook);

	return WF_LIKELY(hook == NULL) ? 0 : wf_fault_ask(hook, call);
}

WF_INLINE bool wf_fails(long call)
{
	long error = wf_fault(call);

	if (WF_UNLIKELY(error != 0))
		errno = (int)-error;
	return error != 0;
}

#else
#define wf_fault(call) 0L
#define wf_fails(call) false
#endif

#endif
