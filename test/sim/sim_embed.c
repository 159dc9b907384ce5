/*
 * An embedded runtime, stepped by a host that sleeps on its descriptor between two polls, while
 * others spawn, post, wake and stop.
 *
 * What is checked in every schedule, beside the invariants: the host does not sleep while a poll
 * has something to do (then everybody would sleep for ever), what was accepted has run, on the
 * host's thread, and nothing is left.
 */
#include "test/sim/runtime.h"

#include <errno.h>
#include <string.h>

#include "core/runtime.h"
#include "sync/futex.h"

enum { STEPS_MAX = 200000, OTHERS = 2 };

static struct {
	weft_rt *rt;
	wf_atomic_u32 created;
	unsigned accepted, done; /* spawns and posts */
	weft_pid waiter;
	bool woken;
} s;

static void setup(void)
{
	sim_runtime_reset();
	memset(&s, 0, sizeof(s));
}

static void run_here(void)
{
	sim_check(sim_thread_self() == 0, "something runs on a thread that is not the host's");
	s.done++;
}

static int sleeper(void *arg)
{
	weft_time until = weft_after(WEFT_US(20));

	(void)arg;
	run_here();
	(void)weft_sleep_until(until);
	return 0;
}

static int waiter(void *arg)
{
	(void)arg;
	s.woken = weft_park(WEFT_FOREVER) == 0;
	return 0;
}

static void posted(void *arg)
{
	(void)arg;
	run_here();
}

/* What poll(2) and weft_rt_poll() do in a host's loop. */
static void host(void)
{
	struct weft_rt_opts opts = *sim_runtime_opts(1);
	int r;

	opts.flags = WEFT_RT_EMBEDDED;
	sim_check(weft_rt_create(&opts, &s.rt) == 0, "weft_rt_create");
	sim_check(weft_rt_spawn(s.rt, waiter, NULL, NULL, &s.waiter) == 0, "weft_rt_spawn");
	wf_u32_store_release(&s.created, 1);
	wf_futex_wake(&s.created, SIM_THREADS_MAX);
	do {
		sim_runtime_await_descriptor(s.rt);
		r = weft_rt_poll(s.rt, WEFT_POLL);
	} while (r >= 0);
	sim_check(r == -ESHUTDOWN, "weft_rt_poll: %d", r);
	for (unsigned i = 1; i <= OTHERS; i++)
		sim_thread_join(i);
	sim_check(weft_try_join(s.waiter, NULL) == 0, "the waiter has not ended");
	sim_check(weft_rt_destroy(s.rt, WEFT_FOREVER) == 0, "weft_rt_destroy");
}

static void await_created(void)
{
	while (wf_u32_load_acquire(&s.created) == 0)
		(void)wf_futex_sleep(&s.created, 0, WF_FUTEX_FOREVER);
}

static void accepted(int r)
{
	sim_check(r == 0 || r == -ESHUTDOWN, "refused: %d", r);
	s.accepted += r == 0;
}

/* The first wakes the waiter, the second ends it all; or the waiter's end does. */
static void others(unsigned number)
{
	await_created();
	accepted(weft_rt_spawn(s.rt, sleeper, NULL, NULL, NULL));
	accepted(weft_post(s.rt, posted, NULL));
	if (number == 1) {
		(void)weft_wake(s.waiter);
		return;
	}
	(void)weft_rt_start(s.rt);
	if (sim_random(2))
		sim_check(weft_rt_stop(s.rt, 0, WEFT_FOREVER) == 0, "weft_rt_stop");
}

static void thread(unsigned number)
{
	if (number == 0)
		host();
	else
		others(number);
}

static void check(void)
{
	sim_check(s.done == s.accepted, "%u were accepted, %u have run", s.accepted, s.done);
	sim_runtime_check();
}

static const struct sim_scenario hosted = {
	"a host's loop", 1 + OTHERS, setup, thread, NULL, check, STEPS_MAX};

SIM_TEST(embed, a_host_that_sleeps_on_the_descriptor_misses_nothing)
{
	sim_must_pass(&hosted, 10000);
}

SIM_TEST(embed, planted_park_without_recheck)
{
	sim_must_find(&hosted, WF_PLANTED_park_without_recheck, 10000);
}
