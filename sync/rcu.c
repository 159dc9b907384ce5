/*
 * rcu.c: the only file that knows liburcu (qsbr flavour, by its urcu_qsbr_ names, so that a host
 * may use another flavour beside it). _LGPL_SOURCE is never defined: the functions are called, not
 * inlined.
 *
 * The reclaimer. One thread per domain, in rounds:
 *   1  rest: PACING until the age limit has passed (or the retired bytes have passed theirs, or
 *      somebody is in a hurry), so that grace periods are few and batches many. While little
 *      comes each rest is twice the last, up to CALM_SHIFT times: a round costs a sleep, up to
 *      20 us in a virtual machine. When nothing has come for LINGER_ROUNDS rounds: IDLE, until
 *      something does. The rounds in between save the retirers the wake, 10 us on a worker's
 *      hot path.
 *   2  take everything retired, in order;
 *   3  wait for a grace period;
 *   4  call everything back.
 *
 * Sleep and wake, on the word `sleep` (AWAKE, PACING, IDLE), as the idle word's protocol (idle.h):
 *   reclaimer  RMW: sleep = PACING or IDLE; then look, seq_cst, at `retired`, `bytes`, `flags`;
 *              nothing: futex. Awake again: sleep = AWAKE.
 *   retirer    RMW: bytes; RMW: push to `retired`; then load `sleep`, seq_cst. IDLE, or PACING and
 *              too many bytes: one RMW sleep -> AWAKE, and who has made it wakes the reclaimer.
 *   hurry, destroy: the same with an RMW of `flags`.
 * Either the reclaimer sees what was published, or the publisher sees that it sleeps.
 *
 * ThreadSanitizer sees nothing inside liburcu 0.13. Two annotations tell it what a grace period
 * promises: each end of a thread's reading is a release on `grace`, the return of synchronize an
 * acquire. The path from retire to callback is the injector's atomics, which it sees.
 */
#include "sync/rcu.h"
#include "sync/fault.h"
#include "sync/futex.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

#include <urcu/urcu-qsbr.h>
/*
 * For the layout of one public structure, to read its `registered` flag: there is no function that
 * tells. (Using a library header's data layout is free of conditions; its inline functions are not
 * used.)
 */
#include <urcu/static/urcu-qsbr.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#endif

#if defined(UNDER_TSAN)
#include <sanitizer/tsan_interface.h>
static char grace;
#define READ_ENDS()     __tsan_release(&grace)
#define GRACE_IS_OVER() __tsan_acquire(&grace)
#else
#define READ_ENDS()     ((void)0)
#define GRACE_IS_OVER() ((void)0)
#endif

enum {
	AGE_LIMIT_NS = 1000000,
	BYTES_LIMIT = 1 << 20,
	LINGER_ROUNDS = 64,
	CALM_SHARE = 64, /* of the bytes' limit: a round with less is a calm one */
	CALM_SHIFT = 3,
};

/* What the reclaimer does, in `sleep`. */
enum { AWAKE, PACING, IDLE };

/* Bits of `flags`. */
enum { HURRY = 1, STOP = 2 };

struct wf_rcu_domain {
	struct wf_injector retired;
	/* Written by retirers, and by the reclaimer once per batch. */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u64 bytes;
	/* Written by the reclaimer; by others only to wake it. */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u32 sleep;
	wf_atomic_u32 flags;
	wf_atomic_u64 grace_period_since_ns; /* 0: none is running */
	wf_atomic_u64 grace_periods;
	wf_atomic_u64 reclaimed;
	/* Constant while the thread runs. */
	WF_ALIGNED(WF_FALSE_SHARING) uint64_t age_limit_ns;
	uint64_t bytes_limit;
	pthread_t thread;
	char name[16];
};

/* --- workers --- */

/* A worker's thread that somebody has registered before: as a foreign thread, or the host. */
static __thread struct {
	bool found_registered;
	bool found_online;
} worker;

void wf_rcu_register(void)
{
	worker.found_registered = urcu_qsbr_reader.registered;
	worker.found_online = wf_rcu_is_online();
	if (!worker.found_registered)
		urcu_qsbr_register_thread();
	else if (!worker.found_online)
		wf_rcu_online();
}

