/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Taking apart what is not a whole TCP or UDP packet right behind its IP header: options, extension
 * headers, fragments, ICMP.
 *
 * The outcome is a struct packet that the walk goes on with as with any other: a later fragment has
 * the ports of its first, an ICMP error the addresses and ports of the packet that it quotes,
 * turned around (whoever the error is about is found like the one who answers that packet).
 * packet.kind says what it was, for the few places where that matters.
 */
#ifndef XLB_DISSECT_H
#define XLB_DISSECT_H

#include <xlb/hash.h>

#include "maps.h"
#include "packet.h"
#include "service.h"

#define IP_OPTION_END 0
#define IP_OPTION_NOP 1
#define IP_OPTION_LSRR 131	/* loose and strict source route */
#define IP_OPTION_SSRR 137
#define IP_OPTIONS_MAX 8	/* that are looked through; NOPs count */
#define EXTENSION_HEADERS_MAX 4
#define EXTENSION_LEAST 8	/* bytes of any of them */
#define IP6_MORE 1
#define IP6_OFFSET 0xfff8

#define ICMP_ECHO 8		/* RFC 792 */
#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION 4	/* code of ICMP_UNREACHABLE (RFC 1191) */
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_UNREACHABLE 1	/* RFC 4443 */
#define ICMP6_TOO_BIG 2
#define ICMP6_PARAMETER 4
#define ICMP6_ECHO 128
#define QUOTED_PORTS 8		/* of a transport header, an error quotes no less (RFC 792) */
#define PATH_MTU4_LEAST 576	/* less is not believed: RFC 1122 3.3.2; IPv6: PATH_MTU6_LEAST */
#define PATH_MTU_MOST 0xffff	/* no packet is longer, and no next hop's MTU has room for more */

/* Where a chain of headers ends. */
struct chain {
	__u32 offset;		/* of what comes behind; 0: cut short, too long, or not its end */
	__u8 protocol;
	bool later;		/* a fragment that is not the first; nothing behind is a header */
	bool first;
	__be32 id;
};

static __always_inline bool has_options(const struct packet *packet)
{
	return !packet->ipv6 && packet->headers != sizeof(struct iphdr);
}

/* What an option of an IPv4 header says of it. */
enum option {
	OPTION_LAST = 0,	/* there is none, nor behind it */
	OPTION_NEXT,
	/*
	 * The packet is not where it is going: it goes on from here on a source route (RFC 791, 3.1),
	 * and the VIP is but a router, whose business is the kernel's. Or it cannot be read.
	 */
	OPTION_NOT_OURS,
};

/* The option at packet.cursor, which is moved on. */
static __always_inline enum option option_look(void *data, void *end)
{
	struct packet *packet = packet_get();
	__u32 offset, last;
	__u8 *option;

	if (!packet)
		return OPTION_NOT_OURS;
	offset = packet->cursor;
	last = packet->network + packet->headers;
	option = header_at(data, offset);
	if (offset == last)
		return OPTION_LAST;
	if (offset > last || (void *)option + 3 > end)
		return OPTION_NOT_OURS;
	if (option[0] == IP_OPTION_END)
		return OPTION_LAST;
	if (option[0] == IP_OPTION_NOP) {
		packet->cursor = offset + 1;
		return OPTION_NEXT;
	}
	/* The pointer is past the last address when none is left. */
	if (option[1] < 2 || ((option[0] == IP_OPTION_LSRR || option[0] == IP_OPTION_SSRR) &&
			      option[2] <= option[1]))
		return OPTION_NOT_OURS;
	packet->cursor = offset + option[1];
	return OPTION_NEXT;
}

/*
 * From an extension header, or the transport header, on (RFC 8200, 4.1). A routing header with segments
 * left ends it: the packet is not yet where it is going (4.4), and its checksum is that of there.
 */
static __always_inline void chain_walk(struct packet *packet, void *data, void *end,
				       struct chain *chain)
{
	__u32 offset = chain->offset, protocol = chain->protocol;

	for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		__u8 *option;
		__u16 fragment;

		option = header_at(data, offset);
		if ((void *)option + EXTENSION_LEAST > end)
			goto cut;
		if (protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS) {
			offset += (option[1] + 1) * 8;
		} else if (protocol == IPPROTO_ROUTING) {
			if (option[3])
				goto cut;
			offset += (option[1] + 1) * 8;
		} else if (protocol == IPPROTO_AH) {
			offset += (option[1] + 2) * 4;
		} else if (protocol == IPPROTO_FRAGMENT) {
			fragment = bpf_ntohs(*(__be16 *)(option + 2));
			chain->later = fragment & IP6_OFFSET;
			chain->first = !chain->later && fragment & IP6_MORE;
			chain->id = *(__be32 *)(option + 4);
			offset += 8;
		} else {
			break;
		}
		packet->next = option[0];
		packet->cursor = offset;
		protocol = RECALL(packet->next);
		offset = RECALL(packet->cursor);
		if (chain->later)
			break;
	}
	if (offset > OFFSET_MAX)
		goto cut;
	chain->offset = offset;
	chain->protocol = protocol;
	return;
