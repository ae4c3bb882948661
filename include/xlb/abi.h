/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The contract between the packet path (bpf/) and everything that reads or writes its maps.
 *
 * Every key and value of every pinned map is defined here and nowhere else. Structures are the same
 * on both sides: fixed widths, padding named, sizes asserted. Fields whose type is __be16/__be32
 * (and addresses) are in network order; everything else is in host order.
 *
 * Writers: lbctl owns services, backends, rings, the filter and the configuration; the packet path
 * owns flows, next hops and counters. A field that both touch says so. A reader needs no lock:
 * whatever decides a packet's fate is switched by one aligned 8-byte store.
 */
#ifndef XLB_ABI_H
#define XLB_ABI_H

#include <linux/bpf.h>
#include <linux/types.h>

/* For the functions of these headers: inlined in BPF and in user space. */
#define XLB_INLINE static inline __attribute__((always_inline))

/*
 * Raised whenever a structure below changes its layout or meaning. lbctl refuses a pin directory of
 * another version.
 */
#define XLB_ABI_VERSION 6

/* "namespace/name:port" of Kubernetes: 63 + 1 + 63 + 1 + 15, and a NUL */
#define XLB_NAME_MAX 160
/* An address in brackets with port and protocol, and a NUL: 2 + 39 + 6 + 4 + 1, rounded up. */
#define XLB_TEXT_MAX 56
#define XLB_WEIGHT_MAX 65535
/* slots of `services` that a lookup may visit from the key's home slot */
#define XLB_SERVICE_PROBES 16
#define XLB_FLOW_WAYS 4		/* flows in one line, which is what a lookup reads at once */

/* IPPROTO_TCP and IPPROTO_UDP, as an enum so that bpftool prints words. */
enum xlb_protocol {
	XLB_TCP = 6,
	XLB_UDP = 17,
};

enum xlb_family {
	XLB_IPV4 = 4,
	XLB_IPV6 = 6,
};

/* How a packet gets to its backend. Fits in 3 bits. */
enum xlb_forward {
	/* source and destination translated; replies come back through this node */
	XLB_FORWARD_NAT = 0,
	/* destination translated, client address kept; replies are routed through this node */
	XLB_FORWARD_DNAT = 1,
	/*
	 * Direct server return: the packet as it is, to the backend's MAC address, in an IP header
	 * to the backend (RFC 2003, RFC 2473, RFC 4213), or in UDP and such a header (GUE variant 1,
	 * draft-ietf-intarea-gue). The backend owns the VIP and answers the client itself.
	 */
	XLB_FORWARD_L2 = 2,
	XLB_FORWARD_IPIP = 3,
	XLB_FORWARD_GUE = 4,
	XLB_FORWARDS = 5,
};

/* How a new flow chooses its backend. Fits in 4 bits. */
enum xlb_scheduler {
	/* consistent hashing: the same backend on every node (Eisenbud et al., NSDI 2016) */
	XLB_SCHEDULER_MAGLEV = 0,
	XLB_SCHEDULER_RR = 1,		/* one after the other, in the ring's order, across CPUs */
	/*
	 * of two at random, by weight, the one with fewer flows for its weight (Mitzenmacher, "The
	 * Power of Two Choices", 2001)
	 */
	XLB_SCHEDULER_LC = 2,
	XLB_SCHEDULER_RANDOM = 3,	/* by weight */
	/* as maglev, by the client's address alone: all its connections go to one backend */
	XLB_SCHEDULER_SOURCE = 4,
	XLB_SCHEDULERS = 5,
};

/* What a backend is given. */
enum xlb_backend_state {
	XLB_BACKEND_FREE = 0,		/* the slot is unused and no flow refers to it */
	XLB_BACKEND_ACTIVE = 1,		/* new flows (if its weight is not 0) and known flows */
	XLB_BACKEND_DRAINING = 2,	/* known flows only */
	XLB_BACKEND_DOWN = 3,		/* known TCP flows only; UDP flows choose anew */
	/* removed: nothing; the slot is freed once no flow refers to it */
	XLB_BACKEND_RETIRED = 4,
};

