/*
 * spawn_stop.pml: spawns against the close of the table, the sweep, and the end of the runtime: N1
 * to N5, S1 to S4 and E1 to E4 in core/README.md.
 *
 * Goal: once the table is closed every process that lives is cancelled, so that the runtime ends,
 * and nothing lives or is queued when it has. Processes here live until they are cancelled, but
 * the first: one that the sweeps miss keeps the runtime alive for ever, an invalid end state.
 * Worker 0 starts with one process, which may spawn another, in the share of the table that worker
 * 1 sweeps; a foreign thread spawns a third, suspended or not. A process that has ended leaves its header FREE (all are
 * detached), and nobody reuses it.
 *
 * Each worker's plain and release stores go through a store buffer, in order, which an RMW empties:
 * N2 and N4 need a fence only if nothing else stands in. The foreign thread has one too. Wakes are
 * not modelled: who is cancelled runs, and so ends. A worker sums up once at any moment, and then
 * whenever it would come out even. Bounds: 2 workers, 3 processes, 1 stop.
 *
 * Each macro below takes one piece out; run.py shows that the model then fails:
 *	SPAWN_WHEN_CLOSED    N1: a worker does not look at its flag
 *	SWEEP_BEFORE_ACKS    S2: each worker sweeps as soon as it has acknowledged itself
 *	ACK_BEFORE_FLAG      S1: acknowledged first, then the flag, with a process run in between
 *	ACK_BY_STORE         S1: the acknowledgement is no RMW, the store buffer stays full
 *	NO_REREAD            N4: a foreign spawn does not look at the phase after it
 *	REREAD_FIRST         N4: it looks before
 *	PUBLISH_BY_RELEASE   N3: its publication is a release store
 *	TAKE_BACK_BY_STORE   N5: what the sweep has started is given up all the same
 *	END_BEFORE_SWEEPS    S3: the runtime may end while a worker still sweeps
 *	COUNT_AFTER          N1: a foreign spawn counts after it has looked at the phase
 *	SUM_ONCE             E3: ENDED at once, nothing is summed after ENDING
 *	CREATED_FIRST        E2: what was created is summed before what was completed, once
 *	COMPLETED_EARLY      E1: an end is counted before the process that it spawned
 */
#define WORKERS 2
#define SLOTS   3 /* the first process, what it spawns, the foreign thread's; n in worker n mod 2's share */
#define FIRST   0
#define CHILD   1
#define FOREIGN 2

/* Phases of the runtime. */
#define DRAINING 0
#define CLOSED   1
#define ENDING   2
#define ENDED    3

/* A process's word. */
#define FREE      0
#define SUSPENDED 1
#define NEW       2 /* or anything else that is alive */
#define CANCELLED 4 /* a bit */

/* Addresses in a store buffer: a slot's word, or a worker's counter. */
#define CREATED   SLOTS
#define COMPLETED (SLOTS + 1)

byte phase = DRAINING;
byte acks, sweeps;
byte word[SLOTS];
bool started[SLOTS];              /* queued for a run: of the foreign one */
byte created[WORKERS + 1], completed[WORKERS + 1];
chan buffer[WORKERS + 1] = [3] of { byte, byte }; /* the last is the foreign thread's */

inline apply(who, address, value)
{
	if
	:: address < SLOTS -> word[address] = value
	:: address == CREATED -> created[who] = value
	:: address == COMPLETED -> completed[who] = value
	fi
}

proctype memory()
{
	byte a, v;
end:
	do
	:: atomic { nempty(buffer[0]) -> buffer[0]?a,v; apply(0, a, v); a = 0; v = 0 }
	:: atomic { nempty(buffer[1]) -> buffer[1]?a,v; apply(1, a, v); a = 0; v = 0 }
	:: atomic { nempty(buffer[2]) -> buffer[2]?a,v; apply(2, a, v); a = 0; v = 0 }
	od
}

/* S0 → S1. Too late if nothing was alive. */
proctype stopper()
{
	atomic {
		if
		:: phase == DRAINING -> phase = CLOSED
		:: phase == ENDED -> skip
		fi
	}
}

/* N1 to N5, by a thread that is no worker: NEW or SUSPENDED. */
proctype foreign()
{
	byte wanted, seen;

	if
	:: wanted = NEW
	:: wanted = SUSPENDED
	fi;
#ifndef COUNT_AFTER
	created[WORKERS]++;                       /* N1: an RMW */
#endif
#ifdef REREAD_FIRST
	seen = phase;
#endif
#ifdef PUBLISH_BY_RELEASE
	buffer[WORKERS]!FOREIGN,wanted;
#else
	word[FOREIGN] = wanted;                   /* N3 */
#endif
#ifdef NO_REREAD
	seen = DRAINING;
#endif
#if !defined(NO_REREAD) && !defined(REREAD_FIRST)
	seen = phase;                             /* N4 */
#endif
#ifdef COUNT_AFTER
	created[WORKERS]++;
#endif
	if
	:: seen < CLOSED -> goto queue
	:: else -> skip
	fi;
	/* N5: taken back, unless the sweep has started it */
#ifdef TAKE_BACK_BY_STORE
	word[FOREIGN] = FREE;
	completed[WORKERS]++;
	goto out;
#else
	atomic {
		empty(buffer[WORKERS]);
		if
		:: (word[FOREIGN] & 3) == wanted -> word[FOREIGN] = FREE
		:: else -> goto out               /* it runs, cancelled */
		fi
	}
	completed[WORKERS]++;
	goto out;
#endif
queue:
	atomic {
		empty(buffer[WORKERS]);
		if
		:: wanted == NEW -> started[FOREIGN] = true; assert(phase != ENDED)
		:: else -> skip
		fi
	}
out:
	skip
}

