// SPDX-License-Identifier: GPL-2.0
/* A trace as one JSON object; declared in trace_report.h. */
#include <jansson.h>
#include <linux/bpf.h>
#include <xlb/abi.h>

#include "commands/output.h"
#include "commands/trace_report.h"

static json_t *parsed_json(const struct trace_report *report)
{
	char source[ENDPOINT_TEXT_MAX], destination[ENDPOINT_TEXT_MAX], flags[PACKET_TEXT_MAX];
	const struct trace *trace = report->trace;
	const struct packet_layer *layer = report->in.layers;

	if (!trace->parsed)
		return json_null();
	return json_pack(
		"{s:s, s:s, s:s, s:s?, s:i, s:b, s:b}", "protocol",
		protocol_name(trace->source.protocol), "source",
		endpoint_format_backend(&trace->source, source), "destination",
		endpoint_format_backend(&trace->destination, destination), "flags",
		trace->source.protocol == XLB_TCP ? packet_flags(layer->flags, flags) : NULL, "ttl",
		(int)layer->ttl, "fragment", (int)layer->fragment, "icmp_error", (int)layer->icmp);
}

static json_t *flow_json(const struct trace *trace)
{
	if (!trace->service)
		return json_null();
	return json_pack("{s:b, s:b, s:b, s:s?, s:o, s:s?}", "known",
			 trace->choice == TRACE_CHOICE_FLOW, "new", (int)trace->new_flow, "kept",
			 trace->reply || (trace->after.there && trace->backend), "before",
			 trace->before.there ? trace_flow_state(&trace->before) : NULL, "age",
			 trace->before.there ? json_integer(trace->before.age_s) : json_null(),
			 "after", trace->after.there ? trace_flow_state(&trace->after) : NULL);
}

static json_t *backend_json(const struct trace *trace)
{
	const struct backend *backend = trace->backend;
	char address[ENDPOINT_TEXT_MAX];

	if (!backend)
		return json_null();
	return json_pack("{s:s, s:i, s:s, s:s, s:o, s:o}", "address",
			 endpoint_format_backend(&backend->endpoint, address), "weight",
			 (int)backend->weight, "state", state_name(backend->state), "choice",
			 trace_choice(trace->choice), "slot",
			 trace->slots ? json_integer(trace->slot) : json_null(), "slots",
			 trace->slots ? json_integer(trace->slots) : json_null());
}

static json_t *differences_json(const struct trace_report *report)
{
	struct trace_difference differences[TRACE_DIFFERENCES_MAX];
	size_t n = report->trace->forwarded ? trace_differences(report, differences) : 0;
	json_t *array = json_array();

	for (size_t i = 0; array && i < n; i++) {
		const char *before = differences[i].before;

		json_array_append_new(
			array, json_pack("{s:s, s:s?, s:s}", "what", differences[i].what, "before",
					 *before ? before : NULL, "after", differences[i].after));
	}
	return array;
}

static json_t *hop_json(const struct trace *trace)
{
	const struct trace_hop *hop = &trace->hop;
	char device[ENDPOINT_TEXT_MAX], mac[MAC_TEXT_MAX];
	bool kernel = trace_by_tc(trace), has_mac = !kernel && hop->ifindex != XLB_LOOPBACK_IFINDEX;

	if (!trace->forwarded || !hop->ifindex)
		return json_null();
	return json_pack("{s:s, s:s?, s:b, s:o}", "device", trace_device(hop->ifindex, device),
			 "mac",
			 has_mac ? mac_text(hop->destination, mac) : NULL,
			 "kernel", (int)kernel, "mtu",
			 hop->mtu ? json_integer(hop->mtu) : json_null());
}

int trace_report_json(const struct trace_report *report)
{
	char in[PACKET_TEXT_MAX], out[PACKET_TEXT_MAX], why[PACKET_TEXT_MAX],
		vip[ENDPOINT_TEXT_MAX], device[ENDPOINT_TEXT_MAX];
	const struct trace *trace = report->trace;
	const struct service *service = trace->service;
	bool leaves = trace->forwarded || trace->action == XDP_TX || trace->action == XDP_REDIRECT;

	/* clang-format off */
	return print_json(json_pack("{s:s, s:s, s:o, s:s?, s:s?, s:s?, s:o, s:o, s:o, s:o, s:s?, "
				    "s:s, s:s, s:s?, s:s?}",
		"packet", packet_text(&report->in, in),
		"device", trace_device(report->ifindex, device),
		"parsed", parsed_json(report),
		"service", service ? endpoint_format(&service->vip, vip) : NULL,
		"forward", service ? forward_name(trace->forward) : NULL,
		"scheduler", service ? scheduler_name(service->scheduler) : NULL,
		"flow", flow_json(trace),
		"backend", backend_json(trace),
		"rewritten", differences_json(report),
		"next_hop", hop_json(trace),
		"becomes", leaves ? packet_text(&report->out, out) : NULL,
		"outcome", trace_outcome(trace),
		"verdict", trace_action(trace),
		"drop", trace->drop ? drop_name(trace->drop) : NULL,
		"reason", trace_reason(report, why)));
	/* clang-format on */
}
