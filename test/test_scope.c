/*
 * <weft/scope.h>: children are counted, cancelled, collected and waited for; and the queue they
 * wait in.
 *
 * Goal: row P8 of the scenarios, and what the header promises, on one worker and on several.
 * Method: children that park until they are cancelled or woken, and say what ended them. Events are
 * waited for by yielding. Nothing is left at the end: stacks and ids are counted, and the
 * sanitizers look.
 */
#include <errno.h>
#include <string.h>

#include "core/scoped.h"
#include "test/runtime.h"

enum { WORKERS = 2, TIMEOUT = 120 };

static wf_atomic_u32 cancelled_count;
static wf_atomic_u32 begun_count;

static void setup(void)
{
	wf_u32_store_relaxed(&cancelled_count, 0);
	wf_u32_store_relaxed(&begun_count, 0);
}

static unsigned cancelled(void)
{
	return wf_u32_load_relaxed(&cancelled_count);
}

static unsigned begun(void)
{
	return wf_u32_load_relaxed(&begun_count);
}

/* A child: until it is cancelled, of which it makes an error, or woken. */
static int stays(void *arg)
{
	int r;

	(void)arg;
	count_one(&begun_count);
	r = weft_park(WEFT_FOREVER);
	if (r == -ECANCELED)
		count_one(&cancelled_count);
	return r;
}

/* The same, but its end is none. */
static int stays_calm(void *arg)
{
	(void)stays(arg);
	return 0;
}

static int yields(void *arg)
{
	for (int i = *(int *)arg; i > 0; i--)
		weft_yield();
	return 0;
}

static struct weft_scope *opened(struct weft_scope *scope, unsigned flags, weft_time deadline)
{
	const struct weft_scope_opts opts = {
		.size = sizeof opts, .flags = flags, .deadline = deadline};

	cr_assert_eq(weft_scope_open(scope, &opts), 0);
	return scope;
}

static weft_pid child(struct weft_scope *scope, weft_fn fn, void *arg)
{
	weft_pid pid;

	cr_assert_eq(weft_scope_spawn(scope, fn, arg, &pid), 0);
	return pid;
}

static void children(struct weft_scope *scope, weft_fn fn, void *arg, unsigned count)
{
	while (count-- > 0)
		(void)child(scope, fn, arg);
}

static int on_each_count_of_workers(weft_fn fn)
{
	for (unsigned workers = 1; workers <= WORKERS; workers++) {
		setup();
		cr_assert_eq(in_runtime(workers, fn, NULL), 0, "%u workers", workers);
	}
	return 0;
}

#define ON_WORKERS(name_)                                                \
	Test(scope, name_, .timeout = TIMEOUT)                           \
	{                                                                \
		cr_assert_eq(on_each_count_of_workers(body_##name_), 0); \
	}

/* ---- Ends, errors, cancels ------------------------------------------------------------------ */

static int body_close_waits_for_all(void *arg)
{
	struct weft_scope scope;
	int turns[20];

	(void)arg;
	cr_assert_eq(weft_scope_open(&scope, NULL), 0);
	cr_assert_eq(weft_scope_close(&scope), 0, "an empty one");
	(void)opened(&scope, 0, 0);
	for (int i = 0; i < 20; i++) {
		turns[i] = i;
		cr_assert_eq(weft_scope_spawn(&scope, yields, &turns[i], NULL), 0);
	}
	children(&scope, stays, NULL, 1);
	UNTIL(begun() == 1);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_scope_cancel(&scope), 0);
	cr_assert_eq(weft_scope_close(&scope), -ECANCELED, "what the child returned");
	return 0;
}

ON_WORKERS(close_waits_for_all)

static int fails(void *arg)
{
	UNTIL(begun() == *(unsigned *)arg);
	return -EIO;
}

/* P8 */
static int body_the_first_error_cancels_the_others(void *arg)
{
	struct weft_scope scope;
	unsigned others = 99;

	(void)arg;
	(void)opened(&scope, 0, 0);
	for (unsigned i = 0; i < 100; i++)
		(void)child(&scope, i == 60 ? fails : stays, &others);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), -EIO);
	cr_assert_eq(cancelled(), 99);
	cr_assert_eq(weft_scope_spawn(&scope, stays, NULL, NULL), -ECANCELED);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), -EIO, "it stays the error");
	cr_assert_eq(weft_scope_close(&scope), -EIO);
	cr_assert_eq(cancelled(), 99);
	return 0;
}

ON_WORKERS(the_first_error_cancels_the_others)

/* The failing child cancels, not the parent's wait for it. */
static int body_an_error_cancels_although_nobody_waits(void *arg)
{
	struct weft_scope scope;
	unsigned others = 3;

	(void)arg;
	(void)opened(&scope, 0, 0);
	children(&scope, stays, NULL, others);
	(void)child(&scope, fails, &others);
	UNTIL(cancelled() == others);
	cr_assert_eq(weft_yield(), 0, "the body itself is not cancelled");
	cr_assert_eq(weft_scope_close(&scope), -EIO);
	return 0;
}

ON_WORKERS(an_error_cancels_although_nobody_waits)

/* Ids beyond the scope's own room, and beyond one chunk of them. */
static int body_a_cancel_reaches_a_thousand(void *arg)
{
	struct weft_scope scope;

	(void)arg;
	(void)opened(&scope, 0, 0);
	children(&scope, stays_calm, NULL, 1000);
	cr_assert_eq(weft_scope_cancel(&scope), 0);
	cr_assert_eq(weft_scope_cancel(&scope), 0);
	cr_assert_eq(weft_scope_spawn(&scope, stays, NULL, NULL), -ECANCELED);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), 0, "no error: they returned 0");
	cr_assert_eq(cancelled(), 1000, "those that had not run yet too");
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 0;
}

ON_WORKERS(a_cancel_reaches_a_thousand)

struct from_outside {
	struct weft_scope scope;
	wf_atomic_u32 is_open;
};

static int is_cancelled_from_outside(void *arg)
{
	struct from_outside *outside = arg;

	(void)opened(&outside->scope, 0, 0);
	children(&outside->scope, stays_calm, NULL, 100);
	wf_u32_store_release(&outside->is_open, 1);
	return weft_scope_close(&outside->scope);
}

