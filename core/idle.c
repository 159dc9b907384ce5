/*
 * idle.c: a worker with nothing to do: search, spin, park; and how it is woken. sync/idle.h has the
 * protocol of the idle word; the steps of a park are in core/README.md ("park").
 *
 * Searching. At most max(1, workers / 2) workers scan the others' rings; any number may spin on
 * their own driver, inbox and timers. A spinner has no parked bit, so no waker will look for it: it
 * reads the injector's head every turn of the spin, and becomes a searcher whenever nobody
 * searches. A searcher that finds something runs the first of it next, and publishes the rest in
 * its ring before it gives the count back; if it was the last one it wakes one more worker. The
 * count is given back before anything runs, whoever found it: others rely on it while it stands.
 *
 * Spinning (WEFT_IDLE_ADAPTIVE). A park and the wake that ends it cost rt->break_even_ns, measured
 * at start. An idle worker spins while the predicted gap (an average of past ones) is below that,
 * for at most that long, out of a credit of WF_SPIN_CREDIT_PERCENT of its time; never when only a
 * timer can end the gap, and never when there are more workers than CPUs or quota.
 *
 * WEFT_IDLE_SPIN, by option or because a driver is spin-only: the spin has no limit, so park() is
 * never called. Where workers have to share CPUs they offer theirs to the others every round.
 */
#include "core/hooks.h"
#include "core/inbox.h"
#include "core/internal.h"
#include "core/monitor.h"
#include "core/scoped.h"
#include "core/timers.h"
#include "core/wake.h"

enum {
	SPIN_CHECKS = 16,          /* looks at the queues between two polls of driver and clock */
	SPIN_SCANS = 8,            /* every so many of them scan the other rings */
	CREDIT_NS_MAX = 2000000,   /* credit is not saved beyond this */
	GAP_SHIFT = 3,             /* the average's weight: 1/8 for the newest gap */
	LIFE_CHECK_SPINS = 64,     /* polls between checks whether the runtime has ended */
	CROWD_TIMERS = 64,         /* on a wheel: they share wakes */
	CROWD_GAP_NS = 70000,      /* between two of those */
};

static uint64_t random_next(struct wf_worker *worker)
{
	/* xorshift64* (Vigna, 2016) */
	uint64_t x = worker->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	worker->random = x;
	return x * 0x2545f4914f6cdd1dULL;
}

/* --- waking other workers --- */

void wf_worker_wake(struct wf_worker *target, enum wf_token token)
{
	/* K1: release, with K2 in token_consume(): what the waker did before. */
	wf_u32_store_release(&target->token, token);
	wf_worker_kick(target);
}

void wf_worker_kick(struct wf_worker *worker)
{
	const struct wf_open_driver *main = wf_worker_main_driver(worker);

	if (worker->rt->idle_mode != WEFT_IDLE_SPIN) /* else it never sleeps */
		main->driver->wake(main->state);
}

void wf_rt_wake_for_work(struct weft_rt *rt)
{
	struct wf_worker *self = wf_worker_self();
	int number;

	if (self && self->rt == rt && self->collecting) {
		self->work_wake_due = true;
		return;
	}
	number = wf_idle_claim_any(&rt->idle);
	if (number < 0)
		return;
	if (self)
		wf_count(&self->counters.wakes_work, 1);
	wf_worker_wake(&rt->workers[number], WF_TOKEN_WORK);
}

void wf_rt_wake_all(struct weft_rt *rt)
{
	uint64_t parked = wf_idle_claim_all(&rt->idle);

	for (unsigned i = 0; i < rt->worker_count; i++)
		if (parked >> i & 1)
			wf_worker_wake(&rt->workers[i], WF_TOKEN_DIRECTED);
}

/* --- searching --- */

static unsigned searchers_max(const struct weft_rt *rt)
{
	return rt->worker_count < 4 ? 1 : rt->worker_count / 2;
}

