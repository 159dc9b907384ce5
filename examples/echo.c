/* Sends back what it receives: echo [ADDRESS], by default tcp:[::]:7000. */
#include <stdio.h>
#include <weft.h>

static int echo(int fd, void *arg)
{
	char buffer[2048];
	ssize_t n = 0;
	while (n >= 0 && (n = weft_read(fd, buffer, sizeof buffer, WEFT_FOREVER)) > 0)
		n = weft_write_all(fd, buffer, (size_t)n, WEFT_FOREVER);
	return (void)arg, (int)n;
}

static void on_listen(const char *address, void *arg)
{
	fprintf(arg, "listening on %s\n", address), fflush(arg);
}

static int serve(void *arg)
{
	const char *address = arg ? arg : "tcp:[::]:7000";
	struct weft_serve_opts opts = { .size = sizeof opts, .on_listen = on_listen };
	int r = weft_serve_with(address, echo, stdout, &opts);
	return r < 0 ? fprintf(stderr, "%s: %s\n", address, weft_strerror(r)), r : 0;
}

int main(int argc, char **argv)
{
	return weft_main(NULL, serve, argc > 1 ? argv[1] : NULL) < 0;
}
