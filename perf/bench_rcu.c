/*
 * bench_rcu.c: reclaim: what it costs a worker that the headers it has given up come back by way of
 * a grace period: by the runtime's own reclaimer, and by liburcu's call_rcu, whose thread sleeps
 * 10 ms between two rounds.
 *
 * The worker takes a block of headers, uses each (writes both its lines, works for about as long as
 * a spawn takes), and retires the block. It is quiescent once in two blocks. Blocks that have come
 * back are used again; when none has, a new one is made. So reclamation that lags costs memory, and
 * the caches. bytes_each is all memory made, for each operation.
 */
#include "perf/bench.h"

#include <stdlib.h>
#include <string.h>
#include <urcu/urcu-qsbr.h>

#include "sync/rcu.h"

enum {
	HEADERS = 64, /* in a block, as the process table retires them */
	WORK = 15,    /* steps of the random generator */
};

struct header {
	uint64_t words[16];
};

struct block {
	struct wf_rcu_batch batch;
	struct rcu_head head;
	struct reclaim *reclaim;
	struct wf_node back;
	struct block *made_before;
	struct header headers[HEADERS];
};

struct reclaim {
	struct wf_injector returned; /* by the reclaiming thread */
	struct wf_rcu_domain *domain;
	struct wf_chain usable; /* the worker's */
	struct block *made;     /* all there are */
	uint64_t made_count, state;
};

static void own_callback(struct wf_rcu_batch *batch)
{
	struct block *block = (struct block *)batch; /* its first member */

	wf_injector_push(&block->reclaim->returned, &block->back);
}

static void own_retire(struct block *block)
{
	block->batch.bytes = sizeof(block->headers);
	wf_rcu_retire(block->reclaim->domain, &block->batch, own_callback);
}

static void call_rcu_callback(struct rcu_head *head)
{
	struct block *block = (struct block *)((char *)head - offsetof(struct block, head));

	wf_injector_push(&block->reclaim->returned, &block->back);
}

static void call_rcu_retire(struct block *block)
{
	urcu_qsbr_call_rcu(&block->head, call_rcu_callback);
}

static struct block *block_get(struct reclaim *reclaim)
{
	struct block *block;
	struct wf_node *node;

	if (!reclaim->usable.first && !wf_injector_is_empty_relaxed(&reclaim->returned))
		(void)wf_injector_grab(&reclaim->returned, &reclaim->usable);
	node = wf_chain_pop(&reclaim->usable);
	if (node)
		return (struct block *)((char *)node - offsetof(struct block, back));
	block = aligned_alloc(128, (sizeof(*block) + 127) / 128 * 128);
	BENCH_CHECK(block);
	memset(block, 0, sizeof(*block));
	block->reclaim = reclaim;
	block->made_before = reclaim->made;
	reclaim->made = block;
	reclaim->made_count++;
	return block;
}

static void block_use(struct reclaim *reclaim, struct block *block)
{
	for (unsigned i = 0; i < HEADERS; i++) {
		block->headers[i].words[0] = i;
		block->headers[i].words[8] = i;
		for (unsigned k = 0; k < WORK; k++)
			bench_random(&reclaim->state);
	}
}

/* As a worker: online, pinned. */
static void reclaim_measure(struct reclaim *reclaim, void (*retire)(struct block *),
	const char *variant, const struct bench_args *args, struct bench_result *result)
{
	struct bench_row *row = bench_row_add(result, variant, "-");
	uint64_t blocks = (args->n + HEADERS - 1) / HEADERS, i, start_ns;

	wf_rcu_register();
	start_ns = bench_now_ns();
	for (i = 0; i < blocks; i++) {
		struct block *block = block_get(reclaim);

		block_use(reclaim, block);
		retire(block);
		if (i % 2 == 0)
			wf_rcu_quiescent();
	}
	bench_row_set(row, BENCH_NS_PER_OP,
		(double)(bench_now_ns() - start_ns) / (double)(blocks * HEADERS));
	bench_row_set(row, BENCH_BYTES_EACH,
		(double)(reclaim->made_count * sizeof(struct block)) / (double)(blocks * HEADERS));
	wf_rcu_unregister();
}

static void reclaim_free(struct reclaim *reclaim)
{
	while (reclaim->made) {
		struct block *block = reclaim->made;

		reclaim->made = block->made_before;
		free(block);
	}
}

static int reclaim_run(const struct bench_args *args, struct bench_result *result)
{
	struct reclaim own = {.made = NULL}, call = {.made = NULL};
	struct call_rcu_data *thread;

	/* Both threads before the pinning, so that they are free to run beside the worker. */
	BENCH_CHECK(wf_rcu_domain_create(&own.domain, "bench") == 0);
	thread = urcu_qsbr_create_call_rcu_data(0, -1);
	BENCH_CHECK(thread);
	urcu_qsbr_set_thread_call_rcu_data(thread);
	bench_pin(0);

	reclaim_measure(&own, own_retire, "weft", args, result);
	wf_rcu_domain_destroy(own.domain);
	reclaim_free(&own);

	reclaim_measure(&call, call_rcu_retire, "call_rcu", args, result);
	urcu_qsbr_barrier();
	reclaim_free(&call);
	urcu_qsbr_set_thread_call_rcu_data(NULL);
	urcu_qsbr_call_rcu_data_free(thread);
	return 0;
}

const struct bench_workload bench_reclaim = {
	.name = "reclaim",
	.help = "n headers used, given up, and back after a grace period; per header",
	.n_default = 20000000,
	.run = reclaim_run,
};
