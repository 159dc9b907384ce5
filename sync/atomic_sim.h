/*
 * atomic_sim.h: the simulator's back end of atomic.h: every operation is a scheduling point.
 *
 * All virtual threads of a simulation are contexts on one OS thread (test/sim/engine.c). Before
 * each operation the engine decides who goes on: this thread, another one, or somebody's store
 * buffer. Memory is that of x86-64 (TSO): relaxed and release stores wait in their thread's buffer,
 * first in first out, until the engine lets the oldest out; a thread's own loads see its own buffer
 * first; read-modify-writes, seq_cst stores and fences empty it before they act. Orders weaker than
 * TSO (relaxed loads out of turn) are not in it: C11's own model is for other tools.
 *
 * Plain fields are not scheduling points and are visible at once. That is sound where an atomic
 * operation hands them over, which is what the protocols promise; a data race on them is
 * ThreadSanitizer's to find.
 *
 * Outside a virtual thread (setting up, checking) operations act directly.
 *
 * The names of atomic.h are macros here, so that a trace can say where an operation stands.
 */
#ifndef WF_SYNC_ATOMIC_SIM_H
#define WF_SYNC_ATOMIC_SIM_H

#ifndef WF_SYNC_ATOMIC_H
#error "include sync/atomic.h"
#endif

enum wf_sim_order { WF_SIM_RELAXED, WF_SIM_ACQUIRE, WF_SIM_RELEASE, WF_SIM_SEQ_CST };

enum wf_sim_rmw { WF_SIM_EXCHANGE, WF_SIM_ADD, WF_SIM_OR, WF_SIM_AND };

uint64_t wf_sim_load(const void *address, unsigned bytes, enum wf_sim_order order,
	const char *function, int line);
void wf_sim_store(void *address, unsigned bytes, uint64_t value, enum wf_sim_order order,
	const char *function, int line);
/* The old value. */
uint64_t wf_sim_rmw(void *address, unsigned bytes, enum wf_sim_rmw what, uint64_t operand,
	const char *function, int line);
/* As wf_sim_rmw; the exchange takes place if the value was `expected`. */
uint64_t wf_sim_cas(void *address, unsigned bytes, uint64_t expected, uint64_t desired,
	const char *function, int line);
void wf_sim_fence(const char *function, int line);
/* The thread goes on when memory has changed, or nobody else can go on. */
void wf_sim_pause(const char *function, int line);

/* As wf_futex_sleep and wf_futex_wake of futex.h. */
int wf_sim_futex_sleep(wf_atomic_u32 *word, uint32_t expected, uint64_t timeout_ns,
	const char *function, int line);
void wf_sim_futex_wake(wf_atomic_u32 *word, int count, const char *function, int line);

/* Of the calling virtual thread, from 1; 0 outside. */
unsigned wf_sim_self(void);

#define wf_compiler_barrier() __asm__ __volatile__("" ::: "memory")
#define wf_fence_seq_cst()    wf_sim_fence(__func__, __LINE__)
#define wf_pause()            wf_sim_pause(__func__, __LINE__)

#define WF_SIM_TYPED(T, CTYPE, RAW)                                                               \
	WF_INLINE CTYPE wf_sim_##T##_load(                                                        \
		const wf_atomic_##T *a, enum wf_sim_order order, const char *function, int line)  \
	{                                                                                         \
		return (CTYPE)(RAW)wf_sim_load(&a->raw, sizeof(a->raw), order, function, line);   \
	}                                                                                         \
	WF_INLINE void wf_sim_##T##_store(wf_atomic_##T *a, CTYPE value, enum wf_sim_order order, \
		const char *function, int line)                                                   \
	{                                                                                         \
		wf_sim_store(&a->raw, sizeof(a->raw), (RAW)value, order, function, line);         \
	}                                                                                         \
	WF_INLINE CTYPE wf_sim_##T##_rmw(wf_atomic_##T *a, enum wf_sim_rmw what, CTYPE operand,   \
		const char *function, int line)                                                   \
	{                                                                                         \
		return (CTYPE)(RAW)wf_sim_rmw(                                                    \
			&a->raw, sizeof(a->raw), what, (RAW)operand, function, line);             \
	}                                                                                         \
	WF_INLINE bool wf_sim_##T##_cas(                                                          \
		wf_atomic_##T *a, CTYPE *expected, CTYPE desired, const char *function, int line) \
	{                                                                                         \
		CTYPE seen = (CTYPE)(RAW)wf_sim_cas(                                              \
			&a->raw, sizeof(a->raw), (RAW)*expected, (RAW)desired, function, line);   \
		bool done = seen == *expected;                                                    \
		*expected = seen;                                                                 \
		return done;                                                                      \
	}

