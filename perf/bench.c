/*
 * bench.c: perf/bench: the table of workloads, the command line, and the runs. bench.h says what a
 * workload is, perf/README.md how to read the figures.
 *
 * The parent starts no thread and no runtime; every run happens in a child that it forks, bounds in
 * time, and reads one struct bench_result from. The runs of all series are taken in turn, so that a
 * disturbance of the machine falls on all of them and not on one.
 */
#include "perf/bench_report.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The workloads: one line each here, one file bench_<op>.c each, both sorted -------------- */

#define WORKLOADS(X)        \
	X(blocking)         \
	X(deque)            \
	X(deque_steal)      \
	X(injector)         \
	X(injector_1p1c)    \
	X(injector_2p2c)    \
	X(injector_backlog) \
	X(join)             \
	X(lookup)           \
	X(memory)           \
	X(park_deadline)    \
	X(pingpong)         \
	X(pingpong_cross)   \
	X(rearm)            \
	X(reclaim)          \
	X(scope_tree)       \
	X(sleep_late)       \
	X(spawn)            \
	X(spawn_foreign)    \
	X(spawn_tree)       \
	X(stream_bulk)      \
	X(stream_pingpong)  \
	X(switch)           \
	X(task_memory)      \
	X(task_spawn)       \
	X(task_yield)       \
	X(timers)           \
	X(timers_poll)      \
	X(timers_shared)    \
	X(wake_parked)      \
	X(yield)

#define WORKLOAD_DECLARE(name) extern const struct bench_workload bench_##name;
#define WORKLOAD_LIST(name)    &bench_##name,

WORKLOADS(WORKLOAD_DECLARE)

static const struct bench_workload *const workloads[] = {WORKLOADS(WORKLOAD_LIST)};

enum { WORKLOADS_COUNT = sizeof(workloads) / sizeof(workloads[0]) };

/* ---- Options --------------------------------------------------------------------------------- */

static const char help[] =
	"usage: bench [options] WORKLOAD...|all\n"
	"       bench --list | --machine\n"
	"\n"
	"  --workers N       of the runtime (each workload has a default)\n"
	"  --n N             how many; see --list for what it counts\n"
	"  --runs R          of each workload, in turn (5)\n"
	"  --idle MODE,...   spin, park, adaptive: how idle workers wait (each workload's own "
	"choice)\n"
	"  --driver NAME     I/O driver (the build's default)\n"
	"  --rival NAME      measure it beside, in the workloads that name it; see --list\n"
	"  --timeout S       of one run (120)\n"
	"  --seed N          for random choices (1)\n"
	"  --json            lines of JSON, one per row, in place of the table\n"
	"  --save FILE       write those lines to FILE as well\n"
	"  --compare FILE    print saved figures beside; exit status 1 if one is more than 5 % "
	"worse,\n"
	"                    beyond the noise of both sides\n"
	"  --in-process      one run in this process, for profilers and debuggers\n"
	"  --list            the workloads, and what n counts in each\n"
	"  --machine         what this is measured on and with\n"
	"  --help\n"
	"\n"
	"Exit status: 0; 1 if a run failed, a file could not be written, or a figure is worse;\n"
	"2 for a wrong command line.\n";

struct options {
	const struct bench_workload *chosen[WORKLOADS_COUNT];
	unsigned chosen_count;
	unsigned workers;
	uint64_t n;
	unsigned runs;
	unsigned idle_modes; /* 0: the workload's own */
	unsigned timeout_s;
	uint64_t seed;
	const char *driver;
	const char *rival;
	const char *save;
	const char *compare;
	bool json;
	bool in_process;
};

static _Noreturn void usage_fail(const char *what, const char *text)
{
	fprintf(stderr, "bench: %s \"%s\"; see bench --help and bench --list\n", what, text);
	exit(2);
}

static uint64_t number_parse(const char *name, const char *text, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value < min || value > max) {
		fprintf(stderr, "bench: --%s takes a number from %llu to %llu, not \"%s\"\n", name,
			(unsigned long long)min, (unsigned long long)max, text);
		exit(2);
	}
	return value;
}

