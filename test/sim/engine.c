/*
 * engine.c: runs one schedule of a scenario: virtual threads, store buffers, decisions, sleeps.
 *
 * A virtual thread is a context (core/switch.h) on a static stack. It runs plainly until its next
 * atomic operation; there it asks pick() who goes on, and either does its operation, or switches to
 * the other thread. So the engine has no loop of its own, and a schedule costs a few nanoseconds
 * per operation and per switch. A schedule starts and ends on the DIRECTOR, one more context, which
 * sets up, checks, and is asked when nobody can go on; sim_fail() leaves for the caller's own stack
 * from wherever it is called.
 *
 * Decisions. The entities that can go on are bits of one word (engine.h). A strategy chooses:
 *
 *   random walk   any of them, alike; or goes on with the thread, with a likelihood drawn per seed.
 *   PCT           the one with the highest priority; priorities are drawn per seed, and at a few
 *                 drawn steps the highest becomes the lowest (Burckhardt et al., ASPLOS 2010).
 *                 Store buffers have priorities like threads, so "this store stays out of sight for
 *                 long" is one decision.
 *   round robin   some operations each, in turn.
 *   listed        the thread goes on, but for the preemptions listed: for shrinking.
 *
 * A thread that pauses is left out until memory changes: a spinning thread reads the same again. If
 * nobody else can go on all pausing threads try again, a bounded number of times. A thread that has
 * run long while others could is passed over once, and the strongest of PCT becomes the weakest now
 * and then also when several take turns: schedules are fair in the end.
 *
 * Everything is static and everything counts from the seed: the same seed gives the same schedule
 * in every process that runs this binary, which the hash over all operations shows.
 */
#include "test/sim/engine.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include "core/switch.h"

enum {
	STACK_BYTES = 64 << 10,
	GUARD_BYTES = 4096,
	BUFFER_STORES = 8,
	TRACE_OPERATIONS = 256, /* of all threads */
	TRACE_SHOWN = 60,
	TRACE_SHOWN_PER_THREAD = 12,
	IDLE_ROUNDS_MAX = 2000,
	IN_A_ROW_MAX = 500,
	FAIR_STEPS = 2000,
	ARENA_BYTES = 16 << 20,
	GRAIN_BYTES = 64, /* what is freed, or watched, is known by */
	SAVED_BYTES = 64,   /* registers, below a frame's address */
	FIBER_BYTES = 4096, /* what a fiber may have on its stack; less than between two of them */
	STEP_NS = 100,
	NOBODY = SIM_THREADS_MAX,
};

enum operation {
	LOAD,
	STORE,
	STORE_SEEN, /* leaves the buffer */
	READ_MODIFY_WRITE,
	COMPARE_AND_SWAP,
	FENCE,
	PAUSE,
	SLEEP,
	SLEEP_ENDS,
	WAKE,
	CALL,
	END,
};

static const char *const operation_texts[] = {"load", "store", "  seen", "rmw", "cas", "fence",
	"pause", "sleep", "  awake", "wake", "call", "end"};

/* What is known of a grain. */
enum mark { PLAIN, FREED, WATCHED };

struct store {
	void *address;
	uint64_t value;
	unsigned bytes;
};

struct thread {
	void *sp;
	struct store buffer[BUFFER_STORES];
	unsigned first, count;
	uint32_t points;  /* operations so far */
	const char *function; /* whose operation it stands before */
	uint64_t random;  /* for sim_random() */
	const void *key;  /* sleeps on it */
	int64_t deadline; /* of the sleep */
	bool timed_out;
	void (*fn)(void *arg); /* NULL: the scenario's */
	void *arg;
};

struct traced {
	uint32_t step;
	uint8_t thread, operation;
	int line;
	const char *function;
	const void *address;
	uint64_t before, after;
};

static struct {
	WF_ALIGNED(64) uint64_t runnable; /* threads, but for those that pause */
	uint64_t paused, buffered, timed;
	unsigned self; /* the running thread; NOBODY: the director */
	uint32_t steps, steps_max;
	enum sim_strategy strategy;
	uint64_t random;
	uint64_t hash;
	int64_t now;
	bool traced;
	const struct sim_plan *plan;
	const struct sim_scenario *scenario;
	struct thread threads[SIM_THREADS_MAX + 1]; /* the last: what the director does */
	unsigned thread_count;
	uint64_t asleep, ended;
	unsigned idle_rounds;
	/* round robin */
	unsigned turn_left;
	/* PCT */
	int32_t priority[SIM_ENTITIES];
	int32_t lowest;
	unsigned next_change;
	uint32_t next_fair; /* the step at which the strongest has been it for long */
	/* listed and recorded */
	unsigned turn;
	struct sim_recording *recording;
	unsigned in_a_row; /* operations of this thread */
	size_t arena_used, arena_live;
	const struct sim_watcher *watcher; /* or NULL */
	unsigned look_left;
	const char *self_low; /* while it looks: where the running thread's stack ends */
	bool aside;
	void *director_sp, *caller_sp;
	struct sim_outcome *outcome;
	uint32_t trace_count;
	struct traced trace[TRACE_OPERATIONS];
} sim;

