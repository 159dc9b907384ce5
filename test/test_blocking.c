/*
 * Goal: what <weft/blocking.h> promises: jobs run once, in line, under the cap; a deadline and a
 * cancel take back what has not begun and wait for what has; threads come, are kept, and end; a
 * stop drops posts or waits for them; what outlives it is named.
 * Method: jobs hold gates that the test opens, so that each state is reached and not waited for;
 * the pool's figures (core/pool.h) tell when a job is in line and when a thread is idle.
 */
#include "test/faults.h"

#include <stdio.h>

#include "core/runtime.h"
#include "sync/futex.h"
#include "test/runtime.h"

enum { GATES = 8 };

/* Closed at first; whoever waits there blocks its thread. */
struct gate {
	wf_atomic_u32 word, waiting;
};

static struct gate gates[GATES];

static void gate_open(struct gate *gate)
{
	wf_u32_store_seq_cst(&gate->word, 1);
	wf_futex_wake(&gate->word, INT32_MAX);
}

/* A job: says that it is there, and returns the gate's number when it is open. */
static int waits_at(void *arg)
{
	struct gate *gate = arg;

	wf_u32_fetch_add(&gate->waiting, 1);
	while (!wf_u32_load_acquire(&gate->word))
		(void)wf_futex_sleep(&gate->word, 0, WF_FUTEX_FOREVER);
	return (int)(gate - gates);
}

static bool is_reached(struct gate *gate)
{
	return wf_u32_load_acquire(&gate->waiting) > 0;
}

static struct wf_blocking_stats figures(const weft_rt *rt)
{
	struct wf_blocking_stats stats;

	wf_blocking_stats(rt, &stats);
	return stats;
}

static weft_rt *pool_of(unsigned workers, unsigned threads_max)
{
	return runtime_new_with(&(struct weft_rt_opts){
		.workers = workers, .blocking_threads_max = threads_max, .log = faults_log});
}

static int post(weft_rt *rt, weft_fn fn, void *arg, unsigned flags, void (*dtor)(void *arg))
{
	return weft_blocking_post(rt, fn, arg,
		&(struct weft_blocking_opts){.size = sizeof(struct weft_blocking_opts),
			.name = "posted", .flags = flags, .arg_dtor = dtor});
}

/* An argument's destructor. */
static wf_atomic_u32 dropped_count;

static void drops(void *arg)
{
	(void)arg;
	wf_u32_fetch_add(&dropped_count, 1);
}

/* --- Calls --- */

static int tells_where(void *arg)
{
	*(bool *)arg = weft_rt_current() == NULL && weft_pid_is_none(weft_self());
	return 42;
}

static int calls_both(void *arg)
{
	bool outside = false;
	int result = 0;

	(void)arg;
	errno = FAULTS_ERRNO;
	cr_assert_eq(weft_blocking(tells_where, &outside, &result, WEFT_FOREVER), 0);
	cr_assert(outside && result == 42);
	outside = false;
	cr_assert_eq(weft_block_in_place(tells_where, &outside, &result), 0);
	cr_assert(outside && result == 42);
	cr_assert_eq(weft_blocking(tells_where, &outside, NULL, weft_after(WEFT_SEC(100))), 0);
	cr_assert_eq(weft_block_in_place(tells_where, &outside, NULL), 0);
	cr_assert_eq(errno, FAULTS_ERRNO);
	return 0;
}

Test(blocking, a_call_runs_outside_the_worker_and_returns_its_result, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, calls_both, NULL), 0);
	cr_assert_eq(in_runtime(2, calls_both, NULL), 0);
}

static int must_not_run(void *arg)
{
	(void)arg;
	cr_assert_fail("it has run");
	return 0;
}

static int refused_calls(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_blocking(NULL, NULL, NULL, WEFT_FOREVER), -EINVAL);
	cr_assert_eq(weft_block_in_place(NULL, NULL, NULL), -EINVAL);
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, WEFT_POLL), -EAGAIN);
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, 0), -ETIME);
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, weft_now() - WEFT_SEC(1)), -ETIME);
	weft_cancel(weft_self());
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, WEFT_FOREVER), -ECANCELED);
	cr_assert_eq(weft_blocking_post(weft_rt_current(), NULL, NULL, NULL), -EINVAL);
	cr_assert_eq(post(weft_rt_current(), must_not_run, NULL, 8, NULL), -EINVAL);
	cr_assert_eq(figures(weft_rt_current()).threads, 0, "a refused call makes no thread");
	return 0;
}

