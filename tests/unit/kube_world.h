/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tests of kubernetes/ share: a source that is fed with text, and its answer as text.
 *
 * JSON in tests is written with ' for ", so that it can be read.
 */
#ifndef XLB_TESTS_KUBE_WORLD_H
#define XLB_TESTS_KUBE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kubernetes/kubernetes.h"

#define PAYLOADS "tests/unit/payloads/"

struct world {
	struct kube *kube;
	char warnings[4096];
	char answer[16384];
};

static inline void world_warning(void *arg, const char *line)
{
	struct world *world = arg;
	size_t n = strlen(world->warnings);

	snprintf(world->warnings + n, sizeof(world->warnings) - n, "%s\n", line);
}

static const struct kube_calls world_calls = { .warning = world_warning };

/* 'a' -> "a". The caller frees. */
static inline char *quoted(const char *text)
{
	char *copy = strdup(text);

	for (char *c = copy; *c; c++)
		if (*c == '\'')
			*c = '"';
	return copy;
}

static inline struct kube_options world_options(unsigned int vips)
{
	return (struct kube_options){ .vips = vips, .owner = XLB_OWNER_FILE };
}

static inline int world_load(struct world *world, const struct kube_options *options,
			     const void *data, size_t size, struct error *err)
{
	char path[64];
	int fd = memfd_create("test", MFD_CLOEXEC), r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	lseek(fd, 0, SEEK_SET);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (!world->kube)
		assert_int_equal(kube_new(options, &world_calls, world, &world->kube, err), 0);
	r = kube_load_file(world->kube, path, err);
	close(fd);
	return r;
}

static inline int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What few services have. */
static inline size_t format_options(const struct service *service, char *line, size_t size)
{
	char text[ENDPOINT_TEXT_MAX];
	size_t n = 0;

	if (service->affinity_s)
		n += snprintf(line + n, size - n, " affinity=%u", service->affinity_s);
	for (size_t i = 0; i < service->n_ranges; i++)
		n += snprintf(line + n, size - n, " range=%s",
			      prefix_format(&service->ranges[i], text));
	if (service->mss)
		n += snprintf(line + n, size - n, " mss=%u", service->mss);
	if (service->encap_source.family)
		n += snprintf(line + n, size - n, " encap_source=%s",
			      encap_source_format(&service->encap_source, text));
	if (service->gue_port)
		n += snprintf(line + n, size - n, " gue_port=%u", service->gue_port);
	if (service->gue_checksum)
		n += snprintf(line + n, size - n, " gue_checksum=on");
	if (service->no_echo)
		n += snprintf(line + n, size - n, " echo=off");
	return n;
}

static inline void format_service(const struct kube_change *change, char *line, size_t size)
{
	const struct service *service = change->after;
	char text[ENDPOINT_TEXT_MAX];
	size_t n = snprintf(line, size, "%s", endpoint_format(&change->vip, text));

	if (!service) {
		snprintf(line + n, size - n, " gone");
		return;
	}
	n += snprintf(line + n, size - n, " %s %s %s", service->name,
		      forward_name(service->forward), scheduler_name(service->scheduler));
	n += format_options(service, line + n, size - n);
	for (size_t i = 0; i < service->n_backends && n < size; i++)
		n += snprintf(line + n, size - n, " %s=%s",
			      endpoint_format_backend(&service->backends[i].endpoint, text),
			      state_name(service->backends[i].state));
}

/* "VIP NAME FORWARD SCHEDULER [OPTION=VALUE]... [BACKEND=STATE]...", a sorted line for each VIP that changed. */
static inline const char *world_answer(struct world *world)
{
	char *lines[256];
	struct kube_change change;
	struct error err;
	size_t n = 0, at = 0;

	while (kube_next_change(world->kube, &change, &err) > 0) {
		assert_true(n < 256);
		lines[n] = malloc(2048);
		format_service(&change, lines[n++], 2048);
	}
	qsort(lines, n, sizeof(*lines), compare_lines);
	*world->answer = 0;
	for (size_t i = 0; i < n; i++) {
		at += snprintf(world->answer + at, sizeof(world->answer) - at, "%s\n", lines[i]);
		free(lines[i]);
	}
	return world->answer;
}

static inline void world_end(struct world *world)
{
	kube_free(world->kube);
	*world = (struct world){};
}

#endif
