/*
 * bench_memory.c: memory: what a parked fiber costs: the growth of resident memory divided by n,
 * once as VmRSS says and once with the page tables that the stacks' addresses need.
 *
 * No warm-up: memory that an earlier runtime gave back to the allocator would be used again unseen.
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct memory {
	const struct bench_args *args;
	struct bench_counter *counters;
	weft_pid *pids;
	uint64_t rss_bytes;
	uint64_t tables_bytes;
};

/* A line of /proc/self/status, in kB there. */
static uint64_t status_bytes(const char *name)
{
	char line[256];
	unsigned long long value = 0;
	size_t length = strlen(name);
	FILE *file = fopen("/proc/self/status", "re");

	BENCH_CHECK(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, name, length) == 0 && line[length] == ':')
			value = strtoull(line + length + 1, NULL, 10);
	fclose(file);
	return (uint64_t)value << 10;
}

static int park_body(void *arg)
{
	const struct memory *memory = arg;

	bench_counter_raise(memory->counters);
	return weft_park(WEFT_FOREVER);
}

static int memory_main(void *arg)
{
	struct memory *memory = arg;
	uint64_t n = memory->args->n, spawned, i;
	int error = 0;

	/* The array of ids is the bench's own: touched before the first reading. */
	memset(memory->pids, 0xff, n * sizeof(*memory->pids));
	memory->rss_bytes = status_bytes("VmRSS");
	memory->tables_bytes = status_bytes("VmPTE");
	for (spawned = 0; spawned < n && error == 0; spawned++)
		error = weft_spawn(park_body, memory, &memory->pids[spawned]);
	spawned -= error < 0;
	while (bench_counter_sum(memory->counters, memory->args->workers) < spawned)
		weft_yield();
	memory->rss_bytes = status_bytes("VmRSS") - memory->rss_bytes;
	memory->tables_bytes = status_bytes("VmPTE") - memory->tables_bytes;
	for (i = 0; i < spawned; i++)
		weft_wake(memory->pids[i]);
	for (i = 0; i < spawned; i++) {
		int result = 0;

		weft_join(memory->pids[i], &result, WEFT_FOREVER);
		error = error < 0 ? error : result; /* -ENOMEM: it got no stack */
	}
	return error;
}

static int memory_run(const struct bench_args *args, struct bench_result *result)
{
	struct memory memory = {.args = args};
	int error;
	unsigned i;

	memory.pids = malloc(args->n * sizeof(*memory.pids));
	memory.counters = aligned_alloc(WF_FALSE_SHARING, args->workers * sizeof(*memory.counters));
	if (!memory.pids || !memory.counters)
		return -ENOMEM;
	for (i = 0; i < args->workers; i++)
		wf_u64_store_relaxed(&memory.counters[i].count, 0);
	error = bench_runtime_run(args, memory_main, &memory);
	bench_row_set(bench_row_add(result, "resident", "fiber"), BENCH_BYTES_EACH,
		(double)memory.rss_bytes / (double)args->n);
	bench_row_set(bench_row_add(result, "and page tables", "fiber"), BENCH_BYTES_EACH,
		(double)(memory.rss_bytes + memory.tables_bytes) / (double)args->n);
	free(memory.pids);
	free(memory.counters);
	return error;
}

const struct bench_workload bench_memory = {
	.name = "memory",
	.help = "resident memory of n parked fibers, each",
	.workers_default = 1,
	.n_default = 200000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.cold = true,
	.run = memory_run,
};
