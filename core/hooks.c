/*
 * hooks.c: calls of the host's hooks.
 *
 * A hook is no process, also where it is called on behalf of one, on its stack (process_spawn):
 * worker->current is NULL meanwhile, so that whatever can park refuses, and what it wakes is queued
 * as by a post.
 */
#include "core/hooks.h"

#include <string.h>

#include "core/exit.h"
#include "core/internal.h"

int wf_hooks_read(struct weft_rt *rt, const struct weft_hooks *hooks)
{
	return hooks ? wf_opts_read(hooks, hooks->size, &rt->hooks, sizeof rt->hooks) : 0;
}

void wf_hooks_worker_init(struct wf_worker *worker)
{
	const struct weft_hooks *hooks = &worker->rt->hooks;

	worker->hooks_runs = hooks->process_end || hooks->before_run || hooks->after_run;
	worker->hooks_spawn = hooks->process_spawn != NULL;
	worker->spawn_looks = worker->hooks_spawn;
}

/* --- threads --- */

static void tell_thread(struct wf_worker *worker, void (*hook)(void *ctx, int worker))
{
	if (hook)
		hook(worker->rt->hooks.ctx, (int)worker->number);
}

void wf_hooks_thread_start(struct wf_worker *worker)
{
	tell_thread(worker, worker->rt->hooks.thread_start);
}

void wf_hooks_thread_stop(struct wf_worker *worker)
{
	/* What it would spawn could not run any more. */
	worker->closed = worker->spawn_looks = true;
	tell_thread(worker, worker->rt->hooks.thread_stop);
}

void wf_hooks_thread_park(struct wf_worker *worker)
{
	tell_thread(worker, worker->rt->hooks.thread_park);
}

void wf_hooks_thread_unpark(struct wf_worker *worker)
{
	tell_thread(worker, worker->rt->hooks.thread_unpark);
}

/* --- processes --- */

/* The caller's process, which it is not until reentered. */
static struct wf_proc *process_leave(struct wf_worker *self)
{
	struct wf_proc *current = self ? self->current : NULL;

	if (self)
		self->current = NULL;
	return current;
}

static void process_reenter(struct wf_worker *self, struct wf_proc *current)
{
	if (self)
		self->current = current;
}

static void tell_process(
	const struct weft_rt *rt, void (*hook)(void *ctx, weft_pid pid), weft_pid pid)
{
	struct wf_worker *self = wf_worker_self();
	struct wf_proc *current;

	if (!hook)
		return;
	current = process_leave(self);
	hook(rt->hooks.ctx, pid);
	process_reenter(self, current);
}

static weft_pid pid_of(const struct weft_rt *rt, const struct wf_proc *p, uint64_t word)
{
	return wf_pid_make(wf_word_generation(word), rt->slot, p->index);
}

void wf_hooks_process_spawn(struct weft_rt *rt, weft_pid pid)
{
	tell_process(rt, rt->hooks.process_spawn, pid);
}

void wf_hooks_process_end(struct weft_rt *rt, struct wf_proc *p, uint64_t word, int result)
{
	struct weft_exit ended;
	struct wf_worker *self = wf_worker_self();
	struct wf_proc *current;

	if (!rt->hooks.process_end)
		return;
	wf_exit_describe(rt, p, word, result, &ended);
	current = process_leave(self);
	rt->hooks.process_end(rt->hooks.ctx, &ended);
	process_reenter(self, current);
}

void wf_hooks_before_run(struct wf_worker *worker, struct wf_proc *p)
{
	tell_process(worker->rt, worker->rt->hooks.before_run,
		pid_of(worker->rt, p, wf_u64_load_relaxed(&p->word)));
}

void wf_hooks_after_run(struct wf_worker *worker, struct wf_proc *p)
{
	tell_process(worker->rt, worker->rt->hooks.after_run,
		pid_of(worker->rt, p, wf_u64_load_relaxed(&p->word)));
}
