/*
 * Goal: weft_serve() accepts where it should, survives what clients and limits do to it (rows N1 to
 * N4), ends as told (X6), and leaves nothing behind. Method: a runtime with one server process, and
 * clients as plain blocking sockets in threads of the test.
 */
#include "test/net.h"

#include <fcntl.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "io/fd.h"
#include "sync/atomic.h"

/* --- A runtime that serves --- */

struct host {
	weft_rt *rt;
	weft_pid pid; /* the process in weft_serve_with() */
	const char *address;
	weft_serve_fn handler;
	struct weft_serve_opts opts;
	struct weft_rt_opts rt_opts;
	char bound[WEFT_ADDRESS_MAX];
	unsigned port;
	sem_t listening;
	wf_atomic_u32 listened, served, running, most, logged;
	wf_atomic_u32 by_worker[8];
	pthread_mutex_t log_lock;
	char log[256]; /* the first line */
};

static void on_listen(const char *address, void *arg)
{
	struct host *host = arg;

	snprintf(host->bound, sizeof(host->bound), "%s", address);
	host->port = net_port(address);
	(void)wf_u32_fetch_add(&host->listened, 1);
	sem_post(&host->listening);
}

static void on_log(void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	struct host *host = ctx;

	(void)worker, (void)pid;
	if (level > WEFT_LOG_WARN)
		return;
	pthread_mutex_lock(&host->log_lock);
	if (wf_u32_load_relaxed(&host->logged) == 0)
		snprintf(host->log, sizeof(host->log), "%s", text);
	(void)wf_u32_fetch_add(&host->logged, 1);
	pthread_mutex_unlock(&host->log_lock);
}

static int serve(void *arg)
{
	struct host *host = arg;

	return weft_serve_with(host->address, host->handler, host, &host->opts);
}

static void host_make(struct host *host, weft_serve_fn handler, unsigned workers)
{
	*host = (struct host){
		.address = "tcp:127.0.0.1:0",
		.handler = handler,
		.opts = { .size = sizeof(host->opts), .on_listen = on_listen },
		.rt_opts = { .size = sizeof(host->rt_opts), .workers = workers, .pin = WEFT_PIN_OFF,
			.idle = WEFT_IDLE_PARK, .log = on_log, .log_ctx = host },
	};
	sem_init(&host->listening, 0, 0);
	pthread_mutex_init(&host->log_lock, NULL);
}

static void host_start(struct host *host)
{
	cr_assert_eq(weft_rt_create(&host->rt_opts, &host->rt), 0);
	cr_assert_eq(weft_rt_spawn(host->rt, serve, host, NULL, &host->pid), 0);
	sem_wait(&host->listening);
}

/* Joins the server, which must have been told to end. */
static int host_result(struct host *host)
{
	int result = 1;

	cr_assert_eq(weft_join(host->pid, &result, NET_SOON), 0);
	return result;
}

static void host_end(struct host *host)
{
	cr_assert_eq(weft_rt_stop(host->rt, WEFT_SEC(NET_PATIENCE_S), NET_SOON), 0);
	cr_assert_eq(host_result(host), 0);
	cr_assert_eq(weft_rt_destroy(host->rt, NET_SOON), 0);
	cr_assert_eq(wf_u32_load_relaxed(&host->listened), 1);
}

/* --- Handlers --- */

static void enter(struct host *host)
{
	uint32_t now = wf_u32_fetch_add(&host->running, 1) + 1;
	uint32_t most = wf_u32_load_relaxed(&host->most);

	while (now > most && !wf_u32_cas(&host->most, &most, now))
		;
}

static void leave(struct host *host)
{
	(void)wf_u32_fetch_add(&host->running, (uint32_t)-1);
	(void)wf_u32_fetch_add(&host->served, 1);
}

/* Echoes until the end. */
static int echo(int fd, void *arg)
{
	struct host *host = arg;
	char bytes[4096];
	ssize_t n;

	enter(host);
	while ((n = weft_read(fd, bytes, sizeof(bytes), WEFT_FOREVER)) > 0)
		if (weft_write_all(fd, bytes, (size_t)n, WEFT_FOREVER) < 0)
			break;
	leave(host);
	return 0;
}

static void check_echo(int fd)
{
	char byte = 'e';

	net_send(fd, &byte, 1);
	byte = 0;
	net_recv(fd, &byte, 1);
	cr_assert_eq(byte, 'e');
}

static void until_served(struct host *host, unsigned count)
{
	while (wf_u32_load_acquire(&host->served) < count)
		sched_yield();
}

static void until_running(struct host *host, unsigned count)
{
	while (wf_u32_load_acquire(&host->running) != count)
		sched_yield();
}

