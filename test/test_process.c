/*
 * Goal: what <weft/process.h> promises of spawning, joining, detaching, cancelling and ids.
 * Method: small runtimes; each test drives the calls to the states they name, and waits for events
 * by joining, or by yielding until a condition holds.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "test/runtime.h"

/* ---- Spawn and join ------------------------------------------------------------------------- */

static int joins_before_during_and_after(void *arg)
{
	static int values[] = {0, 7, -1, -ECANCELED, INT32_MIN, INT32_MAX};
	weft_pid pid;
	int result = 99;

	(void)arg;
	for (size_t i = 0; i < WF_ARRAY_COUNT(values); i++) {
		/* Before it runs: nobody else ran since the spawn. */
		pid = spawned(returns, &values[i]);
		cr_assert_eq(weft_try_join(pid, &result), -EAGAIN);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, values[i]);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -ESRCH);
		/* After its end. */
		pid = spawned(returns, &values[i]);
		UNTIL(weft_try_join(pid, &result) != -EAGAIN);
		cr_assert_eq(result, values[i]);
		cr_assert_eq(weft_try_join(pid, &result), -ESRCH);
	}
	/* Parked when it is joined; without a place for the result. */
	pid = spawned(parks, NULL);
	weft_yield();
	cr_assert_eq(weft_join(pid, NULL, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), -ESRCH);
	return 1;
}

Test(process, is_joined_before_during_and_after_its_end, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, joins_before_during_and_after, NULL), 1);
}

/* Time for what is ready to run and end: one turn, or several where the budget is one process. */
static void let_others_run(void)
{
	for (int i = 0; i < 8; i++)
		cr_assert_eq(weft_yield(), 0);
}

static int join_deadlines(void *arg)
{
	weft_pid pid = spawned(parks, NULL);
	int result = 99;

	(void)arg;
	cr_assert_eq(weft_join(pid, &result, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_join(pid, &result, 0), -ETIME);
	cr_assert_eq(weft_join(pid, &result, weft_now() - 1), -ETIME);
	cr_assert_eq(weft_join(pid, &result, weft_after(WEFT_US(200))), -ETIME);
	cr_assert_eq(result, 99, "a join that failed wrote a result");
	/* An ended one is taken whatever the deadline. */
	weft_wake(pid);
	UNTIL(weft_join(pid, &result, WEFT_POLL) == 0);
	cr_assert_eq(result, 0);
	pid = spawned(returns, &(int){5});
	let_others_run();
	cr_assert_eq(weft_join(pid, &result, 0), 0);
	cr_assert_eq(result, 5);
	return 1;
}

Test(process, join_obeys_its_deadline, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, join_deadlines, NULL), 1);
}

static int joins_it(void *arg)
{
	weft_pid *pid = arg;
	int result = 99;
	int r = weft_join(*pid, &result, WEFT_FOREVER);

	return r < 0 ? r : result;
}

static int second_joiner(void *arg)
{
	weft_pid target = spawned(parks, NULL);
	weft_pid joiner = spawned(joins_it, &target);
	int result = 99;

	(void)arg;
	UNTIL(weft_join(target, &result, WEFT_POLL) == -EBUSY);
	cr_assert_eq(weft_join(target, &result, WEFT_FOREVER), -EBUSY);
	cr_assert_eq(weft_try_join(target, &result), -EBUSY);
	cr_assert_eq(weft_detach(target), -EBUSY);
	cr_assert_eq(result, 99);
	/* The first joiner's wait was cancelled: the target is whoever's comes next. */
	cr_assert_eq(weft_cancel(joiner), 0);
	cr_assert_eq(joined(joiner), -ECANCELED);
	cr_assert_eq(weft_join(target, &result, 0), -ETIME);
	/* What the target returned is told apart from a cancelled joiner. */
	cr_assert_eq(weft_cancel(target), 0);
	cr_assert_eq(weft_join(target, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, -ECANCELED);
	cr_assert_eq(weft_join(target, &result, WEFT_FOREVER), -ESRCH);
	return 1;
}

Test(process, second_joiner_is_told_busy, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, second_joiner, NULL), 1);
	cr_assert_eq(in_runtime(2, second_joiner, NULL), 1);
}

static int joins_itself(void *arg)
{
	(void)arg;
	return weft_join(weft_self(), NULL, WEFT_FOREVER);
}

Test(process, join_of_oneself_is_a_deadlock, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, joins_itself, NULL), -EDEADLK);
}

