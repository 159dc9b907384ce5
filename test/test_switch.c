/*
 * The context switch: what a side has before a switch it has after it, and nobody unwinds past the
 * bottom of a stack.
 *
 * Stacks here are plain arrays; pools and guards have their own tests. The registers are checked
 * from assembly, since a compiler is free not to use the ones in question. Sanitizers are not
 * told of these switches, which is core/fiber.h's part; what runs here is too plain to confuse
 * them.
 */
#include <stdint.h>
#include <stdio.h>
#include <unwind.h>

#include "core/switch.h"
#include "test/harness.h"

enum {
	STACK_BYTES = 64 * 1024,
	FRAMES_MAX = 64,
	CONTEXTS = 64,
};

/* The same for both: what one suspends the other may resume. */
void *(*switch_tested)(void **save_sp, void *load_sp, void *value) = wf_context_switch;

static void by_both(void (*check)(void))
{
	switch_tested = wf_context_switch;
	check();
	switch_tested = wf_context_switch_alike;
	check();
}

static char stack_memory[CONTEXTS][STACK_BYTES] __attribute__((aligned(64)));
static void *main_sp;
static void *other_sp[CONTEXTS];

static void *make(unsigned index, void (*entry)(void *value))
{
	return other_sp[index] = wf_context_make(stack_memory[index] + STACK_BYTES, entry);
}

static void *go(unsigned index, void *value)
{
	return switch_tested(&main_sp, other_sp[index], value);
}

static void *back(unsigned index, void *value)
{
	return switch_tested(&other_sp[index], main_sp, value);
}

/* --- values --- */

static void add_one_each_time(void *value)
{
	for (;;)
		value = back(0, (char *)value + 1);
}

static void pass_values(void)
{
	uintptr_t value = 5; /* not 0: UBSan minds arithmetic on NULL */

	make(0, add_one_each_time);
	for (int i = 0; i < 1000; i++)
		value = (uintptr_t)go(0, (void *)value);
	cr_assert_eq(value, 1005);
}

Test(switch, passes_a_value_each_way, .timeout = 120)
{
	by_both(pass_values);
}

static void exit_at_once(void *value)
{
	wf_context_exit(main_sp, (char *)value + 7);
}

static void exit_with_values(void)
{
	for (uintptr_t i = 1; i < 100; i++) {
		make(0, exit_at_once);
		cr_assert_eq((uintptr_t)go(0, (void *)i), i + 7);
	}
}

Test(switch, exit_passes_a_value_and_leaves_the_stack_free, .timeout = 120)
{
	by_both(exit_with_values);
}

static void tell_top(void *value, void *top)
{
	*(void **)value = top;
	wf_context_exit(main_sp, NULL);
}

Test(switch, entry_is_told_where_its_stack_ends, .timeout = 120)
{
	void *top = NULL;

	make(0, (void (*)(void *))(void (*)(void))tell_top);
	go(0, &top);
	cr_assert_eq((char *)top, stack_memory[0] + STACK_BYTES);
}

/* --- many --- */

static void count_to(void *value)
{
	unsigned index = (unsigned)(uintptr_t)value;
	uintptr_t count = 0;

	for (;;) {
		back(index, (void *)count);
		count += index;
	}
}

static void count_in_contexts(void)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		make(i, count_to);
	for (uintptr_t round = 0; round < 100; round++)
		for (unsigned i = 0; i < CONTEXTS; i++)
			cr_assert_eq((uintptr_t)go(i, (void *)(uintptr_t)i), round * i,
				"context %u, round %zu", i, (size_t)round);
}

Test(switch, contexts_do_not_mix, .timeout = 120)
{
	by_both(count_in_contexts);
}

static void count_by_turns(void *value)
{
	unsigned index = (unsigned)(uintptr_t)value;

	for (uintptr_t count = 0;; count++)
		(count % 2 ? wf_context_switch : wf_context_switch_alike)(
			&other_sp[index], main_sp, (void *)count);
}

Test(switch, what_one_suspends_the_other_resumes, .timeout = 120)
{
	for (unsigned i = 0; i < 3; i++)
		make(i, count_by_turns);
	for (uintptr_t round = 0; round < 60; round++)
		for (unsigned i = 0; i < 3; i++) {
			switch_tested = round % 3 ? wf_context_switch : wf_context_switch_alike;
			cr_assert_eq((uintptr_t)go(i, (void *)(uintptr_t)i), round);
		}
}

/* --- registers --- */

/*
 * registers_over_switch(save_sp, load_sp, first, seen): puts first, first + 1, … into all
 * callee-saved registers, switches with value `seen`, then stores what the registers hold into
 * seen[].
 *
 * registers_spoil_and_exit(load_sp): puts 0xbad into all of them and exits.
 */
void registers_over_switch(void **save_sp, void *load_sp, uint64_t first, uint64_t *seen);
void registers_spoil_and_exit(void *load_sp);

