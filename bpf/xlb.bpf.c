// SPDX-License-Identifier: GPL-2.0
/*
 * The walk of a packet through xlb, from top to bottom:
 *
 * 	parse -> service -> flow -> backend -> translate -> next hop -> emit
 * 	            |         |
 * 	            |         no flow: choose a backend, begin one; nobody there: refuse
 * 	            no service: a reply? translate it back; else not ours: it leaves as it came
 *
 * and one exit, finish(), that answers, counts and turns the verdict into an XDP action. The parts
 * are in the headers, one for each step. Every function of the walk is inlined twice, for IPv4 and
 * IPv6, with `ipv6` a constant; what is rare (a new flow, a look-up of routes, an answer) is a
 * function of its own and off the path.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "answer.h"
#include "choose.h"
#include "config.h"
#include "count.h"
#include "flow.h"
#include "flow_change.h"
#include "flow_open.h"
#include "hop.h"
#include "maps.h"
#include "packet.h"
#include "reply.h"
#include "rewrite.h"
#include "service.h"

const volatile struct xlb_config cfg = {};

static __always_inline enum verdict dropped(struct packet *packet, enum xlb_drop reason)
{
	packet->drop = reason;
	return VERDICT_DROP;
}

#define HOP_IPV6 (1ull << 32)	/* beside an ifindex, where arguments are few */

/* A flow that goes to a backend. */
struct course {
	struct flow_tuple tuple;
	struct xlb_backend *backend;
	union xlb_flow_value value;
};

/*
 * Whether a backend still takes packets of a flow that it has: looked up in bits, for one branch.
 */
static __always_inline bool backend_keeps(const struct xlb_backend *backend, __u8 protocol)
{
	__u32 states = 1 << XLB_BACKEND_ACTIVE | 1 << XLB_BACKEND_DRAINING;

	states |= (protocol == IPPROTO_TCP) << XLB_BACKEND_DOWN;
	return states >> (backend->state & 7) & 1;
}

/* Whether a client begins anew on the tuple of a flow that is over, or nearly. */
static __always_inline bool flow_restarts(union xlb_flow_value value, const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	       value.state >= XLB_FLOW_FIN_CLIENT && value.state <= XLB_FLOW_CLOSED;
}

/* The backend that the packet's flow began on, if there is such a flow and it still serves. */
static __always_inline bool course_known(struct packet *packet, const __u64 *secret, bool ipv6,
					 struct course *course)
{
	struct flow_lines lines = flow_client_lines(&course->tuple, ipv6, secret);
	struct flow_ref flow;

	if (!flow_match_either(lines, &course->tuple, FLOW_KEY_ALL, ipv6, &flow))
		return false;
	course->value = flow_read(flow.slot, ipv6);
	if (course->value.state == XLB_FLOW_CLAIMED)
		return false;
	course->backend = backend_get(course->value.backend);
	if (!course->backend)
		return false;
	if (__builtin_expect(!backend_keeps(course->backend, packet->protocol) ||
			     flow_restarts(course->value, packet), 0)) {
		flow_release(&flow, course->value, ipv6);
		return false;
	}
	flow_touch(&flow, course->value, FLOW_BY_CLIENT, packet, ipv6);
	return true;
}

/* Whether a packet without a flow may begin one; if not, what becomes of it. */
static __always_inline enum verdict may_begin(struct packet *packet,
					      const struct service_ref *service)
{
	if (packet->protocol == IPPROTO_TCP && !(packet->tcp_flags & TCP_SYN)) {
		if (packet->tcp_flags & TCP_RST)
			return dropped(packet, XLB_DROP_NO_FLOW);
		/*
		 * Only where the backend follows from the packet, and knows its client, can it be
		 * picked up again.
		 */
		if (service->target.forward != XLB_FORWARD_DNAT ||
		    service->target.scheduler != XLB_SCHEDULER_MAGLEV)
			return VERDICT_REFUSE;
	}
	return service->target.ring_size ? VERDICT_NEXT : VERDICT_REFUSE;
}

/* Chooses a backend and begins a flow on it. */
static __always_inline enum verdict course_begin(struct packet *packet,
						 const struct service_ref *service, bool ipv6,
						 struct course *course)
{
	enum verdict verdict = may_begin(packet, service);
	struct flow_request *request;
	__u32 zero = 0;
	int reason;

