// SPDX-License-Identifier: GPL-2.0
/*
 * Making one service be as it should be.
 *
 * In four steps, so that a packet sees the old set or the new one, and a crash leaves what the next
 * writer can finish (repair.c):
 *
 *  plan     compares, and takes ids, ring room and a slot; nothing that can be seen has changed,
 *           and what was taken is given back if something fails
 *  prepare  writes new backends and the new ring where nobody looks yet
 *  switch   one 8-byte store: the new ring; for a new service, one more: its VIP
 *  finish   states of those that take no new flows, counters of those that went
 *
 * Generations (of the service, and of the configuration) are odd from before the first write until
 * after the last.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <xlb/checksum.h>

#include "datapath/internal.h"
#include "model/ring.h"

struct plan {
	struct service *before; /* in the model; NULL: a new service */
	struct service *after;	/* our own copy, whose ids are filled in */
	struct path *paths; /* of each backend of `after`: where it is to be written, else zero */
	bool *fresh;	    /* which are new */
	size_t watched;	    /* backends whose devices were told */
	uint32_t id;
	struct slot slot;
	union xlb_service_target target;
	uint32_t *ring; /* NULL: it stays as it is */
};

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

/* ---- plan ---- */

static void plan_free(struct plan *plan)
{
	service_free(plan->after);
	free(plan->paths);
	free(plan->fresh);
	free(plan->ring);
}

static int plan_check(const struct service *service, struct error *err)
{
	char text[ENDPOINT_TEXT_MAX];

	if (service->forward > XLB_FORWARD_DNAT || service->scheduler > XLB_SCHEDULER_RR)
		return error_set(err, EINVAL, "%s: forwarding or scheduler out of range",
				 endpoint_format(&service->vip, text));
	for (size_t i = 0; i < service->n_backends; i++) {
		const struct backend *backend = &service->backends[i];

		if (backend->endpoint.family == service->vip.family && backend->endpoint.port &&
		    backend->state >= XLB_BACKEND_ACTIVE && backend->state <= XLB_BACKEND_DOWN)
			continue;
		return error_set(err, EINVAL, "%s: not a backend that this service can have",
				 endpoint_format_backend(&backend->endpoint, text));
	}
	return 0;
}

/* Ids for new backends; those of retired ones are collected when no other is left. */
static int plan_take_ids(struct datapath *dp, struct plan *plan, struct error *err)
{
	size_t wanted = 0;
	int r = 0;

	for (size_t i = 0; i < plan->after->n_backends; i++)
		wanted += plan->fresh[i];
	if (wanted > dp->ids.n && dp->ids.retired)
		r = reclaim(dp, err);
	if (r)
		return r;
	if (wanted > dp->ids.n)
		return error_set(
			err, ENOSPC,
			"the map backends is full (%u); `lbctl detach --all`, then attach with a larger --max-backends",
			config_of(dp)->backends - 1);
	for (size_t i = 0; i < plan->after->n_backends; i++)
		if (plan->fresh[i])
			plan->after->backends[i].id = id_pool_take(&dp->ids);
	return 0;
}

/* Which backends are new, and the ids of the others. */
static int plan_match(struct plan *plan, struct error *err)
{
	size_t n = plan->after->n_backends;

	plan->fresh = calloc(n + 1, sizeof(*plan->fresh));
	plan->paths = calloc(n + 1, sizeof(*plan->paths));
	if (!plan->fresh || !plan->paths)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		struct backend *backend = &plan->after->backends[i];
		struct backend *known =
			plan->before ? service_find_backend(plan->before, &backend->endpoint) :
				       NULL;

		plan->fresh[i] = !known;
		backend->id = known ? known->id : 0;
		backend->endpoint.protocol = plan->after->vip.protocol;
	}
	return 0;
}

static bool takes_flows(const struct backend *backend)
{
	return backend->state == XLB_BACKEND_ACTIVE && backend->weight;
}

