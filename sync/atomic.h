/*
 * atomic.h: every atomic operation of the project, on three back ends chosen by the build mode.
 *
 *   production   Concurrency Kit's ck_pr                        (default)
 *   C11          compiler atomics, visible to ThreadSanitizer   (WF_ATOMICS_C11)
 *   simulator    every operation is a scheduling point          (WF_ATOMICS_SIM, sync/atomic_sim.h)
 *
 * Types are structs, so that no plain access compiles by accident. Zero is a valid initial value.
 *
 *   wf_atomic_u32  wf_atomic_u64  wf_atomic_ptr           with T one of u32, u64, ptr:
 *
 *   wf_T_load_relaxed / _load_acquire / _load_seq_cst(a)
 *   wf_T_store_relaxed / _store_release / _store_seq_cst(a, value)
 *   wf_T_cas(a, &expected, desired)     bool; on failure the value seen is put into expected
 *   wf_T_exchange(a, value)             the old value
 *   wf_T_fetch_add(a, value)            the old value (not for ptr)
 *   wf_T_fetch_or / _fetch_and(a, mask) the old value (not for ptr)
 *   wf_fence_seq_cst()  wf_pause()  wf_compiler_barrier()
 *
 * Ordering. Every read-modify-write is seq_cst, on every back end: on x86-64 no weaker one exists,
 * and on aarch64, where ck_pr's carry no order at all, this wrapper adds the fences. A failed cas
 * orders like a seq_cst load.
 *
 * StoreLoad order (the "publish, then look" of every park and wake) comes from a read-modify-write,
 * never from a fence: a `lock`ed instruction is 5 ns, ck_pr_fence_memory and clang's seq_cst fence
 * are mfence, 22 ns. The load after that read-modify-write must be load_seq_cst: a plain mov on
 * x86-64, but in the C11 model (and on aarch64) anything weaker may be satisfied before the
 * read-modify-write, and a wake is lost. wf_fence_seq_cst exists for tests and cold paths;
 * ThreadSanitizer does not understand it.
 */
#ifndef WF_SYNC_ATOMIC_H
#define WF_SYNC_ATOMIC_H

#include "sync/check.h"
#include "sync/planted.h"

typedef struct {
	uint32_t raw;
} wf_atomic_u32;

typedef struct {
	uint64_t raw;
} wf_atomic_u64;

typedef struct {
	void *raw;
} wf_atomic_ptr;

#if defined(WF_ATOMICS_SIM)

#include "sync/atomic_sim.h"

#elif defined(WF_ATOMICS_C11)

#define wf_compiler_barrier() __asm__ __volatile__("" ::: "memory")

WF_INLINE void wf_fence_seq_cst(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

WF_INLINE void wf_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield" ::: "memory");
#endif
}

