/*
 * close.pml: the close of a descriptor beside operations on it, and the reuse of its number: O1 to
 * O6 and C1 to C4 in io/fd.h.
 *
 * Goal: each use of the number ends by one close(2), made by the last to leave; no operation, and
 * no shutdown(2), touches the number after that, also when the kernel has given it to somebody else
 * at once; every operation returns (one that sleeps for ever is an invalid end state); the new use
 * is not harmed by the old one's end, nor by a close that is meant for the old one.
 *
 * Two operations begin at any time, on either use: each tries, waits or is done. One thread closes
 * the number, then once more that use of it, by generation. As soon as the kernel has the number
 * back another thread gets it, resets the entry, uses it once, and closes it in its turn. The
 * entry's lock is an atomic step; sequentially consistent: every change of the entry's word is an
 * RMW. Readiness and drivers are left out: a waiter is woken by an event at any time, or by the
 * close; so is the adoption of the second use by an operation meant for the first, the host's
 * mistake. Bounds: 2 operations of 2 tries each, 3 closes, 2 uses of the number.
 *
 * Each macro below takes one piece out; run.py shows that the model then fails:
 *	ADMIT_CLOSING       O1: an operation begins on a CLOSING entry
 *	COUNT_BY_STORE      O1: the operation is added by a load and a store
 *	PARK_UNSEEN         O5: the waiter does not look at the state under the lock
 *	LAST_LEAVES         O6: the last to leave does not close
 *	CLOSE_AT_ONCE       C1: close(2) although operations are in flight
 *	CLOSE_ANY_USE       C1: the closer does not compare the generation
 *	CLOSE_TWICE         C1: a second closer takes CLOSING for OPEN
 *	CLOSER_NOT_COUNTED  C2: the closer does not count as an operation
 *	NOBODY_WOKEN        C2: the waiters are left where they are
 *	FREE_FIRST          C4: the entry is FREE before close(2)
 *	FREE_BY_STORE       C4: FREE is stored, though a reset may have been faster
 *	SAME_GENERATION     the reset, and FREE, keep the old use's generation
 */
#define FREE    0
#define OPEN    1
#define CLOSING 2

/* The entry. */
byte state = OPEN, operations, generation = 1;
byte waiters;            /* a set: who has left its name */
bool woken[2];

/* The kernel: which use the number is, 0 if it is free; how often each was closed. */
byte file = 1;
byte uses = 1;
byte closed[3];

#define IN_CLOSE (state == CLOSING && operations == 0)

/* C4. */
inline finish(which)
{
#ifdef FREE_FIRST
	atomic { state = FREE; generation++ };
#endif
	atomic {
		assert(file == which && waiters == 0);
		closed[which]++;
		file = 0
	};
#ifndef FREE_FIRST
#ifdef FREE_BY_STORE
	atomic { state = FREE; operations = 0; generation++ }
#else
	atomic {
		if
		:: IN_CLOSE && generation == sample ->
			state = FREE;
#ifndef SAME_GENERATION
			generation++
#endif
		:: else -> skip
		fi
	}
#endif
#endif
}

/* O6, with what was sampled at the beginning. */
inline leave(which)
{
	atomic {
		last = false;
		if
		:: generation == sample ->
			operations--;
			last = IN_CLOSE
		:: else -> skip /* the host closed it under us: not here */
		fi
	};
#ifndef LAST_LEAVES
	if
	:: last -> last = false; finish(which)
	:: else -> skip
	fi
#endif
}

