// SPDX-License-Identifier: GPL-2.0
/*
 * From what is known of the cluster to what should be load balanced.
 *
 * Sources (file.c, cluster.c) fill the store, which remembers which Services changed. Here each
 * of them is turned into claims for VIPs, and each VIP whose contest may have another outcome into
 * a service of the model. Nothing is worked out before somebody asks (kube_next_change), so that a
 * burst of events about one Service costs one answer.
 */
#include "kubernetes/kubernetes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "kubernetes/cluster.h"
#include "kubernetes/health.h"
#include "kubernetes/internal.h"

enum { LINE_MAX_LENGTH = 1024 };

int kube_new(const struct kube_options *options, const struct kube_calls *calls, void *arg,
	     struct kube **ret_kube, struct error *err)
{
	struct kube *kube = calloc(1, sizeof(*kube));

	if (!kube)
		return error_set(err, ENOMEM, "out of memory");
	kube->options = *options;
	kube->calls = *calls;
	kube->arg = arg;
	*ret_kube = kube;
	return 0;
}

static void forget_last(struct kube *kube)
{
	free(kube->after.backends);
	free(kube->after.ranges);
	free(kube->after.index);
	kube->after = (struct service){};
}

void kube_free(struct kube *kube)
{
	if (!kube)
		return;
	cluster_free(kube->cluster);
	health_free(kube->health);
	forget_last(kube);
	claims_free(&kube->claims);
	store_free(&kube->store);
	free(kube);
}

int kube_connect(struct kube *kube, struct event_base *base, struct error *err)
{
	if (kube->options.health_checks) {
		kube->health = health_new(kube, base);
		if (!kube->health)
			return error_set(err, ENOMEM, "out of memory");
	}
	return cluster_start(kube, base, &kube->cluster, err);
}

bool kube_runs_plugins(const struct kube *kube)
{
	return cluster_runs_plugins(kube->cluster);
}

void kube_clean_text(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = ' ';
}

static void say(const struct kube *kube, void (*call)(void *, const char *), const char *format,
		va_list arguments)
{
	char line[LINE_MAX_LENGTH];

	if (!call)
		return;
	vsnprintf(line, sizeof(line), format, arguments);
	kube_clean_text(line);
	call(kube->arg, line);
}

void kube_warn(struct kube *kube, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(kube, kube->calls.warning, format, arguments);
	va_end(arguments);
}

void kube_detail(struct kube *kube, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(kube, kube->calls.detail, format, arguments);
	va_end(arguments);
}

bool kube_complete(const struct kube *kube)
{
	return kube->known[KUBE_SERVICE] && kube->known[KUBE_SET];
}

bool kube_endpoints_known(const struct kube *kube)
{
	return kube->endpoints_known;
}

void kube_notify(struct kube *kube)
{
	if (kube_complete(kube) && kube->store.first_changed && kube->calls.changed)
		kube->calls.changed(kube->arg);
}

/* `end`: what follows the Service's key. */
static bool in_scope(const struct kube_options *options, const char *name, char end)
{
	const char *wanted = options->service ?: options->namespace;
	size_t length = wanted ? strlen(wanted) : 0;

	return !wanted || (!strncmp(name, wanted, length) &&
			   name[length] == (options->service ? end : '/'));
}

bool kube_in_scope(const struct kube *kube, const char *name)
{
	return in_scope(&kube->options, name, ':');
}

bool kube_key_in_scope(const struct kube *kube, const char *key)
{
	return in_scope(&kube->options, key, 0);
}

bool kube_wants(const struct kube *kube, const struct endpoint *vip)
{
	const struct contest *contest = claims_find(&kube->claims, vip);

	return contest && contest->claims;
}

void kube_again(struct kube *kube, const struct endpoint *vip)
{
	struct contest *contest = claims_find(&kube->claims, vip);

	if (contest)
		claims_queue(&kube->claims, contest);
}

