/*
 * wait.c: waiting for descriptors: readiness (O2 to O5 of fd.h), who waits, homes, and the events
 * that end waits (E1 to E6).
 *
 * Names of waiters lie in the entry: one slot to read, one to write, and a ring of those of whom
 * there may be many, which are on their own stacks. A task has none, so it takes a slot, or both,
 * whatever it waits for; and since its name stays when it has gone on (core/sched.h), one that is
 * over counts as none. Everything about names and homes happens under
 * the entry's lock; system calls and claims come after it has been dropped, on copies.
 */
#include "io/wait.h"

enum {
	WAKES_MAX = 16, /* taken out under one hold of the lock */
};

/* --- Waiters. All of this under the entry's lock --- */

struct wake {
	weft_pid pid;
	uint32_t number;
};

struct wakes {
	unsigned count;
	bool more;   /* the list was full */
	bool queued; /* the last one is the first of a queue */
	struct wake wake[WAKES_MAX];
};

enum wait_mode {
	WAIT_SLOT,  /* the only one in its direction */
	WAIT_QUEUE, /* first come, first served */
	WAIT_EVENT, /* everybody is told */
	WAIT_EVENT_SLOT, /* a task: as WAIT_EVENT, by the slots of its directions */
};

static struct wf_fd_waiter *ring_first(const struct wf_fd_entry *entry)
{
	return wf_ptr_load_relaxed(&entry->many);
}

/* In front of `next`; NULL: to the end. */
static void ring_insert(
	struct wf_fd_entry *entry, struct wf_fd_waiter *waiter, struct wf_fd_waiter *next)
{
	struct wf_fd_waiter *first = ring_first(entry);

	waiter->linked = true;
	if (!first) {
		waiter->next = waiter->prev = waiter;
		wf_ptr_store_relaxed(&entry->many, waiter);
		return;
	}
	if (next && next == first)
		wf_ptr_store_relaxed(&entry->many, waiter);
	if (!next)
		next = first;
	waiter->next = next;
	waiter->prev = next->prev;
	next->prev->next = waiter;
	next->prev = waiter;
}

/* The first of the queue that came after that one; NULL: none. */
static struct wf_fd_waiter *queue_after(const struct wf_fd_entry *entry, uint32_t ticket)
{
	struct wf_fd_waiter *first = ring_first(entry), *waiter = first;

	if (!first)
		return NULL;
	do {
		if (waiter->queued && (int32_t)(waiter->ticket - ticket) > 0)
			return waiter;
		waiter = waiter->next;
	} while (waiter != first);
	return NULL;
}

static void ring_remove(struct wf_fd_entry *entry, struct wf_fd_waiter *waiter)
{
	waiter->linked = false;
	waiter->prev->next = waiter->next;
	waiter->next->prev = waiter->prev;
	if (ring_first(entry) == waiter)
		wf_ptr_store_relaxed(&entry->many, waiter->next == waiter ? NULL : waiter->next);
}

bool wf_fd_has_waiters(const struct wf_fd_entry *entry)
{
	return !weft_pid_is_none(entry->reader) || !weft_pid_is_none(entry->writer) ||
		ring_first(entry);
}

static void take_slot(struct wakes *wakes, weft_pid *pid, uint32_t number)
{
	if (weft_pid_is_none(*pid))
		return;
	wakes->wake[wakes->count++] = (struct wake){ *pid, number };
	pid->raw = 0;
}

static void take_waiter(struct wf_fd_entry *entry, struct wf_fd_waiter *waiter, struct wakes *wakes)
{
	wakes->wake[wakes->count++] = (struct wake){ waiter->wait.pid, waiter->wait.number };
	ring_remove(entry, waiter);
}

/* The first of the queue, put last into the list. */
static void take_queued(struct wf_fd_entry *entry, struct wakes *wakes)
{
	struct wf_fd_waiter *first = ring_first(entry), *waiter = first;

	if (!first)
		return;
	wakes->more = wakes->count == WAKES_MAX;
	if (wakes->more)
		return;
	do {
		if (waiter->queued) {
			take_waiter(entry, waiter, wakes);
			wakes->queued = true;
			return;
		}
		waiter = waiter->next;
	} while (waiter != first);
}