	if (verdict)
		return verdict;
	request = bpf_map_lookup_elem(&scratch, &zero);
	if (!request)
		return dropped(packet, XLB_DROP_FLOWS_FULL);
	request->tuple.key = course->tuple.key;
	request->tuple.word = course->tuple.word;
	request->client.word[0] = packet->source.word[0];
	if (ipv6) {
		address_copy(&request->tuple.client, &packet->source);
		address_copy(&request->client, &packet->source);
	}
	request->service = *service;
	request->client_port = packet->source_port;
	request->protocol = packet->protocol;
	request->now = packet->now;
	reason = flow_new(ipv6);
	if (reason)
		return dropped(packet, reason);
	course->value.word = request->backend;
	course->value.port = request->port;
	course->backend = backend_get(request->backend);
	return course->backend ? VERDICT_NEXT : dropped(packet, XLB_DROP_BAD_RING);
}

/* What the backend is to see. */
static __always_inline void course_translation(const struct packet *packet,
					       const struct course *course, bool ipv6,
					       struct translation *translation)
{
	const struct xlb_backend *backend = course->backend;

	translation->address_sum = (__u64)backend->address_sum + (__u16)~backend->vip_sum;
	translation->source_port = packet->source_port;
	translation->destination_port = backend->port;
	if (ipv6) {
		address_copy(&translation->source, &packet->source);
		address_copy(&translation->destination, &backend->address);
	} else {
		translation->source.word[0] = packet->source.word[0];
		translation->destination.word[0] = backend->address.word[0];
	}
	if (!course->value.port)
		return;
	translation->source_port = bpf_htons(course->value.port);
	translation->address_sum += backend->source_sum + address_minus(&packet->source, ipv6);
	if (ipv6)
		address_copy(&translation->source, &backend->source);
	else
		translation->source.word[0] = backend->source.word[0];
}

/* Whose next hop it is: a backend's (by id), or a client's (by slot of `neighbours`). */
#define HOP_CLIENT (1ull << 33)

/* What the look-up of a next hop takes besides numbers; per CPU. */
struct hop_request {
	struct translation translation;
	__u32 now;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hop_request);
} hop_requests SEC(".maps") __weak;

/*
 * The look-up, as a function of its own: of the next hop number `which`, with HOP_CLIENT and
 * HOP_IPV6; `fallback`: see hop_refresh().
 */
__weak __noinline int hop_look_up(struct xdp_md *ctx, __u64 which, __u32 fallback)
{
	__u32 zero = 0, id = which;
	struct hop_request *request = bpf_map_lookup_elem(&hop_requests, &zero);
	struct xlb_neighbour *neighbour;
	struct xlb_backend *backend;
	struct xlb_next_hop *next;

	if (!request)
		return 0;
	if (which & HOP_CLIENT) {
		neighbour = bpf_map_lookup_elem(&neighbours, &id);
		if (!neighbour)
			return 0;
		next = &neighbour->next_hop;
	} else {
		backend = backend_get(id);
		if (!backend)
			return 0;
		next = &backend->next_hop;
	}
	hop_refresh(ctx, next, &request->translation, request->protocol, request->now,
		    ctx->ingress_ifindex, fallback, which & HOP_IPV6);
	return 0;
}

/* Makes sure that a next hop was looked up within this tick. */
static __always_inline void hop_freshen(struct xdp_md *ctx, const struct packet *packet,
					struct xlb_next_hop *next, __u64 which, __u32 fallback,
					const struct translation *translation, bool ipv6)
{
	struct hop_request *request;
	__u32 zero = 0;

	if (__builtin_expect(*(volatile __u32 *)&next->checked == packet->now, 1))
		return;
	request = bpf_map_lookup_elem(&hop_requests, &zero);
	if (!request)
		return;
	request->now = packet->now;
	request->protocol = packet->protocol;
	request->translation.source.word[0] = translation->source.word[0];
	request->translation.destination.word[0] = translation->destination.word[0];
	if (ipv6) {
		address_copy(&request->translation.source, &translation->source);
		address_copy(&request->translation.destination, &translation->destination);
		which |= HOP_IPV6;
	}
	hop_look_up(ctx, which, fallback);
}

