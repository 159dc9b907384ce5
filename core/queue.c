/*
 * queue.c: a worker's queues: the ring and its overflow, the children of scopes, the classes, and
 * what comes out of the injector.
 */
#include "core/queue.h"

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
	unsigned count;

	if (worker->alone) {
		wf_fifo_push(&worker->list, &p->run);
		return;
	}
	count = wf_deque_push(&worker->ring, p, items);

	if (WF_UNLIKELY(count > 0))
		spill(worker, items, count);
	else
		wf_queue_notify(worker);
}

/* A ready movable process. */
void wf_worker_push_movable(struct wf_worker *worker, struct wf_proc *p)
{
	if (wf_queue_keeps(worker, p))
		wf_queue_push_class(worker, p);
	else
		wf_worker_push_ring(worker, p);
}

void wf_worker_push_child(struct wf_worker *worker, struct wf_proc *p)
{
	if (wf_queue_child_fits(worker))
		wf_queue_push_child(worker, p);
	else
		wf_worker_push_ring(worker, p);
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

/* --- classes --- */

WF_NOINLINE void wf_queue_push_class(struct wf_worker *worker, struct wf_proc *p)
{
	switch (wf_word_priority(wf_u64_load_relaxed(&p->word))) {
	case WEFT_PRIORITY_HIGH:
		wf_fifo_push(&worker->high, &p->run);
		break;
	case WEFT_PRIORITY_LOW:
		wf_fifo_push(&worker->low, &p->run);
		break;
	case WEFT_PRIORITY_NORMAL:
		wf_fifo_push(&worker->list, &p->run);
		return;
	}
	worker->classes = true;
}

/* Who may go first at the next pick, then second, then third: each lower class has its turn. */
static const enum weft_priority *class_order(const struct wf_worker *worker)
{
	static const enum weft_priority orders[][3] = {
		{ WEFT_PRIORITY_HIGH, WEFT_PRIORITY_NORMAL, WEFT_PRIORITY_LOW },
		{ WEFT_PRIORITY_NORMAL, WEFT_PRIORITY_HIGH, WEFT_PRIORITY_LOW },
		{ WEFT_PRIORITY_LOW, WEFT_PRIORITY_HIGH, WEFT_PRIORITY_NORMAL },
	};
	unsigned turn = worker->class_turn % WF_CLASS_TURNS;

	if (turn == WF_CLASS_TURNS / 2 - 1 && !WF_PLANTED(queue_starves_normal))
		return orders[1];
	if (turn == WF_CLASS_TURNS - 1 && !WF_PLANTED(queue_starves_low))
		return orders[2];
	return orders[0];
}

static struct wf_proc *class_pop(struct wf_worker *worker, enum weft_priority priority)
{
	struct wf_proc *p;

	if (priority == WEFT_PRIORITY_NORMAL)
		return wf_queue_pick_normal(worker);
	p = wf_queue_fifo_pop(priority == WEFT_PRIORITY_HIGH ? &worker->high : &worker->low);
	if (p)
		worker->injector_picks++; /* looked at when normal has its turn */
	worker->classes =
		!wf_fifo_is_empty(&worker->high) || !wf_fifo_is_empty(&worker->low);
	return p;
}

WF_NOINLINE struct wf_proc *wf_queue_pick_classes(struct wf_worker *worker)
{
	const enum weft_priority *order = class_order(worker);
	struct wf_proc *p = NULL;

	worker->class_turn++;
	for (unsigned i = 0; i < 3 && !p; i++)
		p = class_pop(worker, order[i]);
	return p;
}

bool wf_worker_has_local_work(struct wf_worker *worker)
{
	return worker->picked || worker->run_next || !wf_fifo_is_empty(&worker->list)
		|| worker->classes || wf_queue_has_yielded(worker)
		|| !wf_fifo_is_empty(&worker->inbox_rest)
		|| !wf_deque_is_empty(&worker->ring)
		|| !wf_deque_is_empty(&worker->children);
}
