/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Translating a packet in place, with checksums adjusted instead of computed (RFC 1624, equation
 * 3).
 *
 * What a backend adds to a sum is kept beside it; only the client's address and the ports are added
 * up here. The 16-bit words are summed as they lie in memory.
 */
#ifndef XLB_REWRITE_H
#define XLB_REWRITE_H

#include "packet.h"

/*
 * What a packet is to say: who sent it and to whom, and what that adds to the sum of its addresses.
 */
struct translation {
	struct xlb_address source;
	struct xlb_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u64 address_sum;	/* new addresses minus old ones, not folded */
};

/* The complement of an address's words: taken from a sum by adding it. */
static __always_inline __u64 address_minus(const struct xlb_address *address, bool ipv6)
{
	__u64 sum = (__u32)~address->word[0];

	if (ipv6)
		sum += (__u64)(__u32)~address->word[1] + (__u32)~address->word[2] +
		       (__u32)~address->word[3];
	return sum;
}

static __always_inline __u64 address_plus(const struct xlb_address *address, bool ipv6)
{
	__u64 sum = address->word[0];

	if (ipv6)
		sum += (__u64)address->word[1] + address->word[2] + address->word[3];
	return sum;
}

static __always_inline __u16 checksum_adjust(__u16 checksum, __u64 sum)
{
	sum += (__u16)~checksum;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* One hop less to live, in the header and in *sum. */
static __always_inline void ttl_decrease(struct packet *packet, __u64 *sum, bool ipv6)
{
	if (ipv6) {
		((struct ipv6hdr *)packet->network)->hop_limit--;
	} else {
		struct iphdr *ip = packet->network;
		__be16 *word = (__be16 *)&ip->ttl;

		*sum += (__u16)~*word;
		ip->ttl--;
		*sum += *word;
	}
}

static __always_inline void translate_network(struct packet *packet,
					      const struct translation *translation, bool ipv6)
{
	__u64 sum = translation->address_sum;

	ttl_decrease(packet, &sum, ipv6);
	if (ipv6) {
		struct ipv6hdr *ip = packet->network;

		address_copy(&ip->saddr, &translation->source);
		address_copy(&ip->daddr, &translation->destination);
	} else {
		struct iphdr *ip = packet->network;

		ip->saddr = translation->source.word[0];
		ip->daddr = translation->destination.word[0];
		ip->check = checksum_adjust(ip->check, sum);
	}
}

/*
 * TCP and UDP. A UDP checksum of 0 (none) stays, a computed 0 is sent as ffff (RFC 768, RFC 6936).
 */
static __always_inline void translate(struct packet *packet, const struct translation *translation,
				      bool ipv6)
{
	__u32 *ports = packet->transport;
	__u64 sum = translation->address_sum + (__u32)~*ports;

	translate_network(packet, translation, ipv6);
	*ports = translation->source_port | (__u32)translation->destination_port << 16;
	sum += *ports;
	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = packet->transport;

		/* Known from parsing, but the verifier forgot which protocol it was. */
		if ((void *)(tcp + 1) <= packet->end)
			tcp->check = checksum_adjust(tcp->check, sum);
	} else {
		struct udphdr *udp = packet->transport;

		if (udp->check) {
			__u16 check = checksum_adjust(udp->check, sum);

			udp->check = check ? check : 0xffff;
		}
	}
}

#endif
