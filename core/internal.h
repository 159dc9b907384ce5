/*
 * internal.h: small things that core's files share: options, threads, CPUs. The wrappers that own a
 * system facility (threads, futexes, files in /proc and /sys) are declared here, so that scheduler
 * code calls none of it itself.
 */
#ifndef WF_CORE_INTERNAL_H
#define WF_CORE_INTERNAL_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <weft.h>

#include "sync/atomic.h"
#include "sync/opts.h"

#define WF_OPTS_SIZE_TEXT "the options' size is not set, or of a newer release that uses more"

/* thread.c */

/* Starts a thread with all but the synchronous signals blocked. 0 or -errno. */
int wf_thread_start(pthread_t *thread_out, void (*fn)(void *arg), void *arg);
/* To stand behind "cannot be made": which limits, if the error means one. */
const char *wf_thread_remedy(int error);
void wf_thread_join(pthread_t thread);
void wf_thread_name(const char *name); /* of the caller; at most 15 bytes */
int wf_thread_pin(int cpu);            /* the caller; 0 or -errno */
/*
 * The CPUs the caller may use. 0 or -errno; what a thread cannot be told, it inherits from the
 * thread that starts it: from a worker, that worker's CPU.
 */
int wf_thread_get_cpus(cpu_set_t *cpus_out);
int wf_thread_set_cpus(const cpu_set_t *cpus);
void wf_thread_unpin(void);            /* the caller may run where main() may, if possible */
void wf_thread_yield(void);            /* whoever else is ready may have this CPU */
uintptr_t wf_thread_id(void);          /* of the caller: no other living thread has it; not 0 */
int wf_thread_number(void);            /* the caller's, the kernel's number */
void wf_thread_signal(pthread_t thread, int signal); /* one that lives, or is not yet joined */
void wf_thread_unblock(int signal);    /* for the caller */

/* What that thread of ours has computed so far; 0 where the kernel does not tell. */
uint64_t wf_thread_ran_ns(int id);
/* The system call it waits in; -1: none, it computes, or the kernel does not tell. */
long wf_thread_system_call(int id);

/*
 * Waits while *word == value, until the deadline (weft_time). Spurious returns happen. Any thread.
 */
void wf_futex_wait(wf_atomic_u32 *word, uint32_t value, weft_time deadline);
void wf_futex_wake_all(wf_atomic_u32 *word);

/* alarm.c: a descriptor that is readable from a point in time on. 0, or a descriptor, or -errno. */
int wf_alarm_open(void);
void wf_alarm_set(int fd, weft_time at); /* WEFT_FOREVER: never; a past time: now */
void wf_alarm_close(int fd);

/* What to round deadlines by, so that none is later by more than the slack, which is not 0. */
WF_INLINE uint64_t wf_slack_mask(weft_time slack_ns)
{
	return ((uint64_t)1 << (63 - __builtin_clzll((uint64_t)slack_ns))) - 1;
}

/* `delay_ns` after `now`; no later than WEFT_FOREVER, no earlier than now. */
WF_INLINE weft_time wf_time_after(weft_time now, weft_time delay_ns)
{
	if (delay_ns <= 0)
		return now;
	return delay_ns > WEFT_FOREVER - now ? WEFT_FOREVER : now + delay_ns;
}

/* cpu.c */

enum {
	WF_CPUS_MAX = 1024,
};

/* CPUs in the order workers are placed: physical cores before siblings, node by node. */
struct wf_cpus {
	unsigned count;
	int cpu[WF_CPUS_MAX];
};

/* The CPUs this thread may use. 0 or -errno. */
int wf_cpus_allowed(struct wf_cpus *cpus_out);

/* Parses "0,2-5". -EINVAL if malformed; the order is the list's. */
int wf_cpus_parse(const char *list, struct wf_cpus *cpus_out);

/* The cgroup's CPU quota in whole CPUs, rounded down (0: less than one), or -1: none. */
int wf_cpus_quota(void);

#endif
