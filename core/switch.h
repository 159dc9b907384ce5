/*
 * switch.h: the machine's part of a fiber: two stacks, and going from one to the other.
 *
 * A suspended context is its stack pointer; what else it needs (callee-saved registers, where to
 * go on) lies on its stack. wf_context_switch() pushes them, stores the stack pointer through
 * `save_sp`, takes the other one and pops. Everything else is dead across a call by the rules of
 * the ABI, except what is left out on purpose: the floating-point control words (mxcsr, x87,
 * fpcr). They cost half as much as the switch itself and hardly anybody changes them; a fiber
 * that does must put them back before it switches.
 *
 * wf_context_switch() resumes with pop and jmp, not ret: the processor predicts a ret by the calls
 * it has seen, and between a scheduler and a fiber that is always wrong (9 ns instead of 3).
 * wf_context_switch_alike() resumes with ret: between two that have been suspended by the same
 * call, the prediction is right, and so are those of the callers' returns, which a jmp would put
 * out of step by one. The frames are the same: what one has suspended the other may resume.
 * Hardware shadow stacks cannot follow either: wf_context_check() refuses to run with them, and the
 * object files say that they are not compatible.
 *
 * Threads: a context may be resumed by any thread, one at a time; the caller orders the two.
 * Compilers keep addresses of thread-local variables (errno too) in registers over this call.
 */
#ifndef WF_CORE_SWITCH_H
#define WF_CORE_SWITCH_H

#include <stdint.h>

#include "sync/check.h"

#define WF_HIDDEN __attribute__((visibility("hidden")))

/* What lies at the stack pointer of a suspended context, lowest address first. */
struct wf_context_frame {
#if defined(__x86_64__)
	uint64_t r15, r14, r13, r12, rbx, rbp;
	uint64_t rip;
#elif defined(__aarch64__)
	uint64_t x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29, x30;
	uint64_t d8, d9, d10, d11, d12, d13, d14, d15;
#else
#error "Weft has no context switch for this machine"
#endif
};

/*
 * Suspends the caller into *save_sp and resumes `load_sp`. The resumed side's own call returns
 * `value`, or, if it is new, its entry is called with it. Returns when somebody resumes *save_sp,
 * with what they passed.
 */
WF_HIDDEN void *wf_context_switch(void **save_sp, void *load_sp, void *value);

/* The same, faster when `load_sp` has been suspended by the same call of this function. */
WF_HIDDEN void *wf_context_switch_alike(void **save_sp, void *load_sp, void *value);

/* wf_context_switch() for the last time: saves nothing, never returns. */
WF_HIDDEN void wf_context_exit(void *load_sp, void *value);

/* Where a new context starts; only its address is of use. */
WF_HIDDEN void wf_context_start(void);

/*
 * A context that will call entry(value, top) on the stack that ends at `top` (16-byte aligned;
 * where the frames start) when it is first resumed. The second argument is for those who look for
 * it; an entry of one parameter never sees it. The entry must not return: it ends by
 * wf_context_exit().
 */
WF_INLINE void *wf_context_make(void *top, void (*entry)(void *value))
{
	struct wf_context_frame *frame = (struct wf_context_frame *)top - 1;

	/* Other registers start with what lies there; the frame pointer is set by the start. */
#if defined(__x86_64__)
	frame->r12 = (uintptr_t)entry;
	frame->rip = (uintptr_t)wf_context_start;
#else
	frame->x19 = (uintptr_t)entry;
	frame->x30 = (uintptr_t)wf_context_start;
#endif
	return frame;
}

/* 0, or -ENOTSUP if the calling thread has a hardware shadow stack. */
int wf_context_check(void);

#endif
