/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From a service to the backend that a packet goes to: where its flow goes, or where the ring says,
 * or wherever a new flow begins.
 */
#ifndef XLB_COURSE_H
#define XLB_COURSE_H

#include "admit.h"
#include "choose.h"
#include "flow.h"
#include "flow_change.h"
#include "flow_open.h"
#include "packet.h"
#include "rewrite.h"
#include "service.h"

/* What the walk found out about a packet that goes to a backend. */
struct course {
	struct xlb_backend *backend;
	union xlb_flow_value value;	/* of its flow; without one: backend and forward */
};

#define FLOW_ENDS \
	(1u << XLB_FLOW_FIN_CLIENT | 1u << XLB_FLOW_FIN_BACKEND | 1u << XLB_FLOW_CLOSED | \
	 1u << XLB_FLOW_CLOSING)

/* Whether a client begins anew on the tuple of a flow that is over, or nearly. */
static __always_inline bool flow_restarts(union xlb_flow_value value, const struct packet *packet)
{
	return packet_begins(packet) && FLOW_ENDS >> value.state & 1;
}

/* The backend that the packet's flow began on, if there is such a flow and it still serves. */
static __always_inline bool course_known(struct packet *packet, const struct service_ref *service,
					 const __u64 *secret, bool ipv6, struct course *course)
{
	struct flow_tuple *tuple = flow_tuple_get(FLOW_OF_PACKET);
	struct flow_lines lines;
	struct flow_ref flow;

	packet->expected = 0;	/* flow_new() asks also where nobody said */
	if (!tuple)
		return false;
	flow_tuple_make(tuple, &packet->source, packet->source_port, service->id, ipv6, secret);
	lines = flow_client_lines(tuple, ipv6, secret);
	if (packet_begins(packet) && service->target.forward == XLB_FORWARD_NAT)
		packet->expected = flow_expect(service->target.word, flow_lines_pack(lines), ipv6);
	if (!flow_find_either(FLOW_OF_PACKET, lines, ipv6, &flow))
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
	flow_touch(&flow, course->value, packet, ipv6);
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
	__u32 entry = ring_read(target, client_slot(packet, target, ipv6));

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
	if (service->target.stateless && course_ring(packet, service, ipv6, course)) {
		/* Of TCP nothing but a SYN begins anything; what is out of place gets a RST, which gets none. */
		if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
			return VERDICT_NEXT;
		if (source_forged(packet, false, ipv6))
			return dropped(packet, XLB_DROP_BAD_SOURCE);
		packet->outcome.new_flow = packet_begins(packet);
		return VERDICT_NEXT;
	}
	if (course_known(packet, service, secret, ipv6, course))
		return VERDICT_NEXT;
	return course_begin(packet, service, ipv6, course);
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

#endif
