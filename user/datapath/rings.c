// SPDX-License-Identifier: GPL-2.0
/*
 * From a service's backends to the ring that packets see.
 *
 * A new ring is written to a free range of `rings`, then one store of the service's target switches
 * to it. The old range is given back; it is used again only after an RCU grace period.
 *
 * Services without flow state (`stateless`) need more: packets in the middle of a connection must
 * not change backends because the ring did. Just Enough Tracking (Mendelson et al., CoNEXT 2021):
 * slots of the new ring that name another backend than before have XLB_RING_MOVED. Packets that
 * fall on one go by the flow table; those of no flow there that do not begin one go by the ring
 * from before, `previous`, and are in the table from then on. All other packets never see any of
 * this. While `moved` is not 0, there are flows elsewhere than the ring says; settle.c ends that.
 *
 * `previous` is what the service did when its flows were last all where its ring said:
 *
 *	stateless, settled	the same as `target`
 *	stateless, not settled	an older target. Its ring is kept
 *	with flow state		0, or while not settled the target that it had when it was stateless
 *
 * So when a target is switched, `previous` is right already, and that one store is all: there is no
 * moment, on any machine, at which a packet could see the new target and not the ring from before.
 * Packets that have read the old target go by the old ring, whose slots are not given to another
 * ring while they run, or, on a slot with the mark, by the table and by the same `previous`.
 *
 * The other stores, and why a packet (or a crash) between them does no harm:
 *  - `moved` before the target. It only says until when UDP packets of unknown flows go by
 *    `previous`; early, it is that of a change before. A crash leaves a service that seems not
 *    settled; settling finds no mark, and says so
 *  - where nothing has moved, `previous` after the target. It is not read as long as no slot has a
 *    mark; and the older target that it still is has all flows where the new one has them
 */
#include <errno.h>
#include <string.h>

#include "datapath/internal.h"
#include "model/ring.h"

uint32_t ring_lines_of(union xlb_service_target target)
{
	return (target.ring_size + XLB_RING_LINE - 1) / XLB_RING_LINE;
}

bool ring_shared(union xlb_service_target a, union xlb_service_target b)
{
	return a.ring_size && b.ring_size && a.ring_line == b.ring_line;
}

uint32_t *ring_slots_at(struct datapath *dp, union xlb_service_target target, struct error *err)
{
	uint32_t *slots = map_memory(dp, MAP_RINGS, err);

	return slots ? slots + (size_t)target.ring_line * XLB_RING_LINE : NULL;
}

/* ---- room ---- */

static int room_find(struct datapath *dp, uint32_t lines, uint32_t *ret_line)
{
	int r = extent_pool_take(&dp->ring_lines, lines, ret_line);

	if (r != -ENOSPC || !dp->ring_lines.limbo.n)
		return r;
	quiesce();
	r = extent_pool_settle(&dp->ring_lines);
	return r ? r : extent_pool_take(&dp->ring_lines, lines, ret_line);
}

