/*
 * wheel.h: a hierarchical timer wheel whose worst poll is short.
 *
 *	wf_wheel_insert(wheel, timer, deadline_ns)   on the wheel until it is popped or cancelled
 *	wf_wheel_cancel(wheel, timer)                true: it was pending; the node is the caller's
 *	wf_wheel_move(wheel, timer, deadline_ns)     another deadline; inserts if not pending
 *	wf_wheel_advance(wheel, now_ns)              brings the wheel to now_ns; bounded work
 *	wf_wheel_pop_due(wheel)                      one timer whose time has come, or NULL
 *	wf_wheel_next(wheel)                         when advance is to be called next
 *
 * Words. A TICK is 2^WF_TICK_SHIFT ns. A timer's tick is its deadline rounded *up*, the wheel's
 * tick is the time rounded *down*: a timer whose tick has come is never early and at most one tick
 * late (plus what passes until advance and pop are called). A SLOT is a list of timers. Level 0 has
 * one slot per tick; a slot of level l is as long as 64 slots of level l-1. A timer is FILED in the
 * lowest level that reaches its tick.
 *
 * Two laps. A usual wheel has 64 slots per level and must move a whole slot down at the instant its
 * time begins: with a million timers half of them may lie in one slot, and that poll takes 100 ms.
 * Here a level has 128 slots, so that level l-1 always reaches to the end of level l's *next* slot.
 * While time is in slot q of a level, the timers of slot q+1 move down, a few per poll (PACED), and
 * when its time begins the slot is empty. Nothing new is filed in q+1 meanwhile: level l-1 reaches
 * it. How many per poll follows from how many there are, the time left and the gap between polls.
 * If the polls are too few for that (a sleep, a long turn) the rest is FORCED: the wheel's tick
 * stands at the beginning of that slot until it is empty, still only so many moves per poll.
 *
 * Invariants
 *   I1  level 0 holds ticks after the wheel's; those at or before it are in the due list.
 *   I2  a timer at level l lies in slot (tick >> 6l) mod 128 with (tick >> 6l) - (now >> 6l) in
 *       [0, 127], and 0 only while a forced move is unfinished.
 *   I3  a timer is filed at or before its deadline's tick: its `deadline_ns` may have moved later
 *       since (lazy re-arm), and what is looked at when it moves down or falls due is the deadline.
 *   I4  next_tick <= the tick at which wf_wheel_next() wants the caller back (unless next_stale);
 *       work_tick <= the tick at which advance has something to do. Too low costs an extra look.
 *   I5  a slot's bit is set if and only if the slot has timers.
 *
 * Order. Timers fire in the order of the ticks they were filed for. Within one tick, first in first
 * out for timers that were inserted while the tick belonged to the same slot (level and residence).
 * Timers that are already due when inserted fire after those due before them. A timer that was
 * moved later, by less than the wheel then jumps, may fire before others of the same jump.
 *
 * Limits. A deadline further away than WF_WHEEL_RANGE_TICKS is filed at that distance, and again
 * when it comes nearer. INT64_MAX is never, and so is what lies beyond the end of time, 146 years:
 * pending, but not due.
 *
 * Costs, with a million timers: insert and cancel are constant (cache misses of the node and its
 * neighbours), moving a deadline later is one store. advance: at most WF_WHEEL_MOVES_PACED moves
 * when polls keep up, a tenth of that as a rule, WF_WHEEL_MOVES_FORCED when they do not; each is a
 * cache miss. A wheel is about 33 KB.
 *
 * Concurrency: none. A wheel has one owner (or a lock around it), and every function is the
 * owner's. No allocation, no system call, no clock: nodes are the caller's and time is an argument.
 *
 * The idea of the hierarchy is Varghese and Lauck's ("Hashed and hierarchical timing wheels", SOSP
 * 1987).
 */
#ifndef WF_TIMER_WHEEL_H
#define WF_TIMER_WHEEL_H

#include "sync/atomic.h"

enum {
	WF_WHEEL_SLOT_BITS = 6,       /* a slot is 2^6 slots of the level below */
	WF_WHEEL_SLOTS = 128,         /* per level: two laps of 64 */
	WF_WHEEL_MOVES_PACED = 64,    /* per advance, of slots whose time is still to come */
	WF_WHEEL_MOVES_PACED_MIN = 2, /* of one slot */
	WF_WHEEL_MOVES_FORCED = 256,  /* per advance, paced ones included; see moves_max */
	WF_WHEEL_REFILES = 16,        /* per pop: due by their slot, but moved later since */
	WF_WHEEL_HEAVY = 1000,        /* a slot with more is worth waking up early for */

