/*
 * embed.c: a runtime whose one worker has no thread of its own: the thread that made the runtime is
 * the worker while it is inside weft_rt_poll(), and a foreign thread in between.
 *
 * A poll is what a worker's loop does, cut at its park. Between two polls the worker is parked as
 * others see it (steps P1 to P6 of core/README.md):
 *	1 at the end of a poll nothing is left to do: P1 to P3, as before a sleep. From here on
 *	  whoever makes something ready claims the parked bit and wakes the main driver, whose
 *	  descriptor becomes readable;
 *	2 instead of P4 the poll returns; the alarm, a descriptor that the main driver watches, is
 *	  set to when something falls due;
 *	3 the next poll begins with P4 in its shortest form, a wait with a deadline in the past,
 *	  which takes up the wake; then P5, with the token if there is one, and P6.
 * A poll that ends with work left over (its share of time is over) does not park: nobody need wake
 * it, and the alarm rings at once.
 *
 * RCU: the thread is registered as foreign threads are, until it ends, and online only inside a
 * poll; so it may step several runtimes, and go away when they are gone.
 *
 * With a virtual clock (core/testing.c) nobody sleeps: where a worker would, time goes to what is
 * due next. Only if that is never, and the caller would wait for ever, or while blocking work is
 * under way (U1, U2 of core/README.md), it sleeps for somebody else's wake.
 */
#include "core/embed.h"

#include <errno.h>

#include "core/hooks.h"
#include "core/internal.h"
#include "core/registry.h"

enum {
	POLL_TURNS_MAX = 16, /* of one poll; and it begins none after WF_TURN_NS_MAX */
};

static bool has_ended(const struct weft_rt *rt)
{
	return wf_u32_load_relaxed(&rt->stop_phase) == WF_ENDED;
}

bool wf_embed_is_owner(const struct weft_rt *rt)
{
	return (rt->flags & WEFT_RT_EMBEDDED) && rt->embed.owner == wf_thread_id();
}

/* --- the thread as worker --- */

static void become_worker(struct wf_worker *worker)
{
	wf_worker_set_self(worker);
	wf_rcu_enter_foreign();
	wf_scheduler_enter(&worker->sched);
}

static void resign(struct wf_worker *worker)
{
	wf_scheduler_leave(&worker->sched);
	wf_rcu_exit_foreign();
	wf_worker_set_self(NULL);
}

static void set_alarm(struct wf_embed *embed)
{
	if (embed->alarm_fd < 0 || embed->alarm_at == embed->wake_at)
		return;
	wf_alarm_set(embed->alarm_fd, embed->wake_at);
	embed->alarm_at = embed->wake_at;
}

/* For who waits in weft_rt_destroy() on another thread. `rt` may be gone afterwards. */
static void tell_ended(struct weft_rt *rt)
{
	wf_atomic_u32 *ended = &rt->workers_ended;

	rt->embed.over = true;
	(void)wf_u32_fetch_add(ended, 1);
	wf_futex_wake_all(ended);
}

int wf_embed_enter(struct weft_rt *rt)
{
	struct wf_worker *worker = &rt->workers[0];

	if (!(rt->flags & WEFT_RT_EMBEDDED))
		return -EINVAL;
	if (wf_worker_self())
		return -EDEADLK;
	if (!wf_embed_is_owner(rt))
		return -EPERM;
	if (rt->embed.over)
		return -ESHUTDOWN;
	become_worker(worker);
	if (rt->embed.parked) {
		wf_worker_sleep(worker, WEFT_POLL); /* P4: only what has come already */
		rt->embed.parked = false;
		wf_worker_park_end(worker, true);
	}
	return 0;
}

bool wf_embed_leave(struct weft_rt *rt)
{
	struct wf_worker *worker = &rt->workers[0];
	struct wf_embed *embed = &rt->embed;
	bool ended = has_ended(rt) && !embed->parked;

	embed->wake_at = embed->parked ? wf_worker_next_deadline(worker) : 0;
	set_alarm(embed);
	if (ended) {
		wf_hooks_thread_stop(worker);
		wf_boot_close_worker(worker);
	}
	resign(worker);
	if (ended)
		tell_ended(rt);
	return ended;
}

