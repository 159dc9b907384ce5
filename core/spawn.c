/*
 * spawn.c: making processes: from a worker, from anywhere, and in two steps.
 *
 * Publication: N1 to N5 in core/README.md. A header becomes a process by the store that puts a
 * phase other than FREE into its word; then it is queued. Once the table is closed (S1) that must
 * not happen unseen by the sweep that cancels what is alive:
 *   - on a worker of the runtime it is enough to look at worker->closed before: the worker
 *     acknowledged the close (an RMW) after it had set that flag, and no sweep begins before all
 *     have acknowledged; so what it published before is visible to every sweep, and after it
 *     nothing is published.
 *   - for foreign threads (and workers of other runtimes): if N4 reads the phase before the
 *     closer's RMW, then N1 and N3 come before it too, so the sweep, and the sum of what is alive,
 *     see the process. Else it is taken back, by a CAS, since the sweep may have started a
 *     suspended one meanwhile.
 * A foreign call is itself counted while it lasts (rt->foreign, low half): destroy waits for it.
 * One that counts a process out again may take away the last thing alive, so it wakes the workers
 * to look.
 */
#include <errno.h>
#include <string.h>

#include "core/forced.h"
#include "core/hooks.h"
#include "core/inbox.h"
#include "core/internal.h"
#include "core/join.h"
#include "core/queue.h"
#include "core/registry.h"
#include "core/scoped.h"
#include "core/self.h"
#include "core/wake.h"

#define STACK_BYTES_MIN ((size_t)16384)
#define STACK_BYTES_MAX ((size_t)1 << 30)
#define SPAWN_FLAGS \
	(WEFT_MOVABLE | WEFT_DETACHED | WEFT_SUSPENDED | WEFT_STACK_NOW | WEFT_PINNED)

/* What the word of a process has from its body: nothing, of a fiber. */
#define FIBER_WORD ((uint64_t)0)
#define TASK_WORD  (WF_WORD_TASK | WF_WORD_MOVABLE)

static const struct weft_spawn_opts spawn_defaults = { .size = sizeof(struct weft_spawn_opts) };

/*
 * Options of another release: shorter ones are filled up with zeroes, longer ones must end in them.
 */
static int read_opts(const struct weft_rt *rt, const struct weft_spawn_opts *opts,
	struct weft_spawn_opts *out)
{
	int r = wf_opts_read(opts, opts->size, out, sizeof *out);

	if (r < 0)
		return r;
	if ((out->flags & ~SPAWN_FLAGS) ||
		(out->flags & (WEFT_MOVABLE | WEFT_PINNED)) == (WEFT_MOVABLE | WEFT_PINNED))
		return -EINVAL;
	if ((unsigned)out->priority > WEFT_PRIORITY_LOW)
		return -EINVAL;
	if (out->worker > rt->worker_count)
		return -EINVAL;
	if (out->stack_size
		&& (out->stack_size < STACK_BYTES_MIN || out->stack_size > STACK_BYTES_MAX))
		return -EINVAL;
	return 0;
}

/* What a task has no use for. */
static bool needs_a_stack(const struct weft_spawn_opts *opts)
{
	return opts->stack_size || (opts->flags & WEFT_STACK_NOW);
}

/* `body`: FIBER_WORD or TASK_WORD. */
static uint64_t word_flags(const struct weft_spawn_opts *opts, bool detached, uint64_t body)
{
	uint64_t flags = body;

	if (detached || (opts->flags & WEFT_DETACHED))
		flags |= WF_WORD_DETACHED;
	if (opts->flags & WEFT_MOVABLE)
		flags |= WF_WORD_MOVABLE;
	flags |= (uint64_t)opts->priority << WF_WORD_PRIORITY_SHIFT;
	if (opts->flags & WEFT_PINNED)
		flags &= ~WF_WORD_MOVABLE;
	if (opts->worker)
		flags |= WF_WORD_PLACED | (uint64_t)(opts->worker - 1) << WF_WORD_OWNER_SHIFT;
	return flags;
}

