/*
 * pool.c: the threads for work that blocks: who runs which job, and how threads begin, sleep and
 * end. pool.h has the invariants, core/README.md ("blocking") the steps.
 *
 * One lock over all of it, held for a few dozen loads and stores, never over a system call. Who is
 * idle sleeps on a word of its own, so a wake is one system call for one thread; and none for one
 * that has not gone to sleep yet.
 *
 * Progress: blocking (the lock). submit also waits, for microseconds, when all who might serve are
 * only being started.
 */
#include "core/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/internal.h"
#include "core/runtime.h"
#include "timer/clock.h"

/* A thread's `word`: whether a wake needs a system call. */
enum { WORD_IDLE, WORD_ASLEEP, WORD_WOKEN };

enum {
	THREAD_NAME_BYTES = 16,
	NAME_NUMBERS = 1000,     /* threads are numbered below that */
	START_WAIT_NS = 1000000, /* until an unproven thread is looked at again */
	EACH_BATCH = 16,
};

/* --- lists --- */

static void list_init(struct wf_link *list)
{
	list->next = list->prev = list;
}

static bool list_is_empty(const struct wf_link *list)
{
	return list->next == list;
}

/* At the front; or, with the last one as `list`, at the back. */
static void list_push(struct wf_link *list, struct wf_link *link)
{
	link->prev = list;
	link->next = list->next;
	list->next->prev = link;
	list->next = link;
}

static void list_remove(struct wf_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
}

static struct wf_pool_thread *thread_of(struct wf_link *link)
{
	return WF_CONTAINER_OF(link, struct wf_pool_thread, link);
}

static struct wf_job *job_of(struct wf_link *link)
{
	return WF_CONTAINER_OF(link, struct wf_job, link);
}

static void add(wf_atomic_u32 *figure, uint32_t n)
{
	wf_u32_store_relaxed(figure, wf_u32_load_relaxed(figure) + n);
}

/* --- under the lock: who runs what --- */

static void enqueue(struct wf_pool *pool, struct wf_job *job, bool first)
{
	job->state = WF_JOB_QUEUED;
	list_push(first ? &pool->queue : pool->queue.prev, &job->link);
	add(&pool->queued_count, 1);
}

static void dequeue(struct wf_pool *pool, struct wf_job *job)
{
	list_remove(&job->link);
	add(&pool->queued_count, -1u);
}

static void hand(struct wf_pool_thread *thread, struct wf_job *job)
{
	job->state = WF_JOB_HANDED;
	job->thread = thread;
	thread->job = job;
	thread->serves = job->kind != WF_JOB_IN_PLACE;
}

/* The most recently idle thread is idle no more; NULL: nobody is. */
static struct wf_pool_thread *take_idle(struct wf_pool *pool)
{
	struct wf_pool_thread *thread;

	if (list_is_empty(&pool->idle))
		return NULL;
	thread = thread_of(pool->idle.next);
	list_remove(&thread->link);
	list_push(&pool->busy, &thread->link);
	thread->idle = false;
	add(&pool->idle_count, -1u);
	return thread;
}

static void go_idle(struct wf_pool *pool, struct wf_pool_thread *self)
{
	list_remove(&self->link);
	list_push(&pool->idle, &self->link);
	self->idle = true;
	add(&pool->idle_count, 1);
	/* L3: relaxed: who wakes this thread has found it in the list, after this lock. */
	wf_u32_store_relaxed(&self->word, WORD_IDLE);
}

static struct wf_job *begin(struct wf_pool_thread *self, struct wf_job *job)
{
	job->state = WF_JOB_RUNNING;
	job->thread = self;
	self->job = job;
	return job;
}

/* L4: this thread has nothing to do any more: the oldest job in line; NULL: it is idle now. */
static struct wf_job *take_next(struct wf_pool *pool, struct wf_pool_thread *self)
{
	struct wf_job *job;

	self->job = NULL;
	if (self->serves && !WF_PLANTED(pool_keeps_counting))
		pool->serving--;
	self->serves = !list_is_empty(&pool->queue) && pool->serving < pool->serving_max;
	if (!self->serves) {
		go_idle(pool, self);
		return NULL;
	}
	pool->serving++;
	job = job_of(pool->queue.next);
	dequeue(pool, job);
	return begin(self, job);
}

