/*
 * poll.c: when a worker asks its drivers: after each batch, every WF_IO_INTERVAL picks, and all the
 * time while it has nothing else to do. One with nothing lately is asked less often.
 */
#include "core/queue.h"

WF_COLD void wf_worker_driver_failed(
	struct wf_worker *worker, const struct wf_driver *driver, int error)
{
	if (worker->driver_failed)
		return;
	worker->driver_failed = true;
	wf_rt_error(worker->rt, (int)worker->number, "poll", error, "the driver %s has failed",
		driver->name);
	wf_life_begin_stop(worker->rt, 0);
}

/* A driver that has nothing is asked less often, by workers that have plenty to do. */
static void poll_driver(struct wf_worker *worker, struct wf_open_driver *open)
{
	int r = open->driver->poll(open->state, WF_IO_BATCH, worker->now);

	if (WF_UNLIKELY(r < 0)) {
		wf_worker_driver_failed(worker, open->driver, r);
		r = 0;
	}
	open->poll_skip_next = r > 0 ? 0
		: open->poll_skip_next < WF_POLL_BACKOFF_MAX / 2 ? open->poll_skip_next * 2 + 1
								 : WF_POLL_BACKOFF_MAX;
	open->poll_skip = open->poll_skip_next;
}

/* One work wake for all that the drivers have made ready. */
static void collected(struct wf_worker *worker)
{
	worker->collecting = false;
	if (worker->work_wake_due) {
		worker->work_wake_due = false;
		wf_rt_wake_for_work(worker->rt);
	}
}

void wf_worker_poll_drivers(struct wf_worker *worker, unsigned first)
{
	worker->collecting = true;
	for (unsigned i = first; i < worker->driver_count; i++)
		poll_driver(worker, &worker->drivers[i]);
	collected(worker);
}

/* Under load: only those whose turn it is. */
void wf_worker_poll_busy(struct wf_worker *worker)
{
	worker->collecting = true;
	for (unsigned i = 0; i < worker->driver_count; i++) {
		struct wf_open_driver *open = &worker->drivers[i];

		if (open->poll_skip > 0)
			open->poll_skip--;
		else
			poll_driver(worker, open);
	}
	collected(worker);
}

/*
 * Step 4. The main driver waits for its turn only while turns are full, and is always asked before
 * those that yielded run again; the others only need not be late.
 */
void wf_worker_poll_after_batch(struct wf_worker *worker, unsigned ran)
{
	if (ran == 0) {
		wf_worker_poll_drivers(worker, 0);
		return;
	}
	if (ran < WF_BUDGET || wf_queue_has_yielded(worker))
		wf_worker_main_driver(worker)->poll_skip = 0;
	wf_worker_poll_busy(worker);
}

void wf_worker_flush_drivers(struct wf_worker *worker)
{
	for (unsigned i = 0; i < worker->driver_count; i++) {
		const struct wf_open_driver *open = &worker->drivers[i];

		if (open->driver->flush)
			open->driver->flush(open->state);
	}
}