Test(blocking, what_cannot_wait_is_refused_and_never_runs, .timeout = 120)
{
	struct weft_rt_opts opts = {
		.size = sizeof opts, .workers = 1, .log = faults_log, .blocking_keep_alive_ns = -1};
	weft_rt *rt;

	cr_assert_eq(in_runtime(1, refused_calls, NULL), 0);
	cr_assert_eq(weft_rt_create(&opts, &rt), -EINVAL);
	opts.blocking_keep_alive_ns = 0;
	opts.blocking_threads_max = 65537;
	cr_assert_eq(weft_rt_create(&opts, &rt), -EINVAL);
}

static void in_a_post(void *arg)
{
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_block_in_place(must_not_run, NULL, NULL), -EPERM);
	count_one(arg);
}

static int nested(void *arg)
{
	bool outside = false;
	int result = 0;

	(void)arg;
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, WEFT_FOREVER), -EPERM);
	cr_assert_eq(weft_block_in_place(tells_where, &outside, &result), 0);
	cr_assert(outside && result == 42);
	return 7;
}

static int calls_nested(void *arg)
{
	int result = 0;

	(void)arg;
	cr_assert_eq(weft_blocking(nested, NULL, &result, WEFT_FOREVER), 0);
	return result;
}

Test(blocking, outside_a_process_in_place_is_a_plain_call, .timeout = 120)
{
	weft_rt *rt = pool_of(1, 1);
	wf_atomic_u32 posts = {0};

	cr_assert_eq(nested(NULL), 7);
	cr_assert_eq(runtime_do(rt, calls_nested, NULL), 7, "inside blocking work");
	cr_assert_eq(weft_post(rt, in_a_post, &posts), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&posts) == 1);
	runtime_end(rt);
}

static int calls_at(void *gate)
{
	int result = -1;
	int r = weft_blocking(waits_at, gate, &result, WEFT_FOREVER);

	return r < 0 ? r : result;
}

static int calls_one_after_the_other(void *arg)
{
	bool outside;

	(void)arg;
	for (int i = 0; i < 200; i++) {
		cr_assert_eq(weft_blocking(tells_where, &outside, NULL, WEFT_FOREVER), 0);
		cr_assert_eq(weft_block_in_place(tells_where, &outside, NULL), 0);
	}
	return (int)figures(weft_rt_current()).threads;
}

Test(blocking, calls_in_a_row_need_one_thread, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, calls_one_after_the_other, NULL), 1);
}

/* --- The cap, the line --- */

static int order[3];
static wf_atomic_u32 order_count;

static int notes_its_turn(void *arg)
{
	order[wf_u32_load_relaxed(&order_count)] = *(const int *)arg;
	wf_u32_fetch_add(&order_count, 1); /* one at a time: the cap is 1 */
	return 0;
}

static int in_line(void *arg)
{
	static int numbers[] = {0, 1, 2};
	weft_rt *rt = weft_rt_current();
	weft_pid first = spawned(calls_at, &gates[0]);

	(void)arg;
	UNTIL(is_reached(&gates[0]));
	for (int i = 0; i < 3; i++)
		cr_assert_eq(post(rt, notes_its_turn, &numbers[i], 0, NULL), 0);
	cr_assert_eq(figures(rt).threads, 1);
	cr_assert_eq(figures(rt).queued, 3);
	cr_assert_eq(wf_u32_load_relaxed(&order_count), 0);
	gate_open(&gates[0]);
	UNTIL(wf_u32_load_acquire(&order_count) == 3);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(order[i], i);
	UNTIL(figures(rt).idle == 1);
	cr_assert_eq(figures(rt).threads, 1);
	return joined(first);
}

Test(blocking, jobs_beyond_the_cap_wait_in_line, .timeout = 120)
{
	weft_rt *rt = pool_of(1, 1);

	cr_assert_eq(runtime_do(rt, in_line, NULL), 0);
	runtime_end(rt);
}

/* Never more than the cap at once, whatever is submitted; and all of them run. */
static wf_atomic_u32 at_once, most_at_once, jobs_run;

