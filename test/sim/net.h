/* net.h: the in-memory network in a simulation. */
#ifndef WF_TEST_SIM_NET_H
#define WF_TEST_SIM_NET_H

#include "test/sim/runtime.h"

/* In setup, after sim_runtime_reset(): an empty network; NULL: without latency and faults. */
void sim_net_reset(const struct weft_mem_opts *opts);

/* Before sim_runtime_check(): every socket has been closed, nobody waits. Gives the table back. */
void sim_net_check(void);

#endif
