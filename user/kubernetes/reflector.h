/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Keeps the store's copy of one resource like the API server's: list, then watch from the version
 * of the list, for ever.
 *
 *	list pages -> replace in the store -> watch -> (end or cut) watch again from there
 *	stream     -> replace in the store ---^     -> (410, in either form) list again
 *
 * Who is going to watch asks for the list as the beginning of the watch (a streaming list: all
 * objects as ADDED events, and a bookmark that says that these were all), which costs the server
 * less memory; where that is not to be had, for pages. A list takes effect as a whole, at its end; one that fails changes nothing. A bookmark moves the
 * version and nothing else. What the server says about time (Retry-After) is honoured, and failures
 * are spaced out by retry.h.
 */
#ifndef XLB_KUBERNETES_REFLECTOR_H
#define XLB_KUBERNETES_REFLECTOR_H

#include <jansson.h>

#include "kubernetes/api.h"
#include "kubernetes/internal.h"

struct reflector;

/* A resource of the API, and how its objects are read. */
struct resource {
	const char *name;	/* "services" */
	const char *kind;	/* of an object: "Service"; of a list: with "List" behind it */
	const char *version;	/* of the API, for people: "v1", "discovery.k8s.io/v1" */
	const char *prefix;	/* "/api/v1" */
	const char *selector;	/* for one Service: the query up to its name */
	enum kube_kind store_kind;
	/* *ret_object NULL: of no use */
	int (*decode)(const json_t *object, const struct kube_place *place, void **ret_object,
		      struct error *err);
};

struct reflector_calls {
	void (*listed)(void *arg);		/* the store holds it all */
	/* It failed, and will be tried again after delay_ms. */
	void (*failing)(void *arg, const struct api_result *result, unsigned int delay_ms);
	void (*working)(void *arg);		/* after failing(): the server answered again */
	/* only where not options.watch */
	void (*gave_up)(void *arg, const struct api_result *result);
	/*
	 * The resource does not exist (404). true: the reflector is being replaced, and rests; the
	 * callee says so, too.
	 */
	bool (*missing)(void *arg, const struct api_result *result);
};

/* resource, kube and api are borrowed. Starts to list at once. NULL: out of memory. */
struct reflector *reflector_new(const struct resource *resource, struct kube *kube, struct api *api,
				struct event_base *base, const struct reflector_calls *calls,
				void *arg);
void reflector_free(struct reflector *reflector);	/* NULL is fine */

#endif