static int cancelled_joins(void *arg)
{
	weft_pid pid = spawned(returns, &(int){3});
	int result = 99;

	(void)arg;
	let_others_run();
	weft_cancel(weft_self());
	/* A parkable call checks on entry, even if it could complete; a try is no point of it. */
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(result, 99);
	cr_assert_eq(weft_try_join(pid, &result), 0);
	cr_assert_eq(result, 3);
	return 1;
}

Test(process, cancelled_join_leaves_the_process_joinable, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, cancelled_joins, NULL), 1);
}

/* Cancels who waits for it, and ends: nobody else has run in between. */
static int cancels_its_joiner(void *arg)
{
	cr_assert_eq(weft_cancel(*(weft_pid *)arg), 0);
	return 9;
}

static int joins_and_is_cancelled(void *arg)
{
	weft_pid *pid = arg;
	int result = 99;

	cr_assert_eq(weft_join(*pid, &result, WEFT_FOREVER), 0, "the result was there");
	cr_assert_eq(result, 9);
	cr_assert_eq(weft_join(*pid, &result, WEFT_FOREVER), -ECANCELED, "and it is cancelled");
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	return 1;
}

static int results_win(void *arg)
{
	static const unsigned flags[] = {0, WEFT_MOVABLE};

	(void)arg;
	for (int i = 0; i < 4; i++) {
		weft_pid target, joiner;

		/* Suspended until it is waited for. */
		target =
			spawned_with(cancels_its_joiner, &joiner, WEFT_SUSPENDED | flags[i & 1], 0);
		joiner = spawned_with(joins_and_is_cancelled, &target, flags[i / 2], 0);
		UNTIL(weft_join(target, NULL, WEFT_POLL) == -EBUSY);
		cr_assert_eq(weft_wake(target), 0);
		cr_assert_eq(joined(joiner), 1);
	}
	return 1;
}

Test(process, result_that_is_there_wins_over_a_cancel, .timeout = 10)
{
	cr_assert_eq(in_runtime(1, results_win, NULL), 1);
}

static int detaches(void *arg)
{
	int seven = 7;
	weft_pid pid = spawned(parks, NULL);

	(void)arg;
	/* While it lives: it can still be reached, but not joined. */
	cr_assert_eq(weft_detach(pid), 0);
	cr_assert_eq(weft_detach(pid), -ESRCH);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(weft_try_join(pid, NULL), -ESRCH);
	cr_assert_eq(weft_wake(pid), 0);
	UNTIL(weft_wake(pid) == -ESRCH);
	/* After its end: at once. */
	pid = spawned(returns, &seven);
	weft_yield();
	cr_assert_eq(weft_detach(pid), 0);
	cr_assert_eq(weft_detach(pid), -ESRCH);
	cr_assert_eq(weft_cancel(pid), -ESRCH);
	/* From birth. */
	pid = spawned_with(parks, NULL, WEFT_DETACHED, 0);
	cr_assert(!weft_pid_is_none(pid));
	cr_assert_eq(weft_join(pid, NULL, 0), -ESRCH);
	cr_assert_eq(weft_detach(pid), -ESRCH);
	cr_assert_eq(weft_wake(pid), 0);
	UNTIL(weft_cancel(pid) == -ESRCH);
	return 1;
}

Test(process, detached_ones_go_when_they_end, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, detaches, NULL), 1);
}

/* ---- Foreign threads ------------------------------------------------------------------------ */

struct hand_over {
	weft_pid pid;
	int result;
	int status;
};

static void foreign_joins(unsigned index, void *arg)
{
	struct hand_over *hand_over = (struct hand_over *)arg + index;

	hand_over->status = weft_join(hand_over->pid, &hand_over->result, WEFT_FOREVER);
}

Test(process, foreign_threads_join_cancel_wake_and_detach, .timeout = 120)
{
	struct hand_over hand_overs[4];
	weft_rt *rt = runtime_new(2);
	int values[4];
	weft_pid pid;
	int result;

	for (int i = 0; i < 4; i++) {
		values[i] = 100 + i;
		cr_assert_eq(weft_rt_spawn(rt, returns, &values[i], NULL, &hand_overs[i].pid), 0);
	}
	harness_threads(4, foreign_joins, hand_overs);
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(hand_overs[i].status, 0);
		cr_assert_eq(hand_overs[i].result, values[i]);
		cr_assert_eq(weft_join(hand_overs[i].pid, NULL, WEFT_FOREVER), -ESRCH);
	}

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_join(pid, &result, 0), -ETIME);
	cr_assert_eq(weft_join(pid, &result, weft_after(WEFT_MS(2))), -ETIME);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 0);

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, -ECANCELED);

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_detach(pid), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(weft_cancel(pid), 0);
	UNTIL_FOREIGN(weft_cancel(pid) == -ESRCH);
	runtime_end(rt);
}

