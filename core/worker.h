/*
 * worker.h: one worker: a thread for life and the scheduling state of one core.
 *
 * Everything is the owner's alone, in plain fields, except what stands under "any thread"; fields
 * that other threads read for figures are relaxed atomics. Groups that different cores write are
 * kept WF_FALSE_SHARING apart.
 */
#ifndef WF_CORE_WORKER_H
#define WF_CORE_WORKER_H

#include <pthread.h>
#include <setjmp.h>

#include "core/driver.h"
#include "core/fiber.h"
#include "core/guard.h"
#include "core/proc.h"
#include "core/stack.h"
#include "core/table.h"
#include "core/virtual.h"
#include "sync/atomic.h"
#include "sync/deque.h"
#include "sync/injector.h"
#include "sync/rcu.h"
#include "timer/wheel.h"

/* Limits of one turn. The tunable ones (WF_BUDGET, …) come from configure.py. */
enum {
	WF_TURN_NS_MAX = 1000000,     /* a turn runs processes for at most this long */
	WF_CLOCK_PICKS = 16,          /* the clock is read every so many picks, */
	WF_CLOCK_PICKS_SHORT = 64,    /* or this many while picks are short: */
	WF_SHORT_PICK_NS = 250,       /* up to this, on average since the last look */
	WF_RUN_NEXT_MAX = 3,          /* uses of the next slot in a row */
	WF_INBOX_BUDGET = 256,        /* messages handled a turn */
	WF_EXPIRE_BUDGET = 256,       /* timers fired a turn */
	WF_OPERATIONS_BUDGET = 128,   /* operations that made progress before a process yields */
	WF_POLL_BACKOFF_MAX = 8,      /* turns between polls of a driver that has nothing */
	WF_STEAL_ROUNDS = 2,          /* passes over all victims before a search gives up */
	WF_CLASS_TURNS = 8,           /* picks of which each lower class has one */
	/* Children of scopes queued newest first; more go to the ring, where thieves take half. */
	WF_CHILDREN_MAX = WF_RING_SIZE < 64 ? WF_RING_SIZE : 64,
};

/* What `token` says, and what the wake was for. */
enum wf_token {
	WF_TOKEN_NONE,
	WF_TOKEN_WORK,     /* work wake: the sleeper is counted as a searcher */
	WF_TOKEN_DIRECTED, /* its inbox, or a control change */
};

/* Why a fiber switched back to its worker, or what a task's poll is to count as. */
enum wf_switch {
	WF_SWITCH_PARK,  /* waits: RUNNING → WAITING, or → QUEUED if notified meanwhile */
	WF_SWITCH_YIELD, /* stays ready */
	WF_SWITCH_END,   /* the body has returned */
};

struct wf_worker_counters {
	wf_atomic_u64 picks;       /* processes run; a plain store by the owner */
	wf_atomic_u64 turns;
	wf_atomic_u64 steals;      /* successful */
	wf_atomic_u64 stolen;      /* processes gained */
	wf_atomic_u64 spills;      /* ring overflows */
	wf_atomic_u64 parks;
	wf_atomic_u64 spins;       /* idle phases that spun */
	wf_atomic_u64 spin_ns;
	wf_atomic_u64 wakes_work;  /* sent */
	wf_atomic_u64 wakes_directed;
	wf_atomic_u64 injected;    /* processes taken from the injector */
	wf_atomic_u64 local_wakes;
	wf_atomic_u64 remote_wakes;
	wf_atomic_u64 timers_fired;
};

/* Spin or park (core/idle.c). */
struct wf_idle_policy {
	int64_t gap_ns;        /* EWMA of the gaps between running out of work and work coming */
	int64_t credit_ns;     /* what may still be spun */
	int64_t credited_at_ns;
	int64_t timer_woke_at_ns; /* the last sleep that a timer has ended */
};

/* A driver that is open on a worker. Constant while it is open, but for the back-off (owner). */
struct wf_open_driver {
	const struct wf_driver *driver;
	void *state;
	unsigned poll_skip;      /* turns left before the next poll */
	unsigned poll_skip_next;
};

