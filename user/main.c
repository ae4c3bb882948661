// SPDX-License-Identifier: GPL-2.0
/* lbctl: the table of verbs is in commands/. */
#include "commands/commands.h"

int main(int argc, char **argv)
{
	return commands_main(argc, argv);
}
