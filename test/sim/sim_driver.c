/*
 * Poll-mode drivers beside the main one, and spin-only drivers, in the whole runtime: the drivers
 * here complete what a virtual thread, the device, tells them to.
 *
 * What is checked in every schedule: each completion ends the wait it is for, wherever its worker
 * is on its way to sleep (or the schedule ends with everybody asleep); functions are called in the
 * order of core/driver.h, by the owner; with a spin-only driver nothing is called that belongs to
 * sleeping; what cannot be opened leaves nothing behind.
 *
 * A completion is a bit of `pending`, set by a read-modify-write. Then the device looks whether the
 * driver is armed. arm() stores that it is, and then looks for bits, both seq_cst: one sees the
 * other.
 */
#include "test/sim/runtime.h"

#include <errno.h>
#include <string.h>

#include "core/runtime.h"
#include "sync/futex.h"

enum {
	STEPS_MAX = 200000,
	SPIN_STEPS_MAX = 400000,
	WORKERS = 2,
	KINDS = 2,
	OPERATIONS = 4,
	ODD = 8, /* one in so many arms is answered oddly */
};

/* Something that a process waits for. */
struct operation {
	struct wf_wait wait;
	wf_atomic_u32 submitted;
	unsigned completed; /* by the device */
	unsigned claimed;   /* by a poll */
};

/* One driver on one worker: its state. */
struct device {
	struct wf_worker *worker;
	unsigned thread; /* the owner */
	int fd;          /* -1: it kicks */
	bool open, armed;
	wf_atomic_u32 pending; /* operations; device → poll */
	wf_atomic_u32 signals; /* armed: who completes something ends the sleep */
	wf_atomic_u64 due;     /* of the operation that a clock completes */
	struct operation *timed;
};

static struct {
	weft_rt *rt;
	bool has_fd[KINDS];
	struct device devices[KINDS][WORKERS];
	struct operation operations[OPERATIONS];
	weft_time delay;         /* until `due` */
	wf_atomic_u32 created;
	wf_atomic_u32 submitted; /* operations */
	wf_atomic_u32 done;      /* the device */
} s;

/* --- the drivers --- */

static int device_open(unsigned kind, struct wf_worker *worker, void **state_out)
{
	unsigned number = wf_worker_number(worker);
	struct device *device = &s.devices[kind][number];

	if (sim_runtime_refuses())
		return -EMFILE;
	sim_check(!device->open, "opened twice");
	device->worker = worker;
	device->thread = sim_thread_self();
	device->fd = s.has_fd[kind] ? (int)(kind * WORKERS + number) : -1;
	device->open = true;
	wf_u64_store_relaxed(&device->due, (uint64_t)WEFT_FOREVER);
	*state_out = device;
	return 0;
}

static int open_0(struct wf_worker *worker, void **state_out)
{
	return device_open(0, worker, state_out);
}

static int open_1(struct wf_worker *worker, void **state_out)
{
	return device_open(1, worker, state_out);
}

static void check_owner(const struct device *device)
{
	sim_check(device->open, "a driver is used that is closed");
	sim_check(device->thread == sim_thread_self(), "a driver is used by another thread");
}

/* The process is on one worker, its completion may come from another one's driver. */
static void claim(struct operation *op)
{
	sim_check(op->completed == 1 && op->claimed == 0, "a completion is handled twice");
	op->claimed++;
	sim_check(wf_wait_claim(s.rt, op->wait.pid, op->wait.number), "a wait was over already");
}

