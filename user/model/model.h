/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What should be, or what is, load balanced: services and their backends, independent of where the
 * wish came from (command line, file, Kubernetes) and of how it is kept (BPF maps).
 *
 * Every input builds a `struct model`; the one applier (datapath) compares it with the running
 * state, which it shows as a `struct model` too. A model owns all that hangs on it. Services are
 * found by VIP in constant time; their order, and that of backends, is of no meaning.
 */
#ifndef XLB_MODEL_H
#define XLB_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <xlb/abi.h>

#include "base/error.h"

/*
 * An address with a port and, where it matters, a protocol. Address in network order, port in host
 * order.
 */
struct endpoint {
	struct xlb_address address;
	uint16_t port;
	uint8_t family;		/* enum xlb_family */
	uint8_t protocol;	/* enum xlb_protocol; 0 where it does not matter (backends) */
};

#define GUE_PORT 6080
#define AFFINITY_MAX_S 86400	/* as Kubernetes has it */
#define MSS_MIN 536		/* what every host can receive (RFC 9293, 3.7.1) */
#define MSS_MAX 65495		/* in the longest IPv4 packet */

/* "192.0.2.10:80/tcp", "[2001:db8::10]:80/udp": with a NUL it never needs more than this. */
#define ENDPOINT_TEXT_MAX 64

/* A range of addresses: those that have the same first `length` bits. */
struct prefix {
	struct xlb_address address;	/* the other bits are 0 */
	uint8_t family;			/* enum xlb_family */
	uint8_t length;			/* 0..32 or 0..128 */
};

struct backend {
	struct endpoint endpoint;	/* protocol is that of the service */
	uint16_t weight;		/* 0..XLB_WEIGHT_MAX */
	uint8_t state;			/* XLB_BACKEND_ACTIVE, _DRAINING or _DOWN */
	uint32_t id;			/* in `backends`; 0: not read from the maps */
};

struct service {
	struct endpoint vip;
	uint8_t owner;			/* enum xlb_owner */
	uint8_t forward;		/* enum xlb_forward */
	uint8_t scheduler;		/* enum xlb_scheduler */
	char name[XLB_NAME_MAX];	/* "" or, for Kubernetes, "namespace/name:port" */
	uint32_t affinity_s;		/* a client keeps its backend so long; 0: it need not */
	uint16_t mss;			/* largest TCP segment that a SYN may announce; 0: any */
	uint16_t gue_port;		/* gue: UDP destination port; 0: GUE_PORT */
	bool gue_checksum;		/* gue over IPv6: outer UDP headers get a checksum */
	bool no_echo;			/* ICMP echo to the VIP is left to the kernel */
	/*
	 * ipip, gue: the outer source, of which the bits behind `length` follow the flow's hash;
	 * family 0: the address of the device
	 */
	struct prefix encap_source;
	/*
	 * who may come; none: everybody. Those of another family than the VIP let nobody in: a
	 * service that has no others admits nobody. Owned by the service
	 */
	struct prefix *ranges;
	size_t n_ranges;
	struct backend *backends;	/* no two with the same address and port */
	size_t n_backends;
	size_t backends_allocated;
	struct backend_index *index;	/* to find backends fast; private, NULL: none yet */
	uint32_t id;			/* in `services` or `services6`, if read from the maps */
};

struct model;

struct model *model_new(void);		/* NULL: out of memory */
void model_free(struct model *model);	/* NULL is fine */

size_t model_count(const struct model *model);
/*
 * Services in no order; *cursor starts at 0. NULL at the end. The model must not change meanwhile,
 * but for model_remove of what was just returned.
 */
struct service *model_next(const struct model *model, size_t *cursor);
struct service *model_find(const struct model *model, const struct endpoint *vip);
/*
 * The service of that VIP, made with defaults (owner cli, nat, maglev, no backends) if need be.
 * Pointers to services stay valid until they are removed.
 */
int model_ensure(struct model *model, const struct endpoint *vip, struct service **ret_service);
void model_remove(struct model *model, const struct endpoint *vip);

/* A deep copy, to be freed with service_free(); NULL: out of memory. */
struct service *service_copy(const struct service *service);
void service_free(struct service *service);
/*
 * The backend of that address and port, or NULL. It stays where it is until backends are added,
 * removed or sorted.
 */
struct backend *service_find_backend(const struct service *service,
				     const struct endpoint *endpoint);
/* Whether a VIP of one family may have backends of the other. */
bool forward_crosses_families(uint8_t forward);
/* Whether packets reach the backend with the port that they came to. */
bool forward_keeps_port(uint8_t forward);
/* Whether packets get an outer header, whose source can be chosen. */
bool forward_encapsulates(uint8_t forward);
/*
 * Adds, or overwrites weight and state where it is there already. -EINVAL: family (of a service
 * whose forwarding does not cross families) or protocol does not fit the service; -ENOMEM.
 */
