// SPDX-License-Identifier: GPL-2.0
/*
 * A set of services: a dense array of pointers, so that walking and removing are simple, and beside
 * it an open-addressing table from VIP to place in the array, so that finding is constant. The
 * table is rebuilt when it grows or when tombstones crowd it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/endpoint.h"
#include "model/model.h"

#define TABLE_MIN 16

enum { PLACE_EMPTY = 0, PLACE_GONE = UINT32_MAX }; /* else: place in `services`, plus one */

struct model {
	struct service **services;
	size_t n, allocated;
	uint32_t *table;	       /* a power of two of places */
	size_t table_size, table_used; /* used: not PLACE_EMPTY */
};

struct model *model_new(void)
{
	return calloc(1, sizeof(struct model));
}

void model_free(struct model *model)
{
	if (!model)
		return;
	for (size_t i = 0; i < model->n; i++)
		service_free(model->services[i]);
	free(model->services);
	free(model->table);
	free(model);
}

size_t model_count(const struct model *model)
{
	return model->n;
}

/* From the end to the start: removing what was just returned moves only what has been seen. */
struct service *model_next(const struct model *model, size_t *cursor)
{
	size_t place = *cursor ? *cursor - 1 : model->n;

	if (!place || place > model->n)
		return NULL;
	*cursor = place;
	return model->services[place - 1];
}

/* Where the VIP stands in the table; else SIZE_MAX. */
static size_t table_find(const struct model *model, const struct endpoint *vip)
{
	size_t mask = model->table_size - 1;

	if (!model->table_size)
		return SIZE_MAX;
	for (size_t slot = endpoint_hash(vip) & mask;; slot = (slot + 1) & mask) {
		uint32_t place = model->table[slot];

		if (place == PLACE_EMPTY)
			return SIZE_MAX;
		if (place != PLACE_GONE && endpoint_equal(&model->services[place - 1]->vip, vip))
			return slot;
	}
}

static void table_put(struct model *model, const struct endpoint *vip, uint32_t place)
{
	size_t mask = model->table_size - 1, slot = endpoint_hash(vip) & mask;

	while (model->table[slot] != PLACE_EMPTY && model->table[slot] != PLACE_GONE)
		slot = (slot + 1) & mask;
	model->table_used += model->table[slot] == PLACE_EMPTY;
	model->table[slot] = place;
}

/* Makes room for one more; the table is never more than half full. */
static int table_reserve(struct model *model)
{
	size_t size = TABLE_MIN;
	uint32_t *table;

	if (2 * (model->table_used + 1) <= model->table_size)
		return 0;
	while (size < 4 * (model->n + 1))
		size *= 2;
	table = calloc(size, sizeof(*table));
	if (!table)
		return -ENOMEM;
	free(model->table);
	model->table = table;
	model->table_size = size;
	model->table_used = 0;
	for (size_t i = 0; i < model->n; i++)
		table_put(model, &model->services[i]->vip, i + 1);
	return 0;
}

static int services_reserve(struct model *model)
{
	size_t allocated = model->allocated ? 2 * model->allocated : TABLE_MIN;
	struct service **services;

	if (model->n < model->allocated)
		return 0;
	services = reallocarray(model->services, allocated, sizeof(*services));
	if (!services)
		return -ENOMEM;
	model->services = services;
	model->allocated = allocated;
	return 0;
}

struct service *model_find(const struct model *model, const struct endpoint *vip)
{
	size_t slot = table_find(model, vip);

	return slot == SIZE_MAX ? NULL : model->services[model->table[slot] - 1];
}

int model_ensure(struct model *model, const struct endpoint *vip, struct service **ret_service)
{
	struct service *service = model_find(model, vip);

	if (service) {
		*ret_service = service;
		return 0;
	}
	if (services_reserve(model) || table_reserve(model))
		return -ENOMEM;
	service = calloc(1, sizeof(*service));
	if (!service)
		return -ENOMEM;
	service->vip = *vip;
	model->services[model->n++] = service;
	table_put(model, vip, model->n);
	*ret_service = service;
	return 0;
}

void model_remove(struct model *model, const struct endpoint *vip)
{
	size_t slot = table_find(model, vip), place;
	struct service *last;

	if (slot == SIZE_MAX)
		return;
	place = model->table[slot] - 1;
	model->table[slot] = PLACE_GONE;
	service_free(model->services[place]);
	last = model->services[--model->n];
	if (place == model->n)
		return;
	slot = table_find(model, &last->vip);
	model->services[place] = last;
	model->table[slot] = place + 1;
}
