/*
 * Goal: what <weft/test.h> promises: time that moves only when told, deadline by deadline; steps
 * that are counted; failures where they were asked for, each reported and nothing left behind; the
 * same each time.
 * Method: small programs in test runtimes, with the public header. What they do is written down as
 * text, and compared. Real time is looked at only to see that hours took none.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <weft.h>
#include <weft/test.h>

#include "test/harness.h"

/* ---- Tools ---------------------------------------------------------------------------------- */

static struct {
	size_t length;
	char text[4096];
} story;

static void tell(const char *text)
{
	int n = snprintf(story.text + story.length, sizeof(story.text) - story.length, "%s ", text);

	cr_assert(n > 0 && (size_t)n < sizeof(story.text) - story.length);
	story.length += (size_t)n;
}

static void story_is(const char *expected)
{
	cr_assert_str_eq(story.text, expected);
	story.length = 0;
	story.text[0] = '\0';
}

static weft_rt *test_rt(void)
{
	weft_rt *rt = NULL;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	return rt;
}

static weft_pid rt_spawned(weft_rt *rt, weft_fn fn, const void *arg)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_rt_spawn(rt, fn, (void *)(uintptr_t)arg, NULL, &pid), 0);
	return pid;
}

static int joined(weft_pid pid)
{
	int result = 0;

	cr_assert_eq(weft_try_join(pid, &result), 0);
	return result;
}

static void end(weft_rt *rt)
{
	cr_assert_eq(weft_rt_destroy(rt, WEFT_FOREVER), 0);
}

/* ---- Time ----------------------------------------------------------------------------------- */

/* "7h": sleeps seven hours, and tells that. */
static int sleep_hours(void *arg)
{
	int r = weft_sleep_until(weft_after(WEFT_SEC(3600) * atoi(arg)));

	tell(arg);
	return r;
}

Test(testing, hours_of_sleep_pass_at_once_in_the_order_of_deadlines, .timeout = 120)
{
	static const char *const sleeps[] = {"5h", "1h", "1000h", "3h", "24h"};
	weft_rt *rt = test_rt();
	weft_time real = weft_now();

	for (size_t i = 0; i < sizeof(sleeps) / sizeof(sleeps[0]); i++)
		(void)rt_spawned(rt, sleep_hours, sleeps[i]);
	cr_assert_eq(weft_test_alive(rt), 5);
	cr_assert_eq(weft_test_run(rt, WEFT_FOREVER), 0);
	story_is("1h 3h 5h 24h 1000h ");
	cr_assert_eq(weft_test_alive(rt), 0);
	cr_assert_geq(weft_test_now(rt) - WEFT_TEST_START, WEFT_SEC(3600) * 1000);
	cr_assert_lt(weft_test_now(rt) - WEFT_TEST_START, WEFT_SEC(3600) * 1000 + WEFT_MS(10));
	cr_assert_lt(weft_now() - real, WEFT_SEC(60));
	end(rt);
}

Test(testing, advance_stops_where_it_is_told, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_pid pid;

	(void)rt_spawned(rt, sleep_hours, "1h");
	pid = rt_spawned(rt, sleep_hours, "2h");
	cr_assert_eq(weft_test_run_until_idle(rt), 2);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START, "time stands");
	cr_assert_eq(weft_test_advance(rt, WEFT_SEC(3599)), 0);
	story_is("");
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(3599));
	cr_assert_eq(weft_test_advance(rt, WEFT_SEC(2)), 1);
	story_is("1h ");
	cr_assert_eq(weft_test_advance(rt, -1), 0);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(3601));
	cr_assert_eq(weft_test_advance(rt, WEFT_FOREVER), 1);
	story_is("2h ");
	cr_assert_eq(joined(pid), 0);
	end(rt);
}

