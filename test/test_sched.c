/*
 * Goal: which process runs where and when: shares, order, fairness, moves between workers.
 * Method: one or two workers; processes count their turns or note their worker, and wait for events
 * by joining, or by yielding until a condition holds. Shares are judged by counts, not by time.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/sched.h"
#include "core/worker.h"
#include "test/net.h"
#include "test/runtime.h"

/* ---- Spawning from outside ------------------------------------------------------------------ */

static int counts(void *arg)
{
	wf_u32_fetch_add((wf_atomic_u32 *)arg, 1);
	return 0;
}

/* S1 */
static void spawns_a_thousand(unsigned workers)
{
	enum { COUNT = 1000 };
	weft_rt *rt = runtime_new(workers);
	wf_atomic_u32 ran = {0};

	for (int i = 0; i < COUNT; i++)
		cr_assert_eq(weft_rt_spawn(rt, counts, &ran, NULL, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&ran) == COUNT);
	runtime_end(rt);
	cr_assert_eq(wf_u32_load_acquire(&ran), COUNT);
}

Test(sched, thousand_spawns_from_outside_all_run, .timeout = 120)
{
	spawns_a_thousand(1);
	spawns_a_thousand(2);
}

/* S9: no timer is there to rescue a spawn that nobody was woken for. */
static void spawns_while_workers_park(unsigned workers, enum weft_idle idle)
{
	weft_rt *rt = runtime_new_with(&(struct weft_rt_opts){.workers = workers, .idle = idle});
	const unsigned rounds = 3000 / HARNESS_SLOWDOWN;
	wf_atomic_u32 ran = {0};
	uint64_t state = harness_seed();

	for (unsigned i = 0; i < rounds; i++) {
		weft_pid pid;

		cr_assert_eq(weft_rt_spawn(rt, counts, &ran, NULL, &pid), 0);
		cr_assert_eq(joined(pid), 0);
		/* The worker is on its way to sleep: meet it at another place each time. */
		for (uint64_t turns = harness_random_below(&state, 500); turns > 0; turns--)
			wf_compiler_barrier();
	}
	cr_assert_eq(wf_u32_load_acquire(&ran), rounds);
	runtime_end(rt);
}

Test(sched, spawn_while_the_workers_park_runs, .timeout = 120)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		spawns_while_workers_park(workers, WEFT_IDLE_PARK);
		spawns_while_workers_park(workers, WEFT_IDLE_ADAPTIVE);
	}
}

/* ---- Fairness on one worker ----------------------------------------------------------------- */

/* S3: the last one of the chain is told by `stop`. */
struct chain {
	wf_atomic_u32 stop;
	wf_atomic_u32 links;
};

static int spawns_its_successor(void *arg)
{
	struct chain *chain = arg;

	wf_u32_fetch_add(&chain->links, 1);
	if (!wf_u32_load_acquire(&chain->stop))
		cr_assert_eq(weft_spawn(spawns_its_successor, chain, NULL), 0);
	return 0;
}

static int yields_five_times(void *arg)
{
	(void)arg;
	for (int i = 0; i < 5; i++)
		cr_assert_eq(weft_yield(), 0);
	return 5;
}

static int sleeps_briefly(void *arg)
{
	(void)arg;
	return weft_sleep_until(weft_after(WEFT_US(500)));
}

/* What has to go through on a worker that is kept busy, from a foreign thread. */
static void expect_reachable(weft_rt *rt, weft_pid parked)
{
	wf_atomic_u32 posted = {0};

	cr_assert_eq(runtime_do(rt, yields_five_times, NULL), 5);
	cr_assert_eq(runtime_do(rt, sleeps_briefly, NULL), 0);
	cr_assert_eq(weft_post(rt, count_one, &posted), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&posted));
	cr_assert_eq(weft_wake(parked), 0);
	cr_assert_eq(joined(parked), 0);
}

static weft_pid parked_in(weft_rt *rt)
{
	weft_pid pid = {0};

	cr_assert_eq(weft_rt_spawn(rt, parks, NULL, NULL, &pid), 0);
	/* Its turn has come when those after it have run. */
	cr_assert_eq(runtime_do(rt, yields_five_times, NULL), 5);
	return pid;
}

Test(sched, endless_successors_leave_room, .timeout = 120)
{
	struct chain chain = {{0}, {0}};
	weft_rt *rt = runtime_new(1);
	weft_pid parked = parked_in(rt);

	cr_assert_eq(weft_rt_spawn(rt, spawns_its_successor, &chain, NULL, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&chain.links) > 100);
	expect_reachable(rt, parked);
	wf_u32_store_release(&chain.stop, 1);
	runtime_end(rt);
}

/* S4: two processes that wake each other and park. */
struct pair {
	wf_atomic_u32 *stop;
	weft_pid partner;
	uint64_t rounds;
};

static int plays(void *arg)
{
	struct pair *pair = arg;

	while (!wf_u32_load_acquire(pair->stop)) {
		pair->rounds++;
		weft_wake(pair->partner);
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	}
	weft_wake(pair->partner);
	return 0;
}

enum { PAIRS = 100 };

struct match {
	wf_atomic_u32 stop;
	wf_atomic_u32 all_play;
};

