/*
 * Stacks: sizes and places, guards of both kinds, pools and the depot behind them, giving memory
 * back, and every system call refused once.
 *
 * A counting struct wf_map stands between the depot and the kernel: it refuses the calls a test
 * names, and knows what is mapped, so that each test ends with "nothing is left".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/stack.h"
#include "test/harness.h"

enum {
	DEFAULT_BYTES = 64 * 1024,
	DEFAULT_CLASS = 2,
	MANY = 1000,
	LOG_BYTES = 512,
	MAPPINGS_FEW = 1000, /* as vm.max_map_count, in tests that reach it */
};

/* --- the kernel, with a say --- */

enum call {
	CALL_MAP,
	CALL_UNMAP,
	CALL_ADVISE,
	CALL_PROTECT,
	CALL_COUNT,
};

struct kernel {
	struct wf_map map;
	unsigned calls[CALL_COUNT];
	unsigned guards; /* of the advice calls */
	size_t mapped_bytes;
	size_t mappings_max;     /* what count_max says; 0: the truth */
	int refuse_advice;       /* with this errno, WF_MADV_GUARD_INSTALL after the probe */
	bool refuse[CALL_COUNT]; /* all of them */
	unsigned refuse_nth;     /* counted over all calls that may fail, from 1; 0: none */
	unsigned nth;
	unsigned refused;
};

static bool refuses(struct kernel *kernel, enum call call)
{
	bool refuse = kernel->refuse[call];

	kernel->calls[call]++;
	if (++kernel->nth == kernel->refuse_nth)
		refuse = true;
	kernel->refused += refuse;
	return refuse;
}

static size_t kernel_page_bytes(void *ctx)
{
	(void)ctx;
	return wf_map_kernel.page_bytes(wf_map_kernel.ctx);
}

static int kernel_map(void *ctx, size_t bytes, void **memory_out)
{
	struct kernel *kernel = ctx;
	int r;

	if (refuses(kernel, CALL_MAP))
		return -ENOMEM;
	r = wf_map_kernel.map(wf_map_kernel.ctx, bytes, memory_out);
	if (r == 0)
		kernel->mapped_bytes += bytes;
	return r;
}

static int kernel_unmap(void *ctx, void *memory, size_t bytes)
{
	struct kernel *kernel = ctx;
	int r;

	if (refuses(kernel, CALL_UNMAP))
		return -ENOMEM;
	r = wf_map_kernel.unmap(wf_map_kernel.ctx, memory, bytes);
	if (r == 0)
		kernel->mapped_bytes -= bytes;
	return r;
}

static int kernel_advise(void *ctx, void *memory, size_t bytes, int advice)
{
	struct kernel *kernel = ctx;

	if (refuses(kernel, CALL_ADVISE))
		return -ENOMEM;
	if (advice == WF_MADV_GUARD_INSTALL && kernel->guards++ > 0 && kernel->refuse_advice != 0)
		return kernel->refuse_advice;
	return wf_map_kernel.advise(wf_map_kernel.ctx, memory, bytes, advice);
}

static int kernel_protect(void *ctx, void *memory, size_t bytes)
{
	struct kernel *kernel = ctx;

	if (refuses(kernel, CALL_PROTECT))
		return -ENOMEM;
	return wf_map_kernel.protect(wf_map_kernel.ctx, memory, bytes);
}

static int kernel_resident(void *ctx, void *memory, size_t bytes, unsigned char *pages_out)
{
	(void)ctx;
	return wf_map_kernel.resident(wf_map_kernel.ctx, memory, bytes, pages_out);
}

static size_t kernel_count_max(void *ctx)
{
	struct kernel *kernel = ctx;

	if (kernel->mappings_max != 0)
		return kernel->mappings_max;
	return wf_map_kernel.count_max(wf_map_kernel.ctx);
}

