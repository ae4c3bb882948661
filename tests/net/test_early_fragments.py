# SPDX-License-Identifier: GPL-2.0
"""Fragments that come before their first: they wait for it, and follow it wherever it goes."""

import os
import socket

import pytest
from conftest import VIPS, text
from direct import DIRECT, TRANSLATED, no_rp_filter, own_vips
from large import PORT, answer_large, answer_to, drops, forked, fragments, take_out_of_tunnels, udp_datagram
from world import NODE, lbctl, lbctl_json, wait_for

WHOLE = 4000    # of data
IN_ORDER, LAST_FIRST, REVERSED, SHUFFLED = (0, 1, 2, 3), (3, 0, 1, 2), (3, 2, 1, 0), (2, 3, 1, 0)
HEADER = {4: 20, 6: 48}     # of a fragment


def ask_in_pieces(family, size, orders):
    """A datagram in fragments of that size, in each of those orders; whether it was answered. One flow."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as asking, socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        asking.connect((VIPS[family], PORT))
        asking.settimeout(1.5)
        source, port = asking.getsockname()[:2]
        for order in orders:
            data = os.urandom(WHOLE)
            pieces = fragments(family, source, int.from_bytes(os.urandom(2), "big"), udp_datagram(family, source, port, PORT, data), size)
            for place in order:
                raw.sendto(pieces[place], (VIPS[family], 0))
            try:
                print(asking.recv(65536) == answer_to(data))
            except TimeoutError:
                print(None)


def ask(net, family, size, *orders):
    return net.client.fork(ask_in_pieces, family, size, orders, timeout=60).output().split()


def add(address, family, forward):
    key = f"{text(VIPS[family], PORT)}/udp"
    lbctl("services", "add", key, f"--forward={forward}")
    lbctl("backends", "add", key, text(address, PORT))


def all_arrive(net, family, size=1024):
    """In any order, and all are counted."""
    ask(net, family, size, IN_ORDER)    # until the neighbours are known, which they are after a first answer, fragments are lost
    (before,) = lbctl_json("backends", "list")
    assert ask(net, family, size, REVERSED, IN_ORDER, LAST_FIRST, SHUFFLED) == ["True"] * 4, drops()
    assert not drops()
    (after,) = lbctl_json("backends", "list")
    count = -(-(WHOLE + 8) // size)
    assert after["packets"] - before["packets"] == 4 * count
    assert after["bytes"] - before["bytes"] == 4 * (WHOLE + 8 + count * HEADER[family])


WAYS = [(place, *mode) for mode in TRANSLATED
        for place in ("another device", "same device", "Pod on a bridge", "behind a router", "VLAN", "generic mode")
        if mode[0] == "nat" or place not in ("same device", "VLAN")]    # there a backend would answer past the node


@pytest.mark.parametrize("place,forward,family,outer", WAYS)
def test_translated(net, place, forward, family, outer):
    assert family == outer
    device, mode = "eth0", ()
    if place == "another device" or place == "generic mode":
        there = net.neighbour(1, "eth1")
        device = "eth1"
        if place == "generic mode":
            NODE.run("ethtool", "-K", "eth0", "gro", "off")
            mode = ("--mode", "generic")
    elif place == "behind a router":
        there = net.behind_router()
        device = "eth7"
    elif place == "Pod on a bridge":
        there = net.pod_on_bridge()
    else:
        there = net.same_device(tags=1 if place == "VLAN" else 0)
        there.host.run("ethtool", "-K", "eth0", "tx", "off")
    no_rp_filter(NODE)
    net.attach(*dict.fromkeys(("eth0", device)), *mode)
    forked(there.host, answer_large)
    add(there.addresses[family], family, forward)
    all_arrive(net, family)


@pytest.mark.parametrize("family", (4, 6))
def test_node_itself(net, family):
    """They are taken up behind their first."""
    server = NODE.fork(answer_large)
    assert server.stdout.readline() == "ready\n"
    net.attach("eth0")
    add({4: "192.0.2.1", 6: "2001:db8:c::1"}[family], family, "nat")
    try:
        all_arrive(net, family)
    finally:
        server.kill()


@pytest.mark.parametrize("forward,inner,outer", DIRECT)
def test_direct_return(net, forward, inner, outer):
    there = own_vips(net.neighbour(1, "eth1"))
    net.attach("eth0", "eth1")
    forked(there.host, answer_large)
    add(there.addresses[outer], inner, forward)
    all_arrive(net, inner)


@pytest.mark.parametrize("forward,outer", [("ipip", 4), ("ipip", 6), ("gue", 4), ("gue", 6)])
def test_fragments_that_the_tunnel_fragments(net, forward, outer):
    """All but the last are too long for it, whether they waited or not."""
    there = net.neighbour(1, "eth1")
    net.attach("eth0", "eth1")
    take_out_of_tunnels(there.host, VIPS[4])
    forked(there.host, answer_large)
    add(there.addresses[outer], 4, forward)
    ask(net, 4, 1480, (0, 1, 2))
    assert ask(net, 4, 1480, (2, 1, 0), (0, 1, 2), (1, 2, 0)) == ["True"] * 3, drops()
    assert not drops()


def test_no_more_than_eight_wait_for_one_first(net):
    """The ninth is dropped by name, at once; others when their place is wanted and their first has not come in two seconds."""
    there = net.neighbour(1, "eth1")
    net.attach("eth0", "eth1")
    forked(there.host, answer_large)
    add(there.addresses[4], 4, "nat")
    late = tuple(range(1, 11))
    assert ask(net, 4, 400, late) == ["None"]
    assert drops() == {"no_fragment": 2}
    assert ask(net, 4, 1024, IN_ORDER) == ["True"]
    (entry,) = lbctl_json("backends", "list")
    assert entry["packets"] == 4    # of those that went nowhere, nothing is counted

    def again():
        ask(net, 4, 400, *[late] * 8)
        return drops()["no_fragment"] > 8 * 2 + 2

    wait_for(again, what="places that are used again")
