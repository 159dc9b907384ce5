/*
 * serve.c: weft_serve(): a listening socket and an acceptor process per worker, a process per
 * connection.
 *
 * Beginning:
 *	S1 listeners.c opens a listener per worker, steered by CPU where that is possible.
 *	S2 the bound address is asked for.
 *	S3 an acceptor per listener is made, with its stack, pinned to its worker, suspended.
 *	S4 on_listen; then they are woken. Nothing can fail any more.
 * A failure undoes the steps before it.
 *
 * Accepting: an acceptor takes up to accept_budget connections in a row, then yields. Each becomes
 * a process: on the acceptor's worker if connections are steered (moving them would undo the
 * steering), unless that worker has many more open than another: when all arrive on one CPU (over
 * the loopback device, or from a network card with one queue) that must not leave the others idle.
 * If they are not steered, wherever there is time. Connection and descriptor end in its arg_dtor,
 * so they end whatever becomes of the process: refused, out of stacks, cancelled. The descriptor is
 * closed by generation: a handler that closed it itself, or took it away by weft_fd_forget(), does
 * no harm. With WEFT_SERVE_INLINE the acceptor calls the handler, and knows nothing of the
 * connection afterwards.
 *
 * Ending: both ways cancel the acceptors (a stop by wf_servers_drain(), a cancel of the caller by
 * the caller). A cancelled acceptor accepts what is queued at that moment, closes its listener and
 * ends; the last one wakes the caller, who returns only then.
 *
 * Out of descriptors or memory, and after any other error that may pass: an acceptor sleeps 10, 20,
 * … 100 ms between tries, until one succeeds; one line a minute says which limit it is.
 *
 * Ownership: struct wf_server is counted: the caller, each acceptor, each connection. Its lock
 * guards the places under connections_max, who waits for one, the acceptors that are left and the
 * caller's wait; it is held for a few instructions. Blocking (that lock).
 */
#include "io/serve.h"

#include <string.h>
#include <sys/resource.h>

#include "core/internal.h"
#include "io/drivers.h"
#include "io/fd.h"
#include "io/listeners.h"
#include "io/resolve.h"
#include "io/socket.h"
#include "io/syscall.h"
#include "io/tcp.h"

enum {
	ACCEPT_BUDGET_DEFAULT = 16,
	DRAIN_MAX = 65536,         /* accepted after the end where the queue's length is not told */
	COMPLAINT_INTERVAL_S = 60,
	IMBALANCE_SHIFT = 3,       /* 1/8: choose_keeper() */
	STACK_BYTES_MIN = 16 << 10,
	STACK_BYTES_MAX = 1 << 30,
};

#define BACKOFF_MIN_NS WEFT_MS(10)
#define BACKOFF_MAX_NS WEFT_MS(100)

struct acceptor {
	struct wf_server *server;
	struct wf_listener listener;
	unsigned worker;
	weft_pid pid;
	weft_time backoff_ns;  /* of the next failure; 0 while all is well */
	struct wf_wait wait;   /* for a place, if waits; under the server's lock */
	bool waits;
	wf_atomic_u32 open WF_ALIGNED(WF_FALSE_SHARING); /* connections its worker keeps */
} WF_ALIGNED(WF_FALSE_SHARING);

struct wf_server {
	struct wf_server *next, *prev; /* in wf_servers, under its lock */
	bool drained;                  /* under its lock */
	struct weft_rt *rt;
	weft_serve_fn handler;
	void *arg;
	struct weft_serve_opts opts;
	bool steered;
	wf_atomic_u32 references;
	wf_atomic_u64 complained; /* weft_time of the last complaint; 0: none yet */
	struct wf_spinlock lock;
	unsigned connections;     /* counted only under a cap */
	unsigned acceptors_left;
	struct wf_wait caller;    /* if caller_waits */
	bool caller_waits;
	int error;                /* of the first acceptor that could not go on */
	unsigned count;
	struct acceptor acceptors[];
};

struct connection {
	struct acceptor *keeper; /* of the worker it was given to */
	int fd;
	uint32_t generation;
};

static size_t server_bytes(unsigned count)
{
	return sizeof(struct wf_server) + count * sizeof(struct acceptor);
}

