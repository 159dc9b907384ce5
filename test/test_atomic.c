/*
 * sync/atomic.h: every operation returns and stores what it says, on whichever back end this mode
 * uses; and the two orders that all of sync/ rests on hold between threads: message passing, and
 * "publish by RMW, then look" from both sides.
 */
#include "test/harness.h"

#include "sync/atomic.h"

#include <sched.h>

enum { ROUNDS = 200000 / HARNESS_SLOWDOWN };

Test(atomic, load_and_store_keep_every_bit)
{
	const uint64_t wide = 0x8123456789abcdefu;
	wf_atomic_u32 a = {0};
	wf_atomic_u64 b = {0};
	wf_atomic_ptr c = {NULL};

	wf_u32_store_relaxed(&a, UINT32_MAX);
	cr_assert_eq(wf_u32_load_relaxed(&a), UINT32_MAX);
	wf_u32_store_release(&a, 0x80000001u);
	cr_assert_eq(wf_u32_load_acquire(&a), 0x80000001u);
	wf_u32_store_seq_cst(&a, 7);
	cr_assert_eq(wf_u32_load_seq_cst(&a), 7);

	wf_u64_store_relaxed(&b, wide);
	cr_assert_eq(wf_u64_load_relaxed(&b), wide);
	wf_u64_store_release(&b, ~wide);
	cr_assert_eq(wf_u64_load_acquire(&b), ~wide);
	wf_u64_store_seq_cst(&b, wide);
	cr_assert_eq(wf_u64_load_seq_cst(&b), wide);

	wf_ptr_store_relaxed(&c, &a);
	cr_assert_eq(wf_ptr_load_relaxed(&c), (void *)&a);
	wf_ptr_store_release(&c, &b);
	cr_assert_eq(wf_ptr_load_acquire(&c), (void *)&b);
	wf_ptr_store_seq_cst(&c, NULL);
	cr_assert_null(wf_ptr_load_seq_cst(&c));
}

Test(atomic, cas_stores_only_on_a_match_and_reports_what_it_saw)
{
	wf_atomic_u32 a = {5};
	wf_atomic_u64 b = {UINT64_MAX};
	wf_atomic_ptr c = {&a};
	uint32_t want32 = 4;
	uint64_t want64 = UINT64_MAX - 1;
	void *want = &b;

	cr_assert(!wf_u32_cas(&a, &want32, 9));
	cr_assert_eq(want32, 5);
	cr_assert(wf_u32_cas(&a, &want32, 9));
	cr_assert_eq(want32, 5, "a success leaves expected alone");
	cr_assert_eq(wf_u32_load_relaxed(&a), 9);

	cr_assert(!wf_u64_cas(&b, &want64, 1));
	cr_assert_eq(want64, UINT64_MAX);
	cr_assert(wf_u64_cas(&b, &want64, 1));
	cr_assert_eq(wf_u64_load_relaxed(&b), 1);

	cr_assert(!wf_ptr_cas(&c, &want, NULL));
	cr_assert_eq(want, (void *)&a);
	cr_assert(wf_ptr_cas(&c, &want, NULL));
	cr_assert_null(wf_ptr_load_relaxed(&c));
}

Test(atomic, exchange_and_fetch_return_the_old_value)
{
	wf_atomic_u32 a = {1};
	wf_atomic_u64 b = {1};
	wf_atomic_ptr c = {&a};

	cr_assert_eq(wf_u32_exchange(&a, 3), 1);
	cr_assert_eq(wf_u32_fetch_add(&a, UINT32_MAX), 3);
	cr_assert_eq(wf_u32_fetch_or(&a, 0xf0), 2);
	cr_assert_eq(wf_u32_fetch_and(&a, 0x1f), 0xf2);
	cr_assert_eq(wf_u32_load_relaxed(&a), 0x12);

	cr_assert_eq(wf_u64_exchange(&b, (uint64_t)3 << 40), 1);
	cr_assert_eq(wf_u64_fetch_add(&b, -((uint64_t)1 << 40)), (uint64_t)3 << 40);
	cr_assert_eq(wf_u64_fetch_or(&b, 1), (uint64_t)2 << 40);
	cr_assert_eq(wf_u64_fetch_and(&b, 1), ((uint64_t)2 << 40) | 1);
	cr_assert_eq(wf_u64_load_relaxed(&b), 1);

	cr_assert_eq(wf_ptr_exchange(&c, &b), (void *)&a);
	cr_assert_eq(wf_ptr_load_relaxed(&c), (void *)&b);
}

