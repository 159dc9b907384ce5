/*
 * Goal: a descriptor does what io/README.md promises about waiting, closing, reuse and adoption,
 * and the entry is clean afterwards. Method: processes of a real runtime on loopback sockets and
 * pipes; where the order of steps matters (I1), the operations of io/fd.h by hand. The test looks
 * into the entry only to learn that somebody waits.
 */
#include "test/net.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "io/fd.h"

/* --- Looking inside --- */

static struct wf_fd_entry *entry_of(int fd)
{
	struct wf_fd_entry *entry = wf_fd_find(fd);

	cr_assert_not_null(entry);
	return entry;
}

enum waits { READS, WRITES, QUEUES };

static bool waits(int fd, enum waits how)
{
	struct wf_fd_entry *entry = wf_fd_find(fd);
	bool result;

	if (!entry)
		return false; /* its first use is yet to come */
	wf_spinlock_lock(&entry->lock);
	result = how == READS ? !weft_pid_is_none(entry->reader)
		: how == WRITES ? !weft_pid_is_none(entry->writer)
				: wf_ptr_load_relaxed(&entry->many) != NULL;
	wf_spinlock_unlock(&entry->lock);
	return result;
}

/* Lets others run until somebody waits. */
static void until(int fd, enum waits how)
{
	while (!waits(fd, how))
		(void)weft_yield();
}

static unsigned operations(int fd)
{
	return (unsigned)(wf_u64_load_relaxed(&entry_of(fd)->word) & WF_FD_OPERATIONS);
}

static void check_all_valid(void)
{
	for (int fd = 0; fd < 4096; fd++)
		cr_assert(wf_fd_valid(fd));
}

/* --- Processes that do one thing --- */

static int read_one(void *arg)
{
	char byte;
	ssize_t n = weft_read(*(int *)arg, &byte, 1, NET_SOON);

	return n == 1 ? byte : (int)n;
}

static int write_much(void *arg)
{
	enum { SIZE = 8 << 20 };
	void *bytes = calloc(1, SIZE);
	ssize_t n = weft_write_all(*(int *)arg, bytes, SIZE, NET_SOON);

	free(bytes);
	return n == SIZE ? 1 : (int)n;
}

static int poll_readable(void *arg)
{
	return weft_poll_fd(*(int *)arg, WEFT_READABLE, NET_SOON);
}

/* --- What a number is --- */

static int bad_numbers(void *arg)
{
	int bad[] = { -1, INT32_MIN, 999999, WF_FD_NUMBER_MAX, INT32_MAX };
	char byte = 0;

	(void)arg;
	for (size_t i = 0; i < WF_ARRAY_COUNT(bad); i++) {
		cr_expect_eq(weft_read(bad[i], &byte, 1, WEFT_FOREVER), -EBADF, "%d", bad[i]);
		cr_expect_eq(weft_write(bad[i], &byte, 1, WEFT_FOREVER), -EBADF, "%d", bad[i]);
		cr_expect_eq(weft_accept(bad[i], WEFT_FOREVER), -EBADF, "%d", bad[i]);
		cr_expect_eq(weft_poll_fd(bad[i], 0, WEFT_FOREVER), -EBADF, "%d", bad[i]);
		cr_expect_eq(weft_close(bad[i]), -EBADF, "%d", bad[i]);
		cr_expect_eq(weft_fd_forget(bad[i]), -EBADF, "%d", bad[i]);
	}
	return 0;
}

Test(fd, numbers_that_are_no_descriptors_are_refused, .timeout = 120)
{
	net_run(1, bad_numbers, NULL);
	cr_assert(weft_fd_kernel(0));
	cr_assert(weft_fd_kernel(WF_FD_NUMBER_MAX - 1));
	cr_assert(!weft_fd_kernel(WF_FD_NUMBER_MAX));
	cr_assert(!weft_fd_kernel(-1));
}

