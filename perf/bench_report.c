/*
 * bench_report.c: the figures of perf/bench as a table for people and as lines of JSON for tools.
 *
 * Several runs give a median and its median absolute deviation: on a machine shared with others a
 * mean follows the one run that was disturbed, a median does not.
 */
#include "perf/bench_report.h"

#include <weft.h>

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

static const char *const idle_names[BENCH_IDLE_COUNT] = {
	[BENCH_IDLE_NONE] = "-",
	[BENCH_IDLE_SPIN] = "spin",
	[BENCH_IDLE_PARK] = "park",
	[BENCH_IDLE_ADAPTIVE] = "adaptive",
};

static const char *const metric_names[BENCH_METRIC_COUNT] = {
	[BENCH_NS_PER_OP] = "ns_per_op",
	[BENCH_CPU_NS] = "cpu_ns",
	[BENCH_P50_NS] = "p50_ns",
	[BENCH_P99_NS] = "p99_ns",
	[BENCH_P999_NS] = "p999_ns",
	[BENCH_MAX_NS] = "max_ns",
	[BENCH_INSERT_NS] = "insert_ns",
	[BENCH_CANCEL_NS] = "cancel_ns",
	[BENCH_BYTES_EACH] = "bytes_each",
};

/* What was measured where. */
struct machine {
	char cpu[96];
	char kernel[96];
	int cpus;
	double load; /* runnable threads over the last minute */
};

const char *bench_idle_name(enum bench_idle idle)
{
	return idle_names[idle];
}

const char *bench_metric_name(enum bench_metric metric)
{
	return metric_names[metric];
}

const char *bench_driver_name(const struct bench_series *series)
{
	if (series->workload->workers_default == 0)
		return "-";
	return series->args.driver ? series->args.driver : WF_DRIVER_DEFAULT;
}

static int compare_double(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return a < b ? -1 : a > b;
}

static double median_get(double *values, unsigned count)
{
	qsort(values, count, sizeof(*values), compare_double);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct bench_summary bench_summary_make(double *values, unsigned count)
{
	struct bench_summary summary;
	double distances[BENCH_RUNS_MAX];
	unsigned i;

	summary.median = median_get(values, count);
	summary.min = values[0];
	summary.max = values[count - 1];
	for (i = 0; i < count; i++)
		distances[i] = fabs(values[i] - summary.median);
	summary.spread = median_get(distances, count);
	return summary;
}

bool bench_summary_get(const struct bench_series *series, unsigned row, enum bench_metric metric,
	struct bench_summary *summary_out)
{
	double values[BENCH_RUNS_MAX];
	unsigned i;

	for (i = 0; i < series->run_count; i++) {
		values[i] = series->result[i].row[row].value[metric];
		if (isnan(values[i]))
			return false;
	}
	*summary_out = bench_summary_make(values, series->run_count);
	return true;
}

static void cpu_model_read(struct machine *machine)
{
	char line[256];
	FILE *file = fopen("/proc/cpuinfo", "re");

	strcpy(machine->cpu, "unknown processor");
	while (file && fgets(line, sizeof(line), file)) {
		const char *colon = strchr(line, ':');

		if (colon && (strncmp(line, "model name", 10) == 0 ||
				     strncmp(line, "CPU part", 8) == 0)) {
			snprintf(machine->cpu, sizeof(machine->cpu), "%.*s",
				(int)strcspn(colon + 2, "\n"), colon + 2);
			break;
		}
	}
	if (file)
		fclose(file);
}

static void machine_read(struct machine *machine)
{
	struct utsname kernel;
	cpu_set_t allowed;

	memset(machine, 0, sizeof(*machine));
	cpu_model_read(machine);
	if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
		machine->cpus = CPU_COUNT(&allowed);
	if (uname(&kernel) == 0)
		snprintf(machine->kernel, sizeof(machine->kernel), "%.20s %.40s %.20s",
			kernel.sysname, kernel.release, kernel.machine);
	(void)!getloadavg(&machine->load, 1);
}

void bench_report_machine(FILE *out)
{
	struct machine machine;

	machine_read(&machine);
	fprintf(out, "machine   %s, %d CPUs, %s, load average %.2f%s\n", machine.cpu, machine.cpus,
		machine.kernel, machine.load,
		machine.load > 0.5 ? " (something else runs: trust ratios, not figures)" : "");
	fprintf(out, "compiler  " BENCH_COMPILER " " __VERSION__ ": " BENCH_CFLAGS "\n");
	fprintf(out, "weft      %s, %s\n", weft_version(), weft_build_config());
}

/* Four digits that mean something, whatever the size. */
static void number_print(FILE *out, double value)
{
	fprintf(out, " %11.*f", value < 100 ? 2 : value < 10000 ? 1 : 0, value);
}

static void table_line(FILE *out, const struct bench_series *series, unsigned row,
	enum bench_metric metric, const struct bench_summary *summary)
{
	const struct bench_row *names = &series->result[0].row[row];
	struct bench_summary beside;
	char workers[16] = "-";

	if (series->args.workers)
		snprintf(workers, sizeof(workers), "%u", series->args.workers);
	fprintf(out, "%-16s %-20s %-6s %-8s %-7s %7s %10llu %-10s", series->workload->name,
		names->variant, names->process, idle_names[series->args.idle],
		bench_driver_name(series), workers, (unsigned long long)series->args.n,
		metric_names[metric]);
	number_print(out, summary->median);
	number_print(out, summary->min);
	number_print(out, summary->max);
	number_print(out, summary->spread);
	if (row > 0 && !names->apart &&
		bench_summary_get(series, names->beside, metric, &beside) && beside.median > 0)
		fprintf(out, " %7.2fx", summary->median / beside.median);
	fputc('\n', out);
}

void bench_report_table(FILE *out, const struct bench_series *series, unsigned count)
{
	struct bench_summary summary;
	unsigned i, row, metric;

	fprintf(out, "%-16s %-20s %-6s %-8s %-7s %7s %10s %-10s %11s %11s %11s %11s %8s\n",
		"workload", "variant", "kind", "idle", "driver", "workers", "n", "figure", "median",
		"min", "max", "spread", "ratio");
	for (i = 0; i < count; i++)
		for (row = 0; row < series[i].result[0].row_count; row++)
			for (metric = 0; metric < BENCH_METRIC_COUNT; metric++)
				if (bench_summary_get(&series[i], row, metric, &summary))
					table_line(out, &series[i], row, metric, &summary);
}

static void json_string(FILE *out, const char *key, const char *value)
{
	fprintf(out, "\"%s\":\"", key);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', out);
		if ((unsigned char)*value >= ' ')
			fputc(*value, out);
	}
	fputc('"', out);
}

