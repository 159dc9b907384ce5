/*
 * fd.h: what Weft keeps about each file descriptor, and how every call on one begins, waits and
 * ends. io/README.md tells it in prose.
 *
 * One table for the process, not one per runtime: descriptor numbers are the process's, so close,
 * reuse and hand-over between runtimes and foreign threads are decided in one place. Segments of
 * doubling size are mapped when first needed and stay; an entry is one cache line.
 *
 * The word of an entry, the only thing the common path touches (64 bits, from the low end):
 *
 *	operations 16   calls that have begun and not ended, parked ones included
 *	state 2         FREE, OPEN, CLOSING
 *	kind 4          what the kernel's object is, fixed while OPEN
 *	ready 3         READ, WRITE: trying may succeed. STICKY: an end or error has been reported
 *	tick 15         counts the events reported
 *	generation 24   counts the uses of the number
 *
 *	FREE ──reset, adopt──► OPEN ──close──► CLOSING ──last operation ends──► FREE, generation + 1
 *
 * An operation, in steps:
 *	O1 begin: CAS operations + 1 if OPEN; the value is the sample. CLOSING: -ECANCELED.
 *	O2 if the sample is not ready, go to O5.
 *	O3 try the system call. Done, or an error: O6 (a short count of a TCP socket proves that
 *	   nothing is left: READ or WRITE is cleared with O6).
 *	O4 EAGAIN: clear the ready bit if the tick is the sample's.
 *	O5 wait: under the lock, ready or CLOSING: do not park. Else leave {pid, wait number} in the
 *	   entry, and register the descriptor with a driver if it is not. Park. Sample again, O2.
 *	O6 end: CAS operations - 1 (and the ready bit, if the tick is the sample's). The last one
 *	   out of a CLOSING entry closes the descriptor.
 * So a call that need not wait is two uncontended CASes and its system call.
 *
 * A task in O5 leaves its name in `reader`, `writer`, or both, and goes to O6; its next call begins
 * anew. So names may be there without an operation, and of waits that are over (core/sched.h): O5
 * overwrites such a one, C4 takes them out, and tells whose are not over.
 *
 * An event, by the driver of the home worker:
 *	E1 lock;
 *	E2 drop it if the generation or the home is another;
 *	E3 CAS ready bits in, tick + 1;
 *	E4 take the waiters out;
 *	E5 unlock;
 *	E6 claim their waits.
 *
 * Why readiness is never lost (I1): the kernel reports each edge after it has happened. An edge
 * that came before O3 is part of what O3 sees. One that comes after O3 bumps the tick (E3) after
 * the sample: if before O4 or O6, these see another tick and clear nothing; if after, E3 sets the
 * bit again; and O5 looks at the bit under the lock that E1 to E4 hold. (A tick of 15 bits would
 * have to wrap exactly between a sample and its CAS.)
 *
 * Why a short count may clear READ: the receive queue of a TCP socket was empty then, so the next
 * byte, end or error is an edge of its own. Exceptions, all of which set STICKY, which forbids it
 * (never O4): end of stream, error (the edge may have come with the data already read) and urgent
 * data (recv stops at the mark). Other sockets and pipes may return short with more to come, and so
 * may TCP with a layer above it (TCP_ULP): these take the extra EAGAIN.
 * STICKY never keeps O4 from clearing, so a descriptor whose error queue is full does not spin.
 *
 * Closing:
 *	C1 CAS OPEN → CLOSING. No operation in flight: C4 at once.
 *	C2 else the closer counts as one operation; it takes out every waiter and claims it (they
 *	   see CLOSING: -ECANCELED);
 *	C3 it shuts a connected stream socket down (never a listener, which others may share), and
 *	   ends.
 *	C4 the last to end removes the registration, calls close(2), and then makes the entry FREE
 *	   by a CAS that fails if a reset has been faster (the number is free for the kernel as soon
 *	   as close(2) returns). Until then the number cannot be reused, and an operation that finds
 *	   it CLOSING with no operation waits out this moment.
 *
 * Descriptors made elsewhere are adopted by their first operation: O_NONBLOCK is set (it belongs to
 * the open file, so everybody who shares that sees it); weft_fd_forget() takes it back.
 *
 * Home: the worker whose driver reports the descriptor's events; the first that waits. After
 * WF_HOME_WAITS_MAX waits in a row from another worker of the runtime it moves there. All waiters
 * belong to processes of the home's runtime, so a driver claims waits of living processes' runtime
 * only: a wait from another runtime takes the home over if nobody waits, else it gives -EBUSY.
 *
 * Handles of Weft's own, from 2^30 up (mem.h): the same word, operations, waits and closing. Their
 * entries lie with their sockets and have no home: who makes one ready reports it itself. A handle
 * names a use of its entry, so FREE is -EBADF, and nothing is adopted. C4 ends the socket instead
 * of calling close(2), and gives the entry back when it is FREE.
 *
 * Locks: an entry's lock guards home, registration and waiters; held for a few instructions, never
 * over a system call, a claim or an allocation. Progress: begin and end are lock-free; waiting,
 * events and closing take the lock (blocking).
 */
