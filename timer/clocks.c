/*
 * clocks.c: clock objects, for loops that are not ours. The words and rules are in clocks.h.
 *
 * A clock is a wheel (wheel.h), a lock around it if it is shared, and a count of those who use it.
 * The functions are the same for both kinds: an isolated clock just does not lock. (The runtime's
 * shared.h has shards and leaders, which one driver needs none of; but its timers stay in the shard
 * that they were put into, and its lock is not the caller's, to relocate under two.)
 *
 * Timers. A node's `where` is the clock it is pending on; with FIRED, the one it fired on; NULL,
 * neither. It changes under that clock's lock (both locks, when it is relocated), and what is done
 * to a node is done under the lock of the clock that `where` names: who wants to cancel reads it,
 * takes that lock, and reads it again. The lock's holder touches a node for the last time by
 * storing `where` (O1); from then on its memory is the caller's.
 *
 * Expiry. Under the lock what is due is copied out, {fn, arg} each, at most BATCH at a time, and
 * marked FIRED; the calls are made unlocked, on the copies. Isolated clocks take one at a time, so
 * that a callback still can cancel what is due with it. Each batch is counted when it is taken and
 * when its calls have returned: who finds a timer FIRED reads the first count under the lock, and
 * waits until the second has come to it.
 *
 * The owner of the driver sleeps until `told`. Who makes something due earlier lowers it, and calls
 * `sooner` without the lock; INT64_MIN: nobody need be told, the owner is inside advance, which
 * looks by itself at the end, or has closed the driver. Close waits for such calls (`tellers`).
 *
 * The end. `uses` counts users, and DRIVEN stands for the driver. The last of them to go frees the
 * clock. Both leave under the lock, so that nobody else is still in it then.
 *
 * Progress: isolated: no shared state. Shared: blocking, for as long as 16 timers take.
 */
#include "timer/clocks.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sync/fault.h"
#include "sync/opts.h"
#include "sync/spinlock.h"
#include "timer/clock.h"
#include "timer/wheel.h"

enum {
	BATCH = 16, /* timers for which the lock of a shared clock is held */
	FIRED = 1,
};

#define DRIVEN  ((uint64_t)1 << 32) /* of `uses`; below: users */
#define CLOSING ((uint32_t)1 << 31) /* of `tellers`; below: how many are inside `sooner` */

/* What is in a struct weft_clock_timer. */
struct node {
	struct wf_timer timer; /* user: fn's argument */
	void (*fn)(void *arg);
	wf_atomic_ptr where;
};

static_assert(sizeof(struct node) == sizeof(struct weft_clock_timer), "the public size is ours");

/* What is in a struct weft_clock_shared. */
struct root {
	struct wf_spinlock lock;
	struct weft_clock *clock; /* from activation until it is freed */
};

static_assert(WEFT_CLOCK_FIRES_MAX % BATCH == 0, "it fires whole batches");
static_assert(sizeof(struct root) == sizeof(struct weft_clock_shared), "the public size is ours");

struct weft_clock_driver {
	wf_atomic_ptr inside; /* the thread that advances or closes it */
};

struct weft_clock {
	struct weft_clock_config config;
	struct weft_clock_driver driver;
	wf_atomic_ptr thread; /* of an isolated one; NULL: detached */
	wf_atomic_u64 now;    /* the wheel's, for anybody */
	wf_atomic_u64 uses;
	wf_atomic_u32 tellers;
	wf_atomic_u32 done;    /* batches whose calls have returned */
	wf_atomic_u32 waiters; /* for `done` */
	struct wf_spinlock lock;
	/* Under the lock from here on. */
	uint32_t started; /* batches */
	bool closed;
	int64_t told;
	int64_t advanced_at; /* of the kernel's clock; -1: never */
	uint64_t fired;
	struct wf_wheel wheel;
};

/* --- who may --- */

/* Of the calling thread: no other living thread has it; not NULL. */
static void *self(void)
{
#if defined(WF_ATOMICS_SIM)
	return (void *)(uintptr_t)(wf_sim_self() + 1);
#else
	return (void *)(uintptr_t)pthread_self();
#endif
}

static bool is_shared(const struct weft_clock *clock)
{
	return clock->config.kind == WEFT_CLOCK_SHARED;
}

static bool may_use(const struct weft_clock *clock)
{
	return !WF_DEBUG || is_shared(clock) || wf_ptr_load_relaxed(&clock->thread) == self();
}