void wf_rcu_unregister(void)
{
	READ_ENDS();
	if (!worker.found_registered)
		urcu_qsbr_unregister_thread();
	else if (!worker.found_online)
		urcu_qsbr_thread_offline();
}

void wf_rcu_quiescent(void)
{
	READ_ENDS();
	urcu_qsbr_quiescent_state();
}

void wf_rcu_offline(void)
{
	READ_ENDS();
	urcu_qsbr_thread_offline();
}

void wf_rcu_online(void)
{
	urcu_qsbr_thread_online();
}

bool wf_rcu_is_online(void)
{
	return urcu_qsbr_read_ongoing() != 0;
}

/* --- foreign threads --- */

static __thread struct {
	unsigned depth;    /* of nested enters */
	bool went_online;  /* the outermost enter found the thread offline */
	bool registered;   /* by us, until the thread ends */
	bool only_for_now; /* by us, until exit: no destructor could be set */
} foreign;

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_exists;

static void unregister_thread(void)
{
	READ_ENDS();
	urcu_qsbr_unregister_thread();
}

/* The thread ends. */
static void unregister_foreign(void *unused)
{
	(void)unused;
	if (!foreign.registered)
		return;
	foreign.registered = false;
	unregister_thread();
}

static void make_key(void)
{
	key_exists = !wf_fault(WF_CALL_THREAD_KEY) &&
		     pthread_key_create(&key, unregister_foreign) == 0;
}

WF_COLD static void register_foreign(void)
{
	urcu_qsbr_register_thread();
	pthread_once(&key_once, make_key);
	foreign.registered = key_exists && !wf_fault(WF_CALL_THREAD_KEY) &&
			     pthread_setspecific(key, &foreign) == 0;
	foreign.only_for_now = !foreign.registered;
}

void wf_rcu_enter_foreign(void)
{
	if (foreign.depth++ > 0)
		return;
	foreign.went_online = !wf_rcu_is_online();
	if (!urcu_qsbr_reader.registered)
		register_foreign(); /* which is online then */
	else if (foreign.went_online)
		wf_rcu_online();
}

void wf_rcu_exit_foreign(void)
{
	WF_ASSERT(foreign.depth > 0);
	if (--foreign.depth > 0 || !foreign.went_online)
		return;
	if (WF_UNLIKELY(foreign.only_for_now)) {
		foreign.only_for_now = false;
		unregister_thread();
	} else {
		wf_rcu_offline();
	}
}

/* --- the reclaimer --- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Whether a rest of this kind is over, or must not begin. */
static bool must_work(struct wf_rcu_domain *domain, uint32_t kind)
{
	/* U5, all three, with U1 and U2 of wf_rcu_retire and U3 of demand: the file's top. */
	if (wf_u32_load_seq_cst(&domain->flags) != 0)
		return true;
	if (wf_injector_is_empty(&domain->retired))
		return false;
	return kind == IDLE || wf_u64_load_seq_cst(&domain->bytes) >= domain->bytes_limit;
}

static void rest(struct wf_rcu_domain *domain, uint32_t kind, uint64_t timeout_ns)
{
	/* U4, with U6 of wake_if: from here on a retirer may wake us. */
	(void)wf_u32_exchange(&domain->sleep, kind);
	if (!must_work(domain, kind) && !wf_fault(SYS_futex))
		(void)wf_futex_sleep(&domain->sleep, kind, timeout_ns);
	wf_u32_store_relaxed(&domain->sleep, AWAKE);
}

/* Of the figures that the reclaimer alone writes. */
static void count(wf_atomic_u64 *figure)
{
	wf_u64_store_relaxed(figure, wf_u64_load_relaxed(figure) + 1);
}

static void grace_period(struct wf_rcu_domain *domain)
{
	wf_u64_store_relaxed(&domain->grace_period_since_ns, now_ns());
	urcu_qsbr_synchronize_rcu();
	GRACE_IS_OVER();
	wf_u64_store_relaxed(&domain->grace_period_since_ns, 0);
	count(&domain->grace_periods);
}

