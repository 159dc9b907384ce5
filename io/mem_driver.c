/*
 * mem_driver.c: the in-memory network's driver: what is on its way, and, as a main driver, sleeping
 * without a kernel's descriptor.
 *
 * What a worker's processes send with latency is on the way in that worker's driver: an event each,
 * on a timer wheel that is made when it is first needed. poll() delivers what is due, so nothing
 * arrives on its own: a worker that is busy for long delays what it has sent. At close the rest is
 * delivered at once. Everything but wake() is the owner's: no locks, nothing to arm or flush.
 *
 * As a main driver it sleeps in a futex:
 *	Z1 wait: AWAKE → ASLEEP (CAS). WOKEN: a wake came before: take it, do not sleep.
 *	Z2 sleep while it is ASLEEP, until the deadline.
 *	Z3 exchange for AWAKE.
 *	Z4 wake: exchange for WOKEN; if it was ASLEEP, end the sleep.
 */
#include <string.h>

#include "core/internal.h"
#include "io/drivers.h"
#include "io/mem.h"
#include "timer/clock.h"

enum {
	AWAKE,
	WOKEN,
	ASLEEP,
};

struct wf_mem_event {
	struct wf_timer timer;
	struct mem_driver *driver;
	struct wf_mem_socket *socket;
	uint32_t generation;
};

struct mem_driver {
	struct wf_poller poller; /* first: a main driver's state begins with it */
	struct wf_wheel *wheel;  /* NULL: nothing was ever late */
	weft_time next;          /* when the first is due; WEFT_FOREVER: none */
	wf_atomic_u64 polls, polls_empty, waits, events; /* written by the owner */
	wf_atomic_u64 wakes_sent WF_ALIGNED(WF_FALSE_SHARING); /* by any thread */
	wf_atomic_u32 sleep;
};

static void count(wf_atomic_u64 *counter, uint64_t by)
{
	wf_u64_store_relaxed(counter, wf_u64_load_relaxed(counter) + by);
}

/* --- events --- */

/* The wheel of this worker's driver; NULL: no memory. */
static WF_COLD struct wf_wheel *wheel_make(struct mem_driver *driver)
{
	driver->wheel = wf_alloc(driver->poller.rt, WF_CACHE_LINE, sizeof(*driver->wheel));
	if (driver->wheel)
		wf_wheel_init(driver->wheel, weft_now());
	return driver->wheel;
}

int wf_mem_event_make(struct wf_mem_event **event_out)
{
	struct wf_worker *worker;
	struct mem_driver *driver;

	*event_out = NULL;
	if (WF_LIKELY(!wf_mem_is_late()))
		return 0;
	worker = wf_worker_self();
	driver = worker ? wf_worker_driver_state_of(worker, &wf_driver_mem) : NULL;
	if (!driver)
		return 0;
	if (!driver->wheel && !wheel_make(driver))
		return -ENOMEM;
	*event_out = wf_shared_alloc(_Alignof(struct wf_mem_event), sizeof(**event_out));
	if (!*event_out)
		return -ENOMEM;
	(*event_out)->driver = driver;
	return 0;
}

weft_time wf_mem_event_draw(const struct wf_mem_event *event)
{
	const struct weft_mem_opts *opts = &wf_mem_network.opts;

	if (!event)
		return 0;
	return weft_now() + (weft_time)wf_mem_draw((uint64_t)opts->latency_min_ns,
				    (uint64_t)opts->latency_max_ns);
}

void wf_mem_event_post(struct wf_mem_event *event, struct wf_mem_socket *socket,
	uint32_t generation, weft_time due)
{
	struct mem_driver *driver;

	if (!event)
		return;
	driver = event->driver;
	event->socket = socket;
	event->generation = generation;
	wf_wheel_insert(driver->wheel, &event->timer, due);
	if (due < driver->next)
		driver->next = due;
}

void wf_mem_event_drop(struct wf_mem_event *event)
{
	if (event)
		wf_shared_free(event, sizeof(*event));
}

static void deliver(struct wf_timer *timer)
{
	struct wf_mem_event event = *WF_CONTAINER_OF(timer, struct wf_mem_event, timer);

	wf_mem_event_drop(WF_CONTAINER_OF(timer, struct wf_mem_event, timer));
	wf_mem_arrive(event.socket, event.generation, event.timer.deadline_ns);
}

/* What is due, at most `budget`. Returns how many. */
static int deliver_due(struct mem_driver *driver, unsigned budget, weft_time now)
{
	struct wf_timer *timer;
	int handled = 0;

	if (now < driver->next)
		return 0;
	wf_wheel_advance(driver->wheel, now);
	while ((unsigned)handled < budget && (timer = wf_wheel_pop_due(driver->wheel))) {
		deliver(timer);
		handled++;
	}
	driver->next = wf_wheel_next(driver->wheel);
	count(&driver->events, (uint64_t)handled);
	return handled;
}

