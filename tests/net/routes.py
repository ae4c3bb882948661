# SPDX-License-Identifier: GPL-2.0
"""Worlds with two routers on each side of the node, and a link between them that may be narrow:

    client --- far --- near --- node --- first --- second --- b7

Ends and routers are ordinary Linux hosts with every offload on. Only the links of the node are like wires: what a router sends
there has been cut into segments, and has whole checksums."""

from conftest import Place
from world import NODE, Host, link

CLIENT = {4: "198.51.100.100", 6: "2001:db8:d::100"}
# The addresses that a router's own errors come from: of the device towards whom it tells.
FAR, NEAR = {4: "198.51.100.1", 6: "2001:db8:d::1"}, {4: "198.51.101.1", 6: "2001:db8:e::1"}
FIRST, SECOND = {4: "10.0.70.2", 6: "2001:db8:70::2"}, {4: "10.0.72.2", 6: "2001:db8:72::2"}


def router(name):
    host = Host(name)
    host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0"
            " net.ipv6.icmp.ratelimit=0")
    return host


def narrow(mtu, *ends):
    """The devices of a link: neither sends nor takes more."""
    for host, device in ends:
        host.ip("link", "set", device, "mtu", mtu)


def far_client(net, mtu=1500):
    """Moves the client away, behind two routers and a link of that MTU between them."""
    near, far = router("near"), router("far")
    net.client.run("ip", "link", "del", "eth0")
    link(NODE, "eth0", near, "eth0", xdp_peer=True)
    link(near, "eth1", far, "eth0")
    link(far, "eth1", net.client, "eth0")
    NODE.address("eth0", "192.0.2.1/24", "2001:db8:c::1/64")
    near.address("eth0", "192.0.2.2/24", "2001:db8:c::2/64")
    near.address("eth1", "198.51.101.1/24", "2001:db8:e::1/64")
    far.address("eth0", "198.51.101.2/24", "2001:db8:e::2/64")
    far.address("eth1", "198.51.100.1/24", "2001:db8:d::1/64")
    net.client.address("eth0", "198.51.100.100/24", "2001:db8:d::100/64")
    for host, v4, v6 in ((near, "192.0.2.1", "2001:db8:c::1"), (far, "198.51.101.1", "2001:db8:e::1"),
                         (net.client, "198.51.100.1", "2001:db8:d::1")):
        host.route("default", "via", v4)
        host.route("default", "via", v6)
    near.route("198.51.100.0/24", "via", "198.51.101.2")
    near.route("2001:db8:d::/64", "via", "2001:db8:e::2")
    for prefix4, prefix6 in (("198.51.100.0/23", "2001:db8:d::/64"), (None, "2001:db8:e::/64")):
        if prefix4:
            NODE.route(prefix4, "via", "192.0.2.2")
        NODE.route(prefix6, "via", "2001:db8:c::2")
    narrow(mtu, (near, "eth1"), (far, "eth0"))
    return near, far


def far_backend(mtu=1500):
    """A backend behind two routers, and a link of that MTU between them."""
    first, second, host = router("first"), router("second"), Host("b7")
    link(NODE, "eth7", first, "eth0", xdp_peer=True)
    NODE.run("ethtool", "-K", "eth7", "gro", "on")
    link(first, "eth1", second, "eth0")
    link(second, "eth1", host, "eth0")
    NODE.address("eth7", "10.0.70.1/24", "2001:db8:70::1/64")
    first.address("eth0", "10.0.70.2/24", "2001:db8:70::2/64")
    first.address("eth1", "10.0.72.1/24", "2001:db8:72::1/64")
    second.address("eth0", "10.0.72.2/24", "2001:db8:72::2/64")
    second.address("eth1", "10.0.71.1/24", "2001:db8:71::1/64")
    host.address("eth0", "10.0.71.2/24", "2001:db8:71::2/64")
    for one, v4, v6 in ((first, "10.0.70.1", "2001:db8:70::1"), (second, "10.0.72.1", "2001:db8:72::1"),
                        (host, "10.0.71.1", "2001:db8:71::1")):
        one.route("default", "via", v4)
        one.route("default", "via", v6)
    for one, v4, v6 in ((first, "10.0.72.2", "2001:db8:72::2"), (NODE, "10.0.70.2", "2001:db8:70::2")):
        one.route("10.0.71.0/24", "via", v4)
        one.route("2001:db8:71::/64", "via", v6)
    NODE.route("10.0.72.0/24", "via", "10.0.70.2")
    NODE.route("2001:db8:72::/64", "via", "2001:db8:70::2")
    narrow(mtu, (first, "eth1"), (second, "eth0"))
    return Place(host, "10.0.71.2", "2001:db8:71::2")
