/*
 * fiber.h: a fiber: a stack and the point at which it goes on.
 *
 * The control block lies at the top of the stack itself (core/stack.h), next to frames that a
 * switch touches anyway: binding a fiber to a stack allocates nothing and writes two cache lines.
 *
 *	worker                                    fiber
 *	f = wf_fiber_bind(stack, entry)
 *	wf_fiber_resume(sched, f, value)    →     entry(value)
 *	                                    ←     wf_fiber_suspend(f, sched)
 *	wf_fiber_resume(sched, f, value)    →     … returns value
 *	                                          wf_fiber_switch(f, g, sched)  →  g goes on
 *	                                    ←     wf_fiber_exit(g, sched)
 *	wf_stack_give(…, wf_fiber_stack(g))
 *
 * A scheduler context is a worker's own stack. A new fiber is resumed from there; one that has run
 * may also be switched to by the fiber that is running, which saves the way over the worker's
 * stack. So whoever comes back from wf_fiber_resume() need not be who was resumed. `sched` is named
 * on both sides because a fiber may be resumed by another worker than the one it left: after
 * wf_fiber_suspend() the caller finds its worker anew, by a call that is not inlined
 * (wf_worker_self()). Compilers keep addresses of thread-locals over the switch.
 *
 * Threads: a fiber is used by one thread at a time; whoever hands it to another orders the two
 * (release after wf_fiber_resume() returned, acquire before the next). Nothing here is atomic.
 *
 * In sanitizer builds every switch is announced: ASan learns the bounds of the stack gone to, and
 * of a stack that dies; TSan has a context of its own for each fiber, made by bind and dropped
 * after the exit (2 us; not kept with the stack, since frames that exit leaves behind would pile
 * up in it). TSan allows about 8000 at once. Nothing may be called between an announcement and
 * its switch.
 */
#ifndef WF_CORE_FIBER_H
#define WF_CORE_FIBER_H

#include "core/sanitizer.h"
#include "core/stack.h"
#include "core/switch.h"

struct wf_cleanup;

struct wf_scheduler_context {
	void *sp; /* the worker's, while a fiber runs */
#if WF_ASAN
	const void *asan_low; /* bounds of the worker's stack */
	size_t asan_bytes;
	void *asan_fake;
#endif
#if WF_TSAN
	void *tsan;
	void *tsan_exited; /* of the fiber that has just come to its end; NULL: it only suspended */
#endif
};

struct wf_fiber {
	struct wf_stack stack;
	void *sp; /* while suspended */
	struct wf_cleanup *cleanups; /* of the process that runs on it; empty when that has ended */
#if WF_ASAN
	struct wf_scheduler_context *asan_sched; /* that it runs under */
	void (*asan_entry)(void *value);
	void *asan_fake;
	bool asan_from_fiber; /* switched to: the stack it came from is not the worker's */
#endif
#if WF_TSAN
	void *tsan;
#endif
};

static_assert(sizeof(struct wf_fiber) <= WF_STACK_CONTROL_BYTES, "stack.c leaves that much room");
static_assert(offsetof(struct wf_fiber, stack) == 0, "wf_fiber_bind casts");

#if WF_ASAN
void wf_fiber_start_announced(void *value, void *top);
#endif

/* The worker's thread, before its first resume and after its last. */
WF_INLINE void wf_scheduler_enter(struct wf_scheduler_context *sched)
{
	sched->sp = NULL;
#if WF_TSAN
	sched->tsan = __tsan_get_current_fiber();
	sched->tsan_exited = NULL;
#endif
}

WF_INLINE void wf_scheduler_leave(struct wf_scheduler_context *sched)
{
	(void)sched;
#if WF_TSAN
	WF_CHECK(sched->tsan == __tsan_get_current_fiber());
#endif
}

/*
 * A fiber on `stack` that will call entry(value) when first resumed. The entry ends by
 * wf_fiber_exit(), never by returning. A fiber that was never resumed may be dropped by
 * wf_fiber_unbind().
 */
WF_INLINE struct wf_fiber *wf_fiber_bind(struct wf_stack *stack, void (*entry)(void *value))
{
	struct wf_fiber *fiber = (struct wf_fiber *)(void *)stack;

#if WF_ASAN
	fiber->asan_fake = NULL;
	fiber->asan_entry = entry;
	entry = (void (*)(void *))(void (*)(void))wf_fiber_start_announced;
#endif
#if WF_TSAN
	fiber->tsan = __tsan_create_fiber(0);
#endif
	fiber->cleanups = NULL;
	fiber->sp = wf_context_make(wf_stack_top(stack), entry);
	return fiber;
}

