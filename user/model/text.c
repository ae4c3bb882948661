// SPDX-License-Identifier: GPL-2.0
/*
 * Endpoints, weights and choices as people write them. Every parser takes the whole string, and its
 * error names the token that is wrong.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "model/endpoint.h"
#include "model/model.h"
#include "model/text.h"

#define ADDRESS_TEXT_MAX 46	  /* INET6_ADDRSTRLEN */
#define IPV4_MULTICAST 0xe0000000 /* 224.0.0.0 and all above: multicast, reserved, broadcast */
#define IPV4_LOOPBACK 127

static const char *const forward_names[XLB_FORWARDS] = {
	[XLB_FORWARD_NAT] = "nat",   [XLB_FORWARD_DNAT] = "dnat", [XLB_FORWARD_L2] = "l2",
	[XLB_FORWARD_IPIP] = "ipip", [XLB_FORWARD_GUE] = "gue",
};
static const char *const scheduler_names[XLB_SCHEDULERS] = {
	[XLB_SCHEDULER_MAGLEV] = "maglev", [XLB_SCHEDULER_RR] = "rr",
	[XLB_SCHEDULER_LC] = "lc",	   [XLB_SCHEDULER_RANDOM] = "random",
	[XLB_SCHEDULER_SOURCE] = "source",
};
static const char *const owner_names[] = {
	[XLB_OWNER_CLI] = "cli",
	[XLB_OWNER_FILE] = "file",
	[XLB_OWNER_KUBERNETES] = "kubernetes",
};
static const char *const state_names[] = {
	[XLB_BACKEND_FREE] = "free",	     [XLB_BACKEND_ACTIVE] = "active",
	[XLB_BACKEND_DRAINING] = "draining", [XLB_BACKEND_DOWN] = "down",
	[XLB_BACKEND_RETIRED] = "retired",
};

#define NAME_OF(names, value)                                                                      \
	((value) < sizeof(names) / sizeof((names)[0]) ? (names)[value] : "unknown")
#define NAMES(names) names, sizeof(names) / sizeof((names)[0])

const char *forward_name(uint8_t forward)
{
	return NAME_OF(forward_names, forward);
}

const char *scheduler_name(uint8_t scheduler)
{
	return NAME_OF(scheduler_names, scheduler);
}

const char *owner_name(uint8_t owner)
{
	return NAME_OF(owner_names, owner);
}

const char *state_name(uint8_t state)
{
	return NAME_OF(state_names, state);
}

const char *protocol_name(uint8_t protocol)
{
	return protocol == XLB_TCP ? "tcp" : protocol == XLB_UDP ? "udp" : "unknown";
}

static int name_parse(const char *text, const char *what, const char *const *names, size_t n,
		      uint8_t *ret_value, struct error *err)
{
	char all[64] = "";

	for (size_t i = 0; i < n; i++) {
		if (!strcmp(text, names[i])) {
			*ret_value = i;
			return 0;
		}
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? ", " : "",
			 names[i]);
	}
	return error_set(err, EINVAL, "%s: no such %s; there are %s", text, what, all);
}

int forward_parse(const char *text, uint8_t *ret_forward, struct error *err)
{
	return name_parse(text, "forwarding", NAMES(forward_names), ret_forward, err);
}

int scheduler_parse(const char *text, uint8_t *ret_scheduler, struct error *err)
{
	return name_parse(text, "scheduler", NAMES(scheduler_names), ret_scheduler, err);
}

bool text_parse_number(const char *text, uint32_t least, uint32_t most, uint32_t *ret_number)
{
	uint64_t number = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		number = number * 10 + (*text - '0');
		if (number > most)
			return false;
	}
	if (number < least)
		return false;
	*ret_number = number;
	return true;
}

int weight_parse(const char *text, uint16_t *ret_weight, struct error *err)
{
	uint32_t weight;

	if (!text_parse_number(text, 0, XLB_WEIGHT_MAX, &weight))
		return error_set(err, EINVAL, "%s: not a weight (0..%u)", text, XLB_WEIGHT_MAX);
	*ret_weight = weight;
	return 0;
}

int port_parse(const char *text, uint16_t *ret_port, struct error *err)
{
	uint32_t port;

	if (!text_parse_number(text, 1, UINT16_MAX, &port))
		return error_set(err, EINVAL, "%s: not a port (1..65535)", text);
	*ret_port = port;
	return 0;
}

int address_parse(const char *text, struct xlb_address *ret_address, uint8_t *ret_family,
		  struct error *err)
{
	struct xlb_address address = {};

	if (inet_pton(AF_INET, text, &address.word[0]) == 1) {
		*ret_family = XLB_IPV4;
	} else if (inet_pton(AF_INET6, text, &address) == 1) {
		*ret_family = XLB_IPV6;
	} else {
		return error_set(err, EINVAL, "%s: not an IPv4 or IPv6 address", text);
	}
	*ret_address = address;
	return 0;
}

const char *address_objection(const struct xlb_address *address, uint8_t family)
{
	const struct xlb_address loopback = { .word[3] = htonl(1) };
	const uint8_t *byte = (const uint8_t *)address;

	if (family == XLB_IPV4) {
		uint32_t word = ntohl(address->word[0]);

		if (!byte[0])
			return "is no address of a host";
		if (byte[0] == IPV4_LOOPBACK)
			return "is a loopback address, which no packet from outside has";
		return word >= IPV4_MULTICAST ? "is a multicast, reserved or broadcast address" :
						NULL;
	}
	if (!(address->word[0] | address->word[1] | address->word[2] | address->word[3]))
		return "is no address of a host";
	if (!memcmp(address, &loopback, sizeof(loopback)))
		return "is the loopback address, which no packet from outside has";
	if (byte[0] == 0xff)
		return "is a multicast address";
	if (byte[0] == 0xfe && (byte[1] & 0xc0) == 0x80)
		return "is a link-local address, which is not unique on this node";
	if (!(address->word[0] | address->word[1]) && address->word[2] == htonl(0xffff))
		return "is an IPv4 address in disguise: write it as IPv4";
	return NULL;
}

