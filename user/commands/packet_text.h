/* SPDX-License-Identifier: GPL-2.0 */
/* Frames taken apart and written down, for people. */
#ifndef XLB_PACKET_TEXT_H
#define XLB_PACKET_TEXT_H

#include <net/ethernet.h>

#include "model/model.h"

#define PACKET_LAYERS_MAX 4
#define PACKET_TEXT_MAX 1024
#define MAC_TEXT_MAX 18

/* An IP header and what comes right behind it. */
struct packet_layer {
	struct endpoint source, destination;	/* port 0 where there is none to be seen */
	uint8_t protocol;		/* behind the extension headers */
	uint8_t ttl;
	bool quoted;			/* in an ICMP error: may be cut short */
	bool fragment;			/* not all of a packet; `offset`: where it belongs */
	uint16_t offset;
	bool ports;			/* TCP or UDP, as far as the ports */
	uint8_t flags;			/* TCP */
	uint16_t mss;			/* TCP option; 0: none */
	uint32_t sequence, acknowledgment;
	bool icmp;			/* as far as type and code */
	uint8_t type, code;
	uint32_t rest;			/* of the ICMP header: its second word */
	size_t payload;			/* bytes behind TCP, UDP or ICMP, by the IP header */
};

struct packet_view {
	bool no_link;			/* its addresses are not written yet */
	uint8_t to[ETH_ALEN], from[ETH_ALEN];
	uint16_t vlan[2];
	size_t n_vlans;
	uint16_t type;			/* ethertype, behind the tags */
	size_t length;
	/* the outermost first: tunnels, ICMP errors and what they quote */
	struct packet_layer layers[PACKET_LAYERS_MAX];
	size_t n_layers;
};

/* UDP to gue_port is taken for a tunnel; 0: none is. */
void packet_view(const void *frame, size_t length, uint16_t gue_port, struct packet_view *ret_view);
/* One line, much as tcpdump writes it. Returns `text`. */
const char *packet_text(const struct packet_view *view, char text[PACKET_TEXT_MAX]);
/* "SYN" or "SYN, ACK" */
const char *packet_flags(uint8_t flags, char text[PACKET_TEXT_MAX]);
/* The bit of a flag; 0: there is no such flag. */
uint8_t packet_flag(const char *name, size_t length);
const char *mac_text(const uint8_t mac[ETH_ALEN], char text[MAC_TEXT_MAX]);

#endif
