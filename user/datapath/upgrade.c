// SPDX-License-Identifier: GPL-2.0
/*
 * Another build of lbctl over the maps that are there: its programs take the place of those that are
 * pinned and attached, while packets go on.
 *
 * Whether they are others is told by their tags. They are loaded first; then each pin is replaced by
 * one rename(), and each filter and each program on a device by one call to the kernel. Whoever dies
 * in between leaves programs of both builds, each of which does the whole work; the next one goes on.
 *
 * In a dispatcher nobody can be replaced, only come and go. So the new program comes beside the old
 * one, at the same priority, before the old one goes: for that moment packets may pass both, of which
 * the second finds nothing to do. A full dispatcher has no room for that, which is found out first.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "datapath/internal.h"

static const char *const PINS[] = { "xdp", "tc_ingress", "tc_egress" };
#define N_PINS (sizeof(PINS) / sizeof(PINS[0]))

static bool tag_of(int fd, char tag[17])
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size))
		return false;
	for (size_t i = 0; i < sizeof(info.tag); i++)
		sprintf(tag + 2 * i, "%02x", info.tag[i]);
	return true;
}

static bool pin_tag(const struct datapath *dp, const char *pin, char tag[17])
{
	_cleanup_(close_fd) int fd = program_open(dp, pin, NULL);

	return tag_of(fd, tag);
}

/* Who may use a pin is as it was. */
static void rights_copy(const char *from, const char *to)
{
	struct stat rights;

	if (stat(from, &rights) || chown(to, rights.st_uid, rights.st_gid))
		return;
	chmod(to, rights.st_mode & 07777);
}

int pin_replace(struct datapath *dp, const char *name, int fd, struct error *err)
{
	char path[PATH_MAX + 32], aside[PATH_MAX + 40];

	snprintf(path, sizeof(path), "%s/%s", dp->pin_dir, name);
	snprintf(aside, sizeof(aside), "%s-new", path);
	unlink(aside);	/* of one who died */
	if (bpf_obj_pin(fd, aside))
		return error_set(err, errno, "%s: cannot pin: %s", aside, strerror(errno));
	rights_copy(path, aside);
	if (rename(aside, path)) {
		int r = error_set(err, errno, "%s: %s", path, strerror(errno));

		unlink(aside);
		return r;
	}
	return 0;
}

/* What runs on the device, ours and others'; 0: ours does not. */
static size_t programs_on(struct datapath *dp, const struct device *device, struct xdp_state *state,
			  struct chain_member chain[CHAIN_MAX])
{
	if (!(device->entry.flags & XLB_DEVICE_XDP) || xdp_look(dp, device->ifindex, state) ||
	    state->owner != XDP_OURS)
		return 0;
	return state->dispatcher ?
		       dispatcher_chain(dp, device->ifindex, state->attached_id, chain) :
		       program_describe(dp, state->program_id, chain);
}

static bool has_tag(const struct chain_member *chain, size_t n, const char *tag)
{
	for (size_t i = 0; i < n; i++)
		if (chain[i].ours && !strcmp(chain[i].tag, tag))
			return true;
	return false;
}

/* Whether the program with this tag can come to all devices, before anything is changed. */
static int room_check(struct datapath *dp, const char *tag, struct error *err)
{
	for (size_t i = 0; i < dp->n_devices; i++) {
		struct chain_member chain[CHAIN_MAX];
		char name[IF_NAMESIZE];
		struct xdp_state state;
		size_t n = programs_on(dp, &dp->devices[i], &state, chain);

		if (n < CHAIN_MAX || has_tag(chain, n, tag) ||
		    !if_indextoname(dp->devices[i].ifindex, name))
			continue;
		return error_set(
			err, ENOSPC,
			"%s: libxdp's dispatcher is full, and the program of this build comes before that of the other one goes: unload one of the %d (xdp-loader status %s), and attach again",
			name, CHAIN_MAX, name);
	}
	return 0;
}

/* Replaces the pins if the programs of this build are others. */
static int pins_upgrade(struct datapath *dp, bool *ret_changed, struct error *err)
{
	struct build *build = NULL;
	bool changed = false;
	char tag[17];
	int r = build_load(dp, &build, err);

	if (!r && tag_of(build_program(build, "xdp"), tag))
		r = room_check(dp, tag, err);
	for (size_t i = 0; !r && i < N_PINS; i++) {
		char pinned[17], loaded[17];
		int fd = build_program(build, PINS[i]);

		if (!tag_of(fd, loaded)) {
			r = error_set(err, errno, "%s: %s", PINS[i], strerror(errno));
		} else if (!pin_tag(dp, PINS[i], pinned) || strcmp(pinned, loaded)) {
			r = pin_replace(dp, PINS[i], fd, err);
			changed = true;
		}
	}
	if (!r && changed)
		r = build_pin_counters(dp, build, err);
	build_free(build);
	if (!r)
		*ret_changed = changed;
	return r;
}

static int device_upgrade(struct datapath *dp, struct device *device, const char *tag,
			  bool *changed, struct error *err)
{
	struct chain_member chain[CHAIN_MAX];
	struct xdp_state state;
	bool qdisc_made, there;
	size_t n;
	int r = 0;

	/* First tc, which reads what XDP leaves; it replaces what is not what is pinned. */
	if (device->entry.flags & XLB_DEVICE_TC)
		r = tc_attach(dp, device->ifindex, device->entry.flags & XLB_DEVICE_XDP,
			      &qdisc_made, err);
	if (r == -ENODEV)
		return 0;
	if (r)
		return r;
	n = programs_on(dp, device, &state, chain);
	there = has_tag(chain, n, tag);
	for (size_t i = 0; !r && i < n; i++) {
		if (!chain[i].ours || !strcmp(chain[i].tag, tag))
			continue;
		r = xdp_replace(dp, device->ifindex, &state, &chain[i], !there, err);
		there = true;
		*changed = true;
	}
	return r;
}

int datapath_upgrade(struct datapath *dp, bool *ret_changed, struct error *err)
{
	bool changed = false;
	char tag[17];
	int r;

	if (!dp->locked)
		return error_set(err, EINVAL, "%s: written without the lock", dp->pin_dir);
	r = pins_upgrade(dp, &changed, err);
	if (r)
		return r;
	if (!pin_tag(dp, "xdp", tag))
		return error_set(err, errno, "%s/xdp: %s", dp->pin_dir, strerror(errno));
	write_begin(dp);
	for (size_t i = 0; !r && i < dp->n_devices; i++)
		if (dp->devices[i].entry.flags)
			r = device_upgrade(dp, &dp->devices[i], tag, &changed, err);
	/* These programs may ask for more than those before. */
	config_follow_devices(dp);
	write_end(dp);
	if (!r)
		*ret_changed = changed;
	return r;
}
