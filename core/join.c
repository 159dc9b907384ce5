/*
 * join.c: join, try_join, detach: J1 to J5 in core/README.md. JOINER and DONE are bits of one word,
 * so exactly one of "the end sees the joiner" and "the joiner sees the end" holds. The ender
 * touches nothing of the joiner's but its header (type-stable), and a claim with the number of a
 * wait that is over fails: numbers go on over reuse of a header.
 *
 * A fiber, or a thread, takes its name back before it returns (J4). A task that does not call again
 * leaves it behind, with JOINER: J6, anybody may put another name in its place.
 */
#include "core/join.h"

#include <errno.h>
#include <string.h>

#include "core/embed.h"
#include "core/exit.h"
#include "core/internal.h"
#include "core/registry.h"
#include "core/tasks.h"
#include "core/wake.h"

enum { FOREIGN_FREE, FOREIGN_WAITING, FOREIGN_TOLD };

/* Where the caller wants what the process leaves behind; either may be NULL. */
struct ending {
	int *result_out;
	struct weft_exit *exit_out;
};

static uint64_t name_make(uint32_t number, unsigned slot, uint32_t index)
{
	return (uint64_t)number << 32 | (uint64_t)slot << WF_INDEX_BITS | index;
}

static void tell_foreign(struct weft_rt *rt, uint32_t index)
{
	struct wf_foreign_joiner *joiner = &rt->joiners[index];
	uint32_t waiting = FOREIGN_WAITING;

	/* Late for a joiner that gave up: the next one in this place looks, and waits again. */
	if (wf_u32_cas(&joiner->state, &waiting, FOREIGN_TOLD))
		wf_futex_wake_all(&joiner->state);
}

void wf_join_tell(struct weft_rt *rt, struct wf_worker *worker, struct wf_proc *p)
{
	/* J3: acquire, with J1 in install(); the word's RMW that showed JOINER came after it. */
	uint64_t name = wf_u64_load_acquire(&p->joiner);
	unsigned slot = (unsigned)(name >> WF_INDEX_BITS) & (WF_RUNTIMES_MAX - 1);
	uint32_t index = (uint32_t)name & WF_INDEX_MASK;
	struct weft_rt *joiner_rt = slot == rt->slot ? rt : NULL;
	uint64_t waiting = name >> 32 << 32 | WF_WINNER_NONE;
	struct wf_proc *joiner;

	if (name == 0)
		return; /* whoever replaced it (J6) has found the end, and withdrawn */
	if (slot == WF_FOREIGN) {
		tell_foreign(rt, index);
		return;
	}
	if (!joiner_rt && !(joiner_rt = wf_registry_acquire(slot)))
		return;
	joiner = wf_table_at(&joiner_rt->table, index);
	if (WF_PLANTED(join_claims_any_wait) && joiner) {
		waiting = wf_u64_load_relaxed(&joiner->claim) & ~(uint64_t)UINT8_MAX;
		name = waiting;
	}
	if (joiner && wf_u64_cas(&joiner->claim, &waiting, name >> 32 << 32 | WF_WINNER_PEER))
		wf_proc_wake(joiner_rt, worker, joiner, false);
	if (joiner_rt != rt)
		wf_registry_release(slot);
}

/* Takes the result if p has ended. `joiner`: the caller is the one the JOINER flag stands for. */
static int take_result(struct wf_visit *visit, struct wf_proc *p, weft_pid pid, bool joiner,
	const struct ending *ending)
{
	uint64_t word = wf_u64_load_acquire(&p->word);
	int result;

	do {
		if (wf_word_generation(word) != wf_pid_generation(pid)
			|| wf_word_phase(word) == WF_FREE)
			return -ESRCH;
		if (word & (WF_WORD_DETACHED | WF_WORD_SCOPED))
			return word & WF_WORD_SCOPED ? -EBUSY : -ESRCH;
		if (!joiner && (word & WF_WORD_JOINER))
			return -EBUSY;
		if (wf_word_phase(word) != WF_DONE)
			return -EAGAIN;
		result = p->result;
		/* J5: acquire and release (the cas), with J3 in finish_word(), and itself. */
	} while (!wf_u64_cas(&p->word, &word, wf_word_freed(word)));
	if (ending->result_out)
		*ending->result_out = result;
	if (WF_UNLIKELY(ending->exit_out != NULL)) /* the header is ours until it is retired */
		wf_exit_describe(visit->rt, p, word, result, ending->exit_out);
	wf_table_retire(visit->rt, visit->worker, p);
	return 0;
}

