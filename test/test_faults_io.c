/*
 * Descriptors, connections, servers and weft_main() when what they ask the system for is refused:
 * each call succeeds, or fails as documented and leaves nothing behind; and what another process
 * waits for ends.
 *
 * Method: test/faults.h. One process plays both ends of a connection where it can: nothing has to
 * be told to give up when the other end has failed. Traffic stays on loopback.
 */
#include "test/faults.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "test/net.h"
#include "test/runtime.h"

/* EPERM of a call on a descriptor is the system's, when a fault has given it. */
#define OF_SYSTEM   (faults.error == EPERM ? -EPERM : -ENOMEM)
#define OF_RESOLVER (faults.call == WF_CALL_LOOKUP ? -EIO : -ENOMEM)

static bool is_open(int fd)
{
	int saved = errno; /* processes share their thread's, and another may be in a CALL */
	bool open = fcntl(fd, F_GETFD) >= 0;

	errno = saved;
	return open;
}

/* weft_close() tells what close(2) told; the descriptor is closed all the same. */
static void close_used(int fd)
{
	int r = CALL(weft_close(fd));

	if (!documented(r, -EIO))
		cr_assert_eq(faults.call, SYS_close);
}

/* One that nobody waits on. */
static void close_it(int fd)
{
	close_used(fd);
	cr_assert(!is_open(fd));
}

/* Runs fn(arg) as a process on worker 0 of a runtime of its own. */
static void in_fault_rt_of(unsigned workers, const char *driver, weft_fn fn, void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .worker = WEFT_WORKER(0)};
	weft_rt *rt = faults_rt_unharmed((struct weft_rt_opts){
		.workers = workers, .idle = WEFT_IDLE_PARK, .driver = driver});
	int result = 0;
	weft_pid pid;

	if (documented(CALL(weft_rt_spawn(rt, fn, arg, &opts, &pid)), -ENOMEM)) {
		cr_assert_eq(CALL(weft_join(pid, &result, WEFT_FOREVER)), 0);
		if (result != 0) {
			cr_assert_eq(result, -ENOMEM);
			cr_assert_gt(faults_fired(), 0);
		}
	}
	faults_rt_end(rt);
}

static void in_fault_rt(unsigned workers, weft_fn fn, void *arg)
{
	in_fault_rt_of(workers, NULL, fn, arg);
}

/* --- A connection --- */

/* A pair of connected descriptors; false: it failed as it may, and nothing is open. */
struct pair {
	int a, b;
};

static bool connected(const char *host, struct pair *pair_out)
{
	char address[WEFT_ADDRESS_MAX], bound[WEFT_ADDRESS_MAX];
	int listener, r;

	snprintf(address, sizeof(address), "tcp:%s:0", host);
	listener = CALL(weft_listen(address, 0));
	if (!documented_io(
		    listener, -ENOMEM, OF_SYSTEM, OF_RESOLVER, -EADDRNOTAVAIL, -EAFNOSUPPORT))
		return false;
	r = CALL(weft_local_address(listener, bound, sizeof(bound)));
	pair_out->a = pair_out->b = -1;
	if (documented_io(r, OF_SYSTEM)) {
		snprintf(address, sizeof(address), "tcp:%s%s", host, strrchr(bound, ':'));
		r = pair_out->a = CALL(weft_connect(address, WEFT_FOREVER));
	}
	if (documented_io(r, -ENOMEM, -EADDRNOTAVAIL, OF_SYSTEM, OF_RESOLVER))
		r = pair_out->b = CALL(weft_accept(listener, WEFT_FOREVER));
	(void)documented_io(r, -ENOMEM, -EADDRNOTAVAIL, OF_SYSTEM, OF_RESOLVER);
	if (r < 0 && pair_out->a >= 0)
		close_it(pair_out->a);
	close_it(listener);
	return r >= 0;
}

/*
 * True: the call moved that many bytes. Else it failed as it may. Adoption asks fcntl, whose errors
 * mean that this is no descriptor to use; and a connect that goes on to the next address leaves a
 * connection without a peer in the listener's queue.
 */
static bool moved(ssize_t n, ssize_t expected)
{
	if (documented_io(n, -ENOMEM, faults.call == SYS_fcntl ? -EBADF : -ENOMEM,
		    faults.call == SYS_fcntl ? -EPERM : -ENOMEM, -ECONNRESET, -EPIPE) &&
		n == expected)
		return true;
	cr_assert_gt(faults_fired(), 0);
	return false;
}

