/*
 * Goal: what io/ assumes of the kernel's sockets holds on this one. Method: the bare system calls,
 * no Weft. Each test names the place that relies on it.
 */
#include "test/kernel.h"

#include <linux/filter.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* tcp.c sets TCP_NODELAY on listeners only. */
Test(kernel_socket, accepted_sockets_inherit_nodelay)
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
Test(kernel_socket, a_second_connect_tells_the_outcome)
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

/* listeners.c S1: a probe without SO_REUSEPORT meets listeners that have it, and only listeners. */
Test(kernel_socket, a_bind_without_reuseport_meets_shared_listeners)
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

/* --- Closing --- */

/* A thread in recv(2), until it has `size` bytes or the end. */
struct reader {
	int fd;
	int tid; /* once it runs */
	size_t size;
	ssize_t result;
	char bytes[8];
	pthread_t thread;
};

static void *receive(void *arg)
{
	struct reader *reader = arg;

	__atomic_store_n(&reader->tid, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
	reader->result = recv(reader->fd, reader->bytes, reader->size, MSG_WAITALL);
	return NULL;
}

static void reader_start(struct reader *reader)
{
	int tid;

	fcntl(reader->fd, F_SETFL, 0);
	cr_assert_eq(pthread_create(&reader->thread, NULL, receive, reader), 0);
	while ((tid = __atomic_load_n(&reader->tid, __ATOMIC_ACQUIRE)) == 0)
		sched_yield();
	kernel_until_asleep(tid);
}

static void reader_join(struct reader *reader)
{
	cr_assert_eq(pthread_join(reader->thread, NULL), 0);
}

static void check_nothing_to_read(int fd)
{
	char byte;

	cr_assert_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1, "no end");
	cr_assert_eq(errno, EAGAIN);
}

/*
 * fd.h C2 to C4, "the last to end closes": close(2) under a receive ends nothing. The number is
 * another's at once, the peer sees no end, and what it sends goes into the buffer of a call that
 * its caller has given up.
 */
Test(kernel_socket, closing_under_a_receive_ends_nothing_and_frees_the_number, .timeout = 120)
{
	struct reader reader = { .size = 2 };
	char byte;
	int fd[2];

	pair(fd);
	reader.fd = fd[1];
	reader_start(&reader);
	close(fd[1]);
	cr_assert_eq(fcntl(fd[0], F_DUPFD_CLOEXEC, fd[1]), fd[1], "used again");
	check_nothing_to_read(fd[0]);
	cr_assert_eq(send(fd[0], "ab", 2, MSG_NOSIGNAL), 2);
	reader_join(&reader);
	cr_assert_eq(reader.result, 2);
	cr_assert_eq(memcmp(reader.bytes, "ab", 2), 0);
	/* The call was the last to hold the socket. */
	cr_assert_eq(recv(fd[0], &byte, 1, 0), 0);
}

/* fd.c shut_down(), C3: what ends a receive, and tells the peer, before the number is free. */
Test(kernel_socket, shutdown_ends_a_receive_and_tells_the_peer, .timeout = 120)
{
	struct reader reader = { .size = 2 };
	char byte;
	int fd[2];

	pair(fd);
	reader.fd = fd[1];
	reader_start(&reader);
	cr_assert_eq(shutdown(fd[1], SHUT_RDWR), 0);
	reader_join(&reader);
	cr_assert_eq(reader.result, 0);
	cr_assert_eq(recv(fd[0], &byte, 1, 0), 0);
}

static int connected_to(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(connect(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
	return fd;
}

/* fd.c shut_down(), C3: "never a listener, which others may share". */
Test(kernel_socket, shutting_a_listener_down_ends_it_for_all_who_share_it)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);
	int other = dup(from);

	cr_assert_eq(listen(from, 1), 0);
	cr_assert_eq(shutdown(from, SHUT_RDWR), 0);
	cr_assert_eq(accept4(other, NULL, NULL, SOCK_CLOEXEC), -1);
	cr_assert_eq(errno, EINVAL);
}

/* serve.c accept_rest(): what waits in the queue when a listener closes would be reset. */
Test(kernel_socket, closing_a_listener_resets_what_waits_in_its_queue)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0), client;
	char byte;

	cr_assert_eq(listen(from, 1), 0);
	client = connected_to(&address);
	until_readable(from);
	close(from);
	cr_assert_eq(recv(client, &byte, 1, 0), -1);
	cr_assert_eq(errno, ECONNRESET);
}

/* fd.c wf_fd_finish(): without a call in progress close(2) is enough: the peer sees the end. */
Test(kernel_socket, closing_the_last_reference_tells_the_peer)
{
	char byte;
	int fd[2];

	pair(fd);
	close(fd[1]);
	cr_assert_eq(recv(fd[0], &byte, 1, 0), 0);
}

