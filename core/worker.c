/*
 * worker.c: the scheduler loop.
 *
 * A turn, in order (wf_worker_turn and wf_worker_run read top to bottom):
 *	1 take the time;
 *	2 run up to WF_BUDGET processes, for at most 1 ms: the next slot, then the private list and
 *	  the ring alternately, every other time a child of a scope, the injector on its interval,
 *	  drivers every WF_IO_INTERVAL picks;
 *	3 one RCU quiescent state;
 *	4 poll the drivers without waiting, those with nothing lately less often;
 *	5 drain the inbox;
 *	6 expire timers;
 *	7 wake others if work is left over;
 *	8 with nothing to do: search, spin, park.
 *
 * Steps 2, 4, 5 and 8 are run.c, poll.c, inbox.c and idle.c.
 */
#include "core/queue.h"
#include "core/timers.h"
#include "core/wake.h"

/* --- what is ready again --- */

/* To the back of what is ready: in lifo order the ring's back is its front. */
static void release_movable(struct wf_worker *worker, struct wf_proc *p)
{
	if (WF_RUN_ORDER_FIFO || wf_queue_keeps(worker, p)) {
		wf_worker_push_movable(worker, p);
	} else {
		(void)wf_injector_push(&worker->rt->injector, &p->run);
		wf_rt_wake_for_work(worker->rt);
	}
}

/* Processes that yielded are ready again: the driver has been asked since. */
static void release_yielded(struct wf_worker *worker)
{
	struct wf_chain chain = { worker->yielded.first, worker->yielded.last, 0 };
	struct wf_node *node;

	wf_fifo_append(&worker->list, &chain);
	worker->yielded.first = NULL;
	if (worker->alone) {
		chain = (struct wf_chain){
			worker->yielded_movable.first, worker->yielded_movable.last, 0 };
		wf_fifo_append(&worker->list, &chain);
		worker->yielded_movable.first = NULL;
	}
	while (WF_UNLIKELY((node = wf_fifo_pop(&worker->yielded_movable)) != NULL))
		release_movable(worker, WF_CONTAINER_OF(node, struct wf_proc, run));
	while (WF_UNLIKELY((node = wf_fifo_pop(&worker->yielded_class)) != NULL))
		wf_queue_push_class(worker, WF_CONTAINER_OF(node, struct wf_proc, run));
}

/* Of a sticky process. It may be left from a wait that is over: then nobody waits for it. */
static void fire(struct wf_worker *worker, struct wf_proc *p)
{
	p->live.armed = false;
	if (p->live.run == WF_WAITING && p->live.until)
		wf_proc_wake(worker->rt, worker, p, false);
}

static unsigned expire_timers(struct wf_worker *worker)
{
	unsigned fired = 0;
	struct wf_timer *timer;

	if (!WF_PLANTED(expire_without_advance) || !worker->list_turn)
		wf_wheel_advance(&worker->wheel, worker->now);
	if (wf_wheel_count(&worker->wheel) == 0)
		return 0;
	while (fired < WF_EXPIRE_BUDGET && (timer = wf_wheel_pop_due(&worker->wheel))) {
		fire(worker, WF_CONTAINER_OF(timer, struct wf_proc, timer));
		fired++;
	}
	if (fired)
		wf_count(&worker->counters.timers_fired, fired);
	return fired;
}

/* --- the turn --- */

/* Step 7: certain where the peeks at each push were not. */
static void wake_others(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;

	if (rt->worker_count == 1
		|| (wf_deque_count(&worker->ring) == 0 && wf_deque_count(&worker->children) == 0))
		return;
	/*
	 * Q2: an RMW on bottom, then claim_any's seq_cst load: with P2 and P3 in idle.c.
	 */
	wf_deque_publish(&worker->ring);
	if (worker->has_children)
		wf_deque_publish(&worker->children);
	wf_rt_wake_for_work(rt);
}

bool wf_worker_turn(struct wf_worker *worker, unsigned budget)
{
	unsigned ran, messages, fired;

	worker->now = wf_rt_now(worker->rt); /* 1 */
	ran = wf_worker_run_batch(worker, budget); /* 2 */
	wf_rcu_quiescent();              /* 3 */
	wf_worker_poll_after_batch(worker, ran); /* 4 */
	wf_worker_flush_drivers(worker);
	release_yielded(worker);
	messages = wf_worker_drain_inbox(worker); /* 5 */
	fired = expire_timers(worker) + wf_timers_expire(worker); /* 6 */
	wf_table_tend(worker);
	wf_life_check(worker);
	wf_count(&worker->counters.turns, 1);
	wake_others(worker);             /* 7 */
	return ran + messages + fired > 0 || wf_worker_has_local_work(worker);
}

void wf_worker_run(struct wf_worker *worker)
{
	while (wf_u32_load_relaxed(&worker->rt->stop_phase) != WF_ENDED) {
		if (wf_worker_turn(worker, WF_BUDGET))
			wf_worker_search_end(worker);
		else
			wf_worker_idle(worker);  /* 8 */
	}
}
