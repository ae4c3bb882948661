/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is known of the cluster: one kube_service and any number of kube_sets for each Service, and
 * which Services have changed since somebody looked.
 *
 * A group is everything that bears one Service's name, whether the Service itself is known yet or
 * not. It lives for as long as there is something in it. The store owns all objects that it is
 * given, and its memory grows with what the cluster holds, never with the number of events.
 */
#ifndef XLB_KUBERNETES_STORE_H
#define XLB_KUBERNETES_STORE_H

#include "kubernetes/objects.h"

struct claim;
struct health_check;
struct kube;

struct group {
	struct lookup_entry entry;
	char *key;			/* "namespace/name" of the Service */
	struct kube_service *service;	/* NULL: only endpoints are known */
	struct kube_set **sets;
	size_t n_sets;
	bool changed;			/* is on the list below */
	struct group *next_changed;

	/* Kept by claims.c. */
	struct claim *claims;		/* VIPs that this Service asks for */
	size_t n_claims;
	uint64_t warned;		/* hash of the warnings that were given last */
	struct health_check *health;	/* Kept by health.c; NULL: none */
};

struct store {
	struct lookup groups;
	struct lookup sets;
	struct group *first_changed, *last_changed;
	size_t n_services, n_endpoints;
};

void store_free(struct store *store);

/*
 * Takes over the object, also when it fails. What is equal to what is there changes nothing.
 * -ENOMEM.
 */
int store_put_service(struct store *store, struct kube_service *service);
int store_put_set(struct store *store, struct kube_set *set);
void store_delete_service(struct store *store, const char *key);
void store_delete_set(struct store *store, const char *key);

/* A whole list, collected before it replaces what the store holds. */
struct kube_list {
	enum kube_kind kind;
	void **objects;			/* struct kube_service or struct kube_set */
	size_t n_objects, allocated;
	/* keys of objects that could not be decoded: their last state stays */
	struct lookup kept;
};

/* takes over the object, also when it fails */
int kube_list_add(struct kube_list *list, void *object);
int kube_list_keep(struct kube_list *list, const char *key);
void kube_list_remove(struct kube_list *list, const char *key);	/* what is not there: fine */
/* Takes out what is about Services whose key is not wanted. */
void kube_list_narrow(struct kube_list *list, const struct kube *kube,
		      bool (*wanted)(const struct kube *kube, const char *key));
void kube_list_free(struct kube_list *list);
/*
 * Afterwards the store holds exactly what the list held; the list is empty. -ENOMEM: partly done.
 */
int store_replace(struct store *store, struct kube_list *list);

/* What groups mean has changed: every one counts as changed. */
void store_mark_all(struct store *store);
/*
 * The next group that changed, or NULL; it is taken off the list. Call store_release() when done
 * with it.
 */
struct group *store_next_changed(struct store *store);
void store_release(struct store *store, struct group *group);

#endif
