// SPDX-License-Identifier: GPL-2.0
#include "maps.h"

struct bpf_iter__bpf_map_elem;

SEC("iter/bpf_map_elem")
int xlb_counters(struct bpf_iter__bpf_map_elem *ctx)
{
	(void)ctx;
	return 0;
}

char _license[] SEC("license") = "GPL";
