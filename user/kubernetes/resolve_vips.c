// SPDX-License-Identifier: GPL-2.0
/*
 * Which of a Service's addresses become VIPs, and what it asks for in vain; declared in resolve.h.
 */
#include "kubernetes/resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct vips {
	struct wanted_vip *vips;
	size_t n;
};

static bool class_is_ours(const struct kube_service *service, const struct kube_options *options)
{
	const char *ours = options->load_balancer_class ?: KUBE_CLASS;

	if (service->type != KUBE_TYPE_LOADBALANCER)
		return true;
	return service->class ? !strcmp(service->class, ours) : !options->only_class;
}

/* Whether the Service is one that we serve at all. */
static bool is_ours(const struct kube_service *service, const struct kube_options *options)
{
	if (service->headless || service->type == KUBE_TYPE_EXTERNALNAME)
		return false;
	if (service->proxy && strcmp(service->proxy, KUBE_PROXY_NAME))
		return false;
	return class_is_ours(service, options);
}

bool resolve_is_external(const struct kube_service *service, const struct kube_options *options)
{
	if (!is_ours(service, options))
		return false;
	if (options->vips & (KUBE_VIPS_LOADBALANCER | KUBE_VIPS_NODEPORT))
		return true;
	for (size_t i = 0; i < service->n_addresses; i++)
		if (options->vips & service->addresses[i].source & KUBE_VIPS_EXTERNAL)
			return true;
	return false;
}

static bool source_wanted(const struct kube_service *service, uint8_t source,
			  const struct kube_options *options)
{
	/* An address that lingers in the status after the type changed is released. */
	if (source == KUBE_VIPS_LOADBALANCER && service->type != KUBE_TYPE_LOADBALANCER)
		return false;
	return options->vips & source;
}

