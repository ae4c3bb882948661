// SPDX-License-Identifier: GPL-2.0
/*
 * Two CPUs at once: the loaded program, run by two pinned threads on packets of one flow at the same
 * moment, thousands of times. What is tested is what must be true however they meet. That they meet in the
 * few nanoseconds that matter is chance; each test says how often code failed that did without what it
 * tests.
 */
#include "datapath_world.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "base/cleanup.h"

#define FLOWS 2000u
#define ROUNDS 3	/* in which all flows meet again */
#define PORT_FIRST 10000
#define CLIENT 0xc0000201	/* 192.0.2.1 */
#define NODE 0x0a000001		/* 10.0.0.1 */
#define BACKEND 0x0a000005	/* 10.0.0.5, and others behind it */
#define FRAME 64
#define FIN 0x01
#define SYN 0x02
#define ACK 0x10

/* Where it goes is not looked at, but what became of its flow. */
struct frame {
	uint8_t data[FRAME];
};

/* Two threads, each on a CPU of its own. */
static struct race {
	int program;
	uint32_t ifindex;
	int cpu[2];
	struct frame frame[2];
	atomic_uint ready[2];	/* the turn that this thread waits to begin */
	unsigned int turns;
	bool (*prepare)(int lane, unsigned int turn);
} race;

static struct datapath *dp;

/* ---- frames ---- */

static void frame_make(struct frame *frame, uint8_t protocol, uint32_t source, uint16_t source_port,
		       uint32_t destination, uint16_t destination_port, uint8_t flags)
{
	struct ethhdr *eth = (struct ethhdr *)frame->data;
	struct iphdr *ip = (struct iphdr *)(eth + 1);
	struct tcphdr *tcp = (struct tcphdr *)(ip + 1);
	struct udphdr *udp = (struct udphdr *)(ip + 1);
	uint16_t bytes = FRAME - sizeof(*eth);

	memset(frame->data, 0, sizeof(frame->data));
	eth->h_proto = htons(ETH_P_IP);
	*ip = (struct iphdr){
		.version = 4, .ihl = 5, .ttl = 64, .protocol = protocol, .tot_len = htons(bytes),
		.saddr = htonl(source), .daddr = htonl(destination),
	};
	udp->source = htons(source_port);
	udp->dest = htons(destination_port);
	if (protocol == XLB_UDP) {
		udp->len = htons(bytes - sizeof(*ip));
	} else {
		tcp->doff = 5;
		((uint8_t *)tcp)[13] = flags;
	}
}

static void client_frame(struct frame *frame, uint8_t protocol, unsigned int i, uint8_t flags)
{
	frame_make(frame, protocol, CLIENT, PORT_FIRST + i, 0xc6336401, 80, flags);
}

static void backend_frame(struct frame *frame, uint16_t nat_port, uint8_t flags)
{
	frame_make(frame, XLB_TCP, BACKEND, 8080, NODE, nat_port, flags);
}

static void frame_run(struct frame *frame)
{
	struct xdp_md context = { .data_end = FRAME, .ingress_ifindex = race.ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame->data, .data_size_in = FRAME,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = 1);

	if (bpf_prog_test_run_opts(race.program, &options))
		fail_msg("test run: %s", strerror(errno));
}

/* ---- at once ---- */

static void *lane_run(void *data)
{
	int lane = (int)(intptr_t)data;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(race.cpu[lane], &cpu);
	pthread_setaffinity_np(pthread_self(), sizeof(cpu), &cpu);
	for (unsigned int turn = 0; turn < race.turns; turn++) {
		bool runs = race.prepare(lane, turn);

		atomic_store(&race.ready[lane], turn + 1);
		/* Where the other one has lost its CPU to somebody, waiting takes as long as that. */
		for (unsigned int spins = 0; atomic_load(&race.ready[!lane]) <= turn; spins++)
			if (spins > 2000)
				sched_yield();
		/* Not always the same distance. */
		for (volatile unsigned int i = 0; i < (turn * 7 + lane * 13) % 32; i++)
			;
		if (runs)
			frame_run(&race.frame[lane]);
	}
	return NULL;
}

