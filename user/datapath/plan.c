// SPDX-License-Identifier: GPL-2.0
/*
 * The first step of a change (see apply.c): what is new, what stays, and what it takes. Nothing
 * that packets can see changes here.
 */
#include <errno.h>
#include <string.h>

#include "datapath/plan.h"

void plan_free(struct plan *plan)
{
	service_free(plan->after);
	free(plan->paths);
	free(plan->fresh);
	free(plan->successors);
	free(plan->ring.slots);
}

/* Ids for new backends; those of retired ones are collected when no other is left. */
int plan_take_ids(struct datapath *dp, struct plan *plan, struct error *err)
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
	for (size_t i = 0; i < plan->after->n_backends; i++) {
		struct backend *backend = &plan->after->backends[i];
		uint32_t old = backend->id;

		if (!plan->fresh[i])
			continue;
		backend->id = id_pool_take(&dp->ids);
		if (old)
			plan->successors[old] = backend->id;
	}
	return 0;
}

/* Whether a backend that is there needs another outer source than its entry has. */
static bool source_changes(struct datapath *dp, const struct plan *plan,
			   const struct backend *known)
{
	uint8_t family = known->endpoint.family;

	if (encap_source_of(plan->before, family) && !encap_source_of(plan->after, family))
		return true;
	return encap_source_stale(dp, plan->after, known);
}

/* Which backends are new, and the ids of the others. */
static int plan_match(struct datapath *dp, struct plan *plan, struct error *err)
{
	size_t n = plan->after->n_backends;
	bool succeed = false;

	plan->fresh = calloc(n + 1, sizeof(*plan->fresh));
	plan->paths = calloc(n + 1, sizeof(*plan->paths));
	if (!plan->fresh || !plan->paths)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		struct backend *backend = &plan->after->backends[i];
		struct backend *known =
			plan->before ? service_find_backend(plan->before, &backend->endpoint) :
				       NULL;

		plan->fresh[i] = !known || source_changes(dp, plan, known);
		succeed |= plan->fresh[i] && known;
		backend->id = known ? known->id : 0;
		backend->endpoint.protocol = plan->after->vip.protocol;
	}
	if (succeed)
		plan->successors = calloc(config_of(dp)->backends, sizeof(*plan->successors));
	if (succeed && !plan->successors)
		return error_set(err, ENOMEM, "out of memory");
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

int plan_ring(struct datapath *dp, struct plan *plan, struct error *err)
{
	struct slot slot = plan->slot;

	/* What a new service's slot holds is what an older one left there. */
	if (!plan->before)
		slot.vip = NULL;
	return ring_change_plan(dp, &slot, plan->after, ring_same(plan->before, plan->after),
				plan->successors, &plan->ring, err);
}

static int plan_path(struct datapath *dp, const struct service *service,
		     const struct backend *backend, struct path *ret_path, struct error *err)
{
	const struct prefix *source = encap_source_of(service, backend->endpoint.family);
	struct path path;
	int r = path_find(dp, &backend->endpoint.address, backend->endpoint.family, &path, err);

	if (!r)
		r = path_check(service, backend, &path, err);
	if (r)
		return r;
	if (source)
		path.source = source->address;
	*ret_path = path;
	return 0;
}

/* Of new backends, and of those that had no route when they were. */
static int plan_paths(struct datapath *dp, struct plan *plan, struct error *err)
{
	bool another_mode = plan->before && plan->before->forward != plan->after->forward;

	for (size_t i = 0; i < plan->after->n_backends; i++) {
		const struct backend *backend = &plan->after->backends[i];
		bool wanted = plan->fresh[i] || !backend_at(dp, backend->id)->ifindex;
		struct path path;
		int r = 0;

		if (wanted || another_mode)
			r = plan_path(dp, plan->after, backend, &path, err);
		if (r)
			return r;
		if (wanted)
			plan->paths[i] = path;
	}
	return 0;
}

void plan_undo(struct datapath *dp, struct plan *plan)
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
	ring_change_undo(dp, &plan->ring);
}

int plan_make(struct datapath *dp, const struct endpoint *vip, const struct service *after,
		     struct plan *plan, struct error *err)
{
	int r;

	plan->before = model_find(dp->model, vip);
	plan->after = service_copy(after);
	if (!plan->after)
		return error_set(err, ENOMEM, "out of memory");
	plan->after->vip = *vip;
	service_sort_backends(plan->after);
	service_sort_ranges(plan->after);
	r = service_check(plan->after, err);
	if (r)
		return r;
	if (plan->before)
		plan->id = plan->before->id;
	else
		r = slot_choose(dp, vip, &plan->id, err);
	if (r)
		return r;
	plan->slot = slot_at(dp, vip->family, plan->id);
	r = plan_match(dp, plan, err);
	if (r)
		return r;
	return plan_paths(dp, plan, err);
}
