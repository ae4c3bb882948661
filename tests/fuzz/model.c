// SPDX-License-Identifier: GPL-2.0
/* The walk: Documentation/packets.md, 5 to 14. See model.h. */
#include "model.h"

#include <linux/bpf.h>
#include <string.h>

#include "packet.h"

static bool is_vip(const struct model *model, const struct ip *address, bool *ret_echo)
{
	bool found = false;

	*ret_echo = true;
	for (unsigned int i = 0; i < model->n_services; i++) {
		if (!ip_equal(&model->services[i].vip, address))
			continue;
		found = true;
		*ret_echo &= model->services[i].echo;
	}
	return found;
}

static int service_find(const struct model *model, const struct packet *packet)
{
	for (unsigned int i = 0; i < model->n_services; i++) {
		const struct model_service *service = &model->services[i];

		if (ip_equal(&service->vip, &packet->destination) &&
		    service->port == packet->destination_port &&
		    service->protocol == packet->protocol)
			return i;
	}
	return -1;
}

/* What is known of the packet's datagram, or a place for it; NULL: there is none. */
static struct model_fragment *fragment_of(struct model *model, const struct packet *packet)
{
	for (unsigned int i = 0; i < 4096; i++) {
		struct model_fragment *known = &model->fragments[i];

		if (!known->used || (known->id == packet->fragment_id &&
				     known->protocol == packet->protocol &&
				     ip_equal(&known->source, &packet->source) &&
				     ip_equal(&known->destination, &packet->destination)))
			return known;
	}
	return NULL;
}

static void fragment_begin(struct model_fragment *known, const struct packet *packet)
{
	*known = (struct model_fragment){ .used = true,
					  .source = packet->source,
					  .destination = packet->destination,
					  .id = packet->fragment_id,
					  .protocol = packet->protocol,
					  .source_port = packet->source_port,
					  .destination_port = packet->destination_port };
}

/* A later fragment takes the ports of its first, if that has come. */
static bool fragment_find(struct model *model, struct packet *packet)
{
	const struct model_fragment *known = fragment_of(model, packet);

	if (!known || !known->used || !known->destination_port)
		return false;
	packet->source_port = known->source_port;
	packet->destination_port = known->destination_port;
	packet->flags = 0;
	return true;
}

static bool source_impossible(const struct packet *packet)
{
	static const uint8_t zero[15];
	const uint8_t *byte = packet->source.byte;

	if (ip_equal(&packet->source, &packet->destination))
		return true;
	if (packet->v6)
		return byte[0] == 0xff || (!memcmp(byte, zero, 15) && byte[15] <= 1);
	return byte[0] == 0 || byte[0] == 127 || (byte[0] >= 224 && byte[0] <= 239) ||
	       get32(byte) == 0xffffffff;
}

/* Whether it comes from the address and port of a service. */
static bool source_is_service(const struct model *model, const struct packet *packet)
{
	struct packet turned = { .destination = packet->source, .protocol = packet->protocol,
				 .destination_port = packet->source_port };

	return service_find(model, &turned) >= 0;
}

/*
 * Whether a packet that may begin something is not let in, because it comes from a service: each with
 * dnat, of others those whose answer could come back so.
 */
static bool source_forged(const struct model *model, const struct model_service *service,
			  const struct packet *packet)
{
	return packet->kind != ERROR &&
	       (service->forward == XLB_FORWARD_DNAT ||
		packet->source_port <= packet->destination_port) &&
	       source_is_service(model, packet);
}

static bool range_has(const struct model_range *range, const struct ip *address)
{
	for (unsigned int bit = 0; bit < range->length; bit++)
		if ((range->address.byte[bit / 8] ^ address->byte[bit / 8]) & 0x80 >> bit % 8)
			return false;
	return range->address.v6 == address->v6;
}

static bool ranges_admit(const struct model_service *service, const struct ip *address)
{
	for (unsigned int i = 0; i < service->n_ranges; i++)
		if (range_has(&service->ranges[i], address))
			return true;
	return !service->n_ranges;
}

