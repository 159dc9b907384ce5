/*
 * Goal: what the code assumes of the kernel's threads, futexes, timers and signals holds on this
 * one. Method: the bare system calls, no Weft. Each test names the place that relies on it; what a
 * kernel lacks is skipped. How late a sleep is, and what the timer slack does to that, is reported
 * and judged by nobody: another may have the CPU.
 */
#include "test/kernel.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	NS_PER_S = 1000000000,
	SLEEP_NS = 200000,
	TRIES = 20,
};

/* fn(arg) on a thread of its own, to its end. */
static void on_thread(void *(*fn)(void *arg), void *arg)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, fn, arg), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* --- Futexes --- */

static int futex(uint32_t *word, int operation, uint32_t value, const struct timespec *timeout)
{
	long r = syscall(
		SYS_futex, word, operation, value, timeout, NULL, FUTEX_BITSET_MATCH_ANY);

	return r < 0 ? -errno : (int)r;
}

/* sync/spinlock.h: "the kernel compares again"; sync/rcu.c and core/boot.c wait the same way. */
Test(kernel_thread, a_futex_that_has_changed_is_not_waited_for)
{
	uint32_t word = 1;

	cr_assert_eq(futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL), -EAGAIN);
	cr_assert_eq(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL), -EAGAIN);
}

/* sync/rcu.c barrier_passed(): the word may be gone, only its address goes to the kernel. */
Test(kernel_thread, waking_where_nobody_waits_or_no_memory_is_does_nothing)
{
	size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
	uint32_t word = 0;
	uint32_t *gone = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_eq(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL), 0);
	cr_assert_eq(munmap(gone, bytes), 0);
	cr_assert_eq(futex(gone, FUTEX_WAKE_PRIVATE, INT_MAX, NULL), 0);
}

struct sleeper {
	uint32_t word;
	int tid; /* once it runs */
	int operation;
	int result;
};

static void *sleep_on_word(void *arg)
{
	struct sleeper *sleeper = arg;

	__atomic_store_n(&sleeper->tid, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
	sleeper->result = futex(&sleeper->word, sleeper->operation, 0, NULL);
	return NULL;
}

/* core/thread.c sleeps by WAIT_BITSET, sync/futex.h by WAIT; both wake by WAKE. */
Test(kernel_thread, one_wake_ends_either_kind_of_wait, .timeout = 120)
{
	static const int operations[] = {FUTEX_WAIT_PRIVATE, FUTEX_WAIT_BITSET_PRIVATE};

	for (unsigned i = 0; i < 2; i++) {
		struct sleeper sleeper = {.operation = operations[i]};
		pthread_t thread;
		int tid;

		cr_assert_eq(pthread_create(&thread, NULL, sleep_on_word, &sleeper), 0);
		while ((tid = __atomic_load_n(&sleeper.tid, __ATOMIC_ACQUIRE)) == 0)
			sched_yield();
		kernel_until_asleep(tid);
		while (futex(&sleeper.word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL) == 0)
			sched_yield(); /* it slept elsewhere, on its way */
		cr_assert_eq(pthread_join(thread, NULL), 0);
		cr_assert_eq(sleeper.result, 0);
	}
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
}

static void report(const char *what, uint64_t shortest_ns)
{
	fprintf(stderr, "%s: %.1f us late at least\n", what, (double)shortest_ns / 1e3);
}

/* core/thread.c wf_futex_wait(): an absolute time of CLOCK_MONOTONIC, and never early. */
Test(kernel_thread, a_bitset_wait_ends_at_an_absolute_time_and_never_early, .timeout = 120)
{
	uint64_t shortest = UINT64_MAX;
	uint32_t word = 0;

	for (int i = 0; i < TRIES; i++) {
		uint64_t until = harness_now_ns() + SLEEP_NS, now;
		struct timespec at = timespec_of(until);

		cr_assert_eq(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &at), -ETIMEDOUT);
		now = harness_now_ns();
		cr_assert_geq(now, until, "early");
		shortest = now - until < shortest ? now - until : shortest;
		at = timespec_of(until);
		cr_assert_eq(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &at), -ETIMEDOUT, "past");
	}
	report("futex, absolute", shortest);
}