/* Who made a service. A sync changes only what it owns. */
enum xlb_owner {
	XLB_OWNER_CLI = 0,
	XLB_OWNER_FILE = 1,
	XLB_OWNER_KUBERNETES = 2,
};

/* Where a flow stands; the index of xlb_config.timeouts. Fits in 4 bits. */
enum xlb_flow_state {
	XLB_FLOW_FREE = 0,
	/* being written by a CPU, and of no backend yet; readers take it for no match */
	XLB_FLOW_CLAIMED = 1,
	/* TCP: the client spoke, the backend has not yet. The first to be evicted at need */
	XLB_FLOW_SYN = 2,
	/* TCP: both spoke, the client again after the backend. Never evicted before its timeout */
	XLB_FLOW_ESTABLISHED = 3,
	XLB_FLOW_FIN_CLIENT = 4,	/* TCP: established, and the client sent FIN */
	XLB_FLOW_FIN_BACKEND = 5,	/* TCP: the backend sent FIN */
	/* TCP: FIN both ways, or a RST of the backend's. A SYN starts a new flow */
	XLB_FLOW_CLOSED = 6,
	XLB_FLOW_ONEWAY = 7,		/* UDP: only the client spoke. As SYN */
	XLB_FLOW_STREAM = 8,		/* UDP: both spoke. Evicted last, the longest silent first */
	/* TCP: the backend answered, the client has not spoken since. Evicted after SYN */
	XLB_FLOW_ANSWERED = 9,
	/* TCP by l2, ipip and gue: the client spoke more than once; as STREAM */
	XLB_FLOW_ONESIDED = 10,
	/*
	 * TCP: the client sent RST, or by l2, ipip and gue FIN, which the backend may not have
	 * believed. As ANSWERED; a SYN starts a new flow
	 */
	XLB_FLOW_CLOSING = 11,
	XLB_FLOW_STATES = 12,
};

/*
 * A flow of nat or dnat stands in the table twice. In these states the copy that packets do not find, because all
 * go the other way, may have been told of the last one so many ticks late (a power of two): the timeouts
 * of these states are longer by that, so that neither copy is given away early. (Maps that were made by a
 * lbctl before this keep their timeouts.)
 */
#define XLB_FLOW_LAGGING \
	(1u << XLB_FLOW_ESTABLISHED | 1u << XLB_FLOW_FIN_CLIENT | 1u << XLB_FLOW_FIN_BACKEND)
#define XLB_FLOW_LAG 8

/*
 * Why a packet to a VIP was dropped: the index of `drops`. Packets that are not for a VIP are never
 * dropped.
 */
enum xlb_drop {
	XLB_DROP_NONE = 0,		/* not a drop; never counted */
	XLB_DROP_FLOWS_FULL = 1,	/* no room for a new flow, and none that may be evicted */
	XLB_DROP_PORTS_EXHAUSTED = 2,	/* nat: no free source port towards this backend */
	XLB_DROP_NO_ROUTE = 3,		/* the kernel has no route to the backend or the client */
	/* a RST or ICMP error could not be built (no room in the frame) */
	XLB_DROP_ANSWER_FAILED = 4,
	XLB_DROP_EMIT_FAILED = 5,	/* the packet could not be handed to the device or to tc */
	/* a ring names a backend that does not exist: a bug, or a foreign writer */
	XLB_DROP_BAD_RING = 6,
	/* lengths in the headers disagree with each other or with the frame */
	XLB_DROP_MALFORMED = 7,
	/* a RST to a flow that is not known: nothing may answer a RST (RFC 9293, 3.5.2) */
	XLB_DROP_NO_FLOW = 8,
	XLB_DROP_SOURCE_RANGE = 9,	/* the service does not take packets from this address */
	/*
	 * the source is the VIP itself or another service, multicast, broadcast or loopback (RFC 1122,
	 * 3.2.1.3)
	 */
	XLB_DROP_BAD_SOURCE = 10,
	/* does not fit the device to the backend, and the ICMP error that says so was not sent */
	XLB_DROP_TOO_BIG = 11,
	XLB_DROP_TTL = 12,		/* no hop left, and the ICMP error was not sent */
	XLB_DROP_NO_FRAGMENT = 13,	/* a later fragment whose first did not come in time */
	XLB_DROP_RATE_LIMITED = 14,	/* an answer was due, but too many were sent already */
	/* nat between families: a fragment, an ICMP error, or UDP without a checksum (RFC 7915) */
	XLB_DROP_UNTRANSLATABLE = 15,
	XLB_DROP_REASONS = 16,
};

