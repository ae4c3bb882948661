/* SPDX-License-Identifier: GPL-2.0 */
/* What a reflector asks for, as paths of URLs. The caller frees; NULL: out of memory. */
#ifndef XLB_KUBERNETES_PATHS_H
#define XLB_KUBERNETES_PATHS_H

#include "kubernetes/reflector.h"

/* A page; next_page: the token that the last one ended with, or NULL. */
char *paths_list(const struct resource *resource, const struct kube_options *options,
		 const char *next_page);
char *paths_whole_list(const struct resource *resource, const struct kube_options *options);
/* A watch that begins with all that there is, and says when that was all. */
char *paths_stream(const struct resource *resource, const struct kube_options *options,
		   unsigned int timeout_s);
char *paths_watch(const struct resource *resource, const struct kube_options *options,
		  const char *version, unsigned int timeout_s);

#endif
