/*
 * Goal: the wheel is a sorted list of deadlines, whatever is done to it and in whatever order.
 * Method: ten million random operations on the wheel and on the sorted list, a heap, side by side:
 * insert, cancel, move (later, earlier, into the past), time by a tick, by years or back, pops with
 * and without a budget, next. After each the two must agree: what is pending, what a cancel says,
 * that nothing fires early, nothing whose tick has come is left, next() is not after the first
 * deadline; and in which order timers fire, as far as wheel.h promises one.
 */
#include "test/harness.h"

#include "timer/wheel.h"

#include <inttypes.h>

#define TICK_NS WF_WHEEL_TICK_NS
#define YEAR    ((int64_t)365 * 86400 * 1000000000)

enum {
	OPERATIONS = 10000000 / HARNESS_SLOWDOWN,
	TIMERS_MAX = 4096,
	VALID_INTERVAL = 4999, /* operations between two looks at the whole wheel */
};

struct config {
	const char *name;
	unsigned timers;    /* in play at once */
	unsigned span_bits; /* deadlines up to 2^bits ns ahead, over all orders of magnitude */
	unsigned step_bits; /* and so the steps of time */
	/* Per cent of the operations; the rest inserts what is not pending and cancels what is. */
	unsigned move, advance, pop;
	unsigned pops_max; /* per advance; 0: all that are due */
	bool by_next;      /* time stops at wf_wheel_next(), if that is nearer */
};

static const struct config configs[] = {
	{"near", 64, 20, 14, 0, 25, 0, 0, false},
	{"near, moved", 64, 20, 14, 40, 25, 0, 0, false},
	{"crowded", 4000, 22, 15, 30, 5, 0, 0, false},
	{"seconds", 300, 34, 27, 20, 20, 0, 0, false},
	{"seconds, crowded", 4000, 34, 27, 30, 5, 0, 0, false},
	{"seconds, by next", 300, 34, 34, 20, 20, 0, 0, true},
	{"days", 200, 49, 44, 20, 20, 0, 0, false},
	{"days, by next", 100, 49, 49, 20, 20, 0, 0, true},
	{"decades", 100, 59, 56, 20, 15, 0, 0, false},
	{"decades, by next", 100, 59, 57, 5, 15, 0, 0, true},
	{"few pops", 400, 30, 22, 20, 10, 10, 3, false},
	{"few pops, by next", 400, 40, 36, 20, 10, 10, 1, true},
};

/* A timer as it should be. */
struct entry {
	int64_t deadline;
	uint64_t number;   /* of its insertion */
	uint64_t due_tick; /* at which it joins the due list, unless it was moved later since */
	unsigned level;    /* it was inserted into; DUE: past already */
	unsigned place;    /* in the heap, from 1; 0: not pending */
	bool ordered;      /* nothing has happened to it that leaves its place in the order open */
};

enum { DUE = WF_WHEEL_LEVELS, LEVELS };

static struct wf_wheel wheel;

static struct model {
	const struct config *config;
	uint64_t seed, random;
	int64_t now;
	struct wf_timer timers[TIMERS_MAX];
	struct entry entries[TIMERS_MAX];
	unsigned heap[TIMERS_MAX + 1]; /* by deadline, from 1 */
	unsigned pending;
	uint64_t inserted, fired, operations;
	uint64_t last_tick;           /* of what fired in order */
	uint64_t last_number[LEVELS]; /* of that tick */
} model;

/* --- the sorted list --- */

static void heap_put(unsigned place, unsigned timer)
{
	model.heap[place] = timer;
	model.entries[timer].place = place;
}

static int64_t heap_deadline(unsigned place)
{
	return model.entries[model.heap[place]].deadline;
}

/* The timer at `place` is put where it belongs. */
static void heap_settle(unsigned place)
{
	unsigned timer = model.heap[place];
	int64_t deadline = model.entries[timer].deadline;

	while (place > 1 && heap_deadline(place / 2) > deadline) {
		heap_put(place, model.heap[place / 2]);
		place /= 2;
	}
	for (unsigned child; (child = 2 * place) <= model.pending; place = child) {
		if (child < model.pending && heap_deadline(child + 1) < heap_deadline(child))
			child++;
		if (heap_deadline(child) >= deadline)
			break;
		heap_put(place, model.heap[child]);
	}
	heap_put(place, timer);
}

