/*
 * park.pml: no wake is lost between publishing work and going to sleep: the protocol of
 * sync/idle.h, by its steps, with the searchers, both kinds of wake, and the stop.
 *
 * Goal: whatever the interleaving, everything published is run and everybody ends. A lost wake
 * leaves workers asleep and the stopper waiting: an invalid end state. Two workers steal from each
 * other; ITEMS come in from a foreign thread; one message goes to worker 1's inbox. The first item
 * to run may spawn one on its worker's ring, and then holds that worker until another item has run:
 * work that waits although a worker sleeps is a lost wake too.
 *
 * Sequentially consistent: every step named seq_cst or RMW in the code is one atomic step here, and
 * what lies between two steps is their programs' order. Weaker memory is the simulator's business.
 *
 * Each macro below takes one piece out; run.py shows that the model then fails:
 *	NO_PUSH_CHECK      W2 missing: the producer never looks at the idle word
 *	CHECK_BEFORE_PUSH  W2 before W1
 *	NO_RECHECK         P2 missing
 *	RECHECK_BEFORE_BIT P2 before P1
 *	NO_REFILL_CHECK    G5 of sync/injector.h missing: what was moved into a ring is not told
 *	NO_LAST_SEARCHER   S3 missing: the last searcher wakes nobody
 *	TOKEN_KIND_IGNORED P4: a worker woken by a WORK token forgets that it is counted
 *	DIRECTED_COUNTS    D3 adds a searcher as W3 does
 *	NO_STOP_WAKE       the stop does not wake sleepers
 */
#define WORKERS 2
#define ITEMS   2

#define NONE     0
#define WORK     1
#define DIRECTED 2

bool parked[WORKERS];
byte searchers;      /* with the bits, one word: changed together in atomic steps */
byte token[WORKERS];
byte injector, inbox, ring[WORKERS];
byte spawned;        /* whether the first item has spawned yet */
byte total = ITEMS;
byte done, told; /* items run; messages taken */
bool stop;

/* W2 to W4. */
inline wake_for_work(w)
{
	w = WORKERS;
	atomic {
		if
		:: searchers == 0 && parked[0] -> w = 0
		:: searchers == 0 && !parked[0] && parked[1] -> w = 1
		:: else -> skip
		fi;
		if
		:: w < WORKERS -> parked[w] = false; searchers++
		:: else -> skip
		fi
	}
	if
	:: w < WORKERS -> token[w] = WORK
	:: else -> skip
	fi
}

proctype producer()
{
	byte n = 0, w;

	do
	:: n < ITEMS ->
#ifdef CHECK_BEFORE_PUSH
		wake_for_work(w);
		injector++;
#else
		injector++;              /* W1 */
#ifndef NO_PUSH_CHECK
		wake_for_work(w);
#endif
#endif
		n++
	:: else -> break
	od
}

/* A directed wake: D1 to D3. */
proctype sender()
{
	bool claimed;

	inbox++;
	atomic {
		claimed = parked[1];
		parked[1] = false;
#ifdef DIRECTED_COUNTS
		if
		:: claimed -> searchers++
		:: else -> skip
		fi
#endif
	}
	if
	:: claimed -> token[1] = DIRECTED
	:: else -> skip
	fi
}

proctype stopper()
{
	byte w = 0;
	bool claimed;

	done == total && told == 1;
	stop = true;
#ifndef NO_STOP_WAKE
	do
	:: w < WORKERS ->
		atomic { claimed = parked[w]; parked[w] = false }
		if
		:: claimed -> token[w] = DIRECTED
		:: else -> skip
		fi;
		w++
	:: else -> break
	od
#endif
}

/* S3, after the loot (1 item, to run at once) is in `ring[me]`. */
inline search_end()
{
	if
	:: searching ->
		atomic { searchers--; last = (searchers == 0) };
		searching = false;
#ifndef NO_LAST_SEARCHER
		if
		:: last -> wake_for_work(w)
		:: else -> skip
		fi
#endif
	:: else -> skip
	fi
}

inline look_around()
{
	found = false;
	/* S1 */
	if
	:: !searching -> atomic {
		if
		:: searchers == 0 -> searchers++; searching = true
		:: else -> skip
		fi }
	:: else -> skip
	fi;
	/* S2: the injector by anybody, all of it; the other's ring by searchers, half of it. */
	atomic {
		if
		:: injector > 0 ->
			loot = injector;
			injector = 0;
			injected = true;
			found = true
		:: injector == 0 && searching && ring[1 - me] > 0 ->
			loot = (ring[1 - me] + 1) / 2;
			ring[1 - me] = ring[1 - me] - loot;
			found = true
		:: else -> skip
		fi
	}
	if
	:: found ->
		ring[me] = ring[me] + loot;
#ifndef NO_REFILL_CHECK
		if
		:: injected -> wake_for_work(w)
		:: else -> skip
		fi;
#endif
		search_end();
		loot = 0;
		injected = false
	:: else -> skip
	fi
}

proctype worker(byte me)
{
	bool searching = false, injected = false, found, last, mine, again;
	byte loot = 0, w;

loop:
	/* Run what is ours. */
	mine = false;
	atomic {
		if
		:: me == 1 && inbox > 0 -> inbox--; told++
		:: else -> skip
		fi;
		if
		:: ring[me] > 0 ->
			ring[me]--;
			mine = true;
			again = !spawned;
			spawned = true
		:: else -> skip
		fi
	}
	if
	:: mine ->
		search_end();
		if
		:: again ->
			if
			:: skip
			:: total++;
				ring[me]++; /* wf_deque_publish */
				wake_for_work(w)
			fi;
			done > 0 /* a long run */
		:: else -> skip
		fi;
		done++;
		goto loop
	:: else -> skip
	fi;
	if
	:: stop -> goto end
	:: else -> skip
	fi;
	look_around();
	if
	:: found -> goto loop
	:: else -> skip
	fi;
#ifdef RECHECK_BEFORE_BIT
	again = (injector > 0 || (me == 1 && inbox > 0) || ring[0] > 0 || ring[1] > 0 || stop);
#endif
	/* P1: one step. */
	atomic {
		parked[me] = true;
		if
		:: searching -> searchers--; searching = false
		:: else -> skip
		fi
	}
	/* P2: each load a step of its own. */
#ifdef NO_RECHECK
	again = false;
#endif
#if !defined(NO_RECHECK) && !defined(RECHECK_BEFORE_BIT)
	again = (me == 1 && inbox > 0);
	if :: injector > 0 -> again = true :: else -> skip fi;
	if :: stop -> again = true :: else -> skip fi;
	if :: ring[0] > 0 -> again = true :: else -> skip fi;
	if :: ring[1] > 0 -> again = true :: else -> skip fi;
#endif
	/* P3: the sleep ends by a token. */
	if
	:: again -> skip
	:: else -> token[me] != NONE
	fi;
	/* P4 */
	atomic {
		if
		:: parked[me] -> parked[me] = false; goto loop
		:: else -> skip
		fi
	}
	token[me] != NONE;
#ifdef TOKEN_KIND_IGNORED
	token[me] = NONE;
#else
	atomic {
		searching = (token[me] == WORK);
		token[me] = NONE
	}
#endif
	goto loop;
end:
	search_end()
}

init {
	atomic {
		run producer();
		run sender();
		run stopper();
		run worker(0);
		run worker(1)
	}
	/* At the end: all run, nobody counted. */
	_nr_pr == 1;
	assert(done == total && searchers == 0 && injector == 0 && inbox == 0 && ring[0] == 0 && ring[1] == 0)
}