struct wf_worker {
	/* Owner: hot. */
	struct weft_rt *rt;
	struct wf_proc *current;
	struct wf_scheduler_context sched;
	struct wf_proc *run_next;
	struct wf_proc *picked;     /* out of the ring already: the next pick */
	unsigned run_next_uses;
	enum wf_switch switched;
	int result;                 /* with WF_SWITCH_END */
	weft_time armed_until;      /* the earliest deadline that the running task has armed */
	unsigned operations_left;   /* of the running process */
	weft_time now;              /* the turn's time, advanced every clock_picks */
	struct wf_fifo list;        /* sticky processes that are ready */
	struct wf_fifo yielded;     /* joins `list` after the next driver poll */
	struct wf_fifo yielded_movable; /* joins the ring then */
	unsigned direct_left;       /* switches between fibers until the loop must look again */
	wf_atomic_u64 watch;        /* what runs (wf_watch_set); stores by the owner, read by all */
	unsigned injector_picks;    /* since the injector was last looked at */
	bool list_turn;             /* the alternation of list and ring */
	bool alone;                 /* nobody steals: all that is ready here is in `list` */
	bool classes;               /* a high or a low process is ready: `high`, `low` */
	bool has_children;          /* `children` may hold something */
	bool child_last;            /* the last pick was one of them */
	bool collecting;            /* inside the driver: work wakes are put off */
	bool work_wake_due;
	bool searching;             /* counted in the idle word */
	bool driver_failed;
	bool exact_timers;          /* none stays on the wheel that nobody waits for */
	bool hooks_runs;            /* of struct weft_hooks: process_end, before_run, after_run */
	weft_time slice_start;      /* first weft_should_yield() of this run; 0: none yet */
	unsigned number;
	struct wf_proc *free;       /* headers never used or from others, linked by run.next */
	uint32_t free_count;        /* headers in retired.free */
	wf_atomic_u64 created;      /* stores by the owner, summed by others */
	wf_atomic_u64 completed;
	struct wf_stack_pool stacks;

	/* Owner: warm. */
	struct wf_fifo high, low;   /* as `list`, of those classes */
	struct wf_fifo yielded_class; /* of both; each joins its own after the next driver poll */
	unsigned class_turn;        /* picks made while `classes` */
	struct wf_fifo inbox_rest;  /* drained from the inbox, not yet handled */
	unsigned batch_picks;       /* of the batch so far */
	unsigned clock_picks;       /* until the next look at the clock */
	jmp_buf task_failed;        /* where weft_fail() leaves a task for */
	struct wf_retired retired;
	struct wf_open_driver drivers[1 + WF_POLL_DRIVERS_MAX]; /* [0] is the main one */
	unsigned driver_count;
	uint64_t random;
	struct wf_idle_policy idle;
	unsigned seen_stop;         /* the last rt->stop_phase acted upon */
	bool closed;                /* this worker has seen that the table is closed */
	bool hooks_spawn;           /* of struct weft_hooks: process_spawn */
	bool spawn_looks;           /* not every spawn is plain: closed, a hook, forced failures */
	bool swept;
	int cpu;                    /* pinned to; -1: not pinned */
	pthread_t thread;
	bool thread_started;
	int thread_id;              /* the kernel's; constant once it has booted */
	bool leads;                 /* the shared wheel's leader, parked or about to be */
	weft_time leads_until;      /* what it sleeps until */
	weft_time leads_first;      /* the earliest deadline that it saw then */
	weft_time timers_look_at;   /* when to look at other workers' shards again */
	unsigned timers_shard;      /* + 1: of the timers whose actions it is doing; 0: none */
	const char *stack_base;     /* of the thread's own stack: its frames lie below */
	struct wf_guard_thread guard; /* its signal stack */
	uint64_t stacks_refused;
	weft_time stack_logged_at;
	struct wf_worker_counters counters;
	struct wf_virtual_worker virtual; /* stores by the owner, read by any thread */

	/* Owner: the thieves of both have their own lines inside. */
	struct wf_deque ring WF_ALIGNED(WF_FALSE_SHARING);
	struct wf_deque children WF_ALIGNED(WF_FALSE_SHARING); /* of scopes, not yet run; lifo */

	/* Any thread. */
	struct wf_injector inbox WF_ALIGNED(WF_FALSE_SHARING);
	wf_atomic_u32 token WF_ALIGNED(WF_FALSE_SHARING); /* enum wf_token; wf_worker_wake → park */

	/* Owner: big. */
	struct wf_wheel wheel WF_ALIGNED(WF_FALSE_SHARING);
};

WF_INLINE struct wf_open_driver *wf_worker_main_driver(struct wf_worker *worker)
{
	return &worker->drivers[0];
}

/* Adds to a counter of the owner's. */
WF_INLINE void wf_count(wf_atomic_u64 *counter, uint64_t n)
{
	wf_u64_store_relaxed(counter, wf_u64_load_relaxed(counter) + n);
}

/*
 * `watch`: what the worker runs, and which run that is: number of the run 36 | kind 2 | index 26.
 * The same word twice means that it has not come back to the scheduler in between.
 */
enum wf_watch {
	WF_WATCH_NOTHING,
	WF_WATCH_PROCESS, /* with its index */
	WF_WATCH_CALL,    /* a post, or a function of weft_rt_run_on_workers() */
};

#define WF_WATCH_KIND_SHIFT WF_INDEX_BITS
#define WF_WATCH_WHAT       (((uint64_t)1 << (WF_INDEX_BITS + 2)) - 1)

