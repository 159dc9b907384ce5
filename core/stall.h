/*
 * stall.h: where a worker's thread is that does not come back: asked by a signal, answered by a
 * handler on that thread, told in symbols (WEFT_RT_STALL_BACKTRACE).
 *
 * Threads: install and uninstall are counted, from any thread; each runtime with the flag does one
 * of each. One caller at a time for each runtime asks.
 */
#ifndef WF_CORE_STALL_H
#define WF_CORE_STALL_H

#include "core/worker.h"

/*
 * Takes the highest real-time signal whose disposition is the default, the same for all runtimes.
 * Returns it, or 0: none was free.
 */
int wf_stall_install(void);

/* The last one gives the signal back, unless the host has put a handler of its own there. */
void wf_stall_uninstall(void);

/*
 * Writes ", in f+0x12 < g+0x34 …" for what `worker` runs, or "" if it did not answer in time. Its
 * thread lives. Never on a worker.
 */
void wf_stall_where(struct wf_worker *worker, int signal, char *text, size_t size);

#endif
