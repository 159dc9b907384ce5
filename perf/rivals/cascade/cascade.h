/*
 * cascade.h: the usual hierarchical timer wheel, as one writes it with care, to measure ours
 * against. README.md says what was chosen and why.
 *
 * 64 slots per level, a slot of level l as long as 64 of level l-1. A timer is filed at the highest
 * digit, to the base 64, in which its tick differs from the wheel's: so every timer of a level is
 * due before every one above, and what is filed in a level lies after the slot that time is in.
 * When time enters a slot of level 0 it joins the due list whole; when it enters one above, all of
 * its timers are filed again, below: the cascade. Nine levels hold every deadline there is.
 *
 * The same tick, the same promise (never early, at most a tick plus the gap between polls late) and
 * the same calls as timer/wheel.h, and like it without clock, allocation or locks.
 */
#ifndef PERF_RIVALS_CASCADE_H
#define PERF_RIVALS_CASCADE_H

#include <string.h>

#include "sync/check.h"

enum {
	CASCADE_BITS = 6,
	CASCADE_SLOTS = 1 << CASCADE_BITS,
	CASCADE_LEVELS = 9,
};

struct cascade_link {
	struct cascade_link *next, *prev;
};

/* The caller's; all zero: not pending. */
struct cascade_timer {
	struct cascade_link link;
	int64_t deadline_ns;
	void *user;
};

struct cascade {
	uint64_t tick;
	int64_t now_ns;
	uint64_t next_tick; /* nothing to do before it; too early by what was cancelled: stale */
	bool next_stale;
	uint64_t count;
	uint64_t moves; /* down a level, since init */
	uint64_t occupied[CASCADE_LEVELS];
	struct cascade_link due;
	struct cascade_link slots[CASCADE_LEVELS * CASCADE_SLOTS];
} WF_ALIGNED(WF_CACHE_LINE);

WF_UNUSED static void cascade_init(struct cascade *wheel, int64_t now_ns)
{
	memset(wheel, 0, sizeof *wheel);
	wheel->now_ns = now_ns;
	wheel->tick = (uint64_t)now_ns >> WF_TICK_SHIFT;
	wheel->next_tick = UINT64_MAX;
	wheel->due.next = wheel->due.prev = &wheel->due;
	for (unsigned i = 0; i < CASCADE_LEVELS * CASCADE_SLOTS; i++)
		wheel->slots[i].next = wheel->slots[i].prev = &wheel->slots[i];
}

/* deadline_ns > 0. */
WF_INLINE uint64_t cascade_tick_of(int64_t deadline_ns)
{
	return ((uint64_t)deadline_ns + ((uint64_t)1 << WF_TICK_SHIFT) - 1) >> WF_TICK_SHIFT;
}

WF_INLINE void cascade_append(struct cascade_link *list, struct cascade_link *link)
{
	struct cascade_link *last = list->prev;

	link->next = list;
	last->next = link;
	link->prev = last;
	list->prev = link;
}

/* `tick` is after the wheel's. */
WF_INLINE void cascade_file(struct cascade *wheel, struct cascade_timer *timer, uint64_t tick)
{
	unsigned level = (63 - (unsigned)__builtin_clzll(tick ^ wheel->tick)) / CASCADE_BITS;
	unsigned shift = level * CASCADE_BITS, slot = (tick >> shift) % CASCADE_SLOTS;
	uint64_t begin = tick >> shift << shift;

	cascade_append(&wheel->slots[level * CASCADE_SLOTS + slot], &timer->link);
	wheel->occupied[level] |= (uint64_t)1 << slot;
	if (begin < wheel->next_tick)
		wheel->next_tick = begin;
}

WF_INLINE void cascade_insert(
	struct cascade *wheel, struct cascade_timer *timer, int64_t deadline_ns)
{
	timer->deadline_ns = deadline_ns;
	wheel->count++;
	if (WF_UNLIKELY(deadline_ns <= wheel->now_ns))
		cascade_append(&wheel->due, &timer->link);
	else
		cascade_file(wheel, timer, cascade_tick_of(deadline_ns));
}

/* Returns whether it was pending. */
WF_INLINE bool cascade_cancel(struct cascade *wheel, struct cascade_timer *timer)
{
	struct cascade_link *next = timer->link.next, *prev = timer->link.prev;

	if (!next)
		return false;
	next->prev = prev;
	prev->next = next;
	timer->link.next = NULL;
	wheel->count--;
	if (next == prev && next != &wheel->due) {
		/* Nothing but the list itself is left. */
		size_t index = (size_t)(next - wheel->slots);

		wheel->occupied[index / CASCADE_SLOTS] &= ~((uint64_t)1 << (index % CASCADE_SLOTS));
		wheel->next_stale = true;
	}
	return true;
}

