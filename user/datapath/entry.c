// SPDX-License-Identifier: GPL-2.0
/*
 * What hangs on a service or a backend in the maps, one element at a time. Order and undoing are
 * the callers' (apply.c, repair.c).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>

#include <xlb/hash.h>

#include "datapath/internal.h"

/* The kernel's own: an array with an element for each CPU takes no batches before Linux 5.13. */
#define ENOTSUPP 524

#define WAIT_FIRST_NS (50 * 1000)
#define WAIT_MOST_NS (20 * 1000 * 1000)
#define WAITS 50 /* a second in all */

/*
 * Writes n elements. They are made when they are needed, and the kernel keeps few in stock: who
 * asks for thousands in a row is told ENOMEM until it has made more, which takes it a moment
 * (bpf_mem_alloc, and behind it the per-CPU allocator's worker).
 */
static int elements_make(int fd, const void *keys, size_t key_size, const void *values,
			 size_t value_size, uint32_t n)
{
	struct timespec wait = { .tv_nsec = WAIT_FIRST_NS };
	LIBBPF_OPTS(bpf_map_batch_opts, options);
	bool batches = true;
	int waits = 0;

	for (uint32_t done = 0, count; done < n; done += count) {
		const char *key = (const char *)keys + done * key_size;
		const char *value = (const char *)values + done * value_size;
		int r;

		count = batches ? n - done : 1;
		if (count > 1)
			r = bpf_map_update_batch(fd, key, value, &count, &options);
		else
			r = bpf_map_update_elem(fd, key, value, BPF_ANY);
		if (!r)
			continue;
		if (r == -ENOTSUPP) {
			batches = false;
			count = 0;
			continue;
		}
		/* Of one, nothing was written; of many, `count` says how many were. */
		if (r != -ENOMEM || waits++ == WAITS)
			return r;
		count = batches && n - done > 1 ? count : 0;
		nanosleep(&wait, NULL);
		if (wait.tv_nsec < WAIT_MOST_NS)
			wait.tv_nsec *= 2;
	}
	return 0;
}

/* What makes a map larger. */
static const char *option_of(enum map_id id)
{
	return id == MAP_BACKEND_STATS ? "backends" : "services";
}

/* The values one after the other, of all CPUs where there is one for each. */
static int elements_write(struct datapath *dp, enum map_id id, const void *keys,
			  const void *values, size_t value_size, uint32_t n, struct error *err)
{
	int r = elements_make(dp->maps[id].fd, keys, map_key_size(id), values, value_size, n);

	if (r == -E2BIG || r == -ENOSPC)
		return error_set(
			err, ENOSPC,
			"the map %s is full (%u); `lbctl detach --all`, then attach with a larger --max-%s",
			map_name(id), map_entries(config_of(dp), id), option_of(id));
	if (r)
		return error_set(err, -r, "%s/%s: %s", dp->pin_dir, map_name(id), strerror(-r));
	return 0;
}

int element_write(struct datapath *dp, enum map_id id, const void *key, const void *value,
		  struct error *err)
{
	return elements_write(dp, id, key, value, 0, 1, err);
}

static void text_copy(char to[XLB_TEXT_MAX], const char *text)
{
	memcpy(to, text, strnlen(text, XLB_TEXT_MAX - 1));
}

/* New counters say whose they are. */
static void backend_stats_fill(const struct datapath *dp, uint32_t id, char *values)
{
	const struct xlb_backend *backend = backend_at(dp, id);
	struct endpoint vip = {
		.address = backend->vip,
		.port = ntohs(backend->vip_port),
		.family = backend->vip_family,
		.protocol = backend->protocol,
	};
	struct endpoint endpoint = {
		.address = backend->address,
		.port = ntohs(backend->port),
		.family = backend->family,
	};
	char service_text[ENDPOINT_TEXT_MAX], backend_text[ENDPOINT_TEXT_MAX];

	endpoint_format(&vip, service_text);
	endpoint_format_backend(&endpoint, backend_text);
	for (int cpu = 0; cpu < dp->cpus; cpu++) {
		struct xlb_backend_stats *stats =
			(void *)(values + cpu * map_stride(MAP_BACKEND_STATS));

		text_copy(stats->service, service_text);
		text_copy(stats->backend, backend_text);
	}
}