static WF_ALIGNED(GUARD_BYTES) char stacks[SIM_THREADS_MAX + 1][GUARD_BYTES + STACK_BYTES];

static WF_ALIGNED(GUARD_BYTES) char arena[ARENA_BYTES];
static uint8_t marks[ARENA_BYTES / GRAIN_BYTES]; /* enum mark */

enum wf_planted wf_planted;
uint64_t sim_buffered_addresses;

/* splitmix64 */
uint64_t sim_mix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

WF_INLINE uint64_t bit(unsigned entity)
{
	return (uint64_t)1 << entity;
}

/* --- ending a schedule --- */

_Noreturn static void leave(void)
{
	wf_context_exit(sim.caller_sp, NULL);
	__builtin_unreachable();
}

_Noreturn static void fail_with(const char *format, va_list args)
{
	sim.outcome->failed = true;
	vsnprintf(sim.outcome->message, sizeof(sim.outcome->message), format, args);
	leave();
}

void sim_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail_with(format, args);
}

void wf_sim_check_failed(const char *condition, const char *file, int line, const char *function)
{
	if (sim.scenario == NULL) {
		fprintf(stderr, "weft: %s:%d: %s: check failed: %s\n", file, line, function,
			condition);
		abort();
	}
	sim_fail("%s:%d: %s: check failed: %s", file, line, function, condition);
}

/* --- the trace and the hash --- */

/* Addresses count from this file's data: those of a program differ from process to process. */
WF_INLINE uint64_t stable(uint64_t value)
{
	uint64_t offset = value - (uint64_t)(uintptr_t)&sim;

	return offset + ((uint64_t)1 << 31) < (uint64_t)1 << 32 ? offset : value;
}

static void trace(enum operation operation, unsigned thread, const char *function, int line,
	const void *address, uint64_t before, uint64_t after)
{
	if (thread == NOBODY)
		return; /* setting up and checking are no part of the story */
	sim.trace[sim.trace_count++ % TRACE_OPERATIONS] = (struct traced){sim.steps,
		(uint8_t)thread, (uint8_t)operation, line, function, address, before, after};
}

WF_INLINE void note(enum operation operation, unsigned thread, const char *function, int line,
	const void *address, uint64_t before, uint64_t after)
{
	uint64_t what = operation | thread << 8 | (uint64_t)line << 16;

	sim.hash = (sim.hash ^ what) * 0x9e3779b97f4a7c15u;
	sim.hash = (sim.hash ^ stable(before)) * 0xbf58476d1ce4e5b9u;
	sim.hash = (sim.hash ^ stable(after) ^ sim.hash >> 32) * 0x94d049bb133111ebu;
	if (WF_UNLIKELY(sim.traced))
		trace(operation, thread, function, line, address, before, after);
}

static void print_operation(const struct traced *t)
{
	printf("    %6u  thread %u  %-7s %s", t->step, t->thread, operation_texts[t->operation],
		t->function);
	if (t->line > 0)
		printf(":%d", t->line);
	if (t->address != NULL)
		printf("  [%#llx]", (unsigned long long)stable((uint64_t)(uintptr_t)t->address));
	switch (t->operation) {
	case LOAD:
	case STORE:
	case STORE_SEEN:
		printf("  %#llx", (unsigned long long)stable(t->after));
		break;
	case READ_MODIFY_WRITE:
		printf("  %#llx -> %#llx", (unsigned long long)stable(t->before),
			(unsigned long long)stable(t->after));
		break;
	case COMPARE_AND_SWAP:
		printf("  saw %#llx, %s%#llx", (unsigned long long)stable(t->before),
			t->after == t->before ? "not " : "now ",
			(unsigned long long)stable(t->after));
		break;
	default:
		break;
	}
	printf("\n");
}