static void lock(struct weft_clock *clock)
{
	if (is_shared(clock))
		wf_spinlock_lock(&clock->lock);
}

static void unlock(struct weft_clock *clock)
{
	if (is_shared(clock))
		wf_spinlock_unlock(&clock->lock);
}

static struct weft_clock *clock_of(weft_clock_driver *driver)
{
	return WF_CONTAINER_OF(driver, struct weft_clock, driver);
}

static bool is_inside(const struct weft_clock *clock)
{
	return wf_ptr_load_relaxed(&clock->driver.inside) == self();
}

/* One thread at a time, and not from within itself. */
static int driver_enter(struct weft_clock *clock)
{
	void *nobody = NULL;

	if (!may_use(clock))
		return -EPERM;
	/* O3, with O4 of driver_leave: who advanced last has done all that it did. */
	if (wf_ptr_cas(&clock->driver.inside, &nobody, self()))
		return 0;
	return nobody == self() ? -EDEADLK : -EBUSY;
}

static void driver_leave(struct weft_clock *clock)
{
	/* O4, with O3. */
	wf_ptr_store_release(&clock->driver.inside, NULL);
}

/* --- telling the driver's owner --- */

/* When a deadline will fire; FOREVER: never. */
static int64_t due_at(const struct weft_clock *clock, int64_t deadline)
{
	if (deadline <= clock->wheel.now_ns)
		return clock->wheel.now_ns;
	if (deadline >= WF_WHEEL_END_NS)
		return WEFT_FOREVER;
	return (int64_t)(wf_wheel_tick_of(deadline) << WF_TICK_SHIFT);
}

/* Under the lock. True: tell(clock, when) is to follow, without it. */
static bool must_tell(struct weft_clock *clock, int64_t when)
{
	if (when >= clock->told)
		return false;
	clock->told = when;
	if (!clock->config.sooner)
		return false;
	(void)wf_u32_fetch_add(&clock->tellers, 1);
	return true;
}

/* The clock may be gone when it returns. */
static void tell(struct weft_clock *clock, int64_t when)
{
	clock->config.sooner(clock->config.ctx, when);
	/* O5, with O6 of wait_for_tellers: the call is over before its ctx may go. */
	if (wf_u32_fetch_add(&clock->tellers, (uint32_t)-1) == (CLOSING | 1))
		wf_futex_wake(&clock->tellers, 1);
}

static void wait_for_tellers(struct weft_clock *clock)
{
	uint32_t tellers = wf_u32_fetch_or(&clock->tellers, CLOSING) | CLOSING;

	while (tellers != CLOSING) {
		(void)wf_futex_sleep(&clock->tellers, tellers, WF_FUTEX_FOREVER);
		/* O6, with O5. */
		tellers = wf_u32_load_acquire(&clock->tellers);
	}
}

/* --- making and ending --- */

static int config_read(
	const struct weft_clock_config *config, struct weft_clock_config *config_out)
{
	int r = wf_opts_read(config, config->size, config_out, sizeof *config_out);
	bool shared = config_out->kind == WEFT_CLOCK_SHARED;

	if (r < 0)
		return r;
	if (!shared && config_out->kind != WEFT_CLOCK_ISOLATED)
		return -EINVAL;
	if (shared != (config_out->shared != NULL))
		return -EINVAL;
	if (!memchr(config_out->name, 0, sizeof config_out->name))
		return -EINVAL;
	return config_out->start < 0 || config_out->start >= WF_WHEEL_END_NS ? -EINVAL : 0;
}

static struct weft_clock *clock_new(const struct weft_clock_config *config)
{
	int saved = errno; /* malloc sets it when it fails */
	void *memory = NULL;
	struct weft_clock *clock;

	if (wf_fails(WF_CALL_ALLOCATE)
		|| posix_memalign(&memory, WF_CACHE_LINE, sizeof *clock) != 0)
		memory = NULL;
	errno = saved;
	if (!memory)
		return NULL;
	memset(memory, 0, offsetof(struct weft_clock, wheel));
	clock = memory;
	clock->config = *config;
	clock->told = WEFT_FOREVER;
	clock->advanced_at = -1;
	wf_ptr_store_relaxed(&clock->thread, self());
	wf_u64_store_relaxed(&clock->uses, DRIVEN | 1);
	wf_wheel_init(&clock->wheel, config->start > 0 ? config->start : wf_clock_now_ns());
	if (is_shared(clock))
		clock->wheel.moves_max = BATCH;
	wf_u64_store_relaxed(&clock->now, (uint64_t)clock->wheel.now_ns);
	return clock;
}

