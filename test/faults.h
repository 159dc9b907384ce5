/*
 * faults.h: makes the n-th call of a kind fail (sync/fault.h), for n = 1, 2, … until a scenario is
 * passed untouched, with each error that the manual page of the call allows; and looks after each
 * time whether anything was left behind.
 *
 *	static void scenario(void *arg)
 *	{
 *		int r = CALL(weft_rt_create(&opts, &rt));
 *
 *		if (!documented(r, -ENOMEM, -EAGAIN))
 *			return;
 *		…
 *	}
 *	Test(faults, create)
 *	{
 *		cr_assert_geq(faults_sweep(scenario, NULL, true), FAULTS_AT_LEAST(40));
 *	}
 *
 * A scenario is a well-behaved program: it looks at each result, and takes back what it has when it
 * cannot go on. CALL checks that `errno` is left alone, and that an error is one which the comment
 * of the function names, in the public header itself; documented() that a call fails only after a
 * fault, and here only with some of them. After the faults of each n comes a run without, in the
 * same process: nothing may have stuck. Between two runs descriptors, threads, blocks of
 * faults_allocator and mappings are as they were (what the library takes from malloc past its
 * allocator is LeakSanitizer's: `ninja check-asan`).
 *
 * Calls are counted by kind (mmap, accept4, …), not all together: threads that race change the
 * order of kinds, hardly ever the number within one. Where they do (sleeps: epoll_pwait2, futex)
 * only the first few fail; each is the same place.
 *
 * In release nothing can fail (WF_FAULTS): scenarios run once, untouched.
 *
 * A run that hangs is ended by SIGALRM, which says what had failed. With FAULTS_SHOW in the
 * environment each sweep tells how many calls of each kind it has met.
 */
#ifndef WF_TEST_FAULTS_H
#define WF_TEST_FAULTS_H

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <weft.h>

#include "sync/atomic.h"
#include "sync/fault.h"
#include "test/harness.h"

enum {
	FAULTS_ERRNO = 4242, /* the caller's, which no call may change */
	FAULTS_ERRORS_MAX = 10,
	FAULTS_HANG_S = 20,
	FAULTS_THREADS_MAX = 24,
	FAULTS_THREAD_STACK_BYTES = 256 * 1024,
	FAULTS_N_MAX = 400, /* of one kind: more means that the scenario never passes */
};

/* --- What can fail, and how --- */

struct faults_kind {
	long call;
	const char *name;
	/* Of the manual page, those that can come to a caller who makes no mistake. */
	int errors[FAULTS_ERRORS_MAX];
	int lasting;    /* an error that may also stay: all calls from the n-th on; 0: none */
	unsigned n_max; /* 0: until the scenario passes untouched */
};

