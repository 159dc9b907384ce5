/*
 * Goal: what <weft.h> promises of runtimes: create and its errors, run, stop, destroy, weft_post(),
 * weft_main(), the allocator and the log.
 * Method: whole runtimes, small and many. What must not leak is counted: descriptors, threads,
 * bytes of an allocator that checks each release. Events are waited for by joining, or by yielding
 * until they show.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test/runtime.h"

/* ---- Tools ---------------------------------------------------------------------------------- */

struct counts {
	unsigned fds, threads;
};

static struct counts counts_now(void)
{
	return (struct counts){harness_fd_count(), harness_thread_count()};
}

/* A joined thread is still counted for a moment. */
static void counts_are(struct counts before)
{
	cr_assert_eq(harness_fd_count(), before.fds);
	UNTIL_FOREIGN(harness_thread_count() <= before.threads);
}

/* A log that keeps what it is told. */
struct lines {
	pthread_mutex_t lock;
	size_t length;
	unsigned count;
	char text[16384];
};

static void keep(void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	struct lines *lines = ctx;

	(void)worker;
	(void)pid;
	cr_assert(level >= WEFT_LOG_ERROR && level <= WEFT_LOG_DEBUG);
	cr_assert_null(strchr(text, '\n'));
	pthread_mutex_lock(&lines->lock);
	lines->count++;
	if (lines->length + strlen(text) + 2 < sizeof lines->text)
		lines->length += (size_t)sprintf(lines->text + lines->length, "%s\n", text);
	pthread_mutex_unlock(&lines->lock);
}

static bool told(struct lines *lines, const char *text)
{
	bool found;

	pthread_mutex_lock(&lines->lock);
	found = strstr(lines->text, text) != NULL;
	pthread_mutex_unlock(&lines->lock);
	return found;
}

static struct lines log_lines = {.lock = PTHREAD_MUTEX_INITIALIZER};

static weft_pid rt_spawned(weft_rt *rt, weft_fn fn, void *arg)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_rt_spawn(rt, fn, arg, NULL, &pid), 0);
	return pid;
}

static int first_cpu(void)
{
	cpu_set_t set;

	cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			return cpu;
	cr_assert_fail("no CPU");
	return -1;
}

/* ---- Errors of create ----------------------------------------------------------------------- */

struct refusal {
	struct weft_rt_opts opts;
	int error;
	const char *step, *text;
};

static void is_refused(const struct refusal *refusal)
{
	struct weft_error error = {0};
	struct weft_rt_opts opts = refusal->opts;
	struct counts before = counts_now();
	char text[sizeof error.text];
	weft_rt *rt = NULL;

	opts.size = sizeof opts;
	opts.error = &error;
	opts.log = keep;
	opts.log_ctx = &log_lines;
	log_lines.length = 0;
	log_lines.text[0] = '\0';
	snprintf(text, sizeof text, "%s: %s", refusal->text, weft_strerror(refusal->error));
	cr_assert_eq(weft_rt_create(&opts, &rt), refusal->error, "%s", text);
	cr_assert_null(rt);
	cr_assert_eq(error.error, refusal->error, "%s", text);
	cr_assert_eq(error.worker, -1);
	cr_assert_str_eq(error.step, refusal->step);
	cr_assert_str_eq(error.text, text);
	cr_assert(told(&log_lines, text), "the log was not told \"%s\"", text);
	counts_are(before);
}

static void cpus_are_refused(const char *list)
{
	char text[128];

	snprintf(text, sizeof text, "malformed CPU list \"%s\"", list);
	is_refused(&(struct refusal){{.cpus = list}, -EINVAL, "cpus", text});
}

Test(runtime, bad_options_are_refused_by_name, .timeout = 120)
{
	char workers[96];

	snprintf(workers, sizeof workers, "%d workers are more than the %d this build allows",
		WF_WORKERS_MAX + 1, WF_WORKERS_MAX);
	is_refused(&(struct refusal){{.workers = WF_WORKERS_MAX + 1}, -EINVAL, "workers", workers});
	is_refused(&(struct refusal){
		{.flags = 1u << 31}, -EINVAL, "options", "unknown flags 0x80000000"});
	is_refused(&(struct refusal){
		{.flags = WEFT_RT_GUARD_REPORT | 1u << 30}, -EINVAL, "options",
		"unknown flags 0x40000000"});
	is_refused(&(struct refusal){
		{.stall_ns = -1}, -EINVAL, "options", "stall_ns is negative"});
	is_refused(&(struct refusal){
		{.timer_slack_ns = WEFT_SEC(1) + 1}, -EINVAL, "options",
		"timer_slack_ns is not 0 to 1 s, or precise_spin_ns not 0 to 1 ms"});
	is_refused(&(struct refusal){
		{.precise_spin_ns = -1}, -EINVAL, "options",
		"timer_slack_ns is not 0 to 1 s, or precise_spin_ns not 0 to 1 ms"});
	is_refused(&(struct refusal){
		{.idle = (enum weft_idle)4}, -EINVAL, "options", "unknown value of idle or pin"});
	is_refused(&(struct refusal){
		{.pin = (enum weft_pin)3}, -EINVAL, "options", "unknown value of idle or pin"});
	is_refused(&(struct refusal){{.stack_size = 16383}, -EINVAL, "options",
		"a stack of 16383 bytes is outside 16384 to 1073741824"});
	is_refused(&(struct refusal){{.stack_size = (1u << 30) + 1}, -EINVAL, "options",
		"a stack of 1073741825 bytes is outside 16384 to 1073741824"});
	is_refused(&(struct refusal){{.processes_max = 1u << 26}, -EINVAL, "options",
		"processes_max is more than 67108863"});
	is_refused(&(struct refusal){
		{.driver = "paper"}, -ENODEV, "driver", "unknown driver \"paper\""});
	is_refused(&(struct refusal){{.driver = ""}, -ENODEV, "driver", "unknown driver \"\""});
}

