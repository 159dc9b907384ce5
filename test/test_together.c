/*
 * Goal: parts of a process's life that were built apart, together: failure, cleanups, local values,
 * shields, priorities, trace words, hooks, blocking work and stops; of fibers that move and of
 * tasks, in runtimes with threads of their own and on the caller's.
 * Method: only what the public headers say. A state is waited for, never slept for; where all of a
 * worker's processes have to have settled, a fiber of that worker yields.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <weft/test.h>

#include "test/net.h"
#include "test/runtime.h"

static weft_pid task_with(weft_task_fn fn, void *state, const struct weft_spawn_opts *opts)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_task_spawn(fn, state, opts, &pid), 0);
	return pid;
}

/* On one worker: everything that was ready has run, more than once. */
static void settle(void)
{
	for (int i = 0; i < 4; i++)
		cr_assert_eq(weft_yield(), 0);
}

static struct weft_exit told_of(weft_pid pid)
{
	struct weft_exit told = {.size = sizeof told};

	cr_assert_eq(weft_join_exit(pid, &told, WEFT_FOREVER), 0);
	return told;
}

static int parks_as_task(void *state)
{
	(void)state;
	return weft_park(WEFT_FOREVER);
}

/* Closed at first; whoever waits there holds its thread. */
struct gate {
	wf_atomic_u32 in, open;
};

static int waits_at(void *arg)
{
	struct gate *gate = arg;

	wf_u32_fetch_add(&gate->in, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate->open));
	return 9;
}

static int returns_nine(void *arg)
{
	wf_u32_fetch_add((wf_atomic_u32 *)arg, 1);
	return 9;
}

static void keeps_nothing(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)worker;
	(void)pid;
	cr_assert_neq(level, WEFT_LOG_ERROR, "%s", text);
}

/* ---- A task that fails while it is armed -------------------------------------------------- */

struct armed {
	struct weft_deferred defer;
	weft_pid target;
	int fd;
	unsigned runs, fails_in, cleaned;
	bool in_cleanup;
};

static void arm(struct armed *armed)
{
	char byte;

	cr_assert_eq(weft_read(armed->fd, &byte, 1, weft_after(WEFT_SEC(3600))), WEFT_PENDING);
	cr_assert_eq(weft_join(armed->target, NULL, WEFT_FOREVER), WEFT_PENDING);
	cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(1))), WEFT_PENDING);
	cr_assert_eq(weft_park(WEFT_FOREVER), WEFT_PENDING);
}

static void cleans_up_armed(void *arg)
{
	struct armed *armed = arg;

	armed->cleaned++;
	if (!armed->in_cleanup)
		return;
	arm(armed);
	weft_fail(-EIO, "in cleanup");
}

static int fails_armed(void *state)
{
	struct armed *armed = state;

	if (armed->runs++ == 0)
		cr_assert_eq(weft_defer(&armed->defer, cleans_up_armed, armed), 0);
	if (armed->runs < armed->fails_in) {
		arm(armed);
		return WEFT_PENDING; /* until its sleep ends */
	}
	if (armed->in_cleanup)
		return 1;
	arm(armed);
	weft_fail(-EIO, "armed in run %u", armed->runs);
}

static int reads_one(void *arg)
{
	char byte = 0;

	cr_assert_eq(weft_read(*(int *)arg, &byte, 1, WEFT_FOREVER), 1);
	return byte;
}

/* What it had armed is nobody's: target and descriptor can be waited for, nobody is woken late. */
static int sees_one_fail_armed(void *arg)
{
	struct armed armed = *(struct armed *)arg;
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "armed"};
	weft_pid reader, parked;
	struct weft_exit told;
	char text[32];
	int fd[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	armed.fd = fd[0];
	armed.target = task_with(parks_as_task, NULL, NULL);
	told = told_of(task_with(fails_armed, &armed, &opts));
	snprintf(text, sizeof text, "armed in run %u", armed.fails_in);
	cr_assert_eq(told.result, -EIO);
	cr_assert(told.failed);
	cr_assert_str_eq(told.name, "armed");
	cr_assert_str_eq(told.message, armed.in_cleanup ? "in cleanup" : text);
	cr_assert_eq(armed.cleaned, 1);
	parked = spawned(parks, NULL); /* most likely where the other was */
	reader = spawned(reads_one, &fd[0]);
	settle();
	cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(2))), 0);
	cr_assert_eq(weft_try_join(parked, NULL), -EAGAIN, "woken for somebody else");
	net_send(fd[1], "x", 1);
	cr_assert_eq(joined(reader), 'x');
	cr_assert_eq(weft_wake(armed.target), 0);
	cr_assert_eq(joined(armed.target), 0);
	cr_assert_eq(weft_wake(parked), 0);
	cr_assert_eq(joined(parked), 0);
	cr_assert_eq(weft_close(fd[0]), 0);
	close(fd[1]);
	return 1;
}

