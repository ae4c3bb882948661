// SPDX-License-Identifier: GPL-2.0
/*
 * Rings: what a service's new flows are handed to, slot by slot.
 *
 * Maglev (Eisenbud et al., NSDI 2016, section 3.4). Every backend has a permutation of the slots
 * that depends on its address, its port and the seed alone; backends take turns, and in its turn
 * each takes the first slot of its permutation that is still free. Backends are in sorted order, so
 * the table depends on the set and on nothing else.
 *
 * The number of slots is a prime above 100 times the number of backends, so that equal weights
 * differ by less than 1 %. Another number of slots is another table: nearly every slot changes
 * hands. So sizes come from a sparse list, each about 1.4 times the one before, and a service that
 * grows or shrinks by one mostly keeps its size, and then moves little more than the slots it must.
 *
 * Weights: a backend's turns come as often as its weight, against the greatest. The first round is
 * everybody's, so that any weight above 0 gets at least one slot.
 *
 * Round robin: a backend stands in the ring as often as its weight over the greatest common
 * divisor, evenly spaced, and with those of equal weight in sorted order. Long rings are bounded by
 * scaling the weights down, never to 0.
 *
 * `source` reads a Maglev ring by another hash. `lc` and `random` pick slots at random, for which a
 * round robin ring is as good as any: each backend's share of the slots is its weight.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "model/endpoint.h"
#include "model/ring.h"

#define MAGLEV_SLOTS_EACH 100
#define RR_SLOTS_MAX 65536 /* or one for each backend, if those are more */
#define INDEX_BITS 24	   /* of a key: who. Enough for every ring_size that an ABI word holds */

/*
 * The smallest primes above 100 * 2^(i / 2), without those that no number of backends needs; the
 * last is the greatest below 2^24.
 */
static const uint32_t maglev_sizes[] = {
	101,	 211,	  401,	   569,	    809,     1151,     1601,	 2267,	  3203,
	4547,	 6421,	  9059,	   12809,   18119,   25601,    36209,	 51203,	  72421,
	102407,	 144817,  204803,  289637,  409609,  579263,   819229,	 1158529, 1638431,
	2317057, 3276803, 4634111, 6553621, 9268211, 13107229, 16777213,
};

static bool takes_flows(const struct backend *backend)
{
	return backend->state == XLB_BACKEND_ACTIVE && backend->weight;
}

/* Whether packets read the ring by a hash, and so want it to be alike on all nodes. */
static bool is_maglev(const struct service *service)
{
	return service->scheduler == XLB_SCHEDULER_MAGLEV ||
	       service->scheduler == XLB_SCHEDULER_SOURCE;
}

/* Who is in the ring, in the order of the service. */
struct member {
	const struct backend *backend;
	uint32_t weight;     /* in rr: times in the ring */
	uint32_t slot, skip; /* maglev: place in the permutation, and its step */
	uint64_t turns;	     /* maglev: how many there were */
};

struct members {
	struct member *member;
	uint32_t n;
	uint32_t greatest; /* weight */
};

static void members_free(struct members *members)
{
	free(members->member);
}

static int members_collect(const struct service *service, struct members *ret_members,
			   struct error *err)
{
	struct members members = {};

	members.member = calloc(service->n_backends + 1, sizeof(*members.member));
	if (!members.member)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < service->n_backends; i++) {
		const struct backend *backend = &service->backends[i];

		if (!takes_flows(backend))
			continue;
		members.member[members.n].backend = backend;
		members.member[members.n++].weight = backend->weight;
		if (backend->weight > members.greatest)
			members.greatest = backend->weight;
	}
	*ret_members = members;
	return 0;
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
	while (b) {
		uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static uint64_t weights_reduce(struct members *members)
{
	uint32_t divisor = 0;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < members->n; i++)
		divisor = common_divisor(divisor, members->member[i].weight);
	for (uint32_t i = 0; i < members->n; i++)
		sum += members->member[i].weight /= divisor;
	return sum;
}

