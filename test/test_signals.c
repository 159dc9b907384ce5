/*
 * Goal: what <weft/signal.h> promises: every subscriber receives every signal exactly once, and
 * one that nobody has subscribed to does what the stop rule says; one owner, who gives them back.
 * Method: whole runtimes that send themselves signals. The kernel hands out the lowest number
 * first: a signal of a higher one, sent later to somebody subscribed to it alone, tells that the
 * earlier ones have been delivered.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "test/runtime.h"

#define HUP  WEFT_SIGNAL_BIT(SIGHUP)
#define INT  WEFT_SIGNAL_BIT(SIGINT)
#define QUIT WEFT_SIGNAL_BIT(SIGQUIT)
#define USR1 WEFT_SIGNAL_BIT(SIGUSR1)
#define USR2 WEFT_SIGNAL_BIT(SIGUSR2)
#define TERM WEFT_SIGNAL_BIT(SIGTERM)

/* ---- Tools ---------------------------------------------------------------------------------- */

static void raise_all(uint64_t set)
{
	for (int signo = 1; signo <= 64; signo++)
		if (set & WEFT_SIGNAL_BIT(signo))
			cr_assert_eq(kill(getpid(), signo), 0);
}

/* A log that looks for one text. */
static wf_atomic_u32 lines_found;

static void finds_line(
	void *text, enum weft_log_level level, int worker, weft_pid pid, const char *line)
{
	(void)level;
	(void)worker;
	(void)pid;
	if (strstr(line, text))
		wf_u32_fetch_add(&lines_found, 1);
}

static struct weft_rt_opts opts_of(unsigned workers, unsigned flags, const char *line)
{
	wf_u32_store_relaxed(&lines_found, 0);
	return (struct weft_rt_opts){.size = sizeof(struct weft_rt_opts),
		.workers = workers,
		.pin = WEFT_PIN_OFF,
		.flags = flags,
		.grace_ns = WEFT_SEC(3600),
		.log = finds_line,
		.log_ctx = (void *)(uintptr_t)line};
}

/* weft_main() on two workers; its log is asked for `line`. */
static int in_main(weft_fn fn, void *arg, weft_time grace_ns, const char *line)
{
	struct weft_rt_opts opts = opts_of(2, 0, line);

	opts.grace_ns = grace_ns;
	return weft_main(&opts, fn, arg);
}

static void mask_of(bool blocked_out[65])
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	for (int signo = 1; signo <= 64; signo++)
		blocked_out[signo] = sigismember(&set, signo) == 1;
}

static void mask_is(const bool blocked[65])
{
	bool now[65];

	mask_of(now);
	for (int signo = 1; signo <= 64; signo++)
		cr_assert_eq(now[signo], blocked[signo], "signal %d", signo);
}

/* A process that tells when a signal has come that is its alone. */
static int waits_for_usr2(void *subscribed)
{
	cr_assert_eq(weft_signal_subscribe(USR2), 0);
	wf_u32_fetch_add(subscribed, 1);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), SIGUSR2);
	return 0;
}

/* Sends signals of lower numbers than USR2's; returns when each has been delivered. */
static void raise_and_deliver(uint64_t set)
{
	wf_atomic_u32 subscribed = {0};
	weft_pid pid = spawned(waits_for_usr2, &subscribed);

	UNTIL(wf_u32_load_acquire(&subscribed));
	raise_all(set);
	raise_all(USR2);
	cr_assert_eq(joined(pid), 0);
}

/* ---- Subscribers ---------------------------------------------------------------------------- */

struct subscribers {
	wf_atomic_u32 subscribed, received;
};

static int receives_each_once(void *arg)
{
	struct subscribers *all = arg;
	uint64_t left = HUP | USR1 | TERM;

	cr_assert_eq(weft_signal_subscribe(HUP | USR1), 0);
	cr_assert_eq(weft_signal_subscribe(TERM | HUP), 0);
	wf_u32_fetch_add(&all->subscribed, 1);
	while (left) {
		int signo = weft_signal_wait(WEFT_FOREVER);

		cr_assert_gt(signo, 0);
		cr_assert(left & WEFT_SIGNAL_BIT(signo), "%d, a second time", signo);
		left &= ~WEFT_SIGNAL_BIT(signo);
	}
	wf_u32_fetch_add(&all->received, 1);
	/* Whatever were to come twice would be there before this. */
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), SIGHUP);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), -EAGAIN);
	return 0;
}

