/*
 * sync/rcu.c: when callbacks run and when they must not (Q10), what threads may do, how the
 * reclaimer paces itself, and what it does to its process (one named thread with signals blocked,
 * gone at the end).
 */
#include "test/harness.h"

#include "sync/futex.h"
#include "sync/rcu.h"
#include "timer/clock.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define HOUR_NS ((uint64_t)3600 * 1000000000)

/* What a host that uses the flavour itself would call. */
void urcu_qsbr_register_thread(void);
void urcu_qsbr_unregister_thread(void);
void urcu_qsbr_thread_offline(void);

struct object {
	struct wf_rcu_batch batch;
	wf_atomic_u32 reclaimed;
	struct wf_rcu_domain *again; /* retired once more from its callback */
};

static void reclaim(struct wf_rcu_batch *batch)
{
	struct object *object = WF_CONTAINER_OF(batch, struct object, batch);
	struct wf_rcu_domain *again = object->again;

	object->again = NULL;
	if (again != NULL)
		wf_rcu_retire(again, batch, reclaim);
	else
		wf_u32_store_release(&object->reclaimed, 1);
}

static bool is_reclaimed(struct object *object)
{
	return wf_u32_load_acquire(&object->reclaimed) != 0;
}

static struct wf_rcu_domain *create(uint64_t age_limit_ns, uint64_t bytes_limit)
{
	struct wf_rcu_opts opts = {
		.name = "test", .age_limit_ns = age_limit_ns, .bytes_limit = bytes_limit};
	struct wf_rcu_domain *domain;

	cr_assert_eq(wf_rcu_domain_create_with(&domain, &opts), 0);
	return domain;
}

static void retire(struct wf_rcu_domain *domain, struct object *object, uint64_t bytes)
{
	object->batch.bytes = bytes;
	wf_rcu_retire(domain, &object->batch, reclaim);
}

Test(rcu, calls_back_what_was_retired, .timeout = 120)
{
	static struct object objects[100];
	struct wf_rcu_domain *domain;
	int i;

	cr_assert_eq(wf_rcu_domain_create(&domain, "x"), 0);
	for (i = 0; i < 100; i++)
		retire(domain, &objects[i], 10);
	wf_rcu_barrier(domain);
	for (i = 0; i < 100; i++)
		cr_assert(is_reclaimed(&objects[i]));
	cr_assert_eq(wf_rcu_retired_bytes(domain), 0);
	cr_assert_eq(wf_rcu_reclaimed_count(domain), 101, "and the barrier's own");
	cr_assert_geq(wf_rcu_grace_period_count(domain), 1);
	wf_rcu_domain_destroy(domain);
	wf_rcu_domain_destroy(NULL);
}

/* --- Q10: readers hold the grace period up --- */

/* A reader thread that does what the test says, one word at a time. */
enum { RUN, READING, QUIESCE, QUIET, LEAVE };

struct reader {
	pthread_t thread;
	wf_atomic_u32 step;
	bool foreign;
};

static void await(wf_atomic_u32 *step, uint32_t value)
{
	while (wf_u32_load_acquire(step) != value)
		sched_yield();
}

static void *read_until_told(void *arg)
{
	struct reader *reader = arg;

	if (reader->foreign)
		wf_rcu_enter_foreign();
	else
		wf_rcu_register();
	wf_u32_store_release(&reader->step, READING);
	await(&reader->step, QUIESCE);
	if (reader->foreign)
		wf_rcu_exit_foreign();
	else
		wf_rcu_quiescent();
	wf_u32_store_release(&reader->step, QUIET);
	if (!reader->foreign)
		wf_rcu_offline();
	await(&reader->step, LEAVE);
	if (!reader->foreign)
		wf_rcu_unregister();
	return NULL;
}

static void start(struct reader *reader, bool foreign)
{
	reader->foreign = foreign;
	wf_u32_store_relaxed(&reader->step, RUN);
	cr_assert_eq(pthread_create(&reader->thread, NULL, read_until_told, reader), 0);
	await(&reader->step, READING);
}

static void finish(struct reader *reader)
{
	await(&reader->step, QUIET);
	wf_u32_store_release(&reader->step, LEAVE);
	pthread_join(reader->thread, NULL);
}

