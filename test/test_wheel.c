/*
 * Goal: the wheel is a sorted list of deadlines that nobody can tell from one, except that it fires
 * up to one tick late, and that no single poll is long. Method: time is an argument, so every test
 * makes its own, and the length of a poll is counted in timers moved, never in microseconds. Long
 * random runs are in test_wheel_model.c.
 */
#include "test/harness.h"

#include "timer/wheel.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK_NS WF_WHEEL_TICK_NS
#define US(n)   ((int64_t)(n)*1000)
#define MS(n)   ((int64_t)(n)*1000000)
#define SEC(n)  ((int64_t)(n)*1000000000)
#define DAY     SEC(86400)
#define YEAR    (365 * DAY)

static struct wf_wheel wheel;

/* The first time at which a deadline's tick has come. */
static int64_t due_ns(int64_t deadline_ns)
{
	return (deadline_ns + TICK_NS - 1) / TICK_NS * TICK_NS;
}

static uint64_t moves(void)
{
	return wheel.moves_paced + wheel.moves_forced;
}

static void check_valid(void)
{
	cr_assert(wf_wheel_valid(&wheel, stderr));
}

/*
 * Advances until the wheel has nothing left to do at now_ns but pop. A call is bounded, so it may
 * take several; how many is bounded by `calls_max`.
 */
static void settle(int64_t now_ns, unsigned calls_max)
{
	unsigned calls = 0;

	do {
		uint64_t before = moves();

		cr_assert_lt(calls++, calls_max, "at %" PRId64 " ns", now_ns);
		wf_wheel_advance(&wheel, now_ns);
		cr_assert_leq(moves() - before, WF_WHEEL_MOVES_FORCED);
	} while (wheel.lists[WF_WHEEL_DUE].count == 0 && wf_wheel_next(&wheel) <= now_ns);
}

/* --- the states of a timer --- */

Test(wheel, zero_timer_is_not_pending)
{
	struct wf_timer timer = {0};

	wf_wheel_init(&wheel, 0);
	cr_assert(!wf_timer_is_pending(&timer));
	cr_assert(!wf_wheel_cancel(&wheel, &timer));
	cr_assert_eq(wf_wheel_count(&wheel), 0);
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	check_valid();
}

Test(wheel, insert_does_not_read_old_memory)
{
	struct wf_timer timer;

	memset(&timer, 0xa5, sizeof timer);
	wf_wheel_init(&wheel, SEC(5));
	wf_wheel_insert(&wheel, &timer, SEC(6));
	cr_assert(wf_timer_is_pending(&timer));
	cr_assert_eq(timer.user_word, 0xa5a5a5a5a5a5a5a5, "the user's word is left alone");
	check_valid();
	cr_assert(wf_wheel_cancel(&wheel, &timer));
	cr_assert(!wf_timer_is_pending(&timer));
	cr_assert(!wf_wheel_cancel(&wheel, &timer), "once");
	check_valid();
}

Test(wheel, count_is_of_pending_timers)
{
	struct wf_timer timers[4] = {0};

	wf_wheel_init(&wheel, SEC(1));
	wf_wheel_insert(&wheel, &timers[0], 0);
	wf_wheel_insert(&wheel, &timers[1], SEC(2));
	wf_wheel_insert(&wheel, &timers[2], SEC(200));
	wf_wheel_insert(&wheel, &timers[3], INT64_MAX);
	cr_assert_eq(wf_wheel_count(&wheel), 4);
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[0]);
	cr_assert_eq(wf_wheel_count(&wheel), 3);
	wf_wheel_move(&wheel, &timers[1], SEC(3));
	wf_wheel_move(&wheel, &timers[2], SEC(3));
	cr_assert_eq(wf_wheel_count(&wheel), 3);
	wf_wheel_cancel(&wheel, &timers[1]);
	wf_wheel_cancel(&wheel, &timers[3]);
	cr_assert_eq(wf_wheel_count(&wheel), 1);
	check_valid();
}

/* --- when a deadline is due --- */

Test(wheel, past_and_present_are_due_at_once)
{
	static const int64_t deadlines_ns[] = {0, 1, -1, INT64_MIN, SEC(7) - TICK_NS, SEC(7)};
	struct wf_timer timers[WF_ARRAY_COUNT(deadlines_ns)] = {0};

	wf_wheel_init(&wheel, SEC(7));
	for (size_t i = 0; i < WF_ARRAY_COUNT(timers); i++)
		wf_wheel_insert(&wheel, &timers[i], deadlines_ns[i]);
	cr_assert_eq(wf_wheel_next(&wheel), SEC(7));
	check_valid();
	for (size_t i = 0; i < WF_ARRAY_COUNT(timers); i++)
		cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[i], "number %zu", i);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX);
}