/* The trace word of the calling process, if there is one. */
WF_INLINE uint64_t trace_of(const struct wf_worker *worker)
{
	const struct wf_ext *ext = worker && worker->current ? worker->current->ext : NULL;

	return WF_UNLIKELY(ext != NULL) ? ext->trace : 0;
}

/* The rarely used part, if the options ask for something that needs it. */
static int make_ext(
	struct weft_rt *rt, struct wf_proc *p, const struct weft_spawn_opts *opts, void *arg)
{
	struct wf_worker *self = wf_worker_self();
	uint64_t trace = opts->trace ? opts->trace : trace_of(self);
	struct wf_ext *ext;

	if (!opts->name && !opts->arg_dtor && !opts->stack_size && !trace
		&& !(opts->flags & WEFT_STACK_NOW))
		return 0;
	ext = wf_alloc(rt, WF_CACHE_LINE, sizeof *ext);
	if (!ext)
		return -ENOMEM;
	memset(ext, 0, sizeof *ext);
	if (opts->name)
		strncpy(ext->name, opts->name, sizeof ext->name - 1);
	ext->arg_dtor = opts->arg_dtor;
	ext->arg = arg;
	ext->stack_bytes = opts->stack_size;
	ext->trace = trace;
	if (opts->flags & WEFT_STACK_NOW) {
		if (!wf_is_forced(rt, WEFT_TEST_STACK))
			ext->stack = wf_stack_take(self && self->rt == rt ? &self->stacks : NULL,
				rt->depot, opts->stack_size ? opts->stack_size : rt->stack_bytes);
		if (!ext->stack) {
			if (!WF_PLANTED(spawn_keeps_ext))
				wf_free(rt, ext, sizeof *ext);
			return -ENOMEM;
		}
	}
	/* B5: of a reservation that is committed; any other is not to be found yet. */
	wf_ptr_store_release(&p->ext_shared, ext);
	return 0;
}

/* Of a process that will not run; the rest of ext goes with the header. */
static void drop_stack(struct weft_rt *rt, struct wf_proc *p)
{
	if (p->ext && p->ext->stack) {
		wf_stack_give(NULL, rt->depot, p->ext->stack);
		p->ext->stack = NULL;
	}
}

/* N1: counts a process about to exist. -ESHUTDOWN: the worker knows that the table is closed. */
static int count_in(struct weft_rt *rt, struct wf_worker *worker)
{
	if (WF_UNLIKELY(!worker)) {
		wf_foreign_begin(rt);
		return 0;
	}
	if (WF_UNLIKELY(worker->closed))
		return -ESHUTDOWN;
	wf_count(&worker->created, 1);
	return 0;
}

static void count_out(struct weft_rt *rt, struct wf_worker *worker)
{
	if (worker)
		wf_u64_store_release(
			&worker->completed, wf_u64_load_relaxed(&worker->completed) + 1);
	else
		wf_foreign_refused(rt);
}

/*
 * Publishes the word. False (foreign only): the table is closed, the word is free again, with
 * another generation: somebody may have seen this one.
 */
static bool publish(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, uint64_t word)
{
	uint64_t seen = word;

	if (WF_LIKELY(worker)) {
		/* N2: release, with R3 in wf_table_find(). */
		wf_u64_store_release(&p->word, word);
		return true;
	}
	/* N3: seq_cst, with the sweep's look at the word, cancel_one() in life.c. */
	wf_u64_store_seq_cst(&p->word, word);
	if (WF_LIKELY(!wf_foreign_comes_late(rt)) || WF_PLANTED(spawn_ignores_close)) /* N4 */
		return true;
	do {
		/*
		 * N5: the sweep has started it: it runs, cancelled, or has ended, and its header is
		 * perhaps another process's. NEW stays: nobody has queued it yet.
		 */
		if (wf_word_phase(seen) != wf_word_phase(word)
			|| wf_word_generation(seen) != wf_word_generation(word))
			return true;
	} while (!wf_u64_cas(&p->word, &seen, wf_word_freed(word)));
	return false;
}

