/* tcp.h: what serve.c and buf.c use of tcp.c. */
#ifndef WF_IO_TCP_H
#define WF_IO_TCP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "io/fd.h"

/* Checks for a pending cancel (-EPERM, -ECANCELED), then O1. */
WF_INLINE int wf_tcp_begin(struct wf_op *op, int fd)
{
	int r = wf_wait_check();

	return WF_LIKELY(r == 0) ? wf_op_begin(op, fd) : r;
}

/* The same for calls of one try, which tasks may make: also WEFT_PENDING. */
WF_INLINE int wf_tcp_begin_once(struct wf_op *op, int fd)
{
	int r = wf_wait_check_once();

	return WF_LIKELY(r == 0) ? wf_op_begin(op, fd) : r;
}

/* O6, and a unit of the budget for progress without a park. */
WF_INLINE void wf_tcp_end(struct wf_op *op, bool progress)
{
	bool parked = op->parked;

	wf_op_end(op);
	if (progress && !parked)
		wf_budget_take();
}

/* One try to read: the count, 0 at the end, -EAGAIN (noted: call wf_op_turn()), or an error. */
ssize_t wf_tcp_receive_now(struct wf_op *op, void *buffer, size_t size);

/*
 * Accepts a connection if one is queued; never parks, and is no point of cancellation (but may
 * yield).
 * Returns the descriptor, in the table, its generation for wf_fd_close() in *generation_out;
 * -EAGAIN; else as weft_accept().
 */
int wf_tcp_accept_now(int fd, uint32_t *generation_out);

/* Parks until wf_tcp_accept_now() on the listener is worth a try. 0; as weft_accept(). */
int wf_tcp_accept_wait(int fd);

#endif
