/*
 * invariants.c: what must hold at any time in a simulation of the whole runtime, whatever the
 * scenario: looked at before every SIM_LOOK_STEPS-th operation, when the scheduler tells something
 * (sync/observe.h), at each operation on a header, and when a runtime ends. Nothing here is an
 * operation, so schedules are the same with it and without.
 *
 * Places. A process that is to run (NEW, QUEUED; movable, and it has yielded) is in exactly one
 * place: a ring, the children of scopes, a list of its class or of those who yielded, a slot of a
 * worker, the injector, an inbox (to be started there). Any other is in none. One that runs is its
 * worker's current one, a fiber on its own stack, a task on its worker's. What makes this hard is
 * that moving takes several operations. A process on its way from one place to the next is in
 * somebody's HANDS: in a local variable of a function that has not returned, so its address lies on
 * the stack of a thread, or in the registers saved there. So "in no place" is an error only if no
 * thread's stack has its address. As with garbage collectors that look at stacks, a leftover may
 * hide an error for a while, and never makes one.
 * Places are seen as their owner sees them: with the stores that still wait in its buffer.
 *
 * Runs. A process is begun once. It goes on for a reason that has come up since the last time it
 * was made to run: it yielded, or a wake. A wake whose call was over by then was served by that
 * run. No two threads are on one stack, and no two workers set out to run one process.
 *
 * Time. That no timer is early the scenarios look at. Late, it comes in the turn after it fell due:
 * of what had fallen due when a worker flushed its driver, which it does before it expires timers,
 * nothing is armed when it flushes again, or goes to sleep; in between it polls a bounded number of
 * times. And no sleep is asked for that ends after the tick of a deadline. So a timer is late by
 * its tick, what is left of a turn, and one more turn; and by as long as the engine keeps its
 * worker from running, or asleep. Not the wheel is asked, but the headers. Of a worker's shard of
 * the shared wheel the same holds in turns in which nobody fires any; and the leader sleeps no
 * longer than it has told the others.
 *
 * Headers. Once its word says free a header is RETIRED, then PAST its grace period, TAKEN, and in
 * USE. It is not taken before it is past, nor while an inbox has it. PAST it is nobody's, so only
 * this may happen to it: its word is read (old ids lead to it); the table reads `remote` and uses
 * `joiner` as its link; the inbox that has it lets go of it; a claim fails, since the wait it names
 * is over. And outside a read section nobody touches a header but the table and who makes a process
 * of it. Plain fields cannot be looked at.
 *
 * Moves. A word changes its phase only as the table in core/proc.c allows.
 *
 * The end. Created = completed, nobody is alive, parked or owed a token, queues and wheels are
 * empty, as many searchers are counted as there are, all stacks have come back.
 */
#include "test/sim/invariants.h"

#include <string.h>

#include "core/inbox.h"
#include "core/runtime.h"
#include "sync/observe.h"

enum {
	RUNTIMES = SIM_THREADS_MAX / 2, /* each has a worker and a reclaimer */
	HEADERS = WF_SEGMENTS_MAX * WF_SEGMENT_SLOTS,
	QUEUED_MAX = 1000,
	STACK_DISTANCE = 8192, /* less than between two fibers' frames, more than one has */
	OVERDUE_POLLS_MAX = WF_BUDGET + 4,
};

static_assert(HEADERS <= 64, "a bit for each header");

enum life { FRESH, USED, RETIRED, PAST, TAKEN };

/* What is known of a header beside what it says itself. */
struct shadow {
	enum life life;
	uint32_t generation; /* of the process that was begun last */
	bool begun;
	bool inside; /* a worker is about to run it, or does */
	bool due;    /* there is a reason to run it */
};

struct known {
	struct weft_rt *rt; /* NULL: none */
	struct wf_proc *segments[WF_SEGMENTS_MAX];
	uintptr_t low, bytes; /* what they lie in */
	struct shadow shadows[HEADERS];
};

