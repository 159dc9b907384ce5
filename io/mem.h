/*
 * mem.h: the in-memory network: stream sockets that live in this process.
 *
 * For tests, for programs that talk to themselves, and for the simulator: whatever serves and
 * connects by <weft/io.h> runs on it unchanged. A socket's handle is an int from 2^30 up:
 *
 *	bit 30 set | driver 3 (0: this one) | generation 7 | index 20
 *
 * index names a slot of a segmented table that grows and never moves; the generation is the low
 * part of that of the slot's entry (io/fd.h): a handle kept after its socket was closed is refused
 * for the next 127 uses of the slot. Entry, operations, waiting and closing are those of every
 * descriptor; only what would be a system call comes here, and readiness is reported by
 * wf_fd_report() straight into the entry: no registration, no home, no driver in between.
 *
 * A connection is two sockets that name each other, slot and generation. Bytes lie at the receiver,
 * in chunks, each with the time it arrives:
 *
 *	M1 transmit: copies into chunks, unlocked. Under the receiver's lock, if it still names the
 *	   sender: as many bytes as there is room for are appended; if not all were, somebody wants
 *	   space. A few bytes are copied there, into the last chunk or a spare one. Then the
 *	   receiver is told (READ); or, where they arrive later, an event is left with the caller's
 *	   driver.
 *	M2 receive: under the socket's own lock: takes the chunks that have arrived. If somebody
 *	   wants space and half of it is free, the sender is told (WRITE).
 *	M3 end: what shuts writing, closes or resets sets the other side's end or error, under its
 *	   lock, not before the bytes that went before it; and tells it (READ, WRITE, STICKY).
 *
 * Why nothing is lost: what there is to see changes under the socket's lock before it is reported,
 * and I1 of fd.h holds for every report.
 *
 * Time. Without latency everything arrives at once, and nobody reads a clock. With latency each
 * transmission draws one, connections overtake each other, and bytes of one connection do not. Who
 * sends leaves an event {socket, generation, time} with the driver of the worker it runs on
 * (mem_driver.c); a socket counts as arrived what is due by the latest of such events and of the
 * clock, which a reader reads anew.
 *
 * Beginning:
 *	N1 connect makes both ends, and appends the far one to the queue of the listener, in turn
 *	   among those of the name, that has room. None has: the socket waits in the name's list.
 *	N2 accept takes the first that has arrived; the first that waits for room is told to try
 *	   again (WRITE). If it gives up instead, the next one is told.
 *	N3 the last listener of a name tells all that wait: they try again, and are refused.
 *
 * Locks, in this order: the network's (names, queues, who waits for room), the table's (free
 * slots), a socket's; never two sockets' at once but for a pair that nobody knows yet. Held for a
 * few instructions and the copy of at most one chunk; never over an allocation or a report.
 * Progress: blocking. Slots are never freed, so a stale pointer finds a lock and a generation.
 */
#ifndef WF_IO_MEM_H
#define WF_IO_MEM_H

#include "io/fd.h"
#include "io/listeners.h"
#include "timer/wheel.h"

enum {
	WF_MEM_INDEX_BITS = 20,
	WF_MEM_GENERATION_BITS = 7,
#if defined(WF_ATOMICS_SIM)
	WF_MEM_FIRST_SEGMENT_SHIFT = 3,
#else
	WF_MEM_FIRST_SEGMENT_SHIFT = 8,
#endif
	WF_MEM_SEGMENTS = WF_MEM_INDEX_BITS - WF_MEM_FIRST_SEGMENT_SHIFT + 1,
	WF_MEM_SOCKETS_MAX = 1 << WF_MEM_INDEX_BITS,
	WF_MEM_BACKLOG_DEFAULT = 128,
	WF_MEM_BUFFER_BYTES = 64 << 10,
};

enum wf_mem_role {
	WF_MEM_NONE,
	WF_MEM_IDLE,     /* made by connect, and not connected (yet) */
	WF_MEM_STREAM,
	WF_MEM_LISTENER,
};

struct wf_mem_link {
	struct wf_mem_link *next, *prev; /* of a ring; NULL: in none */
};

