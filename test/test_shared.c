/*
 * Goal: the shared wheel is a wheel whose timers anybody may insert, move and cancel, each of which
 * fires once or is cancelled once, and a shard never publishes that it wants to be looked at later
 * than its earliest timer does. Method: time is an argument; one thread, so that each answer is
 * exact. Threads that race: stress_shared.c; each order of their steps: sim/sim_shared.c.
 */
#include "test/harness.h"

#include "timer/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK_NS WF_WHEEL_TICK_NS
#define SEC(n)  ((int64_t)(n)*1000000000)
#define YEAR    SEC(365 * 86400)

enum { SHARDS = 3 };

struct node {
	struct wf_timer timer;
	unsigned id;
};

static struct wf_shared_shard shards[SHARDS];
static struct wf_shared shared;

static void copy(struct wf_timer *timer, enum wf_shared_kind kind, struct wf_shared_action *out)
{
	const struct node *node = WF_CONTAINER_OF(timer, struct node, timer);

	*out = (struct wf_shared_action){{(uintptr_t)node, node->id, kind}};
}

static void start(int64_t now_ns)
{
	wf_shared_init(&shared, shards, SHARDS, now_ns, copy);
}

/* The first time at which a deadline's tick has come. */
static int64_t due_ns(int64_t deadline_ns)
{
	return (deadline_ns + TICK_NS - 1) / TICK_NS * TICK_NS;
}

static void check_valid(void)
{
	cr_assert(wf_shared_valid(&shared, stderr));
}

/*
 * All that is due in a shard, as its worker takes it: as long as it wants to be looked at. Returns
 * how many fired; the last of them is put into last_out.
 */
static unsigned expire_all(unsigned shard, int64_t now_ns, struct wf_shared_action *last_out)
{
	unsigned fired = 0, calls = 0;
	struct wf_shared_batch batch;
	int64_t next_ns;

	while (wf_shared_shard_next(&shared, shard) <= now_ns) {
		cr_assert_lt(calls++, 1000000, "at %" PRId64, now_ns);
		if (wf_shared_expire(&shared, shard, now_ns, false, &batch) != WF_SHARED_FIRES)
			continue;
		cr_assert_geq(batch.count, 1);
		cr_assert_leq(batch.count, WF_SHARED_BATCH);
		if (last_out)
			*last_out = batch.actions[batch.count - 1];
		fired += batch.count;
		wf_shared_expired(&shared, shard, &next_ns);
		cr_assert_eq(next_ns, wf_shared_shard_next(&shared, shard));
	}
	return fired;
}

/* --- when a deadline is due (T1) --- */

/* One timer from `now`: not a nanosecond early, and fired when its tick has come. */
static void check_one(int64_t now, int64_t deadline, enum wf_shared_kind kind)
{
	int64_t due = deadline <= now ? now : due_ns(deadline);
	struct node node = {.id = 7};
	struct wf_shared_action action = {{0}};

	start(now);
	cr_assert_eq(wf_shared_insert(&shared, 1, &node.timer, kind, deadline), WF_SHARED_EARLIER);
	check_valid();
	cr_assert_leq(wf_shared_shard_next(&shared, 1), due, "for %" PRId64, deadline);
	if (due > now) {
		cr_assert_eq(expire_all(1, deadline - 1, NULL), 0, "%" PRId64 " to %" PRId64, now,
			deadline);
		check_valid();
	}
	cr_assert_eq(expire_all(1, due, &action), 1, "%" PRId64 " to %" PRId64, now, deadline);
	cr_assert_eq(action.word[0], (uintptr_t)&node);
	cr_assert_eq(action.word[1], 7);
	cr_assert_eq(action.word[2], kind);
	cr_assert_eq(wf_shared_pending(&shared), 0);
	cr_assert_eq(wf_shared_shard_next(&shared, 1), INT64_MAX);
	check_valid();
}

static void check_both(int64_t now, int64_t deadline)
{
	check_one(now, deadline, WF_SHARED_PROCESS);
	check_one(now, deadline, WF_SHARED_TIMER);
}

