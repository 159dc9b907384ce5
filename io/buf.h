/* buf.h: the buffers that weft_recv_buf() lends: a small pool per runtime. */
#ifndef WF_IO_BUF_H
#define WF_IO_BUF_H

#include "sync/spinlock.h"

struct weft_rt;
struct wf_buf;

struct wf_buf_pool {
	struct wf_spinlock lock;
	struct wf_buf *free;
	unsigned free_count;
	unsigned lent_count;
};

/* At the end of the runtime. A buffer that was never released is named on the log, and lost. */
void wf_buf_pool_close(struct weft_rt *rt, struct wf_buf_pool *pool);

#endif
