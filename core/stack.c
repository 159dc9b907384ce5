/*
 * stack.c: slabs, pools and the depot of core/stack.h.
 *
 * Who may touch what.
 *	a slab's place in lists, `unopened`, `guarded`    whoever holds the depot's lock
 *	the constant rest of a slab                       anybody who holds one of its stacks
 *	a rack, with the bits it borrowed                 the pool's owner
 *	a stack's descriptor                              who took it; idle: the owner of its list
 *
 * A pool borrows all unopened bits of a slab at once: it takes them out of the slab, opens one
 * stack after the other without the lock, and returns the bits it has not used. So a bit is in
 * exactly one place, and a slab all of whose bits are in it has no stack in use anywhere and can
 * be unmapped. `guarded` is a subset of `unopened`, and travels with it: trimming a stack keeps
 * its guard.
 *
 * Mapping, guards, trimming and unmapping happen outside the lock, on memory that the caller has
 * taken out of every list. The count of guards made by mprotect is an atomic for that reason.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include <weft.h>

#include "core/stack.h"
#include "sync/atomic.h"
#include "sync/spinlock.h"

enum {
	SLAB_STACKS_MAX = 64,             /* the bits of a word */
	SLAB_BYTES_MAX = 4 * 1024 * 1024, /* unless a single stack is larger */
	BATCH_MAX = 32,
	BATCH_BYTES_MAX = 4 * 1024 * 1024,
	HOST_MAPPINGS = 1024, /* of vm.max_map_count, left to the host */
	RESIDENT_PAGES = 256, /* asked for in one call */
	LOG_BYTES_MAX = 256,
};

/* In the first page of its mapping. */
struct wf_slab {
	LIST_ENTRY(wf_slab) all_link;
	LIST_ENTRY(wf_slab) fresh_link; /* while in_fresh */
	size_t bytes;
	size_t page_bytes;
	size_t stack_bytes; /* without the guard */
	unsigned size_class;
	uint64_t all;                  /* a bit for each stack */
	uint64_t unopened;             /* and in no pool's rack */
	uint64_t guarded;              /* of those: trimmed, the guard is still there */
	wf_atomic_u32 protected_count; /* guards made by mprotect */
	bool in_fresh;
};

LIST_HEAD(slab_list, wf_slab);

/* What the depot has of one size class. */
struct shelf {
	struct wf_stack *batches; /* by batch_next */
	wf_atomic_u64 idle_count; /* changed under the lock, looked at without */
	struct slab_list fresh;   /* slabs with unopened stacks */
};

struct wf_stack_depot {
	const struct wf_map *map;
	void (*log)(void *ctx, int level, const char *text);
	void *log_ctx;
	size_t bytes; /* of this object */
	size_t page_bytes;
	size_t protected_max;
	size_t mappings_max; /* vm.max_map_count */
	wf_atomic_u32 guard_mprotect;
	wf_atomic_u64 protected_count;
	wf_atomic_u64 opened;
	wf_atomic_u32 told_guard, told_map;

	struct wf_spinlock lock;
	struct slab_list slabs;
	size_t slab_count;
	size_t mapped_bytes;
	struct shelf shelf[WF_STACK_CLASSES];
};

static_assert(sizeof(struct wf_stack_depot) <= 4096, "the depot has a page");
static_assert(sizeof(struct wf_slab) <= 4096, "a slab's header has a page");
static_assert((int)WEFT_LOG_ERROR == 1, "core/stack.h promises levels of that enum");

/* --- what the log is told, once each --- */

WF_PRINTF(3, 4)
static void tell_once(struct wf_stack_depot *depot, wf_atomic_u32 *told, const char *format, ...)
{
	char text[LOG_BYTES_MAX];
	va_list args;

	if (wf_u32_exchange(told, 1) != 0 || depot->log == NULL)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	depot->log(depot->log_ctx, WEFT_LOG_ERROR, text);
}

