/* memory.c: memory through the runtime's allocator; the default is the C library's. */
#include <errno.h>
#include <stdlib.h>

#include "core/forced.h"
#include "core/memory.h"
#include "core/runtime.h"
#include "sync/fault.h"

static void *default_allocate(void *ctx, size_t alignment, size_t size)
{
	void *memory;

	(void)ctx;
	if (alignment < sizeof(void *))
		alignment = sizeof(void *);
	return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}

static void default_release(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	(void)size;
	free(memory);
}

const struct weft_allocator wf_default_allocator = { default_allocate, default_release, NULL };

void *wf_alloc(struct weft_rt *rt, size_t alignment, size_t size)
{
	void *memory = NULL;
	int saved = errno; /* malloc sets it when it fails */

	if (!wf_fails(WF_CALL_ALLOCATE))
		memory = rt->allocator.allocate(rt->allocator.ctx, alignment, size);
	errno = saved;
	return memory;
}

void wf_free(struct weft_rt *rt, void *memory, size_t size)
{
	if (memory)
		rt->allocator.release(rt->allocator.ctx, memory, size);
}

void *wf_shared_alloc(size_t alignment, size_t size)
{
	const struct wf_worker *self = wf_worker_self();
	int saved = errno;
	void *memory = NULL;

	if (self && wf_is_forced(self->rt, WEFT_TEST_ALLOCATION))
		return NULL;
	if (!wf_fails(WF_CALL_ALLOCATE))
		memory = default_allocate(NULL, alignment, size);
	errno = saved;
	return memory;
}

void wf_shared_free(void *memory, size_t size)
{
	default_release(NULL, memory, size);
}
