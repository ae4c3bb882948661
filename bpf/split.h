/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fragmenting what XDP left a note about (RFC 791, 3.2; RFC 8200, 4.5): an IPv4 packet without DF, or
 * what a tunnel or nat between families made of one (RFC 2003, 3.1; RFC 2473, 7.2; RFC 7915, 4.1). No
 * helper of the kernel does it: the payload is put aside, and the packet is cut, filled and cloned for
 * each fragment.
 *
 * They are sent to a neighbour that is resolved. Until it is, the last one alone goes, by the kernel's
 * neighbour code, which resolves it.
 */
#ifndef XLB_SPLIT_H
#define XLB_SPLIT_H

#include "count.h"
#include "hop.h"
#include "maps.h"
#include "packet.h"

#define SPLIT_MOST 9216u	/* bytes of payload: more than an Ethernet frame has */
#define SPLIT_LENGTH_MASK 0x3fff
#define SPLIT_FRAGMENTS 32
#define SPLIT_HEADER6 (sizeof(struct ipv6hdr) + sizeof(struct fragment_header))
#define NEXT_HEADER_FRAGMENT 44

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;		/* in units of 8 bytes, times 8; 1: more follow */
	__be32 id;
};

/* The packet that is being fragmented; one for each CPU. */
struct split {
	struct ipv6hdr ip6;
	struct fragment_header fragment;
	struct iphdr ip4;
	__u32 ipv6;		/* 1: ip6 and fragment, 0: ip4 */
	__u32 bytes;		/* of the payload */
	__u32 step;		/* bytes of it in each fragment but the last */
	__u32 offset;		/* IPv4: of the packet, which may be a fragment itself; 8 bytes each, */
	__u32 more;		/* and its IP_MORE */
	/* Longer, so that the verifier need not know that a fragment ends within it. */
	__u8 payload[SPLIT_MOST + SPLIT_LENGTH_MASK + 1];
};

XLB_PERCPU_ARRAY(splits, struct split);

static __always_inline struct split *split_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&splits, &zero);
}

/* So many bytes (1 to SPLIT_MOST) in terms that the verifier of Linux 5.10 understands. */
static __always_inline __u32 split_length(__u32 bytes)
{
	bytes--;
	barrier_var(bytes);
	return (bytes & SPLIT_LENGTH_MASK) + 1;
}

/*
 * As few fragments as the MTU allows, and all of about one size: the kernel does not cut a packet to less
 * than the headers that it had when it was sent.
 */
static __always_inline __u32 split_even(__u32 bytes, __u32 most)
{
	__u32 parts = (bytes + most - 1) / most;

	return ((bytes + parts - 1) / parts + 7) & ~7u;
}

static __always_inline bool split_read_ipv4(struct __sk_buff *skb, struct split *split, __u32 mtu)
{
	struct iphdr *ip = &split->ip4;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(*ip)))
		return false;
	/* A tunnel's header, which may be fragmented as what is inside may. */
	if (ip->frag_off & bpf_htons(IP_DONT_FRAGMENT)) {
		ip->frag_off = 0;
		ip->id = bpf_get_prandom_u32();
	}
	split->offset = bpf_ntohs(ip->frag_off) & IP_OFFSET;
	split->more = bpf_ntohs(ip->frag_off) & IP_MORE;
	split->bytes = bpf_ntohs(ip->tot_len) - sizeof(*ip);
	split->step = (mtu - sizeof(*ip)) & ~7u;
	return mtu >= sizeof(*ip) + 8;
}

static __always_inline bool split_read_ipv6(struct __sk_buff *skb, struct split *split, __u32 mtu)
{
	struct ipv6hdr *ip = &split->ip6;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(*ip)))
		return false;
	split->fragment.next = ip->nexthdr;
	split->fragment.reserved = 0;
	split->fragment.id = bpf_get_prandom_u32();
	ip->nexthdr = NEXT_HEADER_FRAGMENT;
	split->bytes = bpf_ntohs(ip->payload_len);
	split->step = (mtu - SPLIT_HEADER6) & ~7u;
	return mtu >= SPLIT_HEADER6 + 8;
}

/* Puts headers and payload aside. 0, or -1: it cannot be fragmented. */
__weak __noinline int split_read(struct __sk_buff *skb, __u32 mtu)
{
	struct split *split = split_get();
	__u32 bytes, header;
	__u8 first;

	if (!split || skb->gso_segs > 1 || bpf_skb_load_bytes(skb, ETH_HLEN, &first, 1))
		return -1;
	split->ipv6 = first >> 4 == 6;
	header = split->ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	if (!(split->ipv6 ? split_read_ipv6(skb, split, mtu) : split_read_ipv4(skb, split, mtu)))
		return -1;
	bytes = RECALL(split->bytes);
	if (!bytes || bytes > SPLIT_MOST)
		return -1;
	split->step = split_even(bytes, split->step);
	return bpf_skb_load_bytes(skb, ETH_HLEN + header, split->payload, split_length(bytes));
}