static void clock_free(struct weft_clock *clock)
{
	struct root *root = (struct root *)(void *)clock->config.shared;

	WF_ASSERT(clock->wheel.count == 0);
	if (root) {
		wf_spinlock_lock(&root->lock);
		root->clock = NULL;
		wf_spinlock_unlock(&root->lock);
	}
	free(clock);
}

/* Whether the configuration means this clock from now on. */
static bool root_take(struct root *root, struct weft_clock *clock)
{
	bool taken;

	wf_spinlock_lock(&root->lock);
	taken = root->clock == NULL;
	if (taken)
		root->clock = clock;
	wf_spinlock_unlock(&root->lock);
	return taken;
}

int weft_clock_activate(const struct weft_clock_config *config, weft_clock **clock_out,
	weft_clock_driver **driver_out)
{
	struct weft_clock_config own;
	struct weft_clock *clock;
	int r = config_read(config, &own);

	if (r < 0)
		return r;
	clock = clock_new(&own);
	if (!clock)
		return -ENOMEM;
	if (own.shared && !root_take((struct root *)(void *)own.shared, clock)) {
		free(clock);
		return -EBUSY;
	}
	*clock_out = clock;
	*driver_out = &clock->driver;
	return 0;
}

static uint32_t users_of(uint64_t uses)
{
	return (uint32_t)uses;
}

/* Unless nobody uses it any more. */
static bool retain(struct weft_clock *clock)
{
	uint64_t uses = wf_u64_load_relaxed(&clock->uses);

	while (users_of(uses) > 0)
		if (wf_u64_cas(&clock->uses, &uses, uses + 1))
			return true;
	return false;
}

int weft_clock_find(const struct weft_clock_config *config, weft_clock **clock_out)
{
	struct weft_clock_config own;
	struct root *root;
	bool found;
	int r = config_read(config, &own);

	if (r < 0)
		return r;
	if (!own.shared)
		return -EINVAL;
	root = (struct root *)(void *)own.shared;
	/* Its memory does not go while we are in here: clock_free() takes this lock first. */
	wf_spinlock_lock(&root->lock);
	found = root->clock && retain(root->clock);
	if (found)
		*clock_out = root->clock;
	wf_spinlock_unlock(&root->lock);
	return found ? 0 : -ENOENT;
}

int weft_clock_retain(weft_clock *clock)
{
	if (!may_use(clock))
		return -EPERM;
	(void)retain(clock);
	return 0;
}

static void release_last(struct weft_clock *clock)
{
	int64_t now;
	uint64_t uses;
	bool telling;

	lock(clock);
	now = clock->wheel.now_ns;
	uses = wf_u64_fetch_add(&clock->uses, UINT64_MAX) - 1;
	telling = uses == DRIVEN && clock->wheel.count == 0 &&
		!WF_PLANTED(clock_last_release_tells_nobody) && must_tell(clock, now);
	unlock(clock);
	if (telling)
		tell(clock, now);
	else if (uses == 0)
		clock_free(clock);
}

int weft_clock_release(weft_clock *clock)
{
	uint64_t uses;

	if (!clock)
		return 0;
	if (!may_use(clock))
		return -EPERM;
	uses = wf_u64_load_relaxed(&clock->uses);
	while (users_of(uses) > 1)
		if (wf_u64_cas(&clock->uses, &uses, uses - 1))
			return 0;
	release_last(clock);
	return 0;
}

/* Under the lock: takes off some timer, the earliest slot's, or none. */
static struct node *take_any(struct weft_clock *clock)
{
	struct wf_timer *timer = wf_wheel_any(&clock->wheel);

	if (!timer)
		return NULL;
	(void)wf_wheel_cancel(&clock->wheel, timer);
	return WF_CONTAINER_OF(timer, struct node, timer);
}

/* Takes all timers off, none fires. No new ones come. */
static void drop_timers(struct weft_clock *clock)
{
	struct node *node;

	do {
		lock(clock);
		for (unsigned n = 0; n < BATCH && (node = take_any(clock)); n++)
			wf_ptr_store_release(&node->where, NULL); /* O1, see lock_pending */
		unlock(clock);
	} while (node);
}