/*
 * Whether a name is one that nobody will take back: of a wait with an earlier number than its
 * process's last. (One with the last number, be it over, is still in use: by a fiber on its way to
 * J4, or by a task that has yet to run.)
 */
WF_COLD static bool is_left_behind(struct weft_rt *rt, uint64_t name)
{
	unsigned slot = (unsigned)(name >> WF_INDEX_BITS) & (WF_RUNTIMES_MAX - 1);
	struct weft_rt *joiner_rt = slot == rt->slot ? rt : NULL;
	struct wf_proc *joiner;
	bool left;

	if (slot == WF_FOREIGN || name == 0)
		return false;
	if (!joiner_rt && !(joiner_rt = wf_registry_acquire(slot)))
		return true;
	joiner = wf_table_at(&joiner_rt->table, (uint32_t)name & WF_INDEX_MASK);
	left = !joiner || wf_u64_load_acquire(&joiner->claim) >> 32 != name >> 32;
	if (joiner_rt != rt)
		wf_registry_release(slot);
	return left;
}

/* The calling process; NULL outside one. */
static const struct wf_proc *self_of(const struct wf_visit *visit)
{
	return visit->worker ? visit->worker->current : NULL;
}

/* Whether JOINER stands for somebody other than the calling process `self` (NULL: a thread). */
WF_COLD static bool is_joined_by_another(
	const struct wf_visit *visit, struct wf_proc *p, const struct wf_proc *self)
{
	/* Before `joiner`: it says what that is. A header is not used again within this visit. */
	uint64_t word = wf_u64_load_acquire(&p->word);
	uint64_t name;

	if (word & WF_WORD_SCOPED)
		return true; /* its scope, which is no name */
	if (wf_word_phase(word) == WF_FREE)
		return false; /* ended meanwhile, and of whom `joiner` was is forgotten */
	/* J6: acquire, with J1 in install(): as J3. */
	name = wf_u64_load_acquire(&p->joiner);
	if (self && wf_proc_is_task(self)
		&& (uint32_t)name == (uint32_t)name_make(0, visit->worker->rt->slot, self->index))
		return false; /* its own, of an earlier run or of this one */
	return !is_left_behind(visit->rt, name);
}

/*
 * J1, J2, C2. 0: installed; 1: it has ended meanwhile; -EBUSY, -ESRCH. `self`: the calling process,
 * NULL: a thread.
 */
static int install(const struct wf_visit *visit, struct wf_proc *p, weft_pid pid, uint64_t name,
	const struct wf_proc *self)
{
	uint64_t seen = 0;
	uint64_t word = wf_u64_load_acquire(&p->word);

	/*
	 * J6: in place of a name left behind. Either the end's look at `joiner`, J3, sees ours, or
	 * it has set DONE before J2's cas, which is one although JOINER is set already.
	 */
	while (!wf_u64_cas(&p->joiner, &seen, name))
		if (is_joined_by_another(visit, p, self))
			return -EBUSY;
	if (WF_PLANTED(join_replaces_blindly) && seen != 0)
		return 0;
	do {
		int r = 0;

		if (wf_word_generation(word) != wf_pid_generation(pid) || (word & WF_WORD_DETACHED))
			r = -ESRCH;
		else if (wf_word_phase(word) == WF_DONE && !WF_PLANTED(join_misses_end))
			r = 1;
		if (r) {
			wf_u64_store_release(&p->joiner, 0);
			return r;
		}
	} while (!wf_u64_cas(&p->word, &word, word | WF_WORD_JOINER));
	return 0;
}

/* J4. True: withdrawn; false: it has ended, the result is there. */
static bool withdraw(struct wf_proc *p)
{
	uint64_t word = wf_u64_load_acquire(&p->word);

	do {
		if (wf_word_phase(word) == WF_DONE)
			return false;
	} while (!wf_u64_cas(&p->word, &word, word & ~WF_WORD_JOINER));
	wf_u64_store_release(&p->joiner, 0);
	return true;
}

