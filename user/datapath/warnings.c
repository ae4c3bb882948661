// SPDX-License-Identifier: GPL-2.0
/* What is wrong, slow or soon to be, in one line each with what to do about it. */
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/ethtool.h>

#include "datapath/internal.h"

#define FULL_PERCENT 90

struct lines {
	char **line;
	size_t n;
	bool failed;
};

static void warn(struct lines *lines, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void warn(struct lines *lines, const char *format, ...)
{
	char **more = reallocarray(lines->line, lines->n + 1, sizeof(*more));
	va_list arguments;

	if (!more) {
		lines->failed = true;
		return;
	}
	lines->line = more;
	va_start(arguments, format);
	if (vasprintf(&more[lines->n], format, arguments) < 0)
		lines->failed = true;
	else
		lines->n++;
	va_end(arguments);
}

/* The number in a file of /proc; -1: there is none. */
static long number_in(const char *path)
{
	FILE *file = fopen(path, "re");
	long number = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &number) != 1)
		number = -1;
	fclose(file);
	return number;
}

static void warn_forwarding(struct datapath *dp, const char *device, struct lines *lines)
{
	static const struct {
		uint8_t family;
		const char *name;
	} families[] = { { XLB_IPV4, "ipv4" }, { XLB_IPV6, "ipv6" } };

	for (size_t i = 0; i < 2; i++) {
		char path[128];
		struct service *service;
		size_t cursor = 0;

		while ((service = model_next(dp->model, &cursor)))
			if (service->vip.family == families[i].family)
				break;
		snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/forwarding",
			 families[i].name, device);
		if (service && number_in(path) == 0)
			warn(lines,
			     "net.%s.conf.%s.forwarding is 0: the kernel does not tell next hops, and packets take the slow way through its neighbour code",
			     families[i].name, device);
	}
}

static void warn_offloads(const char *device, bool native, struct lines *lines)
{
	struct ethtool_value flags = { .cmd = ETHTOOL_GFLAGS }, gro = { .cmd = ETHTOOL_GGRO };

	if (!native && ethtool_ask(device, &gro) && gro.data)
		warn(lines,
		     "%s: GRO merges packets before xlb sees them in generic mode, to more than goes out again: ethtool -K %s gro off",
		     device, device);
	if (ethtool_ask(device, &flags) && flags.data & ETH_FLAG_LRO)
		warn(lines,
		     "%s: LRO merges packets before they can be looked at: ethtool -K %s lro off",
		     device, device);
}

static void warn_devices(struct datapath *dp, struct lines *lines)
{
	struct device_status *devices;
	size_t n, attached = 0;

	if (datapath_devices(dp, &devices, &n, NULL)) {
		lines->failed = true;
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (!devices[i].xdp)
			continue;
		attached++;
		if (!devices[i].native)
			warn(lines, "%s: generic mode, which is several times slower than native",
			     devices[i].name);
		warn_forwarding(dp, devices[i].name, lines);
		warn_offloads(devices[i].name, devices[i].native, lines);
	}
	if (!attached)
		warn(lines, "attached to no device: run `lbctl attach DEV`");
	free(devices);
}

static void warn_paths(struct datapath *dp, struct lines *lines)
{
	const struct backend *example = NULL;
	char text[ENDPOINT_TEXT_MAX];
	struct service *service;
	size_t cursor = 0, n = 0;

	while ((service = model_next(dp->model, &cursor))) {
		for (size_t i = 0; i < service->n_backends; i++) {
			if (backend_at(dp, service->backends[i].id)->ifindex)
				continue;
			example = &service->backends[i];
			n++;
		}
	}
	if (example)
		warn(lines, "no route to %zu backend%s, %s%s", n, n > 1 ? "s" : "",
		     n > 1 ? "one of them " : "",
		     endpoint_format_backend(&example->endpoint, text));
}

/* Whether xlb sees what comes in by a device, before the kernel does. */
static bool is_attached(const struct datapath *dp, uint32_t ifindex)
{
	for (size_t i = 0; i < dp->n_devices; i++)
		if (dp->devices[i].ifindex == ifindex)
			return dp->devices[i].entry.flags & XLB_DEVICE_XDP;
	return false;
}

