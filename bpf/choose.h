/* SPDX-License-Identifier: GPL-2.0 */
/* Choosing a backend for a new flow: one index into the service's ring. */
#ifndef XLB_CHOOSE_H
#define XLB_CHOOSE_H

#include <xlb/hash.h>

#include "config.h"
#include "maps.h"
#include "packet.h"
#include "service.h"

/* How many flows came before this one: across CPUs, each number once. */
static __always_inline __u64 rotation_take(__u32 service, bool ipv6)
{
	__u32 index = SERVICE_KEY(ipv6, service);
	struct xlb_rotation *turn = bpf_map_lookup_elem(&rotation, &index);

	return turn ? __sync_fetch_and_add(&turn->placed, 1) : 0;
}

/*
 * The id of the backend that takes a new flow; 0: the ring is broken. The ring must not be empty.
 */
static __always_inline __u32 choose(const struct xlb_address *client, __be16 port,
				    const struct service_ref *service, bool ipv6)
{
	__u32 size = service->target.ring_size, slot, index;
	struct xlb_ring_line *line;

	if (service->target.scheduler == XLB_SCHEDULER_RR)
		slot = rotation_take(service->id, ipv6) % size;
	else
		slot = (__u64)xlb_hash_ring(client, port, ipv6 ? XLB_IPV6 : XLB_IPV4, cfg.seed) *
			       size >>
		       32;
	index = service->target.ring_line + slot / XLB_RING_LINE;
	line = bpf_map_lookup_elem(&rings, &index);
	return line ? line->backend[slot % XLB_RING_LINE] : 0;
}

#endif
