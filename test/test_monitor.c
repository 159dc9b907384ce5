/*
 * Goal: a process that holds its worker is named, once, with where it is if that is asked for; the
 * others go on; who does not stall is not named; and nothing of the host's is left changed.
 * Method: processes that spin until the log has been told of them, so that no time decides; a log
 * that keeps its lines. Nobody is said to stall by accident: other tests' thresholds are long.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "core/monitor.h"
#include "core/stall.h"
#include "core/timers.h"
#include "test/runtime.h"

enum { LINES_MAX = 64 };

/* A name that can be an argument too. */
#define NAME(text) ((char[]){text})

static struct {
	pthread_mutex_t lock;
	unsigned count;
	struct line {
		enum weft_log_level level;
		int worker;
		weft_pid pid;
		char text[1024];
	} lines[LINES_MAX];
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep(void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	cr_assert_null(strchr(text, '\n'));
	pthread_mutex_lock(&kept.lock);
	if (strstr(text, "has held worker") && kept.count < LINES_MAX) {
		struct line *line = &kept.lines[kept.count++];

		line->level = level;
		line->worker = worker;
		line->pid = pid;
		snprintf(line->text, sizeof line->text, "%s", text);
	}
	pthread_mutex_unlock(&kept.lock);
}

static unsigned reports(const char *who)
{
	unsigned count = 0;

	pthread_mutex_lock(&kept.lock);
	for (unsigned i = 0; i < kept.count; i++)
		count += strstr(kept.lines[i].text, who) != NULL;
	pthread_mutex_unlock(&kept.lock);
	return count;
}

static struct line first_report(const char *who)
{
	struct line line = {.worker = -1};

	pthread_mutex_lock(&kept.lock);
	for (unsigned i = kept.count; i-- > 0;)
		if (strstr(kept.lines[i].text, who))
			line = kept.lines[i];
	pthread_mutex_unlock(&kept.lock);
	return line;
}

static weft_rt *runtime_that_tells(unsigned workers, weft_time stall_ns, unsigned flags)
{
	return runtime_new_with(&(struct weft_rt_opts){.workers = workers,
		.stall_ns = stall_ns,
		.flags = flags,
		.idle = WEFT_IDLE_PARK,
		.log = keep});
}

/* arg NULL: the name is the argument. */
static weft_pid named(weft_rt *rt, weft_fn fn, void *arg, char *name, unsigned worker)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = name, .worker = worker};
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, fn, arg ? arg : name, &opts, &pid), 0);
	return pid;
}

static int joined_foreign(weft_pid pid)
{
	int result = -1;

	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	return result;
}

/* ---- One report ------------------------------------------------------------------------------ */

static wf_atomic_u32 moved;

static int moves(void *arg)
{
	(void)arg;
	(void)wf_u32_fetch_add(&moved, 1);
	return 0;
}

