/*
 * Goal: what core/ and io/ assume of the kernel's memory holds on this one. Method: the bare system
 * calls, no Weft. Each test names the place that relies on it; what a kernel lacks is skipped.
 */
#include "test/harness.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	GUARD_INSTALL = 102, /* MADV_GUARD_INSTALL, Linux 6.13 */
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* As core/map.c maps. */
static char *map_pages(size_t count)
{
	char *memory = mmap(NULL, count * page_bytes(), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	cr_assert_neq((void *)memory, MAP_FAILED);
	return memory;
}

static char *page_of(char *memory, size_t index)
{
	return memory + index * page_bytes();
}

static void guard_or_skip(char *page)
{
	if (madvise(page, page_bytes(), GUARD_INSTALL) < 0) {
		cr_assert_eq(errno, EINVAL);
		cr_skip_test("this kernel has no MADV_GUARD_INSTALL");
	}
}

/* --- Faults --- */

static sigjmp_buf after_fault;
static volatile sig_atomic_t fault_signal, fault_code;
static void *volatile fault_address;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fault_signal = sig;
	fault_code = info->si_code;
	fault_address = info->si_addr;
	siglongjmp(after_fault, 1);
}

static void catch_faults(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	cr_assert_eq(sigaction(SIGSEGV, &action, NULL), 0);
	cr_assert_eq(sigaction(SIGBUS, &action, NULL), 0);
}

/* Whether a touch of this byte ends in a fault there. */
static bool faults(char *touched, bool writes)
{
	volatile char *byte = touched;

	if (sigsetjmp(after_fault, 1)) {
		cr_assert_eq(fault_signal, SIGSEGV);
		cr_assert_eq((void *)fault_address, (void *)touched);
		/* core/guard.c takes only those for a fault that have been sent by nobody. */
		cr_assert_gt(fault_code, 0);
		return true;
	}
	if (writes)
		*byte = 1;
	else
		(void)*byte;
	return false;
}

static void check_page_is_guarded(char *page)
{
	for (size_t at = 0; at < page_bytes(); at += page_bytes() - 1) {
		cr_assert(faults(page + at, false));
		cr_assert(faults(page + at, true));
	}
}

/* --- Mappings --- */

/* Mappings that overlap this range. */
static unsigned mappings_of(const char *memory, size_t bytes)
{
	FILE *file = fopen("/proc/self/maps", "re");
	uintptr_t low = (uintptr_t)memory, from, to;
	unsigned count = 0;
	char line[512];

	cr_assert_not_null(file);
	while (fgets(line, sizeof line, file)) {
		cr_assert_eq(sscanf(line, "%lx-%lx", &from, &to), 2);
		count += from < low + bytes && to > low;
	}
	fclose(file);
	return count;
}

/* --- Guards --- */

/* core/stack.c guard_install(): a touch of a guard faults, one beside it does not. */
Test(kernel_memory, a_guarded_page_faults_and_its_neighbours_do_not)
{
	char *memory = map_pages(3);

	page_of(memory, 0)[page_bytes() - 1] = 7;
	page_of(memory, 2)[0] = 8;
	guard_or_skip(page_of(memory, 1));
	catch_faults();
	check_page_is_guarded(page_of(memory, 1));
	cr_assert(!faults(page_of(memory, 1) - 1, true));
	cr_assert(!faults(page_of(memory, 2), true));
}

/* core/stack.c guard_install(): a second time, where a stack is opened again, is no error. */
Test(kernel_memory, guarding_a_guarded_page_changes_nothing)
{
	char *memory = map_pages(1);

	guard_or_skip(memory);
	cr_assert_eq(madvise(memory, page_bytes(), GUARD_INSTALL), 0);
	catch_faults();
	check_page_is_guarded(memory);
}

/* core/stack.h: "costs no mapping", which is why vm.max_map_count does not limit fibers. */
Test(kernel_memory, guards_by_advice_split_no_mapping)
{
	char *memory = map_pages(64);
	unsigned before = mappings_of(memory, 64 * page_bytes());

	guard_or_skip(memory);
	for (size_t i = 2; i < 64; i += 2)
		cr_assert_eq(madvise(page_of(memory, i), page_bytes(), GUARD_INSTALL), 0);
	cr_assert_eq(mappings_of(memory, 64 * page_bytes()), before);
}

/* core/stack.c protected_limit(): by mprotect two more mappings for each stack. */
Test(kernel_memory, guards_by_mprotect_cost_two_mappings_each)
{
	char *memory = map_pages(65);

	for (size_t i = 0; i < 32; i++)
		cr_assert_eq(mprotect(page_of(memory, 2 * i), page_bytes(), PROT_NONE), 0);
	cr_assert_eq(mappings_of(memory, 65 * page_bytes()), 64);
	catch_faults();
	check_page_is_guarded(page_of(memory, 10));
	cr_assert(!faults(page_of(memory, 11), true));
}

static void check_guards_stay(bool by_mprotect)
{
	char *memory = map_pages(3);

	memset(memory, 7, 3 * page_bytes());
	if (by_mprotect)
		cr_assert_eq(mprotect(page_of(memory, 1), page_bytes(), PROT_NONE), 0);
	else
		guard_or_skip(page_of(memory, 1));
	cr_assert_eq(madvise(memory, 3 * page_bytes(), MADV_DONTNEED), 0);
	catch_faults();
	check_page_is_guarded(page_of(memory, 1));
	cr_assert_eq(page_of(memory, 0)[0], 0);
	cr_assert_eq(page_of(memory, 2)[0], 0);
}

/* core/stack.c stack_trim(): "MADV_DONTNEED leaves both kinds alone". */
Test(kernel_memory, a_guard_by_advice_outlives_dontneed)
{
	check_guards_stay(false);
}

