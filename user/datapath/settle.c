// SPDX-License-Identifier: GPL-2.0
/*
 * What ends with time. The loads of backends are in loads.c; here it is services whose flows are not all
 * where their rings say (see rings.c).
 *
 * A flow from before a change that was silent for as long as a flow of its protocol may be is over. So
 * when the last change is that long ago, all flows that are elsewhere than the ring says are in the
 * flow table: slots that such flows fall on keep their mark, the others lose it, and the ring from
 * before is given back. Each step is one store, after any of which packets and later writers find
 * something that is right.
 *
 * A service that no packet has come to yet has no flows, wherever its ring said: services mostly get
 * their backends one after the other before they get traffic. Packets that have read the ring of
 * before are counted when they are done, so the counter is believed after a grace period; flows
 * that begin while it is read are in the table, and where the new ring says.
 */
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include <xlb/hash.h>

#include "datapath/internal.h"

/* A service that is due. */
struct due {
	const struct service *service;
	struct slot slot;
	union xlb_service_target target;
	uint32_t *ring;	/* its slots */
	bool *keep;	/* of each slot: a flow is elsewhere. NULL: the service keeps flow state */
	struct due *next;
};

struct settling {
	struct datapath *dp;
	uint32_t now;
	struct due *first;
	struct due **by_key;	/* XLB_SERVICE_KEY() */
};

static void settling_free(struct settling *settling)
{
	struct due *due;

	while ((due = settling->first)) {
		settling->first = due->next;
		free(due->keep);
		free(due);
	}
	free(settling->by_key);
}

bool datapath_unsettled(const struct datapath *dp)
{
	struct service *service;
	size_t cursor = 0;

	/* What another process has written is not known yet. */
	if (__atomic_load_n(&config_of(dp)->generation, __ATOMIC_ACQUIRE) != dp->generation ||
	    loads_matter(dp))
		return true;
	while ((service = model_next(dp->model, &cursor)))
		if (*slot_of(dp, service).moved)
			return true;
	return false;
}

static int due_add(struct settling *settling, const struct service *service, struct error *err)
{
	struct datapath *dp = settling->dp;
	struct due *due = calloc(1, sizeof(*due));

	if (!due)
		return error_set(err, ENOMEM, "out of memory");
	due->next = settling->first;
	settling->first = due;
	due->service = service;
	due->slot = slot_of(dp, service);
	due->target = *due->slot.target;
	due->ring = ring_slots_at(dp, due->target, err);
	if (!due->ring)
		return -errno;
	settling->by_key[service_key(dp, service->vip.family, service->id)] = due;
	if (!due->target.stateless)
		return 0;
	due->keep = calloc(due->target.ring_size + 1ull, sizeof(*due->keep));
	return due->keep ? 0 : error_set(err, ENOMEM, "out of memory");
}

/* Whether no packet was ever forwarded for a service, as far as is counted. */
static bool is_unused(struct datapath *dp, const struct service *service)
{
	struct counters counters;

	return !datapath_service_counters(dp, service, &counters) &&
	       !counters.to_backend.packets && !counters.flows;
}

static bool is_long_ago(const struct settling *settling, const struct service *service)
{
	uint32_t moved = *slot_of(settling->dp, service).moved;
	enum xlb_flow_state longest = service->vip.protocol == XLB_UDP ? XLB_FLOW_STREAM :
									 XLB_FLOW_ESTABLISHED;

	return tick_since(moved, settling->now) > config_of(settling->dp)->timeouts[longest];
}

static int due_collect(struct settling *settling, struct error *err)
{
	struct datapath *dp = settling->dp;
	struct service *service;
	bool waited = false;
	size_t cursor = 0;
	int r = 0;

	settling->by_key = calloc(2 * (size_t)config_of(dp)->services, sizeof(struct due *));
	if (!settling->by_key)
		return error_set(err, ENOMEM, "out of memory");
	while (!r && (service = model_next(dp->model, &cursor))) {
		bool due;

		if (!*slot_of(dp, service).moved)
			continue;
		due = is_long_ago(settling, service);
		if (!due && is_unused(dp, service)) {
			if (!waited)
				quiesce();
			waited = true;
			due = is_unused(dp, service);
		}
		if (due)
			r = due_add(settling, service, err);
	}
	return r;
}

