/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Saying no: to a packet that nobody takes, in the VIP's name, so that the client knows at once.
 *
 * TCP: a RST that the client must accept (RFC 9293, 3.5.2): the sequence number that it
 * acknowledged, or 0 with an acknowledgment of all that it sent. UDP: ICMP port unreachable (RFC
 * 792, RFC 4443 3.1) with its header and 8 bytes. The answer goes back out of the device that the
 * packet came by, to the neighbour that sent it.
 */
#ifndef XLB_ANSWER_H
#define XLB_ANSWER_H

#include "config.h"
#include "maps.h"
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

/*
 * The packet to answer, as far as the answer needs it. Kept per CPU, because the functions below
 * take no pointers into packets: the verifier then looks at them once.
 */
struct refusal {
	struct xlb_address source;
	struct xlb_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 bytes;
	__u32 network;		/* offset of the IP header */
	__u32 headers;		/* its length */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 ipv6;
	__u8 pad[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct refusal);
} refusals SEC(".maps") __weak;

#define ANSWER_TTL 64
/* bounds offsets for the verifier; packets with longer headers are not answered */
#define OFFSET_MASK 0x1ff
/* longest quote: IP header with all options, or some extension headers, and 8 bytes */
#define QUOTE_MAX 120

static __always_inline void ethernet_swap(void *data)
{
	/* destination and two bytes of the source */
	__u64 first = *(__u64 *)data;
	__u32 rest = *(__u32 *)(data + 8);

	*(__u64 *)data = first >> 48 | (__u64)rest << 16 | (first & 0xffff) << 48;
	*(__u32 *)(data + 8) = first >> 16;
}

/* A header from the VIP to the client. */
static __always_inline void answer_ipv4(struct iphdr *ip, const struct refusal *refusal,
					__u8 protocol, __u16 payload)
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
	ip->saddr = refusal->destination.word[0];
	ip->daddr = refusal->source.word[0];
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	ip->check = ~xlb_sum_fold(sum);
}

static __always_inline void answer_ipv6(struct ipv6hdr *ip, const struct refusal *refusal,
					__u8 protocol, __u16 payload)
{
	*(__u32 *)ip = bpf_htonl(0x60000000);
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = protocol;
	ip->hop_limit = ANSWER_TTL;
	address_copy(&ip->saddr, &refusal->destination);
	address_copy(&ip->daddr, &refusal->source);
}

/* The pseudo header's sum (RFC 9293 3.1, RFC 8200 8.1); direction does not matter. */
static __always_inline __u64 pseudo_header(const struct refusal *refusal, __u8 protocol,
					   __u16 payload, bool ipv6)
{
	__u64 sum = (__u64)bpf_htons(protocol) + bpf_htons(payload);

	sum += (__u64)refusal->source.word[0] + refusal->destination.word[0];
	if (ipv6)
		sum += (__u64)refusal->source.word[1] + refusal->source.word[2] +
		       refusal->source.word[3] + refusal->destination.word[1] +
		       refusal->destination.word[2] + refusal->destination.word[3];
	return sum;
}

/* Cuts the frame, or makes it longer, to so many bytes. */
static __always_inline int frame_resize(struct xdp_md *ctx, __u32 bytes)
{
	__u64 length = (__u64)ctx->data_end - ctx->data;

	barrier_var(length);		/* a difference of pointers must stay 64 bits wide */
	return bpf_xdp_adjust_tail(ctx, (int)bytes - (int)length);
}

/* What a RST must carry. */
struct reset {
	__be32 sequence;
	__be32 acknowledgment;
	__u8 flags;
};

static __always_inline struct reset reset_for(const struct refusal *refusal,
					      const struct tcphdr *tcp)
{
	__u32 length = refusal->bytes - refusal->headers - tcp->doff * 4 + tcp->syn + tcp->fin;

	if (refusal->tcp_flags & TCP_ACK)
		return (struct reset){ .sequence = tcp->ack_seq, .flags = TCP_RST };
	return (struct reset){ .acknowledgment = bpf_htonl(bpf_ntohl(tcp->seq) + length),
			       .flags = TCP_RST | TCP_ACK };
}

static __always_inline void answer_tcp_header(struct tcphdr *tcp, const struct refusal *refusal,
					      struct reset reset, bool ipv6)
{
	__u64 sum = pseudo_header(refusal, IPPROTO_TCP, sizeof(*tcp), ipv6);