static int saturates(void *arg)
{
	struct match *match = arg;
	static struct pair players[2 * PAIRS];
	static weft_pid pids[2 * PAIRS];

	for (unsigned i = 0; i < 2 * PAIRS; i++) {
		players[i].stop = &match->stop;
		pids[i] = spawned(plays, &players[i]);
		players[i ^ 1].partner = pids[i];
	}
	cr_assert_eq(joined(spawned(yields_five_times, NULL)), 5);
	/* Nobody is left out. */
	for (unsigned i = 0; i < 2 * PAIRS; i++)
		UNTIL(players[i].rounds > 10);
	wf_u32_store_release(&match->all_play, 1);
	UNTIL(wf_u32_load_acquire(&match->stop));
	for (unsigned i = 0; i < 2 * PAIRS; i++)
		joined(pids[i]);
	return 1;
}

Test(sched, ping_pong_pairs_leave_room, .timeout = 120)
{
	struct match match = {{0}, {0}};
	weft_rt *rt = runtime_new(1);
	weft_pid parked = parked_in(rt);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, saturates, &match, NULL, &pid), 0);
	expect_reachable(rt, parked);
	UNTIL_FOREIGN(wf_u32_load_acquire(&match.all_play));
	wf_u32_store_release(&match.stop, 1);
	cr_assert_eq(joined(pid), 1);
	runtime_end(rt);
}

/* S5: its park never has to wait. */
static int wakes_itself(void *arg)
{
	while (!wf_u32_load_acquire((wf_atomic_u32 *)arg)) {
		cr_assert_eq(weft_wake(weft_self()), 0);
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	}
	return 0;
}

static void run_self_wakers(unsigned count, unsigned flags)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags};
	wf_atomic_u32 stop = {0};
	weft_rt *rt = runtime_new(1);
	weft_pid parked = parked_in(rt);

	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(weft_rt_spawn(rt, wakes_itself, &stop, &opts, NULL), 0);
	expect_reachable(rt, parked);
	wf_u32_store_release(&stop, 1);
	runtime_end(rt);
}

Test(sched, process_that_wakes_itself_leaves_room, .timeout = 120)
{
	run_self_wakers(1, 0);
	run_self_wakers(100, 0);
	run_self_wakers(1, WEFT_MOVABLE);
	run_self_wakers(100, WEFT_MOVABLE);
}

/* ---- Noisy neighbours ----------------------------------------------------------------------- */

/*
 * One process has something to do all the time, and none of it makes it wait. A neighbour that
 * yields runs in every turn, so what the noisy one does between two of its runs is at most what the
 * noisy one may do in one.
 */
enum { NEIGHBOUR_RUNS = 200, JOINED = 4 * WF_OPERATIONS_BUDGET };

struct noise {
	unsigned count;   /* what the noisy one has done */
	unsigned longest; /* of it between two runs of the neighbour */
	bool begun, stop;
	int result;       /* of its call */
	int fd;
	wf_atomic_u32 ended;
	weft_pid pids[JOINED];
};

static int makes_noise_by(struct noise *noise, int (*fn)(struct noise *noise))
{
	noise->begun = true;
	while (!noise->stop) {
		noise->count++;
		cr_assert_eq(fn(noise), noise->result);
	}
	return 0;
}

static int is_a_neighbour(struct noise *noise, weft_fn noisy)
{
	weft_pid pid = spawned(noisy, noise);

	UNTIL(noise->begun);
	for (int i = 0; i < NEIGHBOUR_RUNS; i++) {
		unsigned before = noise->count;

		cr_assert_eq(weft_yield(), 0);
		if (noise->count - before > noise->longest)
			noise->longest = noise->count - before;
	}
	noise->stop = true;
	joined(pid);
	return 1;
}

static void expect_bounded(weft_fn neighbour, int result)
{
	static struct noise noise;

	noise = (struct noise){.result = result};
	cr_assert_eq(in_runtime(1, neighbour, &noise), 1);
	cr_assert_leq(noise.longest, WF_OPERATIONS_BUDGET);
	cr_assert_geq(noise.longest, 1, "there was no noise");
}

static int wake_and_park(struct noise *noise)
{
	(void)noise;
	cr_assert_eq(weft_wake(weft_self()), 0);
	return weft_park(WEFT_FOREVER);
}

static int wakes_and_parks(void *arg)
{
	return makes_noise_by(arg, wake_and_park);
}

static int lives_beside_a_self_waker(void *arg)
{
	return is_a_neighbour(arg, wakes_and_parks);
}

Test(sched, neighbour_of_a_process_that_wakes_itself_has_its_turn, .timeout = 120)
{
	expect_bounded(lives_beside_a_self_waker, 0);
}

static int consume(struct noise *noise)
{
	(void)noise;
	return weft_consume();
}

static int consumes(void *arg)
{
	return makes_noise_by(arg, consume);
}

static int lives_beside_a_consumer(void *arg)
{
	return is_a_neighbour(arg, consumes);
}

Test(sched, neighbour_of_a_process_that_consumes_its_budget_has_its_turn, .timeout = 120)
{
	expect_bounded(lives_beside_a_consumer, 0);
}