Test(together, what_a_failed_task_had_armed_is_over, .timeout = 120)
{
	for (unsigned n = 0; n < 8; n++) {
		struct armed armed = {.fails_in = 1 + (n & 1), .in_cleanup = n & 2};

		cr_assert_eq(in_runtime(1 + (n >> 2), sees_one_fail_armed, &armed), 1);
	}
}

/* ---- Joined by a task that asks for all --------------------------------------------------- */

struct asking {
	weft_pid target;
	struct weft_exit told;
	unsigned polls;
};

static int asks_for_the_exit(void *state)
{
	struct asking *asking = state;

	asking->polls++;
	return weft_join_exit(asking->target, &asking->told, WEFT_FOREVER);
}

static int fails_when_woken(void *arg)
{
	(void)weft_park(WEFT_FOREVER);
	weft_fail(-EPROTO, "%s", (const char *)arg);
}

static int fails_as_task_when_woken(void *state)
{
	int r = weft_park(WEFT_FOREVER);

	if (r == WEFT_PENDING)
		return r;
	weft_fail(-EPROTO, "%s", (const char *)state);
}

static int tasks_ask_for_exits(void *arg)
{
	static char message[] = "asked for";
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "failing"};

	(void)arg;
	for (unsigned n = 0; n < 4; n++) {
		struct asking asking = {.told = {.size = sizeof asking.told}};
		weft_pid pid;

		if (n & 1)
			asking.target = task_with(fails_as_task_when_woken, message, &opts);
		else
			cr_assert_eq(
				weft_spawn_with(fails_when_woken, message, &opts, &asking.target),
				0);
		pid = task_with(asks_for_the_exit, &asking, NULL);
		settle();
		cr_assert_eq(asking.polls, 1);
		cr_assert_eq(weft_try_join(asking.target, NULL), -EBUSY);
		cr_assert_eq(n & 2 ? weft_cancel(asking.target) : weft_wake(asking.target), 0);
		cr_assert_eq(joined(pid), 0);
		cr_assert_eq(asking.told.result, -EPROTO);
		cr_assert(asking.told.failed);
		cr_assert_str_eq(asking.told.name, "failing");
		cr_assert_str_eq(asking.told.message, message);
		cr_assert(weft_pid_equal(asking.told.pid, asking.target));
		asking.told.size = 0;
		cr_assert_eq(joined(task_with(asks_for_the_exit, &asking, NULL)), -EINVAL);
		asking.told.size = sizeof asking.told;
		cr_assert_eq(joined(task_with(asks_for_the_exit, &asking, NULL)), -ESRCH);
	}
	return 1;
}

Test(together, a_task_is_told_how_another_process_failed, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, tasks_ask_for_exits, NULL), 1);
}

/* ---- Blocking work, cancels and shields --------------------------------------------------- */

struct job {
	struct gate *gate; /* of the one that holds the only thread */
	bool shielded, fails;
	wf_atomic_u32 calls, runs;
	struct weft_deferred defer;
	int result, after;
};

static int calls_job(void *arg)
{
	struct job *job = arg;
	int r;

	if (job->shielded)
		cr_assert_eq(weft_shield_begin(), 0);
	wf_u32_store_release(&job->calls, 1);
	r = weft_blocking(returns_nine, &job->runs, &job->result, WEFT_FOREVER);
	if (job->shielded)
		cr_assert_eq(weft_shield_end(), 0);
	job->after = weft_yield();
	return r;
}

static int holds_the_thread(void *arg)
{
	struct gate *gate = arg;
	int result = 0;
	int r;

	cr_assert_eq(weft_shield_begin(), 0);
	r = weft_blocking(waits_at, gate, &result, WEFT_FOREVER);
	cr_assert_eq(weft_shield_end(), 0);
	cr_assert_eq(result, 9);
	return r == 0 ? weft_yield() : r;
}

static weft_rt *with_one_thread(unsigned workers)
{
	return runtime_new_with(&(struct weft_rt_opts){
		.workers = workers, .blocking_threads_max = 1, .log = keeps_nothing});
}

/* One holds the thread, one waits in line bare, one under a shield; fibers that move, and not. */
static void start_jobs(
	weft_rt *rt, unsigned flags, struct gate *gate, struct job *jobs, weft_pid *pids)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags};

	cr_assert_eq(weft_rt_spawn(rt, holds_the_thread, gate, &opts, &pids[2]), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate->in));
	for (int i = 0; i < 2; i++) {
		jobs[i] = (struct job){.gate = gate, .shielded = i == 1};
		cr_assert_eq(weft_rt_spawn(rt, calls_job, &jobs[i], &opts, &pids[i]), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&jobs[i].calls));
	}
}

