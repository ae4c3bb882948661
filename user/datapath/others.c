// SPDX-License-Identifier: GPL-2.0
/*
 * Programs on devices that are not ours: another xlb's, and strangers'.
 *
 * Programs stay on devices when their pins go: somebody removed them, or they were in a BPF file system
 * of a mount namespace that has ended. An xlb is known by the names of program and maps, and two of them
 * are told apart by the id of the map `backends`. Whether pins are gone or only out of sight (in another
 * mount namespace) cannot be told, so what has none here is taken away only from a device that the user
 * names. What has some belongs to them, and is left alone.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "datapath/internal.h"

#define PROGRAM_MAPS_MAX 64
#define PIN_DEPTH_MAX 4
#define DISPATCHER_NAME "xdp_dispatcher"

/* ---- is it an xlb? ---- */

/* Maps that every program of ours uses, in all versions. */
static const char *const signature[] = { "backends", "backend_stats", "flows", "flows6",
					 "filter",   "vips",	      "drops" };
#define SIGNATURE (sizeof(signature) / sizeof(*signature))

struct maps {
	uint32_t id[PROGRAM_MAPS_MAX];
	uint32_t n;
};

static int program_info(uint32_t program, struct bpf_prog_info *ret_info, struct maps *ret_maps)
{
	_cleanup_(close_fd) int fd = bpf_prog_get_fd_by_id(program);
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	if (ret_maps) {
		info.map_ids = (uintptr_t)ret_maps->id;
		info.nr_map_ids = PROGRAM_MAPS_MAX;
	}
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size))
		return -errno;
	if (ret_maps)
		ret_maps->n = info.nr_map_ids < PROGRAM_MAPS_MAX ? info.nr_map_ids :
								   PROGRAM_MAPS_MAX;
	*ret_info = info;
	return 0;
}

/* One of these maps, by name; the caller closes. */
static int map_named(const struct maps *maps, const char *name, uint32_t *ret_id)
{
	for (uint32_t i = 0; i < maps->n; i++) {
		int fd = bpf_map_get_fd_by_id(maps->id[i]);
		struct bpf_map_info info = {};
		uint32_t size = sizeof(info);

		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &size) &&
		    !strcmp(info.name, name)) {
			*ret_id = info.id;
			return fd;
		}
		close_fd(&fd);
	}
	return -ENOENT;
}

/* The id of its map `backends`; 0: it is no XDP program of an xlb, or it cannot be told. */
static uint32_t xlb_of(uint32_t program)
{
	struct bpf_prog_info info;
	uint32_t own = 0;
	struct maps maps;

	if (program_info(program, &info, &maps) || strcmp(info.name, "xlb"))
		return 0;
	for (size_t i = 0; i < SIGNATURE; i++) {
		uint32_t id;
		_cleanup_(close_fd) int fd = map_named(&maps, signature[i], &id);

		if (fd < 0)
			return 0;
		if (!i)
			own = id;
	}
	return own;
}

/* ---- where is it pinned? ---- */

/* Whether the directory is a whole one of that xlb. */
static bool dir_has(const char *dir, uint32_t map_id)
{
	static const char *const rest[] = { "config", "xdp", "devices" };
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	_cleanup_(close_fd) int fd = -1;
	char path[PATH_MAX + 16];

	for (size_t i = 0; i < sizeof(rest) / sizeof(*rest); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, rest[i]);
		if (access(path, F_OK))
			return false;
	}
	snprintf(path, sizeof(path), "%s/backends", dir);
	fd = bpf_obj_get(path);
	/* The name too: a program of that number is something else. */
	return fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &size) && info.id == map_id &&
	       !strcmp(info.name, "backends");
}

