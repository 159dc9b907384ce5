/*
 * stall.c: asks a thread where it is.
 *
 *	who asks, one at a time (ask.lock)      the handler, on the thread asked
 *	ask.worker = w; ASKED; the signal   →   is it me? ASKED → WRITING, else nothing
 *	waits                               ←   frames; WRITTEN
 *	late: ASKED → IDLE; if that fails it is WRITING: waits
 *
 * The handler is async-signal-safe: loads, and one futex wake. It runs on the thread's signal
 * stack, since a fiber's may be nearly full. It follows frame pointers upwards inside the one stack
 * that the thread is on: code compiled without them makes the list short or wrong, never a fault.
 * A signal that comes late finds nobody asking.
 */
#include "core/stall.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include "core/internal.h"
#include "core/sched.h"
#include "sync/spinlock.h"
#include "timer/clock.h"

enum {
	FRAMES_MAX = 12,
	FRAME_BYTES_MAX = 1 << 20, /* a larger step up is no frame */
	OWN_STACK_BYTES = 1 << 19, /* every thread has that much */
	FIBER_STACK_BYTES_MAX = 1 << 30,
	ANSWER_NS = 20000000,
};

enum { IDLE, ASKED, WRITING, WRITTEN };

static struct {
	struct wf_spinlock lock; /* over install_count, signal */
	unsigned install_count;
	int signal;              /* 0: none */
} taken;

static struct {
	struct wf_spinlock lock; /* held by who asks */
	wf_atomic_u32 state;     /* futex */
	wf_atomic_ptr worker;
	unsigned count;
	uintptr_t frames[FRAMES_MAX];
} ask;

/* --- the handler --- */

struct place {
	uintptr_t pc, fp, sp;
};

static struct place place_of(const ucontext_t *context)
{
#if defined(__x86_64__)
	const greg_t *registers = context->uc_mcontext.gregs;

	return (struct place){(uintptr_t)registers[REG_RIP], (uintptr_t)registers[REG_RBP],
		(uintptr_t)registers[REG_RSP]};
#elif defined(__aarch64__)
	return (struct place){(uintptr_t)context->uc_mcontext.pc,
		(uintptr_t)context->uc_mcontext.regs[29], (uintptr_t)context->uc_mcontext.sp};
#else
#error "which registers?"
#endif
}

/*
 * The end of the stack that sp is on: the running fiber's, whose control block lies there, or the
 * thread's own; sp itself if it is on another (a signal stack's, a fiber's that is no process now).
 * While a process begins or ends, `live.fiber` may be something else: it is compared, never
 * followed. What runs then is the scheduler, whose frames end cleanly without a bound.
 */
static uintptr_t stack_end(const struct wf_worker *worker, uintptr_t sp)
{
	const struct wf_proc *p = worker->current;
	uintptr_t base = (uintptr_t)worker->stack_base;
	uintptr_t top;

	if (sp < base && base - sp <= OWN_STACK_BYTES)
		return base;
	if (!p || (wf_u64_load_relaxed(&p->word) & WF_WORD_TASK))
		return sp;
	top = (uintptr_t)p->live.fiber;
	return sp < top && top - sp <= FIBER_STACK_BYTES_MAX ? top : sp;
}

/* It reads frames of whoever was interrupted, wherever that was. */
__attribute__((no_sanitize("address", "thread", "undefined")))
static unsigned walk(struct place place, uintptr_t end, uintptr_t *frames)
{
	uintptr_t low = place.sp;
	unsigned count = 0;

	frames[count++] = place.pc;
	while (count < FRAMES_MAX) {
		const uintptr_t *frame = (const uintptr_t *)place.fp;

		if (place.fp < low || place.fp - low > FRAME_BYTES_MAX
			|| place.fp + 2 * sizeof *frame > end || place.fp % sizeof *frame)
			break;
		if (frame[1] == 0)
			break;
		frames[count++] = frame[1];
		low = place.fp + 1; /* only ever upwards */
		place.fp = frame[0];
	}
	return count;
}

