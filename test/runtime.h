/*
 * runtime.h: runtimes for tests. Functions for processes and foreign threads that wait for a
 * condition: the test's .timeout is the only limit.
 */
#ifndef WF_TEST_RUNTIME_H
#define WF_TEST_RUNTIME_H

#include <weft.h>

#include <sched.h>

#include "sync/atomic.h"
#include "test/harness.h"

/* Turns the calling process (UNTIL) or foreign thread (UNTIL_FOREIGN) until the condition holds. */
#define UNTIL(condition)              \
	do {                          \
		while (!(condition))  \
			weft_yield(); \
	} while (0)
#define UNTIL_FOREIGN(condition)       \
	do {                           \
		while (!(condition))   \
			sched_yield(); \
	} while (0)

static inline weft_rt *runtime_new_with(const struct weft_rt_opts *opts)
{
	struct weft_error error = {0};
	struct weft_rt_opts with_error = *opts;
	weft_rt *rt = NULL;

	with_error.size = sizeof with_error;
	if (!with_error.error)
		with_error.error = &error;
	cr_assert_eq(weft_rt_create(&with_error, &rt), 0, "%s", error.text);
	cr_assert_not_null(rt);
	return rt;
}

static inline weft_rt *runtime_new(unsigned workers)
{
	return runtime_new_with(&(struct weft_rt_opts){.workers = workers});
}

static inline void runtime_end(weft_rt *rt)
{
	cr_assert_eq(weft_rt_destroy(rt, WEFT_FOREVER), 0);
}

/* Runs fn(arg) as a process of `rt` and returns its result. From a foreign thread. */
static inline int runtime_do(weft_rt *rt, weft_fn fn, void *arg)
{
	weft_pid pid;
	int result = 0;

	cr_assert_eq(weft_rt_spawn(rt, fn, arg, NULL, &pid), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	return result;
}

/* The same in a runtime of its own. */
static inline int in_runtime(unsigned workers, weft_fn fn, void *arg)
{
	weft_rt *rt = runtime_new(workers);
	int result = runtime_do(rt, fn, arg);

	runtime_end(rt);
	return result;
}

static inline weft_pid spawned(weft_fn fn, void *arg)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_spawn(fn, arg, &pid), 0);
	return pid;
}

static inline weft_pid spawned_with(weft_fn fn, void *arg, unsigned flags, unsigned worker)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags, .worker = worker};
	weft_pid pid = {0};

	cr_assert_eq(weft_spawn_with(fn, arg, &opts, &pid), 0);
	return pid;
}

static inline int joined(weft_pid pid)
{
	int result = 0;

	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	return result;
}

/* Processes: parks until woken or cancelled; what weft_park() returned is the result. */
static inline int parks(void *arg)
{
	(void)arg;
	return weft_park(WEFT_FOREVER);
}

/* Returns the number `arg` points to. */
static inline int returns(void *arg)
{
	return *(int *)arg;
}

static inline void count_one(void *counter)
{
	wf_u32_fetch_add(counter, 1);
}

#endif