/* Everybody in the ring that `ready` concerns, but the queue unless `all`. */
static void take_ring(struct wf_fd_entry *entry, uint64_t ready, bool all, struct wakes *wakes)
{
	struct wf_fd_waiter *waiter = ring_first(entry);
	struct wf_fd_waiter *last = waiter ? waiter->prev : NULL;

	while (waiter) {
		struct wf_fd_waiter *next = waiter == last ? NULL : waiter->next;

		if (all || (!waiter->queued && (waiter->ready & ready))) {
			if (wakes->count == WAKES_MAX) {
				wakes->more = true;
				return;
			}
			take_waiter(entry, waiter, wakes);
		}
		waiter = next;
	}
}

/* E4: takes out whom an event concerns. */
static void take_ready(struct wf_fd_entry *entry, uint64_t ready, struct wakes *wakes)
{
	wakes->count = 0;
	wakes->more = wakes->queued = false;
	if (ready & (WF_FD_READ | WF_FD_STICKY))
		take_slot(wakes, &entry->reader, entry->reader_number);
	if (ready & (WF_FD_WRITE | WF_FD_STICKY))
		take_slot(wakes, &entry->writer, entry->writer_number);
	if (WF_LIKELY(!ring_first(entry)))
		return;
	take_ring(entry, ready, false, wakes);
	if (!wakes->more && (ready & WF_FD_READ))
		take_queued(entry, wakes);
}

static void take_all(struct wf_fd_entry *entry, struct wakes *wakes)
{
	wakes->count = 0;
	wakes->more = wakes->queued = false;
	take_slot(wakes, &entry->reader, entry->reader_number);
	take_slot(wakes, &entry->writer, entry->writer_number);
	take_ring(entry, 0, true, wakes);
}

/*
 * Claims by id, for callers that need not be of the waiters' runtime. Without the lock. False: the
 * first of the queue had given up; another has to be told.
 */
static bool claim_all(const struct wakes *wakes)
{
	bool won = true;

	for (unsigned i = 0; i < wakes->count; i++)
		won = wf_wait_claim_pid(wakes->wake[i].pid, wakes->wake[i].number);
	return won || !wakes->queued;
}

WF_COLD void wf_fd_wake_all(struct wf_fd_entry *entry)
{
	struct wakes wakes;

	do {
		wf_spinlock_lock(&entry->lock);
		take_all(entry, &wakes);
		wf_spinlock_unlock(&entry->lock);
		(void)claim_all(&wakes);
	} while (wakes.more);
}

/* --- Readiness --- */

/* Takes a new sample. */
int wf_op_sample(struct wf_op *op)
{
	/* F5: acquire, with F7 in report(): who sees READ set sees why. */
	uint64_t word = wf_u64_load_acquire(&op->entry->word);

	if (WF_UNLIKELY(wf_fd_generation(word ^ op->word)))
		return -EBADF;
	op->word = word;
	return WF_UNLIKELY(wf_fd_state(word) == WF_FD_CLOSING) ? -ECANCELED : 0;
}

/* O4: clears ready bits if no event came since the sample. */
static void clear_ready(struct wf_op *op, uint64_t ready)
{
	uint64_t word = wf_u64_load_relaxed(&op->entry->word);

	/* F6: release (the RMW), with F5 in wf_op_sample(): the call that proved it came before. */
	while ((((word ^ op->word) & (WF_FD_TICK | ~(uint64_t)0 << WF_FD_GENERATION_SHIFT)) == 0 ||
		       WF_PLANTED(fd_miss_forgets_event)) &&
		(word & ready)) {
		if (wf_u64_cas(&op->entry->word, &word, word & ~ready))
			return;
	}
}

void wf_op_miss(struct wf_op *op, uint64_t ready)
{
	clear_ready(op, ready);
	op->missed = true;
}

int wf_op_again(struct wf_op *op)
{
	if (op->done) {
		clear_ready(op, op->done);
		op->done = 0;
	}
	op->verdict = 0;
	op->missed = false;
	return wf_op_sample(op);
}

/* --- Homes. Decided under the lock, carried out without it --- */

enum home_step {
	HOME_STAY,
	HOME_ADD,  /* register with the caller's driver */
	HOME_MOVE, /* and deregister from the old one */
};

static struct wf_poller *poller_self(void)
{
	return wf_worker_driver_state(wf_worker_self());
}

static bool is_home(const struct wf_fd_entry *entry, const struct wf_poller *poller)
{
	return entry->registration != WF_FD_UNREGISTERED &&
		entry->home_runtime == poller->runtime && entry->home_worker == poller->worker;
}

static void drop_if_over(weft_pid *pid, uint32_t number)
{
	if (!weft_pid_is_none(*pid) && wf_wait_is_over(*pid, number))
		pid->raw = 0;
}