/* Moves bytes from one end to the other by every call; all in one process. */
static void move(const struct pair *pair)
{
	struct weft_buf buf;
	char bytes[64];

	if (!moved(CALL(weft_write(pair->a, "one", 3, WEFT_FOREVER)), 3) ||
		!moved(CALL(weft_poll_fd(pair->b, WEFT_READABLE, WEFT_FOREVER)), WEFT_READABLE) ||
		!moved(CALL(weft_read(pair->b, bytes, sizeof(bytes), WEFT_FOREVER)), 3) ||
		!moved(CALL(weft_write_all(pair->b, "three", 5, WEFT_FOREVER)), 5) ||
		!moved(CALL(weft_read_exact(pair->a, bytes, 5, WEFT_FOREVER)), 5) ||
		!moved(CALL(weft_write(pair->a, "four", 4, WEFT_FOREVER)), 4) ||
		!moved(CALL(weft_recv_buf(pair->b, &buf, WEFT_FOREVER)), 4))
		return;
	cr_assert_eq(memcmp(buf.data, "four", 4), 0);
	weft_buf_release(&buf);
}

/* Reads until the end of the stream; from the start on it has to wait. */
static int drain(void *arg)
{
	char bytes[16];
	ssize_t n;

	do
		n = CALL(weft_read(*(int *)arg, bytes, sizeof(bytes), WEFT_FOREVER));
	while (n > 0);
	if (n != 0 && n != -ECANCELED && n != -EBADF) /* closed: meanwhile, or before */
		(void)moved(n, 0);
	return 0;
}

/* Writes `rounds` times, each time when the reader has had time to go to sleep. */
static void feed(int fd, int rounds)
{
	bool ok = true;

	for (int i = 0; i < rounds && ok; i++) {
		net_yield(5);
		ok = moved(CALL(weft_write(fd, "x", 1, WEFT_FOREVER)), 1);
	}
	net_yield(5);
}

/*
 * Another process waits on the other end: a reader that is told by data, by the end of the stream,
 * or by weft_close() on its own descriptor.
 */
static void wake_reader(struct pair *pair, unsigned worker, int rounds, bool close_under_it)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .worker = worker};
	weft_pid reader;

	if (documented(CALL(weft_spawn_with(drain, &pair->b, &opts, &reader)), -ENOMEM)) {
		feed(pair->a, rounds);
		close_used(close_under_it ? pair->b : pair->a);
		cr_assert_eq(CALL(weft_join(reader, NULL, WEFT_FOREVER)), 0);
		cr_assert(!is_open(close_under_it ? pair->b : pair->a));
		close_it(close_under_it ? pair->a : pair->b);
	} else {
		close_it(pair->a);
		close_it(pair->b);
	}
}

static int tcp_in_process(void *arg)
{
	const char *host = *(const char *const *)arg;
	struct pair pair;

	if (!connected(host, &pair))
		return 0;
	move(&pair);
	wake_reader(&pair, WEFT_WORKER(0), 2, false);
	return 0;
}

static void tcp(void *host)
{
	in_fault_rt(1, tcp_in_process, host);
}

Test(faults_io, a_connection_is_made_or_refused, .timeout = 120)
{
	const char *host = "127.0.0.1";

	cr_assert_geq(faults_sweep(tcp, &host, true), FAULTS_AT_LEAST(120));
}

/* All addresses: IPv6 is tried first, IPv4 where it is missing. */
Test(faults_io, a_connection_by_any_address_is_made_or_refused, .timeout = 120)
{
	const char *host = "";

	cr_assert_geq(faults_sweep(tcp, &host, true), FAULTS_AT_LEAST(120));
}

/* A name: the resolver's thread, and its job. */
Test(faults_io, a_connection_by_name_is_made_or_refused, .timeout = 120)
{
	const char *host = "localhost";

	cr_assert_geq(faults_sweep(tcp, &host, true), FAULTS_AT_LEAST(120));
}

/* The reader is on another worker, long enough for its descriptor to move there. */
static int far_in_process(void *arg)
{
	struct pair pair;

	(void)arg;
	if (connected("127.0.0.1", &pair)) {
		move(&pair);
		wake_reader(&pair, WEFT_WORKER(1), 12, true);
	}
	return 0;
}

static void far_away(void *arg)
{
	in_fault_rt(2, far_in_process, arg);
}

Test(faults_io, a_descriptor_that_moves_reports_or_says_why_not, .timeout = 120)
{
	cr_assert_geq(faults_sweep(far_away, NULL, true), FAULTS_AT_LEAST(150));
}

/* --- In memory --- */

/* More than one piece, so that a later one may find no memory. */
static void write_much(const struct pair *pair)
{
	enum { SIZE = 150000 };
	static char bytes[SIZE];
	ssize_t written = CALL(weft_write(pair->a, bytes, SIZE, WEFT_FOREVER));

	if (!documented(written, -ENOMEM))
		return;
	cr_assert(written == SIZE || faults_fired() > 0);
	cr_assert_eq(CALL(weft_read_exact(pair->b, bytes, (size_t)written, WEFT_FOREVER)), written);
	/* It can be written still. */
	if (moved(CALL(weft_write(pair->a, "x", 1, WEFT_FOREVER)), 1))
		(void)moved(CALL(weft_read(pair->b, bytes, 1, WEFT_FOREVER)), 1);
}

