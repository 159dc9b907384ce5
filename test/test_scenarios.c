/*
 * Goal: what the scenarios promise of processes holds for tasks: the rows whose own tests (README
 * has the table) are about fibers.
 * Method: those of test_process.c, test_sched.c, test_runtime.c, with poll functions that keep in
 * their state how far they are. Nothing here looks inside.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test/net.h"
#include "test/runtime.h"

static weft_pid task_with(weft_task_fn fn, void *state, unsigned flags, unsigned worker)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags, .worker = worker};
	weft_pid pid = {0};

	cr_assert_eq(weft_task_spawn(fn, state, &opts, &pid), 0);
	return pid;
}

static weft_pid task_in(weft_rt *rt, weft_task_fn fn, void *state, unsigned flags)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags};
	weft_pid pid = {0};

	cr_assert_eq(weft_rt_task_spawn(rt, fn, state, &opts, &pid), 0);
	return pid;
}

/* For runtimes that are stopped while it is known that they cannot end. */
static void keeps_nothing(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)worker;
	(void)pid;
	cr_assert_neq(level, WEFT_LOG_ERROR, "%s", text);
}

static const unsigned task_flags[] = {WEFT_PINNED, WEFT_MOVABLE};

/* In lifo order the newest in the ring go first, for ever: movable ones can starve each other. */
enum { FAIR_FLAGS = WF_RUN_ORDER_FIFO ? 2 : 1 };

static int parks_as_task(void *state)
{
	(void)state;
	return weft_park(WEFT_FOREVER);
}

/* At the end of a run that is to be followed by another one; -ECANCELED ends the task. */
static int yields_again(void)
{
	int r = weft_yield();

	return r == 0 ? weft_yield() : r;
}

static int counts_as_task(void *state)
{
	wf_u32_fetch_add((wf_atomic_u32 *)state, 1);
	return 0;
}

/* ---- P2: cancelled while it waits, by whomever -------------------------------------------- */

struct sleeper {
	struct weft_deferred defer;
	int begun_on, cleaned_on;
	bool cancels_itself;
	wf_atomic_u32 sleeps, cleaned, dropped;
};

static void cleans(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->cleaned_on = weft_worker_index();
	wf_u32_fetch_add(&sleeper->cleaned, 1);
}

static void drops(void *arg)
{
	wf_u32_fetch_add(&((struct sleeper *)arg)->dropped, 1);
}

static int sleeps_until_cancelled(void *state)
{
	struct sleeper *sleeper = state;
	int r = weft_sleep_until(WEFT_FOREVER);

	if (r != WEFT_PENDING || wf_u32_load_relaxed(&sleeper->sleeps))
		return r;
	sleeper->begun_on = weft_worker_index();
	cr_assert_eq(weft_defer(&sleeper->defer, cleans, sleeper), 0);
	if (sleeper->cancels_itself)
		cr_assert_eq(weft_cancel(weft_self()), 0);
	wf_u32_store_release(&sleeper->sleeps, 1);
	return r;
}

static int cancels(void *arg)
{
	return weft_cancel(*(weft_pid *)arg);
}

enum by { BY_ITSELF, BY_A_SIBLING, BY_A_THREAD, BYS };

static void cancel_sleeper(weft_rt *rt, unsigned flags, enum by by, bool detach)
{
	struct sleeper sleeper = {.cancels_itself = by == BY_ITSELF};
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags, .arg_dtor = drops};
	weft_pid pid;
	int result = 0;

	cr_assert_eq(weft_rt_task_spawn(rt, sleeps_until_cancelled, &sleeper, &opts, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&sleeper.sleeps));
	if (by == BY_A_SIBLING)
		cr_assert_eq(runtime_do(rt, cancels, &pid), 0);
	else if (by == BY_A_THREAD)
		cr_assert_eq(weft_cancel(pid), 0);
	if (detach && by != BY_ITSELF) {
		cr_assert_eq(weft_detach(pid), 0);
	} else {
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, -ECANCELED);
	}
	UNTIL_FOREIGN(wf_u32_load_acquire(&sleeper.dropped));
	UNTIL_FOREIGN(weft_cancel(pid) == -ESRCH);
	cr_assert_eq(wf_u32_load_relaxed(&sleeper.cleaned), 1);
	if (flags & WEFT_PINNED)
		cr_assert_eq(sleeper.cleaned_on, sleeper.begun_on);
}

Test(scenarios, cancelled_sleeping_tasks_clean_up, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);

	for (unsigned i = 0; i < 20 * BYS; i++)
		for (unsigned n = 0; n < WF_ARRAY_COUNT(task_flags); n++)
			for (int detach = 0; detach <= 1; detach++)
				cancel_sleeper(rt, task_flags[n], i % BYS, detach);
	runtime_end(rt);
}

/* ---- P3: joined by a task, and by a second one -------------------------------------------- */

struct joiner {
	weft_pid target;
	weft_time deadline;
	int result, got;
	bool waits;
	struct weft_exit exit;
};

static int joins_as_task(void *state)
{
	struct joiner *joiner = state;

	joiner->got = weft_join(joiner->target, &joiner->result, joiner->deadline);
	joiner->waits = joiner->got == WEFT_PENDING;
	return joiner->got;
}

static int join_of(weft_pid target, int *result_out, weft_time deadline)
{
	struct joiner joiner = {.target = target, .deadline = deadline, .result = 77};
	int r = joined(task_with(joins_as_task, &joiner, 0, 0));

	*result_out = joiner.result;
	return r;
}

