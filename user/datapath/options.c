// SPDX-License-Identifier: GPL-2.0
/*
 * What few services have, in maps of their own: options that the packet path looks up only where a
 * service's target says so, and the addresses that services have, for packets without a port.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "datapath/internal.h"

/* ---- options ---- */

static uint32_t ticks_of(const struct xlb_config *config, uint32_t seconds)
{
	uint64_t jiffies = (uint64_t)seconds * config->hz;

	return (jiffies + (1u << config->tick_shift) - 1) >> config->tick_shift;
}

struct xlb_service_options options_of(const struct datapath *dp, const struct service *service)
{
	return (struct xlb_service_options){
		.affinity = ticks_of(config_of(dp), service->affinity_s),
		.mss = service->mss,
	};
}

static uint64_t *options_at(struct datapath *dp, uint8_t family, uint32_t id, struct error *err)
{
	uint64_t *options = map_memory(dp, MAP_SERVICE_OPTIONS, err);

	return options ? options + service_key(dp, family, id) : NULL;
}

int options_write(struct datapath *dp, const struct service *service, uint32_t id,
		  struct error *err)
{
	struct xlb_service_options options = options_of(dp, service);
	uint64_t *at = options_at(dp, service->vip.family, id, err), word;

	if (!at)
		return -errno;
	memcpy(&word, &options, sizeof(word));
	__atomic_store_n(at, word, __ATOMIC_RELEASE);
	return 0;
}

int options_read(struct datapath *dp, struct service *service, struct error *err)
{
	uint64_t *at = options_at(dp, service->vip.family, service->id, err);
	struct xlb_service_options options;

	if (!at)
		return -errno;
	memcpy(&options, at, sizeof(options));
	service->mss = options.mss;
	return 0;
}

/* ---- addresses ---- */

static struct xlb_address vip_key(const struct endpoint *vip)
{
	struct xlb_address key = vip->address;

	if (vip->family == XLB_IPV4) {
		key.word[3] = key.word[0];
		key.word[2] = htonl(0xffff);
		key.word[0] = key.word[1] = 0;
	}
	return key;
}

static bool same_address(const struct service *service, const struct endpoint *vip)
{
	return service->vip.family == vip->family &&
	       !memcmp(&service->vip.address, &vip->address, sizeof(vip->address));
}

/* Whether another service of the address leaves ICMP echo to the kernel. */
static bool others_want_no_echo(const struct datapath *dp, const struct endpoint *vip)
{
	struct service *service;
	size_t cursor = 0;

	while ((service = model_next(dp->model, &cursor)))
		if (service->no_echo && same_address(service, vip) &&
		    !endpoint_equal(&service->vip, vip))
			return true;
	return false;
}

int vip_count(struct datapath *dp, const struct service *before, const struct service *after,
	      struct error *err)
{
	const struct endpoint *vip = before ? &before->vip : &after->vip;
	struct xlb_address key = vip_key(vip);
	int fd = dp->maps[MAP_VIPS].fd;
	struct xlb_vip entry = {}, old;

	if (bpf_map_lookup_elem(fd, &key, &entry) && errno != ENOENT)
		return error_set(err, errno, "%s/%s: %s", dp->pin_dir, map_name(MAP_VIPS),
				 strerror(errno));
	old = entry;
	entry.services += !before;
	entry.services -= !after && entry.services;
	if (!entry.services) {
		bpf_map_delete_elem(fd, &key);
		return 0;
	}
	/* Where all answer and go on to, there is nobody to ask. */
	if (after && after->no_echo)
		entry.echo = 0;
	else if (!old.services)
		entry.echo = 1;
	else if (!old.echo)
		entry.echo = !others_want_no_echo(dp, vip);
	if (!memcmp(&entry, &old, sizeof(entry)))
		return 0;
	return element_write(dp, MAP_VIPS, &key, &entry, err);
}

/* An address, as often as services have it. */
struct address_use {
	struct xlb_address key;
	struct xlb_vip entry;
};

static int use_order(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct xlb_address));
}

/* The model's addresses in order, each once; *ret_n of them. NULL: out of memory. */
static struct address_use *addresses_use(const struct datapath *dp, size_t *ret_n)
{
	struct address_use *uses = calloc(model_count(dp->model) + 1, sizeof(*uses));
	struct service *service;
	size_t cursor = 0, all = 0, n = 0;

	while (uses && (service = model_next(dp->model, &cursor)))
		uses[all++] = (struct address_use){ vip_key(&service->vip),
						    { 1, !service->no_echo } };
	if (!uses)
		return NULL;
	qsort(uses, all, sizeof(*uses), use_order);
	for (size_t i = 0; i < all; i++) {
		if (n && !use_order(&uses[n - 1], &uses[i])) {
			uses[n - 1].entry.services++;
			uses[n - 1].entry.echo &= uses[i].entry.echo;
		} else {
			uses[n++] = uses[i];
		}
	}
	*ret_n = n;
	return uses;
}

int vips_mend(struct datapath *dp, struct error *err)
{
	size_t n = 0;
	_cleanup_(free_pointer) struct address_use *uses = addresses_use(dp, &n);
	int fd = dp->maps[MAP_VIPS].fd, r = 0;
	struct xlb_address key, next;
	bool more;

	if (!uses)
		return error_set(err, ENOMEM, "out of memory");
	more = !bpf_map_get_next_key(fd, NULL, &key);
	while (more) {
		more = !bpf_map_get_next_key(fd, &key, &next);
		if (!bsearch(&key, uses, n, sizeof(*uses), use_order))
			bpf_map_delete_elem(fd, &key);
		key = next;
	}
	for (size_t i = 0; !r && i < n; i++)
		r = element_write(dp, MAP_VIPS, &uses[i].key, &uses[i].entry, err);
	return r;
}