cut:
	chain->offset = 0;
}

static __always_inline void fragment_key_make(const struct packet *packet,
					      struct xlb_fragment_key *key)
{
	address_map(&key->source, &packet->source, packet->ipv6);
	address_map(&key->destination, &packet->destination, packet->ipv6);
	key->id = packet->fragment_id;
	key->protocol = packet->protocol;
}

static __always_inline struct xlb_vip *vip_get(const struct packet *packet)
{
	struct xlb_address address;

	address_map(&address, &packet->destination, packet->ipv6);
	return bpf_map_lookup_elem(&vips, &address);
}

/* What is known of a datagram in fragments; NULL: nothing, or no longer. */
static __always_inline struct xlb_fragment *fragment_get(const struct xlb_fragment_key *key)
{
	struct xlb_fragment *known = bpf_map_lookup_elem(&fragments, key);

	return known && tick_now() - known->seen <= XLB_FRAGMENT_TICKS ? known : NULL;
}

/* A later fragment gets the ports of its first. */
static __always_inline enum verdict fragment_follow(struct packet *packet)
{
	struct xlb_fragment_key key;
	struct xlb_fragment *known;

	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		return VERDICT_PASS;
	fragment_key_make(packet, &key);
	known = fragment_get(&key);
	if (!known || !known->destination_port)
		return vip_get(packet) ? VERDICT_HOLD : VERDICT_PASS;
	packet->source_port = known->source_port;
	packet->destination_port = known->destination_port;
	packet->tcp_flags = 0;
	packet->kind = KIND_LATER_FRAGMENT;
	return VERDICT_NEXT;
}

/* A router says how much fits on the way to an address. */
static __always_inline void path_note(const struct xlb_address *to, __u32 mtu, bool ipv6)
{
	struct xlb_path path = { .mtu = mtu, .learned = tick_now() };
	struct xlb_address address;

	if (mtu < (ipv6 ? PATH_MTU6_LEAST : PATH_MTU4_LEAST) || mtu > PATH_MTU_MOST)
		return;
	address_map(&address, to, ipv6);
	bpf_map_update_elem(&paths, &address, &path, BPF_ANY);
}

/* The same, if that is where one of our tunnels ends. */
static __always_inline void path_learn(const struct xlb_address *to, __u32 mtu, bool ipv6)
{
	__u64 secret[2], word;

	secret_get(secret);
	word = xlb_address_word(to, ipv6 ? XLB_IPV6 : XLB_IPV4, secret);
	if (filter_has(xlb_endpoint_mark(word, 0, IPPROTO_IPIP, secret)))
		path_note(to, mtu, ipv6);
}

static __always_inline bool is_error(__u8 type, bool ipv6)
{
	if (ipv6)
		return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER;
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
}

/* Whether the packet reaches so far: what is behind it in the frame (padding) is no part of it. */
static __always_inline bool packet_has(const struct packet *packet, __u32 offset)
{
	return offset <= packet->network + packet->bytes;
}

/* The quoted packet's addresses and what is behind them; false: none of ours can look so. */
static __always_inline bool quote_read(struct packet *packet, void *data, void *end, __u32 offset,
				       struct xlb_address *ret_from, struct xlb_address *ret_to,
				       struct chain *chain, bool ipv6)
{
	struct ipv6hdr *ip6 = header_at(data, offset);
	struct iphdr *ip4 = (void *)ip6;

	if (ipv6) {
		if ((void *)(ip6 + 1) > end || ip6->version != 6)
			return false;
		address_copy(ret_from, &ip6->saddr);
		address_copy(ret_to, &ip6->daddr);
		chain->protocol = ip6->nexthdr;
		chain->offset = offset + sizeof(*ip6);
		chain_walk(packet, data, end, chain);
		return chain->offset && !chain->later;
	}
	if ((void *)(ip4 + 1) > end || ip4->version != 4 || ip4->ihl < 5 ||
	    ip4->frag_off & bpf_htons(IP_OFFSET))
		return false;
	ret_from->word[0] = ip4->saddr;
	ret_to->word[0] = ip4->daddr;
	chain->protocol = ip4->protocol;
	chain->offset = offset + ip4->ihl * 4;
	return true;
}

