/*
 * runtime.h: one runtime: workers, table, injector, and the state of its life.
 *
 * Life (stop_phase; grows, but for ENDING; each step is taken by one CAS):
 *
 *   LIVE      workers run
 *   DRAINING  S0 of a stop: servers accept no more, spawns are allowed, until grace_deadline
 *   CLOSED    S1: the table refuses new processes and posts. Each worker acknowledges, so that
 *             its own later spawns refuse without a fence; once all have, it sweeps its share
 *             of the table and cancels what it finds (S2). Before all have, nothing ends
 *   ENDING    a worker has seen that nothing is alive and looks again, foreign spawns waiting to
 *             see what comes of it: ENDED, or back if one was quicker
 *   ENDED     S4, S5: nothing is alive; injector and inboxes are closed, workers leave
 *
 * A started runtime on which nothing is alive goes from LIVE to ENDING directly.
 *
 * What counts as alive: processes from reserve to end, posts from the call to the return of fn.
 * Each worker counts what it created and what it completed; foreign threads share one pair. The
 * sums are taken only by a worker that parks last or while a stop is pending: completed first, then
 * created, twice equal (core/life.c).
 */
#ifndef WF_CORE_RUNTIME_H
#define WF_CORE_RUNTIME_H

#include <pthread.h>

#include "core/coordinator.h"
#include "core/pool.h"
#include "core/sched.h"
#include "core/virtual.h"
#include "core/worker.h"
#include "sync/idle.h"
#include "sync/spinlock.h"
#include "timer/clock.h"
#include "timer/shared.h"

enum wf_stop_phase {
	WF_LIVE,
	WF_DRAINING,
	WF_CLOSED,
	WF_ENDING,
	WF_ENDED,
};

enum {
	WF_ERRORS_MAX = 64,         /* kept; further ones are only logged */
#if defined(WF_ATOMICS_SIM)
	WF_FOREIGN_JOINERS_MAX = 2,
#else
	WF_FOREIGN_JOINERS_MAX = 64,
#endif
	WF_SURVIVORS_LOGGED_MAX = 32,
};

/*
 * A foreign thread that waits in weft_join(). Named by its index with runtime WF_FOREIGN in joiner.
 */
struct wf_foreign_joiner {
	wf_atomic_u32 state; /* 0 free, 1 waiting, 2 told; futex */
};

/*
 * Which drivers a runtime has. main NULL: the one of wf_drivers[] that the options name. polls: as
 * wf_poll_drivers[]; NULL: none.
 */
struct wf_driver_set {
	const struct wf_driver *main;
	const struct wf_driver *const *polls;
};

/*
 * An embedded runtime's worker, between two polls (core/embed.c). The owner's, but for `owner`,
 * which is constant.
 */
struct wf_embed {
	uintptr_t owner;    /* wf_thread_id() */
	bool parked;        /* the worker is announced as parked */
	bool over;          /* it has left: the last poll has said so */
	weft_time wake_at;  /* when the next poll is due */
	int alarm_fd;       /* -1: nobody has asked for a descriptor */
	weft_time alarm_at; /* what it is set to; WEFT_FOREVER: off */
};

struct weft_rt {
	/* Constant after create. */
	struct wf_worker *workers;
	unsigned worker_count;
	unsigned slot;               /* in the registry: the runtime part of its ids */
	uint64_t serial;             /* weft_rt_id() */
	enum weft_idle idle_mode;
	bool may_spin;               /* workers do not exceed CPUs and quota */
	bool calibrate;              /* break_even_ns is to be measured */
	bool cpus_explicit;
	wf_atomic_u64 break_even_ns; /* a park and a wake, measured at start; relaxed */
	bool clock_virtual;          /* `clock` is its time */
	size_t stack_bytes;
	struct wf_forced *forced;    /* failures that a test forces; NULL: it is no test's */
	uint32_t processes_max;
	unsigned flags;
	struct wf_driver_set drivers;
	struct weft_allocator allocator;
	weft_log_fn log;
	void *log_ctx;
	enum weft_log_level log_level;
	char name[16];
	void *io;
	struct wf_rcu_domain *rcu;
	struct wf_stack_depot *depot;
	struct weft_hooks hooks;
	uint64_t slack_mask;         /* deadlines of I/O are multiples of that + 1, a power of 2 */
	weft_time precise_spin_ns;
	weft_time stall_ns;          /* WEFT_FOREVER: no monitor */
	struct wf_monitor *monitor;  /* NULL: none */
	int stall_signal;            /* 0: stalls are reported without a backtrace */

	struct wf_embed embed;

	/* Read by all, written rarely. */
	wf_atomic_u64 clock;         /* of a virtual clock: the time; relaxed */
	wf_atomic_u64 wall_ahead;    /* and what its wall clock, since 1970, is ahead; ns, signed */
	struct wf_table table;
	wf_atomic_u32 stop_phase WF_ALIGNED(WF_FALSE_SHARING); /* enum wf_stop_phase; futex */
	wf_atomic_u32 started;
	wf_atomic_u32 ready;         /* the starter's go: 1 run, 2 unwind; futex */
	wf_atomic_u64 grace_deadline;
	wf_atomic_u32 close_acks;
	wf_atomic_u32 sweeps_done;
	wf_atomic_u32 workers_ended; /* futex */
	int ended_fd;                /* the coordinator's eventfd (wf_coordinator_tell()), or -1 */
	struct wf_coordinator coordinator; /* its thread's */
	wf_atomic_u32 workers_booted; /* futex */
	wf_atomic_u32 boot_failed;
	wf_atomic_u32 calibration_round; /* futex; boot.c */
	wf_atomic_u64 calibration_woken;

