/*
 * Goal: what <weft/child.h> promises: what a child is given and what not, how it is waited for and
 * signalled, and that no zombie stays, whatever is done in which order.
 * Method: children are /bin/sh and cat; what they have is what the kernel says of them in /proc.
 * They end when their standard input does, or by a signal: nobody sleeps.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "test/net.h"
#include "test/runtime.h"

/* ---- Tools ---------------------------------------------------------------------------------- */

/* Until a child of this program has neither a life nor a zombie. */
static void no_child_is_left(void)
{
	siginfo_t info;

	for (;;) {
		int r = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);

		if (r < 0 && errno == ECHILD)
			return;
		sched_yield();
	}
}

static struct weft_child_opts child_opts(const char *const *argv)
{
	return (struct weft_child_opts){.size = sizeof(struct weft_child_opts), .argv = argv};
}

static int begun_with(const struct weft_child_opts *opts)
{
	int child = -1;

	cr_assert_eq(weft_child_spawn(opts, &child), 0);
	cr_assert_gt(child, 2);
	cr_assert_eq(fcntl(child, F_GETFD), FD_CLOEXEC);
	return child;
}

/* sh -c script */
static int begun(const char *script)
{
	const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	struct weft_child_opts opts = child_opts(argv);

	return begun_with(&opts);
}

/* One that runs until the other end of its standard input is closed. */
static int begun_reader(int *other_end_out)
{
	const char *const argv[] = {"cat", NULL};
	struct weft_child_opts opts = child_opts(argv);
	int child, fd[2];

	cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
	opts.fd_in = fd[0];
	opts.fd_out = WEFT_CHILD_NULL;
	child = begun_with(&opts);
	close(fd[0]);
	*other_end_out = fd[1];
	return child;
}

static int status_of(int child)
{
	int status = -1;

	cr_assert_eq(weft_child_wait(child, &status, NET_SOON), 0);
	return status;
}

static void is_closed(int child)
{
	cr_assert_eq(weft_child_close(child, 0), 0);
	cr_assert_eq(weft_child_close(child, 0), -EBADF);
}

/* What a script writes to its standard output; it must succeed. */
static void output_of(const char *script, char *text_out, size_t size)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct weft_child_opts opts = child_opts(argv);
	ssize_t length;
	int child, fd[2];

	cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
	opts.fd_out = fd[1];
	child = begun_with(&opts);
	close(fd[1]);
	length = weft_read_exact(fd[0], text_out, size - 1, NET_SOON);
	cr_assert_geq(length, 0);
	text_out[length] = '\0';
	cr_assert_eq(status_of(child), 0);
	is_closed(child);
	cr_assert_eq(weft_close(fd[0]), 0);
}

/* ---- What it is given ----------------------------------------------------------------------- */

static int begins_children(void *arg)
{
	char text[64];
	int child;

	(void)arg;
	output_of("printf abc; printf %s \"$HOME_OF_TEST\"", text, sizeof text);
	cr_assert_str_eq(text, "abcdef");
	child = begun("exit 3");
	cr_assert_eq(status_of(child), 3 << 8);
	is_closed(child);
	child = begun("kill -9 $$");
	cr_assert_eq(WTERMSIG(status_of(child)), SIGKILL);
	is_closed(child);
	return 0;
}

Test(child, its_output_and_its_status_come_back, .timeout = 120)
{
	cr_assert_eq(setenv("HOME_OF_TEST", "def", 1), 0);
	for (unsigned workers = 1; workers <= 2; workers++)
		cr_assert_eq(net_run(workers, begins_children, NULL), 0);
	no_child_is_left();
}

/* A set of signals as the kernel shows it, without the two of the C library's own. */
static uint64_t set_of(const char *status, const char *name)
{
	const char *line = strstr(status, name);

	cr_assert_not_null(line, "%s in %s", name, status);
	return strtoull(line + strlen(name), NULL, 16) & ~((uint64_t)3 << 31);
}

static int looks_at_signals(void *arg)
{
	char status[8192];

	(void)arg;
	output_of("cat /proc/self/status", status, sizeof status);
	cr_assert_eq(set_of(status, "SigBlk:\t"), 0);
	cr_assert_eq(set_of(status, "SigIgn:\t"), 0);
	return 0;
}