/* The tally first: as soon as the others are there, the packet path copies it to them. */
int backend_stats_make(struct datapath *dp, const uint32_t *ids, uint32_t n, struct error *err)
{
	size_t size = dp->cpus * map_stride(MAP_BACKEND_STATS);
	size_t tally_size = dp->cpus * map_stride(MAP_BACKEND_TALLY);
	_cleanup_(free_pointer) char *values = calloc(n + 1ull, size);
	_cleanup_(free_pointer) char *tallies = calloc(n + 1ull, tally_size);
	int r;

	if (!values || !tallies)
		return error_set(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < n; i++)
		backend_stats_fill(dp, ids[i], values + i * size);
	r = elements_write(dp, MAP_BACKEND_TALLY, ids, tallies, tally_size, n, err);
	return r ? r : elements_write(dp, MAP_BACKEND_STATS, ids, values, size, n, err);
}

int backend_stats_inherit(struct datapath *dp, uint32_t id, uint32_t from, struct error *err)
{
	_cleanup_(free_pointer) struct xlb_backend_stats *stats =
		map_values_new(dp, MAP_BACKEND_STATS);
	_cleanup_(free_pointer) struct xlb_backend_tally *tally =
		map_values_new(dp, MAP_BACKEND_TALLY);
	int r;

	if (!stats || !tally)
		return error_set(err, ENOMEM, "out of memory");
	if (bpf_map_lookup_elem(dp->maps[MAP_BACKEND_STATS].fd, &from, stats) ||
	    bpf_map_lookup_elem(dp->maps[MAP_BACKEND_TALLY].fd, &from, tally))
		return backend_stats_make(dp, &id, 1, err);
	for (int cpu = 0; cpu < dp->cpus; cpu++) {
		stats[cpu].to_backend = tally[cpu].to_backend;
		stats[cpu].to_client = tally[cpu].to_client;
		stats[cpu].flows = tally[cpu].flows;
		/* Nobody's timer is about to copy it. */
		tally[cpu].queued = 0;
	}
	r = element_write(dp, MAP_BACKEND_TALLY, &id, tally, err);
	return r ? r : element_write(dp, MAP_BACKEND_STATS, &id, stats, err);
}

void backend_stats_delete(struct datapath *dp, uint32_t id)
{
	bpf_map_delete_elem(dp->maps[MAP_BACKEND_STATS].fd, &id);
}

int service_stats_clear(struct datapath *dp, uint8_t family, uint32_t id, struct error *err)
{
	_cleanup_(free_pointer) char *values = map_values_new(dp, MAP_SERVICE_STATS);
	uint32_t key = service_key(dp, family, id);

	if (!values)
		return error_set(err, ENOMEM, "out of memory");
	return element_write(dp, MAP_SERVICE_STATS, &key, values, err);
}

static struct xlb_service_info info_of(const struct service *service)
{
	const struct prefix *source = &service->encap_source;
	struct xlb_service_info info = {
		.owner = service->owner,
		.affinity_s = service->affinity_s,
		.gue_port = service->gue_port,
		.gue_checksum = service->gue_checksum,
		.no_echo = service->no_echo,
		.encap_family = source->family,
	};

	if (source->family) {
		info.encap_length = source->length;
		info.encap_source = source->address;
	}
	memcpy(info.name, service->name, strnlen(service->name, sizeof(info.name) - 1));
	return info;
}

int service_info_write(struct datapath *dp, const struct service *before,
		       const struct service *after, uint32_t id, struct error *err)
{
	struct xlb_service_info info = info_of(after), old;
	uint32_t key = service_key(dp, after->vip.family, id);

	if (before) {
		old = info_of(before);
		if (!memcmp(&old, &info, sizeof(info)))
			return 0;
	}
	return element_write(dp, MAP_SERVICE_INFO, &key, &info, err);
}

void service_info_delete(struct datapath *dp, uint8_t family, uint32_t id)
{
	uint32_t key = service_key(dp, family, id);

	bpf_map_delete_elem(dp->maps[MAP_SERVICE_INFO].fd, &key);
}

void filter_set_tunnel(struct datapath *dp, uint64_t *bits, const struct service *service,
		       const struct endpoint *endpoint)
{
	struct endpoint end = *endpoint;

	if (service->forward != XLB_FORWARD_IPIP && service->forward != XLB_FORWARD_GUE)
		return;
	end.port = 0;
	filter_set(dp, bits, &end, IPPROTO_IPIP);
}

void filter_set(struct datapath *dp, uint64_t *bits, const struct endpoint *endpoint,
		uint8_t protocol)
{
	const __u64 *secret = config_of(dp)->secret;
	uint64_t word = xlb_address_word(&endpoint->address, endpoint->family, secret);
	uint32_t bit =
		xlb_filter_bit(xlb_endpoint_mark(word, htons(endpoint->port), protocol, secret));
	uint64_t mask = 1ull << bit % 64;

	if (!(bits[bit / 64] & mask))
		__atomic_store_n(&bits[bit / 64], bits[bit / 64] | mask, __ATOMIC_RELEASE);
}
