// SPDX-License-Identifier: GPL-2.0
/* What services have besides backends: ranges, options, addresses, tunnels; and what not. */
#include "datapath_sound.h"

#include <xlb/checksum.h>

static struct service *tunnel_of(struct endpoint vip, uint8_t forward)
{
	struct service *service = service_of(vip, 0, 0);
	struct backend backend = backend_of(vip.family, 1);

	service->forward = forward;
	backend.endpoint.port = vip.port;
	assert_int_equal(service_set_backend(service, &backend), 0);
	return service;
}

static const struct xlb_backend *only_entry(struct datapath *dp, const struct service *wish)
{
	const struct service *service = model_find(datapath_model(dp), &wish->vip);

	assert_int_equal(service->n_backends, 1);
	return backend_at(dp, service->backends[0].id);
}

static void range_put(struct service *service, uint8_t family, uint32_t address, uint8_t length)
{
	struct prefix range = { .address.word[0] = htonl(address),
				.family = family,
				.length = length };

	assert_int_equal(service_add_range(service, &range), 0);
}

/* As the packet path asks. */
static bool admits4(struct datapath *dp, const struct service *wish, uint32_t address)
{
	const struct service *service = model_find(datapath_model(dp), &wish->vip);
	struct xlb_range4 key = { .prefix = 64, .service = service->id,
				  .address = htonl(address) };
	uint32_t value;

	return !target_of(dp, wish->vip).ranges ||
	       !bpf_map_lookup_elem(dp->maps[MAP_RANGES].fd, &key, &value);
}

static bool admits6(struct datapath *dp, const struct service *wish, uint32_t first)
{
	const struct service *service = model_find(datapath_model(dp), &wish->vip);
	struct xlb_range6 key = { .prefix = 160, .service = service->id,
				  .address.word = { htonl(first), 0, 0, htonl(1) } };
	uint32_t value;

	return !target_of(dp, wish->vip).ranges ||
	       !bpf_map_lookup_elem(dp->maps[MAP_RANGES6].fd, &key, &value);
}

/* ---- refused ---- */

static void assert_refused(struct datapath *dp, const struct service *wish, const char *why)
{
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -EINVAL);
	if (!strstr(err.text, why))
		fail_msg("'%s' does not say '%s'", err.text, why);
	assert_null(strchr(err.text, '\n'));
}

