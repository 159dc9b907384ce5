/*
 * Goal: the grammar of addresses is exactly the one of io/addr.h, and what is formatted can be
 * parsed. Method: tables of good and bad texts, a round trip of random addresses, and random damage
 * to good texts (for the sanitizers: parsing never reads outside the text).
 */
#include "test/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <weft/io.h>

#include "io/addr.h"

static struct wf_addr_text parsed(const char *text)
{
	struct wf_addr_text out;

	cr_assert_eq(wf_addr_parse(text, &out), 0, "%s", text);
	return out;
}

Test(addr, literals_and_names_are_told_apart)
{
	static const struct {
		const char *text;
		enum wf_host_kind kind;
		unsigned port;
		int family;
	} good[] = {
		{ "tcp::0", WF_HOST_ALL, 0, 0 },
		{ "tcp::65535", WF_HOST_ALL, 65535, 0 },
		{ "tcp:0.0.0.0:80", WF_HOST_LITERAL, 80, AF_INET },
		{ "tcp:127.0.0.1:7000", WF_HOST_LITERAL, 7000, AF_INET },
		{ "tcp:255.255.255.255:1", WF_HOST_LITERAL, 1, AF_INET },
		{ "tcp:[::]:7000", WF_HOST_LITERAL, 7000, AF_INET6 },
		{ "tcp:[::1]:00080", WF_HOST_LITERAL, 80, AF_INET6 },
		{ "tcp:[fe80::1%3]:80", WF_HOST_LITERAL, 80, AF_INET6 },
		{ "tcp:[::ffff:1.2.3.4]:80", WF_HOST_LITERAL, 80, AF_INET6 },
		{ "tcp:localhost:80", WF_HOST_NAME, 80, 0 },
		{ "tcp:a-b.c_d.example.:80", WF_HOST_NAME, 80, 0 },
		{ "tcp:1.2.3.4.example:80", WF_HOST_NAME, 80, 0 },
		{ "tcp:_service.example:80", WF_HOST_NAME, 80, 0 },
	};

	for (size_t i = 0; i < WF_ARRAY_COUNT(good); i++) {
		struct wf_addr_text out = parsed(good[i].text);

		cr_expect_eq(out.kind, good[i].kind, "%s", good[i].text);
		cr_expect_eq(out.port, good[i].port, "%s", good[i].text);
		if (out.kind != WF_HOST_LITERAL)
			continue;
		cr_expect_eq(out.literal.any.sa_family, good[i].family, "%s", good[i].text);
		cr_expect_eq(wf_addr_port(&out.literal), good[i].port, "%s", good[i].text);
	}
	cr_assert_str_eq(parsed("tcp:host.example:1").name, "host.example");
	cr_assert_eq(parsed("tcp:[fe80::1%3]:80").literal.v6.sin6_scope_id, 3);
}

Test(addr, malformed_texts_are_refused)
{
	static const char *const bad[] = {
		NULL, "", "tcp", "tcp:", "tcp:80", "TCP::80", "udp::80", " tcp::80", "tcp: :80",
		"tcp::", "tcp::-1", "tcp::+1", "tcp:: 1", "tcp::1 ", "tcp::0x50", "tcp::80a",
		"tcp::65536", "tcp::99999", "tcp::000080", "tcp::99999999999999999999",
		"tcp:1.2.3:80", "tcp:1.2.3.4.5:80", "tcp:256.1.1.1:80", "tcp:1..2.3:80", "tcp:.:80",
		"tcp:1.2.3.4", "tcp:1.2.3.4:", "tcp:1:2:3", "tcp:::1:80", "tcp:::80",
		"tcp:fe80::1:80", "tcp:[]:80", "tcp:[::1:80", "tcp:::1]:80", "tcp:[::1]80",
		"tcp:[::1]", "tcp:[::1]:",
		"tcp:[1.2.3.4]:80", "tcp:[host]:80", "tcp:[:::]:80", "tcp:[::1%]:80",
		"tcp:[::1%eth0]:80", "tcp:[::1%9999999999]:80", "tcp:[[::1]]:80", "tcp:[::1]x:80",
		"tcp:-host:80", "tcp:host..x:80", "tcp:.host:80", "tcp:ho st:80", "tcp:h/x:80",
		"tcp:host\n:80", "tcp:h\xc3\xb6st:80", "tcp:host:http", "tcp://host:80",
	};
	struct wf_addr_text out;

	for (size_t i = 0; i < WF_ARRAY_COUNT(bad); i++)
		cr_expect_eq(
			wf_addr_parse(bad[i], &out), -EINVAL, "%s", bad[i] ? bad[i] : "(null)");
}

