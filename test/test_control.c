/*
 * Goal: weft_rt_run_on_workers(), weft_rt_block_on(), weft_rt_survivors(), and what is refused to a
 * worker because it would block its thread.
 * Method: whole runtimes, small and many; threads that race with a stop, and counts.
 */
#include <errno.h>
#include <pthread.h>

#include "test/runtime.h"

enum { WORKERS = 3 };

static wf_atomic_u32 ran[WORKERS], dropped;

static unsigned ran_in_all(void)
{
	unsigned sum = 0;

	for (int i = 0; i < WORKERS; i++)
		sum += wf_u32_load_relaxed(&ran[i]);
	return sum;
}

static void drop(void *arg)
{
	(void)wf_u32_fetch_add(&dropped, 1);
	(void)arg;
}

static void drop_last(void *arg)
{
	cr_assert_eq(ran_in_all() % WORKERS, 0, "somebody is still to run it");
	drop(arg);
}

/* ---- On every worker ------------------------------------------------------------------------- */

static int runs_on_worker(void *arg)
{
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(weft_park(WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_rt_current(), arg);
	(void)wf_u32_fetch_add(&ran[weft_worker_index()], 1);
	return 0;
}

static int calls_from_inside(void *arg)
{
	cr_assert_eq(weft_rt_run_on_workers(arg, runs_on_worker, arg, drop_last), 0);
	UNTIL(wf_u32_load_acquire(&dropped) == 3);
	return 1;
}

Test(control, runs_once_on_every_worker, .timeout = 120)
{
	weft_rt *rt = runtime_new(WORKERS);

	for (unsigned i = 1; i <= 2; i++) {
		cr_assert_eq(weft_rt_run_on_workers(rt, runs_on_worker, rt, drop_last), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&dropped) == i);
		for (int worker = 0; worker < WORKERS; worker++)
			cr_assert_eq(wf_u32_load_relaxed(&ran[worker]), i);
	}
	cr_assert_eq(runtime_do(rt, calls_from_inside, rt), 1);
	cr_assert_eq(weft_rt_run_on_workers(rt, NULL, rt, drop), -EINVAL);
	cr_assert_eq(wf_u32_load_relaxed(&dropped), 3);
	runtime_end(rt);
}

Test(control, a_call_counts_as_alive, .timeout = 120)
{
	for (int i = 0; i < 50 / HARNESS_SLOWDOWN + 5; i++) {
		weft_rt *rt = runtime_new(WORKERS);

		cr_assert_eq(weft_rt_run_on_workers(rt, runs_on_worker, rt, NULL), 0);
		cr_assert_eq(weft_rt_run(rt), 0);
		cr_assert_eq(ran_in_all(), WORKERS * (unsigned)(i + 1));
		cr_assert_eq(weft_rt_run_on_workers(rt, runs_on_worker, rt, drop), -ESHUTDOWN);
		runtime_end(rt);
	}
	cr_assert_eq(wf_u32_load_relaxed(&dropped), 0);
}

static int fails_on_one(void *arg)
{
	(void)runs_on_worker(arg);
	return weft_worker_index() == 1 ? -EXDEV : 0;
}

Test(control, a_failure_stops_the_runtime_and_names_the_worker, .timeout = 120)
{
	weft_rt *rt = runtime_new(WORKERS);
	struct weft_error error;
	weft_pid pid;
	int result;

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_rt_run_on_workers(rt, fails_on_one, rt, drop_last), 0);
	cr_assert_eq(weft_rt_run(rt), -EXDEV);
	cr_assert_eq(weft_rt_error(rt, 0, &error), 0);
	cr_assert_eq(error.error, -EXDEV);
	cr_assert_eq(error.worker, 1);
	cr_assert_str_eq(error.step, "user function");
	cr_assert_eq(weft_rt_error(rt, 1, &error), -ENOENT);
	cr_assert_eq(ran_in_all(), WORKERS);
	cr_assert_eq(wf_u32_load_relaxed(&dropped), 1);
	cr_assert_eq(weft_try_join(pid, &result), 0);
	cr_assert_eq(result, -ECANCELED);
	runtime_end(rt);
}

