/*
 * <weft/clocks.h>: clocks that somebody else's loop drives. No runtime is needed.
 *
 *	struct weft_clock_config config = { .size = sizeof config, .name = "io" };
 *
 *	weft_clock_activate(&config, &clock, &driver);
 *	weft_clock_start(clock, &timer, weft_now() + WEFT_MS(50), on_timeout, arg);
 *	for (;;) {
 *		state = weft_clock_advance(driver, weft_now(), &next);	runs what is due
 *		…sleep until `next`, and for what else there is
 *	}
 *
 * A CONFIGURATION is an inactive clock: plain data, to be copied and handed to other threads. It
 * becomes, on the thread that activates it, a CLOCK, which has timers and users, and exactly one
 * DRIVER, which makes its time pass. Two kinds:
 *
 *	isolated   each activation, of whichever copy, makes a clock of its own, bound to the thread
 *	           that made it (its own thread): clock, timers and driver are used there only
 *	shared     all copies mean one clock: any thread uses it; its driver is used by any thread,
 *	           one at a time. Timers fire on the thread that advances
 *
 * An isolated clock used off its thread gives -EPERM in debug builds of the library, and is a data
 * race in others.
 *
 * A clock has users: the one who activated it, and each weft_clock_retain(). It exists until the
 * last one has released it and its driver is closed. Who calls a function on a clock, or on a timer
 * that may be pending on it, is a user, or inside a callback of that clock.
 *
 * Times are nanoseconds since any beginning; those of a real clock are weft_now()'s. The clock's
 * `now` is what its driver was last told; nothing fires in between. A timer never fires before its
 * deadline's tick (1 us by default) is over: at most one tick late, plus what advance comes late.
 */
#ifndef WEFT_CLOCKS_H
#define WEFT_CLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weft/time.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weft_clock weft_clock;
typedef struct weft_clock_driver weft_clock_driver;

enum weft_clock_kind {
	WEFT_CLOCK_ISOLATED = 0,
	WEFT_CLOCK_SHARED,
};

/*
 * What the copies of a shared configuration have in common: caller-owned memory, zero at first, in
 * place until the clock is gone.
 */
struct weft_clock_shared {
	uint64_t opaque[2];
};

/* An inactive clock. Zero everywhere (but `size`): isolated, without a name, in real time. */
struct weft_clock_config {
	size_t size; /* sizeof(struct weft_clock_config) */
	enum weft_clock_kind kind;
	char name[32];                    /* for weft_clock_describe(); ends in a zero byte */
	weft_time start;                  /* its time at first; 0: real, that is weft_now()'s */
	struct weft_clock_shared *shared; /* of WEFT_CLOCK_SHARED, and of no other */
	/*
	 * For a driver whose owner sleeps: advance is to be called by `when` already, earlier than
	 * the last advance, or the last call of this, said. So for an earlier deadline, and (with
	 * the clock's present time) once the last user is gone with no timer left. NULL: nobody
	 * asks. On the thread that made it so, unlocked, never while it is inside advance; on
	 * several at once, if the clock is shared, so that a later `when` may come after an earlier
	 * one. It may use the clock, but neither close the driver nor wait for who does.
	 */
	void (*sooner)(void *ctx, weft_time when);
	void *ctx;
};

/*
 * A timer: caller-owned memory, zero at first. The clock's from weft_clock_start() until it has
 * fired or was taken off: in place meanwhile, and not written.
 */
struct weft_clock_timer {
	uint64_t opaque[7];
};

/* What weft_clock_advance() returns. */
enum weft_clock_state {
	WEFT_CLOCK_NEXT = 0, /* there are timers: *next_out says when to advance again */
	WEFT_CLOCK_IDLE = 1, /* there are none, but users who may start some */
	WEFT_CLOCK_GONE = 2, /* neither timers nor users: nothing will ever fire: close it */
};

enum {
	WEFT_CLOCK_FIRES_MAX = 256, /* timers that one advance fires; the rest is for the next */
};

