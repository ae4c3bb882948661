// SPDX-License-Identifier: GPL-2.0
/* The applier and the maps: what packets would see, what a reader sees, and what is left when a writer dies. */
#include "datapath_sound.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <xlb/hash.h>

/* ---- making and removing ---- */

static void nothing_there(void **state)
{
	struct datapath *dp;

	(void)state;
	assert_int_equal(datapath_open(PIN_DIR, &dp, &err), -ENOENT);
	assert_string_equal(err.text, PIN_DIR ": nothing there; run `lbctl attach DEV` first");
}

/* Asked without xlb's own: an iterator is a tracing program, of which some kernels take none. */
static bool iterators(void)
{
	return libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_TRACING, NULL) == 1;
}

static void made_whole_and_removed_whole(void **state)
{
	static const char *const pins[] = { "services",	     "services6",     "backends",
					    "backend_stats", "service_stats", "flows",
					    "flows6",	     "drops",	      "config",
					    "xdp",	     "tc_ingress",    "tc_egress" };
	struct datapath *dp = make((struct datapath_sizes){});
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof(pins) / sizeof(pins[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", PIN_DIR, pins[i]);
		assert_int_equal(access(path, F_OK), 0);
	}
	assert_int_equal(!access(PIN_DIR "/counters", F_OK), iterators());
	assert_int_equal(config_of(dp)->abi_version, XLB_ABI_VERSION);
	assert_int_equal(config_of(dp)->services, 16384);
	assert_int_equal(config_of(dp)->flow_lines * XLB_FLOW_WAYS, 2 << 20);
	assert_true(config_of(dp)->secret[0] & config_of(dp)->secret[1] & 1); /* hash.h: odd */
	assert_sound(dp);
	unmake(dp);
	assert_int_not_equal(access(PIN_DIR, F_OK), 0);
	assert_int_not_equal(access(PIN_DIR "-new", F_OK), 0);
	assert_int_not_equal(access(PIN_DIR "-old", F_OK), 0);
}

static void ticks_are_about_a_second(void **state)
{
	struct datapath *dp = make_small();
	const struct xlb_config *config = config_of(dp);
	double tick = (double)(1u << config->tick_shift) / config->hz;
	uint32_t established;

	(void)state;
	assert_true(tick > 0.7 && tick < 1.5);
	established = config->timeouts[XLB_FLOW_ESTABLISHED] - XLB_FLOW_LAG;
	assert_true(established * tick >= 7440);
	assert_true(established * tick < 7442);
	unmake(dp);
}

static void ports_stay_clear_of_the_nodes_own(void **state)
{
	struct datapath *dp;
	struct datapath_sizes none = {};

	(void)state;
	run("sysctl -qw net.ipv4.ip_local_port_range='32768 60999'");
	dp = make_small();
	assert_int_equal(config_of(dp)->port_min, 1024);
	assert_int_equal(config_of(dp)->port_max, 32767);
	unmake(dp);
	run("sysctl -qw net.ipv4.ip_local_port_range='1024 20000'");
	dp = make_small();
	assert_int_equal(config_of(dp)->port_min, 20001);
	assert_int_equal(config_of(dp)->port_max, 65535);
	unmake(dp);
	run("sysctl -qw net.ipv4.ip_local_port_range='1024 65535'");
	assert_int_equal(datapath_create(PIN_DIR, &none, &dp, &err), -ERANGE);
	assert_non_null(strstr(err.text, "ip_local_port_range"));
	run("sysctl -qw net.ipv4.ip_local_port_range='32768 60999'");
}

static void sizes_out_of_range(void **state)
{
	static const struct datapath_sizes wrong[] = {
		{ .services = 32769 },
		{ .backends = 1u << 25 },
		{ .flows = 100 },
		{ .flows = UINT32_MAX },
		{ .flows6 = 7 },
		{ .port_min = 80, .port_max = 1000 },
		{ .port_min = 5000, .port_max = 4000 },
		{ .port_min = 5000 },
	};
	struct datapath *dp;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(datapath_create(PIN_DIR, &wrong[i], &dp, &err), -ERANGE);
		assert_int_not_equal(access(PIN_DIR, F_OK), 0);
	}
}

