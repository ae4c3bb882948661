/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counting, at the one exit of every program. A counter that is missing never changes what happens
 * to a packet.
 */
#ifndef XLB_COUNT_H
#define XLB_COUNT_H

#include "maps.h"
#include "packet.h"

/* Whose the packet was, for the count. */
struct outcome {
	__u32 service;		/* XLB_SERVICE_KEY */
	__u32 backend;		/* 0: none */
	__u8 known_service;	/* else nothing is counted */
	__u8 to_client;		/* a reply */
	__u8 new_flow;
	__u8 pad;
};

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

static __always_inline void count_backend(const struct outcome *outcome, __u32 bytes)
{
	struct xlb_backend_stats *stats = bpf_map_lookup_elem(&backend_stats, &outcome->backend);

	if (!stats)
		return;
	count_add(outcome->to_client ? &stats->to_client : &stats->to_backend, bytes);
	stats->flows += outcome->new_flow;
}

static __always_inline void count_service(const struct outcome *outcome, enum verdict verdict,
					  __u32 bytes)
{
	struct xlb_service_stats *stats = bpf_map_lookup_elem(&service_stats, &outcome->service);

	if (!stats)
		return;
	if (verdict == VERDICT_DROP) {
		count_add(&stats->dropped, bytes);
	} else if (verdict == VERDICT_REFUSE) {
		count_add(&stats->refused, bytes);
	} else {
		count_add(outcome->to_client ? &stats->to_client : &stats->to_backend, bytes);
		stats->flows += outcome->new_flow;
	}
}

static __always_inline void count(const struct outcome *outcome, const struct packet *packet,
				  enum verdict verdict)
{
	if (!outcome->known_service)
		return;
	count_service(outcome, verdict, packet->bytes);
	if (verdict == VERDICT_DROP)
		count_drop(packet->drop);
	else if (verdict != VERDICT_REFUSE)
		count_backend(outcome, packet->bytes);
}

#endif