/* Whether the same backends take new flows in the same way as before. */
static bool ring_same(const struct service *before, const struct service *after)
{
	size_t i = 0, j = 0;

	if (!before || before->scheduler != after->scheduler)
		return false;
	for (;;) {
		while (i < before->n_backends && !takes_flows(&before->backends[i]))
			i++;
		while (j < after->n_backends && !takes_flows(&after->backends[j]))
			j++;
		if (i == before->n_backends || j == after->n_backends)
			return i == before->n_backends && j == after->n_backends;
		if (before->backends[i].id != after->backends[j].id ||
		    before->backends[i].weight != after->backends[j].weight)
			return false;
		i++;
		j++;
	}
}

uint32_t ring_lines_of(union xlb_service_target target)
{
	return (target.ring_size + XLB_RING_LINE - 1) / XLB_RING_LINE;
}

static int ring_take_room(struct datapath *dp, uint32_t slots, uint32_t *ret_line,
			  struct error *err)
{
	uint32_t lines = (slots + XLB_RING_LINE - 1) / XLB_RING_LINE, line = 0;
	int r = lines ? extent_pool_take(&dp->ring_lines, lines, &line) : 0;

	if (r == -ENOSPC && dp->ring_lines.limbo.n) {
		quiesce();
		r = extent_pool_settle(&dp->ring_lines);
		if (!r)
			r = extent_pool_take(&dp->ring_lines, lines, &line);
	}
	if (r == -ENOSPC)
		return error_set(
			err, ENOSPC,
			"the map rings has no room for %u slots; `lbctl detach --all`, then attach with a larger --max-backends (now %u)",
			slots, config_of(dp)->backends);
	if (r)
		return error_set(err, -r, "out of memory");
	*ret_line = line;
	return 0;
}

/* Fills *ret_ring and takes room for it; the target names it. */
static int ring_plan(struct datapath *dp, const struct service *service,
		     union xlb_service_target *ret_target, uint32_t **ret_ring, struct error *err)
{
	_cleanup_(free_pointer) uint32_t *ring = NULL;
	uint32_t slots = 0, line = 0;
	int r = ring_size(service, &slots, err);

	if (r)
		return r;
	ring = malloc((slots + 1) * sizeof(*ring));
	if (!ring)
		return error_set(err, ENOMEM, "out of memory");
	r = ring_fill(service, config_of(dp)->seed, ring, slots, err);
	if (r)
		return r;
	r = ring_take_room(dp, slots, &line, err);
	if (r)
		return r;
	*ret_target = (union xlb_service_target){
		.ring_line = line,
		.ring_size = slots,
		.scheduler = service->scheduler,
		.forward = service->forward,
	};
	*ret_ring = steal_pointer(&ring);
	return 0;
}

static int plan_ring(struct datapath *dp, struct plan *plan, struct error *err)
{
	if (!ring_same(plan->before, plan->after))
		return ring_plan(dp, plan->after, &plan->target, &plan->ring, err);
	plan->target.word = plan->slot.target->word;
	plan->target.forward = plan->after->forward;
	return 0;
}

/* Of new backends, and of those that had no route when they were. */
static int plan_paths(struct datapath *dp, struct plan *plan, struct error *err)
{
	for (size_t i = 0; i < plan->after->n_backends; i++) {
		const struct backend *backend = &plan->after->backends[i];
		int r = 0;

		if (plan->fresh[i] || !backend_at(dp, backend->id)->ifindex)
			r = path_find(dp, &backend->endpoint.address, backend->endpoint.family,
				      &plan->paths[i], err);
		if (r)
			return r;
	}
	return 0;
}