/* Both lanes, turn by turn. */
static void at_once(unsigned int turns, bool (*prepare)(int lane, unsigned int turn))
{
	pthread_t threads[2];

	race.turns = turns;
	race.prepare = prepare;
	atomic_store(&race.ready[0], 0);
	atomic_store(&race.ready[1], 0);
	for (intptr_t lane = 0; lane < 2; lane++)
		assert_int_equal(pthread_create(&threads[lane], NULL, lane_run, (void *)lane), 0);
	for (int lane = 0; lane < 2; lane++)
		pthread_join(threads[lane], NULL);
}

/* ---- the table ---- */

/* What is in the table: flows in both halves, and how many have another state than the one expected. */
struct census {
	unsigned int by_client, by_reply, other_state, tuples_twice;
};

static union xlb_flow_value *value_at(uint64_t slot)
{
	struct xlb_flow *flows = map_memory(dp, MAP_FLOWS, &err);

	return &flows[slot].value;
}

static uint64_t half(void)
{
	return (uint64_t)config_of(dp)->flow_lines * XLB_FLOW_WAYS;
}

static struct census census_take(uint8_t state)
{
	static uint8_t seen[1 << 16];
	const struct xlb_flow *flows = map_memory(dp, MAP_FLOWS, &err);
	struct census census = {};

	memset(seen, 0, sizeof(seen));
	for (uint64_t slot = 0; slot < 2 * half(); slot++) {
		union xlb_flow_value value = *value_at(slot);

		if (!value.word)
			continue;
		census.other_state += value.state != state;
		if (slot >= half()) {
			census.by_reply++;
		} else {
			census.by_client++;
			census.tuples_twice += seen[flows[slot].key.port]++;
		}
	}
	return census;
}

/* One flow for each tuple, in each half that it belongs to. */
static void census_check_number(unsigned int by_client, unsigned int by_reply)
{
	struct census census = census_take(0);

	assert_int_equal(census.tuples_twice, 0);
	assert_int_equal(census.by_client, by_client);
	assert_int_equal(census.by_reply, by_reply);
}

static void census_check(uint8_t state, unsigned int by_client, unsigned int by_reply)
{
	census_check_number(by_client, by_reply);
	assert_int_equal(census_take(state).other_state, 0);
}

/* As if so much time had passed since any flow's last packet that its other copy is told of the next. */
static void flows_age(void)
{
	for (uint64_t slot = 0; slot < 2 * half(); slot++)
		if (value_at(slot)->word)
			value_at(slot)->seen -= XLB_FLOW_LAG;
}

static uint32_t load_of(const struct service *wish)
{
	const struct service *service = model_find(datapath_model(dp), &wish->vip);
	uint32_t load = 0;

	for (size_t i = 0; i < service->n_backends; i++)
		load += backend_at(dp, service->backends[i].id)->load;
	return load;
}

/* ---- the world ---- */

static bool cpus_choose(void)
{
	cpu_set_t all;
	int found = 0;

	if (sched_getaffinity(0, sizeof(all), &all))
		return false;
	for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
		if (CPU_ISSET(cpu, &all))
			race.cpu[found++] = cpu;
	return found == 2;
}

static bool runs_with_context(void)
{
	struct frame frame = {};
	struct xdp_md context = { .data_end = FRAME, .ingress_ifindex = race.ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data, .data_size_in = FRAME,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = 1);

	return !bpf_prog_test_run_opts(race.program, &options);
}

static int world_make(void **state)
{
	static char note[256];

	if (fresh_bpffs(state))
		return -1;
	mkdir("/sys/fs/bpf/xdp", 0700);
	run("ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up && "
	    "ip addr add 10.0.0.1/16 dev v0 && ip route add default via 10.0.0.2");
	dp = make((struct datapath_sizes){ .services = 16, .backends = 64, .flows = 65536 });
	ok(datapath_attach(dp, "v0", ATTACH_AUTO, 0, note, &err));
	race.ifindex = if_nametoindex("v0");
	race.program = bpf_obj_get(PIN_DIR "/xdp");
	return race.program < 0;
}