static void json_row(
	FILE *out, const struct bench_series *series, unsigned row, const struct machine *machine)
{
	const struct bench_row *names = &series->result[0].row[row];
	struct bench_summary summary;
	unsigned metric;

	fputc('{', out);
	json_string(out, "workload", series->workload->name);
	fputc(',', out);
	json_string(out, "variant", names->variant);
	fputc(',', out);
	json_string(out, "process", names->process);
	fputc(',', out);
	json_string(out, "idle", idle_names[series->args.idle]);
	fputc(',', out);
	json_string(out, "driver", bench_driver_name(series));
	fprintf(out, ",\"workers\":%u,\"n\":%llu,\"runs\":%u", series->args.workers,
		(unsigned long long)series->args.n, series->run_count);
	for (metric = 0; metric < BENCH_METRIC_COUNT; metric++) {
		const char *name = metric_names[metric];

		if (!bench_summary_get(series, row, metric, &summary))
			continue;
		fprintf(out, ",\"%s\":%.9g,\"%s_min\":%.9g,\"%s_max\":%.9g,\"%s_spread\":%.9g",
			name, summary.median, name, summary.min, name, summary.max, name,
			summary.spread);
	}
	fputc(',', out);
	json_string(out, "machine", machine->cpu);
	fprintf(out, ",\"cpus\":%d,", machine->cpus);
	json_string(out, "kernel", machine->kernel);
	fputc(',', out);
	json_string(out, "compiler", BENCH_COMPILER " " __VERSION__ ": " BENCH_CFLAGS);
	fputc(',', out);
	json_string(out, "config", weft_build_config());
	fputs("}\n", out);
}

void bench_report_json(FILE *out, const struct bench_series *series, unsigned count)
{
	struct machine machine;
	unsigned i, row;

	machine_read(&machine);
	for (i = 0; i < count; i++)
		for (row = 0; row < series[i].result[0].row_count; row++)
			json_row(out, &series[i], row, &machine);
}
