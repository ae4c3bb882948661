/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the loaded program would do with a packet, and why, without doing it.
 *
 * The program is loaded a second time, on maps of its own that nothing else sees, into which what
 * is pinned is copied; it is then run on one frame. So a trace changes no flow and no counter, and
 * what it tells is what the program did: nothing here decides anything again.
 */
#ifndef XLB_TRACE_H
#define XLB_TRACE_H

#include <net/ethernet.h>

#include "datapath/datapath.h"

#define TRACE_FRAME_MAX 3520 /* bytes: what the kernel runs a program on, in one buffer */
#define TRACE_OUT_MAX 4096

/* Why it is this backend. */
enum trace_choice {
	TRACE_CHOICE_NONE,	/* there is no backend, or nobody knows why it is that one */
	TRACE_CHOICE_FLOW,	/* the packet's flow is known, and began on it */
	TRACE_CHOICE_AFFINITY,	/* the client's last flow went there */
	TRACE_CHOICE_SLOT,	/* the client's place on the ring */
	TRACE_CHOICE_PREVIOUS,	/* what was at that place before the last change: an old flow */
	TRACE_CHOICE_TURN,	/* rr: its turn */
	TRACE_CHOICE_LOAD,	/* lc: of two at random the one with less */
	TRACE_CHOICE_RANDOM,
};

struct trace_hop {
	uint32_t ifindex;	/* 0: none was looked for, or there is none */
	bool stack;		/* the kernel's neighbour code sends it on */
	uint8_t destination[ETH_ALEN], source[ETH_ALEN];	/* unless `stack` */
	uint16_t mtu;		/* 0: not known */
};

struct trace_flow {
	bool there;
	union xlb_flow_value value;
	uint32_t age_s;		/* since its last packet, about */
};

struct trace {
	/* what was parsed: of ICMP errors and later fragments, what they belong to */
	bool parsed;		/* as far as ports */
	struct endpoint source, destination;	/* protocol as in the packet, whatever it is */
	const struct service *service;	/* owned by dp; NULL: none */
	bool reply;		/* from a backend to a client */
	const struct backend *backend;	/* part of service; NULL: none */
	uint8_t forward;	/* with backend: enum xlb_forward */
	bool new_flow;
	struct trace_flow before, after;	/* the flow, if one is kept */
	enum trace_choice choice;
	uint32_t slot, slots;	/* of the ring, for _SLOT, _PREVIOUS and _TURN */
	uint32_t load;		/* for _LOAD: flows that the backend had */
	bool forwarded, refused;	/* by the counters */
	bool kept;		/* by tc, until its first fragment comes */
	bool by_kernel;		/* tc sends it on though XDP could: see enum by_kernel in bpf/ */
	struct trace_hop hop;
	uint32_t action;	/* enum xdp_action */
	enum xlb_drop drop;	/* XLB_DROP_NONE: it was not dropped */
	size_t length;		/* of the frame that came out */
	uint8_t frame[TRACE_OUT_MAX];
};

/* A device that xlb is attached to: that of this name, or (NULL) the first. */
int datapath_trace_device(struct datapath *dp, const char *name, uint32_t *ret_ifindex,
			  uint8_t ret_address[ETH_ALEN], struct error *err);
/*
 * Runs the program on a frame as if it came in by that device. Needs the lock, so that the copy is
 * of one piece; changes nothing.
 */
int datapath_trace(struct datapath *dp, uint32_t ifindex, const void *frame, size_t length,
		   struct trace *ret_trace, struct error *err);

#endif