Test(scope, a_foreign_thread_cancels, .timeout = TIMEOUT)
{
	static struct from_outside outside;
	weft_rt *rt = runtime_new(WORKERS);

	for (int i = 0; i < 20; i++) {
		weft_pid pid;
		int result = 1;

		wf_u32_store_relaxed(&outside.is_open, 0);
		cr_assert_eq(weft_rt_spawn(rt, is_cancelled_from_outside, &outside, NULL, &pid), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&outside.is_open));
		cr_assert_eq(weft_scope_cancel(&outside.scope), 0);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, 0);
		cr_assert_eq(cancelled(), 100 * (unsigned)(i + 1));
		/* Its owner is gone. */
		cr_assert_eq(weft_scope_cancel(&outside.scope), -ESRCH);
	}
	runtime_end(rt);
}

/* ---- The owner is cancelled ----------------------------------------------------------------- */

static int waits_and_closes(void *arg)
{
	struct weft_scope scope;
	weft_pid pid;

	(void)arg;
	(void)opened(&scope, 0, 0);
	pid = child(&scope, stays_calm, NULL);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(cancelled(), 0, "the wait has given up, the child has not");
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(weft_scope_close(&scope), 0);
	cr_assert_eq(cancelled(), 1);
	return 7;
}

static int closes(void *arg)
{
	struct weft_scope scope;

	(void)arg;
	(void)opened(&scope, 0, 0);
	children(&scope, stays_calm, NULL, 2);
	cr_assert_eq(weft_scope_close(&scope), 0);
	cr_assert_eq(cancelled(), 2);
	return 7;
}

static int body_a_cancelled_owner_still_closes(void *arg)
{
	weft_pid owner = spawned(waits_and_closes, NULL);

	(void)arg;
	UNTIL(begun() == 1);
	cr_assert_eq(weft_cancel(owner), 0);
	cr_assert_eq(joined(owner), 7);
	/* While it closes; and before it has begun. */
	setup();
	owner = spawned(closes, NULL);
	UNTIL(begun() == 2);
	cr_assert_eq(weft_cancel(owner), 0);
	cr_assert_eq(joined(owner), 7);
	setup();
	owner = spawned_with(closes, NULL, WEFT_SUSPENDED, 0);
	cr_assert_eq(weft_cancel(owner), 0);
	cr_assert_eq(joined(owner), 7);
	return 0;
}

ON_WORKERS(a_cancelled_owner_still_closes)

/* ---- Waiting -------------------------------------------------------------------------------- */

static int body_waits_end_as_asked(void *arg)
{
	struct weft_scope scope;
	weft_pid pid;

	(void)arg;
	(void)opened(&scope, 0, 0);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_POLL), 0, "there is none");
	pid = child(&scope, stays, NULL);
	cr_assert_eq(weft_scope_wait(&scope, weft_after(WEFT_MS(2))), -ETIME);
	cr_assert_eq(weft_scope_wait(&scope, 0), -ETIME);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_wake(pid), 0, "a child's id is as any other's");
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), 0);
	pid = child(&scope, stays, NULL);
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), 0, "again");
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 0;
}

ON_WORKERS(waits_end_as_asked)

static int is_not_the_owner(void *arg)
{
	struct weft_scope *scope = arg;
	struct weft_exit exit = {.size = sizeof exit};

	cr_assert_eq(weft_scope_spawn(scope, stays, NULL, NULL), -EPERM);
	cr_assert_eq(weft_scope_spawn_with(scope, stays, NULL, NULL, NULL), -EPERM);
	cr_assert_eq(weft_scope_wait(scope, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_scope_next(scope, &exit, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_scope_close(scope), -EPERM);
	return 0;
}

static void foreign_uses(unsigned index, void *scope)
{
	(void)index;
	(void)is_not_the_owner(scope);
}

static int body_a_scope_is_its_owners(void *arg)
{
	struct weft_scope scope;

	(void)arg;
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	(void)child(&scope, is_not_the_owner, &scope);
	cr_assert_eq(weft_scope_close(&scope), 0);
	cr_assert_eq(weft_scope_close(&scope), -EPERM, "twice");
	cr_assert_eq(weft_scope_spawn(&scope, stays, NULL, NULL), -EPERM);
	return 0;
}

ON_WORKERS(a_scope_is_its_owners)

Test(scope, outside_a_process_there_is_none, .timeout = TIMEOUT)
{
	static struct weft_scope scope;

	cr_assert_eq(weft_scope_open(&scope, NULL), -EPERM);
	harness_threads(1, foreign_uses, &scope);
}

static int body_a_child_is_its_scopes(void *arg)
{
	struct weft_scope scope;
	weft_pid pid;
	int result = 99;

	(void)arg;
	for (unsigned flags = 0; flags <= WEFT_SCOPE_COLLECT; flags++) {
		(void)opened(&scope, flags, 0);
		pid = child(&scope, stays, NULL);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -EBUSY);
		cr_assert_eq(weft_try_join(pid, &result), -EBUSY);
		cr_assert_eq(weft_detach(pid), -EBUSY);
		cr_assert_eq(weft_cancel(pid), 0);
		cr_assert_eq(weft_scope_close(&scope), -ECANCELED);
		cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -ESRCH);
		cr_assert_eq(weft_wake(pid), -ESRCH);
		cr_assert_eq(weft_cancel(pid), -ESRCH);
	}
	cr_assert_eq(result, 99);
	return 0;
}

ON_WORKERS(a_child_is_its_scopes)

static int body_wrong_options_are_refused(void *arg)
{
	struct weft_scope scope;
	struct weft_scope_opts opts = {.size = sizeof opts, .flags = 1u << 7};
	struct weft_spawn_opts with = {.size = sizeof with, .flags = WEFT_DETACHED};
	struct weft_exit exit = {.size = 0};

	(void)arg;
	cr_assert_eq(weft_scope_open(&scope, &opts), -EINVAL);
	opts = (struct weft_scope_opts){.size = 0};
	cr_assert_eq(weft_scope_open(&scope, &opts), -EINVAL);
	(void)opened(&scope, 0, 0);
	cr_assert_eq(weft_scope_spawn(&scope, NULL, NULL, NULL), -EINVAL);
	cr_assert_eq(weft_scope_spawn_with(&scope, stays, NULL, &with, NULL), -EINVAL);
	with.size = 0;
	cr_assert_eq(weft_scope_spawn_with(&scope, stays, NULL, &with, NULL), -EINVAL);
	cr_assert_eq(weft_scope_next(&scope, NULL, WEFT_POLL), -EINVAL, "it does not collect");
	cr_assert_eq(weft_scope_close(&scope), 0);
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_POLL), -EINVAL);
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 0;
}

