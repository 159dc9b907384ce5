/* addr.c: parses and formats addresses; addr.h has the grammar. */
#include "io/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "sync/fault.h"

enum {
	PORT_DIGITS_MAX = 5,
	ZONE_DIGITS_MAX = 9,
	LABEL_MAX = 63,
	LITERAL_TEXT_MAX = INET6_ADDRSTRLEN,
};

/* Not <ctype.h>: the grammar does not depend on the locale. */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
	       c == '_';
}

/* 1 to `digits_max` decimal digits and nothing else. */
static int parse_number(const char *text, size_t length, size_t digits_max, uint32_t *value_out)
{
	uint32_t value = 0;

	if (length == 0 || length > digits_max)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (!is_digit(text[i]))
			return -EINVAL;
		value = value * 10 + (uint32_t)(text[i] - '0');
	}
	*value_out = value;
	return 0;
}

static int parse_port(const char *text, uint16_t *port_out)
{
	uint32_t port;

	if (parse_number(text, strlen(text), PORT_DIGITS_MAX, &port) < 0 || port > UINT16_MAX)
		return -EINVAL;
	*port_out = (uint16_t)port;
	return 0;
}

/* What stands between the brackets. */
static int parse_v6(const char *host, size_t length, struct wf_addr *out)
{
	char text[LITERAL_TEXT_MAX];
	const char *percent = memchr(host, '%', length);
	size_t digits = percent ? (size_t)(percent - host) : length;

	if (digits >= sizeof(text))
		return -EINVAL;
	memcpy(text, host, digits);
	text[digits] = '\0';
	*out = wf_addr_wildcard(AF_INET6, 0);
	if (inet_pton(AF_INET6, text, &out->v6.sin6_addr) != 1)
		return -EINVAL;
	if (percent)
		return parse_number(
			percent + 1, length - digits - 1, ZONE_DIGITS_MAX, &out->v6.sin6_scope_id);
	return 0;
}

static int parse_v4(const char *host, size_t length, struct wf_addr *out)
{
	char text[LITERAL_TEXT_MAX];

	if (length >= sizeof(text))
		return -EINVAL;
	memcpy(text, host, length);
	text[length] = '\0';
	*out = wf_addr_wildcard(AF_INET, 0);
	return inet_pton(AF_INET, text, &out->v4.sin_addr) == 1 ? 0 : -EINVAL;
}

/* Labels of 1 to 63 characters that do not start with '-'; one dot may stand at the end. */
static int parse_name(const char *host, size_t length, char name_out[WF_HOST_MAX])
{
	size_t label = 0;

	if (length >= WF_HOST_MAX)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (host[i] == '.' && label > 0) {
			label = 0;
			continue;
		}
		if (!is_name_char(host[i]) || (label == 0 && host[i] == '-') || ++label > LABEL_MAX)
			return -EINVAL;
	}
	memcpy(name_out, host, length);
	name_out[length] = '\0';
	return 0;
}

static bool looks_like_v4(const char *host, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!is_digit(host[i]) && host[i] != '.')
			return false;
	return true;
}

static int parse_host(const char *host, size_t length, bool bracketed, struct wf_addr_text *out)
{
	if (bracketed) {
		out->kind = WF_HOST_LITERAL;
		return parse_v6(host, length, &out->literal);
	}
	if (length == 0) {
		out->kind = WF_HOST_ALL;
		return 0;
	}
	if (looks_like_v4(host, length)) {
		out->kind = WF_HOST_LITERAL;
		return parse_v4(host, length, &out->literal);
	}
	out->kind = WF_HOST_NAME;
	return parse_name(host, length, out->name);
}

int wf_addr_parse(const char *text, struct wf_addr_text *out)
{
	static const char scheme[] = "tcp:";
	bool bracketed;
	const char *host, *end;

	if (!text || strncmp(text, scheme, sizeof(scheme) - 1) != 0)
		return -EINVAL;
	host = text + sizeof(scheme) - 1;
	bracketed = *host == '[';
	if (bracketed)
		host++;
	end = strchr(host, bracketed ? ']' : ':');
	if (!end || (bracketed && end[1] != ':'))
		return -EINVAL;
	/* A second colon in a host without brackets ends up in the port, which refuses it. */
	if (parse_port(end + (bracketed ? 2 : 1), &out->port) < 0 ||
		parse_host(host, (size_t)(end - host), bracketed, out) < 0)
		return -EINVAL;
	if (out->kind == WF_HOST_LITERAL)
		wf_addr_set_port(&out->literal, out->port);
	return 0;
}

int wf_addr_parse_mem(const char *text, char address_out[WF_MEM_ADDRESS_MAX])
{
	static const char scheme[] = "mem:";
	size_t length;

	if (!text || strncmp(text, scheme, sizeof(scheme) - 1) != 0)
		return 1;
	for (length = sizeof(scheme) - 1; text[length]; length++)
		if (length == WF_MEM_ADDRESS_MAX - 1 ||
			(!is_name_char(text[length]) && text[length] != '.'))
			return -EINVAL;
	memcpy(address_out, text, length + 1);
	return 0;
}

