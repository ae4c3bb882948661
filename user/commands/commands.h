/* SPDX-License-Identifier: GPL-2.0 */
/* What main() needs: the table of verbs is in commands.c, a verb is described in command.h. */
#ifndef XLB_COMMANDS_H
#define XLB_COMMANDS_H

/* Exit statuses. */
enum {
	STATUS_OK = 0,
	STATUS_FAILED = 1, /* one line on stderr says why */
	STATUS_USAGE = 2,  /* the command line is wrong; nothing was tried */
};

/* Runs what the command line asks for; returns the exit status. */
int commands_main(int argc, char **argv);

#endif
