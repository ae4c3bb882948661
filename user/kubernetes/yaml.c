// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/cleanup.h"

enum {
	FILE_MAX = 8 << 20,
	YAML_DEPTH_MAX = 32,
	YAML_NODES_MAX = 1 << 20,	/* after aliases have been followed */
};

struct converter {
	yaml_document_t *document;
	unsigned int nodes;
	struct error *err;
};

int read_small_file(const char *path, size_t max, char **ret_data, size_t *ret_size,
		    struct error *err)
{
	_cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_(free_pointer) char *data = NULL;
	size_t size = 0, allocated = 0;
	ssize_t n;

	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	do {
		if (size + 4096 > allocated) {
			char *grown = realloc(data, allocated + 65536);

			if (!grown)
				return error_set(err, ENOMEM, "out of memory");
			data = grown;
			allocated += 65536;
		}
		n = read(fd, data + size, allocated - size - 1);
		if (n < 0 && errno != EINTR)
			return error_set(err, errno, "%s: %s", path, strerror(errno));
		if (n > 0)
			size += n;
		if (size > max)
			return error_set(err, EFBIG, "%s: larger than %zu bytes", path, max);
	} while (n);
	data[size] = 0;
	*ret_data = steal_pointer(&data);
	*ret_size = size;
	return 0;
}

static int refuse(struct converter *converter, const yaml_node_t *node, const char *what)
{
	return error_set(converter->err, EINVAL, "line %zu: %s", node->start_mark.line + 1, what);
}

static json_t *convert_scalar(const yaml_node_t *node)
{
	const char *text = (const char *)node->data.scalar.value;

	if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
		if (!*text || !strcmp(text, "~") || !strcmp(text, "null"))
			return json_null();
		if (!strcmp(text, "true"))
			return json_true();
		if (!strcmp(text, "false"))
			return json_false();
	}
	return json_stringn(text, node->data.scalar.length);
}

static int convert(struct converter *converter, int index, unsigned int depth, json_t **ret_value);

static int convert_sequence(struct converter *converter, const yaml_node_t *node,
			    unsigned int depth, json_t *array)
{
	yaml_node_item_t *item;
	json_t *value;
	int r;

	for (item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
		r = convert(converter, *item, depth, &value);
		if (r < 0)
			return r;
		if (json_array_append_new(array, value) < 0)
			return error_set(converter->err, ENOMEM, "out of memory");
	}
	return 0;
}

static int convert_mapping(struct converter *converter, const yaml_node_t *node, unsigned int depth,
			   json_t *object)
{
	yaml_node_pair_t *pair;
	const yaml_node_t *key;
	const char *text;
	json_t *value;
	int r;

	for (pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
		key = yaml_document_get_node(converter->document, pair->key);
		if (key->type != YAML_SCALAR_NODE)
			return refuse(converter, key, "a key has to be a word");
		text = (const char *)key->data.scalar.value;
		if (json_object_get(object, text))
			return refuse(converter, key, "a key is there twice");
		r = convert(converter, pair->value, depth, &value);
		if (r < 0)
			return r;
		if (json_object_set_new(object, text, value) < 0)
			return refuse(converter, key, "a key is not UTF-8");
	}
	return 0;
}

static int convert(struct converter *converter, int index, unsigned int depth, json_t **ret_value)
{
	const yaml_node_t *node = yaml_document_get_node(converter->document, index);
	json_t *value;
	int r = 0;

	if (depth >= YAML_DEPTH_MAX)
		return refuse(converter, node, "nested more than 32 deep");
	if (++converter->nodes > YAML_NODES_MAX)
		return refuse(converter, node, "aliases make it too large");
	value = node->type == YAML_SCALAR_NODE ? convert_scalar(node) :
		node->type == YAML_SEQUENCE_NODE ? json_array() : json_object();
	if (!value)
		return refuse(converter, node, "a text is not UTF-8");
	if (node->type == YAML_SEQUENCE_NODE)
		r = convert_sequence(converter, node, depth + 1, value);
	else if (node->type == YAML_MAPPING_NODE)
		r = convert_mapping(converter, node, depth + 1, value);
	if (r < 0) {
		json_decref(value);
		return r;
	}
	*ret_value = value;
	return 0;
}

static int parse(yaml_parser_t *parser, json_t **ret_tree, struct error *err)
{
	yaml_document_t document;
	struct converter converter = { .document = &document, .err = err };
	int r;

	if (!yaml_parser_load(parser, &document))
		return error_set(err, EINVAL, "line %zu: not YAML: %s",
				 parser->problem_mark.line + 1,
				 parser->problem ?: "it cannot be read");
	if (!yaml_document_get_root_node(&document))
		r = error_set(err, EINVAL, "it is empty");
	else
		r = convert(&converter, 1, 0, ret_tree);
	yaml_document_delete(&document);
	return r;
}

int yaml_load_file(const char *path, json_t **ret_tree, struct error *err)
{
	_cleanup_(free_pointer) char *text = NULL;
	yaml_parser_t parser;
	size_t size;
	int r;

	r = read_small_file(path, FILE_MAX, &text, &size, err);
	if (r < 0)
		return r;
	if (!yaml_parser_initialize(&parser))
		return error_set(err, ENOMEM, "out of memory");
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
	r = parse(&parser, ret_tree, err);
	yaml_parser_delete(&parser);
	return r < 0 ? error_prefix(err, r, "%s", path) : 0;
}

static int base64_value(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

int base64_decode(const char *text, char **ret_data, size_t *ret_size)
{
	_cleanup_(free_pointer) unsigned char *data = malloc(strlen(text) / 4 * 3 + 4);
	unsigned int bits = 0, digits = 0;
	size_t size = 0;
	int value;

	if (!data)
		return -ENOMEM;
	for (; *text && *text != '='; text++) {
		if (strchr(" \t\r\n", *text))
			continue;
		value = base64_value(*text);
		if (value < 0)
			return -EINVAL;
		bits = bits << 6 | value;
		if (++digits % 4 == 0) {
			data[size++] = bits >> 16;
			data[size++] = bits >> 8;
			data[size++] = bits;
		}
	}
	if (text[strspn(text, "= \t\r\n")] || digits % 4 == 1)
		return -EINVAL;
	if (digits % 4 >= 2)
		data[size++] = digits % 4 == 2 ? bits >> 4 : bits >> 10;
	if (digits % 4 == 3)
		data[size++] = bits >> 2;
	data[size] = 0;
	*ret_data = (char *)steal_pointer(&data);
	*ret_size = size;
	return 0;
}

char *base64_encode(const char *data, size_t size)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((size + 2) / 3 * 4 + 1), *at = text;

	for (size_t i = 0; text && i < size; i += 3) {
		size_t n = size - i < 3 ? size - i : 3;
		unsigned int bits = 0;

		for (size_t j = 0; j < 3; j++)
			bits = bits << 8 | (j < n ? (unsigned char)data[i + j] : 0);
		for (size_t j = 0; j < 4; j++)
			*at++ = j <= n ? digits[bits >> (18 - 6 * j) & 63] : '=';
	}
	if (text)
		*at = 0;
	return text;
}
