// SPDX-License-Identifier: GPL-2.0
#include "maps.h"

extern const volatile struct xlb_config cfg;

SEC("tc")
int xlb_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0;

	(void)skb;
	return bpf_map_lookup_elem(&flows, &zero) && cfg.services ? -1 : -1;
}

SEC("tc")
int xlb_egress(struct __sk_buff *skb)
{
	(void)skb;
	return -1;
}

char _license[] SEC("license") = "GPL";