/* --- Listening --- */

/* socket.c wf_socket_queued(): of a listener tcpi_unacked is the length of its queue. */
Test(kernel_socket, the_length_of_a_listeners_queue_is_told)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);
	struct tcp_info info;
	socklen_t size = sizeof(info);

	cr_assert_eq(listen(from, 10), 0);
	for (unsigned queued = 0; queued < 4; queued++) {
		cr_assert_eq(getsockopt(from, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
		cr_assert_eq(info.tcpi_unacked, queued);
		connected_to(&address);
		/* The client's handshake may end a moment before the queue has it. */
		do
			cr_assert_eq(getsockopt(from, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
		while (info.tcpi_unacked == queued);
	}
	cr_assert_geq(accept4(from, NULL, NULL, SOCK_CLOEXEC), 0);
	cr_assert_eq(getsockopt(from, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
	cr_assert_eq(info.tcpi_unacked, 3);
}

/* socket.c set_options(), SO_REUSEADDR: a server may begin again while connections linger. */
Test(kernel_socket, a_port_whose_connections_linger_can_be_bound_again)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0), client, fd;
	char byte;

	cr_assert_eq(listen(from, 1), 0);
	client = connected_to(&address);
	until_readable(from);
	fd = accept4(from, NULL, NULL, SOCK_CLOEXEC);
	close(from);
	close(fd); /* first: it is this side that lingers (TIME_WAIT) */
	cr_assert_eq(recv(client, &byte, 1, 0), 0);
	close(client);
	from = listener(&address, 0);
	cr_assert_eq(listen(from, 1), 0);
}

/* listeners.c: the port that the kernel has chosen for the probe can be bound once it is closed. */
Test(kernel_socket, a_port_chosen_for_a_probe_is_free_when_it_is_closed)
{
	struct sockaddr_in address = loopback();
	int probe = listener(&address, 0);
	struct sockaddr_in same = address;

	cr_assert_neq(address.sin_port, 0);
	close(probe);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(listen(listener(&same, 1), 1), 0);
	cr_assert_eq(same.sin_port, address.sin_port);
}

/* socket.c set_options(): the wildcard of IPv6 takes IPv4 when told to. */
Test(kernel_socket, the_wildcard_of_ipv6_takes_ipv4_too)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	struct sockaddr_in address = loopback();
	socklen_t size = sizeof(any);
	int from = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), off = 0;

	if (from < 0)
		cr_skip_test("no IPv6 here");
	cr_assert_eq(setsockopt(from, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)), 0);
	cr_assert_eq(bind(from, (const struct sockaddr *)&any, size), 0);
	cr_assert_eq(getsockname(from, (struct sockaddr *)&any, &size), 0);
	cr_assert_eq(listen(from, 1), 0);
	address.sin_port = any.sin6_port;
	connected_to(&address);
}

/* syscall.h wf_sys_accept(): flags are the call's, whatever the listener has. */
Test(kernel_socket, accepted_sockets_have_the_flags_asked_for_and_no_others)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);

	cr_assert_eq(listen(from, 2), 0);
	for (int blocks = 0; blocks < 2; blocks++) {
		int fd;

		connected_to(&address);
		until_readable(from);
		fd = accept4(from, NULL, NULL, SOCK_CLOEXEC | (blocks ? 0 : SOCK_NONBLOCK));
		cr_assert_geq(fd, 0);
		cr_assert_eq((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0, blocks);
		cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	}
}

/* --- Kinds, and what is shared --- */

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(fd, level, name, &value, &size) < 0 ? -errno : value;
}

/* fd.c kind_of() and has_upper_layer(): what tells a TCP connection from everything else. */
Test(kernel_socket, a_tcp_connection_can_be_told_from_the_rest)
{
	char layer[16] = "x";
	socklen_t size = sizeof(layer);
	int tcp[2], unix_pair[2], pipe_pair[2];

	pair(tcp);
	cr_assert_eq(option(tcp[0], SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
	cr_assert_eq(option(tcp[0], SOL_SOCKET, SO_TYPE), SOCK_STREAM);
	cr_assert_eq(option(tcp[0], SOL_SOCKET, SO_ACCEPTCONN), 0);
	cr_assert_eq(getsockopt(tcp[0], IPPROTO_TCP, TCP_ULP, layer, &size), 0);
	cr_assert_eq(size, 0u, "no layer above it");
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_pair), 0);
	cr_assert_eq(option(unix_pair[0], SOL_SOCKET, SO_PROTOCOL), 0);
	cr_assert_eq(pipe(pipe_pair), 0);
	cr_assert_eq(option(pipe_pair[0], SOL_SOCKET, SO_PROTOCOL), -ENOTSOCK);
}

