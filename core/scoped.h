/*
 * scoped.h: the inside of a scope (scope.c has the story), and what spawn.c and run.c do for its
 * children and for owners that are tasks. Steps V1 to V12 are in core/README.md, "scope".
 */
#ifndef WF_CORE_SCOPED_H
#define WF_CORE_SCOPED_H

#include <weft/scope.h>

#include "core/cleanup.h"
#include "core/runtime.h"
#include "core/wake.h"

enum {
#if defined(WF_ATOMICS_SIM)
	WF_SCOPE_INLINE = 2,
	WF_SCOPE_CHUNK_MIN = 2,
#else
	WF_SCOPE_INLINE = 8,
	WF_SCOPE_CHUNK_MIN = 64,
#endif
};

/*
 * `count`: {wait number 32 | any 1 | count 31}. While nobody waits the number is 0 and count is
 * BASE - (children that have ended); BASE keeps it from borrowing. Who waits adds number and
 * what it has spawned, less BASE: then count is the children alive.
 */
#define WF_SCOPE_COUNT ((uint64_t)0x7fffffff)
#define WF_SCOPE_ANY   ((uint64_t)1 << 31)
#define WF_SCOPE_BASE  ((uint64_t)1 << 30)
/* In place of the wait number: a task is to be polled when no child is alive. */
#define WF_SCOPE_TOLD  ((uint64_t)1 << 32)

/* Whether `listed` may be walked, and by whom. */
enum wf_scope_stage {
	WF_SCOPE_OPEN,
	WF_SCOPE_COMPACTING, /* the owner drops those that have ended */
	WF_SCOPE_CANCELLED,  /* from here on for ever; the list only grows now */
	WF_SCOPE_EXPIRED,    /* cancelled, by its deadline */
};

/* More room for ids. */
struct wf_scope_chunk {
	struct wf_scope_chunk *next;
	uint32_t capacity;
	weft_pid pids[];
};

/* A place in the list of ids; chunk NULL: in the scope itself. */
struct wf_scope_cursor {
	struct wf_scope_chunk *chunk;
	weft_pid *at, *end;
};

/* may_alias: the caller's memory is a struct weft_scope. */
struct wf_scope {
	union {
		struct wf_cleanup cleanup;    /* an owner's that is a fiber */
		struct {
			weft_fn fn;
			void *arg;
		} body;                       /* a task's: `fresh` before it was opened */
	};

	/* Constant while it is open. */
	struct wf_proc *owner;        /* NULL: not open */
	weft_pid owner_pid;
	struct weft_rt *rt;
	unsigned flags;

	/* Children, cancellers, the owner. */
	wf_atomic_u32 stage;          /* enum wf_scope_stage */
	wf_atomic_u64 count;
	wf_atomic_u32 error;          /* the first one, 0: none */
	wf_atomic_u32 listed;         /* ids in the list; a store by the owner */
	wf_atomic_ptr ended;          /* COLLECT: the newest child that has ended, by run.next */
	wf_atomic_u64 watch;          /* of the watchdog: 0, who waits for its end, or its end */

	/* The owner's. */
	uint32_t spawned;             /* since they were last added to `count` */
	uint32_t untaken;             /* COLLECT: neither taken nor dropped */
	uint32_t capacity;            /* of the list */
	int result;                   /* of a task that has ended before its children */
	uint64_t asked;               /* by a task: what is to be taken back from `count` */
	struct wf_proc *collected;    /* COLLECT: out of `ended`, in the order of their ends */
	struct wf_scope_cursor free;  /* the next free place of the list */
	struct wf_scope_chunk *chunks; /* written before `listed` says that there is more */
	weft_pid watchdog;
	weft_time deadline;
	weft_pid pids[WF_SCOPE_INLINE];
} __attribute__((may_alias));

static_assert(sizeof(struct wf_scope) <= sizeof(struct weft_scope), "it lies in the caller's");
static_assert(_Alignof(struct wf_scope) <= _Alignof(struct weft_scope), "and is aligned there");

/*
 * Owner: a fiber that has not asked, or a task. How many are alive: children, and others who cancel
 * just now.
 */
WF_INLINE uint32_t wf_scope_alive(const struct wf_scope *s)
{
	/* V5: acquire, with V4 in count_down(): what those that have ended have done. */
	uint64_t count = wf_u64_load_acquire(&s->count) & WF_SCOPE_COUNT;

	return (uint32_t)(s->asked ? count : count - WF_SCOPE_BASE) + s->spawned;
}