/* Its movable work, made before it stalls, goes on; so until that and the report it spins. */
WEFT_API int spins_until_reported(void *arg);
int spins_until_reported(void *arg)
{
	uint64_t until;

	for (int i = 0; i < 20; i++)
		cr_assert_eq(weft_spawn(moves, NULL, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_relaxed(&moved) >= 20 && reports(arg) > 0);
	/* Four more times the threshold, and still one. */
	until = harness_now_ns() + 40000000;
	UNTIL_FOREIGN(harness_now_ns() >= until);
	return (int)reports(arg);
}

/* B4 */
Test(monitor, names_a_process_that_stalls_once, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(2, WEFT_MS(10), 0);
	weft_pid pid = named(rt, spins_until_reported, NULL, NAME("greedy"), 2);
	char id[WEFT_PID_TEXT_MAX];
	struct line line;

	cr_assert_eq(joined_foreign(pid), 1);
	runtime_end(rt);
	cr_assert_eq(reports("greedy"), 1);
	line = first_report("greedy");
	cr_assert_eq(line.level, WEFT_LOG_WARN);
	cr_assert_eq(line.worker, 1);
	cr_assert(weft_pid_equal(line.pid, pid));
	cr_assert_not_null(strstr(line.text, weft_pid_format(pid, id)), "%s", line.text);
	cr_assert_null(strstr(line.text, " in "), "nobody asked where: %s", line.text);
}

Test(monitor, default_threshold_and_one_worker, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(1, 0, 0);

	wf_u32_store_relaxed(&moved, 20); /* nobody else is there to run them */
	cr_assert_eq(
		joined_foreign(named(rt, spins_until_reported, NULL, NAME("alone"), 1)), 1);
	runtime_end(rt);
}

static int stalls_again(void *arg)
{
	uint64_t until;

	(void)arg;
	UNTIL_FOREIGN(reports("again") > 0);
	cr_assert_eq(weft_yield(), 0);
	until = harness_now_ns() + 30000000;
	UNTIL_FOREIGN(harness_now_ns() >= until);
	return (int)reports("again");
}

Test(monitor, reports_of_a_worker_are_a_second_apart, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(1, WEFT_MS(5), 0);
	uint64_t before = harness_now_ns();
	int count = joined_foreign(named(rt, stalls_again, NULL, NAME("again"), 1));

	cr_assert(count == 1 || harness_now_ns() - before > 1000000000, "%d", count);
	runtime_end(rt);
}

static void posts_until_reported(void *arg)
{
	(void)arg;
	UNTIL_FOREIGN(reports("a post") > 0);
}

Test(monitor, names_a_post_that_stalls, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(1, WEFT_MS(5), 0);

	cr_assert_eq(weft_post(rt, posts_until_reported, NULL), 0);
	runtime_end(rt);
	cr_assert_eq(reports("a post"), 1);
	cr_assert(weft_pid_is_none(first_report("a post").pid));
}

/* After a long rest the monitor sleeps; the worker that is woken wakes it. */
Test(monitor, wakes_with_the_first_worker, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(2, WEFT_MS(5), 0);

	UNTIL_FOREIGN(wf_u32_load_acquire(&rt->monitor->state) == WF_MONITOR_ASLEEP);
	cr_assert_eq(joined_foreign(named(rt, spins_until_reported, NULL, NAME("late"), 1)), 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&rt->monitor->state) == WF_MONITOR_ASLEEP);
	runtime_end(rt);
}

/* ---- Who does not stall ---------------------------------------------------------------------- */

static int yields_for_long(void *arg)
{
	uint64_t until = harness_now_ns() + *(uint64_t *)arg;

	while (harness_now_ns() < until)
		cr_assert_eq(weft_yield(), 0);
	return 0;
}

static int sleeps_for_long(void *arg)
{
	return weft_sleep_until(weft_after((weft_time) * (uint64_t *)arg));
}

Test(monitor, who_yields_or_sleeps_does_not_stall, .timeout = 120)
{
	/* Ten times as long; who waits for a CPU, on a busy machine, does not stall either. */
	weft_rt *rt = runtime_that_tells(2, WEFT_MS(50), 0);
	uint64_t long_ns = 500000000;
	weft_pid a = named(rt, yields_for_long, &long_ns, NAME("yields"), 1);
	weft_pid b = named(rt, sleeps_for_long, &long_ns, NAME("sleeps"), 2);

	cr_assert_eq(joined_foreign(a) + joined_foreign(b), 0);
	runtime_end(rt);
	cr_assert_eq(reports("sleeps"), 0);
	cr_assert_eq(reports("yields"), 0);
}

static int ends(void *arg)
{
	(void)arg;
	return 0;
}

/* Before it is destroyed, which may be much later. */
Test(monitor, sleeps_when_its_runtime_has_ended, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(2, WEFT_MS(3), 0);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, ends, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	UNTIL_FOREIGN(wf_u32_load_relaxed(&rt->monitor->state) == WF_MONITOR_ASLEEP);
	runtime_end(rt);
}