struct rush {
	weft_rt *rt;
	wf_atomic_u32 accepted;
};

static void calls_or_stops(unsigned index, void *arg)
{
	struct rush *rush = arg;
	int r;

	if (index == 0) {
		UNTIL_FOREIGN(wf_u32_load_relaxed(&dropped) >= 10);
		cr_assert_eq(weft_rt_stop(rush->rt, 0, WEFT_FOREVER), 0);
		return;
	}
	while ((r = weft_rt_run_on_workers(rush->rt, runs_on_worker, rush->rt, drop)) == 0)
		(void)wf_u32_fetch_add(&rush->accepted, 1);
	cr_assert_eq(r, -ESHUTDOWN);
}

Test(control, calls_run_exactly_if_accepted_across_a_stop, .timeout = 120)
{
	for (int i = 0; i < 20 / HARNESS_SLOWDOWN + 2; i++) {
		struct rush rush = {.rt = runtime_new(WORKERS)};
		unsigned accepted;

		memset(ran, 0, sizeof ran);
		wf_u32_store_relaxed(&dropped, 0);
		harness_threads(3, calls_or_stops, &rush);
		accepted = wf_u32_load_relaxed(&rush.accepted);
		runtime_end(rush.rt);
		for (int worker = 0; worker < WORKERS; worker++)
			cr_assert_eq(wf_u32_load_relaxed(&ran[worker]), accepted);
		cr_assert_eq(wf_u32_load_relaxed(&dropped), accepted);
	}
}

/* ---- A process to wait for ------------------------------------------------------------------- */

static int sleeps_then_answers(void *arg)
{
	cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(1))), 0);
	return returns(arg);
}

Test(control, block_on_waits_for_its_process, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "asked", .flags = WEFT_MOVABLE};
	int result = 0;
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_rt_block_on(rt, sleeps_then_answers, &(int){41}, NULL, &result), 0);
	cr_assert_eq(result, 41, "before start");
	cr_assert_eq(weft_rt_start(rt), 0);
	cr_assert_eq(weft_rt_block_on(rt, sleeps_then_answers, &(int){-42}, &opts, &result), 0);
	cr_assert_eq(result, -42, "an error of the process is its result");
	cr_assert_eq(weft_rt_block_on(rt, returns, &(int){43}, NULL, NULL), 0);
	cr_assert_eq(weft_wake(pid), 0, "the runtime goes on");
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(weft_rt_block_on(rt, returns, &(int){44}, NULL, &result), -ESHUTDOWN);
	runtime_end(rt);
}

Test(control, block_on_refuses_what_would_never_return, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = WEFT_DETACHED};
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(weft_rt_block_on(rt, returns, &(int){1}, &opts, NULL), -EINVAL);
	opts.flags = WEFT_SUSPENDED;
	cr_assert_eq(weft_rt_block_on(rt, returns, &(int){1}, &opts, NULL), -EINVAL);
	cr_assert_eq(weft_rt_block_on(rt, NULL, NULL, NULL, NULL), -EINVAL);
	runtime_end(rt);
}

enum { BLOCKED = 70 }; /* more than foreign threads may wait at once */

static wf_atomic_u32 waiting;

static int waits_for_all(void *arg)
{
	(void)wf_u32_fetch_add(&waiting, 1);
	UNTIL(wf_u32_load_relaxed(&waiting) == BLOCKED);
	return returns(arg);
}

static void blocks_on(unsigned index, void *arg)
{
	int value = (int)index, result = -1;

	cr_assert_eq(weft_rt_block_on(arg, waits_for_all, &value, NULL, &result), 0);
	cr_assert_eq(result, value);
}

