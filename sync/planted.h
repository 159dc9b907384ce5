/*
 * planted.h: bugs that can be switched on, to show that the simulator finds their kind.
 *
 * WF_PLANTED(name) is false, a constant, everywhere but in sim builds: production code is as if it
 * were not there. In sim builds (test/sim/) one bug at a time may be chosen; each takes one piece
 * of a protocol away. The place that uses a name says which piece; a simulation named after the bug
 * shows in how many schedules it is found.
 */
#ifndef WF_SYNC_PLANTED_H
#define WF_SYNC_PLANTED_H

#include "sync/check.h"

#if defined(WF_ATOMICS_SIM)

enum wf_planted {
	WF_PLANTED_nothing,
	/* sync/deque.h */
	WF_PLANTED_deque_last_item_without_cas,  /* lifo: the owner just takes the last item */
	WF_PLANTED_deque_pop_without_store_load, /* lifo: bottom is lowered by a plain store */
	WF_PLANTED_deque_pop_by_store,           /* fifo: the owner takes what a thief has */
	WF_PLANTED_deque_overflow_retracts,      /* fifo: the owner takes bottom back */
	WF_PLANTED_deque_publish_without_rmw,
	/* sync/injector.h */
	WF_PLANTED_injector_grab_clears_closed,
	WF_PLANTED_injector_push_ignores_closed,
	/* sync/idle.h */
	WF_PLANTED_idle_park_by_store,           /* P1 without the RMW's StoreLoad order */
	WF_PLANTED_idle_park_keeps_search,       /* P1: who parks is still counted */
	WF_PLANTED_idle_last_searcher_silent,    /* S3 without "the last one wakes one more" */
	WF_PLANTED_idle_directed_asks_searchers, /* D2 as if any searcher would do */
	/* sync/spinlock.h */
	WF_PLANTED_spinlock_unlock_by_store,
	/* timer/ */
	WF_PLANTED_shared_publishes_by_store, /* I1 without the RMW's order */
	WF_PLANTED_shared_cancel_races_fire,  /* N1: decided before the lock is held */
	WF_PLANTED_shared_fires_by_store,     /* F2: a deadline that moves meanwhile is lost */
	WF_PLANTED_shared_done_early,         /* N2: counted as done when it is started */
	WF_PLANTED_shared_resigns_by_store,   /* L5 without the RMW's order */
	WF_PLANTED_clock_cancel_looks_once,     /* `where` is not read again under the lock */
	WF_PLANTED_clock_waiter_is_not_counted, /* so nobody wakes it */
	WF_PLANTED_clock_close_waits_for_nobody,
	WF_PLANTED_clock_last_release_tells_nobody,
	/* core/ */
	WF_PLANTED_wake_drain_by_store,    /* W6: NONE is stored, not exchanged */
	WF_PLANTED_wake_lost_when_pending, /* W3: LINKED stays LINKED */
	WF_PLANTED_find_any_generation,    /* an old id finds the header's next process */
	WF_PLANTED_join_claims_any_wait,   /* C3: the number of the wait is not compared */
	WF_PLANTED_spawn_ignores_close,    /* N4: the phase is not read again */
	WF_PLANTED_end_before_sweeps,      /* S3: the runtime ends although somebody sweeps */
	WF_PLANTED_park_without_recheck,   /* P3 */
	WF_PLANTED_leader_looks_once,      /* L4 */
	WF_PLANTED_virtual_looks_once,     /* not again at the idle word and the parks' count */
	WF_PLANTED_virtual_ignores_holds,  /* a look and what comes from outside overlap */
	WF_PLANTED_virtual_ignores_jobs,   /* blocking work does not hold time */
	WF_PLANTED_virtual_forgets_askers, /* who has asked while somebody was at it */
	WF_PLANTED_insert_wakes_nobody,    /* I2: the leader sleeps on */
	WF_PLANTED_park_without_leader,    /* L6 */
	WF_PLANTED_resign_tells_nobody,    /* L5: and nobody leads */
	WF_PLANTED_timer_tells_early,      /* who waits for a batch: before it counts */
	WF_PLANTED_timers_closed_late,     /* after the runtime has left the registry */
	WF_PLANTED_park_arms_main_only,    /* P1: those beside it are left as they are */
	WF_PLANTED_park_ignores_retry,     /* P1: of those beside the main driver */
	WF_PLANTED_park_deadline_of_main,  /* P4: the others' deadlines do not count */
	WF_PLANTED_search_ends_after_run,  /* a searcher runs what it picked while it is counted */
	WF_PLANTED_loot_into_ring,         /* all of it, for the next thief */
	WF_PLANTED_boot_ignores_retry,     /* the calibration waits although arm() said retry */
	WF_PLANTED_wake_queues_again,      /* what is QUEUED already */
	WF_PLANTED_wake_loses_displaced,   /* whom a wake put out of the next slot */
	WF_PLANTED_wake_served_twice,      /* W5: PENDING stays PENDING */
	WF_PLANTED_wake_served_by_store,   /* W5: LINKED is stored, not exchanged */
	WF_PLANTED_queue_starves_normal,   /* no turn of its own while high ones are ready */
	WF_PLANTED_queue_starves_low,
	WF_PLANTED_settle_on_own_stack,    /* W10: by the process, before it has switched away */
	WF_PLANTED_stack_kept,             /* of a process that has ended */
	WF_PLANTED_park_until_tend,        /* for the table's deadline, whatever comes earlier */
	WF_PLANTED_expire_without_advance, /* in some turns */
	WF_PLANTED_retire_without_grace,   /* headers come back at once */
	WF_PLANTED_reuse_while_linked,     /* headers that an inbox still has */
	WF_PLANTED_spawn_keeps_ext,        /* of a process that got no stack */
	WF_PLANTED_spawn_stays_counted,    /* though there was no header */
	WF_PLANTED_wait_numbers_anew,      /* in a header that has come back */
	WF_PLANTED_visit_leaves_section,   /* a foreign thread that has found a process */
	WF_PLANTED_wake_pending_without_rmw,  /* W3: nothing to change, nothing done */
	WF_PLANTED_wake_ignores_anchor,       /* queued, its timer still on the wheel */
	WF_PLANTED_rearm_ignores_earlier,     /* than the deadline of a wait that is over */
	WF_PLANTED_end_leaves_timer,          /* on the wheel, of a wait that is over */
	WF_PLANTED_settle_forgets_notified,   /* W10: RUNNING or NOTIFIED, it is WAITING */
	WF_PLANTED_claim_overwrites_winner,   /* C3: the last one wins, and the first one too */
	WF_PLANTED_park_keeps_token,
	WF_PLANTED_park_leaves_token,         /* P5: the waker's */
	WF_PLANTED_join_misses_end,           /* J2: JOINER is set although it is DONE */
	WF_PLANTED_join_trusts_any_tell,
	WF_PLANTED_shield_ignored,            /* X3: a cancel is told under one too */
	WF_PLANTED_shield_by_store,           /* the word is stored, not changed by an RMW */
	WF_PLANTED_end_leaves_shield,
	WF_PLANTED_cleanup_taken_out_late,    /* Y1: when it has run */
	WF_PLANTED_fail_tells_the_last,
	WF_PLANTED_join_replaces_blindly,     /* J6: without J2's cas, JOINER being set */
	WF_PLANTED_task_keeps_wait,           /* A4: a run does not end the last one's */
	WF_PLANTED_waker_fires_by_load,       /* F2: a load, then a store */
	WF_PLANTED_life_looks_once,           /* E4: not again after ENDING */
	WF_PLANTED_refused_wakes_nobody,
	WF_PLANTED_stop_sweeps_early,         /* S2: before all have acknowledged */
	WF_PLANTED_post_ignores_close,
	WF_PLANTED_blocking_post_ignores_close,
	WF_PLANTED_pool_forgets_job,          /* a thread that was handed one sleeps on */
	WF_PLANTED_pool_keeps_counting,       /* who goes idle is still counted as serving */
	WF_PLANTED_pool_trusts_starts,        /* jobs stand in line behind a thread not yet made */
	WF_PLANTED_table_without_tag,
	WF_PLANTED_withdraw_ignores_uses,     /* G1 */
	WF_PLANTED_signal_goes_to_who_waits,  /* nothing is kept for the others */
	WF_PLANTED_signal_published_late,     /* the lock is let go between look and wait */
	WF_PLANTED_signal_prune_by_place,     /* though others may have taken entries out */
	WF_PLANTED_scope_lists_without_rmw, /* V2: a store, and then a look at the stage */
	WF_PLANTED_scope_spawn_misses_cancel, /* V2: the stage is not looked at again */
	WF_PLANTED_scope_touched_late,        /* V4: by a child that has counted down */
	WF_PLANTED_scope_looks_then_asks,     /* V5: the count is looked at first */
	WF_PLANTED_scope_next_parks_without_look, /* V8 */
	WF_PLANTED_scope_borrows,             /* V10: a spawn does not take back what was asked */
	WF_PLANTED_scope_owner_looks_new,     /* W13: a wake in its first run changes nothing */
	WF_PLANTED_scope_ends_with_owner,     /* V12: a task's end does not wait for children */
	/* io/ */
	WF_PLANTED_fd_miss_forgets_event,     /* O4 clears READ although an event came since */
	WF_PLANTED_fd_parks_without_look,     /* O5 does not look at READ again */
	WF_PLANTED_fd_close_tells_nobody,     /* C2: those that are parked stay so */
	WF_PLANTED_fd_last_leaves_open,       /* C4: whoever ends last does not close */
	WF_PLANTED_mem_room_looks_gone,       /* after each write, and nobody asks to be told */
	WF_PLANTED_mem_space_is_not_told,     /* the sender sleeps on */
	WF_PLANTED_mem_room_is_not_told,      /* who waits for room sleeps on */
	WF_PLANTED_mem_wake_looks_first,      /* Z4: a load, then a store */
	WF_PLANTED_COUNT,
};

extern enum wf_planted wf_planted;

#define WF_PLANTED(name) WF_UNLIKELY(wf_planted == WF_PLANTED_##name)

#else

#define WF_PLANTED(name) 0

#endif

#endif
