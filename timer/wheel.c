/*
 * wheel.c: the part of the wheel that runs once per turn. The words and invariants are in wheel.h.
 *
 * advance, when there is something to do, in this order:
 *   1  the rest of a forced slot, if the last call left one;
 *   2  from event to event up to the present: the wheel's tick goes to the next occupied slot of
 *      level 0, which joins the due list whole, or to the beginning of the next occupied slot
 *      above, whose timers are forced down; it stops where the moves are used up;
 *   3  paced moves, lowest level first (its slots are the first whose time comes);
 *   4  when to work again.
 * A jump over hours costs as much as its timers, not as its ticks: the occupied slots are found in
 * the bitmaps.
 *
 * The events of step 2 are at most 127 slots of level 0 plus two for each forced move, so the moves
 * bound them too.
 */
#include "timer/wheel.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static unsigned lowest_bit(uint32_t mask)
{
	return (unsigned)__builtin_ctz(mask);
}

static bool is_occupied(const struct wf_wheel *wheel, unsigned index)
{
	return wheel->occupied[index / 64] >> (index % 64) & 1;
}

static unsigned shift_of(unsigned level)
{
	return level * WF_WHEEL_SLOT_BITS;
}

/* The list of slot number `slot` (not reduced to the lap) of a level. */
static unsigned index_of(unsigned level, uint64_t slot)
{
	return level * WF_WHEEL_SLOTS + slot % WF_WHEEL_SLOTS;
}

/*
 * How many slots after `slot` a level's first occupied one is, 0 for itself; WF_WHEEL_SLOTS: none.
 */
static unsigned distance_to_occupied(const struct wf_wheel *wheel, unsigned level, uint64_t slot)
{
	const uint64_t *words = &wheel->occupied[(size_t)2 * level];
	unsigned half = slot / 64 % 2, bit = slot % 64;
	uint64_t ahead = words[half] >> bit;
	uint64_t wrapped = words[half] & (((uint64_t)1 << bit) - 1);

	if (ahead)
		return (unsigned)__builtin_ctzll(ahead);
	if (words[!half])
		return 64 - bit + (unsigned)__builtin_ctzll(words[!half]);
	if (wrapped)
		return 128 - bit + (unsigned)__builtin_ctzll(wrapped);
	return WF_WHEEL_SLOTS;
}

/* --- moving --- */

void wf_wheel_file_far(struct wf_wheel *wheel, struct wf_timer *timer, uint64_t tick)
{
	if (tick >= WF_WHEEL_END_TICK)
		(void)wf_wheel_link(wheel, timer, WF_WHEEL_NEVER, WF_WHEEL_END_TICK);
	else
		wf_wheel_file(wheel, timer, wheel->tick + WF_WHEEL_RANGE_TICKS - 1);
}

/* The timer has no list: finds the one for its deadline as it is now. */
static void refile(struct wf_wheel *wheel, struct wf_timer *timer)
{
	uint64_t tick = wf_wheel_tick_of(timer->deadline_ns);

	if (tick <= wheel->tick)
		(void)wf_wheel_link(wheel, timer, WF_WHEEL_DUE, wheel->tick);
	else
		wf_wheel_file(wheel, timer, tick);
}

/*
 * Moves up to `moves` timers of a slot of an upper level to where they belong now, first ones
 * first. None returns to the same slot: a lower level reaches it, or the deadline has moved beyond
 * it. Returns how many.
 */
static unsigned move_down(struct wf_wheel *wheel, unsigned index, unsigned moves)
{
	struct wf_wheel_list *list = &wheel->lists[index];
	struct wf_timer_link *link = list->head.next;
	unsigned moved = 0;

	while (moved < moves && link != &list->head) {
		struct wf_timer *timer = WF_CONTAINER_OF(link, struct wf_timer, link);

		link = link->next;
		WF_PREFETCH_WRITE(link);
		refile(wheel, timer);
		moved++;
	}
	list->head.next = link;
	link->prev = &list->head;
	list->count -= moved;
	if (moved > 0 && list->count == 0)
		wf_wheel_emptied(wheel, index);
	return moved;
}

/*
 * Empties the slots of the upper levels that the wheel stands in. Returns how many moves are left.
 */
static unsigned force(struct wf_wheel *wheel, unsigned moves)
{
	uint32_t levels = wheel->levels & ~UINT32_C(1);

	for (; levels != 0 && moves > 0; levels &= levels - 1) {
		unsigned level = lowest_bit(levels);
		unsigned index = index_of(level, wheel->tick >> shift_of(level));

		if (is_occupied(wheel, index)) {
			unsigned moved = move_down(wheel, index, moves);

			wheel->moves_forced += moved;
			moves -= moved;
		}
	}
	return moves;
}

