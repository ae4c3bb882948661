// SPDX-License-Identifier: GPL-2.0
/* JSON in pieces: the same outcome however the input is cut, and one line for whatever is wrong with it. */
#include <errno.h>

#include "kube_world.h"
#include "kubernetes/json_stream.h"

struct seen {
	char text[4096];
	size_t items, documents;
};

static void note(struct seen *seen, const char *what, const json_t *value)
{
	char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
	size_t n = strlen(seen->text);

	snprintf(seen->text + n, sizeof(seen->text) - n, "%s%s;", what, dump);
	free(dump);
}

static int on_item(void *arg, const json_t *list, const json_t *item, struct error *err)
{
	struct seen *seen = arg;

	(void)list;
	(void)err;
	note(seen, "i", item);
	seen->items++;
	return 0;
}

static int on_document(void *arg, const json_t *document, struct error *err)
{
	struct seen *seen = arg;

	(void)err;
	note(seen, "d", document);
	seen->documents++;
	return 0;
}

static const struct json_stream_calls calls = { .item = on_item, .document = on_document };

/* In pieces of `step` bytes. */
static int parse(const char *data, size_t size, size_t step, struct seen *seen, struct error *err)
{
	struct json_stream *stream = json_stream_new(&calls, seen);
	int r = 0;

	for (size_t at = 0; at < size && r >= 0; at += step)
		r = json_stream_feed(stream, data + at, size - at < step ? size - at : step, err);
	if (r >= 0)
		r = json_stream_finish(stream, err);
	json_stream_free(stream);
	return r;
}

static void test_good(void **state)
{
	static const struct {
		const char *json, *seen;
	} rows[] = {
		{ "{'kind':'L','items':[{'a':1},2,[3]],'z':null}",
		  "i{\"a\":1};i2;i[3];d{\"items\":[],\"kind\":\"L\",\"z\":null};" },
		{ "{'a':1}{'b':[]}\n{'c':{}}", "d{\"a\":1};d{\"b\":[]};d{\"c\":{}};" },
		{ "{'a':{'items':[1]}}", "d{\"a\":{\"items\":[1]}};" },
		{ "[{'items':[1]}]", "d[{\"items\":[1]}];" },
		{ "{'managedFields':[{'a':1,'a':1}],'b':{'ownerReferences':{'x':[1]},'c':2}}",
		  "d{\"b\":{\"c\":2}};" },
		{ "{'a':'x\\u0000y','b':'\\u0000\\u0000'}",
		  "d{\"a\":\"x\xef\xbf\xbd" "y\",\"b\":\"\xef\xbf\xbd\xef\xbf\xbd\"};" },
		{ "{'n':-9223372036854775808,'f':1.5,'t':true,'u':'\\u00e9\\ud83d\\ude00'}",
		  "d{\"f\":1.5,\"n\":-9223372036854775808,\"t\":true,\"u\":\"é😀\"};" },
		{ "", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		char *json = quoted(rows[i].json);

		for (size_t step = 1; step < 20; step++) {
			struct seen seen = {};
			struct error err = {};

			if (parse(json, strlen(json), step, &seen, &err) < 0)
				fail_msg("%s: %s", json, err.text);
			assert_string_equal(seen.text, rows[i].seen);
		}
		free(json);
	}
}

struct bad {
	const char *json;
	size_t size;		/* 0: strlen */
	const char *complaint;	/* part of the line */
};

static const struct bad bad_rows[] = {
	{ "{'a':", 0, "ends in the middle" },
	{ "{'items':[{'a':1}", 0, "ends in the middle" },
	{ "{'a':1", 0, "ends in the middle" },
	{ "'abc", 0, "ends in the middle" },
	{ "{'a':1,}", 0, "not JSON" },
	{ "<html>", 0, "not JSON" },
	{ "{'a':tru}", 0, "not JSON" },
	{ "{'a' 1}", 0, "not JSON" },
	{ "{'a':'\xff'}", 0, "not JSON" },
	{ "{'a':\0 1}", 9, "not JSON" },
	{ "{'a':'x\0y'}", 11, "not JSON" },
	{ "{'x\\u0000y':1}", 0, "NUL in a key" },
	{ "{'a':1,'a':2}", 0, "key \"a\" is there twice" },
	{ "{'items':[{'a':1,'b':{'c':1,'c':1}}]}", 0, "key \"c\" is there twice" },
	{ "{'items':[],'items':[]}", 0, "key \"items\" is there twice" },
	{ "{'items':null}", 0, "items: a list is expected" },
	{ "{'items':{'a':{}}}", 0, "items: a list is expected" },
	{ "{'items':'x'}", 0, "items: a list is expected" },
	{ "{'a':9223372036854775808}", 0, "number 9223372036854775808 is out of range" },
	{ "{'a':1e999}", 0, "number 1e999 is out of range" },
	{ "{'a':1111111111111111111111111111111111111111111111111111111111111111111111}", 0,
	  "more than 63 digits" },
};

static void test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad_rows) / sizeof(*bad_rows); i++) {
		const struct bad *row = &bad_rows[i];
		size_t size = row->size ? row->size : strlen(row->json);
		char *json = malloc(size + 1);

		for (size_t j = 0; j < size; j++)
			json[j] = row->json[j] == '\'' ? '"' : row->json[j];
		for (size_t step = 1; step < 30; step += 7) {
			struct seen seen = {};
			struct error err = {};

			assert_int_equal(parse(json, size, step, &seen, &err), -EINVAL);
			if (!strstr(err.text, row->complaint))
				fail_msg("row %zu: %s", i, err.text);
			assert_memory_equal(err.text, "byte ", 5);
			assert_int_equal(seen.documents, 0);
		}
		free(json);
	}
}

static void nest(char *text, size_t depth)
{
	memset(text, '[', depth);
	memset(text + depth, ']', depth);
	text[2 * depth] = 0;
}

static void test_depth(void **state)
{
	static char text[4 << 20];
	struct error err = {};
	struct seen seen = {};

	(void)state;
	nest(text, 64);
	assert_int_equal(parse(text, strlen(text), 1000, &seen, &err), 0);
	nest(text, 65);
	assert_int_equal(parse(text, strlen(text), 1000, &seen, &err), -EINVAL);
	assert_non_null(strstr(err.text, "nested more than 64 deep"));
	/* Far beyond what a recursive parser's stack would take. */
	nest(text, 1 << 20);
	assert_int_equal(parse(text, strlen(text), 65536, &seen, &err), -EINVAL);
	/* Also below what is passed over. */
	strcpy(text, "{\"managedFields\":");
	nest(text + strlen(text), 100);
	assert_int_equal(parse(text, strlen(text), 1000, &seen, &err), -EINVAL);
}

static void test_size(void **state)
{
	size_t size = 20 << 20;
	char *text = malloc(size + 1);
	struct error err = {};
	struct seen seen = {};

	(void)state;
	/* One string. */
	memset(text, 'x', size);
	memcpy(text, "{\"a\":\"", 6);
	assert_int_equal(parse(text, size, 65536, &seen, &err), -EINVAL);
	assert_non_null(strstr(err.text, "more than 16 MB"));
	/* One item of many small things. */
	memset(text, '[', size);
	memcpy(text, "{\"items\":[[", 11);
	for (size_t i = 11; i + 3 < size; i += 3)
		memcpy(text + i, "[],", 3);
	assert_int_equal(parse(text, size, 65536, &seen, &err), -EINVAL);
	assert_non_null(strstr(err.text, "more than 16 MB"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
