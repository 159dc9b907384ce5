/* memory.h: the default allocator. wf_alloc() and wf_free() are in core/sched.h. */
#ifndef WF_CORE_MEMORY_H
#define WF_CORE_MEMORY_H

#include <weft.h>

extern const struct weft_allocator wf_default_allocator;

#endif
