// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/json_stream.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <yajl/yajl_parse.h>

enum {
	DEPTH_MAX = 64,
	NUMBER_TEXT_MAX = 64,
	VALUE_MAX = 16 << 20,	/* bytes of one element, and between two tokens */
	CHUNK = 64 << 10,
};

/* An object or array that is not closed yet. */
struct frame {
	json_t *value;
	char *key;		/* objects: whose value comes next */
	size_t key_allocated;
};

struct json_stream {
	const struct json_stream_calls *calls;
	void *arg;
	yajl_handle parser;
	struct frame frames[DEPTH_MAX];
	unsigned int depth;
	unsigned int skipped;	/* containers open below a key that is passed over */
	bool skip_next;		/* the next value belongs to such a key */
	size_t value_bytes;	/* of the element under construction */
	size_t silent_bytes;	/* read since the last token */
	size_t total_bytes;	/* read before this chunk */
	struct error *err;	/* of the call under way */
	int result;		/* what stopped the parser */
};

static const char *const passed_over[] = { "managedFields", "ownerReferences" };

static int stop(struct json_stream *stream, int result)
{
	stream->result = result;
	return 0;
}

static int refuse(struct json_stream *stream, const char *what)
{
	return stop(stream, error_set(stream->err, EINVAL, "%s", what));
}

/* Whether this value is not wanted; delta: +1 opens, -1 closes a container, 0 is a plain value. */
static bool skip(struct json_stream *stream, int delta)
{
	stream->silent_bytes = 0;
	if (stream->skipped) {
		stream->skipped += delta;
		return true;
	}
	if (!stream->skip_next)
		return false;
	stream->skip_next = false;
	if (delta > 0)
		stream->skipped = 1;
	return true;
}

/* Whether the container on top is the list of items of a top-level object. */
static bool in_items(const struct json_stream *stream)
{
	return stream->calls->item && stream->depth == 2 &&
	       json_is_object(stream->frames[0].value) && json_is_array(stream->frames[1].value) &&
	       !strcmp(stream->frames[0].key, "items");
}

/* A value is complete: it goes to its parent or out. Takes over the reference. */
static int place(struct json_stream *stream, json_t *value)
{
	struct frame *parent;
	int r = 0;

	if (!value)
		return stop(stream, error_set(stream->err, ENOMEM, "out of memory"));
	if (!stream->depth) {
		r = stream->calls->document(stream->arg, value, stream->err);
		json_decref(value);
		stream->value_bytes = 0;
		return r < 0 ? stop(stream, r) : 1;
	}

	parent = &stream->frames[stream->depth - 1];
	if (in_items(stream)) {
		r = stream->calls->item(stream->arg, stream->frames[0].value, value, stream->err);
		json_decref(value);
		stream->value_bytes = 0;
		return r < 0 ? stop(stream, r) : 1;
	}
	if (json_is_array(parent->value))
		r = json_array_append_new(parent->value, value);
	else if (stream->depth == 1 && stream->calls->item && !strcmp(parent->key, "items") &&
		 !json_is_array(value)) {
		json_decref(value);
		return refuse(stream, "items: a list is expected");
	} else
		r = json_object_set_new_nocheck(parent->value, parent->key, value);
	return r < 0 ? stop(stream, error_set(stream->err, ENOMEM, "out of memory")) : 1;
}

static int scalar(struct json_stream *stream, size_t size, json_t *value)
{
	stream->value_bytes += size;
	if (stream->value_bytes > VALUE_MAX) {
		json_decref(value);
		return refuse(stream, "an object of more than 16 MB");
	}
	return place(stream, value);
}

static int on_null(void *context)
{
	return skip(context, 0) ? 1 : scalar(context, 4, json_null());
}

static int on_boolean(void *context, int value)
{
	return skip(context, 0) ? 1 : scalar(context, 4, json_boolean(value));
}

static int on_number(void *context, const char *text, size_t size)
{
	struct json_stream *stream = context;
	char copy[NUMBER_TEXT_MAX];
	long long integer;
	double real;

	if (skip(stream, 0))
		return 1;
	if (size >= sizeof(copy))
		return refuse(stream, "a number of more than 63 digits");
	memcpy(copy, text, size);
	copy[size] = 0;
	errno = 0;
	if (!strpbrk(copy, ".eE")) {
		integer = strtoll(copy, NULL, 10);
		if (errno == ERANGE)
			return stop(stream, error_set(stream->err, EINVAL,
						      "number %s is out of range", copy));
		return scalar(stream, size, json_integer(integer));
	}
	real = strtod(copy, NULL);
	if (!isfinite(real))
		return stop(stream,
			    error_set(stream->err, EINVAL, "number %s is out of range", copy));
	return scalar(stream, size, json_real(real));
}

/*
 * NUL, as \u0000, is in order in an annotation, but not in anything that is looked at, and would end it
 * early. U+FFFD stands for it, which is in no name, address or wish either.
 */
static json_t *string_without_nul(const char *text, size_t size)
{
	static const char replacement[] = "\xef\xbf\xbd";
	char *copy = malloc(size * sizeof(replacement)), *end = copy;
	json_t *value;

	if (!copy)
		return NULL;
	for (size_t i = 0; i < size; i++) {
		if (text[i])
			*end++ = text[i];
		else
			end = stpcpy(end, replacement);
	}
	value = json_stringn_nocheck(copy, end - copy);
	free(copy);
	return value;
}

