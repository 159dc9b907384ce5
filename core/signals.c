/*
 * signals.c: <weft/signal.h>: which process is subscribed to what, what it has not taken yet, and
 * who waits.
 *
 * A subscriber is an entry of one small table, found by id and packed: the first `count` are in
 * use. An entry says nothing of whether its process still lives, so that ends cost nothing: those
 * that have ended are taken out where it matters, before a delivery and when the table is full.
 * Ids are never used again, so an old entry harms nobody until then.
 *
 * The lock guards everything; it is held for one pass over the table at most. Processes are looked
 * up and claimed without it, by copies of {pid, wait number} (C2 to C4 of core/README.md).
 *
 * Progress: blocking (the lock). Subscribe, unsubscribe, wait: the process itself; own, disown,
 * deliver: the owner's thread.
 */
#include "core/signals.h"

#include <errno.h>

#include "core/registry.h"
#include "sync/planted.h"
#include "sync/spinlock.h"

struct subscriber {
	weft_pid pid;
	uint64_t set;
	uint64_t pending;     /* of the set: come, not taken */
	uint32_t wait_number; /* of the wait it parks in; 0: none */
};

static struct {
	struct wf_spinlock lock;
	bool owned;
	unsigned count;
	struct subscriber list[WF_SUBSCRIBERS_MAX];
} signals;

/* Whom to wake, copied out under the lock. */
struct waits {
	unsigned count;
	struct wf_wait list[WF_SUBSCRIBERS_MAX];
};

static bool is_set(uint64_t set)
{
	return set != 0 && (set & ~WF_SIGNALS) == 0;
}

/* --- Under the lock --- */

static struct subscriber *find(weft_pid pid)
{
	for (unsigned i = 0; i < signals.count; i++)
		if (weft_pid_equal(signals.list[i].pid, pid))
			return &signals.list[i];
	return NULL;
}

static void remove_subscriber(struct subscriber *subscriber)
{
	*subscriber = signals.list[--signals.count];
}

static void take_wait(struct subscriber *subscriber, struct waits *waits)
{
	if (subscriber->wait_number == 0)
		return;
	waits->list[waits->count++] =
		(struct wf_wait){ subscriber->pid, subscriber->wait_number };
	subscriber->wait_number = 0;
}

/* --- Without it --- */

static void claim_all(const struct waits *waits)
{
	for (unsigned i = 0; i < waits->count; i++)
		(void)wf_wait_claim_pid(waits->list[i].pid, waits->list[i].number);
}

static bool is_alive(weft_pid pid)
{
	struct wf_visit visit;
	struct wf_proc *p = wf_visit_begin(&visit, pid);
	bool alive;

	if (!p)
		return false;
	alive = wf_word_phase(wf_u64_load_relaxed(&p->word)) != WF_DONE;
	wf_visit_end(&visit);
	return alive;
}

/* Takes out the processes that have ended. */
static void prune(void)
{
	weft_pid pids[WF_SUBSCRIBERS_MAX];
	unsigned count;

	wf_spinlock_lock(&signals.lock);
	count = signals.count;
	for (unsigned i = 0; i < count; i++)
		pids[i] = signals.list[i].pid;
	wf_spinlock_unlock(&signals.lock);
	for (unsigned i = 0; i < count; i++) {
		struct subscriber *subscriber;

		if (is_alive(pids[i]))
			continue;
		wf_spinlock_lock(&signals.lock);
		subscriber = find(pids[i]);
		if (WF_PLANTED(signal_prune_by_place))
			subscriber = i < signals.count ? &signals.list[i] : NULL;
		if (subscriber)
			remove_subscriber(subscriber);
		wf_spinlock_unlock(&signals.lock);
	}
}

/* --- The owner --- */

int wf_signals_own(void)
{
	bool mine;

	wf_spinlock_lock(&signals.lock);
	mine = !signals.owned;
	signals.owned = true;
	wf_spinlock_unlock(&signals.lock);
	return mine ? 0 : -EBUSY;
}

void wf_signals_disown(void)
{
	struct waits waits = { .count = 0 };

	wf_spinlock_lock(&signals.lock);
	for (unsigned i = 0; i < signals.count; i++)
		take_wait(&signals.list[i], &waits);
	signals.count = 0;
	signals.owned = false;
	wf_spinlock_unlock(&signals.lock);
	claim_all(&waits);
}

