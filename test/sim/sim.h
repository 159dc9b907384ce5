/*
 * sim.h: what a simulation is written with. README.md tells how; engine.c how it works.
 *
 * Words. A SCENARIO is a set of VIRTUAL THREADS and what must hold. A SCHEDULE is one run of it:
 * one order of everybody's atomic operations, of stores leaving store buffers, and of sleeps that
 * end. A SEED (64 bits) names a schedule, its strategy included. A PREEMPTION is a decision other
 * than "the thread goes on".
 *
 * Nothing here is thread-safe: a simulation is one OS thread.
 */
#ifndef WF_TEST_SIM_SIM_H
#define WF_TEST_SIM_SIM_H

#include "sync/atomic.h"
#include "sync/planted.h"

#define SIM_THREADS_MAX   8
#define SIM_MESSAGE_BYTES 256
#define SIM_FOREVER       INT64_MAX

/* What the quiet hook answers. */
enum sim_quiet {
	SIM_STUCK, /* nobody can go on, and that is wrong: a deadlock, or a lost wake */
	SIM_DONE,  /* it is right so: the schedule is over, check() follows */
	SIM_GO_ON, /* the hook has made somebody runnable */
};

struct sim_scenario {
	const char *name;
	unsigned threads;
	/* Puts everything back to the start. Before each schedule; operations act directly. */
	void (*setup)(void);
	/* A virtual thread, numbered from 0. */
	void (*thread)(unsigned number);
	/* Everybody sleeps or has ended, somebody sleeps. NULL: SIM_STUCK. */
	enum sim_quiet (*quiet)(void);
	/* Everybody has ended, or quiet() said done. NULL: nothing to check. */
	void (*check)(void);
	/* Operations until a schedule counts as endless; 0: SIM_STEPS_DEFAULT. */
	unsigned steps_max;
};

#define SIM_STEPS_DEFAULT 20000

/* --- in a scenario --- */

/* Ends the schedule as a failure. Anywhere in a schedule. */
_Noreturn void sim_fail(const char *format, ...) WF_PRINTF(1, 2);

/* `cond` must hold now; the rest is a printf format and its arguments. */
#define sim_check(cond, ...) (WF_LIKELY(cond) ? (void)0 : sim_fail(__VA_ARGS__))

/* A number below bound (> 0), by the seed: what a thread does. Not part of the schedule. */
unsigned sim_random(unsigned bound);

/* Virtual nanoseconds since the schedule began. Goes on by 100 an operation, and with sleeps. */
int64_t sim_now(void);

/*
 * Sleeps until sim_unblock(key), or until the deadline. False: the deadline. The caller's stores
 * are visible before. Not a scheduling point by itself: between sim_point() and the next atomic
 * operation nobody else runs, so what models a kernel may keep plain fields, look at them and sleep
 * in one step.
 */
bool sim_block(const void *key, int64_t deadline);
/* Ends the sleep of up to `count` who sleep on key. Returns how many. Also from hooks. */
unsigned sim_unblock(const void *key, unsigned count);
/* A scheduling point, as a system call is: the caller's stores are visible when it returns. */
void sim_point(const char *what);

/* --- more threads, and memory --- */

/* One more virtual thread, while a schedule runs. Returns its number. */
unsigned sim_thread_start(void (*fn)(void *arg), void *arg);
/* Waits until it has ended. */
void sim_thread_join(unsigned number);
/* Of the caller; SIM_THREADS_MAX outside. */
unsigned sim_thread_self(void);

/*
 * Memory that the next schedule finds unused. Freed memory is not given out again in this schedule,
 * and an atomic operation on it is a failure. `fill`: with what; -1: nothing.
 */
void *sim_alloc(size_t alignment, size_t bytes, int fill);
void sim_free(void *memory, size_t bytes);
/* Bytes that have not been freed. */
size_t sim_allocated_bytes(void);

/* --- watching: what must hold at any time; plain C that makes no operation --- */

enum sim_access { SIM_LOADS, SIM_STORES, SIM_CHANGES }; /* a cas that fails loads */

/* An operation, about to be done. */
struct sim_touch {
	const void *address;
	enum sim_access access;
	uint64_t before, after; /* before: not of a store */
	const char *function;   /* it stands in */
};

struct sim_watcher {
	/* Before every SIM_LOOK_STEPS-th operation. */
	void (*look)(void);
	/* Before each operation on memory that is watched. */
	void (*touch)(const struct sim_touch *touch);
};

#define SIM_LOOK_STEPS 17

/* For this schedule: by setup(). It changes nothing of the schedule. */
void sim_watch(const struct sim_watcher *watcher);
/* Whole cache lines of sim_alloc()'s. Until they are freed. */
void sim_watch_memory(const void *start, size_t bytes);