Test(runtime, bad_cpu_lists_are_refused_by_name, .timeout = 120)
{
	static const char *const malformed[] = {"", ",", "0,", ",0", "0,,0", "0-", "-0", "1-0",
		"0-1-2", "0 ", " 0", "a", "0x1", "+0", "99999", "18446744073709551616"};
	char list[16], text[128];
	cpu_set_t set;

	for (size_t i = 0; i < WF_ARRAY_COUNT(malformed); i++)
		cpus_are_refused(malformed[i]);
	cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
	cr_assert(!CPU_ISSET(1023, &set), "a machine of 1024 CPUs");
	is_refused(&(struct refusal){{.cpus = "1023"}, -ENODEV, "cpus",
		"CPU 1023 of the list \"1023\" is not available"});
	snprintf(list, sizeof list, "%d,1023", first_cpu());
	snprintf(text, sizeof text, "CPU 1023 of the list \"%s\" is not available", list);
	is_refused(&(struct refusal){{.cpus = list, .workers = 1}, -ENODEV, "cpus", text});
	snprintf(list, sizeof list, "%d", first_cpu());
	snprintf(text, sizeof text, "2 workers, but the list \"%s\" has 1 CPUs", list);
	is_refused(&(struct refusal){{.cpus = list, .workers = 2}, -ENODEV, "cpus", text});
}

Test(runtime, options_of_other_releases, .timeout = 120)
{
	struct {
		struct weft_rt_opts opts;
		char newer[32];
	} longer;
	struct counts before;
	weft_rt *rt = NULL;

	runtime_end(runtime_new(1)); /* what is made once for the process */
	before = counts_now();
	memset(&longer, 0, sizeof longer);
	for (size_t size = 0; size < sizeof(size_t); size += 7) {
		longer.opts.size = size;
		cr_assert_eq(weft_rt_create(&longer.opts, &rt), -EINVAL);
		cr_assert_null(rt);
	}
	/* Only the size: all else is default, though set. */
	longer.opts.size = offsetof(struct weft_rt_opts, name);
	longer.opts.driver = "paper";
	cr_assert_eq(weft_rt_create(&longer.opts, &rt), 0);
	runtime_end(rt);
	longer.opts = (struct weft_rt_opts){.size = sizeof longer, .workers = 1};
	cr_assert_eq(weft_rt_create(&longer.opts, &rt), 0);
	cr_assert_eq(weft_rt_workers(rt), 1);
	runtime_end(rt);
	for (size_t i = 0; i < sizeof longer.newer; i += 31) {
		memset(longer.newer, 0, sizeof longer.newer);
		longer.newer[i] = 1;
		rt = NULL;
		cr_assert_eq(weft_rt_create(&longer.opts, &rt), -EINVAL);
		cr_assert_null(rt);
	}
	cr_assert_eq(weft_rt_create(NULL, &rt), 0);
	runtime_end(rt);
	counts_are(before);
}

/* ---- Many runtimes -------------------------------------------------------------------------- */

static int wakes_and_joins(void *arg)
{
	weft_pid *pid = arg;

	cr_assert_eq(weft_wake(*pid), 0);
	return joined(*pid);
}

Test(runtime, several_live_at_once_up_to_63, .timeout = 120)
{
	enum { MAX = 63 };
	struct weft_rt_opts opts = {.size = sizeof opts, .workers = 1, .idle = WEFT_IDLE_PARK};
	weft_rt *rts[MAX];
	weft_pid pids[MAX];

	for (int i = 0; i < MAX; i++) {
		rts[i] = runtime_new_with(&opts);
		pids[i] = rt_spawned(rts[i], parks, NULL);
		for (int k = 0; k < i; k++) {
			cr_assert_neq(weft_rt_id(rts[i]), weft_rt_id(rts[k]));
			cr_assert(!weft_pid_equal(pids[i], pids[k]));
		}
	}
	for (int round = 0; round < 3; round++) {
		uint64_t id = weft_rt_id(rts[7]);

		is_refused(
			&(struct refusal){opts, -EAGAIN, "runtime", "63 runtimes exist already"});
		runtime_end(rts[7]);
		rts[7] = runtime_new_with(&opts);
		cr_assert_gt(weft_rt_id(rts[7]), id);
		cr_assert_eq(weft_wake(pids[7]), -ESRCH);
		pids[7] = rt_spawned(rts[7], parks, NULL);
	}
	/* Each wakes and joins what the next has. */
	for (int i = 0; i < MAX; i++)
		cr_assert_eq(runtime_do(rts[i], wakes_and_joins, &pids[(i + 1) % MAX]), 0);
	for (int i = 0; i < MAX; i++)
		runtime_end(rts[i]);
}

/* ---- Shutdown ------------------------------------------------------------------------------- */

/* X1 */
enum { SPAWNERS = 3 };

struct rush {
	weft_rt *rt;
	wf_atomic_u32 accepted, ran, refused, before;
};

static int runs(void *arg)
{
	struct rush *rush = arg;

	wf_u32_fetch_add(&rush->ran, 1);
	return 7;
}

static int spawns_until_shutdown(void *arg)
{
	struct rush *rush = arg;

	for (;;) {
		weft_pid pid = {1};
		int result = 0, r = weft_spawn(runs, rush, &pid);

		if (r == 0) {
			wf_u32_fetch_add(&rush->accepted, 1);
			r = weft_join(pid, &result, WEFT_FOREVER);
			cr_assert(r == -ECANCELED || (r == 0 && result == 7), "join: %d", r);
			continue;
		}
		cr_assert_eq(r, -ESHUTDOWN);
		cr_assert_eq(pid.raw, 1, "written by a spawn that failed");
		return 1;
	}
}

static void spawns_or_stops(unsigned index, void *arg)
{
	struct rush *rush = arg;
	weft_pid pid;
	int result, r;

	if (index == SPAWNERS) {
		UNTIL_FOREIGN(wf_u32_load_acquire(&rush->before) >= 100);
		cr_assert_eq(weft_rt_stop(rush->rt, 0, WEFT_FOREVER), 0);
		return;
	}
	while ((r = weft_rt_spawn(rush->rt, runs, rush, NULL, &pid)) == 0) {
		wf_u32_fetch_add(&rush->accepted, 1);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, 7);
		wf_u32_fetch_add(&rush->before, 1);
	}
	cr_assert_eq(r, -ESHUTDOWN);
	wf_u32_fetch_add(&rush->refused, 1);
}

