/*
 * Fibers: resume, suspend and exit over real stacks, on one thread and moving between threads; what
 * sanitizers are told; and how much memory a parked fiber keeps.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/fiber.h"
#include "test/harness.h"

enum {
	STACK_BYTES = 64 * 1024,
	PAGE_BYTES = 4096,
#if HARNESS_TSAN
	PARKED = 2000, /* ThreadSanitizer allows about 8000 */
	ENDS = 5000,
#elif HARNESS_ASAN || HARNESS_VALGRIND
	PARKED = 5000,
	ENDS = 20000,
#else
	PARKED = 200000,
	ENDS = 100000,
#endif
};

/* A scheduler of one thread: what a worker is to a fiber. */
struct rig {
	struct wf_scheduler_context sched;
	struct wf_stack_depot *depot;
	struct wf_stack_pool pool;
};

static void rig_open(struct rig *rig)
{
	struct wf_stack_depot_opts opts = {.guard_mprotect = false};

	cr_assert_eq(wf_stack_depot_create(&opts, &rig->depot), 0);
	wf_stack_pool_init(&rig->pool);
	wf_scheduler_enter(&rig->sched);
}

static void rig_close(struct rig *rig)
{
	wf_scheduler_leave(&rig->sched);
	wf_stack_pool_close(&rig->pool, rig->depot);
	cr_assert(wf_stack_depot_valid(rig->depot));
	wf_stack_depot_destroy(rig->depot);
}

static struct wf_fiber *start(struct rig *rig, void (*entry)(void *value))
{
	struct wf_stack *stack = wf_stack_take(&rig->pool, rig->depot, STACK_BYTES);

	cr_assert_not_null(stack);
	return wf_fiber_bind(stack, entry);
}

static void end(struct rig *rig, struct wf_fiber *fiber)
{
	wf_stack_give(&rig->pool, rig->depot, wf_fiber_stack(fiber));
}

/* What a fiber is told at its first resume. */
struct task {
	struct wf_fiber *fiber;
	struct wf_scheduler_context *sched; /* of whoever resumes it; written before each resume */
	uint64_t number;
	unsigned steps;
	bool ended;
};

/* --- the moves --- */

static void three_steps(void *value)
{
	struct task *task = value;
	uint64_t kept = task->number;

	for (task->steps = 1; task->steps < 3; task->steps++) {
		uint64_t *added = wf_fiber_suspend(task->fiber, task->sched);

		kept += *added;
	}
	task->number = kept;
	task->ended = true;
	wf_fiber_exit(task->fiber, task->sched);
}

Test(fiber, runs_from_resume_to_suspend, .timeout = 120)
{
	struct rig rig;
	struct task task = {.sched = &rig.sched, .number = 100};
	uint64_t ten = 10, seven = 7;

	rig_open(&rig);
	task.fiber = start(&rig, three_steps);
	cr_assert_eq(task.steps, 0, "bind does not run it");
	wf_fiber_resume(&rig.sched, task.fiber, &task);
	cr_assert_eq(task.steps, 1);
	wf_fiber_resume(&rig.sched, task.fiber, &ten);
	cr_assert_eq(task.steps, 2);
	cr_assert(!task.ended);
	wf_fiber_resume(&rig.sched, task.fiber, &seven);
	cr_assert(task.ended);
	cr_assert_eq(task.number, 117);
	end(&rig, task.fiber);
	rig_close(&rig);
}

Test(fiber, a_stack_serves_one_fiber_after_another, .timeout = 120)
{
	struct rig rig;
	uint64_t one = 1;
	struct wf_stack *first = NULL;

	rig_open(&rig);
	for (uint64_t i = 0; i < 100; i++) {
		struct task task = {.sched = &rig.sched, .number = i};

		task.fiber = start(&rig, three_steps);
		if (i == 0)
			first = wf_fiber_stack(task.fiber);
		cr_assert_eq(wf_fiber_stack(task.fiber), first);
		while (!task.ended)
			wf_fiber_resume(
				&rig.sched, task.fiber, task.steps == 0 ? (void *)&task : &one);
		cr_assert_eq(task.number, i + 2);
		end(&rig, task.fiber);
	}
	rig_close(&rig);
}

