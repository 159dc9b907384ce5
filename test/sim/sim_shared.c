/*
 * timer/shared.h, its protocols one by one: who has a timer that is cancelled while it falls due,
 * or moved later; when an action is known to be done; and the leader among workers that park by
 * sync/idle.h, as core/ does it. Rows T5, T6, T9.
 *
 * In the leader's scenes time stands until all sleep. Then somebody must sleep until the earliest
 * deadline, or it is missed; and time goes on to the first that wants to wake up.
 */
#include "test/sim/sim.h"

#include <string.h>

#include "sync/idle.h"
#include "timer/shared.h"

enum { SHARDS = 2, LIVES = 4, TIMERS = 4, WORKERS = 2 };

#define TICK WF_WHEEL_TICK_NS

/* A timer's node in the memory of its user, who uses it again for another life. */
struct node {
	struct wf_timer timer;
	unsigned life;
};

static struct wf_shared_shard shards[SHARDS];
static struct wf_shared shared;

static void copy(struct wf_timer *timer, enum wf_shared_kind kind, struct wf_shared_action *out)
{
	const struct node *node = WF_CONTAINER_OF(timer, struct node, timer);

	sim_check(node->life < LIVES, "an expirer reads a node that is no timer");
	*out = (struct wf_shared_action){{(uintptr_t)node, node->life, kind}};
}

/* --- one timer, expired by two, and its owner --- */

static struct {
	struct node node;
	unsigned cancelled[LIVES], fired[LIVES];
	int64_t fired_at[LIVES];
	wf_atomic_u64 result[LIVES]; /* what the action has done, for whoever knows that it has */
	wf_atomic_u32 waits, told;          /* to whoever waits for a batch */
	int64_t deadline_ns;         /* as it was moved last */
} one;

static void setup_one(void)
{
	memset(&one, 0, sizeof(one));
	wf_shared_init(&shared, shards, 1, 0, copy);
	(void)wf_shared_insert(&shared, 0, &one.node.timer, WF_SHARED_TIMER, TICK);
}

static void act(const struct wf_shared_batch *batch, int64_t now_ns)
{
	for (unsigned i = 0; i < batch->count; i++) {
		unsigned life = (unsigned)batch->actions[i].word[1];

		sim_check(++one.fired[life] == 1, "life %u fires twice", life);
		one.fired_at[life] = now_ns;
		wf_u64_store_relaxed(&one.result[life], 1);
	}
}

/* False: somebody else was at it. */
static bool expire_one(int64_t now_ns, bool wait)
{
	struct wf_shared_batch batch;
	enum wf_shared_expiry found = wf_shared_expire(&shared, 0, now_ns, wait, &batch);
	int64_t next_ns;

	if (found == WF_SHARED_FIRES) {
		act(&batch, now_ns);
		wf_shared_expired(&shared, 0, &next_ns);
		if (wf_u32_load_relaxed(&one.waits)) { /* as H2 in core/timer.c */
			wf_u32_store_release(&one.told, 1);
			wf_futex_wake(&one.told, 1);
		}
	}
	return found != WF_SHARED_BUSY;
}

/* The node is ours: it was something else, and is a timer again. */
static void begin_life(unsigned life, enum wf_shared_kind kind, int64_t deadline_ns)
{
	memset(&one.node, 0xa5, sizeof(one.node));
	one.node.life = life;
	(void)wf_shared_insert(&shared, 0, &one.node.timer, kind, deadline_ns);
}

static void cancel(unsigned life)
{
	if (wf_shared_cancel(&shared, 0, &one.node.timer, NULL))
		one.cancelled[life]++;
}

static void cancel_beside_expirers(unsigned number)
{
	if (number == 0) {
		cancel(0);
		begin_life(1, WF_SHARED_PROCESS, 2 * TICK);
		cancel(1);
		begin_life(2, WF_SHARED_TIMER, 3 * TICK);
		cancel(2);
		memset(&one.node, 0xa5, sizeof(one.node));
	} else {
		(void)expire_one(TICK * 3, number == 1);
		(void)expire_one(TICK * 4, number == 1);
	}
}

