/*
 * Runtimes and processes when what they ask the system for is refused: each call of create, spawn,
 * join, post, wait and destroy succeeds, or fails as documented and leaves nothing behind.
 *
 * Method: test/faults.h. The bounds on the number of faults only say that the hook is still asked.
 */
#include "test/faults.h"

#include "test/runtime.h"

/* --- The switch itself --- */

#if !WF_FAULTS
static_assert(wf_fault(SYS_mmap) == 0 && !wf_fails(SYS_mmap), "in release a constant");
#endif

Test(faults, the_planned_calls_fail_and_no_others)
{
	if (!WF_FAULTS)
		cr_skip_test("nothing fails in release");
	faults_plan(SYS_mmap, "mmap", 2, 2, EAGAIN);
	for (int i = 1; i <= 5; i++) {
		errno = 0;
		cr_assert_eq(wf_fault(SYS_munmap), 0);
		cr_assert_eq(wf_fault(SYS_mmap), i == 2 || i == 3 ? -EAGAIN : 0, "call %d", i);
		cr_assert_eq(errno, 0);
	}
	cr_assert_eq(faults_fired(), 2);
	faults_plan(SYS_mmap, "mmap", 1, 1, ENOMEM);
	errno = 0;
	cr_assert(!wf_fails(SYS_munmap));
	cr_assert_eq(errno, 0);
	cr_assert(wf_fails(SYS_mmap));
	cr_assert_eq(errno, ENOMEM);
	faults_plan_none();
	cr_assert(!wf_fails(SYS_mmap));
}

static void ask_elsewhere(unsigned index, void *arg)
{
	(void)index;
	(void)arg;
	cr_assert_eq(wf_fault(SYS_mmap), 0);
}

Test(faults, a_plan_may_be_for_one_thread)
{
	if (!WF_FAULTS)
		cr_skip_test("nothing fails in release");
	faults_plan(SYS_mmap, "mmap", 1, 1, ENOMEM);
	faults.only_mine = true;
	harness_threads(2, ask_elsewhere, NULL);
	cr_assert_eq(wf_fault(SYS_mmap), -ENOMEM);
}

/* --- Create and destroy --- */

static void create(void *opts)
{
	weft_rt *rt = faults_rt(*(const struct weft_rt_opts *)opts);

	if (rt)
		faults_rt_end(rt);
}

Test(faults, a_runtime_is_made_or_nothing_is, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 2, .idle = WEFT_IDLE_PARK};

	cr_assert_geq(faults_sweep(create, &opts, true), FAULTS_AT_LEAST(60));
}

/* A CPU list that the caller may use: "3,5". */
static void cpu_list(char *text_out, size_t size, unsigned count)
{
	cpu_set_t set;
	size_t length = 0;

	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	for (size_t cpu = 0; count > 0 && cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set)) {
			length += (size_t)snprintf(
				text_out + length, size - length, "%s%zu", length ? "," : "", cpu);
			count--;
		}
}

Test(faults, a_pinned_runtime_with_guards_is_made_or_nothing_is, .timeout = 120)
{
	char cpus[32];
	struct weft_rt_opts opts = {.workers = 1,
		.cpus = cpus,
		.idle = WEFT_IDLE_PARK,
		.flags = WEFT_RT_GUARD_REPORT | WEFT_RT_GUARD_MPROTECT | WEFT_RT_RAISE_FD_LIMIT
			| WEFT_RT_STALL_BACKTRACE};

	cpu_list(cpus, sizeof(cpus), 1);
	cr_assert_geq(faults_sweep(create, &opts, true), FAULTS_AT_LEAST(60));
}

/* Worker 0 measures a park and a wake before it runs. */
Test(faults, a_runtime_that_measures_is_made_or_nothing_is, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 1, .pin = WEFT_PIN_ON};

	cr_assert_geq(faults_sweep(create, &opts, false), FAULTS_AT_LEAST(50));
}

/* --- Arguments, whose destructor is called exactly once, or never --- */

struct owned {
	bool taken; /* a spawn has succeeded */
	wf_atomic_u32 runs, ends;
};

static int owned_run(void *arg)
{
	struct owned *owned = arg;

	(void)wf_u32_fetch_add(&owned->runs, 1);
	return 7;
}

static void owned_end(void *arg)
{
	struct owned *owned = arg;

	(void)wf_u32_fetch_add(&owned->ends, 1);
}

