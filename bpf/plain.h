/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The walk of most packets: whole TCP or UDP without tags, options or extension headers, of a known
 * flow, or for a slot of a ring that has not moved, to a next hop that is known; or not ours.
 *
 * 	parse -> service -> admit -> ring  -> backend -> next hop -> tunnel    -> count
 * 	            |          \---> flow  -> backend -> next hop -> translate -> count
 * 	            no service: a reply? flow -> client -> next hop -> translate -> count
 *
 * It is a straight line: whatever is not as expected ends it, and the packet begins the long walk
 * (xlb.bpf.c) as if nothing had been. Until all is sure nothing is changed or counted, but that a flow which
 * stands in the table once is told of its packet, which does no harm twice. So this walk never judges: what is dropped
 * (but for want of room in front), answered, begun, looked up or handed to tc is so by the other one, and the two are
 * made of the same parts.
 *
 * IPIP by a ring, and what is not ours, take no call of ours as a rule: that part is in the program's main
 * function. Where returns are guarded against speculation each is mispredicted, which is a tenth of such
 * a packet. What main has on its stack is part of every chain of calls, also of the long walk's, so what
 * takes more of it are functions: known flows, replies, other tunnels.
 *
 * The packet is described by a struct packet of its own, to which no helper gets a pointer: the
 * compiler takes it apart, and keeps in registers what is asked for.
 */
#ifndef XLB_PLAIN_H
#define XLB_PLAIN_H

#include "admit.h"
#include "count.h"
#include "course.h"
#include "flow_change.h"
#include "hop.h"
#include "note.h"
#include "packet.h"
#include "reply.h"
#include "rewrite.h"
#include "service.h"
#include "tunnel.h"

/* Beside XDP actions: */
#define WALK_LONG (-1)		/* it is a packet for the long walk */
#define WALK_FAILED (-2)	/* it has been changed, and there is no room in front for more */

/*
 * Reads what the headers say, of which this is the packet's description until the next call: to keep it
 * longer would cost a store and a load for each field, and to read it again is but a load. What nobody asks
 * for is not read. Where things are is known when the program is compiled.
 */
static __always_inline void plain_read(struct packet *packet, const struct frame *frame, bool ipv6)
{
	const struct ipv6hdr *ip6 = frame->network;
	const struct iphdr *ip4 = frame->network;
	const __be16 *ports = frame->transport;

	if (ipv6) {
		packet->protocol = ip6->nexthdr;
		packet->ttl = ip6->hop_limit;
		packet->bytes = sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
		address_copy(&packet->source, &ip6->saddr);
		address_copy(&packet->destination, &ip6->daddr);
	} else {
		packet->protocol = ip4->protocol;
		packet->ttl = ip4->ttl;
		packet->bytes = bpf_ntohs(ip4->tot_len);
		packet->source.word[0] = ip4->saddr;
		packet->destination.word[0] = ip4->daddr;
	}
	packet->tcp_flags = packet->protocol == IPPROTO_TCP ? ((const __u8 *)ports)[13] : 0;
	packet->source_port = ports[0];
	packet->destination_port = ports[1];
}

/* Where the headers of a plain packet lie, and their description; false: there is no room for them. */
static __always_inline bool plain_place(struct packet *packet, struct frame *frame, bool ipv6)
{
	__u32 header = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	frame->network = frame->data + ETH_HLEN;
	frame->transport = frame->network + header;
	if (frame->transport + sizeof(struct tcphdr) > frame->end)
		return false;
	*packet = (struct packet){
		.network = ETH_HLEN, .headers = header, .kind = KIND_WHOLE, .ipv6 = ipv6,
	};
	return true;
}

/* Whether it is a plain packet, as far as that does not take a look at its lengths. */
static __always_inline bool plain_begin(struct packet *packet, struct frame *frame, bool ipv6)
{
	const struct ipv6hdr *ip6;
	const struct iphdr *ip4;

	if (!plain_place(packet, frame, ipv6))
		return false;
	ip6 = frame->network;
	ip4 = frame->network;
	if (ipv6 ? ip6->version != 6 :
		   *(const __u8 *)ip4 != 0x45 || ip4->frag_off & bpf_htons(IP_MORE | IP_OFFSET))
		return false;
	plain_read(packet, frame, ipv6);
	return packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP;
}

