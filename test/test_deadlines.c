/*
 * Goal: deadlines of sticky processes. One that was met by a wake leaves its timer on the wheel;
 * nobody notices: each wait ends at its own deadline or by a wake, processes end with timers armed,
 * virtual time goes where somebody waits, and nowhere else.
 * Method: test runtimes, with virtual time and so exact; the wheel itself, where how often it wants
 * to be asked counts; the worker's wheel, looked at by the process that runs on it.
 */
#include <errno.h>
#include <stdlib.h>

#include <weft.h>
#include <weft/test.h>

#include "core/runtime.h"
#include "test/harness.h"

enum {
	CONNECTIONS = 10000,
	LAPS = 20,
};

static weft_rt *test_rt(void)
{
	weft_rt *rt = NULL;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	return rt;
}

static weft_pid spawned(weft_rt *rt, weft_fn fn, void *arg)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_rt_spawn(rt, fn, arg, NULL, &pid), 0);
	return pid;
}

static void end(weft_rt *rt)
{
	cr_assert_eq(weft_rt_destroy(rt, WEFT_FOREVER), 0);
}

/* ---- timers that stay ------------------------------------------------------------------------ */

static uint64_t timers(void)
{
	return wf_wheel_count(&wf_worker_self()->wheel);
}

static int wakes_back(void *arg)
{
	int r;

	do
		(void)weft_wake(*(weft_pid *)arg);
	while ((r = weft_park(WEFT_FOREVER)) == 0);
	return r;
}

/* Parks as the connections of a server do: again and again, each time for 30 s from then. */
static int echo_like(void *arg)
{
	weft_pid self = weft_self(), peer;

	(void)arg;
	cr_assert_eq(weft_spawn(wakes_back, &self, &peer), 0);
	for (int i = 0; i < LAPS; i++) {
		weft_time deadline = weft_after(WEFT_SEC(30));

		cr_assert_eq(weft_park(deadline), 0);
		cr_assert_eq(timers(), 1, "it is left there");
		cr_assert_eq(wf_worker_self()->current->timer.deadline_ns, deadline);
		(void)weft_wake(peer);
	}
	cr_assert_eq(weft_park(weft_after(WEFT_MS(1))), 0);
	(void)weft_wake(peer);
	cr_assert_eq(weft_park(WEFT_FOREVER), 0, "what is armed counts no more");
	cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(2))), 0, "an earlier one");
	cr_assert_eq(timers(), 0);
	cr_assert_eq(weft_park(weft_after(WEFT_MS(1))), -ETIME);
	(void)weft_wake(peer);
	cr_assert_eq(weft_park(weft_after(WEFT_SEC(30))), 0);
	cr_assert_eq(timers(), 1);
	cr_assert_eq(weft_cancel(peer), 0);
	return 0;
}

static int expects_no_timers(void *arg)
{
	(void)arg;
	return (int)timers();
}

Test(deadlines, a_timer_stays_armed_over_wakes_and_goes_with_its_process)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .workers = 1};
	int result = -1;
	weft_pid pid;
	weft_rt *rt;

	cr_assert_eq(weft_rt_create(&opts, &rt), 0);
	pid = spawned(rt, echo_like, NULL);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 0);
	pid = spawned(rt, expects_no_timers, NULL);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	end(rt);
}

/* A timer that nobody waits for fires: no process runs for it. */
static int leaves_a_timer(void *arg)
{
	weft_time delay = WEFT_MS(5);

	/* On a slow machine the wake comes too late: then for a wake that comes later still. */
	while (weft_park(weft_after(delay)) == -ETIME) {
		if (arg)
			*(unsigned *)arg += 1;
		delay *= 2;
	}
	return weft_park(WEFT_FOREVER);
}

static uint64_t fired(weft_rt *rt)
{
	return wf_u64_load_relaxed(&rt->workers[0].counters.timers_fired);
}