static void other_sizes_than_those_there(void **state)
{
	struct datapath *dp = make_small(), *other;
	struct datapath_sizes same = { .services = 16 }, differ = { .backends = 1024 };

	(void)state;
	datapath_unlock(dp);
	ok(datapath_create(PIN_DIR, &same, &other, &err));
	datapath_close(other);
	assert_int_equal(datapath_create(PIN_DIR, &differ, &other, &err), -EEXIST);
	assert_non_null(strstr(err.text, "backends"));
	unmake(dp);
}

static void another_version(void **state)
{
	struct datapath *dp = make_small(), *other;

	(void)state;
	config_of(dp)->abi_version = 4711;
	assert_int_equal(datapath_open(PIN_DIR, &other, &err), -EPROTO);
	assert_non_null(strstr(err.text, "4711"));
	config_of(dp)->abi_version = XLB_ABI_VERSION;
	unlink(PIN_DIR "/rotation");
	assert_int_equal(datapath_open(PIN_DIR, &other, &err), -EPROTO);
	assert_non_null(strstr(err.text, "rotation"));
	unmake(dp);
}

static void not_on_bpffs(void **state)
{
	struct datapath_sizes none = {};
	struct datapath *dp;

	(void)state;
	assert_int_equal(datapath_create("/tmp/xlb-test", &none, &dp, &err), -EINVAL);
	assert_non_null(strstr(err.text, "BPF file system"));
	assert_int_equal(datapath_create("/nowhere/at/all", &none, &dp, &err), -ENOENT);
	assert_int_equal(datapath_create("/", &none, &dp, &err), -EINVAL);
	assert_int_equal(datapath_create("xlb", &none, &dp, &err), -EINVAL);
}

static void something_else_in_the_directory(void **state)
{
	struct datapath_sizes none = {};
	struct datapath *dp;

	(void)state;
	mkdir(PIN_DIR, 0700);
	mkdir(PIN_DIR "/foreign", 0700);
	assert_int_not_equal(datapath_create(PIN_DIR, &none, &dp, &err), 0);
	assert_non_null(strstr(err.text, "something else"));
	assert_int_equal(access(PIN_DIR "/foreign", F_OK), 0);
	assert_int_not_equal(access(PIN_DIR "-new", F_OK), 0);
	rmdir(PIN_DIR "/foreign");
	/* An empty one will do. */
	dp = make_small();
	unmake(dp);
}

static void left_by_a_maker_that_died(void **state)
{
	struct datapath *dp;

	(void)state;
	dp = make_small();
	mkdir(PIN_DIR "-new", 0700);
	run("bpftool map pin pinned " PIN_DIR "/drops " PIN_DIR "-new/drops");
	unmake(dp);
	dp = make_small();
	assert_int_not_equal(access(PIN_DIR "-new", F_OK), 0);
	unmake(dp);
}

static void no_bpffs_is_mounted(void **state)
{
	struct datapath *dp;

	(void)state;
	run("umount /sys/fs/bpf");
	assert_int_equal(datapath_open(PIN_DIR, &dp, &err), -ENOENT);
	dp = make_small();
	assert_int_equal(access(PIN_DIR "/services", F_OK), 0);
	unmake(dp);
}

static void no_btf(void **state)
{
	struct datapath_sizes none = {};
	struct datapath *dp;

	(void)state;
	assert_int_equal(mount("none", "/sys/kernel/btf", "tmpfs", 0, NULL), 0);
	assert_int_equal(datapath_create(PIN_DIR, &none, &dp, &err), -ENOTSUP);
	umount("/sys/kernel/btf");
	assert_non_null(strstr(err.text, "BTF"));
	assert_null(strchr(err.text, '\n'));
	assert_int_not_equal(access(PIN_DIR "-new", F_OK), 0);
}

static void not_root(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	if (!child) {
		struct datapath_sizes none = {};
		struct datapath *dp;
		int right;

		if (setuid(65534))
			_exit(1);
		right = datapath_open(PIN_DIR, &dp, &err) == -EPERM &&
			strstr(err.text, "CAP_BPF") && strstr(err.text, "CAP_NET_ADMIN") &&
			datapath_create(PIN_DIR, &none, &dp, &err) == -EPERM;
		_exit(right ? 0 : 2);
	}
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
}

/* ---- applying ---- */