static int memory_in_process(void *arg)
{
	struct pair pair;

	(void)arg;
	if (!connected("127.0.0.1", &pair))
		return 0;
	write_much(&pair);
	move(&pair);
	wake_reader(&pair, WEFT_WORKER(0), 2, false);
	return 0;
}

static void memory(void *arg)
{
	cr_assert_eq(CALL(weft_mem_setup(arg)), 0);
	in_fault_rt_of(1, "mem", memory_in_process, NULL);
	cr_assert_eq(CALL(weft_mem_setup(NULL)), 0, "a socket is left");
}

Test(faults_io, a_connection_in_memory_is_made_or_refused, .timeout = 120)
{
	struct weft_mem_opts opts = {.size = sizeof(opts), .buffer_bytes = 1 << 20};

	cr_assert_geq(faults_sweep(memory, &opts, true), FAULTS_AT_LEAST(80));
}

Test(faults_io, a_late_connection_in_memory_is_made_or_refused, .timeout = 120)
{
	struct weft_mem_opts opts = {.size = sizeof(opts), .buffer_bytes = 1 << 20,
		.latency_min_ns = WEFT_US(1), .latency_max_ns = WEFT_US(5)};

	cr_assert_geq(faults_sweep(memory, &opts, true), FAULTS_AT_LEAST(100));
}

/* The table's first sockets are mapped when one is made. */
Test(faults_io, a_first_socket_in_memory_is_made_or_refused, .timeout = 20)
{
	int fd;

	faults_plan(SYS_mmap, "mmap", 1, 1, ENOMEM);
	fd = CALL(weft_listen("mem:", 0));
	cr_assert_eq(fd, WF_FAULTS ? -ENOMEM : fd);
	if (fd >= 0)
		cr_assert_eq(CALL(weft_close(fd)), 0);
	cr_assert_eq(CALL(weft_mem_setup(NULL)), 0, "a socket is left");
	fd = CALL(weft_listen("mem:", 0));
	cr_assert_geq(fd, 0);
	cr_assert_eq(CALL(weft_close(fd)), 0);
	faults_plan_none();
}

/* --- Waiting --- */

/* moved(), or cancelled: the other end has failed, and waiting for it was given up. */
static bool came(ssize_t n, ssize_t expected)
{
	if (n != -ECANCELED)
		return moved(n, expected);
	cr_assert_gt(faults_fired(), 0);
	return false;
}

/* Every call that waits, on one end of a connection, until the other end does something. */
static int wait_in_turn(void *arg)
{
	int fd = *(int *)arg;
	struct weft_buf buf;
	char bytes[4];

	if (!came(CALL(weft_poll_fd(fd, WEFT_READABLE, WEFT_FOREVER)), WEFT_READABLE) ||
		!came(CALL(weft_read_exact(fd, bytes, 2, WEFT_FOREVER)), 2) ||
		!came(CALL(weft_recv_buf(fd, &buf, WEFT_FOREVER)), 1))
		return 0;
	weft_buf_release(&buf);
	(void)came(CALL(weft_read(fd, bytes, sizeof(bytes), WEFT_FOREVER)), 1);
	return 0;
}

/* A wait that ends by its deadline, or by what has failed. */
static void wait_in_vain(int fd)
{
	weft_time until = weft_after(WEFT_US(200));
	char byte;
	ssize_t n = CALL(weft_read(fd, &byte, 1, until));

	if (n != -ETIME)
		cr_assert(!moved(n, 1));
	else
		cr_assert_geq(weft_now(), until);
	n = CALL(weft_poll_fd(fd, WEFT_READABLE, weft_after(WEFT_US(200))));
	if (n != -ETIME)
		cr_assert(!moved(n, -1));
}

static int wait_in_process(void *arg)
{
	struct pair pair;
	weft_pid waiter;

	(void)arg;
	if (!connected("127.0.0.1", &pair))
		return 0;
	wait_in_vain(pair.b);
	if (documented(CALL(weft_spawn(wait_in_turn, &pair.b, &waiter)), -ENOMEM)) {
		feed(pair.a, 4);
		(void)CALL(weft_cancel(waiter)); /* what it has missed it would wait for */
		cr_assert_eq(CALL(weft_join(waiter, NULL, WEFT_FOREVER)), 0);
	}
	close_it(pair.a);
	close_it(pair.b);
	return 0;
}

static void wait_for_it(void *arg)
{
	in_fault_rt(1, wait_in_process, arg);
}

Test(faults_io, whoever_waits_gets_data_or_its_deadline_or_says_why_not, .timeout = 120)
{
	cr_assert_geq(faults_sweep(wait_for_it, NULL, true), FAULTS_AT_LEAST(100));
}

