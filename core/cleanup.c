/* cleanup.c: the list of what a process does at its end, and the end itself. See cleanup.h. */
#include "core/cleanup.h"

#include <errno.h>

#include "core/runtime.h"

enum {
	TASK_FRAMES_BYTES = 65536, /* so far below the live frames returned ones are looked for */
};

/*
 * Where the list begins, and the only place that knows: a fiber's control block, next to frames
 * that its end touches anyway; a task's ext. NULL: a task that has no ext, and so no list.
 */
static struct wf_cleanup **cleanups_of(struct wf_proc *p)
{
	if (WF_UNLIKELY(wf_u64_load_relaxed(&p->word) & WF_WORD_TASK))
		return p->ext ? &p->ext->cleanups : NULL;
	return &p->live.fiber->cleanups;
}

/* The running process; NULL outside one. */
static struct wf_proc *self_proc(void)
{
	struct wf_worker *worker = wf_worker_self();

	return worker ? worker->current : NULL;
}

/* The link that leads to it; NULL: none does. */
static struct wf_cleanup **find(struct wf_proc *p, const struct wf_cleanup *cleanup)
{
	struct wf_cleanup **link = cleanups_of(p);

	while (link && *link && *link != cleanup)
		link = &(*link)->next;
	return link && *link ? link : NULL;
}

int wf_cleanup_push(struct wf_cleanup *cleanup)
{
	struct wf_proc *p = self_proc();
	struct wf_cleanup **head;

	if (WF_UNLIKELY(!p))
		return -EPERM;
	head = cleanups_of(p);
	if (WF_UNLIKELY(!head)) {
		if (!wf_proc_ext(wf_worker_rt(wf_worker_self()), p))
			return -ENOMEM;
		head = cleanups_of(p);
	}
	WF_ASSERT(!find(p, cleanup)); /* the list would have no end */
	cleanup->next = *head;
	*head = cleanup;
	return 0;
}

bool wf_cleanup_remove(struct wf_cleanup *cleanup)
{
	struct wf_proc *p = self_proc();
	struct wf_cleanup **link = p ? find(p, cleanup) : NULL;

	if (!link)
		return false;
	*link = cleanup->next;
	return true;
}

/* --- the end --- */

/* Whether a record lies in a frame of p's stack that has returned: what is there now is chance. */
static bool is_in_returned_frame(const struct wf_proc *p, const void *cleanup, const void *live)
{
	uint64_t word = wf_u64_load_relaxed(&p->word);

	/* On its worker's stack: not all of it is known, but nothing lives so close below. */
	if (word & WF_WORD_TASK)
		return (uintptr_t)cleanup < (uintptr_t)live
			&& (uintptr_t)live - (uintptr_t)cleanup <= TASK_FRAMES_BYTES;
	return (uintptr_t)cleanup >= (uintptr_t)p->live.fiber->stack.low
		&& (uintptr_t)cleanup < (uintptr_t)live;
}

void wf_cleanups_check(struct wf_proc *p, const void *live)
{
	struct wf_cleanup *cleanup = p->ext ? p->ext->cleanups : NULL;

	for (; cleanup; cleanup = cleanup->next)
		WF_CHECK(!is_in_returned_frame(p, cleanup, live));
}

static void run_cleanups(struct wf_proc *p, const void *live)
{
	for (;;) {
		struct wf_cleanup **head = cleanups_of(p);
		struct wf_cleanup *cleanup = head ? *head : NULL;

		if (!cleanup)
			return;
		/* A deferred call, a scope, a lock: its function has not taken it out. */
		WF_CHECK(!is_in_returned_frame(p, cleanup, live));
		if (!WF_PLANTED(cleanup_taken_out_late))
			*head = cleanup->next;
		cleanup->run(cleanup, wf_u64_load_relaxed(&p->word) & WF_WORD_FAILED);
		if (WF_PLANTED(cleanup_taken_out_late))
			*head = cleanup->next;
	}
}

/* Taken out first: it is called once, whatever it does. */
static void drop_arg(struct wf_proc *p)
{
	void (*dtor)(void *arg) = p->ext ? p->ext->arg_dtor : NULL;

	if (!dtor)
		return;
	p->ext->arg_dtor = NULL;
	dtor(p->ext->arg);
}

/* Those that the body has left open, or a cleanup that failed. An RMW: others may cancel it. */
static void end_shields(struct wf_proc *p)
{
	if ((wf_u64_load_relaxed(&p->word) & WF_WORD_SHIELD) && !WF_PLANTED(end_leaves_shield))
		(void)wf_u64_fetch_and(&p->word, ~WF_WORD_SHIELD);
}

void wf_wind_up(struct wf_proc *p, const void *live)
{
	if (wf_u64_load_relaxed(&p->word) & WF_WORD_TASK)
		p->fresh.fn = NULL; /* it is not polled again: weft_scope_open() refuses */
	end_shields(p);
	do
		run_cleanups(p, live); /* Y1 */
	while (wf_locals_destroy(p)); /* Y2: a destructor may have deferred something */
	drop_arg(p); /* Y3 */
	run_cleanups(p, live);
}
