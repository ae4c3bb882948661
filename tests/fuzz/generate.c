// SPDX-License-Identifier: GPL-2.0
/*
 * See generate.h. Few clients and few ports, so that packets meet flows that are there; sizes about
 * the MTU; and in one packet of eight, something is broken.
 */
#include "generate.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"

#define CLIENTS 24
#define PORTS 12
#define RING_MAX 64

static uint64_t state;
static uint32_t rings[MODEL_SERVICES][RING_MAX];

/* xorshift64*, Vigna 2016. */
static uint32_t draw(uint32_t n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dull >> 32) % n;
}

static bool one_in(uint32_t n)
{
	return !draw(n);
}

static struct ip address(const char *prefix4, const char *prefix6, bool v6, unsigned int n)
{
	struct ip ip = { .v6 = v6 };

	inet_pton(v6 ? AF_INET6 : AF_INET, v6 ? prefix6 : prefix4, ip.byte);
	ip.byte[v6 ? 15 : 3] += n;
	return ip;
}

static struct ip client(bool v6)
{
	return address("198.18.0.1", "2001:db8:c::1", v6, draw(CLIENTS));
}

/* ---- configurations ---- */

static void generate_backends(struct model *model, struct model_service *service)
{
	bool v6 = service->vip.v6;

	if (service->forward >= XLB_FORWARD_IPIP ||
	    (service->forward == XLB_FORWARD_NAT && one_in(3)))
		v6 = draw(2);
	service->first_backend = model->n_backends;
	service->n_backends = one_in(8) ? 0 : 1 + draw(4);
	for (unsigned int i = 0; i < service->n_backends; i++) {
		unsigned int n = model->n_backends++;
		struct model_backend *backend = &model->backends[n];

		*backend = (struct model_backend){
			.address = address("10.200.1.1", "2001:db8:200::1:1", v6, n),
			.source = address("10.200.0.1", "2001:db8:200::1", v6, 0),
			.port = service->forward > XLB_FORWARD_DNAT ? service->port : 8000 + n,
			.state = one_in(4) ? XLB_BACKEND_DRAINING + draw(2) : XLB_BACKEND_ACTIVE,
			.weight = one_in(8) ? 0 : 1,
			.mac = { 2, 0, 0, 0, 1, n },
		};
	}
}

static void generate_ring(struct model *model, struct model_service *service, uint32_t *ring)
{
	unsigned int able[MODEL_BACKENDS], n = 0;

	for (unsigned int i = 0; i < service->n_backends; i++) {
		const struct model_backend *backend = &model->backends[service->first_backend + i];

		if (backend->state == XLB_BACKEND_ACTIVE && backend->weight)
			able[n++] = service->first_backend + i;
	}
	service->ring = ring;
	service->ring_size = n ? n + draw(RING_MAX - n + 1) : 0;
	for (uint32_t i = 0; i < service->ring_size; i++)
		ring[i] = able[i < n ? i : draw(n)];
}

static void generate_service(struct model *model, unsigned int n)
{
	struct model_service *service = &model->services[n];

	service->vip = address("203.0.113.10", "2001:db8:99::10", draw(2), draw(3));
	service->port = 80 + n;
	service->protocol = draw(2) ? XLB_TCP : XLB_UDP;
	service->forward = draw(XLB_FORWARDS);
	service->scheduler = draw(XLB_SCHEDULERS);
	service->affinity = one_in(4);
	service->echo = !one_in(4);
	service->mss = one_in(4) ? 536 + draw(1000) : 0;
	service->gue_port = one_in(2) ? 6080 : 7000 + draw(100);
	service->gue_checksum = draw(2);
	service->n_ranges = one_in(4) ? 1 + draw(MODEL_RANGES) : 0;
	for (unsigned int i = 0; i < service->n_ranges; i++) {
		struct model_range *range = &service->ranges[i];
		unsigned int bits = service->vip.v6 ? 128 : 32;

		range->address = client(service->vip.v6);
		range->length = bits - draw(6);
		for (unsigned int bit = range->length; bit < bits; bit++)
			range->address.byte[bit / 8] &= ~(0x80 >> bit % 8);
	}
	generate_backends(model, service);
	generate_ring(model, service, rings[n]);
}

