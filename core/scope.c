/*
 * scope.c: scopes: children that are counted, cancelled and waited for together. core/README.md,
 * "scope", has the protocol in steps (V1 …).
 *
 * A scope lies in its owner's memory, most often on its stack, and the owner goes on as soon as no
 * child is alive. So a child that ends touches the scope for the last time when it counts itself
 * down, with one read-modify-write; whom to tell it has copied out before. Everything else it does
 * with the scope (the first error, the cancel of its siblings, handing itself over) comes before
 * that, while its own count keeps the owner waiting. An owner that is a task does not wait, it is
 * polled, for no reason too: so between two polls its question stands (V10). Others who cancel
 * count themselves like a child. Only the owner opens, spawns, waits, closes, so most of a scope is
 * its plain fields.
 *
 * Progress: a spawn, an end: wait-free but for what is below (table, queues). A cancel: wait-free,
 * in time proportional to the children. Nothing here locks.
 */
#include "core/scoped.h"

#include <errno.h>
#include <string.h>

#include "core/exit.h"
#include "core/internal.h"
#include "core/registry.h"
#include "core/self.h"
#include "core/tasks.h"

#define SCOPE_FLAGS  WEFT_SCOPE_COLLECT
#define OF_A_TASK    (1u << 31) /* the owner is one; beside SCOPE_FLAGS */
/* `spawned` is added to `count` before it may lower it by more than BASE. */
#define UNADDED_MAX  (1u << 24)
/* `watch`: the watchdog does not touch the scope any more. No wait number is as large. */
#define WATCH_OVER   ((uint64_t)1 << 32)

static struct wf_scope *scope_of(struct weft_scope *scope)
{
	return (struct wf_scope *)(void *)scope;
}

static bool is_own(const struct wf_worker *worker, const struct wf_scope *s)
{
	return worker && worker->current && worker->current == s->owner;
}

/* The scope if the calling process is its owner, which runs on *worker_out; else NULL. */
static struct wf_scope *own(struct weft_scope *scope, struct wf_worker **worker_out)
{
	struct wf_scope *s = scope_of(scope);
	struct wf_worker *worker = wf_worker_self();

	if (WF_UNLIKELY(!is_own(worker, s)))
		return NULL;
	*worker_out = worker;
	return s;
}

static int first_error(const struct wf_scope *s)
{
	return (int)wf_u32_load_relaxed(&s->error);
}

/* --- telling the owner --- */

/* Ends the owner's wait of that number, if it still lasts. In a read section. */
static void tell(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *owner,
	uint32_t number)
{
	uint64_t waiting = (uint64_t)number << 32 | WF_WINNER_NONE;

	/* C3, with C5 in park() of wait.c; C4. */
	if (wf_u64_cas(&owner->claim, &waiting, (uint64_t)number << 32 | WF_WINNER_PEER))
		wf_proc_wake(rt, worker, owner, false);
}

/* V4: the caller's last touch of the scope. task_ends: it is a task's end, on `worker`. */
static void count_down(struct wf_worker *worker, struct wf_scope *s, bool task_ends)
{
	struct wf_proc *owner = s->owner;
	struct weft_rt *rt = s->rt;
	bool of_a_task = s->flags & OF_A_TASK;
	/*
	 * V4: release (RMW), with V5 in wf_scope_alive() and ask(): all that the child did.
	 * Acquire, with V5 in ask(): the number is of a wait that has begun.
	 */
	uint64_t left = wf_u64_fetch_add(&s->count, (uint64_t)-1) - 1;

	if (WF_PLANTED(scope_touched_late))
		wf_u32_store_relaxed(&s->listed, 0);
	if (left >> 32 == 0 || (!(left & WF_SCOPE_ANY) && (left & WF_SCOPE_COUNT) != 0))
		return;
	if (of_a_task && !(left & WF_SCOPE_ANY))
		wf_proc_wake_task(rt, worker, owner, task_ends); /* V10 */
	else
		tell(rt, worker, owner, (uint32_t)(left >> 32));
}

