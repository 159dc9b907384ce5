/*
 * bench_deque.c: deque, deque_steal: the run queue by itself, beside ck_ring's SPMC ring, the part
 * of Concurrency Kit that comes nearest to a stealable queue (one item a steal, no overflow).
 */
#include "perf/bench.h"

#include <ck_ring.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sync/deque.h"

enum {
	BURST = 64,
	RING_SIZE = 256,
};

struct queues {
	struct wf_deque deque;
	struct ck_ring ring __attribute__((aligned(128)));
	struct ck_ring_buffer buffer[RING_SIZE];
};

/* One queue behind one set of names; every use is inlined, so that none pays for a pointer. */
struct kind {
	const char *name;
	bool (*push)(struct queues *queues, void *item);
	void *(*pop)(struct queues *queues);
	unsigned (*steal)(struct queues *queues, void *items[]);
};

WF_INLINE bool deque_push(struct queues *queues, void *item)
{
	void *spill[WF_DEQUE_SPILL_MAX];

	return wf_deque_push(&queues->deque, item, spill) == 0;
}

WF_INLINE void *deque_pop(struct queues *queues)
{
	return wf_deque_pop(&queues->deque);
}

WF_INLINE unsigned deque_steal(struct queues *queues, void *items[])
{
	return wf_deque_steal(&queues->deque, items, WF_DEQUE_STEAL_MAX);
}

WF_INLINE bool ring_push(struct queues *queues, void *item)
{
	return ck_ring_enqueue_spmc(&queues->ring, queues->buffer, item);
}

WF_INLINE void *ring_pop(struct queues *queues)
{
	void *item;

	return ck_ring_dequeue_spmc(&queues->ring, queues->buffer, &item) ? item : NULL;
}

WF_INLINE unsigned ring_steal(struct queues *queues, void *items[])
{
	return (items[0] = ring_pop(queues)) != NULL;
}

#define DEQUE ((struct kind){"weft", deque_push, deque_pop, deque_steal})
#define RING  ((struct kind){"ck_ring spmc", ring_push, ring_pop, ring_steal})

static struct queues *queues_make(void)
{
	struct queues *queues = aligned_alloc(128, sizeof(*queues));

	BENCH_CHECK(queues);
	memset(queues, 0, sizeof(*queues));
	wf_deque_init(&queues->deque);
	ck_ring_init(&queues->ring, RING_SIZE);
	return queues;
}

/* ---- deque: the owner alone ------------------------------------------------------------------ */

WF_INLINE double alone_ns(const struct kind kind, uint64_t n, unsigned burst)
{
	struct queues *queues = queues_make();
	uint64_t start_ns = bench_now_ns(), done, sum = 0;
	unsigned i;

	for (done = 0; done < n; done += burst) {
		for (i = 1; i <= burst; i++)
			BENCH_CHECK(kind.push(queues, (void *)(uintptr_t)i));
		for (i = 1; i <= burst; i++)
			sum += (uint64_t)(uintptr_t)kind.pop(queues);
	}
	start_ns = bench_now_ns() - start_ns;
	BENCH_CHECK(sum == done / burst * ((uint64_t)burst * (burst + 1) / 2));
	free(queues);
	return (double)start_ns / (double)done;
}

static void row_set(struct bench_result *result, const char *kind, const char *what, double ns)
{
	char variant[BENCH_TEXT_MAX];

	snprintf(variant, sizeof(variant), "%s, %s", kind, what);
	bench_row_set(bench_row_add(result, variant, "-"), BENCH_NS_PER_OP, ns);
}

static int deque_run(const struct bench_args *args, struct bench_result *result)
{
	bench_pin(0);
	row_set(result, "weft", "burst 1", alone_ns(DEQUE, args->n, 1));
	row_set(result, "weft", "burst 64", alone_ns(DEQUE, args->n, BURST));
	row_set(result, "ck_ring spmc", "burst 1", alone_ns(RING, args->n, 1));
	row_set(result, "ck_ring spmc", "burst 64", alone_ns(RING, args->n, BURST));
	return 0;
}

const struct bench_workload bench_deque = {
	.name = "deque",
	.help = "n pairs of push and pop by the owner alone",
	.n_default = 20000000,
	.run = deque_run,
};

/* ---- deque_steal: the owner and one thief ---------------------------------------------------- */

struct contest {
	struct queues *queues;
	unsigned (*thief)(struct contest *contest); /* steals once */
	wf_atomic_u32 running;
	uint64_t stolen;
};

static void *thief_main(void *arg)
{
	struct contest *contest = arg;

	bench_pin(1);
	wf_u32_store_release(&contest->running, 1);
	while (wf_u32_load_acquire(&contest->running) != 2)
		contest->stolen += contest->thief(contest);
	return NULL;
}

static unsigned deque_thief(struct contest *contest)
{
	void *items[WF_DEQUE_STEAL_MAX];

	return deque_steal(contest->queues, items);
}

static unsigned ring_thief(struct contest *contest)
{
	void *item;

	return ring_steal(contest->queues, &item);
}

/* What the owner needs for each item it pushes and, unless the thief is faster, pops again. */
WF_INLINE double contested_ns(
	const struct kind kind, unsigned (*thief)(struct contest *), uint64_t n)
{
	struct contest contest = {.queues = queues_make(), .thief = thief};
	uint64_t start_ns, done, popped = 0;
	pthread_t thread;
	unsigned i;

	BENCH_CHECK(pthread_create(&thread, NULL, thief_main, &contest) == 0);
	while (wf_u32_load_acquire(&contest.running) == 0)
		wf_pause();
	start_ns = bench_now_ns();
	for (done = 0; done < n; done += BURST) {
		for (i = 1; i <= BURST; i++)
			BENCH_CHECK(kind.push(contest.queues, (void *)(uintptr_t)i));
		while (kind.pop(contest.queues))
			popped++;
	}
	start_ns = bench_now_ns() - start_ns;
	wf_u32_store_release(&contest.running, 2);
	pthread_join(thread, NULL);
	BENCH_CHECK(popped + contest.stolen == done);
	free(contest.queues);
	return (double)start_ns / (double)done;
}

static int deque_steal_run(const struct bench_args *args, struct bench_result *result)
{
	bench_pin(0);
	bench_row_set(bench_row_add(result, "weft", "-"), BENCH_NS_PER_OP,
		contested_ns(DEQUE, deque_thief, args->n));
	bench_row_set(bench_row_add(result, "ck_ring spmc", "-"), BENCH_NS_PER_OP,
		contested_ns(RING, ring_thief, args->n));
	return 0;
}

const struct bench_workload bench_deque_steal = {
	.name = "deque_steal",
	.help = "n items pushed in bursts of 64 and popped, by an owner that a thief robs all the "
		"time",
	.n_default = 10000000,
	.run = deque_steal_run,
};
