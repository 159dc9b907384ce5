/*
 * sim_net.c: servers and clients on the in-memory network: io/ as it is, on the real scheduler.
 *
 * The server is examples/echo.c, unchanged: main, weft_main and what it prints are ours. A client
 * is two processes: one writes and then shuts writing, one reads until the end. What comes back has
 * to be what was sent, byte for byte; where the network does harm, the beginning of it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "test/sim/net.h"

static int said(const char *format, ...);
int echo_main(int argc, char **argv);

#define main       echo_main
#define fprintf(file, ...) ((void)(file), said(__VA_ARGS__))
#include "examples/echo.c"
#undef main
#undef fprintf

enum {
	CLIENTS_MAX = 3,
	WORKERS_MAX = 3,
	BYTES_MAX = 14,
	PIECE_MAX = 5,
	STEPS_MAX = 100000,
	REQUESTS_MAX = 500,
	SEEDS_PER_REQUEST = 40,
};

static unsigned request; /* that fails; 0: none */
static bool requested;   /* it was made in some schedule */

struct client {
	unsigned number;
	int fd;
	unsigned size, sent, received;
	weft_pid reader;
	const char *doing;
	bool harmed; /* it has seen an error that the network may cause */
};

static struct {
	weft_rt *rt;
	weft_fn fn;
	void *arg;
	int result;
	struct weft_rt_opts opts;
	weft_pid server;
	char name[1], argument[16];
	int listener;
	char address[WEFT_ADDRESS_MAX];
	struct client clients[CLIENTS_MAX];
	unsigned client_count;
	unsigned started, ended;
	bool began; /* all_clients() */
	bool harm;  /* resets, refusals, few handles */
	bool rough; /* clients go away without a word, readers are cancelled */
} s;

static void setup(void)
{
	memset(&s, 0, sizeof(s));
	sim_runtime_reset();
	sim_net_reset(NULL);
}

/* What a call gives for whose sake a request has failed. */
static bool is_shortage(int r)
{
	return sim_runtime_has_failed() && (r == -ENOMEM || r == -EMFILE || r == -EAGAIN);
}

static void check(void)
{
	unsigned harmed = 0;

	requested |= sim_runtime_has_failed();
	for (unsigned i = 0; i < s.client_count; i++)
		harmed += s.clients[i].harmed;
	sim_check(s.harm || harmed <= 1, "%u clients suffer from one request", harmed);
	sim_check(s.ended == s.started, "%u clients of %u", s.ended, s.started);
	sim_check(s.result == 0 || is_shortage(s.result), "the server: %d", s.result);
	sim_check(s.started == s.client_count || sim_runtime_has_failed(), "not all were started");
	sim_net_check();
	sim_runtime_check();
}

/* Everybody sleeps: says how far each client has come. */
static enum sim_quiet quiet(void)
{
	char text[SIM_MESSAGE_BYTES];
	int length = 0;

	for (unsigned i = 0; i < s.client_count; i++) {
		const struct client *client = &s.clients[i];

		length += snprintf(text + length, sizeof(text) - (size_t)length,
			"; %s, %u of %u sent, %u back", client->doing, client->sent, client->size,
			client->received);
	}
	sim_fail("a wake is lost%s", text);
}

/* --- clients --- */

static unsigned char byte_of(const struct client *client, unsigned i)
{
	return (unsigned char)(client->number * 64 + i);
}

/* What the network may do to a call where it does harm. */
static bool is_harm(int r)
{
	return r == -ECONNRESET || r == -EPIPE || r == -ECONNREFUSED || r == -EMFILE ||
		r == -ENOTCONN;
}

static bool expect_harm(struct client *client, int r)
{
	sim_check((s.harm && is_harm(r)) || is_shortage(r) ||
			(sim_runtime_has_failed() && is_harm(r)),
		"client %u: %d", client->number, r);
	client->harmed = true;
	return true;
}

