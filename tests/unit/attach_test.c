// SPDX-License-Identifier: GPL-2.0
/* Devices: our programs on them, the ways to backends, and what is left when we go. */
#include "datapath_world.h"

#include <dirent.h>
#include <poll.h>
#include <sys/stat.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>

#define NOTE 256

static char note[NOTE];

/* v0 (10.0.0.1/16) and its other end v1; br0 (10.1.0.1/16), where Pods would be. */
static int world_make(void **state)
{
	if (fresh_bpffs(state))
		return -1;
	/* libxdp makes it once in a process, and remembers. */
	mkdir("/sys/fs/bpf/xdp", 0700);
	return system(
		"ip link add v0 type veth peer name v1 && ip link set v0 up && "
		"ip link set v1 up && ip addr add 10.0.0.1/16 dev v0 && "
		"ip addr add 10.0.99.1/16 dev v0 && ip -6 addr add 2001:db8:1::ffff/64 dev v0 nodad && "
		"ip link add br0 type bridge && ip link set br0 up && "
		"ip addr add 10.1.0.1/16 dev br0");
}

static int world_end(void **state)
{
	(void)state;
	return system("ip link del v0 2>/dev/null; ip link del br0 2>/dev/null; true");
}

#define WORLD(function) cmocka_unit_test_setup_teardown(function, world_make, world_end)

/* On the bridge; the other numbers are behind v0. */
#define BRIDGED 0x10000

static struct datapath *make_attached(void)
{
	struct datapath *dp = make_small();

	ok(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err));
	return dp;
}

static bool has_xdp(const char *device)
{
	uint32_t id = 0;

	return !bpf_xdp_query_id(if_nametoindex(device), 0, &id) && id;
}

/* A program of somebody else's. */
static int foreign_program(void)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "foreign", "GPL", insns, 2, NULL);

	assert_true(fd >= 0);
	return fd;
}

static void attached_and_detached(void **state)
{
	struct datapath *dp = make_small();
	struct device_status *devices;
	uint32_t id = 0, pinned;
	struct datapath_info info;
	size_t n;

	(void)state;
	ok(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err));
	ok(datapath_devices(dp, &devices, &n, &err));
	assert_int_equal(n, 1);
	assert_string_equal(devices[0].name, "v0");
	assert_true(devices[0].xdp && devices[0].native);
	ok(datapath_info(dp, &info, &err));
	pinned = info.program_id;
	if (!devices[0].dispatcher) {
		/* Alone: then it is the pinned one, and we are told that nobody else fits in. */
		bpf_xdp_query_id(if_nametoindex("v0"), 0, &id);
		assert_int_equal(id, pinned);
		assert_non_null(strstr(note, "dispatcher"));
	}
	assert_int_equal(strlen(info.program_tag), 16);
	/* Some kernels take no iterators: then there is a reason. */
	assert_int_equal(info.iterator, !*info.iterator_missing);
	assert_int_equal(config_of(dp)->uplink, if_nametoindex("v0"));
	assert_true(runs("tc filter show dev v0 ingress | grep -q xlb_ingress"));
	assert_true(runs("tc filter show dev v0 egress | grep -q xlb_egress"));
	free(devices);
	ok(datapath_detach(dp, "v0", &err));
	assert_false(has_xdp("v0"));
	assert_false(runs("tc qdisc show dev v0 | grep -q clsact"));
	assert_int_equal(config_of(dp)->uplink, 0);
	ok(datapath_devices(dp, &devices, &n, &err));
	assert_int_equal(n, 0);
	free(devices);
	assert_int_equal(datapath_detach(dp, "v0", &err), -ENOENT);
	assert_string_equal(err.text, "v0: xlb is not attached there");
	unmake(dp);
}

static size_t descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(folder);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

