// SPDX-License-Identifier: GPL-2.0
/*
 * Making one service be as it should be.
 *
 * In four steps, so that a packet sees the old set or the new one, and a crash leaves what the next
 * writer can finish (repair.c):
 *
 *  plan     compares, and takes ids, ring room and a slot; nothing that can be seen has changed,
 *           and what was taken is given back if something fails
 *  prepare  writes new backends, the new ring and new source ranges where nobody looks yet
 *  switch   one 8-byte store: the new ring and forwarding; for a new service, one more: its VIP
 *  finish   states of those that take no new flows, what went with the old set
 *
 * Generations (of the service, and of the configuration) are odd from before the first write until
 * after the last.
 *
 * Entries of backends that are in use change by single stores only: weight, state, GUE port. The
 * outer source of a tunnel is more than one word (address, mask, sum), so where that changes, the
 * backend goes on under a new id: a packet sees the old entry or the new one, whole. Forwarding is
 * in the service's target and in each flow, and needs no change of entries. Flows in tunnels follow
 * to the new id; those of nat and dnat, which stand in the table twice, do not: they end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <xlb/checksum.h>

#include "datapath/internal.h"
#include "datapath/plan.h"

void write_begin(struct datapath *dp)
{
	struct xlb_config *config = config_of(dp);

	__atomic_store_n(&config->generation, config->generation | 1, __ATOMIC_SEQ_CST);
}

void write_end(struct datapath *dp)
{
	struct xlb_config *config = config_of(dp);

	__atomic_store_n(&config->generation, (config->generation | 1) + 1, __ATOMIC_SEQ_CST);
	dp->generation = config->generation;
}

void service_begin(const struct slot *slot)
{
	__atomic_store_n(slot->generation, *slot->generation | 1, __ATOMIC_SEQ_CST);
}

void service_end(const struct slot *slot)
{
	__atomic_store_n(slot->generation, (*slot->generation | 1) + 1, __ATOMIC_SEQ_CST);
}

/* ---- prepare ---- */

static void backend_write(struct datapath *dp, const struct plan *plan, size_t i)
{
	const struct backend *backend = &plan->after->backends[i];
	const struct prefix *source = encap_source_of(plan->after, backend->endpoint.family);
	struct xlb_backend *entry = backend_at(dp, backend->id);

	/* The id was free: nobody reads it. */
	*entry = (struct xlb_backend){
		.service = plan->id,
		.family = backend->endpoint.family,
		.protocol = plan->after->vip.protocol,
		.vip_family = plan->after->vip.family,
		.weight = backend->weight,
		.port = htons(backend->endpoint.port),
		.vip_port = htons(plan->after->vip.port),
		.tunnel_port = htons(service_gue_port(plan->after)),
		.tunnel_checksum = plan->after->gue_checksum,
		.source_mask = source ? prefix_mask(source) : 0,
		.ifindex = plan->paths[i].ifindex,
		.address = backend->endpoint.address,
		.source = plan->paths[i].source,
		.vip = plan->after->vip.address,
	};
	entry->address_sum = xlb_sum_address(&entry->address);
	entry->source_sum = xlb_sum_address(&entry->source);
	entry->vip_sum = xlb_sum_address(&entry->vip);
}

/* The backend that goes on under the id of one of `after`; NULL: it is a new one. */
static const struct backend *predecessor(const struct plan *plan, size_t i)
{
	if (!plan->successors)
		return NULL;
	return service_find_backend(plan->before, &plan->after->backends[i].endpoint);
}

static int prepare_backends(struct datapath *dp, const struct plan *plan, struct error *err)
{
	const struct backend *backends = plan->after->backends;
	_cleanup_(free_pointer) uint32_t *ids =
		calloc(plan->after->n_backends + 1, sizeof(*ids));
	uint32_t n = 0;

	if (!ids)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < plan->after->n_backends; i++) {
		const struct backend *known;
		int r = 0;

		if (!plan->fresh[i])
			continue;
		backend_write(dp, plan, i);
		known = predecessor(plan, i);
		if (known)
			/* Its load comes with the flows: backends_succeed(). */
			r = backend_stats_inherit(dp, backends[i].id, known->id, err);
		else
			ids[n++] = backends[i].id;
		if (r)
			return r;
	}
	return backend_stats_make(dp, ids, n, err);
}

