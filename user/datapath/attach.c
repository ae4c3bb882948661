// SPDX-License-Identifier: GPL-2.0
/*
 * Attaching and detaching: which devices may be, what was there before, and what is written down of
 * it. tc comes before XDP and goes after it: the XDP program leaves notes that tc has to read.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "datapath/internal.h"

#define NOTE_BYTES 256

/* Whom we are not alone with, if it is a dispatcher that is there already. */
static bool is_beside(const struct xdp_state *before)
{
	return before->owner == XDP_DISPATCHER;
}

/* libxdp says no more than "busy" when its dispatcher cannot take us. */
static int attach_failed(const char *device, const struct xdp_state *before, int r,
			 struct error *err)
{
	const char *words = xdp_last_words();

	if (is_beside(before) && (r == -EBUSY || r == -EOPNOTSUPP))
		return error_set(
			err, -r,
			"%s: libxdp's dispatcher is attached and does not take another program on this kernel; detach what is there (xdp-loader unload %s --all)",
			device, device);
	if (is_beside(before) && r == -E2BIG)
		return error_set(
			err, -r,
			"%s: libxdp's dispatcher is full: %d programs; unload one of them (xdp-loader status %s)",
			device, CHAIN_MAX, device);
	return error_set(err, -r, "%s: cannot attach%s: %s%s%s%s", device,
			 is_beside(before) ? " beside what is in libxdp's dispatcher" : "",
			 strerror(-r), *words ? " (" : "", words, *words ? ")" : "");
}

/* A driver's own fault, after which generic mode may do; not what stands in the way there, too. */
static bool is_drivers(int r)
{
	return r != -EBUSY && r != -EEXIST && r != -ENODEV && r != -EPERM;
}

static int attach_xdp(struct datapath *dp, uint32_t ifindex, const char *device,
		      const struct xdp_state *before, enum attach_mode mode, unsigned int priority,
		      char *note, struct error *err)
{
	bool beside = is_beside(before);
	/* A dispatcher stays in the mode that it is in. */
	bool native = beside ? before->native : mode != ATTACH_GENERIC;
	int r = xdp_put(dp, ifindex, native, priority, !beside, err);
	char why[128];

	if (!r && mode == ATTACH_AUTO && !native)
		snprintf(
			note, NOTE_BYTES,
			"%s: libxdp's dispatcher is there in generic mode, and xlb in it; that is slower",
			device);
	if (!r)
		return 0;
	if (beside || mode != ATTACH_AUTO || !is_drivers(r))
		return attach_failed(device, before, r, err);
	/* virtio_net says so of too few queues. */
	snprintf(why, sizeof(why), "%s%s", strerror(-r),
		 r == -ENOMEM ? "; with `ethtool -L`, twice as many queues as CPUs, it may" : "");
	r = xdp_put(dp, ifindex, false, priority, true, err);
	if (r)
		return attach_failed(device, before, r, err);
	snprintf(note, NOTE_BYTES,
		 "%s: its driver does not take XDP (%s); attached in generic mode, which is slower",
		 device, why);
	return 0;
}

static int in_the_way(const char *device, const struct xdp_state *state, struct error *err)
{
	char pin_dir[PATH_MAX], text[256];

	if (!other_xlb_is(state->program_id, pin_dir)) {
		program_tell(state->program_id, text, sizeof(text));
		return error_set(
			err, EBUSY,
			"%s: another XDP program is attached (%s); detach it, or load it through libxdp's dispatcher (xdp-loader load %s ...), which lets several programs share a device",
			device, text, device);
	}
	if (*pin_dir)
		return error_set(
			err, EBUSY,
			"%s: another xlb is attached (id %u), pinned in %.512s; `lbctl detach` with that --pin-dir takes it away",
			device, state->program_id, pin_dir);
	return error_set(
		err, EBUSY,
		"%s: an xlb is attached (id %u) whose pins are gone, or in another mount namespace; `lbctl detach %s` takes it away, and then you can attach",
		device, state->program_id, device);
}

static const char *mode_name(bool native)
{
	return native ? "native" : "generic";
}

/* What is attached already, and need not be again; else a reason not to. */
static int attach_check(const char *device, const struct xdp_state *state, enum attach_mode mode,
			struct error *err)
{
	if (state->owner == XDP_FOREIGN)
		return in_the_way(device, state, err);
	if (state->owner == XDP_NOBODY || mode == ATTACH_AUTO ||
	    state->native == (mode == ATTACH_NATIVE))
		return 0;
	if (is_beside(state))
		return error_set(
			err, EEXIST,
			"%s: libxdp's dispatcher is attached in %s mode, and so xlb can be: --mode %s, or auto",
			device, mode_name(state->native), mode_name(state->native));
	return error_set(err, EEXIST, "%s: attached already, in %s mode; `lbctl detach %s` first",
			 device, mode_name(state->native), device);
}

static void name_of(uint32_t ifindex, char name[IF_NAMESIZE])
{
	if (!ifindex || !if_indextoname(ifindex, name))
		strcpy(name, "another");
}

/* Devices whose packets are better taken elsewhere, or are taken by another one first. */
static int attach_place(struct datapath *dp, uint32_t ifindex, const char *device,
			enum attach_mode mode, struct error *err)
{
	struct link link = netlink_link(dp, ifindex);
	char name[IF_NAMESIZE];