/* After the runtime has ended. */
static void owned_check(const struct owned *owned, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		cr_assert_eq(wf_u32_load_relaxed(&owned[i].ends), owned[i].taken, "owned %zu", i);
		cr_assert_leq(wf_u32_load_relaxed(&owned[i].runs), owned[i].taken, "owned %zu", i);
	}
}

/* A process's result: its body's, or -ENOMEM if there was no stack for it. */
static void check_result(int result, int body)
{
	if (result == body)
		return;
	cr_assert_gt(faults_fired(), 0);
	cr_assert_eq(result, -ENOMEM);
}

static void join_as(weft_pid pid, int body)
{
	int result = 0;

	cr_assert_eq(CALL(weft_join(pid, &result, WEFT_FOREVER)), 0);
	check_result(result, body);
}

/* --- Signals --- */

static int handles_a_signal(void *arg)
{
	(void)arg;
	cr_assert_eq(CALL(weft_signal_subscribe(WEFT_SIGNAL_BIT(SIGTERM))), 0);
	cr_assert_eq(CALL(weft_signal_wait(WEFT_POLL)), -EAGAIN);
	cr_assert_eq(kill(getpid(), SIGTERM), 0);
	cr_assert_eq(CALL(weft_signal_wait(WEFT_FOREVER)), SIGTERM);
	return 1;
}

/* The mask is given back whatever has failed; so are the signals, or the next run is refused. */
static void run_owner(void *opts)
{
	sigset_t before, after;
	weft_pid pid;
	weft_rt *rt;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	rt = faults_rt(*(const struct weft_rt_opts *)opts);
	if (rt) {
		if (documented(CALL(weft_rt_spawn(rt, handles_a_signal, NULL, NULL, &pid)),
			    -ENOMEM)) {
			cr_assert_eq(CALL(weft_rt_run(rt)), 0);
			join_as(pid, 1);
		}
		faults_rt_end(rt);
	}
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (int signo = 1; signo <= 64; signo++)
		cr_assert_eq(sigismember(&after, signo), sigismember(&before, signo));
}

Test(faults, signals_are_owned_or_not, .timeout = 120)
{
	struct weft_rt_opts opts = {
		.workers = 2, .idle = WEFT_IDLE_PARK, .flags = WEFT_RT_SIGNALS};

	cr_assert_geq(faults_sweep(run_owner, &opts, true), FAULTS_AT_LEAST(70));
}

/* --- Spawning from inside --- */

struct life {
	weft_rt *rt;
	struct owned owned[6];
};

/* False: it failed as it may. */
static bool spawn_owned(
	struct owned *owned, const char *name, size_t stack_size, unsigned flags, weft_pid *pid_out)
{
	struct weft_spawn_opts opts = {.size = sizeof(opts),
		.name = name,
		.stack_size = stack_size,
		.flags = flags,
		.arg_dtor = owned_end};
	int r = CALL(weft_spawn_with(owned_run, owned, &opts, pid_out));

	owned->taken = documented(r, -ENOMEM);
	if (!owned->taken && pid_out)
		cr_assert(weft_pid_is_none(*pid_out));
	return owned->taken;
}

static void spawn_plain(void)
{
	int number = 3;
	weft_pid pid;

	if (documented(CALL(weft_spawn(returns, &number, &pid)), -ENOMEM))
		join_as(pid, 3);
}

static void spawn_detached(void)
{
	weft_pid pid;

	if (documented(CALL(weft_spawn(parks, NULL, &pid)), -ENOMEM)) {
		cr_assert_eq(CALL(weft_detach(pid)), 0);
		(void)CALL(weft_wake(pid));
	}
}

static void spawn_suspended(struct owned *owned)
{
	weft_pid pid;

	if (!spawn_owned(owned, NULL, 0, WEFT_SUSPENDED, &pid))
		return;
	cr_assert_eq(CALL(weft_wake(pid)), 0);
	join_as(pid, 7);
}

static void reserve_and_abort(void)
{
	weft_pid pid;

	if (!documented(CALL(weft_spawn_reserve(&pid)), -ENOMEM))
		return;
	cr_assert_eq(CALL(weft_spawn_abort(pid)), 0);
	cr_assert_eq(CALL(weft_spawn_abort(pid)), -ESRCH);
}

