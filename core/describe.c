/*
 * describe.c: the running process, for the guard handler. Async-signal-safe: plain loads and
 * copies.
 */
#include "core/describe.h"

#include "core/runtime.h"
#include "core/tasks.h"

static void copy(char *to, size_t size, const char *from)
{
	size_t i = 0;

	for (; i + 1 < size && from[i]; i++)
		to[i] = from[i];
	to[i] = '\0';
}

/* The text of a number, into `to`; returns its end. */
static char *put_number(char *to, uint32_t number)
{
	char digits[10];
	int count = 0;

	do
		digits[count++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	while (count > 0)
		*to++ = digits[--count];
	return to;
}

/* As weft_pid_format(), without printf. */
static void put_pid(char *to, const struct weft_rt *rt, const struct wf_proc *p)
{
	*to++ = '<';
	to = put_number(to, rt->slot);
	*to++ = '.';
	to = put_number(to, p->index);
	*to++ = '.';
	to = put_number(to, wf_word_generation(wf_u64_load_relaxed(&p->word)));
	*to++ = '>';
	*to = '\0';
}

bool wf_describe_current(struct wf_guard_subject *subject_out)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p = worker ? worker->current : NULL;

	if (!p || wf_proc_is_task(p))
		return false;
	subject_out->stack = wf_fiber_stack(p->live.fiber);
	copy(subject_out->name, sizeof subject_out->name, p->ext ? p->ext->name : "");
	put_pid(subject_out->id, worker->rt, p);
	return true;
}