static int joined_by_tasks(void *arg)
{
	struct joiner first = {.deadline = WEFT_FOREVER};
	weft_task_fn target = parks_as_task;
	int result;

	(void)arg;
	first.target = task_with(target, NULL, 0, 0);
	cr_assert_eq(join_of(first.target, &result, WEFT_POLL), -EAGAIN);
	cr_assert_eq(join_of(first.target, &result, weft_after(WEFT_US(50))), -ETIME);
	cr_assert_eq(result, 77, "written without a success");
	/* While one waits; then the task that waits is cancelled, and the target is joinable. */
	for (int i = 0; i < 2; i++) {
		weft_pid pid = task_with(joins_as_task, &first, task_flags[i], 0);

		UNTIL(first.waits);
		cr_assert_eq(join_of(first.target, &result, WEFT_FOREVER), -EBUSY);
		cr_assert_eq(weft_cancel(pid), 0);
		cr_assert_eq(joined(pid), -ECANCELED);
		first.waits = false;
	}
	cr_assert_eq(weft_cancel(first.target), 0);
	cr_assert_eq(join_of(first.target, &result, WEFT_FOREVER), 0, "not the joiner's cancel");
	cr_assert_eq(result, -ECANCELED);
	cr_assert_eq(join_of(first.target, &result, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(weft_try_join(first.target, NULL), -ESRCH);
	return 1;
}

Test(scenarios, tasks_join_before_during_and_after, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, joined_by_tasks, NULL), 1);
	cr_assert_eq(in_runtime(2, joined_by_tasks, NULL), 1);
}

/* ---- P4, P5: tokens, and what was written before ------------------------------------------ */

struct mailbox {
	unsigned written, read, runs, last;
	wf_atomic_u32 *hold; /* until this, if it is there: the run is not over */
};

/* Each run sees what was written before the wake that made it. */
static int reads_mailbox(void *state)
{
	struct mailbox *mailbox = state;
	int r;

	mailbox->runs++;
	while ((r = weft_park(WEFT_FOREVER)) == 0) {
		mailbox->read = mailbox->written;
		if (mailbox->read == mailbox->last)
			return 0;
	}
	return r;
}

static int wakes_queued_tasks(void *arg)
{
	struct mailbox mailbox = {.last = 1000};
	weft_pid pid = task_with(reads_mailbox, &mailbox, *(unsigned *)arg, 0);

	UNTIL(mailbox.runs == 1);
	for (unsigned n = 10; n <= mailbox.last; n += 10) {
		unsigned before = mailbox.runs;

		for (unsigned i = 9; i <= 9; i--) { /* queued by the first; the last counts */
			mailbox.written = n - i;
			cr_assert_eq(weft_wake(pid), 0);
		}
		UNTIL(mailbox.runs != before);
		cr_assert_eq(mailbox.read, n);
		cr_assert_eq(mailbox.runs, before + 1, "ten wakes before a run are one");
	}
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(weft_wake(pid), -ESRCH);
	return 1;
}

Test(scenarios, a_wake_publishes_to_a_task_that_is_queued, .timeout = 120)
{
	for (unsigned n = 0; n < WF_ARRAY_COUNT(task_flags); n++)
		cr_assert_eq(
			in_runtime(1, wakes_queued_tasks, (void *)(uintptr_t)&task_flags[n]), 1);
}

/* ---- P6, P12: refused, or never polled ---------------------------------------------------- */

static int never_polled(void *state)
{
	(void)state;
	cr_assert_fail("it was refused");
	return 0;
}

static int refuses_tasks(void *arg)
{
	struct sleeper sleeper = {.cleaned = {0}};
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .arg_dtor = drops, .name = "refused", .trace = 7};
	weft_pid pids[100], pid = {0};
	unsigned count = 0;
	int r;

	(void)arg;
	opts.flags = 1u << 20;
	cr_assert_eq(weft_task_spawn(never_polled, &sleeper, &opts, &pid), -EINVAL);
	opts.flags = WEFT_STACK_NOW;
	cr_assert_eq(weft_task_spawn(never_polled, &sleeper, &opts, &pid), -EINVAL);
	opts.flags = 0;
	opts.priority = (enum weft_priority)77;
	cr_assert_eq(weft_task_spawn(never_polled, &sleeper, &opts, &pid), -EINVAL);
	opts.priority = 0;
	while ((r = weft_task_spawn(parks_as_task, NULL, NULL, &pids[count])) == 0)
		cr_assert_lt(++count, WF_ARRAY_COUNT(pids));
	cr_assert_eq(r, -EAGAIN);
	cr_assert_eq(weft_task_spawn(never_polled, &sleeper, &opts, &pid), -EAGAIN);
	cr_assert_eq(weft_spawn_with(never_polled, &sleeper, &opts, &pid), -EAGAIN);
	cr_assert(weft_pid_is_none(pid));
	while (count > 0) {
		cr_assert_eq(weft_cancel(pids[--count]), 0);
		cr_assert_eq(joined(pids[count]), -ECANCELED);
	}
	cr_assert_eq(wf_u32_load_relaxed(&sleeper.dropped), 0, "it is the caller's");
	return 1;
}

Test(scenarios, a_refused_task_leaves_its_state_to_the_caller, .timeout = 120)
{
	struct sleeper sleeper = {.cleaned = {0}};
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = drops};
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = 1, .processes_max = 64});

	cr_assert_eq(runtime_do(rt, refuses_tasks, NULL), 1);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(weft_rt_task_spawn(rt, never_polled, &sleeper, &opts, NULL), -ESHUTDOWN);
	cr_assert_eq(wf_u32_load_relaxed(&sleeper.dropped), 0);
	runtime_end(rt);
}

/* A fiber that blocks its worker. */
static int holds(void *arg)
{
	wf_atomic_u32 *words = arg; /* [0] it runs, [1] it may go on */

	wf_u32_store_release(&words[0], 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&words[1]));
	return 0;
}

/* Its only worker is held while they are spawned, woken or not, cancelled or not. */
Test(scenarios, tasks_stopped_before_their_first_run_are_polled_and_dropped_once, .timeout = 120)
{
	enum { COUNT = 200 };
	static struct sleeper sleepers[COUNT];
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = 1, .log = keeps_nothing});
	wf_atomic_u32 words[2] = {{0}, {0}};
	weft_pid pids[COUNT];

	cr_assert_eq(weft_rt_spawn(rt, holds, words, NULL, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&words[0]));
	for (unsigned i = 0; i < COUNT; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = drops};

		opts.flags = task_flags[i & 1] | (i & 2 ? WEFT_SUSPENDED : 0);
		cr_assert_eq(weft_rt_task_spawn(
				     rt, sleeps_until_cancelled, &sleepers[i], &opts, &pids[i]),
			0);
		if (i & 4)
			cr_assert_eq(weft_cancel(pids[i]), 0);
		if (i & 8)
			cr_assert_eq(weft_wake(pids[i]), 0);
	}
	cr_assert_eq(weft_rt_stop(rt, 0, 0), -ETIMEDOUT);
	wf_u32_store_release(&words[1], 1);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		cr_assert_eq(joined(pids[i]), -ECANCELED);
		cr_assert_eq(wf_u32_load_relaxed(&sleepers[i].dropped), 1);
	}
	runtime_end(rt);
}

