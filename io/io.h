/*
 * <weft/io.h>: network I/O for processes.
 *
 * Handles are plain file descriptors, or from 2^30 up Weft's own (weft_fd_kernel() tells), which
 * only Weft's calls take: sockets of the in-memory network.
 * A call that cannot go on parks the calling process, never its thread. Use each descriptor with
 * Weft's calls only, and end it with weft_close() (or weft_fd_forget(), which hands it back to the
 * host): the runtime keeps state for it that close(2) does not know of. At most one process may
 * wait to read and one to write a descriptor at a time (others get -EBUSY); weft_accept() and
 * weft_poll_fd() may be waited in by many. Processes of several runtimes may use a descriptor, but
 * not wait on it at the same time (-EBUSY). One made elsewhere may be used as well: its first use
 * makes it non-blocking.
 *
 * Addresses are text: "tcp:HOST:PORT", HOST an IPv4 address, an IPv6 address in brackets, a name,
 * or empty for all; PORT a number, 0 for any (where one listens). "tcp:[::]:7000" listens on IPv6
 * and IPv4. "mem:NAME" is a name in the in-memory network (weft_mem_setup()); in a runtime whose
 * driver is "mem" the "tcp:" addresses are in that network too, and the kernel's descriptors can be
 * tried but not waited for (-EOPNOTSUPP instead of a wait).
 *
 * Deadlines here are timeouts, of which few come: a wait may end late by timer_slack_ns (1 ms; see
 * <weft/time.h>), never early. What has come until then counts, also after the deadline.
 *
 * Unless said otherwise: Threads: any process. Blocks: until the deadline. Cancel: -ECANCELED, and
 * nothing was read, written, accepted or connected by that call (write_all and read_exact say
 * more). Every call may return -EBADF (not an open descriptor, or one that was reused since),
 * -ECANCELED (also when the descriptor was closed by another process meanwhile), -ETIME, -EAGAIN
 * (WEFT_POLL only), -EPERM (outside a process), -EBUSY (see above), -ENOMEM (for what Weft keeps of
 * a descriptor), and what the system call gives.
 */
#ifndef WEFT_IO_H
#define WEFT_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <weft/time.h>
#include <weft/process.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that an address as text needs at most, with the NUL. */
#define WEFT_ADDRESS_MAX 96

/*
 * Opens a listening socket. backlog: 0 for the system's most, in memory 128.
 * Threads: any thread. Blocks: never for a literal address. For a name the resolver is asked: a
 * process parks until it answers, any other thread blocks. Cancel: only while that is asked.
 * Returns: the descriptor; -EINVAL for a malformed address or a negative backlog; -EADDRINUSE,
 * -EADDRNOTAVAIL, -EACCES, -EMFILE, …; -ENOENT, -EHOSTUNREACH, -EIO for a name;
 * -ECANCELED.
 */
WEFT_API int weft_listen(const char *address, int backlog);

/*
 * Accepts a connection: non-blocking, close-on-exec, TCP_NODELAY set.
 * Returns: the new descriptor; -EMFILE/-ENFILE/-ENOMEM (the caller decides when to try again;
 * weft_serve() backs off by itself). A connection that died in the queue is skipped.
 */
WEFT_API int weft_accept(int fd, weft_time deadline);

/*
 * Connects to an address; all addresses a name has are tried in turn until the deadline, each for
 * its share of the time that is left. An empty host is this machine.
 * Returns: the descriptor (as from weft_accept); -EINVAL; -ENOENT for an unknown name,
 * -EHOSTUNREACH or -EIO if the resolver fails; the last error of the attempts: -ECONNREFUSED,
 * -EADDRNOTAVAIL (no address, or no port left), …; the first of -EMFILE and -ENFILE.
 */
WEFT_API int weft_connect(const char *address, weft_time deadline);

/*
 * Reads what is there, at most `size` bytes, at least one.
 * Returns: the count; 0 at the end of the stream (or for size 0); -ECONNRESET, -ETIMEDOUT when the
 * connection has broken.
 */
