/*
 * Goal: what core/driver.h promises of poll-mode drivers beside the main one, and of spin-only
 * drivers: when they are opened, asked, armed, slept for, closed; that nothing they complete is
 * lost; that one that must not be slept with is not.
 * Method: drivers made here, of a queue under a lock, that check the order of their calls; foreign
 * threads and processes complete operations on them. The main driver is epoll, in some tests with a
 * function exchanged, or one of ours. Nothing else than what is tested could end a sleep.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/runtime.h"
#include "test/runtime.h"

extern const struct wf_driver wf_driver_epoll;

/* ---- Drivers of a queue --------------------------------------------------------------------- */

enum { KINDS = 5, DEVICES = 4, CLOSES_MAX = 64, MAIN = KINDS };

/* A process that waits for something to be completed. */
struct operation {
	struct wf_wait wait;
	wf_atomic_u32 submitted;
	struct operation *next;
};

/* One driver on one worker: its state. */
struct device {
	unsigned kind;
	struct wf_worker *worker;
	weft_rt *rt;
	int fd; /* -1: none */

	struct wf_spinlock lock; /* over the next three */
	struct operation *first, **end;
	bool signals; /* armed: who completes something must end the sleep */

	/* The owner's. */
	bool open, armed, owes_poll, drain;
	struct operation *timed;
	weft_time due;
	wf_atomic_u32 asleep; /* armed, for others to see */
	wf_atomic_u64 polls, empty, arms, retries, disarms, flushes;
};

/* What each kind does. */
static struct {
	bool has_fd;
	bool always_kicks;
	int open_error;
	unsigned open_error_worker;
	unsigned retry_every; /* arms; 0: only when there is something */
	wf_atomic_u32 poll_fails;
	struct device devices[DEVICES];
} kinds[KINDS];

static struct {
	unsigned opens, count;
	unsigned kinds[CLOSES_MAX], workers[CLOSES_MAX];
} closes; /* in order; MAIN: epoll, where it is asked to say so */
static pthread_mutex_t opens_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t count_of(const wf_atomic_u64 *counter)
{
	return wf_u64_load_relaxed(counter);
}

static void count_up(wf_atomic_u64 *counter)
{
	wf_u64_store_relaxed(counter, wf_u64_load_relaxed(counter) + 1);
}

static int device_open(unsigned kind, struct wf_worker *worker, void **state_out)
{
	unsigned number = wf_worker_number(worker);
	struct device *device = &kinds[kind].devices[number];

	cr_assert_lt(number, DEVICES);
	cr_assert(!device->open, "opened twice");
	cr_assert_eq(wf_worker_self(), worker);
	if (kinds[kind].open_error && kinds[kind].open_error_worker == number)
		return kinds[kind].open_error;
	memset(device, 0, sizeof *device);
	device->kind = kind;
	device->worker = worker;
	device->rt = wf_worker_rt(worker);
	device->fd = kinds[kind].has_fd ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	device->end = &device->first;
	device->due = WEFT_FOREVER;
	device->open = true;
	pthread_mutex_lock(&opens_lock);
	closes.opens++;
	pthread_mutex_unlock(&opens_lock);
	*state_out = device;
	return 0;
}

static void check_owner(const struct device *device)
{
	cr_assert(device->open);
	cr_assert_eq(wf_worker_self(), device->worker, "another thread than the owner");
}

static bool is_empty(struct device *device)
{
	bool empty;

	wf_spinlock_lock(&device->lock);
	empty = device->first == NULL;
	wf_spinlock_unlock(&device->lock);
	return empty;
}

static struct operation *take(struct device *device)
{
	struct operation *op;

	wf_spinlock_lock(&device->lock);
	op = device->first;
	if (op) {
		device->first = op->next;
		if (!device->first)
			device->end = &device->first;
	}
	wf_spinlock_unlock(&device->lock);
	return op;
}

static int device_poll(void *state, unsigned budget, weft_time now)
{
	struct device *device = state;
	struct operation *op;
	uint64_t value;
	unsigned handled = 0;

	check_owner(device);
	cr_assert(!device->armed, "polled while armed");
	count_up(&device->polls);
	device->owes_poll = false;
	if (wf_u32_load_relaxed(&kinds[device->kind].poll_fails))
		return -EIO;
	if (device->drain && device->fd >= 0 && read(device->fd, &value, sizeof value) < 0)
		cr_assert_eq(errno, EAGAIN);
	device->drain = false;
	while (handled < budget && (op = take(device))) {
		cr_assert(wf_wait_claim(device->rt, op->wait.pid, op->wait.number));
		handled++;
	}
	if (device->timed && device->due <= now) {
		op = device->timed;
		device->timed = NULL;
		device->due = WEFT_FOREVER;
		cr_assert(wf_wait_claim(device->rt, op->wait.pid, op->wait.number));
		handled++;
	}
	if (handled == 0)
		count_up(&device->empty);
	return (int)handled;
}

