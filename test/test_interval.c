/*
 * Goal: what <weft/interval.h> promises: the ticks of each policy, for a consumer that is in time
 * and for one that is late (T10), in processes and with times of somebody else's clock.
 * Method: first by weft_interval_take(), exactly, with a reference that counts the grid; then in a
 * test runtime, whose time stands while processes run: at a unit that is a whole number of timer
 * ticks, so that times are exact there too; then on the kernel's clock, where a consumer makes
 * itself late, and what it sees must fit the times around its calls.
 */
#include <errno.h>

#include <weft/test.h>

#include "test/runtime.h"

#define POLICIES (WEFT_MISSED_SKIP + 1)

/* Half a period; its half too is a whole number of timer ticks, whatever --tick-shift is. */
#define HALF ((weft_time)1 << 21)

static struct weft_interval made(weft_time start, weft_time period_ns, enum weft_missed policy)
{
	struct weft_interval interval;

	cr_assert_eq(weft_interval_init(&interval, start, period_ns, policy), 0);
	return interval;
}

/* ---- Times that are told --------------------------------------------------------------------- */

/* The header's table, in half periods: the tick of 1 is taken at 4.5 periods, others in time. */
struct taken {
	weft_time at;
	uint64_t missed;
};

enum { TAKEN = 8 };

static const struct taken table[POLICIES][TAKEN] = {
	[WEFT_MISSED_BURST] =
		{{0, 0}, {9, 3}, {9, 2}, {9, 1}, {9, 0}, {10, 0}, {12, 0}, {14, 0}},
	[WEFT_MISSED_DELAY] =
		{{0, 0}, {9, 3}, {11, 0}, {13, 0}, {15, 0}, {17, 0}, {19, 0}, {21, 0}},
	[WEFT_MISSED_SKIP] =
		{{0, 0}, {9, 3}, {10, 0}, {12, 0}, {14, 0}, {16, 0}, {18, 0}, {20, 0}},
};

Test(interval, late_by_three_and_a_half_periods)
{
	for (unsigned policy = 0; policy < POLICIES; policy++) {
		struct weft_interval interval = made(-40, 20, (enum weft_missed)policy);
		weft_time now = -40;

		for (unsigned i = 0; i < TAKEN; i++) {
			const struct taken *expected = &table[policy][i];
			uint64_t missed = 77;

			if (i == 1)
				now = -40 + 90;
			else if (interval.next > now)
				now = interval.next;
			if (interval.next == now)
				cr_assert(!weft_interval_take(&interval, now - 1, &missed));
			cr_assert_eq(missed, 77, "written without a tick");
			cr_assert(weft_interval_take(&interval, now, &missed));
			cr_assert_eq(now, -40 + 10 * expected->at, "policy %u, tick %u", policy, i);
			cr_assert_eq(missed, expected->missed, "policy %u, tick %u", policy, i);
		}
	}
}

/* What the words of the header say, one tick of the grid after the other. */
static weft_time next_by_counting(
	enum weft_missed policy, weft_time due, weft_time now, weft_time period, uint64_t *missed)
{
	weft_time grid = due + period;

	*missed = 0;
	for (; grid <= now; grid += period)
		(*missed)++;
	if (policy == WEFT_MISSED_BURST)
		return due + period;
	return policy == WEFT_MISSED_DELAY ? now + period : grid;
}

Test(interval, takes_as_counted_on_the_grid)
{
	uint64_t seed = harness_seed(), state = seed;

	for (unsigned round = 0; round < 3000; round++) {
		enum weft_missed policy =
			(enum weft_missed)harness_random_below(&state, POLICIES);
		weft_time period = 1 + (weft_time)harness_random_below(&state, 50);
		weft_time now = (weft_time)harness_random_below(&state, 1000) - 500;
		struct weft_interval interval = made(now, period, policy);

		for (unsigned i = 0; i < 20; i++) {
			uint64_t missed = 0, expected_missed;
			weft_time expected;

			now += (weft_time)harness_random_below(&state, i % 4 ? 60 : 600);
			if (now < interval.next) {
				cr_assert(!weft_interval_take(&interval, now, NULL));
				continue;
			}
			expected = next_by_counting(
				policy, interval.next, now, period, &expected_missed);
			cr_assert(weft_interval_take(&interval, now, &missed));
			cr_assert_eq(interval.next, expected, "seed %lu", (unsigned long)seed);
			cr_assert_eq(missed, expected_missed, "seed %lu", (unsigned long)seed);
		}
	}
}