/* Turns weights into times in the ring; returns their sum. */
static uint64_t rr_weights(struct members *members)
{
	uint64_t most = members->n > RR_SLOTS_MAX ? members->n : RR_SLOTS_MAX;
	uint64_t sum = weights_reduce(members);

	if (sum <= most)
		return sum;
	for (uint32_t i = 0; i < members->n; i++) {
		uint64_t scaled = members->member[i].weight * (most - members->n) / sum;

		members->member[i].weight = scaled ? scaled : 1;
	}
	return weights_reduce(members);
}

static int maglev_size(uint32_t backends, uint32_t *ret_slots, struct error *err)
{
	for (size_t i = 0; i < sizeof(maglev_sizes) / sizeof(maglev_sizes[0]); i++) {
		if (maglev_sizes[i] > (uint64_t)backends * MAGLEV_SLOTS_EACH) {
			*ret_slots = maglev_sizes[i];
			return 0;
		}
	}
	return error_set(err, E2BIG, "%u backends are more than a service can have (%u)", backends,
			 (1u << INDEX_BITS) / MAGLEV_SLOTS_EACH);
}

int ring_size(const struct service *service, uint32_t *ret_slots, struct error *err)
{
	_cleanup_(members_free) struct members members = {};
	int r = members_collect(service, &members, err);

	if (r)
		return r;
	if (!members.n) {
		*ret_slots = 0;
		return 0;
	}
	if (is_maglev(service))
		return maglev_size(members.n, ret_slots, err);
	*ret_slots = rr_weights(&members);
	return 0;
}

/* Offset and skip of a backend's permutation. */
static void maglev_permute(struct member *member, uint32_t seed, uint32_t n_slots)
{
	struct endpoint plain = member->backend->endpoint;

	/* The same endpoint on TCP and UDP is the same Pod: let clients of both meet there. */
	plain.protocol = 0;
	member->slot = endpoint_hash_keyed(&plain, seed) % n_slots;
	member->skip = endpoint_hash_keyed(&plain, seed | 1ull << 32) % (n_slots - 1) + 1;
}

/*
 * When a member's next turn is: the round, and within it the sorted order. Its n-th turn is in
 * round n * greatest / weight.
 */
static uint64_t maglev_turn(const struct members *members, uint32_t index)
{
	const struct member *member = &members->member[index];

	return member->turns * members->greatest / member->weight << INDEX_BITS | index;
}

/* Lets the least key, at the top of the heap, sink to where it belongs. */
static void heap_sink(uint64_t *heap, uint32_t n)
{
	uint64_t key = heap[0];
	uint32_t place = 0;

	for (;;) {
		uint32_t child = 2 * place + 1;

		if (child >= n)
			break;
		if (child + 1 < n && heap[child + 1] < heap[child])
			child++;
		if (heap[child] >= key)
			break;
		heap[place] = heap[child];
		place = child;
	}
	heap[place] = key;
}

/* The next free slot of a member's permutation, which it takes. */
static uint32_t maglev_take(struct member *member, const uint32_t *slots, uint32_t n_slots)
{
	uint32_t slot = member->slot;

	while (slots[slot]) {
		slot += member->skip;
		slot -= slot >= n_slots ? n_slots : 0;
	}
	member->slot = slot;
	return slot;
}

static int maglev_fill(struct members *members, uint32_t seed, uint32_t *slots, uint32_t n_slots,
		       struct error *err)
{
	_cleanup_(free_pointer) uint64_t *heap = malloc(members->n * sizeof(*heap));

	if (!heap)
		return error_set(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < members->n; i++) {
		maglev_permute(&members->member[i], seed, n_slots);
		heap[i] = i;
	}
	for (uint32_t i = 0; i < n_slots; i++)
		slots[i] = 0;
	for (uint32_t i = 0; i < n_slots; i++) {
		uint32_t index = heap[0] & ((1u << INDEX_BITS) - 1);
		struct member *member = &members->member[index];

		slots[maglev_take(member, slots, n_slots)] = index + 1;
		member->turns++;
		heap[0] = maglev_turn(members, index);
		heap_sink(heap, members->n);
	}
	for (uint32_t i = 0; i < n_slots; i++)
		slots[i] = members->member[slots[i] - 1].backend->id;
	return 0;
}

