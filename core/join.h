/*
 * join.h: what the end of a process does for whoever joins it. core/README.md, "join".
 */
#ifndef WF_CORE_JOIN_H
#define WF_CORE_JOIN_H

#include "core/runtime.h"

/*
 * Tells the joiner named in p->joiner; the caller has changed the word and seen JOINER in it. In a
 * read section.
 */
void wf_join_tell(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p);

#endif
