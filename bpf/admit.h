/* SPDX-License-Identifier: GPL-2.0 */
/* Whether a packet for a service is let in, before anything is chosen for it. */
#ifndef XLB_ADMIT_H
#define XLB_ADMIT_H

#include "maps.h"
#include "packet.h"
#include "service.h"

/* Whether one of the service's source ranges has the client. */
__weak __noinline int ranges_admit(__u32 service, bool ipv6)
{
	struct packet *packet = packet_get();

	if (!packet)
		return 0;
	if (ipv6) {
		struct xlb_range6 key = { .prefix = 32 + 128, .service = service };

		address_copy(&key.address, &packet->source);
		return bpf_map_lookup_elem(&ranges6, &key) != NULL;
	} else {
		struct xlb_range4 key = { .prefix = 32 + 32, .service = service,
					  .address = packet->source.word[0] };

		return bpf_map_lookup_elem(&ranges, &key) != NULL;
	}
}

static __always_inline enum verdict admit(struct packet *packet, const struct frame *frame,
					  const struct service_ref *service, bool ipv6)
{
	if (!packet_sound(packet, frame))
		return dropped(packet, XLB_DROP_MALFORMED);
	if (__builtin_expect(packet->kind == KIND_ERROR, 0))
		return packet->ttl <= 1 ? VERDICT_PASS : VERDICT_NEXT;
	if (source_impossible(packet, ipv6))
		return dropped(packet, XLB_DROP_BAD_SOURCE);
	if (packet->ttl <= 1)
		return answered(packet, ANSWER_TIME_EXCEEDED);
	if (service->target.ranges && !ranges_admit(service->id, ipv6))
		return dropped(packet, XLB_DROP_SOURCE_RANGE);
	return VERDICT_NEXT;
}

#endif
