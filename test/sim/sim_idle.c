/*
 * sync/idle.h with its queues: the smallest workers that use every step of the park and wake
 * protocol (a ring, an inbox, an injector, stealing), and producers. Rows S9 and S10.
 *
 * Nobody stops these workers: a schedule ends when all sleep. Then all jobs must have run, or a
 * wake has been lost; the idle word must be in order: all parked, nobody searching, no token left.
 *
 * The workers' part of the protocol is here as it is in core/idle.c, with its own planted bugs.
 */
#include "test/sim/sim.h"

#include <string.h>

#include "sync/futex.h"
#include "sync/idle.h"
#include "sync/injector.h"

enum { WORKERS_MAX = 2, JOBS_MAX = 12 };

enum token { NONE, WORK, DIRECTED };

struct job {
	struct wf_node node;
	unsigned children; /* made by it, on the worker that runs it */
	unsigned runs;
	wf_atomic_u32 done;
	bool is_awaited;
	bool children_wait;    /* its first child waits for the second */
	struct job *waits_for; /* keeps its worker until that one has run */
	int only;              /* the worker it was sent to, or -1 */
	bool made;
};

struct worker {
	struct wf_deque ring;
	struct wf_injector inbox;
	struct wf_fifo inbox_rest;
	wf_atomic_u32 token;
	unsigned number;
	bool searching;
};

static struct {
	struct wf_idle idle;
	struct wf_injector injector;
	struct worker workers[WORKERS_MAX];
	unsigned count;
	struct job jobs[JOBS_MAX];
	unsigned job_count;
	bool skip_recheck, park_late; /* planted */
} s;

/* --- wakes --- */

static void send_token(unsigned number, enum token token)
{
	struct worker *worker = &s.workers[number];
	uint32_t old = wf_u32_exchange(&worker->token, token);

	sim_check(old == NONE, "two tokens for worker %u", number);
	wf_futex_wake(&worker->token, 1);
}

static void wake_for_work(void) /* W2 to W4 */
{
	int number = wf_idle_claim_any(&s.idle);

	if (number >= 0)
		send_token((unsigned)number, WORK);
}

static void wake_all(void)
{
	uint64_t claimed = wf_idle_claim_all(&s.idle);

	for (unsigned i = 0; i < s.count; i++)
		if (claimed >> i & 1)
			send_token(i, DIRECTED);
}

static struct job *make(unsigned children)
{
	struct job *job = &s.jobs[s.job_count++];

	sim_check(s.job_count <= JOBS_MAX, "the scenario makes too many jobs");
	*job = (struct job){.children = children, .only = -1, .made = true};
	wf_u32_store_relaxed(&job->done, 0);
	return job;
}

static void inject_job(struct job *job)
{
	(void)wf_injector_push(&s.injector, &job->node); /* W1 */
	wake_for_work();
}

static void inject(unsigned children)
{
	inject_job(make(children));
}

static void send(unsigned number, unsigned children)
{
	struct job *job = make(children);

	job->only = (int)number;
	(void)wf_injector_push(&s.workers[number].inbox, &job->node); /* D1 */
	if (wf_idle_claim_one(&s.idle, number))                       /* D2, D3 */
		send_token(number, DIRECTED);
}

/* --- the worker --- */

static void push_own(struct worker *self, struct job *job)
{
	void *spill[WF_DEQUE_SPILL_MAX];
	unsigned n = wf_deque_push(&self->ring, job, spill);

	for (unsigned i = 0; i + 1 < n; i++)
		((struct job *)spill[i])->node.next = &((struct job *)spill[i + 1])->node;
	if (n > 0) {
		(void)wf_injector_push_chain(&s.injector, &((struct job *)spill[0])->node,
			&((struct job *)spill[n - 1])->node);
		wake_for_work();
	} else if (wf_idle_wants_work_wake_relaxed(&s.idle)) {
		wake_for_work();
	}
}

static void run(struct worker *self, struct job *job)
{
	sim_check(job->made && ++job->runs == 1, "a job runs twice");
	sim_check(job->only < 0 || job->only == (int)self->number, "a job runs elsewhere");
	for (unsigned i = 0; i < job->children; i++) {
		struct job *child = make(0);

		if (job->children_wait && i == 0)
			child->waits_for = child + 1;
		if (job->children_wait && i == 1)
			child->is_awaited = true;
		push_own(self, child);
	}
	while (job->waits_for != NULL && wf_u32_load_acquire(&job->waits_for->done) == 0)
		(void)wf_futex_sleep(&job->waits_for->done, 0, WF_FUTEX_FOREVER);
	wf_u32_store_release(&job->done, 1);
	if (job->is_awaited)
		wf_futex_wake(&job->done, 1);
}

