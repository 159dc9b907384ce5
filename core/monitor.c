/*
 * monitor.c: the thread that looks after workers which do not come back to their scheduler.
 *
 * It samples worker->watch, a word that changes with each run. The same word again means the same
 * run. Held for
 *   RESCUE_NS   and work in the ring, and somebody parked: the wake of step 7 is made for it. The
 *               peek at each push is only usually right, and the turn's end may be far;
 *   stall_ns    the process is named on the log: once a run, at most once a second for a worker.
 *
 * Time in which the thread waited for a CPU is not the process's, and does not count; what it has
 * computed does, and what it waits for in the kernel. Nor does time in which the monitor itself was
 * late (a program that was stopped): of a gap between two samples at most GAPS_MAX periods.
 *
 * Where nobody leads the shared wheel (core/timers.h) it looks after that too.
 *
 * Sleep. It samples every few milliseconds while workers are awake. When all have been parked for
 * LINGER samples it sleeps for good, and the first worker to unpark wakes it: an idle process has
 * no wakes, and a server with some traffic does not pay one for each request. As in sync/idle.h:
 * M1  (nap) an RMW: state = ASLEEP, then the idle word, seq_cst: all parked still?
 * M2  (unpark) the RMW that clears the parked bit, then state, seq_cst: ASLEEP? One CAS to AWAKE,
 *     and who has made it wakes the thread.
 * Either M2 sees ASLEEP, or M1 sees that the bit is gone. The same for a deadline of the shared
 * wheel that comes in while it has planned to look later:
 * M3  (plan) an RMW: when it will look; then the shards, seq_cst: something before that?
 * M4  (hurry) the RMW that has published the deadline, then M3's word, seq_cst: later than that?
 */
#include "core/monitor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/internal.h"
#include "core/log.h"
#include "core/stall.h"
#include "core/timers.h"
#include "timer/clock.h"

enum {
	PERIOD_NS_MIN = 1000000,
	PERIOD_NS_MAX = 8000000,
	RESCUE_NS = 1000000,
	GAPS_MAX = 2,
	LINGER = 64,       /* samples with everybody parked, or gone, before the sleep */
	TEXT_BYTES = 1024,
};

#define STALL_DEFAULT_NS WEFT_MS(25)
#define REPORT_PAUSE_NS  WEFT_SEC(1)

/* What was seen of a worker. */
struct wf_stalled {
	uint64_t watch;
	weft_time held_ns;       /* it has not changed for that long, by the rule above */
	uint64_t ran_ns;         /* by its thread, at the last sample of a run that is held */
	bool held;               /* seen twice */
	bool reported;
	weft_time reported_at;   /* 0: never */
};

/* --- the report --- */


/* Who it is that the worker runs; false: it does not run it any more. */
static bool describe(const struct wf_worker *worker, uint64_t watch, weft_pid *pid_out, char *text,
	size_t size)
{
	const struct weft_rt *rt = worker->rt;
	char id[WEFT_PID_TEXT_MAX];
	struct wf_proc *p;

	pid_out->raw = 0;
	if (wf_watch_kind(watch) == WF_WATCH_CALL) {
		snprintf(text, size, "a post");
		return true;
	}
	wf_rcu_enter_foreign();
	p = wf_table_at(&rt->table, wf_watch_index(watch));
	if (p) {
		*pid_out = wf_pid_make(wf_word_generation(wf_u64_load_acquire(&p->word)), rt->slot,
			p->index);
		snprintf(text, size, "process %s \"%s\"", weft_pid_format(*pid_out, id),
			wf_proc_name(p));
	}
	wf_rcu_exit_foreign();
	return p && wf_u64_load_relaxed(&worker->watch) == watch;
}

/* Where it is: behind the comma; nothing if that cannot be told. */
static void put_place(struct wf_worker *worker, char *text, size_t size)
{
	int signal = worker->rt->stall_signal;
	long call = wf_thread_system_call(worker->thread_id);

	text[0] = '\0';
	if (call >= 0) /* not disturbed: the signal could end its wait */
		snprintf(text, size, ", in system call %ld", call);
	else if (signal)
		wf_stall_where(worker, signal, text, size);
}

static void report(struct wf_worker *worker, struct wf_stalled *stalled, weft_time now)
{
	char who[128], where[TEXT_BYTES - 256], text[TEXT_BYTES];
	weft_pid pid;

	stalled->reported = true;
	if (stalled->reported_at && now - stalled->reported_at < REPORT_PAUSE_NS)
		return;
	if (!describe(worker, stalled->watch, &pid, who, sizeof who))
		return;
	stalled->reported_at = now;
	put_place(worker, where, sizeof where);
	snprintf(text, sizeof text, "%s has held worker %u for %lld ms%s", who, worker->number,
		(long long)(stalled->held_ns / WEFT_MS(1)), where);
	wf_log_about(worker->rt, WEFT_LOG_WARN, (int)worker->number, pid, text);
}