static unsigned idle_parse(char *text)
{
	unsigned modes = 0, idle;
	char *word, *rest = NULL;

	for (word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
		for (idle = BENCH_IDLE_SPIN; idle < BENCH_IDLE_COUNT; idle++)
			if (strcmp(word, bench_idle_name(idle)) == 0)
				break;
		if (idle == BENCH_IDLE_COUNT)
			usage_fail("no idle mode", word);
		modes |= BENCH_IDLE_BIT(idle);
	}
	return modes;
}

static void workloads_list(void)
{
	unsigned i;

	for (i = 0; i < WORKLOADS_COUNT; i++)
		printf("%-16s %s; n %llu%s%s\n", workloads[i]->name, workloads[i]->help,
			(unsigned long long)workloads[i]->n_default,
			workloads[i]->rival ? "; rival " : "",
			workloads[i]->rival ? workloads[i]->rival : "");
}

static void workload_choose(struct options *options, const char *name)
{
	unsigned i, j;

	for (i = 0; i < WORKLOADS_COUNT; i++) {
		if (strcmp(name, "all") != 0 && strcmp(name, workloads[i]->name) != 0)
			continue;
		for (j = 0; j < options->chosen_count && options->chosen[j] != workloads[i]; j++)
			;
		if (j == options->chosen_count)
			options->chosen[options->chosen_count++] = workloads[i];
		if (strcmp(name, "all") != 0)
			return;
	}
	if (strcmp(name, "all") != 0)
		usage_fail("no workload", name);
}

static bool is_beside(const struct options *options, const struct bench_workload *workload)
{
	return options->rival && workload->rival && strcmp(options->rival, workload->rival) == 0;
}

static void rival_check(const struct options *options)
{
	unsigned i;

	for (i = 0; i < options->chosen_count; i++)
		if (is_beside(options, options->chosen[i]))
			return;
	usage_fail("none of these workloads has the rival", options->rival);
}

static bool option_apply(struct options *options, int key, const char *name)
{
	switch (key) {
	case 'w':
		options->workers = (unsigned)number_parse(name, optarg, 1, 1024);
		return true;
	case 'n':
		options->n = number_parse(name, optarg, 1, UINT64_MAX);
		return true;
	case 'r':
		options->runs = (unsigned)number_parse(name, optarg, 1, BENCH_RUNS_MAX);
		return true;
	case 'i':
		options->idle_modes = idle_parse(optarg);
		return true;
	case 'd':
		options->driver = optarg;
		return true;
	case 'R':
		options->rival = optarg;
		return true;
	case 't':
		options->timeout_s = (unsigned)number_parse(name, optarg, 1, 86400);
		return true;
	case 's':
		options->seed = number_parse(name, optarg, 0, UINT64_MAX);
		return true;
	case 'S':
		options->save = optarg;
		return true;
	case 'C':
		options->compare = optarg;
		return true;
	case 'j':
		options->json = true;
		return true;
	case 'I':
		options->in_process = true;
		return true;
	default:
		return false;
	}
}