void sim_trace_print(void)
{
	uint32_t kept = sim.trace_count < TRACE_OPERATIONS ? sim.trace_count : TRACE_OPERATIONS;
	uint32_t shown = kept < TRACE_SHOWN ? kept : TRACE_SHOWN;

	printf("  the last %u operations:\n", shown);
	for (uint32_t i = sim.trace_count - shown; i != sim.trace_count; i++)
		print_operation(&sim.trace[i % TRACE_OPERATIONS]);
	for (unsigned thread = 0; thread < sim.thread_count; thread++) {
		uint32_t of_thread[TRACE_SHOWN_PER_THREAD];
		unsigned n = 0;

		for (uint32_t i = sim.trace_count; i != sim.trace_count - kept; i--) {
			if (sim.trace[(i - 1) % TRACE_OPERATIONS].thread == thread)
				of_thread[n++] = i - 1;
			if (n == TRACE_SHOWN_PER_THREAD)
				break;
		}
		printf("  thread %u, %s, its last:\n", thread,
			sim.ended & bit(thread)    ? "ended"
			: sim.asleep & bit(thread) ? "asleep"
			: sim.paused & bit(thread) ? "pausing"
						   : "running");
		while (n-- > 0)
			print_operation(&sim.trace[of_thread[n] % TRACE_OPERATIONS]);
	}
}

/* --- memory --- */

WF_NOINLINE static void touch_marked(enum mark mark, const struct sim_touch *touch)
{
	if (mark == FREED)
		sim_fail("freed memory is touched");
	if (sim.watcher != NULL && !sim.aside)
		sim.watcher->touch(touch);
}

/* An operation on memory, before it is done. */
WF_INLINE void touch(const void *address, enum sim_access access, uint64_t before, uint64_t after,
	const char *function)
{
	size_t offset = (size_t)((const char *)address - arena);

	if (WF_UNLIKELY(offset < ARENA_BYTES && marks[offset / GRAIN_BYTES] != PLAIN))
		touch_marked(marks[offset / GRAIN_BYTES],
			&(struct sim_touch){address, access, before, after, function});
}

WF_INLINE uint64_t read_memory(const void *address, unsigned bytes)
{
	uint32_t small;
	uint64_t large;

	if (bytes == 4) {
		memcpy(&small, address, 4);
		return small;
	}
	memcpy(&large, address, 8);
	return large;
}

WF_INLINE void write_memory(void *address, unsigned bytes, uint64_t value)
{
	uint32_t small = (uint32_t)value;

	if (bytes == 4)
		memcpy(address, &small, 4);
	else
		memcpy(address, &value, 8);
	sim.idle_rounds = 0;
	if (WF_UNLIKELY(sim.paused != 0)) {
		sim.runnable |= sim.paused;
		sim.paused = 0;
	}
}

/* The oldest store of a thread becomes visible. */
static void flush_one(unsigned number)
{
	struct thread *thread = &sim.threads[number];
	struct store store = thread->buffer[thread->first];

	thread->first = (thread->first + 1) % BUFFER_STORES;
	if (--thread->count == 0)
		sim.buffered &= ~bit(number);
	note(STORE_SEEN, number, "", 0, store.address, 0, store.value);
	write_memory(store.address, store.bytes, store.value);
}

static void drain(unsigned number)
{
	while (sim.threads[number].count > 0)
		flush_one(number);
}

/* --- deciding --- */

WF_INLINE uint64_t eligible(void)
{
	return sim.runnable | sim.buffered << SIM_BUFFERS | (sim.timed != 0 ? bit(SIM_CLOCK) : 0);
}

static unsigned nth(uint64_t mask, unsigned n)
{
	while (n-- > 0)
		mask &= mask - 1;
	return (unsigned)__builtin_ctzll(mask);
}

/*
 * Who goes on if nobody is preempted: the thread; else all stores, the next thread, time. eager:
 * all stores first.
 */
static unsigned usual(uint64_t mask, bool eager)
{
	uint64_t threads = mask & (bit(SIM_THREADS_MAX) - 1);
	uint64_t buffers = mask & (bit(SIM_THREADS_MAX) - 1) << SIM_BUFFERS;
	unsigned next = sim.self + 1;

	if ((threads & bit(sim.self)) && !(eager && buffers != 0) && sim.in_a_row < IN_A_ROW_MAX)
		return sim.self;
	if (buffers != 0)
		return (unsigned)__builtin_ctzll(buffers);
	if (threads >> next != 0)
		threads = threads >> next << next;
	return (unsigned)__builtin_ctzll(threads != 0 ? threads : mask);
}

static int64_t earliest_deadline(void)
{
	int64_t earliest = SIM_FOREVER;

	for (uint64_t left = sim.timed; left != 0; left &= left - 1) {
		int64_t deadline = sim.threads[__builtin_ctzll(left)].deadline;

		if (deadline < earliest)
			earliest = deadline;
	}
	return earliest;
}

/* Sleepers' deadlines may pass while others could go on: the clock leaps. Or has one come? */
static bool would_leap(uint64_t mask)
{
	return (mask & bit(SIM_CLOCK)) && mask != bit(SIM_CLOCK) && earliest_deadline() > sim.now;
}

