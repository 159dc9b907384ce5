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
 * Several workers, on threads of their own, have virtual time too: weft_virtual_create(), below.
 *
 * Threads, unless said otherwise: the one that made the runtime, outside every runtime. The calls
 * give -EDEADLK inside one, -EPERM on another thread, -EINVAL for a runtime that is no test's or
 * has threads, and -ESHUTDOWN once it has ended.
 */
#ifndef WEFT_TEST_H
#define WEFT_TEST_H

#include <stdbool.h>
#include <stddef.h>

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
 * Threads: any thread. Blocks: never.
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
 * Threads: any thread. Blocks: never.
 * Returns: 0; -EINVAL: no test runtime, or no such kind.
 */
WEFT_API int weft_test_fail(weft_rt *rt, enum weft_test_failure what, unsigned nth);

/*
 * How many of that kind it is until the one that fails; 0: none is to fail, or it has.
 * Threads: any thread. Blocks: never.
 */
WEFT_API unsigned weft_test_failing(const weft_rt *rt, enum weft_test_failure what);

/*
 * --- Virtual time with threads ---
 *
 * A test runtime of this kind runs as any other: its workers have threads, weft_rt_run() and
 * weft_join() wait for them. Only its clock is virtual: it stands while anything runs or is ready,
 * and where all is at rest it leaps to the next deadline, by itself. So a day of timeouts passes as
 * fast as it can be computed, and no timeout comes early because the machine was slow.
 *
 *	weft_rt *rt;
 *	weft_virtual_create(&opts, NULL, &rt);
 *	weft_rt_spawn(rt, server, NULL, NULL, &pid);
 *	weft_rt_run(rt);                          an hour of its time is over in milliseconds
 *
 * At rest means: every worker is asleep, and nothing is in a queue; no blocking work is under way,
 * in whatever thread; and no thread outside is inside a call that starts or wakes something (spawn,
 * post, wake, cancel, timer). Time then goes to the earliest deadline, of processes, timers and the
 * network in memory, and stands there until everything that is due has run and all is at rest
 * again, so all that is due at one instant sees the same weft_now(). Deadlines are rounded up to
 * ticks (1 us by default): what is due within a tick is one instant.
 *
 * A thread outside that does several things in a row, at one time, freezes the clock meanwhile. In
 * a runtime that is frozen from the beginning nothing happens by itself, and a test moves time:
 *
 *	struct weft_virtual_opts frozen = { .size = sizeof frozen, .frozen = true };
 *	weft_virtual_create(&opts, &frozen, &rt);
 *	weft_rt_spawn(rt, client, NULL, NULL, NULL);
 *	weft_virtual_wait_idle(rt, WEFT_FOREVER);              it waits for its answer
 *	weft_virtual_advance(rt, WEFT_SEC(30), WEFT_FOREVER);  and has timed out
 *
 * A program whose processes all wait for each other stands for ever, and time with it: then
 * weft_virtual_wait_idle() gives -EDEADLK, and a warning on the log tells who is alive; it comes by
 * itself when a runtime has stood like that for about half a second, unless stalls are not watched
 * (stall_ns). weft_rt_run(), weft_join() and weft_rt_block_on() wait on: another thread may help.
 *
 * What goes by the kernel's clock all the same: deadlines that threads outside give to weft_join(),
 * weft_rt_stop() and weft_rt_destroy(), which are about real time; the watch on stalls; and what
 * the resolver, signals and child processes take, for which virtual time does not wait. A stop
 * thaws the clock: what is to end may need time. weft_test_now(), weft_test_wall(),
 * weft_test_step_wall(), weft_test_alive(), weft_test_fail() and weft_test_failing() are for these
 * runtimes too; the others above give -EINVAL.
 */

struct weft_virtual_opts {
	size_t size;        /* sizeof(struct weft_virtual_opts) */
	bool frozen;        /* time stands until it is told to move */
	bool allow_real_io; /* opts.driver may be the kernel's: time does not wait for its I/O */
};

/*
 * Makes a test runtime whose workers have threads.
 * opts: as for weft_rt_create(), or NULL; the driver is "mem" if none is named; workers always park
 * when idle. virtual_opts: NULL is all zero.
 * Ownership: the caller's, until weft_rt_destroy(). Threads: outside every runtime. Blocks: the
 * thread, for milliseconds.
 * Returns: 0; -EINVAL (a bad option; WEFT_RT_EMBEDDED; a driver that can only be polled; the
 * kernel's, without allow_real_io); else as weft_rt_create().
 */
WEFT_API int weft_virtual_create(const struct weft_rt_opts *opts,
	const struct weft_virtual_opts *virtual_opts, weft_rt **rt_out);

/*
 * Stops time where it is; processes go on. When it returns, time stands. Thaw: it moves by itself.
 * Threads: any thread, also inside. Blocks: never.
 * Returns: 0; -EINVAL: no such runtime; -EBUSY: inside weft_virtual_advance().
 */
WEFT_API int weft_virtual_freeze(weft_rt *rt);
WEFT_API int weft_virtual_thaw(weft_rt *rt);

/*
 * Lets `duration_ns` pass in a runtime that is frozen, instant by instant, and waits until all is
 * at rest at the end: then weft_test_now() is exactly that much later. WEFT_FOREVER: until nothing
 * will fall due. Time is frozen again, also where this gives up.
 * real_deadline: of the kernel's clock (weft_after() outside of processes).
 * Threads: any thread, outside every runtime. Blocks: until then.
 * Returns: 0; -ETIMEDOUT: the deadline passed first: something runs all the while, or waits in
 * blocking work; -EINVAL: it is not frozen, or no such runtime; -EBUSY: another thread is at it;
 * -ESHUTDOWN: it was stopped; -EDEADLK: inside a runtime, or in its blocking work.
 */
WEFT_API int weft_virtual_advance(
	weft_rt *rt, weft_time duration_ns, weft_time real_deadline);

/*
 * Waits until all is at rest and time has nothing to go to: frozen, at the present time; else, when
 * nothing will fall due any more.
 * real_deadline, threads, blocks: as weft_virtual_advance().
 * Returns: 0; -EDEADLK: time is not frozen, and processes are alive, who wait for ever unless
 * somebody outside does something: the log tells who; also inside a runtime; -ETIMEDOUT; -EINVAL:
 * no such runtime. Of one that has ended: 0.
 */
WEFT_API int weft_virtual_wait_idle(weft_rt *rt, weft_time real_deadline);

#ifdef __cplusplus
}
#endif

#endif