/* A watch looks at its devices for as long as it lives. */
static void looking_costs_no_descriptors(void **state)
{
	struct datapath *dp = make_attached();
	size_t before;

	(void)state;
	ok(datapath_refresh_paths(dp, &err));
	before = descriptors();
	for (int i = 0; i < 5; i++)
		ok(datapath_refresh_paths(dp, &err));
	assert_int_equal(descriptors(), before);
	unmake(dp);
}

static void attached_again(void **state)
{
	struct datapath *dp = make_attached();
	uint32_t before = 0, after = 0;

	(void)state;
	bpf_xdp_query_id(if_nametoindex("v0"), 0, &before);
	ok(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err));
	ok(datapath_attach(dp, "v0", ATTACH_NATIVE, 0, note, &err));
	bpf_xdp_query_id(if_nametoindex("v0"), 0, &after);
	assert_int_equal(before, after);
	assert_true(runs("test $(tc filter show dev v0 ingress | grep -c xlb_ingress) = 1"));
	assert_int_equal(datapath_attach(dp, "v0", ATTACH_GENERIC, 0, note, &err), -EEXIST);
	assert_non_null(strstr(err.text, "native"));
	unmake(dp);
}

static void generic_where_native_is_not(void **state)
{
	struct datapath *dp = make_small();
	struct device_status *devices;
	size_t n;

	(void)state;
	assert_int_not_equal(datapath_attach(dp, "br0", ATTACH_NATIVE, 0, note, &err), 0);
	assert_non_null(strstr(err.text, "br0: cannot attach"));
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	ok(datapath_attach(dp, "br0", ATTACH_AUTO, 0, note, &err));
	assert_non_null(strstr(note, "generic"));
	ok(datapath_devices(dp, &devices, &n, &err));
	assert_false(devices[0].native);
	free(devices);
	ok(datapath_detach(dp, "br0", &err));
	ok(datapath_attach(dp, "v0", ATTACH_GENERIC, 0, note, &err));
	assert_true(runs("ip link show dev v0 | grep -q xdpgeneric"));
	unmake(dp);
}

static void a_failed_attach_leaves_nothing(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), BRIDGED + 5, 1);

	(void)state;
	apply(dp, wish);
	assert_int_not_equal(datapath_attach(dp, "br0", ATTACH_NATIVE, 0, note, &err), 0);
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	/* Where replies are caught already, that stays. */
	ok(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err));
	assert_int_not_equal(datapath_attach(dp, "br0", ATTACH_NATIVE, 0, note, &err), 0);
	assert_true(runs("tc filter show dev br0 ingress | grep -q xlb_ingress"));
	assert_false(runs("tc filter show dev br0 egress | grep -q xlb"));
	service_free(wish);
	unmake(dp);
}

static void devices_that_there_are_not(void **state)
{
	struct datapath *dp = make_small();

	(void)state;
	assert_int_equal(datapath_attach(dp, "eth9", ATTACH_AUTO, 0, note, &err), -ENODEV);
	assert_string_equal(err.text, "eth9: no such device");
	assert_int_equal(datapath_detach(dp, "eth9", &err), -ENODEV);
	assert_int_equal(datapath_attach(dp, "a-name-that-no-device-can-have", ATTACH_AUTO, 0, note,
					 &err),
			 -ENODEV);
	assert_int_equal(datapath_attach(dp, "lo", ATTACH_AUTO, 0, note, &err), -EINVAL);
	unmake(dp);
}

static void anothers_program_stays(void **state)
{
	struct datapath *dp = make_small();
	int fd = foreign_program(), v0 = if_nametoindex("v0");
	uint32_t before = 0, after = 0;

	(void)state;
	assert_int_equal(bpf_xdp_attach(v0, fd, XDP_FLAGS_DRV_MODE, NULL), 0);
	bpf_xdp_query_id(v0, 0, &before);
	assert_int_equal(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err), -EBUSY);
	assert_non_null(strstr(err.text, "foreign"));
	assert_non_null(strstr(err.text, "xdp-loader"));
	assert_int_equal(datapath_detach(dp, "v0", &err), -ENOENT);
	bpf_xdp_query_id(v0, 0, &after);
	assert_int_equal(before, after);
	assert_false(runs("tc qdisc show dev v0 | grep -q clsact"));
	bpf_xdp_detach(v0, 0, NULL);
	close(fd);
	unmake(dp);
}

