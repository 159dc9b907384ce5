/*
 * <weft/fail.h>: how a process ends and what it leaves behind: cleanups, failure, shields, and
 * values of its own.
 *
 * A process ends when its body returns or calls weft_fail(). Either way, on its own stack and
 * before a join of it returns,
 *
 *	1. its cleanups run, the last one first;
 *	2. its local values are destroyed, in the order of their keys;
 *	3. arg_dtor is called (struct weft_spawn_opts);
 *
 * and only then its stack is used again. Whatever of that calls weft_fail() is left there, and the
 * rest still runs. A process that never ran, having got no stack, has no more than the third.
 */
#ifndef WEFT_FAIL_H
#define WEFT_FAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weft/process.h>
#include <weft/time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Cleanups --- */

/*
 * A function to be called when the process ends: caller-owned memory, any content before
 * weft_defer(). It belongs to the process, not to the function that made it, and stays where it is
 * until it is run or dropped: one on a function's stack must be taken out before that function
 * returns, be it the body itself. (weft_fail() does not return: it runs those too.) A process that
 * ends with one in a frame that is gone aborts the program, and so does a task that returns
 * WEFT_PENDING with one.
 */
struct weft_deferred {
	void *opaque[2]; /* Weft's */
	void (*fn)(void *arg);
	void *arg;
};

/*
 * Has fn(arg) called when the calling process ends, however it ends, before what was deferred
 * earlier. It may park (a task's cannot: calls that arm come to nothing); in a process that is
 * cancelled that takes a shield. It may defer more, and
 * may fail.
 * Ownership: `defer` is Weft's until it is run or dropped; not to be deferred twice at a time.
 * Threads: any process. Blocks: never.
 * Returns: 0; -EINVAL for a NULL fn; -EPERM outside a process; -ENOMEM never in a fiber.
 */
WEFT_API int weft_defer(struct weft_deferred *defer, void (*fn)(void *arg), void *arg);

/*
 * Takes a record out and calls its function now. In any order; the one deferred last costs least.
 * Threads: the process that deferred it. Blocks: as the function does.
 * Returns: 0; -EINVAL if it is not deferred in the calling process, or was run already; -EPERM.
 */
WEFT_API int weft_defer_run(struct weft_deferred *defer);

/* Takes a record out without calling its function. Blocks: never. Otherwise as weft_defer_run(). */
WEFT_API int weft_defer_drop(struct weft_deferred *defer);

/* --- Failure --- */

/*
 * Ends the calling process, and no other, with the result `code`: cleanups, destructors and
 * arg_dtor run, on top of the frames that were active, which are not unwound: like longjmp() this
 * skips what C++ or another library meant to do on the way out. In a cleanup or a destructor it
 * ends that one only; the first failure's code and message are what is told, also when the body had
 * returned by then.
 * code: a negative errno; anything else is told as -EINVAL. format: as printf(); at most 95 bytes
 * are kept, none if there is no memory; NULL: no message. weft_join_exit() tells both.
 * Threads: any process. Elsewhere (another thread, a weft_post() function, an arg_dtor of a process
 * that never ran) it aborts the program with a line that says so.
 * Blocks: as the cleanups do; never returns.
 */
WEFT_API __attribute__((noreturn, format(printf, 2, 3))) void weft_fail(
	int code, const char *format, ...);

/* How a process has ended. */
struct weft_exit {
	size_t size;      /* sizeof(struct weft_exit), set by the caller */
	weft_pid pid;
	int result;       /* what weft_join() hands out */
	bool failed;      /* by weft_fail() */
	char name[32];    /* that it was spawned with, or "" */
	char message[96]; /* weft_fail()'s, or "" */
};

/*
 * weft_join() that tells more.
 * exit_out: its `size` is read, the rest written, only on success.
 * Threads, Blocks, Cancel: as weft_join(). Returns: as weft_join(); -EINVAL for a NULL exit_out or
 * a `size` that is not set.
 */
WEFT_API int weft_join_exit(weft_pid pid, struct weft_exit *exit_out, weft_time deadline);

/* --- Shields --- */

#define WEFT_SHIELD_DEPTH_MAX 15

/*
 * Holds cancellation off: until the matching weft_shield_end() the calling process is not told of
 * one, and what parks it ends as if there were none; the next call after the outermost end that can
 * park returns -ECANCELED. For what must not be left halfway, and for cleanups that park. Nests.
 * Keep it short: a stop of the runtime waits for it.
 * Threads: any process. Blocks: never.
 * Returns: 0; -ENOSPC when WEFT_SHIELD_DEPTH_MAX are open; -EPERM outside a process.
 */
WEFT_API int weft_shield_begin(void);

/*
 * Ends what weft_shield_begin() began. The end of the process ends all that its body left open,
 * before its cleanups run.
 * Threads: any process. Blocks: never. Returns: 0; -EINVAL if none is open; -EPERM.
 */
WEFT_API int weft_shield_end(void);

/* --- Local values --- */

/* Names one value in every process of the program. Zero names none. */
typedef struct weft_local {
	uint32_t raw;
} weft_local;

#define WEFT_LOCALS_MAX 32

/*
 * Makes a key, for good: there is no way to give one back.
 * dtor: called with each process's value when that process ends, unless it is NULL; on the
 * process's stack, where it may park. If destructors set values again these are destroyed too, in 4
 * rounds at most. NULL: none.
 * Threads: any thread. Blocks: never. Returns: 0; -EAGAIN when WEFT_LOCALS_MAX exist; -EINVAL for a
 * NULL key_out.
 */
WEFT_API int weft_local_create(weft_local *key_out, void (*dtor)(void *value));

/*
 * Sets the calling process's value. The one it had is forgotten, not destroyed.
 * Threads: any process. Blocks: never.
 * Returns: 0; -ENOMEM (the first value of a process takes memory); -EINVAL for a key that was not
 * made; -EPERM outside a process, and once the process's values have been destroyed.
 */
WEFT_API int weft_local_set(weft_local key, void *value);

/*
 * The calling process's value; NULL if it has set none, outside a process, and for a key that was
 * not made. Threads: any thread. Blocks: never.
 */
WEFT_API void *weft_local_get(weft_local key);

#ifdef __cplusplus
}
#endif

#endif
