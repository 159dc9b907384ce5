/*
 * Goal: virtual time over several workers, as <weft/test.h> promises it: it stands while anything
 * runs or is held up, leaps when all is at rest, never past a deadline, and tells of deadlocks.
 * Method: programs on 4 workers with threads, with the public header. Exact times are compared;
 * real time only limits what would hang. What is to be at work meanwhile is waited for.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <weft.h>
#include <weft/test.h>

#include "sync/atomic.h"
#include "test/harness.h"
#include "test/runtime.h"

enum { WORKERS = 4, SLEEPERS_MAX = 64, TICK_NS = 1 << WF_TICK_SHIFT };

/* The instant at which a deadline is due: the end of its tick. */
static weft_time due_at(weft_time deadline)
{
	return (deadline + TICK_NS - 1) / TICK_NS * TICK_NS;
}

static weft_rt *virtual_rt_with(const struct weft_rt_opts *opts, bool frozen)
{
	struct weft_virtual_opts clock = {.size = sizeof(clock), .frozen = frozen};
	weft_rt *rt = NULL;

	cr_assert_eq(weft_virtual_create(opts, &clock, &rt), 0);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	return rt;
}

static weft_rt *virtual_rt(bool frozen)
{
	struct weft_rt_opts opts = {.size = sizeof(opts), .workers = WORKERS};

	return virtual_rt_with(&opts, frozen);
}

static void settle(weft_rt *rt)
{
	cr_assert_eq(weft_virtual_wait_idle(rt, WEFT_FOREVER), 0);
}

static void advance(weft_rt *rt, weft_time duration_ns)
{
	weft_time before = weft_test_now(rt);

	cr_assert_eq(weft_virtual_advance(rt, duration_ns, WEFT_FOREVER), 0);
	cr_assert_eq(weft_test_now(rt), before + duration_ns);
}

/* ---- Sleepers of all kinds ------------------------------------------------------------------ */

struct sleeper {
	weft_time deadline, woke_at;
	unsigned order; /* from 1 */
	bool armed;     /* of a task */
};

static struct sleeper sleepers[SLEEPERS_MAX];
static wf_atomic_u32 order;

static void wakes(struct sleeper *sleeper)
{
	sleeper->woke_at = weft_now();
	sleeper->order = wf_u32_fetch_add(&order, 1) + 1;
}

static int sleeps(void *arg)
{
	struct sleeper *sleeper = arg;

	int r = weft_sleep_until(sleeper->deadline);

	if (r == 0) /* else a stop has cancelled it */
		wakes(sleeper);
	return r;
}

static int task_sleeps(void *arg)
{
	struct sleeper *sleeper = arg;
	int r = sleeper->armed ? 0 : weft_sleep_until(sleeper->deadline);

	sleeper->armed = true;
	if (r == 0)
		wakes(sleeper);
	return r;
}

static void timer_fires(void *arg)
{
	wakes(arg);
}

/* Fibers, sticky (local wheels) and movable (shared), and tasks; on all workers. */
static void spawn_sleeper(weft_rt *rt, unsigned i)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts)};

	if (i % 3 == 0)
		opts.worker = i / 3 % WORKERS + 1;
	else if (i % 3 == 1)
		opts.flags = WEFT_MOVABLE;
	opts.flags |= WEFT_DETACHED;
	if (i % 3 == 2)
		cr_assert_eq(weft_rt_task_spawn(rt, task_sleeps, &sleepers[i], &opts, NULL), 0);
	else
		cr_assert_eq(weft_rt_spawn(rt, sleeps, &sleepers[i], &opts, NULL), 0);
}

/* Each woke at its instant, and none before one whose instant is earlier. */
static void check_sleepers(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		cr_assert_eq(sleepers[i].woke_at, due_at(sleepers[i].deadline));
		for (unsigned j = 0; j < count; j++)
			cr_assert(sleepers[i].order < sleepers[j].order
				|| sleepers[i].woke_at >= sleepers[j].woke_at);
	}
}