/* ---- P7: a place used by one kind after the other ----------------------------------------- */

static int uses_places_again(void *arg)
{
	enum { ROUNDS = 2000 / HARNESS_SLOWDOWN, KEPT = 16 };
	weft_pid kept[KEPT] = {{0}};
	int zero = 0;

	(void)arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		wf_atomic_u32 count = {0};
		unsigned place = i % KEPT;
		weft_pid pid;
		int r;

		/* No room: headers wait for a grace period. */
		while ((r = i % 2 ? weft_task_spawn(counts_as_task, &count, NULL, &pid)
				  : weft_spawn(returns, &zero, &pid)) == -EAGAIN)
			cr_assert_eq(weft_yield(), 0);
		cr_assert_eq(r, 0);
		cr_assert_eq(joined(pid), 0);
		cr_assert_eq(weft_wake(kept[place]), -ESRCH);
		cr_assert_eq(weft_cancel(kept[place]), -ESRCH);
		cr_assert_eq(weft_detach(kept[place]), -ESRCH);
		cr_assert_eq(weft_try_join(kept[place], NULL), -ESRCH);
		cr_assert_eq(weft_join(kept[place], NULL, WEFT_FOREVER), -ESRCH);
		for (unsigned k = 0; k < KEPT; k++)
			cr_assert(!weft_pid_equal(kept[k], pid));
		kept[place] = pid;
	}
	return 1;
}

Test(scenarios, an_id_is_of_one_process_whichever_kind_follows, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = 2, .processes_max = 256});

	cr_assert_eq(runtime_do(rt, uses_places_again, NULL), 1);
	runtime_end(rt);
}

/* ---- S1, S9, S10: spawned from outside ---------------------------------------------------- */

Test(scenarios, a_thousand_tasks_from_outside_all_run, .timeout = 120)
{
	enum { COUNT = 1000 };

	for (unsigned workers = 1; workers <= 2; workers++) {
		weft_rt *rt = runtime_new(workers);
		wf_atomic_u32 ran = {0};

		for (int i = 0; i < COUNT; i++)
			cr_assert_eq(weft_rt_task_spawn(rt, counts_as_task, &ran, NULL, NULL), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&ran) == COUNT);
		runtime_end(rt);
		cr_assert_eq(wf_u32_load_acquire(&ran), COUNT);
	}
}

static int counts_for_worker(void *arg)
{
	wf_u32_fetch_add((wf_atomic_u32 *)arg, 1);
	return 0;
}

/* No timer is there to rescue one. Every eighth time all workers are woken, for a call. */
static void spawns_tasks_beside_parks(unsigned workers, enum weft_idle idle)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = workers, .idle = idle});
	const unsigned rounds = 2000 / HARNESS_SLOWDOWN;
	wf_atomic_u32 ran = {0}, called = {0};
	uint64_t state = harness_seed();
	unsigned calls = 0;

	for (unsigned i = 0; i < rounds; i++) {
		weft_pid pid = task_in(rt, counts_as_task, &ran, i & 1 ? WEFT_PINNED : 0);

		if (i % 8 == 0) {
			cr_assert_eq(
				weft_rt_run_on_workers(rt, counts_for_worker, &called, NULL), 0);
			calls += workers;
		}
		cr_assert_eq(joined(pid), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&called) == calls);
		for (uint64_t turns = harness_random_below(&state, 500); turns > 0; turns--)
			wf_compiler_barrier();
	}
	cr_assert_eq(wf_u32_load_acquire(&ran), rounds);
	runtime_end(rt);
}

Test(scenarios, a_task_spawned_while_the_workers_park_runs, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		spawns_tasks_beside_parks(workers, WEFT_IDLE_PARK);
		spawns_tasks_beside_parks(workers, WEFT_IDLE_ADAPTIVE);
	}
}

/* ---- S3 to S6: one worker, kept busy by tasks --------------------------------------------- */

struct load {
	wf_atomic_u32 stop, runs;
	unsigned flags;
};

static int yields_five_times(void *arg)
{
	(void)arg;
	for (int i = 0; i < 5; i++)
		cr_assert_eq(weft_yield(), 0);
	return 5;
}

struct yielder {
	unsigned left;
};

static int yields_as_task(void *state)
{
	struct yielder *yielder = state;
	int r;

	while ((r = weft_yield()) == 0)
		if (--yielder->left == 0)
			return 5;
	return r;
}

static int sleeps_briefly(void *arg)
{
	(void)arg;
	return weft_sleep_until(weft_after(WEFT_US(500)));
}

/* What has to go through beside the load, from a foreign thread; both kinds. */
static void expect_reachable(weft_rt *rt)
{
	struct yielder yielder = {.left = 5};
	wf_atomic_u32 posted = {0};
	struct mailbox mailbox = {.last = 1};
	weft_pid parked = task_in(rt, reads_mailbox, &mailbox, 0);

	cr_assert_eq(runtime_do(rt, yields_five_times, NULL), 5);
	cr_assert_eq(joined(task_in(rt, yields_as_task, &yielder, 0)), 5);
	cr_assert_eq(runtime_do(rt, sleeps_briefly, NULL), 0);
	cr_assert_eq(weft_post(rt, count_one, &posted), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&posted));
	mailbox.written = 1;
	cr_assert_eq(weft_wake(parked), 0);
	cr_assert_eq(joined(parked), 0);
}

static int spawns_its_successor(void *state)
{
	struct load *load = state;

	wf_u32_fetch_add(&load->runs, 1);
	if (!wf_u32_load_acquire(&load->stop))
		(void)task_with(spawns_its_successor, load, load->flags | WEFT_DETACHED, 0);
	return 0;
}

