/*
 * explore.c: many schedules of a scenario; what a seed stands for; replaying and shrinking.
 *
 * A seed is mixed, and its bits choose the strategy and its parameters. PCT places its change
 * points within the length of a schedule, which is measured on one fixed schedule of the scenario:
 * so a seed means the same schedule whenever the same binary runs it.
 *
 * Shrinking. A failing schedule is the list of its preemptions. Chunks of the list, halves first,
 * single ones last, are left out as long as the schedule fails alike. What is left is seldom more
 * than a handful, and reads as the story of the bug. Which decisions are preemptions depends on
 * when stores are seen otherwise, at once or late: both lists are shrunk, the shorter one is told.
 * If it is still long, schedules with few changes are tried: they may fail alike.
 */
#include "test/sim/engine.h"

#include <string.h>
#include <time.h>

enum {
	SHRINK_RUNS_MAX = 20000,
	SHRINK_STEPS_MAX = 50000000, /* of all runs together: some schedules have no end */
	SIMPLER_PLANS = 20000,
	SIMPLE_ENOUGH = 3, /* preemptions */
	LENGTH_SEED = 1,
};

static_assert(SIM_LISTED == SIM_STRATEGIES, "a seed chooses any but a list");

static struct sim_recording recording;
static uint64_t shrink_steps; /* since the report began */
static struct sim_preemption trial[SIM_PREEMPTIONS_MAX], shortest[SIM_PREEMPTIONS_MAX];

