// SPDX-License-Identifier: GPL-2.0
/*
 * Our tc programs on a device: clsact, ingress always, egress where packets leave by the kernel's
 * routing. Ours are told from others by the maps that they use, so that several pin directories,
 * and other people's filters, live side by side.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "datapath/internal.h"

#define TC_PRIORITY 7	   /* early: a reply has to be caught before anybody takes it for local */
#define TC_HANDLE 0x786c62 /* "xlb"; the next ones for other pin directories */
#define TC_HANDLES 8
#define PROGRAM_MAPS_MAX 64

bool program_fd_ours(const struct datapath *dp, int fd)
{
	uint32_t maps[PROGRAM_MAPS_MAX], size = sizeof(struct bpf_prog_info);
	struct bpf_prog_info info = {
		.map_ids = (uintptr_t)maps,
		.nr_map_ids = PROGRAM_MAPS_MAX,
	};

	if (bpf_obj_get_info_by_fd(fd, &info, &size))
		return false;
	for (uint32_t i = 0; i < info.nr_map_ids && i < PROGRAM_MAPS_MAX; i++)
		if (maps[i] == dp->own_map_id)
			return true;
	return false;
}

static uint32_t program_id_of(int fd)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

/* Whether it is one of the pinned ones: all that can be told without CAP_SYS_ADMIN. */
static bool program_pinned(const struct datapath *dp, uint32_t program_id)
{
	static const char *const pins[] = { "xdp", "tc_ingress", "tc_egress" };

	for (size_t i = 0; i < sizeof(pins) / sizeof(*pins); i++) {
		_cleanup_(close_fd) int fd = program_open(dp, pins[i], NULL);

		if (fd >= 0 && program_id_of(fd) == program_id)
			return true;
	}
	return false;
}

/*
 * One that is not pinned may be ours all the same: with other flags, for a device with large frames, or
 * of the build before, where an upgrade was not finished.
 */
int program_ours(const struct datapath *dp, uint32_t program_id)
{
	_cleanup_(close_fd) int fd = bpf_prog_get_fd_by_id(program_id);

	if (fd < 0 && errno == EPERM)
		return program_pinned(dp, program_id) ? 1 : -EACCES;
	return fd >= 0 && program_fd_ours(dp, fd);
}

int program_open(const struct datapath *dp, const char *pin, struct error *err)
{
	LIBBPF_OPTS(bpf_obj_get_opts, how, .file_flags = dp->read_only ? BPF_F_RDONLY : 0);
	char path[PATH_MAX + 16];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dp->pin_dir, pin);
	fd = bpf_obj_get_opts(path, &how);
	return fd >= 0 ? fd : error_set(err, errno, "%s: %s", path, strerror(errno));
}

/*
 * Finds our filter on a hook, or a handle for it; *ret_program is 0 where there is none yet. -EACCES: one
 * is written down, and which of those that are there it is cannot be told.
 */
static int filter_place(struct datapath *dp, struct bpf_tc_hook *hook, uint32_t *ret_handle,
			uint32_t *ret_program)
{
	const struct device *device = device_find(dp, hook->ifindex);
	bool expected = device && device->entry.flags & XLB_DEVICE_TC, untold = false;
	uint32_t free_handle = 0;

	for (uint32_t handle = TC_HANDLE; handle < TC_HANDLE + TC_HANDLES; handle++) {
		LIBBPF_OPTS(bpf_tc_opts, query, .handle = handle, .priority = TC_PRIORITY);
		int r = bpf_tc_query(hook, &query);
		int ours = r ? 0 : program_ours(dp, query.prog_id);

		if (ours > 0) {
			*ret_handle = handle;
			*ret_program = query.prog_id;
			return 0;
		}
		untold |= ours < 0;
		if (r == -ENODEV)
			return r;
		if (r && !free_handle)
			free_handle = handle;
	}
	if (expected && untold)
		return -EACCES;
	*ret_handle = free_handle;
	*ret_program = 0;
	return free_handle ? 0 : -EBUSY;
}

static int filter_attach(struct datapath *dp, struct bpf_tc_hook *hook, const char *pin,
			 struct error *err)
{
	_cleanup_(close_fd) int fd = program_open(dp, pin, err);
	LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = fd, .priority = TC_PRIORITY);
	uint32_t handle, program;
	int r;

	if (fd < 0)
		return fd;
	r = filter_place(dp, hook, &handle, &program);
	if (r == -EACCES)
		return 0;
	if (!r && program != program_id_of(fd)) {
		options.handle = handle;
		options.flags = program ? BPF_TC_F_REPLACE : 0;
		r = bpf_tc_attach(hook, &options);
	}
	if (r)
		return error_set(err, -r, "tc on device %d: %s", hook->ifindex, strerror(-r));
	return 0;
}

int tc_attach(struct datapath *dp, uint32_t ifindex, bool egress, bool *ret_qdisc_made,
	      struct error *err)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	bool made;
	int r;

	log_begin();
	r = bpf_tc_hook_create(&hook);
	if (r && r != -EEXIST)
		return error_set(err, -r, "clsact on device %u: %s", ifindex, strerror(-r));
	made = !r;
	hook.attach_point = BPF_TC_INGRESS;
	r = filter_attach(dp, &hook, "tc_ingress", err);
	hook.attach_point = BPF_TC_EGRESS;
	if (!r && egress)
		r = filter_attach(dp, &hook, "tc_egress", err);
	if (r) {
		tc_detach(dp, ifindex, made);
		return r;
	}
	*ret_qdisc_made = made;
	return 0;
}

/* Whether ours is not there any more. */
static bool filter_detach(struct datapath *dp, struct bpf_tc_hook *hook)
{
	LIBBPF_OPTS(bpf_tc_opts, options, .priority = TC_PRIORITY);
	uint32_t program;
	int r = filter_place(dp, hook, &options.handle, &program);

	if (!r && program)
		bpf_tc_detach(hook, &options);
	return r != -EACCES;
}

bool tc_detach(struct datapath *dp, uint32_t ifindex, bool qdisc_made)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
	bool gone, any;

	log_begin();
	gone = filter_detach(dp, &hook);
	hook.attach_point = BPF_TC_EGRESS;
	gone &= filter_detach(dp, &hook);
	if (!gone || !qdisc_made || netlink_filters_any(dp, ifindex, &any) || any)
		return gone;
	hook.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	bpf_tc_hook_destroy(&hook);
	return true;
}