static int reader(void *arg)
{
	struct client *client = arg;
	unsigned char buffer[PIECE_MAX];
	ssize_t n;

	for (;;) {
		n = weft_read(client->fd, buffer, 1 + sim_random(PIECE_MAX), WEFT_FOREVER);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++) {
			sim_check(client->received < client->sent, "more came back than was sent");
			sim_check(buffer[i] == byte_of(client, client->received),
				"client %u: byte %u is another", client->number, client->received);
			client->received++;
		}
	}
	/* It is cancelled, or the socket closed, before it begins or meanwhile. */
	if (n < 0 && !(s.rough && (n == -ECANCELED || n == -EBADF)))
		(void)expect_harm(client, (int)n);
	return 0;
}

static int write_all(struct client *client)
{
	while (client->sent < client->size) {
		unsigned char piece[PIECE_MAX];
		unsigned n = 1 + sim_random(PIECE_MAX), first = client->sent;
		ssize_t r;

		if (n > client->size - first)
			n = client->size - first;
		for (unsigned i = 0; i < n; i++)
			piece[i] = byte_of(client, first + i);
		client->sent += n; /* it may come back before the call does */
		r = weft_write_all(client->fd, piece, n, WEFT_FOREVER);
		if (r < 0)
			return (int)r;
		sim_check(r == (ssize_t)n, "wrote %zd of %u", r, n);
	}
	return 0;
}

/* Waits for the reader; a rough client may not. */
static void finish(struct client *client)
{
	int r, result = -1;

	if (s.rough && sim_random(3) == 0) {
		r = sim_random(2) ? weft_cancel(client->reader) : weft_close(client->fd);
		sim_check(r == 0 || r == -ESRCH || r == -EBADF, "cancel or close: %d", r);
		client->harmed = true;
	}
	r = weft_join(client->reader, &result, WEFT_FOREVER);
	sim_check(r == 0 && (result == 0 || is_shortage(result)), "join: %d, %d", r, result);
	client->harmed |= result != 0;
}

static int talk(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .flags = WEFT_STACK_NOW};
	struct client *client = arg;
	int r;

	client->doing = "connects";
	client->fd = weft_connect(s.address, WEFT_FOREVER);
	if (client->fd < 0) {
		(void)expect_harm(client, client->fd);
		s.ended++;
		return 0;
	}
	client->doing = "writes";
	/* Without one nobody would read, and both sides might wait for room for ever. */
	r = weft_spawn_with(reader, client, &opts, &client->reader);
	if (r == 0) {
		r = write_all(client);
		if (r < 0)
			(void)expect_harm(client, r);
		r = weft_shutdown(client->fd, SHUT_WR);
		if (r < 0)
			(void)expect_harm(client, r);
		client->doing = "waits for its reader";
		finish(client);
	} else {
		sim_check(is_shortage(r), "weft_spawn: %d", r);
		client->harmed = true;
	}
	client->doing = "has ended";
	if (sim_runtime_has_failed()) /* the server closes whom it cannot serve */
		client->harmed |= client->received < client->size;
	if (!client->harmed)
		sim_check(client->received == client->size, "client %u: %u of %u came back",
			client->number, client->received, client->size);
	r = weft_close(client->fd);
	sim_check(r == 0 || (s.rough && r == -EBADF), "weft_close: %d", r);
	s.ended++;
	return 0;
}

/* When all have been served the server is cancelled; it returns 0 when its acceptors have ended. */
static int all_clients(void *arg)
{
	weft_pid pids[CLIENTS_MAX];

	(void)arg;
	s.began = true;
	for (unsigned i = 0; i < s.client_count; i++) {
		int r = weft_spawn(talk, &s.clients[i], &pids[i]);

		sim_check(r == 0 || is_shortage(r), "weft_spawn: %d", r);
		if (r != 0)
			pids[i].raw = 0;
		s.started += r == 0;
	}
	for (unsigned i = 0; i < s.client_count; i++) {
		int result = 0;

		if (weft_pid_is_none(pids[i]))
			continue;
		sim_check(weft_join(pids[i], &result, WEFT_FOREVER) == 0, "weft_join");
		/* It had no stack. */
		sim_check(result == 0 || is_shortage(result), "client %u: %d", i, result);
		s.ended += result != 0;
	}
	sim_check(weft_cancel(s.server) == 0, "the server has ended");
	return 0;
}

