/*
 * Answers requests of a fixed size, each after a moment of work, and stops without losing one:
 * graceful [ADDRESS [SIZE]], by default tcp:[::]:7001 and 64 bytes. An answer is its request.
 *
 * On SIGTERM or SIGINT weft_serve() takes what is queued, closes its listeners and returns. Then
 * each connection answers what it has received, tells its client that no more will come, and waits
 * for the client to close, so that no answer is lost to a reset. One that waits for a request looks
 * up ten times a second.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <weft.h>

enum { SIZE_MAX_BYTES = 4096, WORKERS_MAX = 48 };

#define WORK_NS     WEFT_MS(1)
#define LOOK_UP_NS  WEFT_MS(100)
#define LAST_NS     WEFT_MS(500) /* after the stop, for requests that follow one another closely */
#define FAREWELL_NS WEFT_SEC(2)

static size_t request_bytes = 64;
static weft_time stopped_at; /* 0: not yet; written by one process, read by all */

/* One for each worker: processes stay on theirs, so nobody else writes it. */
static struct {
	unsigned long received, answered;
	char keeps_others_off_this_line[48];
} counts[WORKERS_MAX];

/* A whole request: true. False: the client has closed, or it is time to stop. */
static int receive(int fd, char *request)
{
	size_t got = 0;

	while (got < request_bytes) {
		weft_time stopped = __atomic_load_n(&stopped_at, __ATOMIC_ACQUIRE);
		int may_stop = stopped && got == 0;
		ssize_t n;

		if (may_stop && weft_now() > stopped + LAST_NS)
			return 0;
		n = weft_read(fd, request + got, request_bytes - got,
			may_stop ? WEFT_POLL : weft_after(LOOK_UP_NS));
		if (n == -ETIME)
			continue;
		if (n <= 0)
			return 0;
		got += (size_t)n;
	}
	counts[weft_worker_index()].received++;
	return 1;
}

static int answer(int fd, void *arg)
{
	weft_time farewell;
	char request[SIZE_MAX_BYTES];

	(void)arg;
	while (receive(fd, request)) {
		/* A real server would ask somebody else meanwhile. */
		if (weft_sleep_until(weft_after(WORK_NS)) < 0 ||
			weft_write_all(fd, request, request_bytes, WEFT_FOREVER) < 0)
			return 1;
		counts[weft_worker_index()].answered++;
	}
	(void)weft_shutdown(fd, SHUT_WR);
	farewell = weft_after(FAREWELL_NS);
	while (weft_read(fd, request, sizeof request, farewell) > 0)
		;
	return 0;
}

static void on_listen(const char *address, void *arg)
{
	(void)arg;
	printf("listening on %s\n", address);
	fflush(stdout);
}

static int serve(void *arg)
{
	const char *address = arg;
	struct weft_serve_opts opts = { .size = sizeof opts, .on_listen = on_listen };
	int r = weft_serve_with(address, answer, NULL, &opts);

	__atomic_store_n(&stopped_at, weft_now(), __ATOMIC_RELEASE);
	if (r < 0)
		fprintf(stderr, "%s: %s\n", address, weft_strerror(r));
	return r;
}

int main(int argc, char **argv)
{
	static char address[] = "tcp:[::]:7001";
	unsigned long received = 0, answered = 0;
	int r;

	if (argc > 2)
		request_bytes = strtoul(argv[2], NULL, 10);
	if (argc > 3 || request_bytes < 1 || request_bytes > SIZE_MAX_BYTES) {
		fprintf(stderr, "usage: graceful [ADDRESS [SIZE]], SIZE from 1 to 4096\n");
		return 2;
	}
	r = weft_main(NULL, serve, argc > 1 ? argv[1] : address);
	if (r < 0)
		return 1;
	for (int i = 0; i < WORKERS_MAX; i++) {
		received += counts[i].received;
		answered += counts[i].answered;
	}
	printf("received %lu answered %lu\n", received, answered);
	return 0;
}
