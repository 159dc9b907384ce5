/*
 * load.c: the engine of perf/load, a TCP load generator: one thread, one epoll set.
 *
 * Closed loop: a connection sends its next request when a reply completes, so a slow server is
 * asked less often and its worst moments are sampled least. Open loop: on every connection requests
 * fall due by a Poisson process of its own, drawn from a seed, whatever the server does. Latency
 * counts from the time a request is due. A connection that has `depth` requests outstanding keeps
 * its later ones waiting, and their waiting is part of their latency: a stall of the server shows
 * in every request that it delays, not in one (no coordinated omission).
 *
 * The backlog of a connection needs no memory: `next_ns` is the due time of its next unsent
 * request, and the following one is drawn when that is sent. Connections that wait for a time (the
 * next due request, the next attempt to connect) are in one binary heap.
 *
 * A run: connect all (a failure here ends it with one line), warm-up, the measured window, then up
 * to `timeout` for what was due inside the window. A request belongs to the window if its due time
 * does. Every wait is bounded, so a run always ends.
 *
 * After an error on a connection its outstanding requests are lost (replies < requests), the error
 * is counted by kind, and the connection is made anew a little later, so that one fault does not
 * thin out the load that the others see.
 */
#include "perf/load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
	EVENTS_MAX = 512,
	BUFFER_SIZE = 256 << 10,
	CONNECTING_MAX = 128,           /* at once: stays below any listen backlog */
	SOURCE_CONNECTIONS_MAX = 20000, /* from one loopback address: it has 28,000 ports */
	CHURN_SOURCES = 200,
	TICK_NS = 50000000,
	PROGRESS_NS = 500000000,
	RETRY_NS = 50000000,
};

#define NEVER      UINT64_MAX
#define END_EVENTS (EPOLLRDHUP | EPOLLHUP | EPOLLERR)

enum state {
	STATE_DOWN,       /* no socket */
	STATE_CONNECTING, /* counted in engine.connecting */
	STATE_UP,
};

struct flight {
	uint64_t due_ns;
	uint64_t sent_ns;
	bool measured;
};

struct connection {
	int fd;
	enum state state;
	uint32_t slot; /* also the place in engine.connections; from options.connections on: idle */
	uint32_t heap_at; /* 1-based; 0: not in the heap */
	uint64_t wake_ns; /* the heap's key */
	uint64_t next_ns; /* open loop: when the next request is due */
	uint64_t random;
	uint64_t connect_ns;
	/* Requests by number: [finished, started) are outstanding, `sending` is being written. */
	uint64_t started;
	uint64_t sending;
	uint64_t finished;
	size_t sent_bytes;      /* of `sending` */
	size_t got_bytes;       /* of the reply to `finished` */
	struct flight *flights; /* by number modulo depth */
};

struct engine {
	const struct load_options *options;
	struct load_result *result;
	int epoll;
	struct connection *connections;
	unsigned connections_count; /* idle ones included */
	struct connection **heap;   /* [1 .. heap_count], earliest first */
	unsigned heap_count;
	unsigned connecting;
	uint64_t outstanding;
	bool measuring; /* false while the first connections are made */
	bool ending;    /* --requests is reached: nothing more falls due */
	uint64_t begin_ns;
	uint64_t window_ns;
	uint64_t end_ns;
	uint64_t last_reply_ns;
	uint64_t cpu_begin_ns;
	uint64_t tick_ns;
	uint64_t progress_ns;
	uint64_t progress_replies;
	unsigned char buffer[BUFFER_SIZE];
};

static void connection_next(struct engine *engine, struct connection *connection, uint64_t now_ns);