static int device_poll(void *state, unsigned budget, weft_time now)
{
	struct device *device = state;
	uint32_t pending;
	int handled = 0;

	check_owner(device);
	sim_check(!device->armed, "polled while armed");
	sim_check(budget >= OPERATIONS, "the test has not foreseen that");
	/* First: a completion that comes after the exchange makes it readable again. */
	if (device->fd >= 0)
		sim_runtime_readable(device->fd, false);
	if (device->timed && (weft_time)wf_u64_load_acquire(&device->due) <= now) {
		wf_u64_store_relaxed(&device->due, (uint64_t)WEFT_FOREVER);
		device->timed->completed++;
		claim(device->timed);
		device->timed = NULL;
		handled++;
	}
	if (wf_u32_load_relaxed(&device->pending) == 0)
		return handled;
	pending = wf_u32_exchange(&device->pending, 0);
	for (unsigned i = 0; i < OPERATIONS; i++)
		if (pending >> i & 1) {
			claim(&s.operations[i]);
			handled++;
		}
	return handled;
}

static weft_time device_next_deadline(void *state)
{
	struct device *device = state;

	check_owner(device);
	return (weft_time)wf_u64_load_seq_cst(&device->due);
}

/* With a planted bug, what the bug leads to is to be found, not that it breaks the rules. */
static bool must_obey(void)
{
	return wf_planted == WF_PLANTED_nothing;
}

static int device_arm(void *state)
{
	struct device *device = state;

	check_owner(device);
	sim_check(!device->armed, "armed twice");
	wf_u32_store_seq_cst(&device->signals, 1);
	if (wf_u32_load_seq_cst(&device->pending) != 0 || sim_random(ODD) == 0) {
		wf_u32_store_relaxed(&device->signals, 0);
		return WF_DRIVER_RETRY;
	}
	device->armed = true;
	return 0;
}

static void device_disarm(void *state)
{
	struct device *device = state;

	check_owner(device);
	sim_check(device->armed || !must_obey(), "a disarm without arm");
	device->armed = false;
	wf_u32_store_relaxed(&device->signals, 0);
}

static int device_descriptor(void *state)
{
	check_owner(state);
	return ((struct device *)state)->fd;
}

static void device_close(void *state)
{
	struct device *device = state;

	sim_check(device->open && !device->armed, "closed twice, or while armed");
	sim_check(wf_u32_load_relaxed(&device->pending) == 0, "a completion is lost");
	device->open = false;
}

#define DEVICE_DRIVER(n)                                                                    \
	{                                                                                   \
		.name = "device" #n, .open = open_##n, .poll = device_poll,                 \
		.next_deadline = device_next_deadline, .arm = device_arm,                   \
		.disarm = device_disarm, .descriptor = device_descriptor, .close = device_close \
	}

static const struct wf_driver device_drivers[KINDS] = {DEVICE_DRIVER(0), DEVICE_DRIVER(1)};
static const struct wf_driver *const one[] = {&device_drivers[0], NULL};
static const struct wf_driver *const both[] = {&device_drivers[0], &device_drivers[1], NULL};

/* Whoever completes something, or makes a deadline earlier. */
static void tell(struct device *device)
{
	if (!wf_u32_load_seq_cst(&device->signals))
		return;
	if (device->fd >= 0)
		sim_runtime_readable(device->fd, true);
	else
		wf_worker_kick(device->worker);
}

static void complete(struct device *device, unsigned operation)
{
	sim_check(++s.operations[operation].completed == 1, "completed twice");
	(void)wf_u32_fetch_or(&device->pending, 1u << operation);
	tell(device);
}

/* --- around a schedule --- */

static void say(wf_atomic_u32 *word)
{
	wf_u32_store_release(word, 1);
	wf_futex_wake(word, SIM_THREADS_MAX);
}

static void await(wf_atomic_u32 *word)
{
	while (wf_u32_load_acquire(word) == 0)
		(void)wf_futex_sleep(word, 0, WF_FUTEX_FOREVER);
}

static void reset(void)
{
	sim_runtime_reset();
	memset(&s, 0, sizeof(s));
}

static void setup_kicks(void)
{
	reset();
}

static void setup_descriptors(void)
{
	reset();
	for (unsigned i = 0; i < KINDS; i++)
		s.has_fd[i] = true;
}

