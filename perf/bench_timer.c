/*
 * bench_timer.c: timers: what a timer costs its owner; rearm: moving its deadline later; and
 * timers_poll: how long a single poll of a full wheel is. All on a wheel of a worker's own, without
 * a runtime: time is an argument, so 30 s pass as fast as the polls go. With --rival cascade the
 * same is done to a plain cascading wheel (perf/rivals/cascade).
 *
 * The timers lie in one array and are inserted in its order, as processes get them that are spawned
 * one after the other; their deadlines are random, so they expire, and are cancelled, in random
 * order: each access then is to memory that the caches do not hold (40 MB at a million).
 */
#include "perf/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "perf/rivals/cascade/cascade.h"
#include "timer/wheel.h"

#define SPAN_NS ((int64_t)30 * 1000000000)
#define POLL_NS ((int64_t)50 * 1000)

enum {
	POLLS = (int)(SPAN_NS / POLL_NS) + 2, /* the last timer's tick may end after the span */
	HOT_OPS_EACH = 10,                    /* of one timer that stays in the caches, per n */
	REPLAYS = 5,                          /* of the same 30 s, to tell noise from work */
	BLOCK_POLLS = 10000,                  /* of one wheel, before another has its turn */
	SLICES = 1001,                        /* of a measured loop */
};

/* What both wheels are asked to do. */
struct plan {
	uint64_t n;
	int64_t start_ns;
	int64_t *deadlines_ns;
	uint32_t *order; /* a permutation */
};

/* A wheel with timers 1 to n of a plan, and 0 for other use. Its `kind` knows which wheel it is. */
struct timers {
	struct wf_wheel weft;
	struct cascade cascade;
	void *nodes;
	int64_t start_ns; /* as in the plan */
	const struct plan *plan;
};

/* One wheel behind one set of names; every use is inlined, so that none pays for a pointer. */
struct kind {
	const char *prefix;
	size_t node_bytes;
	void (*init)(struct timers *t, int64_t now_ns);
	void (*insert)(struct timers *t, uint64_t index, int64_t deadline_ns);
	bool (*cancel)(struct timers *t, uint64_t index);
	void (*move)(struct timers *t, uint64_t index, int64_t deadline_ns);
	void (*advance)(struct timers *t, int64_t now_ns);
	bool (*pop)(struct timers *t, int64_t *deadline_ns_out);
	uint64_t (*count)(const struct timers *t);
};

/* ---- The two wheels -------------------------------------------------------------------------- */

WF_INLINE void weft_init(struct timers *t, int64_t now_ns)
{
	wf_wheel_init(&t->weft, now_ns);
}

WF_INLINE void weft_insert(struct timers *t, uint64_t index, int64_t deadline_ns)
{
	wf_wheel_insert(&t->weft, (struct wf_timer *)t->nodes + index, deadline_ns);
}

WF_INLINE bool weft_cancel(struct timers *t, uint64_t index)
{
	return wf_wheel_cancel(&t->weft, (struct wf_timer *)t->nodes + index);
}

WF_INLINE void weft_move(struct timers *t, uint64_t index, int64_t deadline_ns)
{
	wf_wheel_move(&t->weft, (struct wf_timer *)t->nodes + index, deadline_ns);
}

WF_INLINE void weft_advance(struct timers *t, int64_t now_ns)
{
	wf_wheel_advance(&t->weft, now_ns);
}

WF_INLINE bool weft_pop(struct timers *t, int64_t *deadline_ns_out)
{
	struct wf_timer *timer = wf_wheel_pop_due(&t->weft);

	*deadline_ns_out = timer ? timer->deadline_ns : 0;
	return timer != NULL;
}

WF_INLINE uint64_t weft_count(const struct timers *t)
{
	return wf_wheel_count(&t->weft);
}

WF_INLINE void plain_init(struct timers *t, int64_t now_ns)
{
	cascade_init(&t->cascade, now_ns);
}

WF_INLINE void plain_insert(struct timers *t, uint64_t index, int64_t deadline_ns)
{
	cascade_insert(&t->cascade, (struct cascade_timer *)t->nodes + index, deadline_ns);
}

