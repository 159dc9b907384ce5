/* queue.c: a worker's queues: the ring and its overflow, and what comes out of the injector. */
#include "core/queue.h"

/* After a push to the ring: usually right, and cheap. Step 7 makes it certain. */
static void notify(struct wf_worker *worker)
{
	if (WF_UNLIKELY(wf_idle_wants_work_wake_relaxed(&worker->rt->idle)))
		wf_rt_wake_for_work(worker->rt);
}

/* The ring overflowed: its newer half and the new process go to the injector as one chain. */
WF_COLD static void spill(struct wf_worker *worker, void *items[], unsigned count)
{
	struct wf_proc *first = items[0];
	struct wf_proc *last = items[count - 1];

	for (unsigned i = 0; i + 1 < count; i++)
		((struct wf_proc *)items[i])->run.next = &((struct wf_proc *)items[i + 1])->run;
	wf_count(&worker->counters.spills, 1);
	(void)wf_injector_push_chain(&worker->rt->injector, &first->run, &last->run);
	/*
	 * The push was the RMW; during the overflow the ring read empty, so this check is certain.
	 */
	wf_rt_wake_for_work(worker->rt);
}

void wf_worker_push_ring(struct wf_worker *worker, struct wf_proc *p)
{
	void *items[WF_DEQUE_SPILL_MAX];
	unsigned count = wf_deque_push(&worker->ring, p, items);

	if (WF_UNLIKELY(count > 0))
		spill(worker, items, count);
	else
		notify(worker);
}

/* One process from the injector, up to half a ring of others into the ring. NULL: it was empty. */
struct wf_proc *wf_worker_take_injected(struct wf_worker *worker)
{
	struct wf_refill refill;
	struct wf_proc *p = wf_injector_refill(
		&worker->rt->injector, &worker->ring, offsetof(struct wf_proc, run), &refill);

	worker->injector_picks = 0;
	if (!p)
		return NULL;
	wf_count(&worker->counters.injected, 1 + refill.moved);
	if (refill.moved || refill.pushed_back)
		wf_rt_wake_for_work(worker->rt);
	return p;
}

bool wf_worker_has_local_work(struct wf_worker *worker)
{
	return worker->picked || worker->run_next || !wf_fifo_is_empty(&worker->list)
		|| !wf_fifo_is_empty(&worker->yielded)
		|| !wf_fifo_is_empty(&worker->yielded_movable)
		|| !wf_fifo_is_empty(&worker->inbox_rest)
		|| !wf_deque_is_empty(&worker->ring);
}
