/*
 * life.h: scenario P1: one process for each way to end, to be asked for, and to be cancelled, as a
 * fiber and as a task. In real threads by test_life.c, in the simulator by sim/sim_life.c, which
 * define
 *
 *	LIFE_CHECK(condition, format, …)   ends the test
 *	LIFE_PAUSE()                       in the loop of a thread that waits for another one
 *
 * A life is driven by a foreign thread. Its process says how far it has come; where it is to be
 * cancelled it blocks its worker until that has happened, so that the place is exact.
 */
#ifndef WF_TEST_LIFE_H
#define WF_TEST_LIFE_H

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <weft.h>

#include "sync/atomic.h"

enum life_end { LIFE_OK, LIFE_ERROR, LIFE_FAILS, LIFE_FAILS_IN_CLEANUP, LIFE_ENDS };
enum life_join { LIFE_JOIN_BEFORE, LIFE_JOIN_AFTER, LIFE_JOIN_NEVER, LIFE_JOINS };
enum life_cancel {
	LIFE_NEVER,
	LIFE_BEFORE_RUN,
	LIFE_RUNNING,
	LIFE_PARKED,
	LIFE_IN_CLEANUP,
	LIFE_AFTER_END,
	LIFE_CANCELS,
};

struct life_case {
	enum life_end end;
	enum life_join join;
	enum life_cancel cancel;
	bool detached;
	bool movable;
	bool task;
};

#define LIFE_CASES (LIFE_ENDS * LIFE_JOINS * LIFE_CANCELS * 2 * 2 * 2)

enum life_place { LIFE_BEGINS, LIFE_RUNS, LIFE_PARKS, LIFE_CLEANS, LIFE_IS_DROPPED };

struct life {
	struct life_case is;
	weft_rt *rt;
	weft_local key;
	weft_pid pid;
	struct weft_deferred outer, inner; /* deferred in this order */
	struct weft_exit exit;
	wf_atomic_u32 place; /* enum life_place */
	wf_atomic_u32 told;  /* it has been cancelled, or is not going to be */
	unsigned runs, inners, outers, destroyed, dropped;
	int worker; /* it ended on */
};

static struct life_case life_case(unsigned n)
{
	struct life_case is;

	is.end = (enum life_end)(n % LIFE_ENDS);
	n /= LIFE_ENDS;
	is.join = (enum life_join)(n % LIFE_JOINS);
	n /= LIFE_JOINS;
	is.cancel = (enum life_cancel)(n % LIFE_CANCELS);
	n /= LIFE_CANCELS;
	is.detached = n & 1;
	is.movable = n >> 1 & 1;
	is.task = n >> 2 & 1;
	return is;
}

/* --- the process --- */

static void life_reach(struct life *life, enum life_place place, bool wait)
{
	wf_u32_store_release(&life->place, place);
	while (wait && !wf_u32_load_acquire(&life->told))
		LIFE_PAUSE();
}

static bool life_is_cancelled(const struct life *life)
{
	return life->is.cancel != LIFE_NEVER && life->is.cancel != LIFE_AFTER_END;
}

/* A fiber's cleanup is told of a cancel, but not under a shield, where it may park. */
static void life_waits(const struct life *life)
{
	int r = weft_yield();

	LIFE_CHECK(r == (life_is_cancelled(life) ? -ECANCELED : 0), "in a cleanup: %d", r);
	LIFE_CHECK(weft_shield_begin() == 0, "no shield");
	r = weft_yield();
	LIFE_CHECK(r == 0, "a yield under a shield: %d", r);
	r = weft_sleep_until(weft_now() + 1000);
	LIFE_CHECK(r == 0, "a sleep under a shield: %d", r);
}

/* A task's cannot wait: what it arms is over with it. */
static void life_arms(const struct life *life)
{
	int r = weft_sleep_until(weft_now() + 1000);

	LIFE_CHECK(r == (life_is_cancelled(life) ? -ECANCELED : WEFT_PENDING),
		"a task's sleep in a cleanup: %d", r);
	LIFE_CHECK(weft_shield_begin() == 0, "no shield");
	r = weft_yield();
	LIFE_CHECK(r == WEFT_PENDING, "a task's yield in a cleanup: %d", r);
}

