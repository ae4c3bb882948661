// SPDX-License-Identifier: GPL-2.0
/*
 * What a packet costs: `make bench`.
 *
 * Runs the real program (BPF_PROG_TEST_RUN, in a network namespace of its own with a veth, routes
 * and neighbours) under the wrapper of packet.bpf.c. ns = wrapped(program) - wrapped(return XDP_TX)
 * + empty; the figure that counts is the ratio of that to the floor (swap the MAC addresses,
 * XDP_TX), measured in the same rounds. Time is the thread's own CPU time: the kernel's `duration`
 * is whole nanoseconds, and wall time includes others.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <jansson.h>
#include <linux/if_link.h>

#include <xlb/abi.h>
#include <xlb/checksum.h>
#include <xlb/hash.h>

#include "datapath/internal.h"

#include "tests/bench/packet.skel.h"
#include "xlb.skel.h"

#include "packet.h"

#define BACKENDS 64
#define RING 6421		/* a prime above 100 * BACKENDS */
#define ROUNDS_DEFAULT 7
#define REPEAT_DEFAULT 2000000
#define FLOW_LINES (1u << 19)	/* what lbctl makes by default: a million flows */
#define FLOW6_LINES (1u << 19)	/* as many, to compare the families */
#define FILL_PARTS 16

/* The services, each with backends of its own. */
struct bench_service {
	const char *vip;
	uint16_t port;
	enum xlb_forward forward;
	enum xlb_family backends;
};

enum service_id { NAT4, DNAT4, L2, IPIP, GUE, FOUR_IN_6, NAT6, IP6IP6, SIX_IN_4, GUE6, SERVICES };

#define VIP4 "203.0.113.10"
#define VIP6 "2001:db8:2::10"

static const struct bench_service services[SERVICES] = {
	[NAT4] = { VIP4, 80, XLB_FORWARD_NAT, XLB_IPV4 },
	[DNAT4] = { VIP4, 81, XLB_FORWARD_DNAT, XLB_IPV4 },
	[L2] = { VIP4, 82, XLB_FORWARD_L2, XLB_IPV4 },
	[IPIP] = { VIP4, 83, XLB_FORWARD_IPIP, XLB_IPV4 },
	[GUE] = { VIP4, 84, XLB_FORWARD_GUE, XLB_IPV4 },
	[FOUR_IN_6] = { VIP4, 85, XLB_FORWARD_IPIP, XLB_IPV6 },
	[NAT6] = { VIP6, 80, XLB_FORWARD_NAT, XLB_IPV6 },
	[IP6IP6] = { VIP6, 83, XLB_FORWARD_IPIP, XLB_IPV6 },
	[SIX_IN_4] = { VIP6, 85, XLB_FORWARD_IPIP, XLB_IPV4 },
	[GUE6] = { VIP6, 84, XLB_FORWARD_GUE, XLB_IPV6 },
};

/* What a row sends to its service. */
enum kind { REQUEST, REPLY, OTHER, ECHO };

struct row {
	const char *name;
	enum service_id service;
	enum kind kind;
	uint32_t flows;		/* 0: as many as there are packets */
	bool begin;		/* SYN: a packet of an unknown flow begins it */
	bool live;		/* the frame is really sent, and received at the other end */
	double budget;		/* ratio to the floor; 0: none */
	double ns, ratio, least;	/* results */
};

#define M (1u << 20)
#define K64 (1u << 16)

