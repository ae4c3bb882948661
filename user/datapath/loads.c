// SPDX-License-Identifier: GPL-2.0
/*
 * How many flows the backends of `lc` services have now.
 *
 * The packet path counts a flow when it begins, and off when it sees it end. It does not see a client
 * vanish, which is also how UDP flows end; nor does it count again what it took for ended, or what began
 * under another scheduler. So now and then all flows are looked at. One that was silent for longer
 * than it may is counted off, but stays: as long as nobody wants its slot, its client may go on. One that
 * is there and is not counted is counted.
 */
#include <errno.h>

#include "datapath/internal.h"

struct counting {
	struct datapath *dp;
	uint32_t now;
	bool *counts; /* by service_key() */
};

bool loads_matter(const struct datapath *dp)
{
	struct service *service;
	size_t cursor = 0;

	while ((service = model_next(dp->model, &cursor)))
		if (service->scheduler == XLB_SCHEDULER_LC)
			return true;
	return false;
}

static bool flow_counts(const struct counting *counting, const struct flow_view *flow)
{
	const struct datapath *dp = counting->dp;
	uint32_t state = flow->value.state;

	return counting->counts[service_key(dp, flow->family, flow->key.service)] &&
	       state != XLB_FLOW_CLOSED && state != XLB_FLOW_CLOSING &&
	       !flow_expired(dp, flow->value, counting->now);
}

/*
 * Its age is kept in 16 bits, and would begin anew before long: nobody is to take it for one that has
 * just spoken. So both copies of it go.
 */
static bool flow_is_ancient(const struct counting *counting, const struct flow_view *flow)
{
	return flow_age(flow->value, counting->now) > UINT16_MAX / 2 &&
	       flow_expired(counting->dp, flow->value, counting->now);
}

/*
 * Counts a flow, or off, by its client's copy alone, as the packet path does. Whoever swaps it has to
 * change the load: unless that was a packet, which then has done so.
 */
static void flow_count(const struct flow_view *flow, void *data)
{
	const struct counting *counting = data;
	union xlb_flow_value after = flow->value;
	uint64_t expected = flow->value.word;
	bool counts, counted, swapped;
	uint32_t *load;

	if (flow_is_ancient(counting, flow)) {
		after.word = 0;
	} else {
		if (flow->reply || flow->key.service >= config_of(counting->dp)->services)
			return;
		after.counted = flow_counts(counting, flow);
	}
	if (after.word == expected)
		return;
	load = &backend_at(counting->dp, flow->value.backend)->load;
	counts = after.counted && !flow->reply;
	counted = flow->value.counted && !flow->reply;
	/* Never less than what there is: it would pass below 0. */
	if (counts && !counted)
		__atomic_add_fetch(load, 1, __ATOMIC_ACQ_REL);
	swapped = __atomic_compare_exchange_n(flow->word, &expected, after.word, false,
					      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	if (counts != counted && swapped != counts)
		__atomic_sub_fetch(load, 1, __ATOMIC_ACQ_REL);
}

int loads_settle(struct datapath *dp, uint32_t now, struct error *err)
{
	_cleanup_(free_pointer) bool *counts = calloc(2 * (size_t)config_of(dp)->services,
						      sizeof(*counts));
	struct counting counting = { .dp = dp, .now = now, .counts = counts };
	struct service *service;
	size_t cursor = 0;

	if (!loads_matter(dp))
		return 0;
	if (!counts)
		return error_set(err, ENOMEM, "out of memory");
	while ((service = model_next(dp->model, &cursor)))
		counts[service_key(dp, service->vip.family, service->id)] =
			service->scheduler == XLB_SCHEDULER_LC;
	return flows_each(dp, flow_count, &counting, err);
}