/* fd.c shut_down(): a listener says that it is one. */
Test(kernel_socket, a_listener_can_be_told_from_a_connection)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);

	cr_assert_eq(option(from, SOL_SOCKET, SO_ACCEPTCONN), 0);
	cr_assert_eq(listen(from, 1), 0);
	cr_assert_eq(option(from, SOL_SOCKET, SO_ACCEPTCONN), 1);
}

/* fd.h: "it belongs to the open file, so everybody who shares that sees it". */
Test(kernel_socket, nonblocking_is_shared_by_all_numbers_of_an_open_file)
{
	int fd[2], other;

	cr_assert_eq(pipe(fd), 0);
	other = dup(fd[0]);
	cr_assert_eq(fcntl(fd[0], F_SETFL, fcntl(fd[0], F_GETFL) | O_NONBLOCK), 0);
	cr_assert(fcntl(other, F_GETFL) & O_NONBLOCK);
	cr_assert_eq(fcntl(fd[1], F_GETFL) & O_NONBLOCK, 0, "the other end is another file");
}

/* --- Writing --- */

/* tcp.c: sockets are written with MSG_NOSIGNAL, so that nobody need ignore SIGPIPE. */
Test(kernel_socket, sending_without_a_signal_to_nobody_is_epipe)
{
	char byte;
	int fd[2];

	pair(fd);
	close(fd[0]);
	cr_assert_eq(shutdown(fd[1], SHUT_WR), 0);
	cr_assert_eq(send(fd[1], "x", 1, MSG_NOSIGNAL), -1);
	cr_assert_eq(errno, EPIPE);
	until_readable(fd[1]);
	cr_assert_eq(read(fd[1], &byte, 1), 0);
}

/* tcp.c TRANSFER_BYTES_MAX: a count below 2^31 - 4096 is short only where something was short. */
Test(kernel_socket, one_call_moves_at_least_the_most_that_is_asked_for)
{
	size_t most = (size_t)1 << 30;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	void *bytes = mmap(NULL, most * 2, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		-1, 0); /* not one of them is looked at */

	cr_assert_geq(fd, 0);
	cr_assert_neq(bytes, MAP_FAILED);
	cr_assert_eq(write(fd, bytes, most), (ssize_t)most);
	cr_assert_lt(write(fd, bytes, most * 2), (ssize_t)(most * 2), "which is why there is one");
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

/* listeners.c: attached before the first listens, it counts all; to the CPU, exactly. */
Test(kernel_socket, a_filter_steers_connections_by_cpu)
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

static void connect_anywhere(const struct steered *steered)
{
	for (int i = 0; i < steered->count; i++)
		close(connected_to(&steered->address));
}

/* listeners.c S2: "the kernel numbers them in that order", of listening, not of binding. */
Test(kernel_socket, a_filter_counts_listeners_in_the_order_they_began_to_listen)
{
	struct steered steered = { .address = loopback(), .count = 20 };
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog program = { .len = 1, .filter = code };
	int fd[3];

	for (int i = 0; i < 3; i++)
		fd[i] = listener(&steered.address, 1);
	for (uint32_t index = 0; index < 3; index++) {
		static const int order[] = { 2, 0, 1 };
		int r;

		code[0].k = index;
		r = setsockopt(fd[2], SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
			sizeof(program));
		cr_assert_eq(r, 0, "filter %u, in place of the one before", index);
		for (int i = 0; i < 3 && index == 0; i++)
			cr_assert_eq(listen(fd[order[i]], 1000), 0);
		connect_anywhere(&steered);
		accept_all(fd[order[index]], steered.count);
		accept_all(fd[order[(index + 1) % 3]], 0);
		accept_all(fd[order[(index + 2) % 3]], 0);
	}
}

/* listeners.c: without a filter the kernel spreads connections, and loses none. */
Test(kernel_socket, without_a_filter_each_connection_reaches_one_listener)
{
	struct steered steered = { .address = loopback(), .count = 100 };
	int fd[2] = { listener(&steered.address, 1), listener(&steered.address, 1) };
	int left = steered.count;

	for (int i = 0; i < 2; i++)
		cr_assert_eq(listen(fd[i], 1000), 0);
	connect_anywhere(&steered);
	while (left > 0) {
		struct pollfd ready[] = { { .fd = fd[0], .events = POLLIN },
			{ .fd = fd[1], .events = POLLIN } };

		cr_assert_gt(poll(ready, 2, -1), 0);
		for (int i = 0; i < 2; i++)
			while (accept4(fd[i], NULL, NULL, SOCK_CLOEXEC) >= 0)
				left--;
	}
	cr_assert_eq(left, 0);
}
