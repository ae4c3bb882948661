// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/claims.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A VIP without what padding may hold. */
static struct endpoint plain(const struct endpoint *vip)
{
	struct endpoint key;

	memset(&key, 0, sizeof(key));
	key.address = vip->address;
	key.port = vip->port;
	key.family = vip->family;
	key.protocol = vip->protocol;
	return key;
}

struct contest *claims_find(const struct claims *claims, const struct endpoint *vip)
{
	struct endpoint key = plain(vip);
	struct lookup_entry *entry = lookup_find(&claims->contests, &key, sizeof(key));

	return entry ? lookup_object(entry, struct contest, entry) : NULL;
}

static struct contest *ensure_contest(struct claims *claims, const struct endpoint *vip)
{
	struct contest *contest = claims_find(claims, vip);

	if (contest)
		return contest;
	contest = calloc(1, sizeof(*contest));
	if (!contest)
		return NULL;
	contest->vip = plain(vip);
	if (lookup_insert(&claims->contests, &contest->entry, &contest->vip, sizeof(contest->vip)) <
	    0) {
		free(contest);
		return NULL;
	}
	return contest;
}

void claims_queue(struct claims *claims, struct contest *contest)
{
	if (contest->queued)
		return;
	contest->queued = true;
	contest->next_queued = NULL;
	if (claims->last_queued)
		claims->last_queued->next_queued = contest;
	else
		claims->first_queued = contest;
	claims->last_queued = contest;
}

static void leave(struct claims *claims, struct claim *claim)
{
	struct claim **link = &claim->contest->claims;

	while (*link != claim)
		link = &(*link)->next;
	*link = claim->next;
	claims_queue(claims, claim->contest);
}

static void enter(struct claims *claims, struct claim *claim)
{
	claim->next = claim->contest->claims;
	claim->contest->claims = claim;
	claims_queue(claims, claim->contest);
}

static bool was_told(const struct group *group, const struct contest *contest)
{
	for (size_t i = 0; i < group->n_claims; i++)
		if (group->claims[i].contest == contest)
			return group->claims[i].told;
	return false;
}

int claims_update(struct claims *claims, struct group *group, struct wanted_vip *vips, size_t n)
{
	struct claim *fresh = n ? calloc(n, sizeof(*fresh)) : NULL;
	size_t i;

	if (n && !fresh)
		goto no_memory;
	for (i = 0; i < n; i++) {
		fresh[i].wanted = vips[i];
		fresh[i].group = group;
		fresh[i].contest = ensure_contest(claims, &vips[i].vip);
		if (!fresh[i].contest)
			goto no_memory;
		fresh[i].told = was_told(group, fresh[i].contest);
	}
	for (i = 0; i < group->n_claims; i++)
		leave(claims, &group->claims[i]);
	for (i = 0; i < n; i++)
		enter(claims, &fresh[i]);
	free(group->claims);
	group->claims = fresh;
	group->n_claims = n;
	free(vips);
	return 0;

no_memory:
	/* Contests that were made stay; they are empty and harmless. */
	free(fresh);
	free(vips);
	return -ENOMEM;
}

struct contest *claims_next(struct claims *claims)
{
	struct contest *contest = claims->first_queued;

	if (!contest)
		return NULL;
	claims->first_queued = contest->next_queued;
	if (!claims->first_queued)
		claims->last_queued = NULL;
	contest->queued = false;
	return contest;
}

static bool is_before(const struct claim *a, const struct claim *b)
{
	int r = strcmp(a->group->service->created, b->group->service->created);

	return (r ? r : strcmp(a->group->key, b->group->key)) < 0;
}

struct claim *contest_winner(const struct contest *contest)
{
	struct claim *winner = contest->claims;

	for (struct claim *claim = winner; claim; claim = claim->next)
		if (is_before(claim, winner))
			winner = claim;
	return winner;
}

void claims_release(struct claims *claims, struct contest *contest)
{
	if (contest->claims || contest->queued)
		return;
	lookup_remove(&claims->contests, &contest->entry);
	free(contest);
}

void claims_free(struct claims *claims)
{
	struct lookup_entry *entry;

	while ((entry = lookup_any(&claims->contests))) {
		lookup_remove(&claims->contests, entry);
		free(lookup_object(entry, struct contest, entry));
	}
	lookup_free(&claims->contests);
	*claims = (struct claims){};
}
