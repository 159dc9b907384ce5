/* shared.c: the shards of the shared wheel, and its leader's word. shared.h has the protocol. */
#include "timer/shared.h"

#include <string.h>

enum {
	LEADER_BITS = 6, /* of the leader's word: worker + 1; the time's last 64 ns are cut off */
};

static_assert(WF_WORKERS_MAX < 1 << LEADER_BITS, "a worker's number fits the leader's word");

/* --- one node --- */

/*
 * The deadline of the node, by which it is filed: even for a process, odd for a timer. Up for the
 * one and down for the other, it stays in its tick, whose end is even. Down is early by 1 ns where
 * the time is exactly that: fires() looks at the timer's own word.
 */
static int64_t mark(int64_t deadline_ns, enum wf_shared_kind kind)
{
	if (deadline_ns <= 0)
		return -(int64_t)kind;
	if (deadline_ns >= WF_WHEEL_END_NS)
		return WF_WHEEL_END_NS + (int64_t)kind;
	return kind == WF_SHARED_TIMER ? (deadline_ns - 1) | 1 : (deadline_ns + 1) & ~(int64_t)1;
}

static enum wf_shared_kind kind_of(const struct wf_timer *timer)
{
	return (enum wf_shared_kind)(timer->deadline_ns & 1);
}

bool wf_shared_is_pending(const struct wf_timer *timer)
{
	/* F3: acquire, with F2: who sees FIRED sees what came before the firing. */
	uint64_t due = wf_u64_load_acquire(&timer->due);

	return due != 0 && !(due & WF_SHARED_FIRED);
}

int64_t wf_shared_deadline(const struct wf_timer *timer)
{
	int64_t deadline_ns = (int64_t)(wf_u64_load_relaxed(&timer->due) >> 1);

	return deadline_ns >= WF_WHEEL_END_NS ? INT64_MAX : deadline_ns;
}

/* --- one shard --- */

static void let_go(struct wf_shared_shard *shard)
{
	wf_u64_store_relaxed(&shard->pending, wf_wheel_count(&shard->wheel));
	wf_shortlock_unlock(&shard->lock);
}

/* I1: an RMW, so that it comes before the load of the leader's word in any order: with L4. */
static void publish(struct wf_shared_shard *shard, int64_t next_ns)
{
	if (WF_PLANTED(shared_publishes_by_store))
		wf_u64_store_release(&shard->next_ns, (uint64_t)next_ns);
	else
		(void)wf_u64_exchange(&shard->next_ns, (uint64_t)next_ns);
}

/*
 * When a timer that is pending wants the wheel to look: when its tick has come, or, out of the
 * wheel's range, when it is to be filed again.
 */
static int64_t look_ns(const struct wf_timer *timer)
{
	uint64_t tick = timer->filed >> WF_WHEEL_INDEX_BITS;

	return tick >= WF_WHEEL_END_TICK ? INT64_MAX : (int64_t)(tick << WF_TICK_SHIFT);
}

enum wf_shared_inserted wf_shared_insert(struct wf_shared *shared, unsigned number,
	struct wf_timer *timer, enum wf_shared_kind kind, int64_t deadline_ns)
{
	struct wf_shared_shard *shard = &shared->shards[number];
	enum wf_shared_inserted r = WF_SHARED_LATER;
	int64_t next_ns;

	wf_shortlock_lock(&shard->lock);
	if (WF_UNLIKELY(shard->closed)) {
		let_go(shard);
		return WF_SHARED_CLOSED;
	}
	if (kind == WF_SHARED_TIMER)
		wf_u64_store_relaxed(&timer->due, wf_shared_due(deadline_ns));
	wf_wheel_insert(&shard->wheel, timer, mark(deadline_ns, kind));
	next_ns = look_ns(timer);
	if (next_ns < (int64_t)wf_u64_load_relaxed(&shard->next_ns) && !shard->expiring) {
		publish(shard, next_ns);
		r = WF_SHARED_EARLIER;
	}
	let_go(shard);
	return r;
}

