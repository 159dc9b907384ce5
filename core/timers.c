/* timers.c: deadlines on the shared wheel. timers.h tells who fires them. */
#include "core/timers.h"

#include <errno.h>

#include "core/internal.h"
#include "core/monitor.h"
#include "core/wake.h"

enum {
	BATCHES_MAX = WF_EXPIRE_BUDGET / WF_SHARED_BATCH, /* of a shard, in one turn */
	LOOK_NS = 100000,    /* between looks at other workers' shards */
	RESCUE_NS = 1000000, /* how long the monitor leaves a deadline to those awake */
};

static void copy(
	struct wf_timer *timer, enum wf_shared_kind kind, struct wf_shared_action *action_out)
{
	struct wf_proc *p;

	if (kind == WF_SHARED_TIMER) {
		wf_timer_copy(timer, action_out);
		return;
	}
	p = WF_CONTAINER_OF(timer, struct wf_proc, timer);
	action_out->word[0] = WF_TIMER_PROCESS;
	action_out->word[1] = (uint64_t)(uintptr_t)p;
	action_out->word[2] = wf_word_generation(wf_u64_load_relaxed(&p->word));
}

int wf_timers_make(struct weft_rt *rt)
{
	struct wf_shared_shard *shards = wf_alloc(
		rt, WF_FALSE_SHARING, rt->worker_count * sizeof *shards);

	if (!shards)
		return -ENOMEM;
	wf_shared_init(&rt->timers, shards, rt->worker_count, wf_rt_now(rt), copy);
	return 0;
}

void wf_timers_close(struct weft_rt *rt)
{
	if (!WF_PLANTED(timers_closed_late))
		wf_shared_close(&rt->timers);
}

void wf_timers_unmake(struct weft_rt *rt)
{
	if (WF_PLANTED(timers_closed_late))
		wf_shared_close(&rt->timers);
	wf_free(rt, rt->timers.shards, rt->worker_count * sizeof *rt->timers.shards);
}

unsigned wf_timers_shard(struct weft_rt *rt)
{
	const struct wf_worker *self = wf_worker_self();

	if (self && self->rt == rt)
		return self->number;
	return wf_u32_fetch_add(&rt->timers_turn, 1) % rt->worker_count;
}

/* --- waits of movable processes --- */

void wf_timers_arm(struct wf_worker *worker, struct wf_proc *p, weft_time deadline)
{
	p->live.timed_out = false;
	p->live.armed = true;
	if (wf_shared_insert(&worker->rt->timers, worker->number, &p->timer, WF_SHARED_PROCESS,
		    deadline) == WF_SHARED_EARLIER)
		wf_timers_published(worker->rt, worker, deadline);
}

void wf_timers_disarm(struct weft_rt *rt, struct wf_proc *p, unsigned shard)
{
	p->live.timed_out = !wf_shared_cancel(&rt->timers, shard, &p->timer, NULL);
	p->live.armed = false;
}

/* --- firing --- */

static void wake_process(struct wf_worker *worker, const struct wf_shared_action *action)
{
	struct wf_proc *p = (struct wf_proc *)(uintptr_t)action->word[1];

	/* Its header is still one: the table keeps them. Another process's is not worth a wake. */
	if (wf_word_generation(wf_u64_load_relaxed(&p->word)) == (uint32_t)action->word[2])
		wf_proc_wake(worker->rt, worker, p, false);
}

static void act(struct wf_worker *worker, const struct wf_shared_batch *batch)
{
	for (unsigned i = 0; i < batch->count; i++) {
		const struct wf_shared_action *action = &batch->actions[i];

		if (action->word[0] == WF_TIMER_PROCESS)
			wake_process(worker, action);
		else
			wf_timer_act(worker, action);
	}
}

/* Batch by batch; `own`: it may wait for the lock. */
static unsigned expire_shard(struct wf_worker *worker, unsigned shard, bool own)
{
	struct wf_shared *timers = &worker->rt->timers;
	struct wf_shared_batch batch;
	bool looked = false;
	unsigned fired = 0;

	for (unsigned i = 0; i < BATCHES_MAX; i++) {
		enum wf_shared_expiry expiry;
		int64_t next_ns;

		if (wf_shared_shard_next(timers, shard) > worker->now)
			break;
		expiry = wf_shared_expire(timers, shard, worker->now, own, &batch);
		if (expiry == WF_SHARED_BUSY)
			break;
		looked = true;
		if (expiry == WF_SHARED_NOTHING)
			continue;
		worker->timers_shard = shard + 1;
		act(worker, &batch);
		worker->timers_shard = 0;
		fired += batch.count;
		if (WF_PLANTED(timer_tells_early))
			wf_timer_tell(worker->rt);
		wf_shared_expired(timers, shard, &next_ns);
		if (!WF_PLANTED(timer_tells_early))
			wf_timer_tell(worker->rt);
	}
	/* Once: what was due in between is what the next batch was. */
	if (looked)
		wf_timers_published(worker->rt, worker, wf_shared_shard_next(timers, shard));
	return fired;
}

static unsigned expire_others(struct wf_worker *worker)
{
	const struct wf_shared *timers = &worker->rt->timers;
	unsigned fired = 0;

	worker->timers_look_at = worker->now + LOOK_NS;
	for (unsigned i = 0; i < timers->count; i++)
		if (i != worker->number && wf_shared_shard_next(timers, i) <= worker->now)
			fired += expire_shard(worker, i, false);
	return fired;
}

