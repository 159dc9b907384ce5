/*
 * switch_x86_64.S: the context switch (core/switch.h) for x86-64, System V ABI.
 *
 * Both stacks hold the same frame at the same offsets, so one set of CFI describes the function
 * before and after it changes stacks: at every instruction a debugger or profiler sees either the
 * old side's caller or the new side's.
 *
 * `notrack`: where a suspended side goes on is behind a call, not at an endbr64. The property note
 * says IBT and leaves out SHSTK, so that the linker clears it for the whole program.
 */
#if defined(__x86_64__)

	.text

/* The six registers of a frame, and then where its side goes on. */
.macro restore_registers
	popq	%r15
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r15
	popq	%r14
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r14
	popq	%r13
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r13
	popq	%r12
	.cfi_adjust_cfa_offset -8
	.cfi_restore %r12
	popq	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	popq	%rbp
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbp
.endm

.macro go_on_by_jmp
	popq	%rcx
	.cfi_adjust_cfa_offset -8
	.cfi_register %rip, %rcx
	notrack jmp *%rcx
.endm

/* The caller's registers and stack pointer saved, the other side's restored, but for rip. */
.macro exchange_stacks
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbp, 0
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r12, 0
	pushq	%r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r13, 0
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r14, 0
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %r15, 0
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	movq	%rdx, %rax
	restore_registers
.endm

/* void *wf_context_switch(void **save_sp [rdi], void *load_sp [rsi], void *value [rdx]) */
	.globl	wf_context_switch
	.hidden	wf_context_switch
	.type	wf_context_switch, @function
	.p2align 6
wf_context_switch:
	.cfi_startproc
	endbr64
	exchange_stacks
	go_on_by_jmp
	.cfi_endproc
	.size	wf_context_switch, . - wf_context_switch

/* void *wf_context_switch_alike(void **save_sp [rdi], void *load_sp [rsi], void *value [rdx]) */
	.globl	wf_context_switch_alike
	.hidden	wf_context_switch_alike
	.type	wf_context_switch_alike, @function
	.p2align 6
wf_context_switch_alike:
	.cfi_startproc
	endbr64
	exchange_stacks
	ret
	.cfi_endproc
	.size	wf_context_switch_alike, . - wf_context_switch_alike

/* void wf_context_exit(void *load_sp [rdi], void *value [rsi]) */
	.globl	wf_context_exit
	.hidden	wf_context_exit
	.type	wf_context_exit, @function
	.p2align 6
wf_context_exit:
	.cfi_startproc
	endbr64
	movq	%rdi, %rsp
	.cfi_def_cfa %rsp, 56
	.cfi_offset %rbp, -16
	.cfi_offset %rbx, -24
	.cfi_offset %r12, -32
	.cfi_offset %r13, -40
	.cfi_offset %r14, -48
	.cfi_offset %r15, -56
	movq	%rsi, %rax
	restore_registers
	go_on_by_jmp
	.cfi_endproc
	.size	wf_context_exit, . - wf_context_exit

/*
 * The bottom frame of every fiber. No caller and no frame pointer: unwinders of both kinds stop
 * here. They look up the address before the one they were given, to land inside a call: hence the
 * nop.
 */
	.type	wf_context_bottom, @function
	.p2align 6
wf_context_bottom:
	.cfi_startproc
	.cfi_def_cfa %rsp, 0
	.cfi_undefined %rip
	nop
	.globl	wf_context_start
	.hidden	wf_context_start
	.type	wf_context_start, @function
wf_context_start:
	endbr64
	xorl	%ebp, %ebp
	movq	%rax, %rdi
	movq	%rsp, %rsi
	call	*%r12
	ud2
	.cfi_endproc
	.size	wf_context_start, . - wf_context_start
	.size	wf_context_bottom, . - wf_context_bottom

	.section .note.gnu.property, "a", @note
	.p2align 3
	.long	4			/* the name's size */
	.long	16			/* the description's */
	.long	5			/* NT_GNU_PROPERTY_TYPE_0 */
	.asciz	"GNU"
	.long	0xc0000002		/* GNU_PROPERTY_X86_FEATURE_1_AND */
	.long	4
	.long	1			/* IBT */
	.long	0

#endif

#if defined(__linux__) && defined(__ELF__)
	.section .note.GNU-stack, "", %progbits
#endif
