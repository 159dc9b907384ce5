/*
 * timer.c: <weft/timer.h>. A timer is a node of the shared wheel and what is to be done when it
 * fires; core/timers.h tells who fires it.
 *
 * A runtime's end takes its timers off (wf_timers_close()), after which they look as if never
 * started; only then it leaves the registry. Every call but the start finds the runtime by its
 * place there, so one that comes late meets no runtime that is gone; and one that finds none, no
 * timer that is still on a wheel.
 *
 * Waiting for an action (weft_timer_cancel_wait):
 *   H1  the waiter puts its name into the runtime's list, then takes the shard's lock once more,
 *       and looks whether the batch is done; if not it parks.
 *   H2  whoever has done a batch has counted it under the shard's lock; then it looks whether
 *       anybody waits, takes those out whose batch is done, and claims their waits.
 * If H2's look misses the name, its hold of the lock came before H1's, which then sees the count.
 *
 * A timer may be started again while its action is under way, as a rule in that action. Then it
 * goes back to the shard it has fired from. So two actions of one timer never overlap: a shard has
 * one expirer at a time; and who waits for that shard's batch waits for all of them.
 */
#include "core/timer.h"

#include <errno.h>

#include "core/internal.h"
#include "core/post.h"
#include "core/registry.h"
#include "core/timers.h"

struct timer {
	struct wf_timer node;
	union {
		void (*fn)(void *arg);
		weft_pid pid;
	};
	void *arg;
	uint64_t serial;      /* of the runtime whose wheel it was started on last */
	uint16_t shard;
	uint16_t slot;
	uint8_t action;       /* enum wf_timer_action */
	bool exact;           /* the clock is virtual: time stops wherever a timer is filed */
	uint64_t again;       /* a batch of that shard, in which an earlier start's action may be */
};

static_assert(sizeof(struct timer) <= sizeof(struct weft_timer), "the caller's memory is enough");
static_assert(_Alignof(struct timer) <= _Alignof(struct weft_timer), "and aligned");

enum {
	FOREIGN_LOOK_NS = 50000, /* how often a thread that is no worker looks whether it is done */
};

/* Who waits for a batch: on its stack. */
struct wf_timer_waiter {
	struct wf_timer_waiter *next;
	struct wf_wait wait;
	unsigned shard;
	uint64_t batch;
};

static struct timer *timer_of(struct weft_timer *timer)
{
	return (struct timer *)(void *)timer;
}

/* --- firing --- */

void wf_timer_copy(const struct wf_timer *node, struct wf_shared_action *action_out)
{
	const struct timer *timer = (const struct timer *)(const void *)node;

	action_out->word[0] = timer->action;
	if (timer->action == WF_TIMER_WAKE)
		action_out->word[1] = timer->pid.raw;
	else
		action_out->word[1] = (uint64_t)(uintptr_t)timer->fn;
	action_out->word[2] = (uint64_t)(uintptr_t)timer->arg;
}

void wf_timer_act(struct wf_worker *worker, const struct wf_shared_action *action)
{
	weft_pid pid = { action->word[1] };
	void (*fn)(void *arg) = (void (*)(void *))(uintptr_t)action->word[1];

	if (action->word[0] == WF_TIMER_WAKE) {
		(void)weft_wake(pid);
		return;
	}
	wf_watch_set(worker, WF_WATCH_CALL, 0);
	fn((void *)(uintptr_t)action->word[2]);
	wf_watch_set(worker, WF_WATCH_NOTHING, 0);
}

/* --- the runtime of a timer --- */

/* NULL: it is gone. Otherwise to be let go of. */
static struct weft_rt *rt_of(const struct timer *timer)
{
	struct weft_rt *rt = wf_registry_acquire(timer->slot);

	if (rt && rt->serial != timer->serial) {
		wf_registry_release(timer->slot);
		rt = NULL;
	}
	return rt;
}

/* Neither is it pending, nor can an action of it be under way. */
static bool is_at_rest(const struct timer *timer)
{
	return wf_shared_was_never_inserted(&timer->node) && timer->again == 0;
}

/*
 * It is not pending. That it has fired does not mean that its expirer has let go of it: who has had
 * the shard's lock since knows that.
 */
static void await_copy(struct timer *timer)
{
	struct weft_rt *rt;

	if (is_at_rest(timer))
		return;
	rt = rt_of(timer);
	timer->again = rt ? wf_shared_pass(&rt->timers, timer->shard) : 0;
	if (rt)
		wf_registry_release(rt->slot);
}

