/*
 * <weft.h>: runtimes: create, run, stop, destroy; and all other headers but the last of these:
 *
 *	<weft/time.h>      points in time, durations, deadlines
 *	<weft/interval.h>  ticks at a steady pace
 *	<weft/process.h>   processes: spawn, join, cancel, park and wake
 *	<weft/task.h>      processes without a stack; wakers
 *	<weft/scope.h>     processes that do not outlive the block that started them
 *	<weft/fail.h>      how a process ends: cleanups, failure, shields, values of its own
 *	<weft/timer.h>     timers that wake a process or call a function
 *	<weft/blocking.h>  work that blocks, on threads made for it
 *	<weft/io.h>        network I/O; servers; a network in memory
 *	<weft/signal.h>    signals, received by processes
 *	<weft/child.h>     child processes of the operating system
 *	<weft/wall.h>      the wall clock, dates as text
 *	<weft/clocks.h>    clocks with timers, for loops of your own; they need no runtime
 *	<weft/test.h>      for tests: virtual time, single steps, forced failures
 *
 * A runtime owns workers (one thread and one scheduler each), their stacks, timers and I/O. A
 * process may hold several runtimes at once; they share nothing but ids. Most programs call
 * weft_main() and nothing else of this page.
 *
 *	weft_rt_create  workers run, pinned, drivers open; they run what is spawned
 *	weft_rt_start   from now on the runtime ends when no process is alive
 *	weft_rt_run     start, then wait for that end
 *	weft_rt_stop    drain, cancel, end
 *	weft_rt_destroy free; stops first if need be
 *
 * An embedded runtime has no worker thread: the thread that has made it steps it, from a loop of
 * its own, with weft_rt_poll(). <weft/test.h> has one with a virtual clock, for tests.
 *
 * Errors are negative errno values; `errno` is never set. Nothing of the host's is changed: no
 * signal handlers, no affinity of its threads, no limits (weft_main() does what its comment says).
 * A child after fork() may only exec or _exit.
 */
#ifndef WEFT_H
#define WEFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weft/time.h>
#include <weft/process.h>
#include <weft/blocking.h>
#include <weft/child.h>
#include <weft/clocks.h>
#include <weft/fail.h>
#include <weft/interval.h>
#include <weft/scope.h>
#include <weft/task.h>
#include <weft/io.h>
#include <weft/signal.h>
#include <weft/timer.h>
#include <weft/wall.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEFT_VERSION_MAJOR 0
#define WEFT_VERSION_MINOR 1
#define WEFT_VERSION_PATCH 0

typedef struct weft_rt weft_rt;

/* How a worker without work waits. */
enum weft_idle {
	WEFT_IDLE_DEFAULT = 0, /* adaptive */
	WEFT_IDLE_ADAPTIVE,    /* spins where a gap is likely short, within a credit; parks else */
	WEFT_IDLE_PARK,        /* sleeps at once: least CPU */
	WEFT_IDLE_SPIN,        /* never sleeps: least latency, all of the CPU */
	/* A driver that can only be polled makes it SPIN, with a line on the log. */
};

enum weft_pin {
	WEFT_PIN_DEFAULT = 0, /* weft_main: on; weft_rt_create: off */
	WEFT_PIN_ON,          /* worker n to the n-th allowed CPU; refused: one warning, goes on */
	WEFT_PIN_OFF,
};

enum weft_log_level {
	WEFT_LOG_ERROR = 1,
	WEFT_LOG_WARN,
	WEFT_LOG_INFO,
	WEFT_LOG_DEBUG,
};

/*
 * Receives a line of log: no newline, valid during the call. May be called from any thread, also at
 * once from several; must not call Weft. worker is -1 and pid zero where they do not apply.
 */
typedef void (*weft_log_fn)(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text);

/* Memory for everything but stacks. `release` is told the size that was asked for. Any thread. */
struct weft_allocator {
	void *(*allocate)(void *ctx, size_t alignment, size_t size); /* NULL when there is none */
	void (*release)(void *ctx, void *memory, size_t size);
	void *ctx;
};

/*
 * Calls of the host's at certain moments; those left NULL are not made, and cost nothing. On the
 * worker concerned, outside a process: what can park gives -EPERM there. They must not block, nor
 * stay long: they hold up every process of the worker. They may wake, post and weft_rt_spawn().
 */
