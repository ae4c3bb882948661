// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct group *find_group(const struct store *store, const char *key)
{
	struct lookup_entry *entry = lookup_find(&store->groups, key, strlen(key));

	return entry ? lookup_object(entry, struct group, entry) : NULL;
}

static struct kube_set *find_set(const struct store *store, const char *key)
{
	struct lookup_entry *entry = lookup_find(&store->sets, key, strlen(key));

	return entry ? lookup_object(entry, struct kube_set, entry) : NULL;
}

static struct group *ensure_group(struct store *store, const char *key)
{
	struct group *group = find_group(store, key);

	if (group)
		return group;
	group = calloc(1, sizeof(*group));
	if (!group)
		return NULL;
	group->key = strdup(key);
	if (!group->key ||
	    lookup_insert(&store->groups, &group->entry, group->key, strlen(key)) < 0) {
		free(group->key);
		free(group);
		return NULL;
	}
	return group;
}

static void mark(struct store *store, struct group *group)
{
	if (group->changed)
		return;
	group->changed = true;
	group->next_changed = NULL;
	if (store->last_changed)
		store->last_changed->next_changed = group;
	else
		store->first_changed = group;
	store->last_changed = group;
}

void store_mark_all(struct store *store)
{
	struct lookup_entry *entry = NULL;

	while ((entry = lookup_next(&store->groups, entry)))
		mark(store, lookup_object(entry, struct group, entry));
}

struct group *store_next_changed(struct store *store)
{
	struct group *group = store->first_changed;

	if (!group)
		return NULL;
	store->first_changed = group->next_changed;
	if (!store->first_changed)
		store->last_changed = NULL;
	group->changed = false;
	return group;
}

void store_release(struct store *store, struct group *group)
{
	if (group->service || group->n_sets || group->n_claims || group->changed || group->health)
		return;
	lookup_remove(&store->groups, &group->entry);
	free(group->sets);
	free(group->key);
	free(group);
}

static size_t count_endpoints(const struct kube_set *set)
{
	size_t n = 0;

	for (size_t i = 0; i < set->n_parts; i++)
		n += set->parts[i].n_endpoints;
	return n;
}

int store_put_service(struct store *store, struct kube_service *service)
{
	struct group *group = ensure_group(store, service->key);

	if (!group || (group->service && kube_service_equal(group->service, service))) {
		kube_service_free(service);
		return group ? 0 : -ENOMEM;
	}
	if (!group->service)
		store->n_services++;
	kube_service_free(group->service);
	group->service = service;
	mark(store, group);
	return 0;
}

void store_delete_service(struct store *store, const char *key)
{
	struct group *group = find_group(store, key);

	if (!group || !group->service)
		return;
	kube_service_free(group->service);
	group->service = NULL;
	store->n_services--;
	mark(store, group);
}

/* The set leaves its group and the table; it is not freed. */
static void unlink_set(struct store *store, struct kube_set *set)
{
	struct group *group = find_group(store, set->service);

	for (size_t i = 0; i < group->n_sets; i++) {
		if (group->sets[i] != set)
			continue;
		group->sets[i] = group->sets[--group->n_sets];
		break;
	}
	store->n_endpoints -= count_endpoints(set);
	lookup_remove(&store->sets, &set->entry);
	mark(store, group);
}

int store_put_set(struct store *store, struct kube_set *set)
{
	struct kube_set *old = find_set(store, set->key), **sets;
	struct group *group;

	if (old && kube_set_equal(old, set)) {
		kube_set_free(set);
		return 0;
	}
	if (old) {
		unlink_set(store, old);
		kube_set_free(old);
	}
	group = ensure_group(store, set->service);
	if (!group)
		goto no_memory;
	sets = reallocarray(group->sets, group->n_sets + 1, sizeof(*sets));
	if (!sets)
		goto no_memory;
	group->sets = sets;
	if (lookup_insert(&store->sets, &set->entry, set->key, strlen(set->key)) < 0)
		goto no_memory;
	sets[group->n_sets++] = set;
	store->n_endpoints += count_endpoints(set);
	mark(store, group);
	return 0;

no_memory:
	kube_set_free(set);
	return -ENOMEM;
}

void store_delete_set(struct store *store, const char *key)
{
	struct kube_set *set = find_set(store, key);

	if (!set)
		return;
	unlink_set(store, set);
	kube_set_free(set);
}

void store_free(struct store *store)
{
	struct lookup_entry *entry;

	while ((entry = lookup_any(&store->sets))) {
		lookup_remove(&store->sets, entry);
		kube_set_free(lookup_object(entry, struct kube_set, entry));
	}
	while ((entry = lookup_any(&store->groups))) {
		struct group *group = lookup_object(entry, struct group, entry);

		kube_service_free(group->service);
		lookup_remove(&store->groups, entry);
		free(group->claims);
		free(group->sets);
		free(group->key);
		free(group);
	}
	lookup_free(&store->sets);
	lookup_free(&store->groups);
	*store = (struct store){};
}