Test(control, block_on_by_more_threads_than_may_wait_at_once, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);

	harness_threads(BLOCKED, blocks_on, rt);
	runtime_end(rt);
}

static void stops(unsigned index, void *arg)
{
	int result = 0;

	if (index == 0) {
		cr_assert_eq(weft_rt_block_on(arg, parks, NULL, NULL, &result), 0);
		cr_assert_eq(result, -ECANCELED);
		return;
	}
	UNTIL_FOREIGN(weft_rt_survivors(arg, NULL, 0) == 1);
	cr_assert_eq(weft_rt_stop(arg, 0, WEFT_FOREVER), 0);
}

Test(control, block_on_returns_when_a_stop_cancels_its_process, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);

	harness_threads(2, stops, rt);
	runtime_end(rt);
}

/* ---- Nested ---------------------------------------------------------------------------------- */

struct nested {
	weft_rt *rt, *other, *ended;
};

/* Those that would block a worker's thread, on its own runtime and on another. */
static void is_refused_all(struct nested *nested)
{
	struct weft_rt_opts opts = {.size = sizeof opts, .log = NULL};
	weft_rt *rts[] = {nested->rt, nested->other}, *made = NULL;
	struct weft_error error = {0};
	int result = 7;

	opts.error = &error;
	for (size_t i = 0; i < WF_ARRAY_COUNT(rts); i++) {
		cr_assert_eq(weft_rt_run(rts[i]), -EDEADLK);
		cr_assert_eq(weft_rt_destroy(rts[i], WEFT_FOREVER), -EDEADLK);
		cr_assert_eq(weft_rt_block_on(rts[i], parks, NULL, NULL, &result), -EDEADLK);
	}
	cr_assert_eq(result, 7);
	cr_assert_eq(weft_rt_create(&opts, &made), -EDEADLK);
	cr_assert_null(made);
	cr_assert_eq(weft_main(&opts, parks, NULL), -EDEADLK);
	cr_assert_eq(weft_rt_stop(nested->ended, 0, WEFT_FOREVER), 0, "it has ended");
}

static void is_refused_in_a_post(void *arg)
{
	is_refused_all(arg);
	count_one(&waiting);
}

static int is_refused_on_a_worker(void *arg)
{
	is_refused_all(arg);
	return 0;
}

static wf_atomic_u32 spinning, release;

static int spins(void *arg)
{
	(void)arg;
	wf_u32_store_release(&spinning, 1);
	while (!wf_u32_load_acquire(&release))
		wf_pause();
	return 0;
}

static int nests(void *arg)
{
	struct nested *nested = arg;

	is_refused_all(nested);
	/* The outer context is whole: it spawns, parks, sleeps. */
	cr_assert_eq(joined(spawned(returns, &(int){5})), 5);
	cr_assert_eq(weft_sleep_until(weft_after(1000)), 0);
	cr_assert_eq(weft_rt_stop(nested->other, 0, WEFT_FOREVER), -EDEADLK);
	wf_u32_store_release(&release, 1); /* begun all the same */
	UNTIL(weft_rt_stop(nested->other, 0, WEFT_FOREVER) == 0);
	return 1;
}

Test(control, what_would_block_a_worker_is_refused, .timeout = 120)
{
	struct nested nested = {runtime_new(1), runtime_new(1), runtime_new(1)};
	struct weft_error error;
	weft_pid pid;

	cr_assert_eq(weft_rt_stop(nested.ended, 0, WEFT_FOREVER), 0);
	cr_assert_eq(weft_rt_spawn(nested.other, spins, NULL, NULL, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&spinning));
	cr_assert_eq(weft_post(nested.rt, is_refused_in_a_post, &nested), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&waiting) == 1);
	cr_assert_eq(
		weft_rt_run_on_workers(nested.rt, is_refused_on_a_worker, &nested, drop), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&dropped) == 1);
	cr_assert_eq(runtime_do(nested.rt, nests, &nested), 1);
	cr_assert_eq(weft_rt_error(nested.rt, 0, &error), -ENOENT);
	runtime_end(nested.rt);
	runtime_end(nested.other);
	runtime_end(nested.ended);
}

