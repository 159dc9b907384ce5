/*
 * <weft/process.h>: processes: spawn, join, cancel, park and wake.
 *
 * A process is what Weft schedules: a function that runs on its own stack (a fiber) on one of the
 * runtime's workers; or one without a stack (a task: <weft/task.h>). It has an id, valid for ever:
 * once the process has ended and was joined (or was detached) every call on its id gives -ESRCH,
 * also when its slot has been used again.
 * Processes that have never run may be taken by any worker; one that has run stays on its worker,
 * and so on its thread, unless it was spawned WEFT_MOVABLE. So `errno`, thread_local and libraries
 * that use them are safe in ordinary processes; in a movable one do not carry an address of a
 * thread_local (errno too) across a call that parks.
 *
 * Cancellation is asynchronous and level-triggered: once weft_cancel() was called on a process,
 * every call of it that can park returns -ECANCELED, until it ends. It is never interrupted
 * elsewhere.
 *
 * Words used below. Threads: *any thread* (worker or not), *any process* (called from inside a
 * process). Blocks: the calling process parks, its worker runs others meanwhile; a task does not
 * (WEFT_PENDING, or -EPERM: <weft/task.h> tells which calls give which).
 */
#ifndef WEFT_PROCESS_H
#define WEFT_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weft/time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The id of a process: generation, runtime and index in one word. Zero is no process. */
typedef struct weft_pid {
	uint64_t raw;
} weft_pid;

/* The body of a process. Its return value, an int of any meaning, is what weft_join() hands out. */
typedef int (*weft_fn)(void *arg);

/* Bytes that weft_pid_format() needs at most, with the NUL. */
#define WEFT_PID_TEXT_MAX 32

/*
 * Writes an id as text, "<runtime.index.generation>", into `text` and returns it.
 * Threads: any thread. Blocks: never.
 */
WEFT_API char *weft_pid_format(weft_pid pid, char text[WEFT_PID_TEXT_MAX]);

static inline bool weft_pid_equal(weft_pid a, weft_pid b)
{
	return a.raw == b.raw;
}

static inline bool weft_pid_is_none(weft_pid pid)
{
	return pid.raw == 0;
}

/* struct weft_spawn_opts.flags */
#define WEFT_MOVABLE   (1u << 0) /* may move to another worker each time it becomes ready */
#define WEFT_DETACHED  (1u << 1) /* not joinable: its slot is free as soon as it ends */
#define WEFT_SUSPENDED (1u << 2) /* does not start until weft_wake() */
#define WEFT_STACK_NOW (1u << 3) /* take the stack now: spawn itself reports -ENOMEM */
#define WEFT_PINNED    (1u << 4) /* stays where it first runs, as fibers do unless movable */

/* struct weft_spawn_opts.worker: start on worker n (from 0) and nowhere else; 0 means any. */
#define WEFT_WORKER(n) ((unsigned)(n) + 1u)

/*
 * Who goes first among the processes of a worker that are ready: high, then normal, then low; but
 * of 8 runs while they wait normal ones have one at least, and low ones one. A process comes into
 * its class with its first run, or at once if it was spawned for a worker: until then any worker
 * may take it, as a normal one. A process with a class that is WEFT_MOVABLE waits on the worker
 * that made it ready, and does not move from there, unless some worker has nothing to run.
 */
enum weft_priority {
	WEFT_PRIORITY_NORMAL = 0,
	WEFT_PRIORITY_HIGH,
	WEFT_PRIORITY_LOW,
};

/* How to spawn. Zero everywhere (but `size`) is what weft_spawn() does. */
struct weft_spawn_opts {
	size_t size;               /* sizeof(struct weft_spawn_opts) */
	const char *name;          /* for logs and dumps; copied, at most 31 bytes are kept */
	size_t stack_size;         /* bytes, at least 16384; 0: the runtime's default */
	unsigned flags;            /* WEFT_MOVABLE, …; not both that one and WEFT_PINNED */
	unsigned worker;           /* WEFT_WORKER(n), or 0 */
	/*
	 * Called exactly once, on a worker, when fn has returned or will never run, before a join
	 * of the process returns. Must not wait.
	 */
	void (*arg_dtor)(void *arg);
	enum weft_priority priority;
	uint64_t trace;            /* its trace word; 0: that of the process that spawns it */
};

/*
 * Starts a process that runs fn(arg). Never switches: the caller goes on, the new process runs
 * later, on this worker or on one that steals it.
 * pid_out: receives the id; NULL makes the process detached.
 * Ownership: `arg` is the process's from success on; after an error still the caller's.
 * Threads: any process (other threads: weft_rt_spawn). Blocks: never.
 * Returns: 0; -EAGAIN if the runtime already has `processes_max` (those that ended within the last
 * milliseconds, and a few dozen spare slots per worker and thread, count too); -ENOMEM; -ESHUTDOWN
 * once the runtime stops; -EPERM outside a process; -EINVAL for a NULL fn.
 */
WEFT_API int weft_spawn(weft_fn fn, void *arg, weft_pid *pid_out);

/*
 * Like weft_spawn(), with options; opts may be NULL.
 * Returns also: -EINVAL for unknown flags, an unknown priority, a stack size under 16384 or over
 * 1 GiB, a worker that does not exist, or a `size` that is 0 or of a newer release with fields set
 * that this one lacks.
 */
WEFT_API int weft_spawn_with(
	weft_fn fn, void *arg, const struct weft_spawn_opts *opts, weft_pid *pid_out);

