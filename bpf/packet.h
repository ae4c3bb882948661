/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A packet as the walk sees it, and the cursor that takes it apart.
 *
 * parse() fills struct packet or says that the packet is none of ours to touch: not IP, not TCP or
 * UDP, a fragment, headers cut short. It never judges: whether broken lengths matter is decided
 * once a VIP is known to be meant.
 */
#ifndef XLB_PACKET_H
#define XLB_PACKET_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <xlb/abi.h>
#include <xlb/checksum.h>

#include "config.h"

#define VLAN_TAGS_MAX 2
#define VLAN_TAG_BYTES 4
#define EXTENSION_HEADERS_MAX 4
#define EXTENSION_BYTES_MAX 0x3fff	/* more than these can hold */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define IP_FRAGMENT 0x3fff	/* offset and "more fragments" */

/* What a step of the walk decided. 0: go on. */
enum verdict {
	VERDICT_NEXT = 0,
	VERDICT_PASS,		/* not ours: as it came */
	VERDICT_LOCAL,		/* rewritten; for a socket of this node */
	VERDICT_TX,		/* out of the device that it came by */
	VERDICT_REDIRECT,	/* out of another device */
	VERDICT_STACK,		/* a note is in front of it: tc sends it on */
	VERDICT_REFUSE,		/* nobody takes it: RST or ICMP port unreachable */
	VERDICT_DROP,		/* see packet.drop */
};

struct packet {
	void *data;
	void *end;
	void *network;		/* struct iphdr or ipv6hdr */
	void *transport;	/* struct tcphdr or udphdr: the whole header is inside the frame */
	struct xlb_address source;
	struct xlb_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 frame;		/* length of the whole frame, of which tc may not see all */
	__u32 bytes;		/* length by the IP header, from there on */
	__u32 headers;		/* length of the IP header with options or extension headers */
	__u32 now;		/* tick */
	__u32 unknown;		/* for forget(): anything */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 vlan_tags;
	__u8 ttl;		/* or hop limit */
	__u8 drop;		/* enum xlb_drop */
};

/*
 * In words of 8 bytes: the packet may be unaligned, which all machines that xlb runs on can read.
 */
static __always_inline void address_copy(void *to, const void *from)
{
	((__u64 *)to)[0] = ((const __u64 *)from)[0];
	((__u64 *)to)[1] = ((const __u64 *)from)[1];
}

static __always_inline bool address_equal(const struct xlb_address *a, const struct xlb_address *b,
					  bool ipv6)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	if (!ipv6)
		return a->word[0] == b->word[0];
	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/*
 * The same number, of which the verifier now only knows that it lies under `mask` + 1: so that it
 * walks the rest of the program once, and not once for every way in which a header chain may have
 * come to an end. `unknown` is anything that it knows nothing of.
 */
static __always_inline __u64 forget(__u64 number, __u64 unknown, __u64 mask)
{
	number += unknown;
	barrier_var(number);
	return (number - unknown) & mask;
}

/* The ethertype behind up to two tags; *cursor then is at the network header. 0: cut short. */
static __always_inline __be16 parse_ethernet(struct packet *packet, void **cursor)
{
	__be16 *type = packet->data + offsetof(struct ethhdr, h_proto);
	__u64 tags = 0;

	*cursor = packet->data + ETH_HLEN;
	if (*cursor > packet->end)
		return 0;
	if (__builtin_expect(is_vlan(*type), 0)) {
		if (*cursor + 2 * VLAN_TAG_BYTES > packet->end)
			return 0;
		tags = 1 + is_vlan(type[2]);
	}
	tags = forget(tags, packet->unknown, 3);
	packet->vlan_tags = tags;
	*cursor += tags * VLAN_TAG_BYTES;
	type = *cursor - sizeof(*type);
	return *cursor > packet->end ? 0 : *type;
}

