/*
 * Row P8 of the scenarios, and what scopes promise: the last child's end beside the owner's wait,
 * close and cancel; the first error beside a spawn; children beside thieves. A scope's memory is
 * overwritten as soon as it is closed: who touches it later destroys what stands there then.
 */
#include "test/sim/scene.h"

enum { SCHEDULES = 5000, CHILDREN = 4, DEPTH = 2 };

static struct {
	struct gate ready, gates[2];
	struct weft_scope scope;
	weft_pid pids[CHILDREN];
	unsigned alive;
	unsigned ended;
	unsigned heard;   /* of a cancel */
	unsigned refused;
	unsigned fails;   /* the number of the child that does, from 1 */
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

/* --- children --- */

static int leaf(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;

	s.alive--;
	s.ended++;
	return number == s.fails ? -EIO : 0;
}

static int yields(void *arg)
{
	(void)weft_yield();
	return leaf(arg);
}

static int stays(void *arg)
{
	int r = weft_park(WEFT_FOREVER);

	if (r == -ECANCELED)
		s.heard++;
	(void)leaf(arg);
	return r;
}

static void *number_of(unsigned number)
{
	return (void *)(uintptr_t)number;
}

/* The number is from 1. */
static int child_with(struct weft_scope *scope, weft_fn fn, unsigned number, unsigned flags)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .flags = flags};
	int r;

	s.alive++;
	r = weft_scope_spawn_with(scope, fn, number_of(number), flags ? &opts : NULL,
		&s.pids[number - 1]);
	if (r < 0)
		s.alive--;
	/* -EAGAIN: more headers than there are wait for the end of a grace period. */
	sim_check(r == 0 || r == -ECANCELED || r == -EAGAIN, "weft_scope_spawn: %d", r);
	return r;
}

static int child(struct weft_scope *scope, weft_fn fn, unsigned number)
{
	return child_with(scope, fn, number, 0);
}

static void open_scope(struct weft_scope *scope, unsigned flags)
{
	struct weft_scope_opts opts = {.size = sizeof(opts), .flags = flags};
	int r = weft_scope_open(scope, &opts);

	sim_check(r == 0, "weft_scope_open: %d", r);
}

/* Closes it, and puts something else in its place. */
static int close_scope(struct weft_scope *scope)
{
	int r = weft_scope_close(scope);

	sim_check(s.alive == 0, "closed, and %u children are alive", s.alive);
	memset(scope, 0x5a, sizeof(*scope));
	return r;
}

static void check_overwritten(const struct weft_scope *scope)
{
	for (unsigned i = 0; i < sizeof(scope->opaque) / sizeof(scope->opaque[0]); i++)
		sim_check(scope->opaque[i] == 0x5a5a5a5a5a5a5a5aULL, "a scope was touched late");
}

/* Runs fn as a process of a runtime of so many workers, beside `others`; thread 0. */
static void run_beside(unsigned others, unsigned workers, weft_fn fn)
{
	weft_pid pid;
	int result = -1, r;

	scene_create(workers);
	r = weft_rt_spawn(scene.rt, fn, NULL, NULL, &pid);
	sim_check(r == 0, "weft_rt_spawn: %d", r);
	r = weft_join(pid, &result, WEFT_FOREVER);
	sim_check(r == 0 && result == 0, "weft_join: %d, result %d", r, result);
	while (others > 0)
		sim_thread_join(others--);
	scene_destroy();
}

static void run(unsigned workers, weft_fn fn)
{
	run_beside(0, workers, fn);
}

/* --- the last end beside wait and close --- */

static int waits_and_closes(void *arg)
{
	struct weft_scope scope;
	unsigned count = 1 + sim_random(3);
	int r;

	(void)arg;
	open_scope(&scope, sim_random(2) ? WEFT_SCOPE_COLLECT : 0);
	for (unsigned i = 1; i <= count; i++)
		(void)child(&scope, sim_random(2) ? leaf : yields, i);
	if (sim_random(2)) {
		r = weft_scope_wait(&scope, WEFT_FOREVER);
		sim_check(r == 0 && s.alive == 0, "weft_scope_wait: %d, %u alive", r, s.alive);
		(void)child(&scope, leaf, 4);
		count++;
	}
	r = close_scope(&scope);
	sim_check(r == 0 && s.ended == count, "weft_scope_close: %d, %u ended", r, s.ended);
	(void)weft_yield();
	check_overwritten(&scope);
	return 0;
}

