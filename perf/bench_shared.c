/*
 * bench_shared.c: timers_shared: the shared wheel by itself, without a runtime: what a timer costs
 * whoever inserts, moves or cancels it, alone and beside another core that does the same, and who
 * expires it; and weft_timer_move(). As in bench_timer.c time is an argument, the timers lie in one
 * array and are inserted in its order, and their deadlines are random.
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "timer/shared.h"

#define SPAN_NS ((int64_t)30 * 1000000000)
#define POLL_NS ((int64_t)50 * 1000)

enum {
	SHARDS = 2,
	HOT_OPS_EACH = 5, /* of one timer that stays in the caches, per n */
};

struct timers {
	struct wf_shared_shard shards[SHARDS];
	struct wf_shared shared;
	uint64_t n;
	int64_t start_ns;
	struct wf_timer *timers; /* i is in shard i % SHARDS */
	int64_t *deadlines_ns;
	uint32_t *order; /* a permutation */
	double move_ns;
};

static void copy(struct wf_timer *timer, enum wf_shared_kind kind, struct wf_shared_action *out)
{
	*out = (struct wf_shared_action){{(uintptr_t)timer, (uint64_t)timer->deadline_ns, kind}};
}

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
	memset(t, 0, sizeof(*t));
	t->n = n;
	t->start_ns = (int64_t)bench_now_ns();
	t->timers = malloc(n * sizeof(*t->timers));
	t->deadlines_ns = malloc(n * sizeof(*t->deadlines_ns));
	t->order = malloc(n * sizeof(*t->order));
	if (!t->timers || !t->deadlines_ns || !t->order || n > UINT32_MAX) {
		timers_free(t);
		return NULL;
	}
	memset(t->timers, 0, n * sizeof(*t->timers)); /* page faults are not what is measured */
	for (i = 0; i < n; i++) {
		uint64_t j = bench_random(&seed) % (i + 1);

		t->deadlines_ns[i] = t->start_ns + 1 + (int64_t)(bench_random(&seed) % SPAN_NS);
		t->order[i] = t->order[j];
		t->order[j] = (uint32_t)i;
	}
	wf_shared_init(&t->shared, t->shards, SHARDS, t->start_ns, copy);
	return t;
}

/* The warm-up of a small n may have none of an operation. */
static double per_op(uint64_t start_ns, uint64_t count)
{
	return (double)(bench_now_ns() - start_ns) / (double)(count ? count : 1);
}

/* ---- One near timer each, beside the million ------------------------------------------------- */

/* An I/O timeout that is never reached: 100 to 165 us ahead, on two levels. */
static double pairs(struct timers *t, unsigned shard)
{
	uint64_t count = t->n * HOT_OPS_EACH, start_ns = bench_now_ns(), i;
	struct wf_timer timer WF_ALIGNED(WF_FALSE_SHARING) = {0};

	for (i = 0; i < count; i++) {
		bench_keep(wf_shared_insert(&t->shared, shard, &timer, WF_SHARED_TIMER,
			t->start_ns + 100000 + (int64_t)(i * 977 % 65536)));
		bench_keep(wf_shared_cancel(&t->shared, shard, &timer, NULL));
	}
	return per_op(start_ns, count);
}

struct meeting {
	struct timers *timers;
	void (*other)(struct meeting *meeting); /* what the second core does until `over` */
	unsigned shards[2];
	wf_atomic_u32 ready, over;
	double ns[2];
};

static void meet(struct meeting *meeting, unsigned core)
{
	bench_pin(core);
	wf_u32_fetch_add(&meeting->ready, 1);
	while (wf_u32_load_acquire(&meeting->ready) < 2)
		wf_pause();
}

static void other_pairs(struct meeting *meeting)
{
	meeting->ns[1] = pairs(meeting->timers, meeting->shards[1]);
}

/* The shard's own worker, in turns with nothing to do. */
static void other_polls(struct meeting *meeting)
{
	struct timers *t = meeting->timers;
	struct wf_shared_batch batch;

	while (!wf_u32_load_relaxed(&meeting->over)) {
		if (wf_shared_shard_next(&t->shared, 1) <= t->start_ns)
			bench_keep(wf_shared_expire(&t->shared, 1, t->start_ns, true, &batch));
		wf_pause();
	}
}

static void *second(void *arg)
{
	struct meeting *meeting = arg;

	meet(meeting, 1);
	meeting->other(meeting);
	return NULL;
}

/* The slower of the two, where both are counted: each pair is one operation of its own core. */
static int measure_two(struct timers *t, void (*other)(struct meeting *), unsigned first_shard,
	unsigned second_shard, struct bench_row *row)
{
	struct meeting meeting = {
		.timers = t, .other = other, .shards = {first_shard, second_shard}};
	pthread_t thread;
	int error = pthread_create(&thread, NULL, second, &meeting);

	if (error)
		return -error;
	meet(&meeting, 0);
	meeting.ns[0] = pairs(t, first_shard);
	wf_u32_store_relaxed(&meeting.over, 1);
	pthread_join(thread, NULL);
	bench_row_set(row, BENCH_NS_PER_OP,
		meeting.ns[0] > meeting.ns[1] ? meeting.ns[0] : meeting.ns[1]);
	return 0;
}

/* ---- The million ----------------------------------------------------------------------------- */

static void measure_insert(struct timers *t, struct bench_row *row)
{
	uint64_t start_ns = bench_now_ns(), i;

	for (i = 0; i < t->n; i++)
		bench_keep(wf_shared_insert(&t->shared, i % SHARDS, &t->timers[i], WF_SHARED_TIMER,
			t->deadlines_ns[i]));
	bench_row_set(row, BENCH_INSERT_NS, per_op(start_ns, t->n));
}

