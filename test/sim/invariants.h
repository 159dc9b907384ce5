/*
 * invariants.h: what must hold at any time in a simulation of the whole runtime.
 */
#ifndef WF_TEST_SIM_INVARIANTS_H
#define WF_TEST_SIM_INVARIANTS_H

#include "sync/rcu.h"
#include "test/sim/runtime.h"

/* From here on, for this schedule. */
void sim_invariants_begin(void);

/* For this schedule nothing is looked at after all. */
void sim_invariants_leave_out(void);

/* Of the driver, called by a worker: see "time" in invariants.c. */
void sim_invariants_poll(void);
void sim_invariants_flush(void);
void sim_invariants_sleep(weft_time deadline);

/* A batch of headers has had its grace period. */
void sim_invariants_grace_over(struct wf_rcu_batch *batch);

/* A runtime's workers have ended, and its memory is still there. */
void sim_invariants_end(const struct wf_rcu_domain *domain);

/* rcu.c */
bool sim_rcu_is_online(unsigned thread);

/* registry.c: the runtime in a slot; NULL: none, or it is being unmade. */
struct weft_rt *sim_registry_runtime(unsigned slot);

#endif