static struct row rows[] = {
	{ "not ours, IPv4", NAT4, OTHER, 1, false, false, 2.5, 0, 0, 0 },
	{ "not ours, IPv4, 1 M flows", NAT4, OTHER, M, false, false, 2.5, 0, 0, 0 },
	{ "not ours, IPv6", NAT6, OTHER, 1, false, false, 2.5, 0, 0, 0 },
	{ "IPIP, established, 1 flow", IPIP, REQUEST, 1, false, false, 5, 0, 0, 0 },
	{ "IPIP, established, 64 K flows", IPIP, REQUEST, K64, false, false, 5.5, 0, 0, 0 },
	{ "IPIP, established, 1 M flows", IPIP, REQUEST, M, false, false, 6, 0, 0, 0 },
	{ "IPIP, new flow every packet, 1 M", IPIP, REQUEST, M, true, false, 6, 0, 0, 0 },
	{ "IP6IP6, established, 1 flow", IP6IP6, REQUEST, 1, false, false, 6, 0, 0, 0 },
	{ "IP6IP6, established, 1 M flows", IP6IP6, REQUEST, M, false, false, 7, 0, 0, 0 },
	{ "IP6IP6, new flow every packet, 1 M", IP6IP6, REQUEST, M, true, false, 7, 0, 0, 0 },
	{ "4in6, established, 1 M flows", FOUR_IN_6, REQUEST, M, false, false, 0, 0, 0, 0 },
	{ "6in4, established, 1 M flows", SIX_IN_4, REQUEST, M, false, false, 0, 0, 0, 0 },
	{ "GUE, established, 1 M flows", GUE, REQUEST, M, false, false, 0, 0, 0, 0 },
	{ "GUE over IPv6, established, 1 M flows", GUE6, REQUEST, M, false, false, 0, 0, 0, 0 },
	{ "l2, established, 1 flow", L2, REQUEST, 1, false, false, 0, 0, 0, 0 },
	{ "l2, established, 1 M flows", L2, REQUEST, M, false, false, 0, 0, 0, 0 },
	{ "NAT IPv4, established, 1 flow", NAT4, REQUEST, 1, false, false, 6, 0, 0, 0 },
	{ "NAT IPv4, established, 64 K flows", NAT4, REQUEST, K64, false, false, 0, 0, 0, 0 },
	{ "NAT IPv4, established, 1 M flows", NAT4, REQUEST, M, false, false, 25, 0, 0, 0 },
	{ "NAT IPv4, reply, 1 flow", NAT4, REPLY, 1, false, false, 0, 0, 0, 0 },
	{ "NAT IPv4, reply, 64 K flows", NAT4, REPLY, K64, false, false, 0, 0, 0, 0 },
	{ "NAT IPv4, reply, 1 M flows", NAT4, REPLY, M, false, false, 0, 0, 0, 0 },
	{ "NAT IPv4, new flow every packet, 64 K", NAT4, REQUEST, K64, true, false, 0, 0, 0, 0 },
	{ "NAT IPv4, new flow every packet, 1 M", NAT4, REQUEST, M, true, false, 30, 0, 0, 0 },
	{ "NAT IPv4, SYN flood into a full table", NAT4, REQUEST, 0, true, false, 0, 0, 0, 0 },
	{ "DNAT IPv4, established, 1 flow", DNAT4, REQUEST, 1, false, false, 0, 0, 0, 0 },
	{ "DNAT IPv4, established, 1 M flows", DNAT4, REQUEST, M, false, false, 0, 0, 0, 0 },
	{ "NAT IPv6, established, 1 flow", NAT6, REQUEST, 1, false, false, 0, 0, 0, 0 },
	{ "NAT IPv6, established, 1 M flows", NAT6, REQUEST, M, false, false, 0, 0, 0, 0 },
	{ "NAT IPv6, new flow every packet, 1 M", NAT6, REQUEST, M, true, false, 0, 0, 0, 0 },
	{ "IPIP, 1 M flows, live frames over veth", IPIP, REQUEST, M, false, true, 1.4, 0, 0, 0 },
	{ "NAT IPv4, 1 flow, live frames over veth", NAT4, REQUEST, 1, false, true, 0, 0, 0, 0 },
	{ "ICMP echo to a VIP", NAT4, ECHO, 1, false, false, 0, 0, 0, 0 },
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* What one row may cost, measured by another. */
static const struct comparison {
	const char *name, *row, *by;
	double budget;
} comparisons[] = {
	{ "NAT IPv6 / NAT IPv4, established, 1 flow", "NAT IPv6, established, 1 flow",
	  "NAT IPv4, established, 1 flow", 1.5 },
	{ "NAT IPv6 / NAT IPv4, established, 1 M", "NAT IPv6, established, 1 M flows",
	  "NAT IPv4, established, 1 M flows", 1.5 },
};
#define COMPARISONS (sizeof(comparisons) / sizeof(comparisons[0]))

/* Of the program itself; memory in bytes, of the maps that lbctl makes if it is told nothing. */
#define VERIFIED_BUDGET 40000
#define MEMORY_BUDGET 100000000

struct stand {
	struct xlb_bpf *xlb;
	struct packet_bpf *wrap;
	struct xlb_config config;
	unsigned int ifindex;
	uint32_t repeat;
	uint32_t rounds;
	const char *row;	/* that is being measured */
	uint32_t length;	/* of the frame that the last run left */
};

static void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void run(const char *command)
{
	if (system(command)) {
		fprintf(stderr, "bench: failed: %s\n", command);
		exit(1);
	}
}

/*
 * A world: v0 with clients behind a router and backends on the link, all of whose addresses are
 * known.
 */
static void world_make(struct stand *stand)
{
	if (unshare(CLONE_NEWNET))
		die("unshare (are you root?)");
	run("ip link set lo up && ip link add v0 type veth peer name v1 && "
	    "ip link set v0 address 02:00:00:00:00:01 up && ip link set v1 up && "
	    "ip addr add 10.200.0.1/16 dev v0 && ip addr add 192.0.2.254/24 dev v0 && "
	    "ip -6 addr add 2001:db8:200::1/64 dev v0 nodad && "
	    "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:02 dev v0 nud permanent && "
	    "ip route add default via 192.0.2.1 && "
	    "echo 1 >/proc/sys/net/ipv4/ip_forward && "
	    "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
	for (int i = 0; i < BACKENDS; i++) {
		char command[256];

		snprintf(command, sizeof(command),
			 "ip neigh add 10.200.1.%d lladdr 02:00:00:00:01:%02x dev v0 "
			 "nud permanent; "
			 "ip neigh add 2001:db8:200::1:%x lladdr 02:00:00:00:01:%02x dev v0 "
			 "nud permanent", i + 1, i, i + 1, i);
		run(command);
	}
	stand->ifindex = if_nametoindex("v0");
}

/* Who asks for many elements of a hash in a row is told ENOMEM until the kernel has made more. */
static void put(struct bpf_map *map, uint32_t key, const void *value)
{
	for (int i = 0; bpf_map_update_elem(bpf_map__fd(map), &key, value, BPF_ANY); i++) {
		if (errno != ENOMEM || i == 1000)
			die(bpf_map__name(map));
		usleep(1000);
	}
}

static void put_per_cpu(struct bpf_map *map, uint32_t key, size_t size)
{
	void *values = calloc(libbpf_num_possible_cpus(), (size + 7) / 8 * 8);

	put(map, key, values);
	free(values);
}

static void address_set(struct xlb_address *address, const char *text, uint32_t add)
{
	int last = strchr(text, ':') ? 3 : 0;

	memset(address, 0, sizeof(*address));
	inet_pton(last ? AF_INET6 : AF_INET, text, address);
	address->word[last] = htonl(ntohl(address->word[last]) + add);
}

static void filter_add(struct stand *stand, const struct xlb_backend *backend)
{
	const uint64_t *secret = (const uint64_t *)stand->config.secret;
	__u64 key[2] = { secret[0], secret[1] };
	uint64_t word = xlb_address_word(&backend->address, backend->family, key);
	uint32_t bit = xlb_filter_bit(xlb_endpoint_mark(word, backend->port, backend->protocol,
							key));
	uint32_t index = bit / 512;
	struct xlb_filter_line line;

	bpf_map_lookup_elem(bpf_map__fd(stand->xlb->maps.filter), &index, &line);
	line.bits[bit / 64 % 8] |= 1ull << bit % 64;
	put(stand->xlb->maps.filter, index, &line);
}

static void ring_make(struct stand *stand, uint32_t ring, uint32_t first_backend)
{
	for (uint32_t slot = 0; slot < RING; slot++) {
		uint32_t index = (ring + slot) / XLB_RING_LINE;
		struct xlb_ring_line line;

		bpf_map_lookup_elem(bpf_map__fd(stand->xlb->maps.rings), &index, &line);
		line.backend[(ring + slot) % XLB_RING_LINE] = first_backend + slot % BACKENDS;
		put(stand->xlb->maps.rings, index, &line);
	}
}

/* Puts a service into its home slot and returns its id. */
static uint32_t vip_make(struct stand *stand, const struct xlb_address *vip, bool ipv6,
			 uint16_t port, union xlb_service_target target)
{
	uint32_t mask = stand->config.services - 1, id;

	if (ipv6) {
		struct xlb_service6 service = { .address = *vip, .target = target,
						.vip = { .port = htons(port), .protocol = XLB_TCP,
							 .live = 1 } };

		id = xlb_hash_vip6(vip, service.vip, stand->config.secret) & mask;
		put(stand->xlb->maps.services6, id, &service);
	} else {
		struct xlb_service service = { .target = target,
					       .vip = { .address = vip->word[0],
							.port = htons(port),
							.protocol = XLB_TCP } };

		id = xlb_hash_vip4(service.vip, stand->config.secret) & mask;
		put(stand->xlb->maps.services, id, &service);
	}
	return id;
}

static void backend_make(struct stand *stand, const struct bench_service *service, uint32_t id,
			 uint32_t service_id, uint32_t n)
{
	bool ipv6 = service->backends == XLB_IPV6;
	struct xlb_backend backend = {
		.service = service_id, .state = XLB_BACKEND_ACTIVE, .family = service->backends,
		.vip_family = strchr(service->vip, ':') ? XLB_IPV6 : XLB_IPV4,
		.protocol = XLB_TCP, .weight = 1, .port = htons(8080), .tunnel_port = htons(6080),
		.vip_port = htons(service->port), .ifindex = stand->ifindex,
	};

	address_set(&backend.vip, service->vip, 0);
	address_set(&backend.address, ipv6 ? "2001:db8:200::1:1" : "10.200.1.1", n);
	address_set(&backend.source, ipv6 ? "2001:db8:200::1" : "10.200.0.1", 0);
	backend.address_sum = xlb_sum_address(&backend.address);
	backend.source_sum = xlb_sum_address(&backend.source);
	backend.vip_sum = xlb_sum_address(&backend.vip);
	put(stand->xlb->maps.backends, id, &backend);
	put_per_cpu(stand->xlb->maps.backend_stats, id, sizeof(struct xlb_backend_stats));
	if (service->forward <= XLB_FORWARD_DNAT)
		filter_add(stand, &backend);
}

static void service_make(struct stand *stand, enum service_id which)
{
	const struct bench_service *service = &services[which];
	enum xlb_family family = strchr(service->vip, ':') ? XLB_IPV6 : XLB_IPV4;
	uint32_t ring = which * 8192, first_backend = 1 + which * BACKENDS, id;
	union xlb_service_target target = {
		.ring_line = ring / XLB_RING_LINE, .ring_size = RING,
		.scheduler = XLB_SCHEDULER_MAGLEV, .forward = service->forward,
		.stateless = service->forward > XLB_FORWARD_DNAT,
	};
	struct xlb_address vip;

	address_set(&vip, service->vip, 0);
	id = vip_make(stand, &vip, family == XLB_IPV6, service->port, target);
	put_per_cpu(stand->xlb->maps.service_stats,
		    XLB_SERVICE_KEY(family, id, stand->config.services),
		    sizeof(struct xlb_service_stats));
	for (uint32_t i = 0; i < BACKENDS; i++)
		backend_make(stand, service, first_backend + i, id, i);
	ring_make(stand, ring, first_backend);
}

/* The IPv4 VIP answers echo. */
static void echo_make(struct stand *stand)
{
	struct xlb_address address = { .word = { 0, 0, htonl(0xffff), 0 } };
	struct xlb_vip vip = { .services = 1, .echo = 1 };

	inet_pton(AF_INET, VIP4, &address.word[3]);
	if (bpf_map_update_elem(bpf_map__fd(stand->xlb->maps.vips), &address, &vip, BPF_ANY))
		die("vips");
}

static void configure(struct xlb_config *config)
{
	struct timespec tick;

	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	*config = (struct xlb_config){
		.abi_version = XLB_ABI_VERSION, .services = 8192, .backends = 16384,
		.ring_slots = 16384 * 128, .flow_lines = FLOW_LINES, .flow6_lines = FLOW6_LINES,
		.neighbours = 4096, .port_min = 1024, .port_max = 32767,
		.secret = { 0x243f6a8885a308d3, 0x13198a2e03707345 }, .seed = 1,
		.hz = 1000000000 / tick.tv_nsec,
	};
	while ((2u << config->tick_shift) <= config->hz + config->hz / 4)
		config->tick_shift++;
	for (int state = XLB_FLOW_CLAIMED; state < XLB_FLOW_STATES; state++)
		config->timeouts[state] = state == XLB_FLOW_SYN ? 60 : 7440;
}

static struct xlb_bpf *load_sized(const struct xlb_config *config)
{
	struct xlb_bpf *xlb = xlb_bpf__open();

	if (!xlb)
		die("open");
	memcpy((void *)&xlb->rodata->cfg, config, sizeof(*config));
	xlb_ring_keys(config->seed, (__u64 *)xlb->rodata->ring_keys);
	xlb->rodata->cpus = libbpf_num_possible_cpus();
	xlb->rodata->has_mirror = true;
	/* Not for packets, and not every kernel takes it. */
	bpf_program__set_autoload(xlb->progs.xlb_counters, false);
	for (int id = 0; id < MAPS; id++)
		bpf_map__set_max_entries(bpf_object__find_map_by_name(xlb->obj, map_name(id)),
					 map_entries(config, id));
	if (xlb_bpf__load(xlb))
		die("load");
	return xlb;
}

static void load(struct stand *stand)
{
	struct xlb_device device = { .flags = XLB_DEVICE_XDP | XLB_DEVICE_REDIRECT };

	configure(&stand->config);
	stand->xlb = load_sized(&stand->config);
	put(stand->xlb->maps.config, 0, &stand->config);
	put(stand->xlb->maps.devices, stand->ifindex, &device);
	stand->wrap = packet_bpf__open_and_load();
	if (!stand->wrap)
		die("load the wrapper");
	if (bpf_xdp_attach(if_nametoindex("v1"), bpf_program__fd(stand->wrap->progs.sink),
			   XDP_FLAGS_DRV_MODE, NULL))
		die("attach to v1");
}

static bool is_ipv6(const struct row *row)
{
	return strchr(services[row->service].vip, ':');
}

/* One frame of a row; checksums are not looked at by anything here. */
static void frame_make(const struct row *row, uint8_t *frame)
{
	const struct bench_service *service = &services[row->service];
	bool ipv6 = is_ipv6(row);
	uint8_t *ip = frame + 14, *tcp = ip + (ipv6 ? 40 : 20);
	const char *destination = service->vip;

	if (row->kind == OTHER)
		destination = ipv6 ? "2001:db8:2::99" : "203.0.113.99";
	else if (row->kind == REPLY)
		destination = "10.200.0.1";
	memset(frame, 0, BENCH_FRAME);
	memcpy(frame, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02", 12);
	if (ipv6) {
		memcpy(frame + 12, "\x86\xdd\x60", 3);
		ip[5] = BENCH_FRAME - 54;
		ip[6] = XLB_TCP;
		ip[7] = 64;
		inet_pton(AF_INET6, "2001:db8:200::ffff:1", ip + 8);
		inet_pton(AF_INET6, destination, ip + 24);
	} else {
		memcpy(frame + 12, "\x08\0\x45", 3);
		ip[3] = BENCH_FRAME - 14;
		ip[8] = 64;
		ip[9] = row->kind == ECHO ? IPPROTO_ICMP : XLB_TCP;
		inet_pton(AF_INET, "198.18.0.1", ip + 12);
		inet_pton(AF_INET, destination, ip + 16);
	}
	if (row->kind == ECHO) {
		tcp[0] = 8;
		return;
	}
	tcp[0] = 0x10;
	tcp[3] = service->port;
	tcp[12] = 0x50;
	tcp[13] = row->begin ? 0x02 : 0x10;
}

static double thread_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

/*
 * Runs a program `repeat` times; returns ns a run. The last verdict must be `want`; but of a million
 * flows some hundreds find no place in the table, so it is given another chance.
 */
static double timed(struct stand *stand, struct bpf_program *program, uint8_t *frame,
		    uint32_t repeat, int want)
{
	struct xdp_md context = { .data_end = BENCH_FRAME, .ingress_ifindex = stand->ifindex };
	uint8_t out[2 * BENCH_FRAME];
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = BENCH_FRAME,
		    .data_out = out, .data_size_out = sizeof(out), .ctx_in = &context,
		    .ctx_size_in = sizeof(context), .repeat = repeat);
	double start = thread_ns(), spent;

	if (bpf_prog_test_run_opts(bpf_program__fd(program), &options))
		die("test run");
	spent = thread_ns() - start;
	options.repeat = 1;
	if ((int)options.retval != want &&
	    bpf_prog_test_run_opts(bpf_program__fd(program), &options))
		die("test run");
	if ((int)options.retval != want) {
		fprintf(stderr, "bench: %s returned %u instead of %d in '%s'\n",
			bpf_program__name(program), options.retval, want, stand->row);
		exit(1);
	}
	stand->length = options.data_size_out;
	return spent / repeat;
}

#define LIVE_REPEAT 300000
#define LIVE_BATCH 64

/* The same with frames that leave by v0 and arrive at v1, all on this CPU. */
static double timed_live(struct stand *stand, uint8_t *frame)
{
	struct xdp_md context = { .data_end = BENCH_FRAME, .ingress_ifindex = stand->ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = BENCH_FRAME,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = LIVE_REPEAT,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = LIVE_BATCH);
	double start = thread_ns();

	if (bpf_prog_test_run_opts(bpf_program__fd(stand->wrap->progs.wrapper), &options))
		die("test run with live frames");
	return (thread_ns() - start) / LIVE_REPEAT;
}

/* Aims the wrapper: at the program of xlb, or at `return XDP_TX`. */
static void aim(struct stand *stand, struct bpf_program *program)
{
	int fd = bpf_program__fd(program);

	put(stand->wrap->maps.target, 0, &fd);
}

static void wrapper_set(struct stand *stand, const struct row *row, const uint8_t *frame)
{
	uint32_t mode = is_ipv6(row) ? BENCH_CLIENTS6 : BENCH_CLIENTS4;

	if (row->kind == REPLY)
		mode = BENCH_REPLIES4;
	if (row->kind == ECHO)
		mode = BENCH_SAME;
	memcpy(stand->wrap->bss->template, frame, sizeof(stand->wrap->bss->template));
	stand->wrap->bss->mode = mode;
	stand->wrap->bss->mask = row->flows - 1;
}

/* Flows of one family: forgotten, or made established, as replies would make them. */
static void lines_each(struct bpf_map *map, size_t size, uint32_t words, bool forget)
{
	uint64_t *word = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

	if (word == MAP_FAILED)
		die("mmap flows");
	for (size_t i = words - 1; i < size / 8; i += words) {
		union xlb_flow_value *value = (union xlb_flow_value *)&word[i];

		if (forget)
			value->word = 0;
		else if (value->word)
			value->state = XLB_FLOW_ESTABLISHED;
	}
	munmap(word, size);
}

static void flows_all(struct stand *stand, bool forget)
{
	lines_each(stand->xlb->maps.flows, 2ull * FLOW_LINES * sizeof(struct xlb_flow_line), 2,
		   forget);
	lines_each(stand->xlb->maps.flows6, 2ull * FLOW6_LINES * sizeof(struct xlb_flow6_line), 4,
		   forget);
}

/* The replies that the flows in the table expect, for the wrapper. */
static uint32_t replies_collect(struct stand *stand)
{
	size_t size = 2ull * FLOW_LINES * sizeof(struct xlb_flow_line);
	struct xlb_flow *flow = mmap(NULL, size, PROT_READ, MAP_SHARED,
				     bpf_map__fd(stand->xlb->maps.flows), 0);
	uint32_t n = 0;

	if (flow == MAP_FAILED)
		die("mmap flows");
	for (size_t i = 0; i < FLOW_LINES * XLB_FLOW_WAYS && n < 1 << 20; i++) {
		struct bench_reply reply = { .source_port = htons(8080) };

		if (!flow[i].value.word)
			continue;
		reply.source = htonl(0x0ac80101 + (flow[i].value.backend - 1) % BACKENDS);
		reply.destination_port = htons(flow[i].value.port);
		put(stand->wrap->maps.replies, n++, &reply);
	}
	munmap(flow, size);
	return n;
}

/* Makes the flows that a row's packets belong to. */
static void flows_fill(struct stand *stand, const struct row *row)
{
	struct row filling = *row;
	uint8_t frame[BENCH_FRAME];

	flows_all(stand, true);
	if (row->begin || row->kind == OTHER || row->kind == ECHO ||
	    services[row->service].forward > XLB_FORWARD_DNAT)
		return;
	filling.begin = true;
	filling.kind = REQUEST;
	frame_make(&filling, frame);
	wrapper_set(stand, &filling, frame);
	aim(stand, stand->xlb->progs.xlb);
	/* In parts: what nobody has answered would be evicted by what comes later. */
	for (uint32_t part = 0; part < FILL_PARTS; part++) {
		timed(stand, stand->wrap->progs.wrapper, frame,
		      (row->flows + FILL_PARTS - 1) / FILL_PARTS, XDP_TX);
		flows_all(stand, false);
	}
	if (row->kind == REPLY && replies_collect(stand) < row->flows * 0.99) {
		fprintf(stderr, "bench: the table did not take the flows of '%s'\n", row->name);
		exit(1);
	}
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/*
 * What it takes the wrapper to shorten a frame again that has grown: half of what it takes to make it
 * grow and to shorten it, which are calls of one function.
 */
static double undoing(struct stand *stand, uint8_t *frame, double base)
{
	if (stand->length <= BENCH_FRAME)
		return 0;
	stand->wrap->bss->grown = stand->length - BENCH_FRAME;
	aim(stand, stand->wrap->progs.grow);
	return (timed(stand, stand->wrap->progs.wrapper, frame, stand->repeat, XDP_TX) - base) / 2;
}

/*
 * Rounds of floor, empty, wrapped nothing and wrapped program; the median and the least of the
 * ratios.
 */
static void measure(struct stand *stand, struct row *row)
{
	double ratios[64], ns[64];
	uint8_t frame[BENCH_FRAME];

	stand->row = row->name;
	flows_fill(stand, row);
	frame_make(row, frame);
	wrapper_set(stand, row, frame);
	for (uint32_t i = 0; i < stand->rounds; i++) {
		bool anew = row->begin && row->flows && services[row->service].forward <= XLB_FORWARD_DNAT;
		uint32_t repeat = anew ? row->flows : stand->repeat;
		double bottom, nothing, base, full;

		if (anew)
			flows_all(stand, true);
		if (row->live) {
			aim(stand, stand->wrap->progs.floor_tx);
			bottom = timed_live(stand, frame);
			aim(stand, stand->xlb->progs.xlb);
			ns[i] = timed_live(stand, frame);
			ratios[i] = ns[i] / bottom;
			continue;
		}
		bottom = timed(stand, stand->wrap->progs.floor_tx, frame, stand->repeat, XDP_TX);
		nothing = timed(stand, stand->wrap->progs.empty, frame, stand->repeat, XDP_TX);
		aim(stand, stand->wrap->progs.empty);
		base = timed(stand, stand->wrap->progs.wrapper, frame, repeat, XDP_TX);
		aim(stand, stand->xlb->progs.xlb);
		full = timed(stand, stand->wrap->progs.wrapper, frame, repeat,
			     row->kind == OTHER ? XDP_PASS : XDP_TX);
		ns[i] = full - base - undoing(stand, frame, base) + nothing;
		ratios[i] = ns[i] / bottom;
	}
	qsort(ns, stand->rounds, sizeof(double), compare_double);
	qsort(ratios, stand->rounds, sizeof(double), compare_double);
	row->ns = ns[stand->rounds / 2];
	row->ratio = ratios[stand->rounds / 2];
	row->least = ratios[0];
}

static uint32_t verified_instructions(const struct stand *stand)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(stand->xlb->progs.xlb), &info, &size))
		die("program info");
	return info.verified_insns;
}

