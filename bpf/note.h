/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Notes in front of packets, by which XDP leaves to tc what it cannot do itself (split.h and
 * xlb_ingress are the other side):
 *
 *  - what has to go by the kernel's neighbour code (hop.h);
 *  - packets without DF that do not fit, which tc fragments;
 *  - fragments that come before their first, which tc keeps, and that first (hold.h);
 *  - packets whose checksum is not finished. A sender on the same machine leaves a checksum to the
 *    device: what stands there is the sum of the pseudo header. The kernel knows of such packets,
 *    but does not tell XDP, and forgets it with what XDP sends itself. So a packet that looks like one
 *    (one in 65,536 does by chance) keeps its checksum, and is sent by the kernel, which is told by
 *    how much the sums have changed, and adjusts and finishes what is to be finished;
 *  - what came by a device in generic mode and leaves by another link: a VLAN tag that the NIC took off lies
 *    beside it, of which XDP is not told either, and a redirect would send it along.
 */
#ifndef XLB_NOTE_H
#define XLB_NOTE_H

#include "config.h"
#include "maps.h"
#include "packet.h"
#include "rewrite.h"

#define TCP_CHECK 16	/* offsets of checksums */
#define UDP_CHECK 6

/* In what way packets may not be all there: bits of enum xlb_partial. */
static __always_inline __u32 partial_possible(void)
{
	__u32 zero = 0;
	struct xlb_config *live = bpf_map_lookup_elem(&config, &zero);

	return live && __builtin_expect(live->partial, 0) ? live->partial : 0;
}

/* Whether a VLAN tag may lie beside a packet that came by that device, and goes along with it. */
__weak __noinline int partial_tag(__u32 possible, __u32 ifindex)
{
	struct xlb_device *device;

	if (!(possible & XLB_PARTIAL_TAGS))
		return false;
	device = bpf_map_lookup_elem(&devices, &ifindex);
	return device && device->mode == XLB_ATTACH_GENERIC;
}

static __always_inline __u32 checksum_offset(const struct packet *packet)
{
	return packet->protocol == IPPROTO_TCP ? TCP_CHECK : UDP_CHECK;
}

/* Whether the checksum of a packet is perhaps a partial one, which is then noted. */
static __always_inline bool partial_found(struct packet *packet, const struct frame *frame)
{
	__u16 *check = header_at(frame->transport, checksum_offset(packet));
	__u64 sum;

	if (packet->kind != KIND_WHOLE || (void *)(check + 1) > frame->end ||
	    (!*check && packet->protocol == IPPROTO_UDP))
		return false;
	sum = address_plus(&packet->source, packet->ipv6) +
	      address_plus(&packet->destination, packet->ipv6) + bpf_htons(packet->protocol) +
	      bpf_htons(packet->bytes - packet->headers);
	packet->partial = *check;
	return *check == xlb_sum_fold(sum);
}

/* Looks at the packet in hand. */
__weak __noinline int partial_look(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	struct frame frame = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	if (!packet)
		return 0;
	if (partial_tag(partial_possible(), ctx->ingress_ifindex))
		packet->outcome.by_kernel |= BY_KERNEL_AWAY;
	if (!frame_find(&frame, packet, false) || !partial_found(packet, &frame))
		return 0;
	packet->added = 0;
	packet->translation.address_sum = 0;
	packet->outcome.by_kernel |= BY_KERNEL_CHECKSUM;
	return 0;
}

/*
 * Whether what comes out of a packet may be fragmented. IPv4: unless its sender has asked to be told; not
 * one with options, which not all fragments would have. IPv6: what no sender need make shorter, in its
 * outer header (RFC 2473, 7.1 b).
 */
static __always_inline bool may_split(const struct packet *packet, const struct iphdr *ip,
				   const void *end)
{
	if (packet->ipv6)
		return packet->bytes <= PATH_MTU6_LEAST;
	return packet->kind != KIND_ERROR && packet->headers == sizeof(*ip) &&
	       (void *)(ip + 1) <= end && !(ip->frag_off & bpf_htons(IP_DONT_FRAGMENT));
}

/*
 * What becomes of a packet that is more than the MTU, with so many bytes added in front: its sender is
 * told, if of IPv6 never less than 1280, which it would not believe (RFC 8201, 4); or VERDICT_NEXT: tc
 * fragments what comes out.
 */