static __always_inline struct frame plain_frame(const struct xdp_md *ctx)
{
	return (struct frame){
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
}

/* plain_begin() in a function of its own, for a packet that main has found to be plain. */
static __always_inline bool plain_again(const struct xdp_md *ctx, struct packet *packet,
					struct frame *frame, bool ipv6)
{
	*frame = plain_frame(ctx);
	if (!plain_place(packet, frame, ipv6))
		return false;
	plain_read(packet, frame, ipv6);
	return true;
}

/* What a packet is sent on with. */
struct plain_hop {
	__u64 first, second;	/* the words of struct xlb_hop */
	__u32 elsewhere;	/* not 0: by another device than it came by */
};

/* Whether a next hop is known, by a device that XDP sends to. */
static __always_inline bool hop_ready(struct xdp_md *ctx, const struct xlb_next_hop *next,
				      __u32 now, struct plain_hop *ret_hop)
{
	const struct xlb_hop *hop;
	__u32 ifindex, elsewhere;

	if (*(volatile __u32 *)&next->checked != now)
		return false;
	hop = hop_current(next);
	ret_hop->first = ((const __u64 *)hop)[0];
	ret_hop->second = ((const __u64 *)hop)[1];
	ifindex = HOP_IFINDEX(ret_hop->second);
	elsewhere = ifindex ^ ctx->ingress_ifindex;
	/* So that the verifier does not tell two kinds of packets apart from here on. */
	ret_hop->elsewhere = FORGET(elsewhere, ifindex);
	/* Neither none nor the loopback device, and nothing beside the number. */
	return __builtin_expect(!elsewhere, 1) ||
	       ifindex - XLB_LOOPBACK_IFINDEX - 1 < XLB_HOP_IFINDEX - XLB_LOOPBACK_IFINDEX;
}

static __always_inline int plain_emit(const struct plain_hop *hop)
{
	return hop->elsewhere ? bpf_redirect(HOP_IFINDEX(hop->second), 0) : XDP_TX;
}

/* The one drop of this walk: what the long one drops for want of room, too. */
__weak __noinline int plain_fail(__u32 service, __u32 bytes)
{
	struct packet packet = {
		.bytes = bytes,
		.outcome = { .known_service = 1, .service = service },
	};

	count_dropped(&packet, XLB_DROP_EMIT_FAILED);
	return XDP_DROP;
}

/* Everything is done: the packet goes by that action, and is counted. */
static __always_inline int plain_finish(const struct packet *packet, int action)
{
	if (__builtin_expect(action == WALK_FAILED, 0))
		return plain_fail(packet->outcome.service, packet->bytes);
	if (action != WALK_LONG)
		count_served(packet);
	return action;
}

/* The known flow that a packet belongs to. */
static __always_inline bool plain_flow(const struct packet *packet, const struct service_ref *service,
				       bool ipv6, struct course *course,
				       struct flow_ref *ret_flow)
{
	struct flow_tuple tuple = {};
	struct flow_lines lines;
	__u64 *line, hash, way, secret[2];

	secret_get(secret);
	flow_tuple_make(&tuple, &packet->source, packet->source_port, service->id, ipv6, secret);
	hash = flow_client_hash(&tuple, secret);
	lines = flow_lines_of(hash, 0, ipv6);
	line = flow_line(lines.first, ipv6);
	if (!line)
		return false;
	way = flow_match(line, &tuple, false, 0, ipv6);
	ret_flow->number = lines.first * XLB_FLOW_WAYS + way;
	if (way >= XLB_FLOW_WAYS) {
		/* Not before it is wanted. */
		barrier_var(hash);
		lines = flow_lines_of(hash, 0, ipv6);
		ret_flow->number = flow_find_in(lines.second, tuple.key.word,
						address_first(&tuple.client, ipv6),
						address_second(&tuple.client, ipv6), ipv6);
		if (ret_flow->number == FLOW_NOWHERE)
			return false;
		line = flow_line(ret_flow->number / XLB_FLOW_WAYS, ipv6);
		if (!line)
			return false;
	}
	ret_flow->slot = flow_way(line, ret_flow->number, ipv6);
	course->value = flow_read(ret_flow->slot, ipv6);
	course->backend = backend_get(course->value.backend);
	return course->value.state != XLB_FLOW_CLAIMED && course->backend &&
	       backend_keeps(course->backend, packet->protocol);
}

/* Puts the addresses of the link in front, which the caller has made sure are there. */
static __always_inline void plain_link(void *data, const struct plain_hop *hop)
{
	*(__u64 *)data = hop->first;
	*(__u32 *)(data + 8) = hop->second;
}

/* Puts an IP header around a packet, with `udp` a UDP header between, and the link's in front. `family` is a constant. */
static __always_inline int plain_tunnel(struct xdp_md *ctx, const struct packet *packet,
					const struct frame *frame,
					const struct xlb_backend *backend,
					const struct plain_hop *hop, bool udp,
					enum xlb_family family, bool ipv6)
{
	__u32 header = family == XLB_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__u32 added = header, bytes = packet->bytes, spread = 0;
	__u8 inner = ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	__u8 dscp = traffic_class(frame->network, ipv6);
	void *data;

	if (udp) {
		added += sizeof(struct udphdr);
		inner = IPPROTO_UDP;
	}
	if (hop_overflows(packet, &backend->next_hop, added) ||
	    (family == XLB_IPV6 && udp && backend->tunnel_checksum))
		return WALK_LONG;
	if (family == XLB_IPV6 || backend->source_mask || udp) {
		spread = tunnel_spread(packet, ipv6);
		/* Now, while its parts are at hand: to keep them for later takes more of the stack. */
		barrier_var(spread);
	}
	ttl_only(frame->network, ipv6);
	if (bpf_xdp_adjust_head(ctx, -(int)added))
		return WALK_FAILED;
	data = (void *)(long)ctx->data;
	if (data + ETH_HLEN + header + sizeof(struct udphdr) > (void *)(long)ctx->data_end)
		return WALK_FAILED;
	plain_link(data, hop);
	*(__be16 *)(data + offsetof(struct ethhdr, h_proto)) =
		bpf_htons(family == XLB_IPV6 ? ETH_P_IPV6 : ETH_P_IP);
	bytes += added;
	if (family == XLB_IPV6)
		outer_ipv6(data + ETH_HLEN, backend, inner, dscp, bytes - header, spread);
	else
		outer_ipv4(data + ETH_HLEN, backend, inner, dscp, bytes, spread);
	if (udp)
		outer_udp(data + ETH_HLEN + header, backend, bytes - header, spread);
	return plain_emit(hop);
}

static __always_inline int plain_direct_family(struct xdp_md *ctx, union xlb_flow_value value,
					       bool ipv6)
{
	struct xlb_backend *backend = backend_get(value.backend);
	struct packet packet;
	struct frame frame;
	bool udp = value.forward == XLB_FORWARD_GUE;
	struct plain_hop hop;

	if (!backend || !plain_again(ctx, &packet, &frame, ipv6) ||
	    !hop_ready(ctx, &backend->next_hop, tick_now(), &hop))
		return WALK_LONG;
	if (value.forward != XLB_FORWARD_L2)
		return backend->family == XLB_IPV6 ?
			       plain_tunnel(ctx, &packet, &frame, backend, &hop, udp, XLB_IPV6, ipv6) :
			       plain_tunnel(ctx, &packet, &frame, backend, &hop, udp, XLB_IPV4, ipv6);
	if (hop_overflows(&packet, &backend->next_hop, 0))
		return WALK_LONG;
	plain_link(frame.data, &hop);
	ttl_only(frame.network, ipv6);
	return plain_emit(&hop);
}

/*
 * To a backend that answers the client itself, in whatever way. IPIP by a ring has its own copy of all
 * this. `word`: of an xlb_flow_value.
 */
__weak __noinline int plain_direct(struct xdp_md *ctx, __u64 word, bool ipv6)
{
	union xlb_flow_value value = { .word = word };

	return ipv6 ? plain_direct_family(ctx, value, true) :
		      plain_direct_family(ctx, value, false);
}

/* To one that answers through us, or to a client. */
static __always_inline int plain_translated(const struct packet *packet, struct frame *frame,
					    const struct translation *translation,
					    const struct plain_hop *hop, bool ipv6)
{
	translate_network(frame->network, translation, ipv6);
	/* It is all there, as the compiler knows. */
	if (!translate_transport(packet, frame, translation))
		return plain_finish(packet, WALK_FAILED);
	plain_link(frame->data, hop);
	return plain_finish(packet, plain_emit(hop));
}

/* Whether its checksum may be for a device to finish, or it may have a tag that is not to be seen. */
static __always_inline bool plain_partial(struct xdp_md *ctx, struct packet *packet,
					  const struct frame *frame, bool ipv6)
{
	__u32 possible = partial_possible();

	if (!possible)
		return false;
	if (partial_tag(possible, ctx->ingress_ifindex))
		return true;
	plain_read(packet, frame, ipv6);
	return partial_found(packet, frame);
}

/* Whether a packet for a VIP is let in, and has nothing about it for which it needs the long walk. */
static __always_inline bool plain_admit(struct xdp_md *ctx, struct packet *packet,
					struct frame *frame, const struct service_ref *service,
					bool ipv6)
{
	union xlb_service_target target = service->target;

	plain_read(packet, frame, ipv6);
	packet->frame = frame->end - frame->data;
	if (!packet_sound(packet, frame) || source_impossible(packet, ipv6) || packet->ttl <= 1)
		return false;
	if (__builtin_expect(target.ranges | target.options, 0)) {
		if (target.options && packet->tcp_flags & TCP_SYN)
			return false;
		if (target.ranges &&
		    !ranges_admit(service->id, address_first(&packet->source, ipv6),
				  address_second(&packet->source, ipv6), ipv6))
			return false;
	}
	return !plain_partial(ctx, packet, frame, ipv6);
}

/* To the backend that the ring names; a stateless service. */
static __always_inline int plain_ring(struct xdp_md *ctx, struct packet *packet,
				      struct frame *frame, const struct service_ref *service,
				      bool ipv6)
{
	struct course course;
	struct plain_hop hop;

	plain_read(packet, frame, ipv6);
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_ACK) {
		if (source_low(packet))
			return WALK_LONG;
		packet->outcome.new_flow = FORGET(packet_begins(packet), packet->bytes);
	}
	if (!course_ring(packet, service, ipv6, &course) ||
	    !hop_ready(ctx, &course.backend->next_hop, tick_now(), &hop))
		return WALK_LONG;
	plain_read(packet, frame, ipv6);
	packet->outcome.backend = course.value.backend;
	if (service->target.forward != XLB_FORWARD_IPIP)
		return plain_finish(packet, plain_direct(ctx, course.value.word, ipv6));
	/* Each with an end of its own, which keeps what is counted in registers. */
	if (course.backend->family == XLB_IPV6)
		return plain_finish(packet, plain_tunnel(ctx, packet, frame, course.backend, &hop,
							 false, XLB_IPV6, ipv6));
	return plain_finish(packet, plain_tunnel(ctx, packet, frame, course.backend, &hop, false,
						 XLB_IPV4, ipv6));
}