/*
 * An address of either family, in network order. IPv4 uses word[0]; the other three words are then
 * zero.
 */
struct xlb_address {
	__be32 word[4];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct xlb_address) == 16, "ABI");

/*
 * What a service does, as one word that is replaced by one store: a packet sees the old set of
 * backends or the new one. The ring is `rings` from line ring_line on, ring_size slots; a size of 0
 * means that there is nobody to take new flows.
 */
union xlb_service_target {
	struct {
		__u64 ring_line : 28;
		__u64 ring_size : 24;
		__u64 scheduler : 4;	/* enum xlb_scheduler */
		__u64 forward : 4;	/* enum xlb_forward */
		/*
		 * The backend follows from packet and ring: no flows are kept but those of slots
		 * with XLB_RING_MOVED (l2, ipip and gue with maglev or source, without affinity).
		 */
		__u64 stateless : 1;
		__u64 ranges : 1;	/* `ranges` or `ranges6` say who may come */
		__u64 options : 1;	/* its element of `service_options` is not all zero */
		__u64 spare : 1;
	};
	__u64 word;
};
_Static_assert(sizeof(union xlb_service_target) == 8, "ABI");

/*
 * A VIP of IPv4. The word is 0 where no service is; it is written last when a service is added and
 * first when it is deleted.
 */
union xlb_vip4 {
	struct {
		__be32 address;
		__be16 port;
		__u8 protocol;	/* enum xlb_protocol */
		/*
		 * 1: a deleted service; a lookup goes on past it (address, port and protocol are 0)
		 */
		__u8 tombstone;
	};
	__u64 word;
};
_Static_assert(sizeof(union xlb_vip4) == 8, "ABI");

/*
 * `services`: an open-addressing hash table in a mmappable array whose size is a power of two. The
 * home slot of a VIP is xlb_hash_vip4() masked; a lookup visits at most XLB_SERVICE_PROBES slots,
 * wraps around, and ends at the first whose vip.word is 0. The index of the slot is the service's
 * id, valid within its family; flows and backends name services by it.
 */
struct xlb_service {
	union xlb_vip4 vip;
	union xlb_service_target target;
	/*
	 * What it did when its flows were last all where its ring says: for flows that came before
	 * and are not in the flow table (see XLB_RING_MOVED). 0: nothing
	 */
	union xlb_service_target previous;
	/*
	 * counts the changes of this service; odd while one is under way, so that a crash is seen
	 * and finished
	 */
	__u32 generation;
	__u32 moved;	/* tick of the last change that moved slots; 0: none are */
};
_Static_assert(sizeof(struct xlb_service) == 32, "ABI");

/* Port, protocol and liveness of an IPv6 VIP: tells slots apart like xlb_vip4.word. */
union xlb_vip6_tail {
	struct {
		__be16 port;
		__u8 protocol;
		__u8 tombstone;
		__u32 live;	/* 1: a service, or a tombstone */
	};
	__u64 word;
};
_Static_assert(sizeof(union xlb_vip6_tail) == 8, "ABI");

/* `services6`: as `services`, home slot by xlb_hash_vip6(). */
struct xlb_service6 {
	struct xlb_address address;
	union xlb_vip6_tail vip;
	union xlb_service_target target;
	union xlb_service_target previous;
	__u32 generation;
	__u32 moved;
	__u64 pad[2];
};
_Static_assert(sizeof(struct xlb_service6) == 64, "ABI");

/*
 * `service_options`: by XLB_SERVICE_KEY(): what few services have. Read only where the service's
 * target says so.
 */
struct xlb_service_options {
	__u32 affinity;		/* ticks that a client stays with its backend; 0: no affinity */
	__u16 mss;		/* largest TCP segment that a SYN may announce; 0: as it says */
	__u16 pad;
};
_Static_assert(sizeof(struct xlb_service_options) == 8, "ABI");

