/*
 * fd.c: the descriptor table: entries, the beginning of operations, adoption, creating and closing.
 * wait.c has readiness and waiting. fd.h has the protocols of both in numbered steps; the labels
 * here (O1, E3, C4, F2, …) are those.
 */
#include "io/fd.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "core/internal.h"
#include "core/map.h"
#include "io/mem.h"
#include "io/syscall.h"
#include "io/wait.h"

enum {
	PAUSES_MAX = 100, /* before a wait for another thread's close(2) gives the CPU away */
};

wf_atomic_ptr wf_fd_segments[WF_FD_SEGMENTS];

/* --- The table --- */

static size_t segment_bytes(unsigned segment)
{
	unsigned shift = WF_FD_FIRST_SEGMENT_SHIFT + (segment ? segment - 1 : 0);

	return ((size_t)1 << shift) * sizeof(struct wf_fd_entry);
}

/* The entry of a number whose segment may be missing; NULL when there is no memory for it. */
static WF_COLD struct wf_fd_entry *entry_make(int fd)
{
	unsigned number = (unsigned)fd | ((1u << WF_FD_FIRST_SEGMENT_SHIFT) - 1);
	unsigned segment = 22u - (unsigned)__builtin_clz(number);
	void *entries, *none = NULL;

	if (wf_map_kernel.map(wf_map_kernel.ctx, segment_bytes(segment), &entries) < 0)
		return wf_fd_find(fd);
	/*
	 * F4: release (the RMW), with F1 in wf_fd_find(). The entries are zero: FREE, no home.
	 */
	if (!wf_ptr_cas(&wf_fd_segments[segment], &none, entries))
		(void)wf_map_kernel.unmap(wf_map_kernel.ctx, entries, segment_bytes(segment));
	return wf_fd_find(fd);
}

static uint64_t word_make(uint32_t generation, uint64_t rest)
{
	return (uint64_t)(generation & WF_FD_GENERATION_MASK) << WF_FD_GENERATION_SHIFT | rest;
}

static uint64_t operations(uint64_t word)
{
	return word & WF_FD_OPERATIONS;
}

/* CLOSING and no operation: somebody is in close(2) or is handing the number back right now. */
static bool is_in_close(uint64_t word)
{
	return wf_fd_state(word) == WF_FD_CLOSING && operations(word) == 0;
}

/*
 * Waits until that somebody is through: a few instructions, unless it was preempted there. Blocks
 * the thread, with the CPU given away after a few pauses, since the other may need it.
 */
static WF_COLD void wait_out_close(struct wf_fd_entry *entry)
{
	for (unsigned i = 0; is_in_close(wf_u64_load_acquire(&entry->word)); i++) {
		if (i < PAUSES_MAX)
			wf_pause();
		else
			wf_thread_yield();
	}
}

/* --- Adoption --- */

/* A layer such as kTLS returns record by record: short counts prove nothing. */
static bool has_upper_layer(int fd)
{
	char name[16];
	socklen_t size = sizeof(name);

	return wf_syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_ULP, name, &size) < 0 || size > 0;
}

static uint64_t kind_of(int fd)
{
	int protocol, type;

	if (wf_sys_get_option(fd, SOL_SOCKET, SO_PROTOCOL, &protocol) < 0 ||
		wf_sys_get_option(fd, SOL_SOCKET, SO_TYPE, &type) < 0)
		return 0;
	if (protocol != IPPROTO_TCP || type != SOCK_STREAM || has_upper_layer(fd))
		return WF_FD_SOCKET;
	return WF_FD_SOCKET | WF_FD_TCP;
}

/*
 * First operation on a descriptor made elsewhere. Two may adopt it at once: the first CAS counts
 * (the other may be the one that saw it blocking: then forget leaves it non-blocking).
 */
