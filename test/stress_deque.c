/*
 * sync/deque.h with real threads: rows Q4 to Q6. Every item is a number and must be consumed
 * exactly once, whatever the schedule. Thread 0 owns the queue that work enters by; each other
 * thread has one of its own, fills it by stealing, and is robbed in turn.
 */
#include "test/harness.h"

#include "sync/deque.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

enum {
	THREADS_MAX = 4,
	ITEMS_MAX = 1000000,
};

struct worker {
	struct wf_deque deque;
	uint64_t seed;
	unsigned char *seen; /* one per item, written by this worker only */
};

struct stress {
	struct worker workers[THREADS_MAX];
	unsigned threads;
	uint64_t items;
	unsigned burst; /* what thread 0 pushes before it pops again, at most */
	unsigned thief_pause_ns;
	bool rob_thieves; /* else thieves only rob thread 0 */
	wf_atomic_u64 consumed;
};

static struct stress stress;

static void consume(struct worker *self, const void *item)
{
	uint64_t number = (uint64_t)(uintptr_t)item;

	cr_assert(number >= 1 && number <= stress.items, "item %llu", (unsigned long long)number);
	self->seen[number]++;
	wf_u64_fetch_add(&stress.consumed, 1);
}

static bool all_consumed(void)
{
	return wf_u64_load_acquire(&stress.consumed) >= stress.items;
}

static void own(struct worker *self)
{
	void *spill[WF_DEQUE_SPILL_MAX];
	uint64_t next = 1, burst, i;
	unsigned spilled;
	void *item;

	while (next <= stress.items) {
		burst = 1 + harness_random_below(&self->seed, stress.burst);
		for (i = 0; i < burst && next <= stress.items; i++) {
			spilled = wf_deque_push(&self->deque, (void *)(uintptr_t)next++, spill);
			while (spilled > 0)
				consume(self, spill[--spilled]);
		}
		burst = harness_random_below(&self->seed, stress.burst + 1);
		for (i = 0; i < burst && (item = wf_deque_pop(&self->deque)) != NULL; i++)
			consume(self, item);
	}
	while ((item = wf_deque_pop(&self->deque)) != NULL)
		consume(self, item);
	/* Popped empty and nobody pushes: it stays empty. */
	cr_assert(wf_deque_is_empty(&self->deque));
	cr_assert(wf_deque_valid(&self->deque));
}

/* Steals into the own ring, which others may rob at once, and consumes from there. */
static bool rob(struct worker *self, struct worker *victim)
{
	void *loot[WF_DEQUE_STEAL_MAX];
	unsigned max = 1 + (unsigned)harness_random_below(&self->seed, WF_DEQUE_STEAL_MAX);
	unsigned n = wf_deque_steal(&victim->deque, loot, max), pushed;
	void *item;

	if (n == 0)
		return false;
	pushed = wf_deque_push_many(&self->deque, loot, n - 1);
	cr_assert_eq(pushed, n - 1);
	consume(self, loot[n - 1]);
	while ((item = wf_deque_pop(&self->deque)) != NULL)
		consume(self, item);
	return true;
}

static void thieve(struct worker *self)
{
	const struct timespec pause = {.tv_nsec = stress.thief_pause_ns};
	unsigned victim;

	while (!all_consumed()) {
		victim = 0;
		if (stress.rob_thieves)
			victim = (unsigned)harness_random_below(&self->seed, stress.threads);
		if (&stress.workers[victim] == self || !rob(self, &stress.workers[victim]))
			sched_yield();
		if (stress.thief_pause_ns > 0)
			nanosleep(&pause, NULL);
	}
	cr_assert(wf_deque_valid(&self->deque));
}

static void work(unsigned index, void *arg)
{
	struct worker *self = &stress.workers[index];

	(void)arg;
	if (index == 0)
		own(self);
	else
		thieve(self);
}

static void check_exactly_once(void)
{
	uint64_t number;
	unsigned times, i;

	for (number = 1; number <= stress.items; number++) {
		for (times = 0, i = 0; i < stress.threads; i++)
			times += stress.workers[i].seen[number];
		cr_assert_eq(times, 1, "item %llu", (unsigned long long)number);
	}
	cr_assert_eq(wf_u64_load_relaxed(&stress.consumed), stress.items);
}

static void run(void)
{
	uint64_t seed = harness_seed();
	unsigned i;

	wf_u64_store_relaxed(&stress.consumed, 0);
	for (i = 0; i < stress.threads; i++) {
		wf_deque_init(&stress.workers[i].deque);
		stress.workers[i].seed = harness_random(&seed);
		stress.workers[i].seen = calloc(stress.items + 1, 1);
		cr_assert_not_null(stress.workers[i].seen);
	}
	harness_threads(stress.threads, work, NULL);
	check_exactly_once();
	for (i = 0; i < stress.threads; i++)
		free(stress.workers[i].seen);
}

/* Q4: few items, so that owner and thieves meet over the last one nearly always. */
static void run_many_short_races(unsigned threads)
{
	int round;

	for (round = 0; round < 3000 / HARNESS_SLOWDOWN; round++) {
		stress.threads = threads;
		stress.items = 5;
		stress.burst = 5;
		run();
	}
}

Test(deque, five_items_and_a_thief_meet_over_the_last_one, .timeout = 120)
{
	run_many_short_races(2);
}

Test(deque, five_items_and_two_thieves_meet_over_the_last_one, .timeout = 120)
{
	run_many_short_races(3);
}

Test(deque, few_items_at_a_time_reach_one_consumer_each, .timeout = 120)
{
	stress.threads = 3;
	stress.items = ITEMS_MAX / HARNESS_SLOWDOWN;
	stress.burst = 4;
	run();
}

/* Q5: bursts beyond the ring, so the owner overflows while thieves are at work. */
Test(deque, overflow_under_a_thief_loses_nothing, .timeout = 120)
{
	stress.threads = 2;
	stress.items = ITEMS_MAX / HARNESS_SLOWDOWN;
	stress.burst = 3 * WF_RING_SIZE;
	run();
	cr_assert_gt(wf_deque_overflow_count(&stress.workers[0].deque), 0);
}

Test(deque, overflow_under_thieves_that_rob_each_other_loses_nothing, .timeout = 120)
{
	stress.threads = 4;
	stress.items = ITEMS_MAX / HARNESS_SLOWDOWN;
	stress.burst = 3 * WF_RING_SIZE;
	stress.rob_thieves = true;
	run();
	cr_assert_gt(wf_deque_overflow_count(&stress.workers[0].deque), 0);
}

/* Q6 */
Test(deque, a_slow_thief_gets_whole_items, .timeout = 120)
{
	stress.threads = 2;
	stress.items = ITEMS_MAX / HARNESS_SLOWDOWN;
	stress.burst = WF_RING_SIZE;
	stress.thief_pause_ns = 10000;
	run();
}
