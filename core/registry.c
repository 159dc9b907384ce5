/*
 * registry.c: runtimes by slot, and sections in which processes can be looked up. See registry.h.
 */
#include "core/registry.h"

#include <errno.h>

#include "core/internal.h"
#include "sync/rcu.h"
#include "sync/spinlock.h"

/* A slot whose generations are nearly used up serves no further runtime. */
#define GENERATION_LAST (UINT32_MAX - 1024)

struct slot {
	wf_atomic_ptr rt;
	wf_atomic_u32 uses;   /* futex for the destroyer */
	bool taken;           /* under `lock` */
	struct wf_past past;  /* under `lock` */
} WF_ALIGNED(WF_FALSE_SHARING);

static struct slot slots[WF_RUNTIMES_MAX];
static struct wf_spinlock lock;
static uint64_t serial_last; /* under `lock` */

int wf_registry_add(struct weft_rt *rt, struct wf_past *past_out)
{
	int r = -EAGAIN;

	wf_spinlock_lock(&lock);
	for (unsigned i = 0; i < WF_FOREIGN; i++)
		if (!slots[i].taken && slots[i].past.generation < GENERATION_LAST) {
			slots[i].taken = true;
			rt->slot = i;
			rt->serial = ++serial_last;
			*past_out = slots[i].past;
			r = 0;
			break;
		}
	wf_spinlock_unlock(&lock);
	return r;
}

void wf_registry_publish(struct weft_rt *rt)
{
	wf_ptr_store_seq_cst(&slots[rt->slot].rt, rt);
}

void wf_registry_withdraw(struct weft_rt *rt)
{
	struct slot *slot = &slots[rt->slot];
	uint32_t uses;

	/* G1: an RMW, then the uses: with G2 in wf_registry_acquire(). */
	(void)wf_ptr_exchange(&slot->rt, NULL);
	while ((uses = wf_u32_load_seq_cst(&slot->uses)) > 0 && !WF_PLANTED(withdraw_ignores_uses))
		wf_futex_wait(&slot->uses, uses, weft_after(WEFT_MS(1)));
}

void wf_registry_remove(struct weft_rt *rt, const struct wf_past *past)
{
	wf_spinlock_lock(&lock);
	slots[rt->slot].past = *past;
	slots[rt->slot].taken = false;
	wf_spinlock_unlock(&lock);
}

struct weft_rt *wf_registry_acquire(unsigned slot)
{
	struct weft_rt *rt;

	/* G2: an RMW, then the pointer (seq_cst), with G1 in wf_registry_withdraw(). */
	(void)wf_u32_fetch_add(&slots[slot].uses, 1);
	rt = wf_ptr_load_seq_cst(&slots[slot].rt);
	if (!rt)
		wf_registry_release(slot);
	return rt;
}

void wf_registry_release(unsigned slot)
{
	/* The destroyer polls each millisecond: rare enough not to pay for a wake here. */
	(void)wf_u32_fetch_add(&slots[slot].uses, (uint32_t)-1);
}

static bool visit_enter(struct wf_visit *visit, unsigned slot)
{
	struct wf_worker *worker = wf_worker_self();

	visit->worker = worker;
	visit->acquired = false;
	visit->entered = false;
	if (WF_LIKELY(worker && worker->rt->slot == slot)) {
		visit->rt = worker->rt;
		return true;
	}
	visit->rt = wf_registry_acquire(slot);
	if (!visit->rt)
		return false;
	visit->acquired = true;
	if (!worker) {
		wf_rcu_enter_foreign();
		visit->entered = true;
	}
	return true;
}

void wf_visit_end(struct wf_visit *visit)
{
	if (visit->entered)
		wf_rcu_exit_foreign();
	if (visit->acquired)
		wf_registry_release(visit->rt->slot);
}

struct wf_proc *wf_visit_begin(struct wf_visit *visit, weft_pid pid)
{
	struct wf_proc *p;

	if (!visit_enter(visit, wf_pid_runtime(pid)))
		return NULL;
	p = wf_table_find(&visit->rt->table, pid);
	if (!p)
		wf_visit_end(visit);
	if (p && WF_PLANTED(visit_leaves_section) && visit->entered) {
		wf_rcu_exit_foreign();
		visit->entered = false;
	}
	return p;
}
