// SPDX-License-Identifier: GPL-2.0
/* EndpointSlices and Endpoints; see decode.h. */
#include "kubernetes/decode_fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kubernetes/kubernetes.h"

enum { PORT_MAX = 65535 };

static void free_set(struct kube_set **set)
{
	kube_set_free(*set);
}

/*
 * A port that any number would match (null, in EndpointSlices) cannot be translated to; it is left
 * out.
 */
static int decode_set_ports(const json_t *list, struct kube_part *part, struct error *err)
{
	long long number;
	int r;

	if (!json_array_size(list))
		return 0;
	part->ports = calloc(json_array_size(list), sizeof(*part->ports));
	if (!part->ports)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);
		struct kube_set_port *port = &part->ports[part->n_ports];

		r = json_is_object(item) ? 0 : error_set(err, EINVAL, "an object is expected");
		if (r >= 0)
			r = decode_port_name(item, port->name, err);
		if (r >= 0)
			r = decode_protocol(item, &port->protocol, err);
		if (r >= 0)
			r = json_get_integer(item, "port", 0, PORT_MAX, 0, &number, err);
		if (r < 0)
			return error_prefix(err, r, "ports[%zu]", i);
		port->port = number;
		if (number)
			part->n_ports++;
		else
			memset(port, 0, sizeof(*port));
	}
	return 0;
}

/* An endpoint of which all but the address is known. */
static int add_endpoint(struct kube_part *part, const char *text, struct kube_endpoint *endpoint,
			struct error *err)
{
	if (decode_address(text, part->family, &endpoint->address) < 0)
		return error_set(err, EINVAL, "\"%.64s\" is no IPv%u address", text, part->family);
	if (kube_address_usable(&endpoint->address, part->family))
		part->endpoints[part->n_endpoints++] = *endpoint;
	else
		part->n_unusable++;
	return 0;
}

/*
 * nil ready and nil serving mean true, nil terminating means false. What terminates and does not
 * serve gets no new flows, whatever is said of ready (publishNotReadyAddresses makes all ready).
 */
static int decode_fitness(const json_t *item, uint8_t *ret_fitness, struct error *err)
{
	bool ready, serving, terminating;
	const json_t *conditions;
	int r = json_get_object(item, "conditions", &conditions, err);

	if (r < 0)
		return r;
	r = json_get_boolean(conditions, "ready", true, &ready, err);
	if (r >= 0)
		r = json_get_boolean(conditions, "serving", true, &serving, err);
	if (r >= 0)
		r = json_get_boolean(conditions, "terminating", false, &terminating, err);
	if (r < 0)
		return error_prefix(err, r, "conditions");
	*ret_fitness = terminating && !serving ? KUBE_NOT_SERVING :
		       ready ? KUBE_READY :
		       !serving ? KUBE_NOT_SERVING :
		       terminating ? KUBE_SERVING_TERMINATING : KUBE_SERVING;
	return 0;
}

static bool same_text(const char *a, const char *b)
{
	return a && b && !strcmp(a, b);
}

/* nodeName; before it was there (v1beta1), the node's host name in `topology`. */
static int decode_local(const json_t *item, const struct kube_place *place, bool *ret_local,
			struct error *err)
{
	const json_t *topology;
	const char *node;
	int r = json_get_string(item, "nodeName", &node, err);

	if (r >= 0 && !node) {
		r = json_get_object(item, "topology", &topology, err);
		if (r >= 0)
			r = json_get_string(topology, "kubernetes.io/hostname", &node, err);
	}
	if (r < 0)
		return r;
	*ret_local = same_text(node, place->node);
	return 0;
}

/* A list of names; whether ours is among them. */
static int decode_hint(const json_t *hints, const char *key, const char *ours, uint8_t *ret_hint,
		       struct error *err)
{
	uint8_t hint = KUBE_HINT_NONE;
	const json_t *list;
	const char *name;
	int r = json_get_list(hints, key, &list, err);

	for (size_t i = 0; r >= 0 && i < json_array_size(list); i++) {
		if (!json_is_object(json_array_get(list, i)))
			return error_set(err, EINVAL, "%s[%zu]: an object is expected", key, i);
		r = json_get_string(json_array_get(list, i), "name", &name, err);
		if (r < 0)
			return error_prefix(err, r, "%s[%zu]", key, i);
		if (same_text(name, ours))
			hint = KUBE_HINT_US;
		else if (hint == KUBE_HINT_NONE)
			hint = KUBE_HINT_OTHERS;
	}
	if (r >= 0)
		*ret_hint = hint;
	return r;
}

