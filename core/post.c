/*
 * post.c: weft_post(): a function carried to a worker's inbox and run there between two processes.
 *
 * A post counts as alive from the call on: the count comes first, then the phase is read (seq_cst),
 * so that either the post is refused or the runtime does not end before it has run.
 */
#include "core/post.h"

#include <errno.h>

#include "core/inbox.h"
#include "core/runtime.h"

struct post {
	struct wf_node node;
	void (*fn)(void *arg);
	void *arg;
};

void wf_post_run(struct wf_worker *worker, struct wf_node *node)
{
	struct post *post = WF_CONTAINER_OF(node, struct post, node);

	post->fn(post->arg);
	wf_free(worker->rt, post, sizeof *post);
	wf_u64_store_release(&worker->completed, wf_u64_load_relaxed(&worker->completed) + 1);
}

int weft_post(weft_rt *rt, void (*fn)(void *arg), void *arg)
{
	struct wf_worker *self = wf_worker_self();
	struct wf_worker *target;
	struct post *post;

	if (!fn)
		return -EINVAL;
	post = wf_alloc(rt, WF_CACHE_LINE, sizeof *post);
	if (!post)
		return -ENOMEM;
	post->fn = fn;
	post->arg = arg;
	wf_foreign_begin(rt);
	if (wf_foreign_comes_late(rt) && !WF_PLANTED(post_ignores_close)) {
		wf_free(rt, post, sizeof *post);
		wf_foreign_refused(rt);
		wf_foreign_end(rt);
		return -ESHUTDOWN;
	}
	target = self && self->rt == rt
		? self
		: &rt->workers[wf_u32_fetch_add(&rt->post_turn, 1) % rt->worker_count];
	(void)wf_inbox_send(target, &post->node, WF_MESSAGE_POST);
	wf_foreign_end(rt);
	return 0;
}