/* Of a worker, by its thread. */
struct turn {
	weft_time flushed_at; /* its time then; 0: never */
	uint64_t batches; /* that its shard had started by then */
	unsigned overdue_polls;
};

static struct known known[RUNTIMES];
static struct turn turns[SIM_THREADS_MAX];
static const struct wf_proc *waking[SIM_THREADS_MAX]; /* whom a thread woke last */

/* --- headers --- */

static void include(struct known *k, uintptr_t segment)
{
	uintptr_t high = segment + WF_SEGMENT_SLOTS * sizeof(struct wf_proc);

	if (k->bytes != 0 && k->low + k->bytes > high)
		high = k->low + k->bytes;
	if (k->bytes == 0 || segment < k->low)
		k->low = segment;
	k->bytes = high - k->low;
}

/* Segments that have been made since the last time. */
static void adopt(struct known *k)
{
	uint64_t fresh = sim_peek_atomic(&k->rt->table.fresh);

	for (unsigned n = 0; n * WF_SEGMENT_SLOTS < fresh; n++) {
		struct wf_proc *segment =
			(struct wf_proc *)(uintptr_t)sim_peek_atomic(&k->rt->table.segments[n]);

		if (k->segments[n] != NULL)
			continue;
		k->segments[n] = segment;
		include(k, (uintptr_t)segment);
		sim_watch_memory(segment, WF_SEGMENT_SLOTS * sizeof(*segment));
	}
}

/* The runtime in a slot of the registry. False: there is none. */
static bool find_runtime(unsigned slot)
{
	struct weft_rt *rt = sim_registry_runtime(slot);

	if (rt == NULL)
		return false;
	if (known[slot].rt != rt) {
		memset(&known[slot], 0, sizeof(known[slot]));
		known[slot].rt = rt;
	}
	adopt(&known[slot]);
	return true;
}

/* The index of the header that an address lies in; -1: none of this runtime's. */
WF_INLINE int index_of(const struct known *k, const void *address)
{
	if (WF_LIKELY((uintptr_t)address - k->low >= k->bytes))
		return -1;
	for (unsigned n = 0; n < WF_SEGMENTS_MAX; n++) {
		uintptr_t offset = (uintptr_t)address - (uintptr_t)k->segments[n];

		if (k->segments[n] != NULL && offset < WF_SEGMENT_SLOTS * sizeof(struct wf_proc))
			return (int)(n * WF_SEGMENT_SLOTS + offset / sizeof(struct wf_proc));
	}
	return -1;
}

static struct wf_proc *header_at(const struct known *k, unsigned index)
{
	struct wf_proc *segment = k->segments[index / WF_SEGMENT_SLOTS];

	return segment != NULL ? &segment[index % WF_SEGMENT_SLOTS] : NULL;
}

static struct shadow *shadow_known(const void *address)
{
	for (unsigned i = 0; i < RUNTIMES; i++) {
		int index = known[i].rt != NULL ? index_of(&known[i], address) : -1;

		if (index >= 0)
			return &known[i].shadows[index];
	}
	return NULL;
}

static struct shadow *shadow_of(const struct wf_proc *p)
{
	struct shadow *shadow = shadow_known(p);

	if (shadow == NULL) {
		for (unsigned i = 0; i < RUNTIMES; i++)
			(void)find_runtime(i);
		shadow = shadow_known(p);
	}
	sim_check(shadow != NULL, "what is no process of a runtime is run or woken");
	return shadow;
}

static bool is_one_of(const char *function, const char *const names[])
{
	for (; *names != NULL; names++)
		if (strcmp(function, *names) == 0)
			return true;
	return false;
}

static uint64_t word_of(const struct wf_proc *p)
{
	return sim_peek_atomic(&p->word);
}

/* The phase, of a sticky process too. */
static enum wf_phase phase_of(const struct wf_proc *p, uint64_t word)
{
	enum wf_phase phase = wf_word_phase(word);

	return phase == WF_OWNED ? (enum wf_phase)p->live.run : phase;
}

/* --- places --- */

