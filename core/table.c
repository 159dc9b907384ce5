/* table.c: taking, looking up and retiring headers. table.h tells the story. */
#include <errno.h>
#include <string.h>

#include "core/inbox.h"
#include "core/registry.h"
#include "core/runtime.h"
#include "core/table.h"

/* What a foreign thread keeps: a chain of free headers of one runtime. */
struct foreign_cache {
	uint64_t serial; /* of the runtime; 0: none */
	unsigned slot;
	struct wf_proc *free;
};

static struct wf_proc *chain_next(const struct wf_proc *p)
{
	return p->run.next ? WF_CONTAINER_OF(p->run.next, struct wf_proc, run) : NULL;
}

static void chain_push(struct wf_proc **chain, struct wf_proc *p)
{
	p->run.next = *chain ? &(*chain)->run : NULL;
	*chain = p;
}

static struct wf_proc *chain_pop(struct wf_proc **chain)
{
	struct wf_proc *p = *chain;

	*chain = chain_next(p);
	return p;
}

int wf_table_open(struct weft_rt *rt, const struct wf_past *past)
{
	struct wf_table *table = &rt->table;
	size_t bytes = WF_SEGMENTS_MAX * sizeof table->segments[0];
	uint32_t share = rt->processes_max / (4 * (rt->worker_count + 1));

	table->segments = wf_alloc(rt, WF_FALSE_SHARING, bytes);
	if (!table->segments)
		return -ENOMEM;
	memset(table->segments, 0, bytes);
	table->limit = rt->processes_max;
	table->past = *past;
	table->chain = WF_CHAIN;
	while (table->chain > 1 && table->chain > share)
		table->chain /= 2;
	return 0;
}

static uint32_t fresh_count(const struct wf_table *table)
{
	return wf_u32_load_relaxed(&table->fresh);
}

static void free_ext(struct weft_rt *rt, struct wf_proc *p)
{
	if (WF_UNLIKELY(p->ext)) {
		wf_free(rt, p->ext, sizeof *p->ext);
		p->ext = NULL;
	}
}

static void note_highest(uint32_t *highest, uint64_t value)
{
	if (value > *highest)
		*highest = (uint32_t)value;
}

void wf_table_close(struct weft_rt *rt, struct wf_past *past_out)
{
	struct wf_table *table = &rt->table;
	uint32_t fresh = fresh_count(table);

	*past_out = table->past;
	for (uint32_t i = 0; i < fresh; i++) {
		struct wf_proc *p = wf_table_at(table, i);

		free_ext(rt, p);
		note_highest(
			&past_out->generation, wf_word_generation(wf_u64_load_relaxed(&p->word)));
		note_highest(&past_out->wait_number, wf_u64_load_relaxed(&p->claim) >> 32);
	}
	for (uint32_t i = 0; i < WF_SEGMENTS_MAX; i++)
		wf_free(rt, wf_ptr_load_relaxed(&table->segments[i]),
			WF_SEGMENT_SLOTS * sizeof(struct wf_proc));
	wf_free(rt, table->segments, WF_SEGMENTS_MAX * sizeof table->segments[0]);
	table->segments = NULL;
}

/* Makes segment n unless somebody else has. */
WF_COLD static int make_segment(struct weft_rt *rt, uint32_t n)
{
	struct wf_table *table = &rt->table;
	size_t bytes = WF_SEGMENT_SLOTS * sizeof(struct wf_proc);
	struct wf_proc *segment;
	void *none = NULL;

	segment = wf_alloc(rt, WF_FALSE_SHARING, bytes);
	if (!segment)
		return -ENOMEM;
	memset(segment, 0, bytes);
	for (uint32_t i = 0; i < WF_SEGMENT_SLOTS; i++) {
		segment[i].index = n * WF_SEGMENT_SLOTS + i;
		wf_u64_store_relaxed(&segment[i].word,
			(uint64_t)(table->past.generation + 1) << WF_WORD_GENERATION_SHIFT);
		wf_u64_store_relaxed(&segment[i].claim,
			(uint64_t)table->past.wait_number << 32 | WF_WINNER_CANCEL);
	}
	/* R2: release (part of the cas), with R1 in wf_table_at(). */
	if (!wf_ptr_cas(&table->segments[n], &none, segment))
		wf_free(rt, segment, bytes);
	return 0;
}

/* The head of the shared stack after `head`: every change has a tag of its own, against A-B-A. */
static uint64_t shared_head(uint64_t head, uint64_t index_plus_1)
{
	uint64_t tag = WF_PLANTED(table_without_tag) ? 0 : (head >> 32) + 1;

	return tag << 32 | index_plus_1;
}