Test(interval, ends_with_time)
{
	for (unsigned policy = 0; policy < POLICIES; policy++) {
		enum weft_missed p = (enum weft_missed)policy;
		struct weft_interval interval = made(5, WEFT_FOREVER, p);
		uint64_t missed = 77;

		cr_assert(weft_interval_take(&interval, 5, &missed));
		cr_assert_eq(missed, 0);
		cr_assert_eq(interval.next, WEFT_FOREVER);
		cr_assert(!weft_interval_take(&interval, WEFT_FOREVER - 1, NULL));
		cr_assert(!weft_interval_take(&interval, WEFT_FOREVER, NULL), "never is never due");

		/* All of time between due and now. */
		interval = made(WEFT_POLL, 1, p);
		cr_assert(weft_interval_take(&interval, WEFT_FOREVER - 1, &missed));
		cr_assert_eq(missed, UINT64_MAX - 1);
		cr_assert_eq(interval.next,
			p == WEFT_MISSED_BURST ? WEFT_POLL + 1 : WEFT_FOREVER);

		interval = made(WEFT_POLL, WEFT_FOREVER, p);
		cr_assert(weft_interval_take(&interval, WEFT_POLL, NULL));
		cr_assert_eq(interval.next, -1);

		interval = made(WEFT_FOREVER, 1, p);
		cr_assert(!weft_interval_take(&interval, WEFT_FOREVER, NULL));
		weft_interval_reset(&interval, 3);
		cr_assert(weft_interval_take(&interval, 3, NULL));
		cr_assert_eq(interval.next, 4);
	}
}

Test(interval, refuses_what_is_none)
{
	struct weft_interval interval = made(1, 2, WEFT_MISSED_SKIP), none = {0};

	errno = 0;
	cr_assert_eq(weft_interval_init(&interval, 7, 0, WEFT_MISSED_BURST), -EINVAL);
	cr_assert_eq(weft_interval_init(&interval, 7, -1, WEFT_MISSED_BURST), -EINVAL);
	cr_assert_eq(weft_interval_init(&interval, 7, WEFT_POLL, WEFT_MISSED_BURST), -EINVAL);
	cr_assert_eq(weft_interval_init(&interval, 7, 8, (enum weft_missed)POLICIES), -EINVAL);
	cr_assert_eq(weft_interval_init(&interval, 7, 8, (enum weft_missed)-1), -EINVAL);
	cr_assert_eq(interval.next, 1);
	cr_assert_eq(interval.period_ns, 2);
	cr_assert_eq(interval.policy, WEFT_MISSED_SKIP);
	cr_assert(!weft_interval_take(&none, WEFT_FOREVER - 1, NULL));
	cr_assert_eq(weft_interval_next(&none, NULL, WEFT_FOREVER), -EINVAL);
	cr_assert_eq(weft_interval_next(&interval, NULL, WEFT_FOREVER), -EPERM, "no process");
	cr_assert_eq(interval.next, 1);
	cr_assert_eq(errno, 0);
}

/* ---- Virtual time ---------------------------------------------------------------------------- */

static weft_time aligned(weft_time time)
{
	return (time + 2 * HALF - 1) / (2 * HALF) * (2 * HALF);
}

struct consumer {
	enum weft_missed policy;
	unsigned step;
	weft_time start;
	struct weft_interval interval;
	unsigned polls;
};

/*
 * Takes all ticks of the table, the second late. As a fiber each call returns when it is done; as a
 * task this goes on where it was.
 */
static int consumes(void *arg)
{
	struct consumer *consumer = arg;

	if (consumer->polls++ == 0) {
		consumer->start = aligned(weft_now());
		consumer->interval =
			made(consumer->start, 2 * HALF, consumer->policy);
	}
	while (consumer->step < TAKEN) {
		const struct taken *expected = &table[consumer->policy][consumer->step];
		uint64_t missed = 77;
		int r = 0;

		if (consumer->step == 1)
			r = weft_sleep_until(consumer->start + 9 * HALF);
		if (r == 0)
			r = weft_interval_next(&consumer->interval, &missed, WEFT_FOREVER);
		if (r != 0) {
			cr_assert_eq(missed, 77, "written without a tick");
			return r;
		}
		cr_assert_eq(weft_now(), consumer->start + expected->at * HALF,
			"policy %d, tick %u", (int)consumer->policy, consumer->step);
		cr_assert_eq(missed, expected->missed, "policy %d, tick %u",
			(int)consumer->policy, consumer->step);
		consumer->step++;
	}
	return 1;
}

