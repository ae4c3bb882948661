// SPDX-License-Identifier: GPL-2.0
/* detach: with the last device everything goes, maps and pins, unless the user wants to keep it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "commands/command.h"
#include "commands/output.h"
#include "commands/session.h"

static const struct option_spec options[] = {
	{ 'a', "all", NULL, "from every device" },
	{ 'k', "keep", NULL, "keep services, flows and counters when the last device goes" },
	{ 0 },
};

static bool is_attached(const struct device_status *devices, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (devices[i].xdp && strcmp(devices[i].name, name) == 0)
			return true;
	return false;
}

/* Before any is detached. */
static int check_attached(const struct device_status *devices, size_t n, char **names)
{
	for (; *names; names++)
		if (!is_attached(devices, n, *names))
			return fail("%s: not attached; 'lbctl status' shows what is", *names);
	return STATUS_OK;
}

static bool is_named(char **names, const char *name)
{
	for (; *names; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

/* Detaches from those devices, or all; then *ret_left are attached. */
static int detach(struct datapath *dp, char **names, bool all, size_t *ret_left)
{
	_cleanup_(free_pointer) struct device_status *devices = NULL;
	size_t n, left = 0;
	struct error err;
	int status;

	if (datapath_devices(dp, &devices, &n, &err) < 0)
		return fail("%s", err.text);
	status = check_attached(devices, n, names);
	if (status != STATUS_OK)
		return status;
	for (size_t i = 0; i < n; i++) {
		if (!devices[i].xdp)
			continue;
		if (!all && !is_named(names, devices[i].name))
			left++;
		else if (datapath_detach(dp, devices[i].name, &err) < 0)
			return fail("%s", err.text);
	}
	*ret_left = left;
	return STATUS_OK;
}

/* --all finds nothing to do where nothing is: it may be run to make sure. */
static int open_if_there(const struct command_line *line, struct datapath **ret_dp)
{
	struct error err;
	int result;

	result = datapath_open(line->pin_dir, ret_dp, &err);
	return result < 0 && result != -ENOENT ? fail("%s", err.text) : STATUS_OK;
}

static int run(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	bool all = false, keep = false;
	struct command_line line;
	struct error err;
	int option, status;
	size_t left = 0;

	command_line_start(&line, &verb_detach, argc, argv);
	while ((option = command_line_next(&line)) > 0) {
		all |= option == 'a';
		keep |= option == 'k';
	}
	if (option < 0)
		return line.status;
	if (all == (line.n_operands > 0))
		return all ? usage_error(&line, "'%s' beside --all", line.operands[0])
			   : usage_error(&line, "DEV or --all is missing");

	status = all ? open_if_there(&line, &dp) : session_open(&line, &dp);
	if (status != STATUS_OK || !dp)
		return status;
	if (datapath_lock(dp, session_waiting, &err) < 0)
		return fail("%s", err.text);
	status = detach(dp, line.operands, all, &left);
	if (status == STATUS_OK && !left && !keep && datapath_destroy(dp, &err) < 0)
		return fail("%s", err.text);
	return status;
}

const struct command verb_detach = {
	.name = "detach",
	.operands = "[DEV...]",
	.summary = "Leave these network devices, or with --all every one",
	.details = "When the last device goes, everything goes: services, flows, counters, pins;\n"
		   "--keep leaves them for the next attach.\n",
	.options = options,
	.run = run,
};
