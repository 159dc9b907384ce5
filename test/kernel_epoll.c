/*
 * Goal: what io/ assumes of the kernel's epoll and eventfd holds on this one. Method: the bare
 * system calls, no Weft. Each test names the place that relies on it.
 */
#include "test/kernel.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#define ALL (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

/* What one epoll_wait says of the only descriptor registered; 0: nothing. */
static uint32_t events_now(int epoll)
{
	struct epoll_event event = { .events = 0 };
	int n = epoll_wait(epoll, &event, 1, 0);

	cr_assert_geq(n, 0);
	return n ? event.events : 0;
}

/* For what the kernel may take a moment to deliver. */
static uint32_t events_soon(int epoll)
{
	struct epoll_event event = { .events = 0 };

	cr_assert_eq(epoll_wait(epoll, &event, 1, -1), 1);
	return event.events;
}

static void watch(int epoll, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
}

/* fd.c registers at the first wait: what has happened before must still be reported. */
Test(kernel_epoll, adding_a_ready_descriptor_reports_an_edge)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int fd[2];

	pair(fd);
	cr_assert_eq(write(fd[0], "x", 1), 1);
	until_readable(fd[1]);
	watch(epoll, fd[1], ALL);
	cr_assert(events_now(epoll) & EPOLLIN);
	cr_assert_eq(events_now(epoll), 0, "an edge is reported once");
	cr_assert_eq(write(fd[0], "y", 1), 1);
	cr_assert(events_soon(epoll) & EPOLLIN, "unread data does not hide the next edge");
}

/* wait.c home_settle() replaces a registration left behind. */
Test(kernel_epoll, modifying_reports_what_is_ready_anew)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = ALL };
	int fd[2];

	pair(fd);
	watch(epoll, fd[1], ALL);
	cr_assert(events_now(epoll) & EPOLLOUT);
	cr_assert_eq(events_now(epoll), 0);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[1], &event), -1);
	cr_assert_eq(errno, EEXIST);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_MOD, fd[1], &event), 0);
	cr_assert(events_now(epoll) & EPOLLOUT);
}

/* fd.h: why a short count may clear READ: the end, too, is an edge, with RDHUP. */
Test(kernel_epoll, the_end_of_a_stream_is_an_edge_with_rdhup)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	char bytes[8];
	int fd[2];

	pair(fd);
	watch(epoll, fd[1], ALL);
	cr_assert_eq(write(fd[0], "x", 1), 1);
	cr_assert(events_soon(epoll) & (EPOLLIN | EPOLLOUT));
	until_readable(fd[1]);
	(void)events_now(epoll);
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 1);
	cr_assert_eq(shutdown(fd[0], SHUT_WR), 0);
	cr_assert(events_soon(epoll) & EPOLLRDHUP);
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 0);
}

/* fd.h: urgent data makes a short count prove nothing, but it is reported. */
Test(kernel_epoll, urgent_data_stops_a_read_and_is_an_edge_with_pri)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	uint32_t seen = 0;
	char bytes[8];
	int fd[2];

	pair(fd);
	cr_assert_eq(send(fd[0], "ab", 2, 0), 2);
	cr_assert_eq(send(fd[0], "u", 1, MSG_OOB), 1);
	cr_assert_eq(send(fd[0], "cd", 2, 0), 2);
	watch(epoll, fd[1], ALL);
	while (!(seen & EPOLLPRI))
		seen |= events_soon(epoll);
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 2, "it stops at the mark");
	cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 2, "with more behind it");
}

/* fd.h: a short write clears WRITE; the room that comes is an edge. */
Test(kernel_epoll, room_after_a_short_write_is_an_edge)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	static char bytes[1 << 26];
	uint32_t seen = 0;
	ssize_t n;
	int fd[2];

	pair(fd);
	n = write(fd[1], bytes, sizeof(bytes));
	cr_assert_gt(n, 0);
	cr_assert_lt(n, (ssize_t)sizeof(bytes), "the count is short");
	watch(epoll, fd[1], ALL);
	while (n > 0)
		n -= read(fd[0], bytes, sizeof(bytes));
	while (!(seen & EPOLLOUT))
		seen |= events_soon(epoll);
}

