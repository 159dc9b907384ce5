/*
 * The simulator itself: that its memory is x86-64's and not stronger or weaker, that schedules are
 * repeated exactly, that what it must notice is noticed. Known shapes ("litmus tests") with known
 * answers.
 */
#include "test/sim/engine.h"

#include <string.h>

#include "sync/futex.h"

static struct {
	wf_atomic_u32 x, y, z;
	uint32_t seen[4];
	uint64_t outcomes; /* which have been seen: bit = seen[0] + 2 * seen[1] + … */
	int plain;
} s;

static void setup(void)
{
	wf_u32_store_relaxed(&s.x, 0);
	wf_u32_store_relaxed(&s.y, 0);
	wf_u32_store_relaxed(&s.z, 0);
	memset(s.seen, 0, sizeof(s.seen));
	s.plain = 0;
}

static void collect(void)
{
	s.outcomes |= (uint64_t)1 << (s.seen[0] + 2 * s.seen[1] + 4 * s.seen[2] + 8 * s.seen[3]);
}

static uint64_t outcomes_of(const struct sim_scenario *scenario)
{
	struct sim_statistics statistics;
	struct sim_failure failure;

	s.outcomes = 0;
	sim_expect(sim_explore(scenario, 1, 5000, &statistics, &failure), "%s", failure.message);
	return s.outcomes;
}

/* Store buffering: each writes its own, reads the other's. */
static void store_buffering(unsigned number)
{
	wf_u32_store_release(number ? &s.y : &s.x, 1);
	s.seen[number] = wf_u32_load_seq_cst(number ? &s.x : &s.y);
}

SIM_TEST(engine, stores_wait_in_buffers)
{
	static const struct sim_scenario scenario = {
		"store buffering", 2, setup, store_buffering, NULL, collect, 0};

	sim_expect(outcomes_of(&scenario) == 0xf, "outcomes %#llx, not all four",
		(unsigned long long)s.outcomes);
}

static void store_buffering_rmw(unsigned number)
{
	(void)wf_u32_exchange(number ? &s.y : &s.x, 1);
	s.seen[number] = wf_u32_load_relaxed(number ? &s.x : &s.y);
}

static void store_buffering_fence(unsigned number)
{
	wf_u32_store_relaxed(number ? &s.y : &s.x, 1);
	wf_fence_seq_cst();
	s.seen[number] = wf_u32_load_relaxed(number ? &s.x : &s.y);
}

SIM_TEST(engine, read_modify_writes_and_fences_empty_buffers)
{
	static const struct sim_scenario rmw = {
		"store buffering, rmw", 2, setup, store_buffering_rmw, NULL, collect, 0};
	static const struct sim_scenario fence = {
		"store buffering, fence", 2, setup, store_buffering_fence, NULL, collect, 0};

	/* All but "neither saw the other". */
	sim_expect(outcomes_of(&rmw) == 0xe, "rmw: %#llx", (unsigned long long)s.outcomes);
	sim_expect(outcomes_of(&fence) == 0xe, "fence: %#llx", (unsigned long long)s.outcomes);
}

/* Message passing: what was stored first is seen first. */
static void message_passing(unsigned number)
{
	if (number == 0) {
		wf_u32_store_relaxed(&s.x, 1);
		wf_u32_store_relaxed(&s.y, 1);
	} else {
		s.seen[0] = wf_u32_load_relaxed(&s.y);
		s.seen[1] = wf_u32_load_relaxed(&s.x);
	}
}

SIM_TEST(engine, stores_are_seen_in_their_order)
{
	static const struct sim_scenario scenario = {
		"message passing", 2, setup, message_passing, NULL, collect, 0};

	/* Not: y is there (bit 0 of the outcome), x is not. */
	sim_expect(outcomes_of(&scenario) == 0xd, "outcomes %#llx", (unsigned long long)s.outcomes);
}

/* A thread sees its own stores at once, the newest of them. */
static void forwarding(unsigned number)
{
	wf_atomic_u32 *mine = number ? &s.x : &s.y;

	for (uint32_t i = 1; i < 20; i++) {
		wf_u32_store_relaxed(mine, i);
		wf_u32_store_relaxed(&s.z, i);
		sim_check(wf_u32_load_relaxed(mine) == i, "own store %u is not seen", i);
	}
}

SIM_TEST(engine, a_thread_sees_its_own_stores)
{
	static const struct sim_scenario scenario = {
		"forwarding", 2, setup, forwarding, NULL, NULL, 0};

	sim_must_pass(&scenario, 5000);
}

