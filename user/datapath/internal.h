/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of this folder share. */
#ifndef XLB_DATAPATH_INTERNAL_H
#define XLB_DATAPATH_INTERNAL_H

#include <limits.h>

#include <xlb/abi.h>

#include "base/cleanup.h"
#include "datapath/datapath.h"
#include "datapath/pool.h"

enum map_id {
	MAP_CONFIG,
	MAP_SERVICES,
	MAP_SERVICES6,
	MAP_BACKENDS,
	MAP_RINGS,
	MAP_ROTATION,
	MAP_FLOWS,
	MAP_FLOWS6,
	MAP_FILTER,
	MAP_DROPS,
	MAP_NEIGHBOURS,
	MAP_BACKEND_TALLY,
	MAP_MIRRORS,
	MAP_BACKEND_STATS,
	MAP_SERVICE_STATS,
	MAP_SERVICE_INFO,
	MAP_DEVICES,
	MAP_SERVICE_OPTIONS,
	MAP_AFFINITY,
	MAP_RANGES,
	MAP_RANGES6,
	MAP_VIPS,
	MAP_PATHS,
	MAP_FRAGMENTS,
	MAP_HELD,
	MAP_LOCKS,
	MAPS,
};

struct map {
	int fd;
	void *memory;		/* mmapped, where it can be and was wanted; else NULL */
	size_t size;		/* of memory */
};

struct device {			/* an entry of `devices`, and what else this process knows of it */
	uint32_t ifindex;
	struct xlb_device entry;
	uint32_t backends;	/* that the kernel's routes send there */
};

/* How the kernel would reach a destination. */
struct path {
	struct xlb_address source;	/* of this node; zero: there is no route */
	uint32_t ifindex;		/* 0: there is no route; 1 (lo): an address of this node */
	bool gateway;			/* by way of a router: not on the device's own link */
};

struct path_cache;
struct mnl_socket;

struct datapath {
	char pin_dir[PATH_MAX];
	int dir_fd;
	bool locked;
	bool read_only;			/* this process may look, and not write */
	int cpus;
	struct map maps[MAPS];
	uint32_t own_map_id;		/* of `backends`: a program that uses it is ours */
	int tick_fd;			/* of the program that tells the tick; -1: none yet */

	/* The state as it was read, or written since. */
	struct model *model;
	struct service **by_key;	/* by XLB_SERVICE_KEY: into the model */
	struct id_pool ids;
	struct extent_pool ring_lines;
	uint64_t generation;		/* of xlb_config that this is */

	struct device *devices;
	size_t n_devices;
	struct path_cache *paths;
	struct mnl_socket *netlink;	/* for questions; NULL: none yet */
	struct mnl_socket *events;	/* for changes; NULL: none yet */
};

/* maps.c: the maps, by number. */
const char *map_name(enum map_id id);
uint32_t map_entries(const struct xlb_config *config, enum map_id id);
/* Opens what is pinned and checks that it is what this program means by it. */
int maps_open(struct datapath *dp, struct error *err);
void maps_close(struct datapath *dp);
/* Memory of a mmappable map, mapped at first use; NULL: err says why. */
void *map_memory(struct datapath *dp, enum map_id id, struct error *err);
/*
 * All CPUs' values of one element, to read into or write from; the caller frees. Each starts at a
 * multiple of map_stride().
 */
void *map_values_new(const struct datapath *dp, enum map_id id);
size_t map_stride(enum map_id id);
size_t map_key_size(enum map_id id);

static inline struct xlb_config *config_of(const struct datapath *dp)
{
	return dp->maps[MAP_CONFIG].memory;
}

static inline struct xlb_backend *backend_at(const struct datapath *dp, uint32_t id)
{
	return (struct xlb_backend *)dp->maps[MAP_BACKENDS].memory + id;
}

static inline uint32_t service_key(const struct datapath *dp, uint8_t family, uint32_t id)
{
	return XLB_SERVICE_KEY(family, id, config_of(dp)->services);
}

