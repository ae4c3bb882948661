/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who gets a VIP. Two Services may ask for one address and port (LoadBalancer addresses and
 * external IPs can be written by anyone): the older Service has it, and of two that are equally old
 * the one whose name sorts first, so that every node decides alike. When it goes, the next one
 * takes over.
 *
 * A contest is a VIP and all Services that ask for it. It is queued whenever its answer may have
 * changed: a claim came or went, or something about a Service or its endpoints changed.
 */
#ifndef XLB_KUBERNETES_CLAIMS_H
#define XLB_KUBERNETES_CLAIMS_H

#include "kubernetes/resolve.h"

struct contest;

/* One Service's wish for one VIP. */
struct claim {
	struct wanted_vip wanted;
	struct group *group;
	struct contest *contest;
	struct claim *next;	/* of the same contest */
	bool told;		/* a warning said that it lost */
};

struct contest {
	struct lookup_entry entry;	/* by vip */
	struct endpoint vip;
	struct claim *claims;
	bool queued;
	struct contest *next_queued;
};

struct claims {
	struct lookup contests;
	struct contest *first_queued, *last_queued;
};

/*
 * The group's claims are these from now on; it takes over `vips`. Old and new contests are queued.
 * -ENOMEM: nothing changed.
 */
int claims_update(struct claims *claims, struct group *group, struct wanted_vip *vips, size_t n);
/* It is to be looked at again. */
void claims_queue(struct claims *claims, struct contest *contest);
/* The next queued contest, or NULL. */
struct contest *claims_next(struct claims *claims);
/* Who has the VIP; NULL: nobody asks for it. */
struct claim *contest_winner(const struct contest *contest);
/* Call when done with a contest: one that nobody is in any more is freed. */
void claims_release(struct claims *claims, struct contest *contest);
struct contest *claims_find(const struct claims *claims, const struct endpoint *vip);
/* The groups' claims go with the groups (store_free()), which must be next. */
void claims_free(struct claims *claims);

#endif