/* X7 */
static int has_subscribers(void *arg)
{
	struct subscribers all = {.subscribed = {0}};
	weft_pid pids[3];

	(void)arg;
	pids[0] = spawned_with(receives_each_once, &all, 0, WEFT_WORKER(0));
	pids[1] = spawned_with(receives_each_once, &all, 0, WEFT_WORKER(1));
	pids[2] = spawned_with(receives_each_once, &all, WEFT_MOVABLE, 0);
	UNTIL(wf_u32_load_acquire(&all.subscribed) == 3);
	raise_all(HUP | USR1 | TERM);
	UNTIL(wf_u32_load_acquire(&all.received) == 3);
	raise_all(HUP);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(joined(pids[i]), 0);
	return 17;
}

Test(signals, every_subscriber_receives_each_signal_exactly_once, .timeout = 120)
{
	for (int round = 0; round < 20 / HARNESS_SLOWDOWN + 1; round++)
		cr_assert_eq(in_main(has_subscribers, NULL, WEFT_SEC(3600), "SIG"), 17);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 0, "a stop, or nobody to handle it");
}

static int gets_several_as_one(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_signal_subscribe(HUP | INT | QUIT), 0);
	for (int i = 0; i < 5; i++)
		raise_and_deliver(HUP | QUIT);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), SIGHUP);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), SIGQUIT);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), -EAGAIN);
	return 0;
}

Test(signals, several_before_it_is_taken_are_one, .timeout = 120)
{
	cr_assert_eq(in_main(gets_several_as_one, NULL, WEFT_SEC(3600), "SIGHUP"), 0);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 0);
}

static int unsubscribes(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_signal_subscribe(HUP | USR1), 0);
	raise_and_deliver(HUP | USR1);
	cr_assert_eq(weft_signal_unsubscribe(USR1 | TERM), 0);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), SIGHUP);
	raise_and_deliver(USR1);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), -EAGAIN, "it has left");
	cr_assert_eq(weft_signal_unsubscribe(HUP), 0);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -EINVAL);
	cr_assert_eq(weft_signal_unsubscribe(HUP), 0);
	return 0;
}

Test(signals, who_unsubscribes_receives_no_more, .timeout = 120)
{
	cr_assert_eq(in_main(unsubscribes, NULL, WEFT_SEC(3600), "SIGUSR1: nobody handles it"), 0);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1, "the second one");
}

static int subscribes_to_term(void *arg)
{
	(void)arg;
	return weft_signal_subscribe(TERM);
}

static int had_subscribers(void *arg)
{
	weft_pid joinable;

	(void)arg;
	cr_assert_eq(joined(spawned(subscribes_to_term, NULL)), 0);
	joinable = spawned(subscribes_to_term, NULL);
	while (weft_try_join(joinable, NULL) == -EAGAIN)
		weft_yield();
	raise_all(TERM);
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	return 3;
}

/* Else its signals would be nobody's. */
Test(signals, a_subscription_ends_with_its_process, .timeout = 120)
{
	cr_assert_eq(in_main(had_subscribers, NULL, 1, "SIGTERM: stopping"), 3);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1);
}

static int subscribes_and_parks(void *arg)
{
	wf_atomic_u32 *subscribed = arg;

	cr_assert_eq(weft_signal_subscribe(TERM), 0);
	wf_u32_fetch_add(subscribed, 1);
	(void)weft_park(WEFT_FOREVER);
	return 0;
}

static int fills_the_table(void *arg)
{
	enum { MAX = 256 };
	wf_atomic_u32 subscribed = {0};
	static weft_pid pids[MAX];

	(void)arg;
	for (int i = 0; i < MAX; i++)
		pids[i] = spawned(subscribes_and_parks, &subscribed);
	UNTIL(wf_u32_load_acquire(&subscribed) == MAX);
	cr_assert_eq(weft_signal_subscribe(HUP), -EAGAIN);
	cr_assert_eq(weft_wake(pids[100]), 0);
	cr_assert_eq(joined(pids[100]), 0);
	cr_assert_eq(weft_signal_subscribe(HUP), 0, "in the place of one that has ended");
	for (int i = 0; i < MAX; i++)
		if (i != 100) {
			cr_assert_eq(weft_wake(pids[i]), 0);
			cr_assert_eq(joined(pids[i]), 0);
		}
	raise_and_deliver(HUP);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), SIGHUP);
	return 0;
}

