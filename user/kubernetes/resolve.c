// SPDX-License-Identifier: GPL-2.0
/*
 * The semantics of Services.
 *
 * Every call works out the whole answer from all that is known of the Service: no slice's change is
 * ever applied as a difference, so that the order of events cannot matter.
 */
#include "kubernetes/resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
	struct endpoint endpoint;
	uint32_t fitness;	/* enum kube_fitness */
};

/* By address and port, the fittest first. */
static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *one = a, *two = b;
	int r = endpoint_compare(&one->endpoint, &two->endpoint);

	return r ? r : (int)two->fitness - (int)one->fitness;
}

/*
 * Ports are matched by name and protocol: Pods may resolve a named target port to different
 * numbers.
 */
const struct kube_set_port *resolve_match_port(const struct kube_part *part,
					       const struct kube_service_port *port)
{
	for (size_t i = 0; i < part->n_ports; i++)
		if (part->ports[i].protocol == port->protocol &&
		    !strcmp(part->ports[i].name, port->name))
			return &part->ports[i];
	return NULL;
}

static void collect_part(const struct kube_part *part, const struct kube_set_port *port,
			 struct candidate *candidates, size_t *n)
{
	for (size_t i = 0; i < part->n_endpoints; i++) {
		struct candidate *candidate = &candidates[(*n)++];

		candidate->endpoint.address = part->endpoints[i].address;
		candidate->endpoint.port = port->port;
		candidate->endpoint.family = part->family;
		candidate->fitness = part->endpoints[i].fitness;
	}
}

/* All candidates, sorted, each address and port once. */
static int collect(const struct group *group, const struct kube_service_port *port, uint8_t family,
		   struct candidate **ret_candidates, size_t *ret_n)
{
	size_t n = 0, distinct = 0, i, j;
	struct candidate *candidates;
	const struct kube_set_port *match;

	for (i = 0; i < group->n_sets; i++)
		for (j = 0; j < group->sets[i]->n_parts; j++)
			n += group->sets[i]->parts[j].n_endpoints;
	candidates = calloc(n + 1, sizeof(*candidates));
	if (!candidates)
		return -ENOMEM;
	n = 0;
	for (i = 0; i < group->n_sets; i++) {
		for (j = 0; j < group->sets[i]->n_parts; j++) {
			const struct kube_part *part = &group->sets[i]->parts[j];

			match = part->family == family ? resolve_match_port(part, port) : NULL;
			if (match)
				collect_part(part, match, candidates, &n);
		}
	}
	qsort(candidates, n, sizeof(*candidates), compare_candidates);
	for (i = 0; i < n; i++)
		if (!distinct ||
		    endpoint_compare(&candidates[distinct - 1].endpoint, &candidates[i].endpoint))
			candidates[distinct++] = candidates[i];
	*ret_candidates = candidates;
	*ret_n = distinct;
	return 0;
}

/*
 * New flows go to ready endpoints; only where there are none, to those that serve while they
 * terminate (KEP-1669). An endpoint that serves keeps its flows whether it is selectable or not.
 */
static uint8_t backend_state(uint32_t fitness, bool some_ready)
{
	switch (fitness) {
	case KUBE_READY:
		return XLB_BACKEND_ACTIVE;
	case KUBE_SERVING_TERMINATING:
		return some_ready ? XLB_BACKEND_DRAINING : XLB_BACKEND_ACTIVE;
	case KUBE_SERVING:
		return XLB_BACKEND_DRAINING;
	default:
		return XLB_BACKEND_DOWN;
	}
}

int resolve_backends(const struct group *group, const struct kube_service_port *port,
		     uint8_t family, struct backend **ret_backends, size_t *ret_n)
{
	struct candidate *candidates;
	struct backend *backends;
	bool some_ready = false;
	size_t n;

	if (collect(group, port, family, &candidates, &n) < 0)
		return -ENOMEM;
	backends = calloc(n + 1, sizeof(*backends));
	if (!backends) {
		free(candidates);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		some_ready |= candidates[i].fitness == KUBE_READY;
	for (size_t i = 0; i < n; i++) {
		backends[i].endpoint = candidates[i].endpoint;
		backends[i].endpoint.protocol = port->protocol;
		backends[i].weight = 1;
		backends[i].state = backend_state(candidates[i].fitness, some_ready);
	}
	free(candidates);
	*ret_backends = backends;
	*ret_n = n;
	return 0;
}

/* "namespace/name:port-name", or the number where the name is empty or too long for the map. */
static void service_name(const struct kube_service *service, const struct kube_service_port *port,
			 char ret_name[XLB_NAME_MAX])
{
	int n = XLB_NAME_MAX;

	if (*port->name)
		n = snprintf(ret_name, XLB_NAME_MAX, "%s:%s", service->key, port->name);
	if (n >= XLB_NAME_MAX)
		snprintf(ret_name, XLB_NAME_MAX, "%s:%u", service->key, port->port);
}

int resolve_service(const struct group *group, const struct wanted_vip *wanted,
		    const struct kube_options *options, struct service *ret_service)
{
	const struct kube_service *from = group->service;
	const struct kube_service_port *port = &from->ports[wanted->port];
	struct service service = {
		.vip = wanted->vip,
		.owner = options->owner,
	};

	/* Without warnings: resolve_vips() gave them. */
	resolve_options(from, options, NULL, &service);
	resolve_forward(group, wanted, options, &service);
	service_name(from, port, service.name);
	if (resolve_ranges(from, wanted, &service) < 0)
		return -ENOMEM;
	if (resolve_backends(group, port, wanted->vip.family, &service.backends,
			     &service.n_backends) < 0) {
		service_clear_ranges(&service);
		return -ENOMEM;
	}
	service.backends_allocated = service.n_backends;
	*ret_service = service;
	return 0;
}