ON_WORKERS(wrong_options_are_refused)

/* ---- Collecting ----------------------------------------------------------------------------- */

static int body_errors_are_collected(void *arg)
{
	struct weft_scope scope;
	struct weft_exit exit = {.size = sizeof exit};
	int values[10];
	unsigned seen = 0;
	weft_pid stayed;

	(void)arg;
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_FOREVER), -ENOENT);
	stayed = child(&scope, stays, NULL);
	for (int i = 0; i < 10; i++) {
		values[i] = i % 2 ? -100 - i : i;
		(void)child(&scope, returns, &values[i]);
	}
	for (int i = 0; i < 10; i++) {
		cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_FOREVER), 0);
		seen |= 1u << (exit.result < 0 ? -100 - exit.result : exit.result);
		cr_assert(!exit.failed);
		cr_assert_eq(weft_cancel(exit.pid), -ESRCH, "its id is unknown now");
	}
	cr_assert_eq(seen, 0x3ff);
	cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_scope_next(&scope, &exit, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(cancelled(), 0, "errors have cancelled nobody");
	cr_assert_eq(weft_wake(stayed), 0);
	cr_assert_eq(weft_scope_next(&scope, NULL, WEFT_FOREVER), 0);
	cr_assert_eq(weft_scope_next(&scope, NULL, WEFT_FOREVER), -ENOENT);
	cr_assert_lt(weft_scope_close(&scope), -100, "the first error, whichever came first");
	return 0;
}

ON_WORKERS(errors_are_collected)

static int body_children_are_handed_out_as_they_end(void *arg)
{
	struct weft_scope scope;
	struct weft_exit exit = {.size = sizeof exit};
	weft_pid pids[6];
	static const unsigned order[6] = {3, 0, 5, 1, 4, 2};

	(void)arg;
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	for (int i = 0; i < 6; i++)
		pids[i] = child(&scope, stays, NULL);
	/* One by one, waited for; then the rest at once. */
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(weft_wake(pids[order[i]]), 0);
		cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_FOREVER), 0);
		cr_assert(weft_pid_equal(exit.pid, pids[order[i]]));
	}
	for (int i = 3; i < 6; i++) {
		cr_assert_eq(weft_wake(pids[order[i]]), 0);
		/* Ended, and not taken: nobody else may have it either. */
		UNTIL(weft_scope_wait(&scope, WEFT_POLL) == 0 || weft_yield() != 0 ||
			weft_try_join(pids[order[i]], NULL) == -EBUSY);
	}
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), 0);
	for (int i = 3; i < 6; i++) {
		cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_POLL), 0);
		cr_assert_eq(exit.result, 0);
	}
	cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_POLL), -ENOENT);
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 0;
}

ON_WORKERS(children_are_handed_out_as_they_end)

static int body_an_exit_tells_of_its_process(void *arg)
{
	struct weft_scope scope;
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "carl"};
	struct {
		struct weft_exit exit;
		unsigned char beyond[8];
	} told;
	weft_pid pid;
	int five = 5;

	(void)arg;
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	cr_assert_eq(weft_scope_spawn_with(&scope, returns, &five, &opts, &pid), 0);
	memset(&told, 0xff, sizeof told);
	told.exit.size = sizeof told; /* a later release's */
	cr_assert_eq(weft_scope_next(&scope, &told.exit, WEFT_FOREVER), 0);
	cr_assert_eq(told.exit.size, sizeof told);
	cr_assert(weft_pid_equal(told.exit.pid, pid));
	cr_assert_eq(told.exit.result, 5);
	cr_assert_str_eq(told.exit.name, "carl");
	cr_assert_str_eq(told.exit.message, "");
	cr_assert_eq(told.beyond[0] | told.beyond[7], 0);
	/* What is not taken is dropped. */
	children(&scope, stays, NULL, 20);
	cr_assert_eq(weft_scope_cancel(&scope), 0);
	cr_assert_eq(weft_scope_close(&scope), -ECANCELED);
	return 0;
}

ON_WORKERS(an_exit_tells_of_its_process)

static int is_cancelled_in_next(void *arg)
{
	struct weft_scope scope;

	(void)arg;
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	children(&scope, stays_calm, NULL, 1);
	cr_assert_eq(weft_scope_next(&scope, NULL, WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 3;
}

static int body_next_hears_of_a_cancel(void *arg)
{
	weft_pid owner = spawned(is_cancelled_in_next, NULL);

	(void)arg;
	UNTIL(begun() == 1);
	cr_assert_eq(weft_cancel(owner), 0);
	cr_assert_eq(joined(owner), 3);
	return 0;
}

ON_WORKERS(next_hears_of_a_cancel)

/* ---- Deadlines ------------------------------------------------------------------------------ */

static int body_a_deadline_cancels_the_children(void *arg)
{
	struct weft_scope scope;
	weft_time begin = weft_now();

	(void)arg;
	(void)opened(&scope, 0, begin + WEFT_MS(5));
	children(&scope, stays, NULL, 30);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), -ETIME);
	cr_assert_geq(weft_now(), begin + WEFT_MS(5));
	cr_assert_eq(cancelled(), 30);
	cr_assert_eq(weft_scope_spawn(&scope, stays, NULL, NULL), -ECANCELED);
	cr_assert_eq(weft_scope_close(&scope), -ETIME);
	/* Also if the owner does something else. */
	setup();
	(void)opened(&scope, WEFT_SCOPE_COLLECT, weft_after(WEFT_MS(2)));
	children(&scope, stays, NULL, 3);
	UNTIL(cancelled() == 3);
	cr_assert_eq(weft_scope_close(&scope), -ETIME);
	/* Long past. */
	setup();
	(void)opened(&scope, 0, 1);
	(void)weft_scope_spawn(&scope, stays, NULL, NULL);
	cr_assert_lt(weft_scope_close(&scope), 1);
	return 0;
}

