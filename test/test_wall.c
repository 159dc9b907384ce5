/*
 * Goal: what <weft/wall.h> promises: dates as text and back, strictly; the kernel's wall clock, and
 * that of a test runtime, whose steps move nothing that waits (T8).
 * Method: known pairs; a calendar that counts day by day from year 0 to 9999; the C library's
 * gmtime_r() as a second opinion; random times there and back; a table of what is no time, and
 * every text that is one byte from a good one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <weft/test.h>

#include "test/runtime.h"

#define SECONDS_MIN (-INT64_C(62167219200)) /* 0000-01-01T00:00:00Z */
#define SECONDS_MAX INT64_C(253402300799)   /* 9999-12-31T23:59:59Z */

static struct weft_wall at(int64_t seconds, int32_t nanoseconds)
{
	return (struct weft_wall){seconds, nanoseconds};
}

static int parsed(const char *text, struct weft_wall *time_out)
{
	return weft_wall_parse(text, strlen(text), time_out);
}

static const char *formatted(struct weft_wall time, unsigned digits)
{
	static char text[WEFT_WALL_TEXT_MAX];
	int length = weft_wall_format(time, digits, text, sizeof text);

	cr_assert_eq(length, (int)strlen(text));
	return text;
}

static void check_parse(const char *text, int64_t seconds, int32_t nanoseconds)
{
	struct weft_wall time = {1, 2};

	cr_assert_eq(parsed(text, &time), 0, "%s", text);
	cr_assert_eq(time.seconds, seconds, "%s", text);
	cr_assert_eq(time.nanoseconds, nanoseconds, "%s", text);
}

/* ---- To text -------------------------------------------------------------------------------- */

Test(wall, formats_known_times)
{
	cr_assert_str_eq(formatted(at(0, 0), 0), "1970-01-01T00:00:00Z");
	cr_assert_str_eq(formatted(at(0, 5), 9), "1970-01-01T00:00:00.000000005Z");
	cr_assert_str_eq(formatted(at(-1, 0), 0), "1969-12-31T23:59:59Z");
	cr_assert_str_eq(formatted(at(-1, 999999999), 9), "1969-12-31T23:59:59.999999999Z");
	cr_assert_str_eq(formatted(at(951782399, 0), 0), "2000-02-28T23:59:59Z");
	cr_assert_str_eq(formatted(at(951782400, 0), 0), "2000-02-29T00:00:00Z");
	cr_assert_str_eq(formatted(at(951868800, 0), 0), "2000-03-01T00:00:00Z");
	cr_assert_str_eq(formatted(at(1234567890, 123456789), 3), "2009-02-13T23:31:30.123Z");
	cr_assert_str_eq(formatted(at(1234567890, 123456789), 6), "2009-02-13T23:31:30.123456Z");
	cr_assert_str_eq(formatted(at(1234567890, 999999999), 0), "2009-02-13T23:31:30Z", "cut");
	cr_assert_str_eq(formatted(at(4107542400, 0), 0), "2100-03-01T00:00:00Z");
	cr_assert_str_eq(formatted(at(SECONDS_MIN, 0), 3), "0000-01-01T00:00:00.000Z");
	cr_assert_str_eq(formatted(at(SECONDS_MAX, 999999999), 9),
		"9999-12-31T23:59:59.999999999Z");
}