/*
 * Where frames for a neighbour go. Device 0: no route. With XLB_HOP_STACK the frame is handed to
 * the kernel, whose neighbour code sends it out of the device (not a plain Ethernet neighbour, or not
 * yet resolved); the addresses are then meaningless.
 */
#define XLB_HOP_STACK (1u << 31)
/* Beside a device that XDP may not redirect to: what came by another one is handed to the kernel. */
#define XLB_HOP_NO_REDIRECT (1u << 30)
#define XLB_HOP_IFINDEX (XLB_HOP_NO_REDIRECT - 1)
/* In every network namespace (the kernel's include/net/net_namespace.h). As a device to a backend: it is on this node itself. */
#define XLB_LOOPBACK_IFINDEX 1

struct xlb_hop {
	__u8 destination[6];
	__u8 source[6];
	__u32 ifindex;
};
_Static_assert(sizeof(struct xlb_hop) == 16, "ABI");

/*
 * A next hop that the packet path looked up (bpf_fib_lookup) and uses until `checked` is a tick
 * old. A changed hop goes to the slot not in use, then `current` is switched, so that a frame never
 * gets half of each. Owned by the packet path.
 */
struct xlb_next_hop {
	struct xlb_hop hop[2];
	__u32 checked;	/* tick of the last look-up (see xlb_config.tick_shift), 0: never */
	/* written by one store */
	__u16 current;	/* 0 or 1 */
	__u16 mtu;	/* longest IP packet that fits, as far as is known; 0: not known */
};
_Static_assert(sizeof(struct xlb_next_hop) == 40, "ABI");

/*
 * `backends`: an array by backend id. A backend is one endpoint of one service; the same endpoint
 * behind two services is two backends. Id 0 is never used. An id is reused only after no flow
 * refers to it.
 */
struct xlb_backend {
	__u32 service;		/* id of its service, within the family of the VIP */
	__u8 state;		/* enum xlb_backend_state */
	__u8 family;		/* enum xlb_family */
	__u8 protocol;		/* enum xlb_protocol */
	__u8 vip_family;	/* enum xlb_family: differs from `family` in tunnels, and NAT64 */
	__u16 weight;		/* 0..XLB_WEIGHT_MAX, as configured; the ring already holds it */
	__be16 port;
	__be16 vip_port;
	__be16 tunnel_port;	/* gue: UDP destination port */
	__u16 address_sum;	/* xlb_sum_address() of address, source and vip, for checksums */
	__u16 source_sum;
	__u16 vip_sum;
	__u8 tunnel_checksum;	/* gue, IPv6: 1: the UDP header gets a checksum, where that is known */
	__u8 pad;
	/* device that the kernel's routes name for it; used where bpf_fib_lookup may not answer */
	__u32 ifindex;
	/*
	 * ipip, gue: the bits of the last word of `source` that follow the flow's hash, so that the
	 * receiving NIC spreads flows over its queues; they are 0 in `source`
	 */
	__be32 source_mask;
	struct xlb_next_hop next_hop;	/* owned by the packet path */
	struct xlb_address address;
	/* nat: the address of this node that the backend answers to; tunnels: the outer source */
	struct xlb_address source;
	struct xlb_address vip;
	__u32 load;	/* lc: flows that it has now. The packet path's; lbctl corrects it */
	__u32 pad2;
};
_Static_assert(sizeof(struct xlb_backend) == 128, "ABI");

/*
 * `rings`: backend ids, 16 to a line, in the ranges that services name. Slot n is line n / 16,
 * place n % 16.
 */
#define XLB_RING_LINE 16
/*
 * Stateless services: this slot changed hands, and flows that began before are still about. Flows
 * that fall on it are kept in the flow table; a packet of none of those belongs to a flow from
 * before, and goes where the service's `previous` says (Mendelson et al., "Just Enough Tracking",
 * CoNEXT 2021).
 */
#define XLB_RING_MOVED (1u << 31)