Test(monitor, off_is_no_thread, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(1, WEFT_SEC(1), 0);
	unsigned with = harness_thread_count(), without;

	runtime_end(rt);
	rt = runtime_that_tells(1, WEFT_FOREVER, WEFT_RT_STALL_BACKTRACE);
	UNTIL_FOREIGN((without = harness_thread_count()) < with);
	cr_assert_eq(without, with - 1);
	cr_assert_null(rt->monitor);
	cr_assert_eq(rt->stall_signal, 0);
	runtime_end(rt);
}

/* ---- Where ----------------------------------------------------------------------------------- */

static bool is_default(int sig)
{
	struct sigaction now;

	cr_assert_eq(sigaction(sig, NULL, &now), 0);
	return !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL;
}

static void host_handler(int sig)
{
	(void)sig;
}

static int spins_in_depth(void *arg)
{
	return spins_until_reported(arg);
}

Test(monitor, says_where_a_process_stalls, .timeout = 120)
{
	struct sigaction host = {.sa_handler = host_handler}, now;
	weft_rt *rt;
	struct line line;
	int taken;

	/* The highest is the host's: the next is taken, and given back. */
	cr_assert_eq(sigaction(SIGRTMAX, &host, NULL), 0);
	rt = runtime_that_tells(2, WEFT_MS(10), WEFT_RT_STALL_BACKTRACE);
	taken = rt->stall_signal;
	cr_assert_lt(taken, SIGRTMAX);
	cr_assert(!is_default(taken));
	cr_assert_eq(joined_foreign(named(rt, spins_in_depth, NULL, NAME("deep"), 1)), 1);
	runtime_end(rt);
	line = first_report("deep");
	/* ThreadSanitizer holds asynchronous signals back until a call of its own. */
	if (!HARNESS_TSAN)
		cr_assert_not_null(strstr(line.text, " ms, in "), "%s", line.text);
	if (!HARNESS_TSAN && !HARNESS_ASAN)
		cr_assert_not_null(strstr(line.text, " < "), "%s", line.text);
	cr_assert(is_default(taken));
	cr_assert_eq(sigaction(SIGRTMAX, NULL, &now), 0);
	cr_assert_eq(now.sa_handler, host_handler);
}

static int blocks_until_reported(void *arg)
{
	int *ends = arg;
	char byte;

	return (int)read(ends[0], &byte, 1);
}

static wf_atomic_u32 asking;

static int fails_to_do_much(void *arg)
{
	return (int)(intptr_t)arg;
}

static int spawns_while_asked(void *arg)
{
	(void)arg;
	while (wf_u32_load_relaxed(&asking)) {
		weft_pid pids[16];

		for (int i = 0; i < 16; i++)
			pids[i] = spawned(fails_to_do_much, (void *)(intptr_t)(16 - i));
		for (int i = 0; i < 16; i++)
			cr_assert_eq(joined(pids[i]), 16 - i);
	}
	return 0;
}

/* The answer may come when the stall is over: between two processes, or as one begins or ends. */
Test(monitor, may_ask_at_any_moment, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(1, WEFT_SEC(100), WEFT_RT_STALL_BACKTRACE);
	weft_pid pid;
	char text[512];

	wf_u32_store_relaxed(&asking, 1);
	cr_assert_eq(weft_rt_spawn(rt, spawns_while_asked, NULL, NULL, &pid), 0);
	for (int i = 0; i < (HARNESS_TSAN ? 20 : 5000); i++)
		wf_stall_where(&rt->workers[0], rt->stall_signal, text, sizeof text);
	wf_u32_store_relaxed(&asking, 0);
	cr_assert_eq(joined_foreign(pid), 0);
	runtime_end(rt);
}

