/*
 * Goal: whatever kinds of processes there are, whatever they are doing when the runtime is stopped:
 * each that was accepted runs its cleanups, destroys its value and drops its argument once, and the
 * hooks and the allocator are told of as many ends as beginnings.
 * Method: two threads and the processes themselves spawn up to 10,000 of random kinds: fibers and
 * tasks that move or not, detached, suspended, reserved, children of scopes, of any priority;
 * which wait in random ways, wake, cancel and join each other, call blocking work, fail. A stop
 * comes at a random moment, from outside or inside. Counts decide.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/runtime.h"

enum {
	BEINGS = 10000 / HARNESS_SLOWDOWN,
	SEEDS = 20,
	CHILDREN_MAX = 4,
};

enum way { NEVER_SPAWNED, REFUSED, ACCEPTED };

struct being {
	wf_atomic_u64 pid; /* for the others; a guess: it may have ended */
	wf_atomic_u32 begun, cleaned, destroyed, dropped, way;
	uint64_t random; /* its own, from its number and the seed */
	struct weft_deferred defers[2];
	int steps; /* a task's: those left */
	bool started;
};

static struct being beings[BEINGS];

static struct {
	weft_rt *rt;
	weft_local key;
	uint64_t seed;
	wf_atomic_u32 next, accepted, ended, spawned, hook_ended, jobs, jobs_dropped, jobs_posted;
	wf_atomic_u32 spawners;
	uint32_t stop_at;
	bool stop_inside;
} world;

static wf_atomic_u64 in_use;

static void *allocate(void *ctx, size_t alignment, size_t size)
{
	void *memory = NULL;

	(void)ctx;
	if (posix_memalign(&memory, alignment, size) != 0)
		return NULL;
	wf_u64_fetch_add(&in_use, size);
	return memory;
}

static void release(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	wf_u64_fetch_add(&in_use, -(uint64_t)size);
	free(memory);
}

static void hook_spawn(void *ctx, weft_pid pid)
{
	(void)ctx;
	cr_assert(!weft_pid_is_none(pid));
	wf_u32_fetch_add(&world.spawned, 1);
}

static void hook_end(void *ctx, const struct weft_exit *exit)
{
	(void)ctx;
	cr_assert(!weft_pid_is_none(exit->pid));
	wf_u32_fetch_add(&world.hook_ended, 1);
}

static const struct weft_hooks hooks = {
	.size = sizeof hooks, .process_spawn = hook_spawn, .process_end = hook_end};

/* ---- What a being leaves ------------------------------------------------------------------ */

static unsigned below(struct being *being, unsigned bound)
{
	return (unsigned)harness_random_below(&being->random, bound);
}

static void cleans(void *arg)
{
	struct being *being = arg;

	wf_u32_fetch_add(&being->cleaned, 1);
	if (below(being, 8) == 0)
		weft_fail(-EIO, "in a cleanup");
}

/* A fiber's may wait, if it is shielded. */
static void cleans_slowly(void *arg)
{
	struct being *being = arg;

	if (below(being, 4) == 0) {
		cr_assert_eq(weft_shield_begin(), 0);
		cr_assert_eq(weft_sleep_until(weft_after(WEFT_US(50))), 0);
		cr_assert_eq(weft_shield_end(), 0);
	}
	cleans(arg);
}

static void destroyed(void *value)
{
	wf_u32_fetch_add(&((struct being *)value)->destroyed, 1);
}

static void dropped(void *arg)
{
	wf_u32_fetch_add(&((struct being *)arg)->dropped, 1);
	wf_u32_fetch_add(&world.ended, 1);
}

static void begins(struct being *being, void (*second)(void *arg))
{
	wf_u32_fetch_add(&being->begun, 1);
	cr_assert_eq(weft_local_set(world.key, being), 0);
	cr_assert_eq(weft_defer(&being->defers[0], cleans, being), 0);
	cr_assert_eq(weft_defer(&being->defers[1], second, being), 0);
}

static int ends(struct being *being)
{
	switch (below(being, 5)) {
	case 0:
		weft_fail(-EPROTO, "being %d", (int)(being - beings));
	case 1:
		return -EIO;
	default:
		return 0;
	}
}

