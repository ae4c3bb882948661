// SPDX-License-Identifier: GPL-2.0
/*
 * The walk of a packet through xlb, from top to bottom:
 *
 * 	parse -> service -> admit -> flow or ring -> backend -> next hop -> rewrite -> emit
 * 	            |                    |
 * 	            |                    no flow: choose a backend, begin one; nobody there: refuse
 * 	            no service: a reply? translate it back; else not ours: it leaves as it came
 *
 * and one exit, finish(), that answers, counts and turns the verdict into an XDP action. The parts
 * are in the headers, one for each step. Every function of the walk is inlined twice, for IPv4 and
 * IPv6, with `ipv6` a constant; what is rare (fragments, ICMP, a new flow, a look-up of routes, a
 * tunnel, an answer) is a function of its own and off the path.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "admit.h"
#include "answer.h"
#include "choose.h"
#include "config.h"
#include "count.h"
#include "cross.h"
#include "dissect.h"
#include "flow.h"
#include "flow_change.h"
#include "flow_open.h"
#include "hop.h"
#include "maps.h"
#include "mss.h"
#include "packet.h"
#include "reply.h"
#include "rewrite.h"
#include "service.h"
#include "tunnel.h"

const volatile struct xlb_config cfg = {};
const volatile bool has_atomics = true; /* before Linux 5.12 lbctl makes it false: atomic.h */
/* The kernel can say how long a frame in several buffers is (5.18). Set by lbctl. */
const volatile bool has_buff_len = false;
/* mirror.h. Set by lbctl. */
const volatile bool has_mirror = false;

/* What the walk found out about a packet that goes to a backend. */
struct course {
	struct xlb_backend *backend;
	union xlb_flow_value value;	/* of its flow; without one: backend and forward */
};

/* ---- parts that are rare, as functions that the verifier looks at once ---- */

/* The parts of dissect.h. Returns an enum verdict. */
__weak __noinline int xdp_dissect(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (!packet)
		return VERDICT_PASS;
	return dissect(packet, data, end);
}

/* Translates an ICMP error by packet.translation. Returns 0, or -1: it is not all there. */
__weak __noinline int xdp_translate_error(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (!packet)
		return -1;
	return translate_error(packet, data, end) ? 0 : -1;
}

/* Lowers the MSS of a SYN if its service wants it lower. */
__weak __noinline int xdp_check_mss(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet *packet = packet_get();
	struct xlb_service_options *options;

	if (!packet)
		return 0;
	options = bpf_map_lookup_elem(&service_options, &packet->outcome.service);
	if (options && options->mss)
		mss_lower(packet, data, end, options->mss);
	return 0;
}

#define HOP_IPV6 (1ull << 32)	/* beside an ifindex, where arguments are few */
/* Whose next hop it is: a backend's (by id), or a client's (by slot of `neighbours`). */
#define HOP_CLIENT (1ull << 33)

static __always_inline struct xlb_next_hop *hop_of(__u64 which)
{
	struct xlb_neighbour *neighbour;
	struct xlb_backend *backend;
	__u32 id = which;

	if (which & HOP_CLIENT) {
		neighbour = bpf_map_lookup_elem(&neighbours, &id);
		if (!neighbour)
			return NULL;
		/* Else clang adds first and asks then, which the verifier does not like. */
		barrier_var(neighbour);
		return &neighbour->next_hop;
	}
	backend = backend_get(id);
	if (!backend)
		return NULL;
	barrier_var(backend);
	return &backend->next_hop;
}

/*
 * The look-up of the next hop number `which`, with HOP_CLIENT and HOP_IPV6, on the way that
 * packet.translation says; `fallback`: see hop_refresh().
 */
__weak __noinline int hop_look_up(struct xdp_md *ctx, __u64 which, __u32 fallback)
{
	struct xlb_next_hop *next = hop_of(which);
	struct packet *packet = packet_get();

	if (!packet || !next)
		return 0;
	hop_refresh(ctx, next, &packet->translation, packet->protocol, packet->now,
		    ctx->ingress_ifindex, fallback, which & HOP_IPV6);
	return 0;
}

