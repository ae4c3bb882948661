// SPDX-License-Identifier: GPL-2.0
/*
 * Questions to the kernel: the route to an address, the addresses of devices, the filters on a
 * hook.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include "datapath/internal.h"

#define BUFFER_BYTES 32768

static int netlink_open(struct datapath *dp, struct error *err)
{
	if (dp->netlink)
		return 0;
	dp->netlink = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!dp->netlink)
		return error_set(err, errno, "netlink: %s", strerror(errno));
	if (mnl_socket_bind(dp->netlink, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = error_set(err, errno, "netlink: %s", strerror(errno));

		mnl_socket_close(dp->netlink);
		dp->netlink = NULL;
		return r;
	}
	return 0;
}

void netlink_close(struct datapath *dp)
{
	if (dp->netlink)
		mnl_socket_close(dp->netlink);
	if (dp->events)
		mnl_socket_close(dp->events);
	dp->netlink = dp->events = NULL;
}

/*
 * Sends a request and feeds every message of the answer to `parse`. Returns what the kernel
 * answered: 0 or -errno.
 */
static int netlink_ask(struct datapath *dp, struct nlmsghdr *request, mnl_cb_t parse, void *data)
{
	static uint32_t sequence;
	char buffer[BUFFER_BYTES];
	int more = MNL_CB_OK;

	request->nlmsg_seq = ++sequence;
	if (mnl_socket_sendto(dp->netlink, request, request->nlmsg_len) < 0)
		return -errno;
	while (more > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(dp->netlink, buffer, sizeof(buffer));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		more = mnl_cb_run(buffer, n, request->nlmsg_seq, mnl_socket_get_portid(dp->netlink),
				  parse, data);
		if (more < 0)
			return -errno;
		/* Neither the end of a dump nor an error: the one answer that there is. */
		if (!(request->nlmsg_flags & NLM_F_DUMP))
			break;
	}
	return 0;
}

static uint32_t address_bytes(uint8_t family)
{
	return family == XLB_IPV6 ? 16 : 4;
}

static int route_parse(const struct nlmsghdr *header, void *data)
{
	const struct rtmsg *route = mnl_nlmsg_get_payload(header);
	struct path *path = data;
	const struct nlattr *attribute;

	if (header->nlmsg_type != RTM_NEWROUTE ||
	    (route->rtm_type != RTN_UNICAST && route->rtm_type != RTN_LOCAL))
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, header, sizeof(*route))
	{
		uint16_t length = mnl_attr_get_payload_len(attribute);

		if (mnl_attr_get_type(attribute) == RTA_OIF && length == sizeof(uint32_t))
			path->ifindex = mnl_attr_get_u32(attribute);
		else if (mnl_attr_get_type(attribute) == RTA_PREFSRC &&
			 length <= sizeof(path->source))
			memcpy(&path->source, mnl_attr_get_payload(attribute), length);
		else if (mnl_attr_get_type(attribute) == RTA_GATEWAY ||
			 mnl_attr_get_type(attribute) == RTA_VIA)
			path->gateway = true;
	}
	/* Mostly said so already; inside a VRF it is the VRF's device. */
	if (route->rtm_type == RTN_LOCAL)
		path->ifindex = XLB_LOOPBACK_IFINDEX;
	return MNL_CB_OK;
}

struct first_address {
	uint8_t family;
	struct path *path;
};

static void first_address_take(const struct endpoint *address, uint32_t ifindex, void *data)
{
	struct first_address *first = data;

	(void)ifindex;
	if (address->family == first->family && !first->path->source.word[0])
		first->path->source = address->address;
}

/* Whether an answer means that there is no way. */
static bool means_no_route(int r)
{
	return r == -ENETUNREACH || r == -EHOSTUNREACH || r == -EACCES || r == -EINVAL ||
	       r == -ESRCH || r == -ENETDOWN;
}

int netlink_ask_route(struct datapath *dp, const struct xlb_address *destination, uint8_t family,
		      struct path *ret_path, struct error *err)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct path path = {};
	struct rtmsg *route;
	int r = netlink_open(dp, err);

	if (r)
		return r;
	request->nlmsg_type = RTM_GETROUTE;
	request->nlmsg_flags = NLM_F_REQUEST;
	route = mnl_nlmsg_put_extra_header(request, sizeof(*route));
	route->rtm_family = family == XLB_IPV6 ? AF_INET6 : AF_INET;
	route->rtm_dst_len = 8 * address_bytes(family);
	mnl_attr_put(request, RTA_DST, address_bytes(family), destination);
	r = netlink_ask(dp, request, route_parse, &path);
	if (r && !means_no_route(r))
		return error_set(err, -r, "asking the kernel for a route: %s", strerror(-r));
	if (path.ifindex && !path.source.word[0]) {
		struct first_address first = { .family = family, .path = &path };

		r = netlink_each_address(dp, path.ifindex, first_address_take, &first, err);
		if (r)
			return r;
	}
	*ret_path = path;
	return 0;
}

struct address_walk {
	uint32_t ifindex;
	void (*each)(const struct endpoint *address, uint32_t ifindex, void *data);
	void *data;
};