/* --- the end of a child --- */

/* The first error of a scope cancels the rest. */
WF_COLD static void note_error(struct wf_worker *worker, struct wf_scope *s, int error)
{
	uint32_t none = 0;

	/* Cancelled by its deadline: by the owner perhaps (V2), before note_expiry() came by. */
	if (error == -ECANCELED && wf_u32_load_relaxed(&s->stage) == WF_SCOPE_EXPIRED)
		error = -ETIME;
	if (wf_u32_cas(&s->error, &none, (uint32_t)error) && !(s->flags & WEFT_SCOPE_COLLECT))
		wf_scope_cancel_children(s->rt, worker, s, WF_SCOPE_CANCELLED);
}

/* V3: hands an ended child over. From here on it is the owner's to take, and to give up. */
static void hand_over(struct wf_scope *s, struct wf_proc *p)
{
	void *newest = wf_ptr_load_relaxed(&s->ended);

	/* V3: release (the cas), with V8 in collect(): its result, and its link. */
	do
		p->run.next = newest;
	while (!wf_ptr_cas(&s->ended, &newest, &p->run));
}

void wf_scope_child_ended(struct wf_worker *worker, struct wf_proc *p, int result, bool task)
{
	struct wf_scope *s = (struct wf_scope *)(uintptr_t)wf_u64_load_relaxed(&p->joiner);

	if (WF_UNLIKELY(result < 0))
		note_error(worker, s, result);
	if (WF_UNLIKELY(s->flags & WEFT_SCOPE_COLLECT))
		hand_over(s, p);
	count_down(worker, s, task);
}

/* --- the owner waits --- */

/* Adds what was spawned since the last time. */
static void add_spawned(struct wf_scope *s)
{
	(void)wf_u64_fetch_add(&s->count, s->spawned);
	s->spawned = 0;
}

/* V5: asks to be told when no child is alive, or (any) with each that ends. Returns `count`. */
static uint64_t ask(struct wf_scope *s, const struct wf_wait *wait, uint64_t any)
{
	uint64_t asked = (uint64_t)wait->number << 32 | any;
	uint64_t added = asked + s->spawned - WF_SCOPE_BASE;

	s->spawned = 0;
	if (WF_PLANTED(scope_looks_then_asks)) {
		uint64_t before = wf_u64_load_seq_cst(&s->count) + added;

		(void)wf_u64_fetch_add(&s->count, added);
		return before;
	}
	/*
	 * V5: acquire and release (RMW), with V4 in count_down(): a child counts down before this,
	 * and is seen, or after it, and sees the number.
	 */
	return wf_u64_fetch_add(&s->count, added) + added;
}

/* After ask(): nobody is told from here on. */
static void take_back(struct wf_scope *s, const struct wf_wait *wait, uint64_t any)
{
	uint64_t asked = (uint64_t)wait->number << 32 | any;

	(void)wf_u64_fetch_add(&s->count, WF_SCOPE_BASE - asked);
}

/* Until no child is alive: 0. Or what else ended the wait. Anything may have happened after 0. */
static int wait_all(struct wf_scope *s, weft_time deadline)
{
	struct wf_wait wait;
	int r = 0;

	wf_wait_begin(&wait);
	if ((ask(s, &wait, 0) & WF_SCOPE_COUNT) == 0)
		wf_wait_end(&wait);
	else
		r = wf_wait_park(&wait, deadline);
	take_back(s, &wait, 0);
	return r;
}

/*
 * Until no child is alive, and nobody will touch `count` again: so it is left as it is then. A
 * cancel of the owner is passed on.
 */