/* Under the lock: whether somebody waits; names that are over are taken out. */
static bool has_live_waiters(struct wf_fd_entry *entry)
{
	drop_if_over(&entry->reader, entry->reader_number);
	drop_if_over(&entry->writer, entry->writer_number);
	return wf_fd_has_waiters(entry);
}

static int home_decide(struct wf_fd_entry *entry, const struct wf_poller *poller)
{
	bool ours = entry->home_runtime == poller->runtime;
	int step = HOME_ADD;

	if (WF_LIKELY(is_home(entry, poller))) {
		entry->foreign_waits = 0;
		return HOME_STAY;
	}
	WF_ASSERT(entry->registration != WF_FD_UNREGISTERED || !wf_fd_has_waiters(entry));
	if (entry->registration != WF_FD_UNREGISTERED) {
		if (!ours && has_live_waiters(entry))
			return -EBUSY;
		if (ours && (entry->registration == WF_FD_REGISTERING ||
				    ++entry->foreign_waits < WF_HOME_WAITS_MAX))
			return HOME_STAY;
		if (ours)
			step = HOME_MOVE;
	}
	return step;
}

static void home_set(struct wf_fd_entry *entry, const struct wf_poller *poller)
{
	entry->home_runtime = poller->runtime;
	entry->home_worker = poller->worker;
	entry->foreign_waits = 0;
	entry->registration = WF_FD_REGISTERING;
}

void wf_fd_home_clear(struct wf_fd_entry *entry)
{
	entry->home_runtime = 0;
	entry->home_worker = 0;
	entry->foreign_waits = 0;
	entry->registration = WF_FD_UNREGISTERED;
}

static uint64_t token_make(int fd, uint64_t word)
{
	return (uint64_t)wf_fd_generation(word) << 32 | (uint32_t)fd;
}

/*
 * The number came to be used anew (evict) while an operation of its old use was in epoll_ctl, which
 * works on the number: the new use's registration may be gone, or carry the old token. Makes it
 * again.
 */
static WF_COLD void home_repair(struct wf_op *op, const struct wf_poller *poller)
{
	struct wf_fd_entry *entry = op->entry;
	uint64_t word, again;

	do {
		struct wf_poller *home;
		uint16_t worker;
		bool registered;

		wf_spinlock_lock(&entry->lock);
		word = wf_u64_load_relaxed(&entry->word);
		registered = entry->registration != WF_FD_UNREGISTERED &&
			entry->home_runtime == poller->runtime;
		worker = entry->home_worker;
		wf_spinlock_unlock(&entry->lock);
		if (!registered)
			return;
		home = wf_worker_driver_state(wf_rt_worker(poller->rt, worker));
		(void)home->add(home, op->fd, token_make(op->fd, word));
		again = wf_u64_load_acquire(&entry->word);
	} while (wf_fd_generation(word ^ again));
}

/* Under the lock: op's use of the number is at home with `poller`, and being registered. */
static bool is_registering(const struct wf_op *op, const struct wf_poller *poller)
{
	const struct wf_fd_entry *entry = op->entry;

	return !wf_fd_generation(wf_u64_load_relaxed(&entry->word) ^ op->word) &&
		entry->registration == WF_FD_REGISTERING && is_home(entry, poller);
}

/*
 * It could not be registered. Those who counted on it are woken: each finds out for itself. There
 * is a home as long as somebody waits, so that no other runtime takes over their names.
 */
static WF_COLD void home_give_up(const struct wf_op *op, const struct wf_poller *poller)
{
	struct wf_fd_entry *entry = op->entry;
	bool done = false;

	while (!done) {
		wf_fd_wake_all(entry);
		wf_spinlock_lock(&entry->lock);
		done = !is_registering(op, poller) || !wf_fd_has_waiters(entry);
		if (is_registering(op, poller) && done)
			wf_fd_home_clear(entry);
		wf_spinlock_unlock(&entry->lock);
	}
}

/* Registers op's descriptor with the driver that is its home now. 0 or negative errno. */
static WF_NOINLINE int home_settle(
	struct wf_op *op, struct wf_poller *poller, int step, uint16_t old)
{
	struct wf_fd_entry *entry = op->entry;
	bool evicted;
	int r;