/* L2: the job it was woken, or made, for, unless that was taken back. */
static struct wf_job *accept_job(struct wf_pool *pool, struct wf_pool_thread *self)
{
	return self->job ? begin(self, self->job) : take_next(pool, self);
}

/* U1: a job is over, or there will be none. */
static void count_out(struct weft_rt *rt)
{
	/* U1: an RMW, after what the job's end has queued: with U2 in wf_pool_is_working(). */
	if (wf_u32_fetch_add(&rt->pool.in_flight, (uint32_t)-1) != 1 || !rt->clock_virtual)
		return;
	if (rt->virtual.on)
		wf_virtual_ask(rt);
	else
		wf_rt_wake_all(rt);
}

bool wf_pool_is_working(const struct weft_rt *rt)
{
	/* U2: seq_cst, after P2, and before a look at the queues: with U1 in count_out(). */
	return wf_u32_load_seq_cst(&rt->pool.in_flight) > 0;
}

/* --- submitting --- */

/* After the lock; `thread` may have found its job before. */
static void wake(struct wf_pool_thread *thread)
{
	/* L1: an RMW, with L3 in doze(): it is asleep and is woken, or sees this and stays up. */
	if (wf_u32_exchange(&thread->word, WORD_WOKEN) == WORD_ASLEEP)
		wf_futex_wake_all(&thread->word);
}

static void serve(void *arg);

/* A record to start a thread with; NULL: no memory. */
static struct wf_pool_thread *thread_get(struct weft_rt *rt)
{
	struct wf_pool *pool = &rt->pool;
	struct wf_pool_thread *thread = NULL;

	wf_spinlock_lock(&pool->lock);
	if (!list_is_empty(&pool->spare)) {
		thread = thread_of(pool->spare.next);
		list_remove(&thread->link);
	}
	wf_spinlock_unlock(&pool->lock);
	if (thread)
		return thread;
	thread = wf_alloc(rt, WF_FALSE_SHARING, sizeof *thread);
	if (!thread)
		return NULL;
	memset(thread, 0, sizeof *thread);
	thread->rt = rt;
	thread->number = wf_u32_fetch_add(&pool->records, 1) % NAME_NUMBERS;
	return thread;
}

/* It has its job before it exists. */
static int thread_start(struct wf_pool *pool, struct wf_pool_thread *thread, struct wf_job *job,
	pthread_t *handle_out)
{
	int r;

	wf_spinlock_lock(&pool->lock);
	thread->id = 0;
	thread->proven = false;
	thread->idle = false;
	hand(thread, job);
	list_push(&pool->busy, &thread->link);
	add(&pool->thread_count, 1);
	wf_spinlock_unlock(&pool->lock);
	r = wf_thread_start(handle_out, serve, thread);
	if (r == 0)
		return 0;
	wf_spinlock_lock(&pool->lock);
	list_remove(&thread->link);
	list_push(&pool->spare, &thread->link);
	add(&pool->thread_count, -1u);
	wf_spinlock_unlock(&pool->lock);
	return r;
}

/* Whoever waits until it is known whether a thread was started looks again. */
static void tell_starts(struct wf_pool *pool)
{
	(void)wf_u32_fetch_add(&pool->starts, 1);
	wf_futex_wake_all(&pool->starts);
}

/* L6: a thread was counted, and could not be made: somebody else comes to the job, or nobody. */
static WF_COLD int start_failed(struct weft_rt *rt, struct wf_job *job, int error)
{
	struct wf_pool *pool = &rt->pool;
	bool serves = job->kind != WF_JOB_IN_PLACE;
	struct wf_pool_thread *idle;
	bool log = false;

	wf_spinlock_lock(&pool->lock);
	pool->unproven -= serves;
	idle = take_idle(pool);
	if (idle) {
		hand(idle, job);
		error = 0;
	} else {
		pool->serving -= serves;
		if (serves && pool->serving > pool->unproven) {
			enqueue(pool, job, true);
			error = 0;
			log = !pool->refusal_logged;
			pool->refusal_logged = true;
		}
	}
	wf_spinlock_unlock(&pool->lock);
	tell_starts(pool);
	if (error)
		count_out(rt);
	if (idle)
		wake(idle);
	if (log)
		wf_log(rt, WEFT_LOG_WARN,
			"no further thread for blocking work can be made: jobs wait in line%s",
			wf_thread_remedy(-EAGAIN));
	return error;
}