/*
 * The two-step form: reserve makes an id that can already be given away, joined and cancelled;
 * commit starts the process under it; abort gives it up without a trace (joiners get -ESRCH).
 * A reserved id counts as live: a runtime does not end before commit or abort.
 * Threads: any process of the runtime that reserved. Blocks: never.
 * Returns of reserve: as weft_spawn(); -EINVAL without pid_out. Of commit: 0 (also once the runtime
 * stops: the process then runs with the cancellation pending); -ESRCH if pid is not a reserved one
 * of this runtime; -EINVAL, -ENOMEM: then the reservation stands and `arg` is still the caller's;
 * -EPERM outside a process. Of abort: 0, -ESRCH or -EPERM.
 */
WEFT_API int weft_spawn_reserve(weft_pid *pid_out);
WEFT_API int weft_spawn_commit(
	weft_pid pid, weft_fn fn, void *arg, const struct weft_spawn_opts *opts);
WEFT_API int weft_spawn_abort(weft_pid pid);

/*
 * Waits until a process has ended, and takes its result. Works any time before or after its end;
 * the result is handed out once, and the id is unknown afterwards.
 * result_out: receives what the body returned (-ENOMEM if no stack could be had); may be NULL.
 * Written only on success, so a process that returned -ECANCELED is told apart from a cancelled
 * join.
 * Threads: any thread; outside a process the thread itself blocks.
 * Blocks: until the process ends or the deadline. Cancel: the process is still joinable.
 * Returns: 0; -ETIME; -EAGAIN (WEFT_POLL and not ended yet); -ECANCELED; -EBUSY if somebody else
 * waits for it, or it is a scope's child; -ESRCH if unknown, detached or already joined; -EDEADLK
 * for oneself, or one that only the caller's polls let run (weft_rt_poll()); -ENOMEM when more than
 * 64 foreign threads wait in one runtime; -EPERM inside a weft_post() function if it would have to
 * wait.
 */
WEFT_API int weft_join(weft_pid pid, int *result_out, weft_time deadline);

/*
 * weft_join() that never waits and is not a point of cancellation.
 * Threads: any thread. Blocks: never. Returns: 0; -EAGAIN: it has not ended; -EBUSY, -ESRCH.
 */
WEFT_API int weft_try_join(weft_pid pid, int *result_out);

/*
 * Gives up the right to join: the slot is freed as soon as the process ends (now, if it has).
 * Threads: any thread. Blocks: never.
 * Returns: 0; -EBUSY while somebody waits for it, and of a scope's child; -ESRCH.
 */
WEFT_API int weft_detach(weft_pid pid);

/*
 * Asks a process to end: from now on every call of it that can park returns -ECANCELED, and one
 * that is parked is woken to do so (a result that is ready at that moment wins). Idempotent. A
 * process that has not run yet still runs, with the cancellation pending.
 * Threads: any thread. Blocks: never. Returns: 0 or -ESRCH.
 */
WEFT_API int weft_cancel(weft_pid pid);

/*
 * The calling process's id; zero outside a process. Threads: any thread. Blocks: never.
 */
WEFT_API weft_pid weft_self(void);

/*
 * The worker the caller runs on, from 0; -1 outside a worker. Threads: any thread. Blocks: never.
 */
WEFT_API int weft_worker_index(void);

/*
 * Lets others run: the caller is queued again behind a poll of the driver and behind the processes
 * that are ready.
 * Threads: any process. Blocks: until its turn comes.
 * Returns: 0; -ECANCELED (after having yielded, so a loop on it cannot hold the worker); -EPERM.
 */
WEFT_API int weft_yield(void);

/*
 * True when the caller should let others run: it has not parked or yielded for 1 ms since it first
 * asked. For loops that compute; reads the clock.
 * Threads: any process (false elsewhere). Blocks: never.
 */
WEFT_API bool weft_should_yield(void);

/*
 * Takes a unit of the caller's budget, and yields if it was the last one. Each run of a process has
 * 128; reads, writes, accepts and other calls that get on without waiting take one each, so that no
 * process holds its worker by always being ready. For loops that make such progress by other means;
 * reads no clock.
 * Threads: any process. Blocks: only when the budget is used up, until its turn comes.
 * Returns: 0; -ECANCELED (the unit is taken, so a loop on it cannot hold the worker); -EPERM.
 */
WEFT_API int weft_consume(void);

/*
 * What is left of the budget: so many calls of weft_consume(), the last of which yields. 0 outside
 * a process. Threads: any thread. Blocks: never.
 */
WEFT_API unsigned weft_budget_left(void);

/*
 * The caller's trace word: a number of the program's own, such as the id of a request, that goes
 * from a process to those it spawns. 0: none, as outside a process.
 * Threads: any thread. Blocks: never.
 */
WEFT_API uint64_t weft_trace_word(void);

/*
 * Sets it, for the caller and those it spawns from now on; 0 clears it.
 * Threads: any process. Blocks: never. Returns: 0; -ENOMEM; -EPERM.
 */
WEFT_API int weft_trace_set(uint64_t trace);

/*
 * Waits for a weft_wake() on the calling process and consumes it. Wakes do not add up: any number
 * before a park end that one park. Only weft_wake() ends a park, and it ends no other blocking
 * call. Threads: any process. Blocks: until woken or the deadline.
 * Cancel: returns -ECANCELED unless a wake was already there; then 0.
 * Returns: 0; -ETIME; -EAGAIN (WEFT_POLL and no wake there); -ECANCELED; -EPERM.
 */
WEFT_API int weft_park(weft_time deadline);

/*
 * Wakes a process that parks, or makes its next weft_park() return at once; starts one spawned
 * WEFT_SUSPENDED. What the caller wrote before is visible to the woken process.
 * Threads: any thread. Blocks: never. Returns: 0 or -ESRCH.
 */
WEFT_API int weft_wake(weft_pid pid);

#ifdef __cplusplus
}
#endif

#endif
