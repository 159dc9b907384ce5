/*
 * bench_table.c: lookup: from an id to the process: one process again and again, many in random
 * order (more than the caches hold when n is large enough), and the cheapest public call on an id
 * of another process, a join that does not wait.
 *
 * The lookup itself is internal: the public API never hands out a header.
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdlib.h>

#include "core/runtime.h"

enum { PROCESSES = 65536 };

struct lookup {
	const struct bench_args *args;
	struct bench_result *result;
	weft_pid *pids;
};

static int wait_body(void *arg)
{
	(void)arg;
	return weft_park(WEFT_FOREVER);
}

static void lookup_measure(
	const struct lookup *lookup, const char *variant, uint32_t mask, bool is_public)
{
	const struct wf_table *table = &weft_rt_current()->table;
	uint64_t n = lookup->args->n, state = lookup->args->seed, i, found = 0;
	uint64_t start_ns = bench_now_ns();

	/* The order is drawn by a multiplication: a load of indices would be measured as well. */
	for (i = 0; i < n; i++) {
		weft_pid pid = lookup->pids[state & mask];

		state = state * 5 + 1;
		if (is_public)
			found += weft_try_join(pid, NULL) == -EAGAIN;
		else
			found += wf_table_find(table, pid) != NULL;
	}
	bench_row_set(bench_row_add(lookup->result, variant, "fiber"), BENCH_NS_PER_OP,
		(double)(bench_now_ns() - start_ns) / (double)n);
	BENCH_CHECK(found == n);
}

static int lookup_main(void *arg)
{
	struct lookup *lookup = arg;
	struct weft_spawn_opts opts = {.size = sizeof(opts), .flags = WEFT_SUSPENDED};
	unsigned i, spawned = 0;
	int error = 0;

	/* Suspended ones have no stack: what is missed in the caches are the headers alone. */
	while (spawned < PROCESSES && error == 0) {
		error = weft_spawn_with(wait_body, NULL, &opts, &lookup->pids[spawned]);
		spawned += error == 0;
	}
	if (error == 0) {
		lookup_measure(lookup, "one id", 0, false);
		lookup_measure(lookup, "65536 ids", PROCESSES - 1, false);
		lookup_measure(lookup, "try_join", 0, true);
	}
	for (i = 0; i < spawned; i++) {
		weft_cancel(lookup->pids[i]);
		weft_wake(lookup->pids[i]);
		weft_join(lookup->pids[i], NULL, WEFT_FOREVER);
	}
	return error;
}

static int lookup_run(const struct bench_args *args, struct bench_result *result)
{
	struct lookup lookup = {.args = args, .result = result};
	int error;

	lookup.pids = calloc(PROCESSES, sizeof(*lookup.pids));
	if (!lookup.pids)
		return -ENOMEM;
	error = bench_runtime_run(args, lookup_main, &lookup);
	free(lookup.pids);
	return error;
}

const struct bench_workload bench_lookup = {
	.name = "lookup",
	.help = "n lookups of a process by its id",
	.workers_default = 1,
	.n_default = 10000000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = lookup_run,
};
