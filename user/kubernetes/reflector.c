// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/reflector.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/cleanup.h"
#include "kubernetes/clock.h"
#include "kubernetes/decode_fields.h"
#include "kubernetes/json_stream.h"
#include "kubernetes/retry.h"

enum {
	PAGE = 500,
	WATCH_MIN_S = 300,
	WATCH_SPAN_S = 300,
	HTTP_GONE = 410,
};

/*
 * A watch that ended sooner than this is a failure: a server that always does it must not be asked
 * in a tight loop.
 */
static const uint64_t watch_shortest_ns = 1000000000;
static const uint64_t expired_apart_ns = 10ull * 1000000000;

struct reflector {
	const struct resource *resource;
	struct kube *kube;
	struct api *api;
	struct reflector_calls calls;
	void *arg;
	struct event *timer;		/* the next request is due */
	struct api_request *request;
	struct json_stream *stream;	/* of the answer under way */
	struct retry retry;
	bool failing;

	bool watching;			/* else listing */
	/* this list is taken in one piece: a 410 came between pages */
	bool whole;
	bool page_read;			/* the answer under way was a list indeed */
	char *version;			/* resourceVersion to watch from */
	char *next_page;		/* token; NULL: the first page, or the last one was read */
	struct kube_list list;		/* what the pages held so far */
	uint64_t list_bytes;
	uint64_t expired_ns;		/* when a 410 came last; 0: never */
	long watch_error;		/* code of an ERROR event; 0: none */
};

static void begin(struct reflector *reflector);

/* --- what both lists and watches hold --- */

static int take_text(const json_t *object, const char *key, char **text, struct error *err)
{
	const char *value = NULL;
	char *copy;
	int r = json_get_string(json_object_get(object, "metadata"), key, &value, err);

	if (r >= 0)
		r = decode_text(value && *value ? value : NULL, &copy, err);
	if (r < 0)
		return r;
	free(*text);
	*text = copy;
	return 0;
}

static int check_kind(const json_t *object, const char *expected, const char *suffix,
		      struct error *err)
{
	const char *kind = NULL;
	int r = json_get_string(object, "kind", &kind, err);
	size_t length = strlen(expected);

	if (r >= 0 && (!kind || strncmp(kind, expected, length) || strcmp(kind + length, suffix)))
		r = error_set(err, EINVAL, "kind: %s%s is expected, this is \"%.64s\"", expected,
			      suffix, kind ?: "");
	return r;
}

/* --- list --- */

/* An object that makes no sense is no reason to miss the others: what was known of it stays. */
static int on_item(void *arg, const json_t *list, const json_t *item, struct error *err)
{
	struct reflector *reflector = arg;
	_cleanup_(free_pointer) char *key = NULL;
	struct error item_err;
	void *object;
	int r = reflector->resource->decode(item, &reflector->kube->options.place, &object,
					    &item_err);

	(void)list;
	if (r >= 0)
		r = object ? kube_list_add(&reflector->list, object) : 0;
	else if (r == -EINVAL && decode_key(item, &key, err) >= 0) {
		kube_warn(reflector->kube, "%s: ignored", item_err.text);
		reflector->kube->n_ignored++;
		r = kube_list_keep(&reflector->list, key);
	} else
		*err = item_err;
	return r == -ENOMEM ? error_set(err, ENOMEM, "out of memory") : r;
}

static int on_list(void *arg, const json_t *document, struct error *err)
{
	struct reflector *reflector = arg;
	int r = check_kind(document, reflector->resource->kind, "List", err);

	if (r >= 0 && !json_is_array(json_object_get(document, "items")))
		r = error_set(err, EINVAL, "items are missing");
	if (r >= 0)
		r = take_text(document, "resourceVersion", &reflector->version, err);
	if (r >= 0)
		r = take_text(document, "continue", &reflector->next_page, err);
	reflector->page_read = r >= 0;
	return r;
}

static const struct json_stream_calls list_calls = { .item = on_item, .document = on_list };

