/*
 * Goal: an id means one process for ever, headers are used again, and their memory is bounded.
 * Method: many short processes; ids kept after the end; counts of what an allocator handed out.
 * Where threads race, an answer is judged only where all interleavings give the same.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/runtime.h"
#include "sync/rcu.h"
#include "test/runtime.h"

/* ---- Ids ------------------------------------------------------------------------------------ */

struct id {
	unsigned runtime, index, generation;
};

static struct id id_of(weft_pid pid)
{
	char text[WEFT_PID_TEXT_MAX];
	struct id id;

	cr_assert_eq(sscanf(weft_pid_format(pid, text), "<%u.%u.%u>", &id.runtime, &id.index,
			     &id.generation),
		3, "%s", text);
	return id;
}

static void is_unknown(weft_pid pid)
{
	int result = 99;

	cr_assert_eq(weft_wake(pid), -ESRCH);
	cr_assert_eq(weft_cancel(pid), -ESRCH);
	cr_assert_eq(weft_detach(pid), -ESRCH);
	cr_assert_eq(weft_try_join(pid, &result), -ESRCH);
	cr_assert_eq(weft_join(pid, &result, WEFT_FOREVER), -ESRCH);
	cr_assert_eq(result, 99);
}

enum {
	IDS = 50000 / HARNESS_SLOWDOWN,
	IDS_MAX = 2 * IDS,
	AGAIN = 1000, /* in how many slots not used for the first time we believe */
};

struct given {
	unsigned count;
	uint64_t ids[IDS_MAX];
	bool used[IDS_MAX]; /* by slot */
	unsigned again;
};

static struct given given;

static int order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* One more id. True: in a slot used before. */
static bool spawns_and_joins(void)
{
	weft_pid pid = spawned(returns, &(int){7});
	unsigned slot = id_of(pid).index;
	bool again = slot >= IDS_MAX || given.used[slot];

	cr_assert_lt(slot, IDS_MAX, "the table has more slots than it has given ids");
	given.ids[given.count++] = pid.raw;
	given.used[slot] = true;
	given.again += again;
	cr_assert_eq(joined(pid), 7);
	return again;
}

/*
 * Slots come back when a grace period is over, which may take as long as it likes: from the
 * IDS-th on, whoever gets a new slot sleeps, so that the end of the array is beyond the timeout.
 */
static int spawns_until_slots_come_again(void *arg)
{
	(void)arg;
	while (given.count < IDS || given.again < AGAIN) {
		bool again = spawns_and_joins();

		cr_assert_lt(given.count, IDS_MAX, "slots are not used again");
		if (given.count > IDS && !again)
			cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(1))), 0);
	}
	return 1;
}

Test(table, ids_never_repeat_while_slots_do, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(runtime_do(rt, spawns_until_slots_come_again, NULL), 1);
	qsort(given.ids, given.count, sizeof given.ids[0], order);
	for (unsigned i = 0; i < given.count; i++) {
		cr_assert(i == 0 || given.ids[i] != given.ids[i - 1], "an id was given twice");
		is_unknown((weft_pid){given.ids[i]});
	}
	runtime_end(rt);
}

Test(table, ids_of_no_process_are_unknown, .timeout = 120)
{
	weft_rt *rt = runtime_new(1);
	weft_pid pid;

	is_unknown((weft_pid){0});
	is_unknown((weft_pid){UINT64_MAX});
	for (int bit = 0; bit < 64; bit++)
		is_unknown((weft_pid){(uint64_t)1 << bit});
	/* One bit away from a live one. */
	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	for (int bit = 0; bit < 64; bit++)
		is_unknown((weft_pid){pid.raw ^ (uint64_t)1 << bit});
	cr_assert_eq(weft_wake(pid), 0);
	cr_assert_eq(joined(pid), 0);
	is_unknown(pid);
	runtime_end(rt);
}

