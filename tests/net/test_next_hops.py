# SPDX-License-Identifier: GPL-2.0
"""Real TCP and UDP from a client to a backend, wherever the backend is."""

import json

import pytest
import traffic
import world
from conftest import PORT, TAG_OBJECT, VIPS

MEGABYTES_10 = 10_000_000

PLACES = {
    "same device": (lambda net: net.same_device(), ["eth0"]),
    "same device, VLAN": (lambda net: net.same_device(1), ["eth0"]),
    "same device, two tags": (lambda net: net.same_device(2), ["eth0"]),
    "another attached device": (lambda net: net.neighbour(1, "eth1"), ["eth0", "eth1"]),
    "a device without XDP": (lambda net: net.neighbour(2, "eth2"), ["eth0"]),
    "behind a router": (lambda net: net.behind_router(), ["eth0", "eth7"]),
    "Pod on a bridge": (lambda net: net.pod_on_bridge(), ["eth0"]),
    "Pod behind its own veth": (lambda net: net.pod_on_veth(), ["eth0"]),
    "Pod behind vxlan": (lambda net: net.behind_vxlan(), ["eth0"]),
}


def possible(place, forward, routing):
    """Replies of a dnat service must be routed through the node; on the client's own link they would not be. Without
    ip_forward the kernel tells no next hop, the stack sends the packet, and tags are not the stack's here."""
    if not place.startswith("same device"):
        return True
    return forward == "nat" and (routing == "forwarding" or place == "same device")


ROWS = [(place, forward, family, routing) for place in PLACES for forward in ("nat", "dnat") for family in (4, 6)
        for routing in ("forwarding", "no-forwarding") if possible(place, forward, routing)]


def expect(answers, host, client):
    assert answers
    for answer in answers:
        assert answer.get("name") == host, answers
        assert answer["client"].removeprefix("::ffff:") == client or client is None, answers


@pytest.mark.parametrize("place,forward,family,routing", ROWS, ids=["-".join(map(str, row)) for row in ROWS])
def test_there_and_back(net, place, forward, family, routing):
    """10 MB each way, compared; UDP; strict rp_filter; with and without ip_forward (then replies of dnat services, which the
    kernel routes, cannot come, except by tc)."""
    make, devices = PLACES[place]
    there = make(net)
    world.sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >$f; done")
    world.forwarding(routing == "forwarding")
    net.attach(*devices)
    for protocol in ("tcp", "udp"):
        net.serve([there], family, protocol, forward=forward)
    client = {4: "192.0.2.100", 6: "2001:db8:c::100"}[family] if forward == "dnat" else None
    expect(net.ask("tcp", family, 3, 100), there.host.name, client)
    (answer,) = net.ask("tcp", family, 1, MEGABYTES_10)
    assert answer.get("intact"), answer
    expect(net.ask("udp", family, 3), there.host.name, client)
    if forward == "nat":
        (answer,) = net.ask("tcp", family, 1, 10)
        assert answer["client"].removeprefix("::ffff:") != {4: "192.0.2.100", 6: "2001:db8:c::100"}[family]


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
@pytest.mark.parametrize("place", ("a device without XDP", "Pod on a bridge", "Pod behind vxlan"))
def test_client_behind_a_router(net, place, forward, family):
    """Replies go back by the router that the client is behind."""
    net.client_behind_router()
    make, devices = PLACES[place]
    there = make(net)
    if place == "Pod behind vxlan" and forward == "dnat":
        other = world.Host("other", there=True)
        other.route("198.51.100.0/24", "via", "10.44.0.0", "dev", "flannel.1", "onlink")
        other.route("2001:db8:d::/64", "via", "2001:db8:44:0::", "dev", "flannel.1", "onlink")
    net.attach(*devices)
    for protocol in ("tcp", "udp"):
        net.serve([there], family, protocol, forward=forward)
    (answer,) = net.ask("tcp", family, 1, MEGABYTES_10)
    assert answer.get("intact") and answer["name"] == there.host.name, answer
    expect(net.ask("udp", family, 3), there.host.name,
           {4: "198.51.100.100", 6: "2001:db8:d::100"}[family] if forward == "dnat" else None)


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("place", ("same device", "another attached device", "Pod on a bridge"))
def test_generic_mode(net, place, family):
    """The same programs where the driver has no XDP."""
    make, devices = PLACES[place]
    there = make(net)
    net.attach("--mode", "generic", *devices)
    assert {device["mode"] for device in world.lbctl_json("status")["devices"]} <= {"generic", "replies"}
    for protocol in ("tcp", "udp"):
        net.serve([there], family, protocol)
    (answer,) = net.ask("tcp", family, 1, MEGABYTES_10)
    assert answer.get("intact") and answer["name"] == there.host.name, answer
    expect(net.ask("udp", family, 3), there.host.name, None)