/* Owner: a new run of something. A plain store for the monitor: nothing is ordered by it. */
WF_INLINE void wf_watch_set(struct wf_worker *worker, enum wf_watch kind, uint32_t index)
{
	uint64_t what = (uint64_t)kind << WF_WATCH_KIND_SHIFT;

	/* One sum: with the lower bits all set, 1 is the next number. */
	wf_u64_store_relaxed(&worker->watch,
		(wf_u64_load_relaxed(&worker->watch) | WF_WATCH_WHAT) + (1 + what) + index);
}

WF_INLINE enum wf_watch wf_watch_kind(uint64_t watch)
{
	return (enum wf_watch)((watch & WF_WATCH_WHAT) >> WF_WATCH_KIND_SHIFT);
}

WF_INLINE uint32_t wf_watch_index(uint64_t watch)
{
	return (uint32_t)watch & WF_INDEX_MASK;
}

/*
 * worker.c: steps 1 to 7 of a turn, in which at most `budget` processes run. True: it found
 * something to do, or has left something; false: step 8 is due.
 */
bool wf_worker_turn(struct wf_worker *worker, unsigned budget);
void wf_worker_run(struct wf_worker *worker);

/* run.c: step 2 of a turn; returns how many processes ran. */
unsigned wf_worker_run_batch(struct wf_worker *worker, unsigned budget);
void wf_worker_switch(struct wf_worker *worker, struct wf_proc *proc, enum wf_switch why);

/* queue.c */
struct wf_proc *wf_worker_take_injected(struct wf_worker *worker);
void wf_worker_push_ring(struct wf_worker *worker, struct wf_proc *proc);
void wf_worker_push_movable(struct wf_worker *worker, struct wf_proc *proc);
void wf_worker_push_child(struct wf_worker *worker, struct wf_proc *proc);
bool wf_worker_has_local_work(struct wf_worker *worker);
struct wf_proc *wf_queue_pick_classes(struct wf_worker *worker);
void wf_queue_push_class(struct wf_worker *worker, struct wf_proc *proc);

/* Sends the token of a wake whose target's parked bit the caller has cleared. Any thread. */
void wf_worker_wake(struct wf_worker *target, enum wf_token token);

/* A work wake if somebody is parked and nobody searches. Any thread; after an RMW. */
void wf_rt_wake_for_work(struct weft_rt *rt);

/* Wakes every parked worker (stop, end). Any thread. */
void wf_rt_wake_all(struct weft_rt *rt);

/* poll.c: asks the drivers from the n-th on, whether or not it is their turn. */
void wf_worker_poll_drivers(struct wf_worker *worker, unsigned first);

/* Those whose turn it is: within a batch; after one in which `ran` processes ran. */
void wf_worker_poll_busy(struct wf_worker *worker);
void wf_worker_poll_after_batch(struct wf_worker *worker, unsigned ran);
void wf_worker_flush_drivers(struct wf_worker *worker);

/* A driver has failed for good: one error, and the runtime stops. */
void wf_worker_driver_failed(
	struct wf_worker *worker, const struct wf_driver *driver, int error);

/* idle.c: called with nothing to do; returns when there may be. */
void wf_worker_idle(struct wf_worker *worker);

/*
 * idle.c: what wf_worker_idle() is made of. look_around: a look at everything this worker may take
 * from; `scan`: other rings too. True: there is something to run. park_begin: P1 to P3; true: the
 * worker is announced as parked and may sleep; false: there is something to do. sleep: P4, until
 * `deadline` or what is due before; sleep_on: until it is woken, or `deadline` of the kernel's
 * clock, whatever is due. park_end: P5 and, if wait() was called, P6.
 */
bool wf_worker_look_around(struct wf_worker *worker, bool scan);
bool wf_worker_park_begin(struct wf_worker *worker);
void wf_worker_sleep(struct wf_worker *worker, weft_time deadline);
void wf_worker_sleep_on(struct wf_worker *worker, weft_time deadline);
void wf_worker_park_end(struct wf_worker *worker, bool waited);

/* When something falls due: a timer, a driver's deadline, the end of a grace. */
weft_time wf_worker_next_due(struct wf_worker *worker);
/* The same, and when memory that was given up is to be sent on its way. */
weft_time wf_worker_next_deadline(struct wf_worker *worker);

/* When `timer_count` timers, the first of them due at `next`, are to end the worker's sleep. */
weft_time wf_worker_timer_wake(
	const struct wf_worker *worker, weft_time next, uint64_t timer_count);

/* Gives the searcher's count back, if this worker holds one: it has something to run. */
void wf_worker_search_end(struct wf_worker *worker);

/* inbox.c: handles at most WF_INBOX_BUDGET messages; returns how many. */
unsigned wf_worker_drain_inbox(struct wf_worker *worker);

#endif