static int decode_place(const json_t *item, const struct kube_place *place,
			struct kube_endpoint *endpoint, struct error *err)
{
	const json_t *hints;
	int r = decode_local(item, place, &endpoint->local, err);

	if (r >= 0)
		r = json_get_object(item, "hints", &hints, err);
	if (r < 0)
		return r;
	r = decode_hint(hints, "forNodes", place->node, &endpoint->node_hint, err);
	if (r >= 0)
		r = decode_hint(hints, "forZones", place->zone, &endpoint->zone_hint, err);
	return r < 0 ? error_prefix(err, r, "hints") : 0;
}

static int decode_slice_endpoint(const json_t *item, const struct kube_place *place,
				 struct kube_part *part, struct error *err)
{
	struct kube_endpoint endpoint = {};
	const json_t *addresses, *first;
	int r;

	if (!json_is_object(item))
		return error_set(err, EINVAL, "an object is expected");
	r = decode_fitness(item, &endpoint.fitness, err);
	if (r >= 0)
		r = decode_place(item, place, &endpoint, err);
	if (r >= 0)
		r = json_get_list(item, "addresses", &addresses, err);
	if (r < 0)
		return r;
	/*
	 * All addresses of an endpoint are fungible: the first one stands for it (API reference).
	 */
	first = json_array_get(addresses, 0);
	if (!json_is_string(first))
		return error_set(err, EINVAL, "addresses[0]: a string is expected");
	r = add_endpoint(part, json_string_value(first), &endpoint, err);
	return r < 0 ? error_prefix(err, r, "addresses[0]") : 0;
}

static int decode_slice_part(const json_t *object, const struct kube_place *place,
			     struct kube_part *part, struct error *err)
{
	const json_t *endpoints, *ports;
	int r = json_get_list(object, "endpoints", &endpoints, err);

	if (r >= 0)
		r = json_get_list(object, "ports", &ports, err);
	if (r >= 0)
		r = decode_set_ports(ports, part, err);
	if (r < 0 || !json_array_size(endpoints))
		return r;
	part->endpoints = calloc(json_array_size(endpoints), sizeof(*part->endpoints));
	if (!part->endpoints)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < json_array_size(endpoints); i++) {
		r = decode_slice_endpoint(json_array_get(endpoints, i), place, part, err);
		if (r < 0)
			return error_prefix(err, r, "endpoints[%zu]", i);
	}
	return 0;
}

static int new_set(const json_t *object, const char *service, size_t max_parts,
		   struct kube_set **ret_set, struct error *err)
{
	_cleanup_(free_set) struct kube_set *set = calloc(1, sizeof(*set));
	const char *namespace, *name;
	int r;

	if (!set || !(set->parts = calloc(max_parts + 1, sizeof(*set->parts))))
		return error_set(err, ENOMEM, "out of memory");
	r = decode_names(object, &namespace, &name, err);
	if (r >= 0)
		r = decode_make_key(namespace, name, &set->key, err);
	if (r >= 0)
		r = decode_make_key(namespace, service ? service : name, &set->service, err);
	if (r < 0)
		return r;
	*ret_set = steal_pointer(&set);
	return 0;
}

static int decode_slice_body(const json_t *object, const struct kube_place *place,
			     struct kube_set **ret_set, struct error *err)
{
	_cleanup_(free_set) struct kube_set *set = NULL;
	const char *service, *type;
	int r = decode_metadata_text(object, "labels", "kubernetes.io/service-name", &service, err);

	if (r >= 0)
		r = json_get_string(object, "addressType", &type, err);
	if (r < 0)
		return r;
	if (!type)
		return error_set(err, EINVAL, "addressType is missing");
	if (!service || !decode_is_name(service) ||
	    (strcmp(type, "IPv4") && strcmp(type, "IPv6"))) {
		*ret_set = NULL;
		return 0;
	}
	r = new_set(object, service, 1, &set, err);
	if (r < 0)
		return r;
	set->n_parts = 1;
	set->parts[0].family = !strcmp(type, "IPv4") ? XLB_IPV4 : XLB_IPV6;
	r = decode_slice_part(object, place, &set->parts[0], err);
	if (r < 0)
		return r;
	*ret_set = steal_pointer(&set);
	return 0;
}