static unsigned choose_randomly(uint64_t mask)
{
	uint64_t random = sim_mix(&sim.random);

	if ((random & 255) < sim.plan->stay && (mask & bit(sim.self)) && sim.self != NOBODY)
		return sim.self;
	/* Now and then, not all the time. */
	if ((random >> 8 & 63) != 0 && would_leap(mask))
		mask &= ~bit(SIM_CLOCK);
	return nth(mask, (unsigned)((random >> 32) * (unsigned)__builtin_popcountll(mask) >> 32));
}

static unsigned strongest(uint64_t mask)
{
	unsigned best = (unsigned)__builtin_ctzll(mask);

	for (mask &= mask - 1; mask != 0; mask &= mask - 1) {
		unsigned entity = (unsigned)__builtin_ctzll(mask);

		if (sim.priority[entity] > sim.priority[best])
			best = entity;
	}
	return best;
}

static unsigned choose_by_priority(uint64_t mask)
{
	unsigned best = strongest(mask);

	if (WF_UNLIKELY(sim.steps >= sim.next_fair
		    || (sim.in_a_row > IN_A_ROW_MAX && best == sim.self))) {
		if (sim.steps >= sim.next_fair)
			sim.next_fair += FAIR_STEPS;
		sim.priority[best] = --sim.lowest;
		best = strongest(mask);
	}
	while (sim.next_change < sim.plan->change_count &&
		sim.steps >= sim.plan->changes[sim.next_change]) {
		sim.next_change++;
		sim.priority[best] = --sim.lowest;
		best = strongest(mask);
	}
	return best;
}

/* A store that comes out does not give its thread another turn. */
static unsigned begin_turn(unsigned chosen)
{
	sim.turn_left = chosen < SIM_THREADS_MAX ? sim.plan->quantum : 0;
	return chosen;
}

static unsigned choose_in_turn(uint64_t mask)
{
	uint64_t after;

	if (sim.self != NOBODY && (mask & bit(sim.self)) && sim.turn_left > 0) {
		sim.turn_left--;
		return sim.self;
	}
	/* A thread's stores come out at the end of its turn, or with the next of all. */
	if ((sim.plan->shuffle & 1) && sim.self != NOBODY && (mask & bit(SIM_BUFFERS + sim.self)))
		return begin_turn(SIM_BUFFERS + sim.self);
	if (would_leap(mask))
		mask &= ~bit(SIM_CLOCK);
	after = sim.self == NOBODY ? mask : mask & ~(bit(sim.self + 1) - 1);
	return begin_turn((unsigned)__builtin_ctzll(after ? after : mask));
}

static unsigned choose_listed(uint64_t mask)
{
	uint32_t point = sim.threads[sim.self].points;

	for (unsigned i = 0; i < sim.plan->listed_count; i++) {
		const struct sim_preemption *p = &sim.plan->listed[i];

		if (p->thread == sim.self && p->point == point && p->turn == sim.turn &&
			(mask & bit(p->chosen)))
			return p->chosen;
	}
	return usual(mask, sim.plan->eager);
}

static void record(uint64_t mask, unsigned chosen)
{
	for (unsigned eager = 0; eager < 2; eager++) {
		unsigned *count = &sim.outcome->preemption_count[eager];

		if (chosen != usual(mask, eager) && *count < SIM_PREEMPTIONS_MAX)
			sim.recording->preemptions[eager][(*count)++] =
				(struct sim_preemption){sim.threads[sim.self].points,
					(uint16_t)sim.turn, (uint8_t)sim.self, (uint8_t)chosen};
	}
}

static unsigned choose(uint64_t mask)
{
	unsigned chosen;

	switch (sim.strategy) {
	case SIM_RANDOM_WALK:
		chosen = choose_randomly(mask);
		break;
	case SIM_PCT:
		chosen = choose_by_priority(mask);
		break;
	case SIM_ROUND_ROBIN:
		chosen = choose_in_turn(mask);
		break;
	default:
		chosen = choose_listed(mask);
		break;
	}
	if (WF_UNLIKELY(sim.recording != NULL))
		record(mask, chosen);
	sim.turn++;
	return chosen;
}

static void end_sleep(unsigned number, bool timed_out)
{
	struct thread *thread = &sim.threads[number];

	thread->key = NULL;
	thread->timed_out = timed_out;
	sim.asleep &= ~bit(number);
	sim.timed &= ~bit(number);
	sim.runnable |= bit(number);
	note(SLEEP_ENDS, number, timed_out ? "deadline" : "", 0, NULL, 0, timed_out);
}

/* Time goes on to the earliest deadline. */
static void pass_time(void)
{
	int64_t earliest = earliest_deadline();

	if (earliest > sim.now)
		sim.now = earliest;
	for (uint64_t left = sim.timed; left != 0; left &= left - 1)
		if (sim.threads[__builtin_ctzll(left)].deadline <= sim.now)
			end_sleep((unsigned)__builtin_ctzll(left), true);
}

