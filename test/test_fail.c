/*
 * Goal: what <weft/fail.h> promises of cleanups, failure and shields, and of what a join is told.
 * Method: each process writes a letter into a line of text where it comes by; small runtimes, one
 * worker where the order matters. Every way a process can end is in test_life.c.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "test/runtime.h"

/* What happened, in order. */
struct story {
	char text[64];
	size_t length;
	struct weft_deferred defers[8];
	weft_pid pid;
	int results[4];
	const char *frame;
};

static void tell(struct story *story, char letter)
{
	cr_assert_lt(story->length, sizeof story->text - 1);
	story->text[story->length++] = letter;
}

static void tell_a(void *story)
{
	tell(story, 'a');
}

static void tell_b(void *story)
{
	tell(story, 'b');
}

static void tell_c(void *story)
{
	tell(story, 'c');
}

static void tell_dropped(void *story)
{
	tell(story, '.');
}

static void defer(struct story *story, unsigned n, void (*fn)(void *arg))
{
	cr_assert_eq(weft_defer(&story->defers[n], fn, story), 0);
}

static void defer_abc(struct story *story)
{
	defer(story, 0, tell_a);
	defer(story, 1, tell_b);
	defer(story, 2, tell_c);
}

/* Runs fn(story) as a named process of one worker, and says how it ended. */
static struct weft_exit lived(weft_fn fn, struct story *story, unsigned flags)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .name = "hero", .flags = flags, .arg_dtor = tell_dropped};
	struct weft_exit told = {.size = sizeof told};
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(weft_rt_spawn(rt, fn, story, &opts, &story->pid), 0);
	cr_assert_eq(weft_join_exit(story->pid, &told, WEFT_FOREVER), 0);
	cr_assert(weft_pid_equal(told.pid, story->pid));
	cr_assert_str_eq(told.name, "hero");
	runtime_end(rt);
	return told;
}

/* ---- Cleanups ------------------------------------------------------------------------------- */

static int defers_three(void *arg)
{
	defer_abc(arg);
	tell(arg, '!');
	return 7;
}

Test(fail, cleanups_run_in_reverse_before_the_argument_is_dropped, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		struct story story = {0};
		struct weft_exit told = lived(defers_three, &story, flags);

		cr_assert_str_eq(story.text, "!cba.");
		cr_assert_eq(told.result, 7);
		cr_assert(!told.failed);
		cr_assert_str_eq(told.message, "");
	}
}

static int takes_out(void *arg)
{
	struct story *story = arg;
	struct weft_deferred never = {0};

	defer_abc(story);
	cr_assert_eq(weft_defer_run(&story->defers[1]), 0, "from the middle");
	cr_assert_eq(weft_defer_run(&story->defers[1]), -EINVAL, "twice");
	cr_assert_eq(weft_defer_drop(&story->defers[2]), 0);
	cr_assert_eq(weft_defer_drop(&story->defers[2]), -EINVAL);
	cr_assert_eq(weft_defer_run(&never), -EINVAL);
	cr_assert_eq(weft_defer(&never, NULL, NULL), -EINVAL);
	defer(story, 2, tell_c); /* the record again, last */
	return 0;
}

Test(fail, a_record_can_be_run_or_dropped_before_the_end, .timeout = 120)
{
	struct story story = {0};

	lived(takes_out, &story, 0);
	cr_assert_str_eq(story.text, "bca.");
}

static int takes_out_of_another(void *arg)
{
	struct story *story = arg;

	cr_assert_eq(weft_defer_run(&story->defers[0]), -EINVAL);
	return weft_defer_drop(&story->defers[0]);
}

static int is_robbed(void *arg)
{
	defer(arg, 0, tell_a);
	cr_assert_eq(joined(spawned(takes_out_of_another, arg)), -EINVAL);
	return 0;
}

