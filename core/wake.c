/* wake.c: making processes ready. wake.h and core/README.md tell the protocol. */
#include "core/wake.h"

#include "core/inbox.h"
#include "core/queue.h"
#include "core/timers.h"
#include "sync/observe.h"

/*
 * Puts a ready sticky process where the loop finds it. A wake made by a running process goes to the
 * next slot: the woken one runs while what was written for it is in the cache. Only fibers of the
 * normal class: switches from fiber to fiber rely on that.
 */
WF_INLINE void list_push(struct wf_worker *worker, struct wf_proc *p, uint64_t word)
{
	if (WF_UNLIKELY(!wf_word_is_plain(word))) {
		wf_queue_push(worker, p);
		return;
	}
	if (worker->current) {
		struct wf_proc *displaced = worker->run_next;

		worker->run_next = p;
		if (!displaced || WF_PLANTED(wake_loses_displaced))
			return;
		p = displaced;
	}
	wf_fifo_push(&worker->list, &p->run);
}

/* Owner, sticky: the wake itself. */
WF_INLINE void wake_local(struct wf_worker *worker, struct wf_proc *p, uint64_t word)
{
	WF_ASSERT(wf_word_owner(word) == worker->number);
	switch ((enum wf_phase)p->live.run) {
	case WF_WAITING:
		p->live.run = WF_QUEUED;
		list_push(worker, p, word);
		wf_count(&worker->counters.local_wakes, 1);
		break;
	case WF_RUNNING:
		p->live.run = WF_NOTIFIED;
		break;
	default: /* QUEUED, NOTIFIED: the run to come serves this wake too */
		if (WF_PLANTED(wake_queues_again) && p->live.run == WF_QUEUED)
			list_push(worker, p, word);
		break;
	}
}

/* W1-W4: of a sticky or anchored process, by anybody but its owner. */
static void wake_remote(struct wf_worker *owner, struct wf_proc *p, bool token)
{
	uint32_t old;
	uint32_t new;

	/* The inbox's line is on the owner's core too: both come at once. */
	WF_PREFETCH_WRITE(&owner->inbox.head);
	old = wf_u32_load_relaxed(&p->remote); /* W1 */

	/*
	 * W2, W3, W4: release (part of the cas), with W5 in wf_proc_serve_remote() or W6 in
	 * wf_proc_drained(): what the waker wrote is visible to the next run. Also when the word
	 * stays as it is: an RMW on PENDING is what makes a second waker's data visible.
	 */
	do {
		new = (old & ~(uint32_t)WF_REMOTE_PLACE) | WF_REMOTE_PENDING;
		if (WF_PLANTED(wake_lost_when_pending) && (old & WF_REMOTE_PLACE))
			new = old;
		if (token)
			new |= WF_REMOTE_TOKEN;
		if (WF_PLANTED(wake_pending_without_rmw) && new == old)
			return;
	} while (!wf_u32_cas(&p->remote, &old, new));
	if ((old & WF_REMOTE_PLACE) == WF_REMOTE_NONE)
		(void)wf_inbox_send(owner, &p->inbox, WF_MESSAGE_WAKE);
}

void wf_proc_enqueue_new(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p)
{
	if (worker && worker->rt == rt) {
		wf_worker_push_ring(worker, p);
		return;
	}
	if (wf_injector_push(&rt->injector, &p->run))
		wf_rt_wake_for_work(rt);
}

/* A movable process has become QUEUED by our cas: it runs where it was woken. */
static void enqueue_movable(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p)
{
	if (worker && worker->rt == rt)
		wf_worker_push_movable(worker, p);
	else
		wf_proc_enqueue_new(rt, worker, p);
}

/* WAITING: wins the right to queue it. False: `word` has changed, look again. */
static bool wake_waiting(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p,
	uint64_t *word, uint64_t token)
{
	uint64_t queued = wf_word_with_phase(*word, WF_QUEUED) & ~WF_WORD_ANCHORED;

	/* W9: acquire, release (the cas), with W10 in settle_movable(), W12 in go_on_movable(). */
	if (!wf_u64_cas(&p->word, word, queued | token))
		return false;
	if ((*word & WF_WORD_ANCHORED) && !WF_PLANTED(wake_ignores_anchor))
		wf_timers_disarm(rt, p, wf_word_owner(*word));
	enqueue_movable(rt, worker, p);
	return true;
}

/* SUSPENDED, by weft_wake(): starts it. */
static bool start_suspended(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p,
	uint64_t *word)
{
	if (!wf_u64_cas(&p->word, word, wf_word_with_phase(*word, WF_NEW)))
		return false;
	if (*word & WF_WORD_PLACED)
		(void)wf_inbox_send(&rt->workers[wf_word_owner(*word)], &p->run, WF_MESSAGE_START);
	else
		wf_proc_enqueue_new(rt, worker, p);
	return true;
}

