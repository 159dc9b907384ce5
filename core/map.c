/* map.c: struct wf_map on the kernel. The caller's errno is left alone. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/map.h"
#include "sync/check.h"
#include "sync/fault.h"

static int failed(int errno_before)
{
	int r = -errno;

	errno = errno_before;
	return r;
}

static size_t kernel_page_bytes(void *ctx)
{
	(void)ctx;
	return (size_t)sysconf(_SC_PAGESIZE);
}

static int kernel_map(void *ctx, size_t bytes, void **memory_out)
{
	int saved = errno;
	void *memory = MAP_FAILED;

	(void)ctx;
	if (!wf_fails(SYS_mmap))
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (memory == MAP_FAILED)
		return failed(saved);
	*memory_out = memory;
	return 0;
}

static int kernel_unmap(void *ctx, void *memory, size_t bytes)
{
	int saved = errno;

	(void)ctx;
	return !wf_fails(SYS_munmap) && munmap(memory, bytes) == 0 ? 0 : failed(saved);
}

static int kernel_advise(void *ctx, void *memory, size_t bytes, int advice)
{
	int saved = errno;

	(void)ctx;
	return !wf_fails(SYS_madvise) && madvise(memory, bytes, advice) == 0 ? 0 : failed(saved);
}

static int kernel_protect(void *ctx, void *memory, size_t bytes)
{
	int saved = errno;

	(void)ctx;
	return !wf_fails(SYS_mprotect) && mprotect(memory, bytes, PROT_NONE) == 0 ? 0
		: failed(saved);
}

static int kernel_resident(void *ctx, void *memory, size_t bytes, unsigned char *pages_out)
{
	int saved = errno;

	(void)ctx;
	return !wf_fails(SYS_mincore) && mincore(memory, bytes, pages_out) == 0 ? 0
		: failed(saved);
}

static size_t kernel_count_max(void *ctx)
{
	int saved = errno;
	int fd = -1;
	char text[32];
	ssize_t n = -1;

	(void)ctx;
	if (!wf_fails(SYS_openat))
		fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = wf_fails(SYS_read) ? -1 : read(fd, text, sizeof text - 1);
		close(fd);
	}
	errno = saved;
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return strtoul(text, NULL, 10);
}

const struct wf_map wf_map_kernel = {
	.page_bytes = kernel_page_bytes,
	.map = kernel_map,
	.unmap = kernel_unmap,
	.advise = kernel_advise,
	.protect = kernel_protect,
	.resident = kernel_resident,
	.count_max = kernel_count_max,
};
