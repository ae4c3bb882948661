// SPDX-License-Identifier: GPL-2.0
/* Whole lists, and how one takes the place of what the store holds; declared in store.h. */
#include "kubernetes/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A key without an object. */
struct mark {
	struct lookup_entry entry;
	char key[];
};

static void free_object(enum kube_kind kind, void *object)
{
	if (kind == KUBE_SERVICE)
		kube_service_free(object);
	else
		kube_set_free(object);
}

static const char *object_key(enum kube_kind kind, const void *object)
{
	return kind == KUBE_SERVICE ? ((const struct kube_service *)object)->key :
				      ((const struct kube_set *)object)->key;
}

/* The key of the Service that it is about. */
static const char *service_key(enum kube_kind kind, const void *object)
{
	return kind == KUBE_SERVICE ? object_key(kind, object) :
				      ((const struct kube_set *)object)->service;
}

static int add_mark(struct lookup *marks, const char *key)
{
	size_t size = strlen(key);
	struct mark *mark;

	if (lookup_find(marks, key, size))
		return 0;
	mark = malloc(sizeof(*mark) + size + 1);
	if (!mark)
		return -ENOMEM;
	memcpy(mark->key, key, size + 1);
	if (lookup_insert(marks, &mark->entry, mark->key, size) < 0) {
		free(mark);
		return -ENOMEM;
	}
	return 0;
}

static void free_marks(struct lookup *marks)
{
	struct lookup_entry *entry;

	while ((entry = lookup_any(marks))) {
		lookup_remove(marks, entry);
		free(lookup_object(entry, struct mark, entry));
	}
	lookup_free(marks);
}

int kube_list_add(struct kube_list *list, void *object)
{
	if (list->n_objects == list->allocated) {
		size_t n = list->allocated ? list->allocated * 2 : 64;
		void **objects = reallocarray(list->objects, n, sizeof(*objects));

		if (!objects) {
			free_object(list->kind, object);
			return -ENOMEM;
		}
		list->objects = objects;
		list->allocated = n;
	}
	list->objects[list->n_objects++] = object;
	return 0;
}

void kube_list_remove(struct kube_list *list, const char *key)
{
	struct lookup_entry *kept = lookup_find(&list->kept, key, strlen(key));
	size_t left = 0;

	if (kept) {
		lookup_remove(&list->kept, kept);
		free(lookup_object(kept, struct mark, entry));
	}
	for (size_t i = 0; i < list->n_objects; i++) {
		if (strcmp(object_key(list->kind, list->objects[i]), key))
			list->objects[left++] = list->objects[i];
		else
			free_object(list->kind, list->objects[i]);
	}
	list->n_objects = left;
}

void kube_list_narrow(struct kube_list *list, const struct kube *kube,
		      bool (*wanted)(const struct kube *kube, const char *key))
{
	size_t left = 0;

	for (size_t i = 0; i < list->n_objects; i++) {
		if (wanted(kube, service_key(list->kind, list->objects[i])))
			list->objects[left++] = list->objects[i];
		else
			free_object(list->kind, list->objects[i]);
	}
	list->n_objects = left;
}

int kube_list_keep(struct kube_list *list, const char *key)
{
	return add_mark(&list->kept, key);
}

void kube_list_free(struct kube_list *list)
{
	for (size_t i = 0; i < list->n_objects; i++)
		free_object(list->kind, list->objects[i]);
	free(list->objects);
	free_marks(&list->kept);
	*list = (struct kube_list){ .kind = list->kind };
}

static int put(struct store *store, enum kube_kind kind, void *object)
{
	return kind == KUBE_SERVICE ? store_put_service(store, object) :
				      store_put_set(store, object);
}

/* Deletes what is in the store and not among the marks. */
static int delete_others(struct store *store, enum kube_kind kind, const struct lookup *marks)
{
	const struct lookup *held = kind == KUBE_SERVICE ? &store->groups : &store->sets;
	struct lookup gone = {};
	struct lookup_entry *entry;
	int r = 0;

	/* First the names, then the deeds: a table must not shrink while it is walked. */
	for (entry = lookup_next(held, NULL); entry && r >= 0; entry = lookup_next(held, entry))
		if (!lookup_find(marks, entry->key, entry->key_size))
			r = add_mark(&gone, entry->key);
	for (entry = lookup_next(&gone, NULL); entry && r >= 0; entry = lookup_next(&gone, entry)) {
		if (kind == KUBE_SERVICE)
			store_delete_service(store, entry->key);
		else
			store_delete_set(store, entry->key);
	}
	free_marks(&gone);
	return r;
}

int store_replace(struct store *store, struct kube_list *list)
{
	int r = 0;

	for (size_t i = 0; i < list->n_objects && r >= 0; i++)
		r = kube_list_keep(list, object_key(list->kind, list->objects[i]));
	if (r >= 0)
		r = delete_others(store, list->kind, &list->kept);
	for (size_t i = 0; i < list->n_objects && r >= 0; i++) {
		r = put(store, list->kind, list->objects[i]);
		list->objects[i] = NULL;
	}
	kube_list_free(list);
	return r;
}