static int look_at_clocks(void *arg)
{
	weft_time start = weft_now();

	(void)arg;
	cr_assert_eq(start, WEFT_TEST_START);
	cr_assert_eq(weft_now_coarse(), start);
	cr_assert_eq(weft_after(WEFT_MS(5)), start + WEFT_MS(5));
	cr_assert_eq(weft_sleep_until(start + WEFT_MS(5)), 0);
	cr_assert_geq(weft_now(), start + WEFT_MS(5));
	cr_assert_eq(weft_now_coarse(), weft_now());
	cr_assert_eq(weft_park(weft_after(WEFT_SEC(9))), -ETIME);
	cr_assert_geq(weft_now(), start + WEFT_MS(5) + WEFT_SEC(9));
	for (int i = 0; i < 1000; i++)
		cr_assert(!weft_should_yield());
	return 0;
}

Test(testing, processes_see_virtual_time_and_others_the_real_one, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_pid pid = rt_spawned(rt, look_at_clocks, NULL);
	weft_time real = weft_now();

	cr_assert_eq(weft_test_run(rt, WEFT_SEC(10)), 0);
	cr_assert_eq(joined(pid), 0);
	cr_assert_lt(weft_now() - real, WEFT_SEC(8));
	end(rt);
}

static int returns_seven(void *arg)
{
	(void)arg;
	return 7;
}

static int wait_for_ever(void *arg)
{
	(void)arg;
	return weft_park(WEFT_FOREVER);
}

static void *joins(void *rt)
{
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, returns_seven, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	return NULL;
}

/* What a thread gives up by a join comes into the worker's inbox without a wake. */
Test(testing, joins_of_another_thread_hold_nothing_up, .timeout = 240)
{
	for (int i = 0; i < 500 / HARNESS_SLOWDOWN; i++) {
		weft_rt *rt = test_rt();
		pthread_t thread;

		cr_assert_eq(pthread_create(&thread, NULL, joins, rt), 0);
		while (pthread_tryjoin_np(thread, NULL) != 0) {
			int r = weft_test_run(rt, WEFT_FOREVER);

			cr_assert(r == 0 || r == -EDEADLK, "%d", r); /* not queued yet */
		}
		end(rt);
	}
}

Test(testing, time_does_not_go_to_deadlines_that_were_cancelled, .timeout = 120)
{
	struct weft_timer timer = {{0}};
	weft_rt *rt = test_rt();
	weft_pid pid = rt_spawned(rt, wait_for_ever, NULL);

	cr_assert_eq(weft_timer_start_wake(&timer, rt, WEFT_TEST_START + WEFT_SEC(9), pid), 0);
	cr_assert_eq(weft_timer_stop(&timer), 1);
	cr_assert_eq(weft_test_run(rt, WEFT_FOREVER), -EDEADLK);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	end(rt);
}

Test(testing, run_tells_why_it_comes_back, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_pid pid;

	cr_assert_eq(weft_test_run(rt, 0), 0, "nothing was ever alive");
	(void)rt_spawned(rt, sleep_hours, "2h");
	pid = rt_spawned(rt, wait_for_ever, NULL);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(3600)), -ETIME);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(7200)), -EDEADLK);
	cr_assert_eq(weft_test_alive(rt), 1);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_test_run(rt, 0), 0);
	cr_assert_eq(joined(pid), 0);
	story_is("2h ");
	end(rt);
}

Test(testing, block_on_lets_time_pass, .timeout = 120)
{
	static char hours[] = "3h";
	weft_rt *rt = test_rt();
	int result = -1;

	cr_assert_eq(weft_rt_block_on(rt, sleep_hours, hours, NULL, &result), 0);
	cr_assert_eq(result, 0);
	cr_assert_geq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(3 * 3600));
	cr_assert_eq(weft_rt_block_on(rt, wait_for_ever, NULL, NULL, &result), -EDEADLK);
	cr_assert_eq(weft_test_alive(rt), 1);
	story_is("3h ");
	end(rt);
}

/* A worker that never parks has the same clock. */
Test(testing, time_passes_with_idle_spin_too, .timeout = 120)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .idle = WEFT_IDLE_SPIN};
	weft_rt *rt;

	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	(void)rt_spawned(rt, sleep_hours, "2h");
	cr_assert_eq(weft_rt_poll(rt, WEFT_POLL), 0);
	cr_assert_eq(weft_rt_poll(rt, WEFT_TEST_START + WEFT_SEC(3600)), 0);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(3600));
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(7200)), 0);
	story_is("2h ");
	end(rt);
}