/*
 * The length of the whole frame, where it may lie in several buffers (jumbo frames, xdp.frags), of
 * which the first can be read.
 */
__weak __noinline int xdp_measure(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();

	if (has_buff_len && packet)
		packet->frame = bpf_xdp_get_buff_len(ctx);
	return 0;
}

/* ---- the walk ---- */

/* Makes sure that a next hop was looked up within this tick. */
static __always_inline void hop_freshen(struct xdp_md *ctx, struct packet *packet,
					struct xlb_next_hop *next, __u64 which, __u32 fallback,
					const struct xlb_address *source,
					const struct xlb_address *destination, bool ipv6)
{
	if (__builtin_expect(*(volatile __u32 *)&next->checked == packet->now, 1))
		return;
	packet->translation.source.word[0] = source->word[0];
	packet->translation.destination.word[0] = destination->word[0];
	if (ipv6) {
		address_copy(&packet->translation.source, source);
		address_copy(&packet->translation.destination, destination);
		which |= HOP_IPV6;
	}
	hop_look_up(ctx, which, fallback);
}

/* Whether a client begins anew on the tuple of a flow that is over, or nearly. */
static __always_inline bool flow_restarts(union xlb_flow_value value, const struct packet *packet)
{
	return packet_begins(packet) && value.state >= XLB_FLOW_FIN_CLIENT && value.state <= XLB_FLOW_CLOSED;
}

