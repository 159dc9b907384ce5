/*
 * sync/injector.h with real threads: rows Q7 and Q8, and nodes that go straight back in (A-B-A).
 * Each producer numbers its jobs; every job must be consumed exactly once, and, where there is one
 * consumer, in its producer's order.
 */
#include "test/harness.h"

#include "sync/injector.h"

#include <sched.h>
#include <stdlib.h>

enum {
	PRODUCERS_MAX = 4,
	CONSUMERS_MAX = 2,
	JOBS = 250000 / HARNESS_SLOWDOWN, /* per producer */
	CHAIN_MAX = 5,
};

struct job {
	struct wf_node node;
	uint32_t producer, number; /* numbers start at 0 */
	wf_atomic_u32 times;
};

struct stress {
	struct wf_injector injector;
	struct wf_deque rings[CONSUMERS_MAX];
	unsigned producers, consumers;
	unsigned jobs; /* of each producer */
	struct job *jobs_of[PRODUCERS_MAX];
	unsigned accepted[PRODUCERS_MAX]; /* until the queue was closed */
	wf_atomic_u64 consumed;
	wf_atomic_u32 producing;
	wf_atomic_u32 holding;
};

static struct stress stress;

/* --- producers --- */

/* Pushes jobs [first, first + count) singly or as one chain. False: closed. */
static bool push(unsigned producer, unsigned first, unsigned count)
{
	struct job *job = &stress.jobs_of[producer][first];
	unsigned i;

	if (count == 1)
		return wf_injector_push(&stress.injector, &job->node) != WF_PUSH_CLOSED;
	for (i = 0; i + 1 < count; i++)
		job[i].node.next = &job[i + 1].node;
	return wf_injector_push_chain(&stress.injector, &job->node, &job[count - 1].node) !=
	       WF_PUSH_CLOSED;
}

static void produce(unsigned producer)
{
	uint64_t seed = harness_seed() + producer;
	unsigned next = 0, count;

	while (next < stress.jobs) {
		count = 1;
		if (harness_random_below(&seed, 4) == 0)
			count = 1 + (unsigned)harness_random_below(&seed, CHAIN_MAX);
		if (count > stress.jobs - next)
			count = stress.jobs - next;
		if (!push(producer, next, count))
			break;
		next += count;
		if (harness_random_below(&seed, 512) == 0)
			sched_yield();
	}
	stress.accepted[producer] = next;
	wf_u32_fetch_add(&stress.producing, (uint32_t)-1);
}

/* --- consumers --- */

static void consume(struct job *job, uint32_t *last_of)
{
	cr_assert_eq(wf_u32_fetch_add(&job->times, 1), 0, "job %u of producer %u, again",
		job->number, job->producer);
	if (stress.consumers == 1 && WF_RUN_ORDER_FIFO) {
		cr_assert_eq(job->number, last_of[job->producer], "producer %u", job->producer);
		last_of[job->producer]++;
	}
	wf_u64_fetch_add(&stress.consumed, 1);
}

/* Nothing is left: no producer runs, no consumer holds (read in this order), the queue is empty. */
static bool is_over(void)
{
	return wf_u32_load_seq_cst(&stress.producing) == 0 &&
	       wf_u32_load_seq_cst(&stress.holding) == 0 && wf_injector_is_empty(&stress.injector);
}

static void consume_all(unsigned consumer)
{
	struct wf_deque *ring = &stress.rings[consumer];
	uint32_t last_of[PRODUCERS_MAX] = {0};
	struct wf_refill rest;
	struct job *job;

	while (!is_over()) {
		wf_u32_fetch_add(&stress.holding, 1);
		job = wf_injector_refill(&stress.injector, ring, offsetof(struct job, node), &rest);
		wf_u32_fetch_add(&stress.holding, (uint32_t)-1);
		if (job == NULL)
			sched_yield();
		for (; job != NULL; job = wf_deque_pop(ring))
			consume(job, last_of);
	}
}

