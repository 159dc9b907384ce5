/*
 * mem_stream.c: the bytes of the in-memory network: M1 to M3 of mem.h.
 *
 * A chunk is a block of up to CHUNK_BYTES. Senders fill chunks before they take the receiver's
 * lock, and receivers empty them after they have given it back, but for the part of the last one
 * that did not fit. A small chunk is filled and emptied under the lock, and one that is empty stays
 * with the receiver: messages that are asked and answered cost no allocation.
 */
#include <string.h>

#include "io/mem.h"

enum {
	CHUNK_BYTES = 4096 - 32,
	SMALL_BYTES = 512 - 32, /* of a small chunk */
	PIECE_BYTES_MAX = 64 << 10, /* sent at once */
};

struct wf_mem_chunk {
	struct wf_mem_chunk *next;
	weft_time due; /* 0: at once */
	uint32_t begin, end; /* what of it is not read yet */
	uint32_t size;
	uint32_t place; /* taken out: where in the reader's buffer it goes */
	unsigned char data[];
};

/* --- chunks --- */

static bool is_small(const struct wf_mem_chunk *chunk)
{
	return chunk->size == SMALL_BYTES;
}

static void chunks_free(struct wf_mem_chunk *chunk)
{
	while (chunk) {
		struct wf_mem_chunk *next = chunk->next;

		wf_shared_free(chunk, sizeof(*chunk) + chunk->size);
		chunk = next;
	}
}

/* A list of chunks with a copy of the bytes; NULL: no memory. */
static struct wf_mem_chunk *chunks_make(const void *buffer, size_t size)
{
	struct wf_mem_chunk *first = NULL, **last = &first;
	const unsigned char *bytes = buffer;

	while (size > 0) {
		uint32_t n = size < CHUNK_BYTES ? (uint32_t)size : CHUNK_BYTES;
		/* What is late shares a chunk with nothing else. */
		uint32_t room = n < SMALL_BYTES && !wf_mem_is_late() ? SMALL_BYTES : n;
		struct wf_mem_chunk *chunk =
			wf_shared_alloc(_Alignof(struct wf_mem_chunk), sizeof(*chunk) + room);

		if (!chunk) {
			chunks_free(first);
			return NULL;
		}
		*chunk = (struct wf_mem_chunk){ .end = n, .size = room };
		memcpy(chunk->data, bytes, n);
		*last = chunk;
		last = &chunk->next;
		bytes += n;
		size -= n;
	}
	return first;
}

/* Cuts a list after `size` bytes (at least one). Returns the rest. */
static struct wf_mem_chunk *chunks_cut(struct wf_mem_chunk *chunk, size_t size)
{
	struct wf_mem_chunk *rest;

	while (size > chunk->end) {
		size -= chunk->end;
		chunk = chunk->next;
	}
	chunk->end = (uint32_t)size;
	rest = chunk->next;
	chunk->next = NULL;
	return rest;
}

/* --- what has arrived. Under the socket's lock --- */

bool wf_mem_has_arrived(struct wf_mem_inflow *in, weft_time due)
{
	if (due <= in->told)
		return true;
	if (due != WEFT_FOREVER) {
		weft_time now = weft_now();

		if (now > in->told)
			in->told = now;
	}
	return due <= in->told;
}

static bool has_ended(struct wf_mem_inflow *in)
{
	return wf_mem_has_arrived(in, in->end_due);
}

static bool has_failed(struct wf_mem_inflow *in)
{
	return in->error && wf_mem_has_arrived(in, in->error_due);
}

static bool is_readable(struct wf_mem_inflow *in)
{
	return (in->first && wf_mem_has_arrived(in, in->first->due)) || has_ended(in) ||
		has_failed(in) || in->shut;
}

/* The error, once; 0: there is none, or not yet. */
static int take_error(struct wf_mem_inflow *in)
{
	int error = has_failed(in) ? in->error : 0;

	if (error)
		in->error = 0;
	return error;
}

