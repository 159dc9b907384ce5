/*
 * sync/deque.h in every order of its operations that the simulator finds, ring of 4. Compiled
 * twice, in fifo and in lifo order. Rows Q3 to Q5: each item comes out exactly once, whoever takes
 * it, and no item is anything but what was pushed.
 *
 * Items are pointers into `items`; taking one counts. What is left at the end is popped by check().
 */
#include "test/sim/sim.h"

#include "sync/deque.h"

#include <string.h>

enum { ITEMS_MAX = 16, DEQUES = 2 };

static struct {
	struct wf_deque deques[DEQUES];
	unsigned pushed;
	unsigned char taken[ITEMS_MAX];
	unsigned char items[ITEMS_MAX];
	unsigned spilled;
} s;

static void setup(void)
{
	for (unsigned i = 0; i < DEQUES; i++)
		wf_deque_init(&s.deques[i]);
	memset(s.taken, 0, sizeof(s.taken));
	s.pushed = s.spilled = 0;
}

static void take(void *item)
{
	size_t index = (size_t)((unsigned char *)item - s.items);

	sim_check(index < ITEMS_MAX, "an item that nobody pushed");
	sim_check(index < s.pushed, "item %zu was taken before it was pushed", index);
	sim_check(++s.taken[index] == 1, "item %zu was taken twice", index);
}

static void push(struct wf_deque *d, void *item)
{
	void *spill[WF_DEQUE_SPILL_MAX];
	unsigned count = wf_deque_push(d, item, spill);

	for (unsigned i = 0; i < count; i++)
		take(spill[i]);
	s.spilled += count;
}

static void push_new(struct wf_deque *d)
{
	push(d, &s.items[s.pushed++]);
}

static bool pop(struct wf_deque *d)
{
	void *item = wf_deque_pop(d);

	if (item != NULL)
		take(item);
	return item != NULL;
}

/* Returns how many; the last is taken, the others go into `own`, or are taken too. */
static unsigned steal(struct wf_deque *victim, struct wf_deque *own)
{
	void *loot[WF_DEQUE_STEAL_MAX];
	unsigned count = wf_deque_steal(victim, loot, WF_DEQUE_STEAL_MAX);

	for (unsigned i = 0; i < count; i++) {
		if (own != NULL && i + 1 < count)
			push(own, loot[i]);
		else
			take(loot[i]);
	}
	return count;
}

static void check(void)
{
	for (unsigned i = 0; i < DEQUES; i++) {
		uint64_t count = wf_deque_count(&s.deques[i]);

		sim_check(count <= WF_RING_SIZE, "%llu items in a ring of %d",
			(unsigned long long)count, WF_RING_SIZE);
		while (pop(&s.deques[i]))
			;
		sim_check(wf_deque_is_empty(&s.deques[i]), "popped until empty, and not empty");
	}
	for (unsigned i = 0; i < s.pushed; i++)
		sim_check(s.taken[i] == 1, "item %u was lost", i);
}

/* Q4: the owner pushes and pops, thieves steal; 5 items. */
static void owner_and_thieves(unsigned number)
{
	struct wf_deque *d = &s.deques[0];

	if (number > 0) {
		(void)steal(d, NULL);
		(void)steal(d, NULL);
		return;
	}
	push_new(d);
	push_new(d);
	(void)pop(d);
	push_new(d);
	push_new(d);
	push_new(d);
	while (pop(d))
		;
}

static const struct sim_scenario one_thief = {
	"owner, one thief", 2, setup, owner_and_thieves, NULL, check, 0};
static const struct sim_scenario two_thieves = {
	"owner, two thieves", 3, setup, owner_and_thieves, NULL, check, 0};

SIM_TEST(deque, an_owner_and_a_thief_take_each_item_once)
{
	sim_must_pass(&one_thief, 100000);
}

