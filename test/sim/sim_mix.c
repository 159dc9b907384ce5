/*
 * The whole runtime under fibers, tasks and foreign threads that do anything to each other, as the
 * seed says: spawn, yield, park, sleep, wake, join, cancel, detach, post, stop; in every idle mode,
 * with one to three workers. No story, only rules that always hold:
 *
 *   - what was spawned runs exactly once, to its end, whatever happens; what was refused never;
 *     tasks run on as long as they wait for something, and some end by a failure;
 *   - a process is on one worker at a time;
 *   - calls return only what their comments say;
 *   - nothing comes before its time;
 *   - one join at most gets a result, and the right one; nobody gets it of what is detached;
 *   - a runtime ends, and gives everything back.
 *
 * Every wait has a deadline, so actors cannot block each other for good, and "everybody sleeps" is
 * the runtime's fault.
 */
#include "test/sim/invariants.h"

#include <errno.h>
#include <string.h>

#include "sync/futex.h"

enum { ACTORS_MAX = 7, ACTIONS = 4, FOREIGN_ACTIONS = 5, STEPS_MAX = 400000 };

struct actor {
	weft_pid pid;
	bool spawned, detached;
	bool armed; /* a task, in this run */
	unsigned left; /* actions of a task */
	unsigned inside, runs, ends, joined;
};

static struct {
	weft_rt *rt;
	struct actor actors[ACTORS_MAX];
	unsigned used;
	unsigned workers;
	unsigned posts, posts_run;
	bool stopping, will_stop;
	wf_atomic_u32 created;
} s;

static void setup(void)
{
	sim_runtime_reset();
	memset(&s, 0, sizeof(s));
}

static weft_time soon(void)
{
	return weft_after((weft_time)sim_random(8) * 1000);
}

static struct actor *anyone(void)
{
	return &s.actors[sim_random(ACTORS_MAX)];
}

/* `self`: the calling process's, or NULL: a foreign thread. */
static void leave(struct actor *self)
{
	if (self == NULL)
		return;
	sim_check(self->inside == 1, "a process was left twice");
	self->inside = 0;
}

static void enter(struct actor *self)
{
	if (self == NULL)
		return;
	sim_check(self->inside == 0, "two workers run one process");
	self->inside = 1;
}

static int act(void *arg);
static int poll(void *arg);

/* In a task some calls have armed, and tell nothing yet. */
static bool has_armed(struct actor *self, int r)
{
	if (r != WEFT_PENDING)
		return false;
	sim_check(self != NULL && self->left != 0, "WEFT_PENDING, and it is no task");
	self->armed = true;
	return true;
}

static int spawn(const struct actor *self, struct actor *child, const struct weft_spawn_opts *opts)
{
	if (sim_random(3) != 0)
		return self != NULL ? weft_spawn_with(act, child, opts, &child->pid)
				    : weft_rt_spawn(s.rt, act, child, opts, &child->pid);
	child->left = 1 + ACTIONS;
	return self != NULL ? weft_task_spawn(poll, child, opts, &child->pid)
			    : weft_rt_task_spawn(s.rt, poll, child, opts, &child->pid);
}

static void do_spawn(struct actor *self)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts)};
	struct actor *child;
	int r;

	if (s.used == ACTORS_MAX)
		return;
	child = &s.actors[s.used++];
	if (sim_random(2) == 0)
		opts.flags |= WEFT_MOVABLE;
	else if (sim_random(2) == 0)
		opts.worker = 1 + sim_random(s.workers);
	if (sim_random(4) == 0) {
		opts.flags |= WEFT_DETACHED;
		child->detached = true;
	}
	child->spawned = true; /* it may run before the call returns */
	leave(self);
	r = spawn(self, child, &opts);
	enter(self);
	sim_check(r == 0 || r == -ESHUTDOWN || r == -EAGAIN, "spawn: %d", r);
	sim_check(r != -ESHUTDOWN || s.stopping, "refused, and nobody stops");
	if (r != 0) {
		sim_check(child->runs == 0, "refused, and it ran");
		child->spawned = false;
	}
}

/* In two steps; in between others may wake, cancel, detach or join what is not there yet. */
static void do_reserve(struct actor *self)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts)};
	struct actor *child;
	int r;

	if (self == NULL || s.used == ACTORS_MAX)
		return;
	child = &s.actors[s.used++];
	r = weft_spawn_reserve(&child->pid);
	sim_check(r == 0 || r == -EAGAIN || (r == -ESHUTDOWN && s.stopping), "reserve: %d", r);
	if (r != 0)
		return;
	leave(self);
	(void)weft_yield();
	enter(self);
	if (sim_random(3) == 0) {
		r = weft_spawn_abort(child->pid);
		sim_check(r == 0, "weft_spawn_abort: %d", r);
		return;
	}
	/* If nobody wakes it, only a stop will start it. */
	if (s.will_stop && sim_random(3) == 0)
		opts.flags |= WEFT_SUSPENDED | (sim_random(2) ? WEFT_MOVABLE : 0);
	child->spawned = true;
	r = weft_spawn_commit(child->pid, act, child, &opts);
	sim_check(r == 0, "weft_spawn_commit: %d", r);
}