/* --- sending --- */

static bool is_peer(struct wf_mem_socket *socket, const struct wf_mem_socket *peer)
{
	return wf_ptr_load_relaxed(&socket->peer) == peer &&
		socket->peer_generation == peer->generation;
}

/* Why a socket cannot send: a reset that was not told yet, or that the other side is gone. */
static WF_COLD ssize_t send_error(struct wf_mem_socket *socket)
{
	ssize_t r;

	wf_spinlock_lock(&socket->lock);
	r = socket->role == WF_MEM_STREAM ? take_error(&socket->in) : -ENOTCONN;
	wf_spinlock_unlock(&socket->lock);
	return r ? r : -EPIPE;
}

/* What is sent at once. */
struct piece {
	const void *buffer;
	size_t size;
	bool more;                   /* the sender has more */
	struct wf_mem_chunk *chunks; /* a copy; then what is not needed. NULL: not made yet */
	weft_time due;
	uint32_t generation; /* of the receiver */
	bool full;           /* there is no room for more */
};

/* Under the receiver's lock: how many bytes there is room for; -EAGAIN: none; -EPIPE. */
static ssize_t admit(struct wf_mem_inflow *in, const struct piece *piece)
{
	size_t capacity = wf_mem_network.opts.buffer_bytes;
	size_t room = in->bytes < capacity ? capacity - in->bytes : 0;

	if (in->end_due != WEFT_FOREVER)
		return -EPIPE; /* the sender has shut writing */
	if (in->shut)
		return (ssize_t)piece->size;
	/* Who could not leave everything is told when there is room again. */
	if (piece->size + piece->more > room)
		in->wants_space = true;
	if (piece->size < room)
		room = piece->size;
	return room > 0 ? (ssize_t)room : -EAGAIN;
}

static void append_chunk(struct wf_mem_inflow *in, struct wf_mem_chunk *chunk, weft_time due)
{
	chunk->due = due;
	if (in->last)
		in->last->next = chunk;
	else
		in->first = chunk;
	in->last = chunk;
}

/* Under the lock: `size` bytes of the chunks; the rest of them stays with the piece. */
static void append(struct wf_mem_inflow *in, struct piece *piece, size_t size)
{
	struct wf_mem_chunk *chunk = piece->chunks;

	piece->chunks = chunks_cut(chunk, size);
	if (piece->due < in->last_due)
		piece->due = in->last_due;
	in->last_due = piece->due;
	for (; chunk; chunk = chunk->next)
		append_chunk(in, chunk, piece->due);
	in->bytes += size;
}

/* Under the lock: a few bytes, at once, into a chunk that is there. False: none has room. */
static bool append_few(struct wf_mem_inflow *in, const void *buffer, size_t size)
{
	struct wf_mem_chunk *chunk = in->last;

	if (!chunk || chunk->size - chunk->end < size) {
		chunk = in->spare;
		if (!chunk)
			return false;
		in->spare = NULL;
		append_chunk(in, chunk, 0);
	}
	memcpy(chunk->data + chunk->end, buffer, size);
	chunk->end += (uint32_t)size;
	in->bytes += size;
	return true;
}

/* M1. Returns how many bytes were left; -ENOBUFS: they have to be put into chunks first. */
static ssize_t leave(
	struct wf_mem_socket *socket, struct wf_mem_socket *peer, struct piece *piece)
{
	struct wf_mem_inflow *in = &peer->in;
	ssize_t r = -EPIPE;

	wf_spinlock_lock(&peer->lock);
	if (is_peer(peer, socket))
		r = admit(in, piece);
	if (r > 0 && !in->shut) {
		if (piece->chunks)
			append(in, piece, (size_t)r);
		else if (!append_few(in, piece->buffer, (size_t)r))
			r = -ENOBUFS;
	}
	piece->full = r != -EPIPE && in->wants_space; /* of a stranger's it says nothing */
	piece->generation = peer->generation;
	wf_spinlock_unlock(&peer->lock);
	return r;
}