ON_WORKERS(a_deadline_cancels_the_children)

static int body_a_deadline_that_cancels_nobody_is_no_error(void *arg)
{
	struct weft_scope scope;

	(void)arg;
	/* Not reached: the scope is given up at once. */
	(void)opened(&scope, 0, weft_after(WEFT_SEC(1000)));
	children(&scope, yields, &(int){2}, 2);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), 0, "the watchdog is no child");
	cr_assert_eq(weft_scope_close(&scope), 0);
	/* Passed, with nobody alive. */
	(void)opened(&scope, 0, weft_after(WEFT_MS(1)));
	children(&scope, yields, &(int){0}, 1);
	if (weft_scope_wait(&scope, WEFT_FOREVER) < 0) { /* on a slow machine */
		cr_assert_eq(weft_scope_close(&scope), -ETIME);
		return 0;
	}
	cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(5))), 0);
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 0;
}

ON_WORKERS(a_deadline_that_cancels_nobody_is_no_error)

/* ---- Kinds of children ---------------------------------------------------------------------- */

static int body_children_may_be_of_any_kind(void *arg)
{
	static const unsigned flags[] = {
		0, WEFT_MOVABLE, WEFT_SUSPENDED, WEFT_STACK_NOW, WEFT_SUSPENDED | WEFT_MOVABLE};
	struct weft_scope scope;

	(void)arg;
	for (unsigned worker = 0; worker <= weft_rt_workers(weft_rt_current()); worker++) {
		setup();
		(void)opened(&scope, 0, 0);
		for (unsigned i = 0; i < 5; i++) {
			struct weft_spawn_opts opts = {
				.size = sizeof opts, .flags = flags[i], .worker = worker};

			cr_assert_eq(weft_scope_spawn_with(&scope, stays, NULL, &opts, NULL), 0);
		}
		UNTIL(begun() == 3);
		cr_assert_eq(weft_scope_cancel(&scope), 0);
		cr_assert_eq(weft_scope_close(&scope), -ECANCELED);
		cr_assert_eq(cancelled(), 5);
	}
	return 0;
}

ON_WORKERS(children_may_be_of_any_kind)

static int polled(void *arg)
{
	unsigned *polls = arg;

	if (++*polls == 3)
		return 3;
	return weft_wake(weft_self()) == 0 ? WEFT_PENDING : -ESRCH;
}

static int waits_as_a_task(void *arg)
{
	int r = weft_park(WEFT_FOREVER);

	(void)arg;
	if (r == -ECANCELED)
		count_one(&cancelled_count);
	return r;
}

static int body_children_may_be_tasks(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = WEFT_STACK_NOW};
	struct weft_exit exit = {.size = sizeof exit};
	struct weft_scope scope;
	unsigned polls[10] = {0};

	(void)arg;
	(void)opened(&scope, 0, 0);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(weft_scope_task(&scope, polled, &polls[i], NULL, NULL), 0);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), 0);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(polls[i], 3);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(weft_scope_task(&scope, waits_as_a_task, NULL, NULL, NULL), 0);
	cr_assert_eq(weft_scope_cancel(&scope), 0);
	cr_assert_eq(weft_scope_close(&scope), -ECANCELED);
	cr_assert_eq(cancelled(), 10);
	/* With options, and collected. */
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	cr_assert_eq(weft_scope_task(&scope, polled, &polls[0], &opts, NULL), -EINVAL);
	opts = (struct weft_spawn_opts){
		.size = sizeof opts, .name = "tess", .flags = WEFT_PINNED};
	polls[0] = 0;
	cr_assert_eq(weft_scope_task(&scope, polled, &polls[0], &opts, NULL), 0);
	cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_FOREVER), 0);
	cr_assert_eq(exit.result, 3);
	cr_assert_str_eq(exit.name, "tess");
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 0;
}

ON_WORKERS(children_may_be_tasks)

static void drops(void *arg)
{
	count_one(arg);
}

static int body_a_child_without_a_stack_is_an_error(void *arg)
{
	/* Larger than any address space has room for as often. */
	enum { HUGE = 1 << 30, COUNT = 200000 };
	static wf_atomic_u32 dropped;
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .stack_size = HUGE, .arg_dtor = drops};
	struct weft_scope scope;
	unsigned taken = 0;
	int r = 0;

	(void)arg;
	wf_u32_store_relaxed(&dropped, 0);
	(void)opened(&scope, 0, 0);
	while (r == 0 && taken < COUNT) {
		r = weft_scope_spawn_with(&scope, stays, &dropped, &opts, NULL);
		taken += r == 0;
		weft_yield();
	}
	cr_assert_eq(r, -ECANCELED);
	cr_assert_eq(weft_scope_close(&scope), -ENOMEM);
	cr_assert_eq(wf_u32_load_relaxed(&dropped), taken);
	return 0;
}

Test(scope, a_child_without_a_stack_is_an_error, .timeout = TIMEOUT)
{
	/* Sanitizers have little address space, and count it. */
	if (!HARNESS_ASAN && !HARNESS_TSAN && !HARNESS_VALGRIND)
		cr_assert_eq(in_runtime(1, body_a_child_without_a_stack_is_an_error, NULL), 0);
}

/* ---- Failure -------------------------------------------------------------------------------- */

static int fails_loudly(void *arg)
{
	(void)arg;
	weft_fail(-EPROTO, "as the test wants it");
}

static int body_a_child_that_fails_is_an_error(void *arg)
{
	struct weft_scope scope;
	struct weft_exit exit = {.size = sizeof exit};

	(void)arg;
	(void)opened(&scope, 0, 0);
	children(&scope, stays, NULL, 10);
	(void)child(&scope, fails_loudly, NULL);
	cr_assert_eq(weft_scope_close(&scope), -EPROTO);
	cr_assert_eq(cancelled(), 10);
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	(void)child(&scope, fails_loudly, NULL);
	cr_assert_eq(weft_scope_next(&scope, &exit, WEFT_FOREVER), 0);
	cr_assert_eq(exit.result, -EPROTO);
	cr_assert(exit.failed);
	cr_assert_str_eq(exit.message, "as the test wants it");
	cr_assert_eq(weft_scope_close(&scope), -EPROTO);
	return 0;
}

