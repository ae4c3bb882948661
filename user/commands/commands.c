// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>

#include "commands/commands.h"

int commands_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	fputs("lbctl: nothing here yet\n", stderr);
	return STATUS_USAGE;
}