struct weft_hooks {
	size_t size; /* sizeof(struct weft_hooks) */
	void *ctx;   /* passed to each */
	/* The worker's first and last act; each start has its stop. */
	void (*thread_start)(void *ctx, int worker);
	void (*thread_stop)(void *ctx, int worker);
	/* Around each time it may sleep. What the first makes ready is run without a sleep. */
	void (*thread_park)(void *ctx, int worker);
	void (*thread_unpark)(void *ctx, int worker);
	/*
	 * A process is about to exist: on the thread that spawns it (also a foreign one), before it
	 * can run. Each is followed by one process_end, with -ESHUTDOWN if a stop takes it back.
	 */
	void (*process_spawn)(void *ctx, weft_pid pid);
	/* It has ended: before its join returns. `exit` is valid during the call. */
	void (*process_end)(void *ctx, const struct weft_exit *exit);
	/* Around each time it runs, from where it begins or goes on to where it parks or ends. */
	void (*before_run)(void *ctx, weft_pid pid);
	void (*after_run)(void *ctx, weft_pid pid);
};

/* What went wrong, where. */
struct weft_error {
	int error;        /* negative errno */
	int worker;       /* -1: none in particular */
	/* "options", "cpus", "thread", "pin", "driver", "poll", "user function", …; static */
	const char *step;
	char text[160];   /* one line for people */
};

/* How to make a runtime. Zero everywhere (but `size`) is a good default. */
struct weft_rt_opts {
	size_t size;             /* sizeof(struct weft_rt_opts) */
	const char *name;        /* threads are weft/<name>/<n>, cut to 15 bytes; default "weft" */
	unsigned workers;        /* 0: one for each CPU that cpuset, cgroup quota, `cpus` allow */
	const char *cpus;        /* explicit list such as "0,2-5": workers pinned in its order */
	enum weft_pin pin;
	enum weft_idle idle;
	const char *driver;      /* "epoll", "mem" (<weft/io.h>); NULL: the build's default */
	size_t stack_size;       /* bytes of a fiber's stack, from 16384; 0: the build's default */
	uint32_t processes_max;  /* 0: 2^26 - 1 */
	const struct weft_allocator *allocator; /* NULL: malloc. Must outlive the runtime */
	weft_log_fn log;         /* NULL: stderr, at the level WEFT_LOG names (default: warn) */
	void *log_ctx;
	unsigned flags;          /* WEFT_RT_* */
	weft_time grace_ns;      /* how long a signal's stop waits for processes; 0: 10 s */
	/*
	 * weft_rt_create, weft_main: receives the details of a failure (but of a wrong `size`,
	 * which leaves all other fields unread).
	 */
	struct weft_error *error;
	const struct weft_hooks *hooks; /* copied. NULL: none */
	/*
	 * A process that holds its worker for longer than this, in nanoseconds, is named on the log
	 * (warn): once for each time, at most once a second for a worker. 0: 25 ms. WEFT_FOREVER:
	 * never, and no thread that looks after it.
	 */
	weft_time stall_ns;
	unsigned blocking_threads_max;    /* <weft/blocking.h>: at once; to 65536; 0: 512 */
	weft_time blocking_keep_alive_ns; /* an idle thread of those ends then; 0: 10 s */
	/*
	 * How late deadlines of <weft/io.h> may be so that neighbours fall due together, in
	 * nanoseconds, to 1 s; <weft/time.h> says more. 0: 1 ms. 1: not at all.
	 */
	weft_time timer_slack_ns;
	weft_time precise_spin_ns; /* what weft_sleep_precise() spins at most, to 1 ms; 0: 60 us */
};

/* struct weft_rt_opts.flags */
#define WEFT_RT_GUARD_REPORT   (1u << 0) /* a stack overflow names the fiber (SIGSEGV handler) */
#define WEFT_RT_RAISE_FD_LIMIT (1u << 1) /* raise RLIMIT_NOFILE's soft limit to the hard one */
#define WEFT_RT_GUARD_MPROTECT (1u << 2) /* guards by mprotect also where the kernel has better */
#define WEFT_RT_EMBEDDED       (1u << 3) /* no worker thread: weft_rt_poll(), below */
/*
 * The report of a stall (stall_ns) says where the process is, as far as it is compiled with frame
 * pointers. Takes the highest real-time signal that nobody handles, and gives it back; workers get
 * that signal while they stall in a computation, hardly ever in a system call (which it could
 * interrupt). Symbols are those of the dynamic symbol table.
 */
