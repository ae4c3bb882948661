/* SPDX-License-Identifier: GPL-2.0 */
/*
 * healthCheckNodePort: load balancers in front of the nodes ask there which nodes have endpoints of
 * a Service with externalTrafficPolicy: Local. 200 with some that are ready, else 503; the body is
 * kube-proxy's, and whatever is asked for gets the same answer.
 *
 * kube-proxy serves these ports, too, on nodes where it runs. A port that is taken is left to who
 * has it, and tried again every 30 s.
 */
#ifndef XLB_KUBERNETES_HEALTH_H
#define XLB_KUBERNETES_HEALTH_H

#include "kubernetes/internal.h"

struct event_base;
struct health;

/* kube is borrowed. NULL: out of memory. */
struct health *health_new(struct kube *kube, struct event_base *base);
/* Before the groups go. NULL is fine. */
void health_free(struct health *health);
/* The group changed; served: we serve it, with addresses or yet without. -ENOMEM: it is not answered for. */
int health_update(struct health *health, struct group *group, bool served);

#endif