/* Whether lengths fit each other and the frame. */
static bool sound(const struct packet *packet)
{
	unsigned int payload = packet->bytes - packet->headers, length;

	if (packet->network + packet->bytes > packet->length || packet->bytes < packet->headers)
		return false;
	if (packet->kind == LATER || packet->kind == ERROR)
		return true;
	if (packet->protocol == TCP) {
		length = (packet->frame[packet->transport + 12] >> 4) * 4;
		return length >= 20 && length <= payload;
	}
	length = get16(packet->frame + packet->transport + 4);
	return payload >= 8 && length >= 8 && (length <= payload || packet->kind == FIRST);
}

static struct model_flow *flow_by_client(struct model *model, const struct ip *client,
					 uint16_t port, unsigned int service)
{
	for (unsigned int i = 0; i < MODEL_FLOWS && model->flows[i].used; i++) {
		struct model_flow *flow = &model->flows[i];

		if (flow->state != XLB_FLOW_FREE && flow->service == service &&
		    flow->client_port == port && ip_equal(&flow->client, client))
			return flow;
	}
	return NULL;
}

/* The flow that a packet from an endpoint answers. */
static struct model_flow *flow_by_reply(struct model *model, const struct packet *packet)
{
	for (unsigned int i = 0; i < MODEL_FLOWS && model->flows[i].used; i++) {
		struct model_flow *flow = &model->flows[i];
		const struct model_backend *backend = &model->backends[flow->backend];
		const struct model_service *service = &model->services[flow->service];

		if (flow->state == XLB_FLOW_FREE || flow->forward > XLB_FORWARD_DNAT ||
		    !ip_equal(&backend->address, &packet->source) ||
		    backend->port != packet->source_port || service->protocol != packet->protocol)
			continue;
		if (flow->nat_port ? flow->nat_port == packet->destination_port &&
					     ip_equal(&backend->source, &packet->destination) :
				     flow->client_port == packet->destination_port &&
					     ip_equal(&flow->client, &packet->destination))
			return flow;
	}
	return NULL;
}

static bool keeps(const struct model_backend *backend, uint8_t protocol)
{
	return backend->state == XLB_BACKEND_ACTIVE || backend->state == XLB_BACKEND_DRAINING ||
	       (backend->state == XLB_BACKEND_DOWN && protocol == TCP);
}

/* Whether both sides of a TCP flow are known to be there. */
static bool flow_is_up(const struct model_flow *flow)
{
	return flow->state == XLB_FLOW_ESTABLISHED || flow->state == XLB_FLOW_FIN_CLIENT ||
	       flow->state == XLB_FLOW_FIN_BACKEND;
}

/* TCP of which we hear both sides, from the backend: it is believed. */
static void flow_hear_backend(struct model_flow *flow, uint8_t flags)
{
	if (flow->state == XLB_FLOW_CLOSED)
		return;
	if (flags & RST)
		flow->state = XLB_FLOW_CLOSED;
	else if (flags & FIN)
		flow->state = flow->state == XLB_FLOW_FIN_CLIENT ? XLB_FLOW_CLOSED :
								   XLB_FLOW_FIN_BACKEND;
	else if (flow->state == XLB_FLOW_SYN)
		flow->state = XLB_FLOW_ANSWERED;
	else if (flow->state == XLB_FLOW_CLOSING && !(flags & SYN))
		flow->state = XLB_FLOW_ESTABLISHED;
}

/* From the client, or somebody in its name: only what a backend would hear, and after it has answered. */
static void flow_hear_client(struct model_flow *flow, uint8_t flags)
{
	bool answered = flow_is_up(flow) || flow->state == XLB_FLOW_ANSWERED ||
			flow->state == XLB_FLOW_CLOSING;

	if (!answered)
		return;
	if (flags & RST)
		flow->state = XLB_FLOW_CLOSING;
	else if ((flags & (SYN | ACK)) != ACK)
		return;
	else if (flags & FIN)
		flow->state = flow->state == XLB_FLOW_FIN_BACKEND ? XLB_FLOW_CLOSED :
								    XLB_FLOW_FIN_CLIENT;
	else if (!flow_is_up(flow))
		flow->state = XLB_FLOW_ESTABLISHED;
}

