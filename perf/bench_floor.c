/*
 * bench_floor.c: what the machine itself takes for what pingpong_cross and wake_parked measure:
 * two threads and no runtime. Spinning: a word in a cache line for each direction. Parked: an
 * eventfd for each, edge-triggered in an epoll set, as Weft's driver sleeps. On virtual machines
 * both differ tenfold from one host to the next; the ratio to them does not.
 */
#include "perf/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "sync/atomic.h"

/* Where one thread waits for the other. */
struct floor_end {
	wf_atomic_u64 sent; /* messages so far; spinning: all there is */
	int event, epoll;
} __attribute__((aligned(128)));

struct floor_pair {
	struct floor_end ends[2];
	const struct bench_args *args;
	uint64_t gap_ns;
	wf_atomic_u64 sent_ns;
	uint64_t *samples_ns;
	uint64_t total_ns;
};

static bool spins(const struct floor_pair *pair)
{
	return pair->args->idle == BENCH_IDLE_SPIN;
}

static void end_open(struct floor_end *end)
{
	struct epoll_event want = {.events = EPOLLIN | EPOLLET};

	end->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	end->epoll = epoll_create1(EPOLL_CLOEXEC);
	BENCH_CHECK(end->event >= 0 && end->epoll >= 0);
	BENCH_CHECK(epoll_ctl(end->epoll, EPOLL_CTL_ADD, end->event, &want) == 0);
}

static void end_close(struct floor_end *end)
{
	close(end->epoll);
	close(end->event);
}

static void end_send(const struct floor_pair *pair, struct floor_end *end)
{
	uint64_t one = 1;

	/* F1: release, with F2 in end_receive: what was written before the message. */
	wf_u64_store_release(&end->sent, wf_u64_load_relaxed(&end->sent) + 1);
	if (!spins(pair))
		BENCH_CHECK(write(end->event, &one, sizeof(one)) == sizeof(one));
}

/* Waits for the message with that number, from 1. */
static void end_receive(const struct floor_pair *pair, struct floor_end *end, uint64_t number)
{
	struct epoll_event event;

	/* F2: acquire, with F1. */
	while (wf_u64_load_acquire(&end->sent) < number) {
		if (spins(pair))
			wf_pause();
		else
			(void)epoll_wait(end->epoll, &event, 1, -1);
	}
}

/* Two new threads: the caller is never pinned, since the next runtime would inherit that. */
static void pair_run(struct floor_pair *pair, void *(*other)(void *), void *(*self)(void *))
{
	pthread_t threads[2];

	end_open(&pair->ends[0]);
	end_open(&pair->ends[1]);
	BENCH_CHECK(pthread_create(&threads[0], NULL, other, pair) == 0);
	BENCH_CHECK(pthread_create(&threads[1], NULL, self, pair) == 0);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	end_close(&pair->ends[0]);
	end_close(&pair->ends[1]);
}

/* ---- Round trips ----------------------------------------------------------------------------- */

static void *trips_other(void *arg)
{
	struct floor_pair *pair = arg;

	bench_pin(1);
	for (uint64_t i = 1; i <= pair->args->n; i++) {
		end_receive(pair, &pair->ends[1], i);
		end_send(pair, &pair->ends[0]);
	}
	return NULL;
}

static void *trips_self(void *arg)
{
	struct floor_pair *pair = arg;
	uint64_t start_ns, last_ns;

	bench_pin(0);
	start_ns = last_ns = bench_now_ns();
	for (uint64_t i = 1; i <= pair->args->n; i++) {
		end_send(pair, &pair->ends[1]);
		end_receive(pair, &pair->ends[0], i);
		if (pair->samples_ns) {
			uint64_t now_ns = bench_now_ns();

			pair->samples_ns[i - 1] = now_ns - last_ns;
			last_ns = now_ns;
		}
	}
	pair->total_ns = bench_now_ns() - start_ns;
	return NULL;
}

void bench_floor_round_trips(const struct bench_args *args, struct bench_result *result)
{
	struct bench_row *row = bench_row_add(result, "two threads", "-");
	struct floor_pair mean = {.args = args};
	struct floor_pair each = {.args = args};

	pair_run(&mean, trips_other, trips_self);
	bench_row_set(row, BENCH_NS_PER_OP, (double)mean.total_ns / (double)args->n);
	each.samples_ns = calloc(args->n, sizeof(*each.samples_ns));
	BENCH_CHECK(each.samples_ns);
	pair_run(&each, trips_other, trips_self);
	bench_row_percentiles(row, each.samples_ns, args->n);
	free(each.samples_ns);
}

/* ---- Wakes ----------------------------------------------------------------------------------- */

static void *wakes_other(void *arg)
{
	struct floor_pair *pair = arg;

	bench_pin(0);
	for (uint64_t i = 1; i <= pair->args->n; i++) {
		end_receive(pair, &pair->ends[1], i);
		pair->samples_ns[i - 1] = bench_now_ns() - wf_u64_load_relaxed(&pair->sent_ns);
		/* F1, as in end_send: the waking thread spins for this. */
		wf_u64_store_release(&pair->ends[0].sent, i);
	}
	return NULL;
}

static void *wakes_self(void *arg)
{
	struct floor_pair *pair = arg;

	bench_pin(1);
	for (uint64_t i = 1; i <= pair->args->n; i++) {
		uint64_t due_ns = bench_now_ns() + pair->gap_ns, now_ns;

		while ((now_ns = bench_now_ns()) < due_ns)
			wf_pause();
		wf_u64_store_relaxed(&pair->sent_ns, now_ns);
		end_send(pair, &pair->ends[1]);
		while (wf_u64_load_acquire(&pair->ends[0].sent) < i)
			wf_pause();
	}
	return NULL;
}

void bench_floor_wakes(const struct bench_args *args, uint64_t gap_ns, struct bench_result *result)
{
	struct floor_pair pair = {.args = args, .gap_ns = gap_ns};

	pair.samples_ns = calloc(args->n, sizeof(*pair.samples_ns));
	BENCH_CHECK(pair.samples_ns);
	pair_run(&pair, wakes_other, wakes_self);
	bench_row_percentiles(bench_row_add(result, "two threads", "-"), pair.samples_ns, args->n);
	free(pair.samples_ns);
}
