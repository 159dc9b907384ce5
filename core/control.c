/*
 * control.c: what a foreign thread asks of a runtime as a whole: a function on every worker, a
 * process to wait for.
 *
 * A call on the workers is one allocation with a message for each inbox. It counts as one thing
 * alive, as a post does: counted before the phase is read (N1, N4), counted out by the worker that
 * runs it last. So once it is accepted every inbox stays open until then.
 */
#include "core/control.h"

#include <errno.h>

#include "core/embed.h"
#include "core/inbox.h"
#include "core/internal.h"
#include "core/runtime.h"

struct call {
	int (*fn)(void *arg);
	void *arg;
	void (*dtor)(void *arg);
	size_t bytes;
	wf_atomic_u32 left; /* workers that have not run it */
	struct call_part {
		struct wf_node node;
		struct call *call;
	} parts[];
};

/* --- on every worker --- */

/* The last worker. */
static void finish(struct wf_worker *worker, struct call *call)
{
	if (call->dtor)
		call->dtor(call->arg);
	wf_free(worker->rt, call, call->bytes);
	/* E1: release, with E2 in sum_completed(): as finish() in run.c. */
	wf_u64_store_release(&worker->completed, wf_u64_load_relaxed(&worker->completed) + 1);
}

void wf_control_run(struct wf_worker *worker, struct wf_node *node)
{
	struct call *call = WF_CONTAINER_OF(node, struct call_part, node)->call;
	int r = call->fn(call->arg);

	if (r < 0) {
		wf_rt_error(worker->rt, (int)worker->number, "user function", r,
			"a function of weft_rt_run_on_workers() has failed");
		wf_life_begin_stop(worker->rt, 0);
	}
	/* O1: an RMW, with itself: the last one sees what fn did on all the others. */
	if (wf_u32_fetch_add(&call->left, (uint32_t)-1) == 1)
		finish(worker, call);
}

static struct call *call_make(struct weft_rt *rt)
{
	size_t bytes = sizeof(struct call) + rt->worker_count * sizeof(struct call_part);
	struct call *call = wf_alloc(rt, WF_CACHE_LINE, bytes);

	if (!call)
		return NULL;
	call->bytes = bytes;
	wf_u32_store_relaxed(&call->left, rt->worker_count);
	for (unsigned i = 0; i < rt->worker_count; i++)
		call->parts[i].call = call;
	return call;
}

int weft_rt_run_on_workers(
	weft_rt *rt, int (*fn)(void *arg), void *arg, void (*dtor)(void *arg))
{
	unsigned count = rt->worker_count;
	struct call *call;

	if (!fn)
		return -EINVAL;
	call = call_make(rt);
	if (!call)
		return -ENOMEM;
	call->fn = fn;
	call->arg = arg;
	call->dtor = dtor;
	wf_foreign_begin(rt);
	if (wf_foreign_comes_late(rt) && !WF_PLANTED(post_ignores_close)) {
		wf_free(rt, call, call->bytes);
		wf_foreign_refused(rt);
		wf_foreign_end(rt);
		return -ESHUTDOWN;
	}
	/* The last worker frees the call, so its part is sent last. */
	for (unsigned i = 0; i < count; i++)
		(void)wf_inbox_send(&rt->workers[i], &call->parts[i].node, WF_MESSAGE_CALL);
	wf_foreign_end(rt);
	return 0;
}

/* --- a process to wait for --- */

/* Too many foreign threads wait already: asks again each millisecond. */
static int join_at_last(weft_pid pid, int *result_out)
{
	wf_atomic_u32 never = { 0 };
	int r;

	while ((r = weft_join(pid, result_out, WEFT_FOREVER)) == -ENOMEM)
		wf_futex_wait(&never, 0, weft_after(WEFT_MS(1)));
	return r;
}

int weft_rt_block_on(weft_rt *rt, weft_fn fn, void *arg, const struct weft_spawn_opts *opts,
	int *result_out)
{
	weft_pid pid;
	int r;

	if (wf_worker_self())
		return -EDEADLK;
	if (opts && opts->size >= offsetof(struct weft_spawn_opts, flags) + sizeof opts->flags
		&& (opts->flags & (WEFT_DETACHED | WEFT_SUSPENDED)))
		return -EINVAL; /* nobody could join it; nobody would start it */
	r = weft_rt_spawn(rt, fn, arg, opts, &pid);
	if (r < 0)
		return r;
	return wf_embed_is_owner(rt) ? wf_embed_join(rt, pid, result_out)
				     : join_at_last(pid, result_out);
}
