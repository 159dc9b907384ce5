/*
 * registry.h: the only global state of the library: 64 runtime pointers with use counts, the
 * per-thread pointer to the current worker, and what a foreign thread keeps (its RCU registration
 * is sync/rcu.c's, its cache of free headers is here). And the keys of local values, which are the
 * program's (local.c).
 *
 * An id reaches its runtime from any thread: registry slot, then table. wf_registry_acquire() adds
 * a use before it looks at the pointer; destroy clears the pointer, then waits for the uses to end
 * (both seq_cst read-modify-writes: either the caller sees NULL or destroy sees the use).
 *
 * A slot keeps the highest generation that any runtime used under it; the next one starts above, so
 * ids of a destroyed runtime give -ESRCH for ever. A slot whose generations are used up is retired.
 * The same of wait numbers: a task may have left the name of a wait with another runtime (J6).
 */
#ifndef WF_CORE_REGISTRY_H
#define WF_CORE_REGISTRY_H

#include "core/runtime.h"

/* Takes a free slot: sets rt->slot, rt->serial. 0 or -EAGAIN. */
int wf_registry_add(struct weft_rt *rt, struct wf_past *past_out);

/* Makes the slot reachable / unreachable; remove waits until nobody uses it. */
void wf_registry_publish(struct weft_rt *rt);
void wf_registry_withdraw(struct weft_rt *rt);
void wf_registry_remove(struct weft_rt *rt, const struct wf_past *past);

/* NULL if there is none. Each success needs a release. Any thread. */
struct weft_rt *wf_registry_acquire(unsigned slot);
void wf_registry_release(unsigned slot);

/*
 * A section in which a process can be looked up and acted upon, on any thread:
 *	struct wf_visit visit;
 *	struct wf_proc *p = wf_visit_begin(&visit, pid);	NULL: -ESRCH, nothing to end
 *	…
 *	wf_visit_end(&visit);
 */
struct wf_visit {
	struct weft_rt *rt;
	struct wf_worker *worker; /* of the calling thread, NULL on foreign ones */
	bool acquired;
	bool entered;
};

struct wf_proc *wf_visit_begin(struct wf_visit *visit, weft_pid pid);
void wf_visit_end(struct wf_visit *visit);

/* Within it, around what makes a process ready: wf_rt_hold(), on threads that are none of rt's. */
WF_INLINE void wf_visit_hold(const struct wf_visit *visit)
{
	if (visit->acquired)
		wf_rt_hold(visit->rt);
}

WF_INLINE void wf_visit_let_go(const struct wf_visit *visit)
{
	if (visit->acquired)
		wf_rt_let_go(visit->rt);
}

/* thread.c: the current worker of this thread. */
void wf_worker_set_self(struct wf_worker *worker);

/*
 * thread.c: `size` zeroed bytes (always the same size) that the calling thread keeps until it ends;
 * wf_table_foreign_forget() is called then. NULL when out of memory.
 */
void *wf_foreign_cache(size_t size);

#endif
