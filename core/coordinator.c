/*
 * coordinator.c: signals as a runtime's owner sees them, and what those do that nobody has
 * subscribed to: the stop rule.
 *
 * The six signals are blocked before the runtime has threads, which block them themselves; the
 * host's other threads have to, or the kernel may choose one of those. The coordinator sleeps in
 * poll() on a signalfd, and on an eventfd that is written when a stop begins, and by the last
 * worker to end.
 */
#include "core/coordinator.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/log.h"
#include "core/runtime.h"
#include "core/signals.h"
#include "sync/fault.h"

#define GRACE_DEFAULT_NS WEFT_SEC(10)
#define AFTER_GRACE_NS   WEFT_SEC(5) /* for cancelled processes to end; then they are named */

/* --- The stop rule --- */

/* weft_main(): when survivors are given up on. Only ever earlier. */
static void set_deadline(struct weft_rt *rt)
{
	struct wf_coordinator *c = &rt->coordinator;
	weft_time grace = (weft_time)wf_u64_load_relaxed(&rt->grace_deadline);
	weft_time deadline = WEFT_FOREVER;

	if (!c->is_main || !wf_rt_is_draining(rt))
		return;
	if (grace < WEFT_FOREVER - AFTER_GRACE_NS) /* 0: there was none */
		deadline = grace > 0 ? grace + AFTER_GRACE_NS : weft_after(AFTER_GRACE_NS);
	if (deadline < c->deadline)
		c->deadline = deadline;
}

/* The first begins a graceful stop; one that comes during a stop cancels at once. */
static void stop(struct weft_rt *rt, int signo)
{
	struct wf_coordinator *c = &rt->coordinator;
	weft_time grace_ns = wf_rt_is_draining(rt) ? 0 : c->grace_ns;

	if (c->is_main && signo != SIGQUIT)
		wf_log(rt, WEFT_LOG_INFO, "SIG%s: stopping", sigabbrev_np(signo));
	else
		wf_rt_error(
			rt, -1, "signal", -EINTR, "SIG%s: nobody handles it", sigabbrev_np(signo));
	wf_life_begin_stop(rt, grace_ns);
}

/* As by default HUP ends who has lost its terminal; but not under nohup, which has it ignored. */
static bool stops(const struct weft_rt *rt, int signo)
{
	struct sigaction now;

	if (signo != SIGHUP)
		return WEFT_SIGNAL_BIT(signo) & WF_SIGNALS_STOP;
	return rt->coordinator.is_main
		&& !(sigaction(SIGHUP, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO)
			&& now.sa_handler == SIG_IGN);
}

/*
 * The runtime's own part of SIGUSR2, a dump of its metrics, belongs here, before the delivery and
 * whether or not anybody has subscribed.
 */
static void on_signal(struct weft_rt *rt, int signo)
{
	if (wf_signals_deliver(signo) > 0)
		return;
	if (stops(rt, signo))
		stop(rt, signo);
	else
		wf_log(rt, WEFT_LOG_INFO, "SIG%s: nobody handles it", sigabbrev_np(signo));
}

/* --- Reading --- */

void wf_coordinator_tell(struct weft_rt *rt)
{
	uint64_t one = 1;
	int saved = errno;

	/* It is a counter, which does not fill up. */
	if (rt->ended_fd >= 0 && write(rt->ended_fd, &one, sizeof one) < 0)
		wf_log(rt, WEFT_LOG_ERROR, "the coordinator cannot be told");
	errno = saved;
}

/* True: every worker has ended. */
static bool on_told(struct weft_rt *rt)
{
	uint64_t times;

	(void)!read(rt->ended_fd, &times, sizeof times);
	set_deadline(rt);
	return wf_u32_load_acquire(&rt->workers_ended) == rt->worker_count;
}