static void plan_undo(struct datapath *dp, struct plan *plan)
{
	for (size_t i = 0; i < plan->watched; i++)
		if (plan->fresh[i])
			device_unwatch(dp, plan->paths[i].ifindex);
	for (size_t i = 0; i < plan->after->n_backends; i++) {
		uint32_t id = plan->after->backends[i].id;

		if (!plan->fresh[i] || !id)
			continue;
		__atomic_store_n(&backend_at(dp, id)->state, XLB_BACKEND_FREE, __ATOMIC_RELEASE);
		backend_stats_delete(dp, id);
		id_pool_put(&dp->ids, id);
	}
	if (plan->ring)
		extent_pool_put(&dp->ring_lines, plan->target.ring_line,
				ring_lines_of(plan->target));
}

static int plan_make(struct datapath *dp, const struct endpoint *vip, const struct service *after,
		     struct plan *plan, struct error *err)
{
	int r;

	plan->before = model_find(dp->model, vip);
	plan->after = service_copy(after);
	if (!plan->after)
		return error_set(err, ENOMEM, "out of memory");
	plan->after->vip = *vip;
	service_sort_backends(plan->after);
	r = plan_check(plan->after, err);
	if (r)
		return r;
	if (plan->before)
		plan->id = plan->before->id;
	else
		r = slot_choose(dp, vip, &plan->id, err);
	if (r)
		return r;
	plan->slot = slot_at(dp, vip->family, plan->id);
	r = plan_match(plan, err);
	if (r)
		return r;
	return plan_paths(dp, plan, err);
}

/* ---- prepare ---- */

static void backend_write(struct datapath *dp, const struct plan *plan, size_t i)
{
	const struct backend *backend = &plan->after->backends[i];
	struct xlb_backend *entry = backend_at(dp, backend->id);

	/* The id was free: nobody reads it. */
	*entry = (struct xlb_backend){
		.service = plan->id,
		.family = backend->endpoint.family,
		.protocol = plan->after->vip.protocol,
		.weight = backend->weight,
		.port = htons(backend->endpoint.port),
		.vip_port = htons(plan->after->vip.port),
		.ifindex = plan->paths[i].ifindex,
		.address = backend->endpoint.address,
		.source = plan->paths[i].source,
		.vip = plan->after->vip.address,
	};
	entry->address_sum = xlb_sum_address(&entry->address);
	entry->source_sum = xlb_sum_address(&entry->source);
	entry->vip_sum = xlb_sum_address(&entry->vip);
}

static int prepare_backends(struct datapath *dp, const struct plan *plan, uint64_t *filter,
			    struct error *err)
{
	for (size_t i = 0; i < plan->after->n_backends; i++) {
		const struct backend *backend = &plan->after->backends[i];
		struct xlb_backend *entry = backend_at(dp, backend->id);
		int r;

		if (plan->fresh[i]) {
			backend_write(dp, plan, i);
			r = backend_stats_make(dp, backend->id, err);
			if (r)
				return r;
			filter_set(dp, filter, &backend->endpoint, plan->after->vip.protocol);
		} else if (plan->paths[i].ifindex) {
			backend_reroute(dp, backend->id, &plan->paths[i]);
		}
		entry->weight = backend->weight;
		/* Those that take no new flows change when the ring has. */
		if (plan->fresh[i] || backend->state == XLB_BACKEND_ACTIVE)
			__atomic_store_n(&entry->state, backend->state, __ATOMIC_RELEASE);
	}
	return 0;
}

static int ring_write(struct datapath *dp, union xlb_service_target target, const uint32_t *ring,
		      struct error *err)
{
	uint32_t *slots = map_memory(dp, MAP_RINGS, err);

	if (!slots)
		return -errno;
	memcpy(slots + (size_t)target.ring_line * XLB_RING_LINE, ring, target.ring_size * sizeof(*ring));
	return 0;
}

static int prepare_service(struct datapath *dp, const struct plan *plan, uint64_t *filter,
			   struct error *err)
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
		r = service_info_write(dp, plan->after, plan->id, err);
	if (r)
		return r;
	rotation[service_key(dp, plan->after->vip.family, plan->id)].placed = 0;
	filter_set(dp, filter, &plan->after->vip, plan->after->vip.protocol);
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

