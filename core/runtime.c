/* runtime.c: create, start, run, stop, destroy. runtime.h and core/README.md tell the life. */
#include "core/runtime.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/describe.h"
#include "core/embed.h"
#include "core/forced.h"
#include "core/guard.h"
#include "core/hooks.h"
#include "core/internal.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/monitor.h"
#include "core/registry.h"
#include "core/stall.h"
#include "core/timers.h"
#include "core/virtual.h"
#include "sync/fault.h"
#include "timer/clock.h"

#define RT_FLAGS                                                                   \
	(WEFT_RT_GUARD_REPORT | WEFT_RT_RAISE_FD_LIMIT | WEFT_RT_GUARD_MPROTECT    \
		| WEFT_RT_EMBEDDED | WEFT_RT_STALL_BACKTRACE | WEFT_RT_SIGNALS)
#define STACK_BYTES_MIN ((size_t)16384)
#define STACK_BYTES_MAX ((size_t)1 << 30)

/* --- options --- */

static int refuse(struct weft_rt *rt, const char *step, int error, const char *format, ...)
	WF_PRINTF(4, 5);

static int refuse(struct weft_rt *rt, const char *step, int error, const char *format, ...)
{
	char text[128];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	wf_rt_error(rt, -1, step, error, "%s", text);
	return error;
}

static const struct wf_driver *find_driver(const char *name)
{
	for (int i = 0; wf_drivers[i]; i++)
		if (strcmp(wf_drivers[i]->name, name) == 0)
			return wf_drivers[i];
	return NULL;
}

static bool contains(const struct wf_cpus *cpus, int cpu)
{
	for (unsigned i = 0; i < cpus->count; i++)
		if (cpus->cpu[i] == cpu)
			return true;
	return false;
}

/* The CPUs workers go to, in order. */
static int choose_cpus(struct weft_rt *rt, const struct weft_rt_opts *opts, struct wf_cpus *cpus)
{
	struct wf_cpus allowed;
	int r = wf_cpus_allowed(&allowed);

	if (r < 0)
		return refuse(rt, "cpus", r, "the allowed CPUs cannot be read");
	if (!opts->cpus) {
		*cpus = allowed;
		return 0;
	}
	rt->cpus_explicit = true;
	if (wf_cpus_parse(opts->cpus, cpus) < 0)
		return refuse(rt, "cpus", -EINVAL, "malformed CPU list \"%s\"", opts->cpus);
	for (unsigned i = 0; i < cpus->count; i++)
		if (!contains(&allowed, cpus->cpu[i]))
			return refuse(rt, "cpus", -ENODEV,
				"CPU %d of the list \"%s\" is not available", cpus->cpu[i],
				opts->cpus);
	return 0;
}

/* A list may name a CPU twice: two that spin there would only wait for each other. */
static bool has_each_its_cpu(const struct wf_cpus *cpus, unsigned workers)
{
	for (unsigned i = 0; i < workers && i < cpus->count; i++)
		for (unsigned k = 0; k < i; k++)
			if (cpus->cpu[k] == cpus->cpu[i])
				return false;
	return workers <= cpus->count;
}

static int choose_workers(
	struct weft_rt *rt, const struct weft_rt_opts *opts, const struct wf_cpus *cpus)
{
	int quota = wf_cpus_quota();
	unsigned count = opts->workers;

	if (rt->flags & WEFT_RT_EMBEDDED) {
		rt->worker_count = 1;
		return 0;
	}
	if (count > WF_WORKERS_MAX)
		return refuse(rt, "workers", -EINVAL,
			"%u workers are more than the %d this build allows", count, WF_WORKERS_MAX);
	if (count == 0) {
		count = cpus->count;
		if (quota >= 0 && (unsigned)quota < count)
			count = quota ? (unsigned)quota : 1;
		if (count > WF_WORKERS_MAX)
			count = WF_WORKERS_MAX;
	}
	if (rt->cpus_explicit && count > cpus->count)
		return refuse(rt, "cpus", -ENODEV, "%u workers, but the list \"%s\" has %u CPUs",
			count, opts->cpus, cpus->count);
	rt->worker_count = count;
	rt->may_spin = has_each_its_cpu(cpus, count) && (quota < 0 || count <= (unsigned)quota);
	return 0;
}