Test(addr, names_have_the_lengths_of_dns)
{
	char label[64 + 1], name[512], text[600];
	struct wf_addr_text out;

	memset(label, 'a', 64);
	label[64] = '\0';
	snprintf(text, sizeof(text), "tcp:%.63s:1", label);
	cr_assert_eq(wf_addr_parse(text, &out), 0);
	snprintf(text, sizeof(text), "tcp:%s:1", label);
	cr_assert_eq(wf_addr_parse(text, &out), -EINVAL);

	snprintf(name, sizeof(name), "%.63s.%.63s.%.63s.%.61s", label, label, label, label);
	cr_assert_eq(strlen(name), 253);
	snprintf(text, sizeof(text), "tcp:%s:1", name);
	cr_assert_eq(wf_addr_parse(text, &out), 0);
	cr_assert_str_eq(out.name, name);
	snprintf(text, sizeof(text), "tcp:%s.:1", name);
	cr_assert_eq(wf_addr_parse(text, &out), -EINVAL);
}

Test(addr, names_in_memory_are_taken_as_they_are)
{
	static const char *const good[] = {
		"mem:", "mem:a", "mem:A-b_c.D.0", "mem:.", "mem:-",
		"mem:00000000001111111111222222222233333333334444444444555555555",
	};
	static const char *const bad[] = {
		"mem:a b", "mem: ", "mem:a:b", "mem::", "mem:a/b", "mem:[a]", "mem:a\n",
		"mem:h\xc3\xb6",
		"mem:000000000011111111112222222222333333333344444444445555555550",
	};
	static const char *const other[] = {NULL, "", "m", "mem", "Mem:a", " mem:a", "tcp:a:1"};
	char address[WF_MEM_ADDRESS_MAX];

	for (size_t i = 0; i < WF_ARRAY_COUNT(good); i++) {
		cr_expect_eq(wf_addr_parse_mem(good[i], address), 0, "%s", good[i]);
		cr_expect_str_eq(address, good[i]);
	}
	for (size_t i = 0; i < WF_ARRAY_COUNT(bad); i++)
		cr_expect_eq(wf_addr_parse_mem(bad[i], address), -EINVAL, "%s", bad[i]);
	for (size_t i = 0; i < WF_ARRAY_COUNT(other); i++)
		cr_expect_eq(wf_addr_parse_mem(other[i], address), 1, "%zu", i);
}

Test(addr, what_is_formatted_can_be_parsed)
{
	uint64_t seed = harness_seed();

	for (unsigned i = 0; i < 20000 / HARNESS_SLOWDOWN; i++) {
		uint64_t a = harness_random(&seed), b = harness_random(&seed);
		int family = i % 2 ? AF_INET : AF_INET6;
		struct wf_addr addr = wf_addr_wildcard(family, (uint16_t)(a >> 7));
		char text[WEFT_ADDRESS_MAX];
		struct wf_addr_text out;

		/* Zeroes in between, or "::" would never come. */
		a &= harness_random(&seed) & harness_random(&seed);
		if (family == AF_INET) {
			memcpy(&addr.v4.sin_addr, &a, 4);
		} else {
			memcpy(addr.v6.sin6_addr.s6_addr, &a, 8);
			memcpy(addr.v6.sin6_addr.s6_addr + 8, &b, 8);
			addr.v6.sin6_scope_id = (uint32_t)(b % 100);
		}
		cr_assert_eq(wf_addr_format("tcp", &addr, text, sizeof(text)), 0);
		cr_assert_eq(wf_addr_parse(text, &out), 0, "%s", text);
		cr_assert_eq(out.kind, WF_HOST_LITERAL, "%s", text);
		cr_assert_eq(out.literal.size, addr.size, "%s", text);
		cr_assert_eq(memcmp(&out.literal.any, &addr.any, addr.size), 0, "%s", text);
	}
}

