// SPDX-License-Identifier: GPL-2.0
/*
 * One service and its backends. Services of a few backends are searched from end to end; larger
 * ones get an index (endpoint to place) the first time that they are searched, so that building a
 * service of n backends costs O(n). The index goes when places change, and is checked against the
 * array whenever it is used.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/endpoint.h"
#include "model/model.h"

#define INDEX_FROM 32 /* backends, below which no index is made */

struct backend_index {
	size_t n;	  /* backends that are in it */
	size_t size;	  /* of places, a power of two, at least twice n */
	uint32_t place[]; /* in `backends`, plus one; 0: free */
};

static void index_drop(struct service *service)
{
	free(service->index);
	service->index = NULL;
}

static bool backend_is(const struct backend *backend, const struct endpoint *endpoint)
{
	return !endpoint_order(&backend->endpoint, endpoint);
}

/* Backends are told apart by address and port alone. */
static uint64_t backend_hash(const struct endpoint *endpoint)
{
	struct endpoint plain = *endpoint;

	plain.protocol = 0;
	return endpoint_hash(&plain);
}

static void index_put(struct backend_index *index, const struct endpoint *endpoint, uint32_t place)
{
	size_t slot = backend_hash(endpoint) & (index->size - 1);

	while (index->place[slot])
		slot = (slot + 1) & (index->size - 1);
	index->place[slot] = place + 1;
	index->n++;
}

/* The index, made or brought up to date; NULL: there is none (few backends, or no memory). */
static struct backend_index *index_get(struct service *service)
{
	struct backend_index *index = service->index;
	size_t size = 2 * INDEX_FROM;

	if (service->n_backends < INDEX_FROM)
		return NULL;
	if (index && index->n == service->n_backends)
		return index;
	index_drop(service);
	while (size < 4 * service->n_backends)
		size *= 2;
	index = calloc(1, sizeof(*index) + size * sizeof(index->place[0]));
	if (!index)
		return NULL;
	index->size = size;
	for (size_t i = 0; i < service->n_backends; i++)
		index_put(index, &service->backends[i].endpoint, i);
	service->index = index;
	return index;
}

static struct backend *index_find(const struct backend_index *index, const struct service *service,
				  const struct endpoint *endpoint)
{
	size_t slot = backend_hash(endpoint) & (index->size - 1);

	for (; index->place[slot]; slot = (slot + 1) & (index->size - 1)) {
		struct backend *backend = &service->backends[index->place[slot] - 1];

		if (index->place[slot] <= service->n_backends && backend_is(backend, endpoint))
			return backend;
	}
	return NULL;
}

struct backend *service_find_backend(const struct service *service, const struct endpoint *endpoint)
{
	/* The index is a cache: making it changes nothing that can be seen. */
	struct backend_index *index = index_get((struct service *)service);

	if (index)
		return index_find(index, service, endpoint);
	for (size_t i = 0; i < service->n_backends; i++)
		if (backend_is(&service->backends[i], endpoint))
			return &service->backends[i];
	return NULL;
}

static int backends_reserve(struct service *service)
{
	size_t allocated = service->backends_allocated ? 2 * service->backends_allocated : 4;
	struct backend *backends;

	if (service->n_backends < service->backends_allocated)
		return 0;
	backends = reallocarray(service->backends, allocated, sizeof(*backends));
	if (!backends)
		return -ENOMEM;
	service->backends = backends;
	service->backends_allocated = allocated;
	return 0;
}

bool forward_encapsulates(uint8_t forward)
{
	return forward == XLB_FORWARD_IPIP || forward == XLB_FORWARD_GUE;
}

bool forward_crosses_families(uint8_t forward)
{
	return forward == XLB_FORWARD_NAT || forward_encapsulates(forward);
}

bool forward_keeps_port(uint8_t forward)
{
	return forward >= XLB_FORWARD_L2;
}

int service_set_backend(struct service *service, const struct backend *backend)
{
	const struct endpoint *endpoint = &backend->endpoint;
	struct backend *here;

	if ((endpoint->family != service->vip.family &&
	     !forward_crosses_families(service->forward)) ||
	    (endpoint->protocol && endpoint->protocol != service->vip.protocol))
		return -EINVAL;
	here = service_find_backend(service, endpoint);
	if (here) {
		here->weight = backend->weight;
		here->state = backend->state;
		return 0;
	}
	if (backends_reserve(service))
		return -ENOMEM;
	here = &service->backends[service->n_backends];
	*here = *backend;
	here->endpoint.protocol = service->vip.protocol;
	if (service->index && 2 * (service->n_backends + 1) <= service->index->size)
		index_put(service->index, endpoint, service->n_backends);
	service->n_backends++;
	return 0;
}

void service_remove_backend(struct service *service, const struct endpoint *endpoint)
{
	struct backend *here = service_find_backend(service, endpoint);

	if (!here)
		return;
	*here = service->backends[--service->n_backends];
	index_drop(service);
}

static int backend_order(const void *a, const void *b)
{
	return endpoint_order(&((const struct backend *)a)->endpoint,
			      &((const struct backend *)b)->endpoint);
}

void service_sort_backends(struct service *service)
{
	bool sorted = true;

	for (size_t i = 1; i < service->n_backends && sorted; i++)
		sorted = backend_order(&service->backends[i - 1], &service->backends[i]) <= 0;
	if (sorted)
		return;
	qsort(service->backends, service->n_backends, sizeof(*service->backends), backend_order);
	index_drop(service);
}