/* The next thread to run; NOBODY: none can, nothing is left that could change that. */
static unsigned pick(void)
{
	sim.turn = 0;
	for (;;) {
		uint64_t mask = eligible();
		unsigned chosen;

		if (WF_UNLIKELY(mask == 0)) {
			if (sim.paused == 0)
				return NOBODY;
			if (++sim.idle_rounds > IDLE_ROUNDS_MAX)
				sim_fail("livelock: threads spin, and nothing changes");
			sim.runnable = sim.paused;
			sim.paused = 0;
			continue;
		}
		/* One choice is none. */
		chosen = mask & (mask - 1) ? choose(mask) : (unsigned)__builtin_ctzll(mask);
		if (WF_LIKELY(chosen < SIM_THREADS_MAX))
			return chosen;
		if (chosen == SIM_CLOCK)
			pass_time();
		else
			flush_one(chosen - SIM_BUFFERS);
	}
}

/* --- switching --- */

static void go_to(unsigned next)
{
	unsigned self = sim.self;

	if (next == self) {
		sim.in_a_row++;
		return;
	}
	sim.in_a_row = 0;
	sim.self = next;
	if (next == NOBODY)
		(void)wf_context_switch(&sim.threads[self].sp, sim.director_sp, NULL);
	else
		(void)wf_context_switch(&sim.threads[self].sp, sim.threads[next].sp, NULL);
}

/* A bit for each address, of 64, that a buffer may have a store to. */
static uint64_t buffered_addresses(void)
{
	uint64_t bits = 0;

	for (uint64_t left = sim.buffered; left != 0; left &= left - 1) {
		const struct thread *thread = &sim.threads[__builtin_ctzll(left)];

		for (unsigned i = 0; i < thread->count; i++)
			bits |= sim_address_bit(
				thread->buffer[(thread->first + i) % BUFFER_STORES].address);
	}
	return bits;
}

/* With all registers that the thread's frames may be using on its stack, below this frame. */
WF_NOINLINE static void look(void)
{
	__builtin_unwind_init();
	sim.look_left = SIM_LOOK_STEPS;
	if (sim.watcher == NULL)
		return;
	sim.self_low = (char *)__builtin_frame_address(0) - SAVED_BYTES;
	sim_buffered_addresses = buffered_addresses();
	sim.watcher->look();
	sim_buffered_addresses = UINT64_MAX;
}

/* Before every operation. */
WF_INLINE void point(const char *function)
{
	if (WF_UNLIKELY(sim.self == NOBODY))
		return;
	if (WF_UNLIKELY(++sim.steps > sim.steps_max))
		sim_fail("no end after %u operations", sim.steps_max);
	sim.threads[sim.self].points++;
	sim.threads[sim.self].function = function;
	if (WF_UNLIKELY(--sim.look_left == 0))
		look();
	sim.now += STEP_NS;
	go_to(pick());
}

static void thread_main(void *value)
{
	unsigned self = sim.self, next;

	(void)value;
	if (sim.threads[self].fn != NULL) {
		sim.threads[self].fn(sim.threads[self].arg);
		drain(self); /* whoever joins it sees all it did */
	} else {
		sim.scenario->thread(self);
	}
	(void)sim_unblock(&sim.threads[self], SIM_THREADS_MAX);
	/* Its stores still leave the buffer one by one. */
	sim.threads[self].points++;
	sim.runnable &= ~bit(self);
	sim.ended |= bit(self);
	note(END, self, "", 0, NULL, 0, 0);
	next = pick();
	sim.self = next;
	wf_context_exit(next == NOBODY ? sim.director_sp : sim.threads[next].sp, NULL);
}

/* --- operations (sync/atomic_sim.h) --- */

uint64_t wf_sim_load(const void *address, unsigned bytes, enum wf_sim_order order,
	const char *function, int line)
{
	struct thread *thread;
	uint64_t value;

	(void)order; /* all loads are alike on x86-64 */
	point(function);
	thread = &sim.threads[sim.self];
	value = read_memory(address, bytes);
	for (unsigned i = thread->count; i-- > 0;) {
		const struct store *store = &thread->buffer[(thread->first + i) % BUFFER_STORES];

		if (store->address == address) {
			value = store->value;
			break;
		}
	}
	touch(address, SIM_LOADS, value, value, function);
	note(LOAD, sim.self, function, line, address, 0, value);
	return value;
}

