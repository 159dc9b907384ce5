/*
 * bench_runtime.c: opens a runtime for a workload and closes it, see bench_runtime.h.
 */
#include "perf/bench_runtime.h"

#include <pthread.h>
#include <stdio.h>

static const enum weft_idle idles[BENCH_IDLE_COUNT] = {
	[BENCH_IDLE_NONE] = WEFT_IDLE_DEFAULT,
	[BENCH_IDLE_SPIN] = WEFT_IDLE_SPIN,
	[BENCH_IDLE_PARK] = WEFT_IDLE_PARK,
	[BENCH_IDLE_ADAPTIVE] = WEFT_IDLE_ADAPTIVE,
};

int bench_runtime_open(const struct bench_args *args, weft_rt **rt_out)
{
	struct weft_error failure = {0};
	struct weft_rt_opts opts = {
		.size = sizeof(opts),
		.name = "bench",
		.workers = args->workers,
		.pin = WEFT_PIN_ON,
		.idle = idles[args->idle],
		.driver = args->driver,
		.error = &failure,
	};
	int error = weft_rt_create(&opts, rt_out);

	if (error < 0)
		fprintf(stderr, "bench: no runtime: %s\n",
			failure.text[0] ? failure.text : weft_strerror(error));
	return error;
}

int bench_runtime_close(weft_rt *rt)
{
	int error = weft_rt_run(rt);
	int destroyed = weft_rt_destroy(rt, weft_after(WEFT_SEC(10)));

	return error < 0 ? error : destroyed;
}

int bench_runtime_run(const struct bench_args *args, weft_fn fn, void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts), .worker = WEFT_WORKER(0)};
	weft_rt *rt;
	weft_pid pid;
	int result = 0, error = bench_runtime_open(args, &rt), closed;

	if (error < 0)
		return error;
	error = weft_rt_spawn(rt, fn, arg, &opts, &pid);
	if (error == 0)
		error = weft_join(pid, &result, WEFT_FOREVER);
	closed = bench_runtime_close(rt);
	if (error == 0)
		error = closed;
	return error < 0 ? error : result;
}

struct foreign {
	void (*fn)(void *arg);
	void *arg;
	unsigned cpu;
};

static void *foreign_main(void *context)
{
	const struct foreign *foreign = context;

	BENCH_CHECK(bench_pin(foreign->cpu) == 0);
	foreign->fn(foreign->arg);
	return NULL;
}

int bench_foreign_run(const struct bench_args *args, void (*fn)(void *arg), void *arg)
{
	struct foreign foreign = {fn, arg, args->workers};
	pthread_t thread;
	int error = pthread_create(&thread, NULL, foreign_main, &foreign);

	if (error == 0)
		error = pthread_join(thread, NULL);
	return -error;
}
