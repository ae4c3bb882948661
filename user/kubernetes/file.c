// SPDX-License-Identifier: GPL-2.0
/*
 * Services and endpoints from a file, as `kubectl get services,endpointslices -A -o json` prints
 * them.
 *
 * What a file holds is collected first and put into the store at the end, so that a file with an
 * error in its last line changes nothing. Endpoints (core/v1) count only where there is no
 * EndpointSlice: both say the same thing, one of them later.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kubernetes/decode_fields.h"
#include "kubernetes/internal.h"
#include "kubernetes/json_stream.h"

enum { READ_SIZE = 256 << 10 };

struct reader {
	struct kube *kube;
	const char *name;
	struct kube_list services, slices, endpoints;
	bool any;		/* something was read */
	bool some_selector;	/* a Service with a selector, which has slices therefore */
	uint64_t bytes;
};

static void free_stream(struct json_stream **stream)
{
	json_stream_free(*stream);
}

static void free_reader(struct reader *reader)
{
	kube_list_free(&reader->services);
	kube_list_free(&reader->slices);
	kube_list_free(&reader->endpoints);
}

/*
 * In a typed list the items do not say what they are, and what the list says may come after them.
 */
static const char *guess_kind(const json_t *object)
{
	if (json_object_get(object, "addressType"))
		return "EndpointSlice";
	if (json_object_get(object, "subsets"))
		return "Endpoints";
	return json_object_get(object, "spec") ? "Service" : NULL;
}

static int add_service(struct reader *reader, const json_t *object, struct error *err)
{
	struct kube_service *service;
	int r = decode_service(object, &service, err);

	if (r < 0)
		return r;
	reader->some_selector |= service->selector && service->type != KUBE_TYPE_EXTERNALNAME;
	return kube_list_add(&reader->services, service) < 0 ?
		       error_set(err, ENOMEM, "out of memory") :
		       0;
}

static int add_set(struct reader *reader, struct kube_list *list,
		   int (*decode)(const json_t *, const struct kube_place *, struct kube_set **,
				 struct error *),
		   const json_t *object, struct error *err)
{
	struct kube_set *set;
	int r = decode(object, &reader->kube->options.place, &set, err);

	if (r < 0 || !set)
		return r;
	return kube_list_add(list, set) < 0 ? error_set(err, ENOMEM, "out of memory") : 0;
}

static int add_object(struct reader *reader, const char *kind, const json_t *object,
		      struct error *err)
{
	if (!kind)
		return error_set(err, EINVAL, "an object without a kind");
	if (!strcmp(kind, "Service"))
		return add_service(reader, object, err);
	if (!strcmp(kind, "EndpointSlice"))
		return add_set(reader, &reader->slices, decode_slice, object, err);
	if (!strcmp(kind, "Endpoints"))
		return add_set(reader, &reader->endpoints, decode_endpoints, object, err);
	return error_set(err, EINVAL,
			 "kind \"%.64s\" is none of Service, EndpointSlice, Endpoints, List", kind);
}

/* "ServiceList" -> "Service". NULL: the list may hold anything. */
static const char *item_kind(const char *list_kind)
{
	if (!list_kind)
		return NULL;
	return !strcmp(list_kind, "ServiceList") ? "Service" :
	       !strcmp(list_kind, "EndpointSliceList") ? "EndpointSlice" :
	       !strcmp(list_kind, "EndpointsList") ? "Endpoints" : NULL;
}

static int read_item(void *arg, const json_t *list, const json_t *item, struct error *err)
{
	struct reader *reader = arg;
	const char *kind = NULL, *list_kind = NULL;
	int r;

	if (!json_is_object(item))
		return error_set(err, EINVAL, "items: an object is expected");
	r = json_get_string(list, "kind", &list_kind, err);
	if (r >= 0)
		r = json_get_string(item, "kind", &kind, err);
	if (r < 0)
		return r;
	return add_object(reader, kind ?: item_kind(list_kind) ?: guess_kind(item), item, err);
}

static int read_document(void *arg, const json_t *document, struct error *err)
{
	struct reader *reader = arg;
	const char *kind = NULL;
	bool lists;
	int r;

	reader->any = true;
	if (!json_is_object(document))
		return error_set(err, EINVAL, "an object is expected");
	r = json_get_string(document, "kind", &kind, err);
	if (r < 0)
		return r;
	lists = kind && (!strcmp(kind, "List") || item_kind(kind));
	if (!json_object_get(document, "items")) {
		if (lists)
			return error_set(err, EINVAL, "items: a list is expected, and nothing is there");
		return add_object(reader, kind, document, err);
	}
	if (kind && !lists)
		return error_set(err, EINVAL,
				 "kind \"%.64s\" is no list of Services or their endpoints", kind);
	return 0;
}

