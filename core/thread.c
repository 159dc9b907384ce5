/*
 * thread.c: the wrapper that owns threads, futexes and thread-local storage.
 *
 * The accessor of the current worker is noinline in a file of its own: compilers may keep the
 * address of a thread-local over a call, and a movable fiber comes back from a call on another
 * thread.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/internal.h"
#include "core/registry.h"
#include "core/self.h"
#include "sync/fault.h"
#include "sync/spinlock.h"

__thread struct wf_worker *wf_self_worker;
static __thread void *foreign_cache;

static struct wf_spinlock foreign_lock; /* over the next two; never more than a key's making */
static pthread_key_t foreign_key;
static bool foreign_key_made;

WF_NOINLINE struct wf_worker *wf_worker_self(void)
{
	struct wf_worker *worker = wf_self_worker;

	/* Keeps callers from being given this function's result as a property of the thread. */
	wf_compiler_barrier();
	return worker;
}

WF_NOINLINE void wf_worker_set_self(struct wf_worker *worker)
{
	wf_self_worker = worker;
}

WF_NOINLINE uintptr_t wf_thread_id(void)
{
	return (uintptr_t)&wf_self_worker;
}

/* --- what a foreign thread keeps --- */

static void foreign_ends(void *cache)
{
	foreign_cache = cache;
	wf_table_foreign_forget();
	foreign_cache = NULL;
	free(cache);
}

/* Once for the process. Not pthread_once: a refusal may pass, and must not last for ever. */
static bool foreign_key_make(void)
{
	bool made;

	wf_spinlock_lock(&foreign_lock);
	if (!foreign_key_made)
		foreign_key_made = !wf_fault(WF_CALL_THREAD_KEY)
			&& pthread_key_create(&foreign_key, foreign_ends) == 0;
	made = foreign_key_made;
	wf_spinlock_unlock(&foreign_lock);
	return made;
}

WF_COLD static void *foreign_cache_make(size_t size)
{
	int saved = errno;

	if (!foreign_key_make())
		return NULL;
	foreign_cache = wf_fails(WF_CALL_ALLOCATE) ? NULL : calloc(1, size);
	if (foreign_cache
		&& (wf_fault(WF_CALL_THREAD_KEY)
			|| pthread_setspecific(foreign_key, foreign_cache) != 0)) {
		free(foreign_cache);
		foreign_cache = NULL;
	}
	errno = saved;
	return foreign_cache;
}

WF_NOINLINE void *wf_foreign_cache(size_t size)
{
	return WF_LIKELY(foreign_cache != NULL) ? foreign_cache : foreign_cache_make(size);
}

/* --- threads --- */

struct thread_start {
	void (*fn)(void *arg);
	void *arg;
};

static void *thread_main(void *arg)
{
	struct thread_start start = *(struct thread_start *)arg;

	free(arg);
	start.fn(start.arg);
	return NULL;
}

static void block_asynchronous(sigset_t *old_out)
{
	static const int synchronous[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < WF_ARRAY_COUNT(synchronous); i++)
		sigdelset(&set, synchronous[i]);
	pthread_sigmask(SIG_SETMASK, &set, old_out);
}

static int thread_start(pthread_t *thread_out, void (*fn)(void *arg), void *arg)
{
	struct thread_start *start = wf_fails(WF_CALL_ALLOCATE) ? NULL : malloc(sizeof *start);
	sigset_t old;
	int r;

	if (!start)
		return -ENOMEM;
	start->fn = fn;
	start->arg = arg;
	block_asynchronous(&old); /* the new thread inherits the mask */
	r = -(int)wf_fault(WF_CALL_THREAD);
	if (r == 0)
		r = pthread_create(thread_out, NULL, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r != 0)
		free(start);
	return -r;
}

const char *wf_thread_remedy(int error)
{
	return error == -EAGAIN ? " (memory, or a limit on threads: ulimit -u, pids.max)" : "";
}

int wf_thread_start(pthread_t *thread_out, void (*fn)(void *arg), void *arg)
{
	int saved = errno; /* a process's, when the resolver's thread is started */
	int r = thread_start(thread_out, fn, arg);

	errno = saved;
	return r;
}

void wf_thread_join(pthread_t thread)
{
	pthread_join(thread, NULL);
}

void wf_thread_name(const char *name)
{
	pthread_setname_np(pthread_self(), name);
}

int wf_thread_pin(int cpu)
{
	cpu_set_t set;
	int r = (int)wf_fault(SYS_sched_setaffinity);

	if (r < 0)
		return r;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

int wf_thread_get_cpus(cpu_set_t *cpus_out)
{
	int r = (int)wf_fault(SYS_sched_getaffinity);

	return r < 0 ? r : -pthread_getaffinity_np(pthread_self(), sizeof *cpus_out, cpus_out);
}

int wf_thread_set_cpus(const cpu_set_t *cpus)
{
	int r = (int)wf_fault(SYS_sched_setaffinity);

	return r < 0 ? r : -pthread_setaffinity_np(pthread_self(), sizeof *cpus, cpus);
}

void wf_thread_unpin(void)
{
	int saved = errno;
	cpu_set_t set;

	if (!wf_fails(SYS_sched_getaffinity) && sched_getaffinity(getpid(), sizeof set, &set) == 0
		&& !wf_fails(SYS_sched_setaffinity))
		(void)sched_setaffinity(0, sizeof set, &set);
	errno = saved;
}

void wf_thread_yield(void)
{
	(void)sched_yield();
}

/* --- a thread as the kernel sees it --- */

int wf_thread_number(void)
{
	return (int)syscall(SYS_gettid);
}

void wf_thread_signal(pthread_t thread, int signal)
{
	(void)pthread_kill(thread, signal);
}

void wf_thread_unblock(int signal)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

uint64_t wf_thread_ran_ns(int id)
{
	/* The clock that pthread_getcpuclockid() names, by the number: no descriptor, no file. */
	clockid_t clock = (clockid_t)(~(unsigned)id << 3 | 6);
	struct timespec ran;

	if (clock_gettime(clock, &ran) != 0)
		return 0;
	return (uint64_t)ran.tv_sec * 1000000000 + (uint64_t)ran.tv_nsec;
}

long wf_thread_system_call(int id)
{
	char path[64], text[160];
	long number = -1;
	FILE *file;

	snprintf(path, sizeof path, "/proc/self/task/%d/syscall", id);
	file = wf_fails(SYS_openat) ? NULL : fopen(path, "re");
	if (!file)
		return -1;
	if (!fgets(text, sizeof text, file) || sscanf(text, "%ld", &number) != 1)
		number = -1;
	fclose(file);
	return number;
}

/* --- futexes --- */

void wf_futex_wait(wf_atomic_u32 *word, uint32_t value, weft_time deadline)
{
	struct timespec until = { deadline / WEFT_SEC(1), deadline % WEFT_SEC(1) };
	int saved = errno; /* the caller's: a foreign thread waits here in weft_join() */

	if (deadline <= 0 && deadline != WEFT_FOREVER)
		until.tv_sec = until.tv_nsec = 0;
	if (wf_fault(SYS_futex))
		return;
	/* BITSET waits until an absolute CLOCK_MONOTONIC time. */
	syscall(SYS_futex, &word->raw, FUTEX_WAIT_BITSET_PRIVATE, value,
		deadline == WEFT_FOREVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
	errno = saved;
}

void wf_futex_wake_all(wf_atomic_u32 *word)
{
	syscall(SYS_futex, &word->raw, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}
