/*
 * Goal: however calls on descriptors, closes and reuse of numbers fall together, on several
 * workers, runtimes and foreign threads, nothing is lost: every close closes once, every call ends,
 * every entry is clean at the end. Method: a handful of slots with descriptors that everybody
 * creates, uses and closes at random. Users do not know whether what they took from a slot is still
 * open, which is a mistake in a program, and here the point: they may meet any use of the number.
 */
#include "test/net.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include "io/fd.h"
#include "sync/atomic.h"

enum {
	SLOTS = 6,
	RUNTIMES = 2,
	WORKERS = 2,
	USERS = 3, /* processes per worker */
	ROUNDS = 20000 / HARNESS_SLOWDOWN,
	THREAD_ROUNDS = 100000 / HARNESS_SLOWDOWN,
};

struct field {
	char address[WEFT_ADDRESS_MAX];
	int from;                   /* a listener, for connections that Weft makes */
	wf_atomic_u32 slots[SLOTS]; /* descriptor + 1; 0: empty */
	wf_atomic_u64 opened, closed, moved_bytes;
	wf_atomic_u32 runtimes;     /* that have come up */
};

static void check_result(ssize_t r)
{
	switch (r) {
	case -EAGAIN:
	case -ETIME:
	case -EBADF:
	case -ECANCELED:
	case -EBUSY:
	case -EPIPE:
	case -ECONNRESET:
	case -ENOTCONN: /* of a socket that is only just being connected */
		return;
	default:
		cr_assert_geq(r, 0, "%s", strerror((int)-r));
	}
}

/* Every descriptor that is given up goes through here, once. */
static void end(struct field *field, int fd)
{
	cr_assert_eq(weft_close(fd), 0);
	(void)wf_u64_fetch_add(&field->closed, 1);
}

static void place(struct field *field, int fd, uint64_t *seed)
{
	uint32_t empty = 0;

	(void)wf_u64_fetch_add(&field->opened, 1);
	if (!wf_u32_cas(&field->slots[harness_random_below(seed, SLOTS)], &empty, (uint32_t)fd + 1))
		end(field, fd);
}

static void close_one(struct field *field, uint64_t *seed)
{
	uint32_t fd = wf_u32_exchange(&field->slots[harness_random_below(seed, SLOTS)], 0);

	if (fd)
		end(field, (int)fd - 1);
}

/*
 * Adopted by whoever uses them first. Not by libc's call, which ThreadSanitizer knows: it takes the
 * mistakes of this test's users for races, which they are, and are meant to be.
 */
