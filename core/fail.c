/*
 * fail.c: <weft/fail.h>: deferred calls, failure, shields, and how an end is described.
 *
 * weft_fail() in a fiber does not unwind: it goes through the end (core/cleanup.h) on top of the
 * frames that are active, then switches away for good. So records in those frames are still there
 * to be run, and no frame is jumped over that a sanitizer or a debugger counts on. A weft_fail() in
 * a cleanup does the same once more, on top of it: what is left of the end is found in lists that
 * say themselves how far it came.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/exit.h"
#include "core/runtime.h"
#include "core/scoped.h"
#include "core/tasks.h"

/* --- deferred calls --- */

static_assert(sizeof(struct wf_cleanup) <= sizeof(((struct weft_deferred *)NULL)->opaque),
	"a deferred call has room for its record");
static_assert(offsetof(struct weft_deferred, opaque) == 0, "run_deferred casts");

static struct wf_cleanup *cleanup_of(struct weft_deferred *defer)
{
	return (struct wf_cleanup *)(void *)defer->opaque;
}

static void run_deferred(struct wf_cleanup *cleanup, bool failed)
{
	struct weft_deferred *defer = (struct weft_deferred *)(void *)cleanup;

	(void)failed;
	defer->fn(defer->arg);
}

int weft_defer(struct weft_deferred *defer, void (*fn)(void *arg), void *arg)
{
	if (!fn)
		return -EINVAL;
	defer->fn = fn;
	defer->arg = arg;
	cleanup_of(defer)->run = run_deferred;
	return wf_cleanup_push(cleanup_of(defer));
}

static bool in_process(void)
{
	struct wf_worker *worker = wf_worker_self();

	return worker && worker->current;
}

int weft_defer_drop(struct weft_deferred *defer)
{
	if (!in_process())
		return -EPERM;
	return wf_cleanup_remove(cleanup_of(defer)) ? 0 : -EINVAL;
}

int weft_defer_run(struct weft_deferred *defer)
{
	int r = weft_defer_drop(defer);

	if (r == 0)
		defer->fn(defer->arg);
	return r;
}

/* --- failure --- */

/* Where there is no process to end. */
WF_PRINTF(2, 0)
WF_COLD static _Noreturn void fail_nowhere(int code, const char *format, va_list args)
{
	char message[sizeof ((struct wf_ext *)NULL)->message] = "";

	if (format)
		vsnprintf(message, sizeof message, format, args);
	fprintf(stderr, "weft: weft_fail(%d) outside a process: %s\n", code, message);
	abort();
}

/* The first failure of a process is the one that is told. Not inlined: its frame goes again. */
WF_PRINTF(4, 0)
WF_COLD static void record(struct wf_worker *worker, struct wf_proc *p, int code,
	const char *format, va_list args)
{
	struct wf_ext *ext = wf_proc_ext(worker->rt, p);

	p->live.failure = code < 0 ? code : -EINVAL;
	if (ext && format)
		vsnprintf(ext->message, sizeof ext->message, format, args);
	/* An RMW since others may cancel it. Who reads the message has seen DONE (J3 in run.c). */
	(void)wf_u64_fetch_or(&p->word, WF_WORD_FAILED);
	wf_log(worker->rt, WEFT_LOG_INFO, "process \"%s\" has failed: %d: %s", wf_proc_name(p),
		p->live.failure, ext ? ext->message : "");
}

void weft_fail(int code, const char *format, ...)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p = worker ? worker->current : NULL;
	struct wf_scope *open = NULL;
	va_list args;

	va_start(args, format);
	if (!p)
		fail_nowhere(code, format, args);
	if (wf_proc_is_task(p) && wf_scope_is_open(p))
		open = p->fresh.arg; /* which the failure takes the place of */
	if (!(wf_u64_load_relaxed(&p->word) & WF_WORD_FAILED) || WF_PLANTED(fail_tells_the_last))
		record(worker, p, code, format, args);
	va_end(args);
	if (open && wf_scope_end_all(worker, p, open, p->live.failure) == WEFT_PENDING)
		wf_fail_leave(worker, p, WEFT_PENDING);
	wf_wind_up(p, __builtin_frame_address(0));
	wf_fail_leave(wf_worker_self(), p, p->live.failure);
}

/* --- the end, described --- */

void wf_exit_describe(const struct weft_rt *rt, const struct wf_proc *p, uint64_t word, int result,
	struct weft_exit *exit_out)
{
	const struct wf_ext *ext = p->ext;

	memset(exit_out, 0, sizeof *exit_out);
	exit_out->size = sizeof *exit_out;
	exit_out->pid = wf_pid_make(wf_word_generation(word), rt->slot, p->index);
	exit_out->result = result;
	exit_out->failed = word & WF_WORD_FAILED;
	if (!ext)
		return;
	memcpy(exit_out->name, ext->name, sizeof exit_out->name);
	if (exit_out->failed)
		memcpy(exit_out->message, ext->message, sizeof exit_out->message);
}

void wf_exit_copy(const struct weft_exit *told, struct weft_exit *exit_out)
{
	size_t size = exit_out->size;

	memset(exit_out, 0, size);
	memcpy(exit_out, told, size < sizeof *told ? size : sizeof *told);
	exit_out->size = size;
}

static_assert(sizeof ((struct weft_exit *)NULL)->name == sizeof ((struct wf_ext *)NULL)->name
		&& sizeof ((struct weft_exit *)NULL)->message
			== sizeof ((struct wf_ext *)NULL)->message,
	"wf_exit_describe copies them whole");

/* --- shields --- */

#define SHIELD_ONE ((uint64_t)1 << WF_WORD_SHIELD_SHIFT)

static_assert(WF_WORD_SHIELD >> WF_WORD_SHIELD_SHIFT == WEFT_SHIELD_DEPTH_MAX,
	"the field holds the depth");

/* The depth is the process's own, the word is not: others cancel and detach. So by an RMW. */
static void change_depth(struct wf_proc *p, uint64_t by)
{
	if (WF_PLANTED(shield_by_store))
		wf_u64_store_relaxed(&p->word, wf_u64_load_relaxed(&p->word) + by);
	else
		(void)wf_u64_fetch_add(&p->word, by);
}

int weft_shield_begin(void)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p = worker ? worker->current : NULL;

	if (!p)
		return -EPERM;
	if ((wf_u64_load_relaxed(&p->word) & WF_WORD_SHIELD) == WF_WORD_SHIELD)
		return -ENOSPC;
	change_depth(p, SHIELD_ONE);
	return 0;
}

int weft_shield_end(void)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p = worker ? worker->current : NULL;

	if (!p)
		return -EPERM;
	if (!(wf_u64_load_relaxed(&p->word) & WF_WORD_SHIELD))
		return -EINVAL;
	change_depth(p, -SHIELD_ONE);
	return 0;
}