/* ---- Survivors ------------------------------------------------------------------------------- */

static const struct weft_survivor *find(
	const struct weft_survivor *list, int count, weft_pid pid)
{
	for (int i = 0; i < count; i++)
		if (weft_pid_equal(list[i].pid, pid))
			return &list[i];
	cr_assert_fail("not in the list");
	return NULL;
}

static weft_pid named(weft_rt *rt, weft_fn fn, const char *name, unsigned flags, unsigned worker)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .name = name, .flags = flags, .worker = worker};
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, fn, NULL, &opts, &pid), 0);
	return pid;
}

Test(control, survivors_are_told_with_name_state_and_worker, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 2, .stall_ns = WEFT_FOREVER});
	struct weft_survivor list[8];
	weft_pid spinner, parker, suspended, behind;

	cr_assert_eq(weft_rt_survivors(rt, NULL, 0), 0);
	spinner = named(rt, spins, "spinner", 0, 2);
	UNTIL_FOREIGN(wf_u32_load_acquire(&spinning));
	parker = named(rt, parks, NULL, 0, 1);
	suspended = named(rt, parks, "later", WEFT_SUSPENDED, 0);
	behind = named(rt, parks, "behind", 0, 2);
	cr_assert_eq(weft_rt_survivors(rt, list, 2), 4, "more than there is room for");
	do
		cr_assert_eq(weft_rt_survivors(rt, list, 8), 4);
	while (strcmp(find(list, 4, parker)->state, "waiting") != 0);
	cr_assert_eq(find(list, 4, parker)->worker, 0);
	cr_assert_str_eq(find(list, 4, parker)->name, "");
	cr_assert_str_eq(find(list, 4, spinner)->name, "spinner");
	cr_assert_str_eq(find(list, 4, spinner)->state, "running");
	cr_assert_eq(find(list, 4, spinner)->worker, 1);
	cr_assert_str_eq(find(list, 4, suspended)->state, "suspended");
	cr_assert_eq(find(list, 4, suspended)->worker, -1);
	cr_assert_str_eq(find(list, 4, behind)->state, "new");
	cr_assert_eq(find(list, 4, behind)->worker, 1);
	wf_u32_store_release(&release, 1);
	runtime_end(rt);
}

static int yields_until_released(void *arg)
{
	(void)arg;
	UNTIL(wf_u32_load_relaxed(&release));
	return 0;
}

/* In its first run, and so in the table as it was spawned. */
static int runs_as_a_task(void *arg)
{
	struct weft_survivor list[4];
	int count = weft_rt_survivors(weft_rt_current(), list, 4);

	cr_assert_str_eq(find(list, count, weft_self())->state, "running");
	cr_assert_eq(find(list, count, weft_self())->worker, 0);
	return *(int *)arg;
}

static int looks_at_who_yields(void *arg)
{
	struct weft_survivor list[4];
	weft_pid pid = spawned_with(yields_until_released, NULL, WEFT_MOVABLE, 0), task;
	int count;

	for (int i = 0; i < 4; i++)
		cr_assert_eq(weft_yield(), 0);
	count = weft_rt_survivors(weft_rt_current(), list, 4);
	cr_assert_str_eq(find(list, count, pid)->state, "queued");
	cr_assert_eq(find(list, count, pid)->worker, -1);
	cr_assert_eq(weft_task_spawn(runs_as_a_task, arg, NULL, &task), 0);
	cr_assert_eq(joined(task), 7);
	wf_u32_store_relaxed(&release, 1);
	return joined(pid);
}

Test(control, survivors_that_may_move_run_or_are_queued, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, looks_at_who_yields, &(int){7}), 0);
}
