/*
 * life.c: what is alive, and the steps of a stop. runtime.h has the phases, core/README.md the
 * steps.
 *
 * Ending (E1 to E4). Foreign spawns and posts count themselves first (N1) and read the phase
 * afterwards (N4), all seq_cst: either the second sum sees them, and the phase goes back, or they
 * see ENDED and take themselves back; while it is ENDING they wait for which. Workers' own spawns
 * come from processes, which are alive.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/internal.h"
#include "core/registry.h"
#include "core/wake.h"

/* Of rt->foreign: the low bits count calls in progress, the rest what was created. */
#define FOREIGN_CALL_BITS 16
#define FOREIGN_CREATED   ((uint64_t)1 << FOREIGN_CALL_BITS)
#define FOREIGN_CALLS     (FOREIGN_CREATED - 1)

/* --- what is alive --- */

void wf_foreign_begin(struct weft_rt *rt)
{
	/* N1: an RMW, with E2 in sum_created(). */
	(void)wf_u64_fetch_add(&rt->foreign, FOREIGN_CREATED + 1);
	wf_rt_hold(rt);
}

void wf_foreign_visit(struct weft_rt *rt)
{
	(void)wf_u64_fetch_add(&rt->foreign, 1);
	wf_rt_hold(rt);
}

bool wf_foreign_comes_late(const struct weft_rt *rt)
{
	uint32_t phase;

	/*
	 * N4: seq_cst, with S1 in close_table() and E3 in wf_life_try_end(). Who makes the second
	 * sum waits for nobody, and it sees the caller, counted already, or has seen the end.
	 */
	while ((phase = wf_u32_load_seq_cst(&rt->stop_phase)) == WF_ENDING)
		wf_pause();
	return phase >= WF_CLOSED;
}

void wf_foreign_refused(struct weft_rt *rt)
{
	(void)wf_u64_fetch_add(&rt->foreign_completed, 1);
	if (WF_PLANTED(refused_wakes_nobody))
		return;
	wf_rt_wake_all(rt); /* that may have been the last thing alive, with everybody asleep */
}

void wf_foreign_end(struct weft_rt *rt)
{
	wf_rt_let_go(rt);
	(void)wf_u64_fetch_add(&rt->foreign, (uint64_t)-1);
}

bool wf_foreign_busy(const struct weft_rt *rt)
{
	return wf_u64_load_seq_cst(&rt->foreign) & FOREIGN_CALLS;
}

static uint64_t sum_completed(const struct weft_rt *rt)
{
	uint64_t sum = wf_u64_load_seq_cst(&rt->foreign_completed);

	/* E2: acquire, with E1 in finish(): what has ended was created, and so counted, before. */
	for (unsigned i = 0; i < rt->worker_count; i++)
		sum += wf_u64_load_acquire(&rt->workers[i].completed);
	return sum;
}

static uint64_t sum_created(const struct weft_rt *rt)
{
	uint64_t sum = wf_u64_load_seq_cst(&rt->foreign) >> FOREIGN_CALL_BITS;

	/* E2, after sum_completed(). seq_cst above: with N1 in wf_foreign_begin(). */
	for (unsigned i = 0; i < rt->worker_count; i++)
		sum += wf_u64_load_acquire(&rt->workers[i].created);
	return sum;
}

/*
 * E2: a process is counted as created before it can be counted as completed. So completed, read
 * first, equal to created means that nothing was alive at some moment between; twice the same means
 * at all moments.
 */
static bool nothing_alive(const struct weft_rt *rt)
{
	uint64_t completed = sum_completed(rt);

	if (sum_created(rt) != completed)
		return false;
	return sum_completed(rt) == completed && sum_created(rt) == completed;
}

uint64_t wf_life_alive(const struct weft_rt *rt)
{
	uint64_t completed = sum_completed(rt);

	return sum_created(rt) - completed;
}

/*
 * Asked here too, so that a stream of posts wakes nobody: with something alive, who ends last sees
 * this one's end (E2, P3), and the runtime has not ended, so that the sums may be taken.
 */