Test(monitor, does_not_disturb_a_system_call, .timeout = 120)
{
	weft_rt *rt = runtime_that_tells(1, WEFT_MS(5), WEFT_RT_STALL_BACKTRACE);
	int ends[2];
	weft_pid pid;

	cr_assert_eq(pipe(ends), 0);
	pid = named(rt, blocks_until_reported, ends, NAME("blocked"), 1);
	UNTIL_FOREIGN(reports("blocked") == 1);
	cr_assert_eq(write(ends[1], "x", 1), 1);
	cr_assert_eq(joined_foreign(pid), 1, "interrupted");
	if (access("/proc/self/syscall", R_OK) == 0)
		cr_assert_not_null(strstr(first_report("blocked").text, "in system call"));
	runtime_end(rt);
	close(ends[0]);
	close(ends[1]);
}

Test(monitor, two_runtimes_share_the_signal, .timeout = 120)
{
	weft_rt *a = runtime_that_tells(1, WEFT_MS(10), WEFT_RT_STALL_BACKTRACE);
	weft_rt *b = runtime_that_tells(1, WEFT_MS(10), WEFT_RT_STALL_BACKTRACE);
	int taken = a->stall_signal;

	cr_assert_eq(b->stall_signal, taken);
	runtime_end(a);
	cr_assert(!is_default(taken));
	wf_u32_store_relaxed(&moved, 20);
	cr_assert_eq(
		joined_foreign(named(b, spins_until_reported, NULL, NAME("second"), 1)), 1);
	runtime_end(b);
	cr_assert(is_default(taken));
}

/* ---- The rescue ------------------------------------------------------------------------------ */

/*
 * Movable work that nobody is woken for, as when the peek at a push comes too early: while the push
 * is made a searcher is counted that does not exist.
 */
static int holds_with_work(void *arg)
{
	weft_rt *rt = weft_rt_current();
	struct wf_worker *self = wf_worker_self();

	cr_assert(!wf_monitor_rescue(self), "an empty ring");
	while (!(wf_idle_parked_mask(&rt->idle) & wf_idle_bit(1 - self->number)))
		;
	cr_assert(wf_idle_search_begin(&rt->idle, WF_IDLE_SEARCHERS_MAX));
	cr_assert_eq(weft_spawn(moves, NULL, NULL), 0);
	(void)wf_idle_search_end(&rt->idle);
	/* Nobody but the other worker can run it. */
	while (wf_u32_load_acquire(&moved) == 0)
		if (*(bool *)arg)
			(void)wf_monitor_rescue(self);
	return 0;
}

Test(monitor, rescues_work_that_nobody_was_woken_for, .timeout = 120)
{
	bool by_hand[] = {true, false};

	for (int i = 0; i < 2; i++) {
		weft_rt *rt = runtime_that_tells(
			2, by_hand[i] ? WEFT_FOREVER : WEFT_SEC(3600), 0);

		wf_u32_store_relaxed(&moved, 0);
		cr_assert_eq(
			joined_foreign(named(rt, holds_with_work, &by_hand[i], NAME("holds"), 1)),
			0);
		runtime_end(rt);
	}
}

static void not_called(void *arg)
{
	cr_assert_fail("%p: an hour has passed", arg);
}

/*
 * Else a worker that leads, is woken, and soon leads again would wake the monitor each time, which
 * each time would find a leader and forget the deadline.
 */
Test(monitor, knows_the_next_deadline_also_while_somebody_leads, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){
		.workers = 2, .idle = WEFT_IDLE_PARK, .stall_ns = WEFT_FOREVER});
	weft_time deadline = weft_after(WEFT_SEC(3600)), look;
	struct weft_timer timer = {{0}};

	cr_assert_eq(weft_timer_start(&timer, rt, deadline, not_called, NULL), 0);
	UNTIL_FOREIGN(wf_idle_all_parked(&rt->idle)
		&& wf_shared_leader_to_wake(&rt->timers, 0) >= 0);
	look = wf_timers_rescue(rt, weft_now());
	cr_assert_leq(look, deadline + WEFT_MS(3), "and a tick");
	cr_assert_gt(look, deadline - WEFT_MS(1));
	cr_assert_eq(wf_timers_rescue(rt, look), look + WEFT_MS(1), "the leader is about to");
	cr_assert_eq(weft_timer_stop(&timer), 1);
	runtime_end(rt);
}