static int world_end(void **state)
{
	(void)state;
	close(race.program);
	unmake(dp);
	return system("ip link del v0 2>/dev/null; true");
}

#define WORLD(function) cmocka_unit_test_setup_teardown(function, world_make, world_end)

#define NEEDS_TWO_CPUS() do { \
	if (!cpus_choose()) \
		SKIP_BECAUSE("it takes two CPUs"); \
	if (!runs_with_context()) \
		SKIP_BECAUSE("before Linux 5.15 a test run cannot say which device a packet came by"); \
} while (0)

static struct service *service_make(uint8_t protocol, uint8_t forward, uint8_t scheduler, uint32_t n)
{
	struct endpoint vip = vip_of(1);
	struct service *wish;

	vip.protocol = protocol;
	wish = service_of(vip, 5, n);
	wish->forward = forward;
	wish->scheduler = scheduler;
	if (forward_keeps_port(forward))
		for (size_t i = 0; i < n; i++)
			wish->backends[i].endpoint.port = 80;
	apply(dp, wish);
	return wish;
}

/* ---- flows that are there ---- */

static uint16_t nat_ports[FLOWS];

static void nat_ports_learn(void)
{
	const struct xlb_flow *flows = map_memory(dp, MAP_FLOWS, &err);

	for (uint64_t slot = 0; slot < half(); slot++)
		if (flows[slot].value.word)
			nat_ports[ntohs(flows[slot].key.port) - PORT_FIRST] = flows[slot].value.port;
}

/* Connections of which both sides have spoken. */
static void flows_establish(void)
{
	struct frame frame;

	for (unsigned int i = 0; i < FLOWS; i++) {
		client_frame(&frame, XLB_TCP, i, SYN);
		frame_run(&frame);
	}
	nat_ports_learn();
	for (unsigned int i = 0; i < FLOWS; i++) {
		backend_frame(&frame, nat_ports[i], SYN | ACK);
		frame_run(&frame);
		client_frame(&frame, XLB_TCP, i, ACK);
		frame_run(&frame);
	}
}

static bool both_ack(int lane, unsigned int turn)
{
	if (lane)
		backend_frame(&race.frame[1], nat_ports[turn], ACK);
	else
		client_frame(&race.frame[0], XLB_TCP, turn, ACK);
	return true;
}

/* A request and a reply in the first moment of a new tick. One in 70 lost its flow. */
static void a_request_and_a_reply(void **state)
{
	struct service *wish;

	(void)state;
	NEEDS_TWO_CPUS();
	wish = service_make(XLB_TCP, XLB_FORWARD_NAT, XLB_SCHEDULER_MAGLEV, 1);
	flows_establish();
	census_check(XLB_FLOW_ESTABLISHED, FLOWS, FLOWS);
	for (int round = 0; round < ROUNDS; round++) {
		flows_age();
		at_once(FLOWS, both_ack);
		census_check(XLB_FLOW_ESTABLISHED, FLOWS, FLOWS);
	}
	service_free(wish);
}

static bool both_fin(int lane, unsigned int turn)
{
	if (lane)
		backend_frame(&race.frame[1], nat_ports[turn], FIN | ACK);
	else
		client_frame(&race.frame[0], XLB_TCP, turn, FIN | ACK);
	return true;
}

/* Both ends close: neither FIN is lost, and lc counts each flow off once. One in 35 lost its flow. */
static void two_fins(void **state)
{
	struct service *wish;

	(void)state;
	NEEDS_TWO_CPUS();
	wish = service_make(XLB_TCP, XLB_FORWARD_NAT, XLB_SCHEDULER_LC, 1);
	flows_establish();
	assert_int_equal(load_of(wish), FLOWS);
	at_once(FLOWS, both_fin);
	census_check(XLB_FLOW_CLOSED, FLOWS, FLOWS);
	assert_int_equal(load_of(wish), 0);
	service_free(wish);
}

