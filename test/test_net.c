/*
 * Goal: what a server and its clients may rely on is the same on every network: TCP of the kernel's
 * over loopback, names in memory, and "tcp:" addresses in a runtime whose driver is "mem". Method:
 * each behaviour once, by Weft's calls only, run on each network. What differs is in io/README.md,
 * and has its tests in test_tcp.c and test_mem.c.
 *
 * On loopback what was sent may arrive a moment later: nothing here may depend on the moment.
 */
#include "test/net.h"

#include "sync/atomic.h"

struct network {
	const char *driver;
	const char *address; /* to listen on; the system chooses the rest */
};

/* Runs fn(&network) on worker 0 of a runtime of the network's. */
static void run_on(const struct network *network, unsigned workers, weft_fn fn)
{
	struct weft_spawn_opts on_first = {.size = sizeof(on_first), .worker = WEFT_WORKER(0)};
	struct weft_rt_opts opts = {.size = sizeof(opts),
		.workers = workers,
		.pin = WEFT_PIN_OFF,
		.idle = WEFT_IDLE_PARK,
		.driver = network->driver};
	unsigned before = harness_fd_count();
	weft_rt *rt;
	weft_pid pid;

	cr_assert_eq(weft_rt_create(&opts, &rt), 0);
	cr_assert_eq(weft_rt_spawn(rt, fn, (void *)(uintptr_t)network, &on_first, &pid), 0);
	cr_assert_eq(net_join(pid), 0);
	cr_assert_eq(weft_rt_destroy(rt, NET_SOON), 0);
	cr_assert_eq(harness_fd_count(), before, "a descriptor is left");
	cr_assert_eq(weft_mem_setup(NULL), 0, "a socket is left");
}

/* A test on each network: `process` is run with a struct network. */
#define Test_networks(name, workers, process)                                            \
	Test(tcp, name, .timeout = 120)                                                  \
	{                                                                                \
		run_on(&(struct network){"epoll", "tcp:127.0.0.1:0"}, workers, process); \
	}                                                                                \
	Test(memory, name, .timeout = 120)                                               \
	{                                                                                \
		run_on(&(struct network){"epoll", "mem:"}, workers, process);            \
	}                                                                                \
	Test(virtual, name, .timeout = 120)                                              \
	{                                                                                \
		run_on(&(struct network){"mem", "tcp:127.0.0.1:0"}, workers, process);   \
	}

static int listener(const struct network *network, char bound_out[WEFT_ADDRESS_MAX])
{
	int fd = weft_listen(network->address, 0);

	cr_assert_geq(fd, 0);
	cr_assert_eq(weft_local_address(fd, bound_out, WEFT_ADDRESS_MAX), 0);
	return fd;
}

/* [0] has connected, [1] was accepted. */
static void pair(const struct network *network, int fd[2])
{
	char address[WEFT_ADDRESS_MAX];
	int from = listener(network, address);

	fd[0] = weft_connect(address, NET_SOON);
	cr_assert_geq(fd[0], 0);
	fd[1] = weft_accept(from, NET_SOON);
	cr_assert_geq(fd[1], 0);
	cr_assert_eq(weft_close(from), 0);
}

static void close_pair(const int fd[2])
{
	cr_assert_eq(weft_close(fd[0]), 0);
	cr_assert_eq(weft_close(fd[1]), 0);
}

/* --- Bytes and ends --- */

static int echo_sizes(void *arg)
{
	enum { SIZE_MAX_BYTES = 30000 };
	static char out[SIZE_MAX_BYTES], in[SIZE_MAX_BYTES];
	int fd[2];

	pair(arg, fd);
	for (size_t i = 0; i < SIZE_MAX_BYTES; i++)
		out[i] = (char)(i * 31 >> 3);
	for (size_t size = 1; size <= SIZE_MAX_BYTES; size = size * 3 + 1) {
		for (int to = 0; to < 2; to++) {
			memset(in, 0, size);
			cr_assert_eq(
				weft_write_all(fd[1 - to], out, size, NET_SOON), (ssize_t)size);
			cr_assert_eq(weft_read_exact(fd[to], in, size, NET_SOON), (ssize_t)size);
			cr_assert_eq(memcmp(in, out, size), 0);
		}
	}
	cr_assert_eq(weft_write_all(fd[0], out, 10, NET_SOON), 10);
	cr_assert_eq(weft_close(fd[0]), 0);
	cr_assert_eq(weft_read_exact(fd[1], in, 100, NET_SOON), 10, "what there was");
	cr_assert_eq(weft_read_exact(fd[1], in, 100, NET_SOON), 0);
	cr_assert_eq(weft_read(fd[1], in, 100, NET_SOON), 0);
	cr_assert_eq(weft_close(fd[1]), 0);
	return 0;
}

