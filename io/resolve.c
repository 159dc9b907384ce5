/*
 * resolve.c: looks names up on threads of its own, because the C library's resolver blocks, and
 * needs more stack than a fiber has.
 *
 * A lookup is a job on the heap; at most LOOKUP_THREADS_MAX threads for the whole process take them
 * from one queue, oldest first, and end when it is empty. They belong to no runtime: the resolver
 * cannot be interrupted, so a runtime must be able to end while one of them is inside it.
 *
 *	R1 the process queues its job with its wait's number, under the lock, starts a thread unless
 *	   enough are running, and parks.
 *	R2 a thread takes the oldest job (QUEUED → RUNNING), asks, and writes the answer into the
 *	   job.
 *	R3 under the lock: RUNNING → DONE; then, unlocked, it claims the wait by its id, touching
 *	   the job no more. If the process has left meanwhile (ABANDONED), the thread frees the job.
 *	R4 a process whose deadline or cancel came first looks under the lock: QUEUED: it takes its
 *	   job back and frees it; RUNNING → ABANDONED; DONE: it has an answer after all.
 * So each job is freed exactly once: by the process, or by the thread if the process left at
 * RUNNING.
 *
 * The job is malloc's, not the runtime's: an abandoned one may outlive its runtime, and does not
 * outlive its lookup.
 */
#include "io/resolve.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/driver.h"
#include "core/internal.h"
#include "core/sched.h"
#include "sync/fault.h"
#include "sync/spinlock.h"

enum {
	LOOKUP_THREADS_MAX = 8,
};

enum lookup_state {
	LOOKUP_QUEUED,
	LOOKUP_RUNNING,
	LOOKUP_DONE,
	LOOKUP_ABANDONED,
};

struct lookup {
	struct lookup *next;
	enum lookup_state state;
	struct wf_wait wait;
	int result;
	uint16_t port;
	char name[WF_HOST_MAX];
	struct wf_addrs addrs;
};

/* The queue, and how many threads serve it. */
static struct {
	struct wf_spinlock lock;
	unsigned threads;
	struct lookup *first, **last; /* last: NULL until first used */
} queue;

static void queue_append(struct lookup *lookup)
{
	lookup->next = NULL;
	if (!queue.first)
		queue.last = &queue.first;
	*queue.last = lookup;
	queue.last = &lookup->next;
}

static struct lookup *queue_take(void)
{
	struct lookup *lookup = queue.first;

	if (lookup)
		queue.first = lookup->next;
	return lookup;
}

static void queue_remove(const struct lookup *lookup)
{
	struct lookup **link = &queue.first;

	while (*link != lookup)
		link = &(*link)->next;
	*link = lookup->next;
	if (!lookup->next)
		queue.last = link;
}

/* R3. */
static void lookup_done(struct lookup *lookup, int result)
{
	struct wf_wait wait = lookup->wait;
	bool abandoned;

	wf_spinlock_lock(&queue.lock);
	lookup->result = result;
	abandoned = lookup->state == LOOKUP_ABANDONED;
	lookup->state = LOOKUP_DONE;
	wf_spinlock_unlock(&queue.lock);
	if (abandoned)
		free(lookup);
	else
		(void)wf_wait_claim_pid(wait.pid, wait.number);
}

/* R2. */
static void serve_queue(void *arg)
{
	struct lookup *lookup;

	(void)arg;
	wf_thread_unpin(); /* from the CPU of the worker that has started it */
	wf_thread_name("weft/resolve");
	for (;;) {
		wf_spinlock_lock(&queue.lock);
		lookup = queue_take();
		if (lookup)
			lookup->state = LOOKUP_RUNNING;
		else
			queue.threads--;
		wf_spinlock_unlock(&queue.lock);
		if (!lookup)
			return;
		lookup_done(lookup, wf_addr_lookup(lookup->name, lookup->port, &lookup->addrs));
	}
}

/*
 * A thread was counted, and could not be started. Others serve the queue; if there are none,
 * everybody in it fails.
 */
static WF_COLD void start_failed(int error)
{
	struct lookup *lookup;

	wf_spinlock_lock(&queue.lock);
	queue.threads--;
	wf_spinlock_unlock(&queue.lock);
	do {
		wf_spinlock_lock(&queue.lock);
		lookup = queue.threads == 0 ? queue_take() : NULL;
		if (lookup)
			lookup->state = LOOKUP_RUNNING;
		wf_spinlock_unlock(&queue.lock);
		if (lookup)
			lookup_done(lookup, error);
	} while (lookup);
}

