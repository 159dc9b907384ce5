/*
 * stack.h: stacks for fibers: mapped in slabs, pooled per worker, balanced by a depot per runtime.
 *
 *	wf_stack_take / wf_stack_give      a stack of at least so many bytes; back to the pool
 *	wf_stack_pool_*                    one per worker: lists that only its owner touches
 *	wf_stack_depot_*                   one per runtime: owns the mappings
 *
 * A slab is one mapping of up to 64 stacks of one size class: powers of two from 16 KiB to 8 MiB.
 * Each stack has a page below it that cannot be touched (the guard), so a stack that overflows by
 * less than a page faults instead of writing into its neighbour. Larger stacks have a mapping of
 * their own, which ends with them.
 *
 *	slab: | header page | guard | stack 0 | guard | stack 1 | …
 *	stack: low … frames … | struct wf_stack, then what struct wf_fiber adds | colour | high
 *
 * The control block is the stack's first memory to be touched and shares a page with the frames
 * of a shallow fiber: a parked one keeps one page. Colours, up to 1 KiB in steps of a cache line,
 * keep the blocks of neighbours out of one another's cache sets; the guard makes the distance
 * between stacks an odd number of pages, which does the same for the TLB.
 *
 * A stack is *unopened* (it has no descriptor, no page of it is touched: slabs keep a bit for it),
 * *idle* (in a pool or the depot) or *taken*. Opening installs the guard, unless that is there
 * already; reuse does not. Trimming makes idle stacks unopened; a slab that has no others left is
 * unmapped.
 *
 * Pools work in batches: one being filled or emptied, one full in reserve, so that a pool at its
 * bound exchanges a batch with the depot once in so many calls, however takes and gives alternate.
 *
 * Guards are made by MADV_GUARD_INSTALL (Linux 6.13), which costs no mapping; where the kernel
 * has not got it, or refuses it (locked memory), by mprotect. That splits the mapping, two more
 * for each stack, and vm.max_map_count (65530 unless raised) stops it near 32,000 stacks; some
 * mappings are left to the host. From then on take gives NULL, and one line on the log names the
 * limit.
 *
 * Threads: a pool and what it holds belong to one thread at a time. The depot is for any thread,
 * under a spinlock held for a few loads and stores, never over a system call (blocking). Any
 * stack may be given to any pool of its runtime.
 */
#ifndef WF_CORE_STACK_H
#define WF_CORE_STACK_H

#include <stddef.h>
#include <stdint.h>

#include "core/map.h"
#include "core/sanitizer.h"
#include "sync/check.h"

enum {
	WF_STACK_BYTES_MIN = 16 * 1024,
	WF_STACK_CLASSES = 10,           /* 16 KiB << 0 … 9 */
	WF_STACK_OWN = WF_STACK_CLASSES, /* the class of those with a mapping of their own */
	WF_STACK_COLOURS = 16,
	/* At the high end, below the colour: struct wf_stack, and room for struct wf_fiber. */
	WF_STACK_CONTROL_BYTES = WF_ASAN || WF_TSAN ? 128 : 64,
};

struct wf_slab;
struct wf_stack_depot;

/* Lies in the stack it describes; the frames start right below it. */
struct wf_stack {
	struct wf_stack *next;       /* in a list of idle ones */
	struct wf_stack *batch_next; /* first of a batch in the depot: the next batch */
	char *low;                   /* the lowest byte that can be used; the guard ends here */
	struct wf_slab *slab;
	uint32_t valgrind_id;
	uint16_t batch_count; /* first of a batch in the depot: how many it has */
	uint8_t size_class;
	uint8_t index; /* in its slab */
};

/* One size class of a pool. */
struct wf_stack_rack {
	struct wf_stack *idle;
	uint32_t idle_count;
	uint32_t idle_max;          /* a batch */
	struct wf_stack *reserve;   /* a full batch, or none */
	struct wf_slab *slab;       /* whose unopened stacks are this pool's for now */
	uint64_t unopened, guarded; /* those; and which of them have their guard already */
};

struct wf_stack_pool {
	struct wf_stack_rack rack[WF_STACK_CLASSES + 1];
};

struct wf_stack_depot_opts {
	bool guard_mprotect;      /* even where the kernel has MADV_GUARD_INSTALL */
	const struct wf_map *map; /* NULL: wf_map_kernel */
	/* One line of text, level as enum weft_log_level. Called without locks. May be NULL. */
	void (*log)(void *ctx, int level, const char *text);
	void *log_ctx;
};

/* What a depot and all its pools have, as of one moment. */
struct wf_stack_stats {
	size_t mapped_bytes;
	size_t slabs;
	size_t opened; /* stacks with a descriptor: taken, idle, in pools */
	size_t idle;   /* those in the depot itself */
	bool guard_mprotect;
};

/* 0; -ENOMEM. */
int wf_stack_depot_create(
	const struct wf_stack_depot_opts *opts, struct wf_stack_depot **depot_out);