WF_INLINE bool plain_cancel(struct timers *t, uint64_t index)
{
	return cascade_cancel(&t->cascade, (struct cascade_timer *)t->nodes + index);
}

WF_INLINE void plain_move(struct timers *t, uint64_t index, int64_t deadline_ns)
{
	cascade_move(&t->cascade, (struct cascade_timer *)t->nodes + index, deadline_ns);
}

WF_INLINE void plain_advance(struct timers *t, int64_t now_ns)
{
	cascade_advance(&t->cascade, now_ns);
}

WF_INLINE bool plain_pop(struct timers *t, int64_t *deadline_ns_out)
{
	struct cascade_timer *timer = cascade_pop_due(&t->cascade);

	*deadline_ns_out = timer ? timer->deadline_ns : 0;
	return timer != NULL;
}

WF_INLINE uint64_t plain_count(const struct timers *t)
{
	return t->cascade.count;
}

#define WEFT                                                                             \
	((struct kind){"", sizeof(struct wf_timer), weft_init, weft_insert, weft_cancel, \
		weft_move, weft_advance, weft_pop, weft_count})
#define CASCADE                                                                             \
	((struct kind){"cascade, ", sizeof(struct cascade_timer), plain_init, plain_insert, \
		plain_cancel, plain_move, plain_advance, plain_pop, plain_count})

/* ---- What they share ------------------------------------------------------------------------- */

static void plan_free(struct plan *plan)
{
	free(plan->deadlines_ns);
	free(plan->order);
}

static bool plan_make(const struct bench_args *args, struct plan *plan_out)
{
	uint64_t n = args->n, seed = args->seed, i;
	struct plan plan = {.n = n, .start_ns = (int64_t)bench_now_ns()};

	if (n > UINT32_MAX)
		return false;
	plan.deadlines_ns = malloc(n * sizeof(*plan.deadlines_ns));
	plan.order = malloc(n * sizeof(*plan.order));
	if (!plan.deadlines_ns || !plan.order) {
		plan_free(&plan);
		return false;
	}
	for (i = 0; i < n; i++) {
		uint64_t j = bench_random(&seed) % (i + 1);

		plan.deadlines_ns[i] = plan.start_ns + 1 + (int64_t)(bench_random(&seed) % SPAN_NS);
		plan.order[i] = plan.order[j];
		plan.order[j] = (uint32_t)i;
	}
	*plan_out = plan;
	return true;
}

static void timers_free(struct timers *t)
{
	if (t)
		free(t->nodes);
	free(t);
}

static struct timers *timers_make(const struct plan *plan, const struct kind kind)
{
	struct timers *t = aligned_alloc(_Alignof(struct timers), sizeof(*t));
	size_t bytes = (plan->n + 1) * kind.node_bytes;

	BENCH_CHECK(t);
	t->plan = plan;
	t->start_ns = plan->start_ns;
	t->nodes = malloc(bytes);
	BENCH_CHECK(t->nodes);
	/* Page faults are not what is measured. */
	memset(t->nodes, 0xff, bytes);
	memset(t->nodes, 0, bytes);
	kind.init(t, plan->start_ns);
	return t;
}

/* A rival's row stands beside ours of that name, which is `beside`. */
static struct bench_row *row_add(
	struct bench_result *result, const struct kind kind, const char *what, unsigned beside)
{
	char variant[BENCH_TEXT_MAX];
	struct bench_row *row;

	snprintf(variant, sizeof(variant), "%s%s", kind.prefix, what);
	row = bench_row_add(result, variant, "-");
	row->beside = beside;
	row->apart = kind.prefix[0] == '\0';
	return row;
}

/* What is done `count` times, and measured; always inlined. */
typedef void (*operation_fn)(struct timers *t, const struct kind kind, uint64_t i);

WF_INLINE double slice_ns(struct timers *t, const struct kind kind, operation_fn operation,
	uint64_t from, uint64_t to)
{
	uint64_t start_ns = bench_now_ns(), i;

	for (i = from; i < to; i++)
		operation(t, kind, i);
	return (double)(bench_now_ns() - start_ns) / (double)(to - from);
}

static int compare_double(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return a < b ? -1 : a > b;
}

/*
 * An operation's time, on our wheel and, if there is one, on the rival's: in slices, by turns, and
 * of each the median, which a slice that lost its processor does not move.
 */