static void setup_mixed(void)
{
	reset();
	s.has_fd[1] = true;
}

static void create(unsigned workers, const struct wf_driver *main,
	const struct wf_driver *const *polls)
{
	int r = wf_rt_create_with(
		sim_runtime_opts(workers), &(struct wf_driver_set){main, polls}, &s.rt);

	sim_check(r == 0, "weft_rt_create: %d", r);
	say(&s.created);
}

static void destroy(void)
{
	int r = weft_rt_destroy(s.rt, WEFT_FOREVER);

	sim_check(r == 0, "weft_rt_destroy: %d", r);
}

static void check(void)
{
	sim_runtime_check();
	for (unsigned i = 0; i < KINDS; i++)
		for (unsigned k = 0; k < WORKERS; k++)
			sim_check(!s.devices[i][k].open, "a device is left open");
}

/* --- completions --- */

static void submit(struct operation *op)
{
	wf_wait_begin(&op->wait);
	wf_u32_store_release(&op->submitted, 1);
	(void)wf_u32_fetch_add(&s.submitted, 1);
	wf_futex_wake(&s.submitted, 1);
}

/* Process: waits for two operations, one after the other. */
static int waits_twice(void *arg)
{
	struct operation *op = arg;

	for (int i = 0; i < 2; i++, op++) {
		int r;

		submit(op);
		r = wf_wait_park(&op->wait, WEFT_FOREVER);
		sim_check(r == 0, "wf_wait_park: %d", r);
		sim_check(op->claimed == 1, "ended by another");
	}
	return 0;
}

/* Thread: completes each operation once it is submitted, by a driver of some worker. */
static void device(unsigned workers, unsigned kinds)
{
	unsigned done = 0;

	while (done < OPERATIONS) {
		uint32_t seen = wf_u32_load_acquire(&s.submitted);

		for (unsigned i = 0; i < OPERATIONS; i++)
			if (s.operations[i].completed == 0 &&
				wf_u32_load_acquire(&s.operations[i].submitted)) {
				complete(&s.devices[sim_random(kinds)][sim_random(workers)], i);
				done++;
			}
		if (done < OPERATIONS)
			(void)wf_futex_sleep(&s.submitted, seen, WF_FUTEX_FOREVER);
	}
}

static void spawn_waiters(unsigned workers)
{
	weft_pid pids[OPERATIONS / 2];

	for (unsigned i = 0; i < OPERATIONS / 2; i++) {
		struct weft_spawn_opts opts = {
			.size = sizeof(opts), .worker = WEFT_WORKER(i % workers)};
		int r = weft_rt_spawn(
			s.rt, waits_twice, &s.operations[2 * i], &opts, &pids[i]);

		sim_check(r == 0, "weft_rt_spawn: %d", r);
	}
	for (unsigned i = 0; i < OPERATIONS / 2; i++) {
		int r = weft_join(pids[i], NULL, WEFT_FOREVER);

		sim_check(r == 0, "weft_join: %d", r);
	}
}

static void completes(unsigned number, unsigned workers, unsigned kinds)
{
	if (number == 1) {
		await(&s.created);
		device(workers, kinds);
		say(&s.done);
		return;
	}
	create(workers, NULL, kinds == 1 ? one : both);
	spawn_waiters(workers);
	/* Its last signal may be late: it needs the runtime. */
	await(&s.done);
	destroy();
}

static void one_worker(unsigned number)
{
	completes(number, 1, 1);
}

static void two_workers(unsigned number)
{
	completes(number, 2, 2);
}

static const struct sim_scenario kicking = {
	"1 worker, kicks", 2, setup_kicks, one_worker, NULL, check, STEPS_MAX};
static const struct sim_scenario watched = {
	"1 worker, descriptor", 2, setup_descriptors, one_worker, NULL, check, STEPS_MAX};