static void enqueue(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p, uint64_t word)
{
	if (wf_word_phase(word) == WF_SUSPENDED)
		return;
	if (word & WF_WORD_PLACED) {
		struct wf_worker *target = &rt->workers[wf_word_owner(word)];

		if (target == worker)
			wf_queue_push(worker, p);
		else
			(void)wf_inbox_send(target, &p->run, WF_MESSAGE_START);
		return;
	}
	wf_proc_enqueue_new(rt, worker, p);
}

/* A header with a generation, not yet a process. worker: the caller's if it is of rt, else NULL. */
static int take(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc **proc_out)
{
	int r = count_in(rt, worker);

	if (r < 0)
		return r;
	r = wf_is_forced(rt, WEFT_TEST_PROCESS) ? -EAGAIN : wf_table_take(rt, worker, proc_out);
	if (WF_UNLIKELY(r < 0)) {
		if (!WF_PLANTED(spawn_stays_counted))
			count_out(rt, worker);
		/* Headers that wait for a grace period never come back after the end. */
		return wf_u32_load_relaxed(&rt->stop_phase) >= WF_CLOSED ? -ESHUTDOWN : r;
	}
	/* No cas: nobody else touches a free header but by reading its word. */
	wf_u64_store_relaxed(&(*proc_out)->joiner, 0);
	wf_u32_store_relaxed(&(*proc_out)->remote, 0);
	return 0;
}

static uint64_t free_word(const struct wf_proc *p)
{
	return wf_u64_load_relaxed(&p->word) & ~(uint64_t)UINT32_MAX;
}

static void pid_set(struct weft_rt *rt, struct wf_proc *p, uint64_t word, weft_pid *pid_out)
{
	*pid_out = wf_pid_make(wf_word_generation(word), rt->slot, p->index);
}

/* Before anybody can see it: whatever happens to it comes after this. */
WF_INLINE void tell_spawn(
	struct weft_rt *rt, const struct wf_worker *worker, struct wf_proc *p, uint64_t word)
{
	if (WF_UNLIKELY(worker ? worker->hooks_spawn : rt->hooks.process_spawn != NULL))
		wf_hooks_process_spawn(
			rt, wf_pid_make(wf_word_generation(word), rt->slot, p->index));
}

static int spawn_counted(struct weft_rt *rt, struct wf_worker *worker, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, weft_pid *pid_out, uint64_t body)
{
	struct wf_proc *p;
	uint64_t word;
	int r = take(rt, worker, &p);

	if (WF_UNLIKELY(r < 0))
		return r;
	p->fresh.fn = fn;
	p->fresh.arg = arg;
	word = free_word(p) | WF_NEW;
	if (WF_UNLIKELY(opts != NULL)) {
		r = make_ext(rt, p, opts, arg);
		word |= word_flags(opts, !pid_out, body);
		if (opts->flags & WEFT_SUSPENDED)
			word = wf_word_with_phase(word, WF_SUSPENDED);
	} else {
		word |= pid_out ? body : body | WF_WORD_DETACHED;
	}
	if (pid_out)
		pid_set(rt, p, word, pid_out);
	if (WF_LIKELY(r == 0))
		tell_spawn(rt, worker, p, word);
	if (WF_UNLIKELY(r < 0)) {
		wf_table_untake(rt, worker, p);
	} else if (WF_UNLIKELY(!publish(rt, worker, p, word))) {
		wf_hooks_process_end(rt, p, word, -ESHUTDOWN);
		drop_stack(rt, p);
		/* Not at once: a look at the table may have found it. */
		wf_table_retire(rt, worker, p);
		r = -ESHUTDOWN;
	} else {
		enqueue(rt, worker, p, word);
		return 0;
	}
	if (pid_out)
		pid_out->raw = 0;
	count_out(rt, worker);
	return r;
}