/* sync/futex.h wf_futex_sleep(): from now on, and never early. */
Test(kernel_thread, a_wait_ends_after_its_time_and_never_early, .timeout = 120)
{
	struct timespec delay = timespec_of(SLEEP_NS);
	uint64_t shortest = UINT64_MAX;
	uint32_t word = 0;

	for (int i = 0; i < TRIES; i++) {
		uint64_t start = harness_now_ns(), took;

		cr_assert_eq(futex(&word, FUTEX_WAIT_PRIVATE, 0, &delay), -ETIMEDOUT);
		took = harness_now_ns() - start;
		cr_assert_geq(took, SLEEP_NS, "early");
		shortest = took - SLEEP_NS < shortest ? took - SLEEP_NS : shortest;
	}
	report("futex, relative", shortest);
}

/* --- The timer slack --- */

static uint64_t lateness_with_slack(unsigned long slack_ns)
{
	struct timespec delay = timespec_of(SLEEP_NS);
	uint64_t shortest = UINT64_MAX;

	cr_assert_eq(prctl(PR_SET_TIMERSLACK, slack_ns, 0, 0, 0), 0);
	for (int i = 0; i < TRIES; i++) {
		uint64_t start = harness_now_ns(), took;

		while (clock_nanosleep(CLOCK_MONOTONIC, 0, &delay, NULL) != 0)
			;
		took = harness_now_ns() - start - SLEEP_NS;
		shortest = took < shortest ? took : shortest;
	}
	return shortest;
}

static void *slack_of_thread(void *arg)
{
	*(int *)arg = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
	cr_assert_eq(prctl(PR_SET_TIMERSLACK, 7UL, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), 7);
	return NULL;
}

/* timer/clock.h, and core/boot.c, where each worker sets its own and nobody else's. */
Test(kernel_thread, the_timer_slack_is_the_threads_own)
{
	int before = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), inherited = 0;

	cr_assert_geq(before, 0);
	on_thread(slack_of_thread, &inherited);
	cr_assert_eq(inherited, before);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), before, "another thread's");
	report("sleep, slack of 50 us", lateness_with_slack(50000));
	report("sleep, slack of 1 ns", lateness_with_slack(1));
	cr_assert(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0) <= 1, "a realtime thread has none");
	cr_assert_eq(prctl(PR_SET_TIMERSLACK, 0UL, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), before, "0 puts the default back");
}

/* --- CPUs --- */

static cpu_set_t cpus_of(int tid)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	cr_assert_eq(sched_getaffinity(tid, sizeof set, &set), 0);
	return set;
}

static int last_cpu(const cpu_set_t *set)
{
	int cpu = CPU_SETSIZE - 1;

	while (!CPU_ISSET((size_t)cpu, set))
		cpu--;
	return cpu;
}

static void *checks_cpus(void *arg)
{
	cpu_set_t mine = cpus_of(0);

	cr_assert(CPU_EQUAL(&mine, (const cpu_set_t *)arg), "inherited");
	return NULL;
}

static void *pins_itself(void *arg)
{
	const cpu_set_t *all = arg;
	int cpu = last_cpu(all);
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	/* core/thread.c wf_thread_pin(): once it returns the thread is there, and stays. */
	cr_assert_eq(pthread_setaffinity_np(pthread_self(), sizeof one, &one), 0);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(sched_getcpu(), cpu);
		sched_yield();
	}
	on_thread(checks_cpus, &one);
	/* io/resolve.c unpin(): number of the process is that of its first thread, unpinned. */
	one = cpus_of(getpid());
	cr_assert(CPU_EQUAL(&one, all), "the first thread's");
	cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
	one = cpus_of(0);
	cr_assert(CPU_EQUAL(&one, all));
	return NULL;
}