static void device_flush(void *state)
{
	struct device *device = state;

	check_owner(device);
	count_up(&device->flushes);
}

static weft_time device_next_deadline(void *state)
{
	struct device *device = state;

	check_owner(device);
	return device->due;
}

static int device_arm(void *state)
{
	struct device *device = state;
	unsigned every = kinds[device->kind].retry_every;
	bool retry;

	check_owner(device);
	cr_assert(!device->armed, "armed twice");
	cr_assert(!device->owes_poll, "armed again without a poll");
	count_up(&device->arms);
	wf_spinlock_lock(&device->lock);
	retry = device->first || (every && count_of(&device->arms) % every == 0);
	device->signals = !retry;
	wf_spinlock_unlock(&device->lock);
	device->armed = !retry;
	device->owes_poll = retry;
	if (retry) {
		count_up(&device->retries);
		return WF_DRIVER_RETRY;
	}
	wf_u32_store_release(&device->asleep, 1);
	return 0;
}

static void device_disarm(void *state)
{
	struct device *device = state;

	check_owner(device);
	cr_assert(device->armed, "disarmed without having been armed");
	count_up(&device->disarms);
	wf_u32_store_release(&device->asleep, 0);
	wf_spinlock_lock(&device->lock);
	device->signals = false;
	wf_spinlock_unlock(&device->lock);
	device->armed = false;
	device->drain = true; /* whoever is about to signal does so later: the next poll drains */
}

static int device_descriptor(void *state)
{
	check_owner(state);
	return ((struct device *)state)->fd;
}

static void note_close(unsigned kind, unsigned worker)
{
	cr_assert_lt(closes.count, CLOSES_MAX);
	closes.kinds[closes.count] = kind;
	closes.workers[closes.count++] = worker;
}

static void device_close(void *state)
{
	struct device *device = state;

	cr_assert(device->open && !device->armed);
	cr_assert(is_empty(device), "a completion is lost");
	if (device->fd >= 0)
		close(device->fd);
	device->open = false;
	note_close(device->kind, wf_worker_number(device->worker));
}

/* Any thread: the device has something for its worker. */
static void complete(struct device *device, struct operation *op)
{
	uint64_t one = 1;
	bool signals;

	op->next = NULL;
	wf_spinlock_lock(&device->lock);
	*device->end = op;
	device->end = &op->next;
	signals = device->signals || kinds[device->kind].always_kicks;
	wf_spinlock_unlock(&device->lock);
	if (!signals)
		return;
	if (device->fd >= 0)
		cr_assert_eq(write(device->fd, &one, sizeof one), (ssize_t)sizeof one);
	else
		wf_worker_kick(device->worker);
}

static int open_0(struct wf_worker *worker, void **state_out)
{
	return device_open(0, worker, state_out);
}

static int open_1(struct wf_worker *worker, void **state_out)
{
	return device_open(1, worker, state_out);
}

static int open_2(struct wf_worker *worker, void **state_out)
{
	return device_open(2, worker, state_out);
}

static int open_3(struct wf_worker *worker, void **state_out)
{
	return device_open(3, worker, state_out);
}

static int open_4(struct wf_worker *worker, void **state_out)
{
	return device_open(4, worker, state_out);
}

/* The same driver five times; all have all functions. */
#define QUEUE_DRIVER(n)                                                                         \
	{                                                                                       \
		.name = "queue" #n, .open = open_##n, .poll = device_poll, .flush = device_flush, \
		.next_deadline = device_next_deadline, .arm = device_arm,                       \
		.disarm = device_disarm, .descriptor = device_descriptor, .close = device_close \
	}

static const struct wf_driver queues[KINDS] = {
	QUEUE_DRIVER(0), QUEUE_DRIVER(1), QUEUE_DRIVER(2), QUEUE_DRIVER(3), QUEUE_DRIVER(4)};

/* With only what every poll-mode driver must have; it kicks whenever something comes. */
static const struct wf_driver bare = {
	.name = "bare", .open = open_0, .poll = device_poll, .close = device_close};

/* ---- Tools ---------------------------------------------------------------------------------- */