static void joins_for_ever(unsigned index, void *arg)
{
	struct hand_over *hand_overs = arg;

	if (index == 0) {
		hand_overs[0].status = weft_join(hand_overs[0].pid, NULL, WEFT_FOREVER);
		return;
	}
	UNTIL_FOREIGN(weft_join(hand_overs[0].pid, NULL, WEFT_POLL) == -EBUSY);
	cr_assert_eq(weft_join(hand_overs[0].pid, NULL, WEFT_FOREVER), -EBUSY);
	cr_assert_eq(weft_detach(hand_overs[0].pid), -EBUSY);
	cr_assert_eq(weft_wake(hand_overs[0].pid), 0);
}

Test(process, second_foreign_joiner_is_told_busy, .timeout = 120)
{
	struct hand_over hand_over = {.status = 99};
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &hand_over.pid), 0);
	harness_threads(2, joins_for_ever, &hand_over);
	cr_assert_eq(hand_over.status, 0);
	runtime_end(rt);
}

/* One more than the places there are: whoever finds none lets the others go. */
enum { JOINERS_MAX = 64 };

struct many_joiners {
	weft_rt *rt;
	weft_pid pids[JOINERS_MAX + 1];
	wf_atomic_u32 refused;
};

static void joins_or_is_refused(unsigned index, void *arg)
{
	struct many_joiners *many = arg;
	int r = weft_join(many->pids[index], NULL, WEFT_FOREVER);

	if (r == -ENOMEM) {
		wf_u32_fetch_add(&many->refused, 1);
		for (int i = 0; i <= JOINERS_MAX; i++)
			cr_assert_eq(weft_wake(many->pids[i]), 0);
		r = weft_join(many->pids[index], NULL, WEFT_POLL);
		cr_assert(r == 0 || r == -EAGAIN, "%d", r);
		return;
	}
	cr_assert_eq(r, 0);
}

Test(process, foreign_joiners_beyond_64_are_refused, .timeout = 120)
{
	struct many_joiners many = {.rt = runtime_new(1)};

	for (int i = 0; i <= JOINERS_MAX; i++)
		cr_assert_eq(weft_rt_spawn(many.rt, parks, NULL, NULL, &many.pids[i]), 0);
	harness_threads(JOINERS_MAX + 1, joins_or_is_refused, &many);
	cr_assert_eq(wf_u32_load_relaxed(&many.refused), 1);
	runtime_end(many.rt);
}

Test(process, calls_outside_a_process_say_so, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts};
	weft_pid pid = {77};
	int value = 1;

	cr_assert_eq(weft_spawn(returns, &value, &pid), -EPERM);
	cr_assert_eq(weft_spawn_with(returns, &value, &opts, &pid), -EPERM);
	cr_assert_eq(weft_spawn_reserve(&pid), -EPERM);
	cr_assert_eq(weft_yield(), -EPERM);
	cr_assert_eq(weft_park(WEFT_POLL), -EPERM);
	cr_assert_eq(weft_sleep_until(WEFT_POLL), -EPERM);
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(weft_worker_index(), -1);
	cr_assert_null(weft_rt_current());
	cr_assert(!weft_should_yield());
	cr_assert_eq(weft_join((weft_pid){0}, NULL, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(weft_wake((weft_pid){0}), -ESRCH);
	cr_assert_eq(weft_cancel((weft_pid){~(uint64_t)0}), -ESRCH);
	cr_assert_eq(weft_detach((weft_pid){0x123456789abcdef}), -ESRCH);
}

Test(process, errno_is_left_alone, .timeout = 120)
{
	struct weft_rt_opts opts = {.size = sizeof opts, .driver = "paper"};
	weft_rt *rt;
	weft_pid pid;

	errno = 4242;
	cr_assert_eq(weft_rt_create(&opts, &rt), -ENODEV);
	rt = runtime_new(1);
	cr_assert_eq(errno, 4242, "weft_rt_create()");
	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_join(pid, NULL, weft_after(WEFT_MS(1))), -ETIME);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(weft_wake(pid), i == 0 ? 0 : weft_wake(pid));
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(weft_cancel(pid), -ESRCH);
	cr_assert_eq(errno, 4242);
	runtime_end(rt);
	cr_assert_eq(weft_main(NULL, returns, &(int){7}), 7);
	cr_assert_eq(weft_listen("tcp:localhost:http", 0), -EINVAL);
	cr_assert_eq(errno, 4242);
}

/* ---- Self, yield ---------------------------------------------------------------------------- */

