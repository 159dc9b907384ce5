/*
 * mem_name.c: names of the in-memory network, and how connections begin: N1 to N3 of mem.h.
 *
 * A name is an address as text: "mem:NAME", or "tcp:127.0.0.1:PORT" where a runtime's own driver is
 * "mem" (that network has one host, which every address is). One lock for all of it: connecting and
 * accepting are short.
 */
#include <stdio.h>
#include <string.h>

#include "io/mem.h"

enum {
	BUCKETS = 64,
	PORT_FIRST = 49152, /* of those the network chooses */
	PORT_LAST = 65535,
	NAMES_TRIED_MAX = 1 << 16,
};

struct wf_mem_name {
	struct wf_mem_name *next; /* in its bucket */
	struct wf_mem_link waiting; /* sockets that found no room; a ring */
	struct wf_mem_link told;  /* of these who were told to try again, and have not yet */
	unsigned backlog;
	unsigned turn;            /* which listener is next */
	unsigned count, left;     /* listeners; of these open */
	char address[WF_MEM_ADDRESS_MAX];
	struct wf_mem_socket *listeners[]; /* NULL: closed */
};

static struct {
	struct wf_spinlock lock;
	struct wf_mem_name *buckets[BUCKETS];
	unsigned chosen; /* names given by the network so far */
} names;

/* --- names. Under the lock --- */

static struct wf_mem_name **bucket_of(const char *address)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

	for (; *address; address++)
		hash = (hash ^ (unsigned char)*address) * 0x100000001b3u;
	return &names.buckets[hash % BUCKETS];
}

static struct wf_mem_name *find_name(const char *address)
{
	struct wf_mem_name *name = *bucket_of(address);

	while (name && strcmp(name->address, address) != 0)
		name = name->next;
	return name;
}

static void remove_name(struct wf_mem_name *name)
{
	struct wf_mem_name **place = bucket_of(name->address);

	while (*place != name)
		place = &(*place)->next;
	*place = name->next;
}

/* "mem:" and "tcp:127.0.0.1:0" leave the choice to the network. False: every port is taken. */
static bool choose_address(struct wf_mem_name *name)
{
	bool port = strncmp(name->address, "tcp:", 4) == 0;
	unsigned ports = PORT_LAST - PORT_FIRST + 1;

	if (strcmp(name->address, "mem:") != 0 && strcmp(name->address, "tcp:127.0.0.1:0") != 0)
		return true;
	for (unsigned i = 0; i < NAMES_TRIED_MAX; i++) {
		unsigned n = names.chosen++;

		snprintf(name->address, sizeof(name->address),
			port ? "tcp:127.0.0.1:%u" : "mem:%u", port ? PORT_FIRST + n % ports : n);
		if (!find_name(name->address))
			return true;
	}
	return false;
}

/* --- listening --- */

static size_t name_bytes(unsigned count)
{
	return sizeof(struct wf_mem_name) + count * sizeof(struct wf_mem_socket *);
}

static struct wf_mem_name *make_name(const char *address, int backlog, unsigned count)
{
	struct wf_mem_name *name =
		wf_shared_alloc(_Alignof(struct wf_mem_name), name_bytes(count));

	if (!name)
		return NULL;
	memset(name, 0, name_bytes(count));
	wf_mem_ring_init(&name->waiting);
	wf_mem_ring_init(&name->told);
	name->backlog = backlog > 0 ? (unsigned)backlog : WF_MEM_BACKLOG_DEFAULT;
	name->count = name->left = count;
	memcpy(name->address, address, strlen(address) + 1);
	return name;
}

/* The sockets of a name's listeners: all or none. 0, -EMFILE, -ENOMEM. */
static int make_listeners(struct wf_mem_name *name)
{
	unsigned made = 0;
	int r = 0;

	while (made < name->count && r == 0) {
		struct wf_mem_socket *socket;

		r = wf_mem_make(&socket);
		if (r < 0)
			break;
		socket->role = WF_MEM_LISTENER;
		socket->name = name;
		wf_mem_ring_init(&socket->queue);
		name->listeners[made++] = socket;
	}
	while (r < 0 && made > 0)
		wf_mem_drop(name->listeners[--made], true);
	return r;
}

