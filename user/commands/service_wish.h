/* SPDX-License-Identifier: GPL-2.0 */
/* What `services add` and `set` are asked to make of a service. */
#ifndef XLB_SERVICE_WISH_H
#define XLB_SERVICE_WISH_H

#include "commands/command.h"
#include "model/model.h"

#define FORWARD_VALUES "nat|dnat|l2|ipip|gue"
#define SCHEDULER_VALUES "maglev|rr|lc|random|source"

/* The options that only these two have; services_change.c has the others. */
enum {
	WISH_FORWARD = 'f',
	WISH_SCHEDULER = 's',
	WISH_NAME = 'n',
	WISH_AFFINITY = OPTION_LONG,
	WISH_SOURCE_RANGES,
	WISH_MSS,
	WISH_ENCAP_SOURCE,
	WISH_GUE_PORT,
	WISH_GUE_CHECKSUM,
	WISH_ECHO,
};

/* clang-format off */
#define WISH_OPTIONS(default_forward, default_scheduler) \
	{ WISH_FORWARD, "forward", FORWARD_VALUES, \
	  "how packets get to the backends" default_forward }, \
	{ WISH_SCHEDULER, "scheduler", SCHEDULER_VALUES, \
	  "how a new flow chooses one" default_scheduler }, \
	{ WISH_AFFINITY, "affinity", "SECONDS", \
	  "a client's new flows go where its last one went, for so long (0: off)" }, \
	{ WISH_SOURCE_RANGES, "source-ranges", "RANGES", \
	  "who is let in: ADDR/LENGTH, with commas (any: everybody)" }, \
	{ WISH_MSS, "mss", "N", \
	  "TCP segments of at most N bytes, 536..65495 (0: as the two ends agree)" }, \
	{ WISH_ENCAP_SOURCE, "encap-source", "SOURCE", \
	  "ipip, gue: the outer source, ADDR or ADDR/LENGTH (auto: the device's address)" }, \
	{ WISH_GUE_PORT, "gue-port", "N", \
	  "gue: the UDP port of the backends (default 6080)" }, \
	{ WISH_GUE_CHECKSUM, "gue-checksum", "on|off", \
	  "gue over IPv6: whether outer UDP headers have a checksum (default off)" }, \
	{ WISH_ECHO, "echo", "on|off", \
	  "whether xlb answers a ping to the VIP (default on)" }, \
	{ WISH_NAME, "name", "NAME", "for listings" }
/* clang-format on */

struct wish {
	bool force;
	/* was given */
	bool forward, scheduler, affinity, mss, encap_source, gue_port, gue_checksum, echo;
	const char *name;	   /* NULL: not given */
	const char *source_ranges; /* NULL: not given */
	struct service wanted;	   /* what was given; of the rest, nothing is meant */
};

void wish_end(struct wish *wish);
/* Takes one option; -EINVAL: err names the token. */
int wish_parse(struct wish *wish, int option, const char *value, struct error *err);
/*
 * After all options: what depends on the VIP, and --forward if it is there. Fills what is left to
 * be parsed.
 */
int wish_check(struct wish *wish, const struct endpoint *vip, struct error *err);
/* Whether anything is asked for but force. */
bool wish_any(const struct wish *wish);
/*
 * Makes the service be so. What its way of forwarding has no use for is forgotten; -EINVAL where it
 * was asked for just now.
 */
int wish_fulfil(struct wish *wish, struct service *service, struct error *err);

#endif
