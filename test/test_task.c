/*
 * Goal: what <weft/task.h> promises: when a task is polled and how often, what its calls arm, what
 * becomes of what was armed, where it runs, what it costs; and wakers.
 * Method: poll functions that count their runs. Who waits for a task to settle is a fiber on the
 * same worker, which runs again only when the task has, or a thread that waits for what the task
 * has written. Deadlines that must not come are an hour away.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/runtime.h"

#define HOUR_NS WEFT_SEC(3600)
#define ONE_WORKER(fn) cr_assert_eq(in_runtime(1, fn, NULL), 1)

static weft_pid task_with(weft_task_fn fn, void *state, unsigned flags, unsigned worker)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags, .worker = worker};
	weft_pid pid = {0};

	cr_assert_eq(weft_task_spawn(fn, state, &opts, &pid), 0);
	return pid;
}

static weft_pid task(weft_task_fn fn, void *state)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_task_spawn(fn, state, NULL, &pid), 0);
	return pid;
}

/* On one worker: everything that was ready has run, more than once. */
static void settle(void)
{
	for (int i = 0; i < 4; i++)
		cr_assert_eq(weft_yield(), 0);
}

static weft_time in_an_hour(void)
{
	return weft_after(HOUR_NS);
}

/* ---- Life ----------------------------------------------------------------------------------- */

struct life {
	unsigned polls, pending, dropped;
	weft_pid self;
	bool cancelled;
	int result;
};

static int lives(void *state)
{
	struct life *life = state;

	life->self = weft_self();
	return life->polls++ < life->pending ? WEFT_PENDING : life->result;
}

static void drop_life(void *state)
{
	((struct life *)state)->dropped++;
}

static int ends_at_once(void *arg)
{
	struct life life = {.result = 42};
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .name = "short", .arg_dtor = drop_life};
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_task_spawn(lives, &life, &opts, &pid), 0);
	cr_assert_eq(life.polls, 0, "spawn has run it");
	cr_assert_eq(joined(pid), 42);
	cr_assert_eq(life.polls, 1);
	cr_assert_eq(life.dropped, 1);
	cr_assert(weft_pid_equal(life.self, pid));
	cr_assert_eq(weft_wake(pid), -ESRCH);
	cr_assert_eq(weft_cancel(pid), -ESRCH);
	return 1;
}

Test(task, a_task_that_is_done_at_once_runs_once, .timeout = 120)
{
	ONE_WORKER(ends_at_once);
}

static int parks_once(void *state)
{
	(void)state;
	return weft_park(WEFT_FOREVER);
}

static weft_pid reserved(void)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_spawn_reserve(&pid), 0);
	return pid;
}

static int is_committed(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = WEFT_STACK_NOW};
	struct life life = {.pending = 1, .result = 42};
	weft_pid pid = reserved();

	(void)arg;
	cr_assert_eq(weft_task_commit(pid, lives, &life, &opts), -EINVAL);
	opts = (struct weft_spawn_opts){.size = sizeof opts, .stack_size = 65536};
	cr_assert_eq(weft_task_commit(pid, lives, &life, &opts), -EINVAL);
	opts = (struct weft_spawn_opts){
		.size = sizeof opts, .flags = WEFT_PINNED, .arg_dtor = drop_life};
	cr_assert_eq(weft_task_commit(pid, lives, &life, &opts), 0, "it is still reserved");
	cr_assert_eq(weft_task_commit(pid, lives, &life, NULL), -ESRCH);
	settle();
	cr_assert_eq(life.polls, 1);
	cr_assert(weft_pid_equal(life.self, pid));
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(joined(pid), 42);
	cr_assert_eq(life.dropped, 1);
	/* What came while it was reserved: a wake, a cancel. */
	pid = reserved();
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_task_commit(pid, parks_once, NULL, NULL), 0);
	cr_assert_eq(joined(pid), 0);
	pid = reserved();
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(weft_task_commit(pid, parks_once, NULL, NULL), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	return 1;
}

Test(task, is_spawned_in_two_steps, .timeout = 120)
{
	ONE_WORKER(is_committed);
	cr_assert_eq(weft_task_commit((weft_pid){1}, lives, NULL, NULL), -EPERM);
}

static int is_polled_by_wakes(void *arg)
{
	unsigned flags = *(unsigned *)arg;
	struct life life = {.pending = 3};
	weft_pid pid = task_with(lives, &life, flags, 0);

	settle();
	for (unsigned n = 1; n <= 3; n++) {
		cr_assert_eq(life.polls, n, "polled %u times", life.polls);
		cr_assert_eq(weft_try_join(pid, NULL), -EAGAIN);
		for (int i = 0; i < 3; i++)
			cr_assert_eq(weft_wake(pid), 0);
		settle();
	}
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(life.polls, 4);
	return 1;
}

Test(task, each_wake_of_a_waiting_task_is_one_poll, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, is_polled_by_wakes, &(unsigned){0}), 1);
	cr_assert_eq(in_runtime(1, is_polled_by_wakes, &(unsigned){WEFT_PINNED}), 1);
}

static int wakes_itself(void *state)
{
	struct life *life = state;

	if (life->polls++ == 0)
		for (int i = 0; i < 3; i++)
			cr_assert_eq(weft_wake(weft_self()), 0);
	return life->polls < 3 ? WEFT_PENDING : 0;
}

static int woken_while_it_runs(void *arg)
{
	struct life life = {0};
	weft_pid pid = task_with(wakes_itself, &life, *(unsigned *)arg, 0);

	settle();
	cr_assert_eq(life.polls, 2, "three wakes in a run made %u", life.polls - 1);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(life.polls, 3);
	return 1;
}

Test(task, wakes_while_it_runs_are_one_more_poll, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, woken_while_it_runs, &(unsigned){0}), 1);
	cr_assert_eq(in_runtime(1, woken_while_it_runs, &(unsigned){WEFT_PINNED}), 1);
}

