/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Putting a header to the backend around a packet: IP in IP (RFC 2003, 2473, 4213), or with UDP
 * between (GUE variant 1: what follows UDP is an IP header). The packet inside stays as it is, but
 * for its TTL.
 */
#ifndef XLB_TUNNEL_H
#define XLB_TUNNEL_H

#include "maps.h"
#include "packet.h"
#include "service.h"

#define TUNNEL_TTL 64
#define GUE_SOURCE_PORTS 0x8000	/* source ports are the upper half */

/* What a tunnel to that backend adds to a packet. */
static __always_inline __u32 tunnel_bytes(const struct xlb_backend *backend, __u8 forward)
{
	__u32 header = backend->family == XLB_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	if (forward < XLB_FORWARD_IPIP)
		return 0;
	return header + (forward == XLB_FORWARD_GUE ? sizeof(struct udphdr) : 0);
}

/* A number of the flow, the same in all its packets and fragments, spread over all 32 bits. */
static __always_inline __u32 tunnel_spread(const struct packet *packet, bool ipv6)
{
	const struct xlb_address *source = &packet->source;
	__u64 word = source->word[0] ^ ((__u64)packet->source_port << 32 | packet->destination_port);

	if (ipv6)
		word ^= (source->word[1] ^ source->word[2]) + ((__u64)source->word[3] << 16);
	word *= 0x9e3779b97f4a7c15ull;
	return (word ^ word >> 29) * 0xbf58476d1ce4e5b9ull >> 32;
}

static __always_inline void outer_ipv4(void *at, const struct xlb_backend *backend, __u8 protocol,
				       __u8 dscp, __u32 bytes, __u32 spread)
{
	__u64 sum, *words = at;
	__be32 bits = spread & backend->source_mask;

	words[0] = bpf_htons(0x4500 | dscp) | (__u64)bpf_htons(bytes) << 16 |
		   (__u64)bpf_htons(IP_DONT_FRAGMENT) << 48;
	words[1] = bpf_htons(TUNNEL_TTL << 8 | protocol) |
		   (__u64)(backend->source.word[0] | bits) << 32;
	*(__be32 *)(at + 16) = backend->address.word[0];
	sum = (words[0] & 0xffff) + (words[0] >> 16 & 0xffff) + (words[0] >> 48) +
	      (words[1] & 0xffff) + backend->source_sum + backend->address_sum +
	      (bits & 0xffff) + (bits >> 16);
	/* Eight numbers of 16 bits: one fold leaves at most one carry. */
	sum = (sum & 0xffff) + (sum >> 16);
	((struct iphdr *)at)->check = ~(sum + (sum >> 16));
}

static __always_inline void outer_ipv6(void *at, const struct xlb_backend *backend, __u8 protocol,
				       __u8 dscp, __u32 payload, __u32 spread)
{
	struct ipv6hdr *ip = at;

	*(__be32 *)ip = bpf_htonl(0x60000000 | (__u32)dscp << 20 | (spread >> 12));
	*(__u32 *)&ip->payload_len = bpf_htons(payload) | (__u32)bpf_htons(protocol << 8 |
									   TUNNEL_TTL) << 16;
	address_copy(&ip->saddr, &backend->source);
	ip->saddr.in6_u.u6_addr32[3] |= spread & backend->source_mask;
	address_copy(&ip->daddr, &backend->address);
}

/* GUE: checksum 0 for now, which RFC 6936 allows over IPv6 where what is inside has one of its own. */
static __always_inline void outer_udp(void *at, const struct xlb_backend *backend, __u32 payload,
				      __u32 spread)
{
	struct udphdr *udp = at;

	udp->source = bpf_htons(GUE_SOURCE_PORTS | (spread & (GUE_SOURCE_PORTS - 1)));
	udp->dest = backend->tunnel_port;
	udp->len = bpf_htons(payload);
	udp->check = 0;
}