void load_die(int status, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(status);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t now_get_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* The heap of waiting connections. */

static void heap_put(struct engine *engine, unsigned at, struct connection *connection)
{
	engine->heap[at] = connection;
	connection->heap_at = at;
}

static void heap_rise(struct engine *engine, unsigned at, struct connection *connection)
{
	while (at > 1 && engine->heap[at / 2]->wake_ns > connection->wake_ns) {
		heap_put(engine, at, engine->heap[at / 2]);
		at /= 2;
	}
	heap_put(engine, at, connection);
}

static void heap_sink(struct engine *engine, unsigned at, struct connection *connection)
{
	unsigned child;

	while ((child = at * 2) <= engine->heap_count) {
		if (child < engine->heap_count &&
			engine->heap[child + 1]->wake_ns < engine->heap[child]->wake_ns)
			child++;
		if (engine->heap[child]->wake_ns >= connection->wake_ns)
			break;
		heap_put(engine, at, engine->heap[child]);
		at = child;
	}
	heap_put(engine, at, connection);
}

static void heap_remove(struct engine *engine, struct connection *connection)
{
	unsigned at = connection->heap_at;
	struct connection *last;

	if (at == 0)
		return;
	connection->heap_at = 0;
	last = engine->heap[engine->heap_count--];
	if (last == connection)
		return;
	if (at > 1 && engine->heap[at / 2]->wake_ns > last->wake_ns)
		heap_rise(engine, at, last);
	else
		heap_sink(engine, at, last);
}

static void wake_at(struct engine *engine, struct connection *connection, uint64_t wake_ns)
{
	heap_remove(engine, connection);
	connection->wake_ns = wake_ns;
	heap_rise(engine, ++engine->heap_count, connection);
}

/* When requests fall due. */

static bool is_idle(const struct engine *engine, const struct connection *connection)
{
	return connection->slot >= engine->options->connections;
}

static uint64_t gap_draw_ns(struct engine *engine, struct connection *connection)
{
	double mean_ns = 1e9 * engine->options->connections / engine->options->rate;
	/* In (0, 1]: the logarithm of 0 must not be drawn. */
	double uniform = (double)((load_random(&connection->random) >> 11) + 1) * 0x1p-53;

	return (uint64_t)(-log(uniform) * mean_ns);
}

static bool may_start(const struct engine *engine, uint64_t due_ns)
{
	return engine->measuring && !engine->ending && due_ns < engine->end_ns;
}

static uint64_t outstanding_count(const struct connection *connection)
{
	return connection->started - connection->finished;
}

/* Takes a request that is due into the books of its connection. */
static void request_start(
	struct engine *engine, struct connection *connection, uint64_t due_ns, uint64_t now_ns)
{
	struct flight *flight = &connection->flights[connection->started % engine->options->depth];

	*flight = (struct flight){due_ns, now_ns, due_ns >= engine->window_ns};
	connection->started++;
	engine->outstanding++;
	if (!flight->measured)
		return;
	if (engine->cpu_begin_ns == 0)
		engine->cpu_begin_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	if (++engine->result->requests == engine->options->requests_max)
		engine->ending = true;
}

static void request_finish(struct engine *engine, struct connection *connection, uint64_t now_ns)
{
	struct flight *flight = &connection->flights[connection->finished % engine->options->depth];

	connection->finished++;
	connection->got_bytes = 0;
	engine->outstanding--;
	if (!flight->measured) {
		engine->result->warm_up_replies++;
		return;
	}
	engine->result->replies++;
	engine->last_reply_ns = now_ns;
	histogram_record(&engine->result->latency, now_ns - flight->due_ns);
	histogram_record(&engine->result->service, now_ns - flight->sent_ns);
	histogram_record(&engine->result->lag, flight->sent_ns - flight->due_ns);
}

/* Connections: made, lost, made again. */

static void connection_reset(struct engine *engine, struct connection *connection)
{
	if (connection->state == STATE_CONNECTING)
		engine->connecting--;
	if (connection->fd >= 0)
		close(connection->fd); /* leaves the epoll set by itself */
	connection->fd = -1;
	connection->state = STATE_DOWN;
	engine->outstanding -= outstanding_count(connection);
	connection->finished = connection->sending = connection->started;
	connection->sent_bytes = connection->got_bytes = 0;
}

static const char *address_print(const struct load_options *options, char *text, size_t size)
{
	const struct sockaddr_in *v4 = (const void *)&options->address;
	const struct sockaddr_in6 *v6 = (const void *)&options->address;
	char host[INET6_ADDRSTRLEN] = "?";

	if (options->address.ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(text, size, "[%s]:%u", host, ntohs(v6->sin6_port));
	} else {
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(text, size, "%s:%u", host, ntohs(v4->sin_port));
	}
	return text;
}

static _Noreturn void connect_die(const struct engine *engine, int error)
{
	char text[INET6_ADDRSTRLEN + 16];
	const char *remedy = "";

	if (error == EADDRNOTAVAIL)
		remedy = " (no free local port: fewer connections, or wait a minute)";
	else if (error == ETIMEDOUT)
		remedy = " (see --timeout)";
	address_print(engine->options, text, sizeof(text));
	if (engine->result->connects)
		load_die(1, "cannot connect to %s: %s%s, after %llu connections", text,
			strerror(error), remedy, (unsigned long long)engine->result->connects);
	load_die(1, "cannot connect to %s: %s%s", text, strerror(error), remedy);
}

/* Drops what the connection has outstanding and lets it try again a little later. */
static void connection_fail(
	struct engine *engine, struct connection *connection, enum load_error kind, int error)
{
	/* A server that cannot be reached at all is one clear line, not a table of errors. */
	if (kind == LOAD_ERROR_CONNECT && (!engine->measuring || !engine->result->connects))
		connect_die(engine, error);
	engine->result->errors[is_idle(engine, connection) ? LOAD_ERROR_IDLE : kind]++;
	heap_remove(engine, connection);
	connection_reset(engine, connection);
	if (!is_idle(engine, connection))
		wake_at(engine, connection, now_get_ns() + RETRY_NS);
}

/*
 * One loopback address offers 28,000 ports, and a closed connection keeps its port for a while (one
 * second on loopback before the kernel reuses it). 127.0.0.0/8 has more addresses than that.
 */
static void source_choose(const struct engine *engine, struct connection *connection)
{
	const struct load_options *options = engine->options;
	struct sockaddr_in source = {.sin_family = AF_INET};
	const struct sockaddr_in *target = (const void *)&options->address;
	unsigned which = options->churn ? connection->slot % CHURN_SOURCES
					: connection->slot / SOURCE_CONNECTIONS_MAX;
	int on = 1;

	if (options->address.ss_family != AF_INET || which == 0 ||
		ntohl(target->sin_addr.s_addr) >> 24 != 127)
		return;
	source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + which);
	/* Refused (an odd loopback set-up): the kernel's own choice of address is as good. */
	setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	(void)!bind(connection->fd, (const struct sockaddr *)&source, sizeof(source));
}

