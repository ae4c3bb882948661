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

/*
 * Mixes a word under a key of two words. All 64 bits of the result are usable; prefer the high
 * ones.
 */
XLB_INLINE __u64 xlb_mix(__u64 word, __u64 key0, __u64 key1)
{
	word = (word ^ key0) * (key1 | 1);
	word ^= word >> 32;
	word *= key0 | 1;
	return word ^ word >> 29;
}

/*
 * Folds an IPv6 address to a word under the same key: each half is multiplied by a secret of its
 * own, so that they cannot be traded against each other.
 */
XLB_INLINE __u64 xlb_fold(const struct xlb_address *address, __u64 key0, __u64 key1)
{
	__u64 high = (__u64)address->word[0] << 32 | address->word[1];
	__u64 low = (__u64)address->word[2] << 32 | address->word[3];

	high = (high ^ key1) * (key0 | 1);
	low = (low ^ key0) * (key1 | 1);
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
				  const __u64 *secret)
{
	return family == XLB_IPV4 ? address->word[0] : xlb_fold(address, secret[0], secret[1]);
}

/*
 * The base of an endpoint's replies in `flows`, and (its high bits) its bit in `filter`. Port in
 * network order.
 */
XLB_INLINE __u64 xlb_hash_endpoint(__u64 address_word, __be16 port, __u8 protocol,
				   const __u64 *secret)
{
	__u64 rest = (__u64)port << 40 | (__u64)protocol << 56;

	return xlb_mix(address_word + rest, secret[1], secret[0]);
}

/* What xlb_hash_client() wants, from the seed that all nodes share. */
XLB_INLINE void xlb_ring_keys(__u32 seed, __u64 ret_keys[2])
{
	ret_keys[0] = seed * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull;
	ret_keys[1] = (ret_keys[0] ^ ret_keys[0] >> 29) * 0xbf58476d1ce4e5b9ull;
}

/*
 * Where a client falls on rings, as a fraction of 2^32, on every node with the same seed: slot n of
 * m where n = hash * m >> 32. `port` is 0 where only the address counts (XLB_SCHEDULER_SOURCE).
 */
XLB_INLINE __u32 xlb_hash_client(const struct xlb_address *client, __be16 port,
				 enum xlb_family family, const __u64 *keys)
{
	__u64 word = family == XLB_IPV6 ? xlb_fold(client, keys[0], keys[1]) : client->word[0];

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

XLB_INLINE __u32 xlb_filter_bit(__u64 endpoint_hash)
{
	return endpoint_hash >> 32 & (XLB_FILTER_BITS - 1);
}

#endif
