// SPDX-License-Identifier: GPL-2.0
/* Services; see decode.h. */
#include "kubernetes/decode_fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kubernetes/internal.h"

enum {
	PORT_MAX = 65535,
	AFFINITY_DEFAULT_S = 10800,
};

static void free_service(struct kube_service **service)
{
	kube_service_free(*service);
}

static int decode_service_port(const json_t *item, struct kube_service_port *ret_port,
			       struct error *err)
{
	struct kube_service_port port = {};
	long long number, node_port;
	int r;

	if (!json_is_object(item))
		return error_set(err, EINVAL, "an object is expected");
	r = decode_port_name(item, port.name, err);
	if (r >= 0)
		r = decode_protocol(item, &port.protocol, err);
	if (r >= 0)
		r = json_get_integer(item, "port", 1, PORT_MAX, 0, &number, err);
	if (r >= 0)
		r = json_get_integer(item, "nodePort", 0, PORT_MAX, 0, &node_port, err);
	if (r < 0)
		return r;
	if (!number)
		return error_set(err, EINVAL, "port is missing");
	port.port = number;
	port.node_port = node_port;
	*ret_port = port;
	return 0;
}

static int decode_service_ports(const json_t *spec, struct kube_service *service, struct error *err)
{
	const json_t *ports;
	size_t i;
	int r = json_get_list(spec, "ports", &ports, err);

	if (r < 0 || !json_array_size(ports))
		return r;
	service->ports = calloc(json_array_size(ports), sizeof(*service->ports));
	if (!service->ports)
		return error_set(err, ENOMEM, "out of memory");
	for (i = 0; i < json_array_size(ports); i++) {
		r = decode_service_port(json_array_get(ports, i), &service->ports[i], err);
		if (r < 0)
			return error_prefix(err, r, "ports[%zu]", i);
	}
	service->n_ports = i;
	return 0;
}

static int add_address(struct kube_service *service, const char *text, uint8_t source,
		       struct error *err)
{
	struct kube_address address = { .source = source }, *addresses;

	address.family = strchr(text, ':') ? XLB_IPV6 : XLB_IPV4;
	if (decode_address(text, address.family, &address.address) < 0)
		return error_set(err, EINVAL, "\"%.64s\" is no IP address", text);
	addresses = reallocarray(service->addresses, service->n_addresses + 1, sizeof(*addresses));
	if (!addresses)
		return error_set(err, ENOMEM, "out of memory");
	service->addresses = addresses;
	memset(&addresses[service->n_addresses], 0, sizeof(*addresses));
	addresses[service->n_addresses].address = address.address;
	addresses[service->n_addresses].family = address.family;
	addresses[service->n_addresses++].source = source;
	return 0;
}

static int add_addresses(struct kube_service *service, const json_t *spec, const char *key,
			 uint8_t source, struct error *err)
{
	const json_t *list;
	const char *text;
	int r = json_get_list(spec, key, &list, err);

	for (size_t i = 0; r >= 0 && i < json_array_size(list); i++) {
		text = json_string_value(json_array_get(list, i));
		if (!text)
			return error_set(err, EINVAL, "%s[%zu]: a string is expected", key, i);
		if (!strcmp(text, "None"))
			continue;
		r = add_address(service, text, source, err);
		if (r < 0)
			return error_prefix(err, r, "%s[%zu]", key, i);
	}
	return r;
}

/* clusterIPs came with dual stack; clusterIP alone is what older servers send. */
static int decode_cluster_addresses(const json_t *spec, struct kube_service *service,
				    struct error *err)
{
	const char *single;
	const json_t *list;
	int r = json_get_string(spec, "clusterIP", &single, err);

	if (r < 0)
		return r;
	service->headless = single && !strcmp(single, "None");
	r = json_get_list(spec, "clusterIPs", &list, err);
	if (r < 0)
		return r;
	if (json_array_size(list))
		return add_addresses(service, spec, "clusterIPs", KUBE_VIPS_CLUSTERIP, err);
	if (!single || !*single || service->headless)
		return 0;
	r = add_address(service, single, KUBE_VIPS_CLUSTERIP, err);
	return r < 0 ? error_prefix(err, r, "clusterIP") : 0;
}

