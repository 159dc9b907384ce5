/*
 * Goal: every call of <weft/io.h> on one descriptor does what its comment says: results, errors,
 * who is served first, what a cancel or a deadline leaves behind. Method: processes of a runtime
 * against blocking sockets, pipes and eventfds.
 */
#include "test/net.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "sync/atomic.h"
#include "sync/check.h"

/* --- Reading and writing --- */

static int echo_sizes(void *arg)
{
	enum { SIZE_MAX_BYTES = 200000 };
	char *out = malloc(SIZE_MAX_BYTES), *in = malloc(SIZE_MAX_BYTES);
	int fd[2];

	(void)arg;
	net_pair(fd);
	for (size_t i = 0; i < SIZE_MAX_BYTES; i++)
		out[i] = (char)(i * 31 >> 3);
	for (size_t size = 1; size <= SIZE_MAX_BYTES; size = size * 3 + 1) {
		cr_assert_eq(weft_write_all(fd[1], out, size, NET_SOON), (ssize_t)size);
		net_recv(fd[0], in, size);
		cr_assert_eq(memcmp(in, out, size), 0);
		net_send(fd[0], out, size);
		memset(in, 0, size);
		cr_assert_eq(weft_read_exact(fd[1], in, size, NET_SOON), (ssize_t)size);
		cr_assert_eq(memcmp(in, out, size), 0);
	}
	net_send(fd[0], out, 10);
	close(fd[0]);
	cr_assert_eq(weft_read_exact(fd[1], in, 100, NET_SOON), 10, "what there was");
	cr_assert_eq(weft_read_exact(fd[1], in, 100, NET_SOON), 0);
	cr_assert_eq(weft_read(fd[1], in, 100, NET_SOON), 0);
	cr_assert_eq(weft_close(fd[1]), 0);
	free(out);
	free(in);
	return 0;
}

Test(tcp, what_is_sent_arrives, .timeout = 120)
{
	net_run(1, echo_sizes, NULL);
}

