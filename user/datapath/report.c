// SPDX-License-Identifier: GPL-2.0
/* What `lbctl status` shows: programs, devices, how full the maps are. */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "datapath/internal.h"

#define COUNTED_LINES_MAX (1u << 22) /* of flows: a larger table takes too long to count */

int datapath_info(struct datapath *dp, struct datapath_info *ret_info, struct error *err)
{
	_cleanup_(close_fd) int fd = program_open(dp, "xdp", err);
	struct datapath_info info = { .pin_dir = dp->pin_dir, .config = *config_of(dp) };
	struct bpf_prog_info program = {};
	uint32_t size = sizeof(program);
	char path[PATH_MAX + 16];

	if (fd < 0)
		return fd;
	if (bpf_obj_get_info_by_fd(fd, &program, &size))
		return error_set(err, errno, "%s/xdp: %s", dp->pin_dir, strerror(errno));
	info.program_id = program.id;
	for (size_t i = 0; i < sizeof(program.tag); i++)
		sprintf(info.program_tag + 2 * i, "%02x", program.tag[i]);
	snprintf(path, sizeof(path), "%s/counters", dp->pin_dir);
	info.iterator = !access(path, F_OK);
	if (!info.iterator)
		snprintf(info.iterator_missing, sizeof(info.iterator_missing),
			 "this kernel takes no BPF iterator for maps; 'lbctl backends list' shows the same");
	*ret_info = info;
	return 0;
}

static int device_report(struct datapath *dp, const struct device *device,
			 struct device_status *ret_status)
{
	struct device_status status = { .ifindex = device->ifindex };
	struct xdp_state xdp;

	if (!if_indextoname(device->ifindex, status.name))
		return -ENODEV;
	if (xdp_look(dp, device->ifindex, &xdp)) {
		/* Who may not look there is told what was written down. */
		status.xdp = device->entry.flags & XLB_DEVICE_XDP;
		status.native = device->entry.mode == XLB_ATTACH_NATIVE;
	} else if (xdp.owner == XDP_OURS) {
		status.n_chain = xdp.dispatcher ?
					 dispatcher_chain(dp, device->ifindex, xdp.attached_id,
							  status.chain) :
					 program_describe(dp, xdp.program_id, status.chain);
		status.xdp = true;
		status.native = xdp.native;
		status.dispatcher = xdp.dispatcher;
		status.program_id = xdp.program_id;
	}
	*ret_status = status;
	return 0;
}

int datapath_devices(struct datapath *dp, struct device_status **ret_devices, size_t *ret_n,
		     struct error *err)
{
	struct device_status *devices = calloc(dp->n_devices + 1, sizeof(*devices));
	size_t n = 0;

	if (!devices)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < dp->n_devices; i++)
		if (dp->devices[i].entry.flags && !device_report(dp, &dp->devices[i], &devices[n]))
			n++;
	*ret_devices = devices;
	*ret_n = n;
	return 0;
}

struct addresses {
	struct datapath *dp;
	struct endpoint *address;
	size_t n;
	bool failed;
};

static void address_take(const struct endpoint *address, uint32_t ifindex, void *data)
{
	struct addresses *all = data;
	struct device *device = device_find(all->dp, ifindex);
	struct endpoint *more;

	if (!device || !(device->entry.flags & XLB_DEVICE_XDP))
		return;
	more = reallocarray(all->address, all->n + 1, sizeof(*more));
	if (!more) {
		all->failed = true;
		return;
	}
	all->address = more;
	all->address[all->n++] = *address;
}

int datapath_device_addresses(struct datapath *dp, struct endpoint **ret_addresses, size_t *ret_n,
			      struct error *err)
{
	struct addresses all = { .dp = dp };
	int r = netlink_each_address(dp, 0, address_take, &all, err);

	if (!r && all.failed)
		r = error_set(err, ENOMEM, "out of memory");
	if (r) {
		free(all.address);
		return r;
	}
	*ret_addresses = all.address;
	*ret_n = all.n;
	return 0;
}

/* ---- how full ---- */