/* core/stack.c stack_trim(): the other kind. */
Test(kernel_memory, a_guard_by_mprotect_outlives_dontneed)
{
	check_guards_stay(true);
}

/* core/stack.c slab_unmap(): what is mapped next at the same place starts without guards. */
Test(kernel_memory, guards_end_with_their_mapping)
{
	size_t bytes = page_bytes();
	char *memory = map_pages(1);

	guard_or_skip(memory);
	cr_assert_eq(munmap(memory, bytes), 0);
	cr_assert_eq((void *)mmap(memory, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
		(void *)memory);
	catch_faults();
	cr_assert(!faults(memory, true));
}

/* core/stack.h: "refuses it (locked memory)", where stack.c goes on with mprotect. */
Test(kernel_memory, locked_memory_takes_no_guard_by_advice_but_one_by_mprotect)
{
	char *memory = map_pages(2);

	guard_or_skip(page_of(memory, 1));
	if (syscall(SYS_mlock, memory, page_bytes()) < 0) /* libc's is nothing under ASan */
		cr_skip_test("no page may be locked here (ulimit -l)");
	cr_assert_eq(madvise(memory, page_bytes(), GUARD_INSTALL), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(mprotect(memory, page_bytes(), PROT_NONE), 0);
	catch_faults();
	check_page_is_guarded(memory);
}

/* weft.h: "After fork() a child may only exec": it may still run into a guard before that. */
Test(kernel_memory, guards_hold_in_a_child)
{
	char *memory = map_pages(1);
	int status;
	pid_t child;

	guard_or_skip(memory);
	child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)memory = 1;
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status));
	cr_assert_eq(WTERMSIG(status), SIGSEGV);
}

/* --- Pages --- */

/* core/table.c and io/fd.c (F4): memory of mmap is zero, and is not paid for before its use. */
Test(kernel_memory, fresh_memory_is_zero_and_not_resident)
{
	enum { PAGES = 1024 };
	char *memory = map_pages(PAGES);
	static unsigned char resident[PAGES];

	cr_assert_eq(mincore(memory, PAGES * page_bytes(), resident), 0);
	for (size_t i = 0; i < PAGES; i++)
		cr_assert_eq(resident[i] & 1, 0, "page %zu", i);
	for (size_t i = 0; i < PAGES * page_bytes(); i += 512)
		cr_assert_eq(memory[i], 0);
}

/* core/stack.c wf_stack_high_water_bytes(): the lowest page ever written is the lowest resident. */
Test(kernel_memory, what_was_written_is_resident_and_nothing_below)
{
	enum { PAGES = 16, LOWEST = 11 };
	char *memory = map_pages(PAGES);
	unsigned char resident[PAGES];

	(void)madvise(memory, PAGES * page_bytes(), MADV_NOHUGEPAGE); /* as stack.c does */
	for (size_t i = PAGES; i-- > LOWEST;)
		page_of(memory, i)[9] = 1;
	cr_assert_eq(mincore(memory, PAGES * page_bytes(), resident), 0);
	for (size_t i = 0; i < PAGES; i++)
		cr_assert_eq(resident[i] & 1, i >= LOWEST, "page %zu", i);
}

/* core/stack.c stack_trim(): trimming gives the memory back, and it is zero again. */
Test(kernel_memory, dontneed_gives_pages_back_and_they_are_zero)
{
	char *memory = map_pages(2);
	unsigned char resident[2];

	memset(memory, 7, 2 * page_bytes());
	cr_assert_eq(madvise(memory, page_bytes(), MADV_DONTNEED), 0);
	cr_assert_eq(mincore(memory, 2 * page_bytes(), resident), 0);
	cr_assert_eq(resident[0] & 1, 0);
	cr_assert_eq(resident[1] & 1, 1);
	cr_assert_eq(memory[0], 0);
	cr_assert_eq(page_of(memory, 1)[0], 7);
}

/* core/stack.c slab_map_count(): without huge pages the touch of a byte costs one page. */
Test(kernel_memory, without_huge_pages_a_touch_costs_one_page)
{
	enum { PAGES = 2048 };
	char *memory = map_pages(PAGES);
	static unsigned char resident[PAGES];
	unsigned count = 0;

	if (madvise(memory, PAGES * page_bytes(), MADV_NOHUGEPAGE) < 0)
		cr_assert_eq(errno, EINVAL, "a kernel without huge pages, which is as good");
	page_of(memory, PAGES / 2)[0] = 1;
	cr_assert_eq(mincore(memory, PAGES * page_bytes(), resident), 0);
	for (size_t i = 0; i < PAGES; i++)
		count += resident[i] & 1;
	cr_assert_eq(count, 1);
}

/* io/fd.c entry_make(): a table for every number there can be costs address space only. */
Test(kernel_memory, a_large_mapping_without_reserve_costs_only_what_is_touched)
{
	size_t bytes = (size_t)64 << 29, rss = harness_rss_bytes();
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED && HARNESS_TSAN)
		cr_skip_test("ThreadSanitizer has taken most of the address space");
	if (memory == MAP_FAILED)
		cr_skip_test("address space is limited here (overcommit_memory, ulimit -v)");
	memory[bytes - 1] = 1;
	cr_assert_lt(harness_rss_bytes(), rss + ((size_t)16 << 20));
	cr_assert_eq(munmap(memory, bytes), 0);
}

/* core/map.c kernel_count_max(): one number. */
Test(kernel_memory, the_limit_on_mappings_is_told)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long count = 0;

	if (!file)
		cr_skip_test("no /proc/sys/vm/max_map_count: taken as absent");
	cr_assert_eq(fscanf(file, "%lu", &count), 1);
	cr_assert_gt(count, 0);
	fclose(file);
}