static int write_once(void *arg)
{
	static char bytes[16 << 20];
	ssize_t n, sum = 0;
	int fd[2];

	(void)arg;
	net_pair(fd);
	while ((n = weft_write(fd[1], bytes, sizeof(bytes), WEFT_POLL)) > 0) {
		cr_assert_leq(n, (ssize_t)sizeof(bytes));
		sum += n;
	}
	cr_assert_eq(n, -EAGAIN);
	cr_assert_gt(sum, 0);
	/*
	 * What is still on its way to the other end makes room here when it gets there. All of it
	 * is taken each time: byte by byte it could go on for as long as the window grows.
	 */
	while ((n = weft_write(fd[1], bytes, sizeof(bytes), weft_after(WEFT_MS(1)))) > 0)
		sum += n;
	cr_assert_eq(n, -ETIME);
	for (ssize_t got = 0; got < sum;) {
		n = recv(fd[0], bytes, sizeof(bytes), 0);
		cr_assert_gt(n, 0);
		got += n;
	}
	cr_assert_eq(weft_write(fd[1], bytes, 1, NET_SOON), 1, "there is room again");
	cr_assert_eq(weft_write(fd[1], bytes, 0, WEFT_POLL), 0);
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(tcp, a_write_takes_what_there_is_room_for, .timeout = 120)
{
	net_run(1, write_once, NULL);
}

static volatile sig_atomic_t sigpipes;

static void on_sigpipe(int number)
{
	(void)number;
	sigpipes++;
}

static int write_to_nobody(void *arg)
{
	char bytes[100] = { 0 };
	int fd[2];
	ssize_t n;

	(void)arg;
	cr_assert_eq(pipe(fd), 0);
	close(fd[0]);
	cr_assert_eq(weft_write(fd[1], bytes, sizeof(bytes), NET_SOON), -EPIPE);
	cr_assert_eq(weft_write_all(fd[1], bytes, sizeof(bytes), NET_SOON), -EPIPE);
	cr_assert_eq(weft_close(fd[1]), 0);

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	close(fd[0]);
	cr_assert_eq(weft_write(fd[1], bytes, sizeof(bytes), NET_SOON), -EPIPE);
	cr_assert_eq(weft_close(fd[1]), 0);

	net_pair(fd);
	net_reset(fd[0]);
	while ((n = weft_write(fd[1], bytes, sizeof(bytes), NET_SOON)) > 0)
		;
	cr_assert(n == -EPIPE || n == -ECONNRESET, "%zd", n);
	cr_assert_eq(weft_write(fd[1], bytes, sizeof(bytes), NET_SOON), -EPIPE);
	cr_assert_eq(weft_close(fd[1]), 0);
	return 0;
}

Test(tcp, writing_to_nobody_is_an_error_and_no_signal, .timeout = 120)
{
	struct sigaction action = { .sa_handler = on_sigpipe };

	sigaction(SIGPIPE, &action, NULL);
	net_run(1, write_to_nobody, NULL);
	cr_assert_eq(sigpipes, 0);
}

static int fill_pipe(void *arg)
{
	enum { SIZE = 1 << 20 };
	char *bytes = calloc(1, SIZE);
	ssize_t n = weft_write_all(*(int *)arg, bytes, SIZE, NET_SOON);

	free(bytes);
	cr_assert_eq(weft_close(*(int *)arg), 0);
	return n == SIZE ? 0 : (int)n;
}

static int drain_pipe(void *arg)
{
	char bytes[1000];
	ssize_t n, sum = 0;
	weft_pid writer;
	int fd[2];

	(void)arg;
	cr_assert_eq(pipe(fd), 0);
	writer = net_spawn(fill_pipe, &fd[1]);
	while ((n = weft_read(fd[0], bytes, sizeof(bytes), NET_SOON)) > 0)
		sum += n;
	cr_assert_eq(n, 0);
	cr_assert_eq(sum, 1 << 20);
	cr_assert_eq(net_join(writer), 0);
	cr_assert_eq(weft_close(fd[0]), 0);
	return 0;
}

Test(tcp, pipes_work_like_sockets, .timeout = 120)
{
	net_run(1, drain_pipe, NULL);
}

/* --- Fairness --- */

static void *send_for_ever(void *arg)
{
	static const char bytes[4096];

	while (send(*(int *)arg, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		;
	return NULL;
}

static int read_for_ever(void *arg)
{
	char byte;
	ssize_t n;

	while ((n = weft_read(*(int *)arg, &byte, 1, NET_SOON)) > 0)
		;
	return (int)n;
}

static int among_greedy_readers(void *arg)
{
	weft_pid reader;
	pthread_t sender;
	int fd[2];

	(void)arg;
	net_pair(fd);
	pthread_create(&sender, NULL, send_for_ever, &fd[0]);
	reader = net_spawn(read_for_ever, &fd[1]);
	/* The reader always has another byte, on the same worker. */
	net_yield(100);
	cr_assert_eq(weft_cancel(reader), 0);
	cr_assert_eq(net_join(reader), -ECANCELED, "and a cancel reaches it");
	cr_assert_eq(weft_close(fd[1]), 0);
	pthread_join(sender, NULL);
	close(fd[0]);
	return 0;
}

Test(tcp, a_stream_that_is_always_ready_does_not_hold_its_worker, .timeout = 120)
{
	net_run(1, among_greedy_readers, NULL);
}

/* However fast the receiver is, it ends by the cancel only. */
static int write_greedily(void *arg)
{
	enum { SIZE = 1 << 28 };
	char *bytes = calloc(1, SIZE);
	ssize_t n;

	while ((n = weft_write_all(*(int *)arg, bytes, SIZE, NET_SOON)) == SIZE)
		;
	free(bytes);
	return (int)n;
}

static void *receive_for_ever(void *arg)
{
	static char bytes[1 << 20];

	while (recv(*(int *)arg, bytes, sizeof(bytes), 0) > 0)
		;
	return NULL;
}

static int among_greedy_writers(void *arg)
{
	weft_pid writer;
	pthread_t receiver;
	int fd[2];

	(void)arg;
	net_pair(fd);
	pthread_create(&receiver, NULL, receive_for_ever, &fd[0]);
	writer = net_spawn(write_greedily, &fd[1]);
	net_yield(10);
	cr_assert_eq(weft_cancel(writer), 0);
	cr_assert_eq(net_join(writer), -ECANCELED);
	cr_assert_eq(weft_close(fd[1]), 0);
	pthread_join(receiver, NULL);
	close(fd[0]);
	return 0;
}

Test(tcp, a_long_write_gives_way_and_notices_a_cancel, .timeout = 120)
{
	net_run(1, among_greedy_writers, NULL);
}

/* --- Cancel --- */

static int cancelled_calls(void *arg)
{
	char byte = 'x';
	int *fd = arg;

	while (weft_yield() == 0)
		;
	/* Each of them could complete at once. */
	cr_expect_eq(weft_read(fd[1], &byte, 1, WEFT_POLL), -ECANCELED);
	cr_expect_eq(weft_read_exact(fd[1], &byte, 1, WEFT_POLL), -ECANCELED);
	cr_expect_eq(weft_write(fd[1], &byte, 1, WEFT_POLL), -ECANCELED);
	cr_expect_eq(weft_write_all(fd[1], &byte, 1, WEFT_POLL), -ECANCELED);
	cr_expect_eq(weft_poll_fd(fd[1], WEFT_WRITABLE, WEFT_POLL), -ECANCELED);
	cr_expect_eq(weft_accept(fd[1], WEFT_POLL), -ECANCELED);
	cr_expect_eq(weft_connect("tcp:127.0.0.1:1", WEFT_POLL), -ECANCELED);
	cr_expect_eq(weft_serve("tcp:127.0.0.1:0", (weft_serve_fn)NULL, NULL), -ECANCELED);
	return 0;
}

static int cancel_before(void *arg)
{
	char byte;
	weft_pid pid;
	int fd[2];

	(void)arg;
	net_pair(fd);
	net_send(fd[0], "d", 1);
	pid = net_spawn(cancelled_calls, fd);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(net_join(pid), 0);
	cr_assert_eq(weft_read(fd[1], &byte, 1, NET_SOON), 1);
	cr_assert_eq(byte, 'd', "nothing was taken");
	cr_assert_eq(weft_close(fd[1]), 0);
	cr_assert_eq(recv(fd[0], &byte, 1, 0), 0, "and nothing was sent");
	close(fd[0]);
	return 0;
}

Test(tcp, a_pending_cancel_is_reported_first, .timeout = 120)
{
	net_run(1, cancel_before, NULL);
}

/* --- Accepting --- */

struct acceptor {
	int from;
	int *turn;
	int got; /* which connection, in order */
	weft_time deadline;
};

static int accept_in_turn(void *arg)
{
	struct acceptor *acceptor = arg;
	int fd = weft_accept(acceptor->from, acceptor->deadline);

	if (fd < 0)
		return fd;
	acceptor->got = (*acceptor->turn)++;
	return weft_close(fd);
}

enum { ACCEPTORS = 5 };

static int accept_in_order(void *arg)
{
	int from = weft_listen("tcp:127.0.0.1:0", 0), turn = 0, client[ACCEPTORS];
	struct acceptor acceptors[ACCEPTORS];
	weft_pid pids[ACCEPTORS];

	(void)arg;
	for (int together = 0; together < 2; together++) {
		turn = 0;
		for (int i = 0; i < ACCEPTORS; i++) {
			acceptors[i] = (struct acceptor){ from, &turn, -1, NET_SOON };
			pids[i] = net_spawn(accept_in_turn, &acceptors[i]);
			net_yield(2);
		}
		for (int i = 0; i < ACCEPTORS; i++) {
			client[i] = net_connect(net_port_of(from));
			if (!together)
				cr_assert_eq(net_join(pids[i]), 0);
		}
		for (int i = 0; i < ACCEPTORS; i++) {
			if (together)
				cr_assert_eq(net_join(pids[i]), 0);
			cr_assert_eq(acceptors[i].got, i, "first come, first served");
			close(client[i]);
		}
	}
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test(tcp, acceptors_are_served_in_order, .timeout = 120)
{
	net_run(1, accept_in_order, NULL);
}

/* The edge may wake one that has given up at that moment: the next one must be told. */
static int accept_with_losers(void *arg)
{
	enum { ROUNDS = 200 / HARNESS_SLOWDOWN + 10 };
	int from = weft_listen("tcp:127.0.0.1:0", 0), turn = 0;

	(void)arg;
	for (int round = 0; round < ROUNDS; round++) {
		struct acceptor acceptors[ACCEPTORS];
		weft_pid pids[ACCEPTORS];
		int client, served = 0;

		for (int i = 0; i < ACCEPTORS; i++) {
			acceptors[i] = (struct acceptor){ from, &turn, -1, NET_SOON };
			if (i < ACCEPTORS - 1)
				acceptors[i].deadline = weft_after(WEFT_US(50 * round / ROUNDS));
			pids[i] = net_spawn(accept_in_turn, &acceptors[i]);
		}
		net_yield(1);
		(void)weft_cancel(pids[1]);
		client = net_connect(net_port_of(from));
		for (int i = 0; i < ACCEPTORS - 1; i++)
			served += net_join(pids[i]) == 0;
		if (served)
			(void)weft_cancel(pids[ACCEPTORS - 1]);
		served += net_join(pids[ACCEPTORS - 1]) == 0;
		cr_assert_eq(served, 1);
		close(client);
	}
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test(tcp, a_connection_is_not_lost_with_an_acceptor_that_gives_up, .timeout = 120)
{
	net_run(2, accept_with_losers, NULL);
}

static void check_accepted(int fd)
{
	int nodelay = 0;
	socklen_t size = sizeof(nodelay);

	cr_assert_geq(fd, 0);
	cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &size), 0);
	cr_assert_neq(nodelay, 0);
}

static int accepted_flags(void *arg)
{
	struct sockaddr_in address = net_loopback(0);
	int from = weft_listen("tcp:127.0.0.1:0", 0), client, fd;
	char text[WEFT_ADDRESS_MAX];

	(void)arg;
	cr_assert_eq(weft_local_address(from, text, sizeof(text)), 0);
	client = weft_connect(text, NET_SOON);
	check_accepted(client);
	fd = weft_accept(from, NET_SOON);
	check_accepted(fd);
	cr_assert_eq(weft_close(fd), 0);
	cr_assert_eq(weft_close(client), 0);
	cr_assert_eq(weft_close(from), 0);

	/* A listener of the host's does not have TCP_NODELAY to hand on. */
	from = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(bind(from, (const struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(from, 5), 0);
	client = net_connect(net_port_of(from));
	fd = weft_accept(from, NET_SOON);
	check_accepted(fd);
	cr_assert_eq(weft_close(fd), 0);
	close(client);
	cr_assert_eq(weft_accept(from, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_accept(from, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test(tcp, connections_are_nonblocking_cloexec_and_nodelay, .timeout = 120)
{
	net_run(1, accepted_flags, NULL);
}

static int accept_at_the_limit(void *arg)
{
	int from = weft_listen("tcp:127.0.0.1:0", 0), client = net_connect(net_port_of(from)), fd;
	struct { unsigned long current, most; } limit, none;

	(void)arg;
	cr_assert_eq(syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, NULL, &limit), 0);
	none = limit;
	none.current = 0;
	cr_assert_eq(syscall(SYS_prlimit64, 0, 7, &none, NULL), 0);
	cr_assert_eq(weft_accept(from, NET_SOON), -EMFILE);
	cr_assert_eq(weft_accept(from, NET_SOON), -EMFILE);
	cr_assert_eq(weft_connect("tcp:127.0.0.1:1", NET_SOON), -EMFILE);
	cr_assert_eq(weft_listen("tcp:127.0.0.1:0", 0), -EMFILE);
	cr_assert_eq(syscall(SYS_prlimit64, 0, 7, &limit, NULL), 0);
	fd = weft_accept(from, NET_SOON);
	cr_assert_geq(fd, 0, "the connection has waited");
	cr_assert_eq(weft_close(fd), 0);
	close(client);
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test(tcp, a_full_descriptor_table_is_an_error_and_loses_nothing, .timeout = 120)
{
	if (HARNESS_VALGRIND)
		cr_skip_test("Valgrind accepts, then closes, and says that there was no room");
	net_run(1, accept_at_the_limit, NULL);
}

/* --- Connecting --- */

static int connect_outcomes(void *arg)
{
	int from = weft_listen("tcp:127.0.0.1:0", 0), fd, r;
	unsigned port = net_port_of(from);
	char text[WEFT_ADDRESS_MAX];

	(void)arg;
	/* A number, a name, and an empty host, which tries ::1 before 127.0.0.1. */
	static const char *const hosts[] = { "127.0.0.1", "localhost", "", "[::ffff:127.0.0.1]" };

	for (size_t i = 0; i < WF_ARRAY_COUNT(hosts); i++) {
		snprintf(text, sizeof(text), "tcp:%s:%u", hosts[i], port);
		fd = weft_connect(text, NET_SOON);
		cr_assert_geq(fd, 0, "%s: %d", text, fd);
		r = weft_accept(from, NET_SOON);
		cr_assert_geq(r, 0);
		cr_assert_eq(weft_close(r), 0);
		cr_assert_eq(weft_read(fd, text, 1, NET_SOON), 0);
		cr_assert_eq(weft_close(fd), 0);
	}
	snprintf(text, sizeof(text), "tcp:127.0.0.1:%u", port);
	cr_assert_eq(weft_close(from), 0);
	cr_assert_eq(weft_connect(text, NET_SOON), -ECONNREFUSED);
	cr_assert_eq(weft_connect("tcp:127.0.0.1:0", NET_SOON), -EINVAL);
	cr_assert_eq(weft_connect("127.0.0.1:80", NET_SOON), -EINVAL);
	cr_assert_eq(weft_connect(NULL, NET_SOON), -EINVAL);
	return 0;
}

Test(tcp, connecting_reaches_listeners_and_reports_refusal, .timeout = 120)
{
	unsigned before = harness_fd_count();

	net_run(1, connect_outcomes, NULL);
	cr_assert_eq(harness_fd_count(), before);
}

static int connect_to(void *arg)
{
	int fd = weft_connect(arg, NET_SOON);

	if (fd >= 0)
		cr_assert_eq(weft_close(fd), 0);
	return fd < 0 ? fd : 0;
}

/* Of a listener: how many connections wait to be accepted, and how many may. */
static unsigned queued(int fd, unsigned *most_out)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);

	cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
	*most_out = info.tcpi_sacked;
	return info.tcpi_unacked;
}

/* A listener whose queue is full does not answer: the connect hangs until deadline or cancel. */
static int connect_hangs(void *arg)
{
	enum { CLIENTS = 16 };
	int from = weft_listen("tcp:127.0.0.1:0", 1), client[CLIENTS];
	unsigned fds, count = 0, most;
	char text[WEFT_ADDRESS_MAX];
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_local_address(from, text, sizeof(text)), 0);
	/* The kernel takes one more than it was asked to. */
	while (queued(from, &most) <= most) {
		cr_assert_lt(count, (unsigned)CLIENTS, "the queue does not fill");
		client[count] = weft_connect(text, NET_SOON);
		cr_assert_geq(client[count++], 0);
		while (queued(from, &most) < count)
			sched_yield();
	}
	fds = harness_fd_count();
	cr_assert_eq(weft_connect(text, weft_after(WEFT_MS(50))), -ETIME);
	cr_assert_eq(weft_connect(text, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_connect(text, 0), -ETIME);
	pid = net_spawn(connect_to, text);
	net_yield(5);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(net_join(pid), -ECANCELED);
	cr_assert_eq(harness_fd_count(), fds);
	while (count > 0)
		cr_assert_eq(weft_close(client[--count]), 0);
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test(tcp, connecting_gives_up_at_its_deadline, .timeout = 120)
{
	net_run(1, connect_hangs, NULL);
}

static int lookup_with_little_time(void *arg)
{
	int r = weft_connect("tcp:localhost:1", *(weft_time *)arg);

	cr_assert(r == -ETIME || r == -EAGAIN || r == -ECONNREFUSED || r == -ECANCELED, "%d", r);
	return 0;
}

static int lookups(void *arg)
{
	enum { COUNT = 200 };
	weft_time deadlines[COUNT];
	weft_pid pids[COUNT];
	unsigned threads = harness_thread_count(), most = 0;

	(void)arg;
	for (int i = 0; i < COUNT; i++) {
		deadlines[i] = i % 4 == 0 ? WEFT_POLL
			: i % 4 == 1      ? weft_after(WEFT_US(20 * i))
			: i % 4 == 2      ? 0
					  : NET_SOON;
		pids[i] = net_spawn(lookup_with_little_time, &deadlines[i]);
	}
	net_yield(1);
	for (int i = 0; i < COUNT; i++) {
		unsigned now = harness_thread_count();

		most = now > most ? now : most;
		if (i % 7 == 0)
			(void)weft_cancel(pids[i]);
		cr_assert_eq(net_join(pids[i]), 0);
	}
	/* 8 at once; of those that have ended, the kernel may not have buried many yet. */
	cr_assert_leq(most, threads + COUNT / 2, "threads are bounded");
	/* They end by themselves. Those of lookups given up may still be asking. */
	while (harness_thread_count() > threads)
		cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(1))), 0);
	return 0;
}

/* What a lookup given up leaves behind is found by the leak checker of asan mode. */
Test(tcp, lookups_given_up_leave_nothing_behind, .timeout = 120)
{
	net_run(2, lookups, NULL);
}

/* --- Listening and addresses --- */

static void refuse_ipv6(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = WF_ARRAY_COUNT(code), .filter = code };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		cr_skip_test("no seccomp here");
}

static void check_reachable(const char *address, const char *bound)
{
	int fd = weft_listen(address, 0);
	char text[WEFT_ADDRESS_MAX];

	cr_assert_geq(fd, 0, "%s: %d", address, fd);
	cr_assert_eq(weft_local_address(fd, text, sizeof(text)), 0);
	cr_assert_eq(strncmp(text, bound, strlen(bound)), 0, "%s, not %s", text, bound);
	close(net_connect(net_port(text)));
	cr_assert_eq(weft_close(fd), 0);
}

Test(tcp, all_interfaces_are_ipv6_and_ipv4)
{
	check_reachable("tcp::0", "tcp:[::]:");
	check_reachable("tcp:[::]:0", "tcp:[::]:");
	check_reachable("tcp:0.0.0.0:0", "tcp:0.0.0.0:");
	check_reachable("tcp:[::ffff:127.0.0.1]:0", "tcp:[::ffff:127.0.0.1]:");
}

Test(tcp, all_interfaces_are_ipv4_where_there_is_no_ipv6)
{
	refuse_ipv6();
	check_reachable("tcp::0", "tcp:0.0.0.0:");
	check_reachable("tcp:[::]:0", "tcp:0.0.0.0:");
	cr_assert_eq(weft_listen("tcp:[::1]:0", 0), -EAFNOSUPPORT);
}

Test(tcp, listening_fails_with_the_reason)
{
	int fd = weft_listen("tcp:127.0.0.1:0", 0);
	char text[WEFT_ADDRESS_MAX];

	cr_assert_eq(weft_local_address(fd, text, sizeof(text)), 0);
	cr_assert_eq(weft_listen(text, 0), -EADDRINUSE);
	cr_assert_eq(weft_listen("tcp:192.0.2.1:0", 0), -EADDRNOTAVAIL);
	cr_assert_eq(weft_listen("tcp:127.0.0.1", 0), -EINVAL);
	cr_assert_eq(weft_listen(NULL, 0), -EINVAL);
	cr_assert_eq(weft_listen("tcp:127.0.0.1:0", -1), -EINVAL);
	cr_assert_eq(weft_close(fd), 0);
	fd = weft_listen("tcp:localhost:0", 0);
	cr_assert_geq(fd, 0, "a name, on a thread of no runtime");
	cr_assert_eq(weft_close(fd), 0);
}

static int listen_by_name(void *arg)
{
	int fd = weft_listen("tcp:localhost:0", 0);

	(void)arg;
	cr_assert_geq(fd, 0, "%d", fd);
	return weft_close(fd);
}

Test(tcp, a_process_can_listen_on_a_name, .timeout = 120)
{
	cr_assert_eq(net_run(1, listen_by_name, NULL), 0);
}

Test(tcp, local_address_refuses_what_has_none)
{
	char text[WEFT_ADDRESS_MAX] = "untouched";
	int pair[2], fd;

	cr_assert_eq(weft_local_address(-1, text, sizeof(text)), -EBADF);
	cr_assert_eq(weft_local_address(999999, text, sizeof(text)), -EBADF);
	cr_assert_eq(weft_local_address(1 << 30, text, sizeof(text)), -EBADF);
	cr_assert_eq(pipe(pair), 0);
	cr_assert_eq(weft_local_address(pair[0], text, sizeof(text)), -ENOTSOCK);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(weft_local_address(pair[0], text, sizeof(text)), -EAFNOSUPPORT);
	fd = weft_listen("tcp:127.0.0.1:0", 0);
	cr_assert_eq(weft_local_address(fd, text, 10), -ENOSPC);
	cr_assert_str_eq(text, "untouched");
	cr_assert_eq(weft_close(fd), 0);
}

/* --- weft_poll_fd --- */

static int poll_sockets(void *arg)
{
	char byte;
	int fd[2];

	(void)arg;
	net_pair(fd);
	cr_assert_eq(weft_poll_fd(fd[1], WEFT_WRITABLE, NET_SOON), WEFT_WRITABLE);
	cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE, 0), -ETIME);
	cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_poll_fd(fd[1], 0, weft_after(WEFT_MS(1))), -ETIME);
	for (int i = 0; i < 3; i++) {
		net_send(fd[0], "ab", 2);
		/* As often as one asks, until somebody else has read it. */
		cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE, NET_SOON), WEFT_READABLE);
		cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE, NET_SOON), WEFT_READABLE);
		cr_assert_eq(recv(fd[1], &byte, 1, 0), 1);
		cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE | WEFT_WRITABLE, NET_SOON),
			WEFT_READABLE | WEFT_WRITABLE);
		cr_assert_eq(recv(fd[1], &byte, 1, 0), 1);
		cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE, weft_after(WEFT_MS(1))), -ETIME);
	}
	shutdown(fd[0], SHUT_WR);
	cr_assert_eq(weft_poll_fd(fd[1], WEFT_READABLE, NET_SOON), WEFT_READABLE);
	shutdown(fd[1], SHUT_WR);
	cr_assert_eq(weft_poll_fd(fd[1], 0, NET_SOON), WEFT_HANGUP);
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(tcp, polling_is_level_triggered, .timeout = 120)
{
	net_run(1, poll_sockets, NULL);
}

