// SPDX-License-Identifier: GPL-2.0
/* What lists and watches say; declared in reflector_state.h. */
#include "kubernetes/reflector_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/cleanup.h"
#include "kubernetes/decode_fields.h"

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

void reflector_working(struct reflector *reflector)
{
	retry_success(&reflector->retry);
	if (reflector->failing)
		reflector->calls.working(reflector->arg);
	reflector->failing = false;
}

/* --- list --- */

/* An object that makes no sense is no reason to miss the others: what was known of it stays. */
static int collect(struct reflector *reflector, const json_t *item, struct error *err)
{
	_cleanup_(free_pointer) char *key = NULL;
	struct error item_err;
	void *object;
	int r = reflector->resource->decode(item, &reflector->kube->options.place, &object,
					    &item_err);

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

static int on_item(void *arg, const json_t *list, const json_t *item, struct error *err)
{
	(void)list;
	return collect(arg, item, err);
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

const struct json_stream_calls reflector_list_calls = { .item = on_item, .document = on_list };

void reflector_forget_list(struct reflector *reflector)
{
	kube_list_free(&reflector->list);
	free(reflector->next_page);
	reflector->next_page = NULL;
	reflector->list_bytes = 0;
}

/* All is known: what the list says, and nothing else, counts from now on. */
int reflector_take_list(struct reflector *reflector, struct error *err)
{
	struct kube *kube = reflector->kube;

	if (store_replace(&kube->store, &reflector->list) < 0)
		return error_set(err, ENOMEM, "out of memory");
	reflector_forget_list(reflector);
	reflector->whole = false;
	reflector_working(reflector);
	kube->known[reflector->resource->store_kind] = true;
	if (kube->options.watch)
		reflector->phase = PHASE_WATCH;
	return 0;
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

/* The same before all is known: things may change while they are told. */
static int collect_event(struct reflector *reflector, const char *type, const json_t *object,
			 struct error *err)
{
	_cleanup_(free_pointer) char *key = NULL;
	int r = decode_key(object, &key, err);

	if (r < 0)
		return r;
	if (strcmp(type, "ADDED"))
		kube_list_remove(&reflector->list, key);
	return strcmp(type, "DELETED") ? collect(reflector, object, err) : 0;
}

/* A bookmark moves the version; a certain one says that all there is has been told. */
static int apply_bookmark(struct reflector *reflector, const json_t *object, struct error *err)
{
	const char *end = NULL;
	int r = decode_metadata_text(object, "annotations", "k8s.io/initial-events-end", &end, err);

	if (r < 0 || reflector->phase == PHASE_WATCH)
		return r;
	if (!end || strcmp(end, "true"))
		return error_set(err, EOPNOTSUPP, "a bookmark, but not at the end of the list");
	r = reflector_take_list(reflector, err);
	if (r >= 0) {
		evtimer_del(reflector->timer);
		reflector->calls.listed(reflector->arg);
	}
	return r;
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
			r = reflector->phase == PHASE_STREAM ?
				    collect_event(reflector, type, object, err) :
				    apply_event(reflector, !strcmp(type, "DELETED"), object, err);
	} else if (!strcmp(type, "BOOKMARK"))
		r = apply_bookmark(reflector, object, err);
	else
		return error_set(err, EINVAL, "a watch event of type \"%.32s\"", type);
	return r < 0 ? r : take_text(object, "resourceVersion", &reflector->version, err);
}

const struct json_stream_calls reflector_watch_calls = { .document = on_event };