/* A worker blocks them all, the host ignores some: neither is the child's business. */
Test(child, signals_are_as_they_are_by_default, .timeout = 120)
{
	cr_assert_neq(signal(SIGPIPE, SIG_IGN), SIG_ERR);
	cr_assert_neq(signal(SIGUSR1, SIG_IGN), SIG_ERR);
	cr_assert_neq(signal(SIGRTMAX, SIG_IGN), SIG_ERR);
	cr_assert_eq(net_run(1, looks_at_signals, NULL), 0);
	cr_assert_eq(weft_main(&(struct weft_rt_opts){.size = sizeof(struct weft_rt_opts)},
			     looks_at_signals, NULL),
		0);
}

struct machine {
	char cpus[1024];
	int slack;
};

static void cpus_of(const char *status, char *text_out, size_t size)
{
	const char *line = strstr(status, "Cpus_allowed_list:");

	cr_assert_not_null(line);
	snprintf(text_out, size, "%.*s", (int)strcspn(line, "\n"), line);
}

static int looks_at_the_machine(void *arg)
{
	const struct machine *machine = arg;
	char text[8192], cpus[1024];

	output_of("cat /proc/self/status", text, sizeof text);
	cpus_of(text, cpus, sizeof cpus);
	cr_assert_str_eq(cpus, machine->cpus);
	output_of("cat /proc/self/timerslack_ns", text, sizeof text);
	cr_assert_eq(atoi(text), machine->slack);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK), 1, "the worker's own again");
	cr_assert_eq(net_cpus(&(int){0}, 2) == 1, true, "pinned again");
	return 0;
}

Test(child, it_does_not_inherit_what_makes_a_worker, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 1, .pin = WEFT_PIN_ON};
	struct machine machine = {.slack = prctl(PR_GET_TIMERSLACK)};
	char status[8192];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, status, sizeof status - 1);
	weft_rt *rt;

	cr_assert_gt(length, 0);
	status[length] = '\0';
	close(fd);
	cpus_of(status, machine.cpus, sizeof machine.cpus);
	rt = runtime_new_with(&opts);
	cr_assert_eq(runtime_do(rt, looks_at_the_machine, &machine), 0);
	runtime_end(rt);
}

static int looks_at_descriptors(void *arg)
{
	char script[64];
	int fd, child;

	(void)arg;
	fd = fcntl(1, F_DUPFD, 100); /* not close-on-exec */
	cr_assert_geq(fd, 100);
	snprintf(script, sizeof script, "test ! -e /proc/$$/fd/%d", fd);
	child = begun(script);
	cr_assert_eq(status_of(child), 0);
	is_closed(child);
	close(fd);
	return 0;
}

Test(child, it_inherits_no_other_descriptor, .timeout = 120)
{
	cr_assert_eq(net_run(1, looks_at_descriptors, NULL), 0);
}

static void reads(int fd, const char *expected)
{
	char text[64];
	ssize_t length = read(fd, text, sizeof text - 1);

	cr_assert_geq(length, 0);
	text[length] = '\0';
	cr_assert_str_eq(text, expected);
}

/* Output and errors the other way round: neither overwrites the other before it is used. */
Test(child, its_standard_descriptors_may_be_any_of_the_callers, .timeout = 120)
{
	const char *const argv[] = {"/bin/sh", "-c", "read line; echo $line; echo err >&2", NULL};
	struct weft_child_opts opts = child_opts(argv);
	int in[2], one[2], two[2], saved[2] = {dup(1), dup(2)}, child, r;

	cr_assert(pipe2(in, O_CLOEXEC) == 0 && pipe2(one, O_CLOEXEC) == 0 &&
		pipe2(two, O_CLOEXEC) == 0);
	cr_assert_eq(write(in[1], "out\n", 4), 4);
	opts.fd_in = in[0];
	opts.fd_out = 2;
	opts.fd_err = 1;
	dup2(one[1], 1);
	dup2(two[1], 2);
	r = weft_child_spawn(&opts, &child);
	dup2(saved[0], 1);
	dup2(saved[1], 2);
	cr_assert_eq(r, 0);
	reads(one[0], "err\n");
	reads(two[0], "out\n");
	cr_assert_eq(weft_child_close(child, 0), 0);
	no_child_is_left();
}

static int chooses(void *arg)
{
	const char *const argv[] = {"/bin/sh", "-c",
		"test \"$(pwd -P)\" = / && test \"$ONLY\" = this && test -z \"$HOME_OF_TEST\" && "
		"test -z \"$(cat)\" && echo to nobody",
		NULL};
	const char *const envp[] = {"ONLY=this", "PATH=/usr/bin:/bin", NULL};
	struct weft_child_opts opts = child_opts(argv);
	int child;

	(void)arg;
	opts.envp = envp;
	opts.cwd = "/";
	opts.fd_in = opts.fd_out = opts.fd_err = WEFT_CHILD_NULL;
	child = begun_with(&opts);
	cr_assert_eq(status_of(child), 0);
	is_closed(child);
	return 0;
}