static const struct sim_scenario kicking_two = {
	"2 workers, 2 drivers, kicks", 2, setup_kicks, two_workers, NULL, check, STEPS_MAX};
static const struct sim_scenario watched_two = {"2 workers, 2 drivers, descriptors", 2,
	setup_descriptors, two_workers, NULL, check, STEPS_MAX};
static const struct sim_scenario mixed_two = {
	"2 workers, 2 drivers, mixed", 2, setup_mixed, two_workers, NULL, check, STEPS_MAX};

SIM_TEST(driver, a_kick_loses_no_completion)
{
	sim_must_pass(&kicking, 10000);
	sim_must_pass(&kicking_two, 8000);
}

SIM_TEST(driver, a_descriptor_loses_no_completion)
{
	sim_must_pass(&watched, 10000);
	sim_must_pass(&watched_two, 8000);
}

SIM_TEST(driver, drivers_of_both_kinds_lose_no_completion)
{
	sim_must_pass(&mixed_two, 8000);
}

/* --- deadlines of drivers --- */

static int waits_for_time(void *arg)
{
	struct operation *op = arg;
	struct device *device = wf_worker_driver_state_of(wf_worker_self(), &device_drivers[0]);
	weft_time due = weft_after(s.delay);
	int r;

	device->timed = op;
	wf_u64_store_relaxed(&device->due, (uint64_t)due);
	submit(op);
	r = wf_wait_park(&op->wait, WEFT_FOREVER);
	sim_check(r == 0, "wf_wait_park: %d", r);
	return weft_now() < due;
}

/* -> whether it ended before the time it had named. */
static int wait_for_time(weft_time delay)
{
	weft_pid pid;
	int early = -1;
	int r;

	s.delay = delay;
	create(1, NULL, both);
	r = weft_rt_spawn(s.rt, waits_for_time, &s.operations[0], NULL, &pid);
	sim_check(r == 0, "weft_rt_spawn: %d", r);
	r = weft_join(pid, &early, WEFT_FOREVER);
	sim_check(r == 0, "weft_join: %d", r);
	return early;
}

/* Nothing else ends this sleep. */
static void on_time(unsigned unused)
{
	(void)unused;
	sim_check(wait_for_time(WEFT_US(50)) == 0, "a deadline came early");
	destroy();
}

static const struct sim_scenario timed = {
	"a driver's deadline", 1, setup_kicks, on_time, NULL, check, STEPS_MAX};

SIM_TEST(driver, a_sleep_ends_at_a_drivers_deadline)
{
	sim_must_pass(&timed, 10000);
}

/* There is none when the worker goes to sleep; then the thread makes one. */
static void earlier(unsigned number)
{
	struct device *device = &s.devices[0][0];

	if (number == 1) {
		await(&s.submitted);
		wf_u64_store_seq_cst(&device->due, (uint64_t)weft_after(WEFT_US(5)));
		tell(device);
		say(&s.done);
		return;
	}
	sim_check(wait_for_time(WEFT_FOREVER) == 1, "for ever has passed");
	await(&s.done);
	destroy();
}

static const struct sim_scenario sooner = {
	"a deadline becomes earlier", 2, setup_mixed, earlier, NULL, check, STEPS_MAX};

SIM_TEST(driver, a_deadline_that_becomes_earlier_is_kept)
{
	sim_must_pass(&sooner, 10000);
}

/* --- spin-only --- */

static int spin_open(struct wf_worker *worker, void **state_out)
{
	return device_open(0, worker, state_out);
}

/* Of a driver that nobody may sleep in. */
static int no_arm(void *state)
{
	(void)state;
	sim_fail("armed, though a driver is spin-only");
}

static int no_wait(void *state, weft_time deadline, weft_time now)
{
	(void)state;
	(void)deadline;
	(void)now;
	sim_fail("a wait, though a driver is spin-only");
}

static void no_call(void *state)
{
	(void)state;
	sim_fail("a disarm or a wake, though a driver is spin-only");
}