void wf_foreign_completed(struct weft_rt *rt)
{
	/* E1: an RMW; and, with P3 in recheck(), before the sums. */
	(void)wf_u64_fetch_add(&rt->foreign_completed, 1);
	if (nothing_alive(rt))
		wf_rt_wake_all(rt);
}

/* --- ending --- */

/* S4: queues closed, everybody woken; workers leave their loops. */
static void end(struct weft_rt *rt)
{
	wf_injector_close(&rt->injector);
	for (unsigned i = 0; i < rt->worker_count; i++)
		wf_injector_close(&rt->workers[i].inbox);
	wf_rt_wake_all(rt);
	wf_futex_wake_all(&rt->stop_phase);
	if (rt->virtual.on)
		wf_virtual_end(rt);
}

bool wf_life_try_end(struct weft_rt *rt)
{
	uint32_t phase = wf_u32_load_seq_cst(&rt->stop_phase);

	if (phase >= WF_ENDING)
		return phase == WF_ENDED;
	if (phase == WF_LIVE && !wf_u32_load_seq_cst(&rt->started))
		return false;
	/* S3: acquire, with S2 in sweep(): what it has started is counted. */
	if (phase == WF_CLOSED && wf_u32_load_acquire(&rt->sweeps_done) < rt->worker_count
		&& !WF_PLANTED(end_before_sweeps))
		return false;
	if (!nothing_alive(rt))
		return false;
	/* E3: the RMW of "either they see ENDING, or we see them": with N4. */
	if (!wf_u32_cas(&rt->stop_phase, &phase, WF_ENDING))
		return false;
	if (!nothing_alive(rt) && !WF_PLANTED(life_looks_once)) {
		wf_u32_store_seq_cst(&rt->stop_phase, phase);
		wf_rt_wake_all(rt);
		return false;
	}
	wf_u32_store_seq_cst(&rt->stop_phase, WF_ENDED); /* E4 */
	end(rt);
	return true;
}

/* --- stopping --- */

static void grace_shorten(struct weft_rt *rt, weft_time deadline)
{
	uint64_t old = wf_u64_load_relaxed(&rt->grace_deadline);

	while ((weft_time)old > deadline)
		if (wf_u64_cas(&rt->grace_deadline, &old, (uint64_t)deadline))
			break;
}

void wf_life_begin_stop(struct weft_rt *rt, weft_time grace_ns)
{
	uint32_t live = WF_LIVE;

	wf_rt_hold(rt);
	grace_shorten(rt, grace_ns > 0 ? wf_time_after(wf_rt_now(rt), grace_ns) : 0);
	for (;;) {
		if (wf_u32_cas(&rt->stop_phase, &live, WF_DRAINING)) { /* S0 */
			wf_io_hooks.drain(rt->io);
			break;
		}
		if (live != WF_ENDING)
			break;
		wf_pause(); /* about to end, or to be LIVE again */
		live = WF_LIVE;
	}
	if (rt->virtual.on)
		wf_virtual_thaw(rt); /* what is to end may need time */
	wf_rt_wake_all(rt);
	wf_rt_let_go(rt);
	wf_coordinator_tell(rt);
}

weft_time wf_life_deadline(const struct weft_rt *rt)
{
	if (wf_u32_load_relaxed(&rt->stop_phase) != WF_DRAINING)
		return WEFT_FOREVER;
	return (weft_time)wf_u64_load_relaxed(&rt->grace_deadline);
}

/* S1: DRAINING → CLOSED, by an RMW: with N4 in publish(). */
static void close_table(struct wf_worker *worker)
{
	uint32_t draining = WF_DRAINING;

	if (worker->now < wf_life_deadline(worker->rt))
		return;
	if (wf_u32_cas(&worker->rt->stop_phase, &draining, WF_CLOSED))
		wf_rt_wake_all(worker->rt);
}