static const struct wf_map kernel_calls = {
	.page_bytes = kernel_page_bytes,
	.map = kernel_map,
	.unmap = kernel_unmap,
	.advise = kernel_advise,
	.protect = kernel_protect,
	.resident = kernel_resident,
	.count_max = kernel_count_max,
};

/* --- a depot and a pool --- */

struct rig {
	struct kernel kernel;
	struct wf_stack_depot *depot;
	struct wf_stack_pool pool;
	unsigned lines; /* of log */
	char line[LOG_BYTES];
};

static void note_line(void *ctx, int level, const char *text)
{
	struct rig *rig = ctx;

	cr_assert_eq(level, 1);
	rig->lines++;
	snprintf(rig->line, sizeof rig->line, "%s", text);
}

static int rig_try(struct rig *rig, bool guard_mprotect)
{
	struct wf_stack_depot_opts opts = {
		.guard_mprotect = guard_mprotect,
		.map = &rig->kernel.map,
		.log = note_line,
		.log_ctx = rig,
	};

	rig->kernel.map = kernel_calls;
	rig->kernel.map.ctx = &rig->kernel;
	wf_stack_pool_init(&rig->pool);
	return wf_stack_depot_create(&opts, &rig->depot);
}

static void rig_open(struct rig *rig, bool guard_mprotect)
{
	cr_assert_eq(rig_try(rig, guard_mprotect), 0);
}

static void rig_close(struct rig *rig)
{
	wf_stack_pool_close(&rig->pool, rig->depot);
	cr_assert(wf_stack_depot_valid(rig->depot));
	wf_stack_depot_destroy(rig->depot);
	cr_assert_eq(rig->kernel.mapped_bytes, (size_t)0, "something is still mapped");
}

static struct wf_stack_stats stats(struct rig *rig)
{
	struct wf_stack_stats stats;

	cr_assert(wf_stack_depot_valid(rig->depot));
	wf_stack_depot_stats(rig->depot, &stats);
	return stats;
}

static struct wf_stack *take(struct rig *rig, size_t bytes)
{
	return wf_stack_take(&rig->pool, rig->depot, bytes);
}

static void give(struct rig *rig, struct wf_stack *stack)
{
	wf_stack_give(&rig->pool, rig->depot, stack);
}

static void take_many(struct rig *rig, struct wf_stack **stacks, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		stacks[i] = take(rig, DEFAULT_BYTES);
		cr_assert_not_null(stacks[i], "stack %u", i);
	}
}

static void give_many(struct rig *rig, struct wf_stack **stacks, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		give(rig, stacks[i]);
}

/* --- sizes and places --- */

Test(stack, has_at_least_the_size_asked_for, .timeout = 120)
{
	static const size_t asked[] = {1, 4096, 16384, 16385, 32768, 50000, 65536, 65537, 1 << 20,
		(1 << 20) + 1, 8 << 20, (8 << 20) + 1, 100 << 20};
	struct rig rig = {.lines = 0};

	rig_open(&rig, false);
	for (size_t i = 0; i < WF_ARRAY_COUNT(asked); i++) {
		struct wf_stack *stack = take(&rig, asked[i]);
		size_t bytes;

		cr_assert_not_null(stack);
		bytes = wf_stack_bytes(stack);
		cr_assert_geq(bytes, asked[i]);
		cr_assert_geq(bytes, (size_t)WF_STACK_BYTES_MIN);
		cr_assert(asked[i] <= WF_STACK_BYTES_MIN || bytes < 2 * asked[i]);
		/* The control block and the colour are all that is missing. */
		cr_assert_geq(wf_stack_usable_bytes(stack),
			bytes - WF_STACK_CONTROL_BYTES - 15 * WF_CACHE_LINE);
		cr_assert_eq((uintptr_t)wf_stack_top(stack) % WF_CACHE_LINE, (uintptr_t)0);
		memset(stack->low, 1, wf_stack_usable_bytes(stack));
		give(&rig, stack);
	}
	rig_close(&rig);
}