Test(signals, at_most_256_processes_are_subscribed, .timeout = 120)
{
	cr_assert_eq(in_main(fills_the_table, NULL, 1, ""), 0);
}

/* ---- Waiting -------------------------------------------------------------------------------- */

static int waits_in_vain(void *arg)
{
	wf_atomic_u32 *subscribed = arg;

	cr_assert_eq(weft_signal_subscribe(USR1), 0);
	wf_u32_store_release(subscribed, 1);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -ECANCELED);
	return 1;
}

static int waits_and_gives_up(void *arg)
{
	wf_atomic_u32 subscribed = {0};
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -EINVAL);
	cr_assert_eq(weft_signal_subscribe(USR1), 0);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_signal_wait(weft_now()), -ETIME);
	cr_assert_eq(weft_signal_wait(weft_after(WEFT_MS(2))), -ETIME);
	/* What comes after a wait that was given up is for the next. */
	raise_and_deliver(USR1);
	cr_assert_eq(weft_signal_wait(weft_now()), SIGUSR1);
	pid = spawned(waits_in_vain, &subscribed);
	UNTIL(wf_u32_load_acquire(&subscribed));
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(joined(pid), 1);
	return 0;
}

Test(signals, a_wait_ends_at_its_deadline_or_by_cancel, .timeout = 120)
{
	cr_assert_eq(in_main(waits_and_gives_up, NULL, 1, ""), 0);
}

static int is_refused(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_signal_subscribe(0), -EINVAL);
	cr_assert_eq(weft_signal_subscribe(HUP | WEFT_SIGNAL_BIT(SIGKILL)), -EINVAL);
	cr_assert_eq(weft_signal_subscribe(WEFT_SIGNAL_BIT(SIGCHLD)), -EINVAL);
	cr_assert_eq(weft_signal_unsubscribe(0), -EINVAL);
	cr_assert_eq(weft_signal_unsubscribe(WEFT_SIGNAL_BIT(64)), -EINVAL);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), -EINVAL);
	return 0;
}

static int finds_no_owner(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_signal_subscribe(HUP), -ENOTSUP);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -ENOTSUP);
	cr_assert_eq(weft_signal_unsubscribe(HUP), 0);
	return 0;
}

Test(signals, what_is_refused, .timeout = 120)
{
	cr_assert_eq(weft_signal_subscribe(HUP), -EPERM);
	cr_assert_eq(weft_signal_unsubscribe(HUP), -EPERM);
	cr_assert_eq(weft_signal_wait(WEFT_POLL), -EPERM);
	cr_assert_eq(in_main(is_refused, NULL, 1, ""), 0);
	cr_assert_eq(in_runtime(1, finds_no_owner, NULL), 0);
}

/* ---- The stop rule -------------------------------------------------------------------------- */

static int raises_and_parks(void *arg)
{
	raise_all(WEFT_SIGNAL_BIT(*(int *)arg));
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	return 9;
}

static void stops_with_the_error(int signo, const char *text)
{
	struct weft_rt_opts opts = opts_of(2, WEFT_RT_SIGNALS, text);
	bool before[65], meanwhile[65];
	struct weft_error error;
	weft_pid pid;
	weft_rt *rt;

	opts.grace_ns = 1;
	mask_of(before);
	rt = runtime_new_with(&opts);
	mask_of(meanwhile);
	cr_assert(meanwhile[signo]);
	cr_assert_eq(weft_rt_spawn(rt, raises_and_parks, &signo, NULL, &pid), 0);
	cr_assert_eq(weft_rt_run(rt), -EINTR);
	mask_is(before);
	cr_assert_eq(joined(pid), 9);
	cr_assert_eq(weft_rt_error(rt, 0, &error), 0);
	cr_assert_eq(error.error, -EINTR);
	cr_assert_str_eq(error.step, "signal");
	cr_assert_str_eq(error.text, text);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1);
	runtime_end(rt);
}

