/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is kept of Kubernetes objects: the few fields that decide about load balancing, in as few
 * bytes as is sensible, whatever API they came from.
 *
 * A Service becomes a kube_service. An EndpointSlice (v1 or v1beta1) and an Endpoints object become
 * the same thing, a kube_set: an EndpointSlice has one part, Endpoints one for each subset and
 * family. Both are made by decode.h and are never changed afterwards.
 */
#ifndef XLB_KUBERNETES_OBJECTS_H
#define XLB_KUBERNETES_OBJECTS_H

#include <stdbool.h>

#include "kubernetes/lookup.h"
#include "model/model.h"

enum kube_kind {
	KUBE_SERVICE,
	KUBE_SET,
	KUBE_KINDS,
};

enum {
	KUBE_PORT_NAME_MAX = 64,	/* a DNS label and a NUL */
	KUBE_PROTOCOL_SCTP = 132,	/* beside enum xlb_protocol: known, and not supported */
};

/* Annotations that are ours. */
enum kube_annotation {
	KUBE_FORWARD,
	KUBE_SCHEDULER,
	KUBE_MSS,
	KUBE_ENCAP_SOURCE,
	KUBE_GUE_PORT,
	KUBE_GUE_CHECKSUM,
	KUBE_ECHO,
	KUBE_ANNOTATIONS,
};

enum kube_type {
	KUBE_TYPE_CLUSTERIP,
	KUBE_TYPE_NODEPORT,
	KUBE_TYPE_LOADBALANCER,
	KUBE_TYPE_EXTERNALNAME,
};

/* Where an address of a Service comes from: enum kube_vips of kubernetes.h, one bit. */
struct kube_address {
	struct xlb_address address;
	uint8_t family;		/* enum xlb_family */
	uint8_t source;
};

struct kube_service_port {
	char name[KUBE_PORT_NAME_MAX];	/* "" is a valid name */
	uint8_t protocol;		/* enum xlb_protocol, or SCTP */
	uint16_t port;			/* host order, like all ports here */
	uint16_t node_port;		/* 0: none */
};

struct kube_service {
	char *key;			/* "namespace/name" */
	char *created;			/* RFC 3339, UTC: sorts as text; "" if unknown */
	char *class;			/* loadBalancerClass; NULL: unset */
	/* label service.kubernetes.io/service-proxy-name; NULL: unset */
	char *proxy;
	/* as they stand, not checked; NULL: unset */
	char *annotations[KUBE_ANNOTATIONS];
	uint8_t type;			/* enum kube_type */
	/* externalTrafficPolicy and internalTrafficPolicy: Local, endpoints of this node only */
	bool external_local, internal_local;
	uint16_t health_port;		/* healthCheckNodePort; 0: none */
	bool headless;
	bool selector;			/* has one, so that a controller makes its slices */
	/* cluster IPs, external IPs, load balancer's, as in the object */
	struct kube_address *addresses;
	size_t n_addresses;
	struct kube_service_port *ports;
	size_t n_ports;
	uint32_t affinity_s;		/* sessionAffinity: ClientIP; 0: none */
	/* loadBalancerSourceRanges; where there were some that could not be used, they count too */
	bool ranged;
	struct prefix *ranges;
	size_t n_ranges;
	char *bad_ranges;		/* with commas; NULL: all could be used */
};

/* "xlb.dev/forward" */
const char *kube_annotation_name(enum kube_annotation annotation);

/*
 * How fit an endpoint is, worst first. Where one address stands in several slices (a Pod that is
 * being moved from slice to slice, or an address that was given to another Pod) the fittest entry
 * is the true one.
 */
enum kube_fitness {
	KUBE_NOT_SERVING,
	KUBE_SERVING_TERMINATING,
	KUBE_SERVING,		/* not ready and not terminating */
	KUBE_READY,
};

/* What the control plane says about who should use an endpoint, seen from this node. */
enum kube_hint {
	KUBE_HINT_NONE,
	KUBE_HINT_OTHERS,
	KUBE_HINT_US,
};

struct kube_endpoint {
	struct xlb_address address;
	uint8_t fitness;	/* enum kube_fitness */
	bool local;		/* on this node */
	uint8_t node_hint;	/* enum kube_hint, like zone_hint */
	uint8_t zone_hint;
};

struct kube_set_port {
	char name[KUBE_PORT_NAME_MAX];
	uint8_t protocol;
	uint16_t port;
};

struct kube_part {
	uint8_t family;		/* enum xlb_family */
	struct kube_set_port *ports;
	size_t n_ports;
	struct kube_endpoint *endpoints;
	size_t n_endpoints;
	size_t n_unusable;	/* left out: loopback, multicast and the like */
};

struct kube_set {
	struct lookup_entry entry;	/* of the store, by key */
	char *key;			/* "namespace/name" of the slice */
	char *service;			/* "namespace/name" of its Service */
	struct kube_part *parts;
	size_t n_parts;
};

/*
 * Whether an address can be a VIP or a backend: not unspecified, loopback, multicast or broadcast.
 */
bool kube_address_usable(const struct xlb_address *address, uint8_t family);

void kube_service_free(struct kube_service *service);	/* NULL is fine */
void kube_set_free(struct kube_set *set);
/* Whether there is a difference that could matter. */
bool kube_service_equal(const struct kube_service *a, const struct kube_service *b);
bool kube_set_equal(const struct kube_set *a, const struct kube_set *b);

#endif