static void what_cannot_be_is_refused(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = tunnel_of(vip_of(1), XLB_FORWARD_IPIP);

	(void)state;
	wish->forward = XLB_FORWARDS;
	assert_refused(dp, wish, "out of range");
	wish->forward = XLB_FORWARD_NAT;
	wish->scheduler = XLB_SCHEDULERS;
	assert_refused(dp, wish, "out of range");
	wish->scheduler = XLB_SCHEDULER_MAGLEV;
	range_put(wish, XLB_IPV4, 0x0a000000, 33);
	assert_refused(dp, wish, "no prefix");
	service_clear_ranges(wish);
	wish->encap_source = (struct prefix){ .family = XLB_IPV6, .length = 129 };
	assert_refused(dp, wish, "outer source");
	wish->encap_source = (struct prefix){};
	for (uint8_t forward = XLB_FORWARD_L2; forward < XLB_FORWARDS; forward++) {
		wish->forward = forward;
		wish->backends[0].endpoint.port = 8080;
		assert_refused(dp, wish, forward_name(forward));
		assert_refused(dp, wish, "10.0.0.1:8080: has another port than the VIP (80)");
	}
	assert_int_equal(model_count(dp->model), 0);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void nat_and_tunnels_cross_families(void **state)
{
	struct datapath *dp = make_small();

	(void)state;
	for (uint8_t forward = 0; forward < XLB_FORWARDS; forward++) {
		struct service *wish = tunnel_of(vip_of(forward), XLB_FORWARD_IPIP);
		struct backend six = backend_of(XLB_IPV6, 2);

		six.endpoint.port = 80;
		assert_int_equal(service_set_backend(wish, &six), 0);
		wish->forward = forward;
		if (forward_crosses_families(forward))
			apply(dp, wish);
		else
			assert_refused(dp, wish, "IPv6, but the VIP is IPv4");
		assert_sound(dp);
		service_free(wish);
	}
	assert_int_equal(model_count(dp->model), 3);
	unmake(dp);
}

/* A backend of the other family hangs on the service of the VIP's. */
static void backends_belong_to_the_family_of_the_vip(void **state)
{
	struct datapath *dp = make_small();
	struct service *four = tunnel_of(vip_of(1), XLB_FORWARD_IPIP);
	struct service *six = tunnel_of(vip6_of(1), XLB_FORWARD_IPIP);
	struct backend across = backend_of(XLB_IPV6, 9);
	struct datapath *reader;

	(void)state;
	across.endpoint.port = 80;
	assert_int_equal(service_set_backend(four, &across), 0);
	across = backend_of(XLB_IPV4, 9);
	across.endpoint.port = 80;
	assert_int_equal(service_set_backend(six, &across), 0);
	apply(dp, four);
	apply(dp, six);
	reader = open_again();
	assert_int_equal(model_find(datapath_model(reader), &four->vip)->n_backends, 2);
	assert_int_equal(model_find(datapath_model(reader), &six->vip)->n_backends, 2);
	datapath_close(reader);
	/* Also when a writer died. */
	write_begin(dp);
	datapath_unlock(dp);
	ok(datapath_lock(dp, NULL, &err));
	assert_int_equal(model_find(dp->model, &four->vip)->n_backends, 2);
	assert_int_equal(model_find(dp->model, &six->vip)->n_backends, 2);
	assert_sound(dp);
	assert_true(runs("bpftool map dump pinned " PIN_DIR "/backend_stats | "
			 "grep -Fq '\"backend\": \"[2001:db8:1::9]:80\"'"));
	service_free(four);
	service_free(six);
	unmake(dp);
}

static void l2_backends_are_neighbours(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = tunnel_of(vip_of(1), XLB_FORWARD_L2);

	(void)state;
	/* Nothing leads to 10.0.0.1. */
	assert_refused(dp, wish, "10.0.0.1:80: there is no route to it, but l2");
	run("ip link add near type veth peer name far && ip link set near up && ip link set far up");
	run("ip addr add 192.0.2.1/24 dev near && ip route add 10.0.0.0/8 via 192.0.2.2");
	ok(datapath_refresh_paths(dp, &err));
	assert_refused(dp, wish, "10.0.0.1:80: is behind a router, but l2");
	run("ip route del 10.0.0.0/8 && ip -6 addr add 2001:db8:5::1/64 dev near nodad");
	run("ip route add 10.0.0.0/8 via inet6 2001:db8:5::2");
	ok(datapath_refresh_paths(dp, &err));
	assert_refused(dp, wish, "is behind a router");
	run("ip route del 10.0.0.0/8 && ip addr add 10.1.1.1/8 dev near");
	ok(datapath_refresh_paths(dp, &err));
	apply(dp, wish);
	assert_sound(dp);
	/* Who is there already is asked again when the mode changes. */
	wish->forward = XLB_FORWARD_IPIP;
	apply(dp, wish);
	run("ip addr del 10.1.1.1/8 dev near && ip route add 10.0.0.0/8 via 192.0.2.2");
	ok(datapath_refresh_paths(dp, &err));
	wish->forward = XLB_FORWARD_L2;
	assert_refused(dp, wish, "is behind a router");
	assert_int_equal(target_of(dp, wish->vip).forward, XLB_FORWARD_IPIP);
	assert_sound(dp);
	run("ip link del near");
	service_free(wish);
	unmake(dp);
}

/* ---- tunnels ---- */

static void tunnels_have_source_and_port(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = tunnel_of(vip_of(1), XLB_FORWARD_GUE);
	const struct xlb_backend *entry;
	uint32_t id;

	(void)state;
	run("ip link add near type veth peer name far && ip link set near up && ip link set far up");
	run("ip addr add 10.1.1.1/8 dev near");
	apply(dp, wish);
	entry = only_entry(dp, wish);
	id = model_find(dp->model, &wish->vip)->backends[0].id;
	assert_int_equal(entry->tunnel_port, htons(6080));
	assert_int_equal(entry->source.word[0], htonl(0x0a010101));
	assert_int_equal(entry->source_mask, 0);
	assert_int_equal(entry->source_sum, xlb_sum_address(&entry->source));
	assert_int_equal(entry->address_sum, xlb_sum_address(&entry->address));
	assert_int_equal(entry->vip_sum, xlb_sum_address(&entry->vip));
	/* One store. */
	wish->gue_port = 4711;
	wish->gue_checksum = true;
	apply(dp, wish);
	assert_int_equal(model_find(dp->model, &wish->vip)->backends[0].id, id);
	assert_int_equal(only_entry(dp, wish)->tunnel_port, htons(4711));
	assert_int_equal(only_entry(dp, wish)->tunnel_checksum, 1);
	assert_sound(dp);
	/* Three words: another entry. */
	wish->encap_source = (struct prefix){ .address.word[0] = htonl(0x0a020000),
					      .family = XLB_IPV4,
					      .length = 16 };
	apply(dp, wish);
	entry = only_entry(dp, wish);
	assert_int_not_equal(model_find(dp->model, &wish->vip)->backends[0].id, id);
	assert_int_equal(entry->source.word[0], htonl(0x0a020000));
	assert_int_equal(entry->source_mask, htonl(0xffff));
	assert_int_equal(entry->source_sum, xlb_sum_address(&entry->source));
	assert_int_equal(entry->tunnel_port, htons(4711));
	assert_int_equal(entry->tunnel_checksum, 1);
	assert_int_not_equal(entry->ifindex, 0);
	/* Routes do not change what was asked for. */
	run("ip addr del 10.1.1.1/8 dev near && ip addr add 10.1.1.2/8 dev near");
	ok(datapath_refresh_paths(dp, &err));
	assert_int_equal(only_entry(dp, wish)->source.word[0], htonl(0x0a020000));
	assert_sound(dp);
	/* nat answers to an address of the node. */
	wish->forward = XLB_FORWARD_NAT;
	apply(dp, wish);
	assert_int_equal(only_entry(dp, wish)->source.word[0] & htonl(0xffffff00),
			 htonl(0x0a010100));
	assert_int_equal(only_entry(dp, wish)->source_mask, 0);
	assert_sound(dp);
	run("ip link del near");
	service_free(wish);
	unmake(dp);
}

static void a_source_is_for_its_own_family(void **state)
{
	static const struct {
		uint8_t length;
		uint32_t mask;
	} rows[] = { { 128, 0 }, { 127, 1 }, { 112, 0xffff }, { 97, 0x7fffffff },
		     { 96, 0xffffffff }, { 64, 0xffffffff } };
	struct datapath *dp = make_small();
	struct service *wish = tunnel_of(vip6_of(1), XLB_FORWARD_IPIP);

	(void)state;
	wish->encap_source = (struct prefix){ .address.word[0] = htonl(0x0a020000),
					      .family = XLB_IPV4,
					      .length = 32 };
	apply(dp, wish);
	assert_int_equal(only_entry(dp, wish)->source.word[0], 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		wish->encap_source = (struct prefix){ .address.word[0] = htonl(0x20010db8),
						      .family = XLB_IPV6,
						      .length = rows[i].length };
		apply(dp, wish);
		assert_int_equal(only_entry(dp, wish)->source_mask, htonl(rows[i].mask));
		assert_int_equal(only_entry(dp, wish)->source.word[0], htonl(0x20010db8));
	}
	for (uint8_t length = 0; length <= 32; length++) {
		struct prefix prefix = { .family = XLB_IPV4, .length = length };

		assert_int_equal(prefix_mask(&prefix), htonl(0xffffffffull >> length));
	}
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void replies_of_direct_backends_are_not_looked_for(void **state)
{
	struct datapath *dp = make_small(), *other;
	struct service *wish = tunnel_of(vip_of(1), XLB_FORWARD_IPIP);
	struct datapath_sizes none = {};
	union xlb_flow_value value = { .state = XLB_FLOW_ESTABLISHED };
	struct endpoint *backend = &wish->backends[0].endpoint;

	(void)state;
	apply(dp, wish);
	assert_false(filter_has(dp, backend, XLB_TCP));
	assert_true(filter_has(dp, &wish->vip, XLB_TCP));
	wish->forward = XLB_FORWARD_NAT;
	apply(dp, wish);
	assert_true(filter_has(dp, backend, XLB_TCP));
	/* Flows that began with nat are answered through us as long as there are some. */
	value.backend = model_find(dp->model, &wish->vip)->backends[0].id;
	flow_put_of(dp, 10, &wish->vip, vip_of(9), value);
	wish->forward = XLB_FORWARD_IPIP;
	apply(dp, wish);
	for (int i = 0; i < 2; i++) {
		struct service *fleeting = service_of(vip_of(2), 5, 1);

		apply(dp, fleeting);
		ok(datapath_apply(dp, &fleeting->vip, NULL, &err));
		service_free(fleeting);
		datapath_unlock(dp);
		ok(datapath_create(PIN_DIR, &none, &other, &err));
		datapath_close(other);
		ok(datapath_lock(dp, NULL, &err));
		assert_int_equal(filter_has(dp, backend, XLB_TCP), !i);
		flow_put_of(dp, 10, &wish->vip, vip_of(9), (union xlb_flow_value){});
	}
	service_free(wish);
	unmake(dp);
}

/* ---- options ---- */

static struct xlb_service_options options_here(struct datapath *dp, const struct service *wish)
{
	const struct service *service = model_find(datapath_model(dp), &wish->vip);
	uint32_t key = service_key(dp, wish->vip.family, service->id);
	struct xlb_service_options options;

	assert_int_equal(bpf_map_lookup_elem(dp->maps[MAP_SERVICE_OPTIONS].fd, &key, &options), 0);
	return options;
}

static void options_are_written_and_read_back(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip6_of(3), 0, 2);
	double tick = (double)(1u << config_of(dp)->tick_shift) / config_of(dp)->hz;

	(void)state;
	apply(dp, wish);
	assert_false(target_of(dp, wish->vip).options);
	for (uint32_t seconds = 1; seconds <= 86400; seconds = seconds * 3 + 1) {
		uint32_t ticks;

		wish->affinity_s = seconds;
		apply(dp, wish);
		ticks = options_here(dp, wish).affinity;
		assert_true(ticks * tick >= seconds && (ticks - 1) * tick < seconds);
		assert_true(target_of(dp, wish->vip).options);
		assert_sound(dp);
	}
	wish->mss = 1400;
	wish->no_echo = true;
	wish->gue_port = 6090;
	wish->encap_source = (struct prefix){ .address.word[0] = htonl(0x0a020000),
					      .family = XLB_IPV4,
					      .length = 16 };
	apply(dp, wish);
	assert_int_equal(options_here(dp, wish).mss, 1400);
	assert_sound(dp);
	wish->affinity_s = 0;
	apply(dp, wish);
	assert_true(target_of(dp, wish->vip).options);
	assert_int_equal(options_here(dp, wish).affinity, 0);
	wish->mss = 0;
	apply(dp, wish);
	assert_false(target_of(dp, wish->vip).options);
	assert_int_equal(options_here(dp, wish).mss, 0);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void addresses_answer_echo_if_all_services_want(void **state)
{
	struct datapath *dp = make_small();
	struct service *web = service_of(vip_of(1), 0, 1), *dns = service_of(vip_of(1), 5, 0);
	struct service *six = service_of(vip6_of(1), 0, 1);

	(void)state;
	dns->vip.port = 53;
	apply(dp, web);
	assert_int_equal(vip_entry(dp, &web->vip).services, 1);
	assert_int_equal(vip_entry(dp, &web->vip).echo, 1);
	apply(dp, dns);
	apply(dp, six);
	assert_int_equal(vip_entry(dp, &web->vip).services, 2);
	dns->no_echo = true;
	apply(dp, dns);
	assert_int_equal(vip_entry(dp, &web->vip).echo, 0);
	assert_int_equal(vip_entry(dp, &six->vip).echo, 1);
	web->no_echo = true;
	apply(dp, web);
	dns->no_echo = false;
	apply(dp, dns);
	assert_int_equal(vip_entry(dp, &web->vip).echo, 0);
	assert_sound(dp);
	ok(datapath_apply(dp, &web->vip, NULL, &err));
	assert_int_equal(vip_entry(dp, &web->vip).services, 1);
	assert_int_equal(vip_entry(dp, &web->vip).echo, 1);
	assert_sound(dp);
	ok(datapath_apply(dp, &dns->vip, NULL, &err));
	assert_int_equal(vip_entry(dp, &web->vip).services, 0);
	assert_int_equal(elements_of(dp, MAP_VIPS), 1);
	service_free(web);
	service_free(dns);
	service_free(six);
	unmake(dp);
}

/* ---- ranges ---- */

static void only_those_in_the_ranges_may_come(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 1), *open = service_of(vip_of(2), 0, 1);

	(void)state;
	apply(dp, open);
	apply(dp, wish);
	assert_true(admits4(dp, wish, 0x0a000001));
	range_put(wish, XLB_IPV4, 0x0a000000, 8);
	range_put(wish, XLB_IPV4, 0xc0000201, 32);
	range_put(wish, XLB_IPV4, 0x0a000000, 8);
	apply(dp, wish);
	assert_true(admits4(dp, wish, 0x0aff0001));
	assert_true(admits4(dp, wish, 0xc0000201));
	assert_false(admits4(dp, wish, 0xc0000202));
	assert_true(admits4(dp, open, 0xc0000202));
	assert_int_equal(elements_of(dp, MAP_RANGES), 2);
	assert_sound(dp);
	service_clear_ranges(wish);
	range_put(wish, XLB_IPV4, 0x0a000000, 9);
	apply(dp, wish);
	assert_true(admits4(dp, wish, 0x0a000001));
	assert_false(admits4(dp, wish, 0x0aff0001));
	assert_int_equal(elements_of(dp, MAP_RANGES), 1);
	assert_sound(dp);
	service_clear_ranges(wish);
	range_put(wish, XLB_IPV4, 0, 0);
	apply(dp, wish);
	assert_true(admits4(dp, wish, 0xffffffff));
	service_clear_ranges(wish);
	apply(dp, wish);
	assert_true(admits4(dp, wish, 1));
	assert_int_equal(elements_of(dp, MAP_RANGES), 0);
	assert_sound(dp);
	service_free(wish);
	service_free(open);
	unmake(dp);
}

static void ranges_are_by_family(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip6_of(1), 0, 1);

	(void)state;
	range_put(wish, XLB_IPV4, 0x0a000000, 8);
	apply(dp, wish);
	assert_false(admits6(dp, wish, 0x20010db8));
	assert_false(admits6(dp, wish, 0x0a000000));
	assert_int_equal(elements_of(dp, MAP_RANGES), 0);
	/* Read back, it still admits nobody. */
	assert_sound(dp);
	range_put(wish, XLB_IPV6, 0x20010db8, 32);
	apply(dp, wish);
	assert_true(admits6(dp, wish, 0x20010db8));
	assert_false(admits6(dp, wish, 0x20010db9));
	assert_sound(dp);
	ok(datapath_apply(dp, &wish->vip, NULL, &err));
	assert_int_equal(elements_of(dp, MAP_RANGES6), 0);
	service_free(wish);
	unmake(dp);
}