/* Parked in each call when the runtime is destroyed: cancelled, whatever has failed. */
static int park_in_read(void *arg)
{
	char byte;
	ssize_t n = CALL(weft_read(*(int *)arg, &byte, 1, WEFT_FOREVER));

	cr_assert(n == -ECANCELED || !moved(n, 1));
	return 0;
}

static int park_in_poll(void *arg)
{
	int r = CALL(weft_poll_fd(*(int *)arg, WEFT_READABLE, NET_SOON));

	cr_assert(r == -ECANCELED || !moved(r, WEFT_READABLE));
	return 0;
}

static int park_in_connect(void *arg)
{
	int fd = CALL(weft_connect(arg, NET_SOON));

	if (fd >= 0)
		close_it(fd);
	return 0;
}

struct stopping {
	weft_rt *rt;
	struct pair pair;
	bool open;
};

static int park_all(void *arg)
{
	static const weft_fn ways[] = {park_in_read, park_in_poll, parks};
	static char nobody[] = "tcp:localhost:1";
	struct stopping *stopping = arg;

	stopping->open = connected("127.0.0.1", &stopping->pair);
	for (size_t i = 0; stopping->open && i < WF_ARRAY_COUNT(ways); i++) {
		int r = CALL(weft_spawn(ways[i], &stopping->pair.b, NULL));

		(void)documented(r, -ENOMEM);
	}
	(void)documented(CALL(weft_spawn(park_in_connect, nobody, NULL)), -ENOMEM);
	net_yield(5);
	return 0;
}

/* The descriptors are closed after the runtime has ended: by a thread that is in none. */
static void stop_while_parked(void *arg)
{
	struct stopping stopping = {.rt = faults_rt_unharmed(
		(struct weft_rt_opts){.workers = 1, .idle = WEFT_IDLE_PARK})};
	weft_pid pid;

	(void)arg;
	if (documented(CALL(weft_rt_spawn(stopping.rt, park_all, &stopping, NULL, &pid)), -ENOMEM))
		cr_assert_eq(CALL(weft_join(pid, NULL, WEFT_FOREVER)), 0);
	faults_rt_end(stopping.rt);
	if (stopping.open) {
		close_it(stopping.pair.a);
		close_it(stopping.pair.b);
	}
}

Test(faults_io, a_runtime_ends_whoever_is_parked_in_it, .timeout = 120)
{
	cr_assert_geq(faults_sweep(stop_while_parked, NULL, true), FAULTS_AT_LEAST(80));
}

/* What needs no process, on a thread of the host's; a name blocks it. */
static void outside(void *arg)
{
	char address[WEFT_ADDRESS_MAX];
	int fd = CALL(weft_listen(arg, 0));

	if (!documented_io(fd, -ENOMEM, OF_SYSTEM, OF_RESOLVER))
		return;
	cr_assert_eq(CALL(weft_accept(fd, WEFT_POLL)), -EPERM);
	(void)documented_io(CALL(weft_local_address(fd, address, sizeof(address))), OF_SYSTEM);
	close_it(fd);
	fd = CALL(weft_listen(arg, 0));
	if (!documented_io(fd, -ENOMEM, OF_SYSTEM, OF_RESOLVER))
		return;
	cr_assert_eq(CALL(weft_fd_forget(fd)), 0);
	close(fd);
}

Test(faults_io, threads_of_the_host_listen_and_close_or_are_refused, .timeout = 120)
{
	char literal[] = "tcp:127.0.0.1:0", name[] = "tcp:localhost:0";

	cr_assert_geq(faults_sweep(outside, literal, true), FAULTS_AT_LEAST(30));
	cr_assert_geq(faults_sweep(outside, name, true), FAULTS_AT_LEAST(30));
}

/* --- Descriptors of the host's --- */

/* A pair of the host's; the end that is read from may be Weft's to close, or be given back. */
static int adopted_in_process(void *arg)
{
	bool forget = *(const bool *)arg;
	struct pair pair;
	int fd[2], r;
	char byte;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	pair = (struct pair){fd[0], fd[1]};
	move(&pair);
	if (!forget) {
		wake_reader(&pair, WEFT_WORKER(0), 2, true);
	} else {
		r = CALL(weft_fd_forget(pair.b));
		cr_assert(r == 0 || (r == -EBADF && faults_fired() > 0));
		close(pair.b);
		close_it(pair.a);
	}
	cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
	if (moved(CALL(weft_write(fd[1], "p", 1, WEFT_FOREVER)), 1))
		(void)moved(CALL(weft_read(fd[0], &byte, 1, WEFT_FOREVER)), 1);
	pair = (struct pair){fd[1], fd[0]};
	wake_reader(&pair, WEFT_WORKER(0), 1, false);
	return 0;
}

static void adopted(void *arg)
{
	in_fault_rt(1, adopted_in_process, arg);
}

