/*
 * <weft/scope.h>: scopes: processes that do not outlive the block that started them.
 *
 *	struct weft_scope scope;
 *
 *	weft_scope_open(&scope, NULL);
 *	weft_scope_spawn(&scope, fetch, &left, NULL);
 *	weft_scope_spawn(&scope, fetch, &right, NULL);
 *	error = weft_scope_close(&scope);	both have ended; 0, or the first error
 *
 * The first child that returns a negative result, or fails, cancels the others. A scope that is
 * opened WEFT_SCOPE_COLLECT does not do that, and is a join set besides: weft_scope_next() hands
 * its children out as they end.
 *
 * Scopes nest: a child may open its own. Children belong to their scope: nobody else can join or
 * detach them (-EBUSY); weft_cancel() and weft_wake() work as on any process. Those that have not
 * run yet are started newest first, so a tree of scopes has few stacks in use at a time.
 *
 * An owner may be a task. There weft_scope_wait(), _next() and _close() arm and return WEFT_PENDING
 * where they would wait; the task makes the call again when it is polled. A task that ends, by its
 * result or weft_fail(), with scopes open is not polled again: the children are cancelled, and its
 * end (cleanups, arg_dtor, join) comes when the last of them has ended.
 */
#ifndef WEFT_SCOPE_H
#define WEFT_SCOPE_H

#include <weft/fail.h>
#include <weft/process.h>
#include <weft/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Caller-owned memory of any content, Weft's from open to close; may lie on a fiber's stack; in a
 * task, in its state.
 */
struct weft_scope {
	uint64_t opaque[32];
};

/* struct weft_scope_opts.flags */
#define WEFT_SCOPE_COLLECT (1u << 0) /* errors cancel nobody; weft_scope_next() has the results */

/* Zero everywhere (but `size`) is what weft_scope_open() does without options. */
struct weft_scope_opts {
	size_t size;        /* sizeof(struct weft_scope_opts) */
	unsigned flags;     /* WEFT_SCOPE_COLLECT */
	weft_time deadline; /* absolute; past it the scope is cancelled; 0: never */
};

/*
 * Opens a scope. The calling process is its owner: only that one may spawn in it, wait, and close
 * it, and it must, before it ends and before the memory goes. (weft_fail() does it by itself: the
 * children are cancelled and waited for. So does the end of a task.)
 * opts: NULL for the defaults. A `deadline` costs a process, that sleeps until then.
 * Ownership: `scope` is Weft's until close; a task's until arg_dtor is called.
 * Threads: any process. Blocks: never.
 * Returns: 0; -EINVAL for unknown flags or a `size` that is not set, and in a task for a scope on
 * its worker's stack; with a deadline also what weft_spawn() returns; -EPERM elsewhere, and in a
 * task's cleanups.
 */
WEFT_API int weft_scope_open(struct weft_scope *scope, const struct weft_scope_opts *opts);

/*
 * Starts fn(arg) as a child. A negative result of it is an error.
 * pid_out: receives the id; may be NULL.
 * Ownership: `arg` is the child's from success on; after an error still the caller's.
 * Threads: the owner. Blocks: never.
 * Returns: 0; -ECANCELED once the scope is cancelled, by whatever; otherwise as weft_spawn(), and
 * -EPERM for any process but the owner.
 */
WEFT_API int weft_scope_spawn(
	struct weft_scope *scope, weft_fn fn, void *arg, weft_pid *pid_out);

/* The same with options, as weft_spawn_with(); -EINVAL also for WEFT_DETACHED. */
WEFT_API int weft_scope_spawn_with(struct weft_scope *scope, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, weft_pid *pid_out);

/*
 * Starts a task as a child: polls fn(state), see <weft/task.h>. Otherwise as weft_scope_spawn().
 * opts: NULL, or as weft_task_spawn(); -EINVAL also for WEFT_DETACHED.
 */
WEFT_API int weft_scope_task(struct weft_scope *scope, weft_task_fn fn, void *state,
	const struct weft_spawn_opts *opts, weft_pid *pid_out);

/*
 * Waits until no child is alive. More may be spawned afterwards.
 * Threads: the owner. Blocks: until then, or the deadline. Cancel: of the caller: the children go
 * on.
 * Returns: 0 or the first error of any child so far (-ETIME if the scope's own deadline passed
 * while some were alive); or, with children alive: -ETIME, -EAGAIN (WEFT_POLL), -ECANCELED. -EPERM.
 * In a task WEFT_PENDING.
 */
WEFT_API int weft_scope_wait(struct weft_scope *scope, weft_time deadline);

/*
 * Takes a child that has ended, in the order of their ends; waits for one if there is none.
 * exit_out: its `size` is read, the rest written, only on success; NULL: nobody asks.
 * Threads: the owner. Blocks: until a child has ended, or the deadline. Cancel: none is taken.
 * Returns: 0; -ENOENT: all have been taken; -ETIME; -EAGAIN (WEFT_POLL); -ECANCELED; -EINVAL if the
 * scope does not collect, or exit_out's `size` is not set; -EPERM. In a task WEFT_PENDING.
 */
WEFT_API int weft_scope_next(
	struct weft_scope *scope, struct weft_exit *exit_out, weft_time deadline);

/*
 * Cancels all children, and refuses new ones; not the owner. Is no error by itself, but what the
 * children return may be. Idempotent.
 * Threads: any thread, while it is known that the scope is open. Blocks: never.
 * Returns: 0; -ESRCH if its owner is gone.
 */
WEFT_API int weft_scope_cancel(struct weft_scope *scope);

/*
 * Waits until no child is alive, drops what was not taken, and gives the scope up. Nothing ends the
 * wait early: the children may use what the caller's frame holds. A cancel of the caller, before or
 * meanwhile, is passed on to the children instead.
 * Threads: the owner. Blocks: until then.
 * Returns: 0 or the first error, as weft_scope_wait(); -EPERM if the caller is not the owner (twice
 * closed counts as that). In a task WEFT_PENDING: then it is still open.
 */
WEFT_API int weft_scope_close(struct weft_scope *scope);

#ifdef __cplusplus
}
#endif

#endif