static int read_child_opts(const struct wf_worker *worker, const struct weft_spawn_opts *opts,
	struct weft_spawn_opts *own, uint64_t body)
{
	int r = read_opts(worker->rt, opts, own);

	if (r < 0)
		return r;
	if ((body & WF_WORD_TASK) && needs_a_stack(own))
		return -EINVAL;
	return own->flags & WEFT_DETACHED ? -EINVAL : 0;
}

/* The word that a child begins with. Where nobody collects it its header is free when it ends. */
WF_INLINE uint64_t child_word(
	const struct wf_proc *p, const struct wf_scope *scope, uint64_t body)
{
	uint64_t detached = scope->flags & WEFT_SCOPE_COLLECT ? 0 : WF_WORD_DETACHED;

	return free_word(p) | WF_NEW | WF_WORD_SCOPED | detached | body;
}

/* Publishes it. Returns its id: the caller tells its scope. */
WF_INLINE weft_pid publish_child(struct wf_worker *worker, struct wf_scope *scope,
	struct wf_proc *p, uint64_t word, weft_pid *pid_out)
{
	weft_pid pid;

	wf_u64_store_relaxed(&p->joiner, (uintptr_t)scope);
	pid_set(worker->rt, p, word, &pid);
	if (pid_out)
		*pid_out = pid;
	tell_spawn(worker->rt, worker, p, word);
	(void)publish(worker->rt, worker, p, word);
	return pid;
}

/* The same, and tells its scope: `children` are full, or may not be where it goes. */
WF_NOINLINE static void publish_child_now(struct wf_worker *worker, struct wf_scope *scope,
	struct wf_proc *p, uint64_t word, weft_pid *pid_out)
{
	weft_pid pid = publish_child(worker, scope, p, word, pid_out);

	wf_scope_adopt_now(worker, scope, p, word, pid);
}

/* With options, or a trace word to inherit. */
WF_NOINLINE static int spawn_child_with(struct wf_worker *worker, struct wf_scope *scope,
	weft_fn fn, void *arg, const struct weft_spawn_opts *opts, weft_pid *pid_out, uint64_t body)
{
	struct weft_spawn_opts own = spawn_defaults;
	struct wf_proc *p;
	uint64_t word;
	int r = opts ? read_child_opts(worker, opts, &own, body) : 0;

	if (r == 0)
		r = take(worker->rt, worker, &p);
	if (r < 0)
		return r;
	p->fresh.fn = fn;
	p->fresh.arg = arg;
	r = make_ext(worker->rt, p, &own, arg);
	if (r < 0) {
		wf_table_untake(worker->rt, worker, p);
		count_out(worker->rt, worker);
		return r;
	}
	word = child_word(p, scope, 0) | word_flags(&own, false, body);
	if (own.flags & WEFT_SUSPENDED)
		word = wf_word_with_phase(word, WF_SUSPENDED);
	publish_child_now(worker, scope, p, word, pid_out);
	if ((word & (WF_WORD_PLACED | WF_WORD_PHASE)) == WF_NEW)
		wf_worker_push_child(worker, p);
	else
		enqueue(worker->rt, worker, p, word);
	return 0;
}

/* Whatever is in the way of spawn_child(). */
WF_NOINLINE static int spawn_child_long(struct wf_worker *worker, struct wf_scope *scope,
	weft_fn fn, void *arg, const struct weft_spawn_opts *opts, weft_pid *pid_out, uint64_t body)
{
	struct wf_proc *p;
	uint64_t word;
	int r;

	if (WF_UNLIKELY(opts != NULL || worker->current->ext != NULL))
		return spawn_child_with(worker, scope, fn, arg, opts, pid_out, body);
	r = take(worker->rt, worker, &p);
	if (WF_UNLIKELY(r < 0))
		return r;
	p->fresh.fn = fn;
	p->fresh.arg = arg;
	word = child_word(p, scope, body);
	if (wf_queue_child_fits(worker)) {
		wf_scope_adopt(scope, publish_child(worker, scope, p, word, pid_out));
		wf_queue_push_child(worker, p);
	} else {
		publish_child_now(worker, scope, p, word, pid_out);
		wf_worker_push_ring(worker, p);
	}
	return 0;
}