Test(fd, calls_from_outside_a_process_are_refused)
{
	char byte = 0;
	int fd[2];

	cr_assert_eq(pipe(fd), 0);
	cr_assert_eq(weft_read(fd[0], &byte, 1, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_write(fd[1], &byte, 1, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_accept(fd[0], WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_poll_fd(fd[0], WEFT_READABLE, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_connect("tcp:127.0.0.1:1", WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_close(fd[0]), 0, "but any thread may close");
	cr_assert_eq(weft_close(fd[0]), -EBADF);
	cr_assert_eq(weft_close(fd[1]), 0);
}

static int high_numbers(void *arg)
{
	static int numbers[] = { 1023, 1024, 2047, 2048, 4095, 4096, 12345 };
	char byte;
	int fd[2];

	(void)arg;
	for (size_t i = 0; i < WF_ARRAY_COUNT(numbers); i++) {
		cr_assert_eq(pipe(fd), 0);
		cr_assert_eq(dup2(fd[0], numbers[i]), numbers[i]);
		close(fd[0]);
		weft_pid reader = net_spawn(read_one, &numbers[i]);

		until(numbers[i], READS);
		cr_assert_eq(weft_write(fd[1], "x", 1, NET_SOON), 1);
		cr_assert_eq(net_join(reader), 'x');
		cr_assert_eq(weft_read(numbers[i], &byte, 1, WEFT_POLL), -EAGAIN);
		cr_assert_eq(weft_close(numbers[i]), 0);
		cr_assert_eq(weft_close(fd[1]), 0);
		cr_assert(wf_fd_valid(numbers[i]));
	}
	return 0;
}

Test(fd, every_segment_of_the_table_works, .timeout = 120)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max < 20000)
		cr_skip_test("needs 20000 descriptor numbers");
	limit.rlim_cur = 20000;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	net_run(1, high_numbers, NULL);
}

/* --- Readiness (I1) --- */

static int poller_add(struct wf_poller *poller, int fd, uint64_t token)
{
	(void)poller, (void)fd, (void)token;
	return 0;
}

static void poller_remove(struct wf_poller *poller, int fd)
{
	(void)poller, (void)fd;
}

/* A descriptor whose home is a poller of the test's own, and the token of its events. */
static uint64_t registered(struct wf_poller *poller, int fd, uint64_t kind)
{
	struct wf_fd_entry *entry;
	uint32_t generation;

	*poller = (struct wf_poller){ .add = poller_add, .remove = poller_remove,
		.runtime = UINT32_MAX, .worker = 3 };
	cr_assert_eq(wf_fd_reset(fd, kind, &generation), 0);
	entry = entry_of(fd);
	entry->home_runtime = poller->runtime;
	entry->home_worker = poller->worker;
	entry->registration = WF_FD_REGISTERED;
	return (uint64_t)generation << 32 | (uint32_t)fd;
}

static uint64_t ready_bits(int fd)
{
	return wf_u64_load_relaxed(&entry_of(fd)->word) & WF_FD_READY;
}

Test(fd, an_event_between_eagain_and_clearing_is_kept)
{
	struct wf_poller poller;
	struct wf_op op;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t token = registered(&poller, fd, WF_FD_SOCKET | WF_FD_TCP);

	cr_assert_eq(wf_op_begin(&op, fd), 0);
	cr_assert(op.word & WF_FD_READ, "not waited for yet: counts as ready");
	/* Here the call gave EAGAIN; here the event lands. */
	wf_fd_event(&poller, token, WF_FD_READ);
	wf_op_miss(&op, WF_FD_READ);
	cr_assert(ready_bits(fd) & WF_FD_READ);

	/* Once more with a fresh sample: now nothing came between. */
	cr_assert_eq(wf_op_sample(&op), 0);
	wf_op_miss(&op, WF_FD_READ);
	cr_assert_eq(ready_bits(fd) & WF_FD_READ, 0);
	cr_assert(ready_bits(fd) & WF_FD_WRITE, "the other direction is left alone");
	wf_fd_event(&poller, token, WF_FD_READ);
	cr_assert(ready_bits(fd) & WF_FD_READ);
	wf_op_end(&op);
	cr_assert_eq(weft_close(fd), 0);
}

Test(fd, a_short_count_clears_with_the_end_unless_an_event_came)
{
	struct wf_poller poller;
	struct wf_op op;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t token = registered(&poller, fd, WF_FD_SOCKET | WF_FD_TCP);

	for (int event = 0; event < 2; event++) {
		wf_fd_event(&poller, token, WF_FD_READ);
		cr_assert_eq(wf_op_begin(&op, fd), 0);
		wf_op_moved(&op, WF_FD_READ, 10, 100);
		if (event)
			wf_fd_event(&poller, token, WF_FD_WRITE);
		wf_op_end(&op);
		cr_assert_eq(!!(ready_bits(fd) & WF_FD_READ), event);
	}
	/* A full count proves nothing. */
	wf_fd_event(&poller, token, WF_FD_READ);
	cr_assert_eq(wf_op_begin(&op, fd), 0);
	wf_op_moved(&op, WF_FD_READ, 100, 100);
	wf_op_end(&op);
	cr_assert(ready_bits(fd) & WF_FD_READ);
	cr_assert_eq(weft_close(fd), 0);
}

Test(fd, a_short_count_proves_nothing_after_an_end_or_off_tcp)
{
	static const struct {
		uint64_t kind, ready;
	} cases[] = {
		{ WF_FD_SOCKET | WF_FD_TCP, WF_FD_READ | WF_FD_STICKY },
		{ WF_FD_SOCKET, WF_FD_READ },
		{ 0, WF_FD_READ },
	};

	for (size_t i = 0; i < WF_ARRAY_COUNT(cases); i++) {
		struct wf_poller poller;
		struct wf_op op;
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		uint64_t token = registered(&poller, fd, cases[i].kind);

		wf_fd_event(&poller, token, cases[i].ready);
		cr_assert_eq(wf_op_begin(&op, fd), 0);
		wf_op_moved(&op, WF_FD_READ, 10, 100);
		wf_op_end(&op);
		cr_expect(ready_bits(fd) & WF_FD_READ, "case %zu", i);
		/* EAGAIN is proof whatever else is known: or a full error queue would spin. */
		cr_assert_eq(wf_op_begin(&op, fd), 0);
		wf_op_miss(&op, WF_FD_READ);
		wf_op_end(&op);
		cr_expect_eq(ready_bits(fd) & WF_FD_READ, 0, "case %zu", i);
		cr_assert_eq(weft_close(fd), 0);
	}
}

Test(fd, events_for_an_earlier_use_or_another_home_are_dropped)
{
	struct wf_poller poller, other;
	struct wf_op op;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t old = registered(&poller, fd, WF_FD_SOCKET);
	uint64_t token = registered(&poller, fd, WF_FD_SOCKET);

	cr_assert_neq(old, token, "each use has a generation of its own");
	cr_assert_eq(wf_op_begin(&op, fd), 0);
	wf_op_miss(&op, WF_FD_READ | WF_FD_WRITE);
	wf_fd_event(&poller, old, WF_FD_READ | WF_FD_STICKY);
	other = poller;
	other.worker++;
	wf_fd_event(&other, token, WF_FD_READ | WF_FD_STICKY);
	cr_assert_eq(ready_bits(fd), 0);
	wf_fd_event(&poller, token, WF_FD_READ);
	cr_assert_eq(ready_bits(fd), WF_FD_READ);
	wf_op_end(&op);
	cr_assert_eq(weft_close(fd), 0);
}

/*
 * I1, raced: one thread lands events, each after it has put something there to be found; the other
 * tries, and clears on EAGAIN. At rest nothing may be there while READ is clear.
 */
struct race {
	struct wf_poller poller;
	uint64_t token;
	int fd;
	wf_atomic_u64 put, taken;
	uint64_t rounds;
};

static void race_side(unsigned index, void *arg)
{
	struct race *race = arg;

	for (uint64_t i = 0; i < race->rounds; i++) {
		struct wf_op op;

		if (index == 0) {
			(void)wf_u64_fetch_add(&race->put, 1);
			wf_fd_event(&race->poller, race->token, WF_FD_READ);
			continue;
		}
		cr_assert_eq(wf_op_begin(&op, race->fd), 0);
		if (op.word & WF_FD_READ) {
			uint64_t put = wf_u64_load_seq_cst(&race->put);

			if (put == wf_u64_load_relaxed(&race->taken))
				wf_op_miss(&op, WF_FD_READ);
			else
				wf_u64_store_relaxed(&race->taken, put);
		}
		wf_op_end(&op);
	}
}

Test(fd, readiness_survives_a_race_of_clearing_and_events, .timeout = 120)
{
	struct race race = { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.rounds = 1000000 / HARNESS_SLOWDOWN };
	uint64_t put, taken;

	race.token = registered(&race.poller, race.fd, WF_FD_SOCKET);
	harness_threads(2, race_side, &race);
	put = wf_u64_load_relaxed(&race.put);
	taken = wf_u64_load_relaxed(&race.taken);
	cr_assert(put == taken || (ready_bits(race.fd) & WF_FD_READ),
		"%llu put, %llu taken, and not ready", (unsigned long long)put,
		(unsigned long long)taken);
	cr_assert_eq(weft_close(race.fd), 0);
}

/* --- Deadlines --- */

static int deadlines(void *arg)
{
	char byte;
	int fd[2];

	(void)arg;
	net_pair(fd);
	errno = 77;
	cr_assert_eq(weft_read(fd[1], &byte, 1, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_read(fd[1], &byte, 1, 0), -ETIME);
	cr_assert_eq(weft_read(fd[1], &byte, 1, weft_after(WEFT_MS(2))), -ETIME);
	cr_assert_eq(errno, 77, "errno is the host's");
	/* Nobody waits now; what arrives is found by calls that may not wait, too. */
	for (int i = 0; i < 3; i++) {
		static const weft_time past[] = { WEFT_POLL, 0, 12345 };
		char bytes[10];

		net_send(fd[0], "abc", 3);
		net_arrived(fd[1]);
		cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), past[i]), 3);
		cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), past[i]),
			past[i] == WEFT_POLL ? -EAGAIN : -ETIME);
	}
	cr_assert_eq(weft_read(fd[1], &byte, 0, WEFT_POLL), 0, "size 0");
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(fd, a_call_that_would_wait_tells_why_it_did_not, .timeout = 120)
{
	net_run(1, deadlines, NULL);
	check_all_valid();
}

