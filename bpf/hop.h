/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Getting a rewritten packet out: next hops, and the ways in which a packet leaves.
 *
 * The kernel's routes and neighbours decide, asked by bpf_fib_lookup once a tick for each backend
 * and each client, not for each packet. A frame goes straight out (TX, or REDIRECT to another
 * attached device) when the next hop is a resolved Ethernet neighbour there. All else (bridges,
 * tunnels, Pods' devices, neighbours still to be resolved, forwarding switched off) goes by the
 * kernel: the device's number is noted in front of the packet, and the tc ingress program of the
 * same device hands it to bpf_redirect_neigh(), which resolves the neighbour, and keeps the packet
 * until it has.
 */
#ifndef XLB_HOP_H
#define XLB_HOP_H

#include "config.h"
#include "maps.h"
#include "note.h"
#include "packet.h"
#include "rewrite.h"
#include "service.h"

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif

/* `current` and `mtu` of struct xlb_next_hop as the word that they lie in. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define HOP_CURRENT(current, mtu) ((current) | (__u32)(mtu) << 16)
#define HOP_IFINDEX(second_word) ((__u32)((second_word) >> 32))
#else
#define HOP_IFINDEX(second_word) ((__u32)(second_word))
#define HOP_CURRENT(current, mtu) ((__u32)(current) << 16 | (mtu))
#endif

static __always_inline __u32 uplink(void)
{
	__u32 zero = 0;
	struct xlb_config *live = bpf_map_lookup_elem(&config, &zero);

	return live ? live->uplink : 0;
}

static __always_inline bool device_has(__u32 ifindex, __u32 flag)
{
	struct xlb_device *device = bpf_map_lookup_elem(&devices, &ifindex);

	return device && device->flags & flag;
}

/*
 * Whether the tags of a packet that came by a device belong to a VLAN device on top of it: then they are
 * not those of the device's own link. Where there are no VLAN devices, it is the trunk that is the link.
 */
static __always_inline bool device_untags(__u32 ifindex)
{
	__u32 zero = 0;
	struct xlb_config *live = bpf_map_lookup_elem(&config, &zero);

	return live && live->vlans && device_has(ifindex, XLB_DEVICE_VLANS);
}

static __always_inline long hop_ask(void *ctx, struct bpf_fib_lookup *fib,
				    const struct translation *translation, __u8 protocol,
				    __u32 ingress, bool ipv6)
{
	fib->l4_protocol = protocol;
	fib->ifindex = ingress;
	if (ipv6) {
		fib->family = AF_INET6;
		address_copy(fib->ipv6_src, &translation->source);
		address_copy(fib->ipv6_dst, &translation->destination);
	} else {
		fib->family = AF_INET;
		fib->ipv4_src = translation->source.word[0];
		fib->ipv4_dst = translation->destination.word[0];
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

extern const volatile bool has_fib_mtu; /* in xlb.bpf.c */

/*
 * How much fits on the way to packet.translation.destination by that device: by the kernel's routes,
 * or where they do not tell (old kernels; a neighbour that is not known yet: `told` is 0) by the
 * device; and by what routers said to us. 0: not known.
 */
__weak __noinline __u32 hop_mtu(__u32 ifindex, __u32 told, bool ipv6)
{
	struct packet *packet = packet_get();
	struct xlb_address address;
	struct xlb_device *device;
	struct xlb_path *path;
	__u32 mtu = has_fib_mtu ? told : 0;

	if (!packet)
		return 0;
	if (!mtu) {
		device = bpf_map_lookup_elem(&devices, &ifindex);
		mtu = device && device->mtu < 1 << 16 ? device->mtu : 0;
	}
	address_map(&address, &packet->translation.destination, ipv6);
	path = bpf_map_lookup_elem(&paths, &address);
	if (path && packet->now - path->learned < XLB_PATH_TICKS && (!mtu || path->mtu < mtu))
		return path->mtu;
	return mtu;
}

/*
 * Asks the kernel and keeps the answer; an unresolved neighbour is asked for again with the next
 * packet. `fallback` is the device to use where the kernel does not answer, 0: the uplink.
 */
static __always_inline void hop_refresh(void *ctx, struct packet *packet,
					struct xlb_next_hop *next, __u32 ingress, __u32 fallback,
					bool ipv6)
{
	struct xlb_hop *hop = &packet->hop, *old;
	__u32 checked = packet->now, mtu = 0, place;
	struct bpf_fib_lookup fib = {};

	*hop = (struct xlb_hop){};
	switch (hop_ask(ctx, &fib, &packet->translation, packet->protocol, ingress, ipv6)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		hop->ifindex = fib.ifindex;
		mtu = hop_mtu(fib.ifindex, fib.mtu_result, ipv6);
		__builtin_memcpy(hop->destination, fib.dmac, 6);
		__builtin_memcpy(hop->source, fib.smac, 6);
		/* The packets to come may come in by other devices than this one. */
		if (!device_has(fib.ifindex, XLB_DEVICE_REDIRECT))
			hop->ifindex |= XLB_HOP_NO_REDIRECT;
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		hop->ifindex = fib.ifindex | XLB_HOP_STACK;
		mtu = hop_mtu(fib.ifindex, 0, ipv6);
		checked = 0;
		break;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
	case BPF_FIB_LKUP_RET_UNSUPP_LWT:
		hop->ifindex = (fallback ? fallback : uplink()) | XLB_HOP_STACK;
		break;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		/* A local address, or no route: lbctl asked the kernel which. */
		if (fallback == XLB_LOOPBACK_IFINDEX)
			hop->ifindex = XLB_LOOPBACK_IFINDEX;
		break;
	default:
		break;
	}
	place = next->current & 1;
	old = place ? &next->hop[1] : &next->hop[0];
	if (((__u64 *)old)[0] != ((__u64 *)hop)[0] || ((__u64 *)old)[1] != ((__u64 *)hop)[1]) {
		struct xlb_hop *new = place ? &next->hop[0] : &next->hop[1];

		((__u64 *)new)[0] = ((__u64 *)hop)[0];
		((__u64 *)new)[1] = ((__u64 *)hop)[1];
		place ^= 1;
	}
	publish((__u32 *)&next->current, HOP_CURRENT(place, mtu));
	*(volatile __u32 *)&next->checked = checked;
}

#define HOP_IPV6 (1ull << 32)	/* beside an ifindex, where arguments are few */
/* Whose next hop it is: a backend's (by id), or a client's (by slot of `neighbours`). */
#define HOP_CLIENT (1ull << 33)

static __always_inline struct xlb_next_hop *hop_of(__u64 which)
{
	struct xlb_neighbour *neighbour;
	struct xlb_backend *backend;
	__u32 id = which;

	if (which & HOP_CLIENT) {
		neighbour = bpf_map_lookup_elem(&neighbours, &id);
		if (!neighbour)
			return NULL;
		/* Else clang adds first and asks then, which the verifier does not like. */
		barrier_var(neighbour);
		return &neighbour->next_hop;
	}
	backend = backend_get(id);
	if (!backend)
		return NULL;
	barrier_var(backend);
	return &backend->next_hop;
}

/*
 * The look-up of the next hop number `which`, with HOP_CLIENT and HOP_IPV6, on the way that
 * packet.translation says; `fallback`: see hop_refresh().
 */
__weak __noinline int hop_look_up(struct xdp_md *ctx, __u64 which, __u32 fallback)
{
	struct xlb_next_hop *next = hop_of(which);
	struct packet *packet = packet_get();

	if (!packet || !next)
		return 0;
	hop_refresh(ctx, packet, next, ctx->ingress_ifindex, fallback, which & HOP_IPV6);
	return 0;
}

/* Makes sure that a next hop was looked up within this tick. */
static __always_inline void hop_freshen(struct xdp_md *ctx, struct packet *packet,
					struct xlb_next_hop *next, __u64 which, __u32 fallback,
					const struct xlb_address *source,
					const struct xlb_address *destination, bool ipv6)
{
	if (__builtin_expect(*(volatile __u32 *)&next->checked == packet->now, 1))
		return;
	packet->translation.source.word[0] = source->word[0];
	packet->translation.destination.word[0] = destination->word[0];
	if (ipv6) {
		address_copy(&packet->translation.source, source);
		address_copy(&packet->translation.destination, destination);
		which |= HOP_IPV6;
	}
	hop_look_up(ctx, which, fallback);
}

/* Whether a packet, with what is put in front of it, is more than a link takes. */
static __always_inline bool hop_overflows(const struct packet *packet,
					  const struct xlb_next_hop *next, __u32 added)
{
	__u32 mtu = *(volatile __u16 *)&next->mtu;

	return __builtin_expect(mtu && packet->bytes + added > mtu, 0);
}

/*
 * The hop to use now, so that it is one and the same throughout. Without a branch: which of the two it
 * is differs between backends, and where a load follows from another one no processor turns them around.
 */
static __always_inline const struct xlb_hop *hop_current(const struct xlb_next_hop *next)
{
	__u64 offset = (*(volatile __u16 *)&next->current & 1) * sizeof(struct xlb_hop);

	barrier_var(offset);
	return (const void *)next->hop + offset;
}

/* The cache entry that a client's next hop has, or would have; and its number. */
static __always_inline struct xlb_neighbour *neighbour_at(const struct xlb_address *address,
							  bool ipv6, __u32 *ret_slot)
{
	__u64 fold = ipv6 ? address->word[0] ^ address->word[1] ^ address->word[2] ^
				    address->word[3] :
			    address->word[0];

	*ret_slot = (fold * 0x9e3779b97f4a7c15ull >> 32) & (cfg.neighbours - 1);
	return bpf_map_lookup_elem(&neighbours, ret_slot);
}

/* As neighbours know it: of IPv4, with zeros behind. */
static __always_inline struct xlb_address neighbour_address(const struct xlb_address *address,
							    bool ipv6)
{
	struct xlb_address whole = { .word[0] = address->word[0] };

	if (ipv6)
		address_copy(&whole, address);
	return whole;
}

/* The next hop of a client, if it is there; else NULL. */
static __always_inline const struct xlb_next_hop *
neighbour_known(const struct xlb_address *address, bool ipv6)
{
	struct xlb_address wanted = neighbour_address(address, ipv6);
	const struct xlb_neighbour *neighbour;
	__u32 slot;

	neighbour = neighbour_at(address, ipv6, &slot);
	if (!neighbour || !address_equal(&neighbour->address, &wanted, true))
		return NULL;
	return &neighbour->next_hop;
}

/* The same, taken over from whoever had its entry. */
static __always_inline struct xlb_next_hop *neighbour_get(const struct xlb_address *address,
							  bool ipv6, __u32 *ret_slot)
{
	struct xlb_neighbour *neighbour = neighbour_at(address, ipv6, ret_slot);
	struct xlb_address wanted = neighbour_address(address, ipv6);

	if (!neighbour)
		return NULL;
	if (!address_equal(&neighbour->address, &wanted, true)) {
		address_copy(&neighbour->address, &wanted);
		neighbour->next_hop.checked = 0;
	}
	return &neighbour->next_hop;
}

/* Puts the addresses of a link in front. */
static __always_inline bool link_write(struct xdp_md *ctx, __u64 first, __u64 second)
{
	void *data = (void *)(long)ctx->data;

	if (data + ETH_HLEN > (void *)(long)ctx->data_end)
		return false;
	*(__u64 *)data = first;
	*(__u32 *)(data + 8) = second;
	return true;
}

/*
 * Sends a rewritten packet on its way by tc, or out of another device than it came by; `first` and
 * `second` are the words of struct xlb_hop. Returns an enum verdict.
 */
__weak __noinline int emit_elsewhere(struct xdp_md *ctx, __u64 first, __u64 second)
{
	struct packet *packet = packet_get();
	__u32 hop = HOP_IFINDEX(second), ifindex = hop & XLB_HOP_IFINDEX, by_kernel;
	bool returns = ifindex == ctx->ingress_ifindex, same_link, away;

	if (!packet)
		return VERDICT_PASS;
	if (!ifindex)
		return dropped(packet, XLB_DROP_NO_ROUTE);
	by_kernel = packet->outcome.by_kernel & ~(NOT_BY_KERNEL_TAGS | BY_KERNEL_AWAY);
	if (ifindex == XLB_LOOPBACK_IFINDEX && !by_kernel)
		return VERDICT_LOCAL;
	away = packet->outcome.by_kernel & BY_KERNEL_AWAY;
	same_link = returns && !((packet->vlan_tags || away) && device_untags(ifindex));
	if (hop & XLB_HOP_STACK || (hop & XLB_HOP_NO_REDIRECT && !returns) || by_kernel ||
	    (away && !same_link)) {
		/* tc can send what has one tag: the kernel keeps it beside the packet. */
		if (note_leave(ctx, ifindex, ifindex == XLB_LOOPBACK_IFINDEX ||
						     (same_link && packet->vlan_tags == 1)))
			return dropped(packet, XLB_DROP_EMIT_FAILED);
		return ifindex == XLB_LOOPBACK_IFINDEX ? VERDICT_LOCAL : VERDICT_STACK;
	}
	packet->outcome.by_kernel = 0;
	if (!same_link && packet->vlan_tags && vlan_strip(ctx, packet->vlan_tags))
		return dropped(packet, XLB_DROP_EMIT_FAILED);
	if (link_write(ctx, first, second)) {
		if (returns)
			return VERDICT_TX;
		if (bpf_redirect(ifindex, 0) == XDP_REDIRECT)
			return VERDICT_REDIRECT;
	}
	return dropped(packet, XLB_DROP_EMIT_FAILED);
}

/* Sends a rewritten packet on its way. */
static __always_inline enum verdict emit(struct xdp_md *ctx, struct packet *packet,
					 const struct xlb_hop *hop)
{
	__u64 first = ((const __u64 *)hop)[0], second = ((const __u64 *)hop)[1];

	if (__builtin_expect((HOP_IFINDEX(second) ^ ctx->ingress_ifindex) | packet->outcome.by_kernel,
			     0))
		return emit_elsewhere(ctx, first, second);
	if (link_write(ctx, first, second))
		return VERDICT_TX;
	return dropped(packet, XLB_DROP_EMIT_FAILED);
}

#endif