	tcp->source = refusal->destination_port;
	tcp->dest = refusal->source_port;
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

static __always_inline int answer_tcp(struct xdp_md *ctx, const struct refusal *refusal, bool ipv6)
{
	__u32 network = refusal->network & OFFSET_MASK, transport = refusal->headers & OFFSET_MASK;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + network + transport;
	struct reset reset;

	if ((void *)(tcp + 1) > end)
		return -1;
	reset = reset_for(refusal, tcp);
	transport = network + (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	if (frame_resize(ctx, transport + sizeof(*tcp)))
		return -1;
	/* else clang counts back from the end, which the verifier cannot follow */
	barrier_var(transport);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	tcp = data + transport;
	if (data + ETH_HLEN > end || data + network + sizeof(struct ipv6hdr) > end ||
	    (void *)(tcp + 1) > end)
		return -1;
	ethernet_swap(data);
	if (ipv6)
		answer_ipv6(data + network, refusal, IPPROTO_TCP, sizeof(*tcp));
	else
		answer_ipv4(data + network, refusal, IPPROTO_TCP, sizeof(*tcp));
	answer_tcp_header(tcp, refusal, reset, ipv6);
	return 0;
}

/* The folded sum of the frame from an offset on, to its end. */
static __always_inline __u16 sum_to_end(struct xdp_md *ctx, __u32 offset)
{
	void *at = (void *)(long)ctx->data + (offset & OFFSET_MASK);
	void *end = (void *)(long)ctx->data_end;
	__u64 sum = 0;

	for (int i = 0; i < (QUOTE_MAX + 8) / 4; i++) {
		if (at + 4 > end)
			break;
		sum += *(__u32 *)at;
		at += 4;
	}
	return xlb_sum_fold(sum);
}

static __always_inline int answer_udp(struct xdp_md *ctx, const struct refusal *refusal, bool ipv6)
{
	__u32 network = refusal->network & OFFSET_MASK, quote = refusal->headers & OFFSET_MASK;
	__u32 header = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 ethernet[ETH_HLEN + 2 * VLAN_TAG_BYTES];
	struct icmp_error *icmp;
	__u64 sum;

	quote += sizeof(struct udphdr);
	if (quote > QUOTE_MAX || data + sizeof(ethernet) > end)
		return -1;
	__builtin_memcpy(ethernet, data, sizeof(ethernet));
	if (frame_resize(ctx, network + quote) ||
	    bpf_xdp_adjust_head(ctx, -(int)(header + sizeof(*icmp))))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	barrier_var(header);
	icmp = data + network + header;
	if (data + sizeof(ethernet) > end || data + network + sizeof(struct ipv6hdr) > end ||
	    (void *)(icmp + 1) > end)
		return -1;
	__builtin_memcpy(data, ethernet, sizeof(ethernet));
	ethernet_swap(data);
	*icmp = (struct icmp_error){ .type = ICMP_UNREACHABLE, .code = ICMP_PORT };
	if (ipv6) {
		icmp->type = ICMP6_UNREACHABLE;
		icmp->code = ICMP6_PORT;
		answer_ipv6(data + network, refusal, IPPROTO_ICMPV6, quote + sizeof(*icmp));
	} else {
		answer_ipv4(data + network, refusal, IPPROTO_ICMP, quote + sizeof(*icmp));
	}
	sum = sum_to_end(ctx, network + header);
	if (ipv6)
		sum += pseudo_header(refusal, IPPROTO_ICMPV6, quote + sizeof(*icmp), true);
	icmp->check = ~xlb_sum_fold(sum);
	return 0;
}

/* Turns the packet into the answer that this CPU's refusal asks for. 0, or -1 if it cannot be. */
__weak __noinline int answer(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct refusal *refusal = bpf_map_lookup_elem(&refusals, &zero);

	if (!refusal)
		return -1;
	if (refusal->protocol == IPPROTO_TCP)
		return refusal->ipv6 ? answer_tcp(ctx, refusal, true) :
				       answer_tcp(ctx, refusal, false);
	return refusal->ipv6 ? answer_udp(ctx, refusal, true) : answer_udp(ctx, refusal, false);
}

/* Asks for an answer to a packet. 0, or -1 if none can be given. */
static __always_inline int refuse(struct xdp_md *ctx, const struct packet *packet, bool ipv6)
{
	__u32 zero = 0;
	struct refusal *refusal = bpf_map_lookup_elem(&refusals, &zero);

	if (!refusal)
		return -1;
	address_copy(&refusal->source, &packet->source);
	address_copy(&refusal->destination, &packet->destination);
	refusal->source_port = packet->source_port;
	refusal->destination_port = packet->destination_port;
	refusal->bytes = packet->bytes;
	refusal->network = ETH_HLEN + packet->vlan_tags * VLAN_TAG_BYTES;
	refusal->headers = packet->headers;
	refusal->protocol = packet->protocol;
	refusal->tcp_flags = packet->tcp_flags;
	refusal->ipv6 = ipv6;
	return answer(ctx);
}

#endif
