/*
 * guard.c: the SIGSEGV and SIGBUS handler of core/guard.h.
 *
 * The handler, and what it calls, are async-signal-safe: no locks, no allocation, no stdio. It
 * reads `describe` and `previous`, which are written before it is put in place for the first
 * time.
 *
 * Install and uninstall take turns by a spinlock that is held over a few calls of sigaction: two
 * runtimes that come or go at the same moment are rare, and neither is in a hurry.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/guard.h"
#include "sync/atomic.h"
#include "sync/spinlock.h"

enum {
	LINE_BYTES_MAX = 256,
	HANDLER_BYTES = 16 * 1024,      /* beyond what the kernel puts there: enough for ours */
	SIGNAL_STACK_BYTES = 64 * 1024, /* a handler that we pass a fault on to may need more */
};

static const int signals[] = {SIGSEGV, SIGBUS};

static struct {
	struct wf_spinlock lock;
	unsigned install_count;
	bool in_place[WF_ARRAY_COUNT(signals)]; /* perhaps behind a handler of the host's */
	struct sigaction previous[WF_ARRAY_COUNT(signals)];
	wf_atomic_ptr describe; /* wf_guard_describe_fn; NULL: only pass on */
} guard;

/* --- the report --- */

struct line {
	char text[LINE_BYTES_MAX];
	size_t length;
};

static void put_text(struct line *line, const char *text)
{
	for (; *text != '\0' && line->length < LINE_BYTES_MAX; text++)
		line->text[line->length++] = (unsigned char)*text < ' ' ? '?' : *text;
}

static void put_number(struct line *line, size_t number)
{
	char digits[24];
	char *at = digits + sizeof digits - 1;

	*at = '\0';
	do
		*--at = (char)('0' + number % 10);
	while ((number /= 10) != 0);
	put_text(line, at);
}

static _Noreturn void report(const struct wf_guard_subject *subject)
{
	struct line line = {.length = 0};

	put_text(&line, "weft: stack overflow in fiber \"");
	put_text(&line, subject->name);
	put_text(&line, "\" (");
	put_text(&line, subject->id);
	put_text(&line, "), stack size ");
	put_number(&line, wf_stack_bytes(subject->stack));
	put_text(&line, " bytes");
	if (line.length == LINE_BYTES_MAX)
		line.length--;
	line.text[line.length++] = '\n';
	if (write(STDERR_FILENO, line.text, line.length) < 0)
		abort(); /* as below: there is nobody else to tell */
	abort();
}

/* --- passing on --- */

/* Back to the default action; the fault comes again when the handler returns, and takes it. */
static void die_by(int sig, const siginfo_t *info)
{
	struct sigaction action = {.sa_handler = SIG_DFL};

	sigaction(sig, &action, NULL);
	/* Not a fault but sent by somebody: it would not come again. Blocked until the return. */
	if (info->si_code <= 0)
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig);
}

static void call_previous(struct sigaction *action, int sig, siginfo_t *info, void *context)
{
	struct sigaction once = *action;
	sigset_t mask;

	if (action->sa_flags & SA_RESETHAND)
		action->sa_handler = SIG_DFL;
	/* The kernel undoes this when our handler returns, or the previous one jumps out. */
	sigprocmask(SIG_BLOCK, &once.sa_mask, NULL);
	if (once.sa_flags & SA_NODEFER) {
		sigemptyset(&mask);
		sigaddset(&mask, sig);
		sigprocmask(SIG_UNBLOCK, &mask, NULL);
	}
	if (once.sa_flags & SA_SIGINFO)
		once.sa_sigaction(sig, info, context);
	else
		once.sa_handler(sig);
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	struct sigaction *action = &guard.previous[sig == signals[0] ? 0 : 1];

	/* The kernel never lets a real fault be ignored. */
	if (action->sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	if (action->sa_handler == SIG_IGN || action->sa_handler == SIG_DFL)
		die_by(sig, info);
	else
		call_previous(action, sig, info, context);
}

static void handle(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	/* H1: acquire, with H2 in wf_guard_install(): what the function relies on is seen too. */
	void *address = wf_ptr_load_acquire(&guard.describe);
	struct wf_guard_subject subject;

	if (address != NULL && info->si_code > 0) {
		wf_guard_describe_fn describe = (wf_guard_describe_fn)address;

		if (describe(&subject) && wf_stack_in_guard(subject.stack, info->si_addr))
			report(&subject);
	}
	errno = saved;
	pass_on(sig, info, context);
}

/* --- installing --- */

static bool is_ours(const struct sigaction *action)
{
	return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == handle;
}

static int put_in_place(unsigned which)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_sigaction = handle;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigemptyset(&action.sa_mask);
	/* First what is to be passed on to, then the handler that does. */
	if (sigaction(signals[which], NULL, &guard.previous[which]) != 0)
		return -errno;
	if (sigaction(signals[which], &action, NULL) != 0)
		return -errno;
	guard.in_place[which] = true;
	return 0;
}

