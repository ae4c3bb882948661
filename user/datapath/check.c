// SPDX-License-Identifier: GPL-2.0
/* What a service cannot be, said in one line before anything is written. */
#include <errno.h>

#include "datapath/internal.h"

static bool is_prefix(const struct prefix *prefix)
{
	return (prefix->family == XLB_IPV4 && prefix->length <= 32) ||
	       (prefix->family == XLB_IPV6 && prefix->length <= 128);
}

static int backend_check(const struct service *service, const struct backend *backend,
			 struct error *err)
{
	const struct endpoint *endpoint = &backend->endpoint;
	char text[ENDPOINT_TEXT_MAX];

	if ((endpoint->family != XLB_IPV4 && endpoint->family != XLB_IPV6) || !endpoint->port ||
	    backend->state < XLB_BACKEND_ACTIVE || backend->state > XLB_BACKEND_DOWN)
		return error_set(err, EINVAL, "%s: not a backend that this service can have",
				 endpoint_format_backend(endpoint, text));
	if (endpoint->family != service->vip.family && !forward_crosses_families(service->forward))
		return error_set(
			err, EINVAL,
			"%s: is IPv%u, but the VIP is IPv%u: only nat, ipip and gue reach backends of the other family, %s does not",
			endpoint_format_backend(endpoint, text), endpoint->family,
			service->vip.family, forward_name(service->forward));
	if (endpoint->port != service->vip.port && forward_keeps_port(service->forward))
		return error_set(
			err, EINVAL,
			"%s: has another port than the VIP (%u), which %s does not translate: packets reach the backend as the client sent them",
			endpoint_format_backend(endpoint, text), service->vip.port,
			forward_name(service->forward));
	return 0;
}

int service_check(const struct service *service, struct error *err)
{
	char text[ENDPOINT_TEXT_MAX];

	if (service->forward >= XLB_FORWARDS || service->scheduler >= XLB_SCHEDULERS)
		return error_set(err, EINVAL, "%s: forwarding or scheduler out of range",
				 endpoint_format(&service->vip, text));
	if (service->encap_source.family && !is_prefix(&service->encap_source))
		return error_set(err, EINVAL, "%s: the outer source is no address or prefix",
				 endpoint_format(&service->vip, text));
	for (size_t i = 0; i < service->n_ranges; i++)
		if (!is_prefix(&service->ranges[i]))
			return error_set(err, EINVAL, "%s: a source range is no prefix",
					 endpoint_format(&service->vip, text));
	for (size_t i = 0; i < service->n_backends; i++) {
		int r = backend_check(service, &service->backends[i], err);

		if (r)
			return r;
	}
	return 0;
}

int path_check(const struct service *service, const struct backend *backend,
	       const struct path *path, struct error *err)
{
	char text[ENDPOINT_TEXT_MAX];

	if (service->forward == XLB_FORWARD_NAT && path->ifindex == XLB_LOOPBACK_IFINDEX &&
	    backend->endpoint.family != service->vip.family)
		return error_set(
			err, EINVAL,
			"%s: is this node itself, which nat from IPv%u to IPv%u does not reach",
			endpoint_format_backend(&backend->endpoint, text), service->vip.family,
			backend->endpoint.family);
	if (service->forward != XLB_FORWARD_L2 || (path->ifindex && !path->gateway))
		return 0;
	return error_set(
		err, EINVAL,
		"%s: %s, but l2 needs its MAC address: it has to be in a network that a device of this node is in; or use ipip or gue",
		endpoint_format_backend(&backend->endpoint, text),
		path->ifindex ? "is behind a router" : "there is no route to it");
}
