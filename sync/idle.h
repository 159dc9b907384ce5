/*
 * idle.h: the idle word: who is parked, how many search, and so who must be woken for new work.
 *
 *	bit 63..56 spare | 55..48 searchers | 47..0 parked workers
 *
 * Words. A worker is PARKED while its bit is set: it sleeps, or is about to. A SEARCHER is a
 * worker, counted in the word, that looks for work in the injector and in the others' rings. A
 * TOKEN is what a waker owes the worker whose bit it has cleared: one, of kind WORK or DIRECTED,
 * delivered outside this header. Whoever clears a parked bit by RMW has CLAIMED that worker. RMW:
 * read-modify-write, seq_cst.
 *
 * Invariants
 *   I1  a worker's bit is set only by itself, in wf_idle_park. Each bit set is cleared once: by a
 *       waker, who then delivers exactly one token, or by the worker itself. So at most one token
 *       exists per worker, and one word holds it.
 *   I2  searchers = workers searching + WORK tokens not yet consumed.
 *
 * THE PROTOCOL
 *
 * Work wake: something any worker can take was put into the injector (or a ring).
 *   W1  (caller) publish it by an RMW of the queue's own word: a push to the injector is one; after
 *       pushes to a ring, wf_deque_publish.
 *   W2  wf_idle_claim_any: load the idle word, seq_cst. A searcher exists, or nobody is parked:
 *       done.
 *   W3  else one RMW clears some parked bit and adds a searcher; on failure W2 again.
 *   W4  (caller) deliver a WORK token to that worker.
 *
 * Directed wake: something only worker w can take was put into its inbox.
 *   D1  (caller) publish by RMW (the inbox's push).
 *   D2  wf_idle_claim_one: load, seq_cst. w's bit is clear: done, it is awake and will look.
 *   D3  one RMW clears the bit; if it was still set, deliver a DIRECTED token. Searchers stay as
 *       they are. A wake-all (wf_idle_claim_all) is D3 for every bit at once.
 *
 * Search.
 *   S1  wf_idle_search_begin: one RMW adds a searcher, unless there are enough.
 *   S2  (caller) take: from the injector, or steal from a ring.
 *   S3  found: publish the loot in the own ring (wf_deque_publish), *then* wf_idle_search_end. If
 *       that was the last searcher: W2 to W4. All this before anything of the loot is run; what is
 *       run next need not be in the ring. Found nothing: park (below), or end the search the same
 *       way.
 *
 * Park.
 *   P1  wf_idle_park: one RMW sets the own bit and, if searching, takes one searcher off.
 *   P2  (caller) re-check all there is with seq_cst loads: stop flag, inbox, injector, own ring and
 *       every victim's, driver, timers.
 *   P3  (caller) nothing: sleep in the driver, RCU offline.
 *   P4  P2 found something, or the sleep ended: wf_idle_unpark_self, one RMW. True: the bit was
 *       still set, nobody has claimed us. False: a waker has; wait for its token, consume it, act
 *       on its kind. A WORK token makes this worker a searcher (already counted: I2): search, and
 *       end that by S3 or P1.
 *
 * WHY NO WAKE IS LOST
 *
 * All operations named are seq_cst, so one total order T holds them all, and two Dekker pairs
 * decide.
 *
 * Pair 1, publish (W1 or D1) against park (P1). Publisher: RMW queue, load idle. Parker: RMW idle,
 * load queue. If the publisher's load misses the parked bit, then it precedes P1 in T, so W1
 * precedes P2's load in T: the re-check sees the item, or that somebody else has taken it. Both
 * sides' loads must be seq_cst: a weaker one is not in T and may be satisfied before its own RMW
 * (aarch64: an acquire load after a LDAXR/STLXR pair can). On x86-64 it is a plain mov after a
 * locked instruction. That the RMW of W1 is on the queue's word matters too: a release store
 * followed by an RMW of another word leaves the store out of T. (P1 and W3 are on one word, so an
 * RMW of the idle word in W2 would do as well; but every producer would then write the one line all
 * workers share.)
 *
 * Pair 2, W2 sees a searcher and does nothing. Let Z be the first RMW after W2's load, in the order
 * of the idle word, that brings the count to 0: some searcher's last step. If Z is P1, that
 * worker's re-check comes after it, hence after W1, in T: it sees the item. If Z is S3, it was the
 * last, and does W2 to W4 itself: it finds a searcher (then argue again from its load), or nobody
 * parked (then whoever parks later re-checks, pair 1), or wakes one, which makes a searcher and so
 * a later Z. So either somebody sees the item, or it was taken. Without "the last searcher wakes
 * one more" the item waits until a turn ends somewhere.
 *
 * Why S3 publishes before it ends the search: another parker Q may have found the victim's ring
 * already emptied. If Q's P1 comes after the thief's RMW, it acquires it (one word, RMW to RMW),
 * and its re-check sees the loot in the thief's ring. If before, then Q is parked when the thief
 * ends: the thief, if it was the last searcher, wakes one; if it was not, there is a later Z. Loot
 * published after the RMW can be missed by all of them.
 *
 * Why the count drops and the bit rises in one RMW (P1): between two, the worker would be neither;
 * a publisher in the gap sees no searcher and nobody parked, which is harmless (its W2 precedes
 * P1), but two locked operations are not.
 *
 * Why a claim adds the searcher in the waker's own RMW (W3): else every publisher until the sleeper
 * is on its feet (30 us) wakes one more.
 *
 * A spinner (awake, not counted, no bit) is woken by nobody: it must itself look at the injector
 * each turn and become a searcher whenever the count is 0.
 *
 * Progress. park, search_end, claim_all: wait-free where the machine has the RMW, else lock-free.
 * The rest: lock-free; a retry means that the word changed, that is, that another worker parked,
 * woke or searched. Callers are named at each function; "any" is any thread.
 */