/* The first place of the list of ids. */
WF_INLINE struct wf_scope_cursor wf_scope_list_begin(struct wf_scope *s)
{
	return (struct wf_scope_cursor){ NULL, s->pids, s->pids + WF_SCOPE_INLINE };
}

/*
 * scope_list.c. make_room: the part of the list that is being filled is full; 0 or -ENOMEM.
 * cancel_children: stage: CANCELLED or EXPIRED; the caller keeps the scope open: the owner, a
 * child, or as good.
 */
int wf_scope_list_make_room(struct wf_worker *worker, struct wf_scope *s);
void wf_scope_list_free(struct wf_scope *s);
void wf_scope_cancel_children(struct weft_rt *rt, struct wf_worker *worker, struct wf_scope *s,
	enum wf_scope_stage stage);

/*
 * spawn.c: a child: made, told to the scope (V2), queued. The caller, which runs on
 * `worker`, has made sure of a place in the list.
 */
int wf_spawn_child(struct wf_worker *worker, struct wf_scope *scope, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, weft_pid *pid_out);
int wf_spawn_child_task(struct wf_worker *worker, struct wf_scope *scope, weft_task_fn fn,
	void *state, const struct weft_spawn_opts *opts, weft_pid *pid_out);

/*
 * The owner is a task. Of one that has scopes open `fresh` is this function and the newest of them,
 * each of which has what stood there before: so a body that runs is told from one that owns scopes
 * by one comparison, and neither memory nor a place in the header is needed for the list of them.
 */
int wf_scope_poll(void *scope);

WF_INLINE bool wf_scope_is_open(const struct wf_proc *task)
{
	return task->fresh.fn == wf_scope_poll;
}

/*
 * V12. The running task has ended with scopes open. Returns its result, and then none is; or
 * WEFT_PENDING: then it is polled until they are closed, and returns its result once more.
 */
int wf_scope_end_all(
	struct wf_worker *worker, struct wf_proc *p, struct wf_scope *newest, int result);

/* V2. Owner: p is published; it goes into `children` next: the look comes when it leaves them. */
WF_INLINE void wf_scope_adopt(struct wf_scope *scope, weft_pid pid)
{
	scope->spawned++;
	scope->untaken++;
	*scope->free.at++ = pid;
	/* V2: release, with V6 in wf_scope_cancel_children(): the id. */
	wf_u32_store_release(&scope->listed, wf_u32_load_relaxed(&scope->listed) + 1);
}

/*
 * V2. By a caller that has done a read-modify-write, of whatever word, after the child was listed
 * and before it runs: seq_cst, with V6 in wf_scope_cancel_children(): either a canceller walks over
 * the child's id, or this sees that it was there. Without it a child may run on in a scope that was
 * cancelled. (Any will do because atomic.h makes each a full fence, be it by the instruction or by
 * fences beside it; C11's words alone do not promise that.)
 */
WF_INLINE void wf_scope_look(
	struct wf_worker *worker, const struct wf_scope *scope, struct wf_proc *p, uint64_t word)
{
	if (WF_UNLIKELY(wf_u32_load_seq_cst(&scope->stage) >= WF_SCOPE_CANCELLED)
		&& !WF_PLANTED(scope_spawn_misses_cancel))
		(void)wf_proc_cancel(worker->rt, worker, p, wf_word_generation(word));
}

/* V2. Owner: p goes elsewhere. Published, and not yet queued. */
WF_INLINE void wf_scope_adopt_now(struct wf_worker *worker, struct wf_scope *scope,
	struct wf_proc *p, uint64_t word, weft_pid pid)
{
	wf_scope_adopt(scope, pid);
	if (!WF_PLANTED(scope_lists_without_rmw))
		(void)wf_u32_fetch_add(&scope->listed, 0);
	wf_scope_look(worker, scope, p, word);
}

/* V2. Owner, or a thief: p has just come out of `children`, by a read-modify-write. */
WF_INLINE void wf_scope_child_taken(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t word = wf_u64_load_relaxed(&p->word);

	if (WF_LIKELY((word & (WF_WORD_SCOPED | WF_WORD_PHASE)) == (WF_WORD_SCOPED | WF_NEW)))
		wf_scope_look(worker,
			(struct wf_scope *)(uintptr_t)wf_u64_load_relaxed(&p->joiner), p, word);
}

/*
 * run.c: a child has ended; its word says so. p is the caller's still, unless the scope
 * collects: then it is the scope's. task: it was one, and the caller is about to pick the next.
 */
void wf_scope_child_ended(struct wf_worker *worker, struct wf_proc *p, int result, bool task);

#endif