Test(shared, past_and_present_are_due_at_once)
{
	static const int64_t starts_ns[] = {0, 1, 2, TICK_NS - 1, TICK_NS, SEC(7), SEC(7) + 1};

	for (size_t i = 0; i < WF_ARRAY_COUNT(starts_ns); i++) {
		check_both(starts_ns[i], 0);
		check_both(starts_ns[i], -1);
		check_both(starts_ns[i], -2);
		check_both(starts_ns[i], INT64_MIN);
		check_both(starts_ns[i], INT64_MIN + 1);
		check_both(starts_ns[i], starts_ns[i] - starts_ns[i] % TICK_NS);
		/* A process may ask for the odd nanosecond before: that is the next tick's end. */
		check_one(starts_ns[i], starts_ns[i], WF_SHARED_TIMER);
	}
}

Test(shared, less_than_a_tick_is_not_early)
{
	for (int64_t now = 1000 * TICK_NS - 2; now <= 1000 * TICK_NS + 2; now++)
		for (int64_t ahead = 1; ahead <= 2 * TICK_NS;
			ahead += ahead < 8 ? 1 : TICK_NS / 16 - 3)
			check_both(now, now + ahead);
}

Test(shared, level_boundaries_and_years_are_exact, .timeout = 120)
{
	static const int64_t starts_ns[] = {0, 12345, 64 * TICK_NS - 1, SEC(12345678) + 901};
	static const int64_t slots[] = {1, 63, 64, 127, 128};
	static const int64_t spans_ns[] = {YEAR, 5 * YEAR, 10 * YEAR};

	for (size_t s = 0; s < WF_ARRAY_COUNT(starts_ns); s++) {
		int64_t width = TICK_NS;

		for (unsigned level = 0; level < 7; level++, width *= 64)
			for (size_t i = 0; i < WF_ARRAY_COUNT(slots); i++) {
				if (slots[i] > 14 * YEAR / width)
					break;
				for (int64_t off = -2; off <= 2; off++)
					check_both(starts_ns[s],
						starts_ns[s] + slots[i] * width + off);
			}
		for (size_t i = 0; i < WF_ARRAY_COUNT(spans_ns); i++)
			check_both(starts_ns[s], starts_ns[s] + spans_ns[i] + 17);
	}
}

Test(shared, forever_is_pending_and_never_due)
{
	static const int64_t deadlines_ns[] = {INT64_MAX, INT64_MAX - 1, WF_WHEEL_END_NS + 1,
		WF_WHEEL_END_NS, WF_WHEEL_END_NS - 1, WF_WHEEL_END_NS - 2};
	struct node nodes[2][WF_ARRAY_COUNT(deadlines_ns)] = {0};

	start(99);
	for (unsigned kind = 0; kind < 2; kind++)
		for (size_t i = 0; i < WF_ARRAY_COUNT(deadlines_ns); i++)
			cr_assert_eq(wf_shared_insert(&shared, 0, &nodes[kind][i].timer, kind,
					     deadlines_ns[i]),
				WF_SHARED_LATER, "%zu is nobody's business", i);
	cr_assert_eq(wf_shared_next(&shared), INT64_MAX);
	cr_assert_eq(expire_all(0, INT64_MAX - 1, NULL), 0);
	check_valid();
	cr_assert(wf_shared_is_pending(&nodes[1][0].timer));
	cr_assert_eq(wf_shared_deadline(&nodes[1][0].timer), INT64_MAX);
	for (unsigned kind = 0; kind < 2; kind++)
		for (size_t i = 0; i < WF_ARRAY_COUNT(deadlines_ns); i++)
			cr_assert(wf_shared_cancel(&shared, 0, &nodes[kind][i].timer, NULL));
	check_valid();
}

/* Out of the wheel's range it is filed anew on its way, and each look says so. */
Test(shared, far_deadlines_are_published_when_the_wheel_wants_to_look)
{
	struct node node = {0};
	unsigned looks = 0;

	start(SEC(3));
	(void)wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, 100 * YEAR);
	while (wf_shared_is_pending(&node.timer)) {
		int64_t next = wf_shared_next(&shared);

		check_valid();
		cr_assert_leq(next, due_ns(100 * YEAR));
		cr_assert_lt(looks++, 5000);
		cr_assert_eq(expire_all(0, next - 1, NULL), 0);
		(void)expire_all(0, next, NULL);
	}
	cr_assert_eq(wf_shared_next(&shared), INT64_MAX);
}

/* --- moving a deadline (T3) --- */