	if (step == HOME_MOVE) {
		struct wf_poller *left = wf_worker_driver_state(wf_rt_worker(poller->rt, old));

		left->remove(left, op->fd);
	}
	r = poller->add(poller, op->fd, token_make(op->fd, op->word));
	wf_spinlock_lock(&entry->lock);
	evicted = wf_fd_generation(wf_u64_load_relaxed(&entry->word) ^ op->word);
	if (r == 0 && is_registering(op, poller))
		entry->registration = WF_FD_REGISTERED;
	wf_spinlock_unlock(&entry->lock);
	if (WF_UNLIKELY(evicted)) {
		home_repair(op, poller);
		return -EBADF;
	}
	if (WF_UNLIKELY(r < 0))
		home_give_up(op, poller);
	return r;
}

/*
 * Removes a registration if it is with a runtime whose drivers we may touch: our own. Elsewhere
 * close(2) ends it, or the driver does when the next event finds no home there.
 */
static void home_leave(int fd, uint32_t runtime, uint16_t worker)
{
	struct wf_worker *self = wf_worker_self();
	struct wf_poller *poller = self ? wf_worker_driver_state(self) : NULL;

	if (!poller || poller->runtime != runtime)
		return;
	if (poller->worker != worker)
		poller = wf_worker_driver_state(wf_rt_worker(poller->rt, worker));
	poller->remove(poller, fd);
}

/*
 * Nobody is in a call on it, and nobody will be: tasks may have left their names. Those whose wait
 * is not over find out in their next run.
 */
void wf_fd_tell_tasks(struct wf_fd_entry *entry)
{
	struct wakes wakes;

	wf_spinlock_lock(&entry->lock);
	WF_ASSERT(!ring_first(entry));
	take_all(entry, &wakes);
	wf_spinlock_unlock(&entry->lock);
	(void)claim_all(&wakes);
}

/*
 * Takes the registration out of the entry, and removes it where that is ours to do. Nobody is in a
 * call that waits.
 */
void wf_fd_deregister(struct wf_fd_entry *entry, int fd)
{
	enum wf_fd_registration registration;
	struct wakes wakes;
	uint32_t runtime;
	uint16_t worker;

	wf_spinlock_lock(&entry->lock);
	WF_ASSERT(!ring_first(entry));
	take_all(entry, &wakes); /* of tasks, as in wf_fd_tell_tasks() */
	registration = entry->registration;
	runtime = entry->home_runtime;
	worker = entry->home_worker;
	wf_fd_home_clear(entry);
	wf_spinlock_unlock(&entry->lock);
	(void)claim_all(&wakes);
	if (registration != WF_FD_UNREGISTERED)
		home_leave(fd, runtime, worker);
}

/* --- Waiting --- */

/* Under the lock. 1: no need to wait; 0: wait; -EBADF, -ECANCELED. */
static int wait_admit(const struct wf_op *op, uint64_t ready, enum wait_mode mode)
{
	uint64_t word = wf_u64_load_relaxed(&op->entry->word);

	if (WF_UNLIKELY(wf_fd_generation(word ^ op->word)))
		return -EBADF;
	if (WF_UNLIKELY(wf_fd_state(word) == WF_FD_CLOSING))
		return -ECANCELED;
	if (mode == WAIT_EVENT || mode == WAIT_EVENT_SLOT)
		return ((word ^ op->word) & WF_FD_TICK) != 0;
	return (word & ready) != 0 && !WF_PLANTED(fd_parks_without_look);
}

/* Under the lock. Who was woken as the first of the queue, for nothing, comes back to his place. */
static void queue_enter(struct wf_op *op, struct wf_fd_waiter *waiter)
{
	if (!op->parked)
		op->ticket = ++op->entry->tickets;
	waiter->ticket = op->ticket;
	ring_insert(op->entry, waiter, op->parked ? queue_after(op->entry, op->ticket) : NULL);
}

/* Under the lock: whether a slot is somebody else's, who waits. */
static bool is_busy(weft_pid holder, uint32_t number, const struct wf_wait *wait)
{
	return !weft_pid_is_none(holder) && !weft_pid_equal(holder, wait->pid) &&
		!wf_wait_is_over(holder, number);
}

/* Under the lock: into the slots of its directions. One of ends and errors alone: the reader's. */
static int slots_enter(struct wf_fd_entry *entry, const struct wf_fd_waiter *waiter)
{
	bool writes = waiter->ready & WF_FD_WRITE;
	bool reads = (waiter->ready & WF_FD_READ) || !writes;

	if (WF_UNLIKELY((reads && is_busy(entry->reader, entry->reader_number, &waiter->wait)) ||
		    (writes && is_busy(entry->writer, entry->writer_number, &waiter->wait))))
		return -EBUSY;
	if (reads) {
		entry->reader = waiter->wait.pid;
		entry->reader_number = waiter->wait.number;
	}
	if (writes) {
		entry->writer = waiter->wait.pid;
		entry->writer_number = waiter->wait.number;
	}
	return 0;
}

