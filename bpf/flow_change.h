/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Moving flows on and ending them: what writes to flows that are there.
 *
 * All of it is off the fast path (once for each change of state, or tick), so these are functions
 * of their own. Those that are not static take numbers only, and the verifier looks at them once.
 */
#ifndef XLB_FLOW_CHANGE_H
#define XLB_FLOW_CHANGE_H

#include "flow.h"

#define FLOW_SEEN_SHIFT 48

/* A copy that so many times was written by others while we looked is left to them. */
#define CHANGE_TRIES 4

/* Which half a slot lies in. */
enum flow_half {
	FLOW_BY_CLIENT,
	FLOW_BY_REPLY,
};

static __always_inline __u64 backend_endpoint_hash(const struct xlb_backend *backend,
						   const __u64 *secret)
{
	__u64 word = xlb_address_word(&backend->address, backend->family, secret);

	return xlb_endpoint_hash(xlb_endpoint_mark(word, backend->port, backend->protocol, secret),
				 secret);
}

/* Which half a slot lies in. */
static __always_inline enum flow_half flow_half_of(__u32 number, bool ipv6)
{
	return number >= flow_lines(ipv6) * XLB_FLOW_WAYS ? FLOW_BY_REPLY : FLOW_BY_CLIENT;
}

/* Where the other copy of a flow is; FLOW_NOWHERE: gone. */
static __always_inline __u32 flow_twin(__u32 number, union xlb_flow_value value, bool ipv6)
{
	bool by_reply = flow_half_of(number, ipv6) == FLOW_BY_REPLY;
	struct xlb_backend *backend = backend_get(value.backend);
	struct flow_tuple *tuple = flow_tuple_get(FLOW_OF_TWIN);
	struct xlb_address client = {};
	union xlb_flow_key key;
	struct flow_lines lines;
	struct flow_ref ref;
	__u64 secret[2], endpoint;

	if (!backend || !tuple || !flow_at(number, ipv6, &ref))
		return FLOW_NOWHERE;
	secret_get(secret);
	key.word = *flow_key(ref.slot, ipv6);
	client.word[0] = key.client;
	if (ipv6)
		address_copy(&client, ref.slot);
	endpoint = backend_endpoint_hash(backend, secret);
	flow_tuple_make(tuple, &client, key.port,
			by_reply ? backend->service : flow_reply_tag(endpoint, value.port), ipv6,
			secret);
	if (!by_reply && value.port) {
		number = flow_port_slot(endpoint, value.port, ipv6);
		return flow_at(number, ipv6, &ref) &&
				       *flow_key(ref.slot, ipv6) == tuple->key.word ?
			       number : FLOW_NOWHERE;
	}
	lines = by_reply ? flow_client_lines(tuple, ipv6, secret) :
			   flow_reply_lines(tuple->word, endpoint, ipv6, secret);
	return flow_find(FLOW_OF_TWIN, flow_lines_pack(lines), FLOW_NOWHERE, ipv6);
}

/* The same as a function. The slot's key must still be that of the flow. */
__weak __noinline __u32 flow_twin_of(__u32 number, __u64 word, bool ipv6)
{
	union xlb_flow_value value = { .word = word };

	return ipv6 ? flow_twin(number, value, true) : flow_twin(number, value, false);
}

static __always_inline bool flow_same(union xlb_flow_value a, union xlb_flow_value b)
{
	return a.backend == b.backend && a.port == b.port;
}

/*
 * A copy of a flow is gone, or closed. The client's is the one that counts in its backend's load (see
 * XLB_SCHEDULER_LC): there is one of it, and one CPU that swaps it, so that a flow is counted off once.
 */
static __always_inline void flow_uncount(__u32 number, union xlb_flow_value value, bool ipv6)
{
	struct xlb_backend *backend;

	if (!value.counted || flow_half_of(number, ipv6) != FLOW_BY_CLIENT)
		return;
	backend = backend_get(value.backend);
	if (backend)
		__sync_fetch_and_add(&backend->load, -1);
}

