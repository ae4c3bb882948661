/* SPDX-License-Identifier: GPL-2.0 */
/* An API server as the source of a struct kube. */
#ifndef XLB_KUBERNETES_CLUSTER_H
#define XLB_KUBERNETES_CLUSTER_H

#include "kubernetes/kubernetes.h"

struct cluster;

/* Reads the configuration and starts. kube is borrowed. */
int cluster_start(struct kube *kube, struct event_base *base, struct cluster **ret_cluster,
		  struct error *err);
/* Whether its credentials come from an exec plugin. */
bool cluster_runs_plugins(const struct cluster *cluster);
void cluster_free(struct cluster *cluster);	/* NULL is fine */

#endif
