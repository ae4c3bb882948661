// SPDX-License-Identifier: GPL-2.0
/*
 * A second set of maps, with what the pinned ones hold.
 *
 * Not copied: counters, which begin at 0, so that whatever is not 0 after a run was counted by it;
 * and what each CPU knows for itself (`neighbours`, how many answers it sent lately), so that the
 * kernel is asked for the next hop to a client anew, and an answer is never too much.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "datapath/trace_copy.h"

/* How the content of a map is taken over. A map of which nothing is said here is an error. */
enum manner {
	UNKNOWN,
	MEMORY,	  /* mapped and copied as a whole */
	ELEMENTS, /* one by one */
	KEYS,	  /* one by one, with values of 0 */
	NOTHING,
};

static const enum manner manners[MAPS] = {
	[MAP_CONFIG] = MEMORY,		[MAP_SERVICES] = MEMORY,  [MAP_SERVICES6] = MEMORY,
	[MAP_BACKENDS] = MEMORY,	[MAP_RINGS] = MEMORY,	  [MAP_ROTATION] = MEMORY,
	[MAP_FLOWS] = MEMORY,		[MAP_FLOWS6] = MEMORY,	  [MAP_FILTER] = MEMORY,
	[MAP_SERVICE_OPTIONS] = MEMORY, [MAP_DEVICES] = ELEMENTS, [MAP_SERVICE_INFO] = ELEMENTS,
	[MAP_AFFINITY] = ELEMENTS,	[MAP_RANGES] = ELEMENTS,  [MAP_RANGES6] = ELEMENTS,
	[MAP_VIPS] = ELEMENTS,		[MAP_PATHS] = ELEMENTS,	  [MAP_FRAGMENTS] = ELEMENTS,
	[MAP_BACKEND_STATS] = KEYS,	[MAP_DROPS] = NOTHING,	  [MAP_NEIGHBOURS] = NOTHING,
	[MAP_SERVICE_STATS] = NOTHING,	[MAP_LOCKS] = NOTHING,	  [MAP_BACKEND_TALLY] = NOTHING,
	[MAP_MIRRORS] = NOTHING,	[MAP_HELD] = NOTHING,
};

#define KEY_BYTES_MAX sizeof(struct xlb_fragment_key)

static struct bpf_map *copy_map(const struct trace_copy *copy, enum map_id id)
{
	return bpf_object__find_map_by_name(copy->object, map_name(id));
}

int trace_copy_fd(const struct trace_copy *copy, enum map_id id)
{
	return bpf_map__fd(copy_map(copy, id));
}

static int failed(enum map_id id, struct error *err)
{
	return error_set(err, errno, "copying the map %s: %s", map_name(id), strerror(errno));
}

/* ---- as a whole ---- */

static void *snapshot(const void *memory, size_t size)
{
	void *before = malloc(size);

	return before ? memcpy(before, memory, size) : NULL;
}

static int copy_memory(struct trace_copy *copy, enum map_id id, struct error *err)
{
	void *from = map_memory(copy->dp, id, err), *to;
	size_t size = copy->dp->maps[id].size;

	if (!from)
		return -errno;
	to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, trace_copy_fd(copy, id), 0);
	if (to == MAP_FAILED)
		return failed(id, err);
	copy->memory[id] = to;
	if (id != MAP_FLOWS && id != MAP_FLOWS6) {
		memcpy(to, from, size);
		return 0;
	}
	/* Packets go on meanwhile: what was copied is what is remembered, not what is there now. */
	copy->flows_before[id == MAP_FLOWS6] = snapshot(from, size);
	if (!copy->flows_before[id == MAP_FLOWS6])
		return error_set(err, ENOMEM, "out of memory");
	memcpy(to, copy->flows_before[id == MAP_FLOWS6], size);
	return 0;
}

/* ---- one by one ---- */

static int remember_affinity(struct trace_copy *copy, const void *key, const void *value,
			     struct error *err)
{
	size_t n = copy->n_affinities;
	struct affinity_element *more;

	if (!(n & (n - 1))) { /* a power of two, or 0: there is no room */
		more = reallocarray(copy->affinities, n ? 2 * n : 1, sizeof(*more));
		if (!more)
			return error_set(err, ENOMEM, "out of memory");
		copy->affinities = more;
	}
	memcpy(&copy->affinities[n].key, key, sizeof(struct xlb_affinity_key));
	memcpy(&copy->affinities[n].value, value, sizeof(struct xlb_affinity));
	copy->n_affinities++;
	return 0;
}

static int copy_element(struct trace_copy *copy, enum map_id id, const void *key, void *value,
			struct error *err)
{
	/* Gone meanwhile, or pushed out: that may happen to any of them. */
	if (manners[id] == ELEMENTS && bpf_map_lookup_elem(copy->dp->maps[id].fd, key, value))
		return errno == ENOENT ? 0 : failed(id, err);
	if (bpf_map_update_elem(trace_copy_fd(copy, id), key, value, BPF_ANY))
		return failed(id, err);
	return id == MAP_AFFINITY ? remember_affinity(copy, key, value, err) : 0;
}

static int copy_elements(struct trace_copy *copy, enum map_id id, struct error *err)
{
	/* Twice as many as there can be: keys may come again while others come and go. */
	uint32_t left = 2 * map_entries(config_of(copy->dp), id);
	_cleanup_(free_pointer) void *value = map_values_new(copy->dp, id);
	char key[KEY_BYTES_MAX], next[KEY_BYTES_MAX];
	const void *last = NULL;
	int r;

	if (!value)
		return error_set(err, ENOMEM, "out of memory");
	while (left-- && !bpf_map_get_next_key(copy->dp->maps[id].fd, last, next)) {
		r = copy_element(copy, id, next, value, err);
		if (r)
			return r;
		memcpy(key, next, map_key_size(id));
		last = key;
	}
	return 0;
}