static void two_instances_on_one_machine(void **state)
{
	struct datapath_sizes small = { .services = 16, .backends = 64, .flows = 1024 };
	struct datapath *dp = make_attached(), *other;

	(void)state;
	ok(datapath_create("/sys/fs/bpf/other", &small, &other, &err));
	ok(datapath_lock(other, NULL, &err));
	/* Its program is not ours: neither attached over nor taken away. */
	if (!strstr(note, "dispatcher"))
		SKIP_BECAUSE("this kernel does not take programs like xlb into libxdp's dispatcher");
	assert_int_equal(datapath_attach(other, "v0", ATTACH_AUTO, 0, note, &err), -EBUSY);
	assert_int_equal(datapath_detach(other, "v0", &err), -ENOENT);
	assert_true(has_xdp("v0"));
	/* On another device both are fine, with filters side by side. */
	ok(datapath_attach(other, "v1", ATTACH_AUTO, 0, note, &err));
	ok(tc_attach(dp, if_nametoindex("v1"), false, &(bool){ false }, &err));
	assert_true(runs("test $(tc filter show dev v1 ingress | grep -c xlb_ingress) = 2"));
	tc_detach(dp, if_nametoindex("v1"), true);
	assert_true(runs("test $(tc filter show dev v1 ingress | grep -c xlb_ingress) = 1"));
	ok(datapath_detach(other, "v1", &err));
	ok(datapath_destroy(other, &err));
	datapath_close(other);
	unmake(dp);
}

static void destroying_while_attached(void **state)
{
	struct datapath *dp = make_attached();

	(void)state;
	assert_int_equal(datapath_destroy(dp, &err), -EBUSY);
	assert_int_equal(access(PIN_DIR "/services", F_OK), 0);
	unmake(dp);
}

static void a_device_that_went_away(void **state)
{
	struct datapath *dp = make_attached();
	struct device_status *devices;
	size_t n;

	(void)state;
	ok(datapath_attach(dp, "v1", ATTACH_AUTO, 0, note, &err));
	run("ip link del v0");
	ok(datapath_devices(dp, &devices, &n, &err));
	assert_int_equal(n, 0);
	free(devices);
	ok(datapath_refresh_paths(dp, &err));
	assert_int_equal(dp->n_devices, 0);
	ok(datapath_destroy(dp, &err));
	datapath_close(dp);
}

/* Entries of a hash come in any order, another one each time. */
static void the_uplink_does_not_depend_on_chance(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++) {
		struct datapath *dp = make_attached(), *other;

		ok(datapath_attach(dp, "br0", ATTACH_AUTO, 0, note, &err));
		ok(datapath_attach(dp, "v1", ATTACH_AUTO, 0, note, &err));
		assert_int_equal(config_of(dp)->uplink, if_nametoindex("v0"));
		datapath_unlock(dp);
		other = open_again();
		ok(datapath_lock(other, NULL, &err));
		ok(datapath_detach(other, "v0", &err));
		/* It was made before the bridge. */
		assert_int_equal(config_of(dp)->uplink, if_nametoindex("v1"));
		datapath_close(other);
		unmake(dp);
	}
}

static void taken_away_behind_our_back(void **state)
{
	struct datapath *dp = make_attached();

	(void)state;
	run("ip link set v0 xdp off; tc qdisc del dev v0 clsact");
	ok(datapath_refresh_paths(dp, &err));
	assert_int_equal(devices_attached(dp), 0);
	ok(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err));
	assert_true(has_xdp("v0"));
	assert_true(runs("tc filter show dev v0 ingress | grep -q xlb_ingress"));
	run("tc qdisc del dev v0 clsact");
	ok(datapath_refresh_paths(dp, &err));
	assert_true(runs("tc filter show dev v0 egress | grep -q xlb_egress"));
	unmake(dp);
}