static void all_clients_end(void *arg)
{
	(void)arg;
	if (!s.began) /* it had no stack */
		(void)weft_cancel(s.server);
}

/* --- the server --- */

static int said(const char *format, ...)
{
	struct weft_spawn_opts opts = {
		.size = sizeof(opts), .flags = WEFT_DETACHED, .arg_dtor = all_clients_end};
	va_list args;
	int r;

	va_start(args, format);
	if (strcmp(format, "listening on %s\n") == 0) {
		strncpy(s.address, va_arg(args, const char *), sizeof(s.address) - 1);
		s.server = weft_self();
		r = weft_spawn_with(all_clients, NULL, &opts, NULL);
		sim_check(r == 0 || is_shortage(r), "weft_spawn_with: %d", r);
		if (r != 0)
			(void)weft_cancel(s.server);
	}
	va_end(args);
	return 0;
}

static int main_process(void *arg)
{
	(void)arg;
	s.result = s.fn(s.arg);
	if (s.result == -ECANCELED)
		s.result = 0; /* all_clients() */
	return 0;
}

/* The runtime is made, runs a process, and ends; or something is short, and nothing is left. */
static int run_main(void)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .flags = WEFT_DETACHED};
	int r = weft_rt_create(&s.opts, &s.rt);

	if (r < 0)
		return r;
	r = weft_rt_spawn(s.rt, main_process, NULL, &opts, NULL);
	if (r == 0)
		r = weft_rt_run(s.rt);
	sim_check(weft_rt_destroy(s.rt, WEFT_FOREVER) == 0, "weft_rt_destroy");
	return r;
}

int weft_main(const struct weft_rt_opts *opts, weft_fn fn, void *arg)
{
	int r;

	(void)opts;
	s.fn = fn;
	s.arg = arg;
	sim_runtime_fail_at(request);
	r = run_main();
	sim_check(r == 0 || is_shortage(r), "the runtime: %d", r);
	return s.result;
}

/* --- acceptors that share a listener --- */

/*
 * Two processes accept on one listener with room for one; the clients have to wait for it. Each
 * sends a byte, and is sent one more than that. When all have been served the listener is closed
 * under the acceptors.
 */
static int serve_byte(int fd)
{
	unsigned char byte = 0;
	ssize_t n = weft_read(fd, &byte, 1, WEFT_FOREVER);

	sim_check(n == 1, "the server reads: %zd", n);
	byte++;
	n = weft_write(fd, &byte, 1, WEFT_FOREVER);
	sim_check(n == 1, "the server writes: %zd", n);
	return weft_close(fd);
}

static int accept_some(void *arg)
{
	int fd;

	(void)arg;
	while ((fd = weft_accept(s.listener, WEFT_FOREVER)) >= 0)
		sim_check(serve_byte(fd) == 0, "weft_close");
	sim_check(fd == -ECANCELED || fd == -EBADF, "weft_accept: %d", fd);
	return 0;
}

static int ask_byte(void *arg)
{
	struct client *client = arg;
	unsigned char byte = byte_of(client, 0);
	ssize_t n;

	client->doing = "connects";
	client->fd = weft_connect(s.address, WEFT_FOREVER);
	sim_check(client->fd >= 0, "weft_connect: %d", client->fd);
	client->doing = "asks";
	n = weft_write(client->fd, &byte, 1, WEFT_FOREVER);
	sim_check(n == 1, "weft_write: %zd", n);
	n = weft_read_exact(client->fd, &byte, 1, WEFT_FOREVER);
	sim_check(n == 1 && byte == byte_of(client, 1), "weft_read_exact: %zd, %u", n, byte);
	n = weft_read(client->fd, &byte, 1, WEFT_FOREVER);
	sim_check(n == 0, "no end: %zd", n);
	sim_check(weft_close(client->fd) == 0, "weft_close");
	client->doing = "has ended";
	s.ended++;
	return 0;
}

