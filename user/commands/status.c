// SPDX-License-Identifier: GPL-2.0
/* status: devices, programs, versions, how full the maps are, drops, and what looks wrong. */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdlib.h>

#include "commands/command.h"
#include "commands/output.h"
#include "commands/session.h"

/* All that is shown, read before anything is printed. */
struct status {
	struct datapath_info info;
	struct device_status *devices;
	size_t n_devices;
	struct map_use *uses;
	size_t n_uses;
	char **warnings;
	size_t n_warnings;
	struct kernel_lack lacks[KERNEL_LACKS_MAX];
	size_t n_lacks;
	uint64_t drops[XLB_DROP_REASONS];
	size_t services, backends;
	char group[64];	/* that may read the pins; "": none */
};

static void status_free(struct status *status)
{
	for (size_t i = 0; i < status->n_warnings; i++)
		free(status->warnings[i]);
	free(status->warnings);
	free(status->uses);
	free(status->devices);
}

static void count_model(const struct model *model, struct status *status)
{
	const struct service *service;
	size_t cursor = 0;

	status->services = model_count(model);
	while ((service = model_next(model, &cursor)))
		status->backends += service->n_backends;
}

/* The name of the group that may look, or its number if it has none. */
static void read_group(const struct datapath *dp, struct status *status)
{
	const struct group *group;
	gid_t gid;

	if (!datapath_shared(dp, &gid))
		return;
	group = getgrgid(gid);
	if (group)
		snprintf(status->group, sizeof(status->group), "%s", group->gr_name);
	else
		snprintf(status->group, sizeof(status->group), "%u", gid);
}

static int status_read(struct datapath *dp, struct status *status)
{
	struct error err = {};

	if (datapath_info(dp, &status->info, &err) < 0 ||
	    datapath_devices(dp, &status->devices, &status->n_devices, &err) < 0 ||
	    datapath_map_use(dp, &status->uses, &status->n_uses, &err) < 0)
		return fail("%s", err.text);
	for (int reason = 1; reason < XLB_DROP_REASONS; reason++)
		if (datapath_drop_count(dp, reason, &status->drops[reason]) < 0)
			return fail("the counters of drops cannot be read");
	if (datapath_warnings(dp, &status->warnings, &status->n_warnings) < 0)
		return fail("out of memory");
	status->n_lacks = datapath_kernel_lacks(dp, status->lacks);
	count_model(datapath_model(dp), status);
	read_group(dp, status);
	return STATUS_OK;
}

static const char *mode_of(const struct device_status *device)
{
	if (!device->xdp)
		return "replies";
	return device->native ? "native" : "generic";
}

static const char *way_of(const struct device_status *device)
{
	if (!device->xdp)
		return "tc";
	return device->dispatcher ? "dispatcher" : "direct";
}

static double percent_of(const struct map_use *use)
{
	return use->size ? 100.0 * use->used / use->size : 0;
}

static int print_devices(const struct status *status)
{
	static const struct column columns[] = {
		{ "DEVICE", false }, { "MODE", false }, { "HOW", false },
		{ "PROGRAM", true }, { NULL, false },
	};
	_cleanup_(table_free_pointer) struct table *table = table_new(columns);

	if (!table)
		return fail("out of memory");
	for (size_t i = 0; i < status->n_devices; i++) {
		const struct device_status *device = &status->devices[i];

		table_cell(table, "%s", device->name);
		table_cell_coloured(table,
				    device->xdp && !device->native ? COLOUR_YELLOW : COLOUR_NONE,
				    mode_of(device));
		table_cell(table, "%s", way_of(device));
		if (device->xdp)
			table_cell(table, "%u", device->program_id);
		else
			table_cell(table, "-");
	}
	return table_print(table);
}

/* Who runs on the devices that several programs can share, first to last. */
static int print_chains(const struct status *status)
{
	static const struct column columns[] = {
		{ "DEVICE", false }, { "ORDER", true },	   { "PRIORITY", true }, { "ID", true },
		{ "TAG", false },    { "PROGRAM", false }, { NULL, false },
	};
	_cleanup_(table_free_pointer) struct table *table = table_new(columns);
	bool any = false;

	if (!table)
		return fail("out of memory");
	for (size_t i = 0; i < status->n_devices; i++) {
		const struct device_status *device = &status->devices[i];

		for (size_t n = 0; device->dispatcher && n < device->n_chain; n++) {
			const struct chain_member *member = &device->chain[n];

			table_cell(table, "%s", device->name);
			table_cell(table, "%zu", n + 1);
			table_cell(table, "%u", member->priority);
			table_cell(table, "%u", member->id);
			table_cell(table, "%s", member->tag);
			table_cell(table, "%s", *member->name ? member->name : "-");
			any = true;
		}
	}
	if (!any)
		return STATUS_OK;
	putchar('\n');
	return table_print(table);
}

