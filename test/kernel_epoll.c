/*
 * Goal: what io/ assumes of the kernel holds on this one. Method: the bare system calls, no Weft.
 * Each test names the place that relies on it.
 */
#include "test/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALL (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

/* What one epoll_wait says of the only descriptor registered; 0: nothing. */
static uint32_t events_now(int epoll)
{
	struct epoll_event event = { .events = 0 };
	int n = epoll_wait(epoll, &event, 1, 0);

	cr_assert_geq(n, 0);
	return n ? event.events : 0;
}

/* For what the kernel may take a moment to deliver. */
static uint32_t events_soon(int epoll)
{
	struct epoll_event event = { .events = 0 };

	cr_assert_eq(epoll_wait(epoll, &event, 1, -1), 1);
	return event.events;
}

static void until_readable(int fd)
{
	cr_assert_eq(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, -1), 1);
}

static void watch(int epoll, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
}

static int listener(struct sockaddr_in *address, int reuse_port)
{
	socklen_t size = sizeof(*address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (reuse_port)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	cr_assert_eq(bind(fd, (const struct sockaddr *)address, size), 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)address, &size), 0);
	return fd;
}

static struct sockaddr_in loopback(void)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* A connected pair of TCP sockets. */
static void pair(int fd[2])
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);

	cr_assert_eq(listen(from, 1), 0);
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(fd[0], (const struct sockaddr *)&address, sizeof(address)), 0);
	fcntl(from, F_SETFL, 0);
	fd[1] = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	cr_assert_geq(fd[1], 0);
	close(from);
}

/* fd.c registers at the first wait: what has happened before must still be reported. */
Test(kernel_epoll, adding_a_ready_descriptor_reports_an_edge)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int fd[2];

	pair(fd);
	cr_assert_eq(write(fd[0], "x", 1), 1);
	until_readable(fd[1]);
	watch(epoll, fd[1], ALL);
	cr_assert(events_now(epoll) & EPOLLIN);
	cr_assert_eq(events_now(epoll), 0, "an edge is reported once");
	cr_assert_eq(write(fd[0], "y", 1), 1);
	cr_assert(events_soon(epoll) & EPOLLIN, "unread data does not hide the next edge");
}

/* home_settle() replaces a registration left behind. */
Test(kernel_epoll, modifying_reports_what_is_ready_anew)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = ALL };
	int fd[2];

	pair(fd);
	watch(epoll, fd[1], ALL);
	cr_assert(events_now(epoll) & EPOLLOUT);
	cr_assert_eq(events_now(epoll), 0);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[1], &event), -1);
	cr_assert_eq(errno, EEXIST);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_MOD, fd[1], &event), 0);
	cr_assert(events_now(epoll) & EPOLLOUT);
}

/* fd.h: why a short count may clear READ: the end, too, is an edge, with RDHUP. */
Test(kernel_epoll, the_end_of_a_stream_is_an_edge_with_rdhup)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	char bytes[8];
	int fd[2];

	pair(fd);
	watch(epoll, fd[1], ALL);
	cr_assert_eq(write(fd[0], "x", 1), 1);
	cr_assert(events_soon(epoll) & (EPOLLIN | EPOLLOUT));
	until_readable(fd[1]);
	(void)events_now(epoll);
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 1);
	cr_assert_eq(shutdown(fd[0], SHUT_WR), 0);
	cr_assert(events_soon(epoll) & EPOLLRDHUP);
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 0);
}

/* fd.h: urgent data makes a short count prove nothing, but it is reported. */
Test(kernel_epoll, urgent_data_stops_a_read_and_is_an_edge_with_pri)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	uint32_t seen = 0;
	char bytes[8];
	int fd[2];

	pair(fd);
	cr_assert_eq(send(fd[0], "ab", 2, 0), 2);
	cr_assert_eq(send(fd[0], "u", 1, MSG_OOB), 1);
	cr_assert_eq(send(fd[0], "cd", 2, 0), 2);
	watch(epoll, fd[1], ALL);
	while (!(seen & EPOLLPRI))
		seen |= events_soon(epoll);
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 2, "it stops at the mark");
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 2, "with more behind it");
}

