/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counting, at the one exit of every program. A counter that is missing never changes what happens
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

static __always_inline void count_backend(const struct packet *packet)
{
	__u32 id = packet->outcome.backend;
	struct xlb_backend_tally *tally = bpf_map_lookup_elem(&backend_tally, &id);

	if (!tally)
		return;
	count_add(packet->outcome.to_client ? &tally->to_client : &tally->to_backend,
		  packet->bytes);
	tally->flows += packet->outcome.new_flow;
	mirror_show(id, tally);
}

static __always_inline void count_service(const struct packet *packet, enum verdict verdict)
{
	struct xlb_service_stats *stats = bpf_map_lookup_elem(&service_stats, &packet->outcome.service);

	if (!stats)
		return;
	if (verdict == VERDICT_DROP) {
		count_add(&stats->dropped, packet->bytes);
	} else if (verdict == VERDICT_ANSWER) {
		if (packet->answer == ANSWER_REFUSED)
			count_add(&stats->refused, packet->bytes);
	} else {
		count_add(packet->outcome.to_client ? &stats->to_client : &stats->to_backend,
			  packet->bytes);
		stats->flows += packet->outcome.new_flow;
	}
}

static __always_inline void count(const struct packet *packet,
				  enum verdict verdict)
{
	if (verdict == VERDICT_DROP)
		count_drop(packet->drop);
	if (!packet->outcome.known_service)
		return;
	count_service(packet, verdict);
	if (verdict != VERDICT_DROP && verdict != VERDICT_ANSWER)
		count_backend(packet);
}

#endif