static void tell_guard(struct wf_stack_depot *depot, int error)
{
	tell_once(depot, &depot->told_guard,
		"no guard page for another stack (%s): %llu are made with mprotect, two mappings "
		"each, and vm.max_map_count is %zu; raise it (sysctl vm.max_map_count)",
		strerror(-error), (unsigned long long)wf_u64_load_relaxed(&depot->protected_count),
		depot->mappings_max);
}

static void tell_map(struct wf_stack_depot *depot, size_t bytes, int error)
{
	tell_once(depot, &depot->told_map,
		"no memory for stacks: mapping %zu bytes gives %s; limits are RLIMIT_AS, "
		"vm.overcommit_memory, and vm.max_map_count, which is %zu",
		bytes, strerror(-error), depot->mappings_max);
}

/* --- guards --- */

static int guard_by_mprotect(struct wf_stack_depot *depot, struct wf_slab *slab, char *guard)
{
	int r = -ENOMEM;

	if (wf_u64_fetch_add(&depot->protected_count, 1) < depot->protected_max)
		r = depot->map->protect(depot->map->ctx, guard, slab->page_bytes);
	if (r == 0) {
		(void)wf_u32_fetch_add(&slab->protected_count, 1);
		return 0;
	}
	(void)wf_u64_fetch_add(&depot->protected_count, (uint64_t)-1);
	tell_guard(depot, r);
	return r;
}

static int guard_install(struct wf_stack_depot *depot, struct wf_slab *slab, char *guard)
{
	if (!wf_u32_load_relaxed(&depot->guard_mprotect)) {
		int r = depot->map->advise(
			depot->map->ctx, guard, slab->page_bytes, WF_MADV_GUARD_INSTALL);

		if (r == 0)
			return 0;
		/* EINVAL: not for this memory, which the host has locked (mlockall). */
		if (r != -EINVAL) {
			tell_map(depot, slab->page_bytes, r);
			return r;
		}
		wf_u32_store_relaxed(&depot->guard_mprotect, 1);
	}
	return guard_by_mprotect(depot, slab, guard);
}

/* --- slabs and their stacks --- */

static size_t class_bytes(const struct wf_stack_depot *depot, unsigned size_class)
{
	size_t bytes = (size_t)WF_STACK_BYTES_MIN << size_class;

	return bytes < depot->page_bytes ? depot->page_bytes : bytes;
}

static unsigned batch_max(unsigned size_class)
{
	size_t count;

	if (size_class == WF_STACK_OWN)
		return 0;
	count = (size_t)BATCH_BYTES_MAX / ((size_t)WF_STACK_BYTES_MIN << size_class);
	if (count > BATCH_MAX)
		return BATCH_MAX;
	return count < 2 ? 2 : (unsigned)count;
}

static char *slab_low(struct wf_slab *slab, unsigned index)
{
	return (char *)slab + slab->page_bytes + index * (slab->stack_bytes + slab->page_bytes) +
	       slab->page_bytes;
}

static struct wf_stack *slab_stack(struct wf_slab *slab, unsigned index)
{
	size_t colour = index % WF_STACK_COLOURS * WF_CACHE_LINE;

	return (struct wf_stack *)(void *)(slab_low(slab, index) + slab->stack_bytes - colour -
					   WF_STACK_CONTROL_BYTES);
}

/* Leak checkers look for pointers there, Valgrind knows it as a stack. */
static void tools_open(struct wf_stack *stack, size_t stack_bytes)
{
	stack->valgrind_id = (uint32_t)wf_valgrind_request(
		WF_VALGRIND_STACK_REGISTER, (uintptr_t)stack->low, (uintptr_t)stack - 1);
#if WF_ASAN
	__lsan_register_root_region(stack->low, stack_bytes);
#else
	(void)stack_bytes;
#endif
}

static void tools_close(struct wf_stack *stack, size_t stack_bytes)
{
	(void)wf_valgrind_request(WF_VALGRIND_STACK_DEREGISTER, stack->valgrind_id, 0);
#if WF_ASAN
	__asan_unpoison_memory_region(stack->low, stack_bytes);
	__lsan_unregister_root_region(stack->low, stack_bytes);
#else
	(void)stack_bytes;
#endif
}