/* Data that comes between two tries of a process that never waits and never yields. */
static int never_waits(void *arg)
{
	char bytes[10];
	int fd[2];
	ssize_t n;

	(void)arg;
	net_pair(fd);
	for (int i = 0; i < 100; i++) {
		net_send(fd[0], "x", 1);
		while ((n = weft_read(fd[1], bytes, sizeof(bytes), WEFT_POLL)) == -EAGAIN)
			;
		cr_assert_eq(n, 1);
	}
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(fd, polling_reads_see_what_no_driver_has_reported, .timeout = 120)
{
	net_run(1, never_waits, NULL);
}

/* --- Who may wait --- */

static int one_per_direction(void *arg)
{
	char byte;
	int fd[2];
	weft_pid reader;

	(void)arg;
	net_pair(fd);
	reader = net_spawn(read_one, &fd[1]);
	until(fd[1], READS);
	cr_assert_eq(weft_read(fd[1], &byte, 1, NET_SOON), -EBUSY);
	cr_assert_eq(weft_read(fd[1], &byte, 1, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_write(fd[1], "y", 1, NET_SOON), 1, "the other direction is free");
	net_send(fd[0], "x", 1);
	cr_assert_eq(net_join(reader), 'x');

	/* A deadline, and a cancel, take the waiter out: the place is free again. */
	cr_assert_eq(weft_read(fd[1], &byte, 1, weft_after(WEFT_MS(1))), -ETIME);
	reader = net_spawn(read_one, &fd[1]);
	until(fd[1], READS);
	cr_assert_eq(weft_cancel(reader), 0);
	cr_assert_eq(net_join(reader), -ECANCELED);
	cr_assert(!waits(fd[1], READS));
	net_send(fd[0], "z", 1);
	cr_assert_eq(weft_read(fd[1], &byte, 1, NET_SOON), 1);
	cr_assert_eq(byte, 'z', "a cancelled read has taken nothing");
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(fd, one_process_waits_per_direction, .timeout = 120)
{
	net_run(1, one_per_direction, NULL);
	check_all_valid();
}

enum { POLLERS = 50 }; /* more than one hold of the lock takes out */

static int many_pollers(void *arg)
{
	weft_pid pollers[POLLERS], reader;
	int fd[2];

	(void)arg;
	net_pair(fd);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < POLLERS; i++)
			pollers[i] = net_spawn(poll_readable, &fd[1]);
		reader = net_spawn(read_one, &fd[1]);
		until(fd[1], READS);
		while (operations(fd[1]) < POLLERS + 1)
			(void)weft_yield();
		if (round == 0)
			net_send(fd[0], "xy", 2);
		else
			cr_assert_eq(weft_close(fd[1]), 0);
		for (int i = 0; i < POLLERS; i++)
			cr_assert_eq(net_join(pollers[i]),
				round ? -ECANCELED : (int)WEFT_READABLE);
		cr_assert_eq(net_join(reader), round ? -ECANCELED : 'x');
		if (round == 0)
			read_one(&fd[1]);
	}
	close(fd[0]);
	return 0;
}

Test(fd, any_number_may_poll_and_all_are_told, .timeout = 120)
{
	net_run(2, many_pollers, NULL);
	check_all_valid();
}

/* Makes registering fail in this thread, for good. */
static void refuse_epoll_ctl(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_ctl, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSPC),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = WF_ARRAY_COUNT(code), .filter = code };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static int no_room_to_register(void *arg)
{
	weft_pid pollers[POLLERS], reader;
	char bytes[8];
	int fd[2];

	(void)arg;
	net_pair(fd);
	refuse_epoll_ctl();
	for (int i = 0; i < POLLERS; i++)
		pollers[i] = net_spawn(poll_readable, &fd[1]);
	reader = net_spawn(read_one, &fd[1]);
	for (int i = 0; i < POLLERS; i++)
		cr_assert_eq(net_join(pollers[i]), -ENOSPC);
	cr_assert_eq(net_join(reader), -ENOSPC);
	cr_assert_eq(weft_read(fd[1], bytes, 1, NET_SOON), -ENOSPC);
	net_send(fd[0], "there", 5);
	net_arrived(fd[1]);
	cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), WEFT_POLL), 5, "no need to wait");
	cr_assert_eq(operations(fd[1]), 0);
	cr_assert(wf_fd_valid(fd[1]));
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(fd, a_descriptor_that_cannot_be_registered_is_an_error_for_all, .timeout = 120)
{
	if (prctl(PR_GET_SECCOMP) < 0)
		cr_skip_test("no seccomp here");
	net_run(1, no_room_to_register, NULL);
	check_all_valid();
}

