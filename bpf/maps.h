/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every map, and the constants that are fixed when the programs are loaded. Sizes here are
 * placeholders: lbctl sets them from xlb_config before the maps are made. Mmappable arrays start on
 * a page, so that their elements lie on cache lines.
 */
#ifndef XLB_MAPS_H
#define XLB_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <xlb/abi.h>

/* A service's element in the maps that hold both families. */
#define SERVICE_KEY(ipv6, id) XLB_SERVICE_KEY((ipv6) ? XLB_IPV6 : XLB_IPV4, id, cfg.services)

#define XLB_MAP(map, map_type, key_type, value_type, flags) \
	struct { \
		__uint(type, map_type); \
		__uint(max_entries, 1); \
		__uint(map_flags, flags); \
		__type(key, key_type); \
		__type(value, value_type); \
	} map SEC(".maps") __weak

#define XLB_ARRAY(map, value, flags) XLB_MAP(map, BPF_MAP_TYPE_ARRAY, __u32, value, flags)
#define XLB_PERCPU_ARRAY(map, value) XLB_MAP(map, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, value, 0)

XLB_ARRAY(services, struct xlb_service, BPF_F_MMAPABLE);
XLB_ARRAY(services6, struct xlb_service6, BPF_F_MMAPABLE);
XLB_ARRAY(backends, struct xlb_backend, BPF_F_MMAPABLE);
XLB_ARRAY(rings, struct xlb_ring_line, BPF_F_MMAPABLE);
XLB_ARRAY(service_options, struct xlb_service_options, BPF_F_MMAPABLE);
XLB_ARRAY(rotation, struct xlb_rotation, BPF_F_MMAPABLE);
XLB_ARRAY(flows, struct xlb_flow_line, BPF_F_MMAPABLE);
XLB_ARRAY(flows6, struct xlb_flow6_line, BPF_F_MMAPABLE);
XLB_ARRAY(filter, struct xlb_filter_line, BPF_F_MMAPABLE);
XLB_ARRAY(config, struct xlb_config, BPF_F_MMAPABLE);
XLB_ARRAY(locks, struct xlb_lock, 0);
XLB_ARRAY(mirrors, struct xlb_mirror, 0);
XLB_ARRAY(held, struct xlb_held, 0);

XLB_PERCPU_ARRAY(drops, struct xlb_drop_stats);
XLB_PERCPU_ARRAY(service_stats, struct xlb_service_stats);
XLB_PERCPU_ARRAY(backend_tally, struct xlb_backend_tally);
/* Per CPU, because an entry is replaced while others read. */
XLB_PERCPU_ARRAY(neighbours, struct xlb_neighbour);

/*
 * A hash, so that a dump shows what is there and nothing else; entries are made and removed by
 * lbctl only.
 */
XLB_MAP(backend_stats, BPF_MAP_TYPE_PERCPU_HASH, __u32, struct xlb_backend_stats,
	BPF_F_NO_PREALLOC);
XLB_MAP(service_info, BPF_MAP_TYPE_HASH, __u32, struct xlb_service_info, BPF_F_NO_PREALLOC);
XLB_MAP(devices, BPF_MAP_TYPE_HASH, __u32, struct xlb_device, BPF_F_NO_PREALLOC);

/* What follows is for packets that are rare: stock hashes do. */
XLB_MAP(affinity, BPF_MAP_TYPE_LRU_HASH, struct xlb_affinity_key, struct xlb_affinity, 0);
XLB_MAP(ranges, BPF_MAP_TYPE_LPM_TRIE, struct xlb_range4, __u32, BPF_F_NO_PREALLOC);
XLB_MAP(ranges6, BPF_MAP_TYPE_LPM_TRIE, struct xlb_range6, __u32, BPF_F_NO_PREALLOC);
XLB_MAP(vips, BPF_MAP_TYPE_HASH, struct xlb_address, struct xlb_vip, BPF_F_NO_PREALLOC);
XLB_MAP(paths, BPF_MAP_TYPE_LRU_HASH, struct xlb_address, struct xlb_path, 0);
XLB_MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct xlb_fragment_key, struct xlb_fragment, 0);

#endif
