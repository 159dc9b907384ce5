/*
 * wait.c: how a process waits: the claim word, park, sleep, yield, cancel. core/sched.h and
 * core/README.md ("wait") have the protocol. A task, which cannot switch away, arms instead
 * (core/tasks.h): its half of a call is a function of its own, so that a fiber's pays one look.
 */
#include <errno.h>

#include "core/internal.h"
#include "core/registry.h"
#include "core/self.h"
#include "core/tasks.h"
#include "core/timers.h"
#include "core/wake.h"
#include "sync/observe.h"

static bool is_cancelled(const struct wf_proc *p)
{
	return wf_word_is_cancelled(wf_u64_load_relaxed(&p->word));
}

/* The running process, NULL outside one. */
static struct wf_proc *self_proc(struct wf_worker **worker_out)
{
	struct wf_worker *worker = wf_worker_self();

	*worker_out = worker;
	return WF_LIKELY(worker != NULL) ? worker->current : NULL;
}

static weft_pid pid_of(const struct wf_worker *worker, const struct wf_proc *p)
{
	return wf_pid_make(
		wf_word_generation(wf_u64_load_relaxed(&p->word)), worker->rt->slot, p->index);
}

WF_NOINLINE void wf_proc_take_timer(struct wf_worker *worker, struct wf_proc *p)
{
	wf_wheel_cancel(&worker->wheel, &p->timer);
	p->live.armed = false;
}

/* suspend() with a deadline: apart, so that who has none does not pay for its registers. */
WF_NOINLINE static struct wf_worker *suspend_until(
	struct wf_worker *worker, struct wf_proc *p, weft_time deadline)
{
	bool sticky = wf_word_phase(wf_u64_load_relaxed(&p->word)) == WF_OWNED;

	if (sticky)
		wf_proc_arm_sticky(worker, p, deadline);
	else
		wf_timers_arm(worker, p, deadline);
	WF_OBSERVE(waits, p);
	wf_worker_switch(worker, p, WF_SWITCH_PARK);
	if (!sticky)
		return wf_worker_self();
	wf_proc_leave_armed(worker, p);
	return worker;
}

/*
 * Switches away until somebody wakes p, or the deadline. The caller looks at why. Returns the
 * worker it is on afterwards: another one, perhaps, if p is movable.
 */
WF_INLINE struct wf_worker *suspend(struct wf_worker *worker, struct wf_proc *p, weft_time deadline)
{
	if (deadline != WEFT_FOREVER)
		return suspend_until(worker, p, deadline);
	WF_OBSERVE(waits, p);
	wf_worker_switch(worker, p, WF_SWITCH_PARK);
	return WF_LIKELY(wf_word_phase(wf_u64_load_relaxed(&p->word)) == WF_OWNED) ? worker
										 : wf_worker_self();
}

int wf_wait_check(void)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);

	if (WF_UNLIKELY(!p || wf_proc_is_task(p)))
		return -EPERM;
	return WF_UNLIKELY(is_cancelled(p)) ? -ECANCELED : 0; /* X3 */
}

int wf_wait_check_once(void)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);

	if (WF_UNLIKELY(!p))
		return -EPERM;
	if (WF_UNLIKELY(is_cancelled(p)))
		return -ECANCELED; /* X3 */
	return WF_LIKELY(worker->operations_left > 0) ? 0 : wf_task_yield(worker);
}

bool wf_wait_in_task(void)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);

	return p && wf_proc_is_task(p);
}

void wf_wait_begin(struct wf_wait *wait)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);
	uint32_t number = (uint32_t)(wf_u64_load_relaxed(&p->claim) >> 32) + 1;

	wait->pid = pid_of(worker, p);
	if (WF_UNLIKELY(wf_proc_is_task(p))) {
		wf_task_begin(worker, p);
		if (wf_task_has_wait(p)) {
			wait->number = number - 1; /* A2 */
			return;
		}
	}
	if (WF_UNLIKELY(number == 0))
		number = 1;
	/*
	 * C1. Relaxed: whoever claims this wait learnt its number through the object's lock (or p's
	 * joiner word). A claim with an older number either comes before this store, which ends it,
	 * or fails.
	 */
	wf_u64_store_relaxed(&p->claim, (uint64_t)number << 32 | WF_WINNER_NONE);
	wait->number = number;
}