/* --- Beginning --- */

Test(serve, one_worker_or_two_serve_connections, .timeout = 120)
{
	unsigned before = harness_fd_count();

	for (unsigned workers = 1; workers <= 2; workers++) {
		struct host host;
		int fd[20];

		host_make(&host, echo, workers);
		host_start(&host);
		for (int i = 0; i < 20; i++)
			fd[i] = net_connect(host.port);
		for (int i = 0; i < 20; i++)
			check_echo(fd[i]);
		for (int i = 0; i < 20; i++)
			close(fd[i]);
		until_served(&host, 20);
		host_end(&host);
	}
	cr_assert_eq(harness_fd_count(), before);
}

struct try {
	const char *address;
	weft_serve_fn handler;
	const struct weft_serve_opts *opts;
	int expected;
};

static int try_serve(void *arg)
{
	const struct try *try = arg;

	return weft_serve_with(try->address, try->handler, NULL, try->opts);
}

Test(serve, what_cannot_begin_is_refused, .timeout = 120)
{
	struct weft_serve_opts short_opts = { .size = 3 };
	struct weft_serve_opts policy = {
		.size = sizeof(policy), .policy = (enum weft_serve_policy)7 };
	struct weft_serve_opts flags = { .size = sizeof(flags), .flags = 1u << 31 };
	struct weft_serve_opts capped = {
		.size = sizeof(capped), .flags = WEFT_SERVE_INLINE, .connections_max = 1 };
	struct weft_serve_opts backlog = { .size = sizeof(backlog), .backlog = -1 };
	struct weft_serve_opts stack = { .size = sizeof(stack), .stack_size = 100 };
	struct {
		struct weft_serve_opts opts;
		size_t more;
	} later = { { .size = sizeof(later) }, 1 };
	const struct try tries[] = {
		{ NULL, echo, NULL, -EINVAL },
		{ "", echo, NULL, -EINVAL },
		{ "tcp:127.0.0.1", echo, NULL, -EINVAL },
		{ "tcp:127.0.0.1:http", echo, NULL, -EINVAL },
		{ "udp:127.0.0.1:0", echo, NULL, -EINVAL },
		{ "tcp:127.0.0.1:0", NULL, NULL, -EINVAL },
		{ "tcp:127.0.0.1:0", echo, &short_opts, -EINVAL },
		{ "tcp:127.0.0.1:0", echo, &policy, -EINVAL },
		{ "tcp:127.0.0.1:0", echo, &flags, -EINVAL },
		{ "tcp:127.0.0.1:0", echo, &capped, -EINVAL },
		{ "tcp:127.0.0.1:0", echo, &backlog, -EINVAL },
		{ "tcp:127.0.0.1:0", echo, &stack, -EINVAL },
		{ "tcp:127.0.0.1:0", echo, &later.opts, -EINVAL },
		{ "tcp:192.0.2.1:0", echo, NULL, -EADDRNOTAVAIL },
	};
	unsigned before = harness_fd_count();

	cr_assert_eq(weft_serve("tcp:127.0.0.1:0", echo, NULL), -EPERM);
	for (size_t i = 0; i < WF_ARRAY_COUNT(tries); i++)
		cr_expect_eq(net_run(2, try_serve, (void *)(uintptr_t)&tries[i]), tries[i].expected,
			"try %zu", i);
	cr_assert_eq(harness_fd_count(), before);
}

static int listener_of_another(int reuse_port)
{
	struct sockaddr_in address = net_loopback(0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (reuse_port)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(fd, 5), 0);
	return fd;
}

Test(serve, a_port_in_use_is_an_error, .timeout = 120)
{
	char address[WEFT_ADDRESS_MAX];
	struct try try = { address, echo, NULL, 0 };
	struct host host;

	for (int reuse_port = 0; reuse_port < 2; reuse_port++) {
		int fd = listener_of_another(reuse_port);

		cr_assert_eq(weft_local_address(fd, address, sizeof(address)), 0);
		cr_assert_eq(net_run(2, try_serve, &try), -EADDRINUSE, "reuse_port %d", reuse_port);
		/* Also through the wildcard. */
		snprintf(address, sizeof(address), "tcp::%u", net_port_of(fd));
		cr_assert_eq(net_run(2, try_serve, &try), -EADDRINUSE, "reuse_port %d", reuse_port);
		close(fd);
	}
	host_make(&host, echo, 2);
	host_start(&host);
	snprintf(address, sizeof(address), "%s", host.bound);
	cr_assert_eq(net_run(2, try_serve, &try), -EADDRINUSE, "a server of our own");
	host_end(&host);
}