void generate_model(struct model *model, uint64_t seed)
{
	static const uint8_t node[6] = { 2, 0, 0, 0, 0, 1 }, router[6] = { 2, 0, 0, 0, 0, 2 };

	state = seed * 0x9e3779b97f4a7c15ull + 1;
	memset(model, 0, sizeof(*model));
	memcpy(model->node_mac, node, 6);
	memcpy(model->router_mac, router, 6);
	model->mtu = one_in(3) ? 1280 + draw(60) : 1500;
	model->partial = !one_in(4);
	model->port_min = 1024;
	model->port_max = 32767;
	model->n_services = 1 + draw(MODEL_SERVICES - 1);
	for (unsigned int i = 0; i < model->n_services; i++)
		generate_service(model, i);
}

static void print_ip(const char *what, const struct ip *ip, unsigned int port)
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->byte, text, sizeof(text));
	printf("%s %s port %u", what, text, port);
}

void generate_print(const struct model *model)
{
	for (unsigned int i = 0; i < model->n_services; i++) {
		const struct model_service *service = &model->services[i];

		print_ip("service", &service->vip, service->port);
		printf("/%u forward %u scheduler %u affinity %d echo %d mss %u gue %u%s ranges %u ring %u\n",
		       service->protocol, service->forward, service->scheduler, service->affinity,
		       service->echo, service->mss, service->gue_port,
		       service->gue_checksum ? " checksum" : "", service->n_ranges,
		       service->ring_size);
		for (unsigned int j = 0; j < service->n_backends; j++) {
			const struct model_backend *backend =
				&model->backends[service->first_backend + j];

			print_ip("  backend", &backend->address, backend->port);
			printf(" state %u weight %u\n", backend->state, backend->weight);
		}
	}
}

/* ---- packets ---- */

struct builder {
	uint8_t *frame;
	unsigned int length;
};

static void put(struct builder *builder, const void *data, unsigned int n)
{
	if (builder->length + n > FRAME_MAX)
		n = FRAME_MAX - builder->length;
	memcpy(builder->frame + builder->length, data, n);
	builder->length += n;
}

static void put_be(struct builder *builder, uint32_t value, unsigned int n)
{
	uint8_t bytes[4] = { value >> 24, value >> 16, value >> 8, value };

	put(builder, bytes + 4 - n, n);
}

static void put_random(struct builder *builder, unsigned int n)
{
	while (n--)
		put_be(builder, draw(256), 1);
}

/* What a packet is to be. */
struct wish {
	struct ip source, destination;
	uint16_t source_port, destination_port;
	uint8_t protocol, flags, ttl;
	unsigned int payload;
	bool fragment_first, fragment_later;
	unsigned int id;
};

static void put_ethernet(struct builder *builder, bool v6)
{
	static const uint8_t macs[12] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 };
	unsigned int tags = one_in(6) ? 1 + draw(2) : 0;

	put(builder, macs, 12);
	if (one_in(60))
		builder->frame[0] |= 1;
	for (unsigned int i = 0; i < tags; i++) {
		put_be(builder, draw(2) ? 0x8100 : 0x88a8, 2);
		put_be(builder, draw(65536), 2);
	}
	put_be(builder, v6 ? 0x86dd : 0x0800, 2);
}