int wf_embed_open(struct weft_rt *rt)
{
	int r;

	rt->embed = (struct wf_embed){
		.owner = wf_thread_id(), .alarm_fd = -1, .alarm_at = WEFT_FOREVER };
	become_worker(&rt->workers[0]);
	r = wf_boot_open_worker(&rt->workers[0]);
	if (r < 0) {
		wf_boot_close_worker(&rt->workers[0]);
		resign(&rt->workers[0]);
		wf_boot_close_drivers(rt);
		return rt->errors[0].error;
	}
	wf_hooks_thread_start(&rt->workers[0]);
	/* Parked, so that what comes before the first poll wakes the descriptor too. */
	(void)wf_embed_step(rt, 0);
	(void)wf_embed_leave(rt);
	return 0;
}

void wf_embed_close(struct weft_rt *rt)
{
	if ((rt->flags & WEFT_RT_EMBEDDED) && rt->embed.alarm_fd >= 0)
		wf_alarm_close(rt->embed.alarm_fd);
}

/* --- steps --- */

/* What P3 would see of a stop and of the end, for who never parks. */
static enum wf_step look_at_life(struct weft_rt *rt)
{
	if (wf_life_try_end(rt))
		return WF_STEP_ENDED;
	return wf_u32_load_relaxed(&rt->stop_phase) != rt->workers[0].seen_stop ? WF_STEP_BUSY
										: WF_STEP_IDLE;
}

enum wf_step wf_embed_step(struct weft_rt *rt, unsigned budget)
{
	struct wf_worker *worker = &rt->workers[0];

	if (has_ended(rt))
		return WF_STEP_ENDED;
	if (wf_worker_turn(worker, budget)) {
		wf_worker_search_end(worker);
		return WF_STEP_BUSY;
	}
	if (wf_worker_look_around(worker, true) || wf_worker_next_due(worker) <= worker->now)
		return WF_STEP_BUSY;
	if (rt->idle_mode == WEFT_IDLE_SPIN)
		return look_at_life(rt);
	rt->embed.parked = wf_worker_park_begin(worker);
	if (rt->embed.parked)
		return WF_STEP_IDLE;
	return has_ended(rt) ? WF_STEP_ENDED : WF_STEP_BUSY;
}

static void awake(struct weft_rt *rt, bool waited)
{
	if (!rt->embed.parked)
		return;
	rt->embed.parked = false;
	wf_worker_park_end(&rt->workers[0], waited);
}

/* --- virtual time --- */

bool wf_embed_is_held(struct weft_rt *rt)
{
	/* U2: first the jobs, then the queues: what a job that is over has woken is in them. */
	return wf_pool_is_working(rt) || !wf_injector_is_empty(&rt->workers[0].inbox)
		|| !wf_injector_is_empty(&rt->injector);
}

/* Goes to where something falls due, at most to `limit`. False: that is never. */
static bool skip(struct weft_rt *rt, weft_time limit)
{
	weft_time next = wf_worker_next_due(&rt->workers[0]);

	if (next > limit)
		next = limit;
	if (next == WEFT_FOREVER)
		return false;
	if (next > wf_rt_now(rt))
		wf_u64_store_relaxed(&rt->clock, (uint64_t)next);
	return true;
}

/* Until somebody has woken the worker, or the deadline of the kernel's clock. */
static void hold(struct weft_rt *rt, weft_time deadline)
{
	if (!rt->embed.parked) {
		wf_thread_yield(); /* it spins */
		return;
	}
	/* Something is queued: perhaps without a wake (wf_inbox_send_quietly). */
	if (!wf_pool_is_working(rt) && wf_embed_is_held(rt)) {
		awake(rt, false);
		return;
	}
	wf_worker_sleep_on(&rt->workers[0], deadline); /* P4 */
	awake(rt, true);
}

bool wf_embed_pass(struct weft_rt *rt, weft_time limit)
{
	if (wf_embed_is_held(rt)) {
		hold(rt, WEFT_FOREVER);
		return true;
	}
	if (!skip(rt, limit))
		return false;
	awake(rt, false);
	return true;
}

/* --- waiting, idle --- */

/*
 * Until when: of the runtime's clock; and, should that be held, of the kernel's.
 */
struct until {
	weft_time deadline, held;
};

static bool may_wait(struct weft_rt *rt, struct until until)
{
	if (rt->clock_virtual && wf_embed_is_held(rt))
		return until.held == WEFT_FOREVER || until.held > wf_clock_now_ns();
	return until.deadline > rt->workers[0].now;
}