ON_WORKERS(a_child_that_fails_is_an_error)

static void all_have_ended(void *scope)
{
	cr_assert_eq(cancelled(), 4);
	cr_assert_eq(weft_scope_close(scope), -EPERM, "it is closed already");
	count_one(&begun_count);
}

static int fails_with_open_scopes(void *arg)
{
	struct weft_scope outer, inner, dated;
	struct weft_deferred defer;

	(void)arg;
	(void)opened(&outer, 0, 0);
	cr_assert_eq(weft_defer(&defer, all_have_ended, &inner), 0);
	(void)opened(&inner, WEFT_SCOPE_COLLECT, 0);
	(void)opened(&dated, 0, weft_after(WEFT_SEC(1000)));
	children(&inner, stays, NULL, 2);
	children(&dated, stays, NULL, 2);
	UNTIL(begun() == 4);
	weft_fail(-EPROTO, NULL);
}

/* P13: the children of a process that fails do not outlive it. */
static int body_a_failure_closes_open_scopes(void *arg)
{
	weft_pid owner = spawned(fails_with_open_scopes, NULL);

	(void)arg;
	cr_assert_eq(joined(owner), -EPROTO);
	cr_assert_eq(cancelled(), 4);
	cr_assert_eq(begun(), 5, "the cleanup was called");
	return 0;
}

ON_WORKERS(a_failure_closes_open_scopes)

/* ---- Stop ----------------------------------------------------------------------------------- */

static int goes_on_in_a_stop(void *arg)
{
	struct weft_scope scope, late;
	struct weft_scope_opts opts = {.size = sizeof opts, .deadline = weft_after(WEFT_SEC(1))};

	(void)arg;
	(void)opened(&scope, 0, weft_after(WEFT_SEC(1000)));
	children(&scope, stays_calm, NULL, 5);
	cr_assert_eq(weft_scope_wait(&scope, WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(weft_scope_spawn(&scope, stays, NULL, NULL), -ESHUTDOWN);
	cr_assert_eq(weft_scope_open(&late, &opts), -ESHUTDOWN, "for want of its watchdog");
	cr_assert_eq(weft_scope_open(&late, NULL), 0);
	cr_assert_eq(weft_scope_spawn(&late, stays, NULL, NULL), -ESHUTDOWN);
	cr_assert_eq(weft_scope_close(&late), 0);
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 5;
}

Test(scope, a_stop_ends_them, .timeout = TIMEOUT)
{
	weft_rt *rt = runtime_new(WORKERS);
	weft_pid pid;
	int result;

	setup();
	cr_assert_eq(weft_rt_spawn(rt, goes_on_in_a_stop, NULL, NULL, &pid), 0);
	UNTIL_FOREIGN(begun() == 5);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), 0);
	cr_assert_eq(result, 5);
	cr_assert_eq(cancelled(), 5);
	runtime_end(rt);
}

/* ---- Trees ---------------------------------------------------------------------------------- */

struct branch {
	unsigned depth;
	unsigned leaves;
};

static int branch(void *arg)
{
	struct branch *self = arg;
	struct branch left = {self->depth - 1, 0}, right = left;
	struct weft_scope scope;

	if (self->depth == 0) {
		self->leaves = 1;
		return 0;
	}
	(void)opened(&scope, 0, 0);
	(void)child(&scope, branch, &left);
	(void)child(&scope, branch, &right);
	cr_assert_eq(weft_scope_close(&scope), 0);
	self->leaves = left.leaves + right.leaves;
	return 0;
}

/* Depth first: a tree of a hundred thousand has few stacks in use at a time. */
Test(scope, trees_need_few_stacks, .timeout = TIMEOUT)
{
	enum { DEPTH = HARNESS_SLOWDOWN > 1 ? 11 : 16, POOLED = 128 };
	struct wf_stack_stats stats;

	for (unsigned workers = 1; workers <= WORKERS; workers++) {
		struct branch root = {DEPTH, 0};
		weft_rt *rt = runtime_new(workers);

		cr_assert_eq(runtime_do(rt, branch, &root), 0);
		cr_assert_eq(root.leaves, 1u << DEPTH);
		wf_stack_depot_stats(rt->depot, &stats);
		if ((int)WF_CHILDREN_MAX >= (int)DEPTH) /* else some go to the ring */
			cr_assert_leq(stats.opened, workers * (POOLED + 4 * DEPTH), "%zu",
				stats.opened);
		runtime_end(rt);
	}
}

/* Fails at one leaf: every scope above it does. */
static int broken_branch(void *arg)
{
	unsigned depth = *(unsigned *)arg, below = depth - 1;
	struct weft_scope scope;

	if (depth == 0)
		return -EIO;
	(void)opened(&scope, 0, 0);
	(void)child(&scope, stays, NULL);
	(void)child(&scope, broken_branch, &below);
	return weft_scope_close(&scope);
}

static int body_an_error_comes_up_through_all_scopes(void *arg)
{
	(void)arg;
	cr_assert_eq(broken_branch(&(unsigned){10}), -EIO);
	cr_assert_eq(cancelled(), 10);
	return 0;
}

ON_WORKERS(an_error_comes_up_through_all_scopes)

static wf_atomic_u32 tree_done, successors, turns;

static int succeeds(void *arg)
{
	(void)arg;
	count_one(&successors);
	if (wf_u32_load_relaxed(&tree_done))
		return 0;
	return weft_spawn(succeeds, NULL, NULL);
}

static int turns_round(void *arg)
{
	(void)arg;
	while (!wf_u32_load_relaxed(&tree_done)) {
		count_one(&turns);
		weft_yield();
	}
	return 0;
}