struct xlb_ring_line {
	__u32 backend[XLB_RING_LINE];
};
_Static_assert(sizeof(struct xlb_ring_line) == 64, "ABI");

/*
 * `rotation`: by XLB_SERVICE_KEY(): how many new flows a round robin service has placed. Owned by
 * the packet path.
 */
struct xlb_rotation {
	__u64 placed;
};

/*
 * `flows`: 2 * xlb_config.flow_lines lines. A flow stands there twice, in the same form: in the
 * first half under the client's tuple (xlb_hash_flow), in the second half under what a reply shows:
 * for nat, line and way follow from endpoint and port, so that one slot is one port and a port is
 * never given twice. Owned by the packet path; lbctl only reads, and clears flows of retired
 * backends.
 */
union xlb_flow_key {
	struct {
		__be32 client;	/* IPv4 only; flows6 has the address beside it */
		__be16 port;	/* of the client */
		/* id of the service; in the second half a tag of the endpoint (flow_reply_tag) */
		__u16 service;
	};
	__u64 word;
};
_Static_assert(sizeof(union xlb_flow_key) == 8, "ABI");

/* 0 means a free slot. Changes hands by compare-and-swap. */
union xlb_flow_value {
	struct {
		__u64 backend : 24;
		__u64 state : 4;	/* enum xlb_flow_state */
		__u64 forward : 3;	/* enum xlb_forward: as when it began */
		__u64 counted : 1;	/* in its backend's `load` */
		/* nat: source port towards the backend, host order; dnat: 0 */
		__u64 port : 16;
		/* tick of the last packet, modulo 2^16, or a little before: XLB_FLOW_LAG */
		__u64 seen : 16;
	};
	__u64 word;
};
_Static_assert(sizeof(union xlb_flow_value) == 8, "ABI");

struct xlb_flow {
	union xlb_flow_key key;
	union xlb_flow_value value;
};

struct xlb_flow_line {
	struct xlb_flow way[XLB_FLOW_WAYS];
};
_Static_assert(sizeof(struct xlb_flow_line) == 64, "ABI");

/* `flows6`: the same with the client's address in full. */
struct xlb_flow6 {
	struct xlb_address client;
	union xlb_flow_key key;
	union xlb_flow_value value;
};

struct xlb_flow6_line {
	struct xlb_flow6 way[XLB_FLOW_WAYS];
};
_Static_assert(sizeof(struct xlb_flow6_line) == 128, "ABI");

/*
 * `neighbours`: per CPU, a direct-mapped cache of next hops towards clients, by a hash of the
 * address. Owned by the packet path.
 */
struct xlb_neighbour {
	struct xlb_address address;
	struct xlb_next_hop next_hop;
	__u64 pad;
};
_Static_assert(sizeof(struct xlb_neighbour) == 64, "ABI");

/*
 * Packets and bytes of one direction. Bytes count from the IP header, as they were when they came
 * in.
 */
struct xlb_count {
	__u64 packets;
	__u64 bytes;
};

/*
 * `backend_tally`: per CPU, by backend id: where packets are counted. `flows` counts the flows that
 * began; those that go on can be read from `flows`.
 */
struct xlb_backend_tally {
	struct xlb_count to_backend;
	struct xlb_count to_client;
	__u64 flows;
	__u64 queued;	/* 1: backend_stats will be brought up to it */
};
_Static_assert(sizeof(struct xlb_backend_tally) == 48, "ABI");

/*
 * `mirrors`: by CPU: the timer that copies the CPU's `backend_tally` to `backend_stats`. Owned by
 * the packet path.
 */
#define XLB_MIRROR_QUEUE 1024	/* a power of two */

struct xlb_mirror {
	struct bpf_timer timer;
	__u32 armed;	/* 1: the timer will fire */
	/* ids of backends to be copied. head, and what is there, is the CPU's; the rest the timer's */
	__u32 head;
	__u32 tail;	/* what is before it has been copied twice, */
	__u32 copied;	/* and before this once */
	__u32 overflow;	/* by the CPU: 1: some found no place in the queue */
	__u32 all;	/* rounds in which all backends are to be copied, because of that */
	__u32 queue[XLB_MIRROR_QUEUE];
};
_Static_assert(sizeof(struct xlb_mirror) == 40 + 4 * XLB_MIRROR_QUEUE, "ABI");

