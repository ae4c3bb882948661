// SPDX-License-Identifier: GPL-2.0
/* What both forms of a trace say; declared in trace_report.h. */
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include <linux/bpf.h>
#include <xlb/abi.h>

#include "commands/trace_report.h"

#define SERVICES_TOLD 8 /* of the same address */

static const char *const drop_reasons[XLB_DROP_REASONS] = {
	[XLB_DROP_FLOWS_FULL] = "there is no room for a new flow",
	[XLB_DROP_PORTS_EXHAUSTED] = "no source port towards this backend is free",
	[XLB_DROP_NO_ROUTE] = "the kernel has no route to where it should go",
	[XLB_DROP_ANSWER_FAILED] = "the answer does not fit the frame",
	[XLB_DROP_EMIT_FAILED] = "it could not be handed to the device, or to tc",
	[XLB_DROP_BAD_RING] = "the service's ring names a backend that does not exist",
	[XLB_DROP_MALFORMED] = "lengths in its headers disagree",
	[XLB_DROP_NO_FLOW] = "a RST to a flow that is not known, which nothing may answer",
	[XLB_DROP_SOURCE_RANGE] = "the client is in none of the service's source ranges",
	[XLB_DROP_BAD_SOURCE] = "no packet can rightly come from its source",
	[XLB_DROP_TOO_BIG] = "it does not fit, and nobody could be told",
	[XLB_DROP_TTL] = "no hop is left, and nobody could be told",
	[XLB_DROP_NO_FRAGMENT] = "its first fragment, which has the ports, did not come in time",
	[XLB_DROP_RATE_LIMITED] = "an answer was due, but too many were sent already",
};

const char *trace_outcome(const struct trace *trace)
{
	if (trace->drop)
		return "dropped";
	if (trace->forwarded)
		return "forwarded";
	if (trace->refused)
		return "refused";
	if (trace->kept)
		return "kept";
	switch (trace->action) {
	case XDP_TX:
		return "answered";
	case XDP_PASS:
		return "passed";
	default:
		return "aborted";
	}
}

bool trace_by_tc(const struct trace *trace)
{
	return trace->hop.stack || (trace->by_kernel && trace->hop.ifindex != XLB_LOOPBACK_IFINDEX);
}

const char *trace_action(const struct trace *trace)
{
	static const char *const names[] = {
		[XDP_ABORTED] = "aborted", [XDP_DROP] = "drop",		[XDP_PASS] = "pass",
		[XDP_TX] = "tx",	   [XDP_REDIRECT] = "redirect",
	};

	return trace->action < sizeof(names) / sizeof(*names) ? names[trace->action] : "unknown";
}

const char *trace_choice(enum trace_choice choice)
{
	static const char *const names[] = {
		[TRACE_CHOICE_NONE] = "unknown",      [TRACE_CHOICE_FLOW] = "flow",
		[TRACE_CHOICE_AFFINITY] = "affinity", [TRACE_CHOICE_SLOT] = "slot",
		[TRACE_CHOICE_PREVIOUS] = "previous", [TRACE_CHOICE_TURN] = "turn",
		[TRACE_CHOICE_LOAD] = "load",	      [TRACE_CHOICE_RANDOM] = "random",
	};

	return names[choice];
}

const char *trace_flow_state(const struct trace_flow *flow)
{
	static const char *const names[XLB_FLOW_STATES] = {
		[XLB_FLOW_FREE] = "free",
		[XLB_FLOW_CLAIMED] = "claimed",
		[XLB_FLOW_SYN] = "syn",
		[XLB_FLOW_ESTABLISHED] = "established",
		[XLB_FLOW_FIN_CLIENT] = "fin_client",
		[XLB_FLOW_FIN_BACKEND] = "fin_backend",
		[XLB_FLOW_CLOSED] = "closed",
		[XLB_FLOW_ONEWAY] = "oneway",
		[XLB_FLOW_STREAM] = "stream",
		[XLB_FLOW_ANSWERED] = "answered",
		[XLB_FLOW_ONESIDED] = "onesided",
		[XLB_FLOW_CLOSING] = "closing",
	};

	return flow->value.state < XLB_FLOW_STATES ? names[flow->value.state] : "unknown";
}

const char *trace_device(uint32_t ifindex, char text[ENDPOINT_TEXT_MAX])
{
	if (!if_indextoname(ifindex, text))
		snprintf(text, ENDPOINT_TEXT_MAX, "device %u", ifindex);
	return text;
}

/* What services the address has, if any. */
static size_t other_services(const struct trace_report *report, const struct packet_layer *layer,
			     char *text, size_t size)
{
	const struct model *model = datapath_model(report->dp);
	size_t cursor = 0, n = 0, length = 0;
	const struct service *service;

	while ((service = model_next(model, &cursor))) {
		if (service->vip.family != layer->destination.family ||
		    memcmp(&service->vip.address, &layer->destination.address,
			   sizeof(service->vip.address)) ||
		    n++ >= SERVICES_TOLD)
			continue;
		length += snprintf(text + length, size - length, "%s%u/%s", length ? ", " : "",
				   service->vip.port, protocol_name(service->vip.protocol));
	}
	if (n > SERVICES_TOLD)
		snprintf(text + length, size - length, " and %zu more", n - SERVICES_TOLD);
	return n;
}