/* --- Closing (I2, I7) --- */

/*
 * Accepts from a listener with enough in its queue until the kernel hands out `number`, which must
 * be free; what came before is closed.
 */
static void accept_as(int from, int number)
{
	int others[64], count = 0, fd;

	while ((fd = weft_accept(from, NET_SOON)) != number) {
		cr_assert_geq(fd, 0);
		cr_assert_lt(count, 64, "descriptor %d does not come back", number);
		others[count++] = fd;
	}
	while (count-- > 0)
		cr_assert_eq(weft_close(others[count]), 0);
}

/* arg: whether there is one worker, so that the two cannot leave before this process waits. */
static int close_under_both(void *arg)
{
	enum { CLIENTS = 65 };
	bool alone = *(bool *)arg;
	int fd[2], client[CLIENTS], from = weft_listen("tcp:127.0.0.1:0", 0), number, other;
	weft_pid reader, writer;

	net_pair(fd);
	number = fd[1];
	for (int i = 0; i < CLIENTS; i++)
		client[i] = net_connect(net_port_of(from));
	reader = net_spawn(read_one, &number);
	writer = net_spawn(write_much, &number);
	until(number, READS);
	until(number, WRITES);
	cr_assert_eq(weft_close(number), 0);
	if (alone) {
		cr_assert_eq(weft_close(number), -EBADF, "it is closing already");
		cr_assert_eq(weft_read(number, &(char){ 0 }, 1, NET_SOON), -ECANCELED);
		other = weft_accept(from, NET_SOON);
		cr_assert_neq(other, number, "they have not left yet: it is not free");
		cr_assert_eq(weft_close(other), 0);
	}
	cr_assert_eq(net_join(reader), -ECANCELED);
	cr_assert_eq(net_join(writer), -ECANCELED);

	/* Now it is, and the new use knows nothing of the old one. */
	accept_as(from, number);
	cr_assert_eq(weft_read(number, &(char){ 0 }, 1, weft_after(WEFT_MS(1))), -ETIME);
	reader = net_spawn(read_one, &number);
	until(number, READS);
	for (int i = 0; i < CLIENTS; i++)
		(void)send(client[i], "n", 1, MSG_NOSIGNAL);
	cr_assert_eq(net_join(reader), 'n');
	cr_assert_eq(weft_close(number), 0);
	cr_assert_eq(weft_close(from), 0);
	for (int i = 0; i < CLIENTS; i++)
		close(client[i]);
	close(fd[0]);
	return 0;
}