/*
 * How many timers of a paced slot to move in this poll: twice what, poll by poll at the present gap
 * between two, would empty it in the time that is left. So the moves of a slot spread over its
 * predecessor's time, where moving it as fast as allowed would make a hundredth of all polls slow.
 */
static unsigned pace_of(const struct wf_wheel *wheel, unsigned level, uint64_t count, uint64_t gap)
{
	uint64_t begin = ((wheel->tick >> shift_of(level)) + 1) << shift_of(level);
	uint64_t left = begin - wheel->tick, moves;

	/* The last two keep the product below in 64 bits. */
	if (wheel->hurry || gap >= left || gap >= INT32_MAX || count >= UINT32_MAX)
		return WF_WHEEL_MOVES_PACED;
	moves = 2 * count * gap / left;
	if (moves < WF_WHEEL_MOVES_PACED_MIN)
		return WF_WHEEL_MOVES_PACED_MIN;
	return moves < WF_WHEEL_MOVES_PACED ? (unsigned)moves : WF_WHEEL_MOVES_PACED;
}

/*
 * Moves timers of the slots after those that the wheel stands in; at most `moves`. `gap` is the
 * ticks since the last advance.
 */
static void pace(struct wf_wheel *wheel, unsigned moves, uint64_t gap)
{
	uint32_t levels = wheel->levels & ~UINT32_C(1);

	for (; levels != 0 && moves > 0; levels &= levels - 1) {
		unsigned level = lowest_bit(levels);
		unsigned index = index_of(level, (wheel->tick >> shift_of(level)) + 1);

		if (is_occupied(wheel, index)) {
			unsigned quota = pace_of(wheel, level, wheel->lists[index].count, gap);
			unsigned moved = move_down(wheel, index, quota < moves ? quota : moves);

			wheel->moves_paced += moved;
			moves -= moved;
		}
	}
	wheel->hurry = false;
}

/* --- time --- */

/* The slot of level 0 that the wheel has come to joins the due list, in its order. */
static void collect(struct wf_wheel *wheel)
{
	unsigned index = index_of(0, wheel->tick);
	struct wf_wheel_list *slot = &wheel->lists[index], *due = &wheel->lists[WF_WHEEL_DUE];

	if (slot->count == 0)
		return;
	slot->head.next->prev = due->head.prev;
	due->head.prev->next = slot->head.next;
	slot->head.prev->next = &due->head;
	due->head.prev = slot->head.prev;
	due->count += slot->count;
	wheel->occupied[WF_WHEEL_DUE / 64] |= (uint64_t)1 << (WF_WHEEL_DUE % 64);
	slot->head.next = slot->head.prev = &slot->head;
	slot->count = 0;
	wf_wheel_emptied(wheel, index);
}

/* The next tick, after the wheel's, at which a slot of some level begins that has timers. */
static uint64_t next_event(const struct wf_wheel *wheel)
{
	uint64_t event = UINT64_MAX;

	for (uint32_t levels = wheel->levels; levels != 0; levels &= levels - 1) {
		unsigned level = lowest_bit(levels);
		uint64_t slot = (wheel->tick >> shift_of(level)) + 1;
		unsigned distance = distance_to_occupied(wheel, level, slot);
		uint64_t begin = (slot + distance) << shift_of(level);

		if (distance < WF_WHEEL_SLOTS && begin < event)
			event = begin;
	}
	return event;
}

/*
 * When advance has to work again: at the wheel's tick if a forced slot is unfinished or a paced one
 * is under way, else when a slot of level 0 falls due or one above begins to move.
 */
static uint64_t next_work(const struct wf_wheel *wheel)
{
	uint64_t work = UINT64_MAX;

	for (uint32_t levels = wheel->levels; levels != 0; levels &= levels - 1) {
		unsigned level = lowest_bit(levels);
		uint64_t slot = wheel->tick >> shift_of(level);
		unsigned distance = distance_to_occupied(wheel, level, slot);
		uint64_t begin = (slot + distance - (level > 0 && distance > 0)) << shift_of(level);

		if (distance < WF_WHEEL_SLOTS && begin < work)
			work = begin;
	}
	return work;
}

/* Insert sets a level's bit, but cancel does not clear it. */
static void forget_empty_levels(struct wf_wheel *wheel)
{
	for (uint32_t levels = wheel->levels & ~UINT32_C(1); levels != 0; levels &= levels - 1) {
		unsigned level = lowest_bit(levels);

		if ((wheel->occupied[2 * level] | wheel->occupied[2 * level + 1]) == 0)
			wheel->levels &= ~(UINT32_C(1) << level);
	}
}

