/*
 * scope_list.c: the ids of a scope's children, and the cancel that walks over them. V2, V6 and V7
 * of core/README.md, "scope".
 *
 * The owner appends, and from time to time drops what has ended; anybody may walk, once, when the
 * scope is cancelled: from then on the list only grows. `stage` says whose it is.
 */
#include "core/scoped.h"

#include <errno.h>

/* Moves a cursor that is at the end of its part to the next one. False: there is none. */
static bool list_next_part(struct wf_scope *s, struct wf_scope_cursor *cursor)
{
	struct wf_scope_chunk *next = cursor->chunk ? cursor->chunk->next : s->chunks;

	if (!next)
		return false;
	*cursor = (struct wf_scope_cursor){ next, next->pids, next->pids + next->capacity };
	return true;
}

/* The next id; the caller knows that there is one. */
static weft_pid *list_next(struct wf_scope *s, struct wf_scope_cursor *cursor)
{
	if (cursor->at == cursor->end)
		(void)list_next_part(s, cursor);
	return cursor->at++;
}

static bool is_alive(const struct weft_rt *rt, weft_pid pid)
{
	const struct wf_proc *p = wf_table_find(&rt->table, pid);

	return p && wf_word_phase(wf_u64_load_relaxed(&p->word)) != WF_DONE;
}

/* A deadline is an error if it cancels somebody, whatever they make of it. */
WF_COLD static void note_expiry(
	const struct weft_rt *rt, struct wf_scope *s, uint32_t count)
{
	struct wf_scope_cursor cursor = wf_scope_list_begin(s);
	uint32_t none = 0;

	while (count-- > 0)
		if (is_alive(rt, *list_next(s, &cursor))) {
			(void)wf_u32_cas(&s->error, &none, (uint32_t)-ETIME);
			return;
		}
}

/* V6: who ended the stage OPEN walks. In a read section. */
static void cancel_listed(struct weft_rt *rt, struct wf_worker *worker, struct wf_scope *s)
{
	struct wf_scope_cursor cursor = wf_scope_list_begin(s);
	/* V6: seq_cst, with V2 in wf_scope_adopt(): an id is not missed by both. */
	uint32_t count = wf_u32_load_seq_cst(&s->listed);

	if (wf_u32_load_relaxed(&s->stage) == WF_SCOPE_EXPIRED)
		note_expiry(rt, s, count);
	while (count-- > 0) {
		weft_pid pid = *list_next(s, &cursor);
		struct wf_proc *p = wf_table_find(&rt->table, pid);

		if (p)
			(void)wf_proc_cancel(rt, worker, p, wf_pid_generation(pid));
	}
}

void wf_scope_cancel_children(struct weft_rt *rt, struct wf_worker *worker, struct wf_scope *s,
	enum wf_scope_stage stage)
{
	uint32_t old = wf_u32_load_relaxed(&s->stage);

	/*
	 * V6: seq_cst (the cas), with V2 in wf_scope_adopt(). Acquire, with V7 in compact(): the
	 * list is whole. COMPACTING: the owner finds it cancelled when it is done, and walks.
	 */
	do
		if (old >= WF_SCOPE_CANCELLED)
			return;
	while (!wf_u32_cas(&s->stage, &old, stage));
	if (old == WF_SCOPE_OPEN)
		cancel_listed(rt, worker, s);
}

/* V7: drops the ids of those that have ended: they are out of the table, or DONE. */
static void compact(struct wf_worker *worker, struct wf_scope *s)
{
	uint32_t stage = WF_SCOPE_OPEN;
	struct wf_scope_cursor from = wf_scope_list_begin(s), to = from;
	uint32_t count = wf_u32_load_relaxed(&s->listed), kept = 0;

	if (!wf_u32_cas(&s->stage, &stage, WF_SCOPE_COMPACTING))
		return;
	while (count-- > 0) {
		weft_pid pid = *list_next(s, &from);

		if (!is_alive(worker->rt, pid))
			continue;
		*list_next(s, &to) = pid;
		kept++;
	}
	s->free = to;
	wf_u32_store_relaxed(&s->listed, kept);
	stage = WF_SCOPE_COMPACTING;
	/* V7: release (the cas), with V6 in wf_scope_cancel_children(). */
	if (!wf_u32_cas(&s->stage, &stage, WF_SCOPE_OPEN))
		cancel_listed(worker->rt, worker, s);
}

/* As much again, so that compacting and growing cost a spawn a constant. */
static int list_grow(struct wf_worker *worker, struct wf_scope *s)
{
	uint32_t capacity = s->capacity < WF_SCOPE_CHUNK_MIN ? WF_SCOPE_CHUNK_MIN : s->capacity;
	struct wf_scope_chunk *chunk = wf_alloc(worker->rt, _Alignof(struct wf_scope_chunk),
		sizeof *chunk + capacity * sizeof chunk->pids[0]);

	if (!chunk)
		return -ENOMEM;
	chunk->next = NULL;
	chunk->capacity = capacity;
	if (s->free.chunk)
		s->free.chunk->next = chunk;
	else
		s->chunks = chunk;
	s->capacity += capacity;
	return 0;
}

WF_COLD int wf_scope_list_make_room(struct wf_worker *worker, struct wf_scope *s)
{
	if (list_next_part(s, &s->free))
		return 0;
	if (wf_scope_alive(s) <= s->capacity / 2)
		compact(worker, s);
	if (s->free.at < s->free.end || list_next_part(s, &s->free))
		return 0;
	if (list_grow(worker, s) < 0)
		return -ENOMEM;
	(void)list_next_part(s, &s->free);
	return 0;
}

void wf_scope_list_free(struct wf_scope *s)
{
	while (WF_UNLIKELY(s->chunks != NULL)) {
		struct wf_scope_chunk *chunk = s->chunks;

		s->chunks = chunk->next;
		wf_free(s->rt, chunk, sizeof *chunk + chunk->capacity * sizeof chunk->pids[0]);
	}
}
