/*
 * guard.h: a stack overflow that says whose it is (option guard_report).
 *
 * While it is installed, SIGSEGV and SIGBUS go to a handler on a signal stack of the thread's own.
 * If the address lies in the guard page of the stack that the thread is running on, it prints
 *
 *	weft: stack overflow in fiber "NAME" (ID), stack size N bytes
 *
 * to stderr by one write(2), and aborts. Every other fault is passed on, as if this handler did not
 * exist: to the handler found at install, or to the default action.
 *
 * Threads: install and uninstall are counted, from any thread; each runtime does one of each. The
 * two calls for threads are for the thread they concern. If the host has put a handler of its own
 * before this one meanwhile, uninstall leaves both in place (the host's may call this one, which
 * from then on only passes on), and a later install finds its place taken and changes nothing.
 */
#ifndef WF_CORE_GUARD_H
#define WF_CORE_GUARD_H

#include <signal.h>
#include <stdbool.h>

#include "core/stack.h"

enum {
	WF_GUARD_NAME_BYTES = 32,
	WF_GUARD_ID_BYTES = 32,
};

/* The fiber that runs on the calling thread. */
struct wf_guard_subject {
	const struct wf_stack *stack;
	char name[WF_GUARD_NAME_BYTES]; /* NUL-terminated; may be empty */
	char id[WF_GUARD_ID_BYTES];     /* NUL-terminated */
};

/* Fills in the subject; false: no fiber runs on this thread. Must be async-signal-safe. */
typedef bool (*wf_guard_describe_fn)(struct wf_guard_subject *subject_out);

/* 0, or -errno of sigaction. All who install name the same function. */
int wf_guard_install(wf_guard_describe_fn describe);
void wf_guard_uninstall(void);

/* A thread's signal stack. */
struct wf_guard_thread {
	void *memory; /* NULL: the thread had one that is large enough */
	size_t bytes;
	stack_t before;
};

/*
 * Gives the calling thread a signal stack, unless it has one that is large enough; leave puts back
 * what was there. 0, or -ENOMEM.
 */
int wf_guard_thread_enter(struct wf_guard_thread *thread);
void wf_guard_thread_leave(struct wf_guard_thread *thread);

#endif
