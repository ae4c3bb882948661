// SPDX-License-Identifier: GPL-2.0
/*
 * Where XDP cannot reach: handing packets to the kernel's neighbour code, and replies that do not
 * come in by an attached device.
 *
 *  xlb_ingress, on attached devices: sends on what XDP left a note about (see hop.h). On the devices
 *  of Pods, bridges and tunnels: catches replies before this node takes them for its own, translates
 *  them, and sends them to the client.
 *  xlb_egress, on attached devices: gives replies of this node's own Pods and sockets, whose client's
 *  address was kept (dnat), the VIP's address as they leave by the kernel's routing.
 *
 * Packets here may carry half a checksum that the device is to finish, so everything is written by
 * helpers that know.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "config.h"
#include "count.h"
#include "dissect.h"
#include "hold.h"
#include "hop.h"
#include "maps.h"
#include "mss.h"
#include "packet.h"
#include "release.h"
#include "reply.h"
#include "rewrite.h"
#include "service.h"
#include "split.h"
#include "tell.h"

#define HEADERS_WANTED 128	/* pulled into the linear part, if the packet has as many */
#define IPV4_CHECK (ETH_HLEN + offsetof(struct iphdr, check))
#define IPV4_TTL (ETH_HLEN + offsetof(struct iphdr, ttl))
#define IPV6_HOP_LIMIT (ETH_HLEN + offsetof(struct ipv6hdr, hop_limit))

/* That of dissect.h. */
__weak __noinline int tc_option_look(struct __sk_buff *skb)
{
	return option_look((void *)(long)skb->data, (void *)(long)skb->data_end);
}

/* Whether the IPv4 options of the packet in hand let it be for us. */
__weak __noinline int tc_options(struct __sk_buff *skb)
{
	struct packet *packet = packet_get();
	int option;

	if (!packet)
		return false;
	packet->cursor = packet->network + sizeof(struct iphdr);
	for (int i = 0; i <= IP_OPTIONS_MAX; i++) {
		option = tc_option_look(skb);
		if (option != OPTION_NEXT)
			return option == OPTION_LAST;
	}
	return false;
}

/* The parts of dissect.h. Returns an enum verdict. */
__weak __noinline int tc_dissect(struct __sk_buff *skb)
{
	struct packet *packet = packet_get();

	if (!packet || (has_options(packet) && !tc_options(skb)))
		return VERDICT_PASS;
	return dissect(packet, (void *)(long)skb->data, (void *)(long)skb->data_end);
}

/*
 * Translates an ICMP error by packet.translation; `hop`: see translate_error(). Nobody has left its
 * checksum to a device, so it is written in place. Returns 0, or -1: it is not all there.
 */
__weak __noinline int tc_translate_error(struct __sk_buff *skb, bool hop)
{
	struct packet *packet = packet_get();
	__u32 all = skb->len < OFFSET_MAX ? skb->len : OFFSET_MAX;
	void *data, *end;

	if (!packet || bpf_skb_pull_data(skb, all))
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	return translate_error(packet, data, end, hop) ? 0 : -1;
}

/* Headers that can be read, and what they say; VERDICT_PASS: nothing for us. */
static __always_inline enum verdict skb_parse(struct __sk_buff *skb, struct packet *packet,
					      struct frame *frame)
{
	enum verdict verdict;
	__be16 type;
	bool ipv6;

	if ((void *)(long)skb->data + HEADERS_WANTED > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, skb->len < HEADERS_WANTED ? skb->len : HEADERS_WANTED);
	*frame = (struct frame){
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
	};
	packet->frame = skb->len;
	packet->outcome = (struct outcome){};
	type = parse_ethernet(packet, frame);
	ipv6 = type == bpf_htons(ETH_P_IPV6);
	if (packet->vlan_tags || (!ipv6 && type != bpf_htons(ETH_P_IP)))
		return VERDICT_PASS;
	verdict = ipv6 ? parse(packet, frame, true) : parse(packet, frame, false);
	if (verdict == VERDICT_UNUSUAL) {
		verdict = tc_dissect(skb);
		frame->data = (void *)(long)skb->data;
		frame->end = (void *)(long)skb->data_end;
	}
	if (verdict)
		return VERDICT_PASS;
	return frame_find(frame, packet, ipv6) ? VERDICT_NEXT : VERDICT_PASS;
}

