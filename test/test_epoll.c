/*
 * Goal: the epoll driver keeps the contract of core/driver.h, and network calls behave on it (rows
 * I3 and I7 of the scenarios). Method: a process opens a second instance of the driver on its
 * worker and calls it by hand; the network part is plain sockets against a runtime.
 */
#include "test/net.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/driver.h"
#include "core/sched.h"
#include "io/fd.h"

extern const struct wf_driver wf_driver_epoll;
static const struct wf_driver *const driver = &wf_driver_epoll;

/* --- By hand --- */

static void *instance_open(void)
{
	void *state;

	cr_assert_eq(driver->open(wf_worker_self(), &state), 0);
	return state;
}

static struct wf_driver_stats stats_of(const void *state)
{
	struct wf_driver_stats stats;

	driver->stats(state, &stats);
	return stats;
}

static int poll_now(void *state, unsigned budget)
{
	return driver->poll(state, budget, weft_now());
}

/* arm, wait, disarm, as a worker does; true if it slept until the deadline. */
static bool sleeps_until(void *state, weft_time deadline, int *handled_out)
{
	cr_assert_eq(driver->arm(state), 0);
	*handled_out = driver->wait(state, deadline, weft_now());
	driver->disarm(state);
	return weft_now() >= deadline;
}

Test(epoll, is_the_default_and_says_what_it_can)
{
	cr_assert_eq(wf_drivers[0], driver);
	cr_assert_str_eq(driver->name, "epoll");
	cr_assert(driver->caps & WF_DRIVER_CAN_PARK);
	cr_assert_eq(driver->caps & WF_DRIVER_SPIN_ONLY, 0);
}

static int poll_idle(void *arg)
{
	void *state = instance_open();

	(void)arg;
	for (int i = 0; i < 100; i++)
		cr_assert_eq(poll_now(state, WF_IO_BATCH), 0);
	cr_assert_eq(stats_of(state).polls, 0);
	driver->close(state);
	return 0;
}

Test(epoll, polling_makes_no_system_call_while_nothing_is_registered, .timeout = 120)
{
	net_run(1, poll_idle, NULL);
}

static int never_early(void *arg)
{
	void *state = instance_open();
	int handled;

	(void)arg;
	for (weft_time delay = 1; delay <= WEFT_MS(3); delay = delay * 3 + 777) {
		cr_assert(sleeps_until(state, weft_after(delay), &handled));
		cr_assert_eq(handled, 0);
	}
	(void)sleeps_until(state, 0, &handled);
	cr_assert_eq(handled, 0, "a past deadline does not sleep");
	driver->close(state);
	return 0;
}

Test(epoll, waits_never_end_early, .timeout = 120)
{
	net_run(1, never_early, NULL);
}

/* Makes one system call fail with ENOSYS in this thread and its children, for good. */
static void refuse(unsigned number)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = WF_ARRAY_COUNT(code), .filter = code };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		cr_skip_test("no seccomp here");
}

Test(epoll, waits_never_end_early_without_epoll_pwait2, .timeout = 120)
{
	refuse(SYS_epoll_pwait2);
	net_run(1, never_early, NULL);
}

static int wakes(void *arg)
{
	void *state = instance_open();
	int handled;

	(void)arg;
	/* Latched: before the wait, once for any number of them. */
	for (int i = 0; i < 5; i++)
		driver->wake(state);
	cr_assert(!sleeps_until(state, NET_SOON, &handled));
	cr_assert_eq(handled, 0, "a wake is no descriptor");
	cr_assert(sleeps_until(state, weft_after(WEFT_MS(2)), &handled));
	cr_assert_eq(stats_of(state).wakes_sent, 5);
	driver->close(state);
	return 0;
}

Test(epoll, wakes_are_latched_and_merged, .timeout = 120)
{
	net_run(1, wakes, NULL);
}

