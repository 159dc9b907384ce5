/*
 * bench_compare.c: today's figures beside saved ones.
 *
 * A figure is worse when its median grew by more than 5 % and by more than three times the spread
 * of both sides together (the root of the sum of their squares; for normal noise that is two
 * standard deviations of a run). Better by the same measure is said too. Figures that hang on
 * single events (p99.9, maximum) are shown and never judged.
 *
 * A row is found again by workload, variant, process kind, idle mode, driver, workers and n. Lines
 * from another machine, compiler or tuning are compared too, with a warning: the figures then
 * differ for that reason.
 */
#include "perf/bench_report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	LINE_MAX = 16384,
	NAME_MAX = 32,
};

static const double worse_share = 0.05;
static const double worse_spreads = 3.0;

/* Past the string that starts at `at` (its opening quote); NULL if it does not end. */
static const char *string_skip(const char *at)
{
	for (at++; *at && *at != '"'; at++)
		if (*at == '\\' && at[1])
			at++;
	return *at ? at + 1 : NULL;
}

/*
 * The value of a key of a flat object: points at its first character. The object is walked key by
 * key, since a key's text may also occur in a string.
 */
static const char *json_find(const char *line, const char *key)
{
	const char *at = strchr(line, '{');
	size_t length = strlen(key);

	while (at && *at != '}' && (at = strchr(at, '"'))) {
		const char *name = at + 1;

		at = string_skip(at);
		if (!at || *at != ':')
			return NULL;
		at++;
		if (strncmp(name, key, length) == 0 && name[length] == '"')
			return at;
		if (*at == '"')
			at = string_skip(at);
		else
			at += strcspn(at, ",}");
	}
	return NULL;
}

static bool json_string_is(const char *line, const char *key, const char *value)
{
	const char *at = json_find(line, key);
	size_t length = strlen(value);

	return at && at[0] == '"' && strncmp(at + 1, value, length) == 0 && at[length + 1] == '"';
}

static bool json_number(const char *line, const char *key, double *value_out)
{
	const char *at = json_find(line, key);
	char *end;

	if (!at)
		return false;
	*value_out = strtod(at, &end);
	return end != at;
}

static bool line_matches(const char *line, const struct bench_series *series, unsigned row)
{
	const struct bench_row *names = &series->result[0].row[row];
	double workers, n;

	return json_string_is(line, "workload", series->workload->name) &&
	       json_string_is(line, "variant", names->variant) &&
	       json_string_is(line, "process", names->process) &&
	       json_string_is(line, "idle", bench_idle_name(series->args.idle)) &&
	       json_string_is(line, "driver", bench_driver_name(series)) &&
	       json_number(line, "workers", &workers) && workers == series->args.workers &&
	       json_number(line, "n", &n) && n == (double)series->args.n;
}

static const char *verdict_get(
	const struct bench_summary *now, double median, double spread, enum bench_metric metric)
{
	double change = now->median - median;
	double noise = worse_spreads * hypot(now->spread, spread);

	if (metric == BENCH_P999_NS || metric == BENCH_MAX_NS)
		return "";
	if (fabs(change) <= noise || fabs(change) <= worse_share * median)
		return "same";
	return change > 0 ? "WORSE" : "better";
}

/* Returns the number of figures of this row that are worse. */
static int row_compare(FILE *out, const struct bench_series *series, unsigned row, const char *line)
{
	unsigned metric;
	int worse = 0;

	for (metric = 0; metric < BENCH_METRIC_COUNT; metric++) {
		const char *name = bench_metric_name(metric), *verdict;
		struct bench_summary now;
		double median, spread;
		char spread_name[NAME_MAX];

		snprintf(spread_name, sizeof(spread_name), "%s_spread", name);
		if (!bench_summary_get(series, row, metric, &now) ||
			!json_number(line, name, &median) ||
			!json_number(line, spread_name, &spread))
			continue;
		verdict = verdict_get(&now, median, spread, metric);
		worse += verdict[0] == 'W';
		fprintf(out, "%-16s %-15s %-8s %-10s %12.2f %12.2f %+8.1f %%  %s\n",
			series->workload->name, series->result[0].row[row].variant,
			bench_idle_name(series->args.idle), name, median, now.median,
			median > 0 ? (now.median / median - 1) * 100 : 0, verdict);
	}
	return worse;
}

/* The last matching line counts: files are appended to. */
static bool line_find(FILE *file, const struct bench_series *series, unsigned row, char *line_out)
{
	static char line[LINE_MAX];
	bool found = false;

	rewind(file);
	while (fgets(line, sizeof(line), file))
		if (line_matches(line, series, row)) {
			strcpy(line_out, line);
			found = true;
		}
	return found;
}

/* Says once what differs beside the code. `own` is a line of today's. */
static void origin_check(FILE *out, const char *own, const char *saved)
{
	static const char *const keys[] = {"machine", "kernel", "compiler", "config"};
	static bool said[sizeof(keys) / sizeof(keys[0])];
	unsigned i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *a = json_find(own, keys[i]), *b = json_find(saved, keys[i]);
		const char *end = a ? string_skip(a) : NULL;

		if (said[i] || (end && b && strncmp(a, b, (size_t)(end - a)) == 0))
			continue;
		said[i] = true;
		fprintf(out, "warning: the saved figures have another %s\n", keys[i]);
	}
}

int bench_compare(FILE *out, const struct bench_series *series, unsigned count, const char *path)
{
	static char saved[LINE_MAX], own[LINE_MAX];
	FILE *file = fopen(path, "re"), *own_file;
	unsigned i, row, rows = 0;
	int worse = 0;

	if (!file)
		return -errno;
	own_file = fmemopen(own, sizeof(own), "w");
	if (own_file) {
		bench_report_json(own_file, series, 1);
		fclose(own_file);
	}
	fprintf(out, "\n%-16s %-15s %-8s %-10s %12s %12s\n", "workload", "variant", "idle",
		"figure", "saved", "now");
	for (i = 0; i < count; i++)
		for (row = 0; row < series[i].result[0].row_count; row++) {
			if (!line_find(file, &series[i], row, saved)) {
				fprintf(out, "%-16s %-15s %-8s not in %s\n",
					series[i].workload->name,
					series[i].result[0].row[row].variant,
					bench_idle_name(series[i].args.idle), path);
				continue;
			}
			rows++;
			origin_check(out, own, saved);
			worse += row_compare(out, &series[i], row, saved);
		}
	fclose(file);
	if (worse)
		fprintf(out,
			"%d figures are more than 5 %% worse, beyond the noise of both sides\n",
			worse);
	return rows ? worse : -ENODATA;
}
