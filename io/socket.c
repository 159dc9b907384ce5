/* socket.c: making listening sockets. Stateless; socket.h says what each call gives. */
#include "io/socket.h"

#include <limits.h>
#include <netinet/tcp.h>

#include "io/mem.h"
#include "io/syscall.h"

static int set_options(int fd, const struct wf_addr *addr, unsigned flags)
{
	int r = wf_sys_set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);

	if (r == 0 && (flags & WF_BIND_SHARED))
		r = wf_sys_set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (r == 0 && addr->any.sa_family == AF_INET6 && wf_addr_is_wildcard(addr))
		r = wf_sys_set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	return r == 0 ? wf_sys_set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) : r;
}

int wf_socket_bind(const struct wf_addr *addr, unsigned flags)
{
	int fd = (int)wf_syscall(SYS_socket, addr->any.sa_family,
		SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	int r;

	if (fd < 0)
		return fd;
	r = set_options(fd, addr, flags);
	if (r == 0)
		r = (int)wf_syscall(SYS_bind, fd, &addr->any, addr->size);
	if (r == 0)
		return fd;
	(void)wf_sys_close(fd);
	return r;
}

static bool is_missing(int error)
{
	return error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL;
}

int wf_socket_bind_first(const struct wf_addrs *addrs, unsigned flags, struct wf_addr *used_out)
{
	int fd = -EADDRNOTAVAIL, r;

	for (unsigned i = 0; i < addrs->count && is_missing(fd); i++)
		fd = wf_socket_bind(&addrs->addr[i], flags);
	if (fd < 0)
		return fd;
	r = wf_socket_address(fd, used_out);
	if (r == 0)
		return fd;
	(void)wf_sys_close(fd);
	return r;
}

int wf_socket_listen(int fd, int backlog)
{
	return (int)wf_syscall(SYS_listen, fd, backlog ? backlog : INT_MAX);
}

int wf_socket_queued(int fd)
{
	struct tcp_info info = { .tcpi_unacked = 0 };
	socklen_t size = sizeof(info);
	int r;

	if (fd >= WF_FD_NUMBER_MAX)
		return wf_mem_queued(fd);
	r = (int)wf_syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &info, &size);

	/* Of a listener it is the length of the queue. */
	return r < 0 ? r : (int)info.tcpi_unacked;
}

int wf_socket_address(int fd, struct wf_addr *out)
{
	struct sockaddr_storage storage = { .ss_family = AF_UNSPEC };
	socklen_t size = sizeof(storage);
	int r = (int)wf_syscall(SYS_getsockname, fd, &storage, &size);

	if (r < 0)
		return r;
	if (storage.ss_family != AF_INET && storage.ss_family != AF_INET6)
		return -EAFNOSUPPORT;
	*out = wf_addr_wildcard(storage.ss_family, 0);
	if (storage.ss_family == AF_INET)
		out->v4 = *(const struct sockaddr_in *)(const void *)&storage;
	else
		out->v6 = *(const struct sockaddr_in6 *)(const void *)&storage;
	return 0;
}
