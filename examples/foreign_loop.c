/*
 * A program that has a poll() loop of its own, in which Weft is a guest, twice:
 * foreign_loop [ADDRESS [IDLE_MS]], by default tcp:[::]:7002 and 60000.
 *
 *	an embedded runtime   echoes on ADDRESS; readable descriptor -> weft_rt_poll()
 *	a clock               a tick every 100 ms, and the end when nobody has said anything for
 *	                      IDLE_MS; its next deadline is the loop's time-out
 *	the program's own     a descriptor for SIGTERM and SIGINT, which end it too
 *
 * There is one thread. The echoing processes run on it, inside weft_rt_poll(), and so may use the
 * clock, which is bound to it.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <weft.h>

#define TICK_NS  WEFT_MS(100)
#define GRACE_NS WEFT_SEC(1) /* for connections, when the program ends */

enum { IDLE_MS_MAX = 24 * 3600 * 1000 };

static struct host {
	weft_rt *rt;
	weft_clock *clock;
	weft_clock_driver *driver;
	struct weft_clock_timer tick, idle;
	weft_time idle_ns;
	int signals;
	bool over;
	int error; /* of the server; 0: none */
	unsigned long ticks, messages, wakeups;
} host;

/* --- what the runtime does --- */

static int echo(int fd, void *arg)
{
	char buffer[2048];
	ssize_t n;

	(void)arg;
	while ((n = weft_read(fd, buffer, sizeof buffer, WEFT_FOREVER)) > 0) {
		host.messages++;
		/* Later: one store. */
		(void)weft_clock_move(&host.idle, weft_clock_now(host.clock) + host.idle_ns);
		n = weft_write_all(fd, buffer, (size_t)n, WEFT_FOREVER);
		if (n < 0)
			break;
	}
	return (int)n;
}

static void on_listen(const char *address, void *arg)
{
	(void)arg;
	printf("listening on %s\n", address);
	fflush(stdout);
}

static int serve(void *address)
{
	struct weft_serve_opts opts = { .size = sizeof opts, .on_listen = on_listen };
	int r = weft_serve_with(address, echo, NULL, &opts);

	if (r < 0 && r != -ECANCELED)
		host.error = r;
	host.over = true;
	return r;
}

/* --- what the clock does --- */

static void on_tick(void *arg)
{
	(void)arg;
	printf("tick %lu\n", ++host.ticks);
	fflush(stdout);
	(void)weft_clock_start(
		host.clock, &host.tick, weft_clock_now(host.clock) + TICK_NS, on_tick, NULL);
}

static void on_idle(void *arg)
{
	(void)arg;
	host.over = true;
}

/* --- the loop --- */

/* Sleeps until a descriptor is readable, or the deadline. */
static void sleep_until(struct pollfd *fds, nfds_t count, weft_time deadline)
{
	weft_time left = deadline - weft_now();
	struct timespec timeout = { 0 };

	if (left > 0) {
		timeout.tv_sec = left / WEFT_SEC(1);
		timeout.tv_nsec = left % WEFT_SEC(1);
	}
	(void)ppoll(fds, count, deadline == WEFT_FOREVER ? NULL : &timeout, NULL);
	host.wakeups++;
}

static void loop(void)
{
	struct pollfd fds[2] = {
		{ .fd = host.signals, .events = POLLIN },
		{ .fd = weft_rt_fd(host.rt), .events = POLLIN },
	};

	while (!host.over) {
		int more = weft_rt_poll(host.rt, WEFT_POLL);
		weft_time next;

		/* The clock comes last: processes may have moved its timers. */
		if (weft_clock_advance(host.driver, weft_now(), &next) < 0 || more < 0)
			return;
		if (host.over)
			return;
		sleep_until(fds, 2, more > 0 ? 0 : next);
		if (fds[0].revents)
			host.over = true;
	}
}

/* --- beginning and end --- */

static int clock_open(void)
{
	struct weft_clock_config config = { .size = sizeof config, .name = "foreign loop" };
	int r = weft_clock_activate(&config, &host.clock, &host.driver);

	if (r < 0)
		return r;
	(void)weft_clock_start(host.clock, &host.tick, weft_after(TICK_NS), on_tick, NULL);
	return weft_clock_start(host.clock, &host.idle, weft_after(host.idle_ns), on_idle, NULL);
}

static void clock_close(void)
{
	(void)weft_clock_cancel(&host.tick);
	(void)weft_clock_cancel(&host.idle);
	(void)weft_clock_release(host.clock);
	(void)weft_clock_close(host.driver);
}

static int signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	host.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return host.signals < 0 ? -errno : 0;
}

static int run(char *address)
{
	/* Not every driver has a descriptor to sleep on; this one has. */
	struct weft_rt_opts opts = {
		.size = sizeof opts, .flags = WEFT_RT_EMBEDDED, .driver = "epoll" };
	int r = signals_open();

	if (r < 0)
		return r;
	if ((r = weft_rt_create(&opts, &host.rt)) < 0)
		return r;
	if ((r = weft_rt_fd(host.rt)) >= 0 && (r = clock_open()) >= 0) {
		r = weft_rt_spawn(host.rt, serve, address, NULL, NULL);
		if (r == 0)
			loop();
	}
	/* Polls by itself while it waits for the connections. */
	(void)weft_rt_stop(host.rt, GRACE_NS, weft_after(2 * GRACE_NS));
	if (host.clock)
		clock_close();
	(void)weft_rt_destroy(host.rt, WEFT_FOREVER);
	close(host.signals);
	return r < 0 ? r : host.error;
}

int main(int argc, char **argv)
{
	static char standard[] = "tcp:[::]:7002";
	char *address = argc > 1 ? argv[1] : standard;
	long idle_ms = argc > 2 ? strtol(argv[2], NULL, 10) : 60000;
	int r;

	if (argc > 3 || idle_ms < 1 || idle_ms > IDLE_MS_MAX) {
		fprintf(stderr, "usage: foreign_loop [ADDRESS [IDLE_MS]], IDLE_MS to one day\n");
		return 2;
	}
	host.idle_ns = WEFT_MS(idle_ms);
	r = run(address);
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", address, weft_strerror(r));
		return 1;
	}
	printf("ticks %lu messages %lu wakeups %lu\n", host.ticks, host.messages, host.wakeups);
	return 0;
}