/* New endpoints matter more than flows that were silent since the last ones came. */
static int room_take(struct datapath *dp, uint32_t slots, uint32_t *ret_line, struct error *err)
{
	uint32_t lines = (slots + XLB_RING_LINE - 1) / XLB_RING_LINE, line = 0;
	int r = lines ? room_find(dp, lines, &line) : 0;

	while (r == -ENOSPC && previous_yield(dp))
		r = room_find(dp, lines, &line);
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

static void room_give(struct datapath *dp, union xlb_service_target target)
{
	extent_pool_put(&dp->ring_lines, target.ring_line, ring_lines_of(target));
}

void rings_release(struct datapath *dp, const struct slot *slot)
{
	if (!ring_shared(*slot->previous, *slot->target))
		room_give(dp, *slot->previous);
	room_give(dp, *slot->target);
}

void previous_switch(struct datapath *dp, const struct slot *slot,
		     union xlb_service_target previous)
{
	union xlb_service_target old = *slot->previous;

	__atomic_store_n(&slot->previous->word, previous.word, __ATOMIC_RELEASE);
	if (!ring_shared(old, previous) && !ring_shared(old, *slot->target))
		room_give(dp, old);
}

/* ---- plan ---- */

/* Whether backend and forwarding of every packet follow from the packet and the ring. */
static bool is_stateless(const struct service *service)
{
	return service->forward >= XLB_FORWARD_L2 && !service->affinity_s &&
	       (service->scheduler == XLB_SCHEDULER_MAGLEV ||
		service->scheduler == XLB_SCHEDULER_SOURCE);
}

static union xlb_service_target target_of(const struct datapath *dp, const struct service *service)
{
	struct xlb_service_options options = options_of(dp, service);

	return (union xlb_service_target){
		.scheduler = service->scheduler,
		.forward = service->forward,
		.stateless = is_stateless(service),
		.ranges = service->n_ranges != 0,
		.options = options.affinity || options.mss,
	};
}

uint32_t ring_entry_succeed(const struct datapath *dp, uint32_t entry, const uint32_t *successors)
{
	uint32_t id = entry & ~XLB_RING_MOVED;

	if (id >= config_of(dp)->backends || !successors[id])
		return entry;
	return successors[id] | (entry & XLB_RING_MOVED);
}

/* The old ring with the ids under which its backends go on. */
static uint32_t *ring_translate(const struct datapath *dp, const uint32_t *slots, uint32_t n,
				const uint32_t *successors)
{
	uint32_t *copy = malloc((n + 1ull) * sizeof(*copy));

	for (uint32_t i = 0; copy && i < n; i++)
		copy[i] = ring_entry_succeed(dp, slots[i], successors);
	return copy;
}

/* Marks what moved since the ring that is in force; -ENOMEM. */
static int marks_make(struct datapath *dp, const struct slot *slot, const uint32_t *successors,
		      struct ring_change *change, struct error *err)
{
	_cleanup_(free_pointer) uint32_t *translated = NULL;
	union xlb_service_target old = *slot->target;
	/* Another hash, or none: flows may be anywhere. */
	bool comparable = old.stateless && old.scheduler == change->target.scheduler;
	uint32_t n = comparable ? old.ring_size : 0;
	const uint32_t *slots = ring_slots_at(dp, old, err);

	if (!slots)
		return -errno;
	/* Nobody took flows, and none are left from when somebody did. */
	if (old.stateless && !old.ring_size && !*slot->moved)
		return 0;
	if (successors && n) {
		slots = translated = ring_translate(dp, slots, n, successors);
		if (!slots)
			return error_set(err, ENOMEM, "out of memory");
	}
	if (ring_mark_moved(slots, n, change->slots, change->target.ring_size))
		change->moves = true;
	/* With nobody left, flows may still go on where they are. */
	if (!old.stateless || (old.ring_size && !change->target.ring_size))
		change->moves = true;
	return 0;
}

/* What the change does to flows that are in no table. */
static int moves_find(struct datapath *dp, const struct slot *slot, const uint32_t *successors,
		      struct ring_change *change, struct error *err)
{
	union xlb_service_target old = *slot->target;
	int r = 0;

	if (change->target.stateless && change->slots)
		r = marks_make(dp, slot, successors, change, err);
	else if (!change->target.stateless && old.stateless)
		change->moves = old.ring_size || *slot->moved;
	if (!r && change->moves)
		r = tick_get(dp, &change->now, err);
	if (r)
		return r;
	/* A new ring of a service without state tells by its marks what was there before. */
	change->unsettled = change->moves ||
			    (*slot->moved && !(change->target.stateless && change->slots &&
					       old.stateless && change->target.ring_size));
	return 0;
}

static int slots_fill(struct datapath *dp, const struct service *service,
		      struct ring_change *change, struct error *err)
{
	uint32_t slots = 0, line = 0;
	int r = ring_size(service, &slots, err);

	if (r)
		return r;
	change->slots = malloc((slots + 1ull) * sizeof(*change->slots));
	if (!change->slots)
		return error_set(err, ENOMEM, "out of memory");
	r = ring_fill(service, config_of(dp)->seed, change->slots, slots, err);
	if (!r)
		r = room_take(dp, slots, &line, err);
	if (r)
		return r;
	change->target.ring_line = line;
	change->target.ring_size = slots;
	return 0;
}

int ring_change_plan(struct datapath *dp, const struct slot *slot, const struct service *service,
		     bool keep, const uint32_t *successors, struct ring_change *ret_change,
		     struct error *err)
{
	struct ring_change change = { .target = target_of(dp, service) };
	int r = 0;

	/* Flows that are in the table would be passed by on slots without a mark. */
	if (keep && change.target.stateless && !slot->target->stateless)
		keep = false;
	if (keep) {
		change.target.ring_line = slot->target->ring_line;
		change.target.ring_size = slot->target->ring_size;
	} else {
		r = slots_fill(dp, service, &change, err);
	}
	if (!r && slot->vip)
		r = moves_find(dp, slot, successors, &change, err);
	if (r) {
		ring_change_undo(dp, &change);
		return r;
	}
	*ret_change = change;
	return 0;
}

void ring_change_undo(struct datapath *dp, struct ring_change *change)
{
	if (change->slots)
		room_give(dp, change->target);
	free(change->slots);
	change->slots = NULL;
}

/* ---- carry out ---- */

int ring_change_write(struct datapath *dp, const struct ring_change *change, struct error *err)
{
	uint32_t *slots = ring_slots_at(dp, change->target, err);

	if (!slots)
		return -errno;
	if (change->slots)
		memcpy(slots, change->slots, change->target.ring_size * sizeof(*slots));
	return 0;
}

void ring_change_switch(struct datapath *dp, const struct slot *slot,
			const struct ring_change *change)
{
	union xlb_service_target old = *slot->target, none = {};

	if (change->moves)
		__atomic_store_n(slot->moved, change->now, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->target->word, change->target.word, __ATOMIC_RELEASE);
	if (!ring_shared(old, change->target) && !ring_shared(old, *slot->previous))
		room_give(dp, old);
	if (change->unsettled)
		return;
	previous_switch(dp, slot, change->target.stateless ? change->target : none);
	__atomic_store_n(slot->moved, 0, __ATOMIC_RELEASE);
}

int ring_rebuild(struct datapath *dp, struct service *service, struct error *err)
{
	struct slot slot = slot_of(dp, service);
	struct ring_change change;
	int r = ring_change_plan(dp, &slot, service, false, NULL, &change, err);

	if (r)
		return r;
	r = ring_change_write(dp, &change, err);
	if (r) {
		ring_change_undo(dp, &change);
		return r;
	}
	ring_change_switch(dp, &slot, &change);
	free(change.slots);
	return 0;
}