/* T8, T1, T4 */
Test(virtual, an_hour_of_sleeps_on_all_workers_passes_in_order, .timeout = 120)
{
	weft_rt *rt = virtual_rt(false);
	weft_time real = weft_now();
	unsigned draw = (unsigned)harness_seed();

	cr_assert_eq(weft_virtual_freeze(rt), 0);
	for (unsigned i = 0; i < SLEEPERS_MAX; i++) {
		/* Pairs and more have one deadline, on different workers. */
		if (i % 4 != 3)
			draw = draw * 1103515245 + 12345;
		sleepers[i].deadline = WEFT_TEST_START + WEFT_MS(draw / 7 % 3600000);
		spawn_sleeper(rt, i);
	}
	settle(rt);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	cr_assert_eq(wf_u32_load_relaxed(&order), 0, "somebody did not sleep");
	cr_assert_eq(weft_virtual_thaw(rt), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	check_sleepers(SLEEPERS_MAX);
	cr_assert_lt(weft_now() - real, WEFT_SEC(60));
	runtime_end(rt);
}

static int naps(void *arg)
{
	weft_time before = weft_now();

	for (int i = 0; i < 100; i++) {
		weft_time deadline = before + WEFT_US(100 + (int)(uintptr_t)arg * 37);

		cr_assert_eq(weft_sleep_until(deadline), 0);
		cr_assert_eq(weft_now(), due_at(deadline));
		cr_assert_eq(weft_now_coarse(), weft_now());
		before = weft_now();
	}
	return 0;
}

Test(virtual, each_sleep_ends_at_its_instant_whatever_others_do, .timeout = 120)
{
	weft_rt *rt = virtual_rt(false);

	for (uintptr_t i = 0; i < 3 * WORKERS; i++) {
		struct weft_spawn_opts opts = {
			.size = sizeof(opts), .flags = i % 2 ? WEFT_MOVABLE : 0};

		cr_assert_eq(weft_rt_spawn(rt, naps, (void *)i, &opts, NULL), 0);
	}
	cr_assert_eq(weft_rt_run(rt), 0);
	runtime_end(rt);
}

/* ---- What holds time ------------------------------------------------------------------------ */

static struct {
	wf_atomic_u32 began, go;
} work;

static int computes(void *arg)
{
	weft_time before = weft_now();

	(void)arg;
	wf_u32_store_release(&work.began, 1);
	while (wf_u32_load_acquire(&work.go) == 0)
		sched_yield();
	return weft_now() == before ? 0 : -1;
}

static int blocks(void *arg)
{
	weft_time before = weft_now();
	int result = -1;

	cr_assert_eq(weft_blocking(computes, arg, &result, WEFT_FOREVER), 0);
	return weft_now() == before ? 0 : -1;
}

/* Real time passes while `fn` is at it, and somebody sleeps who could be woken. */
static void time_stands_while(weft_fn fn)
{
	weft_rt *rt = virtual_rt(true);
	weft_pid pid;
	int result = -1;

	wf_u32_store_relaxed(&work.began, 0);
	wf_u32_store_relaxed(&work.go, 0);
	sleepers[0].deadline = WEFT_TEST_START + WEFT_MS(1);
	spawn_sleeper(rt, 0);
	cr_assert_eq(weft_rt_spawn(rt, fn, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_virtual_thaw(rt), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&work.began) == 1);
	cr_assert_eq(weft_virtual_wait_idle(rt, weft_after(WEFT_MS(20))), -ETIMEDOUT);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	wf_u32_store_release(&work.go, 1);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 0, "it has seen time move");
	settle(rt);
	cr_assert_eq(sleepers[0].woke_at, due_at(sleepers[0].deadline));
	runtime_end(rt);
}

