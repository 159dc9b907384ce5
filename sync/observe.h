/*
 * observe.h: what the simulator is told by the scheduler, because it could not see it.
 *
 * WF_OBSERVE(what, process) is nothing but in sim builds, where test/sim/invariants.c keeps account
 * of every process: who runs it, and what it was run for. It comes before what it tells takes
 * effect.
 */
#ifndef WF_SYNC_OBSERVE_H
#define WF_SYNC_OBSERVE_H

#if defined(WF_ATOMICS_SIM)

enum wf_observed {
	WF_OBSERVED_runs,   /* the calling worker is about to switch to it */
	WF_OBSERVED_waits,  /* it is about to switch away, and needs a wake to go on */
	WF_OBSERVED_yields, /* the same, and needs none */
	WF_OBSERVED_woken,  /* one more run is due, unless one is already */
};

void wf_sim_observe(enum wf_observed what, const void *process);

#define WF_OBSERVE(what, process) wf_sim_observe(WF_OBSERVED_##what, process)

#else

#define WF_OBSERVE(what, process) ((void)0)

#endif

#endif
