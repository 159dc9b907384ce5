/*
 * virtual.c: virtual time over several workers, and what of <weft/test.h> is about that.
 *
 * No worker sleeps until a deadline, and the shared wheel has no leader: workers sleep until they
 * are woken, and whoever finds all at rest moves time and wakes those for whom something is due.
 * Steps, in core/README.md: R1 publish, R2 ask, R3 look, R4 move, R5 wake, R6 hold, R7 tell.
 *
 * Progress: a look is a few loads and a short lock for each worker; one thread is at it at a time,
 * once for all who have asked meanwhile. A hold waits for that, and for nothing else.
 */
#include "core/virtual.h"

#include <errno.h>

#include "core/forced.h"
#include "core/inbox.h"
#include "core/internal.h"
#include "core/runtime.h"

/* --- R1 --- */

void wf_virtual_park(struct wf_worker *worker, weft_time due)
{
	struct wf_virtual_worker *own = &worker->virtual;

	wf_u64_store_relaxed(&own->due, (uint64_t)due);
	/*
	 * R1: release, before P2's RMW: with R3 in count_parks(). Who sees our bit sees both; who
	 * saw it before we were awake, and sees it now, sees another count.
	 */
	wf_u64_store_release(&own->parks, wf_u64_load_relaxed(&own->parks) + 1);
}

/* --- R3 --- */

static uint64_t count_parks(const struct weft_rt *rt)
{
	uint64_t sum = 0;

	/* R3: seq_cst, before the idle word and again after it: with R1 in wf_virtual_park(). */
	for (unsigned i = 0; i < rt->worker_count; i++)
		sum += wf_u64_load_seq_cst(&rt->workers[i].virtual.parks);
	return sum;
}

static bool is_held(const struct weft_rt *rt)
{
	/* R3: seq_cst, before the queues: with R6 in wf_virtual_let_go(), U1 in count_out(). */
	return (wf_u32_load_seq_cst(&rt->virtual.holds) > 0 && !WF_PLANTED(virtual_ignores_holds))
		|| (wf_pool_is_working(rt) && !WF_PLANTED(virtual_ignores_jobs));
}

static void wake(struct wf_worker *worker)
{
	if (wf_idle_claim_one(&worker->rt->idle, worker->number))
		wf_worker_wake(worker, WF_TOKEN_DIRECTED);
}

/*
 * Whoever has pushed something to a sleeper wakes it; but what a foreign thread gives up comes
 * without a wake (wf_inbox_send_quietly).
 */
static bool queues_are_empty(struct weft_rt *rt)
{
	bool empty = wf_injector_is_empty(&rt->injector);

	for (unsigned i = 0; i < rt->worker_count; i++)
		if (!wf_injector_is_empty(&rt->workers[i].inbox)) {
			wake(&rt->workers[i]);
			empty = false;
		}
	return empty;
}

/* What a worker wants to be awake for, or must be: its shard's timers are for it to fire. */
static weft_time due_of(const struct wf_worker *worker)
{
	weft_time own = (weft_time)wf_u64_load_relaxed(&worker->virtual.due);
	weft_time shard = wf_shared_shard_next(&worker->rt->timers, worker->number);

	return own < shard ? own : shard;
}

static weft_time first_due(struct weft_rt *rt)
{
	weft_time first = WEFT_FOREVER;

	wf_shared_refresh(&rt->timers); /* not where something was cancelled */
	for (unsigned i = 0; i < rt->worker_count; i++) {
		weft_time due = due_of(&rt->workers[i]);

		first = first < due ? first : due;
	}
	return first;
}

/* R3. True: nobody was awake while it looked; next_out: when something falls due. */
static bool is_at_rest(struct weft_rt *rt, weft_time *next_out)
{
	uint64_t parks = count_parks(rt);

	if (!wf_idle_all_parked(&rt->idle) || is_held(rt) || !queues_are_empty(rt))
		return false;
	*next_out = first_due(rt);
	if (WF_PLANTED(virtual_looks_once))
		return true;
	return wf_idle_all_parked(&rt->idle) && count_parks(rt) == parks;
}