static int wake_met_by_poll(void *arg)
{
	void *state = instance_open();
	struct wf_poller *poller = state;
	int handled, fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	(void)arg;
	cr_assert_eq(wf_fd_reset(fd, 0, NULL), 0);
	cr_assert_eq(poller->add(poller, fd, (uint32_t)fd), 0); /* so that poll() asks the kernel */
	driver->wake(state);
	cr_assert_eq(poll_now(state, WF_IO_BATCH), 1, "it is writable");
	cr_assert_eq(stats_of(state).polls, 1);
	cr_assert(!sleeps_until(state, NET_SOON, &handled));
	cr_assert(sleeps_until(state, weft_after(WEFT_MS(2)), &handled));
	driver->close(state);
	cr_assert_eq(weft_close(fd), 0);
	return 0;
}

Test(epoll, a_wake_that_a_poll_meets_ends_the_next_wait, .timeout = 120)
{
	net_run(1, wake_met_by_poll, NULL);
}

static void *wake_soon(void *state)
{
	usleep(1000);
	driver->wake(state);
	return NULL;
}

static int wake_from_a_thread(void *arg)
{
	void *state = instance_open();
	pthread_t thread;
	int handled;

	(void)arg;
	for (int i = 0; i < 20; i++) {
		pthread_create(&thread, NULL, wake_soon, state);
		cr_assert(!sleeps_until(state, NET_SOON, &handled));
		pthread_join(thread, NULL);
	}
	driver->close(state);
	return 0;
}

Test(epoll, a_wake_ends_a_wait_that_goes_on, .timeout = 120)
{
	net_run(1, wake_from_a_thread, NULL);
}

static int watched_device(void *arg)
{
	void *state = instance_open();
	int handled, fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t one = 1;

	(void)arg;
	cr_assert_eq(driver->watch(state, fd), 0);
	cr_assert_eq(poll_now(state, WF_IO_BATCH), 0);
	cr_assert_eq(stats_of(state).polls, 0, "the device is polled by its own driver");
	cr_assert(sleeps_until(state, weft_after(WEFT_MS(2)), &handled));
	cr_assert_eq(write(fd, &one, sizeof(one)), (ssize_t)sizeof(one));
	/* Not an edge: as long as the device is not emptied. */
	for (int i = 0; i < 2; i++)
		cr_assert(!sleeps_until(state, NET_SOON, &handled));
	cr_assert_eq(read(fd, &one, sizeof(one)), (ssize_t)sizeof(one));
	cr_assert(sleeps_until(state, weft_after(WEFT_MS(2)), &handled));
	driver->close(state);
	close(fd);
	return 0;
}

Test(epoll, a_watched_descriptor_ends_waits, .timeout = 120)
{
	net_run(1, watched_device, NULL);
}

enum { READY_COUNT = 100 };

