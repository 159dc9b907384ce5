/*
 * load_options.c: the command line of perf/load. Every number is checked against its range, and a
 * wrong one ends the program with one line and status 2.
 */
#include "perf/load.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"usage: load [options] ADDRESS\n"
	"\n"
	"Sends requests to a TCP echo server and checks that every reply equals its request.\n"
	"ADDRESS is tcp:HOST:PORT or HOST:PORT; an IPv6 host is written in brackets.\n"
	"\n"
	"load, closed loop (default): each connection sends its next request when a reply arrives\n"
	"  --connections N  connections that send (1)\n"
	"  --size BYTES     of each message (64)\n"
	"  --depth N        requests a connection may have outstanding (1)\n"
	"  --churn          connect, one request, close, again; latency is counted from the "
	"connect\n"
	"  --idle N         open N further connections that stay silent and must stay open\n"
	"load, open loop:\n"
	"  --rate R         requests fall due R times a second over all connections, a Poisson "
	"process\n"
	"                   on each; latency is counted from the time due, also while a "
	"connection\n"
	"                   still waits for --depth earlier replies\n"
	"length (a run always ends: connecting, warm-up, duration and a last timeout are its "
	"bounds):\n"
	"  --duration S     measure for S seconds (5)\n"
	"  --requests N     stop after N measured requests; without --duration it is an error if "
	"they\n"
	"                   are not done within 60 seconds\n"
	"  --warm-up S      send for S seconds first, checked but not measured (0.5)\n"
	"  --timeout S      longest wait for a connection, for a reply, and for the last replies "
	"(5)\n"
	"how:\n"
	"  --pin CPU        run on this CPU only\n"
	"  --spin           poll without sleeping: keeps this program's own wake-ups out of the "
	"figures\n"
	"  --seed N         of content and arrival times (1)\n"
	"output:\n"
	"  --json           one line of JSON on stdout instead of the table\n"
	"  --progress       a line on stderr twice a second\n"
	"  --help\n"
	"\n"
	"Exit status: 0 if replies = requests and there was no error, 1 if not, 2 for a wrong "
	"command\n"
	"line.\n";

enum option_key {
	KEY_CONNECTIONS = 256,
	KEY_SIZE,
	KEY_DEPTH,
	KEY_CHURN,
	KEY_IDLE,
	KEY_RATE,
	KEY_DURATION,
	KEY_REQUESTS,
	KEY_WARM_UP,
	KEY_TIMEOUT,
	KEY_PIN,
	KEY_SPIN,
	KEY_SEED,
	KEY_JSON,
	KEY_PROGRESS,
	KEY_HELP,
};

static const struct option keys[] = {
	{"connections", required_argument, NULL, KEY_CONNECTIONS},
	{"size", required_argument, NULL, KEY_SIZE},
	{"depth", required_argument, NULL, KEY_DEPTH},
	{"churn", no_argument, NULL, KEY_CHURN},
	{"idle", required_argument, NULL, KEY_IDLE},
	{"rate", required_argument, NULL, KEY_RATE},
	{"duration", required_argument, NULL, KEY_DURATION},
	{"requests", required_argument, NULL, KEY_REQUESTS},
	{"warm-up", required_argument, NULL, KEY_WARM_UP},
	{"timeout", required_argument, NULL, KEY_TIMEOUT},
	{"pin", required_argument, NULL, KEY_PIN},
	{"spin", no_argument, NULL, KEY_SPIN},
	{"seed", required_argument, NULL, KEY_SEED},
	{"json", no_argument, NULL, KEY_JSON},
	{"progress", no_argument, NULL, KEY_PROGRESS},
	{"help", no_argument, NULL, KEY_HELP},
	{NULL, 0, NULL, 0},
};

static uint64_t number_parse(const char *name, const char *text, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value < min || value > max)
		load_die(2, "--%s takes a number from %llu to %llu, not \"%s\"", name,
			(unsigned long long)min, (unsigned long long)max, text);
	return value;
}

static double real_parse(const char *name, const char *text, double min, double max)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !isfinite(value) || value < min || value > max)
		load_die(2, "--%s takes a number from %g to %g, not \"%s\"", name, min, max, text);
	return value;
}

static uint64_t seconds_parse(const char *name, const char *text, double min)
{
	return (uint64_t)(real_parse(name, text, min, LOAD_TIME_MAX_S) * 1e9);
}