	/* Foreign threads. */
	wf_atomic_u64 foreign WF_ALIGNED(WF_FALSE_SHARING); /* created 48 | calls in progress 16 */
	wf_atomic_u64 foreign_completed;
	wf_atomic_u32 post_turn;     /* whose inbox takes the next post */
	wf_atomic_u32 retire_turn;   /* headers given up by foreign threads */
	struct wf_foreign_joiner joiners[WF_FOREIGN_JOINERS_MAX];

	/* Errors. */
	struct wf_spinlock errors_lock;
	unsigned error_count;
	struct weft_error errors[WF_ERRORS_MAX];

	struct wf_shared timers WF_ALIGNED(WF_FALSE_SHARING);
	wf_atomic_u32 timers_turn;   /* whose shard takes the next of a foreign thread */
	wf_atomic_u32 timer_waiters_count;
	struct wf_spinlock timer_waiters_lock;
	struct wf_timer_waiter *timer_waiters; /* timer.c; under the lock */

	struct wf_idle idle WF_ALIGNED(WF_FALSE_SHARING);
	struct wf_injector injector WF_ALIGNED(WF_FALSE_SHARING);
	struct wf_pool pool WF_ALIGNED(WF_FALSE_SHARING);
	struct wf_virtual virtual;
};

/*
 * The time by which its processes live: the kernel's, or its own virtual one. Any thread.
 */
WF_INLINE weft_time wf_rt_now(const struct weft_rt *rt)
{
	return WF_LIKELY(!rt->clock_virtual) ? wf_clock_now_ns()
					     : (weft_time)wf_u64_load_relaxed(&rt->clock);
}

/* R6, where its time moves by itself: around what a thread of no worker of its makes ready. */
WF_INLINE void wf_rt_hold(struct weft_rt *rt)
{
	if (WF_UNLIKELY(rt->virtual.on))
		wf_virtual_hold_on(rt);
}

WF_INLINE void wf_rt_let_go(struct weft_rt *rt)
{
	if (WF_UNLIKELY(rt->virtual.on))
		wf_virtual_let_go(rt);
}

/* wall.c: what its processes take for the wall clock. Any thread. */
struct weft_wall wf_rt_wall(const struct weft_rt *rt);

/* The runtime part of a joiner word that names a foreign thread: no runtime has this slot. */
#define WF_FOREIGN (WF_RUNTIMES_MAX - 1)

/*
 * life.c: a call of a foreign thread that creates something: counts it, and itself as in progress
 * (destroy waits for it; `rt` is untouched after end). comes_late: after it, whether the runtime
 * takes nothing new any more; may wait for a worker's few loads. refused: nothing came of it after
 * all. completed: what came of it has ended; by a thread that the runtime's end waits for.
 */
void wf_foreign_begin(struct weft_rt *rt);
void wf_foreign_visit(struct weft_rt *rt); /* creates nothing */
bool wf_foreign_comes_late(const struct weft_rt *rt);
void wf_foreign_refused(struct weft_rt *rt);
void wf_foreign_completed(struct weft_rt *rt);
void wf_foreign_end(struct weft_rt *rt);
bool wf_foreign_busy(const struct weft_rt *rt);

/* What a test runtime has beside. */
struct wf_rt_testing {
	struct wf_forced *forced;
	const struct weft_virtual_opts *threads; /* NULL: it is an embedded one */
};

/* weft_rt_create() of a test runtime. `forced` stays the caller's if it fails. */
int wf_rt_create_testing(const struct weft_rt_opts *opts, const struct wf_rt_testing *testing,
	weft_rt **rt_out);

/* weft_rt_create() with other drivers: that one takes {NULL, wf_poll_drivers}. */
int wf_rt_create_with(
	const struct weft_rt_opts *opts, const struct wf_driver_set *drivers, weft_rt **rt_out);

/* boot.c */
int wf_boot_start(struct weft_rt *rt);
/* On the worker's thread: what it needs but its own thread; 0, or -errno and the error recorded. */
int wf_boot_open_worker(struct wf_worker *worker);
void wf_boot_close_worker(struct wf_worker *worker);
void wf_boot_join(struct weft_rt *rt);
void wf_boot_close_drivers(struct weft_rt *rt);

/* life.c: what is alive, and the steps of a stop. */
void wf_life_begin_stop(struct weft_rt *rt, weft_time grace_ns);
void wf_life_check(struct wf_worker *worker);
uint64_t wf_life_alive(const struct weft_rt *rt); /* processes and posts; a guess while it runs */
bool wf_life_try_end(struct weft_rt *rt);
weft_time wf_life_deadline(const struct weft_rt *rt);
void wf_life_log_survivors(struct weft_rt *rt);

/*
 * log.c: records an error {worker, step, errno, text} and logs it; while workers start, only the
 * first.
 */
void wf_rt_error(struct weft_rt *rt, int worker, const char *step, int error, const char *format,
	...) WF_PRINTF(5, 6);

#endif
