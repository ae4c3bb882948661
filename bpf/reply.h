/* SPDX-License-Identifier: GPL-2.0 */
/* Recognising a reply: a packet from an endpoint that belongs to a flow. Shared by XDP and tc. */
#ifndef XLB_REPLY_H
#define XLB_REPLY_H

#include "flow_change.h"
#include "rewrite.h"

struct reply {
	struct xlb_backend *backend;
	struct flow_ref flow;
	union xlb_flow_value value;
	union xlb_flow_key key;
};

/* Whether it is one of the backend's; addresses of different families can look alike. */
static __always_inline bool reply_is_from(const struct packet *packet,
					  const struct xlb_backend *backend, bool ipv6)
{
	return backend->family == (ipv6 ? XLB_IPV6 : XLB_IPV4) && address_equal(&backend->address, &packet->source, ipv6) &&
	       backend->port == packet->source_port && backend->protocol == packet->protocol &&
	       backend->state != XLB_BACKEND_RETIRED && backend->state != XLB_BACKEND_FREE;
}

/* The slot of the port that it was sent to, in the table of the client's family. */
static __always_inline bool reply_find_nat(const struct packet *packet, __u64 endpoint, bool ipv6,
					   bool client_ipv6, struct reply *reply)
{
	__u32 port = bpf_ntohs(packet->destination_port);

	if (port < cfg.port_min || port > cfg.port_max)
		return false;
	if (!flow_at(flow_port_slot(endpoint, port, client_ipv6), client_ipv6, &reply->flow))
		return false;
	reply->value = flow_read(reply->flow.slot, client_ipv6);
	if (reply->value.port != port || reply->value.state == XLB_FLOW_CLAIMED)
		return false;
	reply->backend = backend_get(reply->value.backend);
	return reply->backend && reply_is_from(packet, reply->backend, ipv6) &&
	       address_equal(&reply->backend->source, &packet->destination, ipv6);
}

/* By client and endpoint: the client's address was kept. */
static __always_inline bool reply_find_dnat(const struct packet *packet, __u64 endpoint, bool ipv6,
					    const __u64 *secret, struct reply *reply)
{
	struct flow_tuple *tuple = flow_tuple_get(FLOW_OF_PACKET);
	struct flow_lines lines;

	if (!tuple)
		return false;
	flow_tuple_make(tuple, &packet->destination, packet->destination_port,
			flow_reply_tag(endpoint, false), ipv6, secret);
	lines = flow_reply_lines(tuple->word, endpoint, ipv6, secret);
	if (!flow_find_either(FLOW_OF_PACKET, lines, ipv6, &reply->flow))
		return false;
	reply->value = flow_read(reply->flow.slot, ipv6);
	if (reply->value.port || reply->value.state == XLB_FLOW_CLAIMED)
		return false;
	reply->backend = backend_get(reply->value.backend);
	return reply->backend && reply_is_from(packet, reply->backend, ipv6);
}

/*
 * Whether a packet that is not for a VIP may be a reply: whether it comes from an endpoint, perhaps,
 * and is sound.
 */
static __always_inline bool reply_possible(const struct packet *packet, const struct frame *frame,
					   bool ipv6, const __u64 *secret, __u64 *ret_endpoint)
{
	__u64 mark = source_mark(packet, ipv6, secret);

	if (__builtin_expect(!filter_has(mark), 1))
		return false;
	*ret_endpoint = xlb_endpoint_hash(mark, secret);
	return packet_sound(packet, frame);
}

/* Whether it is one, to a client of its own family. */
static __always_inline bool reply_find(const struct packet *packet, __u64 endpoint, bool ipv6,
				       const __u64 *secret, struct reply *ret_reply)
{
	if (!reply_find_nat(packet, endpoint, ipv6, ipv6, ret_reply) &&
	    !reply_find_dnat(packet, endpoint, ipv6, secret, ret_reply))
		return false;
	ret_reply->key.word = *flow_key(ret_reply->flow.slot, ipv6);
	return true;
}

/* Whose a reply is, for the count. */
static __always_inline void reply_outcome(struct packet *packet, const struct reply *reply,
					  bool client_ipv6)
{
	packet->outcome.known_service = 1;
	packet->outcome.service = SERVICE_KEY(client_ipv6, reply->backend->service);
	packet->outcome.backend = reply->value.backend;
	packet->outcome.to_client = 1;
	packet->outcome.new_flow = 0;
}

/* What the client is to see: the VIP's answer. */
static __always_inline void reply_translation(const struct packet *packet,
					      const struct reply *reply, bool ipv6,
					      struct translation *ret_translation)
{
	const struct xlb_backend *backend = reply->backend;

	if (ipv6) {
		address_copy(&ret_translation->source, &backend->vip);
		address_copy(&ret_translation->destination, reply->flow.slot);
	} else {
		ret_translation->source.word[0] = backend->vip.word[0];
		ret_translation->destination.word[0] = reply->key.client;
	}
	ret_translation->source_port = backend->vip_port;
	ret_translation->destination_port = reply->key.port;
	ret_translation->address_sum = backend->vip_sum + (__u64)(__u16)~backend->address_sum +
				       address_plus(&ret_translation->destination, ipv6) +
				       address_minus(&packet->destination, ipv6);
}

#endif
