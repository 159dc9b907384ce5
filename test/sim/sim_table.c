/*
 * Rows Q9 and Q10: the process table. First the whole of it, under processes that come and go while
 * others look their ids up; then the free headers alone, where threads meet in one word.
 */
#include "test/sim/invariants.h"
#include "test/sim/scene.h"

#include "core/registry.h"

enum {
	SCHEDULES = 8000,
	SHORT_SCHEDULES = 50000,
	HEADERS = 40, /* three segments */
	TAKES = 4,
};

static struct {
	struct gate ready;
	weft_pid pids[8]; /* of processes, in the order in which they were made */
	unsigned made;
	struct weft_rt rt; /* a table, and just what it needs */
	bool taken[HEADERS];
	unsigned takes;
} s;

static void setup(void)
{
	scene_reset();
	memset(&s, 0, sizeof(s));
}

/* --- Q9, Q10: looked up, retired, used again --- */

/*
 * In a read section: who has been found may end and be given up, its header stays as it is; no
 * other process has it before the section ends.
 */
static void look_up(weft_pid pid)
{
	uint32_t generation = wf_pid_generation(pid);
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);

	if (!p)
		return;
	sim_check(p->index == wf_pid_index(pid), "the header of another index");
	for (unsigned i = 0; i < 8; i++) {
		uint64_t word = wf_u64_load_acquire(&p->word);

		sim_check(wf_word_generation(word) == generation
				|| (wf_word_generation(word) == generation + 1
					&& wf_word_phase(word) == WF_FREE),
			"in a read section its header became generation %u, %s",
			wf_word_generation(word), wf_phase_name(wf_word_phase(word)));
	}
	wf_visit_end(&visit);
}

/* Of one that has ended and was joined. */
static void look_up_stale(weft_pid pid)
{
	struct wf_visit visit;

	sim_check(!wf_visit_begin(&visit, pid), "a stale id is found");
}

static void tell_pid(void)
{
	weft_pid self = weft_self();

	s.pids[s.made++] = self;
}

static int lives_shortly(void *arg)
{
	(void)arg;
	tell_pid();
	(void)weft_yield();
	return 0;
}

static int does_nothing(void *arg)
{
	(void)arg;
	return 0;
}

/* Makes processes one after the other and joins them, so that headers are used again. */
static int makes(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 0; i < 4; i++) {
		weft_pid pid;
		int r = weft_spawn(lives_shortly, NULL, &pid);

		sim_check(r == 0, "weft_spawn: %d", r);
		body_leave(body);
		r = weft_join(pid, NULL, WEFT_FOREVER);
		body_enter(body);
		sim_check(r == 0, "weft_join: %d", r);
		look_up_stale(pid);
	}
	return body_end(body);
}

static void look_up_any(unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		if (s.made > 0)
			look_up(s.pids[sim_random(s.made)]);
		else
			sim_point("nobody yet");
}

static int looks_up(void *arg)
{
	struct body *body = body_begin(arg);

	for (unsigned i = 0; i < 4; i++) {
		look_up_any(2);
		(void)body_yield(body);
	}
	return body_end(body);
}

static void come_and_go(unsigned number)
{
	struct weft_spawn_opts first = scene_opts(1, 0), second = scene_opts(2, 0);

	if (number == 1) {
		gate_await(&s.ready);
		look_up_any(12);
		return;
	}
	scene_create(2);
	gate_open(&s.ready);
	body_spawn(&scene.bodies[0], makes, &first);
	body_spawn(&scene.bodies[1], makes, &second);
	body_spawn(&scene.bodies[2], looks_up, &second);
	for (unsigned i = 0; i < 3; i++)
		body_join(&scene.bodies[i]);
	sim_thread_join(1);
	for (unsigned i = 0; i < s.made; i++)
		look_up_stale(s.pids[i]);
	scene_settle();
	sim_check(wf_rcu_retired_bytes(scene.rt->rcu) == 0, "bytes are still retired");
	scene_destroy();
}

SCENE(coming, "processes come and go", 2, come_and_go);

SIM_TEST(table, a_header_found_in_a_section_is_nobody_elses)
{
	sim_must_pass(&coming, SCHEDULES);
}

/*
 * U1: two processes of worker 0 end while a thread wakes them: the wake may find one alive, and
 * send its header to the inbox of worker 0 when it has ended, and was joined, and worker 0 sleeps.
 * Worker 1 gets the header back, and must not use it before it is out of the inbox.
 */