static __always_inline bool flow_clear_in(__u32 number, union xlb_flow_value like, bool ipv6)
{
	struct flow_ref ref;

	if (!flow_at(number, ipv6, &ref))
		return false;
	for (int i = 0; i < CHANGE_TRIES; i++) {
		union xlb_flow_value value = flow_read(ref.slot, ipv6);

		if (!flow_same(value, like))
			return false;
		if (flow_swap(ref.slot, ipv6, value.word, 0)) {
			flow_uncount(number, value, ipv6);
			return true;
		}
	}
	return false;
}

/*
 * Clears a slot of the flow of `like`, whatever other CPUs write to it meanwhile. Whether it was there.
 */
__weak __noinline int flow_clear(__u32 number, __u64 like, bool ipv6)
{
	union xlb_flow_value value = { .word = like };

	return ipv6 ? flow_clear_in(number, value, true) : flow_clear_in(number, value, false);
}

/*
 * Ends the other copy of the flow that had `value` in this slot, which was taken over or cleared.
 */
static __always_inline void flow_forget_twin(__u32 number, union xlb_flow_value value, bool ipv6)
{
	/* Replies to the others do not come by here: there is but one copy. */
	if (value.forward <= XLB_FORWARD_DNAT)
		flow_clear(flow_twin_of(number, value.word, ipv6), value.word, ipv6);
}

/* Ends a flow: both copies. */
static __always_inline void flow_release(const struct flow_ref *ref, union xlb_flow_value value,
					 bool ipv6)
{
	if (flow_clear(ref->number, value.word, ipv6))
		flow_forget_twin(ref->number, value, ipv6);
}

/*
 * What becomes of each state, 4 bits for each: a row for each kind of packet, so that it is told once
 * what a packet means, and the copies are changed without a branch.
 */
#define STAYS(state) ((__u64)(state) << (state) * 4)
#define ALL_STAY \
	(STAYS(XLB_FLOW_CLAIMED) | STAYS(XLB_FLOW_SYN) | STAYS(XLB_FLOW_ESTABLISHED) | \
	 STAYS(XLB_FLOW_FIN_CLIENT) | STAYS(XLB_FLOW_FIN_BACKEND) | STAYS(XLB_FLOW_CLOSED) | \
	 STAYS(XLB_FLOW_ONEWAY) | STAYS(XLB_FLOW_STREAM) | STAYS(XLB_FLOW_ANSWERED) | \
	 STAYS(XLB_FLOW_ONESIDED) | STAYS(XLB_FLOW_CLOSING))
/* Exclusive-or'ed into a row. */
#define TURNS(from, to) ((__u64)((from) ^ (to)) << (from) * 4)

#define UDP_ANSWERED (ALL_STAY ^ TURNS(XLB_FLOW_ONEWAY, XLB_FLOW_STREAM))

/*
 * nat and dnat. Anybody can send in the client's name. So nothing from its side changes what no backend
 * has answered, and a RST only raises a doubt, which the next packet of either side removes (RFC 7857,
 * 2.2). The backend is believed: to a forged packet of a connection that it does not have it says RST,
 * and after that only repeats its SYN.
 */
#define CLIENT_SPEAKS \
	(ALL_STAY ^ TURNS(XLB_FLOW_ANSWERED, XLB_FLOW_ESTABLISHED) ^ \
	 TURNS(XLB_FLOW_CLOSING, XLB_FLOW_ESTABLISHED))
#define CLIENT_ENDS \
	(ALL_STAY ^ TURNS(XLB_FLOW_ANSWERED, XLB_FLOW_FIN_CLIENT) ^ \
	 TURNS(XLB_FLOW_ESTABLISHED, XLB_FLOW_FIN_CLIENT) ^ \
	 TURNS(XLB_FLOW_CLOSING, XLB_FLOW_FIN_CLIENT) ^ \
	 TURNS(XLB_FLOW_FIN_BACKEND, XLB_FLOW_CLOSED))
#define CLIENT_RESETS \
	(ALL_STAY ^ TURNS(XLB_FLOW_ANSWERED, XLB_FLOW_CLOSING) ^ \
	 TURNS(XLB_FLOW_ESTABLISHED, XLB_FLOW_CLOSING) ^ \
	 TURNS(XLB_FLOW_FIN_CLIENT, XLB_FLOW_CLOSING) ^ \
	 TURNS(XLB_FLOW_FIN_BACKEND, XLB_FLOW_CLOSING))
