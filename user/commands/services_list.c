// SPDX-License-Identifier: GPL-2.0
/* services list and show. */
#include <inttypes.h>
#include <stdlib.h>

#include "commands/command.h"
#include "commands/listing.h"
#include "commands/output.h"
#include "commands/session.h"

/* clang-format off */
static const struct column columns[] = {
	{ "SERVICE", false },
	{ "FORWARD", false },
	{ "SCHEDULER", false },
	{ "BACKENDS", true },
	{ "PACKETS", true },
	{ "BYTES", true },
	{ "FLOWS", true },
	{ "REFUSED", true },
	{ "DROPPED", true },
	{ "OWNER", false },
	{ "NAME", false },
	{ NULL, false },
};
/* clang-format on */

/* As they stand: ranges of the other family than the VIP's are there, and admit nobody. */
static json_t *ranges_json(const struct service *service)
{
	json_t *array = json_array();
	char text[ENDPOINT_TEXT_MAX];

	for (size_t i = 0; array && i < service->n_ranges; i++)
		json_array_append_new(array, json_string(prefix_format(&service->ranges[i], text)));
	return array;
}

static json_t *encap_source_json(const struct service *service)
{
	char text[ENDPOINT_TEXT_MAX];

	if (!service->encap_source.family)
		return json_null();
	return json_string(encap_source_format(&service->encap_source, text));
}

static json_t *gue_port_json(const struct service *service)
{
	return service->forward == XLB_FORWARD_GUE ? json_integer(service_gue_port(service)) :
						     json_null();
}

/* The fields that design.md names come first and are stable. */
static json_t *to_json(const struct service *service, const struct counters *counters)
{
	char vip[ENDPOINT_TEXT_MAX];

	/* clang-format off */
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
			 "s:I, s:i, s:o, s:i, s:o, s:o, s:b, s:b}",
			 "service", endpoint_format(&service->vip, vip),
			 "owner", owner_name(service->owner),
			 "name", service->name,
			 "forward", forward_name(service->forward),
			 "scheduler", scheduler_name(service->scheduler),
			 "backends", (json_int_t)service->n_backends,
			 "packets", (json_int_t)counters->to_backend.packets,
			 "bytes", (json_int_t)counters->to_backend.bytes,
			 "flows", (json_int_t)counters->flows,
			 "reply_packets", (json_int_t)counters->to_client.packets,
			 "reply_bytes", (json_int_t)counters->to_client.bytes,
			 "refused", (json_int_t)counters->refused.packets,
			 "refused_bytes", (json_int_t)counters->refused.bytes,
			 "dropped", (json_int_t)counters->dropped.packets,
			 "dropped_bytes", (json_int_t)counters->dropped.bytes,
			 "affinity", (int)service->affinity_s,
			 "source_ranges", ranges_json(service),
			 "mss", (int)service->mss,
			 "encap_source", encap_source_json(service),
			 "gue_port", gue_port_json(service),
			 "gue_checksum", service->gue_checksum,
			 "echo", !service->no_echo);
	/* clang-format on */
}

static void add_row(struct table *table, const struct service *service,
		    const struct counters *counters)
{
	char vip[ENDPOINT_TEXT_MAX];

	table_cell(table, "%s", endpoint_format(&service->vip, vip));
	table_cell(table, "%s", forward_name(service->forward));
	table_cell(table, "%s", scheduler_name(service->scheduler));
	table_cell(table, "%zu", service->n_backends);
	table_cell(table, "%" PRIu64, (uint64_t)counters->to_backend.packets);
	table_cell(table, "%" PRIu64, (uint64_t)counters->to_backend.bytes);
	table_cell(table, "%" PRIu64, counters->flows);
	table_cell(table, "%" PRIu64, (uint64_t)counters->refused.packets);
	table_cell(table, "%" PRIu64, (uint64_t)counters->dropped.packets);
	table_cell(table, "%s", owner_name(service->owner));
	table_cell(table, "%s", *service->name ? service->name : "-");
}