Test(scenarios, endless_successors_that_are_tasks_leave_room, .timeout = 120)
{
	for (unsigned n = 0; n < FAIR_FLAGS; n++) {
		struct load load = {.flags = task_flags[n]};
		weft_rt *rt = runtime_new(1);

		cr_assert_eq(weft_rt_task_spawn(rt, spawns_its_successor, &load, NULL, NULL), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&load.runs) > 100);
		expect_reachable(rt);
		wf_u32_store_release(&load.stop, 1);
		runtime_end(rt);
	}
}

enum { PAIRS = 100 };

struct player {
	struct load *load;
	weft_pid partner;
	wf_atomic_u32 rounds;
};

static int plays(void *state)
{
	struct player *player = state;
	int r;

	do {
		if (wf_u32_load_acquire(&player->load->stop)) {
			(void)weft_wake(player->partner);
			return 0;
		}
		wf_u32_fetch_add(&player->rounds, 1);
		(void)weft_wake(player->partner);
	} while ((r = weft_park(WEFT_FOREVER)) == 0);
	return r;
}

/* Suspended until each knows the other. */
static void play_beside(unsigned flags)
{
	static struct player players[2 * PAIRS];
	struct load load = {.flags = flags};
	weft_rt *rt = runtime_new(1);
	weft_pid pids[2 * PAIRS];

	for (unsigned i = 0; i < 2 * PAIRS; i++) {
		players[i].load = &load;
		wf_u32_store_relaxed(&players[i].rounds, 0);
		pids[i] = task_in(rt, plays, &players[i], flags | WEFT_SUSPENDED);
		players[i ^ 1].partner = pids[i];
		if (i & 1) {
			cr_assert_eq(weft_wake(pids[i]), 0);
			cr_assert_eq(weft_wake(pids[i ^ 1]), 0);
		}
	}
	for (unsigned i = 0; i < 2 * PAIRS; i++) /* nobody is left out */
		UNTIL_FOREIGN(wf_u32_load_acquire(&players[i].rounds) > 10);
	expect_reachable(rt);
	wf_u32_store_release(&load.stop, 1);
	for (unsigned i = 0; i < 2 * PAIRS; i++)
		cr_assert_eq(joined(pids[i]), 0);
	runtime_end(rt);
}

Test(scenarios, ping_pong_pairs_of_tasks_leave_room, .timeout = 120)
{
	for (unsigned n = 0; n < FAIR_FLAGS; n++)
		play_beside(task_flags[n]);
}

/* Its wake is always there before it waits. */
static int wakes_itself(void *state)
{
	struct load *load = state;

	wf_u32_fetch_add(&load->runs, 1);
	if (wf_u32_load_acquire(&load->stop))
		return 0;
	cr_assert_eq(weft_wake(weft_self()), 0);
	return WEFT_PENDING;
}

Test(scenarios, tasks_that_wake_themselves_leave_room, .timeout = 120)
{
	for (unsigned count = 1; count <= 100; count += 99)
		for (unsigned n = 0; n < FAIR_FLAGS; n++) {
			struct load load = {.flags = task_flags[n]};
			weft_rt *rt = runtime_new(1);

			for (unsigned i = 0; i < count; i++)
				(void)task_in(rt, wakes_itself, &load, load.flags | WEFT_DETACHED);
			UNTIL_FOREIGN(wf_u32_load_acquire(&load.runs) > 1000);
			expect_reachable(rt);
			wf_u32_store_release(&load.stop, 1);
			runtime_end(rt);
		}
}

/* More than a ring holds: whoever is in the injector comes to run, however often. */
static void starves_nobody(unsigned count)
{
	static struct load loads[3 * WF_RING_SIZE];
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = WEFT_DETACHED};
	weft_rt *rt = runtime_new(1);

	memset(loads, 0, sizeof loads);
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(weft_rt_task_spawn(rt, wakes_itself, &loads[i], &opts, NULL), 0);
	for (unsigned runs = 20; runs <= 60; runs += 20)
		for (unsigned i = 0; i < count; i++)
			UNTIL_FOREIGN(wf_u32_load_acquire(&loads[i].runs) > runs);
	for (unsigned i = 0; i < count; i++)
		wf_u32_store_release(&loads[i].stop, 1);
	runtime_end(rt);
}

Test(scenarios, more_busy_tasks_than_fit_starve_nobody, .timeout = 120)
{
	if (!WF_RUN_ORDER_FIFO || WF_INJECTOR_INTERVAL == 1)
		cr_skip_test("in lifo order, or with injected work always first, they may");
	for (unsigned more = 0; more < 4; more++) { /* what repeats depends on how many there are */
		starves_nobody(WF_RING_SIZE + WF_RING_SIZE / 6 + more);
		starves_nobody(2 * WF_RING_SIZE + WF_RING_SIZE / 3 + more);
	}
}

/* A server that is a task too: accepts one connection and echoes it. */
struct server {
	int listener, fd;
	size_t have, done;
	wf_atomic_u32 waits;
	char bytes[16];
};

static int echoes(void *state)
{
	struct server *server = state;
	ssize_t n;

	if (server->fd < 0) {
		server->fd = weft_accept(server->listener, WEFT_FOREVER);
		wf_u32_store_release(&server->waits, 1);
		if (server->fd == WEFT_PENDING)
			return server->fd;
		cr_assert_geq(server->fd, 0);
	}
	for (;;) {
		if (server->done == server->have) {
			n = weft_read(
				server->fd, server->bytes, sizeof server->bytes, WEFT_FOREVER);
			if (n == WEFT_PENDING)
				return (int)n;
			cr_assert_geq(n, 0);
			if (n == 0)
				return weft_close(server->fd);
			server->have = (size_t)n;
			server->done = 0;
		}
		n = weft_write(server->fd, server->bytes + server->done,
			server->have - server->done, WEFT_FOREVER);
		if (n == WEFT_PENDING)
			return (int)n;
		cr_assert_gt(n, 0);
		server->done += (size_t)n;
	}
}

static int listens(void *arg)
{
	return *(int *)arg = weft_listen("tcp:127.0.0.1:0", 0);
}