/* A port is free again at once, although connections of the last server are in TIME_WAIT. */
Test(serve, a_server_can_be_restarted_on_its_port, .timeout = 120)
{
	char address[WEFT_ADDRESS_MAX] = "tcp:127.0.0.1:0";

	for (int i = 0; i < 5; i++) {
		struct host host;
		int fd;

		host_make(&host, echo, 2);
		host.address = address;
		host_start(&host);
		fd = net_connect(host.port);
		check_echo(fd);
		/* Our end of the connection closes first: it is the one that lingers. */
		cr_assert_eq(weft_rt_stop(host.rt, 0, NET_SOON), 0);
		net_recv_end(fd);
		close(fd);
		cr_assert_eq(weft_rt_destroy(host.rt, NET_SOON), 0);
		snprintf(address, sizeof(address), "%s", host.bound);
	}
}

struct pinned {
	unsigned port;
	int cpu;
	int *fd;
	int count;
};

static void *connect_from(void *arg)
{
	struct pinned *pinned = arg;

	net_pin(pinned->cpu);
	for (int i = 0; i < pinned->count; i++)
		pinned->fd[i] = net_connect(pinned->port);
	return NULL;
}

static int note_worker(int fd, void *arg)
{
	struct host *host = arg;
	char worker = (char)weft_worker_index();

	cr_assert_eq(weft_write_all(fd, &worker, 1, WEFT_FOREVER), 1);
	(void)wf_u32_fetch_add(&host->by_worker[(unsigned)worker], 1);
	return 0;
}

static int note_worker_and_wait(int fd, void *arg)
{
	char byte;

	(void)note_worker(fd, arg);
	return (int)weft_read(fd, &byte, 1, WEFT_FOREVER);
}

static int cpu_of_thread(void)
{
	int cpu[2];

	return net_cpus(cpu, 2) == 1 ? cpu[0] : -1;
}

static int tell_cpu(void *arg)
{
	(void)arg;
	return cpu_of_thread();
}

Test(serve, connections_are_steered_to_the_worker_of_their_cpu, .timeout = 120)
{
	enum { EACH = 100 };
	struct host host;
	int cpu[2];

	if (net_cpus(cpu, 2) < 2)
		cr_skip_test("needs two CPUs");
	host_make(&host, note_worker, 2);
	host.rt_opts.pin = WEFT_PIN_ON;
	host_start(&host);
	for (int i = 0; i < 2; i++) {
		struct weft_spawn_opts on_worker = { .size = sizeof(on_worker),
			.worker = WEFT_WORKER(i) };
		int fd[EACH], worker_cpu;
		struct pinned pinned = { host.port, 0, fd, EACH };
		pthread_t thread;
		weft_pid pid;

		/* Where worker i runs; connect from there. */
		cr_assert_eq(weft_rt_spawn(host.rt, tell_cpu, NULL, &on_worker, &pid), 0);
		cr_assert_eq(weft_join(pid, &worker_cpu, NET_SOON), 0);
		cr_assert_geq(worker_cpu, 0, "worker %d is not pinned", i);
		pinned.cpu = worker_cpu;
		pthread_create(&thread, NULL, connect_from, &pinned);
		pthread_join(thread, NULL);
		for (int k = 0; k < EACH; k++) {
			char worker;

			net_recv(fd[k], &worker, 1);
			cr_assert_eq(worker, i, "connection %d", k);
			close(fd[k]);
		}
	}
	host_end(&host);
	cr_assert_eq(wf_u32_load_relaxed(&host.by_worker[0]), EACH);
	cr_assert_eq(wf_u32_load_relaxed(&host.by_worker[1]), EACH);
}

/* All from one CPU, and all stay open: the other worker gets its share. */
Test(serve, connections_from_one_cpu_do_not_leave_workers_idle, .timeout = 120)
{
	enum { OPEN = 200 };
	int fd[OPEN], cpu[2], counts[2] = { 0, 0 };
	struct pinned pinned = { .fd = fd, .count = OPEN };
	struct host host;
	pthread_t thread;

	if (net_cpus(cpu, 2) < 2)
		cr_skip_test("needs two CPUs");
	host_make(&host, note_worker_and_wait, 2);
	host.rt_opts.pin = WEFT_PIN_ON;
	host_start(&host);
	pinned.port = host.port;
	pinned.cpu = cpu[0];
	pthread_create(&thread, NULL, connect_from, &pinned);
	pthread_join(thread, NULL);
	for (int i = 0; i < OPEN; i++) {
		char worker;

		net_recv(fd[i], &worker, 1);
		counts[(unsigned)worker]++;
	}
	cr_assert_geq(counts[0] < counts[1] ? counts[0] : counts[1], OPEN / 3);
	for (int i = 0; i < OPEN; i++)
		close(fd[i]);
	host_end(&host);
}