/* A CAS sets the flag; a suspended one is started by it. */
inline cancel(s)
{
	atomic {
		if
		:: word[s] == SUSPENDED -> word[s] = NEW | CANCELLED; started[s] = true
		:: word[s] == NEW -> word[s] = NEW | CANCELLED
		:: else -> skip
		fi
	}
}

#define EVEN (created[0] + created[1] + created[2] == completed[0] + completed[1] + completed[2])

/* E2. `alive` is left true if something may be. */
inline sum_up()
{
	alive = true;
#ifdef CREATED_FIRST
	sum = created[0]; sum = sum + created[1]; sum = sum + created[2];
	sum = sum - completed[0]; sum = sum - completed[1]; sum = sum - completed[2];
	if
	:: sum == 0 -> alive = false
	:: else -> skip
	fi;
#else
	sum = completed[0]; sum = sum + completed[1]; sum = sum + completed[2];
	sum = sum - created[2]; sum = sum - created[0]; sum = sum - created[1];
	if
	:: sum == 0 -> alive = false
	:: else -> skip
	fi;
#endif
	sum = 0
}

/* N1, N2: by the first process. */
inline spawn()
{
	spawned = true;
	if
#ifdef SPAWN_WHEN_CLOSED
	:: skip ->
#else
	:: !closed ->
#endif
#ifdef COMPLETED_EARLY
		late = true;
#else
		mine++;
		buffer[me]!CREATED,mine;
#endif
		buffer[me]!CHILD,NEW                     /* N2: a release */
	:: else -> skip
	fi
}

/* A process on this worker ends: it is cancelled, or has done what it wanted. */
inline finish(s)
{
	atomic {
		empty(buffer[me]);
		assert((word[s] & NEW) && phase != ENDED);
		word[s] = FREE
	};
	done++;
	buffer[me]!COMPLETED,done;                       /* E1: a release */
#ifdef COMPLETED_EARLY
	if
	:: late -> mine++; buffer[me]!CREATED,mine; late = false
	:: else -> skip
	fi
#endif
}

proctype worker(byte me)
{
	bool closed, acknowledged, swept, spawned, alive, late, summed;
	byte old, mine = 1, done; /* its own counters: created (worker 0), completed */
	short sum;

	do
	:: me == 0 && !spawned && !closed && word[FIRST] != FREE -> spawn()
#ifdef SPAWN_WHEN_CLOSED
	:: me == 0 && !spawned && closed && word[FIRST] != FREE -> spawn()
#endif
	:: me == 0 && word[FIRST] != FREE -> finish(FIRST)
	:: me == 0 && word[CHILD] == (NEW | CANCELLED) -> finish(CHILD)
	:: atomic { started[FOREIGN] && (word[FOREIGN] & CANCELLED) -> started[FOREIGN] = false }
		finish(FOREIGN)
#ifdef ACK_BEFORE_FLAG
	:: phase == CLOSED && !acknowledged ->
		atomic { empty(buffer[me]); acks++; acknowledged = true }
	:: acknowledged && !closed -> closed = true
#else
	:: phase == CLOSED && !closed ->                 /* S1 */
		closed = true;
#ifdef ACK_BY_STORE
		atomic { acks++ };
#else
		atomic { empty(buffer[me]); acks++ };
#endif
		acknowledged = true
#endif
#ifdef SWEEP_BEFORE_ACKS
	:: acknowledged && !swept ->
#else
	:: acknowledged && !swept && acks == WORKERS ->  /* S2 */
#endif
		swept = true;
		cancel(me);
		if
		:: me == 0 -> cancel(FOREIGN)
		:: else -> skip
		fi;
		atomic { empty(buffer[me]); sweeps++ }   /* S3 */
#ifdef END_BEFORE_SWEEPS
	:: atomic { phase <= CLOSED && (!summed || EVEN) ->
#else
	:: atomic { (phase == DRAINING || phase == CLOSED && sweeps == WORKERS) &&
			(!summed || EVEN) ->
#endif
			summed = true;
			old = phase
		}                                        /* E2 to E4 */
		sum_up();
		if
		:: alive -> skip
		:: else ->
			/* E3 */
			atomic {
				empty(buffer[me]);
				if
#if defined(SUM_ONCE) || defined(CREATED_FIRST)
				:: phase == old -> phase = ENDED; goto out
#else
				:: phase == old -> phase = ENDING
#endif
				:: else -> alive = true
				fi
			}
			if
			:: alive -> skip
			:: else ->
				sum_up();
				if
				:: alive -> phase = old
				:: else -> phase = ENDED
				fi
			fi
		fi;
		old = 0;
		alive = false
	:: phase == ENDED -> break                       /* S4 */
	od;
out:
	skip
}

init {
	atomic {
		word[FIRST] = NEW;
		created[0] = 1;
		run memory();
		run worker(0);
		run worker(1);
		run foreign();
		run stopper()
	}
	_nr_pr == 2 && empty(buffer[0]) && empty(buffer[1]) && empty(buffer[2]);
	assert(word[FIRST] == FREE && word[CHILD] == FREE && word[FOREIGN] == FREE);
	assert(!started[FOREIGN])
}