/*
 * `backend_stats`: per CPU, by backend id, only for backends that exist: `backend_tally` for those
 * who read dumps, some milliseconds old. The first part says whose it is.
 */
struct xlb_backend_stats {
	char service[XLB_TEXT_MAX];	/* "192.0.2.10:80/tcp" */
	char backend[XLB_TEXT_MAX];	/* "10.0.0.5:8080" */
	struct xlb_count to_backend;
	struct xlb_count to_client;
	__u64 flows;
};
_Static_assert(sizeof(struct xlb_backend_stats) == 152, "ABI");

/* A service in maps that serve both families: IPv6 after IPv4. `slots` is xlb_config.services. */
#define XLB_SERVICE_KEY(family, id, slots) ((__u32)(id) + ((family) == XLB_IPV6 ? (slots) : 0))

/*
 * `service_stats`: per CPU, by XLB_SERVICE_KEY(): everything that the service was sent and sent
 * back. An array, because a hash costs every packet another look-up; elements of no service are
 * zero.
 */
struct xlb_service_stats {
	struct xlb_count to_backend;
	struct xlb_count to_client;
	__u64 flows;
	/* answered by RST or ICMP port unreachable: nobody takes new flows */
	struct xlb_count refused;
	struct xlb_count dropped;	/* see `drops` for why */
};
_Static_assert(sizeof(struct xlb_service_stats) == 72, "ABI");

/*
 * `service_info`: by XLB_SERVICE_KEY(). What the packet path does not need, and what was asked for
 * where the other maps hold only what came of it.
 */
struct xlb_service_info {
	__u32 owner;			/* enum xlb_owner */
	/* "namespace/name:port" or what the owner calls it; may be empty */
	char name[XLB_NAME_MAX];
	__u32 affinity_s;		/* seconds of session affinity; 0: none */
	__u16 gue_port;			/* host order; 0: the usual one */
	__u8 no_echo;			/* 1: ICMP echo is left to the kernel */
	__u8 encap_family;		/* enum xlb_family of encap_source; 0: none was asked for */
	__u8 encap_length;		/* of its prefix; the bits behind it follow the flow */
	__u8 gue_checksum;		/* 1: outer UDP headers over IPv6 get one */
	__u8 pad[2];
	struct xlb_address encap_source;
};
_Static_assert(sizeof(struct xlb_service_info) == 192, "ABI");

/* `drops`: per CPU, by reason. */
struct xlb_drop_stats {
	enum xlb_drop reason;	/* the same as the key, so that bpftool prints a word */
	__u32 pad;
	__u64 packets;
};
_Static_assert(sizeof(struct xlb_drop_stats) == 16, "ABI");

/*
 * `affinity`: the backend that a client was last given by a service, and when. Evicts what was not
 * used for longest. Owned by the packet path; lbctl changes ids in it.
 */
struct xlb_affinity_key {
	struct xlb_address client;
	__u32 service;		/* XLB_SERVICE_KEY() */
	__u32 pad;
};
_Static_assert(sizeof(struct xlb_affinity_key) == 24, "ABI");

struct xlb_affinity {
	__u32 backend;
	__u32 seen;		/* tick */
};

/*
 * `ranges`, `ranges6`: longest prefix match over service and client address: who may come to a
 * service whose target says so. Any match lets the packet in; the value means nothing.
 */
struct xlb_range4 {
	__u32 prefix;		/* 32 and the length of the range's prefix */
	__u32 service;		/* id */
	__be32 address;
};

struct xlb_range6 {
	__u32 prefix;
	__u32 service;
	struct xlb_address address;
};
_Static_assert(sizeof(struct xlb_range6) == 24, "ABI");

/*
 * `vips`: addresses that services have, for packets that name no port, and for nat, which gives no port
 * away that may be a VIP: so an address is here before its first service is, and until after its last.
 * An IPv4 address is that of its IPv6 form, ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
 */
struct xlb_vip {
	__u32 services;		/* how many */
	__u32 echo;		/* 1: answers ICMP echo */
};

