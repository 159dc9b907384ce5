/*
 * main.c: weft_main(): a runtime, its first process, and SIGINT/SIGTERM as a graceful stop.
 *
 * The calling thread is the coordinator: it blocks the two signals before any worker exists
 * (threads inherit that), reads them from a signalfd, and sleeps in poll() on it and on an eventfd
 * that the last worker to end writes.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/internal.h"
#include "core/log.h"
#include "core/runtime.h"
#include "sync/fault.h"

#define GRACE_DEFAULT_NS WEFT_SEC(10)
#define AFTER_GRACE_NS   WEFT_SEC(5) /* for cancelled processes to end; then they are named */

struct coordinator {
	weft_rt *rt;
	int signal_fd;
	int ended_fd;
	weft_time grace_ns;
	weft_time deadline; /* WEFT_FOREVER until a signal */
	unsigned signals;
	bool abandoned; /* workers still run, and will write to ended_fd */
};

static int environment_idle(struct weft_rt_opts *opts)
{
	static const char *const names[] = { NULL, "adaptive", "park", "spin" };
	const char *value = getenv("WEFT_IDLE");

	if (!value || opts->idle != WEFT_IDLE_DEFAULT)
		return 0;
	for (unsigned i = 1; i < WF_ARRAY_COUNT(names); i++)
		if (strcmp(value, names[i]) == 0) {
			opts->idle = (enum weft_idle)i;
			return 0;
		}
	return -EINVAL;
}

static int environment_workers(struct weft_rt_opts *opts)
{
	const char *value = getenv("WEFT_WORKERS");
	char *end;
	unsigned long count;

	if (!value || opts->workers != 0)
		return 0;
	count = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end != '\0' || count == 0 || count > 100000)
		return -EINVAL;
	opts->workers = (unsigned)count;
	return 0;
}

/* log.c reads it; here only so that a slip of the pen is not taken for silence. */
static bool environment_log_is_known(const struct weft_rt_opts *opts)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	const char *value = getenv("WEFT_LOG");

	for (unsigned i = 0; i < WF_ARRAY_COUNT(names) && value && !opts->log; i++)
		if (strcmp(value, names[i]) == 0)
			return true;
	return !value || opts->log;
}

static int from_environment(struct weft_rt_opts *opts)
{
	if (!opts->cpus)
		opts->cpus = getenv("WEFT_CPUS");
	if (!opts->driver)
		opts->driver = getenv("WEFT_DRIVER");
	if (environment_workers(opts) < 0)
		return wf_complain(
			opts, "options", -EINVAL, "WEFT_WORKERS is not a number of workers");
	if (environment_idle(opts) < 0)
		return wf_complain(
			opts, "options", -EINVAL, "WEFT_IDLE is none of adaptive, park, spin");
	if (!environment_log_is_known(opts))
		return wf_complain(opts, "options", -EINVAL,
			"WEFT_LOG is none of error, warn, info, debug");
	return 0;
}

/* When survivors are given up on. Only ever earlier. */
static void set_deadline(struct coordinator *c, weft_time grace_ns)
{
	weft_time deadline = WEFT_FOREVER;

	if (grace_ns < WEFT_FOREVER - AFTER_GRACE_NS)
		deadline = weft_after(grace_ns + AFTER_GRACE_NS);
	if (deadline < c->deadline)
		c->deadline = deadline;
}