Test(wall, formats_nothing_else)
{
	static const unsigned bad_digits[] = {1, 2, 4, 5, 7, 8, 10, 12, 3000000000u, ~0u};
	char text[WEFT_WALL_TEXT_MAX] = "kept";

	errno = 0;
	for (size_t i = 0; i < WF_ARRAY_COUNT(bad_digits); i++)
		cr_assert_eq(weft_wall_format(at(0, 0), bad_digits[i], text, sizeof text), -EINVAL);
	cr_assert_eq(weft_wall_format(at(0, -1), 3, text, sizeof text), -EINVAL);
	cr_assert_eq(weft_wall_format(at(0, 1000000000), 3, text, sizeof text), -EINVAL);
	cr_assert_eq(weft_wall_format(at(SECONDS_MIN - 1, 0), 3, text, sizeof text), -ERANGE);
	cr_assert_eq(weft_wall_format(at(SECONDS_MAX + 1, 0), 3, text, sizeof text), -ERANGE);
	cr_assert_eq(weft_wall_format(at(INT64_MIN, 0), 3, text, sizeof text), -ERANGE);
	cr_assert_eq(weft_wall_format(at(INT64_MAX, 0), 3, text, sizeof text), -ERANGE);
	cr_assert_eq(weft_wall_format(at(0, 0), 0, NULL, 0), -ENOSPC);
	cr_assert_str_eq(text, "kept");
	cr_assert_eq(errno, 0);
}

Test(wall, writes_its_length_and_a_zero_and_no_more)
{
	for (unsigned digits = 0; digits <= 9; digits += 3) {
		int length = digits ? 21 + (int)digits : 20;
		char text[WEFT_WALL_TEXT_MAX + 1];

		for (size_t size = 0; size <= WEFT_WALL_TEXT_MAX; size++) {
			int r;

			memset(text, '#', sizeof text);
			r = weft_wall_format(at(1, 2), digits, text, size);
			if (size <= (size_t)length) {
				cr_assert_eq(r, -ENOSPC);
				cr_assert_eq(text[0], '#');
				continue;
			}
			cr_assert_eq(r, length);
			cr_assert_eq(text[length], '\0');
			cr_assert_eq(text[length + 1], '#');
		}
	}
}

/* ---- The calendar --------------------------------------------------------------------------- */

static int64_t random_seconds(uint64_t *state)
{
	uint64_t range = (uint64_t)(SECONDS_MAX - SECONDS_MIN + 1);

	return SECONDS_MIN + (int64_t)harness_random_below(state, range);
}