/*
 * That it has fired with: 0, if it has not been inserted; of one of kind PROCESS that is not known:
 * the last one.
 */
static uint64_t batch_of(const struct wf_shared_shard *shard, const struct wf_timer *timer)
{
	if (kind_of(timer) == WF_SHARED_PROCESS)
		return shard->started;
	return wf_u64_load_relaxed(&timer->due) >> 1;
}

bool wf_shared_cancel(
	struct wf_shared *shared, unsigned number, struct wf_timer *timer, uint64_t *batch_out)
{
	struct wf_shared_shard *shard = &shared->shards[number];
	bool guessed = WF_PLANTED(shared_cancel_races_fire) && wf_timer_is_pending(timer);
	bool pending;

	wf_shortlock_lock(&shard->lock);
	pending = wf_timer_is_pending(timer);
	if (pending) {
		if (kind_of(timer) == WF_SHARED_TIMER)
			wf_u64_store_relaxed(&timer->due, 0);
		(void)wf_wheel_cancel(&shard->wheel, timer);
	}
	if (batch_out)
		*batch_out = pending ? 0 : batch_of(shard, timer);
	let_go(shard);
	return pending || guessed;
}

uint64_t wf_shared_pass(struct wf_shared *shared, unsigned number)
{
	struct wf_shared_shard *shard = &shared->shards[number];
	uint64_t batch;

	wf_shortlock_lock(&shard->lock);
	batch = shard->expiring ? shard->started : 0;
	wf_shortlock_unlock(&shard->lock);
	return batch;
}

/* Not by wf_wheel_insert(): the mark may be due a nanosecond before the deadline. */
static void file_again(struct wf_wheel *wheel, struct wf_timer *timer, int64_t deadline_ns)
{
	timer->deadline_ns = mark(deadline_ns, WF_SHARED_TIMER);
	wheel->count++;
	wf_wheel_file(wheel, timer, wf_wheel_tick_of(deadline_ns));
}

/* A timer was popped: false, and it is filed again, if its deadline has moved. */
static bool fires(struct wf_wheel *wheel, struct wf_timer *timer, uint64_t batch)
{
	uint64_t fired = batch << 1 | WF_SHARED_FIRED, due;

	if (kind_of(timer) == WF_SHARED_PROCESS)
		return true;
	due = wf_u64_load_relaxed(&timer->due);
	do {
		if (due > wf_shared_due(wheel->now_ns)) {
			file_again(wheel, timer, (int64_t)(due >> 1));
			return false;
		}
		if (WF_PLANTED(shared_fires_by_store)) {
			wf_u64_store_relaxed(&timer->due, fired);
			return true;
		}
		/* F2: with F1 in wf_shared_move_later(). */
	} while (!wf_u64_cas(&timer->due, &due, fired));
	return true;
}

/* N3. */
static void take_batch(const struct wf_shared *shared, struct wf_shared_shard *shard,
	struct wf_shared_batch *batch)
{
	struct wf_wheel *wheel = &shard->wheel;

	batch->count = 0;
	for (unsigned pops = 0; pops < WF_SHARED_BATCH; pops++) {
		struct wf_timer *timer = wf_wheel_pop_due(wheel);

		if (!timer)
			return;
		if (fires(wheel, timer, shard->started + 1))
			shared->copy(timer, kind_of(timer), &batch->actions[batch->count++]);
	}
}