/* What most are: as spawn_plain() is to spawn(). */
WF_INLINE int spawn_child(struct wf_worker *worker, struct wf_scope *scope, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, weft_pid *pid_out, uint64_t body)
{
	struct wf_proc *p = NULL;
	uint64_t word;
	weft_pid pid;

	if (WF_LIKELY(!opts && !worker->current->ext && !worker->spawn_looks)
		&& wf_queue_child_fits(worker))
		p = wf_table_take_plain(&worker->retired, &worker->free_count);
	if (WF_UNLIKELY(!p))
		return spawn_child_long(worker, scope, fn, arg, opts, pid_out, body);
	wf_count(&worker->created, 1); /* N1 */
	wf_u64_store_relaxed(&p->joiner, (uintptr_t)scope);
	wf_u32_store_relaxed(&p->remote, 0);
	p->fresh.fn = fn;
	p->fresh.arg = arg;
	word = child_word(p, scope, body);
	pid_set(worker->rt, p, word, &pid);
	if (pid_out)
		*pid_out = pid;
	wf_u64_store_release(&p->word, word); /* N2 */
	wf_scope_adopt(scope, pid);
	wf_queue_push_child(worker, p);
	return 0;
}

int wf_spawn_child(struct wf_worker *worker, struct wf_scope *scope, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, weft_pid *pid_out)
{
	return spawn_child(worker, scope, fn, arg, opts, pid_out, FIBER_WORD);
}

int wf_spawn_child_task(struct wf_worker *worker, struct wf_scope *scope, weft_task_fn fn,
	void *state, const struct weft_spawn_opts *opts, weft_pid *pid_out)
{
	return spawn_child(worker, scope, fn, state, opts, pid_out, TASK_WORD);
}

static int spawn(struct weft_rt *rt, struct wf_worker *worker, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, weft_pid *pid_out, uint64_t body)
{
	int r = spawn_counted(rt, worker, fn, arg, opts, pid_out, body);

	if (WF_UNLIKELY(!worker))
		wf_foreign_end(rt);
	return r;
}

/* NULL: there is none. */
WF_NOINLINE static struct wf_proc *take_any(struct weft_rt *rt, struct wf_worker *worker)
{
	struct wf_proc *p;

	return wf_table_take(rt, worker, &p) == 0 ? p : NULL;
}

/*
 * What most spawns are: by a process, without options, and nobody has to be asked or told. As
 * spawn(), which does what is left.
 */
WF_INLINE int spawn_plain(
	struct wf_worker *worker, weft_fn fn, void *arg, weft_pid *pid_out, uint64_t body)
{
	struct weft_rt *rt = worker->rt;
	const struct weft_spawn_opts *opts = NULL;
	struct wf_proc *p;
	uint64_t word;

	if (WF_UNLIKELY(worker->current->ext != NULL) && trace_of(worker))
		opts = &spawn_defaults;
	if (WF_UNLIKELY(worker->spawn_looks || opts))
		return spawn(rt, worker, fn, arg, opts, pid_out, body);
	p = wf_table_take_plain(&worker->retired, &worker->free_count);
	if (WF_UNLIKELY(!p) && !(p = take_any(rt, worker)))
		return spawn(rt, worker, fn, arg, opts, pid_out, body);
	wf_count(&worker->created, 1); /* N1 */
	wf_u64_store_relaxed(&p->joiner, 0);
	wf_u32_store_relaxed(&p->remote, 0);
	p->fresh.fn = fn;
	p->fresh.arg = arg;
	word = free_word(p) | WF_NEW | body;
	if (pid_out)
		pid_set(rt, p, word, pid_out);
	else
		word |= WF_WORD_DETACHED;
	wf_u64_store_release(&p->word, word); /* N2 */
	if (worker->alone)
		wf_fifo_push(&worker->list, &p->run);
	else
		wf_worker_push_ring(worker, p);
	return 0;
}

