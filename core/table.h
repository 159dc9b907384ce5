/*
 * table.h: the process table: segments of headers, published by RCU rules, never moved.
 *
 * Looking up is two loads and a compare: the segment pointer, then the header's word against the
 * id's generation. It must happen inside a read section (a worker is in one all the time between
 * two quiescent states; foreign threads enter one): the header may be acted upon until the section
 * ends.
 *
 * Free headers come from, in this order: the worker's own batches, then its chain; the shared stack
 * of chains of WF_CHAIN (lock-free: a CAS on {tag 32 | index + 1}, the tag against ABA; links stay
 * readable because headers are type-stable); never-used indices, a chain at a time. Foreign threads
 * keep a chain each, tagged with the runtime's serial number.
 *
 * A header that is given up goes into the retired list of whoever gave it up, generation bumped
 * already; full lists go through a grace period (sync/rcu.h) and come back by the retirer's inbox.
 * A batch is an array: coming back costs nothing per header, and taking from it can prefetch
 * headers that have gone cold in the meantime. One that is still linked in some inbox (`remote` not
 * NONE: a wake was pushed just before the end) stays back until its drain has unlinked it; that is
 * looked at when it is taken, since the line is needed then anyway.
 *
 * Progress: lookup wait-free; taking and giving back lock-free, but for making a segment.
 */
#ifndef WF_CORE_TABLE_H
#define WF_CORE_TABLE_H

#include "core/proc.h"
#include "sync/rcu.h"

enum {
#if defined(WF_ATOMICS_SIM)
	WF_SEGMENT_SLOTS = 16, /* processes_max is at most 64 there */
	WF_SEGMENTS_MAX = 4,
#else
	WF_SEGMENT_SLOTS = 4096,
	WF_SEGMENTS_MAX = 1 << (WF_INDEX_BITS - 12),
#endif
	WF_CHAIN = 64,               /* headers in a chain of the shared stack */
	WF_FREE_KEEP_MAX = 65536,    /* more than these a worker gives to the shared stack */
#if defined(WF_ATOMICS_SIM)
	WF_FREE_PREFETCH = 1,
	WF_RETIRE_BATCH = 2,
#else
	WF_FREE_PREFETCH = 6,        /* headers prefetched ahead of the one taken */
	WF_RETIRE_BATCH = 128,       /* headers that go through one grace period together */
#endif
	WF_RETIRE_AGE_NS = 1000000,  /* a batch waits at most this long to fill */
	WF_RETIRE_HEADERS_MAX = (64 << 20) / 128, /* in a grace period: more slow its spawns */
	WF_RETIRE_QUIET_MAX = 4096,  /* on their way: to come back they wake no sleeper for these */
};

/* A batch on its way through a grace period and back. */
struct wf_retire_batch {
	struct wf_rcu_batch rcu;
	struct wf_node node;         /* link in the retirer's inbox */
	struct wf_worker *retirer;
	struct wf_retire_batch *next; /* spare ones, free ones */
	unsigned count;
	bool quiet;
	struct wf_proc *procs[WF_RETIRE_BATCH];
};

/* The retired list of a worker. Chains are by run.next. */
struct wf_retired {
	struct wf_retire_batch *open;   /* being filled */
	weft_time opened_at;
	struct wf_proc *homeless;       /* for lack of memory for a batch: not yet in one */
	struct wf_retire_batch *spare;
	struct wf_retire_batch *free;   /* past their grace period: headers to take, newest first */
	struct wf_proc *linked;         /* past their grace period, still in some inbox */
	uint64_t in_flight;             /* headers in a grace period */
};

/* The highest that was used under a registry slot: the next runtime goes on behind it. */
struct wf_past {
	uint32_t generation;
	uint32_t wait_number;
};

struct wf_table {
	wf_atomic_ptr *segments;     /* WF_SEGMENTS_MAX of struct wf_proc[WF_SEGMENT_SLOTS] */
	wf_atomic_u32 fresh;         /* indices below it have been handed out */
	uint32_t limit;              /* processes_max */
	uint32_t chain;              /* at most WF_CHAIN; less when the limit is small */
	struct wf_past past;         /* headers never used before begin after it */
	wf_atomic_u64 shared;        /* {tag 32 | index + 1 of the first header of a chain} */
};

int wf_table_open(struct weft_rt *rt, const struct wf_past *past);
void wf_table_close(struct weft_rt *rt, struct wf_past *past_out);