Test(stack, largest_have_a_mapping_that_ends_with_them, .timeout = 120)
{
	struct rig rig = {.lines = 0};
	size_t before, bytes = 20 << 20;
	struct wf_stack *stack;

	rig_open(&rig, false);
	before = rig.kernel.mapped_bytes;
	stack = take(&rig, bytes);
	cr_assert_eq(rig.kernel.mapped_bytes, before + bytes + 2 * 4096);
	give(&rig, stack);
	cr_assert_eq(rig.kernel.mapped_bytes, before);
	rig_close(&rig);
}

static int by_address(const void *a, const void *b)
{
	const struct wf_stack *const *left = a, *const *right = b;

	return *left < *right ? -1 : *left > *right;
}

Test(stack, stacks_do_not_overlap_and_guards_lie_between, .timeout = 120)
{
	static struct wf_stack *stacks[MANY];
	struct rig rig = {.lines = 0};

	rig_open(&rig, false);
	take_many(&rig, stacks, MANY);
	qsort(stacks, MANY, sizeof stacks[0], by_address);
	for (unsigned i = 1; i < MANY; i++) {
		const char *high = (char *)stacks[i - 1] + WF_STACK_CONTROL_BYTES;
		size_t odd_pages = (size_t)(stacks[i]->low - stacks[i - 1]->low) / 4096;

		cr_assert_geq(stacks[i]->low, high + 4096);
		if (stacks[i]->slab == stacks[i - 1]->slab)
			cr_assert_eq(odd_pages % 2, (size_t)1, "a TLB set for every stack");
	}
	give_many(&rig, stacks, MANY);
	rig_close(&rig);
}

/* Control blocks all at the end of a page would share a few cache sets. */
Test(stack, neighbours_have_different_colours_within_1_kib, .timeout = 120)
{
	static struct wf_stack *stacks[WF_STACK_COLOURS];
	struct rig rig = {.lines = 0};
	uint32_t colours = 0;

	rig_open(&rig, false);
	take_many(&rig, stacks, WF_STACK_COLOURS);
	for (unsigned i = 0; i < WF_STACK_COLOURS; i++) {
		const char *high = stacks[i]->low + wf_stack_bytes(stacks[i]);
		size_t colour = (size_t)(high - (char *)stacks[i]) - WF_STACK_CONTROL_BYTES;

		cr_assert_lt(colour, (size_t)1024);
		colours |= 1u << colour / WF_CACHE_LINE;
	}
	cr_assert_eq(colours, 0xffffu);
	give_many(&rig, stacks, WF_STACK_COLOURS);
	rig_close(&rig);
}

/* --- reuse --- */

Test(stack, the_one_given_last_is_taken_first, .timeout = 120)
{
	struct rig rig = {.lines = 0};
	struct wf_stack *first, *second;

	rig_open(&rig, false);
	first = take(&rig, DEFAULT_BYTES);
	second = take(&rig, DEFAULT_BYTES);
	give(&rig, first);
	give(&rig, second);
	cr_assert_eq(take(&rig, DEFAULT_BYTES), second);
	cr_assert_eq(take(&rig, DEFAULT_BYTES), first);
	give(&rig, first);
	give(&rig, second);
	rig_close(&rig);
}

Test(stack, reuse_makes_no_system_call, .timeout = 120)
{
	static struct wf_stack *stacks[MANY];
	struct rig rig = {.lines = 0};
	unsigned calls;

	rig_open(&rig, false);
	take_many(&rig, stacks, MANY);
	give_many(&rig, stacks, MANY);
	calls = rig.kernel.nth;
	for (int round = 0; round < 10; round++) {
		take_many(&rig, stacks, MANY);
		give_many(&rig, stacks, MANY);
	}
	cr_assert_eq(rig.kernel.nth, calls);
	rig_close(&rig);
}

