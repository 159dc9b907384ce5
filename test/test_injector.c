/*
 * sync/injector.h with one thread that plays producers and consumers in turn: the order of what
 * comes out, above all around remainders that were pushed back, closing, and the helpers.
 */
#include <sys/mman.h>

#include "test/harness.h"

#include "sync/injector.h"

#include <stdlib.h>

enum {
	HALF = WF_RING_SIZE / 2,
	LEFT = HALF - WF_REFILL_FREE, /* room for a refill when the ring is half full */
	NODES = 4 * WF_RING_SIZE + 128,
};

/* What is queued: the node is not at its start, as in a process. */
struct job {
	uint64_t number;
	struct wf_node node;
};

static struct job jobs[NODES];

/* Its place in `jobs`. */
static uint64_t id(struct wf_node *node)
{
	return (uint64_t)(WF_CONTAINER_OF(node, struct job, node) - jobs);
}

static void push(struct wf_injector *injector, uint64_t first, uint64_t count)
{
	uint64_t i;

	for (i = first; i < first + count; i++)
		cr_assert_neq(wf_injector_push(injector, &jobs[i].node), WF_PUSH_CLOSED);
}

static void pop(struct wf_chain *chain, uint64_t first, uint64_t count)
{
	struct wf_node *node;
	uint64_t i;

	for (i = first; i < first + count; i++) {
		node = wf_chain_pop(chain);
		cr_assert_not_null(node, "job %llu", (unsigned long long)i);
		cr_assert_eq(id(node), i);
	}
}

static void link_jobs(uint64_t first, uint64_t last)
{
	uint64_t i;

	for (i = first; i < last; i++)
		jobs[i].node.next = &jobs[i + 1].node;
}

Test(injector, zero_is_open_and_empty)
{
	static struct wf_injector injector;
	struct wf_chain chain = {&jobs[0].node, NULL, 9};

	cr_assert(wf_injector_is_empty(&injector));
	cr_assert(wf_injector_is_empty_relaxed(&injector));
	cr_assert(!wf_injector_is_closed(&injector));
	cr_assert(!wf_injector_grab(&injector, &chain));
	cr_assert_null(wf_chain_pop(&chain));
}

Test(injector, gives_what_was_pushed_in_order)
{
	static struct wf_injector injector;
	struct wf_chain chain;

	push(&injector, 0, 100);
	cr_assert(!wf_injector_is_empty(&injector));
	cr_assert(wf_injector_grab(&injector, &chain));
	cr_assert(wf_injector_is_empty(&injector), "a hold: nothing is in the queue");
	pop(&chain, 0, 100);
	cr_assert_null(wf_chain_pop(&chain));
	cr_assert(!wf_injector_grab(&injector, &chain));
}

Test(injector, tells_the_first_push_from_the_others)
{
	static struct wf_injector injector;
	struct wf_chain chain;

	cr_assert_eq(wf_injector_push(&injector, &jobs[0].node), WF_PUSH_FIRST);
	cr_assert_eq(wf_injector_push(&injector, &jobs[1].node), WF_PUSH_QUEUED);
	cr_assert(wf_injector_grab(&injector, &chain));
	cr_assert_eq(
		wf_injector_push_chain(&injector, &jobs[2].node, &jobs[2].node), WF_PUSH_FIRST);
}

Test(injector, keeps_a_chain_together_and_in_its_place)
{
	static struct wf_injector injector;
	struct wf_chain chain;

	push(&injector, 0, 2);
	link_jobs(2, 6);
	jobs[6].node.next = &jobs[50].node; /* what a last node's link holds is no matter */
	cr_assert_eq(
		wf_injector_push_chain(&injector, &jobs[2].node, &jobs[6].node), WF_PUSH_QUEUED);
	push(&injector, 7, 2);
	cr_assert(wf_injector_grab(&injector, &chain));
	pop(&chain, 0, 9);
	cr_assert_null(wf_chain_pop(&chain));
}