void wf_sim_store(void *address, unsigned bytes, uint64_t value, enum wf_sim_order order,
	const char *function, int line)
{
	struct thread *thread;

	if (order == WF_SIM_SEQ_CST) {
		(void)wf_sim_rmw(address, bytes, WF_SIM_EXCHANGE, value, function, line);
		return;
	}
	point(function);
	touch(address, SIM_STORES, 0, value, function);
	note(STORE, sim.self, function, line, address, 0, value);
	if (sim.self == NOBODY) {
		write_memory(address, bytes, value);
		return;
	}
	thread = &sim.threads[sim.self];
	if (thread->count == BUFFER_STORES)
		flush_one(sim.self);
	thread->buffer[(thread->first + thread->count++) % BUFFER_STORES] =
		(struct store){address, value, bytes};
	sim.buffered |= bit(sim.self);
}

uint64_t wf_sim_rmw(void *address, unsigned bytes, enum wf_sim_rmw what, uint64_t operand,
	const char *function, int line)
{
	uint64_t before, after;

	point(function);
	drain(sim.self);
	before = read_memory(address, bytes);
	switch (what) {
	case WF_SIM_EXCHANGE:
		after = operand;
		break;
	case WF_SIM_ADD:
		after = before + operand;
		break;
	case WF_SIM_OR:
		after = before | operand;
		break;
	default:
		after = before & operand;
		break;
	}
	if (bytes == 4)
		after = (uint32_t)after;
	touch(address, SIM_CHANGES, before, after, function);
	note(READ_MODIFY_WRITE, sim.self, function, line, address, before, after);
	write_memory(address, bytes, after);
	return before;
}

uint64_t wf_sim_cas(void *address, unsigned bytes, uint64_t expected, uint64_t desired,
	const char *function, int line)
{
	uint64_t before;

	point(function);
	drain(sim.self);
	before = read_memory(address, bytes);
	touch(address, before == expected ? SIM_CHANGES : SIM_LOADS, before,
		before == expected ? desired : before, function);
	note(COMPARE_AND_SWAP, sim.self, function, line, address, before,
		before == expected ? desired : before);
	if (before == expected)
		write_memory(address, bytes, desired);
	return before;
}

void wf_sim_fence(const char *function, int line)
{
	point(function);
	drain(sim.self);
	note(FENCE, sim.self, function, line, NULL, 0, 0);
}

void wf_sim_pause(const char *function, int line)
{
	if (sim.self == NOBODY)
		return;
	note(PAUSE, sim.self, function, line, NULL, 0, 0);
	sim.runnable &= ~bit(sim.self);
	sim.paused |= bit(sim.self);
	if (sim.strategy == SIM_PCT)
		sim.priority[sim.self] = --sim.lowest;
	point(function);
}

unsigned wf_sim_self(void)
{
	return sim.self == NOBODY ? 0 : sim.self + 1;
}

/* --- sleeping --- */

int64_t sim_now(void)
{
	return sim.now;
}

unsigned sim_random(unsigned bound)
{
	return (unsigned)((sim_mix(&sim.threads[sim.self].random) >> 32) * bound >> 32);
}

void sim_point(const char *what)
{
	point(what);
	drain(sim.self);
	note(CALL, sim.self, what, 0, NULL, 0, 0);
}

bool sim_block(const void *key, int64_t deadline)
{
	unsigned self = sim.self;
	struct thread *thread = &sim.threads[self];

	drain(self);
	if (self == NOBODY)
		sim_fail("the director would sleep for ever");
	note(SLEEP, self, "", 0, key, 0, 0);
	thread->key = key;
	thread->deadline = deadline;
	sim.runnable &= ~bit(self);
	sim.asleep |= bit(self);
	if (deadline != SIM_FOREVER)
		sim.timed |= bit(self);
	thread->points++;
	go_to(pick());
	return !thread->timed_out;
}

/* Any of those who sleep on it: which, the seed says. */
unsigned sim_unblock(const void *key, unsigned count)
{
	unsigned woken = 0;

	for (; woken < count; woken++) {
		uint64_t sleepers = 0;

		for (unsigned i = 0; i < sim.thread_count; i++)
			if ((sim.asleep & bit(i)) && sim.threads[i].key == key)
				sleepers |= bit(i);
		if (sleepers == 0)
			break;
		end_sleep(
			nth(sleepers, sim_random((unsigned)__builtin_popcountll(sleepers))), false);
	}
	return woken;
}

int wf_sim_futex_sleep(
	wf_atomic_u32 *word, uint32_t expected, uint64_t timeout_ns, const char *function, int line)
{
	int64_t deadline = SIM_FOREVER;

	point(function);
	drain(sim.self);
	note(CALL, sim.self, function, line, word, expected, word->raw);
	if (word->raw != expected)
		return -EAGAIN;
	if (timeout_ns < (uint64_t)(SIM_FOREVER - sim.now))
		deadline = sim.now + (int64_t)timeout_ns;
	return sim_block(word, deadline) ? 0 : -ETIMEDOUT;
}

