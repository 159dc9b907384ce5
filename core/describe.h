/* describe.h: what the guard handler prints about the fiber that overflowed its stack. */
#ifndef WF_CORE_DESCRIBE_H
#define WF_CORE_DESCRIBE_H

#include "core/guard.h"

/* The process that runs on the calling thread. Async-signal-safe. False: none does. */
bool wf_describe_current(struct wf_guard_subject *subject_out);

#endif