/* Where backends answer past us. */
static void flow_hear_one_side(struct model_flow *flow, uint8_t flags)
{
	bool heard = (flags & (SYN | ACK)) == ACK;

	if (flow->state == XLB_FLOW_ONESIDED && (flags & RST || (heard && flags & FIN)))
		flow->state = XLB_FLOW_CLOSING;
	else if (flow->state == XLB_FLOW_SYN && heard && !(flags & (FIN | RST)))
		flow->state = XLB_FLOW_ONESIDED;
}

static void flow_move(struct model_flow *flow, const struct packet *packet, bool reply)
{
	if (packet->kind == ERROR)
		return;
	if (packet->protocol == UDP) {
		if (reply || flow->forward > XLB_FORWARD_DNAT)
			flow->state = XLB_FLOW_STREAM;
	} else if (flow->forward > XLB_FORWARD_DNAT) {
		flow_hear_one_side(flow, packet->flags);
	} else if (reply) {
		flow_hear_backend(flow, packet->flags);
	} else {
		flow_hear_client(flow, packet->flags);
	}
}

static void drop(struct model *model, int service, enum xlb_drop reason, struct frame_out *out)
{
	out->verdict = XDP_DROP;
	model->drops[reason]++;
	if (service >= 0)
		model->service_counts[service].dropped++;
}

/* A later fragment for a VIP waits for its first. */
static void fragment_wait(struct model *model, struct packet *packet,
			  const struct frame_out *actual, struct frame_out *out)
{
	struct model_fragment *known = fragment_of(model, packet);

	if (packet->network + packet->bytes > packet->length || packet->bytes > 2048 ||
	    packet->ttl <= 1 || !known || known->packets >= 8) {
		drop(model, -1, XLB_DROP_NO_FRAGMENT, out);
		return;
	}
	if (!known->used) {
		packet->source_port = packet->destination_port = 0;
		fragment_begin(known, packet);
		known->datagram = actual->datagram;
	}
	known->packets++;
	known->bytes += packet->bytes;
	out_kept(packet, known, out);
}

static bool answerable(const struct packet *packet)
{
	return packet->kind == WHOLE || packet->kind == FIRST;
}

/*
 * Whether a packet that does not fit is fragmented, instead of its sender being told. Of IPv6 what need not
 * be shorter, in the tunnel that it does not fit.
 */
static bool is_split(const struct packet *packet)
{
	if (packet->partial)
		return false;
	return packet->v6 ? packet->bytes <= 1280 :
			    packet->kind != ERROR && packet->headers == 20 &&
				    !(packet->frame[packet->network + 6] & 0x40);
}

static void too_big(struct model *model, int service, const struct packet *packet,
		    unsigned int mtu, struct frame_out *out)
{
	if (!answerable(packet) || (packet->v6 && packet->bytes <= 1280))
		drop(model, service, XLB_DROP_TOO_BIG, out);
	else if (packet->v6 && mtu < 1280)
		out_error(packet, 2, 0, 1280, out);
	else
		out_error(packet, packet->v6 ? 2 : 3, packet->v6 ? 0 : 4, mtu, out);
}

static void refuse(struct model *model, int service, const struct packet *packet,
		   struct frame_out *out)
{
	if (packet->flags & RST) {
		drop(model, service, XLB_DROP_NO_FLOW, out);
		return;
	}
	if (!answerable(packet)) {
		drop(model, service, XLB_DROP_ANSWER_FAILED, out);
		return;
	}
	model->service_counts[service].refused++;
	if (packet->protocol == TCP)
		out_reset(packet, out);
	else
		out_error(packet, packet->v6 ? 1 : 3, packet->v6 ? 4 : 3, 0, out);
}

static bool is_stateless(const struct model_service *service)
{
	return service->forward > XLB_FORWARD_DNAT && !service->affinity &&
	       (service->scheduler == XLB_SCHEDULER_MAGLEV ||
		service->scheduler == XLB_SCHEDULER_SOURCE);
}

static unsigned int ring_choice(const struct model *model, const struct model_service *service,
				const struct packet *packet)
{
	uint16_t port = service->scheduler == XLB_SCHEDULER_SOURCE ? 0 : packet->source_port;
	uint64_t hash = model->ring_hash(&packet->source, port);

	return service->ring[hash * service->ring_size >> 32];
}

