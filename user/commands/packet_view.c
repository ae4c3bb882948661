// SPDX-License-Identifier: GPL-2.0
/*
 * Taking a frame apart; declared in packet_text.h. It is meant for frames that xlb made or was
 * given, so it is brief: what it does not know, it leaves out. Nothing beyond the frame is read.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "commands/packet_text.h"

enum {
	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	TCP_HEADER = 20,
	UDP_HEADER = 8,
	ICMP_HEADER = 8,
	EXTENSIONS_MAX = 8,
};

/* What is left of a frame. */
struct rest {
	const uint8_t *at;
	size_t n;
};

static bool skip(struct rest *rest, size_t n)
{
	if (rest->n < n)
		return false;
	rest->at += n;
	rest->n -= n;
	return true;
}

static uint16_t word16(const uint8_t *at)
{
	return at[0] << 8 | at[1];
}

static uint32_t word32(const uint8_t *at)
{
	return (uint32_t)word16(at) << 16 | word16(at + 2);
}

/* TCP's option of kind 2. */
static uint16_t mss_of(const uint8_t *options, size_t n)
{
	for (size_t i = 0; i + 1 < n && options[i];) {
		if (options[i] == 2 && options[i + 1] == 4 && i + 4 <= n)
			return word16(options + i + 2);
		if (options[i] != 1 && options[i + 1] < 2)
			return 0;
		i += options[i] == 1 ? 1 : options[i + 1];
	}
	return 0;
}

/* Less than nothing is nothing: lengths in headers may be lies. */
static size_t minus(size_t a, size_t b)
{
	return a > b ? a - b : 0;
}

static void view_ports(struct packet_layer *layer, struct rest rest)
{
	size_t header = UDP_HEADER;

	if (rest.n < 8)
		return;
	layer->ports = true;
	layer->source.port = word16(rest.at);
	layer->destination.port = word16(rest.at + 2);
	if (layer->protocol == IPPROTO_TCP) {
		layer->sequence = word32(rest.at + 4);
		header = TCP_HEADER;
		if (rest.n >= TCP_HEADER) {
			header = rest.at[12] >> 4 << 2;
			layer->acknowledgment = word32(rest.at + 8);
			layer->flags = rest.at[13];
		}
		if (header > TCP_HEADER && header <= rest.n)
			layer->mss = mss_of(rest.at + TCP_HEADER, header - TCP_HEADER);
	}
	layer->payload = minus(layer->payload, header);
}

static void view_icmp(struct packet_layer *layer, struct rest rest)
{
	if (rest.n < ICMP_HEADER)
		return;
	layer->icmp = true;
	layer->type = rest.at[0];
	layer->code = rest.at[1];
	layer->rest = word32(rest.at + 4);
	layer->payload = minus(layer->payload, ICMP_HEADER);
}

static bool view_ipv4(struct packet_layer *layer, struct rest *rest)
{
	const uint8_t *at = rest->at;
	size_t header;

	if (rest->n < IPV4_HEADER || at[0] >> 4 != 4)
		return false;
	header = (at[0] & 15) * 4;
	layer->source.family = layer->destination.family = XLB_IPV4;
	memcpy(&layer->source.address, at + 12, 4);
	memcpy(&layer->destination.address, at + 16, 4);
	layer->ttl = at[8];
	layer->protocol = at[9];
	layer->offset = (word16(at + 6) & 0x1fff) * 8;
	layer->fragment = word16(at + 6) & 0x3fff;
	layer->payload = minus(word16(at + 2), header);
	return header >= IPV4_HEADER && skip(rest, header);
}

/* Steps over extension headers. */
static bool view_extensions(struct packet_layer *layer, struct rest *rest)
{
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		size_t length;

		switch (layer->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			length = rest->n < 2 ? 8 : 8 + rest->at[1] * 8;
			break;
		case IPPROTO_AH:
			length = rest->n < 2 ? 8 : 8 + rest->at[1] * 4;
			break;
		case IPPROTO_FRAGMENT:
			length = 8;
			if (rest->n >= length) {
				layer->offset = word16(rest->at + 2) & 0xfff8;
				layer->fragment = word16(rest->at + 2) & 0xfff9;
			}
			break;
		default:
			return true;
		}
		if (rest->n < length)
			return false;
		layer->protocol = rest->at[0];
		layer->payload = minus(layer->payload, length);
		skip(rest, length);
	}
	return false;
}

static bool view_ipv6(struct packet_layer *layer, struct rest *rest)
{
	const uint8_t *at = rest->at;

	if (rest->n < IPV6_HEADER || at[0] >> 4 != 6)
		return false;
	layer->source.family = layer->destination.family = XLB_IPV6;
	memcpy(&layer->source.address, at + 8, 16);
	memcpy(&layer->destination.address, at + 24, 16);
	layer->ttl = at[7];
	layer->protocol = at[6];
	layer->payload = word16(at + 4);
	return skip(rest, IPV6_HEADER) && view_extensions(layer, rest);
}

static bool is_icmp_error(const struct packet_layer *layer)
{
	if (layer->source.family == XLB_IPV6)
		return layer->type < 128;
	return layer->type == 3 || layer->type == 11 || layer->type == 12;
}

/* Where another IP header begins inside of this layer; false: none does. */
static bool next_layer(const struct packet_layer *layer, uint16_t gue_port, struct rest *rest)
{
	if (layer->protocol == IPPROTO_IPIP || layer->protocol == IPPROTO_IPV6)
		return true;
	if (layer->protocol == IPPROTO_UDP && gue_port && layer->destination.port == gue_port)
		return skip(rest, UDP_HEADER);
	return layer->icmp && is_icmp_error(layer) && skip(rest, ICMP_HEADER);
}

static void view_layers(struct packet_view *view, struct rest rest, uint16_t gue_port)
{
	bool ipv6 = view->type == ETHERTYPE_IPV6, quoted = false;

	if (view->type != ETHERTYPE_IP && !ipv6)
		return;
	while (view->n_layers < PACKET_LAYERS_MAX && rest.n) {
		struct packet_layer *layer = &view->layers[view->n_layers];

		/* Inside of another layer, the version tells. */
		if (view->n_layers)
			ipv6 = rest.at[0] >> 4 == 6;
		layer->quoted = quoted;
		if (!(ipv6 ? view_ipv6(layer, &rest) : view_ipv4(layer, &rest)))
			return;
		view->n_layers++;
		if (layer->offset)
			return;
		if (layer->protocol == IPPROTO_TCP || layer->protocol == IPPROTO_UDP)
			view_ports(layer, rest);
		if (layer->protocol == (ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
			view_icmp(layer, rest);
		quoted = layer->icmp;
		if (!next_layer(layer, gue_port, &rest))
			return;
	}
}

void packet_view(const void *frame, size_t length, uint16_t gue_port, struct packet_view *ret_view)
{
	struct packet_view view = { .length = length };
	struct rest rest = { frame, length };

	if (length >= ETH_HLEN) {
		memcpy(view.to, rest.at, ETH_ALEN);
		memcpy(view.from, rest.at + ETH_ALEN, ETH_ALEN);
		skip(&rest, 2 * ETH_ALEN);
		view.type = word16(rest.at);
		while ((view.type == ETHERTYPE_VLAN || view.type == 0x88a8) && view.n_vlans < 2 &&
		       rest.n >= 6) {
			view.vlan[view.n_vlans++] = word16(rest.at + 2) & 0xfff;
			skip(&rest, 4);
			view.type = word16(rest.at);
		}
		skip(&rest, 2);
		view_layers(&view, rest, gue_port);
	}
	*ret_view = view;
}