static void wait_last(struct wf_scope *s)
{
	bool shielded = false;
	struct wf_wait wait;

	while (wf_scope_alive(s) > 0) {
		wf_wait_begin(&wait);
		if ((ask(s, &wait, 0) & WF_SCOPE_COUNT) == 0) {
			wf_wait_end(&wait);
			return;
		}
		if (shielded) {
			(void)wf_wait_park_shielded(&wait, WEFT_FOREVER);
		} else if (wf_wait_park(&wait, WEFT_FOREVER) == -ECANCELED) {
			wf_scope_cancel_children(s->rt, wf_worker_self(), s, WF_SCOPE_CANCELLED);
			shielded = true;
		}
		/* V5: acquire, as in wf_scope_alive(). Not 0: somebody cancels just now, or did. */
		if ((wf_u64_load_acquire(&s->count) & WF_SCOPE_COUNT) == 0)
			return;
		take_back(s, &wait, 0);
	}
}

/* --- what a scope has collected --- */

/* V8: the child that has ended first of those not taken yet; NULL: none has. */
static struct wf_proc *collect(struct wf_scope *s)
{
	struct wf_proc *p = s->collected;
	struct wf_node *node;

	if (!p) {
		/* V8: acquire (the exchange), with V3 in hand_over(). The newest comes first. */
		node = wf_ptr_load_relaxed(&s->ended) ? wf_ptr_exchange(&s->ended, NULL) : NULL;
		while (node) {
			struct wf_node *older = node->next;

			node->next = p ? &p->run : NULL;
			p = WF_CONTAINER_OF(node, struct wf_proc, run);
			node = older;
		}
	}
	if (p) {
		s->collected = p->run.next
			? WF_CONTAINER_OF(p->run.next, struct wf_proc, run) : NULL;
		s->untaken--;
	}
	return p;
}

/* What weft_join() does: from here on its id is unknown. */
static void give_up(struct wf_worker *worker, struct wf_proc *p)
{
	uint64_t word = wf_u64_load_relaxed(&p->word);

	/* As J5: others may look at the word, and change nothing in it. */
	while (!wf_u64_cas(&p->word, &word, wf_word_freed(word)))
		;
	wf_table_retire(worker->rt, worker, p);
}

static void drop_collected(struct wf_worker *worker, struct wf_scope *s)
{
	struct wf_proc *p;

	while ((p = collect(s)) != NULL)
		give_up(worker, p);
}

/* Until there is something to collect: 0. Or what else ended the wait. */
static int wait_any(struct wf_scope *s, weft_time deadline)
{
	struct wf_wait wait;
	int r = 0;

	wf_wait_begin(&wait);
	(void)ask(s, &wait, WF_SCOPE_ANY);
	/* V8: after the RMW of ask(): a child handed itself over before it counted down. */
	if (wf_ptr_load_acquire(&s->ended) && !WF_PLANTED(scope_next_parks_without_look))
		wf_wait_end(&wait);
	else
		r = wf_wait_park(&wait, deadline);
	take_back(s, &wait, WF_SCOPE_ANY);
	return r;
}

/* --- the watchdog --- */

static int watch(void *arg)
{
	struct wf_scope *s = arg;
	struct wf_proc *owner = s->owner;
	struct weft_rt *rt = s->rt;
	bool of_a_task = s->flags & OF_A_TASK;
	uint64_t asked;

	if (weft_sleep_until(s->deadline) == 0)
		wf_scope_cancel_children(rt, wf_worker_self(), s, WF_SCOPE_EXPIRED);
	/* V9: release (RMW), with itself in end_watch(): the last touch of the scope. */
	asked = wf_u64_exchange(&s->watch, WATCH_OVER);
	if (asked && of_a_task)
		wf_proc_wake_task(rt, wf_worker_self(), owner, false);
	else if (asked)
		tell(rt, wf_worker_self(), owner, (uint32_t)asked);
	return 0;
}

static int start_watch(struct wf_scope *s)
{
	/* With its stack, or it might end without having run, and nobody would tell the owner. */
	static const struct weft_spawn_opts opts = {
		.size = sizeof opts, .name = "scope deadline", .flags = WEFT_STACK_NOW };
	weft_pid pid;
	int r = weft_spawn_with(watch, s, &opts, &pid);

	if (r < 0)
		return r;
	s->watchdog = pid;
	return weft_detach(pid);
}

