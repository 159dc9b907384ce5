/*
 * boot.c: starting and joining workers, in two phases.
 *
 *	B1 each worker, on its own thread: names and pins itself, sets its timer slack, registers
 *	   with RCU, opens its drivers; then reports (workers_booted) and waits for the word;
 *	B2 the starter waits for all reports. If one failed, the word is "unwind": every worker
 *	   undoes its steps and ends, and the first error, with worker and step, is create's;
 *	   otherwise the word is "run", and workers enter their loops.
 *
 * With adaptive idling worker 0 then measures, before its loop, what a park and a wake cost here.
 *
 * The worker of an embedded runtime has no thread of its own: core/embed.c opens and closes it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/embed.h"
#include "core/guard.h"
#include "core/hooks.h"
#include "core/internal.h"
#include "core/registry.h"
#include "timer/clock.h"

enum { BOOT_WAIT, BOOT_RUN, BOOT_UNWIND };

enum {
	CALIBRATION_ROUNDS = 5,
	CALIBRATION_SLEEP_NS = 100000,   /* the sleeper is asleep by then */
	BREAK_EVEN_MIN_NS = 2000,
	BREAK_EVEN_MAX_NS = 100000,
	WORKER_NAME_BYTES = 16,
};

/* "weft/<rt>/<n>" in 15 bytes: the middle is cut. */
static void name_thread(const struct wf_worker *worker)
{
	char name[WORKER_NAME_BYTES];
	int room = WORKER_NAME_BYTES - 1 - (int)strlen("weft/") - (worker->number < 10 ? 2 : 3);

	snprintf(name, sizeof name, "weft/%.*s/%u", room, worker->rt->name, worker->number % 100);
	wf_thread_name(name);
}

/* -> 0, or the error is recorded. explicit pinning that fails is an error, else a warning. */
static int pin(struct wf_worker *worker)
{
	int r;

	if (worker->cpu < 0)
		return 0;
	r = wf_thread_pin(worker->cpu);
	if (r == 0)
		return 0;
	if (worker->rt->cpus_explicit) {
		wf_rt_error(worker->rt, (int)worker->number, "pin", -ENODEV,
			"worker %u cannot be pinned to CPU %d", worker->number, worker->cpu);
		return -ENODEV;
	}
	if (worker->number == 0)
		wf_log(worker->rt, WEFT_LOG_WARN, "workers cannot be pinned, going on without: %s",
			weft_strerror(r));
	worker->cpu = -1;
	return 0;
}

static int open_driver(struct wf_worker *worker, const struct wf_driver *driver)
{
	struct wf_open_driver *open = &worker->drivers[worker->driver_count];
	int r = driver->open(worker, &open->state);

	if (r < 0) {
		wf_rt_error(worker->rt, (int)worker->number, "driver", r,
			"driver %s cannot be opened", driver->name);
		return r;
	}
	open->driver = driver;
	worker->driver_count++;
	return 0;
}

/* The main driver's sleep is to end when this one has something. */
static int watch_driver(struct wf_worker *worker, const struct wf_open_driver *open)
{
	struct wf_open_driver *main = wf_worker_main_driver(worker);
	int fd;
	int r;

	if (worker->rt->idle_mode == WEFT_IDLE_SPIN || !open->driver->descriptor)
		return 0;
	fd = open->driver->descriptor(open->state);
	if (fd < 0)
		return 0;
	r = main->driver->watch ? main->driver->watch(main->state, fd) : -ENOSYS;
	if (r < 0)
		wf_rt_error(worker->rt, (int)worker->number, "driver", r,
			"driver %s cannot be watched by driver %s", open->driver->name,
			main->driver->name);
	return r;
}

/* What is open when one fails is closed by wf_boot_close_drivers(). */
static int open_drivers(struct wf_worker *worker)
{
	const struct wf_driver_set *set = &worker->rt->drivers;
	int r;

	WF_ASSERT(worker->rt->idle_mode == WEFT_IDLE_SPIN ||
		(set->main->caps & WF_DRIVER_CAN_PARK));

	r = open_driver(worker, set->main);
	for (unsigned i = 0; r == 0 && set->polls && set->polls[i]; i++) {
		if (set->polls[i] == set->main)
			continue;
		r = open_driver(worker, set->polls[i]);
		if (r == 0)
			r = watch_driver(worker, &worker->drivers[worker->driver_count - 1]);
	}
	return r;
}