#ifndef WF_IO_FD_H
#define WF_IO_FD_H

#include <errno.h>

#include "core/sched.h"
#include "sync/atomic.h"
#include "sync/planted.h"
#include "sync/spinlock.h"

enum {
	WF_FD_NUMBER_MAX = 1 << 30,      /* from here on: handles of Weft's own */
	WF_FD_FIRST_SEGMENT_SHIFT = 10,
	WF_FD_SEGMENTS = 21,             /* 2^10, 2^10, 2^11, … 2^29 entries */
	WF_HOME_WAITS_MAX = 8,
	WF_FD_OPERATIONS_MAX = 0xfffe,   /* one more is kept for the closer */
};

#define WF_FD_OPERATIONS ((uint64_t)0xffff)
#define WF_FD_STATE      ((uint64_t)3 << 16)
#define WF_FD_FREE       ((uint64_t)0 << 16)
#define WF_FD_OPEN       ((uint64_t)1 << 16)
#define WF_FD_CLOSING    ((uint64_t)2 << 16)

/* Kinds, and what they change. */
#define WF_FD_KIND         ((uint64_t)15 << 18)
#define WF_FD_SOCKET       ((uint64_t)1 << 18) /* recv and send, not read and write */
#define WF_FD_TCP          ((uint64_t)1 << 19) /* a short count proves that nothing is left */
#define WF_FD_NODELAY      ((uint64_t)1 << 20) /* of a listener: connections inherit TCP_NODELAY */
#define WF_FD_WAS_BLOCKING ((uint64_t)1 << 21) /* adopted: O_NONBLOCK was set by Weft */

#define WF_FD_READ   ((uint64_t)1 << 22)
#define WF_FD_WRITE  ((uint64_t)1 << 23)
#define WF_FD_STICKY ((uint64_t)1 << 24)
#define WF_FD_READY  (WF_FD_READ | WF_FD_WRITE | WF_FD_STICKY)

#define WF_FD_TICK_ONE         ((uint64_t)1 << 25)
#define WF_FD_TICK             ((uint64_t)0x7fff << 25)
#define WF_FD_GENERATION_SHIFT 40
#define WF_FD_GENERATION_MASK  ((uint32_t)0xffffff)

enum wf_fd_registration {
	WF_FD_UNREGISTERED,
	WF_FD_REGISTERING, /* somebody is in the system call that does it; do not touch the home */
	WF_FD_REGISTERED,
};

/* One that waits in `many`, on its stack; guarded by the entry's lock while linked. */
struct wf_fd_waiter {
	struct wf_fd_waiter *next, *prev;
	struct wf_wait wait;
	uint64_t ready; /* what to wake it for */
	uint32_t ticket; /* if queued: the lowest comes first */
	bool queued;    /* an edge wakes only the first of these (accept), but each of the others */
	bool linked;
};

struct wf_fd_entry {
	wf_atomic_u64 word;
	struct wf_spinlock lock;
	uint32_t home_runtime; /* serial number; 0: no home */
	uint16_t home_worker;
	uint8_t registration;  /* enum wf_fd_registration */
	uint8_t foreign_waits; /* in a row */
	uint32_t reader_number;
	uint32_t writer_number;
	uint32_t tickets; /* given to those who queue */
	weft_pid reader;
	weft_pid writer;
	wf_atomic_ptr many; /* ring of waiters; written under the lock, peeked at without */
} WF_ALIGNED(WF_CACHE_LINE);

