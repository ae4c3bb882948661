/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Beginning flows: choosing a backend, finding two slots, for the client's packets and for the
 * replies, and for nat a port.
 *
 * What is wanted is written into a struct flow_request of the CPU, and flow_new() does the rest; it
 * takes no pointers, so that the verifier looks at it once. It goes in three steps: take the slots,
 * end what is left of the flows that had them, write the new flow, the reply's copy first: when the
 * first packet leaves, the reply is expected. Then it looks whether another CPU has done the same.
 */
#ifndef XLB_FLOW_OPEN_H
#define XLB_FLOW_OPEN_H

#include "admit.h"
#include "affinity.h"
#include "choose.h"
#include "flow_change.h"
#include "hop.h"

#define PORT_LINES 2	/* lines in one search for a port */
#define PORT_TRIES 8	/* searches, each elsewhere: 64 ports in all */
#define PORT_TRIES_MILD 2	/* of them, before a flow that nobody has answered has to go, */
#define PORT_TRIES_FIRM 4	/* and before any that may */

#define FLOW_REFUSED (-1)	/* nobody takes it */

/* A flow that lost a slot: its other copy has to go before the slot is written. */
struct flow_evicted {
	__u64 value;
	__u32 number;
	__u32 pad;
};

#define EVICTED_MAX 4		/* a power of two; more than two are as good as never evicted */

/* A new flow of the packet in hand: what is asked for, what was found, and what is kept meanwhile. */
struct flow_request {
	struct service_ref service;
	__u32 pad;
	/* found */
	__u32 backend;
	__u16 port;		/* nat source port, host order; 0: the client's address is kept */
	__u8 forward;		/* enum xlb_forward */
	__u8 counted;
	/* meanwhile */
	__u64 endpoint_hash;
	__u32 slot;		/* numbers of the slots taken */
	__u32 reply_slot;	/* 0: none, replies do not come by here */
	__u32 now;
	__u32 evicted_count;
	struct flow_evicted evicted[EVICTED_MAX];
};

XLB_PERCPU_ARRAY(requests, struct flow_request);

/*
 * Takes a slot for the caller, if its value is still the one for which it was chosen: another CPU may have
 * taken it since. Notes the flow that had it.
 */
static __always_inline bool flow_take(const struct flow_ref *ref, __u64 word, __u32 now, bool ipv6)
{
	union xlb_flow_value claimed = { .state = XLB_FLOW_CLAIMED };
	struct flow_request *request;
	__u32 zero = 0, place;

	claimed.seen = now;
	if (!flow_swap(ref->slot, ipv6, word, claimed.word))
		return false;
	request = bpf_map_lookup_elem(&requests, &zero);
	if (!word || !request)
		return true;
	place = request->evicted_count & (EVICTED_MAX - 1);
	request->evicted[place].value = word;
	request->evicted[place].number = ref->number;
	request->evicted_count = place + 1;
	return true;
}

#define FLOW_ROOM 2	/* free ways, with which a first line is empty enough */

/*
 * Takes a slot of one of two lines: of the first while it has room, for there the flow is found with one line;
 * then of the emptier one, or if both are full the one that is given away more willingly. To take the emptier one
 * always would put three times as many flows into their second line (of a million at the default size 27 % instead of 9 %),
 * to fill the first one quite would turn ten times as many away.
 */
static __always_inline __u32 flow_claim_in(struct flow_lines lines, __u32 now, bool ipv6)
{
	__u64 *line = flow_line(lines.first, ipv6), *second = flow_line(lines.second, ipv6);
	struct flow_victim victim, other;
	__u32 number = lines.first;
	struct flow_ref ref;

	if (!line || !second)
		return FLOW_NOWHERE;
	victim = flow_victim_of(line, now, ipv6);
	if (victim.free < FLOW_ROOM) {
		other = flow_victim_of(second, now, ipv6);
		if ((other.free << 32 | other.score) > (victim.free << 32 | victim.score)) {
			victim = other;
			line = second;
			number = lines.second;
		}
	}
	if (flow_victim_rank(victim) < RANK_LEAST)
		return FLOW_NOWHERE;
	ref.slot = flow_way(line, victim.way, ipv6);
	ref.number = number * XLB_FLOW_WAYS + victim.way;
	return flow_take(&ref, victim.word, now, ipv6) ? ref.number : FLOW_NOWHERE;
}

/* The number of the slot taken; FLOW_NOWHERE: none may be, or another CPU was faster. */
__weak __noinline __u32 flow_claim(__u64 two_lines, __u32 now, bool ipv6)
{
	struct flow_lines lines = flow_lines_unpack(two_lines);

	return ipv6 ? flow_claim_in(lines, now, true) : flow_claim_in(lines, now, false);
}