/* Until it does not touch the scope any more. */
static void end_watch(struct wf_scope *s)
{
	struct wf_wait wait;
	uint64_t nobody = 0;

	if (WF_LIKELY(weft_pid_is_none(s->watchdog)))
		return;
	(void)weft_cancel(s->watchdog);
	wf_wait_begin(&wait);
	/* V9: acquire (the cas), with itself in watch(). */
	if (wf_u64_cas(&s->watch, &nobody, wait.number))
		(void)wf_wait_park_shielded(&wait, WEFT_FOREVER);
	else
		wf_wait_end(&wait);
}

/* --- its end --- */

/* When no child is alive, and no watchdog. */
static void free_all(struct wf_worker *worker, struct wf_scope *s)
{
	if (WF_UNLIKELY(s->untaken > 0 && (s->flags & WEFT_SCOPE_COLLECT)))
		drop_collected(worker, s);
	wf_scope_list_free(s);
	s->owner = NULL;
}

/* --- the owner is a task --- */

/* V10: takes back what this run or an earlier one has asked. */
static void forget_asked(struct wf_scope *s)
{
	if (!s->asked)
		return;
	(void)wf_u64_fetch_add(&s->count, WF_SCOPE_BASE - s->asked);
	s->asked = 0;
}

/* V5, V10: asks to be polled when no child is alive. True: none is. */
static bool ask_all_in_task(struct wf_scope *s)
{
	struct wf_wait told = { .number = WF_SCOPE_TOLD >> 32 };

	if (wf_scope_alive(s) == 0)
		return true;
	if (s->asked == WF_SCOPE_TOLD)
		return false;
	forget_asked(s);
	s->asked = WF_SCOPE_TOLD;
	return (ask(s, &told, 0) & WF_SCOPE_COUNT) == 0;
}

/* As wait_all(); and WEFT_PENDING. */
static int wait_all_in_task(struct wf_scope *s, weft_time deadline)
{
	struct wf_wait wait = { .number = 0 };
	int r;

	if (ask_all_in_task(s))
		return 0;
	r = wf_wait_park(&wait, deadline);
	if (r < 0 && r != WEFT_PENDING)
		forget_asked(s);
	return r;
}

/* As wait_any(); and WEFT_PENDING. Each end wakes: so by a wait, over when it is polled. */
static int wait_any_in_task(struct wf_scope *s, weft_time deadline)
{
	struct wf_wait wait;
	int r;

	forget_asked(s);
	wf_wait_begin(&wait);
	s->asked = (uint64_t)wait.number << 32 | WF_SCOPE_ANY;
	(void)ask(s, &wait, WF_SCOPE_ANY);
	if (wf_ptr_load_acquire(&s->ended)) /* V8: as in wait_any() */
		return 0;
	r = wf_wait_park(&wait, deadline);
	if (r < 0 && r != WEFT_PENDING)
		forget_asked(s);
	return r;
}

/* V9: as end_watch(). False: it is polled when there is more to say. */
static bool end_watch_in_task(struct wf_scope *s)
{
	uint64_t nobody = 0;

	if (WF_LIKELY(weft_pid_is_none(s->watchdog)))
		return true;
	(void)weft_cancel(s->watchdog);
	/* V9: acquire (the cas), with itself in watch(). */
	return !wf_u64_cas(&s->watch, &nobody, WF_SCOPE_TOLD >> 32) && nobody == WATCH_OVER;
}

/* V11: out of the list that `fresh` begins. */
static void unlink_of_task(struct wf_proc *p, struct wf_scope *s)
{
	struct wf_scope *newer = p->fresh.arg;

	if (WF_LIKELY(newer == s)) {
		p->fresh.fn = s->body.fn;
		p->fresh.arg = s->body.arg;
		return;
	}
	while (newer->body.arg != s)
		newer = newer->body.arg;
	newer->body = s->body;
}

