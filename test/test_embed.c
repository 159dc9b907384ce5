/*
 * Goal: an embedded runtime (WEFT_RT_EMBEDDED) is stepped by weft_rt_poll(), its descriptor is
 * readable exactly when a poll has something to do, and it stops and is destroyed like any other.
 * Method: one thread of the test polls, others wake. "Readable" is asked of poll(2) without a
 * timeout, when nothing is under way. Memory that is on its way back through a grace period is
 * something to do, too: settle() polls until that is over.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/runtime.h"
#include "test/net.h"
#include "test/runtime.h"

/* ---- Tools ---------------------------------------------------------------------------------- */

static weft_rt *embedded(void)
{
	return runtime_new_with(
		&(struct weft_rt_opts){.flags = WEFT_RT_EMBEDDED, .driver = "epoll"});
}

static bool readable(weft_rt *rt)
{
	struct pollfd fd = {.fd = weft_rt_fd(rt), .events = POLLIN};

	cr_assert_geq(fd.fd, 0, "%s", strerror(-fd.fd));
	return poll(&fd, 1, 0) == 1;
}

/* Until nothing is ready: on a slow machine one poll's time may be over before. */
static void poll_all(weft_rt *rt)
{
	int r;

	while ((r = weft_rt_poll(rt, WEFT_POLL)) == 1)
		;
	cr_assert_eq(r, 0);
}

/* Polls until nothing is left, also not of what has ended. */
static void settle(weft_rt *rt)
{
	struct pollfd fd = {.fd = weft_rt_fd(rt), .events = POLLIN};
	int quiet = 0;

	while (quiet < 2) {
		cr_assert_geq(weft_rt_poll(rt, WEFT_POLL), 0);
		quiet = poll(&fd, 1, 20) == 0 ? quiet + 1 : 0;
	}
}

static weft_pid rt_spawned(weft_rt *rt, weft_fn fn, void *arg)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_rt_spawn(rt, fn, arg, NULL, &pid), 0);
	return pid;
}

static int polled_result(weft_rt *rt, weft_pid pid)
{
	int result = 0, r;

	while ((r = weft_try_join(pid, &result)) == -EAGAIN)
		cr_assert_geq(weft_rt_poll(rt, WEFT_FOREVER), 0);
	cr_assert_eq(r, 0);
	return result;
}

static int count_up(void *arg)
{
	++*(int *)arg;
	return 7;
}

static void post_count(void *arg)
{
	++*(int *)arg;
}

static int sleep_1ms(void *arg)
{
	int r = weft_sleep_until(weft_after(WEFT_MS(1)));

	++*(int *)arg;
	return r;
}

static int sleep_long(void *arg)
{
	(void)arg;
	return weft_sleep_until(weft_after(WEFT_SEC(3600)));
}

/* ---- Polling -------------------------------------------------------------------------------- */

Test(embed, a_poll_runs_what_is_ready_on_the_calling_thread, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0;
	weft_pid pid = rt_spawned(rt, count_up, &count);

	cr_assert_eq(count, 0, "it ran before the first poll");
	poll_all(rt);
	cr_assert_eq(count, 1);
	cr_assert_eq(polled_result(rt, pid), 7);
	cr_assert_null(weft_rt_current());
	cr_assert_eq(weft_rt_workers(rt), 1);
	runtime_end(rt);
}

static int yield_often(void *arg)
{
	wf_atomic_u32 *stop = arg;

	while (!wf_u32_load_relaxed(stop))
		(void)weft_yield();
	return 0;
}

Test(embed, a_poll_comes_back_though_somebody_is_always_ready, .timeout = 120)
{
	weft_rt *rt = embedded();
	wf_atomic_u32 stop = {0};
	weft_pid pid = rt_spawned(rt, yield_often, &stop);

	for (int i = 0; i < 100; i++) {
		cr_assert_eq(weft_rt_poll(rt, WEFT_FOREVER), 1);
		cr_assert(readable(rt));
	}
	wf_u32_store_relaxed(&stop, 1);
	cr_assert_eq(polled_result(rt, pid), 0);
	runtime_end(rt);
}

