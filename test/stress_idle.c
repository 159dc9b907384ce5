/*
 * sync/idle.h with real threads: the park and wake protocol, step by step as its file-top comment
 * numbers them, on real futexes and without a single timeout. A lost wake leaves work in a queue
 * with everybody asleep: the test then never ends, and its time limit fails it. Rows S9 and S10.
 *
 * The workers here are the smallest ones that use every step: a ring, an inbox, an injector,
 * stealing.
 */
#include "test/harness.h"

#include "sync/futex.h"
#include "sync/idle.h"
#include "sync/injector.h"

#include <sched.h>

enum {
	WORKERS_MAX = 4,
	ROUNDS = 20000 / HARNESS_SLOWDOWN,
};

enum token { NONE, WORK, DIRECTED };

/* A job makes `children` more on the worker that runs it. */
struct job {
	struct wf_node node;
	struct job *children;
	unsigned child_count;
};

struct worker {
	struct wf_deque ring;
	struct wf_injector inbox;
	struct wf_fifo inbox_rest;
	wf_atomic_u32 token;
	unsigned number;
	bool searching;
	uint64_t seed;
	uint64_t parks; /* that really slept, for the sanity of the test itself */
};

static struct {
	struct wf_idle idle;
	struct wf_injector injector;
	struct worker workers[WORKERS_MAX];
	unsigned count;
	wf_atomic_u32 done; /* jobs run in this round; the producer sleeps on it */
	wf_atomic_u32 expected;
	wf_atomic_u32 stop;
	wf_atomic_u32 meddling;
} rt;

/* --- wakes --- */

static void send_token(unsigned number, enum token token)
{
	struct worker *worker = &rt.workers[number];

	cr_assert_eq(
		wf_u32_exchange(&worker->token, token), NONE, "two tokens for worker %u", number);
	wf_futex_wake(&worker->token, 1);
}

static void wake_for_work(void) /* W2 to W4 */
{
	int number = wf_idle_claim_any(&rt.idle);

	if (number >= 0)
		send_token((unsigned)number, WORK);
}

static void wake_all(void)
{
	uint64_t claimed = wf_idle_claim_all(&rt.idle);
	unsigned i;

	for (i = 0; i < rt.count; i++) {
		if (claimed >> i & 1)
			send_token(i, DIRECTED);
	}
}

static void inject(struct job *job)
{
	cr_assert_neq(wf_injector_push(&rt.injector, &job->node), WF_PUSH_CLOSED); /* W1 */
	wake_for_work();
}

static void send(unsigned number, struct job *job)
{
	cr_assert_neq(wf_injector_push(&rt.workers[number].inbox, &job->node), WF_PUSH_CLOSED);
	if (wf_idle_claim_one(&rt.idle, number)) /* D2, D3 */
		send_token(number, DIRECTED);
}

/* --- the worker --- */

static void push_own(struct worker *self, struct job *job)
{
	void *spill[WF_DEQUE_SPILL_MAX];
	unsigned n = wf_deque_push(&self->ring, job, spill), i;

	for (i = 0; i + 1 < n; i++)
		((struct job *)spill[i])->node.next = &((struct job *)spill[i + 1])->node;
	if (n > 0) {
		wf_injector_push_chain(&rt.injector, &((struct job *)spill[0])->node,
			&((struct job *)spill[n - 1])->node);
		wake_for_work();
	} else if (wf_idle_wants_work_wake_relaxed(&rt.idle)) {
		wake_for_work();
	}
}

static void run(struct worker *self, struct job *job)
{
	unsigned i;

	for (i = 0; i < job->child_count; i++)
		push_own(self, &job->children[i]);
	/* R1: what the job did, for the producer that sees all done. */
	if (wf_u32_fetch_add(&rt.done, 1) + 1 == wf_u32_load_relaxed(&rt.expected))
		wf_futex_wake(&rt.done, 1);
}

static struct job *steal(struct worker *self)
{
	void *loot[WF_DEQUE_STEAL_MAX];
	unsigned i, n, victim;

	for (i = 0; i < rt.count; i++) {
		victim = (unsigned)harness_random_below(&self->seed, rt.count);
		if (victim == self->number)
			continue;
		n = wf_deque_steal(&rt.workers[victim].ring, loot, WF_DEQUE_STEAL_MAX);
		if (n == 0)
			continue;
		wf_deque_push_many(&self->ring, loot, n - 1);
		return loot[n - 1];
	}
	return NULL;
}

static struct job *take_injected(struct worker *self)
{
	struct wf_refill rest;
	struct job *job =
		wf_injector_refill(&rt.injector, &self->ring, offsetof(struct job, node), &rest);

	if (rest.moved > 0 || rest.pushed_back)
		wake_for_work();
	return job;
}

static struct job *take_sent(struct worker *self)
{
	struct wf_node *node;

	(void)wf_injector_drain(&self->inbox, &self->inbox_rest);
	node = wf_fifo_pop(&self->inbox_rest);
	return node != NULL ? WF_CONTAINER_OF(node, struct job, node) : NULL;
}

static struct job *search(struct worker *self)
{
	struct job *job;

	if (!self->searching)
		self->searching = wf_idle_search_begin(&rt.idle, rt.count > 2 ? rt.count / 2 : 1);
	job = take_injected(self);
	if (job == NULL && self->searching)
		job = steal(self);
	if (job != NULL && self->searching) { /* S3: publish, then end the search */
		wf_deque_publish(&self->ring);
		self->searching = false;
		if (wf_idle_search_end(&rt.idle))
			wake_for_work();
	}
	return job;
}