/* The name becomes known. 0 or -EADDRINUSE. */
static int publish(struct wf_mem_name *name)
{
	int r = -EADDRINUSE;

	wf_spinlock_lock(&names.lock);
	if (choose_address(name) && !find_name(name->address)) {
		struct wf_mem_name **bucket = bucket_of(name->address);

		name->next = *bucket;
		*bucket = name;
		r = 0;
	}
	wf_spinlock_unlock(&names.lock);
	return r;
}

int wf_mem_listen(
	const char *address, int backlog, unsigned count, struct wf_listener *listeners_out)
{
	struct wf_mem_name *name = make_name(address, backlog, count);
	int r;

	if (!name)
		return -ENOMEM;
	r = make_listeners(name);
	if (r == 0) {
		/* Nobody has a handle yet, but who connects finds a place to wait in. */
		for (unsigned i = 0; i < count; i++) {
			listeners_out[i].fd = wf_mem_open(name->listeners[i]);
			listeners_out[i].generation = name->listeners[i]->generation;
		}
		r = publish(name);
		if (r == 0)
			return 0;
		name->left = 0; /* it was never known */
		for (unsigned i = 0; i < count; i++)
			(void)wf_fd_close(listeners_out[i].fd, listeners_out[i].generation);
	}
	wf_shared_free(name, name_bytes(count));
	return r;
}

static bool has_arrived(struct wf_mem_socket *socket, weft_time due)
{
	bool arrived;

	wf_spinlock_lock(&socket->lock);
	arrived = wf_mem_has_arrived(&socket->in, due);
	wf_spinlock_unlock(&socket->lock);
	return arrived;
}

/* --- connecting --- */

int wf_mem_socket(void)
{
	struct wf_mem_socket *socket;
	int r = wf_mem_make(&socket);

	return r < 0 ? r : wf_mem_open(socket);
}

/* Under the lock: whose turn it is among the listeners that have room; NULL: none has. */
static struct wf_mem_socket *listener_with_room(const struct wf_mem_name *name, unsigned *turn_out)
{
	for (unsigned i = 0; i < name->count; i++) {
		unsigned n = (name->turn + i) % name->count;
		struct wf_mem_socket *listener = name->listeners[n];

		if (listener && listener->queued_count < name->backlog) {
			*turn_out = n + 1;
			return listener;
		}
	}
	return NULL;
}

/* Under the lock: waits for room; who was told of some, and was overtaken, as the first. */
static void wait_for_room(struct wf_mem_name *name, struct wf_mem_socket *client, bool first)
{
	client->name = name;
	client->is_told = false;
	wf_mem_link_append(first ? name->waiting.next : &name->waiting, &client->link);
}

/* Under the lock: the first that waits is told; the report is the caller's. NULL: nobody waits. */
static struct wf_mem_socket *tell_next(struct wf_mem_name *name, uint32_t *generation_out)
{
	struct wf_mem_link *link = name->waiting.next;
	struct wf_mem_socket *client;

	if (link == &name->waiting)
		return NULL;
	client = WF_CONTAINER_OF(link, struct wf_mem_socket, link);
	wf_mem_link_remove(link);
	wf_mem_link_append(&name->told, link);
	client->is_told = true;
	*generation_out = client->generation;
	return client;
}

/* Under the lock: waits no more. True: it was told of room. */
static bool end_waiting(struct wf_mem_socket *client)
{
	bool was_told = client->is_told;

	if (!client->link.next)
		return false;
	wf_mem_link_remove(&client->link);
	client->is_told = false;
	return was_told;
}

/* Under the lock: into the queue, behind those that arrive no later. */
static void enqueue(struct wf_mem_socket *listener, struct wf_mem_socket *server)
{
	struct wf_mem_link *before = &listener->queue;

	while (before->prev != &listener->queue &&
		WF_CONTAINER_OF(before->prev, struct wf_mem_socket, link)->queued_due >
			server->queued_due)
		before = before->prev;
	wf_mem_link_append(before, &server->link);
	listener->queued_count++;
}

/*
 * N1, under the lock. 0: connected, to be told at `due`, and *listener_out with it; -EINPROGRESS:
 * it waits for room; -ECONNREFUSED.
 */