Test(stack, a_pool_keeps_a_bounded_number, .timeout = 120)
{
	static struct wf_stack *stacks[MANY];
	struct rig rig = {.lines = 0};

	rig_open(&rig, false);
	take_many(&rig, stacks, MANY);
	cr_assert_eq(stats(&rig).idle, (size_t)0);
	give_many(&rig, stacks, MANY);
	cr_assert_geq(stats(&rig).idle, (size_t)MANY - 64);
	cr_assert_eq(stats(&rig).opened, (size_t)MANY);
	wf_stack_pool_close(&rig.pool, rig.depot);
	cr_assert_eq(stats(&rig).idle, (size_t)MANY);
	rig_close(&rig);
}

/* A full pool that gives and takes in turns must not meet the depot each time. */
Test(stack, a_full_pool_meets_the_depot_once_in_a_batch, .timeout = 120)
{
	static struct wf_stack *stacks[200];
	struct rig rig = {.lines = 0};
	size_t idle, changes = 0;

	rig_open(&rig, false);
	take_many(&rig, stacks, 200);
	give_many(&rig, stacks, 200);
	idle = stats(&rig).idle;
	for (unsigned i = 0; i < 300; i++) {
		struct wf_stack *first = take(&rig, DEFAULT_BYTES);
		struct wf_stack *second = take(&rig, DEFAULT_BYTES);

		give(&rig, first);
		give(&rig, second);
		changes += stats(&rig).idle != idle;
		idle = stats(&rig).idle;
	}
	cr_assert_leq(changes, (size_t)2);
	rig_close(&rig);
}

/* Taken by one worker, given by another, for ever: the depot carries them back. */
Test(stack, the_depot_balances_pools, .timeout = 120)
{
	static struct wf_stack *stacks[MANY];
	struct rig rig = {.lines = 0};
	struct wf_stack_pool other;
	size_t mapped_bytes = 0;

	rig_open(&rig, false);
	wf_stack_pool_init(&other);
	for (int round = 0; round < 20; round++) {
		take_many(&rig, stacks, MANY);
		for (unsigned i = 0; i < MANY; i++)
			wf_stack_give(&other, rig.depot, stacks[i]);
		if (round == 1)
			mapped_bytes = stats(&rig).mapped_bytes;
	}
	cr_assert_eq(stats(&rig).mapped_bytes, mapped_bytes, "grows from round to round");
	wf_stack_pool_close(&other, rig.depot);
	rig_close(&rig);
}

Test(stack, a_thread_without_a_pool_uses_the_depot, .timeout = 120)
{
	struct rig rig = {.lines = 0};
	struct wf_stack *stacks[100];

	rig_open(&rig, false);
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 100; i++) {
			stacks[i] = wf_stack_take(NULL, rig.depot, DEFAULT_BYTES);
			cr_assert_not_null(stacks[i]);
		}
		for (unsigned i = 0; i < 100; i++)
			wf_stack_give(NULL, rig.depot, stacks[i]);
		cr_assert_eq(stats(&rig).idle, (size_t)100);
	}
	/* And from there into a pool. */
	stacks[0] = take(&rig, DEFAULT_BYTES);
	cr_assert_eq(stats(&rig).opened, (size_t)100);
	give(&rig, stacks[0]);
	rig_close(&rig);
}

/* --- guards --- */

