/* control.h: weft_rt_run_on_workers() as the inbox sees it. */
#ifndef WF_CORE_CONTROL_H
#define WF_CORE_CONTROL_H

#include "core/worker.h"

/* Owner: runs this worker's part of a call that came out of the inbox. */
void wf_control_run(struct wf_worker *worker, struct wf_node *node);

#endif