void kube_set_node_addresses(struct kube *kube, const struct endpoint *addresses, size_t n)
{
	kube->options.node_addresses = addresses;
	kube->options.n_node_addresses = n;
	store_mark_all(&kube->store);
}

size_t kube_count_services(const struct kube *kube)
{
	return kube->store.n_services;
}

size_t kube_count_endpoints(const struct kube *kube)
{
	return kube->store.n_endpoints;
}

size_t kube_count_ignored(const struct kube *kube)
{
	return kube->n_ignored;
}

uint64_t kube_take_read_time(struct kube *kube)
{
	uint64_t read_ns = kube->read_ns;

	kube->read_ns = 0;
	return read_ns;
}

/* Passes warnings on, line by line, unless they are the same as last time. */
static void pass_warnings(struct kube *kube, struct group *group, char *text)
{
	uint64_t hash = 0xcbf29ce484222325;
	char *line, *state = NULL;

	for (const char *c = text; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 0x100000001b3;
	if (group->warned == hash)
		return;
	group->warned = hash;
	for (line = strtok_r(text, "\n", &state); line; line = strtok_r(NULL, "\n", &state))
		kube_warn(kube, "%s", line);
}

/* Works out the VIPs of a changed group anew and queues every VIP that it has or had. */
static int update_group(struct kube *kube, struct group *group)
{
	struct wanted_vip *vips = NULL;
	char *text = NULL;
	size_t size, n = 0;
	FILE *warnings = open_memstream(&text, &size);
	int r = -ENOMEM;

	if (!warnings)
		return -ENOMEM;
	r = resolve_vips(group, &kube->options, warnings, &vips, &n);
	if (fclose(warnings) || !text)
		r = r < 0 ? r : -ENOMEM;
	if (r >= 0) {
		r = claims_update(&kube->claims, group, vips, n);
		pass_warnings(kube, group, text);
	}
	if (r >= 0 && kube->health)
		r = health_update(kube->health, group,
				  group->service &&
					  resolve_is_external(group->service, &kube->options));
	free(text);
	store_release(&kube->store, group);
	return r;
}

static void warn_losers(struct kube *kube, const struct contest *contest, struct claim *winner)
{
	char vip[ENDPOINT_TEXT_MAX];

	for (struct claim *claim = contest->claims; claim; claim = claim->next) {
		if (claim != winner && !claim->told)
			kube_warn(kube, "%s: %s belongs to %s, which is older: left alone",
				  claim->group->key, endpoint_format(&contest->vip, vip),
				  winner->group->key);
		claim->told = claim != winner;
	}
}

static void write_label(struct kube *kube, const struct claim *claim)
{
	const struct kube_service_port *port = &claim->group->service->ports[claim->wanted.port];

	snprintf(kube->label, sizeof(kube->label), "%s:%u%s", claim->group->key, port->port,
		 port->protocol == XLB_UDP ? "/udp" : "");
}

static void release_last(struct kube *kube)
{
	forget_last(kube);
	if (kube->contest)
		claims_release(&kube->claims, kube->contest);
	kube->contest = NULL;
}

int kube_next_change(struct kube *kube, struct kube_change *ret_change, struct error *err)
{
	struct group *group;
	struct claim *winner;
	struct kube_change change = {};

	release_last(kube);
	while ((group = store_next_changed(&kube->store)))
		if (update_group(kube, group) < 0)
			return error_set(err, ENOMEM, "out of memory");
	kube->contest = claims_next(&kube->claims);
	if (!kube->contest)
		return 0;
	change.vip = kube->contest->vip;
	winner = contest_winner(kube->contest);
	if (winner) {
		warn_losers(kube, kube->contest, winner);
		if (resolve_service(winner->group, &winner->wanted, &kube->options, &kube->after) <
		    0)
			return error_set(err, ENOMEM, "out of memory");
		write_label(kube, winner);
		change.after = &kube->after;
		change.label = kube->label;
	}
	*ret_change = change;
	return 1;
}