Test(wheel, less_than_a_tick_is_not_early)
{
	int64_t now = 1000 * TICK_NS;

	for (int64_t ahead = 1; ahead <= 2 * TICK_NS; ahead += TICK_NS / 64) {
		struct wf_timer timer = {0};

		wf_wheel_init(&wheel, now);
		wf_wheel_insert(&wheel, &timer, now + ahead);
		wf_wheel_advance(&wheel, now + ahead - 1);
		cr_assert_null(wf_wheel_pop_due(&wheel), "%" PRId64 " ns ahead", ahead);
		wf_wheel_advance(&wheel, now + ahead + TICK_NS - 1);
		cr_assert_eq(wf_wheel_pop_due(&wheel), &timer, "%" PRId64 " ns ahead", ahead);
	}
}

/* How often a timer is filed anew on its way because it is out of the wheel's range. */
static unsigned refiles(int64_t now, int64_t deadline)
{
	return (unsigned)((uint64_t)(due_ns(deadline) / TICK_NS - now / TICK_NS) /
			  (WF_WHEEL_RANGE_TICKS - 1));
}

/* One timer from `now`, in one jump: `next` is exact, a nanosecond before is too early. */
static void check_one(int64_t now, int64_t deadline)
{
	struct wf_timer timer = {0};
	unsigned anew = refiles(now, deadline), calls = 3 + anew / WF_WHEEL_MOVES_FORCED;

	wf_wheel_init(&wheel, now);
	wf_wheel_insert(&wheel, &timer, deadline);
	check_valid();
	if (anew == 0)
		cr_assert_eq(wf_wheel_next(&wheel), due_ns(deadline), "from %" PRId64, now);
	else
		cr_assert_leq(wf_wheel_next(&wheel), due_ns(deadline), "from %" PRId64, now);
	settle(due_ns(deadline) - 1, calls);
	cr_assert_null(wf_wheel_pop_due(&wheel), "from %" PRId64 " to %" PRId64, now, deadline);
	check_valid();
	settle(due_ns(deadline), calls);
	cr_assert_eq(
		wf_wheel_pop_due(&wheel), &timer, "from %" PRId64 " to %" PRId64, now, deadline);
	check_valid();
}

/* The same, but sleeping for as long as `next` says: it must not take many looks. */
static void check_one_by_next(int64_t now, int64_t deadline)
{
	struct wf_timer timer = {0};
	unsigned looks = 2 + refiles(now, deadline) * 65 / 64;

	wf_wheel_init(&wheel, now);
	wf_wheel_insert(&wheel, &timer, deadline);
	for (;;) {
		int64_t next = wf_wheel_next(&wheel);

		cr_assert_geq(next, now);
		cr_assert_leq(next, due_ns(deadline));
		now = next;
		wf_wheel_advance(&wheel, now);
		if (wf_wheel_pop_due(&wheel))
			break;
		cr_assert_gt(looks--, 0, "deadline %" PRId64, deadline);
	}
	cr_assert_eq(now, due_ns(deadline));
	cr_assert_eq(wf_wheel_count(&wheel), 0);
}

Test(wheel, every_level_boundary_is_exact, .timeout = 120)
{
	static const int64_t starts_ns[] = {0, 12345, SEC(1), 63 * TICK_NS, 64 * TICK_NS - 1,
		127 * TICK_NS, 4095 * TICK_NS + 7, SEC(100000), SEC(12345678) + 901};
	static const int64_t slots[] = {1, 2, 63, 64, 65, 126, 127, 128, 129};

	for (size_t s = 0; s < WF_ARRAY_COUNT(starts_ns); s++) {
		int64_t width = TICK_NS;

		for (unsigned level = 0; level < WF_WHEEL_LEVELS; level++, width *= 64) {
			for (size_t i = 0; i < WF_ARRAY_COUNT(slots); i++) {
				int64_t at = starts_ns[s] + slots[i] * width;

				if (width > INT64_MAX / 256)
					break;
				for (int ticks = -2; ticks <= 2; ticks++) {
					int64_t deadline = at + ticks * TICK_NS;

					if (deadline <= starts_ns[s])
						continue;
					check_one(starts_ns[s], deadline);
					check_one(starts_ns[s], deadline - 1);
					check_one_by_next(starts_ns[s], deadline + 1);
				}
			}
			if (width > INT64_MAX / 256)
				break;
		}
	}
}

Test(wheel, years_are_exact)
{
	static const int64_t spans_ns[] = {YEAR, 2 * YEAR, 5 * YEAR, 10 * YEAR, 140 * YEAR};

	for (size_t i = 0; i < WF_ARRAY_COUNT(spans_ns); i++) {
		check_one(SEC(3) + 17, SEC(3) + 17 + spans_ns[i]);
		check_one_by_next(SEC(3) + 17, SEC(3) + 17 + spans_ns[i]);
	}
}

#if WF_WHEEL_LEVELS >= 8
Test(wheel, two_years_are_in_range)
{
	struct wf_timer timer = {0};

	wf_wheel_init(&wheel, 1);
	wf_wheel_insert(&wheel, &timer, 2 * YEAR);
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(2 * YEAR), "not filed anew on the way");
}
#endif