/* A packet for a VIP. */
static __always_inline enum verdict serve(struct xdp_md *ctx, struct packet *packet,
					  const struct service_ref *service, const __u64 *secret,
					  bool ipv6, struct outcome *outcome)
{
	struct translation translation;
	struct course course;
	enum verdict verdict;

	if (packet->ttl <= 1)
		return VERDICT_PASS;
	outcome->known_service = 1;
	outcome->service = SERVICE_KEY(ipv6, service->id);
	if (!packet_sound(packet))
		return dropped(packet, XLB_DROP_MALFORMED);
	packet->now = tick_now();
	flow_tuple_make(&course.tuple, &packet->source, packet->source_port, service->id, ipv6,
			secret);
	if (!course_known(packet, secret, ipv6, &course)) {
		verdict = course_begin(packet, service, ipv6, &course);
		if (verdict)
			return verdict;
		outcome->new_flow = 1;
	}
	outcome->backend = course.value.backend;
	course_translation(packet, &course, ipv6, &translation);
	hop_freshen(ctx, packet, &course.backend->next_hop, course.value.backend,
		    course.backend->ifindex, &translation, ipv6);
	translate(packet, &translation, ipv6);
	return emit(ctx, packet, hop_current(&course.backend->next_hop));
}

/* A packet that is not for a VIP: a backend's reply, or not ours. */
static __always_inline enum verdict restore(struct xdp_md *ctx, struct packet *packet,
					    const __u64 *secret, bool ipv6,
					    struct outcome *outcome)
{
	struct translation translation;
	struct xlb_next_hop *next;
	struct reply reply;
	__u32 slot;

	if (!reply_find(packet, ipv6, secret, &reply) || packet->ttl <= 1)
		return VERDICT_PASS;
	packet->now = tick_now();
	outcome->known_service = 1;
	outcome->service = SERVICE_KEY(ipv6, reply.key.service);
	outcome->backend = reply.value.backend;
	outcome->to_client = 1;
	reply_translation(packet, &reply, ipv6, &translation);
	flow_touch(&reply.flow, reply.value, FLOW_BY_REPLY, packet, ipv6);
	next = neighbour_get(&translation.destination, ipv6, &slot);
	if (!next)
		return dropped(packet, XLB_DROP_NO_ROUTE);
	hop_freshen(ctx, packet, next, slot | HOP_CLIENT, 0, &translation, ipv6);
	translate(packet, &translation, ipv6);
	return emit(ctx, packet, hop_current(next));
}

static __always_inline enum verdict walk(struct xdp_md *ctx, struct packet *packet, void *cursor,
					 bool ipv6, struct outcome *outcome)
{
	struct service_ref service;
	__u64 secret[2];
	enum verdict verdict;

	verdict = ipv6 ? parse_ipv6(packet, &cursor) : parse_ipv4(packet, &cursor);
	if (verdict)
		return verdict;
	verdict = parse_transport(packet, cursor);
	if (verdict)
		return verdict;
	secret_get(secret);
	if (service_find(&packet->destination, packet->destination_port, packet->protocol, ipv6,
			 secret, &service))
		return serve(ctx, packet, &service, secret, ipv6, outcome);
	return restore(ctx, packet, secret, ipv6, outcome);
}

/* The one exit. */
static __always_inline int finish(struct xdp_md *ctx, struct packet *packet, bool ipv6,
				  enum verdict verdict, struct outcome *outcome)
{
	if (verdict == VERDICT_PASS)
		return XDP_PASS;
	if (__builtin_expect(verdict == VERDICT_REFUSE, 0) && refuse(ctx, packet, ipv6))
		verdict = dropped(packet, XLB_DROP_ANSWER_FAILED);
	count(outcome, packet, verdict);
	switch (verdict) {
	case VERDICT_TX:
	case VERDICT_REFUSE:
		return XDP_TX;
	case VERDICT_REDIRECT:
		return XDP_REDIRECT;
	case VERDICT_LOCAL:
	case VERDICT_STACK:
		return XDP_PASS;
	default:
		return XDP_DROP;
	}
}

SEC("xdp")
int xlb(struct xdp_md *ctx)
{
	struct packet packet = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.frame = ctx->data_end - ctx->data,
		.unknown = ctx->rx_queue_index,
	};
	struct outcome outcome = {};
	enum verdict verdict;
	void *cursor;
	__be16 type;

	type = parse_ethernet(&packet, &cursor);
	if (type == bpf_htons(ETH_P_IP)) {
		verdict = walk(ctx, &packet, cursor, false, &outcome);
		return finish(ctx, &packet, false, verdict, &outcome);
	}
	if (type == bpf_htons(ETH_P_IPV6)) {
		verdict = walk(ctx, &packet, cursor, true, &outcome);
		return finish(ctx, &packet, true, verdict, &outcome);
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
