/*
 * hooks.h: where the scheduler calls the host's hooks (struct weft_hooks).
 *
 * The flags worker->hooks_runs and worker->hooks_spawn say whether anybody listens; callers look at
 * them first, so that a runtime without hooks pays a bit in a line that it has loaded. With
 * hooks_runs every run begins and ends in the loop: the direct ways of core/run.c (D1, D2) are off.
 */
#ifndef WF_CORE_HOOKS_H
#define WF_CORE_HOOKS_H

#include "core/runtime.h"

/* Copies the options' hooks (NULL: none). 0, or -EINVAL: a wrong size. */
int wf_hooks_read(struct weft_rt *rt, const struct weft_hooks *hooks);

/* Sets a worker's flags. */
void wf_hooks_worker_init(struct wf_worker *worker);

/* Its thread, outside a process. */
void wf_hooks_thread_start(struct wf_worker *worker);
void wf_hooks_thread_stop(struct wf_worker *worker);
void wf_hooks_thread_park(struct wf_worker *worker);
void wf_hooks_thread_unpark(struct wf_worker *worker);

/* Any thread. */
void wf_hooks_process_spawn(struct weft_rt *rt, weft_pid pid);

/* `word` is, or was, p's: its generation, and whether it failed. p is still there. */
void wf_hooks_process_end(struct weft_rt *rt, struct wf_proc *p, uint64_t word, int result);

/* Owner; p is worker->current. */
void wf_hooks_before_run(struct wf_worker *worker, struct wf_proc *p);
void wf_hooks_after_run(struct wf_worker *worker, struct wf_proc *p);

#endif