struct places {
	const struct known *known;
	uint8_t count[HEADERS];
	const char *first[HEADERS], *last[HEADERS]; /* their names */
	const struct wf_worker *worker[HEADERS];    /* whose; NULL: anybody's */
	bool searched;
	uint64_t held; /* in hands */
};

static struct sim_stack stacks[SIM_THREADS_MAX];
static unsigned stack_count;
static bool left_out;

static void put(struct places *places, const struct wf_node *node, const struct wf_worker *worker,
	const char *name)
{
	int i = index_of(places->known, node);

	sim_check(i >= 0, "what is no process is in a queue: %s", name);
	if (places->count[i]++ == 0)
		places->first[i] = name;
	places->last[i] = name;
	places->worker[i] = worker;
}

static void put_proc(struct places *places, const struct wf_proc *p,
	const struct wf_worker *worker, const char *name)
{
	if (p != NULL)
		put(places, &p->run, worker, name);
}

/* A list from `node` to `last`; NULL: to its end. */
static void put_list(struct places *places, const struct wf_node *node, const struct wf_node *last,
	const struct wf_worker *worker, const char *name)
{
	unsigned count = 0;

	for (; node != NULL; node = node == last ? NULL : node->next) {
		sim_check(++count < QUEUED_MAX, "a queue without end: %s", name);
		put(places, node, worker, name);
	}
}

static void put_deque(struct places *places, struct wf_deque *deque, const char *name)
{
	uint64_t top = sim_peek_atomic(&deque->top);
	uint64_t bottom = sim_peek_atomic(&deque->bottom);

	for (; (int64_t)(bottom - top) > 0; top++) {
		uint64_t item = sim_peek_atomic(wf_deque_slot(deque, top));

		put_proc(places, (const struct wf_proc *)(uintptr_t)item, NULL, name);
	}
}

static const struct wf_node *top_of(const struct wf_injector *injector)
{
	return wf_injector_top(sim_peek_atomic(&injector->head));
}

static void put_starts(struct places *places, const struct wf_node *node,
	const struct wf_worker *worker, const char *name)
{
	if (node->number == WF_MESSAGE_START)
		put(places, node, worker, name);
}

static void put_worker(struct places *places, struct wf_worker *worker)
{
	put_proc(places, worker->run_next, worker, "the next slot");
	put_proc(places, worker->picked, worker, "the picked slot");
	put_list(places, worker->list.first, NULL, worker, "a list");
	put_list(places, worker->high.first, NULL, worker, "a list of high ones");
	put_list(places, worker->low.first, NULL, worker, "a list of low ones");
	put_list(places, worker->yielded.first, NULL, worker, "those who yielded");
	put_list(places, worker->yielded_class.first, NULL, worker, "of a class, who yielded");
	put_list(places, worker->yielded_movable.first, NULL, worker, "movable who yielded");
	put_deque(places, &worker->ring, "a ring");
	put_deque(places, &worker->children, "a queue of children");
	for (const struct wf_node *node = top_of(&worker->inbox); node; node = node->batch_next)
		put_starts(places, node, worker, "an inbox");
	for (const struct wf_node *node = worker->inbox_rest.first; node; node = node->next)
		put_starts(places, node, worker, "what is left of an inbox");
}

/* --- hands --- */

WF_INLINE void hold(struct places *places, uintptr_t address)
{
	int i = index_of(places->known, (const void *)address);

	if (i >= 0)
		places->held |= (uint64_t)1 << i;
}

/* While an index of a ring has been moved and an item not yet read, the slots are hands too. */
static void hold_slots(struct places *places, struct wf_worker *worker)
{
	static const char *const functions[] = {
		"wf_deque_pop_oldest", "wf_deque_pop_newest", "wf_deque_overflow",
		"wf_deque_count_overflow", NULL};
	const char *function = sim_thread_function((unsigned)worker->thread);

	if (!worker->thread_started || function == NULL)
		return;
	if (!is_one_of(function, functions))
		return;
	for (unsigned i = 0; i < WF_RING_SIZE; i++) {
		hold(places, (uintptr_t)sim_peek_atomic(&worker->ring.ring[i]));
		hold(places, (uintptr_t)sim_peek_atomic(&worker->children.ring[i]));
	}
}

