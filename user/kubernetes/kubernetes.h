/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kubernetes as a source of services: what Services and EndpointSlices say, as services of the
 * model.
 *
 * This folder knows the API, its authentication and the semantics of Services; it never sees a BPF
 * map. Objects come from an API server (list and watch, on the caller's event loop) or from a file.
 * What follows from them is fetched one VIP at a time with kube_next_change().
 *
 *	kube_new -> kube_load_file | kube_connect -> kube_next_change ... -> kube_free
 */
#ifndef XLB_KUBERNETES_H
#define XLB_KUBERNETES_H

#include "model/model.h"

struct event_base;
struct kube;

/* Kinds of addresses of a Service. */
enum kube_vips {
	KUBE_VIPS_LOADBALANCER = 1,
	KUBE_VIPS_NODEPORT = 2,
	KUBE_VIPS_CLUSTERIP = 4,
	KUBE_VIPS_EXTERNAL = 8,
};

#define KUBE_CLASS "xlb.dev/xlb"	/* spec.loadBalancerClass that is ours by default */
/* value of service.kubernetes.io/service-proxy-name that is ours */
#define KUBE_PROXY_NAME "xlb"

/* Where this node is in the cluster. */
struct kube_place {
	const char *node;		/* its name; NULL: no endpoint is here */
	const char *zone;		/* NULL: hints of zones do not count */
};

/* All pointers are borrowed and must outlive the struct kube. */
struct kube_options {
	unsigned int vips;			/* enum kube_vips, or'ed */
	/* where NodePorts are bound; port and protocol are ignored */
	const struct endpoint *node_addresses;
	size_t n_node_addresses;
	const char *load_balancer_class;	/* NULL: KUBE_CLASS */
	bool only_class;			/* leave Services without a class alone */
	const char *namespace;			/* NULL: all */
	const char *service;			/* "NAMESPACE/NAME" or NULL: all */
	const char *kubeconfig;			/* NULL: $KUBECONFIG, in-cluster, ~/.kube/config */
	const char *context;			/* NULL: current-context */
	/* of the services made: XLB_OWNER_KUBERNETES or XLB_OWNER_FILE */
	uint8_t owner;
	uint8_t default_forward;		/* enum xlb_forward */
	uint8_t default_scheduler;		/* enum xlb_scheduler */
	struct kube_place place;
	bool health_checks;			/* answer at healthCheckNodePorts */
	/* go on after the first lists, and outlive the API server's absence */
	bool watch;
	/* for whatever is no watch, and for exec plugins; 0: 30 */
	unsigned int request_timeout_s;
	/* asked of the server for each watch; 0: random in 300..600 */
	unsigned int watch_timeout_s;
};

struct kube_progress {
	const char *resource;	/* "services", "endpointslices", "endpoints", or a file's name */
	uint64_t objects;
	uint64_t bytes;		/* after decompression */
};

/*
 * Any may be NULL. Called from kube_load_file() or from the event loop. Texts are single lines
 * without a newline.
 */
struct kube_calls {
	/* all is known, and kube_next_change() has something */
	void (*changed)(void *arg);
	void (*warning)(void *arg, const char *line);
	void (*progress)(void *arg, const struct kube_progress *progress);
	void (*detail)(void *arg, const char *line);	/* requests and choices, for -v */
	/* the server cannot be used now; said once for each kind of reason */
	void (*away)(void *arg, const char *line);
	void (*back)(void *arg, const char *line);	/* it can again */
	/* without options.watch: it will come to nothing */
	void (*failed)(void *arg, int code, const struct error *err);
};

int kube_new(const struct kube_options *options, const struct kube_calls *calls, void *arg,
	     struct kube **ret_kube, struct error *err);
void kube_free(struct kube *kube);	/* NULL is fine */

/*
 * Reads a file ("-": standard input) of Services and EndpointSlices or Endpoints: single objects,
 * lists, or several of them one after the other, as kubectl prints them. -EINVAL: what is wrong and
 * where; nothing of it is used then.
 */
int kube_load_file(struct kube *kube, const char *path, struct error *err);

/*
 * Finds the API server and starts on the event loop. Errors are those of the configuration
 * (kubeconfig, credentials); the rest comes through the calls.
 */
int kube_connect(struct kube *kube, struct event_base *base, struct error *err);

/* After kube_connect(): whether programs are run for credentials (exec plugins). */
bool kube_runs_plugins(const struct kube *kube);

/*
 * Both Services and their endpoints are known in full, so that what is not wanted may be removed.
 */
bool kube_complete(const struct kube *kube);
/*
 * Endpoints are known. False for a file that has only Services: then backends that run are to be
 * kept.
 */
bool kube_endpoints_known(const struct kube *kube);
/*
 * Whether a service of this name ("namespace/name:port") is within options.namespace and .service.
 */
bool kube_in_scope(const struct kube *kube, const char *name);
/* Whether some Service asks for this VIP. */
bool kube_wants(const struct kube *kube, const struct endpoint *vip);

struct kube_change {
	struct endpoint vip;
	struct service *after;		/* NULL: nobody wants the VIP any more */
	/* "namespace/name:80", with "/udp" for UDP; the Service's port, not the NodePort */
	const char *label;
};

/*
 * The next VIP whose service may have changed. What it points to is valid until the next call. 1:
 * there is one; 0: no more; -ENOMEM.
 */
int kube_next_change(struct kube *kube, struct kube_change *ret_change, struct error *err);

/* kube_next_change() shall hand this VIP out again, if some Service asks for it. */
void kube_again(struct kube *kube, const struct endpoint *vip);
/* NodePorts are bound to other addresses from now on. The array is borrowed, as in the options. */
void kube_set_node_addresses(struct kube *kube, const struct endpoint *addresses, size_t n);

/* CLOCK_MONOTONIC in ns at which the first change since the last call was read; 0: none. */
uint64_t kube_take_read_time(struct kube *kube);
/* Objects of the API server that made no sense and were left out, each with a warning. */
size_t kube_count_ignored(const struct kube *kube);
/* What is known, for -v and for people. */
size_t kube_count_services(const struct kube *kube);
size_t kube_count_endpoints(const struct kube *kube);

#endif
