/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A packet as the walk sees it, and how most packets are taken apart.
 *
 * What is known of the packet in hand lies in a map element of the CPU, not on the stack: functions
 * of their own, which take no pointers, find it there, and the verifier does not remember how each
 * number came about, so that it walks what follows once. Pointers into the frame cannot be kept
 * there; they are in struct frame, and made anew from offsets after every helper that moves the
 * packet.
 *
 * Here whole TCP and UDP packets are parsed; what else there is (options, extension headers,
 * fragments, ICMP) is in dissect.h. Parsing never judges: whether broken lengths matter is decided
 * once a VIP is known to be meant. plain.h does without all this, for most packets.
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
#include "maps.h"

#define VLAN_TAG_BYTES 4
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define IP_MORE 0x2000		/* more fragments */
#define IP_OFFSET 0x1fff
#define IP_DONT_FRAGMENT 0x4000

/* Bounds offsets into headers for the verifier. Longer headers are not ours. */
#define OFFSET_MAX 0x1ff
#define ICMP_HEADER 8		/* bytes of an echo or an error, in front of what it carries */
#define PATH_MTU6_LEAST 1280	/* any way takes that, by fragments if need be (RFC 8200, 5) */

/* What a step of the walk decided. 0: go on. */
enum verdict {
	VERDICT_NEXT = 0,
	VERDICT_PASS,		/* not ours: as it came */
	VERDICT_UNUSUAL,	/* not a whole TCP or UDP packet without options or extension headers */
	VERDICT_HOLD,		/* a fragment for a VIP that comes before its first */
	VERDICT_LOCAL,		/* rewritten; for a socket of this node */
	VERDICT_TX,		/* out of the device that it came by */
	VERDICT_REDIRECT,	/* out of another device */
	VERDICT_STACK,		/* a note is in front of it: tc sends it on */
	/* from here on the packet itself goes no further */
	VERDICT_ANSWER,		/* see packet.answer */
	VERDICT_DROP,		/* see packet.drop */
};

/* What a packet is. */
enum kind {
	KIND_WHOLE = 0,
	KIND_FIRST_FRAGMENT,	/* has ports, which later fragments will want */
	KIND_LATER_FRAGMENT,	/* has none; those of its first fragment are filled in */
	/*
	 * an ICMP error: addresses and ports are those of the packet that it quotes, turned around,
	 * as if the receiver of that one answered
	 */
	KIND_ERROR,
};

/* What the sender is told instead. */
enum answer {
	ANSWER_REFUSED = 1,	/* TCP RST, or ICMP port unreachable */
	ANSWER_TOO_BIG,		/* ICMP fragmentation needed, packet too big; see packet.mtu */
	ANSWER_TIME_EXCEEDED,
	ANSWER_ECHO,		/* ICMP echo reply */
};

/*
 * What a packet is to say: who sent it and to whom, and what that adds to the sum of its addresses.
 */
struct translation {
	struct xlb_address source;
	struct xlb_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 pad;
	__u64 address_sum;	/* new addresses minus old ones, not folded */
};

/* Why a packet goes by tc also where XDP could send it (note.h). */
enum by_kernel {
	BY_KERNEL_CHECKSUM = 1,	/* whose checksum may be for a device to finish */
	BY_KERNEL_SPLIT = 2,	/* to be fragmented to packet.mtu */
	BY_KERNEL_RELEASE = 4,	/* before other fragments of its datagram, which came first */
	/* Not that, but it is tagged, and wants a second look as it leaves (emit_elsewhere). */
	NOT_BY_KERNEL_TAGS = 8,
	/* That if it leaves by another link than it came by: it may have a tag that XDP does not see. */
	BY_KERNEL_AWAY = 16,
};

/* Whose the packet was, for the count; and all that begins as 0. */
struct outcome {
	__u32 service;		/* XLB_SERVICE_KEY */
	__u32 backend;		/* 0: none */
	__u8 known_service;	/* else nothing is counted */
	__u8 to_client;		/* a reply */
	__u8 new_flow;
	__u8 by_kernel;		/* enum by_kernel: not by XDP alone */
	__u8 held;		/* of packet.datagram, of which fragments are kept */
	__u8 pad[3];
};