static void try_outside(void *arg)
{
	struct story *story = arg;

	story->results[0] = weft_defer(&story->defers[0], tell_a, story);
	story->results[1] = weft_defer_run(&story->defers[0]);
	story->results[2] = weft_defer_drop(&story->defers[0]);
	story->results[3] = weft_shield_begin();
	for (int i = 0; i < 4; i++)
		cr_assert_eq(story->results[i], -EPERM);
	cr_assert_eq(weft_shield_end(), -EPERM);
}

Test(fail, cleanups_and_shields_are_a_processs_own, .timeout = 120)
{
	struct story story = {0};
	weft_rt *rt;

	lived(is_robbed, &story, 0);
	cr_assert_str_eq(story.text, "a.");
	try_outside(&story);
	rt = runtime_new(1);
	cr_assert_eq(weft_post(rt, try_outside, &story), 0);
	runtime_end(rt);
	cr_assert_str_eq(story.text, "a.");
}

static void defers_b_and_c(void *arg)
{
	struct story *story = arg;

	tell(story, 'x');
	defer(story, 1, tell_b);
	defer(story, 2, tell_c);
}

static int defers_a_deferrer(void *arg)
{
	defer(arg, 0, tell_a);
	defer(arg, 3, defers_b_and_c);
	return 0;
}

Test(fail, a_cleanup_may_defer, .timeout = 120)
{
	struct story story = {0};

	lived(defers_a_deferrer, &story, 0);
	cr_assert_str_eq(story.text, "xcba.");
}

/* Parks, cancelled: once without and once with a shield. */
static void parks_cancelled(void *arg)
{
	struct story *story = arg;
	weft_time until = weft_after(WEFT_US(200));

	cr_assert_eq(weft_cancel(weft_self()), 0);
	cr_assert_eq(weft_sleep_until(until), -ECANCELED);
	cr_assert_eq(weft_shield_begin(), 0);
	cr_assert_eq(weft_sleep_until(until), 0);
	cr_assert_geq(weft_now(), until);
	cr_assert_eq(weft_shield_end(), 0);
	cr_assert_eq(weft_yield(), -ECANCELED);
	tell(story, 'p');
}

static int parks_at_its_end(void *arg)
{
	defer(arg, 0, tell_a);
	defer(arg, 1, parks_cancelled);
	return 0;
}

Test(fail, a_cleanup_may_park_and_be_cancelled, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		struct story story = {0};

		lived(parks_at_its_end, &story, flags);
		cr_assert_str_eq(story.text, "pa.");
	}
}

/* One ends after the other on one stack (D2 of core/README.md), each with a list of its own. */
static int spawns_many(void *arg)
{
	static struct story stories[200];
	weft_pid pids[WF_ARRAY_COUNT(stories)];

	(void)arg;
	memset(stories, 0, sizeof stories);
	for (size_t i = 0; i < WF_ARRAY_COUNT(stories); i++)
		pids[i] = spawned(defers_three, &stories[i]);
	for (size_t i = 0; i < WF_ARRAY_COUNT(stories); i++) {
		cr_assert_eq(joined(pids[i]), 7);
		cr_assert_str_eq(stories[i].text, "!cba");
	}
	return 0;
}

Test(fail, processes_in_turn_have_lists_of_their_own, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, spawns_many, NULL), 0);
	cr_assert_eq(in_runtime(2, spawns_many, NULL), 0);
}

static int leaves_one_on_its_stack(void *arg)
{
	struct weft_deferred mine;

	return weft_defer(&mine, tell_a, arg);
}

Test(fail, a_record_in_a_frame_that_is_gone_ends_the_program, .timeout = 120, .signal = SIGABRT)
{
	struct story story = {0};

	lived(leaves_one_on_its_stack, &story, 0);
}

/* P12: the body always runs, so what it defers is never left out. */
static int defers_and_parks(void *arg)
{
	defer(arg, 0, tell_a);
	return weft_park(WEFT_FOREVER);
}

