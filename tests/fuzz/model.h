/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What xlb must do with any packet: the reference model, by Documentation/packets.md.
 *
 * Written to be read, not to be fast, and apart from bpf/: it shares no code with it, only the
 * numbers of include/xlb/abi.h. It keeps flows, fragments and counters of its own. Where the
 * program has a choice (a nat port, a UDP source port of a tunnel, a backend at random), the model
 * is shown what it chose, checks that it may, and goes on with that.
 */
#ifndef XLB_FUZZ_MODEL_H
#define XLB_FUZZ_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <xlb/abi.h>

/* The model cannot know how the program goes on (a port that no packet shows): end the round. */
#define MODEL_LOST "lost"

#define FRAME_MAX 2048
#define MODEL_SERVICES 24
#define MODEL_BACKENDS 128
#define MODEL_RANGES 4
#define MODEL_FLOWS 16384

struct ip {
	bool v6;
	uint8_t byte[16];	/* IPv4: the first four */
};

static inline bool ip_equal(const struct ip *a, const struct ip *b)
{
	return a->v6 == b->v6 && !memcmp(a->byte, b->byte, a->v6 ? 16 : 4);
}

struct model_backend {
	struct ip address, source;	/* source: nat, or the outer one */
	uint16_t port;
	uint8_t state;			/* enum xlb_backend_state */
	uint16_t weight;
	uint8_t mac[6];
};

struct model_range {
	struct ip address;
	uint8_t length;
};

struct model_service {
	struct ip vip;
	uint16_t port;
	uint8_t protocol, forward, scheduler;
	bool affinity, echo;
	uint16_t mss, gue_port;
	bool gue_checksum;	/* over IPv6 */
	unsigned int n_ranges;
	struct model_range ranges[MODEL_RANGES];
	unsigned int first_backend, n_backends;	/* in model.backends */
	uint32_t id;				/* in `services` or `services6` */
	uint32_t ring_line, ring_size;
	const uint32_t *ring;			/* indices into model.backends */
	uint64_t placed;			/* rr */
};

struct model_flow {
	bool used;
	struct ip client;
	uint16_t client_port, nat_port;	/* nat_port 0: the client's address is kept */
	unsigned int service, backend;
	uint8_t state, forward;
	bool affinity_only;
};

struct model_fragment {
	bool used;
	struct ip source, destination;
	uint32_t id;
	uint8_t protocol;
	uint16_t source_port, destination_port;	/* 0: the first fragment has not come, and tc keeps */
	uint32_t datagram;	/* what the program calls by this, */
	unsigned int packets, bytes;	/* so many, and so long */
};

struct model_counts {
	uint64_t to_backend, to_backend_bytes, to_client, to_client_bytes, flows;
	uint64_t refused, dropped;
};

struct model {
	uint8_t node_mac[6], router_mac[6];
	unsigned int mtu, port_min, port_max;
	bool partial;			/* checksums may be left for a device to finish */
	unsigned int n_services, n_backends;
	struct model_service services[MODEL_SERVICES];
	struct model_backend backends[MODEL_BACKENDS];
	/* what happened */
	struct model_flow flows[MODEL_FLOWS];
	struct model_fragment fragments[4096];
	struct { bool used; struct ip client; unsigned int service, backend; } affinity[4096];
	struct model_counts service_counts[MODEL_SERVICES], backend_counts[MODEL_BACKENDS];
	uint64_t drops[XLB_DROP_REASONS];
	uint32_t (*ring_hash)(const struct ip *client, uint16_t port);	/* of the ring's seed */
};

/* A verdict beside those of XDP: passed with a note (struct xlb_note), for tc to send it. */
#define BY_KERNEL 16

/* What came out, or is to come out. verdict: XDP_PASS, XDP_TX, XDP_DROP or BY_KERNEL. */
struct frame_out {
	int verdict;
	unsigned int length;
	/* BY_KERNEL: as the note says; the checksum in `data` is adjusted by it */
	unsigned int mtu, check;	/* 0: none */
	bool held, kept;		/* of `datagram`, of which some is kept; this is */
	uint32_t datagram;
	unsigned int tunnel;		/* held: bytes that it puts in front */
	uint16_t address_sum;		/* folded; network order read as it stands */
	struct ip next_hop;
	bool has_next_hop;
	uint8_t data[FRAME_MAX + 128];
};

/*
 * Takes a frame as it came, and what the program made of it. *ret_wanted is what it has to be. NULL,
 * or what is wrong with a choice.
 */
const char *model_run(struct model *model, const uint8_t *frame, unsigned int length,
		      const struct frame_out *actual, struct frame_out *ret_wanted);

#endif