/* Returns how many bytes that was. */
static uint64_t call_back(struct wf_rcu_domain *domain, struct wf_fifo *batches)
{
	struct wf_node *node;
	uint64_t bytes = 0;

	while ((node = wf_fifo_pop(batches)) != NULL) {
		struct wf_rcu_batch *batch = WF_CONTAINER_OF(node, struct wf_rcu_batch, node);

		bytes += batch->bytes;
		/* Before the callback: who learns from it that all is done finds zero bytes. */
		wf_u64_fetch_add(&domain->bytes, -batch->bytes);
		count(&domain->reclaimed);
		batch->callback(batch);
	}
	return bytes;
}

static void name_thread(const struct wf_rcu_domain *domain)
{
	pthread_setname_np(pthread_self(), domain->name);
}

static void *reclaimer(void *arg)
{
	struct wf_rcu_domain *domain = arg;
	struct wf_fifo batches = {NULL, NULL};
	unsigned empty_rounds = 0, calm = 0;
	uint64_t bytes;

	name_thread(domain);
	for (;;) {
		if (empty_rounds > LINGER_ROUNDS)
			rest(domain, IDLE, WF_FUTEX_FOREVER);
		rest(domain, PACING, domain->age_limit_ns << calm);
		if (calm < CALM_SHIFT)
			calm++;
		/*
		 * U7, with U3 of demand: a stop is seen before the queue is found empty for good.
		 */
		if (wf_u32_fetch_and(&domain->flags, ~(uint32_t)HURRY) & STOP &&
			wf_injector_is_empty(&domain->retired))
			return NULL;
		empty_rounds++;
		if (!wf_injector_drain(&domain->retired, &batches))
			continue;
		empty_rounds = 0;
		grace_period(domain);
		bytes = call_back(domain, &batches);
		if (bytes > domain->bytes_limit / CALM_SHARE)
			calm = 0;
	}
}

/* Wakes the reclaimer if it sleeps as `kind`. */
static void wake_if(struct wf_rcu_domain *domain, uint32_t kind)
{
	/* U6, with U4 of rest: the caller has published by an RMW. */
	uint32_t sleep = wf_u32_load_seq_cst(&domain->sleep);

	/* One of many retirers makes the system call. */
	if (sleep == kind && wf_u32_cas(&domain->sleep, &sleep, AWAKE))
		wf_futex_wake(&domain->sleep, 1);
}

void wf_rcu_retire(struct wf_rcu_domain *domain, struct wf_rcu_batch *batch,
	void (*callback)(struct wf_rcu_batch *batch))
{
	uint64_t bytes = batch->bytes;
	enum wf_push pushed;

	batch->callback = callback;
	/* U1, with U5. First, so that the reclaimer never takes off what is not yet on. */
	bytes += wf_u64_fetch_add(&domain->bytes, bytes);
	pushed = wf_injector_push(&domain->retired, &batch->node); /* U2, with U5 */
	WF_CHECK(pushed != WF_PUSH_CLOSED);
	if (pushed == WF_PUSH_FIRST)
		wake_if(domain, IDLE);
	if (bytes >= domain->bytes_limit)
		wake_if(domain, PACING);
}

static void demand(struct wf_rcu_domain *domain, uint32_t flag)
{
	wf_u32_fetch_or(&domain->flags, flag); /* U3, with U5 and U7 */
	wake_if(domain, PACING);
	wake_if(domain, IDLE);
}

void wf_rcu_hurry(struct wf_rcu_domain *domain)
{
	demand(domain, HURRY);
}

struct barrier {
	struct wf_rcu_batch batch;
	wf_atomic_u32 passed;
};

static void barrier_passed(struct wf_rcu_batch *batch)
{
	struct barrier *barrier = WF_CONTAINER_OF(batch, struct barrier, batch);

	/*
	 * U8, with U9: what the callbacks before did. Then the barrier may be gone: only its
	 * address goes to the kernel, where a wake of nobody is nothing.
	 */
	wf_u32_store_release(&barrier->passed, 1);
	wf_futex_wake(&barrier->passed, 1);
}

