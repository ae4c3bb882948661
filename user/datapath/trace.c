// SPDX-License-Identifier: GPL-2.0
/*
 * Running the program on a copy of everything, and reading from the copy what it did.
 *
 * What the walk found out is in its own notes; whether the packet was forwarded, refused or dropped
 * is in the counters; the flow is in the table, before and after. Only why a new flow went where it
 * went is worked out here, from the hash that both sides share, and checked against where it went.
 */
#include "datapath/trace.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include <xlb/hash.h>

#include "datapath/trace_copy.h"

int datapath_trace_device(struct datapath *dp, const char *name, uint32_t *ret_ifindex,
			  uint8_t ret_address[ETH_ALEN], struct error *err)
{
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint32_t wanted = name ? if_nametoindex(name) : 0, ifindex = 0;
	struct ifreq request = {};

	if (name && !wanted)
		return error_set(err, ENODEV, "%s: no such device", name);
	for (size_t i = 0; i < dp->n_devices && !ifindex; i++)
		if (dp->devices[i].entry.flags & XLB_DEVICE_XDP &&
		    (!wanted || dp->devices[i].ifindex == wanted) &&
		    if_indextoname(dp->devices[i].ifindex, request.ifr_name))
			ifindex = dp->devices[i].ifindex;
	if (!ifindex && !name)
		return error_set(err, ENOENT, "attached to no device: run `lbctl attach DEV`");
	if (!ifindex)
		return error_set(err, ENOENT,
				 "%s: xlb is not attached to it; 'lbctl attach' does that", name);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request))
		return error_set(err, errno, "asking for a device's address: %s", strerror(errno));
	memcpy(ret_address, request.ifr_hwaddr.sa_data, ETH_ALEN);
	*ret_ifindex = ifindex;
	return 0;
}

/* ---- the run ---- */

static int run(const struct trace_copy *copy, uint32_t ifindex, const void *frame, size_t length,
	       struct trace *trace, struct error *err)
{
	struct bpf_program *program = bpf_object__find_program_by_name(copy->object, "xlb");
	struct xdp_md in = { .data_end = length, .ingress_ifindex = ifindex }, out = {};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = length,
		    .data_out = trace->frame, .data_size_out = sizeof(trace->frame), .ctx_in = &in,
		    .ctx_size_in = sizeof(in), .ctx_out = &out, .ctx_size_out = sizeof(out));

	if (bpf_prog_test_run_opts(bpf_program__fd(program), &options))
		return error_set(err, errno, "the kernel does not run the program: %s%s",
				 strerror(errno),
				 errno == EINVAL ? " (Linux before 5.15 cannot)" : "");
	/* The note for tc is in front of the packet. */
	trace->length = options.data_size_out - out.data;
	memmove(trace->frame, trace->frame + out.data, trace->length);
	trace->action = options.retval;
	return 0;
}

/* ---- counters, all of which began at 0 ---- */

static int read_drops(const struct trace_copy *copy, struct trace *trace, struct error *err)
{
	_cleanup_(free_pointer) struct xlb_drop_stats *drops = map_values_new(copy->dp, MAP_DROPS);

	if (!drops)
		return error_set(err, ENOMEM, "out of memory");
	for (uint32_t reason = 0; reason < XLB_DROP_REASONS; reason++) {
		if (bpf_map_lookup_elem(trace_copy_fd(copy, MAP_DROPS), &reason, drops))
			return error_set(err, errno, "reading drops: %s", strerror(errno));
		for (int cpu = 0; cpu < copy->dp->cpus; cpu++)
			if (drops[cpu].packets)
				trace->drop = reason;
	}
	return 0;
}

static int read_service_stats(const struct trace_copy *copy, uint32_t service, struct trace *trace,
			      struct error *err)
{
	_cleanup_(free_pointer) struct xlb_service_stats *stats =
		map_values_new(copy->dp, MAP_SERVICE_STATS);