static int on_string(void *context, const unsigned char *text, size_t size)
{
	struct json_stream *stream = context;

	if (skip(stream, 0))
		return 1;
	if (memchr(text, 0, size))
		return scalar(stream, size, string_without_nul((const char *)text, size));
	return scalar(stream, size, json_stringn_nocheck((const char *)text, size));
}

static int on_key(void *context, const unsigned char *text, size_t size)
{
	struct json_stream *stream = context;
	struct frame *frame;
	char *key;

	stream->silent_bytes = 0;
	if (stream->skipped)
		return 1;
	if (memchr(text, 0, size))
		return refuse(stream, "NUL in a key");
	frame = &stream->frames[stream->depth - 1];
	if (size >= frame->key_allocated) {
		key = realloc(frame->key, size + 64);
		if (!key)
			return stop(stream, error_set(stream->err, ENOMEM, "out of memory"));
		frame->key = key;
		frame->key_allocated = size + 64;
	}
	memcpy(frame->key, text, size);
	frame->key[size] = 0;
	if (json_object_get(frame->value, frame->key))
		return stop(stream, error_set(stream->err, EINVAL, "key \"%.64s\" is there twice",
					      frame->key));
	for (size_t i = 0; i < sizeof(passed_over) / sizeof(*passed_over); i++)
		if (!strcmp(frame->key, passed_over[i]))
			stream->skip_next = true;
	stream->value_bytes += size;
	return 1;
}

static int open_container(struct json_stream *stream, json_t *(*make)(void))
{
	struct frame *frame;

	if (stream->depth + stream->skipped >= DEPTH_MAX)
		return refuse(stream, "nested more than 64 deep");
	if (skip(stream, 1))
		return 1;
	/* The containers count too: millions of {} hold memory without any text. */
	stream->value_bytes += 16;
	if (stream->value_bytes > VALUE_MAX)
		return refuse(stream, "an object of more than 16 MB");
	frame = &stream->frames[stream->depth];
	frame->value = make();
	if (!frame->value)
		return stop(stream, error_set(stream->err, ENOMEM, "out of memory"));
	stream->depth++;
	return 1;
}

static int on_start_map(void *context)
{
	return open_container(context, json_object);
}

static int on_start_array(void *context)
{
	return open_container(context, json_array);
}

static int on_end(void *context)
{
	struct json_stream *stream = context;
	json_t *value;

	if (skip(stream, -1))
		return 1;
	stream->depth--;
	value = stream->frames[stream->depth].value;
	stream->frames[stream->depth].value = NULL;
	return place(stream, value);
}

static const yajl_callbacks callbacks = {
	.yajl_null = on_null,
	.yajl_boolean = on_boolean,
	.yajl_number = on_number,
	.yajl_string = on_string,
	.yajl_start_map = on_start_map,
	.yajl_map_key = on_key,
	.yajl_end_map = on_end,
	.yajl_start_array = on_start_array,
	.yajl_end_array = on_end,
};

struct json_stream *json_stream_new(const struct json_stream_calls *calls, void *arg)
{
	struct json_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	stream->calls = calls;
	stream->arg = arg;
	stream->parser = yajl_alloc(&callbacks, NULL, stream);
	if (!stream->parser || !yajl_config(stream->parser, yajl_allow_multiple_values, 1)) {
		json_stream_free(stream);
		return NULL;
	}
	return stream;
}

void json_stream_free(struct json_stream *stream)
{
	if (!stream)
		return;
	for (unsigned int i = 0; i < DEPTH_MAX; i++) {
		json_decref(stream->frames[i].value);
		free(stream->frames[i].key);
	}
	if (stream->parser)
		yajl_free(stream->parser);
	free(stream);
}

/*
 * Turns the parser's verdict into ours. at: the byte of the whole input that the verdict is about.
 */
static int verdict(struct json_stream *stream, yajl_status status, size_t at, struct error *err)
{
	unsigned char *text;
	size_t length;

	if (status == yajl_status_ok)
		return 0;
	if (status == yajl_status_client_canceled)
		return error_prefix(err, stream->result, "byte %zu", at);
	text = yajl_get_error(stream->parser, 0, NULL, 0);
	length = text ? strcspn((char *)text, "\n") : 0;
	error_set(err, EINVAL, "byte %zu: not JSON: %.*s", at, (int)length,
		  text ? (char *)text : "");
	if (text)
		yajl_free_error(stream->parser, text);
	return -EINVAL;
}

int json_stream_feed(struct json_stream *stream, const void *data, size_t size, struct error *err)
{
	const unsigned char *byte = data;
	yajl_status status;
	size_t chunk;
	int r;

	stream->err = err;
	for (; size; byte += chunk, size -= chunk) {
		chunk = size < CHUNK ? size : CHUNK;
		stream->silent_bytes += chunk;
		status = yajl_parse(stream->parser, byte, chunk);
		r = verdict(stream, status,
			    stream->total_bytes + yajl_get_bytes_consumed(stream->parser), err);
		if (r < 0)
			return r;
		stream->total_bytes += chunk;
		if (stream->silent_bytes > VALUE_MAX)
			return error_set(err, EINVAL, "byte %zu: a value of more than 16 MB",
					 stream->total_bytes);
	}
	return 0;
}

int json_stream_finish(struct json_stream *stream, struct error *err)
{
	yajl_status status;

	if (!stream->total_bytes)
		return 0;
	stream->err = err;
	status = yajl_complete_parse(stream->parser);
	if (status != yajl_status_ok && status != yajl_status_client_canceled)
		return error_set(err, EINVAL, "byte %zu: it ends in the middle of a value",
				 stream->total_bytes);
	return verdict(stream, status, stream->total_bytes, err);
}