/* A chain from the shared stack, NULL if it is empty. */
static struct wf_proc *shared_pop(struct wf_table *table)
{
	/* R4: acquire, with R5 in shared_push(): the chain's links. */
	uint64_t head = wf_u64_load_acquire(&table->shared);

	while ((uint32_t)head) {
		struct wf_proc *p = wf_table_at(table, (uint32_t)head - 1);
		/*
		 * May be stale if another thread pops the chain meanwhile and uses the header: then
		 * the tag has changed and the cas fails. `joiner` serves as the link, since it is
		 * atomic.
		 */
		uint64_t below = wf_u64_load_relaxed(&p->joiner) & UINT32_MAX;

		if (wf_u64_cas(&table->shared, &head, shared_head(head, below)))
			return p;
	}
	return NULL;
}

static void shared_push(struct wf_table *table, struct wf_proc *chain)
{
	uint64_t head = wf_u64_load_relaxed(&table->shared);

	do
		wf_u64_store_relaxed(&chain->joiner, (uint32_t)head);
	/* R5: release (part of the cas), with R4 in shared_pop(). */
	while (!wf_u64_cas(
		&table->shared, &head, shared_head(head, (uint64_t)chain->index + 1)));
}

/* A chain of indices never used before. */
static int fresh_take(struct weft_rt *rt, struct wf_proc **chain_out)
{
	struct wf_table *table = &rt->table;
	uint32_t first = wf_u32_load_relaxed(&table->fresh);
	uint32_t count;

	do {
		if (first >= table->limit)
			return -EAGAIN;
		count = table->limit - first < table->chain ? table->limit - first : table->chain;
		if (!wf_ptr_load_relaxed(&table->segments[first / WF_SEGMENT_SLOTS])) {
			int r = make_segment(rt, first / WF_SEGMENT_SLOTS);

			if (r < 0)
				return r;
		}
		/* R7: release (part of the cas), with R6 in wf_table_each(). */
	} while (!wf_u32_cas(&table->fresh, &first, first + count));
	*chain_out = NULL;
	for (uint32_t i = count; i-- > 0;)
		chain_push(chain_out, wf_table_at(table, first + i));
	return 0;
}

WF_NOINLINE static int refill(struct weft_rt *rt, struct wf_proc **chain_out)
{
	*chain_out = shared_pop(&rt->table);
	return *chain_out ? 0 : fresh_take(rt, chain_out);
}

static int take_foreign(struct weft_rt *rt, struct wf_proc **proc_out)
{
	struct foreign_cache *cache = wf_foreign_cache(sizeof *cache);
	int r;

	if (!cache)
		return -ENOMEM;
	if (cache->serial != rt->serial) {
		wf_table_foreign_forget();
		cache->serial = rt->serial;
		cache->slot = rt->slot;
	}
	if (!cache->free && (r = refill(rt, &cache->free)) < 0)
		return r;
	*proc_out = chain_pop(&cache->free);
	return 0;
}

/* Too many headers wait for their grace period: slows this worker's spawns, nobody else. */
WF_COLD static void hold_back(struct weft_rt *rt)
{
	wf_rcu_hurry(rt->rcu);
	for (int i = 0; i < 32; i++)
		wf_pause();
}

static void flush(struct wf_worker *worker);

/* A header from the batches that have come back, NULL if there is none. */
static struct wf_proc *take_returned(struct wf_worker *worker)
{
	struct wf_retired *retired = &worker->retired;

	while (retired->free) {
		struct wf_retire_batch *batch = retired->free;
		struct wf_proc *p;

		if (WF_UNLIKELY(batch->count == 0)) {
			retired->free = batch->next;
			batch->next = retired->spare;
			retired->spare = batch;
			continue;
		}
		if (WF_LIKELY(batch->count > WF_FREE_PREFETCH))
			wf_table_prefetch(batch);
		p = batch->procs[--batch->count];
		worker->free_count--;
		if (WF_LIKELY(wf_table_is_unlinked(p))) {
			free_ext(worker->rt, p);
			if (WF_PLANTED(wait_numbers_anew))
				wf_u64_store_relaxed(&p->claim, 0);
			return p;
		}
		chain_push(&retired->linked, p);
	}
	return NULL;
}

/* The worker's own are used up: its chain, or a new one. */
WF_NOINLINE static int take_chain(
	struct weft_rt *rt, struct wf_worker *worker, struct wf_proc **proc_out)
{
	int r;

