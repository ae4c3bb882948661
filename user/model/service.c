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

int service_set_backend(struct service *service, const struct backend *backend)
{
	const struct endpoint *endpoint = &backend->endpoint;
	struct backend *here;

	if (endpoint->family != service->vip.family ||
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

struct service *service_copy(const struct service *service)
{
	struct service *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *service;
	copy->index = NULL;
	copy->backends = NULL;
	copy->backends_allocated = service->n_backends;
	if (!service->n_backends)
		return copy;
	copy->backends = malloc(service->n_backends * sizeof(*copy->backends));
	if (!copy->backends) {
		free(copy);
		return NULL;
	}
	memcpy(copy->backends, service->backends, service->n_backends * sizeof(*copy->backends));
	return copy;
}

void service_free(struct service *service)
{
	if (!service)
		return;
	free(service->backends);
	free(service->index);
	free(service);
}

static bool attributes_differ(const struct service *a, const struct service *b)
{
	return a->forward != b->forward || a->scheduler != b->scheduler || a->owner != b->owner ||
	       strcmp(a->name, b->name);
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
	ret_change->attributes = attributes_differ(before, after);
	backends_diff(before, after, ret_change);
	return ret_change->added || ret_change->removed || ret_change->changed ||
	       ret_change->attributes;
}