/* NULL if it gets no guard; then nothing has changed. */
static struct wf_stack *stack_open(
	struct wf_stack_depot *depot, struct wf_slab *slab, unsigned index, bool guarded)
{
	struct wf_stack *stack = slab_stack(slab, index);
	char *low = slab_low(slab, index);

	if (!guarded && guard_install(depot, slab, low - slab->page_bytes) < 0)
		return NULL;
	stack->next = NULL;
	stack->batch_next = NULL;
	stack->low = low;
	stack->slab = slab;
	stack->batch_count = 0;
	stack->size_class = (uint8_t)slab->size_class;
	stack->index = (uint8_t)index;
	tools_open(stack, slab->stack_bytes);
	(void)wf_u64_fetch_add(&depot->opened, 1);
	return stack;
}

static void slab_link(struct wf_stack_depot *depot, struct wf_slab *slab)
{
	wf_spinlock_lock(&depot->lock);
	LIST_INSERT_HEAD(&depot->slabs, slab, all_link);
	depot->slab_count++;
	depot->mapped_bytes += slab->bytes;
	wf_spinlock_unlock(&depot->lock);
}

/* Under the lock. */
static void slab_unlink(struct wf_stack_depot *depot, struct wf_slab *slab)
{
	LIST_REMOVE(slab, all_link);
	depot->slab_count--;
	depot->mapped_bytes -= slab->bytes;
}

/* A slab, not in any list. NULL when it is refused. */
static struct wf_slab *slab_map_count(
	struct wf_stack_depot *depot, unsigned size_class, size_t stack_bytes, unsigned count)
{
	size_t bytes = depot->page_bytes + count * (stack_bytes + depot->page_bytes);
	struct wf_slab *slab;
	void *memory;
	int r = depot->map->map(depot->map->ctx, bytes, &memory);

	if (r < 0) {
		if (count == 1)
			tell_map(depot, bytes, r);
		return NULL;
	}
	/* Else the first touch of a stack may take 2 MiB. Kernels without huge pages refuse. */
	(void)depot->map->advise(depot->map->ctx, memory, bytes, MADV_NOHUGEPAGE);
	slab = memory;
	slab->bytes = bytes;
	slab->page_bytes = depot->page_bytes;
	slab->stack_bytes = stack_bytes;
	slab->size_class = size_class;
	slab->all = count == SLAB_STACKS_MAX ? UINT64_MAX : ((uint64_t)1 << count) - 1;
	return slab;
}

/* As many stacks in one mapping as the class has; fewer where address space is short. */
static struct wf_slab *slab_map(struct wf_stack_depot *depot, unsigned size_class)
{
	size_t stack_bytes = class_bytes(depot, size_class);
	size_t count = SLAB_BYTES_MAX / stack_bytes;
	struct wf_slab *slab;

	if (count > SLAB_STACKS_MAX)
		count = SLAB_STACKS_MAX;
	for (; count > 1; count /= 4) {
		slab = slab_map_count(depot, size_class, stack_bytes, (unsigned)count);
		if (slab != NULL)
			return slab;
	}
	return slab_map_count(depot, size_class, stack_bytes, 1);
}

/*
 * A slab that is in no list but that of all, and that nobody else knows. Unmapping the middle of
 * a larger mapping is refused when that would make one mapping too many: then it only gives its
 * memory back, and waits to be used again or for the end.
 */
