/*
 * Goal: the classes of processes: who goes first, and that the lower ones have their share.
 * Method: one worker. Processes of each class are always ready, since each wakes its partner before
 * it parks, and note the class of each run; what is judged is the order of the notes.
 */
#include <errno.h>

#include "core/worker.h"
#include "test/runtime.h"

/* ---- Shares --------------------------------------------------------------------------------- */

enum { CLASSES = WEFT_PRIORITY_LOW + 1, NOTES = 4000 };

struct notes {
	unsigned begun, expected;
	unsigned count;
	uint8_t class[NOTES];
};

struct player {
	struct notes *notes;
	enum weft_priority class;
	weft_pid pid, partner;
};

static bool notes_full(const struct notes *notes)
{
	return notes->count == NOTES;
}

/*
 * Of two: one is always ready. Notes are taken once all have run twice: first runs are made in the
 * share of the normal class.
 */
static int plays(void *arg)
{
	struct player *player = arg;
	struct notes *notes = player->notes;

	for (unsigned runs = 1; !notes_full(notes); runs++) {
		if (runs <= 2)
			notes->begun++;
		else if (notes->begun == notes->expected)
			notes->class[notes->count++] = (uint8_t)player->class;
		cr_assert_eq(weft_wake(player->partner), 0);
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	}
	weft_wake(player->partner);
	return 0;
}

static weft_pid spawned_in_class(weft_fn fn, void *arg, enum weft_priority class, unsigned flags)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags, .priority = class};
	weft_pid pid = {0};

	cr_assert_eq(weft_spawn_with(fn, arg, &opts, &pid), 0);
	return pid;
}

struct match {
	unsigned classes; /* a bit for each that plays */
	unsigned flags;   /* of the spawns */
	struct notes notes;
};

static int play(void *arg)
{
	struct match *match = arg;
	struct player players[2 * CLASSES];
	unsigned count = 0;

	match->notes = (struct notes){.begun = 0};
	for (unsigned class = 0; class < CLASSES; class++) {
		if (!(match->classes >> class & 1))
			continue;
		for (unsigned i = 0; i < 2; i++, count++) {
			players[count].notes = &match->notes;
			players[count].class = class;
			players[count].pid = spawned_in_class(
				plays, &players[count], class, match->flags);
			players[count ^ 1].partner = players[count].pid;
		}
	}
	match->notes.expected = 2 * count;
	for (unsigned i = 0; i < count; i++)
		joined(players[i].pid);
	return 1;
}

/* The most runs of others in a row, those before the first one of that class included. */
static unsigned longest_gap(const struct notes *notes, enum weft_priority class)
{
	unsigned longest = 0, gap = 0;

	for (unsigned i = 0; i < notes->count; i++) {
		gap = notes->class[i] == class ? 0 : gap + 1;
		longest = gap > longest ? gap : longest;
	}
	return longest;
}

static unsigned runs_of(const struct notes *notes, enum weft_priority class)
{
	unsigned runs = 0;

	for (unsigned i = 0; i < notes->count; i++)
		runs += notes->class[i] == class;
	return runs;
}

#define CLASS_BIT(class) (1u << WEFT_PRIORITY_##class)

/* Each of the classes that play has at least its floor, and the highest has the rest. */
static void expect_shares(unsigned classes, unsigned flags)
{
	static struct match match;
	unsigned lower = 0;
	enum weft_priority highest =
		classes & CLASS_BIT(HIGH) ? WEFT_PRIORITY_HIGH : WEFT_PRIORITY_NORMAL;

	match.classes = classes;
	match.flags = flags;
	cr_assert_eq(in_runtime(1, play, &match), 1);
	cr_assert_eq(match.notes.count, NOTES);
	for (unsigned class = 0; class < CLASSES; class++) {
		if (!(classes >> class & 1) || class == (unsigned)highest)
			continue;
		lower++;
		cr_assert_leq(longest_gap(&match.notes, class), WF_CLASS_TURNS - 1,
			"class %u of %#x waits too long", class, classes);
		/* Its floor, and no more: one more for where the notes begin and end. */
		cr_assert_leq(runs_of(&match.notes, class), NOTES / WF_CLASS_TURNS + 1,
			"class %u of %#x has too much", class, classes);
	}
	cr_assert_geq(runs_of(&match.notes, highest),
		NOTES - lower * (NOTES / WF_CLASS_TURNS + 1), "the highest of %#x", classes);
}

Test(queue, lower_classes_have_one_pick_in_eight, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE) {
		expect_shares(CLASS_BIT(HIGH) | CLASS_BIT(NORMAL) | CLASS_BIT(LOW), flags);
		expect_shares(CLASS_BIT(HIGH) | CLASS_BIT(NORMAL), flags);
		expect_shares(CLASS_BIT(HIGH) | CLASS_BIT(LOW), flags);
		expect_shares(CLASS_BIT(NORMAL) | CLASS_BIT(LOW), flags);
	}
}