static int knows_itself(void *arg)
{
	weft_rt *rt = arg;
	char text[WEFT_PID_TEXT_MAX];
	unsigned parts[3];
	char end;

	cr_assert(!weft_pid_is_none(weft_self()));
	cr_assert(weft_pid_equal(weft_self(), weft_self()));
	cr_assert_eq(weft_rt_current(), rt);
	cr_assert_eq(weft_worker_index(), 0);
	cr_assert_eq(weft_pid_format(weft_self(), text), text);
	cr_assert_eq(
		sscanf(text, "<%u.%u.%u%c", &parts[0], &parts[1], &parts[2], &end), 4, "%s", text);
	cr_assert_eq(end, '>');
	/* Generation 32 | runtime 6 | index 26. */
	cr_assert_eq(weft_self().raw,
		(uint64_t)parts[2] << 32 | (uint64_t)parts[0] << 26 | parts[1], "%s", text);
	return 1;
}

Test(process, knows_itself, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);
	char text[WEFT_PID_TEXT_MAX];

	cr_assert_eq(runtime_do(rt, knows_itself, rt), 1);
	runtime_end(rt);
	weft_pid_format((weft_pid){~(uint64_t)0}, text);
	cr_assert_str_eq(text, "<63.67108863.4294967295>");
}

static int ignores_making_room(void *arg)
{
	weft_time start;

	(void)arg;
	weft_yield();
	start = weft_now();
	while (!weft_should_yield())
		continue;
	/* "more than 1 ms since it was resumed": nobody asked for room here. */
	cr_assert_gt(weft_now() - start, WEFT_US(900));
	return weft_yield();
}

Test(process, should_yield_after_a_millisecond, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, ignores_making_room, NULL), 0);
}

struct turns {
	char *end;
	unsigned started;
};

struct taker {
	struct turns *turns;
	char name;
};

static int yields_in_turn(void *arg)
{
	struct taker *taker = arg;

	/* Both have run once: before that they are in different queues, which alternate. */
	taker->turns->started++;
	UNTIL(taker->turns->started == 2);
	for (int i = 0; i < 3; i++) {
		*taker->turns->end++ = taker->name;
		cr_assert_eq(weft_yield(), 0);
	}
	return 0;
}

static int yields_alternate(void *arg)
{
	char order[8] = "";
	struct turns turns = {.end = order};
	struct taker first = {&turns, 'a'}, second = {&turns, 'b'};
	weft_pid a = spawned(yields_in_turn, &first);
	weft_pid b = spawned(yields_in_turn, &second);

	(void)arg;
	joined(a);
	joined(b);
	cr_assert(strcmp(order, "ababab") == 0 || strcmp(order, "bababa") == 0, "%s", order);
	return 1;
}

Test(process, yields_take_turns, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, yields_alternate, NULL), 1);
}

/* ---- Options -------------------------------------------------------------------------------- */

static int refuses_options(void *arg)
{
	static const struct weft_spawn_opts wrong[] = {
		{.size = 0},
		{.size = sizeof(size_t) - 1},
		{.size = sizeof wrong[0], .flags = 1u << 31},
		{.size = sizeof wrong[0], .flags = WEFT_MOVABLE | 1u << 4},
		{.size = sizeof wrong[0], .stack_size = 1},
		{.size = sizeof wrong[0], .stack_size = 16383},
		{.size = sizeof wrong[0], .stack_size = ((size_t)1 << 30) + 1},
		{.size = sizeof wrong[0], .worker = WEFT_WORKER(2)},
		{.size = sizeof wrong[0], .worker = UINT32_MAX},
	};
	struct {
		struct weft_spawn_opts known;
		uint64_t of_a_newer_release;
	} newer = {.known = {.size = sizeof newer}};
	struct weft_spawn_opts shorter = {.size = sizeof(size_t), .flags = ~0u};
	weft_pid pid = {0};
	int value = 4;

	(void)arg;
	for (size_t i = 0; i < WF_ARRAY_COUNT(wrong); i++) {
		cr_expect_eq(weft_spawn_with(returns, &value, &wrong[i], &pid), -EINVAL,
			"options %zu", i);
		cr_expect_eq(weft_rt_spawn(weft_rt_current(), returns, &value, &wrong[i], &pid),
			-EINVAL, "options %zu", i);
	}
	cr_expect_eq(weft_spawn(NULL, NULL, &pid), -EINVAL);
	cr_expect_eq(weft_rt_spawn(weft_rt_current(), NULL, NULL, NULL, &pid), -EINVAL);
	newer.of_a_newer_release = 1;
	cr_expect_eq(weft_spawn_with(returns, &value, &newer.known, &pid), -EINVAL);
	newer.of_a_newer_release = 0;
	cr_assert_eq(weft_spawn_with(returns, &value, &newer.known, &pid), 0);
	cr_assert_eq(joined(pid), 4);
	/* An older release's struct: what lies behind its size is not looked at. */
	cr_assert_eq(weft_spawn_with(returns, &value, &shorter, &pid), 0);
	cr_assert_eq(joined(pid), 4);
	/* No options are the defaults. */
	cr_assert_eq(weft_rt_spawn(weft_rt_current(), returns, &value, NULL, &pid), 0);
	cr_assert_eq(joined(pid), 4);
	return 1;
}