static __always_inline enum verdict parse_ipv4(struct packet *packet, void **cursor)
{
	struct iphdr *ip = *cursor;
	__u32 header;

	if ((void *)(ip + 1) > packet->end)
		return VERDICT_PASS;
	header = ip->ihl * 4;
	if (header < sizeof(*ip) || ip->version != 4 || ip->frag_off & bpf_htons(IP_FRAGMENT))
		return VERDICT_PASS;
	packet->network = ip;
	packet->source.word[0] = ip->saddr;
	packet->destination.word[0] = ip->daddr;
	packet->protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->bytes = bpf_ntohs(ip->tot_len);
	packet->headers = header;
	*cursor += header;
	return VERDICT_NEXT;
}

/*
 * Walks the extension headers that a host may put before the transport header (RFC 8200, 4.1);
 * others end the walk.
 */
static __always_inline enum verdict parse_extensions(struct packet *packet, void **cursor)
{
	for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		struct ipv6_opt_hdr *option = *cursor;
		__u32 length;

		if (packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP)
			break;
		if ((void *)(option + 1) > packet->end)
			return VERDICT_PASS;
		if (packet->protocol == IPPROTO_AH)
			length = (option->hdrlen + 2) * 4;
		else if (packet->protocol == IPPROTO_HOPOPTS ||
			 packet->protocol == IPPROTO_ROUTING ||
			 packet->protocol == IPPROTO_DSTOPTS)
			length = (option->hdrlen + 1) * 8;
		else
			return VERDICT_PASS;
		packet->protocol = option->nexthdr;
		packet->headers += length;
		*cursor += length;
	}
	return VERDICT_NEXT;
}

static __always_inline enum verdict parse_ipv6(struct packet *packet, void **cursor)
{
	struct ipv6hdr *ip = *cursor;

	if ((void *)(ip + 1) > packet->end || ip->version != 6)
		return VERDICT_PASS;
	packet->network = ip;
	address_copy(&packet->source, &ip->saddr);
	address_copy(&packet->destination, &ip->daddr);
	packet->protocol = ip->nexthdr;
	packet->ttl = ip->hop_limit;
	packet->bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	packet->headers = sizeof(*ip);
	*cursor += sizeof(*ip);
	if (__builtin_expect(ip->nexthdr != IPPROTO_TCP && ip->nexthdr != IPPROTO_UDP, 0) &&
	    parse_extensions(packet, cursor))
		return VERDICT_PASS;
	return VERDICT_NEXT;
}

static __always_inline enum verdict parse_transport(struct packet *packet, void *cursor)
{
	struct udphdr *udp = cursor;
	__u8 flags = 0;

	if ((void *)(udp + 1) > packet->end)
		return VERDICT_PASS;
	if (packet->protocol == IPPROTO_TCP) {
		if (cursor + sizeof(struct tcphdr) > packet->end)
			return VERDICT_PASS;
		flags = ((__u8 *)cursor)[13];
	} else if (packet->protocol != IPPROTO_UDP) {
		return VERDICT_PASS;
	}
	packet->tcp_flags = forget(flags, packet->unknown, 255);
	packet->protocol = forget(packet->protocol, packet->unknown, 255);
	packet->headers = forget(packet->headers, packet->unknown, EXTENSION_BYTES_MAX);
	udp = packet->network + packet->headers;
	packet->transport = udp;
	if ((void *)(udp + 1) > packet->end)
		return VERDICT_PASS;
	packet->source_port = udp->source;
	packet->destination_port = udp->dest;
	return VERDICT_NEXT;
}

/* Whether the lengths in the headers fit each other and the frame. */
static __always_inline bool packet_sound(const struct packet *packet)
{
	__u32 network = ETH_HLEN + packet->vlan_tags * VLAN_TAG_BYTES;

	if (network + packet->bytes > packet->frame)
		return false;
	if (packet->protocol == IPPROTO_TCP)
		return packet->bytes >= packet->headers + sizeof(struct tcphdr);
	return packet->bytes >= packet->headers + sizeof(struct udphdr);
}

#endif