/* What the kernel says that a map takes. */
static uint64_t map_bytes(const struct bpf_map *map)
{
	unsigned long long bytes = 0;
	char line[128], path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", bpf_map__fd(map));
	file = fopen(path, "r");
	if (!file)
		die(path);
	while (fgets(line, sizeof(line), file) && sscanf(line, "memlock: %llu", &bytes) != 1)
		;
	fclose(file);
	return bytes;
}

/* Of all maps, the object's own ones too, at the sizes that lbctl chooses by itself. */
static uint64_t memory_at_defaults(void)
{
	struct datapath_sizes sizes = {};
	struct xlb_config config;
	struct xlb_bpf *xlb;
	uint64_t memory = 0;
	struct bpf_map *map;
	struct error err;

	if (config_make(&sizes, &config, &err)) {
		fprintf(stderr, "bench: %s\n", err.text);
		exit(1);
	}
	xlb = load_sized(&config);
	bpf_object__for_each_map(map, xlb->obj)
		memory += map_bytes(map);
	xlb_bpf__destroy(xlb);
	return memory;
}

static double row_ratio(const char *name)
{
	for (size_t i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].name, name))
			return rows[i].ratio;
	fprintf(stderr, "bench: no row '%s'\n", name);
	exit(1);
}

/* 0: one of its rows was not measured. */
static double compared(const struct comparison *comparison)
{
	double row = row_ratio(comparison->row), by = row_ratio(comparison->by);

	return row && by ? row / by : 0;
}