Test(table, ids_outlive_their_runtime_and_the_next_in_its_place, .timeout = 120)
{
	enum { COUNT = 50, ROUNDS = 5 };
	weft_pid old[ROUNDS][COUNT], pid;

	for (int round = 0; round < ROUNDS; round++) {
		weft_rt *rt = runtime_new(1);

		for (int i = 0; i < COUNT; i++)
			cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &old[round][i]), 0);
		pid = old[round][0];
		/* The same places, but other generations: the old ids hit none of these. */
		for (int past = 0; past < round; past++) {
			cr_assert_eq(id_of(old[past][0]).runtime, id_of(pid).runtime);
			for (int i = 0; i < COUNT; i++) {
				cr_assert_eq(id_of(old[past][i]).index, id_of(old[round][i]).index);
				is_unknown(old[past][i]);
			}
		}
		for (int i = 0; i < COUNT; i++)
			cr_assert_eq(weft_try_join(old[round][i], NULL), -EAGAIN);
		runtime_end(rt);
		for (int i = 0; i < COUNT; i++)
			is_unknown(old[round][i]);
	}
}

/* ---- Q9: stale ids from foreign threads ----------------------------------------------------- */

enum { READERS = 4, SHOWN = 64, COMING = 200000 / HARNESS_SLOWDOWN };

struct parade {
	wf_atomic_u64 shown[SHOWN]; /* ids of processes that come, live and have gone */
	wf_atomic_u32 over;
	wf_atomic_u64 taken; /* results that readers got */
	wf_atomic_u64 asked;
	uint64_t joined; /* results that the marshal got */
	uint64_t ran;
};

static int walks(void *arg)
{
	struct parade *parade = arg;

	parade->ran++;
	return 7;
}

static void takes_if_there(struct parade *parade, weft_pid pid, uint64_t *taken)
{
	int result = 99;
	int r = weft_try_join(pid, &result);

	cr_assert(r == 0 || r == -EAGAIN || r == -EBUSY || r == -ESRCH, "try_join: %d", r);
	cr_assert_eq(result, r == 0 ? 7 : 99);
	*taken += r == 0;
	(void)parade;
}

static void reads(unsigned index, void *arg)
{
	struct parade *parade = arg;
	uint64_t random = harness_seed() + index, asked = 0, taken = 0;

	while (!wf_u32_load_acquire(&parade->over)) {
		weft_pid pid = {
			wf_u64_load_relaxed(&parade->shown[harness_random_below(&random, SHOWN)])};
		int r = weft_wake(pid);

		cr_assert(r == 0 || r == -ESRCH, "wake: %d", r);
		takes_if_there(parade, pid, &taken);
		asked++;
	}
	wf_u64_fetch_add(&parade->asked, asked);
	wf_u64_fetch_add(&parade->taken, taken);
}

/* Shows each process's id, then joins what was shown in that place before: a reader may have. */
static int marshals(void *arg)
{
	struct parade *parade = arg;
	int result, r;

	for (unsigned i = 0; i < COMING + SHOWN; i++) {
		wf_atomic_u64 *place = &parade->shown[i % SHOWN];
		weft_pid old = {wf_u64_load_relaxed(place)};

		if (old.raw) {
			r = weft_join(old, &result, WEFT_FOREVER);
			cr_assert(r == 0 || r == -ESRCH, "join: %d", r);
			cr_assert(r != 0 || result == 7);
			parade->joined += r == 0;
			/* Gone: it stays shown, or gives its place to the next. */
			cr_assert_eq(weft_wake(old), -ESRCH);
		}
		if (i < COMING)
			wf_u64_store_release(place, spawned(walks, parade).raw);
	}
	wf_u32_store_release(&parade->over, 1);
	return 1;
}

static void leads_or_reads(unsigned index, void *arg)
{
	struct parade *parade = arg;

	if (index < READERS) {
		reads(index, parade);
		return;
	}
	cr_assert_eq(in_runtime(1, marshals, parade), 1);
}

Test(table, stale_ids_are_harmless_from_any_thread, .timeout = 120)
{
	static struct parade parade;

	harness_threads(READERS + 1, leads_or_reads, &parade);
	cr_assert_eq(parade.ran, COMING);
	cr_assert_eq(wf_u64_load_relaxed(&parade.taken) + parade.joined, COMING,
		"a result was lost or handed out twice");
	cr_assert_gt(wf_u64_load_relaxed(&parade.asked), 0);
}