WEFT_API ssize_t weft_read(int fd, void *buffer, size_t size, weft_time deadline);

/*
 * Reads exactly `size` bytes, or fewer only if the stream ends before.
 * Cancel, deadline, error: part of it may have been read, how much is not told; use weft_read() in
 * a loop of your own where that matters.
 * Returns: the count, less than `size` at the end of the stream; errors as weft_read().
 */
WEFT_API ssize_t weft_read_exact(int fd, void *buffer, size_t size, weft_time deadline);

/*
 * Writes what the socket takes now, at least one byte. SIGPIPE is never raised.
 * Returns: the count (0 only for size 0); -EPIPE, -ECONNRESET when the peer is gone.
 */
WEFT_API ssize_t weft_write(int fd, const void *buffer, size_t size, weft_time deadline);

/*
 * Writes all of it.
 * Cancel, deadline, error: part of it may have been written, how much is not told.
 * Returns: `size`; errors as weft_write().
 */
WEFT_API ssize_t weft_write_all(int fd, const void *buffer, size_t size, weft_time deadline);

/*
 * Shuts a connection down, as shutdown(2): SHUT_RD, SHUT_WR (the peer reads what was written, then
 * the end), SHUT_RDWR. Who reads or writes it is told. The descriptor is still to be closed.
 * Threads: any thread. Blocks: never. Cancel: not a point of cancellation.
 * Returns: 0; -EINVAL; -ENOTCONN; -ENOTSOCK.
 */
WEFT_API int weft_shutdown(int fd, int how);

/* weft_poll_fd() */
#define WEFT_READABLE 1u
#define WEFT_WRITABLE 2u
#define WEFT_HANGUP   4u /* always reported */
#define WEFT_ERROR    8u /* always reported */

/*
 * Waits until a pollable descriptor is ready for one of `events`.
 * Returns: what it is ready for (more than 0).
 */
WEFT_API int weft_poll_fd(int fd, unsigned events, weft_time deadline);

/* A buffer lent by the runtime; release it on any thread, soon. */
struct weft_buf {
	void *data;
	size_t size;     /* bytes received */
	void *owner;     /* the runtime's */
};

/*
 * Receives into a buffer of the runtime's. On epoll a copy; drivers that can lend theirs.
 * Returns: the count; 0 at the end of the stream (nothing to release then); -ENOMEM; errors as
 * weft_read().
 */
WEFT_API ssize_t weft_recv_buf(int fd, struct weft_buf *buffer_out, weft_time deadline);

/* Gives a buffer back. Accepts a zeroed one. Threads: any thread. Blocks: never. */
WEFT_API void weft_buf_release(struct weft_buf *buffer);

/*
 * Ends a descriptor: processes parked on it get -ECANCELED; the number is free for reuse when the
 * last of them has left. Never waits.
 * Threads: any thread. Blocks: never. Cancel: not a point of cancellation.
 * Returns: 0, or -EBADF. With no call in progress also what close(2) reports of earlier writes
 * (-EIO, -ENOSPC, -EDQUOT, for files): the descriptor is closed all the same.
 */
WEFT_API int weft_close(int fd);

/*
 * Hands a descriptor back to the host, open: Weft forgets it. Nobody may wait on it.
 * Threads: any thread. Blocks: never. Returns: 0; -EBUSY while a call is in progress; -EBADF if
 * Weft does not know it; -EINVAL for a handle of Weft's own.
 */
WEFT_API int weft_fd_forget(int fd);

/* True for a descriptor of the kernel's, false for a handle of Weft's own. Threads: any thread. */
WEFT_API bool weft_fd_kernel(int fd);

/*
 * The local address of a socket as text, "tcp:127.0.0.1:7000"; in memory the name that was
 * connected to, "mem:" at the end that connected.
 * Threads: any thread. Blocks: never. Returns: 0, -EBADF, -ENOTSOCK, -EAFNOSUPPORT, -ENOSPC.
 */
