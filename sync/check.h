/*
 * check.h: the three levels of checking, and the few language helpers every folder needs.
 *
 *   WF_CHECK(cond)       always on: guards memory safety. Prints the condition and aborts.
 *   WF_ASSERT(cond)      on in dev, asan, tsan and sim (WF_DEBUG); in release the condition is
 *                        still type-checked but never evaluated.
 *   static_assert(cond)  sizes and constants.
 *
 * This is the bottom of the include graph: it includes nothing of ours.
 */
#ifndef WF_SYNC_CHECK_H
#define WF_SYNC_CHECK_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef WF_DEBUG
#define WF_DEBUG 0
#endif

/*
 * Two 64-byte lines: adjacent-line prefetchers pull pairs, so words that different cores write are
 * kept this far apart.
 */
#define WF_CACHE_LINE     64
#define WF_FALSE_SHARING  128
#define WF_ALIGNED(bytes) __attribute__((aligned(bytes)))

#define WF_LIKELY(cond)   __builtin_expect(!!(cond), 1)
#define WF_UNLIKELY(cond) __builtin_expect(!!(cond), 0)
#define WF_NOINLINE       __attribute__((noinline))
#define WF_INLINE         static inline __attribute__((always_inline))
#define WF_COLD           __attribute__((cold, noinline))
#define WF_UNUSED         __attribute__((unused))
#define WF_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define WF_PREFETCH(address)  __builtin_prefetch(address)
#define WF_PREFETCH_WRITE(address) __builtin_prefetch((address), 1)

#define WF_ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The object of `type` whose field `member` is at `pointer`. */
#define WF_CONTAINER_OF(pointer, type, member) \
	((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#if defined(WF_ATOMICS_SIM)
/* The simulator ends the schedule, not the program, and tells how it came to that. */
#define wf_check_failed wf_sim_check_failed
_Noreturn void wf_sim_check_failed(
	const char *condition, const char *file, int line, const char *function);
#else
WF_UNUSED WF_COLD static _Noreturn void wf_check_failed(
	const char *condition, const char *file, int line, const char *function)
{
	fprintf(stderr, "weft: %s:%d: %s: check failed: %s\n", file, line, function, condition);
	abort();
}
#endif

#define WF_CHECK(cond) \
	(WF_LIKELY(cond) ? (void)0 : wf_check_failed(#cond, __FILE__, __LINE__, __func__))

#if WF_DEBUG
#define WF_ASSERT(cond) WF_CHECK(cond)
#else
#define WF_ASSERT(cond) ((void)sizeof((cond) ? 1 : 0))
#endif

#endif
