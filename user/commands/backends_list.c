// SPDX-License-Identifier: GPL-2.0
/* backends list and show. */
#include <inttypes.h>
#include <stdlib.h>

#include "commands/command.h"
#include "commands/listing.h"
#include "commands/output.h"
#include "commands/session.h"

static int list_one(struct datapath *dp, const struct endpoint *vip, bool json)
{
	const struct service *service = NULL;
	int status;

	status = session_find_service(dp, vip, &service);
	if (status != STATUS_OK)
		return status;
	return listing_print_backends(dp, &service, 1, json);
}

static int list_all(struct datapath *dp, bool json)
{
	_cleanup_(free_pointer) const struct service **services = NULL;
	size_t n;

	if (listing_services(dp, &services, &n) < 0)
		return fail("out of memory");
	return listing_print_backends(dp, services, n, json);
}

static int run_list(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	struct command_line line;
	struct endpoint vip;
	int status = STATUS_OK;

	command_line_start(&line, &verb_backends_list, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	if (line.n_operands)
		status = session_parse_vip(&line, line.operands[0], &vip);
	if (status == STATUS_OK)
		status = session_open(&line, &dp);
	if (status != STATUS_OK)
		return status;
	return line.n_operands ? list_one(dp, &vip, line.json) : list_all(dp, line.json);
}

static int show_text(struct datapath *dp, const struct service *service,
		     const struct backend *backend)
{
	struct counters counters = {};
	char text[ENDPOINT_TEXT_MAX];

	/* Where they cannot be read, another lbctl has removed the backend: zeros. */
	datapath_backend_counters(dp, backend, &counters);
	printf("%-13s %s\n", "service", endpoint_format(&service->vip, text));
	printf("%-13s %s\n", "address", endpoint_format_backend(&backend->endpoint, text));
	printf("%-13s %u\n", "weight", backend->weight);
	printf("%-13s %s\n", "state", state_name(backend->state));
	printf("%-13s %u\n", "id", backend->id);
	listing_print_count("to backend", &counters.to_backend);
	listing_print_count("to clients", &counters.to_client);
	printf("%-13s %" PRIu64 "\n", "flows", counters.flows);
	return STATUS_OK;
}

static int run_show(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	struct endpoint vip, address;
	const struct service *service = NULL;
	struct command_line line;
	struct backend *backend = NULL;
	int status;

	command_line_start(&line, &verb_backends_show, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	status = session_parse_endpoints(&line, &vip, &address);
	if (status == STATUS_OK)
		status = session_open(&line, &dp);
	if (status == STATUS_OK)
		status = session_find_service(dp, &vip, &service);
	if (status == STATUS_OK)
		status = session_find_backend(service, &address, &backend);
	if (status != STATUS_OK)
		return status;
	if (line.json)
		return print_json(listing_backend_json(dp, service, backend));
	return show_text(dp, service, backend);
}

const struct command verb_backends_list = {
	.name = "backends list",
	.operands = "[SERVICE]",
	.summary = "List backends and their counters, of one service or of all",
	.run = run_list,
};

const struct command verb_backends_show = {
	.name = "backends show",
	.operands = "SERVICE ADDR[:PORT]",
	.summary = "Show one backend",
	.run = run_show,
};
