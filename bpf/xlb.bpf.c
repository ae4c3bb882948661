// SPDX-License-Identifier: GPL-2.0
/* Placeholder walk: passes everything. */
#include "maps.h"

/* The configuration, as constants: lbctl copies `config` here before loading. */
const volatile struct xlb_config cfg = {};

SEC("xdp")
int xlb(struct xdp_md *ctx)
{
	__u32 zero = 0;

	(void)ctx;
	return bpf_map_lookup_elem(&services, &zero) && bpf_map_lookup_elem(&services6, &zero) && bpf_map_lookup_elem(&backends, &zero) && bpf_map_lookup_elem(&rings, &zero) && bpf_map_lookup_elem(&config, &zero) && cfg.services ? XDP_PASS : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