static ssize_t leave_chunks(
	struct wf_mem_socket *socket, struct wf_mem_socket *peer, struct piece *piece)
{
	ssize_t r = -ENOMEM;

	piece->chunks = chunks_make(piece->buffer, piece->size);
	if (piece->chunks)
		r = leave(socket, peer, piece);
	chunks_free(piece->chunks);
	piece->chunks = NULL;
	return r;
}

static WF_COLD void reset(struct wf_mem_socket *socket);

static ssize_t transmit_piece(struct wf_mem_socket *socket, struct piece *piece)
{
	struct wf_mem_event *event = NULL;
	struct wf_mem_socket *peer;
	ssize_t r = -ENOBUFS;

	/* B4: acquire, with B5 in wf_mem_join(). */
	peer = wf_ptr_load_acquire(&socket->peer);
	if (!peer)
		return send_error(socket);
	if (WF_UNLIKELY(wf_mem_is_late())) {
		int made = wf_mem_event_make(&event);

		if (made < 0)
			return made;
		piece->due = wf_mem_event_draw(event);
	} else if (piece->size <= SMALL_BYTES) {
		r = leave(socket, peer, piece);
	}
	if (r == -ENOBUFS)
		r = leave_chunks(socket, peer, piece);
	if (r <= 0)
		wf_mem_event_drop(event);
	else if (event)
		wf_mem_event_post(event, peer, piece->generation, piece->due);
	else
		wf_fd_report(&peer->entry, piece->generation, WF_FD_READ);
	return r == -EPIPE ? send_error(socket) : r;
}

ssize_t wf_mem_transmit(
	struct wf_mem_socket *socket, const void *buffer, size_t size, bool *last_out)
{
	size_t most = wf_mem_network.opts.buffer_bytes, done = 0;
	struct piece piece = { .full = false };
	ssize_t r = 0;

	if (most > PIECE_BYTES_MAX)
		most = PIECE_BYTES_MAX;
	if (wf_mem_chance(wf_mem_network.opts.reset_one_in))
		reset(socket);
	if (wf_mem_chance(wf_mem_network.opts.short_one_in))
		size = wf_mem_draw(1, size);
	while (done < size && !piece.full) {
		piece.buffer = (const char *)buffer + done;
		piece.size = size - done < most ? size - done : most;
		piece.more = size - done > piece.size;
		r = transmit_piece(socket, &piece);
		if (r < 0)
			break;
		done += (size_t)r;
	}
	*last_out = piece.full || WF_PLANTED(mem_room_looks_gone);
	return done ? (ssize_t)done : r;
}

/* --- receiving --- */

/* Under the lock: the first chunk leaves the list. */
static void remove_first(struct wf_mem_inflow *in)
{
	struct wf_mem_chunk *chunk = in->first;

	in->first = chunk->next;
	if (!in->first)
		in->last = NULL;
	chunk->next = NULL;
}

/* Under the lock: an empty chunk becomes the spare one. False: it is to be freed. */
static bool keep_spare(struct wf_mem_inflow *in, struct wf_mem_chunk *chunk)
{
	if (in->spare || !is_small(chunk))
		return false;
	chunk->begin = chunk->end = 0;
	in->spare = chunk;
	return true;
}

/*
 * M2, under the lock: takes up to `size` bytes that have arrived; returns how many. What has been
 * taken whole comes out in *chunks_out, and is to be copied to its place.
 */
static size_t take(struct wf_mem_inflow *in, unsigned char *buffer, size_t size,
	struct wf_mem_chunk **chunks_out)
{
	struct wf_mem_chunk **last = chunks_out;
	size_t done = 0;