	if (!worker->free) {
		r = refill(rt, &worker->free);
		if (r < 0) {
			flush(worker);
			return r;
		}
	}
	*proc_out = chain_pop(&worker->free);
	if (worker->free)
		WF_PREFETCH_WRITE(&worker->free->word);
	return 0;
}

int wf_table_take(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc **proc_out)
{
	if (WF_UNLIKELY(!worker))
		return take_foreign(rt, proc_out);
	if (WF_UNLIKELY(worker->retired.in_flight > WF_RETIRE_HEADERS_MAX))
		hold_back(rt);
	*proc_out = take_returned(worker);
	return WF_LIKELY(*proc_out != NULL) ? 0 : take_chain(rt, worker, proc_out);
}

void wf_table_untake(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p)
{
	free_ext(rt, p);
	if (worker) {
		chain_push(&worker->free, p);
	} else {
		struct foreign_cache *cache = wf_foreign_cache(sizeof *cache);

		chain_push(&cache->free, p);
	}
}

void wf_table_foreign_forget(void)
{
	struct foreign_cache *cache = wf_foreign_cache(sizeof *cache);
	struct weft_rt *rt;

	if (!cache || !cache->serial)
		return;
	rt = wf_registry_acquire(cache->slot);
	if (rt && rt->serial == cache->serial && cache->free)
		shared_push(&rt->table, cache->free);
	if (rt)
		wf_registry_release(cache->slot);
	cache->serial = 0;
	cache->free = NULL;
}

/* --- retiring --- */

/* On the reclaimer's thread, after a grace period. */
static void batch_done(struct wf_rcu_batch *rcu)
{
	struct wf_retire_batch *batch = WF_CONTAINER_OF(rcu, struct wf_retire_batch, rcu);
	struct weft_rt *rt = batch->retirer->rt;

	/*
	 * Refused once the runtime has ended: nobody will need the headers, so only the batch goes.
	 */
	if (!(batch->quiet ? wf_inbox_send_quietly : wf_inbox_send)(
		    batch->retirer, &batch->node, WF_MESSAGE_RETIRED))
		wf_free(rt, batch, sizeof *batch);
}

/* Whether so few are on their way that others can do without them as long as the worker sleeps. */
static bool may_sleep_on(const struct wf_worker *worker)
{
	const struct weft_rt *rt = worker->rt;
	uint64_t most = rt->table.limit / (16 * rt->worker_count);

	return worker->retired.in_flight
		<= (most < WF_RETIRE_QUIET_MAX ? most : WF_RETIRE_QUIET_MAX);
}

/* Starts the grace period of the open batch. */
static void flush(struct wf_worker *worker)
{
	struct wf_retired *retired = &worker->retired;
	struct wf_retire_batch *batch = retired->open;

	if (!batch)
		return;
	retired->open = NULL;
	retired->in_flight += batch->count;
	batch->quiet = may_sleep_on(worker);
	batch->rcu.bytes = batch->count * sizeof(struct wf_proc);
	if (WF_PLANTED(retire_without_grace)) {
		batch_done(&batch->rcu);
		return;
	}
	wf_rcu_retire(worker->rt->rcu, &batch->rcu, batch_done);
}

/* An empty batch to fill; false: no memory for one. */
WF_NOINLINE static bool open_batch(struct wf_worker *worker)
{
	struct wf_retired *retired = &worker->retired;
	struct wf_retire_batch *batch = retired->spare;

	if (batch)
		retired->spare = batch->next;
	else if (!(batch = wf_alloc(worker->rt, WF_CACHE_LINE, sizeof *batch)))
		return false;
	batch->retirer = worker;
	batch->count = 0;
	retired->open = batch;
	retired->opened_at = worker->now;
	return true;
}

/* By a thread that is no worker of rt: some worker takes it in. Woken for a batch, not for each. */
static void retire_elsewhere(struct weft_rt *rt, struct wf_proc *p)
{
	uint32_t turn = wf_u32_fetch_add(&rt->retire_turn, 1);
	struct wf_worker *target = &rt->workers[turn / WF_RETIRE_BATCH % rt->worker_count];

	if (turn % WF_RETIRE_BATCH == WF_RETIRE_BATCH - 1)
		(void)wf_inbox_send(target, &p->run, WF_MESSAGE_RETIRE);
	else
		(void)wf_inbox_send_quietly(target, &p->run, WF_MESSAGE_RETIRE);
}