/* T8 */
Test(virtual, a_worker_that_computes_holds_time, .timeout = 120)
{
	time_stands_while(computes);
}

/* T8, B2 */
Test(virtual, blocking_work_holds_time, .timeout = 120)
{
	time_stands_while(blocks);
}

static int blocking_post_runs(void *arg)
{
	(void)arg;
	return computes(NULL);
}

Test(virtual, a_job_that_nobody_waits_for_holds_time_too, .timeout = 120)
{
	weft_rt *rt = virtual_rt(false);

	cr_assert_eq(weft_blocking_post(rt, blocking_post_runs, NULL, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&work.began) == 1);
	sleepers[0].deadline = WEFT_TEST_START + WEFT_MS(1);
	spawn_sleeper(rt, 0);
	cr_assert_eq(weft_virtual_wait_idle(rt, weft_after(WEFT_MS(20))), -ETIMEDOUT);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	wf_u32_store_release(&work.go, 1);
	settle(rt);
	cr_assert_eq(weft_test_now(rt), due_at(sleepers[0].deadline));
	runtime_end(rt);
}

/* A clock that never rests, for what comes from outside to fall into. */
static int ticks(void *arg)
{
	(void)arg;
	for (;;) {
		weft_time next = weft_now() + TICK_NS;
		int r = weft_sleep_until(next);

		if (r < 0)
			return 0;
		cr_assert_eq(weft_now(), due_at(next));
	}
}

static wf_atomic_u64 seen_at;

static int looks_at_time(void *arg)
{
	(void)arg;
	wf_u64_store_release(&seen_at, (uint64_t)weft_now());
	return 0;
}

static void posted_looks(void *arg)
{
	(void)looks_at_time(arg);
}

static int parks_and_looks(void *arg)
{
	while (weft_park(WEFT_FOREVER) == 0)
		(void)looks_at_time(arg);
	return 0;
}

/* Way 0, 1, 2; what is seen comes into seen_at. */
static void come_from_outside(weft_rt *rt, int way, weft_pid parker)
{
	struct weft_spawn_opts detached = {.size = sizeof(detached), .flags = WEFT_DETACHED};

	if (way == 0)
		cr_assert_eq(weft_rt_spawn(rt, looks_at_time, NULL, &detached, NULL), 0);
	else if (way == 1)
		cr_assert_eq(weft_post(rt, posted_looks, NULL), 0);
	else
		cr_assert_eq(weft_wake(parker), 0);
}

