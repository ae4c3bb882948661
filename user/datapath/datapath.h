/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The running load balancer: pinned maps and programs, the devices they are attached to, and the
 * one way in which they are changed.
 *
 * Only this folder talks to libbpf, libxdp and netlink. Nothing is kept between runs but what is
 * pinned; opening reads it back. A writer opens, takes the lock, applies, and lets go; a long-lived
 * one (sync --watch) locks for each batch, and reads the state again if somebody else wrote
 * meanwhile.
 */
#ifndef XLB_DATAPATH_H
#define XLB_DATAPATH_H

#include <limits.h>
#include <sys/types.h>

#include "model/model.h"

#define DATAPATH_PIN_DIR "/sys/fs/bpf/xlb"

/* The first port that nat may have for its own: those below are for programs that were given them. */
#define NAT_PORT_LEAST 1024

/* Sizes are fixed when the maps are made (first attach). 0: the default. */
struct datapath_sizes {
	uint32_t services;	/* 4096; of each family */
	uint32_t backends;	/* 16384 */
	uint32_t flows;		/* 1048576; of IPv4 */
	uint32_t flows6;	/* a sixteenth of flows */
	uint32_t ring_slots;	/* 160 for each backend */
	uint16_t port_min;	/* nat source ports, inclusive: the larger range above 1023 */
	uint16_t port_max;	/* that is outside of ip_local_port_range */
	uint32_t seed;		/* of the rings; the same on all nodes; default a constant */
	bool seed_set;
};

struct datapath;

/*
 * Opens what is pinned. -ENOENT: nothing there ("run lbctl attach"); -EPROTO: another ABI version;
 * -EPERM: names the capability. Who may read the pins and not write them (datapath_share) gets a
 * datapath whose lock is refused: -EACCES.
 */
int datapath_open(const char *pin_dir, struct datapath **ret_dp, struct error *err);
/*
 * Opens, or makes and pins the maps and programs with these sizes (mounting bpffs if need be).
 * Sizes that differ from those that are there: -EEXIST. Takes the lock itself.
 */
int datapath_create(const char *pin_dir, const struct datapath_sizes *sizes,
		    struct datapath **ret_dp, struct error *err);
void datapath_close(struct datapath *dp);	/* NULL is fine; state stays */
/* Removes pins and maps. Refuses (-EBUSY) while a device is attached. */
int datapath_destroy(struct datapath *dp, struct error *err);

/*
 * The writers' lock (flock on the pin directory). Waits; after a second calls waiting() once, if
 * given. Re-reads the state if another writer changed it. -ESTALE: the pins were removed; it will
 * not be had any more.
 */
int datapath_lock(struct datapath *dp, void (*waiting)(const char *pin_dir), struct error *err);
/* Does not wait: -EAGAIN if another one has it. */
int datapath_try_lock(struct datapath *dp, struct error *err);
void datapath_unlock(struct datapath *dp);
const char *datapath_pin_dir(const struct datapath *dp);

/*
 * Lets a group open what is pinned, for reading; 0: nobody but root again. Needs the lock.
 * _share_keep: pins that came later, too.
 */
int datapath_share(struct datapath *dp, gid_t gid, struct error *err);
int datapath_share_keep(struct datapath *dp, struct error *err);
bool datapath_shared(const struct datapath *dp, gid_t *ret_gid);
/* A directory on the way there that the group may not pass; ret_where has room for PATH_MAX. */
bool datapath_share_hidden(const struct datapath *dp, gid_t gid, char ret_where[PATH_MAX]);

/* The running state; owned by dp, valid until the next lock or apply. */
const struct model *datapath_model(struct datapath *dp);

/*
 * Makes one service be as `after` says; NULL: removes `vip`. Needs the lock. New backends and the
 * new ring are written aside; one store switches; what is left over is retired afterwards. On error
 * the old set is still in force. -ENOSPC: a map is full, and the line names it and the option that
 * makes it larger.
 */
int datapath_apply(struct datapath *dp, const struct endpoint *vip, const struct service *after,
		   struct error *err);

/*
 * Services whose connections follow from packet and backends alone remember where they went before
 * a change, until those of before are over; then this gives the memory back. And flows that have been
 * silent for too long stop counting as their backend's, where the scheduler is lc. Needs the lock.
 * Cheap where nothing is due; else it looks at all flows, which takes some 30 ms for a million.
 */
int datapath_settle(struct datapath *dp, struct error *err);
/* Whether there is anything that will have to be settled. */
bool datapath_unsettled(const struct datapath *dp);

/*
 * Looks up device and source address for all backends again (routes, addresses or links changed)
 * and puts tc programs on devices that lack them. Needs the lock.
 */
int datapath_refresh_paths(struct datapath *dp, struct error *err);
/*
 * A netlink socket that becomes readable when routes, addresses or links changed; -errno. Drain it,
 * then lock and refresh. Owned by dp.
 */