#ifndef WF_SYNC_IDLE_H
#define WF_SYNC_IDLE_H

#include "sync/atomic.h"

#define WF_IDLE_WORKERS_MAX   48
#define WF_IDLE_PARKED        (((uint64_t)1 << WF_IDLE_WORKERS_MAX) - 1)
#define WF_IDLE_SEARCHER      ((uint64_t)1 << WF_IDLE_WORKERS_MAX)
#define WF_IDLE_SEARCHERS_MAX 255

static_assert(WF_WORKERS_MAX >= 1 && WF_WORKERS_MAX <= WF_IDLE_WORKERS_MAX,
	"the idle word has one bit per worker");

struct wf_idle {
	/* Every worker writes this line. Zero: all awake, none searching. */
	WF_ALIGNED(WF_FALSE_SHARING) wf_atomic_u64 word;
	uint64_t workers_mask; /* constant after init */
};

WF_INLINE uint64_t wf_idle_bit(unsigned worker)
{
	return (uint64_t)1 << worker;
}

WF_INLINE unsigned wf_idle_searchers(uint64_t word)
{
	return (unsigned)(word >> WF_IDLE_WORKERS_MAX) & WF_IDLE_SEARCHERS_MAX;
}

static inline void wf_idle_init(struct wf_idle *idle, unsigned workers)
{
	WF_CHECK(workers >= 1 && workers <= WF_IDLE_WORKERS_MAX);
	wf_u64_store_relaxed(&idle->word, 0);
	idle->workers_mask = WF_IDLE_PARKED >> (WF_IDLE_WORKERS_MAX - workers);
}

/*
 * Any. A guess whether W2 would find somebody: after each push to a ring, where an RMW
 * would cost more than the push. wf_idle_claim_any after wf_deque_publish makes it certain, once
 * per turn.
 */
static inline bool wf_idle_wants_work_wake_relaxed(const struct wf_idle *idle)
{
	uint64_t word = wf_u64_load_relaxed(&idle->word);

	return wf_idle_searchers(word) == 0 && (word & WF_IDLE_PARKED) != 0;
}

/* Any. A guess whether some worker has nothing to run: it is parked, or searches. */
static inline bool wf_idle_is_anybody_relaxed(const struct wf_idle *idle)
{
	return wf_u64_load_relaxed(&idle->word) != 0;
}

/*
 * Any; W2 and W3. The worker to send a WORK token to, or -1. The lowest number first: few workers
 * stay warm, the others sleep long.
 */
static inline int wf_idle_claim_any(struct wf_idle *idle)
{
	/* L1, with M1 of wf_idle_park: pair 1 at the file's top. */
	uint64_t word = wf_u64_load_seq_cst(&idle->word);
	unsigned worker;

	do {
		if (wf_idle_searchers(word) != 0 || (word & WF_IDLE_PARKED) == 0)
			return -1;
		worker = (unsigned)__builtin_ctzll(word);
		/* M2, with M3 of wf_idle_unpark_self: one of the two clears the bit (I1). */
	} while (!wf_u64_cas(&idle->word, &word, (word & ~wf_idle_bit(worker)) + WF_IDLE_SEARCHER));
	return (int)worker;
}

/* Any; D2 and D3. True: the caller sends that worker a DIRECTED token. */
static inline bool wf_idle_claim_one(struct wf_idle *idle, unsigned worker)
{
	uint64_t bit = wf_idle_bit(worker);

	if (WF_PLANTED(idle_directed_asks_searchers)
		&& wf_idle_searchers(wf_u64_load_seq_cst(&idle->word)) > 0)
		return false;
	/* L2, with M1: as L1. */
	if ((wf_u64_load_seq_cst(&idle->word) & bit) == 0)
		return false;
	/* M4, with M3: as M2. */
	return (wf_u64_fetch_and(&idle->word, ~bit) & bit) != 0;
}

