// SPDX-License-Identifier: GPL-2.0
/* See stand.h. One veth; everybody is behind it, and the kernel knows all their MAC addresses. */
#include "stand.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <xlb/checksum.h>
#include <xlb/hash.h>

#include "datapath/internal.h"

#include "xlb.skel.h"

#define LINES (1u << 13)

struct stand {
	struct xlb_bpf *xlb;
	struct xlb_bpf *at_length;	/* the same, of the same maps, without the plain walk */
	bool is_at_length;		/* which of the two runs */
	struct xlb_config config;
	unsigned int ifindex, mtu;
	int cpus, socket;
	uint32_t used[MODEL_SERVICES][2];	/* slots of the last configuration: id, is IPv6 */
	unsigned int n_used, n_backends;
	void *flows, *flows6, *filter;
};

static void die(const char *what)
{
	fprintf(stderr, "fuzz: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void shell(const char *command)
{
	if (system(command)) {
		fprintf(stderr, "fuzz: failed: %s\n", command);
		exit(1);
	}
}

static void world_make(struct stand *stand)
{
	char command[256];

	if (unshare(CLONE_NEWNET))
		die("unshare (are you root?)");
	shell("ip link set lo up && ip link add v0 type veth peer name v1 && "
	      "ip link set v0 address 02:00:00:00:00:01 up && ip link set v1 up && "
	      "ip addr add 10.200.0.1/16 dev v0 && ip addr add 192.0.2.254/24 dev v0 && "
	      "ip -6 addr add 2001:db8:200::1/64 dev v0 nodad && "
	      "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:02 dev v0 nud permanent && "
	      "ip neigh add 2001:db8:200::fe lladdr 02:00:00:00:00:02 dev v0 nud permanent && "
	      "ip route add default via 192.0.2.1 && "
	      "ip -6 route add default via 2001:db8:200::fe && "
	      "echo 1 >/proc/sys/net/ipv4/ip_forward && "
	      "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
	for (int i = 0; i < MODEL_BACKENDS; i++) {
		snprintf(command, sizeof(command),
			 "ip neigh add 10.200.1.%d lladdr 02:00:00:00:01:%02x dev v0 nud permanent; "
			 "ip neigh add 2001:db8:200::1:%x lladdr 02:00:00:00:01:%02x dev v0 nud permanent",
			 i + 1, i, i + 1, i);
		shell(command);
	}
	stand->ifindex = if_nametoindex("v0");
	stand->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (stand->socket < 0)
		die("socket");
}

static void size(struct bpf_map *map, uint32_t entries)
{
	if (bpf_map__set_max_entries(map, entries))
		die(bpf_map__name(map));
}

static void config_fill(struct xlb_config *config)
{
	*config = (struct xlb_config){
		.abi_version = XLB_ABI_VERSION, .services = 1024, .backends = 256,
		.ring_slots = MODEL_SERVICES * 64, .flow_lines = LINES, .flow6_lines = LINES,
		.neighbours = 256, .port_min = 1024, .port_max = 32767,
		.secret = { 0x243f6a8885a308d3, 0x13198a2e03707345 }, .seed = 1,
		/* Time stands still; hz 0: every answer finds its ration renewed. */
		.tick_shift = 40, .hz = 0,
	};
	for (int i = 0; i < XLB_FLOW_STATES; i++)
		config->timeouts[i] = 60000;
}

/* `other`: whose maps to share; NULL: its own. */
static struct xlb_bpf *load(struct stand *stand, struct xlb_bpf *other)
{
	struct xlb_config *config = &stand->config;
	struct xlb_bpf *xlb = xlb_bpf__open();
	struct bpf_map *map;

	if (!xlb)
		die("open");
	config_fill(config);
	memcpy((void *)&xlb->rodata->cfg, config, sizeof(*config));
	xlb_ring_keys(config->seed, (__u64 *)xlb->rodata->ring_keys);
	xlb->rodata->cpus = stand->cpus;
	xlb->rodata->has_atomics = true;
	xlb->rodata->has_mirror = true;
	for (int id = 0; id < MAPS; id++)
		size(bpf_object__find_map_by_name(xlb->obj, map_name(id)),
		     map_entries(config, id));
	/* Not for packets, and not every kernel takes it. */
	bpf_program__set_autoload(xlb->progs.xlb_counters, false);
	/* So many that none is forgotten within a round: the model forgets none. */
	size(xlb->maps.fragments, 16384);
	xlb->rodata->at_length = other;
	if (other) {
		bpf_object__for_each_map (map, xlb->obj) {
			const char *name = bpf_map__name(map);

			if (!bpf_map__is_internal(map) &&
			    bpf_map__reuse_fd(map, bpf_object__find_map_fd_by_name(other->obj, name)))
				die(name);
		}
	}
	if (xlb_bpf__load(xlb))
		die("load");
	return xlb;
}

static void put(struct bpf_map *map, const void *key, const void *value)
{
	if (bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY))
		die(bpf_map__name(map));
}

static void *mapped(struct bpf_map *map, size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

	if (memory == MAP_FAILED)
		die(bpf_map__name(map));
	return memory;
}

void stand_walk_at_length(struct stand *stand, bool at_length)
{
	stand->is_at_length = at_length;
}

struct stand *stand_make(void)
{
	struct xlb_device device = { .flags = XLB_DEVICE_XDP | XLB_DEVICE_REDIRECT };
	struct stand *stand = calloc(1, sizeof(*stand));
	uint32_t zero = 0;
	cpu_set_t cpu;

	if (!stand)
		die("memory");
	CPU_ZERO(&cpu);
	CPU_SET(sched_getcpu(), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	stand->cpus = libbpf_num_possible_cpus();
	world_make(stand);
	stand->xlb = load(stand, NULL);
	stand->at_length = load(stand, stand->xlb);
	put(stand->xlb->maps.config, &zero, &stand->config);
	put(stand->xlb->maps.devices, &stand->ifindex, &device);
	stand->flows = mapped(stand->xlb->maps.flows, 2 * LINES * sizeof(struct xlb_flow_line));
	stand->filter = mapped(stand->xlb->maps.filter, XLB_FILTER_BITS / 8);
	stand->flows6 = mapped(stand->xlb->maps.flows6,
				   2 * LINES * sizeof(struct xlb_flow6_line));
	return stand;
}

/* ---- a configuration ---- */

static void map_empty(struct bpf_map *map)
{
	uint8_t key[64];

	while (!bpf_map_get_next_key(bpf_map__fd(map), NULL, key))
		bpf_map_delete_elem(bpf_map__fd(map), key);
}

static void zero_values(struct stand *stand, struct bpf_map *map, uint32_t key, size_t bytes)
{
	void *values = calloc(stand->cpus, (bytes + 7) / 8 * 8);

	put(map, &key, values);
	free(values);
}

bool stand_learned_paths(struct stand *stand)
{
	uint8_t key[64];

	return !bpf_map_get_next_key(bpf_map__fd(stand->xlb->maps.paths), NULL, key);
}

/* Next hops have what was learned in them, and the MTU of the link. */
static void forget_neighbours(struct stand *stand)
{
	for (uint32_t i = 0; i < stand->config.neighbours; i++)
		zero_values(stand, stand->xlb->maps.neighbours, i, sizeof(struct xlb_neighbour));
}

static void link_set(struct stand *stand, unsigned int mtu)
{
	struct ifreq request = { .ifr_name = "v0", .ifr_mtu = mtu };

	if (stand->mtu == mtu)
		return;
	if (ioctl(stand->socket, SIOCSIFMTU, &request))
		die("the link's MTU");
	stand->mtu = mtu;
	forget_neighbours(stand);
}

static void forget(struct stand *stand)
{
	struct xlb_bpf *xlb = stand->xlb;

	if (stand_learned_paths(stand)) {
		map_empty(xlb->maps.paths);
		forget_neighbours(stand);
	}
	for (unsigned int i = 0; i < stand->n_used; i++) {
		struct xlb_service none4 = {};
		struct xlb_service6 none6 = {};
		bool v6 = stand->used[i][1];

		put(v6 ? xlb->maps.services6 : xlb->maps.services, &stand->used[i][0],
		    v6 ? (void *)&none6 : (void *)&none4);
	}
	memset(stand->flows, 0, 2 * LINES * sizeof(struct xlb_flow_line));
	memset(stand->flows6, 0, 2 * LINES * sizeof(struct xlb_flow6_line));
	map_empty(xlb->maps.fragments);
	map_empty(xlb->maps.affinity);
	map_empty(xlb->maps.ranges);
	map_empty(xlb->maps.ranges6);
	map_empty(xlb->maps.vips);
	for (uint32_t reason = 0; reason < XLB_DROP_REASONS; reason++)
		zero_values(stand, xlb->maps.drops, reason, sizeof(struct xlb_drop_stats));
	memset(stand->filter, 0, XLB_FILTER_BITS / 8);
}

static struct xlb_address address_of(const struct ip *ip)
{
	struct xlb_address address = {};

	memcpy(&address, ip->byte, ip->v6 ? 16 : 4);
	return address;
}

static enum xlb_family family_of(const struct ip *ip)
{
	return ip->v6 ? XLB_IPV6 : XLB_IPV4;
}

static void filter_add(struct stand *stand, const struct xlb_address *address,
		       enum xlb_family family, uint16_t port, uint8_t protocol)
{
	const __u64 *secret = stand->config.secret;
	uint64_t word = xlb_address_word(address, family, secret);
	uint32_t bit = xlb_filter_bit(xlb_endpoint_mark(word, htons(port), protocol, secret));
	uint32_t index = bit / 512;
	struct xlb_filter_line line;

	bpf_map_lookup_elem(bpf_map__fd(stand->xlb->maps.filter), &index, &line);
	line.bits[bit / 64 % 8] |= 1ull << bit % 64;
	put(stand->xlb->maps.filter, &index, &line);
}

static void backend_put(struct stand *stand, const struct model_service *service, uint32_t n,
			const struct model_backend *model)
{
	struct xlb_backend backend = {
		.service = service->id, .state = model->state, .family = family_of(&model->address),
		.vip_family = family_of(&service->vip), .protocol = service->protocol,
		.weight = model->weight, .port = htons(model->port),
		.tunnel_port = htons(service->gue_port), .vip_port = htons(service->port),
		.tunnel_checksum = service->gue_checksum,
		.ifindex = stand->ifindex, .address = address_of(&model->address),
		.source = address_of(&model->source), .vip = address_of(&service->vip),
	};
	uint32_t id = n + 1;

	backend.address_sum = xlb_sum_address(&backend.address);
	backend.source_sum = xlb_sum_address(&backend.source);
	backend.vip_sum = xlb_sum_address(&backend.vip);
	put(stand->xlb->maps.backends, &id, &backend);
	zero_values(stand, stand->xlb->maps.backend_tally, id, sizeof(struct xlb_backend_tally));
	zero_values(stand, stand->xlb->maps.backend_stats, id, sizeof(struct xlb_backend_stats));
	if (service->forward <= XLB_FORWARD_DNAT)
		filter_add(stand, &backend.address, backend.family, model->port,
			   service->protocol);
}

static void ranges_put(struct stand *stand, const struct model_service *service)
{
	uint32_t nothing = 0;

	for (unsigned int i = 0; i < service->n_ranges; i++) {
		const struct model_range *range = &service->ranges[i];
		struct xlb_range4 key4 = { .prefix = 32 + range->length, .service = service->id };
		struct xlb_range6 key6 = { .prefix = 32 + range->length, .service = service->id };

		key6.address = address_of(&range->address);
		key4.address = key6.address.word[0];
		if (range->address.v6)
			put(stand->xlb->maps.ranges6, &key6, &nothing);
		else
			put(stand->xlb->maps.ranges, &key4, &nothing);
	}
}

static void ring_put(struct stand *stand, const struct model_service *service, uint32_t n)
{
	for (uint32_t line = 0; line < 4; line++) {
		uint32_t index = n * 4 + line;
		struct xlb_ring_line ids = {};

		for (uint32_t i = 0; i < XLB_RING_LINE; i++)
			if (line * XLB_RING_LINE + i < service->ring_size)
				ids.backend[i] = service->ring[line * XLB_RING_LINE + i] + 1;
		put(stand->xlb->maps.rings, &index, &ids);
	}
}

/* Finds a free slot from the VIP's home on. */
static uint32_t slot_find(struct stand *stand, const struct model_service *service)
{
	uint32_t mask = stand->config.services - 1, id;
	struct xlb_address address = address_of(&service->vip);
	union xlb_vip4 vip4 = { .address = address.word[0], .port = htons(service->port),
				.protocol = service->protocol };
	union xlb_vip6_tail vip6 = { .port = htons(service->port), .protocol = service->protocol,
				     .live = 1 };

	id = service->vip.v6 ? xlb_hash_vip6(&address, vip6, stand->config.secret) :
			       xlb_hash_vip4(vip4, stand->config.secret);
	for (id &= mask;; id = (id + 1) & mask) {
		bool taken = false;

		for (unsigned int i = 0; i < stand->n_used; i++)
			taken |= stand->used[i][0] == id && stand->used[i][1] == service->vip.v6;
		if (!taken)
			return id;
	}
}

static void service_put(struct stand *stand, const struct model_service *service, uint32_t n)
{
	struct xlb_address address = address_of(&service->vip);
	union xlb_service_target target = {
		.ring_line = n * 4, .ring_size = service->ring_size,
		.scheduler = service->scheduler, .forward = service->forward,
		.ranges = service->n_ranges != 0, .options = service->affinity || service->mss,
		.stateless = service->forward > XLB_FORWARD_DNAT && !service->affinity &&
			     (service->scheduler == XLB_SCHEDULER_MAGLEV ||
			      service->scheduler == XLB_SCHEDULER_SOURCE),
	};
	struct xlb_service service4 = { .target = target,
					.vip = { .address = address.word[0],
						 .port = htons(service->port),
						 .protocol = service->protocol } };
	struct xlb_service6 service6 = { .target = target, .address = address,
					 .vip = { .port = htons(service->port),
						  .protocol = service->protocol, .live = 1 } };
	struct xlb_service_options options = { .affinity = service->affinity ? 1000 : 0,
					       .mss = service->mss };
	uint32_t key = XLB_SERVICE_KEY(family_of(&service->vip), service->id,
				       stand->config.services);
	struct xlb_rotation rotation = {};

	put(stand->xlb->maps.service_options, &key, &options);
	put(stand->xlb->maps.rotation, &key, &rotation);
	zero_values(stand, stand->xlb->maps.service_stats, key, sizeof(struct xlb_service_stats));
	if (service->vip.v6)
		put(stand->xlb->maps.services6, &service->id, &service6);
	else
		put(stand->xlb->maps.services, &service->id, &service4);
	filter_add(stand, &address, family_of(&service->vip), service->port, service->protocol);
}

/* Addresses answer echo if all services of theirs do. */
static void vips_put(struct stand *stand, const struct model *model)
{
	for (unsigned int i = 0; i < model->n_services; i++) {
		const struct ip *ip = &model->services[i].vip;
		struct xlb_address key = address_of(ip);
		struct xlb_vip vip = { .services = 1, .echo = 1 };

		if (!ip->v6)
			key = (struct xlb_address){ .word = { 0, 0, htonl(0xffff), key.word[0] } };
		for (unsigned int j = 0; j < model->n_services; j++)
			if (ip_equal(ip, &model->services[j].vip) && !model->services[j].echo)
				vip.echo = 0;
		put(stand->xlb->maps.vips, &key, &vip);
	}
}

static uint32_t ring_hash(const struct ip *client, uint16_t port)
{
	struct xlb_address address = address_of(client);

	return xlb_hash_ring(&address, htons(port), family_of(client), 1);
}

void stand_configure(struct stand *stand, struct model *model)
{
	uint32_t zero = 0;

	forget(stand);
	link_set(stand, model->mtu);
	stand->config.partial = model->partial;
	put(stand->xlb->maps.config, &zero, &stand->config);
	stand->n_used = 0;
	model->ring_hash = ring_hash;
	for (unsigned int i = 0; i < model->n_services; i++) {
		struct model_service *service = &model->services[i];

		service->id = slot_find(stand, service);
		stand->used[stand->n_used][0] = service->id;
		stand->used[stand->n_used++][1] = service->vip.v6;
		for (unsigned int j = 0; j < service->n_backends; j++)
			backend_put(stand, service, service->first_backend + j,
				    &model->backends[service->first_backend + j]);
		ring_put(stand, service, i);
		ranges_put(stand, service);
		service_put(stand, service, i);
	}
	vips_put(stand, model);
}

/* ---- a packet ---- */

/* A sum, as the kernel takes it into a checksum that is complete. */
static void check_add(uint8_t *at, uint16_t sum, bool udp)
{
	uint16_t check;
	uint32_t total;

	memcpy(&check, at, 2);
	if (udp && !check)
		return;
	total = (uint16_t)~check + (uint32_t)sum;
	check = ~((total & 0xffff) + (total >> 16));
	if (udp && !check)
		check = 0xffff;
	memcpy(at, &check, 2);
}

/* What the note asks of tc, in `out`; what it says of sums is done. */
static void note_read(struct stand *stand, const struct xlb_note *note, struct frame_out *out)
{
	bool tag = out->data[12] == 0x81 || out->data[12] == 0x88;	/* tc sees none */

	if (out->verdict != XDP_PASS || note->magic != (uint32_t)stand->config.secret[1] ||
	    (note->ifindex != stand->ifindex && (note->ifindex || !note->held)))
		return;
	out->verdict = BY_KERNEL;
	out->mtu = note->mtu;
	out->held = note->held;
	if (note->held) {
		out->kept = !note->ifindex;
		out->datagram = note->datagram;
		out->tunnel = note->check;
	} else {
		out->check = note->check ? note->check * 2 + (tag ? 4 : 0) : 0;
		out->address_sum = ntohs(note->address_sum) % 0xffff;
	}
	out->has_next_hop = note->family;
	out->next_hop.v6 = note->family == XLB_IPV6;
	if (note->family)
		memcpy(out->next_hop.byte, note->next_hop, note->family == XLB_IPV6 ? 16 : 4);
	if (!out->check || out->check + 2 > out->length)
		return;
	check_add(out->data + out->check, note->address_sum, note->udp);
	check_add(out->data + out->check, note->other_sum, note->udp);
}

void stand_run(struct stand *stand, const uint8_t *frame, unsigned int length,
	       struct frame_out *out)
{
	static uint8_t data[sizeof(struct xlb_note) + sizeof(out->data)];
	struct xdp_md context = { .data_end = length, .ingress_ifindex = stand->ifindex }, after;
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = length,
		    .data_out = data, .data_size_out = sizeof(data),
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .ctx_out = &after,
		    .ctx_size_out = sizeof(after), .repeat = 1);

	struct bpf_program *program = stand->is_at_length ? stand->at_length->progs.xlb :
							     stand->xlb->progs.xlb;

	if (bpf_prog_test_run_opts(bpf_program__fd(program), &options))
		die("test run");
	*out = (struct frame_out){ .verdict = options.retval,
				   .length = options.data_size_out - after.data };
	memcpy(out->data, data + after.data, out->length);
	if (after.data)
		note_read(stand, (const struct xlb_note *)data, out);
}

static void counts_add(struct model_counts *counts, const struct xlb_count *to_backend,
		       const struct xlb_count *to_client, uint64_t flows)
{
	counts->to_backend += to_backend->packets;
	counts->to_backend_bytes += to_backend->bytes;
	counts->to_client += to_client->packets;
	counts->to_client_bytes += to_client->bytes;
	counts->flows += flows;
}

void stand_service_counts(struct stand *stand, const struct model_service *service,
			  struct model_counts *counts)
{
	uint32_t key = XLB_SERVICE_KEY(family_of(&service->vip), service->id,
				       stand->config.services);
	struct xlb_service_stats stats[256];

	if (bpf_map_lookup_elem(bpf_map__fd(stand->xlb->maps.service_stats), &key, stats))
		die("service_stats");
	for (int cpu = 0; cpu < stand->cpus; cpu++) {
		counts_add(counts, &stats[cpu].to_backend, &stats[cpu].to_client,
			   stats[cpu].flows);
		counts->refused += stats[cpu].refused.packets;
		counts->dropped += stats[cpu].dropped.packets;
	}
}

void stand_backend_counts(struct stand *stand, unsigned int backend, struct model_counts *counts)
{
	struct xlb_backend_tally tally[256];
	uint32_t key = backend + 1;

	if (bpf_map_lookup_elem(bpf_map__fd(stand->xlb->maps.backend_tally), &key, tally))
		die("backend_tally");
	for (int cpu = 0; cpu < stand->cpus; cpu++)
		counts_add(counts, &tally[cpu].to_backend, &tally[cpu].to_client,
			   tally[cpu].flows);
}

uint64_t stand_drops(struct stand *stand, unsigned int reason)
{
	struct xlb_drop_stats stats[256];
	uint64_t packets = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(stand->xlb->maps.drops), &reason, stats))
		die("drops");
	for (int cpu = 0; cpu < stand->cpus; cpu++)
		packets += stats[cpu].packets;
	return packets;
}
