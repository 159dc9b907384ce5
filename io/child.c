/*
 * child.c: <weft/child.h>: children by posix_spawn(), which shares the caller's memory until the
 * program is loaded, and waiting for them by their pidfd.
 *
 * A spawn:
 *	S5 asks for a pidfd of this very process: no child is begun where there are none, and the
 *	   descriptor keeps a number free for S7.
 *	S6 posix_spawn(), off the worker's CPU and with the usual timer slack: children inherit
 *	   both.
 *	S7 the child's pidfd, in the reserve's place. Until it is reaped its pid is nobody else's.
 *	S8 enters it into the table of descriptors.
 * What fails after S6 kills the child and reaps it: nobody knows of it.
 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "core/internal.h"
#include "core/sched.h"
#include "io/fd.h"
#include "io/orphans.h"
#include "io/syscall.h"
#include "timer/clock.h"

enum {
	STDIO_COUNT = 3,
};

/* --- What the child is to have --- */

/* Where standard input, output and errors come from; `dup`: ours, to be closed. */
struct stdio {
	int source[STDIO_COUNT];
	int dup[STDIO_COUNT];
};

static void stdio_close(struct stdio *stdio)
{
	for (int i = 0; i < STDIO_COUNT; i++)
		if (stdio->dup[i] >= 0)
			(void)wf_sys_close(stdio->dup[i]);
}

/* A source that is 1 or 2 may be overwritten in the child before it is used: its copy is not. */
static int stdio_open(struct stdio *stdio, const struct weft_child_opts *opts)
{
	*stdio = (struct stdio){ { opts->fd_in, opts->fd_out, opts->fd_err }, { -1, -1, -1 } };
	for (int i = 0; i < STDIO_COUNT; i++) {
		if (stdio->source[i] < WEFT_CHILD_NULL) {
			stdio_close(stdio);
			return -EINVAL;
		}
		if (stdio->source[i] <= 0 || stdio->source[i] >= STDIO_COUNT)
			continue;
		stdio->dup[i] = (int)wf_syscall(
			SYS_fcntl, stdio->source[i], F_DUPFD_CLOEXEC, STDIO_COUNT);
		if (stdio->dup[i] < 0) {
			int r = stdio->dup[i];

			stdio_close(stdio);
			return r;
		}
		stdio->source[i] = stdio->dup[i];
	}
	return 0;
}

/* All of these return an errno, for lack of memory or a descriptor out of range. */
static int add_actions(posix_spawn_file_actions_t *actions, const struct stdio *stdio,
	const struct weft_child_opts *opts)
{
	int error = -(int)wf_fault(WF_CALL_ALLOCATE);

	for (int i = 0; i < STDIO_COUNT && error == 0; i++) {
		if (stdio->source[i] == WEFT_CHILD_NULL)
			error = posix_spawn_file_actions_addopen(
				actions, i, "/dev/null", O_RDWR, 0);
		else if (stdio->source[i] > 0)
			error = posix_spawn_file_actions_adddup2(actions, stdio->source[i], i);
	}
	if (error == 0)
		error = posix_spawn_file_actions_addclosefrom_np(actions, STDIO_COUNT);
	if (error == 0 && opts->cwd)
		error = posix_spawn_file_actions_addchdir_np(actions, opts->cwd);
	return -error;
}

/* The worker blocks nearly all signals, the host may ignore some: the child begins with neither. */
static void set_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(attributes, &none);
	posix_spawnattr_setsigdefault(attributes, &all);
	posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

/* --- Beginning it --- */

/* posix_spawn() writes to none of them; its type is older than const. */
static char **strings(const char *const *list)
{
	return (char **)(uintptr_t)list;
}

/* S6: its pid, or a negative errno. */
static int spawn_with_actions(const posix_spawn_file_actions_t *actions,
	const posix_spawnattr_t *attributes, const struct weft_child_opts *opts)
{
	struct wf_worker *worker = wf_worker_self();
	int cpu = worker ? wf_worker_cpu(worker) : -1;
	int error = -(int)wf_fault(WF_CALL_SPAWN);
	pid_t pid = 0;

	if (worker)
		(void)wf_clock_set_slack(0);
	if (cpu >= 0)
		wf_thread_unpin();
	if (error == 0)
		error = posix_spawnp(&pid, opts->argv[0], actions, attributes,
			strings(opts->argv), opts->envp ? strings(opts->envp) : environ);
	if (cpu >= 0)
		(void)wf_thread_pin(cpu);
	if (worker)
		(void)wf_clock_set_slack(1);
	return error ? -error : (int)pid;
}

