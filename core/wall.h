/*
 * <weft/wall.h>: the wall clock, for people: dates in logs, on the wire, in files.
 *
 *	char text[WEFT_WALL_TEXT_MAX];
 *
 *	weft_wall_format(weft_wall_now(), 3, text, sizeof text);    2026-03-01T12:00:00.250Z
 *
 * It may be set, forward and back, at any moment: nothing in Weft waits for it, and deadlines are
 * times of another clock (<weft/time.h>), which steps of this one do not move.
 *
 * Text is RFC 3339 in years 0000 to 9999 of the Gregorian calendar, also for the time before there
 * was one. No time zones but offsets, no locale, no allocation: the two that deal in text, and
 * weft_wall_now(), are async-signal-safe.
 */
#ifndef WEFT_WALL_H
#define WEFT_WALL_H

#include <stddef.h>
#include <stdint.h>

#include <weft/time.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A point in time: seconds since 1970-01-01T00:00:00Z, less before it, as POSIX counts them
 * (without leap seconds); and nanoseconds after that second, 0 to 999999999, before 1970 too.
 */
struct weft_wall {
	int64_t seconds;
	int32_t nanoseconds;
};

/* Room for any text that weft_wall_format() writes, the 0 at its end included. */
#define WEFT_WALL_TEXT_MAX 31

/*
 * The time now, by CLOCK_REALTIME: about 30 ns. In a test runtime (<weft/test.h>) by a wall clock
 * of its own.
 * Threads: any thread; async-signal-safe. Blocks: never.
 */
WEFT_API struct weft_wall weft_wall_now(void);

/*
 * Writes a time as "2026-03-01T12:00:00.250Z": in UTC, always of the same length. About 35 ns.
 * digits: of the fraction: 0 (and no point), 3, 6 or 9. What is beyond them is cut off.
 * text_out, size: room for the text and a 0; WEFT_WALL_TEXT_MAX bytes do.
 * Threads: any thread; async-signal-safe. Blocks: never.
 * Returns: the length, the 0 not counted; -ERANGE: a year before 0000 or after 9999; -ENOSPC: no
 * room; -EINVAL: other digits, nanoseconds out of their range. After an error nothing is written.
 */
WEFT_API int weft_wall_format(struct weft_wall time, unsigned digits, char *text_out, size_t size);

/*
 * Reads an RFC 3339 time: all of `text`, which is `length` bytes and needs no 0.
 *
 *	2026-03-01T12:00:00Z    't' and a blank for 'T', 'z' for 'Z'
 *	…00.25+01:00            a fraction of 1 to 9 digits; an offset up to 23:59 either way
 *	… 23:59:60Z             a leap second, only where there can be one: as the last second, in
 *	                        UTC, of a month. POSIX has no number for it: it is read as the
 *	                        second that follows, the fraction kept
 *
 * "-00:00" (somewhere, time given in UTC) is Z. Nothing else is taken: no blanks around it, no
 * sign, no week dates, no 24:00, no comma, no date that the month has not.
 * Threads: any thread; async-signal-safe. Blocks: never.
 * Returns: 0; -EINVAL: that is no such text; -ERANGE: it is, but in UTC the year is before 0000 or
 * after 9999. *time_out is written only when it returns 0.
 */
WEFT_API int weft_wall_parse(const char *text, size_t length, struct weft_wall *time_out);

#ifdef __cplusplus
}
#endif

#endif