#if defined(__x86_64__)
#define REGISTER_COUNT 6
__asm__(".text\n"
	".globl registers_over_switch\n"
	".type registers_over_switch, @function\n"
	"registers_over_switch:\n"
	"	push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
	"	push %rcx\n" /* seen; and alignment */
	"	lea 0(%rdx), %rbx; lea 1(%rdx), %rbp; lea 2(%rdx), %r12\n"
	"	lea 3(%rdx), %r13; lea 4(%rdx), %r14; lea 5(%rdx), %r15\n"
	"	mov %rcx, %rdx\n"
	"	call *switch_tested(%rip)\n"
	"	pop %rcx\n"
	"	mov %rbx, 0(%rcx); mov %rbp, 8(%rcx); mov %r12, 16(%rcx)\n"
	"	mov %r13, 24(%rcx); mov %r14, 32(%rcx); mov %r15, 40(%rcx)\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
	"	ret\n"
	".globl registers_spoil_and_exit\n"
	".type registers_spoil_and_exit, @function\n"
	"registers_spoil_and_exit:\n"
	"	mov $0xbad, %ebx; mov %rbx, %rbp; mov %rbx, %r12\n"
	"	mov %rbx, %r13; mov %rbx, %r14; mov %rbx, %r15\n"
	"	jmp wf_context_exit\n");
#elif defined(__aarch64__)
#define REGISTER_COUNT 19 /* x19-x29, d8-d15 */
__asm__(".text\n"
	".globl registers_over_switch\n"
	".type registers_over_switch, %function\n"
	"registers_over_switch:\n"
	"	sub sp, sp, #176\n"
	"	stp x19, x20, [sp, #0]; stp x21, x22, [sp, #16]; stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]; stp x27, x28, [sp, #64]; stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]; str x3, [sp, #160]\n"
	"	add x19, x2, #0; add x20, x2, #1; add x21, x2, #2; add x22, x2, #3\n"
	"	add x23, x2, #4; add x24, x2, #5; add x25, x2, #6; add x26, x2, #7\n"
	"	add x27, x2, #8; add x28, x2, #9; add x29, x2, #10\n"
	"	add x9, x2, #11; fmov d8, x9; add x9, x2, #12; fmov d9, x9\n"
	"	add x9, x2, #13; fmov d10, x9; add x9, x2, #14; fmov d11, x9\n"
	"	add x9, x2, #15; fmov d12, x9; add x9, x2, #16; fmov d13, x9\n"
	"	add x9, x2, #17; fmov d14, x9; add x9, x2, #18; fmov d15, x9\n"
	"	mov x2, x3\n"
	"	adrp x9, switch_tested; ldr x9, [x9, :lo12:switch_tested]\n"
	"	blr x9\n"
	"	ldr x3, [sp, #160]\n"
	"	stp x19, x20, [x3, #0]; stp x21, x22, [x3, #16]; stp x23, x24, [x3, #32]\n"
	"	stp x25, x26, [x3, #48]; stp x27, x28, [x3, #64]; str x29, [x3, #80]\n"
	"	str d8, [x3, #88]; str d9, [x3, #96]; str d10, [x3, #104]; str d11, [x3, #112]\n"
	"	str d12, [x3, #120]; str d13, [x3, #128]; str d14, [x3, #136]; str d15, [x3, "
	"#144]\n"
	"	ldp x19, x20, [sp, #0]; ldp x21, x22, [sp, #16]; ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]; ldp x27, x28, [sp, #64]; ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #176\n"
	"	ret\n"
	".globl registers_spoil_and_exit\n"
	".type registers_spoil_and_exit, %function\n"
	"registers_spoil_and_exit:\n"
	"	mov x19, #0xbad; mov x20, x19; mov x21, x19; mov x22, x19; mov x23, x19\n"
	"	mov x24, x19; mov x25, x19; mov x26, x19; mov x27, x19; mov x28, x19\n"
	"	mov x29, x19; fmov d8, x19; fmov d9, x19; fmov d10, x19; fmov d11, x19\n"
	"	fmov d12, x19; fmov d13, x19; fmov d14, x19; fmov d15, x19\n"
	"	b wf_context_exit\n");
#endif

enum {
	FIRST_MAIN = 1000,
	FIRST_OTHER = 5000,
};

static uint64_t seen_main[REGISTER_COUNT], seen_other[REGISTER_COUNT];

/* Both sides fill the same registers with different values. */
static void use_registers(void *value)
{
	(void)value;
	for (int i = 0; i < 3; i++)
		registers_over_switch(&other_sp[0], main_sp, FIRST_OTHER, seen_other);
	registers_spoil_and_exit(main_sp);
}

static void check_registers(const uint64_t *seen, uint64_t first, const char *who)
{
	for (unsigned i = 0; i < REGISTER_COUNT; i++)
		cr_assert_eq(seen[i], first + i, "register %u of the %s side", i, who);
}