static void server_retain(struct wf_server *server)
{
	(void)wf_u32_fetch_add(&server->references, 1);
}

static void server_release(struct wf_server *server)
{
	/*
	 * V1: acquire and release (the RMW), with itself: whoever frees it comes after all others.
	 */
	if (wf_u32_fetch_add(&server->references, (uint32_t)-1) == 1)
		wf_free(server->rt, server, server_bytes(server->count));
}

/* --- Places under connections_max --- */

static bool place_take(struct wf_server *server)
{
	bool free;

	if (server->opts.connections_max == 0)
		return true;
	wf_spinlock_lock(&server->lock);
	free = server->connections < server->opts.connections_max;
	server->connections += free;
	wf_spinlock_unlock(&server->lock);
	return free;
}

/* Under the lock: an acceptor that waits for a place is taken out. */
static bool place_waiter(struct wf_server *server, struct wf_wait *wait_out)
{
	for (unsigned i = 0; i < server->count; i++) {
		struct acceptor *acceptor = &server->acceptors[i];

		if (!acceptor->waits)
			continue;
		acceptor->waits = false;
		*wait_out = acceptor->wait;
		return true;
	}
	return false;
}

static void place_give(struct wf_server *server)
{
	struct wf_wait wait;
	bool found;

	if (server->opts.connections_max == 0)
		return;
	wf_spinlock_lock(&server->lock);
	server->connections--;
	wf_spinlock_unlock(&server->lock);
	do {
		wf_spinlock_lock(&server->lock);
		found = place_waiter(server, &wait);
		wf_spinlock_unlock(&server->lock);
	} while (found && !wf_wait_claim(server->rt, wait.pid, wait.number));
}

/* Parks until there may be a place. 0 or -ECANCELED. */
static int place_wait(struct acceptor *acceptor)
{
	struct wf_server *server = acceptor->server;
	struct wf_wait wait;
	bool full;
	int r;

	wf_wait_begin(&wait);
	wf_spinlock_lock(&server->lock);
	full = server->connections >= server->opts.connections_max;
	acceptor->wait = wait;
	acceptor->waits = full;
	wf_spinlock_unlock(&server->lock);
	if (!full) {
		wf_wait_end(&wait);
		return wf_wait_check();
	}
	r = wf_wait_park(&wait, WEFT_FOREVER);
	if (r < 0) {
		wf_spinlock_lock(&server->lock);
		acceptor->waits = false;
		wf_spinlock_unlock(&server->lock);
	}
	return r;
}

/* --- Connections --- */

static int connection_run(void *arg)
{
	const struct connection *connection = arg;
	const struct wf_server *server = connection->keeper->server;

	return server->handler(connection->fd, server->arg);
}

/* The end of a connection, whether or not its process ever ran. */
static void connection_end(void *arg)
{
	struct connection *connection = arg;
	struct wf_server *server = connection->keeper->server;

	(void)wf_u32_fetch_add(&connection->keeper->open, (uint32_t)-1);
	(void)wf_fd_close(connection->fd, connection->generation);
	place_give(server);
	wf_free(server->rt, connection, sizeof(*connection));
	server_release(server);
}

/*
 * Whose worker gets a steered connection: the acceptor's own, unless that has many more open than
 * the one with the fewest: by 1/8, and by a full accept_budget, which has had no chance to end yet.
 * Relaxed loads: a guess that is off by a few does no harm.
 */
static struct acceptor *choose_keeper(struct acceptor *acceptor)
{
	struct wf_server *server = acceptor->server;
	uint32_t own = wf_u32_load_relaxed(&acceptor->open), fewest = own;
	struct acceptor *least = acceptor;

	for (unsigned i = 0; i < server->count; i++) {
		uint32_t open = wf_u32_load_relaxed(&server->acceptors[i].open);

		if (open < fewest) {
			fewest = open;
			least = &server->acceptors[i];
		}
	}
	if (own - fewest < server->opts.accept_budget + (fewest >> IMBALANCE_SHIFT))
		return acceptor;
	return least;
}

/*
 * Gives a connection to a process of its own. It has a place already. On failure everything is
 * undone, the descriptor closed.
 */