Test(fail, stopped_before_the_first_run_it_still_cleans_up, .timeout = 120)
{
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .flags = WEFT_SUSPENDED, .arg_dtor = tell_dropped};
	struct story stopped = {0}, refused = {0};
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(weft_rt_spawn(rt, defers_and_parks, &stopped, &opts, NULL), 0);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(weft_rt_spawn(rt, defers_and_parks, &refused, &opts, NULL), -ESHUTDOWN);
	runtime_end(rt);
	cr_assert_str_eq(stopped.text, "a.");
	cr_assert_str_eq(refused.text, "");
}

/* ---- Failure -------------------------------------------------------------------------------- */

WF_NOINLINE static void fails_deep_down(struct story *story, unsigned depth)
{
	struct weft_deferred mine;

	cr_assert_eq(weft_defer(&mine, depth % 2 ? tell_a : tell_b, story), 0);
	if (depth > 0)
		fails_deep_down(story, depth - 1);
	if (story->length == 0) /* always; the compiler complains of what never returns */
		weft_fail(-EPROTO, "at depth %u of %s", depth, "four");
}

static int fails_in_frames(void *arg)
{
	defer(arg, 0, tell_c);
	fails_deep_down(arg, 3);
	return 1;
}

Test(fail, runs_the_cleanups_of_frames_that_are_active, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		struct story story = {0};
		struct weft_exit told = lived(fails_in_frames, &story, flags);

		cr_assert_str_eq(story.text, "babac.");
		cr_assert_eq(told.result, -EPROTO);
		cr_assert(told.failed);
		cr_assert_str_eq(told.message, "at depth 0 of four");
	}
}

static int fails_at_once(void *arg)
{
	weft_fail(*(int *)arg, NULL);
}

static int watches_others_fail(void *arg)
{
	int codes[] = {-EIO, 0, 5, INT32_MIN}, expected[] = {-EIO, -EINVAL, -EINVAL, INT32_MIN};

	(void)arg;
	for (unsigned i = 0; i < 100 * WF_ARRAY_COUNT(codes); i++) {
		unsigned n = i % WF_ARRAY_COUNT(codes);

		cr_assert_eq(joined(spawned(fails_at_once, &codes[n])), expected[n]);
	}
	return 3;
}

Test(fail, ends_that_process_and_no_other, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, watches_others_fail, NULL), 3);
	cr_assert_eq(in_runtime(2, watches_others_fail, NULL), 3);
}

static void fails_first(void *arg)
{
	tell(arg, 'f');
	weft_fail(-EIO, "first");
}

/* Defers, on its own stack, and fails. */
static void fails_second(void *arg)
{
	struct weft_deferred mine;

	tell(arg, 's');
	cr_assert_eq(weft_defer(&mine, tell_c, arg), 0);
	weft_fail(-EPIPE, "second");
}

static int returns_into_failures(void *arg)
{
	defer(arg, 0, tell_a);
	defer(arg, 1, fails_second);
	defer(arg, 2, tell_b);
	defer(arg, 3, fails_first);
	return 9;
}

static int fails_into_failures(void *arg)
{
	defer(arg, 0, tell_a);
	defer(arg, 1, fails_second);
	defer(arg, 2, tell_b);
	defer(arg, 3, fails_first);
	weft_fail(-EBADMSG, "body");
}

Test(fail, in_a_cleanup_leaves_the_rest_and_the_first_failure, .timeout = 120)
{
	struct story story = {0};
	struct weft_exit told = lived(returns_into_failures, &story, 0);

	cr_assert_str_eq(story.text, "fbsca.");
	cr_assert(told.failed);
	cr_assert_eq(told.result, -EIO);
	cr_assert_str_eq(told.message, "first");
	story = (struct story){0};
	told = lived(fails_into_failures, &story, WEFT_MOVABLE);
	cr_assert_str_eq(story.text, "fbsca.");
	cr_assert_eq(told.result, -EBADMSG);
	cr_assert_str_eq(told.message, "body");
}

