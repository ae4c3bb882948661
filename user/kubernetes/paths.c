// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/paths.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

enum { PAGE = 500 };

/*
 * "/api/v1/namespaces/NS/services?fieldSelector=metadata.name=NAME" as far as the scope goes, and a
 * ? or & at the end.
 */
static char *scope(const struct resource *resource, const struct kube_options *options)
{
	const char *slash = options->service ? strchr(options->service, '/') : NULL;
	const char *namespace = slash ? options->service : options->namespace;
	char *path;
	int r;

	if (slash)
		r = asprintf(&path, "%s/namespaces/%.*s/%s?%s%s&", resource->prefix,
			     (int)(slash - namespace), namespace, resource->name,
			     resource->selector, slash + 1);
	else if (namespace)
		r = asprintf(&path, "%s/namespaces/%s/%s?", resource->prefix, namespace,
			     resource->name);
	else
		r = asprintf(&path, "%s/%s?", resource->prefix, resource->name);
	return r < 0 ? NULL : path;
}

char *paths_list(const struct resource *resource, const struct kube_options *options,
		 const char *next_page)
{
	_cleanup_(free_pointer) char *base = scope(resource, options);
	_cleanup_(free_pointer) char *token = next_page ? api_escape(next_page) : NULL;
	char *path;

	if (!base || (next_page && !token) ||
	    asprintf(&path, "%slimit=%d%s%s", base, PAGE, token ? "&continue=" : "",
		     token ?: "") < 0)
		return NULL;
	return path;
}

char *paths_whole_list(const struct resource *resource, const struct kube_options *options)
{
	return scope(resource, options);
}

char *paths_stream(const struct resource *resource, const struct kube_options *options,
		   unsigned int timeout_s)
{
	_cleanup_(free_pointer) char *base = scope(resource, options);
	char *path;

	if (!base || asprintf(&path,
			      "%swatch=1&sendInitialEvents=true&allowWatchBookmarks=true"
			      "&resourceVersionMatch=NotOlderThan&timeoutSeconds=%u",
			      base, timeout_s) < 0)
		return NULL;
	return path;
}

char *paths_watch(const struct resource *resource, const struct kube_options *options,
		  const char *version, unsigned int timeout_s)
{
	_cleanup_(free_pointer) char *base = scope(resource, options);
	_cleanup_(free_pointer) char *escaped = version ? api_escape(version) : NULL;
	char *path;

	if (!base || !escaped ||
	    asprintf(&path,
		     "%swatch=1&allowWatchBookmarks=true&resourceVersion=%s&timeoutSeconds=%u",
		     base, escaped, timeout_s) < 0)
		return NULL;
	return path;
}
