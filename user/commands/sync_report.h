/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a sync says: for people one line for each changed port of a Service, whichever and however
 * many VIPs lead to it ("default/hello:80  +2 -1  3 backends"), for programs an object for each
 * VIP.
 */
#ifndef XLB_SYNC_REPORT_H
#define XLB_SYNC_REPORT_H

#include "model/model.h"

/* One service that changed. */
struct sync_line {
	char label[XLB_NAME_MAX];	/* "default/hello:80" */
	char name[XLB_NAME_MAX];	/* as in the maps: "default/hello:http" */
	struct endpoint vip;
	bool before, after;		/* was there, is there */
	unsigned int added, removed, changed;
	unsigned int active, draining, down;	/* afterwards */
};

/* Lines for people, collected until the end of the batch. */
struct sync_report {
	struct report_entry *entries;
	size_t n, allocated;
};

/* latency_us < 0: not known. */
void sync_print_json(const struct sync_line *line, bool dry_run, double latency_us);
/* Adds the line to the one of the same label and family, if there is one. -ENOMEM. */
int sync_report_add(struct sync_report *report, const struct sync_line *line);
/* Prints and forgets. */
void sync_report_print(struct sync_report *report);

/*
 * The progress of something long, on a terminal only; it vanishes before anything else is printed.
 */
void progress_show(const char *format, ...) __attribute__((format(printf, 1, 2)));
void progress_clear(void);

#endif
