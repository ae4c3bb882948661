/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From one family to the other: an IPv4 client of an IPv6 backend, and the other way around (nat
 * only: RFC 7915's translation of headers, with the addresses and ports of RFC 6146).
 *
 * Both copies of such a flow stand in the table of the client's family; a reply, which is of the
 * other one, is looked for there when its own knows nothing of it. Options and extension headers are
 * left behind. Fragments, ICMP errors and UDP over IPv4 without a checksum are dropped; what a
 * router says of the path is remembered, and said in our own name to the next packet that is too
 * big.
 */
#ifndef XLB_CROSS_H
#define XLB_CROSS_H

#include "dissect.h"
#include "hop.h"
#include "mss.h"
#include "packet.h"
#include "reply.h"
#include "rewrite.h"
#include "tunnel.h"

/*
 * An IPv4 packet that was an IPv6 one, and is no longer than this, may be fragmented on its way: whoever
 * sent it need not send shorter ones (RFC 7915, 5.1; RFC 8200, 5).
 */
#define CROSS_DONT_FRAGMENT 1260

static __always_inline __u32 cross_header(bool ipv6)
{
	return ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

/* Whether a packet from an endpoint is a reply to a client of the other family. */
static __always_inline bool reply_find_crossed(const struct packet *packet, struct reply *ret_reply)
{
	__u64 secret[2], endpoint;
	bool ipv6 = packet->ipv6;

	secret_get(secret);
	endpoint = xlb_endpoint_hash(source_mark(packet, ipv6, secret), secret);
	if (!(ipv6 ? reply_find_nat(packet, endpoint, true, false, ret_reply) :
		     reply_find_nat(packet, endpoint, false, true, ret_reply)))
		return false;
	ret_reply->key.word = *flow_key(ret_reply->flow.slot, !ipv6);
	return true;
}

/* What the client is to see, in packet.translation. IPv4 addresses are followed by zeroes. */
static __always_inline void cross_to_client(struct packet *packet, const struct reply *reply)
{
	const struct xlb_backend *backend = reply->backend;
	struct translation *to = &packet->translation;
	struct xlb_address client = { .word[0] = reply->key.client };

	if (!packet->ipv6)
		address_copy(&client, reply->flow.slot);
	address_copy(&to->source, &backend->vip);
	address_copy(&to->destination, &client);
	to->source_port = backend->vip_port;
	to->destination_port = reply->key.port;
	to->address_sum = backend->vip_sum + (__u64)(__u16)~backend->address_sum +
			  (__u64)(__u16)~backend->source_sum + address_plus(&client, true);
}

/* What the backend is to see; `port` stands for the client's. */
static __always_inline void cross_to_backend(struct packet *packet,
					     const struct xlb_backend *backend, __u16 port)
{
	struct translation *to = &packet->translation;

	address_copy(&to->source, &backend->source);
	address_copy(&to->destination, &backend->address);
	to->source_port = bpf_htons(port);
	to->destination_port = backend->port;
	to->address_sum = (__u64)backend->address_sum + (__u16)~backend->vip_sum +
			  backend->source_sum + address_minus(&packet->source, packet->ipv6);
}

/* How much longer the packet becomes; may be less than 0. */
static __always_inline int cross_bytes(const struct packet *packet)
{
	return (int)cross_header(!packet->ipv6) - packet->headers;
}

/*
 * What cannot be said in the other family; of an error, what it says of the path is kept for the next
 * packet that goes there.
 */
static __always_inline bool cross_possible(const struct packet *packet)
{
	if (packet->kind == KIND_ERROR && packet->mtu)
		path_note(&packet->source, packet->mtu, packet->ipv6);
	return packet->kind == KIND_WHOLE;
}

/* Whether it is more than the link takes, as it will be. */
static __always_inline bool cross_overflows(const struct packet *packet,
					    const struct xlb_next_hop *next)
{
	__u32 mtu = *(volatile __u16 *)&next->mtu, bytes = packet->bytes + cross_bytes(packet);

	return mtu && bytes > mtu && !(packet->ipv6 && bytes <= CROSS_DONT_FRAGMENT);
}

static __always_inline void cross_write_ipv4(struct iphdr *ip, const struct packet *packet,
					     __u8 tos, __u32 bytes)
{
	const struct translation *to = &packet->translation;
	bool whole = bytes > CROSS_DONT_FRAGMENT;
	__u16 *word = (__u16 *)ip;
	__u64 sum = 0;

	*word = bpf_htons(0x4500 | tos);
	ip->tot_len = bpf_htons(bytes);
	ip->id = whole ? 0 : bpf_get_prandom_u32();
	ip->frag_off = whole ? bpf_htons(IP_DONT_FRAGMENT) : 0;
	ip->ttl = packet->ttl - 1;
	ip->protocol = packet->protocol;
	ip->check = 0;
	ip->saddr = to->source.word[0];
	ip->daddr = to->destination.word[0];
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	ip->check = ~xlb_sum_fold(sum);
}

static __always_inline void cross_write_ipv6(struct ipv6hdr *ip, const struct packet *packet,
					     __u8 tos, __u32 bytes)
{
	const struct translation *to = &packet->translation;

	*(__be32 *)ip = bpf_htonl(0x60000000 | (__u32)tos << 20);
	ip->payload_len = bpf_htons(bytes - sizeof(*ip));
	ip->nexthdr = packet->protocol;
	ip->hop_limit = packet->ttl - 1;
	address_copy(&ip->saddr, &to->source);
	address_copy(&ip->daddr, &to->destination);
}

/*
 * Turns the packet in hand into one of the other family, by packet.translation. The pseudo headers
 * of both differ in nothing but the addresses. Returns 0 or an enum xlb_drop.
 */
__weak __noinline int cross(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	struct frame frame = {};
	__u32 bytes, header;
	__be16 *type;
	bool ipv6;
	__u8 tos;

	if (!packet)
		return XLB_DROP_UNTRANSLATABLE;
	ipv6 = packet->ipv6;
	frame.data = (void *)(long)ctx->data;
	frame.end = (void *)(long)ctx->data_end;
	if (!frame_find(&frame, packet, false) ||
	    frame.transport + sizeof(struct udphdr) > frame.end)
		return XLB_DROP_EMIT_FAILED;
	if (!ipv6 && packet->protocol == IPPROTO_UDP &&
	    !((struct udphdr *)frame.transport)->check)
		return XLB_DROP_UNTRANSLATABLE;
	tos = traffic_class(frame.network, ipv6);
	if (!translate_transport(packet, &frame, &packet->translation) ||
	    link_move(ctx, -cross_bytes(packet)))
		return XLB_DROP_EMIT_FAILED;
	frame.data = (void *)(long)ctx->data;
	frame.end = (void *)(long)ctx->data_end;
	frame.network = header_at(frame.data, RECALL(packet->network));
	type = frame.data + ((packet->network - sizeof(*type)) & 31);
	header = cross_header(!ipv6);
	bytes = packet->bytes - packet->headers + header;
	packet->headers = header;
	if ((void *)(type + 1) > frame.end || frame.network + sizeof(struct iphdr) > frame.end)
		return XLB_DROP_EMIT_FAILED;
	if (ipv6) {
		*type = bpf_htons(ETH_P_IP);
		cross_write_ipv4(frame.network, packet, tos, bytes);
		return 0;
	}
	if (frame.network + sizeof(struct ipv6hdr) > frame.end)
		return XLB_DROP_EMIT_FAILED;
	*type = bpf_htons(ETH_P_IPV6);
	cross_write_ipv6(frame.network, packet, tos, bytes);
	return 0;
}

/*
 * Sends the packet in hand to a next hop (see hop_look_up) as one of the other family, by
 * packet.translation. Returns an enum verdict.
 */
__weak __noinline int emit_crossed(struct xdp_md *ctx, __u64 which, __u32 fallback)
{
	struct xlb_next_hop *next = hop_of(which);
	struct packet *packet = packet_get();
	int reason, verdict;

	if (!packet || !next)
		return VERDICT_PASS;
	if (!cross_possible(packet))
		return dropped(packet, XLB_DROP_UNTRANSLATABLE);
	if (*(volatile __u32 *)&next->checked != packet->now)
		hop_look_up(ctx, which, fallback);
	if (cross_overflows(packet, next)) {
		verdict = too_big(ctx, next->mtu, cross_bytes(packet));
		if (verdict)
			return verdict;
	}
	if (packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	reason = cross(ctx);
	if (reason)
		return dropped(packet, reason);
	return emit(ctx, packet, hop_current(next));
}

/* To a backend of the other family, by its id; `port`: of the flow. Returns an enum verdict. */
__weak __noinline int serve_crossed(struct xdp_md *ctx, __u32 id, __u32 port)
{
	struct xlb_backend *backend = backend_get(id);
	struct packet *packet = packet_get();

	if (!packet || !backend)
		return VERDICT_PASS;
	/* A socket of this node: its flows are not translated (flow_begin). */
	if (!port)
		return dropped(packet, XLB_DROP_UNTRANSLATABLE);
	cross_to_backend(packet, backend, port);
	return emit_crossed(ctx, id | (packet->ipv6 ? 0 : HOP_IPV6), backend->ifindex);
}

/*
 * A packet that is no reply to a client of its own family: perhaps to one of the other. Returns an
 * enum verdict.
 */
__weak __noinline int restore_crossed(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	struct reply reply;
	__u32 slot;

	if (!packet || !reply_find_crossed(packet, &reply))
		return VERDICT_PASS;
	packet->now = tick_now();
	reply_outcome(packet, &reply, !packet->ipv6);
	flow_touch(&reply.flow, reply.value, packet, !packet->ipv6);
	cross_to_client(packet, &reply);
	if (!neighbour_get(&packet->translation.destination, true, &slot))
		return dropped(packet, XLB_DROP_NO_ROUTE);
	return emit_crossed(ctx, slot | HOP_CLIENT | (packet->ipv6 ? 0 : HOP_IPV6), 0);
}

#endif