/* How much fits, if that is what the error says; else 0. */
static __always_inline __u32 error_mtu(const __u8 *icmp, bool ipv6)
{
	if (ipv6)
		return icmp[0] == ICMP6_TOO_BIG ? bpf_ntohl(*(__be32 *)(icmp + 4)) : 0;
	if (icmp[0] == ICMP_UNREACHABLE && icmp[1] == ICMP_FRAGMENTATION)
		return bpf_ntohs(*(__be16 *)(icmp + 6));
	return 0;
}

/* An ICMP error: fills in whom it is about. */
static __always_inline enum verdict dissect_error(struct packet *packet, void *data, void *end,
						  const __u8 *icmp, __u32 offset, bool ipv6)
{
	struct xlb_address from = {}, to = {};
	struct chain chain = {};
	__be16 *ports;
	__u32 mtu = error_mtu(icmp, ipv6);

	if (!packet_has(packet, offset + ICMP_HEADER +
					(ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr))) ||
	    !quote_read(packet, data, end, offset + ICMP_HEADER, &from, &to, &chain, ipv6) ||
	    !address_equal(&from, &packet->destination, ipv6))
		return VERDICT_PASS;
	if (mtu)
		path_learn(&to, mtu, ipv6);
	ports = header_at(data, chain.offset);
	if ((chain.protocol != IPPROTO_TCP && chain.protocol != IPPROTO_UDP) ||
	    (void *)ports + QUOTED_PORTS > end || !packet_has(packet, chain.offset + QUOTED_PORTS))
		return VERDICT_PASS;
	packet->source_port = ports[1];
	packet->destination_port = ports[0];
	packet->protocol = chain.protocol;
	packet->tcp_flags = 0;
	packet->error = offset;
	packet->quote_headers = chain.offset - offset - ICMP_HEADER;
	packet->kind = KIND_ERROR;
	packet->mtu = mtu;
	packet->source.word[0] = to.word[0];
	if (ipv6)
		address_copy(&packet->source, &to);
	return VERDICT_NEXT;
}

static __always_inline enum verdict dissect_icmp(struct packet *packet, void *data, void *end,
						 __u32 offset, bool ipv6)
{
	__u8 *icmp = header_at(data, offset);
	struct xlb_vip *vip;

	if ((void *)icmp + ICMP_HEADER > end)
		return VERDICT_PASS;
	if (icmp[0] == (ipv6 ? ICMP6_ECHO : ICMP_ECHO) && !icmp[1]) {
		vip = vip_get(packet);
		if (!vip || !vip->echo || packet->network + packet->bytes > packet->frame ||
		    packet->bytes < packet->headers + ICMP_HEADER ||
		    source_impossible(packet, ipv6))
			return VERDICT_PASS;
		return answered(packet, ANSWER_ECHO);
	}
	if (!is_error(icmp[0], ipv6))
		return VERDICT_PASS;
	return dissect_error(packet, data, end, icmp, offset, ipv6);
}

static __always_inline enum verdict dissect_family(struct packet *packet, void *data, void *end,
						   bool ipv6)
{
	struct iphdr *ip = header_at(data, packet->network);
	struct chain chain = {
		.offset = packet->network + packet->headers,
		.protocol = packet->protocol,
	};

	if (ipv6) {
		chain_walk(packet, data, end, &chain);
		if (!chain.offset)
			return VERDICT_PASS;
	} else {
		if ((void *)(ip + 1) > end)
			return VERDICT_PASS;
		chain.later = ip->frag_off & bpf_htons(IP_OFFSET);
		chain.first = !chain.later && ip->frag_off & bpf_htons(IP_MORE);
		chain.id = ip->id;
	}
	packet->headers = chain.offset - packet->network;
	packet->protocol = chain.protocol;
	packet->fragment_id = chain.id;
	if (chain.later)
		return fragment_follow(packet);
	if (chain.first)
		packet->kind = KIND_FIRST_FRAGMENT;
	if (chain.protocol == IPPROTO_TCP || chain.protocol == IPPROTO_UDP)
		return parse_ports(packet, header_at(data, chain.offset), end);
	if (!chain.first && chain.protocol == (ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return dissect_icmp(packet, data, end, chain.offset, ipv6);
	return VERDICT_PASS;
}

/* Takes apart what parse() called unusual; what it found out stands in `packet` already. */
static __always_inline enum verdict dissect(struct packet *packet, void *data, void *end)
{
	return packet->ipv6 ? dissect_family(packet, data, end, true) :
			      dissect_family(packet, data, end, false);
}

#endif