/* The bare one has been taken back; the gate is open. */
static void check_shielded(struct job *jobs, weft_pid *pids)
{
	cr_assert_eq(joined(pids[2]), -ECANCELED, "the yield behind its shield");
	cr_assert_eq(joined(pids[1]), 0, "shielded, it waits on");
	cr_assert_eq(wf_u32_load_relaxed(&jobs[1].runs), 1);
	cr_assert_eq(jobs[1].result, 9);
	cr_assert_eq(jobs[1].after, -ECANCELED);
}

Test(together, a_shield_keeps_blocking_work_in_line_and_running, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		weft_rt *rt = with_one_thread(2);
		struct gate gate = {{0}, {0}};
		struct job jobs[2];
		weft_pid pids[3];

		start_jobs(rt, flags, &gate, jobs, pids);
		for (int i = 0; i < 3; i++)
			cr_assert_eq(weft_cancel(pids[i]), 0);
		UNTIL_FOREIGN(weft_try_join(pids[0], NULL) != -EAGAIN);
		cr_assert_eq(weft_try_join(pids[1], NULL), -EAGAIN);
		cr_assert_eq(weft_try_join(pids[2], NULL), -EAGAIN);
		cr_assert_eq(wf_u32_load_relaxed(&jobs[0].runs), 0, "taken back, and run");
		wf_u32_store_release(&gate.open, 1);
		check_shielded(jobs, pids);
		runtime_end(rt);
	}
}

/* A stop is no different from a cancel: what is shielded runs, though posts are refused by then. */
Test(together, a_stop_lets_shielded_blocking_work_run, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		weft_rt *rt = with_one_thread(2);
		struct gate gate = {{0}, {0}};
		struct job jobs[2];
		weft_pid pids[3];
		int result = 0;

		start_jobs(rt, flags, &gate, jobs, pids);
		cr_assert_eq(weft_rt_stop(rt, 0, 0), -ETIMEDOUT);
		/* The stop goes on by itself: its cancels may be yet to come. */
		UNTIL_FOREIGN(weft_try_join(pids[0], &result) != -EAGAIN);
		cr_assert_eq(result, -ECANCELED);
		cr_assert_eq(wf_u32_load_relaxed(&jobs[0].runs), 0, "taken back, and run");
		cr_assert_eq(weft_blocking_post(rt, returns_nine, &gate.in, NULL), -ESHUTDOWN);
		wf_u32_store_release(&gate.open, 1);
		cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
		check_shielded(jobs, pids);
		runtime_end(rt);
	}
}

static void blocks_in_cleanup(void *arg)
{
	struct job *job = arg;
	int r = weft_blocking(returns_nine, &job->runs, &job->result, WEFT_FOREVER);

	cr_assert_eq(r, -ECANCELED, "the cleanup of one that is cancelled");
	cr_assert_eq(weft_shield_begin(), 0);
	cr_assert_eq(weft_blocking(returns_nine, &job->runs, &job->result, WEFT_FOREVER), 0);
	cr_assert_eq(weft_block_in_place(returns_nine, &job->runs, NULL), 0);
	cr_assert_eq(weft_shield_end(), 0);
}

static int cleans_up_by_blocking(void *arg)
{
	struct job *job = arg;

	cr_assert_eq(weft_defer(&job->defer, blocks_in_cleanup, job), 0);
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	if (job->fails)
		weft_fail(-EIO, "and cleans up");
	return 1;
}

Test(together, a_cleanup_may_do_blocking_work_under_a_shield, .timeout = 120)
{
	for (unsigned n = 0; n < 4; n++) {
		weft_rt *rt = with_one_thread(1 + (n >> 1));
		struct job job = {.fails = n & 1};
		weft_pid pid;

		cr_assert_eq(weft_rt_spawn(rt, cleans_up_by_blocking, &job, NULL, &pid), 0);
		cr_assert_eq(n & 2 ? weft_rt_stop(rt, 0, WEFT_FOREVER) : weft_cancel(pid), 0);
		cr_assert_eq(joined(pid), job.fails ? -EIO : 1);
		cr_assert_eq(wf_u32_load_relaxed(&job.runs), 2);
		runtime_end(rt);
	}
}

/* ---- Priorities of tasks ------------------------------------------------------------------ */

enum { SEEN = 4000 };

struct classes {
	unsigned count;
	char seen[SEEN];
};

struct member {
	struct classes *classes;
	char class;
};

/* Ready again at once. (A yield would put it behind all that are ready, of whatever class.) */
static int runs_in_its_class(void *state)
{
	struct member *member = state;
	struct classes *classes = member->classes;

	if (classes->count == SEEN)
		return 0;
	classes->seen[classes->count++] = member->class;
	cr_assert_eq(weft_wake(weft_self()), 0);
	return WEFT_PENDING;
}

