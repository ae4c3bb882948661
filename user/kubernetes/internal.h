/* SPDX-License-Identifier: GPL-2.0 */
/* struct kube, for the files of this folder that fill it. */
#ifndef XLB_KUBERNETES_INTERNAL_H
#define XLB_KUBERNETES_INTERNAL_H

#include "kubernetes/claims.h"
#include "kubernetes/kubernetes.h"
#include "kubernetes/store.h"

struct cluster;
struct health;

struct kube {
	struct kube_options options;
	struct kube_calls calls;
	void *arg;
	struct store store;
	struct claims claims;
	bool known[KUBE_KINDS];		/* by enum kube_kind: the first list has been read */
	bool endpoints_known;
	size_t n_ignored;		/* objects of lists that made no sense */
	/* when the first change that was not handed out yet was read; 0: none */
	uint64_t read_ns;
	struct cluster *cluster;	/* NULL: from a file */
	struct health *health;		/* NULL: health checks are not answered */

	/* What the last kube_next_change() handed out. */
	struct contest *contest;
	struct service after;
	char label[XLB_NAME_MAX];
};

/* One line to the calls, with whatever could move a terminal's cursor taken out. */
void kube_warn(struct kube *kube, const char *format, ...) __attribute__((format(printf, 2, 3)));
void kube_detail(struct kube *kube, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The store changed: tells the caller if everything is known by now. */
void kube_notify(struct kube *kube);
/* kube_in_scope() for the key of a Service, "namespace/name". */
bool kube_key_in_scope(const struct kube *kube, const char *key);
/* Replaces control characters. */
void kube_clean_text(char *text);

#endif