Test(deadlines, a_timer_that_nobody_waits_for_wakes_nobody)
{
	struct weft_rt_opts opts = {
		.size = sizeof(opts), .flags = WEFT_RT_EMBEDDED, .idle = WEFT_IDLE_PARK};
	unsigned late = 0;
	uint64_t picks;
	weft_pid pid;
	weft_rt *rt;

	cr_assert_eq(weft_rt_create(&opts, &rt), 0);
	pid = spawned(rt, leaves_a_timer, &late);
	while (weft_rt_poll(rt, WEFT_POLL) > 0)
		;
	cr_assert_eq(weft_wake(pid), 0);
	while (weft_rt_poll(rt, WEFT_POLL) > 0)
		;
	picks = wf_u64_load_relaxed(&rt->workers[0].counters.picks);
	while (fired(rt) <= late)
		cr_assert_geq(weft_rt_poll(rt, weft_after(WEFT_SEC(10))), 0);
	cr_assert_eq(wf_u64_load_relaxed(&rt->workers[0].counters.picks), picks);
	cr_assert_eq(weft_wake(pid), 0);
	end(rt);
}

/* ---- virtual time ---------------------------------------------------------------------------- */

Test(deadlines, virtual_time_does_not_go_to_a_deadline_that_is_over)
{
	weft_rt *rt = test_rt();
	weft_pid pid = spawned(rt, leaves_a_timer, NULL);

	weft_test_run_until_idle(rt);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), -EDEADLK, "nothing can fall due");
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), 0);
	end(rt);
}

/* The same of a task, which looks by which call it waits. */
static int task_leaves_a_timer(void *arg)
{
	int *step = arg;
	int r;

	if (*step == 0) {
		r = weft_park(WEFT_TEST_START + WEFT_MS(5));
		if (r != 0)
			return r;
		*step = 1;
	}
	return weft_park(WEFT_FOREVER);
}

Test(deadlines, virtual_time_does_not_go_to_a_tasks_deadline_that_is_over)
{
	struct weft_spawn_opts pinned = {.size = sizeof(pinned), .flags = WEFT_PINNED};
	weft_rt *rt = test_rt();
	int step = 0;
	weft_pid pid;

	cr_assert_eq(weft_rt_task_spawn(rt, task_leaves_a_timer, &step, &pinned, &pid), 0);
	weft_test_run_until_idle(rt);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), -EDEADLK);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	cr_assert_eq(step, 1);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), 0);
	end(rt);
}

/* On the shared wheel: movable fibers, tasks, and timers of the program's own. */
Test(deadlines, virtual_time_does_not_go_to_what_was_on_the_shared_wheel)
{
	struct weft_spawn_opts movable = {.size = sizeof(movable), .flags = WEFT_MOVABLE};
	weft_rt *rt = test_rt();
	int step = 0;
	weft_pid fiber, task;

	cr_assert_eq(weft_rt_spawn(rt, leaves_a_timer, NULL, &movable, &fiber), 0);
	cr_assert_eq(weft_rt_task_spawn(rt, task_leaves_a_timer, &step, NULL, &task), 0);
	weft_test_run_until_idle(rt);
	cr_assert_eq(weft_wake(fiber), 0);
	cr_assert_eq(weft_wake(task), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_MS(1)), -EDEADLK, "nothing can fall due");
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	cr_assert_eq(step, 1);
	cr_assert_eq(weft_wake(fiber), 0);
	cr_assert_eq(weft_wake(task), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), 0);
	end(rt);
}

static void not_called(void *arg)
{
	cr_assert_fail("%s", (const char *)arg);
}

static int parks_for_ever(void *arg)
{
	(void)arg;
	return weft_park(WEFT_FOREVER);
}