/* T8: a spawn, a post, a wake is of one instant: between the call's begin and its end. */
Test(virtual, what_comes_from_outside_runs_at_the_time_it_came, .timeout = 240)
{
	weft_rt *rt = virtual_rt(false);
	weft_pid ticker, parker;

	cr_assert_eq(weft_rt_spawn(rt, parks_and_looks, NULL, NULL, &parker), 0);
	cr_assert_eq(weft_rt_spawn(rt, ticks, NULL, NULL, &ticker), 0);
	for (int i = 0; i < 3000 / HARNESS_SLOWDOWN; i++) {
		weft_time before = weft_test_now(rt), after, seen;

		wf_u64_store_relaxed(&seen_at, 0);
		come_from_outside(rt, i % 3, parker);
		after = weft_test_now(rt);
		UNTIL_FOREIGN((seen = (weft_time)wf_u64_load_acquire(&seen_at)) != 0);
		cr_assert_geq(seen, before);
		cr_assert_leq(seen, after, "way %d: time has gone on", i % 3);
	}
	cr_assert_eq(weft_cancel(ticker), 0);
	cr_assert_eq(weft_cancel(parker), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	runtime_end(rt);
}

/* ---- Freeze and advance --------------------------------------------------------------------- */

/* T8 */
Test(virtual, advance_goes_as_far_as_it_is_told, .timeout = 120)
{
	weft_rt *rt = virtual_rt(true);

	for (unsigned i = 0; i < 6; i++) {
		sleepers[i].deadline = WEFT_TEST_START + WEFT_SEC(10) * (i / 2 + 1);
		spawn_sleeper(rt, i);
	}
	settle(rt);
	advance(rt, WEFT_SEC(9));
	cr_assert_eq(wf_u32_load_relaxed(&order), 0);
	advance(rt, WEFT_SEC(2));
	cr_assert_eq(wf_u32_load_relaxed(&order), 2);
	advance(rt, 0);
	settle(rt);
	cr_assert_eq(wf_u32_load_relaxed(&order), 2);
	advance(rt, WEFT_SEC(9) + WEFT_MS(1));
	cr_assert_eq(wf_u32_load_relaxed(&order), 4);
	cr_assert_eq(weft_virtual_advance(rt, WEFT_FOREVER, WEFT_FOREVER), 0);
	cr_assert_eq(weft_test_now(rt), due_at(WEFT_TEST_START + WEFT_SEC(30)));
	check_sleepers(6);
	advance(rt, WEFT_SEC(1));
	runtime_end(rt);
}

Test(virtual, advance_gives_up_by_real_time_and_freezes_again, .timeout = 120)
{
	weft_rt *rt = virtual_rt(true);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, computes, NULL, NULL, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&work.began) == 1);
	cr_assert_eq(weft_virtual_advance(rt, WEFT_SEC(1), weft_after(WEFT_MS(5))), -ETIMEDOUT);
	wf_u32_store_release(&work.go, 1);
	settle(rt);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START);
	runtime_end(rt);
}

static int calls_what_waits(void *arg)
{
	weft_rt *rt = arg;

	cr_assert_eq(weft_virtual_advance(rt, 1, WEFT_FOREVER), -EDEADLK);
	cr_assert_eq(weft_virtual_wait_idle(rt, WEFT_FOREVER), -EDEADLK);
	cr_assert_eq(weft_virtual_freeze(rt), 0);
	cr_assert_eq(weft_virtual_thaw(rt), 0);
	return 0;
}

static int has_it_called(void *arg)
{
	int result = -1;

	cr_assert_eq(calls_what_waits(arg), 0);
	cr_assert_eq(weft_blocking(calls_what_waits, arg, &result, WEFT_FOREVER), 0);
	return result;
}

Test(virtual, calls_are_refused_where_they_make_no_sense, .timeout = 120)
{
	weft_rt *rt = virtual_rt(false), *other = NULL;
	int result = -1;

	cr_assert_eq(weft_virtual_advance(rt, 1, WEFT_FOREVER), -EINVAL, "not frozen");
	cr_assert_eq(weft_test_run_until_idle(rt), -EINVAL);
	cr_assert_eq(weft_rt_block_on(rt, has_it_called, rt, NULL, &result), 0);
	cr_assert_eq(result, 0);
	runtime_end(rt);
	cr_assert_eq(weft_test_create(NULL, &other), 0);
	cr_assert_eq(weft_virtual_freeze(other), -EINVAL);
	cr_assert_eq(weft_virtual_wait_idle(other, WEFT_FOREVER), -EINVAL);
	runtime_end(other);
}