static void a_service_comes_and_goes(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 3);
	struct endpoint vip = wish->vip;

	(void)state;
	strcpy(wish->name, "default/hello:http");
	wish->owner = XLB_OWNER_KUBERNETES;
	wish->scheduler = XLB_SCHEDULER_RR;
	wish->forward = XLB_FORWARD_DNAT;
	apply(dp, wish);
	assert_sound(dp);
	assert_int_equal(target_of(dp, vip).ring_size, 3);
	assert_string_equal(model_find(dp->model, &vip)->name, "default/hello:http");
	assert_int_equal(datapath_apply(dp, &vip, NULL, &err), 0);
	assert_sound(dp);
	assert_int_equal(model_count(dp->model), 0);
	assert_int_equal(dp->ring_lines.used, 0);
	assert_int_equal(datapath_apply(dp, &vip, NULL, &err), -ENOENT);
	service_free(wish);
	unmake(dp);
}

static void both_families_and_protocols(void **state)
{
	struct datapath *dp = make_small();
	struct endpoint vip = vip_of(1);

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct endpoint this = i & 1 ? vip6_of(1) : vip_of(1);
		struct service *wish;

		this.protocol = i & 2 ? XLB_UDP : XLB_TCP;
		wish = service_of(this, i, 2);
		apply(dp, wish);
		service_free(wish);
	}
	assert_int_equal(model_count(dp->model), 4);
	assert_sound(dp);
	assert_int_equal(datapath_apply(dp, &vip, NULL, &err), 0);
	assert_int_equal(model_count(dp->model), 3);
	assert_sound(dp);
	unmake(dp);
}

static void a_flap_keeps_the_id(void **state)
{
	static const uint8_t states[] = { XLB_BACKEND_DRAINING, XLB_BACKEND_ACTIVE,
					  XLB_BACKEND_DOWN, XLB_BACKEND_ACTIVE };
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 3);
	uint32_t id;

	(void)state;
	apply(dp, wish);
	id = id_of(dp, wish->vip, 1);
	for (size_t i = 0; i < sizeof(states); i++) {
		backend_put(wish, 1, 1 + i, states[i]);
		apply(dp, wish);
		assert_int_equal(id_of(dp, wish->vip, 1), id);
		assert_int_equal(!!in_ring(dp, wish->vip, id), states[i] == XLB_BACKEND_ACTIVE);
		assert_sound(dp);
	}
	service_free(wish);
	unmake(dp);
}

static void the_next_hop_of_a_live_backend_is_left_alone(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 2);
	struct xlb_backend *entry;

	(void)state;
	apply(dp, wish);
	entry = backend_at(dp, id_of(dp, wish->vip, 0));
	memset(&entry->next_hop, 0x5a, sizeof(entry->next_hop));
	backend_put(wish, 0, 9, XLB_BACKEND_ACTIVE);
	backend_put(wish, 5, 9, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_int_equal(entry->next_hop.checked, 0x5a5a5a5a);
	assert_int_equal(entry->weight, 9);
	service_free(wish);
	unmake(dp);
}

static void a_change_without_effect_on_the_ring_keeps_it(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 3);
	union xlb_service_target before;

	(void)state;
	backend_put(wish, 7, 1, XLB_BACKEND_DRAINING);
	apply(dp, wish);
	before = target_of(dp, wish->vip);
	backend_drop(wish, 7);
	strcpy(wish->name, "other");
	apply(dp, wish);
	assert_int_equal(target_of(dp, wish->vip).word, before.word);
	wish->forward = XLB_FORWARD_DNAT;
	apply(dp, wish);
	assert_int_equal(target_of(dp, wish->vip).ring_line, before.ring_line);
	assert_int_equal(target_of(dp, wish->vip).forward, XLB_FORWARD_DNAT);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void nobody_left_is_an_empty_ring(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 2);

	(void)state;
	apply(dp, wish);
	backend_put(wish, 0, 0, XLB_BACKEND_ACTIVE);
	backend_put(wish, 1, 1, XLB_BACKEND_DRAINING);
	apply(dp, wish);
	assert_int_equal(target_of(dp, wish->vip).ring_size, 0);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void a_new_ring_lies_elsewhere(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 2);
	union xlb_service_target before;

	(void)state;
	apply(dp, wish);
	before = target_of(dp, wish->vip);
	backend_put(wish, 0, 3, XLB_BACKEND_ACTIVE);
	apply(dp, wish);
	assert_int_not_equal(target_of(dp, wish->vip).ring_line, before.ring_line);
	service_free(wish);
	unmake(dp);
}