static int counts_itself(void *arg)
{
	uint32_t now = wf_u32_fetch_add(&at_once, 1) + 1;
	uint32_t most = wf_u32_load_relaxed(&most_at_once);

	(void)arg;
	while (now > most && !wf_u32_cas(&most_at_once, &most, now))
		;
	sched_yield();
	wf_u32_fetch_add(&at_once, -1u);
	wf_u32_fetch_add(&jobs_run, 1);
	return 0;
}

static int calls_many(void *count)
{
	for (int i = 0; i < *(int *)count; i++)
		cr_assert_eq(weft_blocking(counts_itself, NULL, NULL, WEFT_FOREVER), 0);
	return 0;
}

static void posts_many(unsigned index, void *arg)
{
	(void)index;
	for (int i = 0; i < 500 / HARNESS_SLOWDOWN; i++)
		cr_assert_eq(post(arg, counts_itself, NULL, 0, NULL), 0);
}

Test(blocking, the_cap_holds_for_calls_and_posts_of_all_threads, .timeout = 120)
{
	enum { CALLERS = 16, THREADS = 3 };
	int calls = 200 / HARNESS_SLOWDOWN;
	weft_pid pids[CALLERS];
	weft_rt *rt = pool_of(2, 3);
	uint32_t all = (uint32_t)(CALLERS * calls + THREADS * (500 / HARNESS_SLOWDOWN));

	for (int i = 0; i < CALLERS; i++)
		cr_assert_eq(weft_rt_spawn(rt, calls_many, &calls, NULL, &pids[i]), 0);
	harness_threads(THREADS, posts_many, rt);
	for (int i = 0; i < CALLERS; i++)
		cr_assert_eq(weft_join(pids[i], NULL, WEFT_FOREVER), 0);
	cr_assert_eq(weft_rt_run(rt), 0, "it ends when the posts have run");
	cr_assert_eq(wf_u32_load_relaxed(&jobs_run), all);
	cr_assert_leq(wf_u32_load_relaxed(&most_at_once), 3);
	cr_assert_leq(figures(rt).threads, 3);
	runtime_end(rt);
}

static int blocks_at(void *gate)
{
	int result = -1;

	cr_assert_eq(weft_block_in_place(waits_at, gate, &result), 0);
	return result;
}

/* One that blocks in place takes nobody's turn, and has none. */
static int beyond_the_cap(void *arg)
{
	weft_rt *rt = weft_rt_current();
	weft_pid pids[4];
	bool outside;

	(void)arg;
	pids[0] = spawned(blocks_at, &gates[0]);
	UNTIL(is_reached(&gates[0]));
	cr_assert_eq(weft_blocking(tells_where, &outside, NULL, WEFT_FOREVER), 0);
	pids[1] = spawned(calls_at, &gates[1]);
	UNTIL(is_reached(&gates[1]));
	pids[2] = spawned(calls_at, &gates[2]);
	UNTIL(figures(rt).queued == 1);
	pids[3] = spawned(blocks_at, &gates[3]);
	UNTIL(is_reached(&gates[3]));
	cr_assert(!is_reached(&gates[2]));
	cr_assert_eq(figures(rt).threads, 3);
	/* A thread that has ended such a call does not serve above the cap. */
	gate_open(&gates[0]);
	cr_assert_eq(joined(pids[0]), 0);
	UNTIL(figures(rt).idle == 1);
	cr_assert(!is_reached(&gates[2]));
	for (int i = 1; i < 4; i++)
		gate_open(&gates[i]);
	for (int i = 1; i < 4; i++)
		cr_assert_eq(joined(pids[i]), i);
	return 0;
}

Test(blocking, in_place_is_neither_under_the_cap_nor_in_line, .timeout = 120)
{
	weft_rt *rt = pool_of(1, 1);

	cr_assert_eq(runtime_do(rt, beyond_the_cap, NULL), 0);
	runtime_end(rt);
}

/* --- B1 --- */

static pthread_barrier_t barrier;

static int waits_at_the_barrier(void *arg)
{
	(void)arg;
	pthread_barrier_wait(&barrier);
	return 5;
}

static int blocks_at_the_barrier(void *arg)
{
	int result = 0;

	cr_assert_eq(weft_block_in_place(waits_at_the_barrier, arg, &result), 0);
	return result;
}

