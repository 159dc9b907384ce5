/*
 * buf.c: weft_recv_buf() and weft_buf_release(): receiving into buffers of the runtime's.
 *
 * On epoll the kernel copies, so a lent buffer only saves the caller from keeping one while it
 * waits: the buffer is taken after the descriptor has become readable, and a connection that is
 * silent costs none. Drivers that own their receive memory lend that instead, through the same
 * calls.
 *
 * A buffer is one block: struct wf_buf, then the bytes. Up to WF_BUF_FREE_MAX unused ones are kept;
 * how many are lent is bounded by the processes that hold one, each of which has read at most one
 * buffer's bytes from the kernel.
 *
 * Threads: taking is a process's; releasing any thread's, before the runtime is destroyed. The lock
 * guards list and counters, and is never held over an allocation. Blocking (a short lock).
 */
#include "io/buf.h"

#include <errno.h>

#include "io/drivers.h"
#include "io/fd.h"
#include "io/tcp.h"

enum {
	WF_BUF_BYTES = 16384,
	WF_BUF_FREE_MAX = 64,
};

struct wf_buf {
	struct weft_rt *rt;
	struct wf_buf *next;
	unsigned char data[WF_BUF_BYTES] WF_ALIGNED(WF_CACHE_LINE);
};

static struct wf_buf_pool *pool_of(struct weft_rt *rt)
{
	struct wf_io *io = wf_rt_io(rt);

	return &io->buffers;
}

static struct wf_buf *buf_take(struct weft_rt *rt)
{
	struct wf_buf_pool *pool = pool_of(rt);
	struct wf_buf *buf;

	wf_spinlock_lock(&pool->lock);
	buf = pool->free;
	if (buf) {
		pool->free = buf->next;
		pool->free_count--;
	}
	pool->lent_count++;
	wf_spinlock_unlock(&pool->lock);
	if (buf)
		return buf;
	buf = wf_alloc(rt, WF_CACHE_LINE, sizeof(*buf));
	if (buf) {
		buf->rt = rt;
		return buf;
	}
	wf_spinlock_lock(&pool->lock);
	pool->lent_count--;
	wf_spinlock_unlock(&pool->lock);
	return NULL;
}

static void buf_give(struct wf_buf *buf)
{
	struct weft_rt *rt = buf->rt;
	struct wf_buf_pool *pool = pool_of(rt);
	bool keep;

	wf_spinlock_lock(&pool->lock);
	pool->lent_count--;
	keep = pool->free_count < WF_BUF_FREE_MAX;
	if (keep) {
		buf->next = pool->free;
		pool->free = buf;
		pool->free_count++;
	}
	wf_spinlock_unlock(&pool->lock);
	if (!keep)
		wf_free(rt, buf, sizeof(*buf));
}

/* What a read gave, as the caller's: an error and the end of the stream lend nothing. */
static ssize_t lend(struct wf_buf *buf, ssize_t n, struct weft_buf *buffer_out)
{
	if (n <= 0) {
		buf_give(buf);
		return n;
	}
	buffer_out->data = buf->data;
	buffer_out->size = (size_t)n;
	buffer_out->owner = buf;
	return n;
}

ssize_t weft_recv_buf(int fd, struct weft_buf *buffer_out, weft_time deadline)
{
	struct wf_op op;
	ssize_t n = wf_tcp_begin_once(&op, fd);

	*buffer_out = (struct weft_buf){ .data = NULL };
	if (n < 0)
		return n;
	while ((n = wf_op_turn(&op, WF_FD_READ, deadline, false)) == 0) {
		struct wf_buf *buf = buf_take(wf_worker_rt(wf_worker_self()));

		if (!buf) {
			n = -ENOMEM;
			break;
		}
		n = lend(buf, wf_tcp_receive_now(&op, buf->data, sizeof(buf->data)), buffer_out);
		if (n != -EAGAIN)
			break;
	}
	wf_tcp_end(&op, n >= 0);
	return n;
}

void weft_buf_release(struct weft_buf *buffer)
{
	struct wf_buf *buf = buffer ? buffer->owner : NULL;

	if (!buf)
		return;
	*buffer = (struct weft_buf){ .data = NULL };
	buf_give(buf);
}

void wf_buf_pool_close(struct weft_rt *rt, struct wf_buf_pool *pool)
{
	if (pool->lent_count)
		wf_log(rt, WEFT_LOG_ERROR, "%u buffers of weft_recv_buf were never released",
			pool->lent_count);
	while (pool->free) {
		struct wf_buf *buf = pool->free;

		pool->free = buf->next;
		wf_free(rt, buf, sizeof(*buf));
	}
}