static const struct faults_kind faults_kinds[] = {
	{WF_CALL_ALLOCATE, "allocate", {ENOMEM}, ENOMEM, 0},
	{WF_CALL_THREAD, "pthread_create", {EAGAIN}, EAGAIN, 0},
	{WF_CALL_THREAD_KEY, "pthread_key", {ENOMEM, EAGAIN}, ENOMEM, 0},
	/* By way of EAI_SYSTEM. */
	{WF_CALL_LOOKUP, "getaddrinfo", {EMFILE, ENOMEM, EAGAIN, ECONNREFUSED}, EMFILE, 0},
	{WF_CALL_SPAWN, "posix_spawn", {EAGAIN, ENOMEM, ENOENT}, EAGAIN, 0},
	{SYS_mmap, "mmap", {ENOMEM, EAGAIN}, ENOMEM, 0},
	{SYS_munmap, "munmap", {ENOMEM}, 0, 0},
	{SYS_madvise, "madvise", {ENOMEM, EAGAIN, EINVAL}, ENOMEM, 0},
	{SYS_mprotect, "mprotect", {ENOMEM, EACCES}, ENOMEM, 0},
	{SYS_mincore, "mincore", {EAGAIN}, 0, 0},
	{SYS_futex, "futex", {EINTR}, 0, 6},
	{SYS_openat, "open", {ENOENT, EMFILE, ENOMEM}, EMFILE, 0},
	{SYS_sched_getaffinity, "sched_getaffinity", {EINVAL}, 0, 0},
	{SYS_sched_setaffinity, "sched_setaffinity", {EINVAL, EPERM}, EINVAL, 0},
	{SYS_epoll_create1, "epoll_create1", {EMFILE, ENFILE, ENOMEM}, EMFILE, 0},
	{SYS_eventfd2, "eventfd", {EMFILE, ENFILE, ENODEV, ENOMEM}, EMFILE, 0},
	{SYS_signalfd4, "signalfd", {EMFILE, ENFILE, ENODEV, ENOMEM}, EMFILE, 0},
	{SYS_timerfd_create, "timerfd_create", {EMFILE, ENFILE, ENODEV, ENOMEM}, EMFILE, 0},
	{SYS_pidfd_open, "pidfd_open", {EMFILE, ENFILE, ENOMEM, ENOSYS}, EMFILE, 0},
	{SYS_pidfd_send_signal, "pidfd_send_signal", {EPERM}, 0, 0},
	{SYS_waitid, "waitid", {EINTR}, 0, 6},
	{SYS_epoll_ctl, "epoll_ctl", {ENOMEM, ENOSPC}, ENOSPC, 0},
	{SYS_epoll_pwait, "epoll_wait", {EINTR}, 0, 6},
	/* As on an old kernel, or behind a filter that does not know the call. */
	{SYS_epoll_pwait2, "epoll_pwait2", {EINTR, ENOSYS, EPERM}, 0, 6},
	{SYS_ppoll, "poll", {EINTR, ENOMEM}, 0, 0},
	{SYS_socket, "socket", {EMFILE, ENFILE, ENOMEM, ENOBUFS, EACCES, EPERM, EAFNOSUPPORT},
		EMFILE, 0},
	{SYS_setsockopt, "setsockopt", {ENOMEM, ENOBUFS, ENOPROTOOPT, EPERM}, 0, 0},
	{SYS_getsockopt, "getsockopt", {ENOMEM, ENOBUFS, ENOPROTOOPT}, 0, 0},
	{SYS_bind, "bind", {EADDRINUSE, EADDRNOTAVAIL, EACCES, EPERM, ENOMEM}, EADDRINUSE, 0},
	{SYS_listen, "listen", {EADDRINUSE}, EADDRINUSE, 0},
	{SYS_getsockname, "getsockname", {ENOBUFS}, 0, 0},
	{SYS_connect, "connect",
		{ECONNREFUSED, ENETUNREACH, ETIMEDOUT, EADDRNOTAVAIL, EACCES, EPERM, EINTR, EAGAIN,
			ENOBUFS},
		ECONNREFUSED, 0},
	{SYS_accept4, "accept",
		{EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EINTR, EPROTO, EPERM}, 0, 0},
	{SYS_recvfrom, "recv", {EINTR, ENOMEM, ECONNRESET, ETIMEDOUT}, ECONNRESET, 0},
	{SYS_sendto, "send", {EINTR, ENOMEM, ENOBUFS, ECONNRESET, EPIPE}, EPIPE, 0},
	{SYS_read, "read", {EINTR, EIO}, EIO, 0},
	{SYS_write, "write", {EINTR, EIO, ENOSPC, EPIPE}, EPIPE, 0},
	{SYS_shutdown, "shutdown", {ENOTCONN}, 0, 0},
	{SYS_fcntl, "fcntl", {EPERM}, 0, 0},
	{SYS_close, "close", {EINTR, EIO}, 0, 0},
};

/* --- The plan --- */

/* What a sweep has to reach at least: that the hook is asked still. In release nothing fails. */
#define FAULTS_AT_LEAST(count) (!WF_FAULTS ? 0 : HARNESS_TSAN ? (count) / 3 : (count))

#define FAULTS_ALL   UINT64_MAX
#define FAULTS_NEVER (UINT64_MAX / 2)

/* Written while no thread of Weft's runs. */
static struct {
	long call; /* 0: nothing fails */
	const char *name;
	uint64_t from;  /* the first to fail, from 1 */
	uint64_t count; /* how many in a row */
	int error;
	bool only_mine; /* count only the calls of the thread that has made the plan */
	wf_atomic_u64 seen, fired;
	wf_atomic_u64 asked; /* of any kind */
} faults;

static __thread bool faults_mine;

static inline uint64_t faults_fired(void)
{
	return wf_u64_load_relaxed(&faults.fired);
}

#if WF_FAULTS