static int closes(void *arg)
{
	return weft_close(*(int *)arg);
}

Test(scenarios, a_connection_is_served_by_a_task_beside_tasks_that_wake_themselves, .timeout = 120)
{
	struct load load = {.flags = 0};
	struct server server = {.fd = -1};
	weft_rt *rt = runtime_new(1);
	weft_pid pid;
	int fd;

	cr_assert_geq(runtime_do(rt, listens, &server.listener), 0);
	for (unsigned i = 0; i < 100; i++)
		(void)task_in(rt, wakes_itself, &load, task_flags[i % FAIR_FLAGS] | WEFT_DETACHED);
	pid = task_in(rt, echoes, &server, task_flags[FAIR_FLAGS - 1]);
	UNTIL_FOREIGN(wf_u32_load_acquire(&server.waits));
	fd = net_connect(net_port_of(server.listener));
	for (uint32_t i = 0; i < 20; i++) {
		uint32_t got = ~0u;

		net_send(fd, &i, sizeof i);
		net_recv(fd, &got, sizeof got);
		cr_assert_eq(got, i);
	}
	close(fd);
	cr_assert_eq(joined(pid), 0);
	wf_u32_store_release(&load.stop, 1);
	cr_assert_eq(runtime_do(rt, closes, &server.listener), 0);
	runtime_end(rt);
}

/* ---- S8: injected tasks, beside tasks ----------------------------------------------------- */

struct busy {
	uint32_t picks;
	wf_atomic_u32 held, let_go;
	bool stop;
	uint32_t picks_let_go, picks_injected;
};

static int is_picked_all_the_time(void *state)
{
	struct busy *busy = state;

	busy->picks++;
	if (busy->stop)
		return 0;
	return yields_again();
}

static int holds_and_lets_go(void *state)
{
	struct busy *busy = state;

	wf_u32_store_release(&busy->held, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&busy->let_go));
	busy->picks_let_go = busy->picks;
	return 0;
}

static int notes_the_picks(void *state)
{
	struct busy *busy = state;

	busy->picks_injected = busy->picks;
	return 0;
}

static int stops_the_busy(void *state)
{
	((struct busy *)state)->stop = true;
	return 0;
}

static void busy_round(weft_rt *rt, struct busy *busy, unsigned round)
{
	struct weft_spawn_opts here = {
		.size = sizeof here, .worker = WEFT_WORKER(0), .flags = WEFT_PINNED};
	weft_pid holder, pid;

	wf_u32_store_release(&busy->held, 0);
	wf_u32_store_release(&busy->let_go, 0);
	cr_assert_eq(weft_rt_task_spawn(rt, holds_and_lets_go, busy, &here, &holder), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&busy->held));
	cr_assert_eq(weft_rt_task_spawn(rt, notes_the_picks, busy, NULL, &pid), 0);
	wf_u32_store_release(&busy->let_go, 1);
	joined(holder);
	joined(pid);
	cr_assert_leq(
		busy->picks_injected - busy->picks_let_go, WF_INJECTOR_INTERVAL, "round %u", round);
}

Test(scenarios, injected_tasks_run_within_an_interval_of_picks, .timeout = 120)
{
	struct weft_spawn_opts here = {
		.size = sizeof here, .worker = WEFT_WORKER(0), .flags = WEFT_PINNED};
	struct busy busy = {.picks = 0};
	weft_rt *rt = runtime_new(1);

	for (int i = 0; i < 8; i++)
		cr_assert_eq(weft_rt_task_spawn(rt, is_picked_all_the_time, &busy, &here, NULL), 0);
	for (unsigned round = 0; round < 50; round++)
		busy_round(rt, &busy, round);
	cr_assert_eq(weft_rt_task_spawn(rt, stops_the_busy, &busy, &here, NULL), 0);
	runtime_end(rt);
}

/* ---- S11: a pinned task woken by everybody at once ---------------------------------------- */

enum { WAKERS = 3, WAKES = 3000 / HARNESS_SLOWDOWN };

struct woken {
	wf_atomic_u32 wakes[WAKERS];
	weft_pid target;
	int home;
	long thread;
	uint32_t runs;
};

static int stays_at_home(void *state)
{
	struct woken *woken = state;
	uint32_t sum = 0;

	if (woken->runs == 0) {
		woken->home = weft_worker_index();
		woken->thread = syscall(SYS_gettid);
	}
	cr_assert_leq(woken->runs++, WAKERS * WAKES, "more runs than wakes");
	cr_assert_eq(weft_worker_index(), woken->home);
	cr_assert_eq(syscall(SYS_gettid), woken->thread);
	for (int i = 0; i < WAKERS; i++)
		sum += wf_u32_load_relaxed(&woken->wakes[i]);
	return sum < WAKERS * WAKES ? WEFT_PENDING : woken->home;
}

static void wake_many(struct woken *woken, int waker)
{
	for (int i = 0; i < WAKES; i++) {
		wf_u32_store_relaxed(&woken->wakes[waker], (uint32_t)i + 1);
		/* Unknown: it has seen the last count already, and ended. */
		if (weft_wake(woken->target) < 0)
			cr_assert_eq(i, WAKES - 1);
	}
}

static int wakes_many(void *arg)
{
	wake_many(arg, weft_worker_index());
	return 0;
}

Test(scenarios, a_pinned_task_woken_by_all_at_once_stays_at_home, .timeout = 120)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .worker = WEFT_WORKER(1), .flags = WEFT_PINNED};
	struct woken woken = {.runs = 0};
	weft_rt *rt = runtime_new(2);
	weft_pid wakers[2];

	cr_assert_eq(weft_rt_task_spawn(rt, stays_at_home, &woken, &opts, &woken.target), 0);
	opts.flags = 0;
	for (unsigned i = 0; i < 2; i++) {
		opts.worker = WEFT_WORKER(i);
		cr_assert_eq(weft_rt_spawn(rt, wakes_many, &woken, &opts, &wakers[i]), 0);
	}
	wake_many(&woken, 2);
	cr_assert_eq(joined(wakers[0]), 0);
	cr_assert_eq(joined(wakers[1]), 0);
	cr_assert_eq(joined(woken.target), 1);
	runtime_end(rt);
}

