/*
 * timer/shared.h with real threads: each timer that is inserted is cancelled once or fires once,
 * never before its deadline, wherever it was moved meanwhile, and its memory may be used again as
 * soon as a cancel has returned or its action is done. Row T5.
 *
 * Everybody does everything: threads insert, move and cancel timers of their own in any shard, and
 * expire any shard. Time is a counter that all push on. What a node holds while it is no timer is
 * 0xa5; whoever touches it too late finds that, or breaks a list.
 */
#include "test/harness.h"

#include "timer/shared.h"

#include <sched.h>
#include <stdio.h>

enum {
	THREADS = 4,
	SHARDS = 2,
	TIMERS = 16, /* of each thread */
	ROUNDS = 1000000 / HARNESS_SLOWDOWN,
};

enum state { IDLE, ARMED };

/* Its owner's, but for what the action does. */
struct node {
	struct wf_timer timer;
	wf_atomic_u32 fired;    /* the life that has */
	wf_atomic_u64 fired_ns; /* when */
	uint32_t life;
	unsigned shard;
	enum state state;
	enum wf_shared_kind kind;
	int64_t deadline_ns;
};

static struct wf_shared_shard shards[SHARDS];
static struct wf_shared shared;
static struct node nodes[THREADS][TIMERS];
static wf_atomic_u64 now_ns;
static wf_atomic_u64 cancels, fires; /* for the sanity of the test itself */

static void copy(struct wf_timer *timer, enum wf_shared_kind kind, struct wf_shared_action *out)
{
	const struct node *node = WF_CONTAINER_OF(timer, struct node, timer);

	*out = (struct wf_shared_action){{(uintptr_t)node, node->life, kind}};
}

static void act(const struct wf_shared_action *action, uint64_t time_ns)
{
	struct node *node = (struct node *)(uintptr_t)action->word[0];
	uint32_t life = (uint32_t)action->word[1];

	wf_u64_store_relaxed(&node->fired_ns, time_ns);
	/* R1: with R2 in has_fired(). */
	cr_assert_eq(wf_u32_exchange(&node->fired, life), life - 1, "a life fires twice, or late");
}

static void expire(unsigned shard, bool wait)
{
	uint64_t time_ns = wf_u64_load_relaxed(&now_ns);
	struct wf_shared_batch batch;
	int64_t next_ns;

	if (wf_shared_expire(&shared, shard, (int64_t)time_ns, wait, &batch) != WF_SHARED_FIRES)
		return;
	/* Whoever was here before may have brought the shard to a later time. */
	time_ns = (uint64_t)shards[shard].wheel.now_ns;
	for (unsigned i = 0; i < batch.count; i++)
		act(&batch.actions[i], time_ns);
	wf_shared_expired(&shared, shard, &next_ns);
}

static bool has_fired(const struct node *node)
{
	/* R2: acquire, with R1: when it fired. */
	return wf_u32_load_acquire(&node->fired) == node->life;
}

/* The next life's number follows, whether this one has fired or not. */
static void end_life(struct node *node)
{
	memset(&node->timer, 0xa5, sizeof(node->timer));
	wf_u32_store_relaxed(&node->fired, node->life);
	node->state = IDLE;
}

static void check_fired(struct node *node)
{
	cr_assert_geq((int64_t)wf_u64_load_relaxed(&node->fired_ns), node->deadline_ns);
	(void)wf_u64_fetch_add(&fires, 1);
	end_life(node);
}

static void begin_life(struct node *node, uint64_t *seed)
{
	int64_t ahead_ns = (int64_t)harness_random_below(seed, 40) * WF_WHEEL_TICK_NS / 4;

	node->life++;
	node->state = ARMED;
	node->shard = (unsigned)harness_random_below(seed, SHARDS);
	node->kind = harness_random_below(seed, 2) ? WF_SHARED_TIMER : WF_SHARED_PROCESS;
	node->deadline_ns = (int64_t)wf_u64_load_relaxed(&now_ns) + ahead_ns;
	cr_assert_neq(
		wf_shared_insert(&shared, node->shard, &node->timer, node->kind, node->deadline_ns),
		WF_SHARED_CLOSED);
}

/* Cancelled, or fired: then its action is waited for. */
static void cancel(struct node *node)
{
	uint64_t batch;

	if (wf_shared_cancel(&shared, node->shard, &node->timer, &batch)) {
		cr_assert(!has_fired(node), "cancelled and fired");
		(void)wf_u64_fetch_add(&cancels, 1);
		end_life(node);
		return;
	}
	memset(&node->timer, 0xa5, sizeof(node->timer));
	while (!wf_shared_is_done(&shared, node->shard, batch))
		sched_yield();
	cr_assert(has_fired(node), "done, and it has not fired");
	check_fired(node);
}

static void move(struct node *node, uint64_t *seed)
{
	int64_t deadline_ns =
		node->deadline_ns + (int64_t)harness_random_below(seed, 4 * WF_WHEEL_TICK_NS);

	if (node->kind == WF_SHARED_TIMER && wf_shared_later(&node->timer, deadline_ns))
		node->deadline_ns = deadline_ns;
}

static void live(unsigned index, void *arg)
{
	uint64_t seed = harness_seed() + index;

	(void)arg;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct node *node = &nodes[index][harness_random_below(&seed, TIMERS)];
		unsigned choice = (unsigned)harness_random_below(&seed, 8);

		if (node->state == ARMED && has_fired(node))
			check_fired(node);
		if (node->state == IDLE)
			begin_life(node, &seed);
		else if (choice < 2)
			cancel(node);
		else if (choice < 4)
			move(node, &seed);
		if (choice >= 5)
			expire(choice % SHARDS, choice == 5);
		if (round % 8 == 0)
			(void)wf_u64_fetch_add(&now_ns, WF_WHEEL_TICK_NS / 3);
	}
	for (unsigned i = 0; i < TIMERS; i++)
		if (nodes[index][i].state == ARMED)
			cancel(&nodes[index][i]);
}

Test(shared, each_timer_is_cancelled_or_fires_once, .timeout = 300)
{
	wf_shared_init(&shared, shards, SHARDS, 0, copy);
	harness_threads(THREADS, live, NULL);
	cr_assert_eq(wf_shared_pending(&shared), 0);
	cr_assert(wf_shared_valid(&shared, stderr));
	cr_assert_gt(wf_u64_load_relaxed(&cancels), ROUNDS / 20);
	cr_assert_gt(wf_u64_load_relaxed(&fires), ROUNDS / 20);
}