	/* The lists that are no slots of a level. */
	WF_WHEEL_DUE = WF_WHEEL_LEVELS * WF_WHEEL_SLOTS,
	WF_WHEEL_NEVER,
	WF_WHEEL_LISTS,

	WF_WHEEL_INDEX_BITS = 11, /* of `filed`: which list; above: the tick */
};

static_assert(WF_TICK_SHIFT >= 10 && WF_TICK_SHIFT <= 20, "the tick is 2^10 to 2^20 ns");
static_assert(WF_WHEEL_LEVELS >= 6 && WF_WHEEL_LEVELS <= 9, "the wheel has 6 to 9 levels");
static_assert(WF_WHEEL_LISTS <= 1 << WF_WHEEL_INDEX_BITS, "an index fits its bits");
static_assert(
	63 - WF_TICK_SHIFT <= 64 - WF_WHEEL_INDEX_BITS, "a tick fits the bits above an index");

#define WF_WHEEL_TICK_NS ((int64_t)1 << WF_TICK_SHIFT)
/*
 * The end of time, after 146 years of uptime: clocks stop before it and no timer is due from it on.
 */
#define WF_WHEEL_END_NS   ((int64_t)1 << 62)
#define WF_WHEEL_END_TICK ((uint64_t)WF_WHEEL_END_NS >> WF_TICK_SHIFT)
/*
 * How far ahead a timer can be filed: all but one slot of the top level, but no further than the
 * end of time, so that INT64_MAX is out of range at any time.
 */
#define WF_WHEEL_TOP_SHIFT ((WF_WHEEL_LEVELS - 1) * WF_WHEEL_SLOT_BITS)
#define WF_WHEEL_RANGE_TICKS                                                               \
	(WF_WHEEL_TOP_SHIFT + 7 < 62 - WF_TICK_SHIFT ? (uint64_t)127 << WF_WHEEL_TOP_SHIFT \
						     : WF_WHEEL_END_TICK)

struct wf_timer_link {
	struct wf_timer_link *next, *prev;
};

/*
 * The caller's node. All zero: not pending. Insert does not read what was in it before, so the
 * memory may have served something else. While pending the wheel's; `user` is always the caller's.
 */
struct wf_timer {
	struct wf_timer_link link; /* next is NULL: not pending */
	uint64_t filed;            /* the tick it was filed for, and the list's index */
	int64_t deadline_ns;       /* readable; changed only by wf_wheel_move */
	union {
		void *user;
		uint64_t user_word;
		wf_atomic_u64 due; /* timer/shared.h */
	};
};

static_assert(sizeof(struct wf_timer) == 40, "a process header has room for 40 bytes");

struct wf_wheel_list {
	struct wf_timer_link head; /* circular */
	uint64_t earliest_tick;    /* levels above 0: <= every filed tick; UINT64_MAX while empty */
	uint64_t count;
};

struct wf_wheel {
	uint64_t tick;      /* where the wheel stands: now_ns's tick, or before it while forced */
	int64_t now_ns;     /* the latest time it was told */
	uint64_t work_tick; /* advance has nothing to do before it */
	uint64_t next_tick; /* what wf_wheel_next reports, unless stale */
	uint64_t count;     /* timers in all lists */
	uint32_t levels;    /* a bit for level 0 and each level that has timers, or had lately */
	bool next_stale;
	bool hurry; /* the caller would sleep if it were not for a heavy slot */
	unsigned moves_max;                         /* per advance; WF_WHEEL_MOVES_FORCED */
	uint64_t moves_paced, moves_forced;         /* since init */
	uint64_t occupied[2 * WF_WHEEL_LEVELS + 1]; /* a bit per list, by index */
	struct wf_wheel_list lists[WF_WHEEL_LISTS]; /* by level * 128 + slot, then due, never */
} WF_ALIGNED(WF_CACHE_LINE);

/* Empty, standing at now_ns (not negative, before the end of time). */
void wf_wheel_init(struct wf_wheel *wheel, int64_t now_ns);

/*
 * Some timer that is pending; NULL: none. For taking all of them off: those that are due come
 * first, then slot by slot of each level, in the order of time; those of one slot in their order.
 */
struct wf_timer *wf_wheel_any(const struct wf_wheel *wheel);

/*
 * Checks everything the wheel promises about itself, in time linear in its timers; prints the first
 * thing that is wrong to `out` (not NULL) and returns false.
 */
bool wf_wheel_valid(const struct wf_wheel *wheel, FILE *out);

