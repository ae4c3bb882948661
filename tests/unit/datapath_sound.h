/* SPDX-License-Identifier: GPL-2.0 */
/* What has to be so in the maps whenever nobody writes. */
#ifndef XLB_TESTS_DATAPATH_SOUND_H
#define XLB_TESTS_DATAPATH_SOUND_H

#include "datapath_world.h"

#include <signal.h>
#include <sys/wait.h>

#include <bpf/bpf.h>

#include <xlb/hash.h>

static inline bool stats_there(struct datapath *dp, uint32_t id)
{
	void *values = map_values_new(dp, MAP_BACKEND_STATS);
	bool there = !bpf_map_lookup_elem(dp->maps[MAP_BACKEND_STATS].fd, &id, values);

	free(values);
	return there;
}

static inline bool filter_has(struct datapath *dp, const struct endpoint *endpoint,
			      uint8_t protocol)
{
	const uint64_t *bits = map_memory(dp, MAP_FILTER, &err);
	uint64_t word =
		xlb_address_word(&endpoint->address, endpoint->family, config_of(dp)->secret);
	uint32_t bit = xlb_filter_bit(
		xlb_endpoint_mark(word, htons(endpoint->port), protocol, config_of(dp)->secret));

	return bits[bit / 64] >> bit % 64 & 1;
}

/* Looks a VIP up as the packet path does. */
static inline bool packets_find(struct datapath *dp, const struct service *service)
{
	const struct xlb_service *services = dp->maps[MAP_SERVICES].memory;
	const struct xlb_service6 *services6 = dp->maps[MAP_SERVICES6].memory;
	const struct xlb_config *config = config_of(dp);
	uint64_t word = *slot_at(dp, service->vip.family, service->id).vip;
	bool ipv6 = service->vip.family == XLB_IPV6;
	uint32_t home =
		ipv6 ? xlb_hash_vip6(&service->vip.address, (union xlb_vip6_tail){ .word = word },
				     config->secret) :
		       xlb_hash_vip4((union xlb_vip4){ .word = word }, config->secret);

	for (uint32_t i = 0; i < XLB_SERVICE_PROBES; i++) {
		uint32_t id = (home + i) & (config->services - 1);

		if (id == service->id)
			return true;
		if (!(ipv6 ? services6[id].vip.word : services[id].vip.word))
			return false;
	}
	return false;
}

static inline void assert_all_found(struct datapath *dp)
{
	struct service *service;
	size_t cursor = 0;

	while ((service = model_next(datapath_model(dp), &cursor)))
		assert_true(packets_find(dp, service));
}

/* What a service remembers of before (see rings.c). */
static inline void assert_memory_sound(struct datapath *dp, const struct service *service,
				       struct slot slot)
{
	bool hashed = service->scheduler == XLB_SCHEDULER_MAGLEV ||
		      service->scheduler == XLB_SCHEDULER_SOURCE;

	assert_int_equal(slot.target->stateless, service->forward >= XLB_FORWARD_L2 && hashed &&
							 !service->affinity_s);
	if (*slot.moved)
		return;
	assert_int_equal(marks_of(dp, service->vip), 0);
	assert_int_equal(slot.previous->stateless, slot.target->stateless);
	if (!slot.target->stateless)
		assert_int_equal(slot.previous->word, 0);
}

static inline struct xlb_vip vip_entry(struct datapath *dp, const struct endpoint *vip)
{
	struct xlb_address key = vip->address;
	struct xlb_vip entry = {};

	if (vip->family == XLB_IPV4)
		key = (struct xlb_address){ { 0, 0, htonl(0xffff), vip->address.word[0] } };
	bpf_map_lookup_elem(dp->maps[MAP_VIPS].fd, &key, &entry);
	return entry;
}

static inline void assert_vip_sound(struct datapath *dp, const struct service *service)
{
	struct xlb_vip entry = vip_entry(dp, &service->vip);
	const struct service *other;
	uint32_t services = 0, echo = 1;
	size_t cursor = 0;

	while ((other = model_next(datapath_model(dp), &cursor))) {
		if (other->vip.family != service->vip.family ||
		    memcmp(&other->vip.address, &service->vip.address, sizeof(other->vip.address)))
			continue;
		services++;
		echo &= !other->no_echo;
	}
	assert_int_equal(entry.services, services);
	assert_int_equal(entry.echo, echo);
}

static inline uint32_t elements_of(struct datapath *dp, enum map_id id)
{
	char key[64], next[64];
	uint32_t n = 0;

	for (bool more = !bpf_map_get_next_key(dp->maps[id].fd, NULL, key); more; n++) {
		more = !bpf_map_get_next_key(dp->maps[id].fd, key, next);
		memcpy(key, next, sizeof(key));
	}
	return n;
}