Test(virtual, options_are_checked, .timeout = 120)
{
	struct weft_virtual_opts clock = {.size = sizeof(clock)};
	struct weft_rt_opts opts = {.size = sizeof(opts), .workers = 2, .driver = "epoll"};
	weft_rt *rt = NULL;

	cr_assert_eq(weft_virtual_create(&opts, NULL, &rt), -EINVAL, "a kernel driver");
	clock.allow_real_io = true;
	cr_assert_eq(weft_virtual_create(&opts, &clock, &rt), 0);
	sleepers[0].deadline = WEFT_TEST_START + WEFT_SEC(3600);
	spawn_sleeper(rt, 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(sleepers[0].woke_at, due_at(sleepers[0].deadline));
	runtime_end(rt);
	opts.driver = NULL;
	opts.flags = WEFT_RT_EMBEDDED;
	cr_assert_eq(weft_virtual_create(&opts, NULL, &rt), -EINVAL);
	clock.size = 1;
	cr_assert_eq(weft_virtual_create(NULL, &clock, &rt), -EINVAL);
}

/* ---- Timers, intervals, the network, the wall ----------------------------------------------- */

/* T3: those that are moved, later and earlier; those that are stopped move no time. */
Test(virtual, timers_fire_at_their_instants, .timeout = 120)
{
	struct weft_timer timers[8] = {0};
	weft_rt *rt = virtual_rt(true);

	for (unsigned i = 0; i < 8; i++) {
		sleepers[i].deadline = WEFT_TEST_START + WEFT_MS(10) * (i / 2 + 1);
		cr_assert_eq(weft_timer_start(&timers[i], rt, sleepers[i].deadline, timer_fires,
				     &sleepers[i]),
			0);
	}
	sleepers[0].deadline = WEFT_TEST_START + WEFT_SEC(1);
	cr_assert_eq(weft_timer_move(&timers[0], sleepers[0].deadline), 1);
	sleepers[6].deadline = WEFT_TEST_START + WEFT_US(3);
	cr_assert_eq(weft_timer_move(&timers[6], sleepers[6].deadline), 1);
	cr_assert_eq(weft_timer_stop(&timers[7]), 1);
	cr_assert_eq(weft_timer_start(&timers[7], rt, WEFT_TEST_START + WEFT_SEC(9), timer_fires,
			     &sleepers[7]),
		0);
	cr_assert_eq(weft_timer_stop(&timers[7]), 1);
	cr_assert_eq(weft_virtual_thaw(rt), 0);
	settle(rt);
	check_sleepers(7);
	cr_assert_eq(sleepers[7].order, 0);
	cr_assert_eq(weft_test_now(rt), due_at(sleepers[0].deadline), "to a stopped timer");
	runtime_end(rt);
}

Test(virtual, a_timer_from_outside_moves_a_clock_that_rests, .timeout = 120)
{
	struct weft_timer timer = {{0}};
	weft_rt *rt = virtual_rt(false);

	for (int i = 1; i <= 50; i++) {
		sleepers[0] = (struct sleeper){.deadline = weft_test_now(rt) + WEFT_SEC(1)};
		settle(rt);
		cr_assert_eq(weft_timer_start(&timer, rt, sleepers[0].deadline, timer_fires,
				     &sleepers[0]),
			0);
		settle(rt);
		cr_assert_eq(sleepers[0].woke_at, due_at(sleepers[0].deadline));
	}
	runtime_end(rt);
}

static int paces(void *arg)
{
	struct weft_interval pace;
	weft_time start = weft_now();
	uint64_t missed;

	(void)arg;
	cr_assert_eq(weft_interval_init(&pace, start + WEFT_MS(8), WEFT_MS(8), WEFT_MISSED_SKIP),
		0);
	for (int i = 1; i <= 100; i++) {
		cr_assert_eq(weft_interval_next(&pace, &missed, WEFT_FOREVER), 0);
		cr_assert_eq(missed, 0);
		cr_assert_eq(weft_now(), due_at(start + WEFT_MS(8) * i));
	}
	return 0;
}

/* T10 */
Test(virtual, intervals_miss_nothing_on_busy_workers, .timeout = 120)
{
	weft_rt *rt = virtual_rt(false);

	for (int i = 0; i < 2 * WORKERS; i++)
		cr_assert_eq(weft_rt_spawn(rt, paces, NULL, NULL, NULL), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	runtime_end(rt);
}

enum { ECHOES = 20 };

static int serves(void *arg)
{
	char byte;
	int fd = weft_accept(*(int *)arg, WEFT_FOREVER);

	cr_assert_geq(fd, 0);
	while (weft_read(fd, &byte, 1, WEFT_FOREVER) == 1)
		cr_assert_eq(weft_write_all(fd, &byte, 1, WEFT_FOREVER), 1);
	return weft_close(fd);
}

static int asks(void *arg)
{
	int fd = weft_connect("mem:virtual", WEFT_FOREVER);
	char byte = 'x';

	(void)arg;
	cr_assert_geq(fd, 0);
	for (int i = 0; i < ECHOES; i++) {
		weft_time start = weft_now(), end;

		cr_assert_eq(weft_write_all(fd, &byte, 1, WEFT_FOREVER), 1);
		cr_assert_eq(weft_read(fd, &byte, 1, WEFT_FOREVER), 1);
		end = due_at(due_at(start + WEFT_MS(5)) + WEFT_MS(5));
		cr_assert_eq(weft_now(), end, "%lld", (long long)(weft_now() - end));
	}
	return weft_close(fd);
}

/* Each on its own worker, so that each wire has an end on two. */
static int talks(void *arg)
{
	struct weft_spawn_opts second = {.size = sizeof(second), .worker = 2};
	int listener = weft_listen("mem:virtual", 0);
	weft_pid server, client;

	(void)arg;
	cr_assert_geq(listener, 0);
	cr_assert_eq(weft_spawn(serves, &listener, &server), 0);
	cr_assert_eq(weft_spawn_with(asks, NULL, &second, &client), 0);
	cr_assert_eq(joined(client), 0);
	cr_assert_eq(joined(server), 0);
	return weft_close(listener);
}

Test(virtual, latencies_of_the_network_in_memory_are_exact, .timeout = 120)
{
	struct weft_mem_opts net = {.size = sizeof(net),
		.seed = 1,
		.latency_min_ns = WEFT_MS(5),
		.latency_max_ns = WEFT_MS(5)};
	weft_rt *rt = virtual_rt(false);
	int result = -1;

	cr_assert_eq(weft_mem_setup(&net), 0);
	cr_assert_eq(weft_rt_block_on(rt, talks, NULL, NULL, &result), 0);
	cr_assert_eq(result, 0);
	runtime_end(rt);
	cr_assert_eq(weft_mem_setup(NULL), 0);
}

static weft_time wall(weft_rt *rt)
{
	return weft_test_wall(rt).seconds * WEFT_SEC(1);
}

/* T8 */
Test(virtual, steps_of_the_wall_clock_move_no_deadline, .timeout = 120)
{
	weft_rt *rt = virtual_rt(true);

	cr_assert_eq(wall(rt), WEFT_TEST_WALL_START);
	sleepers[0].deadline = WEFT_TEST_START + WEFT_SEC(10);
	spawn_sleeper(rt, 0);
	advance(rt, WEFT_SEC(5));
	cr_assert_eq(weft_test_step_wall(rt, WEFT_SEC(3600)), 0);
	settle(rt);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(5));
	cr_assert_eq(wall(rt), WEFT_TEST_WALL_START + WEFT_SEC(3605));
	cr_assert_eq(weft_test_step_wall(rt, -WEFT_SEC(7200)), 0);
	advance(rt, WEFT_SEC(6));
	cr_assert_eq(sleepers[0].woke_at, due_at(sleepers[0].deadline));
	cr_assert_eq(wall(rt), WEFT_TEST_WALL_START - WEFT_SEC(3589));
	runtime_end(rt);
}

/* ---- Deadlocks, and the end ----------------------------------------------------------------- */

static wf_atomic_u32 told_of_deadlock;

static void listens(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)level;
	(void)worker;
	(void)pid;
	if (strstr(text, "virtual time stands"))
		wf_u32_fetch_add(&told_of_deadlock, 1);
}