/* Extension headers, ending in `last`; returns what the IPv6 header says comes first. */
static uint8_t chain_make(struct builder *builder, uint8_t last, const struct wish *wish)
{
	static const uint8_t kinds[] = { 0, 43, 60, 51 };
	unsigned int n = one_in(6) ? 1 + draw(4) : 0;
	uint8_t next[8], lengths[8];

	if (wish->fragment_first || wish->fragment_later || one_in(40)) {
		next[n] = 44;
		lengths[n++] = 0;
	}
	for (unsigned int i = 0; i < n; i++) {
		if (i + 1 == n && next[i] == 44)
			continue;
		next[i] = kinds[draw(4)];
		lengths[i] = draw(3);
	}
	if (n && (wish->fragment_first || wish->fragment_later))
		next[n - 1] = 44;
	for (unsigned int i = 0; i < n; i++) {
		unsigned int header = builder->length;

		put_be(builder, i + 1 < n ? next[i + 1] : last, 1);
		if (next[i] == 44) {
			put_be(builder, 0, 1);
			put_be(builder, wish->fragment_later ? (8 + draw(100)) << 3 | draw(2) :
							      wish->fragment_first, 2);
			put_be(builder, wish->id, 4);
			continue;
		}
		put_be(builder, lengths[i], 1);
		put_random(builder, (next[i] == 51 ? (lengths[i] + 2) * 4 :
						     (lengths[i] + 1) * 8) - 2);
		/* Segments of a routing header, mostly none left. */
		if (next[i] == 43 && !one_in(8))
			builder->frame[header + 3] = 0;
	}
	return n ? next[0] : last;
}

/* So many bytes of options of an IPv4 header; some of them source routes, and some not to be read. */
static void put_options(struct builder *builder, unsigned int bytes)
{
	unsigned int end = builder->length + bytes;

	while (builder->length < end) {
		unsigned int left = end - builder->length, size = 3 + draw(9);

		if (left < 4 || one_in(4)) {
			put_be(builder, !one_in(8), 1);
			continue;
		}
		if (size > left)
			size = left;
		put_be(builder, one_in(6) ? 131 + 6 * draw(2) : draw(256), 1);
		put_be(builder, one_in(20) ? draw(256) : size, 1);
		put_be(builder, one_in(2) ? size + 1 : draw(45), 1);
		put_random(builder, size - 3);
	}
}

/* From the IP header to the end of the IP header's length field's say. Returns where it begins. */
static unsigned int put_ip(struct builder *builder, const struct wish *wish, uint8_t protocol)
{
	unsigned int start = builder->length, options = one_in(8) ? draw(11) : 0;
	uint8_t zero[2] = {};

	if (wish->source.v6) {
		uint8_t first;

		put_be(builder, 0x60000000 | draw(1 << 28), 4);
		put(builder, zero, 2);
		put_be(builder, 0, 1);
		put_be(builder, wish->ttl, 1);
		put(builder, wish->source.byte, 16);
		put(builder, wish->destination.byte, 16);
		first = chain_make(builder, protocol, wish);
		builder->frame[start + 6] = first;
		return start;
	}
	put_be(builder, 0x45 + options, 1);
	put_be(builder, draw(256), 1);
	put(builder, zero, 2);
	put_be(builder, wish->fragment_first || wish->fragment_later ? wish->id : draw(65536), 2);
	put_be(builder, wish->fragment_later ? (1 + draw(180)) | draw(2) << 13 :
		       wish->fragment_first ? 0x2000 : draw(2) << 14, 2);
	put_be(builder, wish->ttl, 1);
	put_be(builder, protocol, 1);
	put_be(builder, draw(65536), 2);
	put(builder, wish->source.byte, 4);
	put(builder, wish->destination.byte, 4);
	put_options(builder, options * 4);
	return start;
}

static void ip_finish(struct builder *builder, unsigned int start, bool v6)
{
	unsigned int length = builder->length - start - (v6 ? 40 : 0);
	uint8_t *at = builder->frame + start + (v6 ? 4 : 2);

	at[0] = length >> 8;
	at[1] = length;
}