Test(shared, later_moves_without_a_look_at_the_shard)
{
	struct node node = {0};
	int64_t now = SEC(1), deadline = SEC(2);

	start(now);
	(void)wf_shared_insert(&shared, 2, &node.timer, WF_SHARED_TIMER, deadline);
	for (; now < SEC(20); now += SEC(1) / 100) {
		deadline = now + SEC(1);
		cr_assert(wf_shared_later(&node.timer, deadline));
		cr_assert_eq(wf_shared_deadline(&node.timer), deadline);
		cr_assert_eq(expire_all(2, now, NULL), 0, "at %" PRId64, now);
		check_valid();
	}
	cr_assert_eq(expire_all(2, deadline - 1, NULL), 0);
	cr_assert_eq(expire_all(2, due_ns(deadline), NULL), 1);
	cr_assert(!wf_shared_is_pending(&node.timer));
	cr_assert(!wf_shared_later(&node.timer, SEC(50)), "it has fired");
	cr_assert_eq(wf_shared_pending(&shared), 0);
}

Test(shared, later_by_a_nanosecond_is_not_early)
{
	for (int64_t from = 4 * TICK_NS - 2; from <= 4 * TICK_NS + 2; from++)
		for (int64_t by = 0; by <= 3; by++) {
			struct node node = {0};
			int64_t due = due_ns(from + by);

			start(from);
			(void)wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, from);
			cr_assert(wf_shared_later(&node.timer, from + by));
			/* What was due already may fire as soon as its deadline is there. */
			cr_assert_eq(expire_all(0, from, NULL), by == 0);
			cr_assert_eq(expire_all(0, due, NULL), by != 0);
		}
}

Test(shared, forever_is_later_than_anything)
{
	struct node node = {0};

	start(0);
	(void)wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, SEC(1));
	cr_assert(wf_shared_later(&node.timer, INT64_MAX));
	cr_assert_eq(wf_shared_deadline(&node.timer), INT64_MAX);
	cr_assert_eq(expire_all(0, SEC(1000), NULL), 0);
	cr_assert_eq(wf_shared_next(&shared), INT64_MAX, "it was filed anew, as never");
	cr_assert(wf_shared_later(&node.timer, INT64_MAX));
	cr_assert(wf_shared_cancel(&shared, 0, &node.timer, NULL));
	cr_assert(!wf_shared_later(&node.timer, INT64_MAX), "it was cancelled");
}

Test(shared, earlier_is_a_cancel_and_an_insert)
{
	struct node node = {0};

	start(SEC(1));
	(void)wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, SEC(10));
	cr_assert(wf_shared_cancel(&shared, 0, &node.timer, NULL));
	cr_assert_eq(wf_shared_insert(&shared, 1, &node.timer, WF_SHARED_TIMER, SEC(2)),
		WF_SHARED_EARLIER);
	cr_assert_eq(expire_all(0, SEC(11), NULL), 0);
	cr_assert_eq(expire_all(1, due_ns(SEC(2)), NULL), 1);
	/* Into the past, after it has fired, and before. */
	cr_assert_eq(wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, SEC(20)),
		WF_SHARED_EARLIER);
	cr_assert(wf_shared_cancel(&shared, 0, &node.timer, NULL));
	cr_assert_eq(wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, SEC(5)),
		WF_SHARED_EARLIER);
	cr_assert_eq(expire_all(0, SEC(11), NULL), 1);
	check_valid();
}

/* --- order, batches (T4) --- */

Test(shared, equal_deadlines_fire_in_order_in_batches)
{
	enum { COUNT = 1000, GONE = 500 };
	static struct node nodes[COUNT];
	struct wf_shared_batch batch;
	unsigned expected = 0;
	int64_t next_ns;

	start(SEC(1));
	for (unsigned i = 0; i < COUNT; i++) {
		nodes[i].id = i;
		cr_assert_eq(wf_shared_insert(&shared, 0, &nodes[i].timer, i % 2, SEC(2)),
			i == 0 ? WF_SHARED_EARLIER : WF_SHARED_LATER);
	}
	cr_assert(wf_shared_cancel(&shared, 0, &nodes[GONE].timer, NULL));
	while (expected < COUNT) {
		enum wf_shared_expiry found =
			wf_shared_expire(&shared, 0, due_ns(SEC(2)), true, &batch);

		check_valid();
		if (found == WF_SHARED_NOTHING) { /* they are on their way between slots */
			cr_assert_leq(wf_shared_next(&shared), due_ns(SEC(2)));
			continue;
		}
		cr_assert_eq(found, WF_SHARED_FIRES);
		cr_assert_leq(batch.count, WF_SHARED_BATCH);
		for (unsigned i = 0; i < batch.count; i++) {
			expected += expected == GONE;
			cr_assert_eq(batch.actions[i].word[1], expected++);
		}
		wf_shared_expired(&shared, 0, &next_ns);
	}
	cr_assert_eq(wf_shared_pending(&shared), 0);
}