static void measure_later(struct timers *t, struct bench_row *row)
{
	uint64_t count = t->n * HOT_OPS_EACH, start_ns, i;
	struct wf_timer timer = {0};

	(void)wf_shared_insert(&t->shared, 0, &timer, WF_SHARED_TIMER, t->start_ns + POLL_NS);
	start_ns = bench_now_ns();
	for (i = 0; i < count; i++)
		bench_keep(wf_shared_later(&timer, t->start_ns + POLL_NS + (int64_t)i));
	bench_row_set(row, BENCH_NS_PER_OP, per_op(start_ns, count));
	BENCH_CHECK(wf_shared_cancel(&t->shared, 0, &timer, NULL));
}

static void measure_later_random(struct timers *t, struct bench_row *row)
{
	uint64_t start_ns = bench_now_ns(), i;

	for (i = 0; i < t->n; i++) {
		uint32_t k = t->order[i];

		bench_keep(wf_shared_later(&t->timers[k], t->deadlines_ns[k]));
	}
	bench_row_set(row, BENCH_NS_PER_OP, per_op(start_ns, t->n));
}

static void nothing(void *arg)
{
	(void)arg;
}

static int move_main(void *arg)
{
	struct timers *t = arg;
	uint64_t count = t->n * HOT_OPS_EACH, start_ns, i;
	struct weft_timer timer = {0};
	weft_time deadline = weft_after(WEFT_SEC(3600));
	int r = weft_timer_start(&timer, NULL, deadline, nothing, NULL);

	if (r < 0)
		return r;
	start_ns = bench_now_ns();
	for (i = 0; i < count; i++)
		bench_keep(weft_timer_move(&timer, deadline + (weft_time)i));
	t->move_ns = per_op(start_ns, count);
	BENCH_CHECK(weft_timer_stop(&timer) == 1);
	return 0;
}

static int measure_move(
	struct timers *t, const struct bench_args *args, struct bench_row *row)
{
	struct bench_args one = *args;
	int error;

	one.workers = 1;
	one.idle = BENCH_IDLE_PARK;
	error = bench_runtime_run(&one, move_main, t);

	bench_row_set(row, BENCH_NS_PER_OP, t->move_ns);
	return error;
}

/* What a worker does of a shard in one turn, but for the actions. */
static uint64_t poll_shard(struct timers *t, unsigned shard, int64_t now_ns)
{
	struct wf_shared_batch batch;
	uint64_t fired = 0;
	int64_t next_ns;

	while (wf_shared_shard_next(&t->shared, shard) <= now_ns) {
		if (wf_shared_expire(&t->shared, shard, now_ns, true, &batch) != WF_SHARED_FIRES)
			continue;
		for (unsigned i = 0; i < batch.count; i++)
			BENCH_CHECK((int64_t)batch.actions[i].word[1] <= now_ns);
		fired += batch.count;
		wf_shared_expired(&t->shared, shard, &next_ns);
	}
	return fired;
}

/* Half are cancelled in random order; the others expire. */
static void measure_cancel_and_expire(struct timers *t, struct bench_row *row)
{
	uint64_t start_ns = bench_now_ns(), half = t->n / 2, fired = 0, i;
	int64_t now_ns, end_ns = t->start_ns + SPAN_NS + 2 * POLL_NS;

	for (i = 0; i < half; i++) {
		uint32_t k = t->order[i];

		bench_keep(wf_shared_cancel(&t->shared, k % SHARDS, &t->timers[k], NULL));
	}
	bench_row_set(row, BENCH_CANCEL_NS, per_op(start_ns, half));
	BENCH_CHECK(wf_shared_pending(&t->shared) == t->n - half);
	start_ns = bench_now_ns();
	for (now_ns = t->start_ns; now_ns < end_ns; now_ns += POLL_NS)
		for (unsigned shard = 0; shard < SHARDS; shard++)
			fired += poll_shard(t, shard, now_ns);
	bench_row_set(row, BENCH_NS_PER_OP, per_op(start_ns, t->n - half));
	BENCH_CHECK(fired == t->n - half);
}

static struct bench_row *apart(struct bench_result *result, const char *variant)
{
	struct bench_row *row = bench_row_add(result, variant, "-");

	row->apart = true;
	return row;
}

static int run(const struct bench_args *args, struct bench_result *result)
{
	struct timers *t = timers_make(args);
	struct bench_row *two = bench_row_add(result, "two cores, own shards", "-"), *all;
	int error;

	if (!t)
		return -ENOMEM;
	bench_pin(0);
	all = apart(result, "all: insert, cancel, expire");
	measure_insert(t, all);
	error = measure_two(t, other_pairs, 0, 1, two);
	if (!error)
		error = measure_two(
			t, other_pairs, 0, 0, bench_row_add(result, "two cores, one shard", "-"));
	bench_row_set(bench_row_add(result, "one core", "-"), BENCH_NS_PER_OP, pairs(t, 0));
	if (!error)
		error = measure_two(t, other_polls, 1, 1,
			bench_row_add(result, "into a shard that is polled", "-"));
	measure_later(t, apart(result, "later, one"));
	measure_later_random(t, apart(result, "later, random"));
	if (!error)
		error = measure_move(t, args, apart(result, "later, weft_timer_move"));
	measure_cancel_and_expire(t, all);
	timers_free(t);
	return error;
}

const struct bench_workload bench_timers_shared = {
	.name = "timers_shared",
	.help = "n timers in two shards: insert and cancel from two cores, later, and all of n",
	.n_default = 1000000,
	.run = run,
};