static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int choose_drivers(struct weft_rt *rt, const struct weft_rt_opts *opts,
	const struct wf_driver_set *drivers)
{
	const char *name = opts->driver ? opts->driver : WF_DRIVER_DEFAULT;
	unsigned count = 0;

	rt->drivers = *drivers;
	if (!rt->drivers.main)
		rt->drivers.main = find_driver(name);
	if (!rt->drivers.main)
		return refuse(rt, "driver", -ENODEV, "unknown driver \"%s\"", name);
	for (unsigned i = 0; drivers->polls && drivers->polls[i]; i++)
		count += drivers->polls[i] != rt->drivers.main;
	if (count > WF_POLL_DRIVERS_MAX)
		return refuse(rt, "driver", -EINVAL, "%u drivers beside the main one, at most %d",
			count, WF_POLL_DRIVERS_MAX);
	return 0;
}

static const struct wf_driver *find_spin_only(const struct wf_driver_set *drivers)
{
	if (drivers->main->caps & WF_DRIVER_SPIN_ONLY)
		return drivers->main;
	for (unsigned i = 0; drivers->polls && drivers->polls[i]; i++)
		if (drivers->polls[i]->caps & WF_DRIVER_SPIN_ONLY)
			return drivers->polls[i];
	return NULL;
}

/* A driver that cannot end a sleep forbids it. Louder if the program asked for something else. */
static void choose_idle(struct weft_rt *rt, enum weft_idle asked)
{
	const struct wf_driver *driver = find_spin_only(&rt->drivers);

	rt->idle_mode = asked == WEFT_IDLE_DEFAULT ? WEFT_IDLE_ADAPTIVE : asked;
	if ((rt->flags & WEFT_RT_EMBEDDED) && rt->idle_mode == WEFT_IDLE_ADAPTIVE)
		rt->idle_mode = WEFT_IDLE_PARK; /* how long to spin is for who polls to say */
	if (!driver || asked == WEFT_IDLE_SPIN)
		return;
	rt->idle_mode = WEFT_IDLE_SPIN;
	wf_log(rt, asked == WEFT_IDLE_DEFAULT ? WEFT_LOG_INFO : WEFT_LOG_WARN,
		"driver %s can only be polled: workers never sleep, as with idle=spin",
		driver->name);
}

static int read_opts(struct weft_rt *rt, const struct weft_rt_opts *opts)
{
	if (opts->flags & ~RT_FLAGS)
		return refuse(
			rt, "options", -EINVAL, "unknown flags 0x%x", opts->flags & ~RT_FLAGS);
	if ((unsigned)opts->idle > WEFT_IDLE_SPIN || (unsigned)opts->pin > WEFT_PIN_OFF)
		return refuse(rt, "options", -EINVAL, "unknown value of idle or pin");
	if ((opts->flags & WEFT_RT_EMBEDDED)
		&& (opts->workers > 1 || opts->cpus || opts->pin == WEFT_PIN_ON
			|| (opts->flags & WEFT_RT_SIGNALS)))
		return refuse(rt, "options", -EINVAL,
			"an embedded runtime has one worker, on a thread that is not pinned and "
			"owns no signals");
	if (opts->stack_size
		&& (opts->stack_size < STACK_BYTES_MIN || opts->stack_size > STACK_BYTES_MAX))
		return refuse(rt, "options", -EINVAL, "a stack of %zu bytes is outside %zu to %zu",
			opts->stack_size, STACK_BYTES_MIN, STACK_BYTES_MAX);
	if (wf_hooks_read(rt, opts->hooks) < 0)
		return refuse(rt, "options", -EINVAL, "hooks: " WF_OPTS_SIZE_TEXT);
	if (opts->flags & WEFT_RT_RAISE_FD_LIMIT)
		raise_fd_limit();
	if (opts->processes_max > WF_INDEX_MASK)
		return refuse(
			rt, "options", -EINVAL, "processes_max is more than %u", WF_INDEX_MASK);
	if (opts->blocking_threads_max > WF_BLOCKING_THREADS_MAX ||
		opts->blocking_keep_alive_ns < 0)
		return refuse(rt, "options", -EINVAL,
			"blocking_threads_max is more than %d, or blocking_keep_alive_ns negative",
			WF_BLOCKING_THREADS_MAX);
	if (opts->stall_ns < 0)
		return refuse(rt, "options", -EINVAL, "stall_ns is negative");
	if (opts->timer_slack_ns < 0 || opts->timer_slack_ns > WEFT_SEC(1) ||
		opts->precise_spin_ns < 0 || opts->precise_spin_ns > WEFT_MS(1))
		return refuse(rt, "options", -EINVAL,
			"timer_slack_ns is not 0 to 1 s, or precise_spin_ns not 0 to 1 ms");
	rt->slack_mask = wf_slack_mask(opts->timer_slack_ns ? opts->timer_slack_ns : WEFT_MS(1));
	rt->precise_spin_ns = opts->precise_spin_ns ? opts->precise_spin_ns : WEFT_US(60);
	/* Its thread is the host's. */
	rt->stall_ns = opts->flags & WEFT_RT_EMBEDDED ? WEFT_FOREVER : opts->stall_ns;
	rt->flags = opts->flags;
	rt->stack_bytes = opts->stack_size ? opts->stack_size : WF_STACK_SIZE;
	rt->processes_max = opts->processes_max ? opts->processes_max : WF_INDEX_MASK;
	snprintf(rt->name, sizeof rt->name, "%.15s", opts->name ? opts->name : "weft");
	return 0;
}