static void forget_list(struct reflector *reflector)
{
	kube_list_free(&reflector->list);
	free(reflector->next_page);
	reflector->next_page = NULL;
	reflector->list_bytes = 0;
}

/* --- watch --- */

static int apply_event(struct reflector *reflector, bool deleted, const json_t *object,
		       struct error *err)
{
	struct store *store = &reflector->kube->store;
	enum kube_kind kind = reflector->resource->store_kind;
	_cleanup_(free_pointer) char *key = NULL;
	struct error object_err;
	void *decoded = NULL;
	int r;

	r = decode_key(object, &key, err);
	if (r < 0)
		return r;
	if (!deleted) {
		r = reflector->resource->decode(object, &reflector->kube->options.place, &decoded,
						&object_err);
		if (r == -EINVAL) {
			kube_warn(reflector->kube, "%s: ignored", object_err.text);
			return 0;
		}
		if (r < 0)
			return error_set(err, -r, "%s", object_err.text);
	}
	if (decoded)
		r = kind == KUBE_SERVICE ? store_put_service(store, decoded) :
					   store_put_set(store, decoded);
	else if (kind == KUBE_SERVICE)
		store_delete_service(store, key);
	else
		store_delete_set(store, key);
	return r < 0 ? error_set(err, -r, "out of memory") : 0;
}

static int apply_error(struct reflector *reflector, const json_t *status, struct error *err)
{
	const char *message = NULL;
	long long code = 0;
	int r = json_get_integer(status, "code", 0, 999, 500, &code, err);

	if (r >= 0)
		r = json_get_string(status, "message", &message, err);
	if (r < 0)
		return r;
	reflector->watch_error = code ?: 500;
	return error_set(err, code == HTTP_GONE ? ESTALE : EREMOTEIO, "%lld to the watch of %s: %s",
			 code, reflector->resource->name, message ?: "");
}

static int on_event(void *arg, const json_t *event, struct error *err)
{
	struct reflector *reflector = arg;
	const char *type = NULL;
	const json_t *object = NULL;
	int r = 0;

	if (!json_is_object(event))
		return error_set(err, EINVAL, "a watch event is expected");
	r = json_get_string(event, "type", &type, err);
	if (r >= 0)
		r = json_get_object(event, "object", &object, err);
	if (r < 0)
		return r;
	if (!type || !object)
		return error_set(err, EINVAL, "a watch event without a type or an object");
	if (!strcmp(type, "ERROR"))
		return apply_error(reflector, object, err);
	if (!strcmp(type, "ADDED") || !strcmp(type, "MODIFIED") || !strcmp(type, "DELETED")) {
		r = check_kind(object, reflector->resource->kind, "", err);
		if (r >= 0)
			r = apply_event(reflector, !strcmp(type, "DELETED"), object, err);
	} else if (strcmp(type, "BOOKMARK"))
		return error_set(err, EINVAL, "a watch event of type \"%.32s\"", type);
	return r < 0 ? r : take_text(object, "resourceVersion", &reflector->version, err);
}

static const struct json_stream_calls watch_calls = { .document = on_event };

/* --- requests --- */

static void work_again(struct reflector *reflector)
{
	retry_success(&reflector->retry);
	if (reflector->failing)
		reflector->calls.working(reflector->arg);
	reflector->failing = false;
}

/* A watch may have nothing to say for a long time; that it was accepted is enough. */
static void on_started(void *arg)
{
	struct reflector *reflector = arg;

	if (reflector->watching)
		work_again(reflector);
}

static int on_data(void *arg, const void *data, size_t size, struct error *err)
{
	struct reflector *reflector = arg;
	struct kube *kube = reflector->kube;
	int r;

	if (!kube->read_ns)
		kube->read_ns = clock_now_ns();
	if (!reflector->watching)
		reflector->list_bytes += size;
	r = json_stream_feed(reflector->stream, data, size, err);
	if (r < 0)
		return r == -ESTALE || r == -EREMOTEIO ?
			       r :
			       error_prefix(err, r, "%s", reflector->resource->name);
	if (reflector->watching)
		kube_notify(kube);
	else if (kube->calls.progress) {
		struct kube_progress progress = {
			.resource = reflector->resource->name,
			.objects = reflector->list.n_objects,
			.bytes = reflector->list_bytes,
		};

		kube->calls.progress(kube->arg, &progress);
	}
	return 0;
}