	if (!stats)
		return error_set(err, ENOMEM, "out of memory");
	if (bpf_map_lookup_elem(trace_copy_fd(copy, MAP_SERVICE_STATS), &service, stats))
		return error_set(err, errno, "reading service_stats: %s", strerror(errno));
	for (int cpu = 0; cpu < copy->dp->cpus; cpu++) {
		trace->forwarded |= stats[cpu].to_backend.packets || stats[cpu].to_client.packets;
		trace->refused |= stats[cpu].refused.packets;
	}
	return 0;
}

/* ---- flows ---- */

/* The client's side of the flow that a packet belongs to. */
struct client {
	struct xlb_address address;
	__be16 port;
	uint16_t service;
	bool ipv6;
};

static struct trace_flow flow_find(const struct datapath *dp, const uint64_t *words,
				   const struct client *client, uint32_t now)
{
	const struct xlb_config *config = config_of(dp);
	uint64_t slots =
		(uint64_t)(client->ipv6 ? config->flow6_lines : config->flow_lines) * XLB_FLOW_WAYS;
	union xlb_flow_key key = { .port = client->port, .service = client->service };
	size_t step = (client->ipv6 ? sizeof(struct xlb_flow6) : sizeof(struct xlb_flow)) / 8;

	if (!client->ipv6)
		key.client = client->address.word[0];
	for (uint64_t i = 0; i < slots; i++, words += step) {
		union xlb_flow_value value = { .word = words[step - 1] };
		uint64_t ticks = (uint16_t)(now - value.seen);

		if (!value.word || words[step - 2] != key.word ||
		    (client->ipv6 && memcmp(words, &client->address, sizeof(client->address))))
			continue;
		return (struct trace_flow){
			.there = true,
			.value = value,
			.age_s = (ticks << config->tick_shift) / config->hz,
		};
	}
	return (struct trace_flow){};
}

static void flows_look(const struct trace_copy *copy, const struct trace_notes *notes,
		       struct trace *trace)
{
	struct client client = {
		.address = notes->source,
		.port = notes->source_port,
		.service = trace->service->id,
		.ipv6 = notes->ipv6,
	};
	enum map_id map = notes->ipv6 ? MAP_FLOWS6 : MAP_FLOWS;

	trace->before = flow_find(copy->dp, copy->flows_before[notes->ipv6], &client, notes->now);
	trace->after = flow_find(copy->dp, copy->memory[map], &client, notes->now);
}

/* ---- why this backend ---- */

static union xlb_service_target target_of(const struct trace_copy *copy,
					  const struct service *service, bool previous)
{
	if (service->vip.family == XLB_IPV6) {
		const struct xlb_service6 *slot =
			(struct xlb_service6 *)copy->memory[MAP_SERVICES6] + service->id;

		return previous ? slot->previous : slot->target;
	} else {
		const struct xlb_service *slot =
			(struct xlb_service *)copy->memory[MAP_SERVICES] + service->id;

		return previous ? slot->previous : slot->target;
	}
}

static bool affinity_names(const struct trace_copy *copy, const struct trace_notes *notes)
{
	struct xlb_affinity_key key = { .client = notes->source, .service = notes->service };

	if (!notes->ipv6) {
		key.client.word[3] = key.client.word[0];
		key.client.word[2] = htonl(0xffff);
		key.client.word[0] = 0;
	}
	for (size_t i = 0; i < copy->n_affinities; i++)
		if (!memcmp(&copy->affinities[i].key, &key, sizeof(key)))
			return copy->affinities[i].value.backend == notes->backend;
	return false;
}