/* --- making and unmaking, in this order and its reverse --- */

static void depot_log(void *ctx, int level, const char *text)
{
	wf_log(ctx, (enum weft_log_level)level, "%s", text);
}

static int make_depot(struct weft_rt *rt)
{
	struct wf_stack_depot_opts opts = {
		.guard_mprotect = rt->flags & WEFT_RT_GUARD_MPROTECT,
		.log = depot_log,
		.log_ctx = rt,
	};

	return wf_stack_depot_create(&opts, &rt->depot);
}

static int make_workers(
	struct weft_rt *rt, const struct weft_rt_opts *opts, const struct wf_cpus *cpus)
{
	size_t bytes = rt->worker_count * sizeof *rt->workers;
	bool pinned = rt->cpus_explicit || opts->pin == WEFT_PIN_ON;
	weft_time now = wf_rt_now(rt);

	rt->workers = wf_alloc(rt, WF_FALSE_SHARING, bytes);
	if (!rt->workers)
		return -ENOMEM;
	memset(rt->workers, 0, bytes);
	if (wf_timers_make(rt) < 0) {
		wf_free(rt, rt->workers, bytes);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < rt->worker_count; i++) {
		struct wf_worker *worker = &rt->workers[i];

		worker->rt = rt;
		worker->number = i;
		worker->alone = WF_RUN_ORDER_FIFO && rt->worker_count == 1;
		worker->cpu = pinned && i < cpus->count ? cpus->cpu[i] : -1;
		worker->clock_picks = WF_CLOCK_PICKS;
		worker->random = 0x9e3779b97f4a7c15ULL * (i + 1);
		worker->now = now;
		worker->idle.gap_ns = INT32_MAX;
		worker->idle.credited_at_ns = now;
		wf_deque_init(&worker->ring);
		wf_deque_init(&worker->children);
		wf_injector_init(&worker->inbox);
		wf_wheel_init(&worker->wheel, now);
		wf_stack_pool_init(&worker->stacks);
		wf_hooks_worker_init(worker);
		worker->exact_timers = rt->clock_virtual; /* time goes where they say */
		worker->spawn_looks |= rt->forced != NULL;
	}
	return 0;
}

static void unmake_workers(struct weft_rt *rt)
{
	wf_timers_unmake(rt);
	for (unsigned i = 0; i < rt->worker_count; i++) {
		wf_table_worker_close(&rt->workers[i]);
		wf_stack_pool_close(&rt->workers[i].stacks, rt->depot);
	}
	wf_free(rt, rt->workers, rt->worker_count * sizeof *rt->workers);
}

static void install_stall(struct weft_rt *rt)
{
	if (!(rt->flags & WEFT_RT_STALL_BACKTRACE) || !rt->monitor)
		return;
	rt->stall_signal = wf_stall_install();
	if (!rt->stall_signal)
		wf_log(rt, WEFT_LOG_WARN,
			"no real-time signal is free: stalls are reported without a backtrace");
}

/* Everything but threads. On failure nothing is left, and the error is recorded. */
static int make_parts(
	struct weft_rt *rt, const struct weft_rt_opts *opts, const struct wf_cpus *cpus)
{
	const char *part = "the table of processes";
	struct wf_past past;
	int r = wf_registry_add(rt, &past);