/* Nobody takes the packet: which services have its address. */
static const char *no_service(const struct trace_report *report, char text[PACKET_TEXT_MAX])
{
	const struct packet_layer *layer = report->in.layers;
	char address[ENDPOINT_TEXT_MAX], others[PACKET_TEXT_MAX / 2] = "";

	if (!report->in.n_layers) {
		snprintf(text, PACKET_TEXT_MAX, "only IPv4 and IPv6 packets have one");
		return text;
	}
	address_format(&layer->destination.address, layer->destination.family, address);
	if (!other_services(report, layer, others, sizeof(others)))
		snprintf(text, PACKET_TEXT_MAX,
			 "no VIP has the address %s, and no flow has the "
			 "packet for a reply",
			 address);
	else if (!layer->ports)
		snprintf(text, PACKET_TEXT_MAX, "it has no ports; %s has services at %s", address,
			 others);
	else
		snprintf(text, PACKET_TEXT_MAX, "%s has services at %s, but not at %u/%s", address,
			 others, layer->destination.port, protocol_name(layer->protocol));
	return text;
}

/* Whether somebody takes new flows. */
static bool takes_flows(const struct service *service)
{
	for (size_t i = 0; i < service->n_backends; i++)
		if (service->backends[i].state == XLB_BACKEND_ACTIVE && service->backends[i].weight)
			return true;
	return false;
}

const char *trace_reason(const struct trace_report *report, char text[PACKET_TEXT_MAX])
{
	const struct trace *trace = report->trace;

	if (trace->drop)
		snprintf(text, PACKET_TEXT_MAX, "%s", drop_reasons[trace->drop]);
	else if (trace->refused)
		snprintf(text, PACKET_TEXT_MAX, "%s",
			 takes_flows(trace->service) ? "its flow is not known, and it begins none" :
						       "no backend takes new flows");
	else if (!trace->service)
		return no_service(report, text);
	else
		return NULL;
	return text;
}

/* ---- differences ---- */

struct differences {
	struct trace_difference *at;
	size_t n;
};

static void differ(struct differences *all, const char *what, const char *before, const char *after)
{
	struct trace_difference *difference = &all->at[all->n];

	if (!strcmp(before, after) || all->n == TRACE_DIFFERENCES_MAX)
		return;
	difference->what = what;
	snprintf(difference->before, sizeof(difference->before), "%s", before);
	snprintf(difference->after, sizeof(difference->after), "%s", after);
	all->n++;
}

static void differ_number(struct differences *all, const char *what, uint32_t before,
			  uint32_t after)
{
	char old[16], new[16];

	snprintf(old, sizeof(old), "%u", before);
	snprintf(new, sizeof(new), "%u", after);
	differ(all, what, old, new);
}

/* With its port, where there is one. */
static const char *end_text(const struct packet_layer *layer, const struct endpoint *endpoint,
			    char text[ENDPOINT_TEXT_MAX])
{
	return layer->ports ? endpoint_format_backend(endpoint, text) :
			      address_format(&endpoint->address, endpoint->family, text);
}

static void differ_layer(struct differences *all, const struct packet_layer *before,
			 const struct packet_layer *after)
{
	char old[ENDPOINT_TEXT_MAX], new[ENDPOINT_TEXT_MAX];

	differ(all, before->quoted ? "quoted source" : "source",
	       end_text(before, &before->source, old), end_text(after, &after->source, new));
	differ(all, before->quoted ? "quoted destination" : "destination",
	       end_text(before, &before->destination, old),
	       end_text(after, &after->destination, new));
	if (!before->quoted)
		differ_number(all, "TTL", before->ttl, after->ttl);
	if (before->mss || after->mss)
		differ_number(all, "MSS", before->mss, after->mss);
}

/* What is put around the packet. */
static void differ_outer(struct differences *all, const struct packet_layer *outer)
{
	char text[ENDPOINT_TEXT_MAX];

	differ(all, "outer source", "", end_text(outer, &outer->source, text));
	differ(all, "outer destination", "", end_text(outer, &outer->destination, text));
}

size_t trace_differences(const struct trace_report *report,
			 struct trace_difference differences[TRACE_DIFFERENCES_MAX])
{
	const struct packet_view *in = &report->in, *out = &report->out;
	struct differences all = { .at = differences };
	size_t outer = out->n_layers > in->n_layers ? out->n_layers - in->n_layers : 0;
	char old[MAC_TEXT_MAX], new[MAC_TEXT_MAX];

	for (size_t i = 0; i < outer; i++)
		differ_outer(&all, &out->layers[i]);
	for (size_t i = 0; i < in->n_layers && i + outer < out->n_layers; i++)
		differ_layer(&all, &in->layers[i], &out->layers[i + outer]);
	if (!out->no_link) {
		differ(&all, "MAC source", mac_text(in->from, old), mac_text(out->from, new));
		differ(&all, "MAC destination", mac_text(in->to, old), mac_text(out->to, new));
	}
	differ_number(&all, "VLAN tags", in->n_vlans, out->n_vlans);
	return all.n;
}