/* Whether the client's place on the target's ring is the backend's; fills in the place. */
static bool ring_names(const struct trace_copy *copy, const struct trace_notes *notes,
		       union xlb_service_target target, struct trace *trace)
{
	const uint32_t *rings = copy->memory[MAP_RINGS];
	__be16 port = target.scheduler == XLB_SCHEDULER_SOURCE ? 0 : notes->source_port;
	uint32_t hash = xlb_hash_ring(&notes->source, port, notes->ipv6 ? XLB_IPV6 : XLB_IPV4,
				      config_of(copy->dp)->seed);
	uint64_t slot = (uint64_t)hash * target.ring_size >> 32;
	uint64_t index = (uint64_t)target.ring_line * XLB_RING_LINE + slot;

	if (!target.ring_size || index >= config_of(copy->dp)->ring_slots ||
	    (rings[index] & ~XLB_RING_MOVED) != notes->backend)
		return false;
	trace->slot = slot;
	trace->slots = target.ring_size;
	return true;
}

static enum trace_choice choice_of_scheduler(const struct trace_copy *copy,
					     const struct trace_notes *notes, struct trace *trace)
{
	union xlb_service_target target = target_of(copy, trace->service, false);
	const struct xlb_rotation *rotation = copy->memory[MAP_ROTATION];
	const struct xlb_backend *backends = copy->memory[MAP_BACKENDS];

	switch (target.scheduler) {
	case XLB_SCHEDULER_RR:
		trace->slots = target.ring_size;
		if (trace->slots)
			trace->slot = (rotation[notes->service].placed - 1) % trace->slots;
		return TRACE_CHOICE_TURN;
	case XLB_SCHEDULER_LC:
		trace->load = backends[notes->backend].load - notes->new_flow;
		return TRACE_CHOICE_LOAD;
	case XLB_SCHEDULER_RANDOM:
		return TRACE_CHOICE_RANDOM;
	default:
		if (ring_names(copy, notes, target, trace))
			return TRACE_CHOICE_SLOT;
		target = target_of(copy, trace->service, true);
		return ring_names(copy, notes, target, trace) ? TRACE_CHOICE_PREVIOUS :
								TRACE_CHOICE_NONE;
	}
}

static enum trace_choice choice_of(const struct trace_copy *copy, const struct trace_notes *notes,
				   struct trace *trace)
{
	bool stateless = target_of(copy, trace->service, false).stateless;

	if (!trace->backend)
		return TRACE_CHOICE_NONE;
	if (trace->reply || (!notes->new_flow && trace->before.there && trace->after.there &&
			     trace->before.value.backend == notes->backend && !stateless))
		return TRACE_CHOICE_FLOW;
	/* A service without flows keeps those of places that changed hands. */
	if (stateless && trace->before.there && !notes->new_flow &&
	    trace->after.value.seen == (uint16_t)notes->now &&
	    trace->after.value.backend == notes->backend)
		return TRACE_CHOICE_FLOW;
	if (notes->new_flow && trace->service->affinity_s && affinity_names(copy, notes))
		return TRACE_CHOICE_AFFINITY;
	return choice_of_scheduler(copy, notes, trace);
}

/* ---- where it goes ---- */

static void hop_take(const struct xlb_next_hop *next, struct trace *trace)
{
	const struct xlb_hop *hop = &next->hop[next->current & 1];

	trace->hop.ifindex = hop->ifindex & XLB_HOP_IFINDEX;
	trace->hop.stack = hop->ifindex & XLB_HOP_STACK ||
			   (hop->ifindex & XLB_HOP_NO_REDIRECT && trace->action == XDP_PASS);
	trace->hop.mtu = next->mtu;
	memcpy(trace->hop.destination, hop->destination, ETH_ALEN);
	memcpy(trace->hop.source, hop->source, ETH_ALEN);
}

