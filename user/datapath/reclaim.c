// SPDX-License-Identifier: GPL-2.0
/*
 * Giving back what retired backends still hold: their ids, and bits of the filter.
 *
 * An id may be given to another backend only after no flow names it and no packet is under way that
 * has read it. So: take them out of rings that are kept for flows from before, wait until all such
 * packets have left, clear the flows of retired backends, then free the ids. Reading a flow table
 * of a million flows takes some 30 ms, which is why it waits until ids are short.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include "datapath/internal.h"

#define QUIESCE_SLEEP_NS (50 * 1000 * 1000)

void quiesce(void)
{
	struct timespec while_longer = { .tv_nsec = QUIESCE_SLEEP_NS };

	/*
	 * MEMBARRIER_CMD_GLOBAL waits for an RCU grace period; XDP and tc programs run inside RCU
	 * read sections.
	 */
	if (!syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		return;
	/* Kernels with nohz_full refuse it. No packet takes that long. */
	while (nanosleep(&while_longer, &while_longer) && errno == EINTR)
		;
}

struct reclaiming {
	struct datapath *dp;
	bool *answers;	/* by id of a backend: it has flows whose replies pass us */
};

/* Clears flows whose backend is retired, and finds out who still answers. */
static void flow_look(const struct flow_view *flow, void *data)
{
	struct reclaiming *reclaiming = data;
	uint32_t id = flow->value.backend;

	/* The packet path may have ended it meanwhile; then it is not ours to clear. */
	if (backend_at(reclaiming->dp, id)->state == XLB_BACKEND_RETIRED)
		flow_clear(flow);
	else if (flow->value.forward <= XLB_FORWARD_DNAT)
		reclaiming->answers[id] = true;
}

/*
 * The filter, with no bits but those that are needed. Bits go one word at a time, and none that is
 * needed is ever missing.
 */
static int filter_renew(struct datapath *dp, const bool *answers, struct error *err)
{
	_cleanup_(free_pointer) uint64_t *fresh = calloc(XLB_FILTER_BITS / 64, sizeof(*fresh));
	uint64_t *bits = map_memory(dp, MAP_FILTER, err);
	struct service *service;
	size_t cursor = 0;

	if (!bits)
		return -errno;
	if (!fresh)
		return error_set(err, ENOMEM, "out of memory");
	while ((service = model_next(dp->model, &cursor))) {
		filter_set(dp, fresh, &service->vip, service->vip.protocol);
		for (size_t i = 0; i < service->n_backends; i++) {
			if (replies_pass(service) || answers[service->backends[i].id])
				filter_set(dp, fresh, &service->backends[i].endpoint,
					   service->vip.protocol);
			filter_set_tunnel(dp, fresh, service, &service->backends[i].endpoint);
		}
	}
	for (size_t i = 0; i < XLB_FILTER_BITS / 64; i++)
		if (bits[i] != fresh[i])
			__atomic_store_n(&bits[i], fresh[i], __ATOMIC_RELEASE);
	return 0;
}

int reclaim(struct datapath *dp, struct error *err)
{
	const struct xlb_config *config = config_of(dp);
	_cleanup_(free_pointer) bool *answers = calloc(config->backends, sizeof(*answers));
	struct reclaiming reclaiming = { .dp = dp, .answers = answers };
	int r;

	if (!answers)
		return error_set(err, ENOMEM, "out of memory");
	write_begin(dp);
	r = previous_forget_retired(dp, err);
	if (!r) {
		quiesce();
		r = flows_each(dp, flow_look, &reclaiming, err);
		/* And who has read an id from a flow. */
		quiesce();
	}
	if (!r)
		r = filter_renew(dp, answers, err);
	for (uint32_t id = config->backends - 1; !r && id; id--) {
		struct xlb_backend *entry = backend_at(dp, id);

		if (entry->state != XLB_BACKEND_RETIRED)
			continue;
		__atomic_store_n(&entry->state, XLB_BACKEND_FREE, __ATOMIC_RELEASE);
		id_pool_put(&dp->ids, id);
	}
	if (!r)
		dp->ids.retired = 0;
	write_end(dp);
	return r;
}
