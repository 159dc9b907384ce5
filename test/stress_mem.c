/*
 * Goal: however connecting, moving, shutting and closing fall together in the in-memory network, on
 * several workers, runtimes and foreign threads, with every fault drawn: bytes of a connection stay
 * in order and whole up to the point where it broke, every call ends, and no socket is left.
 * Method: servers and clients that send numbered bytes and check what they get; and duels that
 * close, time out and cancel under each other.
 */
#include "test/net.h"

#include "io/mem.h"
#include "sync/atomic.h"

enum {
	RUNTIMES = 2,
	WORKERS = 2,
	CLIENTS = 4,                              /* processes of a runtime */
	CONNECTIONS = 150 / HARNESS_SLOWDOWN + 5, /* of a client, one after the other */
	BYTES_MAX = 20000,
};

/* --- Bytes that say which they are --- */

static char byte_at(size_t place)
{
	return (char)(place * 167 >> 5);
}

static bool is_broken(ssize_t r)
{
	return r == -ECONNRESET || r == -EPIPE || r == -ECANCELED || r == -EBADF || r == -ETIME ||
	       r == -ENOTCONN;
}

/* Sends `size` of them in pieces. Returns how many, fewer if the connection broke. */
static size_t send_numbered(int fd, size_t size, uint64_t *seed)
{
	char bytes[3000];
	size_t done = 0;

	while (done < size) {
		size_t piece = 1 + harness_random_below(seed, sizeof(bytes));
		ssize_t n;

		if (piece > size - done)
			piece = size - done;
		for (size_t i = 0; i < piece; i++)
			bytes[i] = byte_at(done + i);
		n = weft_write(fd, bytes, piece, NET_SOON);
		if (n < 0) {
			cr_assert(is_broken(n), "write: %s", strerror((int)-n));
			break;
		}
		done += (size_t)n;
	}
	return done;
}

/* Reads until the end. Returns how many bytes there were; *whole_out: it was an end, no error. */
static size_t receive_numbered(int fd, bool *whole_out, uint64_t *seed)
{
	char bytes[3000];
	size_t done = 0;
	ssize_t n;

	while ((n = weft_read(fd, bytes, 1 + harness_random_below(seed, sizeof(bytes)), NET_SOON)) >
		0) {
		for (ssize_t i = 0; i < n; i++)
			cr_assert_eq(
				bytes[i], byte_at(done + (size_t)i), "byte %zu", done + (size_t)i);
		done += (size_t)n;
	}
	cr_assert(n == 0 || is_broken(n), "read: %s", strerror((int)-n));
	*whole_out = n == 0;
	return done;
}

/* --- Servers and clients --- */

struct field {
	char address[WEFT_ADDRESS_MAX];
	wf_atomic_u32 clients_left;
	wf_atomic_u64 whole, broken, refused;
	bool has_faults;
};

struct echo {
	int fd;
	uint64_t seed;
};

/* Sends back what came, after it has come. */
static int serve_one(int fd, void *arg)
{
	uint64_t seed = (uint64_t)fd;
	bool whole;
	size_t size;

	(void)arg;
	size = receive_numbered(fd, &whole, &seed);
	if (whole && send_numbered(fd, size, &seed) == size)
		(void)weft_shutdown(fd, SHUT_WR);
	return 0;
}

static int serve(void *arg)
{
	struct weft_serve_opts opts = {.size = sizeof(opts), .backlog = 3};
	struct field *field = arg;

	return weft_serve_with(field->address, serve_one, NULL, &opts);
}

struct client {
	struct field *field;
	uint64_t seed;
};

/* One connection. True: all of it came back. */
static bool ask(struct field *field, int fd, uint64_t *seed)
{
	size_t size = harness_random_below(seed, BYTES_MAX), sent, got;
	bool whole = false;

	sent = send_numbered(fd, size, seed);
	if (harness_random_below(seed, 8) == 0)
		return false; /* closes on what comes */
	if (sent < size || weft_shutdown(fd, SHUT_WR) < 0)
		return false;
	got = receive_numbered(fd, &whole, seed);
	cr_assert_leq(got, size);
	cr_assert(!whole || got == size || field->has_faults, "%zu of %zu", got, size);
	return whole && got == size;
}

static int connect_often(void *arg)
{
	struct client *client = arg;
	struct field *field = client->field;

	for (int i = 0; i < CONNECTIONS; i++) {
		bool hurries = harness_random_below(&client->seed, 4) == 0;
		int fd = weft_connect(field->address,
			hurries ? weft_after(WEFT_US(harness_random_below(&client->seed, 300)))
				: NET_SOON);

		if (fd < 0) {
			cr_assert(fd == -ECONNREFUSED || fd == -ETIME, "%s", strerror(-fd));
			(void)wf_u64_fetch_add(&field->refused, 1);
			continue;
		}
		if (ask(field, fd, &client->seed))
			(void)wf_u64_fetch_add(&field->whole, 1);
		else
			(void)wf_u64_fetch_add(&field->broken, 1);
		cr_assert_eq(weft_close(fd), 0);
	}
	return 0;
}