Test_networks(what_is_sent_arrives, 1, echo_sizes)

	static int half_close(void *arg)
{
	char bytes[16];

	for (int first = 0; first < 2; first++) {
		int fd[2], out, in;

		pair(arg, fd);
		out = fd[first], in = fd[1 - first];
		cr_assert_eq(weft_write(out, "ask", 3, NET_SOON), 3);
		cr_assert_eq(weft_shutdown(out, SHUT_WR), 0);
		cr_assert_eq(weft_write(out, "x", 1, NET_SOON), -EPIPE);
		cr_assert_eq(weft_read_exact(in, bytes, sizeof(bytes), NET_SOON), 3);
		cr_assert_eq(weft_read(in, bytes, sizeof(bytes), NET_SOON), 0);
		cr_assert_eq(weft_write(in, "answer", 6, NET_SOON), 6, "the other way is open");
		cr_assert_eq(weft_read_exact(out, bytes, 6, NET_SOON), 6);
		cr_assert_eq(weft_shutdown(in, SHUT_WR), 0);
		cr_assert_eq(weft_read(out, bytes, sizeof(bytes), NET_SOON), 0);
		close_pair(fd);
	}
	return 0;
}

Test_networks(each_direction_ends_by_itself, 1, half_close)

	static int read_one(void *arg)
{
	char byte;

	return (int)weft_read(*(int *)arg, &byte, 1, NET_SOON);
}

static int shut_own_reading(void *arg)
{
	weft_pid reader;
	int fd[2];

	pair(arg, fd);
	reader = net_spawn(read_one, &fd[0]);
	net_yield(5);
	cr_assert_eq(weft_shutdown(fd[0], SHUT_RD), 0);
	cr_assert_eq(net_join(reader), 0, "an end");
	cr_assert_eq(read_one(&fd[0]), 0);
	cr_assert_eq(weft_write(fd[0], "x", 1, NET_SOON), 1, "the other way is open");
	cr_assert_eq(read_one(&fd[1]), 1);
	cr_assert_eq(weft_shutdown(fd[0], 17), -EINVAL);
	close_pair(fd);
	return 0;
}

Test_networks(shutting_ends_the_own_reader, 1, shut_own_reading)

	static int shut_late(void *arg)
{
	char address[WEFT_ADDRESS_MAX];
	int from = listener(arg, address), fd[2];

	cr_assert_eq(weft_close(from), 0);
	cr_assert_eq(weft_shutdown(from, SHUT_WR), -EBADF);
	pair(arg, fd);
	cr_assert_eq(weft_close(fd[1]), 0);
	cr_assert_eq(read_one(&fd[0]), 0);
	cr_assert_eq(weft_shutdown(fd[0], SHUT_WR), 0, "although the peer has closed");
	cr_assert_eq(weft_close(fd[0]), 0);
	return 0;
}

Test_networks(shutting_after_the_peer_has_closed_is_no_error, 1, shut_late)

	static int write_for_ever(void *arg)
{
	static const char bytes[100000];
	ssize_t n;

	while ((n = weft_write_all(*(int *)arg, bytes, sizeof(bytes), NET_SOON)) > 0)
		;
	return (int)n;
}

