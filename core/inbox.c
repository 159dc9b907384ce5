/* inbox.c: sending to, and draining, a worker's inbox. */
#include "core/inbox.h"

#include "core/control.h"
#include "core/post.h"
#include "core/queue.h"
#include "core/wake.h"

bool wf_inbox_send_quietly(struct wf_worker *target, struct wf_node *node, enum wf_message kind)
{
	return wf_injector_send(&target->inbox, node, kind) != WF_PUSH_CLOSED;
}

bool wf_inbox_send(struct wf_worker *target, struct wf_node *node, enum wf_message kind)
{
	struct wf_worker *self = wf_worker_self();

	if (!wf_inbox_send_quietly(target, node, kind))
		return false;
	/* Q1: the push was the RMW, claim_one's load comes after it: with P2 and P3 in idle.c. */
	if (wf_idle_claim_one(&target->rt->idle, target->number)) {
		if (self)
			wf_count(&self->counters.wakes_directed, 1);
		wf_worker_wake(target, WF_TOKEN_DIRECTED);
	}
	return true;
}

static void handle(struct wf_worker *worker, struct wf_node *node)
{
	switch ((enum wf_message)node->number) {
	case WF_MESSAGE_WAKE:
		wf_proc_drained(worker, WF_CONTAINER_OF(node, struct wf_proc, inbox));
		break;
	case WF_MESSAGE_START:
		wf_queue_push(worker, WF_CONTAINER_OF(node, struct wf_proc, run));
		break;
	case WF_MESSAGE_RETIRE:
		wf_table_retire(worker->rt, worker, WF_CONTAINER_OF(node, struct wf_proc, run));
		break;
	case WF_MESSAGE_RETIRED:
		wf_table_returned(worker, WF_CONTAINER_OF(node, struct wf_retire_batch, node));
		break;
	case WF_MESSAGE_POST:
		wf_watch_set(worker, WF_WATCH_CALL, 0);
		wf_post_run(worker, node);
		wf_watch_set(worker, WF_WATCH_NOTHING, 0);
		break;
	case WF_MESSAGE_CALL:
		wf_watch_set(worker, WF_WATCH_CALL, 0);
		wf_control_run(worker, node);
		wf_watch_set(worker, WF_WATCH_NOTHING, 0);
		break;
	}
}

unsigned wf_worker_drain_inbox(struct wf_worker *worker)
{
	unsigned count = 0;

	if (!wf_injector_is_empty_relaxed(&worker->inbox))
		(void)wf_injector_drain(&worker->inbox, &worker->inbox_rest);
	while (count < WF_INBOX_BUDGET) {
		struct wf_node *node = wf_fifo_pop(&worker->inbox_rest);

		if (!node)
			break;
		handle(worker, node);
		count++;
	}
	return count;
}