Test(embed, an_idle_poll_returns_at_its_deadline_and_not_before, .timeout = 120)
{
	weft_rt *rt = embedded();
	weft_time deadline;

	settle(rt);
	cr_assert_eq(weft_rt_poll(rt, WEFT_POLL), 0);
	cr_assert_eq(weft_rt_poll(rt, 0), 0);
	deadline = weft_after(WEFT_MS(20));
	cr_assert_eq(weft_rt_poll(rt, deadline), 0);
	cr_assert_geq(weft_now(), deadline);
	runtime_end(rt);
}

static void *post_from_elsewhere(void *arg)
{
	void **args = arg;

	cr_assert_eq(weft_post(args[0], post_count, args[1]), 0);
	return NULL;
}

Test(embed, a_waiting_poll_is_ended_by_a_timer_and_by_another_thread, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0;
	void *args[] = {rt, &count};
	pthread_t thread;
	weft_pid pid = rt_spawned(rt, sleep_1ms, &count);

	while (count == 0)
		cr_assert_geq(weft_rt_poll(rt, WEFT_FOREVER), 0);
	cr_assert_eq(polled_result(rt, pid), 0);
	settle(rt);
	cr_assert_eq(pthread_create(&thread, NULL, post_from_elsewhere, args), 0);
	while (count == 1)
		cr_assert_geq(weft_rt_poll(rt, WEFT_FOREVER), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(count, 2);
	runtime_end(rt);
}

static int poll_again(void *arg)
{
	weft_rt *rt = arg;

	cr_assert_eq(weft_rt_current(), rt);
	cr_assert_eq(weft_rt_poll(rt, WEFT_POLL), -EDEADLK);
	cr_assert_eq(weft_rt_fd(rt), -EDEADLK);
	cr_assert_eq(weft_rt_run(rt), -EDEADLK);
	cr_assert_eq(weft_rt_destroy(rt, WEFT_FOREVER), -EDEADLK);
	return 0;
}

static void *poll_elsewhere(void *arg)
{
	cr_assert_eq(weft_rt_poll(arg, WEFT_POLL), -EPERM);
	cr_assert_eq(weft_rt_fd(arg), -EPERM);
	cr_assert_eq(weft_rt_run(arg), -EPERM);
	return NULL;
}

Test(embed, nested_polls_and_other_threads_are_refused, .timeout = 120)
{
	weft_rt *rt = embedded(), *other = embedded(), *threads = runtime_new(1);
	pthread_t thread;
	weft_pid pid;

	cr_assert_eq(weft_rt_poll(threads, WEFT_POLL), -EINVAL);
	cr_assert_eq(weft_rt_fd(threads), -EINVAL);
	cr_assert_eq(polled_result(rt, rt_spawned(rt, poll_again, rt)), 0);
	cr_assert_eq(weft_rt_spawn(other, poll_again, other, NULL, &pid), 0);
	cr_assert_eq(weft_join(pid, NULL, weft_after(WEFT_SEC(1))), -EDEADLK);
	cr_assert_eq(weft_join(pid, NULL, WEFT_POLL), -EAGAIN);
	cr_assert_eq(polled_result(other, pid), 0);
	cr_assert_eq(pthread_create(&thread, NULL, poll_elsewhere, rt), 0);
	pthread_join(thread, NULL);
	runtime_end(rt);
	runtime_end(other);
	runtime_end(threads);
}

Test(embed, options_that_make_no_sense_are_refused, .timeout = 120)
{
	static const struct weft_rt_opts opts[] = {
		{.workers = 2}, {.cpus = "0"}, {.pin = WEFT_PIN_ON}};
	struct weft_error error;
	weft_rt *rt;

	for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++) {
		struct weft_rt_opts own = opts[i];

		own.size = sizeof(own);
		own.flags = WEFT_RT_EMBEDDED;
		own.error = &error;
		cr_assert_eq(weft_rt_create(&own, &rt), -EINVAL);
		cr_assert_str_eq(error.step, "options");
	}
	cr_assert_eq(weft_main(&(struct weft_rt_opts){.size = sizeof(opts[0]),
				     .flags = WEFT_RT_EMBEDDED},
			     count_up, NULL),
		-EINVAL);
}

