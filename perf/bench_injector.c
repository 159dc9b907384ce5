/*
 * bench_injector.c: injector, injector_1p1c, injector_2p2c, injector_backlog: the injector by
 * itself, beside the MPMC queues of Concurrency Kit and a list under a mutex (what tokio uses).
 *
 * ck_fifo 0.7.1 may say "empty" of a queue that is not, and a bounded ck_ring "full": here both are
 * asked again, which a scheduler that goes to sleep on the answer could not do.
 */
#include "perf/bench.h"

#include <ck_ring.h>

#include <ck_fifo.h> /* wants what <ck_ring.h> includes */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "sync/injector.h"

enum {
	THREADS_MAX = 2,
	CK_RING_SIZE = 1 << 12,
	WINDOW = 1024, /* items a producer has on the way, at most */
	BURST = 4,
};

struct item {
	struct wf_node node;
	struct item *next;           /* mutex list */
	ck_fifo_mpmc_entry_t *entry; /* ck_fifo: the entry that this item brings along */
	wf_atomic_u32 queued;        /* set by its producer, cleared by its consumer */
} __attribute__((aligned(128)));

struct queues {
	struct wf_injector injector;
	struct wf_deque deques[THREADS_MAX]; /* a consumer's own ring */
	struct ck_ring ring __attribute__((aligned(128)));
	struct ck_ring_buffer *buffer;
	ck_fifo_mpmc_t fifo __attribute__((aligned(128)));
	pthread_mutex_t lock __attribute__((aligned(128)));
	struct item *first, *last;
};

struct kind {
	const char *name;
	void (*push)(struct queues *queues, struct item *item);
	struct item *(*pop)(struct queues *queues, unsigned consumer); /* NULL: empty, it says */
};

WF_INLINE void injector_push(struct queues *queues, struct item *item)
{
	wf_injector_push(&queues->injector, &item->node);
}

WF_INLINE struct item *injector_pop(struct queues *queues, unsigned consumer)
{
	struct wf_deque *own = &queues->deques[consumer];
	struct item *item = wf_deque_pop(own);
	struct wf_refill rest;

	if (item || wf_injector_is_empty_relaxed(&queues->injector))
		return item;
	return wf_injector_refill(&queues->injector, own, offsetof(struct item, node), &rest);
}

WF_INLINE void ring_push(struct queues *queues, struct item *item)
{
	while (!ck_ring_enqueue_mpmc(&queues->ring, queues->buffer, item))
		ck_pr_stall();
}

WF_INLINE struct item *ring_pop(struct queues *queues, unsigned consumer)
{
	struct item *item;

	(void)consumer;
	return ck_ring_dequeue_mpmc(&queues->ring, queues->buffer, &item) ? item : NULL;
}

WF_INLINE void fifo_push(struct queues *queues, struct item *item)
{
	ck_fifo_mpmc_enqueue(&queues->fifo, item->entry, item);
}

WF_INLINE struct item *fifo_pop(struct queues *queues, unsigned consumer)
{
	ck_fifo_mpmc_entry_t *garbage;
	struct item *item;

	(void)consumer;
	if (!ck_fifo_mpmc_dequeue(&queues->fifo, &item, &garbage))
		return NULL;
	item->entry = garbage;
	return item;
}

WF_INLINE void mutex_push(struct queues *queues, struct item *item)
{
	item->next = NULL;
	pthread_mutex_lock(&queues->lock);
	if (queues->first)
		queues->last->next = item;
	else
		queues->first = item;
	queues->last = item;
	pthread_mutex_unlock(&queues->lock);
}

WF_INLINE struct item *mutex_pop(struct queues *queues, unsigned consumer)
{
	struct item *item;

	(void)consumer;
	pthread_mutex_lock(&queues->lock);
	item = queues->first;
	if (item)
		queues->first = item->next;
	pthread_mutex_unlock(&queues->lock);
	return item;
}

#define INJECTOR ((struct kind){"weft", injector_push, injector_pop})
#define RING     ((struct kind){"ck_ring mpmc", ring_push, ring_pop})
#define FIFO     ((struct kind){"ck_fifo mpmc", fifo_push, fifo_pop})
#define MUTEX    ((struct kind){"mutex list", mutex_push, mutex_pop})

static void *make(size_t count, size_t size)
{
	void *memory = aligned_alloc(128, (count * size + 127) / 128 * 128);

	BENCH_CHECK(memory);
	memset(memory, 0, count * size);
	return memory;
}

static struct queues *queues_make(void)
{
	struct queues *queues = make(1, sizeof(*queues));