Test(fd, closing_ends_a_parked_reader_and_writer, .timeout = 120)
{
	net_run(1, close_under_both, &(bool){ true });
	check_all_valid();
}

Test(fd, closing_ends_them_on_two_workers, .timeout = 120)
{
	net_run(2, close_under_both, &(bool){ false });
	check_all_valid();
}

static int hold_the_worker(void *arg)
{
	wf_atomic_u32 *state = arg;

	wf_u32_store_release(state, 1);
	while (wf_u32_load_acquire(state) == 1)
		wf_pause();
	return 0;
}

/*
 * I7: the parked reader's worker is busy, so the reader stays in flight: the peer sees the end all
 * the same, the number stays taken, and the reader itself closes it.
 */
static int close_from_another_worker(void *arg)
{
	wf_atomic_u32 state = { 0 };
	weft_pid reader, holder;
	char byte;
	int fd[2], probe;

	(void)arg;
	net_pair(fd);
	reader = net_spawn_on(1, read_one, &fd[1]);
	until(fd[1], READS);
	holder = net_spawn_on(1, hold_the_worker, &state);
	while (wf_u32_load_acquire(&state) == 0)
		(void)weft_yield();
	cr_assert_eq(weft_close(fd[1]), 0);
	cr_assert_eq(recv(fd[0], &byte, 1, 0), 0, "the peer sees the end");
	cr_assert_geq(fcntl(fd[1], F_GETFD), 0, "the number is taken");
	wf_u32_store_release(&state, 2);
	cr_assert_eq(net_join(holder), 0);
	cr_assert_eq(net_join(reader), -ECANCELED);
	cr_assert_eq(fcntl(fd[1], F_GETFD), -1, "the last to leave has closed it");
	probe = fcntl(fd[0], F_DUPFD_CLOEXEC, fd[1]);
	cr_assert_eq(probe, fd[1]);
	close(probe);
	close(fd[0]);
	return 0;
}

