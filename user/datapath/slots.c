// SPDX-License-Identifier: GPL-2.0
/*
 * `services` and `services6` as the packet path sees them: open-addressing tables, in which a VIP
 * stands at most XLB_SERVICE_PROBES slots behind its home.
 *
 * A deleted service leaves a tombstone, so that those behind it are still found; tombstones in
 * front of a free slot are of no use and are cleared at once.
 */
#include <arpa/inet.h>
#include <errno.h>

#include <xlb/hash.h>

#include "datapath/internal.h"

static struct xlb_service *slot4(const struct datapath *dp, uint32_t id)
{
	return (struct xlb_service *)dp->maps[MAP_SERVICES].memory + id;
}

static struct xlb_service6 *slot6(const struct datapath *dp, uint32_t id)
{
	return (struct xlb_service6 *)dp->maps[MAP_SERVICES6].memory + id;
}

/* Both kinds of slot have these fields. */
#define SLOT(service) \
	((struct slot){ (uint64_t *)&(service)->vip.word, &(service)->target, \
			&(service)->previous, &(service)->generation, &(service)->moved })

struct slot slot_at(const struct datapath *dp, uint8_t family, uint32_t id)
{
	return family == XLB_IPV6 ? SLOT(slot6(dp, id)) : SLOT(slot4(dp, id));
}

struct slot slot_of(const struct datapath *dp, const struct service *service)
{
	return slot_at(dp, service->vip.family, service->id);
}

static uint64_t slot_word(const struct datapath *dp, uint8_t family, uint32_t id)
{
	return __atomic_load_n(slot_at(dp, family, id).vip, __ATOMIC_ACQUIRE);
}

bool slot_live(const struct datapath *dp, uint8_t family, uint32_t id)
{
	uint64_t word = slot_word(dp, family, id);

	if (family == XLB_IPV6)
		return word && !((union xlb_vip6_tail){ .word = word }).tombstone;
	return word && !((union xlb_vip4){ .word = word }).tombstone;
}

void slot_vip(const struct datapath *dp, uint8_t family, uint32_t id, struct endpoint *ret_vip)
{
	uint64_t word = slot_word(dp, family, id);

	*ret_vip = (struct endpoint){ .family = family };
	if (family == XLB_IPV6) {
		union xlb_vip6_tail tail = { .word = word };

		ret_vip->address = slot6(dp, id)->address;
		ret_vip->port = ntohs(tail.port);
		ret_vip->protocol = tail.protocol;
	} else {
		union xlb_vip4 vip = { .word = word };

		ret_vip->address.word[0] = vip.address;
		ret_vip->port = ntohs(vip.port);
		ret_vip->protocol = vip.protocol;
	}
}

static uint64_t vip_word(const struct endpoint *vip)
{
	if (vip->family == XLB_IPV6)
		return (union xlb_vip6_tail){ .port = htons(vip->port),
					      .protocol = vip->protocol,
					      .live = 1 }
			.word;
	return (union xlb_vip4){ .address = vip->address.word[0],
				 .port = htons(vip->port),
				 .protocol = vip->protocol }
		.word;
}

static uint32_t vip_home(const struct datapath *dp, const struct endpoint *vip)
{
	const struct xlb_config *config = config_of(dp);
	uint64_t word = vip_word(vip);

	if (vip->family == XLB_IPV6)
		return xlb_hash_vip6(&vip->address, (union xlb_vip6_tail){ .word = word },
				     config->secret) &
		       (config->services - 1);
	return xlb_hash_vip4((union xlb_vip4){ .word = word }, config->secret) &
	       (config->services - 1);
}

/* Whether there are as many services of a family as were asked for; slots are strewn, and more. */
static bool family_full(const struct datapath *dp, uint8_t family)
{
	uint32_t most = services_asked_for(config_of(dp)), n = 0;
	struct service *service;
	size_t cursor = 0;

	if (model_count(dp->model) < most)
		return false;
	while ((service = model_next(dp->model, &cursor)))
		n += service->vip.family == family;
	return n >= most;
}

int slot_choose(const struct datapath *dp, const struct endpoint *vip, uint32_t *ret_id,
		struct error *err)
{
	uint32_t mask = config_of(dp)->services - 1, home = vip_home(dp, vip);
	uint32_t probes = family_full(dp, vip->family) ? 0 : XLB_SERVICE_PROBES;

	for (uint32_t i = 0; i < probes; i++) {
		uint32_t id = (home + i) & mask;

		if (!slot_live(dp, vip->family, id)) {
			*ret_id = id;
			return 0;
		}
	}
	return error_set(
		err, ENOSPC,
		"the map %s has no room for this service; `lbctl detach --all`, then attach with a larger --max-services (now %u)",
		map_name(vip->family == XLB_IPV6 ? MAP_SERVICES6 : MAP_SERVICES),
		services_asked_for(config_of(dp)));
}

void slot_publish(const struct datapath *dp, const struct endpoint *vip, uint32_t id)
{
	if (vip->family == XLB_IPV6)
		slot6(dp, id)->address = vip->address;
	__atomic_store_n(slot_at(dp, vip->family, id).vip, vip_word(vip), __ATOMIC_RELEASE);
}

void slot_withdraw(const struct datapath *dp, uint8_t family, uint32_t id)
{
	uint64_t tombstone = family == XLB_IPV6 ?
				     (union xlb_vip6_tail){ .tombstone = 1, .live = 1 }.word :
				     (union xlb_vip4){ .tombstone = 1 }.word;
	uint32_t mask = config_of(dp)->services - 1;

	__atomic_store_n(slot_at(dp, family, id).vip, tombstone, __ATOMIC_RELEASE);
	if (slot_word(dp, family, (id + 1) & mask))
		return;
	for (; slot_word(dp, family, id) == tombstone; id = (id - 1) & mask)
		__atomic_store_n(slot_at(dp, family, id).vip, 0, __ATOMIC_RELEASE);
}