/* --- sampling --- */

bool wf_monitor_rescue(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;

	if (wf_deque_is_empty(&worker->ring) || !wf_idle_wants_work_wake_relaxed(&rt->idle))
		return false;
	wf_rt_wake_for_work(rt);
	return true;
}

/*
 * How much of the gap since the last look counts: all of it where the thread waits in a system
 * call, else what it has computed.
 */
static weft_time held_since(struct wf_worker *worker, struct wf_stalled *stalled, weft_time gap_ns)
{
	weft_time most = GAPS_MAX * worker->rt->monitor->period_ns;
	uint64_t ran_ns = wf_thread_ran_ns(worker->thread_id);
	uint64_t ran_before_ns = stalled->ran_ns;

	stalled->ran_ns = ran_ns;
	if (!stalled->held) {
		stalled->held = true;
		return 0;
	}
	if (ran_ns && ran_ns - ran_before_ns < (uint64_t)gap_ns
		&& wf_thread_system_call(worker->thread_id) < 0)
		gap_ns = (weft_time)(ran_ns - ran_before_ns);
	return gap_ns < most ? gap_ns : most;
}

/* One look at a worker, `gap_ns` after the last. */
static void look_at(
	struct wf_worker *worker, struct wf_stalled *stalled, weft_time gap_ns, weft_time now)
{
	uint64_t watch = wf_u64_load_relaxed(&worker->watch);

	if (watch != stalled->watch || wf_watch_kind(watch) == WF_WATCH_NOTHING) {
		stalled->watch = watch;
		stalled->held_ns = 0;
		stalled->held = false;
		stalled->reported = false;
		return;
	}
	stalled->held_ns += held_since(worker, stalled, gap_ns);
	if (stalled->held_ns >= RESCUE_NS)
		(void)wf_monitor_rescue(worker);
	if (stalled->held_ns > worker->rt->stall_ns && !stalled->reported)
		report(worker, stalled, now);
}

/* Work that a held worker has while others sleep is to be looked at again soon. */
static bool is_urgent(const struct weft_rt *rt)
{
	if (!wf_idle_wants_work_wake_relaxed(&rt->idle))
		return false;
	for (unsigned i = 0; i < rt->worker_count; i++)
		if (!wf_deque_is_empty(&rt->workers[i].ring))
			return true;
	return false;
}

/* Looks at all; returns when to look again. */
static weft_time sample(struct wf_monitor *monitor)
{
	struct weft_rt *rt = monitor->rt;
	weft_time now = wf_clock_now_ns();
	weft_time gap_ns = now - monitor->looked_at;

	monitor->looked_at = now;
	for (unsigned i = 0; i < rt->worker_count; i++)
		look_at(&rt->workers[i], &monitor->workers[i], gap_ns, now);
	return now + (is_urgent(rt) ? RESCUE_NS : monitor->period_ns);
}

/* --- the thread --- */

/* Nobody can stall before a worker unparks, or ever. */
static bool is_quiet(struct weft_rt *rt)
{
	return wf_idle_all_parked(&rt->idle)
		|| wf_u32_load_relaxed(&rt->stop_phase) == WF_ENDED;
}

/* M1: until a worker unparks. */
static void nap(struct wf_monitor *monitor)
{
	uint32_t state = WF_MONITOR_AWAKE;

	/* M1: an RMW, then the idle word: with M2 in wf_monitor_notice(). */
	if (!wf_u32_cas(&monitor->state, &state, WF_MONITOR_ASLEEP))
		return; /* to stop */
	if (monitor->rt->virtual.on)
		wf_virtual_report(monitor->rt);
	if (!is_quiet(monitor->rt)) {
		state = WF_MONITOR_ASLEEP;
		(void)wf_u32_cas(&monitor->state, &state, WF_MONITOR_AWAKE);
	}
	while (wf_u32_load_acquire(&monitor->state) == WF_MONITOR_ASLEEP)
		wf_futex_wait(&monitor->state, WF_MONITOR_ASLEEP, WEFT_FOREVER);
	monitor->looked_at = wf_clock_now_ns();
}

void wf_monitor_hurry(struct wf_monitor *monitor, weft_time deadline)
{
	uint32_t awake = WF_MONITOR_AWAKE;

	/*
	 * M4: seq_cst, after the RMW that published the deadline: with M3 in plan(). If that
	 * is in the past, it is about to look.
	 */
	if ((weft_time)wf_u64_load_seq_cst(&monitor->wake_at) <= deadline)
		return;
	if (wf_u32_cas(&monitor->state, &awake, WF_MONITOR_HURRY))
		wf_futex_wake_all(&monitor->state);
}

