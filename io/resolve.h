/*
 * resolve.h: from an address as text to socket addresses; names are looked up without blocking a
 * worker.
 */
#ifndef WF_IO_RESOLVE_H
#define WF_IO_RESOLVE_H

#include <weft/time.h>

#include "io/addr.h"

enum wf_resolve_use {
	WF_RESOLVE_LISTEN,  /* an empty host is every interface: IPv6 and IPv4, or IPv4 */
	WF_RESOLVE_CONNECT, /* an empty host is this machine; port 0 is -EINVAL */
};

/*
 * Turns `address` into at most WF_ADDRESSES_MAX socket addresses, to be tried in turn. A literal or
 * an empty host takes no time. A name: a process parks until the answer or the deadline; any other
 * thread asks itself, and blocks.
 * Returns 0; -EINVAL; -ENOENT and others of wf_addr_lookup(); in a process also -ETIME, -EAGAIN
 * (WEFT_POLL), -ECANCELED, -ENOMEM and what starting a thread gives.
 */
int wf_resolve(
	const char *address, enum wf_resolve_use use, struct wf_addrs *out, weft_time deadline);

#endif
