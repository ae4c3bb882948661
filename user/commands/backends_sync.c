// SPDX-License-Identifier: GPL-2.0
/* backends sync: services and backends as Kubernetes has them. */
#include "commands/command.h"
#include "commands/output.h"

static int run(int argc, char **argv)
{
	struct command_line line;

	command_line_start(&line, &verb_backends_sync, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	return fail("backends sync: not in this build");
}

const struct command verb_backends_sync = {
	.name = "backends sync",
	.operands = "",
	.summary = "Make services and backends be as Kubernetes, or a file, has them",
	.run = run,
};
