// SPDX-License-Identifier: GPL-2.0
#include "commands/trace_frame.h"

#include <arpa/inet.h>
#include <byteswap.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include <xlb/checksum.h>

#include "base/cleanup.h"

/* ---- made ---- */

enum {
	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	TTL = 64,
	TCP_HEADER = 20,
	TCP_SYN = 0x02,
	MSS_OPTION = 4,
	WINDOW = 64240,
};

/* Somebody who is not there; who sent it is of no meaning. */
static const uint8_t sender[ETH_ALEN] = { 0x02, 0, 0, 0, 0, 0x01 };

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

/* The sum of words in network order; an odd byte at the end counts as if a zero followed. */
static uint64_t sum_words(const uint8_t *at, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i + 1 < n; i += 2)
		sum += at[i] << 8 | at[i + 1];
	return n % 2 ? sum + (at[n - 1] << 8) : sum;
}

static void put_network(uint8_t *at, const struct endpoint *source,
			const struct endpoint *destination, size_t payload)
{
	if (source->family == XLB_IPV6) {
		at[0] = 0x60;
		put16(at + 4, payload);
		at[6] = destination->protocol;
		at[7] = TTL;
		memcpy(at + 8, &source->address, 16);
		memcpy(at + 24, &destination->address, 16);
		return;
	}
	at[0] = 0x45;
	put16(at + 2, IPV4_HEADER + payload);
	put16(at + 6, 0x4000); /* don't fragment */
	at[8] = TTL;
	at[9] = destination->protocol;
	memcpy(at + 12, &source->address, 4);
	memcpy(at + 16, &destination->address, 4);
	put16(at + 10, ~xlb_sum_fold(sum_words(at, IPV4_HEADER)));
}

/* Returns how long it is. */
static size_t put_transport(uint8_t *at, const struct endpoint *source,
			    const struct endpoint *destination, uint8_t flags)
{
	bool tcp = destination->protocol == XLB_TCP, syn = tcp && flags & TCP_SYN;
	size_t length = tcp ? TCP_HEADER + (syn ? MSS_OPTION : 0) : 8;

	put16(at, source->port);
	put16(at + 2, destination->port);
	if (!tcp) {
		put16(at + 4, length);
		return length;
	}
	at[7] = 1; /* sequence */
	at[11] = flags & 0x10 ? 1 : 0;
	at[12] = length / 4 << 4;
	at[13] = flags;
	put16(at + 14, WINDOW);
	if (syn) {
		at[TCP_HEADER] = 2;
		at[TCP_HEADER + 1] = MSS_OPTION;
		put16(at + TCP_HEADER + 2, source->family == XLB_IPV6 ? 1440 : 1460);
	}
	return length;
}

void trace_frame_make(const struct endpoint *source, const struct endpoint *destination,
		      uint8_t flags, const uint8_t device[ETH_ALEN], struct trace_frame *ret_frame)
{
	bool ipv6 = source->family == XLB_IPV6;
	size_t header = ipv6 ? IPV6_HEADER : IPV4_HEADER, length;
	struct trace_frame frame = {};
	uint8_t *network = frame.bytes + ETH_HLEN, *transport = network + header;
	uint64_t sum;
	uint16_t check;

	memcpy(frame.bytes, device, ETH_ALEN);
	memcpy(frame.bytes + ETH_ALEN, sender, ETH_ALEN);
	put16(frame.bytes + 2 * ETH_ALEN, ipv6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP);
	length = put_transport(transport, source, destination, flags);
	put_network(network, source, destination, length);
	/* With the pseudo header: addresses, protocol and length. */
	sum = sum_words(network + (ipv6 ? 8 : 12), ipv6 ? 32 : 8) + destination->protocol + length +
	      sum_words(transport, length);
	check = ~xlb_sum_fold(sum);
	put16(transport + (destination->protocol == XLB_TCP ? 16 : 6), check ? check : 0xffff);
	frame.length = ETH_HLEN + header + length;
	*ret_frame = frame;
}

/* ---- read ---- */

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t unused[3];
	uint32_t link;
};

struct packet_header {
	uint32_t time[2];
	uint32_t captured, length;
};

#define MAGIC 0xa1b2c3d4      /* times in microseconds, */
#define MAGIC_NANO 0xa1b23c4d /* or in nanoseconds */
#define MAGIC_NEXT 0x0a0d0d0a /* pcapng, which is another format */
#define LINK_ETHERNET 1

static void close_file(FILE **file)
{
	if (*file && *file != stdin)
		fclose(*file);
}

static int read_header(FILE *file, const char *path, bool *ret_swapped, struct error *err)
{
	struct file_header header = {};
	bool swapped;

	if (fread(&header, sizeof(header), 1, file) != 1) {
		if (ferror(file))
			return error_set(err, errno, "%s: %s", path, strerror(errno));
		return error_set(err, EINVAL, "%s: too short for a file of packets (pcap)", path);
	}
	if (header.magic == MAGIC_NEXT)
		return error_set(err, EINVAL,
				 "%s: is pcapng; 'tcpdump -r %s -w -' makes pcap of it", path,
				 path);
	swapped = header.magic == bswap_32(MAGIC) || header.magic == bswap_32(MAGIC_NANO);
	if (!swapped && header.magic != MAGIC && header.magic != MAGIC_NANO)
		return error_set(err, EINVAL, "%s: no file of packets (pcap)", path);
	if (swapped)
		header.link = bswap_32(header.link);
	if ((header.link & 0xffff) != LINK_ETHERNET)
		return error_set(err, EINVAL, "%s: packets of link type %u, not of Ethernet (%u)",
				 path, header.link & 0xffff, LINK_ETHERNET);
	*ret_swapped = swapped;
	return 0;
}

static int read_packet(FILE *file, const char *path, bool swapped, struct trace_frame *frame,
		       struct error *err)
{
	struct packet_header header;

	if (fread(&header, sizeof(header), 1, file) != 1)
		return error_set(err, EINVAL, "%s: there is no packet in it", path);
	if (swapped) {
		header.captured = bswap_32(header.captured);
		header.length = bswap_32(header.length);
	}
	if (header.captured < header.length)
		return error_set(err, EINVAL,
				 "%s: only %u of %u bytes of the packet were captured; 'tcpdump -s "
				 "0' takes them all",
				 path, header.captured, header.length);
	if (header.captured < ETH_HLEN || header.captured > TRACE_FRAME_MAX)
		return error_set(err, EINVAL, "%s: a packet of %u bytes, not of %d to %d", path,
				 header.captured, ETH_HLEN, TRACE_FRAME_MAX);
	if (fread(frame->bytes, header.captured, 1, file) != 1)
		return error_set(err, EINVAL, "%s: ends in the middle of a packet", path);
	frame->length = header.captured;
	return 0;
}

int trace_frame_read(const char *path, struct trace_frame *ret_frame, bool *ret_more,
		     struct error *err)
{
	bool is_stdin = !strcmp(path, "-"), swapped = false;
	_cleanup_(close_file) FILE *file = is_stdin ? stdin : fopen(path, "re");
	struct trace_frame frame = {};
	int r;

	if (!file)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	if (is_stdin)
		path = "standard input";
	r = read_header(file, path, &swapped, err);
	if (!r)
		r = read_packet(file, path, swapped, &frame, err);
	if (r)
		return r;
	*ret_more = getc(file) != EOF;
	*ret_frame = frame;
	return 0;
}