Test(injector, puts_a_remainder_before_everything_younger)
{
	static struct wf_injector injector;
	struct wf_chain chain;
	uint64_t round, pushed = 10;

	push(&injector, 0, 10);
	for (round = 0; round < 5; round++) { /* a remainder of a remainder is one too */
		cr_assert(wf_injector_grab(&injector, &chain));
		pop(&chain, 2 * round, 1);
		push(&injector, pushed++, 1); /* below the remainder in the stack */
		pop(&chain, 2 * round + 1, 1);
		wf_injector_push_back(&injector, &chain);
		cr_assert(!wf_injector_is_empty(&injector));
		push(&injector, pushed++, 1); /* and above it */
	}
	cr_assert(wf_injector_grab(&injector, &chain));
	pop(&chain, 10, 10);
	cr_assert_null(wf_chain_pop(&chain));
}

/* Three consumers hold at once; their remainders come back in every order. */
Test(injector, sorts_remainders_by_the_age_of_their_grab)
{
	static const unsigned orders[6][3] = {
		{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
	static struct wf_injector injector;
	struct wf_chain held[3], chain;
	unsigned i, order;

	for (order = 0; order < 6; order++) {
		for (i = 0; i < 3; i++) {
			push(&injector, 10 * i, 10);
			cr_assert(wf_injector_grab(&injector, &held[i]));
			pop(&held[i], 10 * i, 1);
		}
		push(&injector, 30, 3);
		for (i = 0; i < 3; i++)
			wf_injector_push_back(&injector, &held[orders[order][i]]);
		push(&injector, 33, 3);
		cr_assert(wf_injector_grab(&injector, &chain));
		pop(&chain, 1, 9);
		pop(&chain, 11, 9);
		pop(&chain, 21, 15);
		cr_assert_null(wf_chain_pop(&chain));
	}
}

Test(injector, pushes_back_nothing_as_nothing)
{
	static struct wf_injector injector;
	struct wf_chain chain;

	push(&injector, 0, 1);
	cr_assert(wf_injector_grab(&injector, &chain));
	pop(&chain, 0, 1);
	wf_injector_push_back(&injector, &chain);
	cr_assert(wf_injector_is_empty(&injector));
}

/* A node may go back into the queue as soon as it has come out. */
Test(injector, takes_a_node_again_at_once)
{
	static struct wf_injector injector;
	struct wf_chain chain;
	struct wf_node *node;
	int round;

	push(&injector, 0, 3);
	for (round = 0; round < 10; round++) {
		cr_assert(wf_injector_grab(&injector, &chain));
		node = wf_chain_pop(&chain);
		cr_assert_eq(id(node), (uint64_t)round % 3);
		wf_injector_push(&injector, node);
		wf_injector_push_back(&injector, &chain);
	}
}

/* Q8, by one thread. */
Test(injector, closed_refuses_pushes_but_keeps_and_takes_back_what_it_had)
{
	static struct wf_injector injector;
	struct wf_chain chain;

	push(&injector, 0, 4);
	cr_assert(wf_injector_grab(&injector, &chain));
	push(&injector, 4, 1);
	wf_injector_close(&injector);
	wf_injector_close(&injector);
	cr_assert(wf_injector_is_closed(&injector));
	cr_assert_eq(wf_injector_push(&injector, &jobs[9].node), WF_PUSH_CLOSED);
	cr_assert_eq(
		wf_injector_push_chain(&injector, &jobs[9].node, &jobs[9].node), WF_PUSH_CLOSED);
	cr_assert_eq(wf_injector_send(&injector, &jobs[9].node, 1), WF_PUSH_CLOSED);
	cr_assert(!wf_injector_is_empty(&injector), "closed is not empty");
	pop(&chain, 0, 2);
	wf_injector_push_back(&injector, &chain);
	cr_assert(wf_injector_grab(&injector, &chain));
	pop(&chain, 2, 3);
	cr_assert_null(wf_chain_pop(&chain));
	cr_assert(wf_injector_is_empty(&injector));
	cr_assert(wf_injector_is_closed(&injector), "a grab leaves it closed");
	cr_assert_eq(wf_injector_push(&injector, &jobs[9].node), WF_PUSH_CLOSED);
	wf_injector_init(&injector);
	cr_assert_eq(wf_injector_push(&injector, &jobs[9].node), WF_PUSH_FIRST);
}

/* --- fifo and inbox --- */

Test(injector, fifo_is_first_in_first_out)
{
	struct wf_fifo fifo = {NULL, NULL};
	uint64_t i, lap;

	for (lap = 0; lap < 3; lap++) {
		cr_assert(wf_fifo_is_empty(&fifo));
		cr_assert_null(wf_fifo_pop(&fifo));
		for (i = 0; i < 5; i++)
			wf_fifo_push(&fifo, &jobs[i].node);
		for (i = 0; i < 5; i++)
			cr_assert_eq(id(wf_fifo_pop(&fifo)), i);
	}
}

Test(injector, drain_appends_in_the_order_of_the_pushes)
{
	static struct wf_injector inbox;
	struct wf_fifo fifo = {NULL, NULL};
	uint64_t i;

	cr_assert(!wf_injector_drain(&inbox, &fifo));
	push(&inbox, 0, 3);
	cr_assert(wf_injector_drain(&inbox, &fifo));
	push(&inbox, 3, 5);
	cr_assert(wf_injector_drain(&inbox, &fifo));
	cr_assert(!wf_injector_drain(&inbox, &fifo));
	for (i = 0; i < 8; i++)
		cr_assert_eq(id(wf_fifo_pop(&fifo)), i);
	cr_assert_null(wf_fifo_pop(&fifo));
	push(&inbox, 0, 1);
	cr_assert(wf_injector_drain(&inbox, &fifo));
	cr_assert_eq(id(wf_fifo_pop(&fifo)), 0);
}

Test(injector, an_inbox_tells_what_the_sender_said)
{
	static struct wf_injector inbox;
	struct wf_fifo fifo = {NULL, NULL};
	struct wf_node *node;
	uint64_t i;

	for (i = 0; i < 6; i++)
		cr_assert_neq(wf_injector_send(&inbox, &jobs[i].node, 7 - i), WF_PUSH_CLOSED);
	cr_assert(wf_injector_drain(&inbox, &fifo));
	for (i = 0; i < 6; i++) {
		node = wf_fifo_pop(&fifo);
		cr_assert_eq(id(node), i, "the word is no rank");
		cr_assert_eq(node->number, 7 - i);
	}
}

/* --- refill --- */

static uint64_t job_id(struct job *job)
{
	return (uint64_t)(job - jobs);
}

static struct job *refill(
	struct wf_injector *injector, struct wf_deque *own, unsigned moved, bool pushed_back)
{
	struct wf_refill refill;
	struct job *first = wf_injector_refill(injector, own, offsetof(struct job, node), &refill);

	cr_assert_eq(refill.moved, moved);
	cr_assert_eq(refill.pushed_back, pushed_back);
	cr_assert(wf_deque_valid(own));
	return first;
}

Test(injector, refill_of_nothing_is_nothing)
{
	static struct wf_injector injector;
	static struct wf_deque own;

	cr_assert_null(refill(&injector, &own, 0, false));
	cr_assert(wf_deque_is_empty(&own));
}

Test(injector, refill_runs_one_moves_half_a_ring_and_returns_the_rest)
{
	static struct wf_injector injector;
	static struct wf_deque own;
	struct wf_chain chain;
	uint64_t i;

	push(&injector, 0, 1);
	cr_assert_eq(job_id(refill(&injector, &own, 0, false)), 0);
	push(&injector, 0, 1 + HALF);
	cr_assert_eq(job_id(refill(&injector, &own, HALF, false)), 0);
	cr_assert_eq(wf_deque_count(&own), HALF);
	push(&injector, 1 + HALF, HALF + 5);
	cr_assert_eq(job_id(refill(&injector, &own, LEFT, true)), 1 + HALF);
	for (i = 1; i <= HALF + LEFT; i++) {
		uint64_t expected = WF_RUN_ORDER_FIFO ? i : HALF + LEFT + 1 - i;

		if (expected >= 1 + HALF) /* that one was run */
			expected++;
		cr_assert_eq(job_id(wf_deque_pop(&own)), expected);
	}
	cr_assert(wf_injector_grab(&injector, &chain));
	pop(&chain, HALF + LEFT + 2, HALF + 4 - LEFT);
	cr_assert_null(wf_chain_pop(&chain));
}

Test(injector, refill_moves_no_more_than_the_ring_has_room_for)
{
	static struct wf_injector injector;
	static struct wf_deque own;
	void *spill[WF_DEQUE_SPILL_MAX];
	uint64_t i;

	for (i = 0; i < HALF + LEFT - 1; i++) {
		push(&injector, WF_RING_SIZE, 3);
		cr_assert_eq(job_id(refill(&injector, &own, 2, false)), WF_RING_SIZE);
		wf_deque_pop(&own);
		wf_deque_pop(&own);
		wf_deque_push(&own, &jobs[i], spill);
	}
	push(&injector, WF_RING_SIZE, 4);
	cr_assert_eq(job_id(refill(&injector, &own, 1, true)), WF_RING_SIZE);
	cr_assert_eq(wf_deque_count(&own), HALF + LEFT);
	/* What is left free is not for a refill. */
	cr_assert_eq(job_id(refill(&injector, &own, 0, true)), WF_RING_SIZE + 2);
	cr_assert_eq(wf_deque_count(&own), HALF + LEFT);
	cr_assert_eq(wf_deque_overflow_count(&own), 0);
	cr_assert(!wf_injector_is_empty(&injector));
}

/* Takes the jobs up to `end`, in order. */
static void drain_up_to(
	struct wf_injector *injector, struct wf_deque *own, uint64_t *next, uint64_t end)
{
	struct wf_refill rest;
	struct job *job;

	while (*next < end) {
		job = wf_injector_refill(injector, own, offsetof(struct job, node), &rest);
		cr_assert_not_null(job);
		do {
			if (WF_RUN_ORDER_FIFO)
				cr_assert_eq(job->number, *next);
			++*next;
		} while ((job = wf_deque_pop(own)) != NULL);
	}
}

/*
 * Q7: a backlog is walked once, by the first refill, and not again by those that follow: while the
 * first half is taken nothing may touch the second, which is not even readable.
 */
Test(injector, a_million_are_walked_once_and_not_at_each_refill, .timeout = 120)
{
	static struct wf_injector injector;
	static struct wf_deque own;
	const uint64_t count = 1000000 / HARNESS_SLOWDOWN;
	size_t bytes = (count * sizeof(struct job) + 8191) / 8192 * 8192;
	struct job *backlog = mmap(
		NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *second_half = (char *)backlog + bytes / 2;
	uint64_t next = 0;

	cr_assert(backlog != MAP_FAILED);
	for (uint64_t i = 0; i < count; i++) {
		backlog[i].number = i;
		cr_assert(wf_injector_push(&injector, &backlog[i].node));
	}
	drain_up_to(&injector, &own, &next, 1);
	cr_assert_eq(mprotect(second_half, bytes / 2, PROT_NONE), 0);
	drain_up_to(&injector, &own, &next, count / 2 - 2 * WF_RING_SIZE);
	cr_assert_eq(mprotect(second_half, bytes / 2, PROT_READ | PROT_WRITE), 0);
	drain_up_to(&injector, &own, &next, count);
	cr_assert(wf_injector_is_empty(&injector));
	munmap(backlog, bytes);
}