/* --- Ending --- */

Test(serve, a_stop_ends_listening_and_lets_handlers_go_on, .timeout = 120)
{
	struct host host;
	int fd;

	host_make(&host, echo, 2);
	host_start(&host);
	fd = net_connect(host.port);
	check_echo(fd);
	cr_assert_eq(weft_rt_stop(host.rt, WEFT_SEC(NET_PATIENCE_S), weft_after(WEFT_MS(1))),
		-ETIMEDOUT, "a handler is alive");
	cr_assert_eq(host_result(&host), 0);
	cr_assert_eq(net_try_connect(host.port), -ECONNREFUSED);
	check_echo(fd);
	close(fd);
	cr_assert_eq(weft_rt_stop(host.rt, WEFT_SEC(NET_PATIENCE_S), NET_SOON), 0);
	cr_assert_eq(weft_rt_destroy(host.rt, NET_SOON), 0);
}

Test(serve, a_cancel_ends_the_server_only, .timeout = 120)
{
	unsigned before = harness_fd_count();
	struct host host;
	int fd;

	host_make(&host, echo, 2);
	host_start(&host);
	fd = net_connect(host.port);
	check_echo(fd);
	cr_assert_eq(weft_cancel(host.pid), 0);
	cr_assert_eq(host_result(&host), -ECANCELED);
	cr_assert_eq(net_try_connect(host.port), -ECONNREFUSED, "closed when it returns");
	check_echo(fd);
	close(fd);
	cr_assert_eq(weft_rt_destroy(host.rt, NET_SOON), 0);
	cr_assert_eq(harness_fd_count(), before);
}

static int serve_after_stop(void *arg)
{
	struct host *host = arg;
	int r;

	while (!weft_should_yield() && weft_yield() == 0 &&
		wf_u32_load_acquire(&host->running) == 0)
		;
	r = serve(host);
	(void)wf_u32_fetch_add(&host->running, 1);
	return r;
}

