// SPDX-License-Identifier: GPL-2.0
/*
 * attach: all devices or none. What this call attached is detached again if a later device fails,
 * and what it created is removed again; devices that were attached before are left as they are.
 */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "commands/command.h"
#include "commands/output.h"
#include "commands/session.h"

enum {
	OPTION_MAX_SERVICES = OPTION_LONG,
	OPTION_MAX_BACKENDS,
	OPTION_MAX_FLOWS,
	OPTION_NAT_PORTS,
	OPTION_SEED,
	OPTION_PIN_GROUP,
};

static const struct option_spec options[] = {
	{ 'm', "mode", "auto|native|generic", "auto (default) falls back to generic, and says so" },
	{ 'p', "priority", "N",
	  "where in libxdp's dispatcher to run (default 50; lower is earlier)" },
	{ OPTION_MAX_SERVICES, "max-services", "N", "of each family (default 4096)" },
	{ OPTION_MAX_BACKENDS, "max-backends", "N", "of all services (default 16384)" },
	{ OPTION_MAX_FLOWS, "max-flows", "N", "of IPv4; IPv6 has a sixteenth (default 1048576)" },
	{ OPTION_NAT_PORTS, "nat-ports", "MIN-MAX",
	  "source ports for nat (default: outside of ip_local_port_range)" },
	{ OPTION_SEED, "seed", "N", "of the rings; nodes that share traffic share it" },
	{ OPTION_PIN_GROUP, "pin-group", "GROUP",
	  "may read what is pinned: name or number (default: only root; 0: root again)" },
	{ 0 },
};

struct attachment {
	enum attach_mode mode;
	unsigned int priority;
	struct datapath_sizes sizes;
	gid_t group;
	bool share;	/* with the group */
};

static int parse_mode(const char *text, enum attach_mode *ret_mode, struct error *err)
{
	if (strcmp(text, "auto") == 0)
		*ret_mode = ATTACH_AUTO;
	else if (strcmp(text, "native") == 0)
		*ret_mode = ATTACH_NATIVE;
	else if (strcmp(text, "generic") == 0)
		*ret_mode = ATTACH_GENERIC;
	else
		return error_set(err, EINVAL, "%s: not auto, native or generic", text);
	return 0;
}

static int parse_ports(const char *text, struct datapath_sizes *sizes, struct error *err)
{
	const char *dash = strchr(text, '-');
	uint64_t min, max;
	char first[8];

	if (!dash || dash - text >= (ptrdiff_t)sizeof(first))
		return error_set(err, EINVAL, "%s: not a range of ports like 1024-32767", text);
	memcpy(first, text, dash - text);
	first[dash - text] = '\0';
	if (number_parse(first, NAT_PORT_LEAST, UINT16_MAX, &min, err) < 0 ||
	    number_parse(dash + 1, NAT_PORT_LEAST, UINT16_MAX, &max, err) < 0)
		return -EINVAL;
	if (min > max)
		return error_set(err, EINVAL, "%s: begins above its end", text);
	if (max - min + 1 < XLB_FLOW_WAYS)
		return error_set(err, EINVAL, "%s: fewer than %d ports", text, XLB_FLOW_WAYS);
	sizes->port_min = min;
	sizes->port_max = max;
	return 0;
}

static int parse_size(const char *text, uint64_t min, uint64_t max, uint32_t *ret_size,
		      struct error *err)
{
	uint64_t number;

	if (number_parse(text, min, max, &number, err) < 0)
		return -EINVAL;
	*ret_size = number;
	return 0;
}

static int parse_seed(const char *text, struct datapath_sizes *sizes, struct error *err)
{
	uint64_t number;

	if (number_parse(text, 0, UINT32_MAX, &number, err) < 0)
		return -EINVAL;
	sizes->seed = number;
	sizes->seed_set = true;
	return 0;
}

static int parse_group(const char *text, struct attachment *to, struct error *err)
{
	const struct group *group = getgrnam(text);
	uint64_t number;

	if (group)
		number = group->gr_gid;
	else if (number_parse(text, 0, UINT32_MAX - 1, &number, err) < 0)
		return error_set(err, EINVAL, "%s: no such group", text);
	to->group = number;
	to->share = true;
	return 0;
}

static int parse_option(int option, const char *value, struct attachment *to, struct error *err)
{
	switch (option) {
	case 'm':
		return parse_mode(value, &to->mode, err);
	case 'p':
		return parse_size(value, 1, INT32_MAX, &to->priority, err);
	case OPTION_MAX_SERVICES:
		return parse_size(value, 1, 32768, &to->sizes.services, err);
	case OPTION_MAX_BACKENDS:
		return parse_size(value, 2, 1 << 22, &to->sizes.backends, err);
	case OPTION_MAX_FLOWS:
		return parse_size(value, 1024, 1 << 26, &to->sizes.flows, err);
	case OPTION_NAT_PORTS:
		return parse_ports(value, &to->sizes, err);
	case OPTION_PIN_GROUP:
		return parse_group(value, to, err);
	default:
		return parse_seed(value, &to->sizes, err);
	}
}