static inline int faults_decide(long call)
{
	uint64_t n;

	if (call != faults.call || (faults.only_mine && !faults_mine))
		return 0;
	n = wf_u64_fetch_add(&faults.seen, 1) + 1;
	if (n < faults.from || n - faults.from >= faults.count || n >= FAULTS_NEVER)
		return 0;
	(void)wf_u64_fetch_add(&faults.fired, 1);
	return -faults.error;
}

static int faults_hook(long call)
{
	int r = faults_decide(call);

	/* P1: release (the RMW), with P2: the resolver's threads are joined by nobody. */
	(void)wf_u64_fetch_add(&faults.asked, 1);
	return r;
}

static inline void faults_hook_set(bool on)
{
	wf_ptr_store_release(&wf_fault_hook, on ? (void *)faults_hook : NULL);
}

#else

static inline void faults_hook_set(bool on)
{
	(void)on;
}

#endif

static inline void faults_headers_read(void);

static void faults_hang(int sig)
{
	char text[160];
	int length = snprintf(text, sizeof(text),
		"hangs: %s, from call %" PRIu64 ", errno %d, failed %" PRIu64 " times\n",
		faults.call ? faults.name : "untouched", faults.from, faults.error, faults_fired());

	(void)sig;
	if (write(STDERR_FILENO, text, (size_t)length) < 0)
		_exit(102);
	abort();
}

/* The `from`-th call of a kind and the next count - 1 give `error`. */
static inline void faults_plan(
	long call, const char *name, uint64_t from, uint64_t count, int error)
{
	faults_headers_read();
	(void)wf_u64_load_acquire(&faults.asked); /* P2, with P1: who has read the last plan */
	faults.call = call;
	faults.name = name;
	faults.from = from;
	faults.count = count;
	faults.error = error;
	wf_u64_store_relaxed(&faults.seen, 0);
	wf_u64_store_relaxed(&faults.fired, 0);
	faults_mine = true;
	faults_hook_set(call != 0);
	signal(SIGALRM, faults_hang);
	alarm(FAULTS_HANG_S * HARNESS_SLOWDOWN);
}

/*
 * For tests whose runtime outlives a plan: false: nothing fails from here on; true: the calls are
 * counted from 1 again. The plan itself is made while no thread of Weft's runs.
 */
static inline void faults_arm(bool armed)
{
	wf_u64_store_relaxed(&faults.seen, armed ? 0 : FAULTS_NEVER);
}

static inline void faults_plan_none(void)
{
	faults_plan(0, "untouched", 0, 0, 0);
	alarm(0);
}

/* --- What a scenario checks --- */

static inline void faults_check_errno(const char *what)
{
	cr_assert_eq(errno, FAULTS_ERRNO, "%s changed errno", what);
}

/* --- What the public headers promise --- */

static const char *const faults_header_paths[] = {
	"core/weft.h", "core/process.h", "core/signal.h", "core/time.h", "core/blocking.h",
	"io/child.h", "io/io.h"}; /* the last: faults_is_listed() */

static char *faults_headers[WF_ARRAY_COUNT(faults_header_paths)];

/* Once, before anything is counted. Tests run in the root of the tree. */
static inline void faults_headers_read(void)
{
	enum { BYTES_MAX = 64 * 1024 };

	for (size_t i = 0; i < WF_ARRAY_COUNT(faults_headers) && !faults_headers[i]; i++) {
		FILE *file = fopen(faults_header_paths[i], "re");
		size_t length;

		cr_assert_not_null(file, "%s: run this in the root of the tree",
			faults_header_paths[i]);
		faults_headers[i] = malloc(BYTES_MAX);
		cr_assert_not_null(faults_headers[i]);
		length = fread(faults_headers[i], 1, BYTES_MAX, file);
		cr_assert_lt(length, (size_t)BYTES_MAX);
		faults_headers[i][length] = '\0';
		fclose(file);
	}
}

/* A stretch of text: [from, to). */
struct faults_text {
	const char *from, *to;
};

static inline bool faults_is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		c == '_';
}

static inline size_t faults_word_length(const char *text)
{
	size_t length = 0;

	while (faults_is_word(text[length]))
		length++;
	return length;
}

/* True if the text has `word`, and not as the start of a longer one. */
static inline const char *faults_find(struct faults_text text, const char *word, size_t length)
{
	for (const char *at = text.from; at + length <= text.to; at++)
		if (memcmp(at, word, length) == 0 && !faults_is_word(at[length]))
			return at;
	return NULL;
}