/* The packet in hand; one for each CPU. */
struct packet {
	struct xlb_address source;
	struct xlb_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 frame;		/* length of the whole frame, of which not all need be readable */
	__u32 bytes;		/* length by the IP header, from there on */
	__u32 now;		/* tick */
	__u16 network;		/* offset of the IP header */
	__u16 headers;		/* length of the IP header with options or extension headers */
	__u16 error;		/* KIND_ERROR: offset of the ICMP header, and the length of */
	__u16 quote_headers;	/* the quoted IP header with options or extension headers */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 vlan_tags;
	__u8 ttl;		/* or hop limit */
	__u8 kind;		/* enum kind */
	__u8 ipv6;
	__u8 drop;		/* enum xlb_drop */
	__u8 answer;		/* enum answer */
	__be32 fragment_id;
	/* ANSWER_TOO_BIG, BY_KERNEL_SPLIT: what would fit; KIND_ERROR: the same, or 0 */
	__u32 mtu;
	__u16 cursor;		/* where a walk along headers or options is, */
	__u8 next;		/* and what comes there */
	__u8 verdict;		/* enum verdict */
	/* enum xlb_family, if the next hop is at translation.destination and not at the packet's */
	__u8 hop_family;
	__u8 pad;
	__u16 partial;		/* BY_KERNEL_CHECKSUM: the checksum as it came */
	struct outcome outcome;
	__u32 added;		/* bytes of the headers that a tunnel puts in front */
	__u32 datagram;		/* outcome.held: as in `fragments` */
	struct xlb_hop hop;	/* the answer to a look-up, while it is kept; read by words */
	__u32 expected;		/* the backend, if it begins a flow: of flow_expect(), or 0 */
	__u32 pad2;
	struct translation translation;	/* what becomes of it */
};
_Static_assert(__builtin_offsetof(struct packet, hop) % sizeof(__u64) == 0, "read by words");

XLB_PERCPU_ARRAY(packets, struct packet);

/* The frame itself. */
struct frame {
	void *data;
	void *end;
	void *network;		/* struct iphdr or ipv6hdr */
	void *transport;	/* struct tcphdr or udphdr */
};

/*
 * Reads a field of struct packet back from memory, of which the verifier knows nothing: however
 * many ways led here, it goes on with one.
 */
#define RECALL(field) (*(volatile typeof(field) *)&(field))

/*
 * The same for a number in a register, where a packet would wait for the store: two exclusive ors
 * with one that the verifier does not know.
 */
#define FORGET(number, unknown) ({ \
	__u64 number_ = (number), unknown_ = (unknown); \
	number_ ^= unknown_; \
	barrier_var(number_); \
	number_ ^= unknown_; \
	barrier_var(number_); \
	number_; })

static __always_inline struct packet *packet_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&packets, &zero);
}

static __always_inline enum verdict dropped(struct packet *packet, enum xlb_drop reason)
{
	packet->drop = reason;
	return VERDICT_DROP;
}

static __always_inline enum verdict answered(struct packet *packet, enum answer answer)
{
	packet->answer = answer;
	return VERDICT_ANSWER;
}

/*
 * In words of 8 bytes: the packet may be unaligned, which all machines that xlb runs on can read.
 */
static __always_inline void address_copy(void *to, const void *from)
{
	((__u64 *)to)[0] = ((const __u64 *)from)[0];
	((__u64 *)to)[1] = ((const __u64 *)from)[1];
}

/* An address as two numbers, for functions that take no pointers; IPv4 has only a first. */
static __always_inline __u64 address_first(const struct xlb_address *address, bool ipv6)
{
	return ipv6 ? ((const __u64 *)address)[0] : address->word[0];
}

static __always_inline __u64 address_second(const struct xlb_address *address, bool ipv6)
{
	return ipv6 ? ((const __u64 *)address)[1] : 0;
}

