/*
 * addr.h: addresses as text. Pure but for wf_addr_lookup(): no state, no system calls, any thread.
 *
 *	tcp:HOST:PORT
 *	HOST  empty          all interfaces (listen), this machine (connect)
 *	      1.2.3.4        IPv4, four decimal parts
 *	      [::1]          IPv6 in brackets; a zone may follow: [fe80::1%2], by number
 *	      name           letters, digits, '-', '_', '.'; labels of 1 to 63, 253 in all; not all
 *	                     of it digits and dots, which would be a mistyped IPv4 address
 *	PORT  1 to 5 digits, at most 65535
 *
 *	mem:NAME        of the in-memory network: up to 59 letters, digits, '-', '_', '.'
 *
 * Everything else is -EINVAL: a NULL, another scheme, white space, signs, a port without digits,
 * an IPv6 address without brackets.
 */
#ifndef WF_IO_ADDR_H
#define WF_IO_ADDR_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "sync/check.h"

enum {
	WF_ADDRESSES_MAX = 16, /* of one name; further ones are left out */
	WF_HOST_MAX = 254,     /* with the NUL */
	WF_MEM_ADDRESS_MAX = 64, /* of the in-memory network, with scheme and NUL */
};

/* A socket address of either family, no larger than need be. */
struct wf_addr {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t size;
};

struct wf_addrs {
	char in_memory[WF_MEM_ADDRESS_MAX]; /* not empty: the in-memory network's, and no others */
	unsigned count;
	struct wf_addr addr[WF_ADDRESSES_MAX];
};

enum wf_host_kind {
	WF_HOST_ALL,     /* empty */
	WF_HOST_LITERAL, /* `literal` is complete */
	WF_HOST_NAME,    /* `name` has to be looked up */
};

struct wf_addr_text {
	enum wf_host_kind kind;
	uint16_t port;
	struct wf_addr literal;
	char name[WF_HOST_MAX];
};

/* Returns 0 or -EINVAL; then *out is undefined. */
int wf_addr_parse(const char *text, struct wf_addr_text *out);

/* "mem:NAME" as it is: 0; -EINVAL for a bad name (it may be empty); 1: another scheme. */
int wf_addr_parse_mem(const char *text, char address_out[WF_MEM_ADDRESS_MAX]);

/* The wildcard or loopback address of AF_INET or AF_INET6. */
struct wf_addr wf_addr_wildcard(int family, uint16_t port);
struct wf_addr wf_addr_loopback(int family, uint16_t port);

bool wf_addr_is_wildcard(const struct wf_addr *addr);
uint16_t wf_addr_port(const struct wf_addr *addr);
void wf_addr_set_port(struct wf_addr *addr, uint16_t port);

/*
 * Writes "SCHEME:1.2.3.4:80" or "SCHEME:[::1]:80"; what it wrote for "tcp" can be parsed again.
 * Returns 0; -EAFNOSUPPORT for other families; -ENOSPC if `size` bytes are too few
 * (WEFT_ADDRESS_MAX never are), and then writes nothing.
 */
int wf_addr_format(const char *scheme, const struct wf_addr *addr, char *text_out, size_t size);

/*
 * Asks the resolver. Blocks the thread, possibly for many seconds, and needs stack: not on a fiber.
 * Returns 0; -ENOENT for an unknown name; -EHOSTUNREACH if no server answers; -ENOMEM; -EIO.
 */
int wf_addr_lookup(const char *name, uint16_t port, struct wf_addrs *out);

#endif