/* To the backend of a flow that is known. */
static __always_inline int walk_known_family(struct xdp_md *ctx, const struct service_ref *service,
					     bool ipv6)
{
	struct translation translation;
	struct course course;
	struct plain_hop hop;
	struct flow_ref flow;
	struct packet packet;
	struct frame frame;

	if (!plain_again(ctx, &packet, &frame, ipv6) ||
	    !plain_admit(ctx, &packet, &frame, service, ipv6))
		return WALK_LONG;
	packet.outcome.service = SERVICE_KEY(ipv6, service->id);
	plain_read(&packet, &frame, ipv6);
	if (!plain_flow(&packet, service, ipv6, &course, &flow))
		return WALK_LONG;
	plain_read(&packet, &frame, ipv6);
	packet.now = tick_now();
	packet.outcome.backend = course.value.backend;
	if (course.value.forward > XLB_FORWARD_DNAT) {
		flow_touch(&flow, course.value, &packet, ipv6);
		plain_read(&packet, &frame, ipv6);
		return plain_finish(&packet, plain_direct(ctx, course.value.word, ipv6));
	}
	if (course.backend->family != (ipv6 ? XLB_IPV6 : XLB_IPV4) ||
	    !hop_ready(ctx, &course.backend->next_hop, packet.now, &hop) ||
	    hop_overflows(&packet, &course.backend->next_hop, 0))
		return WALK_LONG;
	/* May end the flow, if the copy for its replies is gone: so there is no way back from here. */
	flow_touch(&flow, course.value, &packet, ipv6);
	plain_read(&packet, &frame, ipv6);
	course_translation(&packet, &course, ipv6, &translation);
	return plain_translated(&packet, &frame, &translation, &hop, ipv6);
}

