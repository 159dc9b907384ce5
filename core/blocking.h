/*
 * <weft/blocking.h>: work that blocks: files, libraries that wait, long computations.
 *
 * A process that blocks its thread holds up all processes of its worker. These calls run a plain
 * function on a thread of its own instead, while the process parks. The threads belong to the
 * runtime: made when needed, kept for blocking_keep_alive_ns (struct weft_rt_opts), named
 * weft/<runtime>/b<n>, with asynchronous signals blocked, on the CPUs that the thread which made
 * the runtime may use. To Weft they are foreign threads: a function that runs there may use what
 * any thread may (weft_wake, weft_post, weft_rt_spawn, …), and gets -EPERM from the rest.
 */
#ifndef WEFT_BLOCKING_H
#define WEFT_BLOCKING_H

#include <stddef.h>

#include <weft/process.h>

#ifdef __cplusplus
extern "C" {
#endif

struct weft_rt;

/*
 * Runs fn(arg) on a thread of the pool and waits for its end. At most blocking_threads_max run at
 * once; others wait in line, oldest first.
 * result_out: receives what fn returned; may be NULL.
 * deadline: for the wait in line only. Once fn runs the call waits for its end, whatever comes, so
 * `arg` may lie on the caller's stack; that is a success, also after the deadline or a cancel.
 * Ownership: `arg` stays the caller's. Allocates nothing, unless a thread must be made.
 * Threads: any process. Blocks: until fn has returned.
 * Cancel: returns -ECANCELED if fn has not begun; then it never runs.
 * Returns: 0; and, with fn guaranteed never to run: -ETIME; -EAGAIN (WEFT_POLL, since it always has
 * to wait; or the system refuses the first thread); -ENOMEM; -ECANCELED; -EINVAL (no fn); -EPERM
 * where there is no stack to wait on (outside a process, in a task).
 */
WEFT_API int weft_blocking(weft_fn fn, void *arg, int *result_out, weft_time deadline);

/* struct weft_blocking_opts.flags */
#define WEFT_BLOCKING_MANDATORY (1u << 0) /* runs also if the runtime stops before its turn */

/* How to post. Zero everywhere (but `size`) is a good default. */
struct weft_blocking_opts {
	size_t size;             /* sizeof(struct weft_blocking_opts) */
	const char *name;        /* for logs; copied, at most 31 bytes are kept */
	unsigned flags;          /* WEFT_BLOCKING_* */
	/*
	 * Called exactly once with `arg`, on a thread of the pool, when fn has returned or was
	 * dropped.
	 */
	void (*arg_dtor)(void *arg);
};

/*
 * Runs fn(arg) on a thread of the pool of `rt`, and does not wait; what it returns is dropped.
 * In line it stands with weft_blocking(). Once accepted it counts as alive: the runtime does not
 * end before it has. When a stop closes the runtime (step 1 of weft_rt_stop), those that have not
 * begun are dropped, but for WEFT_BLOCKING_MANDATORY.
 * opts: may be NULL.
 * Ownership: `arg` is the job's from success on (arg_dtor); after an error still the caller's.
 * Threads: any thread. Blocks: never.
 * Returns: 0; -ESHUTDOWN once the runtime stops; -ENOMEM; -EAGAIN: the system refuses the first
 * thread; -EINVAL: no fn, unknown flags, a wrong `size`.
 */
WEFT_API int weft_blocking_post(
	struct weft_rt *rt, weft_fn fn, void *arg, const struct weft_blocking_opts *opts);

/*
 * Runs fn(arg) as if called here, on a thread of its own, never in line: an idle one of the pool's,
 * or a new one beyond blocking_threads_max. For calls that may wait for other processes.
 * Outside a worker (on a foreign thread, inside blocking work) it is a plain call.
 * result_out: receives what fn returned; may be NULL.
 * Threads: any thread. Blocks: until fn has returned; there is no deadline.
 * Cancel: neither prevents nor ends it.
 * Returns: 0; -EAGAIN (the system refuses a thread), -ENOMEM, -EINVAL (no fn), -EPERM (in a task or
 * a weft_post(), which must not wait): fn has not run.
 */
WEFT_API int weft_block_in_place(weft_fn fn, void *arg, int *result_out);

#ifdef __cplusplus
}
#endif

#endif