WF_INLINE void wf_mem_ring_init(struct wf_mem_link *ring)
{
	ring->next = ring->prev = ring;
}

/* To the end of a ring; or before a link of it. */
WF_INLINE void wf_mem_link_append(struct wf_mem_link *ring, struct wf_mem_link *link)
{
	link->next = ring;
	link->prev = ring->prev;
	ring->prev->next = link;
	ring->prev = link;
}

WF_INLINE void wf_mem_link_remove(struct wf_mem_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	link->next = link->prev = NULL;
}

struct wf_mem_chunk;
struct wf_mem_name;

/* What has been sent to a socket. */
struct wf_mem_inflow {
	struct wf_mem_chunk *first, *last;
	struct wf_mem_chunk *spare; /* a small one, empty; or NULL */
	size_t bytes;
	weft_time told;     /* what is due by then has arrived */
	weft_time last_due; /* of the latest chunk */
	weft_time end_due;  /* WEFT_FOREVER: no end yet */
	int error;          /* to be reported once; 0: none */
	weft_time error_due;
	bool was_reset;     /* the connection; told or not */
	bool wants_space;   /* the sender could not leave everything */
	bool shut;          /* the receiver has shut reading: what comes is dropped */
};

struct wf_mem_socket {
	struct wf_fd_entry entry;
	struct wf_spinlock lock; /* guards what follows, but where it says otherwise */
	uint32_t index;          /* constant */
	uint32_t generation;     /* of this use; constant while in use */
	uint8_t role;            /* enum wf_mem_role */
	uint32_t peer_generation;
	wf_atomic_ptr peer;      /* struct wf_mem_socket; written under the lock */
	struct wf_mem_inflow in;
	/* Under the network's lock. */
	struct wf_mem_link link; /* the free; a listener's queue; a name's waiting or told */
	weft_time queued_due;    /* in a queue: when it arrives there */
	struct wf_mem_name *name; /* of a listener; of who waits for room */
	bool is_told;            /* that there is room: in `told`, not in `waiting` */
	struct wf_mem_link queue; /* of a listener */
	unsigned queued_count;
	char address[WF_MEM_ADDRESS_MAX]; /* constant while in use; empty: the connecting end */
} WF_ALIGNED(WF_FALSE_SHARING);

extern wf_atomic_ptr wf_mem_segments[WF_MEM_SEGMENTS];

/* What weft_mem_setup() has set. Constant while sockets are in use. */
struct wf_mem_network {
	struct weft_mem_opts opts; /* its zeros replaced */
	wf_atomic_u64 random;
};

extern struct wf_mem_network wf_mem_network;

/* What is sent takes time. */
WF_INLINE bool wf_mem_is_late(void)
{
	return wf_mem_network.opts.latency_max_ns > 0;
}

/* --- the table (mem.c) --- */

/* The slot of a handle; NULL if there is none. Whose use it is in has to be looked at. */
struct wf_mem_socket *wf_mem_find(int fd);

WF_INLINE uint32_t wf_mem_handle_generation(int fd)
{
	return (uint32_t)fd >> WF_MEM_INDEX_BITS & ((1u << WF_MEM_GENERATION_BITS) - 1);
}

/* True if the word of an entry is of the use that the handle names. */
WF_INLINE bool wf_mem_is_use(uint64_t word, int fd)
{
	uint32_t mask = (1u << WF_MEM_GENERATION_BITS) - 1;

	return wf_fd_state(word) != WF_FD_FREE &&
		(wf_fd_generation(word) & mask) == wf_mem_handle_generation(fd);
}

int wf_mem_handle(const struct wf_mem_socket *socket);

/* A slot for a new socket, not open yet, nobody's. NULL: no memory, or all are in use. */
struct wf_mem_socket *wf_mem_take(void);
/* Counts one as open, unless too many are. */
bool wf_mem_count_open(void);
/* Both. 0, -EMFILE, -ENOMEM. */
int wf_mem_make(struct wf_mem_socket **socket_out);
/* Gives up a slot that was never opened; whether it was counted. */
void wf_mem_drop(struct wf_mem_socket *socket, bool counted);
/* Makes a counted socket usable by its handle, which it returns. */
int wf_mem_open(struct wf_mem_socket *socket);