/* The parts behind the inline functions below; not for others. */
void wf_wheel_advance_slow(struct wf_wheel *wheel, uint64_t target_tick);
uint64_t wf_wheel_next_slow(struct wf_wheel *wheel);
void wf_wheel_file_far(struct wf_wheel *wheel, struct wf_timer *timer, uint64_t tick);

/* Timers on the wheel: filed, due and not popped, never due. */
WF_INLINE uint64_t wf_wheel_count(const struct wf_wheel *wheel)
{
	return wheel->count;
}

WF_INLINE bool wf_timer_is_pending(const struct wf_timer *timer)
{
	return timer->link.next != NULL;
}

/* deadline_ns > 0. */
WF_INLINE uint64_t wf_wheel_tick_of(int64_t deadline_ns)
{
	return ((uint64_t)deadline_ns + (uint64_t)WF_WHEEL_TICK_NS - 1) >> WF_TICK_SHIFT;
}

/* Appends the timer to a list. */
WF_INLINE struct wf_wheel_list *wf_wheel_link(
	struct wf_wheel *wheel, struct wf_timer *timer, unsigned index, uint64_t tick)
{
	struct wf_wheel_list *list = &wheel->lists[index];
	struct wf_timer_link *last;

	/* One address for all that follows; compilers would work out several, side by side. */
	__asm__("" : "+r"(list));
	last = list->head.prev;
	timer->filed = tick << WF_WHEEL_INDEX_BITS | index;
	/* In this order the link's two stores stay two: as one they go by a vector register. */
	timer->link.next = &list->head;
	last->next = &timer->link;
	timer->link.prev = last;
	list->head.prev = &timer->link;
	list->count++;
	wheel->occupied[index / 64] |= (uint64_t)1 << (index % 64);
	return list;
}

/* The last timer has left a list. */
WF_INLINE void wf_wheel_emptied(struct wf_wheel *wheel, unsigned index)
{
	wheel->lists[index].earliest_tick = UINT64_MAX;
	wheel->occupied[index / 64] &= ~((uint64_t)1 << (index % 64));
}

/*
 * Links the timer into the lowest level above 0 that reaches `tick`. Distances from 2^(6l+1) to
 * 2^(6l+7) are for level l, except that the last slot of that span may lie 128 slots away, counted
 * from the slot that the wheel is in: then it is the next level's.
 */
WF_INLINE void wf_wheel_file_upper(struct wf_wheel *wheel, struct wf_timer *timer, uint64_t tick)
{
	unsigned bits = 62 - (unsigned)__builtin_clzll(tick - wheel->tick);
	unsigned level = bits / WF_WHEEL_SLOT_BITS, shift = level * WF_WHEEL_SLOT_BITS;
	struct wf_wheel_list *list;
	uint64_t slot, work;

	if (WF_UNLIKELY((tick >> shift) - (wheel->tick >> shift) >= WF_WHEEL_SLOTS)) {
		level++;
		shift += WF_WHEEL_SLOT_BITS;
	}
	slot = tick >> shift;
	list = wf_wheel_link(wheel, timer, level * WF_WHEEL_SLOTS + slot % WF_WHEEL_SLOTS, tick);
	if (tick < list->earliest_tick)
		list->earliest_tick = tick;
	if (WF_UNLIKELY(list->count == WF_WHEEL_HEAVY + 1))
		wheel->next_stale = true;
	wheel->levels |= UINT32_C(1) << level;
	work = (slot - 1) << shift;
	if (work < wheel->work_tick)
		wheel->work_tick = work;
}

/* Links the timer into the lowest level that reaches `tick`, which is after the wheel's. */
WF_INLINE void wf_wheel_file(struct wf_wheel *wheel, struct wf_timer *timer, uint64_t tick)
{
	uint64_t distance = tick - wheel->tick;

	if (distance < WF_WHEEL_SLOTS) {
		(void)wf_wheel_link(wheel, timer, tick % WF_WHEEL_SLOTS, tick);
		if (tick < wheel->work_tick)
			wheel->work_tick = tick;
	} else if (WF_LIKELY(distance < WF_WHEEL_RANGE_TICKS)) {
		wf_wheel_file_upper(wheel, timer, tick);
	} else {
		wf_wheel_file_far(wheel, timer, tick);
		return;
	}
	if (tick < wheel->next_tick)
		wheel->next_tick = tick;
}

/*
 * Puts the timer on the wheel. It must not be pending; its memory stays the caller's and must stay
 * in place until it has been popped or cancelled. A deadline at or before the time of the last
 * advance is due at once: the next pop returns it.
 */