Test(serve, a_server_that_begins_during_a_stop_returns_at_once, .timeout = 120)
{
	struct host host;
	weft_pid late;
	int result = 1;

	host_make(&host, echo, 2);
	host_start(&host);
	cr_assert_eq(weft_rt_spawn(host.rt, serve_after_stop, &host, NULL, &late), 0);
	cr_assert_eq(weft_rt_stop(host.rt, WEFT_SEC(NET_PATIENCE_S), weft_after(0)), -ETIMEDOUT);
	wf_u32_store_release(&host.running, 1);
	cr_assert_eq(weft_join(late, &result, NET_SOON), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(weft_rt_stop(host.rt, 0, NET_SOON), 0);
	cr_assert_eq(host_result(&host), 0);
	cr_assert_eq(weft_rt_destroy(host.rt, NET_SOON), 0);
}

/* X6. One request per connection; what a handler has read must reach its client. */
struct load {
	struct host *host;
	wf_atomic_u32 replies, refused, cut;
};

static int answer_once(int fd, void *arg)
{
	struct host *host = arg;
	char bytes[4];

	enter(host);
	if (weft_read_exact(fd, bytes, sizeof(bytes), WEFT_FOREVER) == (ssize_t)sizeof(bytes)) {
		net_yield(3);
		if (weft_write_all(fd, bytes, sizeof(bytes), WEFT_FOREVER) > 0)
			(void)wf_u32_fetch_add(&host->served, 1);
	}
	(void)wf_u32_fetch_add(&host->running, (uint32_t)-1);
	return 0;
}

static void ask_until_refused(unsigned index, void *arg)
{
	struct load *load = arg;

	(void)index;
	for (;;) {
		int fd = net_try_connect(load->host->port);
		char bytes[4] = "ask";
		size_t got = 0;
		ssize_t n;

		if (fd == -ECONNREFUSED) {
			(void)wf_u32_fetch_add(&load->refused, 1);
			return;
		}
		if (fd == -ECONNRESET) { /* the listener closed during the handshake */
			(void)wf_u32_fetch_add(&load->cut, 1);
			continue;
		}
		cr_assert_geq(fd, 0, "%s", strerror(-fd));
		(void)send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
		while (got < sizeof(bytes) && (n = recv(fd, bytes, sizeof(bytes) - got, 0)) > 0)
			got += (size_t)n;
		/*
		 * Either all, or it was never accepted: cut off in the queue when the listener
		 * closed.
		 */
		cr_assert(got == 0 || got == sizeof(bytes), "%zu bytes of a reply", got);
		(void)wf_u32_fetch_add(got ? &load->replies : &load->cut, 1);
		close(fd);
	}
}

static void stop_under_load(unsigned index, void *arg)
{
	struct load *load = arg;
	weft_time start;

	if (index > 0) {
		ask_until_refused(index, arg);
		return;
	}
	until_served(load->host, 200 / HARNESS_SLOWDOWN);
	start = weft_now();
	cr_assert_eq(weft_rt_stop(load->host->rt, WEFT_SEC(NET_PATIENCE_S), NET_SOON), 0);
	cr_assert_lt(weft_now() - start, WEFT_SEC(NET_PATIENCE_S), "before the grace is over");
}

Test(serve, a_stop_under_load_answers_what_was_accepted, .timeout = 120)
{
	enum { CLIENTS = 4, WORKERS = 2 };

	for (int round = 0; round < 5; round++) {
		struct host host;
		struct load load = { .host = &host };

		host_make(&host, answer_once, WORKERS);
		host_start(&host);
		harness_threads(CLIENTS + 1, stop_under_load, &load);
		cr_assert_eq(host_result(&host), 0);
		cr_assert_eq(wf_u32_load_relaxed(&load.refused), CLIENTS);
		cr_assert_eq(wf_u32_load_relaxed(&load.replies), wf_u32_load_relaxed(&host.served));
		/* Each by each listener at most: they close one after the other. */
		cr_assert_leq(wf_u32_load_relaxed(&load.cut), CLIENTS * WORKERS);
		cr_assert_eq(weft_rt_destroy(host.rt, NET_SOON), 0);
	}
}

enum { STOP_AT = 100 };

/* Each connection makes the next before it ends: the queue is never empty. */
static int connect_again(int fd, void *arg)
{
	struct host *host = arg;
	int next = net_try_connect(host->port);

	(void)fd;
	cr_assert(next >= 0 || next == -ECONNREFUSED || next == -ECONNRESET, "%d", next);
	if (next >= 0)
		close(next);
	if (wf_u32_fetch_add(&host->served, 1) + 1 == STOP_AT)
		cr_assert_eq(weft_rt_stop(host->rt, WEFT_SEC(NET_PATIENCE_S), 0), 0);
	return 0;
}

Test(serve, a_stop_takes_what_is_queued_and_not_what_keeps_coming, .timeout = 120)
{
	struct host host;
	int fd;

	host_make(&host, connect_again, 1);
	host.opts.accept_budget = 1;
	host_start(&host);
	fd = net_connect(host.port);
	cr_assert_eq(host_result(&host), 0);
	cr_assert_eq(weft_rt_destroy(host.rt, NET_SOON), 0);
	cr_assert_geq(wf_u32_load_relaxed(&host.served), STOP_AT);
	cr_assert_leq(wf_u32_load_relaxed(&host.served), STOP_AT + 8);
	close(fd);
}

/* --- What clients do (N1, N2, N4) --- */

static uint64_t cpu_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The share of one CPU that the process uses while nothing should happen, in percent. */
static unsigned cpu_percent_at_rest(void)
{
	enum { REST_NS = 300000000 };
	uint64_t start = cpu_ns();

	nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
	return (unsigned)((cpu_ns() - start) * 100 / REST_NS);
}

static int answer_eight(int fd, void *arg)
{
	struct host *host = arg;
	char bytes[8];

	enter(host);
	while (weft_read_exact(fd, bytes, sizeof(bytes), WEFT_FOREVER) == (ssize_t)sizeof(bytes))
		if (weft_write_all(fd, bytes, sizeof(bytes), WEFT_FOREVER) < 0)
			break;
	leave(host);
	return 0;
}

static void raise_fd_limit(rlim_t wanted)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max < wanted)
		cr_skip_test("needs %lu descriptors", (unsigned long)wanted);
	limit.rlim_cur = wanted;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* N1 */
Test(serve, clients_that_fall_silent_cost_nothing, .timeout = 120)
{
	enum { SILENT = 500 };
	int fd[SILENT], lively;
	struct host host;
	char bytes[8] = "whole";

	raise_fd_limit(2048);
	host_make(&host, answer_eight, 2);
	host_start(&host);
	for (int i = 0; i < SILENT; i++) {
		fd[i] = net_connect(host.port);
		net_send(fd[i], "half", 4);
	}
	lively = net_connect(host.port);
	for (int i = 0; i < 100; i++) {
		net_send(lively, bytes, sizeof(bytes));
		net_recv(lively, bytes, sizeof(bytes));
	}
	until_running(&host, SILENT + 1);
	cr_assert_lt(cpu_percent_at_rest(), 50);
	for (int i = 0; i < SILENT; i++) {
		net_send(fd[i], "rest", 4);
		net_recv(fd[i], bytes, sizeof(bytes));
		cr_assert_eq(memcmp(bytes, "halfrest", 8), 0);
		close(fd[i]);
	}
	close(lively);
	until_served(&host, SILENT + 1);
	host_end(&host);
}

