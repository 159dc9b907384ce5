/*
 * syscall.h: the system calls of io/, made directly: they return a negative errno.
 *
 * Why not libc's: Weft never sets `errno`, which belongs to the host's code around it; and libc's
 * read, send, accept … are points of thread cancellation, two more locked operations a call in any
 * process with threads. Under a sanitizer the four calls that move bytes go through libc, whose
 * interceptors check the buffer (errno is put back).
 *
 * Only what is called often is here; what runs once per listener calls wf_syscall() itself.
 */
#ifndef WF_IO_SYSCALL_H
#define WF_IO_SYSCALL_H

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sync/check.h"
#include "sync/fault.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WF_IO_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WF_IO_SANITIZED 1
#endif
#endif
#ifndef WF_IO_SANITIZED
#define WF_IO_SANITIZED 0
#endif

#if defined(WF_ATOMICS_SIM)

/* A simulation has no kernel: test/sim/net.c. */
long wf_sim_syscall(long number);

WF_INLINE long wf_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	(void)a;
	(void)b;
	(void)c;
	(void)d;
	(void)e;
	(void)f;
	return wf_sim_syscall(number);
}

#elif defined(__x86_64__)

WF_INLINE long wf_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ __volatile__("syscall"
			     : "=a"(result)
			     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			     : "rcx", "r11", "memory");
	return result;
}

#elif defined(__aarch64__)

WF_INLINE long wf_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ __volatile__("svc #0"
			     : "+r"(x0)
			     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			     : "memory");
	return x0;
}

#else
#error "io/syscall.h knows x86-64 and aarch64"
#endif

/* The same, where a test can make it fail. */
WF_INLINE long wf_syscall_fallible(long number, long a, long b, long c, long d, long e, long f)
{
	long fault = wf_fault(number);

	return WF_UNLIKELY(fault != 0) ? fault : wf_syscall6(number, a, b, c, d, e, f);
}

/* Up to six arguments, each an integer or a pointer. */
#define wf_syscall(...) \
	WF_SYSCALL_N(__VA_ARGS__, WF_SYSCALL_6, WF_SYSCALL_5, WF_SYSCALL_4, WF_SYSCALL_3, \
		WF_SYSCALL_2, WF_SYSCALL_1, WF_SYSCALL_0)(__VA_ARGS__)
#define WF_SYSCALL_N(n, a, b, c, d, e, f, pick, ...) pick
#define WF_SYSCALL_0(n)          wf_syscall_fallible(n, 0, 0, 0, 0, 0, 0)
#define WF_SYSCALL_1(n, a)       wf_syscall_fallible(n, (long)(a), 0, 0, 0, 0, 0)
#define WF_SYSCALL_2(n, a, b)    wf_syscall_fallible(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define WF_SYSCALL_3(n, a, b, c) wf_syscall_fallible(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define WF_SYSCALL_4(n, a, b, c, d) \
	wf_syscall_fallible(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define WF_SYSCALL_5(n, a, b, c, d, e) \
	wf_syscall_fallible(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define WF_SYSCALL_6(n, a, b, c, d, e, f) \
	wf_syscall_fallible(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#if WF_IO_SANITIZED
#define WF_THROUGH_LIBC(number, call)                           \
	do {                                                    \
		int saved = errno;                              \
		ssize_t result = wf_fails(number) ? -1 : (call);   \
		ssize_t n = result < 0 ? -(ssize_t)errno : result; \
		errno = saved;                                  \
		return n;                                       \
	} while (0)
#endif

WF_INLINE ssize_t wf_sys_recv(int fd, void *buffer, size_t size, int flags)
{
#if WF_IO_SANITIZED
	WF_THROUGH_LIBC(SYS_recvfrom, recv(fd, buffer, size, flags));
#else
	return wf_syscall(SYS_recvfrom, fd, buffer, size, flags, 0, 0);
#endif
}

WF_INLINE ssize_t wf_sys_send(int fd, const void *buffer, size_t size, int flags)
{
#if WF_IO_SANITIZED
	WF_THROUGH_LIBC(SYS_sendto, send(fd, buffer, size, flags));
#else
	return wf_syscall(SYS_sendto, fd, buffer, size, flags, 0, 0);
#endif
}

WF_INLINE ssize_t wf_sys_read(int fd, void *buffer, size_t size)
{
#if WF_IO_SANITIZED
	WF_THROUGH_LIBC(SYS_read, read(fd, buffer, size));
#else
	return wf_syscall(SYS_read, fd, buffer, size);
#endif
}

WF_INLINE ssize_t wf_sys_write(int fd, const void *buffer, size_t size)
{
#if WF_IO_SANITIZED
	WF_THROUGH_LIBC(SYS_write, write(fd, buffer, size));
#else
	return wf_syscall(SYS_write, fd, buffer, size);
#endif
}

WF_INLINE int wf_sys_accept(int fd)
{
	return (int)wf_syscall(SYS_accept4, fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

WF_INLINE int wf_sys_connect(int fd, const void *address, socklen_t size)
{
	return (int)wf_syscall(SYS_connect, fd, address, size);
}

/* The descriptor is closed whatever it returns, so a test's error comes after the call. */
WF_INLINE int wf_sys_close(int fd)
{
	int r = (int)wf_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
	int fault = (int)wf_fault(SYS_close);

	return WF_UNLIKELY(fault != 0) ? fault : r;
}

/* Options of int size, the only ones io/ uses. */
WF_INLINE int wf_sys_set_option(int fd, int level, int name, int value)
{
	return (int)wf_syscall(SYS_setsockopt, fd, level, name, &value, sizeof(value));
}

WF_INLINE int wf_sys_get_option(int fd, int level, int name, int *value_out)
{
	socklen_t size = sizeof(*value_out);

	*value_out = 0;
	return (int)wf_syscall(SYS_getsockopt, fd, level, name, value_out, &size);
}

#endif