static const struct json_stream_calls stream_calls = { .item = read_item,
						       .document = read_document };

static void report_progress(struct reader *reader)
{
	struct kube_progress progress = {
		.resource = reader->name,
		.objects = reader->services.n_objects + reader->slices.n_objects +
			   reader->endpoints.n_objects,
		.bytes = reader->bytes,
	};

	if (reader->kube->calls.progress)
		reader->kube->calls.progress(reader->kube->arg, &progress);
}

static int read_stream(struct reader *reader, int fd, struct error *err)
{
	_cleanup_(free_stream) struct json_stream *stream = json_stream_new(&stream_calls, reader);
	_cleanup_(free_pointer) char *buffer = malloc(READ_SIZE);
	ssize_t n;
	int r;

	if (!stream || !buffer)
		return error_set(err, ENOMEM, "out of memory");
	for (;;) {
		n = read(fd, buffer, READ_SIZE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, errno, "%s", strerror(errno));
		if (!n)
			break;
		reader->bytes += n;
		r = json_stream_feed(stream, buffer, n, err);
		if (r < 0)
			return r;
		report_progress(reader);
	}
	r = json_stream_finish(stream, err);
	if (r >= 0 && !reader->any)
		r = error_set(err, EINVAL, "it is empty");
	return r;
}

/*
 * Into the store, now that all of it is good. A server is asked only for what is in scope, and a
 * file holds what it holds: the rest goes last, so that whether the picture is whole, and which of
 * the two kinds of endpoints counts, does not depend on the scope.
 */
static int keep_all(struct reader *reader, struct error *err)
{
	struct kube *kube = reader->kube;
	bool slices = reader->slices.n_objects, any = slices || reader->endpoints.n_objects;
	struct kube_list *sets = slices ? &reader->slices : &reader->endpoints;

	if (any && !reader->services.n_objects)
		kube_warn(kube, "%s: there are endpoints in it, but no Services: nothing is removed",
			  reader->name);
	/* kubectl prints an empty list, too, when it was not let read anything. */
	if (!any && !reader->services.n_objects)
		kube_warn(kube,
			  "%s: neither Services nor endpoints are in it: nothing is removed "
			  "(lbctl services del removes what is to go)",
			  reader->name);
	kube_detail(kube, "%s: %zu Services, %zu %s", reader->name, reader->services.n_objects,
		    sets->n_objects,
		    slices ? "EndpointSlices (discovery.k8s.io)" : "Endpoints (core/v1)");

	/*
	 * Services without any slice where there must be some: half of the truth, and nothing may
	 * be removed for it.
	 */
	kube->endpoints_known = any || !reader->some_selector;
	kube->known[KUBE_SERVICE] = reader->services.n_objects;
	kube->known[KUBE_SET] = kube->endpoints_known;
	if (!kube->endpoints_known)
		kube_warn(kube,
			  "%s: there are Services in it, but no endpoints: nothing is removed "
			  "(kubectl get services,endpointslices -A -o json prints both)",
			  reader->name);
	kube_list_narrow(&reader->services, kube, kube_key_in_scope);
	kube_list_narrow(sets, kube, kube_key_in_scope);
	if (store_replace(&kube->store, &reader->services) < 0 ||
	    store_replace(&kube->store, sets) < 0)
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

int kube_load_file(struct kube *kube, const char *path, struct error *err)
{
	_cleanup_(free_reader) struct reader reader = {
		.kube = kube,
		.name = strcmp(path, "-") ? path : "standard input",
		.services.kind = KUBE_SERVICE,
		.slices.kind = KUBE_SET,
		.endpoints.kind = KUBE_SET,
	};
	_cleanup_(close_fd) int file = -1;
	int r;

	if (strcmp(path, "-")) {
		file = open(path, O_RDONLY | O_CLOEXEC);
		if (file < 0)
			return error_set(err, errno, "%s: %s", path, strerror(errno));
	}
	r = read_stream(&reader, file >= 0 ? file : STDIN_FILENO, err);
	if (r < 0)
		return error_prefix(err, r, "%s", reader.name);
	return keep_all(&reader, err);
}
