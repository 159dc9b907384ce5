/*
 * sync/idle.h with one thread that plays all of them: who is claimed, what the counts are
 * afterwards, who owes a token. The word's arithmetic at its edges (worker 0 and 47).
 */
#include "test/harness.h"

#include "sync/idle.h"

enum { WORKERS = WF_IDLE_WORKERS_MAX };

static struct wf_idle idle;

static void expect(uint64_t parked, unsigned searchers)
{
	cr_assert_eq(wf_idle_parked_mask(&idle), parked);
	cr_assert_eq(wf_idle_searcher_count(&idle), searchers);
	cr_assert(wf_idle_valid(&idle));
}

Test(idle, starts_with_all_awake_and_none_searching)
{
	wf_idle_init(&idle, 1);
	expect(0, 0);
	cr_assert_eq(wf_idle_claim_any(&idle), -1);
	cr_assert(!wf_idle_claim_one(&idle, 0));
	cr_assert_eq(wf_idle_claim_all(&idle), 0);
	cr_assert(!wf_idle_wants_work_wake_relaxed(&idle));
	cr_assert(!wf_idle_all_parked(&idle));
	expect(0, 0);
}

Test(idle, work_wake_claims_one_and_counts_it_as_a_searcher)
{
	wf_idle_init(&idle, 4);
	cr_assert(!wf_idle_park(&idle, 3, false));
	cr_assert(!wf_idle_park(&idle, 1, false));
	expect(0xa, 0);
	cr_assert(wf_idle_wants_work_wake_relaxed(&idle));
	cr_assert_eq(wf_idle_claim_any(&idle), 1);
	expect(0x8, 1);
	cr_assert(!wf_idle_wants_work_wake_relaxed(&idle));
	cr_assert_eq(wf_idle_claim_any(&idle), -1, "one searcher is enough");
	expect(0x8, 1);
	cr_assert(wf_idle_search_end(&idle), "it was the last");
	cr_assert_eq(wf_idle_claim_any(&idle), 3);
	expect(0, 1);
}

Test(idle, directed_wake_leaves_the_searchers_alone)
{
	wf_idle_init(&idle, 4);
	wf_idle_park(&idle, 2, false);
	cr_assert(wf_idle_search_begin(&idle, 1));
	cr_assert(!wf_idle_claim_one(&idle, 1), "it is awake");
	cr_assert(wf_idle_claim_one(&idle, 2), "searchers or not");
	cr_assert(!wf_idle_claim_one(&idle, 2), "one token, not two");
	expect(0, 1);
}

Test(idle, only_so_many_search)
{
	wf_idle_init(&idle, 8);
	cr_assert(!wf_idle_search_begin(&idle, 0));
	cr_assert(wf_idle_search_begin(&idle, 2));
	cr_assert(wf_idle_search_begin(&idle, 2));
	cr_assert(!wf_idle_search_begin(&idle, 2));
	cr_assert(wf_idle_search_begin(&idle, 3));
	expect(0, 3);
	cr_assert(!wf_idle_search_end(&idle));
	cr_assert(!wf_idle_search_end(&idle));
	cr_assert(wf_idle_search_end(&idle), "the last one is told");
	expect(0, 0);
}

Test(idle, a_searcher_that_parks_gives_its_count_back_in_the_same_step)
{
	wf_idle_init(&idle, 3);
	cr_assert(wf_idle_search_begin(&idle, 2));
	cr_assert(wf_idle_search_begin(&idle, 2));
	cr_assert(!wf_idle_park(&idle, 0, true));
	expect(1, 1);
	cr_assert(wf_idle_park(&idle, 2, true), "the last one is told");
	expect(5, 0);
	cr_assert(!wf_idle_park(&idle, 1, false));
	expect(7, 0);
}

Test(idle, who_wakes_by_itself_learns_whether_a_token_comes)
{
	wf_idle_init(&idle, 2);
	wf_idle_park(&idle, 0, false);
	cr_assert(wf_idle_unpark_self(&idle, 0), "nobody wanted it");
	expect(0, 0);
	wf_idle_park(&idle, 0, false);
	cr_assert_eq(wf_idle_claim_any(&idle), 0);
	cr_assert(!wf_idle_unpark_self(&idle, 0), "a work token comes");
	expect(0, 1);
	cr_assert(wf_idle_park(&idle, 0, true), "which made it a searcher");
	cr_assert(wf_idle_claim_one(&idle, 0));
	cr_assert(!wf_idle_unpark_self(&idle, 0), "a directed token comes");
	expect(0, 0);
}

/* S10: a wake-all between parks must not upset later wakes. */
Test(idle, wake_all_claims_everybody_and_leaves_the_counts_intact)
{
	unsigned i;

	wf_idle_init(&idle, 5);
	for (i = 0; i < 5; i++)
		wf_idle_park(&idle, i, false);
	cr_assert(wf_idle_all_parked(&idle));
	cr_assert_eq(wf_idle_claim_all(&idle), 0x1f);
	expect(0, 0);
	cr_assert_eq(wf_idle_claim_all(&idle), 0);
	for (i = 0; i < 5; i++) {
		cr_assert(!wf_idle_unpark_self(&idle, i));
		wf_idle_park(&idle, i, false);
	}
	cr_assert_eq(wf_idle_claim_any(&idle), 0);
	expect(0x1e, 1);
	cr_assert_eq(wf_idle_claim_all(&idle), 0x1e, "the searcher is left counted");
	expect(0, 1);
}

Test(idle, all_parked_means_every_worker_there_is)
{
	unsigned i, workers;

	for (workers = 1; workers <= WORKERS; workers++) {
		wf_idle_init(&idle, workers);
		for (i = 0; i < workers; i++) {
			cr_assert(!wf_idle_all_parked(&idle), "%u of %u", i, workers);
			wf_idle_park(&idle, i, false);
		}
		cr_assert(wf_idle_all_parked(&idle));
	}
}

/* Neighbouring fields of the word stay apart at the most there can be. */
Test(idle, forty_eight_workers_fit)
{
	unsigned i;

	wf_idle_init(&idle, WORKERS);
	for (i = 0; i < WORKERS; i++)
		cr_assert(wf_idle_search_begin(&idle, WORKERS));
	cr_assert(!wf_idle_search_begin(&idle, WORKERS));
	for (i = 0; i < WORKERS; i++)
		cr_assert_eq(wf_idle_park(&idle, WORKERS - 1 - i, true), i == WORKERS - 1);
	expect(WF_IDLE_PARKED, 0);
	for (i = 0; i < WORKERS; i++) {
		cr_assert_eq(wf_idle_claim_any(&idle), (int)i);
		cr_assert(wf_idle_search_end(&idle));
	}
	expect(0, 0);
}

Test(idle, valid_names_what_cannot_be)
{
	wf_idle_init(&idle, 2);
	wf_u64_store_relaxed(&idle.word, 4);
	cr_assert(!wf_idle_valid(&idle), "worker 2 of 2");
	wf_u64_store_relaxed(&idle.word, 3 * WF_IDLE_SEARCHER);
	cr_assert(!wf_idle_valid(&idle), "3 searchers of 2");
	wf_u64_store_relaxed(&idle.word, (uint64_t)1 << 60);
	cr_assert(!wf_idle_valid(&idle), "a spare bit");
	wf_u64_store_relaxed(&idle.word, 3 + 2 * WF_IDLE_SEARCHER);
	cr_assert(wf_idle_valid(&idle));
}