static WF_COLD int adopt(struct wf_fd_entry *entry, int fd, uint64_t word)
{
	long flags = wf_syscall(SYS_fcntl, fd, F_GETFL);
	uint64_t kind;

	if (flags < 0)
		return -EBADF;
	kind = kind_of(fd);
	if (!(flags & O_NONBLOCK)) {
		long r = wf_syscall(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK);

		if (r < 0)
			return (int)r;
		kind |= WF_FD_WAS_BLOCKING;
	}
	(void)wf_u64_cas(&entry->word, &word,
		word_make(wf_fd_generation(word), WF_FD_OPEN | kind | WF_FD_READ | WF_FD_WRITE));
	return 0;
}

/* O1 for a handle of Weft's own. */
static WF_NOINLINE int begin_virtual(struct wf_op *op, int fd)
{
	struct wf_mem_socket *socket = wf_mem_find(fd);
	uint64_t word;

	if (!socket)
		return -EBADF;
	op->entry = &socket->entry;
	word = wf_u64_load_relaxed(&op->entry->word);
	for (;;) {
		if (!wf_mem_is_use(word, fd))
			return -EBADF;
		if (wf_fd_state(word) == WF_FD_CLOSING)
			return -ECANCELED;
		if (operations(word) == WF_FD_OPERATIONS_MAX)
			return -EBUSY;
		/* As in wf_op_begin(). */
		if (wf_u64_cas(&op->entry->word, &word, word + 1)) {
			op->word = word + 1;
			return 0;
		}
	}
}

WF_NOINLINE int wf_op_begin_slow(struct wf_op *op, int fd)
{
	struct wf_fd_entry *entry;
	uint64_t word;
	int r = 0;

	if ((unsigned)fd >= WF_FD_NUMBER_MAX)
		return begin_virtual(op, fd);
	entry = wf_fd_find(fd);
	if (!entry) {
		if (wf_syscall(SYS_fcntl, fd, F_GETFD) < 0)
			return -EBADF;
		entry = entry_make(fd);
		if (!entry)
			return -ENOMEM;
	}
	op->entry = entry;
	while (r == 0) {
		word = wf_u64_load_acquire(&entry->word);
		if (wf_fd_state(word) == WF_FD_FREE)
			r = adopt(entry, fd, word);
		else if (is_in_close(word))
			wait_out_close(entry);
		else if (wf_fd_state(word) == WF_FD_CLOSING)
			r = -ECANCELED;
		else if (operations(word) == WF_FD_OPERATIONS_MAX)
			r = -EBUSY;
		else if (wf_u64_cas(&entry->word, &word, word + 1)) {
			op->word = word + 1;
			return 0;
		}
	}
	return r;
}

/* --- Creating and closing --- */

/*
 * The host has closed a descriptor that Weft had in use, and the number is back: whoever still
 * waits on the old one is told (-EBADF), and the entry starts anew.
 */
static WF_COLD void evict(struct wf_fd_entry *entry, uint64_t rest)
{
	bool done = false;

	while (!done) {
		uint64_t word;

		wf_fd_wake_all(entry);
		wf_spinlock_lock(&entry->lock);
		done = !wf_fd_has_waiters(entry);
		if (done) {
			wf_fd_home_clear(entry);
			word = wf_u64_load_relaxed(&entry->word);
			while (!wf_u64_cas(&entry->word, &word,
				word_make(wf_fd_generation(word) + 1, rest)))
				;
		}
		wf_spinlock_unlock(&entry->lock);
	}
}

int wf_fd_reset(int fd, uint64_t kind, uint32_t *generation_out)
{
	uint64_t rest = WF_FD_OPEN | kind | WF_FD_READ | WF_FD_WRITE;
	struct wf_fd_entry *entry = wf_fd_find(fd);
	uint64_t word;

	if (WF_UNLIKELY(!entry) && !(entry = entry_make(fd)))
		return -ENOMEM;
	word = wf_u64_load_relaxed(&entry->word);
	while (WF_LIKELY(wf_fd_state(word) == WF_FD_FREE || is_in_close(word))) {
		/* F8: acquire and release (the RMW), with F9, for the number's last use, and F2. */
		if (wf_u64_cas(&entry->word, &word, word_make(wf_fd_generation(word) + 1, rest))) {
			word = word_make(wf_fd_generation(word) + 1, rest);
			goto out;
		}
	}
	evict(entry, rest);
	word = wf_u64_load_relaxed(&entry->word);
out:
	if (generation_out)
		*generation_out = wf_fd_generation(word);
	return 0;
}