/* All that close does, but for unlinking. False: WEFT_PENDING. */
static bool end_in_task(struct wf_worker *worker, struct wf_scope *s)
{
	if (WF_UNLIKELY(wf_word_is_cancelled(wf_u64_load_relaxed(&s->owner->word))))
		wf_scope_cancel_children(s->rt, worker, s, WF_SCOPE_CANCELLED);
	if (!ask_all_in_task(s) || !end_watch_in_task(s))
		return false;
	free_all(worker, s);
	return true;
}

int wf_scope_poll(void *scope)
{
	struct wf_scope *s = scope;

	return s->body.fn(s->body.arg);
}

/* V12: the body of a task whose own is over. */
static int poll_end(void *scope)
{
	struct wf_scope *s = scope;
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p = worker->current;
	int result = s->result;

	for (;;) {
		wf_scope_cancel_children(s->rt, worker, s, WF_SCOPE_CANCELLED);
		if (!end_in_task(worker, s))
			return WEFT_PENDING;
		p->fresh.fn = s->body.fn;
		p->fresh.arg = s->body.arg;
		if (!wf_scope_is_open(p))
			break;
		s = p->fresh.arg;
		s->result = result;
		p->fresh.fn = poll_end;
		p->fresh.arg = s;
	}
	if (wf_u64_load_relaxed(&p->word) & WF_WORD_FAILED)
		p->live.failure = result; /* in the place of `fresh`, which nobody needs now */
	return result;
}

WF_COLD int wf_scope_end_all(
	struct wf_worker *worker, struct wf_proc *p, struct wf_scope *newest, int result)
{
	/* What its last run has armed is void. */
	worker->switched = WF_SWITCH_PARK;
	worker->armed_until = WEFT_FOREVER;
	newest->result = result;
	p->fresh.fn = poll_end;
	p->fresh.arg = newest;
	return poll_end(newest);
}

/* On the worker's, where nothing of a task's outlives its run. Finds most. */
static bool is_on_stack(const struct wf_worker *worker, const void *scope)
{
	return (uintptr_t)scope >= (uintptr_t)__builtin_frame_address(0)
		&& (uintptr_t)scope < (uintptr_t)worker->stack_base;
}

/* V11 */
static void link_to_task(struct wf_proc *p, struct wf_scope *s)
{
	s->body.fn = p->fresh.fn;
	s->body.arg = p->fresh.arg;
	p->fresh.fn = wf_scope_poll;
	p->fresh.arg = s;
}

/* --- the public calls --- */

static int read_opts(const struct weft_scope_opts *opts, struct weft_scope_opts *out)
{
	int r;

	memset(out, 0, sizeof *out);
	r = wf_opts_read(opts, opts->size, out, sizeof *out);
	if (r < 0)
		return r;
	return out->flags & ~SCOPE_FLAGS ? -EINVAL : 0;
}

/* V1 */
static void init(struct wf_worker *worker, struct wf_scope *s, unsigned flags)
{
	struct wf_proc *p = worker->current;

	s->owner = p;
	s->owner_pid = wf_pid_make(wf_word_generation(wf_u64_load_relaxed(&p->word)),
		worker->rt->slot, p->index);
	s->rt = worker->rt;
	s->flags = flags | (wf_proc_is_task(p) ? OF_A_TASK : 0);
	wf_u32_store_relaxed(&s->stage, WF_SCOPE_OPEN);
	wf_u64_store_relaxed(&s->count, WF_SCOPE_BASE);
	wf_u32_store_relaxed(&s->error, 0);
	wf_u32_store_relaxed(&s->listed, 0);
	wf_ptr_store_relaxed(&s->ended, NULL);
	s->spawned = s->untaken = 0;
	s->asked = 0;
	s->capacity = WF_SCOPE_INLINE;
	s->collected = NULL;
	s->free = wf_scope_list_begin(s);
	s->chunks = NULL;
	s->watchdog.raw = 0;
}