static void heap_add(unsigned timer)
{
	model.heap[++model.pending] = timer;
	heap_settle(model.pending);
}

static void heap_remove(unsigned timer)
{
	unsigned place = model.entries[timer].place, last = model.heap[model.pending--];

	model.entries[timer].place = 0;
	if (last == timer)
		return;
	model.heap[place] = last;
	heap_settle(place);
}

static int64_t earliest(void)
{
	return model.pending > 0 ? heap_deadline(1) : INT64_MAX;
}

/* --- random numbers --- */

static uint64_t below(uint64_t bound)
{
	return harness_random_below(&model.random, bound);
}

static int64_t random_span(unsigned bits)
{
	return (int64_t)below((uint64_t)1 << below(bits + 1));
}

/* Mostly ahead; sometimes now, past, never, or the same as another's. */
static int64_t random_deadline(void)
{
	unsigned kind = (unsigned)below(64);

	if (kind == 0)
		return INT64_MAX;
	if (kind == 1)
		return model.now - random_span(model.config->span_bits);
	if (kind == 2)
		return model.now;
	if (kind < 12) {
		int64_t other = model.entries[below(model.config->timers)].deadline;

		return other == INT64_MAX ? model.now : other;
	}
	return model.now + random_span(model.config->span_bits);
}

/* --- operations --- */

#define AT \
	"%s, seed %" PRIu64 ", operation %" PRIu64, model.config->name, model.seed, model.operations

static uint64_t tick_of(int64_t deadline)
{
	return (uint64_t)(deadline / TICK_NS + (deadline % TICK_NS > 0));
}

/* Before the wheel does it: what is filed for a tick at the same level fires in turn. */
static void note_insert(unsigned i, int64_t deadline)
{
	struct entry *entry = &model.entries[i];

	entry->deadline = deadline;
	entry->number = ++model.inserted;
	entry->ordered = true;
	entry->level = DUE;
	entry->due_tick = wheel.tick;
	if (deadline > model.now) {
		uint64_t tick = tick_of(deadline), now = wheel.tick;

		entry->due_tick = tick;
		for (entry->level = 0; entry->level < WF_WHEEL_LEVELS; entry->level++) {
			unsigned shift = 6 * entry->level;

			if ((tick >> shift) - (now >> shift) < 128)
				break;
		}
		/* Filed at the range's end first. It is in order, but not in turn. */
		entry->ordered = tick - now < WF_WHEEL_RANGE_TICKS;
	}
	heap_add(i);
}

static void do_insert_or_cancel(unsigned i)
{
	struct wf_timer *timer = &model.timers[i];
	bool pending = model.entries[i].place != 0;

	cr_assert_eq(wf_wheel_cancel(&wheel, timer), pending, AT);
	if (pending) {
		heap_remove(i);
	} else {
		int64_t deadline = random_deadline();

		note_insert(i, deadline);
		wf_wheel_insert(&wheel, timer, deadline);
	}
	cr_assert_eq(wf_timer_is_pending(timer), !pending, AT);
}

static void do_move(unsigned i)
{
	struct entry *entry = &model.entries[i];
	int64_t deadline = random_deadline();

	if (entry->place != 0 && deadline >= entry->deadline) {
		entry->ordered &= deadline == entry->deadline;
		entry->deadline = deadline;
		heap_settle(entry->place);
	} else {
		if (entry->place != 0)
			heap_remove(i);
		note_insert(i, deadline);
	}
	wf_wheel_move(&wheel, &model.timers[i], deadline);
	cr_assert(wf_timer_is_pending(&model.timers[i]), AT);
}

/* In the order of ticks; within one, in the order of insertion into the same slot. */
static void check_order(const struct entry *entry)
{
	if (!entry->ordered)
		return;
	cr_assert_geq(entry->due_tick, model.last_tick, AT);
	if (entry->due_tick > model.last_tick) {
		model.last_tick = entry->due_tick;
		memset(model.last_number, 0, sizeof model.last_number);
	}
	cr_assert_gt(entry->number, model.last_number[entry->level], AT);
	model.last_number[entry->level] = entry->number;
}