def tag_beside(host):
    """Tags what leaves a host as a NIC does that takes tags off what it receives: they are beside the packets, where XDP does not see
    them."""
    host.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    host.run("tc", "filter", "add", "dev", "eth0", "egress", "bpf", "direct-action", "object-file", TAG_OBJECT, "section", "tag1")


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
@pytest.mark.parametrize("mode", ("native", "generic", "generic to native"))
@pytest.mark.parametrize("tagged", ("client", "backend"))
def test_tags_beside_the_packet(net, tagged, mode, forward, family):
    """Neither requests nor replies take them along to another link: not by tc, nor by the redirect of generic mode."""
    there = net.neighbour(2, "eth2")
    if mode == "generic to native":
        net.attach("--mode", "generic", "eth0" if tagged == "client" else "eth2")
        net.attach("--mode", "native", "eth2" if tagged == "client" else "eth0")
    else:
        net.attach("--mode", mode, "eth0")
    tag_beside(net.client if tagged == "client" else there.host)
    for protocol in ("tcp", "udp"):
        net.serve([there], family, protocol, forward=forward)
    client = {4: "192.0.2.100", 6: "2001:db8:c::100"}[family] if forward == "dnat" else None
    expect(net.ask("tcp", family, 3, 100), there.host.name, client)
    expect(net.ask("udp", family, 3), there.host.name, client)


@pytest.mark.parametrize("mode", ("native", "generic"))
def test_a_vlan_whose_tag_is_beside_the_packet(net, mode):
    """The client on a VLAN sub-interface of a veth, the backend on the veth itself: requests leave by the device that they came by, and
    without the tag, of which XDP sees nothing."""
    there = net.same_device()
    for host, last in ((world.NODE, 1), (net.client, 100)):
        if host.run("ip", "link", "add", "eth0.5", "link", "eth0", "type", "vlan", "id", "5", check=False).returncode:
            pytest.skip("this kernel has no VLAN devices")
        host.run("ip", "link", "set", "eth0.5", "up")
        host.address("eth0.5", f"198.51.100.{last}/24")
    net.client.route("203.0.113.0/24", "via", "198.51.100.1")
    net.attach("--mode", mode, "eth0")
    for protocol in ("tcp", "udp"):
        net.serve([there], 4, protocol)
    expect(net.ask("tcp", 4, 3, 100), there.host.name, None)
    expect(net.ask("udp", 4, 3), there.host.name, None)


@pytest.mark.parametrize("family", (4, 6))
def test_a_device_that_takes_no_redirect(net, family):
    """A backend behind a device in generic mode, and clients on both sides of it: what the one's packets may do (out again where they came
    in) is not what the other's may."""
    there = net.neighbour(1, "eth1")
    net.attach("eth0")
    net.attach("--mode", "generic", "eth1")
    net.serve([there], family, "udp")
    near = there.host.fork(traffic.main, "udp", VIPS[family], PORT, 1500, timeout=120)
    answers = net.ask("udp", family, 60)
    expect(answers, there.host.name, None)
    # Both were at it all the time.
    expect([json.loads(line) for line in near.output().splitlines()], there.host.name, None)


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("place", ("another attached device", "Pod on a bridge"))
def test_first_packet_to_an_unresolved_neighbour(net, place, family):
    """The kernel resolves the neighbour and keeps the packet: no retransmission after a second is needed."""
    make, devices = PLACES[place]
    there = make(net)
    net.attach(*devices)
    net.serve([there], family)
    world.sh("ip neigh flush all; ip -6 neigh flush all")
    (answer,) = net.ask("tcp", family, 1, 10)
    assert answer.get("name") == there.host.name and answer["ms"] < 900, answer


def test_backend_on_the_node_itself(net):
    """A socket of the node (a host-network Pod): it sees the client's address, and its replies leave as the VIP's."""
    server = world.NODE.start("/usr/bin/python3", world.TOP / "tests/lib/traffic.py", "serve", "node", 8080,
                              stdout=-1)
    assert server.stdout.readline() == "ready\n"
    net.attach("eth0")
    key = net.serve([])
    world.lbctl("backends", "add", key, "192.0.2.1:8080")
    try:
        expect(net.ask("tcp", 4, 3, 100), "node", "192.0.2.100")
    finally:
        server.kill()