/* Tries to end the wait in somebody's favour. False: somebody else was first. */
static bool claim(struct wf_proc *p, uint32_t number, enum wf_winner winner)
{
	uint64_t expected = (uint64_t)number << 32 | WF_WINNER_NONE;

	if (WF_PLANTED(claim_overwrites_winner))
		expected |= (uint8_t)wf_u64_load_relaxed(&p->claim);
	/* C3, C5: acquire and release, with itself: one of peer, deadline, cancel succeeds. */
	return wf_u64_cas(&p->claim, &expected, (uint64_t)number << 32 | (uint64_t)winner);
}

void wf_wait_end(struct wf_wait *wait)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);

	if (WF_UNLIKELY(wf_proc_is_task(p)))
		return; /* the run may have armed more by that number: A4 ends it */
	(void)claim(p, wait->number, WF_WINNER_CANCEL); /* C6 */
}

/* X3, C5: what ends the wait now without a peer: a negative errno, or 0: nothing yet. */
static int wait_over(const struct wf_worker *worker, const struct wf_proc *p, weft_time deadline,
	bool slept, bool shielded)
{
	if (is_cancelled(p) && !shielded)
		return -ECANCELED;
	if (deadline == WEFT_POLL)
		return -EAGAIN;
	if (deadline <= worker->now || (slept && p->live.timed_out))
		return -ETIME;
	return 0;
}

/* Near: as many slacks as there are eighths of what is left. Past the end of time: as it is. */
WF_COLD static weft_time with_little_slack(
	uint64_t mask, weft_time deadline, uint64_t left)
{
	if (deadline >= WF_WHEEL_END_NS)
		return deadline;
	while (mask > left / 8)
		mask >>= 1;
	return (weft_time)(((uint64_t)deadline + mask) & ~mask);
}

/*
 * When a wait for I/O is to end by its deadline, which has not come: those of one multiple of the
 * slack, a power of two, fall due together. Never early; late by at most an eighth of the wait.
 */
WF_INLINE weft_time with_slack(const struct wf_worker *worker, weft_time deadline)
{
	uint64_t mask = worker->rt->slack_mask;
	uint64_t left = (uint64_t)(deadline - worker->now);

	if (deadline == WEFT_FOREVER)
		return deadline;
	if (WF_UNLIKELY(left - 8 * mask >= (uint64_t)WF_WHEEL_END_NS))
		return with_little_slack(mask, deadline, left);
	return (weft_time)(((uint64_t)deadline + mask) & ~mask);
}

/*
 * A3. Nobody is asked who has won: a peer that has claimed the wait wakes, so this run is not the
 * last. Neither deadline nor cancel claims: the run may have armed more by that number.
 */
WF_NOINLINE static int arm_wait(struct wf_worker *worker, const struct wf_proc *p,
	weft_time deadline, bool shielded, bool slack)
{
	int r = wait_over(worker, p, deadline, false, shielded);

	return r < 0 ? r : wf_task_arm(worker, slack ? with_slack(worker, deadline) : deadline);
}

WF_INLINE int park(struct wf_wait *wait, weft_time deadline, bool shielded, bool slack)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);
	bool slept = false;

	if (WF_UNLIKELY(wf_proc_is_task(p)))
		return arm_wait(worker, p, deadline, shielded, slack);
	for (;;) {
		int r;

		/* C5: acquire, with C3 in claim(): what the peer did before it claimed. */
		if ((uint8_t)wf_u64_load_acquire(&p->claim) == WF_WINNER_PEER)
			return 0;
		r = wait_over(worker, p, deadline, slept, shielded);
		if (r < 0)
			return claim(p, wait->number,
				       r == -ECANCELED ? WF_WINNER_CANCEL : WF_WINNER_DEADLINE)
				? r
				: 0;
		worker = suspend(worker, p, slack ? with_slack(worker, deadline) : deadline);
		slept = deadline != WEFT_FOREVER;
	}
}

