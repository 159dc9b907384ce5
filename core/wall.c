/*
 * wall.c: the wall clock, and RFC 3339.
 *
 * Days are counted as Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms" suggests: in
 * years that begin on the 1st of March, so that a leap day is the last of its year, and months of
 * 31, 30, 31, 30, 31 days follow each other regularly. Years are counted from 400 before year 0, a
 * whole cycle of the calendar, so everything that is divided is positive.
 *
 * All but weft_wall_now() is pure. No state; any thread.
 */
#include <errno.h>
#include <stdbool.h>

#include <weft/wall.h>

#include "core/runtime.h"
#include "timer/clock.h"

#define DAY_SECONDS        86400
#define SECOND_NANOSECONDS 1000000000

#define SECONDS_MIN  (-INT64_C(62167219200)) /* 0000-01-01T00:00:00Z */
#define SECONDS_MAX  INT64_C(253402300799)   /* 9999-12-31T23:59:59Z */
#define YEARS_BEFORE 400                     /* year 0, from where years are counted */
#define DAY_1970     INT64_C(865565)         /* 1970-01-01, from there too */

enum {
	DIGITS_MAX = 9,
	LENGTH_SECONDS = 19, /* of "2026-03-01T12:00:00" */
};

/* --- the calendar --- */

struct date {
	int year, month, day; /* 1 to 12, 1 to 31 */
};

/* The 1st of March of a year, which is counted from YEARS_BEFORE, in days from there. */
static int64_t year_begin(int64_t year)
{
	return 365 * year + year / 4 - year / 100 + year / 400;
}

/* On which day of such a year a month begins; 0: March. Each five months are 153 days. */
static int64_t month_begin(int64_t month)
{
	return (153 * month + 2) / 5;
}

/* Since 1970-01-01. Years 0 to 9999. */
static int64_t days_of(struct date date)
{
	bool next = date.month <= 2; /* in the year that began in March of the one before */

	return year_begin(date.year + YEARS_BEFORE - next)
		+ month_begin(date.month + (next ? 9 : -3)) + date.day - 1 - DAY_1970;
}

static struct date date_of(int64_t days)
{
	int64_t day = days + DAY_1970;
	int64_t year = day * 400 / 146097; /* by the average year: sometimes one too few */
	int64_t month;

	if (year_begin(year + 1) <= day)
		year++;
	day -= year_begin(year);
	month = (5 * day + 2) / 153;
	day -= month_begin(month);
	return (struct date){
		.year = (int)year - YEARS_BEFORE + (month >= 10),
		.month = (int)(month < 10 ? month + 3 : month - 9),
		.day = (int)day + 1,
	};
}