/* core/thread.c, core/cpu.c, io/resolve.c. */
Test(kernel_thread, a_pinned_thread_is_on_its_cpu_and_those_it_starts_too)
{
	cpu_set_t all = cpus_of(0);

	on_thread(pins_itself, &all);
}

/* core/boot.c pin(): a CPU that may not be used is an error, which is told. */
Test(kernel_thread, a_cpu_that_is_not_there_is_refused)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(CPU_SETSIZE - 1, &set);
	if (sysconf(_SC_NPROCESSORS_CONF) >= CPU_SETSIZE)
		cr_skip_test("every CPU that can be named is there");
	cr_assert_eq(pthread_setaffinity_np(pthread_self(), sizeof set, &set), EINVAL);
}

static bool read_line(const char *path, char *line_out, int size)
{
	FILE *file = fopen(path, "re");
	bool read = file && fgets(line_out, size, file);

	if (file)
		fclose(file);
	return read;
}

/* core/cpu.c place_read(): a number, and a list of the kind that it parses. */
Test(kernel_thread, the_topology_is_told_in_numbers_and_lists)
{
	char path[128], line[256];
	cpu_set_t set = cpus_of(0);
	int cpu = last_cpu(&set);

	snprintf(path, sizeof path,
		"/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
	if (!read_line(path, line, sizeof line))
		cr_skip_test("no topology in /sys: every CPU is taken for a core of its own");
	cr_assert_eq(strspn(line, "0123456789,-"), strcspn(line, "\n"), "%s", line);
	snprintf(path, sizeof path,
		"/sys/devices/system/cpu/cpu%d/topology/physical_package_id", cpu);
	cr_assert(read_line(path, line, sizeof line));
	cr_assert_eq(strspn(line, "0123456789-"), strcspn(line, "\n"), "%s", line);
}

static bool is_number(const char *text)
{
	return isdigit((unsigned char)text[0]) || (text[0] == '-' && text[1] == '1');
}

/* core/cpu.c quota_of_line(): number:controllers:path; version 2 has no controllers. */
Test(kernel_thread, the_cgroups_of_a_process_are_lines_of_three_fields)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX];
	unsigned count = 0;

	if (!file)
		cr_skip_test("no /proc/self/cgroup: no quota is known");
	for (; fgets(line, sizeof line, file); count++) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;

		cr_assert(isdigit((unsigned char)line[0]), "%s", line);
		cr_assert_not_null(path, "%s", line);
		cr_assert_eq(path[1], '/', "%s", line);
	}
	fclose(file);
	if (count == 0)
		cr_skip_test("in no cgroup");
}

/* core/cpu.c quota_version_2(), quota_version_1(): what the files of a quota hold. */
Test(kernel_thread, a_quota_is_told_in_microseconds_of_a_period)
{
	char line[128], quota[32];
	long period = 0;

	if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof line)) {
		cr_assert(is_number(line), "%s", line);
		cr_assert(read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", line, sizeof line));
		cr_assert_gt(atol(line), 0);
	} else if (read_line("/sys/fs/cgroup/cpu.max", line, sizeof line)) {
		cr_assert_eq(sscanf(line, "%31s %ld", quota, &period), 2, "%s", line);
		cr_assert(strcmp(quota, "max") == 0 || is_number(quota), "%s", line);
		cr_assert_gt(period, 0);
	} else {
		cr_skip_test("no quota can be seen at the root of the cgroups here");
	}
}

/* --- Signals --- */

static void *has_it_blocked(void *arg)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	*(int *)arg = sigismember(&now, SIGTERM);
	return NULL;
}

