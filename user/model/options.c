// SPDX-License-Identifier: GPL-2.0
/*
 * Options of services as people write them, on the command line and in annotations. As with all
 * text of the model, a parser takes the whole string, and its error names the token that is wrong.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/model.h"
#include "model/text.h"

/* Where an outer source may vary: enough bits for a NIC's queues, and none of the network's. */
#define ENCAP_LENGTH_MIN 8	 /* IPv4 */
#define ENCAP_LENGTH_MIN_IPV6 96 /* the packet path varies the last word only */

static uint8_t bits_of(uint8_t family)
{
	return family == XLB_IPV6 ? 128 : 32;
}

/* Clears the bits behind the prefix; false: they were clear. */
static bool clear_host_bits(struct prefix *prefix)
{
	uint8_t *byte = (uint8_t *)&prefix->address;
	bool cleared = false;

	for (int bit = prefix->length; bit < bits_of(prefix->family); bit++) {
		uint8_t mask = 0x80 >> bit % 8;

		cleared |= byte[bit / 8] & mask;
		byte[bit / 8] &= ~mask;
	}
	return cleared;
}

/* "ADDR/LENGTH", or "ADDR" alone, which is all of its bits. */
static int prefix_read(const char *text, struct prefix *ret_prefix, bool *ret_host_bits,
		       struct error *err)
{
	char copy[ENDPOINT_TEXT_MAX];
	struct prefix prefix = {};
	uint32_t length;
	char *slash;
	int r;

	if (strlen(text) >= sizeof(copy))
		return error_set(err, EINVAL, "%.32s...: too long for ADDR/LENGTH", text);
	strcpy(copy, text);
	slash = strchr(copy, '/');
	if (slash)
		*slash++ = '\0';
	r = address_parse(copy, &prefix.address, &prefix.family, err);
	if (r)
		return error_set(err, EINVAL, "%s: not an address or ADDR/LENGTH",
				 *text ? text : "''");
	length = bits_of(prefix.family);
	if (slash && !text_parse_number(slash, 0, length, &length))
		return error_set(err, EINVAL, "%s: the length of this prefix is not 0..%u", text,
				 bits_of(prefix.family));
	prefix.length = length;
	*ret_host_bits = clear_host_bits(&prefix);
	*ret_prefix = prefix;
	return 0;
}

int prefix_parse_lenient(const char *text, struct prefix *ret_prefix, struct error *err)
{
	bool host_bits;

	return prefix_read(text, ret_prefix, &host_bits, err);
}

int prefix_parse(const char *text, struct prefix *ret_prefix, struct error *err)
{
	char meant[ENDPOINT_TEXT_MAX];
	struct prefix prefix;
	bool host_bits;
	int r = prefix_read(text, &prefix, &host_bits, err);

	if (r)
		return r;
	if (host_bits)
		return error_set(err, EINVAL, "%s: has bits behind its prefix, is %s meant?", text,
				 prefix_format(&prefix, meant));
	*ret_prefix = prefix;
	return 0;
}

const char *prefix_format(const struct prefix *prefix, char text[ENDPOINT_TEXT_MAX])
{
	size_t length;

	address_format(&prefix->address, prefix->family, text);
	length = strlen(text);
	snprintf(text + length, ENDPOINT_TEXT_MAX - length, "/%u", prefix->length);
	return text;
}

static int add_range(const char *text, uint8_t family, struct prefix *ranges, size_t n,
		     struct error *err)
{
	int r = prefix_parse(text, &ranges[n], err);

	if (r)
		return r;
	if (ranges[n].family != family)
		return error_set(err, EINVAL,
				 "%s: is IPv%u, but the VIP is IPv%u, and so are its clients", text,
				 ranges[n].family, family);
	for (size_t i = 0; i < n; i++)
		if (prefix_equal(&ranges[i], &ranges[n]))
			return error_set(err, EINVAL, "%s: is there twice", text);
	return 0;
}

int ranges_parse(const char *text, uint8_t family, struct prefix **ret_ranges, size_t *ret_n,
		 struct error *err)
{
	_cleanup_(free_pointer) char *copy = strdup(text);
	_cleanup_(free_pointer) struct prefix *ranges = NULL;
	char *word, *rest = copy;
	size_t n = 1;
	int r;

	for (const char *at = text; *at; at++)
		n += *at == ',';
	ranges = calloc(n, sizeof(*ranges));
	if (!copy || !ranges)
		return error_set(err, ENOMEM, "out of memory");
	if (!*text || !strcmp(text, "any"))
		rest = NULL;
	n = 0;
	while ((word = strsep(&rest, ","))) {
		r = add_range(word, family, ranges, n, err);
		if (r)
			return r;
		n++;
	}
	*ret_ranges = n ? steal_pointer(&ranges) : NULL;
	*ret_n = n;
	return 0;
}

int encap_source_parse(const char *text, struct prefix *ret_source, struct error *err)
{
	struct prefix source = {};
	const char *objection;
	uint8_t least;
	int r;

	if (strcmp(text, "auto")) {
		r = prefix_parse(text, &source, err);
		if (r)
			return r;
		objection = address_objection(&source.address, source.family);
		if (objection)
			return error_set(err, EINVAL, "%s: %s", text, objection);
		least = source.family == XLB_IPV6 ? ENCAP_LENGTH_MIN_IPV6 : ENCAP_LENGTH_MIN;
		if (source.length < least)
			return error_set(
				err, EINVAL,
				"%s: a prefix from /%u to /%u leaves the bits that may vary", text,
				least, bits_of(source.family));
	}
	*ret_source = source;
	return 0;
}

const char *encap_source_format(const struct prefix *source, char text[ENDPOINT_TEXT_MAX])
{
	if (!source->family)
		return "auto";
	if (source->length == bits_of(source->family))
		return address_format(&source->address, source->family, text);
	return prefix_format(source, text);
}

int affinity_parse(const char *text, uint32_t *ret_seconds, struct error *err)
{
	if (text_parse_number(text, 0, AFFINITY_MAX_S, ret_seconds))
		return 0;
	return error_set(err, EINVAL, "%s: not a number of seconds from 1 to %u, or 0 for none",
			 text, AFFINITY_MAX_S);
}

int mss_parse(const char *text, uint16_t *ret_mss, struct error *err)
{
	uint32_t mss;

	if (!text_parse_number(text, 0, MSS_MAX, &mss) || (mss && mss < MSS_MIN))
		return error_set(err, EINVAL,
				 "%s: not a size of segments from %u to %u, or 0 for any", text,
				 MSS_MIN, MSS_MAX);
	*ret_mss = mss;
	return 0;
}

int gue_checksum_parse(const char *text, bool *ret_on, struct error *err)
{
	bool on = !strcmp(text, "on");

	if (!on && strcmp(text, "off"))
		return error_set(err, EINVAL, "%s: not on or off", text);
	*ret_on = on;
	return 0;
}

int echo_parse(const char *text, bool *ret_no_echo, struct error *err)
{
	bool on = false;
	int r = gue_checksum_parse(text, &on, err);

	if (!r)
		*ret_no_echo = !on;
	return r;
}