static int sleep_into_the_past(struct noise *noise)
{
	return weft_sleep_until((weft_time)(noise->count % 2));
}

static int sleeps_into_the_past(void *arg)
{
	return makes_noise_by(arg, sleep_into_the_past);
}

static int lives_beside_a_sleeper(void *arg)
{
	return is_a_neighbour(arg, sleeps_into_the_past);
}

Test(sched, neighbour_of_a_process_that_sleeps_into_the_past_has_its_turn, .timeout = 120)
{
	expect_bounded(lives_beside_a_sleeper, 0);
}

/* Cancelled, all its calls return at once: the budget is what is left to bound it. */
static int consumes_though_cancelled(void *arg)
{
	cr_assert_eq(weft_cancel(weft_self()), 0);
	return makes_noise_by(arg, consume);
}

static int lives_beside_a_cancelled_one(void *arg)
{
	return is_a_neighbour(arg, consumes_though_cancelled);
}

Test(sched, neighbour_of_a_cancelled_process_has_its_turn, .timeout = 120)
{
	expect_bounded(lives_beside_a_cancelled_one, -ECANCELED);
}

/* Ended ones, more than a budget of them. */
static int joins_the_ended(void *arg)
{
	struct noise *noise = arg;

	noise->begun = true;
	for (unsigned i = 0; i < JOINED; i++) {
		noise->count++;
		joined(noise->pids[i]);
	}
	return 0;
}

static int lives_beside_a_joiner(void *arg)
{
	struct noise *noise = arg;

	for (unsigned i = 0; i < JOINED; i++)
		noise->pids[i] = spawned(counts, &noise->ended);
	UNTIL(wf_u32_load_acquire(&noise->ended) == JOINED);
	return is_a_neighbour(arg, joins_the_ended);
}

Test(sched, neighbour_of_a_process_that_joins_many_has_its_turn, .timeout = 120)
{
	expect_bounded(lives_beside_a_joiner, 0);
}

/* All that is read has come before: the reader never waits. */
static int read_a_byte(struct noise *noise)
{
	char byte;

	return (int)weft_read(noise->fd, &byte, 1, WEFT_FOREVER);
}

static int reads_all_the_time(void *arg)
{
	return makes_noise_by(arg, read_a_byte);
}

static int lives_beside_a_reader(void *arg)
{
	return is_a_neighbour(arg, reads_all_the_time);
}

Test(sched, neighbour_of_a_process_that_always_has_data_to_read_has_its_turn, .timeout = 120)
{
	static char bytes[(NEIGHBOUR_RUNS + 4) * WF_OPERATIONS_BUDGET];
	static struct noise noise;
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	net_send(fds[1], bytes, sizeof bytes);
	cr_assert_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	noise = (struct noise){.result = 1, .fd = fds[0]};
	cr_assert_eq(in_runtime(1, lives_beside_a_reader, &noise), 1);
	cr_assert_leq(noise.longest, WF_OPERATIONS_BUDGET);
	cr_assert_geq(noise.longest, 1, "there was no noise");
	cr_assert_eq(weft_close(fds[0]), 0);
	close(fds[1]);
}

static int looks_at_its_budget(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_yield(), 0);
	for (unsigned left = WF_OPERATIONS_BUDGET; left > 0; left--) {
		cr_assert_eq(weft_budget_left(), left);
		cr_assert_eq(weft_consume(), 0);
	}
	cr_assert_eq(weft_budget_left(), WF_OPERATIONS_BUDGET, "it has yielded");
	cr_assert_eq(weft_cancel(weft_self()), 0);
	cr_assert_eq(weft_consume(), -ECANCELED);
	cr_assert_eq(weft_budget_left(), WF_OPERATIONS_BUDGET - 1, "the unit is taken");
	return 1;
}

Test(sched, budget_is_what_a_process_may_consume_before_it_yields, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, looks_at_its_budget, NULL), 1);
	cr_assert_eq(weft_consume(), -EPERM);
	cr_assert_eq(weft_budget_left(), 0);
}

/* ---- Sockets beside load (S6, S7) ----------------------------------------------------------- */

enum { ECHOES = 20 };

struct echo_host {
	int listener;
	unsigned port;
	wf_atomic_u32 listening;
};

static int accepts_and_echoes(void *arg)
{
	struct echo_host *host = arg;
	char bytes[16];
	int fd;

	host->listener = weft_listen("tcp:127.0.0.1:0", 0);
	cr_assert_geq(host->listener, 0);
	host->port = net_port_of(host->listener);
	wf_u32_store_release(&host->listening, 1);
	fd = weft_accept(host->listener, WEFT_FOREVER);
	cr_assert_geq(fd, 0);
	for (;;) {
		ssize_t n = weft_read(fd, bytes, sizeof bytes, WEFT_FOREVER);

		cr_assert_geq(n, 0);
		if (n == 0)
			break;
		cr_assert_eq(weft_write_all(fd, bytes, (size_t)n, WEFT_FOREVER), n);
	}
	cr_assert_eq(weft_close(fd), 0);
	cr_assert_eq(weft_close(host->listener), 0);
	return 1;
}