Test(faults_io, adopted_descriptors_work_or_say_why_not, .timeout = 120)
{
	bool forget = false;

	cr_assert_geq(faults_sweep(adopted, &forget, true), FAULTS_AT_LEAST(100));
}

Test(faults_io, adopted_descriptors_are_given_back_or_say_why_not, .timeout = 120)
{
	bool forget = true;

	cr_assert_geq(faults_sweep(adopted, &forget, true), FAULTS_AT_LEAST(80));
}

/* --- The first use of a number --- */

/*
 * Entries of the descriptor table are mapped when a number of their size is first used, so each
 * call here meets a size of its own.
 */
static int first_use_in_process(void *arg)
{
	int high[] = {1500, 3000, 6000};
	char byte;
	int r;

	(void)arg;
	for (size_t i = 0; i < WF_ARRAY_COUNT(high); i++) {
		int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

		cr_assert_geq(fd, 0);
		cr_assert_eq(fcntl(fd, F_DUPFD_CLOEXEC, high[i]), high[i]);
		close(fd);
	}
	faults_arm(true);
	cr_assert_eq(CALL(weft_read(high[0], &byte, 1, WEFT_FOREVER)), -ENOMEM);
	cr_assert_eq(CALL(weft_read(high[0], &byte, 1, WEFT_FOREVER)), 0);
	faults_arm(true);
	cr_assert_eq(CALL(weft_close(high[1])), 0, "it is open, and nobody uses it");
	cr_assert(!is_open(high[1]));
	faults_arm(true);
	cr_assert_eq(CALL(weft_fd_forget(high[2])), -EBADF, "never used");
	r = CALL(weft_poll_fd(high[2], WEFT_READABLE, WEFT_POLL));
	cr_assert_eq(r, -ENOMEM);
	r = CALL(weft_poll_fd(high[2], WEFT_READABLE, WEFT_POLL));
	cr_assert_eq(r, WEFT_READABLE);
	faults_arm(false);
	cr_assert_eq(CALL(weft_close(high[0])), 0);
	cr_assert_eq(CALL(weft_close(high[2])), 0);
	return 0;
}

/* The numbers used here have to be allowed. */
static void raise_fd_limit(void)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_max < 8192)
		cr_skip_test("needs 8192 descriptors");
	limit.rlim_cur = limit.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

Test(faults_io, a_number_that_finds_no_memory_is_not_lost, .timeout = 20)
{
	if (!WF_FAULTS)
		cr_skip_test("nothing fails in release");
	raise_fd_limit();
	faults_plan(SYS_mmap, "mmap", 1, 1, ENOMEM);
	faults_arm(false);
	in_fault_rt(1, first_use_in_process, NULL);
	cr_assert_eq(faults_fired(), 3);
}

/* Takes all numbers below `number`, so that the next descriptor gets it. */
static void fill_below(int number)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	while (fd < number - 1) {
		fd = dup(fd);
		cr_assert_geq(fd, 0);
	}
}

/* Each makes a descriptor that cannot be entered into the table, then one that can. */
static int first_made_in_process(void *arg)
{
	char address[WEFT_ADDRESS_MAX];
	int listener, a, b;

	(void)arg;
	fill_below(1024);
	faults_arm(true);
	cr_assert_eq(CALL(weft_listen("tcp:127.0.0.1:0", 0)), -ENOMEM);
	cr_assert(!is_open(1024));
	listener = CALL(weft_listen("tcp:127.0.0.1:0", 0));
	cr_assert_eq(listener, 1024);
	cr_assert_eq(weft_local_address(listener, address, sizeof(address)), 0);
	fill_below(2048);
	faults_arm(true);
	cr_assert_eq(CALL(weft_connect(address, NET_SOON)), -ENOMEM);
	cr_assert(!is_open(2048));
	a = CALL(weft_connect(address, NET_SOON));
	cr_assert_eq(a, 2048);
	fill_below(4096);
	faults_arm(true);
	cr_assert_eq(CALL(weft_accept(listener, NET_SOON)), -ENOMEM, "its connection is lost");
	cr_assert(!is_open(4096));
	b = CALL(weft_connect(address, NET_SOON));
	cr_assert_eq(b, 4096);
	faults_arm(false);
	cr_assert_eq(weft_close(listener), 0);
	cr_assert_eq(weft_close(a), 0);
	cr_assert_eq(weft_close(b), 0);
	return 0;
}

Test(faults_io, a_new_descriptor_that_finds_no_memory_is_closed, .timeout = 20)
{
	if (!WF_FAULTS)
		cr_skip_test("nothing fails in release");
	raise_fd_limit();
	faults_plan(SYS_mmap, "mmap", 1, 1, ENOMEM);
	faults_arm(false);
	in_fault_rt(1, first_made_in_process, NULL);
	cr_assert_eq(faults_fired(), 3);
}

/* --- Several at once --- */

enum {
	LOOKUPS = 10, /* more than there are threads that look up */
	ACCEPTORS = 3,
};