static void do_park(struct actor *self)
{
	weft_time deadline = soon();
	int r;

	leave(self);
	r = sim_random(2) ? weft_park(deadline) : weft_sleep_until(deadline);
	enter(self);
	if (has_armed(self, r))
		return;
	sim_check(r == 0 || r == -ETIME || r == -ECANCELED || (r == -EAGAIN && deadline == 0),
		"park or sleep: %d", r);
	sim_check(r != -ETIME || weft_now() >= deadline, "a deadline came early");
}

static void do_sleep(struct actor *self)
{
	weft_time deadline = soon();
	int r;

	leave(self);
	r = weft_sleep_until(deadline);
	enter(self);
	if (has_armed(self, r))
		return;
	sim_check(r == 0 || r == -ECANCELED, "weft_sleep_until: %d", r);
	sim_check(r != 0 || weft_now() >= deadline, "a sleep was short");
}

static void do_join(struct actor *self)
{
	struct actor *other = anyone();
	weft_time deadline = soon();
	int result = -1;
	int r;

	leave(self);
	r = weft_join(other->pid, &result, deadline);
	enter(self);
	if (has_armed(self, r))
		return;
	if (r != 0) {
		sim_check(r == -ETIME || r == -ESRCH || r == -EBUSY || r == -ECANCELED ||
				  r == -EDEADLK,
			"weft_join: %d", r);
		sim_check(r != -EDEADLK || self == other, "no deadlock");
		sim_check(r != -ETIME || weft_now() >= deadline, "a deadline came early");
		return;
	}
	sim_check(result == (int)(other - s.actors) ||
			  (result == -1 - (int)(other - s.actors) && other->left != 0),
		"a result of another process");
	sim_check(other->ends == 1, "joined before its end");
	sim_check(++other->joined == 1, "joined twice");
	sim_check(!other->detached, "detached, and joined");
}

static void do_detach(void)
{
	struct actor *other = anyone();
	int r = weft_detach(other->pid);

	sim_check(r == 0 || r == -ESRCH || r == -EBUSY, "weft_detach: %d", r);
	if (r == 0) {
		sim_check(
			!other->detached && other->joined == 0, "detached twice, or after a join");
		other->detached = true;
	}
}

static void posted(void *unused)
{
	(void)unused;
	s.posts_run++;
}

static void do_post(void)
{
	int r = weft_post(s.rt, posted, NULL);

	sim_check(r == 0 || r == -ESHUTDOWN, "weft_post: %d", r);
	s.posts += r == 0;
}

/* What everybody may do. */
static void do_anything(struct actor *self)
{
	int r;

	switch (sim_random(11)) {
	case 0:
	case 1:
		do_spawn(self);
		break;
	case 9:
		do_reserve(self);
		break;
	case 2:
	case 3:
		r = weft_wake(anyone()->pid);
		sim_check(r == 0 || r == -ESRCH, "weft_wake: %d", r);
		break;
	case 4:
		r = weft_cancel(anyone()->pid);
		sim_check(r == 0 || r == -ESRCH, "weft_cancel: %d", r);
		break;
	case 5:
	case 6:
		do_join(self);
		break;
	case 7:
		do_detach();
		break;
	case 8:
		do_post();
		break;
	default:
		if (sim_random(4) == 0) {
			s.stopping = true;
			if (self != NULL)
				(void)weft_rt_stop(s.rt, (weft_time)sim_random(3) * 1000, soon());
		}
		break;
	}
}

static void act_once(struct actor *self)
{
	switch (sim_random(6)) {
	case 0:
		leave(self);
		(void)has_armed(self, weft_yield());
		enter(self);
		break;
	case 1:
		do_park(self);
		break;
	case 2:
		do_sleep(self);
		break;
	default:
		do_anything(self);
		break;
	}
}

static int act(void *arg)
{
	struct actor *self = arg;

	sim_check(self->spawned, "refused, and it runs");
	sim_check(++self->runs == 1, "it runs twice");
	enter(self);
	for (int i = 0; i < ACTIONS; i++)
		act_once(self);
	sim_check(++self->ends == 1, "it ends twice");
	leave(self);
	return (int)(self - s.actors);
}