static void connect_finish(struct engine *engine, struct connection *connection, uint64_t now_ns)
{
	connection->state = STATE_UP;
	engine->connecting--;
	if (!is_idle(engine, connection))
		engine->result->connects++;
	connection_next(engine, connection, now_ns);
}

/* Opens a socket and starts its connect; the epoll set tells how that ends. */
static void connect_start(struct engine *engine, struct connection *connection, uint64_t now_ns)
{
	const struct load_options *options = engine->options;
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
	int on = 1;

	connection->fd =
		socket(options->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connection->fd < 0)
		load_die(1, "socket: %s", strerror(errno));
	connection->state = STATE_CONNECTING;
	connection->connect_ns = now_ns;
	engine->connecting++;
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	source_choose(engine, connection);
	if (connect(connection->fd, (const struct sockaddr *)&options->address,
		    options->address_size) < 0 &&
		errno != EINPROGRESS)
		connection_fail(engine, connection, LOAD_ERROR_CONNECT, errno);
	else if (epoll_ctl(engine->epoll, EPOLL_CTL_ADD, connection->fd, &event) < 0)
		load_die(1, "epoll_ctl: %s", strerror(errno));
}

/* Writing and reading. */

/* Copies as much as fits of what is still to be written, several requests if depth allows. */
static size_t output_fill(const struct engine *engine, const struct connection *connection,
	unsigned char *to, size_t room)
{
	uint64_t number = connection->sending;
	size_t from = connection->sent_bytes, filled = 0;

	while (number < connection->started && filled < room) {
		size_t part = engine->options->size - from;

		if (part > room - filled)
			part = room - filled;
		load_message_fill(connection->slot, number, from, to + filled, part);
		filled += part;
		number++;
		from = 0;
	}
	return filled;
}

static void output_advance(
	const struct engine *engine, struct connection *connection, size_t written)
{
	size_t at = connection->sent_bytes + written;

	connection->sending += at / engine->options->size;
	connection->sent_bytes = at % engine->options->size;
}

static void output_push(struct engine *engine, struct connection *connection)
{
	while (connection->sending < connection->started) {
		size_t length =
			output_fill(engine, connection, engine->buffer, sizeof(engine->buffer));
		ssize_t written = send(connection->fd, engine->buffer, length, MSG_NOSIGNAL);

		if (written < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN)
				connection_fail(engine, connection, LOAD_ERROR_RESET, errno);
			return;
		}
		output_advance(engine, connection, (size_t)written);
		if ((size_t)written < length)
			return; /* the next EPOLLOUT edge goes on */
	}
}