Test(process, wrong_options_are_refused, .timeout = 120)
{
	cr_assert_eq(in_runtime(2, refuses_options, NULL), 1);
}

static int uses_its_stack(void *arg)
{
	volatile char stack[200 * 1024];

	(void)arg;
	for (size_t i = 0; i < sizeof stack; i += 1024)
		stack[i] = (char)i;
	weft_yield();
	for (size_t i = 0; i < sizeof stack; i += 1024)
		cr_assert_eq(stack[i], (char)i);
	return 1;
}

static int has_big_stacks(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .stack_size = 256 * 1024};
	weft_pid pids[8];

	(void)arg;
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++) {
		opts.flags = i % 2 ? WEFT_STACK_NOW : 0;
		cr_assert_eq(weft_spawn_with(uses_its_stack, NULL, &opts, &pids[i]), 0);
	}
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		cr_assert_eq(joined(pids[i]), 1);
	return 1;
}

Test(process, stack_has_the_size_asked_for, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, has_big_stacks, NULL), 1);
}

static int worker_of(void *arg)
{
	int first = weft_worker_index();

	for (int i = 0; i < *(int *)arg; i++) {
		weft_yield();
		cr_assert_eq(weft_worker_index(), first);
	}
	return first;
}

static int places(void *arg)
{
	int yields = 20;
	weft_pid pids[40];

	(void)arg;
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		pids[i] = spawned_with(worker_of, &yields, 0, WEFT_WORKER(i % 2));
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		cr_assert_eq(joined(pids[i]), (int)(i % 2));
	return 1;
}

Test(process, starts_on_the_worker_asked_for, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);
	weft_pid pids[40];
	int yields = 20;

	cr_assert_eq(runtime_do(rt, places, NULL), 1);
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(i % 2)};

		cr_assert_eq(weft_rt_spawn(rt, worker_of, &yields, &opts, &pids[i]), 0);
	}
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		cr_assert_eq(joined(pids[i]), (int)(i % 2));
	runtime_end(rt);
}

static int moves(void *arg)
{
	wf_atomic_u32 *moved = arg;
	int first = weft_worker_index();

	while (!wf_u32_load_relaxed(moved))
		if (weft_worker_index() != first)
			wf_u32_store_relaxed(moved, 1);
		else
			weft_yield();
	return 0;
}

static int keeps_a_worker_busy(void *arg)
{
	wf_atomic_u32 *stop = arg;

	while (!wf_u32_load_relaxed(stop)) {
		while (!weft_should_yield())
			continue;
		weft_yield();
	}
	return 0;
}

/* S12. One worker has all the work, the other none: sooner or later it takes a movable one. */
Test(process, movable_ones_move, .timeout = 120)
{
	struct weft_spawn_opts movable = {
		.size = sizeof movable, .flags = WEFT_MOVABLE, .worker = WEFT_WORKER(0)};
	struct weft_spawn_opts placed = {.size = sizeof placed, .worker = WEFT_WORKER(0)};
	weft_rt *rt = runtime_new(2);
	wf_atomic_u32 moved = {0};
	weft_pid pids[8];

	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		cr_assert_eq(weft_rt_spawn(rt, i ? moves : keeps_a_worker_busy, &moved,
				     i ? &movable : &placed, &pids[i]),
			0);
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		joined(pids[i]);
	runtime_end(rt);
}

/* ---- Suspended, reserved -------------------------------------------------------------------- */

static int set_and_return(void *arg)
{
	wf_u32_fetch_add(arg, 1);
	return weft_park(WEFT_POLL);
}

