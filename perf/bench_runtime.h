/*
 * bench_runtime.h: a runtime for one call of a workload, and a foreign thread beside it. Used by
 * the workloads that schedule processes.
 */
#ifndef WF_PERF_BENCH_RUNTIME_H
#define WF_PERF_BENCH_RUNTIME_H

#include <weft.h>

#include "perf/bench.h"
#include "sync/atomic.h"

/* One for each worker: a count that only its worker raises and anybody may read. */
struct bench_counter {
	wf_atomic_u64 count;
} WF_ALIGNED(WF_FALSE_SHARING);

/* Makes a runtime as `args` says, workers pinned. 0 or a negative errno, printed. */
int bench_runtime_open(const struct bench_args *args, weft_rt **rt_out);
/* Ends and frees it; anything still alive is an error. */
int bench_runtime_close(weft_rt *rt);

/* Opens a runtime, runs fn(arg) as a process on worker 0, closes it. Returns fn's result. */
int bench_runtime_run(const struct bench_args *args, weft_fn fn, void *arg);

/*
 * Runs fn(arg) on a new thread outside the runtime, pinned to the CPU after the workers' (with
 * fewer CPUs than that, it shares one of theirs), and waits for it. 0 or a negative errno.
 */
int bench_foreign_run(const struct bench_args *args, void (*fn)(void *arg), void *arg);

/* Raises the calling worker's own counter. */
WF_INLINE void bench_counter_raise(struct bench_counter *counters)
{
	wf_atomic_u64 *count = &counters[weft_worker_index()].count;

	/* One writer: no read-modify-write is needed. */
	wf_u64_store_relaxed(count, wf_u64_load_relaxed(count) + 1);
}

WF_INLINE uint64_t bench_counter_sum(const struct bench_counter *counters, unsigned workers)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < workers; i++)
		sum += wf_u64_load_relaxed(&counters[i].count);
	return sum;
}

#endif
