/* SPDX-License-Identifier: GPL-2.0 */
/* A YAML file as a JSON tree, so that one set of accessors reads both. */
#ifndef XLB_KUBERNETES_YAML_H
#define XLB_KUBERNETES_YAML_H

#include <jansson.h>

#include "base/error.h"

/*
 * The first document of a file of at most 8 MB. Plain scalars become null, booleans or strings;
 * quoted ones strings. *ret_tree is the caller's. -ENOENT and the like, -EINVAL: not YAML (with the
 * line), duplicate keys, nesting above 32, or aliases that blow it up.
 */
int yaml_load_file(const char *path, json_t **ret_tree, struct error *err);

/*
 * Text of any size that fits in memory twice; ret_data is followed by a NUL that does not count.
 * The caller frees.
 */
int read_small_file(const char *path, size_t max, char **ret_data, size_t *ret_size,
		    struct error *err);

/*
 * RFC 4648, with or without line breaks. -EINVAL. The caller frees; a NUL follows that does not
 * count.
 */
int base64_decode(const char *text, char **ret_data, size_t *ret_size);
/* The caller frees; NULL: out of memory. */
char *base64_encode(const char *data, size_t size);

#endif