Test(runtime, spawns_before_during_and_after_a_stop, .timeout = 120)
{
	for (int round = 0; round < 40 / HARNESS_SLOWDOWN + 5; round++) {
		struct rush rush = {.rt = runtime_new(1 + round % 2)};
		weft_pid inside = rt_spawned(rush.rt, spawns_until_shutdown, &rush);
		weft_pid parked = rt_spawned(rush.rt, parks, NULL), pid;
		int result;

		harness_threads(SPAWNERS + 1, spawns_or_stops, &rush);
		cr_assert_eq(wf_u32_load_acquire(&rush.refused), SPAWNERS);
		cr_assert_eq(wf_u32_load_acquire(&rush.ran), wf_u32_load_acquire(&rush.accepted));
		cr_assert_eq(weft_rt_spawn(rush.rt, runs, &rush, NULL, &pid), -ESHUTDOWN);
		cr_assert_eq(weft_post(rush.rt, count_one, &rush.ran), -ESHUTDOWN);
		/* Results outlive the workers, not the runtime. */
		cr_assert_eq(joined(inside), 1);
		cr_assert_eq(joined(parked), -ECANCELED);
		runtime_end(rush.rt);
		cr_assert_eq(weft_join(parked, &result, WEFT_FOREVER), -ESRCH);
	}
}

/* X5 */
Test(runtime, comes_and_goes_without_a_trace, .timeout = 120)
{
	enum { ROUNDS = 1000 / HARNESS_SLOWDOWN };
	struct counts before = {0};
	size_t rss = 0;

	for (int i = -5; i < ROUNDS; i++) {
		weft_rt *rt = runtime_new(2);
		wf_atomic_u32 cleaned = {0};
		struct weft_spawn_opts opts = {
			.size = sizeof opts, .name = "endless", .arg_dtor = count_one};
		weft_pid pid;

		cr_assert_eq(weft_rt_spawn(rt, parks, &cleaned, &opts, &pid), 0);
		runtime_end(rt);
		cr_assert_eq(wf_u32_load_acquire(&cleaned), 1);
		if (i < 0) { /* what is made once */
			before = counts_now();
			rss = harness_rss_bytes();
		}
	}
	counts_are(before);
	if (!HARNESS_ASAN && !HARNESS_TSAN && !HARNESS_VALGRIND) /* which have books of their own */
		cr_assert_lt(harness_rss_bytes(), rss + ((size_t)4 << 20));
}

static int stops_from_inside(void *arg)
{
	weft_rt *rt = weft_rt_current();

	(void)arg;
	cr_assert_eq(weft_rt_stop(rt, WEFT_SEC(3600), 0), 0);
	/* It drains: what is there may finish, and start more. */
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(joined(spawned(returns, &(int){i})), i);
		cr_assert_eq(weft_yield(), 0);
	}
	/* A longer grace changes nothing; the shortest counts. */
	cr_assert_eq(weft_rt_stop(rt, WEFT_FOREVER, WEFT_FOREVER), 0);
	cr_assert_eq(joined(spawned(returns, &(int){5})), 5);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	UNTIL(weft_spawn(parks, NULL, NULL) == -ESHUTDOWN);
	UNTIL(weft_yield() == -ECANCELED);
	return 1;
}

Test(runtime, stop_from_inside_begins_it, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		weft_rt *rt = runtime_new(workers);
		weft_pid pid = rt_spawned(rt, stops_from_inside, NULL);

		cr_assert_eq(weft_rt_run(rt), 0);
		cr_assert_eq(joined(pid), 1);
		runtime_end(rt);
	}
}

struct gate {
	wf_atomic_u32 in, open;
};

/* Whatever it is told: until the gate opens. */
static int heeds_nothing(void *arg)
{
	struct gate *gate = arg;

	wf_u32_store_release(&gate->in, 1);
	UNTIL(wf_u32_load_acquire(&gate->open));
	return 3;
}

static void *spawns_while_it_stops(void *arg)
{
	struct rush *rush = arg;

	/* The drain: spawns are allowed, nothing is cancelled. */
	for (int i = 0; i < 50; i++) {
		int result;
		weft_pid pid;

		cr_assert_eq(weft_rt_spawn(rush->rt, runs, rush, NULL, &pid), 0);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, 7);
	}
	wf_u32_store_release(&rush->before, 1);
	return NULL;
}

static int finishes_in_the_grace(void *arg)
{
	struct rush *rush = arg;

	while (!wf_u32_load_acquire(&rush->before))
		cr_assert_eq(weft_yield(), 0);
	return 11;
}

Test(runtime, stop_with_grace_lets_processes_finish, .timeout = 120)
{
	struct rush rush = {.rt = runtime_new(2)};
	weft_pid pid = rt_spawned(rush.rt, finishes_in_the_grace, &rush);
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, spawns_while_it_stops, &rush), 0);
	cr_assert_eq(weft_rt_stop(rush.rt, WEFT_SEC(3600), WEFT_FOREVER), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(joined(pid), 11);
	cr_assert_eq(wf_u32_load_acquire(&rush.ran), 50);
	runtime_end(rush.rt);
}

Test(runtime, survivors_of_a_stop_are_named, .timeout = 120)
{
	struct weft_spawn_opts spawn = {.size = sizeof spawn, .name = "stubborn"};
	struct gate gate = {0};
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 2, .log = keep, .log_ctx = &log_lines});
	char text[WEFT_PID_TEXT_MAX];
	weft_pid pid, gone;
	int result;

	gone = rt_spawned(rt, returns, &(int){1});
	cr_assert_eq(weft_rt_spawn(rt, heeds_nothing, &gate, &spawn, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gate.in));
	cr_assert_eq(joined(gone), 1);
	cr_assert_eq(weft_rt_stop(rt, 0, 0), -ETIMEDOUT);
	cr_assert_eq(weft_rt_stop(rt, WEFT_MS(1), weft_after(WEFT_MS(2))), -ETIMEDOUT);
	cr_assert(told(&log_lines, "\"stubborn\""));
	cr_assert(told(&log_lines, weft_pid_format(pid, text)), "%s", text);
	cr_assert(!told(&log_lines, weft_pid_format(gone, text)), "%s has ended", text);
	cr_assert_eq(weft_rt_destroy(rt, 0), -EBUSY);
	cr_assert_eq(weft_rt_destroy(rt, weft_after(WEFT_MS(1))), -EBUSY);
	/* Nothing was freed. */
	cr_assert_eq(weft_try_join(pid, &result), -EAGAIN);
	cr_assert_eq(weft_rt_workers(rt), 2);
	wf_u32_store_release(&gate.open, 1);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(joined(pid), 3);
	runtime_end(rt);
	cr_assert_eq(weft_try_join(pid, &result), -ESRCH);
}

