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

#include "core/sched.h"
#include "test/sim/sim.h"

void sim_runtime_reset(void);
void sim_registry_reset(void);
void sim_local_reset(void);
void sim_signals_reset(void);
void sim_rcu_reset(void);

/* The driver of runtime.c. */
struct wf_driver;
extern const struct wf_driver sim_driver;

/* From now on, until the next reset: lines on the log at level error are no failure. */
void sim_runtime_expect_errors(void);

/* Options of a runtime in a simulation: the sim driver, small stacks, idle = park. */
const struct weft_rt_opts *sim_runtime_opts(unsigned workers);

/*
 * The n-th request for memory (guards and advice too), a thread, a driver fails from now on, and no
 * other; 0: none does.
 * Lines on the log at level error are no failure then.
 */
void sim_runtime_fail_at(unsigned n);
/* Whether the one that was to fail has failed. */
bool sim_runtime_has_failed(void);
/* Of what makes something: counts a request; true: it is to fail. */
bool sim_runtime_refuses(void);

/*
 * An event: what a process waits for at the driver of its worker, as it would for a descriptor. The
 * process: begin, tell others, park. Any thread: happen, once. The driver claims the wait in one of
 * its polls, or is woken by it.
 */
struct sim_event {
	struct wf_wait wait;
	void *driver;
};

void sim_event_begin(struct sim_event *event);
void sim_event_happen(struct sim_event *event);

/*
 * What stands for the descriptors 0 … of drivers beside the sim driver, which may watch each once:
 * written to, or read empty. Any thread while the watching worker's driver is open.
 */
#define SIM_DESCRIPTORS 8
void sim_runtime_readable(int fd, bool readable);

/*
 * What a host's poll(2) on weft_rt_fd() does: sleeps until the sim driver's wait() would return, or
 * the alarm rings. The thread of an embedded runtime, between two polls.
 */
void sim_runtime_await_descriptor(struct weft_rt *rt);

/* How often a driver was woken, in this schedule. */
unsigned sim_runtime_wakes(void);

/* After everything has been destroyed: all memory is back, nobody is in a read section. */
void sim_runtime_check(void);

#endif