/* A plain read-modify-write, not atomic: two of them lose one. */
static void lost_update(unsigned number)
{
	(void)number;
	wf_u32_store_relaxed(&s.x, wf_u32_load_relaxed(&s.x) + 1);
}

static void check_lost_update(void)
{
	sim_check(wf_u32_load_relaxed(&s.x) == 2, "an update is lost");
}

static const struct sim_scenario losing = {
	"lost update", 2, setup, lost_update, NULL, check_lost_update, 0};

SIM_TEST(engine, a_lost_update_is_found_replayed_and_shrunk)
{
	struct sim_statistics statistics;
	struct sim_failure failure, again;
	int left;

	sim_expect(!sim_explore(&losing, 1, 1000, &statistics, &failure), "not found");
	sim_expect(!sim_run(&losing, failure.seed, &again), "seed %llu passes when replayed",
		(unsigned long long)failure.seed);
	sim_expect(again.hash == failure.hash, "the replay is another schedule");
	left = sim_report(&losing, &failure, false);
	sim_expect(left == 1 || left == 2, "%d preemptions, where one is enough", left);
}

SIM_TEST(engine, the_same_seed_gives_the_same_schedule)
{
	struct sim_statistics first, second, other;
	struct sim_failure failure;
	static const struct sim_scenario scenario = {
		"store buffering", 2, setup, store_buffering, NULL, NULL, 0};

	(void)sim_explore(&scenario, 7, 3000, &first, &failure);
	(void)sim_explore(&scenario, 7, 3000, &second, &failure);
	(void)sim_explore(&scenario, 8, 3000, &other, &failure);
	sim_expect(first.hash == second.hash, "two hashes of the same seeds");
	sim_expect(first.hash != other.hash, "one hash of different seeds");
}

/* What RECORD.json relies on: parts run anywhere, in any order, add up. */
SIM_TEST(engine, statistics_of_a_range_are_the_sums_of_its_parts)
{
	struct sim_statistics all, part, rest;
	uint64_t drawn = 0;
	struct sim_failure failure;
	static const struct sim_scenario scenario = {
		"store buffering", 2, setup, store_buffering, NULL, NULL, 0};

	(void)sim_explore(&scenario, 1007, 2000, &rest, &failure);
	(void)sim_explore(&scenario, 7, 3000, &all, &failure);
	(void)sim_explore(&scenario, 7, 1000, &part, &failure);
	sim_expect(all.hash == part.hash + rest.hash, "hashes");
	sim_expect(all.steps == part.steps + rest.steps, "operations");
	for (unsigned i = 0; i < SIM_STRATEGIES; i++) {
		sim_expect(part.by_strategy[i] > 0, "no seed chose strategy %u", i);
		sim_expect(all.by_strategy[i] == part.by_strategy[i] + rest.by_strategy[i],
			"schedules of strategy %u", i);
		drawn += all.by_strategy[i];
	}
	sim_expect(drawn == 3000, "%d seeds chose a strategy", (int)drawn);
}

/* --- sleeping --- */

static void sleep_for_ever(unsigned number)
{
	if (number == 0)
		while (wf_u32_load_acquire(&s.x) == 0)
			(void)wf_futex_sleep(&s.x, 0, WF_FUTEX_FOREVER);
	else if (wf_u32_load_relaxed(&s.y) == 0) /* forgets the wake */
		wf_u32_store_release(&s.x, 1);
}

SIM_TEST(engine, a_sleeper_whom_nobody_wakes_is_a_failure)
{
	static const struct sim_scenario scenario = {
		"forgotten wake", 2, setup, sleep_for_ever, NULL, NULL, 0};
	struct sim_statistics statistics;
	struct sim_failure failure;

	sim_expect(!sim_explore(&scenario, 1, 1000, &statistics, &failure), "not found");
	sim_expect(strstr(failure.message, "everybody sleeps") != NULL, "%s", failure.message);
}

static void sleep_and_wake(unsigned number)
{
	if (number < 2) {
		while (wf_u32_load_acquire(&s.x) == 0)
			(void)wf_futex_sleep(&s.x, 0, WF_FUTEX_FOREVER);
	} else {
		wf_u32_store_release(&s.x, 1);
		wf_futex_wake(&s.x, 2);
	}
}

SIM_TEST(engine, a_futex_looks_and_sleeps_in_one_step)
{
	static const struct sim_scenario scenario = {
		"futex", 3, setup, sleep_and_wake, NULL, NULL, 0};

	sim_must_pass(&scenario, 20000);
}

static void spin(unsigned number)
{
	if (number == 1 && wf_u32_load_relaxed(&s.y) == 0)
		return;
	while (wf_u32_load_relaxed(&s.x) == 0)
		wf_pause();
}

