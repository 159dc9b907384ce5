/*
 * bench_timer.c: timers: what a timer costs its owner, and timers_poll: how long a single poll of a
 * full wheel is. Both on a wheel of a worker's own, without a runtime: time is an argument, so 30 s
 * pass as fast as the polls go.
 *
 * The timers lie in one array and are inserted in its order, as processes get them that are spawned
 * one after the other; their deadlines are random, so they expire, and are cancelled, in random
 * order: each access then is to memory that the caches do not hold (40 MB at a million).
 */
#include "perf/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "timer/wheel.h"

#define SPAN_NS ((int64_t)30 * 1000000000)
#define POLL_NS ((int64_t)50 * 1000)

enum {
	POLLS = (int)(SPAN_NS / POLL_NS) + 2, /* the last timer's tick may end after the span */
	HOT_OPS_EACH = 10,                    /* of one timer that stays in the caches, per n */
};

struct timers {
	struct wf_wheel wheel;
	uint64_t n;
	int64_t start_ns;
	struct wf_timer *timers;
	int64_t *deadlines_ns;
	uint32_t *order; /* a permutation */
};

static void timers_free(struct timers *t)
{
	if (!t)
		return;
	free(t->timers);
	free(t->deadlines_ns);
	free(t->order);
	free(t);
}

static struct timers *timers_make(const struct bench_args *args)
{
	struct timers *t = aligned_alloc(_Alignof(struct timers), sizeof(*t));
	uint64_t n = args->n, seed = args->seed, i;

	if (!t)
		return NULL;
	*t = (struct timers){.n = n, .start_ns = (int64_t)bench_now_ns()};
	t->timers = calloc(n, sizeof(*t->timers));
	t->deadlines_ns = malloc(n * sizeof(*t->deadlines_ns));
	t->order = malloc(n * sizeof(*t->order));
	if (!t->timers || !t->deadlines_ns || !t->order || n > UINT32_MAX) {
		timers_free(t);
		return NULL;
	}
	/* Page faults are not what is measured. */
	memset(t->timers, 0xff, n * sizeof(*t->timers));
	memset(t->timers, 0, n * sizeof(*t->timers));
	for (i = 0; i < n; i++) {
		uint64_t j = bench_random(&seed) % (i + 1);

		t->deadlines_ns[i] = t->start_ns + 1 + (int64_t)(bench_random(&seed) % SPAN_NS);
		t->order[i] = t->order[j];
		t->order[j] = (uint32_t)i;
	}
	wf_wheel_init(&t->wheel, t->start_ns);
	return t;
}

/* The warm-up of a small n may have none of an operation. */
static double per_op(uint64_t start_ns, uint64_t count)
{
	return (double)(bench_now_ns() - start_ns) / (double)(count ? count : 1);
}

static void insert_all(struct timers *t)
{
	uint64_t i;

	for (i = 0; i < t->n; i++)
		wf_wheel_insert(&t->wheel, &t->timers[i], t->deadlines_ns[i]);
}

/*
 * One poll as a worker makes it, but for what it would do with the timer. Returns how many fired.
 */
static uint64_t poll_at(struct timers *t, int64_t now_ns)
{
	struct wf_timer *timer;
	uint64_t fired = 0;

	wf_wheel_advance(&t->wheel, now_ns);
	while ((timer = wf_wheel_pop_due(&t->wheel))) {
		BENCH_CHECK(timer->deadline_ns <= now_ns);
		fired++;
	}
	return fired;
}

/* ---- timers --------------------------------------------------------------------------------- */

static void measure_near(struct timers *t, struct bench_row *row)
{
	uint64_t start_ns = bench_now_ns(), count = t->n * HOT_OPS_EACH, i;
	struct wf_timer timer = {0};

	/* An I/O timeout that is never reached: 100 to 165 us ahead, on two levels. */
	for (i = 0; i < count; i++) {
		wf_wheel_insert(
			&t->wheel, &timer, t->start_ns + 100000 + (int64_t)(i * 977 % 65536));
		bench_keep(wf_wheel_cancel(&t->wheel, &timer));
	}
	bench_row_set(row, BENCH_NS_PER_OP, per_op(start_ns, count));
}