/* In a second try, if another CPU was faster: two first packets of one tuple want the same slot. */
static __always_inline bool flow_claim_either(struct flow_lines lines, __u32 now, bool ipv6,
					      __u32 *ret_number)
{
	__u64 two_lines = flow_lines_pack(lines);
	__u32 number = flow_claim(two_lines, now, ipv6);

	if (number == FLOW_NOWHERE)
		number = flow_claim(two_lines, now, ipv6);
	if (number == FLOW_NOWHERE)
		return false;
	*ret_number = number;
	return true;
}

/* The first port of the i-th line in a search. A remainder rather than a wrap: one path for the verifier. */
static __always_inline __u32 flow_port_of(__u32 start, __u32 i)
{
	__u32 lines = ((__u32)cfg.port_max - cfg.port_min + 1) / XLB_FLOW_WAYS;

	return cfg.port_min + (start + i) % lines * XLB_FLOW_WAYS;
}

/* Searches some lines for a port whose slot is given away as willingly as that; takes it. 0: none. */
static __always_inline __u32 flow_search_port(__u64 endpoint_hash, __u32 random, __u32 now,
					      __u64 rank, bool ipv6)
{
	for (__u32 i = 0; i < PORT_LINES; i++) {
		__u32 port = flow_port_of(random, i);
		__u32 number = flow_port_line(endpoint_hash, port, ipv6);
		__u64 *line = flow_line(number, ipv6);
		struct flow_victim victim;
		struct flow_ref ref;

		if (!line)
			return 0;
		victim = flow_victim_of(line, now, ipv6);
		if (flow_victim_rank(victim) < rank)
			continue;
		ref.slot = flow_way(line, victim.way, ipv6);
		ref.number = number * XLB_FLOW_WAYS + victim.way;
		if (flow_take(&ref, victim.word, now, ipv6))
			return port + victim.way;
	}
	return 0;
}

/*
 * Whether the node itself may be a VIP at the address that a backend answers to and this port: VIPs
 * have bits in the filter too. Of the filter each port asks for another line, which is a miss of the
 * cache: so it is asked only if the address has services at all.
 */
static __always_inline bool flow_port_is_vip(const struct xlb_backend *backend, __u32 port)
{
	struct xlb_address address;
	__u64 secret[2], word;

	address_map(&address, &backend->source, backend->family == XLB_IPV6);
	if (!bpf_map_lookup_elem(&vips, &address))
		return false;
	secret_get(secret);
	word = xlb_address_word(&backend->source, backend->family, secret);
	return filter_has(xlb_endpoint_mark(word, bpf_htons(port), backend->protocol, secret));
}

/*
 * Takes a port towards the backend of this CPU's request, in one search; 0: found none. Never one under
 * which the node itself is a VIP: replies to it would be taken for a client's packets. Its slot stays
 * claimed until it times out, so that the next search finds another.
 */
__weak __noinline __u32 flow_claim_port(__u32 random, __u32 rank, bool ipv6)
{
	__u32 zero = 0, port;
	struct flow_request *request = bpf_map_lookup_elem(&requests, &zero);
	struct xlb_backend *backend = request ? backend_get(request->backend) : NULL;

	if (!backend)
		return 0;
	port = ipv6 ? flow_search_port(request->endpoint_hash, random, request->now, rank, true) :
		      flow_search_port(request->endpoint_hash, random, request->now, rank, false);
	return port && !flow_port_is_vip(backend, port) ? port : 0;
}

/* The same in as many searches as it takes, but not without end. */
static __always_inline __u32 flow_claim_reply(__u32 random, bool ipv6)
{
	for (int i = 0; i < PORT_TRIES; i++) {
		__u32 round = i, rank, port;

		/*
		 * Kernel 6.1 refuses a loop whose end falls through into its start, which is
		 * what clang makes of `i > 0` when it knows that i is only 0 at first.
		 */
		barrier_var(round);
		rank = round < PORT_TRIES_MILD ? RANK_CLOSED :
		       round < PORT_TRIES_FIRM ? RANK_UNANSWERED : RANK_LEAST;
		port = flow_claim_port(random + i * 0x9e3779b9, rank, ipv6);
		if (port)
			return port;
	}
	return 0;
}

static __always_inline void flow_write_key(__u64 *slot, const struct flow_tuple *tuple,
					   union xlb_flow_key key, bool ipv6)
{
	if (ipv6)
		address_copy(slot, &tuple->client);
	*(volatile __u64 *)flow_key(slot, ipv6) = key.word;
}