static uint64_t slots_used(const struct datapath *dp, uint8_t family)
{
	uint64_t used = 0;

	for (uint32_t id = 0; id < config_of(dp)->services; id++)
		used += slot_live(dp, family, id);
	return used;
}

/* Flows stand in both halves; the first is the clients'. */
static void flows_use(struct datapath *dp, enum map_id id, uint32_t lines, uint32_t words,
		      struct map_use *ret_use)
{
	const uint64_t *flows = lines <= COUNTED_LINES_MAX ? map_memory(dp, id, NULL) : NULL;
	uint64_t n = (uint64_t)lines * XLB_FLOW_WAYS;

	*ret_use = (struct map_use){ .name = map_name(id), .size = n, .known = flows };
	for (uint64_t i = 0; flows && i < n; i++)
		ret_use->used += flows[i * words + words - 1] != 0;
}

/*
 * Elements of a hash that is far from empty and far from large: by many at a time where the kernel
 * can (5.6), else not.
 */
static void hash_use(struct datapath *dp, enum map_id id, struct map_use *ret_use)
{
	uint32_t size = map_entries(config_of(dp), id), n = size, position;
	_cleanup_(free_pointer) char *keys = calloc(size, map_key_size(id));
	_cleanup_(free_pointer) char *values = calloc(size, map_stride(id));
	LIBBPF_OPTS(bpf_map_batch_opts, options);
	int r = keys && values ? bpf_map_lookup_batch(dp->maps[id].fd, NULL, &position, keys,
						      values, &n, &options) :
				 -ENOMEM;

	/* ENOENT: those were all. */
	*ret_use = (struct map_use){ .name = map_name(id),
				     .used = n,
				     .size = size,
				     .known = !r || r == -ENOENT };
}

static void ranges_use(struct datapath *dp, uint8_t family, struct map_use *ret_use)
{
	enum map_id id = family == XLB_IPV6 ? MAP_RANGES6 : MAP_RANGES;
	struct map_use use = { .name = map_name(id),
			       .size = map_entries(config_of(dp), id),
			       .known = true };
	const struct service *service;
	size_t cursor = 0;

	while ((service = model_next(dp->model, &cursor)))
		for (size_t i = 0; service->vip.family == family &&
				   service_next_range(service, &i);)
			use.used++;
	*ret_use = use;
}

int datapath_map_use(struct datapath *dp, struct map_use **ret_uses, size_t *ret_n,
		     struct error *err)
{
	const struct xlb_config *config = config_of(dp);
	struct map_use *uses = calloc(MAPS, sizeof(*uses));
	size_t n = 0;

	if (!uses)
		return error_set(err, ENOMEM, "out of memory");
	uses[n++] = (struct map_use){ "services", slots_used(dp, XLB_IPV4),
				      services_asked_for(config), true };
	uses[n++] = (struct map_use){ "services6", slots_used(dp, XLB_IPV6),
				      services_asked_for(config), true };
	uses[n++] =
		(struct map_use){ "backends", config->backends - 1 - dp->ids.n - dp->ids.retired,
				  config->backends - 1, true };
	uses[n++] = (struct map_use){ "rings", dp->ring_lines.used * (uint64_t)XLB_RING_LINE,
				      config->ring_slots, true };
	flows_use(dp, MAP_FLOWS, config->flow_lines, sizeof(struct xlb_flow) / 8, &uses[n++]);
	flows_use(dp, MAP_FLOWS6, config->flow6_lines, sizeof(struct xlb_flow6) / 8, &uses[n++]);
	ranges_use(dp, XLB_IPV4, &uses[n++]);
	ranges_use(dp, XLB_IPV6, &uses[n++]);
	hash_use(dp, MAP_AFFINITY, &uses[n++]);
	hash_use(dp, MAP_FRAGMENTS, &uses[n++]);
	uses[n++] = (struct map_use){ "devices", dp->n_devices, map_entries(config, MAP_DEVICES),
				      true };
	*ret_uses = uses;
	*ret_n = n;
	return 0;
}