static void wait_and_close(unsigned number)
{
	(void)number;
	run(1 + sim_random(2), waits_and_closes);
}

SCENE(waiting, "the last end beside a wait", 1, wait_and_close);

SIM_TEST(scope, the_last_end_and_the_wait_meet)
{
	sim_must_pass(&waiting, SCHEDULES);
}

/* Waits that give up, and numbers that come late. */
static int polls(void *arg)
{
	struct weft_scope scope;
	int r;

	(void)arg;
	open_scope(&scope, 0);
	for (unsigned i = 1; i <= 3; i++) {
		(void)child(&scope, yields, i);
		r = weft_scope_wait(&scope, sim_random(2) ? WEFT_POLL : weft_after(100));
		sim_check(r == 0 || r == -EAGAIN || r == -ETIME, "weft_scope_wait: %d", r);
		sim_check(r != 0 || s.alive == 0, "it says that none is alive");
	}
	r = close_scope(&scope);
	sim_check(r == 0 && s.ended == 3, "weft_scope_close: %d", r);
	return 0;
}

static void poll_scope(unsigned number)
{
	(void)number;
	run(2, polls);
}

SCENE(polling, "waits that give up", 1, poll_scope);

SIM_TEST(scope, a_wait_that_gave_up_is_not_ended_twice)
{
	sim_must_pass(&polling, SCHEDULES);
}

/* --- collecting --- */

static int collects(void *arg)
{
	struct weft_scope scope;
	struct weft_exit exit = {.size = sizeof(exit)};
	unsigned seen = 0, taken = sim_random(4);
	int r;

	(void)arg;
	s.fails = 2;
	open_scope(&scope, WEFT_SCOPE_COLLECT);
	for (unsigned i = 1; i <= 3; i++)
		(void)child(&scope, sim_random(2) ? leaf : yields, i);
	for (unsigned i = 0; i < taken; i++) {
		unsigned n = 0;

		r = weft_scope_next(&scope, &exit, WEFT_FOREVER);
		sim_check(r == 0, "weft_scope_next: %d", r);
		while (n < 3 && !weft_pid_equal(s.pids[n], exit.pid))
			n++;
		sim_check(n < 3 && !(seen >> n & 1), "not a child, or one that was taken");
		sim_check(exit.result == (n + 1 == s.fails ? -EIO : 0), "another's result");
		seen |= 1u << n;
	}
	if (taken == 3) {
		r = weft_scope_next(&scope, &exit, WEFT_FOREVER);
		sim_check(r == -ENOENT, "weft_scope_next: %d", r);
	}
	r = close_scope(&scope);
	sim_check(r == -EIO && s.ended == 3, "weft_scope_close: %d", r);
	return 0;
}

static void collect_all(unsigned number)
{
	(void)number;
	run(2, collects);
}

SCENE(collecting, "a join set", 1, collect_all);

SIM_TEST(scope, each_child_is_collected_once)
{
	sim_must_pass(&collecting, SCHEDULES);
}

/* --- cancels --- */

/* The first error, or the cancel of thread 1, beside spawns. */
static int spawns_beside_a_cancel(void *arg)
{
	bool fails = arg != NULL;
	int r;

	open_scope(&s.scope, 0);
	if (fails)
		s.fails = 1;
	else
		(void)child(&s.scope, stays, 1); /* keeps it open until thread 1 has cancelled */
	gate_open(&s.ready);
	if (fails)
		(void)child(&s.scope, leaf, 1);
	/* One that is suspended is started by the cancel alone: nobody looks at it otherwise. */
	for (unsigned i = 2; i <= CHILDREN; i++)
		s.refused += child_with(&s.scope, stays, i,
				     sim_random(2) ? WEFT_SUSPENDED : 0) < 0;
	/* Those that were not refused end only if the cancel reaches them. */
	r = close_scope(&s.scope);
	sim_check(r == (fails ? -EIO : -ECANCELED), "weft_scope_close: %d", r);
	sim_check(s.ended + s.refused == CHILDREN, "%u ended, %u refused", s.ended, s.refused);
	sim_check(s.heard == s.ended - fails, "%u have heard of it", s.heard);
	return 0;
}

