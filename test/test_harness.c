/*
 * Goal: what tests rely on holds in every mode: checks evaluate once, tests may end by a signal or
 * an exit status, helpers count right. Method: the helpers against things made here. That a failing
 * check fails is tested from outside (test/test_build.py), on test/tools/planted.c.
 */
#include "test/harness.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

Test(harness, checks_evaluate_their_arguments_once)
{
	int calls = 0;

	cr_assert_eq(++calls, 1);
	cr_assert_neq(1, ++calls);
	cr_assert(++calls == 3, "after %d calls", calls);
	cr_expect_lt(++calls, 5, "%s", "with a message");
	cr_assert_eq(calls, 4);
}

Test(harness, checks_take_any_scalar)
{
	static const char text[] = "text";
	struct {
		unsigned narrow : 3;
	} bits = {5};
	const void *address = text;
	size_t size = 3;

	cr_assert_eq(bits.narrow, 5);
	cr_assert_eq(address, text);
	cr_assert_not_null(address);
	cr_assert_eq(size, 3);
	cr_assert_geq(0.5f, 0.25f);
	cr_assert_str_eq(text, "text");
	cr_assert_str_neq(text, "test");
}

Test(harness, expects_a_signal, .signal = SIGABRT)
{
	abort();
}

Test(harness, expects_an_exit_status, .exit_code = 7)
{
	exit(7);
}

#if HARNESS_ASAN || HARNESS_TSAN || HARNESS_VALGRIND

/* The exit status of what looks on and has found something; its report is printed besides. */
enum { SANITIZER_STATUS = 66 };

#endif

#if HARNESS_ASAN || HARNESS_VALGRIND

static void *volatile hidden;

Test(harness, a_leak_fails, .exit_code = SANITIZER_STATUS)
{
	hidden = malloc(100);
	hidden = NULL;
}

#endif

#if HARNESS_VALGRIND

Test(harness, a_decision_by_what_was_never_written_fails, .exit_code = SANITIZER_STATUS)
{
	char *memory = malloc(100);

	cr_assert_not_null(memory);
	__asm__ volatile("" : : "r"(memory) : "memory"); /* or the compiler would complain */
	if (memory[39] == 'x')
		puts("by chance");
	free(memory);
}

#endif

#if HARNESS_ASAN

Test(harness, undefined_behaviour_fails, .exit_code = SANITIZER_STATUS)
{
	volatile int number = INT_MAX;

	number = number + 1;
}

#endif

#if HARNESS_TSAN

static volatile unsigned contended;
static unsigned arrived;

/*
 * Both at once and for a while: TSan needs the history of the other thread's access, and drops a
 * race whose history is gone. Relaxed order makes no order between the threads.
 */
static void increment(unsigned index, void *arg)
{
	(void)index;
	(void)arg;
	__atomic_fetch_add(&arrived, 1, __ATOMIC_RELAXED);
	while (__atomic_load_n(&arrived, __ATOMIC_RELAXED) < 2)
		;
	for (unsigned i = 0; i < 1000; i++)
		contended++;
}

Test(harness, a_race_fails, .exit_code = SANITIZER_STATUS)
{
	harness_threads(2, increment, NULL);
}

#endif

static void add(unsigned index, void *arg)
{
	__atomic_fetch_add((unsigned *)arg, index + 1, __ATOMIC_RELAXED);
}

Test(harness, threads_get_their_index_and_are_joined)
{
	unsigned before;
	unsigned sum = 0;

	harness_threads(1, add, &sum); /* with the first thread TSan starts one of its own */
	before = harness_thread_count();
	harness_threads(8, add, &sum);
	cr_assert_eq(sum, 37);
	while (harness_thread_count() > before)
		; /* until the kernel has buried the last one: the time limit decides */
}

Test(harness, random_numbers_follow_from_the_seed)
{
	uint64_t state = 0;
	uint64_t again = 0;

	/* The published first value of splitmix64 from seed 0. */
	cr_assert_eq(harness_random(&state), 0xe220a8397b1dcdafu);
	cr_assert_eq(harness_random_below(&again, 1), 0);
	cr_assert_eq(harness_random(&again), harness_random(&state));
}

Test(harness, counts_descriptors_and_memory)
{
	const size_t size = 64u << 20;
	unsigned fds = harness_fd_count();
	size_t vm = harness_vm_bytes();
	size_t rss = harness_rss_bytes();
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	char *memory;

	cr_assert_eq(harness_fd_count(), fds + 1);
	close(fd);
	cr_assert_eq(harness_fd_count(), fds);
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq((void *)memory, MAP_FAILED);
	cr_assert_geq(harness_vm_bytes(), vm + size);
	for (size_t i = 0; i < size; i += 4096)
		memory[i] = 1;
	cr_assert_geq(harness_rss_bytes(), rss + size / 2);
	munmap(memory, size);
}

Test(harness, the_clock_runs)
{
	uint64_t start = harness_now_ns();

	while (harness_now_ns() == start)
		;
	cr_assert_gt(harness_now_ns(), start);
}
