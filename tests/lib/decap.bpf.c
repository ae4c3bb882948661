// SPDX-License-Identifier: GPL-2.0
/*
 * A backend's end of a tunnel, for kernels without ipip and fou devices: takes the outer IPv4 or
 * IPv6 header, and UDP of port 6080, off what carries an IP packet.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GUE_PORT 6080

/* Length of the outer headers, 0 if there are none. */
static __always_inline __u32 outer_bytes(void *data, void *end, __be16 type)
{
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip4 = data + ETH_HLEN;
	struct udphdr *udp;
	__u8 protocol;
	__u32 bytes;

	if (type == bpf_htons(ETH_P_IP) && (void *)(ip4 + 1) <= end) {
		protocol = ip4->protocol;
		bytes = sizeof(*ip4);
		udp = (void *)(ip4 + 1);
	} else if (type == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		protocol = ip6->nexthdr;
		bytes = sizeof(*ip6);
		udp = (void *)(ip6 + 1);
	} else {
		return 0;
	}
	if (protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6)
		return bytes;
	if (protocol == IPPROTO_UDP && (void *)(udp + 1) <= end && udp->dest == bpf_htons(GUE_PORT))
		return bytes + sizeof(*udp);
	return 0;
}

SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr link, *ethernet = data;
	__u32 bytes;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	bytes = outer_bytes(data, end, ethernet->h_proto);
	if (!bytes)
		return XDP_PASS;
	__builtin_memcpy(&link, ethernet, sizeof(link));
	if (bpf_xdp_adjust_head(ctx, bytes))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ethernet = data;
	if (data + ETH_HLEN + 1 > end)
		return XDP_DROP;
	link.h_proto = *(__u8 *)(data + ETH_HLEN) >> 4 == 4 ? bpf_htons(ETH_P_IP) :
							    bpf_htons(ETH_P_IPV6);
	__builtin_memcpy(ethernet, &link, sizeof(link));
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
