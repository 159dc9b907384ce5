/* post.h: weft_post() as the inbox sees it. */
#ifndef WF_CORE_POST_H
#define WF_CORE_POST_H

#include "core/worker.h"

/* Owner: runs a post that came out of the inbox. */
void wf_post_run(struct wf_worker *worker, struct wf_node *node);

#endif