static inline void assert_service_sound(struct datapath *dp, struct service *service, bool *known)
{
	struct slot slot = slot_at(dp, service->vip.family, service->id);
	uint32_t able = 0, placed = 0;

	assert_int_equal(*slot.generation & 1, 0);
	assert_true(packets_find(dp, service));
	assert_true(filter_has(dp, &service->vip, service->vip.protocol));
	for (size_t i = 0; i < service->n_backends; i++) {
		struct backend *backend = &service->backends[i];
		struct xlb_backend *entry = backend_at(dp, backend->id);
		bool takes = backend->state == XLB_BACKEND_ACTIVE && backend->weight;
		uint32_t share = in_ring(dp, service->vip, backend->id);

		known[backend->id] = true;
		able += takes;
		placed += share;
		assert_int_equal(!!share, takes);
		assert_true(stats_there(dp, backend->id));
		if (replies_pass(service))
			assert_true(filter_has(dp, &backend->endpoint, service->vip.protocol));
		assert_int_equal(entry->vip_family, service->vip.family);
		assert_int_equal(entry->family, backend->endpoint.family);
		assert_int_equal(entry->state, backend->state);
		assert_int_equal(entry->weight, backend->weight);
		assert_int_equal(entry->service, service->id);
		assert_memory_equal(&entry->vip, &service->vip.address, sizeof(entry->vip));
	}
	/* Nobody else is in the ring. */
	assert_int_equal(placed, slot.target->ring_size);
	assert_int_equal(!!slot.target->ring_size, !!able);
	assert_int_equal(slot.target->scheduler, service->scheduler);
	assert_int_equal(slot.target->forward, service->forward);
	assert_int_equal(slot.target->ranges, service->n_ranges != 0);
	assert_int_equal(slot.target->options, service->affinity_s || service->mss);
	assert_memory_sound(dp, service, slot);
	assert_vip_sound(dp, service);
}

/* How many ranges of their own families all services have. */
static inline uint32_t ranges_of_all(struct datapath *dp)
{
	const struct service *service;
	size_t cursor = 0;
	uint32_t n = 0;

	while ((service = model_next(datapath_model(dp), &cursor)))
		for (size_t i = 0; service_next_range(service, &i);)
			n++;
	return n;
}

/* What has to be so whenever nobody writes, whatever happened before. */
static inline void assert_sound(struct datapath *dp)
{
	_cleanup_(free_pointer) bool *known = calloc(config_of(dp)->backends, sizeof(*known));
	struct datapath *reader = open_again();
	struct service *service;
	size_t cursor = 0;

	assert_int_equal(config_of(dp)->generation & 1, 0);
	while ((service = model_next(datapath_model(reader), &cursor)))
		assert_service_sound(reader, service, known);
	for (uint32_t id = 1; id < config_of(dp)->backends; id++) {
		uint8_t state = backend_at(dp, id)->state;

		assert_int_equal(known[id],
				 state != XLB_BACKEND_FREE && state != XLB_BACKEND_RETIRED);
		assert_int_equal(stats_there(dp, id), known[id]);
	}
	assert_int_equal(elements_of(dp, MAP_RANGES) + elements_of(dp, MAP_RANGES6),
			 ranges_of_all(reader));
	/* What this process believes is what a new one reads. */
	assert_int_equal(model_count(dp->model), model_count(reader->model));
	for (cursor = 0; (service = model_next(dp->model, &cursor));) {
		struct service_change change;

		assert_false(
			service_diff(model_find(reader->model, &service->vip), service, &change));
	}
	assert_int_equal(dp->ring_lines.used, reader->ring_lines.used);
	assert_int_equal(dp->ids.n, reader->ids.n);
	assert_int_equal(dp->ids.retired, reader->ids.retired);
	datapath_close(reader);
}

/*
 * kill -9 at any moment: the next writer finds or makes everything sound. `writer` changes things
 * until it is killed.
 */
static inline void assert_survives_kills(void (*writer)(void), unsigned int seed)
{
	/* Large enough that little time goes into collecting ids. */
	struct datapath *dp =
		make((struct datapath_sizes){ .services = 16, .backends = 4096, .flows = 1024 });
	int repaired = 0;

	datapath_unlock(dp);
	srandom(seed);
	for (int i = 0; i < 150; i++) {
		pid_t child = fork();

		if (!child)
			writer();
		usleep(20000 + random() % 10000);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		repaired += config_of(dp)->generation & 1;
		ok(datapath_lock(dp, NULL, &err));
		assert_sound(dp);
		datapath_unlock(dp);
	}
	print_message("%d of 150 were killed in the middle of a change\n", repaired);
	assert_true(repaired > 10);
	unmake(dp);
}

#endif