	queues->buffer = make(CK_RING_SIZE, sizeof(*queues->buffer));
	ck_ring_init(&queues->ring, CK_RING_SIZE);
	ck_fifo_mpmc_init(&queues->fifo, make(1, sizeof(ck_fifo_mpmc_entry_t)));
	pthread_mutex_init(&queues->lock, NULL);
	return queues;
}

/* ck_fifo's entries wander between items, so they are all freed by the end of the process. */
static void queues_free(struct queues *queues)
{
	free(queues->buffer);
	free(queues);
}

static struct item *items_make(size_t count)
{
	struct item *items = make(count, sizeof(*items));
	ck_fifo_mpmc_entry_t *entries = make(count, sizeof(*entries));
	size_t i;

	for (i = 0; i < count; i++)
		items[i].entry = &entries[i];
	return items;
}

static void row_set(struct bench_result *result, const struct kind *kind, double ns)
{
	bench_row_set(bench_row_add(result, kind->name, "-"), BENCH_NS_PER_OP, ns);
}

/* ---- injector: one thread -------------------------------------------------------------------- */

WF_INLINE void alone(
	const struct kind kind, const struct bench_args *args, struct bench_result *result)
{
	struct queues *queues = queues_make();
	struct item *items = items_make(BURST);
	uint64_t start_ns = bench_now_ns(), i;

	for (i = 0; i < args->n; i++) {
		kind.push(queues, &items[i % BURST]);
		BENCH_CHECK(kind.pop(queues, 0) == &items[i % BURST]);
	}
	row_set(result, &kind, (double)(bench_now_ns() - start_ns) / (double)args->n);
	free(items);
	queues_free(queues);
}

static int injector_run(const struct bench_args *args, struct bench_result *result)
{
	bench_pin(0);
	alone(INJECTOR, args, result);
	alone(RING, args, result);
	alone(FIFO, args, result);
	alone(MUTEX, args, result);
	return 0;
}

const struct bench_workload bench_injector = {
	.name = "injector",
	.help = "n pairs of push and pop by one thread",
	.n_default = 10000000,
	.run = injector_run,
};

/* ---- injector_1p1c, injector_2p2c: two threads ----------------------------------------------- */

struct contest {
	struct queues *queues;
	struct item *items[THREADS_MAX];
	uint64_t n; /* of each producer */
	wf_atomic_u32 ready;
	wf_atomic_u64 consumed;
	uint64_t end_ns[THREADS_MAX];
};

struct contestant {
	struct contest *contest;
	unsigned index;
};

static void start_together(struct contest *contest, unsigned index)
{
	bench_pin(index);
	wf_u32_fetch_add(&contest->ready, 1);
	while (wf_u32_load_acquire(&contest->ready) < THREADS_MAX)
		wf_pause();
}

/* Its next item, unless that is still on the way. */
WF_INLINE bool produce(const struct kind kind, struct contest *contest, unsigned index, uint64_t i)
{
	struct item *item = &contest->items[index][i % WINDOW];

	if (wf_u32_load_acquire(&item->queued))
		return false;
	wf_u32_store_relaxed(&item->queued, 1);
	kind.push(contest->queues, item);
	return true;
}

WF_INLINE bool consume(const struct kind kind, struct contest *contest, unsigned index)
{
	struct item *item = kind.pop(contest->queues, index);

	if (!item)
		return false;
	wf_u32_store_release(&item->queued, 0);
	return true;
}

WF_INLINE void one_way(const struct kind kind, struct contestant *self)
{
	struct contest *contest = self->contest;
	uint64_t i;

	start_together(contest, self->index);
	for (i = 0; i < contest->n;) {
		if (self->index == 0 ? produce(kind, contest, 0, i) : consume(kind, contest, 0))
			i++;
		else
			wf_pause();
	}
	contest->end_ns[self->index] = bench_now_ns();
}

/* Each is producer and consumer: bursts of both, until all that both pushed has been consumed. */
WF_INLINE void both_ways(const struct kind kind, struct contestant *self)
{
	struct contest *contest = self->contest;
	unsigned index = self->index, i;
	uint64_t pushed = 0, popped, waits = 0;

	start_together(contest, index);
	while (wf_u64_load_relaxed(&contest->consumed) < THREADS_MAX * contest->n) {
		for (i = 0; i < BURST && pushed < contest->n; i++)
			pushed += produce(kind, contest, index, pushed);
		for (popped = 0, i = 0; i < BURST; i++)
			popped += consume(kind, contest, index);
		if (popped > 0)
			wf_u64_fetch_add(&contest->consumed, popped);
		else if (++waits % 1024 == 0)
			sched_yield(); /* the other has lost its CPU with our items in its ring */
	}
	contest->end_ns[index] = bench_now_ns();
}