	*last = NULL;
	while (in->first && done < size && wf_mem_has_arrived(in, in->first->due)) {
		struct wf_mem_chunk *chunk = in->first;
		size_t left = chunk->end - chunk->begin;
		size_t n = left < size - done ? left : size - done;

		chunk->place = (uint32_t)done;
		done += n;
		if (n < left || is_small(chunk)) {
			memcpy(buffer + chunk->place, chunk->data + chunk->begin, n);
			chunk->begin += (uint32_t)n;
		}
		if (n < left)
			break;
		remove_first(in);
		if (keep_spare(in, chunk))
			continue;
		*last = chunk;
		last = &chunk->next;
	}
	in->bytes -= done;
	return done;
}

static void copy(const struct wf_mem_chunk *chunk, unsigned char *buffer)
{
	for (; chunk; chunk = chunk->next)
		memcpy(buffer + chunk->place, chunk->data + chunk->begin,
			chunk->end - chunk->begin);
}

/* Under the lock: what a receive returns when there is no byte. */
static ssize_t receive_none(struct wf_mem_socket *socket)
{
	struct wf_mem_inflow *in = &socket->in;
	int error;

	if (socket->role != WF_MEM_STREAM)
		return -ENOTCONN;
	if (in->shut)
		return 0;
	/* The end may have come since: not before these. */
	if (in->first)
		return -EAGAIN;
	error = take_error(in);
	if (error)
		return error;
	return has_ended(in) ? 0 : -EAGAIN;
}

/* Under the lock: true, once, if who sends wanted space and there is enough again. */
static bool space_is_wanted(struct wf_mem_inflow *in)
{
	if (!in->wants_space || in->bytes * 2 > wf_mem_network.opts.buffer_bytes)
		return false;
	in->wants_space = false;
	return true;
}

ssize_t wf_mem_receive(struct wf_mem_socket *socket, void *buffer, size_t size, bool *last_out)
{
	struct wf_mem_socket *peer;
	struct wf_mem_chunk *chunks;
	uint32_t peer_generation;
	bool tell;
	ssize_t n;

	if (wf_mem_chance(wf_mem_network.opts.reset_one_in))
		reset(socket);
	if (wf_mem_chance(wf_mem_network.opts.short_one_in))
		size = wf_mem_draw(1, size);
	wf_spinlock_lock(&socket->lock);
	n = (ssize_t)take(&socket->in, buffer, size, &chunks);
	if (n == 0)
		n = receive_none(socket);
	*last_out = !is_readable(&socket->in);
	tell = space_is_wanted(&socket->in);
	peer = wf_ptr_load_relaxed(&socket->peer);
	peer_generation = socket->peer_generation;
	wf_spinlock_unlock(&socket->lock);
	copy(chunks, buffer);
	chunks_free(chunks);
	if (tell && peer && !WF_PLANTED(mem_space_is_not_told))
		wf_fd_report(&peer->entry, peer_generation, WF_FD_WRITE);
	return n;
}

/* --- beginning and ending --- */

void wf_mem_join(struct wf_mem_socket *client, struct wf_mem_socket *server)
{
	wf_spinlock_lock(&server->lock);
	server->role = WF_MEM_STREAM;
	server->peer_generation = client->generation;
	wf_ptr_store_relaxed(&server->peer, client);
	wf_spinlock_unlock(&server->lock);
	wf_spinlock_lock(&client->lock);
	client->role = WF_MEM_STREAM;
	client->peer_generation = server->generation;
	/* B5: release, with B4 in transmit_piece(): the far end is ready to be sent to. */
	wf_ptr_store_release(&client->peer, server);
	wf_spinlock_unlock(&client->lock);
}

/*
 * M3: the socket's peer will receive no more from it. error: what the peer is told instead of an
 * end; cut: nor can the peer send any more.
 */
