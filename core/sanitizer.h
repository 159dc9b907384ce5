/*
 * sanitizer.h: telling AddressSanitizer, LeakSanitizer, ThreadSanitizer and Valgrind about stacks.
 *
 * WF_ASAN and WF_TSAN are 1 in such builds, 0 else; code under them may name what the headers
 * included here declare. Valgrind needs no build of its own: it is told of each stack when that
 * is mapped, by an instruction sequence that does nothing elsewhere, and then notices switches by
 * itself.
 */
#ifndef WF_CORE_SANITIZER_H
#define WF_CORE_SANITIZER_H

#include <stdint.h>

#include "sync/check.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WF_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define WF_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WF_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define WF_TSAN 1
#endif
#ifndef WF_ASAN
#define WF_ASAN 0
#endif
#ifndef WF_TSAN
#define WF_TSAN 0
#endif

#if WF_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#if WF_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* Valgrind's requests, as numbered in its public interface. */
enum {
	WF_VALGRIND_STACK_REGISTER = 0x1501,
	WF_VALGRIND_STACK_DEREGISTER = 0x1502,
};

/* 0 outside Valgrind. */
WF_INLINE uint64_t wf_valgrind_request(uint64_t request, uint64_t first, uint64_t second)
{
	volatile uint64_t args[6] = {request, first, second, 0, 0, 0};
	uint64_t result = 0;

#if defined(__x86_64__)
	__asm__ __volatile__("rolq $3, %%rdi\n\trolq $13, %%rdi\n\t"
			     "rolq $61, %%rdi\n\trolq $51, %%rdi\n\t"
			     "xchgq %%rbx, %%rbx"
			     : "+d"(result)
			     : "a"(args)
			     : "cc", "memory");
#elif defined(__aarch64__)
	register uint64_t x3 __asm__("x3") = 0;
	register volatile uint64_t *x4 __asm__("x4") = args;

	__asm__ __volatile__("ror x12, x12, #3\n\tror x12, x12, #13\n\t"
			     "ror x12, x12, #51\n\tror x12, x12, #61\n\t"
			     "orr x10, x10, x10"
			     : "+r"(x3)
			     : "r"(x4)
			     : "cc", "memory");
	result = x3;
#endif
	return result;
}

#endif