/*
 * Splits "ADDR:PORT", "[ADDR]:PORT", "ADDR" or "[ADDR]"; *ret_port is NULL where there is none.
 * `text` is cut up.
 */
static bool endpoint_split(char *text, char **ret_address, char **ret_port)
{
	char *colon = strrchr(text, ':'), *bracket;

	if (*text == '[') {
		bracket = strchr(text, ']');
		if (!bracket || (bracket[1] && bracket[1] != ':') || !strchr(text, ':') ||
		    strchr(text, ':') > bracket)
			return false;
		*ret_port = bracket[1] ? bracket + 2 : NULL;
		*bracket = '\0';
		*ret_address = text + 1;
		return true;
	}
	/* More than one colon: a bare IPv6 address, which has no place for a port. */
	if (colon && colon == strchr(text, ':')) {
		*colon = '\0';
		*ret_port = colon + 1;
	} else {
		*ret_port = NULL;
	}
	*ret_address = text;
	return true;
}

/* Address and port of `whole`, of which `text` is a copy that may be cut up. */
static int endpoint_parse(const char *whole, char *text, uint16_t default_port,
			  struct endpoint *ret_endpoint, struct error *err)
{
	struct endpoint endpoint = { .port = default_port };
	const char *objection;
	char *address, *port;
	int r;

	if (!endpoint_split(text, &address, &port))
		return error_set(
			err, EINVAL,
			"%s: brackets belong around an IPv6 address, and a port behind them",
			whole);
	r = address_parse(address, &endpoint.address, &endpoint.family, err);
	if (r)
		return r;
	objection = address_objection(&endpoint.address, endpoint.family);
	if (objection)
		return error_set(err, EINVAL, "%s: %s", address, objection);
	if (port) {
		r = port_parse(port, &endpoint.port, err);
		if (r)
			return error_prefix(err, r, "%s", whole);
	}
	if (!endpoint.port)
		return error_set(err, EINVAL, "%s: no port given (%s)", whole,
				 endpoint.family == XLB_IPV4 ? "ADDR:PORT" : "[ADDR]:PORT");
	*ret_endpoint = endpoint;
	return 0;
}

int endpoint_parse_vip(const char *text, struct endpoint *ret_vip, struct error *err)
{
	char copy[ENDPOINT_TEXT_MAX + ADDRESS_TEXT_MAX];
	struct endpoint vip;
	char *slash;
	int r;

	if (strlen(text) >= sizeof(copy))
		return error_set(err, EINVAL, "%.32s...: too long for ADDR:PORT/tcp|udp", text);
	strcpy(copy, text);
	slash = strchr(copy, '/');
	if (!slash)
		return error_set(err, EINVAL,
				 "%s: no protocol given (ADDR:PORT/tcp or ADDR:PORT/udp)", text);
	*slash++ = '\0';
	r = endpoint_parse(text, copy, 0, &vip, err);
	if (r)
		return r;
	if (!strcmp(slash, "tcp"))
		vip.protocol = XLB_TCP;
	else if (!strcmp(slash, "udp"))
		vip.protocol = XLB_UDP;
	else
		return error_set(err, EINVAL, "%s: %s: not a protocol (tcp or udp)", text,
				 *slash ? slash : "/");
	*ret_vip = vip;
	return 0;
}

int endpoint_parse_backend(const char *text, uint16_t default_port, struct endpoint *ret_endpoint,
			   struct error *err)
{
	char copy[ENDPOINT_TEXT_MAX + ADDRESS_TEXT_MAX];

	if (strlen(text) >= sizeof(copy))
		return error_set(err, EINVAL, "%.32s...: too long for ADDR:PORT", text);
	strcpy(copy, text);
	return endpoint_parse(text, copy, default_port, ret_endpoint, err);
}

const char *address_format(const struct xlb_address *address, uint8_t family,
			   char text[ENDPOINT_TEXT_MAX])
{
	inet_ntop(family == XLB_IPV6 ? AF_INET6 : AF_INET, address, text, ENDPOINT_TEXT_MAX);
	return text;
}

const char *endpoint_format_backend(const struct endpoint *endpoint, char text[ENDPOINT_TEXT_MAX])
{
	char address[ENDPOINT_TEXT_MAX];
	bool ipv6 = endpoint->family == XLB_IPV6;

	address_format(&endpoint->address, endpoint->family, address);
	snprintf(text, ENDPOINT_TEXT_MAX, "%s%.*s%s:%u", ipv6 ? "[" : "", ADDRESS_TEXT_MAX, address,
		 ipv6 ? "]" : "", endpoint->port);
	return text;
}

const char *endpoint_format(const struct endpoint *endpoint, char text[ENDPOINT_TEXT_MAX])
{
	size_t length;

	endpoint_format_backend(endpoint, text);
	length = strlen(text);
	if (endpoint->protocol)
		snprintf(text + length, ENDPOINT_TEXT_MAX - length, "/%s",
			 protocol_name(endpoint->protocol));
	return text;
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return !endpoint_compare(a, b);
}

int endpoint_compare(const struct endpoint *a, const struct endpoint *b)
{
	int order = endpoint_order(a, b);

	return order ? order : (int)a->protocol - (int)b->protocol;
}
