/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Session affinity: a client's new flows go to the backend that its last one went to, if that was
 * not too long ago and it still takes new flows.
 */
#ifndef XLB_AFFINITY_H
#define XLB_AFFINITY_H

#include "maps.h"
#include "packet.h"
#include "service.h"

static __always_inline void affinity_key_make(const struct packet *packet, __u32 service,
					      bool ipv6, struct xlb_affinity_key *key)
{
	address_map(&key->client, &packet->source, ipv6);
	key->service = SERVICE_KEY(ipv6, service);
	key->pad = 0;
}

/* The backend that the client is bound to; 0: none. */
static __always_inline __u32 affinity_find(const struct packet *packet, __u32 service, bool ipv6)
{
	struct xlb_service_options *options = service_options_get(service, ipv6);
	struct xlb_affinity_key key;
	struct xlb_affinity *known;
	struct xlb_backend *backend;

	if (!options || !options->affinity)
		return 0;
	affinity_key_make(packet, service, ipv6, &key);
	known = bpf_map_lookup_elem(&affinity, &key);
	/* Less than nothing: another CPU has heard of the client since. */
	if (!known || (__s32)(packet->now - known->seen) > (__s32)options->affinity)
		return 0;
	backend = backend_get(known->backend);
	/* An id may have been given to another service's backend since. */
	if (!backend || backend->state != XLB_BACKEND_ACTIVE || !backend->weight ||
	    backend->service != service || backend->vip_family != (ipv6 ? XLB_IPV6 : XLB_IPV4))
		return 0;
	return known->backend;
}

/* The client's flow began on that backend. */
static __always_inline void affinity_note(const struct packet *packet, __u32 service,
					  __u32 backend, bool ipv6)
{
	struct xlb_service_options *options = service_options_get(service, ipv6);
	struct xlb_affinity now = { .backend = backend, .seen = packet->now };
	struct xlb_affinity_key key;

	if (!options || !options->affinity)
		return;
	affinity_key_make(packet, service, ipv6, &key);
	bpf_map_update_elem(&affinity, &key, &now, BPF_ANY);
}

#endif
