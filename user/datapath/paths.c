// SPDX-License-Identifier: GPL-2.0
/*
 * Which way backends are: the device, and the address of this node that they answer to, as the
 * kernel's routes have it.
 *
 * Answers are kept while the lock is held: one Pod is often behind several services. A
 * direct-mapped cache is enough; what falls out is asked for again.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include <xlb/checksum.h>

#include "datapath/internal.h"
#include "model/endpoint.h"

#define CACHE_SLOTS 8192

struct path_cache {
	struct {
		struct xlb_address destination;
		uint8_t family; /* 0: free */
		struct path path;
	} slot[CACHE_SLOTS];
};

int path_find(struct datapath *dp, const struct xlb_address *destination, uint8_t family,
	      struct path *ret_path, struct error *err)
{
	struct endpoint endpoint = { .address = *destination, .family = family };
	size_t place = endpoint_hash(&endpoint) % CACHE_SLOTS;
	int r;

	if (!dp->paths)
		dp->paths = calloc(1, sizeof(*dp->paths));
	if (!dp->paths)
		return error_set(err, ENOMEM, "out of memory");
	if (dp->paths->slot[place].family != family ||
	    memcmp(&dp->paths->slot[place].destination, destination, sizeof(*destination))) {
		r = netlink_ask_route(dp, destination, family, &dp->paths->slot[place].path, err);
		if (r)
			return r;
		dp->paths->slot[place].destination = *destination;
		dp->paths->slot[place].family = family;
	}
	*ret_path = dp->paths->slot[place].path;
	return 0;
}

void paths_forget(struct datapath *dp)
{
	free(dp->paths);
	dp->paths = NULL;
}

const struct prefix *encap_source_of(const struct service *service, uint8_t family)
{
	bool wanted = service->forward == XLB_FORWARD_IPIP || service->forward == XLB_FORWARD_GUE;

	return wanted && service->encap_source.family == family ? &service->encap_source : NULL;
}

uint32_t prefix_mask(const struct prefix *prefix)
{
	uint32_t last = prefix->family == XLB_IPV6 ? 96 : 0;
	uint32_t fixed = prefix->length > last ? prefix->length - last : 0;

	return htonl(fixed < 32 ? UINT32_MAX >> fixed : 0);
}

bool encap_source_stale(const struct datapath *dp, const struct service *service,
			const struct backend *backend)
{
	const struct prefix *wanted = encap_source_of(service, backend->endpoint.family);
	const struct xlb_backend *entry = backend_at(dp, backend->id);

	return wanted && (memcmp(&entry->source, &wanted->address, sizeof(entry->source)) ||
			  entry->source_mask != prefix_mask(wanted));
}

/*
 * Not one store: a packet that is translated in this very moment may get the old address with the
 * new sum, and is then lost to its checksum.
 */
void backend_reroute(struct datapath *dp, uint32_t id, const struct path *path)
{
	struct xlb_backend *entry = backend_at(dp, id);

	__atomic_store_n(&entry->ifindex, path->ifindex, __ATOMIC_RELAXED);
	if (!memcmp(&entry->source, &path->source, sizeof(entry->source)))
		return;
	for (int i = 0; i < 4; i++)
		__atomic_store_n(&entry->source.word[i], path->source.word[i], __ATOMIC_RELAXED);
	__atomic_store_n(&entry->source_sum, xlb_sum_address(&path->source), __ATOMIC_RELEASE);
}

static int backend_refresh(struct datapath *dp, const struct service *service,
			   const struct backend *backend, bool *changed, struct error *err)
{
	struct xlb_backend *entry = backend_at(dp, backend->id);
	uint32_t before = entry->ifindex;
	struct path path;
	int r = path_find(dp, &backend->endpoint.address, backend->endpoint.family, &path, err);

	if (r)
		return r;
	if (encap_source_of(service, backend->endpoint.family))
		path.source = entry->source;
	if (path.ifindex == before && !memcmp(&path.source, &entry->source, sizeof(path.source)))
		return 0;
	/*
	 * A route that is gone for now (a link went down) leaves the old address: flows may go on
	 * when it is back.
	 */
	if (!path.ifindex)
		return 0;
	if (path.ifindex != before) {
		r = device_watch(dp, path.ifindex, err);
		if (r)
			return r;
	}
	if (!*changed)
		write_begin(dp);
	*changed = true;
	backend_reroute(dp, backend->id, &path);
	if (path.ifindex != before)
		device_unwatch(dp, before);
	return 0;
}

int datapath_refresh_paths(struct datapath *dp, struct error *err)
{
	struct service *service;
	bool changed = false;
	size_t cursor = 0;
	int r = 0;

	if (!dp->locked)
		return error_set(err, EINVAL, "%s: written without the lock", dp->pin_dir);
	paths_forget(dp);
	while (!r && (service = model_next(dp->model, &cursor)))
		for (size_t i = 0; !r && i < service->n_backends; i++)
			r = backend_refresh(dp, service, &service->backends[i], &changed, err);
	if (!r)
		r = devices_mend(dp, err);
	if (changed)
		write_end(dp);
	return r;
}

int datapath_path_events_fd(struct datapath *dp, struct error *err)
{
	unsigned int groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE |
			      RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE;

	if (dp->events)
		return mnl_socket_get_fd(dp->events);
	dp->events = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!dp->events)
		return error_set(err, errno, "netlink: %s", strerror(errno));
	if (mnl_socket_bind(dp->events, groups, MNL_SOCKET_AUTOPID) < 0) {
		int r = error_set(err, errno, "netlink: %s", strerror(errno));

		mnl_socket_close(dp->events);
		dp->events = NULL;
		return r;
	}
	return mnl_socket_get_fd(dp->events);
}

void datapath_path_events_drain(struct datapath *dp)
{
	char buffer[8192];

	if (!dp->events)
		return;
	/*
	 * What they say does not matter, nor whether some were lost (ENOBUFS): everything is looked
	 * up again.
	 */
	while (mnl_socket_recvfrom(dp->events, buffer, sizeof(buffer)) > 0 || errno == ENOBUFS ||
	       errno == EINTR)
		;
}
