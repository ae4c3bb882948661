/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The hashes that the packet path and lbctl must agree on.
 *
 * Tables that strangers can fill are keyed with the node's secret: multiplication by a random odd
 * number, whose high bits are a universal hash (Dietzfelbinger et al., 1997), so that nobody who
 * does not know it can choose a line. The ring's hash is keyed with the seed that all nodes share.
 */
#ifndef XLB_HASH_H
#define XLB_HASH_H

#include <xlb/abi.h>

/* Eight bytes of an address, whatever type they were written as. */
typedef __u64 __attribute__((__may_alias__)) xlb_half;

/* The two multiplications of xlb_mix(), for who can do with the first. */
XLB_INLINE __u64 xlb_mix_first(__u64 word, __u64 key0, __u64 key1)
{
	return (word ^ key0) * key1;
}

XLB_INLINE __u64 xlb_mix_second(__u64 word, __u64 key0)
{
	return (word ^ word >> 32) * key0;
}

/*
 * Mixes a word under a key of two odd words. The upper half of the result is usable; different words give different
 * results. After one multiplication alone, what comes in steps (ports, addresses) would fall close together for a few keys in
 * a thousand.
 */
XLB_INLINE __u64 xlb_mix(__u64 word, __u64 key0, __u64 key1)
{
	return xlb_mix_second(xlb_mix_first(word, key0, key1), key0);
}

/*
 * Folds an IPv6 address to a word under the same key: each half is multiplied by a secret of its
 * own, and bent in a way of its own, so that they cannot be traded against each other.
 */
XLB_INLINE __u64 xlb_fold(const struct xlb_address *address, __u64 key0, __u64 key1)
{
	__u64 high = ((const xlb_half *)address)[0] * key0;
	__u64 low = ((const xlb_half *)address)[1] * key1;

	return (high ^ high >> 32) + (low ^ low >> 29);
}

/* Home slot of a VIP, before masking. */
XLB_INLINE __u32 xlb_hash_vip4(union xlb_vip4 vip, const __u64 *secret)
{
	return xlb_mix(vip.word, secret[0], secret[1]) >> 32;
}

XLB_INLINE __u32 xlb_hash_vip6(const struct xlb_address *address, union xlb_vip6_tail vip,
			       const __u64 *secret)
{
	__u64 word = xlb_fold(address, secret[0], secret[1]) + vip.word;

	return xlb_mix(word, secret[0], secret[1]) >> 32;
}

/* A word that stands for an address of either family. */
XLB_INLINE __u64 xlb_address_word(const struct xlb_address *address, enum xlb_family family,
				  const __u64 *keys)
{
	return family == XLB_IPV4 ? address->word[0] : xlb_fold(address, keys[0], keys[1]);
}

/*
 * What an endpoint's bit in `filter`, and the base of its replies, come from: all that most packets that are not ours
 * need. Port in network order.
 */
XLB_INLINE __u64 xlb_endpoint_mark(__u64 address_word, __be16 port, __u8 protocol,
				   const __u64 *secret)
{
	__u64 rest = (__u64)port << 40 | (__u64)protocol << 56;

	return xlb_mix_first(address_word + rest, secret[1], secret[0]);
}

/* The base of an endpoint's replies in `flows`; all bits are usable, as an addend. */
XLB_INLINE __u64 xlb_endpoint_hash(__u64 mark, const __u64 *secret)
{
	return xlb_mix_second(mark, secret[1]);
}

/* What xlb_hash_client() wants, from the seed that all nodes share. */
XLB_INLINE void xlb_ring_keys(__u32 seed, __u64 ret_keys[2])
{
	ret_keys[0] = (seed * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull) | 1;
	ret_keys[1] = (ret_keys[0] ^ ret_keys[0] >> 29) * 0xbf58476d1ce4e5b9ull | 1;
}

/*
 * Where a client falls on rings, as a fraction of 2^32, on every node with the same seed: slot n of
 * m where n = hash * m >> 32. `port` is 0 where only the address counts (XLB_SCHEDULER_SOURCE).
 */
XLB_INLINE __u32 xlb_hash_client(const struct xlb_address *client, __be16 port,
				 enum xlb_family family, const __u64 *keys)
{
	__u64 word = xlb_address_word(client, family, keys);

	return xlb_mix(word + ((__u64)port << 40), keys[0], keys[1]) >> 32;
}

/* The same, where it is asked for now and then. */
XLB_INLINE __u32 xlb_hash_ring(const struct xlb_address *client, __be16 port,
			       enum xlb_family family, __u32 seed)
{
	__u64 keys[2];

	xlb_ring_keys(seed, keys);
	return xlb_hash_client(client, port, family, keys);
}

XLB_INLINE __u32 xlb_filter_bit(__u64 mark)
{
	return mark >> (64 - XLB_FILTER_SHIFT);
}

#endif