Test(addr, damaged_texts_do_no_harm)
{
	static const char *const good[] = {
		"tcp:127.0.0.1:7000", "tcp:[fe80::1%3]:80", "tcp:a.example:80", "tcp:[::]:0",
		"tcp::1", "mem:name",
	};
	static const char letters[] = "tcp:[]%.0123456789abcf-_ \n\xff";
	uint64_t seed = harness_seed();

	for (unsigned i = 0; i < 100000 / HARNESS_SLOWDOWN; i++) {
		char *text = strdup(good[harness_random_below(&seed, WF_ARRAY_COUNT(good))]);
		size_t length = strlen(text);
		char in_memory[WF_MEM_ADDRESS_MAX];
		struct wf_addr_text out;
		int r;

		for (uint64_t k = harness_random_below(&seed, 4); k-- > 0;)
			text[harness_random_below(&seed, length)] =
				letters[harness_random_below(&seed, sizeof(letters))];
		r = wf_addr_parse(text, &out);
		cr_assert(r == 0 || r == -EINVAL, "%s", text);
		if (r == 0 && out.kind == WF_HOST_NAME)
			cr_assert_lt(strlen(out.name), (size_t)WF_HOST_MAX);
		r = wf_addr_parse_mem(text, in_memory);
		cr_assert(r == 0 || r == -EINVAL || r == 1, "%s", text);
		if (r == 0)
			cr_assert_str_eq(in_memory, text);
		free(text);
	}
}

Test(addr, formatting_fits_or_writes_nothing)
{
	struct wf_addr addr = parsed("tcp:[::1]:80").literal;
	char text[WEFT_ADDRESS_MAX] = "untouched";

	cr_assert_eq(wf_addr_format("tcp", &addr, text, strlen("tcp:[::1]:80")), -ENOSPC);
	cr_assert_str_eq(text, "untouched");
	cr_assert_eq(wf_addr_format("tcp", &addr, text, strlen("tcp:[::1]:80") + 1), 0);
	cr_assert_str_eq(text, "tcp:[::1]:80");
	addr.any.sa_family = AF_UNIX;
	cr_assert_eq(wf_addr_format("tcp", &addr, text, sizeof(text)), -EAFNOSUPPORT);

	/* The longest there is. */
	addr = parsed("tcp:[::]:65535").literal;
	memset(addr.v6.sin6_addr.s6_addr, 0xff, 16);
	addr.v6.sin6_scope_id = UINT32_MAX;
	cr_assert_eq(wf_addr_format("tcp", &addr, text, WEFT_ADDRESS_MAX), 0);
}

Test(addr, wildcards_and_loopbacks)
{
	struct wf_addr addr = wf_addr_wildcard(AF_INET6, 7);
	char text[WEFT_ADDRESS_MAX];

	cr_assert(wf_addr_is_wildcard(&addr));
	cr_assert_eq(wf_addr_port(&addr), 7);
	addr = wf_addr_wildcard(AF_INET, 7);
	cr_assert(wf_addr_is_wildcard(&addr));
	addr = wf_addr_loopback(AF_INET, 8);
	cr_assert(!wf_addr_is_wildcard(&addr));
	wf_addr_format("tcp", &addr, text, sizeof(text));
	cr_assert_str_eq(text, "tcp:127.0.0.1:8");
	addr = wf_addr_loopback(AF_INET6, 8);
	cr_assert(!wf_addr_is_wildcard(&addr));
	wf_addr_format("tcp", &addr, text, sizeof(text));
	cr_assert_str_eq(text, "tcp:[::1]:8");
}

/* No unknown name is asked for: that would leave the machine. */
Test(addr, lookup_knows_localhost)
{
	struct wf_addrs addrs;

	if (access("/etc/hosts", R_OK) != 0)
		cr_skip_test("no /etc/hosts: the question would leave the machine");
	errno = 77;
	cr_assert_eq(wf_addr_lookup("localhost", 81, &addrs), 0);
	cr_assert_eq(errno, 77, "errno is the caller's");
	cr_assert_gt(addrs.count, 0);
	for (unsigned i = 0; i < addrs.count; i++)
		cr_assert_eq(wf_addr_port(&addrs.addr[i]), 81);
}
