/*
 * Signals for processes: an owner's thread hands them out beside subscribers who wait, give up, are
 * cancelled, unsubscribe and end. What a coordinator reads from the kernel a thread makes up here.
 */
#include <weft/signal.h>

#include "core/signals.h"
#include "test/sim/scene.h"

enum { SCHEDULES = 5000, KINDS = 3, GIVE_UPS = 3 };

static const int kinds[KINDS] = {SIGHUP, SIGUSR1, SIGUSR2};

static struct {
	struct gate subscribed[SCENE_BODIES], go;
	bool sent[KINDS];
	unsigned received[SCENE_BODIES][KINDS];
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

static uint64_t all_kinds(void)
{
	return WEFT_SIGNAL_BIT(SIGHUP) | WEFT_SIGNAL_BIT(SIGUSR1) | WEFT_SIGNAL_BIT(SIGUSR2);
}

/* --- the owner --- */

static void own(void)
{
	sim_check(wf_signals_own() == 0, "somebody owns signals");
	sim_check(wf_signals_own() == -EBUSY, "two own signals");
}

/* To how many. */
static unsigned send(unsigned kind)
{
	s.sent[kind] = true;
	return wf_signals_deliver(kinds[kind]);
}

static void begin(unsigned workers)
{
	scene_create(workers);
	own();
}

static void end(void)
{
	wf_signals_disown();
	scene_destroy();
}

/* A body on any worker, or on both. */
static void spawn_subscriber(unsigned number, weft_fn fn)
{
	struct weft_spawn_opts opts =
		scene_opts(sim_random(3), sim_random(2) ? WEFT_MOVABLE : 0);

	if (opts.worker != 0)
		opts.flags = 0;
	body_spawn(&scene.bodies[number], fn, &opts);
}

static void await_subscribers(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		gate_await(&s.subscribed[i]);
}

/* --- subscribers --- */

static void subscribe(const struct body *body, uint64_t set)
{
	int r = weft_signal_subscribe(set);

	sim_check(r == 0, "weft_signal_subscribe: %d", r);
	gate_open(&s.subscribed[body_number(body)]);
}

/* A signal was sent, and is new to this process. */
static void note(const struct body *body, int signo)
{
	unsigned kind = 0;

	while (kind < KINDS && kinds[kind] != signo)
		kind++;
	sim_check(kind < KINDS && s.sent[kind], "signal %d was not sent", signo);
	sim_check(++s.received[body_number(body)][kind] == 1, "signal %d comes twice", signo);
}

/* A signal is noted. */
static int body_wait(struct body *body, weft_time deadline)
{
	int r;

	body_leave(body);
	r = weft_signal_wait(deadline);
	body_enter(body);
	if (r > 0)
		note(body, r);
	return r;
}

/* The same; gives up a few times before. */
static int await_signal(struct body *body)
{
	int r;

	for (unsigned i = sim_random(GIVE_UPS + 1); i > 0; i--) {
		r = body_wait(body, sim_random(3) ? weft_after(WEFT_US(sim_random(4))) : WEFT_POLL);
		if (r != -ETIME && r != -EAGAIN)
			return r;
	}
	return body_wait(body, WEFT_FOREVER);
}

/* --- each gets each, once --- */

static int receives_all(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	subscribe(body, all_kinds());
	for (unsigned i = 0; i < KINDS; i++) {
		r = await_signal(body);
		sim_check(r > 0, "weft_signal_wait: %d", r);
	}
	r = body_wait(body, WEFT_POLL);
	sim_check(r == -EAGAIN, "after the last one: %d", r);
	return body_end(body);
}

static void send_to_two(unsigned unused)
{
	(void)unused;
	begin(2);
	for (unsigned i = 0; i < 2; i++)
		spawn_subscriber(i, receives_all);
	await_subscribers(2);
	for (unsigned i = 0; i < KINDS; i++) {
		unsigned count = send(i);

		sim_check(count == 2, "%u of 2 receive", count);
	}
	for (unsigned i = 0; i < 2; i++)
		body_join(&scene.bodies[i]);
	sim_check(send(0) == 0, "who has ended receives");
	end();
}

SCENE(sending, "3 signals to 2", 1, send_to_two);

SIM_TEST(signals, each_subscriber_gets_each_once)
{
	sim_must_pass(&sending, SCHEDULES);
}

/* --- beside others who unsubscribe and end --- */

static int unsubscribes(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	subscribe(body, all_kinds());
	if (sim_random(2))
		(void)body_wait(body, weft_after(WEFT_US(2)));
	r = weft_signal_unsubscribe(WEFT_SIGNAL_BIT(SIGUSR1) | WEFT_SIGNAL_BIT(SIGUSR2));
	sim_check(r == 0, "weft_signal_unsubscribe: %d", r);
	r = body_wait(body, WEFT_POLL);
	sim_check(r == SIGHUP || r == -EAGAIN, "HUP is left: %d", r);
	r = weft_signal_unsubscribe(all_kinds());
	sim_check(r == 0, "weft_signal_unsubscribe: %d", r);
	r = body_wait(body, WEFT_POLL);
	sim_check(r == -EINVAL, "nothing is left: %d", r);
	return body_end(body);
}

/* Also with what has come, and with what it waited for. */
static int subscribes_and_ends(void *arg)
{
	struct body *body = body_begin(arg);

	subscribe(body, all_kinds());
	if (sim_random(2))
		(void)body_wait(body, weft_after(WEFT_US(sim_random(3))));
	return body_end(body);
}

static void send_beside_others(unsigned unused)
{
	static const weft_fn fns[] = {receives_all, unsubscribes, subscribes_and_ends};

	(void)unused;
	begin(2);
	for (unsigned i = 0; i < 3; i++)
		spawn_subscriber(i, fns[i]);
	await_subscribers(3);
	for (unsigned i = 0; i < KINDS; i++) {
		unsigned count = send(i);

		sim_check(count >= 1 && count <= 3, "%u receive", count);
		if (i == 1) {
			body_join(&scene.bodies[1]);
			body_join(&scene.bodies[2]);
		}
		sim_check(i < 2 || count == 1, "%u receive, and 1 is left", count);
	}
	body_join(&scene.bodies[0]);
	end();
}

SCENE(leaving, "1 stays, 1 unsubscribes, 1 ends", 1, send_beside_others);

SIM_TEST(signals, who_stays_gets_each_whoever_leaves)
{
	sim_must_pass(&leaving, SCHEDULES);
}

/* --- a wait that ends otherwise --- */

/* Cancelled, it is told of what has come under a shield: a wait that fails has taken none. */
static int cancelled(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	subscribe(body, all_kinds());
	r = await_signal(body);
	sim_check(r == SIGHUP || r == -ECANCELED, "weft_signal_wait: %d", r);
	sim_check(weft_shield_begin() == 0, "weft_shield_begin");
	if (r == -ECANCELED) {
		r = await_signal(body);
		sim_check(r == SIGHUP, "weft_signal_wait: %d", r);
	}
	r = body_wait(body, WEFT_POLL);
	sim_check(r == -EAGAIN, "after it: %d", r);
	return body_end(body);
}

static void cancel_beside(unsigned number)
{
	if (number == 1) {
		gate_await(&s.subscribed[0]);
		(void)weft_cancel(scene.bodies[0].pid);
		return;
	}
	begin(2);
	spawn_subscriber(0, cancelled);
	await_subscribers(1);
	sim_check(send(0) == 1, "nobody receives");
	body_join(&scene.bodies[0]);
	sim_thread_join(1);
	end();
}

SCENE(cancelling, "a signal and a cancel", 2, cancel_beside);

SIM_TEST(signals, a_cancelled_wait_has_taken_none)
{
	sim_must_pass(&cancelling, SCHEDULES);
}

/* --- the owner ends, another comes --- */

static int outlives_an_owner(void *arg)
{
	struct body *body = body_begin(arg);
	int r;

	subscribe(body, all_kinds());
	r = await_signal(body);
	if (r > 0)
		r = await_signal(body);
	sim_check(r == -ENOTSUP || r == -EINVAL, "there was one signal, and no owner: %d", r);
	gate_await(&s.go);
	memset(s.received, 0, sizeof(s.received));
	subscribe(&scene.bodies[1], all_kinds());
	r = await_signal(body);
	sim_check(r == SIGUSR1, "of the next owner: %d", r);
	return body_end(body);
}

static void change_owner(unsigned unused)
{
	(void)unused;
	begin(2);
	spawn_subscriber(0, outlives_an_owner);
	await_subscribers(1);
	if (sim_random(2))
		sim_check(send(0) == 1, "nobody receives");
	wf_signals_disown();
	own();
	sim_check(send(0) == 0, "a subscription outlives its owner");
	gate_open(&s.go);
	await_subscribers(2);
	sim_check(send(1) == 1, "nobody receives");
	body_join(&scene.bodies[0]);
	end();
}

SCENE(changing, "one owner, then another", 1, change_owner);

SIM_TEST(signals, an_owners_end_ends_waits_and_subscriptions)
{
	sim_must_pass(&changing, SCHEDULES);
}

/* --- a full table --- */

/* The places of those who have ended are found, by two at once, beside a signal. */
static void subscribe_to_a_full_table(unsigned unused)
{
	enum { ENDED = WF_SUBSCRIBERS_MAX, ALL = ENDED + 2 };

	(void)unused;
	begin(2);
	for (unsigned i = 0; i < ENDED; i++)
		spawn_subscriber(i, subscribes_and_ends);
	for (unsigned i = 0; i < ENDED; i++)
		body_join(&scene.bodies[i]);
	for (unsigned i = ENDED; i < ALL; i++)
		spawn_subscriber(i, receives_all);
	(void)wf_signals_deliver(SIGTERM);
	for (unsigned i = ENDED; i < ALL; i++)
		gate_await(&s.subscribed[i]);
	for (unsigned i = 0; i < KINDS; i++)
		sim_check(send(i) == 2, "not both receive");
	for (unsigned i = ENDED; i < ALL; i++)
		body_join(&scene.bodies[i]);
	end();
}

SCENE(full, "3 have ended, 2 subscribe", 1, subscribe_to_a_full_table);

SIM_TEST(signals, places_of_those_who_have_ended_are_used_again)
{
	sim_must_pass(&full, SCHEDULES);
}

/* --- planted --- */

SIM_TEST(signals, planted_nothing_is_kept)
{
	sim_must_find(&sending, WF_PLANTED_signal_goes_to_who_waits, 1000);
}

SIM_TEST(signals, planted_wait_published_late)
{
	sim_must_find(&sending, WF_PLANTED_signal_published_late, 10000);
}

SIM_TEST(signals, planted_pruned_by_place)
{
	sim_must_find(&full, WF_PLANTED_signal_prune_by_place, 10000);
}