/* Where the search for a port begins: by the service, too, for one client's port may begin flows to many at once. */
static __always_inline __u32 flow_port_start(const struct flow_tuple *tuple, __u32 now,
					     const __u64 *secret)
{
	return xlb_mix(tuple->word + now + ((__u64)tuple->key.service << 48), secret[1],
		       secret[0]) >> 32;
}

/*
 * The backend that a new flow of the packet goes to, if the client alone says, as choose() will find it;
 * 0: it does not.
 */
static __always_inline __u32 flow_expect_backend(const struct packet *packet,
						 union xlb_service_target target, bool ipv6)
{
	if (!target.ring_size || !target_by_client(target))
		return 0;
	return ring_read(target, client_slot(packet, target, ipv6)) & ~XLB_RING_MOVED;
}

/* The load is all that is wanted. */
static __always_inline void line_fetch(const __u64 *line)
{
	if (line)
		*(const volatile __u64 *)line;
}

static __always_inline __u32 flow_expect_family(const struct packet *packet,
						union xlb_service_target target,
						struct flow_lines lines, bool ipv6)
{
	__u64 *port = NULL, *next_port = NULL, endpoint_hash, secret[2];
	__u32 id = flow_expect_backend(packet, target, ipv6), start;
	struct flow_tuple *tuple = flow_tuple_get(FLOW_OF_PACKET);
	struct xlb_backend *backend = id ? backend_get(id) : NULL;

	_Static_assert(PORT_LINES == 2, "those of a search have names here");
	if (tuple && backend) {
		secret_get(secret);
		endpoint_hash = backend_endpoint_hash(backend, secret);
		start = flow_port_start(tuple, packet->now, secret);
		port = flow_line(flow_port_line(endpoint_hash, flow_port_of(start, 0), ipv6), ipv6);
		next_port = flow_line(flow_port_line(endpoint_hash, flow_port_of(start, 1), ipv6),
				      ipv6);
	}
	line_fetch(port);
	line_fetch(next_port);
	line_fetch(flow_line(lines.first, ipv6));
	line_fetch(flow_line(lines.second, ipv6));
	return id;
}

/*
 * Has the memory fetched that a packet which begins a flow by nat will most likely need: the lines of
 * its client, and those where the search for a port begins, which else would be asked for only when the
 * client's have been looked at. Each is a miss of the cache, and one of what knows where its page is.
 * Together they take little longer than one, if the loads follow one another: the way to a port is longer
 * than a processor looks ahead. Returns the backend that a new flow goes to; 0: choose() has to say.
 */
__weak __noinline __u32 flow_expect(__u64 target_word, __u64 two_lines, bool ipv6)
{
	union xlb_service_target target = { .word = target_word };
	struct flow_lines lines = flow_lines_unpack(two_lines);
	struct packet *packet = packet_get();

	if (!packet)
		return 0;
	return ipv6 ? flow_expect_family(packet, target, lines, true) :
		      flow_expect_family(packet, target, lines, false);
}

/* The slot for replies, and for nat with it a port. */
static __always_inline bool flow_reserve_reply(struct flow_request *request,
					       const struct flow_tuple *tuple, bool ipv6,
					       const __u64 *secret)
{
	struct flow_lines lines;

	if (request->forward == XLB_FORWARD_NAT) {
		request->port = flow_claim_reply(flow_port_start(tuple, request->now, secret),
						 ipv6);
		request->reply_slot = flow_port_slot(request->endpoint_hash, request->port, ipv6);
		return request->port;
	}
	lines = flow_reply_lines(tuple->word, request->endpoint_hash, ipv6, secret);
	return flow_claim_either(lines, request->now, ipv6, &request->reply_slot);
}

/* Takes the slots, and a port if there is to be nat. Returns 0 or an enum xlb_drop. */
static __always_inline int flow_reserve(struct flow_request *request,
					const struct flow_tuple *tuple, struct flow_lines lines,
					bool ipv6, const __u64 *secret)
{
	struct flow_ref ref;

	if (!flow_claim_either(lines, request->now, ipv6, &request->slot))
		return XLB_DROP_FLOWS_FULL;
	request->port = 0;
	request->reply_slot = 0;
	if (request->forward > XLB_FORWARD_DNAT ||
	    flow_reserve_reply(request, tuple, ipv6, secret))
		return 0;
	if (flow_at(request->slot, ipv6, &ref))
		*(volatile __u64 *)flow_value(ref.slot, ipv6) = 0;
	return request->forward == XLB_FORWARD_NAT ? XLB_DROP_PORTS_EXHAUSTED : XLB_DROP_FLOWS_FULL;
}