static int listen_by_name(void *arg)
{
	int fd = CALL(weft_listen("tcp:localhost:0", 0));

	(void)arg;
	if (documented_io(fd, -ENOMEM, OF_SYSTEM, OF_RESOLVER))
		close_used(fd); /* the resolver's threads may have opened that number again */
	return 0;
}

static void join_all(const weft_pid *pids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!weft_pid_is_none(pids[i]))
			cr_assert_eq(CALL(weft_join(pids[i], NULL, WEFT_FOREVER)), 0);
}

static void spawn_all(weft_fn fn, void *arg, weft_pid *pids_out, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!documented(CALL(weft_spawn(fn, arg, &pids_out[i])), -ENOMEM))
			pids_out[i].raw = 0;
}

static int look_up_in_process(void *arg)
{
	weft_pid pids[LOOKUPS];

	(void)arg;
	spawn_all(listen_by_name, NULL, pids, LOOKUPS);
	join_all(pids, LOOKUPS);
	return 0;
}

static void look_up(void *arg)
{
	in_fault_rt(1, look_up_in_process, arg);
}

/* A refused thread must fail only those whom no other thread will serve; nobody waits for ever. */
Test(faults_io, many_names_are_looked_up_or_refused, .timeout = 120)
{
	cr_assert_geq(faults_sweep(look_up, NULL, true), FAULTS_AT_LEAST(120));
}

struct sharing {
	int listener;
	wf_atomic_u32 accepted;
};

/* Accepts until the listener is closed; goes on after an error. */
static int accept_until_closed(void *arg)
{
	struct sharing *sharing = arg;
	int fd;

	for (;;) {
		fd = CALL(weft_accept(sharing->listener, WEFT_FOREVER));
		if (fd == -ECANCELED || fd == -EBADF)
			return 0;
		if (!documented_io(fd, -ENOMEM, OF_SYSTEM))
			continue;
		(void)wf_u32_fetch_add(&sharing->accepted, 1);
		close_it(fd);
	}
}

static unsigned bound_port(int fd)
{
	struct sockaddr_in address;
	socklen_t size = sizeof(address);

	cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	return ntohs(address.sin_port);
}

/* One fault loses none: who has to give up leaves the connection, or the wait, to another. */
static int share_in_process(void *arg)
{
	struct sharing sharing = {.listener = CALL(weft_listen("tcp:127.0.0.1:0", 0))};
	weft_pid pids[ACCEPTORS];
	unsigned port;

	(void)arg;
	if (!documented_io(sharing.listener, -ENOMEM, OF_SYSTEM))
		return 0;
	spawn_all(accept_until_closed, &sharing, pids, ACCEPTORS);
	net_yield(5);
	port = bound_port(sharing.listener);
	for (unsigned i = 0; i < 2 * ACCEPTORS; i++) {
		int fd = net_connect(port);

		UNTIL(wf_u32_load_acquire(&sharing.accepted) == i + 1);
		close(fd);
	}
	close_used(sharing.listener);
	join_all(pids, ACCEPTORS);
	return 0;
}

static void share(void *arg)
{
	in_fault_rt(1, share_in_process, arg);
}

Test(faults_io, a_listener_shared_by_several_loses_no_connection, .timeout = 120)
{
	cr_assert_geq(faults_sweep(share, NULL, false), FAULTS_AT_LEAST(100));
}

/* --- Serving --- */

enum {
	CLIENTS = 3,
};

struct serving {
	const char *address; /* NULL: a literal one */
	unsigned workers;
	struct weft_serve_opts opts;
	wf_atomic_u32 port;     /* once it listens */
	wf_atomic_u32 returned; /* 1: weft_serve_with() has returned, or was never called */
	wf_atomic_u32 served;   /* 1: it has begun, and ended by our stop */
	wf_atomic_u32 stopping; /* 1: we have asked for the end */
	wf_atomic_u32 handlers; /* that run */
};

static void on_listen(const char *address, void *arg)
{
	struct serving *serving = arg;

	wf_u32_store_release(&serving->port, net_port(address));
}

/* Sends back what it gets. */
static int echo(int fd, void *arg)
{
	struct serving *serving = arg;
	char bytes[16];
	ssize_t n;

	(void)wf_u32_fetch_add(&serving->handlers, 1);
	while ((n = CALL(weft_read(fd, bytes, sizeof(bytes), WEFT_FOREVER))) > 0) {
		n = CALL(weft_write_all(fd, bytes, (size_t)n, WEFT_FOREVER));
		if (n < 0)
			break;
	}
	if (n != -ECANCELED && n != -ECONNRESET)
		(void)moved(n, 0);
	(void)wf_u32_fetch_add(&serving->handlers, (uint32_t)-1);
	return 0;
}

static bool is_memory(long call)
{
	return call == WF_CALL_ALLOCATE || call == SYS_mmap || call == SYS_madvise;
}

