/* exit.h: the end of a process, described for whoever is told: join, scopes, hooks. */
#ifndef WF_CORE_EXIT_H
#define WF_CORE_EXIT_H

#include "core/runtime.h"

/*
 * word: p's at its end, with the generation and flags that it had. By the worker that ends it, or
 * by who has taken its result and not yet given the header up.
 */
void wf_exit_describe(const struct weft_rt *rt, const struct wf_proc *p, uint64_t word, int result,
	struct weft_exit *exit_out);

#endif