void wf_sim_futex_wake(wf_atomic_u32 *word, int count, const char *function, int line)
{
	point(function);
	drain(sim.self);
	note(WAKE, sim.self, function, line, word, 0, (uint64_t)count);
	(void)sim_unblock(word, (unsigned)count);
}

/* --- more threads --- */

static void *context(unsigned number, void (*entry)(void *))
{
	return wf_context_make(stacks[number] + GUARD_BYTES + STACK_BYTES, entry);
}

unsigned sim_thread_start(void (*fn)(void *arg), void *arg)
{
	unsigned number;

	point("thread start");
	drain(sim.self);
	number = sim.thread_count;
	if (number == SIM_THREADS_MAX)
		sim_fail("more than %d virtual threads", SIM_THREADS_MAX);
	note(CALL, sim.self, "thread start", 0, NULL, 0, number);
	sim.thread_count++;
	sim.threads[number].fn = fn;
	sim.threads[number].arg = arg;
	sim.threads[number].sp = context(number, thread_main);
	sim.runnable |= bit(number);
	return number;
}

void sim_thread_join(unsigned number)
{
	sim_point("thread join");
	while (!(sim.ended & bit(number)))
		(void)sim_block(&sim.threads[number], SIM_FOREVER);
}

unsigned sim_thread_self(void)
{
	return sim.self;
}

/* --- memory that is checked --- */

void *sim_alloc(size_t alignment, size_t bytes, int fill)
{
	size_t start;

	if (alignment < GRAIN_BYTES)
		alignment = GRAIN_BYTES;
	start = (sim.arena_used + alignment - 1) & ~(alignment - 1);
	if (start + bytes > ARENA_BYTES)
		return NULL;
	sim.arena_used = start + ((bytes + GRAIN_BYTES - 1) & ~(size_t)(GRAIN_BYTES - 1));
	sim.arena_live += bytes;
	if (fill >= 0)
		memset(arena + start, fill, bytes);
	return arena + start;
}

void sim_free(void *memory, size_t bytes)
{
	size_t start = (size_t)((char *)memory - arena) / GRAIN_BYTES;
	size_t grains = (bytes + GRAIN_BYTES - 1) / GRAIN_BYTES;

	if (start + grains > ARENA_BYTES / GRAIN_BYTES || marks[start] == FREED)
		sim_fail("what is freed was not allocated, or is freed again");
	memset(marks + start, FREED, grains);
	sim.arena_live -= bytes;
}

size_t sim_allocated_bytes(void)
{
	return sim.arena_live;
}

/* --- watching --- */

void sim_watch(const struct sim_watcher *watcher)
{
	sim.watcher = watcher;
}

void sim_watch_memory(const void *start, size_t bytes)
{
	size_t offset = (size_t)((const char *)start - arena);

	WF_CHECK(offset % GRAIN_BYTES == 0 && offset + bytes <= ARENA_BYTES);
	memset(marks + offset / GRAIN_BYTES, WATCHED, bytes / GRAIN_BYTES);
}

uint64_t sim_peek_buffers(const void *address, unsigned bytes)
{
	for (uint64_t left = sim.buffered; left != 0; left &= left - 1) {
		const struct thread *thread = &sim.threads[__builtin_ctzll(left)];

		for (unsigned i = thread->count; i-- > 0;) {
			unsigned at = (thread->first + i) % BUFFER_STORES;

			if (thread->buffer[at].address == address)
				return thread->buffer[at].value;
		}
	}
	return read_memory(address, bytes);
}

unsigned sim_thread_stacks(struct sim_stack stacks_out[SIM_THREADS_MAX])
{
	unsigned count = 0;

	for (uint64_t left = (bit(sim.thread_count) - 1) & ~sim.ended; left; left &= left - 1) {
		unsigned number = (unsigned)__builtin_ctzll(left);
		const char *start = stacks[number];
		const char *low = number == sim.self ? sim.self_low : sim.threads[number].sp;

		stacks_out[count].thread = number;
		stacks_out[count].low = low;
		stacks_out[count].high = low + FIBER_BYTES;
		if (low >= start && low < start + sizeof(stacks[0]))
			stacks_out[count].high = start + sizeof(stacks[0]);
		count++;
	}
	return count;
}

const char *sim_thread_function(unsigned number)
{
	return sim.threads[number].function;
}

void sim_aside(void (*fn)(void *arg), void *arg)
{
	uint64_t runnable = sim.runnable, paused = sim.paused, hash = sim.hash;
	unsigned self = sim.self, idle_rounds = sim.idle_rounds;

	drain(self);
	sim.aside = true;
	sim.self = NOBODY;
	fn(arg);
	sim.self = self;
	sim.aside = false;
	sim.runnable = runnable;
	sim.paused = paused;
	sim.hash = hash;
	sim.idle_rounds = idle_rounds;
}

