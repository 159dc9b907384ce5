/*
 * overflow.pml: the ring of a run queue in fifo order, and its overflow: Q1 to Q4 and O1 to O4 in
 * sync/README.md.
 *
 * Goal: every item comes out exactly once, whoever takes it, and none is left while those who could
 * take it sleep: an invalid end state. The owner pushes into a ring of 4, pops in between if it
 * likes, and spills to the injector when the ring is full. Two thieves steal half, grab the
 * injector's chain, and park when both are empty. After its last push the owner runs something
 * long: what is left the thieves must take. If that push has overflowed, only its own check tells
 * them. (A push that finds room tells a sleeper by a guess only, here never; the check at the end
 * of the turn makes up for it.)
 *
 * Sequentially consistent: nothing in the ring needs a store to be seen before a later load, and
 * the check comes after an RMW. Bounds: ring of 4, at most 6 items, 2 thieves.
 *
 * Each macro below takes one piece out; run.py shows that the model then fails:
 *	OVERWRITE       Q1: the owner does not look at top before it stores into a slot
 *	POP_BY_STORE    Q2: the owner's pop stores top
 *	STEAL_BY_STORE  Q3: a thief stores top
 *	COPY_LATE       Q3: a thief copies after its claim
 *	LAP_NOT_SEEN    Q3: a thief believes a bottom that is a lap younger than its top
 *	RETRACT         O1, O3: the owner takes bottom back instead of claiming all
 *	CLAIM_BY_STORE  O1: top is stored
 *	BOTTOM_FIRST    O3 before O1
 *	BOTTOM_LAST     O4 before O3
 *	NO_CHECK        O4: nobody is woken
 *	CHECK_FIRST     O4: the check comes before the chain is in the injector
 *	NO_RECHECK      a thief parks without another look
 */
#define SIZE    4
#define ITEMS   6

byte top, bottom;
byte ring[SIZE];                 /* an item is a bit */
byte injector, pushed, taken;    /* sets of items */
bool parked[2], token[2];
bool busy;                       /* the owner has begun its long run */

#define FINISHED (busy && taken == pushed)

inline take(items)
{
	atomic {
		assert((taken & (items)) == 0 && (items) != 0);
		taken = taken | (items)
	}
}

/* The idle word's check: one of those who sleep, if any. */
inline check()
{
	atomic {
		if
		:: parked[0] -> parked[0] = false; woken = 0
		:: !parked[0] && parked[1] -> parked[1] = false; woken = 1
		:: else -> woken = 2
		fi
	};
	if
	:: woken < 2 -> token[woken] = true
	:: else -> skip
	fi;
	woken = 0
}

/* Q1, the store of a slot, then of bottom. */
inline store_item()
{
	ring[bottom % SIZE] = item;
	bottom++
}

inline overflow()
{
	overflowed = true;
#ifdef RETRACT
	spill = ring[(bottom + 2) % SIZE] | ring[(bottom + 3) % SIZE] | item;
	bottom = bottom - SIZE / 2;
#else
#ifdef BOTTOM_FIRST
	bottom = bottom + SIZE / 2;
	room = false;
	atomic {
		if
		:: top == bottom - SIZE - SIZE / 2 -> top = bottom - SIZE / 2
		:: else -> room = true
		fi
	};
	if
	:: room ->
		bottom = bottom - SIZE / 2;
		overflowed = false
	:: else -> skip
	fi;
#else
	/* O1 */
#ifdef CLAIM_BY_STORE
	room = (top != bottom - SIZE);
	if
	:: !room -> top = bottom
	:: else -> overflowed = false
	fi;
#else
	atomic {
		if
		:: top == bottom - SIZE -> top = bottom
		:: else -> overflowed = false
		fi
	};
#endif
#endif
	if
	:: !overflowed -> store_item()
	:: else ->
		/* O2 */
#ifdef BOTTOM_FIRST
		spill = ring[bottom % SIZE] | ring[(bottom + 1) % SIZE] | item;
#else
		spill = ring[(bottom + 2) % SIZE] | ring[(bottom + 3) % SIZE] | item;
#ifndef BOTTOM_LAST
		bottom = bottom + SIZE / 2; /* O3 */
#endif
#endif
	fi;
#endif
	if
	:: overflowed ->
		/* O4 */
#ifdef CHECK_FIRST
		check();
#endif
		atomic { assert((injector & spill) == 0); injector = injector | spill };
#if !defined(NO_CHECK) && !defined(CHECK_FIRST)
		check();
#endif
#ifdef BOTTOM_LAST
		bottom = bottom + SIZE / 2;
#endif
		spill = 0
	:: else -> skip
	fi
}