/* Whether the frame did not go on: nobody got it, or an answer by the VIP went back. */
static bool was_answered(const struct packet *packet, const struct frame_out *frame)
{
	unsigned int source = packet->network + (packet->v6 ? 8 : 12);

	return frame->verdict != XDP_TX ||
	       (!memcmp(frame->data, packet->frame + 6, 6) &&
		!memcmp(frame->data + source, packet->frame + source + ip_bytes(&packet->source),
			ip_bytes(&packet->source)));
}

/* Who was chosen at random, as the frame tells by its MAC address; -1: nobody of the ring. */
static int seen_choice(const struct model *model, const struct model_service *service,
		       const struct frame_out *actual)
{
	for (uint32_t i = 0; i < service->ring_size; i++)
		if (!memcmp(model->backends[service->ring[i]].mac, actual->data, 6))
			return service->ring[i];
	return -1;
}

static int *affinity_of(struct model *model, const struct packet *packet, unsigned int service)
{
	for (unsigned int i = 0; i < 4096; i++) {
		if (!model->affinity[i].used) {
			model->affinity[i].used = true;
			model->affinity[i].client = packet->source;
			model->affinity[i].service = service;
			model->affinity[i].backend = ~0u;
		}
		if (model->affinity[i].service == service &&
		    ip_equal(&model->affinity[i].client, &packet->source))
			return (int *)&model->affinity[i].backend;
	}
	return NULL;
}

/* The backend of a new flow; -1: nobody takes it; -2: the program chose who may not be. */
static int choose(struct model *model, unsigned int index, const struct packet *packet,
		  const struct frame_out *actual)
{
	struct model_service *service = &model->services[index];
	bool picks_up = is_stateless(service) ||
			(service->forward == XLB_FORWARD_DNAT &&
			 (service->scheduler == XLB_SCHEDULER_MAGLEV ||
			  service->scheduler == XLB_SCHEDULER_SOURCE));
	int *bound = service->affinity ? affinity_of(model, packet, index) : NULL, chosen;

	if (packet->protocol == TCP && !(packet->flags & SYN) && !picks_up)
		return -1;
	if (bound && *bound >= 0 && model->backends[*bound].state == XLB_BACKEND_ACTIVE &&
	    model->backends[*bound].weight)
		return *bound;
	if (!service->ring_size)
		return -1;
	if (service->scheduler == XLB_SCHEDULER_RR)
		chosen = service->ring[service->placed++ % service->ring_size];
	else if (service->scheduler == XLB_SCHEDULER_LC ||
		 service->scheduler == XLB_SCHEDULER_RANDOM)
		chosen = seen_choice(model, service, actual);
	else
		chosen = ring_choice(model, service, packet);
	if (chosen < 0)
		return -2;
	if (bound)
		*bound = chosen;
	return chosen;
}

/* Whether the program may use that port for a new flow to an endpoint. */
static bool nat_port_legal(const struct model *model, unsigned int backend, uint16_t port)
{
	if (port < model->port_min || port > model->port_max)
		return false;
	for (unsigned int i = 0; i < MODEL_FLOWS && model->flows[i].used; i++) {
		const struct model_flow *flow = &model->flows[i];

		if (flow_is_up(flow) && flow->backend == backend && flow->nat_port == port)
			return false;
	}
	return true;
}

/* Whether the frame does not show the port that was chosen. */
static bool hides_port(const struct packet *packet, const struct frame_out *actual)
{
	return packet->kind == LATER ||
	       (actual->verdict != BY_KERNEL && was_answered(packet, actual));
}

/* Where the program's frame to a backend has its ports. */
static unsigned int ports_seen(const struct packet *packet, const struct model_backend *backend)
{
	if (backend->address.v6 == packet->v6)
		return packet->transport;
	return packet->network + (backend->address.v6 ? 40 : 20);
}

/*
 * To the other family (Documentation/packets.md, "nat between families"). NULL: it is gone, dropped or
 * answered.
 */