static void slab_unmap(struct wf_stack_depot *depot, struct wf_slab *slab)
{
	uint32_t protected_count = wf_u32_load_relaxed(&slab->protected_count);
	size_t bytes = slab->bytes;

	wf_spinlock_lock(&depot->lock);
	slab_unlink(depot, slab);
	wf_spinlock_unlock(&depot->lock);
	if (depot->map->unmap(depot->map->ctx, slab, bytes) == 0) {
		(void)wf_u64_fetch_add(&depot->protected_count, -(uint64_t)protected_count);
		return;
	}
	(void)depot->map->advise(depot->map->ctx, (char *)slab + depot->page_bytes,
		bytes - depot->page_bytes, MADV_DONTNEED);
	slab_link(depot, slab);
	wf_spinlock_lock(&depot->lock);
	slab->unopened = slab->all;
	if (slab->size_class != WF_STACK_OWN) {
		LIST_INSERT_HEAD(&depot->shelf[slab->size_class].fresh, slab, fresh_link);
		slab->in_fresh = true;
	}
	wf_spinlock_unlock(&depot->lock);
}

/* --- unopened stacks, borrowed and returned --- */

/*
 * Puts bits back that a rack has borrowed, or that trimming has made, under the lock. True: the
 * slab is in no use any more; it has left the list of fresh ones and the caller unmaps it.
 */
static bool bits_return(
	struct wf_stack_depot *depot, struct wf_slab *slab, uint64_t unopened, uint64_t guarded)
{
	slab->unopened |= unopened;
	slab->guarded |= guarded;
	if (slab->unopened == slab->all) {
		if (slab->in_fresh)
			LIST_REMOVE(slab, fresh_link);
		slab->in_fresh = false;
		return true;
	}
	if (!slab->in_fresh && slab->unopened != 0) {
		LIST_INSERT_HEAD(&depot->shelf[slab->size_class].fresh, slab, fresh_link);
		slab->in_fresh = true;
	}
	return false;
}

static void rack_return(struct wf_stack_depot *depot, struct wf_stack_rack *rack)
{
	struct wf_slab *slab = rack->slab;
	bool unused;

	if (slab == NULL)
		return;
	wf_spinlock_lock(&depot->lock);
	unused = bits_return(depot, slab, rack->unopened, rack->guarded);
	wf_spinlock_unlock(&depot->lock);
	if (unused)
		slab_unmap(depot, slab);
	rack->slab = NULL;
	rack->unopened = rack->guarded = 0;
}

/* Takes the bits of `wanted` that the slab has. Under the lock, or of a slab nobody knows yet. */
static void bits_borrow(struct wf_slab *slab, uint64_t wanted, struct wf_stack_rack *rack)
{
	rack->slab = slab;
	rack->unopened = slab->unopened & wanted;
	rack->guarded = slab->guarded & wanted;
	slab->unopened &= ~wanted;
	slab->guarded &= ~wanted;
	if (slab->unopened == 0 && slab->in_fresh) {
		LIST_REMOVE(slab, fresh_link);
		slab->in_fresh = false;
	}
}

/* All bits of some slab, or only one. False: no memory. */
static bool rack_borrow(struct wf_stack_depot *depot, unsigned size_class,
	struct wf_stack_rack *rack, bool only_one)
{
	struct wf_slab *slab;

	wf_spinlock_lock(&depot->lock);
	slab = LIST_FIRST(&depot->shelf[size_class].fresh);
	if (slab != NULL)
		bits_borrow(slab, only_one ? slab->unopened & -slab->unopened : UINT64_MAX, rack);
	wf_spinlock_unlock(&depot->lock);
	if (slab != NULL)
		return true;
	slab = slab_map(depot, size_class);
	if (slab == NULL)
		return false;
	slab_link(depot, slab);
	wf_spinlock_lock(&depot->lock);
	rack->slab = slab;
	rack->unopened = only_one ? 1 : slab->all;
	rack->guarded = 0;
	(void)bits_return(depot, slab, slab->all & ~rack->unopened, 0);
	wf_spinlock_unlock(&depot->lock);
	return true;
}

/* The next of the stacks that the rack has borrowed. NULL: it gets no guard, and stays borrowed. */
static struct wf_stack *rack_open(struct wf_stack_depot *depot, struct wf_stack_rack *rack)
{
	unsigned index = (unsigned)__builtin_ctzll(rack->unopened);
	uint64_t bit = (uint64_t)1 << index;
	struct wf_stack *stack = stack_open(depot, rack->slab, index, rack->guarded & bit);