static int connection_start(struct acceptor *acceptor, int fd, uint32_t generation)
{
	struct wf_server *server = acceptor->server;
	struct acceptor *keeper = server->steered ? choose_keeper(acceptor) : acceptor;
	struct weft_spawn_opts opts = {
		.size = sizeof(opts),
		.stack_size = server->opts.stack_size,
		.flags = WEFT_DETACHED,
		.worker = server->steered ? WEFT_WORKER(keeper->worker) : 0,
		.arg_dtor = connection_end,
	};
	struct connection *connection =
		wf_alloc(server->rt, _Alignof(struct connection), sizeof(*connection));
	int r;

	if (!connection) {
		(void)wf_fd_close(fd, generation);
		place_give(server);
		return -ENOMEM;
	}
	*connection = (struct connection){ keeper, fd, generation };
	(void)wf_u32_fetch_add(&keeper->open, 1);
	server_retain(server);
	r = weft_spawn_with(connection_run, connection, &opts, NULL);
	if (r < 0)
		connection_end(connection);
	/* -EAGAIN is "none is queued" here. */
	return r == -EAGAIN ? -EUSERS : r;
}

/* --- Accepting --- */

enum {
	ACCEPT_FULL = 1, /* connections_max are open */
};

/* At most one connection. 0; ACCEPT_FULL; -EAGAIN: none is queued; -EUSERS: no process; others. */
static int accept_next(struct acceptor *acceptor)
{
	struct wf_server *server = acceptor->server;
	bool sheds = server->opts.policy == WEFT_SERVE_SHED;
	bool place = place_take(server);
	uint32_t generation;
	int fd;

	if (!place && !sheds)
		return ACCEPT_FULL;
	fd = wf_tcp_accept_now(acceptor->listener.fd, &generation);
	if (fd < 0) {
		if (place)
			place_give(server);
		return fd;
	}
	acceptor->backoff_ns = 0;
	if (server->opts.flags & WEFT_SERVE_INLINE) {
		(void)server->handler(fd, server->arg);
		return 0;
	}
	if (place)
		return connection_start(acceptor, fd, generation);
	(void)wf_fd_close(fd, generation);
	return 0;
}

/* Connections in a row. 0: the budget is used up; else what stopped it. */
static int accept_batch(struct acceptor *acceptor, unsigned budget)
{
	int r = 0;

	while (budget-- > 0 && r == 0)
		r = accept_next(acceptor);
	return r;
}

/*
 * True for the end of the acceptor, or of its listener (somebody has closed it, or made something
 * else of it). All else is of one connection or of the moment: a shortage, a firewall's refusal,
 * whatever the protocol reports. No client must be able to end a server by it.
 */
static bool is_final(int error)
{
	return error == -ECANCELED || error == -ESHUTDOWN || error == -EBADF || error == -EINVAL ||
		error == -ENOTSOCK || error == -EOPNOTSUPP;
}

static void complain(struct weft_rt *rt, int error)
{
	struct rlimit limit = { 0, 0 };

	switch (error) {
	case -EMFILE:
		(void)wf_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
		wf_log(rt, WEFT_LOG_ERROR,
			"accept: all %llu file descriptors are in use, connections wait: raise the"
			" limit"
			" (ulimit -n, LimitNOFILE=, WEFT_RT_RAISE_FD_LIMIT) or set connections_max",
			(unsigned long long)limit.rlim_cur);
		break;
	case -ENFILE:
		wf_log(rt, WEFT_LOG_ERROR,
			"accept: the system's table of open files is full, connections wait: raise"
			" fs.file-max");
		break;
	case -ENOSPC:
		wf_log(rt, WEFT_LOG_ERROR,
			"accept: the user's watches of epoll are used up, connections wait: raise"
			" fs.epoll.max_user_watches");
		break;
	case -EUSERS:
		wf_log(rt, WEFT_LOG_ERROR,
			"accept: all processes_max processes are alive, a connection was closed:"
			" raise that limit or set connections_max below it");
		break;
	case -ENOMEM:
	case -ENOBUFS:
		wf_log(rt, WEFT_LOG_ERROR,
			"accept: no memory for a connection (%s): lower stack_size or set"
			" connections_max",
			weft_strerror(error));
		break;
	default:
		wf_log(rt, WEFT_LOG_ERROR, "accept: errno %d (%s), connections wait: trying again",
			-error, weft_strerror(error));
	}
}