static const struct packet *cross_check(struct model *model, unsigned int service,
					const struct packet *packet, struct frame_out *out)
{
	unsigned int header = packet->v6 ? 20 : 40;
	unsigned int bytes = packet->bytes - packet->headers + header;

	if (packet->kind != WHOLE) {
		drop(model, service, XLB_DROP_UNTRANSLATABLE, out);
		return NULL;
	}
	if (bytes > model->mtu && !(packet->v6 && bytes <= 1260) && !is_split(packet)) {
		too_big(model, service, packet, model->mtu - header + packet->headers, out);
		return NULL;
	}
	if (!packet->v6 && packet->protocol == UDP &&
	    !get16(packet->frame + packet->transport + 6)) {
		drop(model, service, XLB_DROP_UNTRANSLATABLE, out);
		return NULL;
	}
	return packet;
}

static struct model_flow *flow_begin(struct model *model, unsigned int service,
				     unsigned int backend, const struct packet *packet,
				     const struct frame_out *actual)
{
	unsigned int at_ports = ports_seen(packet, &model->backends[backend]);
	uint8_t forward = model->services[service].forward;
	struct model_flow *flow = NULL;
	uint16_t port = 0;

	if (forward == XLB_FORWARD_NAT && packet->kind != LATER)
		port = actual->length >= at_ports + 2 ? get16(actual->data + at_ports) : 0;
	for (unsigned int i = 0; i < MODEL_FLOWS && !flow; i++) {
		struct model_flow *at = &model->flows[i];

		/* A closed flow's port may be taken over: it goes with it. */
		if (at->used && port && at->backend == backend && at->nat_port == port)
			at->state = XLB_FLOW_FREE;
		if (!at->used || at->state == XLB_FLOW_FREE)
			flow = at;
	}
	if (!flow)
		return NULL;
	*flow = (struct model_flow){ true, packet->source, packet->source_port, port, service,
				     backend, packet->protocol == TCP ? XLB_FLOW_SYN :
									 XLB_FLOW_ONEWAY,
				     forward, false };
	return flow;
}

static const char *out_to_backend(struct model *model, unsigned int index, unsigned int to,
				  uint8_t forward, uint16_t nat_port, const struct packet *packet,
				  const struct frame_out *actual, struct frame_out *out)
{
	const struct model_service *service = &model->services[index];
	const struct model_backend *backend = &model->backends[to];
	unsigned int added = forward < XLB_FORWARD_IPIP ? 0 :
			     (backend->address.v6 ? 40 : 20) + (forward == XLB_FORWARD_GUE ? 8 : 0);
	bool crosses = nat_port && backend->address.v6 != packet->v6, split;
	const char *wrong = NULL;

	if (crosses && !cross_check(model, index, packet, out))
		return NULL;
	if (crosses)
		added = (packet->v6 ? 20 : 40) - packet->headers;
	split = packet->bytes + added > model->mtu && is_split(packet);
	if (!crosses && packet->bytes + added > model->mtu && !split) {
		too_big(model, index, packet, model->mtu - added, out);
		return NULL;
	}
	out_begin(packet, backend->mac, model, out);
	mss_lower(packet, service->mss, out);
	if (crosses) {
		out_cross(packet, &backend->source, nat_port, &backend->address, backend->port,
			  actual, out);
	} else if (forward > XLB_FORWARD_DNAT) {
		hop_less(out->data + packet->network, packet->v6);
		if (added)
			wrong = out_encapsulate(packet, service, backend, forward, actual, out);
	} else {
		const struct ip *source = nat_port ? &backend->source : &packet->source;
		uint16_t port = nat_port ? nat_port : packet->source_port;

		(packet->kind == ERROR ? out_translate_error : out_translate)(
			packet, source, port, &backend->address, backend->port, out);
	}
	if (split || packet->partial || packet->held) {
		out_by_kernel(packet, forward <= XLB_FORWARD_DNAT, added, split ? model->mtu : 0,
			      out);
		out->has_next_hop = forward == XLB_FORWARD_L2;
		out->next_hop = backend->address;
	}
	model->service_counts[index].to_backend++;
	model->service_counts[index].to_backend_bytes += packet->bytes;
	model->backend_counts[to].to_backend++;
	model->backend_counts[to].to_backend_bytes += packet->bytes;
	if (packet->held) {
		model->service_counts[index].to_backend += packet->held->packets;
		model->service_counts[index].to_backend_bytes += packet->held->bytes;
		model->backend_counts[to].to_backend += packet->held->packets;
		model->backend_counts[to].to_backend_bytes += packet->held->bytes;
	}
	return wrong;
}