inline pop()
{
	seen = top;
	if
	:: seen != bottom ->
		item = ring[seen % SIZE];
#ifdef POP_BY_STORE
		if
		:: top == seen -> top = seen + 1; take(item)
		:: else -> skip
		fi
#else
		/* Q2 */
		atomic {
			if
			:: top == seen -> top = seen + 1
			:: else -> item = 0
			fi
		};
		if
		:: item != 0 -> take(item)
		:: else -> skip
		fi
#endif
	:: else -> skip
	fi;
	item = 0;
	seen = 0
}

proctype owner()
{
	byte n, item, spill, woken, seen, cached;
	bool overflowed, room;

	do
	:: n < ITEMS ->
		item = 1 << n;
		n++;
		pushed = pushed | item;
		overflowed = false;
		/* Q1 */
		if
		:: bottom - cached >= SIZE -> cached = top
		:: else -> skip
		fi;
		if
#ifndef OVERWRITE
		:: bottom - cached >= SIZE -> overflow(); cached = top
		:: else -> store_item()
#else
		:: store_item()
#endif
		fi;
		item = 0
	:: n > 0 && n < ITEMS -> pop()
	:: n == ITEMS || overflowed -> break
	od;
	if
	:: !overflowed -> check()
	:: else -> skip
	fi;
	busy = true
}

/* Q3, Q4. */
inline steal()
{
	t = top;
	b = bottom;
	n = (b - t + 1) / 2;
	if
	:: b - t > 0 ->
#ifdef LAP_NOT_SEEN
		assert(n <= SIZE / 2); /* there is no room for more */
#endif
		if
		:: n <= SIZE / 2 ->
#ifndef COPY_LATE
			loot = ring[t % SIZE];
			if
			:: n == 2 -> loot = loot | ring[(t + 1) % SIZE]
			:: else -> skip
			fi;
#endif
#ifdef STEAL_BY_STORE
			if
			:: top == t -> top = t + n
			:: else -> loot = 0; n = 0
			fi;
#else
			atomic {
				if
				:: top == t -> top = t + n
				:: else -> loot = 0; n = 0
				fi
			};
#endif
#ifdef COPY_LATE
			if
			:: n == 1 -> loot = ring[t % SIZE]
			:: n == 2 -> loot = ring[t % SIZE] | ring[(t + 1) % SIZE]
			:: else -> skip
			fi;
#endif
			if
			:: loot != 0 -> take(loot)
			:: else -> skip
			fi;
			empty_ring = false
		:: else -> empty_ring = false
		fi
	:: else -> empty_ring = true
	fi;
	loot = 0;
	t = 0;
	b = 0;
	n = 0
}

proctype thief(byte me)
{
	byte t, b, n, loot;
	bool empty_ring, again;

	do
	:: FINISHED -> break
	:: !FINISHED ->
		atomic { loot = injector; injector = 0 };
		if
		:: loot != 0 -> take(loot); loot = 0
		:: else ->
			steal();
			if
			:: empty_ring ->
				parked[me] = true;
				again = false;
#ifndef NO_RECHECK
				again = (injector != 0);
				t = top;
				again = again || (bottom > t);
				t = 0;
#endif
				if
				:: again -> skip
				:: !again -> (token[me] || FINISHED)
				fi;
				again = false;
				atomic {
					if
					:: parked[me] -> parked[me] = false
					:: else -> token[me]; token[me] = false
					fi
				}
			:: else -> skip
			fi;
			empty_ring = false
		fi
	od
}

init {
	atomic {
		run owner();
		run thief(0);
		run thief(1)
	}
	_nr_pr == 1;
	assert(taken == pushed && injector == 0)
}