Test(testing, a_poll_moves_time_to_its_deadline_at_most, .timeout = 120)
{
	weft_rt *rt = test_rt();

	(void)rt_spawned(rt, sleep_hours, "2h");
	cr_assert_eq(weft_rt_poll(rt, WEFT_POLL), 0);
	cr_assert_eq(weft_rt_poll(rt, WEFT_TEST_START + WEFT_SEC(3600)), 0);
	story_is("");
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(3600));
	while (weft_test_alive(rt) > 0)
		cr_assert_geq(weft_rt_poll(rt, WEFT_FOREVER), 0);
	story_is("2h ");
	cr_assert_eq(weft_rt_fd(rt), -ENOTSUP);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(weft_test_run_until_idle(rt), -ESHUTDOWN);
	end(rt);
}

/* ---- Blocking work -------------------------------------------------------------------------- */

/* Takes long enough for a clock that does not wait to be far ahead. */
static int takes_20ms(void *arg)
{
	weft_time end = weft_after(WEFT_MS(20));

	while (weft_now() < end)
		(void)usleep(1000);
	return *(int *)arg;
}

static int calls_20ms(void *arg)
{
	int result = 0;

	cr_assert_eq(weft_blocking(takes_20ms, arg, &result, weft_after(WEFT_SEC(1))), 0);
	cr_assert_eq(weft_now(), WEFT_TEST_START);
	cr_assert_eq(weft_block_in_place(takes_20ms, arg, NULL), 0);
	cr_assert_eq(weft_now(), WEFT_TEST_START);
	tell("job");
	return result;
}

/* T8 */
Test(testing, time_stands_still_while_blocking_work_goes_on, .timeout = 120)
{
	int five = 5;
	weft_rt *rt;
	weft_pid pid;

	for (int way = 0; way < 5; way++) {
		rt = test_rt();
		pid = rt_spawned(rt, calls_20ms, &five);
		(void)rt_spawned(rt, sleep_hours, "1h");
		if (way == 0)
			cr_assert_eq(weft_test_run(rt, WEFT_SEC(7200)), 0);
		else if (way == 1)
			cr_assert_gt(weft_test_advance(rt, WEFT_SEC(7200)), 0);
		else if (way == 2)
			cr_assert_eq(weft_rt_run(rt), 0);
		else if (way == 3)
			cr_assert_eq(weft_rt_stop(rt, WEFT_SEC(7200), WEFT_FOREVER), 0);
		else
			while (weft_test_alive(rt) > 0)
				cr_assert_geq(weft_rt_poll(rt, WEFT_FOREVER), 0);
		story_is("job 1h ");
		cr_assert_eq(joined(pid), 5);
		end(rt);
	}
}

Test(testing, time_stands_still_for_posts_too, .timeout = 120)
{
	int zero = 0;
	weft_rt *rt = test_rt();

	cr_assert_eq(weft_blocking_post(rt, takes_20ms, &zero, NULL), 0);
	cr_assert_eq(weft_rt_poll(rt, WEFT_POLL), 0, "does not wait");
	cr_assert_eq(weft_test_run_until_idle(rt), 0, "nor does this");
	cr_assert_eq(weft_test_run(rt, 0), 0);
	cr_assert_eq(weft_test_alive(rt), 0);
	end(rt);
}

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};

static void open_gate(void)
{
	pthread_mutex_lock(&gate.lock);
	gate.open = true;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

static int waits_at_gate(void *arg)
{
	if (arg)
		cr_assert_eq(weft_wake(*(weft_pid *)arg), 0);
	pthread_mutex_lock(&gate.lock);
	while (!gate.open)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
	return 0;
}

static int parks_and_opens(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	open_gate();
	return 0;
}

/* A job that needs the processes is not waited for in vain. */
Test(testing, processes_run_while_blocking_work_goes_on, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_pid pid = rt_spawned(rt, parks_and_opens, NULL);

	cr_assert_gt(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(weft_blocking_post(rt, waits_at_gate, &pid, NULL), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(1)), 0);
	cr_assert_eq(joined(pid), 0);
	end(rt);
}

static void silence(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)level;
	(void)worker;
	(void)pid;
	(void)text;
}