static int poll_hangup(void *arg)
{
	return weft_poll_fd(*(int *)arg, 0, NET_SOON);
}

static int poll_others(void *arg)
{
	int event = eventfd(0, 0), regular = open("/proc/self/exe", O_RDONLY), fd[2];
	uint64_t one = 1;
	char byte;
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_poll_fd(event, WEFT_READABLE, WEFT_POLL), -EAGAIN);
	cr_assert_eq(write(event, &one, sizeof(one)), (ssize_t)sizeof(one));
	cr_assert_eq(weft_poll_fd(event, WEFT_READABLE, NET_SOON), WEFT_READABLE);
	cr_assert_eq(weft_read(event, &one, sizeof(one), NET_SOON), (ssize_t)sizeof(one));
	cr_assert_eq(weft_close(event), 0);

	cr_assert_eq(weft_poll_fd(regular, WEFT_READABLE, NET_SOON), WEFT_READABLE);
	cr_assert_eq(weft_read(regular, &byte, 1, NET_SOON), 1);
	cr_assert_eq(weft_close(regular), 0);

	/* Nothing was asked for, so only the hang-up ends it. */
	cr_assert_eq(pipe(fd), 0);
	pid = net_spawn(poll_hangup, &fd[0]);
	net_yield(5);
	cr_assert_eq(write(fd[1], "x", 1), 1);
	net_yield(5);
	cr_assert_eq(weft_try_join(pid, NULL), -EAGAIN);
	close(fd[1]);
	cr_assert_eq(net_join(pid), WEFT_HANGUP);
	cr_assert_eq(weft_close(fd[0]), 0);

	cr_assert_eq(pipe(fd), 0);
	close(fd[0]);
	cr_assert_eq(weft_poll_fd(fd[1], 0, NET_SOON), WEFT_ERROR);
	cr_assert_eq(weft_close(fd[1]), 0);
	return 0;
}