/* N2 */
Test(serve, clients_that_reset_leave_nothing_behind, .timeout = 120)
{
	unsigned before = harness_fd_count();
	struct host host;

	host_make(&host, echo, 2);
	host_start(&host);
	for (int i = 0; i < 1000; i++) {
		int fd = net_connect(host.port);

		if (i % 3 == 0)
			net_send(fd, "x", 1);
		net_reset(fd);
	}
	/* A last one behind them in each queue. */
	for (int i = 0; i < 20; i++) {
		int fd = net_connect(host.port);

		check_echo(fd);
		close(fd);
	}
	until_running(&host, 0);
	host_end(&host);
	cr_assert_eq(harness_fd_count(), before);
	for (int fd = 0; fd < 1024; fd++)
		cr_assert(wf_fd_valid(fd));
}

/*
 * N4. The clients are a process of their own, forked before there is a runtime: each side needs a
 * descriptor for each connection, and this one's limit is for the server's. Commands and answers
 * are single bytes on a socket pair.
 */
struct clients {
	int control[2];
	pid_t pid;
	unsigned count;
	int *fd;
};

enum { CLIENTS_OPEN = 'o', CLIENTS_CLOSE = 'c', CLIENTS_DONE = 'd' };

static void clients_open(struct clients *clients, unsigned port)
{
	for (unsigned i = 0; i < clients->count; i++)
		clients->fd[i] = net_connect(port);
	for (unsigned i = 0; i < clients->count; i++)
		check_echo(clients->fd[i]);
}

static _Noreturn void clients_run(struct clients *clients)
{
	unsigned port;
	char command;

	while (read(clients->control[1], &command, 1) == 1) {
		if (command == CLIENTS_OPEN) {
			net_recv(clients->control[1], &port, sizeof(port));
			clients_open(clients, port);
		} else {
			/* A reset: ten thousand in TIME_WAIT would be the next test's burden. */
			for (unsigned i = 0; i < clients->count; i++)
				net_reset(clients->fd[i]);
		}
		command = CLIENTS_DONE;
		net_send(clients->control[1], &command, 1);
	}
	_exit(0);
}

static void clients_fork(struct clients *clients, unsigned count)
{
	*clients = (struct clients){ .count = count, .fd = calloc(count, sizeof(int)) };
	cr_assert_not_null(clients->fd);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, clients->control), 0);
	clients->pid = fork();
	cr_assert_geq(clients->pid, 0);
	if (clients->pid == 0) {
		close(clients->control[0]);
		clients_run(clients);
	}
	close(clients->control[1]);
}

static void clients_told(struct clients *clients, char command, unsigned port)
{
	char answer;

	net_send(clients->control[0], &command, 1);
	if (command == CLIENTS_OPEN)
		net_send(clients->control[0], &port, sizeof(port));
	net_recv(clients->control[0], &answer, 1);
	cr_assert_eq(answer, CLIENTS_DONE);
}

static void clients_end(struct clients *clients)
{
	int status;

	close(clients->control[0]);
	cr_assert_eq(waitpid(clients->pid, &status, 0), clients->pid);
	cr_assert_eq(status, 0);
	free(clients->fd);
}

/* Little on the stack: what an idle connection costs is the runtime's doing, not the handler's. */
static int echo_bytes(int fd, void *arg)
{
	struct host *host = arg;
	char bytes[64];
	ssize_t n;

	enter(host);
	while ((n = weft_read(fd, bytes, sizeof(bytes), WEFT_FOREVER)) > 0)
		if (weft_write_all(fd, bytes, (size_t)n, WEFT_FOREVER) < 0)
			break;
	leave(host);
	return 0;
}

/* As many as wanted, or as the hard limit on descriptors lets one process have: never fewer. */
static unsigned connections_possible(unsigned wanted)
{
	enum { OTHERS = 64 };
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max < wanted + OTHERS)
		wanted = (unsigned)limit.rlim_max - OTHERS;
	limit.rlim_cur = wanted + OTHERS;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return wanted;
}

