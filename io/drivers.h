/* drivers.h: the drivers that io/drivers.c lists, and what io/ keeps per runtime. */
#ifndef WF_IO_DRIVERS_H
#define WF_IO_DRIVERS_H

#include "core/driver.h"
#include "io/buf.h"
#include "io/serve.h"

extern const struct wf_driver wf_driver_epoll;
extern const struct wf_driver wf_driver_mem;

/* io/'s part of a runtime: wf_rt_io(). */
struct wf_io {
	struct weft_rt *rt;
	struct wf_servers servers;
	struct wf_buf_pool buffers;
};

#endif