Test(testing, a_stop_waits_for_blocking_work_until_its_deadline, .timeout = 120)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .log = silence};
	weft_time before = weft_now();
	weft_rt *rt;

	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	cr_assert_eq(weft_blocking_post(rt, waits_at_gate, NULL,
		&(struct weft_blocking_opts){
			.size = sizeof(struct weft_blocking_opts),
			.flags = WEFT_BLOCKING_MANDATORY}), 0);
	cr_assert_eq(weft_rt_stop(rt, 0, weft_after(WEFT_MS(5))), -ETIMEDOUT);
	cr_assert_eq(weft_rt_destroy(rt, weft_after(WEFT_MS(5))), -EBUSY);
	cr_assert_geq(weft_now() - before, WEFT_MS(10));
	open_gate();
	end(rt);
}

Test(testing, block_on_moves_time_as_it_needs, .timeout = 120)
{
	static char three_hours[] = "3h";
	weft_rt *rt = test_rt();
	int five = 5, result = 0;

	cr_assert_eq(weft_rt_block_on(rt, calls_20ms, &five, NULL, &result), 0);
	cr_assert_eq(result, 5);
	cr_assert_eq(weft_rt_block_on(rt, sleep_hours, three_hours, NULL, NULL), 0);
	story_is("job 3h ");
	cr_assert_eq(weft_rt_block_on(rt, wait_for_ever, NULL, NULL, NULL), -EDEADLK);
	cr_assert_eq(weft_test_alive(rt), 1);
	end(rt);
}

/* ---- Steps ---------------------------------------------------------------------------------- */

static int three_parts(void *arg)
{
	for (int i = 0; i < 3; i++) {
		tell(arg);
		(void)weft_yield();
	}
	return 0;
}

static int spawn_more(void *arg)
{
	static char name[] = "child";
	weft_pid pid;

	tell(arg);
	cr_assert_eq(weft_spawn(three_parts, name, &pid), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	tell("joined");
	return 0;
}

Test(testing, a_step_runs_one_process_until_it_waits, .timeout = 120)
{
	weft_rt *rt = test_rt();

	cr_assert_eq(weft_test_step(rt, 10), 0);
	(void)rt_spawned(rt, three_parts, "a");
	(void)rt_spawned(rt, three_parts, "b");
	cr_assert_eq(weft_test_step(rt, 0), 0);
	cr_assert_eq(weft_test_step(rt, 1), 1);
	story_is("a ");
	cr_assert_eq(weft_test_step(rt, 2), 2);
	cr_assert_eq(story.length, strlen("a b "));
	cr_assert_eq(weft_test_step(rt, 100), 5, "two of them end");
	cr_assert_eq(story.length, strlen("a b a b b "));
	story.length = 0;
	(void)rt_spawned(rt, spawn_more, "parent");
	cr_assert_eq(weft_test_step(rt, 1), 1);
	story_is("parent ");
	cr_assert_eq(weft_test_run_until_idle(rt), 5);
	story_is("child child child joined ");
	end(rt);
}

static int run_inside(void *arg)
{
	cr_assert_eq(weft_test_step(arg, 1), -EDEADLK);
	cr_assert_eq(weft_test_advance(arg, 1), -EDEADLK);
	cr_assert_eq(weft_test_run(arg, 1), -EDEADLK);
	return 0;
}

static void *run_elsewhere(void *arg)
{
	cr_assert_eq(weft_test_run_until_idle(arg), -EPERM);
	return NULL;
}

Test(testing, calls_that_cannot_be_are_refused, .timeout = 120)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .flags = WEFT_RT_EMBEDDED};
	weft_rt *rt = test_rt(), *other;
	pthread_t thread;

	(void)rt_spawned(rt, run_inside, rt);
	cr_assert_eq(weft_test_run(rt, 0), 0);
	cr_assert_eq(pthread_create(&thread, NULL, run_elsewhere, rt), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(weft_test_fail(rt, (enum weft_test_failure)17, 1), -EINVAL);
	end(rt);
	cr_assert_eq(weft_rt_create(&opts, &other), 0);
	cr_assert_eq(weft_test_step(other, 1), -EINVAL);
	cr_assert_eq(weft_test_fail(other, WEFT_TEST_STACK, 1), -EINVAL);
	end(other);
	opts.driver = "epoll";
	cr_assert_eq(weft_test_create(&opts, &other), -EINVAL);
	opts.driver = "mem";
	opts.workers = 2;
	cr_assert_eq(weft_test_create(&opts, &other), -EINVAL);
	opts.size = 1;
	cr_assert_eq(weft_test_create(&opts, &other), -EINVAL);
}

