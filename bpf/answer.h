/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Answering in the VIP's name, out of the device that the packet came by, to the neighbour that
 * sent it.
 *
 * Nobody takes it: TCP gets a RST that the client must accept (RFC 9293, 3.5.2): the sequence
 * number that it acknowledged, or 0 with an acknowledgment of all that it sent; UDP an ICMP port
 * unreachable (RFC 792, RFC 4443 3.1). Errors on the way (too big, no hop left) are ICMP too, and
 * quote the packet's beginning. Fragments but the first, and ICMP errors, are never answered (RFC
 * 1122, 3.2.2). Errors, and RSTs to other packets than SYNs, are rationed for each CPU.
 */
#ifndef XLB_ANSWER_H
#define XLB_ANSWER_H

#include "config.h"
#include "dissect.h"
#include "maps.h"
#include "packet.h"
#include "rewrite.h"

/* <linux/icmp.h> wants the host's C library. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 rest;
};

#define ICMP_ECHO_REPLY 0
#define ICMP_PORT 3
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_PORT 4
#define ICMP6_ECHO_REPLY 129

#define ANSWER_TTL 64
/*
 * Bytes of a packet that are quoted at most: what makes an error of no more than 576 bytes (RFC 1812,
 * 4.3.2.3), of IPv6 1280 (RFC 4443, 2.4 c).
 */
#define QUOTE4_MAX (576 - sizeof(struct iphdr) - sizeof(struct icmp_header))
#define QUOTE6_MAX (1280 - sizeof(struct ipv6hdr) - sizeof(struct icmp_header))
#define SUM_CHUNK 512		/* what bpf_csum_diff takes at a time */
#define SUM_OFFSET_MAX 0x7ff

/* What answers cost, and how much may be spent in a second on a CPU, and saved up. */
#define ANSWER_BUDGET 10000
#define ANSWER_COST_RST 1
#define ANSWER_COST_ICMP 10

/* A token bucket. */
struct ration {
	__u64 renewed;	/* jiffies */
	__u64 left;	/* times cfg.hz, so that a jiffy brings a whole number */
};

XLB_PERCPU_ARRAY(rations, struct ration);

/* How an answer came out. */
enum answer_result {
	ANSWER_SENT = 0,
	ANSWER_FAILED,		/* the frame has no room for it */
	ANSWER_RATIONED,
};

static __always_inline bool ration_take(__u64 cost)
{
	__u32 zero = 0;
	struct ration *ration = bpf_map_lookup_elem(&rations, &zero);
	__u64 now = bpf_jiffies64(), full = (__u64)ANSWER_BUDGET * cfg.hz, left;

	if (!ration)
		return false;
	left = full;
	if (now - ration->renewed < cfg.hz)
		left = ration->left + (now - ration->renewed) * ANSWER_BUDGET;
	if (left > full)
		left = full;
	cost *= cfg.hz;
	if (left < cost)
		return false;
	ration->renewed = now;
	ration->left = left - cost;
	return true;
}

static __always_inline void ethernet_swap(void *data)
{
	/* destination and two bytes of the source */
	__u64 first = *(__u64 *)data;
	__u32 rest = *(__u32 *)(data + 8);

	*(__u64 *)data = first >> 48 | (__u64)rest << 16 | (first & 0xffff) << 48;
	*(__u32 *)(data + 8) = first >> 16;
}

/* A header from the VIP to the client. */
static __always_inline void answer_ipv4(struct iphdr *ip, const struct packet *packet,
					__u8 protocol, __u16 payload)
{
	__u16 *word = (__u16 *)ip;
	__u64 sum = 0;

	*word = bpf_htons(0x4500);
	ip->tot_len = bpf_htons(sizeof(*ip) + payload);
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DONT_FRAGMENT);
	ip->ttl = ANSWER_TTL;
	ip->protocol = protocol;
	ip->check = 0;
	ip->saddr = packet->destination.word[0];
	ip->daddr = packet->source.word[0];
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	ip->check = ~xlb_sum_fold(sum);
}

static __always_inline void answer_ipv6(struct ipv6hdr *ip, const struct packet *packet,
					__u8 protocol, __u16 payload)
{
	*(__u32 *)ip = bpf_htonl(0x60000000);
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = protocol;
	ip->hop_limit = ANSWER_TTL;
	address_copy(&ip->saddr, &packet->destination);
	address_copy(&ip->daddr, &packet->source);
}

/* Ethernet and IP headers of an answer; the frame is long enough for them. */
static __always_inline void answer_network(void *data, __u32 network, const struct packet *packet,
					   __u8 protocol, __u16 payload)
{
	ethernet_swap(data);
	if (packet->ipv6)
		answer_ipv6(data + network, packet, protocol, payload);
	else
		answer_ipv4(data + network, packet, protocol, payload);
}

