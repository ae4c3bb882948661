/* SPDX-License-Identifier: GPL-2.0 */
/* Choosing a backend for a new flow: one index into the service's ring. */
#ifndef XLB_CHOOSE_H
#define XLB_CHOOSE_H

#include <xlb/hash.h>

#include "config.h"
#include "maps.h"
#include "packet.h"
#include "service.h"

/* Where a client falls on every ring of that size, on every node with the same seed. */
static __always_inline __u32 ring_hash(const struct xlb_address *client, __be16 port, bool ipv6)
{
	__u64 key0 = cfg.seed * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull;
	__u64 key1 = (key0 ^ key0 >> 29) * 0xbf58476d1ce4e5b9ull;
	__u64 word = ipv6 ? xlb_fold(client, key0, key1) : client->word[0];

	return xlb_mix(word + ((__u64)port << 40), key0, key1) >> 32;
}

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
		slot = (__u64)ring_hash(client, port, ipv6) * size >> 32;
	slot += service->target.ring_offset;
	index = slot / XLB_RING_LINE;
	line = bpf_map_lookup_elem(&rings, &index);
	return line ? line->backend[slot % XLB_RING_LINE] : 0;
}

#endif