__weak __noinline int too_big(struct xdp_md *ctx, __u32 mtu, __u32 added)
{
	struct packet *packet = packet_get();
	struct iphdr *ip;

	if (!packet)
		return VERDICT_PASS;
	packet->mtu = mtu - added;
	if (packet->ipv6 && packet->mtu < PATH_MTU6_LEAST)
		packet->mtu = PATH_MTU6_LEAST;
	ip = header_at((void *)(long)ctx->data, packet->network);
	if (!may_split(packet, ip, (void *)(long)ctx->data_end))
		return answered(packet, ANSWER_TOO_BIG);
	/* A checksum that is not finished must not be cut off from what it is to cover. */
	if (packet->outcome.by_kernel & BY_KERNEL_CHECKSUM)
		return packet->ipv6 ? dropped(packet, XLB_DROP_TOO_BIG) :
				      answered(packet, ANSWER_TOO_BIG);
	packet->mtu = mtu;
	packet->outcome.by_kernel |= BY_KERNEL_SPLIT;
	return VERDICT_NEXT;
}

/*
 * Puts the checksum of the packet in hand back to what it was, and says in the note what it would
 * have become: by the addresses, and by the rest. `network` is where the packet's IP header is, behind
 * that of a tunnel, and `moved` by how much further the frame's start is in tc. 0, or -1: it is not
 * all there.
 */
__weak __noinline int note_sums(struct xdp_md *ctx, __u32 network, __u32 moved)
{
	struct xlb_note *note = (void *)(long)ctx->data_meta;
	struct packet *packet = packet_get();
	void *data = (void *)(long)ctx->data;
	__u32 offset;
	__u16 *check;

	if (!packet || (void *)(note + 1) > data)
		return -1;
	offset = network + packet->headers + checksum_offset(packet);
	check = header_at(data, offset);
	if ((void *)(check + 1) > (void *)(long)ctx->data_end)
		return -1;
	note->address_sum = xlb_sum_fold(packet->translation.address_sum);
	note->other_sum = xlb_sum_fold((__u64)(__u16)~*check + packet->partial +
				       (__u16)~note->address_sum);
	note->check = (offset - moved) / 2;
	note->udp = packet->protocol == IPPROTO_UDP;
	*check = packet->partial;
	return 0;
}

/*
 * Takes the tags off a packet that leaves by another device than it came by: they belong to the
 * link.
 */
__weak __noinline int vlan_strip(struct xdp_md *ctx, __u32 tags)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 addresses[3], bytes = tags == 1 ? VLAN_TAG_BYTES : 2 * VLAN_TAG_BYTES;
	__u16 type;

	if (data + ETH_HLEN + 2 * VLAN_TAG_BYTES > end)
		return -1;
	__builtin_memcpy(addresses, data, sizeof(addresses));
	type = *(__u16 *)(data + (tags == 1 ? 16 : 20));
	if (bpf_xdp_adjust_head(ctx, bytes))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + ETH_HLEN > end)
		return -1;
	__builtin_memcpy(data, addresses, sizeof(addresses));
	*(__u16 *)(data + 12) = type;
	return 0;
}

/*
 * Leaves the note: to be sent out of that device; loopback: to be taken up as it is; 0: to be kept. `stays`:
 * on the link that it came by, or here; else it loses its tags, which belong to that link. 0 or -1.
 */
__weak __noinline int note_leave(struct xdp_md *ctx, __u32 ifindex, bool stays)
{
	struct packet *packet = packet_get();
	struct xlb_note *note;
	__u32 tags;

	if (!packet)
		return -1;
	tags = packet->vlan_tags;
	if (tags && !stays && vlan_strip(ctx, tags))
		return -1;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*note)))
		return -1;
	note = (void *)(long)ctx->data_meta;
	if ((void *)(note + 1) > (void *)(long)ctx->data)
		return -1;
	__builtin_memset(note, 0, sizeof(*note));
	note->magic = cfg.secret[1];
	note->ifindex = ifindex;
	note->family = packet->hop_family;
	note->mtu = packet->outcome.by_kernel & BY_KERNEL_SPLIT ? packet->mtu : 0;
	note->next_hop[0] = packet->translation.destination.word[0];
	note->next_hop[1] = packet->translation.destination.word[1];
	note->next_hop[2] = packet->translation.destination.word[2];
	note->next_hop[3] = packet->translation.destination.word[3];
	/*
	 * Packets with equal metadata are merged by GRO on their way to tc, which is to fragment each, or
	 * to adjust its checksum. The last word is of use to IPv6 alone.
	 */
	if (note->family != XLB_IPV6 &&
	    packet->outcome.by_kernel & (BY_KERNEL_SPLIT | BY_KERNEL_CHECKSUM))
		note->next_hop[3] = bpf_get_prandom_u32();
	if (packet->outcome.held) {
		note->held = 1;
		note->check = packet->added;
		note->datagram = packet->datagram;
	}
	if (!(packet->outcome.by_kernel & BY_KERNEL_CHECKSUM))
		return 0;
	/* The kernel takes the first tag off before tc looks. */
	return note_sums(ctx, (stays ? packet->network : ETH_HLEN) + packet->added,
			 stays && tags ? VLAN_TAG_BYTES : 0);
}

#endif