/* The entry's last word: free, unless a reset has been faster. */
static void release(struct wf_fd_entry *entry, uint64_t word)
{
	/*
	 * F9: release (the RMW), with F8 in wf_fd_reset(): the entry is clean before the number is
	 * used again.
	 */
	(void)wf_u64_cas(&entry->word, &word, wf_fd_word_free(word));
}

/*
 * C4 for a handle of Weft's own. Reports may change the word until it is FREE; nobody else uses the
 * entry before it is given back.
 */
static int finish_virtual(struct wf_fd_entry *entry)
{
	struct wf_mem_socket *socket = WF_CONTAINER_OF(entry, struct wf_mem_socket, entry);
	uint64_t word;

	wf_fd_tell_tasks(entry);
	wf_mem_close(socket);
	word = wf_u64_load_relaxed(&entry->word);
	while (!wf_u64_cas(&entry->word, &word, wf_fd_word_free(word)))
		;
	wf_mem_give(socket);
	return 0;
}

/* C4 */
int wf_fd_finish(struct wf_fd_entry *entry, int fd, uint64_t word)
{
	int r;

	WF_ASSERT(is_in_close(word));
	if (WF_UNLIKELY(fd >= WF_FD_NUMBER_MAX))
		return finish_virtual(entry);
	wf_fd_deregister(entry, fd);
	/* Events changed it until the registration was taken out; from now on only a reset does. */
	word = wf_u64_load_relaxed(&entry->word);
	r = wf_sys_close(fd);
	release(entry, word);
	return r == -EINTR ? 0 : r;
}

/*
 * C1: OPEN or FREE → CLOSING, the closer counted if there is an operation. -EBADF if it is not this
 * use of the number, or somebody else closes it already.
 */
static int close_begin(struct wf_fd_entry *entry, uint32_t generation, uint64_t *word_out)
{
	uint64_t word = wf_u64_load_acquire(&entry->word);

	for (;;) {
		uint64_t next = (word & ~WF_FD_STATE) | WF_FD_CLOSING;

		if (generation != WF_FD_ANY_GENERATION && wf_fd_generation(word) != generation)
			return -EBADF;
		if (is_in_close(word)) {
			wait_out_close(entry);
			word = wf_u64_load_acquire(&entry->word);
			continue;
		}
		if (wf_fd_state(word) == WF_FD_CLOSING)
			return -EBADF;
		if (operations(word))
			next++;
		/*
		 * F10: acquire and release (the RMW), with F2 in wf_op_begin(): an operation is
		 * counted or fails.
		 */
		if (wf_u64_cas(&entry->word, &word, next)) {
			*word_out = next;
			return 0;
		}
	}
}

/* C3. An operation in the system call gets its end; one that is parked has been told. */
static WF_COLD void shut_down(int fd)
{
	int type, listens;

	if (fd >= WF_FD_NUMBER_MAX) {
		(void)wf_mem_shutdown(fd, SHUT_RDWR);
		return;
	}
	if (wf_sys_get_option(fd, SOL_SOCKET, SO_TYPE, &type) < 0 || type != SOCK_STREAM ||
		wf_sys_get_option(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens) < 0 || listens)
		return;
	(void)wf_syscall(SYS_shutdown, fd, SHUT_RDWR);
}

/* No memory for an entry: then no call of Weft's has ever used a number of this size. */
static WF_COLD int close_unused(int fd)
{
	int r = wf_sys_close(fd);

	return r == -EINTR ? 0 : r;
}