/* The last to come to the barrier is a foreign thread, after 1000 processes have finished. */
Test(blocking, all_workers_in_place_leave_the_others_running, .timeout = 120)
{
	enum { WORKERS = 4, OTHERS = 1000 };
	struct weft_spawn_opts opts = {.size = sizeof opts};
	weft_rt *rt = runtime_new(WORKERS);
	weft_pid blocked[WORKERS], others[OTHERS];
	int result, zero = 0;

	cr_assert_eq(pthread_barrier_init(&barrier, NULL, WORKERS + 1), 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		opts.worker = WEFT_WORKER(i);
		cr_assert_eq(weft_rt_spawn(rt, blocks_at_the_barrier, NULL, &opts, &blocked[i]), 0);
	}
	for (int i = 0; i < OTHERS; i++)
		cr_assert_eq(weft_rt_spawn(rt, returns, &zero, NULL, &others[i]), 0);
	for (int i = 0; i < OTHERS; i++)
		cr_assert_eq(weft_join(others[i], NULL, WEFT_FOREVER), 0);
	for (int i = 0; i < WORKERS; i++)
		cr_assert_eq(weft_try_join(blocked[i], NULL), -EAGAIN);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < WORKERS; i++) {
		cr_assert_eq(weft_join(blocked[i], &result, WEFT_FOREVER), 0);
		cr_assert_eq(result, 5);
	}
	runtime_end(rt);
	pthread_barrier_destroy(&barrier);
}

/* --- Deadlines and cancels --- */

struct timed {
	struct gate *gate;
	weft_time delay_ns;
};

static int calls_with_a_deadline(void *arg)
{
	const struct timed *timed = arg;
	int result = -1;
	int r = weft_blocking(waits_at, timed->gate, &result, weft_after(timed->delay_ns));

	return r < 0 ? r : result;
}

static int calls_must_not_run(void *arg)
{
	(void)arg;
	return weft_blocking(must_not_run, NULL, NULL, WEFT_FOREVER);
}

/* Behind one that holds the only thread. */
static int taken_back(void *arg)
{
	weft_rt *rt = weft_rt_current();
	weft_pid holder = spawned(calls_at, &gates[0]), waiter;

	(void)arg;
	UNTIL(is_reached(&gates[0]));
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, weft_after(WEFT_MS(1))), -ETIME);
	cr_assert_eq(figures(rt).queued, 0);
	waiter = spawned(calls_must_not_run, NULL);
	UNTIL(figures(rt).queued == 1);
	cr_assert_eq(weft_cancel(waiter), 0);
	cr_assert_eq(joined(waiter), -ECANCELED);
	cr_assert_eq(figures(rt).queued, 0);
	gate_open(&gates[0]);
	return joined(holder);
}

Test(blocking, what_is_in_line_is_taken_back, .timeout = 120)
{
	weft_rt *rt = pool_of(1, 1);

	cr_assert_eq(runtime_do(rt, taken_back, NULL), 0);
	runtime_end(rt);
}

static int waited_for(void *arg)
{
	struct timed timed = {.gate = &gates[1], .delay_ns = WEFT_MS(1)};
	weft_pid late, cancelled;

	(void)arg;
	/* Until its thread is there before the deadline. */
	do {
		late = spawned(calls_with_a_deadline, &timed);
		timed.delay_ns *= 2;
		UNTIL(is_reached(&gates[1]) || weft_try_join(late, NULL) == 0);
	} while (!is_reached(&gates[1]));
	cr_assert_eq(weft_sleep_until(weft_after(timed.delay_ns)), 0);
	cr_assert_eq(weft_try_join(late, NULL), -EAGAIN, "it left its argument to a thread");
	gate_open(&gates[1]);
	cr_assert_eq(joined(late), 1, "a result is a success after the deadline too");
	cancelled = spawned(calls_at, &gates[2]);
	UNTIL(is_reached(&gates[2]));
	cr_assert_eq(weft_cancel(cancelled), 0);
	for (int i = 0; i < 50; i++)
		cr_assert_eq(weft_yield(), 0);
	cr_assert_eq(weft_try_join(cancelled, NULL), -EAGAIN);
	gate_open(&gates[2]);
	cr_assert_eq(joined(cancelled), 2);
	cancelled = spawned(blocks_at, &gates[3]);
	weft_cancel(cancelled);
	UNTIL(is_reached(&gates[3]));
	gate_open(&gates[3]);
	cr_assert_eq(joined(cancelled), 3, "a cancel does not prevent a call in place");
	return 0;
}

Test(blocking, what_runs_is_waited_for, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, waited_for, NULL), 0);
}