/*
 * Makes a clock, and its driver.
 * config: only read, during the call.
 * Ownership: the caller is a user of *clock_out, until weft_clock_release(); *driver_out is the
 * caller's, until weft_clock_close().
 * Threads: any thread. An isolated clock's thread is this one. Blocks: never.
 * Returns: 0; -EBUSY: it is shared, and its clock exists; -EINVAL: `size` or a field of another
 * release, an unknown kind, a name without end, a negative or too large start, `shared` that does
 * not go with the kind; -ENOMEM (a clock takes about 34 KB).
 */
WEFT_API int weft_clock_activate(const struct weft_clock_config *config, weft_clock **clock_out,
	weft_clock_driver **driver_out);

/*
 * The clock that a shared configuration means, for a thread that has a copy of that.
 * Ownership: the caller is a user, until weft_clock_release().
 * Threads: any thread. Blocks: never.
 * Returns: 0; -ENOENT: it is not active, or its last user is gone; -EINVAL as
 * weft_clock_activate(), and for an isolated one.
 */
WEFT_API int weft_clock_find(const struct weft_clock_config *config, weft_clock **clock_out);

/*
 * One more user, or one less. Timers stay: those of a clock without users fire still.
 * weft_clock_release() accepts NULL.
 * Threads: any user; isolated: its own. Blocks: never.
 * Returns: 0, or -EPERM (isolated, another thread).
 */
WEFT_API int weft_clock_retain(weft_clock *clock);
WEFT_API int weft_clock_release(weft_clock *clock);

/*
 * The time its driver was last told; at first that of the activation, or `start`.
 * Threads: any user. Blocks: never.
 */
WEFT_API weft_time weft_clock_now(const weft_clock *clock);

/*
 * Has fn(arg) called once, on the thread that advances the clock, when `deadline` has come: in the
 * order of deadlines, equal ones in the order of their starts (timers far away and others started
 * much later, for the same tick, may change places). A deadline that has come already fires in the
 * next advance, or in this one. WEFT_FOREVER: not before it is moved. The callback may use the
 * clock and all timers: its own, too, which is not pending any more, and whose memory is the
 * caller's again.
 * Threads: any user; isolated: its own. One at a time for each timer. Blocks: never.
 * Returns: 0; -EBUSY: the timer is pending; -ESHUTDOWN: the driver is closed; -EINVAL: no fn;
 * -EPERM.
 */
WEFT_API int weft_clock_start(weft_clock *clock, struct weft_clock_timer *timer, weft_time deadline,
	void (*fn)(void *arg), void *arg);

/*
 * Changes the deadline of a pending timer; to a later one costs one store (and, if the clock is
 * shared, its lock). The clock may have been relocated.
 * Threads, Blocks: as weft_clock_start(). Returns: 1: done; 0: it is not pending, and nothing has
 * happened; -EPERM.
 */
WEFT_API int weft_clock_move(struct weft_clock_timer *timer, weft_time deadline);

/*
 * Takes a timer off. Idempotent; also for one that is zero, has fired, or was relocated. When it
 * returns the timer's memory is the caller's, in both cases.
 * Threads: any user; isolated: its own. Blocks: never.
 * Returns: 1: it was pending, its callback will not run; 0: it was not. If the clock is shared,
 * its callback may then still run or be about to: weft_clock_cancel_wait(). -EPERM.
 */
WEFT_API int weft_clock_cancel(struct weft_clock_timer *timer);

/*
 * weft_clock_cancel(), and waits until the callback of the timer's last start has returned, if it
 * has begun or will, but not for one of a start before that. (Isolated clocks have nothing to wait
 * for.) The clock that it fired on must exist; after a relocation the caller is a user of both.
 * deadline: of weft_now().
 * Threads: as weft_clock_cancel(). Blocks: the thread, also that of a fiber, until then or the
 * deadline. Cancel: no.
 * Returns: 1: it was pending; 0: its callback has returned, or there is none; -ETIME, -EAGAIN
 * (WEFT_POLL): it has not yet; -EDEADLK: nor will it while it is waited for: the caller is inside a
 * callback of that clock; -EPERM.
 */
