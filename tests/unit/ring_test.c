// SPDX-License-Identifier: GPL-2.0
/* Rings: fair, the same everywhere, and moving little. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/ring.h"

#define SEED 1

struct ring {
	uint32_t *slot; /* ids */
	uint32_t size;
};

static void ring_free(struct ring *ring)
{
	free(ring->slot);
}

#define RING __attribute__((cleanup(ring_free))) struct ring

static struct service *service_new(uint8_t scheduler)
{
	struct service *service = calloc(1, sizeof(*service));

	assert_non_null(service);
	service->vip = (struct endpoint){ .family = XLB_IPV4, .protocol = XLB_TCP, .port = 80 };
	service->scheduler = scheduler;
	return service;
}

/* The id is the number plus one, so that rings can be compared across services. */
static void backend_add(struct service *service, uint32_t number, uint16_t weight)
{
	struct backend backend = {
		.endpoint = { .address.word[0] = htonl(0x0a000000 + number),
			      .port = 8080,
			      .family = XLB_IPV4 },
		.weight = weight,
		.state = XLB_BACKEND_ACTIVE,
		.id = number + 1,
	};

	assert_int_equal(service_set_backend(service, &backend), 0);
}

static struct ring ring_make_seeded(struct service *service, uint32_t seed)
{
	struct ring ring = {};
	struct error err;

	service_sort_backends(service);
	assert_int_equal(ring_size(service, &ring.size, &err), 0);
	ring.slot = calloc(ring.size + 1, sizeof(*ring.slot));
	assert_int_equal(ring_fill(service, seed, ring.slot, ring.size, &err), 0);
	return ring;
}

static struct ring ring_make(struct service *service)
{
	return ring_make_seeded(service, SEED);
}

static uint32_t share_of(const struct ring *ring, uint32_t id)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < ring->size; i++)
		n += ring->slot[i] == id;
	return n;
}

static bool is_prime(uint32_t n)
{
	for (uint32_t i = 2; i * i <= n; i++)
		if (n % i == 0)
			return false;
	return n > 1;
}

static void the_size_is_a_prime_above_a_hundred_each(void **state)
{
	static const uint32_t counts[] = { 1, 2, 3, 4, 5, 7, 8, 10, 16, 17, 50, 64, 100, 333, 1000 };

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
		struct error err;
		uint32_t size;

		for (uint32_t n = 0; n < counts[i]; n++)
			backend_add(service, n, 1);
		assert_int_equal(ring_size(service, &size, &err), 0);
		assert_true(is_prime(size));
		assert_true(size > 100 * counts[i]);
		assert_true(size < 150 * counts[i]);
		service_free(service);
	}
}

static void equal_weights_get_equal_shares(void **state)
{
	(void)state;
	for (uint32_t n = 1; n <= 70; n++) {
		struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
		RING ring = {};
		uint32_t least = UINT32_MAX, most = 0;

		for (uint32_t i = 0; i < n; i++)
			backend_add(service, i, 10);
		ring = ring_make(service);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t share = share_of(&ring, i + 1);

			least = share < least ? share : least;
			most = share > most ? share : most;
		}
		/* Within 1 % of the mean, ring.size / n. */
		assert_true((uint64_t)most * n * 100 <= (uint64_t)ring.size * 101);
		assert_true((uint64_t)least * n * 100 >= (uint64_t)ring.size * 99);
		service_free(service);
	}
}

static void shares_follow_weights(void **state)
{
	static const uint16_t weights[] = { 1, 2, 3, 10, 100, 1000 };
	struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
	RING ring = {};
	uint32_t sum = 0;

	(void)state;
	for (uint32_t i = 0; i < 60; i++) {
		backend_add(service, i, weights[i % 6]);
		sum += weights[i % 6];
	}
	ring = ring_make(service);
	for (uint32_t i = 0; i < 60; i++) {
		double ideal = (double)ring.size * weights[i % 6] / sum;
		uint32_t share = share_of(&ring, i + 1);

		assert_true(share >= 1);
		/* A slot up or down, and what the first round gives to those who deserve less than one. */
		assert_true(share + 1 >= ideal * 0.95);
		assert_true(share <= ideal * 1.01 + 1);
	}
	service_free(service);
}

