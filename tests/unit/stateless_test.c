// SPDX-License-Identifier: GPL-2.0
/* Services without flow state: what is remembered of a change, for whom, and how long. */
#include "datapath_sound.h"
#include "model/ring.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

/* Backends keep the VIP's port. */
static struct backend near_of(uint8_t family, uint32_t number)
{
	struct backend backend = backend_of(family, number);

	backend.endpoint.port = 80;
	return backend;
}

static void near_put(struct service *service, uint32_t number, uint16_t weight, uint8_t state)
{
	struct backend backend = near_of(service->vip.family, number);

	backend.weight = weight;
	backend.state = state;
	assert_int_equal(service_set_backend(service, &backend), 0);
}

static void near_drop(struct service *service, uint32_t number)
{
	struct backend backend = near_of(service->vip.family, number);

	service_remove_backend(service, &backend.endpoint);
}

static uint32_t near_id(struct datapath *dp, struct endpoint vip, uint32_t number)
{
	struct backend backend = near_of(vip.family, number), *here;

	here = service_find_backend(model_find(datapath_model(dp), &vip), &backend.endpoint);
	return here ? here->id : 0;
}

static struct service *direct_of(struct endpoint vip, uint32_t n)
{
	struct service *service = service_of(vip, 0, 0);

	service->forward = XLB_FORWARD_IPIP;
	for (uint32_t i = 0; i < n; i++)
		near_put(service, i, 1, XLB_BACKEND_ACTIVE);
	return service;
}

static struct slot slot_here(struct datapath *dp, const struct service *wish)
{
	return slot_of(dp, model_find(datapath_model(dp), &wish->vip));
}

/* A ring as it is now. */
struct picture {
	union xlb_service_target target;
	uint32_t slots[4096];
};

static void picture_take(struct datapath *dp, const struct service *wish, struct picture *picture)
{
	picture->target = target_of(dp, wish->vip);
	assert_true(picture->target.ring_size <= 4096);
	memcpy(picture->slots, ring_slots_at(dp, picture->target, &err),
	       picture->target.ring_size * sizeof(picture->slots[0]));
}

/* The marks of the ring in force are those of what changed since a picture. */
static void assert_marked_since(struct datapath *dp, const struct service *wish,
				const struct picture *before)
{
	const uint32_t *slots = ring_slots_at(dp, target_of(dp, wish->vip), &err);
	uint32_t n = target_of(dp, wish->vip).ring_size;
	_cleanup_(free_pointer) uint32_t *expected = calloc(n + 1, sizeof(*expected));

	for (uint32_t i = 0; i < n; i++)
		expected[i] = slots[i] & ~XLB_RING_MOVED;
	ring_mark_moved(before->slots, before->target.ring_size, expected, n);
	assert_memory_equal(slots, expected, n * sizeof(*slots));
}

static uint32_t now_of(struct datapath *dp)
{
	uint32_t now;

	ok(tick_get(dp, &now, &err));
	return now;
}

/* As if that many ticks had gone by since the last change. */
static void long_ago(struct datapath *dp, const struct service *wish, uint32_t ticks)
{
	assert_int_not_equal(*slot_here(dp, wish).moved, 0);
	*slot_here(dp, wish).moved = (now_of(dp) - ticks) | 1u << 31;
}

/* As if there were traffic: services without any have no flows. */
static void had_packets(struct datapath *dp, const struct service *wish)
{
	const struct service *service = model_find(datapath_model(dp), &wish->vip);
	uint32_t key = service_key(dp, service->vip.family, service->id);
	struct xlb_service_stats *stats = map_values_new(dp, MAP_SERVICE_STATS);

	stats[dp->cpus - 1].to_backend.packets = 1;
	assert_int_equal(
		bpf_map_update_elem(dp->maps[MAP_SERVICE_STATS].fd, &key, stats, BPF_ANY), 0);
	free(stats);
}

static void settle_after(struct datapath *dp, const struct service *wish, uint32_t ticks)
{
	long_ago(dp, wish, ticks);
	ok(datapath_settle(dp, &err));
}

#define LONG(dp) (config_of(dp)->timeouts[XLB_FLOW_ESTABLISHED] + 2u)

static uint32_t long_of(const struct datapath *dp, const struct endpoint *vip)
{
	return vip->protocol == XLB_UDP ? config_of(dp)->timeouts[XLB_FLOW_STREAM] + 2u : LONG(dp);
}