static void end_peer(struct wf_mem_socket *socket, struct wf_mem_socket *peer,
	uint32_t peer_generation, int error, bool cut)
{
	struct wf_mem_inflow *in = &peer->in;
	struct wf_mem_event *event;
	weft_time due;
	bool found;

	/* Without memory it comes with the last byte. */
	if (wf_mem_event_make(&event) < 0)
		event = NULL;
	due = wf_mem_event_draw(event);
	wf_spinlock_lock(&peer->lock);
	found = peer->generation == peer_generation && is_peer(peer, socket);
	if (found) {
		if (due < in->last_due)
			due = in->last_due;
		if (in->end_due == WEFT_FOREVER)
			in->end_due = in->last_due = due;
		if (error && !in->was_reset) {
			in->error = error;
			in->error_due = due;
			in->was_reset = true;
		}
		if (cut)
			wf_ptr_store_relaxed(&peer->peer, NULL);
	}
	wf_spinlock_unlock(&peer->lock);
	if (!found) {
		wf_mem_event_drop(event);
		return;
	}
	wf_mem_event_post(event, peer, peer_generation, due);
	wf_fd_report(&peer->entry, peer_generation, WF_FD_READ | WF_FD_WRITE | WF_FD_STICKY);
}

/* Takes the name of the peer out of a socket. NULL: it has none (any more). */
static struct wf_mem_socket *take_peer(struct wf_mem_socket *socket, uint32_t *generation_out)
{
	struct wf_mem_socket *peer = wf_ptr_load_relaxed(&socket->peer);

	*generation_out = socket->peer_generation;
	wf_ptr_store_relaxed(&socket->peer, NULL);
	return peer;
}

static void part(struct wf_mem_socket *socket, int error)
{
	struct wf_mem_socket *peer;
	struct wf_mem_chunk *chunks, *spare;
	uint32_t generation;

	wf_spinlock_lock(&socket->lock);
	peer = take_peer(socket, &generation);
	chunks = socket->in.first;
	spare = socket->in.spare;
	socket->in.first = socket->in.last = socket->in.spare = NULL;
	socket->role = WF_MEM_NONE;
	wf_spinlock_unlock(&socket->lock);
	/* As TCP does: who closes without having read all resets the connection. */
	if (peer)
		end_peer(socket, peer, generation, chunks ? -ECONNRESET : error, true);
	chunks_free(chunks);
	chunks_free(spare);
}

void wf_mem_part(struct wf_mem_socket *socket)
{
	part(socket, 0);
}

void wf_mem_abort(struct wf_mem_socket *socket)
{
	part(socket, -ECONNRESET);
}

/* Under the lock: takes out what has not arrived. */
static struct wf_mem_chunk *take_late(struct wf_mem_inflow *in)
{
	struct wf_mem_chunk **place = &in->first, *late;

	in->last = NULL;
	while (*place && wf_mem_has_arrived(in, (*place)->due)) {
		in->last = *place;
		place = &(*place)->next;
	}
	late = *place;
	*place = NULL;
	for (const struct wf_mem_chunk *chunk = late; chunk; chunk = chunk->next)
		in->bytes -= chunk->end - chunk->begin;
	return late;
}

/* The network's doing: both sides are told, this one now; what is on its way to it is lost. */
static WF_COLD void reset(struct wf_mem_socket *socket)
{
	struct wf_mem_inflow *in = &socket->in;
	struct wf_mem_chunk *late = NULL;
	struct wf_mem_socket *peer;
	uint32_t generation;

	wf_spinlock_lock(&socket->lock);
	peer = take_peer(socket, &generation);
	if (peer) {
		late = take_late(in);
		in->error = -ECONNRESET;
		in->error_due = in->end_due = 0;
		in->was_reset = true;
	}
	wf_spinlock_unlock(&socket->lock);
	chunks_free(late);
	if (!peer)
		return;
	end_peer(socket, peer, generation, -ECONNRESET, true);
	wf_fd_report(&socket->entry, socket->generation, WF_FD_READ | WF_FD_WRITE | WF_FD_STICKY);
}

