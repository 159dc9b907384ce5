/*
 * main.c: weft_main(): options from the environment, a runtime, its first process. The calling
 * thread is the coordinator (coordinator.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"
#include "core/log.h"
#include "core/runtime.h"

static int environment_idle(struct weft_rt_opts *opts)
{
	static const char *const names[] = { NULL, "adaptive", "park", "spin" };
	const char *value = getenv("WEFT_IDLE");

	if (!value || opts->idle != WEFT_IDLE_DEFAULT)
		return 0;
	for (unsigned i = 1; i < WF_ARRAY_COUNT(names); i++)
		if (strcmp(value, names[i]) == 0) {
			opts->idle = (enum weft_idle)i;
			return 0;
		}
	return -EINVAL;
}

static int environment_workers(struct weft_rt_opts *opts)
{
	const char *value = getenv("WEFT_WORKERS");
	char *end;
	unsigned long count;

	if (!value || opts->workers != 0)
		return 0;
	count = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end != '\0' || count == 0 || count > 100000)
		return -EINVAL;
	opts->workers = (unsigned)count;
	return 0;
}

/* log.c reads it; here only so that a slip of the pen is not taken for silence. */
static bool environment_log_is_known(const struct weft_rt_opts *opts)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	const char *value = getenv("WEFT_LOG");

	for (unsigned i = 0; i < WF_ARRAY_COUNT(names) && value && !opts->log; i++)
		if (strcmp(value, names[i]) == 0)
			return true;
	return !value || opts->log;
}

static int from_environment(struct weft_rt_opts *opts)
{
	if (!opts->cpus)
		opts->cpus = getenv("WEFT_CPUS");
	if (!opts->driver)
		opts->driver = getenv("WEFT_DRIVER");
	if (environment_workers(opts) < 0)
		return wf_complain(
			opts, "options", -EINVAL, "WEFT_WORKERS is not a number of workers");
	if (environment_idle(opts) < 0)
		return wf_complain(
			opts, "options", -EINVAL, "WEFT_IDLE is none of adaptive, park, spin");
	if (!environment_log_is_known(opts))
		return wf_complain(opts, "options", -EINVAL,
			"WEFT_LOG is none of error, warn, info, debug");
	return 0;
}

/* The runtime that owns the signals, with fn(arg) as its first process, until it has ended. */
static int run(const struct weft_rt_opts *opts, weft_fn fn, void *arg)
{
	struct weft_spawn_opts spawn = { .size = sizeof spawn, .name = "main" };
	struct weft_error error;
	int result = 0;
	weft_pid pid;
	weft_rt *rt;
	int r = weft_rt_create(opts, &rt);

	if (r < 0)
		return r;
	rt->coordinator.is_main = true;
	r = weft_rt_spawn(rt, fn, arg, &spawn, &pid);
	if (r < 0) {
		wf_rt_error(rt, -1, "main", r, "the first process cannot be made");
	} else {
		(void)weft_rt_start(rt);
		r = wf_coordinator_serve(rt);
		if (r < 0) {
			wf_coordinator_release(rt);
			return r; /* something still runs: nothing may be freed */
		}
		(void)weft_try_join(pid, &result);
		r = result;
	}
	if (weft_rt_error(rt, 0, &error) == 0) {
		r = error.error;
		if (opts->error)
			*opts->error = error;
	}
	(void)weft_rt_destroy(rt, WEFT_FOREVER);
	return r;
}

int weft_main(const struct weft_rt_opts *opts, weft_fn fn, void *arg)
{
	struct weft_rt_opts own = { .size = sizeof own };
	int saved = errno;
	int r;

	if (!fn)
		return wf_complain(&own, "options", -EINVAL, "weft_main() needs a function");
	r = opts ? wf_opts_read(opts, opts->size, &own, sizeof own) : 0;
	if (r < 0)
		return wf_complain(&own, "options", r, WF_OPTS_SIZE_TEXT);
	if (wf_worker_self())
		return wf_complain(&own, "options", -EDEADLK, "weft_main() inside a runtime");
	if (own.flags & WEFT_RT_EMBEDDED)
		return wf_complain(&own, "options", -EINVAL,
			"weft_main() has threads of its own: use weft_rt_create()");
	own.size = sizeof own;
	if (own.pin == WEFT_PIN_DEFAULT)
		own.pin = WEFT_PIN_ON;
	own.flags |= WEFT_RT_GUARD_REPORT | WEFT_RT_STALL_BACKTRACE | WEFT_RT_SIGNALS;
	r = from_environment(&own);
	if (r < 0)
		return r;
	r = run(&own, fn, arg);
	errno = saved;
	return r;
}
