/* no_io.c: simulations of the scheduler without io/. */
#include <errno.h>

#include "core/driver.h"
#include "test/sim/runtime.h"

const struct wf_driver *const wf_drivers[] = {&sim_driver, NULL};
const struct wf_driver *const wf_poll_drivers[] = {NULL};

static int open_none(struct weft_rt *rt, void **state_out)
{
	(void)rt;
	*state_out = NULL;
	return sim_runtime_refuses() ? -ENOMEM : 0;
}

static void nothing(void *state)
{
	(void)state;
}

const struct wf_io_hooks wf_io_hooks = {open_none, nothing, nothing};