static void options_parse(struct options *options, int argc, char **argv)
{
	static const struct option keys[] = {
		{"workers", required_argument, NULL, 'w'},
		{"n", required_argument, NULL, 'n'},
		{"runs", required_argument, NULL, 'r'},
		{"idle", required_argument, NULL, 'i'},
		{"driver", required_argument, NULL, 'd'},
		{"rival", required_argument, NULL, 'R'},
		{"timeout", required_argument, NULL, 't'},
		{"seed", required_argument, NULL, 's'},
		{"save", required_argument, NULL, 'S'},
		{"compare", required_argument, NULL, 'C'},
		{"json", no_argument, NULL, 'j'},
		{"in-process", no_argument, NULL, 'I'},
		{"list", no_argument, NULL, 'l'},
		{"machine", no_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	static char name[] = "bench";
	int key, index = 0;

	*options = (struct options){.runs = 5, .timeout_s = 120, .seed = 1};
	argv[0] = name; /* getopt opens its lines with it */
	while ((key = getopt_long(argc, argv, "", keys, &index)) != -1) {
		if (key == 'h') {
			fputs(help, stdout);
			exit(0);
		} else if (key == 'l') {
			workloads_list();
			exit(0);
		} else if (key == 'm') {
			bench_report_machine(stdout);
			exit(0);
		} else if (!option_apply(options, key, keys[index].name)) {
			exit(2);
		}
	}
	for (; optind < argc; optind++)
		workload_choose(options, argv[optind]);
	if (options->chosen_count == 0) {
		fputs("bench: give a workload, or all; see bench --help and bench --list\n",
			stderr);
		exit(2);
	}
	if (options->rival)
		rival_check(options);
	if (options->in_process)
		options->runs = 1;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

/* The warm-up and the measured call. Returns 0 or a negative errno. */
static int run_here(const struct bench_series *series, struct bench_result *result_out)
{
	const struct bench_workload *workload = series->workload;
	struct bench_args args = series->args;
	int error;

	if (!workload->cold) {
		args.warm_up = true;
		args.n = args.n / 10 ? args.n / 10 : 1;
		memset(result_out, 0, sizeof(*result_out));
		error = workload->run(&args, result_out);
		if (error < 0)
			return error;
	}
	memset(result_out, 0, sizeof(*result_out));
	return workload->run(&series->args, result_out);
}

struct message {
	int error;
	struct bench_result result;
};

static _Noreturn void child_run(const struct bench_series *series, int pipe)
{
	static struct message message;
	size_t done = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	message.error = run_here(series, &message.result);
	while (done < sizeof(message)) {
		ssize_t n = write(pipe, (const char *)&message + done, sizeof(message) - done);

		if (n < 0 && errno != EINTR)
			_exit(1);
		done += n > 0 ? (size_t)n : 0;
	}
	_exit(0);
}

/* Reads the child's one message. False: it ended without, or `timeout_s` is over. */
static bool child_read(int pipe, unsigned timeout_s, struct message *message_out, bool *late_out)
{
	uint64_t end_ns = bench_now_ns() + timeout_s * 1000000000ull;
	size_t done = 0;

	*late_out = false;
	while (done < sizeof(*message_out)) {
		uint64_t now_ns = bench_now_ns();
		struct pollfd ready = {.fd = pipe, .events = POLLIN};
		ssize_t n;

		if (now_ns >= end_ns) {
			*late_out = true;
			return false;
		}
		if (poll(&ready, 1, (int)((end_ns - now_ns) / 1000000) + 1) <= 0)
			continue;
		n = read(pipe, (char *)message_out + done, sizeof(*message_out) - done);
		if (n == 0)
			return false;
		done += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void failure_print(const struct bench_series *series, const char *what)
{
	fprintf(stderr, "bench: %s (idle %s) %s\n", series->workload->name,
		bench_idle_name(series->args.idle), what);
}

/* Returns whether the run gave a result. */
static bool run_in_child(
	const struct bench_series *series, unsigned timeout_s, struct bench_result *result_out)
{
	static struct message message;
	int pipes[2], status = 0;
	bool complete, late;
	pid_t child;

	fflush(NULL);
	if (pipe(pipes) < 0 || (child = fork()) < 0) {
		failure_print(series, strerror(errno));
		return false;
	}
	if (child == 0) {
		close(pipes[0]);
		child_run(series, pipes[1]);
	}
	close(pipes[1]);
	complete = child_read(pipes[0], timeout_s, &message, &late);
	close(pipes[0]);
	if (!complete)
		kill(child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (late)
		failure_print(series, "did not end in time (see --timeout)");
	else if (!complete)
		failure_print(series, WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
							  : "ended without a result");
	else if (message.error < 0)
		failure_print(series, strerror(-message.error));
	*result_out = message.result;
	return complete && message.error == 0;
}

static bool run_one(struct bench_series *series, const struct options *options)
{
	struct bench_result *result = &series->result[series->run_count];

	series->args.seed = options->seed + series->run_count;
	if (options->in_process) {
		int error = run_here(series, result);

		if (error < 0) {
			failure_print(series, strerror(-error));
			return false;
		}
	} else if (!run_in_child(series, options->timeout_s, result)) {
		return false;
	}
	BENCH_CHECK(result->row_count == series->result[0].row_count);
	series->run_count++;
	return true;
}

/* ---- Series ---------------------------------------------------------------------------------- */

static void series_add(struct bench_series *series, const struct bench_workload *workload,
	const struct options *options, enum bench_idle idle)
{
	series->workload = workload;
	series->args.workers = workload->workers_default;
	if (options->workers && workload->workers_default)
		series->args.workers = options->workers;
	series->args.n = options->n ? options->n : workload->n_default;
	series->args.idle = idle;
	series->args.driver = options->driver;
	series->args.rival = is_beside(options, workload);
}

/* One for each chosen workload and each idle mode it is to run under. Returns how many. */
static unsigned series_make(struct bench_series *series, const struct options *options)
{
	unsigned count = 0, i, idle;

	for (i = 0; i < options->chosen_count; i++) {
		const struct bench_workload *workload = options->chosen[i];
		unsigned modes = workload->idle_modes;

		if (modes == 0)
			modes = BENCH_IDLE_BIT(BENCH_IDLE_NONE);
		else if (options->idle_modes)
			modes = options->idle_modes;
		for (idle = 0; idle < BENCH_IDLE_COUNT; idle++)
			if (modes & BENCH_IDLE_BIT(idle))
				series_add(&series[count++], workload, options, idle);
	}
	return count;
}

static void progress_print(unsigned run, unsigned runs, const struct bench_series *series)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Kbench: run %u of %u: %s (idle %s)", run + 1, runs,
			series->workload->name, bench_idle_name(series->args.idle));
}

/* A series that fails is left out from then on; the others go on. Returns whether all succeeded. */
static bool run_all(struct bench_series *series, unsigned count, const struct options *options)
{
	bool complete = true;
	unsigned run, i;

	for (run = 0; run < options->runs; run++)
		for (i = 0; i < count; i++) {
			if (run > 0 && series[i].run_count == 0)
				continue;
			progress_print(run, options->runs, &series[i]);
			if (run_one(&series[i], options))
				continue;
			complete = false;
			series[i].run_count = 0;
			series[i].result[0].row_count = 0;
		}
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return complete;
}

static bool save(const struct bench_series *series, unsigned count, const char *path)
{
	FILE *file = fopen(path, "we");

	if (file)
		bench_report_json(file, series, count);
	if (!file || fclose(file) != 0) {
		fprintf(stderr, "bench: cannot write %s: %s\n", path, strerror(errno));
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct options options;
	struct bench_series *series;
	unsigned count;
	bool complete;
	int worse = 0;

	options_parse(&options, argc, argv);
	if (options.compare && access(options.compare, R_OK) < 0) {
		fprintf(stderr, "bench: cannot read %s: %s\n", options.compare, strerror(errno));
		return 2;
	}
	series = calloc(WORKLOADS_COUNT * (size_t)BENCH_IDLE_COUNT, sizeof(*series));
	BENCH_CHECK(series);
	count = series_make(series, &options);
	if (!options.json) {
		bench_report_machine(stdout);
		printf("runs      %u of each, taken in turn, each in a fresh process after a "
		       "warm-up; "
		       "spread = median absolute deviation\n\n",
			options.runs);
	}
	complete = run_all(series, count, &options);
	if (options.json)
		bench_report_json(stdout, series, count);
	else
		bench_report_table(stdout, series, count);
	if (options.compare) {
		/* With --json stdout is for tools: the comparison goes where people look. */
		worse = bench_compare(
			options.json ? stderr : stdout, series, count, options.compare);
		if (worse < 0)
			fprintf(stderr, "bench: cannot compare with %s: %s\n", options.compare,
				strerror(-worse));
	}
	if (options.save && !save(series, count, options.save))
		return 1;
	free(series);
	if (worse < 0)
		return 2;
	return worse > 0 || !complete;
}