static void what_cannot_be_is_refused(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 2);

	(void)state;
	wish->forward = XLB_FORWARD_DNAT;
	wish->backends[0].endpoint.family = XLB_IPV6;
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -EINVAL);
	wish->backends[0].endpoint.family = XLB_IPV4;
	wish->forward = XLB_FORWARD_NAT;
	wish->backends[0].state = XLB_BACKEND_RETIRED;
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -EINVAL);
	wish->backends[0].state = XLB_BACKEND_ACTIVE;
	wish->scheduler = 9;
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -EINVAL);
	wish->scheduler = XLB_SCHEDULER_MAGLEV;
	datapath_unlock(dp);
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -EINVAL);
	assert_int_equal(model_count(dp->model), 0);
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

/* ---- full maps ---- */

static void no_room_for_backends(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 60), *more = service_of(vip_of(2), 0, 10);
	uint32_t id;

	(void)state;
	apply(dp, wish);
	id = id_of(dp, wish->vip, 0);
	assert_int_equal(datapath_apply(dp, &more->vip, more, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "backends"));
	assert_non_null(strstr(err.text, "--max-backends"));
	assert_int_equal(model_count(dp->model), 1);
	assert_int_equal(id_of(dp, wish->vip, 0), id);
	assert_sound(dp);
	/* An old service that grows too much keeps what it has. */
	for (uint32_t i = 60; i < 80; i++)
		backend_put(wish, i, 1, XLB_BACKEND_ACTIVE);
	assert_int_equal(datapath_apply(dp, &wish->vip, wish, &err), -ENOSPC);
	assert_int_equal(model_find(dp->model, &wish->vip)->n_backends, 60);
	assert_sound(dp);
	service_free(wish);
	service_free(more);
	unmake(dp);
}

static void no_room_for_services(void **state)
{
	struct datapath *dp = make_small();
	uint32_t n = 0;

	(void)state;
	for (;; n++) {
		struct service *wish = service_of(vip_of(n), 0, 1);
		int r = datapath_apply(dp, &wish->vip, wish, &err);

		service_free(wish);
		if (r) {
			assert_int_equal(r, -ENOSPC);
			assert_non_null(strstr(err.text, "services"));
			break;
		}
	}
	assert_true(n >= 16);
	assert_int_equal(model_count(dp->model), n);
	assert_sound(dp);
	unmake(dp);
}

/* As many as were asked for, wherever their VIPs fall. */
static void all_services_fit_that_were_asked_for(void **state)
{
	struct datapath *dp = make((struct datapath_sizes){
		.services = 1024, .backends = 64, .flows = 1024 });

	(void)state;
	for (uint32_t n = 0; n < 1024; n++) {
		struct service *four = service_of(vip_of(n), 0, 0);
		struct service *six = service_of(vip6_of(n), 0, 0);

		apply(dp, four);
		apply(dp, six);
		service_free(four);
		service_free(six);
	}
	assert_int_equal(model_count(dp->model), 2048);
	assert_all_found(dp);
	unmake(dp);
}

/* What all maps take, as bpftool shows it. */
static void memory_is_bounded(void **state)
{
	struct datapath *dp;
	unsigned long long sum = 0;
	struct utsname name;
	unsigned int major, minor;

	(void)state;
	/* Before Linux 6.4 it is not what they take but what they may grow to. */
	if (uname(&name) || sscanf(name.release, "%u.%u", &major, &minor) != 2 || major < 6 ||
	    (major == 6 && minor < 4))
		SKIP_BECAUSE("before Linux 6.4 it says how far maps may grow, not what they take");
	dp = make((struct datapath_sizes){});
	for (int id = 0; id < MAPS; id++) {
		unsigned long long bytes;
		char path[64], line[128];
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", dp->maps[id].fd);
		file = fopen(path, "r");
		assert_non_null(file);
		while (fgets(line, sizeof(line), file))
			if (sscanf(line, "memlock: %llu", &bytes) == 1)
				sum += bytes;
		fclose(file);
	}
	/* 100 MB with two CPUs, and what each further one counts and caches by itself. */
	assert_in_range(sum, 1, 100000000 + (dp->cpus > 2 ? dp->cpus - 2 : 0) * 4000000ull);
	print_message("%.1f MB with %d CPUs\n", sum / 1e6, dp->cpus);
	unmake(dp);
}