static void fails_when_dropped(void *arg)
{
	tell(arg, 'd');
	weft_fail(-EIO, "dropped");
}

static int fails_at_the_very_end(void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = fails_when_dropped};
	struct weft_exit told = {.size = sizeof told};
	weft_pid pid;

	cr_assert_eq(weft_spawn_with(defers_three, arg, &opts, &pid), 0);
	cr_assert_eq(weft_join_exit(pid, &told, WEFT_FOREVER), 0);
	cr_assert(told.failed);
	return told.result;
}

Test(fail, in_the_arguments_destructor_is_the_last_thing, .timeout = 120)
{
	struct story story = {0};

	cr_assert_eq(in_runtime(1, fails_at_the_very_end, &story), -EIO);
	cr_assert_str_eq(story.text, "!cbad");
}

/* P13: until its cleanups are through its stack is nobody else's. */
static int has_this_stack(void *arg)
{
	struct story *story = arg;
	char here = 0;
	uintptr_t distance = (uintptr_t)&here - (uintptr_t)story->frame + 8192;

	tell(story, distance < (uintptr_t)2 * 8192 ? '=' : '#');
	return 0;
}

static void looks_at_stacks(void *arg)
{
	struct story *story = arg;

	cr_assert_eq(joined(spawned(has_this_stack, story)), 0);
}

static int fails_and_looks(void *arg)
{
	struct story *story = arg;
	char here = 0;

	story->frame = &here;
	defer(story, 0, looks_at_stacks);
	defer(story, 1, tell_b);
	weft_fail(-EIO, "%c", here);
}

static int compares_stacks(void *arg)
{
	cr_assert_eq(joined(spawned(fails_and_looks, arg)), -EIO);
	cr_assert_eq(joined(spawned(has_this_stack, arg)), 0);
	return 0;
}

Test(fail, the_stack_is_used_again_only_after_the_cleanups, .timeout = 120)
{
	struct story story = {0};

	cr_assert_eq(in_runtime(1, compares_stacks, &story), 0);
	/* Where an uninstrumented frame is, the address of a local variable does tell. */
	cr_assert_str_eq(story.text, "b#=");
}

static void *fails_in_a_thread(void *arg)
{
	(void)arg;
	weft_fail(-EIO, "in a thread of %s", "the host's");
}

Test(fail, in_a_foreign_thread_ends_the_program, .timeout = 120, .signal = SIGABRT)
{
	pthread_t thread;

	pthread_create(&thread, NULL, fails_in_a_thread, NULL);
	pthread_join(thread, NULL);
}

static void fails_in_a_post(void *arg)
{
	(void)arg;
	weft_fail(-EIO, NULL);
}

Test(fail, in_a_post_ends_the_program, .timeout = 120, .signal = SIGABRT)
{
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(weft_post(rt, fails_in_a_post, NULL), 0);
	runtime_end(rt);
}

/* ---- What a join is told -------------------------------------------------------------------- */

static int fails_at_length(void *arg)
{
	(void)arg;
	weft_fail(-EIO, "%0200d", 1);
}

Test(fail, a_long_message_is_cut, .timeout = 120)
{
	struct story story = {0};
	struct weft_exit told = lived(fails_at_length, &story, 0);

	cr_assert_eq(strlen(told.message), 95u);
	cr_assert_eq(strspn(told.message, "0"), 95u);
}

struct release {
	struct weft_exit ours;
	uint64_t theirs;
};

