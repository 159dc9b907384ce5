/*
 * epoll.c: the epoll driver: one epoll instance and one eventfd per worker.
 *
 * Descriptors are registered once, edge-triggered, for everything (io/fd.h: at the first wait, on
 * their home worker), and removed when they are closed or move. A token carries number and
 * generation, so an event for an earlier use of a number is dropped by wf_fd_event().
 *
 * Waking: each write to the eventfd is an edge of its own, though nobody ever reads it (its counter
 * would take 2^64 wakes to fill), and any number of writes before the owner looks are one event.
 * The scheduler sends one token per sleep, so nothing is gained by a flag in front of the write,
 * which a waker preempted between flag and write would turn into a late wake. An edge that poll()
 * meets is latched, and ends the next wait() at once.
 *
 * Threads: the owner, but for wake (any thread; one write(2)), stats, and add and remove, which
 * other workers of the runtime may call (epoll_ctl is made for it). `watched` counts registrations
 * to let poll() skip the system call; a close(2) that removes one behind our back (weft_close() on
 * a thread of another runtime) leaves it too high, which costs a call, never an event.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "core/driver.h"
#include "io/drivers.h"
#include "io/fd.h"
#include "io/syscall.h"

#define EVENTS_WANTED (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)
#define TOKEN_WAKE    (WF_TOKEN_OTHER | 0)
#define TOKEN_WATCH   (WF_TOKEN_OTHER | 1)

enum {
	NS_PER_MS = 1000000,
	NS_PER_S = 1000000000,
	TIMEOUT_MS_MAX = 1 << 30,
	SIGNAL_SET_BYTES = 8,
};

struct epoll {
	struct wf_poller poller;
	int fd;
	int wake_fd;
	bool latched;    /* owner: a wake that no wait() has ended for yet */
	bool whole_ms;   /* owner: epoll_pwait2 is not to be had */
	wf_atomic_u32 watched;
	wf_atomic_u64 polls, polls_empty, waits, events_count; /* written by the owner */
	wf_atomic_u64 wakes_sent WF_ALIGNED(WF_FALSE_SHARING); /* by any thread */
	struct epoll_event events[WF_IO_BATCH] WF_ALIGNED(WF_CACHE_LINE);
};

static void count(wf_atomic_u64 *counter, uint64_t by)
{
	wf_u64_store_relaxed(counter, wf_u64_load_relaxed(counter) + by);
}

static int control(int epoll_fd, int operation, int fd, uint32_t events, uint64_t token)
{
	struct epoll_event event = { .events = events, .data.u64 = token };

	return (int)wf_syscall(SYS_epoll_ctl, epoll_fd, operation, fd, &event);
}

/* --- struct wf_poller --- */

static int epoll_add(struct wf_poller *poller, int fd, uint64_t token)
{
	struct epoll *epoll = WF_CONTAINER_OF(poller, struct epoll, poller);
	int r = control(epoll->fd, EPOLL_CTL_ADD, fd, EVENTS_WANTED, token);

	if (r == 0) {
		(void)wf_u32_fetch_add(&epoll->watched, 1);
		return 0;
	}
	/*
	 * Left behind: it was ours before another runtime took it. MOD reports what is ready anew.
	 */
	if (r == -EEXIST)
		return control(epoll->fd, EPOLL_CTL_MOD, fd, EVENTS_WANTED, token);
	/* The kernel's word for files that are always ready; ours is "not in a process". */
	return r == -EPERM ? -EOPNOTSUPP : r;
}

static void epoll_remove(struct wf_poller *poller, int fd)
{
	struct epoll *epoll = WF_CONTAINER_OF(poller, struct epoll, poller);

	if (control(epoll->fd, EPOLL_CTL_DEL, fd, 0, 0) == 0)
		(void)wf_u32_fetch_add(&epoll->watched, (uint32_t)-1);
}

/* --- struct wf_driver --- */

