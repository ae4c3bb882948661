// SPDX-License-Identifier: GPL-2.0
/* Endpoints, weights and choices as people write them: each row is a text and what becomes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "model/model.h"

struct row {
	const char *text;
	const char *printed; /* how it comes back; NULL: it is refused */
	const char *token;   /* what the error has to name */
};

static const struct row vips[] = {
	{ "192.0.2.10:80/tcp", "192.0.2.10:80/tcp", NULL },
	{ "192.0.2.10:65535/udp", "192.0.2.10:65535/udp", NULL },
	{ "[2001:db8::10]:80/tcp", "[2001:db8::10]:80/tcp", NULL },
	{ "[2001:DB8:0:0:0:0:0:10]:1/udp", "[2001:db8::10]:1/udp", NULL },
	{ "192.0.2.10:80", NULL, "no protocol" },
	{ "192.0.2.10:80/sctp", NULL, "sctp" },
	{ "192.0.2.10:80/TCP", NULL, "TCP" },
	{ "192.0.2.10:80/", NULL, "not a protocol" },
	{ "192.0.2.10:80/tcp/udp", NULL, "tcp/udp" },
	{ "192.0.2.10/tcp", NULL, "no port" },
	{ "192.0.2.10:/tcp", NULL, "not a port" },
	{ "192.0.2.10:0/tcp", NULL, "0: not a port" },
	{ "192.0.2.10:65536/tcp", NULL, "65536: not a port" },
	{ "192.0.2.10:99999999999999999999/tcp", NULL, "not a port" },
	{ "192.0.2.10:80x/tcp", NULL, "80x" },
	{ "192.0.2.10: 80/tcp", NULL, " 80" },
	{ "192.0.2.10:-1/tcp", NULL, "-1" },
	{ "192.0.2.10:+1/tcp", NULL, "+1" },
	{ "192.0.2.256:80/tcp", NULL, "192.0.2.256" },
	{ "192.0.2:80/tcp", NULL, "192.0.2" },
	{ "192.0.2.010:80/tcp", NULL, "192.0.2.010" },
	{ "2001:db8::10:80/tcp", NULL, "no port" },
	{ "[2001:db8::10:80/tcp", NULL, "brackets" },
	{ "[2001:db8::10]80/tcp", NULL, "brackets" },
	{ "[192.0.2.10]:80/tcp", NULL, "brackets" },
	{ "[2001:db8::10%eth0]:80/tcp", NULL, "2001:db8::10%eth0" },
	{ "[]:80/tcp", NULL, "brackets" },
	{ ":80/tcp", NULL, "not an IPv4 or IPv6 address" },
	{ "/tcp", NULL, "address" },
	{ "", NULL, "no protocol" },
	{ "example.com:80/tcp", NULL, "example.com" },
	{ "0.0.0.0:80/tcp", NULL, "0.0.0.0" },
	{ "127.0.0.1:80/tcp", NULL, "loopback" },
	{ "224.0.0.1:80/tcp", NULL, "multicast" },
	{ "255.255.255.255:80/tcp", NULL, "broadcast" },
	{ "[::]:80/tcp", NULL, "::" },
	{ "[::1]:80/tcp", NULL, "loopback" },
	{ "[ff02::1]:80/tcp", NULL, "multicast" },
	{ "[fe80::1]:80/tcp", NULL, "link-local" },
	{ "[::ffff:192.0.2.1]:80/tcp", NULL, "disguise" },
	{ "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee:ffff:1111:2222:3333"
	  ":4444:5555:6666:7777:8888:80/tcp",
	  NULL, "too long" },
};

static void vips_are_parsed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(vips) / sizeof(vips[0]); i++) {
		struct endpoint vip = { .port = 4711 };
		char text[ENDPOINT_TEXT_MAX];
		struct error err = { "" };
		int r = endpoint_parse_vip(vips[i].text, &vip, &err);

		print_message("%s -> %s\n", vips[i].text, r ? err.text : "");
		assert_int_equal(r, vips[i].printed ? 0 : -EINVAL);
		if (vips[i].printed) {
			assert_string_equal(endpoint_format(&vip, text), vips[i].printed);
		} else {
			assert_non_null(strstr(err.text, vips[i].token));
			assert_null(strchr(err.text, '\n'));
			assert_int_equal(vip.port, 4711);
		}
	}
}

struct backend_row {
	const char *text;
	uint16_t default_port;
	const char *printed;
};

static const struct backend_row backends[] = {
	{ "10.0.0.5:8080", 0, "10.0.0.5:8080" },
	{ "10.0.0.5:8080", 80, "10.0.0.5:8080" },
	{ "10.0.0.5", 80, "10.0.0.5:80" },
	{ "10.0.0.5", 0, NULL },
	{ "[2001:db8::5]:1", 0, "[2001:db8::5]:1" },
	{ "[2001:db8::5]", 80, "[2001:db8::5]:80" },
	{ "2001:db8::5", 80, "[2001:db8::5]:80" },
	{ "2001:db8::5", 0, NULL },
	{ "10.0.0.5:8080/tcp", 0, NULL },
	{ "10.0.0.5:", 80, NULL },
	{ "::1", 80, NULL },
	{ "10.0.0.5 ", 80, NULL },
};

