// SPDX-License-Identifier: GPL-2.0
/* Lets everything pass: the far end of a veth must have an XDP program, or XDP_TX out of this end arrives nowhere. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