/* S1: this worker refuses spawns from here on, and says so. */
static void acknowledge(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;

	worker->closed = worker->spawn_looks = true;
	/* S1: release (RMW), with S2 in sweep(): what this worker has published is in the table. */
	if (wf_u32_fetch_add(&rt->close_acks, 1) + 1 == rt->worker_count)
		wf_rt_wake_all(rt);
}

static void cancel_one(void *ctx, struct wf_proc *p)
{
	struct wf_worker *worker = ctx;
	/* S2: seq_cst, with N3 and N4 in publish(). */
	uint64_t word = wf_u64_load_seq_cst(&p->word);

	if (wf_word_phase(word) != WF_FREE)
		(void)wf_proc_cancel(worker->rt, worker, p, wf_word_generation(word));
}

/*
 * S2: cancels this worker's share of the table, once all have acknowledged. Nothing ends before
 * every sweep has: a sweep may start a suspended process whose foreign spawn, not counted when the
 * sums were taken, has yet to look at the phase. It would be neither run nor taken back.
 */
static void sweep(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;

	/* S2: acquire, with S1 in acknowledge(). */
	if (wf_u32_load_acquire(&rt->close_acks) < rt->worker_count
		&& !WF_PLANTED(stop_sweeps_early))
		return;
	worker->swept = true;
	wf_table_each(&rt->table, worker->number, rt->worker_count, cancel_one, worker);
	/* S2: release (RMW), with S3 in wf_life_try_end(). */
	(void)wf_u32_fetch_add(&rt->sweeps_done, 1);
}

/* Once a turn. */
void wf_life_check(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;
	uint32_t phase = wf_u32_load_relaxed(&rt->stop_phase);

	worker->seen_stop = phase;
	if (WF_LIKELY(phase == WF_LIVE))
		return;
	if (phase == WF_DRAINING)
		close_table(worker);
	if (phase == WF_CLOSED && !worker->closed)
		acknowledge(worker);
	if (worker->closed && !worker->swept)
		sweep(worker);
	(void)wf_life_try_end(rt);
}

/* --- who is left --- */

struct survivors {
	const struct weft_rt *rt;
	struct weft_survivor *out;
	unsigned max;
	unsigned count;
};

/* What else than processes can be alive is added here too. */
static void add_survivor(struct survivors *survivors, const struct weft_survivor *survivor)
{
	if (survivors->count < survivors->max)
		survivors->out[survivors->count] = *survivor;
	survivors->count++;
}

static bool is_run_by(const struct wf_worker *worker, const struct wf_proc *p)
{
	uint64_t watch = wf_u64_load_relaxed(&worker->watch);

	return wf_watch_kind(watch) == WF_WATCH_PROCESS && wf_watch_index(watch) == p->index;
}

/* The worker that runs it; -1: none does. */
static int runner_of(const struct weft_rt *rt, const struct wf_proc *p, uint64_t word)
{
	switch (word & (WF_WORD_PHASE | WF_WORD_TASK)) {
	case WF_NEW | WF_WORD_TASK: /* its first run, on any worker */
		for (unsigned i = 0; i < rt->worker_count; i++)
			if (is_run_by(&rt->workers[i], p))
				return (int)i;
		return -1;
	case WF_NEW:
		return -1;
	default:
		return is_run_by(&rt->workers[wf_word_owner(word)], p) ? (int)wf_word_owner(word)
								       : -1;
	}
}

/*
 * The run state of a process that has an owner is the owner's, and a movable one that has yielded
 * stays RUNNING: all that others see is who runs.
 */
static const char *state_name(uint64_t word, int runner)
{
	enum wf_phase phase = wf_word_phase(word);

	if (runner >= 0)
		return wf_phase_name(WF_RUNNING);
	if (phase == WF_OWNED)
		return wf_phase_name(WF_WAITING);
	if (phase == WF_RUNNING || phase == WF_NOTIFIED)
		return wf_phase_name(WF_QUEUED);
	return wf_phase_name(phase);
}

static bool has_owner(uint64_t word)
{
	return wf_word_phase(word) == WF_OWNED || (word & WF_WORD_PLACED);
}

