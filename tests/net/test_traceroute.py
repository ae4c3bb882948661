# SPDX-License-Identifier: GPL-2.0
"""traceroute to a VIP: every hop answers with an address of its own, the node with the VIP, and so does the end."""

import shutil

import pytest
from conftest import VIPS
from direct import PORT, no_rp_filter, own_vips, serve
from routes import FAR, FIRST, NEAR, SECOND, far_backend, far_client
from world import NODE, lbctl_json

PROBES = {"udp": ["-U", "-p", PORT], "tcp": ["-T", "-p", PORT], "icmp": ["-I"]}


def hops(net, family, probe, address=None):
    """Who answered, hop by hop."""
    if not shutil.which("traceroute"):
        pytest.skip("no traceroute (scripts/install-deps --tests)")
    result = net.client.run("traceroute", f"-{family}", "-n", "-q", 1, "-N", 1, "-w", 2, "-m", 10, *PROBES[probe],
                            address or VIPS[family])
    return [line.split()[1] for line in result.stdout.splitlines()[1:]]


@pytest.fixture(name="far")
def make_far(net):
    far_client(net)
    place = own_vips(far_backend())
    no_rp_filter(NODE)
    net.attach("eth0", "eth7")
    return place


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("probe", ("udp", "tcp"))
@pytest.mark.parametrize("forward", ("nat", "dnat"))
def test_hops_before_and_behind(net, far, forward, probe, family):
    """Routers behind the node tell it of a packet that they know under other addresses; the client is told of its own."""
    serve(net, [far], family, family, probe, forward=forward)
    assert hops(net, family, probe) == [FAR[family], NEAR[family], VIPS[family], FIRST[family], SECOND[family], VIPS[family]]


@pytest.mark.parametrize("family,outer", [(4, 4), (4, 6), (6, 4), (6, 6)])
@pytest.mark.parametrize("probe", ("udp", "tcp"))
@pytest.mark.parametrize("forward", ("ipip", "gue"))
def test_a_tunnel_is_one_hop(net, far, forward, probe, family, outer):
    """The outer header has a TTL of its own."""
    serve(net, [far], family, outer, probe, forward=forward)
    assert hops(net, family, probe) == [FAR[family], NEAR[family], VIPS[family], VIPS[family]]


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("probe", ("udp", "tcp"))
def test_l2_is_no_hop_more_than_the_node(net, probe, family):
    far_client(net)
    place = own_vips(net.neighbour(1, "eth1"))
    no_rp_filter(NODE)
    net.attach("eth0", "eth1")
    serve(net, [place], family, family, probe, forward="l2")
    assert hops(net, family, probe) == [FAR[family], NEAR[family], VIPS[family], VIPS[family]]


@pytest.mark.parametrize("family", (4, 6))
def test_echo_ends_at_the_node(net, far, family):
    """It is the node that answers pings; so it is the end, whatever is behind it."""
    serve(net, [far], family, family)
    assert hops(net, family, "icmp") == [FAR[family], NEAR[family], VIPS[family]]


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("probe", PROBES)
def test_past_the_node_to_others(net, far, probe, family):
    """To an address that is no VIP the node is a router as any other, and answers with its own address."""
    serve(net, [far], family, family, "tcp" if probe == "icmp" else probe)
    own = {4: "192.0.2.1", 6: "2001:db8:c::1"}[family]
    assert hops(net, family, probe, far.addresses[family]) == [FAR[family], NEAR[family], own, FIRST[family], SECOND[family],
                                                               far.addresses[family]]
    (entry,) = lbctl_json("services", "list")
    assert entry["packets"] == 0


@pytest.mark.parametrize("family", (4, 6))
@pytest.mark.parametrize("probe", ("udp", "tcp"))
def test_a_service_without_backends_ends_at_the_node(net, far, probe, family):
    """Refused in the VIP's name: by RST, or by port unreachable."""
    assert far
    serve(net, [], family, family, probe)
    # traceroute's hops are one a TTL: the node says first that the time is over, and with one hop more that nobody is there.
    assert hops(net, family, probe) == [FAR[family], NEAR[family], VIPS[family], VIPS[family]]
