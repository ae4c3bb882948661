// SPDX-License-Identifier: GPL-2.0
/*
 * detach: with the last device everything goes, maps and pins, unless the user wants to keep it. An xlb
 * whose pins are gone is detached from devices that are named.
 */
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

/* What there is to detach: of the pin directory, if there is one, and of others. */
struct attached {
	struct datapath *dp;	/* NULL: nothing is pinned */
	struct device_status *devices;
	size_t n_devices;
	struct other_xlb *others;
	size_t n_others;
};

static void attached_free(struct attached *attached)
{
	datapath_close(attached->dp);
	free(attached->devices);
	free(attached->others);
}

static bool is_attached(const struct attached *attached, const char *name)
{
	for (size_t i = 0; i < attached->n_devices; i++)
		if (attached->devices[i].xdp && strcmp(attached->devices[i].name, name) == 0)
			return true;
	return false;
}

/* Another xlb on that device; NULL: there is none. One without pins comes before one that has some. */
static const struct other_xlb *other_on(const struct attached *attached, const char *name)
{
	const struct other_xlb *found = NULL;

	for (size_t i = 0; i < attached->n_others; i++)
		if (strcmp(attached->others[i].device, name) == 0 &&
		    (!found || !*attached->others[i].pin_dir))
			found = &attached->others[i];
	return found;
}

/* Before any is detached. `absent`: why nothing is pinned. */
static int check_attached(const struct attached *attached, char **names, const struct error *absent)
{
	for (; *names; names++) {
		const struct other_xlb *other = other_on(attached, *names);

		if (is_attached(attached, *names) || (other && !*other->pin_dir))
			continue;
		if (other)
			return fail("%s: the xlb that is attached there is pinned in %s: "
				    "use that --pin-dir", *names, other->pin_dir);
		if (!attached->dp)
			return fail("%s", absent->text);
		return fail("%s: not attached; 'lbctl status' shows what is", *names);
	}
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
static int detach_own(const struct attached *attached, char **names, bool all, size_t *ret_left)
{
	size_t left = 0;
	struct error err;

	for (size_t i = 0; i < attached->n_devices; i++) {
		const struct device_status *device = &attached->devices[i];

		if (!device->xdp)
			continue;
		if (!all && !is_named(names, device->name))
			left++;
		else if (datapath_detach(attached->dp, device->name, &err) < 0)
			return fail("%s", err.text);
	}
	*ret_left = left;
	return STATUS_OK;
}

/* Those without pins, where they are named; all does not mean them, but they are told. */
static int detach_orphans(const struct attached *attached, char **names, bool all)
{
	int status = STATUS_OK;
	struct error err;

	for (size_t i = 0; i < attached->n_others; i++) {
		const struct other_xlb *other = &attached->others[i];

		if (*other->pin_dir)
			continue;
		if (all)
			status = fail("%s: an xlb is attached (id %u) whose pins are gone, or in "
				      "another mount namespace: 'lbctl detach %s' takes it away",
				      other->device, other->program_id, other->device);
		if (all || !is_named(names, other->device) || is_attached(attached, other->device))
			continue;
		if (datapath_detach_orphan(other, &err) < 0)
			return fail("%s", err.text);
		complain("%s: an xlb without pins was taken away (id %u)", other->device,
			 other->program_id);
	}
	return status;
}

/* Nothing pinned is no error yet: *ret_absent says what would be one. */
static int attached_read(const struct command_line *line, struct attached *attached,
			 struct error *ret_absent)
{
	struct error err;
	int r = datapath_open(line->pin_dir, &attached->dp, ret_absent);

	if (r < 0 && r != -ENOENT)
		return fail("%s", ret_absent->text);
	if (attached->dp &&
	    (datapath_lock(attached->dp, session_waiting, &err) < 0 ||
	     datapath_devices(attached->dp, &attached->devices, &attached->n_devices, &err) < 0))
		return fail("%s", err.text);
	if (datapath_others(attached->dp, &attached->others, &attached->n_others, &err) < 0)
		return fail("%s", err.text);
	return STATUS_OK;
}

static int run(int argc, char **argv)
{
	_cleanup_(attached_free) struct attached attached = {};
	bool all = false, keep = false, own;
	struct command_line line;
	struct error err, absent;
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

	status = attached_read(&line, &attached, &absent);
	if (status == STATUS_OK)
		status = check_attached(&attached, line.operands, &absent);
	if (status != STATUS_OK)
		return status;
	own = all;
	for (char **name = line.operands; *name; name++)
		own |= is_attached(&attached, *name);
	status = detach_own(&attached, line.operands, all, &left);
	if (status == STATUS_OK && attached.dp && own && !left && !keep &&
	    datapath_destroy(attached.dp, &err) < 0)
		return fail("%s", err.text);
	return status == STATUS_OK ? detach_orphans(&attached, line.operands, all) : status;
}

const struct command verb_detach = {
	.name = "detach",
	.operands = "[DEV...]",
	.summary = "Leave these network devices, or with --all every one",
	.details = "When the last device goes, everything goes: services, flows, counters, pins;\n"
		   "--keep leaves them for the next attach. An xlb whose pins are gone is taken\n"
		   "away from a device that is named.\n",
	.options = options,
	.run = run,
};