#define WEFT_RT_STALL_BACKTRACE (1u << 4)
/*
 * Owns the signals of <weft/signal.h>, which has the rule of what they do: from weft_rt_create() on
 * they are blocked in its thread, weft_rt_run() reads them, and gives thread and signals back when
 * the runtime has ended (so does weft_rt_destroy()). Call all three on one thread, the first before
 * the program has others: those would have to block the signals too. Not with WEFT_RT_EMBEDDED.
 */
#define WEFT_RT_SIGNALS        (1u << 5)

/*
 * The whole life of a server: makes a runtime, runs fn(arg) as its first process, and returns when
 * no process is left. Pins workers, reports stack overflows, says where a process stalls (both
 * flags), and owns the signals of <weft/signal.h> while it runs. A SIGINT, SIGTERM or SIGHUP (that
 * is not ignored) to which no process has subscribed starts a graceful stop (weft_serve() returns,
 * connections finish, what is left after grace_ns is cancelled), which is no error; a second one
 * cancels at once. Reads WEFT_WORKERS, WEFT_CPUS, WEFT_IDLE (adaptive, park, spin), WEFT_DRIVER
 * from the environment where the options leave the default; a wrong value there, or of WEFT_LOG, is
 * -EINVAL. A failure to begin is also one line on the log.
 * Threads: one that is in no runtime, best before others exist (they would have to block the
 * signals). Blocks: until the runtime has ended.
 * Returns: the first process's result, or the runtime's error (negative errno, as
 * weft_rt_create/weft_rt_run), -EINTR after a SIGQUIT that nobody handled; -ETIMEDOUT if processes
 * outlive their cancellation by 5 s: they are named on the log, still run, and nothing is freed.
 */
WEFT_API int weft_main(const struct weft_rt_opts *opts, weft_fn fn, void *arg);

/*
 * Makes a runtime. Returns when every worker has pinned itself and opened its drivers; if
 * one cannot, the others are ended again and opts->error names worker and step.
 * opts: may be NULL.
 * Ownership: the caller's, until weft_rt_destroy(). Threads: any thread outside a worker. Blocks:
 * the thread, for milliseconds.
 * Returns: 0; -EINVAL (a bad option: the text says which); -ENODEV (an explicit CPU list that
 * cannot be honoured, an unknown driver); -EAGAIN (a thread refused, or 63 runtimes exist);
 * -ENOMEM; -EMFILE; -EBUSY (WEFT_RT_SIGNALS, and another runtime has it); -EDEADLK inside a
 * runtime; other errors of the failing step.
 */
WEFT_API int weft_rt_create(const struct weft_rt_opts *opts, weft_rt **rt_out);

/*
 * From now on the runtime ends as soon as no process, post or call is alive. Does not wait.
 * Threads: any thread. Blocks: never. Returns: 0.
 */
WEFT_API int weft_rt_start(weft_rt *rt);

/*
 * weft_rt_start(), then waits until the runtime has ended: nothing is alive, it was stopped, or it
 * failed.
 * Threads: one thread, outside every worker; with WEFT_RT_SIGNALS the one that made the runtime.
 * Blocks: the thread.
 * Returns: 0, or the first error; weft_rt_error() tells all. -EINTR: a signal to stop that nobody
 * handled. -EDEADLK from a worker, or in the runtime's own blocking work; -EPERM: of an embedded
 * runtime, on another thread than its own.
 */
WEFT_API int weft_rt_run(weft_rt *rt);

/*
 * The n-th error of a runtime, from 0. Threads: any thread. Blocks: never.
 * Returns: 0 or -ENOENT.
 */
WEFT_API int weft_rt_error(weft_rt *rt, unsigned n, struct weft_error *error_out);