Test(task, spawned_from_a_thread_suspended_and_woken, .timeout = 120)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = WEFT_SUSPENDED, .arg_dtor = drop_life};
	struct life life = {.result = 7};
	weft_rt *rt = runtime_new(2);
	weft_pid pid, detached = {1};
	int result = 0;

	cr_assert_eq(weft_rt_task_spawn(rt, lives, &life, &opts, &pid), 0);
	cr_assert_eq(weft_join(pid, &result, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 7);
	cr_assert_eq(life.dropped, 1);
	opts.flags = WEFT_DETACHED;
	cr_assert_eq(weft_rt_task_spawn(rt, lives, &life, &opts, &detached), 0);
	runtime_end(rt);
	cr_assert_eq(life.polls, 2);
	cr_assert_eq(life.dropped, 2);
	cr_assert_eq(weft_wake(pid), -ESRCH);
	cr_assert_eq(weft_wake(detached), -ESRCH);
}

static int refused_options(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .stack_size = 65536};
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_task_spawn(lives, NULL, &opts, &pid), -EINVAL);
	opts = (struct weft_spawn_opts){.size = sizeof opts, .flags = WEFT_STACK_NOW};
	cr_assert_eq(weft_task_spawn(lives, NULL, &opts, &pid), -EINVAL);
	opts.flags = WEFT_PINNED | WEFT_MOVABLE;
	cr_assert_eq(weft_task_spawn(lives, NULL, &opts, &pid), -EINVAL);
	opts = (struct weft_spawn_opts){.size = sizeof opts, .worker = 2};
	cr_assert_eq(weft_task_spawn(lives, NULL, &opts, &pid), -EINVAL);
	cr_assert_eq(weft_task_spawn(NULL, NULL, NULL, &pid), -EINVAL);
	return 1;
}

Test(task, options_that_make_no_sense_are_refused, .timeout = 120)
{
	cr_assert_eq(weft_task_spawn(lives, NULL, NULL, NULL), -EPERM);
	ONE_WORKER(refused_options);
}

static int hears_of_cancel(void *state)
{
	struct life *life = state;

	life->polls++;
	life->result = weft_park(WEFT_FOREVER);
	return life->result;
}

/* A stop cancels tasks that wait, that never ran, and that are suspended: each runs once more. */
Test(task, a_stop_polls_every_task_cancelled, .timeout = 120)
{
	struct weft_spawn_opts suspended = {.size = sizeof suspended, .flags = WEFT_SUSPENDED};
	struct life waits = {0}, never_ran = {0};
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(weft_rt_task_spawn(rt, hears_of_cancel, &waits, NULL, NULL), 0);
	cr_assert_eq(weft_rt_task_spawn(rt, hears_of_cancel, &never_ran, &suspended, NULL), 0);
	runtime_end(rt);
	cr_assert_eq(waits.result, -ECANCELED);
	cr_assert_leq(waits.polls, 2);
	cr_assert_eq(never_ran.result, -ECANCELED);
	cr_assert_eq(never_ran.polls, 1);
}

static int goes_on_cancelled(void *state)
{
	struct life *life = state;

	if (life->polls++ > 0)
		life->cancelled = weft_park(WEFT_FOREVER) == -ECANCELED;
	return life->polls < 3 ? WEFT_PENDING : 0;
}

static int ignores_cancel(void *arg)
{
	struct life life = {0};
	weft_pid pid = task(goes_on_cancelled, &life);

	(void)arg;
	settle();
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(weft_cancel(pid), 0);
	settle();
	cr_assert_eq(life.polls, 2, "cancel polls once, not %u times", life.polls - 1);
	cr_assert(life.cancelled);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(joined(pid), 0);
	return 1;
}

Test(task, one_that_ignores_its_cancel_is_polled_only_when_woken, .timeout = 120)
{
	ONE_WORKER(ignores_cancel);
}

/* ---- Park, sleep, yield ---------------------------------------------------------------------- */

struct steps {
	unsigned polls;
	int got[8];
	weft_time deadline;
};

static int parks_thrice(void *state)
{
	struct steps *steps = state;

	switch (steps->polls++) {
	case 0:
		cr_assert_eq(weft_park(WEFT_POLL), -EAGAIN);
		cr_assert_eq(weft_park(weft_now_coarse()), -ETIME);
		return weft_park(WEFT_FOREVER);
	case 1:
		cr_assert_eq(weft_park(in_an_hour()), 0, "woken");
		cr_assert_eq(weft_park(WEFT_POLL), -EAGAIN, "the wake was consumed");
		steps->deadline = weft_after(WEFT_US(10));
		return weft_park(steps->deadline);
	default:
		steps->got[0] = weft_park(steps->deadline);
		return steps->got[0];
	}
}

static int parks_in_a_task(void *arg)
{
	struct steps steps = {0};
	weft_pid pid = task_with(parks_thrice, &steps, *(unsigned *)arg, 0);

	settle();
	cr_assert_eq(steps.polls, 1);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(joined(pid), -ETIME);
	return 1;
}

Test(task, park_takes_the_wake_or_ends_at_its_deadline, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, parks_in_a_task, &(unsigned){0}), 1);
	cr_assert_eq(in_runtime(1, parks_in_a_task, &(unsigned){WEFT_PINNED}), 1);
}

static int sleeps(void *state)
{
	struct steps *steps = state;
	int r = weft_sleep_until(steps->deadline);

	steps->polls++;
	if (r != WEFT_PENDING)
		cr_assert(r == -ECANCELED || weft_now() >= steps->deadline, "early");
	return r;
}

static int sleeps_in_tasks(void *arg)
{
	enum { CROWD = 100 };
	struct steps steps[CROWD];
	weft_pid pids[CROWD];

	(void)arg;
	for (unsigned i = 0; i < CROWD; i++) {
		steps[i] = (struct steps){.deadline = weft_after(WEFT_US(i * 20))};
		pids[i] = task_with(sleeps, &steps[i], i % 2 ? WEFT_PINNED : 0, 0);
	}
	for (unsigned i = 0; i < CROWD; i++)
		cr_assert_eq(joined(pids[i]), 0);
	steps[0] = (struct steps){.deadline = WEFT_FOREVER};
	pids[0] = task(sleeps, &steps[0]);
	settle();
	cr_assert_eq(weft_wake(pids[0]), 0);
	settle();
	cr_assert_eq(steps[0].polls, 2, "woken, it sleeps on");
	cr_assert_eq(weft_cancel(pids[0]), 0);
	cr_assert_eq(joined(pids[0]), -ECANCELED);
	return 1;
}