static void print_budget(double value, double budget, int digits)
{
	char text[32] = "";

	if (budget)
		snprintf(text, sizeof(text), "%.*f%s", digits, budget, value > budget ? " !" : "");
	printf(" %8s\n", text);
}

static void print_text(uint32_t verified, uint64_t memory)
{
	printf("%-42s %8s %8s %8s %8s\n", "path", "ns", "ratio", "least", "budget");
	for (size_t i = 0; i < ROWS; i++) {
		if (!rows[i].ratio)
			continue;
		printf("%-42s %8.1f %7.2fx %7.2fx", rows[i].name, rows[i].ns, rows[i].ratio,
		       rows[i].least);
		print_budget(rows[i].ratio, rows[i].budget, 1);
	}
	for (size_t i = 0; i < COMPARISONS; i++) {
		double ratio = compared(&comparisons[i]);

		if (!ratio)
			continue;
		printf("%-42s %8s %7.2fx %8s", comparisons[i].name, "", ratio, "");
		print_budget(ratio, comparisons[i].budget, 1);
	}
	printf("%-42s %8u %17s", "verified instructions", verified, "");
	print_budget(verified, VERIFIED_BUDGET, 0);
	printf("%-42s %5.1f MB %17s", "memory of the maps, at the defaults", memory / 1e6, "");
	print_budget(memory / 1e6, MEMORY_BUDGET / 1e6, 0);
}

