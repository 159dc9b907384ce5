/*
 * driver.h: the seam between the scheduler and I/O: all that core/ knows of io/.
 *
 * A driver is a source of completions that a worker polls and may sleep in. The seam is data: io/
 * defines the objects at the end of this page, core/ calls through them.
 *
 * Each worker has one main driver, its only park point: wf_drivers[] lists them, the first is the
 * default's fallback. Beside it every worker opens the poll-mode drivers of wf_poll_drivers[]. What
 * ends a sleep on behalf of one of those is its descriptor, which the main driver watches, or
 * wf_worker_kick() (core/sched.h), or its next_deadline().
 *
 * A spin-only driver has nothing that could end a sleep. A runtime with one, main or not, never
 * parks: its workers idle as with WEFT_IDLE_SPIN, whatever the program asked for, and one line on
 * the log says so, at level warn if it asked, else info (none if it asked for that). With
 * WEFT_IDLE_SPIN, for whatever reason, nobody calls arm, wait, disarm, wake, watch or descriptor of
 * any driver; a spin-only one may leave them NULL.
 *
 * Who calls what. open, poll, flush, next_deadline, arm, wait, disarm, watch, descriptor: the
 * owning worker's thread only. close: whoever destroys the runtime, after that thread has ended;
 * in reverse order of opening. wake: any thread, between a successful open and close. stats: any
 * thread, figures are relaxed.
 *
 * When a worker polls. Every turn and WF_IO_INTERVAL picks, and all the time while it spins. One
 * that had nothing is left out 1, 3, 7, then always 8 times, until it has something again or the
 * worker nothing to run; the main one only while turns are full. So a poll that finds nothing
 * should cost a few loads. flush: at the end of every turn.
 *
 * How a worker sleeps:
 *	1 arm(), all drivers, the main one first: make sure that everything that happens from here
 *	  on ends a wait; WF_DRIVER_RETRY if something is there already: those armed before are
 *	  disarmed, and the worker polls all instead of sleeping.
 *	2 the worker announces its park and re-checks its queues (sync/idle.h).
 *	3 wait(deadline), the main one: sleeps until the deadline (no later than any driver's
 *	  next_deadline()), a completion, a watched descriptor, or wake(); handles its completions
 *	  as poll() does. A wake() between 1 and 3 makes it return at once: wakes are latched.
 *	4 disarm(), all, in reverse. Also when 2 found something and 3 was left out.
 *	5 after 3: poll(), all others.
 * Between arm() and disarm() nothing but next_deadline() and wait() is called.
 *
 * poll() and wait() make processes ready by wf_wait_claim() (core/sched.h). The worker sets things
 * up so that wakes from inside them are collected and followed by at most one work wake, and one
 * directed wake per worker.
 */
#ifndef WF_CORE_DRIVER_H
#define WF_CORE_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <weft/time.h>

struct wf_worker;
struct weft_rt;

enum {
	WF_DRIVER_RETRY = 1, /* from arm(): poll again before sleeping */
};

enum {
	WF_POLL_DRIVERS_MAX = 4, /* of a worker, beside its main driver */
};

/* struct wf_driver.caps */
#define WF_DRIVER_CAN_PARK  (1u << 0) /* may be a main driver: has arm, wait, disarm, wake */
#define WF_DRIVER_SPIN_ONLY (1u << 1) /* forbids parking: see above */
#define WF_DRIVER_NEEDS_KICK (1u << 2)
#define WF_DRIVER_ZERO_COPY (1u << 3)
#define WF_DRIVER_STREAM    (1u << 4)
#define WF_DRIVER_DATAGRAM  (1u << 5)
#define WF_DRIVER_RAW       (1u << 6)
#define WF_DRIVER_VIRTUAL   (1u << 7) /* as main driver: "tcp:" is a network of its own */

struct wf_driver_stats {
	uint64_t polls, polls_empty, waits, events, wakes_sent;
};

struct wf_driver {
	const char *name;
	unsigned caps;

	/*
	 * Opens this worker's instance. 0 or negative errno (then nothing is left to close). A main
	 * driver's state begins with what io/ registers descriptors by: struct wf_poller, io/fd.h.
	 */
	int (*open)(struct wf_worker *worker, void **state_out);

	/*
	 * Handles at most `budget` completions without blocking. Returns how many, 0 when idle, or
	 * a negative errno other than -EINTR, which ends the runtime with step "poll". May make no
	 * system call when it has reason to know that nothing came (no descriptor is watched).
	 */
	int (*poll)(void *state, unsigned budget, weft_time now);

	/* End of a turn: one doorbell for everything the turn submitted. */
	void (*flush)(void *state);

	/* The driver's own earliest deadline; WEFT_FOREVER: none. */
	weft_time (*next_deadline)(void *state);

	int (*arm)(void *state);
	int (*wait)(void *state, weft_time deadline, weft_time now); /* returns as poll */
	void (*disarm)(void *state);

	/* Ends the owner's wait(), or its next one. Any thread; async-signal-safe; never fails. */
	void (*wake)(void *state);

	/*
	 * Lets wait() also end while `fd` (of a poll-mode driver) is readable. 0 or -errno. poll()
	 * need not look at it: the worker polls that driver itself.
	 */
	int (*watch)(void *state, int fd);

	/*
	 * Poll-mode drivers: a descriptor that is readable while poll() would find something, or
	 * when next_deadline() has become earlier; asked once, after open. NULL or a negative
	 * result: there is none; such a driver ends the owner's sleep by wf_worker_kick().
	 *
	 * Main drivers, after arm(): a descriptor that is readable once wait() would return at
	 * once; wait() with a deadline in the past makes it unreadable again. An embedded runtime's
	 * host polls it (core/embed.c). NULL: the driver cannot be waited for from outside.
	 */
	int (*descriptor)(void *state);

	void (*stats)(const void *state, struct wf_driver_stats *stats_out);

	/* After every process has ended and every other worker is past its last wake(). */
	void (*close)(void *state);
};

/* What a runtime has of I/O beside its drivers: the servers, buffers. */
struct wf_io_hooks {
	int (*rt_open)(struct weft_rt *rt, void **state_out); /* before any worker exists */
	void (*drain)(void *state); /* S0 of a stop: any thread, once: servers stop accepting */
	void (*rt_close)(void *state); /* after every driver has closed: an assertion, then free */
};

extern const struct wf_driver *const wf_drivers[]; /* main drivers; NULL ends it */

/*
 * Poll-mode drivers that every worker opens beside its main one, after it and in this order; one
 * that is the runtime's main driver is left out. They have open, poll and close; NULL may stand for
 * next_deadline, descriptor and stats, and in any driver for flush, arm and disarm. NULL ends it.
 */
extern const struct wf_driver *const wf_poll_drivers[];
extern const struct wf_io_hooks wf_io_hooks;

#endif
