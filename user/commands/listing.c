// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "commands/commands.h"
#include "commands/listing.h"
#include "commands/output.h"

static const struct column backend_columns[] = {
	{ "SERVICE", false }, { "ADDRESS", false }, { "WEIGHT", true }, { "STATE", false },
	{ "PACKETS", true },  { "BYTES", true },    { "FLOWS", true },	{ NULL, false },
};

static int by_vip(const void *a, const void *b)
{
	const struct service *const *first = a, *const *second = b;

	return endpoint_compare(&(*first)->vip, &(*second)->vip);
}

int listing_services(struct datapath *dp, const struct service ***ret_services, size_t *ret_n)
{
	const struct model *model = datapath_model(dp);
	const struct service **services, *service;
	size_t cursor = 0, n = 0;

	/* One more, so that an empty list is no NULL. */
	services = calloc(model_count(model) + 1, sizeof(*services));
	if (!services)
		return -ENOMEM;
	while ((service = model_next(model, &cursor)))
		services[n++] = service;
	qsort(services, n, sizeof(*services), by_vip);
	*ret_services = services;
	*ret_n = n;
	return 0;
}

struct counters listing_service_counters(struct datapath *dp, const struct service *service)
{
	struct counters counters;

	if (datapath_service_counters(dp, service, &counters) < 0)
		counters = (struct counters){};
	return counters;
}

static struct counters backend_counters(struct datapath *dp, const struct backend *backend)
{
	struct counters counters;

	if (datapath_backend_counters(dp, backend, &counters) < 0)
		counters = (struct counters){};
	return counters;
}

json_t *listing_backend_json(struct datapath *dp, const struct service *service,
			     const struct backend *backend)
{
	struct counters counters = backend_counters(dp, backend);
	char vip[ENDPOINT_TEXT_MAX], address[ENDPOINT_TEXT_MAX];

	/* clang-format off */
	return json_pack("{s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:I}",
			 "service", endpoint_format(&service->vip, vip),
			 "address", endpoint_format_backend(&backend->endpoint, address),
			 "weight", (int)backend->weight,
			 "state", state_name(backend->state),
			 "packets", (json_int_t)counters.to_backend.packets,
			 "bytes", (json_int_t)counters.to_backend.bytes,
			 "flows", (json_int_t)counters.flows,
			 "reply_packets", (json_int_t)counters.to_client.packets,
			 "reply_bytes", (json_int_t)counters.to_client.bytes);
	/* clang-format on */
}

static enum colour colour_of(uint8_t state)
{
	switch (state) {
	case XLB_BACKEND_ACTIVE:
		return COLOUR_GREEN;
	case XLB_BACKEND_DRAINING:
		return COLOUR_YELLOW;
	default:
		return COLOUR_RED;
	}
}

static void add_row(struct datapath *dp, struct table *table, const char *vip,
		    const struct backend *backend)
{
	struct counters counters = backend_counters(dp, backend);
	char address[ENDPOINT_TEXT_MAX];

	table_cell(table, "%s", vip);
	table_cell(table, "%s", endpoint_format_backend(&backend->endpoint, address));
	table_cell(table, "%u", backend->weight);
	table_cell_coloured(table, colour_of(backend->state), state_name(backend->state));
	table_cell(table, "%" PRIu64, (uint64_t)counters.to_backend.packets);
	table_cell(table, "%" PRIu64, (uint64_t)counters.to_backend.bytes);
	table_cell(table, "%" PRIu64, counters.flows);
}

static int by_address(const void *a, const void *b)
{
	const struct backend *const *first = a, *const *second = b;

	return endpoint_compare(&(*first)->endpoint, &(*second)->endpoint);
}

/* Pointers, because the running state is not ours to sort. The caller's; NULL: out of memory. */
static const struct backend **sorted_backends(const struct service *service)
{
	const struct backend **backends = calloc(service->n_backends + 1, sizeof(*backends));

	if (!backends)
		return NULL;
	for (size_t i = 0; i < service->n_backends; i++)
		backends[i] = &service->backends[i];
	qsort(backends, service->n_backends, sizeof(*backends), by_address);
	return backends;
}

json_t *listing_backends_json(struct datapath *dp, const struct service *service)
{
	_cleanup_(free_pointer) const struct backend **backends = sorted_backends(service);
	json_t *array = backends ? json_array() : NULL;

	for (size_t i = 0; array && i < service->n_backends; i++)
		if (json_array_append_new(array, listing_backend_json(dp, service, backends[i]))) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static int print_table(struct datapath *dp, const struct service *const *services, size_t n)
{
	_cleanup_(table_free_pointer) struct table *table = table_new(backend_columns);

	if (!table)
		return fail("out of memory");
	for (size_t i = 0; i < n; i++) {
		_cleanup_(free_pointer) const struct backend **backends = NULL;
		char vip[ENDPOINT_TEXT_MAX];

		backends = sorted_backends(services[i]);
		if (!backends)
			return fail("out of memory");
		endpoint_format(&services[i]->vip, vip);
		for (size_t j = 0; j < services[i]->n_backends; j++)
			add_row(dp, table, vip, backends[j]);
	}
	return table_print(table);
}

static int print_array(struct datapath *dp, const struct service *const *services, size_t n)
{
	struct json_list list = {};

	for (size_t i = 0; i < n; i++) {
		_cleanup_(free_pointer) const struct backend **backends = NULL;

		backends = sorted_backends(services[i]);
		if (!backends)
			return fail("out of memory");
		for (size_t j = 0; j < services[i]->n_backends; j++)
			json_list_add(&list, listing_backend_json(dp, services[i], backends[j]));
	}
	return json_list_end(&list);
}

int listing_print_backends(struct datapath *dp, const struct service *const *services, size_t n,
			   bool json)
{
	return json ? print_array(dp, services, n) : print_table(dp, services, n);
}

void listing_print_count(const char *what, const struct xlb_count *count)
{
	printf("%-13s %" PRIu64 " packets, %" PRIu64 " bytes\n", what, (uint64_t)count->packets,
	       (uint64_t)count->bytes);
}
