/*
 * testing.c: <weft/test.h>: an embedded runtime with a virtual clock, an allocator that can fail,
 * and loops that step it.
 *
 * A turn runs one process here. So no process leads to the next by itself (D1 to D3 of
 * core/README.md): steps are counted exactly, and each process that begins takes a stack.
 */
#include <errno.h>
#include <string.h>

#include "core/embed.h"
#include "core/forced.h"
#include "core/internal.h"
#include "core/log.h"
#include "core/memory.h"

#define FAILURES (WEFT_TEST_PROCESS + 1)

struct wf_forced {
	struct weft_allocator wrapper; /* what the runtime uses; its ctx is this struct */
	struct weft_allocator inner;
	wf_atomic_u32 left[FAILURES];  /* how many until one fails; 0: none does */
};

/* --- failures --- */

bool wf_forced_count(struct wf_forced *forced, enum weft_test_failure what)
{
	uint32_t left = wf_u32_load_relaxed(&forced->left[what]);

	while (left > 0)
		if (wf_u32_cas(&forced->left[what], &left, left - 1))
			return left == 1;
	return false;
}

static void *allocate(void *ctx, size_t alignment, size_t size)
{
	struct wf_forced *forced = ctx;

	if (wf_forced_count(forced, WEFT_TEST_ALLOCATION))
		return NULL;
	return forced->inner.allocate(forced->inner.ctx, alignment, size);
}

static void release(void *ctx, void *memory, size_t size)
{
	struct wf_forced *forced = ctx;

	forced->inner.release(forced->inner.ctx, memory, size);
}

static struct wf_forced *forced_make(const struct weft_allocator *asked)
{
	const struct weft_allocator *inner = asked ? asked : &wf_default_allocator;
	int saved = errno;
	struct wf_forced *forced =
		inner->allocate(inner->ctx, _Alignof(struct wf_forced), sizeof *forced);

	errno = saved;
	if (!forced)
		return NULL;
	memset(forced, 0, sizeof *forced);
	forced->inner = *inner;
	forced->wrapper = (struct weft_allocator){ allocate, release, forced };
	return forced;
}

void wf_forced_free(struct wf_forced *forced)
{
	struct weft_allocator inner;

	if (!forced)
		return;
	inner = forced->inner;
	inner.release(inner.ctx, forced, sizeof *forced);
}

static bool is_kind(enum weft_test_failure what)
{
	return (unsigned)what < FAILURES;
}

int weft_test_fail(weft_rt *rt, enum weft_test_failure what, unsigned nth)
{
	if (!rt->forced || !is_kind(what))
		return -EINVAL;
	wf_u32_store_relaxed(&rt->forced->left[what], nth);
	return 0;
}

unsigned weft_test_failing(const weft_rt *rt, enum weft_test_failure what)
{
	return rt->forced && is_kind(what) ? wf_u32_load_relaxed(&rt->forced->left[what]) : 0;
}

/* --- create --- */

/* `opts` is a copy, complete. */
static int create(struct weft_rt_opts *opts, const struct weft_virtual_opts *threads,
	weft_rt **rt_out)
{
	struct wf_rt_testing testing = { forced_make(opts->allocator), threads };
	int r;

	if (!testing.forced)
		return wf_complain(opts, "runtime", -ENOMEM, "no memory for a runtime");
	opts->size = sizeof *opts;
	opts->allocator = &testing.forced->wrapper;
	if (!opts->driver)
		opts->driver = "mem";
	r = wf_rt_create_testing(opts, &testing, rt_out);
	if (r < 0)
		wf_forced_free(testing.forced);
	return r;
}

int weft_test_create(const struct weft_rt_opts *opts, weft_rt **rt_out)
{
	struct weft_rt_opts own = { .size = sizeof own };
	int r = opts ? wf_opts_read(opts, opts->size, &own, sizeof own) : 0;

	if (r < 0)
		return wf_complain(&own, "options", r, WF_OPTS_SIZE_TEXT);
	own.flags |= WEFT_RT_EMBEDDED;
	return create(&own, NULL, rt_out);
}

