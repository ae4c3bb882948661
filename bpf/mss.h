/* SPDX-License-Identifier: GPL-2.0 */
/* The largest segment that a SYN announces (RFC 9293, 3.7.1), lowered to what a service allows. */
#ifndef XLB_MSS_H
#define XLB_MSS_H

#include "maps.h"
#include "packet.h"
#include "rewrite.h"

#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define TCP_OPTIONS_MAX 8	/* that are looked through; NOPs count */

/* Where the TCP header has an MSS option that says more than that; 0: nowhere. */
static __always_inline __u32 mss_find(struct packet *packet, void *data, void *end, __u16 most)
{
	__u32 transport = packet->network + packet->headers, offset, last;
	struct tcphdr *tcp = header_at(data, transport);

	if ((void *)(tcp + 1) > end)
		return 0;
	packet->cursor = transport + sizeof(*tcp);
	last = transport + tcp->doff * 4;
	for (int i = 0; i < TCP_OPTIONS_MAX; i++) {
		__u8 *option;

		offset = RECALL(packet->cursor);
		option = header_at(data, offset);
		if (offset + 4 > last || (void *)option + 4 > end || option[0] == TCP_OPTION_END)
			return 0;
		if (option[0] == TCP_OPTION_NOP) {
			packet->cursor = offset + 1;
			continue;
		}
		if (option[0] != TCP_OPTION_MSS || option[1] != 4) {
			packet->cursor = offset + (option[1] < 2 ? 2 : option[1]);
			continue;
		}
		return ((__u16)option[2] << 8 | option[3]) > most ? offset : 0;
	}
	return 0;
}

/* An MSS as the checksum sees it: at an odd offset from it bytes have changed places. */
static __always_inline __u16 mss_summed(__be16 mss, __u32 offset, const struct packet *packet)
{
	return (offset - packet->network - packet->headers) & 1 ? __builtin_bswap16(mss) : mss;
}

/* Lowers the MSS option of the packet in hand, if it has one and that is larger. */
static __always_inline void mss_lower(struct packet *packet, void *data, void *end, __u16 most)
{
	struct tcphdr *tcp = header_at(data, packet->network + packet->headers);
	__u32 offset = mss_find(packet, data, end, most);
	__u8 *option = header_at(data, offset);
	__be16 before;

	if (!offset || (void *)option + 4 > end || (void *)(tcp + 1) > end)
		return;
	before = bpf_htons((__u16)option[2] << 8 | option[3]);
	option[2] = most >> 8;
	option[3] = most;
	tcp->check = checksum_adjust(tcp->check,
				     (__u64)(__u16)~mss_summed(before, offset, packet) +
					     mss_summed(bpf_htons(most), offset, packet));
}

/* How much the service of the packet in hand allows; 0: any. */
static __always_inline __u16 mss_most(const struct packet *packet)
{
	struct xlb_service_options *options =
		bpf_map_lookup_elem(&service_options, &packet->outcome.service);

	return options ? options->mss : 0;
}

/* Lowers the MSS of a SYN if its service wants it lower. */
__weak __noinline int xdp_check_mss(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet *packet = packet_get();
	__u16 most = packet ? mss_most(packet) : 0;

	if (packet && most)
		mss_lower(packet, data, end, most);
	return 0;
}

#endif
