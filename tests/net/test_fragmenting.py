# SPDX-License-Identifier: GPL-2.0
"""Large datagrams from senders that leave it to the network to fragment them: every link takes 1,500 bytes, and tunnels less; or a
link is narrow."""

import json
import os
import socket

import pytest
from conftest import VIPS, text
from direct import PORT as TCP_PORT
from direct import own_vips, serve
from large import DISCOVER_DONT, MTU_DISCOVER, PORT, answer_large, answer_to, drops, forked, take_out_of_tunnels
from world import NODE, lbctl

SIZES = (1400, 1453, 1472, 1473, 4000, 60000)


def ask_large(address, sizes, most):
    """A datagram of each size, without DF."""
    for size in sizes:
        # Each with a port, and so with a flow, of its own.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, DISCOVER_DONT)
            one.settimeout(3)
            one.connect((address, PORT))
            data = os.urandom(size)
            one.send(data)
            try:
                answer = one.recv(65536)
            except TimeoutError:
                answer = b""
            print(json.dumps({"size": size, "intact": answer == answer_to(data, most)}))


def asked_for(net, sizes=SIZES, most=65536):
    """Until the neighbours are known, which they are after a first answer, fragments are lost."""
    net.client.fork(ask_large, VIPS[4], (100, 100), most).output()
    lines = net.client.fork(ask_large, VIPS[4], sizes, most, timeout=60).output().splitlines()
    return {entry["size"]: entry["intact"] for entry in map(json.loads, lines)}


def add(place, forward, outer, **options):
    key = f"{text(VIPS[4], PORT)}/udp"
    lbctl("services", "add", key, f"--forward={forward}", *[f"--{name}={value}" for name, value in options.items()])
    lbctl("backends", "add", key, text(place.addresses[outer], PORT))


@pytest.mark.parametrize("scheduler", ("maglev", "lc"))
@pytest.mark.parametrize("forward,outer", [("ipip", 4), ("ipip", 6), ("gue", 4), ("gue", 6)])
@pytest.mark.parametrize("place", ("another device", "same device"))
def test_large_datagrams_through_tunnels(net, place, forward, outer, scheduler):
    """Every fragment of the client is as long as the link takes, and gets two in the tunnel."""
    if place == "another device":
        there = net.neighbour(1, "eth1")
        net.attach("eth0", "eth1")
    else:
        there = net.same_device()
        net.attach("eth0")
    take_out_of_tunnels(there.host, VIPS[4])
    forked(there.host, answer_large)
    add(there, forward, outer, scheduler=scheduler)
    assert asked_for(net) == dict.fromkeys(SIZES, True), drops()
    assert not drops()


@pytest.mark.parametrize("forward,outer", [("ipip", 4), ("ipip", 6), ("gue", 4)])
def test_tcp_without_df_through_tunnels(net, forward, outer):
    """Segments that follow each other closely, each of which gets two fragments: none may be merged with the next on its way to tc."""
    there = net.neighbour(1, "eth1")
    net.attach("eth0", "eth1")
    take_out_of_tunnels(there.host, VIPS[4])
    net.client.run("sysctl", "-qw", "net.ipv4.ip_no_pmtu_disc=1")
    net.client.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    NODE.run("ethtool", "-K", "eth0", "gro", "on")
    serve(net, [there], 4, outer, forward=forward)
    (answer,) = net.ask("tcp", size=300_000, port=TCP_PORT)
    assert answer.get("intact"), (answer, drops(), there.host.run("nstat", "-as").stdout, NODE.run("nstat", "-as").stdout)
    assert not drops()


def ask_by_ipv6(address, sizes):
    """The sizes of packets, with headers, that are answered."""
    for size in sizes:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.settimeout(3)
            one.connect((address, PORT))
            data = os.urandom(size - 48)
            one.send(data)
            try:
                intact = one.recv(65536) == answer_to(data)
            except TimeoutError:
                intact = False
            print(json.dumps([size, intact]))


