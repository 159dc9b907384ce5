/*
 * wait.pml: the claim word {number, winner} of a wait: C1 to C6 and X1, X2 in core/README.md.
 *
 * Goal: each wait is won by one: a peer, the deadline or a cancel; the peer that won it and what
 * the waiter returns agree; a late claim, with the number of a wait that is over, wins nothing,
 * whatever the process (or the next one in the same header) waits for by then; and nobody sleeps
 * for ever after a claim or a cancel: an invalid end state.
 *
 * A process waits twice, the second time perhaps where no peer comes; then it ends, and its header
 * serves another one, which waits once. Two peers take names out of the object, and claim later, on
 * copies; a canceller comes at any time. A wait
 * may have a deadline, or may be given up before the sleep. The wake protocol (remote.pml) is one
 * bit here: a wake gives one more run, not before it. The object's lock is an atomic step.
 * Sequentially consistent: the number travels by that lock, and claims are RMWs. Bounds: 3 waits, 2
 * peers, 1 cancel.
 *
 * Each macro below takes one piece out; run.py shows that the model then fails:
 *	NUMBERS_RESTART    C1: the numbers of a header's next process begin again
 *	PUBLISHED_FIRST    C2: the name is at the object before its number is in the claim word
 *	NUMBER_IGNORED     C3: a peer's claim compares the winner only
 *	CLAIM_BY_STORE     C3: a peer loads the word, then stores it
 *	WAKE_FIRST         C4: the peer wakes, then claims
 *	DEADLINE_BY_STORE  C5: the waiter does not claim for its deadline or cancel, it stores
 *	LOSER_RETURNS      C5: the waiter whose claim failed returns its deadline all the same
 *	NO_END             C6: a wait that is given up is not claimed
 *	CANCEL_AFTER_WAKE  X1, X2: the canceller wakes, then sets the flag
 */
#define WAITS 3

#define NOBODY   0
#define PEER     1
#define DEADLINE 2
#define CANCEL   3

byte number, winner;     /* the claim word: one word, changed in atomic steps */
byte name, name_wait;    /* at the object: the number to claim, 0 none; for the checks: whose */
bool notified;           /* a run is due */
bool cancelled;          /* the flag of the process that has the header now */
byte wait;               /* which one it is: for the checks, never repeated */
byte result[WAITS + 1];  /* what each returned */
byte won[WAITS + 1];     /* by how many peers each was won */
bool all_done;

#define NEXT_PROCESS (wait == WAITS)

proctype peer()
{
	byte wanted, about;
	bool mine, looked;

	do
	:: atomic { name != 0 -> wanted = name; about = name_wait; name = 0; name_wait = 0 };
#ifdef WAKE_FIRST
		notified = true;
#endif
		/* C3 */
#ifdef CLAIM_BY_STORE
		looked = (number == wanted && winner == NOBODY);
#endif
		atomic {
			if
#if defined(NUMBER_IGNORED)
			:: winner == NOBODY -> winner = PEER; mine = true; won[about]++
#elif defined(CLAIM_BY_STORE)
			:: looked -> number = wanted; winner = PEER; mine = true; won[about]++
#else
			:: number == wanted && winner == NOBODY ->
				winner = PEER; mine = true; won[about]++
#endif
			:: else -> skip
			fi
		};
		/* C4 */
#ifndef WAKE_FIRST
		if
		:: mine -> notified = true
		:: else -> skip
		fi;
#endif
		mine = false;
		looked = false;
		wanted = 0;
		about = 0
	:: all_done -> break
	od
}

/* The flag and the generation are in one word: only the first process is cancelled. */
inline set_flag()
{
	atomic {
		if
		:: !NEXT_PROCESS -> cancelled = true
		:: else -> skip
		fi
	}
}

proctype canceller()
{
#ifdef CANCEL_AFTER_WAKE
	notified = true;
	set_flag()
#else
	set_flag();      /* X1 */
	notified = true  /* X2 */
#endif
}

/* C5, C6: the waiter's own claim; r is how the wait has ended. */
inline claim_self(who)
{
#ifdef DEADLINE_BY_STORE
	winner = who;
	r = who
#else
	atomic {
		if
		:: winner == NOBODY -> winner = who; r = who
#ifdef LOSER_RETURNS
		:: else -> r = who
#else
		:: else -> r = winner
#endif
		fi
	}
#endif
}

/* C5 */
inline park()
{
	do
	:: winner == PEER -> r = PEER; break
	:: winner != PEER ->
		if
		:: cancelled -> claim_self(CANCEL); break
		:: !cancelled && late -> claim_self(DEADLINE); break
		:: else -> skip
		fi;
		if
		:: atomic { notified -> notified = false }
		:: has_deadline -> late = true
		fi
	od
}

proctype waiter()
{
	byte r, n;
	bool late, has_deadline;

	do
	:: wait < WAITS ->
		atomic {
			wait++;
			if
			:: NEXT_PROCESS -> cancelled = false; notified = false
			:: else -> skip
			fi
		};
		if
		:: has_deadline = true
		:: has_deadline = false
		fi;
		n = number + 1;
#ifdef NUMBERS_RESTART
		if
		:: NEXT_PROCESS -> n = 1
		:: else -> skip
		fi;
#endif
#ifdef PUBLISHED_FIRST
		atomic { name = n; name_wait = wait };
#endif
		atomic { number = n; winner = NOBODY }; /* C1 */
#ifndef PUBLISHED_FIRST
		if
		:: atomic { name = n; name_wait = wait } /* C2 */
		:: wait == 2 -> skip            /* nobody will come, but the canceller */
		fi;
#endif
		if
		:: park()
		:: has_deadline ->                      /* C6 */
#ifdef NO_END
			r = CANCEL
#else
			claim_self(CANCEL)
#endif
		fi;
		atomic { name = 0; name_wait = 0 };     /* under the lock, unless a peer has */
		result[wait] = r;
		atomic { late = false; r = 0; n = 0; has_deadline = false }
	:: else -> break
	od;
	all_done = true
}

init {
	atomic {
		run waiter();
		run peer();
		run peer();
		run canceller()
	}
	_nr_pr == 1;
	/* As many were won by a peer as returned so: each by its own. */
	assert((result[1] == PEER) == won[1] && (result[2] == PEER) == won[2]);
	assert((result[3] == PEER) == won[3])
}