static int spawn(const struct weft_child_opts *opts)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	struct stdio stdio;
	int r = stdio_open(&stdio, opts);

	if (r < 0)
		return r;
	r = -posix_spawn_file_actions_init(&actions);
	if (r < 0)
		goto no_actions;
	r = -posix_spawnattr_init(&attributes);
	if (r < 0)
		goto no_attributes;
	set_attributes(&attributes);
	r = add_actions(&actions, &stdio, opts);
	if (r == 0)
		r = spawn_with_actions(&actions, &attributes, opts);
	posix_spawnattr_destroy(&attributes);
no_attributes:
	posix_spawn_file_actions_destroy(&actions);
no_actions:
	stdio_close(&stdio);
	return r;
}

/* Ours, and nobody knows of it: cannot fail. It blocks for as long as the kernel takes to kill. */
static WF_COLD void undo(int pid)
{
	long r;

	(void)wf_syscall6(SYS_kill, pid, SIGKILL, 0, 0, 0, 0);
	do
		r = wf_syscall6(SYS_wait4, pid, 0, 0, 0, 0, 0);
	while (r == -EINTR);
}

/* S7, S8. */
static int name(int pid)
{
	int child = (int)wf_syscall(SYS_pidfd_open, pid, 0);
	uint32_t generation;
	int r;

	if (child < 0) {
		undo(pid);
		return child;
	}
	r = wf_fd_reset(child, 0, &generation);
	if (r < 0) {
		(void)wf_sys_close(child);
		undo(pid);
		return r;
	}
	return child;
}

static int begin(const struct weft_child_opts *opts)
{
	int reserve = (int)wf_syscall(SYS_pidfd_open, getpid(), 0); /* S5 */
	int pid;

	if (reserve < 0)
		return reserve;
	pid = spawn(opts);
	(void)wf_sys_close(reserve);
	return pid < 0 ? pid : name(pid);
}

int weft_child_spawn(const struct weft_child_opts *opts, int *child_out)
{
	struct weft_child_opts own;
	int saved = errno; /* the C library sets it */
	int r = wf_opts_read(opts, opts->size, &own, sizeof(own));

	if (r < 0)
		return r;
	if (!own.argv || !own.argv[0])
		return -EINVAL;
	r = begin(&own);
	errno = saved;
	if (r < 0)
		return r;
	*child_out = r;
	return 0;
}

/* --- What becomes of it --- */

int weft_child_wait(int child, int *status_out, weft_time deadline)
{
	bool readable = false;
	int r = wf_wait_check();

	while (r >= 0) {
		r = wf_child_reap(child, status_out);
		if (r != 0)
			break;
		/* It has ended, but a tracer is to be told first. */
		if (readable)
			r = weft_sleep_until(weft_after(WEFT_MS(1)));
		if (r >= 0)
			r = weft_poll_fd(child, WEFT_READABLE, deadline);
		readable = true;
	}
	return r > 0 ? 0 : r;
}

int weft_child_kill(int child, int signo)
{
	return (int)wf_syscall(SYS_pidfd_send_signal, child, signo, NULL, 0);
}

/* What close(2) may report of files means nothing here. */
static int close_descriptor(int child)
{
	return weft_close(child) == -EBADF ? -EBADF : 0;
}

/* A copy of the descriptor goes to the orphans, so that this one ends here, as others do. */
static int let_go(int child)
{
	int copy = (int)wf_syscall(SYS_fcntl, child, F_DUPFD_CLOEXEC, STDIO_COUNT);
	int r;

	if (copy < 0)
		return copy;
	r = wf_orphans_adopt(copy);
	if (r < 0) {
		(void)wf_sys_close(copy);
		return r;
	}
	return close_descriptor(child);
}

int weft_child_close(int child, int signo)
{
	int r = signo ? weft_child_kill(child, signo) : 0;

	if (r < 0 && r != -ESRCH)
		return r;
	r = wf_child_reap(child, NULL);
	if (r == 0)
		return let_go(child);
	if (r < 0 && r != -ECHILD)
		return r;
	return close_descriptor(child);
}
