/*
 * The handler of faults: an overflow names its fiber, and every other fault goes where it went
 * before.
 *
 * Each case runs in a child whose stderr is a pipe: what it printed and how it ended is the result.
 * P11 of the design's scenarios, at the level of one fiber without a runtime.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <weft.h>

#include "core/fiber.h"
#include "core/guard.h"
#include "test/harness.h"

enum {
	STACK_BYTES = 32 * 1024,
	OUTPUT_BYTES = 4096,
	EXIT_AS_PLANNED = 42,
	CHILD_SECONDS_MAX = 100,
};

/* --- children --- */

struct outcome {
	int status;
	char output[OUTPUT_BYTES];
};

static struct outcome in_child(void (*body)(void))
{
	struct outcome outcome = {.status = 0};
	size_t length = 0;
	int ends[2];
	pid_t child;

	cr_assert_eq(pipe(ends), 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		alarm(CHILD_SECONDS_MAX); /* a handler that returns to its fault does so for ever */
		body();
		_exit(0);
	}
	close(ends[1]);
	while (length < OUTPUT_BYTES - 1) {
		ssize_t n = read(ends[0], outcome.output + length, OUTPUT_BYTES - 1 - length);

		if (n <= 0)
			break;
		length += (size_t)n;
	}
	outcome.output[length] = '\0';
	close(ends[0]);
	cr_assert_eq(waitpid(child, &outcome.status, 0), child);
	return outcome;
}

static void check_killed(const struct outcome *outcome, int signal)
{
	cr_assert(WIFSIGNALED(outcome->status), "status %x: %s", (unsigned)outcome->status,
		outcome->output);
	cr_assert_eq(WTERMSIG(outcome->status), signal, "%s", outcome->output);
}

static void check_exited(const struct outcome *outcome, int code)
{
	cr_assert(WIFEXITED(outcome->status), "status %x: %s", (unsigned)outcome->status,
		outcome->output);
	cr_assert_eq(WEXITSTATUS(outcome->status), code, "%s", outcome->output);
}

/* --- a thread with fibers --- */

static struct wf_scheduler_context sched;
static struct wf_guard_thread guard_thread;
static struct wf_stack_depot *depot;
static struct wf_fiber *running;
static const char *running_name = "parser";

static bool describe(struct wf_guard_subject *subject_out)
{
	if (running == NULL)
		return false;
	subject_out->stack = wf_fiber_stack(running);
	strcpy(subject_out->name, running_name);
	strcpy(subject_out->id, "<1.7.3>");
	return true;
}

/* A sanitizer may have handlers of its own; what is tested is the behaviour behind the default. */
static void default_handlers(void)
{
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
}

static void guarded(void)
{
	cr_assert_eq(wf_guard_install(describe), 0);
	cr_assert_eq(wf_guard_thread_enter(&guard_thread), 0);
}

static void run_fiber(void (*entry)(void *value), bool guard_mprotect)
{
	struct wf_stack_depot_opts opts = {.guard_mprotect = guard_mprotect};

	cr_assert_eq(wf_stack_depot_create(&opts, &depot), 0);
	wf_scheduler_enter(&sched);
	running = wf_fiber_bind(wf_stack_take(NULL, depot, STACK_BYTES), entry);
	wf_fiber_resume(&sched, running, NULL);
	running = NULL;
}

static unsigned recurse(unsigned depth);
/* Through a pointer, so that no compiler makes a loop of it. */
static unsigned (*volatile deeper)(unsigned depth) = recurse;

static unsigned recurse(unsigned depth)
{
	volatile char frame[200];

	frame[depth % sizeof frame] = (char)depth;
	return deeper(depth + 1) + (unsigned)frame[depth % sizeof frame];
}

static void overflow(void *value)
{
	(void)value;
	recurse(0);
	wf_fiber_exit(running, &sched);
}

/* Not a constant: compilers mind. */
static char *volatile bad_address = (char *)16;

static void fault_elsewhere(void *value)
{
	(void)value;
	*(volatile char *)bad_address = 1;
	wf_fiber_exit(running, &sched);
}

/* --- overflow --- */

static void overflow_guarded(void)
{
	default_handlers();
	guarded();
	run_fiber(overflow, false);
}

static void overflow_guarded_by_mprotect(void)
{
	default_handlers();
	guarded();
	run_fiber(overflow, true);
}