Test(wheel, forever_is_never_due)
{
	struct wf_timer forever = {0}, almost = {0}, late = {0};

	wf_wheel_init(&wheel, 99);
	wf_wheel_insert(&wheel, &forever, INT64_MAX);
	wf_wheel_insert(&wheel, &almost, INT64_MAX - 1);
	wf_wheel_insert(&wheel, &late, 150 * YEAR);
	cr_assert(wf_timer_is_pending(&forever));
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX);
	wf_wheel_advance(&wheel, INT64_MAX);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX);
	check_valid();
	/* At the end of time too. */
	cr_assert(wf_wheel_cancel(&wheel, &forever));
	wf_wheel_insert(&wheel, &forever, INT64_MAX);
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	check_valid();
	cr_assert(wf_wheel_cancel(&wheel, &forever));
	cr_assert(wf_wheel_cancel(&wheel, &almost));
	cr_assert(wf_wheel_cancel(&wheel, &late));
	check_valid();
}

Test(wheel, forever_can_be_moved_nearer_and_back)
{
	struct wf_timer timer = {0};

	wf_wheel_init(&wheel, 0);
	wf_wheel_insert(&wheel, &timer, INT64_MAX);
	wf_wheel_move(&wheel, &timer, SEC(2));
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(2)));
	wf_wheel_move(&wheel, &timer, INT64_MAX);
	settle(SEC(3), 3);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX, "it was filed anew, as never");
	cr_assert(wf_timer_is_pending(&timer));
	check_valid();
}

Test(wheel, clock_going_back_is_clamped)
{
	struct wf_timer timers[2] = {0};

	wf_wheel_init(&wheel, SEC(10));
	wf_wheel_insert(&wheel, &timers[0], SEC(20));
	wf_wheel_advance(&wheel, SEC(15));
	wf_wheel_advance(&wheel, SEC(12));
	wf_wheel_advance(&wheel, -5);
	check_valid();
	wf_wheel_insert(&wheel, &timers[1], SEC(13));
	cr_assert_eq(wf_wheel_next(&wheel), SEC(15));
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[1], "the past of the latest time");
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(20)));
}

/* --- moving a deadline --- */

Test(wheel, later_is_lazy_and_exact)
{
	struct wf_timer timer = {0};
	int64_t now = SEC(1), deadline;

	/* An idle timeout: pushed back all the time, due only after the last push. */
	wf_wheel_init(&wheel, now);
	wf_wheel_insert(&wheel, &timer, now + SEC(1));
	for (deadline = now + SEC(1); now < SEC(100); now += MS(10)) {
		uint64_t filed = timer.filed;

		deadline = now + SEC(1);
		wf_wheel_move(&wheel, &timer, deadline);
		cr_assert_eq(timer.filed, filed, "one store, nothing is filed anew");
		cr_assert_eq(timer.deadline_ns, deadline);
		wf_wheel_advance(&wheel, now);
		cr_assert_null(wf_wheel_pop_due(&wheel), "at %" PRId64 " ns", now);
		cr_assert_leq(wf_wheel_next(&wheel), due_ns(deadline));
	}
	check_valid();
	settle(due_ns(deadline) - 1, 3);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	settle(due_ns(deadline), 3);
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timer);
	check_valid();
}

Test(wheel, earlier_fires_earlier)
{
	struct wf_timer timer = {0};

	wf_wheel_init(&wheel, SEC(1));
	wf_wheel_insert(&wheel, &timer, SEC(50));
	wf_wheel_move(&wheel, &timer, SEC(70));
	wf_wheel_move(&wheel, &timer, SEC(60));
	wf_wheel_move(&wheel, &timer, SEC(2));
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(2)), "the sleep is shortened");
	check_valid();
	settle(due_ns(SEC(2)) - 1, 3);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	settle(due_ns(SEC(2)), 3);
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timer);
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX);
	check_valid();
}

Test(wheel, a_timer_can_move_into_the_past)
{
	struct wf_timer timers[2] = {0};

	wf_wheel_init(&wheel, SEC(1));
	wf_wheel_insert(&wheel, &timers[0], SEC(50));
	wf_wheel_insert(&wheel, &timers[1], SEC(1) + TICK_NS);
	wf_wheel_move(&wheel, &timers[0], SEC(1));
	wf_wheel_move(&wheel, &timers[1], 0);
	check_valid();
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[0]);
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[1]);
	cr_assert_null(wf_wheel_pop_due(&wheel));
}