/* A log that keeps its lines, and counts those of each level. */
static struct {
	pthread_mutex_t lock;
	unsigned count[WEFT_LOG_DEBUG + 1];
	char text[4096];
} lines = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep(void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	size_t length;

	(void)ctx;
	(void)worker;
	(void)pid;
	pthread_mutex_lock(&lines.lock);
	lines.count[level]++;
	length = strlen(lines.text);
	snprintf(lines.text + length, sizeof lines.text - length, "%s\n", text);
	pthread_mutex_unlock(&lines.lock);
}

static int create(const struct weft_rt_opts *opts, const struct wf_driver *main,
	const struct wf_driver *const *polls, struct weft_error *error_out, weft_rt **rt_out)
{
	struct weft_rt_opts own = *opts;

	own.size = sizeof own;
	own.error = error_out;
	own.log = keep;
	return wf_rt_create_with(&own, &(struct wf_driver_set){main, polls}, rt_out);
}

static weft_rt *created(unsigned workers, enum weft_idle idle, const struct wf_driver *main,
	const struct wf_driver *const *polls)
{
	struct weft_error error = {0};
	weft_rt *rt = NULL;

	cr_assert_eq(create(&(struct weft_rt_opts){.workers = workers, .idle = idle}, main, polls,
			     &error, &rt),
		0, "%s", error.text);
	return rt;
}

/* Process: waits until somebody has completed it. */
static int waits(void *arg)
{
	struct operation *op = arg;
	int r = wf_wait_check();

	if (r < 0)
		return r;
	wf_wait_begin(&op->wait);
	wf_u32_store_release(&op->submitted, 1);
	return wf_wait_park(&op->wait, WEFT_FOREVER);
}

/* Foreign thread: completes what a new process waits for, once `when` says that all sleep. */
static void completes_one(weft_rt *rt, struct device *device, const wf_atomic_u32 *when)
{
	struct operation op = {.submitted = {0}};
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, waits, &op, NULL, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&op.submitted));
	if (when)
		UNTIL_FOREIGN(wf_u32_load_acquire(when));
	complete(device, &op);
	cr_assert_eq(joined(pid), 0);
}

static uint64_t turns_of(weft_rt *rt)
{
	return count_of(&wf_rt_worker(rt, 0)->counters.turns);
}

static uint64_t parks_of(weft_rt *rt)
{
	uint64_t parks = 0;

	for (unsigned i = 0; i < weft_rt_workers(rt); i++)
		parks += count_of(&wf_rt_worker(rt, i)->counters.parks);
	return parks;
}

/* ---- Sleeping ------------------------------------------------------------------------------- */

enum { ROUNDS = 2000 / HARNESS_SLOWDOWN };

/*
 * Half of the completions come to a worker that sleeps, the others while it is on its way there.
 */
static void sleeps_end(enum weft_idle idle, bool has_fd)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], NULL};
	struct device *device = &kinds[1].devices[0];
	uint64_t state = harness_seed();
	weft_rt *rt;

	kinds[1].has_fd = has_fd;
	rt = created(1, idle, NULL, polls);
	for (unsigned i = 0; i < ROUNDS; i++) {
		completes_one(rt, device, i % 2 ? &device->asleep : NULL);
		for (uint64_t turns = harness_random_below(&state, 500); turns > 0; turns--)
			wf_compiler_barrier();
	}
	cr_assert_geq(count_of(&device->disarms), ROUNDS / 4, "it has hardly slept");
	cr_assert_eq(lines.count[WEFT_LOG_WARN], 0);
	runtime_end(rt);
	for (unsigned i = 0; i < 2; i++) {
		device = &kinds[i].devices[0];
		cr_assert_eq(count_of(&device->arms),
			count_of(&device->disarms) + count_of(&device->retries));
		cr_assert_gt(count_of(&device->flushes), 0);
	}
}

Test(driver, a_descriptor_ends_a_sleep, .timeout = 120)
{
	sleeps_end(WEFT_IDLE_PARK, true);
	sleeps_end(WEFT_IDLE_ADAPTIVE, true);
}

Test(driver, a_kick_ends_a_sleep, .timeout = 120)
{
	sleeps_end(WEFT_IDLE_PARK, false);
	sleeps_end(WEFT_IDLE_ADAPTIVE, false);
}

/* No arm: each completion kicks, and kicks are latched. */
Test(driver, three_functions_are_enough_for_one_that_always_kicks, .timeout = 120)
{
	const struct wf_driver *const polls[] = {&bare, NULL};
	weft_rt *rt;

	kinds[0].always_kicks = true;
	rt = created(1, WEFT_IDLE_PARK, NULL, polls);
	for (unsigned i = 0; i < ROUNDS; i++)
		completes_one(rt, &kinds[0].devices[0], NULL);
	runtime_end(rt);
}