static void check_cancels(void)
{
	for (unsigned life = 0; life < 3; life++)
		sim_check(one.cancelled[life] + one.fired[life] == 1,
			"life %u: %u times cancelled, %u times fired", life, one.cancelled[life],
			one.fired[life]);
	sim_check(wf_shared_pending(&shared) == 0, "timers are left");
	sim_check(wf_shared_valid(&shared, stderr), "the shard is not valid");
}

static const struct sim_scenario cancelling = {
	"a canceller, 2 expirers", 3, setup_one, cancel_beside_expirers, NULL, check_cancels, 0};

SIM_TEST(shared, a_timer_is_cancelled_or_fires)
{
	sim_must_pass(&cancelling, 100000);
}

SIM_TEST(shared, planted_cancel_races_fire)
{
	sim_must_find_saying(
		&cancelling, WF_PLANTED_shared_cancel_races_fire, 100000, "times fired");
}

/* --- moved later while it falls due --- */

static void move(int64_t deadline_ns)
{
	if (wf_shared_later(&one.node.timer, deadline_ns))
		one.deadline_ns = deadline_ns;
	else
		sim_check(!wf_shared_is_pending(&one.node.timer), "it moves no more, and pends");
}

static void later_beside_expirer(unsigned number)
{
	if (number == 0) {
		move(5 * TICK);
		move(8 * TICK);
	} else {
		for (int64_t ticks = 1; ticks <= 9; ticks += 2)
			(void)expire_one(ticks * TICK + 1, true);
	}
}

static void setup_later(void)
{
	setup_one();
	one.deadline_ns = TICK;
}

static void check_later(void)
{
	/* The last expiry may have been before the last move. */
	(void)expire_one(20 * TICK, true);
	sim_check(one.fired[0] == 1, "fired %u times", one.fired[0]);
	sim_check(one.fired_at[0] >= one.deadline_ns, "due at %lld, fired at %lld",
		(long long)one.deadline_ns, (long long)one.fired_at[0]);
	sim_check(!wf_shared_is_pending(&one.node.timer), "it fired, and pends");
	sim_check(!wf_shared_later(&one.node.timer, 30 * TICK), "it fired, and moves");
	sim_check(wf_shared_valid(&shared, stderr), "the shard is not valid");
}

static const struct sim_scenario moving = {
	"a mover, an expirer", 2, setup_later, later_beside_expirer, NULL, check_later, 0};

SIM_TEST(shared, a_timer_that_was_moved_does_not_fire_before)
{
	sim_must_pass(&moving, 100000);
}

SIM_TEST(shared, planted_fires_by_store)
{
	sim_must_find_saying(&moving, WF_PLANTED_shared_fires_by_store, 100000, "due at");
}

/* --- when its action is done --- */

/* A lost cancel tells what to wait for; announced as by H1 in core/timer.c. */
static void cancel_wait(unsigned life)
{
	uint64_t batch;

	if (wf_shared_cancel(&shared, 0, &one.node.timer, &batch)) {
		one.cancelled[life]++;
		return;
	}
	(void)wf_u32_exchange(&one.waits, 1);
	wf_shared_pass(&shared, 0);
	while (!wf_shared_is_done(&shared, 0, batch))
		(void)wf_futex_sleep(&one.told, 0, WF_FUTEX_FOREVER);
	sim_check(wf_u64_load_relaxed(&one.result[life]) == 1,
		"life %u counts as done, and its action has not been", life);
}

static void wait_beside_expirers(unsigned number)
{
	if (number == 0) {
		cancel_wait(0);
	} else {
		(void)expire_one(TICK * 3, number == 1);
		(void)expire_one(TICK * 4, number == 1);
	}
}

static void check_wait(void)
{
	sim_check(one.cancelled[0] + one.fired[0] == 1, "%u times cancelled, %u times fired",
		one.cancelled[0], one.fired[0]);
}

static const struct sim_scenario waiting = {
	"a waiter, 2 expirers", 3, setup_one, wait_beside_expirers, NULL, check_wait, 0};

SIM_TEST(shared, a_batch_that_is_done_has_acted)
{
	sim_must_pass(&waiting, 100000);
}

SIM_TEST(shared, planted_done_early)
{
	sim_must_find_saying(&waiting, WF_PLANTED_shared_done_early, 100000, "has not been");
}

/* --- the leader --- */