int wf_wait_park(struct wf_wait *wait, weft_time deadline)
{
	return park(wait, deadline, false, false);
}

int wf_wait_park_slack(struct wf_wait *wait, weft_time deadline)
{
	return park(wait, deadline, false, true);
}

int wf_wait_park_shielded(struct wf_wait *wait, weft_time deadline)
{
	return park(wait, deadline, true, false);
}

bool wf_wait_claim_pid(weft_pid pid, uint32_t number)
{
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);
	bool won;

	if (!p)
		return false;
	wf_visit_hold(&visit);
	won = claim(p, number, WF_WINNER_PEER);
	if (won) /* C4 */
		wf_proc_wake(visit.rt, visit.worker, p, false);
	wf_visit_let_go(&visit);
	wf_visit_end(&visit);
	return won;
}

bool wf_wait_is_over(weft_pid pid, uint32_t number)
{
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);
	bool over;

	if (!p)
		return true;
	/* A5: acquire, with C3 in claim(): whoever has ended it is through with its object. */
	over = wf_u64_load_acquire(&p->claim) != ((uint64_t)number << 32 | WF_WINNER_NONE);
	wf_visit_end(&visit);
	return over;
}

bool wf_wait_claim(struct weft_rt *rt, weft_pid pid, uint32_t number)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p;
	bool won = false;

	if (!worker) {
		wf_rt_hold(rt);
		wf_rcu_enter_foreign();
	}
	p = wf_table_find(&rt->table, pid);
	if (p && claim(p, number, WF_WINNER_PEER)) {
		wf_proc_wake(rt, worker, p, false); /* C4 */
		won = true;
	}
	if (!worker) {
		wf_rcu_exit_foreign();
		wf_rt_let_go(rt);
	}
	return won;
}

/* --- the public calls --- */

WF_NOINLINE static int sleep_task(
	struct wf_worker *worker, const struct wf_proc *p, weft_time deadline)
{
	int r;

	if (WF_UNLIKELY(worker->operations_left == 0))
		return wf_task_yield(worker);
	if (deadline <= worker->now)
		wf_budget_take();
	r = arm_wait(worker, p, deadline, false, false); /* nobody is to claim it */
	return r == -ECANCELED || r == WEFT_PENDING ? r : 0;
}

int weft_sleep_until(weft_time deadline)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);
	struct wf_wait wait;
	int r;

	if (WF_UNLIKELY(!p))
		return -EPERM;
	if (WF_UNLIKELY(wf_proc_is_task(p)))
		return sleep_task(worker, p, deadline);
	/* Over already, it would not switch: others must have their turn. */
	if (deadline <= worker->now)
		wf_budget_take();
	wf_wait_begin(&wait);
	r = wf_wait_park(&wait, deadline);
	return r == -ECANCELED ? r : 0;
}

int weft_sleep_precise(weft_time deadline)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);
	struct weft_rt *rt = p ? worker->rt : NULL;
	weft_time spin_ns = p ? rt->precise_spin_ns : 0;
	int r;

	if (WF_UNLIKELY(!p) || (rt->flags & WEFT_RT_EMBEDDED) || rt->clock_virtual
		|| deadline == WEFT_FOREVER || deadline <= spin_ns)
		return weft_sleep_until(deadline);
	if (worker->now < deadline - spin_ns && (r = weft_sleep_until(deadline - spin_ns)) != 0)
		return r;
	if (wf_proc_is_task(p)) {
		if (is_cancelled(p))
			return -ECANCELED;
		return wf_rt_now(rt) < deadline ? wf_task_yield(worker) : 0;
	}
	while (wf_rt_now(rt) < deadline)
		if ((r = weft_yield()) < 0)
			return r;
	return is_cancelled(p) ? -ECANCELED : 0;
}

