// SPDX-License-Identifier: GPL-2.0
/*
 * The table that `cat PIN_DIR/counters` prints: a line for each backend, by an iterator over
 * backend_stats, so that no process of ours has to run.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "maps.h"

extern const volatile bool has_mirror; /* in xlb.bpf.c */

/* How many values the kernel hands over for an element: one for each possible CPU. Set by lbctl. */
const volatile __u32 cpus = 1;

/* The parts of the kernel's types that are read; CO-RE finds where they are. */
struct seq_file {
	unsigned long count;	/* bytes in its buffer */
} __attribute__((preserve_access_index));

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
} __attribute__((preserve_access_index));

static __always_inline const char *state_name(__u32 id)
{
	struct xlb_backend *backend = bpf_map_lookup_elem(&backends, &id);

	if (!backend)
		return "unknown";
	if (backend->state == XLB_BACKEND_ACTIVE)
		return "active";
	if (backend->state == XLB_BACKEND_DRAINING)
		return "draining";
	return "down";
}

SEC("iter/bpf_map_elem")
int xlb_counters(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	const struct xlb_backend_stats *stats = ctx->value;
	const __u32 *key = ctx->key;
	__u64 packets = 0, bytes = 0, begun = 0;
	__u32 id;

	/* The end comes by here too, without an element, and as number 0 if there was one element. */
	if (ctx->meta->seq_num == 0 && (key || !seq->count))
		BPF_SEQ_PRINTF(seq, "%-24s %-24s %-8s %12s %14s %10s\n", "SERVICE", "BACKEND",
			       "STATE", "PACKETS", "BYTES", "FLOWS");
	if (!key || !stats)
		return 0;
	id = *key;
	for (__u32 i = 0; i < cpus; i++) {
		struct xlb_backend_tally *tally = NULL;

		if (has_mirror)
			tally = bpf_map_lookup_percpu_elem(&backend_tally, &id, i);
		packets += tally ? tally->to_backend.packets : stats[i].to_backend.packets;
		bytes += tally ? tally->to_backend.bytes : stats[i].to_backend.bytes;
		begun += tally ? tally->flows : stats[i].flows;
	}
	BPF_SEQ_PRINTF(seq, "%-24s %-24s %-8s %12llu %14llu %10llu\n", stats->service,
		       stats->backend, state_name(id), packets, bytes, begun);
	return 0;
}

char _license[] SEC("license") = "GPL";
