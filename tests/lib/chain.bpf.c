// SPDX-License-Identifier: GPL-2.0
/*
 * Other people's programs on a device that they share with xlb: they count packets, and let them go on. With a function that takes the
 * context, as xlb has them: Linux 5.10 takes no such program into a dispatcher.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <xdp/xdp_helpers.h>

__u64 seen;

struct {
	__uint(priority, 20);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(early);

struct {
	__uint(priority, 80);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(late);

__attribute__((noinline)) int count(struct xdp_md *ctx)
{
	if (ctx->data < ctx->data_end)
		__sync_fetch_and_add(&seen, 1);
	return 0;
}

SEC("xdp")
int early(struct xdp_md *ctx)
{
	count(ctx);
	return XDP_PASS;
}

SEC("xdp")
int late(struct xdp_md *ctx)
{
	count(ctx);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