static int spawns_beside_an_error(void *arg)
{
	(void)arg;
	return spawns_beside_a_cancel(&s);
}

static void err_and_spawn(unsigned number)
{
	(void)number;
	run(2, spawns_beside_an_error);
}

SCENE(failing, "a spawn beside the first error", 1, err_and_spawn);

SIM_TEST(scope, what_is_spawned_beside_the_first_error_ends)
{
	sim_must_pass(&failing, SCHEDULES);
}

static void cancel_and_spawn(unsigned number)
{
	if (number == 0) {
		run_beside(1, 1 + sim_random(2), spawns_beside_a_cancel);
		return;
	}
	gate_await(&s.ready);
	sim_check(weft_scope_cancel(&s.scope) == 0, "weft_scope_cancel");
}

SCENE(cancelling, "a spawn beside a cancel", 2, cancel_and_spawn);

SIM_TEST(scope, what_is_spawned_beside_a_cancel_ends)
{
	sim_must_pass(&cancelling, SCHEDULES);
}

/* Children end, and the list of ids is made smaller, beside the cancel. */
static int compacts_beside_a_cancel(void *arg)
{
	int r;

	(void)arg;
	open_scope(&s.scope, 0);
	(void)child(&s.scope, stays, 1);
	gate_open(&s.ready);
	do {
		r = child(&s.scope, leaf, 2);
		(void)weft_yield();
	} while (r != -ECANCELED);
	r = close_scope(&s.scope);
	sim_check(r == -ECANCELED && s.heard == 1, "weft_scope_close: %d", r);
	return 0;
}

static void cancel_and_compact(unsigned number)
{
	if (number == 0) {
		run_beside(1, 1, compacts_beside_a_cancel);
		return;
	}
	gate_await(&s.ready);
	sim_check(weft_scope_cancel(&s.scope) == 0, "weft_scope_cancel");
}

SCENE(compacting, "a list made smaller beside a cancel", 2, cancel_and_compact);

SIM_TEST(scope, a_cancel_finds_all_beside_the_owners_tidying)
{
	sim_must_pass(&compacting, SCHEDULES);
}

/* --- the owner is cancelled; deadlines; stop --- */

static int closes_what_stays(void *arg)
{
	struct weft_scope scope;
	int r;

	(void)arg;
	open_scope(&scope, 0);
	for (unsigned i = 1; i <= 2; i++)
		(void)child(&scope, stays, i);
	gate_open(&s.ready);
	r = close_scope(&scope);
	sim_check(r == -ECANCELED && s.heard == 2, "weft_scope_close: %d", r);
	return 0;
}

static void cancel_owner(unsigned number)
{
	weft_pid pid;
	int result = -1, r;

	(void)number;
	scene_create(2);
	r = weft_rt_spawn(scene.rt, closes_what_stays, NULL, NULL, &pid);
	sim_check(r == 0, "weft_rt_spawn: %d", r);
	gate_await(&s.ready);
	if (sim_random(2)) {
		r = weft_cancel(pid);
		sim_check(r == 0, "weft_cancel: %d", r);
		r = weft_join(pid, &result, WEFT_FOREVER);
		sim_check(r == 0 && result == 0, "weft_join: %d, result %d", r, result);
	} else {
		r = weft_rt_stop(scene.rt, 0, WEFT_FOREVER);
		sim_check(r == 0, "weft_rt_stop: %d", r);
	}
	scene_destroy();
}

SCENE(cancelled_owner, "an owner is cancelled", 1, cancel_owner);

SIM_TEST(scope, a_cancelled_owner_takes_its_children_along)
{
	sim_must_pass(&cancelled_owner, SCHEDULES);
}