/* After the wait: r is how it ended. */
static int conclude(struct wf_visit *visit, weft_pid pid, int r, const struct ending *ending)
{
	struct wf_proc *p = wf_visit_begin(visit, pid);

	if (!p)
		return -ESRCH; /* a reservation that was given up */
	if (r == 0 || !withdraw(p))
		r = take_result(visit, p, pid, true, ending);
	wf_visit_end(visit);
	return r;
}

static int join_process(struct wf_visit *visit, struct wf_proc *p, weft_pid pid,
	const struct ending *ending, weft_time deadline)
{
	struct wf_wait wait;
	uint64_t name;
	int r;

	wf_wait_begin(&wait);
	name = name_make(wait.number, visit->worker->rt->slot, wf_pid_index(wait.pid));
	r = install(visit, p, pid, name, visit->worker->current);
	if (r == 1)
		r = take_result(visit, p, pid, true, ending);
	else if (r == 0)
		r = 1;
	wf_visit_end(visit);
	if (r <= 0) {
		wf_wait_end(&wait); /* J6: the end may have seen the name */
		return r;
	}
	r = wf_wait_park(&wait, deadline);
	return r == WEFT_PENDING ? r : conclude(visit, pid, r, ending);
}

/* A free place for a foreign joiner; -ENOMEM. */
static int foreign_place(struct weft_rt *rt)
{
	for (int i = 0; i < WF_FOREIGN_JOINERS_MAX; i++) {
		uint32_t state = FOREIGN_FREE;

		if (wf_u32_cas(&rt->joiners[i].state, &state, FOREIGN_WAITING))
			return i;
	}
	return -ENOMEM;
}

/* Blocks the thread until told or the deadline; the use of the runtime keeps `state` in place. */
static int foreign_wait(struct weft_rt *rt, int place, weft_time deadline)
{
	wf_atomic_u32 *state = &rt->joiners[place].state;

	while (wf_u32_load_acquire(state) == FOREIGN_WAITING) {
		if (deadline != WEFT_FOREVER && weft_now() >= deadline)
			return -ETIME;
		wf_futex_wait(state, FOREIGN_WAITING, deadline);
	}
	return 0;
}

/* The process has not ended: what told us was late, and meant for an earlier user of the place. */
static bool told_too_early(struct weft_rt *rt, weft_pid pid)
{
	struct wf_proc *p;
	bool early;

	wf_rcu_enter_foreign();
	p = wf_table_find(&rt->table, pid);
	early = p && wf_word_phase(wf_u64_load_acquire(&p->word)) != WF_DONE
		&& !WF_PLANTED(join_trusts_any_tell);
	wf_rcu_exit_foreign();
	return early;
}

/* Waits until the process has ended: 0, or -ETIME. */
static int foreign_wait_end(struct weft_rt *rt, int place, weft_pid pid, weft_time deadline)
{
	for (;;) {
		uint32_t told = FOREIGN_TOLD;
		int r = foreign_wait(rt, place, deadline);

		if (r < 0)
			return r;
		/* First back to waiting, then a look: a tell that comes in between is not lost. */
		(void)wf_u32_cas(&rt->joiners[place].state, &told, FOREIGN_WAITING);
		if (!told_too_early(rt, pid))
			return 0;
	}
}

/* Keeps the visit's use of the runtime to the end: it keeps the place where it is. */
static int join_foreign(struct wf_visit *visit, struct wf_proc *p, weft_pid pid,
	const struct ending *ending, weft_time deadline)
{
	struct weft_rt *rt = visit->rt;
	int place = foreign_place(rt);
	struct wf_visit again;
	int r = place;

	if (place >= 0)
		r = install(visit, p, pid, name_make(1, WF_FOREIGN, (uint32_t)place), NULL);
	if (r == 1) {
		r = take_result(visit, p, pid, true, ending);
	} else if (r == 0) {
		wf_rcu_exit_foreign(); /* the visit's section; its use stays */
		r = conclude(&again, pid, foreign_wait_end(rt, place, pid, deadline), ending);
		wf_rcu_enter_foreign();
	}
	if (place >= 0)
		wf_u32_store_release(&rt->joiners[place].state, FOREIGN_FREE);
	wf_visit_end(visit);
	return r;
}