/* Some of each are always ready. Of 8 runs: normal ones have one at least, low ones one. */
static int tasks_in_classes(void *arg)
{
	static struct classes classes;
	static const char names[] = "nhl"; /* as enum weft_priority */
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = *(unsigned *)arg, .worker = WEFT_WORKER(0)};
	struct member members[9];
	weft_pid pids[9];
	unsigned of[128] = {0};

	classes.count = 0;
	for (unsigned i = 0; i < 9; i++) {
		members[i] = (struct member){&classes, names[i % 3]};
		opts.priority = (enum weft_priority)(i % 3);
		pids[i] = task_with(runs_in_its_class, &members[i], &opts);
	}
	for (unsigned i = 0; i < 9; i++)
		cr_assert_eq(joined(pids[i]), 0);
	for (unsigned i = 0; i < SEEN; i++)
		of[(unsigned char)classes.seen[i]]++;
	/* Behind the first runs, which may still be those of new processes. */
	for (unsigned i = 16; i + 8 <= SEEN; i++) {
		cr_assert_not_null(memchr(&classes.seen[i], 'n', 8), "runs %u on", i);
		cr_assert_not_null(memchr(&classes.seen[i], 'l', 8), "runs %u on", i);
	}
	cr_assert_gt(of['h'], SEEN / 2, "%u high, %u normal, %u low", of['h'], of['n'], of['l']);
	return 1;
}

Test(together, tasks_of_lower_classes_have_their_share, .timeout = 120)
{
	static const unsigned flags[] = {WEFT_PINNED, WEFT_MOVABLE};

	for (unsigned n = 0; n < WF_ARRAY_COUNT(flags); n++)
		cr_assert_eq(in_runtime(1, tasks_in_classes, (void *)(uintptr_t)&flags[n]), 1);
}

static int notes_its_class(void *state)
{
	struct member *member = state;
	int r = weft_park(WEFT_FOREVER);

	if (r == 0)
		member->classes->seen[member->classes->count++] = member->class;
	return r;
}

static int notes_its_class_as_fiber(void *arg)
{
	return notes_its_class(arg);
}

/* Both kinds wait, all are woken, low ones first: high ones run first. */
static int woken_in_classes(void *arg)
{
	static const enum weft_priority classes_of[] = {
		WEFT_PRIORITY_LOW, WEFT_PRIORITY_NORMAL, WEFT_PRIORITY_HIGH};
	static struct classes classes;
	struct member members[6];
	weft_pid pids[6];

	(void)arg;
	classes.count = 0;
	for (unsigned i = 0; i < 6; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(0)};

		members[i] = (struct member){&classes, "lnh"[i / 2]};
		opts.priority = classes_of[i / 2];
		if (i & 1)
			pids[i] = task_with(notes_its_class, &members[i], &opts);
		else
			cr_assert_eq(weft_spawn_with(notes_its_class_as_fiber, &members[i], &opts,
					     &pids[i]),
				0);
	}
	settle();
	settle();
	for (unsigned i = 0; i < 6; i++)
		cr_assert_eq(weft_wake(pids[i]), 0);
	for (unsigned i = 0; i < 6; i++)
		cr_assert_eq(joined(pids[i]), 0);
	cr_assert_eq(classes.count, 6);
	cr_assert(classes.seen[0] == 'h' || classes.seen[1] == 'h', "%.6s", classes.seen);
	cr_assert(classes.seen[4] != 'h' && classes.seen[5] != 'h', "%.6s", classes.seen);
	return 1;
}

Test(together, woken_tasks_and_fibers_share_their_classes, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, woken_in_classes, NULL), 1);
}

/* ---- Runtimes on the caller's thread ------------------------------------------------------ */

static int sleeps_as_task(void *state)
{
	return weft_sleep_until(*(weft_time *)state);
}

