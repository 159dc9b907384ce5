/*
 * Sends back what it receives, with a task for each connection: echo_task [ADDRESS], by default
 * tcp:[::]:7000. An idle connection costs its task and 24 bytes; what the peer does not take at
 * once is kept until it does, and nothing more is read from it meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

struct connection {
	int fd;
	unsigned start, end; /* of what is still to be sent in `rest` */
	char *rest;
};

/* Sends from `bytes`, all or until it would wait. Returns how much, or an error. */
static ssize_t send_now(int fd, const char *bytes, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = weft_write(fd, bytes + done, size - done, WEFT_FOREVER);

		if (n == WEFT_PENDING)
			break;
		if (n < 0)
			return n;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Sends what is left of the last piece. 0, WEFT_PENDING, or an error. */
static int send_rest(struct connection *c)
{
	ssize_t n = send_now(c->fd, c->rest + c->start, c->end - c->start);

	if (n < 0)
		return (int)n;
	c->start += (unsigned)n;
	if (c->start < c->end)
		return WEFT_PENDING;
	free(c->rest);
	c->rest = NULL;
	return 0;
}

/* The peer does not take all of it now. */
static int keep(struct connection *c, const char *bytes, size_t size)
{
	c->rest = malloc(size);
	if (!c->rest)
		return -1;
	memcpy(c->rest, bytes, size);
	c->start = 0;
	c->end = (unsigned)size;
	return WEFT_PENDING;
}

/* Goes on until it would wait, or the connection ends. */
static int echo(struct connection *c)
{
	char buffer[8192];
	int r = c->rest ? send_rest(c) : 0;

	while (r == 0) {
		ssize_t n = weft_read(c->fd, buffer, sizeof buffer, WEFT_FOREVER);
		ssize_t sent = n > 0 ? send_now(c->fd, buffer, (size_t)n) : 0;

		if (n <= 0)
			return n == WEFT_PENDING ? WEFT_PENDING : (int)n;
		if (sent < 0)
			return (int)sent;
		if (sent < n)
			r = keep(c, buffer + sent, (size_t)(n - sent));
	}
	return r;
}

/* The task. A cancel makes its calls fail, so it comes to its end here too. */
static int run(void *state)
{
	struct connection *c = state;
	int r = echo(c);

	if (r != WEFT_PENDING) {
		weft_close(c->fd);
		free(c->rest);
		free(c);
	}
	return r;
}

static int on_connection(int fd, void *arg)
{
	struct connection *c = calloc(1, sizeof *c);

	(void)arg;
	if (c)
		c->fd = fd;
	if (c && weft_task_spawn(run, c, NULL, NULL) == 0)
		return 0;
	free(c);
	return weft_close(fd);
}

static void on_listen(const char *address, void *arg)
{
	fprintf(arg, "listening on %s\n", address);
	fflush(arg);
}

static int serve(void *arg)
{
	const char *address = arg ? arg : "tcp:[::]:7000";
	struct weft_serve_opts opts = {
		.size = sizeof opts, .on_listen = on_listen, .flags = WEFT_SERVE_INLINE };
	int r = weft_serve_with(address, on_connection, stdout, &opts);

	if (r < 0)
		fprintf(stderr, "%s: %s\n", address, weft_strerror(r));
	return r;
}

int main(int argc, char **argv)
{
	return weft_main(NULL, serve, argc > 1 ? argv[1] : NULL) < 0;
}
