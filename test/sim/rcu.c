/*
 * rcu.c: sync/rcu.h in a simulation.
 *
 * A thread is online or not; a grace period notes who is online when it starts, and is over when
 * each of those has been quiescent or offline since. The reclaimer is a virtual thread that starts
 * a grace period whenever a batch waits, without any pacing: it calls back as early as the rules
 * allow, so whoever keeps a pointer over its quiescent state meets a header that has become another
 * process. Batches that are retired while a grace period runs wait for the next.
 *
 * Going online and offline, and a quiescent state that a grace period waits for, empty the store
 * buffer, as liburcu's do; any other quiescent state costs and orders nothing.
 */
#include <errno.h>
#include <string.h>

#include "core/internal.h"
#include "sync/rcu.h"
#include "test/sim/invariants.h"

enum { WAITERS_MAX = 4 };

struct wf_rcu_domain {
	struct wf_fifo retired;
	uint64_t retired_bytes, reclaimed_count, periods;
	bool ending;
	unsigned thread;
};

static struct {
	uint64_t online;
	unsigned depth[SIM_THREADS_MAX + 1]; /* of foreign sections */
	uint64_t waiters[WAITERS_MAX];       /* whom each grace period waits for */
	bool waiter_used[WAITERS_MAX];
	struct wf_rcu_domain domains[WAITERS_MAX];
	unsigned domain_count;
} rcu;

void sim_rcu_reset(void)
{
	memset(&rcu, 0, sizeof(rcu));
}

static uint64_t self_bit(void)
{
	return (uint64_t)1 << sim_thread_self();
}

static void pass(void)
{
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		if (!(rcu.waiters[i] & self_bit()))
			continue;
		rcu.waiters[i] &= ~self_bit();
		if (rcu.waiters[i] == 0)
			(void)sim_unblock(&rcu.waiters[i], 1);
	}
}

static bool is_waited_for(void)
{
	for (unsigned i = 0; i < WAITERS_MAX; i++)
		if (rcu.waiters[i] & self_bit())
			return true;
	return false;
}

static void grace_period(void)
{
	unsigned i = 0;

	sim_check(!(rcu.online & self_bit()), "an online thread waits for a grace period");
	sim_point("grace period");
	while (rcu.waiter_used[i])
		i++;
	WF_CHECK(i < WAITERS_MAX);
	rcu.waiter_used[i] = true;
	rcu.waiters[i] = rcu.online;
	while (rcu.waiters[i] != 0)
		(void)sim_block(&rcu.waiters[i], SIM_FOREVER);
	rcu.waiter_used[i] = false;
}

/* --- readers --- */

void wf_rcu_register(void)
{
	wf_rcu_online();
}

void wf_rcu_unregister(void)
{
	wf_rcu_offline();
}

void wf_rcu_quiescent(void)
{
	sim_check(rcu.online & self_bit(), "quiescent while offline");
	if (!is_waited_for())
		return;
	sim_point("rcu quiescent");
	pass();
}

void wf_rcu_offline(void)
{
	sim_point("rcu offline");
	rcu.online &= ~self_bit();
	pass();
}

void wf_rcu_online(void)
{
	sim_point("rcu online");
	rcu.online |= self_bit();
}

bool wf_rcu_is_online(void)
{
	return rcu.online & self_bit();
}

void wf_rcu_enter_foreign(void)
{
	if (rcu.depth[sim_thread_self()]++ == 0)
		wf_rcu_online();
}

void wf_rcu_exit_foreign(void)
{
	sim_check(rcu.depth[sim_thread_self()] > 0, "a section ends that never began");
	if (--rcu.depth[sim_thread_self()] == 0)
		wf_rcu_offline();
}

bool sim_rcu_is_online(unsigned thread)
{
	return rcu.online >> thread & 1;
}

/* --- reclaiming --- */

static void reclaim(struct wf_rcu_domain *domain)
{
	struct wf_fifo ready = domain->retired;
	struct wf_node *node;

	domain->retired = (struct wf_fifo){NULL, NULL};
	grace_period();
	domain->periods++;
	while ((node = wf_fifo_pop(&ready)) != NULL) {
		struct wf_rcu_batch *batch = WF_CONTAINER_OF(node, struct wf_rcu_batch, node);

		domain->retired_bytes -= batch->bytes;
		domain->reclaimed_count++;
		sim_invariants_grace_over(batch);
		batch->callback(batch);
	}
}

static void reclaimer(void *arg)
{
	struct wf_rcu_domain *domain = arg;

	for (;;) {
		sim_point("reclaimer");
		if (!wf_fifo_is_empty(&domain->retired))
			reclaim(domain);
		else if (domain->ending)
			return;
		else
			(void)sim_block(domain, SIM_FOREVER);
	}
}

int wf_rcu_domain_create(struct wf_rcu_domain **domain_out, const char *name)
{
	struct wf_rcu_domain *domain;

	(void)name;
	if (sim_runtime_refuses())
		return -EAGAIN;
	domain = &rcu.domains[rcu.domain_count++];
	WF_CHECK(rcu.domain_count <= WAITERS_MAX);
	domain->thread = sim_thread_start(reclaimer, domain);
	*domain_out = domain;
	return 0;
}

void wf_rcu_domain_destroy(struct wf_rcu_domain *domain)
{
	if (domain == NULL)
		return;
	sim_point("rcu domain destroy");
	domain->ending = true;
	(void)sim_unblock(domain, 1);
	sim_thread_join(domain->thread);
	sim_check(wf_fifo_is_empty(&domain->retired) && domain->retired_bytes == 0,
		"retired while its domain ended");
	sim_invariants_end(domain);
}

void wf_rcu_retire(struct wf_rcu_domain *domain, struct wf_rcu_batch *batch,
	void (*callback)(struct wf_rcu_batch *batch))
{
	sim_point("rcu retire");
	batch->callback = callback;
	domain->retired_bytes += batch->bytes;
	wf_fifo_push(&domain->retired, &batch->node);
	(void)sim_unblock(domain, 1);
}

void wf_rcu_hurry(struct wf_rcu_domain *domain)
{
	(void)domain;
	sim_point("rcu hurry");
}

void wf_rcu_synchronize(void)
{
	grace_period();
}

uint64_t wf_rcu_retired_bytes(const struct wf_rcu_domain *domain)
{
	return domain->retired_bytes;
}