WEFT_API int weft_clock_cancel_wait(struct weft_clock_timer *timer, weft_time deadline);

/*
 * Tells the clock the time, and fires what is due: at most WEFT_CLOCK_FIRES_MAX timers. Those that
 * callbacks start for now are among them.
 * now: an earlier time than the last counts as that one.
 * next_out: when to advance again: `now` if more is due; WEFT_FOREVER if there is no timer, or none
 * that ever fires. May be earlier than needed. May be NULL.
 * Threads: isolated: its own; shared: one at a time. Blocks: never (the callbacks might).
 * Returns: an enum weft_clock_state; -EDEADLK inside a callback of this clock; -EBUSY: another
 * thread is inside; -EPERM.
 */
WEFT_API int weft_clock_advance(weft_clock_driver *driver, weft_time now, weft_time *next_out);

/*
 * Gives the driver up: time stands still from now on. Timers that are pending will not fire: they
 * are taken off, and their memory is the caller's again. No `sooner` comes after it has returned.
 * Threads: as weft_clock_advance(). Blocks: while another thread is inside `sooner`.
 * Returns: 0; -EDEADLK inside a callback of this clock, or an isolated clock's `sooner`; -EBUSY:
 * another thread advances it; -EPERM. On errors nothing has happened.
 */
WEFT_API int weft_clock_close(weft_clock_driver *driver);

/*
 * Takes an isolated clock to another thread: detach on its own, hand `driver` over (by whatever
 * orders what both threads do: a lock, a queue, a join), attach on the other, which is its own from
 * then on, with all users and timers. In between nobody may use it. A shared one needs neither:
 * nothing happens.
 * Blocks: never. Returns: 0; -EDEADLK: inside a callback of this clock; -EPERM: not on its thread;
 * attach: it was not detached.
 */
WEFT_API int weft_clock_detach(weft_clock_driver *driver);
WEFT_API int weft_clock_attach(weft_clock_driver *driver);

/*
 * Moves all pending timers of `from` to `to`, with their deadlines, which `to` takes for its own
 * time; what has come there fires in the next advance of `to`. Each timer is always on one of the
 * two; moves and cancels go on meanwhile. Timers that others start on `from` meanwhile may stay.
 * The clocks keep their users and drivers. From now on the rules of `to` hold for the timers: who
 * moves or cancels one is a user of it, on its thread if it is isolated.
 * Threads: a user of both; on the thread of each that is isolated (weft_clock_detach() brings them
 * together). Blocks: never; takes time in proportion to the timers, and locks for 16 at a time.
 * Returns: 0; -EINVAL: they are the same; -ESHUTDOWN: the driver of `to` is closed; -EPERM.
 */
WEFT_API int weft_clock_relocate(weft_clock *from, weft_clock *to);

/* A clock, for people. */
struct weft_clock_info {
	size_t size; /* sizeof(struct weft_clock_info), set by the caller */
	enum weft_clock_kind kind;
	char name[32];
	uint64_t pending; /* timers */
	uint64_t fired;   /* since its activation */
	uint32_t users;
	bool driven;            /* its driver is not closed */
	weft_time now, next;    /* of the clock; when its driver is expected to advance it */
	weft_time advanced_ago; /* nanoseconds since it did; WEFT_FOREVER: never so far */
};

/*
 * Describes a clock: one whose `advanced_ago` is long, with `next` in the past, is not driven as it
 * should be. A real clock is taken at its word as to when it was advanced.
 * info_out: its `size` is read, the rest written, as far as that goes.
 * Threads: any user; isolated: its own. Blocks: never.
 * Returns: 0; -EINVAL: `size` is not set; -EPERM.
 */
WEFT_API int weft_clock_describe(weft_clock *clock, struct weft_clock_info *info_out);

#ifdef __cplusplus
}
#endif

#endif