/* Before anything is made or changed. */
static int check_devices(char **names)
{
	for (; *names; names++)
		if (!if_nametoindex(*names))
			return fail("%s: no such device", *names);
	return STATUS_OK;
}

static bool is_attached(const struct device_status *devices, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (devices[i].xdp && strcmp(devices[i].name, name) == 0)
			return true;
	return false;
}

/* Undoes the first n, without a word: the error that led here is what the user is to see. */
static void detach_again(struct datapath *dp, char **names, int n,
			 const struct device_status *before, size_t n_before)
{
	while (n-- > 0)
		if (!is_attached(before, n_before, names[n]))
			datapath_detach(dp, names[n], NULL);
}

/* What the user should know of an attached device. */
struct note {
	char text[256];
};

static int attach_all(struct datapath *dp, char **names, int n, const struct attachment *how)
{
	_cleanup_(free_pointer) struct note *notes = calloc(n, sizeof(*notes));
	_cleanup_(free_pointer) struct device_status *before = NULL;
	size_t n_before = 0;
	struct error err;

	if (!notes)
		return fail("out of memory");
	if (datapath_devices(dp, &before, &n_before, &err) < 0)
		return fail("%s", err.text);
	for (int i = 0; i < n; i++) {
		if (!datapath_attach(dp, names[i], how->mode, how->priority, notes[i].text, &err))
			continue;
		detach_again(dp, names, i, before, n_before);
		return fail("%s", err.text);
	}
	/* Not before: of what was undone there is nothing to know. */
	for (int i = 0; i < n; i++)
		if (*notes[i].text)
			complain("%s", notes[i].text);
	return STATUS_OK;
}

/* The programs of this build for those of another one, before anything is attached. */
static int upgrade(struct datapath *dp)
{
	struct error err;
	bool changed;

	if (datapath_upgrade(dp, &changed, &err) < 0)
		return fail("%s", err.text);
	if (changed)
		complain("programs of another build of lbctl were replaced, on all devices");
	return STATUS_OK;
}

/* Who may look at what is pinned: as it was, or as was asked for. */
static int share(struct datapath *dp, const struct attachment *how)
{
	char where[PATH_MAX];
	struct error err;
	int r;

	r = how->share ? datapath_share(dp, how->group, &err) : datapath_share_keep(dp, &err);
	if (r < 0)
		return fail("%s", err.text);
	if (how->share && how->group && datapath_share_hidden(dp, how->group, where))
		complain("%s: the group may not pass it, and so see no pin; `chmod o+x %s` lets it",
			 where, where);
	return STATUS_OK;
}

static int open_or_create(const struct command_line *line, const struct datapath_sizes *sizes,
			  struct datapath **ret_dp, bool *ret_created)
{
	struct datapath *dp = NULL;
	struct error err;
	bool created = false, mounted = datapath_can_pin(line->pin_dir);

	/*
	 * What else may be wrong with it, the creation says too. It also takes the lock for a
	 * moment, without a word: who has to wait waits here.
	 */
	created = datapath_open(line->pin_dir, &dp, &err) == -ENOENT;
	if (dp)
		datapath_lock(dp, session_waiting, NULL);
	datapath_close(dp);
	if (datapath_create(line->pin_dir, sizes, &dp, &err) < 0)
		return fail("%s", err.text);
	if (!mounted)
		complain("a BPF file system was mounted on /sys/fs/bpf: what is pinned there is as "
			 "lasting as this mount namespace (with `ip netns exec`: as this command)");
	*ret_dp = dp;
	*ret_created = created;
	return STATUS_OK;
}

static int run(int argc, char **argv)
{
	struct attachment how = { .mode = ATTACH_AUTO, .priority = 50 };
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	struct command_line line;
	struct error err;
	int option, status;
	bool created = false;
	gid_t group = 0;

	command_line_start(&line, &verb_attach, argc, argv);
	while ((option = command_line_next(&line)) > 0)
		if (parse_option(option, line.value, &how, &err) < 0)
			return bad_value(&line, &err);
	if (option < 0)
		return line.status;

	status = check_devices(line.operands);
	if (status == STATUS_OK)
		status = open_or_create(&line, &how.sizes, &dp, &created);
	if (status != STATUS_OK)
		return status;
	if (datapath_lock(dp, session_waiting, &err) < 0)
		return fail("%s", err.text);
	datapath_shared(dp, &group);
	status = created ? STATUS_OK : upgrade(dp);
	if (status == STATUS_OK)
		status = share(dp, &how);
	if (status == STATUS_OK)
		status = attach_all(dp, line.operands, line.n_operands, &how);
	if (status == STATUS_OK)
		return status;
	if (created)
		datapath_destroy(dp, NULL); /* refuses if another lbctl attached meanwhile */
	else if (how.share)
		datapath_share(dp, group, NULL); /* with whom it was before */
	return status;
}

const struct command verb_attach = {
	.name = "attach",
	.operands = "DEV...",
	.summary = "Take packets to VIPs from these network devices",
	.details =
		"All devices or none. Attaching again changes nothing, but that programs of another\n"
		"build of lbctl are replaced. The first attach makes the maps, whose sizes are fixed\n"
		"from then on.\n",
	.options = options,
	.run = run,
};
