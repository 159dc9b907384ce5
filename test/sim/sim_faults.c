/*
 * Every failure path of the runtime, one at a time: the first request for memory, a guard, a
 * thread, a driver fails, then the second, and so on until a scenario makes no such request any
 * more; each under several seeds. Whoever asked reports one of the errors that its comment lists,
 * everything else goes on, what was spawned ends once or never runs, its destructor runs once, and
 * nothing is left behind (sim_runtime_check, invariants.c).
 */
#include "test/sim/runtime.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { STEPS_MAX = 200000, BODIES_MAX = 6, SEEDS = 100, REQUESTS_MAX = 500 };

struct body {
	weft_pid pid;
	bool spawned, has_destructor;
	unsigned runs, ends, destroyed;
};

static struct {
	weft_rt *rt;
	struct body bodies[BODIES_MAX];
	unsigned posted, posts_run;
} s;

/* Of all schedules with one request: which it is, and whether it came to that in any. */
static unsigned request;
static bool requested;

static void setup(void)
{
	sim_runtime_reset();
	memset(&s, 0, sizeof(s));
	sim_runtime_fail_at(request);
}

static void check(void)
{
	requested |= sim_runtime_has_failed();
	for (unsigned i = 0; i < BODIES_MAX; i++) {
		const struct body *body = &s.bodies[i];

		sim_check(body->runs <= body->spawned && body->ends == body->runs,
			"process %u: %s, %u runs, %u ends", i,
			body->spawned ? "spawned" : "refused", body->runs, body->ends);
		sim_check(body->runs == body->spawned || sim_runtime_has_failed(),
			"process %u never ran, and nothing failed", i);
		sim_check(body->destroyed == (body->spawned && body->has_destructor),
			"the argument of process %u is destroyed %u times", i, body->destroyed);
	}
	sim_check(s.posted == s.posts_run, "%u posts, %u were run", s.posted, s.posts_run);
	sim_runtime_check();
}

/* 0, or an error for the lack of something, which there was. */
static bool is_done(int r, const char *call)
{
	if (r == 0)
		return true;
	sim_check(r == -ENOMEM || r == -EAGAIN || r == -EMFILE, "%s: %d", call, r);
	sim_check(sim_runtime_has_failed(), "%s: %d, and nothing failed", call, r);
	return false;
}

static bool create_with(unsigned workers, unsigned flags)
{
	struct weft_rt_opts opts = *sim_runtime_opts(workers);

	opts.flags = flags;
	return is_done(weft_rt_create(&opts, &s.rt), "weft_rt_create");
}

static bool create(unsigned workers)
{
	return create_with(workers, 0);
}

static void destroy(void)
{
	int r = weft_rt_stop(s.rt, 0, WEFT_FOREVER);

	sim_check(r == 0, "weft_rt_stop: %d", r);
	r = weft_rt_destroy(s.rt, WEFT_FOREVER);
	sim_check(r == 0, "weft_rt_destroy: %d", r);
}

static int number_of(const struct body *body)
{
	return (int)(body - s.bodies);
}

static int leaf(void *arg)
{
	struct body *body = arg;

	sim_check(++body->runs == 1, "it runs twice");
	sim_check(++body->ends == 1, "it ends twice");
	return number_of(body);
}

static void destroyed(void *arg)
{
	struct body *body = arg;

	sim_check(body->runs == body->ends, "its argument is destroyed while it runs");
	body->destroyed++;
}

/* Its result, or -ENOMEM if it never ran. */
static void join(struct body *body)
{
	int result = -1;
	int r = weft_join(body->pid, &result, WEFT_FOREVER);

	sim_check(r == 0, "weft_join: %d", r);
	sim_check(result == (body->runs ? number_of(body) : -ENOMEM), "result %d", result);
	sim_check(body->runs || sim_runtime_has_failed(), "it never ran, and nothing failed");
}

static void spawn_foreign(struct body *body, weft_fn fn, const struct weft_spawn_opts *opts)
{
	body->has_destructor = opts != NULL && opts->arg_dtor != NULL;
	body->spawned = true;
	body->spawned = is_done(
		weft_rt_spawn(s.rt, fn, body, opts, &body->pid), "weft_rt_spawn");
}

/* --- scenarios --- */

static void start(unsigned workers)
{
	if (create(workers))
		destroy();
}

static void start_one(unsigned unused)
{
	(void)unused;
	start(1);
}

static void start_two(unsigned unused)
{
	(void)unused;
	start(2);
}

static void start_three(unsigned unused)
{
	(void)unused;
	start(3);
}

static const struct weft_spawn_opts kinds[] = {
	{.size = sizeof(struct weft_spawn_opts)},
	{.size = sizeof(struct weft_spawn_opts), .name = "named", .arg_dtor = destroyed},
	{.size = sizeof(struct weft_spawn_opts), .flags = WEFT_STACK_NOW, .arg_dtor = destroyed},
	{.size = sizeof(struct weft_spawn_opts), .stack_size = 65536, .flags = WEFT_MOVABLE},
};

/* One more in two steps; if it cannot be committed the reservation stands, and is given up. */
static void reserve(struct body *body)
{
	if (!is_done(weft_spawn_reserve(&body->pid), "weft_spawn_reserve"))
		return;
	body->has_destructor = true;
	body->spawned = true;
	if (is_done(weft_spawn_commit(body->pid, leaf, body, &kinds[1]), "weft_spawn_commit")) {
		join(body);
		return;
	}
	body->spawned = false;
	sim_check(weft_spawn_abort(body->pid) == 0, "weft_spawn_abort");
}

