// SPDX-License-Identifier: GPL-2.0
/*
 * The stand for timing the packet path: a wrapper that makes a fresh packet out of what the last
 * run left, as another flow each time, and tail-calls the program under test. What the wrapper
 * itself costs is measured around `return XDP_TX` and taken off.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 20);
	__type(key, __u32);
	__type(value, struct bench_reply);
} replies SEC(".maps");

__u8 template[BENCH_TEMPLATE];
__u32 mode;
__u32 mask;	/* flows - 1 */
__u32 counter;

/*
 * By words that the template was written in, so that whatever the program reads lies within one store (see below). The
 * addresses' last bytes, and the source port behind them.
 */
static __always_inline void vary(void *data, __u32 id)
{
	__u64 address = (__u64)(id & 0xffff0000) << 32, port = id & 0xffff;
	struct bench_reply *reply;

	switch (mode) {
	case BENCH_CLIENTS4:
		*(__u64 *)(data + 22) ^= address;
		*(__u64 *)(data + 30) ^= port << 32;
		break;
	case BENCH_CLIENTS6:
		*(__u64 *)(data + 30) ^= address;
		*(__u64 *)(data + 54) ^= port;
		break;
	case BENCH_REPLIES4:
		reply = bpf_map_lookup_elem(&replies, &id);
		if (!reply)
			break;
		*(__u64 *)(data + 22) = (__u32)*(__u64 *)(data + 22) | (__u64)reply->source << 32;
		*(__u64 *)(data + 30) = (__u32)*(__u64 *)(data + 30) | (__u64)reply->source_port << 32 |
					(__u64)reply->destination_port << 48;
		break;
	}
}

SEC("xdp")
int wrapper(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	/* A packet that was put into a tunnel has grown in front, one that was answered is shorter. */
	if (end - data > BENCH_FRAME) {
		if (bpf_xdp_adjust_head(ctx, (int)(end - data) - BENCH_FRAME))
			return XDP_ABORTED;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
	} else if (end - data < BENCH_FRAME) {
		if (bpf_xdp_adjust_tail(ctx, BENCH_FRAME - (int)(end - data)))
			return XDP_ABORTED;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
	}
	if (data + BENCH_TEMPLATE > end)
		return XDP_ABORTED;
	/*
	 * In pieces none of which the reader's fields lie across: else it would wait for the writes
	 * to reach the cache, which packets from a NIC do not make it do.
	 */
	*(__u64 *)data = *(__u64 *)template;
	*(__u32 *)(data + 8) = *(__u32 *)(template + 8);
	*(__u16 *)(data + 12) = *(__u16 *)(template + 12);
#pragma unroll
	for (int i = 14; i < BENCH_TEMPLATE; i += 8)
		*(__u64 *)(data + i) = *(__u64 *)(template + i);
	vary(data, ++counter * 2654435761u & mask);
	bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

/* The floor: the least that a load balancer could do. */
SEC("xdp")
int floor_tx(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 first;
	__u32 rest;

	if (data + 14 > end)
		return XDP_DROP;
	first = *(__u64 *)data;
	rest = *(__u32 *)(data + 8);
	*(__u64 *)data = first >> 48 | (__u64)rest << 16 | (first & 0xffff) << 48;
	*(__u32 *)(data + 8) = first >> 16;
	return XDP_TX;
}

/* The far end of the veth, for live frames. */
SEC("xdp")
int sink(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}

/* What the wrapper takes off again, and nothing else. */
__u32 grown;

SEC("xdp")
int grow(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -(int)(grown & 127)) ? XDP_ABORTED : XDP_TX;
}

SEC("xdp")
int empty(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