Test(child, environment_directory_and_nothing_to_read, .timeout = 120)
{
	cr_assert_eq(setenv("HOME_OF_TEST", "def", 1), 0);
	cr_assert_eq(net_run(1, chooses, NULL), 0);
}

/* ---- What is refused ------------------------------------------------------------------------ */

static void is_refused(struct weft_child_opts opts, int error)
{
	int child = 77;

	errno = 4242;
	cr_assert_eq(weft_child_spawn(&opts, &child), error);
	cr_assert_eq(errno, 4242);
	cr_assert_eq(child, 77);
}

Test(child, what_cannot_be_begun_is_an_error_of_spawn, .timeout = 120)
{
	const char *const argv[] = {"true", NULL}, *const none[] = {NULL};
	const char *const nowhere[] = {"/nowhere/to/be/found", NULL};
	const char *const unknown[] = {"no such", NULL}, *const directory[] = {"/", NULL};
	struct weft_child_opts opts = child_opts(argv);
	unsigned fds;

	is_refused((struct weft_child_opts){.size = 0, .argv = argv}, -EINVAL);
	fds = harness_fd_count();
	is_refused(child_opts(NULL), -EINVAL);
	is_refused(child_opts(none), -EINVAL);
	is_refused(child_opts(nowhere), -ENOENT);
	is_refused(child_opts(unknown), -ENOENT);
	is_refused(child_opts(directory), -EACCES);
	opts.cwd = "/nowhere";
	is_refused(opts, -ENOENT);
	opts.cwd = "/dev/null";
	is_refused(opts, -ENOTDIR);
	opts.cwd = NULL;
	opts.fd_err = -2;
	is_refused(opts, -EINVAL);
	opts.fd_out = 1;
	is_refused(opts, -EINVAL);
	opts.fd_err = 1000;
	is_refused(opts, -EBADF);
	opts.fd_err = 1 << 30;
	is_refused(opts, -EBADF);
	cr_assert_eq(harness_fd_count(), fds);
	no_child_is_left();
}

static int uses_what_is_no_child(void *arg)
{
	int fd[2];

	(void)arg;
	net_pair(fd);
	cr_assert_eq(weft_child_wait(-1, NULL, NET_SOON), -EBADF);
	cr_assert_eq(weft_child_wait(fd[1], NULL, NET_SOON), -EBADF);
	cr_assert_eq(weft_child_kill(fd[1], 0), -EBADF);
	cr_assert_eq(weft_child_close(fd[1], 0), -EBADF);
	cr_assert_eq(weft_child_close(fd[1], SIGKILL), -EBADF);
	cr_assert_eq(weft_close(fd[1]), 0);
	close(fd[0]);
	return 0;
}

Test(child, other_descriptors_are_refused, .timeout = 120)
{
	cr_assert_eq(net_run(1, uses_what_is_no_child, NULL), 0);
}

/* ---- Waiting, killing, closing -------------------------------------------------------------- */

static int waits_forever(void *arg)
{
	return weft_child_wait(*(int *)arg, NULL, WEFT_FOREVER);
}

/* On this worker: when we run again, it waits. */
static weft_pid waiter_here(int *child)
{
	weft_pid pid = net_spawn_on((unsigned)weft_worker_index(), waits_forever, child);

	net_yield(3);
	return pid;
}