static struct wf_worker *in_process(struct wf_worker *worker)
{
	return worker && worker->current ? worker : NULL;
}

/* The worker of the calling process; NULL outside one. */
static struct wf_worker *caller(void)
{
	return in_process(wf_worker_self());
}

WF_NOINLINE int weft_spawn(weft_fn fn, void *arg, weft_pid *pid_out)
{
	struct wf_worker *worker = in_process(wf_worker_self_first());

	if (WF_UNLIKELY(!worker))
		return -EPERM;
	if (WF_UNLIKELY(!fn))
		return -EINVAL;
	return spawn_plain(worker, fn, arg, pid_out, FIBER_WORD);
}

static int spawn_with(struct weft_rt *rt, weft_fn fn, void *arg, const struct weft_spawn_opts *opts,
	weft_pid *pid_out, uint64_t body)
{
	struct wf_worker *self = wf_worker_self();
	struct weft_spawn_opts own;
	int r;

	if (!fn)
		return -EINVAL;
	if (opts) {
		r = read_opts(rt, opts, &own);
		if (r < 0)
			return r;
		if ((body & WF_WORD_TASK) && needs_a_stack(&own))
			return -EINVAL;
		opts = &own;
	} else if (trace_of(self)) {
		opts = &spawn_defaults;
	}
	return spawn(rt, self && self->rt == rt ? self : NULL, fn, arg, opts, pid_out, body);
}

int weft_spawn_with(weft_fn fn, void *arg, const struct weft_spawn_opts *opts, weft_pid *pid_out)
{
	struct wf_worker *worker = caller();

	if (!worker)
		return -EPERM;
	return spawn_with(worker->rt, fn, arg, opts, pid_out, FIBER_WORD);
}

int weft_rt_spawn(weft_rt *rt, weft_fn fn, void *arg, const struct weft_spawn_opts *opts,
	weft_pid *pid_out)
{
	return spawn_with(rt, fn, arg, opts, pid_out, FIBER_WORD);
}

WF_NOINLINE int weft_task_spawn(
	weft_task_fn fn, void *state, const struct weft_spawn_opts *opts, weft_pid *pid_out)
{
	struct wf_worker *worker = in_process(wf_worker_self_first());

	if (WF_UNLIKELY(!worker))
		return -EPERM;
	if (WF_UNLIKELY(opts != NULL || !fn))
		return spawn_with(worker->rt, fn, state, opts, pid_out, TASK_WORD);
	return spawn_plain(worker, fn, state, pid_out, TASK_WORD);
}

int weft_rt_task_spawn(weft_rt *rt, weft_task_fn fn, void *state,
	const struct weft_spawn_opts *opts, weft_pid *pid_out)
{
	return spawn_with(rt, fn, state, opts, pid_out, TASK_WORD);
}

int weft_spawn_reserve(weft_pid *pid_out)
{
	struct wf_worker *worker = caller();
	struct wf_proc *p;
	uint64_t word;
	int r;

	if (!worker)
		return -EPERM;
	if (!pid_out)
		return -EINVAL;
	r = take(worker->rt, worker, &p);
	if (r < 0)
		return r;
	word = free_word(p) | WF_RESERVED;
	pid_set(worker->rt, p, word, pid_out);
	(void)publish(worker->rt, worker, p, word);
	return 0;
}

/* The reserved process of that id in the caller's runtime, NULL if there is none. */
static struct wf_proc *find_reserved(struct wf_worker *worker, weft_pid pid)
{
	if (wf_pid_runtime(pid) != worker->rt->slot)
		return NULL;
	return wf_table_find(&worker->rt->table, pid);
}

