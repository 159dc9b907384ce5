/*
 * sched.h: what modules above the scheduler (io/, and core's own join, channels, locks) use of it.
 *
 * One way of waiting serves them all:
 *
 *	struct wf_wait wait;                      on the waiter's stack
 *	int r = wf_wait_check();                  -EPERM outside a process, -ECANCELED
 *	wf_wait_begin(&wait);                     a new wait number
 *	… publish {wait.pid, wait.number} under the object's lock, unless the condition holds
 *	already …
 *	r = wf_wait_park(&wait, deadline);        0: a peer claimed it; -ETIME, -EAGAIN, -ECANCELED
 *	… if r != 0: unlink the waiter under the object's lock …
 *	wf_wait_end(&wait)                        only when the wait was begun but never parked in
 *
 * and the peer, having copied pid and number out under the object's lock and dropped the lock:
 *
 *	wf_wait_claim(rt, pid, number)            true: this call ended the wait: the process runs
 *
 * Exactly one of peer, deadline and cancel wins a wait: each CASes the process's claim word from
 * {number, none} to {number, winner}. A peer that comes late, with the number of a wait that is
 * over, fails and harms nothing, whatever the process does by then; a process that has ended is
 * found by its generation. The peer never touches the waiter's stack after it has dropped the
 * object's lock. "A ready result wins": where deadline or cancel lose the race, wf_wait_park()
 * returns 0.
 *
 * A task (<weft/task.h>) has no stack to wait on: it leaves its name, returns, is polled again.
 * An object that serves both bodies does the same in the same order, and this besides:
 *
 *	int r = wf_wait_check_once();             instead of wf_wait_check()
 *	… try; if that cannot succeed, and the deadline is not past already (the name to be taken
 *	out then could be one that an earlier call of the run has left, of the same number): begin,
 *	publish, as above: by value, in a slot of the
 *	object's (wf_wait_in_task(): not a waiter on the stack). Its own name in the slot, of
 *	whatever number, is replaced; so is another one if wf_wait_is_over() …
 *	r = wf_wait_park(&wait, deadline);        in a task: WEFT_PENDING; leave the name;
 *	                                          -ETIME, -EAGAIN, -ECANCELED: as above; never 0
 *
 * All that one run of a task arms has one number, so whoever comes first ends it for all, and that
 * number is over when the next run begins. Hence:
 *   - who owns a slot does not rely on it: a name in it may be over, at any time, without being
 *     withdrawn. A peer's claim of it fails: it goes on to the next waiter, if one event serves
 *     one.
 *   - an event that was for a task is not lost, whether or not the claim succeeds: the task tries
 *     again in its next run, or does not want it any more.
 *   - wf_wait_end() does nothing in a task.
 */
#ifndef WF_CORE_SCHED_H
#define WF_CORE_SCHED_H

#include <stdarg.h>

#include <weft.h>

#include "sync/check.h"

struct wf_driver;
struct wf_worker;

struct wf_wait {
	weft_pid pid;
	uint32_t number;
};

/*
 * The calling thread's worker, NULL on foreign threads. Never inlined: a movable process may be on
 * another thread after each park, and compilers keep thread-local addresses in registers. Do not
 * carry the result over anything that parks.
 */
struct wf_worker *wf_worker_self(void);
struct weft_rt *wf_worker_rt(const struct wf_worker *worker);
unsigned wf_worker_number(const struct wf_worker *worker);

/* Its main driver, and that one's state. */
void *wf_worker_driver_state(const struct wf_worker *worker);
const struct wf_driver *wf_worker_driver(const struct wf_worker *worker);

/*
 * The state of `driver` on that worker, be it its main driver or one beside it; NULL: not open. Any
 * thread while the runtime lives, once weft_rt_create() has returned; the owner from open on.
 */
void *wf_worker_driver_state_of(
	const struct wf_worker *worker, const struct wf_driver *driver);

/*
 * Ends the worker's sleep in its main driver, or its next one: it polls all its drivers. For
 * poll-mode drivers without a descriptor. Says nothing else: whoever calls has published what poll
 * is to find. Any thread while the runtime lives; async-signal-safe; one system call at most.
 */
void wf_worker_kick(struct wf_worker *worker);

/* The n-th worker of a runtime, and the CPU it is pinned to (-1: none). */
struct wf_worker *wf_rt_worker(const struct weft_rt *rt, unsigned number);
int wf_worker_cpu(const struct wf_worker *worker);

/* The io/ state of the runtime (struct wf_io_hooks.rt_open). */
void *wf_rt_io(const struct weft_rt *rt);

/* True once a stop has begun (S0): servers accept no more. */
bool wf_rt_is_draining(const struct weft_rt *rt);

/* 0 inside a fiber; -EPERM outside, and in a task; -ECANCELED when a cancel is pending. */
int wf_wait_check(void);

/*
 * The same for calls of one try, which tasks may make: 0 in a task too; there also WEFT_PENDING,
 * with a yield armed, when its run has used up its budget.
 */
int wf_wait_check_once(void);
bool wf_wait_in_task(void);

void wf_wait_begin(struct wf_wait *wait);
int wf_wait_park(struct wf_wait *wait, weft_time deadline);
/* The same for waits that may end late by the runtime's slack: for timeouts, of which few come. */
int wf_wait_park_slack(struct wf_wait *wait, weft_time deadline);
void wf_wait_end(struct wf_wait *wait);

/*
 * Whether nobody can claim that wait any more. Any worker; lock-free: allowed under an object's
 * lock, where a slot is found taken.
 */
bool wf_wait_is_over(weft_pid pid, uint32_t number);

/*
 * Any thread that keeps `rt` alive. Foreign threads cost a few 10 ns more (an RCU section each).
 */
bool wf_wait_claim(struct weft_rt *rt, weft_pid pid, uint32_t number);

/*
 * For drivers: around the system call that sleeps in wait(). In between the worker holds up no RCU
 * grace period, so the driver must not look up or wake a process there.
 */
void wf_worker_sleep_begin(void);
void wf_worker_sleep_end(void);

/*
 * One unit of the process's budget of operations, taken by each operation that made progress
 * without parking; when it is used up the process yields here (a task: in its next call). Keeps a
 * process that is always ready from holding its worker.
 */
void wf_budget_take(void);

/* Memory through the runtime's allocator. wf_free accepts NULL. */
void *wf_alloc(struct weft_rt *rt, size_t alignment, size_t size);
void wf_free(struct weft_rt *rt, void *memory, size_t size);

/*
 * Memory of no runtime's: the C library's. Any thread; errno is left alone. wf_shared_free accepts
 * NULL.
 */
void *wf_shared_alloc(size_t alignment, size_t size);
void wf_shared_free(void *memory, size_t size);

/* One line of log; cheap when the level is off. Any thread. */
void wf_log(struct weft_rt *rt, enum weft_log_level level, const char *format, ...) WF_PRINTF(3, 4);

/* --- Asked for by io/ --- */

/*
 * wf_wait_claim() for any thread that does not know whether the runtime still lives: finds it by
 * the id, and keeps it alive meanwhile. Used where a descriptor is closed by a thread of no
 * runtime, or of another one. False also when the runtime or the process is gone.
 */
bool wf_wait_claim_pid(weft_pid pid, uint32_t number);

/*
 * wf_wait_park() that a cancel neither prevents nor ends: for calls that, although cancelled, must
 * wait for what they began (weft_serve() for its acceptors). Returns 0, -ETIME, -EAGAIN.
 */
int wf_wait_park_shielded(struct wf_wait *wait, weft_time deadline);

#endif