static void count_flow(struct model *model, unsigned int service, unsigned int backend,
		       const struct packet *packet, const struct frame_out *out, bool begun)
{
	/* One that was answered instead of sent has begun all the same, but is counted nowhere. */
	if (!begun || (out->verdict != BY_KERNEL && was_answered(packet, out)))
		return;
	model->service_counts[service].flows++;
	model->backend_counts[backend].flows++;
}

static const char *serve(struct model *model, unsigned int index, const struct packet *packet,
			 const struct frame_out *actual, struct frame_out *out)
{
	struct model_service *service = &model->services[index];
	bool opens = (packet->flags & (SYN | ACK)) == SYN, begun = false;
	struct model_flow *flow;
	const char *wrong;
	int backend;

	if (!sound(packet)) {
		drop(model, index, XLB_DROP_MALFORMED, out);
		return NULL;
	}
	if (packet->kind == ERROR) {
		if (packet->ttl <= 1)
			return NULL;
	} else if (source_impossible(packet)) {
		drop(model, index, XLB_DROP_BAD_SOURCE, out);
		return NULL;
	} else if (packet->ttl <= 1) {
		if (answerable(packet))
			out_error(packet, packet->v6 ? 3 : 11, 0, 0, out);
		else
			drop(model, index, XLB_DROP_TTL, out);
		return NULL;
	} else if (!ranges_admit(service, &packet->source)) {
		drop(model, index, XLB_DROP_SOURCE_RANGE, out);
		return NULL;
	}
	if (is_stateless(service) && service->ring_size) {
		if ((packet->flags & (SYN | ACK)) != ACK && source_forged(model, service, packet)) {
			drop(model, index, XLB_DROP_BAD_SOURCE, out);
			return NULL;
		}
		backend = ring_choice(model, service, packet);
		wrong = out_to_backend(model, index, backend, service->forward, 0, packet, actual,
				       out);
		count_flow(model, index, backend, packet, out, opens);
		return wrong;
	}
	flow = flow_by_client(model, &packet->source, packet->source_port, index);
	if (flow && (!keeps(&model->backends[flow->backend], packet->protocol) ||
		     (opens && (flow->state == XLB_FLOW_CLOSED ||
				flow->state == XLB_FLOW_CLOSING ||
				(flow_is_up(flow) && flow->state != XLB_FLOW_ESTABLISHED))))) {
		flow->state = XLB_FLOW_FREE;
		flow = NULL;
	}
	if (flow) {
		flow_move(flow, packet, false);
	} else {
		if (packet->kind == ERROR)
			return NULL;
		if (source_forged(model, service, packet)) {
			drop(model, index, XLB_DROP_BAD_SOURCE, out);
			return NULL;
		}
		backend = choose(model, index, packet, actual);
		if (backend == -2 && was_answered(packet, actual))
			return MODEL_LOST;
		if (backend == -2)
			return "a backend was chosen that takes no new flows";
		if (backend < 0) {
			refuse(model, index, packet, out);
			return NULL;
		}
		begun = true;
		if (service->forward == XLB_FORWARD_NAT && hides_port(packet, actual))
			return MODEL_LOST;
		if (service->forward == XLB_FORWARD_NAT &&
		    !nat_port_legal(model, backend,
				    get16(actual->data +
					  ports_seen(packet, &model->backends[backend]))))
			return "a nat port that may not be used";
		flow = flow_begin(model, index, backend, packet, actual);
		if (!flow)
			return "the model has no room for flows";
	}
	wrong = out_to_backend(model, index, flow->backend, flow->forward, flow->nat_port, packet,
			       actual, out);
	count_flow(model, index, flow->backend, packet, out, begun);
	return wrong;
}

/* The link's address of a client: a Pod that takes packets of services sends them as well. */
static const uint8_t *client_mac(const struct model *model, const struct ip *client)
{
	for (unsigned int i = 0; i < model->n_backends; i++)
		if (ip_equal(&model->backends[i].address, client))
			return model->backends[i].mac;
	return model->router_mac;
}

