/*
 * Goal: clocks are what <weft/clocks.h> says, without a runtime: isolated ones see nothing of each
 * other, a shared one is one for all threads, every timer fires once or was cancelled, and the
 * driver's owner is told of what it must know.
 *
 * Method: time is an argument, so each test makes its own; callbacks write down who fired. With
 * threads, counts decide: starts are as many as fires and cancels that told so.
 */
#include "test/harness.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include <weft/clocks.h>

#include "sync/atomic.h"
#include "sync/fault.h"
#include "timer/wheel.h"

#define TICK_NS WF_WHEEL_TICK_NS
#define START   WEFT_SEC(1000)
#define YEAR    WEFT_SEC(365 * 86400)

/* --- tools --- */

struct pair {
	weft_clock *clock;
	weft_clock_driver *driver;
};

static struct pair pair_new(const struct weft_clock_config *config)
{
	struct pair pair = { NULL, NULL };

	cr_assert_eq(weft_clock_activate(config, &pair.clock, &pair.driver), 0);
	return pair;
}

static struct pair isolated_new(void)
{
	return pair_new(&(struct weft_clock_config){
		.size = sizeof(struct weft_clock_config), .start = START });
}

static struct pair shared_new(struct weft_clock_shared *root)
{
	return pair_new(&(struct weft_clock_config){ .size = sizeof(struct weft_clock_config),
		.kind = WEFT_CLOCK_SHARED, .shared = root, .start = START });
}

static void pair_end(struct pair pair)
{
	cr_assert_eq(weft_clock_release(pair.clock), 0);
	cr_assert_eq(weft_clock_close(pair.driver), 0);
}

/* The time at which a deadline has come for certain. */
static weft_time due(weft_time deadline)
{
	return deadline + TICK_NS;
}

static weft_time advanced(struct pair pair, weft_time now)
{
	weft_time next = 0;

	cr_assert_eq(weft_clock_advance(pair.driver, now, &next), WEFT_CLOCK_NEXT);
	return next;
}

/* Until nothing is due any more: an advance is bounded. */
static int settled(struct pair pair, weft_time now)
{
	weft_time next;
	int state;

	do
		state = weft_clock_advance(pair.driver, now, &next);
	while (state == WEFT_CLOCK_NEXT && next <= now);
	cr_assert_geq(state, 0);
	return state;
}

enum { LOG_MAX = 2000 };

static struct {
	unsigned count;
	int who[LOG_MAX];
} fired;

struct timed {
	struct weft_clock_timer timer;
	weft_clock *clock;
	struct timed *other;
	weft_time period;
	int number, left;
};

static void note(void *arg)
{
	const struct timed *timed = arg;

	cr_assert_lt(fired.count, (unsigned)LOG_MAX);
	fired.who[fired.count++] = timed->number;
}

static void note_start(weft_clock *clock, struct timed *timed, int number, weft_time deadline)
{
	timed->number = number;
	timed->clock = clock;
	cr_assert_eq(weft_clock_start(clock, &timed->timer, deadline, note, timed), 0);
}

/* Who fired, in order, up to -1; forgets them. */
static void expect_fired(const int *who)
{
	unsigned n = 0;

	for (; who[n] >= 0; n++) {
		cr_assert_lt(n, fired.count, "%d did not fire", who[n]);
		cr_assert_eq(fired.who[n], who[n], "number %u", n);
	}
	cr_assert_eq(n, fired.count);
	fired.count = 0;
}

#define EXPECT_FIRED(...) expect_fired((const int[]){ __VA_ARGS__ })

/* --- when timers fire --- */

Test(clocks, past_and_present_fire_in_the_next_advance)
{
	static const weft_time deadlines[] = { 0, -1, INT64_MIN, START - 1, START };
	struct timed timed[WF_ARRAY_COUNT(deadlines)] = { 0 };
	struct pair pair = isolated_new();
	weft_time next = 0;

	cr_assert_eq(weft_clock_now(pair.clock), START);
	for (int i = 0; i < (int)WF_ARRAY_COUNT(deadlines); i++)
		note_start(pair.clock, &timed[i], i, deadlines[i]);
	cr_assert_eq(fired.count, 0, "a start calls nobody");
	cr_assert_eq(weft_clock_advance(pair.driver, START, &next), WEFT_CLOCK_IDLE);
	cr_assert_eq(next, WEFT_FOREVER);
	EXPECT_FIRED(0, 1, 2, 3, 4, -1);
	pair_end(pair);
}

Test(clocks, none_fires_early_and_all_within_a_tick)
{
	static const weft_time delays[] = { 1, TICK_NS - 1, TICK_NS, TICK_NS + 1, 63 * TICK_NS,
		64 * TICK_NS, 127 * TICK_NS, 128 * TICK_NS, 8192 * TICK_NS, WEFT_SEC(60), YEAR,
		5 * YEAR, 10 * YEAR };
	struct timed timed = { 0 };
	struct pair pair = isolated_new();

	for (int i = 0; i < (int)WF_ARRAY_COUNT(delays); i++) {
		weft_time deadline = weft_clock_now(pair.clock) + delays[i];

		note_start(pair.clock, &timed, i, deadline);
		for (weft_time next = 0; next < deadline;)
			next = advanced(pair, next ? next : deadline - 1);
		cr_assert_eq(fired.count, 0, "%d is early", i);
		cr_assert_eq(settled(pair, due(deadline)), WEFT_CLOCK_IDLE);
		EXPECT_FIRED(i, -1);
	}
	pair_end(pair);
}

