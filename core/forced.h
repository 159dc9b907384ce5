/*
 * forced.h: failures that a test forces (<weft/test.h>). They exist in every build: users test with
 * what is installed. In a runtime that is no test's they are one load, next to others that are made
 * anyway; of the runtime's allocator, which a test runtime wraps, they are nothing.
 */
#ifndef WF_CORE_FORCED_H
#define WF_CORE_FORCED_H

#include <weft/test.h>

#include "core/runtime.h"

/* Counts one of its kind. True: it is the one that fails. Any thread. */
WF_COLD bool wf_forced_count(struct wf_forced *forced, enum weft_test_failure what);

WF_INLINE bool wf_is_forced(const struct weft_rt *rt, enum weft_test_failure what)
{
	return WF_UNLIKELY(rt->forced != NULL) && wf_forced_count(rt->forced, what);
}

/* After the runtime is freed. Accepts NULL. */
void wf_forced_free(struct wf_forced *forced);

#endif