static int makes_on_the_other(void *arg)
{
	struct weft_spawn_opts other = scene_opts(1, 0);
	struct body *body = body_begin(arg);
	weft_pid pids[2];

	for (unsigned i = 0; i < 2; i++)
		sim_check(weft_spawn_with(lives_shortly, NULL, &other, &pids[i]) == 0, "spawn");
	for (unsigned i = 0; i < 2; i++) {
		body_leave(body);
		sim_check(weft_join(pids[i], NULL, WEFT_FOREVER) == 0, "weft_join");
		body_enter(body);
	}
	for (unsigned i = 0; i < 4; i++) {
		sim_check(weft_spawn(does_nothing, NULL, NULL) == 0, "weft_spawn");
		(void)body_yield(body);
	}
	return body_end(body);
}

static void wake_who_ends(unsigned number)
{
	struct weft_spawn_opts second = scene_opts(2, 0);

	if (number == 1) {
		for (unsigned i = 0; i < 2; i++) {
			while (s.made <= i)
				wf_pause();
			(void)weft_wake(s.pids[i]);
		}
		return;
	}
	scene_create(2);
	body_spawn(&scene.bodies[0], makes_on_the_other, &second);
	body_join(&scene.bodies[0]);
	sim_thread_join(1);
	scene_destroy();
}

SCENE(ending, "wakes of those who end", 2, wake_who_ends);

SIM_TEST(table, a_header_in_an_inbox_is_not_used_again)
{
	sim_must_pass(&ending, SCHEDULES);
}

/* --- free headers --- */

/* A runtime that has no workers: three threads take headers from its table. */
static void setup_table(void)
{
	struct wf_past past;

	setup();
	sim_invariants_leave_out(); /* there is no runtime around the table */
	s.rt.allocator = *sim_runtime_opts(1)->allocator;
	s.rt.worker_count = 1;
	s.rt.processes_max = HEADERS;
	WF_CHECK(wf_registry_add(&s.rt, &past) == 0);
	WF_CHECK(wf_table_open(&s.rt, &past) == 0);
	wf_registry_publish(&s.rt);
}

static struct wf_proc *take(void)
{
	struct wf_proc *p = NULL;
	int r = wf_table_take(&s.rt, NULL, &p);

	sim_check(r == 0, "wf_table_take: %d", r);
	sim_check(p->index < HEADERS, "a header that does not exist");
	sim_check(!s.taken[p->index], "header %u is given out twice", p->index);
	s.taken[p->index] = true;
	/* As a new process does: what links free headers is its. */
	wf_u64_store_relaxed(&p->joiner, 0);
	s.takes++;
	return p;
}

static void give_back(struct wf_proc *p)
{
	s.taken[p->index] = false;
	wf_table_untake(&s.rt, NULL, p);
}

/*
 * Takes some, gives one back at once, and now and then gives all it keeps to the others, as a
 * thread does that turns to another runtime.
 */
static void take_and_forget(unsigned number)
{
	(void)number;
	for (unsigned i = 0; i < TAKES; i++) {
		struct wf_proc *p = take();

		if (sim_random(2))
			give_back(p);
		if (sim_random(2))
			wf_table_foreign_forget();
	}
	wf_table_foreign_forget();
}

/* Every header is with somebody, or can still be had. */
static void check_table(void)
{
	unsigned taken = 0, left = 0;
	struct wf_proc *p;
	struct wf_past past;

	for (unsigned i = 0; i < HEADERS; i++)
		taken += s.taken[i];
	while (wf_table_take(&s.rt, NULL, &p) == 0) {
		sim_check(!s.taken[p->index], "header %u is given out twice", p->index);
		s.taken[p->index] = true;
		left++;
	}
	sim_check(taken + left == HEADERS, "%u headers are lost", HEADERS - taken - left);
	wf_table_close(&s.rt, &past);
	sim_runtime_check();
}

static const struct sim_scenario free_headers = {
	"3 threads take headers", 3, setup_table, take_and_forget, NULL, check_table, 0};

SIM_TEST(table, a_free_header_is_given_to_one)
{
	sim_must_pass(&free_headers, SHORT_SCHEDULES);
}

/* --- planted --- */

SIM_TEST(table, planted_no_grace_period)
{
	sim_must_find(&coming, WF_PLANTED_retire_without_grace, 100000);
}

SIM_TEST(table, planted_used_while_in_an_inbox)
{
	sim_must_find(&ending, WF_PLANTED_reuse_while_linked, 400000);
}

SIM_TEST(table, planted_stack_without_a_tag)
{
	sim_must_find(&free_headers, WF_PLANTED_table_without_tag, 10000);
}
