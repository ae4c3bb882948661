// SPDX-License-Identifier: GPL-2.0
/*
 * The walk of a packet through xlb, from top to bottom. Most packets take the short way of plain.h
 * and never come here; any packet may, and the outcome is the same:
 *
 * 	parse -> service -> admit -> flow or ring -> backend -> next hop -> rewrite -> emit
 * 	            |                    |
 * 	            |                    no flow: choose a backend, begin one; nobody there: refuse
 * 	            no service: a reply? translate it back; else not ours: it leaves as it came
 *
 * and one exit, finish(), that answers, counts and turns the verdict into an XDP action. The parts
 * are in the headers, one for each step. The functions of the walk are inlined twice, for IPv4 and
 * IPv6, with `ipv6` a constant; what is rare (fragments, ICMP, a new flow, a look-up of routes, an
 * answer) is a function of its own and off the path.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "admit.h"
#include "answer.h"
#include "config.h"
#include "count.h"
#include "course.h"
#include "cross.h"
#include "dissect.h"
#include "flow_change.h"
#include "hold.h"
#include "hop.h"
#include "maps.h"
#include "mss.h"
#include "note.h"
#include "packet.h"
#include "plain.h"
#include "reply.h"
#include "rewrite.h"
#include "service.h"
#include "tunnel.h"

const volatile struct xlb_config cfg = {};
const volatile __u64 ring_keys[2] = {};
const volatile bool has_atomics = true; /* before Linux 5.12 lbctl makes it false: atomic.h */
/* The kernel can say how long a frame in several buffers is (5.18). Set by lbctl. */
const volatile bool has_buff_len = false;
/* bpf_fib_lookup tells the MTU of the way (5.12). Set by lbctl. */
const volatile bool has_fib_mtu = true;
/* mirror.h. Set by lbctl. */
const volatile bool has_mirror = false;
/* No plain walk: for `lbctl trace`, which wants to know what the long one writes down. */
const volatile bool at_length = false;

/* ---- parts that are rare, as functions that the verifier looks at once ---- */

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

/* That of dissect.h. */
__weak __noinline int xdp_option_look(struct xdp_md *ctx)
{
	return option_look((void *)(long)ctx->data, (void *)(long)ctx->data_end);
}

/* Whether the IPv4 options of the packet in hand let it be for us. */
__weak __noinline int xdp_options(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	int option;

	if (!packet)
		return false;
	packet->cursor = packet->network + sizeof(struct iphdr);
	for (int i = 0; i <= IP_OPTIONS_MAX; i++) {
		option = xdp_option_look(ctx);
		if (option != OPTION_NEXT)
			return option == OPTION_LAST;
	}
	return false;
}