/* ---- ways to backends ---- */

static struct xlb_backend *entry_of(struct datapath *dp, const struct service *service,
				    uint32_t number)
{
	return backend_at(dp, id_of(dp, service->vip, number));
}

static void the_kernels_routes_decide(void **state)
{
	struct datapath *dp = make_attached();
	struct service *wish = service_of(vip_of(1), 5, 1), *six = service_of(vip6_of(1), 5, 1);
	struct in6_addr source6;

	(void)state;
	backend_put(wish, BRIDGED + 5, 1, XLB_BACKEND_ACTIVE);
	backend_put(wish, 1, 1, XLB_BACKEND_ACTIVE);	    /* 10.0.0.1: this node itself */
	backend_put(wish, 0x1e0001, 1, XLB_BACKEND_ACTIVE); /* 10.30.0.1: nowhere */
	apply(dp, wish);
	apply(dp, six);
	assert_int_equal(entry_of(dp, wish, 5)->ifindex, if_nametoindex("v0"));
	assert_int_equal(ntohl(entry_of(dp, wish, 5)->source.word[0]), 0x0a000001);
	assert_int_equal(entry_of(dp, wish, BRIDGED + 5)->ifindex, if_nametoindex("br0"));
	assert_int_equal(ntohl(entry_of(dp, wish, BRIDGED + 5)->source.word[0]), 0x0a010001);
	assert_int_equal(entry_of(dp, wish, 1)->ifindex, 1);
	assert_int_equal(entry_of(dp, wish, 0x1e0001)->ifindex, 0);
	assert_int_equal(entry_of(dp, wish, 0x1e0001)->source.word[0], 0);
	inet_pton(AF_INET6, "2001:db8:1::ffff", &source6);
	assert_memory_equal(&entry_of(dp, six, 5)->source, &source6, 16);
	service_free(wish);
	service_free(six);
	unmake(dp);
}

static bool warned(struct datapath *dp, const char *words)
{
	bool found = false;
	char **lines;
	size_t n;

	assert_int_equal(datapath_warnings(dp, &lines, &n), 0);
	for (size_t i = 0; i < n; i++) {
		found |= !!strstr(lines[i], words);
		assert_null(strchr(lines[i], '\n'));
		free(lines[i]);
	}
	free(lines);
	return found;
}

static void a_route_that_comes_later(void **state)
{
	struct datapath *dp = make_attached();
	struct service *wish = service_of(vip_of(1), 0x1e0001, 1);
	struct xlb_backend *entry;

	(void)state;
	apply(dp, wish);
	entry = entry_of(dp, wish, 0x1e0001);
	assert_true(warned(dp, "no route to 1 backend, 10.30.0.1:8080"));
	run("ip route add 10.30.0.0/16 via 10.1.0.9");
	/* With whatever is applied next, */
	datapath_unlock(dp);
	ok(datapath_lock(dp, NULL, &err));
	apply(dp, wish);
	assert_int_equal(entry->ifindex, if_nametoindex("br0"));
	assert_int_equal(ntohl(entry->source.word[0]), 0x0a010001);
	assert_false(warned(dp, "no route"));
	/* or when the routes are looked at again. */
	run("ip route replace 10.30.0.0/16 via 10.0.0.9");
	ok(datapath_refresh_paths(dp, &err));
	assert_int_equal(entry->ifindex, if_nametoindex("v0"));
	assert_int_equal(ntohl(entry->source.word[0]), 0x0a000001);
	assert_int_not_equal(entry->source_sum, 0);
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	service_free(wish);
	unmake(dp);
}