proctype operation(byte me)
{
	byte mine, sample, tries, value;
	bool last;

	/* O1. `mine` is for the checks: what the number was then. */
	if
#ifdef COUNT_BY_STORE
	:: state == OPEN -> value = operations;
		atomic { operations = value + 1; mine = file; sample = generation }
#else
#ifdef ADMIT_CLOSING
	:: atomic { state != FREE ->
#else
	:: atomic { state == OPEN ->
#endif
			operations++; mine = file; sample = generation }
#endif
	:: atomic { state == CLOSING && operations > 0 -> goto out } /* -ECANCELED */
	:: atomic { state == FREE && file == 1 ->
			state = OPEN; operations++; mine = 1; sample = generation } /* adopted */
	:: atomic { state == FREE && file != 1 -> goto out }         /* -EBADF */
	fi;
	do
	:: tries < 2 ->
		/* O3 */
		assert(file == mine);
		tries++;
		if
		:: break
		:: skip /* O4: EAGAIN */
		fi;
		/* O5 */
		atomic {
			if
#ifndef PARK_UNSEEN
			:: state == CLOSING -> break
#endif
			:: generation != sample -> break
			:: else -> waiters = waiters | (1 << me); woken[me] = false
			fi
		};
		/* The sleep: a claim by an event, by the close; never by itself. */
		if
		:: woken[me]
		:: atomic { state == OPEN && generation == sample && waiters & (1 << me) ->
				waiters = waiters & ~(1 << me) }
		fi;
		/* The next sample. */
		if
		:: state == CLOSING || generation != sample -> break
		:: else -> skip
		fi
	:: else -> break
	od;
	leave(mine);
out:
	skip
}

/* weft_close() of one use of the number, 0: of any. */
inline close_number(meant)
{
	which = 0;
	in_flight = false;
	do
#ifdef CLOSE_TWICE
	:: atomic { skip ->
#else
	:: atomic { !IN_CLOSE -> /* else it waits that out */
#endif
			/* C1 */
			if
#ifndef CLOSE_ANY_USE
			:: meant != 0 && generation != meant -> goto refused
#endif
#ifndef CLOSE_TWICE
			:: state == CLOSING -> goto refused
#endif
			:: state == FREE && file == 0 -> goto refused
			:: else ->
				which = file;
				sample = generation;
				state = CLOSING;
				in_flight = (operations > 0);
#if !defined(CLOSER_NOT_COUNTED) && !defined(CLOSE_AT_ONCE)
				if
				:: in_flight -> operations++
				:: else -> skip
				fi
#endif
			fi
		};
		break
	od;
	if
#ifndef CLOSE_AT_ONCE
	:: in_flight ->
		/* C2 */
#ifndef NOBODY_WOKEN
		atomic {
			woken[0] = woken[0] || (waiters & 1);
			woken[1] = woken[1] || (waiters & 2);
			waiters = 0
		};
#endif
		/* C3 */
		assert(file == which);
#ifndef CLOSER_NOT_COUNTED
		leave(which)
#endif
	:: else -> finish(which)
#else
	:: skip -> finish(which)
#endif
	fi
}

/* By the number, then (a destructor) the first use of it: refused, it is being closed or is. */
proctype closer()
{
	byte which, sample;
	bool in_flight, last;

	close_number(0);
	close_number(1);
refused:
	skip
}

/* The number comes back: a new use, by a call of Weft's that made it. */
proctype opener()
{
	byte which, sample, own;
	bool in_flight, last;

	atomic { file == 0 -> uses++; file = uses };
	/* The reset. */
	atomic {
		if
		:: state == FREE || IN_CLOSE ->
			state = OPEN;
#ifndef SAME_GENERATION
			generation++
#endif
		:: else -> assert(false)
		fi;
		own = generation
	};
	/* An operation of its own, then its close. */
	atomic {
		assert(state == OPEN && generation == own);
		operations++;
		sample = own
	};
	assert(file == 2);
	leave(2);
	close_number(own);
refused:
	assert(state != OPEN || generation != own)
}

init {
	atomic {
		run operation(0);
		run operation(1);
		run closer();
		run opener()
	}
	_nr_pr == 1;
	assert(closed[1] == 1 && closed[2] == 1 && file == 0);
	assert(state == FREE && operations == 0 && waiters == 0)
}
