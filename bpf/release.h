/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Keeping fragments that came before their first, and sending them behind it: tc's side of hold.h.
 *
 * `held` has places for packets as they came, without the link. The first fragment of a datagram
 * comes rewritten, maybe in a tunnel. Once it is sent, its frame is filled with one kept packet after
 * another: the link and the tunnel in front of it stay, but for lengths; the kept packet gets its
 * addresses. They are sent to a neighbour that is resolved. Until it is, the first one goes alone.
 */
#ifndef XLB_RELEASE_H
#define XLB_RELEASE_H

#include "atomic.h"
#include "count.h"
#include "hold.h"
#include "maps.h"
#include "packet.h"
#include "rewrite.h"
#include "split.h"

#define RELEASE_FRONT_MASK 63	/* link and tunnel are no longer: 14 + 40 + 8 bytes */
#define HELD_LENGTH_MASK (XLB_HELD_BYTES - 1)

/* The first fragment whose datagram is being released; one for each CPU. */
struct release {
	struct xlb_address source;	/* behind the tunnel */
	struct xlb_address destination;
	__u32 ipv6;
	__u32 front;		/* bytes of link and tunnel */
	__u8 header[RELEASE_FRONT_MASK + 1];
};

XLB_PERCPU_ARRAY(releases, struct release);

static __always_inline struct release *release_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&releases, &zero);
}

/* 1 to mask + 1, in terms that the verifier of Linux 5.10 understands. */
static __always_inline __u32 length_within(__u32 bytes, __u32 mask)
{
	bytes--;
	barrier_var(bytes);
	return (bytes & mask) + 1;
}

/* Takes a place from whoever had it; false: somebody else was faster. */
static __always_inline bool held_take(struct xlb_held *slot, union xlb_held_owner before)
{
	union xlb_held_owner busy = { .state = XLB_HELD_BUSY, .seen = tick_now() };

	return atomic_swap(&slot->owner.word, before.word, busy.word);
}

/* ---- keeping ---- */

/* The length of the packet behind the link; 0: none. */
static __always_inline __u32 skb_network_bytes(struct __sk_buff *skb)
{
	__u8 first;
	__be16 length;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &first, sizeof(first)))
		return 0;
	if (first >> 4 == 6)
		return bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, payload_len),
					  &length, sizeof(length)) ?
			       0 :
			       sizeof(struct ipv6hdr) + bpf_ntohs(length);
	return bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, tot_len), &length,
				  sizeof(length)) ?
		       0 :
		       bpf_ntohs(length);
}

/* Keeps the packet in that place. 1, or 0: the place is taken; -1: it cannot be kept. */
__weak __noinline int held_keep_at(struct __sk_buff *skb, __u32 place, __u32 datagram)
{
	union xlb_held_owner before, owner = {};
	__u32 bytes = skb_network_bytes(skb);
	struct xlb_held *slot;

	place %= XLB_HELD;
	slot = bpf_map_lookup_elem(&held, &place);
	if (!slot || !bytes || bytes > XLB_HELD_BYTES)
		return -1;
	before = held_owner(slot);
	owner.datagram = datagram;
	owner.seen = tick_now();
	owner.state = XLB_HELD_FULL;
	if (!held_free(before, owner.seen) || !held_take(slot, before))
		return 0;
	slot->bytes = bytes;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, slot->packet, length_within(bytes, HELD_LENGTH_MASK)))
		owner.word = 0;
	publish(&slot->owner.word, owner.word);
	/* Its first fragment has never come. */
	if (before.state == XLB_HELD_FULL)
		count_drop(XLB_DROP_NO_FRAGMENT);
	return owner.word ? 1 : -1;
}

/* Keeps a later fragment, if there is a place for it. Returns TC_ACT_SHOT. */
static __always_inline int held_keep(struct __sk_buff *skb, __u32 datagram)
{
	int r = 0;

	for (__u32 i = 0; i < XLB_HELD_EACH && !r; i++)
		r = held_keep_at(skb, datagram + i, datagram);
	if (r != 1)
		count_drop(XLB_DROP_NO_FRAGMENT);
	return TC_ACT_SHOT;
}

/* ---- sending ---- */

/* Reads what all packets of the datagram have in common. 0 or -1. */
__weak __noinline int release_read(struct __sk_buff *skb, __u32 added)
{
	struct release *release = release_get();
	__u32 front = ETH_HLEN + added;
	__u8 first;

	/* Behind a second tag, which tc sees, nothing is where it should be. */
	if (!release || front > RELEASE_FRONT_MASK + 1 || is_vlan(skb->protocol))
		return -1;
	release->front = front;
	if (bpf_skb_load_bytes(skb, 0, release->header, length_within(front, RELEASE_FRONT_MASK)) ||
	    bpf_skb_load_bytes(skb, front, &first, sizeof(first)))
		return -1;
	release->ipv6 = first >> 4 == 6;
	if (first >> 4 == 6)
		return bpf_skb_load_bytes(skb, front + offsetof(struct ipv6hdr, saddr),
					  &release->source, 2 * sizeof(struct xlb_address));
	return bpf_skb_load_bytes(skb, front + offsetof(struct iphdr, saddr),
				  &release->source.word[0], sizeof(__be32)) ||
			       bpf_skb_load_bytes(skb, front + offsetof(struct iphdr, daddr),
						  &release->destination.word[0], sizeof(__be32)) ?
		       -1 :
		       0;
}