Test(embed, nothing_of_the_thread_is_changed, .timeout = 120)
{
	char name[16], name_after[16];
	sigset_t set = {0}, set_after = {0};
	cpu_set_t cpus, cpus_after;
	long slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
	int count = 0;
	weft_rt *rt;

	pthread_getname_np(pthread_self(), name, sizeof(name));
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	cr_assert_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	rt = embedded();
	errno = 4242;
	cr_assert_eq(polled_result(rt, rt_spawned(rt, sleep_1ms, &count)), 0);
	cr_assert_geq(weft_rt_fd(rt), 0);
	cr_assert_eq(errno, 4242);
	pthread_getname_np(pthread_self(), name_after, sizeof(name_after));
	pthread_sigmask(SIG_SETMASK, NULL, &set_after);
	cr_assert_eq(sched_getaffinity(0, sizeof(cpus_after), &cpus_after), 0);
	cr_assert_str_eq(name, name_after);
	cr_assert_eq(memcmp(&set, &set_after, sizeof(set)), 0);
	cr_assert(CPU_EQUAL(&cpus, &cpus_after));
	cr_assert_eq(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), slack);
	runtime_end(rt);
}

/* ---- The descriptor ------------------------------------------------------------------------- */

Test(embed, the_descriptor_is_readable_when_something_is_due_and_not_before, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0, fd = weft_rt_fd(rt);
	weft_pid pid;

	settle(rt);
	cr_assert(!readable(rt));
	cr_assert_eq(weft_post(rt, post_count, &count), 0);
	cr_assert(readable(rt), "a post");
	poll_all(rt);
	cr_assert_eq(count, 1);
	cr_assert(!readable(rt));
	pid = rt_spawned(rt, sleep_long, NULL);
	cr_assert(readable(rt), "a spawn");
	poll_all(rt);
	cr_assert(!readable(rt), "its timer is far away");
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert(readable(rt), "a cancel");
	poll_all(rt);
	cr_assert(!readable(rt));
	cr_assert_eq(polled_result(rt, pid), -ECANCELED);
	cr_assert_eq(weft_rt_fd(rt), fd);
	runtime_end(rt);
}

Test(embed, what_came_before_the_first_poll_shows_on_the_descriptor, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0;

	cr_assert_eq(weft_post(rt, post_count, &count), 0);
	cr_assert(readable(rt));
	poll_all(rt);
	cr_assert_eq(count, 1);
	cr_assert(!readable(rt));
	runtime_end(rt);
}

Test(embed, a_timer_makes_the_descriptor_readable, .timeout = 120)
{
	weft_rt *rt = embedded();
	struct pollfd fd = {.fd = weft_rt_fd(rt), .events = POLLIN};
	int count = 0;

	for (int i = 1; i <= 20; i++) {
		weft_pid pid = rt_spawned(rt, sleep_1ms, &count);

		while (count < i) {
			cr_assert_eq(poll(&fd, 1, -1), 1);
			cr_assert_geq(weft_rt_poll(rt, WEFT_POLL), 0);
		}
		cr_assert_eq(weft_try_join(pid, NULL), 0);
	}
	settle(rt);
	cr_assert(!readable(rt));
	runtime_end(rt);
}

struct wakers {
	weft_rt *rt;
	int *count;
};

enum {
	POSTERS = 2,
	POSTS = 2000 / HARNESS_SLOWDOWN,
};

static void *post_many(void *arg)
{
	struct wakers *wakers = arg;

	for (int i = 0; i < POSTS; i++)
		cr_assert_eq(weft_post(wakers->rt, post_count, wakers->count), 0);
	return NULL;
}

/* Were a wake lost the loop would sleep for ever. */
Test(embed, a_loop_that_sleeps_on_the_descriptor_loses_no_wake, .timeout = 300)
{
	weft_rt *rt = embedded();
	struct pollfd fd = {.fd = weft_rt_fd(rt), .events = POLLIN};
	int count = 0;
	struct wakers wakers = {rt, &count};
	pthread_t threads[POSTERS];

	for (int i = 0; i < POSTERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, post_many, &wakers), 0);
	while (count < POSTERS * POSTS) {
		cr_assert_eq(poll(&fd, 1, -1), 1);
		cr_assert_geq(weft_rt_poll(rt, WEFT_POLL), 0);
	}
	for (int i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	runtime_end(rt);
}

