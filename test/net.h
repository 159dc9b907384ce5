/*
 * net.h: what the tests of io/ share: a runtime for one function, and the other side of a
 * connection as plain blocking sockets, for threads of the test.
 */
#ifndef WF_TEST_NET_H
#define WF_TEST_NET_H

#include "test/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <weft.h>

enum {
	NET_PATIENCE_S = 600, /* longer than any test's .timeout, which alone decides */
};

#define NET_SOON weft_after(WEFT_SEC(NET_PATIENCE_S))

/* --- Runtimes --- */

static inline weft_rt *net_rt_make(unsigned workers, enum weft_pin pin)
{
	struct weft_rt_opts opts = { .size = sizeof(opts), .workers = workers, .pin = pin,
		.idle = WEFT_IDLE_PARK };
	weft_rt *rt;

	cr_assert_eq(weft_rt_create(&opts, &rt), 0);
	return rt;
}

/* Runs fn(arg) on worker 0 of a runtime, and the runtime until nothing is alive. */
static inline int net_run(unsigned workers, weft_fn fn, void *arg)
{
	struct weft_spawn_opts opts = { .size = sizeof(opts), .worker = WEFT_WORKER(0) };
	weft_rt *rt = net_rt_make(workers, WEFT_PIN_OFF);
	int result = 0;
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, fn, arg, &opts, &pid), 0);
	cr_assert_eq(weft_join(pid, &result, NET_SOON), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(weft_rt_destroy(rt, NET_SOON), 0);
	return result;
}

static inline weft_pid net_spawn(weft_fn fn, void *arg)
{
	weft_pid pid;

	cr_assert_eq(weft_spawn(fn, arg, &pid), 0);
	return pid;
}

static inline weft_pid net_spawn_on(unsigned worker, weft_fn fn, void *arg)
{
	struct weft_spawn_opts opts = { .size = sizeof(opts), .worker = WEFT_WORKER(worker) };
	weft_pid pid;

	cr_assert_eq(weft_spawn_with(fn, arg, &opts, &pid), 0);
	return pid;
}

static inline int net_join(weft_pid pid)
{
	int result = 0;

	cr_assert_eq(weft_join(pid, &result, NET_SOON), 0);
	return result;
}

/* --- Blocking sockets --- */

static inline struct sockaddr_in net_loopback(unsigned port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* The port of an address as text. */
static inline unsigned net_port(const char *address)
{
	return (unsigned)atoi(strrchr(address, ':') + 1);
}

static inline unsigned net_port_of(int fd)
{
	char text[WEFT_ADDRESS_MAX];

	cr_assert_eq(weft_local_address(fd, text, sizeof(text)), 0);
	return net_port(text);
}

/* Reads and writes of it fail with EAGAIN when nothing comes for too long. */
static inline void net_be_patient(int fd)
{
	struct timeval patience = { .tv_sec = NET_PATIENCE_S };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

/* A client's end; -errno. */
static inline int net_try_connect(unsigned port)
{
	struct sockaddr_in address = net_loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return -errno;
	net_be_patient(fd);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static inline int net_connect(unsigned port)
{
	int fd = net_try_connect(port);

	cr_assert_geq(fd, 0, "connect: %s", strerror(-fd));
	return fd;
}

static inline void net_send(int fd, const void *bytes, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = send(fd, (const char *)bytes + done, size - done, MSG_NOSIGNAL);

		cr_assert_gt(n, 0, "send: %s", strerror(errno));
		done += (size_t)n;
	}
}

/*
 * Waits until there is something to read. On a busy machine what was sent over the loopback device
 * comes a moment after the send has returned: a call that may not wait needs this before it.
 */
static inline void net_arrived(int fd)
{
	struct pollfd arrived = { .fd = fd, .events = POLLIN };

	while (poll(&arrived, 1, -1) < 0)
		cr_assert_eq(errno, EINTR);
}

/* Exactly `size` bytes. */
static inline void net_recv(int fd, void *bytes, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = recv(fd, (char *)bytes + done, size - done, 0);

		cr_assert_gt(n, 0, "recv: %s", n < 0 ? strerror(errno) : "end");
		done += (size_t)n;
	}
}

/* The end of the stream, in whatever form. */
static inline void net_recv_end(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, 0);

	cr_assert(n == 0 || (n < 0 && errno == ECONNRESET), "recv: %zd, %s", n, strerror(errno));
}

/* Closes with a reset instead of a FIN. */
static inline void net_reset(int fd)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* A connected pair in a process: [0] the test's, blocking; [1] accepted by Weft. */
static inline void net_pair(int fd[2])
{
	int from = weft_listen("tcp:127.0.0.1:0", 0);

	cr_assert_geq(from, 0);
	fd[0] = net_connect(net_port_of(from));
	fd[1] = weft_accept(from, NET_SOON);
	cr_assert_geq(fd[1], 0);
	cr_assert_eq(weft_close(from), 0);
}

/* Lets others run until they wait. */
static inline void net_yield(unsigned times)
{
	while (times-- > 0)
		(void)weft_yield();
}

/* --- CPUs --- */

/* The first `max` CPUs the caller may use; returns how many there are of these. */
static inline unsigned net_cpus(int *cpus_out, unsigned max)
{
	cpu_set_t set;
	unsigned n = 0;

	CPU_ZERO(&set);
	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	for (int i = 0; i < CPU_SETSIZE && n < max; i++)
		if (CPU_ISSET((size_t)i, &set))
			cpus_out[n++] = i;
	return n;
}

static inline void net_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	cr_assert_eq(sched_setaffinity(0, sizeof(set), &set), 0);
}

#endif
