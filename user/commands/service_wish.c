// SPDX-License-Identifier: GPL-2.0
/*
 * The options of `services add` and `set`. What is wrong in itself, or for the VIP, is a wrong
 * command line; what is wrong for the way in which the service forwards can be known only once the
 * service is.
 */
#include "commands/service_wish.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Printable and without blanks, so that listings stay one word a column. */
static int parse_name(const char *text, const char **ret_name, struct error *err)
{
	size_t length = strlen(text);

	if (length >= XLB_NAME_MAX)
		return error_set(err, EINVAL, "%.20s...: a name of %zu characters, at most %d",
				 text, length, XLB_NAME_MAX - 1);
	for (const char *at = text; *at; at++)
		if (*at <= ' ' || *at >= 0x7f)
			return error_set(err, EINVAL, "%s: a name has no blanks, and ASCII only",
					 text);
	*ret_name = text;
	return 0;
}

int wish_parse(struct wish *wish, int option, const char *value, struct error *err)
{
	struct service *wanted = &wish->wanted;

	switch (option) {
	case WISH_FORWARD:
		wish->forward = true;
		return forward_parse(value, &wanted->forward, err);
	case WISH_SCHEDULER:
		wish->scheduler = true;
		return scheduler_parse(value, &wanted->scheduler, err);
	case WISH_AFFINITY:
		wish->affinity = true;
		return affinity_parse(value, &wanted->affinity_s, err);
	case WISH_MSS:
		wish->mss = true;
		return mss_parse(value, &wanted->mss, err);
	case WISH_ENCAP_SOURCE:
		wish->encap_source = true;
		return encap_source_parse(value, &wanted->encap_source, err);
	case WISH_GUE_PORT:
		wish->gue_port = true;
		return port_parse(value, &wanted->gue_port, err);
	case WISH_GUE_CHECKSUM:
		wish->gue_checksum = true;
		return gue_checksum_parse(value, &wanted->gue_checksum, err);
	case WISH_ECHO:
		wish->echo = true;
		return echo_parse(value, &wanted->no_echo, err);
	case WISH_SOURCE_RANGES:
		wish->source_ranges = value; /* of which family, the VIP will say */
		return 0;
	default:
		return parse_name(value, &wish->name, err);
	}
}

void wish_end(struct wish *wish)
{
	free(wish->wanted.ranges);
}

bool wish_any(const struct wish *wish)
{
	return wish->forward || wish->scheduler || wish->affinity || wish->mss ||
	       wish->encap_source || wish->gue_port || wish->gue_checksum || wish->echo ||
	       wish->name || wish->source_ranges;
}

/* What was asked for, and means nothing with this way of forwarding. */
static int check_forward(const struct wish *wish, uint8_t forward, struct error *err)
{
	if (wish->gue_port && forward != XLB_FORWARD_GUE)
		return error_set(err, EINVAL,
				 "--gue-port is for --forward gue: %s sends packets without UDP "
				 "around them",
				 forward_name(forward));
	if (wish->gue_checksum && wish->wanted.gue_checksum && forward != XLB_FORWARD_GUE)
		return error_set(err, EINVAL,
				 "--gue-checksum is for --forward gue: %s sends packets without "
				 "UDP around them",
				 forward_name(forward));
	if (wish->encap_source && wish->wanted.encap_source.family &&
	    !forward_encapsulates(forward))
		return error_set(err, EINVAL,
				 "--encap-source is for --forward ipip and gue: %s puts no header "
				 "around packets",
				 forward_name(forward));
	return 0;
}

int wish_check(struct wish *wish, const struct endpoint *vip, struct error *err)
{
	struct service *wanted = &wish->wanted;
	int r = 0;

	if (wish->mss && wanted->mss && vip->protocol != XLB_TCP)
		return error_set(err, EINVAL, "--mss is for TCP: %s has no segments",
				 protocol_name(vip->protocol));
	if (wish->source_ranges)
		r = ranges_parse(wish->source_ranges, vip->family, &wanted->ranges,
				 &wanted->n_ranges, err);
	if (r)
		return error_prefix(err, r, "--source-ranges");
	return wish->forward ? check_forward(wish, wanted->forward, err) : 0;
}

int wish_fulfil(struct wish *wish, struct service *service, struct error *err)
{
	const struct service *wanted = &wish->wanted;
	uint8_t forward = wish->forward ? wanted->forward : service->forward;
	int r = check_forward(wish, forward, err);

	if (r)
		return r;
	service->forward = forward;
	if (wish->scheduler)
		service->scheduler = wanted->scheduler;
	if (wish->affinity)
		service->affinity_s = wanted->affinity_s;
	if (wish->mss)
		service->mss = wanted->mss;
	if (wish->echo)
		service->no_echo = wanted->no_echo;
	if (wish->encap_source || !forward_encapsulates(forward))
		service->encap_source = wanted->encap_source;
	if (wish->gue_port || forward != XLB_FORWARD_GUE)
		service->gue_port = wanted->gue_port;
	if (wish->gue_checksum || forward != XLB_FORWARD_GUE)
		service->gue_checksum = wanted->gue_checksum;
	if (wish->name)
		strcpy(service->name, wish->name);
	if (wish->source_ranges) {
		service_clear_ranges(service);
		service->ranges = wish->wanted.ranges;
		service->n_ranges = wish->wanted.n_ranges;
		wish->wanted.ranges = NULL;
	}
	return 0;
}
