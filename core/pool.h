/*
 * pool.h: a runtime's threads for work that blocks, and the jobs they run. blocking.c is the public
 * side, pool.c the threads; core/README.md ("blocking") has the protocol.
 *
 * A thread is idle (in the list `idle`, most recently idle first), busy (in `busy`), or not there.
 * A busy one SERVES if its job is one of those that the cap is for; one that runs a
 * weft_block_in_place() does not. At most `serving_max` serve; jobs beyond them wait in `queue`.
 *
 * I1 The queue has jobs only while somebody serves who is known to have been started. Whoever
 *    serves looks at the queue before it stops serving, so no job is left behind.
 * I2 A thread is handed its job by whoever submits it, under the lock: who is idle in the list has
 *    no job due, and a thread is made only when nobody is.
 * I3 Records of threads are freed with the runtime: a wake that comes late finds one, and harms
 *    nothing.
 */
#ifndef WF_CORE_POOL_H
#define WF_CORE_POOL_H

#include <pthread.h>
#include <sched.h>

#include "core/sched.h"
#include "sync/spinlock.h"

enum {
	WF_BLOCKING_THREADS_DEFAULT = 512,
	WF_BLOCKING_THREADS_MAX = 65536,
	WF_BLOCKING_NAME_BYTES = 32,
};

#define WF_BLOCKING_KEEP_ALIVE_NS WEFT_SEC(10)

struct wf_link {
	struct wf_link *next, *prev;
};

enum wf_job_state {
	WF_JOB_QUEUED,  /* in the queue: may be taken back */
	WF_JOB_HANDED,  /* a thread is on its way to it: may be taken back */
	WF_JOB_RUNNING,
	WF_JOB_DONE,
};

enum wf_job_kind {
	WF_JOB_CALL,      /* weft_blocking(): on the caller's stack, who waits */
	WF_JOB_IN_PLACE,  /* weft_block_in_place(): the same, and no cap */
	WF_JOB_POST,      /* weft_blocking_post(): on the heap, dropped by a stop */
	WF_JOB_MANDATORY, /* the same, but never dropped */
};

/* Under the pool's lock, but for fn, arg and result: those are the runner's. */
struct wf_job {
	struct wf_link link;
	struct wf_pool_thread *thread; /* HANDED and RUNNING */
	enum wf_job_state state;
	enum wf_job_kind kind;
	weft_fn fn;
	void *arg;
	int result;
	struct wf_wait wait; /* who waits: CALL and IN_PLACE */
};

/* Under the pool's lock, but for `word`. */
struct wf_pool_thread {
	struct wf_link link;
	struct weft_rt *rt;
	struct wf_job *job;  /* what it runs, or is to run */
	wf_atomic_u64 since; /* when it began that; relaxed, by the thread */
	uintptr_t id;        /* wf_thread_id(); 0: it has not begun */
	pthread_t handle;
	bool proven;         /* it has been started, and `handle` is known */
	bool idle;
	bool serves;
	unsigned number;
	wf_atomic_u32 word WF_ALIGNED(WF_CACHE_LINE); /* futex; enum in pool.c */
};

struct wf_pool {
	/* Constant after create. */
	unsigned serving_max;
	weft_time keep_alive_ns;
	cpu_set_t cpus;      /* of the thread that made the runtime; workers may be pinned */
	bool cpus_known;

	struct wf_spinlock lock WF_ALIGNED(WF_FALSE_SHARING);
	struct wf_link queue, idle, busy, spare;
	unsigned serving;    /* threads that serve, or are being started for that */
	unsigned unproven;   /* of these, those that are being started */
	bool closing;
	bool refusal_logged;
	struct wf_pool_thread *ended; /* to be joined by the next that ends */
	wf_atomic_u32 records; /* ever made */
	wf_atomic_u32 starts; /* futex: changes when an unproven one is proven, or is none */

	wf_atomic_u32 in_flight; /* jobs submitted whose end was not told yet */

	/* Figures: written under the lock, read by any thread. */
	wf_atomic_u32 thread_count;
	wf_atomic_u32 idle_count;
	wf_atomic_u32 queued_count;
};

/* Never fails; 0: the default. From weft_rt_create(), on its caller's thread. */
void wf_pool_open(struct weft_rt *rt, unsigned threads_max, weft_time keep_alive_ns);
/* Ends and joins all threads. Nobody runs, submits or takes back a job any more. Blocks. */
void wf_pool_close(struct weft_rt *rt);

/*
 * The job will run; or a negative errno: no thread can be made, and it will not. Any thread, and
 * never for long: where a thread must be made it takes a system call of some 20 us.
 */
int wf_pool_submit(struct weft_rt *rt, struct wf_job *job);

/*
 * Whether a job is under way: from its submission until it was taken back, or what it wakes has
 * been queued. A virtual clock stands still meanwhile, and its worker is woken when it ends. Any
 * thread.
 */
bool wf_pool_is_working(const struct weft_rt *rt);

/* The calling thread runs a job of this runtime's, which the runtime's end would wait for. */
bool wf_pool_is_within(struct weft_rt *rt);

enum wf_taken {
	WF_TAKEN_BACK, /* it has not run, and never will */
	WF_TAKEN_RUNS, /* too late: job->wait is a new wait, to be parked in */
	WF_TAKEN_DONE, /* too late: it has run */
};

/* By the process that submitted a CALL, after its wait has ended for another reason. */
enum wf_taken wf_pool_take_back(struct weft_rt *rt, struct wf_job *job);

/* blocking.c: what a thread of the pool calls. run: without the lock; end: of posts, after it. */
void wf_job_run(struct weft_rt *rt, struct wf_job *job);
void wf_job_end(struct weft_rt *rt, struct wf_job *job);
/* Under the lock: what a post is called, WF_BLOCKING_NAME_BYTES. */
const char *wf_job_name(struct wf_job *job);

/* --- watching; any thread while the runtime lives --- */

struct wf_blocking_job {
	weft_pid pid;      /* of the process that waits for it; none: a post */
	enum wf_job_kind kind;
	bool runs;         /* else it is queued */
	weft_time since;   /* when it began to run */
	char name[WF_BLOCKING_NAME_BYTES]; /* of a post */
};

/*
 * Calls fn for each job that runs or is queued, without a lock: jobs that begin or end meanwhile
 * may be left out, or be seen although they have ended.
 */
void wf_blocking_each(struct weft_rt *rt,
	void (*fn)(void *ctx, const struct wf_blocking_job *job), void *ctx);

struct wf_blocking_stats {
	unsigned threads, idle, queued;
};

void wf_blocking_stats(const struct weft_rt *rt, struct wf_blocking_stats *stats_out);

#endif