static struct job *steal(struct worker *self)
{
	void *loot[WF_DEQUE_STEAL_MAX];

	for (unsigned i = 1; i < s.count; i++) {
		struct worker *victim = &s.workers[(self->number + i) % s.count];
		unsigned n = wf_deque_steal(&victim->ring, loot, WF_DEQUE_STEAL_MAX);

		if (n == 0)
			continue;
		(void)wf_deque_push_many(&self->ring, loot, n - 1);
		return loot[n - 1];
	}
	return NULL;
}

static struct job *take_injected(struct worker *self)
{
	struct wf_refill rest;
	struct job *job =
		wf_injector_refill(&s.injector, &self->ring, offsetof(struct job, node), &rest);

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
		self->searching = wf_idle_search_begin(&s.idle, 1);
	job = take_injected(self);
	if (job == NULL && self->searching)
		job = steal(self);
	if (job != NULL && self->searching) { /* S3: publish, then end the search */
		wf_deque_publish(&self->ring);
		self->searching = false;
		if (wf_idle_search_end(&s.idle))
			wake_for_work();
	}
	return job;
}

static bool recheck(struct worker *self) /* P2 */
{
	if (s.skip_recheck)
		return false;
	if (!wf_injector_is_empty(&self->inbox) || !wf_injector_is_empty(&s.injector))
		return true;
	for (unsigned i = 0; i < s.count; i++)
		if (!wf_deque_is_empty(&s.workers[i].ring))
			return true;
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
	bool found = s.park_late && recheck(self);

	(void)wf_idle_park(&s.idle, self->number, self->searching); /* P1 */
	self->searching = false;
	if (!s.park_late)
		found = recheck(self);
	if (found && wf_idle_unpark_self(&s.idle, self->number)) /* P4 */
		return;
	await_token(self); /* P3; only a token ends it */
}

static void work(struct worker *self)
{
	for (;;) {
		struct job *job = take_sent(self);

		if (job == NULL)
			job = wf_deque_pop(&self->ring);
		if (job == NULL)
			job = search(self);
		if (job == NULL) {
			park(self);
			continue;
		}
		run(self, job);
		if (!wf_deque_is_empty(&self->ring)) { /* the end of a turn, with work left over */
			wf_deque_publish(&self->ring);
			wake_for_work();
		}
	}
}

/* --- a schedule --- */

static void setup_with(unsigned workers)
{
	memset(&s.jobs, 0, sizeof(s.jobs));
	s.job_count = 0;
	s.count = workers;
	wf_idle_init(&s.idle, workers);
	wf_injector_init(&s.injector);
	for (unsigned i = 0; i < workers; i++) {
		struct worker *worker = &s.workers[i];

		wf_deque_init(&worker->ring);
		wf_injector_init(&worker->inbox);
		worker->inbox_rest = (struct wf_fifo){NULL, NULL};
		wf_u32_store_relaxed(&worker->token, NONE);
		worker->number = i;
		worker->searching = false;
	}
}

static void setup_one(void)
{
	setup_with(1);
}

static void setup_two(void)
{
	setup_with(2);
}

/* All sleep: is that right? */
static enum sim_quiet quiet(void)
{
	for (unsigned i = 0; i < s.job_count; i++)
		sim_check(s.jobs[i].runs == 1, "lost wake: all sleep, and job %u has not run", i);
	return SIM_DONE;
}

static void check(void)
{
	uint64_t word = wf_u64_load_relaxed(&s.idle.word);

	sim_check(word == s.idle.workers_mask, "idle word %#llx when all sleep",
		(unsigned long long)word);
	for (unsigned i = 0; i < s.count; i++)
		sim_check(wf_u32_load_relaxed(&s.workers[i].token) == NONE, "a token is left");
}

/* S9: foreign spawns exactly while workers park. */
static void two_injected(unsigned number)
{
	if (number < s.count) {
		work(&s.workers[number]);
	} else {
		inject(0);
		inject(0);
	}
}

static const struct sim_scenario inject_one = {
	"1 worker, injected", 2, setup_one, two_injected, quiet, check, 0};
static const struct sim_scenario inject_two = {
	"2 workers, injected", 3, setup_two, two_injected, quiet, check, 0};

SIM_TEST(idle, injected_work_is_run_by_one_worker)
{
	sim_must_pass(&inject_one, 100000);
}

SIM_TEST(idle, injected_work_is_run_by_two_workers)
{
	sim_must_pass(&inject_two, 100000);
}

/* A job with children: work in a ring, for whoever searches. */
static void children(unsigned number)
{
	if (number < s.count)
		work(&s.workers[number]);
	else
		inject(3);
}