static bool needs_signal_stack(const struct weft_rt *rt)
{
	return (rt->flags & WEFT_RT_GUARD_REPORT) || rt->stall_signal;
}

int wf_boot_open_worker(struct wf_worker *worker)
{
	if (needs_signal_stack(worker->rt)) {
		int r = wf_guard_thread_enter(&worker->guard);

		if (r < 0) {
			wf_rt_error(worker->rt, (int)worker->number, "guard", r,
				"no memory for a signal stack");
			return r;
		}
	}
	return open_drivers(worker);
}

static int open_on_own_thread(struct wf_worker *worker)
{
	int r = pin(worker);

	if (r < 0)
		return r;
	(void)wf_clock_set_slack(1);
	worker->thread_id = wf_thread_number();
	if (worker->rt->stall_signal)
		wf_thread_unblock(worker->rt->stall_signal);
	return wf_boot_open_worker(worker);
}

static void report(struct weft_rt *rt, bool failed)
{
	if (failed)
		wf_u32_store_release(&rt->boot_failed, 1);
	/* B1: release (RMW), with B2 in await_reports(). */
	(void)wf_u32_fetch_add(&rt->workers_booted, 1);
	wf_futex_wake_all(&rt->workers_booted);
}

static uint32_t await_word(struct weft_rt *rt)
{
	uint32_t word;

	while ((word = wf_u32_load_acquire(&rt->ready)) == BOOT_WAIT)
		wf_futex_wait(&rt->ready, BOOT_WAIT, WEFT_FOREVER);
	return word;
}

/* --- calibration --- */

/* Worker 0: sleeps in its driver until it is woken, and says when it was. */
static void calibrate_sleeper(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;
	const struct wf_driver *driver = wf_worker_main_driver(worker)->driver;
	void *state = wf_worker_main_driver(worker)->state;

	for (int i = 0; i < CALIBRATION_ROUNDS; i++) {
		weft_time now = wf_clock_now_ns();

		while (driver->arm && driver->arm(state) == WF_DRIVER_RETRY &&
			!WF_PLANTED(boot_ignores_retry))
			(void)driver->poll(state, WF_IO_BATCH, now);
		wf_u32_store_release(&rt->calibration_round, (uint32_t)(2 * i + 1));
		(void)driver->wait(state, now + WEFT_MS(20), now);
		wf_u64_store_relaxed(&rt->calibration_woken, (uint64_t)wf_clock_now_ns());
		if (driver->disarm)
			driver->disarm(state);
		/* B3: release, with B4 in await_round(). */
		wf_u32_store_release(&rt->calibration_round, (uint32_t)(2 * i + 2));
		wf_futex_wake_all(&rt->calibration_round);
	}
}

static void await_round(struct weft_rt *rt, uint32_t round)
{
	uint32_t seen;

	/* B4: acquire, with B3. */
	while ((seen = wf_u32_load_acquire(&rt->calibration_round)) < round)
		wf_futex_wait(&rt->calibration_round, seen, weft_after(WEFT_MS(1)));
}

/* The starter: the least of a few rounds, since the noise of a busy machine only adds. */
static void calibrate_waker(struct weft_rt *rt)
{
	struct wf_worker *sleeper = &rt->workers[0];
	wf_atomic_u32 nobody = { 0 };
	int64_t least = BREAK_EVEN_MAX_NS;

	for (int i = 0; i < CALIBRATION_ROUNDS; i++) {
		weft_time start;
		int64_t took;

		await_round(rt, (uint32_t)(2 * i + 1));
		wf_futex_wait(&nobody, 0, weft_after(CALIBRATION_SLEEP_NS));
		start = wf_clock_now_ns();
		wf_worker_kick(sleeper);
		await_round(rt, (uint32_t)(2 * i + 2));
		took = (weft_time)wf_u64_load_relaxed(&rt->calibration_woken) - start;
		if (took > 0 && took < least)
			least = took;
	}
	wf_u64_store_relaxed(&rt->break_even_ns,
		(uint64_t)(least < BREAK_EVEN_MIN_NS ? BREAK_EVEN_MIN_NS : least));
}