WF_INLINE void measure(struct timers *const t[2], operation_fn operation, uint64_t count,
	struct bench_row *const rows[2], enum bench_metric metric)
{
	static double ns[2][SLICES];
	uint64_t slices = count < SLICES ? 1 : SLICES, i;

	if (count == 0)
		return;
	for (i = 0; i < slices; i++) {
		uint64_t from = count * i / slices, to = count * (i + 1) / slices;

		ns[0][i] = slice_ns(t[0], WEFT, operation, from, to);
		if (t[1])
			ns[1][i] = slice_ns(t[1], CASCADE, operation, from, to);
	}
	for (i = 0; i < 2 && t[i]; i++) {
		qsort(ns[i], slices, sizeof(ns[i][0]), compare_double);
		bench_row_set(rows[i], metric, ns[i][slices / 2]);
	}
}

WF_INLINE void insert_one(struct timers *t, const struct kind kind, uint64_t i)
{
	kind.insert(t, i + 1, t->plan->deadlines_ns[i]);
}

WF_INLINE void insert_all(struct timers *t, const struct kind kind)
{
	uint64_t i;

	for (i = 0; i < t->plan->n; i++)
		insert_one(t, kind, i);
}

/* Ours, and the rival if it is wanted. */
static void pair_make(
	const struct plan *plan, const struct bench_args *args, struct timers *pair_out[2])
{
	pair_out[0] = timers_make(plan, WEFT);
	pair_out[1] = args->rival ? timers_make(plan, CASCADE) : NULL;
}

static void pair_free(struct timers *pair[2])
{
	timers_free(pair[0]);
	timers_free(pair[1]);
}

/*
 * One poll as a worker makes it, but for what it would do with the timer. Returns how many fired.
 */
WF_INLINE uint64_t poll_at(struct timers *t, const struct kind kind, int64_t now_ns)
{
	int64_t deadline_ns;
	uint64_t fired = 0;

	kind.advance(t, now_ns);
	while (kind.pop(t, &deadline_ns)) {
		BENCH_CHECK(deadline_ns <= now_ns);
		fired++;
	}
	return fired;
}

/* ---- timers --------------------------------------------------------------------------------- */

/* An I/O timeout that is never reached: 100 to 165 us ahead, on two levels. */
WF_INLINE void near_pair(struct timers *t, const struct kind kind, uint64_t i)
{
	kind.insert(t, 0, t->start_ns + 100000 + (int64_t)(i * 977 % 65536));
	bench_keep(kind.cancel(t, 0));
}

WF_INLINE void cancel_random(struct timers *t, const struct kind kind, uint64_t i)
{
	bench_keep(kind.cancel(t, t->plan->order[i] + 1));
}

/* All that is left, with all its moves. */
WF_INLINE void measure_expire(struct timers *t, const struct kind kind, struct bench_row *row)
{
	uint64_t left = kind.count(t), start_ns = bench_now_ns(), cpu_ns = bench_cpu_ns();
	uint64_t fired = 0, i;

	for (i = 1; i <= POLLS; i++)
		fired += poll_at(t, kind, t->plan->start_ns + (int64_t)i * POLL_NS);
	BENCH_CHECK(fired == left && kind.count(t) == 0);
	bench_row_set(row, BENCH_NS_PER_OP, (double)(bench_now_ns() - start_ns) / (double)left);
	bench_row_set(row, BENCH_CPU_NS, (double)(bench_cpu_ns() - cpu_ns) / (double)left);
}

static int timers_run(const struct bench_args *args, struct bench_result *result)
{
	struct bench_row *random[2], *near[2];
	struct timers *pair[2];
	struct plan plan;

	if (!plan_make(args, &plan))
		return -ENOMEM;
	pair_make(&plan, args, pair);
	random[0] = row_add(result, WEFT, "random", 0);
	near[0] = row_add(result, WEFT, "near pair", 1);
	random[1] = pair[1] ? row_add(result, CASCADE, "random", 0) : NULL;
	near[1] = pair[1] ? row_add(result, CASCADE, "near pair", 1) : NULL;
	measure(pair, insert_one, plan.n, random, BENCH_INSERT_NS);
	measure(pair, near_pair, plan.n * HOT_OPS_EACH, near, BENCH_NS_PER_OP);
	/* The others expire. */
	measure(pair, cancel_random, plan.n / 2, random, BENCH_CANCEL_NS);
	measure_expire(pair[0], WEFT, random[0]);
	if (pair[1])
		measure_expire(pair[1], CASCADE, random[1]);
	pair_free(pair);
	plan_free(&plan);
	return 0;
}