/* A chain is held by its first: all that can be reached is. */
static void hold_linked(struct places *places)
{
	uint64_t left = places->held;

	while (left != 0) {
		const struct wf_proc *p =
			header_at(places->known, (unsigned)__builtin_ctzll(left));
		uint64_t before = places->held;

		left &= left - 1;
		hold(places, (uintptr_t)p->run.next);
		hold(places, (uintptr_t)p->run.batch_next);
		left |= places->held & ~before;
	}
}

static void search_hands(struct places *places)
{
	const struct weft_rt *rt = places->known->rt;

	for (unsigned i = 0; i < stack_count; i++)
		for (const uintptr_t *at = stacks[i].low; at != stacks[i].high; at++)
			hold(places, *at);
	for (unsigned i = 0; i < rt->worker_count; i++) {
		hold_slots(places, &rt->workers[i]);
		hold(places, (uintptr_t)rt->workers[i].current);
	}
	hold_linked(places);
	places->searched = true;
}

static bool is_held(struct places *places, unsigned index)
{
	if (!places->searched)
		search_hands(places);
	return places->held >> index & 1;
}

/* --- exactly one place --- */

/* What says that a queue is worth a look says so while it is: of children, and of the classes. */
static void check_marks(const struct wf_worker *worker)
{
	sim_check(worker->classes || (wf_fifo_is_empty(&worker->high) &&
					     wf_fifo_is_empty(&worker->low)),
		"a class has something to run, and nobody looks");
	sim_check(worker->has_children ||
			  (int64_t)(sim_peek_atomic(&worker->children.bottom) -
				  sim_peek_atomic(&worker->children.top)) <= 0,
		"there are children, and nobody looks");
}

static void check_header(struct places *places, unsigned i)
{
	const struct wf_proc *p = header_at(places->known, i);
	uint64_t word = word_of(p);
	enum wf_phase phase = phase_of(p, word);
	const struct wf_worker *owner = &places->known->rt->workers[wf_word_owner(word)];
	bool sticky = wf_word_phase(word) == WF_OWNED;
	bool runs = phase == WF_RUNNING || phase == WF_NOTIFIED;
	const struct shadow *shadow = &places->known->shadows[i];
	uint32_t generation = wf_word_generation(word);
	bool yielded = runs && !sticky && !shadow->inside;

	sim_check(places->count[i] <= 1, "process %u is in two places: %s, %s", i,
		places->first[i], places->last[i]);
	/* A movable task's word is NEW, or RUNNING, wherever it is: that does not tell. */
	sim_check(places->count[i] == 0 || !shadow->inside || shadow->generation != generation,
		"process %u runs, and is in %s", i, places->first[i]);
	if (phase == WF_NEW || phase == WF_QUEUED || yielded) {
		sim_check(places->count[i] == 1 || is_held(places, i),
			"process %u is to run, and in no place: %s", i, wf_phase_name(phase));
		sim_check(!sticky || places->count[i] == 0 || places->worker[i] == owner,
			"sticky process %u is in a place that is not its worker's: %s", i,
			places->first[i]);
		return;
	}
	sim_check(places->count[i] == 0, "process %u is not to run, but in %s: %s", i,
		places->first[i], wf_phase_name(phase));
	if (runs)
		sim_check(owner->current == p || is_held(places, i),
			"process %u runs, but not on its worker", i);
}

static void check_places(const struct known *k)
{
	uint32_t fresh = (uint32_t)sim_peek_atomic(&k->rt->table.fresh);
	struct places places;

	places.known = k;
	places.searched = false;
	places.held = 0;
	memset(places.count, 0, sizeof(places.count));
	for (unsigned i = 0; i < k->rt->worker_count; i++) {
		put_worker(&places, &k->rt->workers[i]);
		check_marks(&k->rt->workers[i]);
	}
	for (const struct wf_node *batch = top_of(&k->rt->injector); batch;
		batch = batch->batch_next)
		put_list(&places, batch, batch->batch_tail, NULL, "the injector");
	for (uint32_t i = 0; i < fresh; i++)
		check_header(&places, i);
}