static void no_room_for_ranges(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 3);
	uint32_t size = map_entries(config_of(dp), MAP_RANGES);

	(void)state;
	range_put(wish, XLB_IPV4, 0x01000000, 8);
	apply(dp, wish);
	for (uint32_t i = 0; i < size; i++)
		range_put(wish, XLB_IPV4, 0x0a000000 + (i << 8), 24);
	wish->mss = 1400;
	wish->no_echo = true;
	backend_put(wish, 1, 7, XLB_BACKEND_ACTIVE);
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "the map ranges is full"));
	assert_non_null(strstr(err.text, "--max-services"));
	/* All is as it was. */
	assert_int_equal(elements_of(dp, MAP_RANGES), 1);
	assert_true(admits4(dp, wish, 0x01000001));
	assert_false(admits4(dp, wish, 0x0a000001));
	assert_int_equal(backend_at(dp, id_of(dp, wish->vip, 1))->weight, 1);
	assert_sound(dp);
	wish->vip = vip_of(2);
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -ENOSPC);
	assert_int_equal(model_count(dp->model), 1);
	assert_int_equal(elements_of(dp, MAP_RANGES), 1);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

/* ---- writers that die ---- */

static void half_done_is_finished(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = tunnel_of(vip_of(1), XLB_FORWARD_IPIP);
	struct service *gone = service_of(vip_of(2), 5, 1);
	struct service *plain = service_of(vip_of(3), 7, 1);
	struct service *running, *dreamt;
	struct slot slot;

	(void)state;
	range_put(wish, XLB_IPV4, 0x0a000000, 8);
	apply(dp, wish);
	range_put(gone, XLB_IPV4, 0x0b000000, 8);
	apply(dp, gone);
	running = model_find(dp->model, &wish->vip);
	slot = slot_of(dp, running);
	write_begin(dp);
	service_begin(&slot);
	/* As far as what can only be read back, and some of what it means. */
	dreamt = service_copy(running);
	dreamt->affinity_s = 600;
	dreamt->no_echo = true;
	dreamt->encap_source = (struct prefix){ .address.word[0] = htonl(0x0a020000),
						.family = XLB_IPV4,
						.length = 16 };
	range_put(dreamt, XLB_IPV4, 0x0c000000, 8);
	ok(service_info_write(dp, running, dreamt, running->id, &err));
	ok(ranges_insert(dp, running, dreamt, running->id, &err));
	/* Another one, of which nothing else changes. */
	apply(dp, plain);
	running = model_find(dp->model, &plain->vip);
	slot = slot_of(dp, running);
	write_begin(dp);
	service_begin(&slot);
	plain->affinity_s = 600;
	ok(service_info_write(dp, running, plain, running->id, &err));
	/* And a deletion as far as the tombstone. */
	slot = slot_of(dp, model_find(dp->model, &gone->vip));
	service_begin(&slot);
	slot_withdraw(dp, XLB_IPV4, model_find(dp->model, &gone->vip)->id);
	datapath_close(dp);

	dp = open_again();
	ok(datapath_lock(dp, NULL, &err));
	assert_int_equal(model_count(dp->model), 2);
	running = model_find(dp->model, &wish->vip);
	assert_int_equal(running->affinity_s, 600);
	assert_true(options_here(dp, plain).affinity > 500);
	assert_true(target_of(dp, plain->vip).options);
	assert_int_equal(running->n_ranges, 2);
	assert_false(target_of(dp, wish->vip).stateless);
	assert_int_equal(only_entry(dp, wish)->source.word[0], htonl(0x0a020000));
	assert_int_equal(vip_entry(dp, &wish->vip).echo, 0);
	assert_int_equal(vip_entry(dp, &gone->vip).services, 0);
	assert_int_equal(elements_of(dp, MAP_RANGES), 2);
	assert_sound(dp);
	service_free(wish);
	service_free(gone);
	service_free(plain);
	service_free(dreamt);
	unmake(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_cannot_be_is_refused),
		TEST(nat_and_tunnels_cross_families),
		TEST(backends_belong_to_the_family_of_the_vip),
		TEST(l2_backends_are_neighbours),
		TEST(tunnels_have_source_and_port),
		TEST(a_source_is_for_its_own_family),
		TEST(replies_of_direct_backends_are_not_looked_for),
		TEST(options_are_written_and_read_back),
		TEST(addresses_answer_echo_if_all_services_want),
		TEST(only_those_in_the_ranges_may_come),
		TEST(ranges_are_by_family),
		TEST(no_room_for_ranges),
		TEST(half_done_is_finished),
	};

	if (!in_sandbox()) {
		fputs("skipped: it changes BPF maps; scripts/sandbox build/tests/unit/options_test\n",
		      stderr);
		return 77;
	}
	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
