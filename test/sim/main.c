/*
 * main.c: the program around the tests of a simulation: options, output, the closing line that
 * test/tools/run_tests.py adds up. README.md has the options.
 */
#include "test/sim/sim.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static struct sim_test *tests, **tests_end = &tests;

static struct {
	const char *filter;
	uint64_t first, count; /* of --seeds or $SEEDS; count 0: each test's own */
	uint64_t replay;
	bool replays, verbose, json, scenarios;
	const struct sim_test *test; /* the one running */
	bool failed;                 /* it */
} run = {.first = 1};

void sim_register(struct sim_test *test)
{
	*tests_end = test;
	tests_end = &test->next;
}

void sim_test_failed(const char *format, ...)
{
	va_list args;

	run.failed = true;
	va_start(args, format);
	printf("  failed: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
}

/* --- lines for test/tools: one JSON object each --- */

static void print_json_string(const char *text)
{
	putchar('"');
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	putchar('"');
}

static void print_json_start(const struct sim_scenario *scenario)
{
	printf("{\"test\": \"%s/%s\", \"scenario\": ", run.test->suite, run.test->name);
	print_json_string(scenario->name);
}

static void print_json_passed(
	const struct sim_scenario *scenario, const struct sim_statistics *statistics)
{
	print_json_start(scenario);
	printf(", \"first\": %" PRIu64 ", \"schedules\": %" PRIu64 ", \"strategies\": [%" PRIu64
	       ", %" PRIu64 ", %" PRIu64 "], \"operations\": %" PRIu64
	       ", \"seconds\": %.6f, \"hash\": \"%016" PRIx64 "\"}\n",
		run.first, statistics->schedules, statistics->by_strategy[0],
		statistics->by_strategy[1], statistics->by_strategy[2], statistics->steps,
		statistics->seconds, statistics->hash);
}

static void print_json_found(const struct sim_scenario *scenario, const struct sim_failure *failure)
{
	print_json_start(scenario);
	printf(", \"found\": %" PRIu64 "}\n", failure->seed);
}

/* --- what tests call --- */

static void replay(const struct sim_scenario *scenario)
{
	struct sim_failure failure;

	if (sim_run(scenario, run.replay, &failure)) {
		printf("  %s: seed %" PRIu64 " (%s) passes, hash %016" PRIx64 "\n", scenario->name,
			run.replay, sim_strategy_text(run.replay), failure.hash);
		return;
	}
	printf("  %s fails:\n", scenario->name);
	if (sim_report(scenario, &failure, true) < 0)
		sim_test_failed("seed %" PRIu64 " does not fail twice alike", run.replay);
}

bool sim_lists(void)
{
	return run.scenarios;
}

bool sim_passes(
	const struct sim_scenario *scenario, uint64_t count, struct sim_statistics *statistics_out)
{
	struct sim_failure failure;

	if (run.replays) {
		replay(scenario);
		memset(statistics_out, 0, sizeof(*statistics_out));
		return !run.failed;
	}
	if (run.count > 0)
		count = run.count;
	if (sim_explore(scenario, run.first, count, statistics_out, &failure))
		return true;
	sim_test_failed("%s, seed %" PRIu64, scenario->name, failure.seed);
	if (sim_report(scenario, &failure, true) < 0)
		printf("  and it did not fail again: something is not deterministic\n");
	return false;
}

void sim_must_pass(const struct sim_scenario *scenario, uint64_t count)
{
	struct sim_statistics statistics;

	if (run.scenarios) {
		print_json_start(scenario);
		printf(", \"schedules\": %" PRIu64 "}\n", count);
		return;
	}
	if (!sim_passes(scenario, count, &statistics) || statistics.schedules == 0)
		return;
	if (run.json) {
		print_json_passed(scenario, &statistics);
		return;
	}
	printf("  %-34s %9" PRIu64
	       " schedules, %4.0f operations each, %7.0f a second, hash %016" PRIx64 "\n",
		scenario->name, statistics.schedules,
		(double)statistics.steps / (double)statistics.schedules,
		(double)statistics.schedules / statistics.seconds, statistics.hash);
}

void sim_must_find(const struct sim_scenario *scenario, enum wf_planted planted, uint64_t count)
{
	sim_must_find_saying(scenario, planted, count, "");
}

void sim_must_find_saying(const struct sim_scenario *scenario, enum wf_planted planted,
	uint64_t count, const char *part)
{
	struct sim_statistics statistics;
	struct sim_failure failure;
	int left;

	if (run.scenarios)
		return;
	wf_planted = planted;
	if (run.replays) {
		replay(scenario);
	} else if (sim_explore(scenario, run.first, count, &statistics, &failure)) {
		sim_test_failed("%s: not found in %" PRIu64 " schedules", scenario->name, count);
	} else {
		left = sim_report(scenario, &failure, run.verbose);
		sim_expect(left >= 0, "seed %" PRIu64 " does not fail twice alike", failure.seed);
		if (run.json)
			print_json_found(scenario, &failure);
		sim_expect(strstr(failure.message, part) != NULL, "found, but not by \"%s\"", part);
		printf("  %-34s found by schedule %" PRIu64 " (%s), %d preemptions: %s\n",
			scenario->name, statistics.schedules, sim_strategy_text(failure.seed), left,
			failure.message);
	}
	wf_planted = WF_PLANTED_nothing;
}

/* --- the command line --- */

static bool parse_number(const char *text, uint64_t *number_out, char end)
{
	char *rest;

	*number_out = strtoull(text, &rest, 0);
	return rest != text && *rest == end;
}

/* "a..b": both included. */
static bool parse_seeds(const char *text)
{
	const char *dots = strstr(text, "..");
	uint64_t last;

	if (dots == NULL || !parse_number(text, &run.first, '.') ||
		!parse_number(dots + 2, &last, '\0') || last < run.first)
		return false;
	run.count = last - run.first + 1;
	return true;
}

static const char *value_of(const char *option, int argc, char **argv, int *i)
{
	size_t length = strlen(option);

	if (strncmp(argv[*i], option, length) != 0)
		return NULL;
	if (argv[*i][length] == '=')
		return argv[*i] + length + 1;
	if (argv[*i][length] != '\0' || *i + 1 >= argc)
		return NULL;
	return argv[++*i];
}

static bool parse(int argc, char **argv, bool *list_out)
{
	const char *seeds = getenv("SEEDS"), *value;

	if (seeds != NULL && !parse_seeds(seeds))
		return false;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--verbose") == 0) {
			run.verbose = true;
		} else if (strcmp(argv[i], "--list") == 0) {
			*list_out = true;
		} else if (strcmp(argv[i], "--json") == 0) {
			run.json = true;
		} else if (strcmp(argv[i], "--scenarios") == 0) {
			run.scenarios = true;
		} else if ((value = value_of("--filter", argc, argv, &i)) != NULL) {
			run.filter = value;
		} else if ((value = value_of("--seeds", argc, argv, &i)) != NULL) {
			if (!parse_seeds(value))
				return false;
		} else if ((value = value_of("--replay", argc, argv, &i)) != NULL) {
			if (!parse_number(value, &run.replay, '\0'))
				return false;
			run.replays = true;
		} else if (strncmp(argv[i], "-j", 2) != 0) {
			return false;
		}
	}
	return true;
}

static bool is_selected(const struct sim_test *test)
{
	char name[256];

	snprintf(name, sizeof(name), "%s/%s", test->suite, test->name);
	return run.filter == NULL || fnmatch(run.filter, name, 0) == 0;
}

int main(int argc, char **argv)
{
	unsigned tested = 0, failed = 0;
	bool list = false;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!parse(argc, argv, &list)) {
		fprintf(stderr,
			"usage: %s [--filter SUITE/NAME] [--seeds A..B | --replay SEED] "
			"[--verbose] [--json] [--list | --scenarios]\n",
			argv[0]);
		return 2;
	}
	for (const struct sim_test *test = tests; test != NULL; test = test->next) {
		if (!is_selected(test))
			continue;
		if (list) {
			printf("%s/%s\n", test->suite, test->name);
			continue;
		}
		run.test = test;
		run.failed = false;
		printf("%s/%s\n", test->suite, test->name);
		test->body();
		tested++;
		failed += run.failed;
		if (run.failed)
			printf("[FAIL] %s::%s\n", test->suite, test->name);
	}
	if (!list)
		printf("[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: 0 \n",
			tested, tested - failed, failed);
	return failed > 0;
}