void wf_wheel_advance_slow(struct wf_wheel *wheel, uint64_t target_tick)
{
	uint64_t gap = target_tick - wheel->tick;
	unsigned moves;

	forget_empty_levels(wheel);
	moves = force(wheel, wheel->moves_max);
	while (moves > 0 && wheel->tick < target_tick) {
		uint64_t event = next_event(wheel);

		if (event > target_tick) {
			wheel->tick = target_tick;
			break;
		}
		wheel->tick = event;
		collect(wheel);
		moves = force(wheel, moves);
	}
	if (moves > 0)
		pace(wheel, moves < WF_WHEEL_MOVES_PACED ? moves : WF_WHEEL_MOVES_PACED, gap);
	wheel->work_tick = next_work(wheel);
	if (moves == 0)
		wheel->next_stale = true;
}

/* The first tick at which a level needs the wheel to be awake. */
static uint64_t next_of_level(struct wf_wheel *wheel, unsigned level)
{
	uint64_t slot = wheel->tick >> shift_of(level);
	unsigned distance = distance_to_occupied(wheel, level, slot);
	const struct wf_wheel_list *first = &wheel->lists[index_of(level, slot + distance)];
	const struct wf_wheel_list *second = &wheel->lists[index_of(level, slot + distance + 1)];
	uint64_t begin = (slot + distance) << shift_of(level);

	if (distance == WF_WHEEL_SLOTS)
		return UINT64_MAX;
	if (level == 0)
		return begin;
	if (distance == 0)
		return wheel->tick; /* a forced slot is unfinished */
	/*
	 * Few timers can be moved when the first of them is due. Many should have moved by then;
	 * they may begin one slot ahead. The second slot does so while time is in the first. Slots
	 * after it need no look: the first one's timer is due before.
	 */
	if (first->count > WF_WHEEL_HEAVY) {
		wheel->hurry |= distance == 1; /* nothing else keeps the caller awake */
		return begin - ((uint64_t)1 << shift_of(level));
	}
	if (second->count > WF_WHEEL_HEAVY)
		return begin;
	return first->earliest_tick;
}

uint64_t wf_wheel_next_slow(struct wf_wheel *wheel)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t levels = wheel->levels; levels != 0; levels &= levels - 1) {
		unsigned level = lowest_bit(levels);
		uint64_t tick = next_of_level(wheel, level);

		if (tick < next)
			next = tick;
	}
	wheel->next_tick = next;
	wheel->next_stale = false;
	return next;
}

struct wf_timer *wf_wheel_pop_due(struct wf_wheel *wheel)
{
	struct wf_wheel_list *due = &wheel->lists[WF_WHEEL_DUE];

	for (unsigned refiles = 0; due->count > 0 && refiles < WF_WHEEL_REFILES; refiles++) {
		struct wf_timer_link *link = due->head.next, *next = link->next;
		struct wf_timer *timer = WF_CONTAINER_OF(link, struct wf_timer, link);

		WF_PREFETCH_WRITE(next->next);
		due->head.next = next;
		next->prev = &due->head;
		if (--due->count == 0)
			wf_wheel_emptied(wheel, WF_WHEEL_DUE);
		if (timer->deadline_ns <= wheel->now_ns) {
			wheel->count--;
			link->next = NULL;
			return timer;
		}
		refile(wheel, timer);
	}
	return NULL;
}

struct wf_timer *wf_wheel_any(const struct wf_wheel *wheel)
{
	unsigned index = WF_WHEEL_NEVER;

	if (wheel->count == 0)
		return NULL;
	if (wheel->lists[WF_WHEEL_DUE].count > 0)
		index = WF_WHEEL_DUE;
	for (uint32_t levels = wheel->levels; levels != 0 && index == WF_WHEEL_NEVER;
		levels &= levels - 1) {
		unsigned level = lowest_bit(levels);
		uint64_t slot = wheel->tick >> shift_of(level);
		unsigned distance = distance_to_occupied(wheel, level, slot);

		if (distance < WF_WHEEL_SLOTS)
			index = index_of(level, slot + distance);
	}
	return WF_CONTAINER_OF(wheel->lists[index].head.next, struct wf_timer, link);
}

void wf_wheel_init(struct wf_wheel *wheel, int64_t now_ns)
{
	WF_ASSERT(now_ns >= 0 && now_ns < WF_WHEEL_END_NS);
	memset(wheel, 0, sizeof *wheel);
	wheel->now_ns = now_ns;
	wheel->tick = (uint64_t)now_ns >> WF_TICK_SHIFT;
	wheel->work_tick = wheel->next_tick = UINT64_MAX;
	wheel->levels = 1;
	wheel->moves_max = WF_WHEEL_MOVES_FORCED;
	for (unsigned i = 0; i < WF_WHEEL_LISTS; i++) {
		struct wf_wheel_list *list = &wheel->lists[i];

		list->head.next = list->head.prev = &list->head;
		list->earliest_tick = UINT64_MAX;
	}
}