Test(wheel, moving_a_fired_or_new_timer_inserts_it)
{
	struct wf_timer timer = {0};

	wf_wheel_init(&wheel, SEC(1));
	for (int64_t at = 2; at < 10; at++) {
		wf_wheel_move(&wheel, &timer, SEC(at));
		cr_assert(wf_timer_is_pending(&timer));
		cr_assert_eq(wf_wheel_count(&wheel), 1);
		settle(due_ns(SEC(at)) - 1, 3);
		cr_assert_null(wf_wheel_pop_due(&wheel));
		settle(due_ns(SEC(at)), 3);
		cr_assert_eq(wf_wheel_pop_due(&wheel), &timer);
		cr_assert(!wf_timer_is_pending(&timer));
	}
	check_valid();
}

Test(wheel, due_timers_can_still_be_moved_or_cancelled)
{
	struct wf_timer timers[4] = {0};

	wf_wheel_init(&wheel, SEC(1));
	for (int i = 0; i < 4; i++)
		wf_wheel_insert(&wheel, &timers[i], SEC(2));
	settle(due_ns(SEC(2)), 3);
	wf_wheel_move(&wheel, &timers[0], SEC(3));
	cr_assert(wf_wheel_cancel(&wheel, &timers[1]));
	wf_wheel_move(&wheel, &timers[2], SEC(1));
	check_valid();
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[3], "moved back: due after the others");
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[2]);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	cr_assert_eq(wf_wheel_count(&wheel), 1);
	settle(due_ns(SEC(3)) - 1, 3);
	cr_assert_null(wf_wheel_pop_due(&wheel));
	settle(due_ns(SEC(3)), 3);
	cr_assert_eq(wf_wheel_pop_due(&wheel), &timers[0]);
	check_valid();
}

Test(wheel, a_pop_files_a_bounded_number_anew)
{
	enum { COUNT = 5 * WF_WHEEL_REFILES };
	static struct wf_timer timers[COUNT + 1];
	unsigned empty = 0;

	wf_wheel_init(&wheel, SEC(1));
	for (unsigned i = 0; i <= COUNT; i++)
		wf_wheel_insert(&wheel, &timers[i], SEC(2));
	settle(due_ns(SEC(2)), 3);
	for (unsigned i = 0; i < COUNT; i++)
		wf_wheel_move(&wheel, &timers[i], SEC(20));
	while (wf_wheel_next(&wheel) <= due_ns(SEC(2))) {
		struct wf_timer *timer = wf_wheel_pop_due(&wheel);

		cr_assert(!timer || timer == &timers[COUNT]);
		empty += timer == NULL;
		cr_assert_leq(empty, COUNT / WF_WHEEL_REFILES);
	}
	cr_assert_eq(empty, COUNT / WF_WHEEL_REFILES, "each pop did its share and no more");
	cr_assert_eq(wf_wheel_count(&wheel), COUNT);
	check_valid();
}

/* --- popping --- */

Test(wheel, the_callback_may_cancel_other_due_timers)
{
	struct wf_timer timers[6] = {0};
	unsigned fired = 0;
	struct wf_timer *timer;

	wf_wheel_init(&wheel, 0);
	for (int i = 0; i < 6; i++)
		wf_wheel_insert(&wheel, &timers[i], MS(1));
	settle(MS(2), 3);
	while ((timer = wf_wheel_pop_due(&wheel))) {
		/* The first cancels the second, the third the fourth, …: neighbours in the list. */
		cr_assert_eq(timer, &timers[2 * fired]);
		cr_assert(!wf_wheel_cancel(&wheel, timer), "itself is no longer pending");
		cr_assert(wf_wheel_cancel(&wheel, &timers[2 * fired + 1]));
		check_valid();
		fired++;
	}
	cr_assert_eq(fired, 3);
	cr_assert_eq(wf_wheel_count(&wheel), 0);
}

Test(wheel, a_popped_timer_may_be_inserted_at_once)
{
	struct wf_timer timers[3] = {0};

	wf_wheel_init(&wheel, SEC(1));
	for (int i = 0; i < 3; i++)
		wf_wheel_insert(&wheel, &timers[i], 0);
	/* Due again, but behind the others: nobody starves if the caller bounds its loop. */
	for (unsigned i = 0; i < 30; i++) {
		struct wf_timer *timer = wf_wheel_pop_due(&wheel);

		cr_assert_eq(timer, &timers[i % 3]);
		wf_wheel_insert(&wheel, timer, SEC(1));
	}
	cr_assert_eq(wf_wheel_count(&wheel), 3);
	check_valid();
}

Test(wheel, a_popped_timer_may_be_freed_at_once)
{
	struct wf_timer *timer;
	unsigned fired = 0;

	wf_wheel_init(&wheel, SEC(1));
	for (int i = 0; i < 1000; i++) {
		timer = calloc(1, sizeof *timer);
		cr_assert_not_null(timer);
		wf_wheel_insert(&wheel, timer, SEC(1) + US(i));
	}
	for (int64_t now = SEC(1); now < SEC(1) + MS(3); now += US(10)) {
		wf_wheel_advance(&wheel, now);
		while ((timer = wf_wheel_pop_due(&wheel))) {
			memset(timer, 0xa5, sizeof *timer);
			free(timer);
			fired++;
		}
	}
	cr_assert_eq(fired, 1000);
	check_valid();
}