/* What the wait has ended for is taken out by the poll that follows, or the worker never sleeps. */
Test(driver, a_descriptor_that_was_read_lets_the_worker_sleep_again, .timeout = 120)
{
	const struct wf_driver *const polls[] = {&queues[0], NULL};
	struct device *device = &kinds[0].devices[0];
	uint64_t polls_before, rounds = 200 / HARNESS_SLOWDOWN;
	weft_rt *rt;

	kinds[0].has_fd = true;
	rt = created(1, WEFT_IDLE_PARK, NULL, polls);
	completes_one(rt, device, &device->asleep);
	polls_before = count_of(&device->polls);
	for (uint64_t i = 0; i < rounds; i++)
		completes_one(rt, device, &device->asleep);
	/* One after the wait, one or two turns until it sleeps again; for spawn and completion. */
	cr_assert_leq(count_of(&device->polls) - polls_before, 12 * rounds);
	runtime_end(rt);
}

/* A kick says nothing: each is a look around and another sleep. */
Test(driver, kicks_for_nothing_do_no_harm, .timeout = 120)
{
	const struct wf_driver *const polls[] = {&queues[0], NULL};
	struct device *device = &kinds[0].devices[0];
	weft_rt *rt = created(2, WEFT_IDLE_PARK, NULL, polls);

	for (unsigned i = 0; i < ROUNDS; i++) {
		wf_worker_kick(wf_rt_worker(rt, i % 2));
		if (i % 8 == 0)
			cr_assert_eq(runtime_do(rt, returns, &(int){3}), 3);
	}
	UNTIL_FOREIGN(wf_u32_load_acquire(&device->asleep));
	runtime_end(rt);
}

/* Process on worker 0: waits for what kind n's device completes by itself, at `due`. */
struct timed {
	struct operation op;
	unsigned kind;
	weft_time due, ended;
};

static int waits_for_time(void *arg)
{
	struct timed *timed = arg;
	struct device *device = wf_worker_driver_state_of(wf_worker_self(), &queues[timed->kind]);
	int r;

	wf_wait_begin(&timed->op.wait);
	device->timed = &timed->op;
	device->due = timed->due = weft_after(timed->due);
	r = wf_wait_park(&timed->op.wait, WEFT_FOREVER);
	timed->ended = weft_now();
	return r;
}

/* Nothing but the deadlines of the two can end the sleep; the later one's driver comes first. */
Test(driver, the_earliest_deadline_of_any_ends_the_sleep, .timeout = 120)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], NULL};
	struct timed late = {.kind = 0, .due = WEFT_MS(60)};
	struct timed soon = {.kind = 1, .due = WEFT_MS(3)};
	weft_rt *rt = created(1, WEFT_IDLE_PARK, NULL, polls);
	weft_pid late_pid, soon_pid;

	cr_assert_eq(weft_rt_spawn(rt, waits_for_time, &late, NULL, &late_pid), 0);
	cr_assert_eq(weft_rt_spawn(rt, waits_for_time, &soon, NULL, &soon_pid), 0);
	cr_assert_eq(joined(soon_pid), 0);
	cr_assert_eq(joined(late_pid), 0);
	cr_assert_geq(soon.ended, soon.due);
	cr_assert_geq(late.ended, late.due);
	cr_assert_lt(soon.ended, late.ended);
	runtime_end(rt);
}

/* The devices check that those armed before are disarmed, and that a poll of all follows. */
Test(driver, retry_of_any_is_a_poll_of_all, .timeout = 120)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], &queues[2], NULL};
	struct device *devices[3];
	weft_rt *rt;

	kinds[1].retry_every = 2;
	kinds[2].retry_every = 3;
	rt = created(1, WEFT_IDLE_PARK, NULL, polls);
	for (unsigned i = 0; i < 3; i++)
		devices[i] = &kinds[i].devices[0];
	for (unsigned i = 0; i < ROUNDS / 4; i++)
		completes_one(rt, devices[i % 3], &devices[2]->asleep);
	runtime_end(rt);
	cr_assert_geq(count_of(&devices[1]->retries), ROUNDS / 8);
	cr_assert_geq(count_of(&devices[2]->retries), ROUNDS / 16);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(count_of(&devices[i]->arms),
			count_of(&devices[i]->disarms) + count_of(&devices[i]->retries));
	/* Who comes behind the one that retries is not armed. */
	cr_assert_eq(count_of(&devices[2]->arms),
		count_of(&devices[1]->arms) - count_of(&devices[1]->retries));
}

/* Process: sleeps in the main driver. How often was the other one asked when it runs again? */
struct reader {
	int fd;
	wf_atomic_u32 reads;
	uint64_t polls;
};