/* One line a minute over all workers. */
static void complain_rarely(struct wf_server *server, int error)
{
	uint64_t now = (uint64_t)weft_now();
	uint64_t last = wf_u64_load_relaxed(&server->complained);

	if (last != 0 && now - last < (uint64_t)WEFT_SEC(COMPLAINT_INTERVAL_S))
		return;
	if (wf_u64_cas(&server->complained, &last, now))
		complain(server->rt, error);
}

static int back_off(struct acceptor *acceptor, int error)
{
	weft_time delay_ns = acceptor->backoff_ns ? acceptor->backoff_ns : BACKOFF_MIN_NS;

	complain_rarely(acceptor->server, error);
	acceptor->backoff_ns = delay_ns * 2 < BACKOFF_MAX_NS ? delay_ns * 2 : BACKOFF_MAX_NS;
	return weft_sleep_until(weft_after(delay_ns));
}

/* Accepts until it cannot go on: -ECANCELED, or an error that does not pass. */
static int accept_loop(struct acceptor *acceptor)
{
	int r = 0;

	while (r == 0) {
		r = accept_batch(acceptor, acceptor->server->opts.accept_budget);
		if (r == 0)
			r = weft_yield();
		else if (r == ACCEPT_FULL)
			r = place_wait(acceptor);
		else if (r == -EAGAIN)
			r = wf_tcp_accept_wait(acceptor->listener.fd);
		if (r < 0 && !is_final(r))
			r = back_off(acceptor, r);
	}
	return r;
}

/*
 * What was queued when the end came is served; cancelled, so nothing here may wait. No more than
 * that: clients that connect faster than we accept would keep the listener open until the grace is
 * over, and with it every connection.
 */
static void accept_rest(struct acceptor *acceptor)
{
	unsigned budget = acceptor->server->opts.accept_budget;
	int queued = wf_socket_queued(acceptor->listener.fd);
	unsigned left = queued < 0 ? DRAIN_MAX : (unsigned)queued;

	while (left > 0) {
		unsigned count = left < budget ? left : budget;

		if (accept_batch(acceptor, count) != 0)
			break;
		left -= count;
		(void)weft_yield();
	}
}

static void cancel_acceptors(const struct wf_server *server)
{
	for (unsigned i = 0; i < server->count; i++)
		if (!weft_pid_is_none(server->acceptors[i].pid))
			(void)weft_cancel(server->acceptors[i].pid);
}

static int acceptor_run(void *arg)
{
	struct acceptor *acceptor = arg;
	struct wf_server *server = acceptor->server;
	int r = accept_loop(acceptor);

	if (r == -ECANCELED || r == -ESHUTDOWN) {
		accept_rest(acceptor);
		return 0;
	}
	wf_log(server->rt, WEFT_LOG_ERROR, "accept: %s", weft_strerror(r));
	wf_spinlock_lock(&server->lock);
	if (server->error == 0)
		server->error = r;
	wf_spinlock_unlock(&server->lock);
	return r;
}

/*
 * The end of an acceptor, whether or not it ever ran: the last one, or a failed one, tells the
 * caller.
 */
static void acceptor_end(void *arg)
{
	struct acceptor *acceptor = arg;
	struct wf_server *server = acceptor->server;
	struct wf_wait caller;
	bool tell;

	wf_listener_close(&acceptor->listener);
	wf_spinlock_lock(&server->lock);
	server->acceptors_left--;
	tell = server->caller_waits && (server->acceptors_left == 0 || server->error != 0);
	if (tell)
		server->caller_waits = false;
	caller = server->caller;
	wf_spinlock_unlock(&server->lock);
	if (tell)
		(void)wf_wait_claim(server->rt, caller.pid, caller.number);
	server_release(server);
}

/* --- The caller --- */

/*
 * Waits until every acceptor has ended, or until one has failed (then only if not `shielded`).
 * 0; -ECANCELED unless shielded.
 */