static int no_watch(void *state, int fd)
{
	(void)state;
	(void)fd;
	sim_fail("watched, though a driver is spin-only");
}

static struct wf_driver sleepless(const struct wf_driver *driver)
{
	struct wf_driver changed = *driver;

	changed.arm = no_arm;
	changed.wait = no_wait;
	changed.disarm = no_call;
	changed.wake = no_call;
	changed.watch = no_watch;
	return changed;
}

static const struct wf_driver spinner = {.name = "spinner",
	.caps = WF_DRIVER_SPIN_ONLY,
	.open = spin_open,
	.poll = device_poll,
	.close = device_close};

static int parks(void *arg)
{
	(void)arg;
	return weft_park(WEFT_FOREVER);
}

/* Processes that wait for completions and park; the stop comes while one is left. */
static void never_asleep(unsigned number, unsigned workers, const struct wf_driver *main,
	const struct wf_driver *const *polls)
{
	if (number == 1) {
		await(&s.created);
		device(workers, 1);
		say(&s.done);
		return;
	}
	create(workers, main, polls);
	spawn_waiters(workers);
	await(&s.done);
	sim_check(weft_rt_spawn(s.rt, parks, NULL, NULL, NULL) == 0, "weft_rt_spawn");
	for (unsigned i = 0; i < workers; i++)
		sim_check(wf_u64_load_relaxed(&s.rt->workers[i].counters.parks) == 0, "parked");
	destroy();
}

static void main_spins(unsigned number)
{
	struct wf_driver main = sleepless(&spinner);

	never_asleep(number, 2, &main, NULL);
}

static void one_beside_spins(unsigned number)
{
	struct wf_driver main = sleepless(wf_drivers[0]);
	const struct wf_driver *const polls[] = {&spinner, NULL};

	never_asleep(number, 2, &main, polls);
}

static const struct sim_scenario spinning_main = {
	"a spin-only main driver", 2, setup_kicks, main_spins, NULL, check, SPIN_STEPS_MAX};
static const struct sim_scenario spinning_beside = {
	"a spin-only driver beside", 2, setup_kicks, one_beside_spins, NULL, check, SPIN_STEPS_MAX};

SIM_TEST(driver, a_spin_only_driver_is_never_slept_with)
{
	sim_must_pass(&spinning_main, 5000);
	sim_must_pass(&spinning_beside, 5000);
}

/* --- failing to open --- */

/* Whichever of memory, threads, drivers and watches is refused. */
static void something_fails(unsigned unused)
{
	const struct wf_driver_set set = {NULL, both};
	int r;

	(void)unused;
	sim_runtime_fail_at(1 + sim_random(24));
	r = wf_rt_create_with(sim_runtime_opts(2), &set, &s.rt);
	if (r == 0)
		destroy();
	else
		sim_check(sim_runtime_has_failed(), "weft_rt_create: %d", r);
}

static const struct sim_scenario failing = {
	"a driver is refused", 1, setup_descriptors, something_fails, NULL, check, STEPS_MAX};

SIM_TEST(driver, what_cannot_be_opened_leaves_nothing)
{
	sim_must_pass(&failing, 10000);
}

/* --- planted --- */

SIM_TEST(driver, planted_only_the_main_one_is_armed)
{
	sim_must_find(&kicking, WF_PLANTED_park_arms_main_only, 10000);
	sim_must_find(&watched, WF_PLANTED_park_arms_main_only, 10000);
}

SIM_TEST(driver, planted_retry_is_ignored)
{
	sim_must_find(&kicking, WF_PLANTED_park_ignores_retry, 10000);
	sim_must_find(&watched, WF_PLANTED_park_ignores_retry, 10000);
}

SIM_TEST(driver, planted_only_the_main_deadline_counts)
{
	sim_must_find(&timed, WF_PLANTED_park_deadline_of_main, 1000);
}