static bool pins_below(const char *top, unsigned int depth, uint32_t map_id, char ret_dir[PATH_MAX])
{
	DIR *dir;
	const struct dirent *entry;
	bool found = false;

	if (dir_has(top, map_id)) {
		memmove(ret_dir, top, strlen(top) + 1);
		return true;
	}
	dir = depth ? opendir(top) : NULL;
	while (dir && !found && (entry = readdir(dir))) {
		char path[PATH_MAX];

		if (entry->d_type != DT_DIR || *entry->d_name == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", top, entry->d_name) >= PATH_MAX)
			continue;
		found = pins_below(path, depth - 1, map_id, ret_dir);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Looks through all BPF file systems that this process sees; "": it is in none of them. */
static void pins_find(uint32_t map_id, char ret_dir[PATH_MAX])
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char line[PATH_MAX + 512], point[PATH_MAX];
	bool found = false;

	*ret_dir = '\0';
	while (mounts && !found && fgets(line, sizeof(line), mounts)) {
		const char *kind = strstr(line, " - ");

		if (kind && !strncmp(kind, " - bpf ", 7) &&
		    sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1)
			found = pins_below(point, PIN_DEPTH_MAX, map_id, ret_dir);
	}
	if (mounts)
		fclose(mounts);
}

/* ---- which devices? ---- */

struct others {
	struct other_xlb *other;
	size_t n;
};

static int others_add(struct others *others, const char *device, uint32_t ifindex, uint32_t program,
		      uint32_t map_id)
{
	struct other_xlb *more = reallocarray(others->other, others->n + 1, sizeof(*more)), *last;

	if (!more)
		return -ENOMEM;
	others->other = more;
	last = &more[others->n++];
	*last = (struct other_xlb){ .ifindex = ifindex, .program_id = program, .map_id = map_id };
	snprintf(last->device, sizeof(last->device), "%s", device);
	pins_find(map_id, last->pin_dir);
	return 0;
}

/* The program on it, and those of its dispatcher. */
static int device_search(const struct datapath *dp, const char *device, uint32_t ifindex,
			 struct others *others)
{
	struct chain_member chain[CHAIN_MAX] = {};
	uint32_t attached = 0;
	struct bpf_prog_info info;
	size_t n = 1;
	int r = 0;

	if (bpf_xdp_query_id(ifindex, 0, &attached) || !attached)
		return 0;
	chain[0].id = attached;
	if (!program_info(attached, &info, NULL) && !strcmp(info.name, DISPATCHER_NAME))
		n = dispatcher_chain(dp, ifindex, attached, chain);
	for (size_t i = 0; !r && i < n; i++) {
		uint32_t map_id = xlb_of(chain[i].id);

		if (map_id && map_id != dp->own_map_id)
			r = others_add(others, device, ifindex, chain[i].id, map_id);
	}
	return r;
}

int datapath_others(const struct datapath *dp, struct other_xlb **ret_others, size_t *ret_n,
		    struct error *err)
{
	_cleanup_(free_pointer) struct datapath *nobody = calloc(1, sizeof(*nobody));
	struct if_nameindex *devices = if_nameindex();
	struct others others = {};
	int r = nobody && devices ? 0 : -ENOMEM;

	log_begin();
	for (size_t i = 0; !r && devices[i].if_index; i++)
		r = device_search(dp ? dp : nobody, devices[i].if_name, devices[i].if_index,
				  &others);
	if (devices)
		if_freenameindex(devices);
	if (r) {
		free(others.other);
		return error_set(err, ENOMEM, "out of memory");
	}
	*ret_others = others.other;
	*ret_n = others.n;
	return 0;
}

bool other_xlb_is(uint32_t program, char ret_pin_dir[PATH_MAX])
{
	uint32_t map_id = xlb_of(program);

	if (!map_id)
		return false;
	pins_find(map_id, ret_pin_dir);
	return true;
}

/* ---- taking it away ---- */

/* Its map `devices`, if that is as ours is; the caller closes. */
static int devices_of(uint32_t program)
{
	struct bpf_prog_info info;
	struct bpf_map_info map = {};
	uint32_t id, size = sizeof(map);
	struct maps maps;
	int fd = program_info(program, &info, &maps) ? -1 : map_named(&maps, "devices", &id);

	if (fd >= 0 && (bpf_obj_get_info_by_fd(fd, &map, &size) ||
			map.value_size != sizeof(struct xlb_device))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Its filters go from this device, and with its last XDP program from all. */
static void filters_take(struct datapath *as, int devices_fd, uint32_t ifindex)
{
	struct if_nameindex *devices = if_nameindex();
	struct xdp_state state;
	bool last = true;

	for (size_t i = 0; devices && devices[i].if_index; i++)
		last &= xdp_look(as, devices[i].if_index, &state) || state.owner != XDP_OURS;
	for (size_t i = 0; devices && devices[i].if_index; i++) {
		struct xlb_device entry = {};

		if (!last && devices[i].if_index != ifindex)
			continue;
		if (devices_fd >= 0 &&
		    bpf_map_lookup_elem(devices_fd, &devices[i].if_index, &entry))
			entry = (struct xlb_device){};
		tc_detach(as, devices[i].if_index, entry.flags & XLB_DEVICE_QDISC);
	}
	if (devices)
		if_freenameindex(devices);
}

int datapath_detach_orphan(const struct other_xlb *other, struct error *err)
{
	_cleanup_(free_pointer) struct datapath *as = calloc(1, sizeof(*as));
	_cleanup_(close_fd) int devices = devices_of(other->program_id);
	char what[IF_NAMESIZE + 16];
	struct xdp_state state;
	int r;

	if (!as)
		return error_set(err, ENOMEM, "out of memory");
	/* Its programs are told from others as ours are. */
	as->own_map_id = other->map_id;
	r = xdp_look(as, other->ifindex, &state);
	if (!r && state.owner != XDP_OURS)
		r = -ENOENT;
	if (!r)
		r = xdp_take(other->ifindex, &state);
	snprintf(what, sizeof(what), "%s: cannot detach", other->device);
	if (r)
		return error_denied(err, -r, what);
	filters_take(as, devices, other->ifindex);
	netlink_close(as);
	return 0;
}

/* ---- strangers ---- */

/* Whether a descriptor is of that program, or of a link that keeps it attached. */
static bool descriptor_is(const char *path, uint32_t program)
{
	FILE *file = fopen(path, "re");
	char line[256];
	uint32_t id;
	bool is = false;

	while (file && !is && fgets(line, sizeof(line), file))
		is = sscanf(line, "prog_id: %u", &id) == 1 && id == program;
	if (file)
		fclose(file);
	return is;
}

static bool process_holds(const char *pid, uint32_t program)
{
	char path[PATH_MAX];
	struct dirent *entry;
	bool holds = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.16s/fdinfo", pid);
	dir = opendir(path);
	while (dir && !holds && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)*entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, entry->d_name);
		holds = descriptor_is(path, program);
	}
	if (dir)
		closedir(dir);
	return holds;
}

/* "python3 (process 123)"; false: nobody has it open, or it cannot be seen. */
static bool holder_find(uint32_t program, char *text, size_t size)
{
	const struct dirent *entry;
	DIR *dir = opendir("/proc");
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		char path[64], name[32] = "";
		FILE *file;

		if (!isdigit((unsigned char)*entry->d_name) ||
		    !process_holds(entry->d_name, program))
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
		file = fopen(path, "re");
		if (file && !fgets(name, sizeof(name), file))
			*name = '\0';
		if (file)
			fclose(file);
		name[strcspn(name, "\n")] = '\0';
		snprintf(text, size, "%s (process %.16s)", name, entry->d_name);
		found = true;
	}
	if (dir)
		closedir(dir);
	return found;
}

void program_tell(uint32_t program, char *text, size_t size)
{
	struct bpf_prog_info info;
	const struct passwd *user;
	char holder[64], who[64];
	bool held;

	if (program_info(program, &info, NULL)) {
		snprintf(text, size, "id %u", program);
		return;
	}
	user = getpwuid(info.created_by_uid);
	snprintf(who, sizeof(who), "%u", info.created_by_uid);
	held = holder_find(program, holder, sizeof(holder));
	snprintf(text, size, "id %u, %s, loaded by %s%s%s", program,
		 *info.name ? info.name : "without a name", user ? user->pw_name : who,
		 held ? ", held by " : "", held ? holder : "");
}