static weft_rt *rt_that_listens(weft_time stall_ns)
{
	struct weft_rt_opts opts = {.size = sizeof(opts),
		.workers = WORKERS,
		.log = listens,
		.stall_ns = stall_ns};

	return virtual_rt_with(&opts, false);
}

Test(virtual, a_deadlock_is_told_to_who_waits_for_rest, .timeout = 120)
{
	weft_rt *rt = rt_that_listens(WEFT_FOREVER);
	weft_pid pid;

	settle(rt);
	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_virtual_wait_idle(rt, WEFT_FOREVER), -EDEADLK);
	cr_assert_eq(wf_u32_load_relaxed(&told_of_deadlock), 1);
	cr_assert_eq(weft_virtual_freeze(rt), 0);
	settle(rt);
	cr_assert_eq(weft_virtual_thaw(rt), 0);
	cr_assert_eq(weft_wake(pid), 0);
	settle(rt);
	cr_assert_eq(joined(pid), 0);
	runtime_end(rt);
}

static void *runs(void *rt)
{
	cr_assert_eq(weft_rt_run(rt), 0);
	return NULL;
}

Test(virtual, a_deadlock_is_on_the_log_if_nobody_asks, .timeout = 120)
{
	weft_rt *rt = rt_that_listens(WEFT_MS(3));
	pthread_t thread;
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(pthread_create(&thread, NULL, runs, rt), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&told_of_deadlock) > 0);
	cr_assert_eq(weft_wake(pid), 0);
	pthread_join(thread, NULL);
	runtime_end(rt);
}