/*
 * Takes the oldest child of a scope, the root of what is likely the largest branch; or half of the
 * victim's ring: the first comes back, the rest goes into our ring.
 */
static struct wf_proc *steal_from(struct wf_worker *worker, struct wf_worker *victim)
{
	void *items[WF_DEQUE_STEAL_MAX];
	unsigned count = wf_deque_steal_oldest(&victim->children, items, 1);

	if (count == 1)
		wf_scope_child_taken(worker, items[0]);
	else
		count = wf_deque_steal(&victim->ring, items, WF_DEQUE_STEAL_MAX);
	if (count == 0)
		return NULL;
	if (WF_DEQUE_STEAL_MAX > 1 && count > 1) /* lifo: one, and no array to point past */
		(void)wf_deque_push_many(&worker->ring, items + 1, count - 1);
	wf_count(&worker->counters.steals, 1);
	wf_count(&worker->counters.stolen, count);
	return items[0];
}

static struct wf_proc *scan_victims(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;
	unsigned start = (unsigned)(random_next(worker) % rt->worker_count);

	for (unsigned i = 0; i < rt->worker_count; i++) {
		struct wf_worker *victim = &rt->workers[(start + i) % rt->worker_count];
		struct wf_proc *p;

		if (victim == worker)
			continue;
		p = steal_from(worker, victim);
		if (p)
			return p;
	}
	return NULL;
}

/*
 * Ends a search because there is something to run; loot is in the ring already. The last searcher
 * wakes one more: others may have relied on it.
 */
void wf_worker_search_end(struct wf_worker *worker)
{
	if (!worker->searching)
		return;
	worker->searching = false;
	/* The RMW of search_end comes after the loot's publication (wf_deque_publish below). */
	if (wf_idle_search_end(&worker->rt->idle))
		wf_rt_wake_for_work(worker->rt);
}

/*
 * Work that was found: the first runs next, the rest is in the ring. Were the first put there too,
 * two idle workers could steal the last process from each other for ever.
 */
static void found(struct wf_worker *worker, struct wf_proc *p)
{
	WF_ASSERT(!worker->picked); /* or it would not have searched */
	if (WF_PLANTED(loot_into_ring))
		wf_worker_push_ring(worker, p);
	else
		worker->picked = p;
	wf_deque_publish(&worker->ring);
	wf_worker_search_end(worker);
}

/* Looking at the rings of others costs their owners a cache line each. */
bool wf_worker_look_around(struct wf_worker *worker, bool scan)
{
	struct weft_rt *rt = worker->rt;
	struct wf_proc *p = NULL;

	if (!wf_injector_is_empty_relaxed(&worker->inbox) && wf_worker_drain_inbox(worker) > 0)
		return true;
	if (!wf_injector_is_empty_relaxed(&rt->injector))
		p = wf_worker_take_injected(worker);
	if (!p && scan && rt->worker_count > 1) {
		if (!worker->searching)
			worker->searching = wf_idle_search_begin(&rt->idle, searchers_max(rt));
		if (worker->searching)
			p = scan_victims(worker);
	}
	if (p)
		found(worker, p);
	return p != NULL;
}

/* --- spin or park --- */

static void credit_refresh(struct wf_worker *worker)
{
	struct wf_idle_policy *idle = &worker->idle;
	int64_t passed = worker->now - idle->credited_at_ns;

	idle->credited_at_ns = worker->now;
	idle->credit_ns += passed * WF_SPIN_CREDIT_PERCENT / 100;
	if (idle->credit_ns > CREDIT_NS_MAX)
		idle->credit_ns = CREDIT_NS_MAX;
}

/* How long to spin now. */
static int64_t spin_ns(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;
	int64_t break_even_ns = (int64_t)wf_u64_load_relaxed(&rt->break_even_ns);

	if (rt->idle_mode == WEFT_IDLE_PARK)
		return 0;
	if (rt->idle_mode == WEFT_IDLE_SPIN)
		return INT64_MAX;
	credit_refresh(worker);
	if (!rt->may_spin || worker->idle.gap_ns > break_even_ns)
		return 0;
	return worker->idle.credit_ns < break_even_ns ? worker->idle.credit_ns : break_even_ns;
}