static int suspended_starts_by_wake(void *arg)
{
	wf_atomic_u32 runs = {0};
	weft_pid pid = spawned_with(set_and_return, &runs, WEFT_SUSPENDED, 0);

	(void)arg;
	cr_assert_eq(weft_join(pid, NULL, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(wf_u32_load_relaxed(&runs), 0);
	cr_assert_eq(weft_wake(pid), 0);
	joined(pid);
	cr_assert_eq(wf_u32_load_relaxed(&runs), 1);
	/* Cancelled: it runs, with the cancellation pending. */
	pid = spawned_with(set_and_return, &runs, WEFT_SUSPENDED, 0);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_eq(wf_u32_load_relaxed(&runs), 2);
	/* Placed as well. */
	pid = spawned_with(set_and_return, &runs, WEFT_SUSPENDED, WEFT_WORKER(1));
	cr_assert_eq(weft_join(pid, NULL, weft_after(WEFT_US(500))), -ETIME);
	cr_assert_eq(weft_wake(pid), 0);
	joined(pid);
	cr_assert_eq(wf_u32_load_relaxed(&runs), 3);
	return 1;
}

Test(process, suspended_waits_for_a_wake, .timeout = 120)
{
	cr_assert_eq(in_runtime(2, suspended_starts_by_wake, NULL), 1);
}

static int reserve_and_commit(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = 1u << 30};
	int value = 8, result = 99;
	weft_pid pid = {0}, joiner, other;

	(void)arg;
	cr_assert_eq(weft_spawn_reserve(&pid), 0);
	cr_assert(!weft_pid_is_none(pid));
	joiner = spawned(joins_it, &pid);
	UNTIL(weft_join(pid, NULL, WEFT_POLL) == -EBUSY);
	/* A commit that is refused leaves the reservation. */
	cr_assert_eq(weft_spawn_commit(pid, returns, &value, &opts), -EINVAL);
	cr_assert_eq(weft_spawn_commit(pid, NULL, &value, NULL), -EINVAL);
	cr_assert_eq(weft_spawn_commit(pid, returns, &value, NULL), 0);
	cr_assert_eq(weft_spawn_commit(pid, returns, &value, NULL), -ESRCH);
	cr_assert_eq(weft_spawn_abort(pid), -ESRCH);
	cr_assert_eq(joined(joiner), 8);
	cr_assert_eq(weft_spawn_commit(pid, returns, &value, NULL), -ESRCH);
	/* Abort: who waits for it is told. */
	cr_assert_eq(weft_spawn_reserve(&pid), 0);
	joiner = spawned(joins_it, &pid);
	UNTIL(weft_join(pid, NULL, WEFT_POLL) == -EBUSY);
	cr_assert_eq(weft_spawn_abort(pid), 0);
	cr_assert_eq(joined(joiner), -ESRCH);
	cr_assert_eq(weft_spawn_abort(pid), -ESRCH);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(weft_wake(pid), -ESRCH);
	/* Not a reserved one. */
	other = spawned(parks, NULL);
	cr_assert_eq(weft_spawn_commit(other, returns, &value, NULL), -ESRCH);
	cr_assert_eq(weft_spawn_abort(other), -ESRCH);
	weft_wake(other);
	joined(other);
	/* A reserved one can be cancelled and woken before it starts. */
	cr_assert_eq(weft_spawn_reserve(&pid), 0);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(weft_spawn_commit(pid, parks, NULL, NULL), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_eq(weft_spawn_reserve(&pid), 0);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_spawn_commit(pid, parks, NULL, NULL), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 0);
	return 1;
}

Test(process, is_spawned_in_two_steps, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, reserve_and_commit, NULL), 1);
	cr_assert_eq(in_runtime(2, reserve_and_commit, NULL), 1);
}

static int keeps_a_reservation(void *arg)
{
	return weft_spawn_reserve(arg);
}

static int aborts(void *arg)
{
	return weft_spawn_abort(*(weft_pid *)arg);
}

Test(process, reserved_one_keeps_the_runtime_alive, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);
	weft_pid pid;

	cr_assert_eq(runtime_do(rt, keeps_a_reservation, &pid), 0);
	cr_assert_eq(weft_rt_start(rt), 0);
	cr_assert_eq(weft_join(pid, NULL, weft_after(WEFT_MS(10))), -ETIME);
	/* It has not ended: spawns are taken. */
	cr_assert_eq(runtime_do(rt, aborts, &pid), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	runtime_end(rt);
}

/* ---- The argument's destructor -------------------------------------------------------------- */

struct owned {
	wf_atomic_u32 runs;
	wf_atomic_u32 destroyed;
};

static int runs_with(void *arg)
{
	struct owned *owned = arg;

	cr_assert_eq(wf_u32_load_relaxed(&owned->destroyed), 0);
	wf_u32_fetch_add(&owned->runs, 1);
	return weft_park(WEFT_FOREVER);
}