static void take_away(unsigned which)
{
	struct sigaction now;

	if (!guard.in_place[which] || sigaction(signals[which], NULL, &now) != 0 || !is_ours(&now))
		return;
	sigaction(signals[which], &guard.previous[which], NULL);
	guard.in_place[which] = false;
}

static void take_all_away(void)
{
	for (unsigned i = 0; i < WF_ARRAY_COUNT(signals); i++)
		take_away(i);
	/* Relaxed: a handler that still sees it describes a fiber that still runs. */
	wf_ptr_store_relaxed(&guard.describe, NULL);
}

int wf_guard_install(wf_guard_describe_fn describe)
{
	int saved = errno;
	int r = 0;

	wf_spinlock_lock(&guard.lock);
	if (guard.install_count == 0) {
		/* H2: release, with H1 in handle(). */
		wf_ptr_store_release(&guard.describe, (void *)describe);
		for (unsigned i = 0; i < WF_ARRAY_COUNT(signals) && r == 0; i++)
			if (!guard.in_place[i])
				r = put_in_place(i);
		if (r < 0)
			take_all_away();
	}
	if (r == 0)
		guard.install_count++;
	wf_spinlock_unlock(&guard.lock);
	errno = saved;
	return r;
}

void wf_guard_uninstall(void)
{
	int saved = errno;

	wf_spinlock_lock(&guard.lock);
	WF_CHECK(guard.install_count > 0);
	if (--guard.install_count == 0)
		take_all_away();
	wf_spinlock_unlock(&guard.lock);
	errno = saved;
}

/* --- signal stacks --- */

/* What the kernel stores of the registers depends on the processor. */
static size_t kernel_bytes(void)
{
	long bytes = sysconf(_SC_MINSIGSTKSZ);

	return bytes > 0 ? (size_t)bytes : (size_t)MINSIGSTKSZ;
}

int wf_guard_thread_enter(struct wf_guard_thread *thread)
{
	const struct wf_map *map = &wf_map_kernel;
	size_t page_bytes = map->page_bytes(map->ctx);
	size_t bytes = (kernel_bytes() + SIGNAL_STACK_BYTES + page_bytes - 1) & ~(page_bytes - 1);
	stack_t ours;
	int r;

	memset(thread, 0, sizeof *thread);
	if (sigaltstack(NULL, &thread->before) == 0 && !(thread->before.ss_flags & SS_DISABLE) &&
		thread->before.ss_size >= kernel_bytes() + HANDLER_BYTES)
		return 0;
	r = map->map(map->ctx, page_bytes + bytes, &thread->memory);
	if (r < 0)
		return r;
	thread->bytes = page_bytes + bytes;
	(void)map->protect(map->ctx, thread->memory, page_bytes); /* its own guard */
	memset(&ours, 0, sizeof ours);
	ours.ss_sp = (char *)thread->memory + page_bytes;
	ours.ss_size = bytes;
	/* Fails only on a signal stack, where no thread begins, or when it is too small. */
	WF_CHECK(sigaltstack(&ours, &thread->before) == 0);
	return 0;
}

void wf_guard_thread_leave(struct wf_guard_thread *thread)
{
	const struct wf_map *map = &wf_map_kernel;
	stack_t now;

	if (thread->memory == NULL)
		return;
	if (sigaltstack(NULL, &now) == 0 && (char *)now.ss_sp > (char *)thread->memory &&
		(char *)now.ss_sp < (char *)thread->memory + thread->bytes)
		sigaltstack(&thread->before, NULL);
	(void)map->unmap(map->ctx, thread->memory, thread->bytes);
	thread->memory = NULL;
}
