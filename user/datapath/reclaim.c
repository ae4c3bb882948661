// SPDX-License-Identifier: GPL-2.0
/*
 * Giving back what retired backends still hold: their ids, and bits of the filter.
 *
 * An id may be given to another backend only after no flow names it and no packet is under way that
 * has read it. So: wait until all such packets have left, clear the flows of retired backends, then
 * free the ids. Reading a flow table of a million flows takes some 30 ms, which is why it waits
 * until ids are short.
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

/* Clears flows whose backend is retired. `words` to a flow, of which the last is its value. */
static void flows_clear(const struct datapath *dp, uint64_t *flows, uint64_t n, uint32_t words)
{
	uint32_t backends = config_of(dp)->backends;

	for (uint64_t i = words - 1; i < n * words; i += words) {
		union xlb_flow_value value = { .word = __atomic_load_n(&flows[i],
								       __ATOMIC_RELAXED) };
		uint64_t expected = value.word;

		if (!value.backend || value.backend >= backends ||
		    backend_at(dp, value.backend)->state != XLB_BACKEND_RETIRED)
			continue;
		/* The packet path may have ended it meanwhile; then it is not ours to clear. */
		__atomic_compare_exchange_n(&flows[i], &expected, 0, false, __ATOMIC_ACQ_REL,
					    __ATOMIC_RELAXED);
	}
}

/*
 * The filter, with no bits but those that are needed. Bits go one word at a time, and none that is
 * needed is ever missing.
 */
static int filter_renew(struct datapath *dp, struct error *err)
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
		for (size_t i = 0; i < service->n_backends; i++)
			filter_set(dp, fresh, &service->backends[i].endpoint,
				   service->vip.protocol);
	}
	for (size_t i = 0; i < XLB_FILTER_BITS / 64; i++)
		if (bits[i] != fresh[i])
			__atomic_store_n(&bits[i], fresh[i], __ATOMIC_RELEASE);
	return 0;
}

int reclaim(struct datapath *dp, struct error *err)
{
	const struct xlb_config *config = config_of(dp);
	uint64_t *flows = map_memory(dp, MAP_FLOWS, err);
	uint64_t *flows6 = flows ? map_memory(dp, MAP_FLOWS6, err) : NULL;
	int r;

	if (!flows6)
		return -errno;
	write_begin(dp);
	r = filter_renew(dp, err);
	if (r) {
		write_end(dp);
		return r;
	}
	quiesce();
	flows_clear(dp, flows, 2ull * config->flow_lines * XLB_FLOW_WAYS,
		    sizeof(struct xlb_flow) / sizeof(*flows));
	flows_clear(dp, flows6, 2ull * config->flow6_lines * XLB_FLOW_WAYS,
		    sizeof(struct xlb_flow6) / sizeof(*flows6));
	for (uint32_t id = config->backends - 1; id; id--) {
		struct xlb_backend *entry = backend_at(dp, id);

		if (entry->state != XLB_BACKEND_RETIRED)
			continue;
		__atomic_store_n(&entry->state, XLB_BACKEND_FREE, __ATOMIC_RELEASE);
		id_pool_put(&dp->ids, id);
	}
	dp->ids.retired = 0;
	write_end(dp);
	return 0;
}
