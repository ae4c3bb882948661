/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Beginning flows: choosing a backend, finding two slots, for the client's packets and for the
 * replies, and for nat a port.
 *
 * What is wanted is written into a struct flow_request of the CPU, and flow_new() does the rest; it
 * takes no pointers, so that the verifier looks at it once. It goes in three steps: take the slots,
 * end what is left of the flows that had them, write the new flow, the reply's copy first: when the
 * first packet leaves, the reply is expected.
 */
#ifndef XLB_FLOW_OPEN_H
#define XLB_FLOW_OPEN_H

#include "choose.h"
#include "flow_change.h"
#include "hop.h"

#define PORT_LINES 4	/* lines in one search for a port */
#define PORT_TRIES 4	/* searches, each elsewhere: 64 ports in all */

/* A flow that lost a slot: its other copy has to go before the slot is written. */
struct flow_evicted {
	__u64 value;
	__u32 number;
	__u32 pad;
};

#define EVICTED_MAX 4		/* a power of two; more than two are as good as never evicted */

/* A new flow: what is asked for, what was found, and what is kept meanwhile. */
struct flow_request {
	struct flow_tuple tuple;
	struct xlb_address client;
	struct service_ref service;
	__be16 client_port;
	__u8 protocol;
	__u8 pad;
	__u32 now;
	/* found */
	__u32 backend;
	__u16 port;		/* nat source port, host order; 0: the client's address is kept */
	__u16 pad2;
	/* meanwhile */
	__u64 endpoint_hash;
	__u32 slot;		/* numbers of the slots taken */
	__u32 reply_slot;
	__u32 evicted_count;
	__u32 pad3;
	struct flow_evicted evicted[EVICTED_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_request);
} scratch SEC(".maps") __weak;

/* Takes a slot for the caller, and notes the flow that had it. */
static __always_inline bool flow_take(const struct flow_ref *ref, __u32 now, bool ipv6)
{
	union xlb_flow_value claimed = { .state = XLB_FLOW_CLAIMED };
	union xlb_flow_value value = flow_read(ref->slot, ipv6);
	struct flow_request *request;
	__u32 zero = 0, place;

	claimed.seen = now;
	if (!flow_swap(ref->slot, ipv6, value.word, claimed.word))
		return false;
	request = bpf_map_lookup_elem(&scratch, &zero);
	if (!value.word || !request)
		return true;
	place = request->evicted_count & (EVICTED_MAX - 1);
	request->evicted[place].value = value.word;
	request->evicted[place].number = ref->number;
	request->evicted_count = place + 1;
	return true;
}

/*
 * Takes a slot of one of two lines: of the emptier one, or if both are full the one that is given
 * away more willingly.
 */
static __always_inline bool flow_claim(struct flow_lines lines, __u32 now, bool ipv6,
				       struct flow_ref *ret_ref)
{
	__u64 *line = flow_line(lines.first, ipv6), *second = flow_line(lines.second, ipv6);
	struct flow_victim victim, other;
	__u32 number = lines.first;

	if (!line || !second)
		return false;
	victim = flow_victim_of(line, now, ipv6);
	other = flow_victim_of(second, now, ipv6);
	if ((other.free << 8 | other.rank) > (victim.free << 8 | victim.rank)) {
		victim = other;
		line = second;
		number = lines.second;
	}
	if (victim.rank < RANK_UNANSWERED)
		return false;
	ret_ref->slot = flow_way(line, victim.way, ipv6);
	ret_ref->number = number * XLB_FLOW_WAYS + victim.way;
	return flow_take(ret_ref, now, ipv6);
}

/*
 * Searches some lines for a port whose slot is free, out of time or closed, and with `evict` for
 * one that nobody answered; takes it. 0: none.
 */
static __always_inline __u32 flow_search_port(__u64 endpoint_hash, __u32 random, __u32 now,
					      bool evict, bool ipv6)
{
	__u32 lines = ((__u32)cfg.port_max - cfg.port_min + 1) / XLB_FLOW_WAYS;
	__u64 rank = evict ? RANK_UNANSWERED : RANK_CLOSED;

	for (__u32 i = 0; i < PORT_LINES; i++) {
		/* A remainder rather than a wrap: one path for the verifier. */
		__u32 port = cfg.port_min + (random + i) % lines * XLB_FLOW_WAYS;
		__u32 number = flow_port_line(endpoint_hash, port, ipv6);
		__u64 *line = flow_line(number, ipv6);
		struct flow_victim victim;
		struct flow_ref ref;

		if (!line)
			return 0;
		victim = flow_victim_of(line, now, ipv6);
		if (victim.rank < rank)
			continue;
		ref.slot = flow_way(line, victim.way, ipv6);
		ref.number = number * XLB_FLOW_WAYS + victim.way;
		if (flow_take(&ref, now, ipv6))
			return port + victim.way;
	}
	return 0;
}

__weak __noinline __u32 flow_claim_port(__u64 endpoint_hash, __u32 random, __u32 now, bool evict,
					bool ipv6)
{
	return ipv6 ? flow_search_port(endpoint_hash, random, now, evict, true) :
		      flow_search_port(endpoint_hash, random, now, evict, false);
}

/*
 * Whether the node itself may be a VIP at the address that a backend answers to and this port: VIPs
 * have bits in the filter too.
 */
static __always_inline bool flow_port_is_vip(const struct xlb_backend *backend, __u32 port,
					     bool ipv6, const __u64 *secret)
{
	__u64 word = xlb_address_word(&backend->source, ipv6 ? XLB_IPV6 : XLB_IPV4, secret);

	return filter_has(xlb_hash_endpoint(word, bpf_htons(port), backend->protocol, secret));
}