Test(fiber, many_take_turns, .timeout = 120)
{
	enum { COUNT = 200 };
	static struct task tasks[COUNT];
	struct rig rig;
	uint64_t added = 3;

	rig_open(&rig);
	for (uint64_t i = 0; i < COUNT; i++) {
		tasks[i] = (struct task){.sched = &rig.sched, .number = i};
		tasks[i].fiber = start(&rig, three_steps);
	}
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < COUNT; i++)
			wf_fiber_resume(&rig.sched, tasks[i].fiber,
				round == 0 ? (void *)&tasks[i] : &added);
	for (uint64_t i = 0; i < COUNT; i++) {
		cr_assert(tasks[i].ended);
		cr_assert_eq(tasks[i].number, i + 6);
		end(&rig, tasks[i].fiber);
	}
	rig_close(&rig);
}

/* Takes turns with its partner, without the scheduler in between. */
struct partner {
	struct task task;
	struct partner *other;
};

static void switches_to_its_partner(void *value)
{
	struct partner *self = value;

	(void)wf_fiber_suspend(self->task.fiber, self->task.sched);
	for (self->task.steps = 1; self->task.steps < self->task.number; self->task.steps++)
		(void)wf_fiber_switch(
			self->task.fiber, self->other->task.fiber, self->task.sched);
	self->task.ended = true;
	wf_fiber_exit(self->task.fiber, self->task.sched);
}

/* Who comes back from a resume is who was switched to last. */
Test(fiber, one_leads_to_another, .timeout = 120)
{
	enum { STEPS = 1000 };
	struct rig rig;
	struct partner pair[2];

	rig_open(&rig);
	for (int i = 0; i < 2; i++) {
		pair[i] = (struct partner){
			.task = {.sched = &rig.sched, .number = STEPS}, .other = &pair[1 - i]};
		pair[i].task.fiber = start(&rig, switches_to_its_partner);
		wf_fiber_resume(&rig.sched, pair[i].task.fiber, &pair[i]);
	}
	/* The first has one step more behind it when it ends, after the second's last switch. */
	wf_fiber_resume(&rig.sched, pair[0].task.fiber, NULL);
	cr_assert(pair[0].task.ended);
	cr_assert(!pair[1].task.ended);
	cr_assert_eq(pair[1].task.steps, STEPS - 1);
	end(&rig, pair[0].task.fiber);
	wf_fiber_resume(&rig.sched, pair[1].task.fiber, NULL);
	cr_assert(pair[1].task.ended);
	end(&rig, pair[1].task.fiber);
	rig_close(&rig);
}

Test(fiber, one_that_was_never_resumed_can_be_dropped, .timeout = 120)
{
	struct rig rig;

	rig_open(&rig);
	for (int i = 0; i < 100; i++) {
		struct wf_fiber *fiber = start(&rig, three_steps);

		wf_fiber_unbind(fiber);
		end(&rig, fiber);
	}
	rig_close(&rig);
}

/* --- ends --- */

static void exit_from_depth(struct task *task, unsigned depth);

/* Through a pointer: the compiler notices that this recursion never returns, and minds. */
static void (*volatile deeper)(struct task *task, unsigned depth) = exit_from_depth;

static void exit_from_depth(struct task *task, unsigned depth)
{
	volatile char frame[100];

	frame[depth % sizeof frame] = 1;
	if (depth > 0)
		deeper(task, depth - 1);
	task->steps += (unsigned)frame[depth % sizeof frame];
	wf_fiber_exit(task->fiber, task->sched);
}

static void end_deep_down(void *value)
{
	struct task *task = value;

	exit_from_depth(task, task->number % 40);
}

/*
 * A fiber that ends inside several calls leaves frames behind that never return. Sanitizers keep
 * books about frames: neither red zones nor shadow call stacks may pile up in a stack used again.
 */
Test(fiber, may_end_at_any_depth_any_number_of_times, .timeout = 120)
{
	struct rig rig;
	struct task task = {.sched = &rig.sched};

	rig_open(&rig);
	for (task.number = 0; task.number < ENDS; task.number++) {
		task.fiber = start(&rig, end_deep_down);
		wf_fiber_resume(&rig.sched, task.fiber, &task);
		end(&rig, task.fiber);
	}
	cr_assert_eq(task.steps, (unsigned)ENDS);
	rig_close(&rig);
}

/* --- threads --- */

enum { MOVES = 2000 };

/* Two workers that resume the same fiber in turns, handing it over through a condition. */
struct relay {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned turn; /* how often it has been resumed */
	struct task task;
	struct rig rig; /* its depot */
	struct wf_scheduler_context sched[2];
	pthread_t resumed_by;
	unsigned wrong_thread;
};

__attribute__((noinline)) static pthread_t thread_now(void)
{
	pthread_t self = pthread_self();

	__asm__ __volatile__("" : : : "memory");
	return self;
}