/*
 * X8: waiting processes whose cancel is slow, since the worker that has to serve it is held: a
 * movable one that no worker owns, one with a deadline on the held worker's wheel, and reads in the
 * driver.
 */
struct late {
	wf_atomic_u32 waiting;   /* about to wait */
	wf_atomic_u32 destroyed; /* arguments */
	struct gate gate;
};

struct late_reader {
	struct late *late;
	int fd[2];
};

static int parks_late(void *arg)
{
	struct late *late = arg;

	wf_u32_fetch_add(&late->waiting, 1);
	return weft_park(WEFT_FOREVER);
}

static int sleeps_late(void *arg)
{
	struct late *late = arg;

	wf_u32_fetch_add(&late->waiting, 1);
	return weft_sleep_until(weft_after(WEFT_SEC(3600)));
}

static int reads_late(void *arg)
{
	struct late_reader *reader = arg;
	char byte;
	int r;

	wf_u32_fetch_add(&reader->late->waiting, 1);
	r = (int)weft_read(reader->fd[0], &byte, 1, WEFT_FOREVER);
	cr_assert_eq(weft_close(reader->fd[0]), 0);
	return r;
}

static void late_destroyed(void *arg)
{
	wf_u32_fetch_add(&((struct late *)arg)->destroyed, 1);
}

static int holds_the_worker(void *arg)
{
	struct gate *gate = arg;

	wf_u32_store_release(&gate->in, 1);
	while (!wf_u32_load_acquire(&gate->open))
		sched_yield();
	return 4;
}

static void ends_late(weft_rt *rt)
{
	static const unsigned flags[] = {0, WEFT_MOVABLE};
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(1)};
	struct late late = {.waiting = {0}};
	struct late_reader readers[2] = {{.late = &late}, {.late = &late}};
	weft_pid pids[6], holder;

	for (int i = 0; i < 2; i++) {
		opts.flags = flags[i];
		opts.arg_dtor = late_destroyed;
		cr_assert_eq(weft_rt_spawn(rt, parks_late, &late, &opts, &pids[3 * i]), 0);
		cr_assert_eq(weft_rt_spawn(rt, sleeps_late, &late, &opts, &pids[3 * i + 1]), 0);
		opts.arg_dtor = NULL;
		cr_assert_eq(pipe2(readers[i].fd, O_CLOEXEC), 0);
		cr_assert_eq(
			weft_rt_spawn(rt, reads_late, &readers[i], &opts, &pids[3 * i + 2]), 0);
	}
	UNTIL_FOREIGN(wf_u32_load_acquire(&late.waiting) == 6);
	opts.flags = 0;
	/* When this one runs there, the sticky ones wait. */
	cr_assert_eq(weft_rt_spawn(rt, holds_the_worker, &late.gate, &opts, &holder), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&late.gate.in));
	cr_assert_eq(weft_rt_stop(rt, 0, weft_after(WEFT_MS(1))), -ETIMEDOUT);
	cr_assert_eq(weft_rt_destroy(rt, 0), -EBUSY);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(weft_try_join(pids[i], NULL), -EAGAIN, "process %d", i);
	wf_u32_store_release(&late.gate.open, 1);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(joined(holder), 4);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(joined(pids[i]), -ECANCELED, "process %d", i);
	cr_assert_eq(wf_u32_load_acquire(&late.destroyed), 4);
	for (int i = 0; i < 2; i++)
		close(readers[i].fd[1]);
}

Test(runtime, what_ends_late_ends_before_its_driver, .timeout = 60)
{
	struct counts before;

	runtime_end(runtime_new(2)); /* what is made once for the process */
	before = counts_now();
	for (int round = 0; round < 20; round++) {
		weft_rt *rt = runtime_new_with(
			&(struct weft_rt_opts){.workers = 2, .log = keep, .log_ctx = &log_lines});

		ends_late(rt);
		runtime_end(rt);
		counts_are(before);
	}
}

static void stops_too(unsigned index, void *arg)
{
	weft_time grace = index == 2 ? 0 : WEFT_SEC(3600);

	cr_assert_eq(weft_rt_stop(arg, grace, WEFT_FOREVER), 0);
}

Test(runtime, several_threads_stop_at_once, .timeout = 120)
{
	for (int i = 0; i < 20; i++) {
		weft_rt *rt = runtime_new(2);
		weft_pid pid = rt_spawned(rt, parks, NULL);

		harness_threads(4, stops_too, rt);
		cr_assert_eq(joined(pid), -ECANCELED);
		cr_assert_eq(weft_rt_stop(rt, 0, 0), 0, "again, after the end");
		cr_assert_eq(weft_rt_run(rt), 0);
		runtime_end(rt);
	}
	cr_assert_eq(weft_rt_destroy(NULL, 0), 0);
}

static int main_body(void *arg)
{
	(void)arg;
	return 0;
}

static void asks_for_deadlocks(void *arg)
{
	weft_rt *rt = weft_rt_current(), *made = NULL;
	struct weft_error error = {0};
	struct weft_rt_opts opts = {
		.size = sizeof opts, .error = &error, .log = keep, .log_ctx = &log_lines};

	cr_assert_eq(weft_rt_run(rt), -EDEADLK);
	cr_assert_eq(weft_rt_destroy(rt, 0), -EDEADLK);
	cr_assert_eq(weft_rt_run(arg), -EDEADLK);
	cr_assert_eq(weft_rt_destroy(arg, 0), -EDEADLK);
	cr_assert_eq(weft_rt_create(&opts, &made), -EDEADLK);
	cr_assert_null(made);
	cr_assert_eq(error.error, -EDEADLK);
	cr_assert_str_neq(error.text, "");
	cr_assert_eq(weft_main(&opts, main_body, NULL), -EDEADLK);
}

static int asks_for_deadlocks_in_a_process(void *arg)
{
	asks_for_deadlocks(arg);
	/* Of another runtime it may begin the stop, not wait for it. */
	UNTIL(weft_rt_stop(arg, 0, WEFT_FOREVER) == 0);
	return 1;
}

