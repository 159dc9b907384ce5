/*
 * timer/clocks.c: shared clocks. A timer fires or is cancelled, never both, wherever it has been
 * relocated to meanwhile; a node is its owner's once a cancel has returned; who waits for a
 * callback wakes up when it is over; and last user, driver and `sooner` part without touching what
 * another has freed. Rows T5, T9, T13, T14 of clocks.
 *
 * Clocks, nodes and the driver's own memory are the simulation's, which finds whoever touches them
 * too late: so clocks.c is included, with its malloc replaced.
 */
#include "test/sim/sim.h"

#include <stdlib.h>

static int clock_allocate(void **memory_out, size_t alignment, size_t bytes);
static void clock_release(void *memory);

#define posix_memalign clock_allocate
#define free           clock_release
#include "timer/clocks.c"
#undef posix_memalign
#undef free

enum { TIMERS = 3, START = 1000000 };

static int clock_allocate(void **memory_out, size_t alignment, size_t bytes)
{
	*memory_out = sim_alloc(alignment, bytes, -1);
	return 0;
}

static void clock_release(void *memory)
{
	sim_free(memory, sizeof(struct weft_clock));
}

int64_t wf_clock_now_ns(void)
{
	return START + sim_now();
}

/* A timer that knows what has become of it. */
struct watched {
	struct weft_clock_timer *timer; /* sim_alloc()'s */
	unsigned starts, fires, cancels;
	wf_atomic_u32 running;
};

static struct {
	struct weft_clock_shared roots[2];
	struct weft_clock_config config[2];
	weft_clock *clocks[2];
	weft_clock_driver *drivers[2];
	struct watched timers[TIMERS];
	wf_atomic_u32 *token; /* of the driver that sleeps: sim_alloc()'s */
	unsigned advances;
} s;

static void sooner(void *ctx, weft_time when)
{
	wf_atomic_u32 *token = ctx;

	(void)when;
	(void)wf_u32_exchange(token, 1);
	wf_futex_wake(token, 1);
}

static void setup_clock(unsigned i, bool tells)
{
	s.config[i] = (struct weft_clock_config){ .size = sizeof s.config[i],
		.kind = WEFT_CLOCK_SHARED, .shared = &s.roots[i], .start = START };
	if (tells) {
		s.config[i].sooner = sooner;
		s.config[i].ctx = s.token;
	}
	sim_check(weft_clock_activate(&s.config[i], &s.clocks[i], &s.drivers[i]) == 0, "no clock");
}

static void setup(void)
{
	memset(&s, 0, sizeof s);
	for (unsigned i = 0; i < TIMERS; i++)
		s.timers[i].timer = sim_alloc(8, sizeof(struct weft_clock_timer), 0);
}

/* --- timers --- */

static void fires(void *arg)
{
	struct watched *watched = arg;

	wf_u32_store_relaxed(&watched->running, 1);
	watched->fires++;
	wf_pause();
	wf_u32_store_relaxed(&watched->running, 0);
}

static void start(struct watched *watched, unsigned clock, int64_t deadline)
{
	int r = weft_clock_start(s.clocks[clock], watched->timer, deadline, fires, watched);

	sim_check(r == 0, "a start gives %d", r);
	watched->starts++;
}

static void cancel(struct watched *watched)
{
	int r = weft_clock_cancel(watched->timer);

	sim_check(r == 0 || r == 1, "a cancel gives %d", r);
	watched->cancels += (unsigned)r;
}

/* Its owner's last word. */
static void cancel_and_free(struct watched *watched)
{
	int r = weft_clock_cancel_wait(watched->timer, WEFT_FOREVER);

	sim_check(r == 0 || r == 1, "a cancel that waits gives %d", r);
	watched->cancels += (unsigned)r;
	sim_check(wf_u32_load_acquire(&watched->running) == 0, "its callback runs still");
	sim_check(watched->starts == watched->fires + watched->cancels,
		"%u starts, %u fires, %u cancels", watched->starts, watched->fires,
		watched->cancels);
	sim_free(watched->timer, sizeof *watched->timer);
}

static void advance_some(unsigned clock, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		int r = weft_clock_advance(
			s.drivers[clock], START + (int64_t)(++s.advances) * WF_WHEEL_TICK_NS, NULL);

		sim_check(r >= 0, "an advance gives %d", r);
	}
}

static void end_clock(unsigned i)
{
	sim_check(weft_clock_release(s.clocks[i]) == 0, "not released");
	sim_check(weft_clock_close(s.drivers[i]) == 0, "not closed");
}

/* --- cancel beside fire --- */

static void setup_one(void)
{
	setup();
	setup_clock(0, false);
}