/* Ready descriptors, registered by hand under tokens that no entry has: handled, and dropped. */
static int batches(void *arg)
{
	void *state = instance_open();
	struct wf_poller *poller = state;
	int fd[READY_COUNT], handled = 0;

	(void)arg;
	for (int i = 0; i < READY_COUNT; i++) {
		fd[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		cr_assert_eq(wf_fd_reset(fd[i], 0, NULL), 0);
		cr_assert_eq(poller->add(poller, fd[i], (uint32_t)fd[i]), 0);
	}
	for (int i = 0; i < READY_COUNT / 10; i++) {
		int n = poll_now(state, 10);

		cr_assert_leq(n, 10);
		handled += n;
	}
	cr_assert_eq(handled, READY_COUNT);
	cr_assert_eq(poll_now(state, 0), 0);
	cr_assert_eq(stats_of(state).events, READY_COUNT);
	/* Nobody is at home there, so the driver has removed them: it asks the kernel no more. */
	uint64_t polls = stats_of(state).polls;

	cr_assert_eq(poll_now(state, WF_IO_BATCH), 0);
	cr_assert_eq(stats_of(state).polls, polls);
	for (int i = 0; i < READY_COUNT; i++)
		cr_assert_eq(weft_close(fd[i]), 0);
	driver->close(state);
	return 0;
}

Test(epoll, a_poll_keeps_to_its_budget_and_drops_strangers, .timeout = 120)
{
	net_run(1, batches, NULL);
}

static int registering_twice(void *arg)
{
	void *state = instance_open();
	struct wf_poller *poller = state;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int regular = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	(void)arg;
	cr_assert_eq(poller->add(poller, fd, (uint32_t)fd), 0);
	cr_assert_eq(poller->add(poller, fd, (uint32_t)fd | (uint64_t)7 << 32), 0);
	poller->remove(poller, fd);
	poller->remove(poller, fd);
	cr_assert_eq(poll_now(state, WF_IO_BATCH), 0);
	cr_assert_eq(stats_of(state).polls, 0, "counted once, removed once");
	cr_assert_eq(poller->add(poller, regular, (uint32_t)regular), -EOPNOTSUPP);
	cr_assert_eq(poller->add(poller, -1, 0), -EBADF);
	driver->close(state);
	close(regular);
	close(fd);
	return 0;
}

Test(epoll, a_registration_can_be_replaced_and_removed, .timeout = 120)
{
	net_run(1, registering_twice, NULL);
}

static void discard(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx, (void)level, (void)worker, (void)pid, (void)text;
}

Test(epoll, opening_without_descriptors_fails_and_leaves_nothing, .timeout = 120)
{
	struct weft_rt_opts opts = { .size = sizeof(opts), .workers = 2, .driver = "epoll",
		.log = discard };
	unsigned before = harness_fd_count();
	int hoard[1024], count = 0;
	weft_rt *rt;

	/* Room for the first worker's, not for the second's. */
	struct rlimit { unsigned long current, most; } limit = { before + 4, before + 64 };

	cr_assert_eq(syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, &limit, NULL), 0);
	while ((hoard[count] = dup(0)) >= 0 && count < 1023)
		count++;
	close(hoard[--count]);
	close(hoard[--count]);
	close(hoard[--count]);
	cr_assert_eq(weft_rt_create(&opts, &rt), -EMFILE);
	while (count > 0)
		close(hoard[--count]);
	cr_assert_eq(harness_fd_count(), before);
}

/* --- I3: short counts, resets, half-closed connections --- */

enum { BULK = 6 << 20 };

static unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 2654435761u >> 13);
}

struct side {
	int fd;
	unsigned seed;
};

/* Reads BULK bytes in odd sizes, now and then late, and checks each. */
static void *read_slowly(void *arg)
{
	struct side *side = arg;
	unsigned char bytes[70000];
	uint64_t seed = side->seed;
	size_t done = 0;

	while (done < BULK) {
		ssize_t n =
			recv(side->fd, bytes, 1 + harness_random_below(&seed, sizeof(bytes)), 0);

		cr_assert_gt(n, 0);
		for (ssize_t i = 0; i < n; i++)
			cr_assert_eq(bytes[i], pattern(done + (size_t)i));
		done += (size_t)n;
		if (harness_random_below(&seed, 16) == 0)
			usleep(200);
	}
	return NULL;
}

static void *write_slowly(void *arg)
{
	struct side *side = arg;
	unsigned char bytes[70000];
	uint64_t seed = side->seed;
	size_t done = 0;

	while (done < BULK) {
		size_t n = 1 + harness_random_below(&seed, sizeof(bytes));

		n = n < BULK - done ? n : BULK - done;
		for (size_t i = 0; i < n; i++)
			bytes[i] = pattern(done + i);
		net_send(side->fd, bytes, n);
		done += n;
		if (harness_random_below(&seed, 16) == 0)
			usleep(200);
	}
	return NULL;
}

static int write_bulk(void *arg)
{
	unsigned char *bytes = malloc(BULK);
	ssize_t n;

	for (size_t i = 0; i < BULK; i++)
		bytes[i] = pattern(i);
	n = weft_write_all(*(int *)arg, bytes, BULK, NET_SOON);
	free(bytes);
	return n == BULK ? 0 : (int)n;
}