/* A 16-bit word to add where one is to be taken away. */
static __always_inline __u32 sum_minus(__be16 word)
{
	return (__u16)~word;
}

/*
 * The sum of a whole packet, of which not all is looked at: what its checksum covers adds up to
 * nothing with its pseudo header (local checksum offload: the kernel's
 * Documentation/networking/checksum-offloads.rst). -1: it has none that covers all.
 */
static __always_inline __s64 covered_sum(const struct packet *packet, void *data, __u32 network,
					 void *end)
{
	__u32 payload = packet->bytes - packet->headers, *words = header_at(data, network);
	struct udphdr *udp = header_at(data, network + packet->headers);
	bool error = packet->kind == KIND_ERROR;
	struct iphdr *ip = (void *)words;

	if ((!error && packet->kind != KIND_WHOLE) || (void *)(ip + 1) > end)
		return -1;
	if (!error && packet->protocol == IPPROTO_UDP &&
	    ((void *)(udp + 1) > end || !udp->check || udp->len != bpf_htons(payload)))
		return -1;
	if (packet->ipv6) {
		if (packet->headers != sizeof(struct ipv6hdr))
			return -1;
		return (__u64)words[0] + words[1] + sum_minus(bpf_htons(payload)) +
		       sum_minus(bpf_htons(error ? IPPROTO_ICMPV6 : packet->protocol));
	}
	/* The header adds up to nothing alone, and so does ICMP. */
	if (error)
		return 0;
	return (__u64)(__u32)~ip->saddr + (__u32)~ip->daddr + sum_minus(bpf_htons(payload)) +
	       sum_minus(bpf_htons(packet->protocol));
}

/* Fills in the UDP checksum of GUE over IPv6 (RFC 8200, 8.1), if that of what is inside shows it. */
__weak __noinline int gue_checksum(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet *packet = packet_get();
	struct ipv6hdr *outer;
	struct udphdr *udp;
	__u32 *words;
	__s64 sum;

	if (!packet)
		return 0;
	outer = header_at(data, packet->network);
	udp = (void *)(outer + 1);
	words = (void *)&outer->saddr;
	if ((void *)(udp + 1) > end)
		return 0;
	sum = covered_sum(packet, data, packet->network + sizeof(*outer) + sizeof(*udp), end);
	if (sum < 0)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < 2 * sizeof(struct xlb_address) / 4; i++)
		sum += words[i];
	sum += bpf_htons(IPPROTO_UDP) + 2 * udp->len + udp->source + udp->dest;
	udp->check = ~xlb_sum_fold(sum);
	if (!udp->check)
		udp->check = 0xffff;
	return 0;
}

/* DSCP and ECN (RFC 6040, normal mode: the outer header starts with a copy). */
static __always_inline __u8 traffic_class(const void *network, bool ipv6)
{
	if (ipv6)
		return bpf_ntohs(*(const __be16 *)network) >> 4;
	return ((const __u8 *)network)[1];
}

/*
 * Takes so many bytes off the front, or adds them (less than 0), and moves Ethernet header and tags.
 * 0 or -1.
 */
__weak __noinline int link_move(struct xdp_md *ctx, int bytes)
{
	void *data = (void *)(long)ctx->data;
	__u64 link[3], *words = data;

	if (data + sizeof(link) > (void *)(long)ctx->data_end)
		return -1;
	link[0] = words[0];
	link[1] = words[1];
	link[2] = words[2];
	if (bpf_xdp_adjust_head(ctx, bytes))
		return -1;
	data = (void *)(long)ctx->data;
	words = data;
	if (data + sizeof(link) > (void *)(long)ctx->data_end)
		return -1;
	/* The last two bytes are none of the link's: they are overwritten, as the type is. */
	words[0] = link[0];
	words[1] = link[1];
	words[2] = link[2];
	return 0;
}

/*
 * Makes room in front, and moves the addresses of the link there: the kernel looks at them if the
 * packet leaves by its way. The type is written anew.
 */