/* Unmaps everything. Every stack has been given back, every pool closed. Accepts NULL. */
void wf_stack_depot_destroy(struct wf_stack_depot *depot);

/*
 * Gives the memory of idle stacks back to the system, but keeps `keep_count` of each size. Idle
 * ones in pools are not seen. Milliseconds of system calls: for a coordinator, not for a worker.
 * Any thread. Returns how many it made unopened.
 */
size_t wf_stack_depot_trim(struct wf_stack_depot *depot, size_t keep_count);

/* Any thread. Walks the slabs under the lock. */
void wf_stack_depot_stats(struct wf_stack_depot *depot, struct wf_stack_stats *stats_out);

/* False, with the reason on stderr, if slabs, lists and counts do not fit together. Any thread. */
bool wf_stack_depot_valid(struct wf_stack_depot *depot);

/* Takes no memory. */
void wf_stack_pool_init(struct wf_stack_pool *pool);

/* Gives everything to the depot; the pool is as new. Owner. */
void wf_stack_pool_close(struct wf_stack_pool *pool, struct wf_stack_depot *depot);

struct wf_stack *wf_stack_take_slowly(
	struct wf_stack_pool *pool, struct wf_stack_depot *depot, size_t bytes);
void wf_stack_give_slowly(
	struct wf_stack_pool *pool, struct wf_stack_depot *depot, struct wf_stack *stack);

/* From wf_stack's control block up to the high end nothing is the frames'. */
WF_INLINE char *wf_stack_top(struct wf_stack *stack)
{
	return (char *)stack;
}

/* What frames can use: less by colour and control block than the size class. Async-signal-safe. */
WF_INLINE size_t wf_stack_usable_bytes(const struct wf_stack *stack)
{
	return (size_t)((const char *)stack - stack->low);
}

/* Bytes of the size class: what was asked for, rounded up. Async-signal-safe. */
size_t wf_stack_bytes(const struct wf_stack *stack);

/* Whether a fault at `address` is an overflow of this stack. Async-signal-safe. */
bool wf_stack_in_guard(const struct wf_stack *stack, const void *address);

/*
 * The most bytes that any fiber has used of this stack since it was opened or trimmed, counted
 * from the top. Found by looking at which pages are resident, then at where the lowest of them
 * stops being zero: exact but for zeroes at the deep end and for pages that were swapped out. One
 * system call. The stack is not running elsewhere. Returns 0 if the kernel refuses to tell.
 */
size_t wf_stack_high_water_bytes(const struct wf_stack *stack, const struct wf_stack_depot *depot);

/*
 * Touches the running fiber's stack as far down as a switch away from here will write. An overflow
 * faults here, where it can be said whose it is.
 */
#if WF_ASAN || WF_TSAN
void wf_stack_probe(void);
#else
WF_INLINE void wf_stack_probe(void)
{
	(void)*((volatile char *)__builtin_frame_address(0) - 256);
}
#endif

/* The size class of `bytes`; WF_STACK_OWN above the largest. */
WF_INLINE unsigned wf_stack_class(size_t bytes)
{
	size_t units = (bytes - 1) / WF_STACK_BYTES_MIN;
	unsigned size_class;

	if (bytes <= WF_STACK_BYTES_MIN)
		return 0;
	size_class = 64u - (unsigned)__builtin_clzl(units);
	return size_class < WF_STACK_CLASSES ? size_class : (unsigned)WF_STACK_OWN;
}

/*
 * A stack of at least `bytes`, the most recently used one that fits; NULL when there is no memory.
 * Owner of the pool; without a pool (NULL) any thread.
 */
WF_INLINE struct wf_stack *wf_stack_take(
	struct wf_stack_pool *pool, struct wf_stack_depot *depot, size_t bytes)
{
	struct wf_stack_rack *rack;
	struct wf_stack *stack;

	if (WF_LIKELY(pool != NULL)) {
		rack = &pool->rack[wf_stack_class(bytes)];
		stack = rack->idle;
		if (WF_LIKELY(stack != NULL)) {
			rack->idle = stack->next;
			rack->idle_count--;
			return stack;
		}
	}
	return wf_stack_take_slowly(pool, depot, bytes);
}

/* The counterpart; on any thread, with its own pool or NULL. Nothing runs on it any more. */
WF_INLINE void wf_stack_give(
	struct wf_stack_pool *pool, struct wf_stack_depot *depot, struct wf_stack *stack)
{
	struct wf_stack_rack *rack;

#if WF_ASAN
	/* What died with the fiber left its red zones behind. */
	__asan_unpoison_memory_region(stack->low, wf_stack_usable_bytes(stack));
#endif
	if (WF_LIKELY(pool != NULL)) {
		rack = &pool->rack[stack->size_class];
		if (WF_LIKELY(rack->idle_count < rack->idle_max)) {
			stack->next = rack->idle;
			rack->idle = stack;
			rack->idle_count++;
			return;
		}
	}
	wf_stack_give_slowly(pool, depot, stack);
}

#endif