static int adds_one(void *arg)
{
	return (*(int *)arg)++ * 0;
}

/* Deadlines about as long as a wake: taken back, handed, running, done; never both, never lost. */
static int races_its_deadline(void *arg)
{
	uint64_t random = harness_seed() + (uintptr_t)arg;
	int runs = 0, successes = 0;

	for (int i = 0; i < 2000 / HARNESS_SLOWDOWN; i++) {
		weft_time delay = (weft_time)harness_random_below(&random, 100000) + 1;
		int r = weft_blocking(adds_one, &runs, NULL, weft_after(delay));

		cr_assert(r == 0 || r == -ETIME, "%d", r);
		successes += r == 0;
		cr_assert_eq(runs, successes, "run and refused, or neither");
	}
	return 0;
}

Test(blocking, a_deadline_beside_the_begin_is_one_or_the_other, .timeout = 120)
{
	weft_rt *rt = pool_of(2, 2);
	weft_pid pids[4];

	for (uintptr_t i = 0; i < 4; i++)
		cr_assert_eq(
			weft_rt_spawn(rt, races_its_deadline, (void *)i, NULL, &pids[i]), 0);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(weft_join(pids[i], NULL, WEFT_FOREVER), 0);
	cr_assert_eq(figures(rt).queued, 0);
	runtime_end(rt);
}

/* --- Threads --- */

static void find_name(char *name_out, size_t size)
{
	FILE *file = fopen("/proc/thread-self/comm", "re");

	cr_assert_not_null(file);
	cr_assert_not_null(fgets(name_out, (int)size, file));
	fclose(file);
}

static int looks_at_itself(void *arg)
{
	cpu_set_t *allowed = arg;
	cpu_set_t mine;
	sigset_t blocked;
	char name[32];

	find_name(name, sizeof name);
	cr_assert_str_eq(name, "weft/averylo/b0\n");
	cr_assert_eq(sched_getaffinity(0, sizeof mine, &mine), 0);
	cr_assert(CPU_EQUAL(&mine, allowed), "it has its worker's CPU");
	cr_assert_eq(pthread_sigmask(SIG_SETMASK, NULL, &blocked), 0);
	cr_assert(sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGUSR1));
	cr_assert(!sigismember(&blocked, SIGSEGV));
	return 0;
}

static int calls_look(void *allowed)
{
	return weft_blocking(looks_at_itself, allowed, NULL, WEFT_FOREVER);
}

Test(blocking, its_threads_are_named_unpinned_and_take_no_signals, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .pin = WEFT_PIN_ON, .name = "averylongname"});
	cpu_set_t allowed;

	cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
	cr_assert_eq(runtime_do(rt, calls_look, &allowed), 0);
	runtime_end(rt);
}

static int calls_three_at_once(void *arg)
{
	weft_pid pids[3];

	(void)arg;
	for (int i = 0; i < 3; i++) {
		wf_u32_store_relaxed(&gates[i].word, 0);
		wf_u32_store_relaxed(&gates[i].waiting, 0);
		pids[i] = spawned(calls_at, &gates[i]);
		UNTIL(is_reached(&gates[i]));
	}
	for (int i = 0; i < 3; i++)
		gate_open(&gates[i]);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(joined(pids[i]), i);
	return (int)figures(weft_rt_current()).threads;
}

Test(blocking, an_idle_thread_ends_after_its_keep_alive, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .blocking_keep_alive_ns = WEFT_MS(1)});
	unsigned before = harness_thread_count();

	for (int i = 0; i < 5; i++) {
		(void)runtime_do(rt, calls_three_at_once, NULL);
		UNTIL_FOREIGN(figures(rt).threads == 0);
		/* Each is joined by the next: at most one is left unjoined. */
		UNTIL_FOREIGN(harness_thread_count() <= before);
		cr_assert_eq(figures(rt).idle, 0);
	}
	runtime_end(rt);
}

Test(blocking, threads_are_kept_by_default, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);

	for (int i = 0; i < 5; i++)
		cr_assert_eq(runtime_do(rt, calls_three_at_once, NULL), 3);
	runtime_end(rt);
}