/* Alone, a class has all there is: nothing waits for a turn of somebody who is not there. */
Test(queue, a_class_alone_has_every_pick, .timeout = 120)
{
	for (unsigned class = 0; class < CLASSES; class++) {
		static struct match match;

		match.classes = 1u << class;
		cr_assert_eq(in_runtime(1, play, &match), 1);
		cr_assert_eq(runs_of(&match.notes, class), NOTES);
	}
}

/* ---- Order ---------------------------------------------------------------------------------- */

struct sleeper {
	struct notes *notes;
	enum weft_priority class;
};

static int parks_and_notes(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->notes->begun++;
	cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	sleeper->notes->class[sleeper->notes->count++] = (uint8_t)sleeper->class;
	return 0;
}

/* One of each class is woken, in every order: a normal one, if last, is in the next slot. */
static int wakes_in_every_order(void *arg)
{
	static const enum weft_priority orders[][CLASSES] = {
		{ WEFT_PRIORITY_HIGH, WEFT_PRIORITY_NORMAL, WEFT_PRIORITY_LOW },
		{ WEFT_PRIORITY_HIGH, WEFT_PRIORITY_LOW, WEFT_PRIORITY_NORMAL },
		{ WEFT_PRIORITY_NORMAL, WEFT_PRIORITY_HIGH, WEFT_PRIORITY_LOW },
		{ WEFT_PRIORITY_NORMAL, WEFT_PRIORITY_LOW, WEFT_PRIORITY_HIGH },
		{ WEFT_PRIORITY_LOW, WEFT_PRIORITY_HIGH, WEFT_PRIORITY_NORMAL },
		{ WEFT_PRIORITY_LOW, WEFT_PRIORITY_NORMAL, WEFT_PRIORITY_HIGH },
	};
	struct notes notes = {.begun = 0};
	struct sleeper sleepers[CLASSES];
	weft_pid pids[CLASSES];

	/* Three picks each: the turns of the floors are left out by a round for each. */
	for (unsigned i = 0; i < sizeof orders / sizeof orders[0]; i++) {
		unsigned in_order = 0;

		for (unsigned round = 0; round < WF_CLASS_TURNS; round++) {
			notes.begun = notes.count = 0;
			for (unsigned class = 0; class < CLASSES; class++) {
				sleepers[class] = (struct sleeper){&notes, class};
				pids[class] = spawned_in_class(parks_and_notes, &sleepers[class],
					class, *(unsigned *)arg);
			}
			UNTIL(notes.begun == CLASSES);
			for (unsigned k = 0; k < CLASSES; k++)
				cr_assert_eq(weft_wake(pids[orders[i][k]]), 0);
			for (unsigned class = 0; class < CLASSES; class++)
				joined(pids[class]);
			in_order += notes.class[0] == WEFT_PRIORITY_HIGH
				&& notes.class[1] == WEFT_PRIORITY_NORMAL;
		}
		/* A round is three picks, of which the floors may change two in eight. */
		cr_assert_geq(in_order, WF_CLASS_TURNS / 4, "order %u", i);
	}
	return 1;
}

Test(queue, high_goes_before_normal_before_low_whoever_is_woken_last, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE)
		cr_assert_eq(in_runtime(1, wakes_in_every_order, &flags), 1);
}

/* ---- Yields --------------------------------------------------------------------------------- */

static int yields_and_notes(void *arg)
{
	struct sleeper *sleeper = arg;
	struct notes *notes = sleeper->notes;

	notes->begun++;
	while (notes->begun < notes->expected)
		cr_assert_eq(weft_yield(), 0);
	while (!notes_full(notes)) {
		notes->class[notes->count++] = (uint8_t)sleeper->class;
		cr_assert_eq(weft_yield(), 0);
	}
	return 0;
}

/*
 * Who yields waits for the others of its turn, of whatever class. A turn too short for all of them
 * leaves the lower ones their floor.
 */
static int yields_of_all(void *arg)
{
	const unsigned gap = WF_BUDGET >= CLASSES ? 2 * (CLASSES - 1) : 2 * WF_CLASS_TURNS;
	const unsigned share = WF_BUDGET >= CLASSES ? CLASSES : 2 * WF_CLASS_TURNS;
	static struct notes notes;
	struct sleeper sleepers[CLASSES];
	weft_pid pids[CLASSES];

	notes = (struct notes){.expected = CLASSES};
	for (unsigned class = 0; class < CLASSES; class++) {
		sleepers[class] = (struct sleeper){&notes, class};
		pids[class] = spawned_in_class(
			yields_and_notes, &sleepers[class], class, *(unsigned *)arg);
	}
	for (unsigned class = 0; class < CLASSES; class++)
		joined(pids[class]);
	for (unsigned class = 0; class < CLASSES; class++) {
		/* In lifo order normal ones that may move yield by way of the injector. */
		if (!WF_RUN_ORDER_FIFO && class == WEFT_PRIORITY_NORMAL) {
			cr_assert_leq(longest_gap(&notes, class), WF_INJECTOR_INTERVAL + WF_BUDGET);
			continue;
		}
		cr_assert_leq(longest_gap(&notes, class), gap, "class %u", class);
		cr_assert_geq(runs_of(&notes, class), NOTES / share - 1, "class %u", class);
	}
	return 1;
}