void wf_rcu_barrier(struct wf_rcu_domain *domain)
{
	struct barrier barrier = {.batch = {.bytes = 0}};

	WF_ASSERT(!wf_rcu_is_online());
	wf_rcu_retire(domain, &barrier.batch, barrier_passed);
	wf_rcu_hurry(domain);
	while (wf_u32_load_acquire(&barrier.passed) == 0) /* U9, with U8 */
		(void)wf_futex_sleep(&barrier.passed, 0, WF_FUTEX_FOREVER);
}

void wf_rcu_synchronize(void)
{
	WF_ASSERT(!wf_rcu_is_online());
	urcu_qsbr_synchronize_rcu();
	GRACE_IS_OVER();
}

/* --- life of a domain --- */

/* With the caller's signals blocked, all but those that mean a bug; the thread inherits that. */
static int start_thread(struct wf_rcu_domain *domain, const struct wf_rcu_opts *opts)
{
	static const int bugs[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
	pthread_attr_t attr;
	sigset_t blocked, before;
	size_t i;
	int r;

	r = pthread_attr_init(&attr);
	if (r != 0)
		return -r;
	if (opts->cpus != NULL)
		r = -(int)wf_fault(WF_CALL_ALLOCATE);
	if (opts->cpus != NULL && r == 0)
		r = pthread_attr_setaffinity_np(&attr, opts->cpus_size, opts->cpus);
	if (r == 0) {
		sigfillset(&blocked);
		for (i = 0; i < WF_ARRAY_COUNT(bugs); i++)
			sigdelset(&blocked, bugs[i]);
		pthread_sigmask(SIG_BLOCK, &blocked, &before);
		r = -(int)wf_fault(WF_CALL_THREAD);
		if (r == 0)
			r = pthread_create(&domain->thread, &attr, reclaimer, domain);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	pthread_attr_destroy(&attr);
	return -r;
}

int wf_rcu_domain_create_with(struct wf_rcu_domain **domain_out, const struct wf_rcu_opts *opts)
{
	struct wf_rcu_domain *domain = NULL;
	int r;

	if (!wf_fails(WF_CALL_ALLOCATE))
		domain = aligned_alloc(WF_FALSE_SHARING, sizeof *domain);
	if (domain == NULL)
		return -ENOMEM;
	memset(domain, 0, sizeof *domain);
	domain->age_limit_ns = opts->age_limit_ns != 0 ? opts->age_limit_ns : AGE_LIMIT_NS;
	domain->bytes_limit = opts->bytes_limit != 0 ? opts->bytes_limit : BYTES_LIMIT;
	if (opts->name != NULL)
		snprintf(domain->name, sizeof domain->name, "weft/%.6s/rcu", opts->name);
	else
		snprintf(domain->name, sizeof domain->name, "weft/rcu");
	r = start_thread(domain, opts);
	if (r < 0) {
		free(domain);
		return r;
	}
	*domain_out = domain;
	return 0;
}

int wf_rcu_domain_create(struct wf_rcu_domain **domain_out, const char *name)
{
	return wf_rcu_domain_create_with(domain_out, &(struct wf_rcu_opts){.name = name});
}

void wf_rcu_domain_destroy(struct wf_rcu_domain *domain)
{
	if (domain == NULL)
		return;
	WF_ASSERT(!wf_rcu_is_online());
	demand(domain, STOP);
	pthread_join(domain->thread, NULL);
	wf_injector_close(&domain->retired);
	WF_CHECK(wf_injector_is_empty(&domain->retired)); /* else somebody retires still */
	free(domain);
}

/* --- figures --- */

uint64_t wf_rcu_grace_period_age_ns(const struct wf_rcu_domain *domain)
{
	uint64_t since = wf_u64_load_relaxed(&domain->grace_period_since_ns);
	uint64_t now = now_ns();

	return since != 0 && now > since ? now - since : 0;
}

uint64_t wf_rcu_retired_bytes(const struct wf_rcu_domain *domain)
{
	return wf_u64_load_relaxed(&domain->bytes);
}

uint64_t wf_rcu_reclaimed_count(const struct wf_rcu_domain *domain)
{
	return wf_u64_load_relaxed(&domain->reclaimed);
}

uint64_t wf_rcu_grace_period_count(const struct wf_rcu_domain *domain)
{
	return wf_u64_load_relaxed(&domain->grace_periods);
}