static int compare_steps(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

void sim_plan_make(struct sim_plan *plan, uint64_t seed, uint32_t steps)
{
	static const unsigned stays[] = {0, 64, 128, 192, 224, 240, 248, 252};
	uint64_t state = seed;
	uint64_t drawn = sim_mix(&state);

	memset(plan, 0, sizeof(*plan));
	plan->seed = plan->shuffle = seed;
	switch (drawn & 15) {
	default: /* 7 of 16 */
		plan->strategy = SIM_PCT;
		plan->change_count = 1 + (drawn >> 4) % SIM_CHANGES_MAX;
		for (unsigned i = 0; i < plan->change_count; i++)
			plan->changes[i] =
				1 + (uint32_t)(sim_mix(&state) % (steps + steps / 2 + 1));
		qsort(plan->changes, plan->change_count, sizeof(plan->changes[0]), compare_steps);
		break;
	case 0:
		plan->strategy = SIM_ROUND_ROBIN;
		plan->quantum = (drawn >> 4) % 16;
		break;
	case 1:
	case 2:
	case 3:
	case 4:
	case 5:
	case 6:
	case 7:
	case 8:
		plan->strategy = SIM_RANDOM_WALK;
		plan->stay = stays[(drawn >> 4) % WF_ARRAY_COUNT(stays)];
		break;
	}
}

const char *sim_strategy_text(uint64_t seed)
{
	static char text[64];
	struct sim_plan plan;

	sim_plan_make(&plan, seed, 1);
	switch (plan.strategy) {
	case SIM_PCT:
		snprintf(text, sizeof(text), "PCT, %u change points", plan.change_count);
		break;
	case SIM_ROUND_ROBIN:
		snprintf(text, sizeof(text), "round robin, %u operations each", plan.quantum + 1);
		break;
	default:
		snprintf(text, sizeof(text), "random walk, %u%% on its way", plan.stay * 100 / 256);
		break;
	}
	return text;
}

/* How many operations a schedule of it takes: one sample, the same always. */
static uint32_t length_of(const struct sim_scenario *scenario)
{
	struct sim_plan plan = {.strategy = SIM_RANDOM_WALK, .seed = LENGTH_SEED, .stay = 128};
	struct sim_outcome outcome;

	sim_schedule(scenario, &plan, NULL, false, &outcome);
	return outcome.steps;
}

static void fill_failure(
	struct sim_failure *failure, uint64_t seed, const struct sim_outcome *outcome)
{
	failure->seed = seed;
	failure->hash = outcome->hash;
	memcpy(failure->message, outcome->message, sizeof(failure->message));
}

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* What a schedule adds to the hash of its range. */
static uint64_t hash_of(uint64_t seed, const struct sim_outcome *outcome)
{
	uint64_t state = seed ^ outcome->hash;

	return sim_mix(&state);
}

bool sim_explore(const struct sim_scenario *scenario, uint64_t first, uint64_t count,
	struct sim_statistics *statistics_out, struct sim_failure *failure_out)
{
	uint32_t length = length_of(scenario);
	double start = seconds_now();
	struct sim_outcome outcome = {.failed = false};
	struct sim_plan plan;

	memset(statistics_out, 0, sizeof(*statistics_out));
	for (uint64_t seed = first; seed != first + count && !outcome.failed; seed++) {
		sim_plan_make(&plan, seed, length);
		sim_schedule(scenario, &plan, NULL, false, &outcome);
		statistics_out->schedules++;
		statistics_out->steps += outcome.steps;
		statistics_out->by_strategy[plan.strategy]++;
		statistics_out->hash += hash_of(seed, &outcome);
	}
	statistics_out->seconds = seconds_now() - start;
	if (outcome.failed)
		fill_failure(failure_out, plan.seed, &outcome);
	return !outcome.failed;
}

bool sim_run(const struct sim_scenario *scenario, uint64_t seed, struct sim_failure *failure_out)
{
	struct sim_outcome outcome;
	struct sim_plan plan;

	outcome.message[0] = '\0';
	sim_plan_make(&plan, seed, length_of(scenario));
	sim_schedule(scenario, &plan, NULL, false, &outcome);
	fill_failure(failure_out, seed, &outcome);
	return !outcome.failed;
}

/* --- shrinking --- */

/* Numbers aside: which item it was does not matter. */
static bool messages_are_alike(const char *a, const char *b)
{
	for (;; a++, b++) {
		while (*a >= '0' && *a <= '9')
			a++;
		while (*b >= '0' && *b <= '9')
			b++;
		if (*a != *b || *a == '\0')
			return *a == *b;
	}
}

/* A list of preemptions, and how it is to be read. */
struct list {
	struct sim_preemption *preemptions;
	unsigned count;
	bool eager;
};

static bool fails_alike(const struct sim_scenario *scenario, const struct sim_failure *failure,
	const struct list *list, bool traced)
{
	struct sim_plan plan = {.strategy = SIM_LISTED,
		.seed = failure->seed,
		.listed = list->preemptions,
		.listed_count = list->count,
		.eager = list->eager};
	struct sim_outcome outcome;

	sim_schedule(scenario, &plan, NULL, traced, &outcome);
	shrink_steps += outcome.steps;
	return outcome.failed && messages_are_alike(outcome.message, failure->message);
}

static bool may_go_on(unsigned runs)
{
	return runs < SHRINK_RUNS_MAX && shrink_steps < SHRINK_STEPS_MAX;
}

/* Leaves chunks of that size out where it still fails. Returns whether it did. */
static bool leave_out(const struct sim_scenario *scenario, const struct sim_failure *failure,
	struct list *list, unsigned chunk, unsigned *runs)
{
	bool removed = false;
	unsigned start = 0;

	while (start < list->count && may_go_on((*runs)++)) {
		unsigned end = start + chunk < list->count ? start + chunk : list->count;
		struct list rest = {trial, list->count - (end - start), list->eager};

		memcpy(trial, list->preemptions, start * sizeof(trial[0]));
		memcpy(trial + start, list->preemptions + end,
			(list->count - end) * sizeof(trial[0]));
		if (fails_alike(scenario, failure, &rest, false)) {
			list->count = rest.count;
			memcpy(list->preemptions, trial, rest.count * sizeof(trial[0]));
			removed = true;
		} else {
			start = end;
		}
	}
	return removed;
}

/* False: it does not fail as a list (it was too long to be recorded whole). */
static bool shrink(
	const struct sim_scenario *scenario, const struct sim_failure *failure, struct list *list)
{
	unsigned chunk = list->count / 2 > 0 ? list->count / 2 : 1;
	unsigned runs = 0;

	if (!fails_alike(scenario, failure, list, false))
		return false;
	while (list->count > 0 && may_go_on(runs)) {
		bool removed = leave_out(scenario, failure, list, chunk, &runs);

		if (chunk > 1)
			chunk /= 2;
		else if (!removed)
			break;
	}
	return true;
}

static void print_preemption(const struct sim_preemption *p)
{
	if (p->thread == SIM_THREADS_MAX)
		printf("    at the start");
	else
		printf("    before operation %u of thread %u", p->point, p->thread);
	if (p->chosen < SIM_BUFFERS)
		printf(": thread %u\n", p->chosen);
	else if (p->chosen < SIM_CLOCK)
		printf(": a store of thread %u is seen\n", p->chosen - SIM_BUFFERS);
	else
		printf(": a deadline passes\n");
}

static void print_list(
	const struct sim_scenario *scenario, const struct sim_failure *failure, struct list *list)
{
	printf("  it also fails with %u preemptions, stores being seen %s otherwise:\n",
		list->count, list->eager ? "at once" : "late");
	for (unsigned i = 0; i < list->count; i++)
		print_preemption(&list->preemptions[i]);
	(void)fails_alike(scenario, failure, list, true);
	sim_trace_print();
}

/* Runs a plan; if it fails alike, its shrunk lists compete with `best`. */
static void try_plan(const struct sim_scenario *scenario, const struct sim_failure *failure,
	const struct sim_plan *plan, struct list *best)
{
	struct sim_outcome outcome;

	sim_schedule(scenario, plan, &recording, false, &outcome);
	shrink_steps += outcome.steps;
	if (!outcome.failed || !messages_are_alike(outcome.message, failure->message))
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct list list = {recording.preemptions[i], outcome.preemption_count[i], i};

		if (!shrink(scenario, failure, &list) || list.count >= best->count)
			continue;
		memcpy(best->preemptions, list.preemptions,
			list.count * sizeof(best->preemptions[0]));
		best->count = list.count;
		best->eager = list.eager;
	}
}