Test(serve, idle_connections_cost_what_is_stated_and_give_it_back, .timeout = 120)
{
	enum { WANTED = 10000 / HARNESS_SLOWDOWN, ROUNDS = 2 };
	enum { BYTES_EACH = 5 << 10, KEPT_EACH = 512 };
	unsigned count = connections_possible(WANTED), before = harness_fd_count() + 1;
	size_t rss[ROUNDS], start, slack = ((size_t)1 << 20) + count * KEPT_EACH;
	struct clients clients;
	struct host host;

	clients_fork(&clients, count);
	host_make(&host, echo_bytes, 2);
	host_start(&host);
	start = harness_rss_bytes();
	for (int round = 0; round < ROUNDS; round++) {
		clients_told(&clients, CLIENTS_OPEN, host.port);
		until_running(&host, count);
		rss[round] = harness_rss_bytes();
		clients_told(&clients, CLIENTS_CLOSE, 0);
		until_running(&host, 0);
	}
	host_end(&host);
	cr_assert_eq(harness_fd_count(), before);
	clients_end(&clients);
	if (HARNESS_ASAN || HARNESS_TSAN)
		return;
	cr_expect_lt(rss[0] - start, (size_t)count * BYTES_EACH + slack, "%u connections", count);
	/*
	 * Given back to the runtime: a later round takes what the first has left; and with the
	 * runtime to the system, but for the descriptor table and what the allocator keeps.
	 */
	cr_expect_lt(rss[ROUNDS - 1], rss[0] + slack);
	cr_expect_lt(harness_rss_bytes(), start + slack);
}

/* --- Limits --- */

/* N3. The last descriptors go to a hoard: accepting fails, waits without spinning, and recovers. */
Test(serve, at_the_descriptor_limit_it_backs_off_and_recovers, .timeout = 120)
{
	enum { HOARD_MAX = 512, LIMIT = 256 };
	struct rlimit limit;
	int hoard[HOARD_MAX], count = 0, fd;
	struct host host;
	char byte = 'e';

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = LIMIT;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	host_make(&host, echo, 2);
	host_start(&host);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	net_be_patient(fd);
	while (count < HOARD_MAX && (hoard[count] = dup(fd)) >= 0)
		count++;
	cr_assert_eq(errno, EMFILE);
	struct sockaddr_in address = net_loopback(host.port);

	cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	net_send(fd, &byte, 1);
	while (wf_u32_load_acquire(&host.logged) == 0)
		sched_yield();
	cr_assert_lt(cpu_percent_at_rest(), 50);
	cr_assert_eq(wf_u32_load_relaxed(&host.logged), 1, "one line");
	cr_assert_not_null(strstr(host.log, "256"), "%s", host.log);
	cr_assert_not_null(strstr(host.log, "ulimit -n"), "%s", host.log);
	while (count > 1)
		close(hoard[--count]);
	net_recv(fd, &byte, 1);
	cr_assert_eq(byte, 'e');
	close(fd);
	close(hoard[0]);
	until_served(&host, 1);
	host_end(&host);
}

Test(serve, a_stop_at_the_descriptor_limit_is_no_problem, .timeout = 120)
{
	enum { HOARD_MAX = 512 };
	struct rlimit limit;
	int hoard[HOARD_MAX], count = 0, fd;
	struct host host;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 256;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	host_make(&host, echo, 2);
	host_start(&host);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	while (count < HOARD_MAX && (hoard[count] = dup(0)) >= 0)
		count++;
	struct sockaddr_in address = net_loopback(host.port);

	cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	while (wf_u32_load_acquire(&host.logged) == 0)
		sched_yield();
	/* Room for an accept: the client is gone, so its handler ends at once. */
	close(fd);
	host_end(&host);
	while (count > 0)
		close(hoard[--count]);
}

Test(serve, without_a_free_process_connections_are_closed_and_it_recovers, .timeout = 120)
{
	struct host host;
	int fd[10], open = 0;

	host_make(&host, echo, 1);
	/* The server, its acceptor, and two connections. */
	host.rt_opts.processes_max = 4;
	host_start(&host);
	for (int i = 0; i < 10; i++)
		fd[i] = net_connect(host.port);
	for (int i = 0; i < 10; i++) {
		char byte = 'e';

		if (send(fd[i], &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd[i], &byte, 1, 0) == 1)
			open++;
	}
	cr_assert_eq(open, 2);
	cr_assert_eq(wf_u32_load_acquire(&host.logged), 1);
	cr_assert_not_null(strstr(host.log, "processes_max"), "%s", host.log);
	for (int i = 0; i < 10; i++)
		close(fd[i]);
	until_running(&host, 0);
	/* A place may take a moment to come back. */
	for (open = 0; open == 0;) {
		char byte = 'e';

		fd[0] = net_connect(host.port);
		if (send(fd[0], &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd[0], &byte, 1, 0) == 1)
			open++;
		close(fd[0]);
	}
	host_end(&host);
}

