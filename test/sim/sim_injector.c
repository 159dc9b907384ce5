/*
 * sync/injector.h in every order of its operations that the simulator finds. Rows Q7 and Q8: each
 * item comes out exactly once; one consumer keeps the order of each producer; after closing, each
 * push has either been refused or is found.
 */
#include "test/sim/sim.h"

#include "sync/injector.h"

#include <string.h>

enum { ITEMS_MAX = 8, CONSUMERS_MAX = 2, PER_PRODUCER = 3 };

struct item {
	struct wf_node node;
	unsigned taken;
	bool refused;
	bool pushed;
};

static struct {
	struct wf_injector injector;
	struct wf_deque rings[CONSUMERS_MAX];
	struct item items[ITEMS_MAX];
	wf_atomic_u32 consumers; /* who may still grab and push back */
	unsigned last[2];        /* by producer: the newest item that has come out, from 1 */
	bool in_order;
} s;

static void setup(void)
{
	wf_injector_init(&s.injector);
	for (unsigned i = 0; i < CONSUMERS_MAX; i++)
		wf_deque_init(&s.rings[i]);
	memset(s.items, 0, sizeof(s.items));
	memset(s.last, 0, sizeof(s.last));
	wf_u32_store_relaxed(&s.consumers, 1);
	s.in_order = false;
}

static void take(void *object)
{
	struct item *item = object;
	size_t index = (size_t)(item - s.items);

	sim_check(index < ITEMS_MAX, "an item that nobody pushed");
	sim_check(item->pushed, "item %zu was taken before it was pushed", index);
	sim_check(++item->taken == 1, "item %zu was taken twice", index);
	if (!s.in_order)
		return;
	sim_check(
		s.last[index / PER_PRODUCER] <= index % PER_PRODUCER, "item %zu came late", index);
	s.last[index / PER_PRODUCER] = (unsigned)(index % PER_PRODUCER) + 1;
}

static void push(struct item *item)
{
	item->pushed = true;
	if (wf_injector_push(&s.injector, &item->node) == WF_PUSH_CLOSED)
		item->refused = true;
}

static void push_chain(struct item *first, struct item *last)
{
	for (struct item *item = first; item <= last; item++) {
		item->pushed = true;
		item->node.next = &(item + 1)->node;
	}
	if (wf_injector_push_chain(&s.injector, &first->node, &last->node) == WF_PUSH_CLOSED)
		for (struct item *item = first; item <= last; item++)
			item->refused = true;
}

/* Three items: two singles and one, or one and a chain of two. */
static void produce(unsigned producer)
{
	struct item *mine = &s.items[producer * PER_PRODUCER];

	push(&mine[0]);
	if (producer == 0) {
		push(&mine[1]);
		push(&mine[2]);
	} else {
		push_chain(&mine[1], &mine[2]);
	}
}

static void consume_once(unsigned consumer)
{
	struct wf_refill rest;
	void *item;

	item = wf_injector_refill(
		&s.injector, &s.rings[consumer], offsetof(struct item, node), &rest);
	if (item == NULL)
		return;
	take(item);
	while ((item = wf_deque_pop(&s.rings[consumer])) != NULL)
		take(item);
}

static void check_all_out(void)
{
	struct wf_chain chain;
	struct wf_node *node;

	while (wf_injector_grab(&s.injector, &chain))
		while ((node = wf_chain_pop(&chain)) != NULL)
			take(WF_CONTAINER_OF(node, struct item, node));
	for (unsigned i = 0; i < ITEMS_MAX; i++) {
		if (!s.items[i].pushed)
			continue;
		sim_check(s.items[i].taken == !s.items[i].refused, "item %u was %s", i,
			s.items[i].refused ? "taken and refused" : "lost");
	}
}

/* Q7 */
static void producers_and_consumers(unsigned number)
{
	if (number < 2) {
		produce(number);
		return;
	}
	consume_once(number - 2);
	consume_once(number - 2);
}

static const struct sim_scenario many = {
	"2 producers, 2 consumers", 4, setup, producers_and_consumers, NULL, check_all_out, 0};

SIM_TEST(injector, each_item_comes_out_once)
{
	sim_must_pass(&many, 150000);
}