/*
 * Takes a port towards the backend of a request; false: there is none. Never one under which the
 * node itself is a VIP: replies to it would be taken for a client's packets.
 */
static __always_inline bool flow_claim_reply(struct flow_request *request,
					     const struct xlb_backend *backend, __u32 random,
					     bool ipv6, const __u64 *secret,
					     struct flow_ref *ret_ref)
{
	for (int i = 0; i < PORT_TRIES; i++) {
		__u32 round = i, port;

		/*
		 * Kernel 6.1 refuses a loop whose end falls through into its start, which is
		 * what clang makes of `i > 0` when it knows that i is only 0 at first.
		 */
		barrier_var(round);
		port = flow_claim_port(request->endpoint_hash, random + i * 0x9e3779b9,
				       request->now, round > 0, ipv6);
		if (!port)
			continue;
		request->port = port;
		if (!flow_port_is_vip(backend, port, ipv6, secret))
			return flow_at(flow_port_line(request->endpoint_hash, port, ipv6),
				       flow_port_way(port), ipv6, ret_ref);
		/* The slot stays claimed until it times out, so that the next try finds another. */
	}
	return false;
}

static __always_inline void flow_write(__u64 *slot, const struct flow_tuple *tuple,
				       union xlb_flow_value value, bool ipv6)
{
	if (ipv6)
		address_copy(slot, &tuple->client);
	*(volatile __u64 *)flow_key(slot, ipv6) = tuple->key.word;
	/* An exchange rather than a store: it keeps the order on machines that would not. */
	__sync_lock_test_and_set(flow_value(slot, ipv6), value.word);
}

/* Takes both slots, and a port if there is to be nat. Returns 0 or an enum xlb_drop. */
static __always_inline int flow_reserve(struct flow_request *request,
					const struct xlb_backend *backend, bool nat, bool ipv6)
{
	struct flow_ref ref, reply;
	struct flow_lines lines;
	__u64 secret[2];
	__u32 random;
	bool claimed;

	secret_get(secret);
	lines = flow_client_lines(&request->tuple, ipv6, secret);
	if (!flow_claim(lines, request->now, ipv6, &ref))
		return XLB_DROP_FLOWS_FULL;
	request->slot = ref.number;
	request->port = 0;
	if (nat) {
		random = xlb_mix(request->tuple.word + request->now, secret[1], secret[0]) >> 32;
		claimed = flow_claim_reply(request, backend, random, ipv6, secret, &reply);
	} else {
		lines = flow_reply_lines(request->tuple.word, request->endpoint_hash, ipv6, secret);
		claimed = flow_claim(lines, request->now, ipv6, &reply);
	}
	if (!claimed) {
		*(volatile __u64 *)flow_value(ref.slot, ipv6) = 0;
		return nat ? XLB_DROP_PORTS_EXHAUSTED : XLB_DROP_FLOWS_FULL;
	}
	request->reply_slot = reply.number;
	return 0;
}

/* Ends what is left of the flows whose slots were taken. */
static __always_inline void flow_forget_evicted(struct flow_request *request, bool ipv6)
{
	for (__u32 i = 0; i < EVICTED_MAX; i++) {
		if (i >= request->evicted_count)
			break;
		flow_forget_twin(request->evicted[i].number, request->evicted[i].value, ipv6);
	}
}

static __always_inline bool flow_write_at(const struct flow_request *request, __u32 number,
					  union xlb_flow_value value, bool ipv6)
{
	struct flow_ref ref;

	if (!flow_at(number / XLB_FLOW_WAYS, number % XLB_FLOW_WAYS, ipv6, &ref))
		return false;
	flow_write(ref.slot, &request->tuple, value, ipv6);
	return true;
}

/* Writes the flow into the slots that were taken: the reply's first. */
static __always_inline void flow_commit(const struct flow_request *request, bool ipv6)
{
	union xlb_flow_value value = {};

	value.backend = request->backend;
	value.state = request->protocol == IPPROTO_TCP ? XLB_FLOW_SYN : XLB_FLOW_ONEWAY;
	value.port = request->port;
	value.seen = request->now;
	flow_write_at(request, request->reply_slot, value, ipv6);
	flow_write_at(request, request->slot, value, ipv6);
}

static __always_inline int flow_begin(struct flow_request *request, bool ipv6)
{
	struct xlb_backend *backend;
	__u64 secret[2];
	int reason;
	bool nat;

	request->backend = choose(&request->client, request->client_port, &request->service, ipv6);
	backend = backend_get(request->backend);
	if (!backend || !request->backend || backend->state == XLB_BACKEND_RETIRED ||
	    backend->state == XLB_BACKEND_FREE)
		return XLB_DROP_BAD_RING;
	secret_get(secret);
	request->endpoint_hash = backend_endpoint_hash(backend, ipv6, secret);
	request->evicted_count = 0;
	/*
	 * A socket of this node would take the node's own address for a forgery: it sees the
	 * client's.
	 */
	nat = request->service.target.forward == XLB_FORWARD_NAT &&
	      backend->ifindex != LOOPBACK_IFINDEX;
	reason = flow_reserve(request, backend, nat, ipv6);
	flow_forget_evicted(request, ipv6);
	if (!reason)
		flow_commit(request, ipv6);
	return reason;
}

/* Begins the flow that this CPU's request asks for. Returns 0, or an enum xlb_drop. */
__weak __noinline int flow_new(bool ipv6)
{
	__u32 zero = 0;
	struct flow_request *request = bpf_map_lookup_elem(&scratch, &zero);

	if (!request)
		return XLB_DROP_FLOWS_FULL;
	return ipv6 ? flow_begin(request, true) : flow_begin(request, false);
}

#endif