/* X7 */
Test(signals, without_a_subscriber_the_runtime_ends_with_the_error, .timeout = 120)
{
	stops_with_the_error(SIGTERM, "SIGTERM: nobody handles it: stopped by a signal");
	stops_with_the_error(SIGINT, "SIGINT: nobody handles it: stopped by a signal");
	stops_with_the_error(SIGQUIT, "SIGQUIT: nobody handles it: stopped by a signal");
}

Test(signals, quit_is_an_error_of_weft_main_too, .timeout = 120)
{
	struct weft_rt_opts opts = opts_of(2, 0, "SIGQUIT");
	struct weft_error error = {0};
	int signo = SIGQUIT;

	opts.grace_ns = 1;
	opts.error = &error;
	cr_assert_eq(weft_main(&opts, raises_and_parks, &signo), -EINTR);
	cr_assert_str_eq(error.step, "signal");
	signo = SIGTERM;
	cr_assert_eq(weft_main(&opts, raises_and_parks, &signo), 9);
}

/* Who takes them is told of the last: they come in the order of their numbers. */
static int raises_the_harmless(void *set)
{
	raise_and_deliver(*(uint64_t *)set);
	cr_assert_eq(weft_yield(), 0);
	return 4;
}

Test(signals, usr1_and_usr2_stop_nothing, .timeout = 120)
{
	uint64_t set = USR1;

	cr_assert_eq(in_main(raises_the_harmless, &set, 1, "USR1: nobody handles it"), 4);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1);
}

Test(signals, hup_stops_weft_main_as_term_does, .timeout = 120)
{
	struct weft_error error = {0};
	struct weft_rt_opts opts = opts_of(2, 0, "SIGHUP: stopping");
	int signo = SIGHUP;

	opts.grace_ns = 1;
	opts.error = &error;
	cr_assert_eq(weft_main(&opts, raises_and_parks, &signo), 9);
	cr_assert_eq(error.error, 0);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1);
}

Test(signals, hup_stops_nothing_where_it_is_ignored_or_the_loop_is_the_hosts, .timeout = 120)
{
	struct weft_rt_opts opts = opts_of(2, WEFT_RT_SIGNALS, "SIGHUP: nobody handles it");
	weft_rt *rt = runtime_new_with(&opts);
	uint64_t set = HUP;
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, raises_the_harmless, &set, NULL, &pid), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(joined(pid), 4);
	runtime_end(rt);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1);
	cr_assert_neq(signal(SIGHUP, SIG_IGN), SIG_ERR);
	cr_assert_eq(in_main(raises_the_harmless, &set, 1, "SIGHUP: nobody handles it"), 4);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1);
	cr_assert_neq(signal(SIGHUP, SIG_DFL), SIG_ERR);
}

static int raises_until_cancelled(void *arg)
{
	(void)arg;
	raise_all(TERM);
	UNTIL(wf_u32_load_acquire(&lines_found) >= 1);
	cr_assert_eq(joined(spawned(returns, &(int){5})), 5);
	raise_all(INT);
	cr_assert_eq(weft_park(WEFT_FOREVER), -ECANCELED);
	return 6;
}

Test(signals, a_second_one_cancels_at_once, .timeout = 120)
{
	struct weft_rt_opts opts = opts_of(2, WEFT_RT_SIGNALS, "nobody handles it");
	weft_rt *rt = runtime_new_with(&opts);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, raises_until_cancelled, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_rt_run(rt), -EINTR);
	cr_assert_eq(joined(pid), 6);
	runtime_end(rt);
	cr_assert_eq(in_main(raises_until_cancelled, NULL, WEFT_SEC(3600), "stopping"), 6);
}

static weft_rt *left_behind;

static int outlives_its_cancel(void *arg)
{
	left_behind = weft_rt_current();
	(void)weft_rt_stop(left_behind, 0, WEFT_POLL);
	while (!wf_u32_load_relaxed((wf_atomic_u32 *)arg))
		(void)weft_sleep_until(weft_after(WEFT_MS(1))); /* cancelled, and goes on */
	return 0;
}

/* Nothing is freed: the process goes on. */
Test(signals, weft_main_gives_up_on_survivors_whoever_has_begun_the_stop, .timeout = 120)
{
	static wf_atomic_u32 over;
	weft_time before = weft_now();

	cr_assert_eq(in_main(outlives_its_cancel, &over, 0, "still alive"), -ETIMEDOUT);
	cr_assert_geq(weft_now() - before, WEFT_SEC(5));
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 1);
	wf_u32_store_relaxed(&over, 1);
	runtime_end(left_behind);
}