/* The same while whole runtimes come and go in one slot. */
static void makes_runtimes(unsigned index, void *arg)
{
	struct parade *parade = arg;

	if (index < READERS) {
		reads(index, parade);
		return;
	}
	for (int i = 0; i < 60 / HARNESS_SLOWDOWN + 10; i++) {
		weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){
			.workers = 1, .idle = WEFT_IDLE_PARK, .name = "coming"});

		for (int k = 0; k < SHOWN; k++) {
			weft_pid pid;

			cr_assert_eq(weft_rt_spawn(rt, walks, parade, NULL, &pid), 0);
			wf_u64_store_release(&parade->shown[k], pid.raw);
		}
		runtime_end(rt);
		for (int k = 0; k < SHOWN; k++)
			cr_assert_eq(weft_wake((weft_pid){wf_u64_load_relaxed(&parade->shown[k])}),
				-ESRCH);
	}
	wf_u32_store_release(&parade->over, 1);
}

Test(table, stale_ids_are_harmless_while_runtimes_come_and_go, .timeout = 120)
{
	static struct parade parade;

	harness_threads(READERS + 1, makes_runtimes, &parade);
	cr_assert_eq(parade.ran % SHOWN, 0, "a runtime ended without running what it had accepted");
	cr_assert_gt(wf_u64_load_relaxed(&parade.asked), 0);
}

/* ---- Limits --------------------------------------------------------------------------------- */

enum { PROCESSES_MAX = 512 };

static int fills_up(void *arg)
{
	weft_pid pids[PROCESSES_MAX + 1];
	weft_pid pid;
	int count;

	(void)arg;
	for (int round = 0; round < 20; round++) {
		int r;

		for (count = 0; count <= PROCESSES_MAX; count++) {
			r = weft_spawn(parks, NULL, &pids[count]);
			if (r < 0)
				break;
		}
		cr_assert_eq(r, -EAGAIN);
		cr_assert_lt(count, PROCESSES_MAX, "the caller counts too");
		/* Later, what ended in the round before may come back at any moment. */
		if (round == 0) {
			cr_assert_eq(weft_spawn(parks, NULL, NULL), -EAGAIN);
			cr_assert_eq(weft_spawn_reserve(&pid), -EAGAIN);
		}
		/* The live ones are none the worse. */
		for (int i = 0; i < count; i++)
			cr_assert_eq(weft_wake(pids[i]), 0);
		for (int i = 0; i < count; i++)
			cr_assert_eq(joined(pids[i]), 0);
		/* As many again, once the headers are back. */
		for (int i = 0; i < PROCESSES_MAX / 2; i++)
			UNTIL(weft_spawn(parks, NULL, &pids[i]) == 0);
		for (int i = 0; i < PROCESSES_MAX / 2; i++)
			cr_assert_eq(weft_cancel(pids[i]), 0);
		for (int i = 0; i < PROCESSES_MAX / 2; i++)
			cr_assert_eq(joined(pids[i]), -ECANCELED);
	}
	return 1;
}

Test(table, is_full_at_processes_max_and_recovers, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		weft_rt *rt = runtime_new_with(
			&(struct weft_rt_opts){.workers = workers, .processes_max = PROCESSES_MAX});

		cr_assert_eq(runtime_do(rt, fills_up, NULL), 1);
		runtime_end(rt);
	}
}

Test(table, is_full_for_foreign_threads_too, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .processes_max = PROCESSES_MAX});
	weft_pid pids[PROCESSES_MAX + 1];
	int r = 0, count = 0;

	while (count <= PROCESSES_MAX &&
		(r = weft_rt_spawn(rt, parks, NULL, NULL, &pids[count])) == 0)
		count++;
	cr_assert_eq(r, -EAGAIN);
	cr_assert_leq(count, PROCESSES_MAX);
	cr_assert_geq(count, PROCESSES_MAX / 2);
	for (int i = 0; i < count; i++)
		cr_assert_eq(weft_wake(pids[i]), 0);
	for (int i = 0; i < count; i++)
		cr_assert_eq(joined(pids[i]), 0);
	for (int i = 0; i < PROCESSES_MAX / 2; i++)
		UNTIL_FOREIGN(weft_rt_spawn(rt, parks, NULL, NULL, &pids[i]) == 0);
	runtime_end(rt);
	is_unknown(pids[0]);
}

/*
 * They wait in the inbox. What is seen at one time may be on its way out, and it may meet the
 * worker before that sleeps: hence twice, and again.
 */
