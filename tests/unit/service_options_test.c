// SPDX-License-Identifier: GPL-2.0
/* Options of services as people write them: each row is a text and what becomes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct row {
	const char *text;
	const char *printed; /* how it comes back; NULL: it is refused */
	const char *said;    /* what the error says */
};

static const struct row prefixes[] = {
	{ "10.0.0.0/8", "10.0.0.0/8", NULL },
	{ "10.1.2.3", "10.1.2.3/32", NULL },
	{ "0.0.0.0/0", "0.0.0.0/0", NULL },
	{ "10.1.2.128/25", "10.1.2.128/25", NULL },
	{ "2001:DB8::/32", "2001:db8::/32", NULL },
	{ "2001:db8::1", "2001:db8::1/128", NULL },
	{ "::/0", "::/0", NULL },
	{ "8000::/1", "8000::/1", NULL },
	{ "10.1.2.3/8", NULL, "10.1.2.3/8: has bits behind its prefix, is 10.0.0.0/8 meant?" },
	{ "10.1.2.129/25", NULL, "is 10.1.2.128/25 meant?" },
	{ "2001:db8::1/64", NULL, "is 2001:db8::/64 meant?" },
	{ "10.0.0.0/33", NULL, "10.0.0.0/33: the length of this prefix is not 0..32" },
	{ "2001:db8::/129", NULL, "not 0..128" },
	{ "10.0.0.0/", NULL, "not 0..32" },
	{ "10.0.0.0/8/8", NULL, "not 0..32" },
	{ "10.0.0.0/-1", NULL, "not 0..32" },
	{ "10.0.0.0/255.0.0.0", NULL, "not 0..32" },
	{ "10.0.0.0/4294967304", NULL, "not 0..32" },
	{ "10.0.0/8", NULL, "10.0.0/8: not an address or ADDR/LENGTH" },
	{ " 10.0.0.0/8", NULL, " 10.0.0.0/8: not an address" },
	{ "[2001:db8::]/32", NULL, "not an address" },
	{ "", NULL, "'': not an address" },
	{ "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee/64", NULL,
	  "too long" },
};

static void prefixes_are_parsed(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(prefixes); i++) {
		struct prefix prefix = { .length = 77 };
		char text[ENDPOINT_TEXT_MAX];
		struct error err = { "" };
		int r = prefix_parse(prefixes[i].text, &prefix, &err);

		print_message("%s -> %s\n", prefixes[i].text, r ? err.text : "");
		assert_int_equal(r, prefixes[i].printed ? 0 : -EINVAL);
		if (prefixes[i].printed) {
			assert_string_equal(prefix_format(&prefix, text), prefixes[i].printed);
		} else {
			assert_non_null(strstr(err.text, prefixes[i].said));
			assert_int_equal(prefix.length, 77);
		}
	}
}

/* As Kubernetes takes them. */
static void bits_behind_a_prefix_may_be_cleared(void **state)
{
	char text[ENDPOINT_TEXT_MAX];
	struct prefix prefix;
	struct error err;

	(void)state;
	assert_int_equal(prefix_parse_lenient("10.1.2.3/8", &prefix, &err), 0);
	assert_string_equal(prefix_format(&prefix, text), "10.0.0.0/8");
	assert_int_equal(prefix_parse_lenient("2001:db8:ffff::1/33", &prefix, &err), 0);
	assert_string_equal(prefix_format(&prefix, text), "2001:db8:8000::/33");
	assert_int_equal(prefix_parse_lenient("10.0.0.0/33", &prefix, &err), -EINVAL);
}

struct range_row {
	const char *text;
	uint8_t family;
	int n; /* < 0: it is refused */
	const char *said;
};

static const struct range_row ranges[] = {
	{ "10.0.0.0/8", XLB_IPV4, 1, NULL },
	{ "10.0.0.0/8,192.0.2.0/24,192.0.2.1", XLB_IPV4, 3, NULL },
	{ "2001:db8::/32", XLB_IPV6, 1, NULL },
	{ "", XLB_IPV4, 0, NULL },
	{ "any", XLB_IPV4, 0, NULL },
	{ "2001:db8::/32", XLB_IPV4, -1, "2001:db8::/32: is IPv6, but the VIP is IPv4" },
	{ "2001:db8::/32,10.0.0.0/8", XLB_IPV6, -1, "10.0.0.0/8: is IPv4, but the VIP is IPv6" },
	{ "10.0.0.0/8,10.0.0.0/8", XLB_IPV4, -1, "10.0.0.0/8: is there twice" },
	{ "10.0.0.1,192.0.2.1,10.0.0.1/32", XLB_IPV4, -1, "10.0.0.1/32: is there twice" },
	{ "10.0.0.1/8", XLB_IPV4, -1, "bits behind its prefix" },
	{ "10.0.0.0/8,", XLB_IPV4, -1, "'': not an address" },
	{ ",", XLB_IPV4, -1, "'': not an address" },
	{ "any,10.0.0.0/8", XLB_IPV4, -1, "any: not an address" },
	{ "10.0.0.0/8, 192.0.2.0/24", XLB_IPV4, -1, " 192.0.2.0/24: not an address" },
};

