// SPDX-License-Identifier: GPL-2.0
/*
 * Finishing what a writer left that died.
 *
 * An odd generation of the configuration says that there is something; an odd generation of a
 * service says where. Forwarding worked all the while: the store that switches a service is one,
 * and everything before it was written aside. What may be left is, for a service that is there,
 * backends of both sets (they are all kept: whoever applies next takes away what should not be
 * there), and for one that is not, entries that hang in the air.
 */
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "datapath/internal.h"

static bool backend_serves(const struct xlb_backend *entry)
{
	return entry->state != XLB_BACKEND_FREE && entry->state != XLB_BACKEND_RETIRED;
}

/* Whom the model knows at an entry's endpoint, under this id or another; NULL: nobody. */
static const struct backend *backend_known(const struct datapath *dp,
					   const struct xlb_backend *entry)
{
	const struct service *service = backend_owner(dp, entry);
	struct endpoint endpoint;

	backend_endpoint(entry, &endpoint);
	return service ? service_find_backend(service, &endpoint) : NULL;
}

/* The ring in force names nobody else, also where there is no room for another; flows follow. */
static int doubles_end(struct datapath *dp, const struct service *service,
		       const uint32_t *successors, struct error *err)
{
	struct slot slot = slot_of(dp, service);
	uint32_t *ring = ring_slots_at(dp, *slot.target, err);

	if (!ring)
		return -errno;
	for (uint32_t i = 0; i < slot.target->ring_size; i++)
		__atomic_store_n(&ring[i], ring_entry_succeed(dp, ring[i], successors),
				 __ATOMIC_RELEASE);
	return backends_succeed(dp, &slot, successors, err);
}

/*
 * Of backends that are there twice, under the ids of before and after a change, flows go on under the id
 * that the model knows, as the change would have had it.
 */
static int doubles_succeed(struct datapath *dp, struct error *err)
{
	const struct xlb_config *config = config_of(dp);
	_cleanup_(free_pointer) uint32_t *successors = calloc(config->backends, sizeof(*successors));
	_cleanup_(free_pointer) bool *has_doubles = calloc(2 * (size_t)config->services,
							   sizeof(*has_doubles));
	struct service *service;
	size_t cursor = 0;
	int r = 0;

	if (!successors || !has_doubles)
		return error_set(err, ENOMEM, "out of memory");
	for (uint32_t id = 1; id < config->backends; id++) {
		const struct xlb_backend *entry = backend_at(dp, id);
		const struct backend *known = backend_serves(entry) ? backend_known(dp, entry) : NULL;

		if (!known || known->id == id)
			continue;
		successors[id] = known->id;
		has_doubles[service_key(dp, entry->vip_family, entry->service)] = true;
	}
	while (!r && (service = model_next(dp->model, &cursor)))
		if (has_doubles[service_key(dp, service->vip.family, service->id)])
			r = doubles_end(dp, service, successors, err);
	return r;
}

/*
 * Backends that the model does not know under their id: of a service that is gone, or written
 * twice.
 */
static void orphans_retire(struct datapath *dp)
{
	for (uint32_t id = 1; id < config_of(dp)->backends; id++) {
		struct xlb_backend *entry = backend_at(dp, id);
		const struct backend *known;

		if (!backend_serves(entry))
			continue;
		known = backend_known(dp, entry);
		if (!known || known->id != id)
			__atomic_store_n(&entry->state, XLB_BACKEND_RETIRED, __ATOMIC_RELEASE);
	}
}

/* Counters that belong to nobody go; backends without counters get them. */
static int backend_stats_mend(struct datapath *dp, struct error *err)
{
	_cleanup_(free_pointer) bool *there = calloc(config_of(dp)->backends, sizeof(*there));
	int fd = dp->maps[MAP_BACKEND_STATS].fd, r = 0;
	uint32_t key, next;
	bool more;

	if (!there)
		return error_set(err, ENOMEM, "out of memory");
	more = !bpf_map_get_next_key(fd, NULL, &key);
	while (more) {
		/* The next before this one goes: the walk would start over. */
		more = !bpf_map_get_next_key(fd, &key, &next);
		if (key < config_of(dp)->backends && backend_serves(backend_at(dp, key)))
			there[key] = true;
		else
			backend_stats_delete(dp, key);
		key = next;
	}
	for (uint32_t id = 1; !r && id < config_of(dp)->backends; id++)
		if (!there[id] && backend_serves(backend_at(dp, id)))
			r = backend_stats_make(dp, &id, 1, err);
	return r;
}

static int service_mend(struct datapath *dp, uint8_t family, uint32_t id, struct error *err)
{
	struct slot slot = slot_at(dp, family, id);
	struct service *service = dp->by_key[service_key(dp, family, id)];
	uint64_t *filter = map_memory(dp, MAP_FILTER, err);
	int r = 0;

	if (!filter)
		return -errno;
	if (!(__atomic_load_n(slot.generation, __ATOMIC_ACQUIRE) & 1))
		return 0;
	if (service) {
		filter_set(dp, filter, &service->vip, service->vip.protocol);
		for (size_t i = 0; i < service->n_backends; i++) {
			filter_set(dp, filter, &service->backends[i].endpoint,
				   service->vip.protocol);
			filter_set_tunnel(dp, filter, service, &service->backends[i].endpoint);
		}
		r = options_write(dp, service, id, err);
	}
	if (r)
		return r;
	if (service) {
		r = ring_rebuild(dp, service, err);
		/* No room for another: all in the one in force serve, and its next change replaces it. */
		if (r == -ENOSPC)
			r = 0;
	} else {
		service_info_delete(dp, family, id);
		service_stats_clear(dp, family, id, NULL);
	}
	if (!r)
		service_end(&slot);
	return r;
}

/* Outer sources that were not yet what their services want: those change as at any other time. */
static int sources_mend(struct datapath *dp, struct error *err)
{
	struct service *service;
	size_t cursor = 0;
	int r = 0;

	while (!r && (service = model_next(dp->model, &cursor))) {
		bool stale = false;

		for (size_t i = 0; i < service->n_backends; i++)
			stale |= encap_source_stale(dp, service, &service->backends[i]);
		if (stale)
			r = datapath_apply(dp, &service->vip, service, err);
	}
	return r;
}

int repair(struct datapath *dp, struct error *err)
{
	int r = state_load(dp, err);

	if (r)
		return r;
	r = doubles_succeed(dp, err);
	if (r)
		return r;
	orphans_retire(dp);
	r = backend_stats_mend(dp, err);
	if (!r)
		r = ranges_mend(dp, err);
	if (!r)
		r = vips_mend(dp, err);
	for (uint32_t id = 0; !r && id < config_of(dp)->services; id++) {
		r = service_mend(dp, XLB_IPV4, id, err);
		if (!r)
			r = service_mend(dp, XLB_IPV6, id, err);
	}
	if (r)
		return r;
	write_end(dp);
	r = state_load(dp, err);
	return r ? r : sources_mend(dp, err);
}