Test(embed, drivers_without_a_descriptor_say_so, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.flags = WEFT_RT_EMBEDDED, .driver = "mem"});
	weft_rt *spin = runtime_new_with(
		&(struct weft_rt_opts){.flags = WEFT_RT_EMBEDDED, .idle = WEFT_IDLE_SPIN});
	int count = 0;
	weft_time deadline;

	cr_assert_eq(weft_rt_fd(rt), -ENOTSUP);
	cr_assert_eq(weft_rt_fd(spin), -ENOTSUP);
	cr_assert_eq(polled_result(rt, rt_spawned(rt, sleep_1ms, &count)), 0);
	cr_assert_eq(polled_result(spin, rt_spawned(spin, sleep_1ms, &count)), 0);
	deadline = weft_after(WEFT_MS(5));
	while (weft_now() < deadline)
		cr_assert_geq(weft_rt_poll(spin, deadline), 0);
	cr_assert_eq(count, 2);
	runtime_end(rt);
	runtime_end(spin);
}

/* ---- I/O ------------------------------------------------------------------------------------ */

static int echo_once(void *arg)
{
	int fd = weft_accept(*(int *)arg, WEFT_FOREVER);
	char bytes[64];
	ssize_t n;

	cr_assert_geq(fd, 0);
	while ((n = weft_read(fd, bytes, sizeof(bytes), WEFT_FOREVER)) > 0)
		cr_assert_eq(weft_write_all(fd, bytes, (size_t)n, WEFT_FOREVER), n);
	cr_assert_eq(n, 0);
	return weft_close(fd);
}

static void *client(void *arg)
{
	int fd = net_connect(*(unsigned *)arg);
	char bytes[6];

	for (int i = 0; i < 100; i++) {
		net_send(fd, "hello", 6);
		net_recv(fd, bytes, 6);
		cr_assert_str_eq(bytes, "hello");
	}
	close(fd);
	return NULL;
}

Test(embed, a_tcp_echo_runs_in_the_hosts_poll_loop, .timeout = 120)
{
	weft_rt *rt = embedded();
	struct pollfd poller = {.fd = weft_rt_fd(rt), .events = POLLIN};
	int listener = weft_listen("tcp:127.0.0.1:0", 0);
	unsigned port = net_port_of(listener);
	pthread_t thread;
	weft_pid pid;
	int result = -1;

	cr_assert_geq(listener, 0);
	pid = rt_spawned(rt, echo_once, &listener);
	cr_assert_eq(pthread_create(&thread, NULL, client, &port), 0);
	while (weft_try_join(pid, &result) == -EAGAIN) {
		cr_assert_eq(poll(&poller, 1, -1), 1);
		cr_assert_geq(weft_rt_poll(rt, WEFT_POLL), 0);
	}
	cr_assert_eq(result, 0);
	pthread_join(thread, NULL);
	cr_assert_eq(weft_close(listener), 0);
	runtime_end(rt);
}

/* ---- Several runtimes ----------------------------------------------------------------------- */

static int wake_back(void *arg)
{
	weft_pid *peer = arg;

	for (int i = 0; i < 100; i++) {
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
		cr_assert_eq(weft_wake(*peer), 0);
	}
	return 0;
}

Test(embed, two_runtimes_of_one_thread_wake_each_other, .timeout = 120)
{
	weft_rt *rts[2] = {embedded(), embedded()};
	weft_pid pids[2];
	struct pollfd fds[2];

	for (int i = 0; i < 2; i++) {
		pids[i] = rt_spawned(rts[i], wake_back, &pids[1 - i]);
		fds[i] = (struct pollfd){.fd = weft_rt_fd(rts[i]), .events = POLLIN};
	}
	cr_assert_eq(weft_wake(pids[0]), 0);
	/* The first wake is ours, so the other one's last finds this one ended, unjoined. */
	while (weft_try_join(pids[1], NULL) == -EAGAIN) {
		cr_assert_geq(poll(fds, 2, -1), 1);
		for (int i = 0; i < 2; i++)
			if (fds[i].revents)
				cr_assert_geq(weft_rt_poll(rts[i], WEFT_POLL), 0);
	}
	cr_assert_eq(weft_try_join(pids[0], NULL), 0);
	for (int i = 0; i < 2; i++)
		runtime_end(rts[i]);
}

static void *thread_of_its_own(void *arg)
{
	weft_rt *rt = embedded();
	int count = 0;

	(void)arg;
	cr_assert_eq(polled_result(rt, rt_spawned(rt, sleep_1ms, &count)), 0);
	runtime_end(rt);
	return NULL;
}