static bool fin_and_ack(int lane, unsigned int turn)
{
	if (lane)
		backend_frame(&race.frame[1], nat_ports[turn], ACK);
	else
		client_frame(&race.frame[0], XLB_TCP, turn, FIN | ACK);
	return true;
}

/* What only says that the flow is alive does not undo what another packet says. One in 35 lost its flow. */
static void a_fin_and_a_reply(void **state)
{
	struct service *wish;

	(void)state;
	NEEDS_TWO_CPUS();
	wish = service_make(XLB_TCP, XLB_FORWARD_NAT, XLB_SCHEDULER_MAGLEV, 1);
	flows_establish();
	flows_age();
	at_once(FLOWS, fin_and_ack);
	census_check(XLB_FLOW_FIN_CLIENT, FLOWS, FLOWS);
	service_free(wish);
}

/* ---- flows that begin ---- */

static uint8_t first_protocol;

static bool both_first(int lane, unsigned int turn)
{
	client_frame(&race.frame[lane], first_protocol, turn, SYN);
	return true;
}

static void check_counted_once(const struct service *wish)
{
	struct counters counters;
	uint64_t dropped;

	ok(datapath_service_counters(dp, model_find(datapath_model(dp), &wish->vip), &counters));
	assert_int_equal(counters.flows, FLOWS);
	assert_int_equal(counters.to_backend.packets, 2 * FLOWS);
	ok(datapath_drop_count(dp, XLB_DROP_FLOWS_FULL, &dropped));
	assert_int_equal(dropped, 0);
	ok(datapath_drop_count(dp, XLB_DROP_PORTS_EXHAUSTED, &dropped));
	assert_int_equal(dropped, 0);
}

static void begin_at_once(uint8_t protocol, uint8_t forward, uint8_t scheduler)
{
	struct service *wish = service_make(protocol, forward, scheduler, 2);

	first_protocol = protocol;
	at_once(FLOWS, both_first);
	census_check_number(FLOWS, forward > XLB_FORWARD_DNAT ? 0 : FLOWS);
	check_counted_once(wish);
	assert_int_equal(load_of(wish), scheduler == XLB_SCHEDULER_LC ? FLOWS : 0);
	service_free(wish);
}

/* Two first packets of a client's: one flow, one backend, one port. A fifth to a half of the tuples had two. */
static void two_first_packets(void **state)
{
	(void)state;
	NEEDS_TWO_CPUS();
	begin_at_once(XLB_UDP, XLB_FORWARD_NAT, XLB_SCHEDULER_RR);
}

static void two_first_packets_by_dnat(void **state)
{
	(void)state;
	NEEDS_TWO_CPUS();
	begin_at_once(XLB_UDP, XLB_FORWARD_DNAT, XLB_SCHEDULER_LC);
}

static void two_first_packets_by_tunnel(void **state)
{
	(void)state;
	NEEDS_TWO_CPUS();
	begin_at_once(XLB_UDP, XLB_FORWARD_IPIP, XLB_SCHEDULER_LC);
}

static void two_syns(void **state)
{
	(void)state;
	NEEDS_TWO_CPUS();
	begin_at_once(XLB_TCP, XLB_FORWARD_NAT, XLB_SCHEDULER_RR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(a_request_and_a_reply),
		WORLD(two_fins),
		WORLD(a_fin_and_a_reply),
		WORLD(two_first_packets),
		WORLD(two_first_packets_by_dnat),
		WORLD(two_first_packets_by_tunnel),
		WORLD(two_syns),
	};

	if (!in_sandbox()) {
		fputs("skipped: it changes devices; scripts/sandbox build/tests/unit/race_test\n",
		      stderr);
		return 77;
	}
	return cmocka_run_group_tests_name("race", tests, NULL, NULL);
}