Test(task, sleeps_are_never_early_and_end_by_cancel, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, sleeps_in_tasks, NULL), 1);
	cr_assert_eq(in_runtime(2, sleeps_in_tasks, NULL), 1);
}

/* Progress by whatever call: none of them holds the worker. */
static int goes_on_for_ever(void *state)
{
	struct steps *steps = state;
	int r = 0;

	steps->polls++;
	while (r == 0 && steps->got[0] < 1000) {
		if (steps->got[1] == 1)
			cr_assert_eq(weft_wake(weft_self()), 0);
		r = steps->got[1] == 0 ? weft_sleep_until(weft_now_coarse())
		    : steps->got[1] == 1 ? weft_park(WEFT_FOREVER)
					 : weft_consume();
		steps->got[0] += r == 0;
	}
	return r;
}

static int never_has_to_wait(void *arg)
{
	(void)arg;
	for (int call = 0; call < 3; call++) {
		struct steps steps = {.got = {0, call}};

		cr_assert_eq(joined(task(goes_on_for_ever, &steps)), 0);
		cr_assert_geq(steps.polls, 1000 / 129, "call %d: %u polls", call, steps.polls);
	}
	return 1;
}

Test(task, calls_that_need_not_wait_end_a_run_all_the_same, .timeout = 120)
{
	ONE_WORKER(never_has_to_wait);
}

/* Two deadlines in one run: the earlier one wakes. */
static int sleeps_twice_at_once(void *state)
{
	struct steps *steps = state;

	if (steps->polls++ == 0) {
		cr_assert_eq(weft_sleep_until(in_an_hour()), WEFT_PENDING);
		cr_assert_eq(weft_sleep_until(steps->deadline), WEFT_PENDING);
		return weft_sleep_until(in_an_hour());
	}
	return weft_sleep_until(steps->deadline);
}

static int earliest_counts(void *arg)
{
	struct steps steps = {.deadline = weft_after(WEFT_MS(1))};

	(void)arg;
	return joined(task(sleeps_twice_at_once, &steps)) == 0;
}

Test(task, of_two_deadlines_the_earlier_counts, .timeout = 120)
{
	ONE_WORKER(earliest_counts);
}

static int yields(void *state)
{
	struct steps *steps = state;

	for (;;) {
		int r = weft_yield();

		if (r == WEFT_PENDING) {
			cr_assert_eq(weft_yield(), WEFT_PENDING, "armed already");
			steps->polls++;
			return r;
		}
		if (r < 0 || steps->polls == 5)
			return r;
	}
}

static int yields_in_tasks(void *arg)
{
	struct steps steps = {0};
	weft_pid pid = task_with(yields, &steps, *(unsigned *)arg, 0);

	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(steps.polls, 5);
	steps.polls = 0;
	pid = task_with(yields, &steps, *(unsigned *)arg | WEFT_SUSPENDED, 0);
	cr_assert_eq(weft_cancel(pid), 0); /* starts it: before, another worker might end it */
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_eq(steps.polls, 1, "it yields before it hears of a cancel");
	return 1;
}

Test(task, yield_returns_in_the_run_it_caused, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, yields_in_tasks, &(unsigned){0}), 1);
	cr_assert_eq(in_runtime(2, yields_in_tasks, &(unsigned){0}), 1);
	cr_assert_eq(in_runtime(1, yields_in_tasks, &(unsigned){WEFT_PINNED}), 1);
}

/* A yield takes back what else was armed: the timer shares memory with the link in the queue. */
static int yields_with_a_deadline(void *state)
{
	struct steps *steps = state;
	int r = weft_yield();

	(void)weft_sleep_until(in_an_hour());
	if (r == WEFT_PENDING)
		return r;
	return ++steps->polls < 100 ? weft_yield() : 0;
}

static int yields_and_sleeps(void *arg)
{
	struct steps steps = {0};

	(void)arg;
	return joined(task(yields_with_a_deadline, &steps)) == 0;
}

Test(task, a_yield_goes_before_a_deadline, .timeout = 120)
{
	ONE_WORKER(yields_and_sleeps);
}

/* ---- Join ------------------------------------------------------------------------------------ */

struct joining {
	weft_pid targets[2];
	int results[2], joins[2];
	unsigned polls;
	weft_time deadline;
	wf_atomic_u32 armed;
};

static int joins_both(void *state)
{
	struct joining *joining = state;
	int pending = 0;

	joining->polls++;
	for (int i = 0; i < 2; i++) {
		if (joining->joins[i] != WEFT_PENDING)
			continue;
		joining->joins[i] =
			weft_join(joining->targets[i], &joining->results[i], joining->deadline);
		pending += joining->joins[i] == WEFT_PENDING;
	}
	return pending ? WEFT_PENDING : 0;
}

static struct joining joining_of(weft_pid first, weft_pid second)
{
	return (struct joining){.targets = {first, second},
		.joins = {WEFT_PENDING, WEFT_PENDING}, .deadline = WEFT_FOREVER};
}

static int joins_two_at_once(void *arg)
{
	struct life first = {.pending = 1, .result = 1}, second = {.pending = 1, .result = 2};
	struct joining joining = joining_of(task(lives, &first), task(lives, &second));
	weft_pid pid = task(joins_both, &joining);

	(void)arg;
	settle();
	cr_assert_eq(joining.polls, 1);
	cr_assert_eq(weft_try_join(joining.targets[0], NULL), -EBUSY, "a task waits");
	cr_assert_eq(weft_detach(joining.targets[0]), -EBUSY);
	cr_assert_eq(weft_wake(joining.targets[1]), 0);
	settle();
	cr_assert_eq(joining.polls, 2);
	cr_assert_eq(joining.joins[1], 0);
	cr_assert_eq(joining.results[1], 2);
	cr_assert_eq(weft_try_join(joining.targets[0], NULL), -EBUSY, "it waits again");
	cr_assert_eq(weft_wake(joining.targets[0]), 0);
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(joining.results[0], 1);
	cr_assert_eq(joining.polls, 3);
	return 1;
}

Test(task, two_joins_at_once, .timeout = 120)
{
	ONE_WORKER(joins_two_at_once);
}

static int joins_late(void *state)
{
	struct joining *joining = state;
	int r = weft_join(joining->targets[0], NULL, joining->deadline);

	joining->polls++;
	return r;
}