/* A gap has ended by something other than a timer. */
static void gap_learn(struct wf_worker *worker, int64_t gap_ns)
{
	struct wf_idle_policy *idle = &worker->idle;
	/* One long night must not take long to forget. */
	int64_t cap = 4 * (int64_t)wf_u64_load_relaxed(&worker->rt->break_even_ns);

	if (gap_ns > cap)
		gap_ns = cap;
	idle->gap_ns += (gap_ns - idle->gap_ns) / (1 << GAP_SHIFT);
}

/*
 * When something falls due, if the wheel's timers do at `wheel`.
 */
static weft_time first_due(struct wf_worker *worker, weft_time wheel)
{
	weft_time life = wf_life_deadline(worker->rt);
	weft_time first = wheel < life ? wheel : life;

	for (unsigned i = 0; i < worker->driver_count; i++) {
		const struct wf_open_driver *open = &worker->drivers[i];
		weft_time driver = open->driver->next_deadline
			? open->driver->next_deadline(open->state)
			: WEFT_FOREVER;

		if (i > 0 && WF_PLANTED(park_deadline_of_main))
			continue;
		first = first < driver ? first : driver;
	}
	return first;
}

weft_time wf_worker_next_due(struct wf_worker *worker)
{
	weft_time first = first_due(worker, wf_wheel_next(&worker->wheel));
	weft_time shards = WF_UNLIKELY(worker->exact_timers) ? wf_timers_exact_next(worker)
							     : wf_timers_next(worker);

	return first < shards ? first : shards;
}

static weft_time or_tend(struct wf_worker *worker, weft_time due)
{
	weft_time tend = wf_table_deadline(worker);

	if (WF_PLANTED(park_until_tend) && tend != WEFT_FOREVER)
		return tend;
	return due < tend ? due : tend;
}

weft_time wf_worker_next_deadline(struct wf_worker *worker)
{
	return or_tend(worker, wf_worker_next_due(worker));
}

/*
 * A sleep costs more than 5 us and ends some 20 us late whatever is asked for: of many timers, a
 * few us apart, those of the next 70 us share one.
 */
weft_time wf_worker_timer_wake(
	const struct wf_worker *worker, weft_time next, uint64_t timer_count)
{
	weft_time crowd = worker->idle.timer_woke_at_ns + CROWD_GAP_NS;

	if (next >= crowd || timer_count < CROWD_TIMERS)
		return next;
	return next <= worker->now ? next : crowd;
}

/* When a sleep is to end, but for the shared wheel. */
static weft_time own_wake(struct wf_worker *worker)
{
	weft_time wheel = wf_worker_timer_wake(
		worker, wf_wheel_next(&worker->wheel), wf_wheel_count(&worker->wheel));

	return or_tend(worker, first_due(worker, wheel));
}

/*
 * Looks around until something is found (true) or the time is up (false). Timers that fall due end
 * the spin, so does a change of the runtime's life.
 */
static bool spin(struct wf_worker *worker, weft_time start, int64_t limit_ns)
{
	struct weft_rt *rt = worker->rt;
	uint32_t phase = wf_u32_load_relaxed(&rt->stop_phase);
	unsigned polls = 0;

	wf_count(&worker->counters.spins, 1);
	for (;;) {
		for (int i = 0; i < SPIN_CHECKS; i++) {
			if (wf_worker_look_around(worker, i % SPIN_SCANS == 0))
				return true;
			wf_pause();
		}
		worker->now = wf_rt_now(worker->rt);
		wf_worker_poll_drivers(worker, 0);
		wf_rcu_quiescent();
		if (!rt->may_spin)
			wf_thread_yield();
		if (wf_worker_has_local_work(worker) ||
			wf_wheel_next(&worker->wheel) <= worker->now ||
			wf_timers_are_due(worker))
			return true;
		if (wf_u32_load_relaxed(&rt->stop_phase) != phase || phase != WF_LIVE)
			return true;
		if (++polls % LIFE_CHECK_SPINS == 0) {
			wf_table_tend(worker);
			if (wf_life_try_end(rt))
				return true;
		}
		if (limit_ns != INT64_MAX && worker->now - start >= limit_ns)
			return false;
	}
}