/* ---- S13: two runtimes -------------------------------------------------------------------- */

struct abroad {
	struct joiner joiner;
	weft_pid partner;
	bool woke;
};

static int wakes_and_joins_abroad(void *state)
{
	struct abroad *abroad = state;

	if (!abroad->woke) {
		abroad->woke = true;
		cr_assert_eq(weft_wake(abroad->joiner.target), 0);
	}
	return joins_as_task(&abroad->joiner);
}

Test(scenarios, tasks_wake_and_join_tasks_of_another_runtime, .timeout = 120)
{
	weft_rt *here = runtime_new(1), *there = runtime_new(1);

	for (unsigned i = 0; i < 200; i++) {
		struct mailbox mailbox = {.last = 0};
		struct abroad abroad = {.joiner = {.deadline = WEFT_FOREVER, .result = 77}};

		abroad.joiner.target = task_in(there, reads_mailbox, &mailbox, task_flags[i & 1]);
		cr_assert_eq(joined(task_in(here, wakes_and_joins_abroad, &abroad, 0)), 0);
		cr_assert_eq(abroad.joiner.result, 0);
		cr_assert_eq(weft_try_join(abroad.joiner.target, NULL), -ESRCH);
	}
	runtime_end(here);
	runtime_end(there);
}

/* ---- S14, S15, S16: shares and order ------------------------------------------------------ */

/* Each holds its worker until the other has begun as many, or all have begun: equally fast. */
enum { JOBS = 600 };

static int works(void *state)
{
	wf_atomic_u32 *begun = state;
	int worker = weft_worker_index();
	uint32_t mine = wf_u32_fetch_add(&begun[worker], 1) + 1;

	for (;;) {
		uint32_t others = wf_u32_load_acquire(&begun[!worker]);

		if (others >= mine || others + mine == JOBS)
			return 0;
		sched_yield();
	}
}

static int spreads_its_jobs(void *arg)
{
	static weft_pid pids[JOBS];
	wf_atomic_u32 begun[2] = {{0}, {0}};

	(void)arg;
	for (unsigned i = 0; i < JOBS; i++)
		pids[i] = task_with(works, begun, 0, 0);
	for (unsigned i = 0; i < JOBS; i++)
		joined(pids[i]);
	cr_assert_eq(wf_u32_load_relaxed(&begun[0]), JOBS / 2);
	cr_assert_eq(wf_u32_load_relaxed(&begun[1]), JOBS / 2);
	return 1;
}

Test(scenarios, tasks_of_one_worker_are_shared_by_two, .timeout = 120)
{
	cr_assert_eq(in_runtime(2, spreads_its_jobs, NULL), 1);
}

/* Movable tasks in the ring, pinned ones on the list, injected ones: each with more than enough. */
struct shares {
	struct load ring, list;
	wf_atomic_u32 injected, held, let_go;
};

static int yields_and_counts(void *state)
{
	struct load *load = state;

	wf_u32_fetch_add(&load->runs, 1);
	if (wf_u32_load_acquire(&load->stop))
		return 0;
	return yields_again();
}

static int starts_the_load(void *arg)
{
	struct shares *shares = arg;

	for (int i = 0; i < 4; i++) {
		(void)task_with(yields_and_counts, &shares->list, WEFT_PINNED | WEFT_DETACHED, 0);
		(void)task_with(yields_and_counts, &shares->ring, WEFT_DETACHED, 0);
	}
	UNTIL(wf_u32_load_acquire(&shares->list.runs) >= 8);
	wf_u32_store_release(&shares->held, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares->let_go));
	return 0;
}

Test(scenarios, every_queue_of_tasks_has_its_share, .timeout = 120)
{
	enum { INJECTED = 1000, LEAST = INJECTED / (WF_BUDGET + WF_INJECTOR_INTERVAL) };
	struct shares shares = {.injected = {0}};
	weft_rt *rt = runtime_new(1);
	uint32_t list, ring;

	cr_assert_eq(weft_rt_spawn(rt, starts_the_load, &shares, NULL, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.held));
	for (int i = 0; i < INJECTED; i++)
		cr_assert_eq(
			weft_rt_task_spawn(rt, counts_as_task, &shares.injected, NULL, NULL), 0);
	list = wf_u32_load_acquire(&shares.list.runs);
	ring = wf_u32_load_acquire(&shares.ring.runs);
	wf_u32_store_release(&shares.let_go, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.injected) == INJECTED);
	/* One at least in a turn and an interval, unless injected work always goes first. */
	if (WF_INJECTOR_INTERVAL > 1) {
		cr_expect_geq(wf_u32_load_acquire(&shares.list.runs) - list, LEAST, "pinned");
		cr_expect_geq(wf_u32_load_acquire(&shares.ring.runs) - ring, LEAST, "movable");
	}
	list = wf_u32_load_acquire(&shares.list.runs);
	ring = wf_u32_load_acquire(&shares.ring.runs);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.list.runs) > list + 100);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.ring.runs) > ring + 100);
	wf_u32_store_release(&shares.list.stop, 1);
	wf_u32_store_release(&shares.ring.stop, 1);
	runtime_end(rt);
}

enum { IN_ORDER = WF_RING_SIZE < 32 ? WF_RING_SIZE : 32 };

struct order {
	unsigned places[IN_ORDER], count;
	bool woken;
};

struct numbered {
	struct order *order;
	unsigned number;
};

static int notes_its_place(void *state)
{
	struct numbered *numbered = state;

	numbered->order->places[numbered->order->count++] = numbered->number;
	return 0;
}

static int starts_in_order(void *arg)
{
	struct order order = {.count = 0};
	struct numbered numbered[IN_ORDER];
	weft_pid pids[IN_ORDER];

	(void)arg;
	for (unsigned i = 0; i < IN_ORDER; i++) {
		numbered[i] = (struct numbered){&order, i};
		pids[i] = task_with(notes_its_place, &numbered[i], 0, 0);
	}
	for (unsigned i = 0; i < IN_ORDER; i++)
		joined(pids[i]);
	cr_assert_eq(order.count, IN_ORDER);
	for (unsigned i = 0; i < IN_ORDER; i++)
		cr_assert_eq(order.places[i], WF_RUN_ORDER_FIFO ? i : IN_ORDER - 1 - i);
	return 1;
}