static int has_a_deadline(void *arg)
{
	struct weft_scope scope;
	struct weft_scope_opts opts = {
		.size = sizeof(opts), .deadline = weft_after(sim_random(20000))};
	bool stay = sim_random(2);
	int r = weft_scope_open(&scope, &opts);

	(void)arg;
	sim_check(r == 0, "weft_scope_open: %d", r);
	for (unsigned i = 1; i <= 2; i++)
		if (child(&scope, stay ? stays : yields, i) < 0)
			s.refused++;
	r = close_scope(&scope);
	sim_check(s.ended + s.refused == 2, "%u have ended", s.ended);
	if (stay)
		sim_check(r == (s.ended ? -ETIME : 0), "weft_scope_close: %d", r);
	else
		sim_check(r == 0 || r == -ETIME, "weft_scope_close: %d", r);
	(void)weft_yield();
	check_overwritten(&scope);
	return 0;
}

static void pass_deadline(unsigned number)
{
	(void)number;
	run(1 + sim_random(2), has_a_deadline);
}

SCENE(deadlines, "a scope's deadline", 1, pass_deadline);

SIM_TEST(scope, a_deadline_and_the_last_end_meet)
{
	sim_must_pass(&deadlines, SCHEDULES);
}

/* --- others who ask for a child --- */

static int closes_two(void *arg)
{
	int r;

	(void)arg;
	open_scope(&s.scope, sim_random(2) ? WEFT_SCOPE_COLLECT : 0);
	(void)child(&s.scope, yields, 1);
	(void)child(&s.scope, leaf, 2);
	gate_open(&s.ready);
	r = close_scope(&s.scope);
	sim_check(r == 0 && s.ended == 2, "weft_scope_close: %d", r);
	return 0;
}

/* First it is its scope's, then nobody's; in between `joiner` is not taken for a name. */
static void ask_for_a_child(unsigned number)
{
	if (number == 0) {
		run_beside(1, 2, closes_two);
		return;
	}
	gate_await(&s.ready);
	for (unsigned i = 0; i < 4; i++) {
		weft_pid pid = s.pids[i % 2];
		int r = sim_random(2) ? weft_try_join(pid, NULL) : weft_detach(pid);

		sim_check(r == -EBUSY || r == -ESRCH, "a scope's child is joined: %d", r);
	}
}

SCENE(asking, "a child's end beside who would join it", 2, ask_for_a_child);

SIM_TEST(scope, a_child_is_its_scopes_to_the_end)
{
	sim_must_pass(&asking, SCHEDULES);
}

/* --- trees --- */

static int branch(void *arg)
{
	unsigned depth = (unsigned)(uintptr_t)arg;
	struct weft_scope scope;
	int r;

	if (depth == 0) {
		s.ended++;
		return 0;
	}
	open_scope(&scope, 0);
	for (int i = 0; i < 2; i++) {
		r = weft_scope_spawn(&scope, branch, number_of(depth - 1), NULL);
		sim_check(r == 0, "weft_scope_spawn: %d", r);
	}
	r = weft_scope_close(&scope);
	sim_check(r == 0, "weft_scope_close: %d", r);
	memset(&scope, 0x5a, sizeof(scope));
	return 0;
}

static int grows_a_tree(void *arg)
{
	(void)arg;
	(void)branch(number_of(DEPTH));
	sim_check(s.ended == 1u << DEPTH, "%u leaves", s.ended);
	return 0;
}

static void grow_tree(unsigned number)
{
	(void)number;
	run(2, grows_a_tree);
}

SCENE(tree, "a tree, and thieves", 1, grow_tree);

SIM_TEST(scope, a_tree_beside_thieves_loses_no_branch)
{
	sim_must_pass(&tree, SCHEDULES);
}

/* Two children each block their worker until the other runs. */
static int blocks(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;

	gate_open(&s.ready);
	gate_open(&s.gates[number - 1]);
	gate_await(&s.gates[2 - number]);
	return leaf(arg);
}

static int closes_blocking_ones(void *arg)
{
	struct weft_scope scope;
	int r;

	(void)arg;
	open_scope(&scope, 0);
	(void)child(&scope, blocks, 1);
	(void)child(&scope, blocks, 2);
	r = close_scope(&scope);
	sim_check(r == 0, "weft_scope_close: %d", r);
	return 0;
}

