/*
 * bench.h: what a workload of perf/bench needs to know. perf/README.md says how to measure.
 *
 * A workload is one constant object in its own file bench_<op>.c, listed in the table of bench.c:
 *
 *	const struct bench_workload bench_deque = {
 *		.name = "deque", .help = "push and pop of the owner alone, a pair (n pairs)",
 *		.n_default = 10000000, .run = run };
 *
 * `run` sets up, measures once, takes down, and adds its rows to the result:
 *
 *	row = bench_row_add(result, "weft", "-");
 *	bench_row_set(row, BENCH_NS_PER_OP, (double)(bench_now_ns() - start_ns) / (double)args->n);
 *
 * The first row is ours; further rows are variants or rivals measured in the same call, printed
 * with their ratio to the first, or to the one they name. Every call must add the same rows in the
 * same order.
 *
 * Each run is a fresh child process: a warm-up call with a tenth of n (result dropped), then the
 * measured one, so that runs share no heap, no runtime and no leaked thread. The parent takes the
 * runs of all workloads in turn (A B C A B C …), never a workload's five at once: noise of the
 * machine then falls on all of them alike. A call that fails returns a negative errno; one that
 * hangs is killed by the parent.
 *
 * Threads: a workload may start what it likes inside `run`, and must have ended it on return. The
 * functions below may be called from any thread, but one row belongs to one thread at a time.
 */
#ifndef WF_PERF_BENCH_H
#define WF_PERF_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BENCH_ROWS_MAX = 24,
	BENCH_TEXT_MAX = 32, /* a variant's or kind's name, with its NUL */
};

/* How idle workers wait. NONE: the workload has no workers. */
enum bench_idle {
	BENCH_IDLE_NONE,
	BENCH_IDLE_SPIN,
	BENCH_IDLE_PARK,
	BENCH_IDLE_ADAPTIVE,
	BENCH_IDLE_COUNT,
};

#define BENCH_IDLE_BIT(idle) (1u << (idle))
#define BENCH_IDLE_ALL                                                       \
	(BENCH_IDLE_BIT(BENCH_IDLE_SPIN) | BENCH_IDLE_BIT(BENCH_IDLE_PARK) | \
		BENCH_IDLE_BIT(BENCH_IDLE_ADAPTIVE))

/* Every figure is "less is better". The names in JSON are these in small letters. */
enum bench_metric {
	BENCH_NS_PER_OP,
	BENCH_CPU_NS, /* processor time of the whole process, per operation */
	BENCH_P50_NS,
	BENCH_P99_NS,
	BENCH_P999_NS,
	BENCH_MAX_NS,
	BENCH_INSERT_NS,
	BENCH_CANCEL_NS,
	BENCH_BYTES_EACH,
	BENCH_METRIC_COUNT,
};

struct bench_args {
	unsigned workers;     /* at least 1; 0 only where the workload's default is 0 */
	uint64_t n;           /* how many; the workload's help says of what */
	enum bench_idle idle; /* NONE only where the workload names no idle mode */
	const char *driver;   /* NULL: the build's default */
	uint64_t seed;        /* for bench_random(); differs from run to run, not between calls */
	bool rival;           /* the workload's rival is wanted, beside */
	bool warm_up;         /* the result of this call is dropped */
};

struct bench_row {
	char variant[BENCH_TEXT_MAX];
	char process[BENCH_TEXT_MAX];     /* "fiber", "task", or "-" where nothing is scheduled */
	double value[BENCH_METRIC_COUNT]; /* NAN: this row has no such figure */
	unsigned beside; /* the row that a ratio is printed to: the first, if not set */
	bool apart;      /* another thing than that row: no ratio is printed */
};

struct bench_result {
	unsigned row_count;
	struct bench_row row[BENCH_ROWS_MAX];
};

struct bench_workload {
	const char *name;
	const char *help;         /* one line: what is done, and what n counts */
	unsigned workers_default; /* 0: starts no runtime */
	uint64_t n_default;
	unsigned idle_modes; /* BENCH_IDLE_BITs run when --idle is not given; 0: none apply */
	bool cold;           /* no warm-up: it would disturb what is measured */
	const char *rival;   /* of perf/rivals/, whose rows --rival adds; NULL: none */
	/* Returns 0 or a negative errno (printed; the whole command then fails). */
	int (*run)(const struct bench_args *args, struct bench_result *result);
};

/* CLOCK_MONOTONIC. */
uint64_t bench_now_ns(void);
/* Processor time used by all threads of this process so far, user and system. */
uint64_t bench_cpu_ns(void);

/* Adds a row with no figures yet. More than BENCH_ROWS_MAX abort. */
struct bench_row *bench_row_add(
	struct bench_result *result, const char *variant, const char *process);
void bench_row_set(struct bench_row *row, enum bench_metric metric, double value);
/* Sorts the samples in place; sets p50, p99, p99.9 and max (nearest rank). No samples: nothing. */
void bench_row_percentiles(struct bench_row *row, uint64_t *samples_ns, size_t count);

/* xorshift64*; `*state` starts as any value, 0 included. */
uint64_t bench_random(uint64_t *state);

/*
 * Pins the calling thread to the index-th CPU that this process might use at the first call (modulo
 * their number). Returns 0 or a negative errno. Runtimes pin their workers themselves: CPU n for
 * worker n.
 */
int bench_pin(unsigned index);

/*
 * Adds a row "two threads": the same round trips, or wakes one every `gap_ns`, between two pinned
 * threads without a runtime (bench_floor.c). They spin if args->idle says so, else sleep in epoll.
 */
void bench_floor_round_trips(const struct bench_args *args, struct bench_result *result);
void bench_floor_wakes(const struct bench_args *args, uint64_t gap_ns, struct bench_result *result);

/* Keeps the compiler from dropping the computation of `value`. */
#define bench_keep(value) __asm__ __volatile__("" : : "g"(value) : "memory")

/* Always on: a bench that measures wrong results is worse than none. Prints and aborts. */
#define BENCH_CHECK(cond) ((cond) ? (void)0 : bench_check_failed(#cond, __FILE__, __LINE__))
_Noreturn void bench_check_failed(const char *condition, const char *file, int line);

#endif