WEFT_API int weft_local_address(int fd, char *text_out, size_t text_size);

/*
 * The in-memory network: stream sockets within the process, of all its runtimes, without the
 * kernel. For tests of servers and clients, with whatever networks do to them, and for programs
 * that talk to themselves. Zero means the default.
 */
struct weft_mem_opts {
	size_t size;              /* sizeof(struct weft_mem_opts) */
	uint64_t seed;            /* of everything below that is drawn */
	size_t buffer_bytes;      /* sent, not yet received, each way; 65536; at most 2^30 */
	unsigned sockets_max;     /* open at once, then -EMFILE; 2^20 */
	weft_time latency_min_ns; /* how long what is sent takes, drawn each time; 0 to an hour. */
	weft_time latency_max_ns; /* Connections overtake each other, bytes of one do not. */
	unsigned short_one_in;    /* one read or write in so many moves only a part; 0: none */
	unsigned reset_one_in;    /* finds its connection reset; 0: none */
	unsigned refuse_one_in;   /* connect is refused, accept finds -EMFILE; 0: none */
};

/*
 * Sets the network up anew; NULL: all defaults. Only while it has no socket.
 * Threads: any thread. Blocks: never. Returns: 0; -EBUSY; -EINVAL.
 */
WEFT_API int weft_mem_setup(const struct weft_mem_opts *opts);

/*
 * Serves one connection; the descriptor is closed when it returns. Runs as a process of its own
 * (unless WEFT_SERVE_INLINE).
 */
typedef int (*weft_serve_fn)(int fd, void *arg);

/* What happens when connections_max are open. */
enum weft_serve_policy {
	WEFT_SERVE_WAIT = 0, /* leave new ones in the listeners' queues */
	WEFT_SERVE_SHED,     /* accept and close at once */
};

/* struct weft_serve_opts.flags */
/*
 * handler(fd, arg) is called by the acceptor itself: it owns the descriptor from then on, whatever
 * it returns, and passes it on at once: to a task, say. It may spawn, and must not wait.
 * connections_max must be 0, and stack_size has no use.
 */
#define WEFT_SERVE_INLINE (1u << 0)

struct weft_serve_opts {
	size_t size;           /* sizeof(struct weft_serve_opts) */
	int backlog;           /* as of weft_listen(); of each listener */
	unsigned connections_max; /* 0: no cap; counted over all workers */
	enum weft_serve_policy policy;
	unsigned accept_budget; /* connections accepted in a row before others run; 0: 16 */
	/*
	 * Called once, in the calling process, with the bound address and the server's `arg`, when
	 * nothing can fail any more and before the first accept.
	 */
	void (*on_listen)(const char *address, void *arg);
	size_t stack_size;     /* of the handlers; 0: the runtime's default */
	unsigned flags;        /* WEFT_SERVE_* */
};

/*
 * Listens on `address` with one socket per worker, steered so that a connection is accepted on the
 * worker of the CPU it arrived on, and runs handler(fd, arg) as a process for each: on that worker
 * too if the workers are pinned, which steering needs; else, and in memory, on any.
 * Blocks: until the runtime begins to stop, or the caller is cancelled. Listeners are closed then
 * (what waits in their queues has been accepted); handlers go on until they end or are cancelled.
 * EMFILE and the like, and whatever else accept(2) reports of the moment, back off without
 * spinning, with one line on the log; they never end the server.
 * opts: may be NULL.
 * Returns: 0 on stop; -ECANCELED; -EINVAL also for no handler, or a wrong option; as weft_listen()
 * if it cannot begin: a port in use is -EADDRINUSE, also when the other user set SO_REUSEPORT.
 */
WEFT_API int weft_serve(const char *address, weft_serve_fn handler, void *arg);
WEFT_API int weft_serve_with(const char *address, weft_serve_fn handler, void *arg,
	const struct weft_serve_opts *opts);

#ifdef __cplusplus
}
#endif

#endif
