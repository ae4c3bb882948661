/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Ones'-complement sums (RFC 1071), kept as 16-bit words in the order in which they lie in memory:
 * no byte swaps, on either endianness.
 */
#ifndef XLB_CHECKSUM_H
#define XLB_CHECKSUM_H

#include <xlb/abi.h>

/* Folds carries; the sum may hold any number of 16- or 32-bit words added up. */
XLB_INLINE __u16 xlb_sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The sum of an address's words; the unused words of IPv4 are 0 and add nothing. */
XLB_INLINE __u16 xlb_sum_address(const struct xlb_address *address)
{
	return xlb_sum_fold((__u64)address->word[0] + address->word[1] + address->word[2] +
			    address->word[3]);
}

#endif