	if (stack == NULL)
		return NULL;
	rack->unopened &= ~bit;
	rack->guarded &= ~bit;
	if (rack->unopened == 0)
		rack->slab = NULL;
	return stack;
}

/* --- idle stacks in the depot --- */

/* A list of `count` stacks of one class becomes a batch. Any thread. */
static void batch_deposit(struct wf_stack_depot *depot, struct wf_stack *first, unsigned count)
{
	struct shelf *shelf = &depot->shelf[first->size_class];

	wf_spinlock_lock(&depot->lock);
	first->batch_next = shelf->batches;
	first->batch_count = (uint16_t)count;
	shelf->batches = first;
	wf_u64_store_relaxed(&shelf->idle_count, wf_u64_load_relaxed(&shelf->idle_count) + count);
	wf_spinlock_unlock(&depot->lock);
}

/* Under the lock: takes the batch that *link names. */
static struct wf_stack *batch_detach(struct shelf *shelf, struct wf_stack **link)
{
	struct wf_stack *first = *link;

	*link = first->batch_next;
	wf_u64_store_relaxed(
		&shelf->idle_count, wf_u64_load_relaxed(&shelf->idle_count) - first->batch_count);
	return first;
}

/* NULL if there is none. Any thread. */
static struct wf_stack *batch_withdraw(struct wf_stack_depot *depot, unsigned size_class)
{
	struct shelf *shelf = &depot->shelf[size_class];
	struct wf_stack *first = NULL;

	/* Usually right; a batch that comes this moment will be seen next time. */
	if (wf_u64_load_relaxed(&shelf->idle_count) == 0)
		return NULL;
	wf_spinlock_lock(&depot->lock);
	if (shelf->batches != NULL)
		first = batch_detach(shelf, &shelf->batches);
	wf_spinlock_unlock(&depot->lock);
	return first;
}

/* --- take and give --- */

static struct wf_stack *take_own(struct wf_stack_depot *depot, size_t bytes)
{
	size_t mask = depot->page_bytes - 1;
	struct wf_stack *stack;
	struct wf_slab *slab;

	if (bytes > SIZE_MAX / 2)
		return NULL;
	slab = slab_map_count(depot, WF_STACK_OWN, (bytes + mask) & ~mask, 1);
	if (slab == NULL)
		return NULL;
	slab_link(depot, slab);
	stack = stack_open(depot, slab, 0, false);
	if (stack == NULL)
		slab_unmap(depot, slab);
	return stack;
}

static void give_own(struct wf_stack_depot *depot, struct wf_stack *stack)
{
	struct wf_slab *slab = stack->slab;

	tools_close(stack, slab->stack_bytes);
	(void)wf_u64_fetch_add(&depot->opened, (uint64_t)-1);
	slab_unmap(depot, slab);
}

static struct wf_stack *take_shared(struct wf_stack_depot *depot, unsigned size_class)
{
	struct wf_stack *stack = batch_withdraw(depot, size_class);
	struct wf_stack_rack one = {.slab = NULL};

	if (stack != NULL) {
		if (stack->batch_count > 1)
			batch_deposit(depot, stack->next, stack->batch_count - 1u);
		return stack;
	}
	if (!rack_borrow(depot, size_class, &one, true))
		return NULL;
	stack = rack_open(depot, &one);
	rack_return(depot, &one);
	return stack;
}

static struct wf_stack *take_pooled(
	struct wf_stack_rack *rack, struct wf_stack_depot *depot, unsigned size_class)
{
	struct wf_stack *stack = rack->reserve;
	unsigned count = rack->idle_max;

	if (stack == NULL) {
		stack = batch_withdraw(depot, size_class);
		count = stack != NULL ? stack->batch_count : 0;
	}
	if (stack != NULL) {
		rack->reserve = NULL;
		rack->idle = stack->next;
		rack->idle_count = count - 1;
		return stack;
	}
	if (rack->slab == NULL && !rack_borrow(depot, size_class, rack, false))
		return NULL;
	return rack_open(depot, rack);
}