Test(runtime, deadlocks_are_refused, .timeout = 120)
{
	weft_rt *rt = runtime_new(1), *other = runtime_new(1);

	cr_assert_eq(weft_post(rt, asks_for_deadlocks, other), 0);
	cr_assert_eq(runtime_do(rt, asks_for_deadlocks_in_a_process, other), 1);
	runtime_end(rt);
	runtime_end(other);
}

/* ---- Run ------------------------------------------------------------------------------------ */

struct chain {
	weft_rt *rt;
	wf_atomic_u32 left, ran;
};

static int spawns_its_successor(void *arg)
{
	struct chain *chain = arg;

	wf_u32_fetch_add(&chain->ran, 1);
	if (wf_u32_fetch_add(&chain->left, (uint32_t)-1) > 1)
		cr_assert_eq(weft_spawn(spawns_its_successor, chain, NULL), 0);
	return -7; /* nobody's error */
}

Test(runtime, run_returns_when_nothing_is_alive, .timeout = 120)
{
	struct weft_error error;

	for (unsigned workers = 1; workers <= 2; workers++) {
		struct chain chain = {.left = {500}};
		weft_rt *rt = runtime_new(workers);
		weft_pid pid = rt_spawned(rt, returns, &(int){4});

		cr_assert_eq(weft_rt_spawn(rt, spawns_its_successor, &chain, NULL, NULL), 0);
		cr_assert_eq(weft_rt_run(rt), 0);
		cr_assert_eq(wf_u32_load_acquire(&chain.ran), 500);
		cr_assert_eq(weft_rt_error(rt, 0, &error), -ENOENT);
		cr_assert_eq(weft_rt_spawn(rt, main_body, NULL, NULL, NULL), -ESHUTDOWN);
		cr_assert_eq(joined(pid), 4);
		runtime_end(rt);
	}
	for (int i = 0; i < 20; i++) {
		weft_rt *rt = runtime_new(1);

		cr_assert_eq(weft_rt_run(rt), 0, "with nothing ever alive");
		runtime_end(rt);
	}
}

Test(runtime, ends_by_itself_only_once_started, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);
	weft_pid pid;
	int r;

	for (int i = 0; i < 200; i++) /* it is empty each time */
		cr_assert_eq(runtime_do(rt, returns, &(int){i}), i);
	pid = rt_spawned(rt, parks, NULL);
	cr_assert_eq(weft_rt_start(rt), 0);
	for (int i = 0; i < 200; i++)
		cr_assert_eq(runtime_do(rt, returns, &(int){i}), i);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(joined(pid), 0);
	while ((r = weft_rt_spawn(rt, main_body, NULL, NULL, NULL)) == 0)
		sched_yield();
	cr_assert_eq(r, -ESHUTDOWN);
	cr_assert_eq(weft_rt_run(rt), 0);
	runtime_end(rt);
}

/* ---- Post ----------------------------------------------------------------------------------- */

enum { POSTS = 1000 };

struct posted {
	weft_rt *rt;
	wf_atomic_u32 next, left;
	uint32_t numbers[POSTS];
};

static void comes_in_order(void *arg)
{
	static struct posted *posted;
	uint32_t *number = arg;

	if (*number == 0)
		posted = WF_CONTAINER_OF(number, struct posted, numbers[0]);
	cr_assert_eq(wf_u32_load_relaxed(&posted->next), *number);
	wf_u32_store_release(&posted->next, *number + 1);
}

static void posts_in_order(struct posted *posted)
{
	for (uint32_t i = 0; i < POSTS; i++) {
		posted->numbers[i] = i;
		cr_assert_eq(weft_post(posted->rt, comes_in_order, &posted->numbers[i]), 0);
	}
}

static int posts_from_inside(void *arg)
{
	posts_in_order(arg);
	return 1;
}

Test(runtime, posts_run_in_order_and_count_as_alive, .timeout = 120)
{
	static struct posted posted;
	weft_pid pid;

	posted.rt = runtime_new(1);
	posts_in_order(&posted);
	cr_assert_eq(weft_rt_run(posted.rt), 0);
	cr_assert_eq(wf_u32_load_acquire(&posted.next), POSTS);
	runtime_end(posted.rt);

	wf_u32_store_relaxed(&posted.next, 0);
	posted.rt = runtime_new(1);
	pid = rt_spawned(posted.rt, posts_from_inside, &posted);
	cr_assert_eq(weft_rt_run(posted.rt), 0);
	cr_assert_eq(joined(pid), 1);
	cr_assert_eq(wf_u32_load_acquire(&posted.next), POSTS);
	runtime_end(posted.rt);
}

static void posts_its_successor(void *arg)
{
	struct chain *chain = arg;
	weft_pid pid = {0};

	wf_u32_fetch_add(&chain->ran, 1);
	cr_assert(weft_rt_current() == chain->rt);
	cr_assert_geq(weft_worker_index(), 0);
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(weft_park(0), -EPERM);
	cr_assert_eq(weft_yield(), -EPERM);
	cr_assert_eq(weft_sleep_until(0), -EPERM);
	cr_assert_eq(weft_rt_spawn(chain->rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_detach(pid), 0);
	if (wf_u32_fetch_add(&chain->left, (uint32_t)-1) > 1)
		cr_assert_eq(weft_post(chain->rt, posts_its_successor, chain), 0);
}

Test(runtime, posts_may_post_and_spawn_but_not_park, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		struct chain chain = {.rt = runtime_new(workers), .left = {300}};

		cr_assert_eq(weft_post(chain.rt, NULL, NULL), -EINVAL);
		cr_assert_eq(weft_post(chain.rt, posts_its_successor, &chain), 0);
		cr_assert_eq(weft_rt_run(chain.rt), 0);
		cr_assert_eq(wf_u32_load_acquire(&chain.ran), 300);
		cr_assert_eq(weft_post(chain.rt, posts_its_successor, &chain), -ESHUTDOWN);
		runtime_end(chain.rt);
	}
}

static void posts_until_refused(unsigned index, void *arg)
{
	struct rush *rush = arg;

	if (index == SPAWNERS) {
		UNTIL_FOREIGN(wf_u32_load_acquire(&rush->ran) >= 100);
		cr_assert_eq(weft_rt_stop(rush->rt, 0, WEFT_FOREVER), 0);
		return;
	}
	for (;;) {
		int r = weft_post(rush->rt, count_one, &rush->ran);

		if (r < 0) {
			cr_assert_eq(r, -ESHUTDOWN);
			return;
		}
		wf_u32_fetch_add(&rush->accepted, 1);
	}
}

