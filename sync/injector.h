/*
 * injector.h: the queue by which work enters from outside, and the per-worker inboxes. Any number
 * of producers; any number of consumers (injector) or one (inbox). Unbounded, intrusive,
 * allocation-free; a push cannot fail unless the queue has been closed. Is-empty is exact.
 *
 * Words. A NODE (struct wf_node) lies in the object that is queued. A BATCH is a FIFO list of nodes
 * by `next`, named by its first node, the HEAD, which alone carries `batch_next`, `batch_tail` and
 * `number`. The injector is a stack of batches by `batch_next`, newest on top. A single push is a
 * batch of one. A CHAIN is what a consumer has grabbed: one FIFO list, out of the stack. A HOLD
 * lasts from a consumer's grab to its push-back. An ORDERED batch is a remainder pushed back,
 * number = that of its grab (from 1); singles and overflow chains have number 0.
 *
 * Consumer, in steps (wf_injector_refill does all but the last):
 *   G1  grab: take the whole stack (one compare-and-swap), then a number.
 *   G2  order it: ORDERED batches first, older number first; then the others, in the order of their
 *       pushes (the stack's, reversed). What was ordered once is appended by its tail, not walked.
 *   G3  run the first; move up to half a ring into one's own ring, leaving a quarter free.
 *   G4  push the rest back as one ORDERED batch (one compare-and-swap).
 *   G5  (caller) idle-word check: during the hold is-empty said empty, and a worker may have parked
 *       on that. wf_injector_refill has done the read-modify-writes that must come before that
 *       check.
 *
 * Order. With one consumer: FIFO, exactly the order of the pushes. With several: an item can be
 * overtaken only by items that were pushed or grabbed during a hold of its own batch. The number is
 * taken after the grab: if two consumers' numbers come out against the order of their grabs, then
 * the second grab lay wholly inside the first one's hold, which is the case just named. (Taken
 * before, a consumer preempted between the two would file the newest items under the oldest
 * number.)
 *
 * A-B-A. push: the compare-and-swap expects head == h and links the new batch to h. It has read
 * nothing *through* h, so if h was grabbed, freed, reused and pushed again in between, then h is
 * again the top batch and the link is right. grab: expects head == h, and reads the batches only
 * after it has succeeded, when they are its own. So neither can be fooled, whatever becomes of the
 * memory.
 *
 * After its push a node may be consumed, and its memory reused, before the push returns: the pusher
 * never touches it again (nor a chain's nodes, the caller included).
 *
 * Closing. Bit 0 of the head word.
 *   X1  the closer sets the bit by a read-modify-write of the head word.
 *   X2  a push reads the bit in the word that its compare-and-swap expects, and is refused.
 *   X3  a grab keeps the bit. (So it is a compare-and-swap: an exchange for 0 wipes it out.)
 *   X4  a push-back keeps it too, and succeeds all the same.
 * So after wf_injector_close has returned no push succeeds, and what was pushed before is in the
 * stack, or in the hands of a consumer. A closer who waits until all holds are over and then grabs
 * until the queue is empty has everything.
 *
 * Progress. push, push_chain, push_back, grab: lock-free (a retry means that another operation
 * succeeded); no operation waits for a preempted one. is_empty, close: wait-free, lock-free.
 * Who may call: push*, send, is_empty, close: any thread. grab, push_back, refill: any consumer.
 * wf_injector_drain: the single consumer of an inbox. wf_fifo_*, wf_chain_*: the list's owner.
 */
#ifndef WF_SYNC_INJECTOR_H
#define WF_SYNC_INJECTOR_H

#include "sync/deque.h"

/* Embedded in what is queued; belongs to the queue from push to pop. No initial value needed. */
struct wf_node {
	struct wf_node *next;       /* in a batch, a chain or a fifo; NULL at its end */
	struct wf_node *batch_next; /* of a batch's head: the batch below */
	/*
	 * Of a batch's head: the grab whose remainder it is, or 0. In an inbox: the sender's word.
	 */
	uint64_t number;
	struct wf_node *batch_tail; /* of a batch's head: its last node. Not touched in an inbox */
};