unsigned wf_timers_expire(struct wf_worker *worker)
{
	const struct wf_shared *timers = &worker->rt->timers;
	unsigned fired = 0;

	if (wf_shared_shard_next(timers, worker->number) <= worker->now)
		fired = expire_shard(worker, worker->number, true);
	if (timers->count > 1 && worker->timers_look_at <= worker->now)
		fired += expire_others(worker);
	if (fired)
		wf_count(&worker->counters.timers_fired, fired);
	return fired;
}

/* --- the leader --- */

void wf_timers_lead(struct wf_worker *worker, weft_time own)
{
	struct wf_shared *timers = &worker->rt->timers;
	weft_time first = wf_shared_next(timers); /* L1 */
	weft_time shards = wf_worker_timer_wake(worker, first, wf_shared_pending(timers));

	worker->leads_first = first;
	worker->leads_until = own < shards ? own : shards;
	worker->leads = wf_shared_lead(timers, worker->number, worker->leads_until);
}

bool wf_timers_may_sleep(const struct wf_worker *worker)
{
	const struct wf_shared *timers = &worker->rt->timers;
	weft_time first;

	if (worker->rt->virtual.on)
		return true; /* nobody leads: R2 */
	/* L6: whoever led when L2 was tried may have resigned since, and seen nobody parked. */
	if (!worker->leads)
		return wf_shared_leader_to_wake(timers, 0) != WF_SHARED_NO_LEADER
			|| WF_PLANTED(park_without_leader);
	if (WF_PLANTED(leader_looks_once))
		return true;
	first = wf_shared_next(timers);
	return first >= worker->leads_first || first >= worker->leads_until;
}

/* Seq_cst: after an RMW on the leader's word (L5) or a shard's (I1): with L6. */
static bool somebody_parks(struct weft_rt *rt)
{
	return wf_u64_load_seq_cst(&rt->idle.word) & WF_IDLE_PARKED;
}

weft_time wf_timers_exact_next(struct wf_worker *worker)
{
	struct wf_shared *timers = &worker->rt->timers;

	WF_ASSERT(timers->count == 1);
	wf_shared_refresh(timers);
	return wf_shared_next(timers);
}

static bool wake_parked(struct weft_rt *rt, unsigned number)
{
	if (!wf_idle_claim_one(&rt->idle, number))
		return false;
	wf_worker_wake(&rt->workers[number], WF_TOKEN_DIRECTED);
	return true;
}

/* Nobody leads: one of the parked, if there are any, is to wake up, and to lead. */
static void wake_any(struct weft_rt *rt)
{
	uint64_t parked = wf_idle_parked_mask(&rt->idle);

	for (; parked != 0; parked &= parked - 1)
		if (wake_parked(rt, (unsigned)__builtin_ctzll(parked)))
			return;
}

/* Should it come to hold its worker. */
void wf_timers_resign(struct wf_worker *worker)
{
	struct weft_rt *rt = worker->rt;
	weft_time first;

	if (!worker->leads)
		return;
	worker->leads = false;
	worker->timers_look_at = 0; /* whatever is overdue: nobody else has looked */
	wf_shared_resign(&rt->timers, worker->number);
	if (!somebody_parks(rt) || WF_PLANTED(resign_tells_nobody))
		return;
	first = wf_shared_next(&rt->timers);
	if (rt->monitor)
		wf_monitor_hurry(rt->monitor, wf_time_after(first, RESCUE_NS));
	else if (first != WEFT_FOREVER && first > worker->now)
		wake_any(rt); /* what is due it fires, and then I2 follows */
}

void wf_timers_published(struct weft_rt *rt, const struct wf_worker *self, weft_time deadline)
{
	int leader;

	if (deadline == WEFT_FOREVER || WF_PLANTED(insert_wakes_nobody))
		return;
	if (WF_UNLIKELY(rt->virtual.on))
		return; /* whoever inserts is awake, or holds time, and asks afterwards */
	if (self && rt->worker_count == 1 && self->rt == rt)
		return; /* it is awake, and looks before it sleeps */
	leader = wf_shared_leader_to_wake(&rt->timers, deadline);
	if (leader == WF_SHARED_LEADER_KNOWS)
		return;
	if (leader >= 0 && wake_parked(rt, (unsigned)leader))
		return;
	/* Who is awake looks in its turn, and before it parks. Unless it holds its worker. */
	if (!somebody_parks(rt))
		return;
	if (rt->monitor)
		wf_monitor_hurry(rt->monitor, wf_time_after(deadline, RESCUE_NS));
	else if (leader < 0)
		wake_any(rt); /* else the leader is about to sleep, or to resign */
}

weft_time wf_timers_rescue(struct weft_rt *rt, weft_time now)
{
	weft_time due;

	if (rt->clock_virtual || !somebody_parks(rt))
		return WEFT_FOREVER;
	due = wf_time_after(wf_shared_next(&rt->timers), RESCUE_NS);
	if (due > now)
		return due;
	if (wf_shared_leader_to_wake(&rt->timers, 0) == WF_SHARED_NO_LEADER)
		wake_any(rt);
	return now + RESCUE_NS;
}