/* As S12: nobody promises that the other worker is awake, so something is injected. */
static void block_each_other(unsigned number)
{
	if (number == 0) {
		run_beside(1, 2, closes_blocking_ones);
		return;
	}
	gate_await(&s.ready);
	body_spawn(&scene.bodies[0], body_leaf, NULL);
	body_join(&scene.bodies[0]);
}

SCENE(blocking, "children that need two workers", 2, block_each_other);

SIM_TEST(scope, a_child_leaves_a_blocked_worker)
{
	sim_must_pass(&blocking, SCHEDULES);
}

/* --- owners that are tasks --- */

/* What a task keeps from poll to poll; overwritten when its scope is closed. */
static struct owner {
	struct weft_scope scope;
	unsigned step, count, taken, inside;
} owners[1 << DEPTH];

static unsigned owners_in_use;

static void owner_enter(struct owner *owner)
{
	sim_check(owner->inside++ == 0, "two workers poll one task");
}

static int owner_leave(struct owner *owner, int r)
{
	owner->inside--;
	return r;
}

static int task_leaf(void *state)
{
	return leaf(state);
}

static int task_yields(void *state)
{
	return weft_yield() == WEFT_PENDING ? WEFT_PENDING : leaf(state);
}

/* Of any kind. */
static void any_child(struct weft_scope *scope, unsigned number)
{
	static const weft_task_fn fns[] = {task_leaf, task_yields};
	int r;

	if (sim_random(2)) {
		(void)child(scope, sim_random(2) ? leaf : yields, number);
		return;
	}
	s.alive++;
	r = weft_scope_task(
		scope, fns[sim_random(2)], number_of(number), NULL, &s.pids[number - 1]);
	sim_check(r == 0, "weft_scope_task: %d", r);
}

/* Step by step; a step is begun again when it is polled. */
static int waits_and_closes_as_task(void *state)
{
	struct owner *owner = state;
	int r = 0;

	owner_enter(owner);
	if (owner->step == 0) {
		open_scope(&owner->scope, sim_random(2) ? WEFT_SCOPE_COLLECT : 0);
		owner->count = 1 + sim_random(3);
		for (unsigned i = 1; i <= owner->count; i++)
			any_child(&owner->scope, i);
		owner->step = 1 + sim_random(3);
	}
	if (owner->step == 1) {
		r = weft_scope_wait(&owner->scope, WEFT_FOREVER);
		if (r == WEFT_PENDING)
			return owner_leave(owner, r);
		sim_check(r == 0 && s.alive == 0, "weft_scope_wait: %d, %u alive", r, s.alive);
		any_child(&owner->scope, 4);
		owner->count++;
		owner->step = 3;
	}
	/* Gives up, so that it spawns while children may tell it that they were the last. */
	if (owner->step == 2) {
		r = weft_scope_wait(&owner->scope, weft_after(sim_random(200)));
		sim_check(r == 0 || r == -ETIME || r == WEFT_PENDING, "weft_scope_wait: %d", r);
		any_child(&owner->scope, 4);
		owner->count++;
		owner->step = 3;
	}
	r = weft_scope_close(&owner->scope);
	if (r == WEFT_PENDING)
		return owner_leave(owner, r);
	sim_check(r == 0 && s.alive == 0, "weft_scope_close: %d, %u alive", r, s.alive);
	sim_check(s.ended == owner->count, "%u ended", s.ended);
	memset(&owner->scope, 0x5a, sizeof(owner->scope));
	return owner_leave(owner, 0);
}

static int collects_as_task(void *state)
{
	struct owner *owner = state;
	int r;

	owner_enter(owner);
	if (owner->step++ == 0) {
		open_scope(&owner->scope, WEFT_SCOPE_COLLECT);
		for (unsigned i = 1; i <= 3; i++)
			any_child(&owner->scope, i);
	}
	while (owner->taken < 3) {
		r = weft_scope_next(&owner->scope, NULL, WEFT_FOREVER);
		if (r == WEFT_PENDING)
			return owner_leave(owner, r);
		sim_check(r == 0, "weft_scope_next: %d", r);
		owner->taken++;
		if (owner->taken == 1 && owner->count++ == 0 && sim_random(2)) {
			any_child(&owner->scope, 4);
			owner->taken = 0; /* so four in all */
		}
	}
	r = weft_scope_close(&owner->scope);
	if (r == WEFT_PENDING)
		return owner_leave(owner, r);
	sim_check(r == 0 && s.alive == 0, "weft_scope_close: %d", r);
	memset(&owner->scope, 0x5a, sizeof(owner->scope));
	return owner_leave(owner, 0);
}

