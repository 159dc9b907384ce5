/* memory.c: core/memory.c, with the simulation's memory where the C library's is. */
#include <errno.h>
#include <stdlib.h>

#include "test/sim/runtime.h"

static int memory_take(void **memory_out, size_t alignment, size_t bytes)
{
	if (sim_runtime_refuses())
		return ENOMEM;
	*memory_out = sim_alloc(alignment, bytes, 0xa5);
	return 0;
}

static void memory_give(void *memory, size_t bytes)
{
	if (memory != NULL)
		sim_free(memory, bytes);
}

#define posix_memalign(memory_out, alignment, bytes) memory_take(memory_out, alignment, bytes)
#define free(memory) memory_give(memory, size)

#include "core/memory.c"
