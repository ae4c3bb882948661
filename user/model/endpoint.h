/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hashing and ordering endpoints inside the model. The packet path's hashes are others: xlb/hash.h.
 */
#ifndef XLB_MODEL_ENDPOINT_H
#define XLB_MODEL_ENDPOINT_H

#include <arpa/inet.h>
#include <string.h>

#include "model/model.h"

/*
 * The finaliser of MurmurHash3 (public domain): every bit of the word reaches every bit of the
 * result.
 */
static inline uint64_t hash_word(uint64_t word)
{
	word = (word ^ word >> 33) * 0xff51afd7ed558ccdull;
	word = (word ^ word >> 33) * 0xc4ceb9fe1a85ec53ull;
	return word ^ word >> 33;
}

static inline uint64_t endpoint_hash_keyed(const struct endpoint *endpoint, uint64_t key)
{
	const uint32_t *word = endpoint->address.word;
	uint64_t high = (uint64_t)ntohl(word[0]) << 32 | ntohl(word[1]);
	uint64_t low = (uint64_t)ntohl(word[2]) << 32 | ntohl(word[3]);

	return hash_word(hash_word(hash_word(key ^ high) + low) + endpoint->port +
			 ((uint64_t)endpoint->protocol << 16) + ((uint64_t)endpoint->family << 24));
}

static inline uint64_t endpoint_hash(const struct endpoint *endpoint)
{
	return endpoint_hash_keyed(endpoint, 0);
}

/* By family, address and port: what tells the backends of a service apart. */
static inline int endpoint_order(const struct endpoint *a, const struct endpoint *b)
{
	int order = (int)a->family - (int)b->family;

	if (!order)
		order = memcmp(&a->address, &b->address, sizeof(a->address));
	return order ? order : (int)a->port - (int)b->port;
}

#endif