/* Schedules with few preemptions to begin with may fail alike. */
static void try_simpler(const struct sim_scenario *scenario, const struct sim_failure *failure,
	uint32_t length, struct list *best)
{
	struct sim_plan plan;

	for (unsigned i = 0; i < SIMPLER_PLANS && may_go_on(0) && best->count > SIMPLE_ENOUGH;
		i++) {
		sim_plan_make(&plan, failure->seed + i, length);
		plan.seed = failure->seed; /* what the threads do stays */
		if (plan.strategy == SIM_PCT && plan.change_count <= 4)
			try_plan(scenario, failure, &plan, best);
	}
}

int sim_report(const struct sim_scenario *scenario, const struct sim_failure *failure, bool print)
{
	uint32_t length = length_of(scenario);
	struct list best = {shortest, SIM_PREEMPTIONS_MAX, false};
	struct sim_outcome outcome;
	struct sim_plan plan;

	shrink_steps = 0;
	sim_plan_make(&plan, failure->seed, length);
	sim_schedule(scenario, &plan, &recording, true, &outcome);
	if (!outcome.failed || outcome.hash != failure->hash ||
		strcmp(outcome.message, failure->message) != 0)
		return -1;
	if (print)
		printf("  %s\n  seed %llu (%s), %u operations, hash %016llx\n", failure->message,
			(unsigned long long)failure->seed, sim_strategy_text(failure->seed),
			outcome.steps, (unsigned long long)outcome.hash);
	try_plan(scenario, failure, &plan, &best);
	try_simpler(scenario, failure, length, &best);
	if (best.count == SIM_PREEMPTIONS_MAX) {
		if (print) {
			sim_schedule(scenario, &plan, NULL, true, &outcome);
			sim_trace_print();
		}
		return SIM_PREEMPTIONS_MAX;
	}
	if (print)
		print_list(scenario, failure, &best);
	return (int)best.count;
}