static const struct sim_scenario in_rings = {
	"2 workers, children", 3, setup_two, children, quiet, check, 0};

SIM_TEST(idle, work_in_a_ring_is_run)
{
	sim_must_pass(&in_rings, 100000);
}

/* Sent to one worker, beside work for any. */
static void sent(unsigned number)
{
	if (number < s.count)
		work(&s.workers[number]);
	else if (number == s.count)
		inject(1);
	else
		send(1, 0);
}

static const struct sim_scenario directed = {
	"2 workers, sent and injected", 4, setup_two, sent, quiet, check, 0};

SIM_TEST(idle, work_for_one_worker_reaches_it)
{
	sim_must_pass(&directed, 100000);
}

/* S10: a wake-all in between upsets no counter. */
static void meddled(unsigned number)
{
	if (number < s.count) {
		work(&s.workers[number]);
	} else if (number == s.count) {
		inject(1);
		inject(0);
	} else {
		wake_all();
		wake_all();
	}
}

static const struct sim_scenario meddling = {
	"2 workers, wake-alls", 4, setup_two, meddled, quiet, check, 0};

SIM_TEST(idle, wake_alls_upset_no_counter)
{
	sim_must_pass(&meddling, 100000);
}

/* Overflow: five children into a ring of 4. */
static void many_children(unsigned number)
{
	if (number < s.count)
		work(&s.workers[number]);
	else
		inject(6);
}

static const struct sim_scenario overflowing = {
	"2 workers, overflow", 3, setup_two, many_children, quiet, check, 0};

SIM_TEST(idle, an_overflow_strands_nothing)
{
	sim_must_pass(&overflowing, 100000);
}

/*
 * A job keeps its worker until another job has run: that one must be run by the other worker, so
 * any of the protocol's "somebody else will see it" that is wrong leaves all asleep. Here the pair
 * is injected ...
 */
static void injected_pair(unsigned number)
{
	if (number < s.count) {
		work(&s.workers[number]);
	} else {
		struct job *first = make(0), *second = make(0);

		first->waits_for = second;
		second->is_awaited = true;
		inject_job(first);
		inject_job(second);
	}
}

static const struct sim_scenario waiting_injected = {
	"2 workers, one waits", 3, setup_two, injected_pair, quiet, check, 0};

SIM_TEST(idle, a_busy_worker_keeps_nothing_from_the_other)
{
	sim_must_pass(&waiting_injected, 100000);
}

/* ... and here the children of a job, in its worker's ring. */
static void pair_in_a_ring(unsigned number)
{
	if (number < s.count) {
		work(&s.workers[number]);
	} else {
		struct job *parent = make(2);

		parent->children_wait = true;
		inject_job(parent);
	}
}

static const struct sim_scenario waiting_in_ring = {
	"2 workers, a child waits", 3, setup_two, pair_in_a_ring, quiet, check, 0};

SIM_TEST(idle, a_ring_behind_a_busy_worker_is_found)
{
	sim_must_pass(&waiting_in_ring, 100000);
}

/* --- planted --- */

SIM_TEST(idle, planted_park_by_store)
{
	sim_must_find(&inject_one, WF_PLANTED_idle_park_by_store, 100000);
}

SIM_TEST(idle, planted_publish_without_rmw)
{
	sim_must_find(&waiting_in_ring, WF_PLANTED_deque_publish_without_rmw, 1000000);
}

SIM_TEST(idle, planted_last_searcher_wakes_nobody)
{
	sim_must_find(&waiting_injected, WF_PLANTED_idle_last_searcher_silent, 1000000);
}

SIM_TEST(idle, planted_directed_wake_asks_for_searchers)
{
	sim_must_find(&directed, WF_PLANTED_idle_directed_asks_searchers, 1000000);
}

static void setup_without_recheck(void)
{
	setup_one();
	s.skip_recheck = true;
}

SIM_TEST(idle, planted_search_not_given_back)
{
	sim_must_find(&inject_two, WF_PLANTED_idle_park_keeps_search, 100);
}

static void setup_parking_late(void)
{
	setup_one();
	s.park_late = true;
}

SIM_TEST(idle, planted_announced_after_the_recheck)
{
	static const struct sim_scenario scenario = {
		"1 worker, parks late", 2, setup_parking_late, two_injected, quiet, check, 0};

	sim_must_find(&scenario, WF_PLANTED_nothing, 100000);
	s.park_late = false;
}

SIM_TEST(idle, planted_no_recheck)
{
	static const struct sim_scenario scenario = {
		"1 worker, no re-check", 2, setup_without_recheck, two_injected, quiet, check, 0};

	sim_must_find(&scenario, WF_PLANTED_nothing, 100000);
	s.skip_recheck = false;
}