static void wait_for(struct reflector *reflector, unsigned int delay_ms)
{
	struct timeval delay = { .tv_sec = delay_ms / 1000, .tv_usec = delay_ms % 1000 * 1000 };

	evtimer_add(reflector->timer, &delay);
}

static void on_failure(struct reflector *reflector, const struct api_result *result)
{
	bool patient = reflector->kube->options.watch;
	unsigned int delay_ms = 0;

	if (!reflector->watching)
		forget_list(reflector);
	if (result->status == 404 && reflector->calls.missing(reflector->arg, result))
		return;
	if (!retry_after_failure(&reflector->retry, result, patient, clock_now_ns(), &delay_ms)) {
		reflector->calls.gave_up(reflector->arg, result);
		return;
	}
	if (delay_ms) {
		reflector->failing = true;
		reflector->calls.failing(reflector->arg, result, delay_ms);
	}
	wait_for(reflector, delay_ms);
}

/* The last page has been read: what it all says counts from now on. */
static void finish_list(struct reflector *reflector)
{
	struct kube *kube = reflector->kube;
	struct api_result result = {};

	if (store_replace(&kube->store, &reflector->list) < 0) {
		result.code = error_set(&result.error, ENOMEM, "out of memory");
		on_failure(reflector, &result);
		return;
	}
	forget_list(reflector);
	reflector->whole = false;
	work_again(reflector);
	kube->known[reflector->resource->store_kind] = true;
	if (kube->options.watch) {
		reflector->watching = true;
		begin(reflector);
	}
	reflector->calls.listed(reflector->arg);
}

static void on_list_done(struct reflector *reflector, struct api_result *result)
{
	if (result->status == HTTP_GONE && reflector->next_page && !reflector->whole) {
		kube_detail(reflector->kube,
			    "%s: the list expired between two pages: taking it in one piece",
			    reflector->resource->name);
		forget_list(reflector);
		reflector->whole = true;
		begin(reflector);
		return;
	}
	if (result->code >= 0 && result->status == 200) {
		result->code = json_stream_finish(reflector->stream, &result->error);
		if (result->code >= 0 && !reflector->page_read)
			result->code = error_set(&result->error, EINVAL, "the answer is empty");
		if (result->code < 0)
			error_prefix(&result->error, result->code, "%s", reflector->resource->name);
	}
	if (result->code < 0 || result->status != 200)
		on_failure(reflector, result);
	else if (reflector->next_page)
		begin(reflector);
	else
		finish_list(reflector);
}

/* At once, unless it happens again and again: then the server is given time. */
static void on_expired(struct reflector *reflector, const struct api_result *result)
{
	uint64_t now_ns = clock_now_ns();
	bool again = reflector->expired_ns && now_ns - reflector->expired_ns < expired_apart_ns;

	kube_detail(reflector->kube, "%s: the version is too old to watch from: listing again",
		    reflector->resource->name);
	reflector->expired_ns = now_ns;
	reflector->watching = false;
	if (again)
		on_failure(reflector, result);
	else
		begin(reflector);
}

static void on_watch_done(struct reflector *reflector, struct api_result *result)
{
	bool answered = result->status == 200;

	if (result->status == HTTP_GONE || reflector->watch_error == HTTP_GONE) {
		on_expired(reflector, result);
		return;
	}
	/* What made no sense in a stream may make sense in a list. */
	if (result->code == -EINVAL)
		reflector->watching = false;
	/* The end of a stream, clean or cut, is daily life: go on from the last version. */
	if (answered && reflector->watching && !reflector->watch_error &&
	    result->lasted_ns >= watch_shortest_ns) {
		begin(reflector);
		return;
	}
	if (answered && result->code >= 0)
		error_set(&result->error, ECONNRESET, "the watch of %s ended at once",
			  reflector->resource->name);
	on_failure(reflector, result);
}

