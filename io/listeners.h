/* listeners.h: the listening sockets of one server, one per worker. */
#ifndef WF_IO_LISTENERS_H
#define WF_IO_LISTENERS_H

#include <stdbool.h>
#include <stdint.h>

#include "io/addr.h"

struct weft_rt;

struct wf_listener {
	int fd;
	uint32_t generation; /* for wf_fd_close() */
};

/*
 * Opens `count` listeners, one for each worker of `rt`, on the first of `addrs` that this machine
 * has: all of them or none. steered_out: whether the kernel hands each connection to the listener
 * of the worker on the CPU that it arrived on.
 * Returns 0; -EADDRINUSE if anybody listens there, shared or not; others of socket, bind, listen.
 */
int wf_listeners_open(struct weft_rt *rt, const struct wf_addrs *addrs, int backlog, unsigned count,
	struct wf_listener *listeners_out, bool *steered_out);

void wf_listener_close(const struct wf_listener *listener);

#endif