static void a_reader_holds_reclamation_up(bool foreign)
{
	struct wf_rcu_domain *domain = create(1000, 1);
	static struct object object;
	struct reader reader;

	start(&reader, foreign);
	retire(domain, &object, 64);
	/* The grace period runs, and gets older, and cannot end. */
	while (wf_rcu_grace_period_age_ns(domain) < 3000000)
		sched_yield();
	cr_assert(!is_reclaimed(&object));
	cr_assert_eq(wf_rcu_retired_bytes(domain), 64);
	wf_u32_store_release(&reader.step, QUIESCE);
	wf_rcu_barrier(domain);
	cr_assert(is_reclaimed(&object));
	cr_assert_eq(wf_rcu_retired_bytes(domain), 0);
	while (wf_rcu_grace_period_age_ns(domain) != 0)
		sched_yield();
	finish(&reader);
	wf_rcu_domain_destroy(domain);
}

Test(rcu, an_online_worker_holds_reclamation_up_until_it_is_quiescent, .timeout = 120)
{
	a_reader_holds_reclamation_up(false);
}

Test(rcu, a_foreign_thread_holds_reclamation_up_until_its_call_ends, .timeout = 120)
{
	a_reader_holds_reclamation_up(true);
}

Test(rcu, an_offline_worker_holds_nothing_up, .timeout = 120)
{
	struct wf_rcu_domain *domain = create(1000, 1);
	static struct object object;
	struct reader reader;

	start(&reader, false);
	wf_u32_store_release(&reader.step, QUIESCE);
	await(&reader.step, QUIET);
	retire(domain, &object, 64);
	wf_rcu_barrier(domain);
	wf_rcu_synchronize();
	cr_assert(is_reclaimed(&object));
	finish(&reader);
	wf_rcu_domain_destroy(domain);
}

/* --- who is online when --- */

Test(rcu, a_worker_is_online_from_register_and_offline_only_by_its_own_word)
{
	cr_assert(!wf_rcu_is_online());
	wf_rcu_register();
	cr_assert(wf_rcu_is_online());
	wf_rcu_quiescent();
	cr_assert(wf_rcu_is_online());
	wf_rcu_offline();
	cr_assert(!wf_rcu_is_online());
	wf_rcu_online();
	cr_assert(wf_rcu_is_online());
	wf_rcu_unregister();
	cr_assert(!wf_rcu_is_online());
	wf_rcu_synchronize();
}

Test(rcu, a_foreign_thread_is_online_only_inside_its_calls)
{
	int i;

	for (i = 0; i < 3; i++) {
		wf_rcu_enter_foreign();
		cr_assert(wf_rcu_is_online());
		wf_rcu_enter_foreign();
		wf_rcu_exit_foreign();
		cr_assert(wf_rcu_is_online(), "a nested call ends");
		wf_rcu_exit_foreign();
		cr_assert(!wf_rcu_is_online());
	}
	wf_rcu_synchronize();
}

Test(rcu, a_foreign_thread_may_become_a_worker_and_back)
{
	wf_rcu_enter_foreign();
	wf_rcu_exit_foreign();
	wf_rcu_register();
	cr_assert(wf_rcu_is_online());
	wf_rcu_enter_foreign();
	wf_rcu_exit_foreign();
	cr_assert(wf_rcu_is_online(), "a worker's own foreign call changes nothing");
	wf_rcu_unregister();
	cr_assert(!wf_rcu_is_online());
	wf_rcu_enter_foreign();
	cr_assert(wf_rcu_is_online());
	wf_rcu_exit_foreign();
	wf_rcu_synchronize();
}

/* A host that has registered the thread itself finds it as it left it. */
Test(rcu, a_hosts_own_registration_is_left_as_found)
{
	urcu_qsbr_register_thread();
	wf_rcu_enter_foreign();
	wf_rcu_exit_foreign();
	cr_assert(wf_rcu_is_online(), "online before, online after");
	urcu_qsbr_thread_offline();
	wf_rcu_enter_foreign();
	cr_assert(wf_rcu_is_online());
	wf_rcu_exit_foreign();
	cr_assert(!wf_rcu_is_online(), "offline before, offline after");
	wf_rcu_register();
	cr_assert(wf_rcu_is_online());
	wf_rcu_unregister();
	cr_assert(!wf_rcu_is_online());
	wf_rcu_synchronize();
	urcu_qsbr_unregister_thread(); /* asserts that it is still registered */
}