/*
 * A server ends because it could not begin, or because it was stopped; never for a shortage. After
 * on_listen the only thing that keeps it from beginning is memory for its acceptors.
 */
static int serve(void *arg)
{
	struct serving *serving = arg;
	const char *address = serving->address ? serving->address : "tcp:127.0.0.1:0";
	int r = CALL(weft_serve_with(address, echo, serving, &serving->opts));

	if (documented_io(r, -ENOMEM, OF_SYSTEM, OF_RESOLVER)) {
		cr_assert(wf_u32_load_acquire(&serving->stopping), "%s %" PRIu64 " ended it",
			faults.name, faults.from);
		wf_u32_store_release(&serving->served, 1);
	} else if (wf_u32_load_relaxed(&serving->port)) {
		cr_assert(is_memory(faults.call), "%s %" PRIu64 " ended it: %s", faults.name,
			faults.from, strerror(-r));
	}
	return 0;
}

static void serve_end(void *arg)
{
	struct serving *serving = arg;

	wf_u32_store_release(&serving->returned, 1);
}

/* A client: true if it was answered, false if the connection was closed. */
static bool ask(int fd, char byte)
{
	char answer = 0;

	if (fd < 0 || send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
		return false;
	if (recv(fd, &answer, 1, 0) != 1) {
		cr_assert_neq(errno, EAGAIN, "no answer, and no end");
		return false;
	}
	cr_assert_eq(answer, byte);
	return true;
}

/*
 * Two at a time, so that the second waits for a place where connections_max is one. Returns how
 * many were not answered.
 */
static unsigned be_clients(unsigned port)
{
	int before = -1;
	unsigned lost = 0;

	for (int i = 0; i < CLIENTS; i++) {
		int fd = net_try_connect(port);

		if (before >= 0)
			close(before);
		lost += !ask(fd, (char)('a' + i));
		before = fd;
	}
	if (before >= 0)
		close(before);
	return lost;
}

/*
 * One fault costs one client at most, and a refused accept none, once the server has begun: what it
 * lacks it asks for again.
 */
static void serve_clients(weft_rt *rt, struct serving *serving)
{
	unsigned lost = 0;

	UNTIL_FOREIGN(
		wf_u32_load_acquire(&serving->port) || wf_u32_load_acquire(&serving->returned));
	if (wf_u32_load_acquire(&serving->port))
		lost = be_clients(wf_u32_load_relaxed(&serving->port));
	wf_u32_store_release(&serving->stopping, 1);
	cr_assert_eq(CALL(weft_rt_stop(rt, WEFT_SEC(10), WEFT_FOREVER)), 0);
	cr_assert_eq(wf_u32_load_acquire(&serving->handlers), 0);
	cr_assert(wf_u32_load_acquire(&serving->returned));
	if (wf_u32_load_acquire(&serving->served) && serving->opts.policy != WEFT_SERVE_SHED)
		cr_assert_leq(lost, faults_fired() > 0 && faults.call != SYS_accept4, "%s %" PRIu64,
			faults.name, faults.from);
}

static void serve_and_stop(void *arg)
{
	struct serving serving = *(const struct serving *)arg;
	weft_rt *rt = faults_rt_unharmed((struct weft_rt_opts){
		.workers = serving.workers, .idle = WEFT_IDLE_PARK, .pin = WEFT_PIN_ON});
	struct weft_spawn_opts opts = {.size = sizeof(opts), .arg_dtor = serve_end};

	serving.opts.size = sizeof(serving.opts);
	serving.opts.on_listen = on_listen;
	if (documented(CALL(weft_rt_spawn(rt, serve, &serving, &opts, NULL)), -ENOMEM))
		serve_clients(rt, &serving);
	faults_rt_end(rt);
}

Test(faults_io, a_server_begins_or_not_and_then_serves, .timeout = 120)
{
	struct serving serving = {.workers = 2, .opts = {.backlog = 16}};

	cr_assert_geq(faults_sweep(serve_and_stop, &serving, false), FAULTS_AT_LEAST(180));
}

Test(faults_io, a_server_with_a_cap_begins_or_not_and_then_serves, .timeout = 120)
{
	struct serving serving = {.workers = 1, .opts = {.connections_max = 1}};

	cr_assert_geq(faults_sweep(serve_and_stop, &serving, false), FAULTS_AT_LEAST(130));
}

/* Over the cap connections are closed: a client more or less is answered. */
Test(faults_io, a_server_that_sheds_begins_or_not_and_then_goes_on, .timeout = 120)
{
	struct serving serving = {.workers = 1,
		.address = "tcp:localhost:0",
		.opts = {.connections_max = 1, .policy = WEFT_SERVE_SHED}};

	cr_assert_geq(faults_sweep(serve_and_stop, &serving, false), FAULTS_AT_LEAST(130));
}

static int serve_plainly(void *arg)
{
	int r = CALL(weft_serve(arg, echo, NULL));

	cr_assert(r == -ECANCELED || !documented_io(r, -ENOMEM, OF_SYSTEM, OF_RESOLVER));
	return 0;
}

/* weft_serve() without options, cancelled at once: it has begun or not, and ends. */
static int serve_and_cancel_in_process(void *arg)
{
	weft_pid pid;

	if (!documented(CALL(weft_spawn(serve_plainly, arg, &pid)), -ENOMEM))
		return 0;
	net_yield(10);
	(void)CALL(weft_cancel(pid));
	cr_assert_eq(CALL(weft_join(pid, NULL, WEFT_FOREVER)), 0);
	return 0;
}

static void serve_and_cancel(void *address)
{
	in_fault_rt(2, serve_and_cancel_in_process, address);
}

Test(faults_io, a_server_that_is_cancelled_ends_whatever_has_failed, .timeout = 120)
{
	char address[] = "tcp:127.0.0.1:0";

	cr_assert_geq(faults_sweep(serve_and_cancel, address, false), FAULTS_AT_LEAST(80));
}

/* --- Children --- */

static bool begin_child(const char *script, int *child_out)
{
	const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	struct weft_child_opts opts = {.size = sizeof(opts), .argv = argv,
		.fd_in = WEFT_CHILD_NULL, .fd_out = WEFT_CHILD_NULL, .fd_err = WEFT_CHILD_NULL};
	int r = CALL(weft_child_spawn(&opts, child_out));

	return documented(r, -ENOMEM, -EMFILE, -ENFILE, -ENOSYS, -EAGAIN, -ENOENT, -EPERM);
}

/* It is closed at last: what has failed passes. */
static void end_child(int child)
{
	int r;

	do {
		r = CALL(weft_child_close(child, SIGKILL));
		if (r < 0)
			faults_hook_set(false);
	} while (!documented(r, -ENOMEM, -EMFILE, -ENFILE, -ENOSPC, -EPERM, -EBADF) &&
		r != -EBADF);
}

static int child_process(void *arg)
{
	int child, status, r;

	(void)arg;
	if (begin_child("exit 3", &child)) {
		r = CALL(weft_child_wait(child, &status, WEFT_FOREVER));
		if (documented_io(r, -ENOMEM))
			cr_assert_eq(WEXITSTATUS(status), 3);
		end_child(child);
	}
	if (begin_child("kill -STOP $$", &child))
		end_child(child);
	return 1;
}

static void children(void *arg)
{
	struct weft_rt_opts opts = {.workers = 1, .idle = WEFT_IDLE_PARK};
	weft_rt *rt = faults_rt_unharmed(opts);
	siginfo_t info;
	weft_pid pid;

	(void)arg;
	if (documented(CALL(weft_rt_spawn(rt, child_process, NULL, NULL, &pid)), -ENOMEM))
		(void)CALL(weft_join(pid, NULL, WEFT_FOREVER));
	faults_rt_end(rt);
	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
		sched_yield();
	cr_assert_eq(errno, ECHILD, "no child, and no zombie");
}

Test(faults_io, children_are_begun_or_not, .timeout = 120)
{
	cr_assert_geq(faults_sweep(children, NULL, false), FAULTS_AT_LEAST(15));
}

/* --- weft_main() --- */

/* Asks itself to end, and waits for it; a second process does too. */
static int main_process(void *arg)
{
	weft_pid pid;
	int r;

	(void)arg;
	if (documented(CALL(weft_spawn(parks, NULL, &pid)), -ENOMEM))
		cr_assert_eq(CALL(weft_detach(pid)), 0);
	cr_assert_eq(kill(getpid(), SIGTERM), 0);
	r = CALL(weft_park(WEFT_FOREVER));
	cr_assert_eq(r, -ECANCELED);
	return 5;
}

static void main_and_signal(void *arg)
{
	struct weft_error error = {0};
	struct weft_rt_opts opts = {.size = sizeof(opts),
		.workers = 2,
		.idle = WEFT_IDLE_PARK,
		.grace_ns = 1,
		.allocator = &faults_allocator,
		.log = faults_log,
		.error = &error};
	sigset_t before, after;
	int r;

	(void)arg;
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	r = CALL(weft_main(&opts, main_process, NULL));
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	cr_assert_eq(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
	if (documented_io(r, -ENOMEM, -EAGAIN, -EMFILE, -ENODEV))
		cr_assert_eq(r, 5);
	else if (r != -ENOMEM || error.error) /* else the first process's result: no stack */
		faults_check_error(&error, r);
}

Test(faults_io, weft_main_begins_or_not_and_then_hears_its_signal, .timeout = 120)
{
	cr_assert_geq(faults_sweep(main_and_signal, NULL, true), FAULTS_AT_LEAST(110));
}