/* slots.c: services where the packet path finds them. */
struct slot {
	uint64_t *vip;		/* 0: free; written last, when the rest is there */
	union xlb_service_target *target;
	union xlb_service_target *previous;
	uint32_t *generation;
	uint32_t *moved;
};

struct slot slot_at(const struct datapath *dp, uint8_t family, uint32_t id);
struct slot slot_of(const struct datapath *dp, const struct service *service);
bool slot_live(const struct datapath *dp, uint8_t family, uint32_t id);
/* The VIP in a slot that is live. */
void slot_vip(const struct datapath *dp, uint8_t family, uint32_t id, struct endpoint *ret_vip);
/* A slot where a new service can be found; -ENOSPC. */
int slot_choose(const struct datapath *dp, const struct endpoint *vip, uint32_t *ret_id,
		struct error *err);
/* Shows and hides a service: one store each. */
void slot_publish(const struct datapath *dp, const struct endpoint *vip, uint32_t id);
void slot_withdraw(const struct datapath *dp, uint8_t family, uint32_t id);

/* state.c: reading back what the maps say. */
int state_load(struct datapath *dp, struct error *err);
void state_free(struct datapath *dp);
/* The service that an entry of `backends` says it belongs to; NULL: none. */
struct service *backend_owner(const struct datapath *dp, const struct xlb_backend *entry);
void backend_endpoint(const struct xlb_backend *entry, struct endpoint *ret_endpoint);

/* apply.c */
/* Everything between these two is seen by the next writer as unfinished if this process dies. */
void write_begin(struct datapath *dp);
void write_end(struct datapath *dp);
void service_begin(const struct slot *slot);
void service_end(const struct slot *slot);
void backend_retire(struct datapath *dp, uint32_t id);

/* check.c: what a service cannot be. */
int service_check(const struct service *service, struct error *err);
/* l2: a new backend has to be on the device's own link. */
int path_check(const struct service *service, const struct backend *backend,
	       const struct path *path, struct error *err);

/* rings.c: from a service's backends to the ring that packets see. */
struct ring_change {
	union xlb_service_target target;
	uint32_t *slots;	/* NULL: the ring stays where it is */
	bool unsettled;		/* afterwards flows may be elsewhere than the ring says */
	bool moves;		/* and more than before: their time begins anew */
	uint32_t now;		/* tick, if it moves */
};

/*
 * What the service's next target is to be, with room for its ring. `keep`: the ring may stay as it
 * is. `successors`: by id of a backend, the id under which it goes on, else 0; NULL: all keep
 * theirs. slot.vip is NULL where the service is new.
 */
int ring_change_plan(struct datapath *dp, const struct slot *slot, const struct service *service,
		     bool keep, const uint32_t *successors, struct ring_change *ret_change,
		     struct error *err);
/* Gives the room back of a change that comes to nothing. */
void ring_change_undo(struct datapath *dp, struct ring_change *change);
/* Writes the ring where nobody looks yet. */
int ring_change_write(struct datapath *dp, const struct ring_change *change, struct error *err);
/* Switches to it, and gives back the room of what is in no more use. */
void ring_change_switch(struct datapath *dp, const struct slot *slot,
			const struct ring_change *change);
/* All of it, for the service's backends as they are. */
int ring_rebuild(struct datapath *dp, struct service *service, struct error *err);
/* Gives back the rings of a service that is gone. */
void rings_release(struct datapath *dp, const struct slot *slot);
/* Replaces what the service did before, and gives back that ring's room. */
void previous_switch(struct datapath *dp, const struct slot *slot,
		     union xlb_service_target previous);
uint32_t ring_lines_of(union xlb_service_target target);
/* Whether two targets name the same ring. */
bool ring_shared(union xlb_service_target a, union xlb_service_target b);
/* A slot's entry under the id with which its backend goes on. */
uint32_t ring_entry_succeed(const struct datapath *dp, uint32_t entry, const uint32_t *successors);
/* The slots of a target's ring; NULL: err says why. */
uint32_t *ring_slots_at(struct datapath *dp, union xlb_service_target target, struct error *err);

