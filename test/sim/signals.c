/*
 * signals.c: core/signals.c with a way to put its table back to the start: the same seed must find
 * the same state.
 */
#include "core/signals.c"

#include <string.h>

#include "test/sim/runtime.h"

void sim_signals_reset(void)
{
	memset(&signals, 0, sizeof(signals));
}
