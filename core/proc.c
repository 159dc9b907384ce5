/* proc.c: names and moves of the states, and ids as text. */
#include "core/proc.h"

#include <stdio.h>
#include <string.h>

#include "core/sched.h"

static const char *const phase_names[WF_PHASE_COUNT] = {
	[WF_FREE] = "free",
	[WF_RESERVED] = "reserved",
	[WF_SUSPENDED] = "suspended",
	[WF_NEW] = "new",
	[WF_QUEUED] = "queued",
	[WF_RUNNING] = "running",
	[WF_NOTIFIED] = "notified",
	[WF_WAITING] = "waiting",
	[WF_OWNED] = "owned",
	[WF_DONE] = "done",
};

#define TO(phase) (1u << (phase))

static const unsigned phase_moves[WF_PHASE_COUNT] = {
	[WF_FREE] = TO(WF_RESERVED) | TO(WF_SUSPENDED) | TO(WF_NEW),
	[WF_RESERVED] = TO(WF_NEW) | TO(WF_SUSPENDED) | TO(WF_FREE),
	[WF_SUSPENDED] = TO(WF_NEW)
		| TO(WF_FREE), /* a foreign spawn taken back */
	[WF_NEW] = TO(WF_OWNED) | TO(WF_RUNNING)
		| TO(WF_FREE) /* a foreign spawn taken back; or as DONE: */
		| TO(WF_NOTIFIED) | TO(WF_WAITING) | TO(WF_QUEUED)
		| TO(WF_DONE), /* of a task in its first run */
	[WF_QUEUED] = TO(WF_RUNNING),
	[WF_RUNNING] = TO(WF_NOTIFIED) | TO(WF_WAITING) | TO(WF_QUEUED) | TO(WF_DONE) | TO(WF_FREE),
	[WF_NOTIFIED] = TO(WF_QUEUED) | TO(WF_DONE) | TO(WF_FREE) | TO(WF_RUNNING),
	[WF_WAITING] = TO(WF_QUEUED) | TO(WF_RUNNING), /* handed to the loop */
	[WF_OWNED] = TO(WF_DONE) | TO(WF_FREE),
	[WF_DONE] = TO(WF_FREE),
};

const char *wf_phase_name(enum wf_phase phase)
{
	return phase < WF_PHASE_COUNT ? phase_names[phase] : "?";
}

bool wf_phase_move_ok(enum wf_phase from, enum wf_phase to)
{
	return from < WF_PHASE_COUNT && (phase_moves[from] & TO(to));
}

struct wf_ext *wf_proc_ext(struct weft_rt *rt, struct wf_proc *p)
{
	struct wf_ext *ext = p->ext;

	if (ext)
		return ext;
	ext = wf_alloc(rt, WF_CACHE_LINE, sizeof *ext);
	if (!ext)
		return NULL;
	memset(ext, 0, sizeof *ext);
	/*
	 * B5: release, with B6 in wf_proc_name(): else that one sees the memory's past. An RMW only
	 * for simulations, where a store waits, and p's own plain loads would not find it.
	 */
	(void)wf_ptr_exchange(&p->ext_shared, ext);
	return ext;
}

const char *wf_proc_name(struct wf_proc *p)
{
	/* B6: acquire, with B5 in wf_proc_ext(). It is freed after a grace period, not before. */
	const struct wf_ext *ext = wf_ptr_load_acquire(&p->ext_shared);

	return ext ? ext->name : "";
}

char *weft_pid_format(weft_pid pid, char text[WEFT_PID_TEXT_MAX])
{
	snprintf(text, WEFT_PID_TEXT_MAX, "<%u.%u.%u>", wf_pid_runtime(pid), wf_pid_index(pid),
		wf_pid_generation(pid));
	return text;
}