Test(shared, one_advance_makes_a_bounded_number_of_moves)
{
	enum { COUNT = 500 };
	static struct node nodes[COUNT];
	struct wf_wheel *wheel = &shards[0].wheel;
	struct wf_shared_batch batch;
	unsigned calls = 0;

	/* One slot of level 3, whose last tick is far from its beginning. */
	start(0);
	for (unsigned i = 0; i < COUNT; i++)
		(void)wf_shared_insert(
			&shared, 0, &nodes[i].timer, WF_SHARED_PROCESS, SEC(10) + i * 1000);
	while (wf_wheel_count(wheel) > 0) {
		uint64_t moves = wheel->moves_paced + wheel->moves_forced;
		int64_t next_ns = wf_shared_next(&shared);

		cr_assert_leq(next_ns, SEC(11), "it is not done, and says now");
		cr_assert_lt(calls++, 10 * COUNT);
		if (wf_shared_expire(&shared, 0, SEC(11), true, &batch) == WF_SHARED_FIRES)
			wf_shared_expired(&shared, 0, &next_ns);
		cr_assert_leq(wheel->moves_paced + wheel->moves_forced - moves, WF_SHARED_MOVES);
		check_valid();
	}
	cr_assert_geq(wheel->moves_forced, COUNT, "the moves were needed");
}

/* --- cancel (T5) --- */

Test(shared, cancel_is_exact)
{
	struct node node = {0}, other = {0};
	struct wf_shared_batch batch;
	uint64_t wait_for = 99;
	int64_t next_ns;

	start(SEC(1));
	cr_assert(!wf_shared_cancel(&shared, 0, &node.timer, &wait_for), "never inserted");
	cr_assert_eq(wait_for, 0);
	cr_assert(wf_shared_is_done(&shared, 0, wait_for), "nothing to wait for");
	(void)wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, SEC(2));
	(void)wf_shared_insert(&shared, 0, &other.timer, WF_SHARED_PROCESS, SEC(2));
	cr_assert(wf_shared_is_pending(&node.timer));
	cr_assert_eq(wf_shared_deadline(&node.timer), SEC(2));
	cr_assert(wf_shared_cancel(&shared, 0, &node.timer, NULL));
	cr_assert(!wf_shared_is_pending(&node.timer));
	cr_assert(!wf_shared_cancel(&shared, 0, &node.timer, NULL), "once");
	memset(&node, 0xa5, sizeof(node));
	cr_assert_eq(wf_shared_insert(&shared, 0, &node.timer, WF_SHARED_TIMER, SEC(2)),
		WF_SHARED_LATER, "what was published still holds");

	/* While the batch is out, and after. */
	cr_assert_eq(wf_shared_expire(&shared, 0, SEC(3), false, &batch), WF_SHARED_FIRES);
	cr_assert_eq(batch.count, 2);
	cr_assert(!wf_shared_is_pending(&node.timer));
	cr_assert(!wf_shared_cancel(&shared, 0, &node.timer, &wait_for));
	cr_assert_eq(wait_for, 1);
	cr_assert(!wf_shared_is_done(&shared, 0, wait_for));
	wf_shared_expired(&shared, 0, &next_ns);
	cr_assert(wf_shared_is_done(&shared, 0, wait_for));
	cr_assert(!wf_shared_cancel(&shared, 0, &node.timer, &wait_for));
	cr_assert(!wf_shared_cancel(&shared, 0, &other.timer, &wait_for));
	cr_assert(wf_shared_is_done(&shared, 0, wait_for));
	check_valid();
}

/* --- one expirer at a time, and who waits for it --- */