static int cleans_up_for_an_hour(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	weft_shield_begin();
	(void)weft_sleep_until(weft_after(WEFT_SEC(3600)));
	weft_shield_end();
	return 7;
}

/* A stop needs time, also of a clock that was frozen, and an advance that meets it is told. */
Test(virtual, a_stop_thaws_the_clock, .timeout = 120)
{
	weft_rt *rt = virtual_rt(true);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, cleans_up_for_an_hour, NULL, NULL, &pid), 0);
	settle(rt);
	cr_assert_eq(weft_rt_stop(rt, WEFT_SEC(60), WEFT_FOREVER), 0);
	cr_assert_geq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(3660));
	cr_assert_eq(joined(pid), 7);
	cr_assert_eq(weft_virtual_advance(rt, WEFT_SEC(1), WEFT_FOREVER), -ESHUTDOWN);
	cr_assert_eq(weft_virtual_wait_idle(rt, WEFT_FOREVER), 0);
	runtime_end(rt);
}

static int stops_its_runtime(void *arg)
{
	(void)weft_sleep_until(weft_after(WEFT_SEC(1)));
	return weft_rt_stop(arg, 0, WEFT_FOREVER);
}

Test(virtual, a_stop_ends_an_advance, .timeout = 120)
{
	weft_rt *rt = virtual_rt(true);

	cr_assert_eq(weft_rt_spawn(rt, stops_its_runtime, rt, NULL, NULL), 0);
	cr_assert_eq(weft_virtual_advance(rt, WEFT_SEC(3600), WEFT_FOREVER), -ESHUTDOWN);
	runtime_end(rt);
}

/* As the others, many times: nothing hangs, and nothing is left. */
Test(virtual, runtimes_come_and_go, .timeout = 240)
{
	for (int i = 0; i < 200 / HARNESS_SLOWDOWN; i++) {
		weft_rt *rt = virtual_rt(i % 2);

		wf_u32_store_relaxed(&order, 0);
		memset(sleepers, 0, sizeof(sleepers));
		for (unsigned n = 0; n < 9; n++) {
			sleepers[n].deadline = WEFT_TEST_START + WEFT_MS(n * n % 5);
			spawn_sleeper(rt, n);
		}
		if (i % 4 == 1)
			advance(rt, WEFT_MS(2));
		if (i % 4 < 2)
			(void)weft_virtual_thaw(rt);
		if (i % 4 < 2)
			settle(rt);
		runtime_end(rt);
	}
}