/* The entry of a handle of Weft's own, and which use of it the handle names. -EBADF: none. */
static int find_virtual(int fd, struct wf_fd_entry **entry_out, uint32_t *generation)
{
	struct wf_mem_socket *socket = wf_mem_find(fd);
	uint64_t word = socket ? wf_u64_load_acquire(&socket->entry.word) : 0;

	if (!socket || !wf_mem_is_use(word, fd))
		return -EBADF;
	*entry_out = &socket->entry;
	if (*generation == WF_FD_ANY_GENERATION)
		*generation = wf_fd_generation(word);
	return 0;
}

int wf_fd_close(int fd, uint32_t generation)
{
	struct wf_fd_entry *entry = wf_fd_find(fd);
	struct wf_op op = { .fd = fd };
	int r;

	if ((unsigned)fd >= WF_FD_NUMBER_MAX && find_virtual(fd, &entry, &generation) < 0)
		return -EBADF;
	if (!entry && wf_syscall(SYS_fcntl, fd, F_GETFD) < 0)
		return -EBADF;
	if (!entry && !(entry = entry_make(fd)))
		return close_unused(fd);
	r = close_begin(entry, generation, &op.word);
	if (r < 0)
		return r;
	if (operations(op.word) == 0)
		return wf_fd_finish(entry, fd, op.word);
	op.entry = entry;
	if (!WF_PLANTED(fd_close_tells_nobody))
		wf_fd_wake_all(entry); /* C2 */
	shut_down(fd);
	wf_op_end(&op);
	return 0;
}

int weft_close(int fd)
{
	return wf_fd_close(fd, WF_FD_ANY_GENERATION);
}

int weft_fd_forget(int fd)
{
	struct wf_fd_entry *entry = wf_fd_find(fd);
	uint64_t word, next;

	if (!entry) {
		uint32_t generation = WF_FD_ANY_GENERATION;

		return find_virtual(fd, &entry, &generation) == 0 ? -EINVAL : -EBADF;
	}
	word = wf_u64_load_acquire(&entry->word);
	do {
		if (wf_fd_state(word) != WF_FD_OPEN)
			return -EBADF;
		if (operations(word))
			return -EBUSY;
		next = (word & ~WF_FD_STATE) | WF_FD_CLOSING;
	} while (!wf_u64_cas(&entry->word, &word, next)); /* as F10 */
	wf_fd_deregister(entry, fd);
	if (next & WF_FD_WAS_BLOCKING) {
		long flags = wf_syscall(SYS_fcntl, fd, F_GETFL);

		if (flags >= 0)
			(void)wf_syscall(SYS_fcntl, fd, F_SETFL, flags & ~(long)O_NONBLOCK);
	}
	release(entry, wf_u64_load_relaxed(&entry->word));
	return 0;
}

bool weft_fd_kernel(int fd)
{
	return fd >= 0 && fd < WF_FD_NUMBER_MAX;
}

/* --- Checking --- */

static bool invalid(int fd, uint64_t word, const char *reason)
{
	fprintf(stderr, "weft: descriptor %d: %s (word %#llx)\n", fd, reason,
		(unsigned long long)word);
	return false;
}

bool wf_fd_valid(int fd)
{
	struct wf_fd_entry *entry = wf_fd_find(fd);
	bool waiters, names, home;
	uint64_t word;

	if (!entry)
		return true;
	wf_spinlock_lock(&entry->lock);
	word = wf_u64_load_relaxed(&entry->word);
	names = wf_fd_has_waiters(entry);
	waiters = wf_ptr_load_relaxed(&entry->many);
	home = entry->registration != WF_FD_UNREGISTERED || entry->home_runtime;
	wf_spinlock_unlock(&entry->lock);
	if (wf_fd_state(word) > WF_FD_CLOSING)
		return invalid(fd, word, "no such state");
	if (waiters && operations(word) == 0)
		return invalid(fd, word, "waiters without an operation");
	if (wf_fd_state(word) != WF_FD_FREE)
		return true;
	if (home || names)
		return invalid(fd, word, "free, but registered, or waited for");
	return operations(word) ? invalid(fd, word, "free, but in use") : true;
}