/* settle.c: services whose flows are not all where their rings say. */
/* Gives up the oldest memory of what a service did before. False: there is none left. */
bool previous_yield(struct datapath *dp);
/* Takes retired backends out of rings that are kept for flows from before. */
int previous_forget_retired(struct datapath *dp, struct error *err);
/* Lets flows and the ring from before go on under new ids. */
int backends_succeed(struct datapath *dp, const struct slot *slot, const uint32_t *successors,
		     struct error *err);

/* flows.c: walking through the tables of flows. */
struct flow_view {
	struct xlb_address client;
	union xlb_flow_key key;
	union xlb_flow_value value;
	uint64_t *word;		/* where the value stands */
	uint8_t family;		/* of the VIP: which table it stands in */
	bool reply;		/* in the half where replies look */
};

/* Calls each() with all flows that name a backend; packets go on meanwhile. */
int flows_each(struct datapath *dp, void (*each)(const struct flow_view *flow, void *data),
	       void *data, struct error *err);
/* Clears a flow, unless packets changed it meanwhile. */
void flow_clear(const struct flow_view *flow);
/*
 * Lets a flow go on under another backend's id; what packets do to it meanwhile stays. Returns its value
 * then; 0: it was gone.
 */
union xlb_flow_value flow_rename(const struct flow_view *flow, uint32_t backend);
/* For how many ticks a flow has been silent; 0 also for one that was heard of since `now`. */
uint32_t flow_age(union xlb_flow_value value, uint32_t now);
/* Whether a flow is over: its time has run out, though its slot was not wanted yet. */
bool flow_expired(const struct datapath *dp, union xlb_flow_value value, uint32_t now);

/* loads.c: how many flows backends have. */
/* Whether a service chooses by that. */
bool loads_matter(const struct datapath *dp);
/* Counts off flows that are over, and counts those that are not and were missed, where that matters. */
int loads_settle(struct datapath *dp, uint32_t now, struct error *err);

/* tick.c: the packet path's time, as it stands in the maps. */
int tick_get(struct datapath *dp, uint32_t *ret_tick, struct error *err);
/* Ticks from one to a later one. */
static inline uint32_t tick_since(uint32_t then, uint32_t now)
{
	return (now - then) & ~(1u << 31);
}

/* options.c: what few services have, in maps of their own. */
struct xlb_service_options options_of(const struct datapath *dp, const struct service *service);
/* Writes them; one store. */
int options_write(struct datapath *dp, const struct service *service, uint32_t id,
		  struct error *err);
int options_read(struct datapath *dp, struct service *service, struct error *err);
/* Counts a service in or out of those of its address. */
int vip_count(struct datapath *dp, const struct service *before, const struct service *after,
	      struct error *err);
/* The map `vips` as the model has it. */
int vips_mend(struct datapath *dp, struct error *err);

/* ranges.c: who may come. */
/* Lets in whom `after` admits and `before` (NULL: a new service) did not. -ENOSPC. */
int ranges_insert(struct datapath *dp, const struct service *before, const struct service *after,
		  uint32_t id, struct error *err);
/* Takes away what `before` admits and `after` (NULL: it is gone) does not. */
void ranges_delete(struct datapath *dp, const struct service *before, const struct service *after,
		   uint32_t id);
/* Reads the ranges of all services whose target says that they have some. */
int ranges_load(struct datapath *dp, struct error *err);
/* Deletes what belongs to no service. */
int ranges_mend(struct datapath *dp, struct error *err);

/* entry.c: what hangs on a service or backend in the maps, one element at a time. */
/* Writes an element of a hash that is made as it fills. -ENOSPC names the map and the option. */
int element_write(struct datapath *dp, enum map_id id, const void *key, const void *value,
		  struct error *err);
/* Counters of n backends whose entries are written: all zero. */
int backend_stats_make(struct datapath *dp, const uint32_t *ids, uint32_t n, struct error *err);
/* With the counters of another one. */
int backend_stats_inherit(struct datapath *dp, uint32_t id, uint32_t from, struct error *err);
void backend_stats_delete(struct datapath *dp, uint32_t id);
/* Counters of a service that comes or goes: all zero. */
int service_stats_clear(struct datapath *dp, uint8_t family, uint32_t id, struct error *err);
/* Writes what differs from `before`; NULL: everything. */
int service_info_write(struct datapath *dp, const struct service *before,
		       const struct service *after, uint32_t id, struct error *err);