/* A task's run: until it has armed something, and a little further. `left` stays 1 to the end. */
static int poll(void *arg)
{
	struct actor *self = arg;

	sim_check(self->spawned, "refused, and it runs");
	self->runs = 1;
	self->armed = false;
	enter(self);
	while (self->left > 1 && (!self->armed || sim_random(2))) {
		self->left--;
		act_once(self);
	}
	if (self->armed && (self->left > 1 || sim_random(2))) {
		leave(self);
		return WEFT_PENDING;
	}
	sim_check(++self->ends == 1, "it ends twice");
	leave(self);
	if (sim_random(3) == 0)
		weft_fail(-1 - (int)(self - s.actors), "told");
	return (int)(self - s.actors);
}

static void foreign(void)
{
	while (wf_u32_load_acquire(&s.created) == 0)
		(void)wf_futex_sleep(&s.created, 0, WF_FUTEX_FOREVER);
	for (int i = 0; i < FOREIGN_ACTIONS; i++)
		do_anything(NULL);
}

static void coordinate(unsigned workers)
{
	static const enum weft_idle modes[] = {
		WEFT_IDLE_PARK, WEFT_IDLE_PARK, WEFT_IDLE_SPIN, WEFT_IDLE_ADAPTIVE};
	struct weft_rt_opts opts = *sim_runtime_opts(workers);
	int r;

	s.workers = workers;
	s.will_stop = sim_random(2);
	opts.idle = modes[sim_random(WF_ARRAY_COUNT(modes))];
	r = weft_rt_create(&opts, &s.rt);
	sim_check(r == 0, "weft_rt_create: %d", r);
	wf_u32_store_release(&s.created, 1);
	wf_futex_wake(&s.created, 1);
	do_spawn(NULL);
	do_spawn(NULL);
	sim_thread_join(1); /* nobody may use the runtime while it is destroyed */
	if (!s.will_stop) {
		r = weft_rt_run(s.rt);
		sim_check(r == 0, "weft_rt_run: %d", r);
	} else {
		s.stopping = true;
		r = weft_rt_stop(s.rt, (weft_time)sim_random(20) * 1000, WEFT_FOREVER);
		sim_check(r == 0, "weft_rt_stop: %d", r);
	}
	r = weft_rt_destroy(s.rt, WEFT_FOREVER);
	sim_check(r == 0, "weft_rt_destroy: %d", r);
}

static void thread_one(unsigned number)
{
	if (number == 0)
		coordinate(1);
	else
		foreign();
}

static void thread_two(unsigned number)
{
	if (number == 0)
		coordinate(2);
	else
		foreign();
}

static void thread_three(unsigned number)
{
	if (number == 0)
		coordinate(3);
	else
		foreign();
}

static void check(void)
{
	for (unsigned i = 0; i < s.used; i++) {
		const struct actor *actor = &s.actors[i];

		sim_check(actor->runs == actor->spawned && actor->ends == actor->runs,
			"process %u: %s, %u runs, %u ends", i,
			actor->spawned ? "spawned" : "refused", actor->runs, actor->ends);
	}
	sim_check(s.posts == s.posts_run, "%u posts, %u were run", s.posts, s.posts_run);
	sim_runtime_check();
}

static const struct sim_scenario with_one = {
	"anything, 1 worker", 2, setup, thread_one, NULL, check, STEPS_MAX};
static const struct sim_scenario with_two = {
	"anything, 2 workers", 2, setup, thread_two, NULL, check, STEPS_MAX};
static const struct sim_scenario with_three = {
	"anything, 3 workers", 2, setup, thread_three, NULL, check, STEPS_MAX};

SIM_TEST(mix, the_rules_hold_with_one_worker)
{
	sim_must_pass(&with_one, 10000);
}

SIM_TEST(mix, the_rules_hold_with_two_workers)
{
	sim_must_pass(&with_two, 10000);
}

SIM_TEST(mix, the_rules_hold_with_three_workers)
{
	sim_must_pass(&with_three, 10000);
}

SIM_TEST(mix, planted_boot_ignores_retry)
{
	sim_must_find(&with_one, WF_PLANTED_boot_ignores_retry, 1000);
}

static void setup_unwatched(void)
{
	setup();
	sim_invariants_leave_out();
}

SIM_TEST(mix, who_looks_on_changes_nothing)
{
	static const struct sim_scenario unwatched = {"anything, unwatched", 2, setup_unwatched,
		thread_two, NULL, check, STEPS_MAX};
	struct sim_statistics first, second;
	struct sim_failure failure;

	(void)sim_explore(&with_two, 1, 500, &first, &failure);
	(void)sim_explore(&unwatched, 1, 500, &second, &failure);
	sim_expect(first.hash == second.hash, "other schedules when nobody looks on");
}

SIM_TEST(mix, the_same_seeds_give_the_same_schedules)
{
	struct sim_statistics first, second;
	struct sim_failure failure;

	(void)sim_explore(&with_two, 1, 100, &first, &failure);
	(void)sim_explore(&with_two, 1, 100, &second, &failure);
	sim_expect(first.hash == second.hash, "two hashes of the same seeds");
}
