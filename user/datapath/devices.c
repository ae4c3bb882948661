// SPDX-License-Identifier: GPL-2.0
/*
 * The entries of `devices`: attached ones, and those that are only watched for replies because a
 * backend is reached by them (bridges, Pods' devices, tunnels).
 *
 * How many backends are behind a device is counted in memory, from the backends' entries; when the
 * last one goes, so does our program on a device that is only watched.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <bpf/bpf.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>

#include "datapath/internal.h"

struct device *device_find(struct datapath *dp, uint32_t ifindex)
{
	for (size_t i = 0; i < dp->n_devices; i++)
		if (dp->devices[i].ifindex == ifindex)
			return &dp->devices[i];
	return NULL;
}

struct device *device_ensure(struct datapath *dp, uint32_t ifindex)
{
	struct device *device = device_find(dp, ifindex), *more;

	if (device)
		return device;
	more = reallocarray(dp->devices, dp->n_devices + 1, sizeof(*more));
	if (!more)
		return NULL;
	dp->devices = more;
	more[dp->n_devices] = (struct device){ .ifindex = ifindex };
	return &more[dp->n_devices++];
}

int device_save(struct datapath *dp, const struct device *device, struct error *err)
{
	if (!bpf_map_update_elem(dp->maps[MAP_DEVICES].fd, &device->ifindex, &device->entry,
				 BPF_ANY))
		return 0;
	return error_set(err, errno, "%s/devices: %s", dp->pin_dir, strerror(errno));
}

void device_forget(struct datapath *dp, uint32_t ifindex)
{
	struct device *device = device_find(dp, ifindex);

	bpf_map_delete_elem(dp->maps[MAP_DEVICES].fd, &ifindex);
	if (!device)
		return;
	device->entry = (struct xlb_device){};
	if (device->backends)
		return;
	*device = dp->devices[--dp->n_devices];
}

void devices_free(struct datapath *dp)
{
	free(dp->devices);
	dp->devices = NULL;
	dp->n_devices = 0;
}

static int devices_read(struct datapath *dp)
{
	int fd = dp->maps[MAP_DEVICES].fd;
	uint32_t key, *previous = NULL;

	while (!bpf_map_get_next_key(fd, previous, &key)) {
		struct device *device = device_ensure(dp, key);

		if (!device)
			return -ENOMEM;
		if (bpf_map_lookup_elem(fd, &key, &device->entry))
			device->entry = (struct xlb_device){};
		previous = &key;
	}
	return 0;
}

int devices_load(struct datapath *dp, struct error *err)
{
	struct service *service;
	size_t cursor = 0;

	devices_free(dp);
	if (devices_read(dp))
		return error_set(err, ENOMEM, "out of memory");
	while ((service = model_next(dp->model, &cursor))) {
		for (size_t i = 0; i < service->n_backends; i++) {
			uint32_t ifindex = backend_at(dp, service->backends[i].id)->ifindex;
			struct device *device =
				ifindex > XLB_LOOPBACK_IFINDEX ? device_ensure(dp, ifindex) : NULL;

			if (device)
				device->backends++;
		}
	}
	return 0;
}

size_t devices_attached(const struct datapath *dp)
{
	size_t n = 0;

	for (size_t i = 0; i < dp->n_devices; i++)
		n += !!(dp->devices[i].entry.flags & XLB_DEVICE_XDP);
	return n;
}

bool ethtool_ask(const char *device, void *command)
{
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_data = command };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	return fd >= 0 && !ioctl(fd, SIOCETHTOOL, &request);
}

static uint32_t uplink_choose(const struct datapath *dp)
{
	uint32_t uplink = 0;

	/* The map has no order; the lowest number is the oldest device. */
	for (size_t i = 0; i < dp->n_devices; i++)
		if (dp->devices[i].entry.flags & XLB_DEVICE_XDP &&
		    (!uplink || dp->devices[i].ifindex < uplink))
			uplink = dp->devices[i].ifindex;
	return uplink;
}

/*
 * Whether packets come in whose checksum is not finished: from senders on the same machine, by drivers
 * that hand over what those have left to them, and in generic mode from what the kernel put together.
 */
static bool is_partial(const struct device *device)
{
	static const char *const drivers[] = { "veth", "tun", "virtio_net", "vif" };
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
	char name[IF_NAMESIZE];

	if (!(device->entry.flags & XLB_DEVICE_XDP))
		return false;
	if (device->entry.mode == XLB_ATTACH_GENERIC)
		return true;
	if (!if_indextoname(device->ifindex, name) || !ethtool_ask(name, &info))
		return false;
	for (size_t i = 0; i < sizeof(drivers) / sizeof(*drivers); i++)
		if (!strcmp(info.driver, drivers[i]))
			return true;
	return false;
}

void config_follow_devices(struct datapath *dp)
{
	struct xlb_config *config = config_of(dp);
	struct device *device = device_find(dp, config->uplink);
	uint32_t partial = 0, flags = 0;

	if (!device || !(device->entry.flags & XLB_DEVICE_XDP))
		__atomic_store_n(&config->uplink, uplink_choose(dp), __ATOMIC_RELEASE);
	for (size_t i = 0; i < dp->n_devices; i++) {
		if (is_partial(&dp->devices[i]))
			partial |= XLB_PARTIAL_CHECKSUMS;
		if (dp->devices[i].entry.mode == XLB_ATTACH_GENERIC)
			partial |= XLB_PARTIAL_TAGS;
		flags |= dp->devices[i].entry.flags;
	}
	__atomic_store_n(&config->partial, partial, __ATOMIC_RELEASE);
	__atomic_store_n(&config->vlans, !!(flags & XLB_DEVICE_VLANS), __ATOMIC_RELEASE);
}