unsigned wf_signals_deliver(int signo)
{
	struct waits waits = { .count = 0 };
	unsigned receivers = 0;

	prune();
	wf_spinlock_lock(&signals.lock);
	for (unsigned i = 0; i < signals.count; i++) {
		struct subscriber *subscriber = &signals.list[i];

		if (!(subscriber->set & WEFT_SIGNAL_BIT(signo)))
			continue;
		if (!WF_PLANTED(signal_goes_to_who_waits) || subscriber->wait_number != 0)
			subscriber->pending |= WEFT_SIGNAL_BIT(signo);
		receivers++;
		take_wait(subscriber, &waits);
	}
	wf_spinlock_unlock(&signals.lock);
	claim_all(&waits);
	return receivers;
}

/* --- Subscribers --- */

/* 0; -ENOTSUP; -EAGAIN: no room. */
static int subscribe(weft_pid pid, uint64_t set)
{
	struct subscriber *subscriber;
	int r = 0;

	wf_spinlock_lock(&signals.lock);
	subscriber = find(pid);
	if (!signals.owned)
		r = -ENOTSUP;
	else if (subscriber)
		subscriber->set |= set;
	else if (signals.count < WF_SUBSCRIBERS_MAX)
		signals.list[signals.count++] = (struct subscriber){ .pid = pid, .set = set };
	else
		r = -EAGAIN;
	wf_spinlock_unlock(&signals.lock);
	return r;
}

int weft_signal_subscribe(uint64_t set)
{
	weft_pid self = weft_self();
	int r;

	if (weft_pid_is_none(self))
		return -EPERM;
	if (!is_set(set))
		return -EINVAL;
	r = subscribe(self, set);
	if (r == -EAGAIN) {
		prune();
		r = subscribe(self, set);
	}
	return r;
}

int weft_signal_unsubscribe(uint64_t set)
{
	weft_pid self = weft_self();
	struct subscriber *subscriber;

	if (weft_pid_is_none(self))
		return -EPERM;
	if (!is_set(set))
		return -EINVAL;
	wf_spinlock_lock(&signals.lock);
	subscriber = find(self);
	if (subscriber) {
		subscriber->set &= ~set;
		subscriber->pending &= ~set;
		if (subscriber->set == 0)
			remove_subscriber(subscriber);
	}
	wf_spinlock_unlock(&signals.lock);
	return 0;
}

/*
 * A signal that has come; or 0, and the wait of that number (0: none) is published in the same
 * hold of the lock, so that what comes next claims it; -ENOTSUP, -EINVAL.
 */
static int take_or_publish(weft_pid self, uint32_t wait_number)
{
	struct subscriber *subscriber;
	int r = 0;

	wf_spinlock_lock(&signals.lock);
	subscriber = find(self);
	if (!signals.owned) {
		r = -ENOTSUP;
	} else if (!subscriber) {
		r = -EINVAL;
	} else if (subscriber->pending) {
		r = __builtin_ctzll(subscriber->pending) + 1;
		subscriber->pending &= subscriber->pending - 1;
		subscriber->wait_number = 0;
	} else {
		if (WF_PLANTED(signal_published_late)) {
			wf_spinlock_unlock(&signals.lock);
			wf_spinlock_lock(&signals.lock);
		}
		subscriber->wait_number = wait_number;
	}
	wf_spinlock_unlock(&signals.lock);
	return r;
}

static void withdraw(weft_pid self)
{
	struct subscriber *subscriber;

	wf_spinlock_lock(&signals.lock);
	subscriber = find(self);
	if (subscriber)
		subscriber->wait_number = 0;
	wf_spinlock_unlock(&signals.lock);
}

int weft_signal_wait(weft_time deadline)
{
	struct wf_wait wait;
	int r = wf_wait_check();

	if (r < 0)
		return r;
	wf_wait_begin(&wait);
	r = take_or_publish(wait.pid, wait.number);
	if (r != 0) {
		wf_wait_end(&wait);
		if (r > 0)
			wf_budget_take();
		return r;
	}
	r = wf_wait_park(&wait, deadline);
	if (r < 0) {
		withdraw(wait.pid);
		return r;
	}
	r = take_or_publish(wait.pid, 0);
	WF_ASSERT(r != 0); /* claimed: after a signal was put in place, or by the owner's end */
	return r;
}