static bool recheck(struct worker *self) /* P2 */
{
	unsigned i;

	if (wf_u32_load_seq_cst(&rt.stop) != 0 || !wf_injector_is_empty(&self->inbox) ||
		!wf_injector_is_empty(&rt.injector))
		return true;
	for (i = 0; i < rt.count; i++) {
		if (!wf_deque_is_empty(&rt.workers[i].ring))
			return true;
	}
	return false;
}

static void await_token(struct worker *self)
{
	uint32_t token;

	while ((token = wf_u32_exchange(&self->token, NONE)) == NONE)
		(void)wf_futex_sleep(&self->token, NONE, WF_FUTEX_FOREVER);
	if (token == WORK)
		self->searching = true; /* already counted */
}

static void park(struct worker *self)
{
	(void)wf_idle_park(&rt.idle, self->number, self->searching); /* P1 */
	self->searching = false;
	if (recheck(self)) {
		if (!wf_idle_unpark_self(&rt.idle, self->number)) /* P4 */
			await_token(self);
		return;
	}
	self->parks++;
	await_token(self); /* P3; only a token ends it */
}

static void work(struct worker *self)
{
	struct job *job;

	while (wf_u32_load_acquire(&rt.stop) == 0) {
		job = take_sent(self);
		if (job == NULL)
			job = wf_deque_pop(&self->ring);
		if (job == NULL) {
			/* The end of a turn: what the relaxed peeks missed. */
			wf_deque_publish(&self->ring);
			job = search(self);
		}
		if (job != NULL)
			run(self, job);
		else
			park(self);
	}
	if (self->searching)
		(void)wf_idle_search_end(&rt.idle);
}

/* --- the producer, and one that meddles --- */

static struct job roots[3], children[3][8];

/* One round: up to three jobs with children, by every way in; then sleep until all have run. */
static void produce(uint64_t *seed)
{
	unsigned root_count = 1 + (unsigned)harness_random_below(seed, 3), total = 0, i;
	uint32_t done;

	for (i = 0; i < root_count; i++) {
		roots[i].children = children[i];
		roots[i].child_count = 0;
		if (harness_random_below(seed, 2) == 0)
			roots[i].child_count = (unsigned)harness_random_below(seed, 9);
		total += 1 + roots[i].child_count;
	}
	wf_u32_store_relaxed(&rt.done, 0);
	wf_u32_store_relaxed(&rt.expected, total);
	for (i = 0; i < root_count; i++) {
		if (harness_random_below(seed, 2) == 0)
			inject(&roots[i]);
		else
			send((unsigned)harness_random_below(seed, rt.count), &roots[i]);
	}
	while ((done = wf_u32_load_acquire(&rt.done)) != total) /* A1, with R1 */
		(void)wf_futex_sleep(&rt.done, done, WF_FUTEX_FOREVER);
}

static void produce_all(void)
{
	uint64_t seed = harness_seed();
	int round, i, pause;

	/* With nothing to do yet, who is on his way to sleep gets there. */
	while (wf_idle_parked_mask(&rt.idle) == 0)
		sched_yield();
	for (round = 0; round < ROUNDS; round++) {
		produce(&seed);
		cr_assert(wf_idle_valid(&rt.idle));
		/* Meet the workers anywhere between "still awake" and "long asleep". */
		pause = (int)harness_random_below(&seed, 2000);
		for (i = 0; i < pause; i++)
			wf_pause();
	}
	wf_u32_store_release(&rt.meddling, 0);
}

static void meddle(void)
{
	while (wf_u32_load_acquire(&rt.meddling) != 0) {
		wake_all();
		sched_yield();
	}
}

static void stop(void)
{
	(void)wf_u32_exchange(&rt.stop, 1);
	wake_all();
}

/* Thread 0 produces, 1 to count are the workers, the last one meddles if it is there. */
static void thread(unsigned index, void *unused)
{
	(void)unused;
	if (index == 0) {
		produce_all();
		stop();
	} else if (index <= rt.count) {
		work(&rt.workers[index - 1]);
	} else {
		meddle();
	}
}

static void run_with(unsigned workers, bool meddler)
{
	uint64_t parks = 0;
	unsigned i;

	rt.count = workers;
	wf_idle_init(&rt.idle, workers);
	for (i = 0; i < workers; i++) {
		rt.workers[i].number = i;
		rt.workers[i].seed = harness_seed() + i;
	}
	wf_u32_store_relaxed(&rt.meddling, meddler);
	harness_threads(1 + workers + meddler, thread, NULL);
	for (i = 0; i < workers; i++) {
		parks += rt.workers[i].parks;
		cr_assert(wf_deque_is_empty(&rt.workers[i].ring));
		cr_assert(wf_injector_is_empty(&rt.workers[i].inbox));
		cr_assert_eq(wf_u32_load_relaxed(&rt.workers[i].token), NONE, "worker %u", i);
	}
	cr_assert_eq(wf_idle_searcher_count(&rt.idle), 0);
	cr_assert_eq(wf_idle_parked_mask(&rt.idle), 0);
	cr_assert_gt(parks, 0, "nobody ever slept: this tested nothing");
}

/* S9 */
Test(idle, one_worker_misses_no_wake, .timeout = 120)
{
	run_with(1, false);
}

Test(idle, two_workers_miss_no_wake, .timeout = 120)
{
	run_with(2, false);
}

Test(idle, four_workers_miss_no_wake, .timeout = 120)
{
	run_with(4, false);
}

/* S10 */
Test(idle, wake_alls_in_between_upset_nothing, .timeout = 120)
{
	run_with(2, true);
}