/* The parts of dissect.h. Returns an enum verdict. */
__weak __noinline int xdp_dissect(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	int verdict;

	if (!packet || (has_options(packet) && !xdp_options(ctx)))
		return VERDICT_PASS;
	if (packet->network + packet->bytes > packet->frame)
		xdp_measure(ctx);
	verdict = dissect(packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (verdict == VERDICT_HOLD)
		return hold(ctx);
	if (packet->kind == KIND_FIRST_FRAGMENT)
		hold_end(packet);
	return verdict;
}

static __always_inline bool translate_family(const struct packet *packet, struct frame *frame,
					     bool ipv6)
{
	const struct translation *translation = &packet->translation;

	if (!frame_find(frame, packet, ipv6))
		return false;
	translate_network(frame->network, translation, ipv6);
	return packet->kind == KIND_LATER_FRAGMENT ||
	       translate_transport(packet, frame, translation);
}

/* Translates the packet in hand in place, by packet.translation. Returns 0, or -1: it is not all there. */
__weak __noinline int xdp_translate(struct xdp_md *ctx)
{
	struct packet *packet = packet_get();
	struct frame frame = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	bool done;

	if (!packet)
		return -1;
	if (packet->kind == KIND_ERROR)
		done = translate_error(packet, frame.data, frame.end, true);
	else if (packet->ipv6)
		done = translate_family(packet, &frame, true);
	else
		done = translate_family(packet, &frame, false);
	return done ? 0 : -1;
}

/* ---- the walk ---- */

/* To a backend that answers the client itself. */
static __always_inline enum verdict serve_direct(struct xdp_md *ctx, struct packet *packet,
						 struct frame *frame, const struct course *course,
						 bool options, bool ipv6)
{
	struct xlb_backend *backend = course->backend;
	const struct xlb_hop *hop;
	enum verdict verdict;
	__u32 added;

	added = FORGET(tunnel_bytes(backend, course->value.forward), packet->frame);
	packet->added = added;
	hop_freshen(ctx, packet, &backend->next_hop, course->value.backend, backend->ifindex,
		    &backend->source, &backend->address, backend->family == XLB_IPV6);
	if (hop_overflows(packet, &backend->next_hop, added)) {
		verdict = too_big(ctx, backend->next_hop.mtu, added);
		if (verdict)
			return verdict;
	}
	if (options && packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	if (course->value.forward == XLB_FORWARD_L2) {
		packet->hop_family = backend->family;
		address_copy(&packet->translation.destination, &backend->address);
	}
	ttl_only(frame->network, ipv6);
	hop = hop_current(&backend->next_hop);
	if (added && encapsulate(ctx, course->value.backend, course->value.forward, added))
		return dropped(packet, XLB_DROP_EMIT_FAILED);
	return emit(ctx, packet, hop);
}

/* To a backend that answers through us. */
static __always_inline enum verdict serve_translated(struct xdp_md *ctx, struct packet *packet,
						     const struct course *course, bool options,
						     bool ipv6)
{
	struct xlb_backend *backend = course->backend;
	struct translation *translation = &packet->translation;
	enum verdict verdict;

	if (backend->family != (ipv6 ? XLB_IPV6 : XLB_IPV4))
		return serve_crossed(ctx, course->value.backend, course->value.port);
	course_translation(packet, course, ipv6, translation);
	hop_freshen(ctx, packet, &backend->next_hop, course->value.backend, backend->ifindex,
		    &translation->source, &translation->destination, ipv6);
	if (hop_overflows(packet, &backend->next_hop, 0)) {
		verdict = too_big(ctx, backend->next_hop.mtu, 0);
		if (verdict)
			return verdict;
	}
	if (options && packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	if (xdp_translate(ctx))
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
	if (partial_possible())
		partial_look(ctx);
	verdict = admit(packet, frame, service, ipv6);
	if (verdict)
		return verdict;
	frame_forget(frame, packet);
	verdict = course_find(packet, service, secret, ipv6, &course);
	if (verdict)
		return verdict;
	packet->outcome.backend = course.value.backend;
	if (course.value.forward > XLB_FORWARD_DNAT)
		return serve_direct(ctx, packet, frame, &course, service->target.options,
				    ipv6);
	return serve_translated(ctx, packet, &course, service->target.options, ipv6);
}

/* A packet that is not for a VIP: a backend's reply, or not ours. */
static __always_inline enum verdict restore(struct xdp_md *ctx, struct packet *packet,
					    struct frame *frame, const __u64 *secret, bool ipv6)
{
	struct translation *translation = &packet->translation;
	struct xlb_next_hop *next;
	struct reply reply;
	enum verdict verdict;
	__u64 endpoint;
	__u32 slot;

	if (!reply_possible(packet, frame, ipv6, secret, &endpoint) || packet->ttl <= 1)
		return VERDICT_PASS;
	frame_forget(frame, packet);
	if (partial_possible())
		partial_look(ctx);
	if (!reply_find(packet, endpoint, ipv6, secret, &reply))
		return restore_crossed(ctx);
	packet->now = tick_now();
	reply_outcome(packet, &reply, ipv6);
	reply_translation(packet, &reply, ipv6, translation);
	flow_touch(&reply.flow, reply.value, packet, ipv6);
	next = neighbour_get(&translation->destination, ipv6, &slot);
	if (!next)
		return dropped(packet, XLB_DROP_NO_ROUTE);
	hop_freshen(ctx, packet, next, slot | HOP_CLIENT, 0, &translation->source,
		    &translation->destination, ipv6);
	if (hop_overflows(packet, next, 0)) {
		verdict = too_big(ctx, next->mtu, 0);
		if (verdict)
			return verdict;
	}
	if (packet->tcp_flags & TCP_SYN)
		xdp_check_mss(ctx);
	if (xdp_translate(ctx))
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

/* What is known of the headers; on to the service. */
static __always_inline enum verdict walk(struct xdp_md *ctx, struct packet *packet,
					 struct frame *frame, bool ipv6)
{
	struct service_ref service;
	__u64 secret[2];

	secret_get(secret);
	if (service_find(packet, ipv6, secret, &service))
		return serve(ctx, packet, frame, &service, secret, ipv6);
	return restore(ctx, packet, frame, secret, ipv6);
}

/* Of a packet of which nothing is known but its ethertype. */
static __always_inline enum verdict walk_any(struct xdp_md *ctx, struct packet *packet,
					     struct frame *frame, bool ipv6)
{
	enum verdict verdict = parse(packet, frame, ipv6);

	if (verdict == VERDICT_UNUSUAL)
		verdict = parse_unusual(ctx, frame);
	if (verdict)
		return verdict;
	if (packet->network + packet->bytes > packet->frame)
		xdp_measure(ctx);
	if (!frame_find(frame, packet, ipv6))
		return VERDICT_PASS;
	return walk(ctx, packet, frame, ipv6);
}

/* The XDP action of each verdict, 4 bits for each. */
#define ACTION(verdict, action) ((__u64)(action) << (verdict) * 4)
#define ACTIONS \
	(ACTION(VERDICT_PASS, XDP_PASS) | ACTION(VERDICT_LOCAL, XDP_PASS) | \
	 ACTION(VERDICT_TX, XDP_TX) | ACTION(VERDICT_REDIRECT, XDP_REDIRECT) | \
	 ACTION(VERDICT_STACK, XDP_PASS) | ACTION(VERDICT_ANSWER, XDP_TX) | \
	 ACTION(VERDICT_DROP, XDP_DROP))

/* The one exit. */
static __always_inline int finish(struct xdp_md *ctx, struct packet *packet, enum verdict verdict)
{
	if (verdict == VERDICT_PASS)
		return XDP_PASS;
	packet->verdict = verdict;
	verdict = RECALL(packet->verdict);
	if (__builtin_expect(verdict == VERDICT_ANSWER, 0)) {
		int result = answer(ctx);

		if (result)
			verdict = dropped(packet, answer_drop(packet, result));
	}
	if (packet->kind == KIND_FIRST_FRAGMENT)
		fragment_remember(verdict);
	count(packet, verdict);
	return ACTIONS >> verdict * 4 & 15;
}

/* The packet in hand, of which nothing is known yet. */
static __always_inline struct packet *packet_begin(struct xdp_md *ctx, struct frame *ret_frame)
{
	struct packet *packet = packet_get();

	if (!packet)
		return NULL;
	*ret_frame = (struct frame){
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	packet->frame = ctx->data_end - ctx->data;
	packet->outcome = (struct outcome){};
	return packet;
}

/* The walk of any packet. Returns an XDP action. */
__weak __noinline int walk_long(struct xdp_md *ctx)
{
	enum verdict verdict;
	struct frame frame;
	struct packet *packet = packet_begin(ctx, &frame);
	__be16 type;

	if (!packet)
		return XDP_PASS;
	type = parse_ethernet(packet, &frame);
	if (type == bpf_htons(ETH_P_IP))
		verdict = walk_any(ctx, packet, &frame, false);
	else if (type == bpf_htons(ETH_P_IPV6))
		verdict = walk_any(ctx, packet, &frame, true);
	else
		return XDP_PASS;
	return finish(ctx, packet, verdict);
}

SEC("xdp")
int xlb(struct xdp_md *ctx)
{
	int action = at_length ? WALK_LONG : walk_plain(ctx);

	return action == WALK_LONG ? walk_long(ctx) : action;
}

char _license[] SEC("license") = "GPL";
