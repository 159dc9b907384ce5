/*
 * inbox.h: what other threads tell a worker: messages in its inbox, an injector of its own.
 *
 * A message is a node and a kind (wf_injector_send). Sending is a push (an RMW), then the directed
 * wake of sync/idle.h: if the worker's parked bit is set, clear it and send the token. N messages
 * to one sleeper cost one system call: only the first finds the bit. A push that is refused because
 * the runtime has ended can only be a stale wake; its maker sends no token.
 */
#ifndef WF_CORE_INBOX_H
#define WF_CORE_INBOX_H

#include "core/worker.h"

enum wf_message {
	WF_MESSAGE_WAKE,    /* struct wf_proc.inbox: a remote wake */
	WF_MESSAGE_START,   /* struct wf_proc.run: a new process PLACED on this worker */
	WF_MESSAGE_RETIRE,  /* struct wf_proc.run: a header given up by a foreign thread */
	WF_MESSAGE_RETIRED, /* struct wf_retire_batch.node: past its grace period */
	WF_MESSAGE_POST,    /* struct post in post.c: weft_post() */
	WF_MESSAGE_CALL,    /* struct call_part in control.c: weft_rt_run_on_workers() */
};

/* Any thread. False: the runtime has ended, nothing was sent. */
bool wf_inbox_send(struct wf_worker *target, struct wf_node *node, enum wf_message kind);

/* The same without a wake: for what can wait until the worker looks anyway. */
bool wf_inbox_send_quietly(struct wf_worker *target, struct wf_node *node, enum wf_message kind);

#endif