static int shut_own_writing(void *arg)
{
	weft_pid writer;
	int fd[2];

	pair(arg, fd);
	writer = net_spawn(write_for_ever, &fd[0]);
	/* It is stuck when the buffers between are full, or will be, or has not begun. */
	net_yield(1000);
	cr_assert_eq(weft_shutdown(fd[0], SHUT_WR), 0);
	cr_assert_eq(net_join(writer), -EPIPE);
	close_pair(fd);
	return 0;
}

Test_networks(shutting_ends_the_own_writer, 1, shut_own_writing)

	static int close_with_unread(void *arg)
{
	char byte;
	ssize_t n;
	int fd[2];

	pair(arg, fd);
	cr_assert_eq(weft_write(fd[0], "unread", 6, NET_SOON), 6);
	cr_assert_gt(weft_poll_fd(fd[1], WEFT_READABLE, NET_SOON), 0);
	cr_assert_eq(weft_close(fd[1]), 0);
	cr_assert_eq(weft_read(fd[0], &byte, 1, NET_SOON), -ECONNRESET);
	cr_assert_eq(weft_read(fd[0], &byte, 1, NET_SOON), 0, "once");
	n = weft_write(fd[0], "x", 1, NET_SOON);
	cr_assert_eq(n, -EPIPE);
	cr_assert_eq(weft_close(fd[0]), 0);
	return 0;
}

Test_networks(closing_without_having_read_all_resets, 1, close_with_unread)

	static int write_to_nobody(void *arg)
{
	ssize_t n;
	int fd[2];

	pair(arg, fd);
	cr_assert_eq(weft_close(fd[1]), 0);
	while ((n = weft_write(fd[0], "x", 1, NET_SOON)) > 0)
		cr_assert_eq(weft_yield(), 0);
	cr_assert(n == -EPIPE || n == -ECONNRESET, "%zd", n);
	cr_assert_eq(weft_write_all(fd[0], "x", 1, NET_SOON), -EPIPE);
	cr_assert_eq(weft_close(fd[0]), 0);
	return 0;
}

Test_networks(writing_to_nobody_is_an_error, 1, write_to_nobody)

	/* --- Waiting --- */

	static int read_close_and_cancel(void *arg)
{
	weft_pid readers[2];
	int fd[2];

	for (int closes = 0; closes < 2; closes++) {
		pair(arg, fd);
		readers[0] = net_spawn(read_one, &fd[0]);
		net_yield(5);
		readers[1] = net_spawn(read_one, &fd[0]);
		cr_assert_eq(net_join(readers[1]), -EBUSY, "one at a time");
		if (closes)
			cr_assert_eq(weft_close(fd[0]), 0);
		else
			cr_assert_eq(weft_cancel(readers[0]), 0);
		cr_assert_eq(net_join(readers[0]), -ECANCELED);
		if (closes) {
			cr_assert_eq(weft_close(fd[0]), -EBADF);
			cr_assert_eq(read_one(&fd[1]), 0, "the peer hears of it");
			cr_assert_eq(weft_close(fd[1]), 0);
			continue;
		}
		cr_assert_eq(weft_write(fd[1], "x", 1, NET_SOON), 1);
		cr_assert_eq(read_one(&fd[0]), 1, "nothing was taken");
		close_pair(fd);
	}
	return 0;
}