static int reads_one(void *arg)
{
	struct reader *reader = arg;
	char byte;

	wf_u32_store_release(&reader->reads, 1);
	cr_assert_eq(weft_read(reader->fd, &byte, 1, WEFT_FOREVER), 1);
	reader->polls = count_of(&kinds[0].devices[0].polls);
	return 0;
}

/* However long the worker is busy with what has ended its sleep. */
Test(driver, all_are_polled_after_a_sleep_that_another_has_ended, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], NULL};
	struct device *device = &kinds[0].devices[0];
	struct reader reader = {.fd = -1};
	weft_rt *rt = created(1, WEFT_IDLE_PARK, NULL, polls);
	int ends[2];

	cr_assert_eq(pipe(ends), 0);
	reader.fd = ends[0];
	for (unsigned i = 0; i < 20; i++) {
		uint64_t before;
		weft_pid pid;

		wf_u32_store_release(&reader.reads, 0);
		cr_assert_eq(weft_rt_spawn(rt, reads_one, &reader, NULL, &pid), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&reader.reads));
		UNTIL_FOREIGN(wf_u32_load_acquire(&device->asleep));
		before = count_of(&device->polls);
		cr_assert_eq(write(ends[1], "x", 1), 1);
		cr_assert_eq(joined(pid), 0);
		cr_assert_gt(reader.polls, before);
	}
	runtime_end(rt);
	close(ends[0]);
	close(ends[1]);
}

/* ---- Opening and closing -------------------------------------------------------------------- */

static void epoll_close_noted(void *state)
{
	note_close(MAIN, 0);
	wf_driver_epoll.close(state);
}

Test(driver, all_are_closed_in_reverse, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[2], &queues[0], &queues[1], NULL};
	const unsigned order[] = {1, 0, 2, MAIN};
	struct wf_driver main = wf_driver_epoll;
	weft_rt *rt;

	main.close = epoll_close_noted;
	rt = created(2, WEFT_IDLE_DEFAULT, &main, polls);
	cr_assert_eq(closes.count, 0);
	runtime_end(rt);
	cr_assert_eq(closes.count, 8);
	for (unsigned i = 0; i < closes.count; i++)
		cr_assert_eq(closes.kinds[i], order[i % 4], "close %u", i);
}

static int finds_its_drivers(void *arg)
{
	struct wf_worker *self = wf_worker_self();
	struct wf_worker *other = wf_rt_worker(weft_rt_current(), 1);

	(void)arg;
	cr_assert_eq(wf_worker_driver_state_of(self, &queues[0]), &kinds[0].devices[0]);
	cr_assert_eq(wf_worker_driver_state_of(other, &queues[0]), &kinds[0].devices[1]);
	cr_assert_eq(wf_worker_driver_state_of(self, &queues[1]), &kinds[1].devices[0]);
	cr_assert_null(wf_worker_driver_state_of(self, &queues[2]));
	cr_assert_eq(wf_worker_driver(self), &wf_driver_epoll);
	cr_assert_eq(wf_worker_driver_state_of(self, &wf_driver_epoll),
		wf_worker_driver_state(self));
	return 0;
}

Test(driver, the_state_of_each_is_found, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], NULL};
	struct weft_spawn_opts on_0 = {.size = sizeof on_0, .worker = WEFT_WORKER(0)};
	weft_rt *rt = created(2, WEFT_IDLE_DEFAULT, NULL, polls);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, finds_its_drivers, NULL, &on_0, &pid), 0);
	cr_assert_eq(joined(pid), 0);
	runtime_end(rt);
}

/* Create fails, says why, and leaves nothing. */
static void is_refused(unsigned workers, const struct wf_driver *main,
	const struct wf_driver *const *polls, const struct weft_error *expected)
{
	struct weft_error error = {0};
	unsigned fds, threads;
	weft_rt *rt = NULL;

	runtime_end(created(workers, WEFT_IDLE_DEFAULT, NULL, NULL)); /* a sanitizer's threads */
	fds = harness_fd_count();
	threads = harness_thread_count();
	closes.opens = closes.count = 0;
	cr_assert_eq(create(&(struct weft_rt_opts){.workers = workers}, main, polls, &error, &rt),
		expected->error, "%s", error.text);
	cr_assert_null(rt);
	cr_assert_eq(error.error, expected->error);
	cr_assert_eq(error.worker, expected->worker);
	cr_assert_str_eq(error.step, "driver");
	cr_assert_eq(strncmp(error.text, expected->text, strlen(expected->text)), 0, "%s",
		error.text);
	cr_assert_eq(closes.count, closes.opens);
	cr_assert_eq(harness_fd_count(), fds);
	UNTIL_FOREIGN(harness_thread_count() <= threads);
}