void devices_forget_gone(struct datapath *dp)
{
	char name[IF_NAMESIZE];

	for (size_t i = dp->n_devices; i > 0; i--) {
		const struct device *device = &dp->devices[i - 1];

		if (!device->entry.flags || if_indextoname(device->ifindex, name))
			continue;
		if (device->entry.flags & XLB_DEVICE_XDP)
			xdp_forget(device->ifindex);
		device_forget(dp, device->ifindex);
	}
}

/* Puts the tc programs that a device needs on it, if they are not there. */
static int device_arm(struct datapath *dp, struct device *device, struct error *err)
{
	bool qdisc_made;
	int r;

	if (device->entry.flags & XLB_DEVICE_TC)
		return 0;
	r = tc_attach(dp, device->ifindex, device->entry.flags & XLB_DEVICE_XDP, &qdisc_made, err);
	if (r)
		return r;
	device->entry.flags |= XLB_DEVICE_TC | (qdisc_made ? XLB_DEVICE_QDISC : 0);
	device->entry.mtu = netlink_link(dp, device->ifindex).mtu;
	return device_save(dp, device, err);
}

int device_watch(struct datapath *dp, uint32_t ifindex, struct error *err)
{
	struct device *device;
	int r;

	if (ifindex <= XLB_LOOPBACK_IFINDEX)
		return 0;
	device = device_ensure(dp, ifindex);
	if (!device)
		return error_set(err, ENOMEM, "out of memory");
	/* While nothing is attached there are no replies. */
	r = devices_attached(dp) ? device_arm(dp, device, err) : 0;
	/* A Pod's device may be gone before we get to it; then so is the Pod. */
	if (r && r != -ENODEV)
		return r;
	device->backends++;
	return 0;
}

void device_unwatch(struct datapath *dp, uint32_t ifindex)
{
	struct device *device = device_find(dp, ifindex);

	if (device && device->backends)
		device->backends--;
}

void devices_tidy(struct datapath *dp)
{
	for (size_t i = dp->n_devices; i > 0; i--) {
		struct device *device = &dp->devices[i - 1];
		uint32_t flags = device->entry.flags;

		if (device->backends || flags & XLB_DEVICE_XDP)
			continue;
		if (flags & XLB_DEVICE_TC &&
		    !tc_detach(dp, device->ifindex, flags & XLB_DEVICE_QDISC))
			continue;	/* who can tell takes it away */
		device_forget(dp, device->ifindex);
	}
}

void device_look(struct datapath *dp, struct device *device)
{
	uint32_t mtu = netlink_link(dp, device->ifindex).mtu;

	if (mtu)
		device->entry.mtu = mtu;
	device->entry.flags &= ~XLB_DEVICE_VLANS;
	if (device->entry.flags & XLB_DEVICE_XDP && netlink_has_vlans(dp, device->ifindex))
		device->entry.flags |= XLB_DEVICE_VLANS;
}

/* What is known of a device, against what is so. */
static int device_mend(struct datapath *dp, struct device *device, struct error *err)
{
	struct xlb_device before = device->entry;
	struct xdp_state xdp;
	int r = 0;

	device_look(dp, device);
	if (memcmp(&before, &device->entry, sizeof(before)))
		r = device_save(dp, device, err);
	/* Where it cannot be told, what was written down stays. */
	if (!r && device->entry.flags & XLB_DEVICE_XDP && !xdp_look(dp, device->ifindex, &xdp) &&
	    xdp.owner != XDP_OURS) {
		device->entry.flags &= ~(XLB_DEVICE_XDP | XLB_DEVICE_REDIRECT | XLB_DEVICE_VLANS);
		device->entry.mode = XLB_ATTACH_NONE;
		r = device_save(dp, device, err);
	}
	/*
	 * Again, for what somebody else may have taken away; it changes nothing where all is there.
	 */
	if (!r && device->entry.flags & XLB_DEVICE_TC) {
		bool qdisc_made;

		r = tc_attach(dp, device->ifindex, device->entry.flags & XLB_DEVICE_XDP,
			      &qdisc_made, err);
		if (!r && qdisc_made)
			device->entry.flags |= XLB_DEVICE_QDISC;
	}
	return r;
}

int devices_mend(struct datapath *dp, struct error *err)
{
	int r = 0;

	devices_forget_gone(dp);
	for (size_t i = dp->n_devices; !r && i > 0; i--)
		if (dp->devices[i - 1].entry.flags)
			r = device_mend(dp, &dp->devices[i - 1], err);
	for (size_t i = 0; !r && devices_attached(dp) && i < dp->n_devices; i++) {
		r = dp->devices[i].backends ? device_arm(dp, &dp->devices[i], err) : 0;
		if (r == -ENODEV)
			r = 0;
	}
	config_follow_devices(dp);
	if (!r)
		devices_tidy(dp);
	return r;
}

void devices_disarm(struct datapath *dp)
{
	for (size_t i = dp->n_devices; i > 0; i--) {
		struct device *device = &dp->devices[i - 1];
		uint32_t flags = device->entry.flags;

		if (flags & XLB_DEVICE_XDP || !(flags & XLB_DEVICE_TC))
			continue;
		if (tc_detach(dp, device->ifindex, flags & XLB_DEVICE_QDISC))
			device_forget(dp, device->ifindex);
	}
}
