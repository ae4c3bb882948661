/* SPDX-License-Identifier: GPL-2.0 */
/* What stays running lets go of every right that it does not need any more. */
#ifndef XLB_CONFINE_H
#define XLB_CONFINE_H

#include <stdbool.h>

#include "base/error.h"

/*
 * Drops capabilities and installs the system call filter, for this process and all that it starts.
 * To be called while there is one thread. `plugins`: programs will be run that are not ours.
 */
int confine(bool plugins, struct error *err);

/* syscall_filter.c: the filter alone; needs no_new_privs. */
int syscall_filter_load(bool plugins, struct error *err);

#endif