/* The process has to be told of each byte by the driver: it waits before the byte is sent. */
static void echo_beside(unsigned flags)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .flags = flags};
	struct echo_host host = {.port = 0};
	wf_atomic_u32 stop = {0};
	weft_rt *rt = runtime_new(1);
	weft_pid server;
	int fd;

	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(weft_rt_spawn(rt, wakes_itself, &stop, &opts, NULL), 0);
	cr_assert_eq(weft_rt_spawn(rt, accepts_and_echoes, &host, NULL, &server), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&host.listening));
	fd = net_connect(host.port);
	for (unsigned i = 0; i < ECHOES; i++) {
		uint32_t sent = i, got = ~0u;

		net_send(fd, &sent, sizeof sent);
		net_recv(fd, &got, sizeof got);
		cr_assert_eq(got, sent);
	}
	close(fd);
	cr_assert_eq(joined(server), 1);
	wf_u32_store_release(&stop, 1);
	runtime_end(rt);
}

Test(sched, connections_are_served_beside_processes_that_wake_themselves, .timeout = 120)
{
	echo_beside(0);
	echo_beside(WEFT_MOVABLE);
}

struct connecting {
	char address[WEFT_ADDRESS_MAX];
	int listener; /* the test's own, blocking */
	bool started, done;
};

static int connects(void *arg)
{
	struct connecting *connecting = arg;
	int fd;

	connecting->started = true;
	fd = weft_connect(connecting->address, WEFT_FOREVER);
	connecting->done = true;
	return fd;
}

/*
 * The connection is there, as the kernel sees it, before the yields begin: how many it takes until
 * its process knows is the scheduler's doing alone.
 */
static int counts_yields_to_a_connection(void *arg)
{
	struct connecting *connecting = arg;
	weft_pid pid = spawned(connects, connecting);
	unsigned yields = 0;
	int accepted, fd;

	UNTIL(connecting->started);
	accepted = accept(connecting->listener, NULL, NULL);
	cr_assert_geq(accepted, 0);
	for (; !connecting->done; yields++)
		cr_assert_eq(weft_yield(), 0);
	fd = joined(pid);
	cr_assert_geq(fd, 0);
	cr_assert_eq(weft_close(fd), 0);
	close(accepted);
	return (int)yields;
}

struct hold {
	wf_atomic_u32 held, let_go;
};

static int holds_its_worker(void *arg)
{
	struct hold *hold = arg;

	wf_u32_store_release(&hold->held, 1);
	while (!wf_u32_load_acquire(&hold->let_go))
		sched_yield();
	return 0;
}

Test(sched, few_yields_until_a_socket_connects_while_others_are_busy, .timeout = 120)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(0)};
	struct sockaddr_in any = net_loopback(0);
	struct connecting connecting = {.started = false};
	weft_rt *rt = runtime_new(2);
	struct hold hold = {{0}, {0}};
	weft_pid pid;

	connecting.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	net_be_patient(connecting.listener);
	cr_assert_eq(bind(connecting.listener, (struct sockaddr *)&any, sizeof any), 0);
	cr_assert_eq(listen(connecting.listener, 5), 0);
	cr_assert_eq(weft_local_address(
			     connecting.listener, connecting.address, sizeof connecting.address),
		0);
	/* First: a worker still free might take the process that connects, and then be held. */
	cr_assert_eq(weft_rt_spawn(rt, holds_its_worker, &hold, &opts, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&hold.held));
	opts.worker = WEFT_WORKER(1);
	for (int i = 0; i < 20; i++) {
		connecting.started = connecting.done = false;
		cr_assert_eq(
			weft_rt_spawn(rt, counts_yields_to_a_connection, &connecting, &opts, &pid),
			0);
		cr_assert_lt(joined(pid), 10);
	}
	wf_u32_store_release(&hold.let_go, 1);
	close(connecting.listener);
	runtime_end(rt);
}

/* ---- Yielding ------------------------------------------------------------------------------- */

struct yielder {
	uint32_t *started;
	uint32_t *counts;
	unsigned number;
};

enum { YIELDERS = 10, YIELD_ROUNDS = 200 };

static int yields_fairly(void *arg)
{
	struct yielder *yielder = arg;

	++*yielder->started;
	UNTIL(*yielder->started == YIELDERS);
	for (int i = 0; i < YIELD_ROUNDS; i++) {
		uint32_t mine = ++yielder->counts[yielder->number];

		for (unsigned k = 0; k < YIELDERS; k++)
			cr_assert_leq(mine, yielder->counts[k] + 2, "%u is ahead of %u",
				yielder->number, k);
		cr_assert_eq(weft_yield(), 0);
	}
	return 0;
}

static int watches_yielders(void *arg)
{
	struct yielder yielders[YIELDERS];
	uint32_t counts_of[YIELDERS] = {0};
	weft_pid pids[YIELDERS];
	uint32_t started = 0;

	(void)arg;
	for (unsigned i = 0; i < YIELDERS; i++) {
		yielders[i] = (struct yielder){&started, counts_of, i};
		pids[i] = spawned(yields_fairly, &yielders[i]);
	}
	for (unsigned i = 0; i < YIELDERS; i++)
		joined(pids[i]);
	return 1;
}