/* --- R4, R5, R7 --- */

static void move_to(struct weft_rt *rt, weft_time time)
{
	WF_ASSERT(time >= wf_rt_now(rt));
	/* R4: relaxed: K1 takes it to who is woken, `asked` to who holds. */
	wf_u64_store_relaxed(&rt->clock, (uint64_t)time);
}

static void wake_due(struct weft_rt *rt)
{
	for (unsigned i = 0; i < rt->worker_count; i++)
		if (due_of(&rt->workers[i]) <= wf_rt_now(rt))
			wake(&rt->workers[i]);
}

static void tell(struct weft_rt *rt)
{
	/* R7: an RMW, with R7 in await_rest(). */
	(void)wf_u32_fetch_add(&rt->virtual.rested, 1);
	wf_futex_wake_all(&rt->virtual.rested);
}

static void look(struct weft_rt *rt)
{
	weft_time limit, next;

	if (!is_at_rest(rt, &next))
		return;
	limit = (weft_time)wf_u64_load_relaxed(&rt->virtual.limit); /* set inside holds only */
	if (next != WEFT_FOREVER && next <= limit) {
		if (next > wf_rt_now(rt))
			move_to(rt, next);
		wake_due(rt);
		return;
	}
	if (limit != WEFT_FOREVER && limit > wf_rt_now(rt))
		move_to(rt, limit);
	tell(rt);
}

/* --- R2 --- */

void wf_virtual_ask(struct weft_rt *rt)
{
	wf_atomic_u32 *asked = &rt->virtual.asked;
	uint32_t seen;

	/* After P2, R6 or U1: of those who park, let go or end last, one sees the others. */
	if (!wf_idle_all_parked(&rt->idle))
		return;
	/* R2: an RMW, with R6 in wf_virtual_hold_on(), and with itself: who is at it goes on. */
	if (wf_u32_fetch_add(asked, 1) > 0)
		return;
	seen = 1;
	do {
		look(rt);
		if (WF_PLANTED(virtual_forgets_askers))
			seen = wf_u32_load_relaxed(asked);
	} while (!wf_u32_cas(asked, &seen, 0));
}

/* --- R6 --- */

void wf_virtual_hold_on(struct weft_rt *rt)
{
	/* R6: an RMW, then `asked` (seq_cst): a look sees us, or we see it. */
	(void)wf_u32_fetch_add(&rt->virtual.holds, 1);
	while (wf_u32_load_seq_cst(&rt->virtual.asked) > 0 && !WF_PLANTED(virtual_ignores_holds))
		wf_pause();
}

void wf_virtual_let_go(struct weft_rt *rt)
{
	/* R6: an RMW, with R3 in is_held(): what was published comes before. */
	if (wf_u32_fetch_add(&rt->virtual.holds, (uint32_t)-1) == 1)
		wf_virtual_ask(rt);
}

/* --- the limit --- */

/* Inside a hold. */
static void set_limit(struct weft_rt *rt, weft_time limit)
{
	wf_u64_store_relaxed(&rt->virtual.limit, (uint64_t)limit);
}

static bool is_frozen(const struct weft_rt *rt)
{
	return (weft_time)wf_u64_load_relaxed(&rt->virtual.limit) != WEFT_FOREVER;
}

void wf_virtual_start(struct weft_rt *rt, const struct weft_virtual_opts *opts)
{
	rt->virtual.on = true;
	set_limit(rt, opts->frozen ? WEFT_TEST_START : WEFT_FOREVER);
}

void wf_virtual_thaw(struct weft_rt *rt)
{
	set_limit(rt, WEFT_FOREVER);
}

void wf_virtual_end(struct weft_rt *rt)
{
	tell(rt);
}

/* --- waiting for rest --- */

static bool has_ended(const struct weft_rt *rt)
{
	return wf_u32_load_relaxed(&rt->stop_phase) == WF_ENDED;
}