/* Everything that is decided in the state word: not run yet, or movable. */
static void wake_by_word(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p,
	uint64_t word, bool token)
{
	uint64_t bit = token ? WF_WORD_TOKEN : 0;

	for (;;) {
		switch (wf_word_phase(word)) {
		case WF_WAITING:
			if (wake_waiting(rt, worker, p, &word, bit))
				return;
			break;
		case WF_SUSPENDED:
			if (!token || start_suspended(rt, worker, p, &word))
				return;
			break;
		case WF_RUNNING:
			if (wf_u64_cas(
				    &p->word, &word, wf_word_with_phase(word, WF_NOTIFIED) | bit))
				return;
			break;
		case WF_RESERVED:
		case WF_NEW:
		case WF_QUEUED:
		case WF_NOTIFIED:
			/* W8: an RMW, may nothing change: W11 in begin_word() acquires it. */
			if (wf_u64_cas(&p->word, &word, word | bit))
				return;
			break;
		case WF_OWNED: /* ran for the first time meanwhile */
			wf_proc_wake(rt, worker, p, token);
			return;
		default:
			return;
		}
	}
}

void wf_proc_wake(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, bool token)
{
	uint64_t word = wf_u64_load_acquire(&p->word);
	struct wf_worker *owner;

	WF_OBSERVE(woken, p);
	if (WF_UNLIKELY(wf_word_phase(word) != WF_OWNED)) {
		wake_by_word(rt, worker, p, word, token);
		return;
	}
	owner = &rt->workers[wf_word_owner(word)];
	if (worker != owner) {
		if (worker)
			wf_count(&worker->counters.remote_wakes, 1);
		wake_remote(owner, p, token);
		return;
	}
	if (token)
		p->live.token = true;
	wake_local(worker, p, word);
}

/* W9, and W12 at once: it is queued nowhere, the worker's next pick. False: look again. */
static bool hand_over(struct wf_worker *worker, struct wf_proc *p, uint64_t *word)
{
	uint64_t running = (wf_word_with_phase(*word, WF_RUNNING) & ~WF_WORD_OWNER)
		| (uint64_t)worker->number << WF_WORD_OWNER_SHIFT;

	if (!wf_u64_cas(&p->word, word, running))
		return false;
	wf_queue_hand_over(worker, p);
	return true;
}

/* W9. Depth first: it is the newest of the children, and thieves may have it. False: look again. */
static bool push_newest(struct wf_worker *worker, struct wf_proc *p, uint64_t *word)
{
	if (!wf_u64_cas(&p->word, word, wf_word_with_phase(*word, WF_QUEUED)))
		return false;
	wf_worker_push_child(worker, p);
	return true;
}

void wf_proc_wake_task(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, bool next)
{
	const uint64_t rare = WF_WORD_ANCHORED | WF_WORD_PRIORITY;
	uint64_t word = wf_u64_load_acquire(&p->word);
	bool here = worker && worker->rt == rt;

	WF_OBSERVE(woken, p);
	for (;;) {
		enum wf_phase phase = wf_word_phase(word);

		if (phase == WF_WAITING && here && !(word & rare)) {
			if (next && wf_queue_may_hand_over(worker)
					? hand_over(worker, p, &word)
					: push_newest(worker, p, &word))
				return;
		} else if (phase == WF_NEW) {
			/* W13: its first run goes on; with settle_movable() and wf_task_begin(). */
			if (WF_PLANTED(scope_owner_looks_new)
				|| wf_u64_cas(&p->word, &word,
					wf_word_with_phase(word, WF_NOTIFIED)))
				return;
		} else {
			wf_proc_wake(rt, worker, p, false);
			return;
		}
	}
}

bool wf_proc_cancel(
	struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, uint32_t generation)
{
	uint64_t word = wf_u64_load_acquire(&p->word);

	do {
		enum wf_phase phase = wf_word_phase(word);

		if (wf_word_generation(word) != generation || phase == WF_FREE)
			return false;
		if (phase == WF_DONE || (word & WF_WORD_CANCELLED))
			return true;
		/* X1: release (part of the cas), with the generation in the same word. */
	} while (!wf_u64_cas(&p->word, &word, word | WF_WORD_CANCELLED));
	/* X2: after X1, so that the run it causes, or the one going on, sees the flag. */
	wf_proc_wake(rt, worker, p, wf_word_phase(word) == WF_SUSPENDED);
	return true;
}

void wf_proc_drained(struct wf_worker *worker, struct wf_proc *p)
{
	/*
	 * W6: the exchange to NONE, acquire and release: from here on p may be pushed again, and
	 * this drain does not touch its link (read before). It must be an RMW: a plain store of
	 * NONE loses a wake that makes LINKED PENDING in between. The token bit is weft_park()'s.
	 */
	uint32_t old;
	uint64_t word;

	if (WF_PLANTED(wake_drain_by_store)) {
		old = wf_u32_load_acquire(&p->remote);
		wf_u32_store_release(&p->remote, old & ~(uint32_t)WF_REMOTE_PLACE);
	} else {
		old = wf_u32_fetch_and(&p->remote, ~(uint32_t)WF_REMOTE_PLACE);
	}
	if ((old & WF_REMOTE_PLACE) != WF_REMOTE_PENDING)
		return; /* a run has served it already */
	word = wf_u64_load_acquire(&p->word); /* W7 */
	if (WF_LIKELY(wf_word_phase(word) == WF_OWNED))
		wake_local(worker, p, word);
}
