/* SPDX-License-Identifier: GPL-2.0 */
/* Whether a packet for a service is let in, before anything is chosen for it. */
#ifndef XLB_ADMIT_H
#define XLB_ADMIT_H

#include "maps.h"
#include "packet.h"
#include "service.h"

/* Whether one of the service's source ranges has the client; IPv4: of which `first` is the address. */
__weak __noinline int ranges_admit(__u32 service, __u64 first, __u64 second, bool ipv6)
{
	if (ipv6) {
		struct xlb_range6 key = { .prefix = 32 + 128, .service = service };
		__u64 words[2] = { first, second };

		address_copy(&key.address, words);
		return bpf_map_lookup_elem(&ranges6, &key) != NULL;
	} else {
		struct xlb_range4 key = { .prefix = 32 + 32, .service = service,
					  .address = first };

		return bpf_map_lookup_elem(&ranges, &key) != NULL;
	}
}

/* Whether the service in a slot is what the packet comes from: 1; -1: nobody is there; 0: somebody else. */
__weak __noinline int source_is_at(__u32 slot, bool ipv6)
{
	struct packet *packet = packet_get();
	struct xlb_service6 *service6;
	struct xlb_service *service;
	union xlb_vip6_tail tail;
	union xlb_vip4 vip;

	slot &= cfg.services - 1;
	if (!packet)
		return -1;
	if (ipv6) {
		service6 = bpf_map_lookup_elem(&services6, &slot);
		if (!service6)
			return -1;
		tail.word = *(volatile __u64 *)&service6->vip.word;
		if (!tail.word)
			return -1;
		return tail.port == packet->source_port && tail.protocol == packet->protocol &&
		       address_equal(&service6->address, &packet->source, true);
	}
	service = bpf_map_lookup_elem(&services, &slot);
	if (!service)
		return -1;
	vip.word = *(volatile __u64 *)&service->vip.word;
	if (!vip.word)
		return -1;
	return vip.port == packet->source_port && vip.protocol == packet->protocol &&
	       vip.address == packet->source.word[0];
}

/* Whether the packet in hand comes from the address and port of a service. */
__weak __noinline int source_is_service(bool ipv6)
{
	struct packet *packet = packet_get();
	__u64 secret[2];
	__u32 home;
	int found;

	/* Of an error it says whom the error is about. */
	if (!packet || packet->kind == KIND_ERROR)
		return 0;
	secret_get(secret);
	if (!filter_has(source_mark(packet, ipv6, secret)))
		return 0;
	if (ipv6) {
		union xlb_vip6_tail tail = { .port = packet->source_port,
					     .protocol = packet->protocol, .live = 1 };

		home = xlb_hash_vip6(&packet->source, tail, secret);
	} else {
		union xlb_vip4 vip = { .address = packet->source.word[0],
				       .port = packet->source_port,
				       .protocol = packet->protocol };

		home = xlb_hash_vip4(vip, secret);
	}
	for (__u32 i = 0; i < XLB_SERVICE_PROBES; i++) {
		found = source_is_at(home + i, ipv6);
		if (found)
			return found > 0;
	}
	return 0;
}

/* Whether it comes from a port that is not above the one it is for, as few do. */
static __always_inline bool source_low(const struct packet *packet)
{
	return __builtin_expect(bpf_ntohs(packet->source_port) <= bpf_ntohs(packet->destination_port), 0);
}

/*
 * Whether a packet that may begin something comes from another service: nobody rightly sends so, and two
 * services that answer whatever they get (DNS and the like) would answer each other for ever, on one
 * forged packet. The answer comes back with the ports exchanged, so it is enough to look where the
 * client's is not the higher one, as it is nearly always. With dnat the answer has the backend's
 * address: there each is looked at.
 */
static __always_inline bool source_forged(const struct packet *packet, bool dnat, bool ipv6)
{
	return (dnat || source_low(packet)) && source_is_service(ipv6);
}

static __always_inline enum verdict admit(struct packet *packet, const struct frame *frame,
					  const struct service_ref *service, bool ipv6)
{
	if (!packet_sound(packet, frame))
		return dropped(packet, XLB_DROP_MALFORMED);
	if (packet->kind == KIND_ERROR)
		return packet->ttl <= 1 ? VERDICT_PASS : VERDICT_NEXT;
	if (source_impossible(packet, ipv6))
		return dropped(packet, XLB_DROP_BAD_SOURCE);
	if (packet->ttl <= 1)
		return answered(packet, ANSWER_TIME_EXCEEDED);
	if (service->target.ranges &&
	    !ranges_admit(service->id, address_first(&packet->source, ipv6),
			  address_second(&packet->source, ipv6), ipv6))
		return dropped(packet, XLB_DROP_SOURCE_RANGE);
	return VERDICT_NEXT;
}

#endif