/* --- the thread --- */

void wf_boot_close_worker(struct wf_worker *worker)
{
	if (needs_signal_stack(worker->rt))
		wf_guard_thread_leave(&worker->guard);
}

/* The last thing a worker does: the runtime is freed only after its thread has been joined. */
static void tell_ended(struct weft_rt *rt)
{
	bool last = wf_u32_fetch_add(&rt->workers_ended, 1) + 1 == rt->worker_count;

	wf_futex_wake_all(&rt->workers_ended);
	if (last)
		wf_coordinator_tell(rt);
}

static void worker_main(void *arg)
{
	struct wf_worker *worker = arg;
	struct weft_rt *rt = worker->rt;
	int r;

	worker->stack_base = __builtin_frame_address(0);
	wf_worker_set_self(worker);
	name_thread(worker);
	wf_rcu_register();
	r = open_on_own_thread(worker);
	wf_rcu_offline();
	report(rt, r < 0);
	if (await_word(rt) == BOOT_RUN) {
		if (worker->number == 0 && rt->calibrate)
			calibrate_sleeper(worker);
		wf_rcu_online();
		wf_scheduler_enter(&worker->sched);
		wf_hooks_thread_start(worker);
		wf_worker_run(worker);
		wf_hooks_thread_stop(worker);
		wf_scheduler_leave(&worker->sched);
		wf_rcu_offline();
	}
	wf_boot_close_worker(worker);
	wf_rcu_online();
	wf_rcu_unregister();
	wf_worker_set_self(NULL);
	tell_ended(rt);
}

/* --- the starter --- */

static int start_threads(struct weft_rt *rt, unsigned *started_out)
{
	for (unsigned i = 0; i < rt->worker_count; i++) {
		struct wf_worker *worker = &rt->workers[i];
		int r = wf_thread_start(&worker->thread, worker_main, worker);

		*started_out = i;
		if (r < 0) {
			wf_rt_error(rt, (int)i, "thread", r,
				"the thread of worker %u cannot be made%s", i, wf_thread_remedy(r));
			return r;
		}
		worker->thread_started = true;
	}
	*started_out = rt->worker_count;
	return 0;
}

static void await_reports(struct weft_rt *rt, unsigned count)
{
	uint32_t seen;

	/* B2: acquire, with B1. */
	while ((seen = wf_u32_load_acquire(&rt->workers_booted)) < count)
		wf_futex_wait(&rt->workers_booted, seen, WEFT_FOREVER);
}

static void say(struct weft_rt *rt, uint32_t word)
{
	wf_u32_store_seq_cst(&rt->ready, word);
	wf_futex_wake_all(&rt->ready);
}

void wf_boot_join(struct weft_rt *rt)
{
	for (unsigned i = 0; i < rt->worker_count; i++)
		if (rt->workers[i].thread_started) {
			wf_thread_join(rt->workers[i].thread);
			rt->workers[i].thread_started = false;
		}
}

void wf_boot_close_drivers(struct weft_rt *rt)
{
	for (unsigned i = 0; i < rt->worker_count; i++) {
		struct wf_worker *worker = &rt->workers[i];

		while (worker->driver_count > 0) {
			const struct wf_open_driver *last =
				&worker->drivers[--worker->driver_count];

			last->driver->close(last->state);
		}
	}
}

int wf_boot_start(struct weft_rt *rt)
{
	unsigned started;
	int r;

	if (rt->flags & WEFT_RT_EMBEDDED) {
		wf_u32_store_relaxed(&rt->ready, BOOT_RUN);
		return wf_embed_open(rt);
	}
	r = start_threads(rt, &started);

	await_reports(rt, started);
	if (r == 0 && !wf_u32_load_acquire(&rt->boot_failed)) {
		say(rt, BOOT_RUN);
		if (rt->calibrate)
			calibrate_waker(rt);
		return 0;
	}
	say(rt, BOOT_UNWIND);
	wf_boot_join(rt);
	wf_boot_close_drivers(rt);
	return rt->errors[0].error;
}
