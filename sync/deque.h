/*
 * deque.h: the local run queue. One owner, any number of thieves, a bounded ring of item pointers.
 *
 * Words. `top` and `bottom` are 64-bit indices that only name slots modulo the ring's size; items
 * live in [top, bottom). The OWNER is the one thread that pushes; a THIEF is any other. Indices
 * start at 0 and are never reduced modulo anything, so none is ever reused: a compare-and-swap on
 * `top` cannot be fooled by A-B-A (a push per nanosecond needs 584 years to wrap).
 *
 * Two orders. A queue is used in one of them for life; both are in every build. WF_RUN_ORDER_FIFO
 * says which one wf_deque_pop, _steal and _push (with its overflow) are of: the run queue's. The
 * queue of scope children (core/queue.h) is in lifo order whatever that says.
 *
 *   fifo  The owner pushes at bottom; owner and thieves both claim at top by compare-and-swap. A
 *         thief takes half (rounded up): it reads top, then bottom, copies, then claims all of it
 *         with one compare-and-swap. bottom never decreases. wf_deque_pop_oldest, _steal_half.
 *   lifo  Chase and Lev's deque ("Dynamic circular work-stealing deque", SPAA 2005) on a bounded
 *         ring: the owner pops at bottom, a thief takes one at top; they meet only over the last.
 *         wf_deque_pop_newest, _steal_oldest.
 *
 * Invariants
 *   I1  top never decreases, and top <= bottom whenever the owner is outside pop (lifo).
 *   I2  bottom - top <= WF_RING_SIZE.
 *   I3  slot i mod size is overwritten only after the owner has *seen* top > i (A1). So a thief
 *       that copied slot i too late fails its compare-and-swap and drops the copy.
 *   I4  every store to bottom is a release. C11 (since C++20/RC11) does not count a later plain
 *       store by the same thread into an earlier one's release sequence: one relaxed store to
 *       bottom, and a thief that reads it does not see the slots below.
 *
 * THE PROTOCOL, in fifo order
 *
 *   Q1  Push: the owner looks at top (A1) if it does not know of room; stores the slot, then bottom
 *       (R1). No room: O1.
 *   Q2  Pop: the owner reads top, copies, claims by a compare-and-swap top -> top + 1.
 *   Q3  Steal: a thief reads top, then bottom; none: done. n = half of it, rounded up; more than
 *       half a ring: the pair never existed, again. It copies n, then claims them by one
 *       compare-and-swap top -> top + n.
 *   Q4  Is-empty: top, then bottom, both seq_cst.
 *
 * Overflow (fifo). The ring is full, [t, t+size). The owner
 *   O1  claims everything: compare-and-swap top t -> t+size. On failure a thief has made room: Q1.
 *   O2  copies the newer half plus the new item out, for the injector.
 *   O3  stores bottom = t + size + size/2. The older half, never moved, lies in just those slots.
 *   O4  (caller) pushes the copied chain to the injector, then makes the idle-word check.
 * Between O1 and O3 the ring reads empty although the older half is in it: the one false empty of
 * wf_deque_is_empty. O4's check is what makes it harmless: it comes after O3, so a worker that
 * parked on the false empty is seen by it. Taking bottom back instead of claiming all runs an item
 * twice: a thief that read the old bottom claims what the owner has already taken.
 *
 * Overflow (lifo). The owner pops the newer half one at a time.
 *
 * The check before others may sleep. A release store to bottom is ordered before a later load of
 * the idle word neither by x86-64 nor by C11, and a read-modify-write of some *third* word in
 * between helps on x86-64 but proves nothing in C11: only seq_cst operations on bottom and on the
 * idle word themselves take part in the single total order. wf_deque_publish does that operation, a
 * read-modify-write of bottom (5 ns, on the owner's own line). Call it once before the check that
 * must be certain, not on every push.
 *
 * Progress. push, push_many, publish: wait-free. pop: lock-free in fifo order (a lost race means
 * that a thief got an item), wait-free in lifo. steal: wait-free, bounded by WF_DEQUE_STEAL_TRIES;
 * it may return 0 on a queue that is not empty after that many lost races. is_empty: wait-free.
 *
 * Who may call: init, push, push_many, room, pop, publish, valid: the owner. steal: any other
 * thread. is_empty, count, overflow_count: any thread.
 */