static void setup_ordered(void)
{
	setup();
	s.in_order = true;
}

static const struct sim_scenario ordered = {"2 producers, 1 consumer", 3, setup_ordered,
	producers_and_consumers, NULL, check_all_out, 0};

SIM_TEST(injector, one_consumer_keeps_each_producers_order)
{
	sim_must_pass(&ordered, 150000);
}

/* Consumers put the rest back and grab again: batches and their numbers. */
static void hold_and_push_back(unsigned number)
{
	struct wf_chain chain;
	struct wf_node *node;

	if (number == 0) {
		produce(0);
		produce(1);
		return;
	}
	for (int round = 0; round < 2; round++) {
		if (wf_injector_grab(&s.injector, &chain)) {
			node = wf_chain_pop(&chain);
			take(WF_CONTAINER_OF(node, struct item, node));
			wf_injector_push_back(&s.injector, &chain);
		}
	}
}

static const struct sim_scenario pushing_back = {
	"push-back by 2 consumers", 3, setup, hold_and_push_back, NULL, check_all_out, 0};

SIM_TEST(injector, what_is_pushed_back_is_not_lost)
{
	sim_must_pass(&pushing_back, 150000);
}

/* Q8: thread 0 produces, 1 consumes with push-back, 2 closes and then takes what there is. */
static void close_it(void)
{
	struct wf_chain chain;
	struct wf_node *node;

	wf_injector_close(&s.injector);
	while (wf_u32_load_acquire(&s.consumers) != 0) /* all holds are over, and none begins */
		wf_pause();
	while (wf_injector_grab(&s.injector, &chain))
		while ((node = wf_chain_pop(&chain)) != NULL)
			take(WF_CONTAINER_OF(node, struct item, node));
}

static void closing(unsigned number)
{
	struct wf_chain chain;
	struct wf_node *node;

	if (number == 0) {
		produce(0);
		produce(1);
	} else if (number == 2) {
		close_it();
	} else {
		if (wf_injector_grab(&s.injector, &chain)) {
			node = wf_chain_pop(&chain);
			take(WF_CONTAINER_OF(node, struct item, node));
			wf_injector_push_back(&s.injector, &chain);
		}
		wf_u32_store_release(&s.consumers, 0);
	}
}

static void check_closed(void)
{
	sim_check(wf_injector_is_closed(&s.injector), "it is open again");
	sim_check(wf_injector_is_empty(&s.injector), "an item is stranded");
	check_all_out();
}

static const struct sim_scenario being_closed = {
	"closed while in use", 3, setup, closing, NULL, check_closed, 0};

SIM_TEST(injector, closing_strands_nothing)
{
	sim_must_pass(&being_closed, 150000);
}

/* A node is pushed again as soon as it has come out: the head may be the same and not the same. */
static void recycle(unsigned number)
{
	struct wf_fifo fifo = {NULL, NULL};
	struct wf_node *node;

	if (number == 0) {
		produce(0);
		return;
	}
	if (number == 2) {
		push(&s.items[PER_PRODUCER]);
		return;
	}
	for (int round = 0; round < 3; round++) {
		(void)wf_injector_drain(&s.injector, &fifo);
		node = wf_fifo_pop(&fifo);
		if (node != NULL && round < 2)
			(void)wf_injector_push(&s.injector, node);
		else if (node != NULL)
			take(WF_CONTAINER_OF(node, struct item, node));
	}
	while ((node = wf_fifo_pop(&fifo)) != NULL)
		take(WF_CONTAINER_OF(node, struct item, node));
}

static const struct sim_scenario recycling = {
	"nodes pushed again", 3, setup, recycle, NULL, check_all_out, 0};

SIM_TEST(injector, a_head_that_comes_back_fools_nobody)
{
	sim_must_pass(&recycling, 150000);
}

/* --- planted --- */

SIM_TEST(injector, planted_push_ignores_the_closed_bit)
{
	sim_must_find(&being_closed, WF_PLANTED_injector_push_ignores_closed, 1000);
}

SIM_TEST(injector, planted_grab_clears_the_closed_bit)
{
	sim_must_find(&being_closed, WF_PLANTED_injector_grab_clears_closed, 10000);
}