Test(shared, a_batch_that_is_out_keeps_its_shard)
{
	struct node nodes[3] = {0};
	struct wf_shared_batch batch, second;
	int64_t next_ns = 0;

	start(SEC(1));
	(void)wf_shared_insert(&shared, 0, &nodes[0].timer, WF_SHARED_PROCESS, SEC(2));
	cr_assert_eq(wf_shared_expire(&shared, 0, SEC(1), false, &batch), WF_SHARED_NOTHING);
	cr_assert_eq(wf_shared_next(&shared), due_ns(SEC(2)));
	cr_assert_eq(wf_shared_expire(&shared, 0, SEC(3), false, &batch), WF_SHARED_FIRES);
	cr_assert_eq(wf_shared_next(&shared), INT64_MAX, "nobody else can do anything");
	cr_assert_eq(wf_shared_expire(&shared, 0, SEC(3), false, &second), WF_SHARED_BUSY);
	cr_assert_eq(wf_shared_expire(&shared, 0, SEC(3), true, &second), WF_SHARED_BUSY);
	cr_assert_eq(wf_shared_insert(&shared, 0, &nodes[1].timer, WF_SHARED_TIMER, SEC(2)),
		WF_SHARED_LATER, "the expirer will look");
	cr_assert_eq(wf_shared_insert(&shared, 1, &nodes[2].timer, WF_SHARED_TIMER, SEC(9)),
		WF_SHARED_EARLIER, "other shards go on");
	check_valid();
	wf_shared_expired(&shared, 0, &next_ns);
	cr_assert_leq(next_ns, SEC(3));
	cr_assert_eq(wf_shared_shard_next(&shared, 0), next_ns, "published again");
	cr_assert_eq(expire_all(0, SEC(3), NULL), 1);
	wf_shortlock_lock(&shards[1].lock);
	cr_assert_eq(wf_shared_expire(&shared, 1, SEC(10), false, &second), WF_SHARED_BUSY);
	wf_shortlock_unlock(&shards[1].lock);
	cr_assert_eq(expire_all(1, SEC(10), NULL), 1);
}

/* A heavy slot wants to be looked at before its first deadline. Nobody would tell the leader. */
Test(shared, an_expirer_publishes_nothing_earlier)
{
	enum { COUNT = 2 * WF_WHEEL_HEAVY };
	static struct node nodes[COUNT];
	struct wf_shared_batch batch;
	int64_t last = due_ns(SEC(100));

	start(SEC(1));
	for (unsigned i = 0; i < COUNT; i++)
		(void)wf_shared_insert(&shared, 0, &nodes[i].timer, WF_SHARED_TIMER, SEC(100));
	cr_assert_eq(wf_shared_next(&shared), last);
	check_valid();
	cr_assert_lt(wf_wheel_next(&shards[0].wheel), last, "the wheel does want to");
	for (int64_t now = SEC(2); now < SEC(100); now += SEC(7)) {
		cr_assert_eq(wf_shared_expire(&shared, 0, now, true, &batch), WF_SHARED_NOTHING);
		cr_assert_eq(wf_shared_next(&shared), last);
		check_valid();
	}
	cr_assert_eq(expire_all(0, last, NULL), COUNT);
}

/* --- the end --- */

Test(shared, close_takes_all_off_and_refuses_more)
{
	struct node nodes[4] = {0}, late = {0};

	start(SEC(1));
	for (unsigned i = 0; i < 4; i++)
		(void)wf_shared_insert(
			&shared, i % SHARDS, &nodes[i].timer, i % 2, i == 3 ? 0 : SEC(5 + i));
	wf_shared_close(&shared);
	cr_assert_eq(wf_shared_pending(&shared), 0);
	cr_assert_eq(wf_shared_next(&shared), INT64_MAX);
	cr_assert(!wf_shared_is_pending(&nodes[1].timer));
	cr_assert(!wf_shared_later(&nodes[1].timer, SEC(50)));
	for (unsigned i = 0; i < 4; i++)
		cr_assert(!wf_shared_cancel(&shared, i % SHARDS, &nodes[i].timer, NULL));
	cr_assert_eq(wf_shared_insert(&shared, 0, &late.timer, WF_SHARED_TIMER, SEC(2)),
		WF_SHARED_CLOSED);
	cr_assert(!wf_shared_is_pending(&late.timer));
	check_valid();
}

Test(shared, a_refresh_forgets_what_was_cancelled)
{
	struct node near = {0}, far = {0};

	start(0);
	(void)wf_shared_insert(&shared, 0, &near.timer, WF_SHARED_TIMER, SEC(1));
	(void)wf_shared_insert(&shared, 0, &far.timer, WF_SHARED_PROCESS, SEC(2));
	cr_assert(wf_shared_cancel(&shared, 0, &near.timer, NULL));
	cr_assert_eq(wf_shared_next(&shared), due_ns(SEC(1)), "a look for nothing");
	wf_shared_refresh(&shared);
	cr_assert_gt(wf_shared_next(&shared), SEC(1));
	cr_assert_leq(wf_shared_next(&shared), due_ns(SEC(2)));
	cr_assert(wf_shared_cancel(&shared, 0, &far.timer, NULL));
	wf_shared_refresh(&shared);
	cr_assert_eq(wf_shared_next(&shared), INT64_MAX);
}