Test(driver, one_that_cannot_be_opened_is_named_and_the_others_are_closed, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], &queues[2], NULL};

	kinds[0].has_fd = true;
	kinds[1].open_error = -ENOSPC;
	kinds[1].open_error_worker = 1;
	is_refused(2, NULL, polls,
		&(struct weft_error){-ENOSPC, 1, NULL, "driver queue1 cannot be opened"});
	cr_assert_eq(closes.opens, 4, "three of worker 0, one of worker 1");
	kinds[1].open_error = 0;
	runtime_end(created(2, WEFT_IDLE_DEFAULT, NULL, polls));
}

static int watches_nothing(void *state, int fd)
{
	(void)state;
	cr_assert_geq(fd, 0);
	return -EPERM;
}

Test(driver, one_that_cannot_be_watched_is_named_with_the_main_one, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], NULL};
	struct wf_driver main = wf_driver_epoll;

	main.name = "blind";
	main.watch = NULL;
	runtime_end(created(1, WEFT_IDLE_DEFAULT, &main, polls));
	kinds[1].has_fd = true;
	is_refused(1, &main, polls,
		&(struct weft_error){-ENOSYS, 0, NULL,
			"driver queue1 cannot be watched by driver blind"});
	main.watch = watches_nothing;
	is_refused(1, &main, polls,
		&(struct weft_error){-EPERM, 0, NULL,
			"driver queue1 cannot be watched by driver blind"});
	/* Who never sleeps does not watch. */
	runtime_end(created(1, WEFT_IDLE_SPIN, &main, polls));
}

/* ---- Failing -------------------------------------------------------------------------------- */

Test(driver, one_that_fails_ends_the_runtime_and_is_named, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], NULL};
	struct weft_error error;
	struct operation op = {.submitted = {0}};
	weft_rt *rt = created(2, WEFT_IDLE_PARK, NULL, polls);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, waits, &op, NULL, &pid), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&op.submitted));
	wf_u32_store_release(&kinds[1].poll_fails, 1);
	wf_worker_kick(wf_rt_worker(rt, 1));
	cr_assert_eq(weft_rt_run(rt), -EIO);
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_eq(weft_rt_error(rt, 0, &error), 0);
	cr_assert_eq(error.error, -EIO);
	cr_assert_str_eq(error.step, "poll");
	cr_assert_not_null(strstr(error.text, "the driver queue1 has failed"), "%s", error.text);
	cr_assert_eq(weft_rt_error(rt, 2, &error), -ENOENT, "one for each worker at most");
	runtime_end(rt);
}

/* ---- Busy workers --------------------------------------------------------------------------- */

enum { TURNS = 2000 };

struct busy {
	weft_rt *rt;
	struct operation op;
	uint64_t polls, turns, late;
	wf_atomic_u32 woken;
};

static int is_woken(void *arg)
{
	struct busy *busy = arg;
	int r = waits(&busy->op);

	busy->late = turns_of(busy->rt);
	wf_u32_store_release(&busy->woken, 1);
	return r;
}

/* Alone, it is a turn for each yield; every turn has run something. */
static int yields(void *arg)
{
	struct busy *busy = arg;
	struct device *device = &kinds[0].devices[0];

	busy->turns = turns_of(busy->rt);
	busy->polls = count_of(&device->polls);
	for (unsigned i = 0; i < TURNS; i++)
		weft_yield();
	busy->turns = turns_of(busy->rt) - busy->turns;
	busy->polls = count_of(&device->polls) - busy->polls;
	return 0;
}

Test(driver, an_idle_one_is_asked_in_one_of_nine_turns, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], NULL};
	struct busy busy = {.rt = created(1, WEFT_IDLE_PARK, NULL, polls)};

	cr_assert_eq(runtime_do(busy.rt, yields, &busy), 0);
	cr_assert_geq(busy.turns, TURNS);
	cr_assert_leq(busy.polls, busy.turns / (WF_POLL_BACKOFF_MAX + 1) + 4);
	cr_assert_geq(busy.polls, busy.turns / (WF_POLL_BACKOFF_MAX + 1) - 1);
	runtime_end(busy.rt);
}