static void no_room_for_rings(void **state)
{
	struct datapath *dp = make((struct datapath_sizes){
		.services = 16, .backends = 1024, .flows = 1024, .ring_slots = 16384 });
	struct service *wish = service_of(vip_of(1), 0, 100), *more = service_of(vip_of(2), 0, 100);

	(void)state;
	apply(dp, wish);
	assert_int_equal(datapath_apply(dp, &more->vip, more, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "rings"));
	assert_int_equal(model_count(dp->model), 1);
	assert_sound(dp);
	service_free(wish);
	service_free(more);
	unmake(dp);
}

/* ---- ids ---- */

static void flow_put(struct datapath *dp, uint32_t slot, uint32_t backend, bool ipv6)
{
	union xlb_flow_value value = { .backend = backend, .state = XLB_FLOW_ESTABLISHED };
	uint64_t *flows = map_memory(dp, ipv6 ? MAP_FLOWS6 : MAP_FLOWS, &err);

	flows[slot * (ipv6 ? 4 : 2) + (ipv6 ? 3 : 1)] = value.word;
}

static uint64_t flow_get(struct datapath *dp, uint32_t slot, bool ipv6)
{
	uint64_t *flows = map_memory(dp, ipv6 ? MAP_FLOWS6 : MAP_FLOWS, &err);

	return flows[slot * (ipv6 ? 4 : 2) + (ipv6 ? 3 : 1)];
}

static void ids_come_back_without_their_flows(void **state)
{
	struct datapath *dp = make_small();
	struct service *keeps = service_of(vip_of(1), 0, 1), *goes = service_of(vip_of(2), 10, 62);
	uint32_t last = config_of(dp)->flow_lines * 2 * XLB_FLOW_WAYS - 1;
	uint32_t kept, gone;

	(void)state;
	apply(dp, keeps);
	apply(dp, goes);
	kept = id_of(dp, keeps->vip, 0);
	gone = id_of(dp, goes->vip, 10);
	flow_put(dp, 3, kept, false);
	flow_put(dp, 4, gone, false);
	flow_put(dp, last, gone, false);
	flow_put(dp, 5, gone, true);
	flow_put(dp, 6, kept, true);
	ok(datapath_apply(dp, &goes->vip, NULL, &err));
	assert_int_equal(backend_at(dp, gone)->state, XLB_BACKEND_RETIRED);
	assert_int_not_equal(flow_get(dp, 4, false), 0);
	assert_true(filter_has(dp, &goes->backends[0].endpoint, XLB_TCP));
	/* No other id is left: they have to be collected now. */
	apply(dp, goes);
	assert_sound(dp);
	assert_int_equal(flow_get(dp, 4, false), 0);
	assert_int_equal(flow_get(dp, last, false), 0);
	assert_int_equal(flow_get(dp, 5, true), 0);
	assert_int_not_equal(flow_get(dp, 3, false), 0);
	assert_int_not_equal(flow_get(dp, 6, true), 0);
	assert_int_equal(id_of(dp, keeps->vip, 0), kept);
	service_free(keeps);
	service_free(goes);
	unmake(dp);
}

static void the_filter_forgets(void **state)
{
	struct datapath *dp = make_small(), *other;
	struct datapath_sizes none = {};
	struct service *wish = service_of(vip_of(1), 0, 2);
	struct backend gone = backend_of(XLB_IPV4, 0), stays = backend_of(XLB_IPV4, 1);

	(void)state;
	apply(dp, wish);
	backend_drop(wish, 0);
	apply(dp, wish);
	assert_true(filter_has(dp, &gone.endpoint, XLB_TCP));
	datapath_unlock(dp);
	ok(datapath_create(PIN_DIR, &none, &other, &err));
	datapath_close(other);
	assert_false(filter_has(dp, &gone.endpoint, XLB_TCP));
	assert_true(filter_has(dp, &stays.endpoint, XLB_TCP));
	assert_true(filter_has(dp, &wish->vip, XLB_TCP));
	ok(datapath_lock(dp, NULL, &err));
	assert_sound(dp);
	service_free(wish);
	unmake(dp);
}