static void destroy_owned(void *arg)
{
	struct owned *owned = arg;

	wf_u32_fetch_add(&owned->destroyed, 1);
}

static void expect_owned(struct owned *owned, unsigned runs, unsigned destroyed)
{
	cr_assert_eq(wf_u32_load_acquire(&owned->runs), runs);
	cr_assert_eq(wf_u32_load_acquire(&owned->destroyed), destroyed);
}

static int destructors(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = destroy_owned};
	struct owned owned[6] = {0};
	weft_pid pid;

	(void)arg;
	/* Ended, joined: done before the join returns. */
	cr_assert_eq(weft_spawn_with(runs_with, &owned[0], &opts, &pid), 0);
	UNTIL(wf_u32_load_acquire(&owned[0].runs));
	expect_owned(&owned[0], 1, 0);
	weft_wake(pid);
	joined(pid);
	expect_owned(&owned[0], 1, 1);
	/* Cancelled before its first run: it runs. */
	cr_assert_eq(weft_spawn_with(runs_with, &owned[1], &opts, &pid), 0);
	weft_cancel(pid);
	cr_assert_eq(joined(pid), -ECANCELED);
	expect_owned(&owned[1], 1, 1);
	/* Detached. */
	cr_assert_eq(weft_spawn_with(runs_with, &owned[2], &opts, &pid), 0);
	weft_detach(pid);
	weft_wake(pid);
	UNTIL(weft_wake(pid) == -ESRCH);
	UNTIL(wf_u32_load_acquire(&owned[2].destroyed));
	expect_owned(&owned[2], 1, 1);
	/* Refused: still the caller's. */
	opts.flags = 1u << 30;
	cr_assert_eq(weft_spawn_with(runs_with, &owned[3], &opts, &pid), -EINVAL);
	/* Committed; a refused commit leaves it too. */
	cr_assert_eq(weft_spawn_reserve(&pid), 0);
	cr_assert_eq(weft_spawn_commit(pid, runs_with, &owned[3], &opts), -EINVAL);
	expect_owned(&owned[3], 0, 0);
	opts.flags = 0;
	cr_assert_eq(weft_spawn_commit(pid, runs_with, &owned[3], &opts), 0);
	weft_wake(pid);
	joined(pid);
	expect_owned(&owned[3], 1, 1);
	/* NULL is an argument like any other. */
	opts.flags = WEFT_SUSPENDED;
	cr_assert_eq(weft_spawn_with(runs_with, &owned[4], &opts, &pid), 0);
	weft_cancel(pid);
	joined(pid);
	expect_owned(&owned[4], 1, 1);
	return 1;
}

Test(process, argument_is_destroyed_exactly_once, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, destructors, NULL), 1);
	cr_assert_eq(in_runtime(2, destructors, NULL), 1);
}

/* Stopped while parked, suspended, queued but not run; spawned after the stop. */
Test(process, argument_is_destroyed_once_by_a_stop, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = destroy_owned};
	struct owned owned[300] = {0};
	struct owned refused = {0};
	weft_rt *rt = runtime_new(2);
	weft_pid pid;

	for (unsigned i = 0; i < WF_ARRAY_COUNT(owned); i++) {
		opts.flags = i % 3 == 0 ? WEFT_SUSPENDED : i % 3 == 1 ? WEFT_DETACHED : 0;
		opts.worker = i % 5 == 0 ? WEFT_WORKER(1) : 0;
		cr_assert_eq(weft_rt_spawn(rt, runs_with, &owned[i], &opts, &pid), 0);
	}
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(weft_rt_spawn(rt, runs_with, &refused, &opts, &pid), -ESHUTDOWN);
	for (unsigned i = 0; i < WF_ARRAY_COUNT(owned); i++)
		expect_owned(&owned[i], 1, 1);
	expect_owned(&refused, 0, 0);
	runtime_end(rt);
	expect_owned(&refused, 0, 0);
}

/* ---- Limits --------------------------------------------------------------------------------- */

/*
 * What each worker and foreign thread keeps in reserve may be up to a quarter of the table, and
 * slots come back after a grace period.
 */
enum { PROCESSES_MAX = 1000, PROCESSES_LEAST = PROCESSES_MAX * 3 / 4 };

