/*
 * queue.h: what of a worker's queues is inline: which process is next.
 *
 * In order: what was picked already, the next slot (at most WF_RUN_NEXT_MAX times in a row), the
 * injector when its interval is over, then the private list and the ring alternately. All of it is
 * the owner's.
 *
 * That is the normal class. While a high or a low process is ready (`classes`) queue.c shares the
 * picks out: of WF_CLASS_TURNS in a row low has the first claim to one, normal to one, and high to
 * the others; what a class cannot use goes to the highest that can. Processes that have run wait in
 * the list of their class. Those that never have may be in the injector and the ring, where all
 * count as normal, since thieves take from there whatever comes.
 *
 * The only worker of a runtime, of which nobody steals, has no use for the ring: what would go
 * there goes to the back of the list, for stores in place of a read-modify-write. What it takes
 * from the injector passes through the ring all the same. (In lifo order the ring's is wanted.)
 *
 * Children of scopes that have not run yet have a queue of their own, newest first: so a tree of
 * them is gone through depth first, on few stacks, while thieves take its largest branches. So are
 * tasks whose last child has ended. They get every other turn of list and ring, and all that those
 * leave.
 */
#ifndef WF_CORE_QUEUE_H
#define WF_CORE_QUEUE_H

#include "core/runtime.h"
#include "core/scoped.h"

/* After a push that others may steal: usually right, and cheap. Step 7 makes it certain. */
WF_INLINE void wf_queue_notify(struct wf_worker *worker)
{
	if (WF_UNLIKELY(wf_idle_wants_work_wake_relaxed(&worker->rt->idle)))
		wf_rt_wake_for_work(worker->rt);
}

WF_INLINE void wf_queue_prefetch_header(struct wf_node *node)
{
	if (WF_LIKELY(node != NULL)) {
		WF_PREFETCH_WRITE(node);
		WF_PREFETCH_WRITE(WF_CONTAINER_OF(node, struct wf_proc, run));
	}
}

/*
 * With many processes nothing of them is in the first cache any more. `next` runs after the one
 * about to run: its header was prefetched the last time, so its fiber's place is known, and the
 * header after it.
 */
WF_INLINE void wf_queue_prefetch(struct wf_node *next)
{
	struct wf_proc *p;

	if (!next)
		return;
	p = WF_CONTAINER_OF(next, struct wf_proc, run);
	wf_fiber_prefetch(p->live.fiber);
	wf_queue_prefetch_header(next->next);
}

/* From a list of ready processes; NULL: it is empty. */
WF_INLINE struct wf_proc *wf_queue_fifo_pop(struct wf_fifo *fifo)
{
	struct wf_node *node = wf_fifo_pop(fifo);

	if (!node)
		return NULL;
	wf_queue_prefetch(node->next);
	return WF_CONTAINER_OF(node, struct wf_proc, run);
}

/* The first of the list, which is not empty, where few have a fiber: none is prefetched. */
WF_INLINE struct wf_proc *wf_queue_list_pop_bare(struct wf_worker *worker)
{
	struct wf_node *node = worker->list.first, *next = node->next;

	worker->list.first = next;
	if (WF_LIKELY(next != NULL))
		wf_queue_prefetch_header(next->next);
	return WF_CONTAINER_OF(node, struct wf_proc, run);
}

WF_INLINE struct wf_proc *wf_queue_list_pop(struct wf_worker *worker)
{
	return wf_queue_fifo_pop(&worker->list);
}

/* A ready process that stays on this worker: behind those of its class. */
WF_INLINE void wf_queue_push(struct wf_worker *worker, struct wf_proc *p)
{
	if (WF_UNLIKELY(wf_u64_load_relaxed(&p->word) & WF_WORD_PRIORITY))
		wf_queue_push_class(worker, p);
	else
		wf_fifo_push(&worker->list, &p->run);
}

/* The next slot, if it has not been used too often in a row: then its process goes to the back. */
WF_INLINE struct wf_proc *wf_queue_next_pop(struct wf_worker *worker)
{
	struct wf_proc *p = worker->run_next;

	worker->run_next = NULL;
	if (worker->run_next_uses < WF_RUN_NEXT_MAX) {
		worker->run_next_uses++;
		return p;
	}
	wf_fifo_push(&worker->list, &p->run);
	return NULL;
}