/* The comment above the declaration of a function. header_out: where it is. */
static inline struct faults_text faults_comment_of(
	const char *name, size_t length, const char **header_out)
{
	for (size_t i = 0; i < WF_ARRAY_COUNT(faults_headers); i++) {
		const char *line = faults_headers[i], *from = line, *to = line;

		for (const char *next = line; next; line = next + 1) {
			next = strchr(line, '\n');
			if (strncmp(line, "/*", 2) == 0)
				from = line;
			if (next && next - line >= 3 && strncmp(next - 3, " */", 3) == 0)
				to = next;
			else if (next && strncmp(line, "WEFT_API ", 9) == 0 &&
				faults_find((struct faults_text){line, next}, name, length)) {
				*header_out = faults_headers[i];
				return (struct faults_text){from, to};
			}
			if (!next)
				break;
		}
	}
	cr_assert_fail("no public header has %.*s", (int)length, name);
	return (struct faults_text){NULL, NULL};
}

static inline bool faults_says(struct faults_text text, const char *words)
{
	return faults_find(text, words, strlen(words)) != NULL;
}

/* The name in "as weft_listen()", "Like weft_spawn()", "as weft_rt_create/weft_rt_run"; or NULL. */
static inline const char *faults_referred(const char *text)
{
	static const char *const before[] = {"as", "Like", "/"};

	for (size_t i = 0; i < WF_ARRAY_COUNT(before); i++) {
		size_t length = strlen(before[i]);

		if (strncmp(text, before[i], length) != 0)
			continue;
		text += length;
		text += strspn(text, " \n*");
		return strncmp(text, "weft_", 5) == 0 ? text : NULL;
	}
	return NULL;
}

/* Whether a function's comment names an error, or leaves it to another's: "as weft_listen()". */
static inline bool faults_is_listed(const char *name, size_t length, const char *error, int depth)
{
	const char *header = NULL;
	struct faults_text text = faults_comment_of(name, length, &header);
	struct faults_text page = {header, strstr(header, "*/")};
	bool io = header == faults_headers[WF_ARRAY_COUNT(faults_headers) - 1];

	if (faults_says(text, error) || (io && faults_says(page, error)))
		return true;
	/* "What the system call gives", and the like. */
	if (faults_fired() > 0 && strcmp(error + 1, strerrorname_np(faults.error)) == 0 &&
		(io || faults_says(text, "other errors of the failing step")))
		return true;
	for (const char *at = text.from; depth > 0 && at < text.to; at++) {
		const char *other = faults_referred(at);

		if (other && faults_is_listed(other, faults_word_length(other), error, depth - 1))
			return true;
	}
	return false;
}

/* A call's error stands in the comment of its function: a user has been told. */
static inline void faults_check_listed(const char *what, long r)
{
	char error[32];

	if (r >= 0)
		return;
	snprintf(error, sizeof(error), "-%s", strerrorname_np((int)-r));
	cr_assert(faults_is_listed(what, faults_word_length(what), error, 3),
		"%s gives %s, which its comment does not name (%s number %" PRIu64 ", %s)", what,
		error, faults.name, faults.from, strerror(faults.error));
}