enum wf_shared_expiry wf_shared_expire(struct wf_shared *shared, unsigned number, int64_t now_ns,
	bool wait, struct wf_shared_batch *batch_out)
{
	struct wf_shared_shard *shard = &shared->shards[number];
	int64_t next_ns = INT64_MAX, last_ns;

	if (wait)
		wf_shortlock_lock(&shard->lock);
	else if (!wf_shortlock_try(&shard->lock))
		return WF_SHARED_BUSY;
	if (shard->expiring) {
		let_go(shard);
		return WF_SHARED_BUSY;
	}
	wf_wheel_advance(&shard->wheel, now_ns);
	take_batch(shared, shard, batch_out);
	if (batch_out->count > 0) {
		shard->expiring = true;
		shard->started++;
		if (WF_PLANTED(shared_done_early))
			wf_u64_store_release(&shard->done, shard->started);
	} else {
		/*
		 * A heavy slot may want to be looked at earlier than was published. A leader that
		 * sleeps until then would not know, and an insert in between not wake it.
		 */
		next_ns = wf_wheel_next(&shard->wheel);
		last_ns = (int64_t)wf_u64_load_relaxed(&shard->next_ns);
		next_ns = next_ns > last_ns ? next_ns : last_ns;
	}
	/* P1: release, with L4: not before the last, so a load that misses it is only early. */
	wf_u64_store_release(&shard->next_ns, (uint64_t)next_ns);
	let_go(shard);
	return batch_out->count > 0 ? WF_SHARED_FIRES : WF_SHARED_NOTHING;
}

void wf_shared_expired(struct wf_shared *shared, unsigned number, int64_t *next_ns_out)
{
	struct wf_shared_shard *shard = &shared->shards[number];

	wf_shortlock_lock(&shard->lock);
	shard->expiring = false;
	/* B2: release, with B1 in wf_shared_is_done(). */
	wf_u64_store_release(&shard->done, shard->started);
	*next_ns_out = wf_wheel_next(&shard->wheel);
	publish(shard, *next_ns_out);
	let_go(shard);
}

/* --- all shards --- */

static void shard_start(struct wf_shared_shard *shard, int64_t now_ns)
{
	wf_wheel_init(&shard->wheel, now_ns);
	shard->wheel.moves_max = WF_SHARED_MOVES; /* N3 */
	wf_u64_store_relaxed(&shard->next_ns, INT64_MAX);
}

void wf_shared_init(struct wf_shared *shared, struct wf_shared_shard *shards, unsigned count,
	int64_t now_ns, wf_shared_copy copy)
{
	memset(shared, 0, sizeof *shared);
	shared->shards = shards;
	shared->count = count;
	shared->copy = copy;
	for (unsigned i = 0; i < count; i++) {
		memset(&shards[i], 0, offsetof(struct wf_shared_shard, wheel));
		shard_start(&shards[i], now_ns);
	}
}

void wf_shared_refresh(struct wf_shared *shared)
{
	for (unsigned i = 0; i < shared->count; i++) {
		struct wf_shared_shard *shard = &shared->shards[i];

		wf_shortlock_lock(&shard->lock);
		if (!shard->expiring)
			publish(shard, wf_wheel_next(&shard->wheel));
		let_go(shard);
	}
}

void wf_shared_close(struct wf_shared *shared)
{
	for (unsigned i = 0; i < shared->count; i++) {
		struct wf_shared_shard *shard = &shared->shards[i];
		uint64_t left;
		struct wf_timer *timer;

		wf_shortlock_lock(&shard->lock);
		shard->closed = true;
		left = wf_wheel_count(&shard->wheel); /* so that it ends, whatever it finds */
		while (left-- > 0 && (timer = wf_wheel_any(&shard->wheel)) != NULL) {
			if (kind_of(timer) == WF_SHARED_TIMER)
				wf_u64_store_relaxed(&timer->due, 0);
			(void)wf_wheel_cancel(&shard->wheel, timer);
		}
		wf_u64_store_relaxed(&shard->next_ns, INT64_MAX);
		let_go(shard);
	}
}

int64_t wf_shared_next(const struct wf_shared *shared)
{
	int64_t first = INT64_MAX;

	for (unsigned i = 0; i < shared->count; i++) {
		/* L1, L4: seq_cst, after the RMWs of L2 and L3: with publish(). */
		int64_t next_ns = (int64_t)wf_u64_load_seq_cst(&shared->shards[i].next_ns);

		if (next_ns < first)
			first = next_ns;
	}
	return first;
}