Test(clocks, what_is_never_due_waits_for_a_move)
{
	struct timed timed = { 0 };
	struct pair pair = isolated_new();

	note_start(pair.clock, &timed, 7, WEFT_FOREVER);
	cr_assert_eq(advanced(pair, START + 100 * YEAR), WEFT_FOREVER);
	cr_assert_eq(weft_clock_move(&timed.timer, START + 50 * YEAR), 1);
	cr_assert_eq(settled(pair, START + 100 * YEAR), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(7, -1);
	pair_end(pair);
}

Test(clocks, equal_deadlines_fire_in_the_order_of_their_starts)
{
	enum { COUNT = 1000 };
	struct timed *timed = calloc(COUNT, sizeof *timed);
	struct weft_clock_shared root = { { 0 } };
	struct pair pairs[2] = { isolated_new(), shared_new(&root) };

	for (int kind = 0; kind < 2; kind++) {
		for (int i = 0; i < COUNT; i++)
			note_start(pairs[kind].clock, &timed[i], i, START + WEFT_MS(3));
		cr_assert_eq(weft_clock_cancel(&timed[500].timer), 1, "takes that one off");
		cr_assert_eq(settled(pairs[kind], due(START + WEFT_MS(3))), WEFT_CLOCK_IDLE);
		cr_assert_eq(fired.count, (unsigned)COUNT - 1);
		for (int i = 0; i < COUNT - 1; i++)
			cr_assert_eq(fired.who[i], i < 500 ? i : i + 1);
		fired.count = 0;
		pair_end(pairs[kind]);
	}
	free(timed);
}

Test(clocks, an_earlier_now_counts_as_the_last)
{
	struct timed timed = { 0 };
	struct pair pair = isolated_new();
	weft_time next = 0;

	cr_assert_eq(weft_clock_advance(pair.driver, START + WEFT_SEC(1), NULL), WEFT_CLOCK_IDLE);
	note_start(pair.clock, &timed, 1, START + WEFT_SEC(1));
	cr_assert_eq(weft_clock_advance(pair.driver, 5, &next), WEFT_CLOCK_IDLE);
	cr_assert_eq(weft_clock_now(pair.clock), START + WEFT_SEC(1));
	EXPECT_FIRED(1, -1);
	pair_end(pair);
}

Test(clocks, one_advance_fires_so_many_and_the_next_the_rest)
{
	enum { COUNT = 2 * WEFT_CLOCK_FIRES_MAX + 10 };
	struct timed *timed = calloc(COUNT, sizeof *timed);
	struct weft_clock_shared root = { { 0 } };
	struct pair pairs[2] = { isolated_new(), shared_new(&root) };

	for (int kind = 0; kind < 2; kind++) {
		for (int i = 0; i < COUNT; i++)
			note_start(pairs[kind].clock, &timed[i], i, START);
		cr_assert_eq(advanced(pairs[kind], START + 5), START + 5, "now");
		cr_assert_eq(fired.count, (unsigned)WEFT_CLOCK_FIRES_MAX);
		cr_assert_eq(advanced(pairs[kind], START + 5), START + 5);
		cr_assert_eq(fired.count, 2u * WEFT_CLOCK_FIRES_MAX);
		cr_assert_eq(weft_clock_advance(pairs[kind].driver, START + 5, NULL),
			WEFT_CLOCK_IDLE);
		cr_assert_eq(fired.count, (unsigned)COUNT);
		fired.count = 0;
		pair_end(pairs[kind]);
	}
	free(timed);
}

Test(clocks, after_a_long_sleep_all_fire_in_order)
{
	enum { COUNT = 1500 };
	struct timed *timed = calloc(COUNT, sizeof *timed);
	struct weft_clock_shared root = { { 0 } };
	struct pair pairs[2] = { isolated_new(), shared_new(&root) };

	for (int kind = 0; kind < 2; kind++) {
		for (int i = 0; i < COUNT; i++)
			note_start(pairs[kind].clock, &timed[i], i, START + (i + 1) * WEFT_MS(7));
		cr_assert_eq(settled(pairs[kind], START + WEFT_SEC(3600)), WEFT_CLOCK_IDLE);
		cr_assert_eq(fired.count, (unsigned)COUNT);
		for (int i = 0; i < COUNT; i++)
			cr_assert_eq(fired.who[i], i);
		fired.count = 0;
		pair_end(pairs[kind]);
	}
	free(timed);
}

/* --- cancel and move --- */

Test(clocks, cancel_is_exact_and_idempotent)
{
	struct timed timed[3] = { 0 };
	struct pair pair = isolated_new();

	cr_assert_eq(weft_clock_cancel(&timed[0].timer), 0, "never started");
	cr_assert_eq(weft_clock_cancel_wait(&timed[0].timer, WEFT_POLL), 0);
	for (int i = 0; i < 3; i++)
		note_start(pair.clock, &timed[i], i, START + WEFT_US(50));
	cr_assert_eq(weft_clock_cancel(&timed[1].timer), 1);
	cr_assert_eq(weft_clock_cancel(&timed[1].timer), 0);
	cr_assert_eq(weft_clock_cancel_wait(&timed[2].timer, WEFT_POLL), 1);
	memset(&timed[1].timer, 0, sizeof timed[1].timer);
	cr_assert_eq(settled(pair, START + WEFT_MS(1)), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(0, -1);
	cr_assert_eq(weft_clock_cancel(&timed[0].timer), 0, "it has fired");
	cr_assert_eq(weft_clock_cancel_wait(&timed[0].timer, WEFT_POLL), 0);
	note_start(pair.clock, &timed[1], 1, START);
	cr_assert_eq(settled(pair, START), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(1, -1);
	pair_end(pair);
	cr_assert_eq(weft_clock_cancel(&timed[1].timer), 0, "also when the clock is gone");
}

Test(clocks, moves_later_earlier_and_into_the_past)
{
	struct timed timed[4] = { 0 };
	struct pair pair = isolated_new();

	for (int i = 0; i < 3; i++)
		note_start(pair.clock, &timed[i], i, START + WEFT_MS(10));
	cr_assert_eq(weft_clock_move(&timed[0].timer, START + WEFT_MS(20)), 1);
	cr_assert_eq(weft_clock_move(&timed[1].timer, START + WEFT_MS(5)), 1);
	cr_assert_eq(weft_clock_move(&timed[2].timer, START - WEFT_MS(5)), 1);
	cr_assert_eq(weft_clock_move(&timed[3].timer, START), 0, "it was never started");
	(void)advanced(pair, START);
	EXPECT_FIRED(2, -1);
	cr_assert_eq(weft_clock_move(&timed[2].timer, START + WEFT_MS(30)), 0, "it has fired");
	(void)advanced(pair, START + WEFT_MS(6));
	EXPECT_FIRED(1, -1);
	while (advanced(pair, START + WEFT_MS(11)) <= START + WEFT_MS(11))
		;
	EXPECT_FIRED(-1);
	cr_assert_eq(settled(pair, START + WEFT_MS(21)), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(0, -1);
	pair_end(pair);
}

/* --- callbacks --- */

static void repeat(void *arg)
{
	struct timed *timed = arg;

	note(arg);
	if (--timed->left > 0)
		cr_assert_eq(weft_clock_start(timed->clock, &timed->timer,
				     weft_clock_now(timed->clock) + timed->period, repeat, timed),
			0);
}

Test(clocks, a_callback_may_start_its_own_timer_again)
{
	struct timed timed = { .left = 5, .period = WEFT_MS(1), .number = 3 };
	struct pair pair = isolated_new();
	weft_time next = START;

	timed.clock = pair.clock;
	cr_assert_eq(weft_clock_start(pair.clock, &timed.timer, START, repeat, &timed), 0);
	while (weft_clock_advance(pair.driver, next, &next) == WEFT_CLOCK_NEXT)
		cr_assert_leq(next, START + WEFT_MS(4) + 5 * TICK_NS);
	EXPECT_FIRED(3, 3, 3, 3, 3, -1);

	timed.left = 10;
	timed.period = 0;
	cr_assert_eq(weft_clock_start(pair.clock, &timed.timer, START, repeat, &timed), 0);
	cr_assert_eq(settled(pair, weft_clock_now(pair.clock)), WEFT_CLOCK_IDLE);
	cr_assert_eq(fired.count, 10, "those started for now are among what fires");
	pair_end(pair);
}

static void cancel_other(void *arg)
{
	struct timed *timed = arg;

	note(arg);
	cr_assert_eq(weft_clock_cancel(&timed->timer), 0, "its own is not pending");
	cr_assert_eq(weft_clock_cancel(&timed->other->timer), 1);
}

Test(clocks, a_callback_cancels_what_is_due_with_it)
{
	struct timed timed[2] = { { .number = 0, .other = &timed[1] }, { .number = 1 } };
	struct pair pair = isolated_new();

	cr_assert_eq(weft_clock_start(pair.clock, &timed[0].timer, START, cancel_other, timed), 0);
	note_start(pair.clock, &timed[1], 1, START);
	cr_assert_eq(settled(pair, START), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(0, -1);
	pair_end(pair);
}

static void move_other(void *arg)
{
	struct timed *timed = arg;

	note(arg);
	cr_assert_eq(weft_clock_move(&timed->other->timer, START + WEFT_MS(2)), 1);
}

Test(clocks, a_callback_moves_what_is_due_with_it)
{
	struct timed timed[2] = { { .number = 0, .other = &timed[1] }, { .number = 1 } };
	struct pair pair = isolated_new();

	cr_assert_eq(weft_clock_start(pair.clock, &timed[0].timer, START, move_other, timed), 0);
	note_start(pair.clock, &timed[1], 1, START);
	(void)advanced(pair, START);
	EXPECT_FIRED(0, -1);
	cr_assert_eq(settled(pair, START + WEFT_MS(3)), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(1, -1);
	pair_end(pair);
}

static void free_it(void *arg)
{
	fired.count++;
	free(arg);
}

Test(clocks, a_callback_may_free_its_timer)
{
	struct weft_clock_shared root = { { 0 } };
	struct pair pairs[2] = { isolated_new(), shared_new(&root) };

	for (int kind = 0; kind < 2; kind++) {
		for (int i = 0; i < 40; i++) {
			struct timed *timed = calloc(1, sizeof *timed);

			cr_assert_eq(weft_clock_start(pairs[kind].clock, &timed->timer, START,
					     free_it, timed),
				0);
		}
		cr_assert_eq(settled(pairs[kind], START), WEFT_CLOCK_IDLE);
		cr_assert_eq(fired.count, 40);
		fired.count = 0;
		pair_end(pairs[kind]);
	}
}

/* --- isolated: T11, T12, handing over --- */

struct on_thread {
	struct weft_clock_config config; /* a copy: T11's clone */
	unsigned index;
	pthread_barrier_t *barrier;
	unsigned fired;
	pthread_t thread;
};

static void count_on_own_thread(void *arg)
{
	struct on_thread *on = arg;

	cr_assert(pthread_equal(on->thread, pthread_self()), "fired by the other's driver");
	on->fired++;
}

static void clone_main(unsigned index, void *arg)
{
	struct on_thread on = { .config = *(const struct weft_clock_config *)arg };
	struct weft_clock_timer timers[20] = { 0 };
	struct pair pair = pair_new(&on.config);
	struct weft_clock_info info = { .size = sizeof info };

	on.thread = pthread_self();
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(weft_clock_start(pair.clock, &timers[i],
				     START + (weft_time)(i + index) * WEFT_US(100),
				     count_on_own_thread, &on),
			0);
	cr_assert_eq(weft_clock_describe(pair.clock, &info), 0);
	cr_assert_eq(info.pending, 20, "the other's are not among them");
	/* Only one of the two lets its time pass: the other's timers stay where they are. */
	if (index == 0)
		cr_assert_eq(settled(pair, START + WEFT_SEC(1)), WEFT_CLOCK_IDLE);
	else
		(void)advanced(pair, START);
	cr_assert_eq(on.fired, index == 0 ? 20 : 0);
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(weft_clock_cancel(&timers[i]), index);
	pair_end(pair);
}

Test(clocks, clones_of_an_isolated_clock_see_nothing_of_each_other, .timeout = 120)
{
	struct weft_clock_config config = {
		.size = sizeof config, .name = "per core", .start = START };

	harness_threads(2, clone_main, &config);
}

static void off_its_thread(unsigned index, void *arg)
{
	struct timed *timed = arg;
	struct weft_clock_info info = { .size = sizeof info };
	struct weft_clock_timer fresh = { { 0 } };
	struct pair pair = { timed->clock, (weft_clock_driver *)(void *)timed->other };

	(void)index;
	cr_assert_eq(weft_clock_start(pair.clock, &fresh, START, note, &fresh), -EPERM);
	cr_assert_eq(weft_clock_move(&timed->timer, START), -EPERM);
	cr_assert_eq(weft_clock_cancel(&timed->timer), -EPERM);
	cr_assert_eq(weft_clock_cancel_wait(&timed->timer, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_clock_advance(pair.driver, START, NULL), -EPERM);
	cr_assert_eq(weft_clock_describe(pair.clock, &info), -EPERM);
	cr_assert_eq(weft_clock_retain(pair.clock), -EPERM);
	cr_assert_eq(weft_clock_release(pair.clock), -EPERM);
	cr_assert_eq(weft_clock_close(pair.driver), -EPERM);
	cr_assert_eq(weft_clock_detach(pair.driver), -EPERM);
	cr_assert_eq(weft_clock_attach(pair.driver), -EPERM, "it was not detached");
	cr_assert_eq(weft_clock_now(pair.clock), START, "that may be asked anywhere");
	pair = isolated_new();
	cr_assert_eq(weft_clock_relocate(timed->clock, pair.clock), -EPERM);
	cr_assert_eq(weft_clock_relocate(pair.clock, timed->clock), -EPERM);
	pair_end(pair);
}

Test(clocks, an_isolated_clock_is_refused_to_other_threads, .timeout = 120)
{
	struct timed timed = { 0 };
	struct pair pair = isolated_new();

	if (!WF_DEBUG)
		cr_skip_test("it is only checked in debug builds");
	note_start(pair.clock, &timed, 1, START + WEFT_MS(1));
	timed.other = (struct timed *)(void *)pair.driver;
	harness_threads(1, off_its_thread, &timed);
	cr_assert_eq(settled(pair, START + WEFT_MS(2)), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(1, -1);
	pair_end(pair);
}

static void *take_over(void *arg)
{
	struct pair *pair = arg;
	struct timed mine = { 0 };

	cr_assert_eq(weft_clock_attach(pair->driver), 0);
	note_start(pair->clock, &mine, 2, START + WEFT_MS(2));
	cr_assert_eq(settled(*pair, START + WEFT_MS(3)), WEFT_CLOCK_IDLE);
	cr_assert_eq(weft_clock_detach(pair->driver), 0);
	return NULL;
}

Test(clocks, an_isolated_clock_is_handed_to_another_thread_and_back, .timeout = 120)
{
	struct timed timed = { 0 };
	struct pair pair = isolated_new();
	pthread_t thread;

	note_start(pair.clock, &timed, 1, START + WEFT_MS(1));
	cr_assert_eq(weft_clock_detach(pair.driver), 0);
	if (WF_DEBUG)
		cr_assert_eq(weft_clock_cancel(&timed.timer), -EPERM, "nobody may");
	cr_assert_eq(pthread_create(&thread, NULL, take_over, &pair), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(weft_clock_attach(pair.driver), 0);
	EXPECT_FIRED(1, 2, -1);
	pair_end(pair);
}

/* --- shared: T12, finding --- */

Test(clocks, a_shared_configuration_means_one_clock)
{
	struct weft_clock_shared root = { { 0 } };
	struct weft_clock_config config = { .size = sizeof config, .kind = WEFT_CLOCK_SHARED,
		.shared = &root, .start = START };
	struct weft_clock_config copy = config;
	weft_clock_driver *driver = NULL;
	weft_clock *clock = NULL;
	struct pair pair;

	cr_assert_eq(weft_clock_find(&copy, &clock), -ENOENT, "it is not active");
	pair = pair_new(&config);
	cr_assert_eq(weft_clock_activate(&copy, &clock, &driver), -EBUSY);
	cr_assert_null(clock);
	cr_assert_eq(weft_clock_find(&copy, &clock), 0);
	cr_assert_eq(clock, pair.clock);
	cr_assert_eq(weft_clock_release(pair.clock), 0);
	cr_assert_eq(weft_clock_advance(pair.driver, START, NULL), WEFT_CLOCK_IDLE, "one is left");
	cr_assert_eq(weft_clock_release(clock), 0);
	cr_assert_eq(weft_clock_find(&copy, &clock), -ENOENT, "its last user is gone");
	cr_assert_eq(weft_clock_activate(&copy, &clock, &driver), -EBUSY, "its driver is not");
	cr_assert_eq(weft_clock_advance(pair.driver, START, NULL), WEFT_CLOCK_GONE);
	cr_assert_eq(weft_clock_close(pair.driver), 0);
	pair_end(pair_new(&copy));
}

static void activate_one(unsigned index, void *arg)
{
	static struct weft_clock_shared root;
	struct weft_clock_config config = { .size = sizeof config, .kind = WEFT_CLOCK_SHARED,
		.shared = &root };
	weft_clock_driver *driver;
	weft_clock *clock;
	wf_atomic_u32 *made = arg;
	int r = weft_clock_activate(&config, &clock, &driver);

	(void)index;
	cr_assert(r == 0 || r == -EBUSY, "%d", r);
	(void)wf_u32_fetch_add(&made[r == 0], 1);
	while (wf_u32_load_acquire(&made[0]) + wf_u32_load_acquire(&made[1]) < 4)
		sched_yield();
	if (r == 0)
		pair_end((struct pair){ clock, driver });
}

Test(clocks, of_four_threads_that_activate_one_does, .timeout = 120)
{
	wf_atomic_u32 made[2] = { { 0 }, { 0 } };

	harness_threads(4, activate_one, made);
	cr_assert_eq(wf_u32_load_relaxed(&made[1]), 1);
}

/* --- users: T13 --- */

Test(clocks, without_users_it_is_gone_when_no_timer_is_left)
{
	struct weft_clock_shared root = { { 0 } };
	struct pair pairs[2] = { isolated_new(), shared_new(&root) };

	for (int kind = 0; kind < 2; kind++) {
		struct pair pair = pairs[kind];
		struct timed timed = { 0 };
		weft_time next = 0;

		cr_assert_eq(weft_clock_advance(pair.driver, START, &next), WEFT_CLOCK_IDLE);
		cr_assert_eq(next, WEFT_FOREVER);
		cr_assert_eq(weft_clock_retain(pair.clock), 0);
		note_start(pair.clock, &timed, 1, START + WEFT_MS(1));
		cr_assert_eq(weft_clock_release(pair.clock), 0);
		cr_assert_eq(weft_clock_release(pair.clock), 0, "the last");
		cr_assert_eq(advanced(pair, START + WEFT_US(10)),
			(START + WEFT_MS(1) + TICK_NS - 1) / TICK_NS * TICK_NS, "it goes on");
		cr_assert_eq(weft_clock_advance(pair.driver, START + WEFT_MS(2), &next),
			WEFT_CLOCK_GONE);
		cr_assert_eq(next, WEFT_FOREVER);
		EXPECT_FIRED(1, -1);
		cr_assert_eq(weft_clock_advance(pair.driver, START + WEFT_MS(3), &next),
			WEFT_CLOCK_GONE, "and stays so");
		cr_assert_eq(weft_clock_close(pair.driver), 0);
	}
	cr_assert_eq(weft_clock_release(NULL), 0);
}

Test(clocks, a_callback_keeps_a_clock_without_users_going)
{
	struct timed timed = { .left = 3, .period = WEFT_MS(1) };
	struct pair pair = isolated_new();

	timed.clock = pair.clock;
	cr_assert_eq(weft_clock_start(pair.clock, &timed.timer, START, repeat, &timed), 0);
	cr_assert_eq(weft_clock_release(pair.clock), 0);
	(void)advanced(pair, START);
	(void)advanced(pair, START + WEFT_MS(2));
	cr_assert_eq(settled(pair, START + WEFT_MS(4)), WEFT_CLOCK_GONE);
	EXPECT_FIRED(0, 0, 0, -1);
	cr_assert_eq(weft_clock_close(pair.driver), 0);
}

Test(clocks, a_closed_driver_leaves_timers_to_their_owners)
{
	struct weft_clock_shared root = { { 0 } };
	struct pair pairs[2] = { isolated_new(), shared_new(&root) };

	for (int kind = 0; kind < 2; kind++) {
		struct timed timed[50] = { 0 };
		struct weft_clock_info info = { .size = sizeof info };

		for (int i = 0; i < 50; i++)
			note_start(pairs[kind].clock, &timed[i], i, START + i * WEFT_SEC(i));
		cr_assert_eq(weft_clock_close(pairs[kind].driver), 0);
		for (int i = 0; i < 50; i++)
			cr_assert_eq(weft_clock_cancel(&timed[i].timer), 0, "it is not pending");
		cr_assert_eq(weft_clock_start(
				     pairs[kind].clock, &timed[0].timer, START, note, timed),
			-ESHUTDOWN);
		cr_assert_eq(weft_clock_describe(pairs[kind].clock, &info), 0);
		cr_assert(!info.driven);
		cr_assert_eq(info.pending, 0);
		cr_assert_eq(info.next, WEFT_FOREVER);
		cr_assert_eq(weft_clock_release(pairs[kind].clock), 0);
	}
	cr_assert_eq(fired.count, 0);
}

/* --- telling the driver's owner --- */

static struct {
	unsigned calls;
	weft_time when;
	weft_clock_driver *closes;
} told;

static void note_sooner(void *ctx, weft_time when)
{
	cr_assert_eq(ctx, &told);
	told.calls++;
	told.when = when;
	if (told.closes)
		cr_assert_eq(weft_clock_close(told.closes), -EDEADLK);
}

static struct pair told_new(void)
{
	return pair_new(&(struct weft_clock_config){ .size = sizeof(struct weft_clock_config),
		.start = START, .sooner = note_sooner, .ctx = &told });
}

/* The tick at whose end a deadline fires. */
static weft_time tick_end(weft_time deadline)
{
	return (deadline + TICK_NS - 1) / TICK_NS * TICK_NS;
}

Test(clocks, sooner_is_told_of_each_earlier_deadline_and_of_no_other)
{
	struct timed timed[6] = { 0 };
	struct pair pair = told_new();

	note_start(pair.clock, &timed[0], 0, START + WEFT_MS(10));
	cr_assert_eq(told.calls, 1);
	cr_assert_eq(told.when, tick_end(START + WEFT_MS(10)));
	note_start(pair.clock, &timed[1], 1, START + WEFT_MS(10));
	note_start(pair.clock, &timed[2], 2, START + WEFT_SEC(10));
	cr_assert_eq(told.calls, 1, "neither the same nor a later one");
	cr_assert_eq(weft_clock_move(&timed[2].timer, START + WEFT_SEC(5)), 1);
	cr_assert_eq(weft_clock_move(&timed[1].timer, START + WEFT_MS(40)), 1);
	cr_assert_eq(told.calls, 1);
	cr_assert_eq(weft_clock_move(&timed[2].timer, START + WEFT_MS(3)), 1);
	cr_assert_eq(told.calls, 2);
	cr_assert_eq(told.when, tick_end(START + WEFT_MS(3)));
	note_start(pair.clock, &timed[3], 3, START - 1);
	cr_assert_eq(told.calls, 3);
	cr_assert_eq(told.when, START, "now");
	note_start(pair.clock, &timed[4], 4, START - 2);
	cr_assert_eq(told.calls, 3, "now is now");
	cr_assert_eq(advanced(pair, START + 1), tick_end(START + WEFT_MS(3)));
	note_start(pair.clock, &timed[5], 5, START + WEFT_MS(4));
	cr_assert_eq(told.calls, 3, "later than the advance has said");
	told.closes = pair.driver;
	cr_assert_eq(weft_clock_move(&timed[5].timer, START + WEFT_MS(2)), 1);
	cr_assert_eq(told.calls, 4);
	told.closes = NULL;
	cr_assert_eq(weft_clock_release(pair.clock), 0);
	cr_assert_eq(told.calls, 4, "timers are left");
	cr_assert_eq(weft_clock_close(pair.driver), 0);
}

Test(clocks, sooner_is_not_told_inside_an_advance)
{
	struct timed timed = { .left = 3, .period = WEFT_US(1) };
	struct pair pair = told_new();

	timed.clock = pair.clock;
	cr_assert_eq(weft_clock_start(pair.clock, &timed.timer, START, repeat, &timed), 0);
	cr_assert_eq(told.calls, 1);
	(void)advanced(pair, START);
	(void)advanced(pair, START + WEFT_MS(2));
	cr_assert_eq(settled(pair, START + WEFT_MS(4)), WEFT_CLOCK_IDLE);
	cr_assert_eq(fired.count, 3);
	cr_assert_eq(told.calls, 1);
	pair_end(pair);
}

Test(clocks, sooner_is_told_when_the_last_user_leaves_no_timer)
{
	struct pair pair = told_new();

	cr_assert_eq(weft_clock_advance(pair.driver, START + 5, NULL), WEFT_CLOCK_IDLE);
	cr_assert_eq(weft_clock_release(pair.clock), 0);
	cr_assert_eq(told.calls, 1);
	cr_assert_eq(told.when, START + 5);
	cr_assert_eq(weft_clock_advance(pair.driver, START + 6, NULL), WEFT_CLOCK_GONE);
	cr_assert_eq(weft_clock_close(pair.driver), 0);
}

static void add_one(void *arg)
{
	(void)wf_u32_fetch_add(arg, 1);
}

/* A driver that sleeps on a condition until `next`; T9 for a clock. */
struct sleeper {
	struct pair pair;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	weft_time until; /* FOREVER: it sleeps for good */
	bool sleeps, woken;
};

static void wake_sleeper(void *ctx, weft_time when)
{
	struct sleeper *sleeper = ctx;

	(void)when;
	pthread_mutex_lock(&sleeper->mutex);
	sleeper->woken = true;
	pthread_cond_broadcast(&sleeper->changed);
	pthread_mutex_unlock(&sleeper->mutex);
}

static void *sleeper_main(void *arg)
{
	struct sleeper *sleeper = arg;
	weft_time now = START;

	for (;;) {
		weft_time next;

		if (weft_clock_advance(sleeper->pair.driver, now, &next) == WEFT_CLOCK_GONE)
			break;
		if (next != WEFT_FOREVER) {
			now = next > now ? next : now; /* time passes by itself */
			continue;
		}
		pthread_mutex_lock(&sleeper->mutex);
		sleeper->sleeps = true;
		pthread_cond_broadcast(&sleeper->changed);
		while (!sleeper->woken)
			pthread_cond_wait(&sleeper->changed, &sleeper->mutex);
		sleeper->woken = sleeper->sleeps = false;
		pthread_mutex_unlock(&sleeper->mutex);
	}
	cr_assert_eq(weft_clock_close(sleeper->pair.driver), 0);
	return NULL;
}

Test(clocks, a_sleeping_driver_learns_of_deadlines_and_of_the_end, .timeout = 120)
{
	struct sleeper sleeper = { .mutex = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER };
	struct weft_clock_shared root = { { 0 } };
	struct weft_clock_config config = { .size = sizeof config, .kind = WEFT_CLOCK_SHARED,
		.shared = &root, .start = START, .sooner = wake_sleeper, .ctx = &sleeper };
	struct weft_clock_timer timer = { { 0 } };
	wf_atomic_u32 fires = { 0 };
	pthread_t thread;

	sleeper.pair = pair_new(&config);
	cr_assert_eq(pthread_create(&thread, NULL, sleeper_main, &sleeper), 0);
	for (uint32_t i = 1; i <= 3; i++) {
		pthread_mutex_lock(&sleeper.mutex);
		while (!sleeper.sleeps || sleeper.woken)
			pthread_cond_wait(&sleeper.changed, &sleeper.mutex);
		pthread_mutex_unlock(&sleeper.mutex);
		cr_assert_eq(weft_clock_start(sleeper.pair.clock, &timer,
				     START + (weft_time)i * WEFT_SEC(1), add_one, &fires),
			0);
		while (wf_u32_load_acquire(&fires) < i)
			sched_yield();
	}
	cr_assert_eq(weft_clock_release(sleeper.pair.clock), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0, "it has learnt that the clock is gone");
}

/* --- relocation: T14 --- */

Test(clocks, relocated_timers_fire_at_the_destination)
{
	struct weft_clock_shared roots[2] = { { { 0 } }, { { 0 } } };

	for (int kinds = 0; kinds < 4; kinds++) {
		struct pair from = kinds & 1 ? shared_new(&roots[0]) : isolated_new();
		struct pair to = kinds & 2 ? shared_new(&roots[1]) : isolated_new();
		struct timed timed[200] = { 0 };

		(void)weft_clock_advance(to.driver, START + WEFT_MS(2), NULL);
		note_start(to.clock, &timed[199], 199, START + WEFT_SEC(199));
		for (int i = 0; i < 199; i++)
			note_start(from.clock, &timed[i], i, START + WEFT_SEC(i / 2));
		cr_assert_eq(weft_clock_relocate(from.clock, to.clock), 0);
		cr_assert_eq(settled(from, START + YEAR), WEFT_CLOCK_IDLE);
		cr_assert_eq(fired.count, 0);
		cr_assert_eq(weft_clock_cancel(&timed[50].timer), 1, "the node knows its clock");
		cr_assert_eq(weft_clock_move(&timed[60].timer, START + WEFT_SEC(1000)), 1);
		(void)advanced(to, START + WEFT_MS(2));
		EXPECT_FIRED(0, 1, -1);
		cr_assert_eq(settled(to, START + YEAR), WEFT_CLOCK_IDLE);
		cr_assert_eq(fired.count, 197);
		for (unsigned i = 0, who = 2; i < 196; i++, who++) {
			who += who == 50 || who == 60;
			cr_assert_eq(fired.who[i], (int)who, "number %u", i);
		}
		cr_assert_eq(fired.who[196], 60);
		fired.count = 0;
		pair_end(from);
		pair_end(to);
	}
}

Test(clocks, what_is_due_or_far_or_never_is_relocated_too)
{
	struct pair from = isolated_new(), to = told_new();
	struct timed timed[4] = { 0 };

	note_start(from.clock, &timed[0], 0, START - 1);
	note_start(from.clock, &timed[1], 1, START + 100 * YEAR);
	note_start(from.clock, &timed[2], 2, WEFT_FOREVER);
	note_start(from.clock, &timed[3], 3, START + 2);
	cr_assert_eq(weft_clock_relocate(from.clock, to.clock), 0);
	cr_assert_eq(told.calls, 1, "its owner is told of an earlier one");
	cr_assert_eq(told.when, START);
	cr_assert_eq(weft_clock_advance(from.driver, START + 1, NULL), WEFT_CLOCK_IDLE);
	(void)advanced(to, START);
	EXPECT_FIRED(0, -1);
	while (advanced(to, START + 120 * YEAR) != WEFT_FOREVER)
		;
	EXPECT_FIRED(3, 1, -1);
	cr_assert_eq(weft_clock_cancel(&timed[2].timer), 1);
	cr_assert_eq(weft_clock_relocate(from.clock, to.clock), 0, "none is no error");
	pair_end(from);
	pair_end(to);
}

static void *relocate_to_here(void *arg)
{
	struct pair *from = arg, here = isolated_new();

	/* Its thread has given it up; both are this thread's now. */
	cr_assert_eq(weft_clock_attach(from->driver), 0);
	cr_assert_eq(weft_clock_relocate(from->clock, here.clock), 0);
	pair_end(*from);
	cr_assert_eq(settled(here, START + WEFT_MS(50)), WEFT_CLOCK_IDLE);
	pair_end(here);
	return NULL;
}

Test(clocks, timers_follow_to_another_threads_clock, .timeout = 120)
{
	struct pair pair = isolated_new();
	struct timed timed[30] = { 0 };
	pthread_t thread;

	for (int i = 0; i < 30; i++)
		note_start(pair.clock, &timed[i], i, START + i * WEFT_MS(1));
	cr_assert_eq(weft_clock_detach(pair.driver), 0);
	cr_assert_eq(pthread_create(&thread, NULL, relocate_to_here, &pair), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(fired.count, 30);
	for (int i = 0; i < 30; i++)
		cr_assert_eq(fired.who[i], i);
}

/* --- waiting for a callback --- */

struct gate {
	struct pair pair;
	struct weft_clock_timer timer;
	wf_atomic_u32 entered, open, left;
};

static void through_gate(void *arg)
{
	struct gate *gate = arg;

	wf_u32_store_release(&gate->entered, 1);
	while (wf_u32_load_acquire(&gate->open) == 0)
		sched_yield();
	wf_u32_store_relaxed(&gate->left, 1);
}

static void *gate_main(void *arg)
{
	struct gate *gate = arg;

	cr_assert_eq(settled(gate->pair, START), WEFT_CLOCK_IDLE);
	return NULL;
}

static void *open_gate(void *arg)
{
	struct gate *gate = arg;

	wf_u32_store_release(&gate->open, 1);
	return NULL;
}

Test(clocks, cancel_wait_waits_for_the_callback, .timeout = 120)
{
	struct weft_clock_shared root = { { 0 } };
	struct gate gate = { .pair = shared_new(&root) };
	struct weft_clock_info info = { .size = sizeof info };
	pthread_t driver, opener;

	cr_assert_eq(weft_clock_start(gate.pair.clock, &gate.timer, START, through_gate, &gate), 0);
	cr_assert_eq(pthread_create(&driver, NULL, gate_main, &gate), 0);
	while (wf_u32_load_acquire(&gate.entered) == 0)
		sched_yield();
	cr_assert_eq(weft_clock_cancel(&gate.timer), 0, "it runs");
	cr_assert_eq(weft_clock_cancel_wait(&gate.timer, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_clock_cancel_wait(&gate.timer, 0), -ETIME);
	cr_assert_eq(weft_clock_cancel_wait(&gate.timer, (weft_time)harness_now_ns() + 2000000),
		-ETIME);
	cr_assert_eq(weft_clock_advance(gate.pair.driver, START, NULL), -EBUSY);
	cr_assert_eq(weft_clock_close(gate.pair.driver), -EBUSY);
	cr_assert_eq(weft_clock_describe(gate.pair.clock, &info), 0);
	cr_assert_eq(info.next, START, "its driver is inside");
	cr_assert_eq(pthread_create(&opener, NULL, open_gate, &gate), 0);
	cr_assert_eq(weft_clock_cancel_wait(&gate.timer, WEFT_FOREVER), 0);
	cr_assert_eq(wf_u32_load_relaxed(&gate.left), 1, "it has returned");
	cr_assert_eq(pthread_join(driver, NULL), 0);
	cr_assert_eq(pthread_join(opener, NULL), 0);
	cr_assert_eq(weft_clock_cancel_wait(&gate.timer, WEFT_POLL), 0);
	pair_end(gate.pair);
}

static void everything_inside(void *arg)
{
	struct timed *timed = arg;
	weft_clock_driver *driver = (weft_clock_driver *)(void *)timed->other;

	cr_assert_eq(weft_clock_cancel_wait(&timed->timer, WEFT_FOREVER), -EDEADLK);
	cr_assert_eq(weft_clock_advance(driver, START, NULL), -EDEADLK);
	cr_assert_eq(weft_clock_close(driver), -EDEADLK);
	cr_assert_eq(weft_clock_detach(driver), timed->number ? 0 : -EDEADLK);
	fired.count++;
}

Test(clocks, a_callback_cannot_wait_for_itself)
{
	struct weft_clock_shared root = { { 0 } };
	struct pair pairs[2] = { isolated_new(), shared_new(&root) };

	for (int kind = 0; kind < 2; kind++) {
		struct timed timed = { .number = kind,
			.other = (struct timed *)(void *)pairs[kind].driver };

		cr_assert_eq(weft_clock_start(pairs[kind].clock, &timed.timer, START,
				     everything_inside, &timed),
			0);
		cr_assert_eq(settled(pairs[kind], START), WEFT_CLOCK_IDLE);
		cr_assert_eq(fired.count, (unsigned)kind + 1);
		pair_end(pairs[kind]);
	}
}

/* --- threads --- */

enum {
	HAMMERS = 3,
	HAMMER_TIMERS = 20,
	HAMMER_ROUNDS = 40000 / HARNESS_SLOWDOWN,
};

struct hammer {
	struct weft_clock_config config[2];
	struct pair pairs[2];
	wf_atomic_u32 ended;
	wf_atomic_u64 started, cancelled, fires, wakes;
};

struct nail {
	struct weft_clock_timer timer;
	struct hammer *hammer;
	bool pending; /* as its thread knows it: started, and not waited for since */
	wf_atomic_u32 fires;
};

static void nail_fires(void *arg)
{
	struct nail *nail = arg;

	(void)wf_u32_fetch_add(&nail->fires, 1);
	(void)wf_u64_fetch_add(&nail->hammer->fires, 1);
}

static void count_wakes(void *ctx, weft_time when)
{
	(void)when;
	(void)wf_u64_fetch_add(ctx, 1);
}

/* Once it has returned, no callback of the nail runs or comes. */
static void hammer_out(struct hammer *hammer, struct nail *nail, weft_time deadline)
{
	int r = weft_clock_cancel_wait(&nail->timer, WEFT_FOREVER);
	uint32_t fires = wf_u32_load_relaxed(&nail->fires);

	cr_assert(r == 0 || (r == 1 && nail->pending), "%d", r);
	(void)wf_u64_fetch_add(&hammer->cancelled, (uint64_t)r);
	nail->pending = false;
	cr_assert_eq(weft_clock_move(&nail->timer, deadline), 0);
	sched_yield();
	cr_assert_eq(wf_u32_load_relaxed(&nail->fires), fires);
}

static void hammer_one(struct hammer *hammer, weft_clock *clock, struct nail *nail, uint64_t *seed)
{
	weft_time deadline = weft_clock_now(clock) +
		(weft_time)harness_random_below(seed, (uint64_t)WEFT_US(400));
	int r;

	switch (harness_random_below(seed, 4)) {
	case 0:
		r = weft_clock_cancel(&nail->timer);
		cr_assert(r == 0 || (r == 1 && nail->pending), "%d", r);
		(void)wf_u64_fetch_add(&hammer->cancelled, (uint64_t)r);
		break;
	case 1:
		r = weft_clock_move(&nail->timer, deadline);
		cr_assert(r == 0 || (r == 1 && nail->pending), "%d", r);
		break;
	default:
		hammer_out(hammer, nail, deadline);
		cr_assert_eq(weft_clock_start(clock, &nail->timer, deadline, nail_fires, nail), 0);
		(void)wf_u64_fetch_add(&hammer->started, 1);
		nail->pending = true;
	}
}

static void hammer_thread(struct hammer *hammer, unsigned index)
{
	uint64_t seed = harness_seed() + index;
	struct nail nails[HAMMER_TIMERS];
	weft_clock *clocks[2];

	memset(nails, 0, sizeof nails);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(weft_clock_find(&hammer->config[i], &clocks[i]), 0);
	for (unsigned i = 0; i < HAMMER_TIMERS; i++)
		nails[i].hammer = hammer;
	for (unsigned round = 0; round < HAMMER_ROUNDS; round++)
		hammer_one(hammer, clocks[harness_random_below(&seed, 2)],
			&nails[harness_random_below(&seed, HAMMER_TIMERS)], &seed);
	for (unsigned i = 0; i < HAMMER_TIMERS; i++)
		(void)wf_u64_fetch_add(&hammer->cancelled,
			(uint64_t)weft_clock_cancel_wait(&nails[i].timer, WEFT_FOREVER));
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(weft_clock_release(clocks[i]), 0);
	(void)wf_u32_fetch_add(&hammer->ended, 1);
}

/* Threads 0 and 1 drive the two clocks; 0 also relocates between them. */
static void hammer_main(unsigned index, void *arg)
{
	struct hammer *hammer = arg;
	weft_time now = START, next;

	if (index >= 2) {
		hammer_thread(hammer, index);
		return;
	}
	for (unsigned i = 0; wf_u32_load_acquire(&hammer->ended) < HAMMERS; i++) {
		now += WEFT_US(7);
		cr_assert_geq(weft_clock_advance(hammer->pairs[index].driver, now, &next), 0);
		if (index == 0 && i % 16 == 0)
			cr_assert_eq(weft_clock_relocate(hammer->pairs[i / 16 % 2].clock,
					     hammer->pairs[!(i / 16 % 2)].clock),
				0);
		sched_yield();
	}
}

Test(clocks, threads_that_start_move_and_cancel_lose_no_timer, .timeout = 300)
{
	struct weft_clock_shared roots[2] = { { { 0 } }, { { 0 } } };
	struct hammer hammer = { .ended = { 0 } };

	for (int i = 0; i < 2; i++) {
		hammer.config[i] = (struct weft_clock_config){ .size = sizeof hammer.config[i],
			.kind = WEFT_CLOCK_SHARED, .shared = &roots[i], .start = START,
			.sooner = count_wakes, .ctx = &hammer.wakes };
		hammer.pairs[i] = pair_new(&hammer.config[i]);
	}
	harness_threads(2 + HAMMERS, hammer_main, &hammer);
	cr_assert_eq(wf_u64_load_relaxed(&hammer.started),
		wf_u64_load_relaxed(&hammer.cancelled) + wf_u64_load_relaxed(&hammer.fires));
	cr_assert_gt(wf_u64_load_relaxed(&hammer.fires), 0);
	cr_assert_gt(wf_u64_load_relaxed(&hammer.cancelled), 0);
	for (int i = 0; i < 2; i++)
		pair_end(hammer.pairs[i]);
}

static void *close_at_the_end(void *arg)
{
	weft_clock_driver *driver = arg;
	weft_time now = START;

	while (weft_clock_advance(driver, now += WEFT_US(1), NULL) != WEFT_CLOCK_GONE)
		sched_yield();
	cr_assert_eq(weft_clock_close(driver), 0);
	return NULL;
}

/* The last user and the driver go at once: whichever is last frees, and `sooner` is over then. */
Test(clocks, last_user_and_driver_leave_together, .timeout = 120)
{
	for (int round = 0; round < 2000 / HARNESS_SLOWDOWN; round++) {
		struct weft_clock_shared root = { { 0 } };
		wf_atomic_u64 *wakes = calloc(1, sizeof *wakes);
		struct pair pair = pair_new(&(struct weft_clock_config){
			.size = sizeof(struct weft_clock_config), .kind = WEFT_CLOCK_SHARED,
			.shared = &root, .start = START, .sooner = count_wakes, .ctx = wakes });
		struct weft_clock_timer timer = { { 0 } };
		wf_atomic_u32 fires = { 0 };
		pthread_t thread;

		cr_assert_eq(pthread_create(&thread, NULL, close_at_the_end, pair.driver), 0);
		cr_assert_eq(weft_clock_start(pair.clock, &timer, START, add_one, &fires), 0);
		cr_assert_eq(weft_clock_release(pair.clock), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		cr_assert_eq(wf_u32_load_relaxed(&fires), 1);
		free(wakes);
		cr_assert_eq(root.opaque[1], 0, "the configuration is inactive again");
	}
}

/* --- mistakes, refusals --- */

static int activated(const struct weft_clock_config *config)
{
	weft_clock_driver *driver;
	weft_clock *clock;
	int r = weft_clock_activate(config, &clock, &driver);

	if (r == 0)
		pair_end((struct pair){ clock, driver });
	return r;
}

Test(clocks, wrong_configurations_are_refused)
{
	struct weft_clock_shared root = { { 0 } };
	const struct weft_clock_config good = { .size = sizeof good };
	struct weft_clock_config bad;
	weft_clock *clock;
	struct {
		struct weft_clock_config config;
		uint64_t more;
	} newer = { .config = { .size = sizeof newer } };

	cr_assert_eq(activated(&good), 0);
	bad = good;
	bad.size = 0;
	cr_assert_eq(activated(&bad), -EINVAL);
	bad = good;
	bad.kind = (enum weft_clock_kind)2;
	cr_assert_eq(activated(&bad), -EINVAL);
	bad = good;
	bad.kind = WEFT_CLOCK_SHARED;
	cr_assert_eq(activated(&bad), -EINVAL, "shared with whom");
	bad = good;
	bad.shared = &root;
	cr_assert_eq(activated(&bad), -EINVAL, "isolated ones share nothing");
	cr_assert_eq(weft_clock_find(&good, &clock), -EINVAL);
	bad = good;
	memset(bad.name, 'x', sizeof bad.name);
	cr_assert_eq(activated(&bad), -EINVAL);
	bad = good;
	bad.start = -1;
	cr_assert_eq(activated(&bad), -EINVAL);
	bad.start = (weft_time)1 << 62;
	cr_assert_eq(activated(&bad), -EINVAL);
	bad.start = ((weft_time)1 << 62) - 1;
	cr_assert_eq(activated(&bad), 0);
	cr_assert_eq(activated(&newer.config), 0, "the caller's of a newer release");
}

Test(clocks, wrong_starts_are_refused)
{
	struct pair pair = isolated_new();
	struct timed timed = { 0 };

	cr_assert_eq(weft_clock_start(pair.clock, &timed.timer, START, NULL, NULL), -EINVAL);
	note_start(pair.clock, &timed, 1, START + 5);
	cr_assert_eq(weft_clock_start(pair.clock, &timed.timer, START, note, &timed), -EBUSY);
	cr_assert_eq(weft_clock_cancel(&timed.timer), 1);
	cr_assert_eq(weft_clock_relocate(pair.clock, pair.clock), -EINVAL);
	pair_end(pair);
}

Test(clocks, nothing_is_relocated_to_a_closed_clock)
{
	struct pair from = isolated_new(), to = isolated_new();
	struct timed timed = { 0 };

	note_start(from.clock, &timed, 1, START + 5);
	cr_assert_eq(weft_clock_close(to.driver), 0);
	cr_assert_eq(weft_clock_relocate(from.clock, to.clock), -ESHUTDOWN);
	cr_assert_eq(settled(from, START + WEFT_MS(1)), WEFT_CLOCK_IDLE);
	EXPECT_FIRED(1, -1);
	cr_assert_eq(weft_clock_release(to.clock), 0);
	pair_end(from);
}

#if WF_FAULTS
static int no_memory(long call)
{
	return call == WF_CALL_ALLOCATE ? -ENOMEM : 0;
}
#endif

Test(clocks, without_memory_nothing_is_activated)
{
#if WF_FAULTS
	struct weft_clock_shared root = { { 0 } };
	struct weft_clock_config config = { .size = sizeof config, .kind = WEFT_CLOCK_SHARED,
		.shared = &root };

	wf_ptr_store_release(&wf_fault_hook, (void *)no_memory);
	errno = 77;
	cr_assert_eq(activated(&config), -ENOMEM);
	cr_assert_eq(errno, 77);
	wf_ptr_store_release(&wf_fault_hook, NULL);
	cr_assert_eq(activated(&config), 0, "and the configuration is as before");
#else
	cr_skip_test("nothing fails in release");
#endif
}

/* --- for people --- */

Test(clocks, a_description_tells_how_it_is)
{
	struct weft_clock_config config = { .size = sizeof config, .name = "of tests" };
	struct weft_clock_info info = { .size = sizeof info };
	struct pair pair = pair_new(&config);
	struct timed timed[2] = { 0 };
	weft_time now;

	cr_assert_eq(weft_clock_describe(pair.clock, &info), 0);
	cr_assert_str_eq(info.name, "of tests");
	cr_assert_eq(info.kind, WEFT_CLOCK_ISOLATED);
	cr_assert_eq(info.advanced_ago, WEFT_FOREVER, "never");
	cr_assert(info.driven);
	cr_assert_eq(info.users, 1);
	cr_assert_eq(info.next, WEFT_FOREVER);
	now = weft_now();
	cr_assert_leq(info.now, now, "the time of its activation");
	note_start(pair.clock, &timed[0], 0, now);
	note_start(pair.clock, &timed[1], 1, now + WEFT_SEC(9));
	cr_assert_eq(weft_clock_retain(pair.clock), 0);
	(void)advanced(pair, now - WEFT_SEC(1));
	(void)advanced(pair, now);
	cr_assert_eq(weft_clock_describe(pair.clock, &info), 0);
	cr_assert_eq(info.pending, 2 - fired.count);
	cr_assert_eq(info.fired, fired.count);
	cr_assert_eq(info.users, 2);
	cr_assert_eq(info.now, now);
	cr_assert_leq(info.advanced_ago, weft_now() - now);
	cr_assert_geq(info.advanced_ago, 0);
	cr_assert_eq(weft_clock_cancel(&timed[1].timer), 1);
	cr_assert_eq(weft_clock_release(pair.clock), 0);
	pair_end(pair);
}

Test(clocks, a_description_fits_callers_of_any_release)
{
	struct {
		struct weft_clock_info info;
		uint64_t more;
	} newer = { .info = { .size = sizeof newer }, .more = 5 };
	struct weft_clock_info older = { .size = offsetof(struct weft_clock_info, pending),
		.pending = 99 };
	struct weft_clock_info none = { .size = 0 };
	struct pair pair = isolated_new();

	cr_assert_eq(weft_clock_describe(pair.clock, &newer.info), 0);
	cr_assert_eq(newer.info.size, sizeof newer);
	cr_assert_eq(newer.info.users, 1);
	cr_assert_eq(newer.more, 0);
	cr_assert_eq(weft_clock_describe(pair.clock, &older), 0);
	cr_assert_eq(older.pending, 99, "beyond what it has");
	cr_assert_eq(weft_clock_describe(pair.clock, &none), -EINVAL);
	pair_end(pair);
}