/* ---- The end -------------------------------------------------------------------------------- */

struct lines {
	unsigned count;
	char text[1024];
};

static void keep(void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	struct lines *lines = ctx;

	(void)level;
	(void)worker;
	(void)pid;
	lines->count++;
	snprintf(lines->text, sizeof(lines->text), "%s", text);
}

Test(testing, destroy_names_what_a_test_has_left, .timeout = 120)
{
	struct lines lines = {0};
	struct weft_rt_opts opts = {.size = sizeof(opts), .log = keep, .log_ctx = &lines};
	struct weft_spawn_opts named = {.size = sizeof(named), .name = "forgotten"};
	weft_pid pid;
	weft_rt *rt;

	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	end(rt);
	cr_assert_eq(lines.count, 0);
	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	cr_assert_eq(weft_rt_spawn(rt, wait_for_ever, NULL, &named, &pid), 0);
	cr_assert_eq(weft_test_run(rt, 0), -ETIME);
	end(rt);
	cr_assert_eq(lines.count, 1);
	cr_assert_not_null(strstr(lines.text, "\"forgotten\""), "%s", lines.text);
}

static int wait_and_ignore(void *arg)
{
	while (!*(volatile int *)arg)
		if (weft_park(WEFT_FOREVER) == -ECANCELED)
			(void)weft_yield();
	return 0;
}

static int sleep_again(void *arg)
{
	int r = weft_sleep_until(weft_after(WEFT_SEC(5)));

	tell(arg);
	return r == 0 ? weft_sleep_until(weft_after(WEFT_SEC(3600))) : r;
}

Test(testing, a_stop_has_its_grace_in_virtual_time, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_pid pid = rt_spawned(rt, sleep_again, "5s");

	cr_assert_eq(weft_test_run_until_idle(rt), 1);
	cr_assert_eq(weft_rt_stop(rt, WEFT_SEC(10), WEFT_FOREVER), 0);
	story_is("5s ");
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_geq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(10));
	cr_assert_lt(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(11));
	end(rt);
}

Test(testing, destroy_gives_up_at_its_deadline_on_who_goes_on, .timeout = 120)
{
	struct lines lines = {0};
	struct weft_rt_opts opts = {.size = sizeof(opts), .log = keep, .log_ctx = &lines};
	volatile int stop = 0;
	weft_rt *rt;

	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	(void)rt_spawned(rt, wait_and_ignore, (const void *)(uintptr_t)&stop);
	cr_assert_eq(weft_rt_destroy(rt, weft_after(WEFT_MS(5))), -EBUSY);
	stop = 1;
	end(rt);
}

/* ---- Failures ------------------------------------------------------------------------------- */

static int nothing(void *arg)
{
	(void)arg;
	return 3;
}