static int joins_across_releases(void *arg)
{
	struct release told;
	int code = -EIO;

	(void)arg;
	/* A newer caller: what this release does not have is zero. */
	told = (struct release){.ours.size = sizeof told, .theirs = 1};
	cr_assert_eq(weft_join_exit(spawned(fails_at_once, &code), &told.ours, WEFT_FOREVER), 0);
	cr_assert_eq(told.ours.size, sizeof told);
	cr_assert(told.ours.failed);
	cr_assert_eq(told.theirs, 0u);
	/* An older one: nothing is written behind its end. */
	told = (struct release){.ours.size = offsetof(struct weft_exit, failed)};
	cr_assert_eq(weft_join_exit(spawned(fails_at_once, &code), &told.ours, WEFT_FOREVER), 0);
	cr_assert_eq(told.ours.result, -EIO);
	cr_assert(!told.ours.failed);
	cr_assert_eq(told.ours.size, offsetof(struct weft_exit, failed));
	return 0;
}

static int joins_wrongly(void *arg)
{
	struct weft_exit told = {0};
	weft_pid pid = spawned(parks, NULL);

	(void)arg;
	cr_assert_eq(weft_join_exit(pid, &told, WEFT_FOREVER), -EINVAL);
	cr_assert_eq(weft_join_exit(pid, NULL, WEFT_FOREVER), -EINVAL);
	told = (struct weft_exit){.size = sizeof told, .result = 77};
	cr_assert_eq(weft_join_exit(pid, &told, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_join_exit(pid, &told, 0), -ETIME);
	cr_assert_eq(weft_join_exit(weft_self(), &told, 0), -EDEADLK);
	cr_assert_eq(told.result, 77, "a join that failed has written");
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(weft_join_exit(pid, &told, WEFT_FOREVER), 0);
	cr_assert_eq(told.result, 0);
	cr_assert_str_eq(told.name, "");
	cr_assert_eq(weft_join_exit(pid, &told, WEFT_FOREVER), -ESRCH);
	return 0;
}

Test(fail, join_exit_is_a_join, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, joins_across_releases, NULL), 0);
	cr_assert_eq(in_runtime(1, joins_wrongly, NULL), 0);
}

/* An allocator that can run dry. */
static wf_atomic_u32 dry;

static void *allocate(void *ctx, size_t alignment, size_t size)
{
	void *memory = NULL;

	(void)ctx;
	if (wf_u32_load_relaxed(&dry) || posix_memalign(&memory, alignment, size) != 0)
		return NULL;
	return memory;
}

static void release(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	(void)size;
	free(memory);
}

static int fails_without_memory(void *arg)
{
	struct story *story = arg;

	wf_u32_store_relaxed(&dry, 1);
	defer(story, 0, tell_a);
	defer(story, 1, fails_first);
	weft_fail(-EPROTO, "%s", "not to be kept");
}

Test(fail, without_memory_has_a_code_and_no_message, .timeout = 120)
{
	static const struct weft_allocator allocator = {.allocate = allocate, .release = release};
	struct story story = {0};
	struct weft_exit told = {.size = sizeof told};
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .allocator = &allocator});
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, fails_without_memory, &story, NULL, &pid), 0);
	cr_assert_eq(weft_join_exit(pid, &told, WEFT_FOREVER), 0);
	cr_assert(told.failed);
	cr_assert_eq(told.result, -EPROTO);
	cr_assert_str_eq(told.message, "");
	cr_assert_str_eq(story.text, "fa");
	wf_u32_store_relaxed(&dry, 0);
	runtime_end(rt);
}

/* ---- Tasks ---------------------------------------------------------------------------------- */

/* Defers in its first run; in the second one more, in a frame, and fails in a deeper one. */
static void fails_deeper(struct story *story)
{
	struct weft_deferred inner;

	cr_assert_eq(weft_defer(&inner, tell_c, story), 0);
	tell(story, '!');
	weft_fail(-EPROTO, "at run %d", story->results[0]);
}

static int fails_in_its_second_run(void *state)
{
	struct story *story = state;

	if (story->results[0]++ == 0) {
		defer(story, 0, tell_a);
		defer(story, 1, tell_b);
		return weft_park(WEFT_FOREVER);
	}
	story->results[1] = weft_park(WEFT_POLL);
	fails_deeper(story);
	return 0;
}