/* The sum that the change of addresses adds. */
static __always_inline __s64 skb_write_addresses(struct __sk_buff *skb, const struct packet *packet,
						 const struct translation *translation, bool ipv6)
{
	__be32 before[8] = {}, after[8] = {};
	__u32 words = ipv6 ? 8 : 2;
	__u32 offset = ETH_HLEN + (ipv6 ? offsetof(struct ipv6hdr, saddr) :
					  offsetof(struct iphdr, saddr));

	if (ipv6) {
		address_copy(before, &packet->source);
		address_copy(before + 4, &packet->destination);
		address_copy(after, &translation->source);
		address_copy(after + 4, &translation->destination);
	} else {
		before[0] = packet->source.word[0];
		before[1] = packet->destination.word[0];
		after[0] = translation->source.word[0];
		after[1] = translation->destination.word[0];
	}
	if (bpf_skb_store_bytes(skb, offset, after, words * 4, 0))
		return -1;
	return bpf_csum_diff(before, words * 4, after, words * 4, 0);
}

static __always_inline void skb_decrease_ttl(struct __sk_buff *skb, const struct packet *packet,
					     bool ipv6)
{
	__u8 ttl = packet->ttl - 1;

	if (ipv6) {
		bpf_skb_store_bytes(skb, IPV6_HOP_LIMIT, &ttl, 1, 0);
	} else {
		bpf_l3_csum_replace(skb, IPV4_CHECK, packet->ttl, ttl, 2);
		bpf_skb_store_bytes(skb, IPV4_TTL, &ttl, 1, 0);
	}
}

/* Ports and checksum of TCP or UDP, after the sum of the addresses has changed by so much. */
static __always_inline bool skb_translate_transport(struct __sk_buff *skb,
						    const struct packet *packet,
						    const struct translation *translation,
						    __s64 sum)
{
	__u32 before = packet->source_port | (__u32)packet->destination_port << 16;
	__u32 after = translation->source_port | (__u32)translation->destination_port << 16;
	__u32 transport = ETH_HLEN + packet->headers;
	bool udp = packet->protocol == IPPROTO_UDP;
	__u32 check = transport + (udp ? offsetof(struct udphdr, check) :
					 offsetof(struct tcphdr, check));
	__u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;

	return !bpf_l4_csum_replace(skb, check, 0, sum, flags | BPF_F_PSEUDO_HDR) &&
	       !bpf_l4_csum_replace(skb, check, before, after, flags | sizeof(before)) &&
	       !bpf_skb_store_bytes(skb, transport, &after, sizeof(after), 0);
}

/* Writes a translation into the packet. `hop`: it has one less to live. */
static __always_inline bool skb_translate(struct __sk_buff *skb, struct packet *packet,
					  const struct translation *translation, bool hop, bool ipv6)
{
	__s64 sum;

	if (packet->kind == KIND_ERROR) {
		packet->translation = *translation;
		return !tc_translate_error(skb, hop);
	}
	if (hop)
		skb_decrease_ttl(skb, packet, ipv6);
	sum = skb_write_addresses(skb, packet, translation, ipv6);
	if (sum < 0 || (!ipv6 && bpf_l3_csum_replace(skb, IPV4_CHECK, 0, sum, 0)))
		return false;
	if (packet->kind == KIND_LATER_FRAGMENT)
		return true;
	return skb_translate_transport(skb, packet, translation, sum);
}