/* Splits HOST:PORT or [HOST]:PORT in place. */
static bool address_split(char *text, char **host_out, char **port_out)
{
	char *colon = strrchr(text, ':');

	if (!colon || colon == text || !colon[1])
		return false;
	*colon = 0;
	*port_out = colon + 1;
	*host_out = text;
	if (text[0] == '[') {
		if (colon[-1] != ']' || colon - text < 3)
			return false;
		colon[-1] = 0;
		*host_out = text + 1;
		return true;
	}
	return strchr(text, ':') == NULL;
}

static void address_parse(struct load_options *options, const char *text)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
	const char *rest = strncmp(text, "tcp:", 4) == 0 ? text + 4 : text;
	char *copy = strdup(rest), *host, *port;
	int error;

	if (!copy)
		load_die(1, "out of memory");
	if (!address_split(copy, &host, &port))
		load_die(2, "\"%s\" is no address; give tcp:HOST:PORT, with IPv6 as [HOST]", text);
	if (strspn(port, "0123456789") != strlen(port) || strlen(port) > 5 || atoi(port) < 1 ||
		atoi(port) > 65535)
		load_die(2, "\"%s\" is no port; give a number from 1 to 65535", port);
	error = getaddrinfo(host, port, &hints, &found);
	if (error)
		load_die(1, "cannot resolve \"%s\": %s", host,
			error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
	memcpy(&options->address, found->ai_addr, found->ai_addrlen);
	options->address_size = found->ai_addrlen;
	options->address_text = text;
	freeaddrinfo(found);
	free(copy);
}

static void option_apply(struct load_options *options, int key, const char *name, const char *text)
{
	switch (key) {
	case KEY_CONNECTIONS:
		options->connections = (unsigned)number_parse(name, text, 1, LOAD_CONNECTIONS_MAX);
		break;
	case KEY_SIZE:
		options->size = number_parse(name, text, 1, LOAD_SIZE_MAX);
		break;
	case KEY_DEPTH:
		options->depth = (unsigned)number_parse(name, text, 1, LOAD_DEPTH_MAX);
		break;
	case KEY_CHURN:
		options->churn = true;
		break;
	case KEY_IDLE:
		options->idle = (unsigned)number_parse(name, text, 0, LOAD_CONNECTIONS_MAX);
		break;
	case KEY_RATE:
		options->rate = real_parse(name, text, 0.001, 1e9);
		break;
	case KEY_DURATION:
		options->duration_ns = seconds_parse(name, text, 0.001);
		break;
	case KEY_REQUESTS:
		options->requests_max = number_parse(name, text, 1, UINT64_MAX);
		break;
	case KEY_WARM_UP:
		options->warm_up_ns = seconds_parse(name, text, 0);
		break;
	case KEY_TIMEOUT:
		options->timeout_ns = seconds_parse(name, text, 0.001);
		break;
	case KEY_PIN:
		options->cpu = (int)number_parse(name, text, 0, 1 << 20);
		break;
	case KEY_SPIN:
		options->spin = true;
		break;
	case KEY_SEED:
		options->seed = number_parse(name, text, 0, UINT64_MAX);
		break;
	case KEY_JSON:
		options->json = true;
		break;
	case KEY_PROGRESS:
		options->progress = true;
		break;
	case KEY_HELP:
		fputs(help, stdout);
		exit(0);
	default: /* getopt has printed its line */
		fputs("load: see load --help\n", stderr);
		exit(2);
	}
}

void load_options_parse(struct load_options *options, int argc, char **argv)
{
	static char name[] = "load";
	int key, index = 0;

	*options = (struct load_options){
		.connections = 1,
		.depth = 1,
		.size = 64,
		.warm_up_ns = 500000000,
		.timeout_ns = 5000000000,
		.seed = 1,
		.cpu = -1,
	};
	argv[0] = name; /* getopt opens its lines with it */
	while ((key = getopt_long(argc, argv, "", keys, &index)) != -1)
		option_apply(options, key, keys[index].name, optarg);
	if (argc - optind != 1)
		load_die(2, "give one ADDRESS; see load --help");
	if (options->churn && options->depth != 1)
		load_die(2, "--churn sends one request a connection: it takes no --depth");
	options->duration_given = options->duration_ns != 0;
	if (!options->duration_given)
		options->duration_ns = options->requests_max ? 60000000000 : 5000000000;
	address_parse(options, argv[optind]);
}