/* The pseudo header's sum (RFC 9293 3.1, RFC 8200 8.1); direction does not matter. */
static __always_inline __u64 pseudo_header(const struct packet *packet, __u8 protocol,
					   __u16 payload)
{
	__u64 sum = (__u64)bpf_htons(protocol) + bpf_htons(payload);

	sum += (__u64)packet->source.word[0] + packet->destination.word[0];
	if (packet->ipv6)
		sum += (__u64)packet->source.word[1] + packet->source.word[2] +
		       packet->source.word[3] + packet->destination.word[1] +
		       packet->destination.word[2] + packet->destination.word[3];
	return sum;
}

/* Cuts the frame, or makes it longer, to so many bytes. */
static __always_inline int frame_resize(struct xdp_md *ctx, const struct packet *packet,
					__u32 bytes)
{
	return bpf_xdp_adjust_tail(ctx, (int)bytes - (int)packet->frame);
}

/* What a RST must carry. */
struct reset {
	__be32 sequence;
	__be32 acknowledgment;
	__u8 flags;
};

static __always_inline struct reset reset_for(const struct packet *packet,
					      const struct tcphdr *tcp)
{
	__u32 length = packet->bytes - packet->headers - tcp->doff * 4 + tcp->syn + tcp->fin;

	if (packet->tcp_flags & TCP_ACK)
		return (struct reset){ .sequence = tcp->ack_seq, .flags = TCP_RST };
	return (struct reset){ .acknowledgment = bpf_htonl(bpf_ntohl(tcp->seq) + length),
			       .flags = TCP_RST | TCP_ACK };
}

static __always_inline void answer_tcp_header(struct tcphdr *tcp, const struct packet *packet,
					      struct reset reset)
{
	__u64 sum = pseudo_header(packet, IPPROTO_TCP, sizeof(*tcp));

	tcp->source = packet->destination_port;
	tcp->dest = packet->source_port;
	tcp->seq = reset.sequence;
	tcp->ack_seq = reset.acknowledgment;
	((__u16 *)tcp)[6] = bpf_htons(0x5000 | reset.flags);
	tcp->window = 0;
	tcp->check = 0;
	tcp->urg_ptr = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += ((__u16 *)tcp)[i];
	tcp->check = ~xlb_sum_fold(sum);
}