	wf_pool_open(rt, opts->blocking_threads_max, opts->blocking_keep_alive_ns);
	if (r < 0)
		return refuse(rt, "runtime", r, "%d runtimes exist already", WF_RUNTIMES_MAX - 1);
	r = wf_table_open(rt, &past);
	if (r < 0)
		goto no_table;
	part = "the store of stacks";
	r = make_depot(rt);
	if (r < 0)
		goto no_depot;
	part = "the workers";
	r = make_workers(rt, opts, cpus);
	if (r < 0)
		goto no_workers;
	part = "the thread that reclaims memory";
	r = wf_rcu_domain_create(&rt->rcu, rt->name);
	if (r < 0)
		goto no_rcu;
	part = "the state of I/O";
	r = wf_io_hooks.rt_open(rt, &rt->io);
	if (r < 0)
		goto no_io;
	if (rt->flags & WEFT_RT_GUARD_REPORT) {
		part = "the report of stack overflows";
		r = wf_guard_install(wf_describe_current);
		if (r < 0)
			goto no_guard;
	}
	part = "the monitor";
	r = wf_monitor_make(rt);
	if (r < 0)
		goto no_monitor;
	install_stall(rt);
	return 0;

no_monitor:
	if (rt->flags & WEFT_RT_GUARD_REPORT)
		wf_guard_uninstall();
no_guard:
	wf_io_hooks.rt_close(rt->io);
no_io:
	wf_rcu_domain_destroy(rt->rcu);
no_rcu:
	unmake_workers(rt);
no_workers:
	wf_stack_depot_destroy(rt->depot);
no_depot:
	wf_table_close(rt, &past);
no_table:
	wf_registry_remove(rt, &past);
	return refuse(rt, "runtime", r, "%s cannot be made%s", part, wf_thread_remedy(r));
}

static void unmake_parts(struct weft_rt *rt)
{
	struct wf_past past;

	wf_pool_close(rt);
	if (rt->stall_signal)
		wf_stall_uninstall();
	wf_monitor_unmake(rt);
	if (rt->flags & WEFT_RT_GUARD_REPORT)
		wf_guard_uninstall();
	wf_rcu_domain_destroy(rt->rcu); /* runs what waits for a grace period */
	wf_embed_close(rt);
	wf_boot_close_drivers(rt);
	wf_io_hooks.rt_close(rt->io);
	unmake_workers(rt);
	wf_stack_depot_destroy(rt->depot);
	wf_table_close(rt, &past);
	wf_registry_remove(rt, &past);
}

static void free_rt(struct weft_rt *rt)
{
	struct weft_allocator allocator = rt->allocator;
	struct wf_forced *forced = rt->forced;

	allocator.release(allocator.ctx, rt, sizeof *rt);
	wf_forced_free(forced); /* what the allocator's ctx is */
}

/* Workers run already: without a monitor they end again. */
static int start_monitor(struct weft_rt *rt)
{
	int r = wf_monitor_start(rt);

	if (r == 0)
		return 0;
	wf_life_begin_stop(rt, 0);
	wf_boot_join(rt);
	return refuse(
		rt, "thread", r, "the monitor's thread cannot be made%s", wf_thread_remedy(r));
}

/* A test runtime's clock stands at its start when the first worker looks at it. */
static int set_up_testing(struct weft_rt *rt, const struct wf_rt_testing *testing)
{
	const struct weft_virtual_opts *threads = testing->threads;

	rt->forced = testing->forced;
	rt->clock_virtual = true;
	wf_u64_store_relaxed(&rt->clock, (uint64_t)WEFT_TEST_START);
	wf_u64_store_relaxed(&rt->wall_ahead, (uint64_t)(WEFT_TEST_WALL_START - WEFT_TEST_START));
	if (!(rt->drivers.main->caps & WF_DRIVER_VIRTUAL) && !(threads && threads->allow_real_io))
		return refuse(rt, "driver", -EINVAL,
			"the kernel's descriptors do not go by virtual time");
	if (!threads)
		return 0;
	if (rt->idle_mode != WEFT_IDLE_PARK)
		return refuse(rt, "options", -EINVAL, "virtual time needs workers that park");
	wf_virtual_start(rt, threads);
	return 0;
}