static void put_transport(struct builder *builder, const struct wish *wish)
{
	unsigned int options = wish->flags & 2 || one_in(8) ? draw(11) : 0, start;

	put_be(builder, wish->source_port, 2);
	put_be(builder, wish->destination_port, 2);
	if (wish->protocol == XLB_UDP) {
		put_be(builder, 8 + wish->payload, 2);
		put_be(builder, one_in(4) ? 0 : draw(65536), 2);
		return;
	}
	put_random(builder, 8);
	put_be(builder, (5 + options) << 4 | draw(16), 1);
	put_be(builder, wish->flags, 1);
	put_random(builder, 6);
	for (start = builder->length; builder->length < start + options * 4;) {
		if (one_in(3)) {
			put_be(builder, 0x02040000 | draw(65536), 4);
		} else if (one_in(3)) {
			put_be(builder, 1, 1);
		} else {
			uint8_t size = 2 + draw(8);

			put_be(builder, 3 + draw(6), 1);
			put_be(builder, size, 1);
			put_random(builder, size - 2);
		}
	}
	builder->length = start + options * 4;
}

static unsigned int payload_size(void)
{
	/* About the MTU; about what IPv6 hosts need not go below; short ones. */
	return one_in(3) ? 1380 + draw(180) : one_in(6) ? 1190 + draw(60) : draw(200);
}

static uint8_t flags_of(uint8_t protocol)
{
	static const uint8_t usual[] = { 2, 16, 16, 16, 24, 17, 4, 18, 20, 1 };

	if (protocol != XLB_TCP)
		return 0;
	return one_in(12) ? draw(256) : usual[draw(sizeof(usual))];
}

/* A client's packet to a service, or to none. */
static struct wish wish_request(const struct model *model)
{
	const struct model_service *service = &model->services[draw(model->n_services)];
	struct wish wish = {
		.source = client(service->vip.v6), .destination = service->vip,
		.source_port = 5000 + draw(PORTS), .destination_port = service->port,
		.protocol = service->protocol, .ttl = one_in(16) ? draw(3) : 64,
		.payload = payload_size(), .id = draw(30),
	};

	wish.flags = flags_of(wish.protocol);
	if (one_in(30))
		wish.source = service->vip;
	if (one_in(20)) {
		const struct model_service *other = &model->services[draw(model->n_services)];

		if (other->vip.v6 == service->vip.v6) {
			wish.source = other->vip;
			wish.source_port = other->port;
		}
	}
	if (one_in(30)) {
		wish.source.byte[0] = draw(2) ? 224 + draw(32) : draw(2) * 127;
		wish.source.v6 = service->vip.v6;
	}
	if (one_in(12))
		wish.destination_port += 1 + draw(3);
	if (one_in(12))
		wish.destination.byte[service->vip.v6 ? 15 : 3] += 50;
	return wish;
}

/* What a backend answers to a flow of the model; false: there is none. */
static bool wish_reply(const struct model *model, struct wish *wish)
{
	const struct model_flow *flow = NULL;
	const struct model_backend *backend;

	for (unsigned int i = 0; i < 8; i++) {
		const struct model_flow *at = &model->flows[draw(64)];

		if (at->used && at->state != XLB_FLOW_FREE)
			flow = at;
	}
	if (!flow)
		return false;
	backend = &model->backends[flow->backend];
	*wish = (struct wish){
		.source = backend->address,
		.destination = flow->nat_port ? backend->source : flow->client,
		.source_port = backend->port,
		.destination_port = flow->nat_port ? flow->nat_port : flow->client_port,
		.protocol = model->services[flow->service].protocol,
		.ttl = one_in(16) ? draw(3) : 64, .payload = payload_size(), .id = draw(30),
	};
	wish->flags = flags_of(wish->protocol);
	if (one_in(20))
		wish->destination_port++;
	/* A tunnel's backend answers from the VIP. */
	return wish->source.v6 == wish->destination.v6;
}

/* An ICMP error about a packet, from a router or from its receiver. */
static void put_error(struct builder *builder, const struct wish *about)
{
	static const uint8_t types4[] = { 3, 3, 11, 12, 5 }, types6[] = { 1, 2, 3, 4, 5 };
	struct wish outer = {
		.source = one_in(3) ? about->destination : client(about->source.v6),
		.destination = about->source, .ttl = about->ttl,
	};
	bool v6 = about->source.v6;
	unsigned int start = put_ip(builder, &outer, v6 ? 58 : 1), quote, most;

	put_be(builder, v6 ? types6[draw(5)] : types4[draw(5)], 1);
	put_be(builder, draw(6), 1);
	put_random(builder, 2);
	put_be(builder, draw(4) ? 1280 + draw(220) : draw(3000), 4);
	quote = put_ip(builder, about, about->protocol);
	put_transport(builder, about);
	most = builder->length;
	put_random(builder, draw(30));
	ip_finish(builder, quote, v6);
	if (one_in(3))
		builder->length = most - draw(most - quote < 20 ? most - quote : 20);
	ip_finish(builder, start, v6);
}