/* --- next --- */

Test(wheel, next_is_the_earliest_deadline)
{
	struct wf_timer timers[3] = {0};

	wf_wheel_init(&wheel, SEC(1));
	wf_wheel_insert(&wheel, &timers[0], SEC(100));
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(100)));
	wf_wheel_insert(&wheel, &timers[1], SEC(90));
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(90)), "an earlier one shortens the sleep");
	wf_wheel_insert(&wheel, &timers[2], SEC(1) + US(50));
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(1) + US(50)));
	wf_wheel_cancel(&wheel, &timers[2]);
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(90)), "cancelling it makes it longer again");
	wf_wheel_cancel(&wheel, &timers[0]);
	cr_assert_eq(wf_wheel_next(&wheel), due_ns(SEC(90)));
	wf_wheel_cancel(&wheel, &timers[1]);
	cr_assert_eq(wf_wheel_next(&wheel), INT64_MAX);
}

/*
 * A slot of level 3 that begins at a round time, so that one more timer does not change the slot.
 */
#define SLOT_LEVEL 3
#define SLOT_TICKS ((int64_t)1 << (6 * SLOT_LEVEL))
#define SLOT_NS    (SLOT_TICKS * TICK_NS)

static void fill_slot(struct wf_timer *timers, unsigned count, int64_t slot)
{
	for (unsigned i = 0; i < count; i++)
		wf_wheel_insert(
			&wheel, &timers[i], slot * SLOT_NS + SLOT_NS / 2 + i % 64 * TICK_NS);
}

Test(wheel, next_wakes_early_for_a_heavy_slot_only)
{
	static struct wf_timer timers[WF_WHEEL_HEAVY + 1];

	wf_wheel_init(&wheel, 0);
	fill_slot(timers, WF_WHEEL_HEAVY, 10);
	cr_assert_eq(wf_wheel_next(&wheel), 10 * SLOT_NS + SLOT_NS / 2, "light: the deadline");
	wf_wheel_insert(&wheel, &timers[WF_WHEEL_HEAVY], 10 * SLOT_NS + SLOT_NS / 2 + 1);
	cr_assert_eq(wf_wheel_next(&wheel), 9 * SLOT_NS, "heavy: when its migration begins");
	wf_wheel_cancel(&wheel, &timers[0]);
	wf_wheel_init(&wheel, 0);
	/* The slot before it is light, and its deadline comes after the heavy one's begin. */
	fill_slot(timers, 1, 9);
	fill_slot(timers + 1, WF_WHEEL_HEAVY, 10);
	cr_assert_eq(wf_wheel_next(&wheel), 9 * SLOT_NS + SLOT_NS / 2);
	wf_wheel_init(&wheel, 0);
	fill_slot(timers, WF_WHEEL_HEAVY + 1, 10);
	struct wf_timer before = {0};
	fill_slot(&before, 1, 9);
	cr_assert_eq(wf_wheel_next(&wheel), 9 * SLOT_NS);
	check_valid();
}

Test(wheel, a_heavy_slot_is_light_when_the_caller_may_sleep)
{
	enum { COUNT = 20000 };
	struct wf_timer *timers = calloc(COUNT, sizeof *timers);
	unsigned calls = 0;
	int64_t now = 9 * SLOT_NS;

	cr_assert_not_null(timers);
	wf_wheel_init(&wheel, 0);
	fill_slot(timers, COUNT, 10);
	cr_assert_eq(wf_wheel_next(&wheel), now);
	/* A worker with nothing else to do: the clock hardly moves between two polls. */
	do {
		uint64_t before = moves();

		wf_wheel_advance(&wheel, now);
		cr_assert_leq(moves() - before, WF_WHEEL_MOVES_PACED);
		calls++;
		cr_assert_leq(calls, COUNT / WF_WHEEL_MOVES_PACED + 10, "at full pace");
	} while (wf_wheel_next(&wheel) <= now);
	check_valid();
	cr_assert_eq(wheel.moves_forced, 0);
	cr_assert_geq(wheel.moves_paced, COUNT - WF_WHEEL_HEAVY);
	cr_assert_gt(wf_wheel_next(&wheel), 9 * SLOT_NS);
	free(timers);
}

/* What one call could not finish must not wait for the next deadline, far away as it may be. */
Test(wheel, next_asks_for_what_is_unfinished)
{
	static struct wf_timer timers[WF_WHEEL_HEAVY];
	int64_t now = 10 * SLOT_NS;
	unsigned calls = 0;

	wf_wheel_init(&wheel, 0);
	fill_slot(timers, WF_WHEEL_HEAVY, 10);
	cr_assert_eq(wf_wheel_next(&wheel), now + SLOT_NS / 2);
	do {
		wf_wheel_advance(&wheel, now);
		calls++;
		cr_assert_leq(wheel.moves_forced, calls * WF_WHEEL_MOVES_FORCED);
		check_valid();
	} while (wf_wheel_next(&wheel) <= now);
	cr_assert_eq(wheel.moves_forced, WF_WHEEL_HEAVY);
	cr_assert_eq(wf_wheel_next(&wheel), now + SLOT_NS / 2);
}