/* Ends what is left of the flows whose slots were taken. */
static __always_inline void flow_forget_evicted(struct flow_request *request, bool ipv6)
{
	union xlb_flow_value value;

	for (__u32 i = 0; i < EVICTED_MAX; i++) {
		if (i >= request->evicted_count)
			break;
		value.word = request->evicted[i].value;
		flow_uncount(request->evicted[i].number, value, ipv6);
		flow_forget_twin(request->evicted[i].number, value, ipv6);
	}
}

/*
 * Writes the flow into the slots that were taken: the reply's first. The client's copy by an exchange: what
 * this CPU reads after it was written after it, or is seen (flow_begin looks for another copy). Returns
 * the value.
 */
static __always_inline __u64 flow_commit(const struct flow_request *request,
					 const struct flow_tuple *tuple, __u8 protocol, bool ipv6)
{
	union xlb_flow_value claimed = { .state = XLB_FLOW_CLAIMED };
	union xlb_flow_key key = tuple->key;
	union xlb_flow_value value = {};
	struct flow_ref ref;

	claimed.seen = request->now;
	value.backend = request->backend;
	value.state = protocol == IPPROTO_TCP ? XLB_FLOW_SYN : XLB_FLOW_ONEWAY;
	value.forward = request->forward;
	value.counted = request->counted;
	value.port = request->port;
	value.seen = request->now;
	if (request->reply_slot && flow_at(request->reply_slot, ipv6, &ref)) {
		key.service = flow_reply_tag(request->endpoint_hash, request->port);
		flow_write_key(ref.slot, tuple, key, ipv6);
		publish(flow_value(ref.slot, ipv6), value.word);
	}
	if (flow_at(request->slot, ipv6, &ref)) {
		flow_write_key(ref.slot, tuple, tuple->key, ipv6);
		flow_swap(ref.slot, ipv6, claimed.word, value.word);
	}
	return value.word;
}

static __always_inline __u64 flow_exchange_in(__u32 number, __u64 before, __u64 after, bool ipv6)
{
	struct flow_ref ref;

	if (!flow_at(number, ipv6, &ref))
		return 0;
	if (before != after && flow_swap(ref.slot, ipv6, before, after))
		return after;
	return flow_read(ref.slot, ipv6).word;
}

/* The value in a slot, after it was exchanged if it was `before`. */
__weak __noinline __u64 flow_exchange(__u32 number, __u64 before, __u64 after, bool ipv6)
{
	return ipv6 ? flow_exchange_in(number, before, after, true) :
		      flow_exchange_in(number, before, after, false);
}

#define flow_value_at(number, ipv6) flow_exchange(number, 0, 0, ipv6)

/*
 * Another copy of a tuple was found after this CPU's own had been written: its first packets came to two
 * CPUs at once. One flow has to go, and both CPUs must agree which, though it may be that only one of them
 * has seen the other's. The one in the higher slot gives way, unless the other has joined it already: who
 * joins changes its value (by a tick that is one too old), and who gives way does so only if nobody has
 * changed it. Returns the other flow's value; 0: this CPU's stays.
 */
static __always_inline __u64 flow_agree(__u32 mine, __u64 value, __u32 theirs, bool ipv6)
{
	union xlb_flow_value other = { .word = flow_value_at(theirs, ipv6) }, after;

	if (other.state == XLB_FLOW_CLAIMED || !other.backend)
		return 0;
	if (theirs > mine) {
		after.word = flow_exchange(theirs, other.word,
					   other.word - (1ull << FLOW_SEEN_SHIFT), ipv6);
		if (!flow_same(after, other))
			return 0;
	}
	return flow_exchange(mine, value, 0, ipv6) ? 0 : other.word;
}

/*
 * Gives up the flow that this CPU has just begun, if another has begun it as well, and that one is to stay.
 * Whether it did.
 */
__weak __noinline int flow_join(__u32 theirs, __u64 mine, bool ipv6)
{
	union xlb_flow_value value = { .word = mine }, other;
	__u32 zero = 0;
	struct flow_request *request = bpf_map_lookup_elem(&requests, &zero);

	if (!request)
		return 0;
	other.word = flow_agree(request->slot, mine, theirs, ipv6);
	if (!other.word)
		return 0;
	flow_uncount(request->slot, value, ipv6);
	if (request->reply_slot)
		flow_clear(request->reply_slot, mine, ipv6);
	request->backend = other.backend;
	request->port = other.port;
	request->forward = other.forward;
	return 1;
}