static_assert(sizeof(struct wf_fd_entry) == WF_CACHE_LINE, "an entry is one line");

/*
 * What a main driver's state begins with: how fd.c registers descriptors with it. add and remove:
 * any worker of the runtime. add replaces a registration of the same descriptor that is there
 * already.
 */
struct wf_poller {
	int (*add)(struct wf_poller *poller, int fd, uint64_t token);
	void (*remove)(struct wf_poller *poller, int fd);
	struct weft_rt *rt;
	uint32_t runtime; /* its serial number, never 0 */
	uint16_t worker;
};

/* One call on a descriptor; on the caller's stack. */
struct wf_op {
	struct wf_fd_entry *entry;
	int fd;
	int verdict;   /* wf_op_turn(): what to return if the last try fails too */
	uint64_t word; /* the sample */
	uint64_t done; /* ready bits to clear at the end */
	uint32_t ticket; /* in the queue, of one that has parked in it */
	bool missed;   /* the try before this one gave EAGAIN, and no time has passed since */
	bool parked;
};

extern wf_atomic_ptr wf_fd_segments[WF_FD_SEGMENTS];

WF_INLINE uint64_t wf_fd_state(uint64_t word)
{
	return word & WF_FD_STATE;
}

WF_INLINE uint32_t wf_fd_generation(uint64_t word)
{
	return (uint32_t)(word >> WF_FD_GENERATION_SHIFT);
}

/* What a use of a number leaves behind. */
WF_INLINE uint64_t wf_fd_word_free(uint64_t word)
{
	uint64_t generation = (wf_fd_generation(word) + 1) & WF_FD_GENERATION_MASK;

	return generation << WF_FD_GENERATION_SHIFT | WF_FD_FREE;
}

WF_INLINE bool wf_op_is_virtual(const struct wf_op *op)
{
	return op->fd >= WF_FD_NUMBER_MAX;
}

/* The entry of a number, NULL if its segment does not exist (yet) or it is no descriptor's. */
WF_INLINE struct wf_fd_entry *wf_fd_find(int fd)
{
	unsigned number = (unsigned)fd;
	unsigned segment, first;
	struct wf_fd_entry *entries;

	if (WF_UNLIKELY(number >= WF_FD_NUMBER_MAX))
		return NULL;
	segment = 22u - (unsigned)__builtin_clz(number | ((1u << WF_FD_FIRST_SEGMENT_SHIFT) - 1));
	first = segment ? 1u << (WF_FD_FIRST_SEGMENT_SHIFT - 1 + segment) : 0;
	/* F1: acquire, with F4 in entry_make(): the entries are mapped before they are seen. */
	entries = wf_ptr_load_acquire(&wf_fd_segments[segment]);
	return WF_LIKELY(entries != NULL) ? &entries[number - first] : NULL;
}

/* O1 where it is not simple: adopts, waits out a close(2), refuses. */
int wf_op_begin_slow(struct wf_op *op, int fd);

/* O1. 0; -EBADF, -ECANCELED, -EBUSY (WF_FD_OPERATIONS_MAX of them), -ENOMEM. */
WF_INLINE int wf_op_begin(struct wf_op *op, int fd)
{
	struct wf_fd_entry *entry = wf_fd_find(fd);
	uint64_t word;

	op->fd = fd;
	op->verdict = 0;
	op->done = 0;
	op->missed = false;
	op->parked = false;
	if (WF_UNLIKELY(!entry))
		return wf_op_begin_slow(op, fd);
	op->entry = entry;
	word = wf_u64_load_relaxed(&entry->word);
	/*
	 * F2: acquire (the RMW), with F7 in report() and F8 in wf_fd_reset(): who sees READ set
	 * sees why; and release, with F10 in close_begin(): the closer counts this operation before
	 * anything it does.
	 */
	while (WF_LIKELY(wf_fd_state(word) == WF_FD_OPEN &&
		   (word & WF_FD_OPERATIONS) < WF_FD_OPERATIONS_MAX)) {
		if (WF_LIKELY(wf_u64_cas(&entry->word, &word, word + 1))) {
			op->word = word + 1;
			return 0;
		}
	}
	return wf_op_begin_slow(op, fd);
}