#define WF_ATOMIC_COMMON(T, CTYPE)                                                       \
	WF_INLINE CTYPE wf_##T##_load_relaxed(const wf_atomic_##T *a)                    \
	{                                                                                \
		return __atomic_load_n(&a->raw, __ATOMIC_RELAXED);                       \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_load_acquire(const wf_atomic_##T *a)                    \
	{                                                                                \
		return __atomic_load_n(&a->raw, __ATOMIC_ACQUIRE);                       \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_load_seq_cst(const wf_atomic_##T *a)                    \
	{                                                                                \
		return __atomic_load_n(&a->raw, __ATOMIC_SEQ_CST);                       \
	}                                                                                \
	WF_INLINE void wf_##T##_store_relaxed(wf_atomic_##T *a, CTYPE value)             \
	{                                                                                \
		__atomic_store_n(&a->raw, value, __ATOMIC_RELAXED);                      \
	}                                                                                \
	WF_INLINE void wf_##T##_store_release(wf_atomic_##T *a, CTYPE value)             \
	{                                                                                \
		__atomic_store_n(&a->raw, value, __ATOMIC_RELEASE);                      \
	}                                                                                \
	WF_INLINE void wf_##T##_store_seq_cst(wf_atomic_##T *a, CTYPE value)             \
	{                                                                                \
		__atomic_store_n(&a->raw, value, __ATOMIC_SEQ_CST);                      \
	}                                                                                \
	WF_INLINE bool wf_##T##_cas(wf_atomic_##T *a, CTYPE *expected, CTYPE desired)    \
	{                                                                                \
		return __atomic_compare_exchange_n(                                      \
			&a->raw, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_exchange(wf_atomic_##T *a, CTYPE value)                 \
	{                                                                                \
		return __atomic_exchange_n(&a->raw, value, __ATOMIC_SEQ_CST);            \
	}

#define WF_ATOMIC_ARITHMETIC(T, CTYPE)                                                   \
	WF_INLINE CTYPE wf_##T##_fetch_add(wf_atomic_##T *a, CTYPE value)                \
	{                                                                                \
		return __atomic_fetch_add(&a->raw, value, __ATOMIC_SEQ_CST);             \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_fetch_or(wf_atomic_##T *a, CTYPE mask)                  \
	{                                                                                \
		return __atomic_fetch_or(&a->raw, mask, __ATOMIC_SEQ_CST);               \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_fetch_and(wf_atomic_##T *a, CTYPE mask)                 \
	{                                                                                \
		return __atomic_fetch_and(&a->raw, mask, __ATOMIC_SEQ_CST);              \
	}

WF_ATOMIC_COMMON(u32, uint32_t)
WF_ATOMIC_COMMON(u64, uint64_t)
WF_ATOMIC_COMMON(ptr, void *)
WF_ATOMIC_ARITHMETIC(u32, uint32_t)
WF_ATOMIC_ARITHMETIC(u64, uint64_t)

#else /* Concurrency Kit */

#include <ck_pr.h>

#define wf_compiler_barrier() ck_pr_barrier()

/*
 * ck_pr's read-modify-writes are full barriers on x86-64 (TSO) and unordered elsewhere; the pair of
 * fences around each makes them seq_cst there. On x86-64 only the compiler barrier remains (the asm
 * of ck_pr clobbers memory).
 */
#if defined(__x86_64__)
#define WF_RMW_BEFORE() ((void)0)
#define WF_RMW_AFTER()  ((void)0)
#define WF_LOAD_SEQ()   ck_pr_barrier()
#else
#define WF_RMW_BEFORE() ck_pr_fence_strict_memory()
#define WF_RMW_AFTER()  ck_pr_fence_strict_memory()
#define WF_LOAD_SEQ()   ck_pr_fence_strict_memory()
#endif

WF_INLINE void wf_fence_seq_cst(void)
{
#if defined(__x86_64__)
	uint64_t dummy = 0;

	(void)ck_pr_faa_64(&dummy, 0);
#else
	ck_pr_fence_strict_memory();
#endif
}

WF_INLINE void wf_pause(void)
{
	ck_pr_stall();
}

/*
 * ck_pr lets gcc store a constant from 2^31 to 2^32 - 1 into 64 bits as an immediate, which the
 * instruction lacks: the assembler refuses it. Such a constant goes through a register. (Literal
 * pointers into that range do not occur.)
 */
#if defined(__x86_64__)
#define WF_STORABLE(value)                                                               \
	do {                                                                             \
		if (sizeof(value) == 8 && __builtin_constant_p(value) &&                 \
			(uint64_t)(value) >> 31 == 1)                                    \
			__asm__("" : "+r"(value));                                       \
	} while (0)
#else
#define WF_STORABLE(value) ((void)0)
#endif

#define WF_ATOMIC_COMMON(T, CTYPE, CK)                                                   \
	WF_INLINE CTYPE wf_##T##_load_relaxed(const wf_atomic_##T *a)                    \
	{                                                                                \
		return (CTYPE)ck_pr_load_##CK(&a->raw);                                  \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_load_acquire(const wf_atomic_##T *a)                    \
	{                                                                                \
		CTYPE value = (CTYPE)ck_pr_load_##CK(&a->raw);                           \
		ck_pr_fence_acquire();                                                   \
		return value;                                                            \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_load_seq_cst(const wf_atomic_##T *a)                    \
	{                                                                                \
		CTYPE value;                                                             \
		WF_LOAD_SEQ();                                                           \
		value = (CTYPE)ck_pr_load_##CK(&a->raw);                                 \
		ck_pr_fence_acquire();                                                   \
		return value;                                                            \
	}                                                                                \
	WF_INLINE void wf_##T##_store_relaxed(wf_atomic_##T *a, CTYPE value)             \
	{                                                                                \
		WF_STORABLE(value);                                                      \
		ck_pr_store_##CK(&a->raw, value);                                        \
	}                                                                                \
	WF_INLINE void wf_##T##_store_release(wf_atomic_##T *a, CTYPE value)             \
	{                                                                                \
		WF_STORABLE(value);                                                      \
		ck_pr_fence_release();                                                   \
		ck_pr_store_##CK(&a->raw, value);                                        \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_exchange(wf_atomic_##T *a, CTYPE value)                 \
	{                                                                                \
		CTYPE old;                                                               \
		WF_RMW_BEFORE();                                                         \
		old = (CTYPE)ck_pr_fas_##CK(&a->raw, value);                             \
		WF_RMW_AFTER();                                                          \
		return old;                                                              \
	}                                                                                \
	WF_INLINE void wf_##T##_store_seq_cst(wf_atomic_##T *a, CTYPE value)             \
	{                                                                                \
		(void)wf_##T##_exchange(a, value);                                       \
	}                                                                                \
	WF_INLINE bool wf_##T##_cas(wf_atomic_##T *a, CTYPE *expected, CTYPE desired)    \
	{                                                                                \
		CTYPE seen = *expected;                                                  \
		bool done;                                                               \
		WF_RMW_BEFORE();                                                         \
		done = ck_pr_cas_##CK##_value(&a->raw, *expected, desired, &seen);       \
		WF_RMW_AFTER();                                                          \
		if (!done)                                                               \
			*expected = seen;                                                \
		return done;                                                             \
	}

#define WF_ATOMIC_ARITHMETIC(T, CTYPE, CK)                                               \
	WF_INLINE CTYPE wf_##T##_fetch_add(wf_atomic_##T *a, CTYPE value)                \
	{                                                                                \
		CTYPE old;                                                               \
		WF_RMW_BEFORE();                                                         \
		old = ck_pr_faa_##CK(&a->raw, value);                                    \
		WF_RMW_AFTER();                                                          \
		return old;                                                              \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_fetch_or(wf_atomic_##T *a, CTYPE mask)                  \
	{                                                                                \
		CTYPE old = wf_##T##_load_relaxed(a);                                    \
		while (!wf_##T##_cas(a, &old, old | mask))                               \
			;                                                                \
		return old;                                                              \
	}                                                                                \
	WF_INLINE CTYPE wf_##T##_fetch_and(wf_atomic_##T *a, CTYPE mask)                 \
	{                                                                                \
		CTYPE old = wf_##T##_load_relaxed(a);                                    \
		while (!wf_##T##_cas(a, &old, old & mask))                               \
			;                                                                \
		return old;                                                              \
	}

WF_ATOMIC_COMMON(u32, uint32_t, 32)
WF_ATOMIC_COMMON(u64, uint64_t, 64)
WF_ATOMIC_COMMON(ptr, void *, ptr)
WF_ATOMIC_ARITHMETIC(u32, uint32_t, 32)
WF_ATOMIC_ARITHMETIC(u64, uint64_t, 64)

#endif

#endif