static int notes_when_woken(void *state)
{
	struct numbered *numbered = state;

	if (!numbered->order->woken) {
		numbered->order->count++;
		return WEFT_PENDING;
	}
	return notes_its_place(state);
}

static int wakes_in_order(void *arg)
{
	struct order order = {.count = 0};
	struct numbered numbered[IN_ORDER];
	weft_pid pids[IN_ORDER];
	unsigned last = 0;

	(void)arg;
	for (unsigned i = 0; i < IN_ORDER; i++) {
		numbered[i] = (struct numbered){&order, i};
		pids[i] = task_with(notes_when_woken, &numbered[i], WEFT_PINNED, 0);
	}
	UNTIL(order.count == IN_ORDER);
	order.count = 0;
	order.woken = true;
	for (unsigned i = 0; i < IN_ORDER; i++)
		cr_assert_eq(weft_wake(pids[i]), 0);
	for (unsigned i = 0; i < IN_ORDER; i++)
		joined(pids[i]);
	/* The next slot holds one: it may run before its turn, the others may not. */
	for (unsigned i = order.places[0] != 0; i < IN_ORDER; i++) {
		cr_assert_geq(order.places[i], last, "place %u", i);
		last = order.places[i];
	}
	return 1;
}

Test(scenarios, tasks_start_and_are_woken_in_order, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, starts_in_order, NULL), 1);
	cr_assert_eq(in_runtime(1, wakes_in_order, NULL), 1);
}

/* ---- X1, X2, X5, X8: stops ---------------------------------------------------------------- */

struct spawning {
	weft_rt *rt;
	wf_atomic_u32 accepted, ran, dropped, refused;
};

static void counts_dropped(void *state)
{
	wf_u32_fetch_add(&((struct spawning *)state)->dropped, 1);
}

static int counts_its_run(void *state)
{
	wf_u32_fetch_add(&((struct spawning *)state)->ran, 1);
	return 3;
}

/* Thread 0 stops; the others spawn, and join every second one, until they are refused. */
static void spawns_until_refused(unsigned index, void *arg)
{
	struct spawning *spawning = arg;
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = counts_dropped};
	weft_pid pid;
	int result;

	if (index == 0) {
		UNTIL_FOREIGN(wf_u32_load_acquire(&spawning->ran) >= 50);
		cr_assert_eq(weft_rt_stop(spawning->rt, 0, WEFT_FOREVER), 0);
		return;
	}
	for (;;) {
		int r = weft_rt_task_spawn(spawning->rt, counts_its_run, spawning, &opts, &pid);

		if (r == -EAGAIN)
			continue; /* no room: headers wait for a grace period */
		if (r < 0) {
			cr_assert_eq(r, -ESHUTDOWN);
			wf_u32_fetch_add(&spawning->refused, 1);
			return;
		}
		if (wf_u32_fetch_add(&spawning->accepted, 1) % 2) {
			cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
			cr_assert(result == 3 || result == -ESHUTDOWN, "%d", result);
		} else {
			cr_assert_eq(weft_detach(pid), 0);
		}
	}
}

Test(scenarios, tasks_spawned_beside_a_stop_run_or_are_refused, .timeout = 120)
{
	for (unsigned round = 0; round < 20 / HARNESS_SLOWDOWN + 2; round++) {
		struct spawning spawning = {.rt = runtime_new(1 + round % 2)};
		struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = counts_dropped};

		harness_threads(3, spawns_until_refused, &spawning);
		cr_assert_eq(wf_u32_load_relaxed(&spawning.refused), 2);
		cr_assert_eq(
			weft_rt_task_spawn(spawning.rt, counts_its_run, &spawning, &opts, NULL),
			-ESHUTDOWN);
		runtime_end(spawning.rt);
		cr_assert_eq(wf_u32_load_relaxed(&spawning.ran),
			wf_u32_load_relaxed(&spawning.accepted));
		cr_assert_eq(wf_u32_load_relaxed(&spawning.dropped),
			wf_u32_load_relaxed(&spawning.accepted));
	}
}

enum { WAITING = 10000 / HARNESS_SLOWDOWN };

struct crowd {
	weft_rt *rt;
	weft_pid pids[WAITING];
	wf_atomic_u32 begun, stopped;
};

static int waits_in_crowd(void *state)
{
	struct crowd *crowd = state;
	int r;

	if (wf_u32_load_relaxed(&crowd->begun) < WAITING)
		wf_u32_fetch_add(&crowd->begun, 1);
	do
		r = weft_park(WEFT_FOREVER);
	while (r == 0);
	return r;
}

static void destroys_or_wakes(unsigned index, void *arg)
{
	struct crowd *crowd = arg;

	if (index == 0) {
		cr_assert_eq(weft_rt_destroy(crowd->rt, WEFT_FOREVER), 0);
		wf_u32_store_release(&crowd->stopped, 1);
		return;
	}
	for (unsigned i = 0; !wf_u32_load_acquire(&crowd->stopped); i = (i + 7) % WAITING)
		(void)weft_wake(crowd->pids[i]);
}

Test(scenarios, waiting_tasks_are_woken_while_their_runtime_is_destroyed, .timeout = 120)
{
	static struct crowd crowd;

	for (unsigned round = 0; round < 5; round++) {
		crowd = (struct crowd){.rt = runtime_new(2)};
		for (unsigned i = 0; i < WAITING; i++)
			crowd.pids[i] =
				task_in(crowd.rt, waits_in_crowd, &crowd, task_flags[i & 1]);
		UNTIL_FOREIGN(wf_u32_load_acquire(&crowd.begun) == WAITING);
		harness_threads(2, destroys_or_wakes, &crowd);
		for (unsigned i = 0; i < WAITING; i += 100)
			cr_assert_eq(weft_wake(crowd.pids[i]), -ESRCH);
	}
}