Test(tcp, anything_pollable_can_be_polled, .timeout = 120)
{
	net_run(1, poll_others, NULL);
}

/* --- Borrowed buffers --- */

static void *release_elsewhere(void *arg)
{
	weft_buf_release(arg);
	return NULL;
}

static int borrow(void *arg)
{
	struct weft_buf buffers[100], none = { .data = NULL };
	pthread_t thread;
	int fd[2];

	(void)arg;
	net_pair(fd);
	cr_assert_eq(weft_recv_buf(fd[1], &none, WEFT_POLL), -EAGAIN);
	cr_assert_null(none.data);
	cr_assert_eq(weft_recv_buf(fd[1], &none, 0), -ETIME);
	cr_assert_eq(weft_recv_buf(fd[1], &none, weft_after(WEFT_MS(1))), -ETIME);
	weft_buf_release(&none);
	weft_buf_release(NULL);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 100; i++) {
			char text[32];
			int length = snprintf(text, sizeof(text), "buffer %d", i);

			net_send(fd[0], text, (size_t)length);
			cr_assert_eq(weft_recv_buf(fd[1], &buffers[i], NET_SOON), length);
			cr_assert_eq(buffers[i].size, (size_t)length);
		}
		for (int i = 0; i < 100; i++) {
			char text[32];

			snprintf(text, sizeof(text), "buffer %d", i);
			cr_assert_eq(memcmp(buffers[i].data, text, buffers[i].size), 0);
			if (i % 10) {
				weft_buf_release(&buffers[i]);
				cr_assert_null(buffers[i].data);
				weft_buf_release(&buffers[i]);
				continue;
			}
			pthread_create(&thread, NULL, release_elsewhere, &buffers[i]);
			pthread_join(thread, NULL);
		}
	}
	close(fd[0]);
	cr_assert_eq(weft_recv_buf(fd[1], &none, NET_SOON), 0);
	cr_assert_null(none.data);
	cr_assert_eq(weft_close(fd[1]), 0);
	return 0;
}

