/* fiber.c: what of fibers is not inline: the check of the machine, and ASan's way into a fiber. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/fiber.h"

#if defined(__x86_64__)

#define ARCH_SHSTK_STATUS_REQUEST 0x5005 /* arch_prctl, Linux 6.6 */

int wf_context_check(void)
{
	int saved = errno;
	uint64_t features = 0;
	long r = syscall(SYS_arch_prctl, ARCH_SHSTK_STATUS_REQUEST, &features);

	errno = saved;
	/* Kernels and processors without shadow stacks do not know the request. */
	return r == 0 && (features & 1) ? -ENOTSUP : 0;
}

#else

int wf_context_check(void)
{
	return 0;
}

#endif

#if WF_ASAN

/* The first frame: from here on ASan knows the fiber's stack, and resume the worker's. */
void wf_fiber_start_announced(void *value, void *top)
{
	struct wf_fiber *fiber = top;

	__sanitizer_finish_switch_fiber(
		NULL, &fiber->asan_sched->asan_low, &fiber->asan_sched->asan_bytes);
	fiber->asan_entry(value);
}

#endif