Test(queue, a_high_process_that_yields_lets_low_ones_run, .timeout = 120)
{
	for (unsigned flags = 0; flags <= WEFT_MOVABLE; flags += WEFT_MOVABLE)
		cr_assert_eq(in_runtime(1, yields_of_all, &flags), 1);
}

/* ---- Where they are ------------------------------------------------------------------------- */

static int notes_its_worker(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->notes->class[sleeper->notes->count++] = (uint8_t)sleeper->class;
	return weft_worker_index();
}

/* Spawned for a worker, they are in their class before they have run. */
static int spawns_low_then_high(void *arg)
{
	struct notes notes = {.begun = 0};
	struct sleeper low = {&notes, WEFT_PRIORITY_LOW}, high = {&notes, WEFT_PRIORITY_HIGH};
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(0)};
	unsigned high_first = 0;

	(void)arg;
	for (unsigned round = 0; round < WF_CLASS_TURNS; round++) {
		weft_pid pids[2];

		notes.count = 0;
		opts.priority = WEFT_PRIORITY_LOW;
		cr_assert_eq(weft_spawn_with(notes_its_worker, &low, &opts, &pids[0]), 0);
		opts.priority = WEFT_PRIORITY_HIGH;
		cr_assert_eq(weft_spawn_with(notes_its_worker, &high, &opts, &pids[1]), 0);
		cr_assert_eq(joined(pids[0]), 0);
		cr_assert_eq(joined(pids[1]), 0);
		high_first += notes.class[0] == WEFT_PRIORITY_HIGH;
	}
	/* Two picks a round: the turn of low comes up once, at one of them. */
	cr_assert_geq(high_first, WF_CLASS_TURNS / 2);
	return 1;
}

Test(queue, placed_processes_start_in_their_class, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, spawns_low_then_high, NULL), 1);
}

struct crowd {
	wf_atomic_u32 moved;
};

static int yields_until_moved(void *arg)
{
	struct crowd *crowd = arg;
	unsigned seen = 0;

	while (seen != 3) {
		seen |= 1u << weft_worker_index();
		weft_yield();
	}
	wf_u32_fetch_add(&crowd->moved, 1);
	return 0;
}

/* Holds its worker a slice at a time: the other one has nothing to do but what may move. */
static int watches_them_move(void *arg)
{
	struct crowd crowd = {{0}};
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = WEFT_MOVABLE};
	weft_pid pids[2];

	(void)arg;
	opts.worker = WEFT_WORKER(0);
	for (unsigned i = 0; i < 2; i++) {
		opts.priority = i ? WEFT_PRIORITY_LOW : WEFT_PRIORITY_HIGH;
		cr_assert_eq(weft_spawn_with(yields_until_moved, &crowd, &opts, &pids[i]), 0);
	}
	do {
		if (weft_should_yield())
			weft_yield();
	} while (wf_u32_load_acquire(&crowd.moved) < 2);
	joined(pids[0]);
	joined(pids[1]);
	return 1;
}

Test(queue, movable_ones_of_any_class_move_to_an_idle_worker, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(0)};
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, watches_them_move, NULL, &opts, &pid), 0);
	cr_assert_eq(joined(pid), 1);
	runtime_end(rt);
}

static int returns_7(void *arg)
{
	(void)arg;
	return 7;
}

/* From outside, by way of the injector and the inbox, and of a suspended start. */
Test(queue, every_class_starts_and_ends_from_everywhere, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);

	for (unsigned class = 0; class < CLASSES; class++)
		for (unsigned worker = 0; worker <= 2; worker++)
			for (unsigned suspended = 0; suspended < 2; suspended++) {
				struct weft_spawn_opts opts = {.size = sizeof opts,
					.worker = worker,
					.flags = suspended ? WEFT_SUSPENDED : 0,
					.priority = class};
				weft_pid pid;

				cr_assert_eq(weft_rt_spawn(rt, returns_7, NULL, &opts, &pid), 0);
				if (suspended)
					cr_assert_eq(weft_wake(pid), 0);
				cr_assert_eq(joined(pid), 7);
			}
	runtime_end(rt);
}

Test(queue, a_priority_that_does_not_exist_is_refused)
{
	weft_rt *rt = runtime_new(1);
	struct weft_spawn_opts opts = {.size = sizeof opts};
	int beyond = CLASSES;
	weft_pid pid;

	memcpy(&opts.priority, &beyond, sizeof opts.priority);
	cr_assert_eq(weft_rt_spawn(rt, returns_7, NULL, &opts, &pid), -EINVAL);
	beyond = -1;
	memcpy(&opts.priority, &beyond, sizeof opts.priority);
	cr_assert_eq(weft_rt_spawn(rt, returns_7, NULL, &opts, &pid), -EINVAL);
	runtime_end(rt);
}