WF_SIM_TYPED(u32, uint32_t, uint32_t)
WF_SIM_TYPED(u64, uint64_t, uint64_t)
WF_SIM_TYPED(ptr, void *, uintptr_t)

#define wf_u32_load_relaxed(a) wf_sim_u32_load(a, WF_SIM_RELAXED, __func__, __LINE__)
#define wf_u32_load_acquire(a) wf_sim_u32_load(a, WF_SIM_ACQUIRE, __func__, __LINE__)
#define wf_u32_load_seq_cst(a) wf_sim_u32_load(a, WF_SIM_SEQ_CST, __func__, __LINE__)
#define wf_u32_store_relaxed(a, value) \
	wf_sim_u32_store(a, value, WF_SIM_RELAXED, __func__, __LINE__)
#define wf_u32_store_release(a, value) \
	wf_sim_u32_store(a, value, WF_SIM_RELEASE, __func__, __LINE__)
#define wf_u32_store_seq_cst(a, value) \
	wf_sim_u32_store(a, value, WF_SIM_SEQ_CST, __func__, __LINE__)
#define wf_u32_exchange(a, value) \
	wf_sim_u32_rmw(a, WF_SIM_EXCHANGE, value, __func__, __LINE__)
#define wf_u32_fetch_add(a, value)       wf_sim_u32_rmw(a, WF_SIM_ADD, value, __func__, __LINE__)
#define wf_u32_fetch_or(a, mask)         wf_sim_u32_rmw(a, WF_SIM_OR, mask, __func__, __LINE__)
#define wf_u32_fetch_and(a, mask)        wf_sim_u32_rmw(a, WF_SIM_AND, mask, __func__, __LINE__)
#define wf_u32_cas(a, expected, desired) wf_sim_u32_cas(a, expected, desired, __func__, __LINE__)

#define wf_u64_load_relaxed(a) wf_sim_u64_load(a, WF_SIM_RELAXED, __func__, __LINE__)
#define wf_u64_load_acquire(a) wf_sim_u64_load(a, WF_SIM_ACQUIRE, __func__, __LINE__)
#define wf_u64_load_seq_cst(a) wf_sim_u64_load(a, WF_SIM_SEQ_CST, __func__, __LINE__)
#define wf_u64_store_relaxed(a, value) \
	wf_sim_u64_store(a, value, WF_SIM_RELAXED, __func__, __LINE__)
#define wf_u64_store_release(a, value) \
	wf_sim_u64_store(a, value, WF_SIM_RELEASE, __func__, __LINE__)
#define wf_u64_store_seq_cst(a, value) \
	wf_sim_u64_store(a, value, WF_SIM_SEQ_CST, __func__, __LINE__)
#define wf_u64_exchange(a, value) \
	wf_sim_u64_rmw(a, WF_SIM_EXCHANGE, value, __func__, __LINE__)
#define wf_u64_fetch_add(a, value)       wf_sim_u64_rmw(a, WF_SIM_ADD, value, __func__, __LINE__)
#define wf_u64_fetch_or(a, mask)         wf_sim_u64_rmw(a, WF_SIM_OR, mask, __func__, __LINE__)
#define wf_u64_fetch_and(a, mask)        wf_sim_u64_rmw(a, WF_SIM_AND, mask, __func__, __LINE__)
#define wf_u64_cas(a, expected, desired) wf_sim_u64_cas(a, expected, desired, __func__, __LINE__)

#define wf_ptr_load_relaxed(a) wf_sim_ptr_load(a, WF_SIM_RELAXED, __func__, __LINE__)
#define wf_ptr_load_acquire(a) wf_sim_ptr_load(a, WF_SIM_ACQUIRE, __func__, __LINE__)
#define wf_ptr_load_seq_cst(a) wf_sim_ptr_load(a, WF_SIM_SEQ_CST, __func__, __LINE__)
#define wf_ptr_store_relaxed(a, value) \
	wf_sim_ptr_store(a, value, WF_SIM_RELAXED, __func__, __LINE__)
#define wf_ptr_store_release(a, value) \
	wf_sim_ptr_store(a, value, WF_SIM_RELEASE, __func__, __LINE__)
#define wf_ptr_store_seq_cst(a, value) \
	wf_sim_ptr_store(a, value, WF_SIM_SEQ_CST, __func__, __LINE__)
#define wf_ptr_exchange(a, value) \
	wf_sim_ptr_rmw(a, WF_SIM_EXCHANGE, value, __func__, __LINE__)
#define wf_ptr_cas(a, expected, desired) wf_sim_ptr_cas(a, expected, desired, __func__, __LINE__)

#endif