/* Runs first. */
static void life_inner(void *arg)
{
	struct life *life = arg;

	LIFE_CHECK(++life->inners == 1 && life->outers == 0, "the last cleanup is not the first");
	LIFE_CHECK(weft_local_get(life->key) == life, "a value is gone before the cleanups");
	life_reach(life, LIFE_CLEANS, life->is.cancel == LIFE_IN_CLEANUP);
	if (life->is.task)
		life_arms(life);
	else
		life_waits(life);
	if (life->is.end == LIFE_FAILS_IN_CLEANUP)
		weft_fail(-EPROTO, "life %d", LIFE_FAILS_IN_CLEANUP); /* the shield is open */
	LIFE_CHECK(weft_shield_end() == 0, "no shield to end");
}

static void life_outer(void *arg)
{
	struct life *life = arg;
	int r = life->is.task ? 0 : weft_yield();

	LIFE_CHECK(++life->outers == 1 && life->inners == 1, "the first cleanup is not the last");
	LIFE_CHECK(r == (life_is_cancelled(life) && !life->is.task ? -ECANCELED : 0),
		"the last cleanup: %d", r);
}

static void life_destroy(void *value)
{
	struct life *life = value;

	LIFE_CHECK(++life->destroyed == 1 && life->outers == 1, "destroyed before the cleanups");
}

static void life_drop(void *arg)
{
	struct life *life = arg;

	LIFE_CHECK(++life->dropped == 1 && life->destroyed == 1, "dropped before the values");
	life->worker = weft_worker_index();
	life_reach(life, LIFE_IS_DROPPED, false);
}

static void life_end_it(struct life *life)
{
	struct weft_deferred above;

	LIFE_CHECK(weft_defer(&above, life_inner, life) == 0, "weft_defer");
	LIFE_CHECK(weft_defer_drop(&above) == 0, "weft_defer_drop");
	if (life->is.end == LIFE_FAILS)
		weft_fail(-EPROTO, "life %d", LIFE_FAILS);
}

/* To where it waits. */
static void life_start(struct life *life)
{
	LIFE_CHECK(++life->runs == 1, "it runs twice");
	LIFE_CHECK(weft_local_set(life->key, life) == 0, "weft_local_set");
	LIFE_CHECK(weft_defer(&life->outer, life_outer, life) == 0, "weft_defer");
	LIFE_CHECK(weft_defer(&life->inner, life_inner, life) == 0, "weft_defer");
	life_reach(life, LIFE_RUNS, life->is.cancel == LIFE_RUNNING);
	life_reach(life, LIFE_PARKS, false);
}

/* r: what the wait gave. */
static int life_finish(struct life *life, int r)
{
	LIFE_CHECK(r == (life_is_cancelled(life) && life->is.cancel != LIFE_IN_CLEANUP
				     ? -ECANCELED : 0), "weft_park: %d", r);
	life_end_it(life);
	return life->is.end == LIFE_ERROR ? -EIO : (int)life->is.end;
}

static int life_body(void *arg)
{
	struct life *life = arg;

	life_start(life);
	return life_finish(life, weft_park(WEFT_FOREVER));
}

static int life_task(void *arg)
{
	struct life *life = arg;
	int r;

	if (life->runs == 0)
		life_start(life);
	r = weft_park(WEFT_FOREVER);
	return r == WEFT_PENDING ? r : life_finish(life, r);
}

/* --- who drives it --- */

static void life_await(struct life *life, enum life_place place)
{
	while (wf_u32_load_acquire(&life->place) < place)
		LIFE_PAUSE();
}

static int life_nothing(void *arg)
{
	(void)arg;
	return 0;
}

/*
 * Until it has ended: it does not wait behind its arg_dtor, so what its worker runs after that, it
 * runs after its end.
 */
static void life_await_end(struct life *life)
{
	struct weft_spawn_opts opts = {.size = sizeof opts};
	weft_pid pid;

	life_await(life, LIFE_IS_DROPPED);
	opts.worker = WEFT_WORKER(life->worker);
	LIFE_CHECK(weft_rt_spawn(life->rt, life_nothing, NULL, &opts, &pid) == 0, "weft_rt_spawn");
	LIFE_CHECK(weft_join(pid, NULL, WEFT_FOREVER) == 0, "weft_join");
}

static int life_joiner(void *arg)
{
	struct life *life = arg;

	return weft_join_exit(life->pid, &life->exit, WEFT_FOREVER);
}