/*
 * Any; a wake-all. The bit of every worker the caller must send a DIRECTED token to. The searchers
 * stay as they are: a worker woken by it is none.
 */
static inline uint64_t wf_idle_claim_all(struct wf_idle *idle)
{
	/* M5, with M3: as M2. */
	return wf_u64_fetch_and(&idle->word, ~WF_IDLE_PARKED) & WF_IDLE_PARKED;
}

/* A worker; S1. False: there are searchers_max already. */
static inline bool wf_idle_search_begin(struct wf_idle *idle, unsigned searchers_max)
{
	uint64_t word = wf_u64_load_relaxed(&idle->word);

	do {
		if (wf_idle_searchers(word) >= searchers_max)
			return false;
		/* M6, with L1: publishers may rely on us from here on. */
	} while (!wf_u64_cas(&idle->word, &word, word + WF_IDLE_SEARCHER));
	return true;
}

/* A searcher; S3. True: it was the last one, and if it has found work it wakes one more. */
static inline bool wf_idle_search_end(struct wf_idle *idle)
{
	/* M7, with L1 (pair 2) and M1 (loot published before this is seen by a later parker). */
	uint64_t word = wf_u64_fetch_add(&idle->word, -WF_IDLE_SEARCHER);

	WF_ASSERT(wf_idle_searchers(word) > 0);
	return wf_idle_searchers(word) == 1 && !WF_PLANTED(idle_last_searcher_silent);
}

/* The worker itself; P1. Returns whether it was the last searcher. Then P2: the re-check. */
static inline bool wf_idle_park(struct wf_idle *idle, unsigned worker, bool searching)
{
	/*
	 * M1, with L1 and L2. One addition does both: the bit is clear (I1), so nothing carries,
	 * and the count is at least 1 (I2), so nothing borrows.
	 */
	uint64_t step = wf_idle_bit(worker) - (searching ? WF_IDLE_SEARCHER : 0);
	uint64_t word;

	if (WF_PLANTED(idle_park_keeps_search))
		step = wf_idle_bit(worker);
	if (WF_PLANTED(idle_park_by_store)) {
		word = wf_u64_load_relaxed(&idle->word);
		wf_u64_store_release(&idle->word, word + step);
	} else {
		word = wf_u64_fetch_add(&idle->word, step);
	}
	WF_ASSERT((word & wf_idle_bit(worker)) == 0);
	WF_ASSERT(!searching || wf_idle_searchers(word) > 0);
	return searching && wf_idle_searchers(word) == 1;
}

/*
 * The worker itself; P4. True: awake, and nobody owes a token. False: a waker has claimed this
 * worker, and its token comes: the caller waits for it and consumes it before it parks again.
 */
static inline bool wf_idle_unpark_self(struct wf_idle *idle, unsigned worker)
{
	uint64_t bit = wf_idle_bit(worker);

	/* M3, with M2, M4 and M5. A bit found clear needs no order: the token brings it. */
	return (wf_u64_load_relaxed(&idle->word) & bit) != 0 &&
	       (wf_u64_fetch_and(&idle->word, ~bit) & bit) != 0;
}

/*
 * Any. Whether every worker is parked now: the caller, parked itself, may be the last one awake,
 * and looks whether the runtime has anything left to do.
 */
static inline bool wf_idle_all_parked(struct wf_idle *idle)
{
	/*
	 * L3, with M1: of workers that park at once, at least the last in the word's order sees
	 * all.
	 */
	return (wf_u64_load_seq_cst(&idle->word) & WF_IDLE_PARKED) == idle->workers_mask;
}

/* Any, relaxed: for metrics, dumps and the monitor. */
static inline uint64_t wf_idle_parked_mask(const struct wf_idle *idle)
{
	return wf_u64_load_relaxed(&idle->word) & WF_IDLE_PARKED;
}

static inline unsigned wf_idle_searcher_count(const struct wf_idle *idle)
{
	return wf_idle_searchers(wf_u64_load_relaxed(&idle->word));
}

/* Any. Prints the first thing that cannot be, at any time. */
WF_UNUSED WF_COLD static bool wf_idle_valid(const struct wf_idle *idle)
{
	uint64_t word = wf_u64_load_relaxed(&idle->word);
	const char *reason = NULL;

	if ((word & WF_IDLE_PARKED & ~idle->workers_mask) != 0)
		reason = "a worker that does not exist is parked";
	else if (wf_idle_searchers(word) > (unsigned)__builtin_popcountll(idle->workers_mask))
		reason = "more searchers than workers";
	else if (word >> 56 != 0)
		reason = "the spare bits are in use";
	if (reason != NULL)
		fprintf(stderr, "weft: idle word %#llx: %s\n", (unsigned long long)word, reason);
	return reason == NULL;
}

#endif
