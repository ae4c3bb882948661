/* SPDX-License-Identifier: GPL-2.0 */
/* What `trace` prints: step by step for people, or one JSON object. */
#ifndef XLB_TRACE_REPORT_H
#define XLB_TRACE_REPORT_H

#include "commands/packet_text.h"
#include "commands/trace_frame.h"

struct trace_report {
	struct datapath *dp;
	uint32_t ifindex;		/* where it came in */
	const struct trace *trace;
	struct packet_view in, out;
};

/* Returns an exit status. */
int trace_report_text(const struct trace_report *report);
int trace_report_json(const struct trace_report *report);

/* What became of it, in a word; enum names of XDP in small letters. */
const char *trace_outcome(const struct trace *trace);
const char *trace_action(const struct trace *trace);
/* Whether the tc program of the device sends on what leaves; else XDP does, or it is for this node. */
bool trace_by_tc(const struct trace *trace);

/* How the packet that left differs from the one that came. */
struct trace_difference {
	const char *what;
	char before[ENDPOINT_TEXT_MAX], after[ENDPOINT_TEXT_MAX];	/* "": there was none */
};
#define TRACE_DIFFERENCES_MAX 16
size_t trace_differences(const struct trace_report *report,
			 struct trace_difference differences[TRACE_DIFFERENCES_MAX]);
/* Why it was dropped or refused, or has no service. NULL: it has one, and goes its way. */
const char *trace_reason(const struct trace_report *report, char text[PACKET_TEXT_MAX]);
const char *trace_device(uint32_t ifindex, char text[ENDPOINT_TEXT_MAX]);
const char *trace_flow_state(const struct trace_flow *flow);
const char *trace_choice(enum trace_choice choice);

#endif
