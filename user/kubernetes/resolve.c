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
	const struct kube_endpoint *from;
};

/* By address and port, the fittest first, and of those that are equally fit the nearest. */
static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *one = a, *two = b;
	int r = endpoint_compare(&one->endpoint, &two->endpoint);

	if (!r)
		r = (int)two->from->fitness - (int)one->from->fitness;
	if (!r)
		r = (int)two->from->local - (int)one->from->local;
	if (!r)
		r = (int)two->from->node_hint - (int)one->from->node_hint;
	return r ? r : (int)two->from->zone_hint - (int)one->from->zone_hint;
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
		candidate->from = &part->endpoints[i];
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

bool resolve_local(const struct kube_service *from, const struct wanted_vip *wanted)
{
	return wanted->external ? from->external_local : from->internal_local;
}

/* Leaves what is on this node. Whether anything anywhere would take new flows. */
static bool keep_local(struct candidate *candidates, size_t *n)
{
	bool anywhere = false;
	size_t kept = 0;

	for (size_t i = 0; i < *n; i++) {
		uint8_t fitness = candidates[i].from->fitness;

		anywhere |= fitness == KUBE_READY || fitness == KUBE_SERVING_TERMINATING;
		if (candidates[i].from->local)
			candidates[kept++] = candidates[i];
	}
	*n = kept;
	return anywhere;
}

static uint8_t node_hint(const struct kube_endpoint *endpoint)
{
	return endpoint->node_hint;
}

static uint8_t zone_hint(const struct kube_endpoint *endpoint)
{
	return endpoint->zone_hint;
}

/* Hints count if every ready endpoint has one, and one of them means this node. */
static bool hints_count(const struct candidate *candidates, size_t n,
			uint8_t (*hint)(const struct kube_endpoint *endpoint))
{
	bool ours = false;

	for (size_t i = 0; i < n; i++) {
		if (candidates[i].from->fitness != KUBE_READY)
			continue;
		if (hint(candidates[i].from) == KUBE_HINT_NONE)
			return false;
		ours |= hint(candidates[i].from) == KUBE_HINT_US;
	}
	return ours;
}

/*
 * New flows go to ready endpoints, as far as hints leave them to us; only where there are none, to
 * those that serve while they terminate (KEP-1669). An endpoint that serves keeps its flows whether
 * it is selectable or not.
 */
static void choose_states(const struct candidate *candidates, size_t n, bool hints,
			  struct backend *backends)
{
	uint8_t (*hint)(const struct kube_endpoint *endpoint) = NULL;
	bool some_ready = false;

	if (hints)
		hint = hints_count(candidates, n, node_hint) ? node_hint :
		       hints_count(candidates, n, zone_hint) ? zone_hint : NULL;
	for (size_t i = 0; i < n; i++)
		some_ready |= candidates[i].from->fitness == KUBE_READY;
	for (size_t i = 0; i < n; i++) {
		const struct kube_endpoint *from = candidates[i].from;
		bool chosen = from->fitness == KUBE_READY ?
				      !hint || hint(from) == KUBE_HINT_US :
				      from->fitness == KUBE_SERVING_TERMINATING && !some_ready;

		backends[i].state = chosen ? XLB_BACKEND_ACTIVE :
				    from->fitness == KUBE_NOT_SERVING ? XLB_BACKEND_DOWN :
									XLB_BACKEND_DRAINING;
	}
}

int resolve_backends(const struct group *group, const struct wanted_vip *wanted,
		     struct backend **ret_backends, size_t *ret_n, bool *ret_elsewhere)
{
	const struct kube_service_port *port = &group->service->ports[wanted->port];
	bool local = resolve_local(group->service, wanted), anywhere = false;
	struct candidate *candidates;
	struct backend *backends;
	size_t n;

	if (collect(group, port, wanted->vip.family, &candidates, &n) < 0)
		return -ENOMEM;
	if (local)
		anywhere = keep_local(candidates, &n);
	backends = calloc(n + 1, sizeof(*backends));
	if (!backends) {
		free(candidates);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		backends[i].endpoint = candidates[i].endpoint;
		backends[i].endpoint.protocol = port->protocol;
		backends[i].weight = 1;
	}
	choose_states(candidates, n, !local, backends);
	free(candidates);
	*ret_backends = backends;
	*ret_n = n;
	*ret_elsewhere = anywhere && !n;
	return 0;
}

static int compare_addresses(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct xlb_address));
}

static bool is_local_ready(const struct kube_endpoint *endpoint)
{
	return endpoint->local && endpoint->fitness == KUBE_READY;
}

int resolve_count_local(const struct group *group, size_t *ret_n)
{
	struct xlb_address *addresses = NULL, *grown;
	size_t n = 0, distinct = 0;

	for (size_t i = 0; i < group->n_sets; i++) {
		for (size_t j = 0; j < group->sets[i]->n_parts; j++) {
			const struct kube_part *part = &group->sets[i]->parts[j];

			grown = reallocarray(addresses, n + part->n_endpoints + 1, sizeof(*grown));
			if (!grown) {
				free(addresses);
				return -ENOMEM;
			}
			addresses = grown;
			for (size_t k = 0; k < part->n_endpoints; k++)
				if (is_local_ready(&part->endpoints[k]))
					addresses[n++] = part->endpoints[k].address;
		}
	}
	if (n)
		qsort(addresses, n, sizeof(*addresses), compare_addresses);
	for (size_t i = 0; i < n; i++)
		distinct += !i || compare_addresses(&addresses[i - 1], &addresses[i]);
	free(addresses);
	*ret_n = distinct;
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
	struct service service = {
		.vip = wanted->vip,
		.owner = options->owner,
	};
	bool elsewhere;
	int r;

	/* Without warnings: resolve_vips() gave them. */
	resolve_options(from, options, wanted->external, NULL, &service);
	resolve_forward(group, wanted, options, &service);
	service_name(from, &from->ports[wanted->port], service.name);
	if (resolve_backends(group, wanted, &service.backends, &service.n_backends, &elsewhere) < 0)
		return -ENOMEM;
	service.backends_allocated = service.n_backends;
	/* Silence, as kube-proxy has it: another node, which the client may be led to, serves. */
	r = elsewhere ? resolve_nobody(&service) : resolve_ranges(from, wanted, &service);
	if (r < 0) {
		free(service.backends);
		return r;
	}
	*ret_service = service;
	return 0;
}