/* All that close does in a fiber, but for the record of the cleanup. */
static void end(struct wf_scope *s)
{
	wait_last(s);
	end_watch(s);
	free_all(wf_worker_self(), s);
}

/* The owner ends, by weft_fail(), and has not closed it. */
static void end_with_owner(struct wf_cleanup *cleanup, bool failed)
{
	struct wf_scope *s = WF_CONTAINER_OF(cleanup, struct wf_scope, cleanup);

	(void)failed;
	wf_scope_cancel_children(s->rt, wf_worker_self(), s, WF_SCOPE_CANCELLED);
	end(s);
}

WF_NOINLINE static int init_with(
	struct wf_worker *worker, struct wf_scope *s, const struct weft_scope_opts *opts)
{
	struct weft_scope_opts own_opts;
	int r = read_opts(opts, &own_opts);

	if (r < 0)
		return r;
	init(worker, s, own_opts.flags);
	if (own_opts.deadline == 0 || own_opts.deadline == WEFT_FOREVER)
		return 0;
	s->deadline = own_opts.deadline;
	wf_u64_store_relaxed(&s->watch, 0);
	r = start_watch(s);
	if (r < 0)
		s->owner = NULL;
	return r;
}

WF_NOINLINE int weft_scope_open(struct weft_scope *scope, const struct weft_scope_opts *opts)
{
	struct wf_scope *s = scope_of(scope);
	struct wf_worker *worker = wf_worker_self_first();

	if (WF_UNLIKELY(!worker || !worker->current))
		return -EPERM;
	if (wf_proc_is_task(worker->current)) {
		if (WF_UNLIKELY(!worker->current->fresh.fn))
			return -EPERM; /* in its cleanups: nobody would poll it */
		if (WF_UNLIKELY(is_on_stack(worker, scope)))
			return -EINVAL;
	}
	if (opts) {
		int r = init_with(worker, s, opts);

		if (WF_UNLIKELY(r < 0))
			return r;
	} else {
		init(worker, s, 0);
	}
	if (s->flags & OF_A_TASK) {
		link_to_task(worker->current, s);
		return 0;
	}
	s->cleanup.run = end_with_owner;
	return wf_cleanup_push(&s->cleanup); /* never fails in a fiber */
}

/* What a scope may lack for one more child. 0 or -ENOMEM. */
WF_NOINLINE static int make_ready(struct wf_worker *worker, struct wf_scope *s)
{
	if (s->free.at == s->free.end && wf_scope_list_make_room(worker, s) < 0)
		return -ENOMEM;
	if (s->asked != 0 && !WF_PLANTED(scope_borrows))
		forget_asked(s); /* else `count` would be borrowed from */
	if (s->spawned >= UNADDED_MAX)
		add_spawned(s);
	return 0;
}

WF_INLINE int spawn_child(struct wf_worker *worker, struct wf_scope *s, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, bool task, weft_pid *pid_out)
{
	return task ? wf_spawn_child_task(worker, s, fn, arg, opts, pid_out)
		    : wf_spawn_child(worker, s, fn, arg, opts, pid_out);
}

/* Apart from spawn(), which then needs no registers of its own: its arguments are passed on. */
WF_NOINLINE static int spawn_when_ready(struct wf_worker *worker, struct wf_scope *s, weft_fn fn,
	void *arg, const struct weft_spawn_opts *opts, bool task, weft_pid *pid_out)
{
	int r = make_ready(worker, s);

	return r < 0 ? r : spawn_child(worker, s, fn, arg, opts, task, pid_out);
}