static int parent(void *arg)
{
	struct body *self = arg;

	sim_check(++self->runs == 1, "it runs twice");
	for (unsigned i = 0; i < WF_ARRAY_COUNT(kinds); i++) {
		struct body *child = &s.bodies[1 + i];

		child->has_destructor = kinds[i].arg_dtor != NULL;
		child->spawned = true; /* it may run before the call returns */
		child->spawned = is_done(
			weft_spawn_with(leaf, child, &kinds[i], &child->pid), "weft_spawn_with");
		if (child->spawned)
			join(child);
	}
	reserve(&s.bodies[5]);
	sim_check(++self->ends == 1, "it ends twice");
	return number_of(self);
}

static void spawn_and_join(unsigned unused)
{
	(void)unused;
	if (!create(2))
		return;
	spawn_foreign(&s.bodies[0], parent, NULL);
	if (s.bodies[0].spawned)
		join(&s.bodies[0]);
	destroy();
}

/* Guards that cost a mapping each may be refused. */
static void spawn_guarded(unsigned unused)
{
	(void)unused;
	if (!create_with(2, WEFT_RT_GUARD_MPROTECT))
		return;
	spawn_foreign(&s.bodies[0], parent, NULL);
	if (s.bodies[0].spawned)
		join(&s.bodies[0]);
	destroy();
}

static void posted(void *unused)
{
	(void)unused;
	s.posts_run++;
}

/* From a thread of no runtime: spawns, posts, all that is done with an id. */
static void call(unsigned unused)
{
	int result, r;

	(void)unused;
	if (!create(2))
		return;
	for (unsigned i = 0; i < WF_ARRAY_COUNT(kinds); i++)
		spawn_foreign(&s.bodies[i], leaf, &kinds[i]);
	if (is_done(weft_post(s.rt, posted, NULL), "weft_post"))
		s.posted++;
	for (unsigned i = 0; i < WF_ARRAY_COUNT(kinds); i++) {
		if (!s.bodies[i].spawned)
			continue;
		r = weft_wake(s.bodies[i].pid);
		sim_check(r == 0 || r == -ESRCH, "weft_wake: %d", r);
		r = weft_try_join(s.bodies[i].pid, &result);
		sim_check(r == 0 || r == -EAGAIN, "weft_try_join: %d", r);
		if (r == -EAGAIN)
			join(&s.bodies[i]);
	}
	destroy();
}

static int sleeper(void *arg)
{
	struct body *body = arg;

	sim_check(++body->runs == 1, "it runs twice");
	while (weft_park(WEFT_FOREVER) == 0)
		;
	sim_check(++body->ends == 1, "it ends twice");
	return number_of(body);
}

/* A stop among processes that wait, or have not begun. */
static void stop(unsigned unused)
{
	(void)unused;
	if (!create(3))
		return;
	for (unsigned i = 0; i < WF_ARRAY_COUNT(kinds); i++)
		spawn_foreign(&s.bodies[i], sleeper, &kinds[i]);
	destroy();
}

/* --- each request in turn --- */

static void must_survive(const char *name, void (*thread)(unsigned number))
{
	const struct sim_scenario scenario = {name, 1, setup, thread, NULL, check, STEPS_MAX};
	struct sim_statistics statistics;
	uint64_t schedules = 0;

	if (sim_lists())
		return;
	requested = true;
	for (request = 1; requested && request < REQUESTS_MAX; request++) {
		requested = false;
		if (!sim_passes(&scenario, SEEDS, &statistics)) {
			printf("  while request %u fails\n", request);
			return;
		}
		schedules += statistics.schedules;
	}
	sim_expect(request > 2, "%s: there was nothing to fail", name);
	sim_expect(!requested, "%s: more requests than %d", name, REQUESTS_MAX);
	printf("  %-34s %9" PRIu64 " schedules, %u requests, each failing in %d\n", name, schedules,
		request - 2, SEEDS);
}

SIM_TEST(faults, a_start_that_fails_leaves_nothing)
{
	must_survive("start, 1 worker", start_one);
	must_survive("start, 2 workers", start_two);
	must_survive("start, 3 workers", start_three);
}

SIM_TEST(faults, a_spawn_that_fails_leaves_nothing)
{
	must_survive("spawn, join", spawn_and_join);
	must_survive("spawn, join, guards by mprotect", spawn_guarded);
}

SIM_TEST(faults, a_foreign_call_that_fails_leaves_nothing)
{
	must_survive("foreign calls", call);
}

SIM_TEST(faults, a_stop_ends_what_could_be_made)
{
	must_survive("stop", stop);
}

/* --- planted --- */

static void setup_any(void)
{
	request = 1 + sim_random(40);
	setup();
}

static const struct sim_scenario spawning_any = {"spawn, join, any request fails", 1, setup_any,
	spawn_and_join, NULL, check, STEPS_MAX};

SIM_TEST(faults, planted_memory_of_a_refused_spawn_kept)
{
	sim_must_find_saying(
		&spawning_any, WF_PLANTED_spawn_keeps_ext, 2000, "are not freed");
}

SIM_TEST(faults, planted_refused_spawn_counted)
{
	sim_must_find_saying(
		&spawning_any, WF_PLANTED_spawn_stays_counted, 2000, "everybody sleeps");
}
