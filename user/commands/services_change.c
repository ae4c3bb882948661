// SPDX-License-Identifier: GPL-2.0
/* services add, set and del. */
#include "commands/command.h"
#include "commands/output.h"
#include "commands/service_wish.h"
#include "commands/session.h"

static const struct option_spec add_options[] = {
	WISH_OPTIONS(" (default nat)", " (default maglev)"),
	{ 'F', "force", NULL, "take the service over if Kubernetes or a file owns it" },
	{ 0 },
};

static const struct option_spec set_options[] = {
	WISH_OPTIONS("", ""),
	{ 'F', "force", NULL, "even if Kubernetes or a file owns the service" },
	{ 0 },
};

static const struct option_spec del_options[] = {
	{ 'F', "force", NULL, "even if Kubernetes or a file owns the service" },
	{ 0 },
};

/* The command line of all three. False: that was all, exit with line->status. */
static bool parse(struct command_line *line, struct wish *wish, struct endpoint *vip)
{
	struct error err;
	int option;

	while ((option = command_line_next(line)) > 0) {
		if (option == 'F') {
			wish->force = true;
		} else if (wish_parse(wish, option, line->value, &err) < 0) {
			line->status = bad_value(line, &err);
			return false;
		}
	}
	if (option < 0)
		return false;
	line->status = session_parse_vip(line, line->operands[0], vip);
	/* A service that is made anew has the default, unless something else was asked for. */
	if (line->command == &verb_services_add && !wish->force)
		wish->forward = true;
	if (line->status == STATUS_OK && wish_check(wish, vip, &err) < 0)
		line->status = usage_error(line, "%s", err.text);
	return line->status == STATUS_OK;
}

/* The service as it is wished for, put to work. */
static int apply(struct datapath *dp, const struct endpoint *vip, struct wish *wish,
		 struct service *service)
{
	char text[ENDPOINT_TEXT_MAX];
	struct error err;

	if (wish_fulfil(wish, service, &err) < 0)
		return fail("%s: %s", endpoint_format(vip, text), err.text);
	return session_apply(dp, vip, service);
}

/* A service that is not there yet, with defaults; the caller's. */
static int new_service(const struct endpoint *vip, struct service **ret_service)
{
	struct model *model = model_new();
	struct service *service = NULL, *copy = NULL;

	if (model && model_ensure(model, vip, &service) == 0)
		copy = service_copy(service);
	model_free(model);
	if (!copy)
		return fail("out of memory");
	*ret_service = copy;
	return STATUS_OK;
}

/* With --force, a service of another owner becomes the command line's, with the backends it has. */
static int make_service(struct datapath *dp, const struct endpoint *vip, const struct wish *wish,
			struct service **ret_service)
{
	const struct service *there = model_find(datapath_model(dp), vip);
	char text[ENDPOINT_TEXT_MAX];
	int status;

	if (!there)
		return new_service(vip, ret_service);
	endpoint_format(vip, text);
	if (there->owner == XLB_OWNER_CLI)
		return fail("%s: there is such a service already; 'lbctl services set' changes it",
			    text);
	if (!wish->force)
		return fail("%s: there is such a service already, which belongs to %s; "
			    "--force takes it over",
			    text, owner_name(there->owner));
	status = session_copy_service(dp, vip, true, ret_service);
	if (status == STATUS_OK)
		(*ret_service)->owner = XLB_OWNER_CLI;
	return status;
}

static int run_add(int argc, char **argv)
{
	_cleanup_(service_free_pointer) struct service *service = NULL;
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	_cleanup_(wish_end) struct wish wish = {};
	struct command_line line;
	struct endpoint vip;
	int status;

	command_line_start(&line, &verb_services_add, argc, argv);
	if (!parse(&line, &wish, &vip))
		return line.status;
	status = session_open_locked(&line, &dp);
	if (status == STATUS_OK)
		status = make_service(dp, &vip, &wish, &service);
	if (status != STATUS_OK)
		return status;
	return apply(dp, &vip, &wish, service);
}

static int run_set(int argc, char **argv)
{
	_cleanup_(service_free_pointer) struct service *service = NULL;
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	_cleanup_(wish_end) struct wish wish = {};
	struct command_line line;
	struct endpoint vip;
	int status;

	command_line_start(&line, &verb_services_set, argc, argv);
	if (!parse(&line, &wish, &vip))
		return line.status;
	if (!wish_any(&wish))
		return usage_error(&line, "nothing to set");
	status = session_open_locked(&line, &dp);
	if (status == STATUS_OK)
		status = session_copy_service(dp, &vip, wish.force, &service);
	if (status != STATUS_OK)
		return status;
	return apply(dp, &vip, &wish, service);
}

static int run_del(int argc, char **argv)
{
	_cleanup_(service_free_pointer) struct service *service = NULL;
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	_cleanup_(wish_end) struct wish wish = {};
	struct command_line line;
	struct endpoint vip;
	int status;

	command_line_start(&line, &verb_services_del, argc, argv);
	if (!parse(&line, &wish, &vip))
		return line.status;
	status = session_open_locked(&line, &dp);
	if (status == STATUS_OK)
		status = session_copy_service(dp, &vip, wish.force, &service);
	return status == STATUS_OK ? session_apply(dp, &vip, NULL) : status;
}

const struct command verb_services_add = {
	.name = "services add",
	.operands = "SERVICE",
	.summary = "Make a service, without backends at first",
	.details = "SERVICE is ADDR:PORT/tcp or /udp: 192.0.2.10:80/tcp, [2001:db8::10]:53/udp. "
		   "Until it\n"
		   "has backends, its clients are refused.\n",
	.options = add_options,
	.run = run_add,
};

const struct command verb_services_set = {
	.name = "services set",
	.operands = "SERVICE",
	.summary = "Change a service",
	.details = "Known flows stay with their backends; new ones follow the new settings.\n",
	.options = set_options,
	.run = run_set,
};

const struct command verb_services_del = {
	.name = "services del",
	.operands = "SERVICE",
	.summary = "Remove a service with its backends and flows",
	.options = del_options,
	.run = run_del,
};
