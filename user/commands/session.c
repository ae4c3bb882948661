// SPDX-License-Identifier: GPL-2.0
#include <errno.h>

#include "commands/output.h"
#include "commands/session.h"

void datapath_close_pointer(struct datapath **dp)
{
	datapath_close(*dp);
}

void service_free_pointer(struct service **service)
{
	service_free(*service);
}

void session_waiting(const char *pin_dir)
{
	complain("waiting for the lock of %s, which another lbctl holds", pin_dir);
}

int session_open(const struct command_line *line, struct datapath **ret_dp)
{
	struct error err;

	if (datapath_open(line->pin_dir, ret_dp, &err) < 0)
		return fail("%s", err.text);
	return STATUS_OK;
}

int session_open_locked(const struct command_line *line, struct datapath **ret_dp)
{
	struct datapath *dp = NULL;
	struct error err;
	int status;

	status = session_open(line, &dp);
	if (status != STATUS_OK)
		return status;
	if (datapath_lock(dp, session_waiting, &err) < 0) {
		datapath_close(dp);
		return fail("%s", err.text);
	}
	*ret_dp = dp;
	return STATUS_OK;
}

int session_parse_vip(const struct command_line *line, const char *text, struct endpoint *ret_vip)
{
	struct error err;

	if (endpoint_parse_vip(text, ret_vip, &err) < 0)
		return usage_error(line, "%s", err.text);
	return STATUS_OK;
}

int session_parse_endpoints(const struct command_line *line, struct endpoint *ret_vip,
			    struct endpoint *ret_backend)
{
	struct endpoint vip, backend;
	struct error err;
	int status;

	status = session_parse_vip(line, line->operands[0], &vip);
	if (status != STATUS_OK)
		return status;
	if (endpoint_parse_backend(line->operands[1], vip.port, &backend, &err) < 0)
		return usage_error(line, "%s", err.text);
	backend.protocol = vip.protocol;
	*ret_vip = vip;
	*ret_backend = backend;
	return STATUS_OK;
}

int session_find_service(struct datapath *dp, const struct endpoint *vip,
			 const struct service **ret_service)
{
	const struct service *service = model_find(datapath_model(dp), vip);
	char text[ENDPOINT_TEXT_MAX];

	if (!service)
		return fail("%s: no such service; 'lbctl services list' shows what there is, "
			    "'lbctl services add' makes one",
			    endpoint_format(vip, text));
	*ret_service = service;
	return STATUS_OK;
}

int session_find_backend(const struct service *service, const struct endpoint *address,
			 struct backend **ret_backend)
{
	struct backend *backend = service_find_backend(service, address);
	char name[ENDPOINT_TEXT_MAX], text[ENDPOINT_TEXT_MAX];

	if (!backend)
		return fail("%s: is no backend of %s; 'lbctl backends list %s' shows what is",
			    endpoint_format_backend(address, text),
			    endpoint_format(&service->vip, name), name);
	*ret_backend = backend;
	return STATUS_OK;
}

int session_copy_service(struct datapath *dp, const struct endpoint *vip, bool force,
			 struct service **ret_service)
{
	const struct service *service = NULL;
	char text[ENDPOINT_TEXT_MAX];
	struct service *copy;
	int status;

	status = session_find_service(dp, vip, &service);
	if (status != STATUS_OK)
		return status;
	if (service->owner != XLB_OWNER_CLI && !force)
		return fail("%s: belongs to %s%s%s, whose next sync may undo a change made here; "
			    "--force makes it all the same",
			    endpoint_format(vip, text), owner_name(service->owner),
			    *service->name ? " as " : "", service->name);
	copy = service_copy(service);
	if (!copy)
		return fail("out of memory");
	*ret_service = copy;
	return STATUS_OK;
}

int session_apply(struct datapath *dp, const struct endpoint *vip, const struct service *after)
{
	struct error err;

	/* What is over before the change does not wait for it; and what nobody has used yet is over at once. */
	if (datapath_settle(dp, &err) < 0 || datapath_apply(dp, vip, after, &err) < 0 ||
	    datapath_settle(dp, &err) < 0)
		return fail("%s", err.text);
	return STATUS_OK;
}
