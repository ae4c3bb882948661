// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/decode_fields.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 253 };	/* a DNS subdomain */

static const char *type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	default:
		return "null";
	}
}

static int get(const json_t *object, const char *key, json_type type, const char *expected,
	       const json_t **ret_value, struct error *err)
{
	const json_t *value = json_object_get(object, key);

	if (value && json_is_null(value))
		value = NULL;
	if (value && json_typeof(value) != type)
		return error_set(err, EINVAL, "%s: %s is expected, this is %s", key, expected,
				 type_name(value));
	*ret_value = value;
	return 0;
}

int json_get_string(const json_t *object, const char *key, const char **ret_text, struct error *err)
{
	const json_t *value = NULL;
	int r = get(object, key, JSON_STRING, "a string", &value, err);

	if (r < 0)
		return r;
	*ret_text = value ? json_string_value(value) : NULL;
	return 0;
}

int json_get_list(const json_t *object, const char *key, const json_t **ret_list, struct error *err)
{
	return get(object, key, JSON_ARRAY, "a list", ret_list, err);
}

int json_get_object(const json_t *object, const char *key, const json_t **ret_object,
		    struct error *err)
{
	return get(object, key, JSON_OBJECT, "an object", ret_object, err);
}

int json_get_boolean(const json_t *object, const char *key, bool fallback, bool *ret_value,
		     struct error *err)
{
	const json_t *value = json_object_get(object, key);

	if (!value || json_is_null(value))
		*ret_value = fallback;
	else if (json_is_boolean(value))
		*ret_value = json_is_true(value);
	else
		return error_set(err, EINVAL, "%s: a boolean is expected, this is %s", key,
				 type_name(value));
	return 0;
}

int json_get_integer(const json_t *object, const char *key, long long min, long long max,
		     long long fallback, long long *ret_value, struct error *err)
{
	const json_t *value = NULL;
	long long integer;
	int r = get(object, key, JSON_INTEGER, "a whole number", &value, err);

	if (r < 0)
		return r;
	integer = value ? json_integer_value(value) : fallback;
	if (value && (integer < min || integer > max))
		return error_set(err, EINVAL, "%s: %lld is not in %lld..%lld", key, integer, min,
				 max);
	*ret_value = integer;
	return 0;
}

/* Names end up on terminals and in maps: nothing but what the API allows. */
bool decode_is_name(const char *text)
{
	size_t length = strlen(text);

	return length && length <= NAME_MAX_LENGTH &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-.") == length;
}

int decode_text(const char *text, char **ret_copy, struct error *err)
{
	char *copy = NULL;

	if (text) {
		copy = strdup(text);
		if (!copy)
			return error_set(err, ENOMEM, "out of memory");
	}
	*ret_copy = copy;
	return 0;
}

int decode_make_key(const char *namespace, const char *name, char **ret_key, struct error *err)
{
	char *key;

	if (asprintf(&key, "%s/%s", namespace, name) < 0)
		return error_set(err, ENOMEM, "out of memory");
	*ret_key = key;
	return 0;
}

/* namespace defaults to "default", as kubectl has it. */
int decode_names(const json_t *object, const char **ret_namespace, const char **ret_name,
		     struct error *err)
{
	const char *namespace, *name;
	const json_t *metadata;
	int r;

	if (!json_is_object(object))
		return error_set(err, EINVAL, "an object is expected");
	r = json_get_object(object, "metadata", &metadata, err);
	if (r < 0)
		return r;
	r = json_get_string(metadata, "name", &name, err);
	if (r >= 0)
		r = json_get_string(metadata, "namespace", &namespace, err);
	if (r < 0)
		return error_prefix(err, r, "metadata");
	if (!name)
		return error_set(err, EINVAL, "metadata.name is missing");
	if (!decode_is_name(name))
		return error_set(err, EINVAL, "metadata.name: \"%.64s\" is no name", name);
	if (!namespace || !*namespace)
		namespace = "default";
	if (!decode_is_name(namespace))
		return error_set(err, EINVAL, "metadata.namespace: \"%.64s\" is no name",
				 namespace);
	*ret_namespace = namespace;
	*ret_name = name;
	return 0;
}

int decode_key(const json_t *object, char **ret_key, struct error *err)
{
	const char *namespace, *name;
	int r = decode_names(object, &namespace, &name, err);

	return r < 0 ? r : decode_make_key(namespace, name, ret_key, err);
}

/* A string of metadata.labels or metadata.annotations, or NULL. */
int decode_metadata_text(const json_t *object, const char *map, const char *key,
			     const char **ret_text, struct error *err)
{
	const json_t *texts;
	int r = json_get_object(json_object_get(object, "metadata"), map, &texts, err);

	if (r >= 0)
		r = json_get_string(texts, key, ret_text, err);
	return r < 0 ? error_prefix(err, r, "metadata") : 0;
}

void decode_without_zeros(const char *text, char *copy, size_t size)
{
	bool begins = !strchr(text, ':');
	size_t length = 0;

	for (; *text && length + 1 < size; text++) {
		if (begins && text[0] == '0' && isdigit((unsigned char)text[1]))
			continue;
		begins = *text == '.';
		copy[length++] = *text;
	}
	/* One that is too long is none. */
	copy[*text ? 0 : length] = 0;
}

int decode_address(const char *text, uint8_t family, struct xlb_address *ret_address)
{
	struct xlb_address address = {};
	char plain[INET6_ADDRSTRLEN];

	decode_without_zeros(text, plain, sizeof(plain));
	if (inet_pton(family == XLB_IPV4 ? AF_INET : AF_INET6, plain, address.word) != 1)
		return -EINVAL;
	*ret_address = address;
	return 0;
}

int decode_protocol(const json_t *port, uint8_t *ret_protocol, struct error *err)
{
	const char *text;
	int r = json_get_string(port, "protocol", &text, err);

	if (r < 0)
		return r;
	if (!text || !strcmp(text, "TCP"))
		*ret_protocol = XLB_TCP;
	else if (!strcmp(text, "UDP"))
		*ret_protocol = XLB_UDP;
	else if (!strcmp(text, "SCTP"))
		*ret_protocol = KUBE_PROTOCOL_SCTP;
	else
		return error_set(err, EINVAL, "protocol: \"%.16s\" is none of TCP, UDP, SCTP",
				 text);
	return 0;
}

int decode_port_name(const json_t *port, char ret_name[KUBE_PORT_NAME_MAX], struct error *err)
{
	const char *text;
	int r = json_get_string(port, "name", &text, err);

	if (r < 0)
		return r;
	if (text && *text && (!decode_is_name(text) || strlen(text) >= KUBE_PORT_NAME_MAX))
		return error_set(err, EINVAL, "name: \"%.64s\" is no port name", text);
	snprintf(ret_name, KUBE_PORT_NAME_MAX, "%s", text ? text : "");
	return 0;
}
