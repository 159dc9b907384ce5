/*
 * rcu.h: read-copy-update for the process table: readers that cost nothing, memory that is reused
 * only when no reader can still hold a pointer to it. On liburcu's qsbr flavour; rcu.c alone
 * includes it.
 *
 * Words. A thread that is ONLINE may follow RCU-protected pointers. A QUIESCENT STATE is a moment
 * at which an online thread holds none; an OFFLINE thread holds none until it is online again. A
 * GRACE PERIOD is over when every thread that was online at its start has since been quiescent or
 * offline.
 *
 * There is no read lock and unlock: between two quiescent states a worker is always reading.
 *
 * An online thread that neither reports a quiescent state nor goes offline stops every grace period
 * of the process: nothing hangs but reclamation, memory grows; wf_rcu_grace_period_age_ns shows it.
 *
 * Costs (2-core VM): quiescent 5 ns, or, once per grace period and thread, 50 ns and perhaps the
 * futex wake of the reclaimer (1-10 us, for one thread per grace period); offline and online
 * together 70 ns (two full fences each), beside a park of 30 us; enter and exit of a foreign thread
 * 80 ns.
 *
 * Reclaiming. A DOMAIN (one per runtime) is a thread that takes retired batches, waits for a grace
 * period, calls them back, and paces itself in between: README.md says why not liburcu's call_rcu.
 *
 * Progress: quiescent, offline, online: wait-free but for that wake. retire: lock-free. register,
 * unregister, a foreign thread's first enter: take a lock of liburcu's. synchronize, barrier,
 * destroy: block for at least a grace period.
 */
#ifndef WF_SYNC_RCU_H
#define WF_SYNC_RCU_H

#include "sync/injector.h"

/* --- workers --- */

/*
 * The calling thread takes part, and is online. Where the thread is registered already (it has been
 * a foreign thread, or its host uses qsbr), that registration serves, and unregister restores its
 * state.
 */
void wf_rcu_register(void);
/* Online or offline. Afterwards the thread may end. */
void wf_rcu_unregister(void);
/* Once per turn: no pointer obtained before may be used after. Online. */
void wf_rcu_quiescent(void);
/* Around every sleep and every call that may block. */
void wf_rcu_offline(void);
void wf_rcu_online(void);
/* Whether the calling thread is online: for assertions. */
bool wf_rcu_is_online(void);

/*
 * --- foreign threads: all others, also those that the host itself has registered with liburcu ---
 */

/*
 * Between the two the thread is online. The first call registers the thread (until it ends). May
 * nest. Where the host has registered the thread in the qsbr flavour, its registration and its
 * state (online or offline) are left as found. A host that does that must do it before the thread's
 * first Weft call.
 */
void wf_rcu_enter_foreign(void);
void wf_rcu_exit_foreign(void);

/* --- reclaiming --- */

/* Embedded in what is retired, or in one object for many: one batch per 64 to 256 is right. */
struct wf_rcu_batch {
	struct wf_node node;
	void (*callback)(struct wf_rcu_batch *batch);
	uint64_t bytes; /* set by the caller: what its callback will give back; for the figures */
};

struct wf_rcu_domain;

struct wf_rcu_opts {
	const char *name; /* of the runtime, for the thread's name; NULL: none */
	/* A cpu_set_t for the thread (never a worker's pinned mask); NULL: the caller's own. */
	const void *cpus;
	size_t cpus_size;
	/* How long a batch may wait for its turn, eight times that where few come; 0: 1 ms. */
	uint64_t age_limit_ns;
	uint64_t bytes_limit;  /* from this many bytes on, it does not; 0: 1 MiB */
};

/*
 * Starts the reclaimer thread, all signals blocked. From the coordinator. With `create` the thread
 * has the affinity of the caller, who must not be pinned. Returns 0, -ENOMEM, -EAGAIN (no more
 * threads).
 */
int wf_rcu_domain_create(struct wf_rcu_domain **domain_out, const char *name);
int wf_rcu_domain_create_with(struct wf_rcu_domain **domain_out, const struct wf_rcu_opts *opts);

/*
 * Calls back everything that was retired, what the callbacks retire in turn included; then ends the
 * thread and frees the domain. Nobody may retire any more but the callbacks. NULL is nothing.
 * Blocks. Never on an online thread: it would wait for itself.
 */
void wf_rcu_domain_destroy(struct wf_rcu_domain *domain);

/*
 * After a grace period `callback` is called with the batch, on the reclaimer's thread: short, never
 * blocking, never entering a read section. It may reuse or free the batch, and retire. Batches of
 * one thread are called in order. Any thread, online or not.
 */
void wf_rcu_retire(struct wf_rcu_domain *domain, struct wf_rcu_batch *batch,
	void (*callback)(struct wf_rcu_batch *batch));

/* Any thread: start the next grace period at once. A system call if the reclaimer sleeps. */
void wf_rcu_hurry(struct wf_rcu_domain *domain);

/*
 * Returns when everything the caller (or whoever it has synchronised with) retired before has been
 * called back. Blocks; never on an online thread or in a callback.
 */
void wf_rcu_barrier(struct wf_rcu_domain *domain);

/* Waits for one grace period. Never on an online thread. For shutdown, not for a worker. */
void wf_rcu_synchronize(void);

/* Any thread, relaxed: how long the running grace period has taken; 0 if none is running. */
uint64_t wf_rcu_grace_period_age_ns(const struct wf_rcu_domain *domain);
/* Bytes retired and not yet called back; batches called back and grace periods since the start. */
uint64_t wf_rcu_retired_bytes(const struct wf_rcu_domain *domain);
uint64_t wf_rcu_reclaimed_count(const struct wf_rcu_domain *domain);
uint64_t wf_rcu_grace_period_count(const struct wf_rcu_domain *domain);

#endif