/* The only client that was looked for. */
static int hop_of_client(const struct trace_copy *copy, struct trace *trace, struct error *err)
{
	_cleanup_(free_pointer) struct xlb_neighbour *here =
		map_values_new(copy->dp, MAP_NEIGHBOURS);

	if (!here)
		return error_set(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < config_of(copy->dp)->neighbours; i++) {
		if (bpf_map_lookup_elem(trace_copy_fd(copy, MAP_NEIGHBOURS), &i, here))
			return error_set(err, errno, "reading neighbours: %s", strerror(errno));
		for (int cpu = 0; cpu < copy->dp->cpus; cpu++)
			if (here[cpu].next_hop.hop[0].ifindex || here[cpu].next_hop.hop[1].ifindex)
				hop_take(&here[cpu].next_hop, trace);
	}
	return 0;
}

/* ---- together ---- */

static struct endpoint endpoint_of(const struct trace_notes *notes,
				   const struct xlb_address *address, __be16 port)
{
	struct endpoint endpoint = {
		.port = ntohs(port),
		.family = notes->ipv6 ? XLB_IPV6 : XLB_IPV4,
		.protocol = notes->protocol,
	};

	if (notes->ipv6)
		endpoint.address = *address;
	else
		endpoint.address.word[0] = address->word[0];
	return endpoint;
}

static const struct backend *backend_of(const struct service *service, uint32_t id)
{
	for (size_t i = 0; id && i < service->n_backends; i++)
		if (service->backends[i].id == id)
			return &service->backends[i];
	return NULL;
}

/* How the packet was forwarded: as its flow began, else as its service does. */
static uint8_t forward_of(const struct trace *trace)
{
	if (trace->choice == TRACE_CHOICE_FLOW && trace->after.there)
		return trace->after.value.forward;
	return trace->service->forward;
}

static int explain(const struct trace_copy *copy, const struct trace_notes *notes,
		   struct trace *trace, struct error *err)
{
	const struct xlb_backend *backends = copy->memory[MAP_BACKENDS];
	int r = read_service_stats(copy, notes->service, trace, err);

	if (r)
		return r;
	trace->backend = backend_of(trace->service, notes->backend);
	trace->reply = notes->to_client;
	trace->new_flow = notes->new_flow;
	if (!trace->reply)
		flows_look(copy, notes, trace);
	trace->choice = choice_of(copy, notes, trace);
	trace->forward = forward_of(trace);
	if (trace->reply)
		return hop_of_client(copy, trace, err);
	if (trace->backend)
		hop_take(&backends[notes->backend].next_hop, trace);
	return 0;
}

int datapath_trace(struct datapath *dp, uint32_t ifindex, const void *frame, size_t length,
		   struct trace *ret_trace, struct error *err)
{
	_cleanup_(trace_copy_end) struct trace_copy copy = {};
	_cleanup_(free_pointer) struct trace *trace = calloc(1, sizeof(*trace));
	struct trace_notes notes;
	int r;

	if (!trace)
		return error_set(err, ENOMEM, "out of memory");
	if (length < ETH_HLEN || length > TRACE_FRAME_MAX)
		return error_set(err, EINVAL,
				 "a frame of %zu bytes: the kernel runs the program on "
				 "%d to %d",
				 length, ETH_HLEN, TRACE_FRAME_MAX);
	r = trace_copy_make(dp, &copy, err);
	if (!r)
		r = run(&copy, ifindex, frame, length, trace, err);
	if (!r)
		r = read_drops(&copy, trace, err);
	if (!r)
		r = trace_notes_read(&copy, &notes, err);
	if (r)
		return r;
	trace->source = endpoint_of(&notes, &notes.source, notes.source_port);
	trace->destination = endpoint_of(&notes, &notes.destination, notes.destination_port);
	trace->parsed = notes.protocol && notes.destination_port;
	trace->by_kernel = notes.by_kernel;
	trace->kept = notes.held && !notes.by_kernel && !trace->drop;
	if (notes.known_service && notes.service < 2 * config_of(dp)->services)
		trace->service = dp->by_key[notes.service];
	if (trace->service)
		r = explain(&copy, &notes, trace, err);
	if (r)
		return r;
	*ret_trace = *trace;
	return 0;
}