/* The scope is still open; by failure, or not. */
static int ends_with_children(void *state)
{
	struct owner *owner = state;

	owner_enter(owner);
	sim_check(owner->step++ == 0, "it is over, and polled");
	open_scope(&owner->scope, 0);
	for (unsigned i = 1; i <= 3; i++)
		(void)child(&owner->scope, sim_random(2) ? stays : yields, i);
	if (sim_random(2))
		(void)weft_park(weft_after(100));
	(void)owner_leave(owner, 0);
	if (sim_random(2))
		weft_fail(-EPROTO, NULL);
	return -EPROTO;
}

/* arg_dtor: no child is alive, and nobody touches the scope from here on. */
static void owner_drop(void *state)
{
	struct owner *owner = state;

	sim_check(s.alive == 0, "an owner has ended, and %u children are alive", s.alive);
	memset(&owner->scope, 0x5a, sizeof(owner->scope));
}

/* fn as a task, and what must come of it. */
static void run_task(weft_task_fn fn, int expected)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts),
		.flags = sim_random(3) ? 0 : WEFT_PINNED,
		.arg_dtor = owner_drop};
	weft_pid pid;
	int result = -1, r;

	memset(owners, 0, sizeof(owners));
	scene_create(1 + sim_random(2));
	r = weft_rt_task_spawn(scene.rt, fn, &owners[0], &opts, &pid);
	sim_check(r == 0, "weft_rt_task_spawn: %d", r);
	if (sim_random(4) == 0)
		(void)weft_wake(pid);
	r = weft_join(pid, &result, WEFT_FOREVER);
	sim_check(r == 0 && result == expected, "weft_join: %d, result %d", r, result);
	check_overwritten(&owners[0].scope);
	scene_destroy();
}

static void wait_and_close_as_task(unsigned number)
{
	(void)number;
	run_task(waits_and_closes_as_task, 0);
}

SCENE(task_waiting, "a task waits for its children", 1, wait_and_close_as_task);

SIM_TEST(scope, the_last_end_and_a_tasks_wait_meet)
{
	sim_must_pass(&task_waiting, 3 * SCHEDULES);
}

static void collect_as_task(unsigned number)
{
	(void)number;
	run_task(collects_as_task, 0);
}

SCENE(task_collecting, "a task's join set", 1, collect_as_task);

SIM_TEST(scope, each_child_is_collected_by_a_task)
{
	sim_must_pass(&task_collecting, SCHEDULES);
}

static void end_with_children(unsigned number)
{
	(void)number;
	run_task(ends_with_children, -EPROTO);
}

SCENE(task_ending, "a task ends with a scope open", 1, end_with_children);

SIM_TEST(scope, a_task_ends_when_its_children_have)
{
	sim_must_pass(&task_ending, SCHEDULES);
}

/* Cancelled by thread 1, or by a stop, while its scope is open. */
static int stays_with_children(void *state)
{
	struct owner *owner = state;
	int r;

	owner_enter(owner);
	if (owner->step++ == 0) {
		open_scope(&owner->scope, 0);
		for (unsigned i = 1; i <= 2; i++)
			(void)child(&owner->scope, stays, i);
		gate_open(&s.ready);
	}
	r = weft_scope_close(&owner->scope);
	if (r == WEFT_PENDING)
		return owner_leave(owner, r);
	sim_check(r == -ECANCELED && s.heard == 2 && s.alive == 0, "weft_scope_close: %d", r);
	memset(&owner->scope, 0x5a, sizeof(owner->scope));
	return owner_leave(owner, 0);
}

