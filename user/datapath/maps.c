// SPDX-License-Identifier: GPL-2.0
/*
 * The table of maps: how each is called, what it holds, how large it is, and opening it where it is
 * pinned.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "datapath/internal.h"

struct kind {
	const char *name;
	uint32_t type;
	uint32_t value_size;
	bool mapped; /* at once; the others that can be are mapped when they are needed */
	uint32_t key_size; /* 0: that of a number */
};

static const struct kind kinds[MAPS] = {
	[MAP_CONFIG] = { "config", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_config), true },
	[MAP_SERVICES] = { "services", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_service), true },
	[MAP_SERVICES6] = { "services6", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_service6), true },
	[MAP_BACKENDS] = { "backends", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_backend), true },
	[MAP_RINGS] = { "rings", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_ring_line), false },
	[MAP_ROTATION] = { "rotation", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_rotation), false },
	[MAP_FLOWS] = { "flows", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_flow_line), false },
	[MAP_FLOWS6] = { "flows6", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_flow6_line), false },
	[MAP_FILTER] = { "filter", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_filter_line), false },
	[MAP_DROPS] = { "drops", BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(struct xlb_drop_stats), false },
	[MAP_NEIGHBOURS] = { "neighbours", BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(struct xlb_neighbour),
			     false },
	[MAP_BACKEND_TALLY] = { "backend_tally", BPF_MAP_TYPE_PERCPU_ARRAY,
				sizeof(struct xlb_backend_tally), false },
	[MAP_MIRRORS] = { "mirrors", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_mirror), false },
	[MAP_BACKEND_STATS] = { "backend_stats", BPF_MAP_TYPE_PERCPU_HASH,
				sizeof(struct xlb_backend_stats), false },
	[MAP_SERVICE_STATS] = { "service_stats", BPF_MAP_TYPE_PERCPU_ARRAY,
				sizeof(struct xlb_service_stats), false },
	[MAP_SERVICE_INFO] = { "service_info", BPF_MAP_TYPE_HASH, sizeof(struct xlb_service_info),
			       false },
	[MAP_DEVICES] = { "devices", BPF_MAP_TYPE_HASH, sizeof(struct xlb_device), false },
	[MAP_SERVICE_OPTIONS] = { "service_options", BPF_MAP_TYPE_ARRAY,
				  sizeof(struct xlb_service_options), false },
	[MAP_AFFINITY] = { "affinity", BPF_MAP_TYPE_LRU_HASH, sizeof(struct xlb_affinity), false,
			   sizeof(struct xlb_affinity_key) },
	[MAP_RANGES] = { "ranges", BPF_MAP_TYPE_LPM_TRIE, sizeof(uint32_t), false,
			 sizeof(struct xlb_range4) },
	[MAP_RANGES6] = { "ranges6", BPF_MAP_TYPE_LPM_TRIE, sizeof(uint32_t), false,
			  sizeof(struct xlb_range6) },
	[MAP_VIPS] = { "vips", BPF_MAP_TYPE_HASH, sizeof(struct xlb_vip), false,
		       sizeof(struct xlb_address) },
	[MAP_PATHS] = { "paths", BPF_MAP_TYPE_LRU_HASH, sizeof(struct xlb_path), false,
			sizeof(struct xlb_address) },
	[MAP_FRAGMENTS] = { "fragments", BPF_MAP_TYPE_LRU_HASH, sizeof(struct xlb_fragment), false,
			    sizeof(struct xlb_fragment_key) },
	[MAP_HELD] = { "held", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_held), false },
	[MAP_LOCKS] = { "locks", BPF_MAP_TYPE_ARRAY, sizeof(struct xlb_lock), false },
};

const char *map_name(enum map_id id)
{
	return kinds[id].name;
}

uint32_t map_entries(const struct xlb_config *config, enum map_id id)
{
	switch (id) {
	case MAP_SERVICES:
	case MAP_SERVICES6:
		return config->services;
	case MAP_BACKENDS:
	case MAP_BACKEND_TALLY:
	case MAP_BACKEND_STATS:
		return config->backends;
	case MAP_RINGS:
		return config->ring_slots / XLB_RING_LINE;
	case MAP_ROTATION:
	case MAP_SERVICE_OPTIONS:
	case MAP_SERVICE_STATS:
		return 2 * config->services;
	case MAP_VIPS:
	case MAP_SERVICE_INFO:
		/* Hashes, with room for the services themselves, not for the slots between them. */
		return 2 * services_asked_for(config);
	case MAP_FLOWS:
		return 2 * config->flow_lines;
	case MAP_FLOWS6:
		return 2 * config->flow6_lines;
	case MAP_FILTER:
		return XLB_FILTER_BITS / (8 * sizeof(struct xlb_filter_line));
	case MAP_DROPS:
		return XLB_DROP_REASONS;
	case MAP_NEIGHBOURS:
		return config->neighbours;
	case MAP_MIRRORS:
		return libbpf_num_possible_cpus();
	case MAP_DEVICES:
	case MAP_PATHS:
		return 1024;
	case MAP_AFFINITY:
		return 16384;
	case MAP_RANGES:
	case MAP_RANGES6:
		/* Memory is taken as they fill: four for each service that was asked for. */
		return config->services > 1024 ? config->services : 1024;
	case MAP_FRAGMENTS:
		return 4096;
	case MAP_HELD:
		return XLB_HELD;
	default:
		return 1;
	}
}

