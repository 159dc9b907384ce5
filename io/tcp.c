/*
 * tcp.c: the calls of <weft/io.h> on one descriptor: listen, accept, connect, read, write, poll.
 * Each is an operation of io/fd.h around a system call; who may wait and what closes what is
 * decided there.
 *
 * Every call checks for a pending cancel first, then tries, then waits; every try that makes
 * progress without a park takes a unit of the process's budget, after the operation has ended (in
 * the calls that move everything: in between).
 *
 * SIGPIPE: sockets are written with MSG_NOSIGNAL. For other descriptors there is no such flag, and
 * none is needed: processes run on workers, which block the signal, and the kernel sends it to the
 * writing thread only.
 */
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "io/addr.h"
#include "io/fd.h"
#include "io/mem.h"
#include "io/resolve.h"
#include "io/socket.h"
#include "io/syscall.h"
#include "io/tcp.h"

enum {
	/*
	 * Of one system call. The kernel moves no more than 2^31 - 4096 at once: a count below a
	 * larger size would look short.
	 */
	TRANSFER_BYTES_MAX = 1 << 30,
};

/* --- Reading and writing --- */

/*
 * An end or an error that comes with a close by another process is that close's doing (C3 shuts the
 * connection down): the caller hears of the close.
 */
static WF_NOINLINE ssize_t unless_closed(struct wf_op *op, ssize_t n)
{
	int r = wf_op_sample(op);

	return r < 0 ? r : n;
}

/* In memory it is known whether a further try would give EAGAIN. */
static WF_NOINLINE ssize_t receive_in_memory(struct wf_op *op, void *buffer, size_t size)
{
	bool last;
	ssize_t n = wf_mem_receive(wf_mem_of(op->entry), buffer, size, &last);

	if (WF_LIKELY(n > 0))
		op->done = last ? WF_FD_READ : 0;
	else if (n == -EAGAIN)
		wf_op_miss(op, WF_FD_READ);
	else
		n = unless_closed(op, n);
	return n;
}

static WF_NOINLINE ssize_t transmit_in_memory(struct wf_op *op, const void *buffer, size_t size)
{
	bool last;
	ssize_t n = wf_mem_transmit(wf_mem_of(op->entry), buffer, size, &last);

	if (WF_LIKELY(n > 0))
		op->done = last ? WF_FD_WRITE : 0;
	else if (n == -EAGAIN)
		wf_op_miss(op, WF_FD_WRITE);
	else
		n = unless_closed(op, n);
	return n;
}

ssize_t wf_tcp_receive_now(struct wf_op *op, void *buffer, size_t size)
{
	ssize_t n;

	if (WF_UNLIKELY(wf_op_is_virtual(op)))
		return receive_in_memory(op, buffer, size);
	do
		n = WF_LIKELY(op->word & WF_FD_SOCKET) ? wf_sys_recv(op->fd, buffer, size, 0)
						       : wf_sys_read(op->fd, buffer, size);
	while (WF_UNLIKELY(n == -EINTR));
	if (WF_LIKELY(n > 0))
		wf_op_moved(op, WF_FD_READ, (size_t)n, size);
	else if (n == -EAGAIN)
		wf_op_miss(op, WF_FD_READ);
	else
		n = unless_closed(op, n);
	return n;
}

static ssize_t transmit_now(struct wf_op *op, const void *buffer, size_t size)
{
	ssize_t n;

	if (WF_UNLIKELY(wf_op_is_virtual(op)))
		return transmit_in_memory(op, buffer, size);
	do
		n = WF_LIKELY(op->word & WF_FD_SOCKET)
			? wf_sys_send(op->fd, buffer, size, MSG_NOSIGNAL)
			: wf_sys_write(op->fd, buffer, size);
	while (WF_UNLIKELY(n == -EINTR));
	if (WF_LIKELY(n > 0))
		wf_op_moved(op, WF_FD_WRITE, (size_t)n, size);
	else if (n == -EAGAIN)
		wf_op_miss(op, WF_FD_WRITE);
	else
		n = unless_closed(op, n);
	return n;
}

/* Reads once: at least a byte, the end, or an error. */
static ssize_t receive(struct wf_op *op, void *buffer, size_t size, weft_time deadline)
{
	ssize_t n;
	int r;

	while ((r = wf_op_turn(op, WF_FD_READ, deadline, false)) == 0) {
		n = wf_tcp_receive_now(op, buffer, size);
		if (WF_LIKELY(n != -EAGAIN))
			return n;
	}
	return r;
}