static bool is_leap(int year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int month_days(int year, int month)
{
	static const signed char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	return days[month - 1] + (month == 2 && is_leap(year));
}

/* --- to text --- */

static char *put(char *at, unsigned value, int digits)
{
	for (int i = digits - 1; i >= 0; i--, value /= 10)
		at[i] = (char)('0' + value % 10);
	return at + digits;
}

static char *put_then(char *at, int value, int digits, char then)
{
	at = put(at, (unsigned)value, digits);
	*at = then;
	return at + 1;
}

static char *put_fraction(char *at, unsigned nanoseconds, int digits)
{
	if (digits == 0)
		return at;
	*at++ = '.';
	for (int i = digits; i < DIGITS_MAX; i++)
		nanoseconds /= 10;
	return put(at, nanoseconds, digits);
}

int weft_wall_format(struct weft_wall time, unsigned digits, char *text_out, size_t size)
{
	int length = LENGTH_SECONDS + 1 + (digits ? 1 + (int)digits : 0);
	struct date date;
	char *at = text_out;
	int second;

	static_assert(LENGTH_SECONDS + 1 + DIGITS_MAX + 1 < WEFT_WALL_TEXT_MAX, "all and a 0");
	if (digits % 3 != 0 || digits > DIGITS_MAX || time.nanoseconds < 0
		|| time.nanoseconds >= SECOND_NANOSECONDS)
		return -EINVAL;
	if (time.seconds < SECONDS_MIN || time.seconds > SECONDS_MAX)
		return -ERANGE;
	if (size <= (size_t)length)
		return -ENOSPC;
	date = date_of((time.seconds - SECONDS_MIN) / DAY_SECONDS + SECONDS_MIN / DAY_SECONDS);
	second = (int)((time.seconds - SECONDS_MIN) % DAY_SECONDS);
	at = put_then(at, date.year, 4, '-');
	at = put_then(at, date.month, 2, '-');
	at = put_then(at, date.day, 2, 'T');
	at = put_then(at, second / 3600, 2, ':');
	at = put_then(at, second / 60 % 60, 2, ':');
	at = put(at, (unsigned)second % 60, 2);
	at = put_fraction(at, (unsigned)time.nanoseconds, (int)digits);
	*at++ = 'Z';
	*at = '\0';
	return length;
}

/* --- from text --- */

/* What is left to read. Who finds something else sets `bad`, and goes on for nothing. */
struct reader {
	const char *at;
	size_t left;
	bool bad;
};

static char next(struct reader *reader)
{
	reader->left--;
	return *reader->at++;
}

static bool take(struct reader *reader, char wanted)
{
	return reader->left > 0 && *reader->at == wanted && next(reader) == wanted;
}

static void want(struct reader *reader, char wanted)
{
	if (!take(reader, wanted))
		reader->bad = true;
}

static bool at_digit(const struct reader *reader)
{
	return reader->left > 0 && *reader->at >= '0' && *reader->at <= '9';
}

/* At most `max` digits, how many to *count_out. */
static int read_digits(struct reader *reader, int max, int *count_out)
{
	int value = 0, count = 0;

	for (; count < max && at_digit(reader); count++)
		value = value * 10 + (next(reader) - '0');
	*count_out = count;
	return value;
}

/* A number of so many digits, in its range. */
static int number(struct reader *reader, int length, int min, int max)
{
	int count, value = read_digits(reader, length, &count);

	if (count == length && value >= min && value <= max)
		return value;
	reader->bad = true;
	return min;
}

static struct date read_date(struct reader *reader)
{
	struct date date;

	date.year = number(reader, 4, 0, 9999);
	want(reader, '-');
	date.month = number(reader, 2, 1, 12);
	want(reader, '-');
	date.day = number(reader, 2, 1, month_days(date.year, date.month));
	return date;
}

static int read_hours_and_minutes(struct reader *reader)
{
	int seconds = number(reader, 2, 0, 23) * 3600;

	want(reader, ':');
	return seconds + number(reader, 2, 0, 59) * 60;
}

static int read_fraction(struct reader *reader)
{
	int count, value;

	if (!take(reader, '.'))
		return 0;
	value = read_digits(reader, DIGITS_MAX, &count);
	reader->bad |= count == 0;
	for (; count < DIGITS_MAX; count++)
		value *= 10;
	return value;
}

/* In seconds, east of Greenwich. */
static int read_offset(struct reader *reader)
{
	if (take(reader, 'Z') || take(reader, 'z'))
		return 0;
	if (take(reader, '+'))
		return read_hours_and_minutes(reader);
	want(reader, '-');
	return -read_hours_and_minutes(reader);
}

/* Whether the second before it may have been a leap second: a month of UTC begins. */
static bool begins_month(int64_t seconds)
{
	int64_t since = seconds - SECONDS_MIN;

	return since % DAY_SECONDS == 0
		&& date_of(since / DAY_SECONDS + SECONDS_MIN / DAY_SECONDS).day == 1;
}

int weft_wall_parse(const char *text, size_t length, struct weft_wall *time_out)
{
	struct reader reader = { .at = text, .left = length };
	struct date date = read_date(&reader);
	int64_t seconds = days_of(date) * DAY_SECONDS;
	int second, nanoseconds;

	if (!take(&reader, 'T') && !take(&reader, 't'))
		want(&reader, ' ');
	seconds += read_hours_and_minutes(&reader);
	want(&reader, ':');
	second = number(&reader, 2, 0, 60);
	nanoseconds = read_fraction(&reader);
	seconds += second - read_offset(&reader);
	if (reader.bad || reader.left > 0)
		return -EINVAL;
	if (seconds < SECONDS_MIN || seconds > SECONDS_MAX + (second == 60))
		return -ERANGE;
	if (second == 60 && !begins_month(seconds))
		return -EINVAL;
	if (seconds > SECONDS_MAX)
		return -ERANGE;
	*time_out = (struct weft_wall){ seconds, nanoseconds };
	return 0;
}

/* --- the clock --- */

/* The sum, in nanoseconds, may be more than 64 bits hold: so both are split first. */
static struct weft_wall virtual_wall(const struct weft_rt *rt)
{
	int64_t ahead_ns = (int64_t)wf_u64_load_relaxed(&rt->wall_ahead);
	weft_time now = wf_rt_now(rt);
	int64_t nanoseconds = now % SECOND_NANOSECONDS + ahead_ns % SECOND_NANOSECONDS;
	int64_t seconds = now / SECOND_NANOSECONDS + ahead_ns / SECOND_NANOSECONDS;

	for (; nanoseconds < 0; nanoseconds += SECOND_NANOSECONDS)
		seconds--;
	for (; nanoseconds >= SECOND_NANOSECONDS; nanoseconds -= SECOND_NANOSECONDS)
		seconds++;
	return (struct weft_wall){ seconds, (int32_t)nanoseconds };
}

struct weft_wall wf_rt_wall(const struct weft_rt *rt)
{
	struct weft_wall wall;

	if (rt->clock_virtual)
		return virtual_wall(rt);
	wf_clock_wall(&wall.seconds, &wall.nanoseconds);
	return wall;
}

struct weft_wall weft_wall_now(void)
{
	struct wf_worker *worker = wf_worker_self();
	struct weft_wall wall;

	if (worker)
		return wf_rt_wall(worker->rt);
	wf_clock_wall(&wall.seconds, &wall.nanoseconds);
	return wall;
}
