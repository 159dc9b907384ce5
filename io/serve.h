/* serve.h: the servers of a runtime: what a stop has to reach. */
#ifndef WF_IO_SERVE_H
#define WF_IO_SERVE_H

#include <stdbool.h>

#include "sync/spinlock.h"

struct wf_server;

struct wf_servers {
	struct wf_spinlock lock;
	struct wf_server *first; /* every weft_serve() that has its acceptors running */
	bool draining;           /* new ones end at once */
};

/* A stop has begun: servers accept what is queued, and end. Any thread. */
void wf_servers_drain(struct wf_servers *servers);

#endif