Test(deadlines, virtual_time_does_not_go_to_where_a_timer_was)
{
	static char text[] = "it was stopped, or moved";
	weft_rt *rt = test_rt();
	weft_pid pid = spawned(rt, parks_for_ever, NULL);
	weft_time deadline = WEFT_TEST_START + WEFT_MS(5);
	struct weft_timer stopped = {{0}}, moved = {{0}};

	cr_assert_eq(weft_timer_start(&stopped, rt, deadline, not_called, text), 0);
	cr_assert_eq(weft_timer_start(&moved, rt, deadline, not_called, text), 0);
	weft_test_run_until_idle(rt);
	cr_assert_eq(weft_timer_stop(&stopped), 1);
	cr_assert_eq(weft_timer_move(&moved, WEFT_FOREVER), 1);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), -EDEADLK);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), 0);
	end(rt);
}

static int ends_at_once(void *arg)
{
	(void)arg;
	return 0;
}

/* A header that was given up waits for others, for a time that is nobody's deadline. */
Test(deadlines, virtual_time_does_not_go_to_housekeeping)
{
	weft_rt *rt = test_rt();
	weft_pid pid = spawned(rt, parks_for_ever, NULL);

	cr_assert_eq(weft_rt_spawn(rt, ends_at_once, NULL, NULL, NULL), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), -EDEADLK);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), 0);
	end(rt);
}

/* ---- slack ----------------------------------------------------------------------------------- */

/* The time of a test runtime when what is asked for that time comes: at the end of a tick. */
static weft_time tick_end(weft_time time)
{
	return (weft_time)(wf_wheel_tick_of(time) << WF_TICK_SHIFT);
}

static weft_time rounded(weft_time time, weft_time multiple)
{
	return tick_end((time + multiple - 1) / multiple * multiple);
}

struct timeout {
	weft_time deadline, ended;
	bool sleeps;
};

static int times_out(void *arg)
{
	struct timeout *timeout = arg;
	int fd;

	if (timeout->sleeps) {
		cr_assert_eq(weft_sleep_until(timeout->deadline), 0);
	} else {
		fd = weft_listen("mem:", 0);
		cr_assert_geq(fd, 0, "%d", fd);
		cr_assert_eq(weft_accept(fd, timeout->deadline), -ETIME);
		cr_assert_eq(weft_close(fd), 0);
	}
	timeout->ended = weft_now();
	return 0;
}

static void is_ended_at(weft_time slack_ns, bool sleeps, weft_time deadline, weft_time ended)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .timer_slack_ns = slack_ns};
	struct timeout timeout = {.deadline = deadline, .sleeps = sleeps};
	weft_rt *rt;

	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	(void)spawned(rt, times_out, &timeout);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1000)), 0);
	cr_assert_eq(timeout.ended, ended, "%lld ns late, not %lld",
		(long long)(timeout.ended - deadline), (long long)(ended - deadline));
	end(rt);
}

/* Half a millisecond and a bit is the power of two in 1 ms. */
Test(deadlines, what_waits_for_io_ends_late_by_the_slack_and_never_early)
{
	weft_time now = WEFT_TEST_START, far = now + WEFT_SEC(30) + 1;

	is_ended_at(0, false, far, rounded(far, 1 << 19));
	is_ended_at(WEFT_MS(100), false, far, rounded(far, 1 << 26));
	is_ended_at(1, false, far, tick_end(far));
	is_ended_at(0, false, rounded(far, 1 << 19), rounded(far, 1 << 19));
}

/* An eighth of 3 ms is less than the power of two in 1 ms; of 100 us, of 5 us too. */
Test(deadlines, a_near_one_is_late_by_an_eighth_at_most)
{
	weft_time now = WEFT_TEST_START;

	is_ended_at(0, false, now + WEFT_MS(3), rounded(now + WEFT_MS(3), 1 << 18));
	is_ended_at(0, false, now + WEFT_US(100), rounded(now + WEFT_US(100), 1 << 13));
	is_ended_at(0, false, now + WEFT_US(5), tick_end(now + WEFT_US(5)));
}