static int gives_up_joins(void *arg)
{
	struct life life = {.pending = 1, .result = 5};
	struct joining joining = joining_of(task(lives, &life), (weft_pid){0});
	weft_pid pid;

	(void)arg;
	settle();
	joining.deadline = WEFT_POLL;
	cr_assert_eq(joined(task(joins_late, &joining)), -EAGAIN);
	joining.deadline = weft_after(WEFT_US(100));
	cr_assert_eq(joined(task(joins_late, &joining)), -ETIME);
	joining.deadline = in_an_hour();
	pid = task(joins_late, &joining);
	settle();
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_eq(weft_wake(joining.targets[0]), 0);
	cr_assert_eq(joined(joining.targets[0]), 5, "nobody waits for it any more");
	return 1;
}

Test(task, a_join_given_up_leaves_the_target_joinable, .timeout = 120)
{
	ONE_WORKER(gives_up_joins);
}

/* The second call's deadline is past: the first one's wait is not. */
static int joins_twice_in_a_run(void *state)
{
	struct joining *joining = state;
	int r = weft_join(joining->targets[0], &joining->results[0], WEFT_FOREVER);

	if (joining->polls++ == 0) {
		cr_assert_eq(r, WEFT_PENDING);
		cr_assert_eq(weft_join(joining->targets[0], NULL, weft_now_coarse()), -ETIME);
	}
	return r;
}

static int waits_by_the_first_join(void *arg)
{
	struct life life = {.pending = 1, .result = 5};
	struct joining joining = joining_of(task(lives, &life), (weft_pid){0});
	weft_pid pid = task(joins_twice_in_a_run, &joining);

	(void)arg;
	settle();
	cr_assert_eq(weft_wake(joining.targets[0]), 0);
	settle();
	cr_assert_eq(joining.polls, 2, "nobody told it of the end");
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(joining.results[0], 5);
	return 1;
}

Test(task, a_second_join_that_is_late_leaves_the_first, .timeout = 120)
{
	ONE_WORKER(waits_by_the_first_join);
}

/* Arms a join, and does not come back to it. */
static int joins_and_forgets(void *state)
{
	struct joining *joining = state;

	if (joining->polls++ == 0)
		return weft_join(joining->targets[0], NULL, WEFT_FOREVER);
	return joining->polls < 3 ? WEFT_PENDING : 0;
}

static int joins_what(void *arg)
{
	return joined(*(weft_pid *)arg);
}

static int forgotten_joins(void *arg)
{
	struct life life = {.pending = 1, .result = 5};
	struct joining joining = joining_of(task(lives, &life), (weft_pid){0});
	weft_pid forgetful = task(joins_and_forgets, &joining), other;

	(void)arg;
	settle();
	cr_assert_eq(weft_try_join(joining.targets[0], NULL), -EBUSY);
	cr_assert_eq(weft_wake(forgetful), 0);
	settle();
	cr_assert_eq(weft_try_join(joining.targets[0], NULL), -EAGAIN, "the name is over");
	other = spawned(joins_what, &joining.targets[0]);
	settle();
	cr_assert_eq(weft_wake(joining.targets[0]), 0);
	cr_assert_eq(joined(other), 5);
	settle();
	cr_assert_eq(joining.polls, 2, "it was polled for a join that it had given up");
	cr_assert_eq(weft_wake(forgetful), 0);
	cr_assert_eq(joined(forgetful), 0);
	return 1;
}

Test(task, a_forgotten_join_is_in_nobodys_way, .timeout = 120)
{
	ONE_WORKER(forgotten_joins);
}

static int arms_and_ends(void *state)
{
	struct joining *joining = state;

	cr_assert_eq(weft_join(joining->targets[0], NULL, in_an_hour()), WEFT_PENDING);
	return 0;
}

static int ends_with_a_join_armed(void *arg)
{
	struct life life = {.pending = 1, .result = 5};
	struct joining joining = joining_of(task(lives, &life), (weft_pid){0});

	(void)arg;
	settle();
	cr_assert_eq(joined(task(arms_and_ends, &joining)), 0);
	cr_assert_eq(weft_wake(joining.targets[0]), 0);
	settle();
	cr_assert_eq(weft_detach(joining.targets[0]), 0, "ended, and nobody waits");
	cr_assert_eq(weft_detach(joining.targets[0]), -ESRCH);
	return 1;
}

Test(task, what_an_ended_task_had_armed_is_over, .timeout = 120)
{
	ONE_WORKER(ends_with_a_join_armed);
}

static int tells_that_it_arms(void *state)
{
	struct joining *joining = state;
	int r = weft_join(joining->targets[0], NULL, WEFT_FOREVER);

	wf_u32_store_release(&joining->armed, r == WEFT_PENDING);
	return r;
}

static int sleeps_on(void *arg)
{
	wf_u32_store_release(arg, 1);
	return weft_sleep_until(WEFT_FOREVER);
}

/*
 * A task ends with its runtime, and leaves its name at a process of another one. The next runtime
 * has the same place, and a process there the same header, in its first wait as well.
 */
Test(task, a_name_left_by_a_runtime_that_is_gone_is_nobodys, .timeout = 120)
{
	weft_rt *other = runtime_new(1), *rt = runtime_new(1);
	struct joining joining = {.polls = 0};
	wf_atomic_u32 asleep = {0};
	weft_pid task, sleeper;
	int result;

	cr_assert_eq(weft_rt_spawn(other, parks, NULL, NULL, &joining.targets[0]), 0);
	cr_assert_eq(weft_rt_task_spawn(rt, tells_that_it_arms, &joining, NULL, &task), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&joining.armed));
	runtime_end(rt);
	rt = runtime_new(1);
	cr_assert_eq(weft_rt_spawn(rt, sleeps_on, &asleep, NULL, &sleeper), 0);
	cr_assert_eq((uint32_t)sleeper.raw, (uint32_t)task.raw, "the same header");
	UNTIL_FOREIGN(wf_u32_load_acquire(&asleep));
	cr_assert_eq(weft_wake(joining.targets[0]), 0);
	UNTIL_FOREIGN((result = weft_try_join(joining.targets[0], NULL)) != -EAGAIN);
	cr_assert_eq(result, 0, "nobody waits");
	cr_assert_eq(weft_cancel(sleeper), 0);
	cr_assert_eq(weft_join(sleeper, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, -ECANCELED, "it was told of an end it had not asked for");
	runtime_end(rt);
	runtime_end(other);
}