static int read_bulk(void *arg)
{
	unsigned char bytes[5000];
	size_t done = 0;

	while (done < BULK) {
		ssize_t n = weft_read(*(int *)arg, bytes, sizeof(bytes), NET_SOON);

		cr_assert_gt(n, 0, "%zd", n);
		for (ssize_t i = 0; i < n; i++)
			cr_assert_eq(bytes[i], pattern(done + (size_t)i));
		done += (size_t)n;
	}
	return 0;
}

/* Both directions at once: two threads on one end, two processes on the other. */
static int bulk_both_ways(void *arg)
{
	struct side reads = { .seed = 1 }, writes = { .seed = 2 };
	pthread_t threads[2];
	weft_pid processes[2];
	int fd[2];

	(void)arg;
	net_pair(fd);
	reads.fd = writes.fd = fd[0];
	pthread_create(&threads[0], NULL, read_slowly, &reads);
	pthread_create(&threads[1], NULL, write_slowly, &writes);
	processes[0] = net_spawn(write_bulk, &fd[1]);
	processes[1] = net_spawn(read_bulk, &fd[1]);
	cr_assert_eq(net_join(processes[0]), 0);
	cr_assert_eq(net_join(processes[1]), 0);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(epoll, short_counts_both_ways_lose_nothing, .timeout = 120)
{
	net_run(1, bulk_both_ways, NULL);
}

Test(epoll, short_counts_on_two_workers_lose_nothing, .timeout = 120)
{
	net_run(2, bulk_both_ways, NULL);
}

static int reset_in_the_middle(void *arg)
{
	char bytes[100];
	ssize_t n;
	int fd[2];

	(void)arg;
	net_pair(fd);
	net_send(fd[0], "half", 4);
	cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), NET_SOON), 4);
	net_reset(fd[0]);
	cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), NET_SOON), -ECONNRESET);
	cr_assert_eq(weft_read(fd[1], bytes, sizeof(bytes), NET_SOON), 0, "told once");
	n = weft_write(fd[1], bytes, sizeof(bytes), NET_SOON);
	cr_assert(n == -EPIPE || n == -ECONNRESET, "%zd", n);
	cr_assert_eq(weft_read_exact(fd[1], bytes, sizeof(bytes), NET_SOON), 0);
	cr_assert_eq(weft_close(fd[1]), 0);
	return 0;
}

Test(epoll, a_reset_is_reported_and_then_the_end, .timeout = 120)
{
	net_run(1, reset_in_the_middle, NULL);
}

static int read_to_the_end(void *arg)
{
	char bytes[100];
	ssize_t n;
	int sum = 0;

	while ((n = weft_read(*(int *)arg, bytes, sizeof(bytes), NET_SOON)) > 0)
		sum += (int)n;
	return n < 0 ? (int)n : sum;
}