static int blocks_and_fails(void *arg)
{
	int result = 0;

	cr_assert_eq(weft_blocking(returns_nine, arg, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 9);
	cr_assert_eq(weft_block_in_place(returns_nine, arg, &result), 0);
	weft_fail(-EDOM, "after %d", result);
}

static int fails_at_once(void *state)
{
	(void)state;
	weft_fail(-ERANGE, "at once");
}

/* Drives it until pid has ended. */
static struct weft_exit polled(weft_rt *rt, weft_pid pid)
{
	struct weft_exit told = {.size = sizeof told};
	int r;

	while ((r = weft_join_exit(pid, &told, WEFT_POLL)) == -EAGAIN)
		cr_assert_geq(weft_rt_poll(rt, weft_after(WEFT_MS(10))), 0);
	cr_assert_eq(r, 0);
	return told;
}

static void live_embedded(weft_rt *rt)
{
	static char message[] = "polled";
	wf_atomic_u32 runs = {0}, posted = {0};
	weft_time soon = weft_now() + WEFT_US(100);
	struct weft_exit told;
	weft_pid pid;
	int result = 0, r;

	cr_assert_eq(weft_rt_task_spawn(rt, sleeps_as_task, &soon, NULL, &pid), 0);
	cr_assert_eq(polled(rt, pid).result, 0);
	cr_assert_eq(weft_rt_task_spawn(rt, fails_at_once, NULL, NULL, &pid), 0);
	told = polled(rt, pid);
	cr_assert(told.failed && told.result == -ERANGE, "%d", told.result);
	cr_assert_str_eq(told.message, "at once");
	cr_assert_eq(weft_rt_task_spawn(rt, fails_as_task_when_woken, message, NULL, &pid), 0);
	cr_assert_geq(weft_rt_poll(rt, WEFT_POLL), 0);
	cr_assert_eq(weft_wake(pid), 0);
	told = polled(rt, pid);
	cr_assert(told.failed && told.result == -EPROTO, "%d", told.result);
	cr_assert_eq(weft_rt_spawn(rt, blocks_and_fails, &runs, NULL, &pid), 0);
	told = polled(rt, pid);
	cr_assert(told.failed && told.result == -EDOM, "%d", told.result);
	cr_assert_str_eq(told.message, "after 9");
	cr_assert_eq(wf_u32_load_relaxed(&runs), 2);
	cr_assert_eq(weft_rt_block_on(rt, returns_nine, &runs, NULL, &result), 0);
	cr_assert_eq(result, 9);
	cr_assert_eq(weft_blocking_post(rt, returns_nine, &posted, NULL), 0);
	/* Virtual time knows of nothing that will happen while the job is with its thread. */
	while ((r = weft_rt_run(rt)) == -EDEADLK)
		sched_yield();
	cr_assert_eq(r, 0);
	cr_assert_eq(wf_u32_load_relaxed(&posted), 1);
	cr_assert_eq(wf_u32_load_relaxed(&runs), 3);
}

Test(together, an_embedded_runtime_runs_tasks_failures_and_blocking_work, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.flags = WEFT_RT_EMBEDDED});

	live_embedded(rt);
	runtime_end(rt);
}

Test(together, a_test_runtime_runs_tasks_failures_and_blocking_work, .timeout = 120)
{
	weft_rt *rt;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	live_embedded(rt);
	runtime_end(rt);
}

/* ---- Waited for by a thread --------------------------------------------------------------- */

static void counts(void *arg)
{
	wf_u32_fetch_add((wf_atomic_u32 *)arg, 1);
}

static int fails_with_five(void *arg)
{
	(void)arg;
	weft_fail(5, NULL);
}

static void fails_deferred(void *arg)
{
	(void)fails_at_once(arg);
}

static int fails_in_cleanup(void *arg)
{
	static struct weft_deferred defer;

	cr_assert_eq(weft_defer(&defer, fails_deferred, arg), 0);
	return 4;
}

Test(together, block_on_hands_out_the_code_of_a_failure, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		wf_atomic_u32 dropped = {0};
		struct weft_spawn_opts opts = {
			.size = sizeof opts, .flags = flags, .arg_dtor = counts};
		weft_rt *rt = runtime_new(2);
		int result = 0;

		cr_assert_eq(weft_rt_block_on(rt, fails_at_once, &dropped, &opts, &result), 0);
		cr_assert_eq(result, -ERANGE);
		cr_assert_eq(weft_rt_block_on(rt, fails_with_five, &dropped, &opts, &result), 0);
		cr_assert_eq(result, -EINVAL, "no negative errno");
		cr_assert_eq(wf_u32_load_relaxed(&dropped), 2);
		cr_assert_eq(weft_rt_block_on(rt, fails_in_cleanup, &dropped, &opts, &result), 0);
		cr_assert_eq(result, -ERANGE);
		runtime_end(rt);
		cr_assert_eq(wf_u32_load_relaxed(&dropped), 3);
	}
}

/* ---- Values and cleanups of what moves ---------------------------------------------------- */

/*
 * What is promised: they run on the stack of the process, so where it ends, after whatever moves;
 * each once.
 */
struct mover {
	struct weft_deferred defer;
	weft_local key;
	bool fails;
	unsigned runs;
	int begun_on, ended_on, cleaned_on, destroyed_on, dropped_on;
	long ended_in, cleaned_in, destroyed_in, dropped_in; /* threads */
	weft_pid holder, cleaned_as, destroyed_as;
	wf_atomic_u32 held, ends, cleaned, destroyed, dropped;
};

static void mover_cleans(void *arg)
{
	struct mover *mover = arg;

	cr_assert_eq(weft_local_get(mover->key), mover);
	mover->cleaned_on = weft_worker_index();
	mover->cleaned_in = syscall(SYS_gettid);
	mover->cleaned_as = weft_self();
	wf_u32_fetch_add(&mover->cleaned, 1);
}

static void mover_destroyed(void *value)
{
	struct mover *mover = value;

	mover->destroyed_on = weft_worker_index();
	mover->destroyed_in = syscall(SYS_gettid);
	mover->destroyed_as = weft_self();
	wf_u32_fetch_add(&mover->destroyed, 1);
}