/* B2: keep-alives about as long as the gaps between jobs, with one thread at most. */
Test(blocking, a_job_as_its_thread_goes_runs, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){
		.workers = 1, .blocking_threads_max = 1, .blocking_keep_alive_ns = 1});
	int calls = 2000 / HARNESS_SLOWDOWN;

	cr_assert_eq(runtime_do(rt, calls_many, &calls), 0);
	cr_assert_eq(wf_u32_load_relaxed(&jobs_run), (uint32_t)calls);
	cr_assert_eq(wf_u32_load_relaxed(&most_at_once), 1);
	runtime_end(rt);
}

static int calls_once(void *arg)
{
	bool outside;

	(void)arg;
	return weft_blocking(tells_where, &outside, NULL, WEFT_FOREVER);
}

/* B2: the stop comes at any moment of a call, and of a post. */
static void end_beside_jobs(unsigned threads_max)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){
		.workers = 1, .blocking_threads_max = threads_max, .log = faults_log});
	uint32_t before = wf_u32_load_relaxed(&dropped_count), accepted = 1;
	weft_pid pid;
	int r;

	cr_assert_eq(weft_rt_spawn(rt, calls_once, NULL, NULL, &pid), 0);
	cr_assert_eq(post(rt, counts_itself, NULL, 0, drops), 0);
	(void)weft_rt_stop(rt, 0, 0);
	r = post(rt, counts_itself, NULL, WEFT_BLOCKING_MANDATORY, drops);
	cr_assert(r == 0 || r == -ESHUTDOWN);
	accepted += r == 0;
	runtime_end(rt);
	cr_assert_eq(wf_u32_load_relaxed(&dropped_count), before + accepted);
}

Test(blocking, runtimes_end_beside_jobs_and_leave_nothing, .timeout = 240)
{
	int rounds = 1000 / (HARNESS_SLOWDOWN * HARNESS_SLOWDOWN);
	unsigned threads, fds;

	end_beside_jobs(1); /* what is made once stays */
	threads = harness_thread_count();
	fds = harness_fd_count();
	for (int i = 0; i < rounds; i++)
		end_beside_jobs(1 + (unsigned)i % 2);
	UNTIL_FOREIGN(harness_thread_count() <= threads);
	cr_assert_leq(harness_fd_count(), fds);
}

/* --- Stop --- */

Test(blocking, a_stop_drops_what_has_not_begun_and_need_not_run, .timeout = 120)
{
	weft_rt *rt = pool_of(1, 1);

	cr_assert_eq(post(rt, waits_at, &gates[0], 0, drops), 0);
	UNTIL_FOREIGN(is_reached(&gates[0]));
	cr_assert_eq(post(rt, must_not_run, NULL, 0, drops), 0);
	cr_assert_eq(post(rt, counts_itself, NULL, WEFT_BLOCKING_MANDATORY, drops), 0);
	cr_assert_eq(post(rt, must_not_run, NULL, 0, NULL), 0);
	cr_assert_eq(weft_rt_stop(rt, 0, 0), -ETIMEDOUT);
	UNTIL_FOREIGN(post(rt, counts_itself, NULL, 0, NULL) == -ESHUTDOWN);
	cr_assert_eq(post(rt, must_not_run, NULL, WEFT_BLOCKING_MANDATORY, drops), -ESHUTDOWN);
	cr_assert_eq(wf_u32_load_relaxed(&dropped_count), 0);
	gate_open(&gates[0]);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(wf_u32_load_relaxed(&dropped_count), 3);
	cr_assert_eq(wf_u32_load_relaxed(&jobs_run), 1);
	runtime_end(rt);
}

static int ends_its_runtime(void *arg)
{
	cr_assert_eq(weft_rt_run(arg), -EDEADLK);
	cr_assert_eq(weft_rt_destroy(arg, WEFT_FOREVER), -EDEADLK);
	cr_assert_eq(weft_rt_stop(arg, 0, WEFT_FOREVER), 0);
	return 0;
}

static int calls_ends_its_runtime(void *arg)
{
	int result = -1;

	cr_assert_eq(weft_block_in_place(ends_its_runtime, arg, &result), 0);
	return result;
}