static void ranges_are_parsed(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(ranges); i++) {
		const struct range_row *row = &ranges[i];
		struct prefix *found = NULL;
		struct error err = { "" };
		size_t n = 0;
		int r = ranges_parse(row->text, row->family, &found, &n, &err);

		print_message("%s -> %s\n", row->text, r ? err.text : "");
		assert_int_equal(r, row->n < 0 ? -EINVAL : 0);
		if (row->n < 0)
			assert_non_null(strstr(err.text, row->said));
		else
			assert_int_equal(n, row->n);
		assert_int_equal(!found, !n);
		free(found);
	}
}

static const struct row encap_sources[] = {
	{ "auto", "auto", NULL },
	{ "192.0.2.1", "192.0.2.1", NULL },
	{ "192.0.2.1/32", "192.0.2.1", NULL },
	{ "172.16.0.0/12", "172.16.0.0/12", NULL },
	{ "2001:db8::5", "2001:db8::5", NULL },
	{ "100::/96", "100::/96", NULL },
	{ "172.16.0.1/16", NULL, "bits behind its prefix" },
	{ "10.0.0.0/7", NULL, "a prefix from /8 to /32" },
	{ "2001:db8::/64", NULL, "a prefix from /96 to /128" },
	{ "0.0.0.0", NULL, "0.0.0.0: is no address of a host" },
	{ "127.0.0.1", NULL, "loopback" },
	{ "224.0.0.0/8", NULL, "multicast" },
	{ "", NULL, "not an address" },
	{ "Auto", NULL, "Auto: not an address" },
};

static void encap_sources_are_parsed(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(encap_sources); i++) {
		const struct row *row = &encap_sources[i];
		struct prefix source = { .length = 77 };
		char text[ENDPOINT_TEXT_MAX];
		struct error err = { "" };
		int r = encap_source_parse(row->text, &source, &err);

		print_message("%s -> %s\n", row->text, r ? err.text : "");
		assert_int_equal(r, row->printed ? 0 : -EINVAL);
		if (row->printed) {
			assert_string_equal(encap_source_format(&source, text), row->printed);
		} else {
			assert_non_null(strstr(err.text, row->said));
			assert_int_equal(source.length, 77);
		}
	}
}

static void numbers_are_parsed(void **state)
{
	static const char *const no_mss[] = { "535", "65496", "-1", "", "1e3", "99999999999" };
	static const char *const no_time[] = { "86401", "-1", "", "1h", "18446744073709551617" };
	uint32_t seconds = 7;
	uint16_t mss = 7, port = 7;
	struct error err;

	(void)state;
	assert_int_equal(affinity_parse("86400", &seconds, &err), 0);
	assert_int_equal(seconds, 86400);
	assert_int_equal(affinity_parse("0", &seconds, &err), 0);
	for (size_t i = 0; i < COUNT(no_time); i++)
		assert_int_equal(affinity_parse(no_time[i], &seconds, &err), -EINVAL);
	assert_int_equal(seconds, 0);
	assert_non_null(strstr(err.text, "seconds from 1 to 86400"));

	assert_int_equal(mss_parse("536", &mss, &err), 0);
	assert_int_equal(mss_parse("65495", &mss, &err), 0);
	assert_int_equal(mss, 65495);
	assert_int_equal(mss_parse("0", &mss, &err), 0);
	for (size_t i = 0; i < COUNT(no_mss); i++)
		assert_int_equal(mss_parse(no_mss[i], &mss, &err), -EINVAL);
	assert_int_equal(mss, 0);

	assert_int_equal(port_parse("6081", &port, &err), 0);
	assert_int_equal(port_parse("0", &port, &err), -EINVAL);
	assert_int_equal(port, 6081);
}

static void switches_are_on_or_off(void **state)
{
	struct error err;
	bool no_echo, checksum;

	(void)state;
	assert_int_equal(echo_parse("off", &no_echo, &err), 0);
	assert_true(no_echo);
	assert_int_equal(echo_parse("on", &no_echo, &err), 0);
	assert_false(no_echo);
	assert_int_equal(echo_parse("yes", &no_echo, &err), -EINVAL);
	assert_string_equal(err.text, "yes: not on or off");
	assert_int_equal(gue_checksum_parse("on", &checksum, &err), 0);
	assert_true(checksum);
	assert_int_equal(gue_checksum_parse("off", &checksum, &err), 0);
	assert_false(checksum);
	assert_int_equal(gue_checksum_parse("full", &checksum, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefixes_are_parsed),
		cmocka_unit_test(bits_behind_a_prefix_may_be_cleared),
		cmocka_unit_test(ranges_are_parsed),
		cmocka_unit_test(encap_sources_are_parsed),
		cmocka_unit_test(numbers_are_parsed),
		cmocka_unit_test(switches_are_on_or_off),
	};

	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
