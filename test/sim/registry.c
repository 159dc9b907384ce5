/*
 * registry.c: core/registry.c, the only file of the scheduler with state outside a runtime, with a
 * way to put that state back to the start: the same seed must find the same state.
 */
#include "core/registry.c"

#include <string.h>

#include "test/sim/invariants.h"

void sim_registry_reset(void)
{
	memset(slots, 0, sizeof(slots));
	memset(&lock, 0, sizeof(lock));
	serial_last = 0;
}

struct weft_rt *sim_registry_runtime(unsigned slot)
{
	return (struct weft_rt *)(uintptr_t)sim_peek_atomic(&slots[slot].rt);
}