/* What is in use already, or may be from now on: nothing fails afterwards. */
static void prepare_live(struct datapath *dp, const struct plan *plan, uint64_t *filter)
{
	uint16_t tunnel_port = htons(service_gue_port(plan->after));

	for (size_t i = 0; i < plan->after->n_backends; i++) {
		const struct backend *backend = &plan->after->backends[i];
		struct xlb_backend *entry = backend_at(dp, backend->id);

		if (!plan->fresh[i] && plan->paths[i].ifindex)
			backend_reroute(dp, backend->id, &plan->paths[i]);
		if (replies_pass(plan->after))
			filter_set(dp, filter, &backend->endpoint, plan->after->vip.protocol);
		filter_set_tunnel(dp, filter, plan->after, &backend->endpoint);
		__atomic_store_n(&entry->tunnel_port, tunnel_port, __ATOMIC_RELAXED);
		__atomic_store_n(&entry->tunnel_checksum, plan->after->gue_checksum,
				 __ATOMIC_RELAXED);
		entry->weight = backend->weight;
		/* Those that take no new flows change when the ring has. */
		if (plan->fresh[i] || backend->state == XLB_BACKEND_ACTIVE)
			__atomic_store_n(&entry->state, backend->state, __ATOMIC_RELEASE);
	}
	filter_set(dp, filter, &plan->after->vip, plan->after->vip.protocol);
}

static int prepare_service(struct datapath *dp, const struct plan *plan, struct error *err)
{
	struct xlb_rotation *rotation;
	int r;

	if (plan->before)
		return 0;
	rotation = map_memory(dp, MAP_ROTATION, err);
	if (!rotation)
		return -errno;
	r = service_stats_clear(dp, plan->after->vip.family, plan->id, err);
	if (!r)
		r = service_info_write(dp, NULL, plan->after, plan->id, err);
	if (r)
		return r;
	rotation[service_key(dp, plan->after->vip.family, plan->id)].placed = 0;
	plan->slot.target->word = plan->slot.previous->word = 0;
	*plan->slot.moved = 0;
	return 0;
}

/* Replies have to be caught before the first can come. */
static int prepare_devices(struct datapath *dp, struct plan *plan, struct error *err)
{
	for (; plan->watched < plan->after->n_backends; plan->watched++) {
		int r = device_watch(dp, plan->paths[plan->watched].ifindex, err);

		if (r)
			return r;
	}
	return 0;
}

/*
 * Who may come, what few services have, and what can only be read back from `service_info`: that is
 * written before the switch, so that what a writer leaves that dies is made to be as it says. `vips` too:
 * a service's port is given to no flow.
 */
static int prepare_options(struct datapath *dp, const struct plan *plan, struct error *err)
{
	const struct service *before = plan->before, *after = plan->after;
	int r = ranges_insert(dp, before, after, plan->id, err);

	if (r)
		return r;
	if (before)
		r = service_info_write(dp, before, after, plan->id, err);
	if (!r && (!before || before->no_echo != after->no_echo))
		r = vip_count(dp, before, after, err);
	if (!r)
		return options_write(dp, after, plan->id, err);
	ranges_delete(dp, after, before, plan->id);
	if (before)
		service_info_write(dp, after, before, plan->id, NULL);
	return r;
}

static int plan_prepare(struct datapath *dp, struct plan *plan, struct error *err)
{
	uint64_t *filter = map_memory(dp, MAP_FILTER, err);
	int r;

	if (!filter || !map_memory(dp, MAP_SERVICE_OPTIONS, err))
		return -errno;
	r = prepare_devices(dp, plan, err);
	if (!r)
		r = prepare_service(dp, plan, err);
	if (!r)
		r = prepare_backends(dp, plan, err);
	if (!r)
		r = ring_change_write(dp, &plan->ring, err);
	if (!r)
		r = prepare_options(dp, plan, err);
	if (!r)
		prepare_live(dp, plan, filter);
	return r;
}

/* What a service could not be after all. */
static void prepare_undo(struct datapath *dp, const struct plan *plan)
{
	uint8_t family = plan->after->vip.family;

	if (plan->before)
		return;
	service_info_delete(dp, family, plan->id);
	service_stats_clear(dp, family, plan->id, NULL);
}

/* ---- switch and finish ---- */