static void mover_dropped(void *arg)
{
	struct mover *mover = arg;

	mover->dropped_on = weft_worker_index();
	mover->dropped_in = syscall(SYS_gettid);
	wf_u32_fetch_add(&mover->dropped, 1);
}

/* Runs when the mover waits, and holds its worker: who wakes it then sends it elsewhere. */
static int holds_until_moved(void *arg)
{
	struct mover *mover = arg;

	wf_u32_store_release(&mover->held, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&mover->ends));
	return 0;
}

static void mover_begin(struct mover *mover)
{
	struct weft_spawn_opts opts = {.size = sizeof opts};

	mover->begun_on = weft_worker_index();
	cr_assert_eq(weft_local_set(mover->key, mover), 0);
	cr_assert_eq(weft_defer(&mover->defer, mover_cleans, mover), 0);
	opts.worker = WEFT_WORKER(mover->begun_on);
	cr_assert_eq(weft_spawn_with(holds_until_moved, mover, &opts, &mover->holder), 0);
}

static int mover_end(struct mover *mover)
{
	mover->ended_on = weft_worker_index();
	mover->ended_in = syscall(SYS_gettid);
	cr_assert_eq(weft_local_get(mover->key), mover, "a value stayed behind");
	wf_u32_store_release(&mover->ends, 1);
	if (mover->fails)
		weft_fail(-EXDEV, "on worker %d", mover->ended_on);
	return mover->ended_on;
}

static int moves(void *arg)
{
	struct mover *mover = arg;

	mover_begin(mover);
	while (weft_worker_index() == mover->begun_on)
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	return mover_end(mover);
}

static int moves_as_task(void *state)
{
	struct mover *mover = state;

	if (mover->runs++ == 0)
		mover_begin(mover);
	if (weft_worker_index() != mover->begun_on)
		return mover_end(mover);
	return WEFT_PENDING;
}

static void check_mover(weft_rt *rt, weft_local key, bool task, bool fails)
{
	struct mover mover = {.key = key, .fails = fails};
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = WEFT_MOVABLE, .arg_dtor = mover_dropped};
	char text[32];
	struct weft_exit told;
	weft_pid pid;

	if (task)
		cr_assert_eq(weft_rt_task_spawn(rt, moves_as_task, &mover, &opts, &pid), 0);
	else
		cr_assert_eq(weft_rt_spawn(rt, moves, &mover, &opts, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&mover.held));
	cr_assert_eq(weft_wake(pid), 0);
	told = told_of(pid);
	cr_assert_eq(joined(mover.holder), 0);
	snprintf(text, sizeof text, "on worker %d", mover.ended_on);
	cr_assert_eq(told.result, fails ? -EXDEV : mover.ended_on);
	cr_assert_str_eq(told.message, fails ? text : "");
	cr_assert_neq(mover.ended_on, mover.begun_on);
	cr_assert_eq(mover.cleaned_on, mover.ended_on);
	cr_assert_eq(mover.destroyed_on, mover.ended_on);
	cr_assert_eq(mover.dropped_on, mover.ended_on);
	cr_assert_eq(mover.cleaned_in, mover.ended_in);
	cr_assert_eq(mover.destroyed_in, mover.ended_in);
	cr_assert_eq(mover.dropped_in, mover.ended_in);
	cr_assert(weft_pid_equal(mover.cleaned_as, pid));
	cr_assert(weft_pid_equal(mover.destroyed_as, pid));
	cr_assert_eq(wf_u32_load_relaxed(&mover.cleaned), 1);
	cr_assert_eq(wf_u32_load_relaxed(&mover.destroyed), 1);
	cr_assert_eq(wf_u32_load_relaxed(&mover.dropped), 1);
}

Test(together, what_a_process_leaves_is_cleaned_up_where_it_has_moved_to, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);
	weft_local key;

	cr_assert_eq(weft_local_create(&key, mover_destroyed), 0);
	for (unsigned n = 0; n < 40; n++)
		check_mover(rt, key, n & 1, n & 2);
	runtime_end(rt);
}

/* ---- Trace words of tasks ----------------------------------------------------------------- */

struct traced {
	struct weft_deferred defer;
	struct traced *child;
	bool child_is_task;
	uint64_t seen[3], in_cleanup, set;
	unsigned polls;
	weft_pid pid;
};

static void notes_trace(void *arg)
{
	((struct traced *)arg)->in_cleanup = weft_trace_word();
}

static int traced_fiber(void *arg)
{
	struct traced *traced = arg;

	traced->seen[0] = weft_trace_word();
	cr_assert_eq(weft_yield(), 0);
	traced->seen[1] = weft_trace_word();
	cr_assert_eq(weft_defer(&traced->defer, notes_trace, traced), 0);
	return 0;
}