/* --- parking --- */

/* P3: everything that could have been published before the announcement was seen. */
static bool recheck(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;
	uint32_t phase;

	if (WF_PLANTED(park_without_recheck))
		return false;
	/* P3: seq_cst loads all, after P2's RMW: with the RMWs of those who publish, Q1 and Q2. */
	if (!wf_injector_is_empty(&worker->inbox) || !wf_injector_is_empty(&rt->injector))
		return true;
	phase = wf_u32_load_seq_cst(&rt->stop_phase);
	if (phase != worker->seen_stop || phase == WF_ENDED)
		return true; /* after the end nobody wakes us, also if this turn has seen it */
	if (worker->closed && !worker->swept
		&& wf_u32_load_seq_cst(&rt->close_acks) == rt->worker_count)
		return true; /* the last acknowledgement's wake came before our bit */
	for (unsigned i = 0; i < rt->worker_count; i++)
		if (!wf_deque_is_empty(&rt->workers[i].ring)
			|| !wf_deque_is_empty(&rt->workers[i].children))
			return true;
	return false;
}

/* The bit was gone: a waker has claimed us, and its token is here or on its way. */
static void token_consume(struct wf_worker *worker)
{
	uint32_t token;

	/* K2: acquire, with K1 in wf_worker_wake(). The waker is between its two stores: short. */
	while ((token = wf_u32_load_acquire(&worker->token)) == WF_TOKEN_NONE)
		wf_pause();
	wf_u32_store_relaxed(&worker->token, WF_TOKEN_NONE);
	/* A work wake counted us as a searcher: either we search, or we give the count back. */
	if (token == WF_TOKEN_WORK)
		worker->searching = true;
}

static void sleep_until(struct wf_worker *worker, weft_time deadline, weft_time now)
{
	struct wf_open_driver *main = wf_worker_main_driver(worker);
	int r;

	wf_count(&worker->counters.parks, 1);
	worker->collecting = true;
	r = main->driver->wait(main->state, deadline, now);
	worker->collecting = false;
	worker->now = wf_rt_now(worker->rt);
	if (WF_UNLIKELY(r < 0))
		wf_worker_driver_failed(worker, main->driver, r);
}

void wf_worker_sleep(struct wf_worker *worker, weft_time deadline)
{
	weft_time own, shards, next;

	if (WF_UNLIKELY(worker->rt->virtual.on)) { /* R5 ends it: the kernel's clock is no help */
		sleep_until(worker, WEFT_FOREVER, worker->now);
		return;
	}
	own = own_wake(worker);
	shards = wf_timers_next(worker);
	next = own < shards ? own : shards;
	sleep_until(worker, next < deadline ? next : deadline, worker->now);
}

void wf_worker_sleep_on(struct wf_worker *worker, weft_time deadline)
{
	sleep_until(worker, deadline, wf_clock_now_ns());
}

/* The first `count`, in reverse. */
static void disarm(struct wf_worker *worker, unsigned count)
{
	while (count-- > 0) {
		const struct wf_open_driver *open = &worker->drivers[count];

		if (open->driver->disarm)
			open->driver->disarm(open->state);
	}
}

/* P1: all, or none if one of them has something. */
static bool arm(struct wf_worker *worker)
{
	for (unsigned i = 0; i < worker->driver_count; i++) {
		const struct wf_open_driver *open = &worker->drivers[i];

		if (!open->driver->arm || (i > 0 && WF_PLANTED(park_arms_main_only)))
			continue;
		if (open->driver->arm(open->state) == WF_DRIVER_RETRY) {
			if (i > 0 && WF_PLANTED(park_ignores_retry))
				continue;
			disarm(worker, i);
			return false;
		}
	}
	return true;
}