/* A deadline within the same tick is one store; any other takes the timer out and files it anew. */
WF_INLINE void cascade_move(struct cascade *wheel, struct cascade_timer *timer, int64_t deadline_ns)
{
	if (timer->link.next && timer->deadline_ns > wheel->now_ns && deadline_ns > wheel->now_ns &&
		cascade_tick_of(deadline_ns) == cascade_tick_of(timer->deadline_ns)) {
		timer->deadline_ns = deadline_ns;
		return;
	}
	(void)cascade_cancel(wheel, timer);
	cascade_insert(wheel, timer, deadline_ns);
}

/* The first slot that has timers: the first of the lowest level. Returns its time, or never. */
WF_INLINE uint64_t cascade_event(const struct cascade *wheel, unsigned *index_out)
{
	for (unsigned level = 0; level < CASCADE_LEVELS; level++) {
		unsigned shift = level * CASCADE_BITS, slot;

		if (!wheel->occupied[level])
			continue;
		slot = (unsigned)__builtin_ctzll(wheel->occupied[level]);
		*index_out = level * CASCADE_SLOTS + slot;
		return ((wheel->tick >> shift & ~(uint64_t)(CASCADE_SLOTS - 1)) + slot) << shift;
	}
	return UINT64_MAX;
}

/* All timers of a slot, at the instant its time begins. */
WF_UNUSED static void cascade_enter(struct cascade *wheel, unsigned index)
{
	struct cascade_link *slot = &wheel->slots[index], *link = slot->next;

	wheel->occupied[index / CASCADE_SLOTS] &= ~((uint64_t)1 << (index % CASCADE_SLOTS));
	if (index < CASCADE_SLOTS) {
		link->prev = wheel->due.prev;
		wheel->due.prev->next = link;
		slot->prev->next = &wheel->due;
		wheel->due.prev = slot->prev;
	} else {
		while (link != slot) {
			struct cascade_timer *timer =
				WF_CONTAINER_OF(link, struct cascade_timer, link);
			uint64_t tick = cascade_tick_of(timer->deadline_ns);

			link = link->next;
			WF_PREFETCH_WRITE(link);
			wheel->moves++;
			if (tick <= wheel->tick)
				cascade_append(&wheel->due, &timer->link);
			else
				cascade_file(wheel, timer, tick);
		}
	}
	slot->next = slot->prev = slot;
}

WF_UNUSED WF_NOINLINE static void cascade_advance_slow(struct cascade *wheel, uint64_t target)
{
	unsigned index = 0;
	uint64_t event;

	while ((event = cascade_event(wheel, &index)) <= target) {
		wheel->tick = event;
		cascade_enter(wheel, index);
	}
	wheel->tick = target;
	wheel->next_tick = event;
	wheel->next_stale = false;
}

/* All work that is due by now_ns, however much it is. now_ns must not go back. */
WF_INLINE void cascade_advance(struct cascade *wheel, int64_t now_ns)
{
	uint64_t target = (uint64_t)now_ns >> WF_TICK_SHIFT;

	wheel->now_ns = now_ns;
	if (target < wheel->next_tick)
		wheel->tick = target;
	else
		cascade_advance_slow(wheel, target);
}

WF_INLINE struct cascade_timer *cascade_pop_due(struct cascade *wheel)
{
	struct cascade_link *link = wheel->due.next, *next = link->next;

	if (link == &wheel->due)
		return NULL;
	WF_PREFETCH_WRITE(next->next);
	wheel->due.next = next;
	next->prev = &wheel->due;
	link->next = NULL;
	wheel->count--;
	return WF_CONTAINER_OF(link, struct cascade_timer, link);
}

/* When to call advance next: at a deadline or a cascade. INT64_MAX: never. */
WF_INLINE int64_t cascade_next(struct cascade *wheel)
{
	unsigned index;

	if (wheel->due.next != &wheel->due)
		return wheel->now_ns;
	if (wheel->next_stale) {
		wheel->next_tick = cascade_event(wheel, &index);
		wheel->next_stale = false;
	}
	if (wheel->next_tick > (uint64_t)INT64_MAX >> WF_TICK_SHIFT)
		return INT64_MAX;
	return (int64_t)(wheel->next_tick << WF_TICK_SHIFT);
}

#endif