static void open_pair(struct field *field, uint64_t *seed)
{
	int pair[2];

	cr_assert_eq(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	place(field, pair[0], seed);
	place(field, pair[1], seed);
}

/*
 * Made by Weft: their numbers are reset. Users who still hold the number may disturb the connect (a
 * write before it is through makes it fail, or already waits where it would): then it has closed
 * what it made.
 */
static void open_connection(struct field *field, uint64_t *seed)
{
	int fd = weft_connect(field->address, NET_SOON);

	cr_assert(
		fd >= 0 || fd == -ECONNABORTED || fd == -EPIPE || fd == -ECONNRESET || fd == -EBUSY,
		"%s", strerror(-fd));
	if (fd >= 0)
		place(field, fd, seed);
	while ((fd = weft_accept(field->from, WEFT_POLL)) >= 0)
		place(field, fd, seed);
	check_result(fd);
}

static weft_time any_deadline(uint64_t *seed)
{
	uint64_t pick = harness_random_below(seed, 4);

	return pick == 0   ? WEFT_POLL
	       : pick == 1 ? 0
			   : weft_after(WEFT_US(harness_random_below(seed, 200)));
}

static void use_one(struct field *field, uint64_t *seed)
{
	uint32_t slot = wf_u32_load_relaxed(&field->slots[harness_random_below(seed, SLOTS)]);
	int fd = (int)slot - 1;
	char bytes[3000];
	ssize_t r;

	if (!slot)
		return;
	switch (harness_random_below(seed, 8)) {
	case 0:
	case 1:
	case 2:
		r = weft_read(fd, bytes, sizeof(bytes), any_deadline(seed));
		break;
	case 3:
	case 4:
		memset(bytes, 'b', sizeof(bytes));
		r = weft_write(fd, bytes, 1 + harness_random_below(seed, sizeof(bytes)),
			any_deadline(seed));
		break;
	case 5:
		r = weft_read_exact(fd, bytes, sizeof(bytes), any_deadline(seed));
		break;
	case 6:
		r = weft_poll_fd(fd, WEFT_READABLE, any_deadline(seed));
		break;
	default:
		r = weft_fd_forget(fd);
		break;
	}
	check_result(r);
	if (r > 0)
		(void)wf_u64_fetch_add(&field->moved_bytes, (uint64_t)r);
}

struct user {
	struct field *field;
	uint64_t seed;
};

static int use(void *arg)
{
	struct user *user = arg;
	uint64_t seed = user->seed;

	for (int i = 0; i < ROUNDS; i++) {
		switch (harness_random_below(&seed, 16)) {
		case 0:
			close_one(user->field, &seed);
			break;
		case 1:
			open_pair(user->field, &seed);
			break;
		case 2:
			open_connection(user->field, &seed);
			break;
		case 3:
			cr_assert_eq(weft_yield(), 0);
			break;
		default:
			use_one(user->field, &seed);
			break;
		}
	}
	return 0;
}

static int use_on_every_worker(void *arg)
{
	struct user *first = arg;
	struct user users[WORKERS * USERS];
	weft_pid pids[WORKERS * USERS];

	/* One that is being made takes numbers too: nobody is to read its driver by an old one. */
	(void)wf_u32_fetch_add(&first->field->runtimes, 1);
	while (wf_u32_load_relaxed(&first->field->runtimes) < RUNTIMES)
		cr_assert_eq(weft_yield(), 0);
	for (unsigned i = 0; i < WORKERS * USERS; i++) {
		users[i] = (struct user){first->field, first->seed + i};
		pids[i] = net_spawn_on(i % WORKERS, use, &users[i]);
	}
	for (unsigned i = 0; i < WORKERS * USERS; i++)
		cr_assert_eq(net_join(pids[i]), 0);
	return 0;
}

/* A runtime each, and a thread of none. */
static void side(unsigned index, void *arg)
{
	struct user first = {arg, harness_seed() + 1000 * index};

	if (index < RUNTIMES) {
		net_run(WORKERS, use_on_every_worker, &first);
		return;
	}
	for (int i = 0; i < THREAD_ROUNDS; i++) {
		if (harness_random_below(&first.seed, 3) == 0)
			open_pair(arg, &first.seed);
		else
			close_one(arg, &first.seed);
	}
}

Test(stress_fd, closing_and_reuse_from_everywhere, .timeout = 120)
{
	unsigned before = harness_fd_count();
	struct field field = {.from = weft_listen("tcp:127.0.0.1:0", 0)};

	cr_assert_eq(weft_local_address(field.from, field.address, sizeof(field.address)), 0);
	harness_threads(RUNTIMES + 1, side, &field);
	for (int i = 0; i < SLOTS; i++) {
		uint32_t fd = wf_u32_exchange(&field.slots[i], 0);

		if (fd)
			end(&field, (int)fd - 1);
	}
	/* Connections made but not accepted are the kernel's, and end with the listener. */
	cr_assert_eq(weft_close(field.from), 0);
	cr_assert_eq(wf_u64_load_relaxed(&field.opened), wf_u64_load_relaxed(&field.closed));
	cr_assert_gt(wf_u64_load_relaxed(&field.moved_bytes), 0);
	cr_assert_eq(harness_fd_count(), before, "seed %#llx", (unsigned long long)harness_seed());
	for (int fd = 0; fd < 4096; fd++)
		cr_assert(wf_fd_valid(fd));
}

/*
 * The same two numbers over and over, closed under their waiters from the other worker: what is
 * woken too little hangs here.
 */
struct duel {
	int fd;
	wf_atomic_u32 ready;
};

static int wait_to_read(void *arg)
{
	struct duel *duel = arg;
	char bytes[16];

	wf_u32_store_release(&duel->ready, 1);
	return (int)weft_read(duel->fd, bytes, sizeof(bytes), NET_SOON);
}

static int close_under_waiters(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		struct duel duel = {.fd = -1};
		weft_pid reader;
		int pair[2], r;

		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		duel.fd = pair[1];
		reader = net_spawn_on(1, wait_to_read, &duel);
		while (!wf_u32_load_acquire(&duel.ready))
			(void)weft_yield();
		net_yield((unsigned)i % 4);
		if (i % 3 == 0)
			cr_assert_eq(write(pair[0], "x", 1), 1);
		cr_assert_eq(weft_close(pair[1]), 0);
		r = net_join(reader);
		/* It may have come before the close, or not have begun yet. */
		cr_assert(r == -ECANCELED || r == -EBADF || (r == 1 && i % 3 == 0), "%d", r);
		close(pair[0]);
	}
	return 0;
}

Test(stress_fd, closing_wakes_every_waiter, .timeout = 120)
{
	unsigned before = harness_fd_count();

	net_run(2, close_under_waiters, NULL);
	cr_assert_eq(harness_fd_count(), before);
}