static int make(struct weft_rt *rt, const struct weft_rt_opts *opts,
	const struct wf_driver_set *drivers, const struct wf_rt_testing *testing)
{
	struct wf_cpus cpus;
	int r = read_opts(rt, opts);

	if (r < 0)
		return r;
	r = choose_drivers(rt, opts, drivers);
	if (r < 0)
		return r;
	choose_idle(rt, opts->idle);
	r = testing ? set_up_testing(rt, testing) : 0;
	if (r < 0)
		return r;
	r = wf_context_check();
	if (r < 0)
		return refuse(rt, "runtime", r, "fibers cannot run on hardware shadow stacks");
	r = choose_cpus(rt, opts, &cpus);
	if (r < 0)
		return r;
	r = choose_workers(rt, opts, &cpus);
	if (r < 0)
		return r;
	rt->calibrate = rt->idle_mode == WEFT_IDLE_ADAPTIVE && rt->may_spin;
	r = rt->flags & WEFT_RT_SIGNALS ? wf_coordinator_open(rt, opts->grace_ns) : 0;
	if (r < 0)
		return r;
	r = make_parts(rt, opts, &cpus);
	if (r < 0)
		goto no_parts;
	wf_idle_init(&rt->idle, rt->worker_count);
	wf_injector_init(&rt->injector);
	wf_registry_publish(rt);
	r = wf_boot_start(rt);
	if (r == 0)
		r = start_monitor(rt);
	if (r < 0)
		goto no_threads;
	return 0;

no_threads:
	wf_timers_close(rt);
	wf_registry_withdraw(rt);
	unmake_parts(rt);
no_parts:
	wf_coordinator_close(rt);
	return r;
}

static struct weft_rt *allocate_rt(const struct weft_rt_opts *opts)
{
	struct weft_allocator allocator = opts->allocator ? *opts->allocator : wf_default_allocator;
	struct weft_rt *rt = NULL;

	if (!wf_fails(WF_CALL_ALLOCATE))
		rt = allocator.allocate(allocator.ctx, WF_FALSE_SHARING, sizeof *rt);
	if (!rt)
		return NULL;
	memset(rt, 0, sizeof *rt);
	rt->allocator = allocator;
	rt->ended_fd = -1;
	rt->coordinator = (struct wf_coordinator)WF_COORDINATOR_NONE;
	wf_u64_store_relaxed(&rt->grace_deadline, (uint64_t)WEFT_FOREVER);
	wf_log_setup(rt, opts->log, opts->log_ctx);
	return rt;
}

static int create(const struct weft_rt_opts *opts, const struct wf_driver_set *drivers,
	const struct wf_rt_testing *testing, weft_rt **rt_out)
{
	struct weft_rt_opts own = { .size = sizeof own };
	struct weft_rt *rt;
	int r = opts ? wf_opts_read(opts, opts->size, &own, sizeof own) : 0;

	if (r < 0)
		return wf_complain(&own, "options", r, WF_OPTS_SIZE_TEXT);
	if (wf_worker_self())
		return wf_complain(
			&own, "options", -EDEADLK, "weft_rt_create() inside a runtime");
	rt = allocate_rt(&own);
	if (!rt)
		return wf_complain(&own, "runtime", -ENOMEM, "no memory for a runtime");
	r = make(rt, &own, drivers, testing);
	if (r < 0) {
		if (own.error)
			*own.error = rt->errors[0];
		rt->forced = NULL; /* the caller's */
		free_rt(rt);
		return r;
	}
	*rt_out = rt;
	return 0;
}

static int create_quietly(const struct weft_rt_opts *opts, const struct wf_driver_set *drivers,
	const struct wf_rt_testing *testing, weft_rt **rt_out)
{
	int saved = errno; /* looking for files that need not exist sets it */
	int r = create(opts, drivers, testing, rt_out);

	errno = saved;
	return r;
}

int wf_rt_create_with(
	const struct weft_rt_opts *opts, const struct wf_driver_set *drivers, weft_rt **rt_out)
{
	return create_quietly(opts, drivers, NULL, rt_out);
}

static const struct wf_driver_set default_drivers = { NULL, wf_poll_drivers };

int weft_rt_create(const struct weft_rt_opts *opts, weft_rt **rt_out)
{
	return create_quietly(opts, &default_drivers, NULL, rt_out);
}

int wf_rt_create_testing(
	const struct weft_rt_opts *opts, const struct wf_rt_testing *testing, weft_rt **rt_out)
{
	return create_quietly(opts, &default_drivers, testing, rt_out);
}

/* --- running --- */

static bool has_ended(struct weft_rt *rt)
{
	return wf_u32_load_acquire(&rt->workers_ended) == rt->worker_count;
}

/* -> true: ended; false: the deadline passed. */
static bool await_end(struct weft_rt *rt, weft_time deadline)
{
	if (wf_embed_is_owner(rt))
		return wf_embed_drive(rt, deadline);
	while (!has_ended(rt)) {
		uint32_t seen = wf_u32_load_acquire(&rt->workers_ended);

		if (deadline != WEFT_FOREVER && wf_clock_now_ns() >= deadline)
			return false;
		if (seen < rt->worker_count)
			wf_futex_wait(&rt->workers_ended, seen, deadline);
	}
	return true;
}