struct told {
	unsigned before, after, ended;
	struct weft_exit end;
};

static void told_before(void *ctx, weft_pid pid)
{
	(void)pid;
	((struct told *)ctx)->before++;
}

static void told_after(void *ctx, weft_pid pid)
{
	(void)pid;
	((struct told *)ctx)->after++;
}

static void told_end(void *ctx, const struct weft_exit *end)
{
	struct told *told = ctx;

	told->ended++;
	told->end = *end;
}

static int ends_a_task(void *arg)
{
	struct story *story = arg;

	UNTIL(story->results[0] == 1);
	for (int i = 0; i < 4; i++) /* it has armed, and waits */
		cr_assert_eq(weft_yield(), 0);
	return story->results[2] ? weft_cancel(story->pid) : weft_wake(story->pid);
}

/* results[2]: cancelled, not woken. */
static void fails_as_a_task(unsigned flags, bool cancelled)
{
	struct told told = {0};
	struct weft_hooks hooks = {.size = sizeof hooks, .ctx = &told, .before_run = told_before,
		.after_run = told_after, .process_end = told_end};
	struct weft_spawn_opts opts = {
		.size = sizeof opts, .name = "hero", .flags = flags, .arg_dtor = tell_dropped};
	struct story story = {.results = {0, 0, cancelled}};
	struct weft_exit end = {.size = sizeof end};
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = 1, .hooks = &hooks});

	cr_assert_eq(weft_rt_task_spawn(rt, fails_in_its_second_run, &story, &opts, &story.pid), 0);
	cr_assert_eq(runtime_do(rt, ends_a_task, &story), 0);
	cr_assert_eq(weft_join_exit(story.pid, &end, WEFT_FOREVER), 0);
	cr_assert_eq(runtime_do(rt, returns, &(int){6}), 6, "its worker goes on");
	runtime_end(rt);
	cr_assert_str_eq(story.text, "!cba.");
	cr_assert_eq(story.results[0], 2);
	cr_assert_eq(story.results[1], cancelled ? -ECANCELED : 0);
	cr_assert(end.failed);
	cr_assert_eq(end.result, -EPROTO);
	cr_assert_str_eq(end.name, "hero");
	cr_assert_str_eq(end.message, "at run 2");
	cr_assert_eq(told.ended, 3);
	cr_assert_eq(told.after, told.before, "each run has its two hooks");
}

Test(fail, in_a_task_runs_the_cleanups_of_all_its_runs, .timeout = 120)
{
	fails_as_a_task(0, false);
	fails_as_a_task(WEFT_PINNED, false);
	fails_as_a_task(0, true);
	fails_as_a_task(WEFT_PINNED, true);
}

static int fails_as_another(void *state)
{
	if (*(int *)state < 0)
		weft_fail(*(int *)state, "told");
	return *(int *)state;
}

/* In rows, as new tasks run: those that fail between those that end. */
static int watches_tasks_fail(void *arg)
{
	enum { CROWD = 600 };
	weft_pid pids[CROWD];
	int codes[CROWD];

	(void)arg;
	for (int i = 0; i < CROWD; i++) {
		codes[i] = i % 7 == 3 || i % 5 == 4 ? -i : i;
		cr_assert_eq(weft_task_spawn(fails_as_another, &codes[i], NULL, &pids[i]), 0);
	}
	for (int i = 0; i < CROWD; i++)
		cr_assert_eq(joined(pids[i]), codes[i]);
	return 3;
}

Test(fail, of_a_task_ends_that_one_and_no_other, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, watches_tasks_fail, NULL), 3);
	cr_assert_eq(in_runtime(2, watches_tasks_fail, NULL), 3);
}

static int ends_with_one_on_the_stack(void *state)
{
	return leaves_one_on_its_stack(state);
}