const struct bench_workload bench_timers = {
	.name = "timers",
	.help = "n timers, random over 30 s: insert, cancel half, expire the rest; and one timer "
		"alone",
	.n_default = 1000000,
	.rival = "cascade",
	.run = timers_run,
};

/* ---- rearm ----------------------------------------------------------------------------------- */

/* As a busy connection pushes its idle timeout back: by 5 us each time. */
WF_INLINE void rearm_one(struct timers *t, const struct kind kind, uint64_t i)
{
	kind.move(t, 0, t->start_ns + SPAN_NS + (int64_t)(i + 1) * 5000);
	bench_keep(t);
}

WF_INLINE void rearm_random(struct timers *t, const struct kind kind, uint64_t i)
{
	kind.move(t, t->plan->order[i] + 1, t->start_ns + SPAN_NS + (int64_t)(i + 1) * 5000);
}

static int rearm_run(const struct bench_args *args, struct bench_result *result)
{
	struct bench_row *one[2], *random[2];
	struct timers *pair[2];
	struct plan plan;

	if (!plan_make(args, &plan))
		return -ENOMEM;
	pair_make(&plan, args, pair);
	one[0] = row_add(result, WEFT, "one", 0);
	random[0] = row_add(result, WEFT, "random", 1);
	one[1] = pair[1] ? row_add(result, CASCADE, "one", 0) : NULL;
	random[1] = pair[1] ? row_add(result, CASCADE, "random", 1) : NULL;
	insert_all(pair[0], WEFT);
	if (pair[1])
		insert_all(pair[1], CASCADE);
	measure(pair, rearm_one, plan.n * HOT_OPS_EACH, one, BENCH_NS_PER_OP);
	measure(pair, rearm_random, plan.n, random, BENCH_NS_PER_OP);
	BENCH_CHECK(weft_count(pair[0]) == plan.n + 1);
	pair_free(pair);
	plan_free(&plan);
	return 0;
}

const struct bench_workload bench_rearm = {
	.name = "rearm",
	.help = "a deadline moved later, beside n timers: of one timer, and of each of the n in "
		"random order",
	.n_default = 1000000,
	.rival = "cascade",
	.run = rearm_run,
};

/* ---- timers_poll ---------------------------------------------------------------------------- */

enum poll_row { POLL_WEFT, POLL_HALF, POLL_EMPTY, POLL_CASCADE, POLL_ROWS };

/* Its timers, and how long each poll of each replay took. */
struct polled {
	struct timers *timers;
	bool cancels; /* a random half of the timers, evenly over the time */
	uint64_t cancelled, fired;
	uint64_t *samples_ns; /* by replay and poll */
};

/* Between two polls: those whose turn it is before poll `i`. */
WF_INLINE void cancel_some(struct polled *polled, const struct kind kind, unsigned i)
{
	const struct plan *plan = polled->timers->plan;
	uint64_t half = plan->n / 2, k = half * i / POLLS, end = half * (i + 1) / POLLS;

	for (; k < end; k++)
		polled->cancelled += kind.cancel(polled->timers, plan->order[k] + 1);
}

/* The clock is read once per poll, so each sample has one read of it: the row without timers. */
WF_INLINE void poll_block(
	struct polled *polled, const struct kind kind, unsigned replay, unsigned from)
{
	struct timers *t = polled->timers;
	uint64_t *samples_ns = polled->samples_ns + (size_t)replay * POLLS;
	unsigned i, to = from + BLOCK_POLLS < POLLS ? from + BLOCK_POLLS : POLLS;
	uint64_t last_ns = bench_now_ns();

