/*
 * harness.c: helpers and checks behind harness.h, and the runner used where Criterion cannot be.
 *
 * The own runner forks one child per test. What a child found out reaches the parent through one
 * shared page (failed checks, skipped), because its exit status may be part of the test. A child
 * ends by exit(), so that sanitizers get to report; a check that fails ends it by _exit(), from any
 * thread and any stack. The child leads a process group: what it left running is killed with it.
 *
 * Threads: checks may fail in several threads at once; each report is one write.
 */
#include "test/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	MESSAGE_BYTES_MAX = 2048,
	EXIT_CHECK_FAILED = 101,
	TIMEOUT_DEFAULT_SECONDS = 120,
	TIMEOUT_MAX_SECONDS = 240, /* with the slow modes' allowance; below run_tests.py */
};

/* ---- Helpers -------------------------------------------------------------------------------- */

uint64_t harness_seed(void)
{
	const char *text = getenv("WEFT_TEST_SEED");

	return text != NULL ? strtoull(text, NULL, 0) : 0x57656674u;
}

uint64_t harness_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t harness_random_below(uint64_t *state, uint64_t bound)
{
	return harness_random(state) % bound;
}

struct thread_start {
	pthread_barrier_t *barrier;
	void (*fn)(unsigned index, void *arg);
	void *arg;
	unsigned index;
	pthread_t thread;
};

static void *thread_main(void *arg)
{
	struct thread_start *start = arg;

	pthread_barrier_wait(start->barrier);
	start->fn(start->index, start->arg);
	return NULL;
}

void harness_threads(unsigned count, void (*fn)(unsigned index, void *arg), void *arg)
{
	struct thread_start *starts = calloc(count, sizeof(*starts));
	pthread_barrier_t barrier;

	cr_assert_not_null(starts);
	cr_assert_eq(pthread_barrier_init(&barrier, NULL, count), 0);
	for (unsigned i = 0; i < count; i++) {
		starts[i] = (struct thread_start){&barrier, fn, arg, i, 0};
		cr_assert_eq(pthread_create(&starts[i].thread, NULL, thread_main, &starts[i]), 0);
	}
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(pthread_join(starts[i].thread, NULL), 0);
	pthread_barrier_destroy(&barrier);
	free(starts);
}

uint64_t harness_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned directory_count(const char *path)
{
	DIR *directory = opendir(path);
	unsigned count = 0;

	cr_assert_not_null(directory, "%s", path);
	for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count;
}

unsigned harness_fd_count(void)
{
	return directory_count("/proc/self/fd") - 1; /* without the one that reads the directory */
}

unsigned harness_thread_count(void)
{
	return directory_count("/proc/self/task");
}

/* The value of "Name:  123 kB" in /proc/self/status. */
static size_t status_bytes(const char *name)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	size_t kib = 0;
	bool found = false;

	cr_assert_not_null(file);
	while (!found && fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
			kib = strtoul(line + strlen(name) + 1, NULL, 10);
			found = true;
		}
	fclose(file);
	cr_assert(found, "no %s in /proc/self/status", name);
	return kib * 1024;
}

size_t harness_rss_bytes(void)
{
	return status_bytes("VmRSS");
}

size_t harness_vm_bytes(void)
{
	return status_bytes("VmSize");
}

/* ---- Checks --------------------------------------------------------------------------------- */

#ifdef WF_TEST_OWN_MAIN

/* What the child tells its parent; counted by several threads at once. */
struct outcome {
	unsigned failed_count;
	unsigned skipped;
};

static struct outcome *outcome;

static void report(const struct harness_place *place, const char *message)
{
	char text[MESSAGE_BYTES_MAX + 256];
	int length;

	length = snprintf(text, sizeof(text), "[----] %s:%d: check failed: %s\n", place->file,
		place->line, message);
	if (write(STDERR_FILENO, text, (size_t)length) < 0)
		abort();
	__atomic_fetch_add(&outcome->failed_count, 1, __ATOMIC_SEQ_CST);
}

#else

static void report(const struct harness_place *place, const char *message)
{
	struct criterion_assert_stats stats = {
		.message = message, .file = place->file, .line = (unsigned)place->line};

	criterion_send_assert(&stats);
}

#endif

/* The blank that every format starts with stands after the colon. */
__attribute__((format(printf, 4, 0))) static void finish(const struct harness_place *place,
	char *text, size_t used, const char *format, va_list args)
{
	if (format[1] != '\0' && used < MESSAGE_BYTES_MAX - 4) {
		text[used] = ':';
		if (vsnprintf(text + used + 1, MESSAGE_BYTES_MAX - used - 1, format, args) < 0)
			text[used] = '\0';
	}
	report(place, text);
	if (place->fatal) {
		fflush(NULL);
		_exit(EXIT_CHECK_FAILED);
	}
}

/* What snprintf really left in a buffer of `size`, which may be less than it wanted. */
static size_t written(int length, size_t size)
{
	if (length < 0)
		return 0;
	return (size_t)length < size ? (size_t)length : size - 1;
}

