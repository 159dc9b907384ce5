/*
 * blocking.c: <weft/blocking.h>: jobs, and how a process waits for one. pool.c runs them.
 *
 * The job of a call lies on the stack of the process that waits for it. The pool's thread touches
 * it no more once it has claimed the wait; the process does not return before that, or before it
 * has taken the job back, both under the pool's lock.
 *
 * A post is counted as foreign spawns are: first (N1), then the phase is read (N4); and counted out
 * when its argument has been given up.
 */
#include <errno.h>
#include <stdio.h>

#include "core/internal.h"
#include "core/runtime.h"

#define BLOCKING_FLAGS WEFT_BLOCKING_MANDATORY

struct post {
	struct wf_job job;
	void (*arg_dtor)(void *arg);
	char name[WF_BLOCKING_NAME_BYTES];
};

static bool is_post(const struct wf_job *job)
{
	return job->kind >= WF_JOB_POST;
}

static struct post *post_of(struct wf_job *job)
{
	return WF_CONTAINER_OF(job, struct post, job);
}

/* --- on a thread of the pool --- */

/*
 * Only CLOSED means a stop here: a runtime about to end looks again (E4) when it finds this job
 * alive, and is in ENDING meanwhile.
 */
static bool is_dropped(const struct weft_rt *rt, const struct wf_job *job)
{
	return job->kind == WF_JOB_POST && wf_u32_load_seq_cst(&rt->stop_phase) == WF_CLOSED;
}

void wf_job_run(struct weft_rt *rt, struct wf_job *job)
{
	if (!is_dropped(rt, job))
		job->result = job->fn(job->arg);
	if (is_post(job) && post_of(job)->arg_dtor)
		post_of(job)->arg_dtor(job->arg);
}

void wf_job_end(struct weft_rt *rt, struct wf_job *job)
{
	wf_free(rt, post_of(job), sizeof(struct post));
	wf_foreign_completed(rt);
}

const char *wf_job_name(struct wf_job *job)
{
	static const char none[WF_BLOCKING_NAME_BYTES];

	return is_post(job) ? post_of(job)->name : none;
}

/* --- calls --- */

static void job_init(struct wf_job *job, enum wf_job_kind kind, weft_fn fn, void *arg)
{
	*job = (struct wf_job){ .kind = kind, .fn = fn, .arg = arg };
	wf_wait_begin(&job->wait);
}

static int submit(struct weft_rt *rt, struct wf_job *job)
{
	int r = wf_pool_submit(rt, job);

	if (r < 0)
		wf_wait_end(&job->wait);
	return r;
}

int weft_blocking(weft_fn fn, void *arg, int *result_out, weft_time deadline)
{
	struct weft_rt *rt;
	struct wf_job job;
	int r = wf_wait_check();

	if (r < 0)
		return r;
	if (!fn)
		return -EINVAL;
	if (deadline == WEFT_POLL)
		return -EAGAIN;
	if (deadline <= weft_now_coarse())
		return -ETIME;
	rt = weft_rt_current();
	job_init(&job, WF_JOB_CALL, fn, arg);
	r = submit(rt, &job);
	if (r < 0)
		return r;
	r = wf_wait_park(&job.wait, deadline);
	if (r < 0) {
		enum wf_taken taken = wf_pool_take_back(rt, &job);

		if (taken == WF_TAKEN_BACK)
			return r;
		if (taken == WF_TAKEN_RUNS)
			(void)wf_wait_park_shielded(&job.wait, WEFT_FOREVER);
	}
	if (result_out)
		*result_out = job.result;
	return 0;
}

static int call_here(weft_fn fn, void *arg, int *result_out)
{
	int result = fn(arg);

	if (result_out)
		*result_out = result;
	return 0;
}

int weft_block_in_place(weft_fn fn, void *arg, int *result_out)
{
	struct wf_job job;
	int r;

	if (!fn)
		return -EINVAL;
	if (!wf_worker_self())
		return call_here(fn, arg, result_out);
	if (wf_wait_check() == -EPERM)
		return -EPERM;
	job_init(&job, WF_JOB_IN_PLACE, fn, arg);
	r = submit(weft_rt_current(), &job);
	if (r < 0)
		return r;
	(void)wf_wait_park_shielded(&job.wait, WEFT_FOREVER);
	if (result_out)
		*result_out = job.result;
	return 0;
}

/* --- posts --- */

static int post_make(struct weft_rt *rt, weft_fn fn, void *arg,
	const struct weft_blocking_opts *opts, struct post **post_out)
{
	struct post *post = wf_alloc(rt, WF_CACHE_LINE, sizeof *post);

	if (!post)
		return -ENOMEM;
	*post = (struct post){ .arg_dtor = opts->arg_dtor };
	post->job.kind = opts->flags & WEFT_BLOCKING_MANDATORY ? WF_JOB_MANDATORY : WF_JOB_POST;
	post->job.fn = fn;
	post->job.arg = arg;
	snprintf(post->name, sizeof post->name, "%.31s", opts->name ? opts->name : "");
	*post_out = post;
	return 0;
}

int weft_blocking_post(
	struct weft_rt *rt, weft_fn fn, void *arg, const struct weft_blocking_opts *opts)
{
	struct weft_blocking_opts own = { .size = sizeof own };
	struct post *post;
	int r = opts ? wf_opts_read(opts, opts->size, &own, sizeof own) : 0;

	if (r < 0)
		return r;
	if (!fn || (own.flags & ~BLOCKING_FLAGS))
		return -EINVAL;
	r = post_make(rt, fn, arg, &own, &post);
	if (r < 0)
		return r;
	wf_foreign_begin(rt);
	if (wf_foreign_comes_late(rt) && !WF_PLANTED(blocking_post_ignores_close))
		r = -ESHUTDOWN;
	else
		r = wf_pool_submit(rt, &post->job);
	if (r < 0) {
		wf_free(rt, post, sizeof *post);
		wf_foreign_refused(rt);
	}
	wf_foreign_end(rt);
	return r;
}