static int attach(struct wf_mem_socket *client, struct wf_mem_socket *server, const char *address,
	weft_time due, struct wf_mem_socket **listener_out)
{
	bool was_told = end_waiting(client);
	struct wf_mem_name *name = find_name(address);

	if (!name)
		return -ECONNREFUSED;
	*listener_out = listener_with_room(name, &name->turn);
	if (!*listener_out) {
		wait_for_room(name, client, was_told);
		return -EINPROGRESS;
	}
	wf_mem_join(client, server);
	memcpy(server->address, name->address, sizeof(server->address));
	server->queued_due = client->queued_due = due;
	enqueue(*listener_out, server);
	return 0;
}

/* What an attempt needs, made before the lock is taken. */
struct attempt {
	struct wf_mem_socket *server;
	struct wf_mem_event *at_listener, *at_client;
};

static void attempt_drop(struct attempt *attempt)
{
	if (attempt->server)
		wf_mem_drop(attempt->server, false);
	wf_mem_event_drop(attempt->at_listener);
	wf_mem_event_drop(attempt->at_client);
}

static int attempt_make(struct attempt *attempt)
{
	int r;

	*attempt = (struct attempt){ .server = wf_mem_take() };
	if (!attempt->server)
		return -ENOMEM;
	r = wf_mem_event_make(&attempt->at_listener);
	if (r == 0)
		r = wf_mem_event_make(&attempt->at_client);
	if (r < 0)
		attempt_drop(attempt);
	return r;
}

int wf_mem_connect(int fd, const char *address)
{
	struct wf_mem_socket *client = wf_mem_find(fd), *listener = NULL;
	uint32_t generation = 0;
	struct attempt attempt;
	weft_time due;
	int r;

	if (client->role == WF_MEM_STREAM) /* it was, and is to be told */
		return has_arrived(client, client->queued_due) ? 0 : -EINPROGRESS;
	if (wf_mem_chance(wf_mem_network.opts.refuse_one_in))
		return -ECONNREFUSED;
	r = attempt_make(&attempt);
	if (r < 0)
		return r;
	due = wf_mem_event_draw(attempt.at_listener);
	wf_spinlock_lock(&names.lock);
	r = attach(client, attempt.server, address, due, &listener);
	if (listener)
		generation = listener->generation;
	wf_spinlock_unlock(&names.lock);
	if (r < 0) {
		attempt_drop(&attempt);
		return r;
	}
	if (due == 0) {
		wf_fd_report(&listener->entry, generation, WF_FD_READ);
		/* A try before this one may have cleared it, and nobody else will set it. */
		wf_fd_report(&client->entry, client->generation, WF_FD_WRITE);
		return 0;
	}
	wf_mem_event_post(attempt.at_listener, listener, generation, due);
	wf_mem_event_post(attempt.at_client, client, client->generation, due);
	return -EINPROGRESS;
}

/* --- accepting --- */

/* Under the lock: the first that has arrived. */
static struct wf_mem_socket *first_arrived(struct wf_mem_socket *listener)
{
	struct wf_mem_socket *server;

	if (listener->queue.next == &listener->queue)
		return NULL;
	server = WF_CONTAINER_OF(listener->queue.next, struct wf_mem_socket, link);
	return has_arrived(listener, server->queued_due) ? server : NULL;
}

bool wf_mem_acceptable(struct wf_mem_socket *listener)
{
	bool found;

	wf_spinlock_lock(&names.lock);
	found = first_arrived(listener) != NULL;
	wf_spinlock_unlock(&names.lock);
	return found;
}

/* N2 */
int wf_mem_accept(int fd, uint32_t *generation_out)
{
	struct wf_mem_socket *listener = wf_mem_find(fd), *server, *waiting = NULL;
	uint32_t generation = 0;
	int r = -EAGAIN;

	if (listener->role != WF_MEM_LISTENER)
		return -EINVAL;
	if (wf_mem_chance(wf_mem_network.opts.refuse_one_in))
		return -EMFILE;
	wf_spinlock_lock(&names.lock);
	server = first_arrived(listener);
	if (server && wf_mem_count_open()) {
		wf_mem_link_remove(&server->link);
		listener->queued_count--;
		waiting = tell_next(listener->name, &generation);
		r = 0;
	} else if (server) {
		r = -EMFILE;
	}
	wf_spinlock_unlock(&names.lock);
	if (waiting && !WF_PLANTED(mem_room_is_not_told))
		wf_fd_report(&waiting->entry, generation, WF_FD_WRITE);
	if (r < 0)
		return r;
	if (generation_out)
		*generation_out = server->generation;
	return wf_mem_open(server);
}

