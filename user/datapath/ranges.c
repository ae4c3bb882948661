// SPDX-License-Identifier: GPL-2.0
/*
 * Who may come: source ranges of services, in the tries `ranges` and `ranges6`.
 *
 * A packet whose source is admitted before a change and after it is admitted all the while: what
 * comes is inserted first, then the service's target says that there are ranges (or no longer),
 * then what goes is deleted. So for a moment both sets are in force.
 *
 * Ranges of the other family than the VIP's let nobody in, and have no place in the tries: that a
 * service has some is said by its target alone. Read back, it has one that stands for all of them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "datapath/internal.h"

/* A key of either trie; that of `ranges` is its beginning. */
union range_key {
	struct xlb_range4 ipv4;
	struct xlb_range6 ipv6;
};

#define SERVICE_BITS 32 /* of a key, in front of the address */

static enum map_id range_map(uint8_t family)
{
	return family == XLB_IPV6 ? MAP_RANGES6 : MAP_RANGES;
}

static union range_key range_key(const struct prefix *range, uint32_t id)
{
	union range_key key = {};

	if (range->family == XLB_IPV6)
		key.ipv6 = (struct xlb_range6){ .prefix = SERVICE_BITS + range->length,
						.service = id,
						.address = range->address };
	else
		key.ipv4 = (struct xlb_range4){ .prefix = SERVICE_BITS + range->length,
						.service = id,
						.address = range->address.word[0] };
	return key;
}

void ranges_delete(struct datapath *dp, const struct service *before, const struct service *after,
		   uint32_t id)
{
	const struct prefix *range;
	size_t cursor = 0;

	while (before && (range = service_next_range(before, &cursor))) {
		union range_key key = range_key(range, id);

		if (!after || !service_has_range(after, range))
			bpf_map_delete_elem(dp->maps[range_map(range->family)].fd, &key);
	}
}

int ranges_insert(struct datapath *dp, const struct service *before, const struct service *after,
		  uint32_t id, struct error *err)
{
	const struct prefix *range;
	size_t cursor = 0;
	uint32_t admitted = 1;
	int r = 0;

	while (!r && (range = service_next_range(after, &cursor))) {
		union range_key key = range_key(range, id);

		if (!before || !service_has_range(before, range))
			r = element_write(dp, range_map(range->family), &key, &admitted, err);
	}
	if (r)
		ranges_delete(dp, after, before, id);
	return r;
}

/* ---- reading back ---- */

static struct service *range_owner(const struct datapath *dp, uint8_t family,
				   const union range_key *key, struct prefix *ret_range)
{
	uint32_t id = family == XLB_IPV6 ? key->ipv6.service : key->ipv4.service;
	struct prefix range = { .family = family };
	struct service *service;

	if (id >= config_of(dp)->services)
		return NULL;
	service = dp->by_key[service_key(dp, family, id)];
	if (!service || !slot_of(dp, service).target->ranges)
		return NULL;
	if (family == XLB_IPV6) {
		range.length = key->ipv6.prefix - SERVICE_BITS;
		range.address = key->ipv6.address;
	} else {
		range.length = key->ipv4.prefix - SERVICE_BITS;
		range.address.word[0] = key->ipv4.address;
	}
	*ret_range = range;
	return service;
}

/* Adds what is there to its service, or with `mend` deletes what belongs to none. */
static int ranges_walk(struct datapath *dp, uint8_t family, bool mend)
{
	int fd = dp->maps[range_map(family)].fd;
	union range_key key, next;
	bool more = !bpf_map_get_next_key(fd, NULL, &key);

	while (more) {
		struct prefix range;
		struct service *owner = range_owner(dp, family, &key, &range);

		more = !bpf_map_get_next_key(fd, &key, &next);
		if (mend && !owner)
			bpf_map_delete_elem(fd, &key);
		if (!mend && owner && service_add_range(owner, &range))
			return -ENOMEM;
		key = next;
	}
	return 0;
}

/* Whether any service of a family has ranges: the others need no walk. */
static bool ranges_any(const struct datapath *dp, uint8_t family)
{
	struct service *service;
	size_t cursor = 0;

	while ((service = model_next(dp->model, &cursor)))
		if (service->vip.family == family && slot_of(dp, service).target->ranges)
			return true;
	return false;
}

int ranges_load(struct datapath *dp, struct error *err)
{
	struct service *service;
	size_t cursor = 0;
	int r = 0;

	if (ranges_any(dp, XLB_IPV4))
		r = ranges_walk(dp, XLB_IPV4, false);
	if (!r && ranges_any(dp, XLB_IPV6))
		r = ranges_walk(dp, XLB_IPV6, false);
	while (!r && (service = model_next(dp->model, &cursor))) {
		struct prefix nobody = {
			.family = service->vip.family == XLB_IPV6 ? XLB_IPV4 : XLB_IPV6,
		};

		if (slot_of(dp, service).target->ranges && !service->n_ranges)
			r = service_add_range(service, &nobody);
		service_sort_ranges(service);
	}
	return r ? error_set(err, ENOMEM, "out of memory") : 0;
}

int ranges_mend(struct datapath *dp, struct error *err)
{
	int r = ranges_walk(dp, XLB_IPV4, true);

	if (!r)
		r = ranges_walk(dp, XLB_IPV6, true);
	return r ? error_set(err, ENOMEM, "out of memory") : 0;
}