/* Keeps the mark of the slot that a flow falls on, if the ring would send it elsewhere. */
static void flow_look(const struct flow_view *flow, void *data)
{
	const struct settling *settling = data;
	struct datapath *dp = settling->dp;
	struct due *due;
	__be16 port;
	uint32_t slot;

	if (flow->reply || flow->key.service >= config_of(dp)->services)
		return;
	due = settling->by_key[service_key(dp, flow->family, flow->key.service)];
	if (!due || !due->keep || flow_expired(dp, flow->value, settling->now))
		return;
	port = due->target.scheduler == XLB_SCHEDULER_SOURCE ? 0 : flow->key.port;
	slot = (uint64_t)xlb_hash_ring(&flow->client, port, flow->family, config_of(dp)->seed) *
		       due->target.ring_size >> 32;
	if (!due->target.ring_size || (due->ring[slot] & ~XLB_RING_MOVED) != flow->value.backend)
		due->keep[slot] = true;
}

static void due_settle(struct settling *settling, struct due *due)
{
	union xlb_service_target none = {};
	bool left = false;

	for (uint32_t i = 0; due->keep && i < due->target.ring_size; i++) {
		if (due->ring[i] & XLB_RING_MOVED && !due->keep[i])
			__atomic_store_n(&due->ring[i], due->ring[i] & ~XLB_RING_MOVED,
					 __ATOMIC_RELEASE);
		left |= (due->ring[i] & XLB_RING_MOVED) != 0;
	}
	/* Flows of those that take no new ones: the next ring will have to be marked. */
	left |= due->keep && !due->target.ring_size && due->keep[0];
	previous_switch(settling->dp, &due->slot, due->keep ? due->target : none);
	/* What is left is looked at again after as long a time. */
	__atomic_store_n(due->slot.moved, left ? settling->now : 0, __ATOMIC_RELEASE);
}

int datapath_settle(struct datapath *dp, struct error *err)
{
	_cleanup_(settling_free) struct settling settling = { .dp = dp };
	bool scan = false;
	int r;

	if (!dp->locked)
		return error_set(err, EINVAL, "%s: written without the lock", dp->pin_dir);
	if (!datapath_unsettled(dp))
		return 0;
	r = tick_get(dp, &settling.now, err);
	if (!r)
		r = loads_settle(dp, settling.now, err);
	if (!r)
		r = due_collect(&settling, err);
	if (r || !settling.first)
		return r;
	for (struct due *due = settling.first; due; due = due->next)
		scan |= due->keep != NULL;
	if (scan)
		r = flows_each(dp, flow_look, &settling, err);
	if (r)
		return r;
	write_begin(dp);
	for (struct due *due = settling.first; due; due = due->next)
		due_settle(&settling, due);
	write_end(dp);
	return 0;
}

/* ---- under pressure ---- */

bool previous_yield(struct datapath *dp)
{
	struct service *service, *oldest = NULL;
	uint32_t moved = 0;
	size_t cursor = 0;
	struct slot slot;
	union xlb_service_target none = {};

	while ((service = model_next(dp->model, &cursor))) {
		slot = slot_of(dp, service);
		if (!slot.previous->ring_size || ring_shared(*slot.previous, *slot.target))
			continue;
		if (!oldest || tick_since(*slot.moved, moved) < 1u << 30) {
			oldest = service;
			moved = *slot.moved;
		}
	}
	if (!oldest)
		return false;
	slot = slot_of(dp, oldest);
	write_begin(dp);
	/* The marks stay: those flows that were heard of since are in the table. */
	previous_switch(dp, &slot, slot.target->stateless ? *slot.target : none);
	write_end(dp);
	return true;
}