struct capped {
	struct host *host;
	unsigned rounds;
};

static void ask_under_cap(unsigned index, void *arg)
{
	struct capped *capped = arg;

	(void)index;
	for (unsigned i = 0; i < capped->rounds; i++) {
		int fd = net_connect(capped->host->port);

		check_echo(fd);
		close(fd);
	}
}

Test(serve, a_cap_is_kept_and_others_wait, .timeout = 120)
{
	enum { CLIENTS = 8, ROUNDS = 40, CAP = 3 };
	struct host host;
	struct capped capped = { &host, ROUNDS };

	host_make(&host, echo, 2);
	host.opts.connections_max = CAP;
	host_start(&host);
	harness_threads(CLIENTS, ask_under_cap, &capped);
	until_served(&host, CLIENTS * ROUNDS);
	cr_assert_leq(wf_u32_load_relaxed(&host.most), CAP);
	host_end(&host);
}

Test(serve, a_stop_while_at_the_cap, .timeout = 120)
{
	struct host host;
	int first, second;

	host_make(&host, echo, 2);
	host.opts.connections_max = 1;
	host_start(&host);
	first = net_connect(host.port);
	check_echo(first);
	second = net_connect(host.port);
	net_send(second, "x", 1);
	cr_assert_eq(weft_rt_stop(host.rt, WEFT_SEC(NET_PATIENCE_S), weft_after(0)), -ETIMEDOUT);
	cr_assert_eq(host_result(&host), 0);
	net_recv_end(second);
	check_echo(first);
	close(first);
	close(second);
	cr_assert_eq(weft_rt_stop(host.rt, WEFT_SEC(NET_PATIENCE_S), NET_SOON), 0);
	cr_assert_eq(weft_rt_destroy(host.rt, NET_SOON), 0);
}

Test(serve, beyond_the_cap_connections_can_be_shed, .timeout = 120)
{
	enum { CAP = 3, MORE = 10 };
	int fd[CAP];
	struct host host;

	host_make(&host, echo, 2);
	host.opts.connections_max = CAP;
	host.opts.policy = WEFT_SERVE_SHED;
	host_start(&host);
	for (int i = 0; i < CAP; i++) {
		fd[i] = net_connect(host.port);
		check_echo(fd[i]);
	}
	for (int i = 0; i < MORE; i++) {
		int more = net_connect(host.port);

		net_recv_end(more);
		close(more);
	}
	for (int i = 0; i < CAP; i++) {
		check_echo(fd[i]);
		close(fd[i]);
	}
	until_served(&host, CAP);
	host_end(&host);
	cr_assert_eq(wf_u32_load_relaxed(&host.most), CAP);
}

/* --- Whose descriptor it is --- */

static int end_early(int fd, void *arg)
{
	struct host *host = arg;
	int pair[2];

	/*
	 * Closed, and the number in use again when the handler returns: by a pipe nobody may close.
	 */
	cr_assert_eq(weft_close(fd), 0);
	cr_assert_eq(pipe2(pair, O_CLOEXEC), 0);
	net_yield(5);
	leave(host);
	return weft_write(pair[1], "x", 1, WEFT_FOREVER) == 1 ? pair[0] : -1;
}

static int hand_over(int fd, void *arg)
{
	struct host *host = arg;

	cr_assert_eq(weft_fd_forget(fd), 0);
	wf_u32_store_release(&host->by_worker[0], (uint32_t)fd);
	leave(host);
	return 0;
}

Test(serve, a_handler_may_close_its_descriptor_or_take_it_away, .timeout = 120)
{
	struct host host;
	int fd, taken;
	char byte;

	host_make(&host, end_early, 1);
	host_start(&host);
	for (unsigned i = 0; i < 20; i++) {
		unsigned open = harness_fd_count();

		fd = net_connect(host.port);
		net_recv_end(fd);
		close(fd);
		until_served(&host, i + 1);
		/* Both ends of its pipe are still there. */
		while (harness_fd_count() != open + 2)
			sched_yield();
	}
	host_end(&host);

	host_make(&host, hand_over, 1);
	host_start(&host);
	fd = net_connect(host.port);
	until_served(&host, 1);
	host_end(&host);
	taken = (int)wf_u32_load_acquire(&host.by_worker[0]);
	cr_assert_eq(send(taken, "h", 1, MSG_NOSIGNAL), 1, "the host's now, and open");
	net_recv(fd, &byte, 1);
	close(taken);
	close(fd);
}