static int all_askers(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts)};
	weft_pid pids[CLIENTS_MAX], acceptors[2];

	(void)arg;
	s.listener = weft_listen("mem:", 1);
	sim_check(s.listener >= 0, "weft_listen: %d", s.listener);
	sim_check(weft_local_address(s.listener, s.address, sizeof(s.address)) == 0, "address");
	for (unsigned i = 0; i < 2; i++) {
		opts.worker = WEFT_WORKER(i % s.opts.workers);
		sim_check(weft_spawn_with(accept_some, NULL, &opts, &acceptors[i]) == 0, "spawn");
	}
	for (unsigned i = 0; i < s.client_count; i++)
		sim_check(weft_spawn(ask_byte, &s.clients[i], &pids[i]) == 0, "weft_spawn");
	for (unsigned i = 0; i < s.client_count; i++)
		sim_check(weft_join(pids[i], NULL, WEFT_FOREVER) == 0, "weft_join");
	s.started = s.client_count;
	sim_check(weft_close(s.listener) == 0, "weft_close");
	for (unsigned i = 0; i < 2; i++)
		sim_check(weft_join(acceptors[i], NULL, WEFT_FOREVER) == 0, "weft_join");
	return 0;
}

/* --- scenarios --- */

static void draw_network(bool late, bool short_counts)
{
	struct weft_mem_opts net = {.size = sizeof(net),
		.seed = sim_random(1u << 31),
		.buffer_bytes = 1 + sim_random(8)};

	if (late)
		net.latency_max_ns = 1000 * (1 + (weft_time)sim_random(50));
	if (short_counts)
		net.short_one_in = 2;
	if (s.harm) {
		net.reset_one_in = sim_random(3) ? 20 : 0;
		net.refuse_one_in = sim_random(3) ? 5 : 0;
		/* Room for all listeners and clients, and for one that is being served. */
		net.sockets_max = sim_random(3) ? 0 : WORKERS_MAX + CLIENTS_MAX + 1;
		sim_runtime_expect_errors();
	}
	sim_check(weft_mem_setup(&net) == 0, "weft_mem_setup");
}

static void draw_clients(unsigned workers)
{
	s.opts = *sim_runtime_opts(workers);
	if (sim_random(2))
		s.opts.driver = "mem";
	s.client_count = 1 + sim_random(CLIENTS_MAX);
	for (unsigned i = 0; i < s.client_count; i++) {
		s.clients[i].number = i;
		s.clients[i].doing = "is to start";
		s.clients[i].size = sim_random(BYTES_MAX);
	}
}

static void run(unsigned workers, const char *address)
{
	char *arguments[] = {s.name, s.argument, NULL};

	draw_clients(workers);
	strcpy(s.argument, address);
	if (strncmp(address, "tcp:", 4) == 0)
		s.opts.driver = "mem";
	(void)echo_main(2, arguments);
}

static void near_one(unsigned number)
{
	(void)number;
	draw_network(false, sim_random(2));
	run(1, "mem:echo");
}

static void near_two(unsigned number)
{
	(void)number;
	draw_network(false, sim_random(2));
	run(2, "tcp::7000");
}

static void far_two(unsigned number)
{
	(void)number;
	draw_network(true, sim_random(2));
	run(2, "mem:");
}

static void harm_two(unsigned number)
{
	(void)number;
	s.harm = true;
	draw_network(sim_random(2), sim_random(2));
	run(2, "mem:echo");
}

static void accept_two(unsigned number)
{
	(void)number;
	draw_network(sim_random(2), sim_random(2));
	draw_clients(2);
	(void)weft_main(NULL, all_askers, NULL);
}

static void rough_three(unsigned number)
{
	(void)number;
	s.harm = s.rough = true;
	draw_network(sim_random(2), sim_random(2));
	run(3, "mem:echo");
}