void service_info_delete(struct datapath *dp, uint8_t family, uint32_t id);
/*
 * Whether what a service's backends answer has to be translated back, for which they need bits in
 * the filter.
 */
static inline bool replies_pass(const struct service *service)
{
	return service->forward <= XLB_FORWARD_DNAT;
}
/* Sets an endpoint's bit in a bitmap of XLB_FILTER_BITS. */
void filter_set(struct datapath *dp, uint64_t *bits, const struct endpoint *endpoint,
		uint8_t protocol);
/* The bit by which a tunnel's end is known (address, port 0, IPPROTO_IPIP), if there is a tunnel. */
void filter_set_tunnel(struct datapath *dp, uint64_t *bits, const struct service *service,
		       const struct endpoint *endpoint);

/* repair.c: what a writer that died left half done. */
int repair(struct datapath *dp, struct error *err);

/* reclaim.c: ids and bits that nobody needs any more. */
int reclaim(struct datapath *dp, struct error *err);
/* Returns when every packet has left that may have read the maps before the call. */
void quiesce(void);

/* config.c */
int config_make(const struct datapath_sizes *sizes, struct xlb_config *ret_config,
		struct error *err);
/* How many services of a family there is room for: what was asked for, or somewhat more. */
uint32_t services_asked_for(const struct xlb_config *config);
/* -EEXIST: these sizes ask for others than the maps have. */
int config_agrees(const struct xlb_config *config, const struct datapath_sizes *sizes,
		  struct error *err);

/* instructions.c: what the running kernel does not know. */
bool kernel_has_atomics(void);
/* A copy of a BPF object, to be freed; NULL: out of memory. */
void *object_for_old_kernels(const void *object, size_t size);

/* kernel.c: what it has. */
/* bpf_fib_lookup tells MTUs: came with bpf_check_mtu. */
bool kernel_has_fib_mtu(void);
bool kernel_has_buff_len(void);
bool kernel_redirects_frags(void);
/* Frames in several buffers, from the first to the last step of the walk. */
bool kernel_takes_frags(void);
/* Look-ups of another CPU's element, and timers, which are older. */
bool kernel_has_mirror(void);
/* Whether it takes programs that trace, as iterators are; some kernels are built, or told, not to. */
bool kernel_has_tracing(void);

/* load.c: from the object inside this binary to the kernel. */
struct bpf_object;
int load_and_pin(const struct xlb_config *config, const char *dir, struct error *err);
bool kernel_before(unsigned int major, unsigned int minor);
/*
 * The XDP program alone, on the maps that are there, not yet loaded: libxdp does that. `jumbo`: for
 * a device whose frames may lie in several buffers.
 */
int load_for_dispatcher(struct datapath *dp, bool jumbo, struct bpf_object **ret_object,
			struct error *err);

/* All programs of this build, loaded on the maps that are there; see upgrade.c. */
struct build;
int build_load(struct datapath *dp, struct build **ret_build, struct error *err);
/* By the name of its pin; the build closes it. */
int build_program(const struct build *build, const char *pin);
/* PIN_DIR/counters, if there is one, as this build makes it. */
int build_pin_counters(struct datapath *dp, const struct build *build, struct error *err);
void build_free(struct build *build);

/* upgrade.c: puts something else under the name of a pin; at no time there is nothing. */
int pin_replace(struct datapath *dp, const char *name, int fd, struct error *err);

/* The XDP program alone, on maps of its own that are empty. */
int load_for_trace(const struct xlb_config *config, struct bpf_object **ret_object,
		   struct error *err);

/* netlink.c: asking the kernel. */
int netlink_ask_route(struct datapath *dp, const struct xlb_address *destination, uint8_t family,
		      struct path *ret_path, struct error *err);