static bool do_pop(void)
{
	struct wf_timer *timer = wf_wheel_pop_due(&wheel);
	size_t i = (size_t)(timer - model.timers);

	if (!timer)
		return false;
	cr_assert_lt(i, model.config->timers, AT);
	cr_assert_neq(model.entries[i].place, 0, AT);
	cr_assert_leq(model.entries[i].deadline, model.now, "early: " AT);
	cr_assert_eq(timer->deadline_ns, model.entries[i].deadline, AT);
	cr_assert(!wf_timer_is_pending(timer), AT);
	check_order(&model.entries[i]);
	heap_remove((unsigned)i);
	model.fired++;
	return true;
}

/* It may be early, never late: a deadline ahead is due at its tick, which may be after it. */
static void check_next(void)
{
	int64_t first = earliest(), next = wf_wheel_next(&wheel);

	cr_assert_geq(next, model.now, AT);
	if (first >= WF_WHEEL_END_NS)
		return;
	first = first > 0 ? (int64_t)tick_of(first) * TICK_NS : 0;
	cr_assert_leq(next, first > model.now ? first : model.now, AT);
}

static void do_advance(void)
{
	const struct config *config = model.config;
	int64_t step = random_span(config->step_bits), next = wf_wheel_next(&wheel);
	unsigned pops = 0, calls = 0;

	if (config->by_next && next > model.now && next - model.now < step)
		step = next - model.now;
	if (below(64) == 0)
		wf_wheel_advance(&wheel, model.now - random_span(50)); /* no effect */
	model.now += step;
	do {
		uint64_t before = wheel.moves_paced + wheel.moves_forced;

		wf_wheel_advance(&wheel, model.now);
		cr_assert_leq(
			wheel.moves_paced + wheel.moves_forced - before, WF_WHEEL_MOVES_FORCED, AT);
		while ((config->pops_max == 0 || pops < config->pops_max) && do_pop())
			pops++;
		/* A timer beyond the range is filed anew each time around: at most 300 times. */
		cr_assert_lt(calls++, 1000 + config->timers, AT);
	} while ((config->pops_max == 0 || pops < config->pops_max) &&
		 wf_wheel_next(&wheel) <= model.now);
	/* Nothing whose tick has come is left: late by a tick and the gap between polls at most. */
	if (config->pops_max == 0)
		cr_assert_gt(earliest(), model.now / TICK_NS * TICK_NS, "late: " AT);
	check_next();
}

static void operate(void)
{
	const struct config *config = model.config;
	unsigned i = (unsigned)below(config->timers), kind = (unsigned)below(100);

	if (kind < config->move)
		do_move(i);
	else if (kind < config->move + config->advance)
		do_advance();
	else if (kind < config->move + config->advance + config->pop)
		(void)do_pop();
	else
		do_insert_or_cancel(i);
	if (kind % 8 == 0)
		check_next();
	cr_assert_eq(wf_wheel_count(&wheel), model.pending, AT);
	if (++model.operations % VALID_INTERVAL == 0)
		cr_assert(wf_wheel_valid(&wheel, stderr), AT);
}

/* Until `operations` are done, or time is over. Returns how many were done. */
static uint64_t run(const struct config *config, uint64_t operations, uint64_t seed)
{
	memset(&model, 0, sizeof model);
	model.config = config;
	model.seed = model.random = seed;
	model.now = random_span(50);
	wf_wheel_init(&wheel, model.now);
	while (model.operations < operations && model.now < 100 * YEAR)
		operate();
	cr_assert(wf_wheel_valid(&wheel, stderr), AT);
	return model.operations;
}

Test(wheel_model, behaves_like_a_sorted_list, .timeout = 240)
{
	uint64_t each = OPERATIONS / WF_ARRAY_COUNT(configs) + 1;

	for (size_t i = 0; i < WF_ARRAY_COUNT(configs); i++) {
		uint64_t seed = harness_seed() + i, fired = 0;

		/* Where time is soon over, there is another life with another seed. */
		for (uint64_t done = 0; done < each; seed += 1000) {
			done += run(&configs[i], each - done, seed);
			fired += model.fired;
		}
		cr_assert_gt(fired, each / 100, "%s", configs[i].name);
	}
}