static int print_uses(const struct status *status)
{
	static const struct column columns[] = {
		{ "MAP", false }, { "USED", true }, { "SIZE", true },
		{ "FULL", true }, { NULL, false },
	};
	_cleanup_(table_free_pointer) struct table *table = table_new(columns);

	if (!table)
		return fail("out of memory");
	for (size_t i = 0; i < status->n_uses; i++) {
		const struct map_use *use = &status->uses[i];

		table_cell(table, "%s", use->name);
		if (use->known)
			table_cell(table, "%" PRIu64, use->used);
		else
			table_cell(table, "?");
		table_cell(table, "%" PRIu64, use->size);
		if (use->known)
			table_cell(table, "%.1f%%", percent_of(use));
		else
			table_cell(table, "?");
	}
	return table_print(table);
}

static int print_drops(const struct status *status)
{
	static const struct column columns[] = {
		{ "DROPPED BECAUSE", false },
		{ "PACKETS", true },
		{ NULL, false },
	};
	_cleanup_(table_free_pointer) struct table *table = table_new(columns);
	bool any = false;

	if (!table)
		return fail("out of memory");
	for (int reason = 1; reason < XLB_DROP_REASONS; reason++) {
		if (!status->drops[reason])
			continue;
		table_cell(table, "%s", drop_name(reason));
		table_cell(table, "%" PRIu64, status->drops[reason]);
		any = true;
	}
	if (!any)
		return STATUS_OK;
	putchar('\n');
	return table_print(table);
}

static void print_head(const struct status *status)
{
	const struct datapath_info *info = &status->info;

	printf("%-10s %s (ABI %u)\n", "lbctl", XLB_VERSION, info->config.abi_version);
	printf("%-10s %s%s%s\n", "pins", info->pin_dir,
	       *status->group ? ", readable for group " : "", status->group);
	printf("%-10s id %u, tag %s\n", "program", info->program_id, info->program_tag);
	if (info->iterator)
		printf("%-10s %s/counters\n", "counters", info->pin_dir);
	else
		printf("%-10s no %s/counters: %s\n", "counters", info->pin_dir,
		       info->iterator_missing);
	printf("%-10s %u-%u\n", "nat ports", info->config.port_min, info->config.port_max);
	printf("%-10s %u\n", "seed", info->config.seed);
	printf("%-10s %zu, with %zu backends\n\n", "services", status->services, status->backends);
}

static void print_lacks(const struct status *status)
{
	if (status->n_lacks)
		putchar('\n');
	for (size_t i = 0; i < status->n_lacks; i++) {
		const struct kernel_lack *lack = &status->lacks[i];

		printf("this kernel: no %s%s%s%s: %s\n", lack->feature,
		       lack->since ? " (Linux " : "", lack->since ? lack->since : "",
		       lack->since ? ")" : "", lack->cost);
	}
}

static void print_warnings(const struct status *status)
{
	const char *start = colour_wanted() ? "\033[33m" : "", *end = *start ? "\033[0m" : "";

	if (status->n_warnings)
		putchar('\n');
	for (size_t i = 0; i < status->n_warnings; i++)
		printf("%swarning:%s %s\n", start, end, status->warnings[i]);
}

static int print_text(const struct status *status)
{
	print_head(status);
	if (!status->n_devices)
		puts("no device is attached");
	else if (print_devices(status) != STATUS_OK || print_chains(status) != STATUS_OK)
		return STATUS_FAILED;
	putchar('\n');
	if (print_uses(status) != STATUS_OK || print_drops(status) != STATUS_OK)
		return STATUS_FAILED;
	print_lacks(status);
	print_warnings(status);
	return STATUS_OK;
}

static json_t *chain_json(const struct device_status *device)
{
	json_t *array = json_array();

	for (size_t i = 0; i < device->n_chain; i++) {
		const struct chain_member *member = &device->chain[i];
		json_t *priority = member->priority ? json_integer(member->priority) : json_null();

		json_array_append_new(array,
				      json_pack("{s:s, s:I, s:s, s:o, s:b}", "name", member->name,
						"id", (json_int_t)member->id, "tag", member->tag,
						"priority", priority, "ours", (int)member->ours));
	}
	return array;
}