/* A packet for a service that has a state for each flow. `target`: a word. */
__weak __noinline int walk_known(struct xdp_md *ctx, __u64 target, __u32 id, bool ipv6)
{
	struct service_ref service = { .target.word = target, .id = id };

	return ipv6 ? walk_known_family(ctx, &service, true) :
		      walk_known_family(ctx, &service, false);
}

/* A packet for a VIP. */
static __always_inline int plain_serve(struct xdp_md *ctx, struct packet *packet,
				       struct frame *frame, const struct service_ref *service,
				       bool ipv6)
{
	if (!service->target.stateless)
		return packet_begins(packet) ?
			       WALK_LONG :
			       walk_known(ctx, service->target.word, service->id, ipv6);
	if (!plain_admit(ctx, packet, frame, service, ipv6))
		return WALK_LONG;
	packet->outcome.service = SERVICE_KEY(ipv6, service->id);
	return plain_ring(ctx, packet, frame, service, ipv6);
}

static __always_inline int walk_reply_family(struct xdp_md *ctx, __u64 mark, bool ipv6)
{
	struct translation translation;
	const struct xlb_next_hop *next;
	struct plain_hop hop;
	struct packet packet;
	struct frame frame;
	struct reply reply;
	__u64 secret[2];

	if (!plain_again(ctx, &packet, &frame, ipv6))
		return WALK_LONG;
	packet.frame = frame.end - frame.data;
	/* Perhaps it is in more buffers than this one. */
	if (!packet_sound(&packet, &frame) || packet.tcp_flags & TCP_SYN || packet.ttl <= 1)
		return WALK_LONG;
	if (plain_partial(ctx, &packet, &frame, ipv6))
		return WALK_LONG;
	secret_get(secret);
	plain_read(&packet, &frame, ipv6);
	if (!reply_find(&packet, xlb_endpoint_hash(mark, secret), ipv6, secret, &reply))
		return WALK_LONG;
	plain_read(&packet, &frame, ipv6);
	reply_outcome(&packet, &reply, ipv6);
	reply_translation(&packet, &reply, ipv6, &translation);
	next = neighbour_known(&translation.destination, ipv6);
	plain_read(&packet, &frame, ipv6);
	packet.now = tick_now();
	if (!next || !hop_ready(ctx, next, packet.now, &hop) || hop_overflows(&packet, next, 0))
		return WALK_LONG;
	flow_touch(&reply.flow, reply.value, &packet, ipv6);
	plain_read(&packet, &frame, ipv6);
	return plain_translated(&packet, &frame, &translation, &hop, ipv6);
}