/*
 * Whether a packet that is not the first of its flow may be picked up: where the backend follows
 * from the packet, and knows its client.
 */
static __always_inline bool target_picks_up(union xlb_service_target target)
{
	return target.stateless ||
	       (target.forward == XLB_FORWARD_DNAT && target_by_client(target));
}

/* The backend of a packet that may belong to a flow from before the ring moved; 0: none. */
static __always_inline __u32 flow_choose_previous(const struct packet *packet,
						  struct flow_request *request, bool ipv6)
{
	union xlb_service_target old = service_previous(request->service.id, packet->protocol,
							packet->now, ipv6);
	__u32 id = choose(old.word, request->service.id);
	struct xlb_backend *backend;

	backend = backend_get(id);
	if (!id || !backend || !backend_keeps(backend, packet->protocol))
		return 0;
	request->forward = old.forward;
	return id;
}

/* The backend of a new flow; 0: nobody takes it. */
static __always_inline __u32 flow_choose_new(const struct packet *packet,
					     struct flow_request *request, bool ipv6)
{
	union xlb_service_target target = request->service.target;
	__u32 id;

	if (packet->protocol == IPPROTO_TCP && !(packet->tcp_flags & TCP_SYN) &&
	    !target_picks_up(target))
		return 0;
	request->forward = target.forward;
	request->counted = target.scheduler == XLB_SCHEDULER_LC;
	id = target.options ? affinity_find(packet, request->service.id, ipv6) : 0;
	if (!id)
		id = packet->expected;
	return id ? id : choose(target.word, request->service.id);
}

/* The backend that a packet of no known flow goes to, and how; 0: nobody takes it. */
static __always_inline __u32 flow_choose(const struct packet *packet, struct flow_request *request,
					 bool ipv6)
{
	__u32 id = 0;

	if (!(packet->tcp_flags & TCP_SYN))
		id = flow_choose_previous(packet, request, ipv6);
	return id ? id : flow_choose_new(packet, request, ipv6);
}

static __always_inline int flow_begin(struct packet *packet, struct flow_request *request,
				      const struct flow_tuple *tuple, bool ipv6)
{
	struct xlb_backend *backend;
	struct flow_lines lines;
	__u64 secret[2], value;
	__u32 other;
	int reason;

	request->now = packet->now;
	request->evicted_count = 0;
	request->counted = 0;
	request->backend = flow_choose(packet, request, ipv6);
	if (!request->backend)
		return FLOW_REFUSED;
	backend = backend_get(request->backend);
	if (!backend || backend->state == XLB_BACKEND_RETIRED || backend->state == XLB_BACKEND_FREE)
		return XLB_DROP_BAD_RING;
	/*
	 * A socket of this node would take the node's own address for a forgery: it sees the
	 * client's.
	 */
	if (request->forward == XLB_FORWARD_NAT && backend->ifindex == XLB_LOOPBACK_IFINDEX)
		request->forward = XLB_FORWARD_DNAT;
	secret_get(secret);
	request->endpoint_hash = backend_endpoint_hash(backend, secret);
	lines = flow_client_lines(tuple, ipv6, secret);
	reason = flow_reserve(request, tuple, lines, ipv6, secret);
	flow_forget_evicted(request, ipv6);
	if (reason)
		return reason;
	if (request->counted)
		__sync_fetch_and_add(&backend->load, 1);
	value = flow_commit(request, tuple, packet->protocol, ipv6);
	other = flow_find(FLOW_OF_PACKET, flow_lines_pack(lines), request->slot, ipv6);
	if (__builtin_expect(other != FLOW_NOWHERE, 0) && flow_join(other, value, ipv6))
		return 0;
	packet->outcome.new_flow = 1;
	if (request->service.target.options)
		affinity_note(packet, request->service.id, request->backend, ipv6);
	return 0;
}

/* Begins the flow that this CPU's request asks for. 0, FLOW_REFUSED, or an enum xlb_drop. */
__weak __noinline int flow_new(bool ipv6)
{
	__u32 zero = 0;
	struct flow_request *request = bpf_map_lookup_elem(&requests, &zero);
	struct flow_tuple *tuple = flow_tuple_get(FLOW_OF_PACKET);
	struct packet *packet = packet_get();

	if (!request || !packet || !tuple)
		return XLB_DROP_FLOWS_FULL;
	if (source_forged(packet, request->service.target.forward == XLB_FORWARD_DNAT, ipv6))
		return XLB_DROP_BAD_SOURCE;
	return ipv6 ? flow_begin(packet, request, tuple, true) :
		      flow_begin(packet, request, tuple, false);
}

#endif