/* The value of a call of Weft's, which leaves errno alone; an error is one its header names. */
#define CALL(expression)                                                 \
	({                                                               \
		errno = FAULTS_ERRNO;                                    \
		__typeof__(expression) faults_result = (expression);     \
		faults_check_errno(#expression);                         \
		faults_check_listed(#expression, (long)(faults_result)); \
		faults_result;                                           \
	})

static inline bool faults_documented(const char *what, long r, const int *errors, bool passes_on)
{
	bool ok = false;

	if (r >= 0)
		return true;
	cr_assert_gt(
		faults_fired(), 0, "%s: %s, and nothing was made to fail", what, strerror((int)-r));
	for (; *errors; errors++)
		ok = ok || r == *errors;
	if (passes_on && r == -faults.error)
		switch (faults.error) {
		case EAGAIN: /* these mean something else in Weft */
		case EPERM:
		case EBADF:
		case ECANCELED:
		case ETIME:
		case EBUSY:
		case ESHUTDOWN:
			break;
		default:
			ok = true;
		}
	cr_assert(ok, "%s gives %s, undocumented, when %s number %" PRIu64 " gives %s", what,
		strerror((int)-r), faults.name, faults.from, strerror(faults.error));
	return false;
}

/* True: it succeeded; false: it failed, after a fault, with one of these errors. */
#define documented(r, ...) faults_documented(#r, r, (const int[]){__VA_ARGS__, 0}, false)
/* For calls that also give what the system call gives. */
#define documented_io(r, ...) faults_documented(#r, r, (const int[]){__VA_ARGS__, 0}, true)

/* --- Memory of runtimes, counted --- */

static wf_atomic_u64 faults_blocks, faults_bytes;

static void *faults_allocate(void *ctx, size_t alignment, size_t size)
{
	void *memory = NULL;

	(void)ctx;
	if (posix_memalign(&memory, alignment < sizeof(void *) ? sizeof(void *) : alignment, size))
		return NULL;
	memset(memory, 0xa5, size < 4096 ? size : 4096);
	(void)wf_u64_fetch_add(&faults_blocks, 1);
	(void)wf_u64_fetch_add(&faults_bytes, size);
	return memory;
}

static void faults_release(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	(void)wf_u64_fetch_add(&faults_blocks, (uint64_t)-1);
	(void)wf_u64_fetch_add(&faults_bytes, -(uint64_t)size);
	free(memory);
}

static const struct weft_allocator faults_allocator = {faults_allocate, faults_release, NULL};

/* --- Runtimes --- */

static void faults_log(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)level;
	(void)worker;
	(void)pid;
	cr_assert_gt(strlen(text), 0);
}

/* What weft_error promises of a failure. */
static inline void faults_check_error(const struct weft_error *error, int r)
{
	cr_assert_eq(error->error, r);
	cr_assert_not_null(error->step);
	cr_assert_gt(strlen(error->step), 0);
	cr_assert_not_null(strstr(error->text, weft_strerror(r)), "\"%s\" does not say %s",
		error->text, weft_strerror(r));
}

/* NULL if it failed as it may. */
static inline weft_rt *faults_rt(struct weft_rt_opts opts)
{
	struct weft_error error = {0};
	weft_rt *rt = NULL;
	int r;

	opts.size = sizeof(opts);
	opts.allocator = &faults_allocator;
	opts.log = faults_log;
	opts.error = &error;
	r = CALL(weft_rt_create(&opts, &rt));
	if (documented_io(r, -ENOMEM, -EAGAIN, -EMFILE, -ENODEV))
		return rt;
	cr_assert_null(rt);
	faults_check_error(&error, r);
	return NULL;
}

/* The same with nothing failing yet: for what comes after, since making one has its own tests. */
static inline weft_rt *faults_rt_unharmed(struct weft_rt_opts opts)
{
	weft_rt *rt;

	faults_hook_set(false);
	/* Its looks into files would take numbers that tests count on. */
	opts.stall_ns = WEFT_FOREVER;
	rt = faults_rt(opts);
	faults_hook_set(faults.call != 0);
	return rt;
}

static inline void faults_rt_end(weft_rt *rt)
{
	cr_assert_eq(CALL(weft_rt_destroy(rt, WEFT_FOREVER)), 0);
}

/* --- What is left behind --- */

struct faults_usage {
	unsigned fds;
	unsigned threads;
	size_t mapped_bytes; /* without a name: stacks, of fibers and threads; large blocks */
};

static inline size_t faults_mapped_bytes(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	size_t sum = 0;
	char line[512];

	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file)) {
		uintptr_t from, to, inode;
		int named = 0;

		cr_assert_eq(sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %" SCNuPTR " %n",
				     &from, &to, &inode, &named),
			3, "%s", line);
		if (inode == 0 && (line[named] == '\0' || line[named] == '\n'))
			sum += to - from;
	}
	fclose(file);
	return sum;
}

static inline struct faults_usage faults_usage(void)
{
	bool sanitized = HARNESS_ASAN || HARNESS_TSAN; /* which map memory for themselves */

	return (struct faults_usage){
		harness_fd_count(), harness_thread_count(), sanitized ? 0 : faults_mapped_bytes()};
}

