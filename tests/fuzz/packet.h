/* SPDX-License-Identifier: GPL-2.0 */
/* A packet as the model reads it (read.c) and writes it (write.c). */
#ifndef XLB_FUZZ_PACKET_H
#define XLB_FUZZ_PACKET_H

#include <string.h>

#include "model.h"

enum { TCP = 6, UDP = 17, ICMP = 1, ICMP6 = 58, FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum kind { WHOLE, FIRST, LATER, ERROR };

/* A packet, read. Offsets are from the start of the frame. */
struct packet {
	const uint8_t *frame;
	unsigned int length, network, transport, bytes, headers;
	struct ip source, destination, outer_source, outer_destination;
	uint16_t source_port, destination_port;
	uint8_t protocol, flags, ttl;
	bool v6, tags, echo, partial;
	enum kind kind;
	uint32_t fragment_id;
	const struct model_fragment *held;	/* FIRST: what came before it, or NULL */
	unsigned int quote, quote_transport;	/* ERROR */
};

static inline uint16_t get16(const uint8_t *at)
{
	return at[0] << 8 | at[1];
}

static inline uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static inline void put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static inline unsigned int ip_bytes(const struct ip *ip)
{
	return ip->v6 ? 16 : 4;
}

static inline struct ip ip_read(const uint8_t *at, bool v6)
{
	struct ip ip = { .v6 = v6 };

	memcpy(ip.byte, at, v6 ? 16 : 4);
	return ip;
}

/* read.c: fills in the packet; false: none that could be ours. */
bool packet_read(const uint8_t *frame, unsigned int length, struct packet *packet);

/* Whether its checksum is the sum of its pseudo header: left to a device, or so by chance. */
bool packet_is_partial(const struct packet *packet);
/* Makes it so, if the frame is such a packet. */
void partial_write(uint8_t *frame, unsigned int length);

/* write.c: frames that leave. */
void out_begin(const struct packet *packet, const uint8_t *mac, const struct model *model,
	       struct frame_out *out);
void hop_less(uint8_t *network, bool v6);
void out_translate(const struct packet *packet, const struct ip *source, uint16_t source_port,
		   const struct ip *destination, uint16_t destination_port, struct frame_out *out);
void out_translate_error(const struct packet *packet, const struct ip *source,
			 uint16_t source_port, const struct ip *destination,
			 uint16_t destination_port, struct frame_out *out);
/* The same into a header of the addresses' family, which is the other one (RFC 7915). */
void out_cross(const struct packet *packet, const struct ip *source, uint16_t source_port,
	       const struct ip *destination, uint16_t destination_port,
	       const struct frame_out *actual, struct frame_out *out);
void mss_lower(const struct packet *packet, uint16_t most, struct frame_out *out);
/*
 * Leaves a frame that is ready to tc: with the link's addresses as they came, with its tag or without its
 * two tags, to be fragmented to `mtu` if that is not 0. `addresses`: whether they were translated.
 * `tunnel`: bytes of it in front.
 */
void out_by_kernel(const struct packet *packet, bool addresses, unsigned int tunnel,
		   unsigned int mtu, struct frame_out *out);
/* Leaves a frame to tc as it came, without tags, to be kept. */
void out_kept(const struct packet *packet, const struct model_fragment *datagram,
	      struct frame_out *out);
void out_reset(const struct packet *packet, struct frame_out *out);
void out_error(const struct packet *packet, uint8_t type, uint8_t code, uint32_t rest,
	       struct frame_out *out);
void out_echo(const struct packet *packet, struct frame_out *out);
/* NULL, or what is wrong with what the program chose. */
const char *out_encapsulate(const struct packet *packet, const struct model_service *service,
			    const struct model_backend *backend, uint8_t forward,
			    const struct frame_out *actual, struct frame_out *out);

#endif
