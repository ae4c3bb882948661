// SPDX-License-Identifier: GPL-2.0
#include "commands/sync_report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands/output.h"

enum {
	LOOK_BACK = 16,		/* lines of one Service come close together */
	VIPS_SHOWN = 3,
	PROGRESS_FIRST_MS = 300,
	PROGRESS_STEP_MS = 100,
};

struct report_entry {
	struct sync_line line;
	unsigned int n_new, n_gone;
	struct endpoint fresh[VIPS_SHOWN], gone[VIPS_SHOWN];
};

void sync_print_json(const struct sync_line *line, bool dry_run, double latency_us)
{
	char vip[ENDPOINT_TEXT_MAX];
	json_t *object =
		json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "service",
			  endpoint_format(&line->vip, vip), "name", line->name, "action",
			  !line->before ? "add" :
			  line->after	? "change" :
					  "remove",
			  "added", line->added, "removed", line->removed, "changed", line->changed,
			  "backends", line->active + line->draining + line->down, "active",
			  line->active, "draining", line->draining, "down", line->down, "dry_run",
			  dry_run);

	if (object && latency_us >= 0)
		json_object_set_new(object, "latency_us", json_real(latency_us));
	print_json(object);
}

static struct report_entry *find_entry(struct sync_report *report, const struct sync_line *line)
{
	for (size_t i = report->n; i > 0 && i + LOOK_BACK > report->n; i--) {
		struct report_entry *entry = &report->entries[i - 1];

		if (entry->line.vip.family == line->vip.family &&
		    !strcmp(entry->line.label, line->label))
			return entry;
	}
	return NULL;
}

static unsigned int larger(unsigned int a, unsigned int b)
{
	return a > b ? a : b;
}

/* The VIPs of one port have the same backends: what happened to one happened to all. */
static void join(struct sync_line *to, const struct sync_line *from)
{
	to->added = larger(to->added, from->added);
	to->removed = larger(to->removed, from->removed);
	to->changed = larger(to->changed, from->changed);
	to->active = larger(to->active, from->active);
	to->draining = larger(to->draining, from->draining);
	to->down = larger(to->down, from->down);
}

int sync_report_add(struct sync_report *report, const struct sync_line *line)
{
	struct report_entry *entry = find_entry(report, line), *grown;

	if (!entry) {
		if (report->n == report->allocated) {
			size_t n = report->allocated ? report->allocated * 2 : 16;

			grown = reallocarray(report->entries, n, sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			report->entries = grown;
			report->allocated = n;
		}
		entry = &report->entries[report->n++];
		*entry = (struct report_entry){ .line = *line };
	}
	join(&entry->line, line);
	if (!line->before && entry->n_new++ < VIPS_SHOWN)
		entry->fresh[entry->n_new - 1] = line->vip;
	if (!line->after && entry->n_gone++ < VIPS_SHOWN)
		entry->gone[entry->n_gone - 1] = line->vip;
	return 0;
}

static void print_vips(const char *what, const struct endpoint *vips, unsigned int n)
{
	char text[ENDPOINT_TEXT_MAX];

	if (!n)
		return;
	printf("  %s", what);
	for (unsigned int i = 0; i < n && i < VIPS_SHOWN; i++)
		printf(" %s", endpoint_format(&vips[i], text));
	if (n > VIPS_SHOWN)
		printf(" and %u more", n - VIPS_SHOWN);
}

void sync_report_print(struct sync_report *report)
{
	for (size_t i = 0; i < report->n; i++) {
		const struct report_entry *entry = &report->entries[i];
		const struct sync_line *line = &entry->line;

		printf("%s  +%u -%u", line->label, line->added, line->removed);
		if (line->changed)
			printf(" ~%u", line->changed);
		printf("  %u backends", line->active);
		if (line->draining)
			printf(", %u draining", line->draining);
		if (line->down)
			printf(", %u down", line->down);
		print_vips("new", entry->fresh, entry->n_new);
		print_vips("gone", entry->gone, entry->n_gone);
		putchar('\n');
	}
	free(report->entries);
	*report = (struct sync_report){};
}

/* --- progress --- */

static uint64_t progress_first_ms, progress_last_ms;
static bool progress_visible;

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void progress_show(const char *format, ...)
{
	uint64_t now = now_ms();
	va_list arguments;

	if (!progress_first_ms)
		progress_first_ms = now;
	if (!isatty(STDERR_FILENO) || now - progress_first_ms < PROGRESS_FIRST_MS ||
	    now - progress_last_ms < PROGRESS_STEP_MS)
		return;
	progress_last_ms = now;
	progress_visible = true;
	va_start(arguments, format);
	fputs("\r", stderr);
	vfprintf(stderr, format, arguments);
	fputs("\033[K", stderr);
	va_end(arguments);
}

void progress_clear(void)
{
	if (progress_visible)
		fputs("\r\033[K", stderr);
	progress_visible = false;
	progress_first_ms = 0;
}