static_assert(sizeof(struct wf_node) == 32, "a process header counts on 32 bytes");
static_assert(sizeof(void *) == 8, "the head word holds a pointer and the closed bit");

struct wf_injector {
	/* Producers write this line. Zero: open and empty. */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u64 head;
	/* Consumers write this one. */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u64 grabs;
};

/* What a push did. Zero is failure, so `if (!wf_injector_push(…))` reads as it should. */
enum wf_push {
	WF_PUSH_CLOSED = 0, /* not queued; the node is still the caller's */
	WF_PUSH_QUEUED,     /* behind others */
	WF_PUSH_FIRST,      /* the queue was empty: whoever wakes the consumer may want to know */
};

/* Items out of the injector, in order. Empty when first is NULL. */
struct wf_chain {
	struct wf_node *first, *last;
	uint64_t number;
};

/* An owner-private list, first in first out. Zero is empty. */
struct wf_fifo {
	struct wf_node *first, *last;
};

#define WF_INJECTOR_CLOSED ((uint64_t)1)

WF_INLINE struct wf_node *wf_injector_top(uint64_t head)
{
	return (struct wf_node *)(uintptr_t)(head & ~WF_INJECTOR_CLOSED);
}

static inline void wf_injector_init(struct wf_injector *injector)
{
	wf_u64_store_relaxed(&injector->head, 0);
	wf_u64_store_relaxed(&injector->grabs, 0);
}

/*
 * Puts the batch on the stack. `closable` is false for a remainder, which closing does not refuse.
 */
WF_INLINE enum wf_push wf_injector_push_batch(
	struct wf_injector *injector, struct wf_node *first, bool closable)
{
	uint64_t head = wf_u64_load_relaxed(&injector->head);

	WF_ASSERT(((uintptr_t)first & 7) == 0);
	do {
		if (closable && (head & WF_INJECTOR_CLOSED) && /* X2, X4 */
			!WF_PLANTED(injector_push_ignores_closed))
			return WF_PUSH_CLOSED;
		first->batch_next = wf_injector_top(head);
		/*
		 * H1. With H2 of wf_injector_take: the consumer sees the nodes and the items
		 * (pushers below are seen through the chain of read-modify-writes). With H3 of
		 * wf_injector_is_empty: the first half of "publish, then look at the idle word".
		 */
	} while (!wf_u64_cas(
		&injector->head, &head, (uint64_t)(uintptr_t)first | (head & WF_INJECTOR_CLOSED)));
	return wf_injector_top(head) == NULL ? WF_PUSH_FIRST : WF_PUSH_QUEUED;
}

static inline enum wf_push wf_injector_push(struct wf_injector *injector, struct wf_node *node)
{
	node->next = NULL;
	node->batch_tail = node;
	node->number = 0;
	return wf_injector_push_batch(injector, node, true);
}

/*
 * Pushes a list linked by `next` from first to last as one batch: nothing comes between its items.
 * WF_PUSH_CLOSED: none was queued.
 */
static inline enum wf_push wf_injector_push_chain(
	struct wf_injector *injector, struct wf_node *first, struct wf_node *last)
{
	last->next = NULL;
	first->batch_tail = last;
	first->number = 0;
	return wf_injector_push_batch(injector, first, true);
}

/*
 * Inbox only (see wf_injector_drain): a push that also carries a word to the consumer, in
 * node->number; say, the kind of object that the node is part of. The node's batch_tail is left
 * alone: a node that is only ever sent may share that memory.
 */
static inline enum wf_push wf_injector_send(
	struct wf_injector *inbox, struct wf_node *node, uint64_t number)
{
	node->next = NULL;
	node->number = number;
	return wf_injector_push_batch(inbox, node, true);
}

/*
 * H3, with H1: whether the stack is empty; what consumers hold is not in it (see G5). A parker's
 * re-check, after the read-modify-write that announces the park: either it sees the push, or the
 * pusher's seq_cst load of the idle word sees the park. Weaker, both may miss.
 */
static inline bool wf_injector_is_empty(struct wf_injector *injector)
{
	return wf_injector_top(wf_u64_load_seq_cst(&injector->head)) == NULL;
}