/* --- the leader --- */

Test(shared, one_leads_until_it_resigns)
{
	start(0);
	cr_assert_eq(wf_shared_leader_to_wake(&shared, SEC(1)), -2, "there is none");
	cr_assert(wf_shared_lead(&shared, 0, SEC(5)));
	cr_assert(!wf_shared_lead(&shared, 1, SEC(4)), "somebody has it");
	cr_assert_eq(wf_shared_leader_to_wake(&shared, SEC(4)), 0);
	cr_assert_eq(wf_shared_leader_to_wake(&shared, SEC(5)), -1, "it will be awake");
	cr_assert_eq(wf_shared_leader_to_wake(&shared, SEC(6)), -1);
	wf_shared_resign(&shared, 0);
	cr_assert_eq(wf_shared_leader_to_wake(&shared, SEC(4)), -2);
	/* For ever; the last worker; a time before any deadline. */
	cr_assert(wf_shared_lead(&shared, WF_WORKERS_MAX - 1, INT64_MAX));
	cr_assert_eq(wf_shared_leader_to_wake(&shared, WF_WHEEL_END_NS - 1), WF_WORKERS_MAX - 1);
	wf_shared_resign(&shared, WF_WORKERS_MAX - 1);
	cr_assert(wf_shared_lead(&shared, 3, -5));
	cr_assert_eq(wf_shared_leader_to_wake(&shared, 0), -1);
	wf_shared_resign(&shared, 3);
}

Test(shared, the_next_look_is_the_first_of_all_shards)
{
	struct node nodes[3] = {0};

	start(0);
	cr_assert_eq(wf_shared_next(&shared), INT64_MAX);
	(void)wf_shared_insert(&shared, 2, &nodes[0].timer, WF_SHARED_TIMER, SEC(9));
	(void)wf_shared_insert(&shared, 0, &nodes[1].timer, WF_SHARED_TIMER, SEC(7));
	(void)wf_shared_insert(&shared, 1, &nodes[2].timer, WF_SHARED_TIMER, SEC(8));
	cr_assert_eq(wf_shared_next(&shared), due_ns(SEC(7)));
	cr_assert_eq(wf_shared_shard_next(&shared, 2), due_ns(SEC(9)));
	cr_assert_eq(wf_shared_pending(&shared), 3);
	/* Never later than the first, also when it is gone: too early costs a look. */
	cr_assert(wf_shared_cancel(&shared, 0, &nodes[1].timer, NULL));
	cr_assert_leq(wf_shared_next(&shared), due_ns(SEC(8)));
	cr_assert_eq(expire_all(0, SEC(7) + TICK_NS, NULL), 0);
	cr_assert_eq(wf_shared_next(&shared), due_ns(SEC(8)));
}

/* --- the checker --- */

Test(shared, valid_finds_damage)
{
	FILE *out = fopen("/dev/null", "we");
	struct node node = {0};
	uint64_t due;

	cr_assert_not_null(out);
	start(SEC(1));
	(void)wf_shared_insert(&shared, 2, &node.timer, WF_SHARED_TIMER, SEC(2));
	check_valid();
	due = wf_u64_load_relaxed(&node.timer.due);

	wf_u64_store_relaxed(&shards[2].next_ns, (uint64_t)due_ns(SEC(2)) + 1);
	cr_assert(!wf_shared_valid(&shared, out), "a deadline would be missed");
	wf_u64_store_relaxed(&shards[2].next_ns, (uint64_t)due_ns(SEC(2)));
	wf_u64_store_relaxed(&node.timer.due, 0);
	cr_assert(!wf_shared_valid(&shared, out), "pending and not inserted");
	wf_u64_store_relaxed(&node.timer.due, due | WF_SHARED_FIRED);
	cr_assert(!wf_shared_valid(&shared, out), "pending and fired");
	wf_u64_store_relaxed(&node.timer.due, (uint64_t)SEC(1) << 1);
	cr_assert(!wf_shared_valid(&shared, out), "due before it is filed");
	wf_u64_store_relaxed(&node.timer.due, due);
	shards[2].wheel.count++;
	cr_assert(!wf_shared_valid(&shared, out), "the wheel's own");
	shards[2].wheel.count--;
	check_valid();
	fclose(out);
}