static void a_route_that_is_gone_for_a_while(void **state)
{
	struct datapath *dp = make_attached();
	struct service *wish = service_of(vip_of(1), BRIDGED + 5, 1);
	struct xlb_backend *entry;

	(void)state;
	apply(dp, wish);
	entry = entry_of(dp, wish, BRIDGED + 5);
	run("ip addr del 10.1.0.1/16 dev br0");
	ok(datapath_refresh_paths(dp, &err));
	assert_int_equal(ntohl(entry->source.word[0]), 0x0a010001);
	service_free(wish);
	unmake(dp);
}

static void changes_wake_us(void **state)
{
	struct datapath *dp = make_attached();
	struct pollfd events = { .fd = datapath_path_events_fd(dp, &err), .events = POLLIN };

	(void)state;
	assert_true(events.fd >= 0);
	assert_int_equal(datapath_path_events_fd(dp, &err), events.fd);
	datapath_path_events_drain(dp);
	assert_int_equal(poll(&events, 1, 0), 0);
	run("ip route add 10.40.0.0/16 via 10.0.0.9");
	assert_int_equal(poll(&events, 1, 1000), 1);
	datapath_path_events_drain(dp);
	assert_int_equal(poll(&events, 1, 0), 0);
	run("ip -6 addr add 2001:db8:7::1/64 dev br0 nodad");
	assert_int_equal(poll(&events, 1, 1000), 1);
	unmake(dp);
}

static void replies_are_caught_where_backends_are(void **state)
{
	struct datapath *dp = make_attached();
	struct service *wish = service_of(vip_of(1), BRIDGED + 5, 2);

	(void)state;
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	apply(dp, wish);
	assert_true(runs("tc filter show dev br0 ingress | grep -q xlb_ingress"));
	assert_false(runs("tc filter show dev br0 egress | grep -q xlb"));
	assert_false(runs("tc qdisc show dev lo | grep -q clsact"));
	backend_drop(wish, BRIDGED + 5);
	apply(dp, wish);
	assert_true(runs("tc filter show dev br0 ingress | grep -q xlb_ingress"));
	backend_drop(wish, BRIDGED + 6);
	apply(dp, wish);
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	service_free(wish);
	unmake(dp);
}

static void anothers_filters_stay(void **state)
{
	struct datapath *dp = make_attached();
	struct service *wish = service_of(vip_of(1), BRIDGED + 5, 1);

	(void)state;
	apply(dp, wish);
	/* It came while ours was there, on a qdisc that we made. */
	run("tc filter add dev br0 egress prio 20 bpf bytecode '1,6 0 0 0,'");
	ok(datapath_apply(dp, &wish->vip, NULL, &err));
	assert_true(runs("tc filter show dev br0 egress | grep -q bytecode"));
	assert_false(runs("tc filter show dev br0 ingress | grep -q xlb"));
	/* A qdisc that was there is not ours to remove. */
	run("tc qdisc del dev br0 clsact; tc qdisc add dev br0 clsact");
	apply(dp, wish);
	ok(datapath_apply(dp, &wish->vip, NULL, &err));
	assert_true(runs("tc qdisc show dev br0 | grep -q clsact"));
	service_free(wish);
	unmake(dp);
}

static void the_last_detach_leaves_no_filters(void **state)
{
	struct datapath *dp = make_attached();
	struct service *wish = service_of(vip_of(1), BRIDGED + 5, 1);

	(void)state;
	apply(dp, wish);
	ok(datapath_detach(dp, "v0", &err));
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	backend_put(wish, BRIDGED + 6, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	/* Attached anew, it is back. */
	ok(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err));
	assert_true(runs("tc filter show dev br0 ingress | grep -q xlb_ingress"));
	service_free(wish);
	unmake(dp);
}