SIM_TEST(engine, spinning_on_what_never_changes_is_a_failure)
{
	static const struct sim_scenario scenario = {"livelock", 2, setup, spin, NULL, NULL, 0};
	struct sim_statistics statistics;
	struct sim_failure failure;

	sim_expect(!sim_explore(&scenario, 1, 10, &statistics, &failure), "not found");
	sim_expect(strstr(failure.message, "livelock") != NULL, "%s", failure.message);
}

static void endless(unsigned number)
{
	while (number == 0)
		(void)wf_u32_fetch_add(&s.x, 1);
}

SIM_TEST(engine, a_schedule_without_end_is_a_failure)
{
	static const struct sim_scenario scenario = {"endless", 2, setup, endless, NULL, NULL, 500};
	struct sim_statistics statistics;
	struct sim_failure failure;

	sim_expect(!sim_explore(&scenario, 1, 1, &statistics, &failure), "not found");
	sim_expect(strstr(failure.message, "no end after 500") != NULL, "%s", failure.message);
}

static void crash(unsigned number)
{
	volatile int *volatile nowhere = (volatile int *)8;

	if (wf_u32_fetch_add(&s.x, 1) == 1 && number == 0)
		*nowhere = 1;
}

SIM_TEST(engine, a_crash_is_a_failure_and_the_next_schedule_runs)
{
	static const struct sim_scenario scenario = {"crash", 2, setup, crash, NULL, NULL, 0};
	struct sim_statistics statistics;
	struct sim_failure failure;

	for (uint64_t seed = 1; seed < 2000; seed += statistics.schedules)
		if (!sim_explore(&scenario, seed, 100, &statistics, &failure))
			sim_expect(strcmp(failure.message, "signal 11, address 0x8") == 0, "%s",
				failure.message);
}

/* Two who wake each other by turns, and always have stores in their buffers. */
static void hand_over(unsigned number)
{
	const void *mine = number ? &s.y : &s.z, *theirs = number ? &s.z : &s.y;

	if (number == 2) {
		wf_u32_store_release(&s.x, 1);
		return;
	}
	while (wf_u32_load_acquire(&s.x) == 0) {
		wf_u32_store_relaxed(number ? &s.y : &s.z, 1);
		(void)sim_unblock(theirs, 1);
		(void)sim_block(mine, sim_now() + 1000000);
	}
}

SIM_TEST(engine, nobody_is_passed_over_for_ever)
{
	static const struct sim_scenario scenario = {
		"handing over", 3, setup, hand_over, NULL, NULL, 20000};

	sim_must_pass(&scenario, 5000);
}

static void keep_storing(unsigned number)
{
	if (number == 1)
		wf_u32_store_release(&s.x, 1);
	while (wf_u32_load_acquire(&s.x) == 0)
		wf_u32_store_relaxed(&s.y, 1);
}

SIM_TEST(engine, stores_give_no_further_turn)
{
	static const struct sim_scenario scenario = {
		"1 stores on and on", 2, setup, keep_storing, NULL, NULL, 20000};

	sim_must_pass(&scenario, 5000);
}

/* --- time --- */

static void sleep_until(unsigned number)
{
	int64_t deadline = sim_now() + (number + 1) * 1000000;

	if (number == 2) {
		sim_unblock(&s.x, 1);
		return;
	}
	if (sim_block(&s.x, deadline))
		s.plain++;
	else
		sim_check(sim_now() >= deadline, "woken early");
}

static void check_sleep(void)
{
	sim_check(s.plain <= 1, "one wake woke two");
	s.seen[0] = (uint32_t)s.plain;
	collect();
}

SIM_TEST(engine, sleeps_end_at_their_deadline_or_by_a_wake)
{
	static const struct sim_scenario scenario = {
		"deadlines", 3, setup, sleep_until, NULL, check_sleep, 0};

	sim_expect(outcomes_of(&scenario) == 3, "not both ends have been seen");
}

/* Somebody runs on and on until a sleeper's deadline has come. */
static void sleep_beside_work(unsigned number)
{
	while (number == 0 && wf_u32_load_acquire(&s.x) == 0)
		(void)wf_u32_fetch_add(&s.y, 1);
	if (number == 1) {
		(void)sim_block(&s.z, sim_now() + 1000);
		wf_u32_store_release(&s.x, 1);
	}
}

SIM_TEST(engine, sleeps_end_while_others_run)
{
	static const struct sim_scenario scenario = {
		"a sleep beside work", 2, setup, sleep_beside_work, NULL, NULL, 20000};

	sim_must_pass(&scenario, 5000);
}