#define CONTESTANT(function, loop, kind)              \
	static void *function(void *arg)              \
	{                                             \
		loop(kind, (struct contestant *)arg); \
		return NULL;                          \
	}

CONTESTANT(injector_1p1c, one_way, INJECTOR)
CONTESTANT(ring_1p1c, one_way, RING)
CONTESTANT(fifo_1p1c, one_way, FIFO)
CONTESTANT(mutex_1p1c, one_way, MUTEX)
CONTESTANT(injector_2p2c, both_ways, INJECTOR)
CONTESTANT(ring_2p2c, both_ways, RING)
CONTESTANT(fifo_2p2c, both_ways, FIFO)
CONTESTANT(mutex_2p2c, both_ways, MUTEX)

/* `producers` are 1 or 2; a row is the time of an item from start to end of the whole contest. */
static void contest_run(const char *name, void *(*body)(void *), unsigned producers,
	const struct bench_args *args, struct bench_result *result)
{
	struct contest contest = {
		.queues = queues_make(), .n = (args->n + producers - 1) / producers};
	struct contestant contestants[THREADS_MAX];
	pthread_t thread;
	uint64_t start_ns, end_ns;
	unsigned i;

	for (i = 0; i < THREADS_MAX; i++) {
		contest.items[i] = items_make(WINDOW);
		contestants[i] = (struct contestant){&contest, i};
	}
	BENCH_CHECK(pthread_create(&thread, NULL, body, &contestants[1]) == 0);
	while (wf_u32_load_acquire(&contest.ready) == 0)
		sched_yield();
	start_ns = bench_now_ns();
	body(&contestants[0]);
	pthread_join(thread, NULL);
	end_ns = contest.end_ns[0] > contest.end_ns[1] ? contest.end_ns[0] : contest.end_ns[1];
	bench_row_set(bench_row_add(result, name, "-"), BENCH_NS_PER_OP,
		(double)(end_ns - start_ns) / (double)(contest.n * producers));
	for (i = 0; i < THREADS_MAX; i++)
		free(contest.items[i]);
	queues_free(contest.queues);
}

static int injector_1p1c_run(const struct bench_args *args, struct bench_result *result)
{
	contest_run("weft", injector_1p1c, 1, args, result);
	contest_run("ck_ring mpmc", ring_1p1c, 1, args, result);
	contest_run("ck_fifo mpmc", fifo_1p1c, 1, args, result);
	contest_run("mutex list", mutex_1p1c, 1, args, result);
	return 0;
}

const struct bench_workload bench_injector_1p1c = {
	.name = "injector_1p1c",
	.help = "n items from a producer to a consumer on another core",
	.n_default = 5000000,
	.run = injector_1p1c_run,
};

static int injector_2p2c_run(const struct bench_args *args, struct bench_result *result)
{
	contest_run("weft", injector_2p2c, 2, args, result);
	contest_run("ck_ring mpmc", ring_2p2c, 2, args, result);
	contest_run("ck_fifo mpmc", fifo_2p2c, 2, args, result);
	contest_run("mutex list", mutex_2p2c, 2, args, result);
	return 0;
}

const struct bench_workload bench_injector_2p2c = {
	.name = "injector_2p2c",
	.help = "n items between two cores that both push and pop, in bursts of 4",
	.n_default = 4000000,
	.run = injector_2p2c_run,
};

/* ---- injector_backlog: everything pushed before the first is popped -------------------------- */

WF_INLINE void backlog(
	const struct kind kind, const struct bench_args *args, struct bench_result *result)
{
	struct queues *queues = queues_make();
	struct item *items = items_make(args->n);
	uint64_t start_ns, i;
	struct item *item;

	for (i = 0; i < args->n; i++)
		kind.push(queues, &items[i]);
	start_ns = bench_now_ns();
	for (i = 0; (item = kind.pop(queues, 0)); i++)
		bench_keep(item);
	row_set(result, &kind, (double)(bench_now_ns() - start_ns) / (double)args->n);
	BENCH_CHECK(i == args->n);
	free(items);
	queues_free(queues);
}

static int injector_backlog_run(const struct bench_args *args, struct bench_result *result)
{
	bench_pin(0);
	backlog(INJECTOR, args, result);
	backlog(FIFO, args, result);
	backlog(MUTEX, args, result);
	return 0;
}

const struct bench_workload bench_injector_backlog = {
	.name = "injector_backlog",
	.help = "popping of n items that lie there: one worker comes back to a million",
	.n_default = 1000000,
	.run = injector_backlog_run,
};