/* Nothing but what was there before. Threads that have ended leave the list a moment later. */
static inline void faults_check_usage(const struct faults_usage *before)
{
	struct faults_usage now;

	while (harness_thread_count() > before->threads)
		sched_yield();
	now = faults_usage();
	cr_assert_eq(wf_u64_load_relaxed(&faults_blocks), 0,
		"%s %" PRIu64 " leaks %" PRIu64 " bytes", faults.name, faults.from,
		wf_u64_load_relaxed(&faults_bytes));
	cr_assert_eq(wf_u64_load_relaxed(&faults_bytes), 0);
	cr_assert_eq(now.fds, before->fds, "%s %" PRIu64 " leaks a descriptor", faults.name,
		faults.from);
	/* What the system refuses to unmap stays. */
	if (faults.call != SYS_munmap)
		cr_assert_leq(now.mapped_bytes, before->mapped_bytes,
			"%s %" PRIu64 " leaks a mapping", faults.name, faults.from);
}

/* --- The sweep --- */

struct faults_sweep {
	void (*scenario)(void *arg);
	void *arg;
	bool lasts; /* errors that stay, too */
	struct faults_usage before;
	unsigned points;
};

/* One run with a plan. True: the plan's call was reached. */
static inline bool faults_run(struct faults_sweep *sweep, const struct faults_kind *kind,
	uint64_t from, uint64_t count, int error)
{
	bool fired;

	faults_plan(kind->call, kind->name, from, count, error);
	sweep->scenario(sweep->arg);
	fired = faults_fired() > 0;
	faults_hook_set(false);
	faults_check_usage(&sweep->before);
	if (faults.call == SYS_munmap)
		sweep->before.mapped_bytes = faults_usage().mapped_bytes;
	sweep->points += fired;
	return fired;
}

static inline void faults_run_untouched(struct faults_sweep *sweep)
{
	faults_plan_none();
	alarm(FAULTS_HANG_S * HARNESS_SLOWDOWN);
	sweep->scenario(sweep->arg);
	faults_check_usage(&sweep->before);
}

static inline void faults_sweep_kind(struct faults_sweep *sweep, const struct faults_kind *kind)
{
	uint64_t n_max = kind->n_max ? kind->n_max : FAULTS_N_MAX;
	unsigned errors_max = HARNESS_TSAN ? 1 : FAULTS_ERRORS_MAX; /* races hardly depend on it */
	unsigned points = sweep->points;
	bool fired = true;
	uint64_t n;

	for (n = 1; fired && n <= n_max; n++) {
		for (unsigned i = 0; fired && i < errors_max && kind->errors[i]; i++)
			fired = faults_run(sweep, kind, n, 1, kind->errors[i]);
		if (fired && sweep->lasts && kind->lasting)
			fired = faults_run(sweep, kind, n, FAULTS_ALL, kind->lasting);
		faults_run_untouched(sweep);
		cr_assert(!fired || n < FAULTS_N_MAX, "%s never passes", kind->name);
	}
	if (getenv("FAULTS_SHOW") && sweep->points > points)
		fprintf(stderr, "%20s: %u faults in the first %" PRIu64 " calls\n", kind->name,
			sweep->points - points, fired ? n_max : n - 2);
}

static void faults_be_a_thread(unsigned index, void *arg)
{
	(void)index;
	(void)arg;
}

/*
 * Makes what a run leaves mapped the same each time: one arena; large blocks in mappings of their
 * own; and more thread stacks in the C library's cache than a run can need.
 */
static inline void faults_settle_maps(void)
{
	pthread_attr_t attr;

	if (HARNESS_ASAN || HARNESS_TSAN)
		return;
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 65536);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, FAULTS_THREAD_STACK_BYTES);
	cr_assert_eq(pthread_setattr_default_np(&attr), 0);
	pthread_attr_destroy(&attr);
	harness_threads(FAULTS_THREADS_MAX, faults_be_a_thread, NULL);
}

/*
 * Returns how many different faults were injected; in release 0. `lasts`: also errors that stay,
 * from the n-th call on; not for scenarios that wait until what failed is tried again.
 */
static inline unsigned faults_sweep(void (*scenario)(void *arg), void *arg, bool lasts)
{
	struct faults_sweep sweep = {.scenario = scenario, .arg = arg, .lasts = lasts};

	faults_settle_maps();
	faults_plan_none();
	for (int i = 0; i < 3; i++)
		scenario(arg); /* what is made once stays */
	sweep.before = faults_usage();
	for (size_t i = 0; WF_FAULTS && i < WF_ARRAY_COUNT(faults_kinds); i++)
		faults_sweep_kind(&sweep, &faults_kinds[i]);
	faults_plan_none();
	if (getenv("FAULTS_SHOW"))
		fprintf(stderr, "%u faults\n", sweep.points);
	return sweep.points;
}

#endif