static void print_json(uint32_t verified, uint64_t memory)
{
	json_t *list = json_array(), *ratios = json_array(), *top;

	for (size_t i = 0; i < ROWS; i++)
		if (rows[i].ratio)
			json_array_append_new(list, json_pack("{s:s,s:f,s:f,s:f,s:f}", "path",
							      rows[i].name, "ns", rows[i].ns,
							      "ratio", rows[i].ratio, "least",
							      rows[i].least, "budget",
							      rows[i].budget));
	for (size_t i = 0; i < COMPARISONS; i++)
		if (compared(&comparisons[i]))
			json_array_append_new(ratios, json_pack("{s:s,s:f,s:f}", "comparison",
								comparisons[i].name, "ratio",
								compared(&comparisons[i]), "budget",
								comparisons[i].budget));
	top = json_pack("{s:o,s:o,s:i,s:i,s:I,s:i}", "paths", list, "comparisons", ratios,
			"verified_instructions", (int)verified, "verified_instructions_budget",
			VERIFIED_BUDGET, "memory", (json_int_t)memory, "memory_budget",
			MEMORY_BUDGET);
	json_dumpf(top, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(top);
}

static int usage(FILE *out, int status)
{
	fputs("Usage: packet [-o text|json] [--rounds N] [--repeat N] [--only TEXT]\n"
	      "Measures what a packet costs, as a ratio to the floor of the same run. Root.\n",
	      out);
	return status;
}

static void pin_to_cpu(void)
{
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(sched_getcpu(), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
}

static void measure_all(struct stand *stand, const char *only)
{
	for (size_t i = 0; i < ROWS; i++) {
		if (only && !strstr(rows[i].name, only))
			continue;
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "\r\033[K%s", rows[i].name);
		measure(stand, &rows[i]);
	}
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "repeat", required_argument, NULL, 'n' },
		{ "only", required_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	struct stand stand = { .repeat = REPEAT_DEFAULT, .rounds = ROUNDS_DEFAULT };
	const char *only = NULL;
	bool json = false;
	uint32_t verified;
	uint64_t memory;
	int option;

	while ((option = getopt_long(argc, argv, "o:r:n:l:h", options, NULL)) != -1) {
		switch (option) {
		case 'o': json = !strcmp(optarg, "json"); break;
		case 'r': stand.rounds = atoi(optarg); break;
		case 'n': stand.repeat = atoi(optarg); break;
		case 'l': only = optarg; break;
		case 'h': return usage(stdout, 0);
		default: return usage(stderr, 2);
		}
	}
	if (stand.rounds < 1 || stand.rounds > 64 || stand.repeat < 1)
		return usage(stderr, 2);
	pin_to_cpu();
	world_make(&stand);
	load(&stand);
	for (int which = 0; which < SERVICES; which++)
		service_make(&stand, which);
	echo_make(&stand);
	measure_all(&stand, only);
	verified = verified_instructions(&stand);
	memory = memory_at_defaults();
	if (json)
		print_json(verified, memory);
	else
		print_text(verified, memory);
	return 0;
}