static int plan_prepare(struct datapath *dp, struct plan *plan, struct error *err)
{
	uint64_t *filter = map_memory(dp, MAP_FILTER, err);
	int r;

	if (!filter)
		return -errno;
	r = prepare_devices(dp, plan, err);
	if (!r)
		r = prepare_service(dp, plan, filter, err);
	if (!r)
		r = prepare_backends(dp, plan, filter, err);
	if (!r && plan->ring)
		r = ring_write(dp, plan->target, plan->ring, err);
	return r;
}

/* A new service that came to nothing. */
static void prepare_undo(struct datapath *dp, const struct plan *plan)
{
	uint8_t family = plan->after->vip.family;

	if (plan->before)
		return;
	service_info_delete(dp, family, plan->id);
	service_stats_clear(dp, family, plan->id, NULL);
}

/* ---- switch and finish ---- */

static void ring_switch(struct datapath *dp, const struct slot *slot,
			union xlb_service_target target, bool new_ring)
{
	union xlb_service_target old = { .word = slot->target->word };

	__atomic_store_n(&slot->target->word, target.word, __ATOMIC_RELEASE);
	if (new_ring)
		extent_pool_put(&dp->ring_lines, old.ring_line,
				ring_lines_of(old));
}

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

	for (size_t i = 0; i < after->n_backends; i++)
		__atomic_store_n(&backend_at(dp, after->backends[i].id)->state,
				 after->backends[i].state, __ATOMIC_RELEASE);
	for (size_t i = 0; before && i < before->n_backends; i++)
		if (!service_find_backend(after, &before->backends[i].endpoint))
			backend_retire(dp, before->backends[i].id);
	if (before && (before->owner != after->owner || strcmp(before->name, after->name)))
		return service_info_write(dp, after, plan->id, err);
	return 0;
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
	/* What a new service's slot holds is what an older one left there, not a ring in use. */
	if (!plan->before)
		plan->slot.target->word = 0;
	ring_switch(dp, &plan->slot, plan->target, plan->ring);
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
	union xlb_service_target old;
	struct slot slot;

	if (!service)
		return error_set(err, ENOENT, "%s: no such service", endpoint_format(vip, text));
	slot = slot_at(dp, vip->family, service->id);
	write_begin(dp);
	service_begin(&slot);
	slot_withdraw(dp, vip->family, service->id);
	old.word = slot.target->word;
	extent_pool_put(&dp->ring_lines, old.ring_line, ring_lines_of(old));
	for (size_t i = 0; i < service->n_backends; i++)
		backend_retire(dp, service->backends[i].id);
	service_info_delete(dp, vip->family, service->id);
	service_stats_clear(dp, vip->family, service->id, NULL);
	service_end(&slot);
	dp->by_key[service_key(dp, vip->family, service->id)] = NULL;
	model_remove(dp->model, vip);
	devices_tidy(dp);
	write_end(dp);
	return 0;
}

int datapath_apply(struct datapath *dp, const struct endpoint *vip, const struct service *after,
		   struct error *err)
{
	if (!dp->locked)
		return error_set(err, EINVAL, "%s: written without the lock", dp->pin_dir);
	return after ? service_apply(dp, vip, after, err) : service_delete(dp, vip, err);
}

int ring_rebuild(struct datapath *dp, struct service *service, struct error *err)
{
	_cleanup_(free_pointer) uint32_t *ring = NULL;
	struct slot slot = slot_at(dp, service->vip.family, service->id);
	union xlb_service_target target;
	int r = ring_plan(dp, service, &target, &ring, err);

	if (r)
		return r;
	r = ring_write(dp, target, ring, err);
	if (!r)
		ring_switch(dp, &slot, target, true);
	return r;
}