static int start(struct weft_rt *rt, struct wf_job *job)
{
	struct wf_pool *pool = &rt->pool;
	bool serves = job->kind != WF_JOB_IN_PLACE;
	struct wf_pool_thread *thread = thread_get(rt);
	pthread_t handle;
	int r = thread ? thread_start(pool, thread, job, &handle) : -ENOMEM;

	if (r < 0)
		return start_failed(rt, job, r);
	/* The job may be over by now, and gone. The thread does not end before it is proven. */
	wf_spinlock_lock(&pool->lock);
	thread->handle = handle;
	thread->proven = true;
	pool->unproven -= serves;
	wf_spinlock_unlock(&pool->lock);
	if (serves)
		tell_starts(pool);
	return 0;
}

int wf_pool_submit(struct weft_rt *rt, struct wf_job *job)
{
	struct wf_pool *pool = &rt->pool;
	bool serves = job->kind != WF_JOB_IN_PLACE;
	struct wf_pool_thread *thread;

	(void)wf_u32_fetch_add(&pool->in_flight, 1);
	wf_spinlock_lock(&pool->lock);
	while (serves && pool->serving >= pool->serving_max) {
		uint32_t seen = wf_u32_load_relaxed(&pool->starts);

		if (pool->serving > pool->unproven || WF_PLANTED(pool_trusts_starts)) { /* I1 */
			enqueue(pool, job, false);
			wf_spinlock_unlock(&pool->lock);
			return 0;
		}
		wf_spinlock_unlock(&pool->lock);
		wf_futex_wait(&pool->starts, seen, wf_clock_now_ns() + START_WAIT_NS);
		wf_spinlock_lock(&pool->lock);
	}
	pool->serving += serves;
	thread = take_idle(pool);
	if (thread)
		hand(thread, job);
	else
		pool->unproven += serves;
	wf_spinlock_unlock(&pool->lock);
	if (!thread)
		return start(rt, job);
	wake(thread);
	return 0;
}

enum wf_taken wf_pool_take_back(struct weft_rt *rt, struct wf_job *job)
{
	struct wf_pool *pool = &rt->pool;
	enum wf_taken taken = WF_TAKEN_BACK;

	wf_spinlock_lock(&pool->lock);
	switch (job->state) {
	case WF_JOB_QUEUED:
		dequeue(pool, job);
		break;
	case WF_JOB_HANDED:
		/* L2: it comes all the same, and serves until it has looked at the queue. */
		job->thread->job = NULL;
		break;
	case WF_JOB_RUNNING:
		wf_wait_begin(&job->wait);
		taken = WF_TAKEN_RUNS;
		break;
	case WF_JOB_DONE:
		taken = WF_TAKEN_DONE;
		break;
	}
	wf_spinlock_unlock(&pool->lock);
	if (taken == WF_TAKEN_BACK)
		count_out(rt);
	return taken;
}

bool wf_pool_is_within(struct weft_rt *rt)
{
	struct wf_pool *pool = &rt->pool;
	uintptr_t id = wf_thread_id();
	struct wf_link *link;

	wf_spinlock_lock(&pool->lock);
	for (link = pool->busy.next; link != &pool->busy; link = link->next)
		if (thread_of(link)->id == id)
			break;
	wf_spinlock_unlock(&pool->lock);
	return link != &pool->busy;
}

/* --- a thread's life --- */

/* "weft/<rt>/b<n>" in 15 bytes: the middle is cut. */
static void name_thread(const struct wf_pool_thread *self)
{
	char tail[8], name[THREAD_NAME_BYTES];
	int room;

	snprintf(tail, sizeof tail, "/b%u", self->number % NAME_NUMBERS);
	room = THREAD_NAME_BYTES - 1 - (int)strlen("weft/") - (int)strlen(tail);
	snprintf(name, sizeof name, "weft/%.*s%s", room, self->rt->name, tail);
	wf_thread_name(name);
}