/* T1: a movable process's token. Acquire (the RMW), with W8 and W9 in wake.c. */
WF_NOINLINE static bool take_token_of_word(struct wf_proc *p)
{
	return (wf_u64_load_relaxed(&p->word) & WF_WORD_TOKEN)
		&& (wf_u64_fetch_and(&p->word, ~WF_WORD_TOKEN) & WF_WORD_TOKEN);
}

WF_INLINE bool take_token_of_sticky(struct wf_proc *p)
{
	bool token = p->live.token;

	p->live.token = false;
	/* T2: acquire (the RMW), with W4 in wake_remote(). */
	if (WF_UNLIKELY(wf_u32_load_relaxed(&p->remote) & WF_REMOTE_TOKEN)) {
		if (!WF_PLANTED(park_keeps_token))
			(void)wf_u32_fetch_and(&p->remote, ~(uint32_t)WF_REMOTE_TOKEN);
		token = true;
	}
	return token;
}

/* Consumes the token of weft_wake(), wherever it was put. */
WF_INLINE bool take_token(struct wf_proc *p)
{
	if (WF_LIKELY(wf_word_phase(wf_u64_load_relaxed(&p->word)) == WF_OWNED))
		return take_token_of_sticky(p);
	return take_token_of_word(p);
}

/* The wake, and then the cancel, may have come since the token was looked for: the wake wins. */
WF_COLD static bool woken_before_cancel(struct wf_proc *p)
{
	/* T3: acquire, with the cancel's RMW: a wake that came before it is seen. */
	(void)wf_u64_load_acquire(&p->word);
	return take_token(p);
}

WF_NOINLINE static int park_task(
	struct wf_worker *worker, struct wf_proc *p, weft_time deadline)
{
	int r;

	if (WF_UNLIKELY(worker->operations_left == 0))
		return wf_task_yield(worker);
	wf_task_begin(worker, p);
	if (take_token(p)) {
		wf_budget_take();
		return 0;
	}
	r = arm_wait(worker, p, deadline, false, false);
	return r == -ECANCELED && woken_before_cancel(p) ? 0 : r;
}

int weft_park(weft_time deadline)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);
	bool slept = false, token;
	uint64_t word;

	if (WF_UNLIKELY(!p))
		return -EPERM;
	word = wf_u64_load_relaxed(&p->word) & (WF_WORD_PHASE | WF_WORD_TASK);
	if (WF_LIKELY(word == WF_OWNED))
		token = take_token_of_sticky(p);
	else if (word & WF_WORD_TASK)
		return park_task(worker, p, deadline);
	else
		token = take_token_of_word(p);
	if (token) {
		/* Woken before every park, it would never switch: others must have their turn. */
		wf_budget_take();
		return 0;
	}
	for (;;) {
		int r = wait_over(worker, p, deadline, slept, false);

		if (WF_UNLIKELY(r < 0))
			return r == -ECANCELED && woken_before_cancel(p) ? 0 : r;
		worker = suspend(worker, p, deadline);
		slept = deadline != WEFT_FOREVER;
		if (take_token(p))
			return 0;
	}
}

WF_NOINLINE static int yield_fiber(struct wf_worker *worker, struct wf_proc *p)
{
	WF_OBSERVE(yields, p);
	wf_worker_switch(worker, p, WF_SWITCH_YIELD);
	return WF_UNLIKELY(is_cancelled(p)) ? -ECANCELED : 0;
}

/*
 * A task's is written out: two calls make one yield. The run that a yield has caused finds
 * `yielded` set; one that has armed it, `switched` too.
 */