static void a_tick_is_the_kernels(void **state)
{
	struct datapath *dp = make_small();
	const struct xlb_config *config = config_of(dp);
	struct timespec since_boot;
	uint64_t jiffies;
	uint32_t tick;

	(void)state;
	ok(tick_get(dp, &tick, &err));
	assert_true(tick >> 31);
	/* Jiffies begin 300 s before they would need a 33rd bit. */
	clock_gettime(CLOCK_MONOTONIC_COARSE, &since_boot);
	jiffies = (uint32_t)(-300 * (int)config->hz) + since_boot.tv_sec * (uint64_t)config->hz +
		  since_boot.tv_nsec / (1000000000 / config->hz);
	assert_true(tick_since((uint32_t)(jiffies >> config->tick_shift) - 2, tick) < 5);
	assert_int_equal(tick_since(1u << 31 | 0x7fffffff, 1u << 31 | 1), 2);
	unmake(dp);
}

static void a_new_service_has_nothing_to_remember(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 3);

	(void)state;
	apply(dp, wish);
	assert_true(target_of(dp, wish->vip).stateless);
	assert_int_equal(marks_of(dp, wish->vip), 0);
	assert_int_equal(*slot_here(dp, wish).moved, 0);
	assert_int_equal(slot_here(dp, wish).previous->word, target_of(dp, wish->vip).word);
	assert_false(datapath_unsettled(dp));
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void only_hashes_do_without_state(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 2);

	(void)state;
	for (uint8_t forward = 0; forward < XLB_FORWARDS; forward++)
		for (uint8_t scheduler = 0; scheduler < XLB_SCHEDULERS; scheduler++)
			for (uint32_t affinity = 0; affinity < 2; affinity++) {
				bool hashes = scheduler == XLB_SCHEDULER_MAGLEV ||
					      scheduler == XLB_SCHEDULER_SOURCE;

				if (forward == XLB_FORWARD_L2)
					continue; /* needs a route; the rule is the same */
				wish->forward = forward;
				wish->scheduler = scheduler;
				wish->affinity_s = affinity;
				apply(dp, wish);
				assert_int_equal(target_of(dp, wish->vip).stateless,
						 forward > XLB_FORWARD_L2 && hashes && !affinity);
				assert_sound(dp);
			}
	service_free(wish);
	unmake(dp);
}