/* What it left behind, by a join that gave r. */
static void life_check_exit(struct life *life, int r)
{
	bool failed = life->is.end == LIFE_FAILS || life->is.end == LIFE_FAILS_IN_CLEANUP;
	int result = failed ? -EPROTO : life->is.end == LIFE_ERROR ? -EIO : 0;
	char message[16] = "";

	if (life->is.detached) {
		LIFE_CHECK(r == -ESRCH, "a join of a detached process: %d", r);
		return;
	}
	if (failed)
		snprintf(message, sizeof message, "life %d", life->is.end);
	LIFE_CHECK(r == 0, "weft_join_exit: %d", r);
	LIFE_CHECK(life->dropped == 1, "joined before its argument is dropped");
	LIFE_CHECK(life->exit.result == result, "result %d", life->exit.result);
	LIFE_CHECK(life->exit.failed == failed, "failed: %d", life->exit.failed);
	LIFE_CHECK(strcmp(life->exit.message, message) == 0, "message: %s", life->exit.message);
	LIFE_CHECK(strcmp(life->exit.name, "life") == 0, "name: %s", life->exit.name);
	LIFE_CHECK(weft_pid_equal(life->exit.pid, life->pid), "another process");
	LIFE_CHECK(weft_cancel(life->pid) == -ESRCH, "joined, and known");
}

static weft_pid life_begin(struct life *life)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "life",
		.flags = WEFT_SUSPENDED, .arg_dtor = life_drop};
	weft_pid joiner = {0};
	int r;

	opts.flags |= life->is.detached ? WEFT_DETACHED : 0;
	opts.flags |= life->is.movable ? WEFT_MOVABLE : life->is.task ? WEFT_PINNED : 0;
	if (life->is.task)
		r = weft_rt_task_spawn(life->rt, life_task, life, &opts, &life->pid);
	else
		r = weft_rt_spawn(life->rt, life_body, life, &opts, &life->pid);
	LIFE_CHECK(r == 0, "no process: %d", r);
	if (life->is.join != LIFE_JOIN_BEFORE)
		return joiner;
	LIFE_CHECK(weft_rt_spawn(life->rt, life_joiner, life, NULL, &joiner) == 0, "the joiner");
	while (!life->is.detached && weft_try_join(life->pid, NULL) != -EBUSY)
		LIFE_PAUSE();
	return joiner;
}

/* From its start to where it ends by itself. */
static void life_lead(struct life *life)
{
	static const enum life_place places[LIFE_CANCELS] = {
		[LIFE_RUNNING] = LIFE_RUNS,
		[LIFE_PARKED] = LIFE_PARKS,
		[LIFE_IN_CLEANUP] = LIFE_CLEANS,
	};
	bool woken = life->is.cancel >= LIFE_IN_CLEANUP || life->is.cancel == LIFE_NEVER;

	if (life->is.cancel != LIFE_BEFORE_RUN)
		LIFE_CHECK(weft_wake(life->pid) == 0, "weft_wake of a suspended process");
	if (woken) {
		life_await(life, LIFE_PARKS);
		LIFE_CHECK(weft_wake(life->pid) == 0, "weft_wake");
	}
	if (life_is_cancelled(life)) {
		life_await(life, places[life->is.cancel]);
		LIFE_CHECK(weft_cancel(life->pid) == 0, "weft_cancel");
	}
	wf_u32_store_release(&life->told, 1);
}

static void life_live(struct life *life, weft_rt *rt, weft_local key, struct life_case is)
{
	weft_pid joiner;
	int r = -1;

	memset(life, 0, sizeof *life);
	*life = (struct life){.is = is, .rt = rt, .key = key, .exit = {.size = sizeof life->exit}};
	joiner = life_begin(life);
	life_lead(life);
	if (is.join == LIFE_JOIN_BEFORE) {
		LIFE_CHECK(weft_join(joiner, &r, WEFT_FOREVER) == 0, "the joiner");
		life_check_exit(life, r);
	}
	life_await_end(life);
	if (is.cancel == LIFE_AFTER_END) {
		r = weft_cancel(life->pid);
		LIFE_CHECK(r == (is.detached || is.join == LIFE_JOIN_BEFORE ? -ESRCH : 0),
			"weft_cancel after the end: %d", r);
	}
	if (is.join == LIFE_JOIN_AFTER)
		life_check_exit(life, weft_join_exit(life->pid, &life->exit, WEFT_POLL));
	LIFE_CHECK(life->runs == 1 && life->inners == 1 && life->outers == 1
			&& life->destroyed == 1 && life->dropped == 1,
		"%u runs, cleanups %u and %u, destroyed %u, dropped %u", life->runs, life->inners,
		life->outers, life->destroyed, life->dropped);
}

#endif