/* epoll.c: nobody reads the eventfd, and every write is an edge; many before a look are one. */
Test(kernel_epoll, each_write_to_an_unread_eventfd_is_an_edge)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t one = 1;

	watch(epoll, wake, EPOLLIN | EPOLLET);
	cr_assert_eq(events_now(epoll), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i <= round; i++)
			cr_assert_eq(write(wake, &one, sizeof(one)), (ssize_t)sizeof(one));
		cr_assert(events_now(epoll) & EPOLLIN);
		cr_assert_eq(events_now(epoll), 0);
	}
}

/* fd.c: close(2) of the last reference removes registrations from every epoll instance. */
Test(kernel_epoll, closing_removes_the_registration)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = ALL };
	int fd[2], number;

	pair(fd);
	number = fd[1];
	watch(epoll, number, ALL);
	close(number);
	cr_assert_eq(events_now(epoll), 0);
	cr_assert_eq(fcntl(fd[0], F_DUPFD_CLOEXEC, number), number);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event), 0, "not EEXIST");
}

/*
 * epoll.c: nanoseconds are nanoseconds. On a busy machine a sleep takes as long as it likes, so
 * this goes on until one of 0.1 ms was shorter than a millisecond.
 */
Test(kernel_epoll, pwait2_sleeps_for_less_than_a_millisecond, .timeout = 120)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;
	struct timespec delay = { .tv_nsec = 100000 };
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < 50 || shortest >= 1000000; i++) {
		uint64_t start = harness_now_ns(), took;

		if (epoll_pwait2(epoll, &event, 1, &delay, NULL) < 0 && errno == ENOSYS)
			cr_skip_test("no epoll_pwait2 in this kernel");
		took = harness_now_ns() - start;
		cr_assert_geq(took, 100000, "never early");
		if (took < shortest)
			shortest = took;
	}
	fprintf(stderr, "epoll_pwait2: %.1f us late at least\n", (double)(shortest - 100000) / 1e3);
}

/* epoll.c wait_ms(), where there is no epoll_pwait2: rounded up, so that it is never early. */
Test(kernel_epoll, whole_milliseconds_are_never_early, .timeout = 120)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;

	for (int i = 0; i < 10; i++) {
		uint64_t start = harness_now_ns();

		cr_assert_eq(epoll_wait(epoll, &event, 1, 1), 0);
		cr_assert_geq(harness_now_ns() - start, 1000000);
	}
}

/* epoll.c sleep_for(): a time that has passed is a look, not an error. */
Test(kernel_epoll, a_delay_of_nothing_looks_and_returns)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct timespec none = { 0, 0 };
	struct epoll_event event;
	int r = epoll_pwait2(epoll, &event, 1, &none, NULL);

	if (r < 0 && errno == ENOSYS)
		cr_skip_test("no epoll_pwait2 in this kernel");
	cr_assert_eq(r, 0);
}

/* --- Edges --- */

/* fd.h: "the next byte is an edge of its own", which is why a short count may clear READ. */
Test(kernel_epoll, a_byte_after_a_short_read_is_an_edge)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	char bytes[8];
	int fd[2];

	pair(fd);
	watch(epoll, fd[1], ALL);
	(void)events_now(epoll);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(write(fd[0], "xyz", 3), 3);
		until_readable(fd[1]);
		cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 3, "short: there is no more");
		(void)events_now(epoll);
		cr_assert_eq(write(fd[0], "w", 1), 1);
		cr_assert(events_soon(epoll) & EPOLLIN);
		cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), 1);
		cr_assert_eq(read(fd[1], bytes, sizeof(bytes)), -1);
		cr_assert_eq(errno, EAGAIN);
	}
}

