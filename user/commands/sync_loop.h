/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A sync from its source to its end: once from a file, once from an API server, or for as long as
 * it is let.
 */
#ifndef XLB_SYNC_LOOP_H
#define XLB_SYNC_LOOP_H

#include "commands/sync.h"

struct sync_loop_options {
	struct kube_options kube;	/* node_addresses NULL: those of the attached devices */
	const char *from;		/* a file, or "-"; NULL: an API server */
	struct datapath *dp;		/* NULL: nothing is attached, and dry_run is set */
	bool dry_run, verbose, json;
};

/* An exit status; all is said. */
int sync_loop(const struct sync_loop_options *options);

#endif