struct worker {
	wf_atomic_u32 token;
	unsigned number;
	bool timed_out;
	int64_t sleeps_until; /* -1: it is awake */
};

static struct {
	struct wf_idle idle;
	struct worker workers[WORKERS];
	struct node nodes[TIMERS];
	struct {
		unsigned shard;
		int64_t deadline_ns;
		bool inserted;
		unsigned fired;
	} timers[TIMERS];
	int64_t now_ns;
	unsigned workers_count;
	bool skip_recheck; /* planted */
} led;

static void send_token(unsigned number)
{
	struct worker *worker = &led.workers[number];

	sim_check(wf_u32_exchange(&worker->token, 1) == 0, "two tokens for worker %u", number);
	(void)sim_unblock(worker, 1);
}

static void tell_leader(int64_t deadline_ns) /* I2 */
{
	int number = wf_shared_leader_to_wake(&shared, deadline_ns);

	if (number >= 0) {
		if (wf_idle_claim_one(&led.idle, (unsigned)number))
			send_token((unsigned)number);
		return;
	}
	/* In core the monitor wakes one. */
	for (unsigned i = 0; number == -2 && i < led.workers_count; i++) {
		if (wf_idle_claim_one(&led.idle, i)) {
			send_token(i);
			return;
		}
	}
}

static void insert(unsigned i, unsigned shard, int64_t deadline_ns)
{
	led.timers[i].shard = shard;
	led.timers[i].deadline_ns = deadline_ns;
	led.timers[i].inserted = true;
	led.nodes[i].life = 0;
	if (wf_shared_insert(&shared, shard, &led.nodes[i].timer,
		    i % 2 ? WF_SHARED_TIMER : WF_SHARED_PROCESS, deadline_ns) == WF_SHARED_EARLIER)
		tell_leader(deadline_ns);
}

static void fire(const struct wf_shared_batch *batch)
{
	for (unsigned n = 0; n < batch->count; n++) {
		size_t i = (size_t)((struct node *)batch->actions[n].word[0] - led.nodes);

		sim_check(++led.timers[i].fired == 1, "timer %zu fires twice", i);
		sim_check(led.timers[i].deadline_ns <= led.now_ns, "timer %zu fires early", i);
	}
}

static void expire_overdue(void)
{
	struct wf_shared_batch batch;
	int64_t next_ns;

	for (unsigned i = 0; i < SHARDS; i++) {
		if (wf_shared_shard_next(&shared, i) > led.now_ns)
			continue;
		if (wf_shared_expire(&shared, i, led.now_ns, false, &batch) != WF_SHARED_FIRES)
			continue;
		fire(&batch);
		wf_shared_expired(&shared, i, &next_ns);
		tell_leader(next_ns);
	}
}

/* Whether by its token: then nobody's bit is left to clear. */
static bool sleep_until(struct worker *self, int64_t until_ns)
{
	self->sleeps_until = until_ns;
	for (;;) {
		sim_point("sleep");
		if (sim_peek_atomic(&self->token) != 0 || self->timed_out)
			break;
		(void)sim_block(self, SIM_FOREVER);
	}
	self->sleeps_until = -1;
	self->timed_out = false;
	return wf_u32_exchange(&self->token, 0) != 0;
}

static void park(struct worker *self)
{
	int64_t until_ns = wf_shared_next(&shared); /* L1 */
	bool leads, woken = false;

	if (until_ns <= led.now_ns)
		return;
	leads = wf_shared_lead(&shared, self->number, until_ns);               /* L2 */
	(void)wf_idle_park(&led.idle, self->number, false);                    /* L3 */
	if (!leads || led.skip_recheck || wf_shared_next(&shared) >= until_ns) /* L4 */
		woken = sleep_until(self, leads ? until_ns : INT64_MAX);
	if (!woken && !wf_idle_unpark_self(&led.idle, self->number))
		(void)sleep_until(self, INT64_MAX); /* for the token that is on its way */
	if (leads)
		wf_shared_resign(&shared, self->number); /* L5 */
}

static void work(struct worker *self)
{
	for (;;) {
		expire_overdue();
		park(self);
	}
}

