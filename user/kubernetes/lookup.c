// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/lookup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 64 };

/*
 * FNV-1a. Its low bits are good enough for names; whoever may name objects may fill the cluster
 * with them anyway.
 */
static uint64_t hash_key(const void *key, size_t size)
{
	const unsigned char *byte = key;
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ byte[i]) * 0x100000001b3;
	return hash ^ hash >> 32;
}

void lookup_free(struct lookup *table)
{
	free(table->buckets);
	*table = (struct lookup){};
}

static int grow(struct lookup *table)
{
	size_t n = table->n_buckets ? table->n_buckets * 2 : FIRST_BUCKETS;
	struct lookup_entry **buckets = calloc(n, sizeof(*buckets));

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < table->n_buckets; i++) {
		struct lookup_entry *entry = table->buckets[i], *next;

		for (; entry; entry = next) {
			next = entry->next;
			entry->next = buckets[entry->hash & (n - 1)];
			buckets[entry->hash & (n - 1)] = entry;
		}
	}
	free(table->buckets);
	table->buckets = buckets;
	table->n_buckets = n;
	return 0;
}

int lookup_insert(struct lookup *table, struct lookup_entry *entry, const void *key,
		  size_t key_size)
{
	struct lookup_entry **bucket;

	if (table->count >= table->n_buckets && grow(table) < 0)
		return -ENOMEM;
	entry->key = key;
	entry->key_size = key_size;
	entry->hash = hash_key(key, key_size);
	bucket = &table->buckets[entry->hash & (table->n_buckets - 1)];
	entry->next = *bucket;
	*bucket = entry;
	table->count++;
	return 0;
}

struct lookup_entry *lookup_find(const struct lookup *table, const void *key, size_t key_size)
{
	uint64_t hash = hash_key(key, key_size);
	struct lookup_entry *entry;

	if (!table->n_buckets)
		return NULL;
	for (entry = table->buckets[hash & (table->n_buckets - 1)]; entry; entry = entry->next)
		if (entry->hash == hash && entry->key_size == key_size &&
		    !memcmp(entry->key, key, key_size))
			return entry;
	return NULL;
}

void lookup_remove(struct lookup *table, struct lookup_entry *entry)
{
	struct lookup_entry **link = &table->buckets[entry->hash & (table->n_buckets - 1)];

	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	table->count--;
}

static struct lookup_entry *first_from(const struct lookup *table, size_t bucket)
{
	for (; bucket < table->n_buckets; bucket++)
		if (table->buckets[bucket])
			return table->buckets[bucket];
	return NULL;
}

struct lookup_entry *lookup_any(const struct lookup *table)
{
	return first_from(table, 0);
}

struct lookup_entry *lookup_next(const struct lookup *table, const struct lookup_entry *previous)
{
	if (!previous)
		return first_from(table, 0);
	if (previous->next)
		return previous->next;
	return first_from(table, (previous->hash & (table->n_buckets - 1)) + 1);
}