/* T10 */
static void consumed(bool task)
{
	for (unsigned policy = 0; policy < POLICIES; policy++) {
		struct consumer consumer = {.policy = (enum weft_missed)policy};
		weft_rt *rt = NULL;
		int result = 0;
		weft_pid pid;

		cr_assert_eq(weft_test_create(NULL, &rt), 0);
		if (task)
			cr_assert_eq(
				weft_rt_task_spawn(rt, consumes, &consumer, NULL, &pid), 0);
		else
			cr_assert_eq(weft_rt_spawn(rt, consumes, &consumer, NULL, &pid), 0);
		cr_assert_eq(weft_test_run(rt, WEFT_SEC(60)), 0);
		cr_assert_eq(weft_try_join(pid, &result), 0);
		cr_assert_eq(result, 1);
		cr_assert_eq(consumer.step, TAKEN);
		if (task)
			cr_assert_gt(consumer.polls, 3, "it has waited");
		runtime_end(rt);
	}
}

Test(interval, late_by_three_and_a_half_periods_in_a_fiber, .timeout = 120)
{
	consumed(false);
}

Test(interval, late_by_three_and_a_half_periods_in_a_task, .timeout = 120)
{
	consumed(true);
}

static int waits_within_deadlines(void *arg)
{
	weft_time start = aligned(weft_now() + HALF);
	struct weft_interval interval = made(start, 2 * HALF, WEFT_MISSED_SKIP);
	uint64_t missed = 77;

	(void)arg;
	cr_assert_eq(weft_sleep_until(start - HALF), 0);
	cr_assert_eq(weft_interval_next(&interval, &missed, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_interval_next(&interval, &missed, 0), -ETIME);
	cr_assert_eq(weft_now(), start - HALF);
	cr_assert_eq(weft_interval_next(&interval, &missed, start - HALF / 2), -ETIME);
	cr_assert_eq(weft_now(), start - HALF / 2);
	cr_assert_eq(missed, 77, "written without a tick");
	cr_assert_eq(interval.next, start, "nothing was taken");

	/* A tick beats its deadline, be it the same, or past. */
	cr_assert_eq(weft_interval_next(&interval, &missed, start), 0);
	cr_assert_eq(weft_now(), start);
	cr_assert_eq(missed, 0);
	cr_assert_eq(weft_sleep_until(start + 2 * HALF), 0);
	cr_assert_eq(weft_interval_next(&interval, NULL, WEFT_POLL), 0);
	cr_assert_eq(weft_sleep_until(start + 4 * HALF), 0);
	cr_assert_eq(weft_interval_next(&interval, NULL, 0), 0);
	cr_assert_eq(weft_interval_next(&interval, NULL, 0), -ETIME);

	weft_interval_reset(&interval, start + 5 * HALF);
	cr_assert_eq(weft_interval_next(&interval, NULL, WEFT_FOREVER), 0);
	cr_assert_eq(weft_now(), start + 5 * HALF);
	cr_assert_eq(weft_interval_next(&interval, NULL, WEFT_FOREVER), 0);
	cr_assert_eq(weft_now(), start + 7 * HALF);
	return 1;
}

Test(interval, a_tick_beats_its_deadline, .timeout = 120)
{
	weft_rt *rt = NULL;
	weft_pid pid;
	int result = 0;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	cr_assert_eq(weft_rt_spawn(rt, waits_within_deadlines, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(60)), 0);
	cr_assert_eq(weft_try_join(pid, &result), 0);
	cr_assert_eq(result, 1);
	runtime_end(rt);
}

static int waits_for_ever(void *arg)
{
	struct weft_interval *interval = arg;
	int r = weft_interval_next(interval, NULL, WEFT_FOREVER);

	if (r != -ECANCELED)
		return r;
	/* Level-triggered, and before a tick that is due. */
	weft_interval_reset(interval, weft_now());
	return weft_interval_next(interval, NULL, WEFT_FOREVER);
}

Test(interval, is_cancelled_and_takes_none, .timeout = 120)
{
	for (unsigned task = 0; task < 2; task++) {
		struct weft_interval interval = made(WEFT_FOREVER, 1, WEFT_MISSED_BURST);
		weft_rt *rt = NULL;
		int result = 0;
		weft_pid pid;

		cr_assert_eq(weft_test_create(NULL, &rt), 0);
		if (task)
			cr_assert_eq(weft_rt_task_spawn(
					     rt, waits_for_ever, &interval, NULL, &pid), 0);
		else
			cr_assert_eq(weft_rt_spawn(rt, waits_for_ever, &interval, NULL, &pid), 0);
		cr_assert_eq(weft_test_run_until_idle(rt), 1);
		cr_assert_eq(weft_cancel(pid), 0);
		cr_assert_eq(weft_test_run(rt, 0), 0);
		cr_assert_eq(weft_try_join(pid, &result), 0);
		cr_assert_eq(result, -ECANCELED);
		cr_assert_eq(interval.next, weft_test_now(rt), "the tick that was due is there");
		runtime_end(rt);
	}
}

static int counts_others(void *arg)
{
	++*(int *)arg;
	return 0;
}

/* Ticks that are all due: each is progress, and takes its part of the process's share. */
static int takes_a_burst(void *arg)
{
	struct weft_interval interval =
		made(weft_now() - 1000, 1, WEFT_MISSED_BURST);
	int ran = 0;
	weft_pid pid = spawned(counts_others, &ran);

	(void)arg;
	for (unsigned i = 0; i <= 1000; i++)
		cr_assert_eq(weft_interval_next(&interval, NULL, WEFT_POLL), 0);
	cr_assert_eq(ran, 1, "a burst has held the worker");
	return joined(pid);
}

Test(interval, a_burst_leaves_room_for_others, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, takes_a_burst, NULL), 0);
}