static void only_those_who_take_new_flows_are_in_it(void **state)
{
	(void)state;
	for (uint8_t scheduler = XLB_SCHEDULER_MAGLEV; scheduler <= XLB_SCHEDULER_RR; scheduler++) {
		struct service *service = service_new(scheduler);
		RING ring = {};

		for (uint32_t i = 0; i < 5; i++)
			backend_add(service, i, i == 1 ? 0 : 1);
		service->backends[2].state = XLB_BACKEND_DRAINING;
		service->backends[3].state = XLB_BACKEND_DOWN;
		ring = ring_make(service);
		assert_int_equal(share_of(&ring, 1) + share_of(&ring, 5), ring.size);
		assert_true(share_of(&ring, 1) && share_of(&ring, 5));
		service_free(service);
	}
}

static void a_ring_of_nobody_is_empty(void **state)
{
	struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
	struct error err;
	uint32_t size = 7;

	(void)state;
	assert_int_equal(ring_size(service, &size, &err), 0);
	assert_int_equal(size, 0);
	backend_add(service, 1, 0);
	size = 7;
	assert_int_equal(ring_size(service, &size, &err), 0);
	assert_int_equal(size, 0);
	assert_int_equal(ring_fill(service, SEED, NULL, 0, &err), 0);
	service_free(service);
}

/* Every order of coming and going leads to the same table, slot by slot. */
static void order_and_history_do_not_matter(void **state)
{
	enum { N = 40 };

	(void)state;
	for (uint8_t scheduler = XLB_SCHEDULER_MAGLEV; scheduler <= XLB_SCHEDULER_RR; scheduler++) {
		struct service *one = service_new(scheduler), *two = service_new(scheduler);
		RING first = {};
		RING second = {};

		for (uint32_t i = 0; i < N; i++)
			backend_add(one, i, 1 + i % 3);
		for (uint32_t i = 0; i < 3 * N; i++)
			backend_add(two, (i * 77 + 5) % (3 * N), 9);
		for (uint32_t i = 3 * N; i > N; i--) {
			struct endpoint gone = { .address.word[0] = htonl(0x0a000000 + i - 1),
						 .port = 8080,
						 .family = XLB_IPV4 };

			service_remove_backend(two, &gone);
		}
		for (uint32_t i = N; i > 0; i--)
			backend_add(two, i - 1, 1 + (i - 1) % 3);
		first = ring_make(one);
		second = ring_make(two);
		assert_int_equal(first.size, second.size);
		assert_memory_equal(first.slot, second.slot, first.size * sizeof(*first.slot));
		service_free(one);
		service_free(two);
	}
}

static uint32_t moved(const struct ring *before, const struct ring *after, uint32_t without)
{
	uint32_t n = 0;

	assert_int_equal(before->size, after->size);
	for (uint32_t i = 0; i < before->size; i++)
		n += before->slot[i] != after->slot[i] && before->slot[i] != without &&
		     after->slot[i] != without;
	return n;
}

/* When one of N comes or goes, its own slots change hands, and of the others' few. */
static void one_of_many_moves_little(void **state)
{
	static const uint32_t counts[] = { 10, 16, 30, 50, 100 };

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
		RING before = {};
		RING after = {};
		struct endpoint gone;

		for (uint32_t n = 0; n < counts[i]; n++)
			backend_add(service, n, 1);
		before = ring_make(service);
		gone = service->backends[counts[i] / 2].endpoint;
		service_remove_backend(service, &gone);
		after = ring_make(service);
		/* The paper's figure 12: about 3 % of the others at this ratio. */
		assert_true(moved(&before, &after, counts[i] / 2 + 1) < before.size * 5 / 100);
		service_free(service);
	}
}

static void the_seed_changes_the_table(void **state)
{
	struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
	RING one = {};
	RING two = {};

	(void)state;
	for (uint32_t i = 0; i < 10; i++)
		backend_add(service, i, 1);
	one = ring_make_seeded(service, 1);
	two = ring_make_seeded(service, 2);
	assert_memory_not_equal(one.slot, two.slot, one.size * sizeof(*one.slot));
	service_free(service);
}

static uint64_t digest(const struct ring *ring)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (uint32_t i = 0; i < ring->size; i++)
		hash = (hash ^ ring->slot[i]) * 0x100000001b3;
	return hash;
}