/* Checks bytes that arrived. False: the connection has failed. */
static bool input_take(struct engine *engine, struct connection *connection,
	const unsigned char *bytes, size_t length, uint64_t now_ns)
{
	while (length > 0) {
		size_t part = engine->options->size - connection->got_bytes;

		/* More than was written yet of a request in progress is an invention as well. */
		if (connection->finished == connection->sending &&
			connection->got_bytes + length > connection->sent_bytes) {
			connection_fail(engine, connection, LOAD_ERROR_EXTRA, 0);
			return false;
		}
		if (part > length)
			part = length;
		if (!load_message_equal(connection->slot, connection->finished,
			    connection->got_bytes, bytes, part)) {
			connection_fail(engine, connection, LOAD_ERROR_CORRUPT, 0);
			return false;
		}
		connection->got_bytes += part;
		bytes += part;
		length -= part;
		if (connection->got_bytes == engine->options->size)
			request_finish(engine, connection, now_ns);
	}
	return true;
}

/*
 * Reads until a read is short: edge-triggered, so whatever comes later is a new event. An end that
 * came in the same edge as the data has no event of its own; `ended` says to read on up to it.
 */
static bool input_pull(struct engine *engine, struct connection *connection, bool ended)
{
	for (;;) {
		ssize_t got = recv(connection->fd, engine->buffer, sizeof(engine->buffer), 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				return true;
			connection_fail(engine, connection, LOAD_ERROR_RESET, errno);
			return false;
		}
		if (got == 0) {
			connection_fail(engine, connection, LOAD_ERROR_CLOSED, 0);
			return false;
		}
		if (!input_take(engine, connection, engine->buffer, (size_t)got, now_get_ns()))
			return false;
		if ((size_t)got < sizeof(engine->buffer) && !ended)
			return true;
	}
}

/* What a connection does next. */

/* Starts every request that is due and that `depth` admits; waits for the next one otherwise. */
static void requests_start_due(
	struct engine *engine, struct connection *connection, uint64_t now_ns)
{
	while (outstanding_count(connection) < engine->options->depth) {
		uint64_t due_ns = engine->options->rate > 0 ? connection->next_ns : now_ns;

		if (!may_start(engine, due_ns))
			return;
		if (due_ns > now_ns) {
			wake_at(engine, connection, due_ns);
			return;
		}
		request_start(engine, connection, due_ns, now_ns);
		if (engine->options->rate > 0)
			connection->next_ns += gap_draw_ns(engine, connection);
	}
}

/* A churned connection has served its one request; the next request has a new one. */
static void churn_next(struct engine *engine, struct connection *connection, uint64_t now_ns)
{
	if (connection->state == STATE_UP && outstanding_count(connection) == 0)
		connection_reset(engine, connection);
	if (connection->state == STATE_DOWN) {
		requests_start_due(engine, connection, now_ns);
		if (outstanding_count(connection) > 0)
			connect_start(engine, connection, now_ns);
	}
	if (connection->state == STATE_UP)
		output_push(engine, connection);
}

static void connection_next(struct engine *engine, struct connection *connection, uint64_t now_ns)
{
	if (is_idle(engine, connection) || !engine->measuring)
		return;
	if (engine->options->churn) {
		churn_next(engine, connection, now_ns);
	} else if (connection->state == STATE_UP) {
		requests_start_due(engine, connection, now_ns);
		output_push(engine, connection);
	} else if (connection->state == STATE_DOWN && may_start(engine, now_ns)) {
		connect_start(engine, connection, now_ns);
	}
}

/* An attempt to connect has ended. False: it failed, or it has not ended after all. */
static bool connect_event(
	struct engine *engine, struct connection *connection, uint32_t events, uint64_t now_ns)
{
	int error = 0;
	socklen_t size = sizeof(error);

	getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error) {
		connection_fail(engine, connection, LOAD_ERROR_CONNECT, error);
		return false;
	}
	if (!(events & EPOLLOUT))
		return false;
	connect_finish(engine, connection, now_ns);
	return true;
}

static void connection_event(
	struct engine *engine, struct connection *connection, uint32_t events, uint64_t now_ns)
{
	if (connection->state == STATE_DOWN)
		return; /* failed earlier in the same batch */
	if (connection->state == STATE_CONNECTING &&
		!connect_event(engine, connection, events, now_ns))
		return;
	/* The same edge may tell of the connection, of data and of the peer's end. */
	if (events & (EPOLLIN | END_EVENTS))
		if (!input_pull(engine, connection, (events & END_EVENTS) != 0))
			return;
	connection_next(engine, connection, now_get_ns());
}