static __always_inline bool address_equal(const struct xlb_address *a, const struct xlb_address *b,
					  bool ipv6)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	if (!ipv6)
		return a->word[0] == b->word[0];
	return x[0] == y[0] && x[1] == y[1];
}

/* An address that no packet can rightly come from (RFC 1122 3.2.1.3, RFC 4291 2.5 and 2.7). */
static __always_inline bool source_impossible(const struct packet *packet, bool ipv6)
{
	const struct xlb_address *source = &packet->source;
	__u32 first;

	if (address_equal(source, &packet->destination, ipv6))
		return true;
	if (ipv6) {
		/* multicast, or :: and ::1 */
		return (source->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) ||
		       !(source->word[0] | source->word[1] | source->word[2] |
			 (source->word[3] & ~bpf_htonl(1)));
	}
	first = bpf_ntohl(source->word[0]) >> 24;
	/* Most are none of all those, nor a few more. */
	if (__builtin_expect(first < 224 && ((first + 1) & 126), 1))
		return false;
	/* 0/8, 127/8, 224/4, broadcast */
	return !first || first == 127 || first >> 4 == 14 || source->word[0] == ~0u;
}

/* The address in its IPv6 form (RFC 4291, 2.5.5.2), as maps for both families want it. */
static __always_inline void address_map(struct xlb_address *to, const struct xlb_address *from,
					bool ipv6)
{
	if (ipv6) {
		address_copy(to, from);
	} else {
		to->word[0] = 0;
		to->word[1] = 0;
		to->word[2] = bpf_htonl(0xffff);
		to->word[3] = from->word[0];
	}
}

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/*
 * Where an offset into the headers points to. The barrier keeps clang from leaving out a mask that
 * it knows to be of no effect, while the verifier (of kernel 6.1) does not.
 */
static __always_inline void *header_at(void *data, __u64 offset)
{
	barrier_var(offset);
	return data + (offset & OFFSET_MAX);
}

/* Finds the headers in the frame, from what is known of the packet. */
static __always_inline bool frame_find(struct frame *frame, const struct packet *packet, bool ipv6)
{
	__u32 header = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	frame->network = header_at(frame->data, RECALL(packet->network));
	frame->transport = header_at(frame->network, RECALL(packet->headers));
	return frame->network + header <= frame->end;
}

/*
 * Makes the verifier forget how much of the transport header it knows to be there, which depends on
 * the protocol: else it walks all that follows once for each.
 */
static __always_inline void frame_forget(struct frame *frame, const struct packet *packet)
{
	frame->transport = header_at(frame->network, RECALL(packet->headers));
}

/*
 * What goes to a group on the link, broadcast among them, is for none of our services: it is neither
 * to be forwarded nor answered (RFC 1122, 3.2.2 and 3.3.6). A bit that no type of ours has makes its
 * type another one, without a branch.
 */
#define ETHER_GROUP 1
#define ETHER_TYPE_NONE bpf_htons(0x1000)

/*
 * The ethertype behind up to two tags, and where the network header is. None of ours: cut short, or
 * to a group.
 */
static __always_inline __be16 parse_ethernet(struct packet *packet, struct frame *frame)
{
	__be16 *type = frame->data + offsetof(struct ethhdr, h_proto), first;
	__u64 tags = 0, offset;

	if (frame->data + ETH_HLEN > frame->end)
		return 0;
	first = *type | (*(__u8 *)frame->data & ETHER_GROUP) * ETHER_TYPE_NONE;
	if (__builtin_expect(is_vlan(first), 0)) {
		if (frame->data + ETH_HLEN + 2 * VLAN_TAG_BYTES > frame->end)
			return 0;
		tags = 1 + is_vlan(type[2]);
		packet->outcome.by_kernel = NOT_BY_KERNEL_TAGS;
	}
	packet->vlan_tags = tags;
	offset = ETH_HLEN + tags * VLAN_TAG_BYTES;
	packet->network = offset;
	frame->network = header_at(frame->data, FORGET(offset, packet->frame));
	return tags == 2 ? type[4] : tags ? type[2] : first;
}