#define BACKEND_BEGINS (ALL_STAY ^ TURNS(XLB_FLOW_SYN, XLB_FLOW_ANSWERED))
#define BACKEND_SPEAKS (BACKEND_BEGINS ^ TURNS(XLB_FLOW_CLOSING, XLB_FLOW_ESTABLISHED))
#define BACKEND_ENDS \
	(ALL_STAY ^ TURNS(XLB_FLOW_SYN, XLB_FLOW_FIN_BACKEND) ^ \
	 TURNS(XLB_FLOW_ANSWERED, XLB_FLOW_FIN_BACKEND) ^ \
	 TURNS(XLB_FLOW_ESTABLISHED, XLB_FLOW_FIN_BACKEND) ^ \
	 TURNS(XLB_FLOW_CLOSING, XLB_FLOW_FIN_BACKEND) ^ \
	 TURNS(XLB_FLOW_FIN_CLIENT, XLB_FLOW_CLOSED))
#define BACKEND_RESETS \
	(ALL_STAY ^ TURNS(XLB_FLOW_SYN, XLB_FLOW_CLOSED) ^ \
	 TURNS(XLB_FLOW_ANSWERED, XLB_FLOW_CLOSED) ^ \
	 TURNS(XLB_FLOW_ESTABLISHED, XLB_FLOW_CLOSED) ^ \
	 TURNS(XLB_FLOW_CLOSING, XLB_FLOW_CLOSED) ^ \
	 TURNS(XLB_FLOW_FIN_CLIENT, XLB_FLOW_CLOSED) ^ \
	 TURNS(XLB_FLOW_FIN_BACKEND, XLB_FLOW_CLOSED))

/* l2, ipip and gue: the client is all that we hear of. */
#define ALONE_SPEAKS (ALL_STAY ^ TURNS(XLB_FLOW_SYN, XLB_FLOW_ONESIDED))
#define ALONE_ENDS (ALL_STAY ^ TURNS(XLB_FLOW_ONESIDED, XLB_FLOW_CLOSING))

static __always_inline __u64 flow_moves_client(__u8 flags, __u32 forward)
{
	bool alone = forward > XLB_FORWARD_DNAT;

	if (flags & TCP_RST)
		return alone ? ALONE_ENDS : CLIENT_RESETS;
	/* Without ACK no segment of a connection is heard (RFC 9293, 3.10.7.4), so nobody would object. */
	if ((flags & (TCP_SYN | TCP_ACK)) != TCP_ACK)
		return ALL_STAY;
	if (flags & TCP_FIN)
		return alone ? ALONE_ENDS : CLIENT_ENDS;
	return alone ? ALONE_SPEAKS : CLIENT_SPEAKS;
}

static __always_inline __u64 flow_moves_backend(__u8 flags)
{
	if (flags & TCP_RST)
		return BACKEND_RESETS;
	if (flags & TCP_FIN)
		return BACKEND_ENDS;
	return flags & TCP_SYN ? BACKEND_BEGINS : BACKEND_SPEAKS;
}

/* The row of a packet, by the half that its flow was found in. */
__weak __noinline __u64 flow_moves(__u32 half, __u32 forward, __u32 protocol, __u32 flags)
{
	if (protocol == IPPROTO_UDP)
		return half == FLOW_BY_REPLY || forward > XLB_FORWARD_DNAT ? UDP_ANSWERED : ALL_STAY;
	return half == FLOW_BY_REPLY ? flow_moves_backend(flags) :
				       flow_moves_client(flags, forward);
}

static __always_inline union xlb_flow_value flow_after(union xlb_flow_value value, __u64 moves,
						       __u32 now)
{
	value.seen = now;
	value.state = moves >> value.state * 4;
	value.counted &= value.state != XLB_FLOW_CLOSED && value.state != XLB_FLOW_CLOSING;
	return value;
}