/* What an atomic holds for whoever wrote it last: stores that wait in a buffer have been made. */
WF_INLINE uint64_t sim_peek(const void *address, unsigned bytes);
#define sim_peek_atomic(a) sim_peek(&(a)->raw, sizeof((a)->raw))

/*
 * Of look(): where the threads that have not ended have their frames, saved registers included:
 * their own stacks, or the fibers' that they run, of which too much may be told. How many. Also
 * elsewhere, but for the calling thread's.
 */
struct sim_stack {
	unsigned thread;
	const void *low, *high;
};

unsigned sim_thread_stacks(struct sim_stack stacks_out[SIM_THREADS_MAX]);
/* The function whose operation it did last, or is about to do. */
const char *sim_thread_function(unsigned number);

/* Calls fn, whose operations act directly, as those of a check() do, and leave no trace. */
void sim_aside(void (*fn)(void *arg), void *arg);

/* Behind sim_peek(): a bit for each address, of 64, that a buffer may have a store to. */
extern uint64_t sim_buffered_addresses;
uint64_t sim_peek_buffers(const void *address, unsigned bytes);

WF_INLINE uint64_t sim_address_bit(const void *address)
{
	return (uint64_t)1 << (uintptr_t)address / 8 % 64;
}

WF_INLINE uint64_t sim_peek(const void *address, unsigned bytes)
{
	if (WF_UNLIKELY(sim_buffered_addresses & sim_address_bit(address)))
		return sim_peek_buffers(address, bytes);
	return bytes == 4 ? *(const uint32_t *)address : *(const uint64_t *)address;
}

/* --- running schedules --- */

struct sim_failure {
	uint64_t seed;
	uint64_t hash;
	char message[SIM_MESSAGE_BYTES];
};

/* Random walk, PCT, round robin: what seeds choose from. */
#define SIM_STRATEGIES 3

struct sim_statistics {
	uint64_t schedules, steps;
	uint64_t by_strategy[SIM_STRATEGIES]; /* schedules */
	/* Of all schedules: a sum of a number of each, so parts of a range add up to it. */
	uint64_t hash;
	double seconds;
};

/* One schedule. False: it failed. */
bool sim_run(const struct sim_scenario *scenario, uint64_t seed, struct sim_failure *failure_out);

/* Schedules first, first + 1, … until one fails (false), or `count` have passed. */
bool sim_explore(const struct sim_scenario *scenario, uint64_t first, uint64_t count,
	struct sim_statistics *statistics_out, struct sim_failure *failure_out);

/*
 * Runs a failing seed again, shrinks it to few preemptions, and prints all about it. Returns how
 * many preemptions are left; -1: it did not fail again as it had.
 */
int sim_report(const struct sim_scenario *scenario, const struct sim_failure *failure, bool print);

/* "PCT, 3 change points", of a seed. */
const char *sim_strategy_text(uint64_t seed);

/* --- tests --- */

struct sim_test {
	const char *suite, *name;
	void (*body)(void);
	struct sim_test *next;
};

void sim_register(struct sim_test *test);

#define SIM_TEST(suite_, name_)                                                    \
	static void suite_##_##name_##_body(void);                                 \
	static struct sim_test suite_##_##name_##_test = {                         \
		#suite_, #name_, suite_##_##name_##_body, NULL};                   \
	__attribute__((constructor)) static void suite_##_##name_##_register(void) \
	{                                                                          \
		sim_register(&suite_##_##name_##_test);                            \
	}                                                                          \
	static void suite_##_##name_##_body(void)

/* Of a test: it has failed, for this reason; it goes on. */
void sim_test_failed(const char *format, ...) WF_PRINTF(1, 2);
#define sim_expect(cond, ...) (WF_LIKELY(cond) ? (void)0 : sim_test_failed(__VA_ARGS__))

/* Of a test: no schedule fails. `count` schedules, or those the command line names. */
void sim_must_pass(const struct sim_scenario *scenario, uint64_t count);
/* True while scenarios are only listed: then a test that makes its own is to return. */
bool sim_lists(void);
/* The same without a word about it. False: the test has failed. Replayed: there are no figures. */
bool sim_passes(
	const struct sim_scenario *scenario, uint64_t count, struct sim_statistics *statistics_out);
/*
 * Of a test: with this bug, a schedule among the first `count` fails, fails again when it is
 * replayed, and shrinks. Prints which one it was.
 */
void sim_must_find(const struct sim_scenario *scenario, enum wf_planted planted, uint64_t count);
/* The same, and the failure says this: the check meant for it has found it, no other. */
void sim_must_find_saying(const struct sim_scenario *scenario, enum wf_planted planted,
	uint64_t count, const char *part);

#endif
