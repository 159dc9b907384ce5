/*
 * sync/spinlock.h: one holder at a time, what it wrote is seen by the next, no sleeper is
 * forgotten. In sim builds a waiter pauses twice before it sleeps. sync/shortlock.h: the same.
 */
#include "test/sim/sim.h"

#include "sync/shortlock.h"
#include "sync/spinlock.h"

static struct {
	struct wf_spinlock lock;
	struct wf_shortlock short_lock;
	wf_atomic_u64 value; /* written plainly, by the holder only */
	unsigned holders, taken;
} s;

static void setup(void)
{
	wf_u32_store_relaxed(&s.lock.word, 0);
	wf_u32_store_relaxed(&s.short_lock.word, 0);
	wf_u64_store_relaxed(&s.value, 0);
	s.holders = s.taken = 0;
}

static void hold(void)
{
	sim_check(++s.holders == 1, "two holders");
	s.taken++;
	wf_u64_store_relaxed(&s.value, wf_u64_load_relaxed(&s.value) + 1);
	s.holders--;
}

static void locking(unsigned number)
{
	for (int i = 0; i < 2; i++) {
		if (number == 2) {
			if (!wf_spinlock_try(&s.lock))
				continue;
		} else {
			wf_spinlock_lock(&s.lock);
		}
		hold();
		wf_spinlock_unlock(&s.lock);
	}
}

static void check(void)
{
	sim_check(wf_u32_load_relaxed(&s.lock.word) == 0, "still locked");
	sim_check(wf_u32_load_relaxed(&s.short_lock.word) == 0, "still locked");
	sim_check(wf_u64_load_relaxed(&s.value) == s.taken, "a holder did not see the last one");
}

static const struct sim_scenario two = {"2 lockers", 2, setup, locking, NULL, check, 0};
static const struct sim_scenario three = {
	"2 lockers, 1 who tries", 3, setup, locking, NULL, check, 0};

SIM_TEST(spinlock, one_holder_at_a_time)
{
	sim_must_pass(&two, 100000);
	sim_must_pass(&three, 100000);
}

/* Three who sleep: the mark of waiters survives each of them. */
static void locking_only(unsigned number)
{
	(void)number;
	wf_spinlock_lock(&s.lock);
	hold();
	wf_spinlock_unlock(&s.lock);
}

static const struct sim_scenario sleepers = {"4 lockers", 4, setup, locking_only, NULL, check, 0};

SIM_TEST(spinlock, no_sleeper_is_forgotten)
{
	sim_must_pass(&sleepers, 100000);
}

static void locking_short(unsigned number)
{
	for (int i = 0; i < 2; i++) {
		if (number == 2) {
			if (!wf_shortlock_try(&s.short_lock))
				continue;
		} else {
			wf_shortlock_lock(&s.short_lock);
		}
		hold();
		wf_shortlock_unlock(&s.short_lock);
	}
}

static const struct sim_scenario short_three = {
	"2 short lockers, 1 who tries", 3, setup, locking_short, NULL, check, 0};

SIM_TEST(shortlock, one_holder_at_a_time)
{
	sim_must_pass(&short_three, 100000);
}

SIM_TEST(spinlock, planted_unlock_by_store)
{
	sim_must_find(&two, WF_PLANTED_spinlock_unlock_by_store, 100000);
}