/* No two threads on one stack. */
static void check_stacks(void)
{
	stack_count = sim_thread_stacks(stacks);
	for (unsigned i = 0; i < stack_count; i++)
		for (unsigned j = 0; j < i; j++)
			sim_check((uintptr_t)stacks[i].low - (uintptr_t)stacks[j].low +
						  STACK_DISTANCE > 2 * STACK_DISTANCE,
				"two threads on one stack");
}

static void look(void)
{
	check_stacks();
	for (unsigned i = 0; i < RUNTIMES; i++)
		if (find_runtime(i))
			check_places(&known[i]);
}

/* --- runs --- */

static bool is_on_stack(const struct sim_stack *stack, const struct wf_proc *p)
{
	for (const uintptr_t *at = stack->low; at != stack->high; at++)
		if (*at - (uintptr_t)p < sizeof(*p))
			return true;
	return false;
}

/* Whether another thread's call that wakes it may not have returned: then p is in its hands. */
static bool is_being_woken(const struct wf_proc *p)
{
	struct sim_stack all[SIM_THREADS_MAX];
	unsigned count = sim_thread_stacks(all);

	for (unsigned i = 0; i < count; i++)
		if (waking[all[i].thread] == p && is_on_stack(&all[i], p))
			return true;
	return false;
}

/* Nobody is still on the stack that it goes on on. */
static void check_stack_is_free(const struct wf_proc *p)
{
	struct sim_stack all[SIM_THREADS_MAX];
	unsigned count = sim_thread_stacks(all);

	for (unsigned i = 0; i < count; i++)
		sim_check(all[i].thread == sim_thread_self() ||
				  (uintptr_t)p->live.fiber - (uintptr_t)all[i].low > STACK_DISTANCE,
			"two threads on one stack");
}

static void observe_run(struct shadow *shadow, const struct wf_proc *p)
{
	uint64_t word = word_of(p);
	uint32_t generation = wf_word_generation(word);

	if (wf_word_phase(word) == WF_NEW) {
		sim_check(!shadow->begun || shadow->generation != generation,
			"a process is begun twice");
		shadow->begun = true;
		shadow->generation = generation;
	} else {
		sim_check(shadow->begun && shadow->generation == generation,
			"a process goes on that was never begun");
		sim_check(!shadow->inside, "two workers run one process");
		sim_check(shadow->due, "a process runs, and nothing woke it");
		if (!(word & WF_WORD_TASK))
			check_stack_is_free(p);
	}
	shadow->inside = true;
	shadow->due = is_being_woken(p);
}

void wf_sim_observe(enum wf_observed what, const void *process)
{
	unsigned self = sim_thread_self();
	struct shadow *shadow;

	if (left_out)
		return;
	shadow = shadow_of(process);
	waking[self] = NULL;
	switch (what) {
	case WF_OBSERVED_runs:
		observe_run(shadow, process);
		break;
	case WF_OBSERVED_yields:
	case WF_OBSERVED_waits:
		sim_check(shadow->inside, "a process leaves twice");
		shadow->inside = false;
		if (what == WF_OBSERVED_yields)
			shadow->due = true;
		break;
	case WF_OBSERVED_woken:
		shadow->due = true;
		waking[self] = process;
		break;
	}
}

/* --- time --- */

/* When the wheel may fire it: the end of the deadline's tick. */
static weft_time due_of(const struct wf_proc *p)
{
	return (weft_time)(wf_wheel_tick_of(p->timer.deadline_ns) << WF_TICK_SHIFT);
}

typedef bool (*is_armed_fn)(const struct wf_proc *p, const struct wf_worker *worker);

static bool is_armed(const struct wf_proc *p, const struct wf_worker *worker)
{
	uint64_t word = word_of(p);

	return wf_word_phase(word) == WF_OWNED && wf_word_owner(word) == worker->number &&
	       p->live.armed && p->timer.deadline_ns < WF_WHEEL_END_NS;
}