Test(sched, yields_are_fair, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, watches_yielders, NULL), 1);
}

static int asks_when_to_yield(void *arg)
{
	(void)arg;
	for (int i = 0; i < 3; i++) {
		weft_time start = weft_now();

		UNTIL(weft_should_yield() == false);
		while (!weft_should_yield())
			continue;
		cr_assert_gt(weft_now() - start, WEFT_MS(1));
		cr_assert(weft_should_yield(), "it stays true");
		/* Either starts a new slice. */
		cr_assert_eq(i % 2 ? weft_yield() : weft_sleep_until(weft_after(WEFT_US(10))), 0);
	}
	return 1;
}

/* Runs whose length the test says, until it says that it is over. */
struct runs {
	weft_time length;
	bool over;
};

static int runs_again(void *arg)
{
	const struct runs *runs = arg;

	while (!runs->over) {
		weft_time end = weft_now() + runs->length;

		while (runs->length > 0 && weft_now() < end)
			;
		weft_yield();
	}
	return 0;
}

static int sees_how_often_the_clock_is_read(void *arg)
{
	struct runs runs = { .length = 0 };
	weft_pid pids[100];

	(void)arg;
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		pids[i] = spawned(runs_again, &runs);
	if (HARNESS_SLOWDOWN < 10)
		UNTIL(wf_worker_self()->clock_picks == WF_CLOCK_PICKS_SHORT);
	runs.length = 4 * (weft_time)WF_SHORT_PICK_NS;
	UNTIL(wf_worker_self()->clock_picks == WF_CLOCK_PICKS);
	runs.over = true;
	for (unsigned i = 0; i < WF_ARRAY_COUNT(pids); i++)
		cr_assert_eq(joined(pids[i]), 0);
	return 1;
}

Test(sched, the_clock_is_read_less_often_while_runs_are_short, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, sees_how_often_the_clock_is_read, NULL), 1);
}

Test(sched, should_yield_is_true_after_a_millisecond_of_work, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, asks_when_to_yield, NULL), 1);
}

/* ---- Order (S16) ---------------------------------------------------------------------------- */

enum { IN_ORDER = WF_RING_SIZE < 32 ? WF_RING_SIZE : 32 };

struct order {
	unsigned places[IN_ORDER];
	unsigned count;
};

struct numbered {
	struct order *order;
	unsigned number;
};

static int notes_its_place(void *arg)
{
	struct numbered *numbered = arg;

	numbered->order->places[numbered->order->count++] = numbered->number;
	return 0;
}

static int spawns_in_order(void *arg)
{
	struct order order = {.count = 0};
	struct numbered numbered[IN_ORDER];
	weft_pid pids[IN_ORDER];

	(void)arg;
	for (unsigned i = 0; i < IN_ORDER; i++) {
		numbered[i] = (struct numbered){&order, i};
		pids[i] = spawned(notes_its_place, &numbered[i]);
	}
	for (unsigned i = 0; i < IN_ORDER; i++)
		joined(pids[i]);
	cr_assert_eq(order.count, IN_ORDER);
	for (unsigned i = 0; i < IN_ORDER; i++)
		cr_assert_eq(order.places[i], WF_RUN_ORDER_FIFO ? i : IN_ORDER - 1 - i);
	return 1;
}

Test(sched, new_processes_start_in_the_order_of_the_build, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, spawns_in_order, NULL), 1);
}

static int parks_and_notes(void *arg)
{
	struct numbered *numbered = arg;

	numbered->order->count++;
	cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	return notes_its_place(arg);
}

static int wakes_in_order(void *arg)
{
	struct order order = {.count = 0};
	struct numbered numbered[IN_ORDER];
	weft_pid pids[IN_ORDER];
	unsigned skipped = 0, last = 0;

	(void)arg;
	for (unsigned i = 0; i < IN_ORDER; i++) {
		numbered[i] = (struct numbered){&order, i};
		pids[i] = spawned(parks_and_notes, &numbered[i]);
	}
	UNTIL(order.count == IN_ORDER);
	order.count = 0;
	for (unsigned i = 0; i < IN_ORDER; i++)
		cr_assert_eq(weft_wake(pids[i]), 0);
	for (unsigned i = 0; i < IN_ORDER; i++)
		joined(pids[i]);
	cr_assert_eq(order.count, IN_ORDER);
	/* The next slot holds one: it may run before its turn, the others may not. */
	for (unsigned i = 0; i < IN_ORDER; i++) {
		if (i == 0 && order.places[0] != 0) {
			skipped++;
			continue;
		}
		cr_assert_geq(order.places[i], last, "place %u", i);
		last = order.places[i];
	}
	cr_assert_leq(skipped, 1);
	return 1;
}

Test(sched, woken_processes_run_in_the_order_of_their_wakes, .timeout = 120)
{
	cr_assert_eq(in_runtime(1, wakes_in_order, NULL), 1);
}

/* ---- Posts ---------------------------------------------------------------------------------- */

struct posts {
	weft_rt *rt;
	unsigned next;
	wf_atomic_u32 done;
};

struct post {
	struct posts *posts;
	unsigned number;
};