static __always_inline int room_make(struct xdp_md *ctx, __u32 header, __u32 tags)
{
	void *data = (void *)(long)ctx->data;
	__u64 first;
	__u32 rest;

	if (__builtin_expect(tags, 0))
		return link_move(ctx, -(int)header);
	if (data + ETH_HLEN > (void *)(long)ctx->data_end)
		return -1;
	first = *(__u64 *)data;
	rest = *(__u32 *)(data + 8);
	if (bpf_xdp_adjust_head(ctx, -(int)header))
		return -1;
	data = (void *)(long)ctx->data;
	if (data + ETH_HLEN > (void *)(long)ctx->data_end)
		return -1;
	*(__u64 *)data = first;
	*(__u32 *)(data + 8) = rest;
	return 0;
}

/*
 * Writes the outer headers at `at`, behind the link's, of which `type` is the last word. The caller has
 * made sure that there are as many bytes as an IPv4 header and a UDP header take; false: not as many as
 * IPv6 takes.
 */
static __always_inline bool outer_write(const struct packet *packet,
					const struct xlb_backend *backend, void *at, void *end,
					__be16 *type, __u8 forward, __u32 header, __u8 dscp,
					bool ipv6)
{
	__u32 bytes = packet->bytes + header, spread = packet->source.word[0];
	__u8 inner = ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	bool udp = forward == XLB_FORWARD_GUE;

	/* Not wanted for IPIP from one source; the verifier must not know what it is then. */
	if (udp || backend->family == XLB_IPV6 || backend->source_mask)
		spread = tunnel_spread(packet, ipv6);
	if (udp)
		inner = IPPROTO_UDP;
	if (backend->family == XLB_IPV6) {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) + sizeof(struct udphdr) > end)
			return false;
		*type = bpf_htons(ETH_P_IPV6);
		bytes -= sizeof(*ip);
		outer_ipv6(ip, backend, inner, dscp, bytes, spread);
		if (udp)
			outer_udp(ip + 1, backend, bytes, spread);
	} else {
		struct iphdr *ip = at;

		*type = bpf_htons(ETH_P_IP);
		outer_ipv4(ip, backend, inner, dscp, bytes, spread);
		if (udp)
			outer_udp(ip + 1, backend, bytes - sizeof(*ip), spread);
	}
	return true;
}

static __always_inline bool wants_gue_checksum(const struct xlb_backend *backend, __u8 forward)
{
	return __builtin_expect(forward == XLB_FORWARD_GUE && backend->family == XLB_IPV6 &&
				backend->tunnel_checksum, 0);
}

/*
 * Puts headers around the packet in hand, to a backend by its id, and leaves it to emit() which link's
 * addresses are in front. 0, or -1: no room for them.
 */
__weak __noinline int encapsulate(struct xdp_md *ctx, __u32 id, __u32 forward, __u32 header)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *at;
	struct xlb_backend *backend = backend_get(id);
	struct packet *packet = packet_get();
	__u32 network;
	__be16 *type;
	__u8 dscp;

	if (!packet || !backend)
		return -1;
	network = packet->network & 31;
	at = data + network;
	if (at + 2 > end)
		return -1;
	dscp = packet->ipv6 ? traffic_class(at, true) : traffic_class(at, false);
	if (room_make(ctx, header, packet->vlan_tags))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	at = data + network;
	type = data + ((network - sizeof(*type)) & 31);
	/* Whatever is inside, it is longer than a UDP header. */
	if (at + sizeof(struct iphdr) + sizeof(struct udphdr) > end || (void *)(type + 1) > end)
		return -1;
	if (!(packet->ipv6 ? outer_write(packet, backend, at, end, type, forward, header, dscp, true) :
			     outer_write(packet, backend, at, end, type, forward, header, dscp,
					 false)))
		return -1;
	if (wants_gue_checksum(backend, forward))
		gue_checksum(ctx);
	return 0;
}

#endif