/* epoll.c ready_of(): a reset is an edge for readers and writers, with ERR and HUP. */
Test(kernel_epoll, a_reset_is_an_edge_with_err_and_hup)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	uint32_t seen = 0, wanted = EPOLLERR | EPOLLHUP | EPOLLIN | EPOLLRDHUP;
	int fd[2];

	pair(fd);
	watch(epoll, fd[1], ALL);
	(void)events_now(epoll);
	cr_assert_eq(setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	close(fd[0]);
	while ((seen & wanted) != wanted)
		seen |= events_soon(epoll);
}

/* tcp.c connect_one(): the outcome of a connect, either one, is an edge for writers. */
Test(kernel_epoll, the_outcome_of_a_connect_is_an_edge)
{
	for (int listens = 0; listens < 2; listens++) {
		struct sockaddr_in address = loopback();
		int from = listener(&address, 0), epoll = epoll_create1(EPOLL_CLOEXEC);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		uint32_t seen = 0;

		if (listens)
			cr_assert_eq(listen(from, 1), 0);
		watch(epoll, fd, ALL);
		(void)connect(fd, (const struct sockaddr *)&address, sizeof(address));
		while (!(seen & (EPOLLOUT | EPOLLERR)) || (seen & EPOLLHUP && !(seen & EPOLLERR)))
			seen = events_soon(epoll);
		cr_assert_eq((seen & EPOLLERR) != 0, !listens);
		close(fd);
		close(from);
	}
}

static void connect_to(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(connect(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
}

/*
 * tcp.c, wf_op_pass_on(): each connection that comes is an edge, also while others wait; taking one
 * is none, so who takes one of two has to tell the next acceptor.
 */
Test(kernel_epoll, each_new_connection_is_an_edge_and_accepting_is_none)
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0), epoll = epoll_create1(EPOLL_CLOEXEC);

	cr_assert_eq(listen(from, 10), 0);
	watch(epoll, from, ALL);
	(void)events_now(epoll);
	for (int i = 0; i < 3; i++) {
		connect_to(&address);
		cr_assert(events_soon(epoll) & EPOLLIN, "connection %d", i);
		cr_assert_eq(events_now(epoll), 0);
	}
	cr_assert_geq(accept4(from, NULL, NULL, SOCK_CLOEXEC), 0);
	cr_assert_eq(events_now(epoll), 0, "two are left");
}

/* --- Registering --- */

/* epoll.c epoll_add(): files that are always ready are refused with EPERM. */
Test(kernel_epoll, regular_files_are_refused_with_eperm)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct epoll_event event = { .events = ALL };

	cr_assert_geq(fd, 0);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), -1);
	cr_assert_eq(errno, EPERM);
}

/* epoll.c epoll_remove() counts by this: only what was registered can be taken away, once. */
Test(kernel_epoll, taking_away_what_is_not_registered_is_an_error)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int fd[2];

	pair(fd);
	watch(epoll, fd[1], ALL);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_DEL, fd[1], NULL), 0);
	cr_assert_eq(events_now(epoll), 0);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_DEL, fd[1], NULL), -1);
	cr_assert_eq(errno, ENOENT);
	close(fd[1]);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_DEL, fd[1], NULL), -1);
	cr_assert_eq(errno, EBADF);
}

/*
 * fd.h E2, "drop it if the generation is another": a copy keeps the registration of a closed number
 * alive, and its events come with the token of the past, beside those of the number's next use.
 */
Test(kernel_epoll, a_copy_keeps_the_registration_of_a_number_that_is_used_again)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event old = { .events = ALL, .data.u64 = 1 };
	struct epoll_event new = { .events = ALL, .data.u64 = 2 };
	struct epoll_event event[4];
	int first[2], second[2], number;
	uint64_t tokens = 0;

	pair(first);
	pair(second);
	number = first[1];
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &old), 0);
	cr_assert_geq(dup(number), 0);
	cr_assert_eq(dup2(second[1], number), number); /* closes it */
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &new), 0, "not EEXIST");
	cr_assert_eq(write(first[0], "x", 1), 1);
	cr_assert_eq(write(second[0], "x", 1), 1);
	while (tokens != 3) {
		int n = epoll_wait(epoll, event, 4, -1);

		for (int i = 0; i < n; i++)
			tokens |= event[i].events & EPOLLIN ? event[i].data.u64 : 0;
	}
	/* By its number only the new one can be taken away. */
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_DEL, number, NULL), 0);
	cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_DEL, number, NULL), -1);
	cr_assert_eq(errno, ENOENT);
}

