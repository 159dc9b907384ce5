/* socket.h: making listening sockets, for weft_listen() and weft_serve(). */
#ifndef WF_IO_SOCKET_H
#define WF_IO_SOCKET_H

#include "io/addr.h"

/* wf_socket_bind() */
#define WF_BIND_SHARED (1u << 0) /* SO_REUSEPORT: one of several listeners of a port */

/*
 * A TCP socket bound to `addr`, not listening yet: non-blocking, close-on-exec, SO_REUSEADDR,
 * TCP_NODELAY (which accepted connections inherit), and for the IPv6 wildcard IPv4 too. Plain
 * kernel descriptor, not in the table. Any thread, never blocks. The descriptor, or negative errno.
 */
int wf_socket_bind(const struct wf_addr *addr, unsigned flags);

/*
 * The first of `addrs` that this machine can bind (a missing family or address is passed over, any
 * other error ends the search). used_out: the address it was bound to, its port filled in.
 */
int wf_socket_bind_first(const struct wf_addrs *addrs, unsigned flags, struct wf_addr *used_out);

/* backlog 0: the system's most. 0 or negative errno. */
int wf_socket_listen(int fd, int backlog);

/* How many connections wait in a TCP listener's queue, or negative errno. */
int wf_socket_queued(int fd);

/* The address a socket is bound to. 0 or negative errno. */
int wf_socket_address(int fd, struct wf_addr *out);

#endif
