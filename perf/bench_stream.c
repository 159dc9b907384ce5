/*
 * bench_stream.c: connections: the in-memory network beside the kernel's TCP over loopback.
 *
 *   stream_pingpong  a round trip of 64 bytes: two writes and two reads that wait for them. Both
 *                    ends are fibers, of one worker, or of the first and the last
 *   stream_bulk      a kilobyte of many, written in large pieces and read in pieces of 16 KiB
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
	MESSAGE_BYTES = 64,
	WRITE_BYTES = 1 << 20,
	READ_BYTES = 16 << 10,
	KILOBYTE = 1024,
};

/* ---- A connection ---------------------------------------------------------------------------- */

struct stream {
	const char *address; /* to listen on */
	uint64_t n;
	weft_fn near_body, far_body;
	int near_fd, far_fd;
	uint64_t total_ns, cpu_ns;
	const struct bench_args *args;
};

static int connect_both(struct stream *stream)
{
	char address[WEFT_ADDRESS_MAX];
	int listener = weft_listen(stream->address, 0);

	if (listener < 0)
		return listener;
	BENCH_CHECK(weft_local_address(listener, address, sizeof(address)) == 0);
	stream->near_fd = weft_connect(address, WEFT_FOREVER);
	stream->far_fd =
		stream->near_fd < 0 ? stream->near_fd : weft_accept(listener, WEFT_FOREVER);
	BENCH_CHECK(weft_close(listener) == 0);
	return stream->far_fd < 0 ? stream->far_fd : 0;
}

static int stream_main(void *arg)
{
	struct stream *stream = arg;
	struct weft_spawn_opts opts = {.size = sizeof(opts), .worker = WEFT_WORKER(0)};
	weft_pid near_pid, far_pid;
	int error = connect_both(stream), near_result = 0, far_result = 0;

	if (error < 0)
		return error;
	error = weft_spawn_with(stream->near_body, stream, &opts, &near_pid);
	opts.worker = WEFT_WORKER(stream->args->workers - 1);
	if (error == 0)
		error = weft_spawn_with(stream->far_body, stream, &opts, &far_pid);
	if (error == 0)
		error = weft_join(near_pid, &near_result, WEFT_FOREVER);
	if (error == 0)
		error = weft_join(far_pid, &far_result, WEFT_FOREVER);
	BENCH_CHECK(weft_close(stream->near_fd) == 0);
	BENCH_CHECK(weft_close(stream->far_fd) == 0);
	return error ? error : near_result ? near_result : far_result;
}

/* Both networks, one after the other. */
static int both_networks(const struct bench_args *args, struct bench_result *result,
	weft_fn near_body, weft_fn far_body)
{
	static const char *const networks[][2] = {
		{"in memory", "mem:"}, {"loopback TCP", "tcp:127.0.0.1:0"}};
	int error = 0;

	for (unsigned i = 0; i < 2 && error == 0; i++) {
		struct bench_row *row = bench_row_add(result, networks[i][0], "fiber");
		struct stream stream = {.address = networks[i][1],
			.n = args->n,
			.args = args,
			.near_body = near_body,
			.far_body = far_body};

		error = bench_runtime_run(args, stream_main, &stream);
		bench_row_set(row, BENCH_NS_PER_OP, (double)stream.total_ns / (double)args->n);
		bench_row_set(row, BENCH_CPU_NS, (double)stream.cpu_ns / (double)args->n);
	}
	return error;
}

/* ---- stream_pingpong ------------------------------------------------------------------------- */

static int near_pings(void *arg)
{
	struct stream *stream = arg;
	char bytes[MESSAGE_BYTES] = {0};
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns(), i;

	for (i = 0; i < stream->n; i++) {
		BENCH_CHECK(weft_write(stream->near_fd, bytes, MESSAGE_BYTES, WEFT_FOREVER) ==
			    MESSAGE_BYTES);
		BENCH_CHECK(weft_read(stream->near_fd, bytes, MESSAGE_BYTES, WEFT_FOREVER) ==
			    MESSAGE_BYTES);
	}
	stream->total_ns = bench_now_ns() - start_ns;
	stream->cpu_ns = bench_cpu_ns() - cpu_ns;
	return 0;
}

static int far_pongs(void *arg)
{
	const struct stream *stream = arg;
	char bytes[MESSAGE_BYTES];
	uint64_t i;

	for (i = 0; i < stream->n; i++) {
		BENCH_CHECK(weft_read(stream->far_fd, bytes, MESSAGE_BYTES, WEFT_FOREVER) ==
			    MESSAGE_BYTES);
		BENCH_CHECK(weft_write(stream->far_fd, bytes, MESSAGE_BYTES, WEFT_FOREVER) ==
			    MESSAGE_BYTES);
	}
	return 0;
}

static int pingpong_run(const struct bench_args *args, struct bench_result *result)
{
	return both_networks(args, result, near_pings, far_pongs);
}

const struct bench_workload bench_stream_pingpong = {
	.name = "stream_pingpong",
	.help = "n round trips of 64 bytes over a connection, in memory and by TCP",
	.workers_default = 1,
	.n_default = 300000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = pingpong_run,
};

/* ---- stream_bulk ----------------------------------------------------------------------------- */

static int near_writes(void *arg)
{
	struct stream *stream = arg;
	uint64_t left = stream->n * KILOBYTE, cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	char *bytes = calloc(1, WRITE_BYTES), byte;

	BENCH_CHECK(bytes);
	while (left > 0) {
		size_t size = left < WRITE_BYTES ? left : WRITE_BYTES;

		BENCH_CHECK(weft_write_all(stream->near_fd, bytes, size, WEFT_FOREVER) ==
			    (ssize_t)size);
		left -= size;
	}
	/* The other end closes when it has read everything. */
	BENCH_CHECK(weft_shutdown(stream->near_fd, SHUT_WR) == 0);
	BENCH_CHECK(weft_read(stream->near_fd, &byte, 1, WEFT_FOREVER) == 0);
	stream->total_ns = bench_now_ns() - start_ns;
	stream->cpu_ns = bench_cpu_ns() - cpu_ns;
	free(bytes);
	return 0;
}

static int far_reads(void *arg)
{
	const struct stream *stream = arg;
	char *bytes = malloc(READ_BYTES);
	uint64_t sum = 0;
	ssize_t n;

	BENCH_CHECK(bytes);
	while ((n = weft_read(stream->far_fd, bytes, READ_BYTES, WEFT_FOREVER)) > 0)
		sum += (uint64_t)n;
	BENCH_CHECK(n == 0 && sum == stream->n * KILOBYTE);
	free(bytes);
	return weft_shutdown(stream->far_fd, SHUT_WR);
}

static int bulk_run(const struct bench_args *args, struct bench_result *result)
{
	return both_networks(args, result, near_writes, far_reads);
}

const struct bench_workload bench_stream_bulk = {
	.name = "stream_bulk",
	.help = "n kilobytes over a connection, in large pieces, in memory and by TCP",
	.workers_default = 1,
	.n_default = 1000000,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = bulk_run,
};