Test(guard, overflow_names_fiber_id_and_size_and_aborts, .timeout = 120)
{
	static void (*const bodies[])(void) = {overflow_guarded, overflow_guarded_by_mprotect};

	for (unsigned i = 0; i < 2; i++) {
		struct outcome outcome = in_child(bodies[i]);

		check_killed(&outcome, SIGABRT);
		cr_assert_str_eq(outcome.output,
			"weft: stack overflow in fiber \"parser\" (<1.7.3>), "
			"stack size 32768 bytes\n");
	}
}

static void overflow_with_an_odd_name(void)
{
	running_name = "a\nb\tc\033[31m";
	overflow_guarded();
}

Test(guard, a_name_cannot_break_the_line, .timeout = 120)
{
	struct outcome outcome = in_child(overflow_with_an_odd_name);

	check_killed(&outcome, SIGABRT);
	cr_assert_not_null(strstr(outcome.output, "fiber \"a?b?c?[31m\" ("));
}

static void overflow_unguarded(void)
{
	default_handlers();
	run_fiber(overflow, false);
}

Test(guard, without_it_an_overflow_is_a_plain_fault, .timeout = 120)
{
	struct outcome outcome = in_child(overflow_unguarded);

	check_killed(&outcome, SIGSEGV);
	cr_assert_str_eq(outcome.output, "");
}

/* --- what is not ours --- */

static void fault_guarded(void)
{
	default_handlers();
	guarded();
	run_fiber(fault_elsewhere, false);
}

static void fault_outside_guarded(void)
{
	default_handlers();
	guarded();
	fault_elsewhere(NULL);
}

static void sent_guarded(void)
{
	default_handlers();
	guarded();
	kill(getpid(), SIGSEGV);
	_exit(1);
}

Test(guard, other_faults_meet_the_default_action, .timeout = 120)
{
	static void (*const bodies[])(void) = {fault_guarded, fault_outside_guarded, sent_guarded};

	for (unsigned i = 0; i < 3; i++) {
		struct outcome outcome = in_child(bodies[i]);

		check_killed(&outcome, SIGSEGV);
		cr_assert_str_eq(outcome.output, "");
	}
}

static void bus_error_guarded(void)
{
	char path[] = "/tmp/weft-test-guard-XXXXXX";
	int fd = mkstemp(path);
	char *memory;

	default_handlers();
	guarded();
	cr_assert_geq(fd, 0);
	unlink(path);
	/* A page of an empty file. */
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq((void *)memory, MAP_FAILED);
	*(volatile char *)memory = 1;
}

Test(guard, bus_errors_pass_too, .timeout = 120)
{
	struct outcome outcome = in_child(bus_error_guarded);

	check_killed(&outcome, SIGBUS);
}

static volatile sig_atomic_t host_calls;

static void host_handler(int sig, siginfo_t *info, void *context)
{
	(void)context;
	host_calls++;
	if (sig == SIGSEGV && info->si_addr == bad_address)
		_exit(EXIT_AS_PLANNED);
	_exit(1);
}

static void set_host_handler(int flags, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_sigaction = handler;
	action.sa_flags = flags;
	sigaction(SIGSEGV, &action, NULL);
}

static void fault_with_host_handler(void)
{
	set_host_handler(SA_SIGINFO, host_handler);
	guarded();
	run_fiber(fault_elsewhere, false);
}

Test(guard, other_faults_meet_the_handler_from_before, .timeout = 120)
{
	struct outcome outcome = in_child(fault_with_host_handler);

	check_exited(&outcome, EXIT_AS_PLANNED);
}

static sigjmp_buf recovery;

static void recovering_handler(int sig)
{
	(void)sig;
	siglongjmp(recovery, 1);
}

/* A host that survives faults by jumping out of its handler, again and again. */
static void recover_from_faults(void)
{
	default_handlers();
	signal(SIGSEGV, recovering_handler);
	guarded();
	for (int i = 0; i < 100; i++)
		if (sigsetjmp(recovery, 1) == 0)
			fault_elsewhere(NULL);
	_exit(EXIT_AS_PLANNED);
}

Test(guard, a_handler_may_jump_out, .timeout = 120)
{
	struct outcome outcome = in_child(recover_from_faults);

	check_exited(&outcome, EXIT_AS_PLANNED);
}

static void sent_with_host_handler(void)
{
	set_host_handler(SA_SIGINFO, host_handler);
	guarded();
	raise(SIGSEGV);
	_exit(2);
}

/* The host's handler exits with 1 when there is no address of a fault. */
Test(guard, a_sent_signal_reaches_the_handler, .timeout = 120)
{
	struct outcome outcome = in_child(sent_with_host_handler);

	check_exited(&outcome, 1);
}

