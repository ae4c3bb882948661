/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The order in which backends are handed new flows, laid out so that the packet path picks by one
 * index.
 */
#ifndef XLB_RING_H
#define XLB_RING_H

#include "model/model.h"

/*
 * Slots that a ring of this service needs; 0 if nobody may take new flows (no active backend with a
 * weight). Maglev: a prime above 100 times the number of such backends, from a sparse list, so that
 * it seldom changes; `source` the same. Round robin, lc and random: the sum of the weights over
 * their greatest common divisor, bounded (see ring.c). *ret_slots < 2^24. -E2BIG: more backends
 * than that allows; -ENOMEM.
 */
int ring_size(const struct service *service, uint32_t *ret_slots, struct error *err);

/*
 * Fills slots[n_slots], as many as ring_size() says, with the ids of backends. Whose slot it is
 * depends only on the set of (address, port, weight) and the seed, not on order, ids or history.
 * The service's backends must be sorted (service_sort_backends).
 */
int ring_fill(const struct service *service, uint32_t seed, uint32_t *slots, uint32_t n_slots,
	      struct error *err);

/*
 * Marks with XLB_RING_MOVED every slot of a new ring, of which a client that falls on it was on a
 * slot of the old one that named another backend, or had the mark. Returns whether any is marked.
 */
bool ring_mark_moved(const uint32_t *old, uint32_t n_old, uint32_t *slots, uint32_t n_slots);

#endif