/* A commit that fails leaves the reservation: the second one succeeds, or it is given up. */
static void reserve_and_commit(struct owned *owned)
{
	struct weft_spawn_opts opts = {
		.size = sizeof(opts), .name = "reserved", .arg_dtor = owned_end};
	weft_pid pid;
	int r;

	if (!documented(CALL(weft_spawn_reserve(&pid)), -ENOMEM))
		return;
	r = CALL(weft_spawn_commit(pid, owned_run, owned, &opts));
	if (!documented(r, -ENOMEM))
		r = CALL(weft_spawn_commit(pid, owned_run, owned, &opts));
	owned->taken = documented(r, -ENOMEM);
	if (owned->taken)
		join_as(pid, 7);
	else
		cr_assert_eq(CALL(weft_spawn_abort(pid)), 0);
}

static int live(void *arg)
{
	struct life *life = arg;
	weft_pid pid;

	spawn_plain();
	spawn_detached();
	if (spawn_owned(&life->owned[0], "small", 16384, 0, &pid))
		join_as(pid, 7);
	if (spawn_owned(&life->owned[1], "now", 20000, WEFT_STACK_NOW, &pid))
		join_as(pid, 7);
	if (spawn_owned(&life->owned[2], NULL, (size_t)9 << 20, WEFT_MOVABLE, &pid))
		join_as(pid, 7);
	(void)spawn_owned(&life->owned[3], "detached", 0, WEFT_DETACHED, NULL);
	spawn_suspended(&life->owned[4]);
	reserve_and_abort();
	reserve_and_commit(&life->owned[5]);
	return 1;
}

static void run_live(void *opts)
{
	struct life life = {.rt = faults_rt(*(const struct weft_rt_opts *)opts)};
	weft_pid pid;

	if (!life.rt)
		return;
	if (documented(CALL(weft_rt_spawn(life.rt, live, &life, NULL, &pid)), -ENOMEM))
		join_as(pid, 1);
	faults_rt_end(life.rt);
	owned_check(life.owned, WF_ARRAY_COUNT(life.owned));
}

Test(faults, processes_are_spawned_or_refused, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 1, .idle = WEFT_IDLE_PARK};

	cr_assert_geq(faults_sweep(run_live, &opts, true), FAULTS_AT_LEAST(100));
}

Test(faults, processes_are_spawned_or_refused_by_two_workers, .timeout = 120)
{
	struct weft_rt_opts opts = {
		.workers = 2, .idle = WEFT_IDLE_PARK, .flags = WEFT_RT_GUARD_MPROTECT};

	cr_assert_geq(faults_sweep(run_live, &opts, true), FAULTS_AT_LEAST(100));
}

/* --- From threads of the host's --- */

struct foreign {
	weft_rt *rt;
	struct owned owned[3];
	wf_atomic_u32 posts_run;
	unsigned posts_taken;
};

static void post_one(struct foreign *foreign)
{
	if (documented(CALL(weft_post(foreign->rt, count_one, &foreign->posts_run)), -ENOMEM))
		foreign->posts_taken++;
}

static void foreign_thread(unsigned index, void *arg)
{
	struct foreign *foreign = arg;
	weft_pid pid;

	(void)index;
	for (size_t i = 0; i < WF_ARRAY_COUNT(foreign->owned); i++) {
		struct weft_spawn_opts opts = {.size = sizeof(opts),
			.name = "foreign",
			.flags = i == 2 ? WEFT_STACK_NOW : 0,
			.arg_dtor = owned_end};
		int r = CALL(
			weft_rt_spawn(foreign->rt, owned_run, &foreign->owned[i], &opts, &pid));

		foreign->owned[i].taken = documented(r, -ENOMEM);
		if (!foreign->owned[i].taken)
			continue;
		if (i == 1)
			cr_assert_eq(CALL(weft_detach(pid)), 0);
		else
			join_as(pid, 7);
		post_one(foreign);
	}
	if (documented(CALL(weft_rt_spawn(foreign->rt, parks, NULL, NULL, &pid)), -ENOMEM)) {
		int r = CALL(weft_join(pid, NULL, weft_after(WEFT_US(50))));

		if (r == 0)
			return; /* without a stack, it has ended */
		cr_assert_eq(r, -ETIME);
		(void)CALL(weft_cancel(pid));
		join_as(pid, -ECANCELED);
	}
}