Test(wheel, fewer_moves_can_be_asked_for)
{
	enum { COUNT = 100, MOVES = 16 };
	static struct wf_timer timers[COUNT];
	int64_t now = 10 * SLOT_NS + SLOT_NS / 2 + 64 * TICK_NS;
	unsigned calls = 0;

	wf_wheel_init(&wheel, 0);
	wheel.moves_max = MOVES;
	fill_slot(timers, COUNT, 10);
	while (wf_wheel_count(&wheel) > 0) {
		uint64_t before = moves();

		cr_assert_lt(calls++, COUNT);
		wf_wheel_advance(&wheel, now);
		cr_assert_leq(moves() - before, MOVES);
		check_valid();
		while (wf_wheel_pop_due(&wheel))
			;
		if (wf_wheel_count(&wheel) > 0)
			cr_assert_leq(wf_wheel_next(&wheel), now, "it is not done, and says now");
	}
	cr_assert_geq(calls, COUNT / MOVES, "the limit was met");
	/* Paced moves too. */
	wf_wheel_init(&wheel, 0);
	wheel.moves_max = MOVES;
	fill_slot(timers, COUNT, 10);
	for (now = 9 * SLOT_NS + 1; moves() < COUNT; now++) {
		uint64_t before = moves();

		wf_wheel_advance(&wheel, now);
		cr_assert_leq(moves() - before, MOVES);
		check_valid();
	}
}

/* A heavy slot whose timers are all cancelled must not keep the caller from sleeping. */
Test(wheel, next_forgets_a_heavy_slot_that_was_cancelled)
{
	static struct wf_timer timers[2 * WF_WHEEL_HEAVY];
	struct wf_timer last = {0};
	unsigned looks = 0;

	wf_wheel_init(&wheel, 0);
	fill_slot(timers, 2 * WF_WHEEL_HEAVY, 10);
	wf_wheel_insert(&wheel, &last, 30 * SLOT_NS);
	cr_assert_eq(wf_wheel_next(&wheel), 9 * SLOT_NS);
	for (unsigned i = 0; i < 2 * WF_WHEEL_HEAVY; i++)
		cr_assert(wf_wheel_cancel(&wheel, &timers[i]));
	while (wf_wheel_next(&wheel) < 30 * SLOT_NS) {
		cr_assert_lt(looks++, 2);
		wf_wheel_advance(&wheel, wf_wheel_next(&wheel));
	}
	check_valid();
}

/* --- order --- */

enum { FIFO_COUNT = 1000 };

/* Inserts FIFO_COUNT timers for one deadline, cancels one, goes there by steps; all in order. */
static void check_fifo(int64_t start, int64_t deadline, int64_t step)
{
	static struct wf_timer timers[FIFO_COUNT];
	unsigned expected = 0, cancelled = FIFO_COUNT / 3, fired = 0;
	struct wf_timer *timer;

	wf_wheel_init(&wheel, start);
	for (unsigned i = 0; i < FIFO_COUNT; i++)
		wf_wheel_insert(&wheel, &timers[i], deadline);
	cr_assert(wf_wheel_cancel(&wheel, &timers[cancelled]));
	for (int64_t now = start; wf_wheel_count(&wheel) > 0; now += step) {
		if (step > deadline - start)
			settle(now, 100);
		else
			wf_wheel_advance(&wheel, now);
		while ((timer = wf_wheel_pop_due(&wheel))) {
			expected += expected == cancelled;
			cr_assert_eq(timer - timers, expected, "deadline %" PRId64, deadline);
			cr_assert_leq(deadline, now);
			expected++;
			fired++;
		}
	}
	cr_assert_eq(fired, FIFO_COUNT - 1);
	check_valid();
}

Test(wheel, equal_deadlines_fire_in_order_of_insertion, .timeout = 120)
{
	static const int64_t distances[] = {1, 5, 127, 128, 200, 8191, 8192, 10000, 524287, 600000};

	for (size_t i = 0; i < WF_ARRAY_COUNT(distances); i++) {
		int64_t start = SEC(1), distance_ns = distances[i] * TICK_NS;

		check_fifo(start, start + distance_ns, TICK_NS);
		check_fifo(start, start + distance_ns, 48 * TICK_NS);
		check_fifo(start, start + distance_ns, distance_ns + SEC(1));
	}
	/* Far away, in long strides: slots of all levels are forced. */
	check_fifo(SEC(1), SEC(1) + 40 * DAY, 40 * DAY / 5);
}

