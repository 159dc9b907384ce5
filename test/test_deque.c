/*
 * sync/deque.h with one thread that plays owner and thieves in turn: rows Q1 to Q3, the overflow,
 * and random sequences against a plain array. Items are the numbers 1, 2, 3 …, cast to pointers.
 */
#include "test/harness.h"

#include "sync/deque.h"

enum {
	SIZE = WF_RING_SIZE,
	HALF = WF_RING_SIZE / 2,
	FIFO = WF_RUN_ORDER_FIFO,
};

static void *item(uint64_t number)
{
	return (void *)(uintptr_t)number;
}

static uint64_t number(const void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

static void *spill[WF_DEQUE_SPILL_MAX];

static void push(struct wf_deque *d, uint64_t n)
{
	cr_assert_eq(wf_deque_push(d, item(n), spill), 0, "item %llu", (unsigned long long)n);
	cr_assert(wf_deque_valid(d));
}

/* Pops everything: it must be the numbers first to last, in the order of this build. */
static void pop_all(struct wf_deque *d, uint64_t first, uint64_t last)
{
	uint64_t n;

	for (n = first; n <= last; n++)
		cr_assert_eq(number(wf_deque_pop(d)), FIFO ? n : last - (n - first));
	cr_assert_null(wf_deque_pop(d));
	cr_assert(wf_deque_is_empty(d));
	cr_assert(wf_deque_valid(d));
}

/* As if the queue had been in use for long: indices up to here are used up. */
static void age(struct wf_deque *d, uint64_t index)
{
	wf_deque_init(d);
	wf_u64_store_relaxed(&d->bottom, index);
	wf_u64_store_relaxed(&d->top, index);
	d->cached_top = index;
}

Test(deque, zero_is_an_empty_queue)
{
	static struct wf_deque d;
	void *taken[WF_DEQUE_STEAL_MAX] = {NULL};

	cr_assert(wf_deque_is_empty(&d));
	cr_assert_eq(wf_deque_count(&d), 0);
	cr_assert_null(wf_deque_pop(&d));
	cr_assert_eq(wf_deque_steal(&d, taken, WF_DEQUE_STEAL_MAX), 0);
	cr_assert(wf_deque_valid(&d));
	cr_assert_eq(wf_deque_room(&d, 1), SIZE);
}

Test(deque, takes_exactly_its_capacity_singly)
{
	static struct wf_deque d;
	uint64_t lap, n;

	for (lap = 0; lap < 5; lap++) { /* at every offset of the ring, once the laps add up */
		for (n = 1; n <= SIZE; n++) {
			cr_assert_eq(wf_deque_count(&d), n - 1);
			push(&d, n);
			cr_assert(!wf_deque_is_empty(&d));
		}
		cr_assert_eq(wf_deque_overflow_count(&d), 0);
		cr_assert_eq(wf_deque_room(&d, 1), 0);
		pop_all(&d, 1, SIZE);
		push(&d, 1);
		pop_all(&d, 1, 1);
	}
}

Test(deque, takes_exactly_its_capacity_in_chunks)
{
	static struct wf_deque d;
	void *chunk[SIZE + 1];
	uint64_t n, pushed;
	unsigned size;

	for (size = 1; size <= SIZE; size = size * 2 + 1) {
		for (pushed = 0; pushed < SIZE; pushed += size) {
			for (n = 0; n < size; n++)
				chunk[n] = item(pushed + n + 1);
			if (pushed + size > SIZE) {
				cr_assert_eq(wf_deque_push_many(&d, chunk, size), SIZE - pushed);
				cr_assert_eq(wf_deque_push_many(&d, chunk, size), 0);
			} else {
				cr_assert_eq(wf_deque_push_many(&d, chunk, size), size);
			}
			cr_assert(wf_deque_valid(&d));
		}
		cr_assert_eq(wf_deque_overflow_count(&d), 0);
		pop_all(&d, 1, SIZE);
	}
}

Test(deque, room_sees_what_thieves_have_taken)
{
	static struct wf_deque d;
	void *taken[WF_DEQUE_STEAL_MAX] = {NULL};
	uint64_t n;
	unsigned stolen;

	for (n = 1; n <= SIZE; n++)
		push(&d, n);
	stolen = wf_deque_steal(&d, taken, WF_DEQUE_STEAL_MAX);
	cr_assert_eq(stolen, WF_DEQUE_STEAL_MAX);
	cr_assert_geq(wf_deque_room(&d, stolen), stolen);
	for (n = 1; n <= stolen; n++) {
		cr_assert_eq(number(taken[n - 1]), n);
		push(&d, SIZE + n);
	}
	cr_assert_eq(wf_deque_overflow_count(&d), 0);
	pop_all(&d, stolen + 1, SIZE + stolen);
}

/* Q2: at every offset of the ring. */
Test(deque, overflow_gives_the_newer_half_and_the_new_item)
{
	static struct wf_deque d;
	uint64_t offset, n;

	for (offset = 0; offset < SIZE; offset += 1 + SIZE / 16) {
		age(&d, 1000 * (uint64_t)SIZE + offset);
		for (n = 1; n <= SIZE; n++)
			push(&d, n);
		cr_assert_eq(wf_deque_push(&d, item(SIZE + 1), spill), HALF + 1);
		for (n = 0; n <= HALF; n++)
			cr_assert_eq(number(spill[n]), HALF + 1 + n);
		cr_assert_eq(wf_deque_overflow_count(&d), 1);
		cr_assert(wf_deque_valid(&d));
		cr_assert_eq(wf_deque_count(&d), HALF);
		cr_assert(!wf_deque_is_empty(&d));
		cr_assert_eq(wf_deque_room(&d, SIZE), HALF);
		for (n = HALF + 1; n <= SIZE; n++) /* and the ring takes as much again */
			push(&d, n);
		pop_all(&d, 1, SIZE);
	}
}

/*
 * The queue of scope children is in lifo order in every build: the owner takes the newest, thieves
 * the oldest, one each.
 */
Test(deque, the_other_order_is_there_too)
{
	static struct wf_deque d;
	void *taken[2] = {NULL};
	uint64_t n;

	age(&d, 41);
	for (n = 1; n <= 4; n++)
		push(&d, n);
	cr_assert_eq(number(wf_deque_pop_newest(&d)), 4);
	cr_assert_eq(wf_deque_steal_oldest(&d, taken, 2), 1);
	cr_assert_eq(number(taken[0]), 1);
	cr_assert_eq(wf_deque_steal_oldest(&d, taken, 0), 0);
	cr_assert_eq(number(wf_deque_pop_newest(&d)), 3);
	cr_assert_eq(number(wf_deque_pop_newest(&d)), 2);
	cr_assert_null(wf_deque_pop_newest(&d));
	cr_assert_eq(wf_deque_steal_oldest(&d, taken, 2), 0);
	cr_assert(wf_deque_is_empty(&d));
	cr_assert(wf_deque_valid(&d));
}

#if WF_RUN_ORDER_FIFO

/*
 * The branch of a lost race, reached by hand: a thief has taken something since the owner looked.
 */
Test(deque, overflow_that_loses_to_a_thief_is_a_push)
{
	static struct wf_deque d;
	void *taken[1] = {NULL};
	uint64_t n;

	for (n = 1; n <= SIZE; n++)
		push(&d, n);
	cr_assert_eq(wf_deque_steal(&d, taken, 1), 1);
	cr_assert_eq(number(taken[0]), 1);
	cr_assert_eq(wf_deque_overflow(&d, item(SIZE + 1), spill), 0);
	cr_assert_eq(wf_deque_overflow_count(&d), 0);
	cr_assert(wf_deque_valid(&d));
	pop_all(&d, 2, SIZE + 1);
}

/* Q3 */
Test(deque, steal_takes_half_rounded_up)
{
	static struct wf_deque d;
	void *taken[WF_DEQUE_STEAL_MAX] = {NULL};
	uint64_t n, count, got;

	for (count = 0; count <= SIZE; count++) {
		age(&d, 77 + count);
		for (n = 1; n <= count; n++)
			push(&d, n);
		got = wf_deque_steal(&d, taken, WF_DEQUE_STEAL_MAX);
		cr_assert_eq(got, (count + 1) / 2);
		for (n = 1; n <= got; n++)
			cr_assert_eq(number(taken[n - 1]), n);
		cr_assert_eq(wf_deque_count(&d), count - got);
		pop_all(&d, got + 1, count);
	}
}

Test(deque, steal_takes_no_more_than_the_thief_wants)
{
	static struct wf_deque d;
	void *taken[WF_DEQUE_STEAL_MAX + 1] = {NULL};
	uint64_t n;

	for (n = 1; n <= SIZE; n++)
		push(&d, n);
	cr_assert_eq(wf_deque_steal(&d, taken, 0), 0);
	cr_assert_null(taken[0]);
	cr_assert_eq(wf_deque_steal(&d, taken, 1), 1);
	cr_assert_null(taken[1]);
	pop_all(&d, 2, SIZE);
}

/* A thief that read top long before bottom: what it computes is refused, and retried. */
Test(deque, a_snapshot_a_lap_apart_is_never_believed)
{
	static struct wf_deque d;
	void *taken[WF_DEQUE_STEAL_MAX] = {NULL};

	wf_deque_init(&d);
	wf_u64_store_relaxed(&d.bottom, SIZE + 1);
	cr_assert_eq(wf_deque_steal(&d, taken, WF_DEQUE_STEAL_MAX), 0);
	cr_assert_eq(wf_u64_load_relaxed(&d.top), 0);
	cr_assert(!wf_deque_valid(&d));
}

#else

/* Q3 */
Test(deque, steal_takes_the_oldest_one)
{
	static struct wf_deque d;
	void *taken[2] = {NULL, NULL};
	uint64_t n;

	for (n = 1; n <= 4; n++)
		push(&d, n);
	cr_assert_eq(wf_deque_steal(&d, taken, 0), 0);
	cr_assert_eq(wf_deque_steal(&d, taken, 2), 1);
	cr_assert_eq(number(taken[0]), 1);
	cr_assert_null(taken[1]);
	pop_all(&d, 2, 4);
}

#endif

Test(deque, publish_changes_nothing)
{
	static struct wf_deque d;

	push(&d, 1);
	push(&d, 2);
	wf_deque_publish(&d);
	cr_assert(wf_deque_valid(&d));
	pop_all(&d, 1, 2);
	wf_deque_publish(&d);
	cr_assert(wf_deque_is_empty(&d));
}

/* A queue in use for minutes has indices beyond 32 bits. */
Test(deque, indices_go_beyond_32_bits)
{
	static struct wf_deque d;
	void *taken[WF_DEQUE_STEAL_MAX] = {NULL};
	uint64_t n;

	age(&d, ((uint64_t)1 << 32) - 2);
	for (n = 1; n <= SIZE; n++)
		push(&d, n);
	cr_assert_eq(wf_deque_count(&d), SIZE);
	cr_assert_eq(wf_deque_steal(&d, taken, 1), 1);
	cr_assert_eq(number(taken[0]), 1);
	push(&d, SIZE + 1);
	cr_assert_eq(wf_deque_push(&d, item(SIZE + 2), spill), HALF + 1);
	pop_all(&d, 2, HALF + 1);
}

Test(deque, valid_names_what_is_broken)
{
	static struct wf_deque d;

	age(&d, 10);
	push(&d, 1);
	cr_assert(wf_deque_valid(&d));
	wf_u64_store_relaxed(&d.top, 12);
	cr_assert(!wf_deque_valid(&d), "top beyond bottom");
	wf_u64_store_relaxed(&d.top, 10);
	d.cached_top = 11;
	cr_assert(!wf_deque_valid(&d), "cached_top beyond top");
	d.cached_top = 10;
	wf_u64_store_relaxed(&d.bottom, 12);
	wf_ptr_store_relaxed(wf_deque_slot(&d, 11), NULL);
	cr_assert(!wf_deque_valid(&d), "a NULL item");
	wf_u64_store_relaxed(&d.bottom, 11);
	cr_assert(wf_deque_valid(&d));
}

/* --- random sequences against a plain array --- */

struct model {
	uint64_t items[SIZE];
	unsigned count;
};

static void model_drop_front(struct model *model, unsigned n)
{
	memmove(model->items, model->items + n, (model->count - n) * sizeof model->items[0]);
	model->count -= n;
}

static void model_push(struct model *model, struct wf_deque *d, uint64_t n)
{
	unsigned spilled = wf_deque_push(d, item(n), spill), i;

	if (model->count < SIZE) {
		cr_assert_eq(spilled, 0);
		model->items[model->count++] = n;
		return;
	}
	cr_assert_eq(spilled, HALF + 1);
	for (i = 0; i < HALF; i++)
		cr_assert_eq(number(spill[i]), model->items[HALF + i]);
	cr_assert_eq(number(spill[HALF]), n);
	model->count = HALF;
}

static void model_pop(struct model *model, struct wf_deque *d)
{
	void *got = wf_deque_pop(d);

	if (model->count == 0) {
		cr_assert_null(got);
	} else if (FIFO) {
		cr_assert_eq(number(got), model->items[0]);
		model_drop_front(model, 1);
	} else {
		cr_assert_eq(number(got), model->items[--model->count]);
	}
}

static void model_steal(struct model *model, struct wf_deque *d, unsigned max)
{
	void *taken[HALF];
	unsigned half = FIFO ? (model->count + 1) / 2 : model->count > 0, i, got;

	got = wf_deque_steal(d, taken, max);
	cr_assert_eq(got, half < max ? half : max);
	for (i = 0; i < got; i++)
		cr_assert_eq(number(taken[i]), model->items[i]);
	model_drop_front(model, got);
}

static void model_push_many(struct model *model, struct wf_deque *d, uint64_t first, unsigned n)
{
	void *chunk[HALF];
	unsigned room = SIZE - model->count, i;

	for (i = 0; i < n; i++)
		chunk[i] = item(first + i);
	cr_assert_eq(wf_deque_push_many(d, chunk, n), n < room ? n : room);
	for (i = 0; i < n && i < room; i++)
		model->items[model->count++] = first + i;
}

Test(deque, behaves_like_an_array_in_random_sequences, .timeout = 120)
{
	static struct wf_deque d;
	static struct model model;
	uint64_t seed = harness_seed(), next = 1;
	unsigned step, n, bias = 0;

	for (step = 0; step < 300000u / HARNESS_SLOWDOWN; step++) {
		if (step % 1024 == 0) /* stretches of mostly pushing and of mostly taking */
			bias = (unsigned)harness_random_below(&seed, 10);
		if (harness_random_below(&seed, 10) < bias) {
			if (harness_random_below(&seed, 4) > 0) {
				model_push(&model, &d, next++);
			} else {
				n = 1 + (unsigned)harness_random_below(&seed, HALF);
				model_push_many(&model, &d, next, n);
				next += n;
			}
		} else if (harness_random_below(&seed, 2) == 0) {
			model_pop(&model, &d);
		} else {
			model_steal(&model, &d, (unsigned)harness_random_below(&seed, HALF + 1));
		}
		cr_assert_eq(wf_deque_count(&d), model.count);
		cr_assert_eq(wf_deque_is_empty(&d), model.count == 0);
		if (step % 16 == 0)
			cr_assert(wf_deque_valid(&d));
	}
	cr_assert_gt(wf_deque_overflow_count(&d), 0);
}
