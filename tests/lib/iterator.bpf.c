// SPDX-License-Identifier: GPL-2.0
/* The least iterator over a map that there is: whether this kernel takes any (features.py). */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("iter/bpf_map_elem")
int nothing(void *ctx)
{
	(void)ctx;
	return 0;
}

char _license[] SEC("license") = "GPL";