static void check_both_sides(void)
{
	make(0, use_registers);
	for (int i = 0; i < 4; i++) {
		memset(seen_main, 0, sizeof seen_main);
		registers_over_switch(&main_sp, other_sp[0], FIRST_MAIN, seen_main);
		check_registers(seen_main, FIRST_MAIN, "main");
		if (i > 0)
			check_registers(seen_other, FIRST_OTHER, "other");
	}
}

Test(switch, callee_saved_registers_survive_on_both_sides, .timeout = 120)
{
	by_both(check_both_sides);
}

/* --- alignment --- */

static bool aligned_at_entry, aligned_below;
static char formatted[64];

__attribute__((noinline)) static bool frame_is_aligned(void)
{
	double spilled[2] __attribute__((aligned(16))) = {1.5, 2.5};

	__asm__ __volatile__("" : : "r"(spilled) : "memory");
	return (uintptr_t)__builtin_frame_address(0) % 16 == 0 && (uintptr_t)spilled % 16 == 0;
}

static void look_at_alignment(void *value)
{
	aligned_at_entry = (uintptr_t)__builtin_frame_address(0) % 16 == 0;
	aligned_below = frame_is_aligned();
	/* A variadic function with floating-point arguments stores SSE registers, aligned. */
	snprintf(formatted, sizeof formatted, "%.1f %.2f", 2.5, *(double *)value);
	wf_context_exit(main_sp, NULL);
}

Test(switch, entry_has_an_aligned_stack, .timeout = 120)
{
	double value = 0.25;

	make(0, look_at_alignment);
	go(0, &value);
	cr_assert(aligned_at_entry);
	cr_assert(aligned_below);
	cr_assert_str_eq(formatted, "2.5 0.25");
}

/* --- unwinding --- */

struct trace {
	uintptr_t frame[FRAMES_MAX];
	unsigned count;
	bool too_many;
	_Unwind_Reason_Code ended;
};

static _Unwind_Reason_Code note_frame(struct _Unwind_Context *context, void *arg)
{
	struct trace *trace = arg;
	uintptr_t at = _Unwind_GetIP(context);

	if (trace->count == FRAMES_MAX) {
		trace->too_many = true;
		return _URC_END_OF_STACK;
	}
	if (at != 0)
		trace->frame[trace->count++] = at;
	return _URC_NO_REASON;
}

__attribute__((noinline)) static int unwind_at_depth(unsigned depth, struct trace *trace)
{
	if (depth == 0)
		trace->ended = _Unwind_Backtrace(note_frame, trace);
	else
		unwind_at_depth(depth - 1, trace);
	__asm__ __volatile__("" : : : "memory"); /* no tail call */
	return 0;
}

static void unwind_on_own_stack(void *value)
{
	unwind_at_depth(5, value);
	back(0, NULL);
	unwind_at_depth(9, value);
	wf_context_exit(main_sp, NULL);
}

static void check_trace(const struct trace *trace, unsigned depth)
{
	uintptr_t start = (uintptr_t)wf_context_start;
	uintptr_t last = trace->frame[trace->count - 1];

	cr_assert(!trace->too_many);
	cr_assert_eq((int)trace->ended, (int)_URC_END_OF_STACK);
	/* depth + 1 of unwind_at_depth, entry, bottom; more if a sanitizer is in between. */
	cr_assert_geq(trace->count, depth + 3);
	cr_assert_leq(trace->count, depth + 5);
	cr_assert(last > start && last < start + 64, "the last frame is not the bottom one");
}

static void unwind_twice(void)
{
	static struct trace trace;

	memset(&trace, 0, sizeof trace);
	make(0, unwind_on_own_stack);
	go(0, &trace);
	check_trace(&trace, 5);
	memset(&trace, 0, sizeof trace);
	go(0, NULL);
	check_trace(&trace, 9);
}

Test(switch, unwinding_ends_cleanly_at_the_entry, .timeout = 120)
{
	by_both(unwind_twice);
}

/* What a profiler does that follows frame pointers: the chain is on this stack, and ends with 0. */
__attribute__((noinline)) static unsigned frame_chain(const char *low, const char *high)
{
	void **frame = __builtin_frame_address(0);
	unsigned count = 0;

	while (frame != NULL && count < FRAMES_MAX) {
		cr_assert((char *)frame >= low && (char *)frame < high, "frame %u", count);
		frame = *frame;
		count++;
	}
	return count;
}

static void follow_frames(void *value)
{
	*(unsigned *)value = frame_chain(stack_memory[0], stack_memory[0] + STACK_BYTES);
	wf_context_exit(main_sp, NULL);
}

Test(switch, frame_pointers_end_at_the_entry, .timeout = 120)
{
	unsigned count = 0;

	/* Whatever lies on the stack of its last user must not be taken for frames. */
	memset(stack_memory[0], 0x5a, STACK_BYTES);
	make(0, follow_frames);
	go(0, &count);
	cr_assert_geq(count, 1);
	cr_assert_leq(count, 3);
}

/* --- the machine --- */

Test(switch, this_machine_can_switch, .timeout = 120)
{
	cr_assert_eq(wf_context_check(), 0);
}
