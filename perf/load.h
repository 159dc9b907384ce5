/*
 * load.h: the parts of the load generator perf/load: its options (load_options.c), the content of
 * its messages (load_message.c), the engine (load.c) and the report (load_report.c).
 *
 * It shares nothing with the library under test, by intent: a fault in Weft's I/O or clock must not
 * be able to hide in the tool that measures it.
 */
#ifndef WF_PERF_LOAD_H
#define WF_PERF_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "perf/load_histogram.h"

enum {
	LOAD_CONNECTIONS_MAX = 1000000,
	LOAD_DEPTH_MAX = 1024,
	LOAD_SIZE_MAX = 64 << 20,
	LOAD_TIME_MAX_S = 86400,
};

struct load_options {
	const char *address_text;
	struct sockaddr_storage address;
	socklen_t address_size;
	unsigned connections;
	unsigned idle;  /* further connections that stay open and silent */
	unsigned depth; /* requests a connection may have outstanding */
	size_t size;
	double rate;           /* requests a second over all connections; 0: closed loop */
	uint64_t requests_max; /* 0: until the time is over */
	uint64_t duration_ns;
	bool duration_given;
	uint64_t warm_up_ns;
	uint64_t timeout_ns;
	uint64_t seed;
	int cpu; /* -1: not pinned */
	bool churn;
	bool spin;
	bool progress;
	bool json;
};

enum load_error {
	LOAD_ERROR_CONNECT, /* a connection could not be made (after the first ones could) */
	LOAD_ERROR_RESET,   /* reading or writing failed */
	LOAD_ERROR_CLOSED,  /* the server closed, with or without requests outstanding */
	LOAD_ERROR_TIMEOUT, /* no complete reply in time */
	LOAD_ERROR_CORRUPT, /* a reply that is not the request */
	LOAD_ERROR_EXTRA,   /* bytes nobody asked for */
	LOAD_ERROR_IDLE,    /* an idle connection was closed or spoke */
	LOAD_ERROR_UNSENT,  /* open loop: due inside the window, never sent */
	LOAD_ERROR_COUNT,
};

struct load_result {
	uint64_t requests; /* due inside the measured window */
	uint64_t replies;  /* to those, complete and equal */
	uint64_t warm_up_replies;
	uint64_t connects; /* connections made, idle ones left out */
	uint64_t errors[LOAD_ERROR_COUNT];
	uint64_t elapsed_ns;      /* from the window's start to its last reply */
	uint64_t cpu_ns;          /* the generator's own, inside the window */
	struct histogram latency; /* from the intended send time */
	struct histogram service; /* from the real send time: what a closed view would have shown */
	struct histogram lag;     /* between the two */
};

/* Fills `options` from the command line, or prints one line (or the help) and exits. */
void load_options_parse(struct load_options *options, int argc, char **argv);

/* The content of request `number` of connection slot `slot`, from its byte `from` on. */
void load_message_init(uint64_t seed);
void load_message_fill(uint32_t slot, uint64_t number, size_t from, void *to, size_t length);
bool load_message_equal(
	uint32_t slot, uint64_t number, size_t from, const void *bytes, size_t length);

uint64_t load_errors_total(const struct load_result *result);
void load_report(const struct load_options *options, const struct load_result *result);

/* xorshift64*: the next value of a non-zero state. */
static inline uint64_t load_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/* splitmix64: spreads any value, for seeds and for content. */
static inline uint64_t load_mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15ull;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

/* Prints `load: …` to stderr and exits: 2 for a wrong command line, 1 for everything else. */
_Noreturn void load_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