static int fills_the_table(void *arg)
{
	static weft_pid pids[PROCESSES_MAX];

	(void)arg;
	for (int round = 0; round < 5; round++) {
		unsigned count = 0;

		for (;;) {
			int r = weft_spawn(parks, NULL, &pids[count]);

			if (r == 0 && ++count < PROCESSES_MAX)
				continue;
			cr_assert_eq(r, -EAGAIN, "%u processes and the caller", count);
			if (count >= PROCESSES_LEAST)
				break;
			weft_sleep_until(weft_after(WEFT_US(100)));
		}
		for (unsigned i = 0; i < count; i++) {
			cr_assert_eq(weft_wake(pids[i]), 0);
			cr_assert_eq(joined(pids[i]), 0);
		}
	}
	return 1;
}

Test(process, table_has_the_size_asked_for, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .processes_max = PROCESSES_MAX});

	cr_assert_eq(runtime_do(rt, fills_the_table, NULL), 1);
	runtime_end(rt);
}

/* ---- Ids ------------------------------------------------------------------------------------ */

static void expect_unknown(weft_pid pid)
{
	int result = 99;

	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(weft_join(pid, &result, WEFT_POLL), -ESRCH);
	cr_assert_eq(weft_try_join(pid, &result), -ESRCH);
	cr_assert_eq(weft_detach(pid), -ESRCH);
	cr_assert_eq(weft_cancel(pid), -ESRCH);
	cr_assert_eq(weft_wake(pid), -ESRCH);
	cr_assert_eq(result, 99);
}

/* The table is small, so a new slot is soon one used before: at the latest when it is full. */
static int reuses_slots(void *arg)
{
	enum { ENOUGH = 1000 };
	static weft_pid last[PROCESSES_MAX];
	unsigned reused = 0;
	int zero = 0;

	(void)arg;
	while (reused < ENOUGH) {
		uint32_t slot;
		weft_pid pid;

		/* Slots come back after a grace period, which may take as long as it likes. */
		while (weft_spawn(returns, &zero, &pid) == -EAGAIN)
			cr_assert_eq(weft_sleep_until(weft_after(WEFT_US(100))), 0);
		slot = (uint32_t)pid.raw & (((uint32_t)1 << 26) - 1);
		cr_assert_lt(slot, (uint32_t)PROCESSES_MAX);
		cr_assert(!weft_pid_equal(pid, last[slot]));
		/* The slot's former user, while the new one is there. */
		if (!weft_pid_is_none(last[slot])) {
			expect_unknown(last[slot]);
			reused++;
		}
		last[slot] = pid;
		cr_assert_eq(joined(pid), 0);
		expect_unknown(pid);
	}
	return 1;
}

Test(process, ids_of_the_past_stay_unknown, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .processes_max = PROCESSES_MAX});

	cr_assert_eq(runtime_do(rt, reuses_slots, NULL), 1);
	runtime_end(rt);
}

static int tells_its_id(void *arg)
{
	*(weft_pid *)arg = weft_self();
	return weft_park(WEFT_FOREVER);
}

static int reaches_the_other(void *arg)
{
	weft_pid *other = arg;

	cr_assert_eq(weft_join(*other, NULL, weft_after(WEFT_US(100))), -ETIME);
	cr_assert_eq(weft_wake(*other), 0);
	return joined(*other);
}

Test(process, ids_reach_their_own_runtime, .timeout = 120)
{
	weft_rt *one = runtime_new(1);
	weft_rt *two = runtime_new(1);
	weft_pid in_one, in_two, told;

	cr_assert_eq(weft_rt_spawn(one, tells_its_id, &told, NULL, &in_one), 0);
	cr_assert_eq(weft_rt_spawn(two, parks, NULL, NULL, &in_two), 0);
	cr_assert(!weft_pid_equal(in_one, in_two));
	/* S13, and a join across runtimes. */
	cr_assert_eq(runtime_do(two, reaches_the_other, &in_one), 0);
	cr_assert(weft_pid_equal(told, in_one));
	expect_unknown(in_one);
	runtime_end(two);
	expect_unknown(in_two);
	runtime_end(one);
	expect_unknown(in_one);
}

Test(process, ids_of_a_destroyed_runtime_stay_unknown, .timeout = 120)
{
	enum { RUNTIMES = 70 };
	static weft_pid kept[RUNTIMES];
	unsigned reused = 0;

	for (int i = 0; i < RUNTIMES; i++) {
		weft_rt *rt = runtime_new(1);

		cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &kept[i]), 0);
		for (int k = 0; k < i; k++) {
			expect_unknown(kept[k]);
			reused += (uint32_t)kept[k].raw == (uint32_t)kept[i].raw;
		}
		cr_assert_eq(weft_join(kept[i], NULL, WEFT_POLL), -EAGAIN);
		runtime_end(rt);
		expect_unknown(kept[i]);
	}
	cr_assert_gt(reused, 0, "no slot was used again: nothing was tested");
}