static __always_inline int skb_count(struct packet *packet,
				     enum verdict verdict, enum xlb_drop reason)
{
	packet->drop = reason;
	if (packet->kind == KIND_FIRST_FRAGMENT)
		fragment_remember(verdict);
	count(packet, verdict);
	return verdict == VERDICT_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* Lowers the MSS of a SYN if its service wants it lower; xdp_check_mss() for tc. */
__weak __noinline int tc_check_mss(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct packet *packet = packet_get();
	__be16 before, after;
	__u32 offset;
	__u16 most;

	if (!packet)
		return 0;
	most = mss_most(packet);
	if (!most)
		return 0;
	offset = mss_find(packet, data, end, most);
	if (!offset || bpf_skb_load_bytes(skb, offset + 2, &before, sizeof(before)))
		return 0;
	after = bpf_htons(most);
	if (!bpf_skb_store_bytes(skb, offset + 2, &after, sizeof(after), 0))
		bpf_l4_csum_replace(skb, packet->network + packet->headers + TCP_CHECK,
				    mss_summed(before, offset, packet),
				    mss_summed(after, offset, packet), sizeof(before));
	return 0;
}

/*
 * The device towards the client; the uplink where the kernel does not say. *ret_mtu: what fits there, as far
 * as is known, or 0.
 */
static __always_inline __u32 skb_route(struct __sk_buff *skb, struct packet *packet,
				       const struct translation *translation, bool ipv6,
				       __u32 *ret_mtu)
{
	/* A length of its own, else the kernel judges the packet's by the device, and not by the route. */
	struct bpf_fib_lookup fib = { .tot_len = 1 };

	*ret_mtu = 0;
	packet->translation = *translation;
	switch (hop_ask(skb, &fib, translation, packet->protocol, skb->ifindex, ipv6)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		*ret_mtu = hop_mtu(fib.ifindex, fib.mtu_result, ipv6);
		return fib.ifindex;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		/* Linux 5.10 judges all the same; it tells no MTU. */
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		*ret_mtu = hop_mtu(fib.ifindex, 0, ipv6);
		return fib.ifindex;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
	case BPF_FIB_LKUP_RET_UNSUPP_LWT:
		return uplink();
	default:
		return 0;
	}
}

/* Whether the packet, or what it will be cut into by segmentation, is more than that. */
static __always_inline bool skb_overflows(struct __sk_buff *skb, const struct packet *packet,
					  const struct frame *frame, __u32 mtu)
{
	const struct tcphdr *tcp = frame->transport;
	__u32 bytes = packet->bytes;

	if (skb->gso_size) {
		bytes = packet->headers + sizeof(struct udphdr) + skb->gso_size;
		if (packet->protocol == IPPROTO_TCP && (void *)(tcp + 1) <= frame->end)
			bytes += tcp->doff * 4 - sizeof(struct udphdr);
	}
	return mtu && bytes > mtu;
}

/*
 * A reply that is too big: its sender is told. 0: it has not asked to be told, and what comes out can be
 * fragmented.
 */
static __always_inline int skb_too_big(struct __sk_buff *skb, struct packet *packet,
				       const struct frame *frame, __u32 mtu)
{
	bool partial = partial_found(packet, frame) || skb->gso_size;

	packet->hop_family = XLB_IPV4;
	if (!partial && !packet->ipv6 && packet->bytes <= SPLIT_MOST &&
	    may_split(packet, frame->network, frame->end))
		return 0;
	if (tell_too_big(skb, mtu, partial))
		return skb_count(packet, VERDICT_DROP, XLB_DROP_TOO_BIG);
	skb_count(packet, VERDICT_ANSWER, XLB_DROP_NONE);
	return bpf_redirect(skb->ifindex, 0);
}

/*
 * What leaves by another link than it came by leaves without the VLAN tag that lies beside it: one that XDP has
 * not seen, because the NIC or the other end of a veth had put it there. (One that XDP has left on purpose
 * stays on its link.) Of devices without XDP it is not known whether they have VLANs: the route names the link.
 */
static __always_inline void tag_drop(struct __sk_buff *skb, __u32 ifindex)
{
	if (skb->vlan_present && (ifindex != skb->ifindex || !device_has(ifindex, XLB_DEVICE_XDP) ||
				  device_untags(ifindex)))
		bpf_skb_vlan_pop(skb);
}

/* A reply that came in by a device without our XDP program. */
static __always_inline int skb_restore(struct __sk_buff *skb, struct packet *packet,
				       const struct frame *frame, bool ipv6)
{
	struct translation translation;
	struct reply reply;
	__u64 secret[2], endpoint;
	__u32 ifindex, mtu;
	bool split;
	int action;

	secret_get(secret);
	if (!reply_possible(packet, frame, ipv6, secret, &endpoint) ||
	    !reply_find(packet, endpoint, ipv6, secret, &reply) || packet->ttl <= 1)
		return TC_ACT_UNSPEC;
	packet->now = tick_now();
	reply_outcome(packet, &reply, ipv6);
	reply_translation(packet, &reply, ipv6, &translation);
	flow_touch(&reply.flow, reply.value, packet, ipv6);
	ifindex = skb_route(skb, packet, &translation, ipv6, &mtu);
	if (!ifindex)
		return skb_count(packet, VERDICT_DROP, XLB_DROP_NO_ROUTE);
	split = skb_overflows(skb, packet, frame, mtu);
	if (split) {
		action = skb_too_big(skb, packet, frame, mtu);
		if (action)
			return action;
	}
	if (packet->tcp_flags & TCP_SYN)
		tc_check_mss(skb);
	if (!skb_translate(skb, packet, &translation, true, ipv6))
		return skb_count(packet, VERDICT_DROP, XLB_DROP_EMIT_FAILED);
	skb_count(packet, VERDICT_STACK, XLB_DROP_NONE);
	tag_drop(skb, ifindex);
	if (split && split_send(skb, mtu, split_address(skb))) {
		count_drop(XLB_DROP_TOO_BIG);
		return TC_ACT_SHOT;
	}
	return bpf_redirect_neigh(ifindex, NULL, 0, 0);
}

/* A reply of this node's own on its way out: only the VIP has to be put in. */
static __always_inline int skb_rename(struct __sk_buff *skb, struct packet *packet,
				      const struct frame *frame, bool ipv6)
{
	struct translation translation;
	struct reply reply;
	__u64 secret[2], endpoint;

	secret_get(secret);
	if (!reply_possible(packet, frame, ipv6, secret, &endpoint) ||
	    !reply_find(packet, endpoint, ipv6, secret, &reply) || reply.value.port)
		return TC_ACT_UNSPEC;
	packet->now = tick_now();
	reply_outcome(packet, &reply, ipv6);
	reply_translation(packet, &reply, ipv6, &translation);
	flow_touch(&reply.flow, reply.value, packet, ipv6);
	if (packet->tcp_flags & TCP_SYN)
		tc_check_mss(skb);
	/* The kernel has routed it. */
	if (!skb_translate(skb, packet, &translation, false, ipv6))
		return skb_count(packet, VERDICT_DROP, XLB_DROP_EMIT_FAILED);
	return skb_count(packet, VERDICT_LOCAL, XLB_DROP_NONE);
}

/* Takes the note of XDP, if there is one: nobody is to find it again. */
static __always_inline bool note_take(struct __sk_buff *skb, struct xlb_note *ret_note)
{
	struct xlb_note *note = (void *)(long)skb->data_meta;

	if ((void *)(note + 1) > (void *)(long)skb->data || note->magic != (__u32)cfg.secret[1])
		return false;
	*ret_note = *note;
	note->magic = 0;
	return true;
}

/* Takes account of what XDP has changed under a checksum that is perhaps not finished. */
static __always_inline void note_checksum(struct __sk_buff *skb, const struct xlb_note *note)
{
	__u64 flags = note->udp ? BPF_F_MARK_MANGLED_0 : 0;

	bpf_l4_csum_replace(skb, note->check * 2, 0, note->address_sum, flags | BPF_F_PSEUDO_HDR);
	bpf_l4_csum_replace(skb, note->check * 2, 0, note->other_sum, flags);
}

/* Does with a packet what its note says, of which this is a copy. */
static __always_inline int note_follow(struct __sk_buff *skb, const struct xlb_note *note)
{
	struct bpf_redir_neigh next = {};
	int action;

	if (note->held && !note->ifindex)
		return held_keep(skb, note->datagram);
	if (note->ifindex != XLB_LOOPBACK_IFINDEX)
		tag_drop(skb, note->ifindex);
	if (note->held) {
		action = release_send(skb, note);
		if (action >= 0)
			return action;
	} else if (note->check) {
		note_checksum(skb, note);
	}
	if (note->ifindex == XLB_LOOPBACK_IFINDEX)
		return TC_ACT_UNSPEC;
	if (note->mtu && (!split_aim(skb, note) ||
			  split_send(skb, note->mtu, split_address(skb)))) {
		count_drop(XLB_DROP_TOO_BIG);
		return TC_ACT_SHOT;
	}
	if (!note->family)
		return bpf_redirect_neigh(note->ifindex, NULL, 0, 0);
	next.nh_family = note->family == XLB_IPV6 ? AF_INET6 : AF_INET;
	next.ipv6_nh[0] = note->next_hop[0];
	next.ipv6_nh[1] = note->next_hop[1];
	next.ipv6_nh[2] = note->next_hop[2];
	next.ipv6_nh[3] = note->next_hop[3];
	return bpf_redirect_neigh(note->ifindex, &next, sizeof(next), 0);
}

SEC("tc")
int xlb_ingress(struct __sk_buff *skb)
{
	struct packet *packet = packet_get();
	struct xlb_note note;
	struct frame frame;

	if (note_take(skb, &note))
		return note_follow(skb, &note);
	if (!packet || skb_parse(skb, packet, &frame))
		return TC_ACT_UNSPEC;
	return packet->ipv6 ? skb_restore(skb, packet, &frame, true) :
			      skb_restore(skb, packet, &frame, false);
}

SEC("tc")
int xlb_egress(struct __sk_buff *skb)
{
	struct packet *packet = packet_get();
	struct frame frame;

	if (!packet || skb_parse(skb, packet, &frame))
		return TC_ACT_UNSPEC;
	return packet->ipv6 ? skb_rename(skb, packet, &frame, true) :
			      skb_rename(skb, packet, &frame, false);
}

char _license[] SEC("license") = "GPL";