Test(scenarios, runtimes_with_a_waiting_task_come_and_go_without_a_trace, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = drops};
	unsigned fds, rounds = 100 / HARNESS_SLOWDOWN;

	runtime_end(runtime_new(2)); /* what is made once for the process */
	fds = harness_fd_count();
	for (unsigned i = 0; i < rounds; i++) {
		struct sleeper sleeper = {.cancels_itself = false};
		weft_rt *rt = runtime_new(2);

		opts.flags = task_flags[i & 1];
		cr_assert_eq(
			weft_rt_task_spawn(rt, sleeps_until_cancelled, &sleeper, &opts, NULL), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&sleeper.sleeps));
		runtime_end(rt);
		cr_assert_eq(wf_u32_load_relaxed(&sleeper.cleaned), 1);
		cr_assert_eq(wf_u32_load_relaxed(&sleeper.dropped), 1);
		cr_assert_eq(harness_fd_count(), fds);
	}
}

/* X8: armed with all there is, on a worker that is held when the stop comes. */
struct slow {
	int fd[2];
	weft_pid target;
	int joined;
	wf_atomic_u32 waits;
};

static int arms_everything(void *state)
{
	struct slow *slow = state;
	char byte;
	ssize_t n = weft_read(slow->fd[0], &byte, 1, weft_after(WEFT_SEC(3600)));

	if (n == WEFT_PENDING) { /* not cancelled yet; the target may have been */
		if (slow->joined == WEFT_PENDING)
			slow->joined = weft_join(slow->target, NULL, WEFT_FOREVER);
		n = weft_park(WEFT_FOREVER);
		wf_u32_store_release(&slow->waits, 1);
	}
	if (n != WEFT_PENDING) { /* also where the cancel came in the middle of a poll */
		cr_assert_eq(n, -ECANCELED);
		cr_assert_eq(weft_close(slow->fd[0]), 0);
	}
	return (int)n;
}

static void ends_slowly(unsigned flags)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = flags, .worker = WEFT_WORKER(1)};
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = 2, .log = keeps_nothing});
	struct slow slow = {.joined = WEFT_PENDING};
	wf_atomic_u32 words[2] = {{0}, {0}};
	weft_pid pid;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, slow.fd), 0);
	cr_assert_eq(weft_rt_task_spawn(rt, parks_as_task, NULL, &opts, &slow.target), 0);
	cr_assert_eq(weft_rt_task_spawn(rt, arms_everything, &slow, &opts, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&slow.waits));
	opts.flags = 0;
	cr_assert_eq(weft_rt_spawn(rt, holds, words, &opts, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&words[0]));
	cr_assert_eq(weft_rt_stop(rt, 0, weft_after(WEFT_MS(1))), -ETIMEDOUT);
	wf_u32_store_release(&words[1], 1);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	if (slow.joined == WEFT_PENDING)
		cr_assert_eq(joined(slow.target), -ECANCELED, "its joiner has gone");
	runtime_end(rt);
	close(slow.fd[1]);
}

Test(scenarios, a_task_that_waits_for_all_there_is_ends_before_the_drivers, .timeout = 120)
{
	for (unsigned round = 0; round < 10; round++)
		ends_slowly(task_flags[round & 1]);
}

/* ---- B1, B4: workers that are blocked ----------------------------------------------------- */

static int waits_for_word(void *arg)
{
	UNTIL_FOREIGN(wf_u32_load_acquire((wf_atomic_u32 *)arg));
	return 5;
}

static int blocks_in_place(void *arg)
{
	int result = 0;

	cr_assert_eq(weft_block_in_place(waits_for_word, arg, &result), 0);
	return result;
}

Test(scenarios, tasks_run_while_all_workers_block_in_place, .timeout = 120)
{
	enum { WORKERS = 2, OTHERS = 1000 };
	struct weft_spawn_opts opts = {.size = sizeof opts};
	wf_atomic_u32 word = {0}, ran = {0};
	weft_rt *rt = runtime_new(WORKERS);
	weft_pid blocked[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		opts.worker = WEFT_WORKER(i);
		cr_assert_eq(weft_rt_spawn(rt, blocks_in_place, &word, &opts, &blocked[i]), 0);
	}
	for (unsigned i = 0; i < OTHERS; i++)
		(void)task_in(rt, counts_as_task, &ran, task_flags[i & 1] | WEFT_DETACHED);
	UNTIL_FOREIGN(wf_u32_load_acquire(&ran) == OTHERS);
	for (unsigned i = 0; i < WORKERS; i++)
		cr_assert_eq(weft_try_join(blocked[i], NULL), -EAGAIN);
	wf_u32_store_release(&word, 1);
	for (unsigned i = 0; i < WORKERS; i++)
		cr_assert_eq(joined(blocked[i]), 5);
	runtime_end(rt);
}

/* The log's lines about a task named "greedy". */
static wf_atomic_u32 greedy_lines;

static void looks_for_greedy(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)worker;
	if (level == WEFT_LOG_WARN && strstr(text, "\"greedy\"") && !weft_pid_is_none(pid))
		wf_u32_fetch_add(&greedy_lines, 1);
}

/* Holds worker 1 until it is told of, and others have run meanwhile. */
static int computes_until_told(void *state)
{
	UNTIL_FOREIGN(wf_u32_load_acquire(&greedy_lines) > 0);
	UNTIL_FOREIGN(wf_u32_load_acquire((wf_atomic_u32 *)state) == 20);
	return 1;
}

Test(scenarios, a_task_that_does_not_return_is_named_once, .timeout = 120)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .name = "greedy", .worker = WEFT_WORKER(1)};
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){
		.workers = 2, .stall_ns = WEFT_MS(10), .log = looks_for_greedy});
	wf_atomic_u32 ran = {0};
	weft_pid pid;

	cr_assert_eq(weft_rt_task_spawn(rt, computes_until_told, &ran, &opts, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&greedy_lines) > 0);
	for (unsigned i = 0; i < 20; i++)
		(void)task_in(rt, counts_as_task, &ran, WEFT_DETACHED);
	cr_assert_eq(joined(pid), 1);
	runtime_end(rt);
	cr_assert_eq(wf_u32_load_relaxed(&greedy_lines), 1);
}