static void many_changes_wear_nothing_out(void **state)
{
	struct datapath *dp = make_small();
	uint32_t random = 7;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		struct service *wish;

		random = random * 1664525 + 1013904223;
		wish = service_of(random >> 31 ? vip_of(random >> 20 & 7) :
						 vip6_of(random >> 20 & 7),
				  random >> 8 & 15, random >> 12 & 3);
		wish->scheduler = random >> 28 & 1;
		if ((random >> 24 & 3) || !model_find(dp->model, &wish->vip))
			apply(dp, wish);
		else
			ok(datapath_apply(dp, &wish->vip, NULL, &err));
		assert_all_found(dp);
		if (i % 300 == 0)
			assert_sound(dp);
		service_free(wish);
	}
	assert_sound(dp);
	unmake(dp);
}

/* ---- several writers, and writers that die ---- */

static void another_writer_is_noticed(void **state)
{
	struct datapath *one = make_small(), *two;
	struct service *wish = service_of(vip_of(1), 0, 3);

	(void)state;
	two = open_again();
	apply(one, wish);
	datapath_unlock(one);
	assert_int_equal(model_count(two->model), 0);
	ok(datapath_lock(two, NULL, &err));
	assert_int_equal(model_count(two->model), 1);
	ok(datapath_apply(two, &wish->vip, NULL, &err));
	datapath_unlock(two);
	ok(datapath_lock(one, NULL, &err));
	assert_int_equal(model_count(one->model), 0);
	assert_sound(one);
	datapath_close(two);
	service_free(wish);
	unmake(one);
}

static int waited;

static void waiting(const char *pin_dir)
{
	assert_string_equal(pin_dir, PIN_DIR);
	waited++;
}

static void the_second_waits_and_says_so(void **state)
{
	struct datapath *dp = make_small(), *two = open_again();
	pid_t child;

	(void)state;
	datapath_unlock(dp);
	child = fork();
	if (!child) {
		struct datapath *holder = open_again();

		if (datapath_lock(holder, NULL, &err))
			_exit(1);
		usleep(1500 * 1000);
		_exit(0);
	}
	usleep(200 * 1000);
	ok(datapath_lock(two, waiting, &err));
	assert_int_equal(waited, 1);
	waitpid(child, NULL, 0);
	datapath_unlock(two);
	ok(datapath_lock(two, waiting, &err));
	assert_int_equal(waited, 1);
	datapath_close(two);
	unmake(dp);
}

static void removed_while_waiting(void **state)
{
	struct datapath *dp = make_small(), *two = open_again();

	(void)state;
	unmake(dp);
	assert_int_equal(datapath_lock(two, NULL, &err), -ESTALE);
	dp = make_small();
	assert_int_equal(datapath_lock(two, NULL, &err), -ESTALE);
	datapath_close(two);
	unmake(dp);
}

/* Half a change, as each step of one could leave it. */
static void half_done_is_finished(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 3), *dead = service_of(vip_of(2), 20, 2);
	uint32_t slot, nowhere = 0, orphan, unborn = 50, doubled = 51, key;
	struct xlb_service_stats *stats;
	struct xlb_service_info info;

	(void)state;
	apply(dp, wish);
	apply(dp, dead);
	/* A deletion that came as far as the tombstone. */
	slot = model_find(dp->model, &dead->vip)->id;
	key = service_key(dp, XLB_IPV4, slot);
	stats = map_values_new(dp, MAP_SERVICE_STATS);
	stats->flows = 7;
	bpf_map_update_elem(dp->maps[MAP_SERVICE_STATS].fd, &key, stats, BPF_ANY);
	orphan = id_of(dp, dead->vip, 20);
	write_begin(dp);
	service_begin(&(struct slot){ .generation = slot_at(dp, XLB_IPV4, slot).generation });
	slot_withdraw(dp, XLB_IPV4, slot);
	/* Backends that were written for a ring that was not: one of an unborn service, one a double. */
	*backend_at(dp, unborn) = *backend_at(dp, orphan);
	while (slot_live(dp, XLB_IPV4, nowhere) || nowhere == slot)
		nowhere++;
	backend_at(dp, unborn)->service = nowhere;
	*backend_at(dp, doubled) = *backend_at(dp, id_of(dp, wish->vip, 0));
	service_begin(&(struct slot){
		.generation =
			slot_at(dp, XLB_IPV4, model_find(dp->model, &wish->vip)->id).generation });
	ok(backend_stats_make(dp, &unborn, 1, &err));
	/* Counters of nobody, and somebody without counters. */
	ok(backend_stats_make(dp, &(uint32_t){ 60 }, 1, &err));
	backend_stats_delete(dp, id_of(dp, wish->vip, 1));
	datapath_close(dp);

	dp = open_again();
	ok(datapath_lock(dp, NULL, &err));
	assert_sound(dp);
	assert_int_equal(model_count(dp->model), 1);
	assert_int_equal(model_find(dp->model, &wish->vip)->n_backends, 3);
	assert_int_equal(backend_at(dp, orphan)->state, XLB_BACKEND_RETIRED);
	assert_int_equal(backend_at(dp, unborn)->state, XLB_BACKEND_RETIRED);
	/* Nor does anything tell of the deleted service. */
	assert_int_not_equal(bpf_map_lookup_elem(dp->maps[MAP_SERVICE_INFO].fd, &key, &info), 0);
	assert_int_equal(bpf_map_lookup_elem(dp->maps[MAP_SERVICE_STATS].fd, &key, stats), 0);
	assert_int_equal(stats->flows, 0);
	free(stats);
	service_free(wish);
	service_free(dead);
	unmake(dp);
}