Test(deadlines, a_sleep_has_no_slack_but_its_tick)
{
	weft_time now = WEFT_TEST_START;

	is_ended_at(0, true, now + WEFT_SEC(30) + 1, tick_end(now + WEFT_SEC(30) + 1));
	is_ended_at(WEFT_SEC(1), true, now + 1, tick_end(now + 1));
}

Test(deadlines, neighbours_end_together)
{
	struct timeout timeouts[50] = {{0}};
	weft_rt *rt = test_rt();
	unsigned instants = 1;

	for (int i = 0; i < 50; i++) {
		timeouts[i].deadline = WEFT_TEST_START + WEFT_SEC(5) + i * WEFT_US(10);
		(void)spawned(rt, times_out, &timeouts[i]);
	}
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(10)), 0);
	for (int i = 1; i < 50; i++)
		instants += timeouts[i].ended != timeouts[i - 1].ended;
	cr_assert_leq(instants, 2);
	end(rt);
}

/* ---- precise sleeps -------------------------------------------------------------------------- */

static int sleeps_precisely(void *arg)
{
	weft_time deadline = weft_after(WEFT_MS(2));
	int r = weft_sleep_precise(deadline);

	if (r == 0)
		cr_assert_geq(weft_now(), deadline, "early");
	*(weft_time *)arg = weft_now();
	return r;
}

static int task_sleeps_precisely(void *arg)
{
	weft_time *deadline = arg;
	int r;

	if (*deadline == 0)
		*deadline = weft_after(WEFT_MS(2));
	r = weft_sleep_precise(*deadline);
	if (r == 0)
		cr_assert_geq(weft_now(), *deadline, "early");
	return r;
}

/* Runs while the other spins, however long that takes: it is the last to be given a turn. */
static int runs_meanwhile(void *arg)
{
	unsigned *runs = arg;

	while (*runs < 1000 && weft_yield() == 0)
		++*runs;
	return 0;
}

Test(deadlines, a_precise_sleep_is_never_early_and_holds_up_nobody)
{
	struct weft_rt_opts opts = {
		.size = sizeof(opts), .workers = 1, .precise_spin_ns = WEFT_MS(1)};
	weft_time ended, deadline = 0;
	weft_pid sleeper, task, other;
	unsigned runs = 0;
	int result = -1;
	weft_rt *rt;

	cr_assert_eq(weft_sleep_precise(0), -EPERM);
	cr_assert_eq(weft_rt_create(&opts, &rt), 0);
	sleeper = spawned(rt, sleeps_precisely, &ended);
	cr_assert_eq(weft_rt_task_spawn(rt, task_sleeps_precisely, &deadline, NULL, &task), 0);
	other = spawned(rt, runs_meanwhile, &runs);
	cr_assert_eq(weft_join(other, NULL, WEFT_FOREVER), 0);
	cr_assert_eq(weft_join(sleeper, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(weft_join(task, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(runs, 1000);
	cr_assert_eq(weft_rt_run(rt), 0);
	end(rt);
}

static int sleeps_precisely_for(void *arg)
{
	return weft_sleep_precise(weft_after(*(weft_time *)arg));
}

/* Cancelled while it sleeps, and while it spins, if it is not too late for that. */
Test(deadlines, a_precise_sleep_can_be_cancelled)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .workers = 1};
	weft_time delay;
	weft_rt *rt;

	for (int spins = 0; spins < 2; spins++) {
		weft_pid pid;
		int result = 0;

		opts.precise_spin_ns = spins ? WEFT_MS(1) : 1;
		cr_assert_eq(weft_rt_create(&opts, &rt), 0);
		delay = spins ? WEFT_US(900) : WEFT_SEC(3600);
		pid = spawned(rt, sleeps_precisely_for, &delay);
		cr_assert_eq(weft_cancel(pid), 0);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
		cr_assert(result == -ECANCELED || (spins && result == 0), "%d", result);
		cr_assert_eq(weft_rt_run(rt), 0);
		end(rt);
	}
}

Test(deadlines, a_precise_sleep_in_virtual_time_spins_not)
{
	weft_rt *rt = test_rt();
	weft_time ended = 0;

	(void)spawned(rt, sleeps_precisely, &ended);
	cr_assert_leq(weft_test_advance(rt, WEFT_SEC(1)), 2, "its runs");
	cr_assert_eq(ended, tick_end(WEFT_TEST_START + WEFT_MS(2)));
	end(rt);
}

/* ---- many sleeps ----------------------------------------------------------------------------- */

enum {
	CROWD = 4000,
	CROWD_GAP_US = 10,
};

static weft_time crowd_start;

static int sleeps_in_a_crowd(void *arg)
{
	weft_time deadline = crowd_start + (weft_time)(uintptr_t)arg * WEFT_US(CROWD_GAP_US);

	cr_assert_eq(weft_sleep_until(deadline), 0);
	cr_assert_geq(weft_now(), deadline, "early");
	return 0;
}

static int makes_a_crowd(void *arg)
{
	static weft_pid pids[CROWD];

	crowd_start = weft_after(WEFT_MS(200));
	for (uintptr_t i = 0; i < CROWD; i++)
		cr_assert_eq(weft_spawn(sleeps_in_a_crowd, (void *)i, &pids[i]), 0);
	for (unsigned i = 0; i < CROWD; i++)
		cr_assert_eq(weft_join(pids[i], NULL, WEFT_FOREVER), 0);
	*(uint64_t *)arg = wf_u64_load_relaxed(&wf_worker_self()->counters.parks);
	return 0;
}

/* Each 10 us one ends; by itself it would have a sleep of its own. */
Test(deadlines, sleeps_of_many_share_a_workers)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .workers = 1, .idle = WEFT_IDLE_PARK};
	uint64_t parks = 0;
	weft_pid pid;
	weft_rt *rt;

	cr_assert_eq(weft_rt_create(&opts, &rt), 0);
	pid = spawned(rt, makes_a_crowd, &parks);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	cr_assert_lt(parks, CROWD * CROWD_GAP_US / 50, "%llu", (unsigned long long)parks);
	cr_assert_eq(weft_rt_run(rt), 0);
	end(rt);
}