/* ---- The kernel's clock ---------------------------------------------------------------------- */

/*
 * What must hold of a tick that was due at `due`, on a grid that began at `start`, and was taken
 * between `before` and `after`.
 */
static void check_taken(const struct weft_interval *interval, weft_time start, weft_time due,
	weft_time before, weft_time after, uint64_t missed)
{
	weft_time period = interval->period_ns;

	cr_assert_geq(after, due, "early");
	cr_assert_geq(missed, before < due ? 0 : (uint64_t)((before - due) / period));
	cr_assert_leq(missed, (uint64_t)((after - due) / period));
	switch (interval->policy) {
	case WEFT_MISSED_BURST:
		cr_assert_eq(interval->next, due + period);
		break;
	case WEFT_MISSED_DELAY:
		cr_assert_geq(interval->next, (before > due ? before : due) + period);
		cr_assert_leq(interval->next, after + period);
		break;
	case WEFT_MISSED_SKIP:
		cr_assert_eq((interval->next - start) % period, 0);
		cr_assert_eq(interval->next, due + period * (weft_time)(missed + 1));
		break;
	}
}

static int consumes_in_real_time(void *arg)
{
	weft_time period = WEFT_US(200), start = weft_after(period);

	for (unsigned i = 0; i < 20; i++) {
		struct weft_interval interval = made(start, period, *(enum weft_missed *)arg);

		for (unsigned tick = 0; tick < 8; tick++) {
			weft_time due = interval.next, before;
			uint64_t missed = 0;

			if (tick == 1)
				(void)weft_sleep_until(due + 3 * period + period / 2);
			before = weft_now();
			cr_assert_eq(weft_interval_next(&interval, &missed, WEFT_FOREVER), 0);
			check_taken(&interval, start, due, before, weft_now(), missed);
			if (tick == 1)
				cr_assert_geq(missed, 3);
		}
		start = weft_now() + period;
	}
	return 1;
}

Test(interval, keeps_its_policy_on_the_kernels_clock, .timeout = 120)
{
	for (unsigned policy = 0; policy < POLICIES; policy++) {
		enum weft_missed p = (enum weft_missed)policy;

		cr_assert_eq(in_runtime(2, consumes_in_real_time, &p), 1);
	}
}
