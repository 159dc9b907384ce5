/*
 * <weft/test.h>: runtimes for tests of what is built on Weft: virtual time, single steps, forced
 * failures. Not part of <weft.h>.
 *
 *	weft_rt *rt;
 *	weft_test_create(NULL, &rt);
 *	weft_rt_spawn(rt, server, NULL, NULL, &pid);
 *	weft_test_run_until_idle(rt);            everything that is ready has run
 *	weft_test_advance(rt, WEFT_SEC(3600));   an hour passes, deadline by deadline
 *	weft_test_fail(rt, WEFT_TEST_STACK, 1);  the next fiber finds no stack
 *	…
 *	weft_rt_destroy(rt, WEFT_FOREVER);
 *
 * A test runtime is an embedded one (WEFT_RT_EMBEDDED), so that nothing runs but during a call of
 * the thread that made it. Its time starts at WEFT_TEST_START and moves only where a comment below
 * says so: an hour's sleep takes microseconds. Its processes, and drivers, see that time in
 * weft_now(), weft_now_coarse() and weft_after(); outside, these give real time, and
 * weft_test_now() the runtime's. Its wall clock (<weft/wall.h>) starts at WEFT_TEST_WALL_START,
 * moves with that time, and steps where weft_test_step_wall() says so. Its driver is "mem": "tcp:"
 * and "mem:" addresses are in the in-memory network, whose latencies are virtual time too.
 *
 * The same program does the same each time: one process runs at a time, in an order that only
 * depends on what they do, and between two runs I/O, wakes and timers are looked at. What comes
 * from other threads (weft_post(), the resolver) is looked at whenever it happens to come; virtual
 * time does not wait for it. But it does for blocking work (<weft/blocking.h>): while a job has not
 * ended, calls that would move time wait for it instead, in real time, however long; those that do
 * not move it (weft_test_step(), weft_test_run_until_idle()) do not. Ids of processes may differ
 * from run to run.
 *
 * weft_rt_poll() on a test runtime never sleeps as long as something can fall due: it moves time
 * there, at most to its deadline. So weft_rt_run() works; with everything that is alive waiting for
 * ever it returns -EDEADLK. Deadlines of weft_rt_stop() and weft_rt_destroy() are real time; they
 * move virtual time as they need it, and give up (-ETIMEDOUT, -EBUSY) as soon as nothing can fall
 * due any more. weft_rt_destroy() of a runtime that was not stopped logs the processes that are
 * still alive, as a warning, before it cancels them.
 *
 * Threads, unless said otherwise: the one that made the runtime, outside every runtime. The calls
 * give -EDEADLK inside one, -EPERM on another thread, -EINVAL for a runtime that is no test's, and
 * -ESHUTDOWN once it has ended.
 */
#ifndef WEFT_TEST_H
#define WEFT_TEST_H

#include <weft.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the time of a test runtime is at first: far from 0, so that the past can be named. */
#define WEFT_TEST_START WEFT_SEC(1000000)

/* What its wall clock is at first, in nanoseconds since 1970: 2000-01-01T00:00:00Z. */
#define WEFT_TEST_WALL_START WEFT_SEC(946684800)

/*
 * Makes a test runtime.
 * opts: as for an embedded runtime, or NULL; the driver may be left out, or be an in-memory one.
 * Ownership: the caller's, until weft_rt_destroy(). Blocks: the thread, for milliseconds.
 * Returns: 0; -EINVAL (a bad option, or a driver that is the kernel's); else as weft_rt_create().
 */
WEFT_API int weft_test_create(const struct weft_rt_opts *opts, weft_rt **rt_out);

/*
 * The time of a test runtime; of any other the real one. Threads: any thread. Blocks: never.
 */
WEFT_API weft_time weft_test_now(const weft_rt *rt);

/* Of a test runtime its wall clock; of any other the real one. Threads: any. Blocks: never. */
WEFT_API struct weft_wall weft_test_wall(const weft_rt *rt);

/*
 * Sets the wall clock of a test runtime forward by `delta_ns`, or back where that is negative, as
 * an administrator does, or NTP. weft_wall_now() in its processes is all that changes.
 * Threads: the runtime's, also inside its processes. Blocks: never.
 * Returns: 0; -EINVAL: no test runtime; -ERANGE: by all steps together it would be further than
 * about 290 years from 1970.
 */
WEFT_API int weft_test_step_wall(weft_rt *rt, weft_time delta_ns);

/*
 * Runs until nothing is ready at the present time. Does not return while some process is always
 * ready, as one that yields in a loop is: weft_test_step() does.
 * Blocks: as long as that takes.
 * Returns: how many runs of processes that were (of one that yields, each counts); errors: above.
 */
WEFT_API int64_t weft_test_run_until_idle(weft_rt *rt);

/*
 * Runs at most `count` processes, each until it waits, yields or ends, at the present time.
 * Blocks: as long as that takes.
 * Returns: how many; fewer than `count` means that nothing is ready; errors: above.
 */
WEFT_API int64_t weft_test_step(weft_rt *rt, unsigned count);

/*
 * Lets time pass: moves to each moment at which something falls due, in order, and runs until
 * nothing is ready there; at last to `duration_ns` from now. WEFT_FOREVER: until nothing will fall
 * due. Timers have ticks (1 us by default): one may fall due up to a tick after its deadline.
 * Blocks: as long as that takes.
 * Returns: how many runs of processes that were; errors: above.
 */
WEFT_API int64_t weft_test_advance(weft_rt *rt, weft_time duration_ns);

/*
 * Lets time pass as weft_test_advance() does, until no process is alive, but for at most
 * `limit_ns`.
 * Blocks: as long as that takes.
 * Returns: 0 nothing is alive; -ETIME: at the limit something is; -EDEADLK: what is alive waits for
 * ever; errors: above.
 */
WEFT_API int weft_test_run(weft_rt *rt, weft_time limit_ns);

/*
 * How many processes are alive: begun or not, and not ended. Posts that have not run count too.
 * Threads: any thread. Blocks: never.
 */
WEFT_API uint64_t weft_test_alive(const weft_rt *rt);

/* What can be made to fail. */
enum weft_test_failure {
	WEFT_TEST_ALLOCATION, /* memory of the runtime and, for it, of the in-memory network */
	WEFT_TEST_STACK,      /* a fiber's, at its first run: it ends with -ENOMEM */
	WEFT_TEST_PROCESS,    /* a spawn or a reservation: -EAGAIN, as at processes_max */
};

/*
 * Makes the nth of a kind from now fail, once; 1 is the next one, 0 none. The kinds are counted
 * apart. In a loop over nth, until weft_test_failing() says that it was not reached, each place is
 * tried.
 * Threads: the runtime's, also inside its processes. Blocks: never.
 * Returns: 0; -EINVAL: no test runtime, or no such kind.
 */
WEFT_API int weft_test_fail(weft_rt *rt, enum weft_test_failure what, unsigned nth);

/*
 * How many of that kind it is until the one that fails; 0: none is to fail, or it has.
 * Threads: any thread. Blocks: never.
 */
WEFT_API unsigned weft_test_failing(const weft_rt *rt, enum weft_test_failure what);

#ifdef __cplusplus
}
#endif

#endif