Test(wheel, ticks_fire_in_order_after_a_long_sleep)
{
	enum { COUNT = 5000 };
	static struct wf_timer timers[COUNT];
	uint64_t random = harness_seed();
	int64_t last = 0, start = SEC(77) + 5;
	unsigned fired = 0, calls = 0;

	/* From nanoseconds to 30 days ahead, evenly over the orders of magnitude. */
	wf_wheel_init(&wheel, start);
	for (unsigned i = 0; i < COUNT; i++) {
		int64_t span = (int64_t)1 << (1 + harness_random_below(&random, 51));

		wf_wheel_insert(&wheel, &timers[i],
			start + 1 + (int64_t)harness_random_below(&random, (uint64_t)span));
	}
	while (wf_wheel_count(&wheel) > 0) {
		uint64_t before = moves();
		struct wf_timer *timer;

		wf_wheel_advance(&wheel, start + 60 * DAY);
		cr_assert_leq(moves() - before, WF_WHEEL_MOVES_FORCED);
		cr_assert_lt(calls++, COUNT * WF_WHEEL_LEVELS / WF_WHEEL_MOVES_FORCED + 1);
		while ((timer = wf_wheel_pop_due(&wheel))) {
			cr_assert_geq(due_ns(timer->deadline_ns), last);
			last = due_ns(timer->deadline_ns);
			fired++;
		}
	}
	cr_assert_eq(fired, COUNT);
	check_valid();
}

/* A jump must cost by its timers: as many iterations as ticks would take years here. */
Test(wheel, a_sleep_of_years_costs_nothing)
{
	struct wf_timer timers[3] = {0};

	wf_wheel_init(&wheel, 0);
	for (int64_t year = 1; year < 100; year++) {
		wf_wheel_insert(&wheel, &timers[0], year * YEAR);
		wf_wheel_insert(&wheel, &timers[1], year * YEAR + 1);
		wf_wheel_insert(&wheel, &timers[2], (year - 1) * YEAR + SEC(100));
		settle((year + 1) * YEAR - 1, 20);
		for (unsigned fired = 0; fired < 3;) {
			wf_wheel_advance(&wheel, (year + 1) * YEAR - 1);
			fired += wf_wheel_pop_due(&wheel) != NULL;
		}
	}
	cr_assert_eq(wf_wheel_count(&wheel), 0);
	check_valid();
}

/* --- the length of a poll --- */

struct poll_stats {
	uint64_t moves_max;
	int64_t late_max;
	unsigned fired;
};

static void poll_once(struct poll_stats *stats, int64_t now)
{
	uint64_t before = moves();
	struct wf_timer *timer;

	wf_wheel_advance(&wheel, now);
	if (moves() - before > stats->moves_max)
		stats->moves_max = moves() - before;
	while ((timer = wf_wheel_pop_due(&wheel))) {
		cr_assert_leq(timer->deadline_ns, now, "never early");
		if (now - timer->deadline_ns > stats->late_max)
			stats->late_max = now - timer->deadline_ns;
		stats->fired++;
	}
}

/*
 * A million random timers over 30 s, polls every 50 us, half of the timers cancelled at random on
 * the way: every poll is short, none is forced, no timer is late.
 */
Test(wheel, a_million_random_timers_make_no_long_poll, .timeout = 120)
{
	unsigned count = 1000000 / HARNESS_SLOWDOWN, polls = count * 6 / 10, cancelled = 0;
	struct wf_timer *timers = calloc(count, sizeof *timers);
	int64_t gap = US(50) > TICK_NS ? US(50) : TICK_NS, start = SEC(1) + 333, span = polls * gap;
	uint64_t seed = harness_seed(), random = seed;
	struct poll_stats stats = {0};

	cr_assert_not_null(timers);
	wf_wheel_init(&wheel, start);
	for (unsigned i = 0; i < count; i++)
		wf_wheel_insert(&wheel, &timers[i],
			start + 1 + (int64_t)harness_random_below(&random, (uint64_t)span));
	check_valid();
	for (int64_t now = start + gap; now < start + span + 2 * gap; now += gap) {
		poll_once(&stats, now);
		for (int i = 0; i < 2; i++)
			cancelled += wf_wheel_cancel(
				&wheel, &timers[harness_random_below(&random, count)]);
	}
	cr_assert_eq(stats.fired + cancelled, count);
	cr_assert_gt(cancelled, count / 4);
	cr_assert_gt(stats.fired, count / 4);
	cr_assert_eq(wheel.moves_forced, 0, "seed %" PRIu64, seed);
	cr_assert_leq(stats.moves_max, 24, "far from the limit; seed %" PRIu64, seed);
	cr_assert_leq(stats.late_max, TICK_NS + gap, "seed %" PRIu64, seed);
	check_valid();
	free(timers);
}

