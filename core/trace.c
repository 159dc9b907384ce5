/*
 * trace.c: the trace word: a number of the program's that a process hands on to those it spawns.
 *
 * It lies in the process's ext, which only its runner writes; who spawns reads its own. A process
 * without one has no ext for it, so programs that do not use it pay a load per spawn.
 */
#include <errno.h>

#include "core/runtime.h"

uint64_t weft_trace_word(void)
{
	struct wf_worker *worker = wf_worker_self();

	if (!worker || !worker->current || !worker->current->ext)
		return 0;
	return worker->current->ext->trace;
}

int weft_trace_set(uint64_t trace)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_ext *ext;

	if (!worker || !worker->current)
		return -EPERM;
	if (!trace && !worker->current->ext)
		return 0;
	ext = wf_proc_ext(worker->rt, worker->current);
	if (!ext)
		return -ENOMEM;
	ext->trace = trace;
	return 0;
}
