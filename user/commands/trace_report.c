// SPDX-License-Identifier: GPL-2.0
/* A trace, for people: one step after the other, as the packet takes them. */
#include "commands/trace_report.h"

#include <inttypes.h>
#include <stdio.h>

#include <linux/bpf.h>
#include <xlb/abi.h>

#include "commands/commands.h"

static void label(const char *what)
{
	printf("%-11s ", what);
}

static void print_parsed(const struct trace_report *report)
{
	const struct packet_layer *layer = report->in.layers;
	char source[ENDPOINT_TEXT_MAX], destination[ENDPOINT_TEXT_MAX], flags[PACKET_TEXT_MAX];
	const struct trace *trace = report->trace;

	label("parsed");
	if (!report->in.n_layers) {
		puts("neither IPv4 nor IPv6");
		return;
	}
	if (!trace->parsed) {
		printf("IPv%u from %s, protocol %u, without ports\n", layer->source.family,
		       address_format(&layer->source.address, layer->source.family, source),
		       layer->protocol);
		return;
	}
	printf("%s from %s to %s", protocol_name(trace->source.protocol),
	       endpoint_format_backend(&trace->source, source),
	       endpoint_format_backend(&trace->destination, destination));
	if (layer->icmp)
		printf(", by what an ICMP error quotes");
	else if (layer->fragment)
		printf(", %s fragment", layer->offset ? "a later" : "the first");
	else if (trace->source.protocol == XLB_TCP)
		printf(", flags %s", packet_flags(layer->flags, flags));
	printf(", TTL %u\n", layer->ttl);
}

static void print_service(const struct trace_report *report)
{
	const struct service *service = report->trace->service;
	char text[PACKET_TEXT_MAX], vip[ENDPOINT_TEXT_MAX];

	label("service");
	if (!service) {
		printf("none: %s\n", trace_reason(report, text));
		return;
	}
	printf("%s%s%s: %s, %s, %zu backends%s\n", endpoint_format(&service->vip, vip),
	       *service->name ? " " : "", service->name, forward_name(service->forward),
	       scheduler_name(service->scheduler), service->n_backends,
	       report->trace->reply ? "; this is a reply of one" : "");
}

static void print_flow(const struct trace *trace)
{
	label("flow");
	if (trace->reply)
		puts("known: the reply is translated back");
	else if (trace->new_flow && trace->after.there)
		printf("new%s: %s\n", trace->before.there ? ", instead of one that is over" : "",
		       trace_flow_state(&trace->after));
	else if (trace->choice == TRACE_CHOICE_FLOW)
		printf("known: %s, last packet %u s ago\n", trace_flow_state(&trace->before),
		       trace->before.age_s);
	else if (trace->backend)
		puts("none is kept: packet and ring say where it goes");
	else
		puts("none");
}

static void print_choice(const struct trace *trace)
{
	switch (trace->choice) {
	case TRACE_CHOICE_FLOW:
		puts(trace->reply ? "it answers" : "the flow began on it");
		break;
	case TRACE_CHOICE_AFFINITY:
		printf("the client's last flow went there (affinity of %u s)\n",
		       trace->service->affinity_s);
		break;
	case TRACE_CHOICE_SLOT:
		printf("place %u of %u on the ring, by the client's address%s\n", trace->slot,
		       trace->slots,
		       trace->service->scheduler == XLB_SCHEDULER_SOURCE ? "" : " and port");
		break;
	case TRACE_CHOICE_PREVIOUS:
		puts("what was at the client's place on the ring before the last change");
		break;
	case TRACE_CHOICE_TURN:
		printf("its turn, place %u of %u\n", trace->slot, trace->slots);
		break;
	case TRACE_CHOICE_LOAD:
		printf("of two at random it has fewer flows for its weight: %u\n", trace->load);
		break;
	case TRACE_CHOICE_RANDOM:
		puts("at random");
		break;
	default:
		puts("why, trace does not know");
	}
}

static void print_backend(const struct trace *trace)
{
	const struct backend *backend = trace->backend;
	char address[ENDPOINT_TEXT_MAX];

	label("backend");
	if (!backend) {
		puts("none");
		return;
	}
	printf("%s, %s, weight %u: ", endpoint_format_backend(&backend->endpoint, address),
	       state_name(backend->state), backend->weight);
	print_choice(trace);
}

static void print_differences(const struct trace_report *report)
{
	struct trace_difference differences[TRACE_DIFFERENCES_MAX];
	size_t n = trace_differences(report, differences);

	for (size_t i = 0; i < n; i++) {
		label(i ? "" : "rewritten");
		if (*differences[i].before)
			printf("%s %s -> %s\n", differences[i].what, differences[i].before,
			       differences[i].after);
		else
			printf("%s %s\n", differences[i].what, differences[i].after);
	}
}

static void print_hop(const struct trace *trace)
{
	const struct trace_hop *hop = &trace->hop;
	char device[ENDPOINT_TEXT_MAX], mac[MAC_TEXT_MAX];

	if (!trace->backend)
		return;
	label("next hop");
	if (!hop->ifindex)
		puts("none: the kernel has no route");
	else if (hop->stack)
		printf("by the kernel's neighbour code, on %s\n",
		       trace_device(hop->ifindex, device));
	else if (hop->ifindex == XLB_LOOPBACK_IFINDEX)
		puts("this node itself");
	else
		printf("%s on %s\n", mac_text(hop->destination, mac),
		       trace_device(hop->ifindex, device));
}

static void print_verdict(const struct trace_report *report)
{
	const struct trace *trace = report->trace;
	char device[ENDPOINT_TEXT_MAX], reason[PACKET_TEXT_MAX];

	label("verdict");
	printf("%s", trace_outcome(trace));
	if (trace->drop)
		printf(" as %s: %s\n", drop_name(trace->drop), trace_reason(report, reason));
	else if (trace->refused)
		printf(": %s\n", trace_reason(report, reason));
	else if (trace->action == XDP_TX)
		printf(": out of %s, where it came in\n", trace_device(report->ifindex, device));
	else if (trace->action == XDP_REDIRECT)
		printf(": out of %s\n", trace_device(trace->hop.ifindex, device));
	else if (trace->action != XDP_PASS)
		printf(": %s\n", trace_action(trace));
	else if (trace->kept)
		puts(" by the tc program of the device, until its first fragment comes, which has the ports");
	else if (!trace->forwarded)
		puts(" to the kernel, as it came");
	else if (trace_by_tc(trace))
		puts(": the tc program of the device sends it on");
	else
		puts(": the kernel delivers it");
}

int trace_report_text(const struct trace_report *report)
{
	const struct trace *trace = report->trace;
	char text[PACKET_TEXT_MAX], device[ENDPOINT_TEXT_MAX];

	label("packet");
	puts(packet_text(&report->in, text));
	label("device");
	puts(trace_device(report->ifindex, device));
	print_parsed(report);
	print_service(report);
	if (trace->service) {
		print_flow(trace);
		print_backend(trace);
	}
	if (trace->forwarded) {
		print_differences(report);
		print_hop(trace);
	}
	if (trace->action == XDP_TX || trace->action == XDP_REDIRECT || trace->forwarded) {
		label(trace->forwarded ? "becomes" : "answer");
		puts(packet_text(&report->out, text));
	}
	print_verdict(report);
	return STATUS_OK;
}
