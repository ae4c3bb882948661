// SPDX-License-Identifier: GPL-2.0
/* Hashes: what comes in steps, as ports and addresses do, is strewn as by chance, under nearly every key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

#include <xlb/hash.h>

#define SLOTS 16384 /* of the default table, which is full with a fourth of that */
#define KEYS 300
#define SEED 0x786c6231
#define RING 997

/* The same numbers in every run. */
static __u64 next_number(void)
{
	static __u64 state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Address number `n` of 10.0.0.0/8 or of 2001:db8::/64. */
static struct xlb_address address_of(uint32_t n, enum xlb_family family)
{
	struct xlb_address address = {};

	if (family == XLB_IPV4) {
		address.word[0] = htonl(0x0a000000 + n);
	} else {
		address.word[0] = htonl(0x20010db8);
		address.word[3] = htonl(n);
	}
	return address;
}

static uint32_t vip_home(const struct xlb_address *address, uint16_t port, enum xlb_family family,
			 const __u64 *secret)
{
	union xlb_vip4 vip = { .address = address->word[0], .port = htons(port),
			       .protocol = XLB_TCP };
	union xlb_vip6_tail tail = { .port = htons(port), .protocol = XLB_TCP, .live = 1 };

	return (family == XLB_IPV4 ? xlb_hash_vip4(vip, secret) :
				     xlb_hash_vip6(address, tail, secret)) &
	       (SLOTS - 1);
}

/* Puts VIPs into a table as slots.c does. Whether all found a slot. */
static bool all_find_a_slot(uint32_t addresses, uint32_t step, uint32_t ports,
			    enum xlb_family family, const __u64 *secret)
{
	static bool taken[SLOTS];

	memset(taken, 0, sizeof(taken));
	for (uint32_t i = 0; i < addresses * ports; i++) {
		struct xlb_address address = address_of(1 + i / ports * step, family);
		uint32_t home = vip_home(&address, 30000 + i % ports, family, secret), probe = 0;

		while (probe < XLB_SERVICE_PROBES && taken[(home + probe) & (SLOTS - 1)])
			probe++;
		if (probe == XLB_SERVICE_PROBES)
			return false;
		taken[(home + probe) & (SLOTS - 1)] = true;
	}
	return true;
}

static void vips_in_steps_find_slots(void **state)
{
	static const uint32_t layouts[][3] = {
		{ 1, 1, 2768 }, { 3, 1, 1365 }, { 2000, 1, 2 }, { 4096, 1, 1 }, { 4096, 256, 1 },
	};
	uint32_t failed = 0;

	(void)state;
	for (uint32_t key = 0; key < KEYS; key++) {
		__u64 secret[2] = { next_number() | 1, next_number() | 1 };

		for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
			const uint32_t *l = layouts[i];

			failed += !all_find_a_slot(l[0], l[1], l[2], XLB_IPV4, secret);
			failed += !all_find_a_slot(l[0], l[1], l[2], XLB_IPV6, secret);
		}
	}
	/* By chance it is one in some thousands; after one multiplication alone, one in a hundred. */
	assert_in_range(failed, 0, 5);
}

/* How far the shares of a ring's slots are from equal, 1 for as far as by chance. */
static double unevenness(uint32_t clients, uint32_t ports, enum xlb_family family)
{
	static uint32_t hits[RING];
	double share = (double)clients * ports / RING, sum = 0;

	memset(hits, 0, sizeof(hits));
	for (uint32_t i = 0; i < clients * ports; i++) {
		struct xlb_address client = address_of(i / ports, family);
		uint32_t hash = xlb_hash_ring(&client, htons(1024 + i % ports), family, SEED);

		hits[(uint64_t)hash * RING >> 32]++;
	}
	for (int slot = 0; slot < RING; slot++)
		sum += (hits[slot] - share) * (hits[slot] - share) / share;
	return sum / (RING - 1);
}

static void clients_are_spread_over_rings(void **state)
{
	(void)state;
	assert_true(unevenness(1000000, 1, XLB_IPV4) < 1.2);
	assert_true(unevenness(1000000, 1, XLB_IPV6) < 1.2);
	assert_true(unevenness(1, 64000, XLB_IPV4) < 1.2);
	assert_true(unevenness(1, 64000, XLB_IPV6) < 1.2);
	assert_true(unevenness(100, 10000, XLB_IPV4) < 1.2);
	assert_true(unevenness(100, 10000, XLB_IPV6) < 1.2);
}

static void endpoints_have_bits_of_their_own(void **state)
{
	static uint8_t bits[XLB_FILTER_BITS / 8];
	uint32_t shared = 0;

	(void)state;
	for (int key = 0; key < 20; key++) {
		__u64 secret[2] = { next_number() | 1, next_number() | 1 };

		memset(bits, 0, sizeof(bits));
		for (uint32_t i = 0; i < 16384; i++) {
			enum xlb_family family = i % 2 ? XLB_IPV4 : XLB_IPV6;
			struct xlb_address address = address_of(i / 2, family);
			__u64 word = xlb_address_word(&address, family, secret);
			uint32_t bit = xlb_filter_bit(
				xlb_endpoint_mark(word, htons(8080), XLB_TCP, secret));

			assert_in_range(bit, 0, XLB_FILTER_BITS - 1);
			shared += bits[bit / 8] >> bit % 8 & 1;
			bits[bit / 8] |= 1 << bit % 8;
		}
	}
	/* By chance 128 of them find theirs taken. */
	assert_in_range(shared / 20, 0, 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vips_in_steps_find_slots),
		cmocka_unit_test(clients_are_spread_over_rings),
		cmocka_unit_test(endpoints_have_bits_of_their_own),
	};

	return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