/* Under the lock: leaves the caller's name in the entry. 0 or -EBUSY. */
static int wait_publish(struct wf_op *op, struct wf_fd_waiter *waiter, enum wait_mode mode)
{
	switch (mode) {
	case WAIT_QUEUE:
		queue_enter(op, waiter);
		return 0;
	case WAIT_EVENT:
		ring_insert(op->entry, waiter, NULL);
		return 0;
	default:
		return slots_enter(op->entry, waiter);
	}
}

/* Takes the name out again unless a peer has. */
static void wait_withdraw(struct wf_fd_entry *entry, struct wf_fd_waiter *waiter)
{
	wf_spinlock_lock(&entry->lock);
	if (waiter->linked)
		ring_remove(entry, waiter);
	if (weft_pid_equal(entry->reader, waiter->wait.pid) &&
		entry->reader_number == waiter->wait.number)
		entry->reader.raw = 0;
	if (weft_pid_equal(entry->writer, waiter->wait.pid) &&
		entry->writer_number == waiter->wait.number)
		entry->writer.raw = 0;
	wf_spinlock_unlock(&entry->lock);
}

/*
 * Under the lock: everything that decides a wait. 0: the caller's name is in the entry, and
 * *step_out says what its home needs; 1: no need to wait; -EBADF, -ECANCELED, -EBUSY.
 */
static int wait_enter(struct wf_op *op, struct wf_fd_waiter *waiter, enum wait_mode mode,
	const struct wf_poller *poller, int *step_out)
{
	int r = wait_admit(op, waiter->ready, mode);

	if (r != 0)
		return r;
	*step_out = wf_op_is_virtual(op) ? HOME_STAY : home_decide(op->entry, poller);
	if (*step_out < 0)
		return *step_out;
	r = wait_publish(op, waiter, mode);
	if (r == 0 && *step_out != HOME_STAY)
		home_set(op->entry, poller);
	return r;
}

/*
 * O5. 0: woken, or no need to wait: look again; negative: as wf_wait_park(), and -EBADF, -EBUSY,
 * what registering gives. A task: WEFT_PENDING, its name stays.
 */
static int wait_for(struct wf_op *op, uint64_t ready, weft_time deadline, enum wait_mode mode)
{
	struct wf_fd_entry *entry = op->entry;
	struct wf_fd_waiter waiter; /* its links only while linked */
	struct wf_poller *poller;
	int step = HOME_STAY, r;
	uint16_t old;

	if (deadline != WEFT_FOREVER) {
		if (deadline == WEFT_POLL)
			return -EAGAIN;
		if (deadline <= weft_now_coarse())
			return -ETIME;
	}
	if (WF_UNLIKELY(wf_wait_in_task()))
		mode = mode == WAIT_EVENT ? WAIT_EVENT_SLOT : WAIT_SLOT;
	waiter.ready = ready;
	waiter.queued = mode == WAIT_QUEUE;
	waiter.linked = false;
	poller = poller_self();
	wf_wait_begin(&waiter.wait);
	wf_spinlock_lock(&entry->lock);
	old = entry->home_worker;
	r = wait_enter(op, &waiter, mode, poller, &step);
	wf_spinlock_unlock(&entry->lock);
	if (WF_UNLIKELY(r != 0)) {
		wf_wait_end(&waiter.wait);
		return r < 0 ? r : 0;
	}
	if (WF_UNLIKELY(step != HOME_STAY))
		r = home_settle(op, poller, step, old);
	if (WF_LIKELY(r == 0)) {
		r = wf_wait_park_slack(&waiter.wait, deadline);
		op->parked = true;
		op->missed = false;
	} else {
		wf_wait_end(&waiter.wait);
	}
	if (WF_UNLIKELY(r < 0 && r != WEFT_PENDING))
		wait_withdraw(entry, &waiter);
	return r;
}

