/*
 * bench_report.h: inside perf/bench: the figures of several runs, and what is made of them: the
 * table, lines of JSON, and the comparison with saved lines. Workloads do not see this.
 */
#ifndef WF_PERF_BENCH_REPORT_H
#define WF_PERF_BENCH_REPORT_H

#include <stdio.h>

#include "perf/bench.h"

enum {
	BENCH_RUNS_MAX = 101,
	BENCH_SERIES_MAX = 128,
};

/* A workload under one idle mode: everything but `result` is the same in all of its runs. */
struct bench_series {
	const struct bench_workload *workload;
	struct bench_args args;
	unsigned run_count;
	struct bench_result result[BENCH_RUNS_MAX];
};

struct bench_summary {
	double median, min, max;
	double spread; /* median absolute deviation from the median */
};

/* Sorts `values` in place. count > 0. */
struct bench_summary bench_summary_make(double *values, unsigned count);
/* False: the row has no such figure. */
bool bench_summary_get(const struct bench_series *series, unsigned row, enum bench_metric metric,
	struct bench_summary *summary_out);

const char *bench_idle_name(enum bench_idle idle);
const char *bench_metric_name(enum bench_metric metric);
const char *bench_driver_name(const struct bench_series *series);

/* Machine, compiler, tuning, and whether something else keeps the processors busy. */
void bench_report_machine(FILE *out);
void bench_report_table(FILE *out, const struct bench_series *series, unsigned count);
/* One object per line and row: to be read by a line, kept in a file, or appended to one. */
void bench_report_json(FILE *out, const struct bench_series *series, unsigned count);

/*
 * Prints each figure beside the one of the same row in `path`, lines written by bench_report_json.
 * Returns the number of figures that are worse (see bench_compare.c), or a negative errno: -ENOENT
 * and the like, -ENODATA when nothing there is comparable.
 */
int bench_compare(FILE *out, const struct bench_series *series, unsigned count, const char *path);

#endif