WF_NOINLINE int weft_yield(void)
{
	struct wf_worker *worker = wf_worker_self_first();
	struct wf_proc *p;
	uint64_t word;

	if (WF_UNLIKELY(!worker || !(p = worker->current)))
		return -EPERM;
	word = wf_u64_load_relaxed(&p->word);
	if (!(word & WF_WORD_TASK))
		return yield_fiber(worker, p);
	if (!p->live.yielded || worker->switched == WF_SWITCH_YIELD) {
		p->live.yielded = true;
		return wf_task_yield(worker);
	}
	p->live.yielded = false;
	return WF_UNLIKELY(wf_word_is_cancelled(word)) ? -ECANCELED : 0;
}

bool weft_should_yield(void)
{
	struct wf_worker *worker = wf_worker_self();
	weft_time now;

	if (!worker || !worker->current)
		return false;
	now = wf_rt_now(worker->rt);
	if (worker->slice_start == 0)
		worker->slice_start = now;
	return now - worker->slice_start > WF_TURN_NS_MAX;
}

void wf_budget_take(void)
{
	struct wf_worker *worker = wf_worker_self();

	if (WF_UNLIKELY(!worker || !worker->current))
		return;
	if (WF_LIKELY(worker->operations_left > 1)) {
		worker->operations_left--;
		return;
	}
	/* A task's run cannot be interrupted here: its next call is: wf_wait_check_once(). */
	if (wf_proc_is_task(worker->current))
		worker->operations_left = 0;
	else
		(void)weft_yield();
}

int weft_consume(void)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);

	if (WF_UNLIKELY(!p))
		return -EPERM;
	if (WF_UNLIKELY(worker->operations_left <= 1))
		return weft_yield();
	worker->operations_left--;
	return WF_UNLIKELY(is_cancelled(p)) ? -ECANCELED : 0;
}

unsigned weft_budget_left(void)
{
	struct wf_worker *worker;

	return self_proc(&worker) ? worker->operations_left : 0;
}

WF_NOINLINE static int wake_elsewhere(weft_pid pid)
{
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);

	if (!p)
		return -ESRCH;
	wf_visit_hold(&visit);
	wf_proc_wake(visit.rt, visit.worker, p, true);
	wf_visit_let_go(&visit);
	wf_visit_end(&visit);
	return 0;
}

int weft_wake(weft_pid pid)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p;

	/* The common case, written out: a worker is in a read section all the time. */
	if (WF_UNLIKELY(!worker || worker->rt->slot != wf_pid_runtime(pid)))
		return wake_elsewhere(pid);
	p = wf_table_find(&worker->rt->table, pid);
	if (WF_UNLIKELY(!p))
		return -ESRCH;
	wf_proc_wake(worker->rt, worker, p, true);
	return 0;
}

int weft_cancel(weft_pid pid)
{
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);
	int r;

	if (!p)
		return -ESRCH;
	wf_visit_hold(&visit);
	r = wf_proc_cancel(visit.rt, visit.worker, p, wf_pid_generation(pid)) ? 0 : -ESRCH;
	wf_visit_let_go(&visit);
	wf_visit_end(&visit);
	return r;
}

weft_pid weft_self(void)
{
	struct wf_worker *worker;
	struct wf_proc *p = self_proc(&worker);
	weft_pid none = { 0 };

	return p ? pid_of(worker, p) : none;
}

weft_time weft_now_coarse(void)
{
	struct wf_worker *worker = wf_worker_self();

	return worker ? worker->now : wf_clock_now_ns();
}

weft_time weft_now(void)
{
	struct wf_worker *worker = wf_worker_self();

	return worker ? wf_rt_now(worker->rt) : wf_clock_now_ns();
}

weft_time weft_after(weft_time delay_ns)
{
	return wf_time_after(weft_now(), delay_ns);
}

weft_time weft_coalesce(weft_time deadline, weft_time slack_ns)
{
	uint64_t mask;

	if (slack_ns <= 1 || deadline < 0 || deadline >= WF_WHEEL_END_NS)
		return deadline;
	mask = wf_slack_mask(slack_ns < WF_WHEEL_END_NS ? slack_ns : WF_WHEEL_END_NS);
	return (weft_time)(((uint64_t)deadline + mask) & ~mask);
}