static void travel(void *value)
{
	struct relay *relay = value;
	uint64_t sum = 0;

	for (unsigned i = 1; i < MOVES; i++) {
		sum += i;
		wf_fiber_suspend(relay->task.fiber, relay->task.sched);
		if (!pthread_equal(thread_now(), relay->resumed_by))
			relay->wrong_thread++;
	}
	relay->task.number = sum;
	relay->task.ended = true;
	wf_fiber_exit(relay->task.fiber, relay->task.sched);
}

static void relay_runner(unsigned index, void *arg)
{
	struct relay *relay = arg;

	wf_scheduler_enter(&relay->sched[index]);
	for (unsigned turn = index; turn < MOVES; turn += 2) {
		pthread_mutex_lock(&relay->mutex);
		while (relay->turn != turn)
			pthread_cond_wait(&relay->changed, &relay->mutex);
		pthread_mutex_unlock(&relay->mutex);

		relay->task.sched = &relay->sched[index];
		relay->resumed_by = pthread_self();
		wf_fiber_resume(&relay->sched[index], relay->task.fiber, relay);

		pthread_mutex_lock(&relay->mutex);
		relay->turn++;
		pthread_cond_broadcast(&relay->changed);
		pthread_mutex_unlock(&relay->mutex);
	}
	wf_scheduler_leave(&relay->sched[index]);
}