static void cancel_task_owner(unsigned number)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .arg_dtor = owner_drop};
	weft_pid pid;
	int r;

	(void)number;
	memset(owners, 0, sizeof(owners));
	scene_create(2);
	r = weft_rt_task_spawn(scene.rt, stays_with_children, &owners[0], &opts, &pid);
	sim_check(r == 0, "weft_rt_task_spawn: %d", r);
	if (sim_random(2))
		gate_await(&s.ready);
	if (sim_random(2)) {
		r = weft_cancel(pid);
		sim_check(r == 0, "weft_cancel: %d", r);
		r = weft_join(pid, NULL, WEFT_FOREVER);
		sim_check(r == 0, "weft_join: %d", r);
	} else {
		gate_await(&s.ready);
		r = weft_rt_stop(scene.rt, 0, WEFT_FOREVER);
		sim_check(r == 0, "weft_rt_stop: %d", r);
	}
	check_overwritten(&owners[0].scope);
	scene_destroy();
}

SCENE(cancelled_task_owner, "an owner that is a task is cancelled", 1, cancel_task_owner);

SIM_TEST(scope, a_cancelled_task_takes_its_children_along)
{
	sim_must_pass(&cancelled_task_owner, SCHEDULES);
}

static int task_branch(void *state)
{
	struct owner *owner = state;
	int r;

	if (owner == NULL) {
		s.ended++;
		return 0;
	}
	owner_enter(owner);
	if (owner->step++ == 0) {
		open_scope(&owner->scope, 0);
		for (int i = 0; i < 2; i++) {
			struct owner *below = NULL;

			if (owner->count > 1) {
				below = &owners[++owners_in_use];
				below->count = owner->count - 1;
			}
			r = weft_scope_task(&owner->scope, task_branch, below, NULL, NULL);
			sim_check(r == 0, "weft_scope_task: %d", r);
		}
	}
	r = weft_scope_close(&owner->scope);
	if (r == WEFT_PENDING)
		return owner_leave(owner, r);
	sim_check(r == 0, "weft_scope_close: %d", r);
	memset(&owner->scope, 0x5a, sizeof(owner->scope));
	return owner_leave(owner, 0);
}

static int task_tree(void *state)
{
	struct owner *root = state;

	if (root->step == 0) {
		owners_in_use = 0;
		root->count = DEPTH;
	}
	return task_branch(state);
}

static void grow_tree_of_tasks(unsigned number)
{
	(void)number;
	run_task(task_tree, 0);
	sim_check(s.ended == 1u << DEPTH, "%u leaves", s.ended);
}

SCENE(task_trees, "a tree of tasks, and thieves", 1, grow_tree_of_tasks);

SIM_TEST(scope, a_tree_of_tasks_loses_no_branch)
{
	sim_must_pass(&task_trees, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(scope, planted_spawn_misses_a_cancel)
{
	sim_must_find(&cancelling, WF_PLANTED_scope_spawn_misses_cancel, 100000);
}

SIM_TEST(scope, planted_spawn_lists_by_a_store)
{
	sim_must_find(&cancelling, WF_PLANTED_scope_lists_without_rmw, 100000);
}

SIM_TEST(scope, planted_tell_after_the_count)
{
	sim_must_find(&waiting, WF_PLANTED_scope_touched_late, 10000);
}

SIM_TEST(scope, planted_wait_asks_too_late)
{
	sim_must_find(&waiting, WF_PLANTED_scope_looks_then_asks, 10000);
}

SIM_TEST(scope, planted_next_parks_without_look)
{
	sim_must_find(&collecting, WF_PLANTED_scope_next_parks_without_look, 10000);
}

SIM_TEST(scope, planted_spawn_borrows_from_the_count)
{
	sim_must_find(&task_waiting, WF_PLANTED_scope_borrows, 100000);
}

SIM_TEST(scope, planted_first_run_is_not_woken)
{
	sim_must_find(&task_trees, WF_PLANTED_scope_owner_looks_new, 100000);
}

SIM_TEST(scope, planted_task_ends_without_its_children)
{
	sim_must_find(&task_ending, WF_PLANTED_scope_ends_with_owner, 10000);
}