/* The backend that the packet's flow began on, if there is such a flow and it still serves. */
static __always_inline bool course_known(struct packet *packet, const struct service_ref *service,
					 const __u64 *secret, bool ipv6, struct course *course)
{
	struct flow_tuple *tuple = flow_tuple_get(FLOW_OF_PACKET);
	struct flow_lines lines;
	struct flow_ref flow;
	__u32 number;

	if (!tuple)
		return false;
	flow_tuple_make(tuple, &packet->source, packet->source_port, service->id, ipv6, secret);
	lines = flow_client_lines(tuple, ipv6, secret);
	packet->flow = flow_search(tuple, lines, ipv6);
	number = RECALL(packet->flow);
	if (number == FLOW_NOWHERE ||
	    !flow_at(number, ipv6, &flow))
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

/* Chooses a backend and begins a flow on it. */
static __always_inline enum verdict course_begin(struct packet *packet,
						 const struct service_ref *service, bool ipv6,
						 struct course *course)
{
	struct flow_request *request;
	__u32 zero = 0;
	int reason;

	if (packet->kind == KIND_ERROR)
		return VERDICT_PASS;
	request = bpf_map_lookup_elem(&requests, &zero);
	if (!request)
		return dropped(packet, XLB_DROP_FLOWS_FULL);
	request->service = *service;
	reason = flow_new(ipv6);
	if (reason == FLOW_REFUSED) {
		if (packet->tcp_flags & TCP_RST)
			return dropped(packet, XLB_DROP_NO_FLOW);
		return answered(packet, ANSWER_REFUSED);
	}
	if (reason)
		return dropped(packet, reason);
	course->value.word = request->backend;
	course->value.port = request->port;
	course->value.forward = request->forward;
	course->backend = backend_get(request->backend);
	return course->backend ? VERDICT_NEXT : dropped(packet, XLB_DROP_BAD_RING);
}

/* The backend that the ring names, where that is all that there is to know. */
static __always_inline bool course_ring(const struct packet *packet,
					const struct service_ref *service, bool ipv6,
					struct course *course)
{
	union xlb_service_target target = service->target;
	__u32 entry = ring_read(target, ring_slot(target, ring_hash(packet, target.scheduler,
								    ipv6)));

	if (__builtin_expect(!target.ring_size || !entry || entry & XLB_RING_MOVED, 0))
		return false;
	course->value.word = entry;
	course->value.forward = target.forward;
	course->backend = backend_get(entry);
	return course->backend;
}

/* The backend of a packet for a service. */
static __always_inline enum verdict course_find(struct packet *packet,
						const struct service_ref *service,
						const __u64 *secret, bool ipv6,
						struct course *course)
{
	enum verdict verdict;

	if (service->target.stateless && course_ring(packet, service, ipv6, course)) {
		packet->outcome.new_flow = packet_begins(packet);
		return VERDICT_NEXT;
	}
	if (course_known(packet, service, secret, ipv6, course))
		return VERDICT_NEXT;
	verdict = course_begin(packet, service, ipv6, course);
	packet->outcome.new_flow = !verdict;
	return verdict;
}

/* What the backend is to see; of tunnels, in the outer header. */
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

/* Whether a packet, with what is put in front of it, is more than a link takes. */
static __always_inline bool hop_overflows(const struct packet *packet,
					  const struct xlb_next_hop *next, __u32 added)
{
	__u32 mtu = *(volatile __u16 *)&next->mtu;

	return __builtin_expect(mtu && packet->bytes + added > mtu, 0);
}

/* What becomes of a packet that does not fit. */
static __always_inline enum verdict too_big(struct packet *packet,
					    const struct xlb_next_hop *next, __u32 added)
{
	packet->mtu = next->mtu - added;
	return answered(packet, ANSWER_TOO_BIG);
}

/* Translates the packet in place. */
static __always_inline bool translate(struct xdp_md *ctx, struct packet *packet,
				      struct frame *frame, const struct translation *translation,
				      bool ipv6)
{
	if (__builtin_expect(packet->kind == KIND_ERROR, 0)) {
		packet->translation = *translation;
		return !xdp_translate_error(ctx);
	}
	translate_network(frame->network, translation, ipv6);
	if (__builtin_expect(packet->kind == KIND_LATER_FRAGMENT, 0))
		return true;
	return translate_transport(packet, frame, translation);
}

/*
 * Sends the packet in hand to a next hop (see hop_look_up) as one of the other family, by
 * packet.translation. Returns an enum verdict.
 */
__weak __noinline int emit_crossed(struct xdp_md *ctx, __u64 which, __u32 fallback)
{
	struct xlb_next_hop *next = hop_of(which);
	struct packet *packet = packet_get();
	int reason;

	if (!packet || !next)
		return VERDICT_PASS;
	if (!cross_possible(packet))
		return dropped(packet, XLB_DROP_UNTRANSLATABLE);
	if (*(volatile __u32 *)&next->checked != packet->now)
		hop_look_up(ctx, which, fallback);
	if (cross_overflows(packet, next))
		return answered(packet, ANSWER_TOO_BIG);
	if (packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	reason = cross(ctx);
	if (reason)
		return dropped(packet, reason);
	return emit(ctx, packet, hop_current(next));
}

/* To a backend of the other family, by its id; `port`: of the flow. Returns an enum verdict. */
__weak __noinline int serve_crossed(struct xdp_md *ctx, __u32 id, __u32 port)
{
	struct xlb_backend *backend = backend_get(id);
	struct packet *packet = packet_get();

	if (!packet || !backend)
		return VERDICT_PASS;
	/* A socket of this node: its flows are not translated (flow_begin). */
	if (!port)
		return dropped(packet, XLB_DROP_UNTRANSLATABLE);
	cross_to_backend(packet, backend, port);
	return emit_crossed(ctx, id | (packet->ipv6 ? 0 : HOP_IPV6), backend->ifindex);
}

/* To a backend that answers the client itself. */
static __always_inline enum verdict serve_direct(struct xdp_md *ctx, struct packet *packet,
						 struct frame *frame, const struct course *course,
						 bool options, bool ipv6)
{
	struct xlb_backend *backend = course->backend;
	__u32 added;

	packet->added = tunnel_bytes(backend, course->value.forward);
	added = RECALL(packet->added);
	hop_freshen(ctx, packet, &backend->next_hop, course->value.backend, backend->ifindex,
		    &backend->source, &backend->address, backend->family == XLB_IPV6);
	if (hop_overflows(packet, &backend->next_hop, added))
		return too_big(packet, &backend->next_hop, added);
	if (options && packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	if (course->value.forward == XLB_FORWARD_L2) {
		packet->hop_family = backend->family;
		address_copy(&packet->translation.destination, &backend->address);
	}
	ttl_only(frame->network, ipv6);
	if (added && encapsulate(ctx, packet, backend, course->value.forward, ipv6))
		return dropped(packet, XLB_DROP_EMIT_FAILED);
	return emit(ctx, packet, hop_current(&backend->next_hop));
}

/* To a backend that answers through us. */
static __always_inline enum verdict serve_translated(struct xdp_md *ctx, struct packet *packet,
						     struct frame *frame,
						     const struct course *course, bool options,
						     bool ipv6)
{
	struct xlb_backend *backend = course->backend;
	struct translation translation;

	if (__builtin_expect(backend->family != (ipv6 ? XLB_IPV6 : XLB_IPV4), 0))
		return serve_crossed(ctx, course->value.backend, course->value.port);
	course_translation(packet, course, ipv6, &translation);
	hop_freshen(ctx, packet, &backend->next_hop, course->value.backend, backend->ifindex,
		    &translation.source, &translation.destination, ipv6);
	if (hop_overflows(packet, &backend->next_hop, 0))
		return too_big(packet, &backend->next_hop, 0);
	if (options && packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	if (!translate(ctx, packet, frame, &translation, ipv6))
		return dropped(packet, XLB_DROP_EMIT_FAILED);
	return emit(ctx, packet, hop_current(&backend->next_hop));
}

/* A packet for a VIP. */
static __always_inline enum verdict serve(struct xdp_md *ctx, struct packet *packet,
					  struct frame *frame, const struct service_ref *service,
					  const __u64 *secret, bool ipv6)
{
	struct course course;
	enum verdict verdict;

	packet->outcome.known_service = 1;
	packet->outcome.service = SERVICE_KEY(ipv6, service->id);
	packet->now = tick_now();
	verdict = admit(packet, frame, service, ipv6);
	if (verdict)
		return verdict;
	verdict = course_find(packet, service, secret, ipv6, &course);
	if (verdict)
		return verdict;
	packet->found = course.value;
	course.value.word = RECALL(packet->found.word);
	packet->outcome.backend = course.value.backend;
	if (course.value.forward > XLB_FORWARD_DNAT)
		return serve_direct(ctx, packet, frame, &course, service->target.options,
				    ipv6);
	return serve_translated(ctx, packet, frame, &course, service->target.options, ipv6);
}

/*
 * A packet that is no reply to a client of its own family: perhaps to one of the other. Returns an
 * enum verdict.
 */
__weak __noinline int restore_crossed(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	struct reply reply;
	__u32 slot;

	if (!packet || !reply_find_crossed(packet, &reply))
		return VERDICT_PASS;
	packet->now = tick_now();
	reply_outcome(packet, &reply, !packet->ipv6);
	flow_touch(&reply.flow, reply.value, FLOW_BY_REPLY, packet, !packet->ipv6);
	cross_to_client(packet, &reply);
	if (!neighbour_get(&packet->translation.destination, true, &slot))
		return dropped(packet, XLB_DROP_NO_ROUTE);
	return emit_crossed(ctx, slot | HOP_CLIENT | (packet->ipv6 ? 0 : HOP_IPV6), 0);
}

/* A packet that is not for a VIP: a backend's reply, or not ours. */
static __always_inline enum verdict restore(struct xdp_md *ctx, struct packet *packet,
					    struct frame *frame, const __u64 *secret, bool ipv6)
{
	struct translation translation;
	struct xlb_next_hop *next;
	struct reply reply;
	__u64 endpoint;
	__u32 slot;

	if (!reply_possible(packet, frame, ipv6, secret, &endpoint) || packet->ttl <= 1)
		return VERDICT_PASS;
	if (!reply_find(packet, endpoint, ipv6, secret, &reply))
		return restore_crossed(ctx);
	packet->now = tick_now();
	reply_outcome(packet, &reply, ipv6);
	reply_translation(packet, &reply, ipv6, &translation);
	flow_touch(&reply.flow, reply.value, FLOW_BY_REPLY, packet, ipv6);
	next = neighbour_get(&translation.destination, ipv6, &slot);
	if (!next)
		return dropped(packet, XLB_DROP_NO_ROUTE);
	hop_freshen(ctx, packet, next, slot | HOP_CLIENT, 0, &translation.source,
		    &translation.destination, ipv6);
	if (hop_overflows(packet, next, 0))
		return too_big(packet, next, 0);
	if (packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	if (!translate(ctx, packet, frame, &translation, ipv6))
		return dropped(packet, XLB_DROP_EMIT_FAILED);
	return emit(ctx, packet, hop_current(next));
}

/* Takes apart what is not whole TCP or UDP, and finds the pointers into the frame again. */
static __always_inline enum verdict parse_unusual(struct xdp_md *ctx, struct frame *frame)
{
	enum verdict verdict = xdp_dissect(ctx);

	frame->data = (void *)(long)ctx->data;
	frame->end = (void *)(long)ctx->data_end;
	return verdict;
}

static __always_inline enum verdict walk(struct xdp_md *ctx, struct packet *packet,
					 struct frame *frame, bool ipv6)
{
	struct service_ref service;
	enum verdict verdict;
	__u64 secret[2];

	verdict = parse(packet, frame, ipv6);
	if (__builtin_expect(verdict == VERDICT_UNUSUAL, 0))
		verdict = parse_unusual(ctx, frame);
	if (verdict)
		return verdict;
	if (__builtin_expect(packet->network + packet->bytes > packet->frame, 0))
		xdp_measure(ctx);
	if (!frame_find(frame, packet, ipv6))
		return VERDICT_PASS;
	secret_get(secret);
	if (service_find(packet, ipv6, secret, &service))
		return serve(ctx, packet, frame, &service, secret, ipv6);
	return restore(ctx, packet, frame, secret, ipv6);
}

/* The one exit. */
static __always_inline int finish(struct xdp_md *ctx, struct packet *packet)
{
	enum verdict verdict = RECALL(packet->verdict);

	if (verdict == VERDICT_PASS)
		return XDP_PASS;
	if (__builtin_expect(verdict == VERDICT_ANSWER, 0)) {
		int result = answer(ctx);

		if (result)
			verdict = dropped(packet, answer_drop(packet, result));
	}
	if (__builtin_expect(packet->kind == KIND_FIRST_FRAGMENT, 0))
		fragment_remember(packet);
	count(packet, verdict);
	switch (verdict) {
	case VERDICT_TX:
	case VERDICT_ANSWER:
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
	struct frame frame = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct packet *packet = packet_get();
	enum verdict verdict;
	__be16 type;

	if (!packet)
		return XDP_PASS;
	packet->frame = ctx->data_end - ctx->data;
	packet->outcome = (struct outcome){};
	type = parse_ethernet(packet, &frame);
	if (type == bpf_htons(ETH_P_IP))
		verdict = walk(ctx, packet, &frame, false);
	else if (type == bpf_htons(ETH_P_IPV6))
		verdict = walk(ctx, packet, &frame, true);
	else
		return XDP_PASS;
	packet->verdict = verdict;
	return finish(ctx, packet);
}

char _license[] SEC("license") = "GPL";