Test(testing, the_nth_stack_is_refused_and_no_other, .timeout = 120)
{
	struct lines lines = {0};
	struct weft_rt_opts opts = {.size = sizeof(opts), .log = keep, .log_ctx = &lines};
	struct weft_spawn_opts now = {.size = sizeof(now), .flags = WEFT_STACK_NOW};
	weft_pid pids[5], pid;
	weft_rt *rt;

	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	cr_assert_eq(weft_test_fail(rt, WEFT_TEST_STACK, 3), 0);
	for (int i = 0; i < 5; i++)
		pids[i] = rt_spawned(rt, nothing, NULL);
	cr_assert_eq(weft_test_failing(rt, WEFT_TEST_STACK), 3);
	cr_assert_eq(weft_test_run_until_idle(rt), 5);
	cr_assert_eq(weft_test_failing(rt, WEFT_TEST_STACK), 0);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(joined(pids[i]), i == 2 ? -ENOMEM : 3);
	cr_assert_eq(weft_test_fail(rt, WEFT_TEST_STACK, 1), 0);
	cr_assert_eq(weft_rt_spawn(rt, nothing, NULL, &now, &pid), -ENOMEM);
	cr_assert_eq(weft_rt_spawn(rt, nothing, NULL, &now, &pid), 0);
	cr_assert_eq(weft_test_run(rt, 0), 0);
	end(rt);
}

static int spawn_three(void *arg)
{
	weft_rt *rt = arg;
	weft_pid pid;

	cr_assert_eq(weft_test_fail(rt, WEFT_TEST_PROCESS, 2), 0);
	cr_assert_eq(weft_spawn(nothing, NULL, NULL), 0);
	cr_assert_eq(weft_spawn(nothing, NULL, NULL), -EAGAIN);
	cr_assert_eq(weft_spawn(nothing, NULL, NULL), 0);
	cr_assert_eq(weft_test_fail(rt, WEFT_TEST_PROCESS, 1), 0);
	cr_assert_eq(weft_spawn_reserve(&pid), -EAGAIN);
	return 0;
}

Test(testing, the_nth_spawn_is_refused_and_no_other, .timeout = 120)
{
	weft_rt *rt = test_rt();
	weft_pid pid;

	cr_assert_eq(weft_test_fail(rt, WEFT_TEST_PROCESS, 1), 0);
	cr_assert_eq(weft_rt_spawn(rt, nothing, NULL, NULL, &pid), -EAGAIN);
	cr_assert_eq(weft_test_alive(rt), 0);
	pid = rt_spawned(rt, spawn_three, rt);
	cr_assert_eq(weft_test_run(rt, 0), 0);
	cr_assert_eq(joined(pid), 0);
	end(rt);
}

/* Blocks that are out. */
struct blocks {
	long count;
};

static void *take(void *ctx, size_t alignment, size_t size)
{
	void *memory = NULL;

	if (posix_memalign(&memory, alignment < sizeof(void *) ? sizeof(void *) : alignment, size))
		return NULL;
	((struct blocks *)ctx)->count++;
	return memory;
}

static void give(void *ctx, void *memory, size_t size)
{
	(void)size;
	((struct blocks *)ctx)->count--;
	free(memory);
}

static int echo(int fd, void *arg)
{
	char bytes[32];
	ssize_t n;

	(void)arg;
	while ((n = weft_read(fd, bytes, sizeof(bytes), WEFT_FOREVER)) > 0)
		if (weft_write_all(fd, bytes, (size_t)n, WEFT_FOREVER) < 0)
			break;
	return 0;
}

static int serve(void *arg)
{
	(void)arg;
	return weft_serve("tcp:127.0.0.1:7", echo, NULL);
}

/* 0, or a negative errno of something that failed. */
static int talk(void *arg)
{
	char bytes[32];
	ssize_t n = 0;
	int fd = weft_connect("tcp:127.0.0.1:7", weft_after(WEFT_SEC(1)));

	(void)arg;
	if (fd < 0)
		return fd;
	for (int i = 0; i < 3 && n >= 0; i++) {
		n = weft_write_all(fd, "ping", 4, weft_after(WEFT_SEC(1)));
		if (n >= 0)
			n = weft_read_exact(fd, bytes, 4, weft_after(WEFT_SEC(1)));
		if (n > 0) {
			char line[64];

			snprintf(line, sizeof(line), "%lld",
				(long long)((weft_now() - WEFT_TEST_START) / 1000));
			tell(line);
		}
	}
	(void)weft_close(fd);
	return n < 0 ? (int)n : n == 4 ? 0 : -ECONNRESET;
}

