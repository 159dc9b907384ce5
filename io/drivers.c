/*
 * drivers.c: which drivers there are: main ones, the first of which others fall back to; and those
 * that every worker has beside its main one.
 */
#include "io/drivers.h"

const struct wf_driver *const wf_drivers[] = {
	&wf_driver_epoll,
	&wf_driver_mem,
	NULL,
};

const struct wf_driver *const wf_poll_drivers[] = {
	&wf_driver_mem,
	NULL,
};
