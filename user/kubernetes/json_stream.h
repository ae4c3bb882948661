/* SPDX-License-Identifier: GPL-2.0 */
/*
 * JSON in pieces, as it comes from a socket or a file.
 *
 * A list of 100 MB as a tree needs more than a gigabyte. Here only one element of a top-level
 * object's "items" is a tree at a time; it is handed out as soon as its last brace has been read.
 * The same holds for a watch, which is one small document after the other.
 *
 * Refused, with the byte where it was noticed: what is not JSON or not UTF-8, duplicate keys,
 * NUL in strings, numbers that fit neither long long nor double, depth above 64, "items" that is no
 * list, and single values of more than 16 MB (the API server accepts objects of 3 MB at most).
 * "managedFields" and "ownerReferences", most of what an API server sends, are passed over.
 */
#ifndef XLB_KUBERNETES_JSON_STREAM_H
#define XLB_KUBERNETES_JSON_STREAM_H

#include <jansson.h>

#include "base/error.h"

struct json_stream;

struct json_stream_calls {
	/*
	 * An element of "items" of a top-level object. `list` is what was read of that object so
	 * far. Both are borrowed. An error ends the parse. NULL: "items" is nothing special.
	 */
	int (*item)(void *arg, const json_t *list, const json_t *item, struct error *err);
	/*
	 * A top-level value, whole, but for the items that item() was given (an empty list then).
	 */
	int (*document)(void *arg, const json_t *document, struct error *err);
};

/* NULL: out of memory. `calls` must outlive the stream. */
struct json_stream *json_stream_new(const struct json_stream_calls *calls, void *arg);
void json_stream_free(struct json_stream *stream);

/*
 * Parses what came. -EINVAL: bad JSON; else what a callback returned. After an error only freeing
 * is left.
 */
int json_stream_feed(struct json_stream *stream, const void *data, size_t size, struct error *err);
/* The input ended: -EINVAL where that was in the middle of a value. No input at all is fine. */
int json_stream_finish(struct json_stream *stream, struct error *err);

#endif
