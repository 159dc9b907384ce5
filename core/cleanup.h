/*
 * cleanup.h: what a process has to do when it ends: a list of records, last in, first out; and the
 * steps of an end (core/README.md, "end").
 *
 * A record is embedded in what needs it: a deferred call, a scope, a lock that is held. It is its
 * owner's memory and must stay in place while it is in the list. One on the stack of a function
 * must be out of the list before that function returns: wf_wind_up() aborts when it finds one in a
 * frame that is gone.
 *
 * Threads: the process's own, always. Nothing here is atomic. Push and remove of the last one are a
 * few instructions; a remove from further down walks.
 */
#ifndef WF_CORE_CLEANUP_H
#define WF_CORE_CLEANUP_H

#include "core/worker.h"

/* may_alias: public structures have room for it under another type (struct weft_deferred). */
struct wf_cleanup {
	struct wf_cleanup *next;
	/*
	 * On the ending process's stack, where it may park, the record being out of the list. It
	 * may push others, and may fail. failed: the process has, by weft_fail().
	 */
	void (*run)(struct wf_cleanup *cleanup, bool failed);
} __attribute__((may_alias));

/* Puts it into the calling process's list. 0; -EPERM outside a process; -ENOMEM in a task only. */
int wf_cleanup_push(struct wf_cleanup *cleanup);

/* Takes it out of the calling process's list. False: it is not there. */
bool wf_cleanup_remove(struct wf_cleanup *cleanup);

/*
 * Everything that a process does at its end before its result is told (Y1, Y2, Y3), on its own
 * stack. Begun again where a weft_fail() in it has broken it off. live: the address of the lowest
 * frame that is still in use; records below it, on the same stack, are in frames that are gone.
 */
void wf_wind_up(struct wf_proc *p, const void *live);

/* A task has returned WEFT_PENDING: aborts if it has left a record in a frame. live: as above. */
void wf_cleanups_check(struct wf_proc *p, const void *live);

/* local.c: calls the destructors of p's values. True: that has happened, so there may be more. */
bool wf_locals_destroy(struct wf_proc *p);

/*
 * run.c: leaves the running process for good, from any depth of its stack; `worker` is the
 * calling thread's. Of a fiber: a switch to the loop. Of a task also WEFT_PENDING: for this run.
 */
_Noreturn void wf_fail_leave(struct wf_worker *worker, struct wf_proc *p, int result);

#endif