/* fd.h: a short write clears WRITE; the room that comes is an edge. */
Test(kernel_epoll, room_after_a_short_write_is_an_edge)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	static char bytes[1 << 26];
	uint32_t seen = 0;
	ssize_t n;
	int fd[2];

	pair(fd);
	n = write(fd[1], bytes, sizeof(bytes));
	cr_assert_gt(n, 0);
	cr_assert_lt(n, (ssize_t)sizeof(bytes), "the count is short");
	watch(epoll, fd[1], ALL);
	while (n > 0)
		n -= read(fd[0], bytes, sizeof(bytes));
	while (!(seen & EPOLLOUT))
		seen |= events_soon(epoll);
}

/* epoll.c: nobody reads the eventfd, and every write is an edge; many before a look are one. */
Test(kernel_epoll, each_write_to_an_unread_eventfd_is_an_edge)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t one = 1;

	watch(epoll, wake, EPOLLIN | EPOLLET);
	cr_assert_eq(events_now(epoll), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i <= round; i++)
			cr_assert_eq(write(wake, &one, sizeof(one)), (ssize_t)sizeof(one));
		cr_assert(events_now(epoll) & EPOLLIN);
		cr_assert_eq(events_now(epoll), 0);
	}
}

/* tcp.c sets TCP_NODELAY on listeners only. */
Test(kernel_epoll, accepted_sockets_inherit_nodelay)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);
	int on = 1, inherited = 0;
	socklen_t size = sizeof(inherited);
	int client, fd;

	setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	cr_assert_eq(listen(from, 1), 0);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(client, (const struct sockaddr *)&address, sizeof(address)), 0);
	fcntl(from, F_SETFL, 0);
	fd = accept4(from, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &inherited, &size), 0);
	cr_assert_neq(inherited, 0);
}

/* tcp.c asks connect() again for the outcome. */
Test(kernel_epoll, a_second_connect_tells_the_outcome)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	/* Bound, not listening: refused. */
	r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
	if (r < 0 && errno == EINPROGRESS) {
		poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
		r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
	}
	cr_assert_eq(r, -1);
	cr_assert_eq(errno, ECONNREFUSED);
	close(fd);

	cr_assert_eq(listen(from, 1), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
	poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
	if (r < 0) {
		r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
		cr_assert(r == 0 || errno == EISCONN);
	}
	r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
	cr_assert_eq(r, -1);
	cr_assert_eq(errno, EISCONN);
}

/* serve.c S1: a probe without SO_REUSEPORT meets listeners that have it, and only listeners. */
Test(kernel_epoll, a_bind_without_reuseport_meets_shared_listeners)
{
	struct sockaddr_in address = loopback();
	int shared = listener(&address, 1);
	int on = 1;
	int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	cr_assert_eq(listen(shared, 1), 0);
	cr_assert_eq(bind(probe, (const struct sockaddr *)&address, sizeof(address)), -1);
	cr_assert_eq(errno, EADDRINUSE);
	close(shared);
	cr_assert_eq(bind(probe, (const struct sockaddr *)&address, sizeof(address)), 0);
	close(probe);
	shared = listener(&address, 1);
	cr_assert_eq(listen(shared, 1), 0);
}

/* fd.h: DESIGN's reason for "the last to leave closes": close(2) alone ends nothing. */
Test(kernel_epoll, a_descriptor_closed_under_a_reader_sends_no_fin)
{
	struct timeval soon = { .tv_usec = 100000 };
	char byte;
	int fd[2], other;

	pair(fd);
	/* A second reference stands for the operation in flight. */
	other = dup(fd[1]);
	close(fd[1]);
	setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	cr_assert_eq(read(fd[0], &byte, 1), -1, "the peer sees no end");
	cr_assert_eq(errno, EAGAIN);
	shutdown(other, SHUT_RDWR);
	setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0 }, sizeof(soon));
	cr_assert_eq(read(fd[0], &byte, 1), 0, "shutdown is what tells it");
}

