/*
 * remote.pml: the remote wake of a sticky process (W1 to W7 in core/README.md), the end of the
 * process, and the reuse of its header.
 *
 * Goal: no wake is lost, the link is never in an inbox twice, what lies behind it in the inbox is
 * not lost, and nothing runs after its end. One header serves two processes, one after the other.
 * Each ends when it has read what both wakers have written for it; each waker writes, then wakes,
 * so a lost wake leaves the owner waiting: an invalid end state. A wake may come at any time: before
 * the first run, during the drain, after the end (the process may see what was written before it
 * is woken for it). One other message goes through the same inbox.
 *
 * What the wakers write goes through a store buffer of one entry, which an RMW empties: so it shows
 * that W3 must be an RMW even where it changes nothing. The owner's stores to the remote word are
 * buffered too, where a variant has any: as it is every change is an RMW. All else is sequentially
 * consistent. Bounds: 2 wakers, 2 processes, 1 wake of each by each, 1 message.
 *
 * Each macro below takes one piece out; run.py shows that the model then fails:
 *	EVERYBODY_PUSHES    W2: not only the winner of NONE → PENDING pushes
 *	LINKED_STAYS        W3: LINKED is left as it is
 *	LOOK_AT_PENDING     W3: PENDING is left as it is, by a load
 *	SERVE_BY_STORE      W5: LINKED is stored
 *	LINK_READ_LATE      W6: the node's link is read after NONE
 *	NONE_BY_STORE       W6: the place is loaded, then NONE stored
 *	WAKE_THE_ENDED      W7: the drain does not look at the state word
 *	REUSE_WHILE_LINKED  W7: the header is used again with its link in the inbox
 *	NO_GRACE_PERIOD     the header is used again while a waker still holds it
 */
#define WAKERS    2
#define PROCESSES 2

/* The remote word's places. */
#define NONE    0
#define PENDING 1
#define LINKED  2

/* The owner's run state. */
#define WAITING 0
#define QUEUED  1

/* Nodes of the inbox; 0 ends a list. */
#define LINK    1
#define MESSAGE 2

byte remote = NONE;
byte generation = 1;          /* of the state word; processes count from 1 */
bool owned = true;            /* the word's phase: OWNED, or FREE */
byte run_state = QUEUED;

byte head, next[3];           /* the inbox: a stack */
bool in_inbox;                /* LINK is in it, or with the drain */
bool told;                    /* MESSAGE was handled */

byte written[WAKERS];         /* for which process; in memory */
bool buffered[WAKERS];        /* … and one store on its way there */
bool owner_buffered;          /* a store of LINKED or NONE to `remote` */
byte owner_store;

bool reading[WAKERS];         /* in a read section */
bool retired, grace_over;

inline push(node)
{
	atomic { next[node] = head; head = node }
}

/* Empties the store buffers, whenever it likes. */
proctype memory()
{
end:
	do
	:: atomic { buffered[0] -> buffered[0] = false; written[0]++ }
	:: atomic { buffered[1] -> buffered[1] = false; written[1]++ }
	:: atomic { owner_buffered -> owner_buffered = false; remote = owner_store }
	od
}

proctype waker(byte me)
{
	byte process = 1, old;

	do
	:: process <= PROCESSES ->
		generation >= process && (owned || generation > process); /* spawned: its id is known */
		buffered[me] = true;
		atomic { reading[me] = true };
		if
		:: generation == process && owned ->
again:
			old = remote; /* W1 */
#ifdef LINKED_STAYS
			if
			:: old == LINKED -> !buffered[me]; goto out
			:: else -> skip
			fi;
#endif
#ifdef LOOK_AT_PENDING
			if
			:: old == PENDING -> goto out
			:: else -> skip
			fi;
#endif
			/* W2, W3 */
			atomic {
				!buffered[me];
				if
				:: remote == old -> remote = PENDING
				:: else -> goto again
				fi
			}
			if
#ifdef EVERYBODY_PUSHES
			:: old != PENDING ->
#else
			:: old == NONE ->
#endif
				atomic {
					assert(!in_inbox);
					in_inbox = true;
					push(LINK)
				}
			:: else -> skip
			fi
		:: else -> skip
		fi;
out:
		atomic { reading[me] = false };
		process++
	:: else -> break
	od;
	!buffered[me]
}

proctype sender()
{
	push(MESSAGE)
}

/* W6, W7: LINK came out of the inbox. */
inline drained()
{
	in_inbox = false; /* for the check only: from the RMW on it may be pushed again */
#ifdef NONE_BY_STORE
	old = remote;
	remote = NONE;
#else
	atomic { !owner_buffered; old = remote; remote = NONE };
#endif
	if
#ifdef WAKE_THE_ENDED
	:: old == PENDING && run_state == WAITING -> run_state = QUEUED
#else
	:: old == PENDING && owned && run_state == WAITING -> run_state = QUEUED
#endif
	:: else -> skip
	fi
}

inline drain()
{
	atomic { list = head; head = 0 };
	do
	:: list != 0 ->
		node = list;
#ifndef LINK_READ_LATE
		list = next[node];
#endif
		if
		:: node == LINK -> drained()
		:: else -> told = true
		fi;
#ifdef LINK_READ_LATE
		list = next[node];
#endif
		node = 0
	:: else -> break
	od
}

/* W5, then the run: it has seen everything, and ends; or waits. */
inline run_process()
{
	assert(owned);
#ifdef SERVE_BY_STORE
	if
	:: remote == PENDING && !owner_buffered -> owner_store = LINKED; owner_buffered = true
	:: else -> skip
	fi;
#else
	atomic {
		if
		:: remote == PENDING -> remote = LINKED
		:: else -> skip
		fi
	}
#endif
	seen = (written[0] >= generation);
	if
	:: seen && written[1] >= generation ->
		run_state = WAITING;
		atomic { !owner_buffered; owned = false; generation++ };
		retired = true
	:: else -> run_state = WAITING
	fi;
	seen = false
}

/* Every waker has been outside a read section since the process was given up. */
proctype reclaimer()
{
	retired;
#ifndef NO_GRACE_PERIOD
	!reading[0];
	!reading[1];
#endif
	grace_over = true
}

proctype owner()
{
	byte list, node, old;
	bool seen;

	do
	:: run_state == QUEUED -> run_process()
	:: head != 0 -> drain()
#ifdef REUSE_WHILE_LINKED
	:: grace_over && generation == PROCESSES && !owned ->
#else
	:: grace_over && generation == PROCESSES && !owned && remote == NONE ->
#endif
		remote = NONE;
		run_state = QUEUED;
		owned = true
	:: generation > PROCESSES && head == 0 && _nr_pr == 3 -> break
	od;
	/* Only memory() and init are left: all wakes are over. */
	assert(told && remote == NONE && !in_inbox)
}

init {
	atomic {
		run memory();
		run owner();
		run waker(0);
		run waker(1);
		run sender();
		run reclaimer()
	}
}