static void run_foreign(void *opts)
{
	struct foreign foreign = {.rt = faults_rt(*(const struct weft_rt_opts *)opts)};

	if (!foreign.rt)
		return;
	harness_threads(1, foreign_thread, &foreign);
	faults_rt_end(foreign.rt);
	owned_check(foreign.owned, WF_ARRAY_COUNT(foreign.owned));
	cr_assert_eq(wf_u32_load_relaxed(&foreign.posts_run), foreign.posts_taken);
}

Test(faults, foreign_threads_spawn_post_and_join_or_are_refused, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 2, .idle = WEFT_IDLE_PARK};

	cr_assert_geq(faults_sweep(run_foreign, &opts, true), FAULTS_AT_LEAST(80));
}

/* Each process has to make its key for foreign threads once: a refusal must not be for ever. */
Test(faults, a_foreign_thread_is_refused_once_and_served_the_next_time, .timeout = 20)
{
	struct weft_rt_opts opts = {.workers = 1, .idle = WEFT_IDLE_PARK};
	int number = 5;
	weft_pid pid;
	weft_rt *rt;

	if (!WF_FAULTS)
		cr_skip_test("nothing fails in release");
	faults_plan(WF_CALL_THREAD_KEY, "pthread_key", 1, 1, EAGAIN);
	rt = faults_rt(opts);
	cr_assert_eq(CALL(weft_rt_spawn(rt, returns, &number, NULL, &pid)), -ENOMEM);
	cr_assert_eq(CALL(weft_rt_spawn(rt, returns, &number, NULL, &pid)), 0);
	join_as(pid, 5);
	faults_rt_end(rt);
}

/* --- Stacks --- */

enum {
	CROWD = 70, /* more than a slab has of the smallest size */
};

struct crowd {
	weft_pid pids[CROWD];
	wf_atomic_u32 let_go;
};

static int wait_in_crowd(void *arg)
{
	struct crowd *crowd = arg;

	while (wf_u32_load_acquire(&crowd->let_go) == 0 && weft_park(WEFT_FOREVER) == 0)
		;
	return 9;
}

static int gather(void *arg)
{
	struct crowd *crowd = arg;

	for (int i = 0; i < CROWD; i++) {
		int r = CALL(weft_spawn(wait_in_crowd, crowd, &crowd->pids[i]));

		if (!documented(r, -ENOMEM))
			crowd->pids[i].raw = 0;
		(void)weft_yield();
	}
	wf_u32_store_release(&crowd->let_go, 1);
	for (int i = 0; i < CROWD; i++) {
		if (weft_pid_is_none(crowd->pids[i]))
			continue;
		(void)CALL(weft_wake(crowd->pids[i]));
		join_as(crowd->pids[i], 9);
	}
	return 1;
}

static void run_crowd(void *opts)
{
	weft_rt *rt = faults_rt(*(const struct weft_rt_opts *)opts);
	struct crowd crowd = {.let_go = {0}};
	weft_pid pid;

	if (!rt)
		return;
	if (documented(CALL(weft_rt_spawn(rt, gather, &crowd, NULL, &pid)), -ENOMEM))
		join_as(pid, 1);
	faults_rt_end(rt);
}

Test(faults, without_a_stack_a_process_ends_and_the_rest_go_on, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 1, .idle = WEFT_IDLE_PARK, .stack_size = 16384};

	cr_assert_geq(faults_sweep(run_crowd, &opts, true), FAULTS_AT_LEAST(200));
}

Test(faults, without_an_mprotect_guard_a_process_ends_and_the_rest_go_on, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 1,
		.idle = WEFT_IDLE_PARK,
		.stack_size = 16384,
		.flags = WEFT_RT_GUARD_MPROTECT};

	cr_assert_geq(faults_sweep(run_crowd, &opts, true), FAULTS_AT_LEAST(200));
}

/* --- Time --- */

static int sleep_and_wait(void *arg)
{
	weft_time until;
	weft_pid pid;

	(void)arg;
	for (int i = 1; i <= 3; i++) {
		until = weft_after(WEFT_US(100 * i));
		cr_assert_eq(CALL(weft_sleep_until(until)), 0);
		cr_assert_geq(weft_now(), until);
	}
	until = weft_after(WEFT_MS(1));
	cr_assert_eq(CALL(weft_park(until)), -ETIME);
	cr_assert_geq(weft_now(), until);
	if (!documented(CALL(weft_spawn(parks, NULL, &pid)), -ENOMEM))
		return 1;
	until = weft_after(WEFT_US(100));
	if (CALL(weft_join(pid, NULL, until)) == 0)
		return 1; /* no stack */
	cr_assert_geq(weft_now(), until);
	(void)CALL(weft_cancel(pid));
	join_as(pid, -ECANCELED);
	return 1;
}

