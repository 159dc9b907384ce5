/*
 * switch_aarch64.S: the context switch (core/switch.h) for aarch64, AAPCS64.
 *
 * Both stacks hold the same frame at the same offsets, so one set of CFI describes the function
 * before and after it changes stacks.
 *
 * wf_context_switch goes on by `br x16`: `ret` would be predicted by the calls seen so far, and
 * wrongly (core/switch.h; in wf_context_switch_alike rightly). With
 * branch target identification a br may land only on a landing pad, which the place behind a call
 * is not, so such builds use ret and pay for it.
 */
#if defined(__aarch64__)

	.text

#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define LANDING	hint	#34		/* bti c */
#define GO_ON	ret	x16
#else
#define LANDING
#define GO_ON	br	x16
#endif

#define FRAME	160

.macro restore_registers
	ldp	d14, d15, [sp, #144]
	ldp	d12, d13, [sp, #128]
	ldp	d10, d11, [sp, #112]
	ldp	d8, d9, [sp, #96]
	ldp	x29, x30, [sp, #80]
	ldp	x27, x28, [sp, #64]
	ldp	x25, x26, [sp, #48]
	ldp	x23, x24, [sp, #32]
	ldp	x21, x22, [sp, #16]
	ldp	x19, x20, [sp, #0]
	add	sp, sp, #FRAME
	.cfi_def_cfa_offset 0
	.cfi_restore x19
	.cfi_restore x20
	.cfi_restore x21
	.cfi_restore x22
	.cfi_restore x23
	.cfi_restore x24
	.cfi_restore x25
	.cfi_restore x26
	.cfi_restore x27
	.cfi_restore x28
	.cfi_restore x29
	.cfi_restore x30
	.cfi_restore d8
	.cfi_restore d9
	.cfi_restore d10
	.cfi_restore d11
	.cfi_restore d12
	.cfi_restore d13
	.cfi_restore d14
	.cfi_restore d15
.endm

.macro go_on
	mov	x16, x30
	GO_ON
.endm

.macro describe_frame
	.cfi_def_cfa sp, FRAME
	.cfi_offset x19, -160
	.cfi_offset x20, -152
	.cfi_offset x21, -144
	.cfi_offset x22, -136
	.cfi_offset x23, -128
	.cfi_offset x24, -120
	.cfi_offset x25, -112
	.cfi_offset x26, -104
	.cfi_offset x27, -96
	.cfi_offset x28, -88
	.cfi_offset x29, -80
	.cfi_offset x30, -72
	.cfi_offset d8, -64
	.cfi_offset d9, -56
	.cfi_offset d10, -48
	.cfi_offset d11, -40
	.cfi_offset d12, -32
	.cfi_offset d13, -24
	.cfi_offset d14, -16
	.cfi_offset d15, -8
.endm

/* The caller's registers and stack pointer saved, the other side's restored. */
.macro exchange_stacks
	sub	sp, sp, #FRAME
	.cfi_def_cfa_offset FRAME
	stp	x19, x20, [sp, #0]
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	stp	d8, d9, [sp, #96]
	stp	d10, d11, [sp, #112]
	stp	d12, d13, [sp, #128]
	stp	d14, d15, [sp, #144]
	describe_frame
	mov	x9, sp
	str	x9, [x0]
	mov	sp, x1
	mov	x0, x2
	restore_registers
.endm

/* void *wf_context_switch(void **save_sp [x0], void *load_sp [x1], void *value [x2]) */
	.globl	wf_context_switch
	.hidden	wf_context_switch
	.type	wf_context_switch, %function
	.p2align 6
wf_context_switch:
	.cfi_startproc
	LANDING
	exchange_stacks
	go_on
	.cfi_endproc
	.size	wf_context_switch, . - wf_context_switch

/* void *wf_context_switch_alike(void **save_sp [x0], void *load_sp [x1], void *value [x2]) */
	.globl	wf_context_switch_alike
	.hidden	wf_context_switch_alike
	.type	wf_context_switch_alike, %function
	.p2align 6
wf_context_switch_alike:
	.cfi_startproc
	LANDING
	exchange_stacks
	ret
	.cfi_endproc
	.size	wf_context_switch_alike, . - wf_context_switch_alike

/* void wf_context_exit(void *load_sp [x0], void *value [x1]) */
	.globl	wf_context_exit
	.hidden	wf_context_exit
	.type	wf_context_exit, %function
	.p2align 6
wf_context_exit:
	.cfi_startproc
	LANDING
	mov	sp, x0
	describe_frame
	mov	x0, x1
	restore_registers
	go_on
	.cfi_endproc
	.size	wf_context_exit, . - wf_context_exit

/*
 * The bottom frame of every fiber. No caller and no frame pointer: unwinders of both kinds stop
 * here. They look up the address before the one they were given, to land inside a call: hence the
 * nop.
 */
	.type	wf_context_bottom, %function
	.p2align 6
wf_context_bottom:
	.cfi_startproc
	.cfi_def_cfa sp, 0
	.cfi_undefined x30
	nop
	.globl	wf_context_start
	.hidden	wf_context_start
	.type	wf_context_start, %function
wf_context_start:
	LANDING
	mov	x29, #0
	mov	x30, #0
	mov	x1, sp
	blr	x19
	brk	#0
	.cfi_endproc
	.size	wf_context_start, . - wf_context_start
	.size	wf_context_bottom, . - wf_context_bottom

#if defined(__ARM_FEATURE_BTI_DEFAULT)
	.section .note.gnu.property, "a"
	.p2align 3
	.long	4			/* the name's size */
	.long	16			/* the description's */
	.long	5			/* NT_GNU_PROPERTY_TYPE_0 */
	.asciz	"GNU"
	.long	0xc0000000		/* GNU_PROPERTY_AARCH64_FEATURE_1_AND */
	.long	4
	.long	1			/* BTI */
	.long	0
#endif

#endif

#if defined(__linux__) && defined(__ELF__)
	.section .note.GNU-stack, "", %progbits
#endif