static const char *restore(struct model *model, const struct packet *packet,
			   const struct frame_out *actual, struct frame_out *out)
{
	struct model_flow *flow = sound(packet) ? flow_by_reply(model, packet) : NULL;
	const struct model_service *service;
	bool crosses, split;
	unsigned int bytes;

	if (!flow || packet->ttl <= 1)
		return NULL;
	service = &model->services[flow->service];
	crosses = flow->client.v6 != packet->v6;
	flow_move(flow, packet, true);
	if (crosses && !cross_check(model, flow->service, packet, out))
		return NULL;
	bytes = packet->bytes + (crosses ? (packet->v6 ? 20 : 40) - packet->headers : 0);
	split = bytes > model->mtu && is_split(packet);
	if (!crosses && bytes > model->mtu && !split) {
		too_big(model, flow->service, packet, model->mtu, out);
		return NULL;
	}
	out_begin(packet, client_mac(model, &flow->client), model, out);
	mss_lower(packet, service->mss, out);
	if (crosses)
		out_cross(packet, &service->vip, service->port, &flow->client, flow->client_port,
			  actual, out);
	else
		(packet->kind == ERROR ? out_translate_error : out_translate)(
			packet, &service->vip, service->port, &flow->client, flow->client_port,
			out);
	if (split || packet->partial || packet->held)
		out_by_kernel(packet, true, 0, split ? model->mtu : 0, out);
	model->service_counts[flow->service].to_client++;
	model->service_counts[flow->service].to_client_bytes += packet->bytes;
	model->backend_counts[flow->backend].to_client++;
	model->backend_counts[flow->backend].to_client_bytes += packet->bytes;
	if (packet->held) {
		model->service_counts[flow->service].to_client += packet->held->packets;
		model->service_counts[flow->service].to_client_bytes += packet->held->bytes;
		model->backend_counts[flow->backend].to_client += packet->held->packets;
		model->backend_counts[flow->backend].to_client_bytes += packet->held->bytes;
	}
	return NULL;
}

/* A frame that lost its tags, with them again, so that everything is where it is in others. */
static void frame_with_tags(const struct packet *packet, const struct frame_out *actual,
			    struct frame_out *seen)
{
	unsigned int tags = packet->network - 14;

	*seen = *actual;
	memmove(seen->data + 12 + tags, actual->data + 12, actual->length - 12);
	memcpy(seen->data + 12, packet->frame + 12, tags);
	seen->length += tags;
}

const char *model_run(struct model *model, const uint8_t *frame, unsigned int length,
		      const struct frame_out *actual, struct frame_out *out)
{
	static struct frame_out seen;
	struct model_fragment *known;
	struct packet packet;
	const char *wrong = NULL;
	bool echo, ours;
	int service;

	*out = (struct frame_out){ .verdict = XDP_PASS, .length = length };
	memcpy(out->data, frame, length);
	if (!packet_read(frame, length, &packet))
		return NULL;
	packet.partial = model->partial && packet_is_partial(&packet);
	packet.held = NULL;
	if (actual->verdict == BY_KERNEL && !actual->kept && packet.network > 18) {
		frame_with_tags(&packet, actual, &seen);
		actual = &seen;
	}
	if (packet.echo) {
		if (is_vip(model, &packet.destination, &echo) && echo &&
		    !source_impossible(&packet))
			out_echo(&packet, out);
		return NULL;
	}
	if (packet.kind == LATER && !fragment_find(model, &packet)) {
		if (is_vip(model, &packet.destination, &echo))
			fragment_wait(model, &packet, actual, out);
		return NULL;
	}
	known = packet.kind == FIRST ? fragment_of(model, &packet) : NULL;
	if (known && known->used && !known->destination_port)
		packet.held = known;
	service = service_find(model, &packet);
	wrong = service >= 0 ? serve(model, service, &packet, actual, out) :
			       restore(model, &packet, actual, out);
	ours = out->verdict != XDP_PASS;
	if (ours && known)
		fragment_begin(known, &packet);
	return wrong;
}