enum flow_change {
	FLOW_GONE = 0,		/* the slot is another flow's, or nobody's */
	FLOW_KNOWN,		/* nothing has changed of which the other copy has to know now */
	FLOW_CHANGED,
};

/*
 * Whether the other copy is to be told, which lies in a cache line of its own. Of flows that are not given
 * away before their time nobody compares the ages: there it may lag behind, for which their timeouts allow.
 * (So long it may also take until a packet finds out that the other copy is gone, or is mended what two
 * packets on two CPUs made of it that do not come to the same in any order: a RST, and one that goes on.)
 */
static __always_inline bool flow_tells(union xlb_flow_value before, union xlb_flow_value after)
{
	if (before.state != after.state || !(XLB_FLOW_LAGGING >> after.state & 1))
		return true;
	return before.seen / XLB_FLOW_LAG != after.seen / XLB_FLOW_LAG;
}

static __always_inline int flow_change_in(__u32 number, union xlb_flow_value like, __u64 moves,
					  __u32 now, bool ipv6)
{
	struct flow_ref ref;

	if (!flow_at(number, ipv6, &ref))
		return FLOW_GONE;
	for (int i = 0; i < CHANGE_TRIES; i++) {
		union xlb_flow_value value = flow_read(ref.slot, ipv6), after;

		if (!flow_same(value, like))
			return FLOW_GONE;
		after = flow_after(value, moves, now);
		if (after.word == value.word)
			return FLOW_KNOWN;
		if (flow_swap(ref.slot, ipv6, value.word, after.word)) {
			value.counted &= !after.counted;
			flow_uncount(number, value, ipv6);
			return flow_tells(value, after) ? FLOW_CHANGED : FLOW_KNOWN;
		}
	}
	return FLOW_KNOWN;
}

/*
 * Lets a packet change one copy of a flow: what is there now, and not what was there when the packet was
 * looked up, so that nothing is lost which another CPU has written since. Returns an enum flow_change.
 */
__weak __noinline int flow_change(__u32 number, __u64 like, __u64 moves, __u32 now, bool ipv6)
{
	union xlb_flow_value value = { .word = like };

	return ipv6 ? flow_change_in(number, value, moves, now, true) :
		      flow_change_in(number, value, moves, now, false);
}

/*
 * Lets a packet change both copies of a flow, of which it was found by the one in this slot.
 * Each is changed by what the packet is, so that two packets on two CPUs come to the same in either
 * order (but for a RST of the client's: see flow_tells()). Where the twin is gone (its slot was given to another flow), the flow cannot work any more:
 * this copy goes too, and the client's next packet is told so.
 */
__weak __noinline int flow_update(__u32 number, __u64 before, __u64 moves, __u32 now, bool ipv6)
{
	union xlb_flow_value value = { .word = before };

	if (flow_change(number, before, moves, now, ipv6) != FLOW_CHANGED ||
	    value.forward > XLB_FORWARD_DNAT)
		return 0;
	if (flow_change(flow_twin_of(number, before, ipv6), before, moves, now, ipv6) == FLOW_GONE)
		flow_clear(number, before, ipv6);
	return 0;
}

/* States that a packet without SYN, FIN or RST may change. */
#define FLOW_UNSETTLED \
	(1u << XLB_FLOW_SYN | 1u << XLB_FLOW_ANSWERED | 1u << XLB_FLOW_CLOSING | \
	 1u << XLB_FLOW_ONEWAY)

/* Notes that a packet of a known flow came by. */
static __always_inline void flow_touch(const struct flow_ref *ref, union xlb_flow_value value,
				       const struct packet *packet, bool ipv6)
{
	union xlb_flow_value after = value;

	if (__builtin_expect(packet->kind == KIND_ERROR, 0))
		return;
	after.seen = packet->now;
	if (__builtin_expect(after.word != value.word ||
			     packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) ||
			     FLOW_UNSETTLED >> value.state & 1, 0))
		flow_update(ref->number, value.word,
			    flow_moves(flow_half_of(ref->number, ipv6), value.forward,
				       packet->protocol, packet->tcp_flags),
			    packet->now, ipv6);
}

#endif