static void add_process(void *ctx, struct wf_proc *p)
{
	struct survivors *survivors = ctx;
	uint64_t word = wf_u64_load_acquire(&p->word);
	enum wf_phase phase = wf_word_phase(word);
	int runner = runner_of(survivors->rt, p, word);
	struct weft_survivor survivor = { .worker = runner };

	if (phase == WF_FREE || phase == WF_DONE)
		return;
	survivor.pid = wf_pid_make(wf_word_generation(word), survivors->rt->slot, p->index);
	survivor.state = state_name(word, runner);
	if (runner < 0 && has_owner(word))
		survivor.worker = (int)wf_word_owner(word);
	/* A reservation's is being made. */
	if (phase != WF_RESERVED)
		strncpy(survivor.name, wf_proc_name(p), sizeof survivor.name - 1);
	add_survivor(survivors, &survivor);
}

/* What no process waits for. */
static void add_post(void *ctx, const struct wf_blocking_job *job)
{
	struct weft_survivor survivor = {
		.state = job->runs ? "blocking" : "queued", .worker = -1 };

	if (!weft_pid_is_none(job->pid))
		return; /* its process is in the list */
	memcpy(survivor.name, job->name, sizeof survivor.name);
	add_survivor(ctx, &survivor);
}

static_assert(sizeof ((struct weft_survivor *)NULL)->name == WF_BLOCKING_NAME_BYTES,
	"add_post copies it whole");

int weft_rt_survivors(weft_rt *rt, struct weft_survivor *out, unsigned max)
{
	struct survivors survivors = { rt, out, max, 0 };
	bool foreign = !wf_worker_self();

	if (foreign)
		wf_rcu_enter_foreign();
	wf_table_each(&rt->table, 0, 1, add_process, &survivors);
	if (foreign)
		wf_rcu_exit_foreign();
	wf_blocking_each(rt, add_post, &survivors);
	return (int)survivors.count;
}

static void log_blocking(void *ctx, const struct wf_blocking_job *job)
{
	long long ran_ms = (long long)((weft_now() - job->since) / WEFT_MS(1));
	char text[WEFT_PID_TEXT_MAX];

	if (weft_pid_is_none(job->pid) && job->runs)
		wf_log(ctx, WEFT_LOG_WARN, "still alive: blocking post \"%s\" has run for %lld ms",
			job->name, ran_ms);
	else if (weft_pid_is_none(job->pid))
		wf_log(ctx, WEFT_LOG_WARN, "still alive: blocking post \"%s\" has not begun",
			job->name);
	else if (job->runs) /* else it will be taken back */
		wf_log(ctx, WEFT_LOG_WARN,
			"still alive: blocking work of process %s has run for %lld ms",
			weft_pid_format(job->pid, text), ran_ms);
}

static void log_survivor(struct weft_rt *rt, const struct weft_survivor *survivor)
{
	char text[WEFT_PID_TEXT_MAX];

	weft_pid_format(survivor->pid, text);
	if (weft_pid_is_none(survivor->pid))
		return; /* log_blocking() */
	if (survivor->worker >= 0)
		wf_log(rt, WEFT_LOG_WARN, "still alive: process %s \"%s\" (%s) on worker %d", text,
			survivor->name, survivor->state, survivor->worker);
	else
		wf_log(rt, WEFT_LOG_WARN, "still alive: process %s \"%s\" (%s)", text,
			survivor->name, survivor->state);
}

void wf_life_log_survivors(struct weft_rt *rt)
{
	struct weft_survivor list[WF_SURVIVORS_LOGGED_MAX];
	unsigned count = (unsigned)weft_rt_survivors(rt, list, WF_SURVIVORS_LOGGED_MAX);

	for (unsigned i = 0; i < count && i < WF_SURVIVORS_LOGGED_MAX; i++)
		log_survivor(rt, &list[i]);
	wf_blocking_each(rt, log_blocking, rt);
	if (count > WF_SURVIVORS_LOGGED_MAX)
		wf_log(rt, WEFT_LOG_WARN, "still alive: %u processes and posts in all", count);
}