size_t map_key_size(enum map_id id)
{
	return kinds[id].key_size ? kinds[id].key_size : sizeof(uint32_t);
}

size_t map_stride(enum map_id id)
{
	return (kinds[id].value_size + 7) / 8 * 8;
}

void *map_values_new(const struct datapath *dp, enum map_id id)
{
	return calloc(dp->cpus, map_stride(id));
}

static int path_join(char path[PATH_MAX], const char *dir, const char *name, struct error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX)
		return 0;
	return error_set(err, ENAMETOOLONG, "%.64s...: path too long", dir);
}

static int map_check(const struct datapath *dp, enum map_id id, const struct bpf_map_info *info,
		     struct error *err)
{
	bool right = info->type == kinds[id].type && info->value_size == kinds[id].value_size &&
		     info->key_size == map_key_size(id);

	if (right && id != MAP_CONFIG)
		right = info->max_entries == map_entries(config_of(dp), id);
	if (right)
		return 0;
	return error_set(
		err, EPROTO,
		"%s/%s: made by another version of xlb; run that version's `lbctl detach --all`, then attach again",
		dp->pin_dir, kinds[id].name);
}

static int map_open(struct datapath *dp, enum map_id id, struct error *err)
{
	LIBBPF_OPTS(bpf_obj_get_opts, how, .file_flags = dp->read_only ? BPF_F_RDONLY : 0);
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	char path[PATH_MAX];
	int r = path_join(path, dp->pin_dir, kinds[id].name, err);

	if (r)
		return r;
	dp->maps[id].fd = bpf_obj_get_opts(path, &how);
	if (dp->maps[id].fd < 0) {
		r = -errno;
		if (r == -ENOENT && id == MAP_CONFIG)
			return error_set(err, ENOENT,
					 "%s: nothing there; run `lbctl attach DEV` first",
					 dp->pin_dir);
		if (r == -ENOENT)
			return error_set(
				err, EPROTO,
				"%s is missing: run `lbctl detach --all`, then attach again", path);
		return error_denied(err, -r, path);
	}
	if (bpf_obj_get_info_by_fd(dp->maps[id].fd, &info, &size))
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	if (id == MAP_BACKENDS)
		dp->own_map_id = info.id;
	return map_check(dp, id, &info, err);
}

/*
 * The kernel lets nobody map what may only be read (it takes MAP_SHARED from such mappings, and refuses
 * others for BPF): a copy as of now stands in for it. 0 or -errno.
 */
static int map_copy(const struct map *map, uint32_t entries, void *memory)
{
	_cleanup_(free_pointer) uint32_t *keys = calloc(entries, sizeof(*keys));
	uint32_t cursor, count = entries;
	LIBBPF_OPTS(bpf_map_batch_opts, options);

	if (!keys)
		return -ENOMEM;
	if (bpf_map_lookup_batch(map->fd, NULL, &cursor, keys, memory, &count, &options) &&
	    errno != ENOENT)
		return -errno;
	return 0;
}

void *map_memory(struct datapath *dp, enum map_id id, struct error *err)
{
	struct map *map = &dp->maps[id];
	uint32_t entries = id == MAP_CONFIG ? 1 : map_entries(config_of(dp), id);
	size_t page = sysconf(_SC_PAGESIZE);
	size_t size = (entries * map_stride(id) + page - 1) / page * page;
	int flags = dp->read_only ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *memory;
	int r;

	if (map->memory)
		return map->memory;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, dp->read_only ? -1 : map->fd, 0);
	if (memory == MAP_FAILED) {
		error_set(err, errno, "%s/%s: cannot map it: %s", dp->pin_dir, kinds[id].name,
			  strerror(errno));
		return NULL;
	}
	r = dp->read_only ? map_copy(map, entries, memory) : 0;
	if (r) {
		error_set(err, -r, "%s/%s: cannot read it: %s", dp->pin_dir, kinds[id].name,
			  strerror(-r));
		munmap(memory, size);
		errno = -r;
		return NULL;
	}
	map->memory = memory;
	map->size = size;
	return memory;
}

int maps_open(struct datapath *dp, struct error *err)
{
	for (int id = 0; id < MAPS; id++) {
		int r = map_open(dp, id, err);

		if (r)
			return r;
		if (kinds[id].mapped && !map_memory(dp, id, err))
			return -errno;
		if (id == MAP_CONFIG && config_of(dp)->abi_version != XLB_ABI_VERSION)
			return error_set(
				err, EPROTO,
				"%s: made by another version of xlb (ABI %u, this is %u); run that version's `lbctl detach --all`, then attach again",
				dp->pin_dir, config_of(dp)->abi_version, XLB_ABI_VERSION);
	}
	return 0;
}

void maps_close(struct datapath *dp)
{
	for (int id = 0; id < MAPS; id++) {
		if (dp->maps[id].memory)
			munmap(dp->maps[id].memory, dp->maps[id].size);
		close_fd(&dp->maps[id].fd);
		dp->maps[id] = (struct map){ .fd = -1 };
	}
}