Test(runtime, posts_run_exactly_if_accepted_across_a_stop, .timeout = 120)
{
	for (int round = 0; round < 10 / HARNESS_SLOWDOWN + 2; round++) {
		struct rush rush = {.rt = runtime_new(1 + round % 2)};

		harness_threads(SPAWNERS + 1, posts_until_refused, &rush);
		cr_assert_eq(wf_u32_load_acquire(&rush.ran), wf_u32_load_acquire(&rush.accepted));
		runtime_end(rush.rt);
	}
}
/* ---- Memory --------------------------------------------------------------------------------- */

/* Of an allocation, in front of it. */
struct tag {
	size_t size, room;
	uint64_t magic;
};

#define MAGIC 0x5afe5afe5afe5afeULL

struct meter {
	wf_atomic_u64 live, bytes;
	wf_atomic_u32 calls;
	uint32_t fails_first, fails_last; /* the calls that get nothing, from 1; 0: none */
};

static void *meter_allocate(void *ctx, size_t alignment, size_t size)
{
	struct meter *meter = ctx;
	uint32_t call = wf_u32_fetch_add(&meter->calls, 1) + 1;
	size_t room = alignment < 64 ? 64 : alignment;
	void *memory = NULL;
	struct tag *tag;

	cr_assert_gt(size, 0);
	cr_assert_gt(alignment, 0);
	cr_assert_eq(alignment & (alignment - 1), 0);
	if (call >= meter->fails_first && call <= meter->fails_last)
		return NULL;
	cr_assert_eq(posix_memalign(&memory, room, room + size), 0);
	tag = (struct tag *)((char *)memory + room) - 1;
	*tag = (struct tag){size, room, MAGIC};
	wf_u64_fetch_add(&meter->live, 1);
	wf_u64_fetch_add(&meter->bytes, size);
	return memset((char *)memory + room, 0xa5, size); /* nobody may count on zeroes */
}

static void meter_release(void *ctx, void *memory, size_t size)
{
	struct meter *meter = ctx;
	struct tag *tag = (struct tag *)memory - 1;

	cr_assert_eq(tag->magic, MAGIC);
	cr_assert_eq(tag->size, size);
	tag->magic = 0;
	wf_u64_fetch_add(&meter->live, (uint64_t)-1);
	wf_u64_fetch_add(&meter->bytes, -(uint64_t)size);
	memset(memory, 0x5a, size);
	free((char *)memory - tag->room);
}

static void meter_is_balanced(struct meter *meter)
{
	cr_assert_eq(wf_u64_load_acquire(&meter->live), 0);
	cr_assert_eq(wf_u64_load_acquire(&meter->bytes), 0);
}

static int uses_memory(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "named"};
	weft_pid pid;

	(void)arg;
	for (int i = 0; i < 5000; i++) {
		cr_assert_eq(weft_spawn_with(parks, NULL, i % 2 ? &opts : NULL, &pid), 0);
		cr_assert_eq(weft_wake(pid), 0);
		cr_assert_eq(joined(pid), 0);
		cr_assert_eq(weft_spawn_with(parks, NULL, &opts, i % 4 ? NULL : &pid), 0);
	}
	return 1;
}

Test(runtime, allocator_is_told_the_size_it_was_asked_for, .timeout = 120)
{
	struct meter meter = {0};
	struct weft_allocator allocator = {meter_allocate, meter_release, &meter};
	wf_atomic_u32 ran = {0};

	for (uint32_t i = 0; i < 3; i++) {
		weft_rt *rt = runtime_new_with(
			&(struct weft_rt_opts){.workers = 2, .allocator = &allocator});

		cr_assert_eq(runtime_do(rt, uses_memory, NULL), 1);
		for (int k = 0; k < 100; k++)
			cr_assert_eq(weft_post(rt, count_one, &ran), 0);
		cr_assert_gt(wf_u64_load_acquire(&meter.live), 0);
		runtime_end(rt);
		cr_assert_eq(wf_u32_load_acquire(&ran), 100 * (i + 1));
		meter_is_balanced(&meter);
	}
}

struct attempt {
	int created, spawned, posted;
	wf_atomic_u32 ran, dtors;
};

/* Each step with memory or without: 0, or -ENOMEM and nothing done. */
static bool attempt_all(weft_rt *rt, struct attempt *attempt)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "named", .arg_dtor = count_one};
	weft_pid pid;
	int result = 99;

	attempt->spawned = weft_rt_spawn(rt, parks, &attempt->dtors, &opts, &pid);
	cr_assert(attempt->spawned == 0 || attempt->spawned == -ENOMEM, "spawn: %d",
		attempt->spawned);
	if (attempt->spawned == 0) {
		cr_assert_eq(weft_wake(pid), 0);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
		cr_assert(result == 0 || result == -ENOMEM, "%d", result);
	}
	attempt->posted = weft_post(rt, count_one, &attempt->ran);
	cr_assert(attempt->posted == 0 || attempt->posted == -ENOMEM, "post: %d", attempt->posted);
	return attempt->spawned == 0 && result == 0 && attempt->posted == 0;
}

/* One life in which the calls first … last get no memory. True: all went well. */
static bool lives_without(uint32_t first, uint32_t last, struct meter *meter)
{
	struct weft_allocator allocator = {meter_allocate, meter_release, meter};
	struct weft_error error = {0};
	struct weft_rt_opts opts = {.size = sizeof opts,
		.workers = 2,
		.idle = WEFT_IDLE_PARK,
		.allocator = &allocator,
		.error = &error,
		.log = keep,
		.log_ctx = &log_lines};
	struct attempt attempt = {0};
	bool good = false;
	weft_rt *rt = NULL;

	*meter = (struct meter){.fails_first = first, .fails_last = last};
	attempt.created = weft_rt_create(&opts, &rt);
	if (attempt.created == 0) {
		good = attempt_all(rt, &attempt);
		cr_assert_eq(weft_rt_destroy(rt, WEFT_FOREVER), 0);
	} else {
		cr_assert_eq(attempt.created, -ENOMEM);
		cr_assert_eq(error.error, -ENOMEM);
		cr_assert_str_neq(error.text, "");
		cr_assert_not_null(error.step);
		cr_assert_null(rt);
	}
	cr_assert_eq(
		wf_u32_load_acquire(&attempt.dtors), attempt.created == 0 && attempt.spawned == 0);
	cr_assert_eq(
		wf_u32_load_acquire(&attempt.ran), attempt.created == 0 && attempt.posted == 0);
	meter_is_balanced(meter);
	return good;
}