static __always_inline enum verdict parse_ipv4(struct packet *packet, struct frame *frame)
{
	struct iphdr *ip = frame->network;
	__u32 header;

	if ((void *)(ip + 1) > frame->end)
		return VERDICT_PASS;
	header = ip->ihl * 4;
	if (ip->version != 4)
		return VERDICT_PASS;
	packet->source.word[0] = ip->saddr;
	packet->destination.word[0] = ip->daddr;
	packet->protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->bytes = bpf_ntohs(ip->tot_len);
	packet->headers = header;
	frame->transport = header_at(frame->network, header);
	if (__builtin_expect(header != sizeof(*ip) ||
			     ip->frag_off & bpf_htons(IP_MORE | IP_OFFSET), 0))
		return VERDICT_UNUSUAL;
	return VERDICT_NEXT;
}

static __always_inline enum verdict parse_ipv6(struct packet *packet, struct frame *frame)
{
	struct ipv6hdr *ip = frame->network;

	if ((void *)(ip + 1) > frame->end || ip->version != 6)
		return VERDICT_PASS;
	address_copy(&packet->source, &ip->saddr);
	address_copy(&packet->destination, &ip->daddr);
	packet->protocol = ip->nexthdr;
	packet->ttl = ip->hop_limit;
	packet->bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	packet->headers = sizeof(*ip);
	frame->transport = header_at(frame->network, sizeof(*ip));
	return VERDICT_NEXT;
}

/* Ports and flags of the TCP or UDP header that is there. */
static __always_inline enum verdict parse_ports(struct packet *packet, const void *transport,
						const void *end)
{
	const struct udphdr *udp = transport;

	if ((void *)(udp + 1) > end)
		return VERDICT_PASS;
	if (packet->protocol == IPPROTO_TCP) {
		if (transport + sizeof(struct tcphdr) > end)
			return VERDICT_PASS;
		packet->tcp_flags = ((const __u8 *)transport)[13];
	} else {
		packet->tcp_flags = 0;
	}
	packet->source_port = udp->source;
	packet->destination_port = udp->dest;
	return VERDICT_NEXT;
}

/*
 * IP and what is in it, if it is whole TCP or UDP right behind the IP header; VERDICT_UNUSUAL: for
 * dissect.h.
 */
static __always_inline enum verdict parse(struct packet *packet, struct frame *frame, bool ipv6)
{
	enum verdict verdict;

	packet->kind = KIND_WHOLE;
	packet->ipv6 = ipv6;
	packet->hop_family = 0;
	verdict = ipv6 ? parse_ipv6(packet, frame) : parse_ipv4(packet, frame);
	if (verdict)
		return verdict;
	if (__builtin_expect(packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP, 0))
		return VERDICT_UNUSUAL;
	return parse_ports(packet, frame->transport, frame->end);
}

/* Whether it says that it is the first of its connection. UDP does not say. */
static __always_inline bool packet_begins(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether the lengths in the headers fit each other and the frame. */
static __always_inline bool packet_sound(const struct packet *packet, const struct frame *frame)
{
	__u32 payload = packet->bytes - packet->headers, length;
	const struct tcphdr *tcp = frame->transport;
	const struct udphdr *udp = frame->transport;

	if (packet->network + packet->bytes > packet->frame || packet->bytes < packet->headers)
		return false;
	if (__builtin_expect(packet->kind >= KIND_LATER_FRAGMENT, 0))
		return true;
	if (packet->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > frame->end)
			return false;
		length = tcp->doff * 4;
		return length >= sizeof(*tcp) && length <= payload;
	}
	if ((void *)(udp + 1) > frame->end)
		return false;
	length = bpf_ntohs(udp->len);
	return payload >= sizeof(*udp) && length >= sizeof(*udp) &&
	       (length <= payload || packet->kind == KIND_FIRST_FRAGMENT);
}

#endif