/* --- struct wf_poller: the kernel's descriptors --- */

static int mem_add(struct wf_poller *poller, int fd, uint64_t token)
{
	(void)poller;
	(void)fd;
	(void)token;
	return -EOPNOTSUPP;
}

static void mem_remove(struct wf_poller *poller, int fd)
{
	(void)poller;
	(void)fd;
}

/* --- struct wf_driver --- */

static int mem_open(struct wf_worker *worker, void **state_out)
{
	struct weft_rt *rt = wf_worker_rt(worker);
	struct mem_driver *driver = wf_alloc(rt, WF_FALSE_SHARING, sizeof(*driver));

	if (!driver)
		return -ENOMEM;
	*driver = (struct mem_driver){
		.poller = {
			.add = mem_add,
			.remove = mem_remove,
			.rt = rt,
			.runtime = (uint32_t)weft_rt_id(rt),
			.worker = (uint16_t)wf_worker_number(worker),
		},
		.next = WEFT_FOREVER,
	};
	*state_out = driver;
	return 0;
}

static int mem_poll(void *state, unsigned budget, weft_time now)
{
	struct mem_driver *driver = state;
	int handled;

	if (WF_LIKELY(now < driver->next))
		return 0;
	count(&driver->polls, 1);
	handled = deliver_due(driver, budget, now);
	if (handled == 0)
		count(&driver->polls_empty, 1);
	return handled;
}

static weft_time mem_next_deadline(void *state)
{
	const struct mem_driver *driver = state;

	return driver->next;
}

static int mem_wait(void *state, weft_time deadline, weft_time now)
{
	struct mem_driver *driver = state;
	uint32_t awake = AWAKE;

	count(&driver->waits, 1);
	/* Z1: acquire (the RMW), with Z4. */
	if (deadline > now && wf_u32_cas(&driver->sleep, &awake, ASLEEP)) {
		wf_worker_sleep_begin();
		/*
		 * Z2. The kernel compares; a wake-up for no reason is looked at again. By the
		 * kernel's clock, also where the runtime's is virtual.
		 */
		while (wf_u32_load_relaxed(&driver->sleep) == ASLEEP
			&& wf_clock_now_ns() < deadline)
			wf_futex_wait(&driver->sleep, ASLEEP, deadline);
		wf_worker_sleep_end();
	}
	/* Z3: acquire (the RMW), with Z4. */
	(void)wf_u32_exchange(&driver->sleep, AWAKE);
	return deliver_due(driver, WF_IO_BATCH, weft_now());
}

static void mem_wake(void *state)
{
	struct mem_driver *driver = state;

	(void)wf_u64_fetch_add(&driver->wakes_sent, 1);
	/* Z4: release (the RMW), with Z1 and Z3: what the waker did before. */
	if (WF_PLANTED(mem_wake_looks_first)) {
		bool asleep = wf_u32_load_relaxed(&driver->sleep) == ASLEEP;

		wf_u32_store_release(&driver->sleep, WOKEN);
		if (asleep)
			wf_futex_wake_all(&driver->sleep);
		return;
	}
	if (wf_u32_exchange(&driver->sleep, WOKEN) == ASLEEP)
		wf_futex_wake_all(&driver->sleep);
}

/* There is nothing here that a descriptor could end the sleep of. */
static int mem_watch(void *state, int fd)
{
	(void)state;
	(void)fd;
	return -EOPNOTSUPP;
}

static void mem_stats(const void *state, struct wf_driver_stats *stats_out)
{
	const struct mem_driver *driver = state;

	*stats_out = (struct wf_driver_stats){
		.polls = wf_u64_load_relaxed(&driver->polls),
		.polls_empty = wf_u64_load_relaxed(&driver->polls_empty),
		.waits = wf_u64_load_relaxed(&driver->waits),
		.events = wf_u64_load_relaxed(&driver->events),
		.wakes_sent = wf_u64_load_relaxed(&driver->wakes_sent),
	};
}

static void mem_close(void *state)
{
	struct mem_driver *driver = state;

	if (driver->wheel) {
		/*
		 * To other runtimes' sockets, or those that nobody has closed. What is far away
		 * takes several steps before it is due.
		 */
		while (wf_wheel_count(driver->wheel) > 0)
			(void)deliver_due(driver, UINT32_MAX, driver->next);
		wf_free(driver->poller.rt, driver->wheel, sizeof(*driver->wheel));
	}
	wf_free(driver->poller.rt, driver, sizeof(*driver));
}

const struct wf_driver wf_driver_mem = {
	.name = "mem",
	.caps = WF_DRIVER_CAN_PARK | WF_DRIVER_STREAM | WF_DRIVER_VIRTUAL,
	.open = mem_open,
	.poll = mem_poll,
	.next_deadline = mem_next_deadline,
	.wait = mem_wait,
	.wake = mem_wake,
	.watch = mem_watch,
	.stats = mem_stats,
	.close = mem_close,
};