/*
 * Stops a runtime: (0) for at most `grace_ns` nanoseconds serving ends, spawns are still allowed
 * and processes may finish; (1) new processes and posts are refused with -ESHUTDOWN; (2) every live
 * process is cancelled; (3) the workers run until nothing is alive; (4, 5) they end.
 * grace_ns: a duration. deadline: absolute, for all of it; survivors are then named on the log.
 * Threads: any thread outside a worker waits. A worker must not: from one of the runtime's own
 * processes or posts it only begins the stop and returns 0 (so it does in blocking work of the
 * runtime's); from those of another runtime it begins it too, and gives -EDEADLK unless it has
 * ended. May be called again, also at once from several threads: the shortest grace counts.
 * Blocks: the thread, until the end or the deadline.
 * Returns: 0 (ended, or begun if called from inside); -ETIMEDOUT: something is still alive, the
 * stop goes on; -EDEADLK: the same, and it cannot be waited for here.
 */
WEFT_API int weft_rt_stop(weft_rt *rt, weft_time grace_ns, weft_time deadline);

/*
 * Frees a runtime, after weft_rt_stop() with no grace if it has not ended. Accepts NULL.
 * Threads: any thread outside every worker; nobody may use `rt` during or after it (ids stay
 * harmless). Blocks: until the deadline.
 * Returns: 0; -EBUSY: something outlived the deadline, and nothing was freed; call again. -EDEADLK
 * from a worker, its own or another runtime's, and in the runtime's own blocking work.
 */
WEFT_API int weft_rt_destroy(weft_rt *rt, weft_time deadline);

/*
 * Embedded runtimes (flag WEFT_RT_EMBEDDED): one worker, on the thread that calls weft_rt_create(),
 * while that is inside weft_rt_poll(). Nothing of the thread's is changed: neither name, affinity,
 * signal mask nor timer slack (its sleeps may be 50 us late). The options `workers` (0 or 1), `pin`
 * and `cpus` (unset) leave no choice; `idle` adaptive is the same as park; with spin, chosen or
 * forced by a driver, a poll does not sleep. Processes run during polls only, so one that holds its
 * worker holds the host's loop. The thread must not end before the runtime has.
 *
 * weft_rt_run() polls until the end. weft_rt_stop(), weft_rt_destroy() and weft_rt_block_on() poll
 * while they wait, if that thread calls them; on any other they wait for its polls (which it may go
 * on with during a weft_rt_destroy(), until one gives -ESHUTDOWN). weft_rt_stop() in a process of
 * another runtime on that thread only begins the stop. weft_join() on that thread, outside a
 * process, gives -EDEADLK where it would have to wait. Of the hooks, thread_start is called in
 * weft_rt_create(), thread_stop by the poll that sees the end.
 */

/*
 * Runs what is ready, for about 1 ms at most. If there was nothing, waits until there is, runs it,
 * and returns; or returns at the deadline. With WEFT_POLL or a past deadline it does not wait.
 * Threads: the one that made the runtime, outside every runtime. Blocks: the thread, until the
 * deadline.
 * Returns: 1 more is ready now; 0 nothing is; -ESHUTDOWN the runtime has ended (nothing is alive
 * after weft_rt_start(), or it was stopped): only weft_rt_error() and weft_rt_destroy() are left;
 * -EDEADLK inside a runtime; -EPERM on another thread; -EINVAL not an embedded runtime.
 */
WEFT_API int weft_rt_poll(weft_rt *rt, weft_time deadline);

/*
 * A descriptor that is readable while a poll has something to do: I/O, a wake, post or spawn from
 * elsewhere, a timer, work left over. For the host's own poll(), epoll or the like; nothing else
 * may be done with it. Now and then it is readable for nothing: a poll settles that. It is the
 * runtime's, always the same, and valid until weft_rt_destroy().
 * Threads: as weft_rt_poll(). Blocks: never.
 * Returns: the descriptor; -EMFILE, -ENFILE, -ENODEV, -ENOMEM, -ENOSPC; -ENOTSUP: the driver has
 * none ("mem"), or never sleeps; -EDEADLK, -EPERM, -EINVAL as weft_rt_poll().
 */
WEFT_API int weft_rt_fd(weft_rt *rt);

/*
 * The runtime the caller runs in; NULL outside a worker. Threads: any thread. Blocks: never.
 */
WEFT_API weft_rt *weft_rt_current(void);

/*
 * A number that no other runtime of this process ever has. Threads: any thread. Blocks: never.
 */