/* Calls each() with every address of global scope on a device (0: on all). */
int netlink_each_address(struct datapath *dp, uint32_t ifindex,
			 void (*each)(const struct endpoint *address, uint32_t ifindex, void *data),
			 void *data, struct error *err);
/* A device; all zero: it cannot be told. */
struct link {
	uint32_t mtu;
	uint32_t below;		/* ifindex of the device that it is on (VLAN) */
	uint32_t above;		/* of the one that it is a port of (bond, bridge) */
	char kind[16];		/* "vlan", "bond", ...; "": hardware */
	char port_of[16];	/* kind of `above` */
};
struct link netlink_link(struct datapath *dp, uint32_t ifindex);
/* Whether VLAN devices are on top of it. */
bool netlink_has_vlans(struct datapath *dp, uint32_t ifindex);
/* Whether anybody has a filter on a clsact hook of the device. */
int netlink_filters_any(struct datapath *dp, uint32_t ifindex, bool *ret_any);
void netlink_close(struct datapath *dp);

/* paths.c */
int path_find(struct datapath *dp, const struct xlb_address *destination, uint8_t family,
	      struct path *ret_path, struct error *err);
void paths_forget(struct datapath *dp);
/* Whether the entry of a backend has another outer source than its service wants. */
bool encap_source_stale(const struct datapath *dp, const struct service *service,
			const struct backend *backend);
/* The outer source that a service wants for its backends of a family; NULL: that of the path. */
const struct prefix *encap_source_of(const struct service *service, uint8_t family);
/* The bits of the last word of an address that a prefix leaves open. */
uint32_t prefix_mask(const struct prefix *prefix);
/* Writes another path into a live backend. */
void backend_reroute(struct datapath *dp, uint32_t id, const struct path *path);

/* devices.c: the entries of `devices`, and who needs them. */
int devices_load(struct datapath *dp, struct error *err);
void devices_free(struct datapath *dp);
struct device *device_find(struct datapath *dp, uint32_t ifindex);
/* Finds or makes; it is not in the map before device_save(). NULL: out of memory. */
struct device *device_ensure(struct datapath *dp, uint32_t ifindex);
/* Asks the kernel for what an entry says of a device as it is. */
void device_look(struct datapath *dp, struct device *device);
int device_save(struct datapath *dp, const struct device *device, struct error *err);
void device_forget(struct datapath *dp, uint32_t ifindex);
/* A backend is reached by this device: replies have to be caught there. */
int device_watch(struct datapath *dp, uint32_t ifindex, struct error *err);
void device_unwatch(struct datapath *dp, uint32_t ifindex);
/* Takes our tc programs off devices where no backend is any more. */
void devices_tidy(struct datapath *dp);
/* Forgets devices that are gone, and puts tc programs where they are missing. */
int devices_mend(struct datapath *dp, struct error *err);
/* Forgets devices that are gone from the system, and does nothing else. */
void devices_forget_gone(struct datapath *dp);
/*
 * Sees to it that config.uplink is an attached device, or 0 if there is none, and that config.partial
 * and config.vlans say what packets of all of them may be like.
 */
void config_follow_devices(struct datapath *dp);
/* The ioctl of linux/ethtool.h; whether there was an answer. */
bool ethtool_ask(const char *device, void *command);
/* How many devices our XDP program is on. */
size_t devices_attached(const struct datapath *dp);

/* Takes our tc programs off all devices that are only watched. */
void devices_disarm(struct datapath *dp);

/* xdp.c: whose XDP program is on a device. */
enum xdp_owner {
	XDP_NOBODY,
	XDP_OURS,
	XDP_DISPATCHER,		/* libxdp's, and ours is not among its programs */
	XDP_FOREIGN,
};

struct xdp_state {
	enum xdp_owner owner;
	bool native;
	bool dispatcher;	/* ours is one of a dispatcher's programs */
	bool described;		/* the kernel tells of the one in the way */
	uint32_t attached_id;	/* of what the kernel runs: the dispatcher, or the program */
	uint32_t program_id;	/* of ours, or of the one in the way */
	char name[16];		/* of the one in the way */
};