Test(embed, a_thread_that_has_had_a_runtime_may_end, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);
	pthread_t thread;
	int count = 0;

	for (int i = 0; i < 20; i++) {
		cr_assert_eq(pthread_create(&thread, NULL, thread_of_its_own, NULL), 0);
		pthread_join(thread, NULL);
		cr_assert_eq(runtime_do(rt, count_up, &count), 7);
	}
	runtime_end(rt);
}

/* ---- The end -------------------------------------------------------------------------------- */

struct nested_block_on {
	weft_rt *rt;
	int count;
};

static int blocks_on_its_own(void *arg)
{
	struct nested_block_on *nested = arg;

	cr_assert_eq(weft_rt_block_on(nested->rt, count_up, &nested->count, NULL, NULL), -EDEADLK);
	return 0;
}

static void *blocks_on_from_elsewhere(void *arg)
{
	struct nested_block_on *nested = arg;
	int result = 0;

	cr_assert_eq(weft_rt_block_on(nested->rt, sleep_1ms, &nested->count, NULL, &result), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(weft_rt_start(nested->rt), 0);
	return NULL;
}

Test(embed, block_on_polls_until_its_process_has_ended, .timeout = 120)
{
	struct nested_block_on nested = {.rt = embedded()};
	weft_pid sleeper = rt_spawned(nested.rt, sleep_long, NULL);
	pthread_t thread;
	int result = -1;

	cr_assert_eq(weft_rt_block_on(nested.rt, count_up, &nested.count, NULL, &result), 0);
	cr_assert_eq(result, 7);
	cr_assert_eq(weft_rt_block_on(nested.rt, sleep_1ms, &nested.count, NULL, &result), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(nested.count, 2);
	cr_assert_eq(weft_rt_block_on(nested.rt, blocks_on_its_own, &nested, NULL, &result), 0);
	cr_assert_eq(nested.count, 2, "refused, and nothing has happened");
	cr_assert_eq(weft_cancel(sleeper), 0);
	cr_assert_eq(pthread_create(&thread, NULL, blocks_on_from_elsewhere, &nested), 0);
	while (weft_rt_poll(nested.rt, WEFT_FOREVER) >= 0)
		;
	pthread_join(thread, NULL);
	cr_assert_eq(nested.count, 3);
	cr_assert_eq(weft_rt_block_on(nested.rt, count_up, &nested.count, NULL, NULL), -ESHUTDOWN);
	runtime_end(nested.rt);
}

static int stops_and_computes(void *arg)
{
	weft_time end;

	cr_assert_eq(weft_rt_stop(arg, 0, WEFT_POLL), 0);
	end = weft_after(WEFT_MS(3));
	while (weft_now() < end)
		;
	return weft_yield();
}

/* Whoever waits in weft_rt_destroy() may free the runtime as soon as a poll has told of its end. */
Test(embed, the_poll_that_tells_of_the_end_says_so, .timeout = 120)
{
	weft_rt *rt = embedded();
	int r;

	(void)rt_spawned(rt, stops_and_computes, rt);
	while ((r = weft_rt_poll(rt, WEFT_POLL)) >= 0)
		cr_assert(!rt->embed.over);
	cr_assert_eq(r, -ESHUTDOWN);
	runtime_end(rt);
}

Test(embed, the_runtime_ends_with_its_last_process, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0, r;
	weft_pid pid = rt_spawned(rt, sleep_1ms, &count);

	poll_all(rt);
	cr_assert_eq(weft_rt_start(rt), 0);
	while ((r = weft_rt_poll(rt, WEFT_FOREVER)) >= 0)
		;
	cr_assert_eq(r, -ESHUTDOWN);
	cr_assert_eq(count, 1);
	cr_assert_eq(weft_rt_poll(rt, WEFT_FOREVER), -ESHUTDOWN);
	cr_assert_eq(weft_rt_spawn(rt, count_up, &count, NULL, NULL), -ESHUTDOWN);
	cr_assert_eq(weft_try_join(pid, NULL), 0);
	runtime_end(rt);
}

Test(embed, run_polls_until_the_end, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0;
	weft_pid pid = rt_spawned(rt, sleep_1ms, &count);

	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(weft_try_join(pid, NULL), 0);
	runtime_end(rt);
}

Test(embed, block_on_lets_the_others_go_on, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0, result = -1;
	weft_pid other = rt_spawned(rt, parks, NULL);

	cr_assert_eq(weft_rt_block_on(rt, sleep_1ms, &count, NULL, &result), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(count, 1);
	cr_assert_eq(weft_try_join(other, NULL), -EAGAIN, "the others go on");
	runtime_end(rt);
	cr_assert_eq(weft_try_join(other, NULL), -ESRCH);
}

Test(embed, a_stop_by_its_thread_polls_through_the_grace, .timeout = 120)
{
	weft_rt *rt = embedded();
	int count = 0, result = -1;
	weft_pid pid = rt_spawned(rt, sleep_1ms, &count);

	poll_all(rt);
	cr_assert_eq(weft_rt_stop(rt, WEFT_SEC(NET_PATIENCE_S), NET_SOON), 0);
	cr_assert_eq(count, 1);
	cr_assert_eq(weft_try_join(pid, &result), 0);
	cr_assert_eq(result, 0, "it had time for that");
	cr_assert_eq(weft_rt_poll(rt, WEFT_POLL), -ESHUTDOWN);
	runtime_end(rt);
}

static void *stop_it(void *arg)
{
	cr_assert_eq(weft_rt_stop(arg, 0, NET_SOON), 0);
	return NULL;
}

Test(embed, a_stop_by_another_thread_waits_for_the_polls, .timeout = 120)
{
	weft_rt *rt = embedded();
	pthread_t thread;
	weft_pid pid = rt_spawned(rt, sleep_long, NULL);
	int r, result = 0;

	cr_assert_eq(pthread_create(&thread, NULL, stop_it, rt), 0);
	while ((r = weft_rt_poll(rt, WEFT_FOREVER)) >= 0)
		;
	cr_assert_eq(r, -ESHUTDOWN);
	pthread_join(thread, NULL);
	cr_assert_eq(weft_try_join(pid, &result), 0);
	cr_assert_eq(result, -ECANCELED);
	runtime_end(rt);
}

static int stop_others(void *arg)
{
	return weft_rt_stop(arg, 0, WEFT_FOREVER);
}

Test(embed, a_process_begins_the_stop_of_the_other_runtime_of_its_thread, .timeout = 120)
{
	weft_rt *rt = embedded(), *other = embedded();

	cr_assert_eq(polled_result(rt, rt_spawned(rt, stop_others, other)), -EDEADLK);
	while (weft_rt_poll(other, WEFT_FOREVER) >= 0)
		;
	runtime_end(other);
	runtime_end(rt);
}

static int stay(void *arg)
{
	wf_atomic_u32 *stop = arg;

	while (!wf_u32_load_relaxed(stop))
		(void)weft_yield(); /* cancelled, and goes on */
	return 0;
}

static void quiet(void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)level;
	(void)worker;
	(void)pid;
	(void)text;
}

Test(embed, destroy_refuses_while_somebody_survives, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.flags = WEFT_RT_EMBEDDED, .log = quiet});
	wf_atomic_u32 stop = {0};

	(void)rt_spawned(rt, stay, &stop);
	cr_assert_eq(weft_rt_destroy(rt, weft_after(WEFT_MS(10))), -EBUSY);
	cr_assert_eq(weft_rt_stop(rt, 0, weft_after(WEFT_MS(10))), -ETIMEDOUT);
	wf_u32_store_relaxed(&stop, 1);
	runtime_end(rt);
}

static void *destroy_it(void *arg)
{
	cr_assert_eq(weft_rt_destroy(arg, NET_SOON), 0);
	return NULL;
}

Test(embed, another_thread_may_destroy_what_has_ended, .timeout = 120)
{
	for (int i = 0; i < 50; i++) {
		unsigned fds = harness_fd_count();
		weft_rt *rt = embedded();
		pthread_t thread;

		cr_assert_geq(weft_rt_fd(rt), 0);
		(void)rt_spawned(rt, sleep_long, NULL);
		cr_assert_eq(pthread_create(&thread, NULL, destroy_it, rt), 0);
		while (weft_rt_poll(rt, WEFT_FOREVER) >= 0)
			;
		pthread_join(thread, NULL);
		cr_assert_eq(harness_fd_count(), fds);
	}
}