static int key_order(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* The numbers of the members, sorted by weight and then by number. */
static void rr_classes(const struct members *members, uint64_t *keys)
{
	for (uint32_t i = 0; i < members->n; i++)
		keys[i] = (uint64_t)members->member[i].weight << 32 | i;
	qsort(keys, members->n, sizeof(*keys), key_order);
}

/*
 * Every place in the ring gets a time within one turn of it, then they are sorted. The k-th place
 * of a member is at (k + phase) / weight; the n members of one weight have the phases 0.5/n, 1.5/n,
 * ..., and so follow each other evenly.
 */
static void rr_times(const struct members *members, const uint64_t *classes, uint64_t *keys)
{
	uint32_t first = 0, out = 0;

	while (first < members->n) {
		uint64_t weight = classes[first] >> 32, n = 0;

		while (first + n < members->n && classes[first + n] >> 32 == weight)
			n++;
		for (uint64_t rank = 0; rank < n; rank++) {
			uint32_t index = classes[first + rank];

			for (uint64_t k = 0; k < weight; k++) {
				uint64_t time =
					((k * 2 * n + 2 * rank + 1) << 28) / (2 * n * weight);

				keys[out++] = time << INDEX_BITS | index;
			}
		}
		first += n;
	}
}

static int rr_fill(struct members *members, uint32_t *slots, uint32_t n_slots, struct error *err)
{
	_cleanup_(free_pointer) uint64_t *classes = malloc(members->n * sizeof(*classes));
	_cleanup_(free_pointer) uint64_t *keys = malloc(n_slots * sizeof(*keys));

	if (!classes || !keys)
		return error_set(err, ENOMEM, "out of memory");
	rr_classes(members, classes);
	rr_times(members, classes, keys);
	qsort(keys, n_slots, sizeof(*keys), key_order);
	for (uint32_t i = 0; i < n_slots; i++)
		slots[i] = members->member[keys[i] & ((1u << INDEX_BITS) - 1)].backend->id;
	return 0;
}

int ring_fill(const struct service *service, uint32_t seed, uint32_t *slots, uint32_t n_slots,
	      struct error *err)
{
	_cleanup_(members_free) struct members members = {};
	uint32_t wanted;
	int r = ring_size(service, &wanted, err);

	if (r)
		return r;
	if (wanted != n_slots)
		return error_set(err, EINVAL, "a ring of %u slots where %u are needed", n_slots,
				 wanted);
	if (!n_slots)
		return 0;
	r = members_collect(service, &members, err);
	if (r)
		return r;
	if (is_maglev(service))
		return maglev_fill(&members, seed, slots, n_slots, err);
	rr_weights(&members);
	return rr_fill(&members, slots, n_slots, err);
}

/* The first number whose product with n_slots, over 2^32, is at least `slot`: where it begins. */
static uint64_t slot_start(uint32_t slot, uint32_t n_slots)
{
	return (((uint64_t)slot << 32) + n_slots - 1) / n_slots;
}

bool ring_mark_moved(const uint32_t *old, uint32_t n_old, uint32_t *slots, uint32_t n_slots)
{
	bool any = false;

	for (uint32_t i = 0; i < n_slots; i++) {
		uint64_t first = slot_start(i, n_slots) * n_old >> 32;
		uint64_t last = (slot_start(i + 1, n_slots) - 1) * n_old >> 32;
		bool same = n_old;

		/* A slot with the mark is equal to no backend's id. */
		for (uint64_t j = first; same && j <= last; j++)
			same = old[j] == slots[i];
		if (!same)
			slots[i] |= XLB_RING_MOVED;
		any |= !same;
	}
	return any;
}
