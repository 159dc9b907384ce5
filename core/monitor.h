/*
 * monitor.h: a thread of each runtime that looks after workers which do not come back to their
 * scheduler: it names the process that holds one up, and repeats the wake that such a worker can no
 * longer make. monitor.c tells how. A runtime with stall_ns = WEFT_FOREVER has none.
 */
#ifndef WF_CORE_MONITOR_H
#define WF_CORE_MONITOR_H

#include "core/runtime.h"

/* What a monitor sleeps on. */
enum {
	WF_MONITOR_AWAKE,
	WF_MONITOR_ASLEEP, /* every worker was parked: the first to unpark wakes it */
	WF_MONITOR_STOP,
	WF_MONITOR_HURRY,  /* awake, and to look before it had planned to */
};

struct wf_stalled;

struct wf_monitor {
	wf_atomic_u32 state WF_ALIGNED(WF_FALSE_SHARING); /* futex; read by each unpark */
	wf_atomic_u64 wake_at; /* when it looks next; stores by the thread */
	struct weft_rt *rt WF_ALIGNED(WF_FALSE_SHARING);
	pthread_t thread;
	bool started;
	weft_time period_ns;
	weft_time looked_at;
	struct wf_stalled *workers; /* what was seen of each */
};

/* Memory, before workers run; the thread, once they do. 0 or -errno. */
int wf_monitor_make(struct weft_rt *rt);
int wf_monitor_start(struct weft_rt *rt);

/* Ends the thread, if there is one; before workers are joined. Frees the rest. */
void wf_monitor_stop(struct weft_rt *rt);
void wf_monitor_unmake(struct weft_rt *rt);

void wf_monitor_wake(struct wf_monitor *monitor);

/* A worker that is parked no more. */
WF_INLINE void wf_monitor_notice(const struct weft_rt *rt)
{
	/* M2: seq_cst, after the RMW that cleared the parked bit: with M1 in nap(). */
	if (rt->monitor
		&& WF_UNLIKELY(wf_u32_load_seq_cst(&rt->monitor->state) == WF_MONITOR_ASLEEP))
		wf_monitor_wake(rt->monitor);
}

/* It is to look at `deadline`, if it would not before. Any thread. */
void wf_monitor_hurry(struct wf_monitor *monitor, weft_time deadline);

/*
 * Step 7 of a turn for a worker that has not come to it: a work wake if its ring has something and
 * somebody is parked. True: that was so. Any thread.
 */
bool wf_monitor_rescue(struct wf_worker *worker);

#endif