/* Until something has happened, or the deadline. */
static void wait(struct weft_rt *rt, struct until until)
{
	if (rt->clock_virtual) {
		if (wf_embed_is_held(rt))
			hold(rt, until.held);
		else if (skip(rt, until.deadline))
			awake(rt, false);
		else
			hold(rt, WEFT_FOREVER);
	} else if (rt->embed.parked) { /* else it spins */
		wf_worker_sleep(&rt->workers[0], until.deadline); /* P4 */
		awake(rt, true);
	}
}

/* Turns until there is nothing to do, but for about a millisecond at most. */
static enum wf_step run_turns(struct weft_rt *rt, bool *did)
{
	struct wf_worker *worker = &rt->workers[0];
	weft_time start = 0;

	for (unsigned turns = 0; turns < POLL_TURNS_MAX; turns++) {
		enum wf_step step = wf_embed_step(rt, WF_BUDGET);

		if (step != WF_STEP_BUSY)
			return step;
		*did = true;
		if (turns == 0)
			start = worker->now;
		else if (worker->now - start >= WF_TURN_NS_MAX)
			break;
	}
	return WF_STEP_BUSY;
}

/* --- the public calls --- */

static int poll_until(struct weft_rt *rt, struct until until)
{
	int r = wf_embed_enter(rt);
	bool did = false;
	enum wf_step step;

	if (r < 0)
		return r;
	step = run_turns(rt, &did);
	while (step == WF_STEP_IDLE && !did && may_wait(rt, until)) {
		wait(rt, until);
		step = run_turns(rt, &did);
	}
	if (wf_embed_leave(rt))
		return -ESHUTDOWN;
	return step == WF_STEP_BUSY;
}

int weft_rt_poll(weft_rt *rt, weft_time deadline)
{
	weft_time held = deadline > wf_rt_now(rt) ? WEFT_FOREVER : WEFT_POLL;

	return poll_until(rt, (struct until){ deadline, held });
}

static int open_alarm(struct weft_rt *rt)
{
	const struct wf_open_driver *main = wf_worker_main_driver(&rt->workers[0]);
	int fd = wf_alarm_open();
	int r;

	if (fd < 0)
		return fd;
	r = main->driver->watch(main->state, fd);
	if (r < 0) {
		wf_alarm_close(fd);
		return r;
	}
	rt->embed.alarm_fd = fd;
	set_alarm(&rt->embed);
	return 0;
}

int weft_rt_fd(weft_rt *rt)
{
	const struct wf_open_driver *main;

	if (!(rt->flags & WEFT_RT_EMBEDDED))
		return -EINVAL;
	if (wf_worker_self())
		return -EDEADLK;
	if (!wf_embed_is_owner(rt))
		return -EPERM;
	main = wf_worker_main_driver(&rt->workers[0]);
	if (rt->idle_mode == WEFT_IDLE_SPIN || !main->driver->descriptor || !main->driver->watch)
		return -ENOTSUP;
	if (rt->embed.alarm_fd < 0) {
		int r = open_alarm(rt);

		if (r < 0)
			return r;
	}
	return main->driver->descriptor(main->state);
}

/* --- until something has ended --- */

/*
 * One poll. -ESHUTDOWN: the runtime has ended; -EDEADLK: the clock is virtual, and everything that
 * is alive waits for ever.
 */
static int drive(struct weft_rt *rt, weft_time deadline)
{
	struct until until = { rt->clock_virtual ? WEFT_POLL : deadline, deadline };
	int r = poll_until(rt, until);

	if (r == 0 && rt->clock_virtual && !wf_embed_is_held(rt) && !skip(rt, WEFT_FOREVER))
		return -EDEADLK;
	return r;
}

bool wf_embed_drive(struct weft_rt *rt, weft_time deadline)
{
	for (;;) {
		int r = drive(rt, deadline);

		if (r < 0)
			return r == -ESHUTDOWN;
		if (deadline != WEFT_FOREVER && wf_clock_now_ns() >= deadline)
			return false;
	}
}

int wf_embed_join(struct weft_rt *rt, weft_pid pid, int *result_out)
{
	int r, driven = 0;

	while ((r = weft_try_join(pid, result_out)) == -EAGAIN && driven != -EDEADLK)
		driven = drive(rt, WEFT_FOREVER);
	if (r != -EAGAIN)
		return r;
	(void)weft_detach(pid);
	return -EDEADLK;
}