/* epoll.c epoll_watch(): without EPOLLET what is left is reported each time. */
Test(kernel_epoll, a_level_is_reported_until_it_is_gone)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t value;

	watch(epoll, fd, EPOLLIN);
	cr_assert_eq(events_now(epoll), EPOLLIN);
	cr_assert_eq(events_now(epoll), EPOLLIN);
	cr_assert_eq(read(fd, &value, sizeof(value)), (ssize_t)sizeof(value));
	cr_assert_eq(events_now(epoll), 0);
}

/* epoll.c, --io-batch: what one call has no room for comes with the next, edges too, in turn. */
Test(kernel_epoll, edges_that_do_not_fit_wait_for_the_next_call)
{
	enum { COUNT = 10 };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event[4];
	unsigned seen = 0;

	for (unsigned i = 0; i < COUNT; i++) {
		struct epoll_event wanted = { .events = EPOLLIN | EPOLLET, .data.u64 = i };

		cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, eventfd(1, EFD_CLOEXEC), &wanted), 0);
	}
	for (int n; (n = epoll_wait(epoll, event, 3, 0)) > 0;)
		while (n-- > 0) {
			cr_assert_eq(seen & 1u << event[n].data.u64, 0u, "once each");
			seen |= 1u << event[n].data.u64;
		}
	cr_assert_eq(seen, (1u << COUNT) - 1);
}

/* --- Threads --- */

struct sleep {
	int epoll;
	int *tid;
	int result;
};

static void *sleep_in_epoll(void *arg)
{
	struct sleep *sleep = arg;
	struct epoll_event event;

	__atomic_store_n(sleep->tid, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
	sleep->result = epoll_wait(sleep->epoll, &event, 1, -1);
	return NULL;
}

/* Starts a thread that sleeps there, and returns when it does. */
static pthread_t sleeping(struct sleep *sleep)
{
	pthread_t thread;
	int tid = 0;

	sleep->tid = &tid;
	cr_assert_eq(pthread_create(&thread, NULL, sleep_in_epoll, sleep), 0);
	while (__atomic_load_n(&tid, __ATOMIC_ACQUIRE) == 0)
		sched_yield();
	kernel_until_asleep(tid);
	return thread;
}

/* epoll.c epoll_wake(): from any thread. */
Test(kernel_epoll, a_write_elsewhere_ends_a_sleep, .timeout = 120)
{
	struct sleep sleep = { .epoll = epoll_create1(EPOLL_CLOEXEC) };
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t one = 1;
	pthread_t thread;

	watch(sleep.epoll, wake, EPOLLIN | EPOLLET);
	thread = sleeping(&sleep);
	cr_assert_eq(write(wake, &one, sizeof(one)), (ssize_t)sizeof(one));
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(sleep.result, 1);
}

/* epoll.c epoll_add(): other workers may register while the owner sleeps; what is ready ends it. */
Test(kernel_epoll, registering_something_ready_elsewhere_ends_a_sleep, .timeout = 120)
{
	struct sleep sleep = { .epoll = epoll_create1(EPOLL_CLOEXEC) };
	pthread_t thread = sleeping(&sleep);

	watch(sleep.epoll, eventfd(1, EFD_CLOEXEC), EPOLLIN | EPOLLET);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(sleep.result, 1);
}

/* epoll.c: "its counter would take 2^64 wakes to fill": only then is a wake refused. */
Test(kernel_epoll, only_a_full_eventfd_refuses_a_write)
{
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t most = UINT64_MAX - 1, one = 1;

	cr_assert_eq(write(wake, &most, sizeof(most)), (ssize_t)sizeof(most));
	cr_assert_eq(write(wake, &one, sizeof(one)), -1);
	cr_assert_eq(errno, EAGAIN);
}