static int clients(void *arg)
{
	struct client *first = arg, all[CLIENTS];
	weft_pid pids[CLIENTS];

	for (unsigned i = 0; i < CLIENTS; i++) {
		all[i] = (struct client){first->field, first->seed + i};
		pids[i] = net_spawn_on(i % WORKERS, connect_often, &all[i]);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		cr_assert_eq(net_join(pids[i]), 0);
	return 0;
}

static void client_side(unsigned index, void *arg)
{
	struct client first = {arg, harness_seed() + 1000 * (index + 1)};

	(void)net_run(WORKERS, clients, &first);
}

/* True once somebody listens. */
static int is_up(void *arg)
{
	const struct field *field = arg;
	int fd = weft_connect(field->address, NET_SOON);

	return fd < 0 ? fd : weft_close(fd);
}

static void storm(struct field *field, struct weft_mem_opts opts, const char *driver)
{
	struct weft_rt_opts rt_opts = {.size = sizeof(rt_opts),
		.workers = WORKERS,
		.pin = WEFT_PIN_OFF,
		.idle = WEFT_IDLE_PARK,
		.driver = driver};
	int result;
	weft_rt *rt;
	weft_pid pid;

	opts.size = sizeof(opts);
	opts.seed = harness_seed();
	cr_assert_eq(weft_mem_setup(&opts), 0);
	*field = (struct field){
		.address = "mem:storm", .has_faults = opts.reset_one_in || opts.refuse_one_in};
	cr_assert_eq(weft_rt_create(&rt_opts, &rt), 0);
	cr_assert_eq(weft_rt_spawn(rt, serve, field, NULL, &pid), 0);
	while (net_run(1, is_up, field) < 0)
		;
	harness_threads(RUNTIMES, client_side, field);
	cr_assert_eq(weft_rt_stop(rt, WEFT_SEC(NET_PATIENCE_S), NET_SOON), 0);
	cr_assert_eq(weft_join(pid, &result, NET_SOON), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(weft_rt_destroy(rt, NET_SOON), 0);
	cr_assert_eq(weft_mem_setup(NULL), 0, "a socket is left");
	cr_assert_gt(wf_u64_load_relaxed(&field->whole), 0u);
	cr_assert_gt(wf_u64_load_relaxed(&field->broken), 0u);
}

Test(stress_mem, servers_and_clients, .timeout = 120)
{
	struct field field;

	storm(&field, (struct weft_mem_opts){.size = 0}, "epoll");
	storm(&field, (struct weft_mem_opts){.buffer_bytes = 700}, "mem");
}

Test(stress_mem, servers_and_clients_far_apart, .timeout = 120)
{
	struct field field;

	storm(&field, (struct weft_mem_opts){.latency_max_ns = WEFT_US(50)}, "mem");
}

Test(stress_mem, servers_and_clients_with_every_fault, .timeout = 120)
{
	struct field field;

	storm(&field,
		(struct weft_mem_opts){.buffer_bytes = 2000,
			.latency_max_ns = WEFT_US(20),
			.short_one_in = 3,
			.reset_one_in = 60,
			.refuse_one_in = 10},
		"epoll");
	cr_assert_gt(wf_u64_load_relaxed(&field.refused), 0u);
}

/* --- Handles that everybody uses and closes --- */

enum {
	SLOTS = 6,
	USERS = 3, /* processes per worker */
	ROUNDS = 12000 / HARNESS_SLOWDOWN,
	THREAD_ROUNDS = 30000 / HARNESS_SLOWDOWN,
};

struct heap {
	wf_atomic_u32 slots[SLOTS]; /* a handle; 0: empty */
	wf_atomic_u64 opened, closed, moved_bytes;
};

static void end(struct heap *heap, int fd)
{
	cr_assert_eq(weft_close(fd), 0);
	(void)wf_u64_fetch_add(&heap->closed, 1);
}

static void place(struct heap *heap, int fd, uint64_t *seed)
{
	uint32_t empty = 0;

	(void)wf_u64_fetch_add(&heap->opened, 1);
	if (!wf_u32_cas(&heap->slots[harness_random_below(seed, SLOTS)], &empty, (uint32_t)fd))
		end(heap, fd);
}

static void close_one(struct heap *heap, uint64_t *seed)
{
	uint32_t fd = wf_u32_exchange(&heap->slots[harness_random_below(seed, SLOTS)], 0);

	if (fd)
		end(heap, (int)fd);
}

/* Who listens and connects under the same names as others do. */
static void open_some(struct heap *heap, uint64_t *seed)
{
	char address[WEFT_ADDRESS_MAX];
	int from, fd;

	snprintf(address, sizeof(address), "mem:heap%u", (unsigned)harness_random_below(seed, 2));
	from = weft_listen(address, 1 + (int)harness_random_below(seed, 2));
	cr_assert(from >= 0 || from == -EADDRINUSE, "%s", strerror(-from));
	for (int i = 0; i < 3; i++) {
		fd = weft_connect(address, weft_after(WEFT_US(harness_random_below(seed, 100))));
		cr_assert(fd >= 0 || fd == -ETIME || fd == -ECONNREFUSED, "%s", strerror(-fd));
		if (fd >= 0)
			place(heap, fd, seed);
	}
	if (from < 0)
		return;
	while ((fd = weft_accept(from, WEFT_POLL)) >= 0)
		place(heap, fd, seed);
	cr_assert_eq(fd, -EAGAIN);
	cr_assert_eq(weft_close(from), 0);
}

static weft_time any_deadline(uint64_t *seed)
{
	uint64_t pick = harness_random_below(seed, 4);

	return pick == 0   ? WEFT_POLL
	       : pick == 1 ? 0
			   : weft_after(WEFT_US(harness_random_below(seed, 200)));
}

static void use_one(struct heap *heap, uint64_t *seed)
{
	static const char much[100000];
	int fd = (int)wf_u32_load_relaxed(&heap->slots[harness_random_below(seed, SLOTS)]);
	char bytes[3000] = {0}, text[WEFT_ADDRESS_MAX];
	ssize_t r = 0;

	if (fd == 0)
		return;
	switch (harness_random_below(seed, 10)) {
	case 0:
	case 1:
	case 2:
		r = weft_read(fd, bytes, sizeof(bytes), any_deadline(seed));
		break;
	case 3:
	case 4:
	case 5:
		r = weft_write(fd, bytes, 1 + harness_random_below(seed, sizeof(bytes)),
			any_deadline(seed));
		break;
	case 6:
		r = weft_poll_fd(fd, WEFT_READABLE | WEFT_WRITABLE, any_deadline(seed));
		break;
	case 7:
		r = weft_write_all(fd, much, sizeof(much), any_deadline(seed));
		break;
	case 8:
		r = weft_local_address(fd, text, sizeof(text));
		break;
	default:
		r = weft_shutdown(fd, (int)harness_random_below(seed, 3));
	}
	if (r > 0)
		(void)wf_u64_fetch_add(&heap->moved_bytes, (uint64_t)r);
	cr_assert(r >= 0 || is_broken(r) || r == -EAGAIN || r == -EBUSY, "%s", strerror((int)-r));
}

struct user {
	struct heap *heap;
	uint64_t seed;
};

static int use(void *arg)
{
	struct user *user = arg;
	uint64_t seed = user->seed;

	for (int i = 0; i < ROUNDS; i++) {
		switch (harness_random_below(&seed, 16)) {
		case 0:
			close_one(user->heap, &seed);
			break;
		case 1:
			open_some(user->heap, &seed);
			break;
		case 2:
			cr_assert_eq(weft_yield(), 0);
			break;
		default:
			use_one(user->heap, &seed);
			break;
		}
	}
	return 0;
}

static int use_on_every_worker(void *arg)
{
	struct user *first = arg, users[WORKERS * USERS];
	weft_pid pids[WORKERS * USERS];

	for (unsigned i = 0; i < WORKERS * USERS; i++) {
		users[i] = (struct user){first->heap, first->seed + i};
		pids[i] = net_spawn_on(i % WORKERS, use, &users[i]);
	}
	for (unsigned i = 0; i < WORKERS * USERS; i++)
		cr_assert_eq(net_join(pids[i]), 0);
	return 0;
}

/* A runtime each, and a thread of none. */
static void heap_side(unsigned index, void *arg)
{
	struct user first = {arg, harness_seed() + 1000 * index};

	if (index < RUNTIMES) {
		(void)net_run(WORKERS, use_on_every_worker, &first);
		return;
	}
	for (int i = 0; i < THREAD_ROUNDS; i++) {
		uint32_t fd = wf_u32_load_relaxed(
			&first.heap->slots[harness_random_below(&first.seed, SLOTS)]);

		if (harness_random_below(&first.seed, 3) == 0)
			close_one(arg, &first.seed);
		else if (fd)
			(void)weft_shutdown((int)fd, (int)harness_random_below(&first.seed, 3));
	}
}

Test(stress_mem, closing_and_reuse_from_everywhere, .timeout = 120)
{
	static const struct weft_mem_opts kinds[] = {
		{.size = sizeof(kinds[0])},
		{.size = sizeof(kinds[0]),
			.buffer_bytes = 1000,
			.latency_max_ns = WEFT_US(30),
			.short_one_in = 4},
	};

	for (size_t k = 0; k < WF_ARRAY_COUNT(kinds); k++) {
		struct heap heap = {0};

		cr_assert_eq(weft_mem_setup(&kinds[k]), 0);
		harness_threads(RUNTIMES + 1, heap_side, &heap);
		for (int i = 0; i < SLOTS; i++) {
			uint32_t fd = wf_u32_exchange(&heap.slots[i], 0);

			if (fd)
				end(&heap, (int)fd);
		}
		cr_assert_eq(wf_u64_load_relaxed(&heap.opened), wf_u64_load_relaxed(&heap.closed));
		cr_assert_gt(wf_u64_load_relaxed(&heap.moved_bytes), 0u);
		cr_assert_eq(weft_mem_setup(NULL), 0, "a socket is left; seed %#llx",
			(unsigned long long)harness_seed());
	}
}