static void cancelling(unsigned number)
{
	if (number == 0) {
		advance_some(0, 4);
		return;
	}
	if (number == 1) {
		for (unsigned i = 0; i < TIMERS - 1; i++)
			start(&s.timers[i], 0, START + (int64_t)(i + 1) * WF_WHEEL_TICK_NS);
		(void)weft_clock_move(s.timers[1].timer, START + WF_WHEEL_TICK_NS);
		cancel(&s.timers[0]);
		if (sim_random(2) && weft_clock_cancel_wait(s.timers[0].timer, WEFT_FOREVER) == 0)
			start(&s.timers[0], 0, START);
		for (unsigned i = 0; i < TIMERS - 1; i++)
			cancel_and_free(&s.timers[i]);
		return;
	}
	start(&s.timers[2], 0, START + WF_WHEEL_TICK_NS);
	cancel_and_free(&s.timers[2]);
}

static void check_one(void)
{
	end_clock(0);
	sim_check(sim_allocated_bytes() == 0, "something is left");
}

static const struct sim_scenario cancels = {
	"cancels beside a driver", 3, setup_one, cancelling, NULL, check_one, 0};

SIM_TEST(clocks, a_timer_fires_or_is_cancelled)
{
	sim_must_pass(&cancels, 30000);
}

/* --- relocation --- */

static void setup_two(void)
{
	setup();
	setup_clock(0, false);
	setup_clock(1, false);
	for (unsigned i = 0; i < TIMERS; i++)
		start(&s.timers[i], i % 2, START + (int64_t)(i + 1) * WF_WHEEL_TICK_NS);
}

static void relocating(unsigned number)
{
	if (number == 0) {
		advance_some(0, 2);
		advance_some(1, 2);
		return;
	}
	if (number == 1) {
		sim_check(weft_clock_relocate(s.clocks[0], s.clocks[1]) == 0, "not relocated");
		sim_check(weft_clock_relocate(s.clocks[1], s.clocks[0]) == 0, "not relocated");
		return;
	}
	(void)weft_clock_move(s.timers[1].timer, START + WF_WHEEL_TICK_NS);
	for (unsigned i = 0; i < TIMERS; i++)
		cancel_and_free(&s.timers[i]);
}

static void check_two(void)
{
	end_clock(0);
	end_clock(1);
	sim_check(sim_allocated_bytes() == 0, "something is left");
}

static const struct sim_scenario relocates = {
	"cancels beside a relocation", 3, setup_two, relocating, NULL, check_two, 0};

SIM_TEST(clocks, a_timer_is_found_wherever_it_is_relocated)
{
	sim_must_pass(&relocates, 30000);
}

/* --- the end --- */

static void setup_sleeping(void)
{
	setup();
	s.token = sim_alloc(8, sizeof *s.token, 0);
	setup_clock(0, true);
	sim_check(weft_clock_retain(s.clocks[0]) == 0, "not retained");
}

/* Sleeps for as long as it was told, and learns from sooner() of all else. */
static void drive(void)
{
	int64_t now = START, next;

	while (weft_clock_advance(s.drivers[0], now, &next) != WEFT_CLOCK_GONE) {
		if (next != WEFT_FOREVER) {
			now = next > now ? next : now;
			continue;
		}
		while (wf_u32_exchange(s.token, 0) == 0)
			(void)wf_futex_sleep(s.token, 0, WF_FUTEX_FOREVER);
	}
	sim_check(weft_clock_close(s.drivers[0]) == 0, "not closed");
	sim_free(s.token, sizeof *s.token);
}

static void leaving(unsigned number)
{
	if (number == 0) {
		drive();
		return;
	}
	start(&s.timers[number - 1], 0, START + WF_WHEEL_TICK_NS * number);
	if (number == 2)
		cancel(&s.timers[1]);
	sim_check(weft_clock_release(s.clocks[0]) == 0, "not released");
}

static void check_left(void)
{
	weft_clock *clock;

	for (unsigned i = 0; i < TIMERS; i++) {
		sim_check(s.timers[i].starts == s.timers[i].fires + s.timers[i].cancels,
			"timer %u is lost", i);
		sim_free(s.timers[i].timer, sizeof *s.timers[i].timer);
	}
	sim_check(weft_clock_find(&s.config[0], &clock) == -ENOENT, "it is active still");
	sim_check(sim_allocated_bytes() == 0, "something is left");
}

static const struct sim_scenario leaves = {
	"two users leave a driver that sleeps", 3, setup_sleeping, leaving, NULL, check_left, 0};

SIM_TEST(clocks, a_sleeping_driver_learns_of_all_and_ends)
{
	sim_must_pass(&leaves, 30000);
}

/* --- planted --- */

SIM_TEST(clocks, planted_cancel_looks_once)
{
	sim_must_find(&cancels, WF_PLANTED_clock_cancel_looks_once, 1000);
	sim_must_find(&relocates, WF_PLANTED_clock_cancel_looks_once, 1000);
}

SIM_TEST(clocks, planted_waiter_is_not_counted)
{
	sim_must_find(&cancels, WF_PLANTED_clock_waiter_is_not_counted, 10000);
}

SIM_TEST(clocks, planted_close_waits_for_nobody)
{
	sim_must_find(&leaves, WF_PLANTED_clock_close_waits_for_nobody, 10000);
}

SIM_TEST(clocks, planted_last_release_tells_nobody)
{
	sim_must_find(&leaves, WF_PLANTED_clock_last_release_tells_nobody, 1000);
}