int weft_rt_start(weft_rt *rt)
{
	wf_u32_store_seq_cst(&rt->started, 1);
	wf_rt_wake_all(rt); /* the last to park looks whether that was the end */
	return 0;
}

int weft_rt_run(weft_rt *rt)
{
	struct weft_error error;

	if (wf_worker_self() || wf_pool_is_within(rt))
		return -EDEADLK;
	if ((rt->flags & WEFT_RT_EMBEDDED) && !wf_embed_is_owner(rt))
		return -EPERM;
	(void)weft_rt_start(rt);
	if (rt->coordinator.signal_fd >= 0)
		(void)wf_coordinator_serve(rt);
	if (!await_end(rt, WEFT_FOREVER))
		return -EDEADLK; /* virtual clock: whoever is alive waits for ever */
	wf_coordinator_release(rt);
	return weft_rt_error(rt, 0, &error) == 0 ? error.error : 0;
}

int weft_rt_stop(weft_rt *rt, weft_time grace_ns, weft_time deadline)
{
	struct wf_worker *self = wf_worker_self();

	wf_life_begin_stop(rt, grace_ns);
	if (self)
		return self->rt == rt || has_ended(rt) ? 0 : -EDEADLK;
	if (wf_pool_is_within(rt))
		return 0;
	if (await_end(rt, deadline))
		return 0;
	wf_life_log_survivors(rt);
	return -ETIMEDOUT;
}

int weft_rt_destroy(weft_rt *rt, weft_time deadline)
{
	wf_atomic_u32 never = { 0 };

	if (!rt)
		return 0;
	if (wf_worker_self() || wf_pool_is_within(rt))
		return -EDEADLK;
	if (!has_ended(rt)) {
		if (rt->forced && !wf_rt_is_draining(rt))
			wf_life_log_survivors(rt); /* a test has left them */
		wf_life_begin_stop(rt, 0);
		if (!await_end(rt, deadline)) {
			wf_life_log_survivors(rt);
			return -EBUSY;
		}
	}
	/* S5 */
	wf_monitor_stop(rt);
	wf_boot_join(rt);
	wf_timers_close(rt);
	wf_registry_withdraw(rt);
	while (wf_foreign_busy(rt))
		wf_futex_wait(&never, 0, weft_after(WEFT_US(100)));
	unmake_parts(rt);
	wf_coordinator_close(rt);
	free_rt(rt);
	return 0;
}

/* --- small questions --- */

weft_rt *weft_rt_current(void)
{
	struct wf_worker *self = wf_worker_self();

	return self ? self->rt : NULL;
}

uint64_t weft_rt_id(const weft_rt *rt)
{
	return rt->serial;
}

unsigned weft_rt_workers(const weft_rt *rt)
{
	return rt->worker_count;
}

int weft_worker_index(void)
{
	struct wf_worker *self = wf_worker_self();

	return self ? (int)self->number : -1;
}

struct weft_rt *wf_worker_rt(const struct wf_worker *worker)
{
	return worker->rt;
}

unsigned wf_worker_number(const struct wf_worker *worker)
{
	return worker->number;
}

void *wf_worker_driver_state(const struct wf_worker *worker)
{
	return worker->drivers[0].state;
}

const struct wf_driver *wf_worker_driver(const struct wf_worker *worker)
{
	return worker->drivers[0].driver;
}

void *wf_worker_driver_state_of(
	const struct wf_worker *worker, const struct wf_driver *driver)
{
	for (unsigned i = 0; i < worker->driver_count; i++)
		if (worker->drivers[i].driver == driver)
			return worker->drivers[i].state;
	return NULL;
}

struct wf_worker *wf_rt_worker(const struct weft_rt *rt, unsigned number)
{
	return number < rt->worker_count ? &rt->workers[number] : NULL;
}

int wf_worker_cpu(const struct wf_worker *worker)
{
	return worker->cpu;
}

void *wf_rt_io(const struct weft_rt *rt)
{
	return rt->io;
}

bool wf_rt_is_draining(const struct weft_rt *rt)
{
	return wf_u32_load_acquire(&rt->stop_phase) >= WF_DRAINING;
}

void wf_worker_sleep_begin(void)
{
	wf_rcu_offline();
}

void wf_worker_sleep_end(void)
{
	wf_rcu_online();
}