struct counters {
	wf_atomic_u32 added;
	wf_atomic_u64 toggled;
	wf_atomic_u64 cased;
};

static void count(unsigned index, void *arg)
{
	struct counters *counters = arg;
	uint64_t mine = (uint64_t)1 << index, seen;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		wf_u32_fetch_add(&counters->added, 1);
		cr_assert_eq(wf_u64_fetch_or(&counters->toggled, mine) & mine, 0);
		cr_assert_neq(wf_u64_fetch_and(&counters->toggled, ~mine) & mine, 0);
		seen = wf_u64_load_relaxed(&counters->cased);
		while (!wf_u64_cas(&counters->cased, &seen, seen + 1))
			;
	}
}

Test(atomic, read_modify_writes_lose_nothing, .timeout = 120)
{
	struct counters counters = {{0}, {0}, {0}};

	harness_threads(4, count, &counters);
	cr_assert_eq(wf_u32_load_relaxed(&counters.added), 4u * ROUNDS);
	cr_assert_eq(wf_u64_load_relaxed(&counters.toggled), 0);
	cr_assert_eq(wf_u64_load_relaxed(&counters.cased), 4u * ROUNDS);
}

/* One message slot: plain data, handed over by release and acquire. */
struct message {
	uint64_t data[4];
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u32 full;
};

static void pass(unsigned index, void *arg)
{
	struct message *message = arg;
	uint32_t mine = index;
	uint64_t i;

	for (i = 1; i <= ROUNDS / 4; i++) {
		while (wf_u32_load_acquire(&message->full) != mine)
			sched_yield();
		if (index == 0) {
			message->data[0] = i;
			message->data[3] = ~i;
		} else {
			cr_assert_eq(message->data[0], i);
			cr_assert_eq(message->data[3], ~i);
		}
		wf_u32_store_release(&message->full, 1 - mine);
	}
}

Test(atomic, release_and_acquire_hand_over_plain_data, .timeout = 120)
{
	struct message message = {.data = {0}};

	harness_threads(2, pass, &message);
}

/*
 * Dekker: each side publishes by an RMW of its own word, then loads the other's, seq_cst. At least
 * one sees the other, in every round. The sides meet at a barrier before and after each round.
 */
struct dekker {
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u64 word[2][WF_FALSE_SHARING / 8];
	wf_atomic_u32 arrived;
	uint64_t seen[2];
};

/* Spins, so that both leave together; not for ever, since the other may have no CPU. */
static void meet(struct dekker *dekker, uint32_t *meetings)
{
	unsigned spins = 0;

	*meetings += 2;
	wf_u32_fetch_add(&dekker->arrived, 1);
	while (wf_u32_load_acquire(&dekker->arrived) < *meetings)
		if (++spins % 1024 == 0)
			sched_yield();
		else
			wf_pause();
}

static void publish_and_look(unsigned index, void *arg)
{
	struct dekker *dekker = arg;
	uint32_t meetings = 0;
	uint64_t i;

	for (i = 1; i <= ROUNDS / 40; i++) {
		meet(dekker, &meetings);
		(void)wf_u64_exchange(&dekker->word[index][0], i);
		dekker->seen[index] = wf_u64_load_seq_cst(&dekker->word[1 - index][0]);
		meet(dekker, &meetings);
		cr_assert(dekker->seen[0] == i || dekker->seen[1] == i,
			"round %llu: neither saw the other", (unsigned long long)i);
	}
}

Test(atomic, of_two_that_publish_and_look_one_sees_the_other, .timeout = 120)
{
	static struct dekker dekker;

	harness_threads(2, publish_and_look, &dekker);
}

/* Constants that no 64-bit store takes as an immediate: ck_pr would let the compiler try. */
Test(atomic, stores_take_every_constant)
{
	wf_atomic_u64 a = {0};

	wf_u64_store_relaxed(&a, 0x7fffffffu);
	cr_assert_eq(wf_u64_load_relaxed(&a), 0x7fffffffu);
	wf_u64_store_relaxed(&a, 0x80000000u);
	cr_assert_eq(wf_u64_load_relaxed(&a), 0x80000000u);
	wf_u64_store_release(&a, 0xffffffffu);
	cr_assert_eq(wf_u64_load_relaxed(&a), 0xffffffffu);
	wf_u64_store_release(&a, 0x100000000u);
	cr_assert_eq(wf_u64_load_relaxed(&a), 0x100000000u);
	wf_u64_store_relaxed(&a, UINT64_MAX);
	cr_assert_eq(wf_u64_load_relaxed(&a), UINT64_MAX);
}