/*
 * A packet that is not for a VIP, from an endpoint that is in the filter: most likely a backend's reply.
 * `mark`: source_mark() of the packet.
 */
__weak __noinline int walk_reply(struct xdp_md *ctx, __u64 mark, bool ipv6)
{
	return ipv6 ? walk_reply_family(ctx, mark, true) : walk_reply_family(ctx, mark, false);
}

static __always_inline int walk_plain_family(struct xdp_md *ctx, struct frame *frame, bool ipv6)
{
	struct service_ref service = {};
	struct packet packet;
	__u64 mark, secret[2];

	if (!plain_begin(&packet, frame, ipv6))
		return WALK_LONG;
	secret_get(secret);
	if (service_find(&packet, ipv6, secret, &service))
		return plain_serve(ctx, &packet, frame, &service, ipv6);
	plain_read(&packet, frame, ipv6);
	mark = source_mark(&packet, ipv6, secret);
	return __builtin_expect(filter_has(mark), 0) ? walk_reply(ctx, mark, ipv6) : XDP_PASS;
}

/* Returns an XDP action or WALK_LONG. */
static __always_inline int walk_plain(struct xdp_md *ctx)
{
	struct frame frame = plain_frame(ctx);
	__be16 type;

	if (frame.data + ETH_HLEN > frame.end || *(__u8 *)frame.data & ETHER_GROUP)
		return WALK_LONG;
	type = *(__be16 *)(frame.data + offsetof(struct ethhdr, h_proto));
	if (type == bpf_htons(ETH_P_IP))
		return walk_plain_family(ctx, &frame, false);
	if (type == bpf_htons(ETH_P_IPV6))
		return walk_plain_family(ctx, &frame, true);
	return WALK_LONG;
}

#endif