/*
 * `paths`: the longest packet that reaches an address, as routers said (RFC 1191, RFC 8201); same
 * form of address. Read when next hops are looked up. Owned by the packet path.
 */
struct xlb_path {
	__u32 mtu;
	__u32 learned;		/* tick; forgotten after XLB_PATH_TICKS */
};
#define XLB_PATH_TICKS 600

/*
 * `fragments`: the ports of a datagram whose first fragment was seen (RFC 791, RFC 8200 4.5), for
 * XLB_FRAGMENT_TICKS; or that fragments of it are kept in `held`, until its first comes. Evicts what
 * was not used for longest. Owned by the packet path.
 */
struct xlb_fragment_key {
	struct xlb_address source;
	struct xlb_address destination;
	__u32 id;		/* as in the packet */
	__u32 protocol;
};
_Static_assert(sizeof(struct xlb_fragment_key) == 40, "ABI");

struct xlb_fragment {
	__be16 source_port;
	__be16 destination_port;	/* 0: the first fragment has not been seen */
	__u32 seen;		/* tick */
	__u32 datagram;		/* by which `held` knows what is kept, */
	__u32 packets;		/* how many */
	__u32 bytes;		/* and by their IP headers how long those are */
};
_Static_assert(sizeof(struct xlb_fragment) == 20, "ABI");
#define XLB_FRAGMENT_TICKS 2

/*
 * `held`: fragments that came before their first, for XLB_FRAGMENT_TICKS. A datagram's are in the
 * places datagram % XLB_HELD and behind. Owned by the tc programs.
 */
#define XLB_HELD 64
#define XLB_HELD_EACH 8		/* of one datagram */
#define XLB_HELD_BYTES 2048	/* longer ones are not kept */

enum xlb_held_state {
	XLB_HELD_FREE = 0,
	XLB_HELD_BUSY = 1,	/* being written or sent */
	XLB_HELD_FULL = 2,
};

union xlb_held_owner {
	struct {
		__u32 datagram;	/* as in `fragments` */
		__u16 seen;	/* tick */
		__u16 state;	/* enum xlb_held_state */
	};
	__u64 word;		/* changed by compare-and-swap */
};

struct xlb_held {
	union xlb_held_owner owner;
	__u32 bytes;		/* of the packet, from its IP header on */
	__u32 pad;
	__u8 packet[XLB_HELD_BYTES];
};
_Static_assert(sizeof(struct xlb_held) == 2064, "ABI");

/*
 * `filter`: a bitmap with a bit for every backend and every VIP, by xlb_endpoint_mark() of address,
 * port and protocol, and for every tunnel's end (port 0, IPPROTO_IPIP).
 * A packet whose source has no bit is no reply; a port of this node whose bit is set may be a VIP, and is
 * not used for nat if the address is in `vips`. Bits may be set that need not be.
 */
#define XLB_FILTER_SHIFT 20
#define XLB_FILTER_BITS (1u << XLB_FILTER_SHIFT)

struct xlb_filter_line {
	__u64 bits[8];
};
_Static_assert(sizeof(struct xlb_filter_line) == 64, "ABI");

/*
 * `devices`: by ifindex: what xlb put on a device, so that it can be taken away again, and what the
 * packet path may do with it.
 */
enum xlb_device_flags {
	XLB_DEVICE_XDP = 1,		/* our XDP program is attached */
	XLB_DEVICE_REDIRECT = 2,	/* attached natively: XDP_REDIRECT to it works */
	XLB_DEVICE_TC = 4,		/* our tc programs are attached */
	XLB_DEVICE_QDISC = 8,		/* the clsact qdisc was added by us */
	/* has VLAN sub-interfaces: what is tagged there is not of the device's own link */
	XLB_DEVICE_VLANS = 16,
};

struct xlb_device {
	__u32 flags;	/* enum xlb_device_flags */
	__u32 mode;	/* enum xlb_attach_mode */
	/* 0: not known. Read where bpf_fib_lookup tells no MTU (before Linux 5.12) */
	__u32 mtu;
	__u32 pad;
};
_Static_assert(sizeof(struct xlb_device) == 16, "ABI");