/* Whether touching `address` kills. In a child, with the handlers a sanitizer may have put back. */
static bool kills(volatile char *address)
{
	int status;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		*address = 1;
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void check_guard(const struct wf_stack *stack)
{
	char *low = stack->low;

	cr_assert(!kills(low), "the lowest byte");
	cr_assert(kills(low - 1), "just below");
	cr_assert(kills(low - 4096), "the end of the guard");
	cr_assert(wf_stack_in_guard(stack, low - 1));
	cr_assert(wf_stack_in_guard(stack, low - 4096));
	cr_assert(!wf_stack_in_guard(stack, low));
	cr_assert(!wf_stack_in_guard(stack, low - 4097));
	cr_assert(!wf_stack_in_guard(stack, NULL));
}

static void check_guards(bool guard_mprotect)
{
	struct rig rig = {.lines = 0};
	struct wf_stack *first, *second;

	rig_open(&rig, guard_mprotect);
	cr_assert_eq(rig.kernel.calls[CALL_PROTECT], 0);
	first = take(&rig, DEFAULT_BYTES);
	second = take(&rig, DEFAULT_BYTES);
	check_guard(first);
	check_guard(second);
	give(&rig, first);
	cr_assert_eq(take(&rig, DEFAULT_BYTES), first);
	check_guard(first);
	/* Trimmed and opened again: still there, without another call. */
	wf_stack_give(NULL, rig.depot, first);
	cr_assert_eq(wf_stack_depot_trim(rig.depot, 0), (size_t)1);
	rig.kernel.guards = rig.kernel.calls[CALL_PROTECT] = 0;
	wf_stack_pool_close(&rig.pool, rig.depot);
	cr_assert_eq(take(&rig, DEFAULT_BYTES), first);
	check_guard(first);
	cr_assert_eq(rig.kernel.guards + rig.kernel.calls[CALL_PROTECT], 0);
	give(&rig, first);
	give(&rig, second);
	rig_close(&rig);
}

Test(stack, overflow_hits_a_guard, .timeout = 120)
{
	struct rig rig = {.lines = 0};
	bool guard_mprotect;

	rig_open(&rig, false);
	guard_mprotect = stats(&rig).guard_mprotect;
	rig_close(&rig);
	if (guard_mprotect)
		cr_skip_test("this kernel has no MADV_GUARD_INSTALL");
	check_guards(false);
}

Test(stack, overflow_hits_a_guard_made_by_mprotect, .timeout = 120)
{
	check_guards(true);
}

/* mlockall() of the host: the advice is refused with EINVAL from some day on. */
Test(stack, falls_back_to_mprotect_when_the_advice_is_refused, .timeout = 120)
{
	struct rig rig = {.lines = 0};
	struct wf_stack *first, *second;

	rig_open(&rig, false);
	if (stats(&rig).guard_mprotect)
		cr_skip_test("this kernel has no MADV_GUARD_INSTALL");
	first = take(&rig, DEFAULT_BYTES);
	rig.kernel.refuse_advice = -EINVAL;
	second = take(&rig, DEFAULT_BYTES);
	cr_assert_not_null(second);
	cr_assert(stats(&rig).guard_mprotect);
	cr_assert_eq(rig.kernel.calls[CALL_PROTECT], 1);
	check_guard(first);
	check_guard(second);
	give(&rig, first);
	give(&rig, second);
	rig_close(&rig);
}

/* --- the limit on mappings --- */

Test(stack, names_max_map_count_once_when_mprotect_reaches_it, .timeout = 120)
{
	static struct wf_stack *stacks[MAPPINGS_FEW];
	struct rig rig = {.kernel = {.mappings_max = MAPPINGS_FEW}};
	unsigned count = 0;

	rig_open(&rig, true);
	while (count < MAPPINGS_FEW && (stacks[count] = take(&rig, DEFAULT_BYTES)) != NULL)
		count++;
	/* Two mappings each, an eighth left to the host. */
	cr_assert_eq(count, MAPPINGS_FEW * 7u / 16);
	cr_assert_eq(rig.lines, 1);
	cr_assert_not_null(strstr(rig.line, "vm.max_map_count is 1000"), "%s", rig.line);
	for (int i = 0; i < 10; i++) {
		cr_assert_null(take(&rig, DEFAULT_BYTES));
		cr_assert_null(wf_stack_take(NULL, rig.depot, DEFAULT_BYTES));
		cr_assert_null(take(&rig, 100 << 20));
	}
	cr_assert_eq(rig.lines, 1);
	/* The rest is unharmed, and what ends makes room. */
	for (unsigned i = 0; i < count; i++)
		memset(stacks[i]->low, 1, 4096);
	give(&rig, stacks[--count]);
	stacks[count] = take(&rig, DEFAULT_BYTES);
	cr_assert_not_null(stacks[count]);
	count++;
	give_many(&rig, stacks, count);
	wf_stack_pool_close(&rig.pool, rig.depot);
	(void)wf_stack_depot_trim(rig.depot, 0);
	cr_assert_eq(stats(&rig).slabs, (size_t)0);
	take_many(&rig, stacks, count);
	give_many(&rig, stacks, count);
	rig_close(&rig);
}

/* P10 of the design's scenarios, at this level: the kernel's own limit, and the host goes on. */
Test(stack, the_kernels_own_limit_leaves_the_host_mappings, .timeout = 120)
{
	size_t mappings_max = wf_map_kernel.count_max(wf_map_kernel.ctx);
	struct rig rig = {.lines = 0};
	struct wf_stack **stacks;
	unsigned count = 0;
	void *host[100];

	if (HARNESS_ASAN || HARNESS_TSAN || mappings_max == 0 || mappings_max > 200000)
		cr_skip_test("sanitizers map too much themselves, or the limit is far away");
	stacks = calloc(mappings_max, sizeof *stacks);
	rig_open(&rig, true);
	while (count < mappings_max && (stacks[count] = take(&rig, 16384)) != NULL)
		count++;
	cr_assert_lt(count, mappings_max / 2);
	cr_assert_gt(count, mappings_max / 2 - 1000);
	cr_assert_eq(rig.lines, 1);
	cr_assert_not_null(strstr(rig.line, "vm.max_map_count"), "%s", rig.line);
	for (int i = 0; i < 100; i++) {
		host[i] = mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		cr_assert_neq(host[i], MAP_FAILED, "the host gets no mapping");
	}
	for (int i = 0; i < 100; i++)
		munmap(host[i], 4096);
	give_many(&rig, stacks, count);
	rig_close(&rig);
	free(stacks);
}

/* --- memory --- */

static size_t resident_pages(const char *low, size_t bytes)
{
	static unsigned char pages[64 * 17 + 2];
	size_t count = 0;

	cr_assert_eq(mincore((void *)(uintptr_t)low, bytes, pages), 0);
	for (size_t i = 0; i < bytes / 4096; i++)
		count += pages[i] & 1;
	return count;
}

/* Only stacks that are taken may cost memory: their top page each. */
Test(stack, memory_is_touched_one_stack_at_a_time, .timeout = 120)
{
	static struct wf_stack *stacks[60];
	struct rig rig = {.lines = 0};
	char *slab;
	size_t bytes;

	rig_open(&rig, false);
	stacks[0] = take(&rig, DEFAULT_BYTES);
	slab = (char *)stacks[0]->slab;
	bytes = stats(&rig).mapped_bytes;
	cr_assert_eq(resident_pages(slab, bytes), (size_t)2, "the slab's header and one stack");
	for (unsigned i = 1; i < 60; i++) {
		stacks[i] = take(&rig, DEFAULT_BYTES);
		cr_assert_eq(resident_pages(slab, bytes), (size_t)i + 2);
	}
	give_many(&rig, stacks, 60);
	rig_close(&rig);
}

Test(stack, trimming_gives_memory_and_slabs_back, .timeout = 120)
{
	static struct wf_stack *stacks[MANY];
	struct rig rig = {.lines = 0};
	size_t mapped_bytes, slabs;

	rig_open(&rig, false);
	take_many(&rig, stacks, MANY);
	mapped_bytes = stats(&rig).mapped_bytes;
	slabs = stats(&rig).slabs;
	for (unsigned i = 0; i < MANY; i++)
		memset(stacks[i]->low, 1, wf_stack_usable_bytes(stacks[i]));
	/* All but one: its slab stays, with one page. */
	for (unsigned i = 1; i < MANY; i++)
		wf_stack_give(NULL, rig.depot, stacks[i]);
	cr_assert_eq(wf_stack_depot_trim(rig.depot, MANY), (size_t)0, "all are to be kept");
	cr_assert_eq(wf_stack_depot_trim(rig.depot, 100), (size_t)MANY - 1 - 100);
	cr_assert_eq(stats(&rig).idle, (size_t)100);
	cr_assert_lt(stats(&rig).mapped_bytes, mapped_bytes / 2);
	cr_assert_eq(wf_stack_depot_trim(rig.depot, 0), (size_t)100);
	wf_stack_pool_close(&rig.pool, rig.depot); /* returns the unopened of the last slab */
	cr_assert_eq(stats(&rig).slabs, (size_t)1);
	cr_assert_eq(stats(&rig).opened, (size_t)1);
	cr_assert_eq(resident_pages((char *)stacks[0]->slab, stats(&rig).mapped_bytes),
		1 + wf_stack_bytes(stacks[0]) / 4096);
	/* What was trimmed serves again. */
	take_many(&rig, stacks + 1, MANY - 1);
	cr_assert_eq(stats(&rig).slabs, slabs);
	give_many(&rig, stacks, MANY);
	rig_close(&rig);
}

Test(stack, high_water_is_what_was_used, .timeout = 120)
{
	static const size_t depths[] = {0, 8, 100, 4096, 5000, 40000};
	struct rig rig = {.lines = 0};
	struct wf_stack *stack;

	rig_open(&rig, false);
	stack = take(&rig, DEFAULT_BYTES);
	for (size_t i = 0; i < WF_ARRAY_COUNT(depths); i++) {
		if (depths[i] > 0)
			*(wf_stack_top(stack) - depths[i]) = 1;
		/* To the word; the page below was never touched. */
		cr_assert_eq(wf_stack_high_water_bytes(stack, rig.depot), (depths[i] + 7) / 8 * 8);
	}
	*stack->low = 1;
	cr_assert_eq(wf_stack_high_water_bytes(stack, rig.depot), wf_stack_usable_bytes(stack));
	/* It is the stack's, not the fiber's: reuse does not reset it, trimming does. */
	give(&rig, stack);
	cr_assert_eq(take(&rig, DEFAULT_BYTES), stack);
	cr_assert_eq(wf_stack_high_water_bytes(stack, rig.depot), wf_stack_usable_bytes(stack));
	wf_stack_give(NULL, rig.depot, stack);
	(void)wf_stack_depot_trim(rig.depot, 0);
	wf_stack_pool_close(&rig.pool, rig.depot);
	stack = take(&rig, DEFAULT_BYTES);
	cr_assert_eq(wf_stack_high_water_bytes(stack, rig.depot), (size_t)0);
	give(&rig, stack);
	/* More pages than fit one question to the kernel. */
	stack = take(&rig, 8 << 20);
	*(wf_stack_top(stack) - (5 << 20)) = 1;
	cr_assert_eq(wf_stack_high_water_bytes(stack, rig.depot), (size_t)5 << 20);
	give(&rig, stack);
	rig_close(&rig);
}

/* --- refusals --- */

Test(stack, refused_memory_is_no_stack_and_one_line, .timeout = 120)
{
	struct rig rig = {.lines = 0};
	struct wf_stack *stack;

	rig_open(&rig, false);
	stack = take(&rig, DEFAULT_BYTES);
	cr_assert_not_null(stack);
	rig.kernel.refuse[CALL_MAP] = true;
	for (int i = 0; i < 10; i++) {
		cr_assert_null(take(&rig, 16384));
		cr_assert_null(take(&rig, 100 << 20));
		cr_assert_null(wf_stack_take(NULL, rig.depot, 1 << 20));
	}
	cr_assert_null(take(&rig, SIZE_MAX));
	cr_assert_eq(rig.lines, 1);
	cr_assert_not_null(strstr(rig.line, "RLIMIT_AS"), "%s", rig.line);
	rig.kernel.refuse[CALL_MAP] = false;
	give(&rig, stack);
	stack = take(&rig, 16384);
	cr_assert_not_null(stack);
	give(&rig, stack);
	rig_close(&rig);
}

/* A large slab refused, a small one granted: address space may be short but not gone. */
Test(stack, tries_a_smaller_slab, .timeout = 120)
{
	struct rig rig = {.lines = 0};
	struct wf_stack *stack;

	rig_open(&rig, false);
	rig.kernel.refuse_nth = rig.kernel.nth + 1;
	stack = take(&rig, DEFAULT_BYTES);
	cr_assert_not_null(stack);
	cr_assert_eq(rig.kernel.refused, 1);
	cr_assert_eq(rig.lines, 0);
	give(&rig, stack);
	rig_close(&rig);
}

Test(stack, a_slab_that_cannot_be_unmapped_serves_again, .timeout = 120)
{
	static struct wf_stack *stacks[60];
	struct rig rig = {.lines = 0};
	struct wf_stack *own;
	size_t mapped_bytes;

	rig_open(&rig, false);
	take_many(&rig, stacks, 60);
	own = take(&rig, 20 << 20);
	mapped_bytes = stats(&rig).mapped_bytes;
	rig.kernel.refuse[CALL_UNMAP] = true;
	give_many(&rig, stacks, 60);
	give(&rig, own);
	wf_stack_pool_close(&rig.pool, rig.depot);
	(void)wf_stack_depot_trim(rig.depot, 0);
	cr_assert_eq(stats(&rig).mapped_bytes, mapped_bytes);
	cr_assert_eq(stats(&rig).opened, (size_t)0);
	take_many(&rig, stacks, 60);
	cr_assert_eq(stats(&rig).mapped_bytes, mapped_bytes);
	give_many(&rig, stacks, 60);
	rig.kernel.refuse[CALL_UNMAP] = false;
	rig_close(&rig);
}

/* Everything once, of two sizes. NULL is an answer; what was had is given back. */
static void use_everything(struct rig *rig)
{
	struct wf_stack *stacks[80];

	for (unsigned i = 0; i < 80; i++)
		stacks[i] = i % 4 != 0   ? take(rig, DEFAULT_BYTES)
			    : i % 8 != 0 ? wf_stack_take(NULL, rig->depot, 16384)
					 : take(rig, 10 << 20);
	cr_assert(wf_stack_depot_valid(rig->depot));
	for (unsigned i = 0; i < 80; i++) {
		if (stacks[i] == NULL)
			continue;
		stacks[i]->low[100] = 1;
		wf_stack_give(i % 3 != 0 ? &rig->pool : NULL, rig->depot, stacks[i]);
	}
	cr_assert(wf_stack_depot_valid(rig->depot));
	(void)wf_stack_depot_trim(rig->depot, 10);
	cr_assert(wf_stack_depot_valid(rig->depot));
	wf_stack_pool_close(&rig->pool, rig->depot);
	(void)wf_stack_depot_trim(rig->depot, 0);
	cr_assert_eq(stats(rig).opened, (size_t)0);
}

/* Refuses the n-th call, for every n there is; afterwards everything works, and nothing is left. */
static void refuse_each(bool guard_mprotect)
{
	unsigned n = 0;
	bool refused;

	do {
		struct rig rig = {.kernel = {.refuse_nth = ++n}};
		int r = rig_try(&rig, guard_mprotect);

		if (r < 0) {
			cr_assert_eq(r, -ENOMEM);
			cr_assert_eq(rig.kernel.mapped_bytes, (size_t)0);
			refused = true;
			continue;
		}
		use_everything(&rig);
		refused = rig.kernel.refused > 0;
		use_everything(&rig);
		rig_close(&rig);
	} while (refused);
	cr_assert_gt(n, 50, "the calls were counted");
}

Test(stack, any_one_call_may_fail, .timeout = 120)
{
	refuse_each(false);
}

Test(stack, any_one_call_may_fail_with_mprotect, .timeout = 120)
{
	refuse_each(true);
}