/* P5, and P6 but for the polls. */
static void unpark(struct wf_worker *worker)
{
	if (!wf_idle_unpark_self(&worker->rt->idle, worker->number)
		&& !WF_PLANTED(park_leaves_token))
		token_consume(worker);
	wf_timers_resign(worker);
	wf_monitor_notice(worker->rt);
	disarm(worker, worker->driver_count);
}

/* P1 to P3; undone again if there is something to do. */
static bool announce(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;

	if (!arm(worker)) {
		wf_worker_poll_drivers(worker, 0);
		return false;
	}
	if (WF_UNLIKELY(rt->virtual.on))
		wf_virtual_park(worker, first_due(worker, wf_wheel_next(&worker->wheel)));
	else
		wf_timers_lead(worker, own_wake(worker));
	/* P2: one RMW sets our bit and gives a searcher's count back. */
	(void)wf_idle_park(&rt->idle, worker->number, worker->searching);
	worker->searching = false;
	if (!recheck(worker) && wf_timers_may_sleep(worker)
		&& !(wf_idle_all_parked(&rt->idle) && wf_life_try_end(rt))) { /* P3 */
		if (WF_UNLIKELY(rt->virtual.on))
			wf_virtual_ask(rt); /* R2; if something is due here, it wakes us too */
		return true;
	}
	unpark(worker);
	return false;
}

/* Tells the host. True: it has made something ready. P3 does not look at the private lists. */
static bool told_and_busy(struct wf_worker *worker)
{
	if (WF_LIKELY(worker->rt->hooks.thread_park == NULL))
		return false;
	wf_hooks_thread_park(worker);
	return wf_worker_has_local_work(worker);
}

bool wf_worker_park_begin(struct wf_worker *worker)
{
	WF_ASSERT(worker->rt->idle_mode != WEFT_IDLE_SPIN); /* a driver may have forbidden it */
	if (!told_and_busy(worker) && announce(worker))
		return true;
	wf_hooks_thread_unpark(worker);
	return false;
}

void wf_worker_park_end(struct wf_worker *worker, bool waited)
{
	unpark(worker);
	if (waited)
		wf_worker_poll_drivers(worker, 1); /* P6: wait() has polled the main one */
	wf_hooks_thread_unpark(worker);
}

static void park(struct wf_worker *worker)
{
	if (!wf_worker_park_begin(worker))
		return;
	wf_worker_sleep(worker, WEFT_FOREVER); /* P4 */
	wf_worker_park_end(worker, true);
}

void wf_worker_idle(struct wf_worker *worker)
{
	weft_time start = worker->now;
	int64_t limit_ns;
	bool timer_next = false;
	bool busy = false;

	for (int round = 0; round < WF_STEAL_ROUNDS && !busy; round++)
		busy = wf_worker_look_around(worker, true);
	if (!busy) {
		limit_ns = spin_ns(worker);
		if (limit_ns > 0) {
			busy = spin(worker, start, limit_ns);
			worker->idle.credit_ns -= worker->now - start;
			wf_count(&worker->counters.spin_ns, (uint64_t)(worker->now - start));
		}
	}
	if (!busy) {
		weft_time due = wf_wheel_next(&worker->wheel);
		weft_time shards = wf_shared_next(&worker->rt->timers);

		if (shards < due)
			due = shards;
		park(worker);
		timer_next = due <= worker->now;
		if (timer_next)
			worker->idle.timer_woke_at_ns = worker->now;
	}
	/* Woken as a searcher: look; with work of one's own the search is over. */
	if (worker->searching
		&& (wf_worker_has_local_work(worker) || wf_worker_look_around(worker, true)))
		wf_worker_search_end(worker);
	if (!timer_next)
		gap_learn(worker, worker->now - start);
}