static int joins_itself(void *state)
{
	(void)state;
	return weft_join(weft_self(), NULL, WEFT_FOREVER);
}

static int joins_oneself(void *arg)
{
	(void)arg;
	return joined(task(joins_itself, NULL)) == -EDEADLK;
}

Test(task, joining_itself_is_a_deadlock, .timeout = 120)
{
	ONE_WORKER(joins_oneself);
}

/* ---- I/O ------------------------------------------------------------------------------------- */

struct transfer {
	int fd, ends[2];
	unsigned polls, calls;
	weft_time deadline;
	ssize_t r;
	char byte;
};

static void transfer_open(struct transfer *transfer)
{
	*transfer = (struct transfer){.deadline = WEFT_FOREVER};
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, transfer->ends), 0);
	transfer->fd = transfer->ends[0];
}

static void transfer_close(struct transfer *transfer)
{
	cr_assert_eq(weft_close(transfer->fd), 0);
	cr_assert_eq(close(transfer->ends[1]), 0);
}

static void send_bytes(struct transfer *transfer, size_t count)
{
	static const char bytes[4096];

	cr_assert_eq(write(transfer->ends[1], bytes, count), (ssize_t)count);
}

static int reads(void *state)
{
	struct transfer *transfer = state;

	transfer->polls++;
	transfer->r = weft_read(transfer->fd, &transfer->byte, 1, transfer->deadline);
	return (int)transfer->r;
}

static int reads_until_it_would_wait(void *state)
{
	struct transfer *transfer = state;

	transfer->polls++;
	while ((transfer->r = weft_read(transfer->fd, &transfer->byte, 1, WEFT_FOREVER)) > 0)
		transfer->calls++;
	return (int)transfer->r;
}

static int polls_readable(void *state)
{
	struct transfer *transfer = state;

	transfer->polls++;
	return weft_poll_fd(transfer->fd, WEFT_READABLE, transfer->deadline);
}

static int writes_all_it_can(void *state)
{
	static const char bytes[65536];
	struct transfer *transfer = state;

	transfer->polls++;
	do
		transfer->r = weft_write(transfer->fd, bytes, sizeof bytes, transfer->deadline);
	while (transfer->r > 0);
	return (int)transfer->r;
}

/* A parkable call, the same way for each: nothing there, a deadline, a cancel. */
static int gives_up_each_way(struct transfer *transfer, weft_task_fn fn)
{
	weft_pid pid;

	transfer->deadline = WEFT_POLL;
	cr_assert_eq(joined(task(fn, transfer)), -EAGAIN);
	transfer->deadline = weft_now_coarse() - 1;
	transfer->polls = 0;
	cr_assert_eq(joined(task(fn, transfer)), -ETIME);
	cr_assert_eq(transfer->polls, 1, "a past deadline is told at once");
	transfer->deadline = weft_after(WEFT_US(200));
	cr_assert_eq(joined(task(fn, transfer)), -ETIME);
	transfer->deadline = in_an_hour();
	pid = task(fn, transfer);
	settle();
	cr_assert_eq(weft_try_join(pid, NULL), -EAGAIN);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	transfer->deadline = WEFT_FOREVER;
	return 1;
}

static int every_call_gives_up(void *arg)
{
	struct transfer transfer;

	(void)arg;
	transfer_open(&transfer);
	gives_up_each_way(&transfer, reads);
	gives_up_each_way(&transfer, polls_readable);
	gives_up_each_way(&transfer, writes_all_it_can);
	transfer_close(&transfer);
	return 1;
}

Test(task, io_gives_up_at_deadlines_and_cancels, .timeout = 120)
{
	ONE_WORKER(every_call_gives_up);
}

static int reads_when_it_comes(void *arg)
{
	struct transfer transfer;
	weft_pid pid;

	transfer_open(&transfer);
	pid = task_with(reads, &transfer, *(unsigned *)arg, 0);
	settle();
	cr_assert_eq(transfer.r, WEFT_PENDING);
	send_bytes(&transfer, 1);
	cr_assert_eq(joined(pid), 1);
	cr_assert_eq(transfer.polls, 2);
	pid = task_with(polls_readable, &transfer, *(unsigned *)arg, 0);
	settle();
	send_bytes(&transfer, 1);
	cr_assert_eq(joined(pid), (int)WEFT_READABLE);
	/* A result beats its deadline, and a cancel comes first of all. */
	transfer.deadline = weft_now_coarse() - 1;
	cr_assert_eq(joined(task(reads, &transfer)), 1);
	transfer_close(&transfer);
	return 1;
}

Test(task, a_read_is_polled_when_something_has_come, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, reads_when_it_comes, &(unsigned){0}), 1);
	cr_assert_eq(in_runtime(1, reads_when_it_comes, &(unsigned){WEFT_PINNED}), 1);
}

static int has_a_budget(void *arg)
{
	struct transfer transfer;
	weft_pid pid;

	(void)arg;
	transfer_open(&transfer);
	send_bytes(&transfer, 1000);
	pid = task(reads_until_it_would_wait, &transfer);
	UNTIL(transfer.calls == 1000);
	cr_assert_geq(transfer.polls, 1000 / 128);
	cr_assert_eq(weft_cancel(pid), 0);
	joined(pid);
	transfer_close(&transfer);
	return 1;
}

Test(task, one_that_could_go_on_for_ever_lets_others_run, .timeout = 120)
{
	ONE_WORKER(has_a_budget);
}

/* Arms a read, then forgets it; ends at its third run. */
static int reads_and_forgets(void *state)
{
	struct transfer *transfer = state;

	if (transfer->polls++ == 0)
		return reads(&(struct transfer){.fd = transfer->fd, .deadline = WEFT_FOREVER});
	return transfer->polls < 3 ? WEFT_PENDING : 0;
}

static int fiber_reads(void *arg)
{
	struct transfer *transfer = arg;
	char byte;

	return (int)weft_read(transfer->fd, &byte, 1, WEFT_FOREVER);
}