/* A server and a client, with the nth allocation failing. Its result; *reached: it was. */
static int talk_with_failure(unsigned nth, bool *reached)
{
	struct blocks blocks = {0};
	struct lines lines = {0};
	const struct weft_allocator allocator = {take, give, &blocks};
	struct weft_rt_opts opts = {
		.size = sizeof(opts), .allocator = &allocator, .log = keep, .log_ctx = &lines};
	weft_pid server = {0}, client = {0};
	int result = 0, r;
	weft_rt *rt;

	cr_assert_eq(weft_test_create(&opts, &rt), 0);
	cr_assert_eq(weft_test_fail(rt, WEFT_TEST_ALLOCATION, nth), 0);
	r = weft_rt_spawn(rt, serve, NULL, NULL, &server);
	if (r == 0)
		r = weft_rt_spawn(rt, talk, NULL, NULL, &client);
	(void)weft_test_advance(rt, WEFT_SEC(60));
	*reached = weft_test_failing(rt, WEFT_TEST_ALLOCATION) == 0;
	if (r == 0)
		r = weft_try_join(client, &result);
	cr_assert(r == 0 || r == -ENOMEM, "%s", strerror(-r));
	(void)weft_rt_stop(rt, 0, WEFT_FOREVER);
	end(rt);
	cr_assert_eq(blocks.count, 0, "%ld blocks are left after failure %u", blocks.count, nth);
	cr_assert_eq(weft_mem_setup(NULL), 0, "a socket is left after failure %u", nth);
	return r < 0 ? r : result;
}

Test(testing, each_allocation_fails_in_turn_and_nothing_is_left, .timeout = 120)
{
	unsigned nth = 1, failed = 0;
	bool reached = true;
	int r = 0;

	for (; reached; nth++) {
		story.length = 0;
		r = talk_with_failure(nth, &reached);
		failed += r < 0;
	}
	cr_assert_eq(r, 0, "without a failure: %s", strerror(-r));
	cr_assert_gt(nth, 3);
	cr_assert_gt(failed, 0, "all of them were made up for");
}

/* ---- The same each time --------------------------------------------------------------------- */

static void tell_of_echoes(void)
{
	struct weft_mem_opts net = {.size = sizeof(net),
		.seed = 7,
		.latency_min_ns = WEFT_US(10),
		.latency_max_ns = WEFT_MS(3)};
	weft_rt *rt = test_rt();
	weft_pid clients[3];

	cr_assert_eq(weft_mem_setup(&net), 0);
	(void)rt_spawned(rt, serve, NULL);
	for (int i = 0; i < 3; i++)
		clients[i] = rt_spawned(rt, talk, NULL);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(60)), -EDEADLK, "the server waits");
	for (int i = 0; i < 3; i++)
		cr_assert_eq(joined(clients[i]), 0);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	end(rt);
	cr_assert_eq(weft_mem_setup(NULL), 0);
}

Test(testing, an_echo_with_latency_goes_the_same_way_each_time, .timeout = 120)
{
	char first[sizeof(story.text)];

	tell_of_echoes();
	memcpy(first, story.text, sizeof(first));
	cr_assert_gt(strlen(first), 20);
	for (int i = 0; i < 20; i++) {
		story.length = 0;
		story.text[0] = '\0';
		tell_of_echoes();
		cr_assert_str_eq(story.text, first);
	}
}

/* ---- Other threads -------------------------------------------------------------------------- */

static void post_tell(void *arg)
{
	tell(arg);
}

static void *post(void *arg)
{
	static char text[] = "posted";

	cr_assert_eq(weft_post(arg, post_tell, text), 0);
	return NULL;
}

Test(testing, a_poll_with_nothing_due_waits_for_other_threads, .timeout = 120)
{
	weft_rt *rt = test_rt();
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, post, rt), 0);
	while (story.length == 0)
		cr_assert_geq(weft_rt_poll(rt, WEFT_FOREVER), 0);
	pthread_join(thread, NULL);
	story_is("posted ");
	end(rt);
}
