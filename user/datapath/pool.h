/* SPDX-License-Identifier: GPL-2.0 */
/* What is free: ids of backends, and room for rings. In memory only; the maps say what is taken. */
#ifndef XLB_POOL_H
#define XLB_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ids that are free to be given. */
struct id_pool {
	uint32_t *id;		/* the next is the last */
	uint32_t n, allocated;
	uint32_t retired;	/* how many wait for their flows to end */
};

int id_pool_init(struct id_pool *pool, uint32_t most);	/* -ENOMEM */
void id_pool_free(struct id_pool *pool);
void id_pool_put(struct id_pool *pool, uint32_t id);
uint32_t id_pool_take(struct id_pool *pool);		/* 0: none is left */

/*
 * Room in a row of units. What is given back may still be read for a moment, and waits in `limbo`
 * until extent_pool_settle().
 */
struct extent {
	uint32_t start, length;
};

struct extent_list {
	struct extent *extent;	/* in order, and never touching each other */
	size_t n, allocated;
};

struct extent_pool {
	struct extent_list free, limbo;
	uint32_t size, used;	/* units; what is in limbo is not in use */
};

int extent_pool_init(struct extent_pool *pool, uint32_t size);	/* all free; -ENOMEM */
void extent_pool_free(struct extent_pool *pool);
/* Takes what is known to be in use; -EEXIST: some of it is taken already, or lies outside. */
int extent_pool_reserve(struct extent_pool *pool, uint32_t start, uint32_t length);
/* -ENOSPC: nowhere. */
int extent_pool_take(struct extent_pool *pool, uint32_t length, uint32_t *ret_start);
/* Gives back. -ENOMEM: the room is lost to this process. */
int extent_pool_put(struct extent_pool *pool, uint32_t start, uint32_t length);
/* All that is free may still be read: to limbo with it. */
void extent_pool_doubt(struct extent_pool *pool);
/* Makes what is in limbo free. */
int extent_pool_settle(struct extent_pool *pool);

#endif
