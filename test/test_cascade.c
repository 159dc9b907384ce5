/*
 * The plain timer wheel that ours is measured beside. Goal: it is right, and is the wheel it is
 * said to be. Method: random operations beside an array of deadlines; and counted moves, which show
 * the long poll without a clock.
 */
#include "test/harness.h"

#include "perf/rivals/cascade/cascade.h"
#include "timer/wheel.h"

#include <inttypes.h>

#define TICK_NS ((int64_t)1 << WF_TICK_SHIFT)

enum { TIMERS = 300, OPERATIONS = 300000 / HARNESS_SLOWDOWN };

static struct cascade wheel;
static struct cascade_timer timers[TIMERS];
static bool pending[TIMERS];
static int64_t now;
static unsigned pending_count;
static uint64_t fired, seed;

static int64_t random_span(unsigned bits)
{
	return (int64_t)harness_random_below(
		&seed, (uint64_t)1 << harness_random_below(&seed, bits + 1));
}

static int64_t due_ns(int64_t deadline_ns)
{
	return (deadline_ns + TICK_NS - 1) / TICK_NS * TICK_NS;
}

static int64_t earliest(void)
{
	int64_t first = INT64_MAX;

	for (unsigned i = 0; i < TIMERS; i++)
		if (pending[i] && timers[i].deadline_ns < first)
			first = timers[i].deadline_ns;
	return first;
}

static void poll(unsigned step_bits)
{
	struct cascade_timer *timer;
	int64_t first;

	now += random_span(step_bits);
	cascade_advance(&wheel, now);
	while ((timer = cascade_pop_due(&wheel))) {
		cr_assert(pending[timer - timers]);
		cr_assert_leq(timer->deadline_ns, now, "early");
		pending[timer - timers] = false;
		pending_count--;
		fired++;
	}
	first = earliest();
	cr_assert_gt(first, now / TICK_NS * TICK_NS, "late");
	if (first < INT64_MAX)
		cr_assert_leq(cascade_next(&wheel), due_ns(first));
	cr_assert_gt(cascade_next(&wheel), now / TICK_NS * TICK_NS);
	cr_assert_eq(wheel.count, pending_count);
}

static void operate(unsigned span_bits)
{
	unsigned i = (unsigned)harness_random_below(&seed, TIMERS);
	int64_t deadline = now - 5000 + random_span(span_bits);

	if (harness_random_below(&seed, 4) == 0) {
		cascade_move(&wheel, &timers[i], deadline);
		pending_count += !pending[i];
		pending[i] = true;
		return;
	}
	cr_assert_eq(cascade_cancel(&wheel, &timers[i]), pending[i]);
	if (!pending[i])
		cascade_insert(&wheel, &timers[i], deadline);
	pending[i] = !pending[i];
	pending_count += pending[i] ? 1 : -1u;
}

Test(cascade, keeps_the_promise_of_a_wheel, .timeout = 120)
{
	static const unsigned span_bits[] = {20, 34, 49, 58};

	for (unsigned k = 0; k < WF_ARRAY_COUNT(span_bits); k++) {
		memset(timers, 0, sizeof timers);
		memset(pending, 0, sizeof pending);
		pending_count = 0;
		fired = 0;
		seed = harness_seed() + k;
		now = random_span(50);
		cascade_init(&wheel, now);
		for (unsigned i = 0; i < OPERATIONS && now < INT64_MAX / 4; i++) {
			operate(span_bits[k]);
			if (i % 4 == 0)
				poll(span_bits[k] - 6);
		}
		cr_assert_gt(fired, 0);
	}
}

/* What is compared: the same timers, the same polls, and the most moves in one of them. */
Test(cascade, moves_at_once_what_our_wheel_spreads_over_polls, .timeout = 120)
{
	static struct wf_wheel ours;
	unsigned count = 100000 / HARNESS_SLOWDOWN, polls = count * 6 / 10;
	struct cascade_timer *plain = calloc(count, sizeof *plain);
	struct wf_timer *nodes = calloc(count, sizeof *nodes);
	uint64_t random = harness_seed(), plain_most = 0, our_most = 0;
	int64_t gap = 50000 > TICK_NS ? 50000 : TICK_NS;

	cr_assert(plain && nodes);
	cascade_init(&wheel, 0);
	wf_wheel_init(&ours, 0);
	for (unsigned i = 0; i < count; i++) {
		int64_t deadline =
			1 + (int64_t)harness_random_below(&random, polls * (uint64_t)gap);

		cascade_insert(&wheel, &plain[i], deadline);
		wf_wheel_insert(&ours, &nodes[i], deadline);
	}
	for (unsigned i = 1; i <= polls + 1; i++) {
		uint64_t plain_before = wheel.moves, our_before = ours.moves_paced;

		cascade_advance(&wheel, i * gap);
		wf_wheel_advance(&ours, i * gap);
		while (cascade_pop_due(&wheel))
			;
		while (wf_wheel_pop_due(&ours))
			;
		if (wheel.moves - plain_before > plain_most)
			plain_most = wheel.moves - plain_before;
		if (ours.moves_paced - our_before > our_most)
			our_most = ours.moves_paced - our_before;
	}
	cr_assert_eq(wheel.count, 0);
	cr_assert_eq(wf_wheel_count(&ours), 0);
	cr_assert_eq(ours.moves_forced, 0);
	cr_assert_leq(our_most, 24);
	cr_assert_gt(plain_most, count / 50, "%" PRIu64 " moves", plain_most);
	free(plain);
	free(nodes);
}