static int waits_with_one_on_the_stack(void *state)
{
	cr_assert_eq(leaves_one_on_its_stack(state), 0);
	return WEFT_PENDING;
}

static void task_lives(weft_task_fn fn)
{
	struct story story = {0};
	weft_rt *rt = runtime_new(1);
	weft_pid pid;

	if (HARNESS_ASAN) /* frames lie elsewhere: it is not looked for */
		abort();
	cr_assert_eq(weft_rt_task_spawn(rt, fn, &story, NULL, &pid), 0);
	(void)weft_join(pid, NULL, WEFT_FOREVER);
}

Test(fail, a_record_in_a_tasks_frame_that_is_gone_ends_the_program, .timeout = 120,
	.signal = SIGABRT)
{
	task_lives(ends_with_one_on_the_stack);
}

Test(fail, a_record_in_the_frame_of_a_task_that_waits_ends_the_program, .timeout = 120,
	.signal = SIGABRT)
{
	task_lives(waits_with_one_on_the_stack);
}

/* With a wait, a timer, a yield armed in the run that fails, and into failures. */
static int arms_and_fails(void *state)
{
	struct story *story = state;

	cr_assert_eq(weft_join(story->pid, NULL, weft_after(WEFT_SEC(3600))), WEFT_PENDING);
	cr_assert_eq(weft_sleep_until(weft_after(WEFT_SEC(3600))), WEFT_PENDING);
	cr_assert_eq(weft_yield(), WEFT_PENDING);
	return fails_into_failures(story);
}

static int watches_one_that_armed(void *arg)
{
	struct story *story = arg;
	struct weft_exit end = {.size = sizeof end};
	weft_pid pid;

	story->pid = spawned(parks, NULL);
	cr_assert_eq(weft_task_spawn(arms_and_fails, story, NULL, &pid), 0);
	cr_assert_eq(weft_join_exit(pid, &end, WEFT_FOREVER), 0);
	cr_assert_eq(end.result, -EBADMSG);
	cr_assert_str_eq(end.message, "body");
	cr_assert_eq(weft_wake(story->pid), 0);
	return joined(story->pid);
}

Test(fail, of_a_task_ends_what_it_had_armed, .timeout = 120)
{
	struct story story = {0};

	cr_assert_eq(in_runtime(1, watches_one_that_armed, &story), 0);
	cr_assert_str_eq(story.text, "fbsca");
}

/* ---- Shields -------------------------------------------------------------------------------- */

static int nests(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_shield_end(), -EINVAL);
	for (int i = 0; i < WEFT_SHIELD_DEPTH_MAX; i++)
		cr_assert_eq(weft_shield_begin(), 0);
	cr_assert_eq(weft_shield_begin(), -ENOSPC);
	cr_assert_eq(weft_cancel(weft_self()), 0);
	for (int i = 0; i < WEFT_SHIELD_DEPTH_MAX; i++) {
		cr_assert_eq(weft_yield(), 0, "told of at depth %d", WEFT_SHIELD_DEPTH_MAX - i);
		cr_assert_eq(weft_shield_end(), 0);
	}
	cr_assert_eq(weft_yield(), -ECANCELED);
	cr_assert_eq(weft_shield_end(), -EINVAL);
	return 0;
}

Test(fail, shields_nest_to_their_limit, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, nests, NULL), 0);
}

/* P9: every kind of wait, in a section that is cancelled while it parks. */
static int commits(void *arg)
{
	struct story *story = arg;
	weft_pid child = spawned(parks, NULL);
	weft_time until;

	cr_assert_eq(weft_shield_begin(), 0);
	tell(story, 'b');
	cr_assert_eq(weft_park(WEFT_FOREVER), 0, "woken, not cancelled");
	tell(story, 'p');
	cr_assert_eq(weft_park(WEFT_POLL), -EAGAIN);
	until = weft_after(WEFT_US(300));
	cr_assert_eq(weft_park(until), -ETIME);
	cr_assert_geq(weft_now(), until);
	cr_assert_eq(weft_join(child, NULL, weft_after(WEFT_US(300))), -ETIME);
	cr_assert_eq(weft_wake(child), 0);
	cr_assert_eq(weft_join(child, NULL, WEFT_FOREVER), 0);
	tell(story, 'c');
	cr_assert_eq(weft_shield_end(), 0);
	cr_assert_eq(weft_join(child, NULL, WEFT_FOREVER), -ECANCELED);
	return weft_park(WEFT_FOREVER);
}