static int decode_ingress(const json_t *object, struct kube_service *service, struct error *err)
{
	const json_t *status, *balancer, *ingress;
	const char *address, *mode;
	int r;

	r = json_get_object(object, "status", &status, err);
	if (r >= 0)
		r = json_get_object(status, "loadBalancer", &balancer, err);
	if (r >= 0)
		r = json_get_list(balancer, "ingress", &ingress, err);
	for (size_t i = 0; r >= 0 && i < json_array_size(ingress); i++) {
		const json_t *item = json_array_get(ingress, i);

		if (!json_is_object(item))
			return error_set(err, EINVAL, "ingress[%zu]: an object is expected", i);
		r = json_get_string(item, "ip", &address, err);
		if (r >= 0)
			r = json_get_string(item, "ipMode", &mode, err);
		/* A hostname has no ip. Mode Proxy: the packets do not carry this destination. */
		if (r >= 0 && address && *address && (!mode || !strcmp(mode, "VIP")))
			r = add_address(service, address, KUBE_VIPS_LOADBALANCER, err);
		if (r < 0)
			return error_prefix(err, r, "status.loadBalancer.ingress[%zu]", i);
	}
	return r;
}

static int decode_type(const json_t *spec, uint8_t *ret_type, struct error *err)
{
	static const char *const names[] = {
		[KUBE_TYPE_CLUSTERIP] = "ClusterIP",
		[KUBE_TYPE_NODEPORT] = "NodePort",
		[KUBE_TYPE_LOADBALANCER] = "LoadBalancer",
		[KUBE_TYPE_EXTERNALNAME] = "ExternalName",
	};
	const char *text;
	int r = json_get_string(spec, "type", &text, err);

	if (r < 0)
		return r;
	for (uint8_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!text || !strcmp(text, names[i])) {
			*ret_type = i;
			return 0;
		}
	}
	return error_set(err, EINVAL, "type: \"%.32s\" is unknown", text);
}

/* timeoutSeconds, as the API server would have defaulted it. */
static int decode_affinity(const json_t *spec, struct kube_service *service, struct error *err)
{
	const json_t *config, *client;
	const char *affinity;
	long long seconds;
	int r = json_get_string(spec, "sessionAffinity", &affinity, err);

	if (r >= 0)
		r = json_get_object(spec, "sessionAffinityConfig", &config, err);
	if (r >= 0)
		r = json_get_object(config, "clientIP", &client, err);
	if (r >= 0)
		r = json_get_integer(client, "timeoutSeconds", 1, AFFINITY_MAX_S,
				     AFFINITY_DEFAULT_S, &seconds, err);
	if (r < 0)
		return r;
	if (affinity && !strcmp(affinity, "ClientIP"))
		service->affinity_s = seconds;
	return 0;
}

/* For a warning: the API takes any text here, so it is no reason to give up the Service. */
static int add_bad_range(struct kube_service *service, const char *text, struct error *err)
{
	char *longer;

	if (asprintf(&longer, "%s%s\"%.64s\"", service->bad_ranges ?: "",
		     service->bad_ranges ? ", " : "", text) < 0)
		return error_set(err, ENOMEM, "out of memory");
	kube_clean_text(longer);
	free(service->bad_ranges);
	service->bad_ranges = longer;
	return 0;
}

/* Blanks around a range, and bits behind it, are allowed; so does kube-proxy have it. */
static int add_range(struct kube_service *service, const char *text, struct error *err)
{
	static const char blanks[] = " \t\n\v\f\r";
	char trimmed[ENDPOINT_TEXT_MAX] = "";
	char plain[sizeof(trimmed)];
	struct prefix prefix;
	size_t length;

	text += strspn(text, blanks);
	length = strlen(text);
	while (length && strchr(blanks, text[length - 1]))
		length--;
	if (length < sizeof(trimmed))
		memcpy(trimmed, text, length);
	decode_without_zeros(trimmed, plain, sizeof(plain));
	if (!strchr(plain, '/') || prefix_parse_lenient(plain, &prefix, NULL) < 0)
		return add_bad_range(service, text, err);
	service->ranges[service->n_ranges++] = prefix;
	return 0;
}