	for (i = from; i < to; i++) {
		uint64_t now_ns;

		if (polled->cancels) {
			cancel_some(polled, kind, i);
			last_ns = bench_now_ns();
		}
		polled->fired += poll_at(t, kind, t->plan->start_ns + (int64_t)(i + 1) * POLL_NS);
		now_ns = bench_now_ns();
		samples_ns[i] = now_ns - last_ns;
		last_ns = now_ns;
	}
}

/*
 * The same 30 s, replay by replay: what a wheel does in a poll is the same in each, what the
 * machine does meanwhile is not. The wheels take turns of half a second of their time.
 */
static void poll_all(struct polled *polled, unsigned rows, unsigned replays)
{
	unsigned replay, from, row;

	for (replay = 0; replay < replays; replay++) {
		for (row = 0; row < rows; row++) {
			struct timers *t = polled[row].timers;

			if (row == POLL_CASCADE) {
				plain_init(t, t->plan->start_ns);
				insert_all(t, CASCADE);
			} else {
				weft_init(t, t->plan->start_ns);
				if (row != POLL_EMPTY)
					insert_all(t, WEFT);
			}
		}
		for (from = 0; from < POLLS; from += BLOCK_POLLS)
			for (row = 0; row < rows; row++)
				if (row == POLL_CASCADE)
					poll_block(&polled[row], CASCADE, replay, from);
				else
					poll_block(&polled[row], WEFT, replay, from);
	}
}

/*
 * Of all polls; and of each poll's least time in any replay: what noise made long in one, it did
 * not in all of them.
 */
static void polls_report(
	struct polled *polled, const char *what, unsigned replays, struct bench_result *result)
{
	uint64_t *samples_ns = polled->samples_ns, *least_ns = malloc(POLLS * sizeof(*least_ns));
	size_t count = (size_t)replays * POLLS, i;
	char variant[BENCH_TEXT_MAX];
	struct bench_row *row;
	double sum_ns = 0;

	BENCH_CHECK(least_ns);
	memcpy(least_ns, samples_ns, POLLS * sizeof(*least_ns));
	for (i = 0; i < count; i++) {
		sum_ns += (double)samples_ns[i];
		if (samples_ns[i] < least_ns[i % POLLS])
			least_ns[i % POLLS] = samples_ns[i];
	}
	row = bench_row_add(result, what, "-");
	bench_row_set(row, BENCH_NS_PER_OP, sum_ns / (double)count);
	bench_row_percentiles(row, samples_ns, count);
	snprintf(variant, sizeof(variant), "%s, least", what);
	row = bench_row_add(result, variant, "-");
	row->beside = 1;
	row->apart = result->row_count == 2;
	bench_row_percentiles(row, least_ns, POLLS);
	free(least_ns);
}

static int timers_poll_run(const struct bench_args *args, struct bench_result *result)
{
	static const char *const names[POLL_ROWS] = {
		"n timers", "half cancelled", "no timers", "cascade"};
	unsigned rows = args->rival ? POLL_ROWS : POLL_CASCADE, i;
	unsigned replays = args->warm_up ? 1 : REPLAYS;
	struct polled polled[POLL_ROWS] = {[POLL_HALF] = {.cancels = true}};
	struct plan plan;

	if (!plan_make(args, &plan))
		return -ENOMEM;
	for (i = 0; i < rows; i++) {
		polled[i].timers = timers_make(&plan, i == POLL_CASCADE ? CASCADE : WEFT);
		polled[i].samples_ns = calloc((size_t)replays * POLLS, sizeof(uint64_t));
		BENCH_CHECK(polled[i].samples_ns);
	}
	poll_all(polled, rows, replays);
	for (i = 0; i < rows; i++) {
		BENCH_CHECK(polled[i].fired + polled[i].cancelled ==
			    (i == POLL_EMPTY ? 0 : replays * plan.n));
		polls_report(&polled[i], names[i], replays, result);
		timers_free(polled[i].timers);
		free(polled[i].samples_ns);
	}
	plan_free(&plan);
	return 0;
}

const struct bench_workload bench_timers_poll = {
	.name = "timers_poll",
	.help = "a poll of a wheel with n timers, random over 30 s, every 50 us of their time; and "
		"the least of each in 5 replays",
	.n_default = 1000000,
	.rival = "cascade",
	.run = timers_poll_run,
};