static void measure_later(struct timers *t, struct bench_row *row)
{
	struct wf_timer timer = {0};
	uint64_t start_ns, count = t->n * HOT_OPS_EACH, i;

	wf_wheel_insert(&t->wheel, &timer, t->start_ns + POLL_NS);
	start_ns = bench_now_ns();
	for (i = 0; i < count; i++) {
		wf_wheel_move(&t->wheel, &timer, t->start_ns + POLL_NS + (int64_t)i);
		bench_keep(&timer);
	}
	bench_row_set(row, BENCH_NS_PER_OP, per_op(start_ns, count));
	wf_wheel_cancel(&t->wheel, &timer);
}

static void measure_later_random(struct timers *t, struct bench_row *row)
{
	uint64_t start_ns = bench_now_ns(), i;

	for (i = 0; i < t->n; i++) {
		uint32_t k = t->order[i];

		wf_wheel_move(&t->wheel, &t->timers[k], t->deadlines_ns[k]);
	}
	bench_row_set(row, BENCH_NS_PER_OP, per_op(start_ns, t->n));
}

/* Half are cancelled in random order; the others expire. */
static void measure_cancel_and_expire(struct timers *t, struct bench_row *row)
{
	uint64_t start_ns = bench_now_ns(), half = t->n / 2, fired = 0, i;

	for (i = 0; i < half; i++)
		bench_keep(wf_wheel_cancel(&t->wheel, &t->timers[t->order[i]]));
	bench_row_set(row, BENCH_CANCEL_NS, per_op(start_ns, half));
	BENCH_CHECK(wf_wheel_count(&t->wheel) == t->n - half);
	start_ns = bench_now_ns();
	for (i = 1; i <= POLLS; i++)
		fired += poll_at(t, t->start_ns + (int64_t)i * POLL_NS);
	bench_row_set(row, BENCH_NS_PER_OP, per_op(start_ns, t->n - half));
	BENCH_CHECK(fired == t->n - half);
}

static int timers_run(const struct bench_args *args, struct bench_result *result)
{
	struct timers *t = timers_make(args);
	struct bench_row *row;
	uint64_t start_ns;

	if (!t)
		return -ENOMEM;
	row = bench_row_add(result, "random", "-");
	start_ns = bench_now_ns();
	insert_all(t);
	bench_row_set(row, BENCH_INSERT_NS, per_op(start_ns, t->n));
	measure_near(t, bench_row_add(result, "near pair", "-"));
	measure_later(t, bench_row_add(result, "later, one", "-"));
	measure_later_random(t, bench_row_add(result, "later, random", "-"));
	measure_cancel_and_expire(t, row);
	timers_free(t);
	return 0;
}

const struct bench_workload bench_timers = {
	.name = "timers",
	.help = "n timers, random over 30 s: insert, cancel half, expire the rest; and one timer "
		"alone",
	.n_default = 1000000,
	.run = timers_run,
};

/* ---- timers_poll ---------------------------------------------------------------------------- */

/* The clock is read once per poll, so each sample has one read of it: the row without timers. */
static void measure_polls(struct timers *t, uint64_t *samples_ns, struct bench_row *row)
{
	uint64_t last_ns = bench_now_ns(), begin_ns = last_ns, i;

	for (i = 0; i < POLLS; i++) {
		uint64_t now_ns;

		(void)poll_at(t, t->start_ns + (int64_t)(i + 1) * POLL_NS);
		now_ns = bench_now_ns();
		samples_ns[i] = now_ns - last_ns;
		last_ns = now_ns;
	}
	bench_row_set(row, BENCH_NS_PER_OP, per_op(begin_ns, POLLS));
	bench_row_percentiles(row, samples_ns, POLLS);
	BENCH_CHECK(wf_wheel_count(&t->wheel) == 0);
}

static int timers_poll_run(const struct bench_args *args, struct bench_result *result)
{
	uint64_t *samples_ns = calloc(POLLS, sizeof(*samples_ns));
	struct timers *t = timers_make(args);

	if (!t || !samples_ns) {
		timers_free(t);
		free(samples_ns);
		return -ENOMEM;
	}
	insert_all(t);
	measure_polls(t, samples_ns, bench_row_add(result, "n timers", "-"));
	wf_wheel_init(&t->wheel, t->start_ns);
	measure_polls(t, samples_ns, bench_row_add(result, "no timers", "-"));
	timers_free(t);
	free(samples_ns);
	return 0;
}

const struct bench_workload bench_timers_poll = {
	.name = "timers_poll",
	.help = "a poll of a wheel with n timers, random over 30 s, every 50 us of their time",
	.n_default = 1000000,
	.run = timers_poll_run,
};