/* The loop. */

static void timeouts_check(struct engine *engine, uint64_t now_ns)
{
	uint64_t timeout_ns = engine->options->timeout_ns;
	unsigned i;

	for (i = 0; i < engine->connections_count; i++) {
		struct connection *connection = &engine->connections[i];
		uint64_t since_ns = NEVER;

		if (connection->state == STATE_CONNECTING)
			since_ns = connection->connect_ns;
		else if (outstanding_count(connection) > 0)
			since_ns =
				connection->flights[connection->finished % engine->options->depth]
					.sent_ns;
		if (since_ns == NEVER || now_ns - since_ns < timeout_ns || now_ns < since_ns)
			continue;
		connection_fail(engine, connection,
			connection->state == STATE_CONNECTING ? LOAD_ERROR_CONNECT
							      : LOAD_ERROR_TIMEOUT,
			ETIMEDOUT);
	}
}

static void progress_print(struct engine *engine, uint64_t now_ns)
{
	const struct load_result *result = engine->result;
	uint64_t replies = result->replies + result->warm_up_replies;

	fprintf(stderr, "load: %5.1f s  %9.0f replies/s  p99 %.1f us  errors %llu%s\n",
		(double)(now_ns - engine->begin_ns) / 1e9,
		(double)(replies - engine->progress_replies) * 1e9 /
			(double)(now_ns - engine->progress_ns),
		(double)histogram_percentile(&result->latency, 99) / 1e3,
		(unsigned long long)load_errors_total(result),
		now_ns < engine->window_ns ? "  (warm-up)" : "");
	engine->progress_replies = replies;
	engine->progress_ns = now_ns;
}

static void tick(struct engine *engine, uint64_t now_ns)
{
	if (now_ns < engine->tick_ns)
		return;
	engine->tick_ns = now_ns + TICK_NS;
	timeouts_check(engine, now_ns);
	if (engine->options->progress && engine->measuring &&
		now_ns - engine->progress_ns >= PROGRESS_NS)
		progress_print(engine, now_ns);
}

static void run_due(struct engine *engine, uint64_t now_ns)
{
	while (engine->heap_count && engine->heap[1]->wake_ns <= now_ns) {
		struct connection *connection = engine->heap[1];

		heap_remove(engine, connection);
		connection_next(engine, connection, now_ns);
	}
}

static void events_wait(struct engine *engine, uint64_t until_ns)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec wait = {0, 0};
	uint64_t now_ns = now_get_ns();
	int count, i;

	if (!engine->options->spin && until_ns > now_ns) {
		wait.tv_sec = (time_t)((until_ns - now_ns) / 1000000000u);
		wait.tv_nsec = (long)((until_ns - now_ns) % 1000000000u);
	}
	count = epoll_pwait2(engine->epoll, events, EVENTS_MAX, &wait, NULL);
	if (count < 0 && errno == ENOSYS) /* before Linux 5.11: the last millisecond is spun */
		count = epoll_wait(engine->epoll, events, EVENTS_MAX,
			(int)(wait.tv_sec * 1000 + wait.tv_nsec / 1000000));
	if (count < 0 && errno != EINTR)
		load_die(1, "epoll_wait: %s", strerror(errno));
	now_ns = now_get_ns();
	for (i = 0; i < count; i++)
		connection_event(engine, events[i].data.ptr, events[i].events, now_ns);
}

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

static void turn(struct engine *engine)
{
	uint64_t now_ns = now_get_ns();
	uint64_t until_ns;

	run_due(engine, now_ns);
	tick(engine, now_ns);
	until_ns = engine->tick_ns;
	if (engine->heap_count)
		until_ns = earlier(until_ns, engine->heap[1]->wake_ns);
	events_wait(engine, until_ns);
}

/* Makes the first connections, the idle ones first; each attempt is bounded by `timeout`. */
static void connect_all(struct engine *engine)
{
	bool churn = engine->options->churn;
	unsigned first = churn ? engine->options->connections : 0;
	unsigned next = engine->connections_count;

	while (next > first || engine->connecting) {
		while (next > first && engine->connecting < CONNECTING_MAX)
			connect_start(engine, &engine->connections[--next], now_get_ns());
		if (engine->connecting)
			turn(engine);
	}
}

static bool window_done(const struct engine *engine, uint64_t now_ns)
{
	if (now_ns >= engine->end_ns + engine->options->timeout_ns)
		return true;
	if (!engine->ending && (now_ns < engine->end_ns || engine->heap_count))
		return false;
	return engine->outstanding == 0;
}

