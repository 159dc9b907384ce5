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

/* The driver of runtime.c. */
struct wf_driver;
extern const struct wf_driver sim_driver;

/* From now on, until the next reset: lines on the log at level error are no failure. */
void sim_runtime_expect_errors(void);

/* Options of a runtime in a simulation: the sim driver, small stacks, idle = park. */
const struct weft_rt_opts *sim_runtime_opts(unsigned workers);

/*
 * The n-th request for memory, a thread, a driver fails from now on, and no other; 0: none does.
 * Lines on the log at level error are no failure then.
 */
void sim_runtime_fail_at(unsigned n);
/* Whether the one that was to fail has failed. */
bool sim_runtime_has_failed(void);
/* Of what makes something: counts a request; true: it is to fail. */
bool sim_runtime_refuses(void);

/* After everything has been destroyed: all memory is back, nobody is in a read section. */
void sim_runtime_check(void);

#endif