/* Its yields are the worker's turns. */
static int completes_under_load(void *arg)
{
	struct busy *busy = arg;
	struct device *device = &kinds[0].devices[0];

	for (unsigned i = 0; i < 20; i++) {
		weft_pid pid = spawned(is_woken, busy);
		uint64_t from;

		for (unsigned turns = 0; turns < 100 + i; turns++)
			weft_yield();
		cr_assert(wf_u32_load_acquire(&busy->op.submitted));
		from = turns_of(busy->rt);
		complete(device, &busy->op);
		UNTIL(wf_u32_load_acquire(&busy->woken));
		cr_assert_leq(busy->late - from, WF_POLL_BACKOFF_MAX + 2);
		cr_assert_eq(joined(pid), 0);
		wf_u32_store_release(&busy->woken, 0);
	}
	return 0;
}

Test(driver, a_busy_worker_finds_a_completion_within_one_back_off, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], NULL};
	struct busy busy = {.rt = created(1, WEFT_IDLE_PARK, NULL, polls)};

	cr_assert_eq(runtime_do(busy.rt, completes_under_load, &busy), 0);
	runtime_end(busy.rt);
}

/* ---- Spin-only ------------------------------------------------------------------------------ */

static int must_not_arm(void *state)
{
	(void)state;
	cr_assert_fail("armed");
	return 0;
}

static int must_not_wait(void *state, weft_time deadline, weft_time now)
{
	(void)state;
	(void)deadline;
	(void)now;
	cr_assert_fail("a wait");
	return 0;
}

static void must_not_be_called(void *state)
{
	(void)state;
	cr_assert_fail("a disarm or a wake");
}

static int must_not_watch(void *state, int fd)
{
	(void)state;
	(void)fd;
	cr_assert_fail("watched");
	return 0;
}

/* Epoll, or one of ours, that must never be slept in. */
static struct wf_driver sleepless(const struct wf_driver *driver, unsigned caps)
{
	struct wf_driver changed = *driver;

	changed.caps |= caps;
	changed.arm = must_not_arm;
	changed.wait = must_not_wait;
	changed.disarm = must_not_be_called;
	changed.wake = must_not_be_called;
	changed.watch = must_not_watch;
	changed.descriptor = NULL;
	return changed;
}

static int sleeps(void *arg)
{
	weft_time until = weft_after(WEFT_MS(1));

	(void)arg;
	cr_assert_eq(weft_sleep_until(until), 0);
	cr_assert_geq(weft_now(), until);
	return 0;
}

/* All that would park: nothing to do, a timer, a completion, a stop, the end. */
static void lives_without_sleep(unsigned workers, enum weft_idle idle,
	const struct wf_driver *main, const struct wf_driver *const *polls)
{
	weft_rt *rt = created(workers, idle, main, polls);
	weft_pid pid;

	for (unsigned i = 0; i < 4; i++) {
		struct device *device = &kinds[0].devices[0];
		uint64_t before = count_of(&device->polls);

		UNTIL_FOREIGN(count_of(&device->polls) > before);
		wf_worker_kick(wf_rt_worker(rt, i % workers));
		completes_one(rt, device, NULL);
	}
	cr_assert_eq(runtime_do(rt, sleeps, NULL), 0);
	cr_assert_eq(parks_of(rt), 0);
	cr_assert_eq(weft_rt_run(rt), 0, "it ends by itself");
	cr_assert_eq(parks_of(rt), 0);
	runtime_end(rt);

	rt = created(workers, idle, main, polls);
	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	cr_assert_eq(weft_rt_stop(rt, 0, WEFT_FOREVER), 0);
	cr_assert_eq(joined(pid), -ECANCELED);
	cr_assert_eq(parks_of(rt), 0);
	runtime_end(rt);
}

static void says_so(unsigned workers, const struct wf_driver *main,
	const struct wf_driver *const *polls)
{
	const enum weft_log_level levels[] = {
		[WEFT_IDLE_DEFAULT] = WEFT_LOG_INFO,
		[WEFT_IDLE_ADAPTIVE] = WEFT_LOG_WARN,
		[WEFT_IDLE_PARK] = WEFT_LOG_WARN,
	};

	for (int idle = WEFT_IDLE_DEFAULT; idle <= WEFT_IDLE_SPIN; idle++) {
		memset(lines.count, 0, sizeof lines.count);
		lines.text[0] = '\0';
		lives_without_sleep(workers, (enum weft_idle)idle, main, polls);
		if (idle == WEFT_IDLE_SPIN) {
			cr_assert_eq(strlen(lines.text), 0, "%s", lines.text);
			continue;
		}
		cr_assert_eq(lines.count[levels[idle]], 2, "one line for each runtime: %s",
			lines.text);
		cr_assert_eq(lines.count[WEFT_LOG_WARN] + lines.count[WEFT_LOG_INFO], 2);
		cr_assert_not_null(strstr(lines.text, "driver queue0 can only be polled"), "%s",
			lines.text);
	}
}

