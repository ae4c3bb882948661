/* SPDX-License-Identifier: GPL-2.0 */
/* What the bench and its wrapper program agree on. */
#ifndef XLB_BENCH_PACKET_H
#define XLB_BENCH_PACKET_H

#include <linux/types.h>

#define BENCH_FRAME 128		/* bytes of every frame */
#define BENCH_TEMPLATE 78	/* bytes that are written anew: Ethernet and IPv6, TCP, a multiple of 8 */

/* How packets differ. */
enum bench_mode {
	BENCH_CLIENTS4,		/* source address and port from a counter */
	BENCH_CLIENTS6,
	BENCH_REPLIES4,		/* backend's address and destination port from `replies` */
	BENCH_SAME,		/* not at all */
};

/* A reply that a flow expects; network order. */
struct bench_reply {
	__u32 source;
	__u16 source_port;
	__u16 destination_port;
};

#endif