/* R1. */
static void lookup_start(struct lookup *lookup)
{
	pthread_t thread;
	bool start;
	int r = 0;

	wf_spinlock_lock(&queue.lock);
	queue_append(lookup);
	start = queue.threads < LOOKUP_THREADS_MAX;
	if (start)
		queue.threads++;
	wf_spinlock_unlock(&queue.lock);
	if (!start)
		return;
	r = wf_thread_start(&thread, serve_queue, NULL);
	/* Not as it is: a refused thread is EAGAIN, which the caller takes for "would wait". */
	if (r < 0)
		start_failed(-ENOMEM);
	else
		pthread_detach(thread);
}

/* R4. The answer, if the job is the process's again; else `r`. */
static int lookup_leave(struct lookup *lookup, int r, struct wf_addrs *out)
{
	bool mine = true;

	wf_spinlock_lock(&queue.lock);
	if (lookup->state == LOOKUP_QUEUED) {
		queue_remove(lookup);
	} else if (lookup->state == LOOKUP_RUNNING) {
		lookup->state = LOOKUP_ABANDONED;
		mine = false;
	} else {
		r = lookup->result;
		*out = lookup->addrs;
	}
	wf_spinlock_unlock(&queue.lock);
	if (mine)
		free(lookup);
	return r;
}

static int lookup_in_process(
	const char *name, uint16_t port, struct wf_addrs *out, weft_time deadline)
{
	int saved = errno; /* malloc sets it when it fails */
	struct lookup *lookup = wf_fails(WF_CALL_ALLOCATE) ? NULL : malloc(sizeof(*lookup));

	errno = saved;
	if (!lookup)
		return -ENOMEM;
	*lookup = (struct lookup){ .state = LOOKUP_QUEUED, .port = port };
	memcpy(lookup->name, name, strlen(name) + 1);
	wf_wait_begin(&lookup->wait);
	lookup_start(lookup);
	return lookup_leave(lookup, wf_wait_park(&lookup->wait, deadline), out);
}

static void add(struct wf_addrs *out, struct wf_addr addr)
{
	out->addr[out->count++] = addr;
}

static void use_all(struct wf_addrs *out, enum wf_resolve_use use, uint16_t port)
{
	bool listens = use == WF_RESOLVE_LISTEN;

	add(out, listens ? wf_addr_wildcard(AF_INET6, port) : wf_addr_loopback(AF_INET6, port));
	add(out, listens ? wf_addr_wildcard(AF_INET, port) : wf_addr_loopback(AF_INET, port));
}

static bool is_unnamed(const char *address)
{
	return strcmp(address, "mem:") == 0;
}

/* Of a runtime whose own driver is "mem". It has one host, which every address and name is. */
static bool network_is_in_memory(void)
{
	struct wf_worker *worker = wf_worker_self();

	return worker && (wf_worker_driver(worker)->caps & WF_DRIVER_VIRTUAL);
}

int wf_resolve(
	const char *address, enum wf_resolve_use use, struct wf_addrs *out, weft_time deadline)
{
	struct wf_addr_text text;
	int r;

	out->count = 0;
	out->in_memory[0] = '\0';
	r = wf_addr_parse_mem(address, out->in_memory);
	if (r <= 0)
		return r == 0 && use == WF_RESOLVE_CONNECT && is_unnamed(out->in_memory) ? -EINVAL
											 : r;
	r = wf_addr_parse(address, &text);
	if (r < 0 || (use == WF_RESOLVE_CONNECT && text.port == 0))
		return -EINVAL;
	if (network_is_in_memory()) {
		snprintf(out->in_memory, sizeof(out->in_memory), "tcp:127.0.0.1:%u", text.port);
		return 0;
	}
	if (text.kind == WF_HOST_LITERAL && !wf_addr_is_wildcard(&text.literal)) {
		add(out, text.literal);
		return 0;
	}
	if (text.kind == WF_HOST_LITERAL && text.literal.any.sa_family == AF_INET) {
		add(out, use == WF_RESOLVE_LISTEN ? text.literal
						  : wf_addr_loopback(AF_INET, text.port));
		return 0;
	}
	if (text.kind != WF_HOST_NAME) {
		use_all(out, use, text.port);
		return 0;
	}
	if (wf_wait_in_task())
		return -EPERM;
	if (wf_wait_check() == -EPERM)
		return wf_addr_lookup(text.name, text.port, out);
	return lookup_in_process(text.name, text.port, out, deadline);
}