/* Gives up a fiber that was bound and never resumed; its stack can be given back. */
WF_INLINE void wf_fiber_unbind(struct wf_fiber *fiber)
{
	(void)fiber;
#if WF_TSAN
	__tsan_destroy_fiber(fiber->tsan);
#endif
}

WF_INLINE struct wf_stack *wf_fiber_stack(struct wf_fiber *fiber)
{
	return &fiber->stack;
}

/*
 * From the worker's own stack: runs the fiber until it, or one that it has led to by
 * wf_fiber_switch(), suspends or exits. `value` is handed to the entry, or returned by the suspend.
 */
WF_INLINE void wf_fiber_resume(
	struct wf_scheduler_context *sched, struct wf_fiber *fiber, void *value)
{
	void *sp = fiber->sp;

#if WF_ASAN
	fiber->asan_sched = sched;
	fiber->asan_from_fiber = false;
	__sanitizer_start_switch_fiber(
		&sched->asan_fake, fiber->stack.low, wf_stack_usable_bytes(&fiber->stack));
#endif
#if WF_TSAN
	__tsan_switch_to_fiber(fiber->tsan, 0);
#endif
	(void)wf_context_switch(&sched->sp, sp, value);
#if WF_ASAN
	__sanitizer_finish_switch_fiber(sched->asan_fake, NULL, NULL);
#endif
#if WF_TSAN
	if (sched->tsan_exited) {
		__tsan_destroy_fiber(sched->tsan_exited);
		sched->tsan_exited = NULL;
	}
#endif
}

/*
 * Asks for the lines that resuming a suspended fiber will touch first: its control block, and the
 * frames of a shallow stack below it. `fiber` may be any address.
 */
WF_INLINE void wf_fiber_prefetch(const struct wf_fiber *fiber)
{
	const char *top = (const char *)fiber;

	WF_PREFETCH(top);
	WF_PREFETCH(top - 1 * WF_CACHE_LINE);
	WF_PREFETCH(top - 2 * WF_CACHE_LINE);
	WF_PREFETCH(top - 3 * WF_CACHE_LINE);
	WF_PREFETCH(top - 4 * WF_CACHE_LINE);
}

/* What ASan hears from a fiber that goes on: which stack it has come from, if that is of use. */
WF_INLINE void wf_fiber_arrived(struct wf_fiber *self)
{
	(void)self;
#if WF_ASAN
	if (self->asan_from_fiber)
		__sanitizer_finish_switch_fiber(self->asan_fake, NULL, NULL);
	else
		__sanitizer_finish_switch_fiber(self->asan_fake, &self->asan_sched->asan_low,
			&self->asan_sched->asan_bytes);
#endif
}

/* From the fiber: back to the worker it runs on. Returns the value of the next resume. */
WF_INLINE void *wf_fiber_suspend(struct wf_fiber *self, struct wf_scheduler_context *sched)
{
	void *sp = sched->sp;
	void *value;

#if WF_ASAN
	WF_ASSERT(self->asan_sched == sched);
	__sanitizer_start_switch_fiber(&self->asan_fake, sched->asan_low, sched->asan_bytes);
#endif
#if WF_TSAN
	__tsan_switch_to_fiber(sched->tsan, 0);
#endif
	value = wf_context_switch(&self->sp, sp, NULL);
	wf_fiber_arrived(self);
	return value;
}

/*
 * From the fiber: on to another one that is suspended, without the way over the worker's stack.
 * Returns the value of the next resume, NULL after a switch.
 */
WF_INLINE void *wf_fiber_switch(
	struct wf_fiber *self, struct wf_fiber *next, struct wf_scheduler_context *sched)
{
	void *sp = next->sp;
	void *value;

	(void)sched;
#if WF_ASAN
	WF_ASSERT(self->asan_sched == sched);
	next->asan_sched = sched;
	next->asan_from_fiber = true;
	__sanitizer_start_switch_fiber(
		&self->asan_fake, next->stack.low, wf_stack_usable_bytes(&next->stack));
#endif
#if WF_TSAN
	__tsan_switch_to_fiber(next->tsan, 0);
#endif
	value = wf_context_switch_alike(&self->sp, sp, NULL);
	wf_fiber_arrived(self);
	return value;
}

/* wf_fiber_suspend() for the last time: the stack is no longer used when resume returns. */
WF_INLINE void wf_fiber_exit(struct wf_fiber *self, struct wf_scheduler_context *sched)
{
	void *sp = sched->sp;

	(void)self;
#if WF_ASAN
	WF_ASSERT(self->asan_sched == sched);
	__sanitizer_start_switch_fiber(NULL, sched->asan_low, sched->asan_bytes);
#endif
#if WF_TSAN
	sched->tsan_exited = self->tsan;
	__tsan_switch_to_fiber(sched->tsan, 0);
#endif
	wf_context_exit(sp, NULL);
	__builtin_trap();
}

#endif