int weft_clock_close(weft_clock_driver *driver)
{
	struct weft_clock *clock = clock_of(driver);
	bool last;
	int r = driver_enter(clock);

	if (r < 0)
		return r;
	if (!is_shared(clock) && wf_u32_load_relaxed(&clock->tellers) != 0) {
		driver_leave(clock);
		return -EDEADLK;
	}
	lock(clock);
	clock->closed = true;
	clock->told = INT64_MIN;
	unlock(clock);
	drop_timers(clock);
	if (!WF_PLANTED(clock_close_waits_for_nobody))
		wait_for_tellers(clock);
	driver_leave(clock);
	lock(clock);
	last = wf_u64_fetch_and(&clock->uses, ~DRIVEN) == DRIVEN;
	unlock(clock);
	if (last)
		clock_free(clock);
	return 0;
}

int weft_clock_detach(weft_clock_driver *driver)
{
	struct weft_clock *clock = clock_of(driver);

	if (is_shared(clock))
		return 0;
	if (!may_use(clock))
		return -EPERM;
	if (is_inside(clock))
		return -EDEADLK;
	wf_ptr_store_relaxed(&clock->thread, NULL);
	return 0;
}

int weft_clock_attach(weft_clock_driver *driver)
{
	struct weft_clock *clock = clock_of(driver);

	if (is_shared(clock))
		return 0;
	if (wf_ptr_load_relaxed(&clock->thread))
		return -EPERM;
	wf_ptr_store_relaxed(&clock->thread, self());
	return 0;
}

/* --- timers --- */

static struct node *node_of(struct weft_clock_timer *timer)
{
	return (struct node *)(void *)timer;
}

static bool has_fired(const void *where)
{
	return (uintptr_t)where & FIRED;
}

static void *fired_on(struct weft_clock *clock)
{
	return (char *)clock + FIRED;
}

weft_time weft_clock_now(const weft_clock *clock)
{
	return (weft_time)wf_u64_load_relaxed(&clock->now);
}

int weft_clock_start(weft_clock *clock, struct weft_clock_timer *timer, weft_time deadline,
	void (*fn)(void *arg), void *arg)
{
	struct node *node = node_of(timer);
	const void *where = wf_ptr_load_acquire(&node->where); /* O2, see lock_pending */
	int64_t when;
	bool telling;

	if (!fn)
		return -EINVAL;
	if (!may_use(clock))
		return -EPERM;
	if (where && !has_fired(where))
		return -EBUSY;
	lock(clock);
	if (clock->closed) {
		unlock(clock);
		return -ESHUTDOWN;
	}
	node->fn = fn;
	node->timer.user = arg;
	wf_wheel_insert(&clock->wheel, &node->timer, deadline);
	wf_ptr_store_relaxed(&node->where, clock);
	when = due_at(clock, deadline);
	telling = must_tell(clock, when);
	unlock(clock);
	if (telling)
		tell(clock, when);
	return 0;
}

/*
 * Finds the clock that the timer is pending on, and locks it. 1: done; 0: it is not pending; or
 * -EPERM.
 */
static int lock_pending(struct node *node, struct weft_clock **clock_out)
{
	for (;;) {
		/* O2, with O1: what the lock's holder did to the node is over; it may be freed. */
		void *where = wf_ptr_load_acquire(&node->where);

		if (!where || has_fired(where))
			return 0;
		*clock_out = where;
		if (!may_use(*clock_out))
			return -EPERM;
		lock(*clock_out);
		if (WF_PLANTED(clock_cancel_looks_once) ||
			wf_ptr_load_relaxed(&node->where) == where)
			return 1;
		unlock(*clock_out); /* it has fired, or was relocated */
	}
}

int weft_clock_move(struct weft_clock_timer *timer, weft_time deadline)
{
	struct node *node = node_of(timer);
	struct weft_clock *clock;
	int64_t when;
	bool telling;
	int r = lock_pending(node, &clock);

	if (r <= 0)
		return r;
	wf_wheel_move(&clock->wheel, &node->timer, deadline);
	when = due_at(clock, deadline);
	telling = must_tell(clock, when);
	unlock(clock);
	if (telling)
		tell(clock, when);
	return 1;
}

int weft_clock_cancel(struct weft_clock_timer *timer)
{
	struct node *node = node_of(timer);
	struct weft_clock *clock;
	int r = lock_pending(node, &clock);

	if (r <= 0)
		return r;
	(void)wf_wheel_cancel(&clock->wheel, &node->timer);
	/* O1, with O2 of lock_pending. */
	wf_ptr_store_release(&node->where, NULL);
	unlock(clock);
	return 1;
}