static int shares_its_worker(void *arg)
{
	enum { DEPTH = 9 };
	struct branch root = {DEPTH, 0};
	weft_pid turning = spawned(turns_round, NULL);

	(void)arg;
	(void)spawned_with(succeeds, NULL, WEFT_DETACHED, 0);
	UNTIL(wf_u32_load_relaxed(&successors) > 0 && wf_u32_load_relaxed(&turns) > 0);
	cr_assert_eq(branch(&root), 0);
	wf_u32_store_relaxed(&tree_done, 1);
	cr_assert_eq(root.leaves, 1u << DEPTH);
	/*
	 * While a thousand children ran. A process that yields has a turn of the loop: less often.
	 */
	cr_assert_gt(wf_u32_load_relaxed(&successors),
		1u << (DEPTH - (WF_BUDGET > 1 ? 2 : 5)));
	cr_assert_gt(wf_u32_load_relaxed(&turns), WF_BUDGET <= 128 ? 4 : 1);
	cr_assert_eq(joined(turning), 0);
	return 0;
}

/* As S15: what is in the ring, on the list, and children of scopes. */
Test(scope, children_list_and_ring_share_a_worker, .timeout = TIMEOUT)
{
	if (!WF_RUN_ORDER_FIFO)
		return; /* endless successors keep the older ones from running */
	cr_assert_eq(in_runtime(1, shares_its_worker, NULL), 0);
}

/* Blocks its worker until the other runs too. */
static int waits_for_the_other(void *arg)
{
	wf_atomic_u32 *both = arg;

	count_one(both);
	UNTIL_FOREIGN(wf_u32_load_relaxed(both) == 2);
	return 0;
}

static int two_block_each_other(void *arg)
{
	struct weft_scope scope;
	wf_atomic_u32 both;

	(void)arg;
	for (int i = 0; i < 100; i++) {
		wf_u32_store_relaxed(&both, 0);
		(void)opened(&scope, 0, 0);
		(void)child(&scope, waits_for_the_other, &both);
		(void)child(&scope, waits_for_the_other, &both);
		cr_assert_eq(weft_scope_close(&scope), 0);
	}
	return 0;
}

static int nothing(void *arg)
{
	(void)arg;
	return 0;
}

/*
 * Nobody promises that a worker is awake while another one, in the middle of a turn, queues
 * something: so something is injected all the time.
 */
Test(scope, idle_workers_take_children, .timeout = TIMEOUT)
{
	weft_rt *rt = runtime_new(2);
	weft_pid pid;
	int result = 1, r;

	cr_assert_eq(weft_rt_spawn(rt, two_block_each_other, NULL, NULL, &pid), 0);
	while ((r = weft_try_join(pid, &result)) == -EAGAIN) {
		r = weft_rt_spawn(rt, nothing, NULL, NULL, NULL);
		cr_assert(r == 0 || r == -EAGAIN);
		sched_yield();
	}
	cr_assert_eq(r, 0);
	cr_assert_eq(result, 0);
	runtime_end(rt);
}

/* ---- Owners that are tasks ------------------------------------------------------------------ */

/* What a task keeps from poll to poll. */
struct owner {
	struct weft_scope scope, second;
	unsigned step;
	unsigned polls;
	unsigned taken;
	unsigned failing; /* ends by weft_fail() */
	weft_time deadline;
	wf_atomic_u32 ended;
};

static int is_counted(void *arg)
{
	struct owner *owner = arg;

	(void)weft_yield();
	count_one(&owner->ended);
	return 0;
}

static int is_counted_as_a_task(void *arg)
{
	struct owner *owner = arg;

	if (weft_yield() == WEFT_PENDING)
		return WEFT_PENDING;
	count_one(&owner->ended);
	return 0;
}

static unsigned ended(struct owner *owner)
{
	return wf_u32_load_relaxed(&owner->ended);
}

/* Runs a task as a child of another scope, and of none; movable, and not. Its result. */
static void as_a_task(weft_task_fn fn, int result)
{
	static const unsigned flags[] = {0, WEFT_PINNED};

	for (int i = 0; i < 4; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags[i % 2]};
		struct owner owner = {.step = 0};
		struct weft_scope scope;
		weft_pid pid;

		setup();
		if (i < 2) {
			cr_assert_eq(weft_task_spawn(fn, &owner, &opts, &pid), 0);
			cr_assert_eq(joined(pid), result);
		} else {
			(void)opened(&scope, 0, 0);
			cr_assert_eq(weft_scope_task(&scope, fn, &owner, &opts, NULL), 0);
			cr_assert_eq(weft_scope_close(&scope), result < 0 ? result : 0);
		}
	}
}

static void counted_children(struct owner *owner, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (i % 2)
			cr_assert_eq(weft_scope_task(&owner->scope, is_counted_as_a_task, owner,
					     NULL, NULL), 0);
		else
			(void)child(&owner->scope, is_counted, owner);
}

static int waits_twice_and_closes(void *state)
{
	struct owner *owner = state;
	int r;

	switch (owner->step) {
	case 0:
		(void)opened(&owner->scope, 0, 0);
		cr_assert_eq(weft_scope_wait(&owner->scope, WEFT_FOREVER), 0, "there is none");
		counted_children(owner, 20);
		cr_assert_eq(weft_scope_wait(&owner->scope, WEFT_POLL), -EAGAIN);
		owner->step++;
		__attribute__((fallthrough));
	case 1:
		r = weft_scope_wait(&owner->scope, WEFT_FOREVER);
		if (r == WEFT_PENDING)
			return r;
		cr_assert_eq(r, 0);
		cr_assert_eq(ended(owner), 20);
		counted_children(owner, 200);
		owner->step++;
		__attribute__((fallthrough));
	case 2:
		r = weft_scope_wait(&owner->scope, weft_after(WEFT_SEC(100)));
		if (r == WEFT_PENDING)
			return r;
		cr_assert_eq(r, 0);
		cr_assert_eq(ended(owner), 220);
		counted_children(owner, 3);
		owner->step++;
		__attribute__((fallthrough));
	default:
		r = weft_scope_close(&owner->scope);
		if (r == WEFT_PENDING)
			return r;
		cr_assert_eq(ended(owner), 223);
		cr_assert_eq(weft_scope_close(&owner->scope), -EPERM, "twice");
		return r;
	}
}

static int body_a_task_waits_for_its_children(void *arg)
{
	(void)arg;
	as_a_task(waits_twice_and_closes, 0);
	return 0;
}

ON_WORKERS(a_task_waits_for_its_children)

