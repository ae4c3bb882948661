/* SPDX-License-Identifier: GPL-2.0 */
/* What the decoders of all kinds, and the readers of credentials, share. */
#ifndef XLB_KUBERNETES_DECODE_FIELDS_H
#define XLB_KUBERNETES_DECODE_FIELDS_H

#include "kubernetes/decode.h"

/*
 * A field of an object. Missing and null are the same: a NULL (0, or `fallback`) and success.
 * Another type is -EINVAL with a line that begins with the key. What is returned is borrowed.
 */
int json_get_string(const json_t *object, const char *key, const char **ret_text,
		    struct error *err);
int json_get_list(const json_t *object, const char *key, const json_t **ret_list,
		  struct error *err);
int json_get_object(const json_t *object, const char *key, const json_t **ret_object,
		    struct error *err);
int json_get_boolean(const json_t *object, const char *key, bool fallback, bool *ret_value,
		     struct error *err);
int json_get_integer(const json_t *object, const char *key, long long min, long long max,
		     long long fallback, long long *ret_value, struct error *err);

/* Whether this is a name that the API would allow (a DNS subdomain, roughly). */
bool decode_is_name(const char *text);
/* A copy; NULL stays NULL. */
int decode_text(const char *text, char **ret_copy, struct error *err);
int decode_make_key(const char *namespace, const char *name, char **ret_key, struct error *err);
/* metadata.namespace ("default" if missing) and metadata.name, borrowed. */
int decode_names(const json_t *object, const char **ret_namespace, const char **ret_name,
		 struct error *err);
/* A string of metadata.labels or metadata.annotations, or NULL. */
int decode_metadata_text(const json_t *object, const char *map, const char *key,
			 const char **ret_text, struct error *err);
int decode_address(const char *text, uint8_t family, struct xlb_address *ret_address);
/*
 * An address or prefix without the zeros that may stand before an IPv4 number, which is decimal all the
 * same: the API has allowed them, and kube-proxy takes them. "" if it does not fit.
 */
void decode_without_zeros(const char *text, char *copy, size_t size);
/* The "protocol" of a port, TCP if missing. */
int decode_protocol(const json_t *port, uint8_t *ret_protocol, struct error *err);
int decode_port_name(const json_t *port, char ret_name[KUBE_PORT_NAME_MAX], struct error *err);

#endif
