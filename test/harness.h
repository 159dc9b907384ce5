/*
 * harness.h: what every test includes instead of Criterion's own headers.
 *
 *	Test(wheel, never_fires_early, .timeout = 10)
 *	{
 *		cr_assert_eq(wf_wheel_count(&wheel), 3, "after %u inserts", inserts);
 *	}
 *
 * Options of a test: .timeout (seconds), .signal and .exit_code (how it must end), .init, .fini,
 * .disabled. Every test runs in a process of its own.
 *
 * Two runners behind one syntax. Normally Criterion's; with WF_TEST_OWN_MAIN the one in harness.c:
 * for ThreadSanitizer (Criterion 2.4.1 cannot start under it), for AddressSanitizer and Valgrind (a
 * test that leaks passes with Criterion: the leak shows after it took the result), and for static
 * programs of other architectures (no Criterion there). Both understand --filter SUITE/NAME (a
 * glob), --list, -j1 and --verbose, and end with the same line.
 *
 * The checks are ours in both cases. Criterion's leave a failed test by longjmp to the stack it
 * started on, which is wrong in a thread and on a fiber's stack; ours report and end the process,
 * so they may stand anywhere. They evaluate their arguments once; a message is a printf format
 * (a literal) and its arguments. cr_assert* ends the test, cr_expect* marks it failed and goes on.
 */
#ifndef WF_TEST_HARNESS_H
#define WF_TEST_HARNESS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HARNESS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HARNESS_ASAN 1
#endif
#endif
#ifndef HARNESS_ASAN
#define HARNESS_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define HARNESS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HARNESS_TSAN 1
#endif
#endif
#ifndef HARNESS_TSAN
#define HARNESS_TSAN 0
#endif

/* 1: the program is built to run under Valgrind, by the build (configure.py). */
#ifndef HARNESS_VALGRIND
#define HARNESS_VALGRIND 0
#endif

/* How many times slower than dev a loop may be: stress tests divide their counts by it. */
#if defined(__aarch64__) && defined(WF_TEST_OWN_MAIN)
#define HARNESS_SLOWDOWN 20
#elif HARNESS_VALGRIND
#define HARNESS_SLOWDOWN 20
#elif HARNESS_TSAN
#define HARNESS_SLOWDOWN 10
#elif HARNESS_ASAN
#define HARNESS_SLOWDOWN 3
#else
#define HARNESS_SLOWDOWN 1
#endif

/* ---- Helpers -------------------------------------------------------------------------------- */

/*
 * splitmix64: every state, 0 included, is a good seed. Tests that draw random numbers start from
 * harness_seed(): a constant, or WEFT_TEST_SEED of the environment; print it when a check fails.
 */
uint64_t harness_seed(void);
uint64_t harness_random(uint64_t *state);
/* Uniform enough for tests in [0, bound); bound > 0. */
uint64_t harness_random_below(uint64_t *state, uint64_t bound);

/*
 * Runs fn(index, arg) on `count` new threads, which start together once all of them exist, and
 * returns when all have ended.
 */
void harness_threads(unsigned count, void (*fn)(unsigned index, void *arg), void *arg);

/* CLOCK_MONOTONIC. For bounds that allow for a slow machine, never to decide a close race. */
uint64_t harness_now_ns(void);

/*
 * Of this process, as the kernel sees it now. A joined thread may still be counted for a moment,
 * and the runner may have threads and descriptors of its own: compare with a count taken before.
 */
unsigned harness_fd_count(void);
unsigned harness_thread_count(void);
size_t harness_rss_bytes(void);
size_t harness_vm_bytes(void);

/* ---- Tests ---------------------------------------------------------------------------------- */

#ifdef WF_TEST_OWN_MAIN

struct harness_test {
	const char *suite;
	const char *name;
	void (*body)(void);
	/* The options, named as Criterion names them. */
	void (*init)(void);
	void (*fini)(void);
	double timeout;
	int signal;
	int exit_code;
	bool disabled;
	const char *description;
	struct harness_test *next;
};

void harness_register(struct harness_test *test);