static bool is_reserved(uint64_t word, weft_pid pid)
{
	return wf_word_phase(word) == WF_RESERVED
		&& wf_word_generation(word) == wf_pid_generation(pid)
		&& !(word & WF_WORD_COMMITTING);
}

/*
 * Makes the caller the only one to commit. False: it is no reservation, or somebody else commits.
 */
static bool commit_begin(struct wf_proc *p, weft_pid pid)
{
	uint64_t word = wf_u64_load_acquire(&p->word);

	do {
		if (!is_reserved(word, pid))
			return false;
	} while (!wf_u64_cas(&p->word, &word, word | WF_WORD_COMMITTING));
	return true;
}

/* The word of a reservation that has everything to run. */
static uint64_t committed_word(const struct wf_worker *worker, uint64_t word,
	const struct weft_spawn_opts *opts, uint64_t body)
{
	enum wf_phase phase = opts->flags & WEFT_SUSPENDED ? WF_SUSPENDED : WF_NEW;

	word = (word | word_flags(opts, false, body)) & ~WF_WORD_COMMITTING;
	/* Closed since the reservation: it still runs, with the cancellation pending. */
	if (worker->closed)
		word |= WF_WORD_CANCELLED;
	/* A weft_wake() or a cancel before the commit start a suspended process too. */
	if (phase == WF_SUSPENDED && (word & (WF_WORD_TOKEN | WF_WORD_CANCELLED))) {
		phase = WF_NEW;
		word &= ~WF_WORD_TOKEN;
	}
	return wf_word_with_phase(word, phase);
}

static int commit(weft_pid pid, weft_fn fn, void *arg, const struct weft_spawn_opts *opts,
	uint64_t body)
{
	struct wf_worker *worker = caller();
	struct weft_spawn_opts own = spawn_defaults;
	struct wf_proc *p;
	uint64_t word, new;
	int r;

	if (!worker)
		return -EPERM;
	if (!fn)
		return -EINVAL;
	r = opts ? read_opts(worker->rt, opts, &own) : 0;
	if (r < 0)
		return r;
	if ((body & WF_WORD_TASK) && needs_a_stack(&own))
		return -EINVAL;
	p = find_reserved(worker, pid);
	if (!p || !commit_begin(p, pid))
		return -ESRCH;
	r = make_ext(worker->rt, p, &own, arg);
	if (r < 0) {
		(void)wf_u64_fetch_and(&p->word, ~WF_WORD_COMMITTING);
		return r;
	}
	p->fresh.fn = fn;
	p->fresh.arg = arg;
	word = wf_u64_load_relaxed(&p->word);
	tell_spawn(worker->rt, worker, p, word);
	do
		new = committed_word(worker, word, &own, body);
	while (!wf_u64_cas(&p->word, &word, new));
	enqueue(worker->rt, worker, p, new);
	return 0;
}

int weft_spawn_commit(weft_pid pid, weft_fn fn, void *arg, const struct weft_spawn_opts *opts)
{
	return commit(pid, fn, arg, opts, FIBER_WORD);
}

int weft_task_commit(
	weft_pid pid, weft_task_fn fn, void *state, const struct weft_spawn_opts *opts)
{
	return commit(pid, fn, state, opts, TASK_WORD);
}

int weft_spawn_abort(weft_pid pid)
{
	struct wf_worker *worker = caller();
	struct wf_proc *p;
	uint64_t word;

	if (!worker)
		return -EPERM;
	p = find_reserved(worker, pid);
	if (!p)
		return -ESRCH;
	word = wf_u64_load_acquire(&p->word);
	do {
		if (!is_reserved(word, pid))
			return -ESRCH;
	} while (!wf_u64_cas(&p->word, &word, wf_word_freed(word)));
	if (word & WF_WORD_JOINER)
		wf_join_tell(worker->rt, worker, p);
	wf_table_retire(worker->rt, worker, p);
	count_out(worker->rt, worker);
	return 0;
}