/* For fd.c: ends the use, while the entry is CLOSING and no operation is left; and after that. */
void wf_mem_close(struct wf_mem_socket *socket);
void wf_mem_give(struct wf_mem_socket *socket);

/* True once in `one_in` times, by the network's seed; 0: never. */
bool wf_mem_chance_drawn(unsigned one_in);

WF_INLINE bool wf_mem_chance(unsigned one_in)
{
	return WF_UNLIKELY(one_in > 0) && wf_mem_chance_drawn(one_in);
}

/* From low to high, both included. */
uint64_t wf_mem_draw(uint64_t low, uint64_t high);

/* --- streams (mem_stream.c); the calls return as the system call of that name would --- */

/* Of an operation's entry. */
WF_INLINE struct wf_mem_socket *wf_mem_of(struct wf_fd_entry *entry)
{
	return WF_CONTAINER_OF(entry, struct wf_mem_socket, entry);
}

/*
 * *last_out, of one that moves something: there is nothing left (no room), which counts as the
 * EAGAIN of a further try would (O4 of fd.h).
 */
ssize_t wf_mem_receive(struct wf_mem_socket *socket, void *buffer, size_t size, bool *last_out);
ssize_t wf_mem_transmit(
	struct wf_mem_socket *socket, const void *buffer, size_t size, bool *last_out);
/* how: SHUT_RD, SHUT_WR, SHUT_RDWR */
int wf_mem_shutdown(int fd, int how);
/* What it is ready for, as weft_poll_fd() says it. */
int wf_mem_poll(int fd, unsigned events);

/* Makes a connection of two sockets that nobody knows yet. */
void wf_mem_join(struct wf_mem_socket *client, struct wf_mem_socket *server);
/* M3, of a stream that is closed; and of one that nobody will accept. */
void wf_mem_part(struct wf_mem_socket *socket);
void wf_mem_abort(struct wf_mem_socket *socket);
/* Under the socket's lock: whether what is due then is there. Reads the clock if it must. */
bool wf_mem_has_arrived(struct wf_mem_inflow *in, weft_time due);
/* An event's time has come. */
void wf_mem_arrive(struct wf_mem_socket *socket, uint32_t generation, weft_time due);

/* --- names (mem_name.c) --- */

/*
 * `count` listeners under one name, which connections reach in turn: all or none. 0; -EADDRINUSE,
 * -EMFILE, -ENOMEM.
 */
int wf_mem_listen(
	const char *address, int backlog, unsigned count, struct wf_listener *listeners_out);
/* The next connection: its handle; -EAGAIN, -EMFILE, -EINVAL (no listener). */
int wf_mem_accept(int fd, uint32_t *generation_out);
/* How many wait in its queue, arrived or not; and whether one of them has arrived. */
int wf_mem_queued(int fd);
bool wf_mem_acceptable(struct wf_mem_socket *listener);
/* A socket to connect: its handle, -EMFILE, -ENOMEM. */
int wf_mem_socket(void);
/* 0; -EINPROGRESS: try again when it is told; -ECONNREFUSED, -ENOMEM. */
int wf_mem_connect(int fd, const char *address);
int wf_mem_local_address(int fd, char *text_out, size_t text_size);
/* The end of a listener, or of who waits for room. */
void wf_mem_leave(struct wf_mem_socket *socket);

/* --- the driver (mem_driver.c) --- */

struct wf_mem_event;

/*
 * What a transmission needs to arrive later; made before a lock is taken. *event_out is NULL where
 * things arrive at once: there is no latency, or the caller is no worker. 0 or -ENOMEM.
 */
int wf_mem_event_make(struct wf_mem_event **event_out);
/* When what is sent now arrives; 0: at once (event is NULL). */
weft_time wf_mem_event_draw(const struct wf_mem_event *event);
/* The caller's driver will call wf_mem_arrive() at `due`. Nothing if event is NULL. */
void wf_mem_event_post(struct wf_mem_event *event, struct wf_mem_socket *socket,
	uint32_t generation, weft_time due);
/* It will not happen. Accepts NULL. */
void wf_mem_event_drop(struct wf_mem_event *event);

#endif