/* Replies of another family than the client's are translated by XDP only. */
static void warn_crossed(struct datapath *dp, struct lines *lines)
{
	char vip[ENDPOINT_TEXT_MAX], text[ENDPOINT_TEXT_MAX], name[IF_NAMESIZE];
	struct service *service;
	size_t cursor = 0;

	while ((service = model_next(dp->model, &cursor))) {
		for (size_t i = 0; service->forward == XLB_FORWARD_NAT && i < service->n_backends;
		     i++) {
			const struct backend *backend = &service->backends[i];
			uint32_t ifindex = backend_at(dp, backend->id)->ifindex;

			if (backend->endpoint.family == service->vip.family || !ifindex ||
			    is_attached(dp, ifindex))
				continue;
			warn(lines,
			     "%s: %s is behind %s, where xlb is not attached: its replies do not get back to IPv%u",
			     endpoint_format(&service->vip, vip),
			     endpoint_format_backend(&backend->endpoint, text),
			     if_indextoname(ifindex, name) ? name : "a device that is gone",
			     service->vip.family);
			break;
		}
	}
}

static void warn_maps(struct datapath *dp, struct lines *lines)
{
	struct map_use *uses;
	size_t n;

	if (datapath_map_use(dp, &uses, &n, NULL)) {
		lines->failed = true;
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (uses[i].known && uses[i].size && uses[i].used * 100 >= uses[i].size * FULL_PERCENT)
			warn(lines, "the map %s is %llu %% full (%llu of %llu)", uses[i].name,
			     (unsigned long long)(uses[i].used * 100 / uses[i].size),
			     (unsigned long long)uses[i].used, (unsigned long long)uses[i].size);
	free(uses);
}

static void warn_ports(struct datapath *dp, struct lines *lines)
{
	const struct xlb_config *config = config_of(dp);
	FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	unsigned int low, high;

	if (!file)
		return;
	if (fscanf(file, "%u %u", &low, &high) == 2 && low <= config->port_max &&
	    high >= config->port_min)
		warn(lines,
		     "net.ipv4.ip_local_port_range (%u to %u) overlaps the ports for nat (%u to %u): this node's own connections to a backend may be taken for replies",
		     low, high, config->port_min, config->port_max);
	fclose(file);
}

static void warn_orphans(const struct datapath *dp, struct lines *lines)
{
	_cleanup_(free_pointer) struct other_xlb *others = NULL;
	size_t n;

	if (datapath_others(dp, &others, &n, NULL)) {
		lines->failed = true;
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (!*others[i].pin_dir)
			warn(lines,
			     "%s: an xlb is attached (id %u) whose pins are gone, or in another mount namespace: `lbctl detach %s` takes it away",
			     others[i].device, others[i].program_id, others[i].device);
}

static int lines_give(struct lines *lines, char ***ret_lines, size_t *ret_n)
{
	if (lines->failed) {
		for (size_t i = 0; i < lines->n; i++)
			free(lines->line[i]);
		free(lines->line);
		return -ENOMEM;
	}
	*ret_lines = lines->line;
	*ret_n = lines->n;
	return 0;
}

int datapath_absent_warnings(const char *pin_dir, char ***ret_lines, size_t *ret_n)
{
	struct lines lines = {};

	if (!datapath_can_pin(pin_dir))
		warn(&lines,
		     "%s: no BPF file system is mounted there: what was pinned, if anything, is out of sight",
		     pin_dir);
	warn_orphans(NULL, &lines);
	return lines_give(&lines, ret_lines, ret_n);
}

int datapath_warnings(struct datapath *dp, char ***ret_lines, size_t *ret_n)
{
	struct datapath_info info;
	struct lines lines = {};

	warn_devices(dp, &lines);
	warn_orphans(dp, &lines);
	warn_paths(dp, &lines);
	warn_crossed(dp, &lines);
	warn_maps(dp, &lines);
	warn_ports(dp, &lines);
	if (!datapath_info(dp, &info, NULL) && !info.iterator)
		warn(&lines, "%s/counters is not there: %s", dp->pin_dir, info.iterator_missing);
	return lines_give(&lines, ret_lines, ret_n);
}
