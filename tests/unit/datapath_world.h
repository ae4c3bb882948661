/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A pin directory in the sandbox that scripts/run-tests makes, and services to put into it. Outside
 * of a sandbox nothing is touched: the tests are skipped.
 */
#ifndef XLB_TESTS_DATAPATH_WORLD_H
#define XLB_TESTS_DATAPATH_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "datapath/internal.h"
#include "sharing.h"
#include "skipping.h"

#define PIN_DIR "/sys/fs/bpf/xlb"

static struct error err;

static inline bool in_sandbox(void)
{
	return getenv("XLB_IN_SANDBOX");
}

/* Before each test: a BPF file system of its own, whatever a failed one left in the last. */
static inline int fresh_bpffs(void **state)
{
	(void)state;
	umount2("/sys/fs/bpf", MNT_DETACH);
	return mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL);
}

#define TEST(function) cmocka_unit_test_setup(function, fresh_bpffs)

static inline void run(const char *command)
{
	if (system(command))
		fail_msg("failed: %s", command);
}

static inline bool runs(const char *command)
{
	return !system(command);
}

static inline void ok(int r)
{
	if (r)
		fail_msg("%d: %s", r, err.text);
}

static inline struct datapath *make(struct datapath_sizes sizes)
{
	struct datapath *dp;

	ok(datapath_create(PIN_DIR, &sizes, &dp, &err));
	ok(datapath_lock(dp, NULL, &err));
	return dp;
}

static inline struct datapath *make_small(void)
{
	return make((struct datapath_sizes){ .services = 16, .backends = 64, .flows = 1024 });
}

/* Another process's view of the same maps. */
static inline struct datapath *open_again(void)
{
	struct datapath *dp;

	ok(datapath_open(PIN_DIR, &dp, &err));
	return dp;
}

static inline void unmake(struct datapath *dp)
{
	ok(datapath_lock(dp, NULL, &err));
	for (size_t i = dp->n_devices; i > 0; i--) {
		char name[IF_NAMESIZE];

		if (i <= dp->n_devices && dp->devices[i - 1].entry.flags & XLB_DEVICE_XDP &&
		    if_indextoname(dp->devices[i - 1].ifindex, name))
			ok(datapath_detach(dp, name, &err));
	}
	ok(datapath_destroy(dp, &err));
	datapath_close(dp);
}

static inline struct endpoint vip_of(uint32_t number)
{
	return (struct endpoint){
		.address.word[0] = htonl(0xc6336400 + number),
		.port = 80,
		.family = XLB_IPV4,
		.protocol = XLB_TCP,
	};
}

static inline struct endpoint vip6_of(uint32_t number)
{
	return (struct endpoint){
		.address.word = { htonl(0x20010db8), 0, 0, htonl(number) },
		.port = 80,
		.family = XLB_IPV6,
		.protocol = XLB_UDP,
	};
}

/* 10.0.N / 256.N % 256, or 2001:db8:1::N. */
static inline struct backend backend_of(uint8_t family, uint32_t number)
{
	struct backend backend = {
		.endpoint = { .port = 8080, .family = family },
		.weight = 1,
		.state = XLB_BACKEND_ACTIVE,
	};

	if (family == XLB_IPV6) {
		backend.endpoint.address.word[0] = htonl(0x20010db8);
		backend.endpoint.address.word[1] = htonl(0x00010000);
		backend.endpoint.address.word[3] = htonl(number);
	} else {
		backend.endpoint.address.word[0] = htonl(0x0a000000 + number);
	}
	return backend;
}

static inline void backend_put(struct service *service, uint32_t number, uint16_t weight,
			       uint8_t state)
{
	struct backend backend = backend_of(service->vip.family, number);

	backend.weight = weight;
	backend.state = state;
	assert_int_equal(service_set_backend(service, &backend), 0);
}

static inline void backend_drop(struct service *service, uint32_t number)
{
	struct backend backend = backend_of(service->vip.family, number);

	service_remove_backend(service, &backend.endpoint);
}

/* A wish: n backends from `first` on. */
static inline struct service *service_of(struct endpoint vip, uint32_t first, uint32_t n)
{
	struct service *service = calloc(1, sizeof(*service));

	assert_non_null(service);
	service->vip = vip;
	for (uint32_t i = 0; i < n; i++)
		backend_put(service, first + i, 1, XLB_BACKEND_ACTIVE);
	return service;
}

static inline void apply(struct datapath *dp, const struct service *service)
{
	ok(datapath_apply(dp, &service->vip, service, &err));
}

static inline uint32_t id_of(struct datapath *dp, struct endpoint vip, uint32_t number)
{
	const struct service *service = model_find(datapath_model(dp), &vip);
	struct backend backend = backend_of(vip.family, number), *here;

	if (!service)
		return 0;
	here = service_find_backend(service, &backend.endpoint);
	return here ? here->id : 0;
}

static inline union xlb_service_target target_of(struct datapath *dp, struct endpoint vip)
{
	const struct service *service = model_find(datapath_model(dp), &vip);

	assert_non_null(service);
	return *slot_at(dp, vip.family, service->id).target;
}

/* How often an id stands in the ring that packets see. */
static inline uint32_t in_ring(struct datapath *dp, struct endpoint vip, uint32_t id)
{
	union xlb_service_target target = target_of(dp, vip);
	const uint32_t *slots = map_memory(dp, MAP_RINGS, &err);
	uint32_t n = 0;

	for (uint32_t i = 0; i < target.ring_size; i++)
		n += (slots[target.ring_line * XLB_RING_LINE + i] & ~XLB_RING_MOVED) == id;
	return n;
}

/* How many slots of the ring that packets see have the mark. */
static inline uint32_t marks_of(struct datapath *dp, struct endpoint vip)
{
	union xlb_service_target target = target_of(dp, vip);
	const uint32_t *slots = ring_slots_at(dp, target, &err);
	uint32_t n = 0;

	for (uint32_t i = 0; i < target.ring_size; i++)
		n += slots[i] >> 31;
	return n;
}

/* A flow as the packet path keeps it, in some slot of the clients' half. */
static inline void flow_put_of(struct datapath *dp, uint32_t place, const struct endpoint *vip,
			       struct endpoint client, union xlb_flow_value value)
{
	const struct service *service = model_find(datapath_model(dp), vip);
	bool ipv6 = vip->family == XLB_IPV6;
	uint64_t *words = map_memory(dp, ipv6 ? MAP_FLOWS6 : MAP_FLOWS, &err);
	union xlb_flow_key key = { .port = htons(client.port), .service = service->id };

	words += place * (ipv6 ? 4 : 2);
	if (ipv6) {
		memcpy(words, &client.address, sizeof(client.address));
		words += 2;
	} else {
		key.client = client.address.word[0];
	}
	words[0] = key.word;
	words[1] = value.word;
}

#endif
