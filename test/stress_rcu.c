/*
 * sync/rcu.c under load (Q10): a table of pointers, replaced all the time, read by workers and by
 * foreign threads that follow pointers without a lock. What a reader follows must not have been
 * reclaimed: a callback poisons the object, and frees it only much later, so a grace period that is
 * too short shows as poison (and as a race under TSan).
 */
#include "test/harness.h"

#include "sync/rcu.h"

#include <sched.h>
#include <stdlib.h>

enum {
	SLOTS = 64,
	WRITERS = 2,
	WORKERS = 2,
	FOREIGN = 2,
	REPLACEMENTS = 200000 / HARNESS_SLOWDOWN, /* of each writer */
	LOOKUPS_PER_TURN = 50,
	POISONED_MAX = 4096,
};

#define ALIVE    ((uint64_t)0x600d600d600d600d)
#define POISONED ((uint64_t)0xdeaddeaddeaddead)

struct object {
	struct wf_rcu_batch batch;
	uint64_t state; /* plain: nothing but RCU protects it */
	uint64_t also;
};

static struct {
	wf_atomic_ptr slots[SLOTS];
	struct wf_rcu_domain *domain;
	wf_atomic_u32 writing;
	wf_atomic_u32 reading; /* readers that have looked up once: then the writers begin */
	wf_atomic_u64 freed;
} stress;

/* Reclaimer's thread only: the objects poisoned last, so that the poison stays to be seen. */
static struct object *poisoned[POISONED_MAX];

static void poison(struct wf_rcu_batch *batch)
{
	struct object *object = WF_CONTAINER_OF(batch, struct object, batch);
	uint64_t freed = wf_u64_fetch_add(&stress.freed, 1);

	object->state = POISONED;
	object->also = POISONED;
	free(poisoned[freed % POISONED_MAX]);
	poisoned[freed % POISONED_MAX] = object;
}

static struct object *make(void)
{
	struct object *object = malloc(sizeof *object);

	cr_assert_not_null(object);
	object->state = ALIVE;
	object->also = ~ALIVE;
	object->batch.bytes = sizeof *object;
	return object;
}

static void write_slots(unsigned writer)
{
	uint64_t seed = harness_seed() + writer;
	struct object *old;
	int i;

	while (wf_u32_load_acquire(&stress.reading) < WORKERS + FOREIGN)
		sched_yield();
	for (i = 0; i < REPLACEMENTS; i++) {
		old = wf_ptr_exchange(&stress.slots[harness_random_below(&seed, SLOTS)], make());
		wf_rcu_retire(stress.domain, &old->batch, poison);
		/* As a spawn does that meets the bytes limit. */
		if (wf_rcu_retired_bytes(stress.domain) > 8 << 20)
			sched_yield();
	}
	wf_u32_fetch_add(&stress.writing, (uint32_t)-1);
}

static void look_up(uint64_t *seed)
{
	struct object *object =
		wf_ptr_load_acquire(&stress.slots[harness_random_below(seed, SLOTS)]);

	cr_assert_eq(object->state, ALIVE);
	if (harness_random_below(seed, 64) == 0)
		sched_yield();
	cr_assert_eq(object->also, ~ALIVE);
}

/* Looks up in turns, with a quiescent state after each; now and then it sleeps, offline. */
static void read_as_worker(uint64_t seed)
{
	int i;

	wf_rcu_register();
	look_up(&seed);
	wf_u32_fetch_add(&stress.reading, 1);
	while (wf_u32_load_acquire(&stress.writing) > 0) {
		for (i = 0; i < LOOKUPS_PER_TURN; i++)
			look_up(&seed);
		wf_rcu_quiescent();
		if (harness_random_below(&seed, 16) == 0) {
			wf_rcu_offline();
			sched_yield();
			wf_rcu_online();
		}
	}
	wf_rcu_unregister();
}

static void read_as_foreign(uint64_t seed)
{
	bool first = true;

	while (wf_u32_load_acquire(&stress.writing) > 0) {
		wf_rcu_enter_foreign();
		look_up(&seed);
		wf_rcu_exit_foreign();
		if (first)
			wf_u32_fetch_add(&stress.reading, 1);
		first = false;
	}
}

static void thread(unsigned index, void *unused)
{
	uint64_t seed = harness_seed() + 100 + index;
	unsigned reader = index - WRITERS;

	(void)unused;
	if (index < WRITERS)
		write_slots(index);
	else if (reader < WORKERS)
		read_as_worker(seed);
	else
		read_as_foreign(seed);
}

static void run(const struct wf_rcu_opts *opts)
{
	uint64_t freed;
	int i;

	cr_assert_eq(wf_rcu_domain_create_with(&stress.domain, opts), 0);
	for (i = 0; i < SLOTS; i++)
		wf_ptr_store_relaxed(&stress.slots[i], make());
	wf_u32_store_relaxed(&stress.writing, WRITERS);
	wf_u32_store_relaxed(&stress.reading, 0);
	wf_u64_store_relaxed(&stress.freed, 0);
	harness_threads(WRITERS + WORKERS + FOREIGN, thread, NULL);
	wf_rcu_barrier(stress.domain);
	freed = wf_u64_load_relaxed(&stress.freed);
	cr_assert_eq(freed, (uint64_t)WRITERS * REPLACEMENTS);
	cr_assert_eq(wf_rcu_retired_bytes(stress.domain), 0);
	for (i = 0; i < SLOTS; i++)
		free(wf_ptr_load_relaxed(&stress.slots[i]));
	wf_rcu_domain_destroy(stress.domain);
	for (i = 0; i < POISONED_MAX; i++)
		free(poisoned[i]);
}

Test(rcu, nobody_follows_what_was_reclaimed, .timeout = 120)
{
	run(&(struct wf_rcu_opts){.name = "stress"});
}

/* Grace periods as many and as short as can be. */
Test(rcu, nobody_follows_what_was_reclaimed_in_a_hurry, .timeout = 120)
{
	run(&(struct wf_rcu_opts){.name = "stress", .age_limit_ns = 1, .bytes_limit = 1});
}
