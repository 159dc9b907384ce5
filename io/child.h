/*
 * <weft/child.h>: child processes of the operating system: begin one, wait for it, signal it.
 *
 * A child is named by a descriptor (a pidfd), so nothing here waits for SIGCHLD, and no number can
 * come to mean another child. It is readable once the child has ended (weft_poll_fd()); end it by
 * weft_child_close(), which leaves no zombie behind whatever was done before. The host must neither
 * ignore SIGCHLD nor reap children that are not its own. Linux 5.4.
 */
#ifndef WEFT_CHILD_H
#define WEFT_CHILD_H

#include <stddef.h>

#include <weft/time.h>
#include <weft/process.h>

#ifdef __cplusplus
extern "C" {
#endif

/* struct weft_child_opts.fd_in and so on: /dev/null. */
#define WEFT_CHILD_NULL (-1)

/*
 * What to run. The three descriptors stay the caller's; 0 means that the child has the caller's
 * own (one that Weft has used is non-blocking for the child too). Nothing else is inherited: all
 * other descriptors are closed in the child, no signal is blocked or ignored, and it may run on
 * the CPUs that the program's first thread may, not only on the worker's.
 */
struct weft_child_opts {
	size_t size;             /* sizeof(struct weft_child_opts) */
	const char *const *argv; /* ends in NULL; [0] is looked for in PATH if it has no slash */
	const char *const *envp; /* ends in NULL; NULL: the caller's environment */
	const char *cwd;         /* where it starts; a relative argv[0] begins there; NULL: here */
	int fd_in;               /* its standard input: a descriptor, WEFT_CHILD_NULL, or 0 */
	int fd_out;              /* output */
	int fd_err;              /* errors; may be fd_out's */
};

/*
 * Begins a child. When it returns the program has been loaded; one that cannot be is an error here.
 * child_out: receives the descriptor, close-on-exec. Ownership: nothing of opts is kept.
 * Threads: any thread. Blocks: the thread, until the program is loaded, about a millisecond: the
 * child borrows the caller's memory until then, which is never copied.
 * Cancel: not a point of cancellation.
 * Returns: 0; -EINVAL (no argv, a wrong descriptor, `size`); -ENOENT, -EACCES, -ENOEXEC, -ENOTDIR,
 * -E2BIG and the like (program or cwd); -EBADF; -EAGAIN (a limit on processes); -ENOMEM; -EMFILE,
 * -ENFILE; -ENOSYS (an older kernel). After an error there is no child: one that was begun and
 * could not be given a descriptor has been killed.
 */
WEFT_API int weft_child_spawn(const struct weft_child_opts *opts, int *child_out);

/*
 * Waits until a child has ended, and takes its status, which is handed out once.
 * status_out: as of waitpid(2), for the macros of <sys/wait.h>; may be NULL.
 * Written only on success.
 * Threads: any fiber. Blocks: until it ends or the deadline. Cancel: it can still be waited for.
 * Returns: 0; -ETIME; -EAGAIN (WEFT_POLL and it still runs); -ECANCELED (also when another process
 * has closed it); -ECHILD (the status was taken already); -EBADF; -ENOMEM; -EOPNOTSUPP in a runtime
 * whose driver is "mem"; -EPERM outside a fiber; -EBUSY as weft_poll_fd().
 */
WEFT_API int weft_child_wait(int child, int *status_out, weft_time deadline);

/*
 * Sends a child a signal; 0 only asks whether there is somebody to send it to.
 * Threads: any thread. Blocks: never. Cancel: not a point of cancellation.
 * Returns: 0 (also when it has ended and its status was not taken); -ESRCH (it has ended);
 * -EINVAL (no such signal); -EPERM (it has changed its user); -EBADF.
 */
WEFT_API int weft_child_kill(int child, int signo);

/*
 * Ends the descriptor. A child that still runs is first sent `signo` (SIGKILL, say), unless that is
 * 0, and then left to itself; when it ends, a thread of Weft's takes its status away.
 * Threads: any thread. Blocks: never. Cancel: not a point of cancellation.
 * Returns: 0; -EBADF; -EINVAL, -EPERM as weft_child_kill(), -ENOMEM, -EMFILE, -ENFILE, -ENOSPC:
 * then the descriptor is still open (to be waited for, or closed again), also if a signal was sent.
 */
WEFT_API int weft_child_close(int child, int signo);

#ifdef __cplusplus
}
#endif

#endif