static void runs_posted(void *arg)
{
	struct post *post = arg;
	struct posts *posts = post->posts;

	cr_assert_eq(post->number, posts->next, "not in order");
	posts->next++;
	cr_assert(weft_pid_is_none(weft_self()));
	cr_assert_eq(weft_worker_index(), 0);
	cr_assert_eq(weft_rt_current(), posts->rt);
	cr_assert(!weft_should_yield());
	cr_assert_eq(weft_park(WEFT_POLL), -EPERM);
	cr_assert_eq(weft_yield(), -EPERM);
	cr_assert_eq(weft_sleep_until(0), -EPERM);
	wf_u32_fetch_add(&posts->done, 1);
}

enum { POSTS = 600 };

static int posts_from_inside(void *arg)
{
	struct post *posts = arg;

	for (unsigned i = 0; i < POSTS; i++)
		cr_assert_eq(weft_post(weft_rt_current(), runs_posted, &posts[i]), 0);
	return 1;
}

Test(sched, posts_run_in_order_outside_every_process, .timeout = 120)
{
	static struct post numbered[POSTS];
	struct posts posts = {.rt = runtime_new(1)};

	for (unsigned i = 0; i < POSTS; i++) {
		numbered[i] = (struct post){&posts, i};
		cr_assert_eq(weft_post(posts.rt, runs_posted, &numbered[i]), 0);
	}
	UNTIL_FOREIGN(wf_u32_load_acquire(&posts.done) == POSTS);
	posts.next = 0;
	cr_assert_eq(runtime_do(posts.rt, posts_from_inside, numbered), 1);
	cr_assert_eq(weft_post(posts.rt, NULL, NULL), -EINVAL);
	/* Accepted ones run, whatever happens. */
	runtime_end(posts.rt);
	cr_assert_eq(wf_u32_load_acquire(&posts.done), 2 * POSTS);
}

/* ---- Between workers ------------------------------------------------------------------------ */

/* S11: each waker counts, then wakes; what it counted is seen in a run after it. */
enum { WAKERS = 3, WAKES = 3000 / HARNESS_SLOWDOWN };

struct woken {
	wf_atomic_u32 wakes[WAKERS];
	weft_pid target;
};

static uint32_t wakes_so_far(struct woken *woken)
{
	uint32_t sum = 0;

	for (int i = 0; i < WAKERS; i++)
		sum += wf_u32_load_relaxed(&woken->wakes[i]);
	return sum;
}

static int stays_at_home(void *arg)
{
	struct woken *woken = arg;
	int home = weft_worker_index();
	long thread = syscall(SYS_gettid);
	int *errno_address = &errno;
	uint32_t runs = 0;

	while (wakes_so_far(woken) < WAKERS * WAKES) {
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
		cr_assert_leq(++runs, WAKERS * WAKES, "more runs than wakes");
		cr_assert_eq(weft_worker_index(), home);
		cr_assert_eq(syscall(SYS_gettid), thread);
		cr_assert_eq(&errno, errno_address);
	}
	return home;
}

static void wake_many(struct woken *woken, int waker)
{
	for (int i = 0; i < WAKES; i++) {
		wf_u32_store_relaxed(&woken->wakes[waker], (uint32_t)i + 1);
		/* Unknown: it has seen the last count already, and ended. */
		if (weft_wake(woken->target) < 0)
			cr_assert_eq(i, WAKES - 1);
	}
}

static int wakes_many(void *arg)
{
	wake_many(arg, weft_worker_index());
	return 0;
}

Test(sched, sticky_process_woken_by_all_at_once_stays_at_home, .timeout = 120)
{
	weft_rt *rt = runtime_new(2);
	struct woken woken = {.wakes = {{0}}};
	struct weft_spawn_opts opts = {.size = sizeof opts};
	weft_pid wakers[2];

	opts.worker = WEFT_WORKER(1);
	cr_assert_eq(weft_rt_spawn(rt, stays_at_home, &woken, &opts, &woken.target), 0);
	for (unsigned i = 0; i < 2; i++) {
		opts.worker = WEFT_WORKER(i);
		cr_assert_eq(weft_rt_spawn(rt, wakes_many, &woken, &opts, &wakers[i]), 0);
	}
	wake_many(&woken, 2);
	cr_assert_eq(joined(wakers[0]), 0);
	cr_assert_eq(joined(wakers[1]), 0);
	cr_assert_eq(joined(woken.target), 1);
	runtime_end(rt);
}

/* S12 */
enum { CROWD = 16 };

