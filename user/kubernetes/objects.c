// SPDX-License-Identifier: GPL-2.0
#include "kubernetes/objects.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

bool kube_address_usable(const struct xlb_address *address, uint8_t family)
{
	uint32_t ipv4 = ntohl(address->word[0]);
	struct in6_addr ipv6;

	if (family == XLB_IPV4)
		return ipv4 >> 24 != 0 && ipv4 >> 24 != 127 && ipv4 >> 28 < 14;
	memcpy(&ipv6, address->word, sizeof(ipv6));
	return !IN6_IS_ADDR_UNSPECIFIED(&ipv6) && !IN6_IS_ADDR_LOOPBACK(&ipv6) &&
	       !IN6_IS_ADDR_MULTICAST(&ipv6) && !IN6_IS_ADDR_LINKLOCAL(&ipv6) &&
	       !IN6_IS_ADDR_V4MAPPED(&ipv6);
}

const char *kube_annotation_name(enum kube_annotation annotation)
{
	static const char *const names[KUBE_ANNOTATIONS] = {
		[KUBE_FORWARD] = "xlb.dev/forward",
		[KUBE_SCHEDULER] = "xlb.dev/scheduler",
		[KUBE_MSS] = "xlb.dev/mss",
		[KUBE_ENCAP_SOURCE] = "xlb.dev/encap-source",
		[KUBE_GUE_PORT] = "xlb.dev/gue-port",
		[KUBE_GUE_CHECKSUM] = "xlb.dev/gue-checksum",
		[KUBE_ECHO] = "xlb.dev/echo",
	};

	return names[annotation];
}

void kube_service_free(struct kube_service *service)
{
	if (!service)
		return;
	free(service->key);
	free(service->created);
	free(service->class);
	free(service->proxy);
	for (int i = 0; i < KUBE_ANNOTATIONS; i++)
		free(service->annotations[i]);
	free(service->addresses);
	free(service->ports);
	free(service->ranges);
	free(service->bad_ranges);
	free(service);
}

void kube_set_free(struct kube_set *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->n_parts; i++) {
		free(set->parts[i].ports);
		free(set->parts[i].endpoints);
	}
	free(set->parts);
	free(set->key);
	free(set->service);
	free(set);
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/*
 * The arrays were zeroed before they were filled, so padding and the rest of names are equal too.
 */
static bool same_array(const void *a, size_t n_a, const void *b, size_t n_b, size_t element)
{
	return n_a == n_b && (!n_a || !memcmp(a, b, n_a * element));
}

static bool same_annotations(const struct kube_service *a, const struct kube_service *b)
{
	for (int i = 0; i < KUBE_ANNOTATIONS; i++)
		if (!same_text(a->annotations[i], b->annotations[i]))
			return false;
	return true;
}

bool kube_service_equal(const struct kube_service *a, const struct kube_service *b)
{
	return same_text(a->key, b->key) && same_text(a->created, b->created) &&
	       same_text(a->class, b->class) && same_text(a->proxy, b->proxy) &&
	       same_annotations(a, b) && same_text(a->bad_ranges, b->bad_ranges) &&
	       a->type == b->type && a->external_local == b->external_local &&
	       a->internal_local == b->internal_local && a->health_port == b->health_port &&
	       a->headless == b->headless &&
	       a->selector == b->selector && a->affinity_s == b->affinity_s &&
	       a->ranged == b->ranged &&
	       same_array(a->ranges, a->n_ranges, b->ranges, b->n_ranges, sizeof(*a->ranges)) &&
	       same_array(a->addresses, a->n_addresses, b->addresses, b->n_addresses,
			  sizeof(*a->addresses)) &&
	       same_array(a->ports, a->n_ports, b->ports, b->n_ports, sizeof(*a->ports));
}

static bool same_part(const struct kube_part *a, const struct kube_part *b)
{
	return a->family == b->family && a->n_unusable == b->n_unusable &&
	       same_array(a->ports, a->n_ports, b->ports, b->n_ports, sizeof(*a->ports)) &&
	       same_array(a->endpoints, a->n_endpoints, b->endpoints, b->n_endpoints,
			  sizeof(*a->endpoints));
}

bool kube_set_equal(const struct kube_set *a, const struct kube_set *b)
{
	if (strcmp(a->key, b->key) || strcmp(a->service, b->service) || a->n_parts != b->n_parts)
		return false;
	for (size_t i = 0; i < a->n_parts; i++)
		if (!same_part(&a->parts[i], &b->parts[i]))
			return false;
	return true;
}