/*
 * Until it is woken, the deadline, or now and then for no reason. True: the deadline has passed
 * and nobody has woken it.
 */
static bool doze(struct wf_pool_thread *self, weft_time deadline)
{
	uint32_t word = WORD_IDLE;

	/* L3: an RMW, with L1 in wake(). */
	if (wf_u32_cas(&self->word, &word, WORD_ASLEEP))
		wf_futex_wait(&self->word, WORD_ASLEEP, deadline);
	return wf_u32_load_relaxed(&self->word) != WORD_WOKEN && weft_now() >= deadline;
}

/* L5: under the lock: not idle, and not there. The one that ended before it is to be joined. */
static struct wf_pool_thread *leave(struct wf_pool *pool, struct wf_pool_thread *self)
{
	struct wf_pool_thread *last = pool->ended;

	list_remove(&self->link);
	self->idle = false;
	add(&pool->idle_count, -1u);
	add(&pool->thread_count, -1u);
	pool->ended = self;
	return last;
}

static void bury(struct wf_pool *pool, struct wf_pool_thread *last)
{
	if (!last)
		return;
	wf_thread_join(last->handle);
	wf_spinlock_lock(&pool->lock);
	list_push(&pool->spare, &last->link);
	wf_spinlock_unlock(&pool->lock);
}

/* Under the lock: what woke it. False: nothing; it is still idle. */
static bool look(struct wf_pool *pool, struct wf_pool_thread *self, struct wf_job **job_out)
{
	*job_out = NULL;
	if (pool->closing)
		return true;
	if (self->idle || WF_PLANTED(pool_forgets_job)) {
		wf_u32_store_relaxed(&self->word, WORD_IDLE); /* L3 */
		return false;
	}
	*job_out = accept_job(pool, self);
	return *job_out != NULL;
}

/* Idle until there is a job; NULL: the thread is to end. */
static struct wf_job *await_job(struct wf_pool *pool, struct wf_pool_thread *self)
{
	weft_time deadline = weft_after(pool->keep_alive_ns);
	struct wf_job *job;

	for (;;) {
		bool late = doze(self, deadline), found;

		wf_spinlock_lock(&pool->lock);
		if (late && self->idle && self->proven && !pool->closing) {
			struct wf_pool_thread *last = leave(pool, self);

			wf_spinlock_unlock(&pool->lock);
			bury(pool, last);
			return NULL;
		}
		found = look(pool, self, &job);
		wf_spinlock_unlock(&pool->lock);
		if (found)
			return job;
		if (late) /* taken back, or not proven: as if idle only now */
			deadline = weft_after(pool->keep_alive_ns);
	}
}

/* Runs it, and says so. Returns the next one in line; NULL: idle. */
static struct wf_job *run(struct weft_rt *rt, struct wf_pool_thread *self, struct wf_job *job)
{
	bool waits = job->kind == WF_JOB_CALL || job->kind == WF_JOB_IN_PLACE;
	struct wf_pool *pool = &rt->pool;
	struct wf_job *next;
	struct wf_wait wait;

	wf_u64_store_relaxed(&self->since, (uint64_t)weft_now());
	wf_job_run(rt, job);
	wf_spinlock_lock(&pool->lock);
	/* L4: idle before anybody hears of the end: who then submits the next job finds it. */
	job->state = WF_JOB_DONE;
	wait = job->wait;
	next = take_next(pool, self);
	wf_spinlock_unlock(&pool->lock);
	if (waits)
		(void)wf_wait_claim(rt, wait.pid, wait.number);
	else
		wf_job_end(rt, job);
	count_out(rt);
	return next;
}

static void serve(void *arg)
{
	struct wf_pool_thread *self = arg;
	struct weft_rt *rt = self->rt;
	struct wf_pool *pool = &rt->pool;
	struct wf_job *job;

	name_thread(self);
	if (pool->cpus_known)
		(void)wf_thread_set_cpus(&pool->cpus);
	wf_spinlock_lock(&pool->lock);
	self->id = wf_thread_id();
	(void)look(pool, self, &job);
	wf_spinlock_unlock(&pool->lock);
	while (job || (job = await_job(pool, self)))
		job = run(rt, self, job);
}