/* There is one ring, which leaves no room for another. */
static void half_done_is_finished_without_room(void **state)
{
	struct datapath *dp = make((struct datapath_sizes){
		.services = 16, .backends = 1024, .flows = 1024, .ring_slots = 16384 });
	struct service *wish = service_of(vip_of(1), 0, 100);
	uint32_t slot;

	(void)state;
	apply(dp, wish);
	slot = model_find(dp->model, &wish->vip)->id;
	write_begin(dp);
	service_begin(&(struct slot){ .generation = slot_at(dp, XLB_IPV4, slot).generation });
	datapath_close(dp);

	dp = open_again();
	ok(datapath_lock(dp, NULL, &err));
	assert_sound(dp);
	assert_int_equal(model_find(dp->model, &wish->vip)->n_backends, 100);
	service_free(wish);
	unmake(dp);
}

static void writer(void)
{
	struct datapath *dp = open_again();
	uint32_t random = getpid() * 2654435761u;

	for (;;) {
		struct service *wish;

		random = random * 1664525 + 1013904223;
		wish = service_of(vip_of(random >> 29), random >> 8 & 15, random >> 12 & 7);
		if (datapath_lock(dp, NULL, &err))
			_exit(1);
		if ((random >> 24 & 3) || !model_find(dp->model, &wish->vip))
			datapath_apply(dp, &wish->vip, wish, &err);
		else
			datapath_apply(dp, &wish->vip, NULL, &err);
		datapath_unlock(dp);
		service_free(wish);
	}
}

static void killed_at_any_time(void **state)
{
	(void)state;
	assert_survives_kills(writer, 1);
}

/* ---- reading ---- */

static void counters_are_summed(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 1);
	struct xlb_backend_tally *tally = map_values_new(dp, MAP_BACKEND_TALLY);
	struct backend *backend;
	struct counters counters;
	uint64_t dropped;

	(void)state;
	apply(dp, wish);
	backend = &model_find(dp->model, &wish->vip)->backends[0];
	for (int cpu = 0; cpu < dp->cpus; cpu++) {
		tally[cpu].to_backend = (struct xlb_count){ 1 + cpu, 100 };
		tally[cpu].flows = 1;
	}
	assert_int_equal(
		bpf_map_update_elem(dp->maps[MAP_BACKEND_TALLY].fd, &backend->id, tally, 0), 0);
	ok(datapath_backend_counters(dp, backend, &counters));
	assert_int_equal(counters.to_backend.packets, dp->cpus * (dp->cpus + 1) / 2);
	assert_int_equal(counters.to_backend.bytes, 100 * dp->cpus);
	assert_int_equal(counters.flows, dp->cpus);
	ok(datapath_service_counters(dp, model_find(dp->model, &wish->vip), &counters));
	assert_int_equal(counters.to_backend.packets, 0);
	ok(datapath_drop_count(dp, XLB_DROP_NO_ROUTE, &dropped));
	assert_int_equal(dropped, 0);
	assert_string_equal(drop_name(XLB_DROP_NO_ROUTE), "no_route");
	assert_string_equal(drop_name(77), "unknown");
	for (int reason = 0; reason < XLB_DROP_REASONS; reason++)
		assert_non_null(drop_name(reason));
	free(tally);
	service_free(wish);
	unmake(dp);
}

