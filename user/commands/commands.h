/* SPDX-License-Identifier: GPL-2.0 */
/* The verbs of lbctl. */
#ifndef XLB_COMMANDS_H
#define XLB_COMMANDS_H

/* Exit statuses. */
enum {
	STATUS_OK = 0,
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,
};

int commands_main(int argc, char **argv);

#endif