static int epoll_open(struct wf_worker *worker, void **state_out)
{
	struct weft_rt *rt = wf_worker_rt(worker);
	struct epoll *epoll = wf_alloc(rt, WF_FALSE_SHARING, sizeof(*epoll));
	int r;

	if (!epoll)
		return -ENOMEM;
	*epoll = (struct epoll){
		.poller = {
			.add = epoll_add,
			.remove = epoll_remove,
			.rt = rt,
			.runtime = (uint32_t)weft_rt_id(rt),
			.worker = (uint16_t)wf_worker_number(worker),
		},
	};
	WF_ASSERT(epoll->poller.runtime != 0);
	r = epoll->fd = (int)wf_syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
	if (r < 0)
		goto fail_epoll;
	r = epoll->wake_fd = (int)wf_syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r < 0)
		goto fail_wake;
	r = control(epoll->fd, EPOLL_CTL_ADD, epoll->wake_fd, EPOLLIN | EPOLLET, TOKEN_WAKE);
	if (r < 0)
		goto fail_register;
	*state_out = epoll;
	return 0;

fail_register:
	(void)wf_sys_close(epoll->wake_fd);
fail_wake:
	(void)wf_sys_close(epoll->fd);
fail_epoll:
	wf_free(rt, epoll, sizeof(*epoll));
	return r;
}

static void epoll_close(void *state)
{
	struct epoll *epoll = state;

	(void)wf_sys_close(epoll->wake_fd);
	(void)wf_sys_close(epoll->fd);
	wf_free(epoll->poller.rt, epoll, sizeof(*epoll));
}

static uint64_t ready_of(uint32_t events)
{
	uint64_t ready = 0;

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR))
		ready |= WF_FD_READ;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		ready |= WF_FD_WRITE;
	if (events & (EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR))
		ready |= WF_FD_STICKY;
	return ready;
}

/* Returns how many descriptors were ready. */
static int handle(struct epoll *epoll, int events_count)
{
	int handled = 0;

	for (int i = 0; i < events_count; i++) {
		uint64_t token = epoll->events[i].data.u64;

		if (WF_UNLIKELY(token & WF_TOKEN_OTHER)) {
			if (token == TOKEN_WAKE)
				epoll->latched = true;
			continue;
		}
		wf_fd_event(&epoll->poller, token, ready_of(epoll->events[i].events));
		handled++;
	}
	count(&epoll->events_count, (uint64_t)handled);
	return handled;
}

/* What an epoll_wait returned, as the driver's result. */
static int conclude(struct epoll *epoll, int events_count)
{
	if (events_count >= 0)
		return handle(epoll, events_count);
	return events_count == -EINTR ? 0 : events_count;
}

static int wait_ms(struct epoll *epoll, int events_max, int timeout_ms)
{
	return (int)wf_syscall(SYS_epoll_pwait, epoll->fd, epoll->events, events_max, timeout_ms,
		NULL, SIGNAL_SET_BYTES);
}

static int epoll_poll(void *state, unsigned budget, weft_time now)
{
	struct epoll *epoll = state;
	int handled;

	(void)now;
	if (wf_u32_load_relaxed(&epoll->watched) == 0 || budget == 0)
		return 0;
	count(&epoll->polls, 1);
	handled = conclude(
		epoll, wait_ms(epoll, (int)(budget < WF_IO_BATCH ? budget : WF_IO_BATCH), 0));
	if (handled == 0)
		count(&epoll->polls_empty, 1);
	return handled;
}