static void setup_led_by(unsigned workers)
{
	memset(&led, 0, sizeof(led));
	led.workers_count = workers;
	wf_idle_init(&led.idle, workers);
	wf_shared_init(&shared, shards, SHARDS, 0, copy);
	for (unsigned i = 0; i < workers; i++) {
		led.workers[i].number = i;
		led.workers[i].sleeps_until = -1;
	}
}

static void setup_led_by_one(void)
{
	setup_led_by(1);
}

static void setup_led_by_two(void)
{
	setup_led_by(2);
}

static int64_t tick_end(int64_t deadline_ns)
{
	return (deadline_ns + TICK - 1) / TICK * TICK;
}

/* All sleep: is that right? Time goes on to whoever wakes up first. */
static enum sim_quiet quiet(void)
{
	int64_t due_ns = INT64_MAX;
	struct worker *first = &led.workers[0];

	for (unsigned i = 0; i < TIMERS; i++)
		if (led.timers[i].inserted && led.timers[i].fired == 0 &&
			tick_end(led.timers[i].deadline_ns) < due_ns)
			due_ns = tick_end(led.timers[i].deadline_ns);
	for (unsigned i = 1; i < led.workers_count; i++)
		if (led.workers[i].sleeps_until < first->sleeps_until)
			first = &led.workers[i];
	sim_check(first->sleeps_until >= 0, "a worker waits for a token that nobody sends");
	sim_check(first->sleeps_until <= due_ns,
		"missed: a timer is due at %lld, all sleep until %lld", (long long)due_ns,
		(long long)first->sleeps_until);
	if (first->sleeps_until == INT64_MAX)
		return SIM_DONE;
	led.now_ns = first->sleeps_until;
	first->timed_out = true;
	(void)sim_unblock(first, 1);
	return SIM_GO_ON;
}

static void check_led(void)
{
	for (unsigned i = 0; i < TIMERS; i++)
		sim_check(!led.timers[i].inserted || led.timers[i].fired == 1,
			"timer %u has not fired", i);
	sim_check(wf_shared_pending(&shared) == 0, "timers are left");
	sim_check(wf_shared_valid(&shared, stderr), "a shard is not valid");
}

/* Each earlier than the last one, so each may have to be told. */
static void insert_one_by_one(unsigned number)
{
	if (number < led.workers_count) {
		work(&led.workers[number]);
	} else {
		insert(0, 0, 30 * TICK + 5);
		insert(1, 1, 20 * TICK + 5);
		insert(2, 0, 10 * TICK);
	}
}

static const struct sim_scenario led_by_one = {
	"1 worker, an inserter", 2, setup_led_by_one, insert_one_by_one, quiet, check_led, 0};
static const struct sim_scenario led_by_two = {
	"2 workers, an inserter", 3, setup_led_by_two, insert_one_by_one, quiet, check_led, 0};

SIM_TEST(shared, one_worker_sleeps_past_no_deadline)
{
	sim_must_pass(&led_by_one, 100000);
}

SIM_TEST(shared, two_workers_sleep_past_no_deadline)
{
	sim_must_pass(&led_by_two, 100000);
}

static void insert_both(unsigned number)
{
	if (number < led.workers_count) {
		work(&led.workers[number]);
	} else {
		unsigned i = 2 * (number - led.workers_count);

		insert(i, 0, (20 - (int64_t)i) * TICK);
		insert(i + 1, 0, (10 + (int64_t)i) * TICK);
	}
}

/* The second one's insert may have nothing to publish: somebody has, and tells the leader. */
static const struct sim_scenario two_inserters = {
	"2 workers, 2 inserters", 4, setup_led_by_two, insert_both, quiet, check_led, 0};

SIM_TEST(shared, two_inserters_into_one_shard_are_both_seen)
{
	sim_must_pass(&two_inserters, 100000);
}

SIM_TEST(shared, planted_publishes_by_store)
{
	sim_must_find_saying(&led_by_one, WF_PLANTED_shared_publishes_by_store, 100000, "missed");
}

static void setup_without_recheck(void)
{
	setup_led_by(1);
	led.skip_recheck = true;
}

SIM_TEST(shared, planted_no_recheck)
{
	static const struct sim_scenario scenario = {"1 worker, no second look", 2,
		setup_without_recheck, insert_one_by_one, quiet, check_led, 0};

	sim_must_find_saying(&scenario, WF_PLANTED_nothing, 100000, "missed");
}