static int copy_one(struct trace_copy *copy, enum map_id id, struct error *err)
{
	switch (manners[id]) {
	case MEMORY:
		return copy_memory(copy, id, err);
	case ELEMENTS:
	case KEYS:
		return copy_elements(copy, id, err);
	case NOTHING:
		return 0;
	default:
		return error_set(err, EPROTO, "how to copy the map %s is not known: this is a bug",
				 map_name(id));
	}
}

int trace_copy_make(struct datapath *dp, struct trace_copy *ret_copy, struct error *err)
{
	struct trace_copy copy = { .dp = dp };
	int r = load_for_trace(config_of(dp), &copy.object, err);

	for (int id = 0; !r && id < MAPS; id++)
		r = copy_one(&copy, id, err);
	if (r) {
		trace_copy_end(&copy);
		return r;
	}
	*ret_copy = copy;
	return 0;
}

void trace_copy_end(struct trace_copy *copy)
{
	for (int id = 0; id < MAPS; id++)
		if (copy->memory[id])
			munmap(copy->memory[id], copy->dp->maps[id].size);
	bpf_object__close(copy->object);
	free(copy->flows_before[0]);
	free(copy->flows_before[1]);
	free(copy->affinities);
	*copy = (struct trace_copy){};
}

/* ---- notes ---- */

/* Offset and size of a member of a struct, given by type; false: there is no such member. */
static bool member_find(const struct btf *btf, int *type, const char *name, size_t length,
			size_t *offset)
{
	const struct btf_type *structure = btf__type_by_id(btf, btf__resolve_type(btf, *type));
	const struct btf_member *member = structure ? btf_members(structure) : NULL;

	if (!structure || !btf_is_struct(structure))
		return false;
	for (int i = 0; i < btf_vlen(structure); i++, member++) {
		const char *here = btf__name_by_offset(btf, member->name_off);

		if (strncmp(here, name, length) || here[length])
			continue;
		*offset += member->offset / 8;
		*type = member->type;
		return true;
	}
	return false;
}

/* Copies "field" or "struct.field" of struct packet. */
static bool note_read(const struct btf *btf, const char *packet, const char *path, void *to,
		      size_t size)
{
	int type = btf__find_by_name_kind(btf, "packet", BTF_KIND_STRUCT);
	size_t offset = 0, length;

	for (; *path; path += length + (path[length] == '.')) {
		length = strcspn(path, ".");
		if (type < 0 || !member_find(btf, &type, path, length, &offset))
			return false;
	}
	if (btf__resolve_size(btf, type) != (long long)size)
		return false;
	memcpy(to, packet + offset, size);
	return true;
}

/* The one CPU's packet that is not all zero; NULL: none is, nothing was parsed. */
static const char *noted(const char *packets, size_t stride, int cpus)
{
	for (int cpu = 0; cpu < cpus; cpu++, packets += stride)
		for (size_t i = 0; i < stride; i++)
			if (packets[i])
				return packets;
	return NULL;
}

int trace_notes_read(const struct trace_copy *copy, struct trace_notes *ret_notes,
		     struct error *err)
{
	struct bpf_map *map = bpf_object__find_map_by_name(copy->object, "packets");
	size_t stride = map ? (bpf_map__value_size(map) + 7) / 8 * 8 : 0;
	_cleanup_(free_pointer) char *packets = calloc(copy->dp->cpus, stride + 1);
	const struct btf *btf = bpf_object__btf(copy->object);
	struct trace_notes notes = {};
	const struct {
		const char *path;
		void *to;
		size_t size;
	} fields[] = {
		{ "source", &notes.source, sizeof(notes.source) },
		{ "destination", &notes.destination, sizeof(notes.destination) },
		{ "source_port", &notes.source_port, sizeof(notes.source_port) },
		{ "destination_port", &notes.destination_port, sizeof(notes.destination_port) },
		{ "now", &notes.now, sizeof(notes.now) },
		{ "protocol", &notes.protocol, sizeof(notes.protocol) },
		{ "ipv6", &notes.ipv6, sizeof(notes.ipv6) },
		{ "outcome.service", &notes.service, sizeof(notes.service) },
		{ "outcome.backend", &notes.backend, sizeof(notes.backend) },
		{ "outcome.known_service", &notes.known_service, sizeof(notes.known_service) },
		{ "outcome.to_client", &notes.to_client, sizeof(notes.to_client) },
		{ "outcome.new_flow", &notes.new_flow, sizeof(notes.new_flow) },
		{ "outcome.by_kernel", &notes.by_kernel, sizeof(notes.by_kernel) },
		{ "outcome.held", &notes.held, sizeof(notes.held) },
	};
	const char *packet;
	uint32_t zero = 0;

	if (!packets)
		return error_set(err, ENOMEM, "out of memory");
	if (!map || bpf_map_lookup_elem(bpf_map__fd(map), &zero, packets))
		return error_set(err, errno, "the program's notes cannot be read: %s",
				 strerror(errno));
	packet = noted(packets, stride, copy->dp->cpus);
	for (size_t i = 0; packet && i < sizeof(fields) / sizeof(*fields); i++)
		if (!note_read(btf, packet, fields[i].path, fields[i].to, fields[i].size))
			return error_set(err, EPROTO,
					 "the program makes no note of %s that lbctl "
					 "understands: this is a bug",
					 fields[i].path);
	*ret_notes = notes;
	return 0;
}
