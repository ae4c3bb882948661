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

/* Lowers the MSS option of the TCP header at that offset, if there is one and it is larger. */
static __always_inline void mss_lower(struct packet *packet, void *data, void *end, __u16 most)
{
	__u32 transport = packet->network + packet->headers, offset, last;
	struct tcphdr *tcp = header_at(data, transport);

	if ((void *)(tcp + 1) > end)
		return;
	packet->cursor = transport + sizeof(*tcp);
	last = transport + tcp->doff * 4;
	for (int i = 0; i < TCP_OPTIONS_MAX; i++) {
		__u8 *option;
		__u16 mss;

		offset = RECALL(packet->cursor);
		option = header_at(data, offset);
		if (offset + 4 > last || (void *)option + 4 > end || option[0] == TCP_OPTION_END)
			return;
		if (option[0] == TCP_OPTION_NOP) {
			packet->cursor = offset + 1;
			continue;
		}
		if (option[0] != TCP_OPTION_MSS || option[1] != 4) {
			packet->cursor = offset + (option[1] < 2 ? 2 : option[1]);
			continue;
		}
		mss = (__u16)option[2] << 8 | option[3];
		if (mss > most) {
			__u16 before = bpf_htons(mss), after = bpf_htons(most);

			/* As the sum sees them: at an odd offset bytes have changed places. */
			if ((offset - transport) & 1) {
				before = __builtin_bswap16(before);
				after = __builtin_bswap16(after);
			}
			option[2] = most >> 8;
			option[3] = most;
			tcp->check = checksum_adjust(tcp->check, (__u64)(__u16)~before + after);
		}
		return;
	}
}

/* Lowers the MSS of a SYN if its service wants it lower. */
__weak __noinline int xdp_check_mss(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet *packet = packet_get();
	struct xlb_service_options *options;

	if (!packet)
		return 0;
	options = bpf_map_lookup_elem(&service_options, &packet->outcome.service);
	if (options && options->mss)
		mss_lower(packet, data, end, options->mss);
	return 0;
}

#endif
