/* SPDX-License-Identifier: GPL-2.0 */
/* One change of one service, from what was wished to what is to be written. */
#ifndef XLB_DATAPATH_PLAN_H
#define XLB_DATAPATH_PLAN_H

#include "datapath/internal.h"

struct plan {
	struct service *before; /* in the model; NULL: a new service */
	struct service *after;	/* our own copy, whose ids are filled in */
	struct path *paths; /* of each backend of `after`: where it is to be written, else zero */
	bool *fresh;	    /* which get new ids */
	uint32_t *successors; /* by id, of those that go on under new ones. NULL: none do */
	size_t watched;	    /* backends whose devices were told */
	uint32_t id;
	struct slot slot;
	struct ring_change ring;
};

/*
 * Compares with what runs, and finds a slot, routes, and what is new; takes nothing yet. The plan
 * starts as zero and is to be freed whatever comes of it.
 */
int plan_make(struct datapath *dp, const struct endpoint *vip, const struct service *after,
	      struct plan *plan, struct error *err);
/* Ids for new backends; those of retired ones are collected when no other is left. */
int plan_take_ids(struct datapath *dp, struct plan *plan, struct error *err);
/* Fills the next ring and takes room for it. */
int plan_ring(struct datapath *dp, struct plan *plan, struct error *err);
/* Gives back what was taken. */
void plan_undo(struct datapath *dp, struct plan *plan);
void plan_free(struct plan *plan);

#endif