static void window_open(struct engine *engine)
{
	uint64_t now_ns = now_get_ns();
	unsigned i;

	engine->begin_ns = engine->progress_ns = now_ns;
	engine->window_ns = now_ns + engine->options->warm_up_ns;
	engine->end_ns = engine->window_ns + engine->options->duration_ns;
	engine->measuring = true;
	for (i = 0; i < engine->options->connections; i++) {
		struct connection *connection = &engine->connections[i];

		if (engine->options->rate > 0)
			connection->next_ns = now_ns + gap_draw_ns(engine, connection);
		connection_next(engine, connection, now_ns);
	}
}

/* What is missing at the end, by its reason. */
static void window_close(struct engine *engine)
{
	struct load_result *result = engine->result;
	uint64_t now_ns = now_get_ns();
	unsigned i;

	if (engine->outstanding)
		result->errors[LOAD_ERROR_TIMEOUT] += engine->outstanding;
	for (i = 0; engine->options->rate > 0 && i < engine->options->connections; i++) {
		struct connection *connection = &engine->connections[i];

		for (; may_start(engine, connection->next_ns);
			connection->next_ns += gap_draw_ns(engine, connection)) {
			result->requests += connection->next_ns >= engine->window_ns;
			result->errors[LOAD_ERROR_UNSENT]++;
		}
	}
	/* --requests without --duration asks for that many: the time did not suffice. */
	if (!engine->options->duration_given && engine->options->requests_max > result->requests) {
		result->errors[LOAD_ERROR_UNSENT] +=
			engine->options->requests_max - result->requests;
		result->requests = engine->options->requests_max;
	}
	result->elapsed_ns = (engine->last_reply_ns ? engine->last_reply_ns : now_ns);
	result->elapsed_ns -= earlier(engine->window_ns, result->elapsed_ns);
	if (engine->cpu_begin_ns)
		result->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - engine->cpu_begin_ns;
}

/* Set-up. */

static void files_limit_raise(const struct load_options *options)
{
	uint64_t needed = (uint64_t)options->connections + options->idle + 16;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= needed)
		return;
	limit.rlim_cur = needed;
	if (limit.rlim_max < needed)
		limit.rlim_max = needed; /* works only for root */
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		load_die(1,
			"%llu connections need more open files than the limit allows: raise it "
			"with ulimit -n %llu",
			(unsigned long long)needed - 16, (unsigned long long)needed);
}

static void cpu_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	if (cpu < CPU_SETSIZE)
		CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		load_die(1, "cannot run on CPU %d: %s", cpu, strerror(errno));
}

static void *zeroed(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		load_die(1, "out of memory");
	return memory;
}

static void engine_init(
	struct engine *engine, const struct load_options *options, struct load_result *result)
{
	struct flight *flights =
		zeroed((size_t)options->connections * options->depth, sizeof(*flights));
	unsigned i;

	engine->options = options;
	engine->result = result;
	engine->connections_count = options->connections + options->idle;
	engine->connections = zeroed(engine->connections_count, sizeof(*engine->connections));
	engine->heap = zeroed(engine->connections_count + 1u, sizeof(struct connection *));
	engine->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (engine->epoll < 0)
		load_die(1, "epoll_create1: %s", strerror(errno));
	for (i = 0; i < engine->connections_count; i++) {
		struct connection *connection = &engine->connections[i];

		connection->fd = -1;
		connection->slot = i;
		connection->random = load_mix(load_mix(options->seed) + i) | 1;
		if (i < options->connections)
			connection->flights = flights + (size_t)i * options->depth;
	}
}

int main(int argc, char **argv)
{
	static struct load_options options;
	static struct load_result result;
	struct engine *engine = zeroed(1, sizeof(*engine));

	load_options_parse(&options, argc, argv);
	files_limit_raise(&options);
	if (options.cpu >= 0)
		cpu_pin(options.cpu);
	prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul); /* or every sleep is 50 us late */
	load_message_init(options.seed);
	engine_init(engine, &options, &result);
	connect_all(engine);
	window_open(engine);
	while (!window_done(engine, now_get_ns()))
		turn(engine);
	window_close(engine);
	load_report(&options, &result);
	/* The exit closes every socket and returns the memory. */
	return result.requests == 0 || result.replies != result.requests ||
	       load_errors_total(&result) != 0;
}