/* --- ending --- */

/* Under the lock: true for the last listener of its name, which is unknown from now on. */
static bool withdraw(struct wf_mem_socket *listener)
{
	struct wf_mem_name *name = listener->name;

	if (name->left == 0) /* it was never known */
		return false;
	for (unsigned i = 0; i < name->count; i++)
		if (name->listeners[i] == listener)
			name->listeners[i] = NULL;
	if (--name->left > 0)
		return false;
	remove_name(name);
	return true;
}

/* Nobody will accept what waits in the queue. */
static void refuse_queued(struct wf_mem_socket *listener)
{
	while (listener->queue.next != &listener->queue) {
		struct wf_mem_socket *server =
			WF_CONTAINER_OF(listener->queue.next, struct wf_mem_socket, link);

		wf_mem_link_remove(&server->link);
		wf_mem_abort(server);
		wf_mem_drop(server, false);
	}
}

/* N3. Told again does no harm. */
static void refuse_waiting(struct wf_mem_name *name)
{
	struct wf_mem_socket *client;
	uint32_t generation = 0;

	do {
		wf_spinlock_lock(&names.lock);
		client = tell_next(name, &generation);
		if (client)
			(void)end_waiting(client);
		wf_spinlock_unlock(&names.lock);
		if (client)
			wf_fd_report(&client->entry, generation, WF_FD_WRITE);
	} while (client);
}

static void leave_listener(struct wf_mem_socket *listener)
{
	struct wf_mem_name *name = listener->name;
	bool last;

	wf_spinlock_lock(&names.lock);
	last = withdraw(listener);
	while (last && name->told.next != &name->told)
		(void)end_waiting(WF_CONTAINER_OF(name->told.next, struct wf_mem_socket, link));
	wf_spinlock_unlock(&names.lock);
	/* No connection can reach its queue any more. */
	refuse_queued(listener);
	if (last) {
		refuse_waiting(name);
		wf_shared_free(name, name_bytes(name->count));
	}
}

/* N2: room that it was told of, and leaves, is the next one's. */
static void leave_waiting(struct wf_mem_socket *client)
{
	struct wf_mem_socket *next = NULL;
	uint32_t generation = 0;
	unsigned turn;

	wf_spinlock_lock(&names.lock);
	if (end_waiting(client) && listener_with_room(client->name, &turn))
		next = tell_next(client->name, &generation);
	wf_spinlock_unlock(&names.lock);
	if (next)
		wf_fd_report(&next->entry, generation, WF_FD_WRITE);
}

void wf_mem_leave(struct wf_mem_socket *socket)
{
	if (socket->role == WF_MEM_LISTENER)
		leave_listener(socket);
	else
		leave_waiting(socket);
	wf_spinlock_lock(&socket->lock);
	socket->role = WF_MEM_NONE;
	wf_spinlock_unlock(&socket->lock);
}

/* --- about a socket --- */

int wf_mem_queued(int fd)
{
	struct wf_mem_socket *listener = wf_mem_find(fd);
	int count;

	wf_spinlock_lock(&names.lock);
	count = (int)listener->queued_count;
	wf_spinlock_unlock(&names.lock);
	return count;
}

int wf_mem_local_address(int fd, char *text_out, size_t text_size)
{
	const struct wf_mem_socket *socket = wf_mem_find(fd);
	const char *address = socket->address[0] ? socket->address : "mem:";
	size_t length = strlen(address);

	if (socket->role == WF_MEM_LISTENER)
		address = socket->name->address, length = strlen(address);
	if (length >= text_size)
		return -ENOSPC;
	memcpy(text_out, address, length + 1);
	return 0;
}