#define Test(suite_, name_, ...)                                                                 \
	static void suite_##_##name_##_body(void);                                               \
	static struct harness_test suite_##_##name_##_test = {                                   \
		.suite = #suite_, .name = #name_, .body = suite_##_##name_##_body, __VA_ARGS__}; \
	__attribute__((constructor)) static void suite_##_##name_##_register(void)               \
	{                                                                                        \
		harness_register(&suite_##_##name_##_test);                                      \
	}                                                                                        \
	static void suite_##_##name_##_body(void)

#else

#include <criterion/criterion.h>

#undef cr_skip_test
#undef cr_assert
#undef cr_assert_eq
#undef cr_assert_neq
#undef cr_assert_lt
#undef cr_assert_leq
#undef cr_assert_gt
#undef cr_assert_geq
#undef cr_assert_null
#undef cr_assert_not_null
#undef cr_assert_str_eq
#undef cr_assert_str_neq
#undef cr_assert_fail
#undef cr_expect
#undef cr_expect_eq
#undef cr_expect_neq
#undef cr_expect_lt
#undef cr_expect_leq
#undef cr_expect_gt
#undef cr_expect_geq
#undef cr_expect_null
#undef cr_expect_not_null
#undef cr_expect_str_eq
#undef cr_expect_str_neq
#undef cr_expect_fail

#endif

/* ---- Checks --------------------------------------------------------------------------------- */

/* Where a check stands; `fatal` ends the process after the report. */
struct harness_place {
	const char *file;
	int line;
	bool fatal;
};

/* A scalar of any type, for the report of a failed comparison. */
struct harness_value {
	const void *address;
	size_t size_bytes;
	char kind; /* 'i' signed, 'u' unsigned or pointer, 'f' floating */
};

/* `format` starts with one blank that is not part of the message (so that it is never empty). */
void harness_failed(const struct harness_place *place, const char *condition, const char *format,
	...) __attribute__((format(printf, 3, 4), cold));
void harness_failed_values(const struct harness_place *place, const char *condition,
	struct harness_value left, struct harness_value right, const char *format, ...)
	__attribute__((format(printf, 5, 6), cold));
void harness_failed_strings(const struct harness_place *place, const char *condition,
	const char *left, const char *right, const char *format, ...)
	__attribute__((format(printf, 5, 6), cold));

/* Ends the test, not counted as failed; only from the thread and stack the test started on. */
_Noreturn void harness_skip(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

#define HARNESS_PLACE(fatal_) \
	(&(const struct harness_place){.file = __FILE__, .line = __LINE__, .fatal = (fatal_)})

/* clang-format off */
#define HARNESS_VALUE(variable)                                                          \
	((struct harness_value){.address = &(variable), .size_bytes = sizeof(variable),  \
		.kind = _Generic((variable),                                             \
			float: 'f', double: 'f', long double: 'f',                       \
			char: 'i', signed char: 'i', short: 'i', int: 'i', long: 'i',    \
			long long: 'i', default: 'u')})
/* clang-format on */

#define HARNESS_CHECK(fatal_, condition, text, ...)                                   \
	do {                                                                          \
		if (!(condition))                                                     \
			harness_failed(HARNESS_PLACE(fatal_), text, " " __VA_ARGS__); \
	} while (0)

/*
 * Both sides into variables first: evaluated once, and their values can be shown. What the compiler
 * would say about `size == 3` with a variable in place of the constant is not meant here.
 */
#define HARNESS_COMPARE(fatal_, left_, op, right_, ...)                                           \
	do {                                                                                      \
		__typeof__(1 ? (left_) : (left_)) harness_left = (left_);                         \
		__typeof__(1 ? (right_) : (right_)) harness_right = (right_);                     \
		_Pragma("GCC diagnostic push")                                                    \
			_Pragma("GCC diagnostic ignored \"-Wsign-compare\"") bool harness_holds = \
				harness_left op harness_right;                                    \
		_Pragma("GCC diagnostic pop") if (!harness_holds)                                 \
			harness_failed_values(HARNESS_PLACE(fatal_), #left_ " " #op " " #right_,  \
				HARNESS_VALUE(harness_left), HARNESS_VALUE(harness_right),        \
				" " __VA_ARGS__);                                                 \
	} while (0)

#define HARNESS_STRINGS(fatal_, left_, op, right_, ...)                                           \
	do {                                                                                      \
		const char *harness_left = (left_);                                               \
		const char *harness_right = (right_);                                             \
		if (!(strcmp(harness_left, harness_right) op 0))                                  \
			harness_failed_strings(HARNESS_PLACE(fatal_), #left_ " " #op " " #right_, \
				harness_left, harness_right, " " __VA_ARGS__);                    \
	} while (0)

#define cr_skip_test(...) harness_skip(" " __VA_ARGS__)

#define cr_assert(condition, ...)    HARNESS_CHECK(true, condition, #condition, __VA_ARGS__)
#define cr_assert_eq(a, b, ...)      HARNESS_COMPARE(true, a, ==, b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...)     HARNESS_COMPARE(true, a, !=, b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...)      HARNESS_COMPARE(true, a, <, b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...)     HARNESS_COMPARE(true, a, <=, b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...)      HARNESS_COMPARE(true, a, >, b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...)     HARNESS_COMPARE(true, a, >=, b, __VA_ARGS__)
#define cr_assert_null(p, ...)       HARNESS_CHECK(true, (p) == NULL, #p " == NULL", __VA_ARGS__)
#define cr_assert_not_null(p, ...)   HARNESS_CHECK(true, (p) != NULL, #p " != NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)  HARNESS_STRINGS(true, a, ==, b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) HARNESS_STRINGS(true, a, !=, b, __VA_ARGS__)
#define cr_assert_fail(...)          HARNESS_CHECK(true, false, "must not get here", __VA_ARGS__)

#define cr_expect(condition, ...)    HARNESS_CHECK(false, condition, #condition, __VA_ARGS__)
#define cr_expect_eq(a, b, ...)      HARNESS_COMPARE(false, a, ==, b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...)     HARNESS_COMPARE(false, a, !=, b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...)      HARNESS_COMPARE(false, a, <, b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...)     HARNESS_COMPARE(false, a, <=, b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...)      HARNESS_COMPARE(false, a, >, b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...)     HARNESS_COMPARE(false, a, >=, b, __VA_ARGS__)
#define cr_expect_null(p, ...)       HARNESS_CHECK(false, (p) == NULL, #p " == NULL", __VA_ARGS__)
#define cr_expect_not_null(p, ...)   HARNESS_CHECK(false, (p) != NULL, #p " != NULL", __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)  HARNESS_STRINGS(false, a, ==, b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) HARNESS_STRINGS(false, a, !=, b, __VA_ARGS__)
#define cr_expect_fail(...)          HARNESS_CHECK(false, false, "must not get here", __VA_ARGS__)

#endif