static sigset_t block(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	cr_assert_eq(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	return set;
}

/* core/coordinator.c, core/thread.c: "the new thread inherits the mask". */
Test(kernel_thread, threads_inherit_blocked_signals)
{
	int blocked = 0;

	block(SIGTERM);
	on_thread(has_it_blocked, &blocked);
	cr_assert_eq(blocked, 1);
}

/* core/coordinator.c: reading takes a signal away for good, and it does nothing when unblocked. */
Test(kernel_thread, a_signal_that_was_read_is_not_delivered)
{
	struct signalfd_siginfo info;
	sigset_t set = block(SIGTERM);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);

	cr_assert_geq(fd, 0);
	cr_assert_eq(read(fd, &info, sizeof info), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(kill(getpid(), SIGTERM), 0);
	cr_assert_eq(read(fd, &info, sizeof info), (ssize_t)sizeof info);
	cr_assert_eq(info.ssi_signo, (uint32_t)SIGTERM);
	cr_assert_eq(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0); /* or this is the end */
}

static void *writes_to_nobody(void *arg)
{
	sigset_t set = block(SIGPIPE), pending;

	cr_assert_eq(write(*(int *)arg, "x", 1), -1);
	cr_assert_eq(errno, EPIPE);
	cr_assert_eq(sigpending(&pending), 0);
	cr_assert_eq(sigismember(&pending, SIGPIPE), 1, "to the thread that has written");
	return (void)set, NULL;
}

/* io/tcp.c: SIGPIPE goes to the writing thread only, which is a worker's and blocks it. */
Test(kernel_thread, sigpipe_is_for_the_writing_thread_only)
{
	sigset_t pending;
	int fd[2];

	cr_assert_eq(pipe(fd), 0);
	close(fd[0]);
	on_thread(writes_to_nobody, &fd[1]); /* unblocked here: it would be the end */
	cr_assert_eq(sigpending(&pending), 0);
	cr_assert_eq(sigismember(&pending, SIGPIPE), 0);
}

static void *has_signal_stack(void *arg)
{
	stack_t now;

	cr_assert_eq(sigaltstack(NULL, &now), 0);
	*(int *)arg = !(now.ss_flags & SS_DISABLE);
	return NULL;
}

/* core/guard.c wf_guard_thread_enter(): each thread needs a signal stack of its own. */
Test(kernel_thread, signal_stacks_are_not_inherited)
{
	size_t bytes = (size_t)sysconf(_SC_MINSIGSTKSZ) + 65536;
	stack_t ours = {.ss_sp = malloc(bytes), .ss_size = bytes}, before;
	int has = 1;

	cr_assert_not_null(ours.ss_sp);
	cr_assert_eq(sigaltstack(&ours, &before), 0);
	on_thread(has_signal_stack, &has);
	/* A sanitizer gives every thread one. */
	cr_assert(has == 0 || HARNESS_ASAN || HARNESS_TSAN);
	cr_assert_eq(sigaltstack(&before, NULL), 0);
	free(ours.ss_sp);
}

/* --- Limits, and the machine --- */

/* core/runtime.c raise_fd_limit(): up to the hard limit needs no privilege. */
Test(kernel_thread, the_soft_limit_on_descriptors_can_be_raised_to_the_hard_one)
{
	struct rlimit limit, lower;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	lower = (struct rlimit){limit.rlim_max < 64 ? limit.rlim_max : 64, limit.rlim_max};
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &lower), 0);
	limit.rlim_cur = limit.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &lower), 0);
	cr_assert_eq(lower.rlim_cur, limit.rlim_max);
}

#if defined(__x86_64__)

/* core/fiber.c wf_context_check(): asking for shadow stacks is harmless where there are none. */
Test(kernel_thread, asking_for_shadow_stacks_tells_or_is_refused)
{
	uint64_t features = 0;
	long r = syscall(SYS_arch_prctl, 0x5005, &features);

	cr_assert(r == 0 || errno == EINVAL || errno == EPERM || errno == ENOTSUP);
	cr_assert(r == 0 || features == 0);
}

#endif
