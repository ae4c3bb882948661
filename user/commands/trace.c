// SPDX-License-Identifier: GPL-2.0
/*
 * trace: what would become of a packet, and why. The loaded program itself is asked, on a copy of
 * everything (datapath/trace.h), so that nothing changes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "commands/command.h"
#include "commands/output.h"
#include "commands/session.h"
#include "commands/trace_report.h"

#define TCP_SYN 0x02

static const struct option_spec options[] = {
	{ 'f', "flags", "FLAGS",
	  "of TCP, with commas: fin, syn, rst, psh, ack, urg, ece, cwr (default syn)" },
	{ 'r', "packet", "FILE",
	  "instead of making a packet, read the first of this pcap file (-: standard input)" },
	{ 'd', "device", "DEV", "where it comes in (default: the first attached device)" },
	{ 0 },
};

struct arguments {
	const char *packet, *device;
	const char *flags_text; /* NULL: not given */
	uint8_t flags;
	struct trace_frame frame;
	struct endpoint source, destination;
};

static int parse_flags(const char *text, uint8_t *ret_flags, struct error *err)
{
	uint8_t flags = 0, flag;
	size_t length;

	for (;; text += length + 1) {
		length = strcspn(text, ",");
		flag = packet_flag(text, length);
		if (!flag)
			return error_set(
				err, EINVAL,
				"'%.*s': not one of fin, syn, rst, psh, ack, urg, ece, cwr",
				(int)length, text);
		flags |= flag;
		if (!text[length])
			break;
	}
	*ret_flags = flags;
	return 0;
}

/* The packet is described by both operands, or by a file. An exit status. */
static int parse_operands(const struct command_line *line, struct arguments *arguments)
{
	struct error err;

	if (arguments->packet) {
		if (line->n_operands)
			return usage_error(line, "'%s' beside --packet", line->operands[0]);
		if (arguments->flags_text)
			return usage_error(line, "--flags beside --packet");
		return STATUS_OK;
	}
	if (line->n_operands < 2)
		return usage_error(line,
				   "SRC:PORT and ADDR:PORT/tcp|udp, or --packet, are missing");
	if (endpoint_parse_backend(line->operands[0], 0, &arguments->source, &err) < 0 ||
	    endpoint_parse_vip(line->operands[1], &arguments->destination, &err) < 0)
		return usage_error(line, "%s", err.text);
	if (arguments->source.family != arguments->destination.family)
		return usage_error(line, "%s is IPv%u, but %s is IPv%u", line->operands[0],
				   arguments->source.family, line->operands[1],
				   arguments->destination.family);
	if (arguments->flags_text && arguments->destination.protocol != XLB_TCP)
		return usage_error(line, "--flags %s: UDP has none", arguments->flags_text);
	return STATUS_OK;
}

static int parse(struct command_line *line, struct arguments *arguments)
{
	struct error err;
	int option;

	while ((option = command_line_next(line)) > 0) {
		if (option == 'r') {
			arguments->packet = line->value;
		} else if (option == 'd') {
			arguments->device = line->value;
		} else {
			arguments->flags_text = line->value;
			if (parse_flags(line->value, &arguments->flags, &err) < 0)
				return bad_value(line, &err);
		}
	}
	return option < 0 ? line->status : parse_operands(line, arguments);
}

static int read_packet(struct arguments *arguments)
{
	struct error err;
	bool more;

	if (!arguments->packet)
		return STATUS_OK;
	if (trace_frame_read(arguments->packet, &arguments->frame, &more, &err) < 0)
		return fail("%s", err.text);
	if (more)
		complain("%s: only the first packet is traced", arguments->packet);
	return STATUS_OK;
}

static int trace(const struct command_line *line, struct datapath *dp, struct arguments *arguments)
{
	_cleanup_(free_pointer) struct trace *result = calloc(1, sizeof(*result));
	struct trace_report report = { .dp = dp, .trace = result };
	const struct trace_frame *frame = &arguments->frame;
	uint8_t address[ETH_ALEN];
	struct error err;
	uint16_t gue_port;

	if (!result)
		return fail("out of memory");
	if (datapath_trace_device(dp, arguments->device, &report.ifindex, address, &err) < 0)
		return fail("%s", err.text);
	if (!arguments->packet)
		trace_frame_make(&arguments->source, &arguments->destination, arguments->flags,
				 address, &arguments->frame);
	if (datapath_trace(dp, report.ifindex, frame->bytes, frame->length, result, &err) < 0)
		return fail("%s", err.text);
	gue_port = result->backend && result->forward == XLB_FORWARD_GUE ?
			   service_gue_port(result->service) :
			   0;
	packet_view(frame->bytes, frame->length, 0, &report.in);
	packet_view(result->frame, result->length, gue_port, &report.out);
	/* The kernel writes them when it sends the packet on. */
	report.out.no_link = result->forwarded && result->hop.stack;
	return line->json ? trace_report_json(&report) : trace_report_text(&report);
}

static int run(int argc, char **argv)
{
	_cleanup_(datapath_close_pointer) struct datapath *dp = NULL;
	struct arguments arguments = { .flags = TCP_SYN };
	struct command_line line;
	int status;

	command_line_start(&line, &verb_trace, argc, argv);
	line.status = STATUS_OK;
	status = parse(&line, &arguments);
	if (status != STATUS_OK || !line.operands)
		return status;
	status = read_packet(&arguments);
	if (status == STATUS_OK)
		status = session_open_locked(&line, &dp);
	return status == STATUS_OK ? trace(&line, dp, &arguments) : status;
}

const struct command verb_trace = {
	.name = "trace",
	.operands = "[SRC:PORT] [SERVICE]",
	.summary = "Say what would become of a packet, and why; change nothing",
	.details =
		"The packet goes from SRC:PORT to SERVICE, ADDR:PORT/tcp or /udp, whether there is "
		"one or\n"
		"not. The loaded program runs on a copy of all state: no flow and no counter "
		"changes.\n",
	.options = options,
	.run = run,
};