/* The header at `index`, NULL if there never was one. In a read section. */
WF_INLINE struct wf_proc *wf_table_at(const struct wf_table *table, uint32_t index)
{
	/* R1: acquire, with R2 in make_segment(): the segment's headers are initialised. */
	struct wf_proc *segment = wf_ptr_load_acquire(&table->segments[index / WF_SEGMENT_SLOTS]);

	return WF_LIKELY(segment) ? &segment[index % WF_SEGMENT_SLOTS] : NULL;
}

/* The process with that id; NULL: -ESRCH. In a read section. */
WF_INLINE struct wf_proc *wf_table_find(const struct wf_table *table, weft_pid pid)
{
	struct wf_proc *p = wf_table_at(table, wf_pid_index(pid));
	uint64_t word;

	if (WF_UNLIKELY(!p))
		return NULL;
	/* R3: acquire, with N2 and N3 in publish(): fn, arg and ext are visible. */
	word = wf_u64_load_acquire(&p->word);
	if ((wf_word_generation(word) != wf_pid_generation(pid) &&
		    !WF_PLANTED(find_any_generation)) ||
		wf_word_phase(word) == WF_FREE)
		return NULL;
	return p;
}

/* True if nobody's inbox holds the header any more. */
WF_INLINE bool wf_table_is_unlinked(const struct wf_proc *p)
{
	if (WF_PLANTED(reuse_while_linked))
		return true;
	/* W7: acquire, with W6 in wf_proc_drained(): the drain's last access to `inbox`. */
	return (wf_u32_load_acquire(&p->remote) & WF_REMOTE_PLACE) == WF_REMOTE_NONE;
}

/* Headers that have gone cold: the one that will be taken a few later. */
WF_INLINE void wf_table_prefetch(const struct wf_retire_batch *batch)
{
	const struct wf_proc *p = batch->procs[batch->count - 1 - WF_FREE_PREFETCH];

	WF_PREFETCH_WRITE(&p->word);
	WF_PREFETCH_WRITE(&p->live);
}

/*
 * Owner: what wf_table_take() does in most cases. NULL: in this one there is more to do, and
 * nothing has been done. free_count: the worker's.
 */
WF_INLINE struct wf_proc *wf_table_take_plain(struct wf_retired *retired, uint32_t *free_count)
{
	struct wf_retire_batch *batch = retired->free;
	struct wf_proc *p;

	if (WF_UNLIKELY(!batch || batch->count <= WF_FREE_PREFETCH
		    || retired->in_flight > WF_RETIRE_HEADERS_MAX))
		return NULL;
	p = batch->procs[batch->count - 1];
	if (WF_UNLIKELY(!wf_table_is_unlinked(p) || p->ext || WF_PLANTED(wait_numbers_anew)))
		return NULL;
	wf_table_prefetch(batch);
	batch->count--;
	--*free_count;
	return p;
}

/* A free header; -EAGAIN at the limit, -ENOMEM. worker: the caller's, of `rt`; NULL: foreign. */
int wf_table_take(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc **proc_out);

/* Undoes take: nobody has seen the header. */
void wf_table_untake(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *proc);

/* Gives up a header whose word is freed already. */
void wf_table_retire(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *proc);

/* Owner: the same in most cases. word: as it was; false: there is more to do. */
WF_INLINE bool wf_table_retire_plain(
	struct wf_retired *retired, struct wf_proc *proc, uint64_t word)
{
	struct wf_retire_batch *batch = retired->open;

	if (WF_UNLIKELY(!batch || batch->count >= WF_RETIRE_BATCH - 1
		    || wf_word_generation(word) >= UINT32_MAX - 1))
		return false;
	batch->procs[batch->count++] = proc;
	return true;
}

/* Owner: when tend is to be called at the latest. */
weft_time wf_table_deadline(const struct wf_worker *worker);

/* Owner: sends a batch that is old enough on its way; looks at headers that were still linked. */
void wf_table_tend(struct wf_worker *worker);

/* Owner: a batch has come back through the inbox. */
void wf_table_returned(struct wf_worker *worker, struct wf_retire_batch *batch);

/* After the worker has ended, every grace period too: frees its batches. */
void wf_table_worker_close(struct wf_worker *worker);

/* Ends what a foreign thread keeps (its thread ends, or its runtime is gone). */
void wf_table_foreign_forget(void);

/* Calls fn for each header ever handed out in segments ≡ share modulo shares. In a read section. */
void wf_table_each(const struct wf_table *table, unsigned share, unsigned shares,
	void (*fn)(void *ctx, struct wf_proc *proc), void *ctx);

#endif