/* --- the pool's life --- */

void wf_pool_open(struct weft_rt *rt, unsigned threads_max, weft_time keep_alive_ns)
{
	struct wf_pool *pool = &rt->pool;

	pool->serving_max = threads_max ? threads_max : WF_BLOCKING_THREADS_DEFAULT;
	pool->keep_alive_ns = keep_alive_ns ? keep_alive_ns : WF_BLOCKING_KEEP_ALIVE_NS;
	pool->cpus_known = wf_thread_get_cpus(&pool->cpus) == 0;
	list_init(&pool->queue);
	list_init(&pool->idle);
	list_init(&pool->busy);
	list_init(&pool->spare);
}

static void free_threads(struct weft_rt *rt, struct wf_link *list)
{
	while (!list_is_empty(list)) {
		struct wf_pool_thread *thread = thread_of(list->next);

		list_remove(&thread->link);
		wf_free(rt, thread, sizeof *thread);
	}
}

static void end_threads(struct wf_link *list)
{
	for (struct wf_link *link = list->next; link != list; link = link->next) {
		wake(thread_of(link));
		wf_thread_join(thread_of(link)->handle);
	}
}

void wf_pool_close(struct weft_rt *rt)
{
	struct wf_pool *pool = &rt->pool;
	struct wf_pool_thread *last;

	wf_spinlock_lock(&pool->lock);
	WF_ASSERT(list_is_empty(&pool->queue));
	/* L7: from here on threads leave the lists alone. */
	pool->closing = true;
	last = pool->ended;
	wf_spinlock_unlock(&pool->lock);
	end_threads(&pool->idle);
	end_threads(&pool->busy); /* on their way to jobs that were taken back */
	bury(pool, last);
	free_threads(rt, &pool->idle);
	free_threads(rt, &pool->busy);
	free_threads(rt, &pool->spare);
}

/* --- watching --- */

static void describe(struct wf_job *job, struct wf_blocking_job *out)
{
	*out = (struct wf_blocking_job){ .pid = job->wait.pid, .kind = job->kind };
	out->runs = job->state == WF_JOB_RUNNING;
	if (out->runs)
		out->since = (weft_time)wf_u64_load_relaxed(&job->thread->since);
	memcpy(out->name, wf_job_name(job), sizeof out->name);
}

/* Those from the n-th on, as many as there is room for; returns how many. */
static unsigned collect(struct wf_pool *pool, unsigned n, struct wf_blocking_job *jobs_out)
{
	struct wf_link *link;
	unsigned seen = 0, count = 0;

	wf_spinlock_lock(&pool->lock);
	for (link = pool->busy.next; link != &pool->busy && count < EACH_BATCH; link = link->next) {
		struct wf_job *job = thread_of(link)->job;

		if (job && seen++ >= n)
			describe(job, &jobs_out[count++]);
	}
	for (link = pool->queue.next; link != &pool->queue && count < EACH_BATCH; link = link->next)
		if (seen++ >= n)
			describe(job_of(link), &jobs_out[count++]);
	wf_spinlock_unlock(&pool->lock);
	return count;
}

void wf_blocking_each(struct weft_rt *rt,
	void (*fn)(void *ctx, const struct wf_blocking_job *job), void *ctx)
{
	struct wf_blocking_job jobs[EACH_BATCH];
	unsigned n = 0, count;

	do {
		count = collect(&rt->pool, n, jobs);
		for (unsigned i = 0; i < count; i++)
			fn(ctx, &jobs[i]);
		n += count;
	} while (count == EACH_BATCH);
}

void wf_blocking_stats(const struct weft_rt *rt, struct wf_blocking_stats *stats_out)
{
	stats_out->threads = wf_u32_load_relaxed(&rt->pool.thread_count);
	stats_out->idle = wf_u32_load_relaxed(&rt->pool.idle_count);
	stats_out->queued = wf_u32_load_relaxed(&rt->pool.queued_count);
}
