// SPDX-License-Identifier: GPL-2.0
/*
 * Walking through the tables of flows, which belong to the packet path. It takes some 30 ms for a
 * million flows, so it is done seldom. Packets go on meanwhile: a flow may be gone, or another, as
 * soon as it was looked at, and whoever writes does so by compare-and-swap.
 */
#include <errno.h>

#include "datapath/internal.h"

struct table {
	enum map_id map;
	uint8_t family;
	uint32_t lines;	/* of one half */
	uint32_t words;	/* to a flow; the last two are key and value */
};

static int table_each(struct datapath *dp, const struct table *table,
		      void (*each)(const struct flow_view *flow, void *data), void *data,
		      struct error *err)
{
	uint64_t half = (uint64_t)table->lines * XLB_FLOW_WAYS;
	uint64_t *words = map_memory(dp, table->map, err);

	if (!words)
		return -errno;
	for (uint64_t i = 0; i < 2 * half; i++, words += table->words) {
		uint64_t *word = words + table->words - 1;
		struct flow_view flow = { .value.word = __atomic_load_n(word, __ATOMIC_ACQUIRE) };

		if (!flow.value.backend || flow.value.backend >= config_of(dp)->backends)
			continue;
		flow.word = word;
		flow.key.word = __atomic_load_n(word - 1, __ATOMIC_RELAXED);
		flow.family = table->family;
		flow.reply = i >= half;
		if (table->family == XLB_IPV6)
			flow.client = *(const struct xlb_address *)words;
		else
			flow.client.word[0] = flow.key.client;
		each(&flow, data);
	}
	return 0;
}

int flows_each(struct datapath *dp, void (*each)(const struct flow_view *flow, void *data),
	       void *data, struct error *err)
{
	const struct xlb_config *config = config_of(dp);
	struct table flows = { MAP_FLOWS, XLB_IPV4, config->flow_lines,
			       sizeof(struct xlb_flow) / 8 };
	struct table flows6 = { MAP_FLOWS6, XLB_IPV6, config->flow6_lines,
				sizeof(struct xlb_flow6) / 8 };
	int r = table_each(dp, &flows, each, data, err);

	return r ? r : table_each(dp, &flows6, each, data, err);
}

void flow_clear(const struct flow_view *flow)
{
	uint64_t expected = flow->value.word;

	__atomic_compare_exchange_n(flow->word, &expected, 0, false, __ATOMIC_ACQ_REL,
				    __ATOMIC_RELAXED);
}

union xlb_flow_value flow_rename(const struct flow_view *flow, uint32_t backend)
{
	union xlb_flow_value value = flow->value, renamed;

	do {
		if (value.backend != flow->value.backend)
			return (union xlb_flow_value){};
		renamed = value;
		renamed.backend = backend;
	} while (!__atomic_compare_exchange_n(flow->word, &value.word, renamed.word, false,
					      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
	return renamed;
}

/* Ticks that may pass, and packets come, between reading the time and reading a flow. */
#define TICKS_AHEAD 1024

uint32_t flow_age(union xlb_flow_value value, uint32_t now)
{
	uint16_t age = now - value.seen;

	return age > UINT16_MAX - TICKS_AHEAD ? 0 : age;
}

bool flow_expired(const struct datapath *dp, union xlb_flow_value value, uint32_t now)
{
	return flow_age(value, now) > config_of(dp)->timeouts[value.state];
}