SIM_TEST(deque, an_owner_and_two_thieves_take_each_item_once)
{
	sim_must_pass(&two_thieves, 150000);
}

/* Two items, one thief: the race for the last. */
static void the_last_item(unsigned number)
{
	struct wf_deque *d = &s.deques[0];

	if (number > 0) {
		(void)steal(d, NULL);
		(void)steal(d, NULL);
		return;
	}
	push_new(d);
	push_new(d);
	(void)pop(d);
	(void)pop(d);
	push_new(d);
	(void)pop(d);
}

static const struct sim_scenario last_item = {
	"the last item", 2, setup, the_last_item, NULL, check, 0};

SIM_TEST(deque, the_last_item_goes_to_one)
{
	sim_must_pass(&last_item, 150000);
}

/* Q5: the ring overflows while thieves are at it. */
static void overflow(unsigned number)
{
	struct wf_deque *d = &s.deques[0];

	if (number > 0) {
		(void)steal(d, NULL);
		(void)steal(d, NULL);
		return;
	}
	for (int i = 0; i < 7; i++)
		push_new(d);
	while (pop(d))
		;
}

static const struct sim_scenario overflowing = {
	"overflow, two thieves", 3, setup, overflow, NULL, check, 0};

SIM_TEST(deque, an_overflow_beside_thieves_loses_nothing)
{
	sim_must_pass(&overflowing, 150000);
}

/* Q5: a thief with a ring of its own is robbed by a third. */
static void robbed_thief(unsigned number)
{
	if (number == 0) {
		for (int i = 0; i < 5; i++)
			push_new(&s.deques[0]);
		(void)pop(&s.deques[0]);
	} else if (number == 1) {
		(void)steal(&s.deques[0], &s.deques[1]);
		(void)steal(&s.deques[0], &s.deques[1]);
		(void)pop(&s.deques[1]);
	} else {
		(void)steal(&s.deques[1], NULL);
		(void)steal(&s.deques[0], NULL);
	}
}

static const struct sim_scenario robbed = {
	"a thief is robbed", 3, setup, robbed_thief, NULL, check, 0};

SIM_TEST(deque, a_thief_may_be_robbed_while_it_steals)
{
	sim_must_pass(&robbed, 150000);
}

/* Q1: as many as fit, singly and in one go, beside a thief: no overflow, and in order. */
static void fill(unsigned number)
{
	struct wf_deque *d = &s.deques[0];
	void *rest[WF_RING_SIZE / 2];

	if (number > 0) {
		(void)steal(d, NULL);
		return;
	}
	for (unsigned i = 0; i < WF_RING_SIZE / 2; i++)
		push_new(d);
	for (unsigned i = 0; i < WF_RING_SIZE / 2; i++)
		rest[i] = &s.items[s.pushed++];
	sim_check(wf_deque_push_many(d, rest, WF_RING_SIZE / 2) == WF_RING_SIZE / 2, "no room");
	sim_check(wf_deque_overflow_count(d) == 0 && s.spilled == 0, "an overflow");
}

static const struct sim_scenario filling = {"filled up", 2, setup, fill, NULL, check, 0};

SIM_TEST(deque, as_many_as_fit_do_not_overflow)
{
	sim_must_pass(&filling, 50000);
}

/*
 * Q2: one more than fit. Either a thief was quicker, or it comes out with the newer half, oldest
 * first, and is counted; the older half stays.
 */