static void put_echo(struct builder *builder, const struct wish *wish)
{
	bool v6 = wish->source.v6;
	unsigned int start = put_ip(builder, wish, v6 ? 58 : 1);

	put_be(builder, one_in(8) ? draw(256) : v6 ? 128 : 8, 1);
	put_be(builder, one_in(16), 1);
	put_random(builder, 6 + draw(60));
	ip_finish(builder, start, v6);
}

static void put_packet(struct builder *builder, struct wish *wish)
{
	unsigned int start;

	if (one_in(10))
		*(one_in(2) ? &wish->fragment_first : &wish->fragment_later) = true;
	start = put_ip(builder, wish, wish->protocol);
	if (wish->fragment_later)
		put_random(builder, 8 + draw(100));
	else
		put_transport(builder, wish);
	if (!wish->fragment_later)
		for (unsigned int i = 0; i < wish->payload; i += 4)
			put_be(builder, draw(1u << 31), wish->payload - i < 4 ? wish->payload - i : 4);
	ip_finish(builder, start, wish->source.v6);
}

static void damage(struct builder *builder)
{
	unsigned int headers = builder->length < 90 ? builder->length : 90;

	switch (draw(4)) {
	case 0:
		builder->length = 14 + draw(builder->length - 13);
		break;
	case 1:
		put_random(builder, draw(40));
		break;
	default:
		for (unsigned int i = 1 + draw(3); i; i--)
			builder->frame[12 + draw(headers - 12)] = draw(256);
	}
}

unsigned int generate_packet(const struct model *model, uint8_t *frame)
{
	struct builder builder = { .frame = frame };
	struct wish wish = wish_request(model);

	if (one_in(4) && !wish_reply(model, &wish))
		wish = wish_request(model);
	put_ethernet(&builder, wish.source.v6);
	if (one_in(8)) {
		struct wish about = wish;

		/* About what our side sent: turned around. */
		about.source = wish.destination;
		about.destination = wish.source;
		about.source_port = wish.destination_port;
		about.destination_port = wish.source_port;
		put_error(&builder, &about);
	} else if (one_in(20)) {
		put_echo(&builder, &wish);
	} else {
		put_packet(&builder, &wish);
	}
	if (one_in(6))
		partial_write(frame, builder.length);
	/* Short frames are padded, and with what is nobody's business. */
	if (one_in(8))
		put_random(&builder, draw(46));
	if (one_in(8))
		damage(&builder);
	return builder.length;
}

#define TCP4_FLAGS (14 + 20 + 13)	/* where they are without tags, options or extension headers */
#define TCP6_FLAGS (14 + 40 + 13)
#define TCP_ACK 0x10

unsigned int generate_next(const uint8_t *earlier, unsigned int length, uint8_t *frame)
{
	static const uint8_t flags[] = { TCP_ACK, TCP_ACK, TCP_ACK, 0x18, 0x11, 0x14, 0x12, 0x02 };
	bool is_ipv4 = earlier[12] == 0x08 && earlier[14] == 0x45 && earlier[14 + 9] == XLB_TCP;
	bool is_ipv6 = earlier[12] == 0x86 && earlier[14 + 6] == XLB_TCP;
	unsigned int at = is_ipv4 ? TCP4_FLAGS : TCP6_FLAGS;

	memcpy(frame, earlier, length);
	if ((is_ipv4 || is_ipv6) && at < length)
		frame[at] = flags[draw(sizeof(flags))];
	return length;
}
