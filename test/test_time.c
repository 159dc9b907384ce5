/*
 * Goal: what <weft/time.h> promises of deadlines and of the stopwatch: what a call returns when its
 * result and its deadline come at one instant; one deadline for several calls; laps that add up.
 * Method: test runtimes (<weft/test.h>), where time stands while processes run, and two things
 * happen at the same time if told so. All times are whole numbers of timer ticks after the start,
 * so that ticks round nothing. What sleeping promises by itself is in test_wait.c.
 */
#include <errno.h>

#include <weft/test.h>

#include "test/runtime.h"

/* A whole number of timer ticks, whatever the tick (--tick-shift is 20 at most). */
#define UNIT ((weft_time)1 << 20)

static weft_time aligned(weft_time time)
{
	return (time + UNIT - 1) / UNIT * UNIT;
}

/* Runs fn(arg) in a test runtime until nothing is alive. */
static void in_virtual_time(weft_fn fn, void *arg)
{
	weft_rt *rt = NULL;
	weft_pid pid;
	int result = 0;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	cr_assert_eq(weft_rt_spawn(rt, fn, arg, NULL, &pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(3600)), 0);
	cr_assert_eq(weft_try_join(pid, &result), 0);
	cr_assert_eq(result, 1);
	runtime_end(rt);
}

/* ---- Ties ----------------------------------------------------------------------------------- */

struct other {
	weft_time at;
	weft_pid target;
	bool begun;
};

static int ends_at(void *arg)
{
	struct other *other = arg;

	other->begun = true;
	cr_assert_eq(weft_sleep_until(other->at), 0);
	cr_assert_eq(weft_now(), other->at);
	return 7;
}

Test(time, coalesced_deadlines_meet_and_are_late_by_the_slack_at_most)
{
	const weft_time start = WEFT_SEC(1000);
	weft_time met = weft_coalesce(start, WEFT_MS(10));
	unsigned meetings = 1;

	for (weft_time at = start; at < start + WEFT_MS(100); at += WEFT_US(77)) {
		weft_time r = weft_coalesce(at, WEFT_MS(10));

		cr_assert_geq(r, at);
		cr_assert_leq(r, at + WEFT_MS(10));
		meetings += r != met;
		met = r;
	}
	cr_assert_leq(meetings, 1 + 100 / 5, "a power of two is half the slack at least");
	for (weft_time slack = -1; slack <= 1; slack++)
		cr_assert_eq(weft_coalesce(12345, slack), 12345);
	cr_assert_eq(weft_coalesce(12345, 2), 12346);
	cr_assert_eq(weft_coalesce(0, WEFT_SEC(1)), 0);
	cr_assert_eq(weft_coalesce(WEFT_FOREVER, WEFT_SEC(1)), WEFT_FOREVER);
	cr_assert_eq(weft_coalesce(WEFT_FOREVER - 1, WEFT_FOREVER), WEFT_FOREVER - 1);
	cr_assert_eq(weft_coalesce(WEFT_POLL, WEFT_SEC(1)), WEFT_POLL);
	cr_assert_geq(weft_coalesce(1, WEFT_FOREVER), 1);
}

/* A join by the deadline at which its target ends, who was first to wait for that time, or not. */
static int joins_at_its_end(void *arg)
{
	bool first = *(bool *)arg;
	struct other other = {.at = aligned(weft_now()) + 10 * UNIT};
	weft_pid pid = spawned(ends_at, &other);
	int result = 0;

	while (first && !other.begun)
		cr_assert_eq(weft_yield(), 0);
	cr_assert_eq(weft_join(pid, &result, other.at), first ? 0 : -ETIME);
	cr_assert_eq(weft_now(), other.at, "neither came early, nor late");
	cr_assert_eq(result, first ? 7 : 0);
	if (!first) /* The call has taken nothing. */
		cr_assert_eq(joined(pid), 7);
	cr_assert_eq(weft_now(), other.at);
	return 1;
}

Test(time, a_join_beats_its_deadline, .timeout = 120)
{
	for (int first = 0; first < 2; first++)
		in_virtual_time(joins_at_its_end, &(bool){first});
}

static int wakes_at(void *arg)
{
	struct other *other = arg;

	other->begun = true;
	cr_assert_eq(weft_sleep_until(other->at), 0);
	return weft_wake(other->target);
}

