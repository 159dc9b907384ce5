/*
 * self.h: the calling thread's worker, by a load in place of a call.
 *
 * Only for functions that ask at their start, before anything that may park, and that are not
 * inlined: whoever calls one twice may be on two threads, and each call must look for itself. All
 * others use wf_worker_self() (core/sched.h).
 */
#ifndef WF_CORE_SELF_H
#define WF_CORE_SELF_H

#include "core/worker.h"

#if defined(WF_ATOMICS_SIM)

WF_INLINE struct wf_worker *wf_worker_self_first(void)
{
	return wf_worker_self();
}

#else

extern __thread struct wf_worker *wf_self_worker; /* thread.c */

WF_INLINE struct wf_worker *wf_worker_self_first(void)
{
	return wf_self_worker;
}

#endif

#endif