static int forgotten_reads(void *arg)
{
	struct transfer transfer;
	weft_pid forgetful, other;

	(void)arg;
	transfer_open(&transfer);
	forgetful = task(reads_and_forgets, &transfer);
	settle();
	cr_assert_eq(joined(spawned(fiber_reads, &transfer)), -EBUSY, "a task waits to read");
	cr_assert_eq(weft_wake(forgetful), 0);
	settle();
	other = spawned(fiber_reads, &transfer);
	settle();
	send_bytes(&transfer, 1);
	cr_assert_eq(joined(other), 1);
	settle();
	cr_assert_eq(transfer.polls, 2, "an event for a wait that was over");
	cr_assert_eq(weft_wake(forgetful), 0);
	cr_assert_eq(joined(forgetful), 0);
	transfer_close(&transfer);
	return 1;
}

Test(task, a_forgotten_read_is_in_nobodys_way, .timeout = 120)
{
	ONE_WORKER(forgotten_reads);
}

struct either {
	struct transfer transfers[2];
	unsigned polls;
};

/* Reads whichever has something; -ETIME if none has in time. */
static int reads_either(void *state)
{
	struct either *either = state;

	either->polls++;
	for (int i = 0; i < 2; i++) {
		struct transfer *transfer = &either->transfers[i];

		transfer->r = weft_read(transfer->fd, &transfer->byte, 1, transfer->deadline);
		if (transfer->r != WEFT_PENDING)
			return transfer->r == 1 ? i : (int)transfer->r;
	}
	return WEFT_PENDING;
}

static int waits_for_two(void *arg)
{
	struct either either = {.polls = 0};
	weft_pid pid;

	(void)arg;
	for (int i = 0; i < 2; i++)
		transfer_open(&either.transfers[i]);
	for (int i = 0; i < 2; i++) {
		either.polls = 0;
		pid = task(reads_either, &either);
		settle();
		send_bytes(&either.transfers[i], 1);
		cr_assert_eq(joined(pid), i);
		cr_assert_eq(either.polls, 2);
	}
	either.transfers[0].deadline = in_an_hour();
	either.transfers[1].deadline = weft_after(WEFT_US(100));
	cr_assert_eq(joined(task(reads_either, &either)), -ETIME);
	for (int i = 0; i < 2; i++)
		transfer_close(&either.transfers[i]);
	return 1;
}

Test(task, waits_for_two_descriptors_and_a_deadline_at_once, .timeout = 120)
{
	ONE_WORKER(waits_for_two);
}

static int closed_meanwhile(void *arg)
{
	struct transfer transfer;
	weft_pid pid;

	(void)arg;
	transfer_open(&transfer);
	pid = task(reads, &transfer);
	settle();
	transfer_close(&transfer);
	cr_assert_eq(joined(pid), -EBADF);
	return 1;
}

Test(task, a_close_polls_the_task_that_waits, .timeout = 120)
{
	ONE_WORKER(closed_meanwhile);
}

/* Handles of Weft's own: no home, entries that are given back. */
static int in_memory(void *arg)
{
	struct transfer transfer = {.deadline = WEFT_FOREVER};
	int listener = weft_listen("mem:task", 0), client = weft_connect("mem:task", WEFT_FOREVER);
	weft_pid pid;

	(void)arg;
	cr_assert(listener >= 0 && client >= 0);
	transfer.fd = weft_accept(listener, WEFT_FOREVER);
	cr_assert_geq(transfer.fd, 0);
	gives_up_each_way(&transfer, reads);
	gives_up_each_way(&transfer, polls_readable);
	pid = task(reads, &transfer);
	settle();
	cr_assert_eq(weft_write(client, "x", 1, WEFT_FOREVER), 1);
	cr_assert_eq(joined(pid), 1);
	pid = task(reads, &transfer);
	settle();
	cr_assert_eq(weft_close(transfer.fd), 0);
	cr_assert_eq(joined(pid), -EBADF);
	weft_close(client);
	weft_close(listener);
	return 1;
}

Test(task, waits_in_memory_as_on_the_kernels_descriptors, .timeout = 120)
{
	ONE_WORKER(in_memory);
}

static int accepts(void *state)
{
	struct transfer *transfer = state;
	int fd = weft_accept(transfer->fd, transfer->deadline);

	transfer->polls++;
	if (fd >= 0)
		weft_close(fd);
	return fd >= 0 ? 1 : fd;
}

static int fiber_accepts(void *arg)
{
	return accepts(arg);
}

static int connects(const char *address)
{
	int fd = weft_connect(address, WEFT_FOREVER);

	cr_assert_geq(fd, 0);
	return fd;
}

static int accepts_beside_fibers(void *arg)
{
	char address[WEFT_ADDRESS_MAX];
	struct transfer a = {.deadline = WEFT_FOREVER}, b;
	weft_pid first, fiber;
	int clients[2];

	(void)arg;
	a.fd = weft_listen("tcp:127.0.0.1:0", 0);
	cr_assert_geq(a.fd, 0);
	cr_assert_eq(weft_local_address(a.fd, address, sizeof address), 0);
	b = a;
	gives_up_each_way(&a, accepts);
	first = task(accepts, &a);
	fiber = spawned(fiber_accepts, &b);
	settle();
	cr_assert_eq(joined(task(accepts, &b)), -EBUSY, "one task, any number of fibers");
	clients[0] = connects(address);
	clients[1] = connects(address);
	cr_assert_eq(joined(first), 1);
	cr_assert_eq(joined(fiber), 1);
	weft_close(clients[0]);
	weft_close(clients[1]);
	weft_close(a.fd);
	return 1;
}

Test(task, one_task_accepts_beside_fibers, .timeout = 120)
{
	ONE_WORKER(accepts_beside_fibers);
}

static int serves_nobody(int fd, void *arg)
{
	(void)arg;
	return fd;
}

static int must_not_run(void *arg)
{
	(void)arg;
	cr_assert_fail("it was refused");
	return 0;
}