/* Between two takes it spawns another one, for a while. */
static int collects_as_a_task(void *state)
{
	enum { AT_ONCE = 10, ALL = 100 };
	struct owner *owner = state;
	struct weft_exit exit = {.size = sizeof exit};
	int r;

	if (owner->step++ == 0) {
		(void)opened(&owner->scope, WEFT_SCOPE_COLLECT, 0);
		cr_assert_eq(weft_scope_next(&owner->scope, &exit, WEFT_POLL), -ENOENT);
		counted_children(owner, AT_ONCE);
	}
	while ((r = weft_scope_next(&owner->scope, &exit, WEFT_FOREVER)) == 0) {
		cr_assert_eq(exit.result, 0);
		cr_assert_geq(ended(owner), ++owner->taken);
		if (owner->taken <= ALL - AT_ONCE)
			counted_children(owner, 1);
	}
	if (r == WEFT_PENDING)
		return r;
	cr_assert_eq(r, -ENOENT);
	cr_assert_eq(owner->taken, ALL);
	return weft_scope_close(&owner->scope);
}

static int body_a_task_takes_its_children(void *arg)
{
	(void)arg;
	as_a_task(collects_as_a_task, 0);
	return 0;
}

ON_WORKERS(a_task_takes_its_children)

/* Not one of them is taken. */
static int closes_a_full_set(void *state)
{
	struct owner *owner = state;

	if (owner->step++ == 0) {
		(void)opened(&owner->scope, WEFT_SCOPE_COLLECT, 0);
		counted_children(owner, 70);
	}
	return weft_scope_close(&owner->scope);
}

static int body_a_task_need_not_take_them(void *arg)
{
	(void)arg;
	as_a_task(closes_a_full_set, 0);
	return 0;
}

ON_WORKERS(a_task_need_not_take_them)

static int says_eio(void *arg)
{
	(void)arg;
	return -EIO;
}

static int has_a_child_that_errs(void *state)
{
	struct owner *owner = state;
	int r;

	if (owner->step++ == 0) {
		(void)opened(&owner->scope, 0, 0);
		children(&owner->scope, stays, NULL, 5);
		(void)child(&owner->scope, says_eio, NULL);
	}
	r = weft_scope_close(&owner->scope);
	cr_assert(r == WEFT_PENDING || cancelled() == 5);
	return r;
}

static int body_a_tasks_children_err(void *arg)
{
	(void)arg;
	as_a_task(has_a_child_that_errs, -EIO);
	return 0;
}

ON_WORKERS(a_tasks_children_err)

/* Its wait ends at a deadline, then by the cancel; its close passes that on. */
static int gives_up_waiting(void *state)
{
	struct owner *owner = state;
	int r;

	switch (owner->step) {
	case 0:
		(void)opened(&owner->scope, 0, 0);
		children(&owner->scope, stays, NULL, 3);
		owner->deadline = weft_after(WEFT_MS(2));
		owner->step++;
		__attribute__((fallthrough));
	case 1:
		r = weft_scope_wait(&owner->scope, owner->deadline);
		if (r == WEFT_PENDING)
			return r;
		cr_assert_eq(r, -ETIME);
		owner->step++;
		__attribute__((fallthrough));
	case 2:
		r = weft_scope_wait(&owner->scope, WEFT_FOREVER);
		if (r == WEFT_PENDING)
			return r;
		cr_assert_eq(r, -ECANCELED);
		cr_assert_eq(cancelled(), 0, "only the owner was");
		owner->step++;
		__attribute__((fallthrough));
	default:
		r = weft_scope_close(&owner->scope);
		cr_assert(r == WEFT_PENDING || cancelled() == 3);
		return r;
	}
}

static int body_a_tasks_wait_gives_up(void *arg)
{
	struct owner owner = {.step = 0};
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_task_spawn(gives_up_waiting, &owner, NULL, &pid), 0);
	UNTIL(begun() == 3);
	cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(4))), 0);
	cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	return 0;
}

ON_WORKERS(a_tasks_wait_gives_up)

static int has_deadlines(void *state)
{
	struct owner *owner = state;
	int r;

	if (owner->step == 0) {
		(void)opened(&owner->scope, 0, weft_after(WEFT_MS(1)));
		(void)opened(&owner->second, 0, weft_after(WEFT_SEC(1000)));
		children(&owner->scope, stays, NULL, 3);
		owner->step++;
	}
	if (owner->step == 1) {
		r = weft_scope_close(&owner->scope); /* not the newest */
		if (r == WEFT_PENDING)
			return r;
		cr_assert_eq(r, -ETIME);
		cr_assert_eq(cancelled(), 3);
		owner->step++;
	}
	return weft_scope_close(&owner->second);
}

static int body_a_tasks_scope_has_a_deadline(void *arg)
{
	(void)arg;
	as_a_task(has_deadlines, 0);
	return 0;
}

ON_WORKERS(a_tasks_scope_has_a_deadline)

/* It ends with two scopes open. */
static int ends_too_early(void *state)
{
	struct owner *owner = state;

	cr_assert_eq(owner->polls++, 0, "it has ended");
	(void)opened(&owner->scope, 0, 0);
	children(&owner->scope, stays, NULL, 3);
	(void)opened(&owner->second, WEFT_SCOPE_COLLECT, weft_after(WEFT_SEC(1000)));
	children(&owner->second, stays, NULL, 2);
	(void)weft_park(weft_after(WEFT_MS(1)));
	if (owner->failing)
		weft_fail(-EPROTO, "with scopes open");
	return 11;
}

/* Also the deferred call, and arg_dtor. */
static void opens_too_late(void *arg)
{
	struct owner *owner = arg;

	cr_assert_eq(cancelled(), 5);
	cr_assert_eq(weft_scope_close(&owner->scope), -EPERM);
	cr_assert_eq(weft_scope_open(&owner->scope, NULL), -EPERM);
	count_one(&owner->ended);
}

static int defers_and_ends_too_early(void *state)
{
	static struct weft_deferred defer[2];
	struct owner *owner = state;

	cr_assert_eq(weft_defer(&defer[owner->failing], opens_too_late, owner), 0);
	return ends_too_early(state);
}