static const struct sim_scenario near_with_one = {
	"echo, 1 worker", 1, setup, near_one, quiet, check, STEPS_MAX};
static const struct sim_scenario near_with_two = {
	"echo, 2 workers", 1, setup, near_two, quiet, check, STEPS_MAX};
static const struct sim_scenario far_with_two = {
	"echo far away, 2 workers", 1, setup, far_two, quiet, check, STEPS_MAX};
static const struct sim_scenario harm_with_two = {
	"echo, harmed, 2 workers", 1, setup, harm_two, quiet, check, STEPS_MAX};
static const struct sim_scenario rough_with_three = {
	"echo, rough clients, 3 workers", 1, setup, rough_three, quiet, check, STEPS_MAX};

static const struct sim_scenario accepting_with_two = {
	"2 accept, room for 1, 2 workers", 1, setup, accept_two, quiet, check, STEPS_MAX};

SIM_TEST(net, an_echo_server_on_one_worker_returns_what_it_was_sent)
{
	sim_must_pass(&near_with_one, 1000);
}

SIM_TEST(net, an_echo_server_on_two_workers_returns_what_it_was_sent)
{
	sim_must_pass(&near_with_two, 2000);
}

SIM_TEST(net, what_takes_time_arrives_in_order)
{
	sim_must_pass(&far_with_two, 2000);
}

SIM_TEST(net, resets_refusals_and_few_handles_end_connections_only)
{
	sim_must_pass(&harm_with_two, 2000);
}

SIM_TEST(net, clients_that_go_away_leave_nothing_behind)
{
	sim_must_pass(&rough_with_three, 2000);
}

SIM_TEST(net, acceptors_share_a_listener_and_clients_wait_for_room)
{
	sim_must_pass(&accepting_with_two, 2000);
}

/*
 * Whatever is asked for, by server, clients and runtime, is refused in turn, until nothing is left
 * to refuse: who asked is told, the others are served, nothing is left behind.
 */
SIM_TEST(net, each_request_may_fail)
{
	static const struct sim_scenario scenario = {
		"echo, a request fails", 1, setup, far_two, quiet, check, STEPS_MAX};
	struct sim_statistics statistics;

	if (sim_lists())
		return;
	requested = true;
	for (request = 1; requested && request < REQUESTS_MAX; request++) {
		requested = false;
		if (!sim_passes(&scenario, SEEDS_PER_REQUEST, &statistics)) {
			printf("  while request %u fails\n", request);
			break;
		}
	}
	sim_expect(request > 50 && !requested, "after request %u", request);
	printf("  %u requests, each failing in %d schedules\n", request - 2, SEEDS_PER_REQUEST);
	request = 0;
}

SIM_TEST(net, planted_miss_forgets_an_event)
{
	sim_must_find(&near_with_two, WF_PLANTED_fd_miss_forgets_event, 5000);
}

SIM_TEST(net, planted_park_without_look)
{
	sim_must_find(&near_with_two, WF_PLANTED_fd_parks_without_look, 5000);
}

SIM_TEST(net, planted_close_tells_nobody)
{
	sim_must_find(&accepting_with_two, WF_PLANTED_fd_close_tells_nobody, 100);
}

SIM_TEST(net, planted_last_one_leaves_it_open)
{
	sim_must_find(&accepting_with_two, WF_PLANTED_fd_last_leaves_open, 100);
}

SIM_TEST(net, planted_room_looks_gone)
{
	sim_must_find(&near_with_two, WF_PLANTED_mem_room_looks_gone, 100);
}

SIM_TEST(net, planted_space_is_not_told)
{
	sim_must_find(&near_with_one, WF_PLANTED_mem_space_is_not_told, 100);
}

SIM_TEST(net, planted_room_is_not_told)
{
	sim_must_find(&accepting_with_two, WF_PLANTED_mem_room_is_not_told, 100);
}

SIM_TEST(net, planted_wake_looks_first)
{
	sim_must_find(&near_with_two, WF_PLANTED_mem_wake_looks_first, 20000);
}