Test(fiber, moves_between_threads_at_every_suspend, .timeout = 120)
{
	static struct relay relay = {
		.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

	rig_open(&relay.rig);
	relay.task.fiber = start(&relay.rig, travel);
	harness_threads(2, relay_runner, &relay);
	cr_assert(relay.task.ended);
	cr_assert_eq(relay.task.number, (uint64_t)MOVES * (MOVES - 1) / 2);
	cr_assert_eq(relay.wrong_thread, 0);
	end(&relay.rig, relay.task.fiber);
	rig_close(&relay.rig);
}

/* --- memory --- */

static void park_once(void *value)
{
	struct task *task = value;

	task->steps++;
	wf_fiber_suspend(task->fiber, task->sched);
	task->steps++;
	wf_fiber_exit(task->fiber, task->sched);
}

static size_t resident_pages(const struct wf_stack *stack)
{
	size_t bytes = wf_stack_bytes(stack);
	unsigned char pages[STACK_BYTES / PAGE_BYTES];
	size_t count = 0;

	cr_assert_eq(mincore(stack->low, bytes, pages), 0);
	for (size_t i = 0; i < bytes / PAGE_BYTES; i++)
		count += pages[i] & 1;
	return count;
}

Test(fiber, a_control_block_is_one_line, .timeout = 120)
{
	if (HARNESS_ASAN || HARNESS_TSAN)
		cr_skip_test("sanitizers keep more in it");
	cr_assert_leq(sizeof(struct wf_fiber), (size_t)WF_CACHE_LINE);
}

/* Of every colour: the colour must not push a shallow fiber's frames into a second page. */
Test(fiber, a_parked_one_keeps_one_page, .timeout = 120)
{
	static struct task tasks[64];
	struct rig rig;

	if (HARNESS_ASAN || HARNESS_TSAN)
		cr_skip_test("sanitizers make frames larger");
	rig_open(&rig);
	for (unsigned i = 0; i < 64; i++) {
		tasks[i] = (struct task){.sched = &rig.sched};
		tasks[i].fiber = start(&rig, park_once);
		wf_fiber_resume(&rig.sched, tasks[i].fiber, &tasks[i]);
		cr_assert_eq(resident_pages(wf_fiber_stack(tasks[i].fiber)), (size_t)1);
	}
	for (unsigned i = 0; i < 64; i++) {
		wf_fiber_resume(&rig.sched, tasks[i].fiber, NULL);
		end(&rig, tasks[i].fiber);
	}
	rig_close(&rig);
}

/*
 * P10 of the design's scenarios, at this level: more than guards by mprotect allow, all parked at
 * once, within 5 KB each; all end.
 */
Test(fiber, two_hundred_thousand_park_at_once, .timeout = 120)
{
	struct rig rig;
	struct wf_stack_stats stats;
	struct task *tasks = calloc(PARKED, sizeof *tasks);
	size_t before_bytes, each_bytes;

	cr_assert_not_null(tasks);
	memset(tasks, 1, PARKED * sizeof *tasks); /* its own pages do not count */
	rig_open(&rig);
	wf_stack_depot_stats(rig.depot, &stats);
	if (stats.guard_mprotect)
		cr_skip_test("this kernel has no MADV_GUARD_INSTALL");
	before_bytes = harness_rss_bytes();
	for (unsigned i = 0; i < PARKED; i++) {
		tasks[i] = (struct task){.sched = &rig.sched};
		tasks[i].fiber = start(&rig, park_once);
		wf_fiber_resume(&rig.sched, tasks[i].fiber, &tasks[i]);
	}
	each_bytes = (harness_rss_bytes() - before_bytes) / PARKED;
	if (!HARNESS_ASAN && !HARNESS_TSAN && !HARNESS_VALGRIND) /* which keep more for each */
		cr_assert_leq(each_bytes, (size_t)5 * 1024);
	for (unsigned i = 0; i < PARKED; i++) {
		wf_fiber_resume(&rig.sched, tasks[i].fiber, NULL);
		cr_assert_eq(tasks[i].steps, 2);
		end(&rig, tasks[i].fiber);
	}
	rig_close(&rig);
	free(tasks);
}

#if HARNESS_ASAN || HARNESS_VALGRIND

static void hold_memory(void *value)
{
	struct task *task = value;
	void *volatile held = malloc(1000);

	wf_fiber_suspend(task->fiber, task->sched);
	free(held);
	wf_fiber_exit(task->fiber, task->sched);
}

#endif

#if HARNESS_ASAN

#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>

/* Frames that never returned left them there; functions that ASan does not know would stumble. */
Test(fiber, a_stack_given_back_has_no_red_zones, .timeout = 120)
{
	struct rig rig;
	struct task task = {.sched = &rig.sched, .number = 39};
	struct wf_stack *stack;
	size_t bytes;

	rig_open(&rig);
	task.fiber = start(&rig, end_deep_down);
	stack = wf_fiber_stack(task.fiber);
	bytes = wf_stack_usable_bytes(stack);
	wf_fiber_resume(&rig.sched, task.fiber, &task);
	cr_assert_not_null(__asan_region_is_poisoned(stack->low, bytes));
	end(&rig, task.fiber);
	cr_assert_null(__asan_region_is_poisoned(stack->low, bytes));
	rig_close(&rig);
}

/* Many, so that no copy left in a register or on this stack can stand in for the real holder. */
Test(fiber, memory_held_by_a_parked_one_is_no_leak, .timeout = 120)
{
	static struct task tasks[100];
	struct rig rig;

	rig_open(&rig);
	for (unsigned i = 0; i < 100; i++) {
		tasks[i] = (struct task){.sched = &rig.sched};
		tasks[i].fiber = start(&rig, hold_memory);
		wf_fiber_resume(&rig.sched, tasks[i].fiber, &tasks[i]);
	}
	cr_assert_eq(__lsan_do_recoverable_leak_check(), 0);
	for (unsigned i = 0; i < 100; i++) {
		wf_fiber_resume(&rig.sched, tasks[i].fiber, NULL);
		end(&rig, tasks[i].fiber);
	}
	rig_close(&rig);
}

#endif

#if HARNESS_VALGRIND

static void decide_by_chance(void *value)
{
	struct task *task = value;
	char room[256];

	__asm__ volatile("" : : "r"(room) : "memory"); /* or the compiler would complain */
	if (room[39] == 'x')
		task->steps++;
	wf_fiber_exit(task->fiber, task->sched);
}

/* A stack that Valgrind does not know is all written, to it. 66: what it ends with then. */
Test(fiber, a_decision_by_what_it_never_wrote_is_reported, .timeout = 120, .exit_code = 66)
{
	struct rig rig;
	struct task task = {.sched = &rig.sched};

	rig_open(&rig);
	for (int i = 0; i < 2; i++) { /* also on a stack that another fiber has written */
		task.fiber = start(&rig, end_deep_down);
		task.number = 39;
		wf_fiber_resume(&rig.sched, task.fiber, &task);
		end(&rig, task.fiber);
	}
	task.fiber = start(&rig, decide_by_chance);
	wf_fiber_resume(&rig.sched, task.fiber, &task);
	end(&rig, task.fiber);
	rig_close(&rig);
}

/* They are parked still when the program ends, and what they hold is looked for. */
Test(fiber, memory_held_by_a_parked_one_is_no_leak, .timeout = 120)
{
	static struct task tasks[100];
	static struct rig rig;

	rig_open(&rig);
	for (unsigned i = 0; i < 100; i++) {
		tasks[i] = (struct task){.sched = &rig.sched};
		tasks[i].fiber = start(&rig, hold_memory);
		wf_fiber_resume(&rig.sched, tasks[i].fiber, &tasks[i]);
	}
}

#endif