int wf_op_turn_slow(struct wf_op *op, uint64_t ready, weft_time deadline, bool many)
{
	if (op->verdict)
		return op->verdict;
	for (;;) {
		int r = wait_for(op, ready, deadline, many ? WAIT_QUEUE : WAIT_SLOT);

		if (r == 0) {
			r = wf_op_sample(op);
			if (r < 0)
				return r;
			if (op->word & ready) {
				op->missed = false;
				return 0;
			}
			continue;
		}
		if ((r != -ETIME && r != -EAGAIN && r != -EOPNOTSUPP) || op->missed)
			return r;
		/*
		 * A result beats its deadline: what has arrived but was not reported yet, or could
		 * not be reported because nobody has waited so far, or because the driver reports
		 * nothing of the kernel's, counts. One last try.
		 */
		op->verdict = r;
		return 0;
	}
}

int wf_op_wait_event(struct wf_op *op, uint64_t ready, weft_time deadline)
{
	return wait_for(op, ready, deadline, WAIT_EVENT);
}

void wf_op_pass_on(struct wf_op *op)
{
	struct wf_fd_entry *entry = op->entry;
	struct wakes wakes;

	/*
	 * Relaxed is enough: who was queued when the edge came was linked under the lock, before E3
	 * of that edge, which we have seen; who came later has seen READ itself.
	 */
	if (WF_LIKELY(!ring_first(entry)))
		return;
	do {
		wakes.count = 0;
		wakes.queued = false;
		wf_spinlock_lock(&entry->lock);
		if (wf_u64_load_relaxed(&entry->word) & WF_FD_READ)
			take_queued(entry, &wakes);
		wf_spinlock_unlock(&entry->lock);
	} while (wakes.count && !wf_wait_claim_pid(wakes.wake[0].pid, wakes.wake[0].number));
}

/* --- Events --- */

/* E3, under the lock. */
static void report(struct wf_fd_entry *entry, uint64_t ready)
{
	uint64_t word = wf_u64_load_relaxed(&entry->word);
	uint64_t next;

	do {
		next = (word & ~WF_FD_TICK) | ((word + WF_FD_TICK_ONE) & WF_FD_TICK) | ready;
		/* F7: release (the RMW), with F2 in wf_op_begin(), F5 in wf_op_sample(). */
	} while (!wf_u64_cas(&entry->word, &word, next));
}

/* E6, as claim_all(), where the driver keeps the waiters' runtime alive. */
static bool claim_ready(const struct wf_poller *poller, const struct wakes *wakes)
{
	bool won = true;

	for (unsigned i = 0; i < wakes->count; i++)
		won = wf_wait_claim(poller->rt, wakes->wake[i].pid, wakes->wake[i].number);
	return won || !wakes->queued;
}

/* E1 and E2. True: locked, and the event is for this use of the number, at home with `poller`. */
static bool event_begin(struct wf_fd_entry *entry, struct wf_poller *poller, uint64_t token)
{
	bool home;

	wf_spinlock_lock(&entry->lock);
	home = is_home(entry, poller);
	if (WF_LIKELY(home && wf_fd_generation(wf_u64_load_relaxed(&entry->word)) == token >> 32))
		return true;
	wf_spinlock_unlock(&entry->lock);
	/* Left behind by a home that moved to another runtime, or a close elsewhere. */
	if (!home)
		poller->remove(poller, (int)(uint32_t)token);
	return false;
}

void wf_fd_event(struct wf_poller *poller, uint64_t token, uint64_t ready)
{
	struct wf_fd_entry *entry = wf_fd_find((int)(uint32_t)token);
	struct wakes wakes;

	if (WF_UNLIKELY(!event_begin(entry, poller, token)))
		return;
	report(entry, ready);
	take_ready(entry, ready, &wakes);
	wf_spinlock_unlock(&entry->lock); /* E5 */
	while (WF_UNLIKELY(!claim_ready(poller, &wakes) || wakes.more)) {
		if (!event_begin(entry, poller, token))
			return;
		take_ready(entry, ready, &wakes);
		wf_spinlock_unlock(&entry->lock);
	}
}

void wf_fd_report(struct wf_fd_entry *entry, uint32_t generation, uint64_t ready)
{
	struct wakes wakes;
	bool first = true;

	do {
		wf_spinlock_lock(&entry->lock);
		if (wf_fd_generation(wf_u64_load_relaxed(&entry->word)) != generation) {
			wf_spinlock_unlock(&entry->lock);
			return;
		}
		if (first)
			report(entry, ready);
		first = false;
		take_ready(entry, ready, &wakes);
		wf_spinlock_unlock(&entry->lock);
	} while (WF_UNLIKELY(!claim_all(&wakes) || wakes.more));
}