static ssize_t transmit(struct wf_op *op, const void *buffer, size_t size, weft_time deadline)
{
	ssize_t n;
	int r;

	while ((r = wf_op_turn(op, WF_FD_WRITE, deadline, false)) == 0) {
		n = transmit_now(op, buffer, size);
		if (WF_LIKELY(n != -EAGAIN))
			return n;
	}
	return r;
}

static size_t clamp(size_t size)
{
	return size < TRANSFER_BYTES_MAX ? size : TRANSFER_BYTES_MAX;
}

ssize_t weft_read(int fd, void *buffer, size_t size, weft_time deadline)
{
	struct wf_op op;
	ssize_t n = wf_tcp_begin_once(&op, fd);

	if (WF_UNLIKELY(n < 0))
		return n;
	n = size ? receive(&op, buffer, clamp(size), deadline) : 0;
	wf_tcp_end(&op, n >= 0);
	return n;
}

ssize_t weft_write(int fd, const void *buffer, size_t size, weft_time deadline)
{
	struct wf_op op;
	ssize_t n = wf_tcp_begin_once(&op, fd);

	if (WF_UNLIKELY(n < 0))
		return n;
	n = size ? transmit(&op, buffer, clamp(size), deadline) : 0;
	wf_tcp_end(&op, n >= 0);
	return n;
}

/*
 * Between two system calls of one call: gives way when the budget is used up, and notices a cancel,
 * which a stream that is always ready would keep from being noticed.
 */
static int next_piece(struct wf_op *op)
{
	int r;

	if (!op->parked)
		wf_budget_take();
	op->parked = false;
	r = wf_wait_check();
	return r < 0 ? r : wf_op_again(op);
}