static void runs_out_of_memory(bool for_good)
{
	struct counts before;
	struct meter meter;
	uint32_t n;

	cr_assert(lives_without(0, 0, &meter)); /* and what is made once */
	before = counts_now();
	for (n = 1; n < 1000; n++) {
		bool good = lives_without(n, for_good ? UINT32_MAX : n, &meter);

		counts_are(before);
		if (good && wf_u32_load_acquire(&meter.calls) < n)
			break;
	}
	cr_assert_gt(n, 5, "it asked for nothing");
	cr_assert_lt(n, 1000);
}

Test(runtime, survives_each_allocation_that_fails, .timeout = 120)
{
	runs_out_of_memory(false);
}

Test(runtime, survives_the_end_of_memory, .timeout = 120)
{
	runs_out_of_memory(true);
}

/* ---- Names, places, the log ----------------------------------------------------------------- */

static int named(void *arg)
{
	char name[16], expected[48];

	cr_assert_eq(pthread_getname_np(pthread_self(), name, sizeof name), 0);
	snprintf(expected, sizeof expected, "weft/%s/%d", (const char *)arg, weft_worker_index());
	cr_assert_str_eq(name, expected);
	return 1;
}

static void names_are(const char *name, const char *shown)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = 2, .name = name});

	for (unsigned i = 0; i < 2; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(i)};
		char copy[16];
		weft_pid pid;

		snprintf(copy, sizeof copy, "%s", shown);
		cr_assert_eq(weft_rt_spawn(rt, named, copy, &opts, &pid), 0);
		cr_assert_eq(joined(pid), 1);
	}
	runtime_end(rt);
}

Test(runtime, threads_are_named, .timeout = 120)
{
	char before[16], after[16];

	cr_assert_eq(pthread_getname_np(pthread_self(), before, sizeof before), 0);
	names_are(NULL, "weft");
	names_are("kv", "kv");
	names_are("a-name-that-is-much-too-long", "a-name-t");
	cr_assert_eq(pthread_getname_np(pthread_self(), after, sizeof after), 0);
	cr_assert_str_eq(before, after, "the host's thread was renamed");
}

/* On which CPU alone the caller may run, -1 if on several. */
static int only_cpu(void)
{
	cpu_set_t set;

	cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
	return CPU_COUNT(&set) == 1 ? first_cpu() : -1;
}

static int tells_cpu(void *arg)
{
	(void)arg;
	return only_cpu();
}

static void worker_is_on(weft_rt *rt, unsigned worker, int cpu)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(worker)};
	int result = 99;
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, tells_cpu, NULL, &opts, &pid), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, cpu, "worker %u", worker);
}

static int second_cpu(void)
{
	cpu_set_t set;

	cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
	for (int cpu = first_cpu() + 1; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			return cpu;
	cr_skip_test("one CPU");
	return -1;
}

Test(runtime, workers_are_pinned_to_the_list_in_order, .timeout = 120)
{
	int cpus[2] = {second_cpu(), first_cpu()};
	cpu_set_t before, after;
	char list[32];
	weft_rt *rt;

	cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
	snprintf(list, sizeof list, "%d,%d", cpus[0], cpus[1]);
	rt = runtime_new_with(&(struct weft_rt_opts){.workers = 2, .cpus = list});
	for (unsigned i = 0; i < 2; i++)
		worker_is_on(rt, i, cpus[i]);
	runtime_end(rt);
	/* An explicit list pins though `pin` says no; fewer workers use its beginning. */
	rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .cpus = list, .pin = WEFT_PIN_OFF});
	worker_is_on(rt, 0, cpus[0]);
	runtime_end(rt);
	rt = runtime_new_with(&(struct weft_rt_opts){.workers = 1});
	worker_is_on(rt, 0, -1);
	runtime_end(rt);
	cr_assert_eq(sched_getaffinity(0, sizeof after, &after), 0);
	cr_assert(CPU_EQUAL(&before, &after), "the host's thread was pinned");
}

Test(runtime, default_workers_are_the_allowed_cpus, .timeout = 120)
{
	int cpu = first_cpu();
	cpu_set_t set;
	char list[16];
	weft_rt *rt = runtime_new(0);

	cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
	cr_assert_geq(weft_rt_workers(rt), 1);
	cr_assert_leq(weft_rt_workers(rt), (unsigned)CPU_COUNT(&set));
	runtime_end(rt);
	snprintf(list, sizeof list, "%d", cpu);
	rt = runtime_new_with(&(struct weft_rt_opts){.cpus = list});
	cr_assert_eq(weft_rt_workers(rt), 1);
	worker_is_on(rt, 0, cpu);
	runtime_end(rt);
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	cr_assert_eq(sched_setaffinity(0, sizeof set, &set), 0);
	rt = runtime_new(0);
	cr_assert_eq(weft_rt_workers(rt), 1);
	cr_assert_eq(runtime_do(rt, tells_cpu, NULL), cpu);
	runtime_end(rt);
}

/* ---- weft_main() ---------------------------------------------------------------------------- */

static struct weft_rt_opts main_opts(struct weft_error *error)
{
	return (struct weft_rt_opts){.size = sizeof(struct weft_rt_opts),
		.workers = 1,
		.pin = WEFT_PIN_OFF,
		.log = keep,
		.log_ctx = &log_lines,
		.grace_ns = WEFT_SEC(3600),
		.error = error};
}

Test(main, passes_the_result_of_its_first_process, .timeout = 120)
{
	static int values[] = {0, 7, -1, -ENOENT, -ECANCELED, INT_MAX, INT_MIN};
	struct weft_rt_opts opts = main_opts(NULL);
	struct counts before;
	sigset_t mask_before, mask_after;

	cr_assert_eq(weft_main(&opts, returns, &values[0]), 0);
	before = counts_now();
	pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
	for (size_t i = 0; i < WF_ARRAY_COUNT(values); i++)
		cr_assert_eq(weft_main(&opts, returns, &values[i]), values[i]);
	cr_assert_eq(weft_main(NULL, returns, &values[1]), 7);
	cr_assert_eq(weft_main(&opts, NULL, NULL), -EINVAL);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
	for (int sig = 1; sig < 32; sig++)
		cr_assert_eq(sigismember(&mask_before, sig), sigismember(&mask_after, sig));
	counts_are(before);
}