struct crowd {
	wf_atomic_u32 moved; /* movable ones that have been on both workers */
	wf_atomic_u32 stop;
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

static int yields_at_home(void *arg)
{
	struct crowd *crowd = arg;
	int home = weft_worker_index();
	long thread = syscall(SYS_gettid);
	int *errno_address = &errno;

	while (!wf_u32_load_acquire(&crowd->stop)) {
		weft_yield();
		cr_assert_eq(weft_worker_index(), home);
		/* Long enough for its worker to run out of work and look for others'. */
		cr_assert_eq(weft_sleep_until(weft_after(WEFT_MS(1))), 0);
		cr_assert_eq(weft_worker_index(), home);
		cr_assert_eq(syscall(SYS_gettid), thread);
		cr_assert_eq(&errno, errno_address);
	}
	return home;
}

/* Holds its worker, a slice at a time, until the condition is there: the other has to help out. */
#define HOLD_UNTIL(condition)            \
	do {                             \
		if (weft_should_yield()) \
			weft_yield();    \
	} while (!(condition))

static int watches_them_move(void *arg)
{
	struct crowd crowd = {{0}, {0}};
	weft_pid movable[CROWD], sticky[CROWD];

	(void)arg;
	for (unsigned i = 0; i < CROWD; i++) {
		sticky[i] = spawned_with(yields_at_home, &crowd, 0, WEFT_WORKER(i % 2));
		movable[i] = spawned_with(yields_until_moved, &crowd, WEFT_MOVABLE, WEFT_WORKER(0));
	}
	HOLD_UNTIL(wf_u32_load_acquire(&crowd.moved) == CROWD);
	wf_u32_store_release(&crowd.stop, 1);
	for (unsigned i = 0; i < CROWD; i++) {
		cr_assert_eq(joined(movable[i]), 0);
		cr_assert_eq(joined(sticky[i]), (int)(i % 2));
	}
	return 1;
}

/* The load has to be where the process that makes it is. */
static void do_on_worker_0(weft_fn fn)
{
	weft_rt *rt = runtime_new(2);
	struct weft_spawn_opts opts = {.size = sizeof opts, .worker = WEFT_WORKER(0)};
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, fn, NULL, &opts, &pid), 0);
	cr_assert_eq(joined(pid), 1);
	runtime_end(rt);
}

Test(sched, movable_ones_move_and_sticky_ones_do_not, .timeout = 120)
{
	do_on_worker_0(watches_them_move);
}

static int tells_where(void *arg)
{
	if (weft_worker_index() == 1)
		wf_u32_fetch_add((wf_atomic_u32 *)arg, 1);
	return 0;
}

static int gives_new_ones_away(void *arg)
{
	wf_atomic_u32 elsewhere = {0};

	(void)arg;
	cr_assert_eq(weft_worker_index(), 0);
	do {
		weft_pid pids[CROWD];

		for (unsigned i = 0; i < CROWD; i++)
			pids[i] = spawned(tells_where, &elsewhere);
		/* Somebody else's turn to take them, while this one computes. */
		while (!weft_should_yield() && !wf_u32_load_acquire(&elsewhere))
			continue;
		for (unsigned i = 0; i < CROWD; i++)
			joined(pids[i]);
	} while (!wf_u32_load_acquire(&elsewhere));
	return 1;
}

Test(sched, new_processes_of_a_busy_worker_run_on_the_other, .timeout = 120)
{
	do_on_worker_0(gives_new_ones_away);
}

/*
 * S14, without a clock: a job holds its worker until the other one has begun as many, or all have
 * begun. So the workers are equally fast, and one that stays idle while the other has jobs waiting
 * hangs the test.
 */
enum { JOBS = 600 };

static bool the_other_keeps_up(const wf_atomic_u32 *begun, int worker, uint32_t mine)
{
	uint32_t others = wf_u32_load_acquire(&begun[!worker]);

	return others >= mine || others + mine == JOBS;
}

static int works(void *arg)
{
	wf_atomic_u32 *begun = arg;
	int worker = weft_worker_index();
	uint32_t mine = wf_u32_fetch_add(&begun[worker], 1) + 1;

	while (!the_other_keeps_up(begun, worker, mine))
		sched_yield();
	return 0;
}

static int spreads_its_jobs(void *arg)
{
	static weft_pid pids[JOBS];
	wf_atomic_u32 begun[2] = {{0}, {0}};

	(void)arg;
	for (unsigned i = 0; i < JOBS; i++)
		pids[i] = spawned(works, begun);
	for (unsigned i = 0; i < JOBS; i++)
		joined(pids[i]);
	cr_assert_eq(wf_u32_load_relaxed(&begun[0]), JOBS / 2);
	cr_assert_eq(wf_u32_load_relaxed(&begun[1]), JOBS / 2);
	return 1;
}

Test(sched, jobs_of_one_worker_are_shared_by_two, .timeout = 120)
{
	cr_assert_eq(in_runtime(2, spreads_its_jobs, NULL), 1);
}

/* ---- Shares (S15) --------------------------------------------------------------------------- */

/* The three queues of a worker, each with more than enough. */
struct shares {
	struct chain chain;   /* the ring */
	wf_atomic_u32 yields; /* the private list */
	wf_atomic_u32 injected;
	wf_atomic_u32 held, let_go;
};

static int yields_and_counts(void *arg)
{
	struct shares *shares = arg;

	while (!wf_u32_load_acquire(&shares->chain.stop)) {
		wf_u32_fetch_add(&shares->yields, 1);
		weft_yield();
	}
	return 0;
}