Test(tcp, borrowed_buffers_are_filled_and_given_back, .timeout = 120)
{
	net_run(1, borrow, NULL);
}

/* --- EINTR (I3) --- */

static wf_atomic_u32 interrupts;

static void on_interrupt(int number)
{
	(void)number;
	(void)wf_u32_fetch_add(&interrupts, 1);
}

struct storm {
	pthread_t target;
	wf_atomic_u32 over;
};

static void *interrupt_all_the_time(void *arg)
{
	struct storm *storm = arg;

	while (!wf_u32_load_relaxed(&storm->over)) {
		pthread_kill(storm->target, SIGUSR1);
		usleep(50);
	}
	return NULL;
}

/* The worker's sleeps in the driver are interrupted: the exchange goes on, sleeps are not early. */
static int under_interrupts(void *arg)
{
	enum { ROUNDS = 500 / HARNESS_SLOWDOWN };
	struct storm storm = { .target = pthread_self() };
	pthread_t thread;
	sigset_t set;
	int fd[2];

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	net_pair(fd);
	pthread_create(&thread, NULL, interrupt_all_the_time, &storm);
	while (wf_u32_load_relaxed(&interrupts) == 0)
		sched_yield();
	for (int i = 0; i < ROUNDS; i++) {
		weft_time deadline = weft_after(WEFT_US(500));
		char bytes[8];

		cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), deadline), -ETIME);
		cr_assert_geq(weft_now(), deadline);
		net_send(fd[0], "x", 1);
		cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), NET_SOON), 1);
	}
	wf_u32_store_relaxed(&storm.over, 1);
	pthread_join(thread, NULL);
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(tcp, interrupted_system_calls_change_nothing, .timeout = 120)
{
	struct sigaction action = { .sa_handler = on_interrupt };

	sigaction(SIGUSR1, &action, NULL);
	net_run(1, under_interrupts, NULL);
}