#ifndef WF_SYNC_DEQUE_H
#define WF_SYNC_DEQUE_H

#include "sync/atomic.h"

static_assert(WF_RING_SIZE >= 4 && (WF_RING_SIZE & (WF_RING_SIZE - 1)) == 0,
	"the ring's size is a power of two, at least 4");
static_assert(WF_RUN_ORDER_FIFO == 0 || WF_RUN_ORDER_FIFO == 1, "the run order is 0 or 1");

/* The most items an overflowing push hands back: the newer half and the new one. */
#define WF_DEQUE_SPILL_MAX (WF_RING_SIZE / 2 + 1)
/* The most items one steal takes. */
#define WF_DEQUE_STEAL_MAX (WF_RUN_ORDER_FIFO ? WF_RING_SIZE / 2 : 1)
/* How often a steal tries again after a lost race. Then another thief, or the owner, is served. */
#define WF_DEQUE_STEAL_TRIES 4

struct wf_deque {
	/* The owner writes this line, thieves read `bottom` in it. */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u64 bottom;
	uint64_t cached_top; /* owner-private: some value top has had since the last look */
	wf_atomic_u64 overflows;
	/* Thieves write this one (and the owner, in fifo order). */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u64 top;
	/*
	 * The owner writes, thieves read. Atomic, because a thief that will lose reads during a
	 * push.
	 */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_ptr ring[WF_RING_SIZE];
};

WF_INLINE wf_atomic_ptr *wf_deque_slot(struct wf_deque *d, uint64_t index)
{
	return &d->ring[index & (WF_RING_SIZE - 1)];
}

static inline void wf_deque_init(struct wf_deque *d)
{
	wf_u64_store_relaxed(&d->bottom, 0);
	wf_u64_store_relaxed(&d->overflows, 0);
	wf_u64_store_relaxed(&d->top, 0);
	d->cached_top = 0;
}

/* How many items can be pushed without overflow: at least `wanted`, or all there is. */
static inline uint64_t wf_deque_room(struct wf_deque *d, uint64_t wanted)
{
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);

	if (WF_RING_SIZE - (bottom - d->cached_top) < wanted) {
		/*
		 * A1, with T3, the thieves' compare-and-swap: a thief's copy of a slot is over
		 * before the owner, who sees top beyond it, overwrites it. Without it the thief
		 * claims an item that it never read.
		 */
		d->cached_top = wf_u64_load_acquire(&d->top);
	}
	return WF_RING_SIZE - (bottom - d->cached_top);
}

/*
 * Pushes as many of the n items as fit and returns how many. One store of bottom publishes them
 * all: a thief sees all of them or none.
 */
static inline unsigned wf_deque_push_many(struct wf_deque *d, void *const items[], unsigned n)
{
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);
	uint64_t room = wf_deque_room(d, n);
	unsigned i;

	if (n > room)
		n = (unsigned)room;
	for (i = 0; i < n; i++)
		wf_ptr_store_relaxed(wf_deque_slot(d, bottom + i), items[i]);
	/*
	 * R1, with A3 in wf_deque_steal_half() and wf_deque_steal_oldest(): who sees bottom sees
	 * the slots below it, and the items.
	 */
	wf_u64_store_release(&d->bottom, bottom + n);
	return n;
}

WF_INLINE void wf_deque_push_unchecked(struct wf_deque *d, uint64_t bottom, void *item)
{
	wf_ptr_store_relaxed(wf_deque_slot(d, bottom), item);
	wf_u64_store_release(&d->bottom, bottom + 1); /* R1, as in wf_deque_push_many. */
}