/* -EACCES: whose it is cannot be told without CAP_SYS_ADMIN. */
int xdp_look(struct datapath *dp, uint32_t ifindex, struct xdp_state *ret_state);
/*
 * Puts ours where nobody is, or into a dispatcher; `alone`: without one where that does not work. The
 * caller says what went wrong.
 */
int xdp_put(struct datapath *dp, uint32_t ifindex, bool native, unsigned int priority, bool alone,
	    struct error *err);
/* Takes ours away, as it was seen. */
int xdp_take(uint32_t ifindex, const struct xdp_state *state);
/* The last line that libbpf, libxdp or the kernel said. */
const char *xdp_last_words(void);
/*
 * The pinned program (`fresh`: it is not in the dispatcher yet) in place of another one of ours, with
 * no packet between them.
 */
int xdp_replace(struct datapath *dp, uint32_t ifindex, const struct xdp_state *state,
		const struct chain_member *old, bool fresh, struct error *err);
/* The device is gone: lets go of what libxdp keeps of it. */
void xdp_forget(uint32_t ifindex);

/*
 * others.c: whether a program that is not ours is an xlb's all the same. *ret_pin_dir: where that is
 * pinned; "": nowhere that this process sees.
 */
bool other_xlb_is(uint32_t program, char ret_pin_dir[PATH_MAX]);
/* "id 12, name, loaded by root, held by python3 (process 34)" */
void program_tell(uint32_t program, char *text, size_t size);

/* dispatcher.c: the id of our program among those of a dispatcher; 0: it is not there. */
uint32_t dispatcher_member(const struct datapath *dp, uint32_t ifindex, uint32_t dispatcher_id);
/* false: this process may not see who is in a dispatcher. */
bool dispatcher_readable(void);
/* Its programs in the order in which they run; returns how many. */
size_t dispatcher_chain(const struct datapath *dp, uint32_t ifindex, uint32_t dispatcher_id,
			struct chain_member ret_chain[CHAIN_MAX]);
/* What the kernel knows of a loaded program; false: it is no more. */
bool program_describe(const struct datapath *dp, uint32_t id, struct chain_member *ret_member);

/* Between these two, libxdp finds our dispatcher. */
struct dispatcher_folder {
	char path[32];		/* empty: there is none */
};

void dispatcher_offer(struct dispatcher_folder *ret_folder);
void dispatcher_withdraw(struct dispatcher_folder *folder);

/* tc.c: our tc programs on a device. */
int tc_attach(struct datapath *dp, uint32_t ifindex, bool egress, bool *ret_qdisc_made,
	      struct error *err);
/* false: ours may be there still, because this process cannot tell which it is. */
bool tc_detach(struct datapath *dp, uint32_t ifindex, bool qdisc_made);
/* Whether a loaded program works on our maps. Of what is pinned elsewhere: see dispatcher.c. */
bool program_fd_ours(const struct datapath *dp, int fd);
/* 1 or 0; -EACCES: it is not pinned, and who has no CAP_SYS_ADMIN is told no more. */
int program_ours(const struct datapath *dp, uint32_t program_id);
/* A pinned program of ours, by the name of its pin; the caller closes. */
int program_open(const struct datapath *dp, const char *pin, struct error *err);

/* privilege.c: -EPERM with the names of what is missing; attaching takes more than the rest. */
int privilege_check(bool attaching, struct error *err);
/*
 * Why the kernel may have said no to one who has all capabilities, to loading programs or to something
 * else; NULL: nobody knows.
 */
const char *privilege_denial(bool loading);
/* "what: Operation not permitted (why)"; returns -code. */
int error_denied(struct error *err, int code, const char *what);

/* share.c: whether this process may open pins for reading and not for writing. */
bool pins_readable_only(const char *pin_dir);

/* log.c: what libbpf and libxdp would print. */
void log_begin(void);
/*
 * The last lines, up to `most` bytes, without the newline at the end. Valid until the next
 * log_begin().
 */
const char *log_tail(size_t most);

#endif