/* Takes the result if p has ended. Also in place of who has left the name of his wait behind. */
static int try_result(
	struct wf_visit *visit, struct wf_proc *p, weft_pid pid, const struct ending *ending)
{
	int r = take_result(visit, p, pid, false, ending);

	if (WF_UNLIKELY(r == -EBUSY) && !is_joined_by_another(visit, p, self_of(visit)))
		r = take_result(visit, p, pid, true, ending);
	return r;
}

/* A join that had not to wait: wf_budget_take(), its common case written out. */
WF_INLINE void budget_take(struct wf_worker *worker)
{
	if (WF_LIKELY(worker->operations_left > 1))
		worker->operations_left--;
	else
		wf_budget_take();
}

static int join(weft_pid pid, const struct ending *ending, weft_time deadline)
{
	struct wf_visit visit;
	struct wf_proc *p;
	bool in_process;
	int r = wf_wait_check_once();

	if (r == -ECANCELED || r == WEFT_PENDING)
		return r;
	in_process = r == 0;
	p = wf_visit_begin(&visit, pid);
	if (!p)
		return -ESRCH;
	if (in_process && p == visit.worker->current)
		r = -EDEADLK;
	else
		r = try_result(&visit, p, pid, ending);
	if (r == -EAGAIN && visit.worker && !in_process)
		r = -EPERM; /* a post: its worker must not block */
	/* Late before a name is left: a task may have left one here in this run. */
	if (r == -EAGAIN && in_process && deadline != WEFT_POLL && deadline <= visit.worker->now)
		r = -ETIME;
	if (r == -EAGAIN && !visit.worker && deadline != WEFT_POLL && wf_embed_is_owner(visit.rt))
		r = -EDEADLK; /* who would poll? */
	if (r != -EAGAIN || deadline == WEFT_POLL) {
		wf_visit_end(&visit);
		if (r == 0 && in_process)
			budget_take(visit.worker);
		return r;
	}
	if (in_process)
		return join_process(&visit, p, pid, ending, deadline);
	return join_foreign(&visit, p, pid, ending, deadline);
}

int weft_join(weft_pid pid, int *result_out, weft_time deadline)
{
	const struct ending ending = { .result_out = result_out };

	return join(pid, &ending, deadline);
}

int weft_join_exit(weft_pid pid, struct weft_exit *exit_out, weft_time deadline)
{
	struct weft_exit told;
	const struct ending ending = { .exit_out = &told };
	int r;

	if (!exit_out || exit_out->size < sizeof exit_out->size)
		return -EINVAL;
	r = join(pid, &ending, deadline);
	if (r < 0)
		return r;
	wf_exit_copy(&told, exit_out);
	return 0;
}

int weft_try_join(weft_pid pid, int *result_out)
{
	const struct ending ending = { .result_out = result_out };
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);
	int r;

	if (!p)
		return -ESRCH;
	r = try_result(&visit, p, pid, &ending);
	wf_visit_end(&visit);
	return r;
}

int weft_detach(weft_pid pid)
{
	static const struct ending nowhere;
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);
	uint64_t word;
	int r = 0;

	if (!p)
		return -ESRCH;
	word = wf_u64_load_acquire(&p->word);
	do {
		if (wf_word_generation(word) != wf_pid_generation(pid)
			|| wf_word_phase(word) == WF_FREE)
			r = -ESRCH;
		else if ((word & WF_WORD_SCOPED)
			|| ((word & WF_WORD_JOINER)
				&& is_joined_by_another(&visit, p, self_of(&visit))))
			r = -EBUSY;
		else if (word & WF_WORD_DETACHED)
			r = -ESRCH;
		else if (wf_word_phase(word) == WF_DONE)
			r = take_result(&visit, p, pid, true, &nowhere);
		else
			continue;
		break;
	} while (!wf_u64_cas(&p->word, &word, word | WF_WORD_DETACHED));
	wf_visit_end(&visit);
	return r;
}
