/* SPDX-License-Identifier: GPL-2.0 */
/* A second set of maps and programs, for one trace. */
#ifndef XLB_TRACE_COPY_H
#define XLB_TRACE_COPY_H

#include "datapath/internal.h"

struct bpf_object;

/* An affinity, as it was copied. */
struct affinity_element {
	struct xlb_affinity_key key;
	struct xlb_affinity value;
};

struct trace_copy {
	struct datapath *dp;	/* what it is a copy of */
	struct bpf_object *object;
	void *memory[MAPS];	/* of the copies that are mmappable */
	/* flows and flows6 as they were when they were copied */
	uint64_t *flows_before[2];
	struct affinity_element *affinities;
	size_t n_affinities;
};

/* Loads and fills. Counters begin at 0: what they show after a run is what it counted. */
int trace_copy_make(struct datapath *dp, struct trace_copy *ret_copy, struct error *err);
void trace_copy_end(struct trace_copy *copy);	/* a zeroed one is fine */
int trace_copy_fd(const struct trace_copy *copy, enum map_id id);

/* What the walk wrote down of a packet: the fields of its struct packet, found by BTF. */
struct trace_notes {
	struct xlb_address source, destination;
	__be16 source_port, destination_port;
	uint32_t now;
	uint8_t protocol, ipv6;
	uint32_t service, backend;
	uint8_t known_service, to_client, new_flow, by_kernel, held;
};

int trace_notes_read(const struct trace_copy *copy, struct trace_notes *ret_notes,
		     struct error *err);

#endif