uint64_t wf_shared_pending(const struct wf_shared *shared)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < shared->count; i++)
		count += wf_u64_load_relaxed(&shared->shards[i].pending);
	return count;
}

/* What is wrong with one timer of a list; NULL: nothing. */
static const char *timer_fault(const struct wf_shared_shard *shard, const struct wf_timer *timer)
{
	int64_t next_ns = (int64_t)wf_u64_load_relaxed(&shard->next_ns);
	uint64_t due = wf_u64_load_relaxed(&timer->due);

	if (kind_of(timer) == WF_SHARED_TIMER && due < wf_shared_due(timer->deadline_ns - 1))
		return due == 0 ? "is pending, and its due word says no"
				: "is pending, and due before its deadline";
	if (kind_of(timer) == WF_SHARED_TIMER && (due & WF_SHARED_FIRED))
		return "is pending, and has fired";
	if (shard->expiring || next_ns <= look_ns(timer) || next_ns <= shard->wheel.now_ns)
		return NULL;
	return "is due before the shard wants to be looked at";
}

/* Of a wheel that is in order. */
static bool shard_valid(const struct wf_shared_shard *shard, unsigned number, FILE *out)
{
	for (unsigned i = 0; i < WF_WHEEL_LISTS; i++) {
		const struct wf_timer_link *head = &shard->wheel.lists[i].head, *link;

		for (link = head->next; link != head; link = link->next) {
			const struct wf_timer *timer = (const void *)link;
			const char *fault = timer_fault(shard, timer);

			if (!fault)
				continue;
			fprintf(out, "shard %u: a timer for %lld ns %s\n", number,
				(long long)timer->deadline_ns, fault);
			return false;
		}
	}
	return true;
}

bool wf_shared_valid(struct wf_shared *shared, FILE *out)
{
	bool valid = true;

	for (unsigned i = 0; i < shared->count && valid; i++) {
		struct wf_shared_shard *shard = &shared->shards[i];

		wf_shortlock_lock(&shard->lock);
		valid = wf_wheel_valid(&shard->wheel, out) && shard_valid(shard, i, out);
		let_go(shard);
	}
	return valid;
}

/* --- the leader --- */

static uint64_t leader_word(unsigned worker, int64_t until_ns)
{
	return (uint64_t)(until_ns < 0 ? 0 : until_ns) >> LEADER_BITS << LEADER_BITS | (worker + 1);
}

bool wf_shared_lead(struct wf_shared *shared, unsigned worker, int64_t until_ns)
{
	uint64_t none = 0;

	/* L2: an RMW, with I2 in wf_shared_leader_to_wake(). */
	return wf_u64_load_relaxed(&shared->leader) == 0 &&
	       wf_u64_cas(&shared->leader, &none, leader_word(worker, until_ns));
}

void wf_shared_resign(struct wf_shared *shared, unsigned worker)
{
	WF_ASSERT(wf_u64_load_relaxed(&shared->leader) % (1u << LEADER_BITS) == worker + 1);
	/* L5: an RMW, so that it comes before the look who is parked: with L6 in core/timers.c. */
	if (WF_PLANTED(shared_resigns_by_store))
		wf_u64_store_release(&shared->leader, 0);
	else
		(void)wf_u64_exchange(&shared->leader, 0);
}

int wf_shared_leader_to_wake(const struct wf_shared *shared, int64_t deadline_ns)
{
	/* I2: seq_cst, after I1's RMW: with L2 and L4. */
	uint64_t word = wf_u64_load_seq_cst(&shared->leader);

	if (word == 0)
		return WF_SHARED_NO_LEADER;
	if ((int64_t)(word >> LEADER_BITS << LEADER_BITS) <= deadline_ns)
		return WF_SHARED_LEADER_KNOWS;
	return (int)(word % (1u << LEADER_BITS)) - 1;
}