static int decode_ranges(const json_t *spec, struct kube_service *service, struct error *err)
{
	const json_t *ranges;
	int r = json_get_list(spec, "loadBalancerSourceRanges", &ranges, err);

	if (r < 0 || !json_array_size(ranges))
		return r;
	service->ranged = true;
	service->ranges = calloc(json_array_size(ranges), sizeof(*service->ranges));
	if (!service->ranges)
		return error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; r >= 0 && i < json_array_size(ranges); i++) {
		const char *text = json_string_value(json_array_get(ranges, i));

		if (!text)
			return error_set(err, EINVAL,
					 "loadBalancerSourceRanges[%zu]: a string is expected", i);
		r = add_range(service, text, err);
	}
	return r;
}

static int decode_policies(const json_t *spec, struct kube_service *service, struct error *err)
{
	const char *external, *internal;
	long long port;
	int r = json_get_string(spec, "externalTrafficPolicy", &external, err);

	if (r >= 0)
		r = json_get_string(spec, "internalTrafficPolicy", &internal, err);
	if (r >= 0)
		r = json_get_integer(spec, "healthCheckNodePort", 0, PORT_MAX, 0, &port, err);
	if (r < 0)
		return r;
	service->external_local = external && !strcmp(external, "Local");
	service->internal_local = internal && !strcmp(internal, "Local");
	service->health_port = port;
	return 0;
}

static int decode_spec(const json_t *spec, struct kube_service *service, struct error *err)
{
	const json_t *selector;
	const char *class;
	int r;

	r = decode_type(spec, &service->type, err);
	if (r >= 0)
		r = decode_policies(spec, service, err);
	if (r >= 0)
		r = decode_affinity(spec, service, err);
	if (r >= 0)
		r = decode_ranges(spec, service, err);
	if (r >= 0)
		r = decode_service_ports(spec, service, err);
	if (r >= 0)
		r = decode_cluster_addresses(spec, service, err);
	if (r >= 0)
		r = add_addresses(service, spec, "externalIPs", KUBE_VIPS_EXTERNAL, err);
	if (r >= 0)
		r = json_get_object(spec, "selector", &selector, err);
	if (r >= 0)
		r = json_get_string(spec, "loadBalancerClass", &class, err);
	if (r >= 0)
		r = decode_text(class, &service->class, err);
	if (r < 0)
		return error_prefix(err, r, "spec");
	service->selector = json_object_size(selector) > 0;
	return 0;
}

/* In one line, because a warning may show it. */
static int decode_annotation(const json_t *object, enum kube_annotation annotation, char **ret_copy,
			     struct error *err)
{
	const char *text;
	int r;

	r = decode_metadata_text(object, "annotations", kube_annotation_name(annotation), &text,
				 err);
	if (r >= 0)
		r = decode_text(text, ret_copy, err);
	if (r >= 0 && *ret_copy)
		kube_clean_text(*ret_copy);
	return r;
}

static int decode_service_metadata(const json_t *object, struct kube_service *service,
				   struct error *err)
{
	const char *text;
	int r;

	r = json_get_string(json_object_get(object, "metadata"), "creationTimestamp", &text, err);
	if (r < 0)
		return error_prefix(err, r, "metadata");
	r = decode_text(text ? text : "", &service->created, err);
	if (r >= 0)
		r = decode_metadata_text(object, "labels",
					 "service.kubernetes.io/service-proxy-name", &text, err);
	if (r >= 0)
		r = decode_text(text, &service->proxy, err);
	for (int i = 0; r >= 0 && i < KUBE_ANNOTATIONS; i++)
		r = decode_annotation(object, i, &service->annotations[i], err);
	return r;
}

int decode_service(const json_t *object, struct kube_service **ret_service, struct error *err)
{
	_cleanup_(free_service) struct kube_service *service = calloc(1, sizeof(*service));
	const json_t *spec;
	int r;

	if (!service)
		return error_set(err, ENOMEM, "out of memory");
	r = decode_key(object, &service->key, err);
	if (r < 0)
		return error_prefix(err, r, "Service");
	r = json_get_object(object, "spec", &spec, err);
	if (r >= 0 && !spec)
		r = error_set(err, EINVAL, "spec is missing");
	if (r >= 0)
		r = decode_spec(spec, service, err);
	if (r >= 0)
		r = decode_ingress(object, service, err);
	if (r >= 0)
		r = decode_service_metadata(object, service, err);
	if (r < 0)
		return error_prefix(err, r, "Service %s", service->key);
	*ret_service = steal_pointer(&service);
	return 0;
}
