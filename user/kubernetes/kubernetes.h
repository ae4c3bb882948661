/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kubernetes as a source of services: what is in Services and EndpointSlices, as a model.
 *
 * This folder knows the API, its authentication and the semantics of Services; it never sees a BPF map. It calls back with services as they should be, and the command
 * that runs it applies them.
 */
#ifndef XLB_KUBERNETES_H
#define XLB_KUBERNETES_H

#include "model/model.h"

struct event_base;

enum kube_vips {
	KUBE_VIPS_LOADBALANCER = 1,
	KUBE_VIPS_NODEPORT = 2,
	KUBE_VIPS_CLUSTERIP = 4,
	KUBE_VIPS_EXTERNAL = 8,
};

struct kube_options {
	unsigned int vips;			/* enum kube_vips, or'ed */
	const struct endpoint *node_addresses;	/* where NodePorts are bound; port and protocol are ignored */
	size_t n_node_addresses;
	const char *load_balancer_class;	/* default "xlb.dev/xlb" */
	const char *namespace;			/* NULL: all */
	const char *service;			/* "NAMESPACE/NAME" or NULL: all */
	const char *kubeconfig;			/* NULL: $KUBECONFIG, in-cluster, ~/.kube/config */
	const char *context;			/* NULL: current-context */
	uint8_t owner;				/* of the services made: XLB_OWNER_KUBERNETES or XLB_OWNER_FILE */
	uint8_t default_forward;
	uint8_t default_scheduler;
};

#endif