void backend_retire(struct datapath *dp, uint32_t id)
{
	struct xlb_backend *entry = backend_at(dp, id);

	__atomic_store_n(&entry->state, XLB_BACKEND_RETIRED, __ATOMIC_RELEASE);
	backend_stats_delete(dp, id);
	device_unwatch(dp, entry->ifindex);
	dp->ids.retired++;
}

static int plan_finish(struct datapath *dp, struct plan *plan, struct error *err)
{
	struct service *before = plan->before, *after = plan->after;
	int r = 0;

	for (size_t i = 0; i < after->n_backends; i++)
		__atomic_store_n(&backend_at(dp, after->backends[i].id)->state,
				 after->backends[i].state, __ATOMIC_RELEASE);
	if (plan->successors)
		r = backends_succeed(dp, &plan->slot, plan->successors, err);
	for (size_t i = 0; before && i < before->n_backends; i++) {
		const struct backend *old = &before->backends[i];
		const struct backend *here = service_find_backend(after, &old->endpoint);

		if (!here || here->id != old->id)
			backend_retire(dp, old->id);
	}
	ranges_delete(dp, before, after, plan->id);
	return r;
}

/* The model becomes what the maps are. */
static void plan_remember(struct datapath *dp, struct plan *plan, struct service *service)
{
	struct service old = *service;

	*service = *plan->after;
	service->id = plan->id;
	dp->by_key[service_key(dp, service->vip.family, plan->id)] = service;
	*plan->after = old;
}

static int plan_carry_out(struct datapath *dp, struct plan *plan, struct service *service,
			  struct error *err)
{
	int r;

	service_begin(&plan->slot);
	r = plan_prepare(dp, plan, err);
	if (r) {
		prepare_undo(dp, plan);
		plan_undo(dp, plan);
		service_end(&plan->slot);
		return r;
	}
	ring_change_switch(dp, &plan->slot, &plan->ring);
	if (!plan->before)
		slot_publish(dp, &plan->after->vip, plan->id);
	r = plan_finish(dp, plan, err);
	service_end(&plan->slot);
	plan_remember(dp, plan, service);
	return r;
}

static int service_apply(struct datapath *dp, const struct endpoint *vip,
			 const struct service *wanted, struct error *err)
{
	_cleanup_(plan_free) struct plan plan = {};
	struct service *service;
	int r = plan_make(dp, vip, wanted, &plan, err);

	if (r)
		return r;
	r = plan_take_ids(dp, &plan, err);
	if (r)
		return r;
	r = plan_ring(dp, &plan, err);
	if (!r && model_ensure(dp->model, vip, &service))
		r = error_set(err, ENOMEM, "out of memory");
	if (r) {
		plan_undo(dp, &plan);
		return r;
	}
	write_begin(dp);
	r = plan_carry_out(dp, &plan, service, err);
	if (r && !dp->by_key[service_key(dp, vip->family, plan.id)])
		model_remove(dp->model, vip);
	devices_tidy(dp);
	write_end(dp);
	return r;
}

static int service_delete(struct datapath *dp, const struct endpoint *vip, struct error *err)
{
	struct service *service = model_find(dp->model, vip);
	char text[ENDPOINT_TEXT_MAX];
	struct slot slot;
	int r;

	if (!service)
		return error_set(err, ENOENT, "%s: no such service", endpoint_format(vip, text));
	slot = slot_at(dp, vip->family, service->id);
	write_begin(dp);
	service_begin(&slot);
	slot_withdraw(dp, vip->family, service->id);
	rings_release(dp, &slot);
	for (size_t i = 0; i < service->n_backends; i++)
		backend_retire(dp, service->backends[i].id);
	ranges_delete(dp, service, NULL, service->id);
	r = vip_count(dp, service, NULL, err);
	service_info_delete(dp, vip->family, service->id);
	service_stats_clear(dp, vip->family, service->id, NULL);
	service_end(&slot);
	dp->by_key[service_key(dp, vip->family, service->id)] = NULL;
	model_remove(dp->model, vip);
	devices_tidy(dp);
	write_end(dp);
	return r;
}

int datapath_apply(struct datapath *dp, const struct endpoint *vip, const struct service *after,
		   struct error *err)
{
	if (!dp->locked)
		return error_set(err, EINVAL, "%s: written without the lock", dp->pin_dir);
	return after ? service_apply(dp, vip, after, err) : service_delete(dp, vip, err);
}