static int wait_acceptors(struct wf_server *server, bool shielded)
{
	struct wf_wait wait;
	bool over;
	int r;

	wf_wait_begin(&wait);
	wf_spinlock_lock(&server->lock);
	over = server->acceptors_left == 0 || (server->error != 0 && !shielded);
	server->caller = wait;
	server->caller_waits = !over;
	wf_spinlock_unlock(&server->lock);
	if (over) {
		wf_wait_end(&wait);
		return 0;
	}
	r = shielded ? wf_wait_park_shielded(&wait, WEFT_FOREVER)
		     : wf_wait_park(&wait, WEFT_FOREVER);
	wf_spinlock_lock(&server->lock);
	server->caller_waits = false;
	wf_spinlock_unlock(&server->lock);
	return r;
}

static bool acceptors_left(struct wf_server *server)
{
	bool left;

	wf_spinlock_lock(&server->lock);
	left = server->acceptors_left > 0;
	wf_spinlock_unlock(&server->lock);
	return left;
}

static void end_acceptors(struct wf_server *server)
{
	cancel_acceptors(server);
	while (acceptors_left(server))
		(void)wait_acceptors(server, true);
}

/* True unless the runtime drains already. */
static bool servers_add(struct wf_servers *servers, struct wf_server *server)
{
	bool added;

	wf_spinlock_lock(&servers->lock);
	added = !servers->draining;
	server->drained = !added;
	server->prev = NULL;
	server->next = servers->first;
	if (server->next)
		server->next->prev = server;
	servers->first = server;
	wf_spinlock_unlock(&servers->lock);
	return added;
}

/* True if a stop has ended it. */
static bool servers_remove(struct wf_servers *servers, struct wf_server *server)
{
	bool drained;

	wf_spinlock_lock(&servers->lock);
	drained = server->drained;
	if (server->prev)
		server->prev->next = server->next;
	else
		servers->first = server->next;
	if (server->next)
		server->next->prev = server->prev;
	wf_spinlock_unlock(&servers->lock);
	return drained;
}

/* One that has not been told yet, retained. */
static struct wf_server *servers_next(struct wf_servers *servers)
{
	struct wf_server *server;

	wf_spinlock_lock(&servers->lock);
	servers->draining = true;
	server = servers->first;
	while (server && server->drained)
		server = server->next;
	if (server) {
		server->drained = true;
		server_retain(server);
	}
	wf_spinlock_unlock(&servers->lock);
	return server;
}

void wf_servers_drain(struct wf_servers *servers)
{
	struct wf_server *server;

	while ((server = servers_next(servers))) {
		cancel_acceptors(server);
		server_release(server);
	}
}

/* S3 */
static int acceptor_start(struct wf_server *server, unsigned i)
{
	struct acceptor *acceptor = &server->acceptors[i];
	struct weft_spawn_opts opts = {
		.size = sizeof(opts),
		.name = "acceptor",
		/* Without a stack it would end unseen, and its listener with it: an error now. */
		.flags = WEFT_DETACHED | WEFT_STACK_NOW | WEFT_SUSPENDED,
		.worker = WEFT_WORKER(acceptor->worker),
		.arg_dtor = acceptor_end,
	};
	int r;

	wf_spinlock_lock(&server->lock);
	server->acceptors_left++;
	wf_spinlock_unlock(&server->lock);
	server_retain(server);
	r = weft_spawn_with(acceptor_run, acceptor, &opts, &acceptor->pid);
	if (r < 0) {
		acceptor->pid.raw = 0;
		acceptor_end(acceptor);
	}
	return r;
}

/* S4 */
static void acceptors_wake(const struct wf_server *server)
{
	for (unsigned i = 0; i < server->count; i++)
		(void)weft_wake(server->acceptors[i].pid);
}

/* Those from `first` on, which have no acceptor. */
static void listeners_close(const struct wf_server *server, unsigned first)
{
	for (unsigned i = first; i < server->count; i++)
		wf_listener_close(&server->acceptors[i].listener);
}