static void run_sleep(void *opts)
{
	weft_rt *rt = faults_rt(*(const struct weft_rt_opts *)opts);
	weft_pid pid;

	if (!rt)
		return;
	if (documented(CALL(weft_rt_spawn(rt, sleep_and_wait, NULL, NULL, &pid)), -ENOMEM)) {
		join_as(pid, 1);
		cr_assert_eq(CALL(weft_rt_run(rt)), 0);
	}
	faults_rt_end(rt);
}

Test(faults, timers_are_never_early_and_a_refused_sleep_ends_nothing, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 2, .idle = WEFT_IDLE_PARK};

	cr_assert_geq(faults_sweep(run_sleep, &opts, true), FAULTS_AT_LEAST(90));
}

/* --- Embedded runtimes --- */

static void run_embedded(void *opts)
{
	weft_rt *rt = faults_rt(*(const struct weft_rt_opts *)opts);
	weft_pid pid;
	int result, r;

	if (!rt)
		return;
	/* ENOSPC: of the alarm's registration with epoll. */
	(void)documented(CALL(weft_rt_fd(rt)), -EMFILE, -ENFILE, -ENODEV, -ENOMEM, -ENOSPC);
	if (documented(CALL(weft_rt_spawn(rt, sleep_and_wait, NULL, NULL, &pid)), -ENOMEM)) {
		while ((r = CALL(weft_try_join(pid, &result))) == -EAGAIN)
			cr_assert_geq(CALL(weft_rt_poll(rt, WEFT_FOREVER)), 0);
		cr_assert_eq(r, 0);
		check_result(result, 1);
		cr_assert_eq(CALL(weft_rt_run(rt)), 0);
		cr_assert_eq(CALL(weft_rt_poll(rt, WEFT_POLL)), -ESHUTDOWN);
	}
	faults_rt_end(rt);
}

Test(faults, an_embedded_runtime_goes_on_or_is_not_made, .timeout = 120)
{
	struct weft_rt_opts opts = {.flags = WEFT_RT_EMBEDDED | WEFT_RT_GUARD_REPORT};

	cr_assert_geq(faults_sweep(run_embedded, &opts, true), FAULTS_AT_LEAST(60));
}

/* --- Calls on all workers; a process to wait for --- */

static wf_atomic_u32 called, dropped;

static int is_called(void *arg)
{
	(void)arg;
	(void)wf_u32_fetch_add(&called, 1);
	return 0;
}

static void drop_call(void *arg)
{
	(void)arg;
	(void)wf_u32_fetch_add(&dropped, 1);
}

static void run_calls(void *opts)
{
	weft_rt *rt = faults_rt(*(const struct weft_rt_opts *)opts);
	struct owned owned = {0};
	struct weft_spawn_opts spawn = {
		.size = sizeof(spawn), .name = "asked", .arg_dtor = owned_end};
	int result = 0;
	bool accepted;

	if (!rt)
		return;
	wf_u32_store_relaxed(&called, 0);
	wf_u32_store_relaxed(&dropped, 0);
	accepted = documented(
		CALL(weft_rt_run_on_workers(rt, is_called, NULL, drop_call)), -ENOMEM);
	owned.taken = documented(
		CALL(weft_rt_block_on(rt, owned_run, &owned, &spawn, &result)), -ENOMEM);
	if (owned.taken)
		check_result(result, 7);
	cr_assert_eq(CALL(weft_rt_run(rt)), 0);
	cr_assert_eq(wf_u32_load_relaxed(&called), accepted ? 2 : 0);
	cr_assert_eq(wf_u32_load_relaxed(&dropped), accepted);
	faults_rt_end(rt);
	owned_check(&owned, 1);
}

Test(faults, a_call_runs_on_all_workers_or_on_none, .timeout = 120)
{
	struct weft_rt_opts opts = {.workers = 2, .idle = WEFT_IDLE_PARK};

	cr_assert_geq(faults_sweep(run_calls, &opts, true), FAULTS_AT_LEAST(70));
}