/* The end comes together with data, before it, and long after; each way round. */
static int half_closed(void *arg)
{
	char bytes[100];
	int fd[2];

	(void)arg;
	for (int order = 0; order < 3; order++) {
		weft_pid reader;

		net_pair(fd);
		if (order == 1) {
			net_send(fd[0], "abc", 3);
			shutdown(fd[0], SHUT_WR);
		}
		reader = net_spawn(read_to_the_end, &fd[1]);
		net_yield(order == 2 ? 20 : 0);
		if (order != 1) {
			net_send(fd[0], "abc", 3);
			net_yield(order == 2 ? 20 : 0);
			shutdown(fd[0], SHUT_WR);
		}
		cr_assert_eq(net_join(reader), 3, "order %d", order);
		/* The other direction lives. */
		cr_assert_eq(weft_write_all(fd[1], "back", 4, NET_SOON), 4);
		net_recv(fd[0], bytes, 4);
		cr_assert_eq(weft_close(fd[1]), 0);
		net_recv_end(fd[0]);
		close(fd[0]);
	}
	/* We end ours, and still read. */
	net_pair(fd);
	shutdown(fd[1], SHUT_WR);
	net_recv_end(fd[0]);
	net_send(fd[0], "late", 4);
	cr_assert_eq(weft_read_exact(fd[1], bytes, 4, NET_SOON), 4);
	cr_assert_eq(weft_write(fd[1], "x", 1, NET_SOON), -EPIPE);
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(epoll, half_closed_connections_work_in_both_directions, .timeout = 120)
{
	net_run(1, half_closed, NULL);
}

/* Short reads up to an urgent mark, with more behind it that brings no edge of its own. */
static int urgent(void *arg)
{
	char bytes[100];
	size_t got = 0;
	int fd[2];

	(void)arg;
	net_pair(fd);
	for (int round = 0; round < 50; round++) {
		got = 0;
		net_send(fd[0], "ab", 2);
		cr_assert_eq(send(fd[0], "u", 1, MSG_OOB), 1);
		net_send(fd[0], "cd", 2);
		while (got < 4) {
			ssize_t n = weft_read(fd[1], bytes, sizeof(bytes), NET_SOON);

			cr_assert_gt(n, 0, "%zd in round %d", n, round);
			got += (size_t)n;
		}
		cr_assert_eq(got, 4);
	}
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(epoll, urgent_data_does_not_hide_what_comes_after_it, .timeout = 120)
{
	net_run(1, urgent, NULL);
}

/* --- I7: closing under operations of other workers, the number wanted at once --- */


struct reader {
	int fd;
	char bytes[64];
};

/* One call that stays in flight: it gets the mark, and waits for more. */
static int read_marked(void *arg)
{
	struct reader *reader = arg;

	return (int)weft_read_exact(reader->fd, reader->bytes, sizeof(reader->bytes), NET_SOON);
}

static bool is_in_flight(int fd)
{
	return wf_u64_load_relaxed(&wf_fd_find(fd)->word) & WF_FD_OPERATIONS;
}

/*
 * A call that has begun keeps its number. (One that begins after the close is the caller's mistake:
 * it finds whatever has the number by then.)
 */
static int close_and_reuse(void *arg)
{
	enum { ROUNDS = 300 / HARNESS_SLOWDOWN + 20 };
	int from = weft_listen("tcp:127.0.0.1:0", 0);
	unsigned port = net_port_of(from);

	(void)arg;
	for (unsigned round = 0; round < ROUNDS; round++) {
		int client = net_connect(port), next = net_connect(port);
		struct reader reader = { .fd = weft_accept(from, NET_SOON) };
		weft_pid pid = net_spawn_on(1, read_marked, &reader);
		char byte;
		int fd, r;

		net_send(client, "m", 1);
		net_send(next, "n", 1);
		while (!is_in_flight(reader.fd))
			(void)weft_yield();
		net_yield(round % 7);
		cr_assert_eq(weft_close(reader.fd), 0);
		/* Takes the number as soon as the kernel has it back. */
		fd = weft_accept(from, NET_SOON);
		net_recv_end(client);
		r = net_join(pid);
		cr_assert_eq(r, -ECANCELED);
		for (size_t i = 0; i < sizeof(reader.bytes); i++)
			cr_assert_neq(reader.bytes[i], 'n');
		cr_assert_eq(weft_read(fd, &byte, 1, NET_SOON), 1);
		cr_assert_eq(byte, 'n', "the new connection's byte is still there");
		cr_assert_eq(weft_close(fd), 0);
		close(client);
		close(next);
	}
	cr_assert_eq(weft_close(from), 0);
	return 0;
}

Test(epoll, a_number_reused_at_once_is_not_confused, .timeout = 120)
{
	net_run(2, close_and_reuse, NULL);
	for (int fd = 0; fd < 1024; fd++)
		cr_assert(wf_fd_valid(fd));
}