static void on_done(void *arg, const struct api_result *result)
{
	struct reflector *reflector = arg;
	struct api_result copy = *result;

	reflector->request = NULL;
	kube_clean_text(copy.error.text);
	if (reflector->watching)
		on_watch_done(reflector, &copy);
	else
		on_list_done(reflector, &copy);
}

/*
 * "/api/v1/namespaces/NS/services?fieldSelector=metadata.name=NAME" as far as the scope goes, and a
 * ? or & at the end.
 */
static char *make_path(const struct reflector *reflector)
{
	const struct resource *resource = reflector->resource;
	const struct kube_options *options = &reflector->kube->options;
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

static char *make_list_path(const struct reflector *reflector)
{
	_cleanup_(free_pointer) char *base = make_path(reflector);
	_cleanup_(free_pointer) char *token =
		reflector->next_page ? api_escape(reflector->next_page) : NULL;
	char *path;
	int r;

	if (!base || (reflector->next_page && !token))
		return NULL;
	if (reflector->whole)
		return steal_pointer(&base);
	r = asprintf(&path, "%slimit=%d%s%s", base, PAGE, token ? "&continue=" : "", token ?: "");
	return r < 0 ? NULL : path;
}

static char *make_watch_path(const struct reflector *reflector, unsigned int timeout_s)
{
	_cleanup_(free_pointer) char *base = make_path(reflector);
	_cleanup_(free_pointer) char *version = api_escape(reflector->version);
	char *path;

	if (!base || !version ||
	    asprintf(&path,
		     "%swatch=1&allowWatchBookmarks=true&resourceVersion=%s&timeoutSeconds=%u",
		     base, version, timeout_s) < 0)
		return NULL;
	return path;
}

static void begin(struct reflector *reflector)
{
	static const struct api_calls calls = { .started = on_started,
						.data = on_data,
						.done = on_done };
	_cleanup_(free_pointer) char *path = NULL;
	unsigned int timeout_s = reflector->kube->options.watch_timeout_s ?:
				 WATCH_MIN_S + retry_random(WATCH_SPAN_S);
	struct api_result result = {};

	json_stream_free(reflector->stream);
	reflector->stream =
		json_stream_new(reflector->watching ? &watch_calls : &list_calls, reflector);
	reflector->watch_error = 0;
	reflector->page_read = false;
	if (reflector->watching)
		path = make_watch_path(reflector, timeout_s);
	else
		path = make_list_path(reflector);
	if (path && reflector->stream &&
	    api_get(reflector->api, path, reflector->watching ? timeout_s : 0,
		    &calls, reflector, &reflector->request) >= 0)
		return;
	result.code = error_set(&result.error, ENOMEM, "out of memory");
	on_failure(reflector, &result);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	begin(arg);
}

struct reflector *reflector_new(const struct resource *resource, struct kube *kube, struct api *api,
				struct event_base *base, const struct reflector_calls *calls,
				void *arg)
{
	struct reflector *reflector = calloc(1, sizeof(*reflector));

	if (!reflector)
		return NULL;
	*reflector = (struct reflector){
		.resource = resource, .kube = kube, .api = api, .calls = *calls, .arg = arg,
		.list.kind = resource->store_kind,
	};
	reflector->timer = evtimer_new(base, on_timer, reflector);
	if (!reflector->timer) {
		free(reflector);
		return NULL;
	}
	wait_for(reflector, 0);
	return reflector;
}

void reflector_free(struct reflector *reflector)
{
	if (!reflector)
		return;
	api_cancel(reflector->request);
	json_stream_free(reflector->stream);
	event_free(reflector->timer);
	kube_list_free(&reflector->list);
	free(reflector->version);
	free(reflector->next_page);
	free(reflector);
}