/* The next signal; 0: none there. */
static int next_signal(const struct wf_coordinator *c)
{
	struct signalfd_siginfo info;

	if (read(c->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
		return 0;
	return (int)info.ssi_signo;
}

static int poll_timeout_ms(const struct wf_coordinator *c)
{
	weft_time left;

	if (c->deadline == WEFT_FOREVER)
		return -1;
	left = (c->deadline - weft_now()) / WEFT_MS(1) + 1;
	if (left < 0)
		return 0;
	return left < INT_MAX ? (int)left : INT_MAX;
}

static int serve(struct weft_rt *rt)
{
	struct wf_coordinator *c = &rt->coordinator;
	struct pollfd fds[] = { { .fd = c->signal_fd, .events = POLLIN },
		{ .fd = rt->ended_fd, .events = POLLIN } };
	int signo;

	for (;;) {
		int r = wf_fails(SYS_ppoll)
			? -1
			: poll(fds, WF_ARRAY_COUNT(fds), poll_timeout_ms(c));

		if (r > 0 && fds[1].revents && on_told(rt))
			return 0;
		if (r > 0 && fds[0].revents)
			while ((signo = next_signal(c)) > 0)
				on_signal(rt, signo);
		if (c->deadline != WEFT_FOREVER && weft_now() >= c->deadline) {
			wf_life_log_survivors(rt);
			return -ETIMEDOUT;
		}
	}
}

int wf_coordinator_serve(struct weft_rt *rt)
{
	int saved = errno;
	int r = serve(rt);

	errno = saved;
	return r;
}

/* --- Becoming the owner, and giving up --- */

static void make_set(sigset_t *set_out)
{
	sigemptyset(set_out);
	for (int signo = 1; signo <= 64; signo++)
		if (WEFT_SIGNAL_BIT(signo) & WF_SIGNALS)
			sigaddset(set_out, signo);
}

static int open_fds(struct weft_rt *rt, const sigset_t *set)
{
	struct wf_coordinator *c = &rt->coordinator;
	int r;

	c->signal_fd = wf_fails(SYS_signalfd4) ? -1
		: signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signal_fd < 0)
		return -errno;
	rt->ended_fd = wf_fails(SYS_eventfd2) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (rt->ended_fd < 0) {
		r = -errno;
		close(c->signal_fd);
		c->signal_fd = -1;
		return r;
	}
	return 0;
}

int wf_coordinator_open(struct weft_rt *rt, weft_time grace_ns)
{
	struct wf_coordinator *c = &rt->coordinator;
	sigset_t set;
	int r = wf_signals_own();

	if (r < 0) {
		wf_rt_error(rt, -1, "signal", r, "another runtime owns the signals");
		return r;
	}
	make_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, &c->mask);
	c->thread = pthread_self();
	c->grace_ns = grace_ns ? grace_ns : GRACE_DEFAULT_NS;
	c->deadline = WEFT_FOREVER;
	r = open_fds(rt, &set);
	if (r == 0)
		return 0;
	pthread_sigmask(SIG_SETMASK, &c->mask, NULL);
	wf_signals_disown();
	wf_rt_error(rt, -1, "signal", r, "no descriptors for signals");
	return r;
}

void wf_coordinator_release(struct weft_rt *rt)
{
	struct wf_coordinator *c = &rt->coordinator;
	int saved = errno;

	if (c->signal_fd < 0)
		return;
	wf_signals_disown();
	/* What came too late asked for what has happened: it must not kill the host now. */
	while (next_signal(c) > 0)
		;
	close(c->signal_fd);
	c->signal_fd = -1;
	if (pthread_equal(c->thread, pthread_self()))
		pthread_sigmask(SIG_SETMASK, &c->mask, NULL);
	errno = saved;
}

void wf_coordinator_close(struct weft_rt *rt)
{
	int saved = errno;

	wf_coordinator_release(rt);
	if (rt->ended_fd >= 0)
		close(rt->ended_fd);
	rt->ended_fd = -1;
	errno = saved;
}
