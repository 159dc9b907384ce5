/*
 * local.c: core/local.c with a way to put its keys back to the start: the same seed must find the
 * same state.
 */
#include "core/local.c"

#include "test/sim/runtime.h"

void sim_local_reset(void)
{
	memset(&keys, 0, sizeof(keys));
}