/* --- start, move, stop --- */

static int insert(struct weft_rt *rt, struct timer *timer, weft_time deadline)
{
	struct wf_worker *self = wf_worker_self();
	int r = 0;

	wf_rt_hold(rt);
	/* From the insert on it may fire, and be the caller's again, or somebody else's. */
	switch (wf_shared_insert(&rt->timers, timer->shard, &timer->node, WF_SHARED_TIMER,
		deadline)) {
	case WF_SHARED_CLOSED:
		r = -ESHUTDOWN;
		break;
	case WF_SHARED_EARLIER:
		wf_timers_published(rt, self && self->rt == rt ? self : NULL, deadline);
		break;
	case WF_SHARED_LATER:
		break;
	}
	wf_rt_let_go(rt);
	return r;
}

/* It may fire, and that may end all, before we have woken whom we wake: destroy waits for us. */
static int insert_foreign(struct weft_rt *rt, struct timer *timer, weft_time deadline)
{
	int r;

	wf_foreign_visit(rt);
	r = insert(rt, timer, deadline);
	wf_foreign_end(rt);
	return r;
}

static int start(struct timer *timer, struct weft_rt *rt, weft_time deadline,
	enum wf_timer_action action)
{
	struct wf_worker *self = wf_worker_self();

	if (!rt && !self)
		return -EPERM;
	if (!rt)
		rt = self->rt;
	if (wf_u32_load_relaxed(&rt->stop_phase) == WF_ENDED)
		return -ESHUTDOWN;
	timer->action = (uint8_t)action;
	timer->exact = rt->clock_virtual;
	if (timer->serial != rt->serial)
		timer->again = 0;
	timer->serial = rt->serial;
	timer->slot = (uint16_t)rt->slot;
	if (!timer->again)
		timer->shard = (uint16_t)wf_timers_shard(rt);
	return self && self->rt == rt ? insert(rt, timer, deadline)
				      : insert_foreign(rt, timer, deadline);
}

int weft_timer_start(struct weft_timer *timer, struct weft_rt *rt, weft_time deadline,
	void (*fn)(void *arg), void *arg)
{
	struct timer *t = timer_of(timer);

	if (!fn)
		return -EINVAL;
	if (wf_shared_is_pending(&t->node))
		return -EBUSY;
	await_copy(t);
	t->fn = fn;
	t->arg = arg;
	return start(t, rt, deadline, WF_TIMER_CALL);
}

int weft_timer_start_wake(
	struct weft_timer *timer, struct weft_rt *rt, weft_time deadline, weft_pid pid)
{
	struct timer *t = timer_of(timer);

	if (wf_shared_is_pending(&t->node))
		return -EBUSY;
	await_copy(t);
	t->pid = pid;
	return start(t, rt, deadline, WF_TIMER_WAKE);
}

/* To where the new deadline is: an earlier one, or any in virtual time. */
static int move_now(struct timer *timer, weft_time deadline)
{
	struct weft_rt *rt = rt_of(timer);
	int moved = 0;

	if (!rt)
		return 0;
	if (wf_shared_cancel(&rt->timers, timer->shard, &timer->node, NULL))
		moved = insert(rt, timer, deadline) == 0;
	wf_registry_release(rt->slot);
	return moved;
}

int weft_timer_move(struct weft_timer *timer, weft_time deadline)
{
	struct timer *t = timer_of(timer);

	if (WF_UNLIKELY(t->exact))
		return wf_shared_is_pending(&t->node) ? move_now(t, deadline) : 0;
	switch (wf_shared_move_later(&t->node, deadline)) {
	case WF_SHARED_OVER:
		return 0;
	case WF_SHARED_MOVED:
		return 1;
	case WF_SHARED_SOONER:
		break;
	}
	return move_now(t, deadline);
}

int weft_timer_stop(struct weft_timer *timer)
{
	struct timer *t = timer_of(timer);
	struct weft_rt *rt;
	bool stopped;

	if (wf_shared_was_never_inserted(&t->node))
		return 0;
	rt = rt_of(t);
	if (!rt)
		return 0;
	stopped = wf_shared_cancel(&rt->timers, t->shard, &t->node, NULL);
	wf_registry_release(rt->slot);
	return stopped;
}

bool weft_timer_is_pending(const struct weft_timer *timer)
{
	return wf_shared_is_pending(&((const struct timer *)(const void *)timer)->node);
}

