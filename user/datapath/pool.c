// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "datapath/pool.h"

int id_pool_init(struct id_pool *pool, uint32_t most)
{
	*pool = (struct id_pool){ .id = malloc((most + 1ull) * sizeof(*pool->id)),
				  .allocated = most };
	return pool->id ? 0 : -ENOMEM;
}

void id_pool_free(struct id_pool *pool)
{
	free(pool->id);
	*pool = (struct id_pool){};
}

void id_pool_put(struct id_pool *pool, uint32_t id)
{
	if (pool->n < pool->allocated)
		pool->id[pool->n++] = id;
}

uint32_t id_pool_take(struct id_pool *pool)
{
	return pool->n ? pool->id[--pool->n] : 0;
}

static int list_insert(struct extent_list *list, size_t place, struct extent extent)
{
	if (list->n == list->allocated) {
		size_t allocated = list->allocated ? 2 * list->allocated : 16;
		struct extent *more = reallocarray(list->extent, allocated, sizeof(*more));

		if (!more)
			return -ENOMEM;
		list->extent = more;
		list->allocated = allocated;
	}
	memmove(&list->extent[place + 1], &list->extent[place],
		(list->n - place) * sizeof(list->extent[0]));
	list->extent[place] = extent;
	list->n++;
	return 0;
}

static void list_remove(struct extent_list *list, size_t place)
{
	list->n--;
	memmove(&list->extent[place], &list->extent[place + 1],
		(list->n - place) * sizeof(list->extent[0]));
}

/* The place of the first extent that ends behind `start`. */
static size_t list_find(const struct extent_list *list, uint32_t start)
{
	size_t low = 0, high = list->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (list->extent[middle].start + list->extent[middle].length > start)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Adds, and joins with the neighbours. */
static int list_add(struct extent_list *list, struct extent extent)
{
	size_t place = list_find(list, extent.start);
	struct extent *before = place ? &list->extent[place - 1] : NULL;
	struct extent *behind = place < list->n ? &list->extent[place] : NULL;
	bool joins_before = before && before->start + before->length == extent.start;
	bool joins_behind = behind && extent.start + extent.length == behind->start;

	if (joins_before && joins_behind) {
		before->length += extent.length + behind->length;
		list_remove(list, place);
	} else if (joins_before) {
		before->length += extent.length;
	} else if (joins_behind) {
		behind->start = extent.start;
		behind->length += extent.length;
	} else {
		return list_insert(list, place, extent);
	}
	return 0;
}

int extent_pool_init(struct extent_pool *pool, uint32_t size)
{
	*pool = (struct extent_pool){ .size = size };
	return list_insert(&pool->free, 0, (struct extent){ .length = size });
}

void extent_pool_free(struct extent_pool *pool)
{
	free(pool->free.extent);
	free(pool->limbo.extent);
	*pool = (struct extent_pool){};
}

int extent_pool_reserve(struct extent_pool *pool, uint32_t start, uint32_t length)
{
	size_t place = list_find(&pool->free, start);
	struct extent *here = &pool->free.extent[place];
	uint64_t end = (uint64_t)start + length, here_end;

	if (!length)
		return 0;
	if (place == pool->free.n)
		return -EEXIST;
	here_end = (uint64_t)here->start + here->length;
	if (here->start > start || here_end < end)
		return -EEXIST;
	if (here->start < start && end < here_end) {
		struct extent rest = { .start = end, .length = here_end - end };

		if (list_insert(&pool->free, place + 1, rest))
			return -ENOMEM;
		pool->free.extent[place].length = start - pool->free.extent[place].start;
	} else if (here->start < start) {
		here->length = start - here->start;
	} else if (end < here_end) {
		here->start = end;
		here->length = here_end - end;
	} else {
		list_remove(&pool->free, place);
	}
	pool->used += length;
	return 0;
}

/* First fit: rings come in few sizes, so holes are mostly filled by what made them. */
int extent_pool_take(struct extent_pool *pool, uint32_t length, uint32_t *ret_start)
{
	for (size_t i = 0; i < pool->free.n; i++) {
		struct extent *extent = &pool->free.extent[i];

		if (extent->length < length)
			continue;
		*ret_start = extent->start;
		extent->start += length;
		extent->length -= length;
		if (!extent->length)
			list_remove(&pool->free, i);
		pool->used += length;
		return 0;
	}
	return -ENOSPC;
}

int extent_pool_put(struct extent_pool *pool, uint32_t start, uint32_t length)
{
	if (!length)
		return 0;
	pool->used -= length;
	return list_add(&pool->limbo, (struct extent){ .start = start, .length = length });
}

void extent_pool_doubt(struct extent_pool *pool)
{
	struct extent_list empty = pool->limbo;

	/* Only after a fresh start, when nothing is in limbo. */
	pool->limbo = pool->free;
	pool->free = empty;
}

int extent_pool_settle(struct extent_pool *pool)
{
	while (pool->limbo.n) {
		if (list_add(&pool->free, pool->limbo.extent[pool->limbo.n - 1]))
			return -ENOMEM;
		pool->limbo.n--;
	}
	return 0;
}