/*
 * T1, with T6 in wf_deque_is_empty(): orders everything pushed so far before what the caller loads
 * (seq_cst) next, see the file's top. Either the caller's load of the idle word sees that a worker
 * has parked, or that worker's re-check sees these items. Without it both may miss.
 */
static inline void wf_deque_publish(struct wf_deque *d)
{
	if (!WF_PLANTED(deque_publish_without_rmw))
		(void)wf_u64_fetch_add(&d->bottom, 0);
}

WF_INLINE void wf_deque_count_overflow(struct wf_deque *d)
{
	wf_u64_store_relaxed(&d->overflows, wf_u64_load_relaxed(&d->overflows) + 1);
}

/* --- fifo --- */

/* Q2. The oldest item, or NULL if there is none. */
static inline void *wf_deque_pop_oldest(struct wf_deque *d)
{
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);
	uint64_t top = wf_u64_load_relaxed(&d->top);

	/*
	 * A stale top is harmless: if it equals bottom so does the true one (I1), and otherwise the
	 * compare-and-swap fails. The slot is the owner's own store.
	 */
	while (top != bottom) {
		void *item = wf_ptr_load_relaxed(wf_deque_slot(d, top));

		if (WF_PLANTED(deque_pop_by_store)) {
			wf_u64_store_release(&d->top, top + 1);
			return item;
		}
		/* T2, with itself in wf_deque_steal_half(): one of all claims succeeds. */
		if (WF_LIKELY(wf_u64_cas(&d->top, &top, top + 1))) {
			d->cached_top = top + 1;
			return item;
		}
	}
	return NULL;
}

/*
 * Q3. Takes half of the victim's items (rounded up, at most `max`), the oldest, in order. Returns
 * how many: 0 if there were none, or after WF_DEQUE_STEAL_TRIES lost races.
 */
static inline unsigned wf_deque_steal_half(struct wf_deque *victim, void *items[], unsigned max)
{
	unsigned tries, i;

	for (tries = 0; tries < WF_DEQUE_STEAL_TRIES; tries++) {
		/*
		 * A2, with T2 and T3: top first. Whoever moved top there had seen a bottom at least
		 * as large, and so do we: bottom - top cannot come out negative.
		 */
		uint64_t top = wf_u64_load_acquire(&victim->top);
		/* A3, with R1: the slots below bottom are as the owner wrote them. */
		uint64_t bottom = wf_u64_load_acquire(&victim->bottom);
		uint64_t n = (bottom - top + 1) / 2;

		if (n == 0)
			return 0;
		if (n > WF_RING_SIZE / 2)
			continue; /* top is older than bottom by a lap: the pair never existed */
		if (n > max)
			n = max;
		for (i = 0; i < n; i++)
			items[i] = wf_ptr_load_relaxed(wf_deque_slot(victim, top + i));
		/*
		 * T3, with A1 (the copies are made before the owner may reuse the slots; a relaxed
		 * one lets them sink below it) and with T2.
		 */
		if (wf_u64_cas(&victim->top, &top, top + n))
			return (unsigned)n;
	}
	return 0;
}

/* --- lifo --- */

/* The newest item, or NULL if there is none. */
static inline void *wf_deque_pop_newest(struct wf_deque *d)
{
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);
	uint64_t top;
	void *item;

	/* Only the owner adds: empty now means empty until the owner pushes. Saves the exchange. */
	if (bottom == wf_u64_load_relaxed(&d->top))
		return NULL;
	bottom--;
	/*
	 * T2, with A3 in wf_deque_steal_oldest(): announce the claim, then look where the thieves
	 * are. One of the two sees the other; without StoreLoad order neither does, and both take
	 * the item.
	 */
	if (WF_PLANTED(deque_pop_without_store_load))
		wf_u64_store_release(&d->bottom, bottom);
	else
		(void)wf_u64_exchange(&d->bottom, bottom);
	top = wf_u64_load_seq_cst(&d->top);
	d->cached_top = top;
	if (top < bottom)
		return wf_ptr_load_relaxed(wf_deque_slot(d, bottom));
	item = NULL;
	if (top == bottom) {
		item = wf_ptr_load_relaxed(wf_deque_slot(d, bottom));
		/* T3, with itself in wf_deque_steal_oldest(): the last item goes to one of us. */
		if (WF_PLANTED(deque_last_item_without_cas))
			wf_u64_store_release(&d->top, top + 1);
		else if (!wf_u64_cas(&d->top, &top, top + 1))
			item = NULL;
	}
	wf_u64_store_release(&d->bottom, bottom + 1); /* R2, a release for I4 */
	return item;
}