int service_set_backend(struct service *service, const struct backend *backend);
void service_remove_backend(struct service *service, const struct endpoint *endpoint);
/*
 * Sorts backends by address and port, so that two services with equal backends are alike word by
 * word and the ring does not depend on history.
 */
void service_sort_backends(struct service *service);

bool prefix_equal(const struct prefix *a, const struct prefix *b);
int service_add_range(struct service *service, const struct prefix *range);	/* -ENOMEM */
void service_clear_ranges(struct service *service);
/* Sorts ranges, and leaves out what is there twice. */
void service_sort_ranges(struct service *service);
/* Whether it is one of the service's, which have to be sorted. */
bool service_has_range(const struct service *service, const struct prefix *range);
/* The ranges of the VIP's own family; *cursor starts at 0. NULL at the end. */
const struct prefix *service_next_range(const struct service *service, size_t *cursor);
/* gue: the port that packets go to. Host order. */
uint16_t service_gue_port(const struct service *service);

/*
 * What has to happen to one service to make `before` (NULL: not there) into `after` (NULL: remove).
 */
struct service_change {
	const struct service *before, *after;
	unsigned int added, removed, changed;	/* backends */
	bool attributes;			/* anything else: forward, owner, ranges, ... */
};
/*
 * Sorts both sides' backends and ranges. Returns false where nothing differs; *ret_change is filled
 * either way.
 */
bool service_diff(struct service *before, struct service *after, struct service_change *ret_change);

/*
 * Text. Parsers take the whole string or fail with -EINVAL and a line that names the token. A
 * service: "ADDR:PORT/tcp|udp"; a backend: "ADDR:PORT", or "ADDR" where default_port is not 0. IPv6
 * addresses with a port stand in brackets.
 */
int endpoint_parse_vip(const char *text, struct endpoint *ret_vip, struct error *err);
int endpoint_parse_backend(const char *text, uint16_t default_port, struct endpoint *ret_endpoint,
			   struct error *err);
int address_parse(const char *text, struct xlb_address *ret_address, uint8_t *ret_family,
		  struct error *err);
int weight_parse(const char *text, uint16_t *ret_weight, struct error *err);
int forward_parse(const char *text, uint8_t *ret_forward, struct error *err);
int scheduler_parse(const char *text, uint8_t *ret_scheduler, struct error *err);
int port_parse(const char *text, uint16_t *ret_port, struct error *err);
/* "ADDR/LENGTH" or "ADDR". Bits behind the prefix are refused; the lenient one clears them. */
int prefix_parse(const char *text, struct prefix *ret_prefix, struct error *err);
int prefix_parse_lenient(const char *text, struct prefix *ret_prefix, struct error *err);
/*
 * Source ranges of a VIP of that family, with commas; "" or "any": none, which is NULL. The caller
 * frees.
 */
int ranges_parse(const char *text, uint8_t family, struct prefix **ret_ranges, size_t *ret_n,
		 struct error *err);
int encap_source_parse(const char *text, struct prefix *ret_source, struct error *err);
int affinity_parse(const char *text, uint32_t *ret_seconds, struct error *err);
int mss_parse(const char *text, uint16_t *ret_mss, struct error *err);
int echo_parse(const char *text, bool *ret_no_echo, struct error *err);	/* "on", "off" */
int gue_checksum_parse(const char *text, bool *ret_on, struct error *err); /* the same */
/* These return `text`. The first ends with "/tcp" if there is a protocol, the second never. */
const char *endpoint_format(const struct endpoint *endpoint, char text[ENDPOINT_TEXT_MAX]);
const char *endpoint_format_backend(const struct endpoint *endpoint, char text[ENDPOINT_TEXT_MAX]);
const char *address_format(const struct xlb_address *address, uint8_t family,
			   char text[ENDPOINT_TEXT_MAX]);
const char *prefix_format(const struct prefix *prefix, char text[ENDPOINT_TEXT_MAX]);
/* As it is parsed: "auto", "ADDR" or "ADDR/LENGTH". May return a constant instead of `text`. */
const char *encap_source_format(const struct prefix *source, char text[ENDPOINT_TEXT_MAX]);
const char *forward_name(uint8_t forward);
const char *scheduler_name(uint8_t scheduler);
const char *owner_name(uint8_t owner);
const char *state_name(uint8_t state);
const char *protocol_name(uint8_t protocol);
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
int endpoint_compare(const struct endpoint *a, const struct endpoint *b);

#endif
