/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A hash table whose entries live inside the objects that it finds. Keys are bytes that the object
 * owns and that do not change while it is in the table. The table owns nothing but its buckets.
 */
#ifndef XLB_KUBERNETES_LOOKUP_H
#define XLB_KUBERNETES_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

struct lookup_entry {
	struct lookup_entry *next;
	const void *key;
	size_t key_size;
	uint64_t hash;
};

struct lookup {
	struct lookup_entry **buckets;
	size_t n_buckets;	/* 0 or a power of two */
	size_t count;
};

/* The object that an entry is part of. */
#define lookup_object(entry, type, member) ((type *)((char *)(entry) - offsetof(type, member)))

void lookup_free(struct lookup *table);	/* the buckets only */
/* Adds; the key must not be there yet. -ENOMEM leaves the table as it was. */
int lookup_insert(struct lookup *table, struct lookup_entry *entry, const void *key,
		  size_t key_size);
struct lookup_entry *lookup_find(const struct lookup *table, const void *key, size_t key_size);
void lookup_remove(struct lookup *table, struct lookup_entry *entry);
/* Any entry, or NULL where there is none: for emptying a table. */
struct lookup_entry *lookup_any(const struct lookup *table);
/*
 * All entries: start with NULL; NULL at the end. What was returned may be removed before going on
 * only with lookup_any().
 */
struct lookup_entry *lookup_next(const struct lookup *table, const struct lookup_entry *previous);

#endif
