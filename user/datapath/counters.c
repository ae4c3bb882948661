// SPDX-License-Identifier: GPL-2.0
/*
 * Counters, summed over CPUs. Each CPU's are read one after the other while packets go on: a sum is
 * never too large, but may be a packet behind.
 */
#include <errno.h>

#include <bpf/bpf.h>

#include "datapath/internal.h"

static const char *const drop_names[XLB_DROP_REASONS] = {
	[XLB_DROP_NONE] = "none",
	[XLB_DROP_FLOWS_FULL] = "flows_full",
	[XLB_DROP_PORTS_EXHAUSTED] = "ports_exhausted",
	[XLB_DROP_NO_ROUTE] = "no_route",
	[XLB_DROP_ANSWER_FAILED] = "answer_failed",
	[XLB_DROP_EMIT_FAILED] = "emit_failed",
	[XLB_DROP_BAD_RING] = "bad_ring",
	[XLB_DROP_MALFORMED] = "malformed",
	[XLB_DROP_NO_FLOW] = "no_flow",
	[XLB_DROP_SOURCE_RANGE] = "source_range",
	[XLB_DROP_BAD_SOURCE] = "bad_source",
	[XLB_DROP_TOO_BIG] = "too_big",
	[XLB_DROP_TTL] = "ttl",
	[XLB_DROP_NO_FRAGMENT] = "no_fragment",
	[XLB_DROP_RATE_LIMITED] = "rate_limited",
	[XLB_DROP_UNTRANSLATABLE] = "untranslatable",
};

const char *drop_name(enum xlb_drop reason)
{
	return (unsigned int)reason < XLB_DROP_REASONS ? drop_names[reason] : "unknown";
}

static void count_add(struct xlb_count *sum, const struct xlb_count *part)
{
	sum->packets += part->packets;
	sum->bytes += part->bytes;
}

/* All CPUs' values of an element; NULL: errno says why. */
static void *values_read(struct datapath *dp, enum map_id id, uint32_t key)
{
	_cleanup_(free_pointer) void *values = map_values_new(dp, id);

	if (!values || bpf_map_lookup_elem(dp->maps[id].fd, &key, values))
		return NULL;
	return steal_pointer(&values);
}

int datapath_service_counters(struct datapath *dp, const struct service *service,
			      struct counters *ret_counters)
{
	uint32_t key = service_key(dp, service->vip.family, service->id);
	_cleanup_(free_pointer) struct xlb_service_stats *stats =
		values_read(dp, MAP_SERVICE_STATS, key);
	struct counters sum = {};

	if (!stats)
		return -errno;
	for (int cpu = 0; cpu < dp->cpus; cpu++) {
		count_add(&sum.to_backend, &stats[cpu].to_backend);
		count_add(&sum.to_client, &stats[cpu].to_client);
		count_add(&sum.refused, &stats[cpu].refused);
		count_add(&sum.dropped, &stats[cpu].dropped);
		sum.flows += stats[cpu].flows;
	}
	*ret_counters = sum;
	return 0;
}

int datapath_backend_counters(struct datapath *dp, const struct backend *backend,
			      struct counters *ret_counters)
{
	_cleanup_(free_pointer) struct xlb_backend_tally *tally =
		values_read(dp, MAP_BACKEND_TALLY, backend->id);
	struct counters sum = {};

	if (!tally)
		return -errno;
	for (int cpu = 0; cpu < dp->cpus; cpu++) {
		count_add(&sum.to_backend, &tally[cpu].to_backend);
		count_add(&sum.to_client, &tally[cpu].to_client);
		sum.flows += tally[cpu].flows;
	}
	*ret_counters = sum;
	return 0;
}

int datapath_drop_count(struct datapath *dp, enum xlb_drop reason, uint64_t *ret_packets)
{
	_cleanup_(free_pointer) struct xlb_drop_stats *drops = values_read(dp, MAP_DROPS, reason);
	uint64_t packets = 0;

	if (!drops)
		return -errno;
	for (int cpu = 0; cpu < dp->cpus; cpu++)
		packets += drops[cpu].packets;
	*ret_packets = packets;
	return 0;
}