/* A million in one upper slot: more than pacing can carry. Polls stay bounded, nothing is lost. */
Test(wheel, a_million_timers_in_one_slot_make_no_long_poll, .timeout = 120)
{
	unsigned count = 1000000 / HARNESS_SLOWDOWN;
	struct wf_timer *timers = calloc(count, sizeof *timers);
	uint64_t random = harness_seed();
	struct poll_stats stats = {0};
	int64_t gap = US(50) > TICK_NS ? US(50) : TICK_NS, now = 0;

	cr_assert_not_null(timers);
	wf_wheel_init(&wheel, 0);
	for (unsigned i = 0; i < count; i++)
		wf_wheel_insert(&wheel, &timers[i],
			50 * SLOT_NS + (int64_t)harness_random_below(&random, SLOT_NS) + 1);
	poll_once(&stats, 49 * SLOT_NS - 1);
	cr_assert_eq(stats.moves_max, 0, "not before the slot ahead has begun");
	for (now = 49 * SLOT_NS; now < 50 * SLOT_NS; now += gap)
		poll_once(&stats, now);
	cr_assert_leq(stats.moves_max, WF_WHEEL_MOVES_PACED);
	cr_assert_eq(stats.fired, 0);
	for (; wf_wheel_count(&wheel) > 0; now += gap) {
		cr_assert_lt(now, 60 * SLOT_NS, "it must come to an end");
		poll_once(&stats, now);
	}
	cr_assert_leq(stats.moves_max, WF_WHEEL_MOVES_FORCED);
	cr_assert_eq(stats.fired, count);
	check_valid();
	free(timers);
}

/* The same without any poll in between: all is forced, at once asked for, and still bounded. */
Test(wheel, a_sleep_through_a_heavy_slot_makes_no_long_poll, .timeout = 120)
{
	unsigned count = 200000 / HARNESS_SLOWDOWN;
	struct wf_timer *timers = calloc(count, sizeof *timers);
	uint64_t random = harness_seed();
	struct poll_stats stats = {0};
	int64_t now = 51 * SLOT_NS + TICK_NS;

	cr_assert_not_null(timers);
	wf_wheel_init(&wheel, 0);
	for (unsigned i = 0; i < count; i++)
		wf_wheel_insert(&wheel, &timers[i],
			50 * SLOT_NS + (int64_t)harness_random_below(&random, SLOT_NS) + 1);
	for (unsigned polls = 0; wf_wheel_count(&wheel) > 0; polls++) {
		cr_assert_leq(polls, count * SLOT_LEVEL / WF_WHEEL_MOVES_FORCED + SLOT_LEVEL);
		poll_once(&stats, now);
		if (wf_wheel_count(&wheel) > 0)
			cr_assert_leq(wf_wheel_next(&wheel), now, "the caller must not sleep");
	}
	cr_assert_leq(stats.moves_max, WF_WHEEL_MOVES_FORCED);
	cr_assert_eq(stats.fired, count);
	free(timers);
}

/* --- the checker --- */

/* What the checker prints about a wheel that was damaged. */
static const char *reason(void)
{
	static char text[200];
	FILE *out = fmemopen(text, sizeof text, "w");

	cr_assert_not_null(out);
	cr_assert(!wf_wheel_valid(&wheel, out));
	fclose(out);
	return text;
}

Test(wheel, the_checker_finds_damage)
{
	struct wf_timer timers[3] = {0};
	struct wf_wheel good;

	wf_wheel_init(&wheel, SEC(1));
	wf_wheel_insert(&wheel, &timers[0], SEC(2));
	wf_wheel_insert(&wheel, &timers[1], SEC(3));
	wf_wheel_insert(&wheel, &timers[2], SEC(1) + 20 * TICK_NS);
	check_valid();
	good = wheel;

	wheel.count++;
	cr_assert_not_null(strstr(reason(), "3 timers, counted as 4"));
	wheel = good;
	wheel.occupied[0] = 0;
	wheel.occupied[1] = 0;
	cr_assert_not_null(strstr(reason(), "a wrong bit"));
	wheel = good;
	wheel.levels = 1;
	cr_assert_not_null(strstr(reason(), "timers and no bit"));
	wheel = good;
	wheel.next_tick++;
	cr_assert_not_null(strstr(reason(), "before the next"));
	wheel = good;
	wheel.work_tick++;
	cr_assert_not_null(strstr(reason(), "put off"));
	wheel = good;
	wheel.tick += 21;
	cr_assert_not_null(strstr(reason(), "past and not due"));
	wheel = good;
	timers[0].deadline_ns -= MS(900);
	cr_assert_not_null(strstr(reason(), "filed for the later tick"));
	timers[0].deadline_ns += MS(900);
	timers[0].filed++;
	cr_assert_not_null(strstr(reason(), "a timer of list"));
	timers[0].filed--;
	timers[0].link.prev = &timers[1].link;
	cr_assert_not_null(strstr(reason(), "broken"));
}