struct wf_stack *wf_stack_take_slowly(
	struct wf_stack_pool *pool, struct wf_stack_depot *depot, size_t bytes)
{
	unsigned size_class = wf_stack_class(bytes);

	if (size_class == WF_STACK_OWN)
		return take_own(depot, bytes);
	if (pool == NULL)
		return take_shared(depot, size_class);
	return take_pooled(&pool->rack[size_class], depot, size_class);
}

void wf_stack_give_slowly(
	struct wf_stack_pool *pool, struct wf_stack_depot *depot, struct wf_stack *stack)
{
	struct wf_stack_rack *rack;

	if (stack->size_class == WF_STACK_OWN) {
		give_own(depot, stack);
		return;
	}
	stack->next = NULL;
	if (pool == NULL) {
		batch_deposit(depot, stack, 1);
		return;
	}
	rack = &pool->rack[stack->size_class];
	if (rack->reserve != NULL)
		batch_deposit(depot, rack->reserve, rack->idle_max);
	rack->reserve = rack->idle;
	rack->idle = stack;
	rack->idle_count = 1;
}

void wf_stack_pool_init(struct wf_stack_pool *pool)
{
	memset(pool, 0, sizeof *pool);
	for (unsigned i = 0; i <= WF_STACK_CLASSES; i++)
		pool->rack[i].idle_max = batch_max(i);
}

void wf_stack_pool_close(struct wf_stack_pool *pool, struct wf_stack_depot *depot)
{
	for (unsigned i = 0; i < WF_STACK_CLASSES; i++) {
		struct wf_stack_rack *rack = &pool->rack[i];

		if (rack->idle != NULL)
			batch_deposit(depot, rack->idle, rack->idle_count);
		if (rack->reserve != NULL)
			batch_deposit(depot, rack->reserve, rack->idle_max);
		rack_return(depot, rack);
	}
	wf_stack_pool_init(pool);
}

/* --- the depot --- */

/* Half of what the kernel allows, two mappings being needed for each, less what the host needs. */
static size_t protected_limit(size_t mappings_max)
{
	size_t left = mappings_max / 8;

	if (mappings_max == 0)
		return SIZE_MAX;
	if (left > HOST_MAPPINGS)
		left = HOST_MAPPINGS;
	return (mappings_max - left) / 2;
}

int wf_stack_depot_create(const struct wf_stack_depot_opts *opts, struct wf_stack_depot **depot_out)
{
	const struct wf_map *map = opts->map != NULL ? opts->map : &wf_map_kernel;
	size_t page_bytes = map->page_bytes(map->ctx);
	struct wf_stack_depot *depot;
	bool guard_mprotect;
	void *memory;
	/* The second page is for finding out what the kernel can; nobody touches it. */
	int r = map->map(map->ctx, 2 * page_bytes, &memory);

	if (r < 0)
		return r;
	guard_mprotect = opts->guard_mprotect || map->advise(map->ctx, (char *)memory + page_bytes,
							 page_bytes, WF_MADV_GUARD_INSTALL) < 0;
	depot = memory;
	depot->map = map;
	depot->log = opts->log;
	depot->log_ctx = opts->log_ctx;
	depot->bytes = 2 * page_bytes;
	depot->page_bytes = page_bytes;
	depot->mappings_max = map->count_max(map->ctx);
	depot->protected_max = protected_limit(depot->mappings_max);
	wf_u32_store_relaxed(&depot->guard_mprotect, guard_mprotect);
	LIST_INIT(&depot->slabs);
	for (unsigned i = 0; i < WF_STACK_CLASSES; i++)
		LIST_INIT(&depot->shelf[i].fresh);
	*depot_out = depot;
	return 0;
}

static uint64_t idle_total(const struct wf_stack_depot *depot)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < WF_STACK_CLASSES; i++)
		sum += wf_u64_load_relaxed(&depot->shelf[i].idle_count);
	return sum;
}

