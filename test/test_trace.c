/*
 * Goal: the trace word goes from a process to those it spawns, in every way of spawning, and
 * nowhere else.
 * Method: processes that return their word, spawned by one that has set its own.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/runtime.h"
#include "test/runtime.h"

enum { WORD = 4711, OTHER = 815 };

static int tells_its_word(void *arg)
{
	(void)arg;
	return (int)weft_trace_word();
}

static int tells_its_childs_word(void *arg)
{
	(void)arg;
	return joined(spawned(tells_its_word, NULL));
}

static weft_pid spawned_with_word(weft_fn fn, uint64_t trace, const char *name)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .trace = trace, .name = name};
	weft_pid pid = {0};

	cr_assert_eq(weft_spawn_with(fn, NULL, &opts, &pid), 0);
	return pid;
}

/* A task is given options only where there are some. */
static weft_pid spawned_task(const struct weft_spawn_opts *opts)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_task_spawn(tells_its_word, NULL, opts, &pid), 0);
	return pid;
}

static weft_pid committed(weft_fn fn, const struct weft_spawn_opts *opts)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_spawn_reserve(&pid), 0);
	cr_assert_eq(weft_spawn_commit(pid, fn, NULL, opts), 0);
	return pid;
}

static int hands_its_word_on(void *arg)
{
	struct weft_spawn_opts nothing = {.size = sizeof nothing};
	weft_pid pid;

	(void)arg;
	cr_assert_eq(weft_trace_word(), 0, "nobody gave it one");
	cr_assert_eq(joined(spawned(tells_its_word, NULL)), 0);
	cr_assert_eq(weft_trace_set(WORD), 0);
	cr_assert_eq(weft_trace_word(), WORD);
	cr_assert_eq(joined(spawned(tells_its_word, NULL)), WORD);
	cr_assert_eq(joined(spawned(tells_its_childs_word, NULL)), WORD, "and theirs");
	cr_assert_eq(joined(spawned_with(tells_its_word, NULL, 0, WEFT_WORKER(1))), WORD);
	cr_assert_eq(joined(spawned_with_word(tells_its_word, 0, "named")), WORD);
	cr_assert_eq(joined(spawned_with_word(tells_its_childs_word, OTHER, NULL)), OTHER);
	cr_assert_eq(joined(spawned_task(NULL)), WORD);
	cr_assert_eq(joined(spawned_task(&nothing)), WORD);
	cr_assert_eq(joined(committed(tells_its_word, NULL)), WORD);
	cr_assert_eq(joined(committed(tells_its_word, &nothing)), WORD);
	cr_assert_eq(weft_rt_spawn(weft_rt_current(), tells_its_word, NULL, NULL, &pid), 0);
	cr_assert_eq(joined(pid), WORD);
	cr_assert_eq(weft_task_spawn(tells_its_word, NULL, NULL, &pid), 0);
	cr_assert_eq(joined(pid), WORD);
	cr_assert_eq(weft_task_spawn(tells_its_word, NULL, &nothing, &pid), 0);
	cr_assert_eq(joined(pid), WORD);
	/* What it does later is not seen by those that are there. */
	pid = spawned(tells_its_word, NULL);
	cr_assert_eq(weft_trace_set(OTHER), 0);
	cr_assert_eq(joined(pid), WORD);
	cr_assert_eq(weft_trace_set(0), 0);
	cr_assert_eq(joined(spawned(tells_its_word, NULL)), 0);
	cr_assert_eq(joined(spawned_task(NULL)), 0);
	return 1;
}

Test(trace, word_goes_to_those_a_process_spawns, .timeout = 60)
{
	cr_assert_eq(in_runtime(2, hands_its_word_on, NULL), 1);
}

Test(trace, a_spawn_from_outside_has_the_word_it_is_given, .timeout = 60)
{
	weft_rt *rt = runtime_new(1);
	struct weft_spawn_opts opts = {.size = sizeof opts, .trace = UINT32_MAX >> 1};
	weft_pid pid;

	cr_assert_eq(weft_trace_word(), 0);
	cr_assert_eq(weft_trace_set(1), -EPERM);
	cr_assert_eq(weft_rt_spawn(rt, tells_its_word, NULL, NULL, &pid), 0);
	cr_assert_eq(joined(pid), 0);
	cr_assert_eq(weft_rt_spawn(rt, tells_its_childs_word, NULL, &opts, &pid), 0);
	cr_assert_eq(joined(pid), INT32_MAX);
	runtime_end(rt);
}

/* Also between two runtimes: the spawning process is what counts. */
static int spawns_over_there(void *arg)
{
	weft_pid pid;

	cr_assert_eq(weft_trace_set(WORD), 0);
	cr_assert_eq(weft_rt_spawn(arg, tells_its_word, NULL, NULL, &pid), 0);
	return joined(pid);
}

Test(trace, word_goes_to_another_runtime, .timeout = 60)
{
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(in_runtime(1, spawns_over_there, rt), WORD);
	runtime_end(rt);
}

/* The memory for it, or none at all. */
static int has_no_ext_without_one(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_trace_set(0), 0);
	cr_assert_null(wf_worker_self()->current->ext);
	return 1;
}

Test(trace, who_has_no_word_has_no_memory_for_it, .timeout = 60)
{
	cr_assert_eq(in_runtime(1, has_no_ext_without_one, NULL), 1);
}

/* The allocator of a runtime that has run out. */
struct scarce {
	wf_atomic_u32 out;
};

static void *allocate_unless_out(void *ctx, size_t alignment, size_t size)
{
	if (wf_u32_load_acquire(&((struct scarce *)ctx)->out))
		return NULL;
	return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void release_it(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	(void)size;
	free(memory);
}

static int sets_its_word_without_memory(void *arg)
{
	struct scarce *scarce = arg;
	weft_pid pid = {0};

	wf_u32_store_release(&scarce->out, 1);
	cr_assert_eq(weft_trace_set(WORD), -ENOMEM);
	cr_assert_eq(weft_trace_word(), 0);
	wf_u32_store_release(&scarce->out, 0);
	cr_assert_eq(weft_trace_set(WORD), 0);
	wf_u32_store_release(&scarce->out, 1);
	cr_assert_eq(weft_trace_set(OTHER), 0, "it has the memory already");
	cr_assert_eq(weft_spawn(tells_its_word, NULL, &pid), -ENOMEM, "the child's");
	cr_assert(weft_pid_is_none(pid));
	wf_u32_store_release(&scarce->out, 0);
	cr_assert_eq(joined(spawned(tells_its_word, NULL)), OTHER);
	return 1;
}

Test(trace, word_is_refused_without_memory, .timeout = 60)
{
	struct scarce scarce = {{0}};
	struct weft_allocator allocator = {allocate_unless_out, release_it, &scarce};
	weft_rt *rt =
		runtime_new_with(&(struct weft_rt_opts){.workers = 1, .allocator = &allocator});

	cr_assert_eq(runtime_do(rt, sets_its_word_without_memory, &scarce), 1);
	runtime_end(rt);
}