/* ---- who may come ---- */

static int prefix_order(const void *a, const void *b)
{
	const struct prefix *left = a, *right = b;
	int order = (int)left->family - (int)right->family;

	if (!order)
		order = memcmp(&left->address, &right->address, sizeof(left->address));
	return order ? order : (int)left->length - (int)right->length;
}

bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
	return !prefix_order(a, b);
}

int service_add_range(struct service *service, const struct prefix *range)
{
	struct prefix *ranges = reallocarray(service->ranges, service->n_ranges + 1,
					     sizeof(*ranges));

	if (!ranges)
		return -ENOMEM;
	service->ranges = ranges;
	service->ranges[service->n_ranges++] = *range;
	return 0;
}

void service_clear_ranges(struct service *service)
{
	free(service->ranges);
	service->ranges = NULL;
	service->n_ranges = 0;
}

void service_sort_ranges(struct service *service)
{
	size_t n = 0;

	if (service->n_ranges)
		qsort(service->ranges, service->n_ranges, sizeof(*service->ranges), prefix_order);
	for (size_t i = 0; i < service->n_ranges; i++)
		if (!n || !prefix_equal(&service->ranges[n - 1], &service->ranges[i]))
			service->ranges[n++] = service->ranges[i];
	service->n_ranges = n;
}

bool service_has_range(const struct service *service, const struct prefix *range)
{
	return service->n_ranges && bsearch(range, service->ranges, service->n_ranges,
					    sizeof(*service->ranges), prefix_order);
}

const struct prefix *service_next_range(const struct service *service, size_t *cursor)
{
	while (*cursor < service->n_ranges) {
		const struct prefix *range = &service->ranges[(*cursor)++];

		if (range->family == service->vip.family)
			return range;
	}
	return NULL;
}

/* Both sorted. Ranges of the other family admit nobody, whichever they are. */
static bool ranges_differ(const struct service *a, const struct service *b)
{
	size_t i = 0, j = 0;

	if (!a->n_ranges != !b->n_ranges)
		return true;
	for (;;) {
		const struct prefix *left = service_next_range(a, &i);
		const struct prefix *right = service_next_range(b, &j);

		if (!left || !right)
			return left != right;
		if (!prefix_equal(left, right))
			return true;
	}
}

/* ---- copies and differences ---- */

/* A copy of n elements; NULL also where there are none. */
static void *array_copy(const void *array, size_t n, size_t size)
{
	void *copy = n ? malloc(n * size) : NULL;

	return copy ? memcpy(copy, array, n * size) : NULL;
}

struct service *service_copy(const struct service *service)
{
	struct service *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *service;
	copy->index = NULL;
	copy->backends_allocated = service->n_backends;
	copy->backends = array_copy(service->backends, service->n_backends,
				    sizeof(*copy->backends));
	copy->ranges = array_copy(service->ranges, service->n_ranges, sizeof(*copy->ranges));
	if ((service->n_backends && !copy->backends) || (service->n_ranges && !copy->ranges)) {
		service_free(copy);
		return NULL;
	}
	return copy;
}

void service_free(struct service *service)
{
	if (!service)
		return;
	free(service->backends);
	free(service->ranges);
	free(service->index);
	free(service);
}

uint16_t service_gue_port(const struct service *service)
{
	return service->gue_port ? service->gue_port : GUE_PORT;
}

static bool encap_sources_differ(const struct prefix *a, const struct prefix *b)
{
	return a->family != b->family || (a->family && !prefix_equal(a, b));
}

static bool attributes_differ(const struct service *a, const struct service *b)
{
	return a->forward != b->forward || a->scheduler != b->scheduler || a->owner != b->owner ||
	       strcmp(a->name, b->name) || a->affinity_s != b->affinity_s || a->mss != b->mss ||
	       service_gue_port(a) != service_gue_port(b) ||
	       a->gue_checksum != b->gue_checksum || a->no_echo != b->no_echo ||
	       encap_sources_differ(&a->encap_source, &b->encap_source) || ranges_differ(a, b);
}

/* Both sorted: one pass over the two. */
static void backends_diff(const struct service *before, const struct service *after,
			  struct service_change *change)
{
	size_t i = 0, j = 0;

	while (i < before->n_backends || j < after->n_backends) {
		const struct backend *old = &before->backends[i], *new = &after->backends[j];
		int order = i == before->n_backends ? 1 :
			    j == after->n_backends  ? -1 :
						      backend_order(old, new);

		change->removed += order < 0;
		change->added += order > 0;
		if (!order)
			change->changed += old->weight != new->weight || old->state != new->state;
		i += order <= 0;
		j += order >= 0;
	}
}

bool service_diff(struct service *before, struct service *after, struct service_change *ret_change)
{
	*ret_change = (struct service_change){ .before = before, .after = after };
	if (!before || !after) {
		ret_change->added = after ? after->n_backends : 0;
		ret_change->removed = before ? before->n_backends : 0;
		ret_change->attributes = before != after;
		return before != after;
	}
	service_sort_backends(before);
	service_sort_backends(after);
	service_sort_ranges(before);
	service_sort_ranges(after);
	ret_change->attributes = attributes_differ(before, after);
	backends_diff(before, after, ret_change);
	return ret_change->added || ret_change->removed || ret_change->changed ||
	       ret_change->attributes;
}
