/*
 * run.c: step 2 of a turn: picks processes and runs them; and where each goes when it has switched
 * back.
 *
 * Within a batch most switches lead from one fiber to the next without coming back to the loop: D1
 * to D3 in core/README.md.
 */
#include <errno.h>

#include "core/cleanup.h"
#include "core/forced.h"
#include "core/hooks.h"
#include "core/join.h"
#include "core/queue.h"
#include "core/scoped.h"
#include "core/tasks.h"
#include "core/timers.h"
#include "core/wake.h"
#include "sync/observe.h"

WF_INLINE void set_current(struct wf_worker *worker, struct wf_proc *p)
{
	WF_OBSERVE(runs, p);
	worker->current = p;
	wf_watch_set(worker, WF_WATCH_PROCESS, p->index);
	worker->operations_left = WF_OPERATIONS_BUDGET;
	worker->slice_start = 0;
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* What the first switch into a fiber brings along; lives on the worker's stack until it is read. */
struct start {
	weft_fn fn;
	void *arg;
};

/*
 * J3: the process's last word. Nobody asks for the result of one that is detached, and has no
 * joiner of before (a reservation's): what else others do to its word, they do to one that has
 * ended, so a store may go over it. Returns the word as it was.
 */
WF_INLINE uint64_t finish_word(struct wf_proc *p)
{
	uint64_t word = wf_u64_load_relaxed(&p->word);

	if ((word & (WF_WORD_DETACHED | WF_WORD_JOINER)) == WF_WORD_DETACHED) {
		/* Release: who finds the slot free finds the process over. */
		wf_u64_store_release(&p->word, wf_word_freed(word));
		return word;
	}
	/* J3: release (the cas), so that who sees DONE sees the result: J5 in take_result(). */
	while (!wf_u64_cas(&p->word, &word,
		word & WF_WORD_DETACHED ? wf_word_freed(word) : wf_word_with_phase(word, WF_DONE)))
		;
	return word;
}

/* The process has ended: its result is published, or its slot given up if nobody may ask. */
WF_INLINE void finish(struct wf_worker *worker, struct wf_proc *p, int result)
{
	uint64_t word;

	if (WF_UNLIKELY(p->live.armed) && !WF_PLANTED(end_leaves_timer))
		wf_proc_take_timer(worker, p);
	p->result = result; /* Y5 */
	word = finish_word(p);
	/* Both: a reservation that somebody joined may have been committed detached. */
	if (WF_UNLIKELY(word & (WF_WORD_JOINER | WF_WORD_SCOPED))) {
		if (word & WF_WORD_SCOPED)
			wf_scope_child_ended(worker, p, result, word & WF_WORD_TASK);
		else
			wf_join_tell(worker->rt, worker, p);
	}
	if ((word & WF_WORD_DETACHED) && !wf_table_retire_plain(&worker->retired, p, word))
		wf_table_retire(worker->rt, worker, p);
	/* E1: release, with E2 in sum_completed(): whoever counts this end sees what it spawned. */
	wf_u64_store_release(&worker->completed, wf_u64_load_relaxed(&worker->completed) + 1);
}

/* A stack for a process about to run for the first time. */
static struct wf_stack *stack_for(struct wf_worker *worker, struct wf_proc *p)
{
	size_t bytes = worker->rt->stack_bytes;

	if (WF_UNLIKELY(p->ext != NULL)) {
		struct wf_stack *stack = p->ext->stack;

		if (stack) {
			p->ext->stack = NULL;
			return stack;
		}
		if (p->ext->stack_bytes)
			bytes = p->ext->stack_bytes;
	}
	if (wf_is_forced(worker->rt, WEFT_TEST_STACK))
		return NULL;
	return wf_stack_take(&worker->stacks, worker->rt->depot, bytes);
}

/* At most one line a second: when one is refused, thousands are. */
static void log_refused_stack(struct wf_worker *worker)
{
	worker->stacks_refused++;
	if (worker->stack_logged_at && worker->now - worker->stack_logged_at < WEFT_SEC(1))
		return;
	worker->stack_logged_at = worker->now;
	wf_log(worker->rt, WEFT_LOG_ERROR,
		"no memory for a fiber's stack: %llu processes so far ended with -ENOMEM before "
		"their first run", (unsigned long long)worker->stacks_refused);
}

/* No stack was to be had: it ends without having run, with what its join reports. */
WF_COLD static void end_without_stack(struct wf_worker *worker, struct wf_proc *p)
{
	log_refused_stack(worker);
	worker->current = NULL; /* the destructor runs outside a process */
	p->live.run = WF_NOTIFIED; /* a wake of it does nothing */
	p->live.armed = false;
	if (p->ext && p->ext->arg_dtor)
		p->ext->arg_dtor(p->ext->arg);
	if (WF_UNLIKELY(worker->hooks_runs))
		wf_hooks_process_end(
			worker->rt, p, wf_u64_load_relaxed(&p->word), -ENOMEM);
	finish(worker, p, -ENOMEM);
}

/*
 * A wake has come during the run. In a task's first one, with the word NEW, it may show by a flag:
 * these were clear (run_fresh_tasks()).
 */
WF_INLINE bool is_notified(uint64_t word)
{
	return wf_word_phase(word) == WF_NOTIFIED
		|| (wf_word_phase(word) == WF_NEW && (word & (WF_WORD_TOKEN | WF_WORD_CANCELLED)));
}

/* A movable process has switched away to wait: RUNNING (NEW) → WAITING, or back to the ring. */
static void settle_movable(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t owner = (uint64_t)worker->number << WF_WORD_OWNER_SHIFT;
	uint64_t word = wf_u64_load_relaxed(&p->word);

	do {
		uint64_t waiting = (wf_word_with_phase(word, WF_WAITING) & ~WF_WORD_OWNER) | owner;

		if (is_notified(word) && !WF_PLANTED(settle_forgets_notified)) {
			if (wf_word_phase(word) == WF_NEW)
				WF_OBSERVE(woken, p); /* by whoever set the flag, and says so yet */
			if (p->live.armed)
				wf_timers_disarm(worker->rt, p, worker->number);
			while (!wf_u64_cas(&p->word, &word, wf_word_with_phase(word, WF_QUEUED)))
				;
			wf_worker_push_movable(worker, p);
			return;
		}
		if (p->live.armed)
			waiting |= WF_WORD_ANCHORED;
		/*
		 * W10: release, with W9 in wake.c: the saved context. From here on it may run
		 * elsewhere.
		 */
		if (wf_u64_cas(&p->word, &word, waiting))
			return;
	} while (true);
}

/*
 * Where a sticky process of the normal class goes that waits or yields. The owner's plain fields,
 * and lists.
 */
WF_INLINE void settle_sticky(struct wf_worker *worker, struct wf_proc *p, enum wf_switch why)
{
	if (why == WF_SWITCH_YIELD) {
		p->live.run = WF_QUEUED;
		wf_fifo_push(&worker->yielded, &p->run);
	} else if (WF_UNLIKELY(p->live.run == WF_NOTIFIED)) {
		p->live.run = WF_QUEUED;
		wf_fifo_push(&worker->list, &p->run);
	} else {
		p->live.run = WF_WAITING;
	}
}

/* The same of another class. */
static void settle_class(struct wf_worker *worker, struct wf_proc *p, enum wf_switch why)
{
	if (why == WF_SWITCH_YIELD) {
		p->live.run = WF_QUEUED;
		wf_fifo_push(&worker->yielded_class, &p->run);
	} else if (p->live.run == WF_NOTIFIED) {
		p->live.run = WF_QUEUED;
		wf_queue_push_class(worker, p);
	} else {
		p->live.run = WF_WAITING;
	}
}

/*
 * It stays RUNNING, or NOTIFIED, while it is queued: a wake then needs no more than it does while
 * it runs, and whoever runs it next finds nothing to change if it is the same worker. The queue's
 * release and acquire hand its context over.
 */
WF_INLINE void settle_yielded_movable(struct wf_worker *worker, struct wf_proc *p)
{
	wf_fifo_push(&worker->yielded_movable, &p->run);
}

/* A process has switched back: where it goes next. */
static void settle(struct wf_worker *worker)
{
	struct wf_proc *p = worker->current;
	uint64_t word = wf_u64_load_relaxed(&p->word);

	if (WF_UNLIKELY(worker->hooks_runs))
		wf_hooks_after_run(worker, p);
	if (worker->switched == WF_SWITCH_END) {
		WF_ASSERT(!p->live.fiber->cleanups);
		if (!WF_PLANTED(stack_kept))
			wf_stack_give(&worker->stacks, worker->rt->depot,
				wf_fiber_stack(p->live.fiber));
		if (WF_UNLIKELY(worker->hooks_runs))
			wf_hooks_process_end(worker->rt, p, wf_u64_load_relaxed(&p->word),
				worker->result);
		finish(worker, p, worker->result);
	} else if (WF_LIKELY(wf_word_is_plain(word))) {
		settle_sticky(worker, p, worker->switched);
	} else if (wf_word_phase(word) == WF_OWNED) {
		settle_class(worker, p, worker->switched);
	} else if (worker->switched == WF_SWITCH_PARK) {
		if (!WF_PLANTED(settle_on_own_stack))
			settle_movable(worker, p);
	} else {
		settle_yielded_movable(worker, p);
	}
}

/* A process's first run: NEW → OWNED or RUNNING. */
WF_INLINE void begin_word(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t word = wf_u64_load_relaxed(&p->word);
	bool movable = word & WF_WORD_MOVABLE;
	uint64_t running;

	/*
	 * W11: acquire, with W8 in wake.c; release: who sees OWNED and the owner may use `remote`.
	 */
	do
		running = (uint64_t)worker->number << WF_WORD_OWNER_SHIFT
			| (wf_word_with_phase(word, movable ? WF_RUNNING : WF_OWNED)
				& ~WF_WORD_OWNER);
	while (!wf_u64_cas(&p->word, &word, running));
	p->live.run = WF_RUNNING;
	p->live.armed = false;
	p->live.timed_out = false;
	p->live.token = !movable && (word & WF_WORD_TOKEN);
}

/* A fiber's. Afterwards `fresh` is overwritten. */
WF_INLINE void begin(struct wf_worker *worker, struct wf_proc *p, struct wf_fiber *fiber)
{
	begin_word(worker, p);
	p->live.fiber = fiber;
}

/* The first of the list, which is not empty, if it has never run. */
WF_INLINE struct wf_proc *list_pop_new(struct wf_worker *worker)
{
	struct wf_node *node = worker->list.first;
	const struct wf_proc *p;

	if (WF_UNLIKELY(wf_deque_count(&worker->ring) != 0))
		return NULL;
	p = WF_CONTAINER_OF(node, struct wf_proc, run);
	if (wf_word_phase(wf_u64_load_relaxed(&p->word)) != WF_NEW)
		return NULL;
	worker->child_last = false;
	return wf_queue_list_pop_bare(worker);
}

/* What pick() would take, if that comes out of the ring or is a child of a scope. */
WF_NOINLINE static struct wf_proc *pick_unstarted(struct wf_worker *worker)
{
	struct wf_proc *p;

	if (wf_queue_child_is_next(worker)) {
		p = wf_queue_child_pop(worker);
		if (p)
			return p;
	}
	if (worker->alone && !wf_fifo_is_empty(&worker->list))
		return list_pop_new(worker);
	if (!worker->list_turn && !wf_fifo_is_empty(&worker->list))
		return NULL;
	p = wf_deque_pop(&worker->ring);
	if (!p)
		return NULL;
	worker->child_last = false;
	worker->list_turn = !worker->list_turn;
	return p;
}

/*
 * D2, D3, D4: what pick() would take, if that comes out of the ring or is a child of a scope, has
 * never run, is of this body and needs no other stack than the usual, and nothing else is due.
 * `body`: WF_WORD_TASK or 0.
 */
WF_INLINE struct wf_proc *pick_fresh(struct wf_worker *worker, uint64_t body)
{
	struct wf_proc *p;

	if (worker->direct_left == 0 || worker->picked || worker->run_next || worker->classes
		|| worker->injector_picks + 1 >= WF_INJECTOR_INTERVAL)
		return NULL;
	/* As in pick_unstarted(), for what is most frequent where nobody steals. */
	if (worker->alone && !worker->has_children && !wf_fifo_is_empty(&worker->list))
		p = list_pop_new(worker);
	else
		p = pick_unstarted(worker);
	if (!p)
		return NULL;
	worker->run_next_uses = 0;
	worker->injector_picks++;
	if ((wf_u64_load_relaxed(&p->word) & (WF_WORD_PHASE | WF_WORD_TASK)) == (WF_NEW | body)
		&& (body || !p->ext))
		return p;
	worker->picked = p;
	return NULL;
}

/*
 * The process on this stack has ended. If the next one is new it may have the stack as it is:
 * nothing is bound, switched or given back. Who joins the one that ended runs after that: it then
 * finds two results at once, and sleeps half as often.
 */
static bool succeed(
	struct wf_worker *worker, struct wf_proc *p, int result, struct start *start_out)
{
	struct wf_fiber *fiber = p->live.fiber;
	struct wf_proc *next = p->ext ? NULL : pick_fresh(worker, 0);

	if (!next)
		return false;
	WF_ASSERT(!fiber->cleanups);
	finish(worker, p, result);
	worker->direct_left--;
	set_current(worker, next);
	*start_out = (struct start){ next->fresh.fn, next->fresh.arg };
	begin(worker, next, fiber);
	return true;
}

/* Y4: from the fiber's own stack, for the last time. */
static _Noreturn void leave(struct wf_worker *worker, struct wf_proc *p, int result)
{
	worker->result = result;
	worker->switched = WF_SWITCH_END;
	wf_fiber_exit(p->live.fiber, &worker->sched);
	__builtin_trap();
}

void wf_fail_leave(struct wf_worker *worker, struct wf_proc *p, int result)
{
	if (!wf_proc_is_task(p))
		leave(worker, p, result);
	worker->result = result;
	longjmp(worker->task_failed, 1);
}

/* The bottom frame of every fiber. */
static void fiber_main(void *value)
{
	struct start start = *(struct start *)value;
	struct wf_worker *worker;
	struct wf_proc *p;
	int result;

	do {
		result = start.fn(start.arg);
		worker = wf_worker_self();
		p = worker->current;
		if (WF_UNLIKELY(p->ext || p->live.fiber->cleanups)) {
			wf_wind_up(p, __builtin_frame_address(0));
			worker = wf_worker_self();
		}
	} while (succeed(worker, p, result, &start));
	leave(worker, p, result);
}

/* Runs p, and whom it leads to, until somebody comes back to the loop. */
WF_INLINE void resume(struct wf_worker *worker, struct wf_proc *p, void *value)
{
	if (WF_UNLIKELY(worker->hooks_runs))
		wf_hooks_before_run(worker, p);
	wf_fiber_resume(&worker->sched, p->live.fiber, value);
	settle(worker);
}

static void run_fresh(struct wf_worker *worker, struct wf_proc *p)
{
	struct start start = { p->fresh.fn, p->fresh.arg };
	struct wf_stack *stack = stack_for(worker, p);
	struct wf_fiber *fiber = stack ? wf_fiber_bind(stack, fiber_main) : NULL;

	begin(worker, p, fiber);
	if (WF_UNLIKELY(!fiber)) {
		end_without_stack(worker, p);
		return;
	}
	resume(worker, p, &start);
}

static void run_owned(struct wf_worker *worker, struct wf_proc *p)
{
	wf_proc_serve_remote(p);
	p->live.run = WF_RUNNING;
	resume(worker, p, NULL);
}

/* QUEUED → RUNNING. Nothing is to be done for one that yielded here and was left alone since. */
WF_INLINE void go_on_movable(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t owner = (uint64_t)worker->number << WF_WORD_OWNER_SHIFT;
	/* W12: acquire, with W9 and W10: the context, and what the waker wrote. */
	uint64_t word = wf_u64_load_acquire(&p->word);
	uint64_t running;

	do {
		running = (wf_word_with_phase(word, WF_RUNNING) & ~WF_WORD_OWNER) | owner;
		if (running == word)
			return;
	} while (!wf_u64_cas(&p->word, &word, running));
}

static void run_movable(struct wf_worker *worker, struct wf_proc *p)
{
	go_on_movable(worker, p);
	resume(worker, p, NULL);
}

/* --- tasks: polled here, on the worker's stack --- */

/* The earliest deadline that the run has armed, if any, and nothing has come meanwhile. */
WF_INLINE void arm_task(struct wf_worker *worker, struct wf_proc *p)
{
	if (wf_word_phase(wf_u64_load_relaxed(&p->word)) == WF_OWNED) {
		if (worker->armed_until != WEFT_FOREVER)
			wf_proc_arm_sticky(worker, p, worker->armed_until);
		else
			wf_proc_leave_armed(worker, p);
		return;
	}
	if (worker->armed_until == WEFT_FOREVER)
		return;
	wf_task_begin(worker, p); /* a timer is armed in the word's owner's shard */
	if (wf_word_phase(wf_u64_load_relaxed(&p->word)) != WF_NOTIFIED)
		wf_timers_arm(worker, p, worker->armed_until);
}

/* A run has returned WEFT_PENDING: as settle(). */
static void settle_task(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t word;
	bool sticky;

	if (worker->switched == WF_SWITCH_YIELD) {
		wf_task_begin(worker, p);
		WF_OBSERVE(yields, p);
	} else {
		p->live.yielded = false;
		arm_task(worker, p);
		WF_OBSERVE(waits, p);
	}
	word = wf_u64_load_relaxed(&p->word);
	sticky = wf_word_phase(word) == WF_OWNED;
	if (sticky && WF_UNLIKELY(word & WF_WORD_PRIORITY))
		settle_class(worker, p, worker->switched);
	else if (sticky)
		settle_sticky(worker, p, worker->switched);
	else if (worker->switched == WF_SWITCH_YIELD)
		settle_yielded_movable(worker, p);
	else
		settle_movable(worker, p);
}

/* It has returned a result, or failed: what is armed is over, and its result published. */
WF_INLINE void finish_polled(struct wf_worker *worker, struct wf_proc *p, int result)
{
	if (WF_UNLIKELY(p->live.open))
		wf_task_close_wait(p);
	if (WF_UNLIKELY(worker->hooks_runs))
		wf_hooks_process_end(worker->rt, p, wf_u64_load_relaxed(&p->word), result);
	finish(worker, p, result);
}

WF_NOINLINE static void finish_task(struct wf_worker *worker, struct wf_proc *p, int result)
{
	finish_polled(worker, p, result);
}

/*
 * It has an ext, and perhaps something to clean up, or its body is over, with scopes open. Its
 * result; or WEFT_PENDING: it waits, or scopes are open (V12). live: in the frame that has called
 * it.
 */
WF_COLD static int after_poll(
	struct wf_worker *worker, struct wf_proc *p, int result, const void *live)
{
	if (WF_ASAN)
		live = NULL; /* locals may lie elsewhere than their frames */
	if (result != WEFT_PENDING && wf_scope_is_open(p) && !WF_PLANTED(scope_ends_with_owner))
		result = wf_scope_end_all(worker, p, p->fresh.arg, result);
	if (p->ext && result == WEFT_PENDING)
		wf_cleanups_check(p, live);
	else if (p->ext)
		wf_wind_up(p, live);
	return result;
}

/* A1: one run. */
WF_INLINE int call_poll(struct wf_worker *worker, struct wf_proc *p)
{
	worker->switched = WF_SWITCH_PARK;
	worker->armed_until = WEFT_FOREVER;
	return p->fresh.fn(p->fresh.arg);
}

/* What follows, whatever it was. False: it waits, or has yielded. here: a local of the caller's. */
WF_INLINE bool poll_over(
	struct wf_worker *worker, struct wf_proc *p, int *result, const char *here)
{
	if (WF_UNLIKELY(p->ext != NULL || (*result != WEFT_PENDING && wf_scope_is_open(p))))
		*result = after_poll(worker, p, *result, here);
	if (WF_UNLIKELY(worker->hooks_runs))
		wf_hooks_after_run(worker, p);
	if (*result != WEFT_PENDING)
		return true;
	settle_task(worker, p);
	return false;
}

/* Runs it once. False: as above. */
WF_INLINE bool poll_task(struct wf_worker *worker, struct wf_proc *p, int *result_out)
{
	char here;

	if (WF_UNLIKELY(worker->hooks_runs))
		wf_hooks_before_run(worker, p);
	*result_out = call_poll(worker, p);
	return poll_over(worker, p, result_out, &here);
}

/* What the word has of a task that has yielded on a worker and was left alone since. */
#define YIELDED_MASK (WF_WORD_PHASE | WF_WORD_TASK | WF_WORD_OWNER)

WF_INLINE uint64_t yielded_word(const struct wf_worker *worker)
{
	return WF_RUNNING | WF_WORD_TASK | (uint64_t)worker->number << WF_WORD_OWNER_SHIFT;
}

WF_INLINE bool is_yielded(const struct wf_proc *p, uint64_t yielded)
{
	/* Acquire, as W12 in go_on_movable(), which would have nothing to change. */
	return (wf_u64_load_acquire(&p->word) & YIELDED_MASK) == yielded;
}

/*
 * W13: a task whose last child has just ended, and which was handed over, is next; else as D2: what
 * has never run.
 */
WF_INLINE struct wf_proc *pick_begun_or_fresh(struct wf_worker *worker)
{
	struct wf_proc *p = worker->picked;

	if (!p)
		return pick_fresh(worker, WF_WORD_TASK);
	if (worker->direct_left == 0 || !is_yielded(p, yielded_word(worker)))
		return NULL;
	worker->picked = NULL;
	return p;
}

/* W11: acquire, with W8 in wake.c; wf_task_begin() does the rest. Returns the word as it was. */
WF_INLINE uint64_t begin_task(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t word = wf_u64_load_acquire(&p->word);

	if (wf_word_phase(word) != WF_NEW) { /* was handed over */
		if (WF_UNLIKELY(p->live.open))
			wf_task_close_wait(p);
		return word;
	}
	if (WF_LIKELY((word & (WF_WORD_MOVABLE | WF_WORD_TOKEN | WF_WORD_CANCELLED))
		    == WF_WORD_MOVABLE))
		p->live.armed = false;
	else
		begin_word(worker, p); /* `fresh` stays */
	p->live.open = false;
	p->live.yielded = false;
	return word;
}

/*
 * Tasks that have never run: one, and as long as the next one is like it, the next, as fibers do in
 * succeed(), and for the same reasons. Among them whom the end of one has handed the worker to.
 */
WF_NOINLINE static void run_fresh_tasks(struct wf_worker *worker, struct wf_proc *p)
{
	struct wf_proc *next;
	bool ended;
	int result;

	for (;;) {
		uint64_t word = begin_task(worker, p);

		ended = poll_task(worker, p, &result);
		/* The other way round: its scope's owner, if it is the last, goes first. */
		if (ended && (word & WF_WORD_SCOPED))
			finish_task(worker, p, result);
		next = pick_begun_or_fresh(worker); /* its child, perhaps */
		if (ended && !(word & WF_WORD_SCOPED))
			finish_polled(worker, p, result);
		if (!next)
			return;
		worker->direct_left--;
		set_current(worker, next);
		p = next;
	}
}

/* Where others may steal it is in the ring; what was taken out of that and does not fit: D3. */
WF_NOINLINE static struct wf_proc *pick_yielded_of_ring(struct wf_worker *worker, uint64_t yielded)
{
	struct wf_proc *p = wf_deque_pop(&worker->ring);

	if (!p || is_yielded(p, yielded))
		return p;
	worker->injector_picks++;
	worker->picked = p;
	return NULL;
}

/*
 * D5: what pick() would take, if that is a task which has yielded here: one look at its word tells
 * that nothing is to be done before it runs. Not where list and ring take turns.
 */
WF_INLINE struct wf_proc *pick_yielded(struct wf_worker *worker, uint64_t yielded)
{
	struct wf_node *node = worker->list.first;
	struct wf_proc *p;

	if (WF_UNLIKELY(worker->run_next || worker->classes || worker->has_children))
		return NULL;
	if (WF_UNLIKELY(!node))
		return pick_yielded_of_ring(worker, yielded);
	p = WF_CONTAINER_OF(node, struct wf_proc, run);
	if (WF_UNLIKELY(!is_yielded(p, yielded) || wf_deque_count(&worker->ring) != 0))
		return NULL;
	return wf_queue_list_pop_bare(worker);
}

/* How many of them may run before the loop, or the injector, has its turn. */
static unsigned yielded_most(const struct wf_worker *worker)
{
	unsigned picks = worker->injector_picks + 1;

	return picks >= WF_INJECTOR_INTERVAL
		? 0 : least(worker->direct_left, WF_INJECTOR_INTERVAL - picks);
}

/* What pick() and the loop would have noted. */
static void count_yielded(struct wf_worker *worker, unsigned ran)
{
	if (ran == 0)
		return;
	worker->direct_left -= ran;
	worker->injector_picks += ran;
	worker->run_next_uses = 0;
	worker->child_last = false;
	worker->list_turn = true;
}

/*
 * D5: tasks that yield, in a row: all that the loop does between two of them comes down to this.
 * Until one does anything else. p: one that has yielded; no hook is to be asked.
 */
WF_NOINLINE static void run_yielded_tasks(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t yielded = yielded_word(worker);
	unsigned most = yielded_most(worker), left = most;
	char here;

	for (;;) {
		int result;

		if (WF_UNLIKELY(p->live.open))
			wf_task_close_wait(p);
		result = call_poll(worker, p);
		if (WF_UNLIKELY(result != WEFT_PENDING || worker->switched != WF_SWITCH_YIELD
			    || p->ext)) {
			count_yielded(worker, most - left);
			if (poll_over(worker, p, &result, &here))
				finish_task(worker, p, result);
			return;
		}
		WF_OBSERVE(yields, p);
		settle_yielded_movable(worker, p);
		if (left == 0)
			break;
		p = pick_yielded(worker, yielded);
		if (WF_UNLIKELY(!p))
			break;
		left--;
		set_current(worker, p);
	}
	count_yielded(worker, most - left);
}

static void run_task(struct wf_worker *worker, struct wf_proc *p, enum wf_phase phase)
{
	int result;

	if (phase == WF_OWNED) {
		wf_proc_serve_remote(p);
		p->live.run = WF_RUNNING;
	} else {
		go_on_movable(worker, p);
	}
	if (WF_UNLIKELY(p->live.open))
		wf_task_close_wait(p);
	if (poll_task(worker, p, &result))
		finish_task(worker, p, result);
}

static void run_one(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t word = wf_u64_load_relaxed(&p->word);

	set_current(worker, p);
	switch (word & (WF_WORD_PHASE | WF_WORD_TASK)) {
	case WF_OWNED:
		run_owned(worker, p);
		break;
	case WF_NEW:
		run_fresh(worker, p);
		break;
	case WF_NEW | WF_WORD_TASK:
		run_fresh_tasks(worker, p);
		break;
	default:
		if (is_yielded(p, yielded_word(worker)) && !worker->hooks_runs)
			run_yielded_tasks(worker, p);
		else if (word & WF_WORD_TASK)
			run_task(worker, p, wf_word_phase(word));
		else
			run_movable(worker, p);
		break;
	}
	worker->current = NULL;
}

/* --- from fiber to fiber --- */

/*
 * D1, D4: what pick() would take, if that is a sticky fiber that has run before and nothing else is
 * due: neither clock nor driver (direct_left), nor another class, injector, the ring's turn, or a
 * child's.
 */
static struct wf_proc *pick_direct(struct wf_worker *worker)
{
	struct wf_node *node;
	struct wf_proc *p;

	if (worker->direct_left == 0 || worker->classes)
		return NULL;
	if (worker->run_next) { /* never a task */
		p = wf_queue_next_pop(worker);
		if (p)
			return p;
	}
	node = worker->list.first;
	if (!node || worker->injector_picks + 1 >= WF_INJECTOR_INTERVAL)
		return NULL;
	p = WF_CONTAINER_OF(node, struct wf_proc, run);
	if ((wf_u64_load_relaxed(&p->word) & (WF_WORD_PHASE | WF_WORD_TASK)) != WF_OWNED)
		return NULL;
	if (worker->list_turn && !wf_deque_is_empty(&worker->ring))
		return NULL;
	if (WF_UNLIKELY(wf_queue_child_is_next(worker)))
		return NULL;
	worker->child_last = false;
	worker->run_next_uses = 0;
	worker->injector_picks++;
	worker->list_turn = !worker->list_turn;
	return wf_queue_list_pop(worker);
}

/*
 * The running process waits or yields. Where the loop would come to another sticky fiber at once,
 * this one does what the loop does in between, and switches to it: half the switches, and none of
 * the returns that a processor cannot predict. Only sticky processes: a movable one may be resumed
 * elsewhere as soon as it is settled, so that must come after it has left its stack (W10).
 */
void wf_worker_switch(struct wf_worker *worker, struct wf_proc *p, enum wf_switch why)
{
	struct wf_proc *next = NULL;

	if (WF_LIKELY(wf_word_is_plain(wf_u64_load_relaxed(&p->word))))
		next = pick_direct(worker);
	if (!next) {
		worker->switched = why;
		if (WF_PLANTED(settle_on_own_stack) && why == WF_SWITCH_PARK)
			settle_movable(worker, p);
		(void)wf_fiber_suspend(p->live.fiber, &worker->sched);
		return;
	}
	/* The frames of the switch may be what overflows p's stack: now, while p is current. */
	wf_stack_probe();
	settle_sticky(worker, p, why);
	worker->direct_left--;
	set_current(worker, next);
	wf_proc_serve_remote(next);
	next->live.run = WF_RUNNING;
	(void)wf_fiber_switch(p->live.fiber, next->live.fiber, &worker->sched);
}

/* --- the batch --- */

/*
 * After so many picks: takes the time. A read costs as much as a short pick or two; where they are
 * short, four times as many leave the time as young. Returns whether the turn may go on.
 */
static bool look_at_clock(struct wf_worker *worker, weft_time end)
{
	weft_time before = worker->now, took;

	worker->now = wf_rt_now(worker->rt);
	took = worker->now - before;
	worker->clock_picks = took > (weft_time)worker->clock_picks * WF_SHORT_PICK_NS
		? WF_CLOCK_PICKS : WF_CLOCK_PICKS_SHORT;
	return worker->now < end;
}

/* Tells worker->batch_picks how far it has come, should a task not return. */
static void run_batch(struct wf_worker *worker, unsigned budget)
{
	weft_time end = worker->now + WF_TURN_NS_MAX;
	unsigned picks = 0, clock_due = worker->clock_picks, io_due = WF_IO_INTERVAL;

	while (picks < budget) {
		unsigned last = least(least(clock_due, io_due), budget) - 1;
		struct wf_proc *p = wf_queue_pick(worker);
		unsigned direct;

		if (!p)
			break;
		/* A search has found something: who relied on it is told before this one runs. */
		if (WF_UNLIKELY(worker->searching) && !WF_PLANTED(search_ends_after_run))
			wf_worker_search_end(worker);
		/* D1 and D2 would pass by the hooks. */
		direct = WF_LIKELY(!worker->hooks_runs) ? last - picks : 0;
		worker->direct_left = direct;
		run_one(worker, p);
		picks += direct - worker->direct_left + 1;
		worker->batch_picks = picks;
		if (WF_UNLIKELY(picks == clock_due)) {
			if (!look_at_clock(worker, end))
				break;
			clock_due += worker->clock_picks;
		}
		if (WF_UNLIKELY(picks == io_due)) {
			io_due += WF_IO_INTERVAL;
			wf_worker_poll_busy(worker);
		}
	}
}

/* A task has failed: the frames between it and the batch are gone. The batch is over. */
WF_COLD static void after_failure(struct wf_worker *worker)
{
	struct wf_proc *p = worker->current;

	if (worker->hooks_runs)
		wf_hooks_after_run(worker, p);
	if (worker->result == WEFT_PENDING) /* its scopes are not closed yet */
		settle_task(worker, p);
	else
		finish_task(worker, p, worker->result);
	worker->current = NULL;
	worker->batch_picks++;
}

unsigned wf_worker_run_batch(struct wf_worker *worker, unsigned budget)
{
	worker->batch_picks = 0;
	if (WF_LIKELY(_setjmp(worker->task_failed) == 0))
		run_batch(worker, budget);
	else
		after_failure(worker);
	if (worker->batch_picks > 0)
		wf_watch_set(worker, WF_WATCH_NOTHING, 0);
	wf_count(&worker->counters.picks, worker->batch_picks);
	return worker->batch_picks;
}