/* ---- What it does ------------------------------------------------------------------------- */

static weft_pid somebody(struct being *being)
{
	uint32_t born = wf_u32_load_relaxed(&world.next);
	unsigned bound = born < BEINGS ? born : BEINGS;

	return (weft_pid){bound ? wf_u64_load_relaxed(&beings[below(being, bound)].pid) : 0};
}

static weft_time soon(struct being *being)
{
	return below(being, 4) ? weft_after(WEFT_US(below(being, 300))) : WEFT_FOREVER;
}

static int job(void *arg)
{
	(void)arg;
	wf_u32_fetch_add(&world.jobs, 1);
	return 0;
}

static void job_dropped(void *arg)
{
	(void)arg;
	wf_u32_fetch_add(&world.jobs_dropped, 1);
}

static void posts_job(void)
{
	struct weft_blocking_opts opts = {.size = sizeof opts, .arg_dtor = job_dropped};

	if (weft_blocking_post(world.rt, job, NULL, &opts) == 0)
		wf_u32_fetch_add(&world.jobs_posted, 1);
}

static bool spawn_one(struct being *from, struct weft_scope *scope, bool inside);

/* The stop from inside, by whoever passes the moment. */
static void may_stop(void)
{
	if (world.stop_inside && wf_u32_load_relaxed(&world.next) >= world.stop_at)
		cr_assert_eq(weft_rt_stop(world.rt, 0, 0), 0);
}

static void opens_a_scope(struct being *being)
{
	struct weft_scope_opts opts = {
		.size = sizeof opts, .flags = below(being, 2) ? WEFT_SCOPE_COLLECT : 0};
	struct weft_scope scope;
	int r;

	if (weft_scope_open(&scope, &opts) < 0)
		return;
	for (unsigned i = below(being, CHILDREN_MAX) + 1; i > 0; i--)
		(void)spawn_one(being, &scope, true);
	if (below(being, 8) == 0)
		weft_fail(-ECHILD, "with a scope open");
	if (below(being, 2))
		(void)weft_scope_wait(&scope, soon(being));
	if (below(being, 2))
		(void)weft_scope_cancel(&scope);
	r = weft_scope_close(&scope);
	cr_assert_leq(r, 0);
}

/* What both kinds can do, and that never waits. */
static void acts(struct being *being)
{
	switch (below(being, 6)) {
	case 0:
		(void)weft_wake(somebody(being));
		break;
	case 1:
		(void)weft_cancel(somebody(being));
		break;
	case 2:
		(void)weft_try_join(somebody(being), NULL);
		break;
	case 3:
		(void)spawn_one(being, NULL, true);
		break;
	case 4:
		if (below(being, 8) == 0)
			posts_job();
		break;
	default:
		(void)weft_trace_set(below(being, 3));
	}
	may_stop();
}

static int lives(void *arg)
{
	struct being *being = arg;

	begins(being, cleans_slowly);
	for (unsigned steps = below(being, 5); steps > 0; steps--) {
		acts(being);
		switch (below(being, 16)) {
		case 0:
			opens_a_scope(being);
			break;
		case 1:
			(void)weft_blocking(job, NULL, NULL, soon(being));
			break;
		case 2:
			if (below(being, 8) == 0)
				(void)weft_block_in_place(job, NULL, NULL);
			break;
		case 3:
		case 4:
			(void)weft_join(somebody(being), NULL, soon(being));
			break;
		case 5:
			cr_assert_eq(weft_shield_begin(), 0);
			(void)weft_sleep_until(weft_after(WEFT_US(below(being, 50))));
			if (below(being, 2))
				return ends(being); /* which ends the shield */
			cr_assert_eq(weft_shield_end(), 0);
			break;
		case 6:
		case 7:
			(void)weft_park(soon(being));
			break;
		case 8:
			(void)weft_sleep_until(soon(being));
			break;
		default:
			(void)weft_yield();
		}
	}
	return ends(being);
}