WF_INLINE void wf_wheel_insert(struct wf_wheel *wheel, struct wf_timer *timer, int64_t deadline_ns)
{
	timer->deadline_ns = deadline_ns;
	wheel->count++;
	if (WF_UNLIKELY(deadline_ns <= wheel->now_ns))
		(void)wf_wheel_link(wheel, timer, WF_WHEEL_DUE, wheel->tick);
	else
		wf_wheel_file(wheel, timer, wf_wheel_tick_of(deadline_ns));
}

/*
 * Takes the timer off the wheel, also when it is due and not popped. Returns whether it was
 * pending; false does nothing. The timer must be zero, or have been on this wheel.
 */
WF_INLINE bool wf_wheel_cancel(struct wf_wheel *wheel, struct wf_timer *timer)
{
	struct wf_timer_link *next = timer->link.next, *prev = timer->link.prev;
	unsigned index = timer->filed % (1u << WF_WHEEL_INDEX_BITS);
	uint64_t tick = timer->filed >> WF_WHEEL_INDEX_BITS;

	if (!next)
		return false;
	/* A slot of level 0 joins the due list as it is, without a look at its timers. */
	if (index < WF_WHEEL_SLOTS && tick <= wheel->tick)
		index = WF_WHEEL_DUE;
	next->prev = prev;
	prev->next = next;
	timer->link.next = NULL;
	wheel->count--;
	if (--wheel->lists[index].count == 0)
		wf_wheel_emptied(wheel, index);
	if (tick <= wheel->next_tick)
		wheel->next_stale = true;
	return true;
}

/*
 * Changes the deadline, earlier or later, or inserts the timer if it is not pending (it must then
 * be zero or have been popped or cancelled). Later is one store: the timer stays where it is filed,
 * and is filed anew when that time comes. It does so too when it is already due but not popped.
 */
WF_INLINE void wf_wheel_move(struct wf_wheel *wheel, struct wf_timer *timer, int64_t deadline_ns)
{
	if (WF_LIKELY(wf_timer_is_pending(timer) && deadline_ns >= timer->deadline_ns)) {
		timer->deadline_ns = deadline_ns;
		return;
	}
	(void)wf_wheel_cancel(wheel, timer);
	wf_wheel_insert(wheel, timer, deadline_ns);
}

/*
 * Brings the wheel to now_ns: timers whose time has come are ready to be popped. Moves at most
 * WF_WHEEL_MOVES_FORCED timers between slots; if that was not enough, wf_wheel_next() is not after
 * now_ns and the next call goes on. A time before the last one
 * counts as the last one. Call it in every turn, also when nothing is pending: insert files timers
 * relative to the time of the last call.
 */
WF_INLINE void wf_wheel_advance(struct wf_wheel *wheel, int64_t now_ns)
{
	uint64_t target;

	if (now_ns > wheel->now_ns)
		wheel->now_ns = now_ns < WF_WHEEL_END_NS ? now_ns : WF_WHEEL_END_NS - 1;
	target = (uint64_t)wheel->now_ns >> WF_TICK_SHIFT;
	if (target < wheel->work_tick)
		wheel->tick = target;
	else
		wf_wheel_advance_slow(wheel, target);
}

/*
 * Unlinks and returns the next due timer, in the order of deadlines' ticks; NULL if there is none.
 * The timer is the caller's: it may be freed, or inserted again (due at once: behind those already
 * due, so the caller bounds its loop). Other timers may be cancelled or moved between two pops, due
 * ones included. NULL may also mean that too many due timers in a row had been moved later;
 * wf_wheel_next() then is not after the present, and another call goes on.
 */
struct wf_timer *wf_wheel_pop_due(struct wf_wheel *wheel);

/*
 * When advance is to be called next: never later than the earliest deadline's tick, and earlier if
 * that is when a heavy slot is to begin moving down. INT64_MAX: never, as things are. The time of
 * the last advance (or before): timers are due, or there is work that should not wait for a sleep.
 * It may be too early by what has been cancelled or moved later; advance then does nothing.
 */
WF_INLINE int64_t wf_wheel_next(struct wf_wheel *wheel)
{
	uint64_t tick = wheel->next_tick;

	if (wheel->lists[WF_WHEEL_DUE].count > 0)
		return wheel->now_ns;
	if (wheel->next_stale || tick <= wheel->tick)
		tick = wf_wheel_next_slow(wheel);
	if (tick >= WF_WHEEL_END_TICK)
		return INT64_MAX;
	return tick <= wheel->tick ? wheel->now_ns : (int64_t)(tick << WF_TICK_SHIFT);
}

#endif