/* Runs the server until it ends. Every listener is open; each is closed when this returns. */
static int server_run(struct wf_server *server, const char *address)
{
	struct wf_io *io = wf_rt_io(server->rt);
	unsigned started = 0;
	int r = 0;

	while (started < server->count && r == 0)
		r = acceptor_start(server, started++);
	listeners_close(server, started);
	if (r == 0) {
		if (server->opts.on_listen)
			server->opts.on_listen(address, server->arg);
		acceptors_wake(server);
	}
	if (!servers_add(&io->servers, server))
		cancel_acceptors(server);
	if (r == 0)
		r = wait_acceptors(server, false);
	end_acceptors(server);
	/* A stop without grace cancels the caller as well: that is still a stop. */
	if (servers_remove(&io->servers, server) && r == -ECANCELED)
		r = 0;
	return server->error ? server->error : r;
}

/* --- Beginning --- */

/* S1. */
static int server_listen(struct wf_server *server, const struct wf_addrs *addrs)
{
	struct wf_listener listeners[WF_WORKERS_MAX];
	int r = wf_listeners_open(server->rt, addrs, server->opts.backlog, server->count, listeners,
		&server->steered);

	for (unsigned i = 0; r == 0 && i < server->count; i++) {
		server->acceptors[i].server = server;
		server->acceptors[i].listener = listeners[i];
		server->acceptors[i].worker = i;
	}
	return r;
}

/*
 * S2. What on_listen will be told: who waits for it must not wait for ever because it is not known.
 */
static int bound_address(const struct wf_server *server, char text_out[WEFT_ADDRESS_MAX])
{
	return server->opts.on_listen
		? weft_local_address(server->acceptors[0].listener.fd, text_out, WEFT_ADDRESS_MAX)
		: 0;
}

static struct wf_server *server_make(
	weft_serve_fn handler, void *arg, const struct weft_serve_opts *opts)
{
	struct weft_rt *rt = wf_worker_rt(wf_worker_self());
	unsigned count = weft_rt_workers(rt);
	struct wf_server *server = wf_alloc(rt, _Alignof(struct wf_server), server_bytes(count));

	if (!server)
		return NULL;
	memset(server, 0, server_bytes(count));
	server->rt = rt;
	server->handler = handler;
	server->arg = arg;
	server->opts = *opts;
	if (server->opts.accept_budget == 0)
		server->opts.accept_budget = ACCEPT_BUDGET_DEFAULT;
	server->count = count;
	wf_u32_store_relaxed(&server->references, 1);
	return server;
}

static int opts_read(const struct weft_serve_opts *opts, struct weft_serve_opts *out)
{
	size_t stack_size;
	int r = 0;

	*out = (struct weft_serve_opts){ .size = sizeof(*out) };
	if (opts)
		r = wf_opts_read(opts, opts->size, out, sizeof(*out));
	stack_size = out->stack_size;
	if (r < 0 || out->backlog < 0 || (unsigned)out->policy > WEFT_SERVE_SHED)
		return -EINVAL;
	if ((out->flags & ~WEFT_SERVE_INLINE) || (out->flags && out->connections_max))
		return -EINVAL;
	/* What weft_spawn_with() takes: refused here, not at the first connection. */
	return stack_size && (stack_size < STACK_BYTES_MIN || stack_size > STACK_BYTES_MAX)
		       ? -EINVAL
		       : 0;
}

int weft_serve_with(const char *address, weft_serve_fn handler, void *arg,
	const struct weft_serve_opts *opts)
{
	char text[WEFT_ADDRESS_MAX];
	struct weft_serve_opts ours;
	struct wf_server *server;
	struct wf_addrs addrs;
	int r = wf_wait_check();

	if (r < 0)
		return r;
	if (!handler || opts_read(opts, &ours) < 0)
		return -EINVAL;
	if (wf_rt_is_draining(wf_worker_rt(wf_worker_self())))
		return 0;
	r = wf_resolve(address, WF_RESOLVE_LISTEN, &addrs, WEFT_FOREVER);
	if (r < 0)
		return r;
	server = server_make(handler, arg, &ours);
	if (!server)
		return -ENOMEM;
	r = server_listen(server, &addrs);
	if (r == 0) {
		r = bound_address(server, text);
		if (r == 0)
			r = server_run(server, text);
		else
			listeners_close(server, 0);
	}
	server_release(server);
	return r == -ESHUTDOWN ? 0 : r; /* a stop that came while it began */
}

int weft_serve(const char *address, weft_serve_fn handler, void *arg)
{
	return weft_serve_with(address, handler, arg, NULL);
}