ssize_t weft_read_exact(int fd, void *buffer, size_t size, weft_time deadline)
{
	struct wf_op op;
	size_t done = 0;
	ssize_t n = wf_tcp_begin(&op, fd);

	if (WF_UNLIKELY(n < 0))
		return n;
	while (done < size && (done == 0 || (n = next_piece(&op)) == 0)) {
		n = receive(&op, (char *)buffer + done, clamp(size - done), deadline);
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	wf_tcp_end(&op, n >= 0);
	return n < 0 ? n : (ssize_t)done;
}

ssize_t weft_write_all(int fd, const void *buffer, size_t size, weft_time deadline)
{
	struct wf_op op;
	size_t done = 0;
	ssize_t n = wf_tcp_begin(&op, fd);

	if (WF_UNLIKELY(n < 0))
		return n;
	while (done < size && (done == 0 || (n = next_piece(&op)) == 0)) {
		n = transmit(&op, (const char *)buffer + done, clamp(size - done), deadline);
		if (n < 0)
			break;
		done += (size_t)n;
	}
	wf_tcp_end(&op, n >= 0);
	return n < 0 ? n : (ssize_t)done;
}

/* --- Polling --- */

static short poll_events(unsigned events)
{
	return (short)((events & WEFT_READABLE ? POLLIN | POLLRDHUP : 0) |
		(events & WEFT_WRITABLE ? POLLOUT : 0));
}

static int poll_result(short events)
{
	return (events & (POLLIN | POLLRDHUP) ? (int)WEFT_READABLE : 0) |
		(events & POLLOUT ? (int)WEFT_WRITABLE : 0) |
		(events & POLLHUP ? (int)WEFT_HANGUP : 0) |
		(events & POLLERR ? (int)WEFT_ERROR : 0);
}

/* What it is ready for now, 0 for nothing. Asks the kernel: others may have read it meanwhile. */
static int poll_now(int fd, unsigned events)
{
	struct pollfd query = { .fd = fd, .events = poll_events(events) };
	struct timespec zero = { 0, 0 };
	long r;

	if (fd >= WF_FD_NUMBER_MAX)
		return wf_mem_poll(fd, events);
	do
		r = wf_syscall(SYS_ppoll, &query, 1, &zero, NULL, 0);
	while (r == -EINTR);
	if (r < 0)
		return (int)r;
	return query.revents & POLLNVAL ? -EBADF : poll_result(query.revents);
}

/*
 * Level-triggered on top of edges: sample, ask the kernel, and if it is not ready wait for any
 * event after the sample. The ready bits are not used: they say that trying may succeed, not that
 * it will.
 */
int weft_poll_fd(int fd, unsigned events, weft_time deadline)
{
	uint64_t ready = (events & WEFT_WRITABLE ? WF_FD_WRITE : 0) |
		(events & WEFT_READABLE ? WF_FD_READ : 0) | WF_FD_STICKY;
	bool last = false;
	struct wf_op op;
	int waited = 0;
	int r = wf_tcp_begin_once(&op, fd);

	if (r < 0)
		return r;
	while ((r = poll_now(fd, events)) == 0 && !last) {
		waited = wf_op_wait_event(&op, ready, deadline);
		if (waited == 0)
			waited = wf_op_sample(&op);
		/* A result beats its deadline, unless nothing was waited for. */
		last = waited < 0;
		if (last && (!op.parked || waited != -ETIME))
			break;
	}
	wf_tcp_end(&op, r > 0);
	return r != 0 ? r : waited;
}

/* --- Listening and accepting --- */

static int enter_table(int fd, uint64_t kind, uint32_t *generation_out)
{
	int r = wf_fd_reset(fd, kind, generation_out);

	if (WF_LIKELY(r == 0))
		return fd;
	(void)wf_sys_close(fd);
	return r;
}

int weft_listen(const char *address, int backlog)
{
	struct wf_addrs addrs;
	struct wf_addr used;
	int fd, r;

	if (backlog < 0)
		return -EINVAL;
	r = wf_resolve(address, WF_RESOLVE_LISTEN, &addrs, WEFT_FOREVER);
	if (r < 0)
		return r;
	if (addrs.in_memory[0]) {
		struct wf_listener listener;

		r = wf_mem_listen(addrs.in_memory, backlog, 1, &listener);
		return r < 0 ? r : listener.fd;
	}
	fd = wf_socket_bind_first(&addrs, 0, &used);
	if (fd < 0)
		return fd;
	r = wf_socket_listen(fd, backlog);
	if (r == 0)
		return enter_table(fd, WF_FD_SOCKET | WF_FD_TCP | WF_FD_NODELAY, NULL);
	(void)wf_sys_close(fd);
	return r;
}

/* Errors of a connection that died in the queue: the next one may be well. */
static bool is_gone(int error)
{
	switch (error) {
	case -ECONNABORTED:
	case -EINTR:
	case -ENETDOWN:
	case -EPROTO:
	case -ENOPROTOOPT:
	case -EHOSTDOWN:
	case -ENONET:
	case -EHOSTUNREACH:
	case -ENETUNREACH:
	case -ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

/* A new connection, into the table with what it has from its listener. */
static int take_connection(const struct wf_op *op, int fd, uint32_t *generation_out)
{
	uint64_t kind = op->word & (WF_FD_SOCKET | WF_FD_TCP);

	if (!(op->word & WF_FD_NODELAY))
		(void)wf_sys_set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	return enter_table(fd, kind, generation_out);
}

/* A try. The descriptor is in the table. */
static int accept_now(struct wf_op *op, uint32_t *generation_out)
{
	int r;

	if (WF_UNLIKELY(wf_op_is_virtual(op))) {
		r = wf_mem_accept(op->fd, generation_out);
		if (r >= 0)
			wf_op_pass_on(op);
		return r;
	}
	r = wf_sys_accept(op->fd);
	if (WF_UNLIKELY(r < 0))
		return r;
	wf_op_pass_on(op);
	return take_connection(op, r, generation_out);
}

/* Accepts within an operation. */
static int accept_one(struct wf_op *op, weft_time deadline, uint32_t *generation_out)
{
	int r;

	while ((r = wf_op_turn(op, WF_FD_READ, deadline, true)) == 0) {
		r = accept_now(op, generation_out);
		if (WF_LIKELY(r >= 0))
			return r;
		if (r == -EAGAIN) {
			wf_op_miss(op, WF_FD_READ);
			continue;
		}
		if (!is_gone(r))
			break;
		wf_budget_take();
		r = wf_op_again(op);
		if (r < 0)
			break;
	}
	return r;
}

int weft_accept(int fd, weft_time deadline)
{
	struct wf_op op;
	int r = wf_tcp_begin_once(&op, fd);

	if (r < 0)
		return r;
	r = accept_one(&op, deadline, NULL);
	wf_tcp_end(&op, r >= 0);
	return r;
}

int wf_tcp_accept_now(int fd, uint32_t *generation_out)
{
	struct wf_op op;
	int r = wf_op_begin(&op, fd);

	if (r < 0)
		return r;
	r = accept_one(&op, WEFT_POLL, generation_out);
	wf_tcp_end(&op, r >= 0);
	return r;
}

int wf_tcp_accept_wait(int fd)
{
	struct wf_op op;
	int r = wf_tcp_begin(&op, fd);

	if (r < 0)
		return r;
	r = wf_op_turn(&op, WF_FD_READ, WEFT_FOREVER, true);
	wf_op_end(&op);
	return r;
}

/* --- Connecting --- */

/*
 * Asking again is how connect(2) tells the outcome: 0 or EISCONN when it is there, EALREADY while
 * it is not, else why it failed. EAGAIN is none of these: it says that there is no port or route
 * left, and must not look like WEFT_POLL's.
 */
static int connect_one(struct wf_op *op, const struct wf_addr *addr, weft_time deadline)
{
	int r;

	while ((r = wf_op_turn(op, WF_FD_WRITE, deadline, false)) == 0) {
		r = wf_sys_connect(op->fd, &addr->any, addr->size);
		if (r == 0 || r == -EISCONN)
			return 0;
		if (r == -EINTR)
			continue;
		if (r == -EAGAIN)
			return -EADDRNOTAVAIL;
		if (r != -EINPROGRESS && r != -EALREADY)
			break;
		wf_op_miss(op, WF_FD_WRITE);
	}
	return r;
}

static int connect_socket(const struct wf_addr *addr, weft_time deadline, bool *parked_out)
{
	int fd = (int)wf_syscall(SYS_socket, addr->any.sa_family,
		SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	struct wf_op op;
	int r;

	if (fd < 0)
		return fd;
	(void)wf_sys_set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	r = enter_table(fd, WF_FD_SOCKET | WF_FD_TCP, NULL);
	if (r < 0)
		return r;
	r = wf_op_begin(&op, fd);
	if (r == 0) {
		r = connect_one(&op, addr, deadline);
		*parked_out |= op.parked;
		wf_op_end(&op);
	}
	if (r == 0)
		return fd;
	(void)weft_close(fd);
	return r;
}

/* In memory: there is one address, and it knows at once, unless it has no room or is far away. */
static int connect_in_memory(const char *address, weft_time deadline, bool *parked_out)
{
	int fd = wf_mem_socket();
	struct wf_op op;
	int r;

	if (fd < 0)
		return fd;
	r = wf_op_begin(&op, fd);
	WF_ASSERT(r == 0); /* nobody else has the handle */
	while ((r = wf_op_turn(&op, WF_FD_WRITE, deadline, false)) == 0) {
		r = wf_mem_connect(fd, address);
		if (r != -EINPROGRESS)
			break;
		wf_op_miss(&op, WF_FD_WRITE);
	}
	*parked_out = op.parked;
	wf_op_end(&op);
	if (r == 0)
		return fd;
	(void)weft_close(fd);
	return r;
}

/* The share of the time that is left which one of `left` addresses may take. */
static weft_time share_of(weft_time deadline, unsigned left)
{
	weft_time now;

	if (deadline == WEFT_FOREVER || deadline == WEFT_POLL || left <= 1)
		return deadline;
	now = weft_now();
	return deadline <= now ? deadline : now + (deadline - now) / (weft_time)left;
}

int weft_connect(const char *address, weft_time deadline)
{
	struct wf_addrs addrs;
	bool parked = false;
	int r = wf_wait_check();

	if (r < 0)
		return r;
	r = wf_resolve(address, WF_RESOLVE_CONNECT, &addrs, deadline);
	if (r < 0)
		return r;
	if (addrs.in_memory[0])
		r = connect_in_memory(addrs.in_memory, deadline, &parked);
	for (unsigned i = 0; i < addrs.count; i++) {
		r = connect_socket(
			&addrs.addr[i], share_of(deadline, addrs.count - i), &parked);
		if (r >= 0 || r == -ECANCELED || r == -EMFILE || r == -ENFILE)
			break;
	}
	if (!parked)
		wf_budget_take();
	return r;
}

/* --- About a descriptor --- */

int weft_shutdown(int fd, int how)
{
	struct wf_op op;
	int r;

	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		return -EINVAL;
	r = wf_op_begin(&op, fd);
	if (r < 0)
		return r;
	r = wf_op_is_virtual(&op) ? wf_mem_shutdown(fd, how)
				  : (int)wf_syscall(SYS_shutdown, fd, how);
	wf_op_end(&op);
	return r;
}

static int local_address_virtual(int fd, char *text_out, size_t text_size)
{
	struct wf_op op;
	int r = wf_op_begin(&op, fd);

	if (r < 0)
		return r;
	r = wf_mem_local_address(fd, text_out, text_size);
	wf_op_end(&op);
	return r;
}

int weft_local_address(int fd, char *text_out, size_t text_size)
{
	struct wf_addr addr;
	int type, r;

	if (!weft_fd_kernel(fd))
		return local_address_virtual(fd, text_out, text_size);
	r = wf_socket_address(fd, &addr);
	if (r == 0)
		r = wf_sys_get_option(fd, SOL_SOCKET, SO_TYPE, &type);
	if (r < 0)
		return r;
	return wf_addr_format(type == SOCK_DGRAM ? "udp" : "tcp", &addr, text_out, text_size);
}
