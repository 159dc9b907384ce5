/*
 * proc.h: the header of a process: 128 bytes, which are its slot in the table, and its states.
 *
 * A header is type-stable: it lives in a table segment that is never moved or freed before the
 * runtime is destroyed, and it is used for a new process only after an RCU grace period. So whoever
 * looked an id up inside a read section may act on the header until the section ends.
 *
 * The state word (`word`): generation 32 | spare 4 | priority 2 | shield 4 | owner 6 | spare 1
 * | flags 11 | phase 4. Only read-modify-writes change it while others may (everything from
 * RESERVED to DONE).
 *
 *   FREE       no process. The word holds the generation the next one will have
 *   RESERVED   has an id; commit makes it NEW or SUSPENDED, abort FREE
 *   SUSPENDED  waits for the weft_wake() that starts it
 *   NEW        queued for its first run, on no worker in particular (but PLACED ones); a movable
 *              task also during that run, until it arms something; from there it may go to
 *              NOTIFIED, WAITING or QUEUED
 *   OWNED      sticky, has run: it belongs to worker `owner` for life, and its run state is the
 *              owner's plain field live.run (QUEUED, RUNNING, NOTIFIED, WAITING)
 *   QUEUED, RUNNING, NOTIFIED, WAITING   the same states of a movable process, kept in the word
 *   DONE       has ended, not yet joined
 *
 *         reserve         commit        first run (sticky)       end           join, detach
 *   FREE ────────► RESERVED ─────► NEW ────────────────────► OWNED ────► DONE ──────────────► FREE
 *                     │ commit      ▲ │                                   ▲         generation + 1
 *                     ▼        wake │ │ first run (movable)               │
 *                 SUSPENDED ────────┘ ▼            wake                   │ end: also of NOTIFIED,
 *                                  RUNNING ──────────────► NOTIFIED       │ and of NEW (a task)
 *                                   ▲ │ └─────────────────────────────────┘
 *                               run │ │ waits                 │ waits
 *                                   │ ▼           wake        ▼
 *                                   │ WAITING ────────────► QUEUED
 *                                   └─────────────────────────┘
 *
 * A spawn goes from FREE to NEW or SUSPENDED at once. Who is movable and has yielded stays RUNNING,
 * in the queue; NOTIFIED there, it is RUNNING again with its next run.
 *
 * A task that waits for its children also goes from WAITING to RUNNING: its worker's next pick.
 *
 * Flags of the word: CANCELLED, DETACHED, TOKEN (a weft_wake() not yet consumed: of processes that
 * have not run, and of movable ones), JOINER (somebody waits in weft_join), MOVABLE, ANCHORED (a
 * movable process waits with its timer in the owner's shard of the shared wheel: core/timers.h),
 * PLACED (before its first run: belongs to worker `owner`), COMMITTING (a reservation that one
 * caller of commit is filling in), TASK (its body is a poll function, which runs on its worker's
 * stack, not a fiber), SCOPED (a child of a scope: `joiner` is that scope's), FAILED (it ended by
 * weft_fail()).
 *
 * `shield` counts the nested shields that hold cancellation off; `priority` is the class it is
 * queued in.
 *
 * The remote word (`remote`) of a sticky process is written by those who wake it from elsewhere,
 * and tells where `inbox` is: core/README.md, "Wake".
 */
#ifndef WF_CORE_PROC_H
#define WF_CORE_PROC_H

#include <weft.h>

#include "sync/atomic.h"
#include "sync/injector.h"
#include "timer/wheel.h"

struct wf_cleanup;
struct wf_fiber;
struct wf_locals;

enum wf_phase {
	WF_FREE,
	WF_RESERVED,
	WF_SUSPENDED,
	WF_NEW,
	WF_QUEUED,
	WF_RUNNING,
	WF_NOTIFIED,
	WF_WAITING,
	WF_OWNED,
	WF_DONE,
	WF_PHASE_COUNT,
};