/* In what way packets may not be all there as XDP sees them: xlb_config.partial. */
enum xlb_partial {
	/*
	 * their sender left the checksum to a device to finish (from a veth, from a virtual machine, or in
	 * generic mode)
	 */
	XLB_PARTIAL_CHECKSUMS = 1,
	/*
	 * a device is in generic mode: a VLAN tag that the NIC took off lies beside the packet, and is sent
	 * with it
	 */
	XLB_PARTIAL_TAGS = 2,
};

enum xlb_attach_mode {
	XLB_ATTACH_NONE = 0,
	XLB_ATTACH_NATIVE = 1,
	XLB_ATTACH_GENERIC = 2,
};

/*
 * `config`: one element. Sizes, secrets and ports are fixed when the maps are made; the programs
 * carry copies as constants.
 */
struct xlb_config {
	__u32 abi_version;
	/* slots of `services` and of `services6` each, a power of two, at most 65536 */
	__u32 services;
	__u32 backends;		/* slots of `backends`, a power of two, at most 2^23 */
	__u32 ring_slots;	/* entries of `rings` */
	__u32 flow_lines;	/* lines of one half of `flows`, a power of two */
	__u32 flow6_lines;	/* the same for `flows6` */
	__u32 neighbours;	/* slots of `neighbours`, a power of two */
	__u16 port_min;		/* nat: source ports, host order, both inclusive */
	__u16 port_max;
	__u64 secret[2];	/* keys the flow and endpoint hashes; random odd numbers, this node's own */
	/* of the rings and of the hash that reads them; the same on all nodes */
	__u32 seed;
	__u32 tick_shift;	/* a tick is 2^tick_shift jiffies, about a second */
	__u32 hz;		/* jiffies in a second */
	/*
	 * ifindex of the first attached device; where packets to clients go if bpf_fib_lookup may
	 * not answer
	 */
	__u32 uplink;
	__u32 partial;	/* bits of enum xlb_partial, by what xlb is attached to */
	__u32 vlans;	/* 1: one of the attached devices has XLB_DEVICE_VLANS */
	/*
	 * raised by lbctl under its lock at every change, so that a long-lived lbctl sees that
	 * another one wrote
	 */
	__u64 generation;
	__u16 timeouts[16];	/* by enum xlb_flow_state, in ticks */
};
_Static_assert(sizeof(struct xlb_config) == 112, "ABI");

/*
 * `locks`: one element. Held by the packet path for a few instructions on kernels before 5.12, which
 * have no atomic exchange; nobody uses it on others.
 */
struct xlb_lock {
	struct bpf_spin_lock lock;
};
_Static_assert(sizeof(struct xlb_lock) == 4, "ABI");

/*
 * Left in front of a packet by XDP for the tc ingress program of the same device: what it has to do
 * with it, because XDP cannot. Sums are ones'-complement, in the order of memory.
 */
struct xlb_note {
	/* low half of secret[1], so that nobody else's metadata is taken for ours */
	__u32 magic;
	/* to be sent out of that device; loopback: taken up here, as it is; 0: to be kept */
	__u32 ifindex;
	/* l2: the next hop is not where the packet's destination is. Family 0: it is */
	__u8 family : 6;	/* enum xlb_family */
	__u8 udp : 1;		/* the checksum is UDP's */
	__u8 held : 1;		/* of `datagram`, of which something is to be kept, or was */
	/* half the offset of a checksum to be adjusted, in tc; 0: none. held: bytes of the tunnel */
	__u8 check;
	__u16 mtu;		/* to be fragmented to so many bytes; 0: it fits */
	union {
		struct {
			/* what addresses have added to the sum of the pseudo header, */
			__u16 address_sum;
			__u16 other_sum;	/* and what else under the checksum */
		};
		__u32 datagram;		/* as in `fragments` */
	};
	/* of IPv4 one word; the last one is random where packets must not be merged on their way to tc */
	__be32 next_hop[4];
};
_Static_assert(sizeof(struct xlb_note) == 32, "at most 32 bytes: bpf_xdp_adjust_meta");

#endif