WEFT_API uint64_t weft_rt_id(const weft_rt *rt);

/* How many workers it has. Threads: any thread. Blocks: never. */
WEFT_API unsigned weft_rt_workers(const weft_rt *rt);

/*
 * Like weft_spawn_with() (opts may be NULL), into a given runtime, from anywhere.
 * Threads: any thread. Blocks: never. Returns: as weft_spawn_with(), but never -EPERM.
 */
WEFT_API int weft_rt_spawn(weft_rt *rt, weft_fn fn, void *arg, const struct weft_spawn_opts *opts,
	weft_pid *pid_out);

/*
 * Runs fn(arg) once on a worker of `rt`, between two processes: for short hand-overs from foreign
 * threads. Posts are never merged; those of one thread run in order if the runtime has one worker.
 * fn must not block; calls that can park give -EPERM inside it.
 * Threads: any thread. Blocks: never.
 * Returns: 0 (fn will run, whatever happens); -ESHUTDOWN, -ENOMEM, -EINVAL (no fn): it will not.
 */
WEFT_API int weft_post(weft_rt *rt, void (*fn)(void *arg), void *arg);

/*
 * Runs fn(arg) once on every worker of `rt`, between two processes: for state that each thread has
 * (caches, counters, a library's per-thread setup). fn must not block; calls that can park give
 * -EPERM inside it. Counts as alive until the last has run. A negative return is an error of the
 * runtime (step "user function", with the worker) and stops it at once; the other workers run fn
 * all the same.
 * Ownership: once this has returned 0 `arg` is fn's; dtor(arg) (may be NULL) runs once, after the
 * last fn, on that worker. On failure `arg` is still the caller's, and dtor does not run.
 * Threads: any thread. Blocks: never: fn may run later than this returns.
 * Returns: 0; -ESHUTDOWN; -ENOMEM; -EINVAL (no fn).
 */
WEFT_API int weft_rt_run_on_workers(
	weft_rt *rt, int (*fn)(void *arg), void *arg, void (*dtor)(void *arg));

/*
 * Runs fn(arg) as a process of `rt` and waits until that process has ended; the runtime goes on,
 * started or not. opts may be NULL; WEFT_DETACHED and WEFT_SUSPENDED are -EINVAL. The process's
 * result, or error, goes to result_out (may be NULL).
 * Ownership: `arg` as with weft_rt_spawn().
 * Threads: any thread outside every worker; that of an embedded runtime polls meanwhile. Blocks:
 * the thread. Cancel: that of the process.
 * Returns: 0: it has ended; -EDEADLK inside a runtime, of any kind: nothing has happened; errors as
 * weft_rt_spawn(); -ESRCH, -EBUSY: the process told its id to somebody, who joins it too. On a test
 * runtime's thread (<weft/test.h>) -EDEADLK too if the process waits for ever; it is detached then.
 */
WEFT_API int weft_rt_block_on(weft_rt *rt, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, int *result_out);

/* Something that is alive in a runtime. */
struct weft_survivor {
	weft_pid pid;
	char name[32];     /* "" if it has none */
	/* "running", "waiting" (for its turn too, if it stays on one worker), "new", …; static */
	const char *state;
	int worker;        /* that it belongs to; -1: to none in particular */
	uint64_t reserved[4];
};

/*
 * Who is alive: for messages about a stop that takes long. Each was so at some moment of the call.
 * out: the first `max` of them; may be NULL if max is 0.
 * Threads: any thread. Blocks: never; takes time in proportion to all processes there were at once.
 * Returns: how many there are, perhaps more than max.
 */
WEFT_API int weft_rt_survivors(weft_rt *rt, struct weft_survivor *out, unsigned max);

/* "major.minor.patch" of the library in use. Threads: any thread. Blocks: never. */
WEFT_API const char *weft_version(void);

/*
 * A short text for a negative errno as Weft returns it; never NULL. Threads: any thread. Blocks:
 * never.
 */
WEFT_API const char *weft_strerror(int error);

/*
 * The tuning the library was built with: "name=value name=value …". Threads: any thread. Blocks:
 * never.
 */
WEFT_API const char *weft_build_config(void);

#ifdef __cplusplus
}
#endif

#endif