/* On its shard of the shared wheel. */
static bool is_in_shard(const struct wf_proc *p, const struct wf_worker *worker)
{
	uint64_t word = word_of(p);

	return wf_word_phase(word) == WF_WAITING && (word & WF_WORD_ANCHORED) &&
	       wf_word_owner(word) == worker->number && wf_timer_is_pending(&p->timer) &&
	       p->timer.deadline_ns < WF_WHEEL_END_NS;
}

/* Of the timers armed on this worker; WEFT_FOREVER: none is. */
static weft_time earliest_of(const struct wf_worker *worker, is_armed_fn is_one)
{
	const struct known *k = &known[worker->rt->slot];
	weft_time earliest = WEFT_FOREVER;

	if (k->rt != worker->rt)
		return earliest; /* it has run nothing yet */
	for (unsigned i = 0; i < sim_peek_atomic(&k->rt->table.fresh); i++) {
		const struct wf_proc *p = header_at(k, i);

		if (p != NULL && is_one(p, worker) && due_of(p) < earliest)
			earliest = due_of(p);
	}
	return earliest;
}

static weft_time earliest_due(const struct wf_worker *worker)
{
	return earliest_of(worker, is_armed);
}

static void check_fired(const struct wf_worker *worker)
{
	sim_check(earliest_due(worker) > turns[sim_thread_self()].flushed_at,
		"a timer was due in the last turn, and is still armed");
}

/* Unless it, or somebody else, was at it: then that one looks again. */
static void check_shard_fired(const struct wf_worker *worker)
{
	const struct wf_shared_shard *shard = &worker->rt->timers.shards[worker->number];
	struct turn *turn = &turns[sim_thread_self()];
	bool busy = shard->expiring || sim_peek_atomic(&shard->lock.word) != 0;

	sim_check(busy || shard->started != turn->batches ||
			  earliest_of(worker, is_in_shard) > turn->flushed_at,
		"a timer of its shard was due in the last turn, and is still there");
	turn->batches = busy ? UINT64_MAX : shard->started;
}

void sim_invariants_flush(void)
{
	const struct wf_worker *worker = wf_worker_self();
	struct turn *turn = &turns[sim_thread_self()];

	check_fired(worker);
	check_shard_fired(worker);
	turn->flushed_at = worker->now;
	turn->overdue_polls = 0;
}

void sim_invariants_poll(void)
{
	const struct wf_worker *worker = wf_worker_self();
	struct turn *turn = &turns[sim_thread_self()];

	if (earliest_due(worker) <= worker->now)
		sim_check(++turn->overdue_polls <= OVERDUE_POLLS_MAX,
			"a timer is due, and its worker polls on");
}

void sim_invariants_sleep(weft_time deadline)
{
	const struct wf_worker *worker = wf_worker_self();

	check_fired(worker);
	/* By virtual time nobody sleeps until one: who finds all at rest wakes them. */
	sim_check(worker->rt->virtual.on || deadline <= earliest_due(worker),
		"a sleep over a deadline: %lld ns",
		(long long)(deadline - earliest_due(worker)));
	sim_check(!worker->leads || deadline <= worker->leads_until,
		"a sleep over a deadline: longer than the leader has said");
}

/* --- headers --- */

/* Of those who make a process, and the table's: they have the header to themselves. */
static bool needs_no_section(const struct sim_touch *touch)
{
	static const char *const functions[] = {"make_segment", "shared_pop", "shared_push",
		"take", "free_word", "make_ext", "publish", "wf_table_retire", "wf_table_close",
		NULL};

	return is_one_of(touch->function, functions);
}

/* The first store to a header that the table has handed out. */
static bool takes_header(const struct sim_touch *touch, const struct wf_proc *p)
{
	static const char *const functions[] = {"take", "spawn_child", "spawn_plain", NULL};

	return touch->access == SIM_STORES && touch->address != &p->word &&
	       is_one_of(touch->function, functions);
}