static void an_attached_device_where_backends_are(void **state)
{
	struct datapath *dp = make_attached();
	struct service *wish = service_of(vip_of(1), BRIDGED + 5, 1);

	(void)state;
	apply(dp, wish);
	ok(datapath_attach(dp, "br0", ATTACH_AUTO, 0, note, &err));
	assert_true(runs("tc filter show dev br0 egress | grep -q xlb_egress"));
	/* It goes on being watched, but only that. */
	ok(datapath_detach(dp, "br0", &err));
	assert_true(runs("tc filter show dev br0 ingress | grep -q xlb_ingress"));
	assert_false(runs("tc filter show dev br0 egress | grep -q xlb"));
	ok(datapath_apply(dp, &wish->vip, NULL, &err));
	assert_false(runs("tc qdisc show dev br0 | grep -q clsact"));
	service_free(wish);
	unmake(dp);
}

static void addresses_for_node_ports(void **state)
{
	struct datapath *dp = make_attached();
	struct endpoint *addresses;
	size_t n, v4 = 0, v6 = 0;

	(void)state;
	ok(datapath_device_addresses(dp, &addresses, &n, &err));
	for (size_t i = 0; i < n; i++) {
		char text[ENDPOINT_TEXT_MAX];

		address_format(&addresses[i].address, addresses[i].family, text);
		v4 += !strcmp(text, "10.0.0.1") || !strcmp(text, "10.0.99.1");
		v6 += !strcmp(text, "2001:db8:1::ffff");
	}
	/* Neither br0's, nor link-local ones. */
	assert_int_equal(n, 3);
	assert_int_equal(v4, 2);
	assert_int_equal(v6, 1);
	free(addresses);
	unmake(dp);
}

static void warnings_that_matter(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 5, 1);

	(void)state;
	assert_true(warned(dp, "attached to no device"));
	run("sysctl -qw net.ipv4.ip_forward=0");
	ok(datapath_attach(dp, "v0", ATTACH_GENERIC, 0, note, &err));
	assert_false(warned(dp, "forwarding"));
	apply(dp, wish);
	assert_true(warned(dp, "net.ipv4.conf.v0.forwarding is 0"));
	assert_true(warned(dp, "generic mode"));
	run("sysctl -qw net.ipv4.ip_forward=1");
	assert_false(warned(dp, "forwarding is 0"));
	assert_false(warned(dp, "full"));
	for (uint32_t i = 0; i < 60; i++)
		backend_put(wish, 100 + i, 1, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_true(warned(dp, "the map backends is 96 % full"));
	run("sysctl -qw net.ipv4.ip_local_port_range='30000 60999'");
	assert_true(warned(dp, "ip_local_port_range"));
	run("sysctl -qw net.ipv4.ip_local_port_range='32768 60999'");
	unlink(PIN_DIR "/counters");
	assert_true(warned(dp, "iterator"));
	service_free(wish);
	unmake(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(attached_and_detached),
		WORLD(looking_costs_no_descriptors),
		WORLD(attached_again),
		WORLD(generic_where_native_is_not),
		WORLD(a_failed_attach_leaves_nothing),
		WORLD(devices_that_there_are_not),
		WORLD(anothers_program_stays),
		WORLD(two_instances_on_one_machine),
		WORLD(destroying_while_attached),
		WORLD(a_device_that_went_away),
		WORLD(the_uplink_does_not_depend_on_chance),
		WORLD(taken_away_behind_our_back),
		WORLD(the_kernels_routes_decide),
		WORLD(a_route_that_comes_later),
		WORLD(a_route_that_is_gone_for_a_while),
		WORLD(changes_wake_us),
		WORLD(replies_are_caught_where_backends_are),
		WORLD(anothers_filters_stay),
		WORLD(the_last_detach_leaves_no_filters),
		WORLD(an_attached_device_where_backends_are),
		WORLD(addresses_for_node_ports),
		WORLD(warnings_that_matter),
	};

	if (!in_sandbox()) {
		fputs("skipped: it changes devices; scripts/sandbox build/tests/unit/attach_test\n",
		      stderr);
		return 77;
	}
	return cmocka_run_group_tests_name("attach", tests, NULL, NULL);
}
