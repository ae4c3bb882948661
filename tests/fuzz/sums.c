// SPDX-License-Identifier: GPL-2.0
/*
 * The checksums of what leaves, added up again: they are as right as those of what came in, each off by as
 * much as its own was; new headers and answers have right ones. Knows nothing of the model, so that the two
 * cannot be wrong together, and nothing of how the program came by a checksum.
 */
#include "sums.h"

#include "packet.h"

enum { IPV4_IN = 4, IPV6_IN = 41, GUE_PORTS = 32768 };

/* One IP header and what is in it, as far as it has checksums. What they are off by is modulo 65535. */
struct part {
	bool v6;
	const uint8_t *ip, *inside;	/* behind extension headers; */
	unsigned int bytes, length;	/* of all by the IP header, and so many of it inside */
	uint8_t protocol;
	bool later;			/* a fragment: no transport header */
	bool summed;			/* the transport has a checksum */
	uint32_t header_off, off, quoted_off;
};

static uint32_t sum_of(const uint8_t *at, unsigned int n)
{
	uint32_t sum = 0;

	for (unsigned int i = 0; i < n; i++)
		sum += i & 1 ? at[i] : at[i] << 8;
	return sum % 0xffff;
}

static bool part_headers(struct part *part, unsigned int n)
{
	const uint8_t *ip = part->ip;
	unsigned int header, fragment = 0;

	if (n < 20)
		return false;
	part->v6 = ip[0] >> 4 == 6;
	part->bytes = part->v6 ? 40 + get16(ip + 4) : get16(ip + 2);
	header = part->v6 ? 40 : (ip[0] & 15) * 4;
	if (part->bytes > n || header > part->bytes)
		return false;
	part->protocol = ip[part->v6 ? 6 : 9];
	if (!part->v6) {
		part->header_off = sum_of(ip, header);
		fragment = get16(ip + 6) & 0x1fff;
	}
	while (part->v6 && header + 8 <= part->bytes && !fragment) {
		const uint8_t *next = ip + header;

		if (part->protocol == 0 || part->protocol == 43 || part->protocol == 60)
			header += 8 * (next[1] + 1);
		else if (part->protocol == 51)
			header += 4 * (next[1] + 2);
		else if (part->protocol == 44)
			header += 8, fragment = get16(next + 2) >> 3;
		else
			break;
		part->protocol = next[0];
	}
	if (header > part->bytes)
		return false;
	part->later = fragment;
	part->inside = ip + header;
	part->length = part->bytes - header;
	return true;
}

/* What an error quotes may be cut; of its own checksums only that of an IPv4 header can be added up. */
static void part_quote(struct part *part)
{
	const uint8_t *quote = part->inside + 8;
	unsigned int header;

	if (part->v6 || part->length < 28 || (part->inside[0] != 3 && part->inside[0] != 11 &&
					     part->inside[0] != 12))
		return;
	header = (quote[0] & 15) * 4;
	if (8 + header <= part->length)
		part->quoted_off = sum_of(quote, header);
}

/* False: it says nothing that could be added up. */
static bool part_read(const uint8_t *ip, unsigned int n, struct part *part)
{
	*part = (struct part){ .ip = ip };
	if (!part_headers(part, n))
		return false;
	if (part->later || part->length < 8)
		return true;
	part->summed = part->protocol == TCP || part->protocol == ICMP || part->protocol == ICMP6 ||
		       (part->protocol == UDP && get16(part->inside + 6));
	if (!part->summed)
		return true;
	part->off = sum_of(part->inside, part->length);
	if (part->protocol != ICMP)
		part->off += sum_of(ip + (part->v6 ? 8 : 12), part->v6 ? 32 : 8) + part->protocol +
			     part->length;
	part->off %= 0xffff;
	if (part->protocol == ICMP)
		part_quote(part);
	return true;
}

/* Of a frame with an IP header behind its tags. */
static unsigned int link_bytes(const uint8_t *frame)
{
	unsigned int bytes = 14;

	while (get16(frame + bytes - 2) == 0x8100 || get16(frame + bytes - 2) == 0x88a8)
		bytes += 4;
	return bytes;
}

/* What is in a tunnel's header; NULL: it is none, but the packet itself. */
static const uint8_t *tunnelled(const struct part *in, const struct part *out)
{
	unsigned int header = out->v6 ? 40 : 20;

	if (out->protocol == IPV4_IN || out->protocol == IPV6_IN)
		return out->ip + header;
	if (out->protocol == UDP && out->bytes == in->bytes + header + 8 &&
	    get16(out->inside) >= GUE_PORTS)
		return out->ip + header + 8;
	return NULL;
}

/* Whether it is not the packet that came, but what we say to it; an echo is sent back as it is. */
static bool is_answer(const struct part *in, const struct part *out)
{
	unsigned int at = out->v6 ? 8 : 12, n = out->v6 ? 16 : 4;

	if (in->v6 != out->v6 || in->later)
		return false;
	if (out->protocol == (out->v6 ? ICMP6 : ICMP) && in->protocol != out->protocol)
		return true;
	return in->protocol == TCP && out->protocol == TCP && out->inside[13] & RST &&
	       !memcmp(in->ip + at, out->ip + at + n, n) && !memcmp(in->ip + at + n, out->ip + at, n);
}

/* A header with a checksum of ours in front of the packet. */
static const char *outer_wrong(const struct part *out, const struct part *inner)
{
	if (out->header_off)
		return "the checksum of the outer IPv4 header";
	if (out->protocol == UDP && out->summed &&
	    out->off != (inner->off + inner->header_off) % 0xffff)
		return "the checksum of the outer UDP header";
	return NULL;
}

const char *sums_wrong(const uint8_t *in_frame, unsigned int in_length, const uint8_t *frame,
		       unsigned int length)
{
	unsigned int link = link_bytes(in_frame);
	struct part in, out, inner;
	const uint8_t *inside;
	const char *wrong;

	if (!part_read(in_frame + link, in_length - link, &in))
		return "the lengths of what came in";
	link = link_bytes(frame);
	if (!part_read(frame + link, length - link, &out))
		return "the lengths of what left";
	if (is_answer(&in, &out))
		return out.header_off || out.off || !out.summed ? "a checksum of the answer" : NULL;
	inside = tunnelled(&in, &out);
	if (inside) {
		if (!part_read(inside, frame + length - inside, &inner))
			return "the lengths in the tunnel";
		wrong = outer_wrong(&out, &inner);
		if (wrong)
			return wrong;
		out = inner;
	}
	if (!out.v6 && out.header_off != (in.v6 ? 0 : in.header_off))
		return "the checksum of the IPv4 header";
	if (out.later)
		return NULL;
	if (out.summed != in.summed || out.off != in.off)
		return "the checksum of what is in the packet";
	return out.quoted_off != in.quoted_off ? "the checksum of the quoted header" : NULL;
}