static int starts_the_load(void *arg)
{
	struct shares *shares = arg;

	for (int i = 0; i < 4; i++)
		cr_assert_eq(weft_spawn(yields_and_counts, shares, NULL), 0);
	/* First they have to leave the ring: in lifo order the chains would stay before them. */
	UNTIL(wf_u32_load_acquire(&shares->yields) >= 8);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(weft_spawn(spawns_its_successor, &shares->chain, NULL), 0);
	wf_u32_store_release(&shares->held, 1);
	while (!wf_u32_load_acquire(&shares->let_go))
		sched_yield();
	return 0;
}

Test(sched, every_queue_of_a_worker_has_its_share, .timeout = 120)
{
	enum { INJECTED = 1000, LEAST = INJECTED / (WF_BUDGET + WF_INJECTOR_INTERVAL) };
	struct shares shares = {.chain = {{0}, {0}}};
	weft_rt *rt = runtime_new(1);
	struct {
		uint32_t yields, links;
	} before;
	uint32_t yields, links;

	cr_assert_eq(weft_rt_spawn(rt, starts_the_load, &shares, NULL, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.held));
	for (int i = 0; i < INJECTED; i++)
		cr_assert_eq(weft_rt_spawn(rt, counts, &shares.injected, NULL, NULL), 0);
	before.yields = wf_u32_load_acquire(&shares.yields);
	before.links = wf_u32_load_acquire(&shares.chain.links);
	wf_u32_store_release(&shares.let_go, 1);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.injected) == INJECTED);
	yields = wf_u32_load_acquire(&shares.yields);
	links = wf_u32_load_acquire(&shares.chain.links);
	/* One at least in a turn and an interval, unless injected work always goes first. */
	if (WF_INJECTOR_INTERVAL > 1) {
		cr_expect_geq(yields - before.yields, LEAST, "the list");
		cr_expect_geq(links - before.links, LEAST, "the ring");
	}
	/* And none stands still. */
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.yields) > yields + 100);
	UNTIL_FOREIGN(wf_u32_load_acquire(&shares.chain.links) > links + 100);
	wf_u32_store_release(&shares.chain.stop, 1);
	runtime_end(rt);
}

/*
 * S8: picks are counted by those who are picked; what a foreign thread injected while the worker
 * was held runs within one interval of them.
 */
struct busy {
	uint32_t picks;
	wf_atomic_u32 held, let_go;
	bool stop;
	uint32_t picks_let_go, picks_injected;
};

static int is_picked_all_the_time(void *arg)
{
	struct busy *busy = arg;

	while (!busy->stop) {
		busy->picks++;
		weft_yield();
	}
	return 0;
}

static int holds_and_lets_go(void *arg)
{
	struct busy *busy = arg;

	wf_u32_store_release(&busy->held, 1);
	while (!wf_u32_load_acquire(&busy->let_go))
		sched_yield();
	busy->picks_let_go = busy->picks;
	return 0;
}

static int notes_the_picks(void *arg)
{
	struct busy *busy = arg;

	busy->picks_injected = busy->picks;
	return 0;
}

static int stops_the_busy(void *arg)
{
	((struct busy *)arg)->stop = true;
	return 0;
}

Test(sched, injected_work_runs_within_an_interval_of_picks, .timeout = 120)
{
	struct weft_spawn_opts here = {.size = sizeof here, .worker = WEFT_WORKER(0)};
	struct busy busy = {.picks = 0};
	weft_rt *rt = runtime_new(1);

	/* Placed: they come by the inbox, so only `notes_the_picks` is ever in the injector. */
	for (int i = 0; i < 8; i++)
		cr_assert_eq(weft_rt_spawn(rt, is_picked_all_the_time, &busy, &here, NULL), 0);
	for (int round = 0; round < 50; round++) {
		weft_pid holder, pid;

		wf_u32_store_release(&busy.held, 0);
		wf_u32_store_release(&busy.let_go, 0);
		cr_assert_eq(weft_rt_spawn(rt, holds_and_lets_go, &busy, &here, &holder), 0);
		UNTIL_FOREIGN(wf_u32_load_acquire(&busy.held));
		cr_assert_eq(weft_rt_spawn(rt, notes_the_picks, &busy, NULL, &pid), 0);
		wf_u32_store_release(&busy.let_go, 1);
		joined(holder);
		joined(pid);
		cr_assert_leq(busy.picks_injected - busy.picks_let_go, WF_INJECTOR_INTERVAL,
			"round %d", round);
	}
	cr_assert_eq(weft_rt_spawn(rt, stops_the_busy, &busy, &here, NULL), 0);
	runtime_end(rt);
}

/* ---- Fork and join -------------------------------------------------------------------------- */

/* Returns how many leaves its tree has; `arg` points to the depth left. */
static int forks(void *arg)
{
	int left = *(int *)arg - 1;
	weft_pid one, two;

	if (left < 0)
		return 1;
	one = spawned(forks, &left);
	two = spawned(forks, &left);
	return joined(one) + joined(two);
}

Test(sched, fork_join_tree_has_all_its_leaves, .timeout = 120)
{
	int deepest = HARNESS_SLOWDOWN > 1 ? 9 : 12;

	for (int depth = 0; depth <= deepest; depth += 3)
		for (unsigned workers = 1; workers <= 2; workers++)
			cr_assert_eq(in_runtime(workers, forks, &depth), 1 << depth);
}