/* ---- what a later deadline costs an idle worker ------------------------------------*/

/* The nth of numbers without order, the same each time. */
static int64_t mixed(uint64_t n)
{
	n = (n ^ n >> 31) * 0x9e3779b97f4a7c15u;
	return (int64_t)((n ^ n >> 29) >> 1);
}

/*
 * Connections that are idle after a minute in which each had something to read about every 3 s, a
 * deadline of 30 s each time. Counts how often a worker that sleeps as the wheel says is woken
 * until the first of the deadlines: by what was moved later.
 */
Test(deadlines, what_was_moved_later_costs_few_sleeps)
{
	static struct wf_wheel wheel;
	static struct wf_timer timers[CONNECTIONS];
	weft_time now = WEFT_SEC(1), next, first;
	unsigned sleeps = 0;

	wf_wheel_init(&wheel, now);
	for (uint64_t i = 0; i < 20 * CONNECTIONS; i++) {
		now += WEFT_SEC(60) / (20 * CONNECTIONS);
		wf_wheel_advance(&wheel, now);
		while (wf_wheel_pop_due(&wheel))
			; /* closed: was silent for 30 s */
		wf_wheel_move(&wheel, &timers[mixed(i) % CONNECTIONS], now + WEFT_SEC(30));
	}
	first = WEFT_FOREVER;
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (wf_timer_is_pending(&timers[i]) && timers[i].deadline_ns < first)
			first = timers[i].deadline_ns;
	while ((next = wf_wheel_next(&wheel)) < first) {
		sleeps += next > now;
		now = next > now ? next : now + WEFT_US(2);
		wf_wheel_advance(&wheel, now);
		cr_assert_null(wf_wheel_pop_due(&wheel), "early");
	}
	cr_assert_lt(sleeps, CONNECTIONS / 200, "%u", sleeps);
}