static void end_too_early(unsigned failing, bool cancel)
{
	struct owner owner = {.failing = failing};
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = opens_too_late};
	struct weft_exit exit = {.size = sizeof exit};
	weft_pid pid;

	setup();
	cr_assert_eq(weft_task_spawn(ends_too_early, &owner, NULL, &pid), 0);
	if (cancel)
		cr_assert_eq(weft_cancel(pid), 0);
	cr_assert_eq(weft_join_exit(pid, &exit, WEFT_FOREVER), 0);
	cr_assert_eq(exit.result, failing ? -EPROTO : 11);
	cr_assert_eq(exit.failed, failing);
	cr_assert_str_eq(exit.message, failing ? "with scopes open" : "");
	cr_assert_eq(cancelled(), 5);
	/* What an end does comes after its children's. */
	setup();
	owner.polls = 0;
	cr_assert_eq(weft_task_spawn(defers_and_ends_too_early, &owner, &opts, &pid), 0);
	cr_assert_eq(weft_join_exit(pid, &exit, WEFT_FOREVER), 0);
	cr_assert_eq(exit.result, failing ? -EPROTO : 11);
	cr_assert_eq(ended(&owner), 2);
}

static int body_a_task_ends_when_its_scopes_have(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++)
		end_too_early(i & 1, i & 2);
	as_a_task(ends_too_early, 11);
	return 0;
}

ON_WORKERS(a_task_ends_when_its_scopes_have)

/* In the worker's frames, a heap's memory it is not. */
static int opens_on_the_stack(void *arg)
{
	struct weft_scope scope;

	(void)arg;
	return weft_scope_open(&scope, NULL);
}

static int body_a_tasks_scope_is_not_on_the_stack(void *arg)
{
	(void)arg;
	as_a_task(opens_on_the_stack, -EINVAL);
	return 0;
}

ON_WORKERS(a_tasks_scope_is_not_on_the_stack)

/* A tree of tasks, their memory in an array: the children of i are 2i + 1 and 2i + 2. */
enum { TREE_DEPTH = 12, TREE_NODES = (2 << TREE_DEPTH) - 1 };

static struct tree_node {
	struct weft_scope scope;
	bool open;
	unsigned leaves;
} tree_nodes[TREE_NODES];

static int grows(void *state)
{
	struct tree_node *node = state;
	size_t left = 2 * (size_t)(node - tree_nodes) + 1;
	int r;

	if (left >= TREE_NODES) {
		node->leaves = 1;
		return 0;
	}
	if (!node->open) {
		(void)opened(&node->scope, 0, 0);
		node->open = true;
		for (size_t i = left; i < left + 2; i++)
			cr_assert_eq(weft_scope_task(&node->scope, grows, &tree_nodes[i], NULL,
					     NULL), 0);
	}
	r = weft_scope_close(&node->scope);
	if (r == WEFT_PENDING)
		return r;
	node->leaves = tree_nodes[left].leaves + tree_nodes[left + 1].leaves;
	return r;
}

static int body_tasks_make_a_tree(void *arg)
{
	weft_pid pid;

	(void)arg;
	memset(tree_nodes, 0, sizeof tree_nodes);
	cr_assert_eq(weft_task_spawn(grows, &tree_nodes[0], NULL, &pid), 0);
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(tree_nodes[0].leaves, 1u << TREE_DEPTH);
	return 0;
}

ON_WORKERS(tasks_make_a_tree)

static int is_nothing(void *state)
{
	(void)state;
	return 0;
}

/* A scope, used for ever: child, wait, child, wait. */
static int goes_on_until_done(void *state)
{
	struct owner *owner = state;
	int r;

	if (owner->step++ == 0)
		(void)opened(&owner->scope, 0, 0);
	r = weft_scope_wait(&owner->scope, WEFT_FOREVER);
	if (r == 0 && !wf_u32_load_relaxed(&tree_done)) {
		cr_assert_eq(weft_scope_task(&owner->scope, is_nothing, NULL, NULL, NULL), 0);
		r = weft_scope_wait(&owner->scope, WEFT_FOREVER);
	}
	if (r == WEFT_PENDING)
		return r;
	return weft_scope_close(&owner->scope);
}

static int others_have_their_turn(void *arg)
{
	struct owner owner = {.step = 0};
	weft_pid turning, going;

	(void)arg;
	wf_u32_store_relaxed(&tree_done, 0);
	wf_u32_store_relaxed(&turns, 0);
	wf_u32_store_relaxed(&successors, 0);
	turning = spawned(turns_round, NULL);
	(void)spawned_with(succeeds, NULL, WEFT_DETACHED, 0);
	cr_assert_eq(weft_task_spawn(goes_on_until_done, &owner, NULL, &going), 0);
	UNTIL(wf_u32_load_relaxed(&successors) > 1000 && wf_u32_load_relaxed(&turns) > 10
		&& owner.step > 1000);
	wf_u32_store_relaxed(&tree_done, 1);
	cr_assert_eq(joined(turning), 0);
	cr_assert_eq(joined(going), 0);
	return 0;
}

/* A task that is handed the worker by each child's end does not keep it. */
Test(scope, a_task_and_its_children_share_a_worker, .timeout = TIMEOUT)
{
	if (!WF_RUN_ORDER_FIFO)
		return; /* as above */
	cr_assert_eq(in_runtime(1, others_have_their_turn, NULL), 0);
}

/* ---- Memory --------------------------------------------------------------------------------- */

static int body_a_long_life_needs_no_more_memory(void *arg)
{
	enum { ROUNDS = 2000, AT_ONCE = 5 };
	struct weft_scope scope;
	const struct wf_scope *inside = (const void *)&scope;
	int zero = 0;

	(void)arg;
	(void)opened(&scope, WEFT_SCOPE_COLLECT, 0);
	for (int i = 0; i < ROUNDS; i++) {
		children(&scope, returns, &zero, AT_ONCE);
		for (int j = 0; j < AT_ONCE; j++)
			cr_assert_eq(weft_scope_next(&scope, NULL, WEFT_FOREVER), 0);
	}
	/* The ids of those that have ended are forgotten. */
	cr_assert_leq(inside->capacity, WF_SCOPE_INLINE + WF_SCOPE_CHUNK_MIN);
	cr_assert_eq(weft_scope_close(&scope), 0);
	return 0;
}

ON_WORKERS(a_long_life_needs_no_more_memory)