static void *enter_and_end(void *registered_by_host)
{
	if (registered_by_host != NULL)
		urcu_qsbr_register_thread();
	wf_rcu_enter_foreign();
	wf_rcu_exit_foreign();
	if (registered_by_host != NULL)
		urcu_qsbr_unregister_thread();
	return NULL;
}

/*
 * liburcu keeps a list of registered threads' memory: one that ends in it breaks the next
 * synchronize.
 */
Test(rcu, foreign_threads_may_end, .timeout = 120)
{
	pthread_t threads[8];
	int round, i;

	for (round = 0; round < 50; round++) {
		for (i = 0; i < 8; i++)
			cr_assert_eq(pthread_create(&threads[i], NULL, enter_and_end,
					     i % 2 ? &threads[i] : NULL),
				0);
		wf_rcu_synchronize();
		for (i = 0; i < 8; i++)
			pthread_join(threads[i], NULL);
		wf_rcu_synchronize();
	}
}

/* --- pacing: an hour's age limit shows what else starts a grace period --- */

Test(rcu, passing_the_bytes_limit_ends_the_wait, .timeout = 120)
{
	struct wf_rcu_domain *domain = create(HOUR_NS, 1000);
	static struct object objects[3];
	int i;

	retire(domain, &objects[0], 400);
	retire(domain, &objects[1], 400);
	for (i = 0; i < 1000; i++)
		sched_yield();
	cr_expect(!is_reclaimed(&objects[0]), "below the limit it waits");
	retire(domain, &objects[2], 400);
	while (!is_reclaimed(&objects[2]))
		sched_yield();
	cr_assert(is_reclaimed(&objects[0]));
	wf_rcu_domain_destroy(domain);
}

Test(rcu, hurry_ends_the_wait, .timeout = 120)
{
	struct wf_rcu_domain *domain = create(HOUR_NS, 1000);
	static struct object object;
	int i;

	for (i = 0; i < 100; i++) { /* at any point of its round */
		wf_u32_store_relaxed(&object.reclaimed, 0);
		retire(domain, &object, 1);
		wf_rcu_hurry(domain);
		while (!is_reclaimed(&object))
			sched_yield();
	}
	wf_rcu_domain_destroy(domain);
}

/* At least: a round may be as much longer as the machine likes. */
Test(rcu, rests_grow_longer_where_little_comes, .timeout = 120)
{
	enum { ROUNDS = 8, AGE_NS = 2000000 };
	struct wf_rcu_domain *domain = create(AGE_NS, 1 << 20);
	static struct object object;
	int64_t start = wf_clock_now_ns();
	int i;

	for (i = 0; i < ROUNDS; i++) {
		wf_u32_store_relaxed(&object.reclaimed, 0);
		retire(domain, &object, 1);
		while (!is_reclaimed(&object))
			sched_yield();
	}
	/* The first may begin anywhere in a rest; after it: 2, 4, then 8 each. */
	cr_assert_geq(wf_clock_now_ns() - start, (2 + 4 + 8 * (ROUNDS - 3)) * AGE_NS);
	wf_rcu_domain_destroy(domain);
}

/*
 * With rounds of 1 us it goes from work to IDLE in no time: each retire meets it somewhere there.
 */
Test(rcu, what_is_retired_after_a_long_silence_is_called_back, .timeout = 120)
{
	struct wf_rcu_domain *domain = create(1000, 1 << 20);
	static struct object object;
	uint64_t seed = harness_seed(), pause;
	int i;

	for (i = 0; i < 300; i++) {
		wf_u32_store_relaxed(&object.reclaimed, 0);
		retire(domain, &object, 1);
		while (!is_reclaimed(&object))
			sched_yield();
		for (pause = harness_random_below(&seed, 300000); pause > 0; pause--)
			wf_pause();
	}
	wf_rcu_domain_destroy(domain);
}

/* --- the end --- */