static void backends_are_parsed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		const struct backend_row *row = &backends[i];
		char text[ENDPOINT_TEXT_MAX];
		struct endpoint endpoint;
		struct error err = { "" };
		int r = endpoint_parse_backend(row->text, row->default_port, &endpoint, &err);

		print_message("%s -> %s\n", row->text, r ? err.text : "");
		assert_int_equal(r, row->printed ? 0 : -EINVAL);
		if (row->printed) {
			assert_string_equal(endpoint_format(&endpoint, text), row->printed);
			assert_int_equal(endpoint.protocol, 0);
		}
	}
}

static void weights_are_parsed(void **state)
{
	static const char *const wrong[] = { "", "-1", "65536", "1.5", "1 ", " 1", "0x10", "one" };
	uint16_t weight = 7;
	struct error err;

	(void)state;
	assert_int_equal(weight_parse("0", &weight, &err), 0);
	assert_int_equal(weight, 0);
	assert_int_equal(weight_parse("65535", &weight, &err), 0);
	assert_int_equal(weight, 65535);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(weight_parse(wrong[i], &weight, &err), -EINVAL);
		assert_int_equal(weight, 65535);
		assert_non_null(strstr(err.text, "0..65535"));
	}
}

static void choices_are_parsed(void **state)
{
	struct error err;
	uint8_t value = 99;

	(void)state;
	assert_int_equal(forward_parse("dnat", &value, &err), 0);
	assert_int_equal(value, XLB_FORWARD_DNAT);
	assert_int_equal(scheduler_parse("rr", &value, &err), 0);
	assert_int_equal(value, XLB_SCHEDULER_RR);
	assert_int_equal(scheduler_parse("RR", &value, &err), -EINVAL);
	assert_string_equal(err.text,
			    "RR: no such scheduler; there are maglev, rr, lc, random, source");
	assert_int_equal(forward_parse("", &value, &err), -EINVAL);
	assert_int_equal(value, XLB_SCHEDULER_RR);
}

static void every_choice_has_a_name(void **state)
{
	struct error err;
	uint8_t value;

	(void)state;
	for (uint8_t i = 0; i < XLB_FORWARDS; i++) {
		assert_int_equal(forward_parse(forward_name(i), &value, &err), 0);
		assert_int_equal(value, i);
	}
	for (uint8_t i = 0; i < XLB_SCHEDULERS; i++) {
		assert_int_equal(scheduler_parse(scheduler_name(i), &value, &err), 0);
		assert_int_equal(value, i);
	}
	assert_int_equal(forward_parse("gre", &value, &err), -EINVAL);
	assert_string_equal(err.text, "gre: no such forwarding; there are nat, dnat, l2, ipip, gue");
}

static void values_out_of_range_have_a_name(void **state)
{
	(void)state;
	assert_string_equal(forward_name(15), "unknown");
	assert_string_equal(scheduler_name(255), "unknown");
	assert_string_equal(owner_name(3), "unknown");
	assert_string_equal(state_name(200), "unknown");
	assert_string_equal(protocol_name(132), "unknown");
}

static void the_longest_endpoint_fits(void **state)
{
	char text[ENDPOINT_TEXT_MAX];
	struct endpoint endpoint = { .port = 65535, .family = XLB_IPV6, .protocol = XLB_TCP };

	(void)state;
	memset(&endpoint.address, 0xff, sizeof(endpoint.address));
	assert_string_equal(endpoint_format(&endpoint, text),
			    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535/tcp");
}

static void errors_are_one_line_that_may_quote_itself(void **state)
{
	struct error err;
	char longest[3000];

	(void)state;
	assert_int_equal(error_set(&err, EINVAL, "%s", "inner"), -EINVAL);
	assert_int_equal(error_prefix(&err, -EINVAL, "outer %d", 1), -EINVAL);
	assert_string_equal(err.text, "outer 1: inner");
	assert_int_equal(error_set(&err, ENOENT, "[%s]", err.text), -ENOENT);
	assert_string_equal(err.text, "[outer 1: inner]");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	error_set(&err, EINVAL, "%s", longest);
	error_prefix(&err, -EINVAL, "%s", longest);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_int_equal(error_set(NULL, EINVAL, "nobody listens"), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vips_are_parsed),
		cmocka_unit_test(backends_are_parsed),
		cmocka_unit_test(weights_are_parsed),
		cmocka_unit_test(choices_are_parsed),
		cmocka_unit_test(every_choice_has_a_name),
		cmocka_unit_test(values_out_of_range_have_a_name),
		cmocka_unit_test(the_longest_endpoint_fits),
		cmocka_unit_test(errors_are_one_line_that_may_quote_itself),
	};

	return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