void wf_stack_depot_destroy(struct wf_stack_depot *depot)
{
	struct wf_slab *slab;

	if (depot == NULL)
		return;
	/* A stack still taken, or in a pool that was not closed, would go with the slabs. */
	WF_CHECK(wf_u64_load_relaxed(&depot->opened) == idle_total(depot));
	while ((slab = LIST_FIRST(&depot->slabs)) != NULL) {
		uint64_t opened = slab->all & ~slab->unopened;

		for (; opened != 0; opened &= opened - 1)
			tools_close(slab_stack(slab, (unsigned)__builtin_ctzll(opened)),
				slab->stack_bytes);
		slab_unlink(depot, slab);
		(void)depot->map->unmap(depot->map->ctx, slab, slab->bytes);
	}
	(void)depot->map->unmap(depot->map->ctx, depot, depot->bytes);
}

/* One batch of a class that has more than `keep_count` idle ones before it. */
static struct wf_stack *batch_withdraw_beyond(
	struct wf_stack_depot *depot, unsigned size_class, size_t keep_count)
{
	struct shelf *shelf = &depot->shelf[size_class];
	struct wf_stack **link = &shelf->batches;
	struct wf_stack *first = NULL;
	size_t kept = 0;

	wf_spinlock_lock(&depot->lock);
	while (*link != NULL && kept < keep_count) {
		kept += (*link)->batch_count;
		link = &(*link)->batch_next;
	}
	if (*link != NULL)
		first = batch_detach(shelf, link);
	wf_spinlock_unlock(&depot->lock);
	return first;
}

/* An idle stack that is in no list. Its guard stays: MADV_DONTNEED leaves both kinds alone. */
static void stack_trim(struct wf_stack_depot *depot, struct wf_stack *stack)
{
	uint64_t bit = (uint64_t)1 << stack->index;
	struct wf_slab *slab = stack->slab;
	bool unused;

	tools_close(stack, slab->stack_bytes);
	(void)depot->map->advise(depot->map->ctx, stack->low, slab->stack_bytes, MADV_DONTNEED);
	(void)wf_u64_fetch_add(&depot->opened, (uint64_t)-1);
	wf_spinlock_lock(&depot->lock);
	unused = bits_return(depot, slab, bit, bit);
	wf_spinlock_unlock(&depot->lock);
	if (unused)
		slab_unmap(depot, slab);
}

size_t wf_stack_depot_trim(struct wf_stack_depot *depot, size_t keep_count)
{
	struct wf_stack *stack, *next;
	size_t trimmed = 0;

	for (unsigned i = 0; i < WF_STACK_CLASSES; i++) {
		while ((stack = batch_withdraw_beyond(depot, i, keep_count)) != NULL) {
			for (; stack != NULL; stack = next, trimmed++) {
				next = stack->next;
				stack_trim(depot, stack);
			}
		}
	}
	return trimmed;
}

void wf_stack_depot_stats(struct wf_stack_depot *depot, struct wf_stack_stats *stats_out)
{
	wf_spinlock_lock(&depot->lock);
	stats_out->mapped_bytes = depot->mapped_bytes;
	stats_out->slabs = depot->slab_count;
	stats_out->idle = idle_total(depot);
	wf_spinlock_unlock(&depot->lock);
	stats_out->opened = wf_u64_load_relaxed(&depot->opened);
	stats_out->guard_mprotect = wf_u32_load_relaxed(&depot->guard_mprotect);
}

/* --- checks --- */