static void work(unsigned index, void *arg)
{
	(void)arg;
	if (index < stress.producers)
		produce(index);
	else if (index < stress.producers + stress.consumers)
		consume_all(index - stress.producers);
	else { /* the closer: in the middle of it all */
		while (wf_u64_load_relaxed(&stress.consumed) < stress.jobs)
			sched_yield();
		wf_injector_close(&stress.injector);
	}
}

static void prepare(unsigned producers, unsigned consumers)
{
	unsigned p, i;

	stress.producers = producers;
	stress.consumers = consumers;
	stress.jobs = JOBS;
	wf_u32_store_relaxed(&stress.producing, producers);
	for (p = 0; p < producers; p++) {
		stress.jobs_of[p] = calloc(JOBS, sizeof(struct job));
		cr_assert_not_null(stress.jobs_of[p]);
		for (i = 0; i < JOBS; i++) {
			stress.jobs_of[p][i].producer = p;
			stress.jobs_of[p][i].number = i;
		}
	}
}

/* Every accepted job was consumed once, no other one was. */
static void check(void)
{
	unsigned p, i;

	for (p = 0; p < stress.producers; p++) {
		for (i = 0; i < stress.jobs; i++)
			cr_assert_eq(wf_u32_load_relaxed(&stress.jobs_of[p][i].times),
				i < stress.accepted[p], "job %u of producer %u", i, p);
		free(stress.jobs_of[p]);
	}
	cr_assert(wf_injector_is_empty(&stress.injector));
}

/* Q7 */
Test(injector, four_producers_and_two_consumers_exactly_once, .timeout = 120)
{
	prepare(4, 2);
	harness_threads(6, work, NULL);
	check();
	cr_assert_eq(wf_u64_load_relaxed(&stress.consumed), 4u * JOBS);
}

Test(injector, one_consumer_sees_each_producers_order, .timeout = 120)
{
	prepare(4, 1);
	harness_threads(5, work, NULL);
	check();
}

/* Q8 */
Test(injector, closing_strands_nothing, .timeout = 120)
{
	prepare(3, 2);
	harness_threads(6, work, NULL);
	check();
	cr_assert(wf_injector_is_closed(&stress.injector));
}

/* --- few nodes that are pushed again the moment they come out --- */

enum { RECYCLED = 6, LAPS = 400000 / HARNESS_SLOWDOWN };

struct token {
	struct wf_node node;
	uint64_t laps; /* plain: the queue alone hands it from thread to thread */
};

static struct token tokens[RECYCLED];

/* Each thread is producer and consumer: pops some, pushes them, pushes the rest back. */
static void recycle(unsigned index, void *arg)
{
	struct wf_injector *injector = arg;
	uint64_t seed = harness_seed() + index;
	struct wf_chain chain;
	struct wf_node *node;
	unsigned laps = 0, keep;

	while (laps < LAPS) {
		if (!wf_injector_grab(injector, &chain)) {
			sched_yield();
			continue;
		}
		keep = (unsigned)harness_random_below(&seed, 3);
		for (; keep > 0 && (node = wf_chain_pop(&chain)) != NULL; keep--) {
			WF_CONTAINER_OF(node, struct token, node)->laps++;
			laps++;
			wf_injector_push(injector, node);
		}
		wf_injector_push_back(injector, &chain);
	}
}

Test(injector, nodes_pushed_again_at_once_are_neither_lost_nor_doubled, .timeout = 120)
{
	static struct wf_injector injector;
	struct wf_chain chain;
	uint64_t laps = 0;
	unsigned i;

	for (i = 0; i < RECYCLED; i++)
		wf_injector_push(&injector, &tokens[i].node);
	harness_threads(3, recycle, &injector);
	cr_assert(wf_injector_grab(&injector, &chain));
	for (i = 0; i < RECYCLED; i++)
		cr_assert_not_null(wf_chain_pop(&chain), "token %u", i);
	cr_assert_null(wf_chain_pop(&chain));
	for (i = 0; i < RECYCLED; i++)
		laps += tokens[i].laps;
	cr_assert_geq(laps, 3u * LAPS);
	cr_assert_leq(laps, 3u * (LAPS + 2));
}