/* fd.c: close(2) of the last reference removes registrations from every epoll instance. */
Test(kernel_epoll, closing_removes_the_registration)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = ALL };
	int fd[2], number;

	pair(fd);
	number = fd[1];
	watch(epoll, number, ALL);
	close(number);
	cr_assert_eq(events_now(epoll), 0);
	cr_assert_eq(fcntl(fd[0], F_DUPFD_CLOEXEC, number), number);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event), 0, "not EEXIST");
}

/*
 * epoll.c: nanoseconds are nanoseconds. On a busy machine a sleep takes as long as it likes, so
 * this goes on until one of 0.1 ms was shorter than a millisecond.
 */
Test(kernel_epoll, pwait2_sleeps_for_less_than_a_millisecond, .timeout = 120)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;
	struct timespec delay = { .tv_nsec = 100000 };
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < 50 || shortest >= 1000000; i++) {
		uint64_t start = harness_now_ns(), took;

		if (epoll_pwait2(epoll, &event, 1, &delay, NULL) < 0 && errno == ENOSYS)
			cr_skip_test("no epoll_pwait2 in this kernel");
		took = harness_now_ns() - start;
		cr_assert_geq(took, 100000, "never early");
		if (took < shortest)
			shortest = took;
	}
}

/* --- Steering --- */

struct steered {
	struct sockaddr_in address;
	int cpu;
	int count;
};

static void *connect_from(void *arg)
{
	const struct steered *steered = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)steered->cpu, &set);
	cr_assert_eq(sched_setaffinity(0, sizeof(set), &set), 0);
	for (int i = 0; i < steered->count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		cr_assert_eq(connect(fd, (const struct sockaddr *)&steered->address,
				     sizeof(steered->address)),
			0);
		close(fd);
	}
	return NULL;
}

/* Exactly `count`, which may take a moment to come; then there is nothing more. */
static void accept_all(int fd, int count)
{
	while (count-- > 0) {
		until_readable(fd);
		cr_assert_eq(close(accept4(fd, NULL, NULL, SOCK_CLOEXEC)), 0);
	}
	cr_assert_eq(accept4(fd, NULL, NULL, SOCK_CLOEXEC), -1);
	cr_assert_eq(errno, EAGAIN);
}

static int cpus_allowed(int cpu[2])
{
	cpu_set_t set;
	int n = 0;

	CPU_ZERO(&set);
	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET((size_t)i, &set))
			cpu[n++] = i;
	return n;
}

/* serve.c: the filter is attached before the first listens; the index is the order of listening. */
Test(kernel_epoll, a_filter_steers_connections_by_cpu)
{
	struct steered steered = { .address = loopback(), .count = 100 };
	int cpu[2];

	if (cpus_allowed(cpu) < 2)
		cr_skip_test("needs two CPUs");
	int fd[2] = { listener(&steered.address, 1), listener(&steered.address, 1) };
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_CPU)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)cpu[1], 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = { .len = 4, .filter = code };

	cr_assert_eq(setsockopt(fd[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
			     sizeof(program)),
		0);
	cr_assert_eq(listen(fd[0], 1000), 0);
	cr_assert_eq(listen(fd[1], 1000), 0);
	for (int i = 0; i < 2; i++) {
		pthread_t thread;

		steered.cpu = cpu[i];
		pthread_create(&thread, NULL, connect_from, &steered);
		pthread_join(thread, NULL);
		accept_all(fd[i], steered.count);
		accept_all(fd[1 - i], 0);
	}
}
