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

/* Which half a slot lies in. */
enum flow_half {
	FLOW_BY_CLIENT,
	FLOW_BY_REPLY,
};

static __always_inline __u64 backend_endpoint_hash(const struct xlb_backend *backend,
						   const __u64 *secret)
{
	__u64 word = xlb_address_word(&backend->address, backend->family, secret);

	return xlb_hash_endpoint(word, backend->port, backend->protocol, secret);
}

/* Which half a slot lies in. */
static __always_inline enum flow_half flow_half_of(__u32 number, bool ipv6)
{
	return number >= flow_lines(ipv6) * XLB_FLOW_WAYS ? FLOW_BY_REPLY : FLOW_BY_CLIENT;
}

/* The other copy of a flow, if it is still there. */
static __always_inline bool flow_twin(const struct flow_ref *ref, union xlb_flow_value value,
				      bool ipv6, struct flow_ref *ret_twin)
{
	struct xlb_backend *backend = backend_get(value.backend);
	union xlb_flow_key key = { .word = *flow_key(ref->slot, ipv6) };
	struct xlb_address client = { .word[0] = key.client };
	struct flow_tuple *tuple = flow_tuple_get(FLOW_OF_TWIN);
	struct flow_lines lines;
	__u64 secret[2], endpoint;
	bool by_reply;

	if (!backend || !tuple)
		return false;
	secret_get(secret);
	if (ipv6)
		address_copy(&client, ref->slot);
	endpoint = backend_endpoint_hash(backend, secret);
	by_reply = flow_half_of(ref->number, ipv6) == FLOW_BY_REPLY;
	flow_tuple_make(tuple, &client, key.port,
			by_reply ? backend->service : flow_reply_tag(endpoint, value.port), ipv6,
			secret);
	if (!by_reply && value.port)
		return flow_at(flow_port_slot(endpoint, value.port, ipv6), ipv6, ret_twin) &&
		       *flow_key(ret_twin->slot, ipv6) == tuple->key.word;
	lines = by_reply ? flow_client_lines(tuple, ipv6, secret) :
			   flow_reply_lines(tuple->word, endpoint, ipv6, secret);
	return flow_find_either(FLOW_OF_TWIN, lines, ipv6, ret_twin);
}

static __always_inline bool flow_same(union xlb_flow_value a, union xlb_flow_value b)
{
	return a.backend == b.backend && a.port == b.port;
}

/* A flow is no longer one of its backend's (see XLB_SCHEDULER_LC). */
static __always_inline void flow_uncount(union xlb_flow_value value)
{
	struct xlb_backend *backend;

	if (!value.counted)
		return;
	backend = backend_get(value.backend);
	if (backend)
		__sync_fetch_and_add(&backend->load, -1);
}

/* Writes `after` over the twin's value, if the twin is of the same flow. */
static __always_inline bool flow_twin_set(const struct flow_ref *ref, union xlb_flow_value value,
					  __u64 after, bool ipv6)
{
	struct flow_ref twin;
	union xlb_flow_value other;

	/* Replies to the others do not come by here: there is but one copy. */
	if (value.forward > XLB_FORWARD_DNAT)
		return true;
	if (!flow_twin(ref, value, ipv6, &twin))
		return false;
	other = flow_read(twin.slot, ipv6);
	return flow_same(other, value) && flow_swap(twin.slot, ipv6, other.word, after);
}

/*
 * Ends the other copy of the flow that had `value` in this slot, which was taken over or cleared.
 */
__weak __noinline int flow_forget_twin(__u32 number, __u64 value, bool ipv6)
{
	union xlb_flow_value old = { .word = value };
	struct flow_ref ref;

	bool gone = false;

	if (ipv6) {
		if (flow_at(number, true, &ref))
			gone = flow_twin_set(&ref, old, 0, true);
	} else {
		if (flow_at(number, false, &ref))
			gone = flow_twin_set(&ref, old, 0, false);
	}
	/* Once a flow, also when both copies are taken over at once by different CPUs. */
	if (gone)
		flow_uncount(old);
	return 0;
}

/* Ends a flow: both copies. */
static __always_inline void flow_release(const struct flow_ref *ref, union xlb_flow_value value,
					 bool ipv6)
{
	if (flow_swap(ref->slot, ipv6, value.word, 0))
		flow_forget_twin(ref->number, value.word, ipv6);
}

static __always_inline int flow_write_both(__u32 number, __u64 before, __u64 after, bool ipv6)
{
	union xlb_flow_value value = { .word = before }, then = { .word = after };
	struct flow_ref ref;

	if (!flow_at(number, ipv6, &ref) ||
	    !flow_swap(ref.slot, ipv6, before, after))
		return 0;
	value.counted &= !then.counted;
	flow_uncount(value);
	if (!flow_twin_set(&ref, value, after, ipv6) && flow_swap(ref.slot, ipv6, after, 0))
		flow_uncount(then);
	return 0;
}

/*
 * Writes a new state or tick to both copies. Where the twin is gone (its slot was given to another
 * flow), the flow cannot work any more: this copy goes too, and the client's next packet is told
 * so.
 */
__weak __noinline int flow_update(__u32 number, __u64 before, __u64 after, bool ipv6)
{
	return ipv6 ? flow_write_both(number, before, after, true) :
		      flow_write_both(number, before, after, false);
}

/* The state after a packet. */
static __always_inline __u8 flow_next_state(__u8 state, enum flow_half half, __u8 protocol,
					    __u8 flags, __u8 forward)
{
	bool from_backend = half == FLOW_BY_REPLY;

	/* Where replies do not come by, or need not, the client's second packet has to do. */
	if (protocol == IPPROTO_UDP)
		return from_backend || forward > XLB_FORWARD_DNAT ? XLB_FLOW_STREAM : state;
	if (flags & TCP_RST)
		return XLB_FLOW_CLOSED;
	if (flags & TCP_FIN) {
		__u8 other = from_backend ? XLB_FLOW_FIN_CLIENT : XLB_FLOW_FIN_BACKEND;

		if (state == other || state == XLB_FLOW_CLOSED)
			return XLB_FLOW_CLOSED;
		return from_backend ? XLB_FLOW_FIN_BACKEND : XLB_FLOW_FIN_CLIENT;
	}
	if (state == XLB_FLOW_SYN &&
	    (from_backend || (forward != XLB_FORWARD_NAT && !(flags & TCP_SYN))))
		return XLB_FLOW_ESTABLISHED;
	return state;
}

/* Notes that a packet of a known flow came by. */
static __always_inline void flow_touch(const struct flow_ref *ref, union xlb_flow_value value,
				       enum flow_half half, const struct packet *packet, bool ipv6)
{
	union xlb_flow_value after = value;

	if (__builtin_expect(packet->kind == KIND_ERROR, 0))
		return;
	after.seen = packet->now;
	after.state = flow_next_state(value.state, half, packet->protocol, packet->tcp_flags,
				      value.forward);
	after.counted &= after.state != XLB_FLOW_CLOSED;
	if (__builtin_expect(after.word != value.word, 0))
		flow_update(ref->number, value.word, after.word, ipv6);
}

#endif