/* The same for a spinner: one relaxed load, no promise. */
static inline bool wf_injector_is_empty_relaxed(const struct wf_injector *injector)
{
	return wf_injector_top(wf_u64_load_relaxed(&injector->head)) == NULL;
}

/* From the return on every push is refused. Idempotent. */
static inline void wf_injector_close(struct wf_injector *injector)
{
	/* X1. H4, with H1: a push is either below this bit, or sees it. */
	(void)wf_u64_fetch_or(&injector->head, WF_INJECTOR_CLOSED);
}

static inline bool wf_injector_is_closed(struct wf_injector *injector)
{
	/* H5, with H4: who sees the queue closed sees all that the closer did before. */
	return (wf_u64_load_acquire(&injector->head) & WF_INJECTOR_CLOSED) != 0;
}

/* Takes the whole stack: the batches, newest first, or NULL. */
static inline struct wf_node *wf_injector_take(struct wf_injector *injector)
{
	uint64_t head = wf_u64_load_relaxed(&injector->head);

	do {
		if (wf_injector_top(head) == NULL)
			return NULL;
		/* X3. H2, with H1: the nodes are as their pushers left them. */
	} while (!wf_u64_cas(&injector->head, &head,
		WF_PLANTED(injector_grab_clears_closed) ? 0 : head & WF_INJECTOR_CLOSED));
	return wf_injector_top(head);
}

/*
 * Inserts an ORDERED batch into a list by batch_next, older numbers first. At most one per
 * consumer.
 */
static inline struct wf_node *wf_injector_sort_in(struct wf_node *sorted, struct wf_node *batch)
{
	struct wf_node **link = &sorted;

	while (*link != NULL && (*link)->number < batch->number)
		link = &(*link)->batch_next;
	batch->batch_next = *link;
	*link = batch;
	return sorted;
}

/* Moves a list to a chain's end. */
WF_INLINE void wf_chain_append(struct wf_chain *chain, struct wf_node *first, struct wf_node *last)
{
	if (chain->first == NULL)
		chain->first = first;
	else
		chain->last->next = first;
	chain->last = last;
}

/* G2: makes one list of the batches. */
static inline void wf_injector_order(struct wf_node *batches, struct wf_chain *chain)
{
	struct wf_node *ordered = NULL, *batch, *below;
	struct wf_chain others = {NULL, NULL, 0};

	for (batch = batches; batch != NULL; batch = below) {
		below = batch->batch_next;
		if (batch->number != 0) {
			ordered = wf_injector_sort_in(ordered, batch);
			continue;
		}
		/* Newest first: each goes in front of those before it. */
		batch->batch_tail->next = others.first;
		others.first = batch;
		if (others.last == NULL)
			others.last = batch->batch_tail;
	}
	chain->first = NULL;
	chain->last = NULL;
	for (batch = ordered; batch != NULL; batch = batch->batch_next)
		wf_chain_append(chain, batch, batch->batch_tail);
	if (others.first != NULL)
		wf_chain_append(chain, others.first, others.last);
}

/* G1, G2. Takes everything, in order. False: it was empty. */
static inline bool wf_injector_grab(struct wf_injector *injector, struct wf_chain *chain_out)
{
	struct wf_node *batches = wf_injector_take(injector);

	if (batches == NULL) {
		*chain_out = (struct wf_chain){NULL, NULL, 0};
		return false;
	}
	/* Relaxed would do: only the numbers' order counts. After the take: see "Order". */
	chain_out->number = wf_u64_fetch_add(&injector->grabs, 1) + 1;
	wf_injector_order(batches, chain_out);
	return true;
}

/* The chain's first node, which is the caller's from here on, or NULL. */
static inline struct wf_node *wf_chain_pop(struct wf_chain *chain)
{
	struct wf_node *node = chain->first;

	if (node != NULL)
		chain->first = node->next;
	return node;
}

/*
 * G4. Puts what is left of a grabbed chain back, in front of everything younger, without walking
 * it. Succeeds on a closed queue too. An empty chain is nothing. Then: the idle-word check.
 */
