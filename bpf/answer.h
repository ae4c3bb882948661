/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Saying no: to a packet that nobody takes, in the VIP's name, so that the client knows at once.
 *
 * TCP: a RST that the client must accept (RFC 9293, 3.5.2): the sequence number that it acknowledged, or 0 with an
 * acknowledgment of all that it sent. UDP: ICMP port unreachable (RFC 792, RFC 4443 3.1) with its header and 8 bytes.
 * The answer goes back out of the device that the packet came by, to the neighbour that sent it.
 */
#ifndef XLB_ANSWER_H
#define XLB_ANSWER_H

#include "config.h"
#include "packet.h"

/* <linux/icmp.h> wants the host's C library. */
struct icmp_error {
	__u8 type;
	__u8 code;
	__u16 check;
	__u32 unused;
};

#define ICMP_UNREACHABLE 3	/* RFC 792 */
#define ICMP_PORT 3
#define ICMP6_UNREACHABLE 1	/* RFC 4443, 3.1 */
#define ICMP6_PORT 4

#define ANSWER_TTL 64
#define QUOTE_MAX 120	/* longest quote: IP header with all options, or some extension headers, and 8 bytes */

static __always_inline void ethernet_swap(void *data)
{
	__u64 first = *(__u64 *)data;			/* destination and two bytes of the source */
	__u32 rest = *(__u32 *)(data + 8);

	*(__u64 *)data = first >> 48 | (__u64)rest << 16 | (first & 0xffff) << 48;
	*(__u32 *)(data + 8) = first >> 16;
}

/* A header from the VIP to the client. */
static __always_inline void answer_ipv4(struct iphdr *ip, const struct packet *packet, __u8 protocol,
					__u16 payload)
{
	__u16 *word = (__u16 *)ip;
	__u64 sum = 0;

	*word = bpf_htons(0x4500);
	ip->tot_len = bpf_htons(sizeof(*ip) + payload);
	ip->id = 0;
	ip->frag_off = bpf_htons(0x4000);
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

static __always_inline void answer_ipv6(struct ipv6hdr *ip, const struct packet *packet, __u8 protocol,
					__u16 payload)
{
	*(__u32 *)ip = bpf_htonl(0x60000000);
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = protocol;
	ip->hop_limit = ANSWER_TTL;
	address_copy(&ip->saddr, &packet->destination);
	address_copy(&ip->daddr, &packet->source);
}

/* The pseudo header's sum (RFC 9293 3.1, RFC 8200 8.1); direction does not matter. */
static __always_inline __u64 pseudo_header(const struct packet *packet, __u8 protocol, __u16 payload,
					   bool ipv6)
{
	__u64 sum = (__u64)bpf_htons(protocol) + bpf_htons(payload);

	sum += (__u64)packet->source.word[0] + packet->destination.word[0];
	if (ipv6)
		sum += (__u64)packet->source.word[1] + packet->source.word[2] +
		       packet->source.word[3] + packet->destination.word[1] +
		       packet->destination.word[2] + packet->destination.word[3];
	return sum;
}

/* What a RST must carry. */
struct reset {
	__be32 sequence;
	__be32 acknowledgment;
	__u8 flags;
};

static __always_inline struct reset reset_for(const struct packet *packet)
{
	const struct tcphdr *tcp = packet->transport;
	__u32 length = packet->bytes - packet->headers - tcp->doff * 4 + tcp->syn + tcp->fin;

	if (packet->tcp_flags & TCP_ACK)
		return (struct reset){ .sequence = tcp->ack_seq, .flags = TCP_RST };
	return (struct reset){ .acknowledgment = bpf_htonl(bpf_ntohl(tcp->seq) + length),
			       .flags = TCP_RST | TCP_ACK };
}

static __noinline int answer_tcp(struct xdp_md *ctx, struct packet *packet, bool ipv6)
{
	void *data, *end;
	__u64 network, transport;
	struct reset reset;
	struct tcphdr *tcp;
	__u64 sum = 0;

	if (!packet || packet->transport + sizeof(*tcp) > packet->end)
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	network = ETH_HLEN + (packet->vlan_tags & 3) * VLAN_TAG_BYTES;
	reset = reset_for(packet);
	transport = network + (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	if (bpf_xdp_adjust_tail(ctx, (int)(transport + sizeof(*tcp)) - (int)(end - data)))
		return -1;
	barrier_var(transport);		/* else clang counts back from the end, which the verifier cannot follow */
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	tcp = data + transport;
	if (data + ETH_HLEN > end || data + network + sizeof(struct iphdr) > end ||
	    (void *)(tcp + 1) > end)
		return -1;
	ethernet_swap(data);
	if (ipv6) {
		if (data + network + sizeof(struct ipv6hdr) > end)
			return -1;
		answer_ipv6(data + network, packet, IPPROTO_TCP, sizeof(*tcp));
	} else {
		answer_ipv4(data + network, packet, IPPROTO_TCP, sizeof(*tcp));
	}
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
	sum += pseudo_header(packet, IPPROTO_TCP, sizeof(*tcp), ipv6);
	tcp->check = ~xlb_sum_fold(sum);
	return 0;
}

/* The sum of the last part of the frame, from `at` on, which ends with the quote. */
static __always_inline __u64 sum_to_end(void *at, void *end)
{
	__u64 sum = 0;

	for (int i = 0; i < (QUOTE_MAX + 8) / 4; i++) {
		if (at + 4 > end)
			break;
		sum += *(__u32 *)at;
		at += 4;
	}
	return sum;
}

static __noinline int answer_udp(struct xdp_md *ctx, struct packet *packet, bool ipv6)
{
	__u64 network, quote, headers, tail;
	struct icmp_error *icmp;
	void *data, *end;
	__u8 ethernet[ETH_HLEN + 2 * VLAN_TAG_BYTES];
	__u64 sum;

	if (!packet)
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	network = ETH_HLEN + (packet->vlan_tags & 3) * VLAN_TAG_BYTES;
	headers = (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + sizeof(*icmp);
	quote = packet->headers + sizeof(struct udphdr);
	if (quote > QUOTE_MAX || data + sizeof(ethernet) > end)
		return -1;
	__builtin_memcpy(ethernet, data, sizeof(ethernet));
	tail = network + quote;
	if (bpf_xdp_adjust_tail(ctx, (int)tail - (int)(end - data)) ||
	    bpf_xdp_adjust_head(ctx, -(int)headers))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	headers -= sizeof(*icmp);
	barrier_var(headers);
	icmp = data + network + headers;
	if (data + sizeof(ethernet) > end || (void *)(icmp + 1) > end ||
	    data + network + sizeof(struct iphdr) > end)
		return -1;
	__builtin_memcpy(data, ethernet, sizeof(ethernet));
	ethernet_swap(data);
	*icmp = (struct icmp_error){ .type = ICMP_UNREACHABLE, .code = ICMP_PORT };
	if (ipv6) {
		icmp->type = ICMP6_UNREACHABLE;
		icmp->code = ICMP6_PORT;
		if (data + network + sizeof(struct ipv6hdr) > end)
			return -1;
		answer_ipv6(data + network, packet, IPPROTO_ICMPV6, quote + sizeof(*icmp));
	} else {
		answer_ipv4(data + network, packet, IPPROTO_ICMP, quote + sizeof(*icmp));
	}
	sum = sum_to_end(icmp, end);
	if (ipv6)
		sum += pseudo_header(packet, IPPROTO_ICMPV6, quote + sizeof(*icmp), true);
	icmp->check = ~xlb_sum_fold(sum);
	return 0;
}

#endif