static int traced_task(void *state)
{
	struct traced *traced = state;

	traced->seen[traced->polls++] = weft_trace_word();
	if (traced->polls == 1) {
		cr_assert_eq(weft_defer(&traced->defer, notes_trace, traced), 0);
		return weft_yield();
	}
	if (traced->set)
		cr_assert_eq(weft_trace_set(traced->set), 0);
	if (!traced->child)
		return 0;
	if (traced->child_is_task)
		traced->child->pid = task_with(traced_task, traced->child, NULL);
	else
		traced->child->pid = spawned(traced_fiber, traced->child);
	return 0;
}

static int traces_tasks(void *arg)
{
	for (int n = 0; n < 2; n++) {
		struct traced child = {.pid = {0}}, traced = {.child = &child};
		struct weft_spawn_opts own = {.size = sizeof own, .trace = 77};
		weft_pid pid;

		(void)arg;
		traced.child_is_task = n;
		/* From fiber to task to its child; the task changes its own in between. */
		traced.set = 12;
		cr_assert_eq(weft_trace_set(11), 0);
		pid = task_with(traced_task, &traced, NULL);
		cr_assert_eq(weft_trace_set(99), 0, "after the spawn");
		cr_assert_eq(joined(pid), 0);
		cr_assert_eq(joined(child.pid), 0);
		cr_assert_eq(traced.seen[0], 11);
		cr_assert_eq(traced.seen[1], 11, "not of the worker's other processes");
		cr_assert_eq(traced.in_cleanup, 12);
		cr_assert_eq(child.seen[0], 12);
		cr_assert_eq(child.seen[1], 12);
		cr_assert_eq(child.in_cleanup, 12);
		cr_assert_eq(weft_trace_word(), 99);
		/* One of its own. */
		traced = (struct traced){.pid = {0}};
		cr_assert_eq(joined(task_with(traced_task, &traced, &own)), 0);
		cr_assert_eq(traced.seen[0], 77);
	}
	return 1;
}

Test(together, trace_words_go_through_tasks, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .trace = 5};
	struct traced traced = {.pid = {0}};
	weft_rt *rt = runtime_new(1);
	weft_pid pid;

	cr_assert_eq(runtime_do(rt, traces_tasks, NULL), 1);
	cr_assert_eq(weft_rt_task_spawn(rt, traced_task, &traced, &opts, &pid), 0);
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(traced.seen[0], 5);
	traced = (struct traced){.pid = {0}};
	cr_assert_eq(weft_rt_task_spawn(rt, traced_task, &traced, NULL, &pid), 0);
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(traced.seen[0], 0, "a thread has none");
	runtime_end(rt);
}

/* ---- A stop, and who survives it ---------------------------------------------------------- */

static struct {
	wf_atomic_u32 spawned, ended, shut;
} hooked;

static void hook_spawn(void *ctx, weft_pid pid)
{
	(void)ctx;
	cr_assert(!weft_pid_is_none(pid));
	wf_u32_fetch_add(&hooked.spawned, 1);
}

static void hook_end(void *ctx, const struct weft_exit *exit)
{
	(void)ctx;
	wf_u32_fetch_add(&hooked.ended, 1);
	if (exit->result == -ESHUTDOWN)
		wf_u32_fetch_add(&hooked.shut, 1);
}

static const struct weft_hooks hooks = {
	.size = sizeof hooks, .process_spawn = hook_spawn, .process_end = hook_end};

/* Those that a stop finds and that do not go at once, each with a name of its own. */
struct stubborn {
	wf_atomic_u32 computed, go, ready;
	struct gate gate;
	weft_pid reserved;
	unsigned polls;
};

static int computes(void *arg)
{
	struct stubborn *stubborn = arg;

	wf_u32_fetch_add(&stubborn->ready, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&stubborn->computed));
	return 0;
}

static int waits_shielded(void *arg)
{
	struct stubborn *stubborn = arg;

	cr_assert_eq(weft_shield_begin(), 0);
	wf_u32_fetch_add(&stubborn->ready, 1);
	return weft_park(WEFT_FOREVER); /* the end ends the shield */
}

/* Cancelled, it goes on until it is woken and told. */
static int ignores_its_cancel(void *state)
{
	struct stubborn *stubborn = state;

	if (stubborn->polls++ == 0)
		wf_u32_fetch_add(&stubborn->ready, 1);
	return wf_u32_load_acquire(&stubborn->go) ? 0 : WEFT_PENDING;
}

static int blocks(void *arg)
{
	struct stubborn *stubborn = arg;

	wf_u32_fetch_add(&stubborn->ready, 1);
	return weft_blocking(waits_at, &stubborn->gate, NULL, WEFT_FOREVER);
}

static int blocks_in_place(void *arg)
{
	struct stubborn *stubborn = arg;

	wf_u32_fetch_add(&stubborn->ready, 1);
	return weft_block_in_place(waits_at, &stubborn->gate, NULL);
}

