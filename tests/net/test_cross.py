# SPDX-License-Identifier: GPL-2.0
"""nat between families, with real sockets: clients of one family, backends that they see nothing of."""

import pytest
import world
from conftest import text

PLACES = {
    "another attached device": (lambda net: net.neighbour(1, "eth1"), ["eth0", "eth1"]),
    "same device": (lambda net: net.same_device(), ["eth0"]),
    "same device, VLAN": (lambda net: net.same_device(1), ["eth0"]),
    "behind a router": (lambda net: net.behind_router(), ["eth0", "eth7"]),
}
ROWS = [(place, family) for place in PLACES for family in (4, 6)]


def serve(net, place, family, protocol):
    key = net.serve([], family, protocol)
    world.lbctl("backends", "add", key, text(place.addresses[10 - family], 8080))
    return key


@pytest.mark.parametrize("place,family", ROWS, ids=["-".join(map(str, row)) for row in ROWS])
def test_there_and_back(net, place, family):
    """10 MB each way, compared; UDP; the backend sees this node's address of its own family."""
    make, devices = PLACES[place]
    there = make(net)
    net.attach(*devices)
    for protocol in ("tcp", "udp"):
        serve(net, there, family, protocol)
    for answer in net.ask("tcp", family, 3, 100) + net.ask("udp", family, 3):
        assert answer.get("name") == there.host.name, answer
        assert ("." in answer["client"]) == (family == 6), answer
    (answer,) = net.ask("tcp", family, 1, 10_000_000)
    assert answer.get("intact"), answer
    assert "do not get back" not in world.lbctl("status").stdout


@pytest.mark.parametrize("family", (4, 6))
def test_path_mtu(net, family):
    """A router in front of the backend takes less than the client's packets are long: its errors slow the first connection for a
    moment, and break none."""
    there = net.behind_router()
    router = world.Host("router", there=True)
    router.run("ip", "link", "set", "eth1", "mtu", "1400")
    there.host.run("ip", "link", "set", "eth0", "mtu", "1400")
    net.attach("eth0", "eth7")
    serve(net, there, family, "tcp")
    # The backend announces what it can take; the client is made not to listen.
    net.client.run("ip", *(["-6"] if family == 6 else []), "route", "change", "default", "via",
                   {4: "192.0.2.1", 6: "2001:db8:c::1"}[family], "advmss", "1440")
    (answer,) = net.ask("tcp", family, 1, 1_000_000)
    assert answer.get("intact"), answer


def test_behind_a_device_without_xlb(net):
    """Replies that come in elsewhere are not translated: status says so."""
    there = net.pod_on_bridge()
    net.attach("eth0")
    key = serve(net, there, 4, "tcp")
    line = f"{key}: [2001:db8:3::2]:8080 is behind cni0, where xlb is not attached"
    assert line in world.lbctl("status").stdout


def test_this_node_itself(net):
    """A socket of this node cannot be reached so, and the command says it."""
    net.attach("eth0")
    key = net.serve([], 4)
    refused = world.lbctl("backends", "add", key, "[2001:db8:c::1]:8080", check=False)
    assert refused.returncode == 1
    assert "[2001:db8:c::1]:8080: is this node itself, which nat from IPv4 to IPv6 does not reach" in refused.stderr