static void handle(int sig, siginfo_t *info, void *context)
{
	struct wf_worker *self = wf_worker_self();
	int saved = errno;
	uint32_t asked = ASKED;
	struct place place;

	(void)sig;
	(void)info;
	/* Z1: acquire (the cas), with Z2 in ask_thread(): who is asked. */
	if (!self || wf_u32_load_acquire(&ask.state) != ASKED
		|| wf_ptr_load_relaxed(&ask.worker) != self
		|| !wf_u32_cas(&ask.state, &asked, WRITING))
		return;
	place = place_of(context);
	ask.count = walk(place, stack_end(self, place.sp), ask.frames);
	/* Z3: release, with Z4 in await_answer(): the frames. */
	wf_u32_store_release(&ask.state, WRITTEN);
	wf_futex_wake_all(&ask.state);
	errno = saved;
}

/* --- asking --- */

/* True: the frames are there. */
static bool await_answer(void)
{
	weft_time deadline = wf_clock_now_ns() + ANSWER_NS;
	uint32_t state;

	/* Z4: acquire, with Z3 in handle(). */
	while ((state = wf_u32_load_acquire(&ask.state)) != WRITTEN) {
		if (state == ASKED && wf_clock_now_ns() >= deadline) {
			if (wf_u32_cas(&ask.state, &state, IDLE))
				return false;
			continue;
		}
		wf_futex_wait(&ask.state, state, state == ASKED ? deadline : WEFT_FOREVER);
	}
	return true;
}

static unsigned ask_thread(struct wf_worker *worker, int signal, uintptr_t *frames_out)
{
	unsigned count = 0;

	wf_spinlock_lock(&ask.lock);
	wf_ptr_store_relaxed(&ask.worker, worker);
	/* Z2: release, with Z1 in handle(). */
	wf_u32_store_release(&ask.state, ASKED);
	wf_thread_signal(worker->thread, signal);
	if (await_answer()) {
		count = ask.count;
		memcpy(frames_out, ask.frames, count * sizeof *frames_out);
	}
	wf_u32_store_relaxed(&ask.state, IDLE);
	wf_spinlock_unlock(&ask.lock);
	return count;
}

static int put_symbol(char *text, size_t size, uintptr_t pc, bool innermost)
{
	const char *file;
	Dl_info info;

	/* A return address is behind its call, perhaps in the next function. */
	if (!dladdr((void *)(innermost ? pc : pc - 1), &info) || !info.dli_fname)
		return snprintf(text, size, "%#zx", (size_t)pc);
	if (info.dli_sname)
		return snprintf(text, size, "%s+%#zx", info.dli_sname,
			(size_t)(pc - (uintptr_t)info.dli_saddr));
	file = strrchr(info.dli_fname, '/');
	return snprintf(text, size, "%s+%#zx", file ? file + 1 : info.dli_fname,
		(size_t)(pc - (uintptr_t)info.dli_fbase));
}

void wf_stall_where(struct wf_worker *worker, int signal, char *text, size_t size)
{
	uintptr_t frames[FRAMES_MAX];
	unsigned count = ask_thread(worker, signal, frames);
	size_t length = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < count && length < size; i++) {
		length += (size_t)snprintf(text + length, size - length, i ? " < " : ", in ");
		if (length < size)
			length += (size_t)put_symbol(
				text + length, size - length, frames[i], i == 0);
	}
}

/* --- the signal --- */

static bool is_free(int signal)
{
	struct sigaction now;

	return sigaction(signal, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO)
		&& now.sa_handler == SIG_DFL;
}

static int take_signal(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_sigaction = handle;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigfillset(&action.sa_mask);
	for (int signal = SIGRTMAX; signal >= SIGRTMIN; signal--)
		if (is_free(signal) && sigaction(signal, &action, NULL) == 0)
			return signal;
	return 0;
}

static void give_signal_back(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL}, now;

	if (sigaction(taken.signal, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO)
		&& now.sa_sigaction == handle)
		sigaction(taken.signal, &action, NULL);
	taken.signal = 0;
}

int wf_stall_install(void)
{
	int saved = errno;
	int signal;

	wf_spinlock_lock(&taken.lock);
	if (taken.install_count == 0)
		taken.signal = take_signal();
	if (taken.signal)
		taken.install_count++;
	signal = taken.signal;
	wf_spinlock_unlock(&taken.lock);
	errno = saved;
	return signal;
}

void wf_stall_uninstall(void)
{
	int saved = errno;

	wf_spinlock_lock(&taken.lock);
	WF_CHECK(taken.install_count > 0);
	if (--taken.install_count == 0)
		give_signal_back();
	wf_spinlock_unlock(&taken.lock);
	errno = saved;
}
