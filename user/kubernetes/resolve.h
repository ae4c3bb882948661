/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a Service and its endpoints mean: which VIPs, which backends, in which state. No state of
 * its own.
 */
#ifndef XLB_KUBERNETES_RESOLVE_H
#define XLB_KUBERNETES_RESOLVE_H

#include <stdio.h>

#include "kubernetes/kubernetes.h"
#include "kubernetes/store.h"

/* A VIP that a Service asks for, and the port of the Service that it leads to. */
struct wanted_vip {
	struct endpoint vip;
	size_t port;		/* index of kube_service.ports */
	/* a load balancer's or external address, or a NodePort: externalTrafficPolicy is for it */
	bool external;
};

/*
 * The VIPs of a group, no two alike, in the order of the Service's ports; none without a Service.
 * *ret_vips is the caller's to free(). What the Service asks for and does not get is written to
 * `warnings`, a line each.
 */
int resolve_vips(const struct group *group, const struct kube_options *options, FILE *warnings,
		 struct wanted_vip **ret_vips, size_t *ret_n);

/* Whether we serve the Service to the outside, also while it has no address yet. */
bool resolve_is_external(const struct kube_service *service, const struct kube_options *options);
/* Whether only endpoints of this node are for this VIP. */
bool resolve_local(const struct kube_service *from, const struct wanted_vip *wanted);
/*
 * The backends of one VIP, sorted, no two alike; the caller frees. *ret_elsewhere: there are some
 * that take new flows, but none of any kind for this node.
 */
int resolve_backends(const struct group *group, const struct wanted_vip *wanted,
		     struct backend **ret_backends, size_t *ret_n, bool *ret_elsewhere);
/* The addresses of endpoints on this node that are ready, whatever their ports; -ENOMEM. */
int resolve_count_local(const struct group *group, size_t *ret_n);

/* The port of a slice that a Service's port means; NULL: none. */
const struct kube_set_port *resolve_match_port(const struct kube_part *part,
					       const struct kube_service_port *port);

/*
 * Fills in what annotations and session affinity ask for, or the defaults; those of external VIPs
 * may be others than those of a cluster IP. What cannot be had is written to `warnings`, unless
 * that is NULL.
 */
void resolve_options(const struct kube_service *from, const struct kube_options *options,
		     bool external, FILE *warnings, struct service *service);
/*
 * After resolve_options(), for one VIP: where forwarding would keep the port and the endpoints have
 * another one, the default holds instead, and that port is returned; else 0. Options that the VIP
 * has no use for are cleared.
 */
uint16_t resolve_forward(const struct group *group, const struct wanted_vip *wanted,
			 const struct kube_options *options, struct service *service);
/* Nobody is let in: all that comes is dropped. -ENOMEM. */
int resolve_nobody(struct service *service);
/* loadBalancerSourceRanges, if they are for this VIP; -ENOMEM. */
int resolve_ranges(const struct kube_service *from, const struct wanted_vip *wanted,
		   struct service *service);
/* Whether there are ranges for this VIP, and none of its family. */
bool resolve_admits_nobody(const struct kube_service *from, const struct wanted_vip *wanted);

/*
 * Whole services as the model has them. `backends` and `ranges` of *ret_service are the caller's to
 * free().
 */
int resolve_service(const struct group *group, const struct wanted_vip *wanted,
		    const struct kube_options *options, struct service *ret_service);

#endif