/* Never before the deadline: whole milliseconds are rounded up. */
static int timeout_ms(weft_time delay_ns)
{
	if (delay_ns >= (weft_time)TIMEOUT_MS_MAX * NS_PER_MS)
		return TIMEOUT_MS_MAX;
	return (int)((delay_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* Sleeps; a negative delay has no end. */
static int sleep_for(struct epoll *epoll, weft_time delay_ns)
{
	struct timespec delay;
	int r;

	if (!epoll->whole_ms) {
		delay.tv_sec = delay_ns / NS_PER_S;
		delay.tv_nsec = delay_ns % NS_PER_S;
		r = (int)wf_syscall(SYS_epoll_pwait2, epoll->fd, epoll->events, WF_IO_BATCH,
			delay_ns < 0 ? NULL : &delay, NULL, SIGNAL_SET_BYTES);
		/* EPERM: a filter of system calls that does not know this one. */
		if (r != -ENOSYS && r != -EPERM)
			return r;
		epoll->whole_ms = true;
	}
	return wait_ms(epoll, WF_IO_BATCH, delay_ns < 0 ? -1 : timeout_ms(delay_ns));
}

static int epoll_wait_until(void *state, weft_time deadline, weft_time now)
{
	struct epoll *epoll = state;
	int events_count;

	count(&epoll->waits, 1);
	if (epoll->latched || deadline <= now) {
		events_count = wait_ms(epoll, WF_IO_BATCH, 0);
	} else {
		wf_worker_sleep_begin();
		events_count = sleep_for(epoll, deadline == WEFT_FOREVER ? -1 : deadline - now);
		wf_worker_sleep_end();
	}
	events_count = conclude(epoll, events_count);
	epoll->latched = false;
	return events_count;
}

static void epoll_flush(void *state)
{
	(void)state;
}

static weft_time epoll_next_deadline(void *state)
{
	(void)state;
	return WEFT_FOREVER;
}

/* Everything that happens is latched by the kernel: there is nothing to prepare. */
static int epoll_arm(void *state)
{
	(void)state;
	return 0;
}

static void epoll_disarm(void *state)
{
	(void)state;
}

static void epoll_wake(void *state)
{
	struct epoll *epoll = state;
	static const uint64_t one = 1;

	(void)wf_u64_fetch_add(&epoll->wakes_sent, 1);
	/* Not by wf_syscall(): it cannot fail, and nobody could do anything about it. */
	(void)wf_syscall6(SYS_write, epoll->wake_fd, (long)&one, sizeof(one), 0, 0, 0);
}

/*
 * Level-triggered: whoever polls the descriptor's device may have left something in it. Not counted
 * in `watched`: it is for wait() alone, and must not cost each poll() a system call.
 */
static int epoll_watch(void *state, int fd)
{
	struct epoll *epoll = state;

	return control(epoll->fd, EPOLL_CTL_ADD, fd, EPOLLIN, TOKEN_WATCH);
}

/* Readable while there are events: an epoll descriptor can be polled itself. */
static int epoll_descriptor(void *state)
{
	struct epoll *epoll = state;

	return epoll->fd;
}

static void epoll_stats(const void *state, struct wf_driver_stats *stats_out)
{
	const struct epoll *epoll = state;

	*stats_out = (struct wf_driver_stats){
		.polls = wf_u64_load_relaxed(&epoll->polls),
		.polls_empty = wf_u64_load_relaxed(&epoll->polls_empty),
		.waits = wf_u64_load_relaxed(&epoll->waits),
		.events = wf_u64_load_relaxed(&epoll->events_count),
		.wakes_sent = wf_u64_load_relaxed(&epoll->wakes_sent),
	};
}

const struct wf_driver wf_driver_epoll = {
	.name = "epoll",
	.caps = WF_DRIVER_CAN_PARK | WF_DRIVER_STREAM | WF_DRIVER_DATAGRAM,
	.open = epoll_open,
	.poll = epoll_poll,
	.flush = epoll_flush,
	.next_deadline = epoll_next_deadline,
	.arm = epoll_arm,
	.wait = epoll_wait_until,
	.disarm = epoll_disarm,
	.wake = epoll_wake,
	.watch = epoll_watch,
	.descriptor = epoll_descriptor,
	.stats = epoll_stats,
	.close = epoll_close,
};
