/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fragments and the ports of their first. One that comes before its first, for a VIP, shows neither
 * service nor flow: XDP leaves it to tc, which keeps it (release.h). Its first then goes by tc, too, which
 * sends behind it what was kept: as the first, with the same addresses, in the same tunnel.
 *
 * The element of `fragments` stands for the datagram: without ports while they are waited for.
 */
#ifndef XLB_HOLD_H
#define XLB_HOLD_H

#include "count.h"
#include "dissect.h"
#include "maps.h"
#include "note.h"
#include "packet.h"

static __always_inline union xlb_held_owner held_owner(struct xlb_held *slot)
{
	return (union xlb_held_owner){ .word = *(volatile __u64 *)&slot->owner.word };
}

/* Whether nobody has a place any more. */
static __always_inline bool held_free(union xlb_held_owner owner, __u32 now)
{
	return !owner.state || (__u16)(now - owner.seen) > XLB_FRAGMENT_TICKS;
}

/* Whether there is a place for a fragment of that datagram. A flood of them is not to trouble tc. */
static __always_inline bool held_room(__u32 datagram, __u32 now)
{
	for (__u32 i = 0; i < XLB_HELD_EACH; i++) {
		__u32 place = (datagram + i) % XLB_HELD;
		struct xlb_held *slot = bpf_map_lookup_elem(&held, &place);

		if (slot && held_free(held_owner(slot), now))
			return true;
	}
	return false;
}

/* Leaves a later fragment without ports to tc. Returns an enum verdict. */
__weak __noinline int hold(struct xdp_md *ctx)
{
	struct xlb_fragment *known, awaited = {};
	struct packet *packet = packet_get();
	struct xlb_fragment_key key;

	if (!packet)
		return VERDICT_PASS;
	if (packet->network + packet->bytes > packet->frame || packet->bytes > XLB_HELD_BYTES ||
	    packet->ttl <= 1)
		return dropped(packet, XLB_DROP_NO_FRAGMENT);
	fragment_key_make(packet, &key);
	known = fragment_get(&key);
	awaited.seen = tick_now();
	awaited.datagram = known ? known->datagram : bpf_get_prandom_u32();
	if (!held_room(awaited.datagram, awaited.seen))
		return dropped(packet, XLB_DROP_NO_FRAGMENT);
	if (!known) {
		/* In the place of an old one, not of the ports that another CPU has learned meanwhile. */
		if (bpf_map_update_elem(&fragments, &key, &awaited, BPF_NOEXIST) &&
		    !fragment_get(&key))
			bpf_map_update_elem(&fragments, &key, &awaited, BPF_ANY);
		known = fragment_get(&key);
	}
	if (!known || known->destination_port || known->packets >= XLB_HELD_EACH)
		return dropped(packet, XLB_DROP_NO_FRAGMENT);
	packet->outcome.held = 1;
	packet->outcome.by_kernel = 0;
	packet->datagram = known->datagram;
	packet->added = 0;
	if (note_leave(ctx, 0, false))
		return dropped(packet, XLB_DROP_EMIT_FAILED);
	__sync_fetch_and_add(&known->packets, 1);
	__sync_fetch_and_add(&known->bytes, packet->bytes);
	return VERDICT_STACK;
}

/* Sees whether others of its datagram have come before this first fragment: it goes by tc then. */
static __always_inline void hold_end(struct packet *packet)
{
	struct xlb_fragment_key key;
	struct xlb_fragment *known;

	fragment_key_make(packet, &key);
	known = fragment_get(&key);
	if (!known || known->destination_port)
		return;
	packet->outcome.held = 1;
	packet->outcome.by_kernel |= BY_KERNEL_RELEASE;
	packet->datagram = known->datagram;
	packet->added = 0;
}

static __always_inline void hold_add(struct xlb_count *count, const struct xlb_fragment *known)
{
	count->packets += known->packets;
	count->bytes += known->bytes;
}

/* What was kept goes where its first goes, and is counted with it. */
static __always_inline void hold_count(const struct packet *packet, const struct xlb_fragment *known)
{
	struct xlb_service_stats *service = count_service(packet);
	struct xlb_backend_tally *tally;
	__u32 id = packet->outcome.backend;

	tally = bpf_map_lookup_elem(&backend_tally, &id);
	if (!service || !tally)
		return;
	if (packet->outcome.to_client) {
		hold_add(&service->to_client, known);
		hold_add(&tally->to_client, known);
	} else {
		hold_add(&service->to_backend, known);
		hold_add(&tally->to_backend, known);
	}
}

/* Remembers the ports of a first fragment that turned out to be ours; `verdict` is what became of it. */
__weak __noinline int fragment_remember(__u32 verdict)
{
	struct packet *packet = packet_get();
	struct xlb_fragment ports = {}, *known;
	struct xlb_fragment_key key;

	if (!packet)
		return 0;
	fragment_key_make(packet, &key);
	if (packet->outcome.held && (verdict == VERDICT_STACK || verdict == VERDICT_LOCAL)) {
		known = fragment_get(&key);
		if (known)
			hold_count(packet, known);
	}
	ports.source_port = packet->source_port;
	ports.destination_port = packet->destination_port;
	ports.seen = packet->now;
	bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
	return 0;
}

#endif