Test(table, headers_that_come_back_wake_no_sleeper, .timeout = 120)
{
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .idle = WEFT_IDLE_PARK});
	const struct wf_worker *worker = &rt->workers[0];
	int one = 1, seen = 0;

	while (seen < 2000) {
		uint64_t reclaimed = wf_rcu_reclaimed_count(rt->rcu);

		cr_assert_eq(weft_rt_spawn(rt, returns, &one, NULL, NULL), 0);
		UNTIL_FOREIGN(wf_rcu_reclaimed_count(rt->rcu) > reclaimed);
		for (seen = 0; seen < 2000; seen++) {
			sched_yield();
			if (wf_injector_is_empty_relaxed(&worker->inbox)
				|| wf_idle_parked_mask(&rt->idle) != 1)
				break;
		}
	}
	runtime_end(rt);
}

/* ---- Memory --------------------------------------------------------------------------------- */

struct meter {
	wf_atomic_u64 bytes;
	wf_atomic_u64 highest;
};

static void *allocate(void *ctx, size_t alignment, size_t size)
{
	struct meter *meter = ctx;
	uint64_t bytes = wf_u64_fetch_add(&meter->bytes, size) + size;
	uint64_t highest = wf_u64_load_relaxed(&meter->highest);
	void *memory = NULL;

	while (bytes > highest && !wf_u64_cas(&meter->highest, &highest, bytes))
		;
	return posix_memalign(&memory, alignment < 16 ? 16 : alignment, size) == 0 ? memory : NULL;
}

static void release(void *ctx, void *memory, size_t size)
{
	struct meter *meter = ctx;

	cr_assert_geq(wf_u64_fetch_add(&meter->bytes, -(uint64_t)size), size);
	free(memory);
}

enum { BATCH = 100, FLOOD = 400000 / HARNESS_SLOWDOWN, FLOODS = 5 };

static wf_atomic_u64 ended;

static int ends(void *arg)
{
	(void)arg;
	wf_u64_fetch_add(&ended, 1);
	return 0;
}

/* Never more than a batch is alive; each is detached, or joined. */
static int floods(void *arg)
{
	bool joins = arg != NULL;
	weft_pid pids[BATCH];

	for (int i = 0; i < FLOOD / BATCH; i++) {
		uint64_t before = wf_u64_load_relaxed(&ended);

		for (int k = 0; k < BATCH; k++)
			cr_assert_eq(weft_spawn(ends, NULL, joins ? &pids[k] : NULL), 0);
		for (int k = 0; joins && k < BATCH; k++)
			cr_assert_eq(joined(pids[k]), 0);
		UNTIL(wf_u64_load_relaxed(&ended) == before + BATCH);
	}
	return 1;
}

/* Until all headers that have been given up, but for a batch not yet full, may be taken again. */
static void await_headers(weft_rt *rt)
{
	wf_atomic_u32 drained = {0};

	wf_rcu_barrier(rt->rcu);
	/* Behind what the reclaimer has sent to the worker. */
	cr_assert_eq(weft_post(rt, count_one, &drained), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&drained));
}

/*
 * However slow the reclaimer is, a flood needs no more headers than it has processes, and each one
 * takes those of the one before.
 */
static void stays_bounded(void *joins)
{
	struct meter meter = {0};
	struct weft_allocator allocator = {allocate, release, &meter};
	const uint64_t header_bytes = 160; /* and its share of a batch */
	const uint64_t bound = FLOOD * header_bytes + ((uint64_t)2 << 20);
	weft_rt *rt =
		runtime_new_with(&(struct weft_rt_opts){.workers = 1, .allocator = &allocator});
	size_t rss = harness_rss_bytes();
	uint64_t start = wf_u64_load_relaxed(&meter.bytes);

	for (int i = 0; i < FLOODS; i++) {
		cr_assert_eq(runtime_do(rt, floods, joins), 1);
		await_headers(rt);
	}
	cr_assert_lt(wf_u64_load_relaxed(&meter.highest) - start, bound,
		"memory grows with the number of processes");
	if (!HARNESS_ASAN && !HARNESS_TSAN)
		cr_assert_lt(harness_rss_bytes(), rss + bound);
	runtime_end(rt);
	cr_assert_eq(wf_u64_load_relaxed(&meter.bytes), 0);
}

Test(table, memory_of_detached_processes_is_bounded, .timeout = 120)
{
	stays_bounded(NULL);
}

Test(table, memory_of_joined_processes_is_bounded, .timeout = 120)
{
	stays_bounded(&(int){1});
}