static int calls_what_it_must_not(void *state)
{
	struct transfer *transfer = state;
	int result = 1, status = 1;
	char byte = 0;

	cr_assert_eq(weft_blocking(must_not_run, NULL, &result, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_blocking(must_not_run, NULL, &result, WEFT_POLL), -EPERM);
	cr_assert_eq(weft_block_in_place(must_not_run, NULL, &result), -EPERM);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_child_wait(transfer->fd, &status, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_connect("mem:nobody", WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_rt_block_on(weft_rt_current(), must_not_run, NULL, NULL, &result),
		-EDEADLK);
	cr_assert_eq(weft_rt_poll(weft_rt_current(), WEFT_POLL), -EINVAL, "not embedded");
	cr_assert(result == 1 && status == 1);
	cr_assert_eq(weft_read_exact(transfer->fd, &byte, 1, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_write_all(transfer->fd, &byte, 1, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_connect("tcp:127.0.0.1:1", WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_serve("tcp:127.0.0.1:0", serves_nobody, NULL), -EPERM);
	cr_assert_eq(weft_listen("tcp:localhost:0", 0), -EPERM, "a name is asked for");
	return 0;
}

static int has_limits(void *arg)
{
	struct transfer transfer;

	(void)arg;
	transfer_open(&transfer);
	cr_assert_eq(joined(task(calls_what_it_must_not, &transfer)), 0);
	transfer_close(&transfer);
	return 1;
}

Test(task, calls_that_keep_something_are_refused, .timeout = 120)
{
	ONE_WORKER(has_limits);
}

/* ---- Where they run -------------------------------------------------------------------------- */

struct place {
	wf_atomic_u32 seen; /* a bit for each worker */
	wf_atomic_u32 *stop;
};

static int runs_anywhere(void *state)
{
	struct place *place = state;

	(void)wf_u32_fetch_or(&place->seen, 1u << weft_worker_index());
	if (wf_u32_load_relaxed(place->stop))
		return 0;
	if (weft_yield() == 0)
		(void)weft_yield();
	return WEFT_PENDING;
}

enum { CROWD = 16 };

static void start_crowd(
	weft_rt *rt, struct place *places, wf_atomic_u32 *stop, weft_pid *pids, unsigned flags)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = flags, .worker = WEFT_WORKER(0)};

	for (unsigned i = 0; i < CROWD; i++) {
		places[i] = (struct place){.stop = stop};
		cr_assert_eq(weft_rt_task_spawn(rt, runs_anywhere, &places[i], &opts, &pids[i]), 0);
	}
}

/* All begin on worker 0; pinned ones stay there while others are seen to leave it. */
Test(task, movable_tasks_are_stolen_and_pinned_ones_are_not, .timeout = 120)
{
	struct place movable[CROWD], pinned[CROWD];
	weft_pid pids[2][CROWD];
	wf_atomic_u32 stop = {0};
	weft_rt *rt = runtime_new(2);
	bool moved = false;

	start_crowd(rt, pinned, &stop, pids[0], WEFT_PINNED);
	start_crowd(rt, movable, &stop, pids[1], 0);
	while (!moved) {
		for (unsigned i = 0; i < CROWD; i++)
			moved |= wf_u32_load_relaxed(&movable[i].seen) == 3;
		sched_yield();
	}
	wf_u32_store_relaxed(&stop, 1);
	for (unsigned i = 0; i < CROWD; i++) {
		cr_assert_eq(weft_join(pids[0][i], NULL, WEFT_FOREVER), 0);
		cr_assert_eq(weft_join(pids[1][i], NULL, WEFT_FOREVER), 0);
		cr_assert_eq(wf_u32_load_relaxed(&pinned[i].seen), 1, "a pinned task has moved");
	}
	runtime_end(rt);
}

struct storm {
	wf_atomic_u32 woken, seen;
	uint32_t rounds;
};

/* Ends when it has seen every wake's number. */
static int sees_wakes(void *state)
{
	struct storm *storm = state;
	int r;

	wf_u32_store_release(&storm->seen, wf_u32_load_acquire(&storm->woken));
	while ((r = weft_park(WEFT_FOREVER)) == 0)
		wf_u32_store_release(&storm->seen, wf_u32_load_acquire(&storm->woken));
	return wf_u32_load_relaxed(&storm->seen) == storm->rounds ? 0 : r;
}

static void wake_and_wait(struct storm *storm, weft_pid pid)
{
	for (uint32_t n = 1; n <= storm->rounds; n++) {
		wf_u32_store_release(&storm->woken, n);
		if (weft_wake(pid) < 0)
			break;
		if (n % 3 == 0)
			UNTIL_FOREIGN(wf_u32_load_acquire(&storm->seen) == n);
	}
}

/* Each third number is waited for: a lost wake hangs. */
Test(task, no_wake_from_a_thread_is_lost, .timeout = 120)
{
	static const unsigned flags[] = {0, WEFT_PINNED};

	for (size_t i = 0; i < WF_ARRAY_COUNT(flags); i++) {
		struct weft_spawn_opts opts = {.size = sizeof(opts), .flags = flags[i]};
		struct storm storm = {.rounds = 30000 / HARNESS_SLOWDOWN};
		weft_rt *rt = runtime_new(2);
		weft_pid pid;

		cr_assert_eq(weft_rt_task_spawn(rt, sees_wakes, &storm, &opts, &pid), 0);
		wake_and_wait(&storm, pid);
		cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
		runtime_end(rt);
	}
}

struct echo {
	struct transfer transfer;
	unsigned runs;
	bool holds; /* a byte to be written back */
};

/* Echoes bytes; arms more than it needs, now and then, and leaves names behind. */
static int echoes(void *state)
{
	struct echo *echo = state;
	int fd = echo->transfer.fd;

	for (;;) {
		ssize_t n = echo->holds ? weft_write(fd, &echo->transfer.byte, 1, WEFT_FOREVER)
					: weft_read(fd, &echo->transfer.byte, 1, in_an_hour());

		if (n == 1) {
			echo->holds = !echo->holds;
			continue;
		}
		if (n == WEFT_PENDING && ++echo->runs % 3 == 0)
			(void)weft_poll_fd(fd, WEFT_READABLE | WEFT_WRITABLE * (echo->runs % 2),
				WEFT_FOREVER);
		return (int)n;
	}
}

/* A lost event hangs. Those that yield beside them make thieves of both workers. */
Test(task, no_event_is_lost_as_tasks_move, .timeout = 120)
{
	enum { PAIRS = 6 };
	struct echo echoers[PAIRS];
	struct place places[CROWD];
	weft_pid pids[PAIRS], crowd[CROWD];
	wf_atomic_u32 stop = {0};
	weft_rt *rt = runtime_new(2);
	int result;

	start_crowd(rt, places, &stop, crowd, 0);
	for (unsigned i = 0; i < PAIRS; i++) {
		echoers[i] = (struct echo){.runs = i};
		transfer_open(&echoers[i].transfer);
		cr_assert_eq(weft_rt_task_spawn(rt, echoes, &echoers[i], NULL, &pids[i]), 0);
	}
	for (unsigned round = 0; round < 3000 / HARNESS_SLOWDOWN; round++) {
		char byte = (char)round, back;

		for (unsigned i = 0; i < PAIRS; i++)
			cr_assert_eq(write(echoers[i].transfer.ends[1], &byte, 1), 1);
		for (unsigned i = 0; i < PAIRS; i++) {
			cr_assert_eq(read(echoers[i].transfer.ends[1], &back, 1), 1);
			cr_assert_eq(back, byte);
		}
	}
	for (unsigned i = 0; i < PAIRS; i++) {
		cr_assert_eq(close(echoers[i].transfer.ends[1]), 0);
		cr_assert_eq(weft_join(pids[i], &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, 0, "the end of the stream");
		cr_assert_eq(weft_close(echoers[i].transfer.fd), 0);
	}
	wf_u32_store_relaxed(&stop, 1);
	runtime_end(rt);
}

/* ---- What they cost -------------------------------------------------------------------------- */

struct small {
	wf_atomic_u32 *started;
	char rest[24];
};

static_assert(sizeof(struct small) == 32, "the state that the figure is about");

static int starts_and_parks(void *state)
{
	struct small *small = state;

	if (small->rest[0]++ == 0)
		(void)wf_u32_fetch_add(small->started, 1);
	return weft_park(in_an_hour()) == WEFT_PENDING ? WEFT_PENDING : 0;
}

enum { MILLION = 1000000 / HARNESS_SLOWDOWN };

static int is_a_million(void *arg)
{
	struct small *states = calloc(MILLION, sizeof *states);
	weft_pid *pids = malloc(MILLION * sizeof *pids);
	wf_atomic_u32 started = {0};
	size_t before;

	(void)arg;
	memset(pids, 0xff, MILLION * sizeof *pids);
	before = harness_rss_bytes();
	for (unsigned i = 0; i < MILLION; i++) {
		states[i].started = &started;
		pids[i] = task(starts_and_parks, &states[i]);
	}
	UNTIL(wf_u32_load_relaxed(&started) == MILLION);
	/* A tenth: tables of segments, batches; and what else the process did meanwhile. */
	if (HARNESS_SLOWDOWN == 1)
		cr_expect_leq((harness_rss_bytes() - before) / MILLION, 160 + 16);
	for (unsigned i = 0; i < MILLION; i++)
		cr_assert_eq(weft_wake(pids[i]), 0);
	for (unsigned i = 0; i < MILLION; i++)
		cr_assert_eq(joined(pids[i]), 0);
	free(states);
	free(pids);
	return 1;
}

Test(task, a_million_asleep_cost_their_headers_and_their_state, .timeout = 300)
{
	ONE_WORKER(is_a_million);
}

/* ---- Wakers ---------------------------------------------------------------------------------- */

struct source {
	struct weft_waker_cell cell;
	wf_atomic_u32 happened;
	weft_waker waker;
	unsigned polls;
};

static int waits_for_source(void *state)
{
	struct source *source = state;

	source->polls++;
	source->waker = weft_waker_self();
	weft_waker_register(&source->cell, source->waker);
	return wf_u32_load_relaxed(&source->happened) ? 0 : WEFT_PENDING;
}

static int fiber_waits_for_source(void *arg)
{
	struct source *source = arg;

	while (waits_for_source(source) == WEFT_PENDING)
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	return 0;
}

static int wakes_by_wakers(void *arg)
{
	struct source source = {.polls = 0};
	weft_waker none = {0}, self = weft_waker_self();
	weft_pid pid = task(waits_for_source, &source);

	(void)arg;
	settle();
	cr_assert(weft_waker_equal(self, weft_waker_self()));
	cr_assert(!weft_waker_equal(self, source.waker));
	weft_waker_wake(source.waker);
	settle();
	weft_waker_wake_ref(&source.waker);
	settle();
	cr_assert_eq(source.polls, 3);
	weft_waker_wake(none);
	weft_waker_wake_ref(&none);
	weft_waker_wake_ref(NULL);
	/* The last one given wins. */
	weft_waker_register(&source.cell, self);
	cr_assert(weft_waker_fire(&source.cell));
	cr_assert_eq(weft_park(WEFT_POLL), 0);
	cr_assert(!weft_waker_fire(&source.cell), "it was taken out");
	settle();
	cr_assert_eq(source.polls, 3);
	wf_u32_store_relaxed(&source.happened, 1);
	weft_waker_wake(source.waker);
	cr_assert_eq(joined(pid), 0);
	cr_assert(weft_waker_fire(&source.cell));
	weft_waker_wake(source.waker);
	return 1;
}

Test(task, wakers_wake_and_outlive_their_process, .timeout = 120)
{
	weft_waker left;
	struct source source = {.polls = 0};
	weft_rt *rt;

	ONE_WORKER(wakes_by_wakers);
	cr_assert_eq(weft_waker_self().raw, 0, "no process");
	rt = runtime_new(1);
	wf_u32_store_relaxed(&source.happened, 1);
	cr_assert_eq(weft_rt_task_spawn(rt, waits_for_source, &source, NULL, NULL), 0);
	runtime_end(rt);
	left = source.waker;
	cr_assert_neq(left.raw, 0);
	weft_waker_wake(left);
	cr_assert(weft_waker_fire(&source.cell));
}

/* A source in a thread: happen, fire. A lost one hangs. */
Test(task, no_event_of_a_cell_is_lost, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);

	for (unsigned i = 0; i < 4000 / HARNESS_SLOWDOWN; i++) {
		struct source source = {.polls = 0};
		weft_pid pid;

		cr_assert_eq(i % 2 ? weft_rt_task_spawn(rt, waits_for_source, &source, NULL, &pid)
				   : weft_rt_spawn(rt, fiber_waits_for_source, &source, NULL, &pid),
			0);
		wf_u32_store_relaxed(&source.happened, 1);
		(void)weft_waker_fire(&source.cell);
		cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	}
	runtime_end(rt);
}