static int leaves_a_child(void *arg)
{
	struct chain *chain = arg;

	cr_assert_eq(weft_spawn(spawns_its_successor, chain, NULL), 0);
	return 5;
}

Test(main, waits_for_every_process, .timeout = 120)
{
	struct weft_rt_opts opts = main_opts(NULL);
	struct chain chain = {.left = {200}};

	cr_assert_eq(weft_main(&opts, leaves_a_child, &chain), 5);
	cr_assert_eq(wf_u32_load_acquire(&chain.ran), 200);
}

/* Sends itself a signal and waits until weft_main() has taken it. */
static void is_signalled(int sig)
{
	unsigned lines;

	pthread_mutex_lock(&log_lines.lock);
	lines = log_lines.count;
	pthread_mutex_unlock(&log_lines.lock);
	cr_assert_eq(kill(getpid(), sig), 0);
	for (;;) {
		bool more;

		pthread_mutex_lock(&log_lines.lock);
		more = log_lines.count > lines;
		pthread_mutex_unlock(&log_lines.lock);
		if (more)
			return;
		weft_yield();
	}
}

static int is_terminated(void *arg)
{
	int sig = *(int *)arg;

	is_signalled(sig);
	/* Graceful: it may finish, and start more. */
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(joined(spawned(returns, &i)), i);
		cr_assert_eq(weft_yield(), 0);
	}
	return 21;
}

static int is_terminated_twice(void *arg)
{
	(void)is_terminated(arg);
	is_signalled(*(int *)arg);
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	return 22;
}

static int is_terminated_and_parks(void *arg)
{
	cr_assert_eq(kill(getpid(), *(int *)arg), 0);
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	return 23;
}

Test(main, first_signal_is_graceful_second_cancels, .timeout = 120)
{
	static int signals[] = {SIGTERM, SIGINT};
	struct weft_rt_opts opts = main_opts(NULL);

	for (int i = 0; i < 2; i++) {
		cr_assert_eq(weft_main(&opts, is_terminated, &signals[i]), 21);
		cr_assert_eq(weft_main(&opts, is_terminated_twice, &signals[i]), 22);
		opts.grace_ns = WEFT_MS(1);
		cr_assert_eq(weft_main(&opts, is_terminated_and_parks, &signals[i]), 23);
		opts.grace_ns = WEFT_SEC(3600);
	}
}

/* Cancelled by the second signal, and does not heed it: the caller gets its thread back. */
static struct gate stubborn;

static int heeds_no_signal(void *arg)
{
	is_signalled(*(int *)arg);
	is_signalled(*(int *)arg);
	(void)heeds_nothing(&stubborn);
	wf_u32_store_release(&stubborn.in, 0);
	return 0;
}

Test(main, gives_up_on_what_outlives_its_cancellation, .timeout = 60)
{
	struct weft_rt_opts opts = main_opts(NULL);
	sigset_t mask_before, mask_after;
	int sig = SIGTERM;

	pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
	cr_assert_eq(weft_main(&opts, heeds_no_signal, &sig), -ETIMEDOUT);
	cr_assert(told(&log_lines, "still alive: process"), "%s", log_lines.text);
	cr_assert(told(&log_lines, "\"main\""), "%s", log_lines.text);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
	cr_assert_eq(sigismember(&mask_before, sig), sigismember(&mask_after, sig));
	/* It still runs: nothing was freed under it. */
	wf_u32_store_release(&stubborn.open, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&stubborn.in) == 0);
	/* Its threads are nobody's to join: a leak by design. */
	if (HARNESS_TSAN)
		syscall(SYS_exit_group, 0);
}

static void environment_is_refused(const char *name, const char *value, int expected)
{
	struct weft_error error = {0};
	struct weft_rt_opts opts = main_opts(&error);
	struct counts before = counts_now();
	unsigned lines = log_lines.count;

	opts.workers = 0;
	cr_assert_eq(setenv(name, value, 1), 0);
	cr_assert_eq(weft_main(&opts, main_body, NULL), expected, "%s=%s", name, value);
	cr_assert_eq(error.error, expected);
	cr_assert_str_neq(error.text, "");
	cr_assert_eq(log_lines.count, lines + 1, "one line, for %s=%s", name, value);
	cr_assert_eq(unsetenv(name), 0);
	counts_are(before);
}

static int tells_workers(void *arg)
{
	(void)arg;
	return (int)weft_rt_workers(weft_rt_current());
}

Test(main, reads_the_environment, .timeout = 120)
{
	static const char *const counts[] = {
		"", "0", "x", "2x", "-1", " 1", "1 ", "1000", "99999999999999999999"};
	struct weft_rt_opts opts = main_opts(NULL);

	for (size_t i = 0; i < WF_ARRAY_COUNT(counts); i++)
		environment_is_refused("WEFT_WORKERS", counts[i], -EINVAL);
	environment_is_refused("WEFT_IDLE", "lazy", -EINVAL);
	environment_is_refused("WEFT_DRIVER", "paper", -ENODEV);
	environment_is_refused("WEFT_CPUS", "zero", -EINVAL);
	environment_is_refused("WEFT_CPUS", "1023", -ENODEV);
	/* Not for those who have a log of their own. */
	cr_assert_eq(setenv("WEFT_LOG", "loud", 1), 0);
	cr_assert_eq(weft_main(&opts, tells_workers, NULL), 1);
	opts.log = NULL;
	cr_assert_eq(weft_main(&opts, tells_workers, NULL), -EINVAL);
	cr_assert_eq(setenv("WEFT_LOG", "error", 1), 0);
	cr_assert_eq(weft_main(&opts, tells_workers, NULL), 1);
	opts.log = keep;
	/* The options win. */
	cr_assert_eq(setenv("WEFT_WORKERS", "x", 1), 0);
	cr_assert_eq(setenv("WEFT_IDLE", "park", 1), 0);
	cr_assert_eq(weft_main(&opts, tells_workers, NULL), 1);
	opts.workers = 0;
	cr_assert_eq(setenv("WEFT_WORKERS", "2", 1), 0);
	cr_assert_eq(weft_main(&opts, tells_workers, NULL), 2);
}