/*
 * Takes the victim's oldest item, if max > 0. Returns 1, or 0 if there was none or after
 * WF_DEQUE_STEAL_TRIES lost races.
 */
static inline unsigned wf_deque_steal_oldest(struct wf_deque *victim, void *items[], unsigned max)
{
	unsigned tries;

	for (tries = 0; tries < WF_DEQUE_STEAL_TRIES && max > 0; tries++) {
		/*
		 * A2 and A3, with T2 in wf_deque_pop_newest(): seq_cst and in this order. The owner
		 * lowers bottom, then reads top; a thief reads top, then bottom. Also with R1: the
		 * slots below bottom are as the owner wrote them.
		 */
		uint64_t top = wf_u64_load_seq_cst(&victim->top);
		uint64_t bottom = wf_u64_load_seq_cst(&victim->bottom);

		if ((int64_t)(bottom - top) <= 0)
			return 0;
		items[0] = wf_ptr_load_relaxed(wf_deque_slot(victim, top));
		/*
		 * T3: with A1 (the copy is made before the owner may reuse the slot), and itself.
		 */
		if (wf_u64_cas(&victim->top, &top, top + 1))
			return 1;
	}
	return 0;
}

/* --- the order of this build's run queue --- */

#if WF_RUN_ORDER_FIFO

WF_INLINE void *wf_deque_pop(struct wf_deque *d)
{
	return wf_deque_pop_oldest(d);
}

WF_INLINE unsigned wf_deque_steal(struct wf_deque *victim, void *items[], unsigned max)
{
	return wf_deque_steal_half(victim, items, max);
}

/* The ring is full. See "Overflow" at the file's top. */
WF_UNUSED WF_COLD static unsigned wf_deque_overflow(
	struct wf_deque *d, void *item, void *spill[WF_DEQUE_SPILL_MAX])
{
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);
	uint64_t top = bottom - WF_RING_SIZE;
	unsigned i;

	if (WF_PLANTED(deque_overflow_retracts)) {
		bottom -= WF_RING_SIZE / 2;
		for (i = 0; i < WF_RING_SIZE / 2; i++)
			spill[i] = wf_ptr_load_relaxed(wf_deque_slot(d, bottom + i));
		spill[i++] = item;
		wf_deque_count_overflow(d);
		wf_u64_store_seq_cst(&d->bottom, bottom);
		return i;
	}
	/* O1. T4, as T2: from here on all items are the owner's. */
	if (!wf_u64_cas(&d->top, &top, bottom)) {
		d->cached_top = top;
		wf_deque_push_unchecked(d, bottom, item);
		return 0;
	}
	d->cached_top = bottom;
	/* O2 */
	for (i = 0; i < WF_RING_SIZE / 2; i++)
		spill[i] = wf_ptr_load_relaxed(wf_deque_slot(d, bottom + WF_RING_SIZE / 2 + i));
	spill[i++] = item;
	wf_deque_count_overflow(d);
	/*
	 * O3. T5, as R1 and T1 in one: the older half is visible again before the caller's
	 * idle-word check; without that a worker that parked on the false empty stays parked.
	 */
	wf_u64_store_seq_cst(&d->bottom, bottom + WF_RING_SIZE / 2);
	return i;
}

#else /* lifo */

