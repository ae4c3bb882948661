/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From what a source of services wants to the maps: differences only, one batch at a time.
 *
 * A batch takes the writers' lock, asks the source for every service that may have changed,
 * compares each with the running one, applies what differs, and prints a line about it. Services of
 * other owners, and of this owner outside of the source's scope, are left alone. What nobody wants
 * any more is removed once the source is complete.
 */
#ifndef XLB_SYNC_H
#define XLB_SYNC_H

#include "datapath/datapath.h"
#include "kubernetes/kubernetes.h"

struct sync {
	struct kube *kube;		/* borrowed, like dp */
	struct datapath *dp;		/* NULL: nothing is attached, and dry_run is set */
	uint8_t owner;			/* of the services that are ours */
	bool dry_run;
	bool json;
	bool timed;			/* JSON tells how long it took from the event to the map */

	/* From here on for sync.c; start with zeros, end with sync_end(). */
	bool swept;			/* leftovers of earlier runs are gone */
	struct model *told;		/* VIPs that a line on stderr has been about */
	struct model *waiting;		/* VIPs that could not be had or written */
	size_t n_failed;		/* services that could not be written in the last batch */
	size_t n_changed;		/* services that were, or would be */
};

/* One batch. An exit status; 1 if something could not be written (each with a line on stderr). */
int sync_batch(struct sync *sync);
/* Whether something waits for a later batch: a VIP of another owner, a full map. */
bool sync_waiting(const struct sync *sync);
/* The next batch tries all of that again. */
void sync_again(struct sync *sync);
void sync_end(struct sync *sync);

#endif