/* Waiting there would be for itself. */
Test(blocking, work_may_begin_the_stop_of_its_runtime, .timeout = 120)
{
	weft_rt *rt = pool_of(1, 1);
	weft_pid pid;

	cr_assert_eq(post(rt, ends_its_runtime, rt, 0, NULL), 0);
	UNTIL_FOREIGN(post(rt, counts_itself, NULL, 0, NULL) == -ESHUTDOWN);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	runtime_end(rt);
	rt = pool_of(1, 1);
	cr_assert_eq(weft_rt_spawn(rt, calls_ends_its_runtime, rt, NULL, &pid), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	runtime_end(rt);
}

/* What a started runtime waits for, with nothing else alive and all workers asleep. */
Test(blocking, a_post_holds_the_runtime_open, .timeout = 120)
{
	weft_rt *rt = pool_of(2, 4);

	cr_assert_eq(post(rt, waits_at, &gates[0], 0, drops), 0);
	cr_assert_eq(weft_rt_start(rt), 0);
	UNTIL_FOREIGN(is_reached(&gates[0]));
	cr_assert_eq(weft_rt_stop(rt, WEFT_SEC(100), weft_after(WEFT_MS(5))), -ETIMEDOUT);
	gate_open(&gates[0]);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(wf_u32_load_relaxed(&dropped_count), 1);
	runtime_end(rt);
}

static char lines[4096];

static void keep_line(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	size_t length = strlen(lines);

	(void)ctx;
	(void)level;
	(void)worker;
	(void)pid;
	snprintf(lines + length, sizeof lines - length, "%s\n", text);
}

/* X4, X9 */
Test(blocking, what_outlives_a_stop_is_named_and_nothing_is_freed, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .name = "sleeper"};
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){
		.workers = 1, .blocking_threads_max = 2, .log = keep_line});
	weft_time start = weft_now(), deadline;
	char text[WEFT_PID_TEXT_MAX], line[128];
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, calls_at, &gates[1], &opts, &pid), 0);
	cr_assert_eq(post(rt, waits_at, &gates[2], 0, drops), 0);
	UNTIL_FOREIGN(is_reached(&gates[1]) && is_reached(&gates[2]));
	cr_assert_eq(post(rt, counts_itself, NULL, WEFT_BLOCKING_MANDATORY, drops), 0);
	deadline = weft_after(WEFT_MS(20));
	cr_assert_eq(weft_rt_stop(rt, WEFT_MS(10), deadline), -ETIMEDOUT);
	cr_assert_geq(weft_now(), deadline);
	cr_assert_not_null(strstr(lines, "\"sleeper\""), "%s", lines);
	snprintf(line, sizeof line, "blocking work of process %s has run for",
		weft_pid_format(pid, text));
	cr_assert_not_null(strstr(lines, line), "%s", lines);
	cr_assert_not_null(strstr(lines, "blocking post \"posted\" has run for"), "%s", lines);
	cr_assert_not_null(strstr(lines, "blocking post \"posted\" has not begun"), "%s", lines);
	/* With no grace and a past deadline, at once: far below any time it might wait for. */
	cr_assert_eq(weft_rt_stop(rt, 0, 0), -ETIMEDOUT);
	cr_assert_eq(weft_rt_destroy(rt, 0), -EBUSY);
	cr_assert_eq(weft_rt_destroy(rt, weft_after(WEFT_MS(1))), -EBUSY);
	cr_assert_lt(weft_now() - start, WEFT_SEC(100));
	gate_open(&gates[1]);
	gate_open(&gates[2]);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(wf_u32_load_relaxed(&dropped_count), 2);
	cr_assert_eq(wf_u32_load_relaxed(&jobs_run), 1);
	runtime_end(rt);
}

static void count_job(void *ctx, const struct wf_blocking_job *job)
{
	unsigned *counts = ctx;

	counts[job->runs]++;
	if (job->runs)
		cr_assert_leq(job->since, weft_now());
}

Test(blocking, each_job_is_seen_however_many, .timeout = 120)
{
	weft_rt *rt = pool_of(1, 20);
	unsigned counts[2] = {0, 0};

	for (int i = 0; i < 45; i++)
		cr_assert_eq(post(rt, waits_at, &gates[0], 0, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&gates[0].waiting) == 20);
	wf_blocking_each(rt, count_job, counts);
	cr_assert_eq(counts[true], 20);
	cr_assert_eq(counts[false], 25);
	gate_open(&gates[0]);
	cr_assert_eq(weft_rt_run(rt), 0);
	runtime_end(rt);
}

/* --- B3: threads that cannot be made --- */

