/*
 * runtime.h: the whole runtime in a simulation: what stands where threads, futexes, clock, memory,
 * CPUs, RCU and a driver do in a program.
 *
 *	setup:      sim_runtime_reset()
 *	a thread:   weft_rt_create(sim_runtime_opts(workers), &rt) … weft_rt_destroy(rt, …)
 *	check:      sim_runtime_check()
 *
 * Workers and the reclaimer are virtual threads; fibers run on stacks from the simulation's memory.
 */
#ifndef WF_TEST_SIM_RUNTIME_H
#define WF_TEST_SIM_RUNTIME_H

#include <weft.h>

#include "test/sim/sim.h"

void sim_runtime_reset(void);
void sim_registry_reset(void);
void sim_rcu_reset(void);

/* Options of a runtime in a simulation: the sim driver, small stacks, idle = park. */
const struct weft_rt_opts *sim_runtime_opts(unsigned workers);

/* After everything has been destroyed: all memory is back, nobody is in a read section. */
void sim_runtime_check(void);

#endif