static int reserves_and_parks(void *arg)
{
	struct stubborn *stubborn = arg;
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "reserved"};

	cr_assert_eq(weft_spawn_reserve(&stubborn->reserved), 0);
	cr_assert_eq(weft_shield_begin(), 0);
	wf_u32_fetch_add(&stubborn->ready, 1);
	(void)weft_park(WEFT_FOREVER);
	return weft_spawn_commit(stubborn->reserved, parks, NULL, &opts);
}

static void is_among(const struct weft_survivor *them, int count, const char *name, weft_pid pid)
{
	int n = 0;

	for (int i = 0; i < count; i++)
		if (!strcmp(them[i].name, name) && weft_pid_equal(them[i].pid, pid)) {
			n++;
			cr_assert_not_null(them[i].state);
		}
	cr_assert_eq(n, 1, "\"%s\": %d times", name, n);
}

enum { STUBBORN = 7 };

static const struct {
	const char *name;
	weft_fn fn;
	bool task;
	unsigned flags;
	unsigned worker;
} stubborn_kinds[STUBBORN] = {
	{"computes", computes, false, 0, WEFT_WORKER(0)},
	{"shielded", waits_shielded, false, 0, WEFT_WORKER(1)},
	{"movable", waits_shielded, false, WEFT_MOVABLE, 0},
	{"ignores", ignores_its_cancel, true, WEFT_PINNED, WEFT_WORKER(1)},
	{"blocks", blocks, false, 0, WEFT_WORKER(1)},
	{"in place", blocks_in_place, false, 0, WEFT_WORKER(1)},
	{"reserves", reserves_and_parks, false, 0, WEFT_WORKER(1)},
};

static void start_stubborn(weft_rt *rt, struct stubborn *stubborn, weft_pid *pids)
{
	for (int i = STUBBORN - 1; i >= 0; i--) { /* the one that computes is the last */
		struct weft_spawn_opts opts = {.size = sizeof opts,
			.name = stubborn_kinds[i].name,
			.flags = stubborn_kinds[i].flags,
			.worker = stubborn_kinds[i].worker};
		uint32_t ready = wf_u32_load_acquire(&stubborn->ready);

		cr_assert_eq((stubborn_kinds[i].task ? weft_rt_task_spawn : weft_rt_spawn)(
				     rt, stubborn_kinds[i].fn, stubborn, &opts, &pids[i]),
			0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&stubborn->ready) == ready + 1);
	}
}

Test(together, survivors_of_every_kind_are_named_and_end_when_they_can, .timeout = 120)
{
	struct stubborn stubborn = {.polls = 0};
	struct weft_survivor them[32];
	weft_pid pids[STUBBORN];
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 2, .hooks = &hooks, .log = keeps_nothing});
	int count, result;

	for (int i = 0; i < 10; i++) { /* these go at once */
		struct weft_spawn_opts opts = {
			.size = sizeof opts, .flags = i & 1 ? WEFT_SUSPENDED : 0};

		opts.worker = WEFT_WORKER(1);
		cr_assert_eq(weft_rt_spawn(rt, parks, NULL, &opts, NULL), 0);
		cr_assert_eq(weft_rt_task_spawn(rt, parks_as_task, NULL, &opts, NULL), 0);
	}
	start_stubborn(rt, &stubborn, pids);
	UNTIL_FOREIGN(wf_u32_load_acquire(&stubborn.gate.in) == 2);
	cr_assert_eq(weft_rt_stop(rt, 0, weft_after(WEFT_MS(1))), -ETIMEDOUT);
	count = weft_rt_survivors(rt, them, 32);
	for (int i = 0; i < STUBBORN; i++)
		is_among(them, count, stubborn_kinds[i].name, pids[i]);
	/* Nobody is cancelled before every worker has come by. Then the twenty go, and it goes. */
	wf_u32_store_release(&stubborn.computed, 1);
	UNTIL_FOREIGN((count = weft_rt_survivors(rt, them, 32)) == STUBBORN);
	for (int i = 1; i < STUBBORN; i++)
		is_among(them, count, stubborn_kinds[i].name, pids[i]);
	is_among(them, count, "", stubborn.reserved);
	wf_u32_store_release(&stubborn.go, 1);
	wf_u32_store_release(&stubborn.gate.open, 1);
	for (int i = 0; i < STUBBORN; i++)
		(void)weft_wake(pids[i]);
	cr_assert_eq(weft_join(stubborn.reserved, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, -ECANCELED, "committed under the stop, it runs cancelled");
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	for (int i = 0; i < STUBBORN; i++)
		cr_assert_eq(joined(pids[i]), 0, "%s", stubborn_kinds[i].name);
	cr_assert_eq(weft_rt_survivors(rt, them, 32), 0);
	runtime_end(rt);
	cr_assert_eq(wf_u32_load_relaxed(&hooked.spawned), STUBBORN + 1 + 20);
	cr_assert_eq(wf_u32_load_relaxed(&hooked.ended), wf_u32_load_relaxed(&hooked.spawned));
	cr_assert_eq(wf_u32_load_relaxed(&hooked.shut), 0);
}