void harness_failed(
	const struct harness_place *place, const char *condition, const char *format, ...)
{
	char text[MESSAGE_BYTES_MAX];
	va_list args;
	int length = snprintf(text, sizeof(text), "%s", condition);

	va_start(args, format);
	finish(place, text, written(length, sizeof(text)), format, args);
	va_end(args);
}

static long double floating(struct harness_value value)
{
	if (value.size_bytes == sizeof(float))
		return (long double)*(const float *)value.address;
	if (value.size_bytes == sizeof(double))
		return (long double)*(const double *)value.address;
	return *(const long double *)value.address;
}

static void value_text(struct harness_value value, char *text, size_t size)
{
	unsigned long long bits = 0;
	unsigned shift = (unsigned)(sizeof(bits) - value.size_bytes) * 8;

	if (value.kind == 'f') {
		snprintf(text, size, "%Lg", floating(value));
		return;
	}
	if (value.size_bytes > sizeof(bits)) {
		snprintf(text, size, "(%zu bytes)", value.size_bytes);
		return;
	}
	memcpy(&bits, value.address, value.size_bytes); /* little endian, as every target is */
	if (value.kind == 'i')
		snprintf(text, size, "%lld", (long long)(bits << shift) >> shift);
	else if (bits >= 1000000)
		snprintf(text, size, "%llu (0x%llx)", bits, bits);
	else
		snprintf(text, size, "%llu", bits);
}

void harness_failed_values(const struct harness_place *place, const char *condition,
	struct harness_value left, struct harness_value right, const char *format, ...)
{
	char text[MESSAGE_BYTES_MAX];
	char left_text[64];
	char right_text[64];
	va_list args;
	int length;

	value_text(left, left_text, sizeof(left_text));
	value_text(right, right_text, sizeof(right_text));
	length = snprintf(
		text, sizeof(text), "%s (%s against %s)", condition, left_text, right_text);
	va_start(args, format);
	finish(place, text, written(length, sizeof(text)), format, args);
	va_end(args);
}

void harness_failed_strings(const struct harness_place *place, const char *condition,
	const char *left, const char *right, const char *format, ...)
{
	char text[MESSAGE_BYTES_MAX];
	va_list args;
	int length = snprintf(
		text, sizeof(text), "%s (\"%.400s\" against \"%.400s\")", condition, left, right);

	va_start(args, format);
	finish(place, text, written(length, sizeof(text)), format, args);
	va_end(args);
}

#ifndef WF_TEST_OWN_MAIN

void harness_skip(const char *format, ...)
{
	char text[MESSAGE_BYTES_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	criterion_skip_test("%s", text + 1);
}

#else

void harness_skip(const char *format, ...)
{
	char text[MESSAGE_BYTES_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "[SKIP]%s\n", text);
	__atomic_store_n(&outcome->skipped, 1, __ATOMIC_SEQ_CST);
	fflush(NULL);
	_exit(0);
}

/* ---- Sanitizers ------------------------------------------------------------------------------ */

/*
 * Their defaults for tests; the environment's ASAN_OPTIONS and TSAN_OPTIONS go before them. Fibers
 * have stacks of their own; a test may expect to end by SIGSEGV; and what a sanitizer reports must
 * not look like an exit status that a test expects.
 */
#define SANITIZER_OPTIONS "handle_segv=0:handle_sigbus=0:exitcode=66"

#if HARNESS_ASAN
__attribute__((visibility("default"), used)) const char *__asan_default_options(void);
__attribute__((visibility("default"), used)) const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return SANITIZER_OPTIONS ":detect_leaks=1:detect_stack_use_after_return=0";
}

const char *__ubsan_default_options(void)
{
	return SANITIZER_OPTIONS ":print_stacktrace=1";
}
#endif

#if HARNESS_TSAN
__attribute__((visibility("default"), used)) const char *__tsan_default_options(void);

const char *__tsan_default_options(void)
{
	return SANITIZER_OPTIONS ":second_deadlock_stack=1";
}
#endif

/* ---- The runner ----------------------------------------------------------------------------- */

static struct harness_test *tests;

static sigset_t sigchld;     /* which the runner waits for, and so blocks */
static sigset_t mask_before; /* which a test gets */

struct totals {
	unsigned tested;
	unsigned failed;
	unsigned crashed;
};

/* Keeps the order of the source file: constructors of one file run in that order. */
void harness_register(struct harness_test *test)
{
	struct harness_test **link = &tests;

	while (*link != NULL)
		link = &(*link)->next;
	*link = test;
}

static _Noreturn void child_main(const struct harness_test *test)
{
	setpgid(0, 0);
	sigprocmask(SIG_SETMASK, &mask_before, NULL);
	if (test->init != NULL)
		test->init();
	test->body();
	if (test->fini != NULL)
		test->fini();
	exit(0);
}