/* What may happen to a header past its grace period. */
static bool is_harmless(const struct sim_touch *touch, const struct wf_proc *p)
{
	if (touch->address == &p->word)
		return touch->access == SIM_LOADS;
	if (touch->address == &p->remote) {
		if (touch->access == SIM_CHANGES)
			return strcmp(touch->function, "wf_proc_drained") == 0 &&
			       (touch->before & WF_REMOTE_PLACE) != WF_REMOTE_NONE;
		return touch->access == SIM_LOADS &&
		       strcmp(touch->function, "wf_table_is_unlinked") == 0;
	}
	if (touch->address == &p->claim)
		return touch->access == SIM_LOADS &&
		       (strcmp(touch->function, "wf_join_tell") == 0 ||
			       strcmp(touch->function, "is_left_behind") == 0);
	return (touch->access == SIM_LOADS && strcmp(touch->function, "shared_pop") == 0) ||
	       (touch->access == SIM_STORES && strcmp(touch->function, "shared_push") == 0);
}

static void touch_taken(
	const struct sim_touch *touch, struct shadow *shadow, const struct wf_proc *p)
{
	if (touch->address == &p->remote)
		sim_check((sim_peek_atomic(&p->remote) & WF_REMOTE_PLACE) == WF_REMOTE_NONE,
			"a header is used again while an inbox has it");
	sim_check(shadow->life != RETIRED, "a header is used again without a grace period");
	sim_check(shadow->life != USED, "a header is used that is in use");
	shadow->life = TAKEN;
}

/* A plain store to the word begins a process, or is the table's. */
static void check_move(const struct sim_touch *touch)
{
	enum wf_phase from = wf_word_phase(touch->before), to = wf_word_phase(touch->after);

	if (touch->access != SIM_CHANGES || from == to)
		return;
	sim_check(wf_phase_move_ok(from, to), "a process goes from %s to %s: %s",
		wf_phase_name(from), wf_phase_name(to), touch->function);
}

static void touch_header(const struct sim_touch *touch)
{
	struct shadow *shadow = shadow_known(touch->address);
	/* Two lines each, and segments begin with one. */
	const struct wf_proc *p = (const void *)((uintptr_t)touch->address & -sizeof(*p));

	if (shadow == NULL)
		return;
	sim_check(sim_rcu_is_online(sim_thread_self()) || needs_no_section(touch),
		"a header is touched outside a read section: %s", touch->function);
	if (takes_header(touch, p)) {
		touch_taken(touch, shadow, p);
		return;
	}
	sim_check(shadow->life != PAST || is_harmless(touch, p),
		"a header is touched after its grace period: %s", touch->function);
	if (touch->address != &p->word || touch->access == SIM_LOADS)
		return;
	check_move(touch);
	sim_check(wf_word_phase(touch->after) != WF_DONE || !p->live.armed,
		"a process has ended, and its timer is on the wheel");
	if (wf_word_phase(touch->after) == WF_FREE)
		shadow->life = RETIRED;
	else if (shadow->life != RETIRED || touch->access == SIM_STORES)
		shadow->life = USED; /* else the last word, a store, is still on its way */
}

void sim_invariants_grace_over(struct wf_rcu_batch *rcu)
{
	struct wf_retire_batch *batch = WF_CONTAINER_OF(rcu, struct wf_retire_batch, rcu);

	for (unsigned i = 0; i < batch->count && !left_out; i++) {
		struct shadow *shadow = shadow_of(batch->procs[i]);

		sim_check(shadow->life == RETIRED || shadow->life == FRESH,
			"a header goes through a grace period that was not retired");
		shadow->life = PAST;
	}
}

/* --- the end --- */

static size_t length_of(const struct wf_stack *stack)
{
	size_t count = 0;

	for (; stack != NULL; stack = stack->next)
		count++;
	return count;
}