void wf_table_retire(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p)
{
	struct wf_retired *retired;

	/* The last generation: the slot is not used again, or old ids would come back to life. */
	if (WF_UNLIKELY(wf_word_generation(wf_u64_load_relaxed(&p->word)) == UINT32_MAX))
		return;
	if (WF_UNLIKELY(!worker || worker->rt != rt)) {
		retire_elsewhere(rt, p);
		return;
	}
	retired = &worker->retired;
	if (WF_UNLIKELY(!retired->open && !open_batch(worker))) {
		chain_push(&retired->homeless, p);
		return;
	}
	retired->open->procs[retired->open->count++] = p;
	if (retired->open->count == WF_RETIRE_BATCH)
		flush(worker);
}

/* Gives a chain to the shared stack, so that other workers and foreign threads can use it. */
static bool free_share(struct wf_worker *worker)
{
	struct wf_table *table = &worker->rt->table;
	struct wf_proc *chain = NULL;

	for (uint32_t i = 0; i < table->chain; i++) {
		struct wf_proc *p = take_returned(worker);

		if (!p)
			break;
		chain_push(&chain, p);
	}
	if (chain)
		shared_push(table, chain);
	return chain != NULL;
}

void wf_table_returned(struct wf_worker *worker, struct wf_retire_batch *batch)
{
	struct wf_retired *retired = &worker->retired;
	uint32_t keep_max = worker->rt->table.limit / (4 * worker->rt->worker_count);

	if (keep_max > WF_FREE_KEEP_MAX)
		keep_max = WF_FREE_KEEP_MAX;
	retired->in_flight -= batch->count;
	worker->free_count += batch->count;
	batch->next = retired->free;
	retired->free = batch;
	while (worker->free_count > keep_max && free_share(worker))
		;
}

/* Headers that were in an inbox at the end of their grace period. */
WF_COLD static void recheck_linked(struct wf_worker *worker)
{
	struct wf_proc *chain = worker->retired.linked;

	worker->retired.linked = NULL;
	while (chain) {
		struct wf_proc *p = chain_pop(&chain);

		if (wf_table_is_unlinked(p)) {
			free_ext(worker->rt, p);
			chain_push(&worker->free, p);
		} else {
			chain_push(&worker->retired.linked, p);
		}
	}
}

/* There was no memory for a batch when these were retired. */
WF_COLD static void house(struct wf_worker *worker)
{
	struct wf_proc *chain = worker->retired.homeless;

	worker->retired.homeless = NULL;
	while (chain)
		wf_table_retire(worker->rt, worker, chain_pop(&chain));
}

void wf_table_tend(struct wf_worker *worker)
{
	struct wf_retired *retired = &worker->retired;

	if (retired->open && worker->now - retired->opened_at > WF_RETIRE_AGE_NS)
		flush(worker);
	if (WF_UNLIKELY(retired->linked != NULL))
		recheck_linked(worker);
	if (WF_UNLIKELY(retired->homeless != NULL))
		house(worker);
}

weft_time wf_table_deadline(const struct wf_worker *worker)
{
	const struct wf_retired *retired = &worker->retired;

	return retired->open ? retired->opened_at + WF_RETIRE_AGE_NS + 1 : WEFT_FOREVER;
}

static void free_batches(struct wf_worker *worker, struct wf_retire_batch *batch)
{
	while (batch) {
		struct wf_retire_batch *next = batch->next;

		wf_free(worker->rt, batch, sizeof *batch);
		batch = next;
	}
}

void wf_table_worker_close(struct wf_worker *worker)
{
	struct wf_node *node;

	/* The batches that came back after the end lie in the inbox, unless it refused them. */
	(void)wf_injector_drain(&worker->inbox, &worker->inbox_rest);
	while ((node = wf_fifo_pop(&worker->inbox_rest)))
		if (node->number == WF_MESSAGE_RETIRED)
			wf_free(worker->rt, WF_CONTAINER_OF(node, struct wf_retire_batch, node),
				sizeof(struct wf_retire_batch));
	wf_free(worker->rt, worker->retired.open, sizeof(struct wf_retire_batch));
	free_batches(worker, worker->retired.spare);
	free_batches(worker, worker->retired.free);
}

void wf_table_each(const struct wf_table *table, unsigned share, unsigned shares,
	void (*fn)(void *ctx, struct wf_proc *proc), void *ctx)
{
	/* R6: acquire, with R7 in fresh_take(): the segment is there. */
	uint32_t fresh = wf_u32_load_acquire(&table->fresh);

	for (uint32_t s = share; (uint64_t)s * WF_SEGMENT_SLOTS < fresh; s += shares)
		for (uint32_t i = s * WF_SEGMENT_SLOTS;
			i < fresh && i < (s + 1) * WF_SEGMENT_SLOTS; i++)
			fn(ctx, wf_table_at(table, i));
}