WF_INLINE int spawn(struct weft_scope *scope, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, bool task, weft_pid *pid_out)
{
	struct wf_worker *worker = wf_worker_self_first();
	struct wf_scope *s = scope_of(scope);

	if (WF_UNLIKELY(!is_own(worker, s)))
		return -EPERM;
	if (WF_UNLIKELY(!fn))
		return -EINVAL;
	if (WF_UNLIKELY(wf_u32_load_relaxed(&s->stage) >= WF_SCOPE_CANCELLED))
		return -ECANCELED;
	if (WF_UNLIKELY(s->free.at == s->free.end || s->asked != 0 || s->spawned >= UNADDED_MAX))
		return spawn_when_ready(worker, s, fn, arg, opts, task, pid_out);
	return spawn_child(worker, s, fn, arg, opts, task, pid_out);
}

WF_NOINLINE int weft_scope_spawn(struct weft_scope *scope, weft_fn fn, void *arg, weft_pid *pid_out)
{
	return spawn(scope, fn, arg, NULL, false, pid_out);
}

WF_NOINLINE int weft_scope_spawn_with(struct weft_scope *scope, weft_fn fn, void *arg,
	const struct weft_spawn_opts *opts, weft_pid *pid_out)
{
	return spawn(scope, fn, arg, opts, false, pid_out);
}

WF_NOINLINE int weft_scope_task(struct weft_scope *scope, weft_task_fn fn, void *state,
	const struct weft_spawn_opts *opts, weft_pid *pid_out)
{
	return spawn(scope, fn, state, opts, true, pid_out);
}

int weft_scope_wait(struct weft_scope *scope, weft_time deadline)
{
	struct wf_worker *worker;
	struct wf_scope *s = own(scope, &worker);
	int r;

	if (!s)
		return -EPERM;
	r = wf_wait_check_once();
	if (s->flags & OF_A_TASK)
		r = r == 0 ? wait_all_in_task(s, deadline) : r;
	else
		while (r == 0 && wf_scope_alive(s) > 0)
			r = wait_all(s, deadline);
	return r < 0 ? r : first_error(s);
}

int weft_scope_next(struct weft_scope *scope, struct weft_exit *exit_out, weft_time deadline)
{
	struct wf_worker *worker;
	struct wf_scope *s = own(scope, &worker);
	struct wf_proc *p = NULL;
	struct weft_exit told;
	int r;

	if (!s)
		return -EPERM;
	if (!(s->flags & WEFT_SCOPE_COLLECT))
		return -EINVAL;
	if (exit_out && exit_out->size < sizeof exit_out->size)
		return -EINVAL;
	r = wf_wait_check_once();
	while (r == 0 && !(p = collect(s))) {
		if (s->untaken == 0)
			r = -ENOENT;
		else
			r = s->flags & OF_A_TASK ? wait_any_in_task(s, deadline)
						 : wait_any(s, deadline);
	}
	if (r < 0)
		return r;
	if (exit_out) {
		wf_exit_describe(s->rt, p, wf_u64_load_relaxed(&p->word), p->result, &told);
		wf_exit_copy(&told, exit_out);
	}
	give_up(wf_worker_self(), p);
	return 0;
}

int weft_scope_cancel(struct weft_scope *scope)
{
	struct wf_scope *s = scope_of(scope);
	struct wf_visit visit;

	if (!wf_visit_begin(&visit, s->owner_pid))
		return -ESRCH;
	wf_visit_hold(&visit);
	(void)wf_u64_fetch_add(&s->count, 1);
	wf_scope_cancel_children(visit.rt, visit.worker, s, WF_SCOPE_CANCELLED);
	count_down(visit.worker, s, false);
	wf_visit_let_go(&visit);
	wf_visit_end(&visit);
	return 0;
}

WF_NOINLINE int weft_scope_close(struct weft_scope *scope)
{
	struct wf_worker *worker = wf_worker_self_first();
	struct wf_scope *s = scope_of(scope);

	if (WF_UNLIKELY(!is_own(worker, s)))
		return -EPERM;
	if (s->flags & OF_A_TASK) {
		if (!end_in_task(worker, s))
			return WEFT_PENDING;
		unlink_of_task(worker->current, s);
		return first_error(s);
	}
	end(s);
	(void)wf_cleanup_remove(&s->cleanup);
	return first_error(s);
}
