/*
 * map.h: the system calls on memory that stacks are made with; the one place that makes them.
 *
 * A table of functions, so that tests can refuse any call and a simulator can do without the
 * kernel. Every function returns 0 or negative errno. Ranges are whole pages. Any thread.
 */
#ifndef WF_CORE_MAP_H
#define WF_CORE_MAP_H

#include <stddef.h>

/* In Linux since 6.13; the distribution's headers may be older. */
#define WF_MADV_GUARD_INSTALL 102

struct wf_map {
	size_t (*page_bytes)(void *ctx);
	/* Readable, writable, zero; not counted against the commit limit if that is possible. */
	int (*map)(void *ctx, size_t bytes, void **memory_out);
	int (*unmap)(void *ctx, void *memory, size_t bytes);
	int (*advise)(void *ctx, void *memory, size_t bytes, int advice);
	/* Takes all access away. */
	int (*protect)(void *ctx, void *memory, size_t bytes);
	/* One byte a page: bit 0 set if it is resident. */
	int (*resident)(void *ctx, void *memory, size_t bytes, unsigned char *pages_out);
	/* vm.max_map_count; 0 if it cannot be read. */
	size_t (*count_max)(void *ctx);
	void *ctx;
};

extern const struct wf_map wf_map_kernel;

#endif
