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

/*
 * To a caller of another release, whose `size` is set: what it has no room for is left out, what is
 * not known of is zero.
 */
void wf_exit_copy(const struct weft_exit *told, struct weft_exit *exit_out);

#endif