#define WF_WORD_PHASE     ((uint64_t)0xf)
#define WF_WORD_CANCELLED ((uint64_t)1 << 4)
#define WF_WORD_DETACHED  ((uint64_t)1 << 5)
#define WF_WORD_TOKEN     ((uint64_t)1 << 6)
#define WF_WORD_JOINER    ((uint64_t)1 << 7)
#define WF_WORD_MOVABLE   ((uint64_t)1 << 8)
#define WF_WORD_ANCHORED  ((uint64_t)1 << 9)
#define WF_WORD_PLACED    ((uint64_t)1 << 10)
#define WF_WORD_COMMITTING ((uint64_t)1 << 11)
#define WF_WORD_TASK      ((uint64_t)1 << 12)
#define WF_WORD_SCOPED    ((uint64_t)1 << 13)
#define WF_WORD_FAILED    ((uint64_t)1 << 14)
#define WF_WORD_OWNER_SHIFT 16
#define WF_WORD_OWNER     ((uint64_t)0x3f << WF_WORD_OWNER_SHIFT)
#define WF_WORD_SHIELD_SHIFT 22
#define WF_WORD_SHIELD    ((uint64_t)0xf << WF_WORD_SHIELD_SHIFT)
#define WF_WORD_PRIORITY_SHIFT 26
#define WF_WORD_PRIORITY  ((uint64_t)3 << WF_WORD_PRIORITY_SHIFT)
#define WF_WORD_GENERATION_SHIFT 32

/* The remote word. */
enum {
	WF_REMOTE_NONE = 0,    /* `inbox` is in no inbox */
	WF_REMOTE_PENDING = 1, /* in the owner's inbox, and a wake is due */
	WF_REMOTE_LINKED = 2,  /* in the owner's inbox, its wake was served by a run meanwhile */
	WF_REMOTE_PLACE = 3,   /* mask of the three */
	WF_REMOTE_TOKEN = 4,   /* a weft_wake() not yet consumed by weft_park() */
};

/* Who won a wait; low byte of the claim word, whose upper half is the number of the wait. */
enum wf_winner {
	WF_WINNER_NONE,
	WF_WINNER_PEER,
	WF_WINNER_DEADLINE,
	WF_WINNER_CANCEL,
};

/* Rarely used parts, made when asked for. Freed with the header. */
struct wf_ext {
	char name[32];
	void (*arg_dtor)(void *arg);
	void *arg;
	size_t stack_bytes; /* 0: default */
	struct wf_stack *stack; /* WEFT_STACK_NOW: taken by spawn */
	void *account;      /* room for account hooks */
	uint64_t trace;     /* weft_trace_word(); inherited */
	struct wf_cleanup *cleanups; /* a task's; a fiber's are in its control block */
	struct wf_locals *locals;    /* core/local.c; NULL: no value was set */
	bool locals_over;            /* its destructors have been called */
	char message[96];   /* weft_fail()'s */
};

struct wf_proc {
	/*
	 * Line 0: read and written by whoever wakes, joins, cancels. And by who queues the process
	 * (run.next), who has looked at `word` just before: so a list costs no line of its own.
	 */
	wf_atomic_u64 word;
	wf_atomic_u32 remote;
	uint32_t index;       /* constant: the slot's place in the table */
	union {
		struct wf_node inbox; /* in the owner's inbox, but for batch_tail; see `remote` */
		struct {
			unsigned char before_claim[offsetof(struct wf_node, batch_tail)];
			wf_atomic_u64 claim; /* {wait number 32 | winner}; goes on over reuse */
		};
	};
	wf_atomic_u64 joiner; /* {wait number 32 | runtime 6 | index 26} of who joins; 0: nobody */
	union {
		/*
		 * Link in a list, a chain of free headers: `next` alone, the end of line 0. In the
		 * injector: all of it, at the expense of `timer`.
		 */
		struct wf_node run;

		/* Line 1: the runner's, and the owner's while it waits. */
		struct {
			unsigned char before_timer[sizeof(struct wf_node *)];
			struct wf_timer timer; /* while live.armed; live has `user`'s bytes */
		};
		struct {
			unsigned char before_live[sizeof(struct wf_node *)
				+ offsetof(struct wf_timer, user_word)];
			/*
			 * run: the enum wf_phase of a sticky process; read by dump. armed: `timer`
			 * is on the wheel of the worker it parked on. timed_out: it has fired, of
			 * movable ones. until: of a sticky one: its wait ends when `timer` fires.
			 * token: a weft_wake() by the owner, not yet consumed. Of tasks: open: the
			 * last wait may still be claimed; yielded: the next weft_yield() returns.
			 */
			struct {
				uint8_t run;
				bool armed;
				bool timed_out;
				bool token;
				bool open;
				bool yielded;
				bool until;
				struct wf_fiber *fiber; /* of a fiber that has run */
				int failure; /* with FAILED in the word: weft_fail()'s code */
			} live;
		};
		struct {
			unsigned char before_fresh[sizeof(struct wf_node *)
				+ sizeof(struct wf_timer)];
			union {
				struct {
					weft_fn fn;
					void *arg;
				} fresh; /* before a fiber's first run; all a task's life */
				int result; /* once it has ended */
			};
		};
	};
	union {
		struct wf_ext *ext;
		wf_atomic_ptr ext_shared; /* the same, for who is not its runner: wf_proc_name() */
	};
} WF_ALIGNED(WF_FALSE_SHARING);