/* ---- ids that go ---- */

/* The ring that is kept for flows from before, if it is one of its own. */
static uint32_t *previous_ring(struct datapath *dp, const struct slot *slot, uint32_t *ret_n,
			       struct error *err)
{
	*ret_n = ring_shared(*slot->previous, *slot->target) ? 0 : slot->previous->ring_size;
	return ring_slots_at(dp, *slot->previous, err);
}

int previous_forget_retired(struct datapath *dp, struct error *err)
{
	struct service *service;
	size_t cursor = 0;

	while ((service = model_next(dp->model, &cursor))) {
		struct slot slot = slot_of(dp, service);
		uint32_t n, *ring = previous_ring(dp, &slot, &n, err);

		if (!ring)
			return -errno;
		for (uint32_t i = 0; i < n; i++) {
			uint32_t id = ring[i] & ~XLB_RING_MOVED;

			if (id < config_of(dp)->backends &&
			    backend_at(dp, id)->state == XLB_BACKEND_RETIRED)
				__atomic_store_n(&ring[i], 0, __ATOMIC_RELEASE);
		}
	}
	return 0;
}

struct succession {
	struct datapath *dp;
	const uint32_t *successors;
};

/*
 * Flows of which there is one copy; the two copies of others could not change at once. What counted for
 * the one counts for the other, before it may be counted off.
 */
static void flow_succeed(const struct flow_view *flow, void *data)
{
	const struct succession *succession = data;
	uint32_t successor = succession->successors[flow->value.backend];
	uint32_t *from = &backend_at(succession->dp, flow->value.backend)->load;
	uint32_t *to = &backend_at(succession->dp, successor)->load;
	union xlb_flow_value renamed;

	if (!successor || flow->value.forward <= XLB_FORWARD_DNAT)
		return;
	__atomic_add_fetch(to, 1, __ATOMIC_ACQ_REL);
	renamed = flow_rename(flow, successor);
	__atomic_sub_fetch(renamed.backend && renamed.counted ? from : to, 1, __ATOMIC_ACQ_REL);
}

/* Clients that are bound to a backend stay with it. */
static int affinity_succeed(struct datapath *dp, const uint32_t *successors, struct error *err)
{
	int fd = dp->maps[MAP_AFFINITY].fd;
	struct xlb_affinity_key key, next;
	struct xlb_affinity bound;
	bool more = !bpf_map_get_next_key(fd, NULL, &next);

	for (uint32_t i = 0; more && i < 2 * map_entries(config_of(dp), MAP_AFFINITY); i++) {
		key = next;
		more = !bpf_map_get_next_key(fd, &key, &next);
		if (bpf_map_lookup_elem(fd, &key, &bound) ||
		    bound.backend >= config_of(dp)->backends || !successors[bound.backend])
			continue;
		bound.backend = successors[bound.backend];
		if (bpf_map_update_elem(fd, &key, &bound, BPF_EXIST) && errno != ENOENT)
			return error_set(err, errno, "affinity: %s", strerror(errno));
	}
	return 0;
}

int backends_succeed(struct datapath *dp, const struct slot *slot, const uint32_t *successors,
		     struct error *err)
{
	struct succession succession = { .dp = dp, .successors = successors };
	uint32_t n, *ring = previous_ring(dp, slot, &n, err);
	int r;

	if (!ring)
		return -errno;
	for (uint32_t i = 0; i < n; i++)
		__atomic_store_n(&ring[i], ring_entry_succeed(dp, ring[i], successors),
				 __ATOMIC_RELEASE);
	/* No packet has the old ids from a ring any more, and begins a flow on one. */
	quiesce();
	r = affinity_succeed(dp, successors, err);
	if (r)
		return r;
	/* Nor from a client's binding; and what such a packet has noted meanwhile follows. */
	quiesce();
	r = affinity_succeed(dp, successors, err);
	return r ? r : flows_each(dp, flow_succeed, &succession, err);
}