static int finds_no_thread(void *arg)
{
	(void)arg;
	errno = FAULTS_ERRNO;
	cr_assert_eq(weft_blocking(must_not_run, NULL, NULL, WEFT_FOREVER), -EAGAIN);
	cr_assert_eq(weft_block_in_place(must_not_run, NULL, NULL), -EAGAIN);
	cr_assert_eq(post(weft_rt_current(), must_not_run, NULL, 0, drops), -EAGAIN);
	cr_assert_eq(errno, FAULTS_ERRNO);
	cr_assert_eq(figures(weft_rt_current()).threads, 0);
	return 0;
}

Test(blocking, the_first_thread_refused_is_an_error, .timeout = 120)
{
	weft_rt *rt;

	if (!WF_FAULTS)
		cr_skip_test("nothing fails in release");
	rt = runtime_new(1);
	faults_plan(WF_CALL_THREAD, "pthread_create", 1, FAULTS_ALL, EAGAIN);
	cr_assert_eq(runtime_do(rt, finds_no_thread, NULL), 0);
	cr_assert_eq(wf_u32_load_relaxed(&dropped_count), 0);
	faults_plan_none();
	cr_assert_eq(runtime_do(rt, calls_both, NULL), 0);
	runtime_end(rt);
}

/* With a thread there, jobs stand in line behind it; in place it is an error still. */
static int stands_in_line(void *arg)
{
	weft_rt *rt = weft_rt_current();
	weft_pid holder = spawned(calls_at, &gates[0]), waiter;

	(void)arg;
	UNTIL(is_reached(&gates[0]));
	faults_arm(true);
	waiter = spawned(calls_at, &gates[1]);
	cr_assert_eq(post(rt, counts_itself, NULL, 0, drops), 0);
	UNTIL(figures(rt).queued == 2);
	cr_assert_eq(weft_block_in_place(must_not_run, NULL, NULL), -EAGAIN);
	cr_assert_eq(figures(rt).threads, 1);
	gate_open(&gates[1]);
	gate_open(&gates[0]);
	cr_assert_eq(joined(waiter), 1);
	UNTIL(wf_u32_load_acquire(&dropped_count) == 1);
	faults_arm(false);
	return joined(holder);
}

Test(blocking, a_further_thread_refused_leaves_jobs_in_line, .timeout = 120)
{
	weft_rt *rt;

	if (!WF_FAULTS)
		cr_skip_test("nothing fails in release");
	rt = runtime_new_with(&(struct weft_rt_opts){.workers = 1, .log = keep_line});
	faults_plan(WF_CALL_THREAD, "pthread_create", 1, FAULTS_ALL, EAGAIN);
	faults_arm(false);
	cr_assert_eq(runtime_do(rt, stands_in_line, NULL), 0);
	cr_assert_not_null(strstr(lines, "no further thread for blocking work"), "%s", lines);
	faults_plan_none();
	runtime_end(rt);
}

/* Every call of the system that a program of these makes fails in turn. */
static int calls_and_posts(void *arg)
{
	bool outside;
	int result = 0;
	int r = CALL(weft_blocking(tells_where, &outside, &result, WEFT_FOREVER));

	if (documented(r, -ENOMEM, -EAGAIN))
		cr_assert(outside && result == 42);
	result = 0;
	r = CALL(weft_block_in_place(tells_where, &outside, &result));
	if (documented(r, -ENOMEM, -EAGAIN))
		cr_assert(outside && result == 42);
	r = CALL(weft_blocking_post(weft_rt_current(), counts_itself, NULL, NULL));
	*(bool *)arg = documented(r, -ENOMEM, -EAGAIN);
	return 0;
}

static void faulty_pool(void *arg)
{
	uint32_t before = wf_u32_load_relaxed(&jobs_run);
	weft_rt *rt = faults_rt_unharmed(*(const struct weft_rt_opts *)arg);
	bool posted = false;
	int r;

	cr_assert_not_null(rt);
	r = CALL(weft_rt_spawn(rt, calls_and_posts, &posted, NULL, NULL));
	if (documented(r, -ENOMEM, -EAGAIN))
		cr_assert_eq(weft_rt_run(rt), 0);
	faults_rt_end(rt);
	cr_assert_eq(wf_u32_load_relaxed(&jobs_run) - before, posted);
}

Test(blocking, jobs_run_or_fail_as_documented_whatever_fails, .timeout = 240)
{
	struct weft_rt_opts opts = {.workers = 1, .idle = WEFT_IDLE_PARK};

	cr_assert_geq(faults_sweep(faulty_pool, &opts, true), FAULTS_AT_LEAST(10));
}
