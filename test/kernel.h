/*
 * kernel.h: what the tests of the kernel share: bare system calls, no Weft.
 */
#ifndef WF_TEST_KERNEL_H
#define WF_TEST_KERNEL_H

#include "test/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Until the thread sleeps in a system call: it has come to the only one it can sleep in. */
static inline void kernel_until_asleep(int tid)
{
	char path[64], line[512], state = 'R';

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
	while (state != 'S') {
		FILE *file = fopen(path, "re");

		cr_assert_not_null(file);
		cr_assert_not_null(fgets(line, sizeof line, file));
		fclose(file);
		cr_assert_eq(sscanf(strrchr(line, ')') + 1, " %c", &state), 1);
		sched_yield();
	}
}

/* For what the kernel may take a moment to deliver. */
static inline void until_readable(int fd)
{
	cr_assert_eq(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, -1), 1);
}

/* Bound, not listening yet. */
static inline int listener(struct sockaddr_in *address, int reuse_port)
{
	socklen_t size = sizeof(*address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (reuse_port)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	cr_assert_eq(bind(fd, (const struct sockaddr *)address, size), 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)address, &size), 0);
	return fd;
}

static inline struct sockaddr_in loopback(void)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* A connected pair of TCP sockets. */
static inline void pair(int fd[2])
{
	struct sockaddr_in address = loopback();
	int from = listener(&address, 0);

	cr_assert_eq(listen(from, 1), 0);
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(fd[0], (const struct sockaddr *)&address, sizeof(address)), 0);
	fcntl(from, F_SETFL, 0);
	fd[1] = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	cr_assert_geq(fd[1], 0);
	close(from);
}

#endif