struct wf_addr wf_addr_wildcard(int family, uint16_t port)
{
	struct wf_addr addr;

	memset(&addr, 0, sizeof(addr));
	addr.any.sa_family = (sa_family_t)family;
	addr.size = family == AF_INET ? sizeof(addr.v4) : sizeof(addr.v6);
	wf_addr_set_port(&addr, port);
	return addr;
}

struct wf_addr wf_addr_loopback(int family, uint16_t port)
{
	struct wf_addr addr = wf_addr_wildcard(family, port);

	if (family == AF_INET)
		addr.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		addr.v6.sin6_addr = in6addr_loopback;
	return addr;
}

bool wf_addr_is_wildcard(const struct wf_addr *addr)
{
	if (addr->any.sa_family == AF_INET)
		return addr->v4.sin_addr.s_addr == htonl(INADDR_ANY);
	return addr->any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&addr->v6.sin6_addr);
}

uint16_t wf_addr_port(const struct wf_addr *addr)
{
	return ntohs(addr->any.sa_family == AF_INET ? addr->v4.sin_port : addr->v6.sin6_port);
}

void wf_addr_set_port(struct wf_addr *addr, uint16_t port)
{
	if (addr->any.sa_family == AF_INET)
		addr->v4.sin_port = htons(port);
	else
		addr->v6.sin6_port = htons(port);
}

static int format_v6(const char *scheme, const struct wf_addr *addr, char *text, size_t size)
{
	char host[LITERAL_TEXT_MAX], zone[ZONE_DIGITS_MAX + 3] = "";

	if (addr->v6.sin6_scope_id)
		snprintf(zone, sizeof(zone), "%%%u", addr->v6.sin6_scope_id);
	inet_ntop(AF_INET6, &addr->v6.sin6_addr, host, sizeof(host));
	return snprintf(text, size, "%s:[%s%s]:%u", scheme, host, zone, wf_addr_port(addr));
}

static int format_v4(const char *scheme, const struct wf_addr *addr, char *text, size_t size)
{
	char host[LITERAL_TEXT_MAX];

	inet_ntop(AF_INET, &addr->v4.sin_addr, host, sizeof(host));
	return snprintf(text, size, "%s:%s:%u", scheme, host, wf_addr_port(addr));
}

int wf_addr_format(const char *scheme, const struct wf_addr *addr, char *text_out, size_t size)
{
	char text[LITERAL_TEXT_MAX + 64];
	int length;

	if (addr->any.sa_family == AF_INET && addr->size >= sizeof(addr->v4))
		length = format_v4(scheme, addr, text, sizeof(text));
	else if (addr->any.sa_family == AF_INET6 && addr->size >= sizeof(addr->v6))
		length = format_v6(scheme, addr, text, sizeof(text));
	else
		return -EAFNOSUPPORT;
	WF_CHECK(length > 0 && (size_t)length < sizeof(text));
	if ((size_t)length >= size)
		return -ENOSPC;
	memcpy(text_out, text, (size_t)length + 1);
	return 0;
}

/* Only errors that mean the same here: EAGAIN, for one, would be taken for "would wait". */
static int system_lookup_error(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM ? -error : -EIO;
}

static int lookup_error(int error, int system_error)
{
	switch (error) {
	case EAI_NONAME:
	case EAI_NODATA:
	case EAI_ADDRFAMILY:
		return -ENOENT;
	case EAI_AGAIN:
		return -EHOSTUNREACH;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_SYSTEM:
		return system_lookup_error(system_error);
	default:
		return -EIO;
	}
}

static void collect(const struct addrinfo *info, uint16_t port, struct wf_addrs *out)
{
	for (out->count = 0; info && out->count < WF_ADDRESSES_MAX; info = info->ai_next) {
		struct wf_addr *addr = &out->addr[out->count];

		if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
			continue;
		memset(addr, 0, sizeof(*addr));
		addr->size = info->ai_addrlen;
		memcpy(&addr->v6, info->ai_addr, info->ai_addrlen);
		wf_addr_set_port(addr, port);
		out->count++;
	}
}

int wf_addr_lookup(const char *name, uint16_t port, struct wf_addrs *out)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *info = NULL;
	int saved = errno;
	int error = wf_fails(WF_CALL_LOOKUP) ? EAI_SYSTEM : getaddrinfo(name, NULL, &hints, &info);
	int result = error ? lookup_error(error, errno) : 0;

	errno = saved;
	if (error)
		return result;
	collect(info, port, out);
	freeaddrinfo(info);
	return out->count > 0 ? 0 : -ENOENT;
}