int decode_slice(const json_t *object, const struct kube_place *place, struct kube_set **ret_set,
		 struct error *err)
{
	_cleanup_(free_pointer) char *key = NULL;
	int r = decode_key(object, &key, err);

	if (r < 0)
		return error_prefix(err, r, "EndpointSlice");
	r = decode_slice_body(object, place, ret_set, err);
	return r < 0 ? error_prefix(err, r, "EndpointSlice %s", key) : 0;
}

/* The addresses of the part's family in "addresses" or "notReadyAddresses". */
static int decode_subset_list(const json_t *subset, const char *key, enum kube_fitness fitness,
			      const struct kube_place *place, struct kube_part *part,
			      struct error *err)
{
	struct kube_endpoint endpoint = { .fitness = fitness };
	struct kube_endpoint *endpoints;
	const json_t *list = NULL;
	const char *text = NULL, *node = NULL;
	int r = json_get_list(subset, key, &list, err);

	if (r < 0 || !json_array_size(list))
		return r;
	endpoints = reallocarray(part->endpoints, part->n_endpoints + json_array_size(list),
				 sizeof(*endpoints));
	if (!endpoints)
		return error_set(err, ENOMEM, "out of memory");
	part->endpoints = endpoints;
	for (size_t i = 0; i < json_array_size(list); i++) {
		r = json_get_string(json_array_get(list, i), "ip", &text, err);
		if (r >= 0 && !text)
			r = error_set(err, EINVAL, "ip is missing");
		if (r >= 0)
			r = json_get_string(json_array_get(list, i), "nodeName", &node, err);
		endpoint.local = same_text(node, place->node);
		if (r >= 0 && (strchr(text, ':') ? XLB_IPV6 : XLB_IPV4) == part->family)
			r = add_endpoint(part, text, &endpoint, err);
		if (r < 0)
			return error_prefix(err, r, "%s[%zu]", key, i);
	}
	return 0;
}

/* Not ready says nothing about serving; unknown means true, as in slices. */
static int decode_subset(const json_t *subset, const struct kube_place *place,
			 struct kube_part *part, struct error *err)
{
	const json_t *ports = NULL;
	int r;

	if (!json_is_object(subset))
		return error_set(err, EINVAL, "an object is expected");
	r = json_get_list(subset, "ports", &ports, err);
	if (r >= 0)
		r = decode_set_ports(ports, part, err);
	if (r >= 0)
		r = decode_subset_list(subset, "addresses", KUBE_READY, place, part, err);
	if (r >= 0)
		r = decode_subset_list(subset, "notReadyAddresses", KUBE_SERVING, place, part,
				       err);
	return r;
}

static int decode_subsets(const json_t *object, const json_t *subsets,
			  const struct kube_place *place, struct kube_set **ret_set,
			  struct error *err)
{
	_cleanup_(free_set) struct kube_set *set = NULL;
	int r = new_set(object, NULL, json_array_size(subsets) * 2, &set, err);

	for (size_t i = 0; r >= 0 && i < json_array_size(subsets) * 2; i++) {
		struct kube_part *part = &set->parts[set->n_parts++];

		part->family = i % 2 ? XLB_IPV6 : XLB_IPV4;
		r = decode_subset(json_array_get(subsets, i / 2), place, part, err);
		if (r < 0)
			return error_prefix(err, r, "subsets[%zu]", i / 2);
	}
	if (r < 0)
		return r;
	*ret_set = steal_pointer(&set);
	return 0;
}

int decode_endpoints(const json_t *object, const struct kube_place *place,
		     struct kube_set **ret_set, struct error *err)
{
	_cleanup_(free_pointer) char *key = NULL;
	const json_t *subsets;
	int r = decode_key(object, &key, err);

	if (r < 0)
		return error_prefix(err, r, "Endpoints");
	r = json_get_list(object, "subsets", &subsets, err);
	if (r >= 0)
		r = decode_subsets(object, subsets, place, ret_set, err);
	return r < 0 ? error_prefix(err, r, "Endpoints %s", key) : 0;
}