static const char *shelf_problem(const struct shelf *shelf, unsigned size_class)
{
	uint64_t idle = 0;
	struct wf_slab *slab;

	for (struct wf_stack *batch = shelf->batches; batch != NULL; batch = batch->batch_next) {
		unsigned count = 0;

		for (struct wf_stack *s = batch; s != NULL; s = s->next, count++) {
			if (s->size_class != size_class || s->slab->size_class != size_class)
				return "an idle stack is on the shelf of another size";
			if (slab_stack(s->slab, s->index) != s)
				return "an idle stack does not lie where its slab has it";
			if (s->slab->unopened >> s->index & 1)
				return "an idle stack counts as unopened";
		}
		if (count != batch->batch_count || count > batch_max(size_class))
			return "a batch has another length than it says";
		idle += count;
	}
	if (idle != wf_u64_load_relaxed(&shelf->idle_count))
		return "the batches do not add up to the idle count";
	LIST_FOREACH(slab, &shelf->fresh, fresh_link)
	if (slab->unopened == 0 || !slab->in_fresh || slab->size_class != size_class)
		return "a slab is wrongly in the list of fresh ones";
	return NULL;
}

static const char *slabs_problem(const struct wf_stack_depot *depot)
{
	size_t count = 0, bytes = 0;
	struct wf_slab *slab;

	LIST_FOREACH(slab, &depot->slabs, all_link)
	{
		if (slab->unopened & ~slab->all)
			return "a slab has unopened stacks it does not have";
		if (slab->guarded & ~slab->unopened)
			return "a slab has guards of stacks that are opened";
		if (slab->size_class != WF_STACK_OWN && slab->in_fresh != (slab->unopened != 0))
			return "a slab with unopened stacks is not in the list of fresh ones";
		count++;
		bytes += slab->bytes;
	}
	if (count != depot->slab_count || bytes != depot->mapped_bytes)
		return "slabs and mapped bytes are miscounted";
	return NULL;
}

bool wf_stack_depot_valid(struct wf_stack_depot *depot)
{
	const char *problem;

	wf_spinlock_lock(&depot->lock);
	problem = slabs_problem(depot);
	for (unsigned i = 0; i < WF_STACK_CLASSES && problem == NULL; i++)
		problem = shelf_problem(&depot->shelf[i], i);
	wf_spinlock_unlock(&depot->lock);
	if (problem != NULL)
		fprintf(stderr, "weft: stack depot: %s\n", problem);
	return problem == NULL;
}

/* --- about one stack --- */

size_t wf_stack_bytes(const struct wf_stack *stack)
{
	return stack->slab->stack_bytes;
}

bool wf_stack_in_guard(const struct wf_stack *stack, const void *address)
{
	uintptr_t low = (uintptr_t)stack->low;
	uintptr_t at = (uintptr_t)address;

	return at < low && at >= low - stack->slab->page_bytes;
}

/* Reads red zones and other fibers' dead frames: not for sanitizers. NULL: all zero. */
__attribute__((no_sanitize("address", "thread"))) static const char *first_nonzero(
	const char *from, const char *to)
{
	for (const char *at = from; at < to; at += sizeof(uint64_t))
		if (*(const uint64_t *)(const void *)at != 0)
			return at;
	return NULL;
}

size_t wf_stack_high_water_bytes(const struct wf_stack *stack, const struct wf_stack_depot *depot)
{
	size_t page_bytes = depot->page_bytes;
	size_t page_count = stack->slab->stack_bytes / page_bytes;
	const char *top = (const char *)stack;
	unsigned char resident[RESIDENT_PAGES];

	for (size_t page = 0; page < page_count; page++) {
		char *low = stack->low + page * page_bytes;
		const char *high = low + page_bytes < top ? low + page_bytes : top;
		const char *used;

		if (page % RESIDENT_PAGES == 0) {
			size_t count = page_count - page;

			if (count > RESIDENT_PAGES)
				count = RESIDENT_PAGES;
			if (depot->map->resident(
				    depot->map->ctx, low, count * page_bytes, resident) < 0)
				return 0;
		}
		used = resident[page % RESIDENT_PAGES] & 1 ? first_nonzero(low, high) : NULL;
		if (used != NULL)
			return (size_t)(top - used);
	}
	return 0;
}

#if WF_ASAN || WF_TSAN

/* What the sanitizers' announcements put there as well. */
void wf_stack_probe(void)
{
	volatile char room[2048] = {0};

	(void)room[0];
}

#endif
