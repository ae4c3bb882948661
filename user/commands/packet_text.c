// SPDX-License-Identifier: GPL-2.0
/* A frame in one line, in the words of tcpdump. */
#include "commands/packet_text.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const flag_names[] = { "FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR" };
static const char flag_letters[] = "FSRP.UEW"; /* tcpdump's */

uint8_t packet_flag(const char *name, size_t length)
{
	for (int i = 0; i < 8; i++)
		if (strlen(flag_names[i]) == length && !strncasecmp(flag_names[i], name, length))
			return 1 << i;
	return 0;
}

static void add(char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(char *text, const char *format, ...)
{
	size_t length = strlen(text);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text + length, PACKET_TEXT_MAX - length, format, arguments);
	va_end(arguments);
}

const char *packet_flags(uint8_t flags, char text[PACKET_TEXT_MAX])
{
	*text = '\0';
	for (int i = 0; i < 8; i++)
		if (flags & 1 << i)
			add(text, "%s%s", *text ? ", " : "", flag_names[i]);
	if (!*text)
		add(text, "none");
	return text;
}

const char *mac_text(const uint8_t mac[ETH_ALEN], char text[MAC_TEXT_MAX])
{
	snprintf(text, MAC_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	return text;
}

static void add_endpoint(char *text, const struct packet_layer *layer,
			 const struct endpoint *endpoint)
{
	char address[ENDPOINT_TEXT_MAX];

	add(text, "%s", address_format(&endpoint->address, endpoint->family, address));
	if (layer->ports)
		add(text, ".%u", endpoint->port);
}

static void add_tcp(char *text, const struct packet_layer *layer)
{
	add(text, "Flags [");
	for (int i = 0; i < 8; i++)
		if (layer->flags & 1 << i)
			add(text, "%c", flag_letters[i]);
	add(text, "%s], seq %u", layer->flags ? "" : "none", layer->sequence);
	if (layer->flags & 0x10)
		add(text, ", ack %u", layer->acknowledgment);
	if (layer->mss)
		add(text, ", options [mss %u]", layer->mss);
	add(text, ", length %zu", layer->payload);
}

/* The kinds that xlb sends or translates; NULL: others. */
static const char *icmp_name(const struct packet_layer *layer)
{
	if (layer->source.family == XLB_IPV6) {
		switch (layer->type) {
		case 1:
			return layer->code == 4 ? "port unreachable" : "destination unreachable";
		case 2:
			return "packet too big";
		case 3:
			return "time exceeded in-transit";
		case 128:
			return "echo request";
		case 129:
			return "echo reply";
		}
		return NULL;
	}
	switch (layer->type) {
	case 0:
		return "echo reply";
	case 3:
		return layer->code == 3 ? "port unreachable" :
		       layer->code == 4 ? "need to frag" :
					  "destination unreachable";
	case 8:
		return "echo request";
	case 11:
		return "time exceeded in-transit";
	}
	return NULL;
}

static void add_icmp(char *text, const struct packet_layer *layer)
{
	const char *name = icmp_name(layer);
	bool ipv6 = layer->source.family == XLB_IPV6;

	add(text, "ICMP%s ", ipv6 ? "6," : "");
	if (name)
		add(text, "%s", name);
	else
		add(text, "type %u, code %u", layer->type, layer->code);
	if (name && strstr(name, "echo"))
		add(text, ", id %u, seq %u", layer->rest >> 16, layer->rest & 0xffff);
	else if (name && (ipv6 ? layer->type == 2 : layer->type == 3 && layer->code == 4))
		add(text, ", mtu %u", ipv6 ? layer->rest : layer->rest & 0xffff);
	add(text, ", length %zu", layer->payload + 8);
}

static void add_layer(char *text, const struct packet_layer *layer, bool last)
{
	add(text, "IP%s (%s %u) ", layer->source.family == XLB_IPV6 ? "6" : "",
	    layer->source.family == XLB_IPV6 ? "hlim" : "ttl", layer->ttl);
	add_endpoint(text, layer, &layer->source);
	add(text, " > ");
	add_endpoint(text, layer, &layer->destination);
	add(text, ": ");
	if (layer->fragment)
		add(text, "frag %u, ", layer->offset);
	if (layer->ports && layer->protocol == IPPROTO_TCP)
		add_tcp(text, layer);
	else if (layer->ports)
		add(text, "UDP, length %zu", layer->payload);
	else if (layer->icmp)
		add_icmp(text, layer);
	else if (last)
		add(text, "ip-proto-%u, length %zu", layer->protocol, layer->payload);
	if (!last)
		add(text, "%s", layer->ports || layer->icmp ? ": " : "");
}

const char *packet_text(const struct packet_view *view, char text[PACKET_TEXT_MAX])
{
	char from[MAC_TEXT_MAX], to[MAC_TEXT_MAX];

	*text = '\0';
	if (!view->no_link)
		add(text, "%s > %s, ", mac_text(view->from, from), mac_text(view->to, to));
	for (size_t i = 0; i < view->n_vlans; i++)
		add(text, "vlan %u, ", view->vlan[i]);
	add(text, "length %zu: ", view->length);
	for (size_t i = 0; i < view->n_layers; i++)
		add_layer(text, &view->layers[i], i == view->n_layers - 1);
	if (!view->n_layers)
		add(text, "ethertype 0x%04x", view->type);
	return text;
}
