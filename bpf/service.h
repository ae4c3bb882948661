/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Finding the service that a packet is for.
 *
 * Open addressing in an array: one load for most packets that are not ours, and no helper call into
 * a hash map. IPv4 compares a VIP as one word; IPv6 compares the tail first, then the address.
 */
#ifndef XLB_SERVICE_H
#define XLB_SERVICE_H

#include <xlb/hash.h>

#include "config.h"
#include "maps.h"
#include "packet.h"

struct service_ref {
	union xlb_service_target target;
	__u32 id;
};

static __always_inline bool service_find4(__be32 address, __be16 port, __u8 protocol,
					  const __u64 *secret, struct service_ref *ret_service)
{
	union xlb_vip4 vip = { .word = address | (__u64)port << 32 | (__u64)protocol << 48 };
	__u32 home = xlb_hash_vip4(vip, secret);

	for (__u32 i = 0; i < XLB_SERVICE_PROBES; i++) {
		__u32 slot = (home + i) & (cfg.services - 1);
		struct xlb_service *service = bpf_map_lookup_elem(&services, &slot);
		__u64 word;

		if (!service)
			return false;
		word = *(volatile __u64 *)&service->vip.word;
		if (word == vip.word) {
			ret_service->target.word = *(volatile __u64 *)&service->target.word;
			ret_service->id = slot;
			return true;
		}
		if (!word)
			return false;
	}
	return false;
}

static __always_inline bool service_find6(const struct xlb_address *address, __be16 port,
					  __u8 protocol, const __u64 *secret,
					  struct service_ref *ret_service)
{
	union xlb_vip6_tail vip = {
		.word = port | (__u64)protocol << 16 | 1ull << 32
	};
	__u32 home = xlb_hash_vip6(address, vip, secret);

	for (__u32 i = 0; i < XLB_SERVICE_PROBES; i++) {
		__u32 slot = (home + i) & (cfg.services - 1);
		struct xlb_service6 *service = bpf_map_lookup_elem(&services6, &slot);
		const __u64 *wanted = (const __u64 *)address, *here;
		__u64 word;

		if (!service)
			return false;
		here = (const __u64 *)&service->address;
		word = *(volatile __u64 *)&service->vip.word;
		if (!((word ^ vip.word) | (here[0] ^ wanted[0]) | (here[1] ^ wanted[1]))) {
			ret_service->target.word = *(volatile __u64 *)&service->target.word;
			ret_service->id = slot;
			return true;
		}
		if (!word)
			return false;
	}
	return false;
}

/* The service that a packet is for. */
static __always_inline bool service_find(const struct packet *packet, bool ipv6,
					 const __u64 *secret, struct service_ref *ret_service)
{
	if (ipv6)
		return service_find6(&packet->destination, packet->destination_port,
				     packet->protocol, secret, ret_service);
	return service_find4(packet->destination.word[0], packet->destination_port,
			     packet->protocol, secret, ret_service);
}

/*
 * What a service did before (see struct xlb_service), 0 if that is over for packets of this
 * protocol. A UDP packet does not say whether it begins a flow: that of an old one is sent where it
 * went for as long as such a flow may be silent.
 */
static __always_inline union xlb_service_target service_previous(__u32 id, __u8 protocol,
								 __u32 now, bool ipv6)
{
	union xlb_service_target previous = {};
	struct xlb_service *service;
	struct xlb_service6 *service6;
	__u32 moved;

	if (ipv6) {
		service6 = bpf_map_lookup_elem(&services6, &id);
		if (!service6)
			return previous;
		previous.word = *(volatile __u64 *)&service6->previous.word;
		moved = service6->moved;
	} else {
		service = bpf_map_lookup_elem(&services, &id);
		if (!service)
			return previous;
		previous.word = *(volatile __u64 *)&service->previous.word;
		moved = service->moved;
	}
	if (protocol == IPPROTO_UDP && now - moved > cfg.timeouts[XLB_FLOW_STREAM])
		previous.word = 0;
	return previous;
}

static __always_inline struct xlb_service_options *service_options_get(__u32 id, bool ipv6)
{
	__u32 key = SERVICE_KEY(ipv6, id);

	return bpf_map_lookup_elem(&service_options, &key);
}

/* Whether an endpoint's bit is set: if not, nothing that it sends is a reply. */
static __always_inline bool filter_has(__u64 endpoint_hash)
{
	__u32 bit = xlb_filter_bit(endpoint_hash);
	__u32 index = bit / 512;
	struct xlb_filter_line *line = bpf_map_lookup_elem(&filter, &index);

	return line && line->bits[bit / 64 % 8] >> (bit % 64) & 1;
}

static __always_inline struct xlb_backend *backend_get(__u32 id)
{
	return bpf_map_lookup_elem(&backends, &id);
}

/*
 * Whether a backend still takes packets of a flow that it has: looked up in bits, for one branch.
 */
static __always_inline bool backend_keeps(const struct xlb_backend *backend, __u8 protocol)
{
	__u32 states = 1 << XLB_BACKEND_ACTIVE | 1 << XLB_BACKEND_DRAINING;

	states |= (protocol == IPPROTO_TCP) << XLB_BACKEND_DOWN;
	return states >> (backend->state & 7) & 1;
}

#endif
