/* SPDX-License-Identifier: GPL-2.0 */
/* The frame that `trace` runs the program on: made, or read from a file. */
#ifndef XLB_TRACE_FRAME_H
#define XLB_TRACE_FRAME_H

#include "datapath/trace.h"

struct trace_frame {
	size_t length;
	uint8_t bytes[TRACE_FRAME_MAX];
};

/* TCP (with these flags, and as a SYN with an MSS) or UDP without payload, checksums right. */
void trace_frame_make(const struct endpoint *source, const struct endpoint *destination,
		      uint8_t flags, const uint8_t device[ETH_ALEN], struct trace_frame *ret_frame);
/*
 * The first packet of a file as tcpdump -w writes it; "-" is standard input. *ret_more: there are
 * others behind it.
 */
int trace_frame_read(const char *path, struct trace_frame *ret_frame, bool *ret_more,
		     struct error *err);

#endif