WF_INLINE void *wf_deque_pop(struct wf_deque *d)
{
	return wf_deque_pop_newest(d);
}

WF_INLINE unsigned wf_deque_steal(struct wf_deque *victim, void *items[], unsigned max)
{
	return wf_deque_steal_oldest(victim, items, max);
}

/* The ring is full: the newer half, popped one at a time, and the new item are handed back. */
WF_UNUSED WF_COLD static unsigned wf_deque_overflow(
	struct wf_deque *d, void *item, void *spill[WF_DEQUE_SPILL_MAX])
{
	unsigned n = 0, i;

	while (n < WF_RING_SIZE / 2 && (spill[n] = wf_deque_pop_newest(d)) != NULL)
		n++;
	for (i = 0; i < n / 2; i++) { /* popped newest first, wanted oldest first */
		void *other = spill[n - 1 - i];

		spill[n - 1 - i] = spill[i];
		spill[i] = other;
	}
	spill[n++] = item;
	wf_deque_count_overflow(d);
	return n;
}

#endif

/*
 * Q1. Pushes one item. Returns 0; or, when the ring was full, how many items (the newer half of the
 * ring and then this one, oldest first) were put into spill instead. O4: the caller pushes them to
 * the injector as one chain, and then makes the idle-word check.
 */
static inline unsigned wf_deque_push(
	struct wf_deque *d, void *item, void *spill[WF_DEQUE_SPILL_MAX])
{
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);

	WF_ASSERT(item != NULL);
	if (WF_UNLIKELY(bottom - d->cached_top >= WF_RING_SIZE) && wf_deque_room(d, 1) == 0)
		return wf_deque_overflow(d, item, spill);
	wf_deque_push_unchecked(d, bottom, item);
	return 0;
}

/*
 * Q4. Whether nothing can be stolen. Exact at the moment of the second load (top cannot pass
 * bottom, so a bottom equal to an earlier top means equal now), but for the window inside an
 * overflow.
 */
static inline bool wf_deque_is_empty(struct wf_deque *d)
{
	/* T6, both, with T1 and T5: a parker's re-check, after the RMW that announces the park. */
	uint64_t top = wf_u64_load_seq_cst(&d->top);
	uint64_t bottom = wf_u64_load_seq_cst(&d->bottom);

	return (int64_t)(bottom - top) <= 0;
}

/* How many items, roughly: for metrics and for the choice of a victim. */
static inline uint64_t wf_deque_count(struct wf_deque *d)
{
	uint64_t top = wf_u64_load_relaxed(&d->top);
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);

	if ((int64_t)(bottom - top) <= 0)
		return 0;
	return bottom - top < WF_RING_SIZE ? bottom - top : WF_RING_SIZE;
}

static inline uint64_t wf_deque_overflow_count(struct wf_deque *d)
{
	return wf_u64_load_relaxed(&d->overflows);
}

/* Checks what holds between two operations of the owner; prints the first thing that does not. */
WF_UNUSED WF_COLD static bool wf_deque_valid(struct wf_deque *d)
{
	uint64_t bottom = wf_u64_load_relaxed(&d->bottom);
	uint64_t top = wf_u64_load_acquire(&d->top); /* as A1 */
	const char *reason = NULL;
	uint64_t i;

	if (top > bottom)
		reason = "top is beyond bottom";
	else if (bottom - top > WF_RING_SIZE)
		reason = "more items than slots";
	else if (d->cached_top > top)
		reason = "cached_top is a value that top never had";
	for (i = top; reason == NULL && i != bottom; i++) {
		if (wf_ptr_load_relaxed(wf_deque_slot(d, i)) == NULL)
			reason = "an item is NULL";
	}
	if (reason != NULL)
		fprintf(stderr, "weft: deque %p: %s (top %llu, bottom %llu, cached top %llu)\n",
			(void *)d, reason, (unsigned long long)top, (unsigned long long)bottom,
			(unsigned long long)d->cached_top);
	return reason == NULL;
}

#endif
