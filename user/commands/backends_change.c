// SPDX-License-Identifier: GPL-2.0
/* backends add, set, drain and del: each changes a copy of the service, and applies that. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "commands/command.h"
#include "commands/output.h"
#include "commands/session.h"

#define FORCE_OPTION                                                                               \
	{                                                                                          \
		'F', "force", NULL, "even if Kubernetes or a file owns the service"                \
	}

static const struct option_spec add_options[] = {
	{ 'w', "weight", "N", "its share of new flows, 0..65535 (default 1)" },
	FORCE_OPTION,
	{ 0 },
};

static const struct option_spec set_options[] = {
	{ 'w', "weight", "N", "its share of new flows, 0..65535" },
	{ 's', "state", "active|draining|down", "what it is given" },
	FORCE_OPTION,
	{ 0 },
};

static const struct option_spec force_options[] = { FORCE_OPTION, { 0 } };

/* What the options asked for. */
struct wish {
	bool has_weight, has_state, force;
	uint16_t weight;
	uint8_t state;
};

/* The lines of all four: what is to be done, to which backend, of which service. */
struct change {
	struct command_line line;
	struct wish wish;
	struct endpoint vip, address;
	struct datapath *dp;
	struct service *service;
};

static int parse_state(const char *text, uint8_t *ret_state, struct error *err)
{
	static const uint8_t states[] = { XLB_BACKEND_ACTIVE, XLB_BACKEND_DRAINING,
					  XLB_BACKEND_DOWN };

	for (size_t i = 0; i < sizeof(states); i++)
		if (strcmp(text, state_name(states[i])) == 0) {
			*ret_state = states[i];
			return 0;
		}
	return error_set(err, EINVAL, "%s: not active, draining or down", text);
}

static int parse_option(int option, const char *value, struct wish *wish, struct error *err)
{
	switch (option) {
	case 'w':
		wish->has_weight = true;
		return weight_parse(value, &wish->weight, err);
	case 's':
		wish->has_state = true;
		return parse_state(value, &wish->state, err);
	default:
		wish->force = true;
		return 0;
	}
}

static void change_end(struct change *change)
{
	service_free(change->service);
	datapath_close(change->dp);
}

/* The command line; touches nothing. False: that was all, exit with line.status. */
static bool change_parse(struct change *change, const struct command *command, int argc,
			 char **argv)
{
	struct command_line *line = &change->line;
	struct error err;
	int option;

	*change = (struct change){};
	command_line_start(line, command, argc, argv);
	while ((option = command_line_next(line)) > 0)
		if (parse_option(option, line->value, &change->wish, &err) < 0) {
			line->status = bad_value(line, &err);
			return false;
		}
	if (option < 0)
		return false;
	line->status = session_parse_endpoints(line, &change->vip, &change->address);
	return line->status == STATUS_OK;
}

/* Locks, and copies the service. */
static int change_begin(struct change *change)
{
	int status = session_open_locked(&change->line, &change->dp);

	if (status != STATUS_OK)
		return status;
	return session_copy_service(change->dp, &change->vip, change->wish.force, &change->service);
}

static int change_apply(struct change *change)
{
	return session_apply(change->dp, &change->vip, change->service);
}

static int run_add(int argc, char **argv)
{
	_cleanup_(change_end) struct change change;
	char service[ENDPOINT_TEXT_MAX], address[ENDPOINT_TEXT_MAX];
	struct backend backend = { .weight = 1, .state = XLB_BACKEND_ACTIVE };
	int status;

	if (!change_parse(&change, &verb_backends_add, argc, argv))
		return change.line.status;
	status = change_begin(&change);
	if (status != STATUS_OK)
		return status;
	if (service_find_backend(change.service, &change.address))
		return fail("%s: is a backend of %s already; 'lbctl backends set' changes it",
			    endpoint_format_backend(&change.address, address),
			    endpoint_format(&change.vip, service));
	backend.endpoint = change.address;
	if (change.wish.has_weight)
		backend.weight = change.wish.weight;
	status = service_set_backend(change.service, &backend);
	if (status == -EINVAL)
		return fail("%s: is IPv%u, but %s is IPv%u, and its forwarding, %s, does not lead "
			    "from one to the other",
			    endpoint_format_backend(&change.address, address),
			    change.address.family, endpoint_format(&change.vip, service),
			    change.vip.family, forward_name(change.service->forward));
	return status < 0 ? fail("out of memory") : change_apply(&change);
}

static int run_set(int argc, char **argv)
{
	_cleanup_(change_end) struct change change;
	struct backend *backend = NULL;
	int status;

	if (!change_parse(&change, &verb_backends_set, argc, argv))
		return change.line.status;
	if (!change.wish.has_weight && !change.wish.has_state)
		return usage_error(&change.line, "nothing to set: --weight or --state is missing");
	status = change_begin(&change);
	if (status == STATUS_OK)
		status = session_find_backend(change.service, &change.address, &backend);
	if (status != STATUS_OK)
		return status;
	if (change.wish.has_weight)
		backend->weight = change.wish.weight;
	if (change.wish.has_state)
		backend->state = change.wish.state;
	return change_apply(&change);
}

static int run_drain(int argc, char **argv)
{
	_cleanup_(change_end) struct change change;
	struct backend *backend = NULL;
	int status;

	if (!change_parse(&change, &verb_backends_drain, argc, argv))
		return change.line.status;
	status = change_begin(&change);
	if (status == STATUS_OK)
		status = session_find_backend(change.service, &change.address, &backend);
	if (status != STATUS_OK)
		return status;
	backend->state = XLB_BACKEND_DRAINING;
	return change_apply(&change);
}

static int run_del(int argc, char **argv)
{
	_cleanup_(change_end) struct change change;
	struct backend *backend = NULL;
	int status;

	if (!change_parse(&change, &verb_backends_del, argc, argv))
		return change.line.status;
	status = change_begin(&change);
	if (status == STATUS_OK)
		status = session_find_backend(change.service, &change.address, &backend);
	if (status != STATUS_OK)
		return status;
	service_remove_backend(change.service, &change.address);
	return change_apply(&change);
}

const struct command verb_backends_add = {
	.name = "backends add",
	.operands = "SERVICE ADDR[:PORT]",
	.summary = "Give a service one more backend",
	.details = "The port is the service's own unless it is given. With a weight of 0 the "
		   "backend gets\n"
		   "no new flows.\n",
	.options = add_options,
	.run = run_add,
};

const struct command verb_backends_set = {
	.name = "backends set",
	.operands = "SERVICE ADDR[:PORT]",
	.summary = "Change the weight or the state of a backend",
	.details = "A draining backend keeps draining whatever its weight, until --state active. A "
		   "draining\n"
		   "one keeps its flows and gets no new ones; one that is down keeps TCP flows "
		   "only.\n",
	.options = set_options,
	.run = run_set,
};

const struct command verb_backends_drain = {
	.name = "backends drain",
	.operands = "SERVICE ADDR[:PORT]",
	.summary = "Give a backend no new flows; it keeps those it has",
	.details =
		"The weight is kept: 'backends set ... --state active' brings it back as it was.\n",
	.options = force_options,
	.run = run_drain,
};

const struct command verb_backends_del = {
	.name = "backends del",
	.operands = "SERVICE ADDR[:PORT]",
	.summary = "Take a backend away from a service, with its flows",
	.options = force_options,
	.run = run_del,
};
