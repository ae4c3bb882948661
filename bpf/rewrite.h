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

/* By a sum of no more than some hundred words of 32 bits. */
static __always_inline __u16 checksum_adjust(__u16 checksum, __u64 sum)
{
	sum += (__u16)~checksum;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/*
 * One hop less to live, in the header and in *sum: the same difference always. (Reading the word that
 * the TTL is in, just after a byte of it was written, would stall the CPU.)
 */
static __always_inline void ttl_decrease(void *network, __u64 *sum, bool ipv6)
{
	if (ipv6) {
		((struct ipv6hdr *)network)->hop_limit--;
	} else {
		((struct iphdr *)network)->ttl--;
		*sum += (__u16)~bpf_htons(1 << 8);
	}
}

/* One hop less to live, and nothing else; the sum as ip_decrease_ttl() of the kernel. */
static __always_inline void ttl_only(void *network, bool ipv6)
{
	struct iphdr *ip = network;
	__u32 sum;

	if (ipv6) {
		((struct ipv6hdr *)network)->hop_limit--;
		return;
	}
	sum = ip->check + bpf_htons(1 << 8);
	ip->ttl--;
	ip->check = sum + ((sum + 1) >> 16);
}

static __always_inline void translate_network(void *network, const struct translation *translation,
					      bool ipv6)
{
	__u64 sum = translation->address_sum;

	ttl_decrease(network, &sum, ipv6);
	if (ipv6) {
		struct ipv6hdr *ip = network;

		address_copy(&ip->saddr, &translation->source);
		address_copy(&ip->daddr, &translation->destination);
	} else {
		struct iphdr *ip = network;

		ip->saddr = translation->source.word[0];
		ip->daddr = translation->destination.word[0];
		ip->check = checksum_adjust(ip->check, sum);
	}
}

/*
 * Ports and checksum of TCP or UDP; false: not all there. A UDP checksum of 0 (none) stays, a
 * computed 0 is sent as ffff (RFC 768, RFC 6936).
 */
static __always_inline bool translate_transport(const struct packet *packet,
						const struct frame *frame,
						const struct translation *translation)
{
	struct tcphdr *tcp = frame->transport;
	struct udphdr *udp = frame->transport;
	__u32 *ports = frame->transport;
	__u64 sum = translation->address_sum;

	if ((void *)(udp + 1) > frame->end)
		return false;
	sum += (__u32)~*ports;
	*ports = translation->source_port | (__u32)translation->destination_port << 16;
	sum += *ports;
	if (packet->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > frame->end)
			return false;
		tcp->check = checksum_adjust(tcp->check, sum);
	} else if (udp->check) {
		__u16 check = checksum_adjust(udp->check, sum);

		udp->check = check ? check : 0xffff;
	}
	return true;
}

static __always_inline bool translate_error_family(const struct packet *packet, void *data,
						   void *end, bool hop, bool ipv6)
{
	const struct translation *translation = &packet->translation;
	__u16 *icmp = header_at(data, packet->error);
	void *quote = (void *)icmp + ICMP_HEADER;
	void *outer = header_at(data, packet->network);
	__u32 *ports = header_at(quote, packet->quote_headers);
	struct udphdr *udp = (void *)ports;
	struct tcphdr *tcp = (void *)ports;
	struct iphdr *ip4 = outer;
	struct ipv6hdr *ip6 = outer;
	__u64 sum = 0, inner = translation->address_sum, total = 0;
	bool from_quoted;

	/* Else clang makes it anew further down, where the verifier knows of no bounds. */
	barrier_var(icmp);
	if (outer + sizeof(struct ipv6hdr) > end || quote + sizeof(struct iphdr) > end ||
	    (void *)(udp + 1) > end)
		return false;
	/* The transport header: its sum changes the error's by what it does not take back itself. */
	inner += (__u32)~*ports;
	total += (__u32)~*ports;
	*ports = translation->destination_port | (__u32)translation->source_port << 16;
	inner += *ports;
	total += *ports;
	if (packet->protocol == IPPROTO_UDP && udp->check) {
		__u16 check = checksum_adjust(udp->check, inner);

		total += (__u16)~udp->check;
		udp->check = check ? check : 0xffff;
		total += udp->check;
	} else if (packet->protocol == IPPROTO_TCP && (void *)(tcp + 1) <= end &&
		   packet->error + ICMP_HEADER + packet->quote_headers + sizeof(*tcp) <=
			   packet->network + packet->bytes) {
		/* Elsewhere it is not quoted: what is there is padding, which no checksum covers. */
		total += (__u16)~tcp->check;
		tcp->check = checksum_adjust(tcp->check, inner);
		total += tcp->check;
	}
	if (ipv6) {
		if (quote + sizeof(*ip6) > end)
			return false;
		address_copy(&((struct ipv6hdr *)quote)->saddr, &translation->destination);
		address_copy(&((struct ipv6hdr *)quote)->daddr, &translation->source);
		/* The quote's addresses, and those of the pseudo header of ICMPv6. */
		total += translation->address_sum;
		from_quoted = address_equal((void *)&ip6->saddr, &packet->source, true);
		if (from_quoted)
			address_copy(&ip6->saddr, &translation->source);
		address_copy(&ip6->daddr, &translation->destination);
		total += address_plus(&translation->destination, true) +
			 address_minus(&packet->destination, true);
		if (from_quoted)
			total += address_plus(&translation->source, true) +
				 address_minus(&packet->source, true);
	} else {
		struct iphdr *quoted = quote;

		/* Its checksum takes back what the addresses change: nothing is added to `total`. */
		quoted->saddr = translation->destination.word[0];
		quoted->daddr = translation->source.word[0];
		quoted->check = checksum_adjust(quoted->check, translation->address_sum);
		sum = address_plus(&translation->destination, false) +
		      address_minus(&packet->destination, false);
		if (ip4->saddr == packet->source.word[0]) {
			sum += address_plus(&translation->source, false) +
			       address_minus(&packet->source, false);
			ip4->saddr = translation->source.word[0];
		}
		ip4->daddr = translation->destination.word[0];
	}
	if (hop)
		ttl_decrease(outer, &sum, ipv6);
	if (!ipv6)
		ip4->check = checksum_adjust(ip4->check, sum);
	icmp[1] = checksum_adjust(icmp[1], total);
	return true;
}

/*
 * An ICMP error, by packet.translation: the packet that it quotes becomes what its sender had sent, and the error goes to
 * that sender; its own source stays that of the router, or becomes the name that the quoted
 * packet's receiver has for the sender. What the quote's headers change is taken into account in
 * the error's checksum. `hop`: it has one less to live, of which nobody else takes account.
 */
static __always_inline bool translate_error(const struct packet *packet, void *data, void *end,
					    bool hop)
{
	return packet->ipv6 ? translate_error_family(packet, data, end, hop, true) :
			      translate_error_family(packet, data, end, hop, false);
}

#endif