static void the_table_is_there_without_us(void **state)
{
	struct datapath *dp;
	struct service *wish;

	(void)state;
	if (!iterators())
		SKIP_BECAUSE("this kernel takes no BPF iterators");
	dp = make_small();
	wish = service_of(vip_of(1), 5, 1);
	apply(dp, wish);
	service_free(wish);
	assert_true(runs("grep -Eq '^198.51.100.1:80/tcp +10.0.0.5:8080 +active +0 +0 +0$' " PIN_DIR
			 "/counters"));
	unmake(dp);
}

static void use_of_maps_is_counted(void **state)
{
	struct datapath *dp = make_small();
	struct service *wish = service_of(vip_of(1), 0, 3);
	struct prefix range = { .family = XLB_IPV4, .length = 8 };
	struct xlb_affinity_key affine = { .service = 1 };
	struct xlb_fragment_key fragment = { .id = 1 };
	struct xlb_fragment ports = {};
	struct xlb_affinity bound = {};
	struct map_use *uses;
	size_t n, seen = 0;

	(void)state;
	service_add_range(wish, &range);
	apply(dp, wish);
	for (affine.pad = 0; affine.pad < 3; affine.pad++)
		bpf_map_update_elem(dp->maps[MAP_AFFINITY].fd, &affine, &bound, BPF_ANY);
	bpf_map_update_elem(dp->maps[MAP_FRAGMENTS].fd, &fragment, &ports, BPF_ANY);
	flow_put(dp, 9, 1, false);
	flow_put(dp, config_of(dp)->flow_lines * XLB_FLOW_WAYS + 9, 1, false);
	ok(datapath_map_use(dp, &uses, &n, &err));
	for (size_t i = 0; i < n; i++) {
		assert_true(uses[i].used <= uses[i].size);
		seen += (!strcmp(uses[i].name, "services") && uses[i].used == 1 &&
			 uses[i].size == 16) ||
			(!strcmp(uses[i].name, "backends") && uses[i].used == 3) ||
			(!strcmp(uses[i].name, "flows") && uses[i].used == 1) ||
			(!strcmp(uses[i].name, "ranges") && uses[i].used == 1) ||
			(!strcmp(uses[i].name, "affinity") && uses[i].used == 3) ||
			(!strcmp(uses[i].name, "fragments") && uses[i].used == 1);
		assert_true(uses[i].known);
	}
	assert_int_equal(seen, 6);
	free(uses);
	service_free(wish);
	unmake(dp);
}

int main(void)
{
	struct CMUnitTest tests[] = {
		TEST(nothing_there),
		TEST(made_whole_and_removed_whole),
		TEST(ticks_are_about_a_second),
		TEST(ports_stay_clear_of_the_nodes_own),
		TEST(sizes_out_of_range),
		TEST(other_sizes_than_those_there),
		TEST(another_version),
		TEST(not_on_bpffs),
		TEST(something_else_in_the_directory),
		TEST(left_by_a_maker_that_died),
		TEST(no_bpffs_is_mounted),
		TEST(no_btf),
		TEST(not_root),
		TEST(a_service_comes_and_goes),
		TEST(both_families_and_protocols),
		TEST(a_flap_keeps_the_id),
		TEST(the_next_hop_of_a_live_backend_is_left_alone),
		TEST(a_change_without_effect_on_the_ring_keeps_it),
		TEST(nobody_left_is_an_empty_ring),
		TEST(a_new_ring_lies_elsewhere),
		TEST(what_cannot_be_is_refused),
		TEST(no_room_for_backends),
		TEST(no_room_for_services),
		TEST(all_services_fit_that_were_asked_for),
		TEST(memory_is_bounded),
		TEST(no_room_for_rings),
		TEST(ids_come_back_without_their_flows),
		TEST(the_filter_forgets),
		TEST(many_changes_wear_nothing_out),
		TEST(another_writer_is_noticed),
		TEST(the_second_waits_and_says_so),
		TEST(removed_while_waiting),
		TEST(half_done_is_finished),
		TEST(half_done_is_finished_without_room),
		TEST(killed_at_any_time),
		TEST(counters_are_summed),
		TEST(the_table_is_there_without_us),
		TEST(use_of_maps_is_counted),
	};

	if (!in_sandbox()) {
		fputs("skipped: it changes BPF maps; scripts/sandbox build/tests/unit/datapath_test\n",
		      stderr);
		return 77;
	}
	return _cmocka_run_group_tests("datapath", tests,
				       share_of(tests, sizeof(tests) / sizeof(tests[0])), NULL, NULL);
}
