/*
 * tasks.h: tasks, inside: what a run of a poll function arms. A1 to A5 in core/README.md.
 *
 * A task's run has at most one wait (core/sched.h): the first call that arms begins it, further
 * ones share its number, and it is over when the next run begins, or the task ends, whoever has won
 * it. Whether it may still be claimed is live.open, so who never arms pays a look. The rest of what
 * is armed is the worker's, for the run: the earliest deadline (armed_until), and whether to yield
 * (`switched`).
 */
#ifndef WF_CORE_TASKS_H
#define WF_CORE_TASKS_H

#include "core/worker.h"
#include "sync/observe.h"

WF_INLINE bool wf_proc_is_task(const struct wf_proc *p)
{
	return wf_u64_load_relaxed(&p->word) & WF_WORD_TASK;
}

/*
 * The first run of a movable task begins with its word NEW as it was, and leaves it so unless it
 * gets here, or to settle_movable(): who ends at once saves a cas. Before a wake can count: so what
 * came while it was NEW is seen in the flags, which were clear. As W11 in begin_word(). A scope's
 * wake counts before too, and makes it NOTIFIED itself (W13).
 */
WF_INLINE void wf_task_begin(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t word = wf_u64_load_relaxed(&p->word);
	enum wf_phase phase;

	if (WF_LIKELY(wf_word_phase(word) != WF_NEW))
		return;
	do {
		if (wf_word_phase(word) == WF_NOTIFIED)
			return; /* W13 */
		phase = word & (WF_WORD_TOKEN | WF_WORD_CANCELLED) ? WF_NOTIFIED : WF_RUNNING;
	} while (!wf_u64_cas(&p->word, &word,
		(wf_word_with_phase(word, phase) & ~WF_WORD_OWNER)
			| (uint64_t)worker->number << WF_WORD_OWNER_SHIFT));
	if (phase == WF_NOTIFIED)
		WF_OBSERVE(woken, p); /* by whoever set the flag, and says so yet */
}

/* A2: whether this run has begun a wait already. From now on it has. */
WF_INLINE bool wf_task_has_wait(struct wf_proc *p)
{
	bool open = p->live.open;

	p->live.open = true;
	return open;
}

/*
 * A4: ends the wait, by the next number. Relaxed, and no cas, for C1's reason: a claim comes before
 * it, or fails.
 */
WF_INLINE void wf_task_close_wait(struct wf_proc *p)
{
	uint64_t number = (uint32_t)(wf_u64_load_relaxed(&p->claim) >> 32) + 1;

	if (WF_PLANTED(task_keeps_wait))
		return;
	wf_u64_store_relaxed(&p->claim, number << 32 | WF_WINNER_CANCEL);
	p->live.open = false;
}

/* A3: what a call returns that has armed. */
WF_INLINE int wf_task_arm(struct wf_worker *worker, weft_time deadline)
{
	if (deadline < worker->armed_until)
		worker->armed_until = deadline;
	return WEFT_PENDING;
}

WF_INLINE int wf_task_yield(struct wf_worker *worker)
{
	worker->switched = WF_SWITCH_YIELD;
	return WEFT_PENDING;
}

#endif
