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

#define NO_SERVICE ~0u

struct service_ref {
	union xlb_service_target target;
	__u32 id;
};

/* What a slot has for a key. */
enum service_match {
	SERVICE_OTHER = 0,
	SERVICE_HERE,
	SERVICE_NONE,	/* free: the key is in no slot behind it either */
};

static __always_inline union xlb_vip4 service_key4(const struct packet *packet)
{
	return (union xlb_vip4){
		.word = packet->destination.word[0] |
			(__u64)packet->destination_port << 32 | (__u64)packet->protocol << 48,
	};
}

static __always_inline union xlb_vip6_tail service_key6(const struct packet *packet)
{
	return (union xlb_vip6_tail){
		.word = packet->destination_port | (__u64)packet->protocol << 16 | 1ull << 32,
	};
}

static __always_inline enum service_match service_match4(const struct xlb_service *service,
							 union xlb_vip4 vip)
{
	__u64 word = *(volatile __u64 *)&service->vip.word;

	if (word == vip.word)
		return SERVICE_HERE;
	return word ? SERVICE_OTHER : SERVICE_NONE;
}

static __always_inline enum service_match service_match6(const struct xlb_service6 *service,
							 const struct xlb_address *address,
							 union xlb_vip6_tail vip)
{
	const __u64 *wanted = (const __u64 *)address, *here = (const __u64 *)&service->address;
	__u64 word = *(volatile __u64 *)&service->vip.word;

	if (!((word ^ vip.word) | (here[0] ^ wanted[0]) | (here[1] ^ wanted[1])))
		return SERVICE_HERE;
	return word ? SERVICE_OTHER : SERVICE_NONE;
}

/*
 * The slot of a service that is not in its home slot; NO_SERVICE: there is none. `first` and `second`: of the
 * address, IPv6 only; `vip`: the word that tells VIPs apart.
 */
__weak __noinline __u32 service_find_further(__u32 home, __u64 first, __u64 second, __u64 vip,
					     bool ipv6)
{
	union xlb_vip6_tail vip6 = { .word = vip };
	union xlb_vip4 vip4 = { .word = vip };
	__u64 words[2] = { first, second };
	struct xlb_address address;

	address_copy(&address, words);
	for (__u32 i = 1; i < XLB_SERVICE_PROBES; i++) {
		__u32 slot = (home + i) & (cfg.services - 1);
		enum service_match match = SERVICE_NONE;
		struct xlb_service6 *service6;
		struct xlb_service *service;

		if (ipv6) {
			service6 = bpf_map_lookup_elem(&services6, &slot);
			if (service6)
				match = service_match6(service6, &address, vip6);
		} else {
			service = bpf_map_lookup_elem(&services, &slot);
			if (service)
				match = service_match4(service, vip4);
		}
		if (match)
			return match == SERVICE_HERE ? slot : NO_SERVICE;
	}
	return NO_SERVICE;
}

static __always_inline bool service_find4(union xlb_vip4 vip, const __u64 *secret,
					  struct service_ref *ret_service)
{
	__u32 home = xlb_hash_vip4(vip, secret), slot = home & (cfg.services - 1);
	struct xlb_service *service = bpf_map_lookup_elem(&services, &slot);
	enum service_match match;

	if (!service)
		return false;
	match = service_match4(service, vip);
	if (match != SERVICE_HERE) {
		if (__builtin_expect(match == SERVICE_NONE, 1))
			return false;
		slot = service_find_further(home, 0, 0, vip.word, false);
		if (slot == NO_SERVICE)
			return false;
		service = bpf_map_lookup_elem(&services, &slot);
		if (!service || service_match4(service, vip) != SERVICE_HERE)
			return false;
	}
	ret_service->target.word = *(volatile __u64 *)&service->target.word;
	ret_service->id = slot;
	return true;
}

static __always_inline bool service_find6(const struct xlb_address *address,
					  union xlb_vip6_tail vip, const __u64 *secret,
					  struct service_ref *ret_service)
{
	__u32 home = xlb_hash_vip6(address, vip, secret), slot = home & (cfg.services - 1);
	struct xlb_service6 *service = bpf_map_lookup_elem(&services6, &slot);
	enum service_match match;

	if (!service)
		return false;
	match = service_match6(service, address, vip);
	if (match != SERVICE_HERE) {
		if (__builtin_expect(match == SERVICE_NONE, 1))
			return false;
		slot = service_find_further(home, address_first(address, true),
					    address_second(address, true), vip.word, true);
		if (slot == NO_SERVICE)
			return false;
		service = bpf_map_lookup_elem(&services6, &slot);
		if (!service || service_match6(service, address, vip) != SERVICE_HERE)
			return false;
	}
	ret_service->target.word = *(volatile __u64 *)&service->target.word;
	ret_service->id = slot;
	return true;
}

/* The service that a packet is for. */
static __always_inline bool service_find(const struct packet *packet, bool ipv6,
					 const __u64 *secret, struct service_ref *ret_service)
{
	return ipv6 ? service_find6(&packet->destination, service_key6(packet), secret,
				    ret_service) :
		      service_find4(service_key4(packet), secret, ret_service);
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

/* Of the endpoint that a packet comes from. */
static __always_inline __u64 source_mark(const struct packet *packet, bool ipv6,
					 const __u64 *secret)
{
	__u64 word = xlb_address_word(&packet->source, ipv6 ? XLB_IPV6 : XLB_IPV4, secret);

	return xlb_endpoint_mark(word, packet->source_port, packet->protocol, secret);
}

/* Whether an endpoint's bit is set: if not, nothing that it sends is a reply. */
static __always_inline bool filter_has(__u64 mark)
{
	__u32 bit = xlb_filter_bit(mark);
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