static void counting_handler(int sig)
{
	(void)sig;
	host_calls++;
}

static void one_shot_then_default(void)
{
	struct sigaction action;

	default_handlers();
	memset(&action, 0, sizeof action);
	action.sa_handler = counting_handler;
	action.sa_flags = (int)SA_RESETHAND;
	sigaction(SIGSEGV, &action, NULL);
	guarded();
	raise(SIGSEGV);
	if (host_calls != 1)
		_exit(1);
	raise(SIGSEGV);
	_exit(2);
}

Test(guard, a_one_shot_handler_is_called_once, .timeout = 120)
{
	struct outcome outcome = in_child(one_shot_then_default);

	check_killed(&outcome, SIGSEGV);
}

static void ignored_when_sent(void)
{
	signal(SIGSEGV, SIG_IGN);
	guarded();
	raise(SIGSEGV);
	_exit(EXIT_AS_PLANNED);
}

static void ignored_fault(void)
{
	signal(SIGSEGV, SIG_IGN);
	guarded();
	fault_elsewhere(NULL);
	_exit(1);
}

/* As the kernel has it: a signal can be ignored, a fault cannot. */
Test(guard, ignoring_means_what_it_meant, .timeout = 120)
{
	struct outcome outcome = in_child(ignored_when_sent);

	check_exited(&outcome, EXIT_AS_PLANNED);
	outcome = in_child(ignored_fault);
	check_killed(&outcome, SIGSEGV);
}

/* --- installing --- */

static struct sigaction action_now(int sig)
{
	struct sigaction action;

	cr_assert_eq(sigaction(sig, NULL, &action), 0);
	return action;
}

Test(guard, uninstall_puts_back_what_was_there, .timeout = 120)
{
	struct sigaction first, now;

	set_host_handler(SA_SIGINFO | SA_NODEFER, host_handler);
	first = action_now(SIGSEGV);
	cr_assert_eq(wf_guard_install(describe), 0);
	cr_assert_eq(wf_guard_install(describe), 0);
	now = action_now(SIGSEGV);
	cr_assert(now.sa_sigaction != first.sa_sigaction);
	wf_guard_uninstall();
	cr_assert(action_now(SIGSEGV).sa_sigaction == now.sa_sigaction, "one still wants it");
	wf_guard_uninstall();
	now = action_now(SIGSEGV);
	cr_assert(now.sa_sigaction == host_handler);
	cr_assert_eq(now.sa_flags & (SA_SIGINFO | SA_NODEFER), SA_SIGINFO | SA_NODEFER);
}

static struct sigaction below_host;

/* As a host's crash reporter does that came later than ours. */
static void chaining_handler(int sig, siginfo_t *info, void *context)
{
	if (++host_calls > 1)
		_exit(1); /* a loop */
	below_host.sa_sigaction(sig, info, context);
}

/* Installed; then the host puts its handler before ours; then the runtime goes. */
static void buried(void)
{
	struct sigaction action;

	default_handlers();
	guarded();
	below_host = action_now(SIGSEGV);
	memset(&action, 0, sizeof action);
	action.sa_sigaction = chaining_handler;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigaction(SIGSEGV, &action, NULL);
	wf_guard_uninstall();
	if (action_now(SIGSEGV).sa_sigaction != chaining_handler)
		_exit(1); /* uninstall took the host's away */
}

static void overflow_when_buried(void)
{
	buried();
	run_fiber(overflow, false);
}

static void overflow_when_buried_and_installed_again(void)
{
	buried();
	cr_assert_eq(wf_guard_install(describe), 0);
	run_fiber(overflow, false);
}

static void fault_when_buried_and_installed_again(void)
{
	buried();
	cr_assert_eq(wf_guard_install(describe), 0);
	run_fiber(fault_elsewhere, false);
}

Test(guard, a_later_handler_of_the_host_stays, .timeout = 120)
{
	struct outcome outcome = in_child(overflow_when_buried);

	/* Behind it ours only passes on. */
	check_killed(&outcome, SIGSEGV);
	cr_assert_str_eq(outcome.output, "");
}

/* Taking the first place would make a circle of the two handlers. */
Test(guard, a_later_runtime_takes_its_place_behind_the_host, .timeout = 120)
{
	struct outcome outcome = in_child(overflow_when_buried_and_installed_again);

	check_killed(&outcome, SIGABRT);
	cr_assert_not_null(strstr(outcome.output, "weft: stack overflow in fiber"));
	outcome = in_child(fault_when_buried_and_installed_again);
	check_killed(&outcome, SIGSEGV);
	cr_assert_str_eq(outcome.output, "");
}