static int list(struct datapath *dp, bool json)
{
	_cleanup_(table_free_pointer) struct table *table = json ? NULL : table_new(columns);
	_cleanup_(free_pointer) const struct service **services = NULL;
	struct json_list elements = {};
	size_t n;

	if ((!json && !table) || listing_services(dp, &services, &n) < 0)
		return fail("out of memory");
	for (size_t i = 0; i < n; i++) {
		struct counters counters = listing_service_counters(dp, services[i]);

		if (json)
			json_list_add(&elements, to_json(services[i], &counters));
		else
			add_row(table, services[i], &counters);
	}
	return json ? json_list_end(&elements) : table_print(table);
}

static int run_list(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	struct command_line line;
	int status;

	command_line_start(&line, &verb_services_list, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	status = session_open(&line, &dp);
	return status == STATUS_OK ? list(dp, line.json) : status;
}

static void show_ranges(const struct service *service)
{
	const struct prefix *range;
	char text[ENDPOINT_TEXT_MAX];
	const char *before = "";
	size_t cursor = 0;

	if (!service->n_ranges)
		return;
	printf("%-13s ", "source ranges");
	while ((range = service_next_range(service, &cursor))) {
		printf("%s%s", before, prefix_format(range, text));
		before = ",";
	}
	puts(*before ? "" : "none of the VIP's family: nobody is let in");
}

/* What most services have not. */
static void show_options(const struct service *service)
{
	char text[ENDPOINT_TEXT_MAX];

	if (service->affinity_s)
		printf("%-13s %u s\n", "affinity", service->affinity_s);
	show_ranges(service);
	if (service->mss)
		printf("%-13s %u\n", "mss", service->mss);
	if (service->encap_source.family)
		printf("%-13s %s\n", "encap source",
		       encap_source_format(&service->encap_source, text));
	if (service->forward == XLB_FORWARD_GUE)
		printf("%-13s %u\n", "gue port", service_gue_port(service));
	if (service->gue_checksum)
		printf("%-13s on\n", "gue checksum");
	if (service->no_echo)
		printf("%-13s off\n", "echo");
}

static int show_text(struct datapath *dp, const struct service *service,
		     const struct counters *counters)
{
	char vip[ENDPOINT_TEXT_MAX];

	printf("%-13s %s\n", "service", endpoint_format(&service->vip, vip));
	printf("%-13s %s\n", "name", *service->name ? service->name : "-");
	printf("%-13s %s\n", "owner", owner_name(service->owner));
	printf("%-13s %s\n", "forward", forward_name(service->forward));
	printf("%-13s %s\n", "scheduler", scheduler_name(service->scheduler));
	show_options(service);
	listing_print_count("to backends", &counters->to_backend);
	listing_print_count("to clients", &counters->to_client);
	listing_print_count("refused", &counters->refused);
	listing_print_count("dropped", &counters->dropped);
	printf("%-13s %" PRIu64 "\n", "flows", counters->flows);
	printf("%-13s %zu\n", "backends", service->n_backends);
	if (!service->n_backends)
		return STATUS_OK;
	putchar('\n');
	return listing_print_backends(dp, &service, 1, false);
}

static int run_show(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	const struct service *service = NULL;
	struct command_line line;
	struct counters counters;
	struct endpoint vip;
	json_t *object;
	int status;

	command_line_start(&line, &verb_services_show, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	status = session_parse_vip(&line, line.operands[0], &vip);
	if (status == STATUS_OK)
		status = session_open(&line, &dp);
	if (status == STATUS_OK)
		status = session_find_service(dp, &vip, &service);
	if (status != STATUS_OK)
		return status;
	counters = listing_service_counters(dp, service);
	if (!line.json)
		return show_text(dp, service, &counters);
	object = to_json(service, &counters);
	json_object_set_new(object, "members", listing_backends_json(dp, service));
	return print_json(object);
}

const struct command verb_services_list = {
	.name = "services list",
	.operands = "",
	.summary = "List services and their counters",
	.run = run_list,
};

const struct command verb_services_show = {
	.name = "services show",
	.operands = "SERVICE",
	.summary = "Show one service with its backends",
	.run = run_show,
};