static_assert((WF_WORD_PRIORITY >> WF_WORD_PRIORITY_SHIFT) >= WEFT_PRIORITY_LOW,
	"two bits hold a priority");
static_assert(sizeof(struct wf_proc) == 128, "a process header is two lines");
static_assert(offsetof(struct wf_proc, timer) == 64, "the runner's line starts at 64");
static_assert(offsetof(struct wf_node, next) == 0, "a list's link is in line 0, before the timer");
static_assert(offsetof(struct wf_proc, live)
		>= offsetof(struct wf_proc, run) + sizeof(struct wf_node),
	"beside the run link");
static_assert(offsetof(struct wf_proc, live.fiber) == offsetof(struct wf_proc, fresh),
	"of what a task keeps, live has nothing but its failure, which ends its need of it");

WF_INLINE enum wf_phase wf_word_phase(uint64_t word)
{
	return (enum wf_phase)(word & WF_WORD_PHASE);
}

WF_INLINE unsigned wf_word_owner(uint64_t word)
{
	return (unsigned)((word & WF_WORD_OWNER) >> WF_WORD_OWNER_SHIFT);
}

WF_INLINE enum weft_priority wf_word_priority(uint64_t word)
{
	return (enum weft_priority)((word & WF_WORD_PRIORITY) >> WF_WORD_PRIORITY_SHIFT);
}

/* A sticky fiber that has run, of the normal class: what most are, told by one comparison. */
WF_INLINE bool wf_word_is_plain(uint64_t word)
{
	return (word & (WF_WORD_PHASE | WF_WORD_PRIORITY | WF_WORD_TASK)) == WF_OWNED;
}

WF_INLINE uint32_t wf_word_generation(uint64_t word)
{
	return (uint32_t)(word >> WF_WORD_GENERATION_SHIFT);
}

/* X3: whether the process is to be told of a cancellation: there is one, and no shield. */
WF_INLINE bool wf_word_is_cancelled(uint64_t word)
{
	if (WF_PLANTED(shield_ignored))
		return word & WF_WORD_CANCELLED;
	return (word & (WF_WORD_CANCELLED | WF_WORD_SHIELD)) == WF_WORD_CANCELLED;
}

WF_INLINE uint64_t wf_word_with_phase(uint64_t word, enum wf_phase phase)
{
	return (word & ~WF_WORD_PHASE) | (uint64_t)phase;
}

/* What a finished or aborted process leaves behind: the next generation, free. */
WF_INLINE uint64_t wf_word_freed(uint64_t word)
{
	return ((uint64_t)wf_word_generation(word) + 1) << WF_WORD_GENERATION_SHIFT;
}

/* Ids: generation 32 | runtime 6 | index 26. */
#define WF_INDEX_BITS   26
#define WF_INDEX_MASK   (((uint32_t)1 << WF_INDEX_BITS) - 1)
#define WF_RUNTIMES_MAX 64

WF_INLINE weft_pid wf_pid_make(uint32_t generation, unsigned runtime, uint32_t index)
{
	weft_pid pid = { (uint64_t)generation << 32 | (uint64_t)runtime << WF_INDEX_BITS | index };

	return pid;
}

WF_INLINE uint32_t wf_pid_generation(weft_pid pid)
{
	return (uint32_t)(pid.raw >> 32);
}

WF_INLINE unsigned wf_pid_runtime(weft_pid pid)
{
	return (unsigned)(pid.raw >> WF_INDEX_BITS) & (WF_RUNTIMES_MAX - 1);
}

WF_INLINE uint32_t wf_pid_index(weft_pid pid)
{
	return (uint32_t)pid.raw & WF_INDEX_MASK;
}

const char *wf_phase_name(enum wf_phase phase);

/*
 * Its ext; made if it has none yet (NULL: no memory). By who makes the process, or who runs it.
 */
struct wf_ext *wf_proc_ext(struct weft_rt *rt, struct wf_proc *p);

/* Its name, or "". Any thread in a read section. */
const char *wf_proc_name(struct wf_proc *p);

/*
 * True if the table of moves allows it. Simulations assert it at each change of a word
 * (test/sim/invariants.c); elsewhere it would cost each compare-and-swap a look.
 */
bool wf_phase_move_ok(enum wf_phase from, enum wf_phase to);

#endif