static void check_stacks_are_back(struct weft_rt *rt)
{
	struct wf_stack_stats stats;
	size_t idle = 0;

	wf_stack_depot_stats(rt->depot, &stats);
	for (unsigned i = 0; i < rt->worker_count; i++)
		for (unsigned j = 0; j <= WF_STACK_CLASSES; j++) {
			const struct wf_stack_rack *rack = &rt->workers[i].stacks.rack[j];

			idle += length_of(rack->idle) + length_of(rack->reserve);
		}
	sim_check(stats.opened == stats.idle + idle, "%zu stacks of %zu have not come back",
		stats.opened - stats.idle - idle, stats.opened);
}

static void check_worker_is_empty(struct wf_worker *worker)
{
	sim_check(!worker->current && !worker->picked && !worker->run_next &&
			  wf_fifo_is_empty(&worker->list) && !worker->classes &&
			  wf_fifo_is_empty(&worker->high) &&
			  wf_fifo_is_empty(&worker->low) &&
			  wf_fifo_is_empty(&worker->yielded) &&
			  wf_fifo_is_empty(&worker->yielded_class) &&
			  wf_fifo_is_empty(&worker->yielded_movable) &&
			  wf_deque_is_empty(&worker->ring) &&
			  wf_deque_is_empty(&worker->children),
		"a worker has ended and had something to run");
	sim_check(wf_wheel_count(&worker->wheel) == 0, "a worker has ended, and timers are left");
	sim_check(wf_u32_load_relaxed(&worker->token) == WF_TOKEN_NONE,
		"a worker has ended and was owed a token");
}

static void check_counts(struct weft_rt *rt)
{
	uint64_t foreign = wf_u64_load_relaxed(&rt->foreign);
	uint64_t created = foreign >> 16;
	uint64_t completed = wf_u64_load_relaxed(&rt->foreign_completed);
	unsigned searching = 0;

	for (unsigned i = 0; i < rt->worker_count; i++) {
		created += wf_u64_load_relaxed(&rt->workers[i].created);
		completed += wf_u64_load_relaxed(&rt->workers[i].completed);
		searching += rt->workers[i].searching;
		check_worker_is_empty(&rt->workers[i]);
	}
	sim_check(created == completed, "%llu were created, %llu have ended",
		(unsigned long long)created, (unsigned long long)completed);
	sim_check((foreign & 0xffff) == 0, "a foreign call has not ended");
	sim_check(wf_idle_parked_mask(&rt->idle) == 0, "a worker has ended and is parked");
	sim_check(wf_idle_searcher_count(&rt->idle) == searching, "%u searchers, and %u search",
		wf_idle_searcher_count(&rt->idle), searching);
	sim_check(wf_injector_is_empty(&rt->injector), "the injector is not empty");
	for (unsigned i = 0; i < WF_FOREIGN_JOINERS_MAX; i++)
		sim_check(wf_u32_load_relaxed(&rt->joiners[i].state) == 0,
			"a foreign thread still joins");
}

static void check_end(void *arg)
{
	struct known *k = arg;

	check_counts(k->rt);
	for (unsigned i = 0; i < HEADERS; i++) {
		const struct wf_proc *p = header_at(k, i);
		enum wf_phase phase = p != NULL ? wf_word_phase(word_of(p)) : WF_FREE;

		sim_check(phase == WF_FREE || phase == WF_DONE, "process %u is left: %s", i,
			wf_phase_name(phase));
	}
	check_stacks_are_back(k->rt);
}

void sim_invariants_end(const struct wf_rcu_domain *domain)
{
	for (unsigned i = 0; i < RUNTIMES; i++) {
		if (known[i].rt == NULL || known[i].rt->rcu != domain)
			continue;
		sim_aside(check_end, &known[i]);
		known[i].rt = NULL;
	}
}

void sim_invariants_begin(void)
{
	static const struct sim_watcher watcher = {look, touch_header};

	memset(known, 0, sizeof(known));
	memset(turns, 0, sizeof(turns));
	memset(waking, 0, sizeof(waking));
	left_out = false;
	sim_watch(&watcher);
}

void sim_invariants_leave_out(void)
{
	left_out = true;
	sim_watch(NULL);
}
