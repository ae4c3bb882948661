// SPDX-License-Identifier: GPL-2.0
/*
 * Loading: from the object inside this binary to pinned maps and programs.
 *
 * Everything is pinned into a directory of its own, which then gets its name by one rename(): there
 * is a whole pin directory, or none.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <xlb/hash.h>

#include "datapath/internal.h"

#include "xlb.skel.h"

#define OLDEST_MAJOR 5u
#define OLDEST_MINOR 10u
#define LOG_SHOWN 700 /* bytes of a verifier's log in an error */

static void skeleton_free(struct xlb_bpf **skeleton)
{
	xlb_bpf__destroy(*skeleton);
}

static struct bpf_map *skeleton_map(struct xlb_bpf *skeleton, enum map_id id)
{
	return bpf_object__find_map_by_name(skeleton->obj, map_name(id));
}

/* xlb_bpf__open() for a kernel without atomic exchanges: from a copy of the object. */
static struct xlb_bpf *skeleton_open_old(void)
{
	struct xlb_bpf *skeleton = calloc(1, sizeof(*skeleton));
	_cleanup_(free_pointer) void *object = NULL;
	int r = skeleton ? xlb_bpf__create_skeleton(skeleton) : -ENOMEM;

	if (!r) {
		object = object_for_old_kernels(skeleton->skeleton->data,
						skeleton->skeleton->data_sz);
		r = object ? 0 : -ENOMEM;
	}
	if (!r) {
		skeleton->skeleton->data = object;
		r = bpf_object__open_skeleton(skeleton->skeleton, NULL);
	}
	if (r) {
		xlb_bpf__destroy(skeleton);
		errno = -r;
		return NULL;
	}
	skeleton->rodata->has_atomics = false;
	return skeleton;
}

/* An object that is ready to be loaded with these sizes; NULL: errno says why. */
static struct xlb_bpf *skeleton_open(const struct xlb_config *config)
{
	struct xlb_bpf *skeleton = kernel_has_atomics() ? xlb_bpf__open() :
							  skeleton_open_old();

	if (!skeleton)
		return NULL;
	memcpy((void *)&skeleton->rodata->cfg, config, sizeof(*config));
	xlb_ring_keys(config->seed, (__u64 *)skeleton->rodata->ring_keys);
	skeleton->rodata->cpus = libbpf_num_possible_cpus();
	skeleton->rodata->has_buff_len = kernel_has_buff_len();
	skeleton->rodata->has_fib_mtu = kernel_has_fib_mtu();
	skeleton->rodata->has_mirror = kernel_has_mirror();
	for (int id = 0; id < MAPS; id++)
		bpf_map__set_max_entries(skeleton_map(skeleton, id), map_entries(config, id));
	return skeleton;
}

static int load_failed(int r, struct error *err)
{
	const char *log = log_tail(LOG_SHOWN);
	const char *denial = r == -EPERM ? privilege_denial(true) : NULL;

	if (r == -ENOMEM)
		return error_set(err, ENOMEM, "the kernel has no memory for maps of these sizes");
	if (denial)
		return error_set(err, EPERM, "the kernel does not take the BPF programs: %s",
				 denial);
	return error_set(err, -r, "the kernel does not take the BPF programs: %s%s%s", strerror(-r),
			 *log ? "\n" : "", log);
}

/* On the maps that are there, instead of new ones. */
static int maps_reuse(struct datapath *dp, struct xlb_bpf *skeleton)
{
	int r = 0;

	for (int id = 0; !r && id < MAPS; id++)
		r = bpf_map__reuse_fd(skeleton_map(skeleton, id), dp->maps[id].fd);
	return r;
}

/*
 * Loads, on the maps of `dp` or, if that is NULL, on new ones; where the kernel has no iterators for
 * maps, without that one program.
 */