static void push_one_more(unsigned number)
{
	struct wf_deque *d = &s.deques[0];
	void *spill[WF_DEQUE_SPILL_MAX];
	unsigned count;

	if (number > 0) {
		(void)steal(d, NULL);
		return;
	}
	for (unsigned i = 0; i < WF_RING_SIZE; i++)
		push_new(d);
	count = wf_deque_push(d, &s.items[s.pushed++], spill);
	sim_check(wf_deque_overflow_count(d) == (count > 0), "the overflow is not counted");
	for (unsigned i = 1; i < count; i++)
		sim_check((unsigned char *)spill[i] == (unsigned char *)spill[i - 1] + 1,
			"the spilled ones are not the newest, in order");
	sim_check(count == 0 || spill[count - 1] == &s.items[WF_RING_SIZE], "not the new one");
	sim_check(count == 0 || !WF_RUN_ORDER_FIFO || count == WF_DEQUE_SPILL_MAX,
		"%u were spilled, not half and one", count);
	for (unsigned i = 0; i < count; i++)
		take(spill[i]);
}

static const struct sim_scenario one_more = {
	"1 more than fit", 3, setup, push_one_more, NULL, check, 0};

SIM_TEST(deque, one_more_than_fit_spills_the_newer_half)
{
	sim_must_pass(&one_more, 100000);
}

#if WF_RUN_ORDER_FIFO

/* Q3: so many are there, and nobody else: half of them, rounded up, oldest first. */
static void steal_alone(unsigned unused)
{
	struct wf_deque *d = &s.deques[0];
	void *loot[WF_DEQUE_STEAL_MAX];
	unsigned items = sim_random(WF_RING_SIZE + 1);
	unsigned count;

	(void)unused;
	for (unsigned i = 0; i < items; i++)
		push_new(d);
	count = wf_deque_steal(d, loot, WF_DEQUE_STEAL_MAX);
	sim_check(count == (items + 1) / 2, "%u of %u were stolen", count, items);
	for (unsigned i = 0; i < count; i++) {
		sim_check(loot[i] == &s.items[i], "not the oldest first");
		take(loot[i]);
	}
}

static const struct sim_scenario stealing = {"half", 1, setup, steal_alone, NULL, check, 0};

SIM_TEST(deque, a_thief_takes_the_older_half)
{
	sim_must_pass(&stealing, 1000);
}

#endif

/*
 * The owner publishes and looks for the parked worker, who parks and looks for items: not both may
 * miss.
 */
static wf_atomic_u32 parked;
static bool owner_saw, parker_saw;

static void park_setup(void)
{
	setup();
	wf_u32_store_relaxed(&parked, 0);
	owner_saw = parker_saw = false;
}

static void publish_and_park(unsigned number)
{
	if (number == 0) {
		push_new(&s.deques[0]);
		wf_deque_publish(&s.deques[0]);
		owner_saw = wf_u32_load_seq_cst(&parked) != 0;
	} else {
		(void)wf_u32_exchange(&parked, 1);
		parker_saw = !wf_deque_is_empty(&s.deques[0]);
	}
}

static void park_check(void)
{
	sim_check(owner_saw || parker_saw, "the item is there, and nobody knows");
}

static const struct sim_scenario publishing = {
	"publish, then look", 2, park_setup, publish_and_park, NULL, park_check, 0};

SIM_TEST(deque, a_published_item_or_a_parked_worker_is_seen)
{
	sim_must_pass(&publishing, 100000);
}

/* --- planted --- */

SIM_TEST(deque, planted_publish_without_rmw)
{
	sim_must_find(&publishing, WF_PLANTED_deque_publish_without_rmw, 10000);
}

#if WF_RUN_ORDER_FIFO

SIM_TEST(deque, planted_pop_without_cas)
{
	sim_must_find(&last_item, WF_PLANTED_deque_pop_by_store, 1000);
}

SIM_TEST(deque, planted_overflow_retracts_bottom)
{
	sim_must_find(&overflowing, WF_PLANTED_deque_overflow_retracts, 100000);
}

#else

SIM_TEST(deque, planted_last_item_without_cas)
{
	sim_must_find(&last_item, WF_PLANTED_deque_last_item_without_cas, 100000);
}

SIM_TEST(deque, planted_pop_without_store_load_order)
{
	sim_must_find(&last_item, WF_PLANTED_deque_pop_without_store_load, 100000);
}

#endif