/* C4: the last one out of a CLOSING entry closes the descriptor. */
int wf_fd_finish(struct wf_fd_entry *entry, int fd, uint64_t word);

/*
 * O6. Nothing is left to do where the generation is another: the host has closed the descriptor
 * under us, and the number is in use again.
 */
WF_INLINE void wf_op_end(struct wf_op *op)
{
	uint64_t word = wf_u64_load_relaxed(&op->entry->word);
	uint64_t left;

	do {
		if (WF_UNLIKELY(wf_fd_generation(word ^ op->word)))
			return;
		left = word - 1;
		if (((word ^ op->word) & WF_FD_TICK) == 0)
			left &= ~op->done;
		/*
		 * F3: acquire and release (the RMW), with itself: the system call is over before
		 * the last one closes the descriptor; and with F2: READ is cleared after the call
		 * that proved it.
		 */
	} while (WF_UNLIKELY(!wf_u64_cas(&op->entry->word, &word, left)));
	if (WF_UNLIKELY((left & (WF_FD_STATE | WF_FD_OPERATIONS)) == WF_FD_CLOSING) &&
		!WF_PLANTED(fd_last_leaves_open))
		(void)wf_fd_finish(op->entry, op->fd, left);
}

/* What comes after the first try, or instead of it. */
int wf_op_turn_slow(struct wf_op *op, uint64_t ready, weft_time deadline, bool many);

/*
 * O2, O5: call it before each try. 0: try now. Else give up with that error: -ETIME, -EAGAIN (each
 * only after a try), -ECANCELED, -EBUSY, -EBADF, -EPERM, what registering gives. `many`: any number
 * may wait like this, first come first served; else one per direction.
 */
WF_INLINE int wf_op_turn(struct wf_op *op, uint64_t ready, weft_time deadline, bool many)
{
	if (WF_LIKELY((op->word & ready) && !op->missed))
		return 0;
	return wf_op_turn_slow(op, ready, deadline, many);
}

/* O4: the try gave EAGAIN. */
void wf_op_miss(struct wf_op *op, uint64_t ready);

/* O3: after a try that gave `count` of `size` bytes, perhaps a short count. */
WF_INLINE void wf_op_moved(struct wf_op *op, uint64_t ready, size_t count, size_t size)
{
	op->done = count < size && (op->word & (WF_FD_TCP | WF_FD_STICKY)) == WF_FD_TCP ? ready : 0;
}

/* Before a further try of the same call: takes what wf_op_moved() found into account. */
int wf_op_again(struct wf_op *op);

/*
 * Waits for any event since the last sample, for weft_poll_fd(): 0 (then sample again by
 * wf_op_sample() before looking), or as wf_op_turn(). `ready`: which of them to wake for.
 */
int wf_op_wait_event(struct wf_op *op, uint64_t ready, weft_time deadline);
int wf_op_sample(struct wf_op *op);

/*
 * After an accept that succeeded: more may be queued, and the edge woke only one: wakes the next
 * that waits, if any.
 */
void wf_op_pass_on(struct wf_op *op);

/*
 * A descriptor Weft has just created: a new use of its number. Any thread. 0, or -ENOMEM (then the
 * descriptor is still the caller's to close). The generation is for wf_fd_close().
 */
int wf_fd_reset(int fd, uint64_t kind, uint32_t *generation_out);

#define WF_FD_ANY_GENERATION UINT32_MAX

/* weft_close(), of one use of the number only: 0, -EBADF. Any thread, never waits. */
int wf_fd_close(int fd, uint32_t generation);

/* E1 to E6, by the driver that `token` was registered with. */
void wf_fd_event(struct wf_poller *poller, uint64_t token, uint64_t ready);

/* True for tokens that fd.c made; drivers have the others for themselves. */
#define WF_TOKEN_OTHER ((uint64_t)1 << 63)

/*
 * E1 to E6 for handles of Weft's own, which have no home: whoever makes one ready says so itself.
 * Any thread, without locks. Nothing if `generation` is over.
 */
void wf_fd_report(struct wf_fd_entry *entry, uint32_t generation, uint64_t ready);

/* For tests: false, and the reason on stderr, if an entry that nobody uses is inconsistent. */
bool wf_fd_valid(int fd);

#endif