static int skeleton_load(const struct xlb_config *config, struct datapath *dp,
			 struct xlb_bpf **ret_skeleton, struct error *err)
{
	/* Asked first: trying takes all the maps. */
	for (int iterator = kernel_has_tracing(); iterator >= 0; iterator--) {
		struct xlb_bpf *skeleton;
		int r;

		log_begin();
		skeleton = skeleton_open(config);
		if (!skeleton)
			return load_failed(-errno, err);
		bpf_program__set_autoload(skeleton->progs.xlb_counters, iterator);
		r = dp ? maps_reuse(dp, skeleton) : 0;
		if (!r)
			r = xlb_bpf__load(skeleton);
		if (!r) {
			*ret_skeleton = skeleton;
			return 0;
		}
		xlb_bpf__destroy(skeleton);
		if (!iterator || r == -ENOMEM)
			return load_failed(r, err);
	}
	return -EINVAL;
}

static int pin_failed(const char *path, int r, struct error *err)
{
	return error_set(err, -r, "%s: cannot pin: %s", path, strerror(-r));
}

static int program_pin(struct bpf_program *program, const char *dir, const char *name,
		       struct error *err)
{
	char path[PATH_MAX + 32];
	int r;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	r = bpf_program__pin(program, path);
	return r ? pin_failed(path, r, err) : 0;
}

/* NULL: this kernel has none, and datapath_info() says so. */
static struct bpf_link *iterator_make(struct xlb_bpf *skeleton)
{
	union bpf_iter_link_info info = {};
	LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &info,
		    .link_info_len = sizeof(info));

	if (!bpf_program__autoload(skeleton->progs.xlb_counters))
		return NULL;
	info.map.map_fd = bpf_map__fd(skeleton_map(skeleton, MAP_BACKEND_STATS));
	return bpf_program__attach_iter(skeleton->progs.xlb_counters, &options);
}

static void link_free(struct bpf_link **link)
{
	if (*link)
		bpf_link__disconnect(*link);
	bpf_link__destroy(*link);
}

static void iterator_pin(struct xlb_bpf *skeleton, const char *dir)
{
	_cleanup_(link_free) struct bpf_link *link = iterator_make(skeleton);
	char path[PATH_MAX + 32];

	if (!link)
		return;
	snprintf(path, sizeof(path), "%s/counters", dir);
	bpf_link__pin(link, path);
}

static int skeleton_pin(struct xlb_bpf *skeleton, const char *dir, struct error *err)
{
	int r;

	for (int id = 0; id < MAPS; id++) {
		char path[PATH_MAX + 32];

		snprintf(path, sizeof(path), "%s/%s", dir, map_name(id));
		r = bpf_map__pin(skeleton_map(skeleton, id), path);
		if (r)
			return pin_failed(path, r, err);
	}
	r = program_pin(skeleton->progs.xlb, dir, "xdp", err);
	if (!r)
		r = program_pin(skeleton->progs.xlb_ingress, dir, "tc_ingress", err);
	if (!r)
		r = program_pin(skeleton->progs.xlb_egress, dir, "tc_egress", err);
	if (!r)
		iterator_pin(skeleton, dir);
	return r;
}

/* What the maps hold from the start: the configuration, and for every drop its reason. */
static int skeleton_fill(struct xlb_bpf *skeleton, const struct xlb_config *config,
			 struct error *err)
{
	int cpus = libbpf_num_possible_cpus(), r = 0;
	_cleanup_(free_pointer) struct xlb_drop_stats *drops = calloc(cpus, sizeof(*drops));
	uint32_t key = 0;

	if (!drops)
		return error_set(err, ENOMEM, "out of memory");
	if (bpf_map_update_elem(bpf_map__fd(skeleton->maps.config), &key, config, BPF_ANY))
		r = -errno;
	for (key = 0; !r && key < XLB_DROP_REASONS; key++) {
		for (int cpu = 0; cpu < cpus; cpu++)
			drops[cpu].reason = key;
		if (bpf_map_update_elem(bpf_map__fd(skeleton->maps.drops), &key, drops, BPF_ANY))
			r = -errno;
	}
	return r ? error_set(err, -r, "filling the maps: %s", strerror(-r)) : 0;
}

bool kernel_before(unsigned int major, unsigned int minor)
{
	struct utsname name;
	unsigned int its_major, its_minor;

	return !uname(&name) && sscanf(name.release, "%u.%u", &its_major, &its_minor) == 2 &&
	       (its_major < major || (its_major == major && its_minor < minor));
}