Test_networks(a_close_or_a_cancel_ends_a_wait, 1, read_close_and_cancel)

	static int deadlines(void *arg)
{
	char address[WEFT_ADDRESS_MAX], byte;
	int from = listener(arg, address), fd[2];

	cr_assert_eq(weft_accept(from, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_accept(from, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_close(from), 0);
	pair(arg, fd);
	cr_assert_eq(weft_read(fd[0], &byte, 1, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_read(fd[0], &byte, 1, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_poll_fd(fd[0], WEFT_READABLE, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_poll_fd(fd[0], WEFT_READABLE, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(
		weft_poll_fd(fd[0], WEFT_READABLE | WEFT_WRITABLE, WEFT_POLL), (int)WEFT_WRITABLE);
	cr_assert_eq(weft_write(fd[1], "x", 1, NET_SOON), 1);
	cr_assert_eq(weft_poll_fd(fd[0], WEFT_READABLE, NET_SOON), (int)WEFT_READABLE);
	cr_assert_eq(weft_read(fd[0], &byte, 1, 0), 1, "a result beats its deadline");
	close_pair(fd);
	return 0;
}

Test_networks(deadlines_end_a_wait, 1, deadlines)

	/* --- Listening --- */

	struct acceptor {
	int from, got;
	int *turn;
};

static int accept_in_turn(void *arg)
{
	struct acceptor *acceptor = arg;
	int fd = weft_accept(acceptor->from, NET_SOON);

	cr_assert_geq(fd, 0);
	acceptor->got = (*acceptor->turn)++;
	return weft_close(fd);
}

static int accept_in_order(void *arg)
{
	enum { ACCEPTORS = 5 };
	char address[WEFT_ADDRESS_MAX];
	int from = listener(arg, address), turn = 0;
	struct acceptor acceptors[ACCEPTORS];
	weft_pid pids[ACCEPTORS];

	for (int i = 0; i < ACCEPTORS; i++) {
		acceptors[i] = (struct acceptor){from, -1, &turn};
		pids[i] = net_spawn(accept_in_turn, &acceptors[i]);
		net_yield(2);
	}
	for (int i = 0; i < ACCEPTORS; i++) {
		int fd;

		net_yield(5); /* the next one looks whether there is more, and queues up again */
		fd = weft_connect(address, NET_SOON);
		cr_assert_eq(net_join(pids[i]), 0);
		cr_assert_eq(acceptors[i].got, i, "first come, first served");
		cr_assert_eq(weft_close(fd), 0);
	}
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test_networks(acceptors_are_served_in_order, 1, accept_in_order)

	static int refusals(void *arg)
{
	char address[WEFT_ADDRESS_MAX];
	int from = listener(arg, address), fd;

	cr_assert_eq(weft_listen(address, 0), -EADDRINUSE);
	fd = weft_connect(address, NET_SOON);
	cr_assert_geq(fd, 0, "it waits in the queue");
	cr_assert_eq(weft_close(from), 0);
	cr_assert_eq(read_one(&fd), -ECONNRESET, "and nobody takes it");
	cr_assert_eq(weft_close(fd), 0);
	cr_assert_eq(weft_connect(address, NET_SOON), -ECONNREFUSED);
	cr_assert_eq(weft_accept(from, NET_SOON), -EBADF);
	return 0;
}

Test_networks(a_closed_listener_resets_and_refuses, 1, refusals)

	/* --- Serving --- */

	enum { CLIENTS = 30 / HARNESS_SLOWDOWN + 2,
		REQUESTS = 20 };

struct host {
	const struct network *network;
	char bound[WEFT_ADDRESS_MAX];
	struct weft_serve_opts opts;
	wf_atomic_u32 listens, running, most, served;
};

static void on_listen(const char *address, void *arg)
{
	struct host *host = arg;

	snprintf(host->bound, sizeof(host->bound), "%s", address);
	wf_u32_store_release(&host->listens, 1);
}

static int echo(int fd, void *arg)
{
	struct host *host = arg;
	uint32_t now = wf_u32_fetch_add(&host->running, 1) + 1;
	uint32_t most = wf_u32_load_relaxed(&host->most);
	char bytes[500];
	ssize_t n;

	while (now > most && !wf_u32_cas(&host->most, &most, now))
		;
	while ((n = weft_read(fd, bytes, sizeof(bytes), WEFT_FOREVER)) > 0)
		if (weft_write_all(fd, bytes, (size_t)n, WEFT_FOREVER) < 0)
			break;
	(void)wf_u32_fetch_add(&host->running, (uint32_t)-1);
	(void)wf_u32_fetch_add(&host->served, 1);
	return 0;
}

static int serve(void *arg)
{
	struct host *host = arg;

	return weft_serve_with(host->network->address, echo, host, &host->opts);
}

static weft_pid host_start(struct host *host, const struct network *network)
{
	weft_pid pid;

	host->network = network;
	host->opts.size = sizeof(host->opts);
	host->opts.on_listen = on_listen;
	pid = net_spawn(serve, host);
	while (!wf_u32_load_acquire(&host->listens))
		cr_assert_eq(weft_yield(), 0);
	return pid;
}

static int ask(void *arg)
{
	const struct host *host = arg;
	int fd = weft_connect(host->bound, NET_SOON), got;

	cr_assert_geq(fd, 0, "%s", strerror(-fd));
	for (int i = 0; i < REQUESTS; i++) {
		cr_assert_eq(weft_write_all(fd, &i, sizeof(i), NET_SOON), (ssize_t)sizeof(i));
		cr_assert_eq(
			weft_read_exact(fd, &got, sizeof(got), NET_SOON), (ssize_t)sizeof(got));
		cr_assert_eq(got, i);
	}
	return weft_close(fd);
}

static void ask_from_many(struct host *host)
{
	weft_pid pids[CLIENTS];

	for (int i = 0; i < CLIENTS; i++)
		pids[i] = net_spawn(ask, host);
	for (int i = 0; i < CLIENTS; i++)
		cr_assert_eq(net_join(pids[i]), 0);
}

static int serve_many(void *arg)
{
	struct host host = {.network = NULL};
	weft_pid server = host_start(&host, arg);
	struct host second = {.network = arg};
	int fd = weft_connect(host.bound, NET_SOON);
	char byte = 'e';

	ask_from_many(&host);
	cr_assert_eq(weft_write(fd, &byte, 1, NET_SOON), 1);
	cr_assert_eq(read_one(&fd), 1, "served");
	cr_assert_eq(weft_serve(host.bound, echo, &second), -EADDRINUSE);
	/* The server ends; who is served goes on. */
	cr_assert_eq(weft_cancel(server), 0);
	cr_assert_eq(net_join(server), -ECANCELED);
	cr_assert_eq(weft_connect(host.bound, NET_SOON), -ECONNREFUSED);
	cr_assert_eq(weft_write(fd, &byte, 1, NET_SOON), 1);
	cr_assert_eq(read_one(&fd), 1);
	cr_assert_eq(weft_close(fd), 0);
	while (wf_u32_load_relaxed(&host.served) < CLIENTS + 1)
		cr_assert_eq(weft_yield(), 0);
	return 0;
}

Test_networks(a_server_serves_until_it_is_cancelled, 2, serve_many)

	static int serve_a_few(void *arg)
{
	enum { CAP = 2 };
	struct host host = {.opts = {.connections_max = CAP}};
	weft_pid server = host_start(&host, arg);

	ask_from_many(&host);
	cr_assert_leq(wf_u32_load_relaxed(&host.most), (uint32_t)CAP);
	cr_assert_eq(weft_cancel(server), 0);
	cr_assert_eq(net_join(server), -ECANCELED);
	while (wf_u32_load_relaxed(&host.served) < CLIENTS)
		cr_assert_eq(weft_yield(), 0);
	return 0;
}

Test_networks(a_server_with_a_cap_serves_all_in_the_end, 2, serve_a_few)

	static int serve_and_shed(void *arg)
{
	struct host host = {.opts = {.connections_max = 1, .policy = WEFT_SERVE_SHED}};
	weft_pid server = host_start(&host, arg);
	int fd = weft_connect(host.bound, NET_SOON), more, r;

	cr_assert_eq(weft_write(fd, "x", 1, NET_SOON), 1);
	cr_assert_eq(read_one(&fd), 1, "it has its place");
	for (int i = 0; i < 5; i++) {
		more = weft_connect(host.bound, NET_SOON);
		cr_assert_geq(more, 0);
		r = read_one(&more);
		cr_assert(r == 0 || r == -ECONNRESET, "%d", r);
		cr_assert_eq(weft_close(more), 0);
	}
	cr_assert_eq(weft_close(fd), 0);
	cr_assert_eq(weft_cancel(server), 0);
	cr_assert_eq(net_join(server), -ECANCELED);
	while (wf_u32_load_relaxed(&host.served) < 1)
		cr_assert_eq(weft_yield(), 0);
	return 0;
}

Test_networks(a_full_server_may_shed, 1, serve_and_shed)