static int waits_for_one(void *arg)
{
	int in, child = begun_reader(&in), status = 77;
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_child_wait(child, &status, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_child_wait(child, &status, weft_after(WEFT_MS(2))), -ETIME);
	pid = waiter_here(&child);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_eq(status, 77);
	cr_assert_eq(weft_child_kill(child, 0), 0);
	cr_assert_eq(weft_child_kill(child, 1000), -EINVAL);
	cr_assert_eq(weft_poll_fd(child, WEFT_READABLE, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_child_kill(child, SIGTERM), 0);
	cr_assert_eq(weft_poll_fd(child, WEFT_READABLE, NET_SOON), WEFT_READABLE);
	cr_assert_eq(weft_child_wait(child, &status, WEFT_POLL), 0);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	cr_assert_eq(weft_child_kill(child, SIGTERM), -ESRCH);
	cr_assert_eq(weft_child_wait(child, &status, NET_SOON), -ECHILD);
	is_closed(child);
	close(in);
	return 0;
}

Test(child, a_wait_has_a_deadline_and_gives_the_status_once, .timeout = 120)
{
	cr_assert_eq(net_run(1, waits_for_one, NULL), 0);
	no_child_is_left();
}

static int closes_in_every_order(void *arg)
{
	int in, r, child = begun_reader(&in);
	weft_pid pid;

	(void)arg;
	/* Left running while somebody waits for it. */
	pid = waiter_here(&child);
	cr_assert_eq(weft_child_close(child, 0), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	close(in);
	/* Killed: who waits may be quicker than either. */
	child = begun_reader(&in);
	pid = waiter_here(&child);
	cr_assert_eq(weft_child_close(child, SIGKILL), 0);
	r = joined(pid);
	cr_assert(r == -ECANCELED || r == -ECHILD || r == -EBADF || r == 0, "%d", r);
	close(in);
	/* Left running, and then ends. */
	child = begun_reader(&in);
	is_closed(child);
	close(in);
	/* Ended, not waited for. */
	child = begun("exit 1");
	cr_assert_eq(weft_poll_fd(child, WEFT_READABLE, NET_SOON), WEFT_READABLE);
	is_closed(child);
	/* Killed when it has ended already; and at once. */
	child = begun("exit 1");
	cr_assert_eq(status_of(child), 1 << 8);
	cr_assert_eq(weft_child_close(child, SIGKILL), 0);
	child = begun_reader(&in);
	cr_assert_eq(weft_child_close(child, SIGKILL), 0);
	close(in);
	return 0;
}

Test(child, no_zombie_stays_in_whatever_order_it_is_closed, .timeout = 120)
{
	unsigned fds = 0, threads;

	runtime_end(runtime_new(1)); /* sanitizers start a thread with the first */
	threads = harness_thread_count();
	for (int round = -1; round < 10 / HARNESS_SLOWDOWN + 1; round++) {
		cr_assert_eq(net_run(2, closes_in_every_order, NULL), 0);
		no_child_is_left();
		UNTIL_FOREIGN(harness_thread_count() <= threads);
		if (round < 0)
			fds = harness_fd_count(); /* what is made once stays */
		cr_assert_eq(harness_fd_count(), fds);
	}
}

/* Many children run on when their runtime has ended; one thread waits for all. */
static int leaves_many(void *arg)
{
	int *in = arg;

	for (int i = 0; i < 20; i++)
		is_closed(begun_reader(&in[i]));
	return 0;
}

Test(child, children_may_outlive_their_runtime, .timeout = 120)
{
	int in[20];

	cr_assert_eq(net_run(1, leaves_many, in), 0);
	for (int i = 0; i < 20; i++)
		close(in[(i * 7) % 20]);
	no_child_is_left();
}

Test(child, outside_a_process_all_but_wait, .timeout = 120)
{
	int in, child = begun_reader(&in);

	cr_assert_eq(weft_child_wait(child, NULL, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_child_kill(child, 0), 0);
	cr_assert_eq(weft_child_close(child, SIGTERM), 0);
	close(in);
	no_child_is_left();
}

enum { MANY = 20 };

static int begins_one_of_many(void *arg)
{
	const char *const argv[] = {"sh", "-c", "exit $NUMBER", NULL};
	char number[32];
	const char *const envp[] = {number, NULL};
	struct weft_child_opts opts = child_opts(argv);
	int child, status;

	snprintf(number, sizeof number, "NUMBER=%d", *(int *)arg);
	opts.envp = envp;
	child = begun_with(&opts);
	status = status_of(child);
	/* Not is_closed(): the number may be another's at once. */
	cr_assert_eq(weft_child_close(child, 0), 0);
	return WEXITSTATUS(status);
}

static int begins_many(void *arg)
{
	weft_pid pids[MANY];
	int numbers[MANY];

	(void)arg;
	for (int i = 0; i < MANY; i++) {
		numbers[i] = i + 1;
		pids[i] = net_spawn_on((unsigned)i % 2, begins_one_of_many, &numbers[i]);
	}
	for (int i = 0; i < MANY; i++)
		cr_assert_eq(net_join(pids[i]), i + 1);
	return 0;
}

Test(child, many_at_once_on_two_workers, .timeout = 120)
{
	cr_assert_eq(net_run(2, begins_many, NULL), 0);
	no_child_is_left();
}