int weft_virtual_create(const struct weft_rt_opts *opts,
	const struct weft_virtual_opts *virtual_opts, weft_rt **rt_out)
{
	struct weft_rt_opts own = { .size = sizeof own };
	struct weft_virtual_opts threads = { .size = sizeof threads };
	int r = opts ? wf_opts_read(opts, opts->size, &own, sizeof own) : 0;

	if (r == 0 && virtual_opts)
		r = wf_opts_read(virtual_opts, virtual_opts->size, &threads, sizeof threads);
	if (r < 0)
		return wf_complain(&own, "options", r, WF_OPTS_SIZE_TEXT);
	if (own.flags & WEFT_RT_EMBEDDED)
		return wf_complain(&own, "options", -EINVAL,
			"an embedded runtime has one worker, and weft_test_create()");
	own.idle = WEFT_IDLE_PARK;
	return create(&own, &threads, rt_out);
}

/* --- running --- */

static uint64_t run_count(const struct weft_rt *rt)
{
	return wf_u64_load_relaxed(&rt->workers[0].counters.picks);
}

/* At the present time. The last step: BUSY only if `count` processes have run. */
static enum wf_step run_steps(struct weft_rt *rt, uint64_t count)
{
	uint64_t end = run_count(rt) + count;
	enum wf_step step = WF_STEP_BUSY;

	while (step == WF_STEP_BUSY && run_count(rt) != end)
		step = wf_embed_step(rt, 1);
	return step;
}

static int enter(struct weft_rt *rt)
{
	return rt->forced ? wf_embed_enter(rt) : -EINVAL;
}

/* How many have run since `before`. */
static int64_t leave(struct weft_rt *rt, uint64_t before)
{
	uint64_t count = run_count(rt) - before;

	(void)wf_embed_leave(rt);
	return (int64_t)count;
}

int64_t weft_test_step(weft_rt *rt, unsigned count)
{
	int r = enter(rt);
	uint64_t before;

	if (r < 0)
		return r;
	before = run_count(rt);
	(void)run_steps(rt, count);
	return leave(rt, before);
}

int64_t weft_test_run_until_idle(weft_rt *rt)
{
	int r = enter(rt);
	uint64_t before;

	if (r < 0)
		return r;
	before = run_count(rt);
	(void)run_steps(rt, UINT64_MAX);
	return leave(rt, before);
}

int64_t weft_test_advance(weft_rt *rt, weft_time duration_ns)
{
	int r = enter(rt);
	weft_time limit;
	uint64_t before;

	if (r < 0)
		return r;
	before = run_count(rt);
	limit = wf_time_after(wf_rt_now(rt), duration_ns);
	while (run_steps(rt, UINT64_MAX) == WF_STEP_IDLE && wf_rt_now(rt) < limit)
		if (!wf_embed_pass(rt, limit))
			break;
	return leave(rt, before);
}

/* Idle: how weft_test_run() ends here; 1: it goes on. */
static int conclude(struct weft_rt *rt, weft_time limit)
{
	if (wf_embed_is_held(rt))
		return 1;
	if (wf_life_alive(rt) == 0)
		return 0;
	if (wf_rt_now(rt) >= limit)
		return -ETIME;
	return wf_worker_next_due(&rt->workers[0]) == WEFT_FOREVER ? -EDEADLK : 1;
}

int weft_test_run(weft_rt *rt, weft_time limit_ns)
{
	int r = enter(rt);
	weft_time limit;

	if (r < 0)
		return r;
	limit = wf_time_after(wf_rt_now(rt), limit_ns);
	do {
		if (run_steps(rt, UINT64_MAX) == WF_STEP_ENDED)
			r = 0;
		else
			r = conclude(rt, limit);
		if (r > 0)
			(void)wf_embed_pass(rt, limit);
	} while (r > 0);
	(void)wf_embed_leave(rt);
	return r;
}

weft_time weft_test_now(const weft_rt *rt)
{
	return wf_rt_now(rt);
}

struct weft_wall weft_test_wall(const weft_rt *rt)
{
	return wf_rt_wall(rt);
}

int weft_test_step_wall(weft_rt *rt, weft_time delta_ns)
{
	uint64_t before = wf_u64_load_relaxed(&rt->wall_ahead);
	int64_t ahead;

	if (!rt->forced)
		return -EINVAL;
	do {
		if (__builtin_add_overflow((int64_t)before, delta_ns, &ahead))
			return -ERANGE;
	} while (!wf_u64_cas(&rt->wall_ahead, &before, (uint64_t)ahead));
	return 0;
}

uint64_t weft_test_alive(const weft_rt *rt)
{
	return wf_life_alive(rt);
}