static int stops_when_told(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_signal_subscribe(TERM), 0);
	raise_all(TERM);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), SIGTERM);
	cr_assert_eq(weft_rt_stop(weft_rt_current(), 0, 0), 0);
	return weft_park(WEFT_FOREVER) == -ECANCELED ? 8 : -1;
}

Test(signals, a_subscriber_may_stop_the_runtime_itself, .timeout = 120)
{
	struct weft_rt_opts opts = opts_of(1, WEFT_RT_SIGNALS, "SIG");
	weft_rt *rt = runtime_new_with(&opts);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, stops_when_told, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(joined(pid), 8);
	runtime_end(rt);
	cr_assert_eq(in_main(stops_when_told, NULL, 1, "SIG"), 8);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 0);
}

/* ---- Owners --------------------------------------------------------------------------------- */

Test(signals, one_owner_at_a_time, .timeout = 120)
{
	struct weft_error error = {0};
	struct weft_rt_opts opts = opts_of(1, WEFT_RT_SIGNALS, "");
	weft_rt *rt = runtime_new_with(&opts), *other;
	bool blocked[65];

	mask_of(blocked);
	opts.error = &error;
	cr_assert_eq(weft_rt_create(&opts, &other), -EBUSY);
	cr_assert_str_eq(error.step, "signal");
	opts.flags = 0;
	cr_assert_eq(weft_main(&opts, returns, &(int){0}), -EBUSY);
	mask_is(blocked);
	cr_assert_eq(weft_rt_create(&opts, &other), 0, "without the flag");
	runtime_end(other);
	runtime_end(rt);
	cr_assert_eq(weft_main(&opts, returns, &(int){2}), 2);
}

Test(signals, they_are_given_back_without_a_run, .timeout = 120)
{
	struct weft_rt_opts opts = opts_of(1, WEFT_RT_SIGNALS, "");
	bool before[65], meanwhile[65];
	unsigned fds;

	runtime_end(runtime_new_with(&opts)); /* what is made once */
	fds = harness_fd_count();
	mask_of(before);
	for (int round = 0; round < 3; round++) {
		weft_rt *rt = runtime_new_with(&opts);

		mask_of(meanwhile);
		cr_assert(meanwhile[SIGTERM] && meanwhile[SIGUSR1]);
		raise_all(HUP | INT | QUIT | USR1 | USR2 | TERM); /* or this is the end */
		runtime_end(rt);
		mask_is(before);
		cr_assert_eq(harness_fd_count(), fds);
	}
}

/* A process of another runtime than the owner's. */
static int outlives_the_owner(void *arg)
{
	wf_atomic_u32 *step = arg;

	cr_assert_eq(weft_signal_subscribe(TERM | USR1), 0);
	wf_u32_store_release(step, 1);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), SIGTERM);
	wf_u32_store_release(step, 2);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -ENOTSUP);
	cr_assert_eq(weft_signal_wait(WEFT_FOREVER), -ENOTSUP);
	return 1;
}

static int raises_for_others(void *arg)
{
	wf_atomic_u32 *step = arg;

	UNTIL(wf_u32_load_acquire(step) == 1);
	raise_all(TERM);
	UNTIL(wf_u32_load_acquire(step) == 2);
	return 0;
}

Test(signals, a_process_of_another_runtime_receives_them_until_the_owner_ends, .timeout = 120)
{
	struct weft_rt_opts opts = opts_of(1, WEFT_RT_SIGNALS, "nobody");
	weft_rt *rt = runtime_new_with(&opts), *other = runtime_new(1);
	wf_atomic_u32 step = {0};
	weft_pid pid, raiser;

	cr_assert_eq(weft_rt_spawn(other, outlives_the_owner, &step, NULL, &pid), 0);
	cr_assert_eq(weft_rt_spawn(rt, raises_for_others, &step, NULL, &raiser), 0);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(joined(raiser), 0);
	cr_assert_eq(joined(pid), 1);
	cr_assert_eq(wf_u32_load_relaxed(&lines_found), 0);
	runtime_end(rt);
	runtime_end(other);
}