static bool is_done(uint32_t done, uint32_t batch)
{
	return (int32_t)(done - batch) >= 0;
}

/* 0, or -ETIME, -EAGAIN. */
static int sleep_until_done(struct weft_clock *clock, uint32_t batch, weft_time deadline)
{
	for (;;) {
		/* O8, with O7: either we see that it is done, or batch_done() sees us. */
		uint32_t done = wf_u32_load_seq_cst(&clock->done);
		uint64_t left = WF_FUTEX_FOREVER;

		if (is_done(done, batch))
			return 0;
		if (deadline == WEFT_POLL)
			return -EAGAIN;
		if (deadline != WEFT_FOREVER) {
			weft_time now = wf_clock_now_ns();

			if (deadline <= now)
				return -ETIME;
			left = (uint64_t)(deadline - now);
		}
		(void)wf_futex_sleep(&clock->done, done, left);
	}
}

/* Until the batches that have been taken so far are done. */
static int wait_for_batches(struct weft_clock *clock, weft_time deadline)
{
	uint32_t batch;
	int r;

	lock(clock);
	batch = clock->started;
	unlock(clock);
	if (!WF_PLANTED(clock_waiter_is_not_counted))
		(void)wf_u32_fetch_add(&clock->waiters, 1);
	r = sleep_until_done(clock, batch, deadline);
	if (!WF_PLANTED(clock_waiter_is_not_counted))
		(void)wf_u32_fetch_add(&clock->waiters, (uint32_t)-1);
	return r;
}

int weft_clock_cancel_wait(struct weft_clock_timer *timer, weft_time deadline)
{
	struct node *node = node_of(timer);
	struct weft_clock *clock;
	void *where;
	int r = weft_clock_cancel(timer);

	if (r != 0)
		return r;
	where = wf_ptr_load_acquire(&node->where); /* O2, see lock_pending */
	if (!has_fired(where))
		return 0;
	clock = (struct weft_clock *)(void *)((char *)where - FIRED);
	if (!may_use(clock))
		return -EPERM;
	return is_inside(clock) ? -EDEADLK : wait_for_batches(clock, deadline);
}

/* --- advancing --- */

struct call {
	void (*fn)(void *arg);
	void *arg;
};

/* Under the lock: copies out up to `max` of what is due. Returns how many. */
static unsigned batch_take(struct weft_clock *clock, struct call *calls, unsigned max)
{
	struct wf_timer *timer;
	unsigned n = 0;

	while (n < max && (timer = wf_wheel_pop_due(&clock->wheel))) {
		struct node *node = WF_CONTAINER_OF(timer, struct node, timer);

		calls[n++] = (struct call){ node->fn, timer->user };
		/* O1, with O2 of lock_pending: what was read of the node has been read. */
		wf_ptr_store_release(&node->where, fired_on(clock));
	}
	clock->started += n > 0;
	clock->fired += n;
	return n;
}

static void batch_done(struct weft_clock *clock)
{
	/* O7, with O8 of sleep_until_done: the calls' effects, and then whoever waits for them. */
	(void)wf_u32_fetch_add(&clock->done, 1);
	if (wf_u32_load_seq_cst(&clock->waiters) > 0)
		wf_futex_wake(&clock->done, INT_MAX);
}

/*
 * Locked at both ends. A shared clock is let go after each batch, and after as many moves between
 * slots: what is due may lie where the wheel has not come to yet.
 */
static void fire(struct weft_clock *clock)
{
	unsigned max = is_shared(clock) ? BATCH : 1;
	struct call calls[BATCH];

	for (unsigned fires = 0; fires < WEFT_CLOCK_FIRES_MAX; fires += max) {
		unsigned n = batch_take(clock, calls, max);

		if (n == 0 && (max == 1 || wf_wheel_next(&clock->wheel) > clock->wheel.now_ns))
			return;
		unlock(clock);
		for (unsigned i = 0; i < n; i++)
			calls[i].fn(calls[i].arg);
		if (n > 0)
			batch_done(clock);
		lock(clock);
		if (n < max)
			wf_wheel_advance(&clock->wheel, clock->wheel.now_ns);
	}
}

static enum weft_clock_state state_of(const struct weft_clock *clock)
{
	if (clock->wheel.count > 0)
		return WEFT_CLOCK_NEXT;
	return users_of(wf_u64_load_relaxed(&clock->uses)) > 0 ? WEFT_CLOCK_IDLE : WEFT_CLOCK_GONE;
}