static __always_inline enum answer_result answer_tcp(struct xdp_md *ctx,
						     const struct packet *packet)
{
	__u32 network = packet->network & OFFSET_MAX, transport = packet->headers & OFFSET_MAX;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + network + transport;
	struct reset reset;

	if ((void *)(tcp + 1) > end)
		return ANSWER_FAILED;
	if (!(packet->tcp_flags & TCP_SYN) && !ration_take(ANSWER_COST_RST))
		return ANSWER_RATIONED;
	reset = reset_for(packet, tcp);
	transport = network + (packet->ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	if (frame_resize(ctx, packet, transport + sizeof(*tcp)))
		return ANSWER_FAILED;
	/* else clang counts back from the end, which the verifier cannot follow */
	barrier_var(transport);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	tcp = data + transport;
	if (data + ETH_HLEN > end || data + network + sizeof(struct ipv6hdr) > end ||
	    (void *)(tcp + 1) > end)
		return ANSWER_FAILED;
	answer_network(data, network, packet, IPPROTO_TCP, sizeof(*tcp));
	answer_tcp_header(tcp, packet, reset);
	return ANSWER_SENT;
}

/* If there are so many bytes more, adds them to the sum in hand, and goes on behind them. */
static __always_inline void sum_chunk(struct packet *packet, void *data, void *end, __u32 bytes)
{
	__u64 offset = RECALL(packet->cursor);
	void *at;

	barrier_var(offset);
	at = data + (offset & SUM_OFFSET_MAX);
	if (at + bytes > end)
		return;
	packet->translation.address_sum += (__u32)bpf_csum_diff(NULL, 0, at, bytes, 0);
	packet->cursor = offset + bytes;
}

/*
 * The sum of the frame from an offset on, to its end, which is a multiple of 4 bytes away, and less than
 * three of the longest chunks. All that changes is in memory, so that the verifier sees one way.
 */
static __always_inline __u64 sum_to_end(struct packet *packet, void *data, void *end, __u32 offset)
{
	packet->cursor = offset;
	packet->translation.address_sum = 0;
	sum_chunk(packet, data, end, SUM_CHUNK);
#pragma unroll
	for (__u32 bytes = SUM_CHUNK; bytes >= 4; bytes /= 2)
		sum_chunk(packet, data, end, bytes);
	return RECALL(packet->translation.address_sum);
}

/* The ICMP error for what the packet is answered. */
static __always_inline struct icmp_header icmp_error_for(const struct packet *packet)
{
	bool ipv6 = packet->ipv6;

	if (packet->answer == ANSWER_TOO_BIG)
		return (struct icmp_header){
			.type = ipv6 ? ICMP6_TOO_BIG : ICMP_UNREACHABLE,
			.code = ipv6 ? 0 : ICMP_FRAGMENTATION,
			.rest = bpf_htonl(packet->mtu),
		};
	if (packet->answer == ANSWER_TIME_EXCEEDED)
		return (struct icmp_header){ .type = ipv6 ? ICMP6_TIME_EXCEEDED :
							    ICMP_TIME_EXCEEDED };
	return (struct icmp_header){
		.type = ipv6 ? ICMP6_UNREACHABLE : ICMP_UNREACHABLE,
		.code = ipv6 ? ICMP6_PORT : ICMP_PORT,
	};
}

/* An ICMP error that quotes what there is of the packet, in whole words. */
static __always_inline enum answer_result answer_icmp(struct xdp_md *ctx, struct packet *packet)
{
	__u32 network = packet->network & OFFSET_MAX, quote = packet->bytes;
	__u32 most = packet->ipv6 ? QUOTE6_MAX : QUOTE4_MAX;
	__u32 header = packet->ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 protocol = packet->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	__u8 ethernet[ETH_HLEN + 2 * VLAN_TAG_BYTES];
	struct icmp_header *icmp;
	__u64 sum = 0, readable;

	if (!ration_take(ANSWER_COST_ICMP))
		return ANSWER_RATIONED;
	quote = (quote > most ? most : quote) & ~3;
	if (data + sizeof(ethernet) > end)
		return ANSWER_FAILED;
	/* Of a frame in several buffers, what is in the first. */
	readable = (__u64)end - (__u64)data;
	barrier_var(readable);		/* a difference of pointers must stay 64 bits wide */
	if (network + quote > readable)
		quote = (readable - network) & ~3;
	__builtin_memcpy(ethernet, data, sizeof(ethernet));
	if (frame_resize(ctx, packet, network + quote) ||
	    bpf_xdp_adjust_head(ctx, -(int)(header + sizeof(*icmp))))
		return ANSWER_FAILED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	barrier_var(header);
	icmp = data + network + header;
	if (data + sizeof(ethernet) > end || data + network + sizeof(struct ipv6hdr) > end ||
	    (void *)(icmp + 1) > end)
		return ANSWER_FAILED;
	__builtin_memcpy(data, ethernet, sizeof(ethernet));
	*icmp = icmp_error_for(packet);
	answer_network(data, network, packet, protocol, quote + sizeof(*icmp));
	if (packet->ipv6)
		sum = pseudo_header(packet, protocol, quote + sizeof(*icmp));
	icmp->check = ~xlb_sum_fold(sum + sum_to_end(packet, data, end, network + header));
	return ANSWER_SENT;
}

/* An echo request goes back as a reply: addresses change places, which no sum sees. */
static __always_inline enum answer_result answer_echo(struct xdp_md *ctx,
						      const struct packet *packet)
{
	__u32 network = packet->network & OFFSET_MAX, headers = packet->headers & OFFSET_MAX;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct icmp_header *icmp = data + network + headers;
	struct ipv6hdr *ip6 = data + network;
	struct iphdr *ip4 = data + network;
	__u16 before, *word = (__u16 *)&ip4->ttl;
	bool ipv6 = packet->ipv6;

	if (data + ETH_HLEN > end || (void *)(ip4 + 1) > end || (void *)(icmp + 1) > end)
		return ANSWER_FAILED;
	if (ipv6 && (void *)(ip6 + 1) > end)
		return ANSWER_FAILED;
	ethernet_swap(data);
	before = *(__u16 *)icmp;
	icmp->type = ipv6 ? ICMP6_ECHO_REPLY : ICMP_ECHO_REPLY;
	icmp->check = checksum_adjust(icmp->check, (__u64)(__u16)~before + *(__u16 *)icmp);
	if (ipv6) {
		ip6->hop_limit = ANSWER_TTL;
		address_copy(&ip6->saddr, &packet->destination);
		address_copy(&ip6->daddr, &packet->source);
	} else {
		before = *word;
		ip4->ttl = ANSWER_TTL;
		ip4->check = checksum_adjust(ip4->check, (__u64)(__u16)~before + *word);
		ip4->saddr = packet->destination.word[0];
		ip4->daddr = packet->source.word[0];
	}
	return ANSWER_SENT;
}

/* Turns the packet in hand into its answer. Returns an enum answer_result. */
__weak __noinline int answer(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();

	if (!packet || packet->kind >= KIND_LATER_FRAGMENT)
		return ANSWER_FAILED;
	if (packet->answer == ANSWER_ECHO)
		return answer_echo(ctx, packet);
	if (packet->answer == ANSWER_REFUSED && packet->protocol == IPPROTO_TCP)
		return answer_tcp(ctx, packet);
	return answer_icmp(ctx, packet);
}

/* How a packet that could not be answered is counted. */
static __always_inline enum xlb_drop answer_drop(const struct packet *packet, int result)
{
	if (packet->answer == ANSWER_TOO_BIG)
		return XLB_DROP_TOO_BIG;
	if (packet->answer == ANSWER_TIME_EXCEEDED)
		return XLB_DROP_TTL;
	return result == ANSWER_RATIONED ? XLB_DROP_RATE_LIMITED : XLB_DROP_ANSWER_FAILED;
}

#endif