/* --- waiting for an action --- */

static void add_waiter(struct weft_rt *rt, struct wf_timer_waiter *waiter)
{
	wf_spinlock_lock(&rt->timer_waiters_lock);
	waiter->next = rt->timer_waiters;
	rt->timer_waiters = waiter;
	(void)wf_u32_fetch_add(&rt->timer_waiters_count, 1);
	wf_spinlock_unlock(&rt->timer_waiters_lock);
}

/* With the lock. */
static void take_out(struct weft_rt *rt, struct wf_timer_waiter **link)
{
	*link = (*link)->next;
	(void)wf_u32_fetch_add(&rt->timer_waiters_count, (uint32_t)-1);
}

/* If nobody has taken it out yet. */
static void remove_waiter(struct weft_rt *rt, struct wf_timer_waiter *waiter)
{
	wf_spinlock_lock(&rt->timer_waiters_lock);
	for (struct wf_timer_waiter **link = &rt->timer_waiters; *link; link = &(*link)->next)
		if (*link == waiter) {
			take_out(rt, link);
			break;
		}
	wf_spinlock_unlock(&rt->timer_waiters_lock);
}

/* The name of one whose batch is done, taken out. False: there is none. */
static bool take_one(struct weft_rt *rt, struct wf_wait *wait_out)
{
	struct wf_timer_waiter **link;
	bool found = false;

	wf_spinlock_lock(&rt->timer_waiters_lock);
	for (link = &rt->timer_waiters; *link; link = &(*link)->next)
		if (wf_shared_is_done(&rt->timers, (*link)->shard, (*link)->batch)) {
			*wait_out = (*link)->wait;
			take_out(rt, link);
			found = true;
			break;
		}
	wf_spinlock_unlock(&rt->timer_waiters_lock);
	return found;
}

void wf_timer_tell_waiters(struct weft_rt *rt)
{
	struct wf_wait wait;

	while (take_one(rt, &wait))
		(void)wf_wait_claim_pid(wait.pid, wait.number);
}

/* In a fiber. */
static int wait_for(struct weft_rt *rt, struct timer *timer, uint64_t batch, weft_time deadline)
{
	struct wf_timer_waiter waiter = { .shard = timer->shard, .batch = batch };
	int r = 0;

	wf_wait_begin(&waiter.wait);
	add_waiter(rt, &waiter);
	/* H1: the shard's lock, as in H2: wf_timer_tell(). */
	wf_shared_pass(&rt->timers, timer->shard);
	if (!wf_shared_is_done(&rt->timers, waiter.shard, batch))
		r = wf_wait_park(&waiter.wait, deadline);
	remove_waiter(rt, &waiter);
	wf_wait_end(&waiter.wait);
	return r;
}

/* On a thread of no runtime. */
static int look_until(
	struct weft_rt *rt, unsigned shard, uint64_t batch, weft_time deadline)
{
	wf_atomic_u32 nobody = { 0 };

	while (!wf_shared_is_done(&rt->timers, shard, batch)) {
		weft_time now = wf_clock_now_ns();

		if (deadline == WEFT_POLL)
			return -EAGAIN;
		if (deadline <= now)
			return -ETIME;
		wf_futex_wait(&nobody, 0, now + FOREIGN_LOOK_NS);
	}
	return 0;
}

static int wait_in(struct weft_rt *rt, struct timer *timer, uint64_t batch, weft_time deadline)
{
	const struct wf_worker *self = wf_worker_self();

	if (!self)
		return look_until(rt, timer->shard, batch, deadline);
	if (self->rt == rt && !self->current && self->timers_shard == timer->shard + 1u)
		return -EDEADLK;
	if (!self->current || wf_wait_in_task())
		return -EPERM;
	return wait_for(rt, timer, batch, deadline);
}

int weft_timer_cancel_wait(struct weft_timer *timer, weft_time deadline)
{
	struct timer *t = timer_of(timer);
	struct weft_rt *rt;
	uint64_t batch;
	bool stopped;
	int r = 0;

	if (is_at_rest(t))
		return 0;
	rt = rt_of(t);
	if (!rt)
		return 0;
	stopped = wf_shared_cancel(&rt->timers, t->shard, &t->node, &batch);
	if (batch < t->again)
		batch = t->again;
	if (!wf_shared_is_done(&rt->timers, t->shard, batch))
		r = wait_in(rt, t, batch, deadline);
	wf_registry_release(rt->slot);
	return r < 0 ? r : stopped;
}