/* Nodes may run different versions for a while: these must not change. */
static void tables_are_the_same_in_every_version(void **state)
{
	struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
	struct service *six = service_new(XLB_SCHEDULER_MAGLEV);

	(void)state;
	for (uint32_t i = 0; i < 7; i++)
		backend_add(service, i, 1 + i);
	six->vip.family = XLB_IPV6;
	for (uint32_t i = 0; i < 7; i++) {
		struct backend backend = {
			.endpoint = { .address.word = { htonl(0x20010db8), 0, 0, htonl(i + 1) },
				      .port = 8080,
				      .family = XLB_IPV6 },
			.weight = 1,
			.state = XLB_BACKEND_ACTIVE,
			.id = i + 1,
		};

		service_set_backend(six, &backend);
	}
	RING four_ring = ring_make_seeded(service, 0x786c6231);
	RING six_ring = ring_make_seeded(six, 0x786c6231);

	assert_int_equal(four_ring.size, 809);
	assert_int_equal(digest(&four_ring), 0xce5744f14684a4bb);
	assert_int_equal(digest(&six_ring), 0x27ca5f17d9f0ad67);
	service_free(service);
	service_free(six);
}

static void assert_rotation(const uint16_t *weights, uint32_t n, const char *expected)
{
	struct service *service = service_new(XLB_SCHEDULER_RR);
	RING ring = {};

	for (uint32_t i = 0; i < n; i++)
		backend_add(service, i, weights[i]);
	ring = ring_make(service);
	assert_int_equal(ring.size, strlen(expected));
	for (uint32_t i = 0; i < ring.size; i++)
		assert_int_equal('a' + ring.slot[i] - 1, expected[i]);
	service_free(service);
}

static void round_robin_goes_around(void **state)
{
	(void)state;
	assert_rotation((const uint16_t[]){ 1, 1, 1 }, 3, "abc");
	assert_rotation((const uint16_t[]){ 500, 500, 500, 500 }, 4, "abcd");
	assert_rotation((const uint16_t[]){ 2, 1 }, 2, "aba");
	assert_rotation((const uint16_t[]){ 30, 10 }, 2, "aaba");
	assert_rotation((const uint16_t[]){ 5, 1, 1 }, 3, "abaaaca");
	assert_rotation((const uint16_t[]){ 3, 0, 3 }, 3, "ac");
}

/* Weights of 10 backends, which every scheduler has to follow. */
static const uint16_t mixed_weights[] = { 1, 2, 3, 4, 10, 10, 20, 1, 0, 50 };

static struct ring ring_of(uint8_t scheduler)
{
	struct service *service = service_new(scheduler);
	struct ring ring;

	for (uint32_t i = 0; i < 10; i++)
		backend_add(service, i, mixed_weights[i]);
	ring = ring_make(service);
	service_free(service);
	return ring;
}

/* A slot picked at random, by whatever, is a backend's as often as its weight. */
static void random_picks_have_exact_shares(void **state)
{
	static const uint8_t schedulers[] = { XLB_SCHEDULER_LC, XLB_SCHEDULER_RANDOM };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		RING ring = ring_of(schedulers[i]);

		assert_int_equal(ring.size, 101);
		for (uint32_t n = 0; n < 10; n++)
			assert_int_equal(share_of(&ring, n + 1), mixed_weights[n]);
	}
}

static void source_has_the_table_of_maglev(void **state)
{
	RING maglev = ring_of(XLB_SCHEDULER_MAGLEV);
	RING source = ring_of(XLB_SCHEDULER_SOURCE);

	(void)state;
	assert_int_equal(maglev.size, source.size);
	assert_memory_equal(maglev.slot, source.slot, maglev.size * sizeof(*maglev.slot));
}

/* Where the packet path finds a client. */
static uint32_t owner_of(const uint32_t *slots, uint32_t size, uint32_t hash)
{
	return slots[(uint64_t)hash * size >> 32];
}

static uint32_t random_next(uint32_t *random)
{
	*random = *random * 1664525 + 1013904223;
	return *random >> 8;
}

/*
 * Every client that has another backend than before is on a marked slot, and no slot is marked
 * without such a client: tried at both ends of whatever two slots have in common.
 */
static void assert_marks(const uint32_t *old, uint32_t n_old, uint32_t *slots, uint32_t n_slots)
{
	_cleanup_(free_pointer) bool *wanted = calloc(n_slots, sizeof(*wanted));
	bool any = ring_mark_moved(old, n_old, slots, n_slots), found = false;

	for (uint64_t i = 0; i < (uint64_t)n_old + n_slots; i++) {
		uint64_t size = i < n_old ? n_old : n_slots, slot = i < n_old ? i : i - n_old;
		uint64_t edge = ((slot << 32) + size - 1) / size;

		for (uint64_t hash = edge ? edge - 1 : 0; hash <= edge; hash++)
			wanted[hash * n_slots >> 32] |=
				owner_of(old, n_old, hash) !=
				(owner_of(slots, n_slots, hash) & ~XLB_RING_MOVED);
	}
	for (uint32_t i = 0; i < n_slots; i++) {
		assert_int_equal(wanted[i], slots[i] >> 31);
		found |= wanted[i];
	}
	assert_int_equal(any, found);
}

