// SPDX-License-Identifier: GPL-2.0
/*
 * A trunk for the tests, for kernels without VLAN devices and act_vlan: on the port of a switch, tags TCP and UDP on
 * the way out, takes the tags off on the way in, and lets in no TCP and UDP that has none.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INNER_VLAN 10
#define OUTER_VLAN 20

static __always_inline int is_payload(struct __sk_buff *skb)
{
	__u8 protocol = 0;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &protocol, 1);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &protocol, 1);
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

SEC("tag1")
int tag_once(struct __sk_buff *skb)
{
	if (is_payload(skb) && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), INNER_VLAN))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

SEC("tag2")
int tag_twice(struct __sk_buff *skb)
{
	if (is_payload(skb) && (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), INNER_VLAN) ||
				bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021AD), OUTER_VLAN)))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

SEC("untag1")
int untag_once(struct __sk_buff *skb)
{
	if (skb->vlan_present && (skb->vlan_tci & 0xfff) == INNER_VLAN)
		return bpf_skb_vlan_pop(skb) ? TC_ACT_SHOT : TC_ACT_OK;
	return is_payload(skb) ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("untag2")
int untag_twice(struct __sk_buff *skb)
{
	if (skb->vlan_present && (skb->vlan_tci & 0xfff) == OUTER_VLAN)
		return bpf_skb_vlan_pop(skb) || (skb->vlan_tci & 0xfff) != INNER_VLAN ||
		       bpf_skb_vlan_pop(skb) ? TC_ACT_SHOT : TC_ACT_OK;
	return is_payload(skb) ? TC_ACT_SHOT : TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