/* 0: a look since the call has found nothing due up to the limit; -ESHUTDOWN; -ETIMEDOUT. */
static int await_rest(struct weft_rt *rt, weft_time real_deadline)
{
	/* R7: seq_cst, before we ask: with R7 in tell(). */
	uint32_t seen = wf_u32_load_seq_cst(&rt->virtual.rested);

	wf_virtual_ask(rt);
	while (wf_u32_load_seq_cst(&rt->virtual.rested) == seen && !has_ended(rt)) {
		if (real_deadline != WEFT_FOREVER && wf_clock_now_ns() >= real_deadline)
			return -ETIMEDOUT;
		wf_futex_wait(&rt->virtual.rested, seen, real_deadline);
	}
	return has_ended(rt) ? -ESHUTDOWN : 0;
}

static void report(struct weft_rt *rt)
{
	wf_log(rt, WEFT_LOG_WARN,
		"virtual time stands: all workers are idle, nothing will ever fall due");
	wf_life_log_survivors(rt);
}

void wf_virtual_report(struct weft_rt *rt)
{
	weft_time next;

	if (!is_frozen(rt) && wf_life_alive(rt) > 0 && is_at_rest(rt, &next)
		&& next == WEFT_FOREVER)
		report(rt);
}

/* --- the public calls --- */

/* 0, or why the calling thread may not wait. */
static int check_wait(struct weft_rt *rt)
{
	if (!rt->virtual.on)
		return -EINVAL;
	return wf_worker_self() || wf_pool_is_within(rt) ? -EDEADLK : 0;
}

int weft_virtual_wait_idle(weft_rt *rt, weft_time real_deadline)
{
	int r = check_wait(rt);

	if (r == 0)
		r = await_rest(rt, real_deadline);
	if (r < 0)
		return r == -ESHUTDOWN ? 0 : r;
	if (is_frozen(rt) || wf_life_alive(rt) == 0)
		return 0;
	report(rt);
	return -EDEADLK;
}

/* One at a time has the limit: -EBUSY: an advance is going on. */
static int take_limit(struct weft_rt *rt)
{
	uint32_t nobody = 0;

	return wf_u32_cas(&rt->virtual.limited, &nobody, 1) ? 0 : -EBUSY;
}

static void give_limit(struct weft_rt *rt)
{
	wf_u32_store_release(&rt->virtual.limited, 0);
}

/* A stop thaws the clock: it stays so. */
static void limit_to(struct weft_rt *rt, bool frozen)
{
	wf_virtual_hold_on(rt);
	set_limit(rt, frozen && !wf_rt_is_draining(rt) ? wf_rt_now(rt) : WEFT_FOREVER);
	wf_virtual_let_go(rt);
}

static int set_frozen(struct weft_rt *rt, bool frozen)
{
	int r = rt->virtual.on ? take_limit(rt) : -EINVAL;

	if (r < 0)
		return r;
	limit_to(rt, frozen);
	give_limit(rt);
	return 0;
}

int weft_virtual_freeze(weft_rt *rt)
{
	return set_frozen(rt, true);
}

int weft_virtual_thaw(weft_rt *rt)
{
	return set_frozen(rt, false);
}

/* -> 0: time goes on, up to duration_ns from now. */
static int go_on(struct weft_rt *rt, weft_time duration_ns)
{
	int r = 0;

	wf_virtual_hold_on(rt);
	if (wf_rt_is_draining(rt))
		r = -ESHUTDOWN;
	else if (!is_frozen(rt))
		r = -EINVAL;
	else
		set_limit(rt, wf_time_after(wf_rt_now(rt), duration_ns));
	wf_virtual_let_go(rt);
	return r;
}

int weft_virtual_advance(weft_rt *rt, weft_time duration_ns, weft_time real_deadline)
{
	int r = check_wait(rt);

	if (r == 0)
		r = take_limit(rt);
	if (r < 0)
		return r;
	r = go_on(rt, duration_ns);
	if (r == 0) {
		r = await_rest(rt, real_deadline);
		limit_to(rt, true);
	}
	give_limit(rt);
	return r == 0 && wf_rt_is_draining(rt) ? -ESHUTDOWN : r;
}
