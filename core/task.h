/*
 * <weft/task.h>: tasks: processes without a stack; and wakers.
 *
 * A task is a process whose body is a poll function over state of the caller's: it costs the 128
 * bytes of its place in the process table and that state, running, waiting or asleep. It runs on
 * its worker's stack, from the call to the return of its poll function, which goes as far as it can
 * and returns WEFT_PENDING, or its result. Ids, join, detach, cancel, wake are those of
 * <weft/process.h>.
 *
 * In a task a call that would park *arms* instead, and returns WEFT_PENDING: the poll function puts
 * what it needs to know into its state and returns WEFT_PENDING as well. It is polled again when
 * what was armed may go on, at the deadline, after a weft_wake() or weft_cancel(), and now and then
 * for nothing. Then it makes the call again, which completes, or arms again:
 *
 *	static int session(void *arg)
 *	{
 *		struct session *s = arg;
 *		char buffer[4096];
 *		ssize_t n = weft_read(s->fd, buffer, sizeof buffer, s->deadline);
 *
 *		if (n == WEFT_PENDING)
 *			return WEFT_PENDING;
 *		…
 *	}
 *
 * The calls that arm are those that keep nothing between two tries: weft_park, weft_sleep_until,
 * weft_interval_next, weft_yield, weft_consume, weft_join, weft_join_exit, weft_read, weft_write,
 * weft_recv_buf, weft_accept, weft_poll_fd, weft_scope_wait, weft_scope_next, weft_scope_close. A
 * deadline is an absolute time: pass the same one each time. All other calls that can park give
 * -EPERM in a task (weft_read_exact, weft_write_all, weft_connect, weft_serve, weft_blocking,
 * weft_child_wait, weft_signal_wait, …). What a task's cleanup arms is over with the task: it
 * cannot wait.
 *
 * One run may arm several: the first that comes makes the next run, and the earliest deadline
 * counts. What a run armed is forgotten when the next begins: what it still wants it asks for
 * again. A run that returns WEFT_PENDING without having armed waits for weft_wake() and
 * weft_cancel(). Also:
 *   - After 128 calls that made progress in one run these calls return WEFT_PENDING (with
 *     WEFT_POLL too), and the task is polled again behind the others.
 *   - A cancelled task is polled once; from then on each of these calls returns -ECANCELED, but
 *     weft_park() where a wake is there, and weft_yield() the first time. One that goes on all the
 *     same is polled only when it is woken.
 *   - weft_yield() returns WEFT_PENDING the first time; then 0, in the run that it caused.
 *   - Per descriptor one task may wait to accept (others get -EBUSY), beside any number of fibers;
 *     weft_poll_fd() counts as reading, as writing, or both.
 *   - A descriptor that a task waits for is that task's to close. When another process closes it
 *     the task is polled, and its next call on that number gives -EBADF, or meets the number's
 *     next use.
 *
 * Tasks are movable: from run to run they may be on another worker, and so on another thread,
 * unless they were spawned WEFT_PINNED. A run has the stack of its worker's thread, and its worker:
 * neither block in it nor compute for long.
 */
#ifndef WEFT_TASK_H
#define WEFT_TASK_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <weft/process.h>
#include <weft/time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "Not done, poll me again when there is reason to": of a poll function, and of calls that arm. */
#define WEFT_PENDING INT_MIN

/* The body of a task. Returns WEFT_PENDING; or its result, any other int, which ends it. */
typedef int (*weft_task_fn)(void *state);

/*
 * Starts a task: polls fn(state), the first time later, on this worker or on one that steals it.
 * opts: NULL, or as of weft_spawn_with(): name, flags (WEFT_PINNED, WEFT_DETACHED, WEFT_SUSPENDED;
 * WEFT_MOVABLE is the default), worker (of the first run; of all, if pinned), arg_dtor (called with
 * `state`). pid_out: receives the id; NULL makes the task detached.
 * Ownership: `state` is the task's from success on; after an error still the caller's.
 * Threads: any process. Blocks: never.
 * Returns: as weft_spawn_with(), which see; -EINVAL also for a stack_size or WEFT_STACK_NOW.
 */
WEFT_API int weft_task_spawn(
	weft_task_fn fn, void *state, const struct weft_spawn_opts *opts, weft_pid *pid_out);

/*
 * weft_spawn_commit() of a task: polls fn(state) under an id that weft_spawn_reserve() has made.
 * opts: as weft_task_spawn(). Ownership: as there.
 * Threads: any process of the runtime that reserved. Blocks: never.
 * Returns: as weft_spawn_commit(); -EINVAL also for a stack_size or WEFT_STACK_NOW.
 */
WEFT_API int weft_task_commit(
	weft_pid pid, weft_task_fn fn, void *state, const struct weft_spawn_opts *opts);

struct weft_rt;

/*
 * weft_task_spawn() in a given runtime. Threads: any thread while the runtime lives. Blocks: never.
 * Returns: as weft_task_spawn(), but for -EPERM.
 */
WEFT_API int weft_rt_task_spawn(struct weft_rt *rt, weft_task_fn fn, void *state,
	const struct weft_spawn_opts *opts, weft_pid *pid_out);

/*
 * Names a process to be woken: what event sources of your own keep. A value: copy it freely, there
 * is nothing to release. Zero is valid, and does nothing.
 */
typedef struct weft_waker {
	uint64_t raw;
} weft_waker;

/* Of the calling process, fiber or task; zero outside one. Threads: any thread. Blocks: never. */
WEFT_API weft_waker weft_waker_self(void);

/*
 * weft_wake() of that process: a task is polled, weft_park() returns. Nothing once it has ended, or
 * its runtime is gone. What the caller wrote before is visible to the run.
 * Threads: any thread. Blocks: never.
 */
WEFT_API void weft_waker_wake(weft_waker waker);

/* The same for callbacks that get a pointer. NULL does nothing. */
WEFT_API void weft_waker_wake_ref(const weft_waker *waker);

/* Whether they wake the same process. Threads: any thread. */
static inline bool weft_waker_equal(weft_waker a, weft_waker b)
{
	return a.raw == b.raw;
}

/*
 * Where a source of events keeps the waker of the one that waits for it. Zero is empty; embed it.
 *
 *	the process:   register, then look whether it has happened; if not, park (a task: return
 *	               WEFT_PENDING)
 *	the source:    make it happen, then fire
 *
 * in these orders, and no wake is lost.
 */
struct weft_waker_cell {
	uint64_t word; /* private */
};

/*
 * Puts a waker in; the last one given counts, zero takes it out.
 * Threads: any thread. Blocks: never.
 */
WEFT_API void weft_waker_register(struct weft_waker_cell *cell, weft_waker waker);

/* Takes the waker out and wakes. True if there was one. Threads: any thread. Blocks: never. */
WEFT_API bool weft_waker_fire(struct weft_waker_cell *cell);

#ifdef __cplusplus
}
#endif

#endif
