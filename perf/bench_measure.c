/*
 * bench_measure.c: what workloads measure with: clocks, rows, percentiles, pinning. Declared in
 * bench.h, which says who may call what.
 */
#include "perf/bench.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bench_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t bench_cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

struct bench_row *bench_row_add(
	struct bench_result *result, const char *variant, const char *process)
{
	struct bench_row *row = &result->row[result->row_count];
	unsigned i;

	BENCH_CHECK(result->row_count < BENCH_ROWS_MAX);
	BENCH_CHECK(strlen(variant) < BENCH_TEXT_MAX && strlen(process) < BENCH_TEXT_MAX);
	strcpy(row->variant, variant);
	strcpy(row->process, process);
	for (i = 0; i < BENCH_METRIC_COUNT; i++)
		row->value[i] = NAN;
	result->row_count++;
	return row;
}

void bench_row_set(struct bench_row *row, enum bench_metric metric, double value)
{
	BENCH_CHECK(isfinite(value));
	row->value[metric] = value;
}

static int compare_u64(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

/* Nearest rank: the smallest sample that `per_mille` of them do not exceed. */
static double rank_get(const uint64_t *sorted_ns, size_t count, unsigned per_mille)
{
	size_t rank = (count * per_mille + 999) / 1000;

	return (double)sorted_ns[rank ? rank - 1 : 0];
}

void bench_row_percentiles(struct bench_row *row, uint64_t *samples_ns, size_t count)
{
	if (count == 0)
		return;
	qsort(samples_ns, count, sizeof(*samples_ns), compare_u64);
	bench_row_set(row, BENCH_P50_NS, rank_get(samples_ns, count, 500));
	bench_row_set(row, BENCH_P99_NS, rank_get(samples_ns, count, 990));
	bench_row_set(row, BENCH_P999_NS, rank_get(samples_ns, count, 999));
	bench_row_set(row, BENCH_MAX_NS, (double)samples_ns[count - 1]);
}

uint64_t bench_random(uint64_t *state)
{
	if (*state == 0)
		*state = 0x9e3779b97f4a7c15ull;
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/* The mask before the first pinning: threads inherit that of their creator, pinned or not. */
static cpu_set_t allowed;
static int allowed_error;

static void allowed_read(void)
{
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		allowed_error = -errno;
}

int bench_pin(unsigned index)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	unsigned cpu, seen = 0;
	cpu_set_t one;

	pthread_once(&once, allowed_read);
	if (allowed_error)
		return allowed_error;
	index %= (unsigned)CPU_COUNT(&allowed);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && seen++ == index)
			break;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return sched_setaffinity(0, sizeof(one), &one) < 0 ? -errno : 0;
}

_Noreturn void bench_check_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "bench: %s:%d: check failed: %s\n", file, line, condition);
	abort();
}
