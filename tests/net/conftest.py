# SPDX-License-Identifier: GPL-2.0
"""The node (the sandbox itself) with a client behind eth0, and backends wherever a packet may have to go."""

import json

import decapsulation
import pytest
import traffic
import world
from world import Host, NODE, TOP, link

TRAFFIC = TOP / "tests/lib/traffic.py"
TAG_OBJECT = TOP / "build/tests/lib/tag.bpf.o"
VIPS = {4: "203.0.113.10", 6: "2001:db8:99::10"}
PORT = 80


def text(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Place:
    """Where a backend is: its host and addresses by family."""

    def __init__(self, host, v4, v6):
        self.host, self.addresses = host, {4: v4, 6: v6}
        self.server = host.fork(traffic.serve, host.name, 8080)
        assert self.server.stdout.readline() == "ready\n"


class Net:
    """A world with one client; places are added by name."""

    def __init__(self):
        world.sysctl(net__ipv6__conf__default__accept_dad=0)
        self.client = Host("client")
        link(NODE, "eth0", self.client, "eth0", xdp_peer=True)
        NODE.address("eth0", "192.0.2.1/24", "2001:db8:c::1/64")
        self.client.address("eth0", "192.0.2.100/24", "2001:db8:c::100/64")
        self.client.route("default", "via", "192.0.2.1")
        self.client.route("default", "via", "2001:db8:c::1")
        world.forwarding(True)

    # Places.

    def neighbour(self, number, device, mtu=None):
        """A host one hop away, behind a device of its own."""
        host = Host(f"b{number}")
        link(NODE, device, host, "eth0", xdp_peer=True)
        NODE.run("ethtool", "-K", device, "gro", "on")
        return self.settle(host, device, number, mtu)

    def settle(self, host, device, number, mtu=None):
        NODE.address(device, f"10.0.{number}.1/24", f"2001:db8:{number}::1/64")
        host.address("eth0", f"10.0.{number}.2/24", f"2001:db8:{number}::2/64")
        host.route("default", "via", f"10.0.{number}.1")
        host.route("default", "via", f"2001:db8:{number}::1")
        if mtu:
            host.run("ip", "link", "set", "eth0", "mtu", str(mtu))
        return Place(host, f"10.0.{number}.2", f"2001:db8:{number}::2")

    def same_device(self, tags=0):
        """A host on the client's link: what goes to it leaves by the device that it came by (XDP_TX). With so many VLAN tags
        between switch and node: what leaves without them is lost."""
        switch = Host("switch")
        host = Host("b9")
        self.client.run("ip", "link", "del", "eth0")
        switch.run("ip", "link", "add", "br0", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        link(NODE, "eth0", switch, "p0", xdp_peer=True)
        for peer, port, last in ((self.client, "p1", 100), (host, "p2", 9)):
            link(switch, port, peer, "eth0")
            peer.run("ethtool", "-K", "eth0", "tx", "off")
            peer.address("eth0", f"192.0.2.{last}/24", f"2001:db8:c::{last}/64")
            peer.route("default", "via", "192.0.2.1")
            peer.route("default", "via", "2001:db8:c::1")
        for port in ("p0", "p1", "p2"):
            switch.run("ip", "link", "set", port, "master", "br0")
        NODE.address("eth0", "192.0.2.1/24", "2001:db8:c::1/64")
        if tags:
            self.trunk(switch, "p0", tags)
            for peer in (self.client, host):
                peer.run("ip", "link", "set", "eth0", "mtu", "1400")
        return Place(host, "192.0.2.9", "2001:db8:c::9")

    @staticmethod
    def trunk(host, device, tags):
        """Tags what leaves by a device, and lets in what is tagged."""
        host.run("ethtool", "-K", device, "txvlan", "off", "tx-vlan-stag-hw-insert", "off")
        host.run("tc", "qdisc", "add", "dev", device, "clsact")
        for direction, section in (("egress", f"tag{tags}"), ("ingress", f"untag{tags}")):
            host.run("tc", "filter", "add", "dev", device, direction, "bpf", "direct-action", "object-file", TAG_OBJECT,
                     "section", section)

    def client_behind_router(self):
        """Moves the client away: a router takes its place on the node's link."""
        router = Host("gateway")
        self.client.run("ip", "link", "del", "eth0")
        link(NODE, "eth0", router, "eth0", xdp_peer=True)
        link(router, "eth1", self.client, "eth0")
        self.client.run("ethtool", "-K", "eth0", "tx", "off")
        NODE.address("eth0", "192.0.2.1/24", "2001:db8:c::1/64")
        router.address("eth0", "192.0.2.2/24", "2001:db8:c::2/64")
        router.address("eth1", "198.51.100.1/24", "2001:db8:d::1/64")
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        router.route("default", "via", "192.0.2.1")
        router.route("default", "via", "2001:db8:c::1")
        self.client.address("eth0", "198.51.100.100/24", "2001:db8:d::100/64")
        self.client.route("default", "via", "198.51.100.1")
        self.client.route("default", "via", "2001:db8:d::1")
        NODE.route("198.51.100.0/24", "via", "192.0.2.2")
        NODE.route("2001:db8:d::/64", "via", "2001:db8:c::2")

    def behind_router(self):
        router, host = Host("router"), Host("b7")
        link(NODE, "eth7", router, "eth0", xdp_peer=True)
        NODE.run("ethtool", "-K", "eth7", "gro", "on")
        link(router, "eth1", host, "eth0")
        host.run("ethtool", "-K", "eth0", "tx", "off")
        NODE.address("eth7", "10.0.70.1/24", "2001:db8:70::1/64")
        router.address("eth0", "10.0.70.2/24", "2001:db8:70::2/64")
        router.address("eth1", "10.0.71.1/24", "2001:db8:71::1/64")
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        host.address("eth0", "10.0.71.2/24", "2001:db8:71::2/64")
        host.route("default", "via", "10.0.71.1")
        host.route("default", "via", "2001:db8:71::1")
        router.route("default", "via", "10.0.70.1")
        router.route("default", "via", "2001:db8:70::1")
        NODE.route("10.0.71.0/24", "via", "10.0.70.2")
        NODE.route("2001:db8:71::/64", "via", "2001:db8:70::2")
        return Place(host, "10.0.71.2", "2001:db8:71::2")

    def pod_on_bridge(self):
        """A Pod of this node, as most network plugins make them: a veth on a bridge, checksums left to the device."""
        host = Host("pod3")
        world.run("ip", "link", "add", "cni0", "type", "bridge")
        world.run("ip", "link", "set", "cni0", "up")
        link(NODE, "p3", host, "eth0")
        world.run("ip", "link", "set", "p3", "master", "cni0")
        return self.settle(host, "cni0", 3)

    def pod_on_veth(self):
        """A Pod of this node with a route of its own to its own veth."""
        host = Host("pod4")
        link(NODE, "cali4", host, "eth0")
        NODE.address("cali4", "10.0.40.1/32", "fe80::4/64")
        NODE.route("10.0.4.2/32", "dev", "cali4")
        NODE.route("2001:db8:4::2/128", "dev", "cali4")
        host.address("eth0", "10.0.4.2/32", "2001:db8:4::2/128")
        host.route("10.0.40.1", "dev", "eth0")
        host.route("default", "via", "10.0.40.1", "dev", "eth0")
        host.route("default", "via", "fe80::4", "dev", "eth0")
        return Place(host, "10.0.4.2", "2001:db8:4::2")

    def behind_vxlan(self):
        """A Pod of another node, reached by a vxlan device, as flannel does. IPv4 and IPv6 inside."""
        other, pod = Host("other"), Host("pod5")
        link(NODE, "eth5", other, "eth0")
        NODE.address("eth5", "10.0.50.1/24")
        other.address("eth0", "10.0.50.2/24")
        for host, local, remote, number, mac in ((NODE, "10.0.50.1", "10.0.50.2", 0, "02:00:00:00:05:00"),
                                                 (other, "10.0.50.2", "10.0.50.1", 1, "02:00:00:00:05:01")):
            host.run("ip", "link", "add", "flannel.1", "address", mac, "type", "vxlan", "id", "1", "local",
                     local, "remote", remote, "dstport", "8472", "dev", "eth5" if host is NODE else "eth0")
            host.run("ip", "link", "set", "flannel.1", "up")
            host.address("flannel.1", f"10.44.{number}.0/32", f"2001:db8:44:{number}::/128")
        NODE.route("10.44.1.0/24", "via", "10.44.1.0", "dev", "flannel.1", "onlink")
        other.route("10.44.0.0/32", "dev", "flannel.1")
        # Replies that keep the client's address (dnat) are routed back through the node, as its users must see to.
        other.route("192.0.2.0/24", "via", "10.44.0.0", "dev", "flannel.1", "onlink")
        other.route("2001:db8:c::/64", "via", "2001:db8:44:0::", "dev", "flannel.1", "onlink")
        NODE.sh("ip neigh add 10.44.1.0 lladdr 02:00:00:00:05:01 dev flannel.1 nud permanent")
        other.sh("ip neigh add 10.44.0.0 lladdr 02:00:00:00:05:00 dev flannel.1 nud permanent")
        NODE.sh("ip -6 neigh add 2001:db8:44:1:: lladdr 02:00:00:00:05:01 dev flannel.1 nud permanent;"
                "ip -6 route add 2001:db8:44:1::/64 dev flannel.1;"
                "ip -6 neigh add 2001:db8:44:1::2 lladdr 02:00:00:00:05:01 dev flannel.1 nud permanent")
        other.sh("ip -6 route add 2001:db8:44:0::/128 dev flannel.1;"
                 "ip -6 neigh add 2001:db8:44:0:: lladdr 02:00:00:00:05:00 dev flannel.1 nud permanent;"
                 "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        link(other, "pod", pod, "eth0")
        pod.run("ip", "link", "set", "eth0", "mtu", "1450")
        other.address("pod", "10.44.1.1/24", "2001:db8:44:1::1/64")
        pod.address("eth0", "10.44.1.2/24", "2001:db8:44:1::2/64")
        pod.route("default", "via", "10.44.1.1")
        pod.route("default", "via", "2001:db8:44:1::1")
        return Place(pod, "10.44.1.2", "2001:db8:44:1::2")

    # Services and traffic.

    def attach(self, *devices):
        world.lbctl("attach", *devices)

    def vip(self, family=4, port=PORT, protocol="tcp"):
        return f"{text(VIPS[family], port)}/{protocol}"

    def serve(self, places, family=4, protocol="tcp", port=PORT, **options):
        key = self.vip(family, port, protocol)
        world.lbctl("services", "add", key, *[f"--{name}={value}" for name, value in options.items()])
        for place in places:
            world.lbctl("backends", "add", key, text(place.addresses[family], 8080))
        return key

    def ask(self, protocol, family=4, count=1, size=1000, port=PORT):
        words = [size] if protocol == "tcp" else []
        asking = self.client.fork(traffic.main, protocol, VIPS[family], port, count, *words, timeout=60 + 6 * count)
        return [json.loads(line) for line in asking.output().splitlines()]


@pytest.fixture
def net():
    world.reset()
    yield Net()
    world.reset()


@pytest.fixture
def decapsulating_backend(net):
    """Makes backends for the forwarding modes ipip and gue: decapsulating_backend(kind, number) is a host of that number behind a
    device of its own, which owns the VIPs of both families and takes packets for them out of tunnels of both."""
    def make(kind, number=8, device="eth8", port=decapsulation.GUE_PORT):
        place = net.neighbour(number, device)
        try:
            decapsulation.decapsulate(place, kind, VIPS, port=port)
        except decapsulation.Unsupported as missing:
            pytest.skip(str(missing))
        return place

    return make