static int cancels_a_commit(void *arg)
{
	struct story *story = arg;

	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		weft_pid pid = spawned_with(commits, story, flags, 0);

		story->length = 0;
		UNTIL(story->length == 1);
		cr_assert_eq(weft_cancel(pid), 0);
		for (int i = 0; i < 8; i++)
			cr_assert_eq(weft_yield(), 0);
		cr_assert_eq(story->length, 1u, "the cancel has ended a shielded park");
		cr_assert_eq(weft_wake(pid), 0);
		cr_assert_eq(joined(pid), -ECANCELED);
		cr_assert_eq(story->length, 3u);
	}
	return 0;
}

Test(fail, a_shielded_section_completes, .timeout = 120)
{
	struct story story = {0};

	cr_assert_eq(in_runtime(1, cancels_a_commit, &story), 0);
	cr_assert_str_eq(story.text, "bpc");
}

static void hears_of_the_cancel(void *arg)
{
	cr_assert_eq(weft_yield(), -ECANCELED);
	tell(arg, 'h');
}

static int leaves_shields_open(void *arg)
{
	struct story *story = arg;

	defer(story, 0, hears_of_the_cancel);
	cr_assert_eq(weft_cancel(weft_self()), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(weft_shield_begin(), 0);
	return 0;
}

Test(fail, the_end_ends_shields_left_open, .timeout = 120)
{
	struct story story = {0};

	lived(leaves_shields_open, &story, 0);
	cr_assert_str_eq(story.text, "h.");
}

/* ---- P2: cancelled while it sleeps, by whomever --------------------------------------------- */

struct sleeper {
	int worker; /* it cleaned up on */
	wf_atomic_u32 asleep, cleaned;
	struct weft_deferred defer;
};

static void cleans(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->worker = weft_worker_index();
	wf_u32_fetch_add(&sleeper->cleaned, 1);
}

static int sleeps(void *arg)
{
	struct sleeper *sleeper = arg;

	cr_assert_eq(weft_defer(&sleeper->defer, cleans, sleeper), 0);
	wf_u32_store_release(&sleeper->asleep, 1);
	return weft_sleep_until(WEFT_FOREVER);
}

static int cancels(void *arg)
{
	return weft_cancel(*(weft_pid *)arg);
}

static int cancels_itself(void *arg)
{
	cr_assert_eq(weft_cancel(weft_self()), 0);
	return sleeps(arg);
}

Test(fail, cancelled_sleepers_clean_up_on_their_worker, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(1)};
	struct sleeper sleepers[4] = {0};
	weft_rt *rt = runtime_new(2);
	weft_pid pids[4];
	int result;

	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(weft_rt_spawn(rt, i ? sleeps : cancels_itself, &sleepers[i], &opts,
				     &pids[i]), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&sleepers[i].asleep));
	}
	cr_assert_eq(runtime_do(rt, cancels, &pids[1]), 0);
	cr_assert_eq(weft_cancel(pids[2]), 0);
	cr_assert_eq(weft_cancel(pids[3]), 0);
	cr_assert_eq(weft_detach(pids[3]), 0, "given up at once");
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(weft_join(pids[i], &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, -ECANCELED);
	}
	runtime_end(rt);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(wf_u32_load_relaxed(&sleepers[i].cleaned), 1u);
		cr_assert_eq(sleepers[i].worker, 1);
	}
}
