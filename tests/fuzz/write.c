// SPDX-License-Identifier: GPL-2.0
/* Writing what leaves: Documentation/packets.md, the table of forwarding, and the answers. */
#include "packet.h"

#include <linux/bpf.h>

/* A checksum after some bytes under it, at an even offset, became others (RFC 1624, equation 3). */
static uint16_t check_replace(uint16_t check, const uint8_t *before, const uint8_t *after,
			      unsigned int n)
{
	uint64_t sum = (uint16_t)~check;

	for (unsigned int i = 0; i < n; i += 2)
		sum += (uint64_t)(uint16_t)~get16(before + i) + get16(after + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static uint32_t sum_of(const uint8_t *at, unsigned int n)
{
	uint32_t sum = 0;

	for (unsigned int i = 0; i < n; i++)
		sum += i & 1 ? at[i] : at[i] << 8;
	return sum;
}

static uint16_t check_of(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

void out_begin(const struct packet *packet, const uint8_t *mac, const struct model *model,
		      struct frame_out *out)
{
	out->verdict = XDP_TX;
	out->length = packet->length;
	memcpy(out->data, packet->frame, packet->length);
	memcpy(out->data, mac, 6);
	memcpy(out->data + 6, model->node_mac, 6);
}

/* As sums are compared: a sum of nothing is 0 or all ones. */
static uint16_t sum_difference(uint64_t after, uint64_t before)
{
	return (after % 0xffff + 0xffff - before % 0xffff) % 0xffff;
}

/* Where a packet's checksum is; 0: it has none. */
static unsigned int check_offset(const struct packet *packet)
{
	unsigned int at = packet->transport + (packet->protocol == TCP ? 16 : 6);

	return packet->kind == WHOLE && at + 2 <= packet->length ? at : 0;
}

static uint16_t pseudo_sum(const struct packet *packet)
{
	const uint8_t *ip = packet->frame + packet->network;
	uint64_t sum = sum_of(ip + (packet->v6 ? 8 : 12), packet->v6 ? 32 : 8);

	return ~check_of(sum + packet->protocol + ((packet->bytes - packet->headers) & 0xffff));
}

bool packet_is_partial(const struct packet *packet)
{
	unsigned int at = check_offset(packet);

	return at && get16(packet->frame + at) &&
	       get16(packet->frame + at) == pseudo_sum(packet);
}

void partial_write(uint8_t *frame, unsigned int length)
{
	struct packet packet;

	if (packet_read(frame, length, &packet) && !packet.echo && check_offset(&packet))
		put16(frame + check_offset(&packet), pseudo_sum(&packet));
}

static void tags_off(unsigned int tags, struct frame_out *out)
{
	memmove(out->data + 12, out->data + 12 + tags, out->length - 12 - tags);
	out->length -= tags;
}

void out_kept(const struct packet *packet, const struct model_fragment *datagram,
	      struct frame_out *out)
{
	out->verdict = BY_KERNEL;
	out->held = out->kept = true;
	out->datagram = datagram->datagram;
	tags_off(packet->network - 14, out);
}

void out_by_kernel(const struct packet *packet, bool addresses, unsigned int tunnel,
		   unsigned int mtu, struct frame_out *out)
{
	/* The transport header is as far from the end as it was. */
	unsigned int tags = packet->network - 14, behind = packet->length - packet->transport;
	const uint8_t *old = packet->frame + packet->network, *new;
	bool v6;

	out->verdict = BY_KERNEL;
	out->mtu = mtu;
	memcpy(out->data, packet->frame, 12);
	if (tags > 4) {
		tags_off(tags, out);
		tags = 0;
	}
	new = out->data + 14 + tags;
	if (packet->held) {
		out->held = true;
		out->datagram = packet->held->datagram;
		out->tunnel = tunnel;
	}
	if (!packet->partial)
		return;
	v6 = *new >> 4 == 6;
	out->check = out->length - behind + (packet->protocol == TCP ? 16 : 6);
	if (addresses)
		out->address_sum = sum_difference(sum_of(new + (v6 ? 8 : 12), v6 ? 32 : 8),
						  sum_of(old + (packet->v6 ? 8 : 12),
							 packet->v6 ? 32 : 8));
}

/* Replaces bytes, and corrects a checksum that covers them; at < 0: none does. */
static void replace(uint8_t *at, const void *with, unsigned int n, uint8_t *check)
{
	uint8_t before[16];

	memcpy(before, at, n);
	memcpy(at, with, n);
	if (check)
		put16(check, check_replace(get16(check), before, at, n));
}

void hop_less(uint8_t *network, bool v6)
{
	uint8_t word[2] = { network[8] - 1, network[9] };

	if (v6)
		network[7]--;
	else
		replace(network + 8, word, 2, network + 10);
}

static void write16(uint8_t *at, uint16_t value, uint8_t *check)
{
	uint8_t bytes[2];

	put16(bytes, value);
	replace(at, bytes, 2, check);
}

/* New addresses in an IP header, as its own checksum and the one of the transport see it. */
static void write_addresses(uint8_t *network, const struct ip *source, const struct ip *destination,
			    uint8_t *check)
{
	unsigned int at = source->v6 ? 8 : 12, n = ip_bytes(source);
	uint8_t copy[40];

	memcpy(copy, network, 40);
	replace(copy + at, source->byte, n, check);
	replace(copy + at + n, destination->byte, n, check);
	replace(network + at, source->byte, n, source->v6 ? NULL : network + 10);
	replace(network + at + n, destination->byte, n, source->v6 ? NULL : network + 10);
}

/* To another source and destination, as a translator does. */
void out_translate(const struct packet *packet, const struct ip *source,
			  uint16_t source_port, const struct ip *destination,
			  uint16_t destination_port, struct frame_out *out)
{
	uint8_t *network = out->data + packet->network, *transport = out->data + packet->transport;
	uint8_t *check = transport + (packet->protocol == TCP ? 16 : 6);
	bool summed = packet->kind != LATER && (packet->protocol == TCP || get16(check));

	hop_less(network, packet->v6);
	write_addresses(network, source, destination, summed ? check : NULL);
	if (packet->kind == LATER)
		return;
	write16(transport, source_port, summed ? check : NULL);
	write16(transport + 2, destination_port, summed ? check : NULL);
	if (packet->protocol == UDP && summed && !get16(check))
		put16(check, 0xffff);
}

/* A new header; what may be any number is taken from the frame that came out. */
static void write_header(uint8_t *ip, const struct packet *packet, const struct ip *source,
			 const struct ip *destination, unsigned int bytes, const uint8_t *seen)
{
	const uint8_t *old = packet->frame + packet->network;
	uint8_t class = packet->v6 ? old[0] << 4 | old[1] >> 4 : old[1];
	unsigned int n = ip_bytes(source);

	memset(ip, 0, source->v6 ? 40 : 20);
	if (source->v6) {
		ip[0] = 0x60 | class >> 4;
		ip[1] = class << 4;
		put16(ip + 4, bytes - 40);
		ip[6] = packet->protocol;
		ip[7] = packet->ttl - 1;
	} else {
		ip[0] = 0x45;
		ip[1] = class;
		put16(ip + 2, bytes);
		if (bytes > 1260)
			ip[6] = 0x40;
		else
			memcpy(ip + 4, seen + 4, 2);
		ip[8] = packet->ttl - 1;
		ip[9] = packet->protocol;
	}
	memcpy(ip + (source->v6 ? 8 : 12), source->byte, n);
	memcpy(ip + (source->v6 ? 8 : 12) + n, destination->byte, n);
	if (!source->v6)
		put16(ip + 10, check_of(sum_of(ip, 20)));
}

void out_cross(const struct packet *packet, const struct ip *source, uint16_t source_port,
	       const struct ip *destination, uint16_t destination_port,
	       const struct frame_out *actual, struct frame_out *out)
{
	unsigned int header = source->v6 ? 40 : 20, n = ip_bytes(source);
	uint8_t *network = out->data + packet->network, *transport = out->data + packet->transport;
	uint8_t *check = transport + (packet->protocol == TCP ? 16 : 6);
	uint8_t before[32] = {}, after[32] = {};
	bool summed = packet->protocol == TCP || get16(check);

	memcpy(before, packet->source.byte, ip_bytes(&packet->source));
	memcpy(before + 16, packet->destination.byte, ip_bytes(&packet->source));
	memcpy(after, source->byte, n);
	memcpy(after + 16, destination->byte, n);
	if (summed)
		put16(check, check_replace(get16(check), before, after, 32));
	write16(transport, source_port, summed ? check : NULL);
	write16(transport + 2, destination_port, summed ? check : NULL);
	if (packet->protocol == UDP && summed && !get16(check))
		put16(check, 0xffff);
	memmove(network + header, transport, out->length - packet->transport);
	out->length += header - packet->headers;
	put16(network - 2, source->v6 ? 0x86dd : 0x0800);
	write_header(network, packet, source, destination,
		     packet->bytes - packet->headers + header, actual->data + packet->network);
}

/* An error: what it quotes is turned around, and its own way is. */
void out_translate_error(const struct packet *packet, const struct ip *source,
				uint16_t source_port, const struct ip *destination,
				uint16_t destination_port, struct frame_out *out)
{
	uint8_t *network = out->data + packet->network, *icmp = out->data + packet->quote - 8;
	uint8_t *quote = out->data + packet->quote, *ports = out->data + packet->quote_transport;
	struct ip own = packet->outer_source;
	uint8_t before[FRAME_MAX], *check = ports + (packet->protocol == TCP ? 16 : 6);
	unsigned int end = packet->network + packet->bytes, n = end - packet->quote;
	bool whole = packet->quote_transport + (packet->protocol == TCP ? 20 : 8) <= end;
	bool summed = whole && (packet->protocol == TCP || get16(check));
	uint8_t behind = quote[n];

	memcpy(before, quote, n);
	before[n] = quote[n] = 0;
	hop_less(network, packet->v6);
	if (ip_equal(&own, &packet->source))
		own = *source;
	write_addresses(network, &own, destination, packet->v6 ? icmp + 2 : NULL);
	write_addresses(quote, destination, source, summed ? check : NULL);
	write16(ports, destination_port, summed ? check : NULL);
	write16(ports + 2, source_port, summed ? check : NULL);
	if (packet->protocol == UDP && summed && !get16(check))
		put16(check, 0xffff);
	put16(icmp + 2, check_replace(get16(icmp + 2), before, quote, (n + 1) & ~1u));
	quote[n] = behind;
}

void mss_lower(const struct packet *packet, uint16_t most, struct frame_out *out)
{
	uint8_t *tcp = out->data + packet->transport;
	unsigned int end = (tcp[12] >> 4) * 4, at = 20;

	if (!most || !(packet->flags & SYN) || packet->protocol != TCP)
		return;
	for (int i = 0; i < 8; i++) {
		if (at + 4 > end || packet->transport + at + 4 > packet->length || !tcp[at])
			return;
		if (tcp[at] == 1) {
			at++;
		} else if (tcp[at] != 2 || tcp[at + 1] != 4) {
			at += tcp[at + 1] < 2 ? 2 : tcp[at + 1];
		} else {
			uint8_t before[64], word = at & 1;

			memcpy(before, tcp, 64);
			if (get16(tcp + at + 2) <= most)
				return;
			put16(tcp + at + 2, most);
			put16(tcp + 16, check_replace(get16(tcp + 16), before + at + 2 - word,
						      tcp + at + 2 - word, 2 + 2 * word));
			return;
		}
	}
}

static void out_answer_begin(const struct packet *packet, uint8_t protocol, unsigned int payload,
			     struct frame_out *out)
{
	uint8_t *ip = out->data + packet->network;
	unsigned int header = packet->v6 ? 40 : 20;

	out->verdict = XDP_TX;
	out->length = packet->network + header + payload;
	memcpy(out->data, packet->frame + 6, 6);
	memcpy(out->data + 6, packet->frame, 6);
	memcpy(out->data + 12, packet->frame + 12, packet->network - 12);
	memset(ip, 0, header);
	ip[0] = packet->v6 ? 0x60 : 0x45;
	if (packet->v6) {
		put16(ip + 4, payload);
		ip[6] = protocol;
		ip[7] = 64;
	} else {
		put16(ip + 2, header + payload);
		ip[6] = 0x40;
		ip[8] = 64;
		ip[9] = protocol;
	}
	memcpy(ip + (packet->v6 ? 8 : 12), packet->destination.byte, packet->v6 ? 16 : 4);
	memcpy(ip + (packet->v6 ? 24 : 16), packet->source.byte, packet->v6 ? 16 : 4);
	if (!packet->v6)
		put16(ip + 10, check_of(sum_of(ip, 20)));
}

/* The sum of an answer's pseudo header and what is in it. */
static uint64_t answer_sum(const struct packet *packet, uint8_t protocol, unsigned int payload,
			   const struct frame_out *out)
{
	const uint8_t *ip = out->data + packet->network;
	unsigned int addresses = packet->v6 ? 32 : 8;

	return (uint64_t)sum_of(ip + (packet->v6 ? 8 : 12), addresses) + protocol + payload +
	       sum_of(ip + (packet->v6 ? 40 : 20), payload);
}

void out_reset(const struct packet *packet, struct frame_out *out)
{
	const uint8_t *tcp = packet->frame + packet->transport;
	uint32_t seq = get32(tcp + 4) + packet->bytes - packet->headers - (tcp[12] >> 4) * 4 +
		       !!(packet->flags & SYN) + !!(packet->flags & FIN);
	uint8_t *answer = out->data + packet->network + (packet->v6 ? 40 : 20);

	out_answer_begin(packet, TCP, 20, out);
	memset(answer, 0, 20);
	put16(answer, packet->destination_port);
	put16(answer + 2, packet->source_port);
	if (packet->flags & ACK) {
		memcpy(answer + 4, tcp + 8, 4);
	} else {
		put16(answer + 8, seq >> 16);
		put16(answer + 10, seq);
	}
	answer[12] = 0x50;
	answer[13] = packet->flags & ACK ? RST : RST | ACK;
	put16(answer + 16, check_of(answer_sum(packet, TCP, 20, out)));
}

void out_error(const struct packet *packet, uint8_t type, uint8_t code, uint32_t rest,
		      struct frame_out *out)
{
	unsigned int most = packet->v6 ? 1280 - 40 - 8 : 576 - 20 - 8;
	unsigned int quote = (packet->bytes > most ? most : packet->bytes) & ~3u;
	uint8_t *icmp = out->data + packet->network + (packet->v6 ? 40 : 20);
	uint8_t protocol = packet->v6 ? ICMP6 : ICMP;

	out_answer_begin(packet, protocol, quote + 8, out);
	memset(icmp, 0, 8);
	icmp[0] = type;
	icmp[1] = code;
	put16(icmp + 4, rest >> 16);
	put16(icmp + 6, rest);
	memcpy(icmp + 8, packet->frame + packet->network, quote);
	put16(icmp + 2, check_of(packet->v6 ? answer_sum(packet, ICMP6, quote + 8, out) :
					      sum_of(icmp, quote + 8)));
}

void out_echo(const struct packet *packet, struct frame_out *out)
{
	uint8_t *ip = out->data + packet->network, *icmp = out->data + packet->transport;
	uint8_t type[2] = { packet->v6 ? 129 : 0, 0 }, ttl[2] = { 64, ip[9] };

	out->verdict = XDP_TX;
	out->length = packet->length;
	memcpy(out->data, packet->frame, packet->length);
	memcpy(out->data, packet->frame + 6, 6);
	memcpy(out->data + 6, packet->frame, 6);
	ttl[1] = ip[9];
	replace(icmp, type, 2, icmp + 2);
	if (packet->v6)
		ip[7] = 64;
	else
		replace(ip + 8, ttl, 2, ip + 10);
	write_addresses(ip, &packet->destination, &packet->source, NULL);
}

/* The sum of a pseudo header (RFC 1071; RFC 8200, 8.1). */
static uint32_t pseudo_of(const uint8_t *ip, uint8_t protocol, unsigned int bytes)
{
	bool v6 = ip[0] >> 4 == 6;

	return sum_of(ip + (v6 ? 8 : 12), v6 ? 32 : 8) + protocol + bytes;
}

/* Whether the packet has a checksum of all that is in it: all but IPv6 extension headers. */
static bool checksum_covers(const struct packet *packet)
{
	const uint8_t *udp = packet->frame + packet->transport;

	if (packet->kind == FIRST || packet->kind == LATER || (packet->v6 && packet->headers != 40))
		return false;
	return packet->kind == ERROR || packet->protocol != UDP ||
	       (get16(udp + 6) && get16(udp + 4) == packet->bytes - packet->headers);
}

/*
 * The checksum of GUE over IPv6, with the packet inside in place. It is as wrong as those inside: from its sum
 * is taken what they are off.
 */
static void gue_checksum(const struct packet *packet, uint8_t *outer)
{
	uint8_t *udp = outer + 40, *inner = udp + 8;
	unsigned int bytes = packet->bytes - packet->headers;
	uint8_t protocol = packet->kind != ERROR ? packet->protocol : packet->v6 ? ICMP6 : ICMP;
	uint32_t off, all = pseudo_of(outer, UDP, 8 + packet->bytes) + sum_of(udp, 8 + packet->bytes);
	uint16_t check;

	off = sum_of(inner + packet->headers, bytes);
	if (protocol != ICMP)
		off += pseudo_of(inner, protocol, bytes);
	check = check_of((uint64_t)all + check_of(off) +
			 (packet->v6 ? 0 : check_of(sum_of(inner, packet->headers))));
	put16(udp + 6, check ? check : 0xffff);
}

/* The outer header; what follows the flow's hash is taken from the frame that came out. */
const char *out_encapsulate(const struct packet *packet, const struct model_service *service,
				   const struct model_backend *backend, uint8_t forward,
				   const struct frame_out *actual, struct frame_out *out)
{
	bool v6 = backend->address.v6, gue = forward == XLB_FORWARD_GUE;
	unsigned int header = v6 ? 40 : 20, added = header + (gue ? 8 : 0);
	uint8_t *ip = out->data + packet->network;
	const uint8_t *inner = packet->frame + packet->network;
	const uint8_t *seen = actual->data + packet->network;
	uint8_t class = packet->v6 ? inner[0] << 4 | inner[1] >> 4 : inner[1];
	uint8_t protocol = gue ? UDP : packet->v6 ? 41 : 4;

	if (actual->length < packet->network + added)
		return "the tunnel's headers are missing";
	memmove(ip + added, ip, out->length - packet->network);
	out->length += added;
	put16(ip - 2, v6 ? 0x86dd : 0x0800);
	memset(ip, 0, added);
	if (v6) {
		ip[0] = 0x60 | class >> 4;
		ip[1] = class << 4 | (seen[1] & 15);
		memcpy(ip + 2, seen + 2, 2);
		put16(ip + 4, packet->bytes + added - header);
		ip[6] = protocol;
		ip[7] = 64;
	} else {
		ip[0] = 0x45;
		ip[1] = class;
		put16(ip + 2, packet->bytes + added);
		ip[6] = 0x40;
		ip[8] = 64;
		ip[9] = protocol;
	}
	memcpy(ip + (v6 ? 8 : 12), backend->source.byte, v6 ? 16 : 4);
	memcpy(ip + (v6 ? 24 : 16), backend->address.byte, v6 ? 16 : 4);
	if (!v6)
		put16(ip + 10, check_of(sum_of(ip, 20)));
	if (!gue)
		return NULL;
	memcpy(ip + header, seen + header, 2);
	put16(ip + header + 2, service->gue_port);
	put16(ip + header + 4, packet->bytes + 8);
	if (v6 && service->gue_checksum && checksum_covers(packet))
		gue_checksum(packet, ip);
	return ip[header] & 0x80 ? NULL : "a tunnel's source port under 32768";
}