static int address_parse_message(const struct nlmsghdr *header, void *data)
{
	const struct ifaddrmsg *message = mnl_nlmsg_get_payload(header);
	const struct address_walk *walk = data;
	struct endpoint address = {};
	const struct nlattr *attribute;
	bool found = false;

	if (header->nlmsg_type != RTM_NEWADDR || message->ifa_scope != RT_SCOPE_UNIVERSE ||
	    (walk->ifindex && message->ifa_index != walk->ifindex) ||
	    (message->ifa_family != AF_INET && message->ifa_family != AF_INET6))
		return MNL_CB_OK;
	address.family = message->ifa_family == AF_INET6 ? XLB_IPV6 : XLB_IPV4;
	mnl_attr_for_each(attribute, header, sizeof(*message))
	{
		uint16_t type = mnl_attr_get_type(attribute);

		/*
		 * On point-to-point links IFA_ADDRESS is the peer's and IFA_LOCAL ours; IPv6 mostly
		 * has no IFA_LOCAL.
		 */
		if (type != IFA_LOCAL && (type != IFA_ADDRESS || found))
			continue;
		if (mnl_attr_get_payload_len(attribute) != address_bytes(address.family))
			continue;
		memcpy(&address.address, mnl_attr_get_payload(attribute),
		       address_bytes(address.family));
		found = type == IFA_LOCAL;
	}
	walk->each(&address, message->ifa_index, walk->data);
	return MNL_CB_OK;
}

int netlink_each_address(struct datapath *dp, uint32_t ifindex,
			 void (*each)(const struct endpoint *address, uint32_t ifindex, void *data),
			 void *data, struct error *err)
{
	struct address_walk walk = { .ifindex = ifindex, .each = each, .data = data };
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ifaddrmsg *message;
	int r = netlink_open(dp, err);

	if (r)
		return r;
	request->nlmsg_type = RTM_GETADDR;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	message = mnl_nlmsg_put_extra_header(request, sizeof(*message));
	message->ifa_family = AF_UNSPEC;
	r = netlink_ask(dp, request, address_parse_message, &walk);
	if (r)
		return error_set(err, -r, "asking the kernel for addresses: %s", strerror(-r));
	return 0;
}

static void kinds_parse(const struct nlattr *nest, struct link *link)
{
	const struct nlattr *attribute;

	mnl_attr_for_each_nested(attribute, nest)
	{
		const char *kind = mnl_attr_get_payload(attribute);
		int length = mnl_attr_get_payload_len(attribute);

		if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND)
			snprintf(link->kind, sizeof(link->kind), "%.*s", length, kind);
		else if (mnl_attr_get_type(attribute) == IFLA_INFO_SLAVE_KIND)
			snprintf(link->port_of, sizeof(link->port_of), "%.*s", length, kind);
	}
}

static int link_parse(const struct nlmsghdr *header, void *data)
{
	const struct nlattr *attribute;
	struct link *link = data;

	if (header->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, header, sizeof(struct ifinfomsg))
	{
		uint16_t type = mnl_attr_get_type(attribute);

		if (type == IFLA_LINKINFO)
			kinds_parse(attribute, link);
		if (mnl_attr_get_payload_len(attribute) != sizeof(uint32_t))
			continue;
		if (type == IFLA_MTU)
			link->mtu = mnl_attr_get_u32(attribute);
		else if (type == IFLA_LINK)
			link->below = mnl_attr_get_u32(attribute);
		else if (type == IFLA_MASTER)
			link->above = mnl_attr_get_u32(attribute);
	}
	return MNL_CB_OK;
}

struct link netlink_link(struct datapath *dp, uint32_t ifindex)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *message;
	struct link link = {};

	if (netlink_open(dp, NULL))
		return link;
	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_REQUEST;
	message = mnl_nlmsg_put_extra_header(request, sizeof(*message));
	message->ifi_family = AF_UNSPEC;
	message->ifi_index = ifindex;
	netlink_ask(dp, request, link_parse, &link);
	return link;
}

struct vlan_search {
	uint32_t below;
	bool found;
};

static int vlan_seen(const struct nlmsghdr *header, void *data)
{
	struct vlan_search *search = data;
	struct link link = {};

	link_parse(header, &link);
	search->found |= link.below == search->below && !strcmp(link.kind, "vlan");
	return MNL_CB_OK;
}

bool netlink_has_vlans(struct datapath *dp, uint32_t ifindex)
{
	struct vlan_search search = { .below = ifindex };
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *message;

	if (netlink_open(dp, NULL))
		return false;
	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	message = mnl_nlmsg_put_extra_header(request, sizeof(*message));
	message->ifi_family = AF_UNSPEC;
	netlink_ask(dp, request, vlan_seen, &search);
	return search.found;
}

static int filter_seen(const struct nlmsghdr *header, void *data)
{
	bool *any = data;

	*any |= header->nlmsg_type == RTM_NEWTFILTER;
	return MNL_CB_OK;
}

int netlink_filters_any(struct datapath *dp, uint32_t ifindex, bool *ret_any)
{
	static const uint32_t hooks[] = { TC_H_MIN_INGRESS, TC_H_MIN_EGRESS };
	bool any = false;
	int r = netlink_open(dp, NULL);

	for (size_t i = 0; !r && i < sizeof(hooks) / sizeof(hooks[0]); i++) {
		char buffer[256];
		struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
		struct tcmsg *message;

		request->nlmsg_type = RTM_GETTFILTER;
		request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
		message = mnl_nlmsg_put_extra_header(request, sizeof(*message));
		message->tcm_family = AF_UNSPEC;
		message->tcm_ifindex = ifindex;
		message->tcm_parent = TC_H_MAKE(TC_H_CLSACT, hooks[i]);
		r = netlink_ask(dp, request, filter_seen, &any);
	}
	if (!r)
		*ret_any = any;
	return r;
}