static inline void wf_injector_push_back(struct wf_injector *injector, struct wf_chain *chain)
{
	if (chain->first == NULL)
		return;
	chain->first->batch_tail = chain->last;
	chain->first->number = chain->number;
	(void)wf_injector_push_batch(injector, chain->first, false);
	chain->first = NULL;
}

static inline bool wf_fifo_is_empty(const struct wf_fifo *fifo)
{
	return fifo->first == NULL;
}

static inline void wf_fifo_push(struct wf_fifo *fifo, struct wf_node *node)
{
	node->next = NULL;
	if (fifo->first == NULL)
		fifo->first = node;
	else
		fifo->last->next = node;
	fifo->last = node;
}

/* The oldest node, or NULL. */
static inline struct wf_node *wf_fifo_pop(struct wf_fifo *fifo)
{
	struct wf_node *node = fifo->first;

	if (node != NULL)
		fifo->first = node->next;
	return node;
}

/* Moves the whole chain to the fifo's end. The chain is empty afterwards. */
static inline void wf_fifo_append(struct wf_fifo *fifo, struct wf_chain *chain)
{
	if (chain->first == NULL)
		return;
	if (fifo->first == NULL)
		fifo->first = chain->first;
	else
		fifo->last->next = chain->first;
	fifo->last = chain->last;
	chain->first = NULL;
}

/*
 * Inbox, its single consumer: moves everything, in the order of the pushes, to the end of the
 * private list. False: it was empty. Nothing is ever pushed back here, so `number` is the senders';
 * and every node was pushed alone, so it is its own tail.
 */
static inline bool wf_injector_drain(struct wf_injector *inbox, struct wf_fifo *fifo)
{
	struct wf_node *batch = wf_injector_take(inbox), *below;
	struct wf_chain chain = {NULL, NULL, 0};

	if (batch == NULL)
		return false;
	chain.last = batch;
	for (; batch != NULL; batch = below) {
		below = batch->batch_next;
		batch->next = chain.first;
		chain.first = batch;
	}
	wf_fifo_append(fifo, &chain);
	return true;
}

/* G5: what wf_injector_refill left for others to take. If anything: idle-word check. */
struct wf_refill {
	unsigned moved;   /* items in the own ring */
	bool pushed_back; /* items in the injector */
};

/*
 * What a refill leaves free in a ring. A worker that is always busy refills once in a while, and
 * what it runs goes back to the ring: filled to the brim, that would spill what was just moved in,
 * which would go to the injector's end without having run. Who is where in the injector then
 * repeats: some run at each refill, others are moved to and fro for ever.
 */
#define WF_REFILL_FREE (WF_RING_SIZE / 4)

/*
 * G1 to G4, for the owner of `own`. Returns the first item (to run now), or
 * NULL if the injector was empty. An item is the object around the node: node_offset is the node's
 * offset in it. Ends with a read-modify-write of all it has published, so the caller goes straight
 * on to wf_idle_claim_any.
 */
static inline void *wf_injector_refill(struct wf_injector *injector, struct wf_deque *own,
	size_t node_offset, struct wf_refill *refill_out)
{
	void *items[WF_RING_SIZE / 2];
	struct wf_chain chain = {NULL, NULL, 0};
	struct wf_node *node;
	unsigned n = 0, room;
	void *first;

	*refill_out = (struct wf_refill){0, false};
	if (!wf_injector_grab(injector, &chain))
		return NULL;
	first = (char *)wf_chain_pop(&chain) - node_offset;
	room = (unsigned)wf_deque_room(own, WF_RING_SIZE / 2 + WF_REFILL_FREE); /* G3 */
	room = room > WF_REFILL_FREE ? room - WF_REFILL_FREE : 0;
	while (n < WF_RING_SIZE / 2 && n < room && (node = wf_chain_pop(&chain)) != NULL)
		items[n++] = (char *)node - node_offset;
	if (n > 0) {
		(void)wf_deque_push_many(own, items, n);
		wf_deque_publish(own);
	}
	refill_out->moved = n;
	refill_out->pushed_back = chain.first != NULL;
	wf_injector_push_back(injector, &chain);
	return first;
}

#endif
