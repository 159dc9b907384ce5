/*
 * load_report.c: what perf/load prints at the end, for people (a table) or for tools (one line of
 * JSON with the same figures; times in ns).
 */
#include "perf/load.h"

#include <stdio.h>

static const char *const error_names[LOAD_ERROR_COUNT] = {
	[LOAD_ERROR_CONNECT] = "connect",
	[LOAD_ERROR_RESET] = "reset",
	[LOAD_ERROR_CLOSED] = "closed",
	[LOAD_ERROR_TIMEOUT] = "timeout",
	[LOAD_ERROR_CORRUPT] = "corrupt",
	[LOAD_ERROR_EXTRA] = "extra",
	[LOAD_ERROR_IDLE] = "idle",
	[LOAD_ERROR_UNSENT] = "unsent",
};

static const struct {
	double percent;
	const char *key;
	const char *title;
} percentiles[] = {
	{50, "p50_ns", "p50"},
	{90, "p90_ns", "p90"},
	{99, "p99_ns", "p99"},
	{99.9, "p999_ns", "p99.9"},
	{99.99, "p9999_ns", "p99.99"},
	{100, "max_ns", "max"},
};

enum { PERCENTILES_COUNT = sizeof(percentiles) / sizeof(percentiles[0]) };

uint64_t load_errors_total(const struct load_result *result)
{
	uint64_t total = 0;
	unsigned i;

	for (i = 0; i < LOAD_ERROR_COUNT; i++)
		total += result->errors[i];
	return total;
}

static double replies_a_second(const struct load_result *result)
{
	return result->elapsed_ns ? (double)result->replies * 1e9 / (double)result->elapsed_ns : 0;
}

static double cpu_share(const struct load_result *result)
{
	return result->elapsed_ns ? (double)result->cpu_ns / (double)result->elapsed_ns : 0;
}

static void json_histogram(const char *prefix, const struct histogram *histogram)
{
	unsigned i;

	for (i = 0; i < PERCENTILES_COUNT; i++)
		printf(",\"%s%s\":%llu", prefix, percentiles[i].key,
			(unsigned long long)histogram_percentile(
				histogram, percentiles[i].percent));
	printf(",\"%smean_ns\":%.0f", prefix, histogram_mean(histogram));
}

/* The address comes from our own parser's input: no quote, backslash or control byte resolves. */
static void report_json(const struct load_options *options, const struct load_result *result)
{
	unsigned i;

	printf("{\"address\":\"%s\",\"loop\":\"%s\",\"connections\":%u,\"idle\":%u,\"size\":%zu,"
	       "\"depth\":%u,\"rate\":%g,\"churn\":%s,\"spin\":%s,\"seed\":%llu",
		options->address_text, options->rate > 0 ? "open" : "closed", options->connections,
		options->idle, options->size, options->depth, options->rate,
		options->churn ? "true" : "false", options->spin ? "true" : "false",
		(unsigned long long)options->seed);
	printf(",\"requests\":%llu,\"replies\":%llu,\"warm_up_replies\":%llu,\"connects\":%llu,"
	       "\"errors\":%llu,\"errors_by_kind\":{",
		(unsigned long long)result->requests, (unsigned long long)result->replies,
		(unsigned long long)result->warm_up_replies, (unsigned long long)result->connects,
		(unsigned long long)load_errors_total(result));
	for (i = 0; i < LOAD_ERROR_COUNT; i++)
		printf("%s\"%s\":%llu", i ? "," : "", error_names[i],
			(unsigned long long)result->errors[i]);
	printf("},\"elapsed_s\":%.6f,\"replies_per_s\":%.1f,\"client_cpu\":%.3f",
		(double)result->elapsed_ns / 1e9, replies_a_second(result), cpu_share(result));
	json_histogram("", &result->latency);
	json_histogram("service_", &result->service);
	json_histogram("lag_", &result->lag);
	printf("}\n");
}

static void table_histogram(const char *title, const struct histogram *histogram)
{
	unsigned i;

	printf("  %-22s", title);
	for (i = 0; i < PERCENTILES_COUNT; i++)
		printf(" %9.1f",
			(double)histogram_percentile(histogram, percentiles[i].percent) / 1e3);
	printf("\n");
}

static void report_errors(const struct load_result *result)
{
	unsigned i;

	printf("  errors %llu", (unsigned long long)load_errors_total(result));
	for (i = 0; i < LOAD_ERROR_COUNT; i++)
		if (result->errors[i])
			printf("  %s %llu", error_names[i], (unsigned long long)result->errors[i]);
	printf("\n");
}

static void report_table(const struct load_options *options, const struct load_result *result)
{
	double rate = replies_a_second(result);
	unsigned i;

	printf("%s: %u connections%s, %zu bytes, depth %u, ", options->address_text,
		options->connections, options->churn ? " at a time, each for one request" : "",
		options->size, options->depth);
	if (options->rate > 0)
		printf("open loop at %g/s", options->rate);
	else
		printf("closed loop");
	printf("%s, %u idle, seed %llu\n", options->spin ? ", spinning" : "", options->idle,
		(unsigned long long)options->seed);
	printf("  requests %llu  replies %llu  in %.3f s: %.0f/s, %.2f MB/s each way, client CPU "
	       "%.2f\n",
		(unsigned long long)result->requests, (unsigned long long)result->replies,
		(double)result->elapsed_ns / 1e9, rate, rate * (double)options->size / 1e6,
		cpu_share(result));
	report_errors(result);
	printf("  %-22s", "us");
	for (i = 0; i < PERCENTILES_COUNT; i++)
		printf(" %9s", percentiles[i].title);
	printf("\n");
	if (options->rate > 0) {
		table_histogram("latency (since due)", &result->latency);
		table_histogram("service (since sent)", &result->service);
		table_histogram("lag (due to sent)", &result->lag);
	} else {
		table_histogram("latency", &result->latency);
	}
}

void load_report(const struct load_options *options, const struct load_result *result)
{
	if (options->json)
		report_json(options, result);
	else
		report_table(options, result);
	fflush(stdout);
}