static int parks_until_woken(void *arg)
{
	bool first = *(bool *)arg;
	struct other other = {.at = aligned(weft_now()) + 10 * UNIT, .target = weft_self()};
	weft_pid pid = spawned(wakes_at, &other);

	while (first && !other.begun)
		cr_assert_eq(weft_yield(), 0);
	cr_assert_eq(weft_park(other.at), first ? 0 : -ETIME);
	cr_assert_eq(weft_now(), other.at);
	if (!first) /* The wake is for the next one. */
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	cr_assert_eq(weft_park(WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_now(), other.at);
	return joined(pid) == 0;
}

Test(time, a_wake_beats_the_deadline_of_a_park, .timeout = 120)
{
	for (int first = 0; first < 2; first++)
		in_virtual_time(parks_until_woken, &(bool){first});
}

/* The bytes are on their way, and arrive at the reader's deadline. */
static int reads_at_arrival(void *arg)
{
	int listener = weft_listen("mem:", 0), client, server;
	char address[WEFT_ADDRESS_MAX], byte = 0;
	weft_time arrival, sent;

	(void)arg;
	cr_assert_geq(listener, 0);
	cr_assert_geq(weft_local_address(listener, address, sizeof address), 0);
	client = weft_connect(address, WEFT_FOREVER);
	cr_assert_geq(client, 0);
	server = weft_accept(listener, WEFT_FOREVER);
	cr_assert_geq(server, 0);
	for (unsigned i = 0; i < 2; i++) {
		sent = aligned(weft_now() + 1);
		arrival = sent + 10 * UNIT;
		cr_assert_eq(weft_sleep_until(sent), 0);
		cr_assert_eq(weft_write(client, "!", 1, WEFT_FOREVER), 1);
		cr_assert_eq(weft_read(server, &byte, 1, arrival - UNIT), -ETIME);
		cr_assert_eq(weft_now(), arrival - UNIT);
		if (i == 1) /* Both are over when it looks. */
			cr_assert_eq(weft_sleep_until(arrival), 0);
		cr_assert_eq(weft_read(server, &byte, 1, arrival), 1);
		cr_assert_eq(weft_now(), arrival);
	}
	cr_assert_eq(weft_close(client) | weft_close(server) | weft_close(listener), 0);
	return 1;
}

Test(time, what_arrives_beats_the_deadline_of_a_read, .timeout = 120)
{
	struct weft_mem_opts slow = {.size = sizeof slow, .latency_min_ns = 10 * UNIT,
		.latency_max_ns = 10 * UNIT};

	cr_assert_eq(weft_mem_setup(&slow), 0);
	in_virtual_time(reads_at_arrival, NULL);
}

/* ---- One deadline for several calls --------------------------------------------------------- */

static int bounds_several(void *arg)
{
	weft_time start = aligned(weft_now()), deadline;
	struct other early = {.at = start + 30 * UNIT}, late = {.at = start + 80 * UNIT};
	weft_pid first = spawned(ends_at, &early), second = spawned(ends_at, &late);
	int result = 0;

	(void)arg;
	cr_assert_eq(weft_sleep_until(start), 0);
	deadline = weft_after(50 * UNIT);
	cr_assert_eq(deadline, start + 50 * UNIT);
	cr_assert_eq(weft_join(first, &result, deadline), 0);
	cr_assert_eq(weft_now(), start + 30 * UNIT);
	cr_assert_eq(weft_join(second, &result, deadline), -ETIME);
	cr_assert_eq(weft_now(), deadline, "the first has used up a part");
	cr_assert_eq(weft_join(second, &result, deadline), -ETIME, "at once, from now on");
	cr_assert_eq(weft_now(), deadline);
	cr_assert_eq(joined(second), 7);
	return 1;
}

Test(time, one_deadline_bounds_several_calls, .timeout = 120)
{
	in_virtual_time(bounds_several, NULL);
}

static int adds_delays(void *arg)
{
	weft_time now = weft_now();

	(void)arg;
	cr_assert_eq(weft_after(0), now);
	cr_assert_eq(weft_after(-1), now);
	cr_assert_eq(weft_after(WEFT_POLL), now);
	cr_assert_eq(weft_after(1), now + 1);
	cr_assert_eq(weft_after(WEFT_FOREVER), WEFT_FOREVER);
	cr_assert_eq(weft_after(WEFT_FOREVER - 1), WEFT_FOREVER);
	cr_assert_eq(weft_after(WEFT_FOREVER - now), WEFT_FOREVER);
	cr_assert_eq(weft_after(WEFT_FOREVER - now - 1), WEFT_FOREVER - 1);
	return 1;
}

Test(time, after_ends_with_time, .timeout = 120)
{
	in_virtual_time(adds_delays, NULL);
}

/* ---- The stopwatch -------------------------------------------------------------------------- */

static int stops_time(void *arg)
{
	weft_time start = aligned(weft_now());
	struct weft_stopwatch watch, lap;

	(void)arg;
	cr_assert_eq(weft_sleep_until(start), 0);
	watch = lap = weft_stopwatch_start();
	cr_assert_eq(weft_stopwatch_elapsed(&watch), 0);
	cr_assert_eq(weft_sleep_until(start + 3 * UNIT), 0);
	cr_assert_eq(weft_stopwatch_elapsed(&watch), 3 * UNIT);
	cr_assert_eq(weft_stopwatch_lap(&lap), 3 * UNIT);
	cr_assert_eq(weft_stopwatch_lap(&lap), 0);
	cr_assert_eq(weft_sleep_until(start + 7 * UNIT), 0);
	cr_assert_eq(weft_stopwatch_lap(&lap), 4 * UNIT);
	cr_assert_eq(weft_stopwatch_elapsed(&watch), 7 * UNIT);
	return 1;
}

Test(time, a_stopwatch_goes_by_virtual_time, .timeout = 120)
{
	in_virtual_time(stops_time, NULL);
}

Test(time, laps_add_up)
{
	struct weft_stopwatch watch = weft_stopwatch_start(), lap = watch;
	weft_time sum = 0, whole;

	for (int i = 0; i < 1000; i++) {
		weft_time each = weft_stopwatch_lap(&lap);

		cr_assert_geq(each, 0);
		sum += each;
	}
	cr_assert_eq(sum, lap.start - watch.start);
	whole = weft_stopwatch_elapsed(&watch);
	cr_assert_geq(whole, sum);
	cr_assert_leq(whole, weft_now() - watch.start);
}
