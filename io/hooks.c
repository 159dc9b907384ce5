/* hooks.c: how core/ opens, drains and closes io/'s part of a runtime. */
#include <errno.h>

#include "core/sched.h"
#include "io/drivers.h"

static int io_open(struct weft_rt *rt, void **state_out)
{
	struct wf_io *io = wf_alloc(rt, WF_FALSE_SHARING, sizeof(*io));

	if (!io)
		return -ENOMEM;
	*io = (struct wf_io){ .rt = rt };
	*state_out = io;
	return 0;
}

static void io_drain(void *state)
{
	struct wf_io *io = state;

	wf_servers_drain(&io->servers);
}

static void io_close(void *state)
{
	struct wf_io *io = state;

	WF_ASSERT(!io->servers.first);
	wf_buf_pool_close(io->rt, &io->buffers);
	wf_free(io->rt, io, sizeof(*io));
}

const struct wf_io_hooks wf_io_hooks = {
	.rt_open = io_open,
	.drain = io_drain,
	.rt_close = io_close,
};