Test(rcu, destroy_calls_everything_back_and_what_callbacks_retire, .timeout = 120)
{
	struct wf_rcu_domain *domain = create(HOUR_NS, UINT64_MAX);
	static struct object objects[10];
	int i;

	for (i = 0; i < 10; i++) {
		objects[i].again = domain;
		retire(domain, &objects[i], 8);
	}
	wf_rcu_domain_destroy(domain);
	for (i = 0; i < 10; i++)
		cr_assert(is_reclaimed(&objects[i]), "object %d", i);
}

static void come_and_go(void)
{
	static struct object objects[4];
	struct wf_rcu_domain *domains[4];
	int i;

	for (i = 0; i < 4; i++) {
		domains[i] = create(0, 0);
		retire(domains[i], &objects[i], 1);
	}
	for (i = 0; i < 4; i++)
		wf_rcu_domain_destroy(domains[i]);
}

Test(rcu, many_domains_come_and_go, .timeout = 120)
{
	unsigned before;
	int i;

	come_and_go(); /* a sanitizer may start a thread of its own with the first */
	before = harness_thread_count();
	for (i = 0; i < 50; i++)
		come_and_go();
	while (harness_thread_count() > before)
		sched_yield(); /* a joined thread is still counted for a moment */
}

/* --- the thread --- */

/* The value of `key` in /proc/self/task/<the thread named so>/status; false: no such thread. */
static bool thread_status(const char *name, const char *key, char *value, size_t size)
{
	DIR *tasks = opendir("/proc/self/task");
	char path[300], line[256];
	bool is_it, found = false;
	struct dirent *task;
	FILE *status;

	cr_assert_not_null(tasks);
	while (!found && (task = readdir(tasks)) != NULL) {
		snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
		status = fopen(path, "r");
		is_it = false;
		while (status != NULL && fgets(line, sizeof line, status) != NULL) {
			line[strcspn(line, "\n")] = '\0';
			if (strncmp(line, "Name:\t", 6) == 0)
				is_it = strcmp(line + 6, name) == 0;
			if (is_it && strncmp(line, key, strlen(key)) == 0) {
				snprintf(value, size, "%s", line + strlen(key));
				found = true;
			}
		}
		if (status != NULL)
			fclose(status);
	}
	closedir(tasks);
	return found;
}

Test(rcu, the_reclaimer_is_named_and_blocks_signals, .timeout = 120)
{
	struct wf_rcu_opts opts = {.name = "a-long-name"};
	struct wf_rcu_domain *domain;
	uint64_t blocked, bugs = 0;
	char value[64];
	size_t i;
	static const int never[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
	static const int always[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM};

	for (i = 0; i < WF_ARRAY_COUNT(never); i++)
		bugs |= (uint64_t)1 << (never[i] - 1);
	cr_assert_eq(wf_rcu_domain_create_with(&domain, &opts), 0);
	while (!thread_status("weft/a-long/rcu", "SigBlk:\t", value, sizeof value))
		sched_yield();
	blocked = strtoull(value, NULL, 16);
	cr_assert_eq(blocked & bugs, 0);
	for (i = 0; i < WF_ARRAY_COUNT(always); i++)
		cr_assert(blocked >> (always[i] - 1) & 1, "signal %d", always[i]);
	wf_rcu_domain_destroy(domain);
}

Test(rcu, the_reclaimer_runs_where_it_is_told, .timeout = 120)
{
	struct wf_rcu_domain *domain;
	cpu_set_t all, one;
	char value[1024];
	int cpu;

	cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
	for (cpu = 0; !CPU_ISSET(cpu, &all); cpu++)
		;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	cr_assert_eq(
		wf_rcu_domain_create_with(&domain,
			&(struct wf_rcu_opts){.name = "p", .cpus = &one, .cpus_size = sizeof one}),
		0);
	while (!thread_status("weft/p/rcu", "Cpus_allowed_list:\t", value, sizeof value))
		sched_yield();
	cr_assert_eq(atoi(value), cpu);
	cr_assert_eq(strspn(value, "0123456789"), strlen(value), "just one: %s", value);
	wf_rcu_domain_destroy(domain);
	CPU_ZERO(&one);
	cr_assert_eq(wf_rcu_domain_create_with(
			     &domain, &(struct wf_rcu_opts){.cpus = &one, .cpus_size = sizeof one}),
		-EINVAL);
}