/* Documentation/kernels.md: 5.10 has the last helpers that there is no way around. */
static int kernel_check(struct error *err)
{
	struct utsname name;

	if (!kernel_before(OLDEST_MAJOR, OLDEST_MINOR) || uname(&name))
		return 0;
	return error_set(err, ENOTSUP, "Linux %s is too old: xlb needs at least Linux %u.%u",
			 name.release, OLDEST_MAJOR, OLDEST_MINOR);
}

int load_and_pin(const struct xlb_config *config, const char *dir, struct error *err)
{
	_cleanup_(skeleton_free) struct xlb_bpf *skeleton = NULL;
	int r = kernel_check(err);

	if (r)
		return r;
	if (access("/sys/kernel/btf/vmlinux", R_OK))
		return error_set(
			err, ENOTSUP,
			"this kernel has no BTF (/sys/kernel/btf/vmlinux): it was built without CONFIG_DEBUG_INFO_BTF, or /sys is not mounted");
	r = skeleton_load(config, NULL, &skeleton, err);
	if (!r)
		r = skeleton_fill(skeleton, config, err);
	if (!r)
		r = skeleton_pin(skeleton, dir, err);
	return r;
}

int load_for_dispatcher(struct datapath *dp, bool jumbo, struct bpf_object **ret_object,
			struct error *err)
{
	_cleanup_(skeleton_free) struct xlb_bpf *skeleton = skeleton_open(config_of(dp));
	struct bpf_program *program;
	int r;

	if (!skeleton)
		return load_failed(-errno, err);
	bpf_object__for_each_program (program, skeleton->obj)
		bpf_program__set_autoload(program, program == skeleton->progs.xlb);
	r = maps_reuse(dp, skeleton);
	if (r)
		return load_failed(r, err);
	/* Else drivers refuse larger MTUs, and there is generic mode, which has one buffer always. */
	if (jumbo && kernel_takes_frags())
		bpf_program__set_flags(skeleton->progs.xlb,
				       bpf_program__flags(skeleton->progs.xlb) |
					       BPF_F_XDP_HAS_FRAGS);
	/* Out of the skeleton, which would close it. */
	*ret_object = steal_pointer(&skeleton->obj);
	return 0;
}

int load_for_trace(const struct xlb_config *config, struct bpf_object **ret_object,
		   struct error *err)
{
	_cleanup_(skeleton_free) struct xlb_bpf *skeleton = NULL;
	struct bpf_program *program;
	int r;

	log_begin();
	skeleton = skeleton_open(config);
	if (!skeleton)
		return load_failed(-errno, err);
	skeleton->rodata->at_length = true;
	bpf_object__for_each_program (program, skeleton->obj)
		bpf_program__set_autoload(program, program == skeleton->progs.xlb);
	r = xlb_bpf__load(skeleton);
	if (r)
		return load_failed(r, err);
	*ret_object = steal_pointer(&skeleton->obj);
	return 0;
}

/* ---- for an upgrade ---- */

struct build {
	struct xlb_bpf *skeleton;
};

int build_load(struct datapath *dp, struct build **ret_build, struct error *err)
{
	struct build *build = calloc(1, sizeof(*build));
	int r = build ? skeleton_load(config_of(dp), dp, &build->skeleton, err) :
			error_set(err, ENOMEM, "out of memory");

	if (r) {
		free(build);
		return r;
	}
	*ret_build = build;
	return 0;
}

int build_program(const struct build *build, const char *pin)
{
	const struct xlb_bpf *skeleton = build->skeleton;

	if (!strcmp(pin, "xdp"))
		return bpf_program__fd(skeleton->progs.xlb);
	return bpf_program__fd(!strcmp(pin, "tc_ingress") ? skeleton->progs.xlb_ingress :
							    skeleton->progs.xlb_egress);
}

int build_pin_counters(struct datapath *dp, const struct build *build, struct error *err)
{
	_cleanup_(link_free) struct bpf_link *link = iterator_make(build->skeleton);

	return link ? pin_replace(dp, "counters", bpf_link__fd(link), err) : 0;
}

void build_free(struct build *build)
{
	if (!build)
		return;
	xlb_bpf__destroy(build->skeleton);
	free(build);
}