static int add_vip(struct vips *vips, const struct xlb_address *address, uint8_t family,
		   uint8_t protocol, uint16_t number, size_t port, bool external)
{
	struct wanted_vip wanted = { .port = port, .external = external }, *grown;

	wanted.vip.address = *address;
	wanted.vip.family = family;
	wanted.vip.protocol = protocol;
	wanted.vip.port = number;
	for (size_t i = 0; i < vips->n; i++)
		if (endpoint_equal(&vips->vips[i].vip, &wanted.vip))
			return 0;
	grown = reallocarray(vips->vips, vips->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	vips->vips = grown;
	vips->vips[vips->n++] = wanted;
	return 0;
}

static int add_addresses(struct vips *vips, const struct kube_service *service, size_t index,
			 const struct kube_options *options)
{
	const struct kube_service_port *port = &service->ports[index];
	int r = 0;

	for (size_t i = 0; i < service->n_addresses && r >= 0; i++) {
		const struct kube_address *address = &service->addresses[i];

		if (source_wanted(service, address->source, options) &&
		    kube_address_usable(&address->address, address->family))
			r = add_vip(vips, &address->address, address->family, port->protocol,
				    port->port, index, address->source != KUBE_VIPS_CLUSTERIP);
	}
	return r;
}

/*
 * Whether the Service is of this family: its cluster IPs tell. Where there are none to tell (objects
 * from a file may lack them), it is.
 */
static bool has_family(const struct kube_service *service, uint8_t family)
{
	bool told = false;

	for (size_t i = 0; i < service->n_addresses; i++) {
		if (service->addresses[i].source != KUBE_VIPS_CLUSTERIP)
			continue;
		if (service->addresses[i].family == family)
			return true;
		told = true;
	}
	return !told;
}

/* allocateLoadBalancerNodePorts: false leaves the NodePort 0. */
static int add_node_ports(struct vips *vips, const struct kube_service *service, size_t index,
			  const struct kube_options *options)
{
	const struct kube_service_port *port = &service->ports[index];
	int r = 0;

	if (!(options->vips & KUBE_VIPS_NODEPORT) || !port->node_port ||
	    service->type == KUBE_TYPE_CLUSTERIP)
		return 0;
	for (size_t i = 0; i < options->n_node_addresses && r >= 0; i++) {
		const struct endpoint *node = &options->node_addresses[i];

		if (has_family(service, node->family))
			r = add_vip(vips, &node->address, node->family, port->protocol,
				    port->node_port, index, true);
	}
	return r;
}

static void warn_wishes(const struct kube_service *service, const struct kube_options *options,
			FILE *warnings)
{
	struct service unused = {};

	if (service->bad_ranges && service->type == KUBE_TYPE_LOADBALANCER)
		fprintf(warnings,
			"%s: loadBalancerSourceRanges: %s cannot be understood: left out\n",
			service->key, service->bad_ranges);
	resolve_options(service, options, true, warnings, &unused);
}

/* What a VIP gets that its Service did not ask for. */
static void warn_vip(const struct group *group, const struct wanted_vip *wanted,
		     const struct kube_options *options, FILE *warnings)
{
	char vip[ENDPOINT_TEXT_MAX];
	struct service service = {};
	uint8_t wished;
	uint16_t port;

	resolve_options(group->service, options, wanted->external, NULL, &service);
	wished = service.forward;
	port = resolve_forward(group, wanted, options, &service);
	endpoint_format(&wanted->vip, vip);
	if (port)
		fprintf(warnings,
			"%s: %s: %s keeps the port, but endpoints have port %u: %s is used\n",
			group->service->key, vip, forward_name(wished), port,
			forward_name(service.forward));
	if (resolve_admits_nobody(group->service, wanted))
		fprintf(warnings,
			"%s: %s: loadBalancerSourceRanges has none of IPv%u: nobody is let in\n",
			group->service->key, vip, wanted->vip.family);
}

static void warn_addresses(const struct group *group, const struct kube_options *options,
			   FILE *warnings)
{
	const struct kube_service *service = group->service;
	char text[ENDPOINT_TEXT_MAX];

	for (size_t i = 0; i < service->n_addresses; i++) {
		const struct kube_address *address = &service->addresses[i];

		if (source_wanted(service, address->source, options) &&
		    !kube_address_usable(&address->address, address->family))
			fprintf(warnings, "%s: %s cannot be a VIP: it is left out\n", service->key,
				address_format(&address->address, address->family, text));
	}
	for (size_t i = 0; i < group->n_sets; i++) {
		for (size_t j = 0; j < group->sets[i]->n_parts; j++) {
			size_t n = group->sets[i]->parts[j].n_unusable;

			if (n)
				fprintf(warnings,
					"%s: %zu endpoint%s of %s cannot be reached from outside"
					" (loopback or multicast): left out\n",
					service->key, n, n == 1 ? "" : "s", group->sets[i]->key);
		}
	}
}

/* SCTP matters only where the port would have got a VIP. */
static int warn_sctp(const struct group *group, size_t index, const struct kube_options *options,
		     FILE *warnings)
{
	struct vips vips = {};
	int r = add_addresses(&vips, group->service, index, options);

	if (r >= 0)
		r = add_node_ports(&vips, group->service, index, options);
	if (vips.n)
		fprintf(warnings, "%s:%u: SCTP is not supported: the port is skipped\n",
			group->service->key, group->service->ports[index].port);
	free(vips.vips);
	return r;
}

int resolve_vips(const struct group *group, const struct kube_options *options, FILE *warnings,
		 struct wanted_vip **ret_vips, size_t *ret_n)
{
	const struct kube_service *service = group->service;
	struct vips vips = {};
	int r = 0;

	for (size_t i = 0; service && is_ours(service, options) && i < service->n_ports && r >= 0;
	     i++) {
		if (service->ports[i].protocol == KUBE_PROTOCOL_SCTP) {
			r = warn_sctp(group, i, options, warnings);
			continue;
		}
		r = add_addresses(&vips, service, i, options);
		if (r >= 0)
			r = add_node_ports(&vips, service, i, options);
	}
	if (r < 0) {
		free(vips.vips);
		return r;
	}
	if (service && is_ours(service, options))
		warn_addresses(group, options, warnings);
	if (vips.n) {
		warn_wishes(service, options, warnings);
		for (size_t i = 0; i < vips.n; i++)
			warn_vip(group, &vips.vips[i], options, warnings);
	}
	*ret_vips = vips.vips;
	*ret_n = vips.n;
	return 0;
}