/* Whether it is a child's turn. Only the queue's pop knows that it is not empty. */
WF_INLINE bool wf_queue_child_is_next(struct wf_worker *worker)
{
	return worker->has_children
		&& (!worker->child_last
			|| (wf_fifo_is_empty(&worker->list) && wf_deque_count(&worker->ring) == 0));
}

/* NULL: there is none, or thieves have been quicker. */
WF_INLINE struct wf_proc *wf_queue_child_pop(struct wf_worker *worker)
{
	struct wf_proc *p = wf_deque_pop_newest(&worker->children);

	worker->has_children = worker->child_last = p != NULL;
	if (p)
		wf_scope_child_taken(worker, p);
	return p;
}

/* False: `children` are full. True stays true until the owner pushes. */
WF_INLINE bool wf_queue_child_fits(struct wf_worker *worker)
{
	enum { KEPT_FREE = WF_RING_SIZE - WF_CHILDREN_MAX };

	return WF_LIKELY(wf_deque_room(&worker->children, KEPT_FREE + 1) > KEPT_FREE);
}

WF_INLINE void wf_queue_push_child(struct wf_worker *worker, struct wf_proc *p)
{
	struct wf_deque *children = &worker->children;

	wf_deque_push_unchecked(children, wf_u64_load_relaxed(&children->bottom), p);
	worker->has_children = true;
	wf_queue_notify(worker);
}

/*
 * Whether the next pick may be a process that has become ready just now, as if it were the newest
 * child: nothing else is due, and it is a child's turn.
 */
WF_INLINE bool wf_queue_may_hand_over(struct wf_worker *worker)
{
	return !worker->picked && !worker->run_next && !worker->classes
		&& worker->injector_picks + 1 < WF_INJECTOR_INTERVAL
		&& (!worker->child_last
			|| (wf_fifo_is_empty(&worker->list) && wf_deque_count(&worker->ring) == 0));
}

WF_INLINE void wf_queue_hand_over(struct wf_worker *worker, struct wf_proc *p)
{
	worker->picked = p;
	worker->child_last = true;
	worker->injector_picks++;
}

/*
 * Whether a ready movable process waits in the list of its class. In the ring any worker may take
 * it, but there its class does not count: so it does while all have something to run. A worker that
 * has nothing need not choose.
 */
WF_INLINE bool wf_queue_keeps(const struct wf_worker *worker, const struct wf_proc *p)
{
	return WF_UNLIKELY(wf_u64_load_relaxed(&p->word) & WF_WORD_PRIORITY)
		&& !wf_idle_is_anybody_relaxed(&worker->rt->idle);
}

/* Of the normal class. */
WF_INLINE struct wf_proc *wf_queue_pick_normal(struct wf_worker *worker)
{
	struct wf_proc *p;

	if (worker->run_next) {
		p = wf_queue_next_pop(worker);
		if (p)
			return p;
	}
	worker->run_next_uses = 0;
	if (WF_UNLIKELY(++worker->injector_picks >= WF_INJECTOR_INTERVAL)) {
		worker->injector_picks = 0;
		if (!wf_injector_is_empty_relaxed(&worker->rt->injector)) {
			p = wf_worker_take_injected(worker);
			if (p)
				return p;
		}
	}
	if (wf_queue_child_is_next(worker)) {
		p = wf_queue_child_pop(worker);
		if (p)
			return p;
	}
	worker->child_last = false;
	worker->list_turn = !worker->list_turn;
	if (worker->list_turn) {
		p = wf_queue_list_pop(worker);
		return p ? p : wf_deque_pop(&worker->ring);
	}
	p = wf_deque_pop(&worker->ring);
	return p ? p : wf_queue_list_pop(worker);
}

WF_INLINE struct wf_proc *wf_queue_pick(struct wf_worker *worker)
{
	struct wf_proc *p = worker->picked;

	if (p) {
		worker->picked = NULL;
		return p;
	}
	if (WF_UNLIKELY(worker->classes))
		return wf_queue_pick_classes(worker);
	return wf_queue_pick_normal(worker);
}

WF_INLINE bool wf_queue_has_yielded(const struct wf_worker *worker)
{
	return !wf_fifo_is_empty(&worker->yielded) || !wf_fifo_is_empty(&worker->yielded_movable)
		|| !wf_fifo_is_empty(&worker->yielded_class);
}

#endif