static json_t *devices_json(const struct status *status)
{
	json_t *array = json_array();

	for (size_t i = 0; i < status->n_devices; i++) {
		const struct device_status *device = &status->devices[i];

		json_array_append_new(array,
				      json_pack("{s:s, s:i, s:s, s:s, s:I, s:o}", "device",
						device->name, "ifindex", (int)device->ifindex,
						"mode", mode_of(device), "how", way_of(device),
						"program", (json_int_t)device->program_id, "chain",
						chain_json(device)));
	}
	return array;
}

static json_t *uses_json(const struct status *status)
{
	json_t *array = json_array();

	for (size_t i = 0; i < status->n_uses; i++) {
		const struct map_use *use = &status->uses[i];
		json_t *used = use->known ? json_integer(use->used) : json_null();
		json_t *percent = use->known ? json_real(percent_of(use)) : json_null();

		json_array_append_new(array, json_pack("{s:s, s:o, s:I, s:o}", "map", use->name,
						       "used", used, "size", (json_int_t)use->size,
						       "percent", percent));
	}
	return array;
}

static json_t *drops_json(const struct status *status)
{
	json_t *object = json_object();

	for (int reason = 1; reason < XLB_DROP_REASONS; reason++)
		json_object_set_new(object, drop_name(reason), json_integer(status->drops[reason]));
	return object;
}

static json_t *warnings_json(const struct status *status)
{
	json_t *array = json_array();

	for (size_t i = 0; i < status->n_warnings; i++)
		json_array_append_new(array, json_string(status->warnings[i]));
	return array;
}

static json_t *lacks_json(const struct status *status)
{
	json_t *array = json_array();

	for (size_t i = 0; i < status->n_lacks; i++)
		json_array_append_new(array, json_pack("{s:s, s:s?, s:s}", "feature",
						       status->lacks[i].feature, "since",
						       status->lacks[i].since, "cost",
						       status->lacks[i].cost));
	return array;
}

static json_t *status_json(const struct status *status)
{
	const struct datapath_info *info = &status->info;

	/* clang-format off */
	return json_pack("{s:s, s:I, s:b, s:s, s:s?, s:{s:I, s:s}, s:o, s:[I, I], s:I, s:I, s:I, "
			 "s:o, s:o, s:o, s:o, s:o}",
			 "version", XLB_VERSION,
			 "abi", (json_int_t)info->config.abi_version,
			 "attached", status->n_devices > 0,
			 "pin_dir", info->pin_dir,
			 "pin_group", *status->group ? status->group : NULL,
			 "program", "id", (json_int_t)info->program_id, "tag", info->program_tag,
			 "counters", info->iterator ? json_sprintf("%s/counters", info->pin_dir)
						    : json_null(),
			 "nat_ports", (json_int_t)info->config.port_min,
			 (json_int_t)info->config.port_max,
			 "seed", (json_int_t)info->config.seed,
			 "services", (json_int_t)status->services,
			 "backends", (json_int_t)status->backends,
			 "devices", devices_json(status),
			 "maps", uses_json(status),
			 "drops", drops_json(status),
			 "warnings", warnings_json(status),
			 "lacks", lacks_json(status));
	/* clang-format on */
}

/* Nothing pinned is an answer, not an error: scripts ask to find out. */
static int print_nothing(const struct command_line *line)
{
	_cleanup_(status_free) struct status status = {};

	if (datapath_absent_warnings(line->pin_dir, &status.warnings, &status.n_warnings) < 0)
		return fail("out of memory");
	if (line->json)
		return print_json(json_pack("{s:s, s:i, s:b, s:s, s:[], s:o}", "version",
					    XLB_VERSION, "abi", XLB_ABI_VERSION, "attached", 0,
					    "pin_dir", line->pin_dir, "devices", "warnings",
					    warnings_json(&status)));
	printf("%-10s %s (ABI %d)\n%-10s %s\n\n", "lbctl", XLB_VERSION, XLB_ABI_VERSION, "pins",
	       line->pin_dir);
	puts(status.n_warnings ? "nothing is pinned there" :
				 "nothing is attached; 'lbctl attach DEV' begins");
	print_warnings(&status);
	return STATUS_OK;
}

static int run(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	_cleanup_(status_free) struct status status = {};
	struct command_line line;
	struct error err;
	int result;

	command_line_start(&line, &verb_status, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	result = datapath_open(line.pin_dir, &dp, &err);
	if (result == -ENOENT)
		return print_nothing(&line);
	if (result < 0)
		return fail("%s", err.text);
	result = status_read(dp, &status);
	if (result != STATUS_OK)
		return result;
	return line.json ? print_json(status_json(&status)) : print_text(&status);
}

const struct command verb_status = {
	.name = "status",
	.operands = "",
	.summary = "Show devices, programs, how full the maps are, drops and warnings",
	.run = run,
};