@pytest.mark.parametrize("forward,outer", [("ipip", 6), ("gue", 6), ("ipip", 4)])
def test_ipv6_in_a_tunnel_over_the_narrowest_way(net, forward, outer):
    """1,280 bytes of IPv6 arrive over any way, also where a way of no more than that has to take the tunnel's header as well."""
    there = net.neighbour(1, "eth1", mtu=1280)
    NODE.run("ip", "link", "set", "eth1", "mtu", 1280)
    net.attach("eth0", "eth1")
    take_out_of_tunnels(there.host, VIPS[6])
    forked(there.host, answer_large)
    key = f"{text(VIPS[6], PORT)}/udp"
    lbctl("services", "add", key, "--forward", forward)
    lbctl("backends", "add", key, text(there.addresses[outer], PORT))
    # Until the neighbours are known, fragments are lost.
    net.client.fork(ask_by_ipv6, VIPS[6], (100, 100)).output()
    sizes = (1000, 1240, 1241, 1260, 1261, 1280)
    answered = net.client.fork(ask_by_ipv6, VIPS[6], sizes, timeout=60).output().splitlines()
    assert dict(map(json.loads, answered)) == dict.fromkeys(sizes, True), drops()
    assert not drops()


@pytest.mark.parametrize("forward", ("nat", "dnat", "l2"))
def test_a_narrow_link_behind_the_node(net, forward):
    there = net.neighbour(1, "eth1")
    NODE.run("ip", "link", "set", "eth1", "mtu", 1400)
    there.host.run("ip", "link", "set", "eth0", "mtu", 1400)
    if forward == "l2":
        own_vips(there)
    net.attach("eth0", "eth1")
    forked(there.host, answer_large)
    add(there, forward, 4)
    assert asked_for(net) == dict.fromkeys(SIZES, True), drops()
    assert not drops()


@pytest.mark.parametrize("forward", ("nat", "dnat"))
def test_a_narrow_link_before_the_node(net, forward):
    """What backends answer is fragmented, too."""
    there = net.neighbour(1, "eth1")
    NODE.run("ip", "link", "set", "eth0", "mtu", 1400)
    net.client.run("ip", "link", "set", "eth0", "mtu", 1400)
    net.attach("eth0", "eth1")
    forked(there.host, answer_large)
    add(there, forward, 4)
    assert asked_for(net) == dict.fromkeys(SIZES, True), drops()


@pytest.mark.parametrize("forward", ("nat", "dnat"))
@pytest.mark.parametrize("pod", ("pod_on_bridge", "pod_on_veth"))
def test_a_pod_before_a_narrow_link(net, forward, pod):
    """Its own fragments are fragmented again. A whole datagram cannot be, because its checksum is left to a device: the Pod is told, and
    fragments the next one itself."""
    there = getattr(net, pod)()
    NODE.run("ip", "link", "set", "eth0", "mtu", 1400)
    net.client.run("ip", "link", "set", "eth0", "mtu", 1400)
    net.attach("eth0")
    forked(there.host, answer_large)
    add(there, forward, 4)
    asked_for(net, (1400,))
    assert asked_for(net) == dict.fromkeys(SIZES, True), drops()
    assert not drops()


def test_to_ipv6(net):
    """nat to the other family takes 20 bytes more. What comes in fragments is not translated: neither are long answers."""
    there = net.neighbour(1, "eth1")
    net.attach("eth0", "eth1")
    forked(there.host, answer_large, 1000)
    add(there, "nat", 6)
    assert asked_for(net, (1400, 1452, 1453, 1472), 1000) == dict.fromkeys((1400, 1452, 1453, 1472), True), drops()


def test_who_asked_to_be_told_is_told(net):
    """The same datagram with DF: ICMP, and nothing in the tunnel."""
    there = net.neighbour(1, "eth1")
    own_vips(there)
    net.attach("eth0", "eth1")
    add(there, "ipip", 4)
    done = net.client.run("ping", "-M", "do", "-c", "1", "-W", "1", "-s", "1472", VIPS[4], check=False)
    assert done.returncode == 0     # echo is answered here
    program = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(0, 10, 2); "
               f"s.connect(('{VIPS[4]}', {PORT})); s.settimeout(2); s.send(bytes(1472)); s.recv(10)")
    done = net.client.run("/usr/bin/python3", "-c", program, check=False)
    assert "Connection refused" not in done.stderr and "Message too long" in done.stderr, done.stderr