/* A signal: the first begins the graceful stop, the second cancels at once. */
static void on_signal(struct coordinator *c)
{
	struct signalfd_siginfo info;

	while (read(c->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
		weft_time grace_ns = c->signals++ == 0 ? c->grace_ns : 0;

		wf_log(c->rt, WEFT_LOG_INFO, "%s: stopping", strsignal((int)info.ssi_signo));
		set_deadline(c, grace_ns);
		wf_life_begin_stop(c->rt, grace_ns);
	}
}

/* What came too late asked for what has happened: it must not kill the host when unblocked. */
static void forget_signals(struct coordinator *c)
{
	struct signalfd_siginfo info;

	while (read(c->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
		;
}

static int poll_timeout_ms(const struct coordinator *c)
{
	weft_time left;

	if (c->deadline == WEFT_FOREVER)
		return -1;
	left = (c->deadline - weft_now()) / WEFT_MS(1) + 1;
	if (left < 0)
		return 0;
	return left < INT_MAX ? (int)left : INT_MAX;
}

/* Until every worker has ended: 0; -ETIMEDOUT if something survives the stop. */
static int coordinate(struct coordinator *c)
{
	struct pollfd fds[] = { { .fd = c->signal_fd, .events = POLLIN },
		{ .fd = c->ended_fd, .events = POLLIN } };

	for (;;) {
		int r = wf_fails(SYS_ppoll)
			? -1
			: poll(fds, WF_ARRAY_COUNT(fds), poll_timeout_ms(c));

		if (r > 0 && fds[1].revents)
			return 0;
		if (r > 0 && fds[0].revents)
			on_signal(c);
		if (c->deadline != WEFT_FOREVER && weft_now() >= c->deadline) {
			wf_life_log_survivors(c->rt);
			return -ETIMEDOUT;
		}
	}
}

static int run(struct coordinator *c, const struct weft_rt_opts *opts, weft_fn fn, void *arg)
{
	struct weft_spawn_opts spawn = { .size = sizeof spawn, .name = "main" };
	struct weft_error error;
	int result = 0;
	weft_pid pid;
	int r = weft_rt_create(opts, &c->rt);

	if (r < 0)
		return r;
	c->rt->ended_fd = c->ended_fd;
	r = weft_rt_spawn(c->rt, fn, arg, &spawn, &pid);
	if (r < 0) {
		wf_rt_error(c->rt, -1, "main", r, "the first process cannot be made");
	} else {
		(void)weft_rt_start(c->rt);
		r = coordinate(c);
		if (r < 0) {
			c->abandoned = true;
			return r; /* something still runs: nothing may be freed */
		}
		(void)weft_try_join(pid, &result);
		r = result;
	}
	if (weft_rt_error(c->rt, 0, &error) == 0) {
		r = error.error;
		if (opts->error)
			*opts->error = error;
	}
	(void)weft_rt_destroy(c->rt, WEFT_FOREVER);
	return r;
}

static int open_fds(struct coordinator *c, const sigset_t *set)
{
	c->signal_fd = wf_fails(SYS_signalfd4) ? -1
		: signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signal_fd < 0)
		return -errno;
	c->ended_fd = wf_fails(SYS_eventfd2) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->ended_fd < 0) {
		int r = -errno;

		close(c->signal_fd);
		return r;
	}
	return 0;
}

/* With SIGINT and SIGTERM blocked, and read from a descriptor. */
static int run_with_signals(const struct weft_rt_opts *opts, weft_fn fn, void *arg)
{
	struct coordinator c = { .deadline = WEFT_FOREVER };
	sigset_t set, old;
	int r;

	c.grace_ns = opts->grace_ns ? opts->grace_ns : GRACE_DEFAULT_NS;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	r = open_fds(&c, &set);
	if (r < 0)
		(void)wf_complain(opts, "signal", r, "no descriptors for signals");
	if (r == 0) {
		r = run(&c, opts, fn, arg);
		forget_signals(&c);
		if (!c.abandoned)
			close(c.ended_fd);
		close(c.signal_fd);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

int weft_main(const struct weft_rt_opts *opts, weft_fn fn, void *arg)
{
	struct weft_rt_opts own = { .size = sizeof own };
	int saved = errno;
	int r;

	if (!fn)
		return wf_complain(&own, "options", -EINVAL, "weft_main() needs a function");
	r = opts ? wf_opts_read(opts, opts->size, &own, sizeof own) : 0;
	if (r < 0)
		return wf_complain(&own, "options", r, WF_OPTS_SIZE_TEXT);
	if (wf_worker_self())
		return wf_complain(&own, "options", -EDEADLK, "weft_main() inside a runtime");
	if (own.flags & WEFT_RT_EMBEDDED)
		return wf_complain(&own, "options", -EINVAL,
			"weft_main() has threads of its own: use weft_rt_create()");
	own.size = sizeof own;
	if (own.pin == WEFT_PIN_DEFAULT)
		own.pin = WEFT_PIN_ON;
	own.flags |= WEFT_RT_GUARD_REPORT;
	r = from_environment(&own);
	if (r < 0)
		return r;
	r = run_with_signals(&own, fn, arg);
	errno = saved;
	return r;
}
