/* SPDX-License-Identifier: GPL-2.0 */
/* Choosing a backend: one index into the service's ring, or two. */
#ifndef XLB_CHOOSE_H
#define XLB_CHOOSE_H

#include <xlb/hash.h>

#include "atomic.h"
#include "config.h"
#include "maps.h"
#include "packet.h"
#include "service.h"

/* Where the packet's client falls on rings. */
static __always_inline __u32 ring_hash(const struct packet *packet, __u8 scheduler, bool ipv6)
{
	__be16 port = scheduler == XLB_SCHEDULER_SOURCE ? 0 : packet->source_port;
	__u64 keys[2] = { ring_keys[0], ring_keys[1] };

	return xlb_hash_client(&packet->source, port, ipv6 ? XLB_IPV6 : XLB_IPV4, keys);
}

/* A fraction of 2^32 as a slot of a service's ring. */
static __always_inline __u32 ring_slot(union xlb_service_target target, __u32 fraction)
{
	return (__u64)fraction * target.ring_size >> 32;
}

/* What stands in a slot: a backend's id, and maybe XLB_RING_MOVED. 0: the ring is broken. */
static __always_inline __u32 ring_read(union xlb_service_target target, __u32 slot)
{
	__u32 index = target.ring_line + slot / XLB_RING_LINE;
	struct xlb_ring_line *line = bpf_map_lookup_elem(&rings, &index);

	return line ? line->backend[slot % XLB_RING_LINE] : 0;
}

/* Whether the client alone says where on the ring a new flow goes. */
static __always_inline bool target_by_client(union xlb_service_target target)
{
	return target.scheduler == XLB_SCHEDULER_MAGLEV ||
	       target.scheduler == XLB_SCHEDULER_SOURCE;
}

/* Where that is. */
static __always_inline __u32 client_slot(const struct packet *packet,
					 union xlb_service_target target, bool ipv6)
{
	return ring_slot(target, ring_hash(packet, target.scheduler, ipv6));
}

/* How many flows came before this one: across CPUs, each number once. */
static __always_inline __u64 rotation_take(__u32 service, bool ipv6)
{
	__u32 index = SERVICE_KEY(ipv6, service);
	struct xlb_rotation *turn = bpf_map_lookup_elem(&rotation, &index);

	return turn ? atomic_take(&turn->placed) : 0;
}

/* Of two backends the one with fewer flows for its weight. */
static __always_inline __u32 choose_lighter(__u32 a, __u32 b)
{
	struct xlb_backend *first = backend_get(a), *second = backend_get(b);

	if (!first || !second)
		return a;
	return (__u64)first->load * second->weight <= (__u64)second->load * first->weight ? a : b;
}

static __always_inline __u32 choose_slot(const struct packet *packet,
					 union xlb_service_target target, __u32 service)
{
	switch (target.scheduler) {
	case XLB_SCHEDULER_RR:
		return rotation_take(service, packet->ipv6) % target.ring_size;
	case XLB_SCHEDULER_LC:
	case XLB_SCHEDULER_RANDOM:
		return ring_slot(target, bpf_get_prandom_u32());
	default:
		return packet->ipv6 ? client_slot(packet, target, true) :
				      client_slot(packet, target, false);
	}
}

/*
 * The id of the backend that takes a new flow of the packet in hand, by a service's target (as a
 * word); 0: the ring is broken or empty.
 */
__weak __noinline __u32 choose(__u64 target_word, __u32 service)
{
	union xlb_service_target target = { .word = target_word };
	struct packet *packet = packet_get();
	__u32 backend;

	if (!target.ring_size || !packet)
		return 0;
	backend = ring_read(target, choose_slot(packet, target, service)) & ~XLB_RING_MOVED;
	if (target.scheduler != XLB_SCHEDULER_LC)
		return backend;
	return choose_lighter(backend, ring_read(target, choose_slot(packet, target, service)) &
					       ~XLB_RING_MOVED);
}

#endif