static enum weft_clock_state advance(struct weft_clock *clock, weft_time now, weft_time *next_out)
{
	enum weft_clock_state state;
	weft_time next = WEFT_FOREVER;

	lock(clock);
	clock->told = INT64_MIN;
	wf_wheel_advance(&clock->wheel, now);
	clock->advanced_at = clock->config.start == 0 ? clock->wheel.now_ns : wf_clock_now_ns();
	wf_u64_store_relaxed(&clock->now, (uint64_t)clock->wheel.now_ns);
	fire(clock);
	state = state_of(clock);
	if (state == WEFT_CLOCK_NEXT)
		next = wf_wheel_next(&clock->wheel);
	clock->told = next;
	unlock(clock);
	if (next_out)
		*next_out = next;
	return state;
}

int weft_clock_advance(weft_clock_driver *driver, weft_time now, weft_time *next_out)
{
	struct weft_clock *clock = clock_of(driver);
	int r = driver_enter(clock);

	if (r < 0)
		return r;
	r = (int)advance(clock, now, next_out);
	driver_leave(clock);
	return r;
}

/* --- relocation --- */

static void lock_both(struct weft_clock *a, struct weft_clock *b)
{
	lock((uintptr_t)a < (uintptr_t)b ? a : b);
	lock((uintptr_t)a < (uintptr_t)b ? b : a);
}

/* Under both locks. Returns when the first of up to BATCH timers fires at `to`. */
static int64_t relocate_some(struct weft_clock *from, struct weft_clock *to, unsigned max)
{
	int64_t first = WEFT_FOREVER;

	for (unsigned n = 0; n < max; n++) {
		struct node *node = take_any(from);
		int64_t when;

		if (!node)
			break;
		wf_wheel_insert(&to->wheel, &node->timer, node->timer.deadline_ns);
		wf_ptr_store_relaxed(&node->where, to);
		when = due_at(to, node->timer.deadline_ns);
		first = when < first ? when : first;
	}
	return first;
}

int weft_clock_relocate(weft_clock *from, weft_clock *to)
{
	uint64_t left = UINT64_MAX; /* as many as there are at first: others may start more */

	if (from == to)
		return -EINVAL;
	if (!may_use(from) || !may_use(to))
		return -EPERM;
	while (left > 0) {
		int64_t when;
		bool telling, closed;

		lock_both(from, to);
		closed = to->closed;
		left = from->wheel.count < left ? from->wheel.count : left;
		when = closed ? WEFT_FOREVER
			      : relocate_some(from, to, left < BATCH ? (unsigned)left : BATCH);
		telling = must_tell(to, when);
		unlock(from);
		unlock(to);
		if (telling)
			tell(to, when);
		if (closed)
			return -ESHUTDOWN;
		left -= left < BATCH ? left : BATCH;
	}
	return 0;
}

/* --- for people --- */

static void describe(struct weft_clock *clock, struct weft_clock_info *info)
{
	info->kind = clock->config.kind;
	memcpy(info->name, clock->config.name, sizeof info->name);
	info->now = weft_clock_now(clock);
	lock(clock);
	info->pending = clock->wheel.count;
	info->fired = clock->fired;
	info->users = users_of(wf_u64_load_relaxed(&clock->uses));
	info->driven = !clock->closed;
	info->next = clock->told;
	info->advanced_ago = clock->advanced_at;
	unlock(clock);
	if (info->next == INT64_MIN) /* it is inside advance, or closed */
		info->next = info->driven ? info->now : WEFT_FOREVER;
	if (info->advanced_ago < 0) {
		info->advanced_ago = WEFT_FOREVER;
	} else {
		weft_time ago = wf_clock_now_ns() - info->advanced_ago;

		info->advanced_ago = ago > 0 ? ago : 0;
	}
}

int weft_clock_describe(weft_clock *clock, struct weft_clock_info *info_out)
{
	struct weft_clock_info info = { .size = info_out->size };

	if (info.size < sizeof info.size)
		return -EINVAL;
	if (!may_use(clock))
		return -EPERM;
	describe(clock, &info);
	if (info.size > sizeof info)
		memset((char *)info_out + sizeof info, 0, info.size - sizeof info);
	memcpy(info_out, &info, info.size < sizeof info ? info.size : sizeof info);
	return 0;
}