static void what_moved_is_marked_and_the_old_ring_kept(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 3);
	struct picture first, second;
	uint32_t lines;

	(void)state;
	apply(dp, wish);
	picture_take(dp, wish, &first);
	near_put(wish, 3, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_marked_since(dp, wish, &first);
	assert_in_range(marks_of(dp, wish->vip), first.target.ring_size / 5,
			first.target.ring_size / 2);
	assert_int_equal(slot_here(dp, wish).previous->word, first.target.word);
	assert_memory_equal(ring_slots_at(dp, first.target, &err), first.slots,
			    first.target.ring_size * sizeof(uint32_t));
	assert_true(tick_since(*slot_here(dp, wish).moved, now_of(dp)) < 3);
	assert_true(datapath_unsettled(dp));
	assert_int_equal(dp->ring_lines.used,
			 ring_lines_of(first.target) + ring_lines_of(target_of(dp, wish->vip)));
	assert_sound(dp);
	/* Again: marks add up, the ring between is given back, the first one stays. */
	picture_take(dp, wish, &second);
	long_ago(dp, wish, 100);
	near_drop(wish, 0);
	apply(dp, wish);
	assert_marked_since(dp, wish, &second);
	assert_int_equal(slot_here(dp, wish).previous->word, first.target.word);
	assert_true(tick_since(*slot_here(dp, wish).moved, now_of(dp)) < 3);
	lines = ring_lines_of(first.target) + ring_lines_of(target_of(dp, wish->vip));
	assert_int_equal(dp->ring_lines.used, lines);
	assert_sound(dp);
	/* What is as it was is not as if nothing had been. */
	near_put(wish, 0, 1, XLB_BACKEND_ACTIVE);
	near_drop(wish, 3);
	apply(dp, wish);
	assert_true(marks_of(dp, wish->vip) > 0);
	assert_sound(dp);
	ok(datapath_apply(dp, &wish->vip, NULL, &err));
	assert_int_equal(dp->ring_lines.used, 0);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void a_change_that_moves_nothing_leaves_nothing(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 3);
	union xlb_service_target first;

	(void)state;
	apply(dp, wish);
	first = target_of(dp, wish->vip);
	wish->forward = XLB_FORWARD_GUE;
	apply(dp, wish);
	assert_int_equal(target_of(dp, wish->vip).ring_line, first.ring_line);
	assert_int_equal(slot_here(dp, wish).previous->word, target_of(dp, wish->vip).word);
	/* Another ring, with the same shares. */
	for (uint32_t i = 0; i < 3; i++)
		near_put(wish, i, 7, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_int_not_equal(target_of(dp, wish->vip).ring_line, first.ring_line);
	assert_int_equal(marks_of(dp, wish->vip), 0);
	assert_int_equal(*slot_here(dp, wish).moved, 0);
	assert_int_equal(slot_here(dp, wish).previous->word, target_of(dp, wish->vip).word);
	assert_int_equal(dp->ring_lines.used, ring_lines_of(first));
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void flow_state_comes_and_goes(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 3);
	struct picture direct;

	(void)state;
	wish->forward = XLB_FORWARD_DNAT;
	apply(dp, wish);
	assert_int_equal(slot_here(dp, wish).previous->word, 0);
	/* All flows are in the table: every slot has to look there. */
	wish->forward = XLB_FORWARD_IPIP;
	apply(dp, wish);
	assert_int_equal(marks_of(dp, wish->vip), target_of(dp, wish->vip).ring_size);
	assert_int_equal(slot_here(dp, wish).previous->word, 0);
	assert_int_not_equal(*slot_here(dp, wish).moved, 0);
	assert_sound(dp);
	settle_after(dp, wish, LONG(dp));
	assert_int_equal(marks_of(dp, wish->vip), 0);
	assert_sound(dp);
	/* None is in the table: where they go is remembered. */
	picture_take(dp, wish, &direct);
	wish->forward = XLB_FORWARD_DNAT;
	apply(dp, wish);
	assert_int_equal(slot_here(dp, wish).previous->word, direct.target.word);
	assert_int_not_equal(*slot_here(dp, wish).moved, 0);
	assert_sound(dp);
	/* Also over changes in between. */
	near_put(wish, 7, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	wish->scheduler = XLB_SCHEDULER_LC;
	apply(dp, wish);
	assert_int_equal(slot_here(dp, wish).previous->word, direct.target.word);
	assert_memory_equal(ring_slots_at(dp, direct.target, &err), direct.slots,
			    direct.target.ring_size * sizeof(uint32_t));
	assert_sound(dp);
	settle_after(dp, wish, LONG(dp));
	assert_int_equal(slot_here(dp, wish).previous->word, 0);
	assert_int_equal(*slot_here(dp, wish).moved, 0);
	assert_int_equal(dp->ring_lines.used, ring_lines_of(target_of(dp, wish->vip)));
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void another_hash_moves_everything(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip6_of(1), 3);
	union xlb_service_target first;

	(void)state;
	apply(dp, wish);
	first = target_of(dp, wish->vip);
	wish->scheduler = XLB_SCHEDULER_SOURCE;
	apply(dp, wish);
	assert_int_equal(marks_of(dp, wish->vip), target_of(dp, wish->vip).ring_size);
	assert_int_equal(slot_here(dp, wish).previous->word, first.word);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

/* Those who take no new flows may have old ones. */
static void nobody_and_back(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 2);
	union xlb_service_target first;

	(void)state;
	apply(dp, wish);
	first = target_of(dp, wish->vip);
	for (uint32_t i = 0; i < 2; i++)
		near_put(wish, i, 0, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_int_equal(target_of(dp, wish->vip).ring_size, 0);
	assert_int_equal(slot_here(dp, wish).previous->word, first.word);
	assert_int_not_equal(*slot_here(dp, wish).moved, 0);
	assert_sound(dp);
	for (uint32_t i = 0; i < 2; i++)
		near_put(wish, i, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_int_equal(marks_of(dp, wish->vip), target_of(dp, wish->vip).ring_size);
	assert_int_equal(slot_here(dp, wish).previous->word, first.word);
	assert_sound(dp);
	settle_after(dp, wish, LONG(dp));
	assert_int_equal(marks_of(dp, wish->vip), 0);
	assert_int_equal(dp->ring_lines.used, ring_lines_of(first));
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

/* ---- settling ---- */

/* The number of a client (its port) that falls on a slot with the mark, or without. */
static struct endpoint client_on(struct datapath *dp, const struct service *wish, bool marked,
				 uint16_t from)
{
	union xlb_service_target target = target_of(dp, wish->vip);
	const uint32_t *slots = ring_slots_at(dp, target, &err);
	struct endpoint client = vip_of(77);

	client.family = wish->vip.family;
	if (client.family == XLB_IPV6)
		client.address = vip6_of(77).address;
	for (client.port = from; client.port; client.port++) {
		__be16 port = target.scheduler == XLB_SCHEDULER_SOURCE ? 0 : htons(client.port);
		uint32_t hash;

		/* Another address where the port does not count. */
		client.address.word[3] = client.family == XLB_IPV6 ? htonl(client.port) : 0;
		if (client.family == XLB_IPV4)
			client.address.word[0] = htonl(0x0a640000 + client.port);
		hash = xlb_hash_ring(&client.address, port, client.family, config_of(dp)->seed);
		if (slots[(uint64_t)hash * target.ring_size >> 32] >> 31 == marked)
			return client;
	}
	fail_msg("no such client");
	return client;
}

static uint32_t slot_number(struct datapath *dp, const struct service *wish,
			    struct endpoint client)
{
	union xlb_service_target target = target_of(dp, wish->vip);
	__be16 port = target.scheduler == XLB_SCHEDULER_SOURCE ? 0 : htons(client.port);
	uint32_t hash = xlb_hash_ring(&client.address, port, client.family, config_of(dp)->seed);

	return (uint64_t)hash * target.ring_size >> 32;
}

static uint32_t slot_entry(struct datapath *dp, const struct service *wish, struct endpoint client)
{
	return ring_slots_at(dp, target_of(dp, wish->vip), &err)[slot_number(dp, wish, client)];
}

static union xlb_flow_value flow_of(struct datapath *dp, uint32_t backend, uint8_t flow_state)
{
	return (union xlb_flow_value){ .backend = backend,
				       .state = flow_state,
				       .forward = XLB_FORWARD_IPIP,
				       .seen = now_of(dp) };
}

/* One flow is where it always was, while the ring says another backend; one is where it says. */
static void settle_with_flows(struct endpoint vip, uint8_t scheduler)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip, 3);
	struct endpoint stays, fits, over;
	union xlb_flow_value value;
	uint32_t old, lines;

	wish->scheduler = scheduler;
	apply(dp, wish);
	near_put(wish, 3, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	old = near_id(dp, vip, 0);
	lines = ring_lines_of(*slot_here(dp, wish).previous) +
		ring_lines_of(target_of(dp, vip));
	stays = client_on(dp, wish, true, 1000);
	while ((slot_entry(dp, wish, stays) & ~XLB_RING_MOVED) == old)
		stays = client_on(dp, wish, true, stays.port + 1);
	fits = client_on(dp, wish, true, stays.port + 1);
	while (slot_number(dp, wish, fits) == slot_number(dp, wish, stays))
		fits = client_on(dp, wish, true, fits.port + 1);
	over = client_on(dp, wish, true, fits.port + 1);
	while (slot_number(dp, wish, over) == slot_number(dp, wish, stays))
		over = client_on(dp, wish, true, over.port + 1);
	flow_put_of(dp, 10, &vip, stays, flow_of(dp, old, XLB_FLOW_ESTABLISHED));
	flow_put_of(dp, 11, &vip, fits, flow_of(dp, slot_entry(dp, wish, fits) & ~XLB_RING_MOVED,
				    XLB_FLOW_ESTABLISHED));
	/* Its time is over, though nobody took its place. */
	value = flow_of(dp, old, XLB_FLOW_CLOSED);
	value.seen = now_of(dp) - config_of(dp)->timeouts[XLB_FLOW_CLOSED] - 5;
	flow_put_of(dp, 12, &vip, over, value);

	/* Too early: nothing happens. */
	had_packets(dp, wish);
	settle_after(dp, wish, long_of(dp, &vip) - 10);
	assert_true(marks_of(dp, vip) > 1);
	assert_int_equal(dp->ring_lines.used, lines);
	settle_after(dp, wish, long_of(dp, &vip));
	assert_int_equal(marks_of(dp, vip), 1);
	assert_true(slot_entry(dp, wish, stays) & XLB_RING_MOVED);
	assert_int_equal(slot_here(dp, wish).previous->word, target_of(dp, vip).word);
	assert_int_equal(dp->ring_lines.used, ring_lines_of(target_of(dp, vip)));
	assert_true(tick_since(*slot_here(dp, wish).moved, now_of(dp)) < 3);
	assert_sound(dp);
	/* It has ended. */
	flow_put_of(dp, 10, &vip, stays, (union xlb_flow_value){});
	settle_after(dp, wish, long_of(dp, &vip));
	assert_int_equal(marks_of(dp, vip), 0);
	assert_int_equal(*slot_here(dp, wish).moved, 0);
	assert_false(datapath_unsettled(dp));
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void flows_that_are_elsewhere_keep_their_slots_marked(void **state)
{
	(void)state;
	settle_with_flows(vip_of(1), XLB_SCHEDULER_MAGLEV);
	settle_with_flows(vip6_of(1), XLB_SCHEDULER_MAGLEV);
	settle_with_flows(vip_of(1), XLB_SCHEDULER_SOURCE);
}

static void others_flows_do_not_count(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 3), *other = direct_of(vip_of(2), 1);
	struct endpoint client;

	(void)state;
	apply(dp, wish);
	apply(dp, other);
	near_drop(wish, 0);
	apply(dp, wish);
	client = client_on(dp, wish, true, 1000);
	flow_put_of(dp, 10, &other->vip, client,
		    flow_of(dp, near_id(dp, other->vip, 0), XLB_FLOW_ESTABLISHED));
	/* Nor what stands in the half of the replies. */
	flow_put_of(dp, config_of(dp)->flow_lines * XLB_FLOW_WAYS + 10, &wish->vip, client,
		    flow_of(dp, near_id(dp, other->vip, 0), XLB_FLOW_ESTABLISHED));
	settle_after(dp, wish, LONG(dp));
	assert_int_equal(marks_of(dp, wish->vip), 0);
	assert_int_equal(*slot_here(dp, wish).moved, 0);
	datapath_unlock(dp);
	assert_int_equal(datapath_settle(dp, &err), -EINVAL);
	ok(datapath_lock(dp, NULL, &err));
	service_free(wish);
	service_free(other);
	unmake(dp);
}

/* The first backends of a service find no flows, whenever they come. */
static void the_first_backends_move_nothing(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 0);

	(void)state;
	apply(dp, wish);
	had_packets(dp, wish);
	near_put(wish, 0, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_int_equal(marks_of(dp, wish->vip), 0);
	assert_int_equal(*slot_here(dp, wish).moved, 0);
	assert_int_equal(slot_here(dp, wish).previous->word, target_of(dp, wish->vip).word);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void without_traffic_nothing_is_elsewhere(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 1), *busy = direct_of(vip_of(2), 1);

	(void)state;
	apply(dp, wish);
	apply(dp, busy);
	had_packets(dp, busy);
	near_put(wish, 1, 1, XLB_BACKEND_ACTIVE);
	near_put(busy, 1, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	apply(dp, busy);
	assert_true(marks_of(dp, wish->vip) > 0);
	ok(datapath_settle(dp, &err));
	assert_int_equal(marks_of(dp, wish->vip), 0);
	assert_int_equal(*slot_here(dp, wish).moved, 0);
	assert_true(marks_of(dp, busy->vip) > 0);
	assert_int_not_equal(*slot_here(dp, busy).moved, 0);
	assert_sound(dp);
	service_free(wish);
	service_free(busy);
	unmake(dp);
}

/* Nobody takes new flows for very long, but old ones go on: who comes then has to know. */
static void flows_outlast_an_empty_ring(void **state)
{
	for (int direct = 0; direct < 2; direct++) {
		struct datapath *dp = make_small();
		struct service *wish = direct_of(vip_of(1), 1);

		wish->forward = direct ? XLB_FORWARD_IPIP : XLB_FORWARD_DNAT;
		apply(dp, wish);
		had_packets(dp, wish);
		flow_put_of(dp, 10, &wish->vip, vip_of(77),
			    flow_of(dp, near_id(dp, wish->vip, 0), XLB_FLOW_ESTABLISHED));
		near_put(wish, 0, 0, XLB_BACKEND_ACTIVE);
		wish->forward = XLB_FORWARD_IPIP;
		apply(dp, wish);
		assert_int_not_equal(*slot_here(dp, wish).moved, 0);
		settle_after(dp, wish, LONG(dp));
		assert_int_not_equal(*slot_here(dp, wish).moved, 0);
		near_put(wish, 1, 1, XLB_BACKEND_ACTIVE);
		apply(dp, wish);
		assert_int_equal(marks_of(dp, wish->vip), target_of(dp, wish->vip).ring_size);
		assert_sound(dp);
		service_free(wish);
		unmake(dp);
	}
	(void)state;
}

/* ---- room and ids ---- */

static void memory_gives_way_to_new_rings(void **state)
{
	/* Room for four rings of 401 slots. */
	struct datapath *dp = make((struct datapath_sizes){
		.services = 16, .backends = 64, .flows = 1024, .ring_slots = 4 * 26 * 16 });
	struct service *one = direct_of(vip_of(1), 3), *two = direct_of(vip_of(2), 3);

	(void)state;
	apply(dp, one);
	apply(dp, two);
	near_put(one, 3, 1, XLB_BACKEND_ACTIVE);
	apply(dp, one);
	long_ago(dp, one, 1000);
	assert_int_not_equal(slot_here(dp, one).previous->ring_line,
			     target_of(dp, one->vip).ring_line);
	near_put(two, 3, 1, XLB_BACKEND_ACTIVE);
	apply(dp, two);
	near_drop(two, 2);
	apply(dp, two);
	/* The older memory went; its marks have to stay, for flows that are in the table. */
	assert_int_equal(slot_here(dp, one).previous->word, target_of(dp, one->vip).word);
	assert_true(marks_of(dp, one->vip) > 0);
	assert_int_not_equal(*slot_here(dp, one).moved, 0);
	assert_int_not_equal(slot_here(dp, two).previous->ring_line,
			     target_of(dp, two->vip).ring_line);
	assert_sound(dp);
	service_free(one);
	service_free(two);
	unmake(dp);
}

static void old_rings_forget_who_is_gone(void **state)
{
	struct datapath *dp = make_small(), *other;
	struct service *wish = direct_of(vip_of(1), 3);
	struct datapath_sizes none = {};
	union xlb_service_target previous;
	const uint32_t *slots;
	uint32_t gone, stays, left = 0;

	(void)state;
	apply(dp, wish);
	gone = near_id(dp, wish->vip, 1);
	stays = near_id(dp, wish->vip, 2);
	near_drop(wish, 1);
	apply(dp, wish);
	datapath_unlock(dp);
	/* Collects ids. */
	ok(datapath_create(PIN_DIR, &none, &other, &err));
	datapath_close(other);
	ok(datapath_lock(dp, NULL, &err));
	assert_int_equal(backend_at(dp, gone)->state, XLB_BACKEND_FREE);
	previous = *slot_here(dp, wish).previous;
	slots = ring_slots_at(dp, previous, &err);
	for (uint32_t i = 0; i < previous.ring_size; i++) {
		assert_int_not_equal(slots[i], gone);
		left += slots[i] == stays;
	}
	assert_true(left > 0);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void a_backend_goes_on_under_another_id(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 3);
	struct endpoint client = vip_of(9), answered = vip_of(10);
	struct xlb_backend_tally *tally = map_values_new(dp, MAP_BACKEND_TALLY);
	union xlb_flow_value tunnelled, translated;
	struct xlb_backend *entry;
	struct counters counters;
	struct picture first;
	uint32_t old[3], id;

	(void)state;
	apply(dp, wish);
	for (uint32_t i = 0; i < 3; i++)
		old[i] = near_id(dp, wish->vip, i);
	ok(backend_stats_make(dp, &old[1], 1, &err));
	bpf_map_lookup_elem(dp->maps[MAP_BACKEND_TALLY].fd, &old[1], tally);
	tally->flows = 42;
	bpf_map_update_elem(dp->maps[MAP_BACKEND_TALLY].fd, &old[1], tally, BPF_ANY);
	backend_at(dp, old[1])->load = 1 + 4;
	near_put(wish, 3, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	picture_take(dp, wish, &first);
	tunnelled = flow_of(dp, old[1], XLB_FLOW_ESTABLISHED);
	tunnelled.counted = 1;
	flow_put_of(dp, 10, &wish->vip, client, tunnelled);
	translated = flow_of(dp, old[1], XLB_FLOW_ESTABLISHED);
	translated.forward = XLB_FORWARD_NAT;
	flow_put_of(dp, 11, &wish->vip, answered, translated);

	wish->encap_source = (struct prefix){ .address.word[0] = htonl(0x0a090000),
					      .family = XLB_IPV4,
					      .length = 20 };
	apply(dp, wish);
	id = near_id(dp, wish->vip, 1);
	entry = backend_at(dp, id);
	assert_int_not_equal(id, old[1]);
	assert_int_equal(backend_at(dp, old[1])->state, XLB_BACKEND_RETIRED);
	assert_int_equal(entry->source.word[0], htonl(0x0a090000));
	assert_int_equal(entry->source_mask, htonl(0xfff));
	/* As many as came along; the rest ends under the old id. */
	assert_int_equal(entry->load, 1);
	/* Nobody moved: the same slots are marked as before. */
	for (uint32_t i = 0; i < first.target.ring_size; i++)
		assert_int_equal(first.slots[i] >> 31,
				 ring_slots_at(dp, target_of(dp, wish->vip), &err)[i] >> 31);
	/* And before, they were where they were, under the new ids. */
	assert_int_not_equal(slot_here(dp, wish).previous->ring_size, 0);
	for (uint32_t i = 0; i < slot_here(dp, wish).previous->ring_size; i++) {
		uint32_t was = ring_slots_at(dp, *slot_here(dp, wish).previous, &err)[i];

		for (uint32_t n = 0; n < 3; n++)
			assert_int_not_equal(was, old[n]);
	}
	{
		const uint64_t *flows = map_memory(dp, MAP_FLOWS, &err);
		union xlb_flow_value value = { .word = flows[10 * 2 + 1] };

		assert_int_equal(value.backend, id);
		assert_int_equal(value.state, XLB_FLOW_ESTABLISHED);
		assert_int_equal(flows[11 * 2 + 1], translated.word);
	}
	ok(datapath_backend_counters(dp, &(struct backend){ .id = id }, &counters));
	assert_int_equal(counters.flows, 42);
	assert_sound(dp);
	/* The same once more changes nothing. */
	apply(dp, wish);
	assert_int_equal(near_id(dp, wish->vip, 1), id);
	/* Back to what the route says. */
	wish->encap_source = (struct prefix){};
	apply(dp, wish);
	assert_int_not_equal(near_id(dp, wish->vip, 1), id);
	assert_int_equal(backend_at(dp, near_id(dp, wish->vip, 1))->source_mask, 0);
	assert_sound(dp);
	free(tally);
	service_free(wish);
	unmake(dp);
}

/* ---- writers that die ---- */

static struct service *wish_at_random(uint32_t random)
{
	static const uint8_t forwards[] = { XLB_FORWARD_IPIP, XLB_FORWARD_IPIP, XLB_FORWARD_GUE,
					    XLB_FORWARD_NAT };
	struct service *wish = service_of(random & 1 ? vip_of(random >> 1 & 3) :
						       vip6_of(random >> 1 & 3), 0, 0);

	wish->forward = forwards[random >> 3 & 3];
	wish->scheduler = random >> 5 & 1 ? XLB_SCHEDULER_SOURCE : XLB_SCHEDULER_MAGLEV;
	if ((random >> 6 & 7) == 0)
		wish->scheduler = XLB_SCHEDULER_LC;
	wish->affinity_s = (random >> 9 & 7) == 0 ? 600 : 0;
	wish->mss = (random >> 12 & 3) == 0 ? 1400 : 0;
	wish->no_echo = (random >> 13 & 7) == 0;
	wish->gue_port = random >> 11 & 1 ? 6081 : 0;
	wish->gue_checksum = random >> 4 & 1;
	if ((random >> 10 & 3) == 0)
		wish->encap_source = (struct prefix){ .address.word[0] = htonl(random & 3),
						      .family = wish->vip.family,
						      .length = 32 };
	for (uint32_t i = 0; i < (random >> 14 & 3); i++) {
		uint32_t address = (random >> 16 & 7) << 24 | i << 20;
		struct prefix range = { .address.word[0] = htonl(address),
					.family = wish->vip.family,
					.length = 16 };

		assert_int_equal(service_add_range(wish, &range), 0);
	}
	for (uint32_t i = 0; i < (random >> 19 & 7); i++)
		near_put(wish, (random >> 22 & 7) + i, 1, XLB_BACKEND_ACTIVE);
	return wish;
}

/* A writer has died before or after the switch to another id: there are two of the backend. */
static void flows_of_doubles_go_on(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = direct_of(vip_of(1), 2);
	struct endpoint client = { .address.word[0] = htonl(0xc6336401), .port = 1000,
				   .family = XLB_IPV4, .protocol = XLB_TCP };
	union xlb_flow_value flow;
	uint32_t old, double_id;
	struct slot slot;

	(void)state;
	wish->scheduler = XLB_SCHEDULER_RR;
	apply(dp, wish);
	old = near_id(dp, wish->vip, 0);
	double_id = old + 50;
	flow = flow_of(dp, old, XLB_FLOW_ESTABLISHED);
	flow.counted = 1;
	flow_put_of(dp, 10, &wish->vip, client, flow);
	backend_at(dp, old)->load = 1;
	write_begin(dp);
	*backend_at(dp, double_id) = *backend_at(dp, old);
	backend_at(dp, double_id)->load = 0;
	slot = slot_here(dp, wish);
	service_begin(&slot);
	datapath_close(dp);

	dp = open_again();
	ok(datapath_lock(dp, NULL, &err));
	assert_sound(dp);
	assert_int_equal(near_id(dp, wish->vip, 0), double_id);
	assert_int_equal(backend_at(dp, old)->state, XLB_BACKEND_RETIRED);
	assert_int_equal(backend_at(dp, double_id)->load, 1);
	flow.backend = double_id;
	assert_int_equal(((const uint64_t *)map_memory(dp, MAP_FLOWS, &err))[10 * 2 + 1], flow.word);
	for (uint32_t i = 0; i < target_of(dp, wish->vip).ring_size; i++)
		assert_int_not_equal(ring_slots_at(dp, target_of(dp, wish->vip), &err)[i], old);
	service_free(wish);
	unmake(dp);
}

static uint32_t random_next(uint32_t *random)
{
	*random = *random * 1664525 + 1013904223;
	return *random >> 4 ^ *random >> 20;
}

static void change_at_random(struct datapath *dp, uint32_t random)
{
	struct service *wish = wish_at_random(random), *other;
	size_t cursor = 0;

	if ((random >> 25 & 3) || !model_find(dp->model, &wish->vip))
		datapath_apply(dp, &wish->vip, wish, &err);
	else
		datapath_apply(dp, &wish->vip, NULL, &err);
	/* Sometimes a long time goes by. */
	while ((random >> 27 & 1) && (other = model_next(dp->model, &cursor)))
		if (*slot_of(dp, other).moved)
			long_ago(dp, other, LONG(dp));
	datapath_settle(dp, &err);
	service_free(wish);
}

static void many_changes_wear_nothing_out(void **state)
{
	struct datapath *dp = make_small();
	uint32_t random = 3;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		change_at_random(dp, random_next(&random));
		if (i % 200 == 0)
			assert_sound(dp);
	}
	assert_sound(dp);
	unmake(dp);
}

static void writer(void)
{
	struct datapath *dp = open_again();
	uint32_t random = getpid() * 2654435761u;

	for (;;) {
		if (datapath_lock(dp, NULL, &err))
			_exit(1);
		change_at_random(dp, random_next(&random));
		datapath_unlock(dp);
	}
}

static void killed_at_any_time(void **state)
{
	(void)state;
	assert_survives_kills(writer, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_tick_is_the_kernels),
		TEST(a_new_service_has_nothing_to_remember),
		TEST(only_hashes_do_without_state),
		TEST(what_moved_is_marked_and_the_old_ring_kept),
		TEST(a_change_that_moves_nothing_leaves_nothing),
		TEST(flow_state_comes_and_goes),
		TEST(another_hash_moves_everything),
		TEST(nobody_and_back),
		TEST(flows_that_are_elsewhere_keep_their_slots_marked),
		TEST(others_flows_do_not_count),
		TEST(the_first_backends_move_nothing),
		TEST(without_traffic_nothing_is_elsewhere),
		TEST(flows_outlast_an_empty_ring),
		TEST(memory_gives_way_to_new_rings),
		TEST(old_rings_forget_who_is_gone),
		TEST(a_backend_goes_on_under_another_id),
		TEST(flows_of_doubles_go_on),
		TEST(many_changes_wear_nothing_out),
		TEST(killed_at_any_time),
	};

	if (!in_sandbox()) {
		fputs("skipped: it changes BPF maps; scripts/sandbox build/tests/unit/stateless_test\n",
		      stderr);
		return 77;
	}
	return cmocka_run_group_tests_name("stateless", tests, NULL, NULL);
}