static int days_in(int year, int month)
{
	if (month == 2)
		return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
	return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

static void check_day(int year, int month, int day, int64_t seconds)
{
	char text[64];

	snprintf(text, sizeof text, "%04d-%02d-%02dT00:00:00Z", year, month, day);
	cr_assert_str_eq(formatted(at(seconds, 0), 0), text);
	check_parse(text, seconds, 0);
	cr_assert_str_eq(formatted(at(seconds + 86399, 0), 0) + 11, "23:59:59Z");
	if (day < days_in(year, month))
		return;
	snprintf(text, sizeof text, "%04d-%02d-%02dT00:00:00Z", year, month, day + 1);
	cr_assert_eq(parsed(text, &(struct weft_wall){0, 0}), -EINVAL, "%s", text);
}

/* All 3652425 days, in order: the text both ways; what follows a month's last day is none. */
Test(wall, every_day_of_ten_thousand_years, .timeout = 240)
{
	int64_t seconds = SECONDS_MIN;
	unsigned step = HARNESS_SLOWDOWN, days = 0;

	for (int year = 0; year <= 9999; year++) {
		for (int month = 1; month <= 12; month++) {
			int last = days_in(year, month);

			/* Under the slow tools not all of them, but every month's end. */
			for (int day = 1; day <= last; day++, seconds += 86400)
				if (days++ % step == 0 || day == last)
					check_day(year, month, day, seconds);
		}
	}
	cr_assert_eq(seconds, SECONDS_MAX + 1);
}

Test(wall, agrees_with_the_c_library)
{
	uint64_t seed = harness_seed(), state = seed;

	for (unsigned i = 0; i < 100000 / HARNESS_SLOWDOWN; i++) {
		time_t seconds = random_seconds(&state);
		char text[128];
		struct tm tm;

		cr_assert_not_null(gmtime_r(&seconds, &tm));
		snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900,
			tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
		cr_assert_str_eq(
			formatted(at(seconds, 0), 0), text, "seed %lu", (unsigned long)seed);
	}
}

/* ---- From text ------------------------------------------------------------------------------ */

Test(wall, random_times_there_and_back)
{
	uint64_t seed = harness_seed(), state = seed;
	static const int32_t units[] = {1000000000, 1000000, 1000, 1};

	for (unsigned i = 0; i < 200000 / HARNESS_SLOWDOWN; i++) {
		int32_t nanoseconds = (int32_t)harness_random_below(&state, 1000000000);
		struct weft_wall time = at(random_seconds(&state), nanoseconds);
		unsigned n = (unsigned)harness_random_below(&state, 4);

		check_parse(formatted(time, 3 * n), time.seconds,
			nanoseconds / units[n] * units[n]);
	}
}

Test(wall, random_offsets_are_taken_off)
{
	uint64_t seed = harness_seed(), state = seed;

	for (unsigned i = 0; i < 50000 / HARNESS_SLOWDOWN; i++) {
		int64_t seconds = (int64_t)harness_random_below(&state, 8000000000) - 4000000000;
		int hours = (int)harness_random_below(&state, 24);
		int minutes = (int)harness_random_below(&state, 60);
		bool east = harness_random_below(&state, 2);
		int64_t offset = (hours * 60 + minutes) * 60, there;
		char text[64];

		/* What clocks show there. */
		there = seconds + (east ? offset : -offset);
		snprintf(text, sizeof text, "%.19s%c%02d:%02d", formatted(at(there, 0), 0),
			east ? '+' : '-', hours, minutes);
		check_parse(text, seconds, 0);
	}
}

Test(wall, reads_what_rfc_3339_allows)
{
	check_parse("1985-04-12T23:20:50.52Z", 482196050, 520000000);
	check_parse("1996-12-19T16:39:57-08:00", 851042397, 0);
	check_parse("1937-01-01T12:00:27.87+00:20", -1041337173, 870000000);
	check_parse("1970-01-01t00:00:01z", 1, 0);
	check_parse("1970-01-01 00:00:01Z", 1, 0);
	check_parse("1970-01-01 00:00:01+00:00", 1, 0);
	check_parse("1970-01-01T00:00:01-00:00", 1, 0);
	check_parse("1970-01-01T00:00:00+23:59", -86340, 0);
	check_parse("1970-01-01T00:00:00-23:59", 86340, 0);
	check_parse("1970-01-01T00:00:00.1Z", 0, 100000000);
	check_parse("1970-01-01T00:00:00.000000001Z", 0, 1);
	check_parse("1970-01-01T00:00:00.999999999Z", 0, 999999999);
	check_parse("1969-12-31T23:59:59.5Z", -1, 500000000);
	check_parse("0000-02-29T00:00:00Z", SECONDS_MIN + 59 * 86400, 0);
	check_parse("0000-01-01T23:59:00+23:59", SECONDS_MIN, 0);
	check_parse("9999-12-31T00:00:59-23:59", SECONDS_MAX, 0);
}

Test(wall, reads_a_leap_second_where_there_can_be_one)
{
	static const char *const none[] = {"1990-12-31T23:58:60Z", "1990-12-31T22:59:60Z",
		"1990-12-30T23:59:60Z", "1990-12-31T23:59:60-01:00", "1990-12-31T23:59:60+00:01",
		"2000-02-28T23:59:60Z", "1990-12-31T00:00:60Z", "1991-01-01T00:00:60Z",
		"1990-12-31T23:59:61Z", "0000-01-01T00:00:60Z"};

	check_parse("1990-12-31T23:59:60Z", 662688000, 0);
	check_parse("1990-12-31T23:59:60.75Z", 662688000, 750000000);
	check_parse("1990-12-31T15:59:60-08:00", 662688000, 0);
	check_parse("1991-01-01T07:59:60+08:00", 662688000, 0);
	check_parse("2000-02-29T23:59:60Z", 951868800, 0);
	check_parse("2001-02-28T23:59:60Z", 983404800, 0);
	cr_assert_str_eq(formatted(at(662688000, 0), 0), "1991-01-01T00:00:00Z");
	for (size_t i = 0; i < WF_ARRAY_COUNT(none); i++)
		cr_assert_eq(parsed(none[i], &(struct weft_wall){0, 0}), -EINVAL, "%s", none[i]);
}

Test(wall, tells_years_that_are_none_in_utc)
{
	static const char *const none[] = {"0000-01-01T00:00:00+00:01", "0000-01-01T23:58:59+23:59",
		"9999-12-31T23:59:59-00:01", "9999-12-31T00:01:00-23:59", "9999-12-31T23:59:60Z"};
	struct weft_wall time = {1, 2};

	for (size_t i = 0; i < WF_ARRAY_COUNT(none); i++)
		cr_assert_eq(parsed(none[i], &time), -ERANGE, "%s", none[i]);
	cr_assert_eq(time.seconds, 1);
	cr_assert_eq(time.nanoseconds, 2);
}

Test(wall, refuses_what_is_no_time)
{
	static const char *const bad[] = {"", "Z", "T", "1970", "1970-01-01", "1970-01-01T",
		"1970-01-01Z", "00:00:00Z", "1970-01-01T00:00:00", "1970-01-01T00:00Z",
		"1970-01-01T00:00:00.Z", "1970-01-01T00:00:00.", "1970-01-01T00:00:00,5Z",
		"1970-01-01T00:00:00.0000000001Z", "1970-01-01T00:00:00.5.5Z",
		"1970-01-01T00:00:00.-5Z", "1970-01-01T00:00:00. 5Z", " 1970-01-01T00:00:00Z",
		"1970-01-01T00:00:00Z ", "1970-01-01T00:00:00ZZ", "1970-01-01T00:00:00Z\n",
		"1970-01-01  00:00:00Z", "1970-01-01_00:00:00Z", "1970-01-01\t00:00:00Z",
		"1970-01-01T00:00:00 Z", "1970-01-01T00:00:00UTC", "1970-01-01T00:00:00+00",
		"1970-01-01T00:00:00+0000", "1970-01-01T00:00:00+0:00", "1970-01-01T00:00:00+24:00",
		"1970-01-01T00:00:00+00:60", "1970-01-01T00:00:00+00:00:00",
		"1970-01-01T00:00:00+00:00Z", "1970-01-01T00:00:00--1:00",
		"1970-01-01T00:00:00\342\210\22201:00", "1970-00-01T00:00:00Z",
		"1970-13-01T00:00:00Z", "1970-01-00T00:00:00Z", "1970-01-32T00:00:00Z",
		"1970-04-31T00:00:00Z", "1970-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
		"2100-02-29T00:00:00Z", "2000-02-30T00:00:00Z", "1970-99-99T99:99:99Z",
		"1970-01-01T24:00:00Z", "1970-01-01T00:60:00Z", "1970-01-01T00:00:61Z",
		"19700101T000000Z", "1970-01-01T000000Z", "1970/01/01T00:00:00Z",
		"1970-1-1T00:00:00Z", "70-01-01T00:00:00Z", "01970-01-01T00:00:00Z",
		"-970-01-01T00:00:00Z", "+1970-01-01T00:00:00Z", "-0001-01-01T00:00:00Z",
		"10000-01-01T00:00:00Z", "1970-W01-1T00:00:00Z", "1970-001T00:00:00Z",
		"1970-01-01T 0:00:00Z", "1970-01-01T0x:00:00Z", "1970-01-01T00:00:0:Z",
		"\xd9\xa1\xd9\xa9\xd9\xa7\xd9\xa0-01-01T00:00:00Z"};
	struct weft_wall time = {1, 2};

	errno = 0;
	for (size_t i = 0; i < WF_ARRAY_COUNT(bad); i++)
		cr_assert_eq(parsed(bad[i], &time), -EINVAL, "\"%s\"", bad[i]);
	cr_assert_eq(weft_wall_parse(NULL, 0, &time), -EINVAL);
	cr_assert_eq(weft_wall_parse("1970-01-01T00:00:00Z", 21, &time), -EINVAL, "the 0 counts");
	cr_assert_eq(time.seconds, 1);
	cr_assert_eq(time.nanoseconds, 2);
	cr_assert_eq(errno, 0);
}

/*
 * Every text that has one byte changed, cut off, left out or put in. One that is taken all the same
 * says what it reads as: written again, and read, that is the same time.
 */
static unsigned check_variant(const char *text, size_t length)
{
	struct weft_wall time = {1, 2};
	char *exact = malloc(length ? length : 1); /* of its length, for the tools to see */
	int r;

	cr_assert_not_null(exact);
	memcpy(exact, text, length);
	r = weft_wall_parse(exact, length, &time);
	free(exact);
	cr_assert(r == 0 || r == -EINVAL || r == -ERANGE, "%d", r);
	if (r < 0)
		return 0;
	check_parse(formatted(time, 9), time.seconds, time.nanoseconds);
	return 1;
}

Test(wall, a_byte_from_a_good_text, .timeout = 120)
{
	static const char good[] = "2024-02-29T12:34:56.789012345+05:30";
	size_t length = sizeof good - 1;
	unsigned taken = 0; /* of those with one changed, the same among them */

	for (size_t i = 0; i <= length; i++) {
		char text[sizeof good + 1];

		cr_assert_eq(check_variant(good, i), i == length, "cut off at %zu", i);
		for (unsigned byte = 0; byte < 256; byte++) {
			memcpy(text, good, i);
			text[i] = (char)byte;
			memcpy(text + i + 1, good + i, length - i);
			(void)check_variant(text, length + 1);
			memcpy(text, good, sizeof good);
			text[i] = (char)byte;
			taken += i < length ? check_variant(text, length) : 0;
		}
		if (i < length) {
			memmove(text, good, i);
			memmove(text + i, good + i + 1, length - i - 1);
			(void)check_variant(text, length - 1);
		}
	}
	/*
	 * How many bytes each place may have: the year's, leap years only, 10 10 5 3; months with a
	 * 29th 2 9; days 3 10; T 3; hours 3 10; minutes 6 10; seconds 6 10; fraction 90; offset 2,
	 * 2 10, 6 10; and six that may not change.
	 */
	cr_assert_eq(taken, 226);
}

/* ---- The clock ------------------------------------------------------------------------------ */

static int64_t ns_of(struct weft_wall time)
{
	return time.seconds * 1000000000 + time.nanoseconds;
}

static int64_t kernel_ns(void)
{
	struct timespec now;

	cr_assert_eq(clock_gettime(CLOCK_REALTIME, &now), 0);
	return ns_of(at(now.tv_sec, (int32_t)now.tv_nsec));
}

static int reads_the_clock(void *arg)
{
	int64_t before, now, after;

	/* Somebody may set it between two of them. */
	do {
		before = kernel_ns();
		now = ns_of(weft_wall_now());
		after = kernel_ns();
	} while (after < before);
	cr_assert_leq(before, now);
	cr_assert_leq(now, after);
	(void)arg;
	return 1;
}

Test(wall, is_the_kernels, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(reads_the_clock(NULL), 1);
	cr_assert_eq(runtime_do(rt, reads_the_clock, NULL), 1);
	cr_assert_leq(kernel_ns(), ns_of(weft_test_wall(rt)));
	cr_assert_eq(weft_test_step_wall(rt, 1), -EINVAL);
	runtime_end(rt);
}

static const char *wall_of(weft_rt *rt)
{
	return formatted(weft_test_wall(rt), 0);
}

Test(wall, of_a_test_runtime_moves_with_its_time, .timeout = 120)
{
	weft_rt *rt = NULL;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	cr_assert_str_eq(wall_of(rt), "2000-01-01T00:00:00Z");
	cr_assert_eq(ns_of(weft_test_wall(rt)), WEFT_TEST_WALL_START);
	cr_assert_eq(weft_test_advance(rt, WEFT_SEC(3600) + 5), 0);
	cr_assert_str_eq(formatted(weft_test_wall(rt), 9), "2000-01-01T01:00:00.000000005Z");
	cr_assert_eq(weft_test_step_wall(rt, -WEFT_SEC(3600) - 6), 0);
	cr_assert_str_eq(formatted(weft_test_wall(rt), 9), "1999-12-31T23:59:59.999999999Z");
	cr_assert_eq(weft_test_step_wall(rt, -WEFT_SEC(946684800)), 0);
	cr_assert_str_eq(formatted(weft_test_wall(rt), 9), "1969-12-31T23:59:59.999999999Z");
	cr_assert_eq(weft_test_step_wall(rt, 1), 0);
	cr_assert_eq(ns_of(weft_test_wall(rt)), 0);
	cr_assert_eq(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(3600) + 5);

	/* As far as it goes. */
	cr_assert_eq(weft_test_step_wall(rt, INT64_MIN), -ERANGE);
	cr_assert_eq(weft_test_step_wall(rt, INT64_MAX), 0);
	cr_assert_str_eq(wall_of(rt), "2262-04-11T23:47:16Z");
	cr_assert_eq(weft_test_step_wall(rt, INT64_MAX), -ERANGE);
	cr_assert_str_eq(wall_of(rt), "2262-04-11T23:47:16Z");
	runtime_end(rt);
}

struct sleeper {
	weft_rt *rt;
	weft_time deadline;
};

/* Wakes at its deadline, and steps the clock from inside, in the end. */
static int sleeps_through_steps(void *arg)
{
	struct sleeper *sleeper = arg;
	weft_time before;

	cr_assert_eq(weft_sleep_until(sleeper->deadline), 0);
	cr_assert_geq(weft_now(), sleeper->deadline);
	cr_assert_lt(weft_now(), sleeper->deadline + WEFT_MS(10));
	cr_assert_str_eq(formatted(weft_wall_now(), 0), "2000-01-02T13:00:00Z");
	before = weft_now();
	cr_assert_eq(weft_test_step_wall(sleeper->rt, -WEFT_SEC(86400)), 0);
	cr_assert_str_eq(formatted(weft_wall_now(), 0), "2000-01-01T13:00:00Z");
	cr_assert_eq(weft_now(), before);
	cr_assert_eq(weft_now_coarse(), before);
	return 1;
}

/* T8: wall-clock steps change nothing monotonic. */
Test(wall, steps_move_no_timer, .timeout = 120)
{
	weft_rt *rt = NULL;
	struct sleeper sleeper;
	weft_pid pid;
	int result = 0;

	cr_assert_eq(weft_test_create(NULL, &rt), 0);
	sleeper = (struct sleeper){.rt = rt, .deadline = weft_test_now(rt) + WEFT_SEC(2 * 3600)};
	cr_assert_eq(weft_rt_spawn(rt, sleeps_through_steps, &sleeper, NULL, &pid), 0);
	cr_assert_eq(weft_test_run_until_idle(rt), 1);
	cr_assert_eq(weft_test_step_wall(rt, WEFT_SEC(86400)), 0);
	cr_assert_eq(weft_test_run_until_idle(rt), 0, "a step forward has woken somebody");
	cr_assert_eq(weft_test_advance(rt, WEFT_SEC(3600)), 0);
	cr_assert_str_eq(wall_of(rt), "2000-01-02T01:00:00Z");
	cr_assert_eq(weft_test_step_wall(rt, WEFT_SEC(11 * 3600)), 0);
	cr_assert_eq(weft_test_run_until_idle(rt), 0);
	cr_assert_eq(weft_test_run(rt, WEFT_SEC(3600) + WEFT_MS(10)), 0);
	cr_assert_eq(weft_try_join(pid, &result), 0);
	cr_assert_eq(result, 1);
	cr_assert_lt(weft_test_now(rt), WEFT_TEST_START + WEFT_SEC(2 * 3600) + WEFT_MS(10));
	runtime_end(rt);
}