	if (!strcmp(link.kind, "vlan") && mode != ATTACH_GENERIC) {
		name_of(link.below, name);
		return error_set(
			err, EINVAL,
			"%s: a VLAN of %s, which has no driver of its own: attach to %s (tagged packets are served there), or here with --mode generic",
			device, name, name);
	}
	if (!strcmp(link.port_of, "bond")) {
		name_of(link.above, name);
		return error_set(err, EINVAL, "%s: a port of %s, whose packets these are: attach to %s",
				 device, name, name);
	}
	return 0;
}

static int device_index(const char *device, uint32_t *ret_ifindex, struct error *err)
{
	uint32_t ifindex = if_nametoindex(device);

	if (!ifindex)
		return error_set(err, ENODEV, "%s: no such device", device);
	if (ifindex == XLB_LOOPBACK_IFINDEX)
		return error_set(
			err, EINVAL,
			"%s: no packet from outside comes in there; attach to a real device",
			device);
	*ret_ifindex = ifindex;
	return 0;
}

/* Writes down what the device is now. */
static int attach_record(struct datapath *dp, uint32_t ifindex, bool native, struct error *err)
{
	struct device *device = device_find(dp, ifindex);

	device->entry.flags &= ~XLB_DEVICE_REDIRECT;
	device->entry.flags |= XLB_DEVICE_XDP | (native ? XLB_DEVICE_REDIRECT : 0);
	device->entry.mode = native ? XLB_ATTACH_NATIVE : XLB_ATTACH_GENERIC;
	device_look(dp, device);
	config_follow_devices(dp);
	return device_save(dp, device, err);
}

static int attach_tc(struct datapath *dp, uint32_t ifindex, struct error *err)
{
	struct device *device = device_ensure(dp, ifindex);
	bool qdisc_made;
	int r;

	if (!device)
		return error_set(err, ENOMEM, "out of memory");
	r = tc_attach(dp, ifindex, true, &qdisc_made, err);
	if (r)
		return r;
	device->entry.flags |= XLB_DEVICE_TC | (qdisc_made ? XLB_DEVICE_QDISC : 0);
	return device_save(dp, device, err);
}

/*
 * Where our XDP program is not, or no longer: tc goes too, but for what a device that backends are
 * reached by needs.
 */
static int tc_withdraw(struct datapath *dp, uint32_t ifindex, struct error *err)
{
	struct device *device = device_find(dp, ifindex);
	int r = 0;

	if (device) {
		tc_detach(dp, ifindex, device->entry.flags & XLB_DEVICE_QDISC);
		device->entry = (struct xlb_device){};
		device_forget(dp, ifindex);
	}
	config_follow_devices(dp);
	if (devices_attached(dp))
		r = devices_mend(dp, err);
	else
		devices_disarm(dp);
	return r;
}

static int attach_all(struct datapath *dp, uint32_t ifindex, const char *device,
		      enum attach_mode mode, unsigned int priority, char *note, struct error *err)
{
	struct xdp_state state;
	int r = xdp_look(dp, ifindex, &state);

	if (r)
		return error_set(err, -r, "%s: %s", device, strerror(-r));
	r = attach_check(device, &state, mode, err);
	if (!r && state.owner != XDP_OURS)
		r = attach_place(dp, ifindex, device, mode, err);
	if (!r)
		r = attach_tc(dp, ifindex, err);
	if (r)
		return r;
	if (state.owner != XDP_OURS)
		r = attach_xdp(dp, ifindex, device, &state, mode, priority, note, err);
	if (r) {
		tc_withdraw(dp, ifindex, NULL);
		return r;
	}
	r = xdp_look(dp, ifindex, &state);
	if (r)
		return error_set(err, -r, "%s: %s", device, strerror(-r));
	if (!*note && !state.dispatcher)
		snprintf(
			note, NOTE_BYTES,
			"%s: this kernel does not take xlb into libxdp's dispatcher; attached alone, other XDP programs cannot share the device",
			device);
	return attach_record(dp, ifindex, state.native, err);
}

int datapath_attach(struct datapath *dp, const char *device, enum attach_mode mode,
		    unsigned int priority, char *ret_note, struct error *err)
{
	char note[NOTE_BYTES] = "";
	uint32_t ifindex = 0;
	int r = device_index(device, &ifindex, err);

	if (r)
		return r;
	if (!dp->locked)
		return error_set(err, EINVAL, "%s: written without the lock", dp->pin_dir);
	write_begin(dp);
	r = attach_all(dp, ifindex, device, mode, priority, note, err);
	write_end(dp);
	if (!r)
		r = datapath_refresh_paths(dp, err);
	if (!r)
		strcpy(ret_note, note);
	return r;
}

/* ---- detaching ---- */

int datapath_detach(struct datapath *dp, const char *device, struct error *err)
{
	struct xdp_state state;
	uint32_t ifindex = if_nametoindex(device);
	char what[IF_NAMESIZE + 16];
	int r = privilege_check(true, err);

	if (r)
		return r;
	if (!dp->locked)
		return error_set(err, EINVAL, "%s: written without the lock", dp->pin_dir);
	if (!ifindex)
		return error_set(err, ENODEV, "%s: no such device", device);
	r = xdp_look(dp, ifindex, &state);
	if (r)
		return error_set(err, -r, "%s: %s", device, strerror(-r));
	if (state.owner != XDP_OURS)
		return error_set(err, ENOENT, "%s: xlb is not attached there", device);
	write_begin(dp);
	r = xdp_take(ifindex, &state);
	snprintf(what, sizeof(what), "%s: cannot detach", device);
	if (r)
		r = error_denied(err, -r, what);
	else
		r = tc_withdraw(dp, ifindex, err);
	write_end(dp);
	return r;
}
