// SPDX-License-Identifier: GPL-2.0
/*
 * How a Service wants to be forwarded: annotations, session affinity, source ranges; declared in
 * resolve.h. What cannot be had is a warning, and the default holds: a Service with a wish that
 * makes no sense is served all the same.
 */
#include "kubernetes/resolve.h"

#include <string.h>

/*
 * externalTrafficPolicy: Local is asked for to keep the client's address, so nat, which does not,
 * is no default then. What replies of Pods need is there where all of them are on this node.
 */
static uint8_t default_forward(const struct kube_service *from, uint8_t otherwise, bool external)
{
	return external && from->external_local && otherwise == XLB_FORWARD_NAT ? XLB_FORWARD_DNAT :
										  otherwise;
}

/* Forwarding and scheduler: their defaults are the options', and are told. */
static void resolve_choices(const struct kube_service *from, const struct kube_options *options,
			    bool external, FILE *warnings, struct service *service)
{
	const char *forward = from->annotations[KUBE_FORWARD];
	const char *scheduler = from->annotations[KUBE_SCHEDULER];

	service->forward = default_forward(from, options->default_forward, external);
	service->scheduler = options->default_scheduler;
	if (forward && forward_parse(forward, &service->forward, NULL) < 0 && warnings)
		fprintf(warnings, "%s: annotation %s: \"%.32s\" is unknown: %s is used\n",
			from->key, kube_annotation_name(KUBE_FORWARD), forward,
			forward_name(service->forward));
	if (scheduler && scheduler_parse(scheduler, &service->scheduler, NULL) < 0 && warnings)
		fprintf(warnings, "%s: annotation %s: \"%.32s\" is unknown: %s is used\n",
			from->key, kube_annotation_name(KUBE_SCHEDULER), scheduler,
			scheduler_name(options->default_scheduler));
}

static int parse(enum kube_annotation annotation, const char *text, struct service *service,
		 struct error *err)
{
	switch (annotation) {
	case KUBE_MSS:
		return mss_parse(text, &service->mss, err);
	case KUBE_ENCAP_SOURCE:
		return encap_source_parse(text, &service->encap_source, err);
	case KUBE_GUE_PORT:
		return port_parse(text, &service->gue_port, err);
	case KUBE_GUE_CHECKSUM:
		return gue_checksum_parse(text, &service->gue_checksum, err);
	case KUBE_ECHO:
		return echo_parse(text, &service->no_echo, err);
	default:
		return 0;
	}
}

/* Why an annotation does nothing, although it is well-formed; NULL: it does something. */
static const char *in_vain(enum kube_annotation annotation, uint8_t forward)
{
	if (annotation == KUBE_GUE_PORT && forward != XLB_FORWARD_GUE)
		return "only gue has a port";
	if (annotation == KUBE_GUE_CHECKSUM && forward != XLB_FORWARD_GUE)
		return "only gue has a checksum";
	if (annotation == KUBE_ENCAP_SOURCE && !forward_encapsulates(forward))
		return "only ipip and gue have an outer header";
	return NULL;
}

void resolve_options(const struct kube_service *from, const struct kube_options *options,
		     bool external, FILE *warnings, struct service *service)
{
	struct error err;

	resolve_choices(from, options, external, warnings, service);
	for (int i = 0; i < KUBE_ANNOTATIONS; i++) {
		const char *text = from->annotations[i], *vain = in_vain(i, service->forward);

		if (!text)
			continue;
		if (parse(i, text, service, &err) < 0 && warnings)
			fprintf(warnings, "%s: annotation %s: %.200s: the default is used\n",
				from->key, kube_annotation_name(i), err.text);
		else if (vain && warnings)
			fprintf(warnings,
				"%s: annotation %s: the Service is forwarded by %s, and %s: "
				"it is ignored\n",
				from->key, kube_annotation_name(i), forward_name(service->forward),
				vain);
	}
	service->affinity_s = from->affinity_s;
}

/* A port of endpoints that differs from the VIP's; 0: none does. */
static uint16_t other_port(const struct group *group, const struct wanted_vip *wanted)
{
	const struct kube_service_port *port = &group->service->ports[wanted->port];

	for (size_t i = 0; i < group->n_sets; i++) {
		for (size_t j = 0; j < group->sets[i]->n_parts; j++) {
			const struct kube_part *part = &group->sets[i]->parts[j];
			const struct kube_set_port *match = NULL;

			if (part->family == wanted->vip.family && part->n_endpoints)
				match = resolve_match_port(part, port);
			if (match && match->port != wanted->vip.port)
				return match->port;
		}
	}
	return 0;
}

uint16_t resolve_forward(const struct group *group, const struct wanted_vip *wanted,
			 const struct kube_options *options, struct service *service)
{
	uint16_t port = forward_keeps_port(service->forward) ? other_port(group, wanted) : 0;
	uint8_t otherwise = forward_keeps_port(options->default_forward) ? XLB_FORWARD_NAT :
									   options->default_forward;

	if (port)
		service->forward = default_forward(group->service, otherwise, wanted->external);
	/* What there is no use for is not asked for. */
	if (service->forward != XLB_FORWARD_GUE) {
		service->gue_port = 0;
		service->gue_checksum = false;
	}
	if (!forward_encapsulates(service->forward))
		service->encap_source = (struct prefix){};
	if (wanted->vip.protocol != XLB_TCP)
		service->mss = 0;
	return port;
}

/* Source ranges are for the load balancer's addresses alone, as kube-proxy has it. */
static bool is_balancer(const struct kube_service *from, const struct wanted_vip *wanted)
{
	if (from->type != KUBE_TYPE_LOADBALANCER ||
	    wanted->vip.port != from->ports[wanted->port].port)
		return false;
	for (size_t i = 0; i < from->n_addresses; i++) {
		const struct kube_address *address = &from->addresses[i];

		if (address->source == KUBE_VIPS_LOADBALANCER &&
		    address->family == wanted->vip.family &&
		    !memcmp(&address->address, &wanted->vip.address, sizeof(address->address)))
			return true;
	}
	return false;
}

bool resolve_admits_nobody(const struct kube_service *from, const struct wanted_vip *wanted)
{
	if (!from->ranged || !is_balancer(from, wanted))
		return false;
	for (size_t i = 0; i < from->n_ranges; i++)
		if (from->ranges[i].family == wanted->vip.family)
			return false;
	return true;
}

/* All of the other family is the model's word for nobody. */
int resolve_nobody(struct service *service)
{
	struct prefix nobody = { .family = service->vip.family == XLB_IPV4 ? XLB_IPV6 : XLB_IPV4 };

	return service_add_range(service, &nobody);
}

int resolve_ranges(const struct kube_service *from, const struct wanted_vip *wanted,
		   struct service *service)
{
	int r = 0;

	if (!from->ranged || !is_balancer(from, wanted))
		return 0;
	if (resolve_admits_nobody(from, wanted))
		return resolve_nobody(service);
	for (size_t i = 0; i < from->n_ranges && r >= 0; i++)
		if (from->ranges[i].family == wanted->vip.family)
			r = service_add_range(service, &from->ranges[i]);
	if (r < 0)
		service_clear_ranges(service);
	return r;
}