/* --- in a runtime --- */

static unsigned yield_deeper(unsigned depth);
static unsigned (*volatile yield_below)(unsigned depth) = yield_deeper;

/* Of all frames the switch's own are the deepest. */
static unsigned yield_deeper(unsigned depth)
{
	weft_yield();
	return yield_below(depth + 1) + 1;
}

static int yields_ever_deeper(void *arg)
{
	(void)arg;
	return (int)yield_deeper(0);
}

static int recurses(void *arg)
{
	(void)arg;
	return (int)recurse(0);
}

static int yields_for_ever(void *arg)
{
	(void)arg;
	while (weft_yield() == 0)
		;
	return 0;
}

/* The one that overflows comes first: whoever it yields to is ready, and is switched to at once. */
static int spawns_deep_and_others(void *arg)
{
	struct weft_spawn_opts named = {.size = sizeof(named), .name = "deep"};
	weft_fn body = *(weft_fn *)arg;
	weft_pid pid;

	cr_assert_eq(weft_spawn_with(body, NULL, &named, &pid), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(weft_spawn(yields_for_ever, NULL, NULL), 0);
	return weft_join(pid, NULL, WEFT_FOREVER);
}

/* P11 */
static void overflow_in_a_runtime(weft_fn body)
{
	struct weft_rt_opts opts = {
		.size = sizeof(opts), .workers = 1, .flags = WEFT_RT_GUARD_REPORT};
	weft_rt *rt;
	weft_pid pid;

	default_handlers();
	cr_assert_eq(weft_rt_create(&opts, &rt), 0);
	cr_assert_eq(weft_rt_spawn(rt, spawns_deep_and_others, &body, NULL, &pid), 0);
	(void)weft_join(pid, NULL, WEFT_FOREVER);
}

static void overflow_by_recursion(void)
{
	overflow_in_a_runtime(recurses);
}

static void overflow_in_a_switch(void)
{
	overflow_in_a_runtime(yields_ever_deeper);
}

Test(guard, the_process_that_overflows_is_named_also_in_a_switch, .timeout = 120)
{
	static void (*const bodies[])(void) = {overflow_by_recursion, overflow_in_a_switch};
	/* ThreadSanitizer would fault in its own frames of the switch, under its own lock. */
	unsigned count = HARNESS_TSAN ? 1 : 2;

	for (unsigned i = 0; i < count; i++) {
		struct outcome outcome = in_child(bodies[i]);

		check_killed(&outcome, SIGABRT);
		cr_assert_not_null(
			strstr(outcome.output, "weft: stack overflow in fiber \"deep\" (<"), "%s",
			outcome.output);
	}
}

/* --- signal stacks --- */

Test(guard, threads_get_back_the_signal_stack_they_had, .timeout = 120)
{
	static char small[16384];
	stack_t mine = {.ss_sp = small, .ss_size = sizeof small}, now;
	struct wf_guard_thread thread;

	cr_assert_eq(sigaltstack(&mine, NULL), 0);
	cr_assert_eq(wf_guard_thread_enter(&thread), 0);
	cr_assert_eq(sigaltstack(NULL, &now), 0);
	cr_assert_neq(now.ss_sp, (void *)small, "too small for handlers");
	cr_assert_geq(now.ss_size, (size_t)64 * 1024);
	memset(now.ss_sp, 1, now.ss_size);
	wf_guard_thread_leave(&thread);
	cr_assert_eq(sigaltstack(NULL, &now), 0);
	cr_assert_eq(now.ss_sp, (void *)small);
	cr_assert_eq(now.ss_size, sizeof small);
	wf_guard_thread_leave(&thread); /* harmless */
}

Test(guard, a_large_enough_signal_stack_is_kept, .timeout = 120)
{
	static char large[256 * 1024];
	stack_t mine = {.ss_sp = large, .ss_size = sizeof large}, now;
	struct wf_guard_thread thread;

	cr_assert_eq(sigaltstack(&mine, NULL), 0);
	cr_assert_eq(wf_guard_thread_enter(&thread), 0);
	cr_assert_eq(sigaltstack(NULL, &now), 0);
	cr_assert_eq(now.ss_sp, (void *)large);
	wf_guard_thread_leave(&thread);
	cr_assert_eq(sigaltstack(NULL, &now), 0);
	cr_assert_eq(now.ss_sp, (void *)large);
}