/* Arms up to three things; what came of them does not matter. Cancelled, it ends. */
static int lives_as_task(void *arg)
{
	struct being *being = arg;

	if (!being->started) {
		being->started = true;
		begins(being, cleans);
		being->steps = (int)below(being, 5);
	}
	while (being->steps-- > 0) {
		int r = 0;

		acts(being);
		for (unsigned n = below(being, 3) + 1; n > 0 && r != -ECANCELED; n--)
			switch (below(being, 4)) {
			case 0:
				r = weft_park(soon(being));
				break;
			case 1:
				r = weft_sleep_until(soon(being));
				break;
			case 2:
				r = weft_join(somebody(being), NULL, soon(being));
				break;
			default:
				r = weft_yield();
			}
		if (r == WEFT_PENDING)
			return r;
		if (r == -ECANCELED)
			break;
	}
	return ends(being);
}

/* ---- How it begins ------------------------------------------------------------------------ */

static struct weft_spawn_opts draw_opts(struct being *being, bool task)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = dropped};

	if (below(being, 2))
		opts.flags |= task ? WEFT_PINNED : WEFT_MOVABLE;
	if (below(being, 8) == 0)
		opts.flags |= WEFT_SUSPENDED;
	if (!task && below(being, 16) == 0)
		opts.flags |= WEFT_STACK_NOW;
	if (below(being, 4) == 0)
		opts.worker = WEFT_WORKER(below(being, weft_rt_workers(world.rt)));
	opts.priority =
		below(being, 4) ? WEFT_PRIORITY_NORMAL : (enum weft_priority)(below(being, 2) + 1);
	if (below(being, 8) == 0)
		opts.name = "being";
	if (below(being, 8) == 0)
		opts.trace = 5;
	return opts;
}

/* Reserved, and committed later, or given up. */
static int spawn_reserved(struct being *being, weft_pid *pid_out)
{
	struct weft_spawn_opts opts = draw_opts(being, false);
	int r = weft_spawn_reserve(pid_out);

	if (r < 0)
		return r;
	wf_u64_store_relaxed(&being->pid, pid_out->raw);
	(void)weft_yield();
	if (below(being, 4) == 0) {
		cr_assert_eq(weft_spawn_abort(*pid_out), 0);
		return -ECANCELED;
	}
	if (weft_worker_index() >= 0 && below(being, 2))
		opts.flags |= WEFT_DETACHED;
	cr_assert_eq(weft_spawn_commit(*pid_out, lives, being, &opts), 0);
	return 0;
}

static int spawn_in_scope(struct weft_scope *scope, struct being *being, weft_pid *pid_out)
{
	bool task = below(being, 2);
	struct weft_spawn_opts opts = draw_opts(being, task);

	if (task)
		return weft_scope_task(scope, lives_as_task, being, &opts, pid_out);
	return weft_scope_spawn_with(scope, lives, being, &opts, pid_out);
}

static int spawn_plain(struct being *being, bool inside, weft_pid *pid_out)
{
	bool task = below(being, 2);
	struct weft_spawn_opts opts = draw_opts(being, task);

	if (below(being, 3) == 0)
		opts.flags |= WEFT_DETACHED;
	if (task && inside)
		return weft_task_spawn(lives_as_task, being, &opts, pid_out);
	if (task)
		return weft_rt_task_spawn(world.rt, lives_as_task, being, &opts, pid_out);
	if (inside)
		return weft_spawn_with(lives, being, &opts, pid_out);
	return weft_rt_spawn(world.rt, lives, being, &opts, pid_out);
}

/* False: nobody is left to be born, or the runtime refuses. From a process: `inside`. */
static bool spawn_one(struct being *from, struct weft_scope *scope, bool inside)
{
	uint32_t n = wf_u32_fetch_add(&world.next, 1);
	struct being *being;
	weft_pid pid = {0};
	int r;

	if (n >= BEINGS)
		return false;
	being = &beings[n];
	being->random = world.seed * 1000003 + n;
	if (scope)
		r = spawn_in_scope(scope, being, &pid);
	else if (inside && !from->started && below(being, 8) == 0) /* a fiber: it may yield */
		r = spawn_reserved(being, &pid);
	else
		r = spawn_plain(being, inside, &pid);
	if (r < 0) {
		cr_assert(r == -ESHUTDOWN || r == -ECANCELED || r == -EAGAIN, "%d", r);
		wf_u32_store_relaxed(&being->way, REFUSED);
		return r != -ESHUTDOWN;
	}
	wf_u64_store_relaxed(&being->pid, pid.raw);
	wf_u32_store_relaxed(&being->way, ACCEPTED);
	wf_u32_fetch_add(&world.accepted, 1);
	return true;
}