Test(driver, a_main_one_that_is_spin_only_is_never_slept_in, .timeout = 120)
{
	struct wf_driver main = sleepless(&queues[0], WF_DRIVER_SPIN_ONLY);
	const struct wf_driver other = sleepless(&queues[1], 0);
	const struct wf_driver *const polls[] = {&other, NULL};

	says_so(1, &main, NULL);
	says_so(2, &main, polls);
}

Test(driver, a_spin_only_one_keeps_the_main_one_from_sleep, .timeout = 120)
{
	const struct wf_driver main = sleepless(&wf_driver_epoll, 0);
	const struct wf_driver spinner = sleepless(&queues[0], WF_DRIVER_SPIN_ONLY);
	const struct wf_driver other = sleepless(&queues[1], 0);
	const struct wf_driver *const polls[] = {&other, &spinner, NULL};

	says_so(1, &main, polls);
	says_so(2, &main, polls);
}

/* A spin-only driver need not have what is not called. */
Test(driver, a_spin_only_main_one_of_three_functions_works, .timeout = 60)
{
	struct wf_driver main = bare;

	main.caps = WF_DRIVER_SPIN_ONLY;
	lives_without_sleep(1, WEFT_IDLE_DEFAULT, &main, NULL);
}

/* Passes a turn on, round and round the workers. */
enum { RING = DEVICES, LAPS = 50 };

struct ring {
	wf_atomic_u32 turn;
	weft_pid pids[RING];
	wf_atomic_u32 ready;
};

struct seat {
	struct ring *ring;
	unsigned number;
};

static int passes_on(void *arg)
{
	struct seat *seat = arg;
	struct ring *ring = seat->ring;

	while (!wf_u32_load_acquire(&ring->ready))
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	for (unsigned lap = 0; lap < LAPS; lap++) {
		while (wf_u32_load_acquire(&ring->turn) != lap * RING + seat->number)
			cr_assert_eq(weft_park(WEFT_FOREVER), 0);
		wf_u32_store_release(&ring->turn, lap * RING + seat->number + 1);
		(void)weft_wake(ring->pids[(seat->number + 1) % RING]);
	}
	return 0;
}

/*
 * All workers share one CPU, and each waits for the next: those that have nothing give it away.
 * Without that each turn is a time slice of all who spin.
 */
Test(driver, workers_that_share_a_cpu_and_never_sleep_go_on, .timeout = 120)
{
	struct wf_driver main = sleepless(&queues[0], WF_DRIVER_SPIN_ONLY);
	struct ring ring = {.turn = {0}};
	struct seat seats[RING];
	cpu_set_t before, one;
	weft_rt *rt;

	cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
		if (CPU_ISSET(cpu, &before))
			CPU_SET(cpu, &one);
	cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
	rt = created(RING, WEFT_IDLE_DEFAULT, &main, NULL);
	for (unsigned i = 0; i < RING; i++) {
		struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(i)};

		seats[i] = (struct seat){&ring, i};
		cr_assert_eq(weft_rt_spawn(rt, passes_on, &seats[i], &opts, &ring.pids[i]), 0);
	}
	wf_u32_store_release(&ring.ready, 1);
	for (unsigned i = 0; i < RING; i++)
		(void)weft_wake(ring.pids[i]);
	cr_assert_eq(weft_rt_run(rt), 0);
	cr_assert_eq(wf_u32_load_acquire(&ring.turn), RING * LAPS);
	cr_assert_eq(parks_of(rt), 0);
	runtime_end(rt);
	cr_assert_eq(sched_setaffinity(0, sizeof before, &before), 0);
}

/* ---- Which ---------------------------------------------------------------------------------- */

Test(driver, the_main_one_is_not_opened_twice, .timeout = 60)
{
	const struct wf_driver *const polls[] = {&queues[0], &queues[1], NULL};
	const struct wf_driver *const five[] = {
		&queues[0], &queues[1], &queues[2], &queues[3], &queues[4], NULL};
	struct wf_driver spinner = queues[4];
	weft_rt *rt = created(1, WEFT_IDLE_SPIN, &queues[0], polls);

	cr_assert_eq(closes.opens, 2);
	cr_assert_eq(wf_worker_driver(wf_rt_worker(rt, 0)), &queues[0]);
	runtime_end(rt);
	/* Five are too many, but four beside one of them. */
	runtime_end(created(1, WEFT_IDLE_SPIN, &queues[2], five));
	is_refused(1, &spinner, five,
		&(struct weft_error){
			-EINVAL, -1, NULL, "5 drivers beside the main one, at most 4"});
}