Test(fd, the_last_operation_to_end_closes_the_number, .timeout = 120)
{
	net_run(2, close_from_another_worker, NULL);
	check_all_valid();
}

static int close_unused(void *arg)
{
	char byte;
	int fd[2], shared;

	(void)arg;
	net_pair(fd);
	shared = dup(fd[1]);
	cr_assert_eq(weft_read(fd[1], &byte, 1, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_close(fd[1]), 0);
	/* No call was in flight: only this reference is gone, the connection lives. */
	cr_assert_eq(write(shared, "x", 1), 1);
	net_recv(fd[0], &byte, 1);
	close(shared);
	net_recv_end(fd[0]);
	close(fd[0]);
	return 0;
}

Test(fd, closing_without_calls_in_flight_shuts_nothing_down, .timeout = 120)
{
	net_run(1, close_unused, NULL);
	check_all_valid();
}

static int accept_one(void *arg)
{
	int fd = weft_accept(*(int *)arg, NET_SOON);

	if (fd >= 0)
		cr_assert_eq(weft_close(fd), 0);
	return fd < 0 ? fd : 0;
}

static int close_listener(void *arg)
{
	int fd = weft_listen("tcp:127.0.0.1:0", 0);
	int shared = dup(fd);
	unsigned port = net_port_of(fd);
	weft_pid acceptors[3];

	(void)arg;
	for (int i = 0; i < 3; i++)
		acceptors[i] = net_spawn(accept_one, &fd);
	while (operations(fd) < 3)
		(void)weft_yield();
	until(fd, QUEUES);
	cr_assert_eq(weft_close(fd), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(net_join(acceptors[i]), -ECANCELED);
	/* A listener that others share must go on: it was not shut down. */
	close(net_connect(port));
	cr_assert_eq(weft_close(shared), 0);
	return 0;
}

Test(fd, closing_a_listener_does_not_shut_it_down, .timeout = 120)
{
	net_run(1, close_listener, NULL);
	check_all_valid();
}

struct told {
	int fd;
	wf_atomic_u32 parked;
};

static int tell_and_read(void *arg)
{
	struct told *told = arg;
	weft_pid reader = net_spawn(read_one, &told->fd);
	int r;

	until(told->fd, READS);
	wf_u32_store_release(&told->parked, 1);
	r = net_join(reader);
	return r;
}

Test(fd, a_foreign_thread_may_close, .timeout = 120)
{
	weft_rt *rt = net_rt_make(2, WEFT_PIN_OFF);
	struct told told = { .fd = -1 };
	int pair[2], result;
	weft_pid pid;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	told.fd = pair[1];
	cr_assert_eq(weft_rt_spawn(rt, tell_and_read, &told, NULL, &pid), 0);
	while (!wf_u32_load_acquire(&told.parked))
		sched_yield();
	cr_assert_eq(weft_close(told.fd), 0);
	cr_assert_eq(weft_join(pid, &result, NET_SOON), 0);
	cr_assert_eq(result, -ECANCELED);
	net_recv_end(pair[0]);
	cr_assert_eq(weft_rt_destroy(rt, NET_SOON), 0);
	close(pair[0]);
	check_all_valid();
}

/* --- Adoption --- */

static bool is_blocking(int fd)
{
	return !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static int adopt_and_forget(void *arg)
{
	char byte;
	int fd[2];
	weft_pid reader;

	(void)arg;
	cr_assert_eq(pipe(fd), 0);
	cr_assert_eq(weft_fd_forget(fd[0]), -EBADF, "not known yet");
	reader = net_spawn(read_one, &fd[0]);
	until(fd[0], READS);
	cr_assert(!is_blocking(fd[0]));
	cr_assert_eq(weft_fd_forget(fd[0]), -EBUSY);
	cr_assert_eq(write(fd[1], "x", 1), 1);
	cr_assert_eq(net_join(reader), 'x');
	cr_assert_eq(weft_fd_forget(fd[0]), 0);
	cr_assert(is_blocking(fd[0]), "as it was");
	cr_assert_eq(weft_fd_forget(fd[0]), -EBADF);
	cr_assert_eq(write(fd[1], "y", 1), 1);
	cr_assert_eq(read(fd[0], &byte, 1), 1);
	/* Back again: it is registered anew. */
	reader = net_spawn(read_one, &fd[0]);
	until(fd[0], READS);
	cr_assert_eq(write(fd[1], "z", 1), 1);
	cr_assert_eq(net_join(reader), 'z');
	cr_assert_eq(weft_close(fd[0]), 0);
	close(fd[1]);
	/* The host's next descriptor of that number starts clean. */
	cr_assert_eq(pipe(fd), 0);
	cr_assert_eq(weft_read(fd[0], &byte, 1, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_close(fd[0]), 0);
	cr_assert_eq(weft_close(fd[1]), 0, "never used with Weft");
	return 0;
}

Test(fd, foreign_descriptors_are_adopted_and_handed_back, .timeout = 120)
{
	net_run(1, adopt_and_forget, NULL);
	check_all_valid();
}

/*
 * The rule is weft_close; who breaks it is told at the next use of the number, and nothing breaks.
 */
static int closed_behind_our_back(void *arg)
{
	weft_pid reader, pollers[POLLERS];
	int fd[2], from = weft_listen("tcp:127.0.0.1:0", 0), client;

	(void)arg;
	net_pair(fd);
	client = net_connect(net_port_of(from));
	reader = net_spawn(read_one, &fd[1]);
	until(fd[1], READS);
	for (int i = 0; i < POLLERS; i++)
		pollers[i] = net_spawn(poll_readable, &fd[1]);
	while (operations(fd[1]) < POLLERS + 1)
		(void)weft_yield();
	until(fd[1], QUEUES);
	close(fd[1]);
	/* Taken by a file of the host's, then by a connection of Weft's. */
	cr_assert_eq(dup2(from, fd[1]), fd[1]);
	close(from);
	from = fd[1];
	cr_assert_eq(wf_fd_reset(from, WF_FD_SOCKET, NULL), 0);
	cr_assert_eq(net_join(reader), -EBADF);
	for (int i = 0; i < POLLERS; i++)
		cr_assert_eq(net_join(pollers[i]), -EBADF);
	cr_assert_eq(accept_one(&from), 0);
	close(client);
	close(fd[0]);
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test(fd, a_number_that_comes_back_ends_who_waits_on_the_old_use, .timeout = 120)
{
	net_run(1, closed_behind_our_back, NULL);
	check_all_valid();
}

/* --- Homes --- */

struct home {
	int fd[2];
	unsigned rounds;
};

static int read_rounds(void *arg)
{
	struct home *home = arg;

	for (unsigned i = 0; i < home->rounds; i++) {
		char byte;

		cr_assert_eq(weft_read(home->fd[1], &byte, 1, NET_SOON), 1);
		cr_assert_eq(weft_write(home->fd[1], &byte, 1, NET_SOON), 1);
	}
	return 0;
}

static int home_of(int fd)
{
	struct wf_fd_entry *entry = entry_of(fd);
	int worker;

	wf_spinlock_lock(&entry->lock);
	worker = entry->registration == WF_FD_REGISTERED ? entry->home_worker : -1;
	wf_spinlock_unlock(&entry->lock);
	return worker;
}

/* A byte there and back while the process on worker `worker` reads; each one has to wait for it. */
static void exchange(struct home *home, unsigned worker, unsigned rounds)
{
	weft_pid pid;

	home->rounds = rounds;
	pid = net_spawn_on(worker, read_rounds, home);
	for (unsigned i = 0; i < rounds; i++) {
		char byte;

		until(home->fd[1], READS);
		net_send(home->fd[0], "x", 1);
		cr_assert_eq(weft_read(home->fd[0], &byte, 1, NET_SOON), 1);
	}
	cr_assert_eq(net_join(pid), 0);
}

static int homes_move(void *arg)
{
	struct home home;

	(void)arg;
	net_pair(home.fd);
	exchange(&home, 0, 2);
	cr_assert_eq(home_of(home.fd[1]), 0);
	exchange(&home, 1, WF_HOME_WAITS_MAX - 1);
	cr_assert_eq(home_of(home.fd[1]), 0);
	exchange(&home, 0, 1);
	exchange(&home, 1, WF_HOME_WAITS_MAX - 1);
	cr_assert_eq(home_of(home.fd[1]), 0, "in a row means in a row");
	exchange(&home, 1, 1);
	cr_assert_eq(home_of(home.fd[1]), 1);
	exchange(&home, 1, 20);
	cr_assert_eq(home_of(home.fd[1]), 1);
	cr_assert_eq(weft_close(home.fd[1]), 0);
	cr_assert_eq(weft_close(home.fd[0]), 0);
	return 0;
}

Test(fd, the_home_follows_who_waits, .timeout = 120)
{
	net_run(2, homes_move, NULL);
	check_all_valid();
}

Test(fd, two_runtimes_share_a_descriptor_but_not_a_wait, .timeout = 120)
{
	weft_rt *first = net_rt_make(1, WEFT_PIN_OFF), *second = net_rt_make(1, WEFT_PIN_OFF);
	struct told told = { .fd = -1 };
	int pair[2], result;
	weft_pid pid, other;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	net_be_patient(pair[0]);
	told.fd = pair[1];
	for (int round = 0; round < 3; round++) {
		weft_rt *one = round % 2 ? second : first, *two = round % 2 ? first : second;

		wf_u32_store_relaxed(&told.parked, 0);
		cr_assert_eq(weft_rt_spawn(one, tell_and_read, &told, NULL, &pid), 0);
		while (!wf_u32_load_acquire(&told.parked))
			sched_yield();
		cr_assert_eq(weft_rt_spawn(two, poll_readable, &told.fd, NULL, &other), 0);
		cr_assert_eq(weft_join(other, &result, NET_SOON), 0);
		cr_assert_eq(result, -EBUSY, "round %d", round);
		net_send(pair[0], "x", 1);
		cr_assert_eq(weft_join(pid, &result, NET_SOON), 0);
		cr_assert_eq(result, 'x', "round %d", round);
	}
	/* A runtime that has ended is no home. */
	cr_assert_eq(weft_rt_destroy(first, NET_SOON), 0);
	wf_u32_store_relaxed(&told.parked, 0);
	cr_assert_eq(weft_rt_spawn(second, tell_and_read, &told, NULL, &pid), 0);
	while (!wf_u32_load_acquire(&told.parked))
		sched_yield();
	net_send(pair[0], "y", 1);
	cr_assert_eq(weft_join(pid, &result, NET_SOON), 0);
	cr_assert_eq(result, 'y');
	cr_assert_eq(weft_rt_destroy(second, NET_SOON), 0);
	cr_assert_eq(weft_close(told.fd), 0);
	close(pair[0]);
	check_all_valid();
}