static void shut_reading(struct wf_mem_socket *socket)
{
	struct wf_mem_socket *peer;
	uint32_t peer_generation;
	bool tell;

	wf_spinlock_lock(&socket->lock);
	socket->in.shut = true;
	tell = socket->in.wants_space;
	socket->in.wants_space = false;
	peer = wf_ptr_load_relaxed(&socket->peer);
	peer_generation = socket->peer_generation;
	wf_spinlock_unlock(&socket->lock);
	if (tell && peer)
		wf_fd_report(&peer->entry, peer_generation, WF_FD_WRITE);
	wf_fd_report(&socket->entry, socket->generation, WF_FD_READ | WF_FD_STICKY);
}

/* Who writes the socket is told by the error that its next try gives. */
static void shut_writing(struct wf_mem_socket *socket)
{
	struct wf_mem_socket *peer = wf_ptr_load_acquire(&socket->peer); /* B4 */

	if (peer)
		end_peer(socket, peer, socket->peer_generation, 0, false);
	wf_fd_report(&socket->entry, socket->generation, WF_FD_WRITE);
}

int wf_mem_shutdown(int fd, int how)
{
	struct wf_mem_socket *socket = wf_mem_find(fd);
	bool connected;

	wf_spinlock_lock(&socket->lock);
	connected = socket->role == WF_MEM_STREAM && !socket->in.was_reset;
	wf_spinlock_unlock(&socket->lock);
	if (!connected)
		return -ENOTCONN;
	if (how == SHUT_RD || how == SHUT_RDWR)
		shut_reading(socket);
	if (how == SHUT_WR || how == SHUT_RDWR)
		shut_writing(socket);
	return 0;
}

void wf_mem_arrive(struct wf_mem_socket *socket, uint32_t generation, weft_time due)
{
	uint64_t ready = WF_FD_READ | WF_FD_WRITE; /* bytes, or that it is connected */

	wf_spinlock_lock(&socket->lock);
	if (socket->generation == generation) {
		if (socket->in.told < due)
			socket->in.told = due;
		if (socket->in.end_due <= socket->in.told)
			ready |= WF_FD_STICKY;
	}
	wf_spinlock_unlock(&socket->lock);
	wf_fd_report(&socket->entry, generation, ready);
}

/* --- polling --- */

static int poll_read(struct wf_mem_socket *socket)
{
	int ready = 0;

	wf_spinlock_lock(&socket->lock);
	if (has_failed(&socket->in))
		ready |= (int)WEFT_ERROR;
	if (has_ended(&socket->in) && !wf_ptr_load_relaxed(&socket->peer))
		ready |= (int)WEFT_HANGUP;
	/* Last: by now at least what was there for the others is. */
	if (is_readable(&socket->in))
		ready |= (int)WEFT_READABLE;
	wf_spinlock_unlock(&socket->lock);
	return ready;
}

/* Where there is no room the peer is asked to tell of it. */
static int poll_write(struct wf_mem_socket *socket)
{
	struct wf_mem_socket *peer = wf_ptr_load_acquire(&socket->peer); /* B4 */
	bool room = true;

	if (!peer)
		return (int)WEFT_WRITABLE; /* to be told the error */
	wf_spinlock_lock(&peer->lock);
	/* After an end or a shut nothing is in the way of a try. */
	if (is_peer(peer, socket) && !peer->in.shut && peer->in.end_due == WEFT_FOREVER &&
		peer->in.bytes >= wf_mem_network.opts.buffer_bytes) {
		peer->in.wants_space = true;
		room = false;
	}
	wf_spinlock_unlock(&peer->lock);
	return room ? (int)WEFT_WRITABLE : 0;
}

int wf_mem_poll(int fd, unsigned events)
{
	struct wf_mem_socket *socket = wf_mem_find(fd);
	int ready;

	if (socket->role == WF_MEM_LISTENER)
		return wf_mem_acceptable(socket) ? (int)(events & WEFT_READABLE) : 0;
	ready = poll_read(socket);
	if (events & WEFT_WRITABLE)
		ready |= poll_write(socket);
	return ready & (int)(events | WEFT_HANGUP | WEFT_ERROR);
}