/* --- checking --- */

/* What the walk over one list has to agree with. */
struct check {
	const struct wf_wheel *wheel;
	FILE *out;
	uint64_t count;
};

WF_PRINTF(2, 3) static bool wrong(FILE *out, const char *format, ...)
{
	va_list arguments;

	fputs("wheel: ", out);
	va_start(arguments, format);
	vfprintf(out, format, arguments);
	va_end(arguments);
	fputc('\n', out);
	return false;
}

/* I1, I2, I3 for one timer of a list. */
static bool timer_valid(const struct check *check, const struct wf_timer *timer, unsigned index)
{
	const struct wf_wheel *wheel = check->wheel;
	uint64_t tick = timer->filed >> WF_WHEEL_INDEX_BITS;
	unsigned filed = timer->filed % (1u << WF_WHEEL_INDEX_BITS);
	unsigned shift = shift_of(index / WF_WHEEL_SLOTS);

	if (index == WF_WHEEL_DUE) {
		if ((filed >= WF_WHEEL_SLOTS && filed != WF_WHEEL_DUE) || tick > wheel->tick)
			return wrong(check->out,
				"due at %" PRIu64 ", filed in list %u for tick %" PRIu64,
				wheel->tick, filed, tick);
		return true;
	}
	if (filed != index)
		return wrong(check->out, "a timer of list %u is in list %u", filed, index);
	if (wf_wheel_tick_of(timer->deadline_ns) < tick)
		return wrong(check->out,
			"deadline %" PRId64 " ns is filed for the later tick %" PRIu64,
			timer->deadline_ns, tick);
	if (index == WF_WHEEL_NEVER)
		return true;
	if (index_of(index / WF_WHEEL_SLOTS, tick >> shift) != index)
		return wrong(check->out, "tick %" PRIu64 " is in list %u", tick, index);
	if (tick <= wheel->tick && index < WF_WHEEL_SLOTS)
		return wrong(check->out, "tick %" PRIu64 " is past and not due", tick);
	if ((tick >> shift) - (wheel->tick >> shift) >= WF_WHEEL_SLOTS)
		return wrong(
			check->out, "tick %" PRIu64 " is out of reach of list %u", tick, index);
	if (index >= WF_WHEEL_SLOTS && tick < wheel->lists[index].earliest_tick)
		return wrong(check->out, "tick %" PRIu64 " is before the earliest of list %u", tick,
			index);
	if (tick < wheel->next_tick && !wheel->next_stale)
		return wrong(check->out, "tick %" PRIu64 " is before the next, %" PRIu64, tick,
			wheel->next_tick);
	return true;
}

static bool list_valid(struct check *check, unsigned index)
{
	const struct wf_wheel_list *list = &check->wheel->lists[index];
	const struct wf_timer_link *link, *prev = &list->head;
	uint64_t count = 0;

	for (link = list->head.next; link != &list->head; prev = link, link = link->next) {
		if (!link || link->prev != prev)
			return wrong(check->out, "list %u is broken after %" PRIu64, index, count);
		if (!timer_valid(check, (const struct wf_timer *)(const void *)link, index))
			return false;
		count++;
	}
	if (list->head.prev != prev || list->count != count)
		return wrong(check->out, "list %u has %" PRIu64 " timers, not %" PRIu64, index,
			count, list->count);
	if (is_occupied(check->wheel, index) != (count > 0))
		return wrong(
			check->out, "list %u has %" PRIu64 " timers and a wrong bit", index, count);
	if (count == 0 && list->earliest_tick != UINT64_MAX)
		return wrong(check->out, "list %u is empty and has an earliest tick", index);
	check->count += count;
	return true;
}

bool wf_wheel_valid(const struct wf_wheel *wheel, FILE *out)
{
	struct check check = {.wheel = wheel, .out = out};

	for (unsigned i = 0; i < WF_WHEEL_LISTS; i++) {
		if (!list_valid(&check, i))
			return false;
	}
	for (unsigned level = 0; level < WF_WHEEL_LEVELS; level++) {
		bool any = (wheel->occupied[2 * level] | wheel->occupied[2 * level + 1]) != 0;

		if (any && (wheel->levels >> level & 1) == 0)
			return wrong(out, "level %u has timers and no bit", level);
	}
	if (check.count != wheel->count)
		return wrong(
			out, "%" PRIu64 " timers, counted as %" PRIu64, check.count, wheel->count);
	if (wheel->tick > (uint64_t)wheel->now_ns >> WF_TICK_SHIFT)
		return wrong(out, "tick %" PRIu64 " is ahead of time", wheel->tick);
	if (wheel->work_tick > next_work(wheel))
		return wrong(out, "work is put off to tick %" PRIu64, wheel->work_tick);
	return true;
}