/* --- a schedule --- */

static enum sim_quiet ask(void)
{
	return sim.scenario->quiet != NULL ? sim.scenario->quiet() : SIM_STUCK;
}

static void direct(void *value)
{
	(void)value;
	sim.scenario->setup();
	for (;;) {
		unsigned next;

		sim.threads[NOBODY].points++;
		next = pick();
		if (next != NOBODY) {
			sim.self = next;
			(void)wf_context_switch(&sim.director_sp, sim.threads[next].sp, NULL);
		}
		if (sim.asleep == 0)
			break;
		switch (ask()) {
		case SIM_STUCK:
			sim_fail("everybody sleeps, and work is left");
		case SIM_DONE:
			goto done;
		case SIM_GO_ON:
			break;
		}
	}
done:
	if (sim.scenario->check != NULL)
		sim.scenario->check();
	leave();
}

static void draw_priorities(void)
{
	for (unsigned i = 0; i < SIM_ENTITIES; i++)
		sim.priority[i] = (int32_t)(sim_mix(&sim.random) >> 34);
	sim.lowest = 0;
	sim.next_change = 0;
	sim.next_fair = FAIR_STEPS;
}

static void reset(const struct sim_scenario *scenario, const struct sim_plan *plan)
{
	uint64_t random = plan->seed;

	sim.plan = plan;
	sim.scenario = scenario;
	sim.strategy = plan->strategy;
	sim.thread_count = scenario->threads;
	sim.runnable = bit(scenario->threads) - 1;
	sim.paused = sim.buffered = sim.timed = sim.asleep = sim.ended = 0;
	sim.self = NOBODY;
	sim.steps = 0;
	sim.steps_max = scenario->steps_max ? scenario->steps_max : SIM_STEPS_DEFAULT;
	sim.hash = 0;
	sim.now = 1000000;
	sim.idle_rounds = 0;
	sim.turn_left = plan->quantum;
	sim.in_a_row = 0;
	memset(marks, PLAIN, sim.arena_used / GRAIN_BYTES);
	sim.watcher = NULL;
	sim.look_left = 1 + (unsigned)(plan->seed % SIM_LOOK_STEPS);
	sim_buffered_addresses = UINT64_MAX;
	sim.aside = false;
	sim.arena_used = sim.arena_live = 0;
	sim.trace_count = 0;
	for (unsigned i = 0; i <= SIM_THREADS_MAX; i++) {
		struct thread *thread = &sim.threads[i];

		thread->first = thread->count = 0;
		thread->points = 0;
		thread->key = NULL;
		thread->timed_out = false;
		thread->fn = NULL;
		thread->random = sim_mix(&random);
	}
	for (unsigned i = 0; i < scenario->threads; i++)
		sim.threads[i].sp = context(i, thread_main);
	random = plan->shuffle;
	sim.random = sim_mix(&random);
	if (plan->strategy == SIM_PCT)
		draw_priorities();
}

/* A crash of the code under test is a failure like others; outside a schedule it is a crash. */
static void crashed(int number, siginfo_t *info, void *unused)
{
	(void)unused;
	if (sim.scenario == NULL) {
		signal(number, SIG_DFL);
		return;
	}
	sim_fail("signal %d, address %p", number, info->si_addr);
}

static void prepare_once(void)
{
	static bool prepared;
	static char signal_stack[64 << 10];
	stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};
	struct sigaction action = {
		.sa_sigaction = crashed, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	if (prepared)
		return;
	prepared = true;
	for (unsigned i = 0; i <= SIM_THREADS_MAX; i++)
		WF_CHECK(mprotect(stacks[i], GUARD_BYTES, PROT_NONE) == 0);
	WF_CHECK(sigaltstack(&stack, NULL) == 0);
	WF_CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
	WF_CHECK(sigaction(SIGILL, &action, NULL) == 0);
}

void sim_schedule(const struct sim_scenario *scenario, const struct sim_plan *plan,
	struct sim_recording *recording, bool traced, struct sim_outcome *outcome_out)
{
	prepare_once();
	WF_CHECK(scenario->threads >= 1 && scenario->threads <= SIM_THREADS_MAX);
	memset(outcome_out, 0, offsetof(struct sim_outcome, message));
	sim.outcome = outcome_out;
	sim.recording = recording;
	sim.traced = traced;
	reset(scenario, plan);
	(void)wf_context_switch(&sim.caller_sp, context(NOBODY, direct), NULL);
	sim.scenario = NULL;
	sim.self = NOBODY;
	outcome_out->hash = sim.hash;
	outcome_out->steps = sim.steps;
}
