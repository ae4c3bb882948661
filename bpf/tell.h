/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Telling the sender of a reply that it is too big, where it came in without XDP: answer.h for tc.
 *
 * A sender on this machine may have left the checksum to a device, and nothing takes that back: wherever
 * the packet's transport header ends up, its checksum will be computed of all that follows, if some device
 * does not know how. So the quote gets one that such a device would write there, too: then it does not
 * matter whether one does, and the error's own checksum is right.
 */
#ifndef XLB_TELL_H
#define XLB_TELL_H

#include "answer.h"
#include "note.h"
#include "packet.h"

/*
 * The checksum that is what a device makes of it. With `rest` the sum of all else that it covers, the device
 * writes -(rest + check): check is -rest / 2, and half of a number modulo 65535 is that number rotated.
 */
static __always_inline __u16 checksum_fixed(__u64 rest)
{
	__u16 negative = ~xlb_sum_fold(rest);

	return negative >> 1 | negative << 15;
}

/* Gives a quoted transport header, at that offset, such a checksum. */
static __always_inline bool tell_fix_checksum(struct packet *packet, void *data, void *end,
					      __u32 transport)
{
	__u16 *check = header_at(data, transport + checksum_offset(packet));

	if ((void *)(check + 1) > end)
		return false;
	*check = 0;
	*check = checksum_fixed(sum_to_end(packet, data, end, transport));
	return true;
}

/*
 * Turns the packet in hand into an ICMP error to who sent it, which says how much fits. `partial`: its
 * checksum may not be finished. 0, or -1: it cannot be told, or not now.
 */
__weak __noinline int tell_too_big(struct __sk_buff *skb, __u32 mtu, bool partial)
{
	struct packet *packet = packet_get();
	__u32 header, quote, most;
	struct icmp_header *icmp;
	void *data, *end;
	__u64 sum = 0;
	__u8 protocol;

	if (!packet || packet->kind >= KIND_LATER_FRAGMENT || !ration_take(ANSWER_COST_ICMP))
		return -1;
	packet->answer = ANSWER_TOO_BIG;
	packet->mtu = packet->ipv6 && mtu < PATH_MTU6_LEAST ? PATH_MTU6_LEAST : mtu;
	protocol = packet->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	header = packet->ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	most = packet->ipv6 ? QUOTE6_MAX : QUOTE4_MAX;
	quote = (packet->bytes > most ? most : packet->bytes) & ~3;
	if (bpf_skb_change_tail(skb, ETH_HLEN + quote, 0) ||
	    bpf_skb_adjust_room(skb, header + sizeof(*icmp), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_pull_data(skb, ETH_HLEN + header + sizeof(*icmp) + quote))
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	barrier_var(header);
	icmp = header_at(data, ETH_HLEN + header);
	if (data + ETH_HLEN + sizeof(struct ipv6hdr) > end || (void *)(icmp + 1) > end)
		return -1;
	*icmp = icmp_error_for(packet);
	answer_network(data, ETH_HLEN, packet, protocol, quote + sizeof(*icmp));
	if (packet->ipv6)
		sum = pseudo_header(packet, protocol, quote + sizeof(*icmp));
	if (partial && !tell_fix_checksum(packet, data, end, ETH_HLEN + header + sizeof(*icmp) +
							     packet->headers))
		return -1;
	icmp->check = ~xlb_sum_fold(sum + sum_to_end(packet, data, end, ETH_HLEN + header));
	return 0;
}

#endif
