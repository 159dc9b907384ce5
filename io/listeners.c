/*
 * listeners.c: the listening sockets of weft_serve(), one per worker, sharing a port by
 * SO_REUSEPORT.
 *
 *	L1 a probe socket is bound without SO_REUSEPORT, and closed: a port in use is an error, also
 *	   if its user shares it; port 0 becomes a number.
 *	L2 the listeners are bound and begin to listen, one after the other. The kernel numbers them
 *	   in that order, so nothing else may join the group in between.
 *
 * When every worker has a CPU of its own, a filter on the group maps the CPU that a connection
 * arrived on to the number of that CPU's listener, exactly; the default, a hash of the addresses,
 * is wrong for all but one in `count`. The filter is in place before the first listens. Otherwise
 * the hash spreads connections.
 *
 * Stateless. Between L1 and L2 somebody else may take the port: L2 then fails, and is tried again
 * with another port if the kernel chose it. Only two that share ports and begin within the same few
 * microseconds may both get it: the kernel has no way to ask and take in one step.
 */
#include "io/listeners.h"

#include <linux/filter.h>

#include "core/sched.h"
#include "io/fd.h"
#include "io/mem.h"
#include "io/socket.h"
#include "io/syscall.h"

enum {
	PORT_TRIES_MAX = 16,
};

/* True if each worker has a CPU, and no two the same. */
static bool can_steer(const struct weft_rt *rt, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		int cpu = wf_worker_cpu(wf_rt_worker(rt, i));

		if (cpu < 0)
			return false;
		for (unsigned k = 0; k < i; k++)
			if (wf_worker_cpu(wf_rt_worker(rt, k)) == cpu)
				return false;
	}
	return count > 1;
}

/* if (cpu == c0) return 0; if (cpu == c1) return 1; … return cpu % count. */
static int steer(int fd, const struct weft_rt *rt, unsigned count)
{
	struct sock_filter code[2 * WF_WORKERS_MAX + 3];
	struct sock_fprog program = { .filter = code };
	unsigned n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_CPU));
	for (unsigned i = 0; i < count; i++) {
		uint32_t cpu = (uint32_t)wf_worker_cpu(wf_rt_worker(rt, i));

		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, cpu, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, i);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, count);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_A, 0);
	program.len = (unsigned short)n;
	return (int)wf_syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
		sizeof(program));
}

/* L1: the address to listen on, with a port that nobody listens on. */
static int probe(const struct wf_addrs *addrs, struct wf_addr *used_out)
{
	int fd = wf_socket_bind_first(addrs, 0, used_out);

	if (fd < 0)
		return fd;
	(void)wf_sys_close(fd);
	return 0;
}

/* A bound socket begins to listen, and enters the table. Closed on failure. */
static int listener_enter(int fd, int backlog, struct wf_listener *listener_out)
{
	int r = wf_socket_listen(fd, backlog);

	if (r == 0)
		r = wf_fd_reset(fd, WF_FD_SOCKET | WF_FD_TCP | WF_FD_NODELAY,
			&listener_out->generation);
	listener_out->fd = fd;
	if (r < 0)
		(void)wf_sys_close(fd);
	return r;
}

/* L2: all of them or none. */
static int open_all(struct weft_rt *rt, const struct wf_addr *addr, int backlog, unsigned count,
	struct wf_listener *listeners_out, bool *steered_out)
{
	unsigned opened = 0;
	int r = 0;

	*steered_out = can_steer(rt, count);
	while (opened < count) {
		int fd = wf_socket_bind(addr, WF_BIND_SHARED);

		if (fd >= 0 && opened == 0 && *steered_out && steer(fd, rt, count) < 0) {
			wf_log(rt, WEFT_LOG_WARN, "serve: connections cannot be steered by CPU");
			*steered_out = false;
		}
		r = fd < 0 ? fd : listener_enter(fd, backlog, &listeners_out[opened]);
		if (r < 0)
			break;
		opened++;
	}
	while (r < 0 && opened-- > 0)
		wf_listener_close(&listeners_out[opened]);
	return r;
}

int wf_listeners_open(struct weft_rt *rt, const struct wf_addrs *addrs, int backlog, unsigned count,
	struct wf_listener *listeners_out, bool *steered_out)
{
	struct wf_addr addr;
	bool chosen;
	int r;

	if (addrs->in_memory[0]) {
		*steered_out = false; /* in turn, wherever they come from */
		return wf_mem_listen(addrs->in_memory, backlog, count, listeners_out);
	}
	chosen = wf_addr_port(&addrs->addr[0]) == 0;
	for (unsigned tries = 0; tries < PORT_TRIES_MAX; tries++) {
		r = probe(addrs, &addr);
		if (r == 0)
			r = open_all(rt, &addr, backlog, count, listeners_out, steered_out);
		if (r != -EADDRINUSE || !chosen)
			break;
	}
	return r;
}

void wf_listener_close(const struct wf_listener *listener)
{
	(void)wf_fd_close(listener->fd, listener->generation);
}