/* Makes the packet the fragment that begins at that byte of the payload. 1: the last one; -1: no. */
__weak __noinline int split_cut(struct __sk_buff *skb, __u32 at)
{
	struct split *split = split_get();
	__u32 bytes, header, last;
	__u16 *word;
	__u64 sum = 0;

	if (!split || at >= SPLIT_MOST || at >= split->bytes)
		return -1;
	bytes = split->bytes - at;
	last = bytes <= split->step;
	if (!last)
		bytes = split->step;
	header = split->ipv6 ? SPLIT_HEADER6 : sizeof(struct iphdr);
	if (bpf_skb_change_tail(skb, ETH_HLEN + header + bytes, 0))
		return -1;
	if (split->ipv6) {
		split->ip6.payload_len = bpf_htons(sizeof(struct fragment_header) + bytes);
		split->fragment.offset = bpf_htons(at | !last);
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &split->ip6, SPLIT_HEADER6, 0))
			return -1;
	} else {
		split->ip4.tot_len = bpf_htons(sizeof(struct iphdr) + bytes);
		split->ip4.frag_off = bpf_htons((split->offset + at / 8) |
						(last ? split->more : IP_MORE));
		split->ip4.check = 0;
		word = (__u16 *)&split->ip4;
#pragma unroll
		for (__u32 i = 0; i < sizeof(struct iphdr) / 2; i++)
			sum += word[i];
		split->ip4.check = ~xlb_sum_fold(sum);
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &split->ip4, sizeof(struct iphdr), 0))
			return -1;
	}
	if (bpf_skb_store_bytes(skb, ETH_HLEN + header, split->payload + at, split_length(bytes),
				0))
		return -1;
	return last;
}

/*
 * Asks for the neighbour at packet.translation.destination; its device, or 0: not resolved. To be done
 * before anything is sent: programs at the device's egress have the packet in hand then.
 */
__weak __noinline __u32 split_address(struct __sk_buff *skb)
{
	struct bpf_fib_lookup fib = {};
	struct packet *packet = packet_get();
	__u8 link[12];
	long r;

	if (!packet)
		return 0;
	r = hop_ask(skb, &fib, &packet->translation, packet->protocol, skb->ifindex,
		    packet->hop_family == XLB_IPV6);
	/* As it is now it is too long, but that is what we are here for. */
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return 0;
	__builtin_memcpy(link, fib.dmac, 6);
	__builtin_memcpy(link + 6, fib.smac, 6);
	return bpf_skb_store_bytes(skb, 0, link, sizeof(link), 0) ? 0 : fib.ifindex;
}

/* Where a packet that was not yet cut goes, for split_address(). `note` is a copy. */
static __always_inline bool split_aim(struct __sk_buff *skb, const struct xlb_note *note)
{
	struct packet *packet = packet_get();
	struct translation *to;
	__u8 first;

	if (!packet || bpf_skb_load_bytes(skb, ETH_HLEN, &first, sizeof(first)))
		return false;
	to = &packet->translation;
	packet->hop_family = first >> 4 == 6 ? XLB_IPV6 : XLB_IPV4;
	packet->protocol = 0;
	if (first >> 4 == 6) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &to->source,
				       2 * sizeof(struct xlb_address)))
			return false;
	} else if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &to->source,
				      sizeof(__be32)) ||
		   bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr),
				      &to->destination, sizeof(__be32))) {
		return false;
	}
	if (note->family) {
		packet->hop_family = note->family;
		to->destination.word[0] = note->next_hop[0];
		to->destination.word[1] = note->next_hop[1];
		to->destination.word[2] = note->next_hop[2];
		to->destination.word[3] = note->next_hop[3];
	}
	return true;
}

/*
 * Sends all fragments but the last out of that device, and makes the packet that one. 0, or -1: it
 * cannot be fragmented. 0 as device: they are lost.
 */
__weak __noinline int split_send(struct __sk_buff *skb, __u32 mtu, __u32 ifindex)
{
	struct split *split = split_get();
	__u32 at = 0;
	int r = 0;

	if (!split || split_read(skb, mtu))
		return -1;
	for (int i = 0; i < SPLIT_FRAGMENTS && !r; i++) {
		r = split_cut(skb, at);
		if (!r && ifindex)
			bpf_clone_redirect(skb, ifindex, 0);
		at += split->step;
	}
	return r == 1 ? 0 : -1;
}

#endif