int datapath_path_events_fd(struct datapath *dp, struct error *err);
void datapath_path_events_drain(struct datapath *dp);

/* Counters, summed over CPUs. */
struct counters {
	struct xlb_count to_backend, to_client, refused, dropped;
	uint64_t flows;
};
int datapath_service_counters(struct datapath *dp, const struct service *service,
			      struct counters *ret_counters);
int datapath_backend_counters(struct datapath *dp, const struct backend *backend,
			      struct counters *ret_counters);
int datapath_drop_count(struct datapath *dp, enum xlb_drop reason, uint64_t *ret_packets);
const char *drop_name(enum xlb_drop reason);

/* Devices. */
enum attach_mode { ATTACH_AUTO, ATTACH_NATIVE, ATTACH_GENERIC };

/* An XDP program on a device. */
struct chain_member {
	uint32_t id;
	uint32_t priority;	/* in libxdp's dispatcher; 0: not known, or attached alone */
	char name[16];
	char tag[17];
	bool ours;
};
#define CHAIN_MAX 10		/* MAX_DISPATCHER_ACTIONS */

struct device_status {
	char name[16];
	uint32_t ifindex;
	bool xdp;		/* takes packets to VIPs; false: only watched for replies */
	bool native;
	bool dispatcher;	/* through libxdp's dispatcher, beside other programs */
	uint32_t program_id;
	/* what runs on it, ours and others', in that order */
	struct chain_member chain[CHAIN_MAX];
	size_t n_chain;
};

/*
 * Attaches; again is fine and changes nothing. *ret_note: "" or one line that the user should know
 * (generic instead of native, no dispatcher), of at least 256 bytes.
 */
int datapath_attach(struct datapath *dp, const char *device, enum attach_mode mode,
		    unsigned int priority, char *ret_note, struct error *err);
/*
 * Puts the programs of this build in place of those that are pinned and attached, on all devices,
 * if they are others. Needs the lock.
 */
int datapath_upgrade(struct datapath *dp, bool *ret_changed, struct error *err);
/* Takes our programs off the device. -ENOENT: not attached by us. */
int datapath_detach(struct datapath *dp, const char *device, struct error *err);

/*
 * An xlb that is on a device, but not from this pin directory. pin_dir: from which; "": it has none that
 * this process sees, because its pins were removed or are in another mount namespace.
 */
struct other_xlb {
	char device[16];
	uint32_t ifindex;
	uint32_t program_id;
	uint32_t map_id;	/* of its map `backends`, by which its programs are known */
	char pin_dir[PATH_MAX];
};
/*
 * All of them; dp may be NULL. Without CAP_SYS_ADMIN nobody can tell, and there are none. The caller
 * frees.
 */
int datapath_others(const struct datapath *dp, struct other_xlb **ret_others, size_t *ret_n,
		    struct error *err);
/*
 * Takes one without pins off its device: XDP and tc, and with the last device the tc programs of all
 * others.
 */
int datapath_detach_orphan(const struct other_xlb *other, struct error *err);
/* Whether things can be pinned there: the directory above is on a BPF file system. */
bool datapath_can_pin(const char *pin_dir);

/* Devices that we are on; *ret_devices is the caller's to free(). */
int datapath_devices(struct datapath *dp, struct device_status **ret_devices, size_t *ret_n,
		     struct error *err);
/*
 * Addresses of the attached devices (global scope), for NodePorts; caller frees. Addresses of other
 * families than v4 and v6 are left out.
 */
int datapath_device_addresses(struct datapath *dp, struct endpoint **ret_addresses, size_t *ret_n,
			      struct error *err);

/* How full each bounded thing is. */
struct map_use {
	const char *name;
	uint64_t used, size;
	bool known;		/* false: counting it would be slow or impossible */
};
int datapath_map_use(struct datapath *dp, struct map_use **ret_uses, size_t *ret_n,
		     struct error *err);

struct datapath_info {
	const char *pin_dir;
	struct xlb_config config;
	uint32_t program_id;		/* of PIN_DIR/xdp */
	char program_tag[17];
	bool iterator;			/* PIN_DIR/counters is there */
	char iterator_missing[128];	/* why not */
};
int datapath_info(struct datapath *dp, struct datapath_info *ret_info, struct error *err);
/* What the running kernel lacks, since when others have it (NULL: it depends), and the cost. */
struct kernel_lack {
	const char *feature;
	const char *since;
	const char *cost;
};
#define KERNEL_LACKS_MAX 8
size_t datapath_kernel_lacks(struct datapath *dp, struct kernel_lack ret_lacks[KERNEL_LACKS_MAX]);

/*
 * Warnings for `status`: forwarding off, generic mode, offload pitfalls, ... One line each; caller
 * frees the array and its strings.
 */
int datapath_warnings(struct datapath *dp, char ***ret_lines, size_t *ret_n);
/* The same where nothing is pinned. */
int datapath_absent_warnings(const char *pin_dir, char ***ret_lines, size_t *ret_n);

#endif