/* The lengths that a tunnel's headers say, around a packet of so many bytes. */
static __always_inline void release_lengths(struct release *release, __u32 bytes)
{
	struct ipv6hdr *ip6 = (void *)release->header + ETH_HLEN;
	struct iphdr *ip4 = (void *)ip6;
	__u16 *word = (__u16 *)ip4;
	struct udphdr *udp;
	__u64 sum = 0;
	__u8 next;

	if (release->front == ETH_HLEN)
		return;
	if (*(__u8 *)ip4 >> 4 == 6) {
		ip6->payload_len = bpf_htons(release->front - ETH_HLEN - sizeof(*ip6) + bytes);
		next = ip6->nexthdr;
		udp = (void *)(ip6 + 1);
	} else {
		ip4->tot_len = bpf_htons(release->front - ETH_HLEN + bytes);
		ip4->check = 0;
#pragma unroll
		for (__u32 i = 0; i < sizeof(*ip4) / 2; i++)
			sum += word[i];
		ip4->check = ~xlb_sum_fold(sum);
		next = ip4->protocol;
		udp = (void *)(ip4 + 1);
	}
	if (next == IPPROTO_UDP)
		udp->len = bpf_htons(sizeof(*udp) + bytes);
}

/* Gives a kept packet the addresses of its first fragment, and one hop less. */
static __always_inline void release_translate(const struct release *release, void *network)
{
	const struct iphdr *ip4 = network;
	struct translation to = { .source = release->source, .destination = release->destination };

	if (release->ipv6) {
		translate_network(network, &to, true);
		return;
	}
	to.address_sum = (__u64)to.source.word[0] + to.destination.word[0] + (__u32)~ip4->saddr +
			 (__u32)~ip4->daddr;
	translate_network(network, &to, false);
}

static __always_inline int release_fill(struct __sk_buff *skb, struct xlb_held *slot)
{
	struct release *release = release_get();
	__u32 bytes = RECALL(slot->bytes), front;

	if (!release || bytes > XLB_HELD_BYTES)
		return -1;
	front = RECALL(release->front);
	if (front > RELEASE_FRONT_MASK + 1 || bpf_skb_change_tail(skb, front + bytes, 0))
		return -1;
	release_lengths(release, bytes);
	release_translate(release, slot->packet);
	if (bpf_skb_store_bytes(skb, 0, release->header, length_within(front, RELEASE_FRONT_MASK),
				BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, front, slot->packet, length_within(bytes, HELD_LENGTH_MASK),
				   BPF_F_RECOMPUTE_CSUM);
}

/* Makes the packet the one that is kept in that place. 1, or 0: none of that datagram is; -1: no. */
__weak __noinline int release_from(struct __sk_buff *skb, __u32 place, __u32 datagram)
{
	union xlb_held_owner owner;
	struct xlb_held *slot;
	int r;

	place %= XLB_HELD;
	slot = bpf_map_lookup_elem(&held, &place);
	if (!slot)
		return 0;
	owner = held_owner(slot);
	if (owner.state != XLB_HELD_FULL || owner.datagram != datagram || !held_take(slot, owner))
		return 0;
	r = release_fill(skb, slot);
	publish(&slot->owner.word, 0);
	if (!r)
		return 1;
	count_drop(XLB_DROP_EMIT_FAILED);
	return -1;
}

/* Keeps the addresses of the link that the first fragment was sent with. */
static __always_inline bool release_link(struct __sk_buff *skb)
{
	struct release *release = release_get();

	return release && !bpf_skb_load_bytes(skb, 0, release->header, 12);
}

/*
 * Sends a first fragment, and behind it what was kept of its datagram. `note` is a copy. Returns an
 * action of tc; < 0: go on with the first fragment alone.
 */
static __always_inline int release_send(struct __sk_buff *skb, const struct xlb_note *note)
{
	bool local = note->ifindex == XLB_LOOPBACK_IFINDEX;
	__u32 ifindex = skb->ifindex, most = note->mtu ? note->mtu : ~0u;
	struct release *release = release_get();
	int r;

	if (!release || release_read(skb, note->check))
		return -1;
	if (!local) {
		if (!split_aim(skb, note))
			return -1;
		ifindex = split_address(skb);
		if (!ifindex || !release_link(skb))
			return -1;
	}
	if (note->mtu && split_send(skb, note->mtu, ifindex))
		count_drop(XLB_DROP_TOO_BIG);
	else
		bpf_clone_redirect(skb, ifindex, local ? BPF_F_INGRESS : 0);
	for (__u32 i = 0; i < XLB_HELD_EACH; i++) {
		r = release_from(skb, note->datagram + i, note->datagram);
		if (r <= 0)
			continue;
		if (skb->len - ETH_HLEN > most && split_send(skb, most, ifindex))
			continue;
		bpf_clone_redirect(skb, ifindex, local ? BPF_F_INGRESS : 0);
	}
	return TC_ACT_SHOT;
}

#endif