/* ---- The world ---------------------------------------------------------------------------- */

enum { STOPPER, SPAWNER, SECOND_SPAWNER, MEDDLER, THREADS };

static void stops(uint64_t *random)
{
	weft_time grace = WEFT_US(harness_random_below(random, 2000));

	/* Those that are left wait for each other, or all have ended: then nothing more is born. */
	UNTIL_FOREIGN(wf_u32_load_relaxed(&world.next) >= world.stop_at ||
		      wf_u32_load_relaxed(&world.spawners) == 0);
	cr_assert_eq(weft_rt_stop(world.rt, world.stop_inside ? 0 : grace, WEFT_FOREVER), 0);
}

static void takes_part(unsigned index, void *arg)
{
	struct being self = {.random = world.seed * 77 + index};
	uint64_t *random = &self.random;

	(void)arg;
	if (index == STOPPER) {
		stops(random);
	} else if (index == MEDDLER) {
		while (wf_u32_load_relaxed(&world.spawners) > 0) {
			weft_pid pid = somebody(&self);

			(void)(below(&self, 8) ? weft_wake(pid) : weft_cancel(pid));
			sched_yield();
		}
	} else {
		while (spawn_one(&self, NULL, false))
			if (below(&self, 16) == 0)
				sched_yield();
		wf_u32_fetch_add(&world.spawners, (uint32_t)-1);
	}
}

static void check_being(const struct being *being, unsigned n, uint64_t seed)
{
	bool accepted = wf_u32_load_relaxed(&being->way) == ACCEPTED;
	uint32_t begun = wf_u32_load_relaxed(&being->begun);

	cr_assert_eq(wf_u32_load_relaxed(&being->dropped), accepted, "being %u of seed %lu", n,
		(unsigned long)seed);
	cr_assert_eq(begun, accepted, "being %u of seed %lu", n, (unsigned long)seed);
	cr_assert_eq(wf_u32_load_relaxed(&being->cleaned), 2 * begun, "being %u of seed %lu", n,
		(unsigned long)seed);
	cr_assert_eq(wf_u32_load_relaxed(&being->destroyed), begun, "being %u of seed %lu", n,
		(unsigned long)seed);
}

static void live_and_stop(uint64_t seed, weft_local key)
{
	static const struct weft_allocator allocator = {.allocate = allocate, .release = release};
	uint64_t random = seed;

	memset(beings, 0, sizeof beings);
	memset(&world, 0, sizeof world);
	world.seed = seed;
	world.key = key;
	world.stop_at = (uint32_t)harness_random_below(&random, BEINGS);
	world.stop_inside = harness_random_below(&random, 4) == 0;
	wf_u32_store_relaxed(&world.spawners, 2);
	world.rt = runtime_new_with(&(struct weft_rt_opts){.workers = 1 + (unsigned)(seed % 3),
		.allocator = &allocator,
		.hooks = &hooks,
		.stall_ns = WEFT_FOREVER,
		.blocking_threads_max = 2});
	harness_threads(THREADS, takes_part, NULL);
	runtime_end(world.rt);
	cr_assert_eq(wf_u64_load_relaxed(&in_use), 0u, "seed %lu", (unsigned long)seed);
	for (unsigned n = 0; n < BEINGS; n++)
		check_being(&beings[n], n, seed);
	cr_assert_eq(wf_u32_load_relaxed(&world.spawned), wf_u32_load_relaxed(&world.hook_ended));
	cr_assert_geq(wf_u32_load_relaxed(&world.spawned), wf_u32_load_relaxed(&world.accepted));
	cr_assert_eq(
		wf_u32_load_relaxed(&world.jobs_dropped), wf_u32_load_relaxed(&world.jobs_posted));
}

Test(stress_lives, whoever_lives_when_the_stop_comes_ends_once, .timeout = 300)
{
	weft_local key = {0};

	cr_assert_eq(weft_local_create(&key, destroyed), 0);
	for (uint64_t n = 0; n < SEEDS; n++)
		live_and_stop(harness_seed() + n, key);
}
