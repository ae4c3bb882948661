/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counting, where a packet leaves. A counter that is missing never changes what happens
 * to a packet.
 */
#ifndef XLB_COUNT_H
#define XLB_COUNT_H

#include "maps.h"
#include "mirror.h"
#include "packet.h"

static __always_inline void count_add(struct xlb_count *count, __u32 bytes)
{
	count->packets++;
	count->bytes += bytes;
}

static __always_inline void count_drop(__u32 reason)
{
	struct xlb_drop_stats *stats = bpf_map_lookup_elem(&drops, &reason);

	if (stats)
		stats->packets++;
}

static __always_inline struct xlb_service_stats *count_service(const struct packet *packet)
{
	__u32 key = packet->outcome.service;

	return bpf_map_lookup_elem(&service_stats, &key);
}

/* A packet that goes on, to a backend or to a client. */
static __always_inline void count_served(const struct packet *packet)
{
	struct xlb_service_stats *service = count_service(packet);
	__u32 id = packet->outcome.backend;
	struct xlb_backend_tally *tally = bpf_map_lookup_elem(&backend_tally, &id);

	if (!service || !tally)
		return;
	if (packet->outcome.to_client) {
		count_add(&service->to_client, packet->bytes);
		count_add(&tally->to_client, packet->bytes);
	} else {
		count_add(&service->to_backend, packet->bytes);
		count_add(&tally->to_backend, packet->bytes);
		if (packet->outcome.new_flow) {
			service->flows++;
			tally->flows++;
		}
	}
	mirror_show(id, tally);
}

static __always_inline void count_dropped(const struct packet *packet, __u32 reason)
{
	struct xlb_service_stats *service;

	count_drop(reason);
	if (!packet->outcome.known_service)
		return;
	service = count_service(packet);
	if (service)
		count_add(&service->dropped, packet->bytes);
}

/* The packet in hand, which ends here, by its verdict. */
__weak __noinline int count_stopped(__u32 verdict)
{
	struct packet *packet = packet_get();
	struct xlb_service_stats *service;

	if (!packet)
		return 0;
	if (verdict == VERDICT_DROP) {
		count_dropped(packet, packet->drop);
	} else if (packet->outcome.known_service && packet->answer == ANSWER_REFUSED) {
		service = count_service(packet);
		if (service)
			count_add(&service->refused, packet->bytes);
	}
	return 0;
}

static __always_inline void count(const struct packet *packet, enum verdict verdict)
{
	if (__builtin_expect(verdict >= VERDICT_ANSWER, 0))
		count_stopped(verdict);
	else if (packet->outcome.known_service)
		count_served(packet);
}

#endif