static void moved_slots_are_marked(void **state)
{
	uint32_t old[150], slots[150], random = 1;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		uint32_t n_old = random_next(&random) % 150 + 1;
		uint32_t n_slots = round & 1 ? n_old : random_next(&random) % 150 + 1;
		uint32_t backends = round % 7 + 1;

		for (uint32_t i = 0; i < n_old; i++) {
			old[i] = random_next(&random) % backends + 1;
			if (random_next(&random) % 50 == 0)
				old[i] |= XLB_RING_MOVED;
		}
		for (uint32_t i = 0; i < n_slots; i++)
			slots[i] = i < n_old && random_next(&random) % 10 ?
					   old[i] & ~XLB_RING_MOVED :
					   random_next(&random) % backends + 1;
		assert_marks(old, n_old, slots, n_slots);
	}
}

static void nothing_moves_between_equal_rings(void **state)
{
	RING before = ring_of(XLB_SCHEDULER_MAGLEV);
	RING after = ring_of(XLB_SCHEDULER_MAGLEV);

	(void)state;
	assert_false(ring_mark_moved(before.slot, before.size, after.slot, after.size));
	assert_memory_equal(before.slot, after.slot, after.size * sizeof(*after.slot));
	/* Where nobody was, everybody is new; where nobody is, there is nothing to mark. */
	assert_false(ring_mark_moved(before.slot, before.size, NULL, 0));
	assert_true(ring_mark_moved(NULL, 0, after.slot, after.size));
	for (uint32_t i = 0; i < after.size; i++)
		assert_true(after.slot[i] & XLB_RING_MOVED);
}

static void long_rotations_are_bounded(void **state)
{
	struct service *service = service_new(XLB_SCHEDULER_RR);
	RING ring = {};

	(void)state;
	backend_add(service, 0, 65535);
	backend_add(service, 1, 65534);
	backend_add(service, 2, 1);
	ring = ring_make(service);
	assert_true(ring.size <= 65536);
	assert_true(share_of(&ring, 3) >= 1);
	assert_in_range(share_of(&ring, 1), share_of(&ring, 2), share_of(&ring, 2) + 1);
	service_free(service);
}

static void extremes_are_filled_in_time(void **state)
{
	struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
	RING ring = {};

	(void)state;
	backend_add(service, 0, 65535);
	for (uint32_t i = 1; i < 3000; i++)
		backend_add(service, i, 1);
	ring = ring_make(service);
	assert_true(share_of(&ring, 1) > ring.size * 9 / 10);
	assert_in_range(share_of(&ring, 2000), 5, 7); /* 5.98 */
	service_free(service);
}

static void a_ring_of_the_wrong_size_is_refused(void **state)
{
	struct service *service = service_new(XLB_SCHEDULER_MAGLEV);
	struct error err;
	uint32_t slots[16];

	(void)state;
	backend_add(service, 0, 1);
	assert_int_equal(ring_fill(service, SEED, slots, 16, &err), -EINVAL);
	service_free(service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_size_is_a_prime_above_a_hundred_each),
		cmocka_unit_test(equal_weights_get_equal_shares),
		cmocka_unit_test(shares_follow_weights),
		cmocka_unit_test(only_those_who_take_new_flows_are_in_it),
		cmocka_unit_test(a_ring_of_nobody_is_empty),
		cmocka_unit_test(order_and_history_do_not_matter),
		cmocka_unit_test(one_of_many_moves_little),
		cmocka_unit_test(the_seed_changes_the_table),
		cmocka_unit_test(tables_are_the_same_in_every_version),
		cmocka_unit_test(round_robin_goes_around),
		cmocka_unit_test(random_picks_have_exact_shares),
		cmocka_unit_test(source_has_the_table_of_maglev),
		cmocka_unit_test(moved_slots_are_marked),
		cmocka_unit_test(nothing_moves_between_equal_rings),
		cmocka_unit_test(long_rotations_are_bounded),
		cmocka_unit_test(extremes_are_filled_in_time),
		cmocka_unit_test(a_ring_of_the_wrong_size_is_refused),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