/* Whether the child has ended; it is not reaped: until then nobody else gets its number. */
static bool child_ended(pid_t child)
{
	siginfo_t info = {.si_pid = 0};

	cr_assert_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	return info.si_pid == child;
}

/*
 * Waits until the child ends or its time is over; returns false if it had to be killed. SIGCHLD is
 * blocked: one that comes before the wait is not missed. (A pidfd would do, but for Valgrind.)
 */
static bool child_wait(pid_t child, double timeout, int *status_out)
{
	uint64_t end_ns = harness_now_ns() + (uint64_t)(timeout * 1e9);
	uint64_t now_ns;
	bool ended;

	while (!(ended = child_ended(child)) && (now_ns = harness_now_ns()) < end_ns) {
		struct timespec left = {.tv_sec = (time_t)((end_ns - now_ns) / 1000000000u),
			.tv_nsec = (long)((end_ns - now_ns) % 1000000000u)};

		(void)sigtimedwait(&sigchld, NULL, &left);
	}
	kill(-child, SIGKILL); /* leftovers of the test; the child too if its time is over */
	if (!ended)
		kill(child, SIGKILL); /* it may not have reached setpgid */
	while (waitpid(child, status_out, 0) < 0)
		cr_assert_eq(errno, EINTR);
	return ended;
}

/* What is wrong with the end of a test, into `text`; false if nothing is. */
static bool wrong_end(
	const struct harness_test *test, int status, char *text, size_t size, bool *crashed_out)
{
	int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;

	*crashed_out = false;
	if (outcome->failed_count > 0)
		snprintf(text, size, "%u failed checks", outcome->failed_count);
	else if (number != test->signal && number != 0) {
		*crashed_out = true;
		snprintf(text, size, "ended by signal %d (%s)", number, strsignal(number));
	} else if (number != test->signal)
		snprintf(text, size, "did not end by signal %d", test->signal);
	else if (code != test->exit_code)
		snprintf(text, size, "exit status %d instead of %d", code, test->exit_code);
	else
		return false;
	return true;
}

static void run_one(const struct harness_test *test, bool verbose, struct totals *totals)
{
	double timeout = test->timeout > 0 ? test->timeout : TIMEOUT_DEFAULT_SECONDS;
	uint64_t start_ns = harness_now_ns();
	char wrong[128] = "";
	bool crashed = false;
	int status = 0;
	pid_t child;

	timeout *= HARNESS_SLOWDOWN;
	if (timeout > TIMEOUT_MAX_SECONDS)
		timeout = TIMEOUT_MAX_SECONDS;
	memset(outcome, 0, sizeof(*outcome));
	fflush(NULL);
	child = fork();
	cr_assert_geq(child, 0, "fork: errno %d", errno);
	if (child == 0)
		child_main(test);
	if (!child_wait(child, timeout, &status))
		snprintf(wrong, sizeof(wrong), "timed out after %g s", timeout);
	else
		wrong_end(test, status, wrong, sizeof(wrong), &crashed);

	if (outcome->skipped)
		return;
	totals->tested++;
	totals->failed += wrong[0] != '\0';
	totals->crashed += crashed;
	if (wrong[0] != '\0' || verbose)
		printf("[%s] %s::%s: %s(%.2fs)\n", wrong[0] != '\0' ? "FAIL" : "PASS", test->suite,
			test->name, wrong[0] != '\0' ? strcat(wrong, " ") : "",
			(double)(harness_now_ns() - start_ns) / 1e9);
}

static bool selected(const struct harness_test *test, const char *filter)
{
	char name[512];

	if (test->disabled)
		return false;
	snprintf(name, sizeof(name), "%s/%s", test->suite, test->name);
	return filter == NULL || fnmatch(filter, name, 0) == 0;
}

int main(int argc, char **argv)
{
	struct totals totals = {0, 0, 0};
	const char *filter = NULL;
	bool verbose = false;
	bool list = false;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc)
			filter = argv[++i];
		else if (strncmp(argv[i], "--filter=", 9) == 0)
			filter = argv[i] + 9;
		else if (strcmp(argv[i], "--verbose") == 0)
			verbose = true;
		else if (strcmp(argv[i], "--list") == 0)
			list = true;
		else if (strncmp(argv[i], "-j", 2) != 0) {
			fprintf(stderr, "%s: unknown option %s\n", argv[0], argv[i]);
			return 2;
		}
	}
	outcome = mmap(
		NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (outcome == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	sigemptyset(&sigchld);
	sigaddset(&sigchld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &sigchld, &mask_before);
	for (const struct harness_test *test = tests; test != NULL; test = test->next) {
		if (!selected(test, filter))
			continue;
		if (list)
			printf("%s/%s\n", test->suite, test->name);
		else
			run_one(test, verbose, &totals);
	}
	if (list)
		return 0;
	printf("[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: %u \n",
		totals.tested, totals.tested - totals.failed, totals.failed, totals.crashed);
	return totals.failed > 0;
}

#endif