void wf_monitor_wake(struct wf_monitor *monitor)
{
	uint32_t asleep = WF_MONITOR_ASLEEP;

	if (wf_u32_cas(&monitor->state, &asleep, WF_MONITOR_AWAKE))
		wf_futex_wake_all(&monitor->state);
}

/* When to look next; deadlines that come in earlier from here on make it hurry. */
static weft_time plan(struct wf_monitor *monitor)
{
	weft_time next = sample(monitor), timers;

	/* M3: an RMW, then the shards (seq_cst): with M4 in wf_monitor_hurry(). */
	(void)wf_u64_exchange(&monitor->wake_at, (uint64_t)next);
	timers = wf_timers_rescue(monitor->rt, monitor->looked_at);
	if (timers >= next)
		return next;
	/* Earlier, so a load that misses it only makes it hurry in vain. */
	wf_u64_store_relaxed(&monitor->wake_at, (uint64_t)timers);
	return timers;
}

/* Until then, or until it is to hurry. */
static void rest(struct wf_monitor *monitor, weft_time until)
{
	uint32_t hurry = WF_MONITOR_HURRY;

	wf_futex_wait(&monitor->state, WF_MONITOR_AWAKE, until);
	(void)wf_u32_cas(&monitor->state, &hurry, WF_MONITOR_AWAKE);
}

static void name_thread(const struct weft_rt *rt)
{
	char name[16];

	snprintf(name, sizeof name, "weft/%.6s/mon", rt->name);
	wf_thread_name(name);
}

static void monitor_main(void *arg)
{
	struct wf_monitor *monitor = arg;
	unsigned quiet = 0; /* samples in a row with everybody parked */

	name_thread(monitor->rt);
	while (wf_u32_load_acquire(&monitor->state) != WF_MONITOR_STOP) {
		weft_time next = plan(monitor);

		quiet = is_quiet(monitor->rt) ? quiet + 1 : 0;
		if (quiet < LINGER) {
			rest(monitor, next);
		} else {
			nap(monitor);
			quiet = 0;
		}
	}
}

/* --- making and unmaking --- */

int wf_monitor_make(struct weft_rt *rt)
{
	struct wf_monitor *monitor;

	if (rt->stall_ns == WEFT_FOREVER)
		return 0;
	if (rt->stall_ns == 0)
		rt->stall_ns = STALL_DEFAULT_NS;
	monitor = wf_alloc(rt, WF_FALSE_SHARING, sizeof *monitor);
	if (!monitor)
		return -ENOMEM;
	memset(monitor, 0, sizeof *monitor);
	monitor->workers = wf_alloc(
		rt, WF_CACHE_LINE, rt->worker_count * sizeof *monitor->workers);
	if (!monitor->workers) {
		wf_free(rt, monitor, sizeof *monitor);
		return -ENOMEM;
	}
	memset(monitor->workers, 0, rt->worker_count * sizeof *monitor->workers);
	monitor->rt = rt;
	monitor->period_ns = rt->stall_ns / 3;
	if (monitor->period_ns < PERIOD_NS_MIN)
		monitor->period_ns = PERIOD_NS_MIN;
	if (monitor->period_ns > PERIOD_NS_MAX)
		monitor->period_ns = PERIOD_NS_MAX;
	rt->monitor = monitor;
	return 0;
}

int wf_monitor_start(struct weft_rt *rt)
{
	struct wf_monitor *monitor = rt->monitor;
	int r;

	if (!monitor)
		return 0;
	monitor->looked_at = wf_clock_now_ns();
	r = wf_thread_start(&monitor->thread, monitor_main, monitor);
	monitor->started = r == 0;
	return r;
}

void wf_monitor_stop(struct weft_rt *rt)
{
	struct wf_monitor *monitor = rt->monitor;

	if (!monitor || !monitor->started)
		return;
	(void)wf_u32_exchange(&monitor->state, WF_MONITOR_STOP);
	wf_futex_wake_all(&monitor->state);
	wf_thread_join(monitor->thread);
	monitor->started = false;
}

void wf_monitor_unmake(struct weft_rt *rt)
{
	struct wf_monitor *monitor = rt->monitor;

	if (!monitor)
		return;
	wf_free(rt, monitor->workers, rt->worker_count * sizeof *monitor->workers);
	wf_free(rt, monitor, sizeof *monitor);
	rt->monitor = NULL;
}
