// SPDX-License-Identifier: GPL-2.0
/* Reading a packet: Documentation/packets.md, 1 to 4. */
#include "packet.h"

static bool is_vlan(uint16_t type)
{
	return type == 0x8100 || type == 0x88a8;
}

static bool quote_read(struct packet *packet, unsigned int at);

/* Extension headers from `at`; false: not to be understood. */
static bool chain_read(const struct packet *packet, unsigned int *at, uint8_t *protocol,
		       bool *later, bool *first, uint32_t *id)
{
	const uint8_t *frame = packet->frame;

	*later = *first = false;
	for (int i = 0; i < 4 && !*later; i++) {
		unsigned int header = *at;

		if (header > 0x1ff || header + 8 > packet->length)
			return false;
		/* Segments left: it is not where it is going. */
		if (*protocol == 43 && frame[header + 3])
			return false;
		if (*protocol == 0 || *protocol == 43 || *protocol == 60) {
			*at += (frame[header + 1] + 1) * 8;
		} else if (*protocol == 51) {
			*at += (frame[header + 1] + 2) * 4;
		} else if (*protocol == 44) {
			*later = get16(frame + header + 2) >> 3;
			*first = !*later && get16(frame + header + 2) & 1;
			*id = get32(frame + header + 4);
			*at += 8;
		} else {
			break;
		}
		*protocol = frame[header];
	}
	return *at <= 0x1ff;
}

/* Whether IPv4 options can be understood, and send the packet nowhere else. */
static bool options_read(const struct packet *packet)
{
	unsigned int at = packet->network + 20, end = packet->transport;

	for (int i = 0; i < 9; i++) {
		const uint8_t *option = packet->frame + at;

		if (at == end)
			return true;
		if (at > end || at + 3 > packet->length)
			return false;
		if (*option == 0)
			return true;
		if (*option == 1) {
			at++;
			continue;
		}
		/* Source routes, loose and strict, of which something is left. */
		if (option[1] < 2 || ((*option == 131 || *option == 137) && option[2] <= option[1]))
			return false;
		at += option[1];
	}
	return false;
}

static bool is_error(uint8_t type, bool v6)
{
	return v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

static bool ports_read(struct packet *packet)
{
	const uint8_t *at = packet->frame + packet->transport;

	if (packet->transport + (packet->protocol == TCP ? 20 : 8) > packet->length)
		return false;
	packet->source_port = get16(at);
	packet->destination_port = get16(at + 2);
	packet->flags = packet->protocol == TCP ? at[13] : 0;
	return true;
}

static bool icmp_read(struct packet *packet)
{
	const uint8_t *icmp = packet->frame + packet->transport;

	if (packet->transport + 8 > packet->length)
		return false;
	if (icmp[0] == (packet->v6 ? 128 : 8) && !icmp[1]) {
		packet->echo = true;
		return packet->network + packet->bytes <= packet->length &&
		       packet->bytes >= packet->headers + 8;
	}
	return is_error(icmp[0], packet->v6) && quote_read(packet, packet->transport + 8);
}

/* What an ICMP error quotes, turned around. */
static bool quote_read(struct packet *packet, unsigned int at)
{
	unsigned int end = packet->network + packet->bytes, transport;
	const uint8_t *quote = packet->frame + at;
	bool later = false, first;
	uint8_t protocol;
	uint32_t id;
	struct ip from, to;

	if (end > packet->length)
		end = packet->length;
	if (at > 0x1ff || at + (packet->v6 ? 40 : 20) > end ||
	    quote[0] >> 4 != (packet->v6 ? 6 : 4))
		return false;
	from = ip_read(quote + (packet->v6 ? 8 : 12), packet->v6);
	to = ip_read(quote + (packet->v6 ? 24 : 16), packet->v6);
	if (packet->v6) {
		transport = at + 40;
		protocol = quote[6];
		if (!chain_read(packet, &transport, &protocol, &later, &first, &id) || later)
			return false;
	} else {
		transport = at + (quote[0] & 15) * 4;
		protocol = quote[9];
		if ((quote[0] & 15) < 5 || get16(quote + 6) & 0x1fff)
			return false;
	}
	if (!ip_equal(&from, &packet->destination) || (protocol != TCP && protocol != UDP) ||
	    transport > 0x1ff || transport + 8 > end)
		return false;
	packet->outer_source = packet->source;
	packet->outer_destination = packet->destination;
	packet->source = to;
	packet->source_port = get16(packet->frame + transport + 2);
	packet->destination_port = get16(packet->frame + transport);
	packet->protocol = protocol;
	packet->flags = 0;
	packet->quote = at;
	packet->quote_transport = transport;
	packet->kind = ERROR;
	return true;
}

/* Fills in the packet; false: none that could be ours. */
bool packet_read(const uint8_t *frame, unsigned int length, struct packet *packet)
{
	unsigned int at = 14;
	bool later = false, first = false;
	uint16_t type;

	*packet = (struct packet){ .frame = frame, .length = length };
	/* To a group: for none of ours. */
	if (length < 14 || frame[0] & 1)
		return false;
	type = get16(frame + 12);
	if (is_vlan(type)) {
		if (length < 22)
			return false;
		packet->tags = true;
		at = is_vlan(get16(frame + 16)) ? 22 : 18;
		type = get16(frame + at - 2);
	}
	packet->network = at;
	packet->v6 = type == 0x86dd;
	if ((!packet->v6 && type != 0x0800) || at + (packet->v6 ? 40 : 20) > length ||
	    frame[at] >> 4 != (packet->v6 ? 6 : 4))
		return false;
	packet->source = ip_read(frame + at + (packet->v6 ? 8 : 12), packet->v6);
	packet->destination = ip_read(frame + at + (packet->v6 ? 24 : 16), packet->v6);
	packet->protocol = frame[at + (packet->v6 ? 6 : 9)];
	packet->ttl = frame[at + (packet->v6 ? 7 : 8)];
	packet->bytes = get16(frame + at + (packet->v6 ? 4 : 2)) + (packet->v6 ? 40 : 0);
	packet->transport = at + (packet->v6 ? 40 : (frame[at] & 15) * 4);
	if (!packet->v6) {
		if ((frame[at] & 15) < 5 || !options_read(packet))
			return false;
		later = get16(frame + at + 6) & 0x1fff;
		first = !later && get16(frame + at + 6) & 0x2000;
		packet->fragment_id = get16(frame + at + 4);
	} else if (packet->protocol != TCP && packet->protocol != UDP &&
		   !chain_read(packet, &packet->transport, &packet->protocol, &later, &first,
			       &packet->fragment_id)) {
		return false;
	}
	packet->headers = packet->transport - at;
	packet->kind = later ? LATER : first ? FIRST : WHOLE;
	if (packet->protocol == TCP || packet->protocol == UDP)
		return later || ports_read(packet);
	return !later && !first && packet->protocol == (packet->v6 ? ICMP6 : ICMP) &&
	       icmp_read(packet);
}
